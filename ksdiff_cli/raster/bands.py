"""Bands of open files: where they are, and their values and masks, window by window."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.errors import RasterioError
from rasterio.vrt import WarpedVRT
from rasterio.windows import Window

from ksdiff_cli.errors import KsdiffError
from ksdiff_cli.numerics import Array
from ksdiff_cli.raster.open import unreadable

LARGEST = 1e30
"""Largest absolute value that is computed with: sums of a few products of them fit into float32."""


Linear = tuple[float, float]
"""Gain and offset: a DN becomes DN * gain + offset."""


@dataclass(frozen=True)
class Calibration:
    """What a band's DN stand for at the top of the atmosphere, by the metadata; None where these do not say."""

    radiance: Linear | None = None
    """W / (m² sr µm)."""
    reflectance: Linear | None = None
    """The share of sunlight, 0 to 1."""


@dataclass(frozen=True)
class BandSource:
    """One band of one file."""

    path: str
    """Anything GDAL opens."""
    band: int = 1
    """Band number in the file, from 1."""
    name: str = ""
    """Name for people, e.g. ``red``; empty when unknown."""
    fill: float | None = None
    """DN that means "no data" by the product's format, or by who gave the file, though it does not declare it."""
    declared: bool = True
    """Whether the nodata value that the file declares, if any, counts too; its masks always do."""
    alpha_is_data: bool = False
    """Whether the band that the file calls alpha is one of its data bands and masks nothing."""
    scale: float | None = None
    """What a DN stands for, by the product's metadata: DN * scale + offset; None: what the file says."""
    offset: float | None = None
    """See ``scale``."""
    wavelengths: tuple[float, float] | None = None
    """Edges of the band by the product's metadata, nm; None: what the file says."""
    calibration: Calibration | None = None
    """What a DN stands for, where people may ask for it in place of DN."""
    convert: Linear | None = None
    """What becomes of a DN when it is read; None leaves it as it is."""
    unit: str | None = None
    """Of the values read, after ``scale``; None: what the file says."""


@dataclass(frozen=True)
class QualityBand:
    """A band of flags on the MS grid, e.g. Landsat's QA_PIXEL.

    A flag is (mask, value): it is raised where ``flags & mask == value``.
    """

    path: str
    """Anything GDAL opens."""
    fill: tuple[tuple[int, int], ...]
    """Flags of pixels that hold no data."""
    cloud: tuple[tuple[int, int], ...]
    """Flags of clouds, cirrus and cloud shadows: data, but not of the ground."""
    band: int = 1


def nodata_of(dataset: Any, source: BandSource) -> float | None:
    """Return the value that means "no data" in a band of an open file, as its user or else the file says."""
    return dataset.nodatavals[source.band - 1] if source.declared else source.fill


def read_band(dataset: Any, source: BandSource, window: Window) -> tuple[Array, Array]:
    """Read one band of a window as float32, with its validity mask (nodata, mask band, alpha, NaN, the fill value).

    Returns:
        ((h, w) float32 DN, (h, w) bool).

    Raises:
        KsdiffError: the file is damaged or incomplete.
    """
    values, valid = read_bands([dataset], [source], window)
    return values[0], valid


def read_bands(datasets: Sequence[Any], sources: Sequence[BandSource], window: Window) -> tuple[Array, Array]:
    """Read a window of several bands, each from its own open file; bands of one file in a row are read at once.

    Returns:
        ((bands, h, w) float32 DN, (h, w) bool, True where all bands are valid).

    Raises:
        KsdiffError: a file is damaged or incomplete, or holds values that float32 cannot compute with.
    """
    values = np.empty((len(sources), int(window.height), int(window.width)), np.float32)
    doubtful = []
    stored, valid = read_stored(datasets, sources, window)
    for band, source, own in zip(values, sources, stored, strict=True):
        # one sum is cheaper than a mask of every pixel, and that of squares is infinite for values beyond 1e19
        with np.errstate(over="ignore", invalid="ignore"):
            band[...] = own
            if own.dtype.kind == "f" and not np.isfinite(np.einsum("i,i->", band.reshape(-1), band.reshape(-1))):
                doubtful.append((source, band, own))
    warped = isinstance(datasets[0], WarpedVRT)
    for _, band, own in doubtful:
        # warping mixes with their neighbours what is no number
        known = np.abs(own) <= LARGEST if warped else is_number(own)
        valid &= known
        band[~known] = 0
    for source, band, own in doubtful:
        huge = valid & (np.abs(band) > LARGEST)
        if huge.any():
            raise too_large(source, own[huge].flat[0])
    for band, source in zip(values, sources, strict=True):
        if source.convert is not None:
            band *= np.float32(source.convert[0])
            band += np.float32(source.convert[1])
    return values, valid


