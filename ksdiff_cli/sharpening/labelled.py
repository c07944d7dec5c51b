"""xarray's DataArrays, whose georeference rioxarray reads and writes; both are optional."""

from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.transform import Affine

from ksdiff_cli.errors import KsdiffError

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
