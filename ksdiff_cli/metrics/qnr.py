"""QNR, the quality with no reference, with its own spectral distortion between pairs of bands; HQNR, the hybrid one."""

from itertools import combinations

import numpy as np

from ksdiff_cli.metrics.blocks import cells
from ksdiff_cli.metrics.full_blocks import FullBlock, FullMetric, quality_cells
from ksdiff_cli.numerics import Array


def hqnr(d_lambda: float, d_s: float) -> float:
    """Return (1 - D_lambda)(1 - D_s), with Khan's D_lambda.

    Plain upsampling scores high on it: it proves nothing alone.

    Args:
        d_lambda: spectral distortion, [0, 1].
        d_s: spatial distortion, [0, 1].

    Returns:
        [0, 1], 1 is best.

    References:
        Aiazzi et al., "Full-scale assessment of pansharpening methods and data products", SPIE Remote Sensing 2014.
    """
    return (1 - d_lambda) * (1 - d_s)


class PairDLambda(FullMetric):
    """Accumulator of :func:`pair_d_lambda`. A cell where U is undefined in any pair is left out of all and counted."""

    def __init__(self) -> None:
        """Start with no cells."""
        self.fused: Array = np.zeros(1)
        self.ms: Array = np.zeros(1)
        self.bands = 0
        self.count = 0

    def update(self, block: FullBlock) -> None:
        """Take one block in."""
        self.bands = len(block.fused)
        pairs = list(combinations(range(self.bands), 2))
        if not pairs:
            return
        fused, ms = (
            np.stack([quality_cells(image[i], image[j]) for i, j in pairs]) for image in (block.fused, block.ms_up)
        )
        valid = cells(block.valid).all(-1)
        defined = (np.isfinite(fused) & np.isfinite(ms)).all(0)
        self.constant += int(np.count_nonzero(valid & ~defined))
        good = valid & defined
        self.fused = self.fused + fused[:, good].sum(-1)
        self.ms = self.ms + ms[:, good].sum(-1)
        self.count += int(np.count_nonzero(good))

    def result(self) -> float:
        """Return the distortion; 0 for a single band, which has no pairs."""
        if self.bands == 1:
            return 0.0
        if self.count == 0:
            return float("nan")
        return float(np.abs(self.fused - self.ms).mean() / self.count)


def pair_d_lambda(fused: Array, ms_up: Array, valid: Array | None = None) -> float:
    """Return QNR's D_lambda: the mean over pairs of bands of |U(fused_i, fused_j) - U(ms_i, ms_j)|.

    Args:
        fused: (bands, H, W), any unit, sides multiples of 32.
        ms_up: (bands, H, W), MS upsampled by :func:`~ksdiff_cli.numerics.toolbox.interp23tap`.
        valid: (H, W) bool; cells with a pixel that is not valid are left out. ``None`` for all.

    Returns:
        [0, 2], 0 is best. NaN, as in the reference, if two bands are both constant in some cell; the accumulator
        :class:`PairDLambda` leaves such cells out and counts them.

    References:
        Alparone et al., "Multispectral and panchromatic data fusion assessment without reference", PE&RS 2008.
    """
    metric = PairDLambda()
    mask = np.ones(fused.shape[1:], bool) if valid is None else valid
    metric.update(FullBlock(fused, fused, ms_up, fused[0], fused[0], mask))
    return float("nan") if metric.constant else metric.result()


def qnr(pair_d_lambda: float, d_s: float) -> float:
    """Return (1 - D_lambda)(1 - D_s), with the D_lambda of :func:`pair_d_lambda`: [0, 1], 1 is best."""
    return (1 - pair_d_lambda) * (1 - d_s)
