"""Windows on their way: one is read and one is written while another is fused."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np
import rasterio

from ksdiff_cli.errors import KsdiffError
from ksdiff_cli.fusers.base import Fuser
from ksdiff_cli.numerics import Array
from ksdiff_cli.numerics.moments import SceneStatistics
from ksdiff_cli.progress import ProgressCallback, silent
from ksdiff_cli.raster.open import BLOCK_CACHE
from ksdiff_cli.raster.pair import ScenePair
from ksdiff_cli.raster.tiles import Swath, Tile
from ksdiff_cli.sharpening.job import Job

Made = Callable[[], Array]
"""Takes a window's pixels when they are ready, and encodes them."""
Given = TypeVar("Given")
Read = TypeVar("Read")

_AT_ONCE = 1 << 16  # pixels that are fused at a time by rows: with all bands they stay in the processor's cache


@dataclass(frozen=True)
class Windows:
    """The steps that make any one window of a job, by its number alone; ``read`` and ``store`` may run in threads."""

    job: Job
    pair: ScenePair
    fuser: Fuser
    statistics: SceneStatistics
    take: Callable[[int, Array | None], None] | None = None
    """Given each window that is finished, in order: its number, and (bands, height, width) of its part, encoded, or
    None where no pixel is valid."""
    kept: bool = True
    """Whether windows are stored."""

    def read(self, number: int) -> Any:
        """Read a window with its margin, see :meth:`Fuser.read`; one without data is neither filled nor fused."""
        seen = self.job.plan.seen(number)
        if not self.pair.holds_data(self.job.plan.part(number)):
            nothing = np.empty((0, 0, 0), np.float32)
            return Tile(nothing, nothing, np.zeros((seen.height, seen.width), bool))
        return self.fuser.read(self.pair, seen)

    def fuse(self, number: int, tile: Any) -> Made | None:
        """Sharpen a window and cut its margin off.

        Returns:
            What waits for (bands, height, width) of :meth:`Plan.part`, encoded; None where no pixel is valid.
        """
        plan = self.job.plan
        part, seen = plan.part(number), plan.seen(number)
        inside = part.within(seen)
        # a copy, where there is a margin: the next window is fused while this one is written, without it
        valid = np.ascontiguousarray(tile.valid[inside])
        if not valid.any():
            return None
        if isinstance(tile, Swath):
            image = self._fuse_rows(number, tile, *inside)
            return lambda: image
        # all of the core, whatever part of it is kept: a network's rounding may hang on the shape that it makes
        core = plan.tiling.core(number)
        wait = self.fuser.start(tile, self.statistics, self.pair.grid.ratio, core.moved(-seen.top, -seen.left))
        return lambda: self._encode(number, np.ascontiguousarray(wait()[:, *part.within(core)]), valid)

    def store(self, number: int, made: Made | None) -> None:
        """Wait for a window, encode and finish it.

        Raises:
            KsdiffError: the fuser gave values that are no numbers, or the window cannot be written.
        """
        image = None if made is None else made()
        if self.kept:
            self.job.store(number, image)
        if self.take:
            self.take(number, image)

    def _fuse_rows(self, number: int, swath: Swath, rows: slice, cols: slice) -> Array:
        """Sharpen and encode some rows after the other."""
        out = np.empty((self.pair.bands, rows.stop - rows.start, cols.stop - cols.start), self.job.pixels.dtype)
        step = max(1, _AT_ONCE // swath.valid.shape[1])
        for start in range(rows.start, rows.stop, step):
            stop = min(start + step, rows.stop)
            tile = swath.rows(start, stop)
            fused = self.fuser.fuse(tile, self.statistics, self.pair.grid.ratio)
            place = np.s_[:, start - rows.start : stop - rows.start]
            self._encode(number, fused[:, :, cols], tile.valid[:, cols], out[place])
        return out

    def _encode(self, number: int, fused: Array, valid: Array, out: Array | None = None) -> Array:
        """Turn pixels of a window into stored ones, see :meth:`PixelFormat.encode`."""
        # one sum is cheaper than a mask of every pixel, and anything infinite or NaN spoils it
        if not np.isfinite(fused.sum()) and not np.isfinite(fused[:, valid]).all():
            part = self.job.plan.part(number)
            raise KsdiffError(
                f"the method gave values that are no numbers in the window at row {part.top}, column {part.left}"
            )
        return self.job.pixels.encode(fused, valid, out)


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
