"""GSA: Gram-Schmidt with the intensity that fits PAN best."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from ksdiff_cli.classical.filters import (
    atrous,
    atrous_reach,
    low_reach,
    mask_on_ms_grid,
    ms_on_ms_grid,
    to_ms_grid,
)
from ksdiff_cli.classical.method import Method, SceneBlock, Setup, no_reach, weigh
from ksdiff_cli.numerics import Array
from ksdiff_cli.numerics.moments import JointMoments, divide, solve


@dataclass(frozen=True)
class Coefficients:
    """``out = up + g (pan - pan_mean - sum alpha (up - ms_mean))``."""

    alpha: Array
    """(bands,) weights of the intensity."""
    g: Array
    """(bands,) injection gains, cov(I, up) / var(I)."""
    pan_mean: float
    """DN."""
    ms_mean: Array
    """(bands,) DN."""


def gather(blocks: Iterable[SceneBlock], setup: Setup) -> Coefficients:
    """Fit the intensity to a low-pass PAN on the MS grid, then the gains on the PAN grid."""
    low, high = JointMoments(), JointMoments()
    for block in blocks:
        pan_low = to_ms_grid(atrous(block, setup), setup)
        low.add(pan_low, ms_on_ms_grid(block, setup), where=mask_on_ms_grid(block.core, setup))
        high.add(block.pan, block.ms_up, where=block.core)
    covariance = low.covariance
    alpha = solve(covariance[1:, 1:], covariance[1:, 0])
    with_intensity = high.covariance[1:, 1:] @ alpha
    return Coefficients(alpha, divide(with_intensity, alpha @ with_intensity), float(high.mean[0]), high.mean[1:])


def apply(block: SceneBlock, coefficients: Coefficients, setup: Setup) -> Array:
    """Return (bands, H, W) DN."""
    level = coefficients.pan_mean - float(coefficients.alpha @ coefficients.ms_mean)
    detail = block.pan - weigh(coefficients.alpha, block.ms_up)
    detail -= level
    return np.asarray(block.ms_up + coefficients.g[:, None, None] * detail)


def _gather_reach(ratio: int) -> int:
    return max(atrous_reach(ratio) + 2, low_reach(ratio))


METHOD = Method(
    "Gram-Schmidt adaptive",
    "Aiazzi, Baronti, Selva, IEEE TGRS 2007",
    gather,
    apply,
    _gather_reach,
    no_reach,
)
