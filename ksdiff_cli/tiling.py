"""Overlapping windows over a scene, and the weights that blend them without a seam (no I/O)."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ksdiff_cli.errors import KsdiffError

Array = NDArray[Any]

ALIGN = 16
"""Windows start at multiples of this, so that networks with strides see every window at the same phase."""
SMALLEST = 64
"""Smallest side of a window, in pixels."""


@dataclass(frozen=True)
class Span:
    """One window along one axis: pixels [start, stop) and their blending weights."""

    start: int
    stop: int
    weights: Array
    """(stop - start,) float32; at every pixel the weights of all spans that hold it sum to 1."""

    @property
    def size(self) -> int:
        """Pixels in the window."""
        return self.stop - self.start


@dataclass(frozen=True)
class Tiling:
    """The windows of a scene: every row span crossed with every column span."""

    rows: tuple[Span, ...]
    cols: tuple[Span, ...]

    def __len__(self) -> int:
        """Return the number of windows."""
        return len(self.rows) * len(self.cols)

    def __iter__(self) -> Iterator[tuple[Span, Span]]:
        """Yield (row span, column span), row by row."""
        return ((row, col) for row in self.rows for col in self.cols)


def make_tiling(height: int, width: int, tile: int, overlap: int) -> Tiling:
    """Cover a scene of any size with overlapping windows.

    Args:
        height: of the scene, pixels, at least 1.
        width: of the scene, pixels, at least 1.
        tile: side of a window; a smaller scene gets one window of its own size.
        overlap: pixels that neighbours share at least.

    Raises:
        KsdiffError: the windows would be too small, or overlap by more than half.
    """
    if tile < SMALLEST:
        raise KsdiffError(f"--tile {tile}: windows have at least {SMALLEST} pixels a side")
    if not 0 <= overlap <= tile // 2:
        raise KsdiffError(f"--overlap {overlap}: choose between 0 and half the tile, {tile // 2}")
    return Tiling(spans(height, tile, overlap), spans(width, tile, overlap))


def spans(size: int, tile: int, overlap: int) -> tuple[Span, ...]:
    """Cover one axis of ``size`` pixels; see :func:`make_tiling`.

    Windows follow each other at a fixed step. The last one is moved back instead of cut, so that it too sees enough
    of the scene; that is why weights are normalised: near the end a pixel may lie in three windows.
    """
    step = max(ALIGN, (tile - overlap) // ALIGN * ALIGN)
    starts = [0]
    while starts[-1] + tile < size:
        last = -(-(size - tile) // ALIGN) * ALIGN
        starts.append(min(starts[-1] + step, last))
    bounds = [(start, min(start + tile, size)) for start in starts]
    raw = [_ramped(start, stop, size, tile - step) for start, stop in bounds]
    total = np.zeros(size)
    for (start, stop), weights in zip(bounds, raw, strict=True):
        total[start:stop] += weights
    return tuple(
        Span(start, stop, (weights / total[start:stop]).astype(np.float32))
        for (start, stop), weights in zip(bounds, raw, strict=True)
    )


def _ramped(start: int, stop: int, size: int, ramp: int) -> Array:
    """Weights that rise from 0 and fall to 0 over ``ramp`` pixels, smoothly; 1 up to the scene's own borders."""
    pixels = np.arange(start, stop) + 0.5
    weights = np.ones(stop - start)
    if ramp > 0 and start > 0:
        weights *= np.sin(np.pi / 2 * np.clip((pixels - start) / ramp, 0, 1)) ** 2
    if ramp > 0 and stop < size:
        weights *= np.sin(np.pi / 2 * np.clip((stop - pixels) / ramp, 0, 1)) ** 2
    return weights
