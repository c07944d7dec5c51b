"""Correlation of two images in small windows around every pixel."""

import numpy as np

from ksdiff_cli.metrics.blocks import complete_windows
from ksdiff_cli.numerics import Array

_FLAT = 1e-12
"""A pixel this close to its window's mean, relative to it, differs by rounding only."""


def reach(side: int) -> tuple[int, int]:
    """Return the pixels before and after a pixel that its local correlation in ``side`` x ``side`` windows sees."""
    return 2 * (side // 2), 2 * (side - 1 - side // 2)


def window_sums(plane: Array, side: int) -> Array:
    """Sum every ``side`` x ``side`` window: (..., H, W) -> (..., H - side + 1, W - side + 1)."""
    # sums of slices, not differences of running sums: the same bits in any block
    rows, cols = (size - side + 1 for size in plane.shape[-2:])
    across = plane[..., :cols].copy()
    for start in range(1, side):
        across += plane[..., start : start + cols]
    total = across[..., :rows, :].copy()
    for start in range(1, side):
        total += across[..., start : start + rows, :]
    return np.asarray(total)


def remove_local_mean(plane: Array, side: int) -> Array:
    """Subtract the mean of each pixel's own window, of pixels -(side//2) to side-1-side//2 around it.

    Args:
        plane: (..., H, W).
        side: of the window, pixels.

    Returns:
        (..., H - side + 1, W - side + 1), exactly 0 where a window is constant.
    """
    mean = window_sums(plane, side) / side**2
    rows, cols = (slice(side // 2, side // 2 + size) for size in mean.shape[-2:])
    out = plane[..., rows, cols] - mean
    out[np.abs(out) <= _FLAT * np.abs(mean)] = 0
    return np.asarray(out)


def correlate_detail(x: Array, y: Array, side: int) -> Array:
    """Correlate what :func:`remove_local_mean` left of two images, in the same windows.

    Args:
        x: (..., H, W).
        y: (..., H, W), of a shape that broadcasts with ``x``.
        side: of the window, pixels.

    Returns:
        (..., H - side + 1, W - side + 1), [-1, 1]; 0 where one of them is constant, NaN where both are.
    """
    cross, square_x, square_y = (window_sums(product, side) for product in (x * y, x * x, y * y))
    root = np.sqrt(square_x * square_y)
    both = (square_x == 0) & (square_y == 0)
    found = np.divide(cross, root, out=np.where(both, np.nan, 0.0), where=root > 0)
    return np.asarray(np.clip(found, -1, 1, out=found))


def whole_views(valid: Array, side: int) -> Array:
    """Find the pixels whose local correlation sees valid pixels only: (H, W) bool -> (H - 2 side + 2, W - 2 side + 2).

    The result lies as that of :func:`correlate_detail` after :func:`remove_local_mean`.
    """
    return complete_windows(valid, 2 * side - 1)
