"""Bands of several resolutions as one scene: one pair for each coarse band with its own PAN, all on one output grid."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import reduce
from typing import Self

import numpy as np
from rasterio.windows import Window

from ksdiff_cli.errors import KsdiffError
from ksdiff_cli.numerics import Array
from ksdiff_cli.numerics.boxes import Box
from ksdiff_cli.numerics.moments import BandMoments, SceneStatistics
from ksdiff_cli.progress import ProgressCallback, silent
from ksdiff_cli.raster.bands import BandSource, read_stored
from ksdiff_cli.raster.crop import crop_pair
from ksdiff_cli.raster.guide import GuideBands
from ksdiff_cli.raster.pair import OpenFiles, Scene, ScenePair, open_pair
from ksdiff_cli.raster.survey import survey


@dataclass(frozen=True)
class GroupedScene(Scene):
    """Several scenes of one acquisition, whose PANs share one grid; ``ms`` are all bands of the output, in its order.

    ``pan`` is one of the bands on the output's grid.
    """

    parts: tuple[Scene, ...] = ()
    """The pairs, at least one."""
    copied: tuple[BandSource, ...] = ()
    """Bands of the output's grid that go into it as they are."""
    order: tuple[int, ...] = ()
    """For each band of the output its number among the copied bands and those of the parts, one after the other."""

    def sources(self) -> tuple[BandSource, ...]:
        return (*self.copied, *(source for part in self.parts for source in part.sources()))

    def files(self) -> list[str]:
        return [*(source.path for source in self.copied), *(path for part in self.parts for path in part.files())]

    def renamed(self, rename: Callable[[str], str]) -> Self:
        parts = tuple(part.renamed(rename) for part in self.parts)
        copied = tuple(replace(source, path=rename(source.path)) for source in self.copied)
        return replace(super().renamed(rename), parts=parts, copied=copied)


@dataclass(frozen=True)
class GroupedStatistics(SceneStatistics):
    """The statistics of the output's bands, and of each pair."""

    parts: tuple[SceneStatistics, ...] = ()


@dataclass
class GroupedPair(ScenePair):
    """The open pairs of a :class:`GroupedScene` on one output grid: the area that all of them cover.

    A pixel is valid where all of them are. Its own reading is left to the pairs.
    """

    parts: tuple[ScenePair, ...] = ()
    copied: GuideBands | None = None
    """The bands that go into the output as they are; None without any."""
    order: tuple[int, ...] = ()
    """See :class:`GroupedScene`."""

    def read_copied(self, box: Box) -> tuple[Array, Array]:
        """Read the copied bands of a window: (bands, h, w), exact for any type of the files, and (h, w) bool."""
        if self.copied is None:
            return np.empty((0, box.height, box.width), np.float32), np.ones((box.height, box.width), bool)
        window = Window(box.left + self.origin[1], box.top + self.origin[0], box.width, box.height)
        values, valid = self.copied.read(window)
        wide = any(np.dtype(kind).itemsize > (2 if np.dtype(kind).kind in "iu" else 4) for kind in self._kinds())
        if wide and all(source.convert is None for source in self.copied.sources):
            stored, _ = read_stored(self.copied.datasets, self.copied.sources, window)
            values = np.where(valid, np.stack([band.astype(np.float64) for band in stored]), 0)
        return values, valid

    def _kinds(self) -> list[str]:
        assert self.copied is not None
        pairs = zip(self.copied.datasets, self.copied.sources, strict=True)
        return [dataset.dtypes[source.band - 1] for dataset, source in pairs]

    def holds_data(self, box: Box) -> bool:
        return all(part.holds_data(box) for part in self.parts)

    def recall(self, statistics: SceneStatistics) -> None:
        super().recall(statistics)
        if isinstance(statistics, GroupedStatistics):
            for part, own in zip(self.parts, statistics.parts, strict=True):
                part.recall(own)

    def statistics(
        self, progress: ProgressCallback = silent, watch: Callable[[Box], None] | None = None
    ) -> GroupedStatistics:
        """See :meth:`ScenePair.statistics`; what the pairs share is read once."""
        count = 0 if self.copied is None else len(self.copied.sources)
        copied = BandMoments(count)

        def see(box: Box) -> None:
            if count:
                values, valid = self.read_copied(box)
                copied.add(values[:, valid])
            if watch:
                watch(box)

        parts = survey(self.parts, progress, see)
        mean, std = copied.result() if count else (np.empty(0), np.empty(0))
        kept = [len(part.ms) for part in self.parts]
        order = list(self.order)
        means = np.concatenate([mean, *(one.ms_mean[:bands] for one, bands in zip(parts, kept, strict=True))])[order]
        stds = np.concatenate([std, *(one.ms_std[:bands] for one, bands in zip(parts, kept, strict=True))])[order]
        holes = any(one.holes for one in parts) or (count > 0 and copied.count < self.shape[0] * self.shape[1])
        negative = max(one.negative for one in parts)
        found = GroupedStatistics(parts[0].pan_mean, parts[0].pan_std, means, stds, holes, negative, parts=tuple(parts))
        self.recall(found)
        return found


@contextmanager
def open_scene(scene: Scene) -> Iterator[ScenePair]:
    """Open a scene, of one pair or of several; see :func:`ksdiff_cli.raster.pair.open_pair`."""
    if not isinstance(scene, GroupedScene):
        with open_pair(scene) as pair:
            yield pair
        return
    with ExitStack() as stack:
        opened = OpenFiles(stack, scene.copies)
        parts = [stack.enter_context(open_pair(part, opened)) for part in scene.parts]
        datasets = tuple(opened.find(source) for source in scene.ms)
        copied = opened.guide(scene.copied) if scene.copied else None
        area = _common([Box(*pair.origin, *(a + b for a, b in zip(pair.origin, pair.shape, strict=True)))
                        for pair in parts], scene)  # fmt: skip
        parts = [_cut(pair, area) for pair in parts]
        notes = list(dict.fromkeys(note for pair in parts for note in pair.notes))
        first = min(parts, key=lambda pair: pair.true_ratio)
        yield GroupedPair(
            scene, first.pan, datasets, first.grid, (area.top, area.left), (area.height, area.width), first.true_ratio,
            notes=notes, parts=tuple(parts), copied=copied, order=scene.order,
        )  # fmt: skip


def _common(areas: Sequence[Box], scene: GroupedScene) -> Box:
    """Return the area that all pairs cover, in pixels of PAN's file."""
    area = reduce(Box.meet, areas)
    if area.empty:
        raise KsdiffError(f"{scene.name}: its coarse bands have no area in common; give bands of one scene")
    return area


def _cut(pair: ScenePair, area: Box) -> ScenePair:
    top, left = area.top - pair.origin[0], area.left - pair.origin[1]
    if (top, left) == (0, 0) and pair.shape == (area.height, area.width):
        return pair
    return crop_pair(pair, (top, left, area.height, area.width))
