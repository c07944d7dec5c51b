"""Layers that nobody has sharpened yet: the engine's own windows, made when they are looked at."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio

from ksdiff_cli.errors import KsdiffError, StoppedError
from ksdiff_cli.fusers.base import Fuser
from ksdiff_cli.numerics import Array
from ksdiff_cli.numerics.boxes import Box
from ksdiff_cli.options.sharpening import SharpenOptions
from ksdiff_cli.output.pixels import choose_format
from ksdiff_cli.raster.open import BLOCK_CACHE
from ksdiff_cli.raster.pair import Scene, open_pair
from ksdiff_cli.sharpening.engine import plan_scene
from ksdiff_cli.sharpening.job import Job, place_of
from ksdiff_cli.sharpening.pipeline import Windows
from ksdiff_cli.view.grid import Grid, Line, Place
from ksdiff_cli.view.layers import Cache

Tell = Callable[[str], None]
"""Told what is being done, for people; "" at its end."""


@dataclass(frozen=True)
class MadeGrid:
    """Where what is made lies."""

    shape: tuple[int, int]
    place: Place


def make_thread() -> ThreadPoolExecutor:
    """Return the one thread that makes windows: a scene's open files, and a network, bear one at a time."""
    return ThreadPoolExecutor(1, "ksdiff-making")


def find_grid(scene: Scene, grid: Grid) -> MadeGrid:
    """Return where the sharpened scene will lie on the page's grid.

    Raises:
        KsdiffError: see :func:`ksdiff_cli.raster.open_pair`.
    """
    with open_pair(scene) as pair:
        if grid.transform is not None and pair.located:
            return MadeGrid(pair.shape, Place.between(grid.transform, pair.transform))
        return MadeGrid(pair.shape, Place(Line(start=-pair.origin[0]), Line(start=-pair.origin[1])))


class Sharpener:
    """One method's windows of a scene, the same as ``ksdiff sharpen`` makes of all of it with default options.

    The cut, the statistics and the window function are the engine's; so what is looked at has the bytes that the whole
    output would have there. All but :meth:`ready` runs in the thread of :func:`make_thread`.
    """

    def __init__(self, scene: Scene, fuser: Callable[[], Fuser], cache: Cache, tell: Tell) -> None:
        """Do nothing yet.

        Args:
            scene: PAN and MS.
            fuser: makes the method, when its turn comes.
            cache: for finished windows.
            tell: see :data:`Tell`.
        """
        self._scene, self._make_fuser, self._cache, self._tell = scene, fuser, cache, tell
        self._open = ExitStack()  # until the process ends
        self._windows: Windows | None = None
        self._image: Array | None = None
        self._failed = ""
        self._stopped = False

    def prepare(self) -> None:
        """Survey the scene, as the engine does before its first window.

        Raises:
            KsdiffError: it cannot be sharpened by this method, or the weights do not fit.
        """
        if self._windows is not None:
            return
        if self._failed:
            raise KsdiffError(self._failed)
        try:
            self._windows = self._survey()
        except Exception as error:
            if isinstance(error, KsdiffError) or type(error).__name__ == "ModelError":
                self._failed = str(error)
                self._tell(f"failed: {error}")
                raise KsdiffError(self._failed) from None
            raise
        self._tell("")

    def _survey(self) -> Windows:
        self._tell("loading the method")
        fuser = self._make_fuser()
        with rasterio.Env(GDAL_CACHEMAX=BLOCK_CACHE):
            pair = self._open.enter_context(open_pair(self._scene))
            fuser.check(pair.bands, pair.true_ratio)
            plan = plan_scene(pair, Path("view"), fuser, SharpenOptions(resume=False))
            statistics = pair.statistics(self._progress, fuser.watch(pair))
            fuser.prepare(pair, statistics, self._progress)
        job = Job(Path(), plan, pair.bands, choose_format(pair, statistics), place_of(pair))
        return Windows(job, pair, fuser, statistics, self._take, kept=False)

    def window(self, box: Box) -> Array:
        """Return (bands, h, w) float32 of a box, NaN without data; see :meth:`prepare` for what it raises."""
        self.prepare()
        assert self._windows is not None
        job = self._windows.job
        out = np.full((job.bands, box.height, box.width), np.nan, np.float32)
        for number in job.plan.tiling.touching(box):
            part = job.plan.part(number)
            made = self._cache.get((id(self), number), lambda number=number: self._made(number))  # type: ignore[misc]
            shared = part.meet(box)
            stored = made[:, *shared.within(part)]
            out[:, *shared.within(box)] = np.where(job.pixels.valid(stored), stored, np.float32(np.nan))
        return out

    def stop(self) -> None:
        """End a survey that is under way; from any thread."""
        self._stopped = True

    def ready(self, box: Box) -> bool:
        """Say whether :meth:`window` would have to make nothing."""
        if self._windows is None:
            return False
        return all((id(self), number) in self._cache for number in self._windows.job.plan.tiling.touching(box))

    def _made(self, number: int) -> Array:
        """Make a window: (bands, h, w) as the output would store it."""
        windows = self._windows
        assert windows is not None
        with rasterio.Env(GDAL_CACHEMAX=BLOCK_CACHE):
            windows.store(number, windows.fuse(number, windows.read(number)))
        image, self._image = self._image, None
        return windows.job.nothing(windows.job.plan.part(number)) if image is None else image

    def _take(self, number: int, image: Array | None) -> None:
        self._image = image

    def _progress(self, done: int, total: int, note: str = "") -> None:
        if self._stopped:
            raise StoppedError("the viewer was closed")
        self._tell(f"{note or 'looking at the scene'}, {100 * done // max(1, total)} %")


def check_ready(methods: list[str], scene: Scene | None) -> Scene:
    """Return the scene that methods are to sharpen.

    Raises:
        KsdiffError: there is none.
    """
    if scene is None:
        raise KsdiffError(f"--method {methods[0]}: needs PAN and MS; name both, PAN first, or a scene's folder")
    return scene
