"""PSNR: the peak signal-to-noise ratio."""

import math

import numpy as np

from ksdiff_cli.metrics.blocks import Block, Metric, measure
from ksdiff_cli.numerics import Array

_RADIANCE = 1e-3
"""Largest value below which data are no reflectances in [0, 1]: those of the darkest water reach further."""


class Psnr(Metric):
    """Accumulator of :func:`psnr`; NaN without any pixel."""

    def __init__(self, peak: float) -> None:
        """Start with no pixels; ``peak`` is the largest DN possible."""
        self.peak = peak
        self.squares = 0.0
        self.count = 0

    def update(self, block: Block) -> None:
        """Take one block in."""
        block = block.view(0, 0)
        error = block.reference - block.fused
        self.squares += float(np.einsum("bhw,bhw->", error, error))
        self.count += int(np.count_nonzero(block.valid)) * len(error)

    def result(self) -> float:
        """Return the ratio in dB."""
        if self.count == 0:
            return math.nan
        if self.squares == 0:
            return math.inf
        return 10 * math.log10(self.peak**2 * self.count / self.squares)


def psnr(reference: Array, fused: Array, peak: float, valid: Array | None = None) -> float:
    """Return 10 log10(peak² / MSE), the mean square error taken over all pixels and bands together.

    Args:
        reference: (bands, H, W), DN.
        fused: (bands, H, W), DN.
        peak: the largest value possible, 2**bits - 1; see :func:`guess_peak`.
        valid: (H, W) bool, pixels to count; ``None`` for all.

    Returns:
        dB, higher is better; infinite for equal images.

    Raises:
        KsdiffError: shapes differ or values are not finite.
    """
    return measure(Psnr(peak), reference, fused, valid)


def guess_peak(largest: float) -> float:
    """Return the peak of data whose largest value is known: 1 for [0, 1] data, else 2**bits - 1 of the least 8 bits.

    The 8, 10, 11, 12 … bits of the sensors all come out if the data use their range; say the peak with every figure. Of
    data far below 1, such as radiances in W/cm²/sr/nm, it is the largest value itself.
    """
    if 0 < largest < _RADIANCE:
        return largest
    if largest <= 1:
        return 1.0
    return float(2 ** max(8, math.ceil(math.log2(largest + 1))) - 1)
