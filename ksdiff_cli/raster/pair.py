"""The PAN/MS pair as one thing that is read window by window on the PAN grid."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from rasterio.transform import Affine
from rasterio.windows import Window

from ksdiff_cli.errors import KsdiffError
from ksdiff_cli.numerics import Array
from ksdiff_cli.numerics.boxes import Box
from ksdiff_cli.numerics.camera import SceneCamera
from ksdiff_cli.numerics.fill import (
    GAIN,
    MS_LEVELS,
    PAN_LEVELS,
    fill_invalid,
    filling_area,
    follow,
    grow,
    slope_margin,
)
from ksdiff_cli.numerics.grids import (
    GridMap,
    Halfway,
    apply_separable,
    centres,
    degrade,
    gaussian_matrix,
    gaussian_reach,
    mtf_sigma,
    nearest,
    reach,
    upsample,
    upsample_columns,
)
from ksdiff_cli.numerics.moments import BandMoments, SceneStatistics
from ksdiff_cli.progress import ProgressCallback, silent
from ksdiff_cli.raster.bands import BandSource, QualityBand, read_band, read_bands, read_flags, read_stored
from ksdiff_cli.raster.layout import (
    check_colours,
    check_pair,
    check_quality,
    crs_notes,
    crs_of,
    has_geotransform,
    intersection,
    lay,
    sensor_geometry,
    warp_reason,
)
from ksdiff_cli.raster.open import alpha_is_data, first_line, open_raster
from ksdiff_cli.raster.warp import warp_bands, warp_flags, warp_grid
from ksdiff_cli.sensors import Sensor

__all__ = [
    "BandSource",
    "ObservedTile",
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


_PIECE = 256  # side of the pieces in which data are looked for, pixels
_RESOLUTION = 1e-6  # share of the mean, some steps of float32, that a deviation must be
_SIDE = 1024  # of the blocks that statistics are gathered in, pixels


@dataclass(frozen=True)
class Scene:
    """One acquisition, as a product reader found it: where its bands are and which sensor took them."""

    name: str
    pan: BandSource
    ms: tuple[BandSource, ...]
    sensor: Sensor
    quality: QualityBand | None = None
    """The product's quality band, if it has one."""
    shift: tuple[float, float] = (0.0, 0.0)
    """MS rows and columns by which MS shows the ground further down and right than its georeference says."""
    warp: bool = False
    """Whether MS is warped to PAN's grid where it is in another CRS or rotated against PAN; else such MS is refused."""


@dataclass(frozen=True)
class Tile:
    """A window of a pair, everything on the PAN grid."""

    pan: Array
    """(1, H, W) float32, DN; invalid pixels filled from their neighbours."""
    ms_up: Array
    """(bands, H, W) float32, DN; upsampled MS."""
    valid: Array
    """(H, W) bool; True where PAN and all MS bands hold data."""

    def cut(self, box: Box) -> "Tile":
        """Return a part of it."""
        rows, cols = box.within(Box(0, 0, *self.valid.shape))
        return Tile(self.pan[:, rows, cols], self.ms_up[:, rows, cols], self.valid[rows, cols])


class ObservedTile(Tile):
    """A window with MS as it was delivered, upsampled only for whoever asks for that."""

    def __init__(
        self, pan: Array, valid: Array, ms: Array, belief: Array | None, grid: GridMap, ms_up: Array | None = None
    ) -> None:
        """Put it together.

        Args:
            pan: see :class:`Tile`.
            valid: see :class:`Tile`.
            ms: (bands, h, w) float32, DN; the MS pixels whose centres lie in the window, holes filled.
            belief: (h, w) float32 in 0..1, how far each of them is believed: 0 where it is invalid, less than 1 where
                what it sees of PAN is invalid in part; None where all are.
            grid: the map from the window's pixels to those of ``ms``.
            ms_up: where it was upsampled in another way.
        """
        given = {"pan": pan, "valid": valid, "ms": ms, "belief": belief, "grid": grid}
        for name, value in (given if ms_up is None else given | {"ms_up": ms_up}).items():
            object.__setattr__(self, name, value)

    ms: Array
    belief: Array | None
    grid: GridMap

    @cached_property
    def ms_up(self) -> Array:
        """(bands, H, W) float32, see :class:`Tile`; at the window's border its outermost MS pixels go on."""
        return upsample(self.ms, self.grid, (self.valid.shape[0], self.valid.shape[1]))

    def cut(self, box: Box) -> "ObservedTile":
        """See :meth:`Tile.cut`; MS is cut to the pixels whose centres lie in the part."""
        rows, cols = box.within(Box(0, 0, *self.valid.shape))
        axes = ((self.grid.rows, box.top, box.height), (self.grid.cols, box.left, box.width))
        (top, bottom), (left, right) = (
            centres(axis, first, count, size)
            for (axis, first, count), size in zip(axes, self.ms.shape[1:], strict=True)
        )
        belief = None if self.belief is None else self.belief[top:bottom, left:right]
        grid = self.grid.shifted(box.top, box.left).moved(-top, -left)
        ms = self.ms[:, top:bottom, left:right]
        return ObservedTile(
            self.pan[:, rows, cols], self.valid[rows, cols], ms, belief, grid, self.ms_up[:, rows, cols]
        )


