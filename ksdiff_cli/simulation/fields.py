"""Random fields of the simulated world: every value is a function of (key, world position), never of a block.

Coordinates come either as a pixel grid, ``y`` of shape (H, 1) with ``x`` of shape (1, W), or as point sets of equal
shape. Only +, -, ×, ÷, floor and table look-ups touch pixels, so that a value is the same bit for bit in any block.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float32]
Int = NDArray[np.integer[Any]]

_U32 = 0xFFFFFFFF
_BYTES_STD = (4 * (256**2 - 1) / 12) ** 0.5
"""Standard deviation of the sum of four random bytes."""
_SPLINE_GAIN = 2.087
"""Lattice noise through a bicubic B-spline loses this factor of standard deviation."""


def derive(key: int, *salt: int) -> int:
    """Return a new 32 bit key from a key and any integers."""
    value = key & _U32
    for number in salt:
        value = (value ^ (number & _U32)) * 0x9E3779B1 & _U32
        value ^= value >> 15
        value = value * 0x85EBCA77 & _U32
        value ^= value >> 13
    return value


def hash_at(key: int, y: Int, x: Int) -> NDArray[np.uint32]:
    """Return 32 hashed bits for integer positions (broadcast together)."""
    with np.errstate(over="ignore"):  # numpy warns of the wanted overflow, but only where it meets single numbers
        row = _mix(np.asarray(y & _U32).astype(np.uint32) * np.uint32(0x9E3779B1) + np.uint32(key & _U32))
        return _mix(row + np.asarray(x & _U32).astype(np.uint32) * np.uint32(0x85EBCA77))


def _mix(bits: NDArray[np.uint32]) -> NDArray[np.uint32]:
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
        bits = (bits ^ (bits >> np.uint32(shift))) * np.uint32(factor)
    mixed: NDArray[np.uint32] = bits ^ (bits >> np.uint32(16))
    return mixed


def uniform_at(key: int, y: Int, x: Int) -> Float:
    """Return hashed uniform numbers in [0, 1)."""
    return (hash_at(key, y, x) >> np.uint32(8)).astype(np.float32) * np.float32(2.0**-24)


def normal_at(key: int, y: Int, x: Int) -> Float:
    """Return hashed numbers of mean 0 and variance 1, within ±3.45: the sum of the hash's four bytes."""
    bits = hash_at(key, y, x)
    # Adding neighbouring bytes in parallel halves the work of taking them out one by one.
    pairs = (bits & np.uint32(0x00FF00FF)) + ((bits >> np.uint32(8)) & np.uint32(0x00FF00FF))
    total = (pairs & np.uint32(0xFFFF)) + (pairs >> np.uint32(16))
    return (total.astype(np.float32) - np.float32(510)) * np.float32(1 / _BYTES_STD)


def unit(key: Int, salt: int) -> Float:
    """Return a number in [0, 1) per hash and salt."""
    return uniform_at(0x51ED270B + salt * 0x3C6EF372, np.asarray(key), np.array(salt))


def _weights(t: Float) -> tuple[Float, ...]:
    """Return the four cubic B-spline weights for fractions t in [0, 1)."""
    s = np.float32(1) - t
    sixth = np.float32(1 / 6)
    return (s * s * s * sixth, (4 + 3 * t * t * (t - 2)) * sixth, (4 + 3 * s * s * (s - 2)) * sixth, t * t * t * sixth)


def _split(coordinate: Float, cell: float) -> tuple[Int, Float]:
    scaled = coordinate * np.float32(1 / cell)
    whole = np.floor(scaled)
    return whole.astype(np.int64), (scaled - whole).astype(np.float32)


def smooth_noise(key: int, y: Float, x: Float, cell: float) -> Float:
    """Return smooth noise (mean 0, variance about 1) whose features are about ``cell`` pixels wide.

    Args:
        key: 32 bit key of the field.
        y: rows, (H, 1) for a grid or any shape for points; float32 pixels.
        x: columns, (1, W) for a grid or y's shape for points.
        cell: lattice spacing in pixels.

    Returns:
        The field at the positions, twice continuously differentiable.
    """
    iy, ty = _split(y, cell)
    ix, tx = _split(x, cell)
    if y.ndim != 2 or y.shape[1] != 1 or x.shape[0] != 1:
        out = np.zeros(np.broadcast_shapes(y.shape, x.shape), np.float32)
        for a, wy in enumerate(_weights(ty)):
            for b, wx in enumerate(_weights(tx)):
                out += wy * wx * normal_at(key, iy + (a - 1), ix + (b - 1))
        return out * np.float32(_SPLINE_GAIN)
    y0, x0 = int(iy.min()) - 1, int(ix.min()) - 1
    rows, columns = np.arange(y0, int(iy.max()) + 3), np.arange(x0, int(ix.max()) + 3)
    lattice = normal_at(key, rows[:, None], columns[None, :])
    first, left = iy[:, 0] - y0 - 1, ix[0] - x0 - 1
    # Columns first, while the lattice is small; taking whole rows is then a plain copy.
    strip = np.zeros((lattice.shape[0], len(left)), np.float32)
    for b, wx in enumerate(_weights(tx)):
        strip += np.take(lattice, left + b, axis=1) * wx
    field = np.zeros((len(first), len(left)), np.float32)
    for a, wy in enumerate(_weights(ty)):
        field += strip[first + a] * (wy * np.float32(_SPLINE_GAIN))
    return field


