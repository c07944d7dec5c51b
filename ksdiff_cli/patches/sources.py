"""What patches are cut from: a scene pair, or tiles in an HDF5 file, degraded by Wald's protocol block by block."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import h5py
import numpy as np
from numpy.typing import NDArray

from ksdiff_cli.errors import KsdiffError
from ksdiff_cli.grids import Axis, apply_separable, corner_aligned, gaussian_matrix, mtf_sigma, upsample
from ksdiff_cli.raster import ScenePair, SceneStatistics
from ksdiff_cli.raster_values import Moments, erode
from ksdiff_cli.sensors import Sensor, find_sensor

Array = NDArray[Any]
_STATISTICS_SIDE = 512  # MS pixels, about; keeps a block and its halo far under 1 GB at any band count


@dataclass(frozen=True)
class Block:
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


class Source(Protocol):
    """One image that patches are cut from."""

    name: str
    sensor: Sensor
    ratio: int
    bands: int
    band_names: tuple[str, ...]
    shape: tuple[int, int]
    """(height, width) of the usable part in MS pixels, multiples of the ratio."""

    def read(self, row: int, col: int, height: int, width: int) -> Block:
        """Degrade a window, in MS pixels of the usable part; row and col are multiples of the ratio."""


class PairSource:
    """A scene pair on disk. It reads a window and a halo that covers the filters, so a block equals the whole."""

    def __init__(self, pair: ScenePair, ratio: int | None = None, pan_mtf: float | None = None) -> None:
        """Find the MS pixels that PAN covers and cut them to multiples of the ratio, by default the pair's own."""
        self.pair, self._pan_gain = pair, pan_mtf or pair.scene.sensor.mtf_pan
        self.name, self.sensor = pair.scene.name, pair.scene.sensor
        self.ratio, self.bands = ratio or pair.grid.ratio, pair.bands
        self.band_names = tuple(source.name for source in pair.scene.ms)
        (top, height), (left, width) = (
            _covered(axis, pan, ms, self.ratio)
            for axis, pan, ms in zip((pair.grid.rows, pair.grid.cols), pair.shape, pair.ms_shape, strict=True)
        )
        self.origin, self.shape = (top, left), (height, width)
        self._gains = pair.scene.sensor.ms_gains(pair.bands)
        self.reach = reach(self._gains, self.ratio)

    def read(self, row: int, col: int, height: int, width: int) -> Block:
        """See :class:`Source`."""
        spans = [
            (max(0, start - self.reach), min(size, start + count + self.reach))
            for start, count, size in zip((row, col), (height, width), self.shape, strict=True)
        ]
        (top, bottom), (left, right) = spans
        ms, ms_valid = self.pair.read_ms(self.origin[0] + top, self.origin[1] + left, bottom - top, right - left)
        pan, pan_valid = self._pan(self.origin[0] + row, self.origin[1] + col, height, width)
        inside = (slice(row - top, row - top + height), slice(col - left, col - left + width))
        small, lms = wald(ms, (top, left), (row, col, height, width), self.shape, self.ratio, self._gains)
        clean = pan_valid & erode(ms_valid, self.reach)[inside]
        return Block(ms[:, *inside], pan, small, lms, clean)

    def _pan(self, row: int, col: int, height: int, width: int) -> tuple[Array, Array]:
        """PAN on the MS grid, and where all of the PAN that it was made from is valid."""
        grid, gain = self.pair.grid, self._pan_gain
        matrices, spans, nearest, reaches = [], [], [], []
        for axis, start, count, size in zip(
            (grid.rows, grid.cols), (row, col), (height, width), self.pair.shape, strict=True
        ):
            at = axis.to_pan(np.arange(start, start + count))
            sigma = mtf_sigma(gain, 1 / abs(axis.scale))
            away = math.ceil(4 * sigma) + 1
            # an even first pixel keeps the rounding of x.5, and so the taps, as they are for the whole scene
            first = max(0, math.floor(at.min()) - away) // 2 * 2
            stop = min(size, math.ceil(at.max()) + away + 1)
            matrices.append(gaussian_matrix(at - first, stop - first, sigma))
            nearest.append(np.clip(np.round(at - first).astype(np.int64), 0, stop - first - 1))
            spans.append((first, stop))
            reaches.append(away)
        (top, bottom), (left, right) = spans
        values, valid = self.pair.read_pan(top, left, bottom - top, right - left)
        clean = erode(valid, max(reaches))[np.ix_(*nearest)]
        return apply_separable(matrices[0], matrices[1], values), clean


