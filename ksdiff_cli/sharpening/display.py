"""The result for display, on its own grid: red, green and blue of 8 bits, transparent where there are no data."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio.enums import ColorInterp
from rasterio.errors import RasterioError
from rasterio.windows import Window

from ksdiff_cli.errors import KsdiffError
from ksdiff_cli.files.names import Inputs, check_location, check_place
from ksdiff_cli.numerics import Array
from ksdiff_cli.output.geotiff import atomic_raster
from ksdiff_cli.output.writer import check_sidecars
from ksdiff_cli.raster.layout import has_geotransform
from ksdiff_cli.raster.open import BLOCK_CACHE, open_raster, unreadable
from ksdiff_cli.report.colours import PERCENTILES, Stretch, rgb_bands

_ROWS = 256  # read at once
_BINS = 1 << 16  # of a band's histogram, from its least to its largest value: one a DN of two bytes
_TAG = "KSDIFF_STRETCH"


def check_display(path: Path, inputs: Inputs, overwrite: bool, others: Sequence[Path]) -> None:
    """Refuse a picture that could not be written in the end, before any work.

    Args:
        path: the picture to be.
        inputs: what may not be lost.
        overwrite: whether it may take the place of what is there.
        others: what else is written.

    Raises:
        KsdiffError: it is not called .tif, is one of the others, or see :func:`ksdiff_cli.files.names.check_place`.
    """
    check_location(path)
    if path.suffix.lower() not in (".tif", ".tiff"):
        raise KsdiffError(f"{path}: the picture of --rgb is a GeoTIFF; let its name end in .tif")
    if path.absolute() in [other.absolute() for other in others]:
        raise KsdiffError(f"{path}: is named twice; give --rgb a file of its own")
    check_place(path, inputs, overwrite)
    check_sidecars(path, inputs, overwrite)


def write_display(output: Path, path: Path, names: Sequence[str] = ()) -> None:
    """Write an output's red, green and blue with 8 bits, each stretched between two percentiles.

    The percentiles, 2 and 98, are those of all valid pixels; they stand in the tag ``KSDIFF_STRETCH``. Outputs of one
    or two bands become grey. Memory does not grow with the output.

    Args:
        output: what was sharpened.
        path: GeoTIFF to write; one that is there is replaced.
        names: of the bands where the output does not name them.

    Raises:
        KsdiffError: the output cannot be read, or the picture cannot be written.
    """
    with rasterio.Env(GDAL_CACHEMAX=BLOCK_CACHE), open_raster(output) as dataset:
        named = [name or "" for name in dataset.descriptions]
        shown = rgb_bands(dataset.count, named if all(named) else names)
        stretch = _find_stretch(dataset, shown)
        profile: dict[str, Any] = {
            "driver": "GTiff", "height": dataset.height, "width": dataset.width, "count": 4, "dtype": "uint8",
            "crs": dataset.crs, "tiled": True, "blockxsize": 512, "blockysize": 512, "compress": "deflate",
            "predictor": 2, "photometric": "rgb", "alpha": "yes", "interleave": "pixel", "bigtiff": "if_safer",
        }  # fmt: skip
        if has_geotransform(dataset):
            profile["transform"] = dataset.transform
        with atomic_raster(path) as partial, rasterio.open(partial, "w", **profile) as picture:
            for window in _windows(dataset):
                values, valid = _read(dataset, shown, window)
                picture.write(
                    np.concatenate([_levels(values, valid, stretch), np.uint8(255) * valid[None]]), window=window
                )
            _describe(dataset, picture, stretch)


def _describe(dataset: Any, picture: Any, stretch: Stretch) -> None:
    """Carry over what the output knows of its place and of its making."""
    picture.colorinterp = (ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha)
    if dataset.rpcs:
        picture.rpcs = dataset.rpcs
    if dataset.gcps[0] and not has_geotransform(dataset):
        picture.gcps = dataset.gcps
    kept = {name: value for name, value in dataset.tags().items() if name.startswith(("KSDIFF_", "AREA_OR_POINT"))}
    spans = zip(stretch.low, stretch.high, strict=True)
    picture.update_tags(**kept, **{_TAG: " ".join(f"{low:.9g}:{high:.9g}" for low, high in spans)})


def _levels(values: Array, valid: Array, stretch: Stretch) -> Array:
    """Return (3, h, w) uint8; what is not valid is black."""
    share = (values - stretch.low[:, None, None]) / (stretch.high - stretch.low)[:, None, None]
    levels = np.rint(255 * np.clip(np.nan_to_num(share), 0, 1)).astype(np.uint8)
    return np.where(valid, levels, np.uint8(0))


def _find_stretch(dataset: Any, shown: Sequence[int]) -> Stretch:
    """Return the percentiles of each band's valid pixels: exact of two-byte integers, else to 1/65535 of the range."""
    low, high = np.full(3, np.inf), np.full(3, -np.inf)
    for window in _windows(dataset):
        values, valid = _read(dataset, shown, window)
        if valid.any():
            seen = values[:, valid]
            low, high = np.minimum(low, seen.min(1)), np.maximum(high, seen.max(1))
    if not np.isfinite(low).all():
        return Stretch(np.zeros(3), np.ones(3))
    step = np.maximum((high - low) / (_BINS - 1), 1.0 if np.dtype(dataset.dtypes[0]).kind in "iu" else 1e-30)
    counts = np.zeros((3, _BINS), np.int64)
    for window in _windows(dataset):
        values, valid = _read(dataset, shown, window)
        places = np.rint((values[:, valid] - low[:, None]) / step[:, None]).astype(np.int64)
        for count, place in zip(counts, places, strict=True):
            count += np.bincount(place, minlength=_BINS)
    sums = counts.cumsum(1)
    ends = [
        low + step * [int(np.searchsorted(of_band, max(1, math.ceil(share / 100 * of_band[-1])))) for of_band in sums]
        for share in PERCENTILES
    ]
    return Stretch(ends[0], np.where(ends[1] > ends[0], ends[1], ends[0] + 1))


def _windows(dataset: Any) -> list[Window]:
    return [Window(0, row, dataset.width, min(_ROWS, dataset.height - row)) for row in range(0, dataset.height, _ROWS)]


def _read(dataset: Any, shown: Sequence[int], window: Window) -> tuple[Array, Array]:
    """Return (3, h, w) float64 and (h, w) bool, where all three hold data."""
    try:
        values = dataset.read([band + 1 for band in shown], window=window).astype(np.float64)
        valid = dataset.dataset_mask(window=window) > 0
    except RasterioError as error:
        raise unreadable(dataset.name, error) from None
    return values, valid & np.isfinite(values).all(0)
