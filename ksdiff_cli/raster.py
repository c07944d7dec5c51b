"""Opening rasters, and the PAN/MS pair as one thing that is read window by window on the PAN grid."""

import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.errors import RasterioError
from rasterio.transform import Affine
from rasterio.windows import Window
from scipy.ndimage import uniform_filter

from ksdiff_cli.console import ProgressCallback, silent
from ksdiff_cli.errors import KsdiffError
from ksdiff_cli.grids import Axis, GridMap, corner_aligned, upsample
from ksdiff_cli.sensors import Sensor

Array = NDArray[Any]
_FILL_STEPS = 3  # bicubic taps reach two MS pixels; one more keeps the filled values smooth


@dataclass(frozen=True)
class BandSource:
    """One band of one file."""

    path: str
    """Anything GDAL opens."""
    band: int = 1
    """Band number in the file, from 1."""
    name: str = ""
    """Name for people, e.g. ``red``; empty when unknown."""


@dataclass(frozen=True)
class Scene:
    """One acquisition, as a product reader found it: where its bands are and which sensor took them."""

    name: str
    pan: BandSource
    ms: tuple[BandSource, ...]
    sensor: Sensor


@dataclass(frozen=True)
class SceneStatistics:
    """Mean and standard deviation of the valid pixels of PAN and of each MS band, in DN."""

    pan_mean: float
    pan_std: float
    ms_mean: Array
    """(bands,)"""
    ms_std: Array
    """(bands,)"""


@dataclass(frozen=True)
class Tile:
    """A window of a pair, everything on the PAN grid."""

    pan: Array
    """(1, H, W) float32, DN; invalid pixels filled from their neighbours."""
    ms_up: Array
    """(bands, H, W) float32, DN; upsampled MS."""
    valid: Array
    """(H, W) bool; True where PAN and all MS bands hold data."""


def open_raster(path: str | Path) -> Any:
    """Open a raster for reading.

    Args:
        path: a file or anything else GDAL opens.

    Returns:
        The open rasterio dataset.

    Raises:
        KsdiffError: there is no such file, or it is not a raster.
    """
    try:
        dataset = rasterio.open(path)
    except RasterioError as error:
        remote = "://" in str(path) or str(path).startswith("/vsi")
        if not remote and not Path(path).exists():
            raise KsdiffError(f"{path}: no such file; check the path") from None
        if not remote and Path(path).is_dir():
            raise KsdiffError(f"{path}: is a folder, not a raster file; name the file inside it") from None
        raise KsdiffError(f"{path}: cannot be opened as a raster ({_first_line(error)})") from None
    if dataset.count == 0 or dataset.width == 0 or dataset.height == 0:
        dataset.close()
        raise KsdiffError(f"{path}: holds no bands; name the image file itself")
    return dataset


def read_band(dataset: Any, band: int, window: Window) -> tuple[Array, Array]:
    """Read one band of a window as float32, with its validity mask (nodata, mask band, alpha, NaN).

    Returns:
        ((h, w) float32 DN, (h, w) bool).

    Raises:
        KsdiffError: the file is damaged or incomplete.
    """
    try:
        values = dataset.read(band, window=window)
        # dataset.read_masks costs a second decode of the window: skip it where there is nothing to mask
        flags = dataset.mask_flag_enums[band - 1]
        if flags == [rasterio.enums.MaskFlags.all_valid]:
            valid = np.ones(values.shape, bool)
        else:
            valid = dataset.read_masks(band, window=window) > 0
    except RasterioError as error:
        raise KsdiffError(
            f"{dataset.name}: cannot be read ({_first_line(error)}); the file is damaged or incomplete, fetch it again"
        ) from None
    values = values.astype(np.float32)
    if not np.isfinite(values).all():
        valid &= np.isfinite(values)
        values = np.where(valid, values, np.float32(0))
    return values, valid


def _first_line(error: Exception) -> str:
    cause = error.__cause__ or error
    return str(cause).strip().splitlines()[0] if str(cause).strip() else type(error).__name__


