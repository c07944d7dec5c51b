"""Measuring a raster: against a reference image, or at full resolution against its own PAN and MS; block by block."""

import math
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray

from ksdiff_cli.degrade import is_power_of_two
from ksdiff_cli.errors import KsdiffError
from ksdiff_cli.grids import Axis
from ksdiff_cli.measuring_maps import map_paths, open_maps
from ksdiff_cli.measuring_sources import Area, FullSource, GridSource, common_area
from ksdiff_cli.metrics import ABOUT, FullGatherer, Gatherer, Settings, crop_slices, guess_peak
from ksdiff_cli.metrics.blocks import CELL, Block, Span, make_block, split
from ksdiff_cli.progress import ProgressCallback, silent
from ksdiff_cli.raster import BandSource, Scene, ScenePair, open_pair, open_raster
from ksdiff_cli.sensors import Sensor, find_sensor

Array = NDArray[Any]

# Wide and low: the strips of an untiled file are then decoded once, not once a column of blocks
_STEP = 256, 1024
_GDAL_CACHE_MB = 96
_OFF_GRID = 0.05
"""Largest misfit, in PAN pixels, of MS pixels that are taken to lie exactly on PAN's."""


@dataclass
class Measurement:
    """What was measured, how, and on what."""

    protocol: str
    """``reduced`` (against a reference) or ``full`` (against PAN and MS)."""
    size: tuple[int, int]
    """(width, height) of the part measured, pixels."""
    bands: int
    ratio: float
    """PAN pixels per MS pixel along a side."""
    settings: dict[str, Any]
    """What else the figures depend on: crop and peak, or sensor and upsampling."""
    values: dict[str, float] = field(default_factory=dict)
    """The figures by name; NaN where undefined, infinite PSNR for equal images."""
    left_out: int = 0
    """Pixels of that part left out as nodata or, at full resolution, as filtered from nodata."""
    notes: list[str] = field(default_factory=list)
    """What a person must know to read the figures."""
    maps: list[Path] = field(default_factory=list)
    """Maps written."""

    def finish(self, values: dict[str, float], notes: list[str]) -> None:
        """Take the figures in and explain what is missing.

        Raises:
            KsdiffError: no pixel was left to measure.
        """
        total = self.size[0] * self.size[1]
        if self.left_out == total:
            raise KsdiffError("nothing to measure: every pixel is nodata in one of the images, or next to nodata")
        if self.left_out:
            self.notes.append(f"{self.left_out} of {total} pixels ({self.left_out / total:.2%}) left out as nodata")
        self.values = values
        self.notes += notes
        explained = {note.split(":")[0] for note in notes}
        for name, value in values.items():
            if not math.isfinite(value) and name not in explained:
                why = "infinite, the images are equal" if name == "PSNR" and value > 0 else ABOUT[name].undefined
                self.notes.append(f"{name}: undefined ({why})" if not why.startswith("infinite") else f"{name}: {why}")

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON values; a figure that is undefined or infinite is ``None``."""
        return {
            "protocol": self.protocol,
            **{name: value if math.isfinite(value) else None for name, value in self.values.items()},
            "width": self.size[0],
            "height": self.size[1],
            "bands": self.bands,
            "ratio": self.ratio,
            **self.settings,
            "pixels_left_out": self.left_out,
            "notes": self.notes,
            "maps": [str(path) for path in self.maps],
        }


def measure_against_reference(
    fused: Path,
    reference: Path,
    *,
    ratio: float | None = None,
    sensor: str | None = None,
    crop: str = "full",
    maps: Path | None = None,
    overwrite: bool = False,
    progress: ProgressCallback = silent,
) -> Measurement:
    """Measure a raster against a reference raster, in bounded memory.

    Args:
        fused: the raster to judge.
        reference: the truth, same bands and pixel grid; its extent may differ.
        ratio: PAN pixels per MS pixel, for ERGAS; ``None`` takes the sensor's, or 4.
        sensor: short name; its bit depth gives the peak of PSNR and SSIM, else the reference's largest value does.
        crop: ``full``, ``cut21`` or ``cut30``.
        maps: folder for ``sam.tif`` and ``q2n.tif``; ``None`` for no maps.
        overwrite: replace existing maps.
        progress: told the blocks done.

    Raises:
        KsdiffError: a file is missing or no raster, band counts, CRS or pixel grids differ, there is no overlap, no
            valid pixel, or a map exists.
    """
    known = find_sensor(sensor) if sensor else None
    ratio = ratio or (known.ratio if known else 4)
    paths = map_paths(maps, ("sam", "q2n"), overwrite)
    with rasterio.Env(GDAL_CACHEMAX=_GDAL_CACHE_MB), open_raster(reference) as first, open_raster(fused) as second:
        truth, judged, notes = _common_areas(first, second, crop)
        peak = float(2**known.bits - 1) if known else _find_peak(truth)
        if not known:
            notes.append(
                f"peak {peak:g} of PSNR and SSIM: from the reference's largest value; a --sensor tells its bits"
            )
        (height, width), bands = truth.shape, len(truth.bands)
        found = Measurement("reduced", (width, height), bands, ratio, {"crop": crop, "peak": peak}, notes=notes)
        gatherer = Gatherer(Settings(ratio, peak))
        spans = [(rows, cols) for rows in split(height, _STEP[0]) for cols in split(width, _STEP[1])]
        with open_maps(paths, truth) as writer:
            for done, (rows, cols) in enumerate(spans):
                block = _read_block(truth, judged, rows, cols)
                gatherer.update(block)
                found.left_out += int(np.count_nonzero(~block.view(0, 0).valid))
                writer.write_reference(block, with_q2n="Q2n" not in gatherer.refused)
                progress(done + 1, len(spans))
            found.finish(*gatherer.results())
            if math.isnan(found.values["Q2n"]):
                writer.drop("q2n")
            found.maps = list(writer.paths.values())
    return found


def measure_at_full_resolution(
    fused: Path,
    pan: Path,
    ms: Path,
    *,
    sensor: str | None = None,
    maps: Path | None = None,
    overwrite: bool = False,
    progress: ProgressCallback = silent,
) -> Measurement:
    """Measure a sharpened raster against the PAN and MS that it was made from, in bounded memory.

    Sizes are cut to multiples of 32 and of the ratio. MS is upsampled as the reference toolbox does, by interp23tap;
    where MS pixels do not lie exactly on PAN's or the ratio is no power of two, by bicubic resampling, with a note.

    Args:
        fused: the raster to judge, on PAN's grid; its extent may differ.
        pan: the panchromatic raster.
        ms: the multispectral raster, same bands as ``fused``.
        sensor: short name, for its MTF gains; ``None`` takes 0.3 for every band.
        maps: folder for ``q2n_d_lambda.tif``; ``None`` for no map.
        overwrite: replace an existing map.
        progress: told the blocks done.

    Raises:
        KsdiffError: a file is missing or no raster, band counts, CRS or pixel grids differ, the overlap is under 32
            pixels, no valid pixel, or the map exists.
    """
    known = find_sensor(sensor)
    paths = map_paths(maps, ("q2n_d_lambda",), overwrite)
    with ExitStack() as stack:
        stack.enter_context(rasterio.Env(GDAL_CACHEMAX=_GDAL_CACHE_MB))
        dataset = stack.enter_context(open_raster(fused))
        with open_raster(ms) as ms_dataset:
            if dataset.count != ms_dataset.count:
                raise KsdiffError(f"{fused}: has {dataset.count} bands but MS {ms} has {ms_dataset.count}")
        gains = known.ms_gains(dataset.count)
        pair = stack.enter_context(open_pair(_scene(pan, ms, dataset.count, known)))
        source, notes = _lay_full(dataset, pair, gains)
        if sensor is None:
            notes.append("no --sensor: MTF gain 0.3 for every band")
        height, width = source.shape
        ratio = round(math.sqrt(1 / abs(pair.grid.rows.scale * pair.grid.cols.scale)), 6)
        settings = {"sensor": known.name, "upsampling": source.upsampling}
        found = Measurement("full", (width, height), dataset.count, ratio, settings, notes=notes)
        gatherer = FullGatherer()
        spans = [(rows, cols) for rows in split(height, _STEP[0], 0, 0) for cols in split(width, _STEP[1], 0, 0)]
        writer = stack.enter_context(open_maps(paths, source.fused))
        for done, (rows, cols) in enumerate(spans):
            block = source.block(rows, cols)
            gatherer.update(block)
            found.left_out += int(np.count_nonzero(~block.valid))
            writer.write_full(block, rows, cols)
            progress(done + 1, len(spans))
        found.finish(*gatherer.results())
        if math.isnan(found.values["D_lambda"]):
            writer.drop("q2n_d_lambda")
        found.maps = list(writer.paths.values())
    return found


def _common_areas(reference: Any, fused: Any, crop: str) -> tuple[Area, Area, list[str]]:
    """Find the part of two open rasters to compare, and what to say about it."""
    if reference.count != fused.count:
        raise KsdiffError(
            f"{fused.name}: has {fused.count} bands but the reference {reference.name} has {reference.count}"
        )
    at_reference, at_fused, shape, notes = common_area(reference, fused)
    rows, cols = crop_slices(*shape, crop)
    shape, bands = (rows.stop - rows.start, cols.stop - cols.start), tuple(range(1, reference.count + 1))
    truth, judged = (
        Area(dataset, at[0] + rows.start, at[1] + cols.start, shape, bands)
        for dataset, at in ((reference, at_reference), (fused, at_fused))
    )
    return truth, judged, notes


def _scene(pan: Path, ms: Path, bands: int, sensor: Sensor) -> Scene:
    sources = tuple(BandSource(str(ms), band) for band in range(1, bands + 1))
    return Scene(pan.stem, BandSource(str(pan)), sources, sensor)


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


def _lay_full(fused: Any, pair: ScenePair, gains: tuple[float, ...]) -> tuple[FullSource | GridSource, list[str]]:
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
    bands = tuple(range(1, fused.count + 1))
    exact = all(one is not None for one in laid)
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
    fused_area = Area(fused, fused_at[0], fused_at[1], (height, width), bands)
    if not exact:
        notes.append(
            "MS pixels do not lie exactly on PAN pixels at a ratio of 2, 4, 8 …: MS is upsampled by bicubic resampling "
            "by the georeference, not by the reference toolbox's filter; compare such figures only with each other"
        )
        return GridSource(fused_area, pair, starts[0], starts[1], gains, (height, width)), notes
    ms_rows, ms_cols = (one[1] for one in laid if one)
    pan_area = Area(pair.pan, pan_at[0], pan_at[1], (height, width), (pair.scene.pan.band,))
    ms_area = Area(pair.ms[0], ms_rows, ms_cols, (height // ratio, width // ratio), bands)
    return FullSource(fused_area, pan_area, ms_area, gains, ratio), notes


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
