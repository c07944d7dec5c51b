"""Sharpness relative to PAN, octave by octave of spatial frequency."""

import math
from itertools import pairwise

import numpy as np
from scipy.ndimage import gaussian_filter

from ksdiff_cli.metrics.blocks import complete_windows
from ksdiff_cli.metrics.full_blocks import PanBlock, make_pan_block
from ksdiff_cli.numerics import Array

_DEVIATIONS = 0.75, 1.5, 3.0
"""Of the Gaussians that part the octaves, PAN pixels: they halve the frequencies 1/4, 1/8 and 1/16 of a cycle."""
_REACH = 12
"""Pixels that the widest of them looks at on each side: 4 deviations."""


class Sharpness:
    """Accumulator of :func:`sharpness`."""

    def __init__(self) -> None:
        """Start with no pixels."""
        self.count = 0
        self.sums: Array = np.zeros(1)
        self.squares: Array = np.zeros(1)

    def update(self, block: PanBlock) -> None:
        """Take one block in; see :class:`~ksdiff_cli.metrics.full_blocks.PanMetric`."""
        fused, pan, valid = block.cut(_REACH, _REACH)
        whole = complete_windows(valid, 2 * _REACH + 1)
        octaves = [_octaves(band)[:, whole] for band in (*fused, pan)]
        self.sums = self.sums + np.stack([one.sum(1) for one in octaves])
        self.squares = self.squares + np.stack([np.einsum("op,op->o", one, one) for one in octaves])
        self.count += int(np.count_nonzero(whole))

    def result(self) -> tuple[float, float]:
        """Return the finest octave's figure and the next one's."""
        if self.count == 0:
            return math.nan, math.nan
        spread = np.sqrt(np.maximum(self.squares / self.count - (self.sums / self.count) ** 2, 0))
        with np.errstate(divide="ignore", invalid="ignore"):
            slopes = spread[:, :-1] / spread[:, 1:]
            finest, following = (slopes[:-1] / slopes[-1]).mean(0)
        return float(finest), float(following)


def sharpness(fused: Array, pan: Array, valid: Array | None = None) -> tuple[float, float]:
    """Return how much of the finest detail the bands have, relative to PAN: (finest octave, next octave).

    An octave is a difference of Gaussians; the finest is the image less its blur by .75 pixels, the next the blur by
    .75 less that by 1.5, the third 1.5 less 3: about [1/4, 1/2], [1/8, 1/4] and [1/16, 1/8] cycles a pixel. The figure
    of an octave is its standard deviation over that of the next coarser one, divided by the same quotient of PAN, and
    averaged over bands: a band's contrast cancels out. Below 1 is softer than PAN, above 1 crisper.

    Noise, dots and stairs count as detail: 1 says that there is as much, not that it is right.

    Args:
        fused: (bands, H, W), any unit.
        pan: (H, W), any unit.
        valid: (H, W) bool; pixels with one that is not valid up to 12 rows or columns off are left out, as is the
            image's border. ``None`` for all.

    Returns:
        [0, inf) each, 1 is best. NaN if no pixel counts, or PAN and a band have no detail.

    Raises:
        KsdiffError: shapes differ or values are not finite.
    """
    metric = Sharpness()
    metric.update(make_pan_block(fused, pan, valid, _REACH))
    return metric.result()


def _octaves(plane: Array) -> Array:
    """Return the three finest octaves of a plane: (h + 24, w + 24) -> (3, h, w)."""
    inside = np.s_[_REACH:-_REACH, _REACH:-_REACH]
    blurs = [plane, *(gaussian_filter(plane, deviation, truncate=4.0) for deviation in _DEVIATIONS)]
    return np.stack([(fine - coarse)[inside] for fine, coarse in pairwise(blurs)])
