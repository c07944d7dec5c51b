"""How sharpened values are stored: data type, nodata, rounding."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ksdiff_cli.errors import KsdiffError
from ksdiff_cli.numerics import Array
from ksdiff_cli.numerics.moments import SceneStatistics
from ksdiff_cli.raster.bands import nodata_of
from ksdiff_cli.raster.pair import ScenePair

_FLAT = 0.5  # standard deviation below which rounding leaves one or two values


@dataclass(frozen=True)
class PixelFormat:
    """How values are stored in the output."""

    dtype: np.dtype[Any]
    nodata: float | None
    """Value of invalid pixels; None when the file declares none."""
    differences: bool = False
    """Whether values are differences of DN, such as deviations, which MS's offset does not apply to."""
    bits: int | None = None
    """Bits that integers from 0 up may take, fewer than their type has; None for all of them."""
    lossy: bool = False
    """Whether the file's codec changes values: a mask tells then where pixels are invalid, as nodata would not."""
    apart: float = 1e-6
    """How far a float is moved that is valid but the same as a nodata value of 0, DN."""

    @property
    def declared(self) -> float | None:
        """Nodata value that the file declares."""
        return None if self.lossy else self.nodata

    @property
    def masked(self) -> bool:
        """Whether the file has a mask."""
        return self.lossy and self.nodata is not None

    @property
    def stored_bits(self) -> int | None:
        """Bits of each value in a GeoTIFF, fewer than the type has; None for all."""
        half = 4 * self.dtype.itemsize
        return self.bits if self.dtype.kind == "u" and self.bits and self.bits > (half if half > 4 else 0) else None

    def valid(self, stored: Array) -> Array:
        """Say where (bands, h, w) stored values are valid, (h, w) bool: :meth:`encode` keeps these off nodata."""
        if self.nodata is None:
            return np.ones(stored.shape[1:], bool)
        return np.asarray(~np.isnan(stored[0]) if np.isnan(self.nodata) else stored[0] != self.dtype.type(self.nodata))

    @property
    def limits(self) -> tuple[int, int]:
        """Smallest and largest value of an integer type."""
        info = np.iinfo(self.dtype)
        return int(info.min), int(info.max) if self.bits is None else 2**self.bits - 1

    def encode(self, values: Array, valid: Array, out: Array | None = None) -> Array:
        """Turn fused values into stored ones: rounded, clipped, and never the nodata value where they are valid.

        Args:
            values: (bands, h, w) float32, DN.
            valid: (h, w) bool.
            out: where to put the result; None makes an array.

        Returns:
            (bands, h, w) of :attr:`dtype`.
        """
        if out is None:
            out = np.empty(values.shape, self.dtype)
        holes = None if valid.all() else ~valid
        for band, stored in zip(values, out, strict=True):  # one at a time: what is in between stays small
            self._store(band, stored)
            if self.nodata is None:
                continue
            nodata = self.dtype.type(self.nodata)
            taken = stored == nodata
            if taken.any():
                stored[taken] = self._beside(nodata)
            if holes is not None:
                stored[holes] = nodata
        return out

    def _store(self, values: Array, stored: Array) -> None:
        """Round half to even and clip (h, w) values into an array of :attr:`dtype`; NaN becomes 0 in integers."""
        if self.dtype.kind == "f":
            stored[...] = values
            return
        # float32 cannot hold the largest 32-bit integers, nor float64 those of 64 bits
        exact = np.float32 if self.dtype.itemsize <= 2 else np.float64
        low, high = self.limits
        top = exact(high) if int(exact(high)) == high else np.nextafter(exact(high), exact(0))
        rounded = np.rint(values, dtype=exact)
        np.clip(rounded, exact(low), top, out=rounded)
        if np.isnan(rounded.min(initial=0)):
            np.nan_to_num(rounded, copy=False)
        stored[...] = rounded

    def _beside(self, nodata: Any) -> Any:
        """Return the value next to nodata; for floats far enough that readers with a tolerance tell them apart."""
        if self.dtype.kind == "f":
            step = abs(float(nodata)) * 1e-5 or self.apart
            return self.dtype.type(
                float(nodata) + (step if float(nodata) + step <= np.finfo(self.dtype).max else -step)
            )
        return nodata - 1 if nodata == self.limits[1] else nodata + 1


