"""Classical methods as fusers, and the choice of a fuser by name."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ksdiff_cli.checks import OTHER_METHODS, Geometry, Mtf
from ksdiff_cli.classical import METHODS, SceneBlock, Setup, fuse, make_setup
from ksdiff_cli.errors import KsdiffError, did_you_mean
from ksdiff_cli.fusers.base import Fuser, check_pan
from ksdiff_cli.fusers.network import Network
from ksdiff_cli.numerics import Array
from ksdiff_cli.numerics.boxes import Box
from ksdiff_cli.numerics.camera import Kernel
from ksdiff_cli.numerics.grids import apply_separable, cubic_matrix, gaussian_matrix, gaussian_reach, reach
from ksdiff_cli.numerics.moments import JointMoments, SceneStatistics
from ksdiff_cli.progress import ProgressCallback, silent
from ksdiff_cli.raster.camera import find_camera
from ksdiff_cli.raster.nodata import hint_fill
from ksdiff_cli.raster.pair import ScenePair
from ksdiff_cli.raster.tiles import Swath, Tile
from ksdiff_cli.sensors import Sensor

_TRACE = 1e-4  # of what a pixel sees may be invalid


class ThinSurvey:
    """The moments that :class:`ksdiff_cli.classical.method.Thinned` asks for, of pixels that see valid ones only."""

    def __init__(self, pair: "ScenePair", kernels: Sequence[Kernel]) -> None:
        """Start with nothing of a scene."""
        self.pair, self.moments = pair, JointMoments()
        self._kernels = kernels
        self._sigmas = list(dict.fromkeys(sigma for kernel in kernels for _, sigma in kernel))
        self._reach = gaussian_reach(max(self._sigmas))

    def watch(self, box: Box) -> None:
        """Take in a part of the output grid."""
        step = self.pair.grid.ratio + 1
        spans = (box.top, box.bottom), (box.left, box.right)
        rows, cols = (np.arange(-(-start // step) * step, stop, step) for start, stop in spans)
        if rows.size and cols.size:
            pan, lows, core = self._blurred(rows, cols)
            ms_up, known = self._interpolated(rows, cols)
            self.moments.add(pan, ms_up, lows, where=core & known)

    def _blurred(self, rows: Array, cols: Array) -> tuple[Array, Array, Array]:
        """Return PAN (h, w), PAN through each filter (n, h, w) and where that is valid (h, w)."""
        (top, bottom), (left, right) = (
            (max(0, int(at[0]) - self._reach), min(size, int(at[-1]) + self._reach + 1))
            for at, size in zip((rows, cols), self.pair.shape, strict=True)
        )
        pan, valid = self.pair.read_pan(top, left, bottom - top, right - left)
        at = rows - top, cols - left
        places = [*zip(at, valid.shape, strict=True)]
        cameras = [[gaussian_matrix(place, size, sigma) for place, size in places] for sigma in self._sigmas]
        core = np.ones((rows.size, cols.size), bool)
        if not valid.all():
            pan = np.where(valid, pan, 0)
            for down, across in cameras:
                core &= apply_separable(down, across, ~valid[None])[0] <= _TRACE
            core &= valid[np.ix_(*at)]
        seen = [apply_separable(down, across, pan)[0].astype(np.float64) for down, across in cameras]
        blurred = dict(zip(self._sigmas, seen, strict=True))
        lows = [sum(weight * blurred[sigma] for weight, sigma in kernel) for kernel in self._kernels]
        return pan[0][np.ix_(*at)].astype(np.float64), np.stack(lows), core

    def _interpolated(self, rows: Array, cols: Array) -> tuple[Array, Array]:
        """Return upsampled MS (bands, h, w) and where it is valid (h, w)."""
        grid = self.pair.grid
        places = [*zip((grid.rows, grid.cols), (rows, cols), self.pair.ms_shape, strict=True)]
        (top, bottom), (left, right) = (
            reach(axis, int(at[-1] - at[0]) + 1, size, int(at[0])) for axis, at, size in places
        )
        ms, valid = self.pair.read_ms(top, left, bottom - top, right - left)
        up, over = (
            cubic_matrix(axis.to_ms(at), size, start)
            for (axis, at, _), size, start in zip(places, valid.shape, (top, left), strict=True)
        )
        known = np.ones((rows.size, cols.size), bool)
        if not valid.all():
            ms = np.where(valid, ms, 0)
            known = apply_separable(abs(up), abs(over), ~valid[None])[0] <= _TRACE
        return apply_separable(up, over, ms).astype(np.float64), known


__all__ = ["Classical", "Network", "Upsampling", "make_fuser"]


_BLOCK = 512  # side of the pieces that a classical method surveys, PAN pixels, whatever windows are sharpened later
_NEGATIVE = 0.05  # share of negative values in the sum of all, up to which quotients of radiances make sense
_LARGE = 1 << 22  # pixels of a scene above which some of them tell enough


class Upsampling(Fuser):
    """``exp``: MS interpolated to the PAN grid and nothing else; what every method must beat."""

    quick = True

    def read(self, pair: ScenePair, seen: Box) -> Swath:
        """See :meth:`Fuser.read`: it looks at one pixel at a time."""
        return pair.read_swath(seen.top, seen.left, seen.height, seen.width)

    def fuse(self, tile: Tile, statistics: SceneStatistics, ratio: int) -> Array:
        return tile.ms_up

    def bytes_per_pixel(self, bands: int) -> int:
        """See :meth:`Fuser.bytes_per_pixel`: the result is the tile's own."""
        return 0

    def provenance(self) -> Mapping[str, str]:
        return {"METHOD": "exp"}


