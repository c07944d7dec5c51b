"""Fidelity: is the output, seen through the MS camera, the MS that went in, and does it explain PAN?

The first as in Wald's protocol (Wald, Ranchin and Mangolini 1997, the consistency property), and as D_lambda of Khan et
al. asks, but in DN and band by band. The second by D_sR, beside that of MS at its own scale: no sharper image of the
same bands need explain PAN better. Both are measured on windows spread over the output, so that their cost does not
grow with it.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np

from ksdiff_cli.checks import Mtf
from ksdiff_cli.fusers.anchors import spread_windows
from ksdiff_cli.metrics.d_sr import Explained
from ksdiff_cli.numerics import Array
from ksdiff_cli.numerics.boxes import Box
from ksdiff_cli.numerics.projection import place_camera
from ksdiff_cli.raster.camera import ms_camera
from ksdiff_cli.raster.grouped import GroupedPair
from ksdiff_cli.raster.pair import ScenePair
from ksdiff_cli.raster.units import say_unit

Look = Callable[[Box], tuple[Array, Array]]
"""A window of the output -> (bands, H, W) DN, (H, W) bool valid."""

FIDELITY_TAG = "KSDIFF_FIDELITY"
"""Where an output's metadata has the line on MS; ``KSDIFF_FIDELITY_DN`` has every band's difference."""
PAN_TAG = "KSDIFF_FIDELITY_PAN"
"""Where it has the line on PAN."""
SIDE = 256
"""Side of a window that is looked at, PAN pixels."""
MOST = 32
"""Windows looked at, at most."""
_WHOLE = 1 - 1e-4  # of what an MS pixel sees must be valid


@dataclass(frozen=True)
class Fidelity:
    """How far an output, degraded to the MS grid, is from MS."""

    rms: Array
    """(bands,) root mean square difference, DN."""
    share: Array
    """(bands,) the same over the standard deviation of the band in the scene; 0 for constant bands."""
    names: tuple[str, ...]
    """Of the bands; "" where one has none."""
    camera: str
    """Whose MTF the output was seen through."""
    windows: int
    """Number of windows that were looked at."""
    unexplained: tuple[float, float] = (math.nan, math.nan)
    """Share of PAN's variance that no weighted sum of the output's bands explains (D_sR), and the same of MS's bands
    and PAN as the MS camera sees it; NaN where PAN is constant."""

    numbers: tuple[int, ...] = ()
    """Of the bands in the output, from 1; () where these are all of its bands, in order."""
    unit: str = "DN"
    """Of ``rms``."""

    def __str__(self) -> str:
        """Say it in one line."""
        worst = int(self.share.argmax())
        number = self.numbers[worst] if self.numbers else worst + 1
        name = f" ({self.names[worst]})" if self.names[worst] else ""
        return (
            f"degraded output differs from MS by {100 * self.share.mean():.2g} % of its standard deviation "
            f"({self.rms.mean():.3g} {self.unit}), worst band {number}{name} {100 * self.share[worst]:.2g} % "
            f"(RMS in {self.windows} window{'s' * (self.windows > 1)}, {self.camera})"
        )

    @property
    def of_pan(self) -> str | None:
        """Say in one line how well the bands explain PAN; None where PAN is constant."""
        if not all(map(math.isfinite, self.unexplained)):
            return None
        output, ms = (f"{100 * share:.2g} %" for share in self.unexplained)
        return (
            f"the best mix of the output's bands misses {output} of PAN's variance (D_sR), that of MS's bands at their "
            f"own scale {ms} (in {self.windows} window{'s' * (self.windows > 1)})"
        )

    def tags(self) -> dict[str, str]:
        """Return the output's metadata: both lines, and the DN of every band."""
        pan = {} if self.of_pan is None else {PAN_TAG: self.of_pan}
        return {FIDELITY_TAG: str(self), f"{FIDELITY_TAG}_DN": " ".join(f"{value:.4g}" for value in self.rms), **pan}


