"""A STAC item beside an output, so that catalogues find it: where and when it is, its bands, and what made it.

Fields are those of the STAC specification 1.1 and of its extensions projection 2.0, electro-optical 2.0 and
processing 1.2.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rasterio.errors import RasterioError
from rasterio.warp import transform as to_crs

from ksdiff_cli._version import __version__
from ksdiff_cli.files.writing import as_json, write_text
from ksdiff_cli.raster.layout import has_geotransform, pixel_metres
from ksdiff_cli.raster.open import open_raster
from ksdiff_cli.sensors import by_any_name, fold_name

_EXTENSIONS = [
    "https://stac-extensions.github.io/projection/v2.0.0/schema.json",
    "https://stac-extensions.github.io/eo/v2.0.0/schema.json",
    "https://stac-extensions.github.io/processing/v1.2.0/schema.json",
]
_COMMON = {
    "coastal": "coastal", "blue": "blue", "green": "green", "yellow": "yellow", "red": "red", "rededge": "rededge",
    "nir": "nir", "nir1": "nir", "nir2": "nir09", "swir1": "swir16", "swir2": "swir22", "pan": "pan",
}  # fmt: skip
"""Common names of ksdiff's band names, folded."""
_TYPES = {"GTiff": "image/tiff; application=geotiff", "VRT": "application/vnd.gdal.vrt"}
_COG = "image/tiff; application=geotiff; profile=cloud-optimized"
_TIMES = (("IMAGERY", "ACQUISITIONDATETIME"), (None, "TIFFTAG_DATETIME"), (None, "ACQUISITIONDATETIME"))
_FORMATS = ("%Y-%m-%d %H:%M:%S", "%Y:%m:%d %H:%M:%S", "%Y-%m-%dT%H:%M:%SZ", "%Y-%m-%dT%H:%M:%S.%fZ")
_EDGE = 8  # points a side of the outline: in longitude and latitude it is bent


def item_path(output: Path) -> Path:
    """Return where an output's item lies."""
    return output.with_suffix(".json")


def write_item(output: Path, made_of: Sequence[str] = ()) -> Path:
    """Write the STAC item of a finished output.

    Args:
        output: the raster.
        made_of: addresses of the STAC items that it was made of.

    Returns:
        The item's path; one that is there is replaced.

    Raises:
        KsdiffError: the output cannot be read, or the item not be written.
    """
    item = make_item(output, made_of)
    write_text(as_json(item), item_path(output))
    return item_path(output)


def make_item(output: Path, made_of: Sequence[str] = ()) -> dict[str, Any]:
    """Return the STAC item of a raster, see :func:`write_item`."""
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    with open_raster(output) as dataset:
        taken, tags = _time(dataset), dataset.tags()
        layout = dataset.tags(ns="IMAGE_STRUCTURE").get("LAYOUT")
        sensor = by_any_name(tags.get("KSDIFF_SENSOR", ""))
        outline, box = _outline(dataset)
        properties: dict[str, Any] = {"datetime": taken or now, "created": now}
        if not taken:
            properties["description"] = "The time is that of processing: the images do not say when they were taken."
        if sensor and sensor.bands:
            properties["instruments"] = [sensor.title]
        if box:
            properties |= _projection(dataset)
        properties["processing:software"] = {"ksdiff": __version__}
        made = {name: value for name, value in sorted(tags.items()) if name.startswith("KSDIFF_")}
        properties |= {f"ksdiff:{name.removeprefix('KSDIFF_').lower()}": value for name, value in made.items()}
        asset = {
            "href": f"./{output.name}",
            "type": _COG if layout == "COG" else _TYPES.get(dataset.driver, "image/tiff"),
            "roles": ["data"],
            "bands": [_band(dataset, number) for number in dataset.indexes],
        }
    links = [{"rel": "derived_from", "href": name} for name in dict.fromkeys(made_of)]
    item: dict[str, Any] = {
        "type": "Feature",
        "stac_version": "1.1.0",
        "stac_extensions": _EXTENSIONS,
        "id": output.stem,
    }
    item |= {"geometry": outline, **({"bbox": box} if box else {}), "properties": properties}
    return {**item, "links": links, "assets": {"data": asset}}


def _projection(dataset: Any) -> dict[str, Any]:
    code = dataset.crs.to_authority()
    metres = pixel_metres(dataset)
    return {
        **({"gsd": round(metres, 4)} if metres else {}),
        "proj:code": ":".join(code) if code else None,
        **({} if code else {"proj:wkt2": dataset.crs.to_wkt()}),
        "proj:shape": list(dataset.shape),
        "proj:transform": list(dataset.transform)[:6],
    }


def _band(dataset: Any, number: int) -> dict[str, Any]:
    name = dataset.descriptions[number - 1] or f"band{number}"
    band: dict[str, Any] = {"name": name, "data_type": dataset.dtypes[number - 1]}
    if common := _COMMON.get(fold_name(name)):
        band["eo:common_name"] = common
    nodata = dataset.nodatavals[number - 1]
    if nodata is not None:
        band["nodata"] = nodata if nodata == nodata else "nan"
    own = dataset.tags(number, ns="IMAGERY")
    for key, tag in (("eo:center_wavelength", "CENTRAL_WAVELENGTH_UM"), ("eo:full_width_half_max", "FWHM_UM")):
        if tag in own:
            band[key] = float(own[tag])
    return band


def _outline(dataset: Any) -> tuple[dict[str, Any] | None, list[float] | None]:
    """Return the outline as GeoJSON and its box, in longitude and latitude; None without a georeference."""
    if not (dataset.crs and has_geotransform(dataset)):
        return None, None
    steps = [index / _EDGE for index in range(_EDGE)]
    edges = (
        [(t, 0.0) for t in steps],
        [(1.0, t) for t in steps],
        [(1 - t, 1.0) for t in steps],
        [(0.0, 1 - t) for t in steps],
    )
    places = [dataset.transform @ (x * dataset.width, y * dataset.height) for edge in edges for x, y in edge]
    try:
        lon, lat = to_crs(dataset.crs, "EPSG:4326", *zip(*places, strict=True))[:2]
    except RasterioError:
        return None, None
    ring = [[round(x, 8), round(y, 8)] for x, y in zip(lon, lat, strict=True)]
    ring = ring if _turns_left(ring) else ring[::-1]
    box = [min(x for x, _ in ring), min(y for _, y in ring), max(x for x, _ in ring), max(y for _, y in ring)]
    return {"type": "Polygon", "coordinates": [[*ring, ring[0]]]}, box


def _turns_left(ring: Sequence[Sequence[float]]) -> bool:
    pairs = zip(ring, [*ring[1:], ring[0]], strict=True)
    return sum(a[0] * b[1] - b[0] * a[1] for a, b in pairs) > 0


def _time(dataset: Any) -> str:
    """Return when the image was taken, if its tags say so, as STAC has it."""
    for domain, name in _TIMES:
        text = dataset.tags(ns=domain).get(name, "") if domain else dataset.tags().get(name, "")
        for form in _FORMATS:
            try:
                return datetime.strptime(text, form).strftime("%Y-%m-%dT%H:%M:%SZ")
            except ValueError:
                continue
    return ""
