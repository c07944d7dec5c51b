"""The interface of fusers: the methods by which the engine has windows sharpened."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from ksdiff_cli.errors import KsdiffError
from ksdiff_cli.numerics import Array
from ksdiff_cli.numerics.boxes import ALIGN, Box
from ksdiff_cli.numerics.moments import SceneStatistics
from ksdiff_cli.progress import ProgressCallback, silent
from ksdiff_cli.raster.pair import ScenePair
from ksdiff_cli.raster.tiles import Tile

if TYPE_CHECKING:
    from ksdiff_cli.checks import Geometry
    from ksdiff_cli.sensors import Sensor


_FLAT = 1e-7  # a deviation this small against the mean is rounding error


def check_pan(pair: ScenePair, statistics: SceneStatistics) -> None:
    """Refuse a PAN image without any detail.

    Raises:
        KsdiffError: it is the same everywhere.
    """
    if statistics.pan_std <= _FLAT * abs(statistics.pan_mean):
        raise KsdiffError(
            f"{pair.scene.pan.path}: PAN is {statistics.pan_mean:.6g} everywhere, it has no detail to sharpen with; "
            "check the file, or interpolate with --method exp"
        )


class Fuser(ABC):
    """One way to fuse PAN and MS, arrays in, arrays out; files and the cut of a scene are the engine's business.

    What is not abstract does nothing, and suits a method that sees no more than the tile it is given and leaves it
    where it is.
    """

    quick: bool = False
    """Whether it takes about as long as writing its result does."""
    uses_mtf: bool = False
    """Whether the sensor's MTF gains matter."""
    uses_camera: bool = False
    """Whether pixels depend on the camera that is found in the scene, :func:`ksdiff_cli.raster.camera.find_camera`."""
    differences: bool = False
    """Whether its results are differences of DN, to which no offset applies."""
    mixes: bool = False
    """Whether it takes PAN for a mix of the MS bands, so that a companion helps few of them."""

    def another(self) -> Self:
        """Return one like it for another scene, that shares with it what no scene changes, such as weights."""
        return copy(self)

    def check(self, bands: int, ratio: float) -> None:  # noqa: B027 - most methods take everything
        """Raise if this number of MS bands or this true ratio cannot be done; called before any pixel is read."""

    def reach(self, ratio: int) -> int:
        """Return the PAN pixels it looks at on each side of a pixel; windows come with such a margin, then cut off."""
        return 0

    def grid(self) -> int:
        """Return what windows start at multiples of, PAN pixels counted from the scene's first."""
        return ALIGN

    def watch(self, pair: ScenePair) -> Callable[[Box], None] | None:
        """Return what :meth:`ScenePair.statistics` calls once before :meth:`prepare`; None if nothing."""
        return None

    def prepare(  # noqa: B027 - a method may need nothing of the scene
        self, pair: ScenePair, statistics: SceneStatistics, progress: ProgressCallback = silent
    ) -> None:
        """Look at the scene as a whole; called after :meth:`check`, before any window.

        Args:
            pair: the open scene.
            statistics: of the scene.
            progress: told how far it is.

        Raises:
            KsdiffError: the scene, or its sensor, does not suit the method.
        """

    def observe(self, tile: Tile, gains: Sequence[float], sharpness: float = 0.0) -> None:  # noqa: B027 - most have none
        """Find the cameras of an image that is then sharpened as a scene of its own, where :meth:`prepare` sees none.

        Args:
            tile: the image.
            gains: the sensor's MTF gains, for an image that does not tell.
            sharpness: of what is wanted, relative to PAN.
        """

    def read(self, pair: ScenePair, seen: Box) -> Any:
        """Read a window, in any thread.

        Args:
            pair: the open scene.
            seen: the window with its margin, pixels of the pair's grid.

        Returns:
            What :meth:`start` takes, with the ``valid`` of a :class:`Tile`; or a :class:`ksdiff_cli.raster.pair.Swath`,
            whose rows :meth:`fuse` is then given some at a time, as tiles.
        """
        return self.send(self.read_tile(pair, seen))

    def read_tile(self, pair: ScenePair, seen: Box) -> Tile:
        """Read a window, in any thread, as :meth:`fuse` takes it; MS may be upsampled there or not."""
        return pair.read(seen.top, seen.left, seen.height, seen.width)

    def send(self, tile: Tile) -> Any:
        """Start a tile's way to where it is fused, in any thread; what it returns keeps the tile's ``valid``."""
        return tile

    def start(self, tile: Any, statistics: SceneStatistics, ratio: int, core: Box) -> Callable[[], Array]:
        """Sharpen a window; this may return before it is done.

        Args:
            tile: from :meth:`read` or :meth:`send`.
            statistics: see :meth:`fuse`.
            ratio: see :meth:`fuse`.
            core: the pixels wanted, in those of the tile.

        Returns:
            What waits for the result, in any thread, and returns it: (bands, height, width) of the core, float32, DN.

        Raises:
            KsdiffError: a device's memory does not suffice.
        """
        fused = self.fuse(tile, statistics, ratio)
        # a copy, where there is a margin: the result waits to be written without it
        wanted = np.ascontiguousarray(fused[:, *core.within(Box(0, 0, *tile.valid.shape))])
        return lambda: wanted

    @abstractmethod
    def fuse(self, tile: Tile, statistics: SceneStatistics, ratio: int) -> Array:
        """Sharpen one tile.

        Args:
            tile: everything on the PAN grid, (·, H, W).
            statistics: of the whole scene, not of the tile, so that all tiles are treated alike.
            ratio: PAN pixels per MS pixel along a side.

        Returns:
            (bands, H, W) float32, DN. Invalid pixels may hold anything.
        """

    def for_images(
        self, sensor: "Sensor", bands: int, ratio: int, geometry: "Geometry", sharpness: float = 0.0
    ) -> Callable[[Tile, SceneStatistics], Array]:
        """Return what sharpens whole images, each by itself, where :meth:`prepare` has seen no scene.

        Args:
            sensor: that took the images.
            bands: MS bands.
            ratio: see :meth:`fuse`.
            geometry: how the images' PAN and MS lie on each other.
            sharpness: of what is wanted, relative to PAN; for networks.

        Returns:
            Of an image and its statistics: see :meth:`fuse`; float64 where that is how the method computes.
        """
        return lambda tile, statistics: self.fuse(tile, statistics, ratio)

    @abstractmethod
    def bytes_per_pixel(self, bands: int) -> int:
        """Return the bytes that :meth:`fuse` takes at most for each pixel of a tile, beside the tile itself.

        The result is among them. Measured at float32; for choosing windows that fit into memory.
        """

    def tile_bytes(self, bands: int) -> int:
        """Return the bytes of each pixel of a tile from :meth:`read`, at most: PAN, MS on its grid, validity."""
        return 4 * (1 + bands) + 1

    def device_memory(self, bands: int) -> tuple[int, int] | None:
        """Return a device's free memory and what it takes for each pixel of a tile, bytes; None without a device."""
        return None

    @abstractmethod
    def provenance(self) -> Mapping[str, str]:
        """Return what a reader of the output needs to make it again, as names and values."""

    def findings(self) -> Mapping[str, str]:
        """Return what :meth:`prepare` found out that belongs to the provenance, as names and values."""
        return {}

    def notes(self) -> list[str]:
        """Return notes for people about the windows made so far."""
        return []