def places(region: Box, side: int = SIDE, most: int = MOST) -> list[Box]:
    """Return the windows that are looked at, spread evenly over the region."""
    spread = spread_windows((region.height, region.width), side)
    found = [Box(row, col, row + height, col + width) for row, col, height, width in islice(spread, most)]
    return [box.moved(region.top, region.left) for box in found]


def measure_fidelity(
    pair: ScenePair,
    region: Box,
    look: Look,
    ms_std: Array,
    spread: tuple[int, int] = (SIDE, MOST),
    mtf: Mtf = "scene",
) -> Fidelity | None:
    """Measure an output's fidelity on windows spread evenly over it.

    Only MS pixels count whose whole view, to 4 deviations of the MTF, is valid and lies in a window. PAN is brought to
    MS through the bands' common camera. A shift of MS against PAN is not taken out: that is registration's business.

    Args:
        pair: the inputs.
        region: the part of the pair's grid that was made.
        look: reads it.
        ms_std: (bands,) standard deviations of MS over the scene, DN.
        spread: side of a window in PAN pixels, and how many are looked at, at most.
        mtf: through whose camera.

    Returns:
        What was found; None where no MS pixel counts.
    """
    if isinstance(pair, GroupedPair):
        return _measure_parts(pair, region, look, ms_std, spread)
    through = ms_camera(pair, mtf)
    squares, count, windows = np.zeros(pair.bands), 0, 0
    fine, coarse = Explained(), Explained()
    for box in places(region, *spread):
        camera = place_camera(pair.grid, box, pair.ms_shape, (*through.kernels, through.pan))
        if not camera.whole.any():
            continue
        image, valid = look(box)
        pan = np.where(valid, pair.read_pan(box.top, box.left, box.height, box.width)[0][0], 0)
        ms, known = pair.read_ms(camera.ms.top, camera.ms.left, camera.ms.height, camera.ms.width)
        known &= camera.whole
        if not valid.all():
            image = np.where(valid, image, 0)
            known &= camera.share(valid) >= _WHOLE
        if known.any():
            for band, plane in enumerate(image):
                difference = (camera.degrade(plane, band) - ms[band])[known]
                squares[band] += np.square(difference, dtype=np.float64).sum()
            count, windows = count + int(known.sum()), windows + 1
            fine.add(image, pan, valid)
            coarse.add(ms, camera.degrade(pan, pair.bands), known)
    if not count:
        return None
    rms = np.sqrt(squares / count)
    share = np.where(ms_std > 0, rms / np.where(ms_std > 0, ms_std, 1), 0)
    unexplained = fine.unexplained(), coarse.unexplained()
    names = *(source.name for source in pair.scene.ms), *[""] * (pair.bands - len(pair.ms))
    return Fidelity(rms, share, names, through.source, windows, unexplained, unit=say_unit(pair.scene.ms[0]))


def _measure_parts(
    pair: GroupedPair, region: Box, look: Look, ms_std: Array, spread: tuple[int, int]
) -> Fidelity | None:
    """Measure each pair's bands by the sensor's table; how they explain a PAN that was made for them says nothing."""
    found: dict[int, tuple[float, float, str, Fidelity]] = {}
    first = 0 if pair.copied is None else len(pair.copied.sources)
    for part in pair.parts:
        bands = [pair.order.index(number) for number in range(first, first + len(part.ms))]
        first += len(part.ms)
        plain = replace(part, scene=replace(part.scene, companion=None))

        def look_at(box: Box, bands: list[int] = bands) -> tuple[Array, Array]:
            image, valid = look(box)
            return image[bands], valid

        if one := measure_fidelity(plain, region, look_at, ms_std[bands], spread, "sensor"):
            own = zip(bands, one.rms, one.share, one.names, strict=True)
            found |= {band: (float(rms), float(share), name, one) for band, rms, share, name in own}
    if not found:
        return None
    rms, share, names, each = zip(*(found[band] for band in sorted(found)), strict=True)
    windows, numbers = max(one.windows for one in each), tuple(band + 1 for band in sorted(found))
    return Fidelity(np.array(rms), np.array(share), names, each[0].camera, windows, numbers=numbers, unit=each[0].unit)
