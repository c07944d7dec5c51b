"""Finished windows -> the output, block by block."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.windows import Window

from ksdiff_cli.numerics.boxes import Box
from ksdiff_cli.output.geotiff import RasterTarget
from ksdiff_cli.progress import ProgressCallback, silent
from ksdiff_cli.sharpening.job import Job
from ksdiff_cli.sharpening.pipeline import read_ahead
from ksdiff_cli.sharpening.seams import Seams
from ksdiff_cli.sharpening.shards import OpenShards

Array = NDArray[Any]

_LEAST = 256  # side of a piece, pixels


class Assembly:
    """An output that grows with the windows, or once all are finished; its bytes are the same.

    A file's blocks are written once and whole, and always in the same order: piece by piece, each a window where the
    windows are made of whole blocks. Only then can a window be written as soon as it is made, without its shard.
    """

    def __init__(self, job: Job, target: RasterTarget, ratio: int) -> None:
        """Begin an output.

        Args:
            job: whose windows it takes.
            target: the output, open for writing; it shows the job's region.
            ratio: PAN pixels per MS pixel along a side.
        """
        self.job, self._target = job, target
        self.seams = Seams(job.plan.region, job.plan.tiling.tile, ratio)
        self.pieces = list(_pieces(job.plan.region, job.plan.tiling.tile, target.block_shapes[0]))
        parts = [job.plan.part(number) for number in job.plan.numbers]
        self.streams = self.seams.margin <= job.plan.tiling.tile and self.pieces == parts
        """Whether :meth:`take` can be called: pieces are windows, and a border is seen in two of them."""
        self._looks: dict[Box, Array] = {}
        self._taken = 0
        self._above: dict[int, Array] = {}  # the lowest rows of the windows above, by their first column
        self._beside: Array | None = None  # the last columns of the window to the left

    def watch(self, boxes: list[Box]) -> None:
        """Keep the pixels of some boxes of the region, for :meth:`look`, as windows are taken."""
        job = self.job
        self._looks = {box: np.empty((job.bands, box.height, box.width), job.pixels.dtype) for box in boxes}

    def look(self, box: Box) -> Array:
        """Return finished pixels (bands, height, width), encoded: of :meth:`watch`, or from shards."""
        return self._looks[box] if box in self._looks else self.job.load(box)

    def take(self, number: int, image: Array | None) -> None:
        """Write a window, and before it those that an earlier run had finished.

        Args:
            number: of the window; greater in each call.
            image: (bands, height, width) of its part, encoded; None where no pixel is valid.

        Raises:
            KsdiffError: a shard is damaged.
        """
        numbers = self.job.plan.numbers
        while numbers[self._taken] != number:
            self._write(self.job.load(self.pieces[self._taken]))
        self._write(self.job.nothing(self.pieces[self._taken]) if image is None else image)

    def finish(self, progress: ProgressCallback = silent) -> float | None:
        """Write all that has not been taken, from shards.

        Args:
            progress: told the pieces done.

        Returns:
            The seam score, see :class:`Seams`; None where there is no border.

        Raises:
            KsdiffError: a shard is damaged.
        """
        total, region = len(self.pieces), self.job.plan.region
        progress(self._taken, total, "output")
        if self.streams:
            with OpenShards() as opened:
                rest = self.pieces[self._taken :]
                with read_ahead(lambda piece: self.job.load(piece, opened), rest, 1) as images:
                    for _, image in images:
                        self._write(image)
                        progress(self._taken, total, "output")
            return self.seams.score

        def read(piece: Box) -> Array:
            return self.job.load(piece.grown(self.seams.margin).meet(region), opened)

        with OpenShards() as opened, read_ahead(read, self.pieces, 1) as images:
            for done, (piece, image) in enumerate(images, start=1):
                shown = piece.grown(self.seams.margin).meet(region)
                self._store(image[:, *piece.within(shown)], piece)
                self.seams.add(image, self.job.valid(image), piece, shown)
                progress(done, total, "output")
        return self.seams.score

    def _write(self, image: Array) -> None:
        """Write the next piece, which is a window."""
        piece, margin = self.pieces[self._taken], self.seams.margin
        self._taken += 1
        self._store(image, piece)
        if piece.left == self.job.plan.region.left:
            self._beside = None
        above = self._above.get(piece.left)
        rows = image[:, :margin] if above is None else np.concatenate([above, image[:, :margin]], 1)
        self.seams.add_rows(rows, self.job.valid(rows), piece, piece.top - (0 if above is None else above.shape[1]))
        beside = self._beside
        cols = image[:, :, :margin] if beside is None else np.concatenate([beside, image[:, :, :margin]], 2)
        self.seams.add_cols(cols, self.job.valid(cols), piece, piece.left - (0 if beside is None else beside.shape[2]))
        self._above[piece.left], self._beside = image[:, -margin:].copy(), image[:, :, -margin:].copy()
        for box, kept in self._looks.items():
            shared = box.meet(piece)
            if not shared.empty:
                kept[:, *shared.within(box)] = image[:, *shared.within(piece)]

    def _store(self, image: Array, piece: Box) -> None:
        region = self.job.plan.region
        self._target.write(image, Window(piece.left - region.left, piece.top - region.top, piece.width, piece.height))


def _pieces(region: Box, tile: int, block: tuple[int, int]) -> Iterator[Box]:
    """Cut the region into pieces of whole blocks, about as large as a window."""
    # a file of strips has blocks as wide as itself: then few rows of them
    wide = block[1] > max(tile, _LEAST)
    height = -(-(_LEAST if wide else max(tile, _LEAST)) // block[0]) * block[0]
    width = -(-max(tile, _LEAST) // block[1]) * block[1]
    for top in range(region.top, region.bottom, height):
        for left in range(region.left, region.right, width):
            yield Box(top, left, top + height, left + width).meet(region)
