"""Wald's protocol for bands that finer ones guide: one scale below, the coarser bands as delivered are the truth.

The finer bands as a camera of the coarser ones' pixels would see them, by the MTF of each, guide the coarser ones as a
camera of pixels that many times larger again would (Wald et al., "Fusion of satellite images of different spatial
resolutions", PE&RS 1997).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import rasterio
from rasterio.transform import Affine
from rasterio.windows import Window

from ksdiff_cli.errors import KsdiffError
from ksdiff_cli.numerics import Array
from ksdiff_cli.numerics.boxes import Box
from ksdiff_cli.numerics.grids import centres, corner_aligned
from ksdiff_cli.numerics.looking import look
from ksdiff_cli.progress import ProgressCallback, silent
from ksdiff_cli.raster.bands import BandSource
from ksdiff_cli.raster.layout import has_geotransform
from ksdiff_cli.raster.pair import ScenePair, open_pair
from ksdiff_cli.raster.synthesis import Group, GuidedScene, see_guide
from ksdiff_cli.sensors import SENSORS, find_sensor

_BLOCK = 256  # side of a file's blocks
_FEWEST = 8  # coarser pixels of a side, one scale below


class TooSmallError(KsdiffError):
    """A group of bands cannot be looked at one scale below; others of its scene may be."""


@dataclass(frozen=True)
class Reduced:
    """One group of a scene, one scale below."""

    scene: GuidedScene
    truth: Path
    """The group's bands as delivered, on the grid of what now guides."""
    ratio: int


def reduce_group(scene: GuidedScene, group: Group, folder: Path, progress: ProgressCallback = silent) -> Reduced:
    """Write a group and what guides it as they would be one scale below, block by block.

    Args:
        scene: the acquisition.
        group: one of its groups.
        folder: to be made; holds three GeoTIFFs of float32 DN, NaN where something that a pixel saw is invalid.
        progress: told the blocks written.

    Raises:
        TooSmallError: the coarser pixels are no whole number of finer ones, or there are too few.
        KsdiffError: files cannot be read or do not fit each other.
    """
    folder.mkdir()
    with open_pair(scene.unmixed(group)) as pair:
        area, ratio = _area(pair, scene, group)
        gains = tuple(group.gain(number) for number in range(len(group.bands)))
        fine_gains, below = _fine_gains(scene, group), corner_aligned(ratio)

        def read(box: Box) -> tuple[Array, Array]:
            return pair.read_ms(box.top + area.top, box.left + area.left, box.height, box.width)

        def read_fine(box: Box) -> tuple[Array, Array]:
            return see_guide(pair, box.moved(area.top, area.left), fine_gains)

        def read_coarse(box: Box) -> tuple[Array, Array]:
            return look(read, below, (area.height, area.width), box, gains)

        plan: dict[str, tuple[tuple[BandSource, ...], int, Callable[[Box], tuple[Array, Array]]]] = {
            "fine": (scene.guide, 1, read_fine),
            "truth": (group.bands, 1, read),
            "coarse": (group.bands, ratio, read_coarse),
        }
        for done, (name, (sources, step, look_at)) in enumerate(plan.items(), start=1):
            _write(folder / f"{name}.tif", pair, area, step, [source.name for source in sources], look_at)
            progress(done, len(plan), f"{group.name}, one scale below")
    fine, coarse = (
        tuple(BandSource(str(folder / name), band, source.name) for band, source in enumerate(sources, start=1))
        for name, sources in (("fine.tif", scene.guide), ("coarse.tif", group.bands))
    )
    lower = replace(group, bands=coarse, quality=None, shift=(0.0, 0.0), field=None)
    return Reduced(GuidedScene(scene.name, fine, (lower,)), folder / "truth.tif", ratio)


def _area(pair: ScenePair, scene: GuidedScene, group: Group) -> tuple[Box, int]:
    """Return the group's pixels that lie on what guides, whole ones of one scale below, and the ratio."""
    ratio, path = pair.grid.ratio, group.bands[0].path
    if abs(pair.true_ratio - ratio) > 0.01:
        raise TooSmallError(
            f"{path}: its pixels are {pair.true_ratio:.3g} times those of {scene.guide[0].path}; one scale below that "
            "must be a whole number, so give --protocol full"
        )
    axes = zip((pair.grid.rows, pair.grid.cols), pair.shape, pair.ms_shape, strict=True)
    (top, bottom), (left, right) = (centres(axis, 0, count, size) for axis, count, size in axes)
    height, width = ((stop - start) // ratio * ratio for start, stop in ((top, bottom), (left, right)))
    if min(height, width) < _FEWEST * ratio:
        raise TooSmallError(
            f"{path}: {right - left} x {bottom - top} pixels are too few to be looked at one scale below, which takes "
            f"{_FEWEST * ratio} a side; give --protocol full"
        )
    return Box(top, left, top + height, left + width), ratio


def _write(
    path: Path,
    pair: ScenePair,
    area: Box,
    step: int,
    names: Sequence[str],
    read: Callable[[Box], tuple[Array, Array]],
) -> None:
    """Write a raster on the grid of the pair's MS, cut to an area, or on one that is ``step`` times coarser."""
    source = (pair.warped or pair.ms)[0]
    height, width = area.height // step, area.width // step
    profile = {"driver": "GTiff", "height": height, "width": width, "count": len(names), "dtype": "float32"}
    profile |= {"tiled": True, "blockxsize": _BLOCK, "blockysize": _BLOCK, "nodata": np.nan, "bigtiff": "IF_SAFER"}
    if has_geotransform(source):
        place = source.transform @ Affine.translation(area.left, area.top) @ Affine.scale(step)
        profile |= {"crs": source.crs, "transform": place}
    with rasterio.open(path, "w", **profile) as file:
        file.descriptions = names
        for box in Box(0, 0, height, width).pieces(2 * _BLOCK):
            values, valid = read(box)
            window = Window(box.left, box.top, box.width, box.height)
            file.write(np.where(valid, values, np.float32(np.nan)), window=window)


def _fine_gains(scene: GuidedScene, group: Group) -> tuple[float, ...]:
    """Return the MTF gains of what guides: by the group's sensor where that knows it, else generic ones."""
    names = [source.name for source in scene.guide]
    try:
        return SENSORS[group.sensor.name].with_bands(names).ms_gains(len(names))
    except (KeyError, KsdiffError):
        return find_sensor(None).ms_gains(len(names))
