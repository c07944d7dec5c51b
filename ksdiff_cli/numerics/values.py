"""What pair reading does with pixel values: streamed moments and eroded masks (no I/O)."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import minimum_filter

Array = NDArray[Any]

_CHUNK = 1 << 16  # samples at a time: in float64 they stay in the processor's cache


class Moments:
    """Streamed mean and standard deviation per band, merged block by block (Chan et al. 1983)."""

    def __init__(self, bands: int) -> None:
        """Start with no samples."""
        self.count = 0
        self.mean = np.zeros(bands)
        self.m2 = np.zeros(bands)

    def add(self, values: Array) -> None:
        """Add (bands, n) samples; sums are float64, of integers up to 16 bits exact."""
        n = values.shape[1]
        if n == 0:
            return
        # squares of distances from a value near the mean: those of the values themselves would cancel
        near = np.rint(self.mean) if self.count else np.rint(values[:, :_CHUNK].mean(1, dtype=np.float64))
        total, squares = np.zeros(len(values)), np.zeros(len(values))
        for band, samples in enumerate(values):
            for start in range(0, n, _CHUNK):
                away = np.subtract(samples[start : start + _CHUNK], near[band], dtype=np.float64)
                total[band] += away.sum()
                squares[band] += np.square(away, out=away).sum()
        mean = near + total / n
        m2 = np.maximum(squares - total**2 / n, 0)
        delta, count = mean - self.mean, self.count + n
        self.mean += delta * n / count
        self.m2 += m2 + delta**2 * self.count * n / count
        self.count = count

    def result(self) -> tuple[Array, Array]:
        """Return mean and standard deviation, (bands,) each."""
        return self.mean, np.sqrt(self.m2 / max(1, self.count))


def erode(valid: Array, reach: int) -> Array:
    """Find the pixels whose neighbours up to ``reach`` rows and columns off are all valid, (H, W) bool.

    Beyond the border a mask goes on as its outermost pixels are.
    """
    return valid if valid.all() else np.asarray(minimum_filter(valid, 2 * reach + 1, mode="nearest"))
