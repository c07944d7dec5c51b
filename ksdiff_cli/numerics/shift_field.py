"""A shift between two images that varies over the scene: a low-order surface through measured places (no I/O).

The surface is a polynomial whose order grows with the number of places and is the lowest that predicts places left out.
It is a function of absolute coordinates and is evaluated element by element, hence a pixel has the same bits in every
window.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ksdiff_cli.numerics import Array

VARIES = 0.15
"""MS pixels by which a shift must vary between measured places for a field in place of one number."""

_ORDER = 5  # of the polynomial, at most
_PER_TERM = 4  # measured places for a term
_FEWEST = 6  # places that agree with a field
_APART = 16  # MS pixels between places that tell of different parts of an axis
_CAP = 0.5  # MS pixels; what lies further beside a field tells no more than that
_SCALE = 0.02  # MS pixels, the least deviation that places are believed to have
_TUKEY = 4.7  # deviations beyond which a place does not count: 95 % efficient for normal errors
_BETTER = 0.6  # of the squared error of one shift for all, that a field may leave
_SMALL = 0.01  # MS pixels, RMS, of no account
_SIMPLER = 1.1  # of the least squared error, for which a lower order is taken
_LOOSE = 0.25  # MS pixels, RMS, by which places that agree may lie beside a field
_RIDGE = 1e-4  # of the places' weight, times order squared: what nothing tells stays 0
_DIGITS = 4  # of coefficients: what a library's next version adds up in another order must not change a pixel
_LATTICE = 65  # points of a side, for what is said of a whole field


@dataclass(frozen=True)
class ShiftField:
    """How much further down and right MS shows the ground than a grid says, by the place on that grid."""

    order: int
    rows: tuple[float, ...]
    """MS pixels: coefficients of the products of Legendre polynomials, see :func:`_terms`."""
    cols: tuple[float, ...]
    """See ``rows``."""
    area: tuple[float, float, float, float]
    """First and last row, first and last column that the polynomials' -1 and 1 stand for; beyond, the border's shift
    goes on."""
    bounds: tuple[tuple[float, float], tuple[float, float]]
    """Least and largest shift of rows and of columns, MS pixels."""

    def at(self, rows: Array, cols: Array) -> tuple[Array, Array]:
        """Return the shift of rows and of columns, MS pixels, float64.

        Args:
            rows: MS coordinates, of any shape; a column (h, 1) and a row (1, w) give an image.
            cols: see ``rows``.
        """
        down = _legendre(rows, *self.area[:2], self.order)
        across = _legendre(cols, *self.area[2:], self.order)
        found = []
        for coefficients, (low, high) in zip((self.rows, self.cols), self.bounds, strict=True):
            total = np.zeros(np.broadcast_shapes(np.shape(rows), np.shape(cols)))
            for i, first in enumerate(down):
                along = np.zeros(np.shape(cols))
                for value, (row_order, col_order) in zip(coefficients, _terms(self.order), strict=True):
                    if row_order == i and value:
                        along = along + value * across[col_order]
                total += first * along
            found.append(np.clip(total, low, high))
        return found[0], found[1]

    def extremes(self) -> tuple[tuple[float, float], tuple[float, float]]:
        """Return the least and the largest shift of rows and of columns over the area, MS pixels."""
        rows, cols = (np.linspace(*ends, _LATTICE) for ends in (self.area[:2], self.area[2:]))
        down, across = self.at(rows[:, None], cols[None])
        return (float(down.min()), float(down.max())), (float(across.min()), float(across.max()))

    def rms(self) -> float:
        """Return the root mean square of the shift's length over the area, MS pixels."""
        rows, cols = (np.linspace(*ends, _LATTICE) for ends in (self.area[:2], self.area[2:]))
        down, across = self.at(rows[:, None], cols[None])
        return float(np.sqrt(np.mean(down**2 + across**2)))

    def inset(self, shape: tuple[int, int]) -> tuple[tuple[int, int], tuple[int, int]]:
        """Return how many rows, first and last, and how many columns show ground that an image of ``shape`` lacks."""
        rows, cols = (np.arange(-1, size + 1, dtype=float) for size in shape)
        found = []
        for axis, size in enumerate(shape):
            ends = []
            for border, sign in ((-1.0, -1.0), (float(size), 1.0)):
                cut = 0.0
                for _ in range(3):  # the shift where the cut is, not at the border; it changes slowly
                    line = np.array([border - sign * cut])
                    places = (line[:, None], cols[None]) if axis == 0 else (rows[:, None], line[None])
                    cut = max(0.0, float((sign * self.at(*places)[axis]).max()))
                ends.append(int(np.ceil(cut - 1e-6)))
            found.append((ends[0], ends[1]))
        return found[0], found[1]

    def less(self, shift: tuple[float, float]) -> "ShiftField":
        """Return what is left of it where ``shift`` is known besides."""
        first = (round(values[0] - by, _DIGITS) for values, by in zip((self.rows, self.cols), shift, strict=True))
        rows, cols = ((value, *rest[1:]) for value, rest in zip(first, (self.rows, self.cols), strict=True))
        low, high = ((ends[0] - by, ends[1] - by) for ends, by in zip(self.bounds, shift, strict=True))
        return replace(self, rows=rows, cols=cols, bounds=(_rounded(low), _rounded(high)))

    def say(self, shift: tuple[float, float] = (0.0, 0.0)) -> str:
        """Return its range for people, MS pixels, ``shift`` added."""
        (top, bottom), (left, right) = self.extremes()
        return (
            f"rows {top + shift[0]:+.2f} to {bottom + shift[0]:+.2f}, "
            f"columns {left + shift[1]:+.2f} to {right + shift[1]:+.2f}"
        )

    def __str__(self) -> str:
        """Return its range for people, MS pixels."""
        return self.say()


