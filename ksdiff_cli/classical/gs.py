"""GS: Gram-Schmidt spectral sharpening; its intensity is the mean of the bands, or what the sensor's PAN sees of them.

PAN of MS's resolution is simulated and made the first of orthogonal components, of which the bands' own are the others;
PAN, matched to it by mean and deviation, takes its place, and the transform is undone. What comes out of that is a
closed form, so nothing is transformed here (Aiazzi, Baronti, Selva, IEEE TGRS 45(10), 2007). ``gsa`` fits the weights
to the scene instead.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from ksdiff_cli.classical.method import Method, SceneBlock, Setup, Thinned, no_reach, weigh
from ksdiff_cli.numerics import Array
from ksdiff_cli.numerics.camera import Kernel
from ksdiff_cli.numerics.grids import mtf_sigma
from ksdiff_cli.numerics.moments import JointMoments, divide


@dataclass(frozen=True)
class Coefficients:
    """``out = up + g (gain pan + offset - sum weights up)``."""

    weights: Array
    """(bands,) of the simulated PAN, their sum is 1."""
    g: Array
    """(bands,) injection gains, cov(I, up) / var(I)."""
    gain: float
    offset: float
    """DN."""


def gather(blocks: Iterable[SceneBlock], setup: Setup) -> Coefficients:
    """Match PAN to the simulated one, both on the PAN grid, and draw the injection gains."""
    moments = JointMoments()
    for block in blocks:
        moments.add(block.pan, block.ms_up, where=block.core)
    return _fit(moments, setup)


def _fit(moments: JointMoments, setup: Setup) -> Coefficients:
    mean, covariance, count = moments.mean, moments.covariance, len(setup.gains)
    bands = slice(1, 1 + count)
    weights = np.array(setup.weights or (1 / count,) * count)
    with_intensity = covariance[bands, bands] @ weights
    variance = float(weights @ with_intensity)
    gain = float(np.sqrt(divide(np.array(variance), covariance[0, 0])))
    offset = float(weights @ mean[bands] - gain * mean[0])
    return Coefficients(weights, divide(with_intensity, np.array(variance)), gain, offset)


def _gaussians(setup: Setup) -> list[Kernel]:
    return [((1.0, mtf_sigma(0.3, setup.ratio)),)]  # of no use here, but a survey of some pixels needs one


def apply(block: SceneBlock, coefficients: Coefficients, setup: Setup) -> Array:
    """Return (bands, H, W) DN."""
    detail = coefficients.gain * block.pan - weigh(coefficients.weights, block.ms_up)
    detail += coefficients.offset
    return np.asarray(block.ms_up + coefficients.g[:, None, None] * detail)


METHOD = Method(
    "Gram-Schmidt",
    "Laben and Brower, US patent 6,011,875, 2000",
    gather,
    apply,
    no_reach,
    no_reach,
    weighs=True,
    thinned=Thinned(_gaussians, _fit),
)