class Classical(Fuser):
    """A classical method: coefficients from the whole scene, then applied window by window."""

    quick = True

    def __init__(self, name: str, mtf: Mtf = "sensor") -> None:
        """Take the method called ``name`` in :data:`ksdiff_cli.classical.METHODS`; ``mtf`` says whose MTF counts."""
        self._name, self._method = name, METHODS[name]
        self.uses_mtf = self._method.uses_mtf
        self.uses_camera = self.uses_mtf and mtf == "scene"
        self._prepared: tuple[Any, Setup] | None = None
        self._seen: ThinSurvey | None = None

    def reach(self, ratio: int) -> int:
        return self._method.apply_reach(ratio)

    def watch(self, pair: ScenePair) -> Callable[[Box], None] | None:
        self._seen, thinned = None, self._method.thinned
        if thinned and pair.shape[0] * pair.shape[1] > _LARGE:
            self._seen = ThinSurvey(pair, thinned.kernels(self._setup(pair)))
        return self._seen.watch if self._seen else None

    def prepare(self, pair: ScenePair, statistics: SceneStatistics, progress: ProgressCallback = silent) -> None:
        check_pan(pair, statistics)
        if self._method.divides and statistics.negative > _NEGATIVE:
            share = f"{100 * statistics.negative:.3g} %"
            raise KsdiffError(
                f"{pair.scene.pan.path} or its MS lies around 0 (values below it make {share} of the sum)"
                f"{hint_fill(pair)}, but "
                f"{self._name} divides by radiances: take --method gsa, mtf-glp-fs or ksdiff"
            )
        setup = self._setup(pair)
        if (self._seen is None or self._seen.pair is not pair) and (watch := self.watch(pair)):
            pair.statistics(progress, watch)
        seen, self._seen = self._seen, None  # which keeps files open, and cannot go to another process
        if self._method.thinned and seen and seen.moments.count:
            self._prepared = self._method.thinned.fit(seen.moments, setup), setup
            return
        blocks = _survey(pair, self._method.gather_reach(setup.ratio), progress)
        self._prepared = self._method.gather(blocks, setup), setup

    def _setup(self, pair: ScenePair) -> Setup:
        camera = find_camera(pair) if self.uses_camera else None
        return make_setup(self._method, pair.scene.sensor, pair.bands, pair.grid.ratio, "area", camera)

    def read(self, pair: ScenePair, seen: Box) -> Any:
        """See :meth:`Fuser.read`: a swath, if the method looks at one pixel at a time."""
        if self.reach(pair.grid.ratio):
            return super().read(pair, seen)
        return pair.read_swath(seen.top, seen.left, seen.height, seen.width)

    def fuse(self, tile: Tile, statistics: SceneStatistics, ratio: int) -> Array:
        """See :meth:`Fuser.fuse`; only after :meth:`prepare`."""
        assert self._prepared is not None, "prepare() comes first"
        coefficients, setup = self._prepared
        if self.reach(ratio):
            block = _block(tile, tile.valid, tile.valid.size)
            return self._method.apply(block, coefficients, setup).astype(np.float32)
        block = SceneBlock(tile.pan[0], tile.ms_up, tile.valid, tile.valid, tile.valid.size)
        return self._method.apply(block, _single(coefficients), setup)

    def for_images(
        self, sensor: Sensor, bands: int, ratio: int, geometry: Geometry, sharpness: float = 0.0
    ) -> Callable[[Tile, SceneStatistics], Array]:
        """See :meth:`Fuser.for_images`: coefficients from each image alone, as the reference has it, in float64."""
        setup = make_setup(self._method, sensor, bands, ratio, geometry)
        return lambda tile, statistics: fuse(self._method, tile.pan, tile.ms_up, setup, tile.valid)

    def bytes_per_pixel(self, bands: int) -> int:
        """See :meth:`Fuser.bytes_per_pixel`: that of the method that takes most, a handful of float64 images."""
        return 10 + 44 * bands

    def provenance(self) -> Mapping[str, str]:
        return {"METHOD": self._name, **({"MTF": "scene"} if self.uses_camera else {})}