@dataclass(frozen=True)
class Fit:
    """A field through measured places."""

    field: ShiftField
    agreeing: Array
    """(n,) bool, the places that it follows."""
    rms: float
    """Length of what it leaves at these, root mean square, MS pixels."""
    varies: float
    """How far it varies between these along an axis, MS pixels."""
    better: bool
    """Whether it predicts places left out much better than one shift for all does."""

    @property
    def reliable(self) -> bool:
        """Whether the shift varies, beyond doubt."""
        count = int(self.agreeing.sum())
        enough = count >= _FEWEST and 3 * count >= 2 * len(self.agreeing)
        return enough and self.better and self.varies > VARIES and self.rms <= _LOOSE


def fit_field(places: Array, shifts: Array, weights: Array, shape: tuple[int, int]) -> Fit | None:
    """Lay the smoothest surface through measured shifts that explains them; outliers do not bend it.

    Args:
        places: (n, 2) MS rows and columns.
        shifts: (n, 2) MS pixels.
        weights: (n,) how much each tells.
        shape: (height, width) of the MS image.

    Returns:
        The field, of order 1 at least; None where there are too few places for one.
    """
    if len(places) < _FEWEST:
        return None
    area = (-0.5, shape[0] - 0.5, -0.5, shape[1] - 0.5)
    trusted = np.clip(weights / np.median(weights), 0.25, 4.0)
    steps = [_steps(axis) for axis in places.T]
    tried = []
    for order in range(_ORDER + 1):
        terms = [number for number, pair in enumerate(_terms(order)) if pair[0] < steps[0] and pair[1] < steps[1]]
        if order and (len(places) < _PER_TERM * len(terms) or order >= max(steps)):
            break
        solved = _solve(_design(places, area, order)[:, terms], [_terms(order)[one] for one in terms], shifts, trusted)
        tried.append((order, terms, *solved))
    if len(tried) < 2:
        return None
    scores = [each[-1] for each in tried]
    best = next(number for number in range(1, len(tried)) if scores[number] <= _SIMPLER * min(scores[1:]))
    order, terms, found, kept, score = tried[best]
    coefficients = np.zeros((len(_terms(order)), 2))
    coefficients[terms] = found
    inside = shifts[kept] if kept.any() else shifts
    bounds = [(low - room, high + room) for low, high, room in _room(inside)]
    rows, cols = (tuple(round(float(value), _DIGITS) for value in axis) for axis in coefficients.T)
    field = ShiftField(order, rows, cols, area, (_rounded(bounds[0]), _rounded(bounds[1])))
    there = np.stack(field.at(places[kept, 0], places[kept, 1]), 1) if kept.any() else np.zeros((1, 2))
    left = inside - there if kept.any() else inside
    rms = float(np.sqrt((left**2).sum(1).mean()))
    return Fit(field, kept, rms, float(np.ptp(there, axis=0).max()), score <= _BETTER * scores[0])


