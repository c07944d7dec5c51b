"""The engine for arrays: the same windows as of a scene in files, kept in memory."""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from importlib import import_module
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.io import MemoryFile
from rasterio.transform import Affine

from ksdiff_cli.errors import KsdiffError
from ksdiff_cli.fusers.base import Fuser
from ksdiff_cli.fusers.classical import make_fuser
from ksdiff_cli.numerics import Array
from ksdiff_cli.options.sharpening import ArrayOptions, SharpenOptions
from ksdiff_cli.output.pixels import choose_format
from ksdiff_cli.process import limit_torch
from ksdiff_cli.progress import Note, ProgressCallback, drop, silent
from ksdiff_cli.raster.bands import BandSource
from ksdiff_cli.raster.nodata import find_notes
from ksdiff_cli.raster.open import BLOCK_CACHE
from ksdiff_cli.raster.pair import Scene, ScenePair, open_pair
from ksdiff_cli.raster.registration import check_registration
from ksdiff_cli.sensors import Sensor, find_sensor
from ksdiff_cli.sharpening.engine import plan_scene
from ksdiff_cli.sharpening.job import Job
from ksdiff_cli.sharpening.pipeline import Windows, make_windows

_PAN, _MS = "pan", "ms"  # what messages call them: the parameters' names
_OFF = 0.01  # largest misfit of a ratio, PAN pixels per MS pixel


_OF_VALUES = ("_FillValue", "missing_value", "scale_factor", "add_offset", "STATISTICS_")


@dataclass(frozen=True)
class Image:
    """An array and where it lies."""

    values: NDArray[Any]
    """(bands, height, width), DN."""
    place: dict[str, Any] = field(default_factory=dict)
    """``crs`` and ``transform``; {} without georeference."""
    nodata: float | None = None
    valid: NDArray[np.bool_] | None = None
    """(height, width), False where pixels hold no data; None where only nodata tells."""


def is_labelled(array: Any) -> bool:
    """Say whether this is a DataArray, without importing xarray."""
    return any(kind.__module__.startswith("xarray.") and kind.__name__ == "DataArray" for kind in type(array).__mro__)


def read_labelled(array: Any, name: str) -> Image:
    """Take values, georeference and nodata from a DataArray.

    Args:
        array: with two spatial dimensions, and perhaps one of bands, in any order.
        name: what messages call it.

    Raises:
        KsdiffError: rioxarray is missing, or cannot tell which dimensions are spatial.
    """
    try:
        import_module("rioxarray")  # gives DataArrays their ``rio``
    except ImportError:
        raise KsdiffError(
            f"{name}: is a DataArray, whose georeference rioxarray reads; pip install 'ksdiff[xarray]', or give .values"
        ) from None
    try:
        rows, cols = array.rio.y_dim, array.rio.x_dim
    except Exception as error:  # rioxarray's own kinds, which nothing here may import
        if not type(error).__module__.startswith("rioxarray"):
            raise
        raise KsdiffError(
            f"{name}: its dimensions {array.dims} do not say which are rows and columns ({error})"
        ) from None
    values = np.asarray(array.transpose(..., rows, cols).values)
    place: dict[str, Any] = {}
    if (rows in array.coords and cols in array.coords) or "GeoTransform" in getattr(array, "spatial_ref", array).attrs:
        place = {"crs": array.rio.crs, "transform": array.rio.transform()}
    # a masked array has NaN where its file had nodata
    masked = array.rio.encoded_nodata is not None and values.dtype.kind == "f"
    nodata = np.nan if masked else array.rio.nodata
    return Image(values, place, None if nodata is None else float(nodata))


def write_labelled(made: Image, like: Any) -> Any:
    """Return a result as a DataArray.

    Args:
        made: (bands, H, W).
        like: the MS it was made from, whose name, attributes and bands it takes.
    """
    rows, cols = like.rio.y_dim, like.rio.x_dim
    (bands,) = (dimension for dimension in like.dims if dimension not in (rows, cols))
    coords: dict[str, Any] = {bands: like.coords[bands]} if bands in like.coords else {}
    transform: Affine | None = made.place.get("transform")
    if transform is not None and transform.is_rectilinear:
        height, width = made.values.shape[1:]
        coords[rows] = (np.arange(height) + 0.5) * transform.e + transform.f
        coords[cols] = (np.arange(width) + 0.5) * transform.a + transform.c
    attributes = {key: value for key, value in like.attrs.items() if not str(key).startswith(_OF_VALUES)}
    result = type(like)(made.values, coords, (bands, rows, cols), like.name, attributes)
    if made.nodata is not None:
        result = result.rio.write_nodata(made.nodata)
    if transform is None:
        return result
    if made.place["crs"] is not None:
        result = result.rio.write_crs(made.place["crs"])
    return result.rio.write_transform(transform)