def _single(coefficients: Any) -> Any:
    """Return a method's coefficients with their arrays in float32; a float goes with either precision."""
    arrays = {name: value for name, value in vars(coefficients).items() if isinstance(value, np.ndarray)}
    return replace(coefficients, **{name: value.astype(np.float32) for name, value in arrays.items()})


def _survey(pair: ScenePair, around: int, progress: ProgressCallback) -> Iterator[SceneBlock]:
    """Go through a scene by blocks with margins; they start at whole MS pixels, counted from the scene's corner."""
    (height, width), ratio = pair.shape, pair.grid.ratio
    side, margin = _BLOCK // ratio * ratio, -(-around // ratio) * ratio
    corners = [(row, col) for row in range(0, height, side) for col in range(0, width, side)]
    for done, (row, col) in enumerate(corners):
        progress(done, len(corners), "coefficients")
        if not pair.holds_data(Box(row, col, min(height, row + side), min(width, col + side))):
            continue
        top, left = max(0, row - margin), max(0, col - margin)
        bottom, right = min(height, row + side + margin), min(width, col + side + margin)
        tile = pair.read(top, left, bottom - top, right - left)
        core = np.zeros_like(tile.valid)
        inside = np.s_[row - top : row - top + side, col - left : col - left + side]
        core[inside] = tile.valid[inside]
        if core.any():
            yield _block(tile, core, height * width)
    progress(len(corners), len(corners), "coefficients")


def _block(tile: Tile, core: Array, scene_pixels: int) -> SceneBlock:
    return SceneBlock(tile.pan[0].astype(np.float64), tile.ms_up.astype(np.float64), tile.valid, core, scene_pixels)


def make_fuser(
    method: str,
    checkpoint: Path | None = None,
    device: str = "auto",
    seed: int = 0,
    sharpness: float = 0.0,
    *,
    mtf: Mtf = "sensor",
) -> Fuser:
    """Return the fuser called ``method``.

    Args:
        method: ``ksdiff``, or one of :data:`ksdiff_cli.classical.METHODS`.
        checkpoint: weights for ``ksdiff``; None takes those shipped with the package.
        device: where a network runs.
        seed: of a network's random numbers.
        sharpness: see :class:`Network`.
        mtf: whose MTF a classical method believes.

    Raises:
        KsdiffError: no such method, or no weights to be had.
        ModelError: the weights cannot be used.
    """
    if method == "exp":
        return Upsampling()
    if method in METHODS:
        return Classical(method, mtf)
    if method != "ksdiff":
        hint = did_you_mean(method, ("ksdiff", *METHODS)) or ";"
        if other := OTHER_METHODS.get(method.lower()):
            hint = f"; in its place take {other};"
        raise KsdiffError(f"no method is called {method!r}{hint} known: ksdiff {' '.join(METHODS)}")
    if checkpoint is None:
        from ksdiff_cli.weights import SHIPPED

        if not SHIPPED.is_file():
            raise KsdiffError(f"{SHIPPED}: the shipped weights are missing from this installation; give --checkpoint")
        checkpoint = SHIPPED
    return Network(checkpoint, device, seed, sharpness=sharpness)
