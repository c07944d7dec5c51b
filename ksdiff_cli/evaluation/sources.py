"""Reading rasters for measuring: a common grid, any border, nodata, and the blocks of the full-resolution metrics."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from rasterio.windows import Window

from ksdiff_cli.errors import KsdiffError
from ksdiff_cli.metrics.blocks import Span
from ksdiff_cli.metrics.full_blocks import FullBlock, PanBlock, margin_for
from ksdiff_cli.numerics import Array
from ksdiff_cli.numerics.camera import Kernel
from ksdiff_cli.numerics.grids import Axis, GridMap, corner_aligned
from ksdiff_cli.numerics.moments import erode
from ksdiff_cli.numerics.toolbox import (
    INTERP_REACH,
    MTF_REACH,
    apply_axes,
    bicubic,
    interp23tap,
    mtf_filter,
    sampling_matrix,
)
from ksdiff_cli.output.metadata import declared_units
from ksdiff_cli.raster.bands import BandSource, Linear, is_number, read_stored
from ksdiff_cli.raster.layout import check_extent, has_geotransform, same_crs
from ksdiff_cli.raster.pair import ScenePair
from ksdiff_cli.sensors import fold_name

Reader = Callable[[int, int, int, int], tuple[Array, Array]]
"""(row, col, height, width) -> values (bands, height, width) float64, valid (height, width) bool."""

_OFF_GRID = 0.05
"""Largest misfit, in pixels, of two grids that are taken for the same."""


@dataclass(frozen=True)
class Units:
    """Scales and offsets, band by band, that bring a raster's DN to a common unit: ``DN * scale + offset``."""

    scales: Array
    """(bands,)"""
    offsets: Array
    """(bands,)"""

    def apply(self, values: Array) -> Array:
        """Return (bands, h, w) values in that unit."""
        return np.asarray(values * self.scales[:, None, None] + self.offsets[:, None, None])


@dataclass(frozen=True)
class Area:
    """A rectangle of a raster, read in its own pixel coordinates."""

    dataset: Any
    row: int
    col: int
    shape: tuple[int, int]
    sources: tuple[BandSource, ...]
    units: Units | None = None
    """None leaves DN as they are."""

    def read(self, row: int, col: int, height: int, width: int) -> tuple[Array, Array]:
        """Read a window that lies inside the area; a :data:`Reader`. NaN, nodata and masked pixels are not valid.

        Raises:
            KsdiffError: the file is damaged.
        """
        window = Window(self.col + col, self.row + row, width, height)
        stored, valid = read_stored([self.dataset] * len(self.sources), self.sources, window)
        values = np.stack(stored).astype(np.float64)
        for band in stored:
            if band.dtype.kind == "f":
                valid &= is_number(band)
        if not valid.all():
            values[:, ~valid] = 0
        if self.units is not None:
            values = self.units.apply(values)
        return values, valid


Image = tuple[str, Sequence[Any], Sequence[BandSource]]
"""The name of an image for people, and its bands: the open file of each, and the band."""


