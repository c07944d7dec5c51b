"""Blocks for metrics without a truth: the fused image against its own PAN and MS."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np

from ksdiff_cli.errors import KsdiffError
from ksdiff_cli.metrics.blocks import CELL, cells
from ksdiff_cli.metrics.pan_blocks import PanBlock, make_pan_block, margin_for
from ksdiff_cli.numerics import Array
from ksdiff_cli.numerics.toolbox import bicubic, interp23tap, is_power_of_two, mtf_filter


@dataclass(frozen=True)
class FullBlock:
    """A piece of a full-resolution image on the PAN grid; its sides and its place are multiples of 32 pixels."""

    fused: Array
    """(bands, h, w) float64, DN."""
    fused_blurred: Array
    """(bands, h, w) float64, the fused image through the MS camera's MTF, not decimated."""
    ms_up: Array
    """(bands, h, w) float64, MS upsampled to the PAN grid."""
    pan: Array
    """(h, w) float64."""
    pan_low: Array
    """(h, w) float64, PAN brought down to the MS grid and up again."""
    valid: Array
    """(h, w) bool; False where any of the above is nodata or was filtered from nodata."""
    around: PanBlock | None = None
    """The fused image and PAN with the pixels around them and their own validity, for metrics of these two alone."""


class FullMetric(ABC):
    """A number at full resolution, gathered block by block."""

    constant: int = 0
    """32-pixel cells left out so far because U is undefined there (0/0: two bands that are both constant)."""

    @abstractmethod
    def update(self, block: FullBlock) -> None:
        """Take one block in; blocks come in any order and must not overlap."""

    @abstractmethod
    def result(self) -> float:
        """Return the value over all cells that count so far; NaN if there are none."""


def make_full_block(fused: Array, pan: Array, ms: Array, gains: tuple[float, ...], ratio: int) -> FullBlock:
    """Prepare images in memory as the reference does, as one block.

    MS is upsampled by :func:`~ksdiff_cli.numerics.toolbox.interp23tap`; PAN's low-resolution version goes down by
    bicubic, up by interp23tap.

    Args:
        fused: (bands, H, W), DN, sides multiples of 32.
        pan: (H, W), DN.
        ms: (bands, H/ratio, W/ratio), DN.
        gains: one MTF gain per band.
        ratio: PAN pixels per MS pixel along a side, a power of two.

    Raises:
        KsdiffError: sizes do not fit each other, the ratio is no power of two, or values are not finite.
    """
    bands, height, width = fused.shape
    if height % CELL or width % CELL:
        raise KsdiffError(f"full-resolution metrics need sides that are multiples of {CELL}, not {width} x {height}")
    if not is_power_of_two(ratio):
        raise KsdiffError(f"the reference's upsampling needs a ratio that is a power of two, not {ratio}")
    if pan.shape != (height, width) or ms.shape != (bands, height // ratio, width // ratio):
        raise KsdiffError(
            f"fused {fused.shape}, PAN {pan.shape} and MS {ms.shape} do not fit each other at ratio {ratio}"
        )
    if len(gains) != bands:
        raise KsdiffError(f"{len(gains)} MTF gains for {bands} bands")
    if not np.isfinite(ms).all():
        raise KsdiffError("the MS image holds NaN or infinite values")
    around = make_pan_block(fused, pan, None, margin_for(ratio))
    fused, pan, _ = around.cut(0, 0)
    return FullBlock(
        fused,
        mtf_filter(fused, gains, ratio),
        interp23tap(ms, ratio),
        pan,
        interp23tap(bicubic(pan[None], 1 / ratio), ratio)[0],
        np.ones((height, width), bool),
        around,
    )


# U is 0/0 on two constant cells; rounding makes it x/y with both this small against the means
_FLAT = 1e-22


def quality_cells(x: Array, y: Array) -> Array:
    """Return the universal quality index U of each distinct 32x32 cell.

    4 cov(x,y) mean(x) mean(y) / [(var(x) + var(y)) (mean(x)² + mean(y)²)], with N-1 in covariance and variances.

    Args:
        x: (..., H, W), sides multiples of 32.
        y: (..., H, W).

    Returns:
        (..., H/32, W/32), [-1, 1]; NaN where both cells are constant, as in the reference.
    """
    x, y = cells(x), cells(y)
    mean_x, mean_y = x.mean(-1, keepdims=True), y.mean(-1, keepdims=True)
    x, y = x - mean_x, y - mean_y
    mean_x, mean_y = mean_x[..., 0], mean_y[..., 0]
    covariance = np.einsum("...p,...p->...", x, y)
    variances = np.einsum("...p,...p->...", x, x) + np.einsum("...p,...p->...", y, y)
    means = mean_x**2 + mean_y**2
    defined = variances > _FLAT * CELL * CELL * means
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(defined, 4 * covariance * mean_x * mean_y / (variances * means), np.nan)
