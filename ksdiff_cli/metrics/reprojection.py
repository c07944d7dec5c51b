"""The reprojection protocol: the fused image, brought back to MS by the MS camera, against the MS that went in."""

import math
from collections.abc import Sequence

import numpy as np

from ksdiff_cli.errors import KsdiffError
from ksdiff_cli.metrics.blocks import Span, make_block
from ksdiff_cli.metrics.ergas import Ergas
from ksdiff_cli.metrics.q2n import Q2n
from ksdiff_cli.metrics.sam import Sam
from ksdiff_cli.metrics.shifts import find_shifts
from ksdiff_cli.metrics.views import place_view
from ksdiff_cli.numerics import Array
from ksdiff_cli.numerics.camera import camera_kernel
from ksdiff_cli.numerics.grids import GridMap, corner_aligned


class Reprojection:
    """R-Q2n, R-ERGAS and R-SAM of a fused image, gathered block by block of MS pixels."""

    def __init__(self, ratio: float = 4) -> None:
        """Start with no pixels; ``ratio`` is in PAN pixels per MS pixel."""
        self.metrics = {"R_Q2n": Q2n(), "R_ERGAS": Ergas(ratio), "R_SAM": Sam()}
        self.refused: dict[str, str] = {}

    def update(
        self, ms: Array, reprojected: Array, valid: Array, rows: Span | None = None, cols: Span | None = None
    ) -> None:
        """Take one block in.

        Args:
            ms: (bands, h, w), DN.
            reprojected: (bands, h, w), DN, of :meth:`~ksdiff_cli.metrics.views.View.see`.
            valid: (h, w) bool.
            rows: where the block lies along the height of MS, at multiples of 32; ``None`` for the whole.
            cols: where it lies along the width.

        Raises:
            KsdiffError: shapes differ or values are not finite.
        """
        block = make_block(ms, reprojected, valid, rows, cols)
        for name, metric in self.metrics.items():
            if name not in self.refused:
                try:
                    metric.update(block)
                except KsdiffError as error:
                    self.refused[name] = str(error)

    def results(self) -> tuple[dict[str, float], list[str]]:
        """Return R_Q2n, R_ERGAS, R_SAM and D_lambda_align, NaN where undefined, and why they are."""
        values, notes = {}, []
        for name, metric in self.metrics.items():
            try:
                if name in self.refused:
                    raise KsdiffError(self.refused[name])
                values[name] = metric.result()
            except KsdiffError as error:
                values[name] = math.nan
                notes.append(f"{name}: {error}")
        values["D_lambda_align"] = 1 - values["R_Q2n"]
        return values, notes


def reprojection(
    fused: Array,
    ms: Array,
    gains: Sequence[float],
    ratio: float = 4,
    *,
    pan: Array | None = None,
    shifts: Array | None = None,
    grid: GridMap | None = None,
    valid: Array | None = None,
    ms_valid: Array | None = None,
) -> dict[str, float]:
    """Bring a fused image to the MS size by the MS camera and compare it with MS: R-Q2n, R-ERGAS, R-SAM.

    The fused image goes through one Gaussian MTF a band (border replicated) and is sampled where the pixels of MS look,
    moved by each band's own shift of :func:`~ksdiff_cli.metrics.shifts.find_shifts`. An MS pixel counts if it and all
    that it sees of the fused image are valid.

    Upsampled MS scores well: without detail nothing can be wrong. Read it together with D_rho or D_sR.

    Args:
        fused: (bands, H, W), DN.
        ms: (bands, h, w), DN.
        gains: by band, MTF at the MS Nyquist frequency, (0, 1).
        ratio: PAN pixels per MS pixel along a side.
        pan: (H, W), which finds the shifts; ``None`` with ``shifts``, or for none.
        shifts: (bands, 2), PAN rows and columns; ``None`` has them found by ``pan``.
        grid: from the pixels of PAN to those of MS; ``None`` where both share their outer corner.
        valid: (H, W) bool, pixels of ``fused`` to see; ``None`` for all.
        ms_valid: (h, w) bool, pixels of MS to count; ``None`` for all.

    Returns:
        ``R_Q2n`` [0, 1], 1 is best; ``R_ERGAS`` [0, inf) and ``R_SAM`` [0, 180] degrees, 0 is best; ``D_lambda_align``
        = 1 - R_Q2n. NaN where undefined, as MS under 16 pixels leaves Q2n.

    Raises:
        KsdiffError: shapes do not fit each other or values are not finite.

    References:
        Scarpa, Ciotola, "Full-resolution quality assessment for pansharpening", Remote Sensing 14:1808, 2022.
    """
    grid = grid or corner_aligned(ratio)
    seen = np.ones(fused.shape[1:], bool) if valid is None else valid
    known = np.ones(ms.shape[1:], bool) if ms_valid is None else ms_valid
    if len(gains) != len(ms) or len(fused) != len(ms):
        raise KsdiffError(f"{len(fused)} fused bands, {len(ms)} MS bands and {len(gains)} MTF gains must be as many")
    if shifts is None and pan is not None:
        shifts = find_shifts(pan, ms, gains, grid, valid, ms_valid).shifts
    elif shifts is None:
        shifts = np.zeros((len(ms), 2))
    height, width = ms.shape[1:]
    cameras = [camera_kernel(gain) for gain in gains]
    view = place_view(grid, fused.shape[1:], (0, height), (0, width), cameras, shifts)
    mask = seen[view.rows, view.cols]
    image = np.where(mask, fused[:, view.rows, view.cols], 0)
    found = Reprojection(ratio)
    found.update(ms, view.see(image), known & view.whole(mask))
    return found.results()[0]