@dataclass(frozen=True)
class Swath:
    """A window of a pair whose rows become a :class:`Tile` when they are wanted: few of them stay in the cache."""

    pan: Array
    """(1, H, W) float32, see :class:`Tile`."""
    ms: Halfway
    valid: Array
    """(H, W) bool, see :class:`Tile`."""

    def rows(self, start: int, stop: int) -> Tile:
        """Return rows [start, stop), the same bits as the whole window has there."""
        return Tile(self.pan[:, start:stop], self.ms.upsampled(start, stop), self.valid[start:stop])


@dataclass
class ScenePair:
    """An open PAN/MS pair on its output grid: PAN's grid, cut to the area that both images cover.

    Windows are given in pixels of that output grid. Open it with :func:`open_pair`. Whatever is read of a pixel has the
    same bits in every window.
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
    true_ratio: float
    """PAN pixels per MS pixel along the side that has fewer, as the files say, neither rounded nor warped."""
    quality: Any = None
    """The open dataset of the scene's quality band, if it has one, pixel on pixel on MS."""
    warped: tuple[Any, ...] = ()
    """The datasets read in place of ``ms`` where MS had to be warped, one per band, all on one grid along PAN's."""
    notes: list[str] = field(default_factory=list)
    """Notes for people on how the two images were laid on each other."""
    fill: SceneStatistics | None = None
    """The statistics by which :meth:`read` fills holes far from data. Set by :meth:`statistics`, which the first window
    with a hole calls otherwise; give it to other pairs of the same scene."""
    camera: SceneCamera | None = None
    """What :func:`ksdiff_cli.raster.camera.find_camera` found."""

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
    def _by_ms(self) -> bool:
        """Whether MS alone says where the output lies: PAN has neither a geotransform nor GCPs or RPCs."""
        return not has_geotransform(self.pan) and has_geotransform(self.ms[0]) and not sensor_geometry(self.pan)

    @property
    def located(self) -> bool:
        """Whether a geotransform says where the output lies."""
        return has_geotransform(self.pan) or self._by_ms

    @property
    def transform(self) -> Affine:
        """Geotransform of the output grid: PAN's, or what follows from that of MS where only MS has one."""
        if not self._by_ms:
            return self.pan.transform @ Affine.translation(self.origin[1], self.origin[0])
        rows, cols = self.grid.rows, self.grid.cols
        # from centres to corners: half a pixel on both sides
        first = [axis.offset + (1 - axis.scale) / 2 for axis in (cols, rows)]
        return self.ms[0].transform @ Affine.translation(*first) @ Affine.scale(cols.scale, rows.scale)

    @property
    def crs(self) -> Any:
        """CRS of the output: PAN's, or that of MS where PAN's coordinates are taken to be in it; None without."""
        pan, ms = crs_of(self.pan), crs_of(self.ms[0])
        return (ms or pan) if self._by_ms else pan or (ms if self.located else None)

    @property
    def georeferenced(self) -> bool:
        """Whether the output carries a geotransform or a CRS."""
        return self.located or self.crs is not None

    def read_pan(self, row: int, col: int, height: int, width: int) -> tuple[Array, Array]:
        """Read a PAN window: ((1, h, w) float32, (h, w) bool)."""
        window = Window(col + self.origin[1], row + self.origin[0], width, height)
        return read_bands([self.pan], [self.scene.pan], window)

    def read_ms(self, row: int, col: int, height: int, width: int) -> tuple[Array, Array]:
        """Read an MS window, in MS pixels: ((bands, h, w) float32, (h, w) bool, all bands valid)."""
        window = Window(col, row, width, height)
        values, valid = read_bands(self.warped or self.ms, self.scene.ms, window)
        if self.scene.quality is not None:
            valid &= ~read_flags(self.quality, self.scene.quality, self.scene.quality.fill, window)
        return values, valid

    def read_cloud(self, row: int, col: int, height: int, width: int) -> Array:
        """Read where the product sees clouds or their shadows, in MS pixels: (h, w) bool; none if it does not say."""
        if self.scene.quality is None:
            return np.zeros((height, width), bool)
        return read_flags(self.quality, self.scene.quality, self.scene.quality.cloud, Window(col, row, width, height))

    def read(self, row: int, col: int, height: int, width: int) -> Tile:
        """Read a window of the output grid, MS upsampled onto it. See :class:`Tile`."""
        pan, valid, ms, _, start = self._read(row, col, height, width)
        return Tile(pan, upsample(ms, self.grid, (height, width), start, (row, col)), valid)

    def read_swath(self, row: int, col: int, height: int, width: int) -> Swath:
        """Read a window of the output grid, MS upsampled along one axis only. See :class:`Swath`."""
        pan, valid, ms, _, start = self._read(row, col, height, width)
        return Swath(pan, upsample_columns(ms, self.grid, (height, width), start, (row, col)), valid)

    def read_observed(self, row: int, col: int, height: int, width: int) -> ObservedTile:
        """Read a window of the output grid with MS as it was delivered. See :class:`ObservedTile`."""
        pan, valid, ms, known, start = self._read(row, col, height, width)
        axes = ((self.grid.rows, row, height), (self.grid.cols, col, width))
        (top, bottom), (left, right) = (
            centres(axis, first, count, size) for (axis, first, count), size in zip(axes, self.ms_shape, strict=True)
        )
        inside = Box(top, left, bottom, right).moved(-start[0], -start[1]).within(Box(0, 0, *known.shape))
        ms, known = ms[:, *inside], known[inside]
        grid = self.grid.shifted(row, col).moved(-top, -left)
        if valid.all() and known.all():
            return ObservedTile(pan, valid, ms, None, grid)
        seen = degrade(valid[None].astype(np.float32), grid, known.shape, (GAIN,))[0]
        return ObservedTile(pan, valid, ms, known * seen, grid)

    def _read(self, row: int, col: int, height: int, width: int) -> tuple[Array, Array, Array, Array, tuple[int, int]]:
        """Read a window: PAN, where both are valid, the MS under it, where that is, and its first pixel."""
        pan, valid = self.read_pan(row, col, height, width)
        if not valid.all():
            pan = self._filled_pan(row, col, height, width)
        (top, bottom), (left, right) = self._ms_area((row, col), (height, width))
        ms, ms_valid = self.read_ms(top, left, bottom - top, right - left)
        if not ms_valid.all():
            ms = self._filled_ms(top, left, bottom - top, right - left)
            rows = nearest(self.grid.rows, height, top, bottom, row)
            cols = nearest(self.grid.cols, width, left, right, col)
            valid &= ms_valid[np.ix_(rows, cols)]
        return pan, valid, ms, ms_valid, (top, left)

    def holds_data(self, box: Box) -> bool:
        """Say whether both images are valid in some pixel of a window of the output grid; nothing is filled for it."""
        if self.fill is not None and not self.fill.holes:
            return True
        # piece by piece: where there are data, most pieces need not be read
        return any(self._meet(one.top, one.left, one.height, one.width) for one in box.pieces(_PIECE))

    def _meet(self, row: int, col: int, height: int, width: int) -> bool:
        """Say whether both images are valid in some pixel of a window of the output grid."""
        _, valid = self.read_pan(row, col, height, width)
        if not valid.any():
            return False
        (top, bottom), (left, right) = self._ms_area((row, col), (height, width))
        _, ms_valid = self.read_ms(top, left, bottom - top, right - left)
        rows = nearest(self.grid.rows, height, top, bottom, row)
        cols = nearest(self.grid.cols, width, left, right, col)
        return bool((valid & ms_valid[np.ix_(rows, cols)]).any())

    def statistics(
        self, progress: ProgressCallback = silent, watch: Callable[[Box], None] | None = None
    ) -> SceneStatistics:
        """Gather the scene's statistics in one streamed pass over the area that both images cover.

        Args:
            progress: told the blocks read.
            watch: given each part of the output grid once its PAN has been read; what it reads of that now need not be
                decoded anew.

        Raises:
            KsdiffError: no valid pixel at all, or none that both images have.
        """
        pan, ms = BandMoments(1), BandMoments(self.bands)
        below = {False: np.zeros(1), True: np.zeros(self.bands)}  # sums of what is negative
        (top, bottom), (left, right) = self._ms_area((0, 0), self.shape)
        height, width = bottom - top, right - left
        blocks = [(False, *block) for block in _blocks(self.pan, 0, 0, *self.shape)]
        blocks += [(True, *block) for block in _blocks((self.warped or self.ms)[0], top, left, height, width)]
        for done, (is_ms, *block) in enumerate(blocks):
            values, valid = self.read_ms(*block) if is_ms else self.read_pan(*block)
            samples = values.reshape(len(values), -1) if valid.all() else values[:, valid]
            (ms if is_ms else pan).add(samples)
            if samples.min(initial=0) < 0:
                below[is_ms] -= np.minimum(samples, 0).sum(1, dtype=np.float64)
            if watch and not is_ms:
                row, col, high, wide = block
                watch(Box(row, col, row + high, col + wide))
            progress(done + 1, len(blocks), "statistics")
        if pan.count == 0 or ms.count == 0:
            which = self.scene.pan.path if pan.count == 0 else self.scene.ms[0].path
            raise KsdiffError(f"{which}: every pixel is nodata; nothing to sharpen")
        pan_holes, ms_holes = pan.count < self.shape[0] * self.shape[1], ms.count < height * width
        if pan_holes and ms_holes and not any(self._meet(*block) for block in _blocks(self.pan, 0, 0, *self.shape)):
            raise KsdiffError(
                f"{self.scene.pan.path}: is nodata wherever {self.scene.ms[0].path} holds data, so nothing can be "
                "sharpened; give images whose valid parts overlap"
            )
        (pan_mean, pan_std), (ms_mean, ms_std) = pan.result(), ms.result()
        self._check_size(pan_mean, pan_std, [self.pan], [self.scene.pan])
        self._check_size(ms_mean, ms_std, self.ms, self.scene.ms)
        sums = np.array([pan_mean.sum() * pan.count, ms_mean.sum() * ms.count])
        low = np.array([below[False].sum(), below[True].sum()])
        negative = np.divide(low, sums + 2 * low, out=np.zeros(2), where=low > 0).max()
        found = float(pan_mean[0]), float(pan_std[0]), ms_mean, ms_std, pan_holes or ms_holes, float(negative)
        self.fill = SceneStatistics(*found)
        return self.fill

    def _check_size(self, mean: Array, std: Array, datasets: Sequence[Any], sources: Sequence[BandSource]) -> None:
        """Refuse values that float32 does not tell from each other, be it that they are near 0 or far from it."""
        if (std > _RESOLUTION * np.abs(mean)).all():
            return
        sides = (min(side, _SIDE) for side in datasets[0].shape[::-1])
        stored, valid = read_stored(datasets, sources, Window(0, 0, *sides))
        for source, band, middle, deviation in zip(sources, stored, mean, std, strict=True):
            exact = band.dtype.itemsize <= (4 if band.dtype.kind == "f" else 2)
            known = band[valid]
            if exact or deviation > _RESOLUTION * abs(middle) or not known.size or known.min() == known.max():
                continue
            if middle:
                raise KsdiffError(
                    f"{source.path}: has values about {middle:.6g} that differ too little for float32, by "
                    f"{deviation:.2g}; subtract a constant first"
                )
            raise KsdiffError(f"{source.path}: its values are too small to compute with; scale the image up")

    def _filled_pan(self, row: int, col: int, height: int, width: int) -> Array:
        """Read a PAN window with its holes filled, (1, h, w); without any, no more than the window is read."""
        values, valid = self.read_pan(row, col, height, width)
        if valid.all():
            return values
        (top, bottom), (left, right) = (
            filling_area(start, count, size, PAN_LEVELS)
            for start, count, size in zip((row, col), (height, width), self.shape, strict=True)
        )
        values, valid = self.read_pan(top, left, bottom - top, right - left)
        filled = grow(values, valid, np.array([self._known().pan_mean]), PAN_LEVELS)
        return filled[:, row - top : row - top + height, col - left : col - left + width]

    def _filled_ms(self, row: int, col: int, height: int, width: int) -> Array:
        """Read an MS window with its holes filled, (bands, h, w), from PAN under it too."""
        (top, bottom), (left, right) = (
            filling_area(start, count, size, MS_LEVELS, slope_margin())
            for start, count, size in zip((row, col), (height, width), self.ms_shape, strict=True)
        )
        values, valid = self.read_ms(top, left, bottom - top, right - left)
        pan_low = self._pan_low((top, left), valid.shape)
        filled = follow(values, valid, pan_low, self._known())
        return filled[:, row - top : row - top + height, col - left : col - left + width]

    def _pan_low(self, first: tuple[int, int], shape: tuple[int, ...]) -> Array:
        """Look at PAN, its holes filled, through a camera at MS pixels from ``first`` on, (h, w) DN."""
        spans, matrices = [], []
        for axis, start, count, size in zip((self.grid.rows, self.grid.cols), first, shape, self.shape, strict=True):
            at = axis.to_pan(start + np.arange(count))
            sigma = mtf_sigma(GAIN, 1 / abs(axis.scale))
            begin = min(max(0, math.floor(at.min()) - gaussian_reach(sigma)), size - 1)
            stop = max(begin + 1, min(size, math.ceil(at.max()) + gaussian_reach(sigma) + 1))
            spans.append((begin, stop - begin))
            matrices.append(gaussian_matrix(at, stop - begin, sigma, begin))
        (top, height), (left, width) = spans
        pan = self._filled_pan(top, left, height, width)
        return np.asarray(apply_separable(matrices[0], matrices[1], pan)[0])

    def _known(self) -> SceneStatistics:
        return self.fill or self.statistics()

    def _ms_area(self, first: tuple[int, int], shape: tuple[int, int]) -> tuple[tuple[int, int], tuple[int, int]]:
        """MS rows and columns [start, stop) under a PAN window, with the interpolation's reach."""
        rows, cols = (
            reach(axis, count, size, start)
            for axis, count, size, start in zip(
                (self.grid.rows, self.grid.cols), shape, self.ms_shape, first, strict=True
            )
        )
        return rows, cols


