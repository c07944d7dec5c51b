"""Products in DIMAP version 2 (Pléiades, SPOT 6/7, Pléiades Neo, PeruSAT-1): ``DIM_*_P_*.XML``, ``DIM_*_MS_*.XML``.

GDAL opens a DIM file as one image, tiles joined, with georeference or RPCs; that of PeruSAT-1 it does not, so that the
TIFF beside it is taken. It does not name the bands: that is done here, from the metadata. Facts are from the Pléiades
Imagery User Guide and the SPOT 6 & SPOT 7 Imagery User Guide.
"""

import re
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from operator import itemgetter
from xml.etree import ElementTree

from ksdiff_cli.errors import KsdiffError
from ksdiff_cli.products import radiometry
from ksdiff_cli.products.fields import whole_number
from ksdiff_cli.products.folder import Folder
from ksdiff_cli.products.product import NoPairError, file_bands, fit_sensor, side_by_side
from ksdiff_cli.raster.bands import BandSource, Calibration
from ksdiff_cli.raster.pair import Scene
from ksdiff_cli.sensors import SENSORS, Sensor, by_any_name

LOOKS_FOR = "Airbus DIM_*.XML files of P and MS (Pléiades, SPOT)"

_DIM = re.compile(r"DIM_.+\.XML", re.IGNORECASE)
_NAMES = {
    "B0": "blue", "B1": "green", "B2": "red", "B3": "nir",  # Pléiades, SPOT
    "DB": "deep blue", "B": "blue", "G": "green", "R": "red", "RE": "red edge", "NIR": "nir", "N": "nir",  # Neo
}  # fmt: skip
_CHANNELS = ("RED_CHANNEL", "GREEN_CHANNEL", "BLUE_CHANNEL", "ALPHA_CHANNEL")
_MOST_BANDS = 1000  # DIMAP serves many cameras, none of which has near as many
_TOGETHER = 5.0  # s; PAN and MS of one image start within tenths of a second, images of a stereo pair 10 s apart


@dataclass(frozen=True)
class _Image:
    """One DIM file: a PAN or an MS image."""

    folder: Folder
    file: str
    spectral: str
    """P, PAN, MS, MS-FS, PMS …"""
    satellite: str
    """Mission and index, e.g. PHR1A."""
    time: float | None
    """When it was taken, s; None where nothing says so."""
    shape: tuple[int, int]
    bands: tuple[str, ...]
    """In the file's order; empty names where the metadata does not say."""
    nodata: float | None
    calibrations: tuple[Calibration | None, ...] = ()
    """Of the bands, in the file's order."""
    tile: str = ""
    """Path of its one TIFF where GDAL does not open the DIM file."""

    @property
    def path(self) -> str:
        return self.folder.at(self.file)


def read(folder: Folder, sensor: Sensor | None) -> list[Scene]:
    """Return the scenes whose DIM files lie in ``folder`` or the folders in it (``IMG_…_P_001`` …); [] without any.

    Args:
        folder: where to look.
        sensor: stands for what the DIM files say, if given.

    Raises:
        KsdiffError: a DIM file is cut short, contradicts itself or names a missing tile; NoPairError: PAN or MS is
            missing.
    """
    read = (
        _read_dim(place, name) for place in (folder, *folder.folders) for name in place.files if _DIM.fullmatch(name)
    )
    images = [image for image in read if image is not None]
    images = side_by_side(folder, images, lambda image: image.spectral in ("P", "PAN"))
    if not images:
        return []
    pans = [image for image in images if image.spectral in ("P", "PAN")]
    others = [image for image in images if image.spectral.startswith("MS")]
    if not (pans and others):
        raise _refusal(folder, images)
    if len(pans) == len(others) == 1:
        return [_scene(folder.name, pans[0], others[0], sensor)]
    timed = sorted(((image.time, image) for image in others if image.time is not None), key=itemgetter(0))
    return [_scene(pan.file[len("DIM_") : -len(".XML")], pan, _partner(pan, timed), sensor) for pan in pans]


