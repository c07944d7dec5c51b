"""Scenes to patches: Wald's protocol, the split into train, valid and test, and the HDF5 files of a training run.

A patch is left out if any pixel that its gt, pan, ms or lms depend on is nodata (or NaN), the filters' reach around the
patch included, so that no filled value ever enters training; or if too much of it is cloud or saturated
(:class:`masks.Rule`).

Work is done part by part in a hidden folder beside the output (:mod:`workspace`). A run that was killed is taken up by
the same command and ends with the same bytes.
"""

import os
import signal
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from threading import current_thread, main_thread
from typing import Any

import rasterio

from ksdiff_cli._version import __version__
from ksdiff_cli.errors import KsdiffError
from ksdiff_cli.files.content import check_unchanged
from ksdiff_cli.files.names import Inputs
from ksdiff_cli.numerics.moments import SceneStatistics
from ksdiff_cli.options.patches import PatchOptions
from ksdiff_cli.patches.cutting import cut_full, cut_windows
from ksdiff_cli.patches.layout import SPLITS
from ksdiff_cli.patches.masks import REASONS, Rule
from ksdiff_cli.patches.plan import Plan, plan_patches
from ksdiff_cli.patches.quicklook import QUICKLOOK, draw_quicklook
from ksdiff_cli.patches.sources import NothingFitError, PairSource, Source, reduced_statistics, statistics_blocks
from ksdiff_cli.patches.workspace import (
    FILES,
    Cut,
    FileName,
    Part,
    Workspace,
    choose_cut,
    is_published,
    lay_parts,
    open_workspace,
    workspace_folder,
)
from ksdiff_cli.patches.writer import FORMAT_VERSION, gather_lists, join_parts, new_part
from ksdiff_cli.progress import ProgressCallback, silent
from ksdiff_cli.raster.open import BLOCK_CACHE

_OWN = {*(f"{name}.h5" for name in FILES), QUICKLOOK}


class StepCounter:
    """Turns steps of work into progress reports, and Ctrl-C into an interrupt between two steps.

    Most of the time goes into HDF5 calls, after which the interpreter first runs weak references' callbacks. A
    KeyboardInterrupt raised there is lost ("Exception ignored in …") and the work would go on.
    """

    def __init__(self, total: int, progress: ProgressCallback) -> None:
        """Start at 0 of ``total`` steps."""
        self.done, self.total, self.progress, self.note = 0, total, progress, ""
        self.interrupted = False

    def __enter__(self) -> "StepCounter":
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

    def check(self) -> None:
        """Stop here if Ctrl-C was pressed."""
        if self.interrupted:
            raise KeyboardInterrupt

    def __call__(self, steps: int = 1) -> None:
        self.check()
        self.done += steps
        self.progress(self.done, self.total, self.note)


_NOT_OF_BYTES = ("output", "scenes", "overwrite", "resume")
"""Options that the files' bytes do not depend on; scenes count by their content."""


@dataclass
class Prepared:
    """What came out."""

    output: Path
    ratio: int
    bands: int
    counts: dict[FileName, int]
    """Images by file."""
    sides: dict[FileName, int]
    """Side of gt (of PAN for ``full``) by file, in pixels."""
    scenes: list[str]
    left_out: dict[FileName, dict[str, int]] = field(default_factory=dict)
    """Windows left out by file and reason."""
    notes: list[str] = field(default_factory=list)


def prepare_patches(options: PatchOptions, progress: ProgressCallback = silent) -> Prepared:
    """Make train, valid, test and full-resolution files from scenes.

    Args:
        options: the scenes and how to cut them.
        progress: told after every block of work.

    Returns:
        Counts, sizes and notes for people.

    Raises:
        KsdiffError: no scene found, scenes that do not go into one file, too small a scene, only nodata, an output
            that exists, or that another process is making.
    """
    check_output(options.output, options.overwrite or is_published(options.output))
    plans = plan_patches(options)
    output, reads = options.output.resolve(), [options.sensor] if options.sensor else []
    inputs = Inputs([*(path for plan in plans for path in plan.inputs.files), *reads])
    made_of = _made_of(options, plans)
    check_output(options.output, options.overwrite or is_published(options.output, made_of), inputs)
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with (
            rasterio.Env(GDAL_CACHEMAX=BLOCK_CACHE),
            open_workspace(options.output, made_of, resume=options.resume) as workspace,
        ):
            # another process may have ended meanwhile
            check_output(options.output, options.overwrite or workspace.out == output, inputs)
            prepared = _make(options, plans, workspace, progress)
            for plan in plans:
                check_unchanged(plan.identity["files"])
            workspace.publish(output)
    except OSError as error:
        problem = f"{options.output}: cannot be written ({error.strerror or error})"
        goes_on = workspace_folder(options.output).exists()
        raise KsdiffError(f"{problem}; the same command then goes on from here" if goes_on else problem) from None
    return prepared