def read_stored(datasets: Sequence[Any], sources: Sequence[BandSource], window: Window) -> tuple[list[Array], Array]:
    """Read a window of several bands as they are stored.

    Returns:
        (h, w) for each band, of its own data type, and (h, w) bool, True where no band's nodata or mask says otherwise;
        what is no number is not masked.

    Raises:
        KsdiffError: see :func:`read_bands`.
    """
    found: list[Array] = []
    valid = np.ones((int(window.height), int(window.width)), bool)
    first = 0
    while first < len(sources):
        dataset, last = datasets[first], first + 1
        # asked for several bands, GDAL warps the window by itself, not by blocks: other bits in every window
        single = isinstance(dataset, WarpedVRT)
        while last < len(sources) and datasets[last] is dataset and not single:
            last += 1
        chosen = sources[first:last]
        try:
            found.extend(dataset.read([source.band for source in chosen], window=window))
            for source, stored in zip(chosen, found[first:], strict=True):
                _mask(dataset, source, stored, window, valid)
            if not chosen[0].alpha_is_data:
                mask_by_alpha(dataset, [chosen[0].band], window, valid)
        except RasterioError as error:
            raise unreadable(chosen[0].path, error) from None
        first = last
    return found, valid


def is_number(stored: Array) -> Array:
    """Say where floats are measurements: not NaN, infinite or the largest of a type, which stands for "no data"."""
    known = np.isfinite(stored)
    for kind in (np.float32, np.float64):  # the largest of the narrower type too: widened, it is kept as it was
        if np.dtype(kind).itemsize <= stored.dtype.itemsize:
            known &= np.abs(stored) != np.finfo(kind).max
    return np.asarray(known)


def too_large(source: BandSource, value: Any) -> KsdiffError:
    """Return the error of a valid value beyond :data:`LARGEST`."""
    shown = show_value(value)
    return KsdiffError(
        f"{source.path}: holds {shown}, too large to compute with ({LARGEST:g} at most); if that marks pixels without "
        f"data, say so with --src-nodata {shown}, else scale the image down"
    )


def show_value(value: Any) -> str:
    """Return a pixel's value as it must be typed to mean the same of its data type."""
    return "0" if value == 0 else str(value).removesuffix(".0")


def _mask(dataset: Any, source: BandSource, stored: Array, window: Window, valid: Array) -> None:
    """Take the invalid pixels of one band, as they were read, out of ``valid`` (h, w)."""
    if isinstance(dataset, WarpedVRT):  # it is NaN wherever it is invalid
        return
    if source.fill is not None:
        valid &= stored != source.fill
    flags = dataset.mask_flag_enums[source.band - 1]
    if MaskFlags.all_valid in flags or (MaskFlags.alpha in flags and source.alpha_is_data):
        return
    if MaskFlags.nodata in flags and not source.declared:
        return
    nodata = dataset.nodatavals[source.band - 1]
    if MaskFlags.nodata in flags and stored.dtype.kind in "iu" and float(nodata).is_integer():
        # as GDAL masks, but without asking it for the window a second time
        limits = np.iinfo(stored.dtype)
        if limits.min <= nodata <= limits.max:
            valid &= stored != stored.dtype.type(int(nodata))
        return
    valid &= dataset.read_masks(source.band, window=window) > 0


def mask_by_alpha(dataset: Any, bands: Sequence[int], window: Window, valid: Array) -> None:
    """Take transparent pixels out of ``valid`` where GDAL does not: it knows alpha of files of 2 and of 4 bands.

    Args:
        dataset: whose alpha is no data.
        bands: that are read, numbers from 1; alpha masks others, not itself.
        window: that is read.
        valid: (h, w) bool, changed in place.
    """
    if isinstance(dataset, WarpedVRT) or ColorInterp.alpha not in dataset.colorinterp:
        return
    alpha = dataset.colorinterp.index(ColorInterp.alpha) + 1
    if alpha not in bands and MaskFlags.alpha not in dataset.mask_flag_enums[bands[0] - 1]:
        valid &= dataset.read(alpha, window=window) > 0


def read_flags(dataset: Any, quality: QualityBand, flags: Sequence[tuple[int, int]], window: Window) -> Array:
    """Read where a band of flags raises one of ``flags``, (h, w) bool.

    Raises:
        KsdiffError: the file is damaged or incomplete.
    """
    try:
        values = dataset.read(quality.band, window=window)
    except RasterioError as error:
        raise unreadable(quality.path, error) from None
    values = values.astype(np.int64)  # a mask may need a bit more than the band's type holds
    raised = np.zeros(values.shape, bool)
    for mask, value in flags:
        raised |= (values & mask) == value
    return raised
