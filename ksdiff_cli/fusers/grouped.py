"""Several fusers side by side, one for each pair of a grouped scene: their bands together are one window's."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ksdiff_cli.fusers.base import Fuser
from ksdiff_cli.numerics import Array
from ksdiff_cli.numerics.boxes import Box
from ksdiff_cli.numerics.moments import SceneStatistics
from ksdiff_cli.progress import ProgressCallback, silent
from ksdiff_cli.raster.grouped import GroupedPair, GroupedStatistics
from ksdiff_cli.raster.pair import ScenePair
from ksdiff_cli.raster.tiles import Swath


@dataclass(frozen=True)
class Lane:
    """One pair of a grouped scene, and what sharpens it."""

    fuser: Fuser
    """Of its own: what it learns of its pair must not reach another one's."""
    bands: int
    """MS bands, which come first in the fuser's result; a companion, which follows them, is left out."""
    companions: int
    """1 where one goes along, else 0."""
    true_ratio: float
    """See :attr:`ScenePair.true_ratio`."""
    ratio: int
    """PAN pixels per MS pixel, rounded."""


@dataclass(frozen=True)
class GroupedTile:
    """A window of all pairs."""

    valid: Array
    """(H, W) bool; True where all of them, and the copied bands, hold data."""
    tiles: tuple[Any, ...]
    """As each fuser reads its own."""
    copied: Array
    """(bands, H, W), DN."""
    order: tuple[int, ...]
    """See :class:`ksdiff_cli.raster.grouped.GroupedScene`."""


class Grouped(Fuser):
    """See the module; scenes, pairs, statistics and tiles are grouped ones."""

    def __init__(self, lanes: Sequence[Lane], copied: int = 0, facts: Mapping[str, str] | None = None) -> None:
        """Take the lanes of a scene.

        Args:
            lanes: in the order of its parts.
            copied: bands that go into the output as they are.
            facts: what else belongs to the provenance.
        """
        self.lanes, self._copied, self._facts = tuple(lanes), copied, dict(facts or {})
        self.quick = all(lane.fuser.quick for lane in lanes)
        self.uses_mtf = any(lane.fuser.uses_mtf for lane in lanes)

    def check(self, bands: int, ratio: float) -> None:
        for lane in self.lanes:
            lane.fuser.check(lane.bands + lane.companions, lane.true_ratio)

    def reach(self, ratio: int) -> int:
        return max(lane.fuser.reach(lane.ratio) for lane in self.lanes)

    def grid(self) -> int:
        return math.lcm(*(lane.fuser.grid() for lane in self.lanes))

    def watch(self, pair: ScenePair) -> Callable[[Box], None] | None:
        assert isinstance(pair, GroupedPair)
        each = [lane.fuser.watch(part) for lane, part in zip(self.lanes, pair.parts, strict=True)]
        wanted = [watch for watch in each if watch is not None]

        def watch_all(box: Box) -> None:
            for watch in wanted:
                watch(box)

        return watch_all if wanted else None

    def prepare(self, pair: ScenePair, statistics: SceneStatistics, progress: ProgressCallback = silent) -> None:
        assert isinstance(pair, GroupedPair) and isinstance(statistics, GroupedStatistics)
        for lane, part, own in zip(self.lanes, pair.parts, statistics.parts, strict=True):
            lane.fuser.prepare(part, own, progress)

    def read(self, pair: ScenePair, seen: Box) -> GroupedTile:
        assert isinstance(pair, GroupedPair)
        tiles = tuple(lane.fuser.read(part, seen) for lane, part in zip(self.lanes, pair.parts, strict=True))
        copied, valid = pair.read_copied(seen)
        valid = np.logical_and.reduce([valid, *(tile.valid for tile in tiles)])
        return GroupedTile(valid, tiles, copied, pair.order)

    def start(self, tile: GroupedTile, statistics: SceneStatistics, ratio: int, core: Box) -> Callable[[], Array]:
        assert isinstance(statistics, GroupedStatistics)
        waits = []
        for lane, own, known in zip(self.lanes, tile.tiles, statistics.parts, strict=True):
            whole = own.rows(0, own.valid.shape[0]) if isinstance(own, Swath) else own
            waits.append((lane.bands, lane.fuser.start(whole, known, lane.ratio, core)))
        copied = tile.copied[:, *core.within(Box(0, 0, *tile.valid.shape))]

        def wait() -> Array:
            made = [copied, *(found()[:bands] for bands, found in waits)]
            bands = [band for image in made for band in image]
            return np.stack([bands[number] for number in tile.order])

        return wait

    def fuse(self, tile: Any, statistics: SceneStatistics, ratio: int) -> Array:
        return self.start(tile, statistics, ratio, Box(0, 0, *tile.valid.shape))()

    def bytes_per_pixel(self, bands: int) -> int:
        return max(lane.fuser.bytes_per_pixel(lane.bands + lane.companions) for lane in self.lanes) + 8 * bands

    def tile_bytes(self, bands: int) -> int:
        return 1 + 4 * self._copied + sum(lane.fuser.tile_bytes(lane.bands + lane.companions) for lane in self.lanes)

    def device_memory(self, bands: int) -> tuple[int, int] | None:
        asked = [lane.fuser.device_memory(lane.bands + lane.companions) for lane in self.lanes]
        found = [one for one in asked if one is not None]
        return (min(free for free, _ in found), max(need for _, need in found)) if found else None

    def provenance(self) -> Mapping[str, str]:
        each = [dict(lane.fuser.provenance()) for lane in self.lanes]
        methods = " ".join(dict.fromkeys(one["METHOD"] for one in each))
        first: dict[str, str] = {}
        for one in each:
            first = one | first
        return first | {"METHOD": methods} | self._facts

    def findings(self) -> Mapping[str, str]:
        found: dict[str, dict[str, None]] = {}
        for lane in self.lanes:
            for name, value in lane.fuser.findings().items():
                found.setdefault(name, {})[value] = None
        return {name: " ".join(values) for name, values in found.items()}

    def notes(self) -> list[str]:
        return list(dict.fromkeys(line for lane in self.lanes for line in lane.fuser.notes()))
