"""Statistics of stored values, gathered while they are written, in the form GDAL keeps them in a file."""

import math
from typing import Any

import numpy as np

from ksdiff_cli.numerics import Array

_CHUNK = 1 << 16  # values counted at once: what they are widened to stays in the processor's cache


class BandStatistics:
    """Minimum, maximum, mean and standard deviation of every band's valid pixels.

    Those of integers up to 16 bits are exact, whatever the order in which pixels come. Wider values are merged chunk by
    chunk in float64.
    """

    def __init__(self, bands: int, dtype: np.dtype[Any], nodata: float | None) -> None:
        """Begin with no pixel.

        Args:
            bands: their number.
            dtype: of the stored values.
            nodata: the value of pixels that do not count; None when there is none. NaN never counts.
        """
        self._pixels = 0
        exact = dtype.kind in "iu" and dtype.itemsize <= 2
        self._bands: list[_Exact | _Merged] = [
            _Exact(dtype, nodata) if exact else _Merged(dtype, nodata) for _ in range(bands)
        ]

    def add(self, stored: Array, valid: Array | None = None) -> None:
        """Count (bands, h, w) stored values; with ``valid``, (h, w) bool, only those, whatever nodata says."""
        self._pixels += stored[0].size
        for band, image in zip(self._bands, stored, strict=True):
            values = image.reshape(-1) if valid is None else image[valid]
            for start in range(0, values.size, _CHUNK):
                band.add(values[start : start + _CHUNK])

    def merge(self, other: "BandStatistics") -> None:
        """Count what another one of the same kind has counted."""
        self._pixels += other._pixels
        for band, more in zip(self._bands, other._bands, strict=True):
            band.merge(more)

    @property
    def empty(self) -> bool:
        """Whether no pixel of any band was valid."""
        return not any(band.result()[0] for band in self._bands)

    def tags(self, band: int) -> dict[str, str]:
        """Return a band's metadata as GDAL writes it: ``STATISTICS_MINIMUM`` and so on; the deviation divides by n.

        Args:
            band: from 1.
        """
        count, low, high, mean, deviation = self._bands[band - 1].result()
        share = "100" if count == self._pixels else f"{100 * count / max(self._pixels, 1):.4g}"
        if count == 0:
            return {"STATISTICS_VALID_PERCENT": "0"}
        figures = {"MINIMUM": low, "MAXIMUM": high, "MEAN": mean, "STDDEV": deviation}
        tags = {f"STATISTICS_{name}": f"{value:.14g}" for name, value in figures.items()}
        return tags | {"STATISTICS_VALID_PERCENT": share}


Result = tuple[int, float, float, float, float]
"""Count, minimum, maximum, mean, standard deviation."""


class _Exact:
    """Sums of 8- or 16-bit values and of their squares: exact in float64 for a chunk, in Python's integers beyond."""

    def __init__(self, dtype: np.dtype[Any], nodata: float | None) -> None:
        limits = np.iinfo(dtype)
        inside = nodata is not None and limits.min <= nodata <= limits.max and float(nodata).is_integer()
        self._nodata = dtype.type(int(nodata)) if inside and nodata is not None else None
        self._count, self._sum, self._squares = 0, 0, 0
        self._low, self._high = int(limits.max), int(limits.min)

    def add(self, values: Array) -> None:
        if self._nodata is not None and (holes := values == self._nodata).any():
            values = values[~holes]
        if not values.size:
            return
        wide = values.astype(np.float64)
        self._count += values.size
        self._sum += int(wide.sum())
        # a dot product would take its own threads, and longer
        self._squares += int(np.einsum("i,i->", wide, wide))
        self._low, self._high = min(self._low, int(values.min())), max(self._high, int(values.max()))

    def merge(self, other: Any) -> None:
        self._count += other._count
        self._sum += other._sum
        self._squares += other._squares
        self._low, self._high = min(self._low, other._low), max(self._high, other._high)

    def result(self) -> Result:
        count = self._count
        if not count:
            return 0, math.nan, math.nan, math.nan, math.nan
        variance = (count * self._squares - self._sum**2) / count**2
        return count, float(self._low), float(self._high), self._sum / count, math.sqrt(variance)


class _Merged:
    """Count, mean and sum of squared differences, merged as by Chan, Golub and LeVeque (1979)."""

    def __init__(self, dtype: np.dtype[Any], nodata: float | None) -> None:
        self._nodata = None if nodata is None else dtype.type(nodata)
        self._count, self._mean, self._squares = 0, 0.0, 0.0
        self._low, self._high = math.inf, -math.inf

    def add(self, values: Array) -> None:
        valid = np.ones(values.shape, bool) if self._nodata is None else values != self._nodata
        if values.dtype.kind == "f":
            valid &= ~np.isnan(values)
        wide = values.astype(np.float64) if valid.all() else values[valid].astype(np.float64)
        if wide.size:
            mean = float(wide.mean())
            self._include(wide.size, mean, float(((wide - mean) ** 2).sum()), float(wide.min()), float(wide.max()))

    def merge(self, other: Any) -> None:
        if other._count:
            self._include(other._count, other._mean, other._squares, other._low, other._high)

    def _include(self, count: int, mean: float, squares: float, low: float, high: float) -> None:
        total, step = self._count + count, mean - self._mean
        self._squares += squares + step * step * self._count * count / total
        self._mean += step * count / total
        self._count = total
        self._low, self._high = min(self._low, low), max(self._high, high)

    def result(self) -> Result:
        deviation = math.sqrt(self._squares / self._count) if self._count else math.nan
        return self._count, self._low, self._high, self._mean, deviation
