"""The reprojection protocol on rasters: the bands' shifts, and the fused image as the MS camera sees it, by blocks."""

from ksdiff_cli.evaluation.sources import FullSource, GridSource
from ksdiff_cli.metrics import Shifts
from ksdiff_cli.metrics.blocks import CELL, Span, split
from ksdiff_cli.metrics.shifts import ShiftSearch
from ksdiff_cli.metrics.views import place_view
from ksdiff_cli.numerics import Array


def find_band_shifts(source: FullSource | GridSource) -> Shifts:
    """Find by how much each band of MS lies off PAN; see :func:`ksdiff_cli.metrics.find_shifts`.

    Raises:
        KsdiffError: a file is damaged.
    """
    part = source.ms_part
    search = ShiftSearch(part.grid, source.gains)
    for patch in search.patches(source.shape, part.shape):
        pan, valid = source.read_pan(*_window(*patch.pan))
        ms, ms_valid = part.read(*_window(*patch.ms))
        search.update(patch, pan[0], ms, valid, ms_valid)
    return search.result()


def ms_blocks(source: FullSource | GridSource, step: tuple[int, int]) -> list[tuple[Span, Span]]:
    """Cut the MS pixels into blocks of about ``step`` rows and columns of PAN pixels."""
    part = source.ms_part
    if min(part.shape) == 0:
        return []
    axes = part.grid.rows, part.grid.cols
    sides = [CELL * max(1, round(size * abs(axis.scale) / CELL)) for size, axis in zip(step, axes, strict=True)]
    rows, cols = (split(size, side, 0, 0) for size, side in zip(part.shape, sides, strict=True))
    return [(row, col) for row in rows for col in cols]


def read_reprojected(
    source: FullSource | GridSource, shifts: Array, rows: Span, cols: Span
) -> tuple[Array, Array, Array]:
    """Read a block of MS, and the fused image as the MS camera sees it there.

    Args:
        source: the images.
        shifts: (bands, 2) PAN rows and columns, of :func:`find_band_shifts`.
        rows: of the block, MS pixels.
        cols: of the block.

    Returns:
        MS and the fused image, (bands, h, w) float64, and which pixels count, (h, w) bool.

    Raises:
        KsdiffError: a file is damaged.
    """
    part, places = source.ms_part, ((rows.start, rows.stop), (cols.start, cols.stop))
    view = place_view(part.grid, source.shape, *places, source.cameras, shifts)
    image, valid = source.fused.read(*_window(view.rows, view.cols))
    ms, known = part.read(*_window(*(slice(*place) for place in places)))
    return ms, view.see(image), known & view.whole(valid)


def _window(rows: slice, cols: slice) -> tuple[int, int, int, int]:
    return rows.start, cols.start, rows.stop - rows.start, cols.stop - cols.start
