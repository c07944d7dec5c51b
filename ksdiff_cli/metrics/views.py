"""The MS camera in float64: a fine image through Gaussian MTFs, sampled where MS pixels look, shifts included."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array

from ksdiff_cli.numerics import Array
from ksdiff_cli.numerics.camera import Kernel
from ksdiff_cli.numerics.grids import Axis, GridMap, gaussian_reach


@dataclass(frozen=True)
class Lines:
    """One axis of a view: how MS pixels see the fine pixels from ``start`` on."""

    matrix: csr_array
    """(n, N) float64, each row sums to 1."""
    start: int
    inside: Array
    """(n,) bool, MS pixels that see nothing beyond the border, where the outermost fine pixels go on."""

    @property
    def stop(self) -> int:
        """The fine pixel after the last one that is seen."""
        return self.start + int(self.matrix.shape[1])

    def over(self, start: int, stop: int) -> csr_array:
        """Return the matrix from the fine pixels [start, stop), which hold all that are seen."""
        matrix = self.matrix
        return csr_array(
            (matrix.data, matrix.indices + (self.start - start), matrix.indptr), (matrix.shape[0], stop - start)
        )


def place_lines(axis: Axis, size: int, first: int, stop: int, deviation: float, shift: float) -> Lines:
    """Return how the MS pixels [first, stop) see an axis of ``size`` fine pixels.

    Args:
        axis: from fine to MS pixels.
        size: of the fine image.
        first: the first MS pixel.
        stop: the one after the last.
        deviation: of the Gaussian through which they look, MS pixels.
        shift: fine pixels by which MS pixels look further down or right than ``axis`` says.
    """
    centres = np.asarray(axis.to_pan(np.arange(first, stop))) + shift
    sigma = deviation / abs(axis.scale)
    reach = gaussian_reach(sigma)
    taps = np.floor(centres).astype(np.int64)[:, None] + np.arange(-reach, reach + 2)
    away = np.abs(centres[:, None] - taps)
    seen = away <= reach + 0.5  # as many before a centre as after it
    weights = np.where(seen, np.exp(-(away**2) / (2 * sigma**2)), 0)
    weights /= weights.sum(1, keepdims=True)
    columns = np.clip(taps, 0, size - 1)
    start, end = int(columns[seen].min()), int(columns[seen].max()) + 1
    rows = np.broadcast_to(np.arange(len(centres))[:, None], taps.shape)
    # what falls on one border pixel is summed
    matrix = csr_array((weights[seen], (rows[seen], columns[seen] - start)), (len(centres), end - start))
    return Lines(matrix, start, (columns == taps).all(1, where=seen))


@dataclass(frozen=True)
class View:
    """The part of the fine image that a rectangle of MS pixels sees."""

    rows: slice
    """Fine rows that any of them sees."""
    cols: slice
    """Fine columns that any of them sees."""
    bands: tuple[tuple[tuple[float, csr_array, csr_array], ...], ...]
    """By band, the Gaussians that its camera is the sum of: the weight, and the (h, H) and (w, W) matrices from those
    fine pixels to MS pixels."""

    def see(self, image: Array) -> Array:
        """Look at the fine pixels (bands, H, W): (bands, h, w) float64."""
        seen = [
            sum(weight * look(rows, cols, plane) for weight, rows, cols in parts)
            for parts, plane in zip(self.bands, image, strict=True)
        ]
        return np.stack(seen)

    def whole(self, valid: Array) -> Array:
        """Say which MS pixels see valid pixels only, in every band: (H, W) bool -> (h, w) bool."""
        wrong = (~valid).astype(np.float64)
        seen = [look(rows, cols, wrong) == 0 for parts in self.bands for _, rows, cols in parts]
        return np.asarray(np.all(seen, axis=0))


def place_view(
    grid: GridMap,
    shape: tuple[int, int],
    rows: tuple[int, int],
    cols: tuple[int, int],
    cameras: Sequence[Kernel],
    shifts: Array,
) -> View:
    """Return how MS pixels see a fine image.

    Args:
        grid: from the fine image's pixels to those of MS.
        shape: (H, W) of the whole fine image.
        rows: first MS row, and the one after the last.
        cols: first MS column, and the one after the last.
        cameras: by band, see :func:`ksdiff_cli.numerics.camera.camera_kernel`.
        shifts: (bands, 2), fine rows and columns by which each band's pixels look further down and right than ``grid``
            says.
    """
    spans, matrices = [], []
    for axis, size, part, shift in zip((grid.rows, grid.cols), shape, (rows, cols), np.transpose(shifts), strict=True):
        lines = [
            [place_lines(axis, size, *part, deviation, float(off)) for _, deviation in camera]
            for camera, off in zip(cameras, shift, strict=True)
        ]
        every = [one for band in lines for one in band]
        span = min(one.start for one in every), max(one.stop for one in every)
        spans.append(slice(*span))
        matrices.append([[one.over(*span) for one in band] for band in lines])
    bands = [
        tuple((weight, row, col) for (weight, _), row, col in zip(camera, *pair, strict=True))
        for camera, *pair in zip(cameras, *matrices, strict=True)
    ]
    return View(spans[0], spans[1], tuple(bands))


def look(rows: csr_array, cols: csr_array, plane: Array) -> Array:
    """Apply an (h, H) and a (w, W) matrix to a plane (H, W): (h, w) float64."""
    return np.asarray((cols @ (rows @ plane).T).T)
