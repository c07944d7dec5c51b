"""Measuring a raster: against a reference image, or at full resolution against its own PAN and MS; block by block."""

import math
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import rasterio

from ksdiff_cli.checks import Nodata
from ksdiff_cli.errors import KsdiffError
from ksdiff_cli.evaluation.examples import Overview, View, choose_bands
from ksdiff_cli.evaluation.maps import MapPlan, Maps, open_maps, plan_maps
from ksdiff_cli.evaluation.measured import Measurement
from ksdiff_cli.evaluation.sources import (
    Area,
    FullSource,
    GridSource,
    Image,
    common_area,
    compare_names,
    compare_units,
)
from ksdiff_cli.files.names import Inputs
from ksdiff_cli.metrics import SOFTNESS, FullGatherer, Gatherer, Settings, Shifts, crop_slices, guess_peak
from ksdiff_cli.metrics.blocks import CELL, Block, Metric, Span, make_block, split
from ksdiff_cli.metrics.q2n import Q2n
from ksdiff_cli.metrics.shifts import ShiftSearch
from ksdiff_cli.metrics.views import place_view
from ksdiff_cli.numerics import Array
from ksdiff_cli.numerics.camera import Kernel
from ksdiff_cli.numerics.grids import Axis
from ksdiff_cli.numerics.toolbox import is_power_of_two
from ksdiff_cli.options import keywords
from ksdiff_cli.options.measuring import MeasureOptions
from ksdiff_cli.products.plain import shows_one_image
from ksdiff_cli.products.scene_files import find_inputs
from ksdiff_cli.progress import ProgressCallback, silent
from ksdiff_cli.raster.bands import BandSource
from ksdiff_cli.raster.camera import ms_camera
from ksdiff_cli.raster.layout import check_colours, pixel_metres
from ksdiff_cli.raster.nodata import declare, declare_band, find_fill, find_notes, say_fill
from ksdiff_cli.raster.open import BLOCK_CACHE, alpha_is_data, data_bands, open_raster
from ksdiff_cli.raster.pair import Scene, ScenePair, open_pair
from ksdiff_cli.raster.units import read_factors
from ksdiff_cli.sensors import Sensor, find_sensor


def find_band_shifts(source: FullSource | GridSource) -> Shifts:
    """Find by how much each band of MS lies off PAN; see :func:`ksdiff_cli.metrics.find_shifts`.

    Raises:
        KsdiffError: a file is damaged.
    """
    part = source.ms_part
    search = ShiftSearch(part.grid, source.gains)
    for patch in search.patches(source.shape, part.shape):
        pan, valid = source.read_pan(*_window(*patch.pan))
        ms, ms_valid = part.read(*_window(*patch.ms))
        search.update(patch, pan[0], ms, valid, ms_valid)
    return search.result()


def ms_blocks(source: FullSource | GridSource, step: tuple[int, int]) -> list[tuple[Span, Span]]:
    """Cut the MS pixels into blocks of about ``step`` rows and columns of PAN pixels."""
    part = source.ms_part
    if min(part.shape) == 0:
        return []
    axes = part.grid.rows, part.grid.cols
    sides = [CELL * max(1, round(size * abs(axis.scale) / CELL)) for size, axis in zip(step, axes, strict=True)]
    rows, cols = (split(size, side, 0, 0) for size, side in zip(part.shape, sides, strict=True))
    return [(row, col) for row in rows for col in cols]


def read_reprojected(
    source: FullSource | GridSource, shifts: Array, rows: Span, cols: Span
) -> tuple[Array, Array, Array]:
    """Read a block of MS, and the fused image as the MS camera sees it there.

    Args:
        source: the images.
        shifts: (bands, 2) PAN rows and columns, of :func:`find_band_shifts`.
        rows: of the block, MS pixels.
        cols: of the block.

    Returns:
        MS and the fused image, (bands, h, w) float64, and which pixels count, (h, w) bool.

    Raises:
        KsdiffError: a file is damaged.
    """
    part, places = source.ms_part, ((rows.start, rows.stop), (cols.start, cols.stop))
    view = place_view(part.grid, source.shape, *places, source.cameras, shifts)
    image, valid = source.fused.read(*_window(view.rows, view.cols))
    ms, known = part.read(*_window(*(slice(*place) for place in places)))
    return ms, view.see(image), known & view.whole(valid)


