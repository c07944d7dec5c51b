"""D_s: the spatial distortion at full resolution."""

import numpy as np

from ksdiff_cli.metrics.blocks import cells
from ksdiff_cli.metrics.full_blocks import FullBlock, FullMetric, quality_cells
from ksdiff_cli.numerics import Array


class DS(FullMetric):
    """Accumulator of :func:`d_s`. A cell where U is undefined in any band is left out of all and counted."""

    def __init__(self) -> None:
        """Start with no cells."""
        self.high: Array = np.zeros(1)
        self.low: Array = np.zeros(1)
        self.count = 0

    def update(self, block: FullBlock) -> None:
        """Take one block in."""
        high = quality_cells(block.fused, block.pan[None])
        low = quality_cells(block.ms_up, block.pan_low[None])
        valid = cells(block.valid).all(-1)
        defined = (np.isfinite(high) & np.isfinite(low)).all(0)
        self.constant += int(np.count_nonzero(valid & ~defined))
        good = valid & defined
        self.high = self.high + high[:, good].sum(-1)
        self.low = self.low + low[:, good].sum(-1)
        self.count += int(np.count_nonzero(good))

    def result(self) -> float:
        """Return the distortion."""
        if self.count == 0:
            return float("nan")
        return float(np.abs(self.high - self.low).mean() / self.count)


def d_s(fused: Array, pan: Array, ms_up: Array, pan_low: Array, valid: Array | None = None) -> float:
    """Return the mean over bands of |U(fused, PAN) - U(upsampled MS, low-pass PAN)|, U averaged over 32x32 cells.

    Args:
        fused: (bands, H, W), any unit, sides multiples of 32.
        pan: (H, W), any unit.
        ms_up: (bands, H, W), MS upsampled by :func:`~ksdiff_cli.numerics.toolbox.interp23tap`.
        pan_low: (H, W), PAN brought to the MS size by :func:`~ksdiff_cli.numerics.toolbox.bicubic` and up by
            interp23tap.
        valid: (H, W) bool; cells with a pixel that is not valid are left out. ``None`` for all.

    Returns:
        [0, 2], 0 is best. NaN, as in the reference, if some cell is constant in both images compared, so that its U is
        0/0; the accumulator :class:`DS` leaves such cells out and counts them.

    References:
        Alparone et al., "Multispectral and panchromatic data fusion assessment without reference", PE&RS 2008.
    """
    metric = DS()
    mask = np.ones(pan.shape, bool) if valid is None else valid
    metric.update(FullBlock(fused, fused, ms_up, pan, pan_low, mask))
    return float("nan") if metric.constant else metric.result()
