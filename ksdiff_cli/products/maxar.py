"""Maxar products (WorldView-2/3/4, QuickBird, GeoEye-1, IKONOS): ``.IMD`` with a TIFF, or with tiles and a ``.TIL``.

Facts are from DigitalGlobe's Imagery Support Data (ISD) Documentation 1.1.2: an IMD and a TIL file is text of lines
``key = value;`` in groups; groups BAND_C … BAND_N2 name the bands in the file's order.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from ksdiff_cli.errors import KsdiffError
from ksdiff_cli.products import radiometry
from ksdiff_cli.products.fields import first_fields, read_fields, whole_number
from ksdiff_cli.products.folder import Folder
from ksdiff_cli.products.mosaic import ImageTile, join_tiles
from ksdiff_cli.products.product import NoPairError, file_bands, fit_sensor, side_by_side
from ksdiff_cli.raster.bands import BandSource, Calibration
from ksdiff_cli.raster.open import open_raster
from ksdiff_cli.raster.pair import Scene
from ksdiff_cli.raster.synthesis import Group, GuidedScene
from ksdiff_cli.sensors import SENSORS, Sensor, by_any_name

LOOKS_FOR = "Maxar .IMD files of PAN and MS"

_EIGHT = ("C", "B", "G", "Y", "R", "RE", "N", "N2")
_FOUR = ("B", "G", "R", "N")
_SWIR = tuple(f"S{number}" for number in range(1, 9))
_IMAGES = (".tif", ".tiff", ".ntf", ".jp2")
# order, item and part, e.g. 052299001010_01_P001
_PART = re.compile(r"(?<!\d)\d{9,20}_\d{1,9}_P\d{1,9}", re.IGNORECASE)
_BLACKFILL = 0.0  # DN beside the image in products on a map


@dataclass(frozen=True)
class _Image:
    """One IMD file: a PAN or an MS image."""

    folder: Folder
    stem: str
    satellite: str
    band_id: str
    bands: tuple[str, ...]
    """Letters of the bands in the file's order."""
    shape: tuple[int, int]
    part: str
    """Order, item and part of the delivery, which PAN and MS share."""
    sharpened: bool
    on_map: bool
    calibrations: tuple[Calibration | None, ...] = ()
    """Of the bands, in the file's order."""

    @property
    def imd(self) -> str:
        return self.folder.at(self.folder.find(f"{self.stem}.IMD") or self.stem)


def read(folder: Folder, sensor: Sensor | None) -> list[Scene | GuidedScene]:
    """Return the scenes whose IMD files lie in ``folder`` or the folders in it (``…_PAN``, ``…_MUL``); [] without any.

    Args:
        folder: where to look.
        sensor: stands for what the IMD files say, if given.

    Raises:
        KsdiffError: an IMD or TIL file is cut short or contradicts the images; NoPairError: PAN or MS is missing.
    """
    images = [
        _read_imd(place, name)
        for place in (folder, *folder.folders)
        for name in place.files
        if name.lower().endswith(".imd")
    ]
    images = side_by_side(folder, images, lambda image: image.band_id == "P")
    if not images:
        return []
    # short-wave infrared (bandId All-S) has other pixels and no PAN of its own: MS guides it
    infrared = [image for image in images if set(image.bands) <= set(_SWIR)]
    wanted = [image for image in images if not image.sharpened and set(image.bands) <= {"P", *_EIGHT}]
    parts: dict[str, list[_Image]] = defaultdict(list)
    for image in wanted:
        parts[image.part].append(image)
    if len(wanted) == 2:
        # PAN and MS ordered one by one have different numbers
        parts = {wanted[0].part: wanted}
    pairs = [(part, *pair) for part, group in sorted(parts.items()) for pair in _pairs(folder, part, group)]
    if not pairs and len(wanted) == len(infrared) == 1 and wanted[0].band_id != "P":
        return [_guided(wanted[0].part or folder.name, _scene_ms(wanted[0], sensor)[0], infrared)]
    if not pairs:
        raise _refusal(folder, images)
    shared = Counter(part for part, *_ in pairs)
    names = [f"{part}_{number}" if shared[part] > 1 else part for number, (part, *_) in enumerate(pairs, 1)]
    scenes: list[Scene | GuidedScene] = []
    for name, (part, pan, ms) in zip(names, pairs, strict=True):
        own = infrared if len(pairs) == 1 else [image for image in infrared if image.part == part]
        scenes.append(_scene(name, pan, ms, own, sensor))
    return scenes


