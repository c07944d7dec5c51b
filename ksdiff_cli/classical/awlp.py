"""AWLP: PAN's wavelet planes, shared among the bands in proportion to their radiances."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from ksdiff_cli.classical.filters import atrous, atrous_reach, down_up, low_reach
from ksdiff_cli.classical.method import Method, SceneBlock, Setup, modulate
from ksdiff_cli.numerics import Array
from ksdiff_cli.numerics.moments import JointMoments, divide


@dataclass(frozen=True)
class Coefficients:
    """``out_b = up_b + gain_b (pan - P) up_b / mean(up)``, P the à-trous low-pass of PAN."""

    gain: Array
    """(bands,) std(up_b) / std(PAN brought to the MS size and back)."""
    mean: float
    """Of all bands over the scene, DN."""


def gather(blocks: Iterable[SceneBlock], setup: Setup) -> Coefficients:
    """Match PAN's deviation at the scale of MS to that of each band."""
    moments = JointMoments()
    for block in blocks:
        moments.add(down_up(block.pan[None], setup.ratio), block.ms_up, where=block.core)
    variance = np.diag(moments.covariance)
    return Coefficients(np.sqrt(divide(variance[1:], variance[0])), float(moments.mean[1:].mean()))


def apply(block: SceneBlock, coefficients: Coefficients, setup: Setup) -> Array:
    """Return (bands, H, W) float64 DN."""
    share = modulate(block.ms_up, block.ms_up.mean(0), coefficients.mean, setup)
    return np.asarray(block.ms_up + coefficients.gain[:, None, None] * share * (block.pan - atrous(block, setup)))


METHOD = Method(
    "Additive wavelet luminance proportional",
    "Otazu et al., IEEE TGRS 2005",
    gather,
    apply,
    low_reach,
    atrous_reach,
    divides=True,
)
