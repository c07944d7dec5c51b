"""Windows on their way: one is read and one is written while another is fused."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np
import rasterio
from numpy.typing import NDArray

from ksdiff_cli.errors import KsdiffError
from ksdiff_cli.fusers import Fuser
from ksdiff_cli.progress import ProgressCallback, silent
from ksdiff_cli.raster import ScenePair, SceneStatistics, Tile
from ksdiff_cli.raster_open import BLOCK_CACHE
from ksdiff_cli.sharpening.job import Job

Array = NDArray[Any]
Given = TypeVar("Given")
Read = TypeVar("Read")


@dataclass(frozen=True)
class Windows:
    """The steps that make any one window of a job, by its number alone; ``read`` and ``store`` may run in threads."""

    job: Job
    pair: ScenePair
    fuser: Fuser
    statistics: SceneStatistics

    def read(self, number: int) -> Tile:
        """Read a window with its margin."""
        seen = self.job.plan.seen(number)
        return self.pair.read(seen.top, seen.left, seen.height, seen.width)

    def fuse(self, number: int, tile: Tile) -> tuple[Array, Array] | None:
        """Sharpen a window and cut its margin off.

        Returns:
            ((bands, height, width) float32 DN, (height, width) bool valid) of :meth:`Plan.part`; None where no pixel
            is valid.

        Raises:
            KsdiffError: the fuser gave values that are no numbers.
        """
        plan = self.job.plan
        part, seen = plan.part(number), plan.seen(number)
        inside = part.within(seen)
        # copies: the next window is fused while this one is written, without its margin
        valid = tile.valid[inside].copy()
        if not valid.any():
            return None
        fused = self.fuser.fuse(tile, self.statistics, self.pair.grid.ratio)[:, *inside].copy()
        # one sum is cheaper than a mask of every pixel, and anything infinite or NaN spoils it
        if not np.isfinite(fused.sum()) and not np.isfinite(fused[:, valid]).all():
            raise KsdiffError(
                f"the method gave values that are no numbers in the window at row {part.top}, column {part.left}"
            )
        return fused, valid

    def store(self, number: int, made: tuple[Array, Array] | None) -> None:
        """Encode a window and finish it."""
        self.job.store(number, made if made is None else self.job.pixels.encode(*made))


class Maker(Protocol):
    """Whatever makes windows: the threads of this process (:func:`make_windows`), or other processes."""

    def __call__(self, windows: Windows, missing: list[int], progress: ProgressCallback = silent) -> None:
        """See :func:`make_windows`."""


def make_windows(windows: Windows, missing: list[int], progress: ProgressCallback = silent) -> None:
    """Make the windows that are missing.

    Whatever fails, in whichever thread, stops the others after the window they are at, and is raised here.

    Args:
        windows: how.
        missing: which, in order.
        progress: told the windows done, with those that were there already.
    """
    total = len(windows.job.plan.numbers)
    done = total - len(missing)
    progress(done, total, "windows")
    ahead = windows.job.plan.ahead
    with read_ahead(windows.read, missing, ahead) as tiles, ThreadPoolExecutor(1) as writer:
        waiting: deque[Future[None]] = deque()
        for number, tile in tiles:
            made = windows.fuse(number, tile)
            del tile  # not kept while the next one is waited for
            while len(waiting) >= ahead:
                waiting.popleft().result()
                progress(done := done + 1, total, "windows")
            waiting.append(writer.submit(_alone, windows.store, number, made))
            del made
        for write in waiting:
            write.result()
            progress(done := done + 1, total, "windows")


@contextmanager
def read_ahead(
    read: Callable[[Given], Read], items: Iterable[Given], ahead: int
) -> Iterator[Iterator[tuple[Given, Read]]]:
    """Read in another thread, up to ``ahead`` items before they are asked for, always in order.

    Yields:
        Pairs of an item and what was read for it; an error of ``read`` is raised where its item is asked for.
    """
    reader = ThreadPoolExecutor(1)

    def pairs() -> Iterator[tuple[Given, Read]]:
        waiting: deque[tuple[Given, Future[Read]]] = deque()
        for item in items:
            waiting.append((item, reader.submit(_alone, read, item)))
            if len(waiting) > ahead:
                first, future = waiting.popleft()
                yield first, future.result()
                del future
        while waiting:
            first, future = waiting.popleft()
            yield first, future.result()
            del future

    try:
        yield pairs()
    finally:
        reader.shutdown(cancel_futures=True)


def _alone(work: Callable[..., Read], *arguments: Any) -> Read:
    """Run in a thread of its own: GDAL's settings and its handling of errors belong to a thread."""
    with rasterio.Env(GDAL_CACHEMAX=BLOCK_CACHE):
        return work(*arguments)