class TileSource:
    """One tile of an HDF5 file with ``gt`` and ``pan`` at equal resolution: PAN is at the MS scale already."""

    def __init__(self, file: Any, index: int, ratio: int, sensor: Sensor) -> None:
        """Cut the tile to multiples of the ratio."""
        self.file, self.index, self.ratio, self.sensor = file, index, ratio, sensor
        gt = file["gt"]
        self.name, self.bands = f"{Path(file.filename).stem}/{index}", int(gt.shape[1])
        self.band_names = sensor.bands if len(sensor.bands) == self.bands else ("",) * self.bands
        self.shape = (gt.shape[2] // ratio * ratio, gt.shape[3] // ratio * ratio)
        self._gains = sensor.ms_gains(self.bands)
        self.reach = reach(self._gains, ratio)

    def read(self, row: int, col: int, height: int, width: int) -> Block:
        """See :class:`Source`; tiles are small, so the whole tile is the halo."""
        here = (slice(None), slice(row, row + height), slice(col, col + width))
        gt = self.file["gt"][self.index, :, : self.shape[0], : self.shape[1]].astype(np.float32)
        pan = self.file["pan"][self.index, :, : self.shape[0], : self.shape[1]].astype(np.float32)
        small, lms = wald(gt, (0, 0), (row, col, height, width), self.shape, self.ratio, self._gains)
        clean = np.isfinite(gt).all(0) & np.isfinite(pan[0])
        return Block(gt[here], pan[here], small, lms, erode(clean, self.reach)[here[1:]])


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
        KsdiffError: no clean pixel at all.
    """
    pan, ms = Moments(1), Moments(sources[0].bands)
    for source in sources:
        for place in statistics_blocks(source.shape, source.ratio):
            block = source.read(*place)
            pan.add(block.pan[:, block.clean])
            height, width = block.ms.shape[1:]
            ms.add(block.ms[:, block.clean.reshape(height, source.ratio, width, source.ratio).all((1, 3))])
            step()
    if not pan.count or not ms.count:
        raise KsdiffError(f"{name}: no area without nodata is large enough to be degraded")
    (pan_mean, pan_std), (ms_mean, ms_std) = pan.result(), ms.result()
    return SceneStatistics(float(pan_mean[0]), float(pan_std[0]), ms_mean, ms_std)


def wald(
    gt: Array,
    start: tuple[int, int],
    window: tuple[int, int, int, int],
    shape: tuple[int, int],
    ratio: int,
    gains: tuple[float, ...],
) -> tuple[Array, Array]:
    """Degrade MS by the sensor's MTF and bring it back up, for a window.

    The same as :func:`grids.degrade` and :func:`grids.upsample` of the whole scene, cut to the window: weights depend
    on absolute coordinates.

    Args:
        gt: (bands, H, W) DN, the window and its halo.
        start: first row and column of ``gt`` in the scene, even or 0.
        window: row, column, height and width in the scene; multiples of the ratio.
        shape: of the scene, multiples of the ratio.
        ratio: fine pixels per coarse pixel along a side.
        gains: one MTF gain per band.

    Returns:
        ms (bands, h/ratio, w/ratio) and lms (bands, h, w), float32 DN.
    """
    grid = corner_aligned(ratio)
    spans = []
    for first, count, size in zip(window[:2], window[2:], shape, strict=True):
        # bicubic interpolation reaches two coarse pixels
        spans.append((max(0, first // ratio - 3), min(size // ratio, (first + count) // ratio + 3)))
    axes = (grid.rows, grid.cols)
    at = [axis.to_pan(np.arange(*span)) - first for axis, span, first in zip(axes, spans, start, strict=True)]
    small = np.empty((len(gt), *(stop - first for first, stop in spans)), np.float32)
    for gain in sorted(set(gains)):
        bands = [band for band, own in enumerate(gains) if own == gain]
        sigma = mtf_sigma(gain, ratio)
        rows, cols = (gaussian_matrix(where, size, sigma) for where, size in zip(at, gt.shape[1:], strict=True))
        small[bands] = apply_separable(rows, cols, gt[bands])
    row, col, height, width = window
    (top, _), (left, _) = spans
    lms = upsample(small, grid.shifted(row, col), (height, width), (top, left))
    inside = small[:, row // ratio - top :, col // ratio - left :][:, : height // ratio, : width // ratio]
    return inside, lms


def reach(gains: tuple[float, ...], ratio: int) -> int:
    """Return how far, in MS pixels, a patch's values depend on MS around it: a multiple of 2 * ratio."""
    filters = 3 * ratio + math.ceil(4 * mtf_sigma(min(gains), ratio)) + 1
    return -(-filters // (2 * ratio)) * 2 * ratio


def open_tiles(path: Path, ratio: int, sensor: str | None) -> tuple[Any, list[TileSource]]:
    """Open an HDF5 file of tiles.

    Args:
        path: a file with gt (N, C, H, W) and pan (N, 1, H, W), DN.
        ratio: how far gt is to be degraded.
        sensor: short name; ``None`` takes the file's attribute ``sensor``, if it names one.

    Returns:
        The open file, which the caller closes, and one source per tile.

    Raises:
        KsdiffError: not an HDF5 file, a key is missing, or the two do not match.
    """
    try:
        file = h5py.File(path)
    except OSError:
        raise KsdiffError(f"{path}: is not an HDF5 file, or is damaged") from None
    missing = [key for key in ("gt", "pan") if key not in file]
    if missing or file["gt"].ndim != 4 or file["pan"].shape != (len(file["gt"]), 1, *file["gt"].shape[2:]):
        problem = f"has no {' and no '.join(missing)}" if missing else "gt and pan have different sizes"
        file.close()
        raise KsdiffError(f"{path}: {problem}; tiles need gt (N, C, H, W) and pan (N, 1, H, W)")
    named = file.attrs.get("sensor")
    if sensor is None and isinstance(named, str) and not named.startswith("{"):
        sensor = named
    found = find_sensor(sensor)
    return file, [TileSource(file, index, ratio, found) for index in range(len(file["gt"]))]


def _covered(axis: Axis, pan: int, ms: int, ratio: int) -> tuple[int, int]:
    """First MS pixel and number of MS pixels, a multiple of the ratio, whose whole area PAN covers."""
    corners = axis.to_pan(np.arange(ms + 1) - 0.5)
    low, high = np.minimum(corners[:-1], corners[1:]), np.maximum(corners[:-1], corners[1:])
    # up to half a PAN pixel may be missing at the border, where grids are offset by that much
    inside = np.flatnonzero((low >= -1.01) & (high <= pan + 0.01))
    if not len(inside):
        return 0, 0
    return int(inside[0]), len(inside) // ratio * ratio
