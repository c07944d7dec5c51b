"""SCC: the spatial correlation coefficient."""

import numpy as np

from ksdiff_cli.metrics.blocks import Block, Metric, measure, ratio_or_nan
from ksdiff_cli.numerics import Array


class Scc(Metric):
    """Accumulator of :func:`scc`; NaN if either image is flat and its border zero, or without any pixel."""

    before = 1
    after = 1

    def __init__(self) -> None:
        """Start with no pixels."""
        self.cross = self.reference = self.fused = 0.0

    def update(self, block: Block) -> None:
        """Take one block in."""
        block = block.view(1, 1)
        complete = None
        if not block.valid.all():
            rows, cols = (size - 2 for size in block.valid.shape)
            near = [block.valid[i : i + rows, j : j + cols] for i in range(3) for j in range(3)]
            complete = np.all(near, axis=0)
        for reference, fused in zip(block.reference, block.fused, strict=True):
            edges_r, edges_f = _edges(reference, block), _edges(fused, block)
            if complete is not None:
                edges_r, edges_f = edges_r[complete], edges_f[complete]
            self.cross += float((edges_r * edges_f).sum())
            self.reference += float((edges_r * edges_r).sum())
            self.fused += float((edges_f * edges_f).sum())

    def result(self) -> float:
        """Return the correlation."""
        return ratio_or_nan(self.cross, float(np.sqrt(self.fused * self.reference)))


def scc(reference: Array, fused: Array, valid: Array | None = None) -> float:
    """Return the uncentred correlation of the Sobel gradient magnitudes of two images, over all bands at once.

    As in the reference, the outermost pixels are dropped and the rest is framed by zeros. That frame makes an edge that
    both images share and lifts the value a little, the more the smaller the image.

    Args:
        reference: (bands, H, W), any unit, sides at least 3.
        fused: (bands, H, W), any unit.
        valid: (H, W) bool; a pixel counts if its 3x3 neighbourhood is valid. ``None`` for all.

    Returns:
        [0, 1], 1 is best; NaN if either image has no gradient at all.

    Raises:
        KsdiffError: shapes differ or values are not finite.

    References:
        Zhou, Civco, Silander, "A wavelet transform method to merge Landsat TM and SPOT panchromatic data", IJRS 1998.
    """
    return measure(Scc(), reference, fused, valid)


def _edges(band: Array, block: Block) -> Array:
    """Return the Sobel magnitude of a band of a block with one pixel of context: (h, w) -> (h-2, w-2)."""
    band = band.copy()
    for lines, span in ((band, block.rows), (band.T, block.cols)):
        # the image's outermost pixels are the zero frame of what lies inside
        if span.start - span.before == 0:
            lines[0] = 0
        if span.stop + span.after == span.size:
            lines[-1] = 0
    smooth_cols = band[:, :-2] + 2 * band[:, 1:-1] + band[:, 2:]
    smooth_rows = band[:-2] + 2 * band[1:-1] + band[2:]
    down = smooth_cols[:-2] - smooth_cols[2:]
    across = smooth_rows[:, :-2] - smooth_rows[:, 2:]
    return np.asarray(np.sqrt(down * down + across * across))
