"""D_lambda (Khan): the spectral distortion at full resolution."""

from ksdiff_cli.metrics.blocks import make_block
from ksdiff_cli.metrics.full_blocks import FullBlock, FullMetric
from ksdiff_cli.metrics.q2n import Q2n, q2n_cells
from ksdiff_cli.numerics import Array


class DLambda(FullMetric):
    """Accumulator of :func:`d_lambda`."""

    def __init__(self, check_range: bool = True) -> None:
        """Start with no cells; see :func:`d_lambda` for ``check_range``."""
        self.q2n = Q2n(check_range)

    def update(self, block: FullBlock) -> None:
        """Take one block in."""
        self.q2n.update(make_block(block.ms_up, block.fused_blurred, block.valid))

    def result(self) -> float:
        """Return the distortion.

        Raises:
            KsdiffError: MS is not in DN.
        """
        return 1 - self.q2n.result()


def d_lambda(ms_up: Array, fused_blurred: Array, valid: Array | None = None, check_range: bool = True) -> float:
    """Return 1 - Q2n(upsampled MS, MTF-filtered fused image), at the PAN size and without decimation.

    Args:
        ms_up: (bands, H, W), DN, MS upsampled by :func:`~ksdiff_cli.numerics.toolbox.interp23tap`; sides multiples
            of 32.
        fused_blurred: (bands, H, W), DN, from :func:`~ksdiff_cli.numerics.toolbox.mtf_filter` with the MS gains.
        valid: (H, W) bool; cells with a pixel that is not valid are left out. ``None`` for all.
        check_range: refuse data that cannot be in DN; see :func:`~ksdiff_cli.metrics.q2n.q2n`.

    Returns:
        [0, 1], 0 is best; NaN if every cell holds nodata.

    Raises:
        KsdiffError: shapes differ, or values are not finite or not in DN.

    References:
        Khan, Alparone, Chanussot, "Pansharpening quality assessment using the modulation transfer functions of
        instruments", IEEE TGRS 2009.
    """
    quality = Q2n(check_range)
    quality.update(make_block(ms_up, fused_blurred, valid))
    return 1 - quality.result()


def d_lambda_cells(block: FullBlock) -> Array:
    """Return the Q2n behind D_lambda of each cell: (h/32, w/32), NaN for cells with nodata."""
    return q2n_cells(make_block(block.ms_up, block.fused_blurred, block.valid))