def compare_units(
    images: Sequence[Image], pan: Image | None = None, factors: Sequence[Linear] | None = None
) -> tuple[list[Units | None], list[str]]:
    """Find the unit in which images can be compared whose files declare scales and offsets.

    That is DN, if all declare the same scale and no offset; else what they declare, in steps of the last image's DN.

    Args:
        images: of equal bands, the one that tells the step last.
        pan: an image of one band; one that declares nothing is taken to be in that step.
        factors: what turns DN of PAN and of each band into the first image's unit, see
            :func:`ksdiff_cli.raster.units.read_factors`; they hold for other images that declare nothing.

    Returns:
        For each image, then for PAN, what its DN become; and what a person must know.
    """
    given = [(image, _declared_units(image)) for image in (*images, *([pan] if pan else []))]
    if factors is not None:
        known = [*[list(factors[1:])] * len(images), list(factors[:1])]
        given[1:] = [
            (image, units if any(pair != (1.0, 0.0) for pair in units) else own)
            for (image, units), own in zip(given[1:], known[1:], strict=False)
        ]
    step = given[len(images) - 1][1][0][0]
    given = [(image, [(step, 0.0)] if image is pan and units == [(1.0, 0.0)] else units) for image, units in given]
    if {pair for _, units in given for pair in units} == {(step, 0.0)}:
        return [None] * len(given), []
    words = []
    for (name, _, _), units in given:
        different = dict.fromkeys(units)
        shown = ", ".join(f"{scale:g} * DN {offset:+g}" for scale, offset in list(different)[:3])
        words.append(f"{name}: {shown}{', …' if len(different) > 3 else ''}")
    note = f"compared by the scales and offsets that the files declare ({'; '.join(words)}), in steps of {step:g}"
    return [Units(*(np.array(values) / step for values in zip(*units, strict=True))) for _, units in given], [note]


def _declared_units(image: Image) -> list[tuple[float, float]]:
    """Return scale and offset of each band of an image; a scale of 0, or what is no number, declares nothing."""
    _, datasets, sources = image
    declared = [declared_units(dataset, source) for dataset, source in zip(datasets, sources, strict=True)]
    return [(scale, offset) if scale and math.isfinite(scale * offset) else (1.0, 0.0) for scale, offset in declared]


def compare_names(first: Image, second: Image) -> list[str]:
    """Say where two images seem to have their bands in different orders, by the names that their files give them."""
    names = [
        [
            fold_name(dataset.descriptions[source.band - 1] or source.name or "")
            for dataset, source in zip(*image[1:], strict=True)
        ]
        for image in (first, second)
    ]
    for number, (one, other) in enumerate(zip(*names, strict=True), start=1):
        if one and other and one != other and one in names[1]:
            return [
                f"band {number} is called {one} in {first[0]} but {other} in {second[0]}, where band "
                f"{names[1].index(one) + 1} is {one}: bands are compared by number, give both in one order"
            ]
    return []


def common_area(first: Any, second: Any) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int], list[str]]:
    """Lay two rasters of the same pixel size on each other.

    Args:
        first: an open dataset.
        second: another one.

    Returns:
        Row and column of the common area in the first, the same in the second, its (height, width), and notes.

    Raises:
        KsdiffError: different CRS or pixel size, grids off by a fraction of a pixel, no overlap, or different sizes
            without a georeference.
    """
    for dataset in (first, second):
        check_extent(dataset)
    if not (has_geotransform(first) and has_geotransform(second)):
        if first.shape != second.shape:
            raise KsdiffError(
                f"{first.name}: {first.width} x {first.height} pixels but {second.name} has {second.width} x "
                f"{second.height}, and there is no common georeference to lay them on each other; cut both to one area"
            )
        return (0, 0), (0, 0), first.shape, ["no common georeference: the images are laid corner on corner"]
    if not same_crs(first, second):
        raise KsdiffError(f"{second.name}: its CRS differs from that of {first.name}; warp one to the other's first")
    shift = ~first.transform @ second.transform
    slack = _OFF_GRID / max(*first.shape, *second.shape)
    if max(abs(shift.a - 1), abs(shift.e - 1), abs(shift.b), abs(shift.d)) > slack:
        raise KsdiffError(
            f"{second.name}: its pixels are {abs(shift.a):.3f} x {abs(shift.e):.3f} of those of {first.name}; "
            "images to compare must share one grid, warp one onto the other first"
        )
    row, col = round(shift.f), round(shift.c)
    if max(abs(shift.f - row), abs(shift.c - col)) > _OFF_GRID:
        raise KsdiffError(
            f"{second.name}: its grid is shifted against that of {first.name} by a fraction of a pixel "
            f"({shift.c - col:+.2f}, {shift.f - row:+.2f}); warp one onto the other first"
        )
    start = max(0, row), max(0, col)
    stop = min(first.height, row + second.height), min(first.width, col + second.width)
    shape = stop[0] - start[0], stop[1] - start[1]
    if min(shape) <= 0:
        raise KsdiffError(f"{second.name}: does not overlap {first.name}; check that both show one scene")
    notes = []
    if first.shape != second.shape or (row, col) != (0, 0):
        notes.append(
            f"the images cover different areas: measured on their common {shape[1]} x {shape[0]} pixels "
            f"({first.width} x {first.height} and {second.width} x {second.height})"
        )
    return start, (start[0] - row, start[1] - col), shape, notes