def _pairs(folder: Folder, part: str, group: Sequence[_Image]) -> list[tuple[_Image, _Image]]:
    pans = sorted((image for image in group if image.band_id == "P"), key=lambda image: image.stem)
    others = sorted((image for image in group if image.band_id != "P"), key=lambda image: image.stem)
    if pans and others and len(pans) != len(others):
        raise KsdiffError(
            f"{folder.path}: part {part} has {len(pans)} PAN and {len(others)} MS images; name PAN and MS one by one"
        )
    return list(zip(pans, others, strict=True)) if pans and others else []


def _refusal(folder: Folder, images: Sequence[_Image]) -> NoPairError:
    names = ", ".join(sorted(image.stem for image in images)[:3])
    if any(image.satellite == "WV01" for image in images):
        return NoPairError(f"{folder.path}: WorldView-1 takes PAN only ({names}); there is no MS to sharpen")
    if all(image.sharpened for image in images):
        return NoPairError(f"{folder.path}: {names} is pan-sharpened already; order PAN and MS apart (a bundle)")
    missing = "MS" if any(image.band_id == "P" for image in images) else "PAN"
    return NoPairError(
        f"{folder.path}: holds {names} but no {missing} image of that part; "
        "name the folder that holds both (…_PAN, …_MUL)"
    )


def _scene(name: str, pan: _Image, ms: _Image, infrared: Sequence[_Image], sensor: Sensor | None) -> Scene:
    if pan.satellite != ms.satellite:
        raise KsdiffError(
            f"{ms.imd}: is of {ms.satellite}, but its PAN {pan.imd} is of {pan.satellite}; they do not belong together"
        )
    sources, own = _scene_ms(ms, sensor)
    (source,) = _sources(pan, ["pan"])
    others: tuple[GuidedScene, ...] = ()
    if len(infrared) == 1:
        with suppress(KsdiffError):  # it is not what most people come for
            others = (_guided(name, sources, infrared),)
    return Scene(name, source, sources, own, others=others)


def _guided(name: str, guide: tuple[BandSource, ...], infrared: Sequence[_Image]) -> GuidedScene:
    """Return the bands of short-wave infrared, which those of MS guide."""
    (image,) = infrared
    names = [f"swir{band[1:]}" for band in image.bands]
    group = Group("swir", _sources(image, names), SENSORS["WV3SWIR"].with_bands(names))
    return GuidedScene(name, guide, (group,))


def _scene_ms(ms: _Image, sensor: Sensor | None) -> tuple[tuple[BandSource, ...], Sensor]:
    """Return the bands of an MS image, and the sensor with these alone."""
    own = sensor or by_any_name(ms.satellite)
    if own is None:
        raise KsdiffError(f"{ms.imd}: satId {ms.satellite} is no satellite that ksdiff knows; name one with --sensor")
    # the ISD's letters are the same for all satellites; what they stand for is the order of the sensor's bands
    letters = _EIGHT if ms.satellite in ("WV02", "WV03") else _FOUR
    known = by_any_name(ms.satellite)
    titles = dict(zip(letters, known.bands if known else letters, strict=False))
    strangers = [letter for letter in ms.bands if letter not in titles]
    if strangers:
        raise KsdiffError(f"{ms.imd}: {ms.satellite} has no band {strangers[0]}; fetch the product again")
    names = [titles[letter] for letter in ms.bands]
    return _sources(ms, names), fit_sensor(own, names)


def _sources(image: _Image, names: Sequence[str]) -> tuple[BandSource, ...]:
    path = _image_path(image)
    fill = _BLACKFILL if image.on_map else None
    return file_bands(path, names, image.imd, image.shape, fill, image.calibrations)