def check_output(output: Path, overwrite: bool, inputs: Inputs | None = None) -> None:
    """Refuse to lose anything that is not an earlier set of patches to be replaced.

    Raises:
        KsdiffError: the output exists and may not, or must not, be replaced.
    """
    inputs = inputs or Inputs()
    if output.is_dir():
        found = sorted(output.iterdir())
        if foreign := [path.name for path in found if path.name not in _OWN or path.is_symlink() or path.is_dir()]:
            raise KsdiffError(f"{output}: holds other files ({foreign[0]}, …); choose another folder with -o")
        if own := [path for path in found if inputs.find(path)]:
            raise KsdiffError(f"{own[0]}: is one of the inputs; choose another folder with -o")
        if found and not overwrite:
            raise KsdiffError(f"{output}: holds patches already; choose another folder with -o, or --overwrite")
    elif os.path.lexists(output):
        raise KsdiffError(f"{output}: is a file; choose a folder with -o")
    if hidden := inputs.temporary(output.resolve()):
        raise KsdiffError(f"{hidden}: is an input where {output} puts its temporary files; choose another with -o")


def _make(options: PatchOptions, plans: list[Plan], workspace: Workspace, progress: ProgressCallback) -> Prepared:
    """Make all parts that are not there yet, and join them."""
    cut = choose_cut(plans, options.patch)
    parts = lay_parts(plans, cut)
    scenes = [plan.name for plan in plans]
    prepared = Prepared(options.output, plans[0].ratio, plans[0].bands, {}, dict(cut.sides), scenes)
    prepared.notes = [*workspace.notes, *(line for plan in plans for line in plan.notes)]
    if found := sum(workspace.has(part) for part in parts):
        prepared.notes.append(f"took up an interrupted run: {found} of {len(parts)} parts were there")
    statistics: dict[str, list[SceneStatistics]] = {"reduced": [], "full": []}
    with ExitStack() as stack:
        counter = stack.enter_context(StepCounter(_work(plans, parts), progress))
        for index, plan in enumerate(plans):
            counter.note = plan.name
            with plan.open() as sources:
                _gather(index, plan, sources, workspace, statistics, counter)
                for part in parts:
                    if part.scene == index:
                        _make_part(part, sources, cut, options, workspace, counter)
        lists = {name: gather_lists(workspace.pieces(name, parts)) for name in FILES}
        for name in FILES:
            prepared.counts[name] = len(lists[name]["scene"])
            reasons = lists[name]["left_out"][:, 3]
            prepared.left_out[name] = {reason: int((reasons == i).sum()) for i, reason in enumerate(REASONS)}
        _check_counts(prepared, options)
        for name in FILES:
            counter.note = f"{name}.h5"
            _join(name, parts, statistics, _attributes(options, plans), workspace, counter)
        draw_quicklook(workspace.out / QUICKLOOK, plans, lists, cut, counter)
    if prepared.counts["test"] == 0:
        prepared.notes.append("no test patches: the scenes are too small for a third block, or none of it is fit")
    for name in FILES:
        if prepared.counts[name] == 0:
            del prepared.sides[name]
    return prepared


def _gather(
    index: int,
    plan: Plan,
    sources: Sequence[Source],
    workspace: Workspace,
    statistics: dict[str, list[SceneStatistics]],
    counter: StepCounter,
) -> None:
    """Gather a scene's statistics, at reduced and, where there is such a file, at full resolution."""
    before = counter.done
    name = f"statistics-{index:05d}"
    found = workspace.statistics(f"{name}-reduced", lambda: reduced_statistics(plan.name, sources, counter))
    statistics["reduced"].append(found)
    if plan.full and isinstance(sources[0], PairSource):
        pair = sources[0].pair
        found = workspace.statistics(f"{name}-full", lambda: pair.statistics(lambda *_: counter.check()))
        statistics["full"].append(found)
    if missing := before + _statistics_steps(plan) - counter.done:
        counter(missing)