def _window(rows: slice, cols: slice) -> tuple[int, int, int, int]:
    return rows.start, cols.start, rows.stop - rows.start, cols.stop - cols.start


# Wide and low: the strips of an untiled file are then decoded once, not once a column of blocks
_STEP = 256, 1024
_OFF_GRID = 0.05
"""Largest misfit, in PAN pixels, of MS pixels that are taken to lie exactly on PAN's."""


@keywords(MeasureOptions)
def measure_against_reference(
    fused: Path,
    reference: Path,
    *,
    options: MeasureOptions,
    pictures: bool = False,
    progress: ProgressCallback = silent,
) -> Measurement:
    """Measure a raster against a reference raster, in bounded memory.

    Args:
        fused: the raster to judge.
        reference: the truth, same bands and pixel grid; its extent may differ.
        options: how; the sensor's bit depth gives the peak of PSNR and SSIM, else the reference's largest value does.
            ``report`` is a page that the caller writes, see :func:`ksdiff_cli.evaluation.maps.plan_maps`.
        pictures: keep an overview and a few windows as examples for a report.
        progress: told the blocks done.

    Raises:
        KsdiffError: a file is missing or no raster, band counts, CRS or pixel grids differ, there is no overlap, no
            valid pixel, or a map exists.
    """
    sensor, crop, nodata = options.sensor, options.crop, options.nodata[1]
    known = find_sensor(sensor) if sensor else None
    ratio = options.ratio or (known.ratio if known else 4)
    inputs = find_inputs([fused, reference, *([sensor] if sensor else [])])
    plan = _plan_maps(options, ("sam", "q2n"), inputs, [ratio, sensor, crop, repr(nodata)])
    with rasterio.Env(GDAL_CACHEMAX=BLOCK_CACHE), open_raster(reference) as first, open_raster(fused) as second:
        truth, judged, notes = _common_areas(first, second, crop, nodata)
        peak = float(2**known.bits - 1) if known else _find_peak(truth)
        if not known:
            notes.append(
                f"peak {peak:g} of PSNR and SSIM: from the reference's largest value; a --sensor tells its bits"
            )
        (height, width), bands = truth.shape, len(truth.sources)
        found = Measurement("reduced", (width, height), bands, ratio, {"crop": crop, "peak": peak}, notes=notes)
        gatherer, overview = Gatherer(Settings(ratio, peak)), Overview(truth.shape, pixel_metres(first))
        spans = [(rows, cols) for rows in split(height, _STEP[0]) for cols in split(width, _STEP[1])]
        with open_maps(plan, truth) as writer:
            for done, (rows, cols) in enumerate(spans):
                block = _read_block(truth, judged, rows, cols)
                gatherer.update(block)
                found.left_out += int(np.count_nonzero(~block.view(0, 0).valid))
                writer.write_reference(block, with_q2n="Q2n" not in gatherer.refused)
                if pictures:
                    overview.add(View.of(block), rows, cols)
                progress(done + 1, len(spans))
            found.finish(*gatherer.results())
            found.sam_of = _quantity(truth, gatherer.metrics["Q2n"])
            if math.isnan(found.values["Q2n"]):
                writer.drop("q2n")
            if pictures:
                found.examples = overview.examples(
                    fused.name,
                    lambda rows, cols: View.of(_read_block(truth, judged, rows, cols)),
                    choose_bands(first),
                )
            found.maps = list(writer.paths.values())
    return found


