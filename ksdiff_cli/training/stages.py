"""The two training stages (paper sec. 3.1-3.2): patches in, checkpoints out; they can be killed and resumed."""

import errno
import os
import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

from ksdiff_cli._version import __version__
from ksdiff_cli.errors import KsdiffError, StoppedError
from ksdiff_cli.files.names import Inputs, check_place
from ksdiff_cli.files.workdir import LOCK, lock_folder
from ksdiff_cli.files.writing import remove_growing, unwritable
from ksdiff_cli.models.checkpoint import read_header, save_model, weights_hash
from ksdiff_cli.models.config import ModelConfig
from ksdiff_cli.models.contract import ModelError, Stage
from ksdiff_cli.models.peers.pixel_diffusion import PixelConfig
from ksdiff_cli.options.training import TrainOptions
from ksdiff_cli.patches.compact import use_compact
from ksdiff_cli.patches.dataset import PatchFile
from ksdiff_cli.process import limit_torch
from ksdiff_cli.progress import Note, ProgressCallback, drop, silent
from ksdiff_cli.training.log import NAMES, Log, StepCallback, TensorBoard, TrainingStep
from ksdiff_cli.training.parallel import ALONE, Team, join_team
from ksdiff_cli.training.run import Run
from ksdiff_cli.training.settings import KEPT, RunSettings, settle
from ksdiff_cli.training.validation import IDLE, draw_pictures, measure_quality, validate

_UNWRITABLE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EEXIST}
_SAVE_SECONDS = 600  # between resume states where validations are further apart
_AGAIN = "the same command with --resume goes on from here"
_LOOK = 20  # steps between looks at the loss on a GPU, which has to stop for each


def check_output(
    settings: RunSettings, stage: Stage, inputs: Inputs | None = None, *, resume: bool, overwrite: bool
) -> None:
    """Refuse to lose an earlier run, or what this one reads.

    Raises:
        KsdiffError: there is one, and neither ``resume`` nor ``overwrite`` says what to do with it; or a file to be
            written is one of the inputs, a folder or a symbolic link.
    """
    done, state = settings.file(stage), settings.state(stage)
    weights = [done, *_beside(settings, stage)]
    for path in (*weights, state, *(settings.run / name for name in NAMES)):
        if settings.run.is_dir():
            check_place(path, inputs or Inputs(), overwrite=True)
    if not overwrite and Log(settings.run, settings.name(stage)).is_foreign():
        raise KsdiffError(f"{settings.run}: has other {' or '.join(NAMES)}; choose another folder with -o")
    if resume:
        return
    if state.exists() and not overwrite:  # which tells more than the weights that it has made on the way
        raise KsdiffError(f"{state}: an unfinished run; continue it with --resume, or start anew with --overwrite")
    for path in weights:
        if path.exists() and not overwrite:
            raise KsdiffError(
                f"{path}: exists; go on with that run by --resume, choose another folder with -o, or --overwrite"
            )
    state.unlink(missing_ok=True)


def _beside(settings: RunSettings, stage: Stage) -> list[Path]:
    """Return where a stage's best weights are or will be, and the checkpoints of it that are kept."""
    kept = (settings.run / KEPT).glob(f"{settings.name(stage)}_*.safetensors")
    return [settings.best_file(stage), *sorted(kept)]


def is_done(settings: RunSettings, stage: Stage) -> bool:
    """Tell whether a run that is resumed had finished this stage already.

    Raises:
        KsdiffError: the stage's weights are there but come from other options, other patches or another stage 1.
        ModelError: they cannot be read.
    """
    done = settings.file(stage)
    if settings.state(stage).exists() or not done.exists():
        return False
    training = read_header(done)["training"]
    plain = settings.plain() | _names(settings)
    if changed := settings.changed(training, plain):
        raise KsdiffError(
            f"{done}: was made with other values of {', '.join(changed)}; choose another folder with -o, or --overwrite"
        )
    if training.get("patches") != [file.identity for file in open_data(settings.data, settings.valid)[0]]:
        raise KsdiffError(f"{done}: was made from other patches; choose another folder with -o, or --overwrite")
    first = settings.file(1)
    if stage == 2 and not settings.fine_tune and first.exists() and training.get("stage1") != weights_hash(first):
        raise KsdiffError(f"{done}: was made from another {first}; train --stage 2 --overwrite")
    return True


@contextmanager
def hold_run(folder: Path, team: Team = ALONE) -> Iterator[None]:
    """Keep a run folder for the processes that train in it now; one of them holds it for all.

    Raises:
        KsdiffError: another run works there, or the folder cannot be made.
    """
    if not team.leads:
        yield
        return
    busy = f"{folder}: another ksdiff train (process {{owner}}) works there; wait until it ends, or change -o"
    with lock_folder(folder, busy):
        for place in (folder, folder / "pictures", folder / KEPT):
            remove_growing(place)
        try:
            yield
        finally:
            with suppress(OSError):
                (folder / LOCK).unlink()
                folder.rmdir()  # where nothing came of it


