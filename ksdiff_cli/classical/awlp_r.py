"""AWLP-R: AWLP with the cameras' own low-pass filters and with the path radiance left out of the bands' proportions.

The detail is that of PAN without what each band's camera sees of it, at the deviation of the mean band; it is shared in
proportion to radiances above the haze, which is estimated as in BT-H.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from ksdiff_cli.classical.bt_h import find_haze, haze_tail
from ksdiff_cli.classical.filters import mtf_low, mtf_reach
from ksdiff_cli.classical.method import Method, SceneBlock, Setup, modulate
from ksdiff_cli.numerics import Array
from ksdiff_cli.numerics.moments import JointMoments, divide


@dataclass(frozen=True)
class Coefficients:
    """``out_b = up_b + gain_b (pan - P_b) max(up_b - haze_b, 0) / mean(up - haze)``, P_b PAN through band b's MTF."""

    haze: Array
    """(bands,) DN of the path radiance."""
    gain: Array
    """(bands,) std(mean of the bands) / std(P_b)."""
    mean: float
    """Of all bands over the scene without haze, DN."""


def gather(blocks: Iterable[SceneBlock], setup: Setup) -> Coefficients:
    """Find the haze, and match PAN's deviation at the scale of MS to that of the mean of the bands."""
    count = len(setup.gains)
    moments, tail = JointMoments(), haze_tail(count)
    for block in blocks:
        moments.add(block.ms_up.mean(0), block.ms_up, mtf_low(block, setup), where=block.core)
        tail.add(block.ms_up, block.core, block.scene_pixels)
    haze, variance = find_haze(tail, count), np.diag(moments.covariance)
    gain = np.sqrt(divide(variance[:1], variance[1 + count :]))
    return Coefficients(haze, gain, float(moments.mean[0] - haze.mean()))


def apply(block: SceneBlock, coefficients: Coefficients, setup: Setup) -> Array:
    """Return (bands, H, W) float64 DN."""
    clear = block.ms_up - coefficients.haze[:, None, None]
    share = modulate(np.maximum(clear, 0), clear.mean(0), coefficients.mean, setup)
    return np.asarray(block.ms_up + coefficients.gain[:, None, None] * share * (block.pan - mtf_low(block, setup)))


METHOD = Method(
    "Additive wavelet luminance proportional, revised",
    "Vivone, Alparone, Garzelli, Lolli, Remote Sensing 11(19):2315, 2019",
    gather,
    apply,
    mtf_reach,
    mtf_reach,
    uses_mtf=True,
    divides=True,
)