@keywords(MeasureOptions)
def measure_at_full_resolution(
    fused: Path,
    pan: Path,
    ms: Path,
    *,
    options: MeasureOptions,
    pictures: bool = False,
    progress: ProgressCallback = silent,
) -> Measurement:
    """Measure a sharpened raster against the PAN and MS that it was made from, in bounded memory.

    Sizes are cut to multiples of 32 and of the ratio. MS is upsampled as the reference toolbox does, by interp23tap;
    where MS pixels do not lie exactly on PAN's or the ratio is no power of two, by bicubic resampling, with a note.

    Args:
        fused: the raster to judge, on PAN's grid; its extent may differ.
        pan: the panchromatic raster.
        ms: the multispectral raster, same bands as ``fused``.
        options: how. ``mtf`` says whose camera R-Q2n, R-ERGAS, R-SAM, RQNR and D_lambda_align look through; the other
            figures take the sensor's gains, 0.3 without one, as the reference toolbox does. ``report`` is a page that
            the caller writes, see :func:`ksdiff_cli.evaluation.maps.plan_maps`.
        pictures: keep an overview and a few windows as examples for a report.
        progress: told the blocks done.

    Raises:
        KsdiffError: a file is missing or no raster, band counts, CRS or pixel grids differ, the overlap is under 32
            pixels, no valid pixel, or the map exists.
    """
    sensor, mtf, warp, nodata = options.sensor, options.mtf, options.warp, options.nodata
    known = find_sensor(sensor)
    inputs = find_inputs([fused, pan, ms, *([sensor] if sensor else [])])
    plan = _plan_maps(options, ("q2n_d_lambda",), inputs, [sensor, warp, repr(nodata), mtf])
    with ExitStack() as stack:
        stack.enter_context(rasterio.Env(GDAL_CACHEMAX=BLOCK_CACHE))
        dataset = stack.enter_context(open_raster(fused))
        count = len(data_bands(dataset))
        with open_raster(ms) as ms_dataset:
            bands, as_data = data_bands(ms_dataset), alpha_is_data(ms_dataset)
        if count != len(bands):
            several = "" if count < len(bands) else " (rio stack FILE… -o ms.tif makes one file of several)"
            raise KsdiffError(f"{fused}: has {count} bands but MS {ms} has {len(bands)}; give equal ones{several}")
        gains = known.ms_gains(count)
        pair = stack.enter_context(open_pair(declare(_scene(pan, ms, bands, as_data, known, warp), nodata)))
        camera = ms_camera(pair, mtf)
        source, notes = _lay_full(dataset, pair, gains, camera.kernels, nodata[1])
        notes += find_notes(pair)
        if sensor is None:
            notes.append("no --sensor: MTF gain 0.3 for every band")
        height, width = source.shape
        ratio = round(math.sqrt(1 / abs(pair.grid.rows.scale * pair.grid.cols.scale)), 6)
        settings = {"sensor": known.name, "upsampling": source.upsampling, "reprojection": camera.source}
        found = Measurement("full", (width, height), count, ratio, settings, notes=notes)
        overview = Overview(source.shape, pixel_metres(pair.pan)) if pictures else None
        writer = stack.enter_context(open_maps(plan, source.fused))
        gatherer = _gather_full(source, found, writer, overview, progress)
        found.sam_of = _quantity(source.fused, gatherer.reprojection.metrics["R_Q2n"])
        if math.isnan(found.values["D_lambda"]):
            writer.drop("q2n_d_lambda")
        if overview:
            found.examples = overview.examples(
                fused.name, lambda rows, cols: View.of(source.block(rows, cols)), choose_bands(dataset)
            )
        found.maps = list(writer.paths.values())
    return found


def _plan_maps(options: MeasureOptions, names: tuple[str, ...], inputs: Inputs, facts: Sequence[object]) -> MapPlan:
    return plan_maps(options.maps, names, inputs, facts, options.overwrite, options.report)


