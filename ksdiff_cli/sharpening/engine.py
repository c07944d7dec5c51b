"""The whole-scene engine: a pair in, a GeoTIFF out, window by window in bounded memory, going on after a kill."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import rasterio

from ksdiff_cli._version import __version__
from ksdiff_cli.errors import KsdiffError
from ksdiff_cli.files.content import check_unchanged
from ksdiff_cli.fusers.base import Fuser
from ksdiff_cli.fusers.fidelity import FIDELITY_TAG, PAN_TAG, Look, measure_fidelity, places
from ksdiff_cli.numerics import Array
from ksdiff_cli.numerics.boxes import Box
from ksdiff_cli.options.sharpening import SharpenOptions
from ksdiff_cli.output.creation import check_creation, fit_codec
from ksdiff_cli.output.pixels import check_range, choose_format
from ksdiff_cli.output.vrt import settle_tiles
from ksdiff_cli.output.writer import check_output, new_raster, space_needed
from ksdiff_cli.process import usable_threads
from ksdiff_cli.products.scene_files import identify_scene, scene_inputs
from ksdiff_cli.progress import ProgressCallback, silent
from ksdiff_cli.raster.camera import find_camera
from ksdiff_cli.raster.crop import crop_pair, crop_to
from ksdiff_cli.raster.grouped import open_scene
from ksdiff_cli.raster.nodata import check_declared, find_notes
from ksdiff_cli.raster.open import BLOCK_CACHE
from ksdiff_cli.raster.pair import Scene, ScenePair
from ksdiff_cli.raster.units import units_tags
from ksdiff_cli.sharpening.assembly import Assembly
from ksdiff_cli.sharpening.job import (
    Folder,
    Job,
    earlier_tile,
    is_claimed,
    is_made,
    job_folder,
    open_folder,
    place_of,
    remove_rest,
)
from ksdiff_cli.sharpening.pipeline import Maker, Windows, make_windows
from ksdiff_cli.sharpening.plan import GB, DeviceNeed, Need, Plan, make_plan

__all__ = [
    "Sharpened",
    "how",
    "is_claimed",
    "job_folder",
    "plan_scene",
    "remove_rest",
    "sharpen_scene",
]

_BASE, _BASE_TORCH = 200_000_000, 500_000_000  # bytes of the process before the first window, measured
SEAM_TAG, CAMERAS_TAG = "KSDIFF_SEAM_SCORE", "KSDIFF_CAMERAS"
QUICK = 2 * GB
"""Bytes of an output without compression up to which methods that are no networks keep no windows on the way."""


@dataclass(frozen=True)
class Sharpened:
    """The finished output and the facts about it."""

    output: Path
    shape: tuple[int, int]
    """(height, width), pixels."""
    bands: int
    dtype: str
    nodata: float | None
    notes: tuple[str, ...]
    """Notes for people on how PAN and MS were laid on each other, and on earlier runs."""
    tile: int
    """Side of the windows, PAN pixels."""
    windows: int
    """Their number."""
    resumed: int
    """How many of them an earlier run had finished."""
    memory: int
    """Bytes that the process takes at most, by the model that the windows were chosen with."""
    seam: float | None
    """Seam score, see :class:`ksdiff_cli.sharpening.assembly.Seams`; None where no border lies in the output."""
    fidelity: str | None = None
    """How far the output, degraded to MS's grid, is from MS; None where that was not measured."""
    fidelity_pan: str | None = None
    """How well the output's bands explain PAN; None where that was not measured."""
    explained: tuple[tuple[str, float], ...] = ()
    """Name of each coarser band and the share of its variance that the finer bands explain (R²), where these are its
    guides."""
    cameras: str | None = None
    """How sharp MS is against PAN, as the scene tells; None where nothing asked."""

    def _repr_html_(self) -> str:
        """Show the output's picture and these facts in a notebook."""
        from ksdiff_cli.report.notebook import raster_html

        height, width = self.shape
        facts = {
            "size": f"{width} x {height} pixels, {self.bands} bands, {self.dtype}",
            "explains MS": self.fidelity,
            "explains PAN": self.fidelity_pan,
            "cameras": self.cameras,
            "notes": "; ".join(self.notes),
        }
        return raster_html(self.output, {name: value for name, value in facts.items() if value})


