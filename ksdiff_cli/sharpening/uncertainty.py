"""Uncertainty: how much the result changes with the draw of z_T, pixel by pixel, as a raster of its own.

It says where errors are large, not how large they are. Spearman's rank correlation with the true error was .20 to .74
by pixels and .55 to .93 by blocks of 16 x 16 with three networks (tests/benchmarks/uncertainty.py), where the gradient
of PAN had -.18 to .35 and -.13 to .58; but the spread is .1 to 3 % of the error, by another factor in each scene.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ksdiff_cli.errors import KsdiffError
from ksdiff_cli.files.names import Inputs
from ksdiff_cli.fusers.base import Fuser
from ksdiff_cli.fusers.classical import make_fuser
from ksdiff_cli.numerics import Array
from ksdiff_cli.numerics.boxes import Box
from ksdiff_cli.numerics.grids import corner_aligned
from ksdiff_cli.numerics.moments import SceneStatistics
from ksdiff_cli.options.sharpening import SharpenOptions
from ksdiff_cli.output.writer import check_output
from ksdiff_cli.progress import ProgressCallback, silent
from ksdiff_cli.raster.pair import Scene, ScenePair
from ksdiff_cli.raster.tiles import ObservedTile, Tile
from ksdiff_cli.sharpening.engine import Sharpened, how, is_claimed, job_folder, sharpen_scene
from ksdiff_cli.sharpening.job import owns
from ksdiff_cli.sharpening.pipeline import Maker, make_windows

_SIDE, _RATIO = 64, 4  # of the image on which draws are tried: pixels, and PAN pixels in one of MS


class Spread(Fuser):
    """A fuser whose result is the standard deviation of those of several."""

    differences = True

    def __init__(self, fusers: Sequence[Fuser]) -> None:
        """Take at least two fusers of one kind."""
        self._fusers = list(fusers)
        self.uses_camera = any(fuser.uses_camera for fuser in fusers)
        self.mixes = any(fuser.mixes for fuser in fusers)

    def another(self) -> "Spread":
        """See :meth:`Fuser.another`."""
        return Spread([fuser.another() for fuser in self._fusers])

    def check(self, bands: int, ratio: float) -> None:
        self._fusers[0].check(bands, ratio)

    def check_draws(self, bands: int) -> None:
        """Refuse fusers that all make the same of an image.

        Raises:
            KsdiffError: they do; a network without prior has nothing to draw.
            ModelError: they are for other bands.
        """
        self.check(bands, _RATIO)
        rows, cols = np.mgrid[:_SIDE, :_SIDE].astype(np.float32)
        pan = 300 + 100 * np.sin(0.7 * rows) * np.cos(0.3 * cols)
        ones = np.ones(bands)
        ms = np.repeat(pan[None, ::_RATIO, ::_RATIO], bands, 0)
        valid = np.ones(pan.shape, bool)
        tile = ObservedTile(pan[None], valid, ms, None, corner_aligned(_RATIO), np.repeat(pan[None], bands, 0))
        for fuser in self._fusers[:2]:
            fuser.observe(tile, (0.3,))
        statistics = SceneStatistics(300.0, 50.0, 300 * ones, 50 * ones)
        first, second = (fuser.fuse(tile, statistics, _RATIO) for fuser in self._fusers[:2])
        if np.array_equal(first, second):
            raise KsdiffError(
                "--uncertainty: these weights make the same image of every draw, they have no prior; give others with "
                "--checkpoint"
            )

    def reach(self, ratio: int) -> int:
        return max(fuser.reach(ratio) for fuser in self._fusers)

    def grid(self) -> int:
        return max(fuser.grid() for fuser in self._fusers)

    def read_tile(self, pair: ScenePair, seen: Box) -> Tile:
        return self._fusers[0].read_tile(pair, seen)

    def prepare(self, pair: ScenePair, statistics: SceneStatistics, progress: ProgressCallback = silent) -> None:
        """See :meth:`Fuser.prepare`: every draw gets a scene's kernels of its own."""
        for fuser in self._fusers:
            fuser.prepare(pair, statistics, progress)

    def fuse(self, tile: Tile, statistics: SceneStatistics, ratio: int) -> Array:
        """See :meth:`Fuser.fuse`: the standard deviation, divided by one less than the draws; 0 in invalid pixels."""
        first = self._fusers[0].fuse(tile, statistics, ratio)
        total, squares = np.zeros_like(first), np.zeros_like(first)
        for fuser in self._fusers[1:]:
            # distances from the first draw are small: their squares can be summed in float32
            away = fuser.fuse(tile, statistics, ratio) - first
            total += away
            squares += np.square(away, out=away)
        count = len(self._fusers)
        spread = np.sqrt(np.maximum(squares - total * total / count, 0) / (count - 1))
        return np.where(tile.valid, spread, 0).astype(np.float32, copy=False)

    def bytes_per_pixel(self, bands: int) -> int:
        """See :meth:`Fuser.bytes_per_pixel`: besides one draw's, the first one, both sums and what they become."""
        return self._fusers[0].bytes_per_pixel(bands) + 20 * bands

    def provenance(self) -> Mapping[str, str]:
        count = len(self._fusers)
        shows = {"SHOWS": f"standard deviation of the results of {count} draws of z_T, DN"}
        return {**self._fusers[0].provenance(), "DRAWS": str(count), **shows}

    def device_memory(self, bands: int) -> tuple[int, int] | None:
        """See :meth:`Fuser.device_memory`; one draw is made after the other."""
        return self._fusers[0].device_memory(bands)

    def findings(self) -> Mapping[str, str]:
        """See :meth:`Fuser.findings`: those of the first draw."""
        return self._fusers[0].findings()

    def notes(self) -> list[str]:
        """See :meth:`Fuser.notes`: each said once."""
        return list(dict.fromkeys(line for fuser in self._fusers for line in fuser.notes()))


