"""What patches are cut from: a scene pair, or tiles in an HDF5 file, degraded by Wald's protocol block by block."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ksdiff_cli.checks import Geometry
from ksdiff_cli.errors import KsdiffError
from ksdiff_cli.files.hdf5 import find_array, open_h5, read_attributes, reading
from ksdiff_cli.numerics import Array
from ksdiff_cli.numerics.grids import Axis
from ksdiff_cli.numerics.moments import BandMoments, SceneStatistics, erode
from ksdiff_cli.patches import area, toolbox
from ksdiff_cli.patches.masks import at_top, largest_dn
from ksdiff_cli.raster.pair import ScenePair
from ksdiff_cli.sensors import Sensor, find_sensor

GEOMETRIES: dict[Geometry, "Wald"] = {"area": area, "toolbox": toolbox}
"""Where reduced pixels sit: by pixel areas, as on the ground, or on pixels 4k+2, as in PanCollection's files."""

_STATISTICS_SIDE = 512  # MS pixels, about; keeps a block and its halo far under 1 GB at any band count


class NothingFitError(KsdiffError):
    """A scene has nothing to make patches of."""

    def __init__(self, message: str, reason: str) -> None:
        """Say it in one line; ``reason`` is the part of it that names no option."""
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True)
class ReducedWindow:
    """A window of a scene at reduced resolution: what Wald's protocol makes of it."""

    gt: Array
    """(bands, h, w) float32 DN: the original MS."""
    pan: Array
    """(1, h, w) float32 DN: PAN as seen on the MS grid."""
    ms: Array
    """(bands, h/ratio, w/ratio) float32 DN: MS degraded by its MTF."""
    lms: Array
    """(bands, h, w) float32 DN: ``ms`` upsampled."""
    clean: Array
    """(h, w) bool: everything that the pixel's values depend on, the filters' reach included, is valid."""
    cloud: Array
    """(h, w) bool: cloud or cloud shadow, as far as the product says."""
    saturated: Array
    """(h, w) bool: at the largest DN in a band, or in the PAN pixel at the centre."""


@dataclass(frozen=True)
class FullWindow:
    """A window at full resolution."""

    pan: Array
    """(1, H, W) float32 DN."""
    ms: Array
    """(bands, H/ratio, W/ratio) float32 DN, turned as PAN is."""
    lms: Array
    """(bands, H, W) float32 DN: ``ms`` on PAN's pixels."""
    clean: Array
    """(H/ratio, W/ratio) bool, as the other two: see :class:`ReducedWindow`."""
    cloud: Array
    saturated: Array


class Wald(Protocol):
    """One geometry: how MS and PAN are degraded, and MS brought back up. See :mod:`ksdiff_cli.patches.area`."""

    def reach(self, gains: tuple[float, ...], ratio: int) -> int:
        """See :func:`area.reach`."""

    def reduce_ms(
        self,
        gt: Array,
        start: tuple[int, int],
        window: area.Window,
        shape: tuple[int, int],
        ratio: int,
        gains: tuple[float, ...],
    ) -> tuple[Array, Array]:
        """See :func:`area.reduce_ms`."""

    def reduce_pan(
        self, pair: ScenePair, gain: float, window: area.Window, top_dn: float | None
    ) -> tuple[Array, Array, Array]:
        """See :func:`area.reduce_pan`."""

    def full_ms(self, pair: ScenePair, ms_window: area.Window, pan_window: area.Window) -> tuple[Array, bool]:
        """See :func:`area.full_ms`."""


class Source(Protocol):
    """One image that patches are cut from."""

    name: str
    sensor: Sensor
    ratio: int
    bands: int
    band_names: tuple[str, ...]
    shape: tuple[int, int]
    """(height, width) of the usable part in MS pixels, multiples of the ratio."""
    reach: int
    """How far, in MS pixels, a patch's values depend on MS around it."""

    def read(self, row: int, col: int, height: int, width: int) -> ReducedWindow:
        """Degrade a window, in MS pixels of the usable part; row and col are multiples of the ratio."""