def _partner(pan: _Image, others: Sequence[tuple[float, _Image]]) -> _Image:
    """Return the MS image, of those in order of time, that was taken together with PAN."""
    near: list[_Image] = []
    if pan.time is not None:
        first = bisect_left(others, pan.time - _TOGETHER, key=itemgetter(0))
        last = bisect_right(others, pan.time + _TOGETHER, key=itemgetter(0))
        near = [image for _, image in others[first:last] if image.satellite == pan.satellite]
    if len(near) != 1:
        raise KsdiffError(f"{pan.path}: {len(near)} MS images were taken with this PAN; name PAN and MS one by one")
    return near[0]


def _refusal(folder: Folder, images: Sequence[_Image]) -> NoPairError:
    names = ", ".join(sorted(image.file for image in images)[:3])
    if any(image.spectral.startswith("PMS") for image in images):
        return NoPairError(f"{folder.path}: {names} is pan-sharpened already (PMS); order PAN and MS apart (a bundle)")
    missing = "MS" if any(image.spectral in ("P", "PAN") for image in images) else "PAN"
    return NoPairError(
        f"{folder.path}: holds {names} but no {missing} image; name the folder that holds both (IMG_…_P_…, IMG_…_MS_…)"
    )


def _scene(name: str, pan: _Image, ms: _Image, sensor: Sensor | None) -> Scene:
    if pan.satellite != ms.satellite:
        raise KsdiffError(
            f"{ms.path}: is of {ms.satellite}, but its PAN {pan.path} is of {pan.satellite}; "
            "they do not belong together"
        )
    own = sensor or by_any_name(ms.satellite) or SENSORS["generic"]
    (source,) = _sources(pan, ("pan",))
    return Scene(name, source, _sources(ms, ms.bands), fit_sensor(own, ms.bands))


def _sources(image: _Image, names: Sequence[str]) -> tuple[BandSource, ...]:
    return file_bands(image.tile or image.path, names, image.path, image.shape, image.nodata, image.calibrations)


def _read_dim(folder: Folder, file: str) -> _Image | None:
    """Read a DIM file; None where it is of DIMAP version 1, which others describe their images with."""
    path = folder.at(file)
    try:
        root = ElementTree.fromstring(folder.read_text(file))
    except ElementTree.ParseError as error:
        raise KsdiffError(f"{path}: is not whole XML ({error}); fetch it again") from None

    if (version := root.find(".//METADATA_FORMAT")) is not None and version.get("version", "2").startswith("1"):
        return None

    def text(name: str) -> str:
        return (root.findtext(f".//{name}") or "").strip()

    sizes = {name: whole_number(text(name)) for name in ("NROWS", "NCOLS", "NBANDS")}
    for name, size in sizes.items():
        if size is None or (name == "NBANDS" and size > _MOST_BANDS):
            raise KsdiffError(f"{path}: has no {name}; it is no whole DIMAP 2 product description, fetch it again")
    rows, columns, count = (size or 0 for size in sizes.values())
    spectral, mission = text("SPECTRAL_PROCESSING").upper(), text("MISSION").upper()
    if not (spectral and mission):
        missing = "MISSION" if spectral else "SPECTRAL_PROCESSING"
        raise KsdiffError(f"{path}: has no {missing}; it is no whole DIMAP 2 product description, fetch it again")
    named = re.search(r"_(P|PAN|MS|PMS)(?:-\w+)?_", file.upper())
    if named and {"PAN": "P"}.get(named[1], named[1]) != {"PAN": "P"}.get(spectral, spectral.partition("-")[0]):
        raise KsdiffError(
            f"{path}: says SPECTRAL_PROCESSING {spectral}, but is called {named[1]}; fetch the product again"
        )
    tiles = _check_tiles(folder, path, root)
    bands = ("pan",) if spectral in ("P", "PAN") else _band_names(path, root, count)
    return _Image(
        folder,
        file,
        spectral,
        re.sub(r"\W", "", mission + text("MISSION_INDEX").upper()),
        _time(text("IMAGING_DATE"), text("IMAGING_TIME")),
        (rows, columns),
        bands,
        _nodata(root),
        _calibrations(root, bands),
        _unopened(folder, path, tiles) if mission == "PER" else "",
    )


