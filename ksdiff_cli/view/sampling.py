"""Values spread over a layer, from which the stretch and the limits of colours are taken."""

import threading
from collections.abc import Sequence
from itertools import islice

import numpy as np

from ksdiff_cli.fusers.anchors import spread_windows
from ksdiff_cli.numerics import Array
from ksdiff_cli.numerics.boxes import Box
from ksdiff_cli.view.grid import TILE, Grid, Tile
from ksdiff_cli.view.layers import FileLayer, Layer

_WINDOWS, _SIDE = 24, 256  # looked at, and their side in the layer's pixels
_TILES = 16  # looked at, of a view
_MOST = 1 << 18  # values kept of a band


class Samples:
    """Values of layers, gathered when they are first asked for."""

    def __init__(self, grid: Grid) -> None:
        """Start without any."""
        self._grid = grid
        self._kept: dict[tuple[int, tuple[int, ...]], Array] = {}
        self._lock = threading.Lock()

    def of(self, layer: FileLayer, bands: Sequence[int]) -> Array:
        """Return (bands, n) float32 valid values from windows spread over a layer."""
        key = id(layer), tuple(bands)
        with self._lock:
            if key not in self._kept:
                self._kept[key] = self._gather(layer, key[1])
            return self._kept[key]

    def view(self, layer: Layer, bands: Sequence[int], level: int, box: Box) -> Array:
        """Return (bands, n) float32 valid values of what is seen: a box of tiles' numbers at a level."""
        return _thinned([layer.look(bands, tile) for tile in self._seen(level, box)], len(bands))

    def differences(
        self,
        first: Layer,
        second: Layer,
        pairs: tuple[Sequence[int], Sequence[int]],
        view: tuple[int, Box] | None = None,
    ) -> Array:
        """Return (n,) differences between the means of bands of two layers, from tiles spread over the place.

        Args:
            first: what is looked at.
            second: what is taken away.
            pairs: the bands of each.
            view: a level and a box of tiles' numbers; only those count then.
        """
        found = []
        for tile in self._seen(*view) if view else self._spread():
            found.append((first.look(pairs[0], tile).mean(0) - second.look(pairs[1], tile).mean(0))[None])
        return np.asarray(_thinned(found, 1)[0])

    def _seen(self, level: int, box: Box) -> list[Tile]:
        """Return some of the tiles of a view."""
        step = max(1, -(-max(box.height, box.width) // 4))
        tiles = [
            Tile(level, row, col)
            for row in range(box.top, box.bottom, step)
            for col in range(box.left, box.right, step)
        ]
        return [tile for tile in tiles if self._grid.holds(tile)]

    def _spread(self) -> list[Tile]:
        """Return tiles spread over the place that show a pixel as a pixel."""
        windows = spread_windows((self._grid.height, self._grid.width), TILE, TILE)
        return [Tile(0, row // TILE, col // TILE) for row, col, _, _ in islice(windows, _TILES)]

    def _gather(self, layer: FileLayer, bands: tuple[int, ...]) -> Array:
        found = [
            layer.reader.read(bands, Box(row, col, row + height, col + width))
            for row, col, height, width in islice(spread_windows(layer.shape, _SIDE), _WINDOWS)
        ]
        return _thinned(found, len(bands))


def _thinned(found: Sequence[Array], bands: int) -> Array:
    """Return the valid values of (bands, h, w) arrays, (bands, n), about evenly thinned."""
    flat = np.concatenate([one.reshape(bands, -1) for one in found], 1) if found else np.empty((bands, 0), np.float32)
    flat = flat[:, ~np.isnan(flat[0])]
    return np.ascontiguousarray(flat[:, :: -(-max(1, flat.shape[1]) // _MOST)])


def percentiles(values: Array, low: float, high: float) -> tuple[list[float], list[float]]:
    """Return both percentiles of each band of (bands, n); 0 and 1 without values, apart by 1 where they are one."""
    if not values.shape[1]:
        return [0.0] * len(values), [1.0] * len(values)
    lows, highs = np.percentile(values.astype(np.float64), (low, high), axis=1)
    highs = np.where(highs > lows, highs, lows + np.maximum(1.0, np.abs(lows) * 1e-6))
    return lows.tolist(), highs.tolist()
