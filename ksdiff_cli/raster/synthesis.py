"""Finer bands in place of PAN: how well they explain each coarser band, from moments gathered in one streamed pass.

Synthesis: the least squares of a band on the finer ones, as its camera sees them; the same weights on the finer bands
themselves are its PAN. Selection: the one finer band that correlates best (Selva et al., "Hyper-sharpening", IEEE
J-STARS 2015).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from rasterio.windows import Window

from ksdiff_cli.checks import GuideBy, Nodata
from ksdiff_cli.errors import KsdiffError
from ksdiff_cli.numerics import Array
from ksdiff_cli.numerics.boxes import Box
from ksdiff_cli.numerics.looking import look
from ksdiff_cli.numerics.moments import JointMoments, solve
from ksdiff_cli.numerics.shift_field import ShiftField
from ksdiff_cli.progress import ProgressCallback, silent
from ksdiff_cli.raster.bands import BandSource, QualityBand
from ksdiff_cli.raster.guide import Mix
from ksdiff_cli.raster.nodata import declare_band
from ksdiff_cli.raster.pair import Scene, ScenePair, open_pair
from ksdiff_cli.sensors import Sensor

_SIDE = 1024  # of the blocks that are read, pixels of the finer bands, about
_ENOUGH = 0.01  # share of pixels without clouds from which these alone count
_FEWEST = 300  # of them
_RIDGE = 1e-3  # of a band's variance


@dataclass(frozen=True)
class Group:
    """Coarser bands on one grid."""

    name: str
    """By which people choose it, such as ``20m``."""
    bands: tuple[BandSource, ...]
    sensor: Sensor
    """With these bands alone."""
    quality: QualityBand | None = None
    """On their grid, if the product says something about its pixels."""
    shift: tuple[float, float] = (0.0, 0.0)
    """See :class:`ksdiff_cli.raster.pair.Scene`."""
    field: ShiftField | None = None
    """See :class:`ksdiff_cli.raster.pair.Scene`."""

    def gain(self, number: int) -> float:
        """Return the MTF gain of the band of that number, from 0.

        Raises:
            KsdiffError: the sensor does not know these bands.
        """
        return self.sensor.ms_gains(len(self.bands))[number]


@dataclass(frozen=True)
class GuidedScene:
    """Bands of several resolutions of one acquisition, of which the finest guide the others."""

    name: str
    guide: tuple[BandSource, ...]
    """The finest, on one grid."""
    groups: tuple[Group, ...]
    """The others, by resolution, at least one."""
    with_guide: bool = False
    """Whether the finest bands go along in the output unless a person says otherwise."""
    order: tuple[str, ...] = ()
    """Names of all bands in the output's order; () for the finest first, then group by group."""
    warp: bool = False
    """See :class:`ksdiff_cli.raster.pair.Scene`."""
    copies: tuple[tuple[str, str], ...] = ()
    """See :class:`ksdiff_cli.raster.pair.Scene`."""

    def sources(self) -> tuple[BandSource, ...]:
        """Return every band."""
        return (*self.guide, *(source for group in self.groups for source in group.bands))

    def files(self) -> list[str]:
        """Return the names of all rasters that are read, some perhaps twice."""
        quality = [group.quality.path for group in self.groups if group.quality]
        return [*(source.path for source in self.sources()), *quality]

    def unmixed(self, group: Group) -> Scene:
        """Return a group's bands as MS with the finest bands to be read, none of which stands for PAN."""
        return self.pair(group, Mix(self.guide, (0.0,) * len(self.guide)))

    def pair(self, group: Group, mix: Mix) -> Scene:
        """Return a group's bands as MS with a mix of the finest bands as PAN."""
        return Scene(
            self.name, mix.bands[0], group.bands, group.sensor, group.quality, group.shift, group.field, self.warp, mix,
            copies=self.copies,
        )  # fmt: skip


def declare_guided(scene: GuidedScene, given: tuple[Nodata, Nodata]) -> GuidedScene:
    """Return the scene with what a person says of the finest bands and of the others, see :func:`declare`."""
    fine, coarse = given
    groups = tuple(
        replace(group, bands=tuple(declare_band(source, coarse) for source in group.bands)) for group in scene.groups
    )
    return replace(scene, guide=tuple(declare_band(source, fine) for source in scene.guide), groups=groups)


