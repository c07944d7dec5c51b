"""The PAN/MS pair as one thing that is read window by window on the PAN grid."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.enums import MaskFlags
from rasterio.errors import RasterioError
from rasterio.transform import Affine
from rasterio.vrt import WarpedVRT
from rasterio.windows import Window

from ksdiff_cli.errors import KsdiffError
from ksdiff_cli.grids import GridMap, nearest, reach, upsample
from ksdiff_cli.progress import ProgressCallback, silent
from ksdiff_cli.raster_layout import check_pair, check_quality, crs_notes, georeferenced, intersection, lay, warp_reason
from ksdiff_cli.raster_open import alpha_is_data, first_line, open_raster, unreadable
from ksdiff_cli.raster_values import FILL_STEPS, Moments, fill_invalid
from ksdiff_cli.raster_warp import warp_bands, warp_flags, warp_grid
from ksdiff_cli.sensors import Sensor

__all__ = [
    "BandSource",
    "QualityBand",
    "Scene",
    "ScenePair",
    "SceneStatistics",
    "Tile",
    "alpha_is_data",
    "fill_invalid",
    "first_line",
    "open_pair",
    "open_raster",
    "read_band",
]

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
class QualityBand:
    """A band of flags on the MS grid, e.g. Landsat's QA_PIXEL.

    A flag is (mask, value): it is raised where ``flags & mask == value``.
    """

    path: str
    """Anything GDAL opens."""
    fill: tuple[tuple[int, int], ...]
    """Flags of pixels that hold no data."""
    cloud: tuple[tuple[int, int], ...]
    """Flags of clouds, cirrus and cloud shadows: data, but not of the ground."""
    band: int = 1


@dataclass(frozen=True)
class Scene:
    """One acquisition, as a product reader found it: where its bands are and which sensor took them."""

    name: str
    pan: BandSource
    ms: tuple[BandSource, ...]
    sensor: Sensor
    quality: QualityBand | None = None
    """What the product says about its pixels, if it does."""
    shift: tuple[float, float] = (0.0, 0.0)
    """MS rows and columns by which MS shows the ground further down and right than its georeference says."""
    warp: bool = False
    """Whether MS is warped to PAN's grid where it is in another CRS or rotated against PAN; else such MS is refused."""


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
        warped = isinstance(dataset, WarpedVRT)  # then it is NaN wherever it is invalid
        no_mask = warped or MaskFlags.all_valid in flags or (MaskFlags.alpha in flags and source.alpha_is_data)
        valid = np.ones(values.shape, bool) if no_mask else dataset.read_masks(source.band, window=window) > 0
        if source.fill is not None and not warped:
            valid &= values != source.fill
    except RasterioError as error:
        raise unreadable(source.path, error) from None
    values = values.astype(np.float32)
    if not np.isfinite(values).all():
        valid &= np.isfinite(values)
        values = np.where(valid, values, np.float32(0))
    return values, valid


