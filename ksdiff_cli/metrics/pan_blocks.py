"""Blocks for metrics of a fused image and PAN alone, on PAN's grid: pieces of both with the pixels around them."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np

from ksdiff_cli.errors import KsdiffError
from ksdiff_cli.numerics import Array
from ksdiff_cli.numerics.toolbox import MTF_REACH


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
