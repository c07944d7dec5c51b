"""Opening rasters, and the PAN/MS pair as one thing that is read window by window on the PAN grid."""

import math
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.enums import MaskFlags
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.transform import Affine
from rasterio.windows import Window

from ksdiff_cli.errors import KsdiffError
from ksdiff_cli.grids import Axis, GridMap, upsample
from ksdiff_cli.progress import ProgressCallback, silent
from ksdiff_cli.raster_layout import check_pair, georeferenced, intersection, lay
from ksdiff_cli.raster_values import FILL_STEPS, Moments, fill_invalid
from ksdiff_cli.sensors import Sensor

Array = NDArray[Any]


@dataclass(frozen=True)
class BandSource:
    """One band of one file."""

    path: str
    """Anything GDAL opens."""
    band: int = 1
    """Band number in the file, from 1."""
    name: str = ""
    """Name for people, e.g. ``red``; empty when unknown."""
    fill: float | None = None
    """DN that means "no data" by the product's format though the file does not declare it."""
    alpha_is_data: bool = False
    """Whether the band that the file calls alpha is one of its data bands and masks nothing."""


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
    holes: bool = False
    """Whether some pixel of PAN or MS is invalid (nodata, masked, NaN)."""


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
        with warnings.catch_warnings():
            # many pairs have no georeference: open_pair says so
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            dataset = rasterio.open(path)
    except RasterioError as error:
        remote = "://" in str(path) or str(path).startswith("/vsi")
        if not remote and not Path(path).exists():
            raise KsdiffError(f"{path}: no such file; check the path") from None
        if not remote and Path(path).is_dir():
            raise KsdiffError(f"{path}: is a folder, not a raster file; name the file inside it") from None
        raise KsdiffError(f"{path}: cannot be opened as a raster ({first_line(error)})") from None
    if dataset.count == 0 or dataset.width == 0 or dataset.height == 0:
        dataset.close()
        raise KsdiffError(f"{path}: holds no bands; name the image file itself")
    return dataset


def alpha_is_data(dataset: Any) -> bool:
    """Say whether the band called alpha holds data: GDAL calls the fourth band of every plain 8-bit file alpha.

    A real alpha band is transparent or opaque; anything between, on a sample of the band, is an image.
    """
    colours = [colour.name for colour in dataset.colorinterp]
    if "alpha" not in colours:
        return False
    shape = tuple(min(side, 512) for side in dataset.shape)
    try:
        sample = dataset.read(colours.index("alpha") + 1, out_shape=shape)
    except RasterioError as error:
        raise _damaged(dataset, error) from None
    return bool(((sample != 0) & (sample != np.iinfo(sample.dtype).max)).any()) if sample.dtype.kind in "iu" else False


def _damaged(dataset: Any, error: Exception) -> KsdiffError:
    return KsdiffError(
        f"{dataset.name}: cannot be read ({first_line(error)}); the file is damaged or incomplete, fetch it again"
    )


def read_band(dataset: Any, source: BandSource, window: Window) -> tuple[Array, Array]:
    """Read one band of a window as float32, with its validity mask (nodata, mask band, alpha, NaN, the fill value).

    Returns:
        ((h, w) float32 DN, (h, w) bool).

    Raises:
        KsdiffError: the file is damaged or incomplete.
    """
    try:
        values = dataset.read(source.band, window=window)
        # dataset.read_masks costs a second decode of the window: skip it where there is nothing to mask
        flags = dataset.mask_flag_enums[source.band - 1]
        no_mask = MaskFlags.all_valid in flags or (MaskFlags.alpha in flags and source.alpha_is_data)
        valid = np.ones(values.shape, bool) if no_mask else dataset.read_masks(source.band, window=window) > 0
        if source.fill is not None:
            valid &= values != source.fill
    except RasterioError as error:
        raise _damaged(dataset, error) from None
    values = values.astype(np.float32)
    if not np.isfinite(values).all():
        valid &= np.isfinite(values)
        values = np.where(valid, values, np.float32(0))
    return values, valid


