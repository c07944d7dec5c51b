"""ERGAS: the relative global error in synthesis."""

import numpy as np

from ksdiff_cli.metrics.blocks import Block, Metric, measure
from ksdiff_cli.numerics import Array


class Ergas(Metric):
    """Accumulator of :func:`ergas`; NaN without any pixel."""

    def __init__(self, ratio: float = 4) -> None:
        """Start with no pixels; ``ratio`` is in PAN pixels per MS pixel."""
        self.ratio = ratio
        self.count = 0
        self.squares: Array = np.zeros(1)
        self.sums: Array = np.zeros(1)

    def update(self, block: Block) -> None:
        """Take one block in."""
        block = block.view(0, 0)
        # pixels that do not count are 0 in both images
        error = block.reference - block.fused
        self.squares = self.squares + np.einsum("bhw,bhw->b", error, error)
        self.sums = self.sums + block.reference.sum((1, 2))
        self.count += int(np.count_nonzero(block.valid))

    def result(self) -> float:
        """Return ERGAS."""
        with np.errstate(divide="ignore", invalid="ignore"):
            relative = (self.squares / self.count) / (self.sums / self.count) ** 2
        return float(100 / self.ratio * np.sqrt(relative.mean()))


def ergas(reference: Array, fused: Array, ratio: float = 4, valid: Array | None = None) -> float:
    """Return the root mean square error relative to each band's mean, over all bands, in percent over the ratio.

    100/ratio * sqrt(mean over bands of MSE_b / mean(reference_b)²).

    Args:
        reference: (bands, H, W), any unit.
        fused: (bands, H, W), same unit.
        ratio: PAN pixels per MS pixel along a side.
        valid: (H, W) bool, pixels to count; ``None`` for all.

    Returns:
        [0, inf), 0 is best. Infinite if a reference band has mean 0 and an error, NaN if it has mean 0 and none.

    Raises:
        KsdiffError: shapes differ or values are not finite.

    References:
        Wald, "Data Fusion: Definitions and Architectures", Presses des Mines 2002.
    """
    return measure(Ergas(ratio), reference, fused, valid)
