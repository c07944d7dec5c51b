"""The pixel grid that all layers are shown on, and where a layer's pixels lie on it (no I/O)."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from rasterio.transform import Affine

from ksdiff_cli.numerics import Array

TILE = 256
"""Side of a tile, screen pixels."""
FINEST = -3
"""Finest level: 8 screen pixels a pixel of the grid."""
_EDGE = 1e-6  # pixels by which a centre on a border counts as beyond it: all tiles choose alike


@dataclass(frozen=True)
class Line:
    """The map from the grid to a layer's pixels along one axis, from corner to corner: ``own = scale * grid + start``.

    Coordinates are in pixels, 0 at the outer corner of the first one.
    """

    scale: float = 1.0
    start: float = 0.0

    def index(self, at: Array, factor: int = 1) -> Array:
        """Return the layer's pixels, reduced ``factor`` times, that hold these coordinates of the grid."""
        return np.floor((self.scale * at + self.start) / factor + _EDGE).astype(np.int64)


@dataclass(frozen=True)
class Place:
    """Where a layer lies on the grid."""

    rows: Line = Line()
    cols: Line = Line()

    def factor(self, level: int) -> int:
        """Return how many times a layer is reduced, a power of two, for a level of tiles."""
        per_pixel = 2.0**level * min(abs(self.rows.scale), abs(self.cols.scale))
        return int(2 ** max(0, math.floor(math.log2(per_pixel) + 1e-3)))

    @classmethod
    def between(cls, grid: Affine, own: Affine) -> "Place":
        """Return the place of a layer that runs along the grid, from both geotransforms."""
        away = ~own @ grid
        return cls(Line(away.e, away.f), Line(away.a, away.c))


@dataclass(frozen=True)
class Tile:
    """One square of the screen at one level: each of its pixels is ``2**level`` pixels of the grid wide."""

    level: int
    row: int
    col: int

    def centres(self) -> tuple[Array, Array]:
        """Return the coordinates on the grid of its pixels' centres, along rows and along columns."""
        steps = np.arange(TILE) + 0.5
        rows, cols = ((number * TILE + steps) * 2.0**self.level for number in (self.row, self.col))
        return rows, cols


@dataclass(frozen=True)
class Grid:
    """The grid of the finest layer."""

    height: int
    width: int
    transform: Affine | None = None
    """From its columns and rows to coordinates; None without georeference."""
    crs: Any = None
    metres: float | None = None
    """Width of a pixel on the ground; None where nothing tells it."""

    @property
    def coarsest(self) -> int:
        """The level at which all of it lies in one tile."""
        return max(0, math.ceil(math.log2(max(self.height, self.width) / TILE)))

    def holds(self, tile: Tile) -> bool:
        """Say whether there is such a tile."""
        if not FINEST <= tile.level <= self.coarsest:
            return False
        step = TILE * 2.0**tile.level
        return 0 <= tile.row < math.ceil(self.height / step) and 0 <= tile.col < math.ceil(self.width / step)