@dataclass
class ScenePair:
    """An open PAN/MS pair on its output grid: PAN's grid, cut to the area that both images cover.

    Windows are given in pixels of that output grid. Open it with :func:`open_pair`.
    """

    scene: Scene
    pan: Any
    """The open PAN dataset."""
    ms: tuple[Any, ...]
    """One open file per MS band (the same object for bands of one file); :meth:`read_ms` may read them warped."""
    grid: GridMap
    """Output pixels -> MS pixels."""
    origin: tuple[int, int]
    """PAN row and column of the output's first pixel."""
    shape: tuple[int, int]
    """(height, width) of the output in PAN pixels."""
    quality: Any = None
    """The open dataset of the scene's quality band, if it has one, pixel on pixel on MS."""
    warped: tuple[Any, ...] = ()
    """What is read in place of ``ms`` where MS had to be warped: one dataset per band, all on one grid along PAN's."""
    notes: list[str] = field(default_factory=list)
    """What a person should know about how the two images were laid on each other."""

    @property
    def bands(self) -> int:
        """Number of MS bands."""
        return len(self.ms)

    @property
    def ms_shape(self) -> tuple[int, int]:
        """(height, width) of the MS image, as it is read."""
        first = (self.warped or self.ms)[0]
        return int(first.height), int(first.width)

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
        for index, (dataset, source) in enumerate(zip(self.warped or self.ms, self.scene.ms, strict=True)):
            values[index], mask = read_band(dataset, source, Window(col, row, width, height))
            valid &= mask
        if self.scene.quality is not None:
            valid &= ~self._flagged(self.scene.quality.fill, row, col, height, width)
        return values, valid

    def read_cloud(self, row: int, col: int, height: int, width: int) -> Array:
        """Read where the product sees clouds or their shadows, in MS pixels: (h, w) bool; none if it does not say."""
        if self.scene.quality is None:
            return np.zeros((height, width), bool)
        return self._flagged(self.scene.quality.cloud, row, col, height, width)

    def read(self, row: int, col: int, height: int, width: int) -> Tile:
        """Read a window of the output grid, MS upsampled onto it. See :class:`Tile`."""
        pan, pan_valid = self.read_pan(row, col, height, width)
        grid = self.grid.shifted(row, col)
        (top, bottom), (left, right) = self._ms_area(grid, (height, width), FILL_STEPS)
        ms, ms_valid = self.read_ms(top, left, bottom - top, right - left)
        ms_up = upsample(fill_invalid(ms, ms_valid), grid, (height, width), (top, left))
        rows, cols = nearest(grid.rows, height, top, bottom), nearest(grid.cols, width, left, right)
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

    def _flagged(self, flags: tuple[tuple[int, int], ...], row: int, col: int, height: int, width: int) -> Array:
        assert self.scene.quality is not None
        try:
            values = self.quality.read(self.scene.quality.band, window=Window(col, row, width, height))
        except RasterioError as error:
            raise unreadable(self.scene.quality.path, error) from None
        values = values.astype(np.int64)  # a mask may need a bit more than the band's type holds
        raised = np.zeros(values.shape, bool)
        for mask, value in flags:
            raised |= (values & mask) == value
        return raised

    def _ms_area(self, grid: GridMap, shape: tuple[int, int], margin: int) -> tuple[tuple[int, int], tuple[int, int]]:
        """MS rows and columns [start, stop) under a PAN window, with the interpolation's reach and a margin."""
        rows, cols = (
            reach(axis, count, size, margin)
            for axis, count, size in zip((grid.rows, grid.cols), shape, self.ms_shape, strict=True)
        )
        return rows, cols


def _blocks(top: int, left: int, height: int, width: int, side: int = 1024) -> Iterator[tuple[int, int, int, int]]:
    """Cut an area into (row, column, height, width) blocks."""
    for row in range(0, height, side):
        for col in range(0, width, side):
            yield top + row, left + col, min(side, height - row), min(side, width - col)


@contextmanager
def open_pair(scene: Scene) -> Iterator[ScenePair]:
    """Open a scene's files, lay the two grids on each other and check that they can be fused.

    Raises:
        KsdiffError: a file is missing or no raster, the images do not overlap, their CRS or directions differ and
            the scene is not to be warped, PAN and MS look swapped, or their sizes cannot be matched.
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
        quality = None
        if scene.quality is not None:
            quality = stack.enter_context(open_raster(scene.quality.path))
            check_quality(quality, ms[0])
        warped: tuple[Any, ...] = ()
        if scene.warp and (why := warp_reason(pan, ms[0])):
            target = warp_grid(pan, ms[0])
            whole = target.map
            notes = [f"MS is warped to PAN's grid at ratio {target.ratio}: {why}", *crs_notes(pan, ms[0])]
            warped = tuple(warp_bands(stack, target, pan, ms, scene.ms))
            quality = quality and warp_flags(stack, target, pan, quality)
        else:
            whole, notes = lay(pan, ms[0])
        if any(scene.shift):
            whole = whole.moved(*scene.shift)
        ms_shape = (warped or ms)[0].shape
        origin, shape = intersection(whole, pan, ms[0], ms_shape)
        if shape != (pan.height, pan.width):
            notes.append(
                f"PAN and MS cover different areas: the output is their common part, {shape[1]} x {shape[0]} "
                f"of PAN's {pan.width} x {pan.height} pixels"
            )
        yield ScenePair(scene, pan, ms, whole.shifted(*origin), origin, shape, quality, warped, notes)
