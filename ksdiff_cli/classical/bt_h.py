"""BT-H: the Brovey transform with the haze taken out first and the intensity that fits PAN best."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from ksdiff_cli.classical.filters import ideal_low, mtf_reach
from ksdiff_cli.classical.method import Method, SceneBlock, Setup, modulate, no_reach, weigh
from ksdiff_cli.numerics import Array
from ksdiff_cli.numerics.moments import JointMoments, LowTail, divide, solve

_FOUR_BANDS = np.array([0.95, 0.45, 0.40, 0.05])  # blue, green, red, near infrared
_PERCENTILE = 0.01
_EPS = float(np.finfo(np.float64).eps)


@dataclass(frozen=True)
class Coefficients:
    """``out = max(up - haze, 0) (gain pan + offset) / I + haze``, I = sum alpha (up - haze)."""

    haze: Array
    """(bands,) DN of the path radiance."""
    alpha: Array
    """(bands,) weights of the intensity."""
    gain: float
    offset: float
    """DN."""
    mean: float
    """Of I over the scene, DN."""


def haze_tail(bands: int) -> LowTail:
    """Return what gathers the values that :func:`find_haze` asks for."""
    return LowTail(_PERCENTILE if bands == 4 else 0.0)


def find_haze(tail: LowTail, bands: int) -> Array:
    """Return the path radiance, (bands,) DN.

    Of four bands (blue, green, red, near infrared): .95, .45, .40, .05 of their first percentiles; of any other number
    of bands: their minima.
    """
    return tail.result() * (_FOUR_BANDS if bands == 4 else 1.0)


def gather(blocks: Iterable[SceneBlock], setup: Setup) -> Coefficients:
    """Find the haze, fit the intensity to a low-pass PAN without intercept, match PAN to the intensity."""
    moments, tail = JointMoments(), haze_tail(len(setup.gains))
    for block in blocks:
        moments.add(ideal_low(block, setup), block.ms_up, where=block.core)
        tail.add(block.ms_up, block.core, block.scene_pixels)
    haze = find_haze(tail, len(setup.gains))
    second, covariance = moments.second, moments.covariance
    alpha = solve(second[1:, 1:], second[1:, 0])
    gain = float(np.sqrt(divide(alpha @ covariance[1:, 1:] @ alpha, covariance[0, 0])))
    mean = float(alpha @ (moments.mean[1:] - haze))
    return Coefficients(haze, alpha, gain, float(mean - gain * moments.mean[0]), mean)


def apply(block: SceneBlock, coefficients: Coefficients, setup: Setup) -> Array:
    """Return (bands, H, W) DN."""
    haze = coefficients.haze[:, None, None]
    clear = block.ms_up - haze
    # the reference adds the least of a unit that stands for DN; here it follows the data's own
    intensity = weigh(coefficients.alpha, clear) + _EPS * abs(coefficients.mean)
    ratio = modulate(coefficients.gain * block.pan + coefficients.offset, intensity, coefficients.mean, setup)
    return np.asarray(np.maximum(clear, 0) * ratio + haze)


METHOD = Method(
    "Brovey transform with haze correction",
    "Lolli et al., IEEE GRSL 2017",
    gather,
    apply,
    mtf_reach,
    no_reach,
    divides=True,
)
