"""Where PAN and MS pixels lie on each other, and exact resampling between the two grids (no I/O).

Coordinates are pixel-centre indices: the centre of the first pixel is 0. Both resamplings used here (bicubic up,
Gaussian MTF down) are separable and linear, so each is two sparse matrices, one an axis. A weight depends on absolute
coordinates alone; hence a window of a scene gets the same numbers as the whole scene: to the last bit where it is named
by its first pixels, for coordinates of a :meth:`shifted <GridMap.shifted>` map are rounded otherwise.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.sparse import csr_array

from ksdiff_cli.numerics import Array


@dataclass(frozen=True)
class Axis:
    """The map from PAN to MS coordinates along one axis: ``ms = scale * pan + offset``."""

    scale: float
    """MS pixels per PAN pixel, 1/ratio; negative when the two grids run in opposite directions."""
    offset: float
    """MS coordinate of the centre of PAN pixel 0."""

    def to_ms(self, pan: Array | float) -> Any:
        """Map PAN coordinates to MS coordinates."""
        return self.scale * pan + self.offset

    def to_pan(self, ms: Array | float) -> Any:
        """Map MS coordinates to PAN coordinates."""
        return (ms - self.offset) / self.scale

    def shifted(self, start: int) -> "Axis":
        """Return the map for a PAN cut that begins at PAN pixel ``start``."""
        return Axis(self.scale, self.scale * start + self.offset)


@dataclass(frozen=True)
class GridMap:
    """The map from a PAN grid to an MS grid, both axes."""

    rows: Axis
    cols: Axis

    @property
    def ratio(self) -> int:
        """PAN pixels per MS pixel along a side, rounded to an integer."""
        return max(1, round(math.sqrt(1 / abs(self.rows.scale * self.cols.scale))))

    def shifted(self, row: int, col: int) -> "GridMap":
        """Return the map for a PAN cut whose first pixel is (``row``, ``col``)."""
        return GridMap(self.rows.shifted(row), self.cols.shifted(col))

    def moved(self, rows: float, cols: float) -> "GridMap":
        """Return the map for an MS image that shows everything so many MS pixels further down and right."""
        return GridMap(
            Axis(self.rows.scale, self.rows.offset + rows),
            Axis(self.cols.scale, self.cols.offset + cols),
        )


def reach(axis: Axis, count: int, size: int, first: int = 0) -> tuple[int, int]:
    """Find the MS pixels [start, stop) that bicubic interpolation onto ``count`` PAN pixels touches.

    Args:
        axis: from PAN pixels to MS pixels.
        count: number of PAN pixels.
        size: number of MS pixels there are; at least one of them is returned.
        first: the first of the PAN pixels.
    """
    ends = [axis.to_ms(first), axis.to_ms(first + count - 1)]
    start = math.floor(min(ends)) - 1
    stop = math.floor(max(ends)) + 3
    start = min(max(start, 0), size - 1)
    return start, max(min(stop, size), start + 1)


def centres(axis: Axis, first: int, count: int, size: int) -> tuple[int, int]:
    """Find the MS pixels [start, stop), of ``size``, whose centres lie in ``count`` PAN pixels from ``first`` on.

    At least one is returned, the nearest, where there is none.
    """
    ends = sorted((axis.to_ms(first - 0.5), axis.to_ms(first + count - 0.5)))
    start, stop = max(0, math.ceil(ends[0] - 1e-6)), min(size, math.floor(ends[1] + 1e-6) + 1)
    if start >= stop:
        start = min(max(0, round((ends[0] + ends[1]) / 2)), size - 1)
        stop = start + 1
    return start, stop


def nearest(axis: Axis, count: int, start: int, stop: int, first: int = 0) -> Array:
    """Return the index, within [start, stop), of the MS pixel that holds each of ``count`` PAN pixels' centres."""
    # half-pixel grid offsets put centres exactly between two MS pixels: the epsilon makes all windows choose alike
    index = np.floor(axis.to_ms(first + np.arange(count)) + 0.5 + 1e-6).astype(np.int64)
    inside: Array = np.clip(index, start, stop - 1) - start
    return inside


def corner_aligned(ratio: float) -> GridMap:
    """Return the map of two grids that share their outer corner: MS pixel k sits on PAN pixel r*k + (r-1)/2."""
    axis = Axis(1 / ratio, (1 / ratio - 1) / 2)
    return GridMap(axis, axis)


def cubic_matrix(coordinates: Array, size: int, start: int = 0) -> csr_array:
    """Return the bicubic interpolation matrix (Keys 1981, a = -1/2) with replicated borders.

    Args:
        coordinates: (n,) where to sample, in pixels of the source.
        size: number of source pixels at hand.
        start: the first of them.

    Returns:
        (n, size) sparse matrix, float32; each row sums to 1.
    """
    base = np.floor(coordinates).astype(np.int64)
    taps = base[:, None] + np.arange(-1, 3)
    x = np.abs(coordinates[:, None] - taps)
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return _matrix(taps - start, np.where(x <= 1, near, np.where(x < 2, far, 0.0)), size)


def gaussian_matrix(coordinates: Array, size: int, sigma: float, start: int = 0) -> csr_array:
    """Return the matrix that samples an axis through a Gaussian of ``sigma`` pixels, cut at 4 sigma, unit sum.

    This is a camera's view: its MTF as a Gaussian, its pixel centres at ``coordinates``; borders are replicated. Of the
    source, ``size`` pixels from ``start`` on are at hand.
    """
    reach = gaussian_reach(sigma)
    base = np.round(coordinates).astype(np.int64)
    taps = base[:, None] + np.arange(-reach, reach + 1)
    weights = np.exp(-((coordinates[:, None] - taps) ** 2) / (2 * sigma * sigma))
    return _matrix(taps - start, weights / weights.sum(1, keepdims=True), size)


