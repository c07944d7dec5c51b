"""An output in sensor geometry on a map: warped once, by GDAL's transformer of its RPCs, piece by piece."""

import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio.enums import Resampling
from rasterio.errors import NotGeoreferencedWarning
from rasterio.transform import Affine
from rasterio.warp import reproject
from rasterio.windows import Window

from ksdiff_cli.errors import KsdiffError
from ksdiff_cli.output.geotiff import Grid, open_cog, open_geotiff
from ksdiff_cli.output.metadata import update_tags
from ksdiff_cli.output.pixels import PixelFormat
from ksdiff_cli.process import usable_threads
from ksdiff_cli.progress import ProgressCallback, silent
from ksdiff_cli.raster.ground import Ground
from ksdiff_cli.raster.open import BLOCK_CACHE, first_line, is_from_gdal

ORTHO_TAG = "KSDIFF_ORTHO"
_SIDE = 1024  # pixels of a piece along a side, about
_WARP_MEMORY = 64  # MB that GDAL may take for a piece of the source
_STALE = ("STATISTICS_", "AREA_OR_POINT")


class NoHeightsError(KsdiffError):
    """The terrain has no heights where the image lies: what was made for it is of no use over that terrain."""


def write_ortho(
    source: Path,
    output: Path,
    ground: Ground,
    pixels: PixelFormat,
    creation: Mapping[str, str],
    *,
    cog: bool = False,
    threads: int | None = None,
    progress: ProgressCallback = silent,
) -> None:
    """Warp a finished raster to a map by its RPCs, by cubic interpolation; what it does not show is nodata.

    Memory does not grow with the image. The output appears under its name when it is whole.

    Args:
        source: a raster with RPCs and a nodata value.
        output: to write; one that is there is replaced.
        ground: the map's grid and the terrain.
        pixels: how it is stored; with the nodata value of ``source``.
        creation: GDAL's creation options.
        cog: a cloud optimized GeoTIFF.
        threads: of the warp; None for all.
        progress: told the pieces done.

    Raises:
        NoHeightsError: no pixel would hold data.
        KsdiffError: it cannot be written.
    """
    count = usable_threads(threads) or 1
    with ExitStack() as stack:
        stack.enter_context(rasterio.Env(GDAL_CACHEMAX=BLOCK_CACHE))
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        dataset = stack.enter_context(rasterio.open(source))
        profile = {
            "height": ground.shape[0], "width": ground.shape[1], "count": dataset.count, "dtype": pixels.dtype.name,
            "nodata": pixels.declared, "crs": ground.crs, "transform": ground.transform,
        }  # fmt: skip
        grid = Grid(profile, lambda made: _describe(dataset, made, ground))
        open_target = open_cog if cog else open_geotiff
        with open_target(output, grid, pixels, creation) as target:
            pieces = list(_pieces(ground.shape, target.block_shapes[0]))
            for number, window in enumerate(pieces, start=1):
                target.write(_warp(dataset, ground, window, pixels, count), window)
                progress(number, len(pieces), "ortho")
            if target.empty:
                raise NoHeightsError(
                    f"{output}: no pixel holds data, as the terrain has no heights there; give another DEM, or metres"
                )


def _describe(dataset: Any, made: Any, ground: Ground) -> None:
    """Carry over all that is true of the pixels, whatever their grid."""
    kept = {name: value for name, value in dataset.tags().items() if not name.startswith(_STALE)}
    update_tags(made, {**kept, ORTHO_TAG: f"RPCs over {ground.about}"})
    update_tags(made, dataset.tags(ns="IMAGERY"), ns="IMAGERY")
    made.descriptions, made.colorinterp = dataset.descriptions, dataset.colorinterp
    made.scales, made.offsets = dataset.scales, dataset.offsets
    made.units = tuple(unit or "" for unit in dataset.units)
    for band in dataset.indexes:
        for domain in (None, "IMAGERY"):
            tags = {name: value for name, value in dataset.tags(band, ns=domain).items() if not name.startswith(_STALE)}
            update_tags(made, tags, band, domain)


def _pieces(shape: tuple[int, int], block: tuple[int, int]) -> Iterator[Window]:
    """Cut a grid into pieces of whole blocks."""
    height, width = shape
    across = width if block[1] >= width else -(-_SIDE // block[1]) * block[1]
    down = max(1, _SIDE * _SIDE // across // block[0]) * block[0]
    for row in range(0, height, down):
        for col in range(0, width, across):
            yield Window(col, row, min(across, width - col), min(down, height - row))


def _warp(dataset: Any, ground: Ground, window: Window, pixels: PixelFormat, threads: int) -> Any:
    """Return (bands, h, w) stored values of a piece."""
    stored = np.full((dataset.count, window.height, window.width), pixels.nodata, pixels.dtype)
    try:
        reproject(
            rasterio.band(dataset, list(dataset.indexes)),
            stored,
            dst_transform=ground.transform @ Affine.translation(window.col_off, window.row_off),
            dst_crs=ground.crs,
            src_nodata=pixels.nodata,
            dst_nodata=pixels.nodata,
            resampling=Resampling.cubic,
            num_threads=threads,
            warp_mem_limit=_WARP_MEMORY,
            SRC_METHOD="RPC",  # a geotransform beside them does not count
            **ground.terrain,
        )
    except Exception as error:
        if not is_from_gdal(error):
            raise
        raise KsdiffError(f"the result cannot be orthorectified over {ground.about} ({first_line(error)})") from None
    if pixels.bits is not None:  # interpolation may go beyond them
        np.minimum(stored, pixels.dtype.type(pixels.limits[1]), out=stored)
    return stored
