"""Pictures for a report about one raster: an overview gathered while it is measured, and a few windows of it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ksdiff_cli.metrics.blocks import CELL, Block, Span
from ksdiff_cli.metrics.full_blocks import FullBlock
from ksdiff_cli.numerics import Array
from ksdiff_cli.numerics.boxes import Box
from ksdiff_cli.raster.open import data_bands
from ksdiff_cli.report import Example, Mark, rgb_bands

WINDOW = 512
"""Side of the windows that are shown pixel by pixel; whatever is hardly larger is shown as a whole."""
_TARGETS = (0.15, 0.15), (0.85, 0.5), (0.15, 0.85)  # where windows should lie, as shares of the way down and across
_SLACK = 1.5  # windows' sides up to which an image counts as hardly larger
_PLACES = 24  # places tried along each axis
_ENOUGH = 0.9  # of the best valid share


@dataclass(frozen=True)
class View:
    """A rectangle of everything there is to see, float64 DN."""

    fused: Array
    """(bands, h, w)"""
    valid: Array
    """(h, w) bool; False for pixels that were left out of the figures."""
    pan: Array | None = None
    """(h, w)"""
    ms_up: Array | None = None
    """(bands, h, w)"""
    truth: Array | None = None
    """(bands, h, w)"""

    @classmethod
    def of(cls, block: Block | FullBlock) -> "View":
        """Return what a block of a measurement shows, without its context."""
        if isinstance(block, Block):
            core = block.view(0, 0)
            return cls(core.fused, core.valid, truth=core.reference)
        return cls(block.fused, block.valid, pan=block.pan, ms_up=block.ms_up)

    def layers(self) -> dict[str, Array]:
        """Return what is there, by name, as (·, h, w)."""
        pan = None if self.pan is None else self.pan[None]
        found = {"fused": self.fused, "pan": pan, "ms_up": self.ms_up, "truth": self.truth}
        return {name: image for name, image in found.items() if image is not None}


class Overview:
    """An image of any size, averaged to at most 512 pixels a side, block by block in bounded memory."""

    def __init__(self, shape: tuple[int, int], metres: float | None = None) -> None:
        """Start with nothing of an image of (height, width) pixels, each so many metres wide if that is known."""
        self.shape = shape
        self._metres = metres
        self.factor = 1 if max(shape) <= WINDOW * _SLACK else -(-max(shape) // WINDOW)
        self._small = tuple(-(-side // self.factor) for side in shape)
        self._sums: dict[str, Array] = {}
        self._count = np.zeros(self._small)

    def add(self, view: View, rows: Span, cols: Span) -> None:
        """Take in what lies at the core of these spans; blocks must not overlap."""
        if self.factor == 1:
            return
        at, bins = zip(*(self._bins(span) for span in (rows, cols)), strict=True)
        self._count[at] += _add_up(view.valid.astype(np.float64), *bins)
        for name, image in view.layers().items():
            if name not in self._sums:
                self._sums[name] = np.zeros((len(image), *self._small))
            self._sums[name][:, *at] += _add_up(np.where(view.valid, image, 0.0), *bins)

    def examples(self, name: str, read: Callable[[Span, Span], View], bands: tuple[int, int, int]) -> list[Example]:
        """Return the pictures' images: the overview and windows, or the whole image if it is small.

        Args:
            name: of the raster, in the tables.
            read: returns a rectangle; its sides and place are multiples of 32, or end where the image does.
            bands: shown as red, green and blue.
        """
        height, width = self.shape
        if self.factor == 1:
            view = read(Span(0, height, height), Span(0, width, width))
            return [self._example(f"{name}, whole image", name, view, bands)]
        places = self._places()
        found = [self._overview(name, bands, places)]
        for number, (row, col) in enumerate(places):
            rows, cols = (
                Span(at, min(at + WINDOW, size), size) for at, size in zip((row, col), self.shape, strict=True)
            )
            note = f"rows {rows.start}–{rows.stop - 1}, columns {cols.start}–{cols.stop - 1} of what was measured"
            found.append(self._example(f"{name}, window {_letter(number)}", name, read(rows, cols), bands, note))
        return found

    def _overview(self, name: str, bands: tuple[int, int, int], places: list[tuple[int, int]]) -> Example:
        means = {layer: total / np.maximum(self._count, 1) for layer, total in self._sums.items()}
        # at least half of the pixels behind a mean; at the far border there are fewer
        valid = self._count * 2 >= np.outer(*(self._pixels(size) for size in self.shape))
        side = -(-WINDOW // self.factor)
        sides = [min(side, small) for small in self._small]
        boxes = tuple(
            Mark(_letter(number), Box(0, 0, *sides).moved(row // self.factor, col // self.factor))
            for number, (row, col) in enumerate(places)
        )
        pan = means["pan"][0] if "pan" in means else None
        return Example(
            f"{name}, overview",
            {name: means["fused"]},
            pan,
            means.get("ms_up"),
            means.get("truth"),
            valid,
            bands,
            f"{self.shape[1]} × {self.shape[0]} pixels were measured",
            self.factor,
            boxes,
            self._metres,
        )

    def _example(self, title: str, name: str, view: View, bands: tuple[int, int, int], note: str = "") -> Example:
        return Example(
            title,
            {name: view.fused},
            view.pan,
            view.ms_up,
            view.truth,
            view.valid,
            bands,
            note,
            metres=self._metres,
        )

    def _bins(self, span: Span) -> tuple[slice, Array]:
        """Return where a span lies in the overview, and where in the span each of those pixels begins."""
        pixels = np.arange(span.start, span.stop) // self.factor
        return slice(int(pixels[0]), int(pixels[-1]) + 1), np.flatnonzero(np.diff(pixels, prepend=-1))

    def _pixels(self, size: int) -> Array:
        starts = np.arange(0, size, self.factor)
        return np.minimum(starts + self.factor, size) - starts

    def _places(self) -> list[tuple[int, int]]:
        """Choose windows that do not overlap, spread over the image, where enough of them is valid."""
        sides = [min(WINDOW, size) for size in self.shape]
        rows, cols = (_starts(size, side) for size, side in zip(self.shape, sides, strict=True))
        share = _window_sums(self._count, self.factor, rows, cols, sides)
        free = (share > 0) & (share >= _ENOUGH * share.max())
        found: list[tuple[int, int]] = []
        for down, across in _TARGETS:
            if not free.any():
                break
            far = np.hypot((rows - down * rows[-1])[:, None], (cols - across * cols[-1])[None])
            row, col = np.unravel_index(np.argmin(np.where(free, far, np.inf)), far.shape)
            found.append((int(rows[row]), int(cols[col])))
            apart = np.abs(rows - rows[row])[:, None] >= sides[0], np.abs(cols - cols[col])[None] >= sides[1]
            free &= apart[0] | apart[1]
        return found


def choose_bands(dataset: Any) -> tuple[int, int, int]:
    """Return the bands of an open raster to show as red, green and blue; see :func:`ksdiff_cli.report.rgb_bands`."""
    names = [
        text.lower() if text else colour.name
        for text, colour in zip(dataset.descriptions, dataset.colorinterp, strict=True)
    ]
    bands = data_bands(dataset)
    return rgb_bands(len(bands), [names[band - 1] for band in bands])


def _letter(number: int) -> str:
    return "ABC"[number]


def _starts(size: int, side: int) -> Array:
    """Return where windows may begin along an axis: multiples of 32, evenly spread."""
    last = (size - side) // CELL
    steps = np.unique(np.linspace(0, last, min(last + 1, _PLACES)).round().astype(int))
    return np.asarray(steps * CELL)


def _add_up(image: Array, rows: Array, cols: Array) -> Array:
    return np.asarray(np.add.reduceat(np.add.reduceat(image, rows, axis=-2), cols, axis=-1))


def _window_sums(count: Array, factor: int, rows: Array, cols: Array, sides: list[int]) -> Array:
    """Return about how many valid pixels each window holds, from the overview's counts."""
    sums = np.pad(count, ((1, 0), (1, 0))).cumsum(0).cumsum(1)
    (top, bottom), (left, right) = (
        (at // factor, np.minimum((at + side) // factor, size))
        for at, side, size in zip((rows, cols), sides, count.shape, strict=True)
    )
    return np.asarray(
        sums[np.ix_(bottom, right)] - sums[np.ix_(top, right)] - sums[np.ix_(bottom, left)] + sums[np.ix_(top, left)]
    )
