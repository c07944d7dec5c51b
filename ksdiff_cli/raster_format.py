"""How sharpened values are stored: data type, nodata, rounding."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ksdiff_cli.errors import KsdiffError
from ksdiff_cli.raster import ScenePair, SceneStatistics

Array = NDArray[Any]

_FLAT = 0.5  # standard deviation below which rounding leaves one or two values


@dataclass(frozen=True)
class PixelFormat:
    """How values are stored in the output."""

    dtype: np.dtype[Any]
    nodata: float | None
    """Value of invalid pixels; None when the file declares none."""
    differences: bool = False
    """Whether values are differences of DN, such as deviations, which MS's offset does not apply to."""

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
        info = np.iinfo(self.dtype)
        top = exact(info.max) if int(exact(info.max)) == info.max else np.nextafter(exact(info.max), exact(0))
        rounded = np.rint(values, dtype=exact)
        np.clip(rounded, exact(info.min), top, out=rounded)
        if np.isnan(rounded.min(initial=0)):
            np.nan_to_num(rounded, copy=False)
        stored[...] = rounded

    def _beside(self, nodata: Any) -> Any:
        """Return the value next to nodata; for floats far enough that readers with a tolerance tell them apart."""
        if self.dtype.kind == "f":
            return nodata + self.dtype.type(max(abs(float(nodata)) * 1e-5, 1e-6))
        return nodata - 1 if nodata == np.iinfo(self.dtype).max else nodata + 1


def choose_format(pair: ScenePair, holes: bool, dtype: str | None = None) -> PixelFormat:
    """Choose the output's data type and nodata value: those of MS, as far as they go together.

    Args:
        pair: the inputs.
        holes: whether some pixel is invalid; only then is a nodata value declared that MS does not declare.
        dtype: wanted type; None takes that of MS.
    """
    chosen = np.dtype(dtype) if dtype else np.result_type(*(np.dtype(d.dtypes[b - 1]) for d, b in ms_bands(pair)))
    candidates = [dataset.nodatavals[band - 1] for dataset, band in ms_bands(pair)]
    if holes:
        candidates += [pair.pan.nodatavals[pair.scene.pan.band - 1], 0.0]
    fitting = (float(value) for value in candidates if value is not None and _fits(float(value), chosen))
    return PixelFormat(chosen, next(fitting, None))


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


def _fits(value: float, dtype: np.dtype[Any]) -> bool:
    if dtype.kind == "f":
        return not np.isfinite(value) or abs(value) <= float(np.finfo(dtype).max)
    return value.is_integer() and np.iinfo(dtype).min <= value <= np.iinfo(dtype).max


def ms_bands(pair: ScenePair) -> list[tuple[Any, int]]:
    """Return the open file and the band number of each MS band."""
    return [(dataset, source.band) for dataset, source in zip(pair.ms, pair.scene.ms, strict=True)]
