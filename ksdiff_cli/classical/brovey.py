"""Brovey: every band times the ratio of PAN to the mean of the bands."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from ksdiff_cli.classical.filters import ideal_low, mtf_reach
from ksdiff_cli.classical.method import Array, Block, Method, Setup, modulate, no_reach
from ksdiff_cli.classical.moments import Moments, divide


@dataclass(frozen=True)
class Coefficients:
    """``out = up (gain pan + offset) / I``, I the mean of the bands."""

    gain: float
    offset: float
    """DN."""
    mean: float
    """Of I over the scene, DN."""


def gather(blocks: Iterable[Block], setup: Setup) -> Coefficients:
    """Match PAN to the mean of the bands: by mean and deviation, those of PAN taken at the scale of MS.

    Deviations at one scale keep PAN's detail at full height, as in the reference's BT-H.
    """
    moments = Moments()
    for block in blocks:
        moments.add(ideal_low(block, setup), block.ms_up.mean(0), where=block.core)
    pan, intensity = moments.mean
    var_pan, var_intensity = np.diag(moments.covariance)
    gain = float(np.sqrt(divide(var_intensity, var_pan)))
    return Coefficients(gain, float(intensity - gain * pan), float(intensity))


def apply(block: Block, coefficients: Coefficients, setup: Setup) -> Array:
    """Return (bands, H, W) float64 DN."""
    matched = coefficients.gain * block.pan + coefficients.offset
    return np.asarray(block.ms_up * modulate(matched, block.ms_up.mean(0), coefficients.mean, setup))


METHOD = Method(
    "Brovey transform",
    "Gillespie et al., Remote Sensing of Environment 1987",
    gather,
    apply,
    mtf_reach,
    no_reach,
)
