"""Scenes to patches: Wald's protocol, the split into train, valid and test, and the HDF5 files of a training run.

A patch is left out if any pixel that its gt, pan, ms or lms depend on is nodata (or NaN): the filters' reach around the
patch included, so that no filled value ever enters training.
"""

import math
import shutil
import signal
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import mkdtemp
from threading import current_thread, main_thread
from typing import Any

from ksdiff_cli import __version__
from ksdiff_cli.errors import KsdiffError
from ksdiff_cli.patches.layout import SPLITS, common_side
from ksdiff_cli.patches.plan import PatchOptions, Plan, plan_patches
from ksdiff_cli.patches.sources import PairSource, reduced_statistics, statistics_blocks
from ksdiff_cli.patches.writer import FORMAT_VERSION, PatchWriter, cut_full, cut_windows, groups
from ksdiff_cli.progress import ProgressCallback, silent
from ksdiff_cli.raster import SceneStatistics

_TEST_SIDE = 256  # PanCollection's
_FULL_SIDE = 512  # PAN pixels, PanCollection's
_FILES = ("train.h5", "valid.h5", "test.h5", "full.h5")


@dataclass
class Prepared:
    """What came out."""

    output: Path
    ratio: int
    bands: int
    counts: dict[str, int]
    """Images by split, ``full`` included."""
    sides: dict[str, int]
    """Side of gt (of PAN for ``full``) by split, in pixels."""
    scenes: list[str]
    left_out: int = 0
    """Windows left out for nodata."""
    notes: list[str] = field(default_factory=list)


def prepare_patches(options: PatchOptions, *, overwrite: bool = False, progress: ProgressCallback = silent) -> Prepared:
    """Make train, valid, test and full-resolution files from scenes.

    Args:
        options: the scenes and how to cut them.
        overwrite: replace an earlier set of patches.
        progress: told after every block of work.

    Returns:
        Counts, sizes and notes for people.

    Raises:
        KsdiffError: no scene found, scenes that do not go into one file, too small a scene, only nodata, or an output
            that exists.
    """
    check_output(options.output, overwrite)
    plans = plan_patches(options)
    output = options.output.resolve()
    partial = None
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(mkdtemp(prefix=f".{output.name}.", suffix=".partial", dir=output.parent))
        prepared = _write(options, plans, partial, progress)
        partial.chmod(0o755)  # mkdtemp's folders are for their owner alone
        _replace(partial, output)
    except OSError as error:
        raise KsdiffError(f"{options.output}: cannot be written ({error.strerror or error})") from None
    finally:
        if partial is not None:
            shutil.rmtree(partial, ignore_errors=True)
    return prepared


def check_output(output: Path, overwrite: bool) -> None:
    """Refuse to lose anything that is not an earlier set of patches to be replaced.

    Raises:
        KsdiffError: the output exists and may not, or must not, be replaced.
    """
    if output.is_dir():
        found = {entry.name for entry in output.iterdir()}
        if foreign := sorted(found - set(_FILES)):
            raise KsdiffError(f"{output}: holds other files ({foreign[0]}, …); choose another folder with -o")
        if found and not overwrite:
            raise KsdiffError(f"{output}: holds patches already; choose another folder with -o, or --overwrite")
    elif output.exists():
        raise KsdiffError(f"{output}: is a file; choose a folder with -o")


class _Counter:
    """Turns steps of work into progress reports, and Ctrl-C into an interrupt between two steps.

    Most of the time goes into HDF5 calls, after which the interpreter first runs weak references' callbacks. A
    KeyboardInterrupt raised there is lost ("Exception ignored in …") and the work would go on.
    """

    def __init__(self, total: int, progress: ProgressCallback) -> None:
        self.done, self.total, self.progress, self.note = 0, total, progress, ""
        self.interrupted = False

    def __enter__(self) -> "_Counter":
        self._handler = signal.getsignal(signal.SIGINT)
        # only the usual handler, and only where Python allows it: an embedding program's own is left alone
        self._ours = self._handler is signal.default_int_handler and current_thread() is main_thread()
        if self._ours:
            signal.signal(signal.SIGINT, self._remember)
        return self

    def __exit__(self, *_: object) -> None:
        if self._ours:
            signal.signal(signal.SIGINT, self._handler)

    def _remember(self, *_: object) -> None:
        self.interrupted = True

    def __call__(self) -> None:
        if self.interrupted:
            raise KeyboardInterrupt
        self.done += 1
        self.progress(self.done, self.total, self.note)