def sharpen_scene(
    scene: Scene,
    output: Path,
    fuser: Fuser,
    options: SharpenOptions | None = None,
    progress: ProgressCallback = silent,
    make: Maker = make_windows,
) -> Sharpened:
    """Sharpen a whole scene into a GeoTIFF on PAN's grid.

    One pass gathers the scene's statistics, for most methods another one what they must know of the scene. Then windows
    are made one by one, kept in a hidden folder beside the output, where the same command finds them again after a
    kill, and put together; an output of up to :data:`QUICK` bytes of a method that is no network is made anew instead.
    The cut is counted from the scene's corner and each window is read with the margin that the method sees, so pixels
    depend neither on kills nor on which part of the scene is made. The output appears under its name only when it is
    complete.

    Args:
        scene: where PAN and MS are.
        output: target, ``.tif``.
        fuser: what sharpens a window.
        options: see :class:`SharpenOptions`.
        progress: told the windows done.
        make: who makes the windows: this process, or :class:`ksdiff_cli.sharpening.distributed.Workers`.

    Returns:
        What was made.

    Raises:
        KsdiffError: the inputs cannot be read or do not fit each other, the output cannot be written, or memory or the
            disk do not suffice.
        ModelError: the fuser's weights do not fit the scene.
    """
    options = options or SharpenOptions()
    inputs = scene_inputs(scene)

    def check(overwrite: bool) -> None:
        check_output(output, inputs, options.overwrite or overwrite, options.format, options.creation)

    remove_rest(output.parent, output.name)
    check(is_claimed(output))
    # set here, GDAL_NUM_THREADS holds in all threads of the process
    count = usable_threads(options.threads)
    threads = {} if count is None else {"GDAL_NUM_THREADS": str(count)}
    with rasterio.Env(GDAL_CACHEMAX=BLOCK_CACHE, **threads), open_scene(scene) as pair:
        check_declared(pair)
        fuser.check(pair.bands, pair.true_ratio)
        pixels = replace(choose_format(pair, None, options.dtype, options.dst_nodata), differences=fuser.differences)
        creation = options.format == "COG", options.creation
        check_creation(*creation, pixels, pair.bands)
        codec = fit_codec(*creation, pixels, pair.bands, holes=False)
        if options.dst_nodata is not None and codec.lossy:
            raise KsdiffError(
                "--dst-nodata: the codec of --co is lossy, so no value can stand for nodata; leave it out"
            )
        plan = plan_scene(pair, output, fuser, options)
        known = identify_scene(scene, inputs)
        facts = _facts(pair, known, fuser, plan, options)
        check(is_made(output, facts, how(options)))  # nothing of another command's is touched where it is refused
        with open_folder(output, facts, how(options), resume=options.resume, keep=bool(options.besides)) as folder:
            if folder.finished:
                if options.format == "VRT":
                    settle_tiles(output, lambda old: not any(map(inputs.find, old.iterdir())))
                return _found(output, pair, plan)
            pair.notes += find_notes(pair)
            check(folder.assembled)
            folder.claim.drop()
            folder.files = known["files"]
            with folder.claim:
                return _make(pair, _Work(output, fuser, options, plan, folder), progress, make)


@dataclass(frozen=True)
class _Work:
    """What is to be made, by what, and where it lies meanwhile."""

    output: Path
    fuser: Fuser
    options: SharpenOptions
    plan: Plan
    folder: Folder


def _make(pair: ScenePair, work: _Work, progress: ProgressCallback, make: Maker) -> Sharpened:
    """Survey the scene, make the windows that are missing, put them together as they come."""
    output, fuser, options, plan, folder = work.output, work.fuser, work.options, work.plan, work.folder
    statistics = pair.statistics(progress, fuser.watch(pair))
    pixels = replace(choose_format(pair, statistics, options.dtype, options.dst_nodata), differences=fuser.differences)
    if options.dtype:
        check_range(pixels, statistics)
    given = {one.fill for one in (pair.scene.pan, *pair.scene.ms) if not one.declared and one.fill is not None}
    if not statistics.holes:
        pair.notes.extend(f"--src-nodata: no pixel is {value:.9g}" for value in sorted(given))
    pixels = fit_codec(options.format == "COG", options.creation, pixels, pair.bands, statistics.holes)
    if pixels.lossy:
        masked = "; a mask, in place of nodata, says which pixels hold data" if statistics.holes else ""
        pair.notes.append(f"--co: the codec is lossy and changes values{masked}")
    job = Job(folder.path, plan, pair.bands, pixels, place_of(pair))
    missing, stored = job.missing(), plan.region.pixels * pair.bands * pixels.dtype.itemsize
    if missing or not fuser.quick:  # what a network finds out is told, on its windows too that an earlier run made
        fuser.prepare(pair, statistics, progress)
    tags = _provenance(pair, fuser, plan)
    part = crop_pair(pair, (plan.region.top, plan.region.left, plan.region.height, plan.region.width))
    with new_raster(output, part, pixels, options.creation, tags, options.format, plan.tiling.tile) as target:
        assembly = Assembly(job, target, pair.grid.ratio)
        # what is made again in seconds is not stored on its way
        kept = not (fuser.quick and assembly.streams and stored <= QUICK and make is make_windows)
        job.check_space(missing if kept else [], space_needed(options.format, stored))
        if options.fidelity and not kept:
            assembly.watch(places(plan.region))
        if missing:
            take = assembly.take if assembly.streams else None
            make(Windows(job, pair, fuser, statistics, take, kept), missing, progress)
        seam = assembly.finish(progress)
        empty = (f"{output}: every pixel is nodata: PAN or MS holds none there",) if target.empty else ()
        look, std = _reader(job, assembly), statistics.ms_std
        fidelity = measure_fidelity(pair, plan.region, look, std, mtf=options.seen_by) if options.fidelity else None
        cameras = {CAMERAS_TAG: str(pair.camera)} if pair.camera else {}
        target.update_tags(**{SEAM_TAG: str(seam).lower()}, **(fidelity.tags() if fidelity else {}), **cameras)
        check_unchanged(folder.files)
        folder.claim.make(output, *options.besides)
    return Sharpened(
        output,
        (plan.region.height, plan.region.width),
        pair.bands,
        pixels.dtype.name,
        pixels.declared,
        (*pair.notes, *folder.notes, *fuser.notes(), *empty),
        plan.tiling.tile,
        len(plan.numbers),
        len(plan.numbers) - len(missing),
        plan.memory,
        seam,
        str(fidelity) if fidelity else None,
        fidelity.of_pan if fidelity else None,
        cameras=str(pair.camera) if pair.camera else None,
    )