def _gather_full(
    source: FullSource | GridSource,
    found: Measurement,
    writer: Maps,
    overview: Overview | None,
    progress: ProgressCallback,
) -> FullGatherer:
    """Measure block by block, on PAN's grid and then on that of MS."""
    (height, width), gatherer = source.shape, FullGatherer(found.ratio)
    spans = [(rows, cols) for rows in split(height, _STEP[0], 0, 0) for cols in split(width, _STEP[1], 0, 0)]
    ms_spans = ms_blocks(source, _STEP)
    total = len(spans) + len(ms_spans)
    for done, (rows, cols) in enumerate(spans):
        block = source.block(rows, cols)
        gatherer.update(block)
        found.left_out += int(np.count_nonzero(~block.valid))
        writer.write_full(block, rows, cols)
        if overview:
            overview.add(View.of(block), rows, cols)
        progress(done + 1, total)
    found.shifts = find_band_shifts(source)
    for done, (rows, cols) in enumerate(ms_spans, len(spans)):
        gatherer.reprojection.update(*read_reprojected(source, found.shifts.shifts, rows, cols), rows, cols)
        progress(done + 1, total)
    found.notes.append(SOFTNESS)
    found.finish(*gatherer.results())
    return gatherer


def _quantity(area: Area, q2n: Metric) -> str:
    """Say what the values are that were compared, whose largest Q2n has seen: SAM depends on it."""
    if area.units is not None:
        return "values by the scales and offsets that the files declare"
    largest = q2n.peak if isinstance(q2n, Q2n) else 0
    return f"fractions up to {largest:.3g}" if 0 < largest <= 1 else "DN"


def _common_areas(reference: Any, fused: Any, crop: str, nodata: Nodata) -> tuple[Area, Area, list[str]]:
    """Find the part of two open rasters to compare, and what to say about it."""
    bands, own = _image("the reference", reference, nodata), _image("the fused image", fused, nodata)
    counts = len(own[2]), len(bands[2])
    if counts[0] != counts[1]:
        raise KsdiffError(
            f"{fused.name}: has {counts[0]} bands but the reference {reference.name} has {counts[1]}; give equal ones"
        )
    at_reference, at_fused, shape, notes = common_area(reference, fused)
    rows, cols = crop_slices(*shape, crop)
    shape = rows.stop - rows.start, cols.stop - cols.start
    units, told = compare_units([own, bands])
    judged, truth = (
        Area(image[1][0], at[0] + rows.start, at[1] + cols.start, shape, tuple(image[2]), unit)
        for image, at, unit in zip((own, bands), (at_fused, at_reference), units, strict=True)
    )
    notes += [*told, *compare_names(own, bands)]
    for name, datasets, sources in (own, bands):
        if fill := find_fill(datasets, sources):
            notes.append(say_fill(name, fill))
    return truth, judged, notes


def _image(name: str, dataset: Any, nodata: Nodata = None) -> Image:
    """Return the data bands of an open raster."""
    check_colours(dataset, data_bands(dataset))
    as_data = alpha_is_data(dataset)
    sources = [BandSource(dataset.name, band, alpha_is_data=as_data) for band in data_bands(dataset)]
    return name, [dataset] * len(sources), [declare_band(source, nodata) for source in sources]


def _scene(pan: Path, ms: Path, bands: Sequence[int], as_data: bool, sensor: Sensor, warp: bool) -> Scene:
    with open_raster(pan) as dataset:
        own = data_bands(dataset)
        if len(own) > 1 and not shows_one_image(dataset, own):
            raise KsdiffError(
                f"{pan}: has {len(own)} bands, PAN has one; what finer bands guided is measured with --guide {pan} in "
                "place of --pan"
            )
    sources = tuple(BandSource(str(ms), band, alpha_is_data=as_data) for band in bands)
    return Scene(pan.stem, BandSource(str(pan), own[0]), sources, sensor, warp=warp)


def _read_block(truth: Area, judged: Area, rows: Span, cols: Span) -> Block:
    window = (
        rows.start - rows.before,
        cols.start - cols.before,
        rows.before + rows.stop - rows.start + rows.after,
        cols.before + cols.stop - cols.start + cols.after,
    )
    (reference, valid), (fused, also_valid) = truth.read(*window), judged.read(*window)
    return make_block(reference, fused, valid & also_valid, rows, cols)


def _find_peak(area: Area) -> float:
    """Return the peak that the reference image's largest valid value suggests, in one pass over it."""
    largest = 0.0
    for rows in split(area.shape[0], _STEP[0], 0, 0):
        for cols in split(area.shape[1], _STEP[1], 0, 0):
            values, _ = area.read(rows.start, cols.start, rows.stop - rows.start, cols.stop - cols.start)
            largest = max(largest, float(values.max()))
    return guess_peak(largest)