def train_stage(
    settings: RunSettings,
    stage: Stage,
    progress: ProgressCallback = silent,
    note: Note = drop,
    team: Team = ALONE,
    listeners: Sequence[StepCallback] = (),
) -> Path:
    """Train one stage, or go on where a killed run of the same options stopped.

    Args:
        settings: of the run.
        stage: 1 (PLFE1 + network, eq. 4) or 2 (PLFE2 + denoiser + network, eq. 10); 1 for pixel diffusion.
        progress: told every step, with the live loss.
        note: called with lines for people.
        team: the processes that train together; one of them writes.
        listeners: called after every step, with its losses and what was validated. On a GPU the losses of every step
            take time, as it has to stop for each.

    Returns:
        The stage's checkpoint.

    Raises:
        KsdiffError: no data, data that do not fit each other, no stage 1 for stage 2, a loss that is not finite, a
            run folder that cannot be written to, or a stop that somebody asked for, after the resume state is written.
        ModelError: the weights cannot be written.
    """
    train, valid = open_data(settings.data, settings.valid)
    _compact(train, settings, team, progress, note)
    run = Run(settings, stage, train, team)
    _check_sizes(train + valid, run)
    begun = settings.state(stage).exists()
    if begun:
        run.restore(settings.state(stage))
        note(f"going on at step {run.step} of {settings.steps}")
    team.wait()  # nobody writes before all have read
    if not begun and team.leads and settings.file(stage).exists():
        run.save(settings.state(stage))  # whoever resumes knows that the weights there are of an earlier run
    if not begun and team.leads:
        for path in _beside(settings, stage):
            path.unlink(missing_ok=True)
    if not valid:
        note("no validation file beside the training data: validation is skipped; --valid names one")
    try:
        _loop(run, train, valid, progress, note, listeners)
        if team.leads:
            _save(run, train, settings.file(stage))
            settings.state(stage).unlink(missing_ok=True)
    except OSError as error:
        if error.errno not in _UNWRITABLE:  # HDF5's complaints of damaged data are such errors too
            raise
        raise KsdiffError(f"{unwritable(settings.run, error)}; make room there; {_AGAIN}") from None
    finally:
        for file in (*train, *valid):
            file.close()
    team.wait()  # the next stage reads this one's weights
    return settings.file(stage)


def _compact(
    files: list[PatchFile],
    settings: RunSettings,
    team: Team,
    progress: ProgressCallback,
    note: Note,
) -> None:
    """Have files that are too large for memory read from compact copies, where a folder for these is named."""
    for file in files:
        if file.named_after is not None:
            note(f"{file.path}: taken for {file.named_after.name} by its name")
        if file.fits_memory:
            continue
        if settings.cache is None:
            note(f"{file.path}: too large for memory, read as needed; --cache DIR keeps a compact copy for slow disks")
            continue
        if team.leads:
            use_compact(file, settings.cache, progress)
        team.wait()
        if not team.leads:
            use_compact(file, settings.cache)


def _loop(
    run: Run,
    train: list[PatchFile],
    valid: list[PatchFile],
    progress: ProgressCallback,
    note: Note,
    listeners: Sequence[StepCallback],
) -> None:
    """Train until the stage is over; validate, draw and save in between."""
    settings, team = run.settings, run.team
    log = Log(settings.run, settings.name(run.stage))
    if team.leads:
        log.forget_after(run.step)
    started = saved = time.monotonic()
    before = run.elapsed
    every = 1 if run.device.type == "cpu" or listeners else _LOOK
    with Stopper() as stopper, run.ahead() as batches:
        while not run.finished:
            losses = run.advance(batches.get(run.step))
            run.elapsed, stop = team.agree(before + time.monotonic() - started, stopper.asked)
            kept = settings.keep_every is not None and run.step % settings.keep_every == 0
            due = run.step % settings.validate_every == 0 or kept or run.finished
            save = due or stop or time.monotonic() - saved > _SAVE_SECONDS
            if run.step % every == 0 or save:  # no state of lost weights is stored
                run.look(losses)
            scale = (run.step, settings.steps) if settings.time_limit is None else (round(1000 * run.part), 1000)
            progress(*scale, f"loss {run.losses.get('loss', 0):.4f}")
            found = {}
            if due and team.leads:
                found = _report(run, train, valid, log, note)
            if kept and team.leads:
                _save(run, train, settings.kept_file(run.stage, run.step), found)
            if team.leads and listeners:
                told = TrainingStep(settings.name(run.stage), run.step, settings.steps, run.rate, run.losses, found)
                for listener in listeners:
                    listener(told)
            if team.leads and save:
                run.save(settings.state(run.stage))
                saved = time.monotonic()
            if stop and not run.finished:
                if not team.leads:
                    raise SystemExit(1)
                raise StoppedError(
                    f"{settings.name(run.stage)}: stopped at step {run.step} of {settings.steps}; {_AGAIN}"
                )


