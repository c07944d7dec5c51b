"""Q_avg: the universal image quality index, averaged over sliding windows and bands."""

import numpy as np

from ksdiff_cli.metrics.blocks import CELL, WindowIndex, measure
from ksdiff_cli.numerics import Array

_COUNT = CELL * CELL
# A variance below rounding error of the sums it is a difference of counts as zero (a constant window)
_FLAT = 64 * np.finfo(np.float64).eps


class QAvg(WindowIndex):
    """Accumulator of :func:`q_avg`; NaN if no window fits or none is free of nodata."""

    def __init__(self) -> None:
        """Start with no windows."""
        super().__init__(CELL)

    def index(self, x: Array, y: Array) -> Array:
        return _index(x, y)


def q_avg(reference: Array, fused: Array, valid: Array | None = None) -> float:
    """Return Wang and Bovik's universal quality index on all 32x32 windows, averaged over windows, then bands.

    A window that is flat in both images counts by its means alone, 2xy/(x² + y²); one that is zero in both counts 1.

    Args:
        reference: (bands, H, W), any unit.
        fused: (bands, H, W), same unit.
        valid: (H, W) bool; windows with a pixel that is not valid are left out. ``None`` for all.

    Returns:
        [-1, 1], 1 is best; NaN if no window fits (a side under 32 pixels) or none is free of nodata.

    Raises:
        KsdiffError: shapes differ or values are not finite.

    References:
        Wang, Bovik, "A universal image quality index", IEEE Signal Processing Letters 2002.
    """
    return measure(QAvg(), reference, fused, valid)


def _window_sums(plane: Array) -> Array:
    """Sum each 32x32 window: (H, W) -> (H-31, W-31)."""
    for axis in (0, 1):
        sums = np.cumsum(plane, axis)
        lines = np.moveaxis(sums, axis, 0)
        ends = lines[CELL - 1 :].copy()
        ends[1:] -= lines[:-CELL]
        plane = np.moveaxis(ends, 0, axis)
    return plane


def _index(x: Array, y: Array) -> Array:
    """Return the index of each window of two bands: (H, W) twice -> (H-31, W-31)."""
    sum_x, sum_y, sum_xy = _window_sums(x), _window_sums(y), _window_sums(x * y)
    energy = _COUNT * _window_sums(x * x + y * y)
    product = sum_x * sum_y
    means = sum_x * sum_x + sum_y * sum_y
    spread = energy - means
    flat = spread <= _FLAT * energy
    luminance = np.divide(2 * product, means, out=np.ones_like(means), where=means != 0)
    structure = np.divide(2 * (_COUNT * sum_xy - product), spread, out=np.ones_like(spread), where=~flat)
    # spread > 0 with both sums 0 (zero-mean data) has no luminance; the reference then leaves 1, as here
    return np.asarray(luminance * structure)