def read_clipped(read: Reader, rows: Span, cols: Span, reach: int, mode: str) -> tuple[Array, Array]:
    """Read a span with ``reach`` pixels on each side, made up beyond the image as ``np.pad`` does in ``mode``."""
    starts = [max(0, span.start - reach) for span in (rows, cols)]
    stops = [min(span.size, span.stop + reach) for span in (rows, cols)]
    values, valid = read(starts[0], starts[1], stops[0] - starts[0], stops[1] - starts[1])
    pads = [
        (start - span.start + reach, span.stop + reach - stop)
        for span, start, stop in zip((rows, cols), starts, stops, strict=True)
    ]
    return np.pad(values, [(0, 0), *pads], mode=mode), np.pad(valid, pads, mode=mode)  # type: ignore[call-overload]


def read_circular(read: Reader, rows: Span, cols: Span, reach: int) -> tuple[Array, Array]:
    """Read a span with ``reach`` pixels on each side; beyond the image its other side follows."""
    lines = []
    for row, height in _runs(rows, reach):
        parts = [read(row, col, height, width) for col, width in _runs(cols, reach)]
        lines.append([np.concatenate(pieces, -1) for pieces in zip(*parts, strict=True)])
    values, valid = (np.concatenate(pieces, -2) for pieces in zip(*lines, strict=True))
    return values, valid


def _runs(span: Span, reach: int) -> Iterator[tuple[int, int]]:
    """Cut a circular range into (start, length) pieces that lie inside the image."""
    at, left = span.start - reach, span.stop - span.start + 2 * reach
    while left > 0:
        start = at % span.size
        length = min(left, span.size - start)
        yield start, length
        at, left = at + length, left - length


def _eroded(valid: Array, reach: int) -> Array:
    """Return where the square of ``reach`` pixels around is valid, without the outer ``reach`` pixels themselves."""
    return erode(valid, reach)[reach : valid.shape[0] - reach, reach : valid.shape[1] - reach]


@dataclass(frozen=True)
class MsPart:
    """The MS pixels that a full-resolution source covers, as they were delivered."""

    read: Reader
    shape: tuple[int, int]
    """(height, width), MS pixels."""
    grid: GridMap
    """From the source's PAN pixels to these."""