def _device(fuser: Fuser, pair: ScenePair) -> DeviceNeed | None:
    """Return what a fuser asks of a GPU; None where it uses none."""
    found = fuser.device_memory(pair.bands)
    return None if found is None else DeviceNeed(*found)


def plan_scene(pair: ScenePair, output: Path, fuser: Fuser, options: SharpenOptions) -> Plan:
    """Choose the windows.

    Args:
        pair: the open scene.
        output: beside which an interrupted run may have left windows, whose side is then kept.
        fuser: what it asks of memory and of the surroundings.
        options: see :class:`SharpenOptions`.

    Raises:
        KsdiffError: memory does not suffice, no such tile, or no such part of the scene.
    """
    stored = choose_format(pair, None, options.dtype).dtype.itemsize
    margin = fuser.reach(pair.grid.ratio)
    fusing = fuser.bytes_per_pixel(pair.bands)
    base = _BASE_TORCH if "torch" in sys.modules else _BASE
    need = Need(
        pair.bands, stored, margin, fusing, base, _device(fuser, pair), fuser.grid(), fuser.tile_bytes(pair.bands)
    )
    row, col, height, width = crop_to(pair, options.window)
    region = Box(row, col, row + height, col + width)
    earlier = earlier_tile(output) if options.resume else None
    return make_plan(pair.shape, need, region, options.tile, options.memory, earlier)


def _facts(
    pair: ScenePair, known: Mapping[str, Any], fuser: Fuser, plan: Plan, options: SharpenOptions
) -> dict[str, Any]:
    """Return all that the windows' bytes depend on."""
    return {
        "ksdiff": __version__,
        **known,
        # windows of a CPU and of a GPU, which may round otherwise, are not mixed
        "method": dict(fuser.provenance()) | ({"DEVICE": "cuda"} if _device(fuser, pair) else {}),
        "dtype": options.dtype,
        "nodata": options.dst_nodata,
        "cut": plan.facts,
        "camera": repr(find_camera(pair)) if fuser.uses_camera else None,
    }


def how(options: SharpenOptions) -> str:
    """Say what the output, and what is made of it, depend on besides its windows."""
    others = sorted((str(path.absolute()), depends) for path, depends in options.besides.items())
    return repr((options.format, sorted(options.creation.items()), options.seen_by, others))


def _found(output: Path, pair: ScenePair, plan: Plan) -> Sharpened:
    """Describe an output that an earlier run had made before it was killed."""
    with rasterio.open(output) as dataset:
        seam = dataset.tags().get(SEAM_TAG, "none")
        return Sharpened(
            output,
            dataset.shape,
            dataset.count,
            dataset.dtypes[0],
            dataset.nodata,
            tuple(pair.notes),
            plan.tiling.tile,
            len(plan.numbers),
            len(plan.numbers),
            plan.memory,
            None if seam == "none" else float(seam),
            dataset.tags().get(FIDELITY_TAG),
            dataset.tags().get(PAN_TAG),
            cameras=dataset.tags().get(CAMERAS_TAG),
        )


def _reader(job: Job, assembly: Assembly) -> Look:
    """Return what reads a part of the output: its values, and where they are valid."""

    def look(box: Box) -> tuple[Array, Array]:
        image = assembly.look(box)
        return image.astype(np.float32), job.valid(image)

    return look


def _provenance(pair: ScenePair, fuser: Fuser, plan: Plan) -> dict[str, str]:
    scene = pair.scene
    facts = {
        "VERSION": __version__,
        **fuser.provenance(),
        **fuser.findings(),
        "SENSOR": scene.sensor.name,
        "TILE": str(plan.tiling.tile),
    }
    facts |= units_tags(scene)
    if pair.laid is not None:
        facts["GEOMETRY"] = f"{pair.laid.by}: {pair.laid}"
    if any(scene.shift):
        facts["SHIFT"] = "{:+.3f} {:+.3f}".format(*scene.shift)
    if scene.field is not None:
        facts["SHIFT_FIELD"] = f"{scene.field}, order {scene.field.order}, MS pixels on top of the shift"
    return {"TIFFTAG_SOFTWARE": f"ksdiff {__version__}", **{f"KSDIFF_{name}": value for name, value in facts.items()}}
