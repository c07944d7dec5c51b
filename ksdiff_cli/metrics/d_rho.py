"""D_rho: the spatial distortion by local correlation with PAN, and that correlation."""

import numpy as np

from ksdiff_cli.metrics.blocks import complete_windows, ratio_or_nan
from ksdiff_cli.metrics.full_blocks import PanBlock, PanMetric, make_pan_block, margin_for
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