@dataclass(frozen=True)
class FullSource:
    """Fused, PAN and MS on one grid, ready for full-resolution blocks as the reference toolbox makes them."""

    fused: Area
    pan: Area
    ms: Area
    gains: tuple[float, ...]
    cameras: tuple[Kernel, ...]
    """By band, through which the reprojection looks."""
    ratio: int
    upsampling = "interp23tap, as the reference toolbox (half a PAN pixel off the georeference)"

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width) in PAN pixels, multiples of 32 and of the ratio."""
        return self.pan.shape

    @property
    def ms_part(self) -> MsPart:
        """The MS pixels under it."""
        return MsPart(self.ms.read, self.ms.shape, corner_aligned(self.ratio))

    def read_pan(self, row: int, col: int, height: int, width: int) -> tuple[Array, Array]:
        """Read PAN; a :data:`Reader`."""
        return self.pan.read(row, col, height, width)

    def block(self, rows: Span, cols: Span) -> FullBlock:
        """Read one block; its sides and place must be multiples of 32."""
        around, blurred, valid = _around(self.fused.read, self.read_pan, rows, cols, self.gains, self.ratio)
        coarse = self._coarse(rows), self._coarse(cols)
        ms_up, ms_valid = self._interpolated(self.ms.read, *coarse)
        pan_low, low_valid = self._interpolated(self._read_coarse_pan, *coarse)
        fused, pan, own = around.cut(0, 0)
        return FullBlock(fused, blurred, ms_up, pan, pan_low[0], valid & own & ms_valid & low_valid, around)

    def _coarse(self, span: Span) -> Span:
        return Span(span.start // self.ratio, span.stop // self.ratio, span.size // self.ratio)

    def _interpolated(self, read: Reader, rows: Span, cols: Span) -> tuple[Array, Array]:
        values, valid = read_circular(read, rows, cols, INTERP_REACH)
        inside = slice(INTERP_REACH * self.ratio, -INTERP_REACH * self.ratio)
        near = _eroded(valid, INTERP_REACH).repeat(self.ratio, 0).repeat(self.ratio, 1)
        return interp23tap(values, self.ratio)[:, inside, inside], near

    def _read_coarse_pan(self, row: int, col: int, height: int, width: int) -> tuple[Array, Array]:
        """Read PAN at the MS size; a :data:`Reader`."""
        reach = 2 * self.ratio  # of the antialiased bicubic kernel
        rows, cols = (
            Span(start * self.ratio, (start + count) * self.ratio, size)
            for start, count, size in zip((row, col), (height, width), self.shape, strict=True)
        )
        values, valid = read_clipped(self.pan.read, rows, cols, reach, "symmetric")
        near = _eroded(valid, reach).reshape(height, self.ratio, width, self.ratio)
        return bicubic(values, 1 / self.ratio)[:, 2:-2, 2:-2], np.asarray(near.all((1, 3)))


@dataclass(frozen=True)
class GridSource:
    """As :class:`FullSource`, for grids the reference toolbox cannot take: bicubic resampling by the georeference."""

    fused: Area
    pair: ScenePair
    row: int
    """First row, in pixels of the pair's output grid."""
    col: int
    gains: tuple[float, ...]
    cameras: tuple[Kernel, ...]
    """By band, through which the reprojection looks."""
    shape: tuple[int, int]
    ms_units: Units | None = None
    pan_units: Units | None = None
    upsampling = "bicubic by the georeference"

    def block(self, rows: Span, cols: Span) -> FullBlock:
        """Read one block; its sides and place must be multiples of 32."""
        height, width = rows.stop - rows.start, cols.stop - cols.start
        tile = self.pair.read(self.row + rows.start, self.col + cols.start, height, width)
        ratio = math.sqrt(1 / abs(self.pair.grid.rows.scale * self.pair.grid.cols.scale))
        around, blurred, valid = _around(self.fused.read, self.read_pan, rows, cols, self.gains, ratio)
        pan_low, low_valid = self._pan_low(rows, cols)
        fused, pan, own = around.cut(0, 0)
        ms_up = tile.ms_up.astype(np.float64)
        ms_up = self.ms_units.apply(ms_up) if self.ms_units else ms_up
        return FullBlock(fused, blurred, ms_up, pan, pan_low, valid & own & tile.valid & low_valid, around)

    def _pan_low(self, rows: Span, cols: Span) -> tuple[Array, Array]:
        """Bring PAN to the MS pixels by antialiased bicubic resampling, and back."""
        grid = self.pair.grid.shifted(self.row, self.col)
        reach = math.ceil(6 / min(abs(grid.rows.scale), abs(grid.cols.scale)))
        values, valid = read_clipped(self.read_pan, rows, cols, reach, "symmetric")
        down, across = (
            _there_and_back(axis.shifted(span.start - reach), span.stop - span.start + 2 * reach)
            for axis, span in ((grid.rows, rows), (grid.cols, cols))
        )
        inside = slice(reach, -reach)
        return apply_axes(down, across, values)[0, inside, inside], _eroded(valid, reach)

    @property
    def ms_part(self) -> MsPart:
        """The MS pixels whose centres lie in it."""
        ends = []
        for axis, start, size, most in zip(
            (self.pair.grid.rows, self.pair.grid.cols),
            (self.row, self.col),
            self.shape,
            self.pair.ms_shape,
            strict=True,
        ):
            first, last = sorted((axis.to_ms(start - 0.5), axis.to_ms(start + size - 0.5)))
            ends.append((max(0, math.ceil(first)), min(most, math.ceil(last))))
        (top, bottom), (left, right) = ends

        def read(row: int, col: int, height: int, width: int) -> tuple[Array, Array]:
            values, valid = self.pair.read_ms(top + row, left + col, height, width)
            values = np.where(valid, values, 0).astype(np.float64)
            return self.ms_units.apply(values) if self.ms_units else values, valid

        grid = self.pair.grid.shifted(self.row, self.col).moved(-top, -left)
        return MsPart(read, (bottom - top, right - left), grid)

    def read_pan(self, row: int, col: int, height: int, width: int) -> tuple[Array, Array]:
        """Read PAN; a :data:`Reader`."""
        values, valid = self.pair.read_pan(self.row + row, self.col + col, height, width)
        values = np.where(valid, values, 0).astype(np.float64)
        return self.pan_units.apply(values) if self.pan_units else values, valid


