"""PRACS: only the part of PAN that a band correlates with replaces its intensity, less where spectra disagree."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from ksdiff_cli.classical.filters import down_up, low_reach
from ksdiff_cli.classical.method import Method, SceneBlock, Setup, modulate, no_reach, weigh
from ksdiff_cli.numerics import Array
from ksdiff_cli.numerics.moments import JointMoments, divide, solve

_BETA = 0.95  # overall strength of the injection


@dataclass(frozen=True)
class Coefficients:
    """``out_b = up_b + w_b L_b d_b``.

    With I_H = share pan + own up_b + offset (the partial replacement, in PAN's scale) and I_L = sum low up + offset its
    regression on the bands at the scale of MS, d = I_H - I_L and L = 1 - |1 - share up_b / I_L|. As L compares the band
    with PAN, both must be in one unit: the only method here for which PAN's gain matters.
    """

    share: Array
    """(bands,) correlation of the band with the intensity: PAN's share in I_H."""
    own: Array
    """(bands,) the band's share in I_H."""
    high_offset: Array
    """(bands,) DN."""
    low: Array
    """(bands, bands) a row a band: weights of I_L."""
    low_offset: Array
    """(bands,) DN."""
    weight: Array
    """(bands,) 0.95 cc(I_L, up_b) std(up_b) / mean of std(up)."""
    mean: float
    """Of PAN, and of I_L up to what resampling moves, DN."""


def gather(blocks: Iterable[SceneBlock], setup: Setup) -> Coefficients:
    """Regress PAN and the bands, at the scale of MS, on the upsampled bands; all else follows from moments."""
    moments, bands = JointMoments(), len(setup.gains)
    for block in blocks:
        small = down_up(np.concatenate([block.pan[None], block.ms_up]), setup.ratio)
        moments.add(block.ms_up, block.pan, small, where=block.core)
    mean, covariance = moments.mean, moments.covariance
    up_mean, pan_mean, small_mean = mean[:bands], mean[bands], mean[bands + 1 :]
    between = covariance[:bands, :bands]
    deviation = np.sqrt(np.diag(between))
    # a row each: PAN and the bands at the scale of MS as combinations of the upsampled bands
    fit = solve(between, covariance[:bands, bands + 1 :]).T
    share = _correlation(np.repeat(fit[:1], bands, 0), between)
    scale = divide(np.sqrt(covariance[bands, bands]), deviation)
    own = (1 - share) * scale
    low = share[:, None] * fit[:1] + own[:, None] * fit[1:]
    high_offset = pan_mean - share * pan_mean - own * up_mean
    low_offset = share * small_mean[0] + own * small_mean[1:] + high_offset - low @ up_mean
    # the detail is to have mean 0: the offset of I_H alone takes what resampling moved
    high_offset = high_offset + (low @ up_mean + low_offset - pan_mean)
    weight = _BETA * _correlation(low, between) * divide(deviation, deviation.mean())
    return Coefficients(share, own, high_offset, low, low_offset, weight, float(pan_mean))


def apply(block: SceneBlock, coefficients: Coefficients, setup: Setup) -> Array:
    """Return (bands, H, W) DN."""
    out = block.ms_up.copy()
    for band, (plane, low) in enumerate(zip(block.ms_up, coefficients.low, strict=True)):
        share, own = coefficients.share[band], coefficients.own[band]
        I_H = share * block.pan + own * plane + coefficients.high_offset[band]
        I_L = weigh(low, block.ms_up) + coefficients.low_offset[band]
        instability = np.abs(1 - modulate(share * plane, I_L, coefficients.mean, setup))
        out[band] += coefficients.weight[band] * (1 - instability) * (I_H - I_L)
    return out


def _correlation(weights: Array, between: Array) -> Array:
    """Correlate, for each band, its combination of the bands (a row of ``weights``) with the band itself: (bands,)."""
    combined = weights @ between
    variances = np.einsum("ij,ij->i", combined, weights) * np.diag(between)
    return divide(np.diag(combined), np.sqrt(np.maximum(variances, 0)))


METHOD = Method(
    "Partial replacement adaptive component substitution",
    "Choi, Yu, Kim, IEEE TGRS 2011",
    gather,
    apply,
    low_reach,
    no_reach,
    divides=True,
)
