"""Random training batches, each a function of the seed and its number, prepared while the network computes."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from types import TracebackType

import numpy as np
import torch
from torch import Tensor

from ksdiff_cli.errors import KsdiffError
from ksdiff_cli.models.observation import AxisMap
from ksdiff_cli.patches.dataset import Batch, PatchFile

_WHOLE = slice(None)


class TrainingBatches:
    """Random training batches. Batch k is a function of the seed and k alone, so a resumed run goes on exactly."""

    def __init__(
        self,
        files: Sequence[PatchFile],
        batch: int,
        seed: int,
        gain: float = 0.0,
        share: slice = _WHOLE,
        alike: bool = False,
    ) -> None:
        """Remember what to draw from.

        Args:
            files: at least one, with ground truth; they may differ in bands and ratio, as a batch is of one file.
            batch: images a batch.
            seed: of every draw.
            gain: largest change of the logarithm of an image's brightness; its statistics stay, so that the network
                meets images darker and brighter than their scene. 0 leaves brightness alone.
            share: the part of every batch that this process reads; what is drawn does not depend on it.
            alike: for networks that observe: where turning moves MS on PAN, all images of a batch turn alike, and the
                place of MS in the batch follows.

        Raises:
            KsdiffError: a file without ground truth.
        """
        for file in files:
            if not file.has_gt:
                raise KsdiffError(f"{file.path}: has no gt (it is a full-resolution file); train on train.h5")
        self.files, self.size, self.seed, self.gain, self.share = list(files), batch, seed, gain, share
        self.alike = alike
        counts = np.array([len(file) for file in files], np.float64)
        self._odds = counts / counts.sum()

    def __iter__(self) -> Iterator[Batch]:
        number = 0
        while True:
            yield self.batch(number)
            number += 1

    def batch(self, number: int) -> Batch:
        """Return batch ``number``: images of one file (drawn by its size), each flipped and turned at random.

        All arrays of an image turn alike; lms turns as an array, it is not made anew.
        """
        random = np.random.default_rng((self.seed, number))
        file = self.files[int(random.choice(len(self.files), p=self._odds))]
        # without repetition where the file has enough images
        indices = random.choice(len(file), self.size, replace=len(file) < self.size)
        square = file.size[0] == file.size[1]
        turns = random.integers(4, size=self.size) if square else 2 * random.integers(2, size=self.size)
        flips = random.integers(2, size=self.size)
        factors = np.exp(random.uniform(-self.gain, self.gain, self.size)).astype(np.float32)

        drawn = file.batch(indices[self.share].tolist())
        if self.alike and file.geometry == "toolbox":
            turns[:], flips[:] = turns[0], flips[0]
        ways = turns[self.share] + 4 * flips[self.share]
        places = {int(way): torch.from_numpy(np.flatnonzero(ways == way)) for way in np.unique(ways)}
        brightness = torch.from_numpy(factors[self.share])[:, None, None, None] if self.gain else None

        def turn(images: Tensor) -> Tensor:
            out = torch.empty_like(images)
            for way, chosen in places.items():
                turned = torch.rot90(images[chosen], way % 4, (2, 3))
                out[chosen] = turned.flip(3) if way >= 4 else turned
            return out if brightness is None else out.mul_(brightness)

        turned = drawn.each(turn)
        if not self.alike or file.geometry != "toolbox":
            return turned
        observed, way = turned.observed, int(ways[0]) if len(ways) else 0
        size = drawn.pan.shape[-1], observed.ms.shape[-1]
        rows = _reversed(observed.rows, *size) if way % 4 in (1, 2) else observed.rows
        cols = _reversed(observed.cols, *size) if (way % 4 in (2, 3)) != (way >= 4) else observed.cols
        return replace(turned, observed=replace(observed, rows=rows, cols=cols))


def _reversed(axis: AxisMap, pan: int, ms: int) -> AxisMap:
    """Return the map between both axes run through backwards."""
    return AxisMap(axis.scale, ms - 1 - axis.scale * (pan - 1) - axis.offset)


class Ahead:
    """Makes numbered batches in the background, in order, a few before they are asked for."""

    def __init__(self, make: Callable[[int], Batch], start: int, depth: int = 4, workers: int = 2) -> None:
        """Begin with batch ``start``; ``depth`` batches wait at most."""
        self._make, self._next, self._depth = make, start, depth
        self._waiting: dict[int, Future[Batch]] = {}
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="batches")

    def get(self, number: int) -> Batch:
        """Return batch ``number``; numbers are asked for in steps of one."""
        while self._next <= number + self._depth:
            self._waiting[self._next] = self._pool.submit(self._make, self._next)
            self._next += 1
        return self._waiting.pop(number).result()

    def __enter__(self) -> "Ahead":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(cancel_futures=True)