def _there_and_back(axis: Axis, size: int) -> Any:
    """Return the (size, size) matrix that samples a PAN axis at the MS pixels on it and interpolates back."""
    ends = sorted((float(axis.to_ms(0)), float(axis.to_ms(size - 1))))
    ms = np.arange(math.floor(ends[0]) - 1, math.ceil(ends[1]) + 2)
    down = sampling_matrix(axis.to_pan(ms), size, abs(axis.scale))
    up = sampling_matrix(axis.to_ms(np.arange(size)) - ms[0], len(ms), 1 / abs(axis.scale))
    return up @ down


def _around(
    fused: Reader, pan: Reader, rows: Span, cols: Span, gains: tuple[float, ...], ratio: float
) -> tuple[PanBlock, Array, Array]:
    """Read a block of the fused image and of PAN with what lies around it.

    Returns:
        The block; the fused image through the MS camera's MTF, (bands, h, w); where that saw no nodata, (h, w) bool.
    """
    margin = margin_for(ratio)
    values, valid = read_clipped(fused, rows, cols, margin, "edge")
    block = _beside_pan(values, valid, pan, rows, cols, margin)
    near = [slice(margin - MTF_REACH, size - margin + MTF_REACH) for size in valid.shape]
    core = slice(MTF_REACH, -MTF_REACH)
    blurred = mtf_filter(values[:, *near], gains, ratio)[:, core, core]
    return block, blurred, _eroded(valid[tuple(near)], MTF_REACH)


def read_around(fused: Reader, pan: Reader, rows: Span, cols: Span, margin: int) -> PanBlock:
    """Read a block of the fused image and of PAN with ``margin`` pixels around it."""
    values, valid = read_clipped(fused, rows, cols, margin, "edge")
    return _beside_pan(values, valid, pan, rows, cols, margin)


def _beside_pan(values: Array, valid: Array, pan: Reader, rows: Span, cols: Span, margin: int) -> PanBlock:
    """Put PAN beside a fused image that was read with so many pixels around a block."""
    pan_values, pan_valid = read_clipped(pan, rows, cols, margin, "edge")
    places = [np.arange(span.start - margin, span.stop + margin) for span in (rows, cols)]
    inside = [(at >= 0) & (at < span.size) for at, span in zip(places, (rows, cols), strict=True)]
    return PanBlock(values, pan_values[0], valid & pan_valid & inside[0][:, None] & inside[1], margin)
