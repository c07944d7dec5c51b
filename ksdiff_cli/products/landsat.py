"""Landsat 7, 8 and 9 products, Collection 1 and 2 and before: one TIFF a band, ``*_B2.TIF``, and ``*_MTL.txt``.

Level 1 has PAN; of level 2, which has none, the surface's temperature is sharpened by its reflectance. The
International Charter packs level 1 anew: ``LS08…_B02.TIF`` with the rest in ``vendor_metadata/``. Facts are from the
USGS data format control books: LSDS-1822 (Landsat 8-9 Collection 2), LSDS-1414 (Landsat 7 Collection 2), LSDS-809
(Landsat 8 Collection 1), LSDS-272 (Landsat 7 Collection 1).
"""

import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace

from ksdiff_cli.errors import KsdiffError
from ksdiff_cli.products import radiometry
from ksdiff_cli.products.fields import first_fields
from ksdiff_cli.products.folder import Folder
from ksdiff_cli.products.mosaic import resample
from ksdiff_cli.products.product import NoPairError, fit_sensor
from ksdiff_cli.raster.bands import BandSource, Calibration, QualityBand
from ksdiff_cli.raster.open import open_raster
from ksdiff_cli.raster.pair import Scene
from ksdiff_cli.raster.synthesis import Group, GuidedScene
from ksdiff_cli.sensors import SENSORS, Sensor

LOOKS_FOR = "Landsat 7/8/9 bands (*_B8.TIF with *_B2.TIF …)"

_PAN = 8
_OLI = {2: "blue", 3: "green", 4: "red", 5: "nir", 6: "swir1", 7: "swir2"}
_ETM = {1: "blue", 2: "green", 3: "red", 4: "nir", 5: "swir1", 7: "swir2"}
# the reflective 30 m bands, in the order of Sensor.bands
_MS = {"L7": _ETM, "L8": _OLI, "L9": _OLI}
_TIRS = {10: "tir1", 11: "tir2"}
_ETM_THERMAL = {61: "tir low gain", 62: "tir high gain"}
_THERMAL = {"L7": 2, "L8": 3, "L9": 3}  # of the 30 m pixels that they are resampled to, those of a thermal one's side
_FILL = 0.0  # level-1 fill value; most files do not declare it

_BAND_FILE = re.compile(
    r"(?P<product>.*?)(?:_SR|_ST)?_B(?P<band>\d{1,2})(?:_VCID_(?P<gain>[12]))?\.TIFF?", re.IGNORECASE
)
_QUALITY_FILE = re.compile(r"(?P<product>.*)_(?P<kind>BQA|QA_PIXEL)\.TIFF?", re.IGNORECASE)
# LC08_…, LE07_… (Collections), LC8…, LE7… (before them), LS08… (the Charter's)
_PRODUCT = re.compile(r"L[CEOTS]0?(?P<number>\d)", re.IGNORECASE)
_CHARTER = "vendor_metadata"
_COLLECTION = re.compile(r"_\d{8}_\d{8}_(?P<number>\d\d)_(?:RT|T1|T2|A1|A2)$", re.IGNORECASE)
_LEVEL_2 = re.compile(r"(?:_L2S[PR]_.*|_S[RT]$)", re.IGNORECASE)
_GAP_MASK = re.compile(r"_GM$", re.IGNORECASE)

_Flags = tuple[tuple[int, int], ...]
_FILL_FLAG: _Flags = ((1, 1),)


def _bit(number: int) -> tuple[int, int]:
    return 1 << number, 1 << number


def _high(first: int) -> tuple[int, int]:
    """Confidence "high" in the two bits from ``first``."""
    return 3 << first, 3 << first


# Dilated cloud (bit 1) counts as cloud: a cloud's hazy edge is not the ground either.
_QA_PIXEL: _Flags = (_bit(1), _bit(2), _bit(3), _bit(4))  # dilated cloud, cirrus, cloud, cloud shadow
_BQA: dict[str, _Flags] = {
    "L7": (_bit(4), _high(7)),  # cloud, cloud shadow
    "L8": (_bit(4), _high(7), _high(11)),  # and cirrus
}
_BEFORE_COLLECTIONS: _Flags = (_high(14), _high(12))  # cloud, cirrus; Landsat 8 only


def read(folder: Folder, sensor: Sensor | None) -> list[Scene | GuidedScene]:
    """Return the Landsat scenes whose band files lie in ``folder``; [] when there are none.

    Args:
        folder: where to look.
        sensor: stands for what file names and MTL say, if given.

    Raises:
        KsdiffError: an MTL file is cut short, or contradicts the file names; NoPairError: a product without PAN.
    """
    products: dict[str, dict[int, str]] = defaultdict(dict)
    flags: dict[str, re.Match[str]] = {}
    for name in folder.files:
        if match := _QUALITY_FILE.fullmatch(name):
            flags.setdefault(match["product"], match)
        if (match := _BAND_FILE.fullmatch(name)) and not _GAP_MASK.search(match["product"]):
            products[match["product"]][int(match["band"] + (match["gain"] or ""))] = name
    scenes: list[Scene | GuidedScene] = []
    refusal = None
    for product, files in products.items():
        try:
            scene = _read_product(folder, product, files, sensor, flags.get(product))
        except NoPairError as error:
            refusal = error
            continue
        if scene is not None:
            scenes.append(scene)
    if refusal and not scenes:
        raise refusal
    return [replace(one, name=folder.name) for one in scenes] if len(scenes) == 1 else scenes


