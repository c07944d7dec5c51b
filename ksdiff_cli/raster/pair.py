"""The PAN/MS pair as one thing that is read window by window on the PAN grid."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Self

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
    filling_area,
    follow,
    grow,
    slope_margin,
)
from ksdiff_cli.numerics.grids import (
    GridMap,
    centres,
    degrade,
    gaussian_reach,
    mtf_sigma,
    nearest,
    reach,
    upsample,
    upsample_columns,
)
from ksdiff_cli.numerics.looking import look
from ksdiff_cli.numerics.moments import SceneStatistics
from ksdiff_cli.numerics.shift_field import ShiftField
from ksdiff_cli.numerics.shifted import pick_shifted, read_shifted
from ksdiff_cli.progress import ProgressCallback, silent
from ksdiff_cli.raster.bands import BandSource, QualityBand, read_bands, read_flags
from ksdiff_cli.raster.guide import Companion, GuideBands, Mix
from ksdiff_cli.raster.layout import (
    check_bands,
    check_colours,
    check_pair,
    check_quality,
    crs_notes,
    crs_of,
    has_geotransform,
    intersection,
    lay,
    ratio_by_size,
    sensor_geometry,
    warp_reason,
)
from ksdiff_cli.raster.open import open_raster
from ksdiff_cli.raster.sensor_model import Laid, lay_by_model
from ksdiff_cli.raster.survey import survey
from ksdiff_cli.raster.tiles import ObservedTile, Swath, Tile
from ksdiff_cli.raster.warp import warp_bands, warp_flags, warp_grid
from ksdiff_cli.sensors import Sensor

if TYPE_CHECKING:
    from ksdiff_cli.raster.synthesis import GuidedScene

_PIECE = 256  # side of the pieces in which data are looked for, pixels
_SOFTEST = 0.05  # MTF gain whose view is read ahead, for any companion


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
    field: ShiftField | None = None
    """How much further than ``shift``, where that varies over the scene; MS is then read resampled to where it is 0."""
    warp: bool = False
    """Whether MS is warped to PAN's grid where it is in another CRS or rotated against PAN; else such MS is refused."""
    mix: Mix | None = None
    """What PAN is made of; ``pan`` is then the first of these bands, whose grid and metadata are PAN's."""
    companion: Companion | None = None
    """What goes along with MS as its last band, :attr:`ScenePair.bands` counts it; None for nothing."""
    others: tuple["GuidedScene", ...] = ()
    """Coarser bands that the product holds besides, which finer ones of it can guide."""
    copies: tuple[tuple[str, str], ...] = ()
    """Files and, for each, a copy of the same pixels that is read in its place, for it is read faster."""

    def sources(self) -> tuple[BandSource, ...]:
        """Return every band that is read, some perhaps twice; the quality band is none of them."""
        return (self.pan, *(self.mix.bands if self.mix else ()), *self.ms)

    def files(self) -> list[str]:
        """Return the names of all rasters that are read, some perhaps twice."""
        return [*(source.path for source in self.sources()), *([self.quality.path] if self.quality else [])]

    def renamed(self, rename: Callable[[str], str]) -> Self:
        """Return the same scene by other names of its files."""

        def moved(sources: Sequence[BandSource]) -> tuple[BandSource, ...]:
            return tuple(replace(source, path=rename(source.path)) for source in sources)

        quality = self.quality and replace(self.quality, path=rename(self.quality.path))
        mix = self.mix and replace(self.mix, bands=moved(self.mix.bands))
        copies = tuple((rename(path), copy) for path, copy in self.copies)
        return replace(self, pan=moved([self.pan])[0], ms=moved(self.ms), quality=quality, mix=mix, copies=copies)


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
    guide: GuideBands | None = None
    """The open bands of the scene's mix, if PAN is one."""
    laid: Laid | None = None
    """What lays PAN and MS on each other where both are in sensor geometry; None where a map or their corners do."""

    @property
    def bands(self) -> int:
        """Number of MS bands, and of the companion."""
        return len(self.ms) + (self.scene.companion is not None)

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
        if self.scene.mix is not None and self.guide is not None:
            return self.guide.mix(self.scene.mix, window)
        return read_bands([self.pan], [self.scene.pan], window)

    def read_ms(self, row: int, col: int, height: int, width: int) -> tuple[Array, Array]:
        """Read an MS window, in MS pixels: ((bands, h, w) float32, (h, w) bool, all bands valid)."""
        values, valid = self.read_delivered(row, col, height, width)
        if self.scene.companion is None:
            return values, valid
        seen = self._pan_low((row, col), valid.shape, self.scene.companion.gain)
        return np.concatenate([values, seen[None]]), valid

    def read_delivered(self, row: int, col: int, height: int, width: int) -> tuple[Array, Array]:
        """Do what :meth:`read_ms` does, without the companion."""
        if self.scene.field is not None:
            return read_shifted(
                self._read_unmoved, self.scene.field, Box(row, col, row + height, col + width), self.ms_shape
            )
        return self._read_unmoved(row, col, height, width)

    def _read_unmoved(self, row: int, col: int, height: int, width: int) -> tuple[Array, Array]:
        """Do what :meth:`read_delivered` does, whatever the scene's field."""
        window = Window(col, row, width, height)
        values, valid = read_bands(self.warped or self.ms, self.scene.ms, window)
        if self.scene.quality is not None:
            valid &= ~read_flags(self.quality, self.scene.quality, self.scene.quality.fill, window)
        return values, valid

    def read_cloud(self, row: int, col: int, height: int, width: int) -> Array:
        """Read where the product sees clouds or their shadows, in MS pixels: (h, w) bool; none if it does not say."""
        if self.scene.quality is None:
            return np.zeros((height, width), bool)
        box = Box(row, col, row + height, col + width)
        if self.scene.field is not None:
            return pick_shifted(self._read_cloud_unmoved, self.scene.field, box, self.ms_shape)
        return self._read_cloud_unmoved(box)

    def _read_cloud_unmoved(self, box: Box) -> Array:
        assert self.scene.quality is not None
        window = Window(box.left, box.top, box.width, box.height)
        return read_flags(self.quality, self.scene.quality, self.scene.quality.cloud, window)

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
        if self.scene.companion is not None:
            self._look_around(row, col, height, width)
        pan, valid = self.read_pan(row, col, height, width)
        if not valid.all():
            pan = self._filled_pan(row, col, height, width)
        (top, bottom), (left, right) = self.ms_area((row, col), (height, width))
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
        (top, bottom), (left, right) = self.ms_area((row, col), (height, width))
        _, ms_valid = self.read_delivered(top, left, bottom - top, right - left)
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
        self.fill = survey([self], progress, watch)[0]
        return self.fill

    def recall(self, statistics: SceneStatistics) -> None:
        """Take the statistics that another pair of the same scene has gathered."""
        self.fill = statistics

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

    def _pan_low(self, first: tuple[int, int], shape: tuple[int, ...], gain: float = GAIN) -> Array:
        """Look at PAN, its holes filled, through a camera at MS pixels from ``first`` on, (h, w) DN."""

        def read(box: Box) -> tuple[Array, Array]:
            pan = self._filled_pan(box.top, box.left, box.height, box.width)
            return pan, np.ones(pan.shape[1:], bool)

        box = Box(*first, first[0] + shape[0], first[1] + shape[1])
        return np.asarray(look(read, self.grid, self.shape, box, (gain,))[0][0])

    def _look_around(self, row: int, col: int, height: int, width: int) -> None:
        """Read a PAN window with all that the companion sees from it: what is read of it after that is at hand."""
        if self.guide is None or self.scene.companion is None:
            return
        spans = []
        axes = (self.grid.rows, self.grid.cols), (row, col), (height, width), self.ms_shape, self.shape, self.origin
        for axis, start, count, ms_size, size, origin in zip(*axes, strict=True):
            first, stop = reach(axis, count, ms_size, start)
            ends = sorted((float(axis.to_pan(first)), float(axis.to_pan(stop - 1))))
            far = gaussian_reach(mtf_sigma(_SOFTEST, 1 / abs(axis.scale))) + 1
            begin = max(0, min(start, math.floor(ends[0]) - far))
            end = min(size, max(start + count, math.ceil(ends[1]) + far))
            spans.append((begin + origin, end - begin))
        (top, high), (left, wide) = spans
        self.guide.read(Window(left, top, wide, high))

    def _known(self) -> SceneStatistics:
        return self.fill or self.statistics()

    def ms_area(self, first: tuple[int, int], shape: tuple[int, int]) -> tuple[tuple[int, int], tuple[int, int]]:
        """MS rows and columns [start, stop) under a PAN window, with the interpolation's reach."""
        rows, cols = (
            reach(axis, count, size, start)
            for axis, count, size, start in zip(
                (self.grid.rows, self.grid.cols), shape, self.ms_shape, first, strict=True
            )
        )
        return rows, cols


