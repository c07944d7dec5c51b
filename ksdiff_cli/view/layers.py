"""One layer: an image of the place, its bands and their names, its pixels at any reduction, what is kept of them."""

import threading
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np

from ksdiff_cli.numerics import Array
from ksdiff_cli.numerics.boxes import Box
from ksdiff_cli.view.grid import TILE, Place, Tile
from ksdiff_cli.view.reading import Reader, halve


class Cache:
    """Arrays by key; the one that was not asked for longest goes first when there is no more room."""

    def __init__(self, limit: int) -> None:
        """Keep ``limit`` bytes at most."""
        self.limit = limit
        self.size = 0
        """Bytes kept."""
        self._kept: OrderedDict[Hashable, Array] = OrderedDict()
        self._making: dict[Hashable, threading.Event] = {}
        self._lock = threading.Lock()

    def get(self, key: Hashable, make: Callable[[], Array]) -> Array:
        """Return what is kept under a key, or make it; whoever asks meanwhile waits for that.

        What ``make`` asks of this cache in turn must not lead back to ``key``.
        """
        while True:
            with self._lock:
                if key in self._kept:
                    self._kept.move_to_end(key)
                    return self._kept[key]
                other = self._making.get(key)
                if other is None:
                    self._making[key] = done = threading.Event()
                    break
            other.wait()
        try:
            made = make()
            self._keep(key, made)
            return made
        finally:
            with self._lock:
                del self._making[key]
            done.set()

    def __contains__(self, key: Hashable) -> bool:
        """Say whether something is kept under a key."""
        with self._lock:
            return key in self._kept

    def _keep(self, key: Hashable, made: Array) -> None:
        if made.nbytes > self.limit:
            return
        with self._lock:
            self._kept[key] = made
            self.size += made.nbytes
            while self.size > self.limit:
                _, oldest = self._kept.popitem(last=False)
                self.size -= oldest.nbytes


Kind = Literal["pan", "image", "map"]

PIECE = 256
"""Side of what is read and kept at a time, reduced pixels."""
_DIRECT = 8  # factor up to which a piece is read at once; coarser ones are made of four finer ones


@dataclass(frozen=True)
class About:
    """What the page says of a layer."""

    name: str
    kind: Kind
    bands: tuple[str, ...]
    """Names, "" where a band has none."""
    dtype: str
    wavelengths: tuple[float, ...] = ()
    """Middle of each band, nm; empty where unknown."""
    unit: str = "DN"
    note: str = ""
    """What else a person should know."""
    path: str = ""
    """The file, for people; empty for what is made while it is looked at."""


