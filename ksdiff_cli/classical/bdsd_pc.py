"""BDSD-PC: detail as the combination of PAN and all bands that works best one scale down, with signs physics allows."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from scipy.optimize import nnls

from ksdiff_cli.classical.filters import (
    blur_on_ms_grid,
    low_mtf_reach,
    mask_on_ms_grid,
    pan_mtf_low,
    to_ms_grid,
)
from ksdiff_cli.classical.method import Method, SceneBlock, Setup, no_reach, weigh
from ksdiff_cli.numerics import Array
from ksdiff_cli.numerics.moments import JointMoments
from ksdiff_cli.numerics.toolbox import bicubic


@dataclass(frozen=True)
class Coefficients:
    """``out_b = up_b + gamma_b [pan, up]``."""

    gamma: Array
    """(bands, 1 + bands); the first of a row (PAN's) at least 0, the others at most 0."""


def gather(blocks: Iterable[SceneBlock], setup: Setup) -> Coefficients:
    """Fit, on the MS grid, the detail that each band's MTF takes away: min |[P M] gamma - (G_b - M_b)|²."""
    moments = JointMoments()
    for block in blocks:
        G = bicubic(block.ms_up, 1 / setup.ratio)
        M = blur_on_ms_grid(G, setup)
        P = to_ms_grid(pan_mtf_low(block, setup), setup)
        moments.add(P, -M, G - M, where=mask_on_ms_grid(block.core, setup))
    count = 1 + len(setup.gains)
    second = moments.second
    # any square A with A'A the moment matrix gives the same least squares as all the samples
    values, vectors = np.linalg.eigh(second)
    A = np.sqrt(np.maximum(values, 0))[:, None] * vectors.T
    gamma = np.stack([nnls(A[:, :count], A[:, count + band])[0] for band in range(count - 1)])
    gamma[:, 1:] *= -1
    return Coefficients(gamma)


def apply(block: SceneBlock, coefficients: Coefficients, setup: Setup) -> Array:
    """Return (bands, H, W) DN."""
    out = np.empty_like(block.ms_up)
    for band, gamma in enumerate(coefficients.gamma):
        np.add(block.ms_up[band], gamma[0] * block.pan + weigh(gamma[1:], block.ms_up), out=out[band])
    return out


METHOD = Method(
    "Band-dependent spatial detail with physical constraints",
    "Vivone, IEEE TGRS 2019",
    gather,
    apply,
    low_mtf_reach,
    no_reach,
    uses_mtf=True,
)
