"""SSIM: the structural similarity index, averaged over bands."""

import numpy as np
from scipy.ndimage import correlate1d

from ksdiff_cli.metrics.blocks import WindowIndex, measure
from ksdiff_cli.numerics import Array

_SIDE = 11
_SIGMA = 1.5
_K1, _K2 = 0.01, 0.03


class Ssim(WindowIndex):
    """Accumulator of :func:`ssim`; NaN if no window fits or none is free of nodata."""

    def __init__(self, peak: float) -> None:
        """Start with no windows; ``peak`` is the largest DN possible."""
        super().__init__(_SIDE)
        self.peak = peak

    def index(self, x: Array, y: Array) -> Array:
        return _index(x, y, self.peak)


def ssim(reference: Array, fused: Array, peak: float, valid: Array | None = None) -> float:
    """Return the structural similarity: 11x11 Gaussian windows (sigma 1.5), K1 = 0.01, K2 = 0.03, no padding.

    Args:
        reference: (bands, H, W), DN.
        fused: (bands, H, W), DN.
        peak: the largest value possible, 2**bits - 1.
        valid: (H, W) bool; windows with a pixel that is not valid are left out. ``None`` for all.

    Returns:
        [-1, 1], 1 is best; NaN if no window fits (a side under 11 pixels) or none is free of nodata.

    Raises:
        KsdiffError: shapes differ or values are not finite.

    References:
        Wang, Bovik, Sheikh, Simoncelli, "Image quality assessment: from error visibility to structural similarity",
        IEEE TIP 2004.
    """
    return measure(Ssim(peak), reference, fused, valid)


def _taps() -> Array:
    at = np.arange(_SIDE) - _SIDE // 2
    weights = np.exp(-(at**2) / (2 * _SIGMA**2))
    return np.asarray(weights / weights.sum())


def _window_mean(plane: Array, taps: Array) -> Array:
    half = len(taps) // 2
    rows = correlate1d(plane, taps, axis=0)[half:-half]
    return np.asarray(correlate1d(rows, taps, axis=1)[:, half:-half])


def _index(x: Array, y: Array, peak: float) -> Array:
    """Return the similarity of each window of two bands: (H, W) twice -> (H-10, W-10)."""
    taps = _taps()
    c1, c2 = (_K1 * peak) ** 2, (_K2 * peak) ** 2
    mean_x, mean_y = _window_mean(x, taps), _window_mean(y, taps)
    covariance = _window_mean(x * y, taps) - mean_x * mean_y
    variances = _window_mean(x * x + y * y, taps) - mean_x**2 - mean_y**2
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    return np.asarray(luminance * (2 * covariance + c2) / (variances + c2))