@dataclass
class ScenePair:
    """An open PAN/MS pair on its output grid: PAN's grid, cut to the area that both images cover.

    Windows are given in pixels of that output grid. Open it with :func:`open_pair`.
    """

    scene: Scene
    pan: Any
    """The open PAN dataset."""
    ms: tuple[Any, ...]
    """One open dataset per MS band (the same object for bands of one file)."""
    grid: GridMap
    """Output pixels -> MS pixels."""
    origin: tuple[int, int]
    """PAN row and column of the output's first pixel."""
    shape: tuple[int, int]
    """(height, width) of the output in PAN pixels."""
    notes: list[str] = field(default_factory=list)
    """What a person should know about how the two images were laid on each other."""

    @property
    def bands(self) -> int:
        """Number of MS bands."""
        return len(self.ms)

    @property
    def ms_shape(self) -> tuple[int, int]:
        """(height, width) of the MS image."""
        return int(self.ms[0].height), int(self.ms[0].width)

    @property
    def transform(self) -> Affine:
        """Geotransform of the output grid."""
        return self.pan.transform @ Affine.translation(self.origin[1], self.origin[0])

    @property
    def georeferenced(self) -> bool:
        """Whether PAN carries a geotransform or a CRS."""
        return _georeferenced(self.pan)

    def read_pan(self, row: int, col: int, height: int, width: int) -> tuple[Array, Array]:
        """Read a PAN window: ((1, h, w) float32, (h, w) bool)."""
        window = Window(col + self.origin[1], row + self.origin[0], width, height)
        values, valid = read_band(self.pan, self.scene.pan.band, window)
        return values[None], valid

    def read_ms(self, row: int, col: int, height: int, width: int) -> tuple[Array, Array]:
        """Read an MS window, in MS pixels: ((bands, h, w) float32, (h, w) bool, all bands valid)."""
        values = np.empty((self.bands, height, width), np.float32)
        valid = np.ones((height, width), bool)
        for index, (dataset, source) in enumerate(zip(self.ms, self.scene.ms, strict=True)):
            values[index], mask = read_band(dataset, source.band, Window(col, row, width, height))
            valid &= mask
        return values, valid

    def read(self, row: int, col: int, height: int, width: int) -> Tile:
        """Read a window of the output grid, MS upsampled onto it. See :class:`Tile`."""
        pan, pan_valid = self.read_pan(row, col, height, width)
        grid = self.grid.shifted(row, col)
        (top, bottom), (left, right) = (
            _reach(axis, count, size)
            for axis, count, size in zip((grid.rows, grid.cols), (height, width), self.ms_shape, strict=True)
        )
        ms, ms_valid = self.read_ms(top, left, bottom - top, right - left)
        ms_up = upsample(fill_invalid(ms, ms_valid), grid, (height, width), (top, left))
        rows, cols = _nearest(grid.rows, height, top, bottom), _nearest(grid.cols, width, left, right)
        valid = pan_valid & ms_valid[np.ix_(rows, cols)]
        return Tile(fill_invalid(pan, pan_valid), ms_up, valid)

    def statistics(self, progress: ProgressCallback = silent) -> SceneStatistics:
        """Gather the scene's statistics in one streamed pass over both images.

        Raises:
            KsdiffError: no valid pixel at all.
        """
        pan, ms = _Moments(1), _Moments(self.bands)
        blocks = [(False, *b) for b in _blocks(*self.shape)] + [(True, *b) for b in _blocks(*self.ms_shape)]
        for done, (is_ms, *block) in enumerate(blocks):
            values, valid = self.read_ms(*block) if is_ms else self.read_pan(*block)
            (ms if is_ms else pan).add(values[:, valid])
            progress(done + 1, len(blocks))
        if pan.count == 0 or ms.count == 0:
            which = self.scene.pan.path if pan.count == 0 else self.scene.ms[0].path
            raise KsdiffError(f"{which}: every pixel is nodata; nothing to sharpen")
        (pan_mean, pan_std), (ms_mean, ms_std) = pan.result(), ms.result()
        return SceneStatistics(float(pan_mean[0]), float(pan_std[0]), ms_mean, ms_std)


