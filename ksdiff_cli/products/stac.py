"""STAC items: a JSON file whose assets are PAN and MS, told apart by their common names.

Facts are from the STAC specification 1.0 and 1.1 (bands of an asset stand under ``eo:bands`` or ``bands``) and its
electro-optical extension, whose table has the common names. Other fields, and the extensions, do not count.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urljoin, urlparse

from ksdiff_cli.errors import KsdiffError
from ksdiff_cli.products.archive import fetch_text
from ksdiff_cli.products.folder import Folder
from ksdiff_cli.products.product import NoPairError, fit_sensor
from ksdiff_cli.raster.bands import BandSource
from ksdiff_cli.raster.pair import Scene
from ksdiff_cli.sensors import Sensor, by_any_name, find_sensor, fold_name

ENDS = (".json", ".geojson")
_RASTERS = (".tif", ".tiff", ".jp2", ".vrt", ".img")
_SHOWN = {"thumbnail", "overview", "visual", "metadata", "data-mask", "cloud"}
"""Roles of assets that are no measurements."""
_OTHERS = {"cirrus", "lwir", "lwir11", "lwir12"}
"""Common names of bands that PAN says nothing of."""
_AS = {"nir08": "nir", "swir16": "swir1", "swir22": "swir2", "rededge": "red edge"}
"""Sensors' names of common names."""
_MOST = 1000  # assets of an item


@dataclass(frozen=True)
class _Asset:
    key: str
    path: str
    bands: tuple[tuple[str, str], ...]
    """Name and common name of each, "" where it has none."""
    fill: float | None

    @property
    def is_pan(self) -> bool:
        common = {name for _, name in self.bands}
        return len(self.bands) == 1 and (common == {"pan"} or (common == {""} and fold_name(self.key) in _PAN))


_PAN = {"pan", "panchromatic", "pananalytic"}


def names_item(path: str) -> bool:
    """Say whether a path ends as an item's does."""
    return path.lower().endswith(ENDS)


def read_item(path: str, sensor: Sensor | None) -> Scene:
    """Return the scene of an item, on disk or on a web server.

    Args:
        path: of the item.
        sensor: who took it; None takes what the item says.

    Raises:
        KsdiffError: it cannot be read, is no item, holds several PAN, or assets outside of any folder or server.
        NoPairError: it holds no PAN, or no MS.
    """
    item = _load(path)
    assets = [
        found for key, value in list(_dict(item, "assets").items())[:_MOST] if (found := _asset(path, key, value))
    ]
    pans = [asset for asset in assets if asset.is_pan]
    if not pans:
        raise NoPairError(
            f"{path}: has no asset with the common name pan (it has {_listed(assets)}); name finer bands with --guide"
        )
    if len(pans) > 1:
        raise KsdiffError(f"{path}: several assets are PAN ({_listed(pans)}); name PAN and MS one by one")
    own = sensor or _sensor(_dict(item, "properties"))
    ms = _choose(assets, own)
    if not ms:
        raise NoPairError(f"{path}: has no MS asset whose bands have common names; name PAN and MS one by one")
    (pan,) = pans
    name = str(item.get("id") or PurePosixPath(path).stem)
    fitted = fit_sensor(own, [source.name for source in ms])
    return Scene(name, BandSource(pan.path, 1, "pan", pan.fill), ms, fitted)


def _load(path: str) -> dict[str, Any]:
    remote = path.startswith(("http://", "https://"))
    text = fetch_text(path) if remote else Folder(Path(path).parent).read_text(Path(path).name)
    try:
        item = json.loads(text)
    except (ValueError, RecursionError):
        raise KsdiffError(f"{path}: is no JSON; give a STAC item, or name PAN and MS one by one") from None
    if isinstance(item, dict) and item.get("type") == "Feature" and not isinstance(item.get("assets"), dict):
        raise KsdiffError(f"{path}: has no object of assets, as STAC items do; fetch it again, or name PAN and MS")
    if not isinstance(item, dict) or item.get("type") != "Feature":
        what = f" but a {item['type']}" if isinstance(item, dict) and isinstance(item.get("type"), str) else ""
        raise KsdiffError(f"{path}: is no STAC item{what[:40]}; give an item, or name PAN and MS one by one")
    return item


def _dict(value: Mapping[str, Any], key: str) -> dict[str, Any]:
    inner = value.get(key)
    return inner if isinstance(inner, dict) else {}


def _asset(item: str, key: str, value: Any) -> _Asset | None:
    """Return an asset that holds measurements; None for any other."""
    href = value.get("href") if isinstance(value, dict) else None
    if not isinstance(href, str) or not urlparse(href).path.lower().endswith(_RASTERS):
        return None
    if _SHOWN & set(map(str, value.get("roles") or ())):
        return None
    listed = value.get("bands") or value.get("eo:bands") or value.get("raster:bands") or [{}]
    bands = [band if isinstance(band, dict) else {} for band in listed] if isinstance(listed, list) else [{}]
    names = tuple(
        (str(band.get("name") or ""), str(band.get("eo:common_name") or band.get("common_name") or ""))
        for band in bands
    )
    more = value.get("raster:bands")
    first = more[0] if isinstance(more, list) and more and isinstance(more[0], dict) else bands[0]
    fill = first.get("nodata", value.get("nodata"))
    return _Asset(key, _place(item, href), names, float(fill) if isinstance(fill, int | float) else None)


def _place(item: str, href: str) -> str:
    """Return where an asset lies; a relative one lies beside the item."""
    if item.startswith(("http://", "https://")):
        return urljoin(item, href)
    if "://" in href or href.startswith("/vsi"):
        return href.removeprefix("file://") if href.startswith("file://") else href
    return str(Path(item).parent / href)


def _sensor(properties: Mapping[str, Any]) -> Sensor:
    instruments = properties.get("instruments")
    names = [
        properties.get("platform"),
        properties.get("constellation"),
        *(instruments if isinstance(instruments, list) else []),
    ]
    found = (by_any_name(name) for name in names if isinstance(name, str))
    return next((sensor for sensor in found if sensor), find_sensor(None))


def _choose(assets: Sequence[_Asset], sensor: Sensor) -> tuple[BandSource, ...]:
    """Return the MS bands: those of the asset with most of them, or else of assets with one each."""

    def named(asset: _Asset) -> bool:
        return all(common not in ("", "pan") for _, common in asset.bands)

    whole = max(
        (asset for asset in assets if len(asset.bands) > 1 and named(asset)),
        key=lambda one: len(one.bands),
        default=None,
    )
    chosen = [whole] if whole else [asset for asset in assets if len(asset.bands) == 1 and named(asset)]
    sources = []
    for asset in chosen:
        for number, (name, common) in enumerate(asset.bands, start=1):
            known = _known(name, common, sensor)
            if known and (whole or common not in _OTHERS):
                sources.append(BandSource(asset.path, number, known, asset.fill, alpha_is_data=len(asset.bands) > 1))
    return tuple(sources)


def _known(name: str, common: str, sensor: Sensor) -> str:
    """Return what the sensor calls a band; the common name where it names none, "" where it has no such band."""
    folded = {fold_name(band): band for band in sensor.bands}
    for each in (name, common, _AS.get(common, "")):
        if fold_name(each) in folded:
            return folded[fold_name(each)]
    return "" if sensor.bands else _AS.get(common, common)


def _listed(assets: Sequence[_Asset]) -> str:
    names = [asset.key for asset in assets[:6]]
    return (", ".join(names) + (", …" if len(assets) > len(names) else "")) or "no raster"