def _make_part(
    part: Part, sources: Sequence[Source], cut: Cut, options: PatchOptions, workspace: Workspace, counter: StepCounter
) -> None:
    """Degrade and cut one part of a file, unless it is there."""
    if workspace.has(part):
        if part.steps:
            counter(part.steps)
        return
    side, stride, rule = cut.sides[part.file], cut.strides[part.file], Rule(options.max_cloud, options.max_saturated)
    with new_part(workspace.part(part)) as writer:
        for number, rect in part.blocks:
            source = sources[number]
            if part.file == "full":
                assert isinstance(source, PairSource)
                for _ in cut_full(source, rect, side // source.ratio, rule, part.scene, writer):
                    counter()
            else:
                place = (part.scene, number * source.shape[0])
                for _ in cut_windows(source, rect, side, stride, rule, place, writer):
                    counter()


def _join(
    name: FileName,
    parts: list[Part],
    statistics: dict[str, list[SceneStatistics]],
    attributes: dict[str, Any],
    workspace: Workspace,
    counter: StepCounter,
) -> None:
    """Join a file's parts, unless that is done or there are no images, and remove them."""
    own = [workspace.part(part) for part in parts if part.file == name]
    target = workspace.joined(name)
    if not target.exists() and len(gather_lists(own)["scene"]):
        own_statistics = statistics["full" if name == "full" else "reduced"]
        join_parts(own, target, own_statistics, attributes, counter.check)
    if target.exists():
        for path in own:
            path.unlink(missing_ok=True)
    counter()


def _statistics_steps(plan: Plan) -> int:
    return sum(len(statistics_blocks(shape, plan.ratio)) for shape in plan.shapes) + plan.full


def _work(plans: list[Plan], parts: list[Part]) -> int:
    """Number of steps that the counter will see."""
    return sum(map(_statistics_steps, plans)) + sum(part.steps for part in parts) + len(FILES) + len(plans)


def _check_counts(prepared: Prepared, options: PatchOptions) -> None:
    for split in SPLITS[:2]:
        if prepared.counts[split] == 0:
            reasons = prepared.left_out[split]
            most = max(reasons, key=lambda reason: reasons[reason])
            advice = {
                "nodata": "touches nodata; use a smaller --patch or another scene",
                "cloud": f"is more than {options.max_cloud:g} % cloud; use another scene or a larger --max-cloud",
                "saturated": f"is more than {options.max_saturated:g} % saturated; use another scene or a larger "
                "--max-saturated",
            }[most]
            shares = ", ".join(f"{count} {reason}" for reason, count in reasons.items() if count)
            reason = f"no {split} patch of {prepared.sides[split]} px is fit (left out: {shares})"
            raise NothingFitError(f"{', '.join(prepared.scenes[:3])}: {reason}; nearly every one {advice}", reason)


def _made_of(options: PatchOptions, plans: list[Plan]) -> dict[str, Any]:
    """Return all that the files' bytes depend on."""
    chosen = {name: value for name, value in asdict(options).items() if name not in _NOT_OF_BYTES}
    scenes = [plan.identity for plan in plans]
    return {"options": chosen, "scenes": scenes, "attributes": _attributes(options, plans)}


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
        "geometry": options.geometry,
        "ratio": plans[0].ratio,
        "sensor": sensor.to_dict(),
        "bands": list(plans[0].band_names),
        "scenes": [plan.name for plan in plans],
        "ksdiff_version": __version__,
        "seed": options.seed,
        "rule": str(Rule(options.max_cloud, options.max_saturated)),
        "max_cloud": options.max_cloud,
        "max_saturated": options.max_saturated,
    }


# ---- dry run


@dataclass(frozen=True)
class SceneForecast:
    """One scene."""

    name: str
    sensor: str
    bands: int
    images: int
    """1, or the number of tiles."""
    shape: tuple[int, int]
    """(height, width) of the part that is used, in MS pixels (of one tile)."""
    blocks: dict[FileName, int]
    """Blocks by file."""
    windows: dict[FileName, int]
    """Windows by file, before any is left out."""


@dataclass(frozen=True)
class Forecast:
    """What would be made, at most: windows that touch nodata, clouds or saturated pixels are not known yet."""

    ratio: int
    scenes: list[SceneForecast]
    sides: dict[FileName, int]
    """Side of gt (of PAN for ``full``) by file, in pixels."""
    bytes: dict[FileName, int]
    """Size of the files before compression."""
    notes: list[str]


def forecast_patches(options: PatchOptions) -> Forecast:
    """Say what :func:`prepare.prepare_patches` would make.

    Raises:
        KsdiffError: as there, as far as it can be known without looking at pixels.
    """
    check_output(options.output, options.overwrite)
    plans = plan_patches(options)
    cut = choose_cut(plans, options.patch)
    parts = lay_parts(plans, cut)
    ratio, bands = plans[0].ratio, plans[0].bands
    sizes = {}
    for file in FILES:
        pixels = cut.sides[file] ** 2
        values = pixels * (1 + bands) + pixels // ratio**2 * bands + (pixels * bands if file != "full" else 0)
        sizes[file] = 4 * values * sum(part.windows for part in parts if part.file == file)
    scenes = [_scene(plan, [part for part in parts if part.scene == index]) for index, plan in enumerate(plans)]
    return Forecast(ratio, scenes, dict(cut.sides), sizes, [line for plan in plans for line in plan.notes])


def _scene(plan: Plan, parts: list[Part]) -> SceneForecast:
    blocks = {file: sum(len(part.blocks) for part in parts if part.file == file) for file in FILES}
    windows = {file: sum(part.windows for part in parts if part.file == file) for file in FILES}
    shape = min(plan.shapes)
    return SceneForecast(plan.name, plan.sensor.name, plan.bands, len(plan.shapes), shape, blocks, windows)
