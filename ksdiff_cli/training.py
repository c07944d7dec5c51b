"""The two training stages (paper sec. 3.1-3.2): patches in, checkpoints out; they can be killed and resumed."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ksdiff_cli import __version__
from ksdiff_cli.dataset import PatchFile
from ksdiff_cli.errors import KsdiffError
from ksdiff_cli.models.checkpoint import save_model
from ksdiff_cli.models.ksdiff import Stage
from ksdiff_cli.progress import ProgressCallback, silent
from ksdiff_cli.training_run import Run, TrainingOptions

__all__ = ["TrainingOptions", "check_output", "choose_bands", "open_data", "train_stage"]


def _say_nothing(line: str) -> None:
    """Take a note for people and drop it."""


def check_output(options: TrainingOptions, stage: Stage, *, resume: bool, overwrite: bool) -> None:
    """Refuse to lose an earlier run, and to resume one that is not there.

    Raises:
        KsdiffError: see above, or stage 2 has no stage 1 to start from.
    """
    done, state = options.files(stage)
    if done.exists() and not overwrite:
        raise KsdiffError(f"{done}: exists; choose another folder with -o, or --overwrite")
    if state.exists() and not (resume or overwrite):
        raise KsdiffError(f"{state}: an unfinished run; continue it with --resume, or start anew with --overwrite")
    if overwrite and not resume:
        state.unlink(missing_ok=True)


def train_stage(
    options: TrainingOptions,
    stage: Stage,
    progress: ProgressCallback = silent,
    note: Callable[[str], None] = _say_nothing,
) -> Path:
    """Train one stage, or go on where a killed run of the same options stopped.

    Args:
        options: the run.
        stage: 1 (PLFE1 + network, eq. 4) or 2 (PLFE2 + denoiser + network, eq. 10).
        progress: told every step, with the live loss.
        note: told what a person should know.

    Returns:
        The stage's checkpoint.

    Raises:
        KsdiffError: no data, data that do not fit each other, or no stage 1 for stage 2.
    """
    done, state_path = options.files(stage)
    train, valid = open_data(options.data)
    if not valid:
        note("no validation file beside the training data: validation is skipped")
    run = Run(options, stage, train)
    if state_path.exists():
        run.restore(state_path)
        note(f"going on at step {run.step} of {options.steps}")
    losses: dict[str, float] = {}  # stays so if the run was killed between its last step and its checkpoint
    started, log = time.monotonic() - run.elapsed, options.run / "log.jsonl"
    options.run.mkdir(parents=True, exist_ok=True)
    while not run.finished:
        losses = run.advance()
        run.elapsed = time.monotonic() - started
        progress(run.step, options.steps, f"loss {losses['loss']:.4f}")
        if run.step % options.validate_every == 0 or run.finished:
            facts = {"stage": stage, "step": run.step, "seconds": round(run.elapsed, 1), **losses}
            facts |= run.validate(valid)
            with log.open("a") as file:
                file.write(json.dumps(facts) + "\n")
            run.save(state_path)
            if (cost := facts.get("shuffle_cost", 1.0)) < 0.005:
                note(f"step {run.step}: the prior is idle (another image's z costs {cost:.2%} of the loss)")
    training = {
        **options.plain(),
        # weights travel; the paths of one machine need not
        "data": [path.name for path in options.data],
        "init": options.init and options.init.name,
        "ksdiff_version": __version__,
        "losses": losses,
        "images": sum(map(len, train)),
    }
    save_model(run.averaged(), done, sensor=_sensors(train), training=training)
    state_path.unlink(missing_ok=True)
    return done


def open_data(paths: tuple[Path, ...]) -> tuple[list[PatchFile], list[PatchFile]]:
    """Open training files and the validation files beside them.

    Raises:
        KsdiffError: nothing to train on at one of the paths.
    """
    train: list[PatchFile] = []
    valid: list[PatchFile] = []
    for path in paths:
        nested = sorted(path.glob("*/train.h5")) if path.is_dir() and not (path / "train.h5").exists() else []
        if nested:
            below, beside_below = open_data(tuple(file.parent for file in nested))
            train, valid = train + below, valid + beside_below
            continue
        file = path / "train.h5" if path.is_dir() else path
        if not file.is_file():
            raise KsdiffError(
                f"{path}: holds no training patches (train.h5); make them with: ksdiff prepare-data SCENE -o {path}"
            )
        train.append(PatchFile(file))
        beside = file.with_name(file.name.replace("train", "valid", 1))
        if beside != file and beside.is_file():
            valid.append(PatchFile(beside))
    return train, valid


def choose_bands(files: list[PatchFile], universal: bool) -> int | None:
    """Return the bands the network sees at once: the data's, or None for one shared by any number of bands."""
    bands = {file.bands for file in files}
    return None if universal or len(bands) > 1 else bands.pop()


def _sensors(files: list[PatchFile]) -> dict[str, Any]:
    """The sensor's values; of several sensors their names."""
    sensors = [file.sensor for file in files]
    names = sorted({str(sensor.get("name", "unknown")) for sensor in sensors})
    return sensors[0] if len(names) == 1 else {"name": "+".join(names)}
