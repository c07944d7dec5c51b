"""MS on a grid that runs along PAN's, where its own does not: another CRS, or rows and columns at an angle to PAN's."""

import math
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import rasterio
import rasterio.shutil
from rasterio.crs import CRS
from rasterio.enums import ColorInterp, Resampling
from rasterio.io import MemoryFile
from rasterio.transform import Affine
from rasterio.vrt import WarpedVRT
from rasterio.warp import transform as reproject

from ksdiff_cli.errors import KsdiffError
from ksdiff_cli.numerics import Array
from ksdiff_cli.numerics.grids import Axis, GridMap
from ksdiff_cli.raster.bands import nodata_of
from ksdiff_cli.raster.layout import both_located, check_sizes, crs_name, crs_of, no_overlap, same_crs, turned
from ksdiff_cli.raster.open import first_line, is_from_gdal

if TYPE_CHECKING:
    from ksdiff_cli.raster.bands import BandSource


_TOLERANCE = 1e-4  # MS pixels by which GDAL may misplace a pixel to save time; rasterio takes no 0
_MARGIN = 8  # MS pixels kept around PAN, so that interpolation at PAN's border sees what lies beyond
_SIDE = 32  # pieces into which a side of the footprint is cut, for it may be curved in PAN's CRS
_STEP = 16.0  # PAN pixels over which the local scale is measured


@dataclass(frozen=True)
class WarpGrid:
    """A grid for MS in PAN's CRS and directions, its pixels a whole number of PAN pixels wide."""

    ratio: int
    """PAN pixels per MS pixel along a side."""
    start: tuple[int, int]
    """PAN row and column of its outer corner, multiples of the ratio; negative where it begins before PAN."""
    shape: tuple[int, int]
    """(height, width) in MS pixels."""
    scale: tuple[float, float]
    """Pixels of this grid per pixel of the MS file along its columns and its rows."""

    @property
    def map(self) -> GridMap:
        """PAN pixels -> pixels of this grid."""
        rows, cols = (Axis(1 / self.ratio, (0.5 - start) / self.ratio - 0.5) for start in self.start)
        return GridMap(rows, cols)

    def transform(self, pan: Any) -> Affine:
        """Geotransform, from that of the open PAN image."""
        return pan.transform @ Affine.translation(self.start[1], self.start[0]) @ Affine.scale(self.ratio)


def warp_grid(pan: Any, ms: Any) -> WarpGrid:
    """Choose the grid for MS: PAN's corner and directions, and the whole ratio nearest to the pixel size of MS.

    Args:
        pan: the open PAN image.
        ms: the open MS image.

    Returns:
        The grid; it holds what MS shows of PAN's area and a few pixels around it.

    Raises:
        KsdiffError: PAN no finer than MS, no overlap, or no way from one CRS into the other.
    """
    linear = _linear(pan, ms)
    if linear is None:
        raise no_overlap(pan, ms)
    width, height = np.hypot(*np.linalg.inv(linear))  # of an MS pixel, in PAN pixels
    check_sizes(pan, ms, (float(width), float(height)))
    ratio = max(2, round(math.sqrt(width * height)))
    spans = []
    edge = np.linspace(0, 1, _SIDE + 1)
    outline = np.stack([np.r_[edge, edge, 0 * edge, 0 * edge + 1], np.r_[0 * edge, 0 * edge + 1, edge, edge]])
    for places, count in zip(
        _follow(ms, pan, *outline * [[ms.width], [ms.height]]), (pan.width, pan.height), strict=True
    ):
        # an outline that cannot be followed everywhere, as over a pole, is taken to hold all of PAN
        known = np.isfinite(places).all()
        first = max(-_MARGIN * ratio, float(places.min()) if known else -math.inf)
        last = min(count + _MARGIN * ratio, float(places.max()) if known else math.inf)
        if last <= 0 or first >= count:
            raise no_overlap(pan, ms)
        spans.append((math.floor(first / ratio), math.ceil(last / ratio)))
    (left, right), (top, bottom) = spans
    return WarpGrid(
        ratio,
        (top * ratio, left * ratio),
        (bottom - top, right - left),
        (float(width) / ratio, float(height) / ratio),
    )