def gaussian_reach(sigma: float) -> int:
    """Return the pixels that :func:`gaussian_matrix` looks at on each side of the one nearest to a coordinate."""
    return max(1, math.ceil(4 * sigma))


def mtf_sigma(gain: float, ratio: float) -> float:
    """Return the deviation, in fine pixels, of the Gaussian whose MTF is ``gain`` at the coarse Nyquist frequency.

    exp(-2 (pi sigma f)^2) = gain at f = 1/(2 ratio).
    """
    return ratio / math.pi * math.sqrt(-2 * math.log(gain))


def _matrix(taps: Array, weights: Array, size: int) -> csr_array:
    """Assemble (n, size) rows from taps and weights; taps beyond the border fall on the border pixel."""
    count, width = taps.shape
    rows = np.repeat(np.arange(count), width)
    columns = np.clip(taps, 0, size - 1).reshape(-1)
    # csr_array sums what falls on the same place, which is what replicating the border means
    return csr_array((weights.reshape(-1).astype(np.float32), (rows, columns)), shape=(count, size))


def apply_separable(rows: csr_array, cols: csr_array, image: Array, *, finer: bool = False) -> Array:
    """Resample every band of an image.

    Args:
        rows: (H, h) matrix for the first image axis.
        cols: (W, w) matrix for the second.
        image: (bands, h, w).
        finer: say that the result is the finer of the two grids: quicker then, as the larger of the two products
            goes along rows as they lie in memory. The last bits depend on it, hence it does not follow from shapes.

    Returns:
        (bands, H, W) float32.
    """
    out = np.empty((image.shape[0], rows.shape[0], cols.shape[0]), np.float32)
    for band, plane in zip(out, image, strict=True):
        values = plane.astype(np.float32, copy=False)
        band[...] = rows @ (cols @ values.T).T if finer else (cols @ (rows @ values).T).T
    return out


def upsample(
    ms: Array,
    grid: GridMap,
    shape: tuple[int, int],
    start: tuple[int, int] = (0, 0),
    first: tuple[int, int] = (0, 0),
) -> Array:
    """Bring MS onto a PAN grid by bicubic interpolation.

    Args:
        ms: (bands, h, w), the MS image or a cut of it.
        grid: the map from PAN pixels to MS pixels of the whole MS image.
        shape: (H, W) of the result.
        start: first MS row and column that ``ms`` holds.
        first: PAN row and column where the result begins.

    Returns:
        (bands, H, W) float32.
    """
    rows, cols = _interpolation(ms, grid, shape, start, first)
    return apply_separable(rows, cols, ms, finer=True)


@dataclass(frozen=True)
class Halfway:
    """MS on PAN's columns but not yet on its rows: as many of these as are wanted can be had at a time."""

    columns: Array
    """(h, bands, W) float32."""
    rows: csr_array
    """(H, h) interpolation matrix."""

    def upsampled(self, start: int, stop: int) -> Array:
        """Return rows [start, stop), (bands, stop - start, W) float32: the same bits as those of :func:`upsample`."""
        height, bands, width = self.columns.shape
        found = self.rows[start:stop] @ self.columns.reshape(height, -1)
        return np.asarray(found.reshape(stop - start, bands, width).transpose(1, 0, 2))


def upsample_columns(
    ms: Array,
    grid: GridMap,
    shape: tuple[int, int],
    start: tuple[int, int] = (0, 0),
    first: tuple[int, int] = (0, 0),
) -> Halfway:
    """Do the first half of :func:`upsample`, whose arguments these are."""
    rows, cols = _interpolation(ms, grid, shape, start, first)
    columns = np.empty((ms.shape[1], len(ms), shape[1]), np.float32)
    for band, plane in enumerate(ms):
        columns[:, band] = (cols @ plane.astype(np.float32, copy=False).T).T
    return Halfway(columns, rows)


def _interpolation(
    ms: Array, grid: GridMap, shape: tuple[int, int], start: tuple[int, int], first: tuple[int, int]
) -> tuple[csr_array, csr_array]:
    rows, cols = (
        cubic_matrix(axis.to_ms(begin + np.arange(count)), size, at)
        for axis, begin, count, size, at in zip((grid.rows, grid.cols), first, shape, ms.shape[1:], start, strict=True)
    )
    return rows, cols


def degrade(image: Array, grid: GridMap, shape: tuple[int, int], gains: tuple[float, ...]) -> Array:
    """Look at a fine image with a coarse camera: Gaussian MTF, sampled at the coarse pixel centres (Wald's protocol).

    Args:
        image: (bands, H, W) on the fine grid.
        grid: the map from the fine to the coarse grid.
        shape: (h, w) of the result.
        gains: one MTF gain at the coarse Nyquist frequency per band, (0, 1).

    Returns:
        (bands, h, w) float32.
    """
    at_rows = grid.rows.to_pan(np.arange(shape[0]))
    at_cols = grid.cols.to_pan(np.arange(shape[1]))
    out = np.empty((image.shape[0], *shape), np.float32)
    for gain in sorted(set(gains)):
        bands = [band for band, own in enumerate(gains) if own == gain]
        rows = gaussian_matrix(at_rows, image.shape[1], mtf_sigma(gain, 1 / abs(grid.rows.scale)))
        cols = gaussian_matrix(at_cols, image.shape[2], mtf_sigma(gain, 1 / abs(grid.cols.scale)))
        out[bands] = apply_separable(rows, cols, image[bands])
    return out
