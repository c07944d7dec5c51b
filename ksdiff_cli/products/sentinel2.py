"""Sentinel-2 products, level 1C and 2A: ``….SAFE`` with ``MTD_MSIL1C.xml``, one JPEG 2000 file a band.

There is no PAN: the bands of 10 m guide those of 20 and 60 m. Facts are from ESA's Sentinel-2 Products Specification
Document (S2-PDGS-TAS-DI-PSD, issues 14 and 15): reflectance is (DN + offset) / quantification value, the offset since
processing baseline 04.00; DN 0 means no data; the scene classification of level 2A has class 0 where there is none.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from xml.etree import ElementTree

from ksdiff_cli.errors import KsdiffError
from ksdiff_cli.products.folder import Folder
from ksdiff_cli.products.mosaic import resample
from ksdiff_cli.products.product import NoPairError
from ksdiff_cli.raster.bands import BandSource, Calibration, QualityBand
from ksdiff_cli.raster.open import open_raster
from ksdiff_cli.raster.synthesis import Group, GuidedScene
from ksdiff_cli.sensors import SENSORS, Sensor

LOOKS_FOR = "a Sentinel-2 product (….SAFE with MTD_MSIL1C.xml or MTD_MSIL2A.xml)"

_MAIN = re.compile(r"(?:MTD_MSI(?:L1C|L2A)|S2\w_\w+_MTD_SAF(?:L1C|L2A)_\w+)\.xml", re.IGNORECASE)
_SAFE = re.compile(r"S2\w_\w+\.SAFE", re.IGNORECASE)
# L1C …_B05.jp2; L2A …_B05_20m.jp2
_IMAGE = re.compile(r".*_(?P<band>B(?:0[1-9]|1[0-2]|8A))(?:_(?P<metres>10|20|60)m)?\.jp2", re.IGNORECASE)
_CLASSES = re.compile(r".*_?SCL_(?P<metres>20|60)m\.jp2", re.IGNORECASE)
_CLOUDS = re.compile(r"MSK_CLASSI_B00\.jp2", re.IGNORECASE)
_METRES = {
    10: ("B02", "B03", "B04", "B08"),
    20: ("B05", "B06", "B07", "B8A", "B11", "B12"),
    60: ("B01", "B09", "B10"),
}
_NUMBERS = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B10", "B11", "B12")
"""Of the bands in metadata (bandId, physicalBand), from 0."""
_QUANTIFICATION = 10_000.0
_NODATA = 0.0
_NO_CLASS = ((255, 0),)  # of the scene classification: no data
_CLOUDY = tuple((255, code) for code in (3, 8, 9, 10))  # shadows; clouds of medium and high probability; cirrus
_DEEP = 4  # folders below the product's own


@dataclass
class _Files:
    """The files of one product."""

    images: dict[tuple[str, int], str] = field(default_factory=dict)
    """By band and metres; 0 where the name does not tell."""
    classes: dict[int, str] = field(default_factory=dict)
    """The scene classification by metres."""
    clouds: str = ""
    granules: set[str] = field(default_factory=set)


@dataclass(frozen=True)
class _Facts:
    """What the metadata says of the values."""

    quantification: float = _QUANTIFICATION
    offsets: Mapping[str, float] = field(default_factory=dict)
    """By band, DN."""
    nodata: float = _NODATA
    wavelengths: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """By band, nm."""


def read(folder: Folder, sensor: Sensor | None) -> list[GuidedScene]:
    """Return the scene of a ``.SAFE`` folder; [] of any other one.

    Args:
        folder: where to look.
        sensor: stands for Sentinel-2's, if given.

    Raises:
        KsdiffError: the metadata is cut short.
        NoPairError: there is no metadata, or there are no bands of 10 m, or no coarser ones.
    """
    for name in folder.files:
        if _MAIN.fullmatch(name):
            return [_read_product(folder, name, sensor)]
    if _SAFE.fullmatch(folder.name):
        raise NoPairError(
            f"{folder.path}: its metadata, MTD_MSIL1C.xml or MTD_MSIL2A.xml, is missing; fetch the product again"
        )
    return []


def _read_product(folder: Folder, metadata: str, sensor: Sensor | None) -> GuidedScene:
    files = _Files()
    for place in _below(folder, _DEEP):
        _sort(place, files)
    if len(files.granules) > 1:
        raise NoPairError(
            f"{folder.path}: holds {len(files.granules)} granules, as products before 2016-12 did; name the bands "
            "of one of them file by file"
        )
    facts = _read_facts(folder, metadata)
    if missing := [band for band in _METRES[10] if _image(files, band, 10) is None]:
        raise NoPairError(
            f"{folder.path}: the image of {missing[0]} at 10 m is missing, which guides the coarser bands; fetch the "
            "product again"
        )
    own = sensor or SENSORS["S2"]
    guide = tuple(_source(files, band, 10, facts) for band in _METRES[10])
    groups = []
    for metres in (20, 60):
        bands = [band for band in _METRES[metres] if _image(files, band, metres) is not None]
        if bands:
            sources = tuple(_source(files, band, metres, facts) for band in bands)
            groups.append(Group(f"{metres}m", sources, own.with_bands(bands), _quality(files, metres, sources[0])))
    if not groups:
        raise NoPairError(
            f"{folder.path}: holds no bands of 20 or 60 m, so nothing is left to sharpen; fetch the product again"
        )
    name = re.sub(r"\.SAFE$", "", folder.name, flags=re.IGNORECASE)
    return GuidedScene(name, guide, tuple(groups), with_guide=True, order=_NUMBERS)


def _below(folder: Folder, depth: int) -> Iterator[Folder]:
    yield folder
    if depth:
        for child in folder.folders:
            yield from _below(child, depth - 1)


def _sort(place: Folder, files: _Files) -> None:
    """Note the images of one folder."""
    inside = re.search(r"GRANULE[/\\]([^/\\]+)", place.path, re.IGNORECASE)
    for name in place.files:
        if match := _IMAGE.fullmatch(name):
            if inside is None or "IMG_DATA" not in place.path.upper():
                continue  # previews and masks bear such names, too
            files.granules.add(inside[1])
            files.images.setdefault((match["band"].upper(), int(match["metres"] or 0)), place.at(name))
        elif match := _CLASSES.fullmatch(name):
            files.classes.setdefault(int(match["metres"]), place.at(name))
        elif _CLOUDS.fullmatch(name):
            files.clouds = place.at(name)


def _image(files: _Files, band: str, metres: int) -> str | None:
    return files.images.get((band, metres)) or files.images.get((band, 0))


def _source(files: _Files, band: str, metres: int, facts: _Facts) -> BandSource:
    path = _image(files, band, metres)
    assert path is not None
    scale = 1 / facts.quantification
    nm = facts.wavelengths.get(band) or SENSORS["S2"].with_bands([band]).wavelengths[0]
    offset = facts.offsets.get(band, 0.0) * scale
    known = Calibration(reflectance=(scale, offset))
    return BandSource(path, 1, band, facts.nodata, scale=scale, offset=offset, wavelengths=nm, calibration=known)


def _quality(files: _Files, metres: int, source: BandSource) -> QualityBand | None:
    """Return the classification or cloud mask on a group's grid; None where the product has none that GDAL reads."""
    if metres in files.classes:
        return QualityBand(files.classes[metres], _NO_CLASS, _CLOUDY)
    if not files.clouds:
        return None
    with open_raster(source.path) as dataset:
        shape = dataset.shape
    # bands of 0 and 1: opaque clouds, cirrus, snow
    return QualityBand(resample(files.clouds, shape), (), ((255, 1),))


