"""How a scene is cut, and how much of it is in memory at once (pure arithmetic)."""

from dataclasses import dataclass
from functools import cached_property

from ksdiff_cli.errors import KsdiffError
from ksdiff_cli.numerics.boxes import ALIGN, Box, Tiling

TILES = (2048, 1536, 1280, 1024, 512, 256)
"""Sides of a core that are tried when none is asked for, PAN pixels."""
DEFAULT_MEMORY = 2.0
"""GB for the whole process."""
MOST_AHEAD = 2
"""Windows read ahead at most: more smooth nothing out."""
GB = 10**9
_CACHES = 100_000_000  # bytes: GDAL's decoded blocks, and what it keeps of open files
_READ_BYTES = 24  # a PAN pixel while it is read: PAN itself, and one band on its way through the interpolation


@dataclass(frozen=True)
class DeviceNeed:
    """A method's need of GPU memory, and the memory there is."""

    free: int
    """Bytes at hand."""
    fusing: int
    """Bytes that fusing takes for each pixel of a window with its margin, inputs not."""


@dataclass(frozen=True)
class Need:
    """The memory that a scene's pixels and a method need."""

    bands: int
    """MS bands."""
    stored: int
    """Bytes of one value in the output."""
    margin: int
    """PAN pixels around a core that the method must see."""
    fusing: int
    """Bytes that fusing takes for each pixel of a window with its margin, the result among them, the inputs not."""
    base: int
    """Bytes of the process before the first window: Python, libraries, weights."""
    device: DeviceNeed | None = None
    """The need of GPU memory; None without a GPU."""
    grid: int = ALIGN
    """Windows are read from multiples of this."""
    tile: int = 0
    """Bytes that a pixel of a window takes once it is read; 0 for PAN, all bands and a mask."""


@dataclass(frozen=True)
class Plan:
    """The canonical windows of a scene, and those of them that are made."""

    tiling: Tiling
    region: Box
    """The part of the scene that is made, in pixels of the pair's grid."""
    margin: int
    """PAN pixels read around a core."""
    ahead: int
    """Windows read before they are fused, and written after it, at most."""
    memory: int
    """Bytes that the process takes by the model."""
    grid: int = ALIGN
    """Windows are read from multiples of this, counted from the scene's first pixel."""

    @cached_property
    def numbers(self) -> list[int]:
        """The windows to make, in order."""
        return self.tiling.touching(self.region)

    def part(self, number: int) -> Box:
        """Return the pixels of a window that are kept: its core, as far as it lies in the region."""
        return self.tiling.core(number).meet(self.region)

    def seen(self, number: int) -> Box:
        """Return the pixels that are read for a window: its core with the margin, as far as the scene goes."""
        return self.tiling.core(number).grown(self.margin).down_to(self.grid).meet(self.tiling.scene)

    @property
    def facts(self) -> dict[str, object]:
        """What pixels depend on, for JSON."""
        region = self.region
        return {
            "scene": [self.tiling.height, self.tiling.width],
            "tile": self.tiling.tile,
            "margin": self.margin,
            "region": [region.top, region.left, region.height, region.width],
        }


def make_plan(
    shape: tuple[int, int],
    need: Need,
    region: Box,
    tile: int | None = None,
    memory: float | None = None,
    earlier: int | None = None,
) -> Plan:
    """Choose the windows: the largest of :data:`TILES` that memory allows, a GPU's too, unless ``tile`` is given.

    A GPU's free memory differs from day to day, yet an interrupted run must go on with the windows it has, hence
    ``earlier``. It never refuses: windows that turn out too large for it are fused in parts.

    Args:
        shape: (height, width) of the scene.
        need: what a window takes.
        region: the part of the scene to make.
        tile: side of a core.
        memory: GB that the whole process may take; None takes :data:`DEFAULT_MEMORY`.
        earlier: side of the cores of an interrupted run, which a GPU goes on with if it is one of :data:`TILES`.

    Raises:
        KsdiffError: the memory does not suffice, or no such tile can be.
    """
    memory = DEFAULT_MEMORY if memory is None else memory
    limit = int(memory * GB)
    for side in [tile] if tile else _candidates(shape, need.device, need, earlier):
        tiling = Tiling(*shape, side)
        one = memory_needed(tiling, need, 1)
        if one <= limit:
            ahead = max(n for n in range(1, MOST_AHEAD + 1) if n == 1 or memory_needed(tiling, need, n) <= limit)
            return Plan(tiling, region, need.margin, ahead, memory_needed(tiling, need, ahead), need.grid)
    way = "a smaller --tile or " if memory_needed(Tiling(*shape, TILES[-1]), need, 1) <= limit else ""
    raise KsdiffError(
        f"--memory {memory:g}: windows of {side} pixels with {need.bands} bands take {one / GB:.1f} GB; give {way}"
        f"--memory {-(-one * 10 // GB) / 10:g} or more"
    )


def _candidates(shape: tuple[int, int], device: DeviceNeed | None, need: Need, earlier: int | None) -> list[int]:
    """Return the sides of cores to try, in order; the smallest is always among them."""
    if device is None:
        return list(TILES)
    fitting = [side for side in TILES[:-1] if device_needed(Tiling(*shape, side), need, device) <= device.free]
    return [side for side in TILES if side == earlier] + fitting + [TILES[-1]]


def device_needed(tiling: Tiling, need: Need, device: DeviceNeed) -> int:
    """Return the bytes of a GPU that windows take at most: one is fused, others have arrived or have yet to leave."""
    seen, core = _sizes(tiling, need)
    return seen * device.fusing + (MOST_AHEAD + 2) * 4 * (seen * (1 + need.bands) + core * need.bands)


def _sizes(tiling: Tiling, need: Need) -> tuple[int, int]:
    """Return the pixels of the largest window with its margin, and of its core."""
    side = tiling.tile + 2 * need.margin + need.grid - ALIGN
    seen = min(side, tiling.height) * min(side, tiling.width)
    return seen, min(tiling.tile, tiling.height) * min(tiling.tile, tiling.width)


def memory_needed(tiling: Tiling, need: Need, ahead: int) -> int:
    """Return the bytes that the process takes at most, by a model whose figures are measured.

    One window is fused while ``ahead`` others wait, one is read, and as many wait to be written.
    """
    seen, core = _sizes(tiling, need)
    waiting = need.tile or 4 * (1 + need.bands) + 1
    reading = waiting + _READ_BYTES
    fusing = waiting + need.fusing
    written = 4 * need.bands + 1
    writing = written + (4 + 2 * need.stored) * need.bands
    window = seen * (reading + fusing + (ahead - 1) * waiting) + core * (writing + (ahead - 1) * written)
    return need.base + _CACHES + window