def _lay_full(
    fused: Any, pair: ScenePair, gains: tuple[float, ...], cameras: tuple[Kernel, ...], nodata: Nodata
) -> tuple[FullSource | GridSource, list[str]]:
    """Find the part that fused, PAN and MS share, and whether the reference's upsampling applies to it."""
    at_pan, at_fused, shape, _ = common_area(pair.pan, fused)
    starts = [max(0, at - origin) for at, origin in zip(at_pan, pair.origin, strict=True)]
    stops = [
        min(size, at + count - origin)
        for size, at, count, origin in zip(pair.shape, at_pan, shape, pair.origin, strict=True)
    ]
    axes, sizes = (pair.grid.rows, pair.grid.cols), pair.ms_shape
    laid = [_lay_axis(*axis) for axis in zip(axes, starts, stops, sizes, strict=True)]
    ratio, notes = pair.grid.ratio, list(pair.notes)
    exact = all(one is not None for one in laid) and not pair.warped
    if exact:
        starts = [one[0] for one in laid if one]
        stops = [one[0] + one[2] * ratio for one in laid if one]
    step = math.lcm(CELL, ratio) if exact else CELL
    height, width = ((stop - start) // step * step for start, stop in zip(starts, stops, strict=True))
    if min(height, width) < step:
        raise KsdiffError(f"{fused.name}: shares less than {step} x {step} pixels with PAN and MS; too few to measure")
    if (height, width) != fused.shape:
        notes.append(f"measured on {width} x {height} of the fused image's {fused.width} x {fused.height} pixels")
    pan_at = [start + origin for start, origin in zip(starts, pair.origin, strict=True)]
    fused_at = [of_pan - a + b for of_pan, a, b in zip(pan_at, at_pan, at_fused, strict=True)]
    own, ms = _image("the fused image", fused, nodata), ("MS", pair.ms, pair.scene.ms)
    factors = read_factors(fused.tags(), len(own[2]))
    units, told = compare_units([own, ms], ("PAN", [pair.pan], [pair.scene.pan]), factors)
    notes += [*told, *compare_names(own, ms)]
    if fill := find_fill(*own[1:]):
        notes.append(say_fill(own[0], fill))
    fused_area = Area(fused, fused_at[0], fused_at[1], (height, width), tuple(own[2]), units[0])
    if not exact:
        notes.append(
            "MS pixels do not lie exactly on PAN pixels at a ratio of 2, 4, 8 …: MS is upsampled by bicubic resampling "
            "by the georeference, not by the reference toolbox's filter; compare such figures only with each other"
        )
        return GridSource(fused_area, pair, starts[0], starts[1], gains, cameras, (height, width), *units[1:]), notes
    ms_rows, ms_cols = (one[1] for one in laid if one)
    pan_area = Area(pair.pan, pan_at[0], pan_at[1], (height, width), (pair.scene.pan,), units[2])
    ms_area = Area(pair.ms[0], ms_rows, ms_cols, (height // ratio, width // ratio), pair.scene.ms, units[1])
    return FullSource(fused_area, pan_area, ms_area, gains, cameras, ratio), notes


def _lay_axis(axis: Axis, start: int, stop: int, size: int) -> tuple[int, int, int] | None:
    """Return the first PAN pixel from ``start`` on where an MS pixel begins, that MS pixel, and how many follow.

    ``None`` if MS pixels do not cover a whole number of PAN pixels, a power of two, exactly.
    """
    ratio = round(1 / axis.scale)
    if not is_power_of_two(ratio) or abs(1 / axis.scale - ratio) * size > _OFF_GRID:
        return None
    half = (ratio - 1) / 2  # from an MS pixel's first PAN pixel to its centre
    first = max(0, math.ceil(axis.to_ms(start + half) - _OFF_GRID / ratio))
    exact = axis.to_pan(first) - half
    begin = round(exact)
    if abs(exact - begin) > _OFF_GRID:
        return None
    return begin, first, min((stop - begin) // ratio, size - first)