def _read_facts(folder: Folder, metadata: str) -> _Facts:
    path = folder.at(metadata)
    try:
        root = ElementTree.fromstring(folder.read_text(metadata))
    except ElementTree.ParseError as error:
        raise KsdiffError(f"{path}: is not whole XML ({error}); fetch the product again") from None
    names = ("QUANTIFICATION_VALUE", "BOA_QUANTIFICATION_VALUE", "L2A_BOA_QUANTIFICATION_VALUE")
    scale = next((_number(one.text) for one in _named(root, *names) if _number(one.text)), None)
    offsets = {}
    for one in _named(root, "RADIO_ADD_OFFSET", "BOA_ADD_OFFSET"):
        number, value = one.get("band_id", ""), _number(one.text)
        if number.isdecimal() and int(number) < len(_NUMBERS) and value is not None:
            offsets[_NUMBERS[int(number)]] = value
    spans = {}
    for one in _named(root, "Spectral_Information"):
        number = one.get("bandId", "")
        edges = [_number(each.text) for each in one.iterfind("./Wavelength/*") if _local(each) in ("MIN", "MAX")]
        if number.isdecimal() and int(number) < len(_NUMBERS) and len(edges) == 2 and None not in edges:
            spans[_NUMBERS[int(number)]] = (float(edges[0] or 0), float(edges[1] or 0))
    nodata = _NODATA
    for one in _named(root, "Special_Values"):
        texts = {_local(each): (each.text or "").strip() for each in one}
        index = _number(texts.get("SPECIAL_VALUE_INDEX"))
        if texts.get("SPECIAL_VALUE_TEXT", "").upper() == "NODATA" and index is not None:
            nodata = index
    return _Facts(scale or _QUANTIFICATION, offsets, nodata, spans)


def _named(root: ElementTree.Element, *names: str) -> Iterator[ElementTree.Element]:
    """Go through the elements of some names, whatever their namespaces."""
    return (element for element in root.iter() if _local(element) in names)


def _local(element: ElementTree.Element) -> str:
    return element.tag.rpartition("}")[2]


def _number(text: str | None) -> float | None:
    try:
        value = float((text or "").strip()[:40])
    except ValueError:
        return None
    return value if abs(value) < 1e9 else None