@dataclass
class Canvas(Job):
    """A job whose windows go into an array, not into files."""

    out: Array = field(default_factory=lambda: np.empty(0))
    """(bands, H, W), encoded; nodata where no window has been stored."""

    def store(self, number: int, values: Array | None) -> None:
        if values is not None:
            self.out[:, *self.plan.part(number).within(self.plan.region)] = values


def sharpen_arrays(
    pan: Any,
    ms: Any,
    valid: Any,
    options: ArrayOptions,
    progress: ProgressCallback = silent,
    note: Note = drop,
) -> Any:
    """Sharpen NumPy arrays or xarray DataArrays; see :func:`ksdiff_cli.sharpen_array`."""
    known = options.sensor if isinstance(options.sensor, Sensor) else find_sensor(options.sensor)
    options = replace(options, sensor=known)
    if options.method == "ksdiff":
        limit_torch(options.threads)
    fuser = make_fuser(options.method, options.checkpoint, options.device, options.seed, options.sharpness or 0.0)
    labelled = is_labelled(pan), is_labelled(ms)
    if labelled[0] != labelled[1]:
        raise KsdiffError("PAN and MS must be of one kind: give two arrays, or two DataArrays")
    if labelled[0]:
        first, last = read_labelled(pan, _PAN), read_labelled(ms, _MS)
    else:
        first, last = Image(np.asarray(pan)), Image(np.asarray(ms))
    first, last = _unmasked(_checked(first, _PAN, (2, 3)), pan), _unmasked(_checked(last, _MS, (3,)), ms)
    if len(first.values) != 1:
        raise KsdiffError(
            f"{_PAN}: has {len(first.values)} bands, PAN has one; are PAN and MS swapped? PAN comes first, then MS"
        )
    nodata = options.nodata
    of_pan, of_ms = nodata if isinstance(nodata, Sequence) and len(nodata) == 2 else (None, nodata)
    first, last = _with_nodata(first, of_pan, _PAN), _with_nodata(last, of_ms, _MS)
    if last.nodata is None and last.values.dtype.kind == "f":
        last = replace(last, nodata=float("nan"))
    made = fuse_images(*_masked(first, last, valid), fuser, options, progress, note)
    return write_labelled(made, ms) if labelled[1] else made.values


def _with_nodata(image: Image, nodata: Any, name: str) -> Image:
    """Return an image with what a person says of it; None says nothing."""
    if nodata is None:
        return image
    if not isinstance(nodata, Real) or not _holds(image.values.dtype, float(nodata)):
        raise KsdiffError(f"nodata: {nodata} is no value of type {image.values.dtype}; give one that {name} can hold")
    return replace(image, nodata=float(nodata))


def _holds(dtype: Any, value: float) -> bool:
    """Say whether a data type has a value."""
    if dtype.kind == "f":
        return True
    limits = np.iinfo(dtype)
    return float(value).is_integer() and int(limits.min) <= value <= int(limits.max)


def _checked(image: Image, name: str, dimensions: tuple[int, ...]) -> Image:
    """Return an image as (bands, height, width), of a type that a raster can hold."""
    values = image.values
    if values.ndim not in dimensions or 0 in values.shape:
        wanted = "(height, width) or (1, height, width)" if 2 in dimensions else "(bands, height, width)"
        raise KsdiffError(f"{name}: has shape {values.shape}; give {wanted}")
    if values.dtype.kind not in "iuf" or values.dtype.itemsize not in (1, 2, 4, 8) or values.dtype == np.float16:
        raise KsdiffError(f"{name}: has values of type {values.dtype}; give integers, float32 or float64")
    return replace(image, values=values if values.ndim == 3 else values[None])


def _unmasked(image: Image, array: Any) -> Image:
    """Return the image of an array with what a masked array says besides: where it is valid, and perhaps nodata.

    Whoever makes a masked array of nodata leaves it under the mask and calls it ``fill_value``, as rasterio does; else
    that is NumPy's default, which any pixel may hold.
    """
    mask = np.ma.getmaskarray(array).reshape(image.values.shape) if np.ma.isMaskedArray(array) else None
    if mask is None or not mask.any():
        return image
    given = (image.values[mask] == array.fill_value).all()
    valid: NDArray[np.bool_] = np.logical_not(mask.any(0))
    return replace(image, valid=valid, nodata=float(array.fill_value) if given else None)


