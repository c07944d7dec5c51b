"""PAN that is made of finer bands, for coarser ones that no panchromatic band covers."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Any

import numpy as np
from rasterio.windows import Window

from ksdiff_cli.numerics import Array
from ksdiff_cli.raster.bands import BandSource, read_bands


@dataclass(frozen=True)
class Mix:
    """A weighted sum of bands of one grid, in place of PAN: sum of weights * bands + offset."""

    bands: tuple[BandSource, ...]
    weights: tuple[float, ...]
    """DN of the sum per DN of each band."""
    offset: float = 0.0
    """DN."""


@dataclass(frozen=True)
class Companion:
    """PAN as the MS camera would see it, which goes along with MS as one more band.

    A network that holds its result against both images takes PAN for a mix of the MS bands. A single band that explains
    .8 of PAN would be bent to show all of it; beside the companion, which explains PAN whole, it follows PAN as far as
    it did at its own scale.
    """

    gain: float
    """MTF of that camera at the MS Nyquist frequency, (0, 1)."""
    deviation: float
    """Standard deviation of what it sees over the scene, DN."""


_KEPT_BYTES = 64_000_000
"""Of windows that were read: all pairs' looks at a scene before it is sharpened, or one of the engine's windows."""


class GuideBands:
    """Finer bands of one grid, read for several pairs: windows that were read lately are not decoded again."""

    def __init__(self, datasets: Sequence[Any], sources: Sequence[BandSource]) -> None:
        """Take open files, one for each band (the same object for bands of one file), and the bands."""
        self.datasets, self.sources = tuple(datasets), tuple(sources)
        self._kept: deque[tuple[Window, Array, Array]] = deque()
        self._keeping = Lock()

    def read(self, window: Window) -> tuple[Array, Array]:
        """Read a window: ((bands, h, w) float32, (h, w) bool, all bands valid), which must not be changed."""
        kept = next((each for each in tuple(self._kept) if _holds(each[0], window)), None)
        if kept is None:
            kept = window, *read_bands(self.datasets, self.sources, window)
            with self._keeping:
                self._kept.append(kept)
                while len(self._kept) > 1 and sum(values.nbytes for _, values, _ in self._kept) > _KEPT_BYTES:
                    self._kept.popleft()
        whole, values, valid = kept
        rows = slice(window.row_off - whole.row_off, window.row_off - whole.row_off + window.height)
        cols = slice(window.col_off - whole.col_off, window.col_off - whole.col_off + window.width)
        return values[:, rows, cols], valid[rows, cols]

    def mix(self, mix: Mix, window: Window) -> tuple[Array, Array]:
        """Read a window of their sum: ((1, h, w) float32, (h, w) bool), the same bits in every window."""
        values, valid = self.read(window)
        return add_up(mix, values), valid.copy()


def add_up(mix: Mix, values: Array) -> Array:
    """Sum bands by the weights of a mix, always in their order: (bands, h, w) float32 -> (1, h, w) float32."""
    total = np.full((1, *values.shape[1:]), mix.offset, np.float32)
    for weight, band in zip(mix.weights, values, strict=True):
        if weight:
            total[0] += np.float32(weight) * band
    return total


def _holds(whole: Window, part: Window) -> bool:
    """Say whether a window lies in another one."""
    return bool(
        whole.row_off <= part.row_off
        and whole.col_off <= part.col_off
        and part.row_off + part.height <= whole.row_off + whole.height
        and part.col_off + part.width <= whole.col_off + whole.width
    )