def _write(options: PatchOptions, plans: list[Plan], folder: Path, progress: ProgressCallback) -> Prepared:
    """Degrade all scenes and write the files into ``folder``."""
    ratio = plans[0].ratio
    sides = _sides(plans, options.patch)
    half = max(ratio, options.patch // 2 // ratio * ratio)
    strides = {**sides, "train": half, "valid": half}
    prepared = Prepared(options.output, ratio, plans[0].bands, {}, sides, [plan.name for plan in plans])
    reduced: list[SceneStatistics] = []
    full: list[SceneStatistics] = []
    with ExitStack() as stack:
        counter = stack.enter_context(_Counter(_work(plans, sides, strides), progress))
        writers = {name: stack.enter_context(closing(PatchWriter(folder / f"{name}.h5"))) for name in sides}
        for index, plan in enumerate(plans):
            counter.note = plan.name
            prepared.notes += plan.notes
            with plan.open() as sources:
                reduced.append(reduced_statistics(plan.name, sources, counter))
                for number, source in enumerate(sources):
                    for split in SPLITS:
                        for rect in plan.regions[number][split]:
                            scene = (index, number * source.shape[0])
                            prepared.left_out += cut_windows(
                                source, rect, sides[split], strides[split], scene, writers[split], counter
                            )
                if isinstance(sources[0], PairSource) and ratio == sources[0].pair.grid.ratio:
                    full.append(sources[0].pair.statistics())
                    for rect in plan.blocks("test") or plan.blocks("valid"):
                        cut_full(sources[0], rect, sides["full"] // ratio, index, writers["full"])
        for name, writer in writers.items():
            prepared.counts[name] = writer.count
            writer.finish(full if name == "full" else reduced, _attributes(options, plans))
    _check_counts(prepared)
    if prepared.counts["test"] == 0:
        prepared.notes.append("no test patches: the scenes are too small for a third block, or it touches nodata")
    for name, count in prepared.counts.items():
        if count == 0:
            (folder / f"{name}.h5").unlink()
            del prepared.sides[name]
    return prepared


def _sides(plans: list[Plan], patch: int) -> dict[str, int]:
    """Side of the images of each file, in pixels of gt (of PAN for ``full``)."""
    ratio = plans[0].ratio
    step = math.lcm(8, ratio)
    test = [rect.side for plan in plans for rect in plan.blocks("test")]
    side = common_side(test, patch, _TEST_SIDE, step)
    held = test or [rect.side for plan in plans for rect in plan.blocks("valid")]
    full = common_side(held, patch, _FULL_SIDE // ratio, step)
    return {"train": patch, "valid": patch, "test": side, "full": full * ratio}


def _work(plans: list[Plan], sides: dict[str, int], strides: dict[str, int]) -> int:
    """Number of steps that the counter will see."""
    total = 0
    for plan in plans:
        total += sum(len(statistics_blocks(shape, plan.ratio)) for shape in plan.shapes)
        for split in SPLITS:
            for rect in plan.blocks(split):
                total += sum(1 for _ in groups(rect, sides[split], strides[split], plan.ratio))
    return total


def _check_counts(prepared: Prepared) -> None:
    for split in ("train", "valid"):
        if prepared.counts[split] == 0:
            raise KsdiffError(
                f"{', '.join(prepared.scenes[:3])}: every {split} patch of {prepared.sides[split]} px touches nodata; "
                "use a smaller --patch or another scene"
            )


def _attributes(options: PatchOptions, plans: list[Plan]) -> dict[str, Any]:
    """Return the attributes that every file carries."""
    sensors = {plan.sensor.name: plan.sensor for plan in plans}
    sensor = plans[0].sensor
    if len(sensors) > 1:
        title = ", ".join(each.title for each in sensors.values())
        bits = max(each.bits for each in sensors.values())
        sensor = replace(sensor, name="+".join(sorted(sensors)), title=title, bits=bits)
    return {
        "format_version": FORMAT_VERSION,
        "geometry": "area",
        "ratio": plans[0].ratio,
        "sensor": sensor.to_dict(),
        "bands": list(plans[0].band_names),
        "scenes": [plan.name for plan in plans],
        "ksdiff_version": __version__,
        "seed": options.seed,
    }


def _replace(partial: Path, output: Path) -> None:
    """Put a complete folder where the output is wanted; what was there goes only once the new one is whole."""
    if not output.exists():
        partial.rename(output)
        return
    old = partial.with_suffix(".old")
    output.rename(old)
    partial.rename(output)
    shutil.rmtree(old)