def fractal(key: int, y: Float, x: Float, cell: float, octaves: int, persistence: float = 0.5) -> Float:
    """Return a sum of ``octaves`` of :func:`smooth_noise`, each half as wide and ``persistence`` as strong."""
    total = smooth_noise(key, y, x, cell)
    power, amplitude = 1.0, 1.0
    for octave in range(1, octaves):
        amplitude *= persistence
        power += amplitude**2
        total += smooth_noise(derive(key, octave), y, x, cell / 2**octave) * np.float32(amplitude)
    total *= np.float32(power**-0.5)
    return total


def line_distance(key: int, y: Float, x: Float, cell: float, level: float = 0.0) -> Float:
    """Return about how many pixels away the curve ``noise == level`` is: winding lines for rivers and highways."""
    here = smooth_noise(key, y, x, cell) - np.float32(level)
    step = cell / 16
    down = smooth_noise(key, y + np.float32(step), x, cell) - np.float32(level) - here
    right = smooth_noise(key, y, x + np.float32(step), cell) - np.float32(level) - here
    # The floor keeps flat spots of the noise from looking like wide lakes of line.
    slope = np.sqrt(down * down + right * right) * np.float32(1 / step) + np.float32(0.15 / cell)
    distance: Float = np.abs(here) / slope
    return distance


@dataclass(frozen=True)
class Cells:
    """Irregular polygons (Voronoi cells of a jittered lattice) at some positions."""

    row: Int
    """Lattice row of each position's polygon."""
    column: Int
    """Lattice column of each position's polygon."""
    other_row: Int
    """Lattice row of the neighbour across the nearest border."""
    other_column: Int
    """Lattice column of that neighbour."""
    border: Float
    """Distance to the nearest border, pixels."""


def cells_at(key: int, y: Float, x: Float, cell: float) -> Cells:
    """Return the polygons at positions; ``cell`` is their mean width in pixels. Shapes as in :func:`smooth_noise`."""
    shape = np.broadcast_shapes(y.shape, x.shape)
    iy, ix = np.floor(y / np.float32(cell)).astype(np.int64), np.floor(x / np.float32(cell)).astype(np.int64)
    y0, x0 = int(iy.min()) - 1, int(ix.min()) - 1
    site_y, site_x = sites(key, np.arange(y0, int(iy.max()) + 2), np.arange(x0, int(ix.max()) + 2), cell)
    best = np.full(shape, np.inf, np.float32)
    second = best.copy()
    which, other = np.zeros(shape, np.int8), np.zeros(shape, np.int8)
    for k in range(9):
        a, b = iy - y0 + (k // 3 - 1), ix - x0 + (k % 3 - 1)
        dy, dx = y - _look(site_y, a, b), x - _look(site_x, a, b)
        d = dy * dy + dx * dx
        nearer, runner_up = d < best, d < second
        other = np.where(nearer, which, np.where(runner_up, np.int8(k), other))
        second = np.where(nearer, best, np.where(runner_up, d, second))
        which[nearer] = k
        best = np.minimum(best, d)
    row, column = iy + (which // 3 - 1), ix + (which % 3 - 1)
    other_row, other_column = iy + (other // 3 - 1), ix + (other % 3 - 1)
    apart_y = site_y[row - y0, column - x0] - site_y[other_row - y0, other_column - x0]
    apart_x = site_x[row - y0, column - x0] - site_x[other_row - y0, other_column - x0]
    border = (second - best) / (2 * np.sqrt(apart_y * apart_y + apart_x * apart_x) + np.float32(1e-6))
    return Cells(row, column, other_row, other_column, border)


def sites(key: int, rows: Int, columns: Int, cell: float) -> tuple[Float, Float]:
    """Return the (y, x) centres of the polygons of some lattice rows and columns, each (rows, columns), in pixels."""
    a, b = rows[:, None], columns[None, :]
    site_y = ((a + np.float32(0.15)) + np.float32(0.7) * uniform_at(derive(key, 1), a, b)) * cell
    site_x = ((b + np.float32(0.15)) + np.float32(0.7) * uniform_at(derive(key, 2), a, b)) * cell
    return site_y.astype(np.float32), site_x.astype(np.float32)


def _look(table: Float, row: Int, column: Int) -> Float:
    """Index a table by a grid or by points; taking columns, then rows, is several times faster on a grid."""
    if row.ndim == 2 and row.shape[1] == 1 and column.shape[0] == 1:
        return np.asarray(np.take(table, column[0], axis=1)[row[:, 0]], np.float32)
    looked: Float = table[row, column]
    return looked


def cut(along: Float, size: Float, key: Int) -> tuple[Int, Float, Float]:
    """Cut a line in pieces of unequal length: pairs of pieces of mean length ``size``, cut at a hashed place.

    Returns:
        The piece's number, the distance from its start, its length.
    """
    pair = along / (2 * size)
    number = np.floor(pair)
    inside = (pair - number) * (2 * size)
    whole = number.astype(np.int64)
    first = size * (np.float32(0.55) + np.float32(0.9) * unit(hash_at(0x2545F491, key, whole), 9))
    second = inside >= first
    start = np.where(second, inside - first, inside)
    length = np.where(second, 2 * size - first, first)
    return whole * 2 + second, start.astype(np.float32), length.astype(np.float32)
