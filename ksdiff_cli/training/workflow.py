"""A run as people ask for it: options become settings, then one stage is trained after the other."""

from collections.abc import Callable
from contextlib import closing, nullcontext
from dataclasses import replace
from pathlib import Path

from ksdiff_cli.files.names import Inputs
from ksdiff_cli.models.config import ModelConfig
from ksdiff_cli.models.contract import Stage
from ksdiff_cli.models.peers.pixel_diffusion import PixelConfig
from ksdiff_cli.options.training import TrainOptions
from ksdiff_cli.process import limit_torch
from ksdiff_cli.progress import ProgressCallback, silent
from ksdiff_cli.training.log import StepCallback, TensorBoard
from ksdiff_cli.training.parallel import join_team
from ksdiff_cli.training.settings import RunSettings, settle
from ksdiff_cli.training.stages import check_output, hold_run, is_done, open_data, say_nothing, train_stage


def train(
    options: TrainOptions,
    config: ModelConfig | PixelConfig | None = None,
    on_step: StepCallback | None = None,
    progress: ProgressCallback = silent,
    note: Callable[[str], None] = say_nothing,
) -> list[Path]:
    """Train one stage or both; see :func:`ksdiff_cli.train`."""
    limit_torch(options.threads)
    files, beside = open_data(options.data, options.valid)
    settings = settle(options, config, files)
    inputs = Inputs([*(file.path for file in (*files, *beside)), *([settings.init] if settings.init else [])])
    board = TensorBoard(options.output) if options.tensorboard else None
    listeners = [each for each in (board, on_step) if each is not None]
    with (
        join_team(options.device) as team,
        hold_run(options.output, team),
        closing(board) if board else nullcontext(),
    ):
        settings = replace(settings, device=str(team.device))
        stages = _stages(options, settings)
        for number in stages:
            check_output(settings, number, inputs, resume=options.resume, overwrite=options.overwrite)
        made = []
        for number in stages:
            name = settings.name(number)
            if options.resume and is_done(settings, number):
                note(f"{name} is done")
                made.append(settings.file(number))
                continue

            def report(done: int, total: int, note: str = "", name: str = name) -> None:
                progress(done, total, f"{name}, {note}")

            made.append(train_stage(settings, number, report, note, team, listeners=listeners))
    return made


def _stages(options: TrainOptions, settings: RunSettings) -> tuple[Stage, ...]:
    if not isinstance(settings.config, ModelConfig):
        return (1,)
    numbers: dict[str, tuple[Stage, ...]] = {"1": (1,), "2": (2,), "all": (1, 2)}
    return (2,) if options.fine_tune else numbers[options.stage]
