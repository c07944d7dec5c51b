"""MTF-GLP-FS: PAN's detail beyond each band's MTF, with gains regressed at full scale."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from ksdiff_cli.classical.filters import mtf_gaussians, mtf_low, mtf_reach
from ksdiff_cli.classical.method import Method, SceneBlock, Setup, Thinned
from ksdiff_cli.numerics import Array
from ksdiff_cli.numerics.moments import JointMoments, divide


@dataclass(frozen=True)
class Coefficients:
    """``out_b = up_b + g_b (pan - P_b)``, P_b the low-pass PAN."""

    g: Array
    """(bands,) injection gains, cov(up_b, pan) / cov(P_b, pan)."""


def gather(blocks: Iterable[SceneBlock], setup: Setup) -> Coefficients:
    """Regress the gains on the PAN grid."""
    moments = JointMoments()
    for block in blocks:
        moments.add(block.pan, block.ms_up, mtf_low(block, setup), where=block.core)
    return _fit(moments, setup)


def _fit(moments: JointMoments, setup: Setup) -> Coefficients:
    with_pan = moments.covariance[0, 1:]
    bands = len(setup.gains)
    return Coefficients(divide(with_pan[:bands], with_pan[bands:]))


def apply(block: SceneBlock, coefficients: Coefficients, setup: Setup) -> Array:
    """Return (bands, H, W) float64 DN."""
    return np.asarray(block.ms_up + coefficients.g[:, None, None] * (block.pan - mtf_low(block, setup)))


METHOD = Method(
    "Generalized Laplacian pyramid with full-scale regression",
    "Vivone, Restaino, Chanussot, IEEE TIP 2018",
    gather,
    apply,
    mtf_reach,
    mtf_reach,
    uses_mtf=True,
    thinned=Thinned(mtf_gaussians, _fit),
)