def _report(run: Run, train: list[PatchFile], valid: list[PatchFile], log: Log, note: Note) -> dict[str, float]:
    """Validate, keep the weights if they are the best so far, and tell the log, the pictures and people."""
    model, name, judge = run.averaged(), run.settings.name(run.stage), run.settings.best
    found = validate(model, valid, run.device) | measure_quality(model, valid, run.device)
    log.add(run.step, {"seconds": round(run.elapsed, 1), **run.losses, **found}, last=run.finished)
    draw_pictures(model, valid, run.device, run.settings.run / "pictures", f"{name}_{run.step:06d}")
    words = [f"loss {run.losses['loss']:.4f}"]
    words += [f"{key} {found[key]:.4f}" for key in ("valid", "SAM", "ERGAS") if key in found]
    if judge in found and (run.best is None or found[judge] < run.best):
        run.best = found[judge]
        _save(run, train, run.settings.best_file(run.stage), found)
        words.append(f"the best {judge} so far")
    if "shuffle_cost" in found:
        words.append(f"another image's z costs {found['shuffle_cost']:+.2%}")
    if "mean_cost" in found:
        words.append(f"the others' mean {found['mean_cost']:+.2%}")
    left = round(run.elapsed / run.part - run.elapsed)
    words.append("done" if run.finished else f"{left // 3600}:{left // 60 % 60:02d}:{left % 60:02d} left")
    note(f"{name}, step {run.step}: {', '.join(words)}")
    if found.get("shuffle_cost", 1.0) < IDLE:
        note(f"step {run.step}: the prior is idle: the network does as well with another image's z")
    return found


def _save(run: Run, train: list[PatchFile], path: Path, found: Mapping[str, float] | None = None) -> None:
    """Write the averaged weights of this step, with what was found of them on the validation images."""
    path.parent.mkdir(parents=True, exist_ok=True)
    facts = _facts(run, train) | ({} if found is None else {"step": run.step, "validation": dict(found)})
    save_model(run.averaged(), path, sensor=_sensors(train), training=facts)


def _facts(run: Run, train: list[PatchFile]) -> dict[str, Any]:
    """Gather what a reader needs to judge the weights."""
    facts = {
        **run.settings.plain(),
        **_names(run.settings),
        "ksdiff_version": __version__,
        "losses": run.losses,
        "images": sum(map(len, train)),
        "patches": run.patches,
    }
    return facts if run.origin is None else facts | {"stage1": run.origin}


def _names(settings: RunSettings) -> dict[str, Any]:
    """Return the inputs' names: weights travel, and the paths of one machine need not."""
    return {
        "data": [path.name for path in settings.data],
        "valid": [path.name for path in settings.valid],
        "init": settings.init and settings.init.name,
    }


def open_data(paths: tuple[Path, ...], valid: tuple[Path, ...] = ()) -> tuple[list[PatchFile], list[PatchFile]]:
    """Open training files, and the validation files beside them or those that are named.

    Raises:
        KsdiffError: nothing to train on at one of the paths, or validation files without truth.
    """
    train, beside = _open_data(paths)
    if not valid:
        return train, beside
    named = [PatchFile(path / "valid.h5" if path.is_dir() else path) for path in valid]
    for file in named:
        if not file.has_gt:
            raise KsdiffError(f"{file.path}: has no gt to validate against; give a reduced-resolution file")
    return train, named


def _open_data(paths: tuple[Path, ...]) -> tuple[list[PatchFile], list[PatchFile]]:
    train: list[PatchFile] = []
    valid: list[PatchFile] = []
    for path in paths:
        nested = sorted(path.glob("*/train.h5")) if path.is_dir() and not (path / "train.h5").exists() else []
        if nested:
            below, beside_below = _open_data(tuple(file.parent for file in nested))
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


def _check_sizes(files: list[PatchFile], run: Run) -> None:
    multiple = run.model.multiple
    for file in files:
        try:
            run.model.check(file.bands, file.ratio)
        except ModelError as error:
            raise ModelError(f"{file.path}: {error}") from None
        if any(side % multiple for side in file.size):
            raise KsdiffError(
                f"{file.path}: its patches of {file.size[1]} x {file.size[0]} px do not suit the network, which trains "
                f"on sides that are multiples of {multiple}; prepare-data --patch sets them"
            )


def _sensors(files: list[PatchFile]) -> dict[str, Any]:
    """The sensor's values; of several sensors their names."""
    sensors = [file.sensor for file in files]
    names = sorted({str(sensor.get("name", "unknown")) for sensor in sensors})
    return sensors[0] if len(names) == 1 else {"name": "+".join(names)}


class Stopper:
    """While it is open, a Ctrl-C or SIGTERM is only noted, for the end of the step; a second one ends the program."""

    asked = False

    def __enter__(self) -> "Stopper":
        self._before: dict[int, Any] = {}
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, before in self._before.items():
            signal.signal(number, before or signal.SIG_DFL)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.asked = True
        if "TORCHELASTIC_RUN_ID" not in os.environ:  # torchrun hands a Ctrl-C on a second time
            signal.signal(number, self._before[number] or signal.SIG_DFL)


def train(
    options: TrainOptions,
    config: ModelConfig | PixelConfig | None = None,
    on_step: StepCallback | None = None,
    progress: ProgressCallback = silent,
    note: Note = drop,
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
