"""D_sR: the spatial distortion by regression of PAN on the bands; RQNR, which uses it."""

import math

import numpy as np

from ksdiff_cli.metrics.full_blocks import PanBlock, PanMetric, make_pan_block
from ksdiff_cli.numerics import Array
from ksdiff_cli.numerics.moments import JointMoments, solve


class Explained:
    """How well a weighted sum of bands makes another image, gathered piece by piece from their moments."""

    def __init__(self) -> None:
        """Start with no pixels."""
        self.moments = JointMoments()

    def add(self, bands: Array, pan: Array, where: Array) -> None:
        """Take pixels in: bands (bands, h, w), PAN (h, w), and (h, w) bool that says which of them count."""
        self.moments.add(np.asarray(bands, np.float64), np.asarray(pan, np.float64), where=where)

    def unexplained(self) -> float:
        """Return var(PAN - best sum of bands) / var(PAN), without intercept; NaN without pixels or for a flat PAN."""
        if self.moments.count == 0:
            return math.nan
        covariance, second = self.moments.covariance, self.moments.second
        if covariance[-1, -1] == 0:
            return math.nan
        weights = solve(second[:-1, :-1], second[:-1, -1])
        residual = np.append(weights, -1.0)
        # rounding may make nothing a little less than nothing
        return max(0.0, float(residual @ covariance @ residual / covariance[-1, -1]))


class DSR(PanMetric):
    """Accumulator of :func:`d_sr`."""

    def __init__(self) -> None:
        """Start with no pixels."""
        self.explained = Explained()

    def update(self, block: PanBlock) -> None:
        """Take one block in."""
        self.explained.add(*block.cut(0, 0))

    def result(self) -> float:
        """Return the distortion."""
        return self.explained.unexplained()


def d_sr(fused: Array, pan: Array, valid: Array | None = None) -> float:
    """Return what no weighted sum of the fused bands explains of PAN: var(PAN - w·F) / var(PAN), which is 1 - R².

    The weights w are those of least squares over the whole image, without an intercept. At another scale the same
    function tells how far bands can explain PAN at all: give it MS and PAN as the MS camera sees it.

    Any method that injects PAN's detail by one set of gains, such as a component substitution, scores about 0, be its
    colours right or wrong; noise that is PAN's does, too.

    Args:
        fused: (bands, H, W), any unit.
        pan: (H, W), any unit.
        valid: (H, W) bool, pixels to count; ``None`` for all.

    Returns:
        [0, 1], 0 is best; without an intercept it may pass 1 by a little. NaN if PAN is constant or no pixel counts.

    Raises:
        KsdiffError: shapes differ or values are not finite.

    References:
        Alparone, Garzelli, Vivone, "Spatial consistency for full-scale assessment of pansharpening", IGARSS 2018.
    """
    metric = DSR()
    metric.update(make_pan_block(fused, pan, valid, 0))
    return metric.result()


def rqnr(d_lambda: float, d_sr: float) -> float:
    """Return (1 - D_lambda)(1 - D_sR), with Khan's D_lambda: [0, 1], 1 is best."""
    return (1 - d_lambda) * (1 - d_sr)