def _blocks(dataset: Any, top: int, left: int, height: int, width: int) -> Iterator[tuple[int, int, int, int]]:
    """Cut an area of an open file into (row, column, height, width) blocks of a megapixel.

    A file in strips is read in strips: GDAL decodes a strip whole, and its cache does not hold many wide ones.
    """
    in_strips = dataset.block_shapes[0][1] >= dataset.width > _SIDE
    high, wide = (max(1, _SIDE * _SIDE // width), width) if in_strips else (_SIDE, _SIDE)
    for row in range(0, height, high):
        for col in range(0, width, wide):
            yield top + row, left + col, min(high, height - row), min(wide, width - col)


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
        check_colours(pan, [scene.pan.band])
        for dataset, source in zip(ms, scene.ms, strict=True):
            check_colours(dataset, [source.band])
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
            true_ratio = target.ratio * min(target.scale)
        else:
            whole, notes = lay(pan, ms[0])
            true_ratio = min(1 / abs(axis.scale) for axis in (whole.rows, whole.cols))
        if any(scene.shift):
            whole = whole.moved(*scene.shift)
        ms_shape = (warped or ms)[0].shape
        origin, shape = intersection(whole, pan, ms[0], ms_shape)
        if shape != (pan.height, pan.width):
            notes.append(
                f"PAN and MS cover different areas: the output is their common part, {shape[1]} x {shape[0]} "
                f"of PAN's {pan.width} x {pan.height} pixels"
            )
        yield ScenePair(scene, pan, ms, whole.shifted(*origin), origin, shape, true_ratio, quality, warped, notes)