class _Moments:
    """Streamed mean and standard deviation per band, merged block by block (Chan et al. 1983)."""

    def __init__(self, bands: int) -> None:
        self.count = 0
        self.mean = np.zeros(bands)
        self.m2 = np.zeros(bands)

    def add(self, values: Array) -> None:
        """Add (bands, n) samples."""
        n = values.shape[1]
        if n == 0:
            return
        mean = values.mean(1, dtype=np.float64)
        m2 = ((values - mean[:, None]) ** 2).sum(1, dtype=np.float64)
        delta, total = mean - self.mean, self.count + n
        self.mean += delta * n / total
        self.m2 += m2 + delta**2 * self.count * n / total
        self.count = total

    def result(self) -> tuple[Array, Array]:
        """Return mean and standard deviation, (bands,) each."""
        return self.mean, np.sqrt(self.m2 / max(1, self.count))


def fill_invalid(image: Array, valid: Array) -> Array:
    """Give invalid pixels near valid ones the mean of their valid neighbours, so that filters see no cliff.

    Only a few pixels deep: beyond the filters' reach the value does not matter and the band's valid mean stands in.
    """
    if valid.all():
        return image
    if not valid.any():
        return image
    out = np.where(valid, image, np.float32(0))
    known = valid.astype(np.float32)
    for _ in range(_FILL_STEPS):
        weight = uniform_filter(known, 3, mode="nearest")
        grown = (weight > 1e-6) & (known == 0)
        for band in out:
            total = uniform_filter(band * known, 3, mode="nearest")
            band[grown] = total[grown] / weight[grown]
        known[grown] = 1
    mean = np.array([band[valid].mean(dtype=np.float64) for band in image], np.float32)
    out[:, known == 0] = mean[:, None]
    return out


def _blocks(height: int, width: int, side: int = 1024) -> Iterator[tuple[int, int, int, int]]:
    for row in range(0, height, side):
        for col in range(0, width, side):
            yield row, col, min(side, height - row), min(side, width - col)


def _reach(axis: Axis, count: int, size: int) -> tuple[int, int]:
    """MS pixels [start, stop) that bicubic interpolation onto ``count`` PAN pixels touches, and the fill behind them."""
    ends = [axis.to_ms(0), axis.to_ms(count - 1)]
    start = math.floor(min(ends)) - 1 - _FILL_STEPS
    stop = math.floor(max(ends)) + 3 + _FILL_STEPS
    start = min(max(start, 0), size - 1)
    return start, max(min(stop, size), start + 1)


def _nearest(axis: Axis, count: int, start: int, stop: int) -> Array:
    """Index, within [start, stop), of the MS pixel that holds each PAN pixel's centre."""
    index = np.floor(axis.to_ms(np.arange(count)) + 0.5).astype(np.int64)
    return np.clip(index, start, stop - 1) - start


@contextmanager
def open_pair(scene: Scene) -> Iterator[ScenePair]:
    """Open a scene's files, lay the two grids on each other and check that they can be fused.

    Raises:
        KsdiffError: a file is missing or no raster, the images do not overlap, their CRS differ, PAN and MS look
            swapped, or their sizes cannot be matched.
    """
    with ExitStack() as stack:
        opened: dict[str, Any] = {}
        for source in (scene.pan, *scene.ms):
            if source.path not in opened:
                opened[source.path] = stack.enter_context(open_raster(source.path))
            if not 1 <= source.band <= opened[source.path].count:
                raise KsdiffError(
                    f"{source.path}: has no band {source.band}, only {opened[source.path].count}; choose with -b"
                )
        pan, ms = opened[scene.pan.path], tuple(opened[source.path] for source in scene.ms)
        _check_bands(scene, pan, ms)
        whole, notes = _lay(pan, ms[0])
        origin, shape = _intersection(whole, pan, ms[0])
        if shape != (pan.height, pan.width):
            notes.append(
                f"PAN and MS cover different areas: the output is their common part, {shape[1]} x {shape[0]} "
                f"of PAN's {pan.width} x {pan.height} pixels"
            )
        yield ScenePair(scene, pan, ms, whole.shifted(*origin), origin, shape, notes)