def first_line(error: Exception) -> str:
    """Return the first line of what a library says went wrong, its cause before itself."""
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
        return georeferenced(self.pan)

    def read_pan(self, row: int, col: int, height: int, width: int) -> tuple[Array, Array]:
        """Read a PAN window: ((1, h, w) float32, (h, w) bool)."""
        window = Window(col + self.origin[1], row + self.origin[0], width, height)
        values, valid = read_band(self.pan, self.scene.pan, window)
        return values[None], valid

    def read_ms(self, row: int, col: int, height: int, width: int) -> tuple[Array, Array]:
        """Read an MS window, in MS pixels: ((bands, h, w) float32, (h, w) bool, all bands valid)."""
        values = np.empty((self.bands, height, width), np.float32)
        valid = np.ones((height, width), bool)
        for index, (dataset, source) in enumerate(zip(self.ms, self.scene.ms, strict=True)):
            values[index], mask = read_band(dataset, source, Window(col, row, width, height))
            valid &= mask
        return values, valid

    def read(self, row: int, col: int, height: int, width: int) -> Tile:
        """Read a window of the output grid, MS upsampled onto it. See :class:`Tile`."""
        pan, pan_valid = self.read_pan(row, col, height, width)
        grid = self.grid.shifted(row, col)
        (top, bottom), (left, right) = self._ms_area(grid, (height, width), FILL_STEPS)
        ms, ms_valid = self.read_ms(top, left, bottom - top, right - left)
        ms_up = upsample(fill_invalid(ms, ms_valid), grid, (height, width), (top, left))
        rows, cols = _nearest(grid.rows, height, top, bottom), _nearest(grid.cols, width, left, right)
        valid = pan_valid & ms_valid[np.ix_(rows, cols)]
        return Tile(fill_invalid(pan, pan_valid), ms_up, valid)

    def statistics(self, progress: ProgressCallback = silent) -> SceneStatistics:
        """Gather the scene's statistics in one streamed pass over the area that both images cover.

        Raises:
            KsdiffError: no valid pixel at all.
        """
        pan, ms = Moments(1), Moments(self.bands)
        (top, bottom), (left, right) = self._ms_area(self.grid, self.shape, 0)
        height, width = bottom - top, right - left
        blocks = [(False, *block) for block in _blocks(0, 0, *self.shape)]
        blocks += [(True, *block) for block in _blocks(top, left, height, width)]
        for done, (is_ms, *block) in enumerate(blocks):
            values, valid = self.read_ms(*block) if is_ms else self.read_pan(*block)
            (ms if is_ms else pan).add(values[:, valid])
            progress(done + 1, len(blocks), "statistics")
        if pan.count == 0 or ms.count == 0:
            which = self.scene.pan.path if pan.count == 0 else self.scene.ms[0].path
            raise KsdiffError(f"{which}: every pixel is nodata; nothing to sharpen")
        holes = pan.count < self.shape[0] * self.shape[1] or ms.count < height * width
        (pan_mean, pan_std), (ms_mean, ms_std) = pan.result(), ms.result()
        return SceneStatistics(float(pan_mean[0]), float(pan_std[0]), ms_mean, ms_std, holes)

    def _ms_area(self, grid: GridMap, shape: tuple[int, int], margin: int) -> tuple[tuple[int, int], tuple[int, int]]:
        """MS rows and columns [start, stop) under a PAN window, with the interpolation's reach and a margin."""
        rows, cols = (
            _reach(axis, count, size, margin)
            for axis, count, size in zip((grid.rows, grid.cols), shape, self.ms_shape, strict=True)
        )
        return rows, cols


def _blocks(top: int, left: int, height: int, width: int, side: int = 1024) -> Iterator[tuple[int, int, int, int]]:
    """Cut an area into (row, column, height, width) blocks."""
    for row in range(0, height, side):
        for col in range(0, width, side):
            yield top + row, left + col, min(side, height - row), min(side, width - col)


def _reach(axis: Axis, count: int, size: int, margin: int) -> tuple[int, int]:
    """MS pixels [start, stop) that bicubic interpolation onto ``count`` PAN pixels touches, and ``margin`` more."""
    ends = [axis.to_ms(0), axis.to_ms(count - 1)]
    start = math.floor(min(ends)) - 1 - margin
    stop = math.floor(max(ends)) + 3 + margin
    start = min(max(start, 0), size - 1)
    return start, max(min(stop, size), start + 1)


def _nearest(axis: Axis, count: int, start: int, stop: int) -> Array:
    """Index, within [start, stop), of the MS pixel that holds each PAN pixel's centre."""
    # half-pixel grid offsets put centres exactly between two MS pixels: the epsilon makes all windows choose alike
    index = np.floor(axis.to_ms(np.arange(count)) + 0.5 + 1e-6).astype(np.int64)
    inside: Array = np.clip(index, start, stop - 1) - start
    return inside


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
                count = opened[source.path].count
                raise KsdiffError(f"{source.path}: has no band {source.band}, only {count}; choose with -b")
        pan, ms = opened[scene.pan.path], tuple(opened[source.path] for source in scene.ms)
        check_pair(pan, ms)
        whole, notes = lay(pan, ms[0])
        origin, shape = intersection(whole, pan, ms[0])
        if shape != (pan.height, pan.width):
            notes.append(
                f"PAN and MS cover different areas: the output is their common part, {shape[1]} x {shape[0]} "
                f"of PAN's {pan.width} x {pan.height} pixels"
            )
        yield ScenePair(scene, pan, ms, whole.shifted(*origin), origin, shape, notes)
