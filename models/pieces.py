"""An image worked on piece by piece, where a CPU sharpens: rectangles of it, their replicated surroundings, threads."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import Context, copy_context
from typing import NamedTuple

import torch
from torch import Tensor

_AT_ONCE = 4
"""Pieces that are worked on at once: each holds memory, some 60 MB of windows of 1152 x 1152 pixels."""


class Sides(NamedTuple):
    """So many rows or columns on each side of an image."""

    top: int
    bottom: int
    left: int
    right: int

    def inside(self, x: Tensor) -> Tensor:
        """Leave the outer rows and columns out, (1, h, w, C) -> (1, C, h', w')."""
        return x[:, self.top : x.shape[1] - self.bottom, self.left : x.shape[2] - self.right].permute(0, 3, 1, 2)

    def replicate(self, x: Tensor) -> Tensor:
        """Fill the outer rows and columns of (1, h, w, C) with those inside of them."""
        bottom, right = x.shape[1] - self.bottom, x.shape[2] - self.right
        x[:, :, : self.left] = x[:, :, self.left : self.left + 1]
        x[:, :, right:] = x[:, :, right - 1 : right]
        x[:, : self.top] = x[:, self.top : self.top + 1]
        x[:, bottom:] = x[:, bottom - 1 : bottom]
        return x

    def join(self, images: Sequence[Tensor]) -> Tensor:
        """Put images on each other, (1, ·, h, w) each, and replicate their outer rows and columns: (1, h', w', C)."""
        height, width = images[0].shape[2:]
        channels = [image.shape[1] for image in images]
        x = images[0].new_empty(1, height + self.top + self.bottom, width + self.left + self.right, sum(channels))
        for part, image in zip(torch.split(self.inside(x), channels, 1), images, strict=True):
            part.copy_(image)
        return self.replicate(x)


class Part(NamedTuple):
    """A rectangle of an image: rows [top, bottom), columns [left, right)."""

    top: int
    left: int
    bottom: int
    right: int

    @classmethod
    def between(cls, rows: slice, cols: slice) -> "Part":
        """Take rows and columns, neither with a step nor counted from the end."""
        return cls(rows.start, cols.start, rows.stop, cols.stop)

    def of(self, image: Tensor) -> Tensor:
        """Return the rectangle of (N, C, H, W)."""
        return image[:, :, self.top : self.bottom, self.left : self.right]

    def meet(self, other: "Part") -> "Part":
        """Return what two rectangles share."""
        return Part(*map(max, self[:2], other[:2]), *map(min, self[2:], other[2:]))

    def grown(self, reach: int, size: Sequence[int]) -> "Part":
        """Widen it by ``reach`` on all sides, as far as an image of (height, width) goes."""
        top, left, bottom, right = self
        return Part(top - reach, left - reach, bottom + reach, right + reach).meet(Part(0, 0, *size))

    def missing(self, reach: int, size: Sequence[int]) -> Sides:
        """Return what there is less on each side than ``reach``, because an image of (height, width) ends there."""
        top, left, bottom, right = self
        less = reach - top, bottom + reach - size[0], reach - left, right + reach - size[1]
        return Sides(*(max(0, each) for each in less))

    def within(self, outer: "Part") -> "Part":
        """Return the place of this rectangle in another that holds it."""
        top, left, bottom, right = self
        return Part(top - outer.top, left - outer.left, bottom - outer.top, right - outer.left)

    def pixels(self, patch: int) -> "Part":
        """Cells -> pixels."""
        return Part(*(each * patch for each in self))

    def cells(self, patch: int) -> "Part":
        """Pixels -> the cells that they lie in."""
        return Part(self.top // patch, self.left // patch, -(-self.bottom // patch), -(-self.right // patch))

    def strips(self, rows: int) -> "Iterator[Part]":
        """Cut it from top to bottom."""
        for top in range(self.top, self.bottom, rows):
            yield Part(top, self.left, min(top + rows, self.bottom), self.right)


def side_by_side(work: Callable[[int], None], count: int) -> None:
    """Do pieces of work, which write to places of their own, without gradients, each in a thread of its own.

    Threads that share a layer wait for each other after every one of some thousand small steps; those that have a piece
    each do not. What they compute does not depend on it.

    Args:
        work: does the piece of a number.
        count: of pieces.
    """
    threads = torch.get_num_threads()
    workers = min(threads, count, _AT_ONCE)
    at_once = count - count % workers if workers > 1 else 0

    def alone(number: int, context: Context) -> None:
        torch.set_num_threads(threads // workers)
        with torch.no_grad():
            context.run(work, number)

    if at_once:
        try:
            with ThreadPoolExecutor(workers) as pool:
                list(pool.map(alone, range(at_once), [copy_context() for _ in range(at_once)]))
        finally:
            torch.set_num_threads(threads)
    for number in range(at_once, count):  # what is left, by all threads together
        work(number)