def make_spread(options: SharpenOptions) -> Spread:
    """Return what makes the raster: the first draw is that of the sharpened image, the others follow it.

    Raises:
        KsdiffError: there are no such weights.
        ModelError: the weights cannot be used.
    """
    seeds = range(options.seed, options.seed + options.draws)
    return Spread([make_fuser("ksdiff", options.checkpoint, options.device, seed) for seed in seeds])


def sharpen_with_uncertainty(
    scene: Scene,
    output: Path,
    fuser: Fuser,
    options: SharpenOptions,
    progress: ProgressCallback = silent,
    make: Maker = make_windows,
) -> Sharpened:
    """Sharpen a scene, then make the raster of its uncertainty; each by windows, each going on after a kill.

    That raster is a GeoTIFF of float32, DN, on the grid and with the nodata and scale of the sharpened one, without
    offset.

    Args:
        scene: see :func:`ksdiff_cli.sharpening.engine.sharpen_scene`; also the arguments not named here.
        output: see there.
        fuser: see there.
        options: for both, with the raster of the uncertainty among ``besides``.
        progress: see there.
        make: see there.

    Returns:
        The sharpened image.

    Raises:
        KsdiffError: see there; or the weights make the same of every draw.
        ModelError: see there.
    """
    assert options.uncertainty is not None
    spread = make_spread(options)
    spread.check_draws(len(scene.ms))
    made = sharpen_scene(scene, output, fuser, options, progress, make)
    if not owns(output, options.uncertainty, how(options)) or job_folder(options.uncertainty).exists():
        plain = replace(options, dtype="float32", format="GTiff", creation={}, fidelity=False, besides={})
        sharpen_scene(scene, options.uncertainty, spread, plain, progress, make)
    spreads = f"spread of {options.draws} draws: it says where errors are large, but is far smaller itself"
    return replace(made, notes=(*made.notes, f"{options.uncertainty}: {spreads}"))


def check_uncertainty(place: Path, output: Path, inputs: Inputs, overwrite: bool) -> None:
    """Refuse a raster that could not be written in the end, before any work.

    Raises:
        KsdiffError: it is ``output``, or see :func:`ksdiff_cli.output.writer.check_output`.
    """
    if place.resolve() == output.resolve():
        raise KsdiffError(f"{output}: cannot hold the sharpened image and its uncertainty; name two files")
    check_output(place, inputs, overwrite or is_claimed(place) or is_claimed(output, place))
