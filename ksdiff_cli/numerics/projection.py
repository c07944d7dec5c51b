"""A window of the output as the MS camera sees it, and the way back: sparse matrices along each axis (no I/O)."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array

from ksdiff_cli.numerics import Array
from ksdiff_cli.numerics.boxes import Box
from ksdiff_cli.numerics.camera import Kernel
from ksdiff_cli.numerics.grids import (
    Axis,
    GridMap,
    apply_separable,
    cubic_matrix,
    gaussian_matrix,
    gaussian_reach,
)

Pair = tuple[csr_array, csr_array]
"""The (h, H) and (w, W) matrices from a window to MS pixels."""


@dataclass(frozen=True)
class Camera:
    """The MS camera over one window: sums of Gaussians, sampled at the centres of MS pixels as in Wald's protocol."""

    ms: Box
    """The MS pixels whose centres lie in the window, in pixels of the MS image; it may be empty."""
    whole: Array
    """(h, w) bool, MS pixels that see nothing beyond the window."""
    down: tuple[tuple[tuple[float, Pair], ...], ...]
    """For each band the weights of its Gaussians, and the matrices through each."""
    wide: Pair
    """The matrices through the widest Gaussian of all."""
    up: Pair
    """The (H, h) and (W, w) matrices of bicubic interpolation back; beyond the MS pixels their outermost go on."""

    def degrade(self, image: Array, band: int) -> Array:
        """Look at a plane (H, W) as a band of MS does: (h, w) float32."""
        return sum_up((weight, apply_separable(*pair, image[None])[0]) for weight, pair in self.down[band])

    def share(self, mask: Array) -> Array:
        """Say how much of what an MS pixel sees is in a mask (H, W) bool: (h, w) float32, 0 to 1."""
        return np.asarray(apply_separable(*self.wide, mask[None].astype(np.float32))[0])

    def upsample(self, plane: Array) -> Array:
        """Bring an MS plane (h, w) onto the window: (H, W) float32."""
        return np.asarray(apply_separable(*self.up, plane[None], finer=True)[0])


def sum_up(terms: Iterable[tuple[float, Array]]) -> Array:
    """Return the weighted sum of planes, float32."""
    total: Array | None = None
    for weight, plane in terms:
        part = np.float32(weight) * plane
        total = part if total is None else total + part
    assert total is not None
    return np.asarray(total)


def place_camera(grid: GridMap, box: Box, ms_shape: tuple[int, int], kernels: Sequence[Kernel]) -> Camera:
    """Return the camera over a window.

    Args:
        grid: the map from the output's pixels to those of MS.
        box: the window, in pixels of the output.
        ms_shape: (height, width) of the MS image.
        kernels: one per band.
    """
    axes = ((grid.rows, box.top, box.height), (grid.cols, box.left, box.width))
    (top, bottom), (left, right) = (
        _centres(axis, first, count, size) for (axis, first, count), size in zip(axes, ms_shape, strict=True)
    )
    ms = Box(top, left, bottom, right)
    if ms.empty:
        nothing = csr_array((0, 0), dtype=np.float32)
        return Camera(ms, np.zeros((0, 0), bool), (), (nothing, nothing), (nothing, nothing))
    at = [axis.to_pan(np.arange(*span)) for (axis, *_), span in zip(axes, ((top, bottom), (left, right)), strict=True)]
    sigmas = {sigma for kernel in kernels for _, sigma in kernel}
    seen = {
        sigma: tuple(_gaussian(*place, centres, sigma) for place, centres in zip(axes, at, strict=True))
        for sigma in sigmas
    }
    rows, cols = (
        _inside(axis, first, count, centres, max(sigmas))
        for (axis, first, count), centres in zip(axes, at, strict=True)
    )
    up_rows, up_cols = (
        cubic_matrix(axis.to_ms(first + np.arange(count)), len(centres), start)
        for (axis, first, count), centres, start in zip(axes, at, (top, left), strict=True)
    )
    down = tuple(tuple((weight, seen[sigma]) for weight, sigma in kernel) for kernel in kernels)
    return Camera(ms, rows[:, None] & cols, down, seen[max(sigmas)], (up_rows, up_cols))


def _centres(axis: Axis, first: int, count: int, size: int) -> tuple[int, int]:
    """Find the MS pixels [start, stop) whose centres lie in ``count`` PAN pixels from ``first`` on."""
    ends = sorted((axis.to_ms(first - 0.5), axis.to_ms(first + count - 0.5)))
    return max(0, math.ceil(ends[0])), min(size, math.floor(ends[1]) + 1)


def _gaussian(axis: Axis, first: int, count: int, at: Array, sigma: float) -> csr_array:
    return gaussian_matrix(at, count, sigma / abs(axis.scale), first)


def _inside(axis: Axis, first: int, count: int, at: Array, sigma: float) -> Array:
    """Say which MS pixels see nothing beyond the window, (n,) bool; ``sigma`` is the widest Gaussian's."""
    reach = gaussian_reach(sigma / abs(axis.scale))
    nearest = np.round(at)
    return np.asarray((nearest - reach >= first) & (nearest + reach < first + count))
