"""SAM: the spectral angle mapper."""

import numpy as np

from ksdiff_cli.metrics.blocks import Block, Metric, measure, ratio_or_nan
from ksdiff_cli.numerics import Array


class Sam(Metric):
    """Accumulator of :func:`sam`; NaN if no pixel has an angle."""

    def __init__(self) -> None:
        """Start with no pixels."""
        self.total = 0.0
        self.count = 0

    def update(self, block: Block) -> None:
        """Take one block in."""
        block = block.view(0, 0)
        angles = sam_map(block.reference, block.fused)
        angles = angles[block.valid & np.isfinite(angles)]
        self.total += float(angles.sum())
        self.count += angles.size

    def result(self) -> float:
        """Return the mean angle in degrees."""
        return ratio_or_nan(self.total, self.count)


def sam(reference: Array, fused: Array, valid: Array | None = None) -> float:
    """Return the mean angle between the spectra of two images.

    Pixels whose spectrum is all zero in either image have no angle and are dropped.

    Args:
        reference: (bands, H, W), any unit.
        fused: (bands, H, W), same unit.
        valid: (H, W) bool, pixels to count; ``None`` for all.

    Returns:
        Degrees, [0, 180], 0 is best; NaN if no pixel has an angle.

    Raises:
        KsdiffError: shapes differ or values are not finite.

    References:
        Yuhas, Goetz, Boardman, "Discrimination among semi-arid landscape endmembers using the spectral angle mapper
        (SAM) algorithm", JPL Airborne Geoscience Workshop 1992.
    """
    return measure(Sam(), reference, fused, valid)


def sam_map(reference: Array, fused: Array) -> Array:
    """Return the angle of each pixel in degrees: (bands, H, W) twice -> (H, W), NaN where a spectrum is all zero."""
    reference, fused = np.asarray(reference, np.float64), np.asarray(fused, np.float64)
    inner, norm_r, norm_f = (
        np.einsum("bhw,bhw->hw", left, right)
        for left, right in ((reference, fused), (reference, reference), (fused, fused))
    )
    # one root of the product, not a product of roots: exact, hence 0 degrees, for proportional integers
    norm = np.sqrt(norm_r * norm_f)
    cosine = np.divide(inner, norm, out=np.full_like(norm, np.nan), where=norm > 0)
    return np.asarray(np.degrees(np.arccos(np.clip(cosine, -1.0, 1.0))))
