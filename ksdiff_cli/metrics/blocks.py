"""How an image reaches a metric: whole, or block by block with the context each metric asks for.

Every metric is an accumulator: ``update`` it with blocks that tile the image, then ask for its ``result``. An image in
memory is the case of one block, so streamed and in-memory values agree.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import minimum_filter

from ksdiff_cli.errors import KsdiffError
from ksdiff_cli.numerics import Array

CELL = 32
"""Side, in pixels, of the distinct blocks of Q2n and U; block borders must be multiples of it."""
AFTER = CELL - 1
"""Most context, in pixels, that any metric asks for below and right of a block."""


@dataclass(frozen=True)
class Span:
    """One axis of a block: the core pixels [start, stop) of an axis of ``size`` pixels, and the context around them."""

    start: int
    stop: int
    size: int
    before: int = 0
    """Pixels of context at hand before ``start``."""
    after: int = 0
    """Pixels of context at hand from ``stop`` on."""

    @property
    def core(self) -> slice:
        """The core, as a slice of the block's data."""
        return slice(self.before, self.before + self.stop - self.start)

    def reach(self, before: int, after: int) -> "Span":
        """Return this span with at most so much context.

        Raises:
            ValueError: the image goes on but the block does not bring that much context.
        """
        wanted = min(before, self.start), min(after, self.size - self.stop)
        if wanted[0] > self.before or wanted[1] > self.after:
            raise ValueError(f"a block at {self.start} brings too little context: {before} and {after} px are needed")
        return Span(self.start, self.stop, self.size, *wanted)

    def within(self, outer: "Span") -> slice:
        """Return this span with its context, as a slice of the data of ``outer``, which has the same core."""
        first = outer.before - self.before
        return slice(first, first + self.before + self.stop - self.start + self.after)


def split(size: int, step: int = 512, before: int = 1, after: int = AFTER) -> list[Span]:
    """Cut an axis into spans of ``step`` pixels, a multiple of 32, with context as far as the image goes.

    A rest shorter than 32 joins the span before it, for Q2n pads its last cell with pixels of the same block.
    """
    starts = list(range(0, size, step))
    if len(starts) > 1 and size - starts[-1] < CELL:
        starts.pop()
    stops = [*starts[1:], size]
    return [Span(a, b, size, min(before, a), min(after, size - b)) for a, b in zip(starts, stops, strict=True)]


@dataclass(frozen=True)
class Block:
    """A piece of a reference image and of the image to judge, on one grid."""

    reference: Array
    """(bands, h, w) float64, with context; 0 where not valid."""
    fused: Array
    """(bands, h, w) float64, with context; 0 where not valid."""
    valid: Array
    """(h, w) bool; False for pixels to leave out (nodata in any band of either image)."""
    rows: Span
    cols: Span

    def view(self, before: int, after: int) -> "Block":
        """Return the block with at most so much context."""
        rows, cols = self.rows.reach(before, after), self.cols.reach(before, after)
        at = rows.within(self.rows), cols.within(self.cols)
        return Block(self.reference[:, *at], self.fused[:, *at], self.valid[at], rows, cols)


def make_block(
    reference: Array, fused: Array, valid: Array | None = None, rows: Span | None = None, cols: Span | None = None
) -> Block:
    """Check two arrays and make a block of them; without spans they are the whole image.

    Args:
        reference: (bands, h, w), any real type, DN.
        fused: the same shape.
        valid: (h, w) bool; ``None`` if every pixel counts.
        rows: where the block lies along the height.
        cols: where it lies along the width.

    Raises:
        KsdiffError: the shapes differ, or a pixel that counts is NaN or infinite.
    """
    if reference.ndim != 3 or reference.shape != fused.shape:
        raise KsdiffError(
            f"reference {reference.shape} and fused {fused.shape} must have the same (bands, height, width)"
        )
    height, width = reference.shape[1:]
    arrays = [np.asarray(array, np.float64) for array in (reference, fused)]
    mask = np.ones((height, width), bool) if valid is None else valid
    for name, array in zip(("reference", "fused"), arrays, strict=True):
        if not np.isfinite(array[:, mask] if valid is not None else array).all():
            raise KsdiffError(f"the {name} image holds NaN or infinite values; mark those pixels as nodata")
    if not mask.all():
        arrays = [np.where(mask, array, 0.0) for array in arrays]
    whole = Span(0, height, height), Span(0, width, width)
    return Block(arrays[0], arrays[1], mask, rows or whole[0], cols or whole[1])


class Metric(ABC):
    """A number about two images, gathered block by block."""

    before: int = 0
    """Pixels of context needed above and left of a block's core."""
    after: int = 0
    """Pixels of context needed below and right of it."""

    @abstractmethod
    def update(self, block: Block) -> None:
        """Take one block in; blocks come in any order, their cores must not overlap."""

    @abstractmethod
    def result(self) -> float:
        """Return the value over all blocks so far; NaN where the metric is undefined, as its class says."""


class WindowIndex(Metric):
    """An index of every ``side`` x ``side`` window, averaged over windows and bands; NaN if there is no window.

    Windows that hold nodata are left out.
    """

    def __init__(self, side: int) -> None:
        """Start with no windows."""
        self.after = side - 1
        self.total = 0.0
        self.count = 0

    @abstractmethod
    def index(self, x: Array, y: Array) -> Array:
        """Return the index of each window of two bands: (H, W) twice -> (H - side + 1, W - side + 1)."""

    def update(self, block: Block) -> None:
        """Take one block in."""
        block = block.view(0, self.after)
        if min(block.valid.shape) <= self.after:
            return
        complete = None if block.valid.all() else complete_windows(block.valid, self.after + 1)
        for x, y in zip(block.reference, block.fused, strict=True):
            index = self.index(x, y)
            if complete is not None:
                index = index[complete]
            self.total += float(index.sum())
            self.count += index.size

    def result(self) -> float:
        """Return the mean over windows and bands."""
        return self.total / self.count if self.count else float("nan")


def complete_windows(valid: Array, side: int) -> Array:
    """Find the windows without an invalid pixel: (H, W) bool -> (H - side + 1, W - side + 1) bool."""
    rows, cols = (size - side + 1 for size in valid.shape)
    # the origin puts a window's first pixel, not its middle, on the output pixel
    found = minimum_filter(valid.astype(np.uint8), side, origin=-(side // 2), mode="nearest")
    return np.asarray(found[:rows, :cols] > 0)


def measure(metric: Metric, reference: Array, fused: Array, valid: Array | None = None) -> float:
    """Return a metric's value for two images in memory; see :func:`make_block` for arguments and errors."""
    metric.update(make_block(reference, fused, valid))
    return metric.result()


def cells(plane: Array) -> Array:
    """Rearrange (..., H, W), sides multiples of 32, to (..., H/32, W/32, 1024): one row of pixels a distinct cell."""
    *lead, height, width = plane.shape
    parts = plane.reshape(*lead, height // CELL, CELL, width // CELL, CELL)
    return np.moveaxis(parts, -3, -2).reshape(*lead, height // CELL, width // CELL, CELL * CELL)


def ratio_or_nan(numerator: float, denominator: float) -> float:
    """Return numerator/denominator; NaN for 0/0 and a signed infinity for x/0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(np.divide(numerator, denominator))
