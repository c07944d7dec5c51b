"""Finished windows -> the output, block by block."""

from collections.abc import Iterator
from typing import Any

from numpy.typing import NDArray
from rasterio.windows import Window

from ksdiff_cli.progress import ProgressCallback, silent
from ksdiff_cli.raster_geotiff import RasterTarget
from ksdiff_cli.sharpening.job import Job
from ksdiff_cli.sharpening.pipeline import read_ahead
from ksdiff_cli.sharpening.seams import Seams
from ksdiff_cli.sharpening.shards import OpenShards
from ksdiff_cli.tiling import Box

Array = NDArray[Any]

_LEAST = 256  # side of a piece, pixels


def assemble(job: Job, target: RasterTarget, ratio: int, progress: ProgressCallback = silent) -> float | None:
    """Copy all shards into the output; a file's blocks are written once and whole, and always in the same order.

    Args:
        job: without missing windows.
        target: the output, open for writing; it shows the job's region.
        ratio: PAN pixels per MS pixel along a side.
        progress: told the pieces done.

    Returns:
        The seam score, see :class:`Seams`; None where there is no border.

    Raises:
        KsdiffError: a shard is damaged.
    """
    region = job.plan.region
    seams = Seams(region, job.plan.tiling.tile, ratio)
    pieces = list(_pieces(region, job.plan.tiling.tile, target.block_shapes[0]))

    def read(piece: Box) -> Array:
        return job.load(piece.grown(seams.margin).meet(region), opened)

    with OpenShards() as opened, read_ahead(read, pieces, 1) as images:
        for done, (piece, image) in enumerate(images, start=1):
            shown = piece.grown(seams.margin).meet(region)
            window = Window(piece.left - region.left, piece.top - region.top, piece.width, piece.height)
            target.write(image[:, *piece.within(shown)], window)
            seams.add(image, job.valid(image), piece, shown)
            progress(done, len(pieces), "output")
    return seams.score


def _pieces(region: Box, tile: int, block: tuple[int, int]) -> Iterator[Box]:
    """Cut the region into pieces of whole blocks, about as large as a window."""
    # a file of strips has blocks as wide as itself: then few rows of them
    wide = block[1] > max(tile, _LEAST)
    height = -(-(_LEAST if wide else max(tile, _LEAST)) // block[0]) * block[0]
    width = -(-max(tile, _LEAST) // block[1]) * block[1]
    for top in range(region.top, region.bottom, height):
        for left in range(region.left, region.right, width):
            yield Box(top, left, top + height, left + width).meet(region)