def choose_format(
    pair: ScenePair, statistics: SceneStatistics | None = None, dtype: str | None = None, nodata: float | None = None
) -> PixelFormat:
    """Choose the output's data type and nodata value: those of MS, as far as they go together.

    Args:
        pair: the inputs.
        statistics: of the scene, once they are known. Only where some pixel is invalid a nodata value is declared that
            MS does not declare.
        dtype: wanted type; None takes that of MS.
        nodata: wanted value; None chooses one.

    Raises:
        KsdiffError: the type does not have the wanted value.
    """
    chosen = np.dtype(dtype) if dtype else np.result_type(*(np.dtype(d.dtypes[b - 1]) for d, b in ms_bands(pair)))
    converted = any(source.convert for source in pair.scene.ms)
    bits = _bits(pair) if chosen.kind in "iu" and not converted else None
    bits = bits if bits and 2**bits - 1 < np.iinfo(chosen).max else None
    pixels = PixelFormat(chosen, None, bits=bits)
    if statistics is not None and chosen.kind == "f":
        least = 1e-5 * min(filter(None, statistics.ms_std.tolist()), default=1.0)
        pixels = replace(pixels, apart=max(min(pixels.apart, least), float(np.finfo(chosen).tiny)))
    if nodata is not None:
        if not _fits(nodata, pixels):
            kind = f"{bits} bits" if bits and _fits(nodata, replace(pixels, bits=None)) else chosen.name
            raise KsdiffError(f"--dst-nodata {nodata:g}: is no value of {kind}; give another, or another type with -t")
        return replace(pixels, nodata=nodata)
    candidates = [nodata_of(dataset, source) for dataset, source in zip(pair.ms, pair.scene.ms, strict=True)]
    if statistics is not None and statistics.holes:
        candidates += [nodata_of(pair.pan, pair.scene.pan), 0.0]
    fitting = (float(value) for value in candidates if value is not None and _fits(float(value), pixels))
    return replace(pixels, nodata=next(fitting, None))


def check_range(pixels: PixelFormat, statistics: SceneStatistics) -> None:
    """Refuse a wanted data type that would leave next to nothing of the values.

    Raises:
        KsdiffError: a band's mean lies beyond the type, or integers would round all of its differences away.
    """
    if pixels.dtype.kind == "f":
        return
    info, name = np.iinfo(pixels.dtype), pixels.dtype.name
    for mean, deviation in zip(statistics.ms_mean, statistics.ms_std, strict=True):
        if not info.min <= mean <= info.max:
            raise KsdiffError(
                f"-t {name}: ends at {info.min} and {info.max}, but the mean of an MS band is {mean:.4g}; choose a "
                "wider type such as uint16 or float32"
            )
        if 0 < deviation < _FLAT and abs(mean) < 1:
            raise KsdiffError(
                f"-t {name}: holds whole numbers, but an MS band has values about {mean:.3g} ± {deviation:.2g}; choose "
                "float32"
            )


def _fits(value: float, pixels: PixelFormat) -> bool:
    if pixels.dtype.kind == "f":
        return not np.isfinite(value) or abs(value) <= float(np.finfo(pixels.dtype).max)
    low, high = pixels.limits
    return float(value).is_integer() and low <= value <= high


def _bits(pair: ScenePair) -> int | None:
    """Return the bits that the values of MS take by its files (NBITS); None where a file does not say."""
    found = [dataset.tags(band, ns="IMAGE_STRUCTURE").get("NBITS", "") for dataset, band in ms_bands(pair)]
    return max(map(int, found)) if all(bits.isdecimal() and int(bits) > 0 for bits in found) else None


def ms_bands(pair: ScenePair) -> list[tuple[Any, int]]:
    """Return the open file and the band number of each MS band."""
    return [(dataset, source.band) for dataset, source in zip(pair.ms, pair.scene.ms, strict=True)]
