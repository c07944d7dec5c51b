"""A window of the output as the MS camera sees it, and the way back: sparse matrices along each axis (no I/O)."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from ksdiff_cli.grids import (
    Axis,
    GridMap,
    apply_separable,
    cubic_matrix,
    gaussian_matrix,
    gaussian_reach,
    mtf_sigma,
)
from ksdiff_cli.tiling import Box

Array = NDArray[Any]


@dataclass(frozen=True)
class Camera:
    """The MS camera over one window: Gaussian MTFs, sampled at the centres of MS pixels (as Wald's protocol has it)."""

    ms: Box
    """The MS pixels whose centres lie in the window, in pixels of the MS image; it may be empty."""
    whole: Array
    """(h, w) bool, MS pixels that see nothing beyond the window."""
    down: tuple[tuple[csr_array, csr_array], ...]
    """For each band the (h, H) and (w, W) matrices from the window to MS pixels."""
    up: tuple[csr_array, csr_array]
    """The (H, h) and (W, w) matrices of bicubic interpolation back; beyond the MS pixels their outermost go on."""

    def degrade(self, image: Array, band: int) -> Array:
        """Look at a plane (H, W) as a band of MS does: (h, w) float32."""
        return np.asarray(apply_separable(*self.down[band], image[None])[0])

    def upsample(self, plane: Array) -> Array:
        """Bring an MS plane (h, w) onto the window: (H, W) float32."""
        return np.asarray(apply_separable(*self.up, plane[None], finer=True)[0])


def place_camera(grid: GridMap, box: Box, ms_shape: tuple[int, int], gains: tuple[float, ...]) -> Camera:
    """Return the camera over a window.

    Args:
        grid: the map from the output's pixels to those of MS.
        box: the window, in pixels of the output.
        ms_shape: (height, width) of the MS image.
        gains: one MTF gain at the MS Nyquist frequency per band, (0, 1).
    """
    axes = ((grid.rows, box.top, box.height), (grid.cols, box.left, box.width))
    (top, bottom), (left, right) = (
        _centres(axis, first, count, size) for (axis, first, count), size in zip(axes, ms_shape, strict=True)
    )
    ms = Box(top, left, bottom, right)
    if ms.empty:
        nothing = csr_array((0, 0), dtype=np.float32)
        return Camera(ms, np.zeros((0, 0), bool), (), (nothing, nothing))
    at = [axis.to_pan(np.arange(*span)) for (axis, *_), span in zip(axes, ((top, bottom), (left, right)), strict=True)]
    seen = {gain: [_gaussian(*place, gain) for place in zip(axes, at, strict=True)] for gain in set(gains)}
    rows, cols = (
        _inside(axis, first, count, centres, min(gains)) for (axis, first, count), centres in zip(axes, at, strict=True)
    )
    up_rows, up_cols = (
        cubic_matrix(axis.to_ms(first + np.arange(count)), len(centres), start)
        for (axis, first, count), centres, start in zip(axes, at, (top, left), strict=True)
    )
    down = tuple((seen[gain][0], seen[gain][1]) for gain in gains)
    return Camera(ms, rows[:, None] & cols, down, (up_rows, up_cols))


def _centres(axis: Axis, first: int, count: int, size: int) -> tuple[int, int]:
    """Find the MS pixels [start, stop) whose centres lie in ``count`` PAN pixels from ``first`` on."""
    ends = sorted((axis.to_ms(first - 0.5), axis.to_ms(first + count - 0.5)))
    return max(0, math.ceil(ends[0])), min(size, math.floor(ends[1]) + 1)


def _gaussian(place: tuple[Axis, int, int], at: Array, gain: float) -> csr_array:
    axis, first, count = place
    return gaussian_matrix(at, count, mtf_sigma(gain, 1 / abs(axis.scale)), first)


def _inside(axis: Axis, first: int, count: int, at: Array, gain: float) -> Array:
    """Say which MS pixels see nothing beyond the window, (n,) bool; ``gain`` is that of the most blurred band."""
    reach = gaussian_reach(mtf_sigma(gain, 1 / abs(axis.scale)))
    nearest = np.round(at)
    return np.asarray((nearest - reach >= first) & (nearest + reach < first + count))
