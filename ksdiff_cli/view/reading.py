"""Reading a layer's bands from their files, at full size or as means of squares of pixels.

rasterio reads here, as everywhere in ksdiff: tiles lie on the layers' own pixel grid, so none is warped or resampled on
its way to the screen, and a reader for web maps' tiles would add nothing.
"""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import rasterio
from rasterio.enums import Resampling
from rasterio.errors import RasterioError
from rasterio.transform import Affine
from rasterio.vrt import WarpedVRT
from rasterio.windows import Window

from ksdiff_cli.numerics import Array
from ksdiff_cli.numerics.boxes import Box
from ksdiff_cli.raster.bands import BandSource, is_number, nodata_of, read_stored
from ksdiff_cli.raster.layout import crs_of
from ksdiff_cli.raster.open import BLOCK_CACHE, open_raster, unreadable

_AT_ONCE = 1 << 20  # pixels of a band that are read at a time


@dataclass(frozen=True)
class Warp:
    """The grid that a layer in another CRS, or rotated, is shown on."""

    transform: Affine
    crs: Any
    shape: tuple[int, int]


class Reader:
    """The open files of one layer, each thread's its own; GDAL's handles bear one thread at a time."""

    def __init__(self, sources: Sequence[BandSource], overviews: Sequence[int] = (), warp: Warp | None = None) -> None:
        """Open nothing yet.

        Args:
            sources: the bands, on one grid.
            overviews: factors of reduction that all files hold, powers of two, smallest first.
            warp: where to bring the layer; None leaves it where it is.
        """
        self.sources = tuple(sources)
        self.overviews = () if warp else tuple(overviews)
        self._warp = warp
        self._mine = threading.local()

    def read(self, bands: Sequence[int], box: Box, factor: int = 1) -> Array:
        """Read pixels as they are in the files or in their overviews.

        Args:
            bands: numbers from 0.
            box: in pixels of the layer, reduced ``factor`` times; inside it.
            factor: 1, or one of :attr:`overviews`.

        Returns:
            (bands, height, width) float32, NaN where one of the bands holds no data.
        """
        stored, valid = self.stored(bands, box, factor)
        values = np.empty((len(stored), *valid.shape), np.float32)
        with np.errstate(over="ignore", invalid="ignore"):
            for band, own in zip(values, stored, strict=True):
                band[...] = own
                if own.dtype.kind == "f":
                    valid &= is_number(own)
        if not valid.all():
            values[:, ~valid] = np.nan
        return values

    def stored(self, bands: Sequence[int], box: Box, factor: int = 1) -> tuple[list[Array], Array]:
        """Read pixels in their own data types, and where all bands are valid; see :meth:`read`."""
        chosen = [self.sources[band] for band in bands]
        window = Window(box.left, box.top, box.width, box.height)
        with rasterio.Env(GDAL_CACHEMAX=BLOCK_CACHE):
            return read_stored([self._open(source, factor) for source in chosen], chosen, window)

    def means(self, bands: Sequence[int], box: Box, factor: int, shape: tuple[int, int]) -> Array:
        """Read pixels as means of ``factor`` x ``factor`` valid ones, some rows at a time; see :meth:`read`.

        Args:
            bands: numbers from 0.
            box: in reduced pixels.
            factor: a power of two.
            shape: (height, width) of the layer.
        """
        out = np.empty((len(bands), box.height, box.width), np.float32)
        rows = max(1, _AT_ONCE // (box.width * factor * factor))
        for top in range(box.top, box.bottom, rows):
            bottom = min(top + rows, box.bottom)
            within = Box(top * factor, box.left * factor, bottom * factor, box.right * factor).meet(Box(0, 0, *shape))
            out[:, top - box.top : bottom - box.top] = halve(self.read(bands, within), factor)
        return out

    def _open(self, source: BandSource, factor: int) -> Any:
        """Return this thread's open file of a band, at an overview."""
        opened = self._mine.__dict__.setdefault("opened", {})
        key = source.path, factor, (source.fill, source.declared, source.alpha_is_data) if self._warp else None
        if key not in opened:
            opened[key] = self._warped(source, factor) if self._warp else _open_overview(source.path, factor)
        return opened[key]

    def _warped(self, source: BandSource, factor: int) -> Any:
        warp = self._warp
        assert warp is not None and factor == 1
        dataset = open_raster(source.path)
        empty = nodata_of(dataset, source) if source.fill is None else source.fill
        into = warp.crs or crs_of(dataset) or rasterio.CRS.from_epsg(3857)
        return WarpedVRT(
            dataset,
            src_crs=crs_of(dataset) or into,
            crs=into,
            transform=warp.transform,
            height=warp.shape[0],
            width=warp.shape[1],
            resampling=Resampling.nearest,
            dtype="float32",
            src_nodata=np.nan if empty is None else empty,
            nodata=np.nan,
            num_threads=1,
        )


def _open_overview(path: str, factor: int) -> Any:
    dataset = open_raster(path)
    if factor == 1:
        return dataset
    with dataset:
        number = dataset.overviews(1).index(factor)
    try:
        return rasterio.open(path, overview_level=number)
    except RasterioError as error:
        raise unreadable(path, error) from None


def find_overviews(datasets: Sequence[Any]) -> tuple[int, ...]:
    """Return the factors, powers of two, of overviews that all these open files hold, smallest first."""
    common = set.intersection(*({*dataset.overviews(1)} for dataset in datasets))
    return tuple(sorted(factor for factor in common if factor > 1 and factor & (factor - 1) == 0))


def halve(values: Array, factor: int) -> Array:
    """Average squares of ``factor`` x ``factor`` pixels, those at the lower and right border cut off there.

    Args:
        values: (bands, H, W) float32, NaN where invalid, alike in all bands.
        factor: a power of two.

    Returns:
        (bands, h, w) float32, NaN where no pixel is valid. Sums are exact for integers of 16 bits up to factor 16.
    """
    if factor == 1:
        return values
    height, width = values.shape[1:]
    pad = (-height % factor, -width % factor)
    valid = ~np.isnan(values[0])
    if valid.all() and not any(pad):
        return _sums(values, factor) / np.float32(factor * factor)
    filled = np.pad(np.where(valid, values, np.float32(0)), ((0, 0), (0, pad[0]), (0, pad[1])))
    counts = _sums(np.pad(valid.astype(np.float32), ((0, pad[0]), (0, pad[1])))[None], factor)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(_sums(filled, factor) / counts)  # 0 / 0 is NaN


def _sums(values: Array, factor: int) -> Array:
    while factor > 1:
        values = values[:, ::2] + values[:, 1::2]
        values = values[:, :, ::2] + values[:, :, 1::2]
        factor //= 2
    return values


Read = Callable[[Sequence[int], Box, int], Array]
