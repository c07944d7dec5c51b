"""MTF-GLP-HPM-R: every band times the ratio of PAN to its low-pass, both brought to the band by regression."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from ksdiff_cli.classical.filters import mtf_gaussians, mtf_low, mtf_reach
from ksdiff_cli.classical.method import Method, SceneBlock, Setup, Thinned, modulate, scale
from ksdiff_cli.numerics import Array
from ksdiff_cli.numerics.moments import JointMoments, divide


@dataclass(frozen=True)
class Coefficients:
    """``out_b = up_b (g_b pan + c_b) / (g_b P_b + c_b)``, P_b the low-pass PAN."""

    g: Array
    """(bands,) cov(up_b, P_b) / var(P_b)."""
    c: Array
    """(bands,) DN, mean(up_b) - g_b mean(pan): the path radiance among others."""
    mean: Array
    """(bands,) of up_b over the scene, and of the divisor, DN."""


def gather(blocks: Iterable[SceneBlock], setup: Setup) -> Coefficients:
    """Regress each band on the low-pass PAN."""
    moments = JointMoments()
    for block in blocks:
        moments.add(block.pan, block.ms_up, mtf_low(block, setup), where=block.core)
    return _fit(moments, setup)


def _fit(moments: JointMoments, setup: Setup) -> Coefficients:
    mean, covariance, bands = moments.mean, moments.covariance, len(setup.gains)
    up, low = np.arange(1, 1 + bands), np.arange(1 + bands, 1 + 2 * bands)
    g = divide(covariance[up, low], covariance[low, low])
    return Coefficients(g, mean[up] - g * mean[0], mean[up])


def apply(block: SceneBlock, coefficients: Coefficients, setup: Setup) -> Array:
    """Return (bands, H, W) float64 DN."""
    g, c = coefficients.g[:, None, None], coefficients.c[:, None, None]
    low = g * mtf_low(block, setup) + c
    return scale(block.ms_up, modulate(g * block.pan + c, low, coefficients.mean[:, None, None], setup), setup)


METHOD = Method(
    "Generalized Laplacian pyramid, high-pass modulation with regression",
    "Vivone, Restaino, Chanussot, IEEE TGRS 2018",
    gather,
    apply,
    mtf_reach,
    mtf_reach,
    uses_mtf=True,
    divides=True,
    thinned=Thinned(mtf_gaussians, _fit),
)
