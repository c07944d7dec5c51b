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
from ksdiff_cli.fusers import Fuser, Remote
from ksdiff_cli.progress import ProgressCallback, silent
from ksdiff_cli.raster import ScenePair, SceneStatistics
from ksdiff_cli.raster_open import BLOCK_CACHE
from ksdiff_cli.sharpening.consistency import Consistent
from ksdiff_cli.sharpening.job import Job

Array = NDArray[Any]
Made = tuple[Callable[[], Array], Array]
"""What waits for a window's pixels, and where they are valid."""
Given = TypeVar("Given")
Read = TypeVar("Read")


@dataclass(frozen=True)
class Windows:
    """The steps that make any one window of a job, by its number alone; ``read`` and ``store`` may run in threads."""

    job: Job
    pair: ScenePair
    fuser: Fuser
    statistics: SceneStatistics

    def read(self, number: int) -> Any:
        """Read a window with its margin: a tile, or what the fuser made of one."""
        seen = self.job.plan.seen(number)
        if isinstance(self.fuser, Consistent):
            return self.fuser.read(self.pair, seen)
        tile = self.pair.read(seen.top, seen.left, seen.height, seen.width)
        return self.fuser.send(tile) if isinstance(self.fuser, Remote) else tile

    def fuse(self, number: int, tile: Any) -> Made | None:
        """Sharpen a window and cut its margin off.

        Returns:
            What waits for (bands, height, width) float32 DN of :meth:`Plan.part`, and (height, width) bool, where that
            is valid; None where no pixel is.
        """
        plan, ratio = self.job.plan, self.pair.grid.ratio
        part, seen = plan.part(number), plan.seen(number)
        inside = part.within(seen)
        # copies, where there is a margin: the next window is fused while this one is written, without it
        valid = np.ascontiguousarray(tile.valid[inside])
        if not valid.any():
            return None
        if isinstance(self.fuser, Remote):
            return self.fuser.start(tile, self.statistics, ratio, part.moved(-seen.top, -seen.left)), valid
        fused = np.ascontiguousarray(self.fuser.fuse(tile, self.statistics, ratio)[:, *inside])
        return lambda: fused, valid

    def store(self, number: int, made: Made | None) -> None:
        """Wait for a window, encode and finish it.

        Raises:
            KsdiffError: the fuser gave values that are no numbers, or the window cannot be written.
        """
        if made is None:
            self.job.store(number, None)
            return
        wait, valid = made
        fused = wait()
        # one sum is cheaper than a mask of every pixel, and anything infinite or NaN spoils it
        if not np.isfinite(fused.sum()) and not np.isfinite(fused[:, valid]).all():
            part = self.job.plan.part(number)
            raise KsdiffError(
                f"the method gave values that are no numbers in the window at row {part.top}, column {part.left}"
            )
        self.job.store(number, self.job.pixels.encode(fused, valid))


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