def _read_imd(folder: Folder, name: str) -> _Image:
    text = folder.read_text(name)
    fields = first_fields(text, ";")
    for key in ("bandId", "satId", "numRows", "numColumns"):
        if not fields.get(key):
            raise KsdiffError(f"{folder.at(name)}: has no {key}; the IMD file is cut short, fetch it again")
    rows, columns = whole_number(fields["numRows"]), whole_number(fields["numColumns"])
    if rows is None or columns is None:
        raise KsdiffError(f"{folder.at(name)}: numRows or numColumns is no number; fetch the IMD file again")
    stem, band_id = name[: -len(".IMD")], fields["bandId"]
    named = (value for key, value in read_fields(text) if key == "BEGIN_GROUP")
    groups = tuple(name.removeprefix("BAND_") for name in named if re.fullmatch(r"BAND_\w+", name))
    if not groups:
        raise KsdiffError(f"{folder.at(name)}: names no band (BEGIN_GROUP = BAND_…); fetch the IMD file again")
    # a bandId such as RGB or NRG spells the file's order
    spelled = tuple(band_id) if len(band_id) == len(groups) > 1 and set(band_id) <= set(_FOUR) else groups
    if set(spelled) != set(groups) or (band_id == "P") != (groups == ("P",)):
        raise KsdiffError(
            f"{folder.at(name)}: bandId {band_id} and the bands it describes ({', '.join(groups)}) contradict each "
            "other; fetch the product again"
        )
    found = _PART.search(fields.get("productOrderId", "")) or _PART.search(stem)
    return _Image(
        folder,
        stem,
        fields["satId"].upper(),
        band_id,
        spelled,
        (rows, columns),
        found[0].upper() if found else "",
        fields.get("panSharpenAlgorithm", "None") not in ("None", ""),
        "BEGIN_GROUP = MAP_PROJECTED_PRODUCT" in text,
        tuple(radiometry.maxar(text, fields["satId"].upper()).get(band) for band in spelled),
    )


def _image_path(image: _Image) -> str:
    folder = image.folder
    if til := folder.find(f"{image.stem}.TIL"):
        return _join(image, til)
    for suffix in _IMAGES:
        if name := folder.find(image.stem + suffix):
            return folder.at(name)
    raise KsdiffError(
        f"{image.imd}: neither its image {image.stem}.TIF nor a list of its tiles {image.stem}.TIL lies beside it; "
        "fetch the product again"
    )


def _join(image: _Image, til: str) -> str:
    """Return the one file that a TIL names, or a VRT of its tiles."""
    folder, path = image.folder, image.folder.at(til)
    text = folder.read_text(til)
    # all but the first piece begin with a group's name
    groups = (piece.partition("END_GROUP") for piece in re.split(r"\bBEGIN_GROUP\b", text)[1:])
    tiles = [
        _tile(folder, path, dict(read_fields(inside, ";")))
        for inside, ended, _ in groups
        if ended and re.match(r"\s*=\s*TILE_\d", inside)
    ]
    announced = whole_number(first_fields(text, ";").get("numTiles", ""))
    if announced is None or not tiles or len(tiles) != announced:
        total = "an unknown number of" if announced is None else announced
        raise KsdiffError(f"{path}: describes {len(tiles)} of {total} tiles; the TIL file is cut short, fetch it again")
    corner = max(tile.row + tile.height for tile in tiles), max(tile.col + tile.width for tile in tiles)
    if corner != image.shape or sum(tile.height * tile.width for tile in tiles) < image.shape[0] * image.shape[1]:
        raise KsdiffError(
            f"{path}: its tiles do not cover the {image.shape[1]} x {image.shape[0]} pixels of {image.imd}; "
            "fetch the product again"
        )
    if len(tiles) == 1:
        return tiles[0].path
    return join_tiles(image.stem, tiles, image.shape, _rpcs(path))


def _tile(folder: Folder, til: str, fields: dict[str, str]) -> ImageTile:
    try:
        name = fields["filename"]
        edges = [whole_number(fields[key]) for key in ("ULRowOffset", "ULColOffset", "LRRowOffset", "LRColOffset")]
        top, left, bottom, right = (edge for edge in edges if edge is not None)
    except (KeyError, ValueError):
        raise KsdiffError(
            f"{til}: a tile has no filename or offsets; the TIL file is damaged, fetch it again"
        ) from None
    own = folder.find(name)
    if own is None:
        raise KsdiffError(f"{til}: its tile {name} is missing; fetch the product again")
    return ImageTile(folder.at(own), top, left, bottom - top + 1, right - left + 1)


def _rpcs(til: str) -> object | None:
    """Return the whole image's RPCs, which GDAL finds through the TIL file; a tile alone does not have them."""
    try:
        with open_raster(til) as dataset:
            rpcs: object | None = dataset.rpcs
            return rpcs
    except KsdiffError:
        return None