@dataclass(frozen=True)
class Guide:
    """What takes the place of PAN for one band."""

    mix: Mix
    r2: float
    """Share of the band's variance that it explains at the band's own scale, 0 to 1."""
    deviation: float
    """Standard deviation of the mix as the band's camera sees it, DN."""


def find_guides(
    scene: GuidedScene, group: Group, by: GuideBy = "synthesis", progress: ProgressCallback = silent
) -> tuple[Guide, ...]:
    """Find what guides each band of a group.

    Pixels under clouds and their shadows, where the product knows them, do not count as long as there are others.

    Args:
        scene: the acquisition.
        group: one of its groups.
        by: see the module.
        progress: told the blocks read.

    Raises:
        KsdiffError: the files cannot be read or do not fit each other, or no pixel is valid.
    """
    mean_gain = float(np.mean(group.sensor.ms_gains(len(group.bands))))
    clear, every = JointMoments(), JointMoments()
    with open_pair(scene.unmixed(group)) as pair:
        boxes = list(Box(0, 0, *pair.ms_shape).pieces(max(32, _SIDE // pair.grid.ratio)))
        for done, box in enumerate(boxes, start=1):
            ms, known = pair.read_ms(box.top, box.left, box.height, box.width)
            if known.any():
                seen, whole = see_guide(pair, box, (mean_gain,))
                layers, known = np.concatenate([seen, ms]).astype(np.float64), known & whole
                every.add(layers, where=known)
                clear.add(layers, where=known & ~pair.read_cloud(box.top, box.left, box.height, box.width))
            progress(done, len(boxes), "guides")
    if every.count == 0:
        raise KsdiffError(
            f"{group.bands[0].path}: holds no data where its guide {scene.guide[0].path} does, so nothing can be "
            "sharpened; give bands whose valid parts overlap"
        )
    moments = clear if clear.count >= max(_FEWEST, _ENOUGH * every.count) else every
    return tuple(_fit(moments, scene.guide, number, by) for number in range(len(group.bands)))


def see_guide(pair: ScenePair, box: Box, gains: Sequence[float]) -> tuple[Array, Array]:
    """Look at the bands of a pair's mix through a camera at some MS pixels; ``gains`` as in :func:`look`."""
    guide = pair.guide
    assert guide is not None

    def read(seen: Box) -> tuple[Array, Array]:
        return guide.read(Window(seen.left + pair.origin[1], seen.top + pair.origin[0], seen.width, seen.height))

    return look(read, pair.grid, pair.shape, box, gains)


def _fit(moments: JointMoments, bands: Sequence[BandSource], number: int, by: GuideBy) -> Guide:
    """Return what guides the band of that number, from the moments of the finer bands and the coarser ones."""
    count, own = len(bands), len(bands) + number
    mean, covariance = moments.mean, moments.covariance
    spread = np.sqrt(np.diag(covariance))
    scale = np.where(spread > 0, spread, 1.0)
    alike = covariance / np.outer(scale, scale)
    cross = alike[:count, own]
    if by == "synthesis":
        # bands that are almost the same would get large weights of both signs, which add up their noise
        weights = solve(alike[:count, :count] + _RIDGE * np.eye(count), cross)
    else:
        weights = np.zeros(count)
        best = int(np.abs(cross).argmax())
        weights[best] = np.sign(cross[best])
    explained = float(weights @ alike[:count, :count] @ weights)
    r2 = float(weights @ cross) ** 2 / explained if explained > 0 else 0.0
    if by == "selection":
        mixed = np.where(weights != 0, weights, 0.0)
        offset = 0.0 if weights.sum() >= 0 else 2 * float(mean[:count] @ np.abs(mixed))
    else:
        mixed = weights * spread[own] / scale[:count]
        offset = float(mean[own] - mixed @ mean[:count])
    deviation = math.sqrt(max(0.0, float(mixed @ covariance[:count, :count] @ mixed)))
    # rounded: what a library's next version adds up in another order must not change a scene's pixels
    mix = Mix(tuple(bands), tuple(map(_significant, mixed)), _significant(offset))
    return Guide(mix, round(min(1.0, r2), 4), _significant(deviation))


def _significant(value: float) -> float:
    return float(f"{value:.6g}")
