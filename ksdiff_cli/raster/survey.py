"""A scene's statistics, gathered in one streamed pass; of several pairs that share files together."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

import numpy as np
from rasterio.windows import Window

from ksdiff_cli.errors import KsdiffError
from ksdiff_cli.numerics import Array
from ksdiff_cli.numerics.boxes import Box
from ksdiff_cli.numerics.moments import BandMoments, SceneStatistics
from ksdiff_cli.progress import ProgressCallback
from ksdiff_cli.raster.bands import BandSource, read_stored

if TYPE_CHECKING:
    from ksdiff_cli.raster.pair import ScenePair

_RESOLUTION = 1e-6  # share of the mean, some steps of float32, that a deviation must be
_SIDE = 1024  # of the blocks that statistics are gathered in, pixels


def survey(
    pairs: "Sequence[ScenePair]", progress: ProgressCallback, watch: Callable[[Box], None] | None = None
) -> list[SceneStatistics]:
    """Gather the statistics of pairs on one output grid, block by block of all of them: what they share is read once.

    Args:
        pairs: open, at least one.
        progress: told the blocks read.
        watch: see :meth:`ScenePair.statistics`.

    Raises:
        KsdiffError: see :meth:`ScenePair.statistics`.
    """
    surveys = [_Survey(pair) for pair in pairs]
    total = sum(len(each.blocks) for each in surveys)
    done = 0
    for step in zip_longest(*(each.blocks for each in surveys)):
        seen = None
        for each, block in zip(surveys, step, strict=True):
            if block is None:
                continue
            each.take(block)
            seen = None if block.is_ms else block.box
            done += 1
        if watch and seen:
            watch(seen)
        progress(done, total, "statistics")
    return [each.result() for each in surveys]


@dataclass(frozen=True)
class _Block:
    box: Box
    is_ms: bool


class _Survey:
    """The statistics of one pair on their way."""

    def __init__(self, pair: "ScenePair") -> None:
        self._pair = pair
        self._pan, self._ms = BandMoments(1), BandMoments(len(pair.ms))
        self._below = {False: np.zeros(1), True: np.zeros(len(pair.ms))}  # sums of what is negative
        rows, cols = pair.ms_area((0, 0), pair.shape)
        area = Box(rows[0], cols[0], rows[1], cols[1])
        self._pixels = pair.shape[0] * pair.shape[1], area.pixels
        self.blocks = [_Block(box, False) for box in _blocks(pair.pan, Box(0, 0, *pair.shape))]
        self.blocks += [_Block(box, True) for box in _blocks((pair.warped or pair.ms)[0], area)]

    def take(self, block: _Block) -> None:
        """Read a block."""
        box = block.box
        read = self._pair.read_delivered if block.is_ms else self._pair.read_pan
        values, valid = read(box.top, box.left, box.height, box.width)
        samples = values.reshape(len(values), -1) if valid.all() else values[:, valid]
        (self._ms if block.is_ms else self._pan).add(samples)
        if samples.min(initial=0) < 0:
            self._below[block.is_ms] -= np.minimum(samples, 0).sum(1, dtype=np.float64)

    def result(self) -> SceneStatistics:
        """Return what was found, the companion's last."""
        pair, pan, ms = self._pair, self._pan, self._ms
        if pan.count == 0 or ms.count == 0:
            which = pair.scene.pan.path if pan.count == 0 else pair.scene.ms[0].path
            raise KsdiffError(f"{which}: every pixel is nodata; nothing to sharpen")
        pan_holes, ms_holes = (each.count < pixels for each, pixels in zip((pan, ms), self._pixels, strict=True))
        if pan_holes and ms_holes and not pair.holds_data(Box(0, 0, *pair.shape)):
            raise KsdiffError(
                f"{pair.scene.pan.path}: is nodata wherever {pair.scene.ms[0].path} holds data, so nothing can be "
                "sharpened; give images whose valid parts overlap"
            )
        (pan_mean, pan_std), (ms_mean, ms_std) = pan.result(), ms.result()
        if pair.scene.mix is None:
            _check_size(pan_mean, pan_std, [pair.pan], [pair.scene.pan])
        _check_size(ms_mean, ms_std, pair.ms, pair.scene.ms)
        sums = np.array([pan_mean.sum() * pan.count, ms_mean.sum() * ms.count])
        low = np.array([self._below[False].sum(), self._below[True].sum()])
        negative = np.divide(low, sums + 2 * low, out=np.zeros(2), where=low > 0).max()
        if pair.scene.companion is not None:
            ms_mean = np.append(ms_mean, pan_mean)
            ms_std = np.append(ms_std, pair.scene.companion.deviation)
        holes = pan_holes or ms_holes
        return SceneStatistics(float(pan_mean[0]), float(pan_std[0]), ms_mean, ms_std, holes, float(negative))


def _check_size(mean: Array, std: Array, datasets: Sequence[Any], sources: Sequence[BandSource]) -> None:
    """Refuse values that float32 does not tell from each other, be it that they are near 0 or far from it."""
    if (std > _RESOLUTION * np.abs(mean)).all():
        return
    sides = (min(side, _SIDE) for side in datasets[0].shape[::-1])
    stored, valid = read_stored(datasets, sources, Window(0, 0, *sides))
    for source, band, middle, deviation in zip(sources, stored, mean, std, strict=True):
        exact = band.dtype.itemsize <= (4 if band.dtype.kind == "f" else 2)
        known = band[valid]
        if exact or deviation > _RESOLUTION * abs(middle) or not known.size or known.min() == known.max():
            continue
        if middle:
            raise KsdiffError(
                f"{source.path}: has values about {middle:.6g} that differ too little for float32, by "
                f"{deviation:.2g}; subtract a constant first"
            )
        raise KsdiffError(f"{source.path}: its values are too small to compute with; scale the image up")


def _blocks(dataset: Any, area: Box) -> Iterator[Box]:
    """Cut an area of an open file into blocks of a megapixel.

    A file in strips is read in strips: GDAL decodes a strip whole, and its cache does not hold many wide ones.
    """
    in_strips = dataset.block_shapes[0][1] >= dataset.width > _SIDE
    high, wide = (max(1, _SIDE * _SIDE // area.width), area.width) if in_strips else (_SIDE, _SIDE)
    for top in range(area.top, area.bottom, high):
        for left in range(area.left, area.right, wide):
            yield Box(top, left, min(top + high, area.bottom), min(left + wide, area.right))
