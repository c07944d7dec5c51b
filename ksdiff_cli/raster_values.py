"""What pair reading does with pixel values: streamed moments, and filling of invalid pixels (no I/O)."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import minimum_filter, uniform_filter

Array = NDArray[Any]

FILL_STEPS = 3
"""Pixels that :func:`fill_invalid` grows into a hole: bicubic taps reach two, one more keeps the values smooth."""


class Moments:
    """Streamed mean and standard deviation per band, merged block by block (Chan et al. 1983)."""

    def __init__(self, bands: int) -> None:
        """Start with no samples."""
        self.count = 0
        self.mean = np.zeros(bands)
        self.m2 = np.zeros(bands)

    def add(self, values: Array) -> None:
        """Add (bands, n) samples."""
        n = values.shape[1]
        if n == 0:
            return
        mean = values.mean(1, dtype=np.float64)
        m2 = ((values - mean[:, None]) ** 2).sum(1, dtype=np.float64)
        delta, total = mean - self.mean, self.count + n
        self.mean += delta * n / total
        self.m2 += m2 + delta**2 * self.count * n / total
        self.count = total

    def result(self) -> tuple[Array, Array]:
        """Return mean and standard deviation, (bands,) each."""
        return self.mean, np.sqrt(self.m2 / max(1, self.count))


def erode(valid: Array, reach: int) -> Array:
    """Find the pixels whose neighbours up to ``reach`` rows and columns off are all valid, (H, W) bool.

    Beyond the border a mask goes on as its outermost pixels are.
    """
    return valid if valid.all() else np.asarray(minimum_filter(valid, 2 * reach + 1, mode="nearest"))


def fill_invalid(image: Array, valid: Array) -> Array:
    """Give invalid pixels near valid ones the mean of their valid neighbours, so that filters see no cliff.

    Only a few pixels deep: beyond the filters' reach the value does not matter and the band's valid mean stands in.

    Args:
        image: (bands, H, W) float32.
        valid: (H, W) bool.

    Returns:
        (bands, H, W) float32; ``image`` itself where there is nothing to fill, or nothing to fill it from.
    """
    if valid.all() or not valid.any():
        return image
    out = np.where(valid, image, np.float32(0))
    known = valid.astype(np.float32)
    for _ in range(FILL_STEPS):
        weight = uniform_filter(known, 3, mode="nearest")
        grown = (weight > 1e-6) & (known == 0)
        for band in out:
            total = uniform_filter(band * known, 3, mode="nearest")
            band[grown] = total[grown] / weight[grown]
        known[grown] = 1
    mean = np.array([band[valid].mean(dtype=np.float64) for band in image], np.float32)
    out[:, known == 0] = mean[:, None]
    return out