class Layer(ABC):
    """Pixels on a grid of their own, which lies on the common one at ``place``."""

    def __init__(self, about: About, shape: tuple[int, int], place: Place, cache: Cache) -> None:
        """Describe it.

        Args:
            about: see :class:`About`.
            shape: (height, width), pixels.
            place: on the common grid.
            cache: shared by all layers.
        """
        self.about, self.shape, self.place, self.cache = about, shape, place, cache

    def look(self, bands: Sequence[int], tile: Tile) -> Array:
        """Return a tile, each screen pixel the layer's nearest one at that reduction.

        Args:
            bands: numbers from 0.
            tile: which.

        Returns:
            (bands, TILE, TILE) float32, NaN without data.
        """
        factor = self.place.factor(tile.level)
        out = np.full((len(bands), TILE, TILE), np.nan, np.float32)
        inside, wanted = [], []
        for line, at, size in zip((self.place.rows, self.place.cols), tile.centres(), self.shape, strict=True):
            index = line.index(at, factor)
            ours = np.flatnonzero((index >= 0) & (index < -(-size // factor)))
            if not ours.size:
                return out
            inside.append(ours)
            wanted.append(index[ours])
        box = Box(wanted[0].min(), wanted[1].min(), wanted[0].max() + 1, wanted[1].max() + 1)
        found = self.region(bands, box, factor)
        out[:, inside[0][:, None], inside[1]] = found[:, (wanted[0] - box.top)[:, None], wanted[1] - box.left]
        return out

    def region(self, bands: Sequence[int], box: Box, factor: int = 1) -> Array:
        """Return reduced pixels, (bands, height, width) float32, put together from pieces; ``box`` lies inside."""
        out = np.empty((len(bands), box.height, box.width), np.float32)
        for row in range(box.top // PIECE, (box.bottom - 1) // PIECE + 1):
            for col in range(box.left // PIECE, (box.right - 1) // PIECE + 1):
                part = Box(row * PIECE, col * PIECE, (row + 1) * PIECE, (col + 1) * PIECE)
                shared = part.meet(box)
                piece = self.piece(tuple(bands), factor, row, col)
                out[:, *shared.within(box)] = piece[:, *shared.within(part)]
        return out

    def piece(self, bands: tuple[int, ...], factor: int, row: int, col: int) -> Array:
        """Return a piece by its number, (bands, h, w) float32; those at the lower and right border are smaller."""
        key = id(self), bands, factor, row, col
        return self.cache.get(key, lambda: self._make(bands, self._box(factor, row, col), factor))

    def _box(self, factor: int, row: int, col: int) -> Box:
        part = Box(row * PIECE, col * PIECE, (row + 1) * PIECE, (col + 1) * PIECE)
        return part.meet(Box(0, 0, *(-(-size // factor) for size in self.shape)))

    def _halved(self, bands: tuple[int, ...], box: Box, factor: int) -> Array:
        """Make a piece of the four that are twice as fine."""
        half = factor // 2
        whole = Box(0, 0, *(-(-size // half) for size in self.shape))
        finer = Box(2 * box.top, 2 * box.left, 2 * box.bottom, 2 * box.right).meet(whole)
        return halve(self.region(bands, finer, half), 2)

    @abstractmethod
    def _make(self, bands: tuple[int, ...], box: Box, factor: int) -> Array:
        """Read or compute a piece."""

    @abstractmethod
    def values(self, row: int, col: int) -> list[float | int] | None:
        """Return the values of all bands in a pixel, as they are stored; None where there are none."""


class FileLayer(Layer):
    """A layer from files."""

    def __init__(self, about: About, shape: tuple[int, int], place: Place, cache: Cache, reader: Reader) -> None:
        """See :class:`Layer`; ``reader`` reads the files."""
        super().__init__(about, shape, place, cache)
        self.reader = reader

    def _make(self, bands: tuple[int, ...], box: Box, factor: int) -> Array:
        if factor == 1 or factor in self.reader.overviews:
            return self.reader.read(bands, box, factor)
        # what is coarser than an overview, or than what is read at once, comes from what is half as coarse
        if factor > _DIRECT or any(finer < factor for finer in self.reader.overviews):
            return self._halved(bands, box, factor)
        return self.reader.means(bands, box, factor, self.shape)

    def values(self, row: int, col: int) -> list[float | int] | None:
        """See :class:`Layer`."""
        stored, valid = self.reader.stored(range(len(self.about.bands)), Box(row, col, row + 1, col + 1))
        return [band.item() for band in stored] if valid.all() else None


class Windows(Protocol):
    """Whoever sharpens windows of a scene."""

    def window(self, box: Box) -> Array:
        """Make (bands, h, w) float32 of all bands for a box of pixels, NaN without data."""

    def ready(self, box: Box) -> bool:
        """Say whether that is made already."""


class Made(Layer):
    """A layer that is sharpened window by window, as it is looked at; by one thread."""

    MOST_REDUCED = 2
    """Reduction up to which it is made; coarser tiles show ``stand_in``."""

    def __init__(
        self, about: About, shape: tuple[int, int], place: Place, cache: Cache, windows: Windows, stand_in: Layer
    ) -> None:
        """See :class:`Layer`.

        Args:
            about: see there.
            shape: see there.
            place: see there.
            cache: see there.
            windows: who makes it.
            stand_in: what is shown where too much would have to be made, of the same bands.
        """
        super().__init__(about, shape, place, cache)
        self.windows, self.stand_in = windows, stand_in

    def look(self, bands: Sequence[int], tile: Tile) -> Array:
        """See :class:`Layer`; where too much would have to be made, the stand-in."""
        if self.place.factor(tile.level) > self.MOST_REDUCED:
            return self.stand_in.look(bands, tile)
        return super().look(bands, tile)

    def _make(self, bands: tuple[int, ...], box: Box, factor: int) -> Array:
        if factor > 1:
            return self._halved(bands, box, factor)
        return np.ascontiguousarray(self.windows.window(box)[list(bands)])

    def values(self, row: int, col: int) -> list[float | int] | None:
        """See :class:`Layer`; None where it is not made yet."""
        pixel = Box(row, col, row + 1, col + 1)
        if not self.windows.ready(pixel):
            return None
        found = self.windows.window(pixel)[:, 0, 0].astype(np.float64)
        return None if np.isnan(found).any() else found.tolist()
