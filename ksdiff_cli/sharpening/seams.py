"""Whether window borders show: the score of a seam, gathered piece by piece (no I/O)."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ksdiff_cli.numerics.boxes import ALIGN, Box

Array = NDArray[Any]

_BESIDE = (-2, -1, 1, 2)  # lines compared with a line
_CAP = 0.5  # of the mean difference: what a difference counts at most


class Seams:
    """Mean difference between neighbours across borders over that beside them; 1 where no border shows.

    Let d(r) be the mean absolute difference between the pixels of row r and those of row r - 1, or of columns, and
    q(r) = d(r) over the mean of d at r - 2, r - 1, r + 1, r + 2. The score is q at borders over q at r - p and r + p.
    Interpolation of MS and strides of networks give the lines of an image different differences, by their phase: up to
    8 % were measured. Lines whose distance p is a multiple of the ratio and of all strides share a phase.

    Each piece of a border is divided by its mean difference, so that a seam in a plain counts as much as one in a city,
    and no difference counts more than half that mean: a few long edges would decide otherwise. On a seamless simulated
    scene of 2048 x 2048 x 4 the score then varies by .003 (deviation) at tiles of 256 and by .005 at 512. A step of
    the mean difference's size at every border of that scene gives 1.5, one of ten times that size 4.
    """

    def __init__(self, region: Box, tile: int, ratio: int) -> None:
        """Start with nothing.

        Args:
            region: the part of a scene that was made.
            tile: side of the cores, pixels, counted from the scene's first one.
            ratio: PAN pixels per MS pixel along a side.
        """
        self._region, self._tile = region, tile
        self._apart = math.lcm(ALIGN, ratio)
        self._sums = np.zeros(4)

    @property
    def margin(self) -> int:
        """Pixels around a piece that :meth:`add` looks at."""
        return self._apart + max(_BESIDE) + 1

    @property
    def score(self) -> float | None:
        """The score, to four places; None without borders, or where nothing near one is valid or differs."""
        border, beside, other, other_beside = self._sums
        if not min(beside, other, other_beside) > 0:
            return None
        return round(float(border / beside / (other / other_beside)), 4)

    def add(self, values: Array, valid: Array, piece: Box, shown: Box) -> None:
        """Take in the borders at the upper and left side of pixels in a piece; pieces must not overlap.

        Args:
            values: (bands, height, width) of ``shown``, any numbers.
            valid: (height, width) bool.
            piece: whose borders count.
            shown: the piece with :attr:`margin`, as far as the region goes.
        """
        rows, cols = piece.within(shown)
        self.add_rows(values[:, :, cols], valid[:, cols], piece, shown.top)
        self.add_cols(values[:, rows], valid[rows], piece, shown.left)

    def add_rows(self, values: Array, valid: Array, piece: Box, first: int) -> None:
        """Do of :meth:`add` what concerns borders that are rows; ``values`` are of the piece's columns."""
        self._along(values, valid, piece.top, piece.bottom, first, self._region.top)

    def add_cols(self, values: Array, valid: Array, piece: Box, first: int) -> None:
        """Do of :meth:`add` what concerns borders that are columns; ``values`` are of the piece's rows."""
        self._along(values.swapaxes(1, 2), valid.T, piece.left, piece.right, first, self._region.left)

    def _along(self, values: Array, valid: Array, start: int, stop: int, first: int, begin: int) -> None:
        """Take in the borders that are rows of [start, stop); ``values`` begin at row ``first``."""
        for row in range(-(-start // self._tile) * self._tile, stop, self._tile):
            if row == begin:
                continue
            own = [row + step for step in (0, *_BESIDE)]
            others = [
                [row + place + step for step in (0, *_BESIDE)]
                for place in (-self._apart, self._apart)
                if (row + place) % self._tile
            ]
            lines = [line for line in others if line[1] - 1 >= first and line[-2 + 1] < first + values.shape[1]]
            if own[1] - 1 >= first and own[-1] < first + values.shape[1] and lines:
                self._take(values, valid, np.array([own, *lines]) - first)

    def _take(self, values: Array, valid: Array, lines: Array) -> None:
        """Add one piece of border; ``lines`` (1 + others, 1 + beside) are rows of ``values``, the border's first."""
        # (bands, 1 + others, 1 + beside, width)
        differences = np.abs(values[:, lines].astype(np.float64) - values[:, lines - 1])
        # whole columns or none, so that all lines see the same places
        whole = (valid[lines] & valid[lines - 1]).all((0, 1))
        if not whole.any():
            return
        differences = differences[..., whole]
        means = differences.mean(-1)
        rest = (means.sum((1, 2)) - means[:, 0, 0]) / (means[0].size - 1)
        cap = _CAP * (means[:, 0, 0] + rest) / 2
        changing = cap > 0
        counted = np.minimum(differences[changing], cap[changing, None, None, None]).sum(-1)
        counted /= cap[changing, None, None]
        self._sums += (
            counted[:, 0, 0].sum(),
            counted[:, 0, 1:].mean(-1).sum(),
            counted[:, 1:, 0].mean(-1).sum(),
            counted[:, 1:, 1:].mean((-1, -2)).sum(),
        )