def _unopened(folder: Folder, path: str, tiles: Sequence[str]) -> str:
    """Return the path of the one TIFF of an image whose DIM file GDAL does not open."""
    if len(tiles) > 1:
        raise KsdiffError(f"{path}: has {len(tiles)} tiles; join them first (gdalbuildvrt) and name PAN and MS")
    return folder.at(folder.find(tiles[0]) or tiles[0])


def _check_tiles(folder: Folder, path: str, root: ElementTree.Element) -> list[str]:
    """Return the names of an image's files, which are there."""
    tiles = [element.get("href") or "" for element in root.iterfind(".//Data_File/DATA_FILE_PATH")]
    if not tiles:
        raise KsdiffError(f"{path}: names no image file (DATA_FILE_PATH); fetch it again")
    for tile in tiles:
        if "/" not in tile and folder.find(tile) is None:
            raise KsdiffError(f"{path}: its image file {tile} is missing; fetch the product again")
    if any((root.findtext(f".//{name}") or "0").strip() not in ("", "0") for name in ("OVERLAP_ROW", "OVERLAP_COL")):
        raise KsdiffError(f"{path}: its tiles overlap, which is not supported; join them first and name PAN and MS")
    return tiles


def _band_names(path: str, root: ElementTree.Element, count: int) -> tuple[str, ...]:
    """Name the bands in the file's order: by their index where it is given, else by the order of display."""
    order: list[str] = []
    for listed in root.iterfind(".//Raster_Index_List"):
        pairs = [((one.findtext("BAND_INDEX") or "").strip(), one.findtext("BAND_ID") or "") for one in listed]
        order += [band.strip().upper() for _, band in sorted(pairs)]
    if not order and (display := root.find(".//Band_Display_Order")) is not None:
        shown = [(display.findtext(channel) or "").strip().upper() for channel in _CHANNELS]
        order = list(dict.fromkeys(band for band in shown if band))
        # older files show three of four bands
        order += [band for band in ("B0", "B1", "B2", "B3") if band not in order and count == 4 and len(order) == 3]
    if not order:
        return ("",) * count
    if len(order) != count:
        raise KsdiffError(f"{path}: says {count} bands but names {', '.join(order)}; fetch the product again")
    return tuple(_NAMES.get(band, band) for band in order)


def _calibrations(root: ElementTree.Element, bands: Sequence[str]) -> tuple[Calibration | None, ...]:
    """Return what the bands' DN stand for: L = DN / GAIN + BIAS, in products whose radiometry is the sensor's."""
    if (root.findtext(".//RADIOMETRIC_PROCESSING") or "BASIC").strip().upper() != "BASIC":
        return ()

    def by_band(element: str, value: str) -> dict[str, float | None]:
        found = ((one.findtext("BAND_ID") or "", one.findtext(value)) for one in root.iter(element))
        return {_NAMES.get(band.strip().upper(), "pan"): radiometry.number(text) for band, text in found}

    gains, biases = by_band("Band_Radiance", "GAIN"), by_band("Band_Radiance", "BIAS")
    irradiances = by_band("Band_Solar_Irradiance", "VALUE")
    elevations = [angle for one in root.iter("SUN_ELEVATION") if (angle := radiometry.number(one.text)) is not None]
    elevation = sum(elevations) / len(elevations) if elevations else None
    when = radiometry.read_time(f"{root.findtext('.//IMAGING_DATE')}T{root.findtext('.//IMAGING_TIME')}")
    distance = radiometry.sun_distance(when) if when else None
    return tuple(
        radiometry.calibrate(1 / gain if (gain := gains.get(band)) else None, biases.get(band), irradiances.get(band),
                             elevation, distance)
        for band in bands
    )  # fmt: skip


def _nodata(root: ElementTree.Element) -> float | None:
    for special in root.iterfind(".//Special_Value"):
        if (special.findtext("SPECIAL_VALUE_TEXT") or "").strip().upper() == "NODATA":
            return whole_number((special.findtext("SPECIAL_VALUE_COUNT") or "").strip())
    return None


def _time(date: str, time: str) -> float | None:
    try:
        taken = datetime.fromisoformat(f"{date}T{time.rstrip('Z')}")
    except ValueError:
        return None
    return (taken.replace(tzinfo=None) - datetime(2000, 1, 1)).total_seconds()