def warp_bands(
    stack: ExitStack, grid: WarpGrid, pan: Any, ms: Sequence[Any], sources: "Sequence[BandSource]"
) -> list[Any]:
    """Open MS on another grid by bicubic interpolation; pixels that are invalid there, or beside MS, are NaN.

    Values depend on no window: GDAL warps in blocks that are laid once and for all.

    Args:
        stack: closes what is opened.
        grid: from :func:`warp_grid`.
        pan: the open PAN image.
        ms: the open file of each band.
        sources: the bands.

    Returns:
        An open dataset for each band, float32, band numbers as in the file.
    """
    opened: dict[tuple[int, float], Any] = {}
    bands = []
    for dataset, source in zip(ms, sources, strict=True):
        empty = nodata_of(dataset, source) if source.fill is None else source.fill
        empty = math.nan if empty is None or math.isnan(empty) else empty
        key = id(dataset), empty
        if key not in opened:
            image = _without_alpha(stack, dataset) if source.alpha_is_data else dataset
            options: dict[str, Any] = {
                "dtype": "float32",
                "src_nodata": empty,
                "nodata": math.nan,
                "unified_src_nodata": "NO",  # else a pixel is invalid only where all bands are
            }
            opened[key] = _warped(stack, grid, pan, image, Resampling.cubic, options)
        bands.append(opened[key])
    return bands


def warp_flags(stack: ExitStack, grid: WarpGrid, pan: Any, quality: Any) -> Any:
    """Open a band of flags on another grid: each pixel takes the flags of the nearest one."""
    return _warped(stack, grid, pan, quality, Resampling.nearest, {})


def _warped(
    stack: ExitStack, grid: WarpGrid, pan: Any, dataset: Any, resampling: Resampling, options: dict[str, Any]
) -> Any:
    # where neither names a CRS, any does
    into = crs_of(pan) or crs_of(dataset) or CRS.from_epsg(3857)
    # by itself GDAL measures the scale block by block and smoothes where a block lies askew
    across, down = (min(1.0, scale) for scale in grid.scale)
    try:
        return stack.enter_context(
            WarpedVRT(
                dataset,
                src_crs=crs_of(dataset) or into,
                crs=into,
                transform=grid.transform(pan),
                height=grid.shape[0],
                width=grid.shape[1],
                resampling=resampling,
                tolerance=_TOLERANCE,
                num_threads=1,
                xscale=across,
                yscale=down,
                **options,
            )
        )
    except Exception as error:
        if not is_from_gdal(error):
            raise
        raise KsdiffError(f"{dataset.name}: cannot be warped to PAN's grid ({first_line(error)})") from None


def _without_alpha(stack: ExitStack, dataset: Any) -> Any:
    """Return the image with no band called alpha: warping takes transparency from any that is."""
    memory = stack.enter_context(MemoryFile(ext=".vrt"))
    rasterio.shutil.copy(dataset, memory.name, driver="VRT")
    with rasterio.open(memory.name, "r+") as copy:
        copy.colorinterp = [ColorInterp.undefined] * copy.count
    return stack.enter_context(rasterio.open(memory.name))


def rotation(pan: Any, ms: Any) -> float | None:
    """Measure by how many degrees MS is rotated clockwise against PAN, whatever their CRS; None if nothing says so."""
    if not both_located(pan, ms) or (linear := _linear(pan, ms)) is None:
        return None
    return turned(Affine(linear[0, 0], linear[0, 1], 0, linear[1, 0], linear[1, 1], 0))


def _linear(pan: Any, ms: Any) -> Array | None:
    """How MS columns and rows (first axis) change along PAN's (second axis) in PAN's middle; None without a way."""
    steps = np.array([[0.0, _STEP, 0.0], [0.0, 0.0, _STEP]])
    found = np.stack(_follow(pan, ms, pan.width / 2 + steps[0], pan.height / 2 + steps[1]))
    if not np.isfinite(found).all():
        return None
    linear: Array = (found[:, 1:] - found[:, :1]) / _STEP
    return linear if abs(np.linalg.det(linear)) > 1e-12 else None


def _follow(source: Any, target: Any, cols: Array, rows: Array) -> tuple[Array, Array]:
    """Map corner coordinates of one image's pixels into those of another; infinite where one's CRS does not reach."""
    x, y = source.transform @ (cols, rows)
    if not same_crs(source, target):
        try:
            x, y = (np.array(values) for values in reproject(source.crs, target.crs, x, y))
        except Exception as error:
            if not is_from_gdal(error):
                raise
            raise KsdiffError(
                f"{source.name}: its CRS ({crs_name(source)}) cannot be brought into that ({crs_name(target)}) of "
                f"{target.name}; warp one to the other's CRS first, with a tool that knows both"
            ) from None
    found: tuple[Array, Array] = ~target.transform @ (x, y)
    return found