class OpenFiles:
    """The files of one scene or of several pairs, each open once until ``stack`` is closed."""

    def __init__(self, stack: ExitStack, copies: Sequence[tuple[str, str]] = ()) -> None:
        """Start with none; for ``copies`` see :class:`Scene`."""
        self._stack, self._copies = stack, dict(copies)
        self._files: dict[str, Any] = {}
        self._guides: dict[tuple[BandSource, ...], GuideBands] = {}

    def open(self, path: str) -> Any:
        """Return a file.

        Raises:
            KsdiffError: it is missing or no raster.
        """
        if path not in self._files:
            self._files[path] = self._stack.enter_context(open_raster(self._copies.get(path, path)))
        return self._files[path]

    def find(self, source: BandSource) -> Any:
        """Return the file of a band.

        Raises:
            KsdiffError: it is missing or no raster, has no such band, or the band holds indexes into a colour table.
        """
        dataset = self.open(source.path)
        if not 1 <= source.band <= dataset.count:
            raise KsdiffError(f"{source.path}: has no band {source.band}, only {dataset.count}; choose with -b")
        return dataset

    def guide(self, bands: Sequence[BandSource]) -> GuideBands:
        """Return the reader of some bands, which must share one grid.

        Raises:
            KsdiffError: see :meth:`find`; or they do not.
        """
        key = tuple(bands)
        if key not in self._guides:
            datasets = [self.find(source) for source in bands]
            check_bands(datasets, "finer bands")
            for dataset, source in zip(datasets, bands, strict=True):
                check_colours(dataset, [source.band])
            self._guides[key] = GuideBands(datasets, bands)
        return self._guides[key]


