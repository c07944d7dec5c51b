"""Brovey: every band times the ratio of PAN to the mean of the bands."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from ksdiff_cli.classical.filters import ideal_low, mtf_reach
from ksdiff_cli.classical.method import Method, SceneBlock, Setup, Thinned, modulate, no_reach, scale
from ksdiff_cli.numerics import Array
from ksdiff_cli.numerics.camera import Kernel
from ksdiff_cli.numerics.grids import mtf_sigma
from ksdiff_cli.numerics.moments import JointMoments, divide


@dataclass(frozen=True)
class Coefficients:
    """``out = up (gain pan + offset) / I``, I the mean of the bands."""

    gain: float
    offset: float
    """DN."""
    mean: float
    """Of I over the scene, DN."""


def gather(blocks: Iterable[SceneBlock], setup: Setup) -> Coefficients:
    """Match PAN to the mean of the bands: by mean and deviation, those of PAN taken at the scale of MS.

    Deviations at one scale keep PAN's detail at full height, as in the reference's BT-H.
    """
    moments = JointMoments()
    for block in blocks:
        moments.add(block.pan, block.ms_up, ideal_low(block, setup), where=block.core)
    return _fit(moments, setup)


def _gaussians(setup: Setup) -> list[Kernel]:
    return [((1.0, mtf_sigma(0.3, setup.ratio)),)]  # that of ideal_low


def _fit(moments: JointMoments, setup: Setup) -> Coefficients:
    mean, covariance = moments.mean, moments.covariance
    bands = slice(1, 1 + len(setup.gains))
    intensity = float(mean[bands].mean())
    gain = float(np.sqrt(divide(covariance[bands, bands].mean(), covariance[-1, -1])))
    return Coefficients(gain, intensity - gain * float(mean[-1]), intensity)


def apply(block: SceneBlock, coefficients: Coefficients, setup: Setup) -> Array:
    """Return (bands, H, W) DN."""
    # both sides of the quotient times the number of bands
    bands = len(block.ms_up)
    matched = bands * coefficients.gain * block.pan
    matched += bands * coefficients.offset
    total = sum(block.ms_up[1:], start=block.ms_up[0])
    return scale(block.ms_up, modulate(matched, total, bands * coefficients.mean, setup), setup)


METHOD = Method(
    "Brovey transform",
    "Gillespie et al., Remote Sensing of Environment 1987",
    gather,
    apply,
    mtf_reach,
    no_reach,
    divides=True,
    thinned=Thinned(_gaussians, _fit),
)