def _check_bands(scene: Scene, pan: Any, ms: tuple[Any, ...]) -> None:
    first = ms[0]
    for dataset in ms:
        if dataset.shape != first.shape or not dataset.transform.almost_equals(first.transform):
            raise KsdiffError(f"{dataset.name}: lies on another grid than {first.name}; MS bands must share one grid")
    for dataset in (pan, *ms):
        if any("complex" in kind for kind in dataset.dtypes):
            raise KsdiffError(f"{dataset.name}: has complex values; give amplitudes or reflectances")
    if pan.width <= first.width and pan.height <= first.height:
        raise KsdiffError(
            f"{scene.pan.path}: PAN ({pan.width} x {pan.height}) is not finer than MS {first.name} "
            f"({first.width} x {first.height}); are PAN and MS swapped? PAN comes first"
        )


def _georeferenced(dataset: Any) -> bool:
    return dataset.crs is not None or not dataset.transform.almost_equals(Affine.identity())


def _lay(pan: Any, ms: Any) -> tuple[GridMap, list[str]]:
    """Find the map from PAN to MS pixels, from the geotransforms or, without them, by the shared corner."""
    if _georeferenced(pan) and _georeferenced(ms):
        if pan.crs and ms.crs and pan.crs != ms.crs:
            raise KsdiffError(
                f"{ms.name}: its CRS ({_crs_name(ms)}) differs from PAN's ({_crs_name(pan)}); warp MS to PAN's CRS first"
            )
        return _lay_by_transform(pan, ms), []
    ratio = round(math.sqrt(pan.width * pan.height / (ms.width * ms.height)))
    slack = max(abs(pan.width - ratio * ms.width), abs(pan.height - ratio * ms.height))
    if ratio < 2 or slack >= ratio * max(1.0, 0.002 * max(ms.width, ms.height)):
        raise KsdiffError(
            f"{pan.name}: {pan.width} x {pan.height} pixels do not match MS {ms.name} ({ms.width} x {ms.height}) at an "
            "integer ratio, and there is no georeference to lay them on each other"
        )
    return corner_aligned(ratio), [f"no common georeference: PAN and MS are laid corner on corner at ratio {ratio}"]


def _crs_name(dataset: Any) -> str:
    epsg = dataset.crs.to_epsg()
    return f"EPSG:{epsg}" if epsg else str(dataset.crs.to_wkt()[:60])


def _lay_by_transform(pan: Any, ms: Any) -> GridMap:
    # corner coordinates: MS = ~T_ms * T_pan * PAN; for pixel centres add and subtract half a pixel
    to_ms = ~ms.transform @ pan.transform
    if max(abs(to_ms.b), abs(to_ms.d)) * max(pan.width, pan.height) > 0.05:
        raise KsdiffError(f"{ms.name}: its grid is rotated against PAN's {pan.name}; warp one onto the other first")
    if not 0.05 < min(abs(to_ms.a), abs(to_ms.e)) <= max(abs(to_ms.a), abs(to_ms.e)) < 0.8:
        if min(abs(to_ms.a), abs(to_ms.e)) >= 0.8:
            raise KsdiffError(
                f"{pan.name}: its pixels are not smaller than those of MS {ms.name}; are PAN and MS swapped? PAN comes first"
            )
        raise KsdiffError(
            f"{ms.name}: an MS pixel is {1 / abs(to_ms.a):.1f} PAN pixels wide; check that both belong to one scene"
        )
    return GridMap(
        Axis(to_ms.e, 0.5 * to_ms.e + to_ms.f - 0.5),
        Axis(to_ms.a, 0.5 * to_ms.a + to_ms.c - 0.5),
    )


def _intersection(grid: GridMap, pan: Any, ms: Any) -> tuple[tuple[int, int], tuple[int, int]]:
    """PAN pixels whose centre lies on the MS image, or less than half an MS pixel beside it."""
    found = []
    for axis, count, size in ((grid.rows, pan.height, ms.height), (grid.cols, pan.width, ms.width)):
        ends = sorted((axis.to_pan(-1.0), axis.to_pan(float(size))))
        first, last = max(0, math.ceil(ends[0] - 1e-6)), min(count - 1, math.floor(ends[1] + 1e-6))
        if last < first:
            raise KsdiffError(f"{ms.name}: does not overlap PAN {pan.name}; check that both belong to one scene")
        found.append((first, last - first + 1))
    return (found[0][0], found[1][0]), (found[0][1], found[1][1])
