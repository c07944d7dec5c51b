"""Finished windows -> the output, block by block."""

import math
from collections.abc import Iterator

import numpy as np
from rasterio.windows import Window

from ksdiff_cli.numerics import Array
from ksdiff_cli.numerics.boxes import ALIGN, Box
from ksdiff_cli.output.geotiff import RasterTarget
from ksdiff_cli.progress import ProgressCallback, silent
from ksdiff_cli.sharpening.job import Job, OpenShards
from ksdiff_cli.sharpening.pipeline import read_ahead

_LEAST = 256  # side of a piece, pixels


_BESIDE = (-2, -1, 1, 2)  # lines compared with a line
_CAP = 0.5  # of the mean difference: what a difference counts at most


class Seams:
    """Mean difference between neighbours across borders over that beside them; 1 where no border shows.

    Let d(r) be the mean absolute difference between the pixels of row r and those of row r - 1, or of columns, and
    q(r) = d(r) over the mean of d at r - 2, r - 1, r + 1, r + 2. The score is q at borders over q at r - p and r + p.
    Interpolation of MS and strides of networks give the lines of an image different differences, by their phase: up to
    8 % were measured. Lines whose distance p is a multiple of the ratio and of all strides share a phase.

    Each piece of a border is divided by its mean difference, so that a seam in a plain counts as much as one in a city,
    and no difference counts more than half that mean: a few long edges would decide otherwise. On a seamless simulated
    scene of 2048 x 2048 x 4 the score then varies by .003 (deviation) at tiles of 256 and by .005 at 512. A step of
    the mean difference's size at every border of that scene gives 1.5, one of ten times that size 4.
    """

    def __init__(self, region: Box, tile: int, ratio: int) -> None:
        """Start with nothing.

        Args:
            region: the part of a scene that was made.
            tile: side of the cores, pixels, counted from the scene's first one.
            ratio: PAN pixels per MS pixel along a side.
        """
        self._region, self._tile = region, tile
        self._apart = math.lcm(ALIGN, ratio)
        self._sums = np.zeros(4)

    @property
    def margin(self) -> int:
        """Pixels around a piece that :meth:`add` looks at."""
        return self._apart + max(_BESIDE) + 1

    @property
    def score(self) -> float | None:
        """The score, to four places; None without borders, or where nothing near one is valid or differs."""
        border, beside, other, other_beside = self._sums
        if not min(beside, other, other_beside) > 0:
            return None
        return round(float(border / beside / (other / other_beside)), 4)

    def add(self, values: Array, valid: Array, piece: Box, shown: Box) -> None:
        """Take in the borders at the upper and left side of pixels in a piece; pieces must not overlap.

        Args:
            values: (bands, height, width) of ``shown``, any numbers.
            valid: (height, width) bool.
            piece: whose borders count.
            shown: the piece with :attr:`margin`, as far as the region goes.
        """
        rows, cols = piece.within(shown)
        self.add_rows(values[:, :, cols], valid[:, cols], piece, shown.top)
        self.add_cols(values[:, rows], valid[rows], piece, shown.left)

    def add_rows(self, values: Array, valid: Array, piece: Box, first: int) -> None:
        """Do of :meth:`add` what concerns borders that are rows; ``values`` are of the piece's columns."""
        self._along(values, valid, piece.top, piece.bottom, first, self._region.top)

    def add_cols(self, values: Array, valid: Array, piece: Box, first: int) -> None:
        """Do of :meth:`add` what concerns borders that are columns; ``values`` are of the piece's rows."""
        self._along(values.swapaxes(1, 2), valid.T, piece.left, piece.right, first, self._region.left)

    def _along(self, values: Array, valid: Array, start: int, stop: int, first: int, begin: int) -> None:
        """Take in the borders that are rows of [start, stop); ``values`` begin at row ``first``."""
        for row in range(-(-start // self._tile) * self._tile, stop, self._tile):
            if row == begin:
                continue
            own = [row + step for step in (0, *_BESIDE)]
            others = [
                [row + place + step for step in (0, *_BESIDE)]
                for place in (-self._apart, self._apart)
                if (row + place) % self._tile
            ]
            lines = [line for line in others if line[1] - 1 >= first and line[-2 + 1] < first + values.shape[1]]
            if own[1] - 1 >= first and own[-1] < first + values.shape[1] and lines:
                self._take(values, valid, np.array([own, *lines]) - first)

    def _take(self, values: Array, valid: Array, lines: Array) -> None:
        """Add one piece of border; ``lines`` (1 + others, 1 + beside) are rows of ``values``, the border's first."""
        # (bands, 1 + others, 1 + beside, width)
        differences = np.abs(values[:, lines].astype(np.float64) - values[:, lines - 1])
        # whole columns or none, so that all lines see the same places
        whole = (valid[lines] & valid[lines - 1]).all((0, 1))
        if not whole.any():
            return
        differences = differences[..., whole]
        means = differences.mean(-1)
        rest = (means.sum((1, 2)) - means[:, 0, 0]) / (means[0].size - 1)
        cap = _CAP * (means[:, 0, 0] + rest) / 2
        changing = cap > 0
        counted = np.minimum(differences[changing], cap[changing, None, None, None]).sum(-1)
        counted /= cap[changing, None, None]
        self._sums += (
            counted[:, 0, 0].sum(),
            counted[:, 0, 1:].mean(-1).sum(),
            counted[:, 1:, 0].mean(-1).sum(),
            counted[:, 1:, 1:].mean((-1, -2)).sum(),
        )


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