@contextmanager
def open_pair(scene: Scene, opened: OpenFiles | None = None) -> Iterator[ScenePair]:
    """Open a scene's files, lay the two grids on each other and check that they can be fused.

    Args:
        scene: where its bands are.
        opened: keeps the files open for other pairs, too.

    Raises:
        KsdiffError: a file is missing or no raster, the images do not overlap, their CRS or directions differ and
            the scene is not to be warped, PAN and MS look swapped, or their sizes cannot be matched.
    """
    with ExitStack() as stack:
        opened = opened or OpenFiles(stack, scene.copies)
        pan, *ms = (opened.find(source) for source in (scene.pan, *scene.ms))
        guide = None if scene.mix is None else opened.guide(scene.mix.bands)
        check_pair(pan, tuple(ms))
        for dataset, source in zip((pan, *ms), (scene.pan, *scene.ms), strict=True):
            check_colours(dataset, [source.band])
        quality = None
        if scene.quality is not None:
            quality = opened.open(scene.quality.path)
            check_quality(quality, ms[0])
        warped: tuple[Any, ...] = ()
        laid = lay_by_model(pan, ms[0], ratio_by_size(pan, ms[0]))
        if laid is not None:
            whole, notes = laid.grid, list(laid.notes)
            true_ratio = min(1 / axis.scale for axis in (whole.rows, whole.cols))
        elif scene.warp and (why := warp_reason(pan, ms[0])):
            target = warp_grid(pan, ms[0])
            whole = target.map
            notes = [f"MS is warped to PAN's grid at ratio {target.ratio}: {why}", *crs_notes(pan, ms[0])]
            warped = tuple(warp_bands(stack, target, pan, tuple(ms), scene.ms))
            quality = quality and warp_flags(stack, target, pan, quality)
            true_ratio = target.ratio * min(target.scale)
        else:
            whole, notes = lay(pan, ms[0])
            true_ratio = min(1 / abs(axis.scale) for axis in (whole.rows, whole.cols))
        if any(scene.shift):
            whole = whole.moved(*scene.shift)
        ms_shape = (warped or ms)[0].shape
        if scene.field is None:
            origin, shape = intersection(whole, pan, ms[0], ms_shape)
        else:
            (top, bottom), (left, right) = scene.field.inset(ms_shape)
            seen = max(1, ms_shape[0] - top - bottom), max(1, ms_shape[1] - left - right)
            origin, shape = intersection(whole.moved(-top, -left), pan, ms[0], seen)
        if shape != (pan.height, pan.width):
            notes.append(
                f"PAN and MS cover different areas: the output is their common part, {shape[1]} x {shape[0]} "
                f"of PAN's {pan.width} x {pan.height} pixels"
            )
        grid = whole.shifted(*origin)
        yield ScenePair(
            scene, pan, tuple(ms), grid, origin, shape, true_ratio, quality, warped, notes, guide=guide, laid=laid
        )