def fuse_images(
    pan: Image,
    ms: Image,
    fuser: Fuser,
    options: ArrayOptions,
    progress: ProgressCallback = silent,
    note: Note = drop,
) -> Image:
    """Sharpen an image in memory.

    Args:
        pan: one band.
        ms: any number of bands.
        fuser: what sharpens a window.
        options: see :class:`ArrayOptions`.
        progress: told how far it is.
        note: called with lines for people.

    Returns:
        The result on PAN's grid over the common area, of MS's data type.

    Raises:
        KsdiffError: see :func:`ksdiff_cli.sharpen_array`.
        ModelError: the fuser's weights do not fit the bands.
    """
    try:
        with rasterio.Env(GDAL_CACHEMAX=BLOCK_CACHE), _as_file(pan) as first, _as_file(ms) as last:
            bands = tuple(BandSource(last, band, alpha_is_data=True) for band in range(1, len(ms.values) + 1))
            assert isinstance(options.sensor, Sensor), "sharpen_arrays() finds it by its name"
            scene = Scene("arrays", BandSource(first), bands, options.sensor)
            try:
                return _fuse(scene, fuser, options, progress, note)
            except KsdiffError as error:
                raise KsdiffError(str(error).replace(first, _PAN).replace(last, _MS)) from None
    except RasterioError as error:
        raise KsdiffError(f"the arrays cannot be laid out as images ({error})") from None


def _fuse(scene: Scene, fuser: Fuser, options: ArrayOptions, progress: ProgressCallback, note: Note) -> Image:
    """Do with an opened scene what :func:`ksdiff_cli.sharpening.engine.sharpen_scene` does, but for the files."""
    if options.registration != "skip":
        scene, notes = check_registration(scene, correct=options.registration == "correct", progress=progress)
        for line in notes:
            note(line)
    with open_pair(scene) as pair:
        _check_ratio(pair, options.ratio)
        fuser.check(pair.bands, pair.true_ratio)
        plan = plan_scene(pair, Path(), fuser, SharpenOptions(tile=options.tile, memory=options.memory, resume=False))
        statistics = pair.statistics(progress)
        pixels = choose_format(pair, statistics)
        out = np.full((pair.bands, *pair.shape), 0 if pixels.nodata is None else pixels.nodata, pixels.dtype)
        job = Canvas(Path(), plan, pair.bands, pixels, {}, out)
        fuser.prepare(pair, statistics, progress)
        make_windows(Windows(job, pair, fuser, statistics), plan.numbers, progress)
        for line in (*(pair.notes if pair.georeferenced else ()), *find_notes(pair, arrays=True)):
            note(line)
        place = {"crs": pair.crs, "transform": pair.transform} if pair.georeferenced else {}
        return Image(out, place, pixels.nodata)


def _check_ratio(pair: ScenePair, ratio: float | None) -> None:
    rows, cols = (1 / abs(axis.scale) for axis in (pair.grid.rows, pair.grid.cols))
    if ratio is not None and max(abs(rows - ratio), abs(cols - ratio)) > _OFF:
        raise KsdiffError(
            f"ratio {ratio:g}: an MS pixel covers {rows:.4g} x {cols:.4g} PAN pixels (rows x columns); check the arrays"
        )


def _masked(pan: Image, ms: Image, valid: Array | None) -> tuple[Image, Image]:
    """Return the two images, the one that a mask belongs to with it."""
    if valid is None:
        return pan, ms
    mask = np.asarray(valid)
    if mask.dtype != bool:
        raise KsdiffError(f"valid: has values of type {mask.dtype}; give bool, True where pixels hold data")
    if mask.shape == pan.values.shape[1:]:
        return replace(pan, valid=mask if pan.valid is None else mask & pan.valid), ms
    if mask.shape == ms.values.shape[1:]:
        return pan, replace(ms, valid=mask if ms.valid is None else mask & ms.valid)
    raise KsdiffError(
        f"valid: has shape {mask.shape}, neither PAN's {pan.values.shape[1:]} nor MS's {ms.values.shape[1:]}"
    )


@contextmanager
def _as_file(image: Image) -> Iterator[str]:
    """Keep an image as an uncompressed GeoTIFF in memory; yield the name by which GDAL opens it."""
    bands, height, width = image.values.shape
    profile = {"count": bands, "height": height, "width": width, "dtype": image.values.dtype.name}
    with MemoryFile(ext=".tif") as memory, warnings.catch_warnings(), rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with memory.open(
            driver="GTiff", **profile, **image.place, nodata=image.nodata, photometric="MINISBLACK", alpha="NO",
            interleave="band", tiled=True, bigtiff="if_safer",
        ) as file:  # fmt: skip
            file.write(image.values)
            if (held := image.valid) is not None:
                # GDAL asks a mask alone, where there is one
                file.write_mask(held if image.nodata is None else held & (image.values != image.nodata).all(0))
        yield memory.name
