"""The parts of a scene in which its cameras are sought, and PAN seen there through Gaussians of many widths.

A Gaussian after a Gaussian is a Gaussian, so each camera of :mod:`ksdiff_cli.numerics.camera` is a sum of two of them,
and PAN through any of them follows from PAN through a few: what a scene says of all cameras is in the joint moments of
its MS bands and of these few layers.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import numpy as np

from ksdiff_cli.numerics import Array
from ksdiff_cli.numerics.boxes import Box
from ksdiff_cli.numerics.grids import Axis, GridMap

Shift = tuple[float, float]

SOFTENING = 0.8
"""Deviation of the Gaussian that compensation takes away, MS pixels."""
SOFTEST, SHARPEST = 0.01, 0.75
"""Gains at the MS Nyquist frequency between which a camera is sought."""
FARTHEST = 1.5
"""Largest shift that is looked for, MS pixels."""
SIDE = 64
"""Side of a view, MS pixels; see :func:`view_boxes`."""

_LEAST, _MOST_PAN = 24, 512  # its least side, MS pixels, where it would be longer than so many PAN pixels
_CELLS = 6  # views along a side of the scene, at most
_LAYERS = 10  # Gaussians from which all others follow to 1e-4 up to twice the MS Nyquist frequency
_HIGH = 3.0  # MS pixels; what varies more slowly than this Gaussian passes tells of colours, not of cameras
_PART = 16  # side of the parts whose moments are kept apart, MS pixels
_GROUPS = 24  # moments that are kept apart, at most
_TRACE = 1e-4  # of what a pixel sees may be invalid
_STEP = 0.05  # MS pixels to each side, of the differences that stand for a derivative


def deviation(gain: float) -> float:
    """Return the deviation in MS pixels of the Gaussian whose MTF is ``gain`` at the MS Nyquist frequency."""
    return math.sqrt(-2 * math.log(gain)) / math.pi


_LIMITS = 2 * math.log(deviation(SHARPEST)), math.log(deviation(SOFTEST) ** 2 + SOFTENING**2)
_NODES = sum(_LIMITS) / 2 - (_LIMITS[1] - _LIMITS[0]) / 2 * np.cos(np.pi * (np.arange(_LAYERS) + 0.5) / _LAYERS)
DEVIATIONS: tuple[float, ...] = tuple(np.exp(_NODES / 2))
"""Of the layers' Gaussians, MS pixels: Chebyshev's nodes of the logarithm."""
_BARYCENTRIC = np.array([1 / np.prod([node - other for other in _NODES if other != node]) for node in _NODES])


def mixture(variances: Array) -> Array:
    """Return the weights (n, layers) with which the layers add up to Gaussians of ``variances`` (n,), MS pixels²."""
    away = np.log(variances)[:, None] - _NODES
    away = np.where(away == 0, 1e-12, away)
    weights = _BARYCENTRIC / away
    return np.asarray(weights / weights.sum(1, keepdims=True))


@dataclass(frozen=True)
class View:
    """A part of a scene, held in memory to be looked at through several cameras."""

    pan: Array
    """(H, W) float32 DN, with a margin around MS; anything where it is invalid."""
    pan_valid: Array
    """(H, W) bool."""
    ms: Array
    """(bands, h, w) float32 DN; anything where it is invalid."""
    ms_valid: Array
    """(h, w) bool; clouds, which move, are not valid."""
    grid: GridMap
    """Pixels of ``pan`` -> pixels of ``ms``."""


def view_boxes(grid: GridMap, pan_shape: tuple[int, int], ms_shape: tuple[int, int]) -> list[tuple[Box, Box]]:
    """Lay views over the common area: all of a small scene, else 6 x 6 of 64 MS pixels that are spread evenly over it.

    Args:
        grid: from PAN pixels to MS pixels.
        pan_shape: (height, width) of PAN.
        ms_shape: (height, width) of MS.

    Returns:
        The MS pixels of each view and the PAN pixels under them with their margin, row by row.
    """
    rows, cols = (
        [(span, _under(axis, span, count)) for span in _spans(axis, count, size)]
        for axis, count, size in zip((grid.rows, grid.cols), pan_shape, ms_shape, strict=True)
    )
    return [
        (Box(high[0], wide[0], high[1], wide[1]), Box(over[0], across[0], over[1], across[1]))
        for high, over in rows
        for wide, across in cols
    ]


def _spans(axis: Axis, count: int, size: int) -> list[tuple[int, int]]:
    """Return the MS pixels [start, stop) of views along an axis."""
    ends = sorted((axis.to_ms(-0.5), axis.to_ms(count - 0.5)))
    first, stop = max(0, math.ceil(ends[0])), min(size, math.floor(ends[1]) + 1)
    length = stop - first
    if length <= 0:
        return []
    # where MS pixels are very large, fewer of them lie over as much PAN
    side = max(_LEAST, min(SIDE, round(_MOST_PAN * abs(axis.scale))))
    number = min(_CELLS, -(-length // side))
    if number * side >= length:  # they cover it
        edges = [first + length * index // number for index in range(number + 1)]
        return list(pairwise(edges))
    starts = [first + (length - side) * index // (number - 1) for index in range(number)]
    return [(start, start + side) for start in starts]


def _under(axis: Axis, span: tuple[int, int], count: int) -> tuple[int, int]:
    """Return the PAN pixels [start, stop) that MS pixels see through the softest camera, wherever they lie."""
    margin = 4 * DEVIATIONS[-1] + FARTHEST + 1
    ends = sorted((axis.to_pan(span[0] - margin), axis.to_pan(span[1] - 1 + margin)))
    return max(0, math.floor(ends[0])), min(count, math.ceil(ends[1]) + 1)


@dataclass(frozen=True)
class ProductSums:
    """Sums of products of a constant, the MS bands and the layers over groups of places, in that order."""

    raw: Array
    """(groups, 1 + bands + layers, the same), as the images are."""
    high: Array
    """The same without what varies slowly; there the constant is 1 as well."""


class Eye:
    """Looks at views: which pixels can be used, and what PAN shows there through a Gaussian."""

    def __init__(self, views: Sequence[View]) -> None:
        """Take the views of a scene; none of them may be without pixels."""
        self._views = views
        # large means would cost the moments their precision
        self.pan_mean = _mean([view.pan[view.pan_valid] for view in views])
        self.ms_mean = np.array(
            [_mean([view.ms[band][view.ms_valid] for view in views]) for band in range(len(views[0].ms))]
        )

    def shift_moments(self, shift: Shift, sigma: float) -> Array:
        """Return the sums of products of the MS bands, PAN through a Gaussian and its changes by a shift of MS.

        Args:
            shift: of MS, as in :class:`ksdiff_cli.numerics.camera.SceneCamera`.
            sigma: deviation of the Gaussian, MS pixels.

        Returns:
            (bands + 3, bands + 3), without what varies slowly; changes per MS pixel.
        """
        total: Array = np.zeros((len(self.ms_mean) + 3,) * 2)
        for pan, ms, valid, view in self._seen(shift):
            rows, cols = (
                [_matrix(axis, size, count, place + by, sigma) for by in (0.0, -_STEP, _STEP)]
                for axis, size, count, place in _axes(view, shift)
            )
            across = [pan @ matrix.T for matrix in cols]
            middle = rows[0] @ across[0]
            changes = [(rows[2] - rows[1]) @ across[0], rows[0] @ (across[2] - across[1])]
            planes = np.concatenate([ms, np.stack([middle, *(change / (2 * _STEP) for change in changes)])])
            samples = _without_slow(planes, valid)[:, valid].astype(np.float64)
            total += samples @ samples.T
        return total

    def moments(self, shift: Shift) -> ProductSums:
        """Return the moments of everything, MS being shifted by so many MS pixels."""
        layers = 1 + len(self.ms_mean) + _LAYERS
        parts = [math.prod(-(-size // _PART) for size in view.ms_valid.shape) for view in self._views]
        groups = min(_GROUPS, sum(parts))
        raw, high = np.zeros((groups, layers, layers)), np.zeros((groups, layers, layers))
        number = 0
        for pan, ms, valid, view in self._seen(shift):
            rows, cols = (
                np.stack([_matrix(axis, size, count, place, sigma) for sigma in DEVIATIONS])
                for axis, size, count, place in _axes(view, shift)
            )
            planes = np.concatenate([ms, np.matmul(rows @ pan, cols.transpose(0, 2, 1))])
            for into, images in ((raw, planes), (high, _without_slow(planes, valid))):
                for index, samples in enumerate(_parts(images, valid)):
                    into[(number + index) * groups // sum(parts)] += samples @ samples.T
            number += math.prod(-(-size // _PART) for size in valid.shape)
        return ProductSums(raw, high)

    def _seen(self, shift: Shift) -> Iterator[tuple[Array, Array, Array, View]]:
        """Go through the views: PAN and MS less their means, and the MS pixels that see valid ones only."""
        for view in self._views:
            pan = np.where(view.pan_valid, view.pan - np.float32(self.pan_mean), np.float32(0))
            valid = view.ms_valid.copy()
            matrices = []
            for number, (axis, size, count, place) in enumerate(_axes(view, shift)):
                at = axis.to_pan(np.arange(count) - place)
                reach = 4 * DEVIATIONS[-1] / abs(axis.scale)
                inside = (at - reach >= -0.5) & (at + reach <= size - 0.5)
                valid &= inside[:, None] if number == 0 else inside
                matrices.append(_matrix(axis, size, count, place, DEVIATIONS[-1]))
            if not view.pan_valid.all():
                valid &= matrices[0] @ (~view.pan_valid).astype(np.float32) @ matrices[1].T <= _TRACE
            ms = np.where(valid, view.ms - self.ms_mean.astype(np.float32)[:, None, None], np.float32(0))
            yield pan, ms, valid, view


def _mean(parts: Sequence[Array]) -> float:
    count = sum(part.size for part in parts)
    return sum(float(part.sum(dtype=np.float64)) for part in parts) / count if count else 0.0


def _axes(view: View, shift: Shift) -> list[tuple[Axis, int, int, float]]:
    """For each axis: the map, the pixels of PAN and of MS, and the shift."""
    axes = (view.grid.rows, view.grid.cols)
    return list(zip(axes, view.pan.shape, view.ms_valid.shape, shift, strict=True))


def _matrix(axis: Axis, size: int, count: int, shift: float, sigma: float) -> Array:
    """Return the (count, size) matrix that samples PAN through a Gaussian of ``sigma`` MS pixels, at shifted ones."""
    # most views lie alike on their PAN, but for rounding
    return _gaussian(round(axis.to_pan(-shift), 9), 1 / axis.scale, count, size, sigma / abs(axis.scale))


@lru_cache(maxsize=128)
def _gaussian(first: float, step: float, count: int, size: int, sigma: float) -> Array:
    """Return :func:`~.grids.gaussian_matrix` as a dense one, which is made faster; rows far off are 0."""
    away = (np.arange(size) - (first + step * np.arange(count)[:, None])) / sigma
    weights = np.exp(-0.5 * away * away)
    weights[np.abs(away) > 4] = 0
    return np.asarray(weights / np.maximum(weights.sum(1, keepdims=True), 1e-9), np.float32)


def _without_slow(planes: Array, valid: Array) -> Array:
    """Subtract from (n, h, w) the Gaussian mean of the valid pixels around; anything where invalid."""
    rows, cols = (_gaussian(0.0, 1.0, size, size, _HIGH) for size in valid.shape)
    known = valid.astype(np.float32)
    slow = (rows @ (planes * known)) @ cols.T
    return np.asarray(planes - slow / np.maximum(rows @ known @ cols.T, 1e-6))


def _parts(planes: Array, valid: Array) -> Iterator[Array]:
    """Cut (n, h, w) into parts and give for each the (1 + n, pixels) float64 of its valid ones, after a row of 1."""
    for top in range(0, valid.shape[0], _PART):
        for left in range(0, valid.shape[1], _PART):
            place = np.s_[top : top + _PART, left : left + _PART]
            samples = planes[:, *place][:, valid[place]]
            yield np.concatenate([np.ones((1, samples.shape[1])), samples])
