"""Blocks for metrics without a truth: the fused image against its own PAN and MS."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np

from ksdiff_cli.errors import KsdiffError
from ksdiff_cli.metrics.blocks import CELL, cells
from ksdiff_cli.numerics import Array
from ksdiff_cli.numerics.toolbox import MTF_REACH, bicubic, interp23tap, is_power_of_two, mtf_filter


@dataclass(frozen=True)
class PanBlock:
    """A piece of a fused image and of PAN, its core, with ``margin`` pixels around it."""

    fused: Array
    """(bands, h + 2 margin, w + 2 margin) float64, DN; finite."""
    pan: Array
    """(h + 2 margin, w + 2 margin) float64, DN; finite."""
    valid: Array
    """(h + 2 margin, w + 2 margin) bool; False for nodata in either image and beyond the image."""
    margin: int

    def cut(self, before: int, after: int) -> "tuple[Array, Array, Array]":
        """Return fused, PAN and valid of the core with so many pixels above and left, and below and right of it.

        Raises:
            ValueError: the block does not bring that many.
        """
        if max(before, after) > self.margin:
            raise ValueError(f"a block with {self.margin} px around it, where {before} and {after} are needed")
        rows, cols = (slice(self.margin - before, size - self.margin + after) for size in self.valid.shape)
        return self.fused[:, rows, cols], self.pan[rows, cols], self.valid[rows, cols]


class PanMetric(ABC):
    """A number about a fused image and PAN, gathered block by block."""

    @abstractmethod
    def update(self, block: PanBlock) -> None:
        """Take one block in; blocks come in any order, their cores must not overlap."""

    @abstractmethod
    def result(self) -> float:
        """Return the value over all blocks so far; NaN where the metric is undefined, as its class says."""


def margin_for(ratio: float) -> int:
    """Return the pixels around a block that all metrics at full resolution need together."""
    return max(MTF_REACH, round(ratio))


def make_pan_block(fused: Array, pan: Array, valid: Array | None = None, margin: int = MTF_REACH) -> PanBlock:
    """Check two images in memory and make one block of them.

    Args:
        fused: (bands, H, W), any real type, DN.
        pan: (H, W), DN.
        valid: (H, W) bool, pixels to count; ``None`` for all.
        margin: pixels that the block brings around the image, none of them valid.

    Raises:
        KsdiffError: the shapes differ, or a pixel that counts is NaN or infinite.
    """
    if fused.ndim != 3 or pan.shape != fused.shape[1:] or (valid is not None and valid.shape != pan.shape):
        given = "" if valid is None else f" and valid {valid.shape}"
        raise KsdiffError(f"fused {fused.shape}, PAN {pan.shape}{given} must have the same height and width")
    mask = np.ones(pan.shape, bool) if valid is None else valid.astype(bool)
    for name, image in (("fused", fused), ("PAN", pan)):
        if not np.isfinite(image[..., mask]).all():
            raise KsdiffError(f"the {name} image holds NaN or infinite values; mark those pixels as nodata")
    around = (margin, margin)
    fused, pan = (np.where(mask, image, 0).astype(np.float64) for image in (fused, pan))
    return PanBlock(
        np.pad(fused, [(0, 0), around, around]), np.pad(pan, [around, around]), np.pad(mask, [around, around]), margin
    )


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
