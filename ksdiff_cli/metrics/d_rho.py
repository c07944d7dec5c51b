"""D_rho: the spatial distortion by local correlation with PAN."""

import numpy as np

from ksdiff_cli.metrics.blocks import ratio_or_nan
from ksdiff_cli.metrics.local_correlation import correlate_detail, reach, remove_local_mean, whole_views
from ksdiff_cli.metrics.pan_blocks import PanBlock, PanMetric, make_pan_block, margin_for
from ksdiff_cli.numerics import Array


class DRho(PanMetric):
    """Accumulator of :func:`d_rho`."""

    def __init__(self, ratio: float = 4) -> None:
        """Start with no pixels; ``ratio`` is in PAN pixels per MS pixel."""
        self.side = max(2, round(ratio))
        self.total = 0.0
        self.count = 0

    def update(self, block: PanBlock) -> None:
        """Take one block in."""
        fused, pan, valid = block.cut(*reach(self.side))
        whole, detail = whole_views(valid, self.side), remove_local_mean(pan, self.side)
        for band in fused:
            found = correlate_detail(remove_local_mean(band, self.side), detail, self.side)
            found = found[whole & np.isfinite(found)]
            self.total += float((1 - found).sum())
            self.count += found.size

    def result(self) -> float:
        """Return the distortion."""
        return ratio_or_nan(self.total, self.count)


def d_rho(fused: Array, pan: Array, ratio: float = 4, valid: Array | None = None) -> float:
    """Return the mean over pixels and bands of 1 - the correlation of a band with PAN in a window around the pixel.

    Windows are ``ratio`` x ``ratio`` pixels, -(ratio//2) to ratio-1-ratio//2 around a pixel. Each image first loses its
    mean in the window of each pixel; what is left is correlated, without another mean, in the same windows. A window
    in which one of the two is constant counts as uncorrelated, one in which both are is left out. Only pixels count
    whose windows lie inside the image: the outermost ones are left out, not made up.

    A copy of PAN in every band scores 0: never read it alone.

    Args:
        fused: (bands, H, W), any unit.
        pan: (H, W), any unit.
        ratio: PAN pixels per MS pixel along a side, rounded; windows have 2 pixels at least.
        valid: (H, W) bool; pixels that see one that is not valid are left out. ``None`` for all.

    Returns:
        [0, 2], 0 is best; NaN if no pixel counts.

    Raises:
        KsdiffError: shapes differ or values are not finite.

    References:
        Scarpa, Ciotola, "Full-resolution quality assessment for pansharpening", Remote Sensing 14:1808, 2022.
    """
    metric = DRho(ratio)
    metric.update(make_pan_block(fused, pan, valid, margin_for(ratio)))
    return metric.result()