def _read_product(
    folder: Folder, product: str, files: Mapping[int, str], sensor: Sensor | None, flags: re.Match[str] | None
) -> Scene | GuidedScene | None:
    """Return a product's scene, None when nothing says that it is Landsat's."""
    home, called = _metadata_of(folder, product)
    mtl = _read_mtl(home, called)
    number = _number(folder, product, mtl)
    if number is None:
        own = sensor if sensor and sensor.name in _MS else None
    else:
        own = SENSORS.get(f"L{number}")
        if own is None:
            raise NoPairError(f"{folder.at(product)}: is of Landsat {number}, which has no PAN at 15 m")
    if own is None:
        return None
    level = mtl.get("PROCESSING_LEVEL", mtl.get("DATA_TYPE", ""))
    bands = {band: name for band, name in _MS[own.name].items() if band in files}
    level_2 = _LEVEL_2.search(product) is not None or level.startswith("L2")
    known = {band: None if level_2 else radiometry.landsat(mtl, band) for band in (_PAN, *bands)}
    ms = tuple(_source(folder, files[band], name, known[band]) for band, name in bands.items())
    if home is not folder:
        found = (_QUALITY_FILE.fullmatch(name) for name in home.files)
        flags = next((match for match in found if match and match["product"] == called), None)
    quality = flags and QualityBand(
        home.at(flags[0]), _FILL_FLAG, _cloud_flags(flags["kind"].upper(), called, own, mtl)
    )
    thermal = _thermal(folder, product, files, own, ms, quality) if ms else ()
    if level_2:
        if thermal:
            return thermal[0]
        raise NoPairError(f"{folder.at(product)}: is a level-2 product, which has no PAN; fetch the level-1 product")
    if _PAN not in files:
        raise NoPairError(f"{folder.at(product)}: has no band 8 (PAN, *_B8.TIF); fetch the level-1 product again")
    if not bands:
        wanted = ", ".join(f"B{band}" for band in _MS[own.name])
        raise NoPairError(f"{folder.at(product)}: has none of the MS bands {wanted}; fetch the level-1 product again")
    pan = _source(folder, files[_PAN], "pan", known[_PAN])
    return Scene(product, pan, ms, fit_sensor(sensor or own, tuple(bands.values())), quality, others=thermal)


def _thermal(
    folder: Folder,
    product: str,
    files: Mapping[int, str],
    own: Sensor,
    ms: tuple[BandSource, ...],
    quality: QualityBand | None,
) -> tuple[GuidedScene, ...]:
    """Return the thermal bands by those of 30 m, on whose grid they are delivered, though seen at 60 or 100 m."""
    names, step = (_ETM_THERMAL if own.name == "L7" else _TIRS), _THERMAL[own.name]
    sources: list[BandSource] = []
    shape, coarse = (0, 0), quality
    if not set(names) & set(files):
        return ()
    try:
        for band in sorted(set(names) & set(files)):
            path = folder.at(files[band])
            with open_raster(path) as dataset:
                shape = max(1, dataset.height // step), max(1, dataset.width // step)
            sources.append(BandSource(resample(path, shape, nodata=_FILL), 1, names[band], _FILL))
        coarse = quality and replace(quality, path=resample(quality.path, shape))
    except KsdiffError:  # they are not what most people come for
        return ()
    sensor = SENSORS["ETM6" if own.name == "L7" else "TIRS"].with_bands([source.name for source in sources])
    return (GuidedScene(product, ms, (Group("thermal", tuple(sources), sensor, coarse),)),)


def _source(folder: Folder, file: str, name: str, calibration: Calibration | None) -> BandSource:
    return BandSource(folder.at(file), 1, name, _FILL, calibration=calibration)


def _metadata_of(folder: Folder, product: str) -> tuple[Folder, str]:
    """Return where a product's metadata lie, and what they call it."""
    for inner in folder.folders if re.match(r"LS\d", product, re.IGNORECASE) else ():
        names = [name for name in inner.files if name.lower().endswith("_mtl.txt")]
        if inner.name.lower() == _CHARTER and len(names) == 1:
            return inner, names[0][: -len("_MTL.txt")]
    return folder, product


def _read_mtl(folder: Folder, product: str) -> dict[str, str]:
    """Return the fields of a product's MTL file, {} when it has none."""
    name = folder.find(f"{product}_MTL.txt")
    if name is None:
        return {}
    fields = first_fields(folder.read_text(name))
    if "SPACECRAFT_ID" not in fields:
        raise KsdiffError(f"{folder.at(name)}: has no SPACECRAFT_ID; the MTL file is cut short, fetch it again")
    return fields


def _number(folder: Folder, product: str, mtl: Mapping[str, str]) -> int | None:
    """Say which Landsat took a product, by its name and its MTL file; None if neither tells."""
    match = _PRODUCT.match(product)
    by_name = int(match["number"]) if match else None
    stated = re.search(r"\d$", mtl.get("SPACECRAFT_ID", ""))
    by_mtl = int(stated[0]) if stated else None
    if by_name and by_mtl and by_name != by_mtl:
        raise KsdiffError(
            f"{folder.at(product)}_MTL.txt: names LANDSAT_{by_mtl}, but the files are of Landsat {by_name} by their "
            "names; they do not belong together, fetch the product again"
        )
    return by_name or by_mtl


def _cloud_flags(kind: str, product: str, own: Sensor, mtl: Mapping[str, str]) -> _Flags:
    """Say which bits mean clouds; none where nothing says what generation of product it is."""
    if kind == "QA_PIXEL":
        return _QA_PIXEL
    match = _COLLECTION.search(product)
    if match or "COLLECTION_NUMBER" in mtl:
        return _BQA.get(own.name, ())
    named = re.match(r"L[CO]8\d", product, re.IGNORECASE) is not None
    return _BEFORE_COLLECTIONS if own.name == "L8" and (mtl or named) else ()