class PairSource:
    """A scene pair on disk. It reads a window and a halo that covers the filters, so a block equals the whole."""

    def __init__(
        self,
        pair: ScenePair,
        ratio: int | None = None,
        pan_mtf: float | None = None,
        geometry: Geometry = "area",
    ) -> None:
        """Find the MS pixels that PAN covers and cut them to multiples of the ratio, by default the pair's own.

        Raises:
            KsdiffError: the scene has no place for the toolbox's geometry.
        """
        self.pair, self._pan_gain = pair, pan_mtf or pair.scene.sensor.mtf_pan
        self.name, self.sensor = pair.scene.name, pair.scene.sensor
        self.ratio, self.bands = ratio or pair.grid.ratio, pair.bands
        if self.ratio < 2:
            raise KsdiffError(
                f"{self.name}: its ratio is {pair.true_ratio:.3g}, but patches are degraded by a whole number; give "
                "one with --ratio"
            )
        if geometry == "toolbox":
            toolbox.check_toolbox(self.name, self.ratio, pair)
        self.wald = GEOMETRIES[geometry]
        self.band_names = tuple(source.name for source in pair.scene.ms)
        (top, height), (left, width) = (
            _covered(axis, pan, ms, self.ratio)
            for axis, pan, ms in zip((pair.grid.rows, pair.grid.cols), pair.shape, pair.ms_shape, strict=True)
        )
        self.origin, self.shape = (top, left), (height, width)
        self._gains = pair.scene.sensor.ms_gains(pair.bands)
        self.reach = self.wald.reach(self._gains, self.ratio)
        self._pan_top = largest_dn(self.sensor, pair.pan.dtypes[pair.scene.pan.band - 1])
        self._tops = tuple(
            largest_dn(self.sensor, dataset.dtypes[source.band - 1])
            for dataset, source in zip(pair.ms, pair.scene.ms, strict=True)
        )

    def read(self, row: int, col: int, height: int, width: int) -> ReducedWindow:
        spans = [
            (max(0, start - self.reach), min(size, start + count + self.reach))
            for start, count, size in zip((row, col), (height, width), self.shape, strict=True)
        ]
        (top, bottom), (left, right) = spans
        window = (row, col, height, width)
        in_ms = (self.origin[0] + row, self.origin[1] + col, height, width)
        ms, ms_valid = self.pair.read_ms(self.origin[0] + top, self.origin[1] + left, bottom - top, right - left)
        pan, pan_valid, pan_saturated = self.wald.reduce_pan(self.pair, self._pan_gain, in_ms, self._pan_top)
        inside = (slice(row - top, row - top + height), slice(col - left, col - left + width))
        small, lms = self.wald.reduce_ms(ms, (top, left), window, self.shape, self.ratio, self._gains)
        gt = ms[:, *inside]
        clean = pan_valid & erode(ms_valid, self.reach)[inside]
        return ReducedWindow(
            gt, pan, small, lms, clean, self.pair.read_cloud(*in_ms), at_top(gt, self._tops) | pan_saturated
        )

    def read_full(self, row: int, col: int, side: int) -> FullWindow | None:
        """Read a window at full resolution: original PAN and MS, and MS on PAN's grid.

        Args:
            row: first row in MS pixels of the usable part, as ``col``.
            col: first column.
            side: in MS pixels.

        Returns:
            The window, or None where PAN has no room for it.
        """
        ratio, pair = self.ratio, self.pair
        in_ms = (self.origin[0] + row, self.origin[1] + col, side, side)
        axes = (pair.grid.rows, pair.grid.cols)
        # the PAN pixel on the window's corner; where the grids run in opposite directions it is the last MS pixel's
        starts = [
            round(axis.to_pan(first - 0.5 if axis.scale > 0 else first + side - 0.5) + 0.5)
            for axis, first in zip(axes, in_ms[:2], strict=True)
        ]
        starts = [min(max(0, s), size - side * ratio) for s, size in zip(starts, pair.shape, strict=True)]
        if min(starts) < 0:
            return None
        in_pan = (starts[0], starts[1], side * ratio, side * ratio)
        pan, pan_valid = pair.read_pan(*in_pan)
        ms, ms_valid = pair.read_ms(*in_ms)
        lms, lms_valid = self.wald.full_ms(pair, in_ms, in_pan)
        flips = tuple(slice(None, None, 1 if axis.scale > 0 else -1) for axis in axes)
        cloud, saturated = pair.read_cloud(*in_ms), at_top(ms, self._tops)
        saturated = saturated[*flips] | at_top(pan[:, ratio // 2 :: ratio, ratio // 2 :: ratio], (self._pan_top,))
        clean = np.full((side, side), bool(pan_valid.all() and ms_valid.all() and lms_valid))
        return FullWindow(pan, ms[:, *flips], lms, clean, cloud[*flips], saturated)


class TileSource:
    """One tile of an HDF5 file with ``gt`` and ``pan`` at equal resolution: PAN is at the MS scale already."""

    def __init__(self, file: Any, index: int, ratio: int, sensor: Sensor, geometry: Geometry = "area") -> None:
        """Cut the tile to multiples of the ratio."""
        self.file, self.index, self.ratio, self.sensor = file, index, ratio, sensor
        gt = file["gt"]
        self.name, self.bands = f"{Path(file.filename).stem}/{index}", int(gt.shape[1])
        self.band_names = sensor.bands if len(sensor.bands) == self.bands else ("",) * self.bands
        self.shape = (gt.shape[2] // ratio * ratio, gt.shape[3] // ratio * ratio)
        self._gains = sensor.ms_gains(self.bands)
        self._wald = GEOMETRIES[geometry]
        self.reach = self._wald.reach(self._gains, ratio)
        self._tops = (largest_dn(sensor, gt.dtype),) * self.bands + (largest_dn(sensor, file["pan"].dtype),)

    def read(self, row: int, col: int, height: int, width: int) -> ReducedWindow:
        """See :class:`Source`; tiles are small, so the whole tile is the halo."""
        here = (slice(None), slice(row, row + height), slice(col, col + width))
        with reading(f"{self.file.filename}, tile {self.index}"), np.errstate(over="ignore"):
            gt, pan = (
                self.file[key][self.index, :, : self.shape[0], : self.shape[1]].astype(np.float32)
                for key in ("gt", "pan")
            )
        window = (row, col, height, width)
        small, lms = self._wald.reduce_ms(gt, (0, 0), window, self.shape, self.ratio, self._gains)
        clean = np.isfinite(gt).all(0) & np.isfinite(pan[0])
        saturated = at_top(np.concatenate([gt, pan])[here], self._tops)
        cloud = np.zeros_like(saturated)
        return ReducedWindow(gt[here], pan[here], small, lms, erode(clean, self.reach)[here[1:]], cloud, saturated)


def statistics_blocks(shape: tuple[int, int], ratio: int) -> list[tuple[int, int, int, int]]:
    """Return the windows (row, col, height, width) that cover an image and are read one at a time."""
    side = -(-_STATISTICS_SIDE // ratio) * ratio
    return [
        (row, col, min(side, shape[0] - row), min(side, shape[1] - col))
        for row in range(0, shape[0], side)
        for col in range(0, shape[1], side)
    ]


def reduced_statistics(name: str, sources: Sequence[Source], step: Callable[[], None]) -> SceneStatistics:
    """Gather mean and deviation of the reduced PAN and MS over all clean pixels of a scene, in one streamed pass.

    Args:
        name: of the scene, for the message.
        sources: the images that make up the scene.
        step: called after every block.

    Raises:
        NothingFitError: no clean pixel at all.
    """
    pan, ms = BandMoments(1), BandMoments(sources[0].bands)
    for source in sources:
        for place in statistics_blocks(source.shape, source.ratio):
            block = source.read(*place)
            pan.add(block.pan[:, block.clean])
            height, width = block.ms.shape[1:]
            ms.add(block.ms[:, block.clean.reshape(height, source.ratio, width, source.ratio).all((1, 3))])
            step()
    if not pan.count or not ms.count:
        reason = "no area without nodata is large enough to be degraded"
        raise NothingFitError(f"{name}: {reason}; take another scene", reason)
    (pan_mean, pan_std), (ms_mean, ms_std) = pan.result(), ms.result()
    return SceneStatistics(float(pan_mean[0]), float(pan_std[0]), ms_mean, ms_std)


def open_tiles(path: Path, ratio: int, sensor: str | None, geometry: Geometry = "area") -> tuple[Any, list[TileSource]]:
    """Open an HDF5 file of tiles.

    Args:
        path: a file with gt (N, C, H, W) and pan (N, 1, H, W), DN.
        ratio: how far gt is to be degraded.
        sensor: short name; ``None`` takes the file's attribute ``sensor``, if it names one.
        geometry: where reduced pixels sit.

    Returns:
        The open file, which the caller closes, and one source per tile.

    Raises:
        KsdiffError: not an HDF5 file, a key is missing, or the two do not match.
    """
    file = open_h5(path, "is not an HDF5 file, or is damaged; tiles need gt (N, C, H, W) and pan (N, 1, H, W)")
    try:
        arrays = {key: find_array(file, key) for key in ("gt", "pan")}
        missing = [key for key, array in arrays.items() if array is None]
        if missing or arrays["gt"].ndim != 4 or arrays["pan"].shape != (len(arrays["gt"]), 1, *arrays["gt"].shape[2:]):
            problem = f"has no {' and no '.join(missing)}" if missing else "gt and pan have different sizes"
            raise KsdiffError(f"{path}: {problem}; tiles need gt (N, C, H, W) and pan (N, 1, H, W)")
        named = read_attributes(file, path).get("sensor")
    except KsdiffError:
        file.close()
        raise
    if sensor is None and isinstance(named, str) and not named.startswith("{"):
        sensor = named
    found = find_sensor(sensor)
    return file, [TileSource(file, index, ratio, found, geometry) for index in range(len(file["gt"]))]


def _covered(axis: Axis, pan: int, ms: int, ratio: int) -> tuple[int, int]:
    """First MS pixel and number of MS pixels, a multiple of the ratio, whose whole area PAN covers."""
    corners = axis.to_pan(np.arange(ms + 1) - 0.5)
    low, high = np.minimum(corners[:-1], corners[1:]), np.maximum(corners[:-1], corners[1:])
    # up to half a PAN pixel may be missing at the border, where grids are offset by that much
    inside = np.flatnonzero((low >= -1.01) & (high <= pan + 0.01))
    if not len(inside):
        return 0, 0
    return int(inside[0]), len(inside) // ratio * ratio