def _terms(order: int) -> list[tuple[int, int]]:
    """Return the orders of rows and columns of a polynomial's terms, the constant first."""
    return [(total - col, col) for total in range(order + 1) for col in range(total + 1)]


def _legendre(at: Array, low: float, high: float, order: int) -> list[Array]:
    """Return Legendre polynomials 0 to ``order`` of coordinates, between -1 and 1 from ``low`` to ``high``."""
    x = np.clip((2 * np.asarray(at, np.float64) - (low + high)) / (high - low), -1, 1)
    found = [np.ones_like(x), x]
    for n in range(1, order):
        found.append(((2 * n + 1) * x * found[n] - n * found[n - 1]) / (n + 1))
    return found[: order + 1]


def _design(places: Array, area: tuple[float, float, float, float], order: int) -> Array:
    down, across = _legendre(places[:, 0], *area[:2], order), _legendre(places[:, 1], *area[2:], order)
    return np.stack([down[row] * across[col] for row, col in _terms(order)], 1)


def _solve(
    design: Array, terms: Sequence[tuple[int, int]], shifts: Array, trusted: Array
) -> tuple[Array, Array, float]:
    """Fit terms robustly: coefficients (terms, 2), who agrees (n,) bool, the mean squared error of places left out."""
    penalty = _RIDGE * trusted.sum() * np.diag([float(row + col) ** 2 for row, col in terms])
    weights, away, scale = trusted, np.zeros(len(shifts)), 1.0
    found: Any = None
    for turn in range(30):
        normal = (design * weights[:, None]).T @ design + penalty
        inverse = np.linalg.pinv(normal, hermitian=True)
        found = inverse @ (design * weights[:, None]).T @ shifts
        away = np.hypot(*(shifts - design @ found).T)
        # of the length of two normal errors the median is 1.18 deviations
        scale = max(_SCALE, float(np.median(away)) / 1.18)
        before = weights
        # sums of lengths first, which outliers hardly move, then Tukey's weights, which leave them out
        robust = (
            1 / np.maximum(away / scale, 1) if turn < 10 else np.clip(1 - (away / (_TUKEY * scale)) ** 2, 0, 1) ** 2
        )
        weights = trusted * robust
        if turn > 10 and np.abs(weights - before).max() < 1e-6:
            break
    leverage = np.einsum("ij,jk,ik->i", design, inverse, design) * before
    left_out = away / np.maximum(1 - leverage, 0.05)
    score = _SMALL**2 + float((trusted * np.minimum(left_out, _CAP) ** 2).sum() / trusted.sum())
    return np.asarray(found), away <= _TUKEY * scale, score


def _steps(values: Array) -> int:
    """Count places along an axis that lie apart."""
    return 1 + int((np.diff(np.sort(values)) > _APART).sum())


def _room(shifts: Array) -> list[tuple[float, float, float]]:
    """Return the least and the largest shift along each axis, and how far a field may go beyond them."""
    low, high = shifts.min(0), shifts.max(0)
    room = np.maximum(0.25, high - low)  # windows end before a small scene does
    return [(float(a), float(b), float(c)) for a, b, c in zip(low, high, room, strict=True)]


def _rounded(ends: tuple[float, float]) -> tuple[float, float]:
    return round(ends[0], _DIGITS), round(ends[1], _DIGITS)
