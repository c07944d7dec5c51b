"""Products whose file names alone tell PAN from MS: one row a provider in :data:`NAMINGS`.

Facts are from deliveries and what their makers publish: INPE (CBERS), KARI (KOMPSAT, CAS500), Geosat, Airbus
(Vision-1), ABAE (VRSS), NAS of Belarus (BKA), Roscosmos (Kanopus-V), Planet (SkySat). In all of them DN 0 is no image.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from xml.etree import ElementTree

from ksdiff_cli.errors import KsdiffError
from ksdiff_cli.products import radiometry
from ksdiff_cli.products.folder import Folder
from ksdiff_cli.products.product import NoPairError, file_bands, fit_sensor, read_each, side_by_side
from ksdiff_cli.raster.bands import BandSource, Calibration
from ksdiff_cli.raster.open import open_raster
from ksdiff_cli.raster.pair import Scene
from ksdiff_cli.sensors import SENSORS, Sensor, by_any_name

LOOKS_FOR = "images named as CBERS, KOMPSAT, CAS500, GEOSAT-2, Vision-1, VRSS, BKA, Kanopus-V and SkySat name them"

_PAN = ("pan",)
_BGRN = ("blue", "green", "red", "nir")
_SHARPENED: tuple[str, ...] = ()
_ONE_BAND = {"B": ("blue",), "G": ("green",), "R": ("red",), "N": ("nir",)}
_NUMBERS = {str(number): (name,) for number, name in enumerate(_BGRN, start=1)}
_FILL = 0.0
_IMAGES = (".tif", ".tiff", ".jp2")
_COLOURS = {"blue": "blue", "green": "green", "red": "red", "nir": "nir", "near infrared": "nir"}


@dataclass(frozen=True)
class Naming:
    """How a provider names the images of a camera."""

    camera: str
    """For people."""
    image: re.Pattern[str]
    """A file's name without its ending. Groups: ``role``, with ``band`` after it if there is one; ``scene``,
    ``scene2`` and ``satellite``, as far as there are any, are the same for PAN and MS."""
    roles: Mapping[str, tuple[str, ...]]
    """What a role's files hold, in their order: PAN, some MS bands, or :data:`_SHARPENED`, which is neither."""
    sensor: str = ""
    """Its name, where ``satellite`` does not tell."""
    order: Callable[[str], list[str]] | None = None
    """Finds the names of a file's bands in its metadata; [] where that does not tell."""
    calibrate: Callable[[str], list[Calibration | None]] | None = None
    """Finds in the same metadata what the bands' DN stand for."""
    metadata: tuple[str, ...] = ()
    """How these metadata files are called, beside an image called ``{}``."""


@dataclass(frozen=True)
class _Image:
    folder: Folder
    file: str
    naming: Naming
    key: tuple[str, ...]
    """Satellite and scene."""
    role: str

    @property
    def path(self) -> str:
        return self.folder.at(self.file)

    @property
    def bands(self) -> tuple[str, ...]:
        return self.naming.roles[self.role]


def _tags(index: str, name: str) -> Callable[[str], list[str]]:
    """Return what finds bands in an XML text by the elements of their numbers and names."""

    def find(text: str) -> list[str]:
        root = ElementTree.fromstring(text)
        pairs = [(group.findtext(index), group.findtext(name)) for group in root.iter()]
        known = [(int(place), colour.strip().lower()) for place, colour in pairs if place and colour]
        return [_COLOURS.get(colour, colour) for _, colour in sorted(known)]

    return find


def _zones(text: str) -> list[str]:
    """Name bands by their spectral zones (µm) in a Roscosmos passport, which is no XML though it is called so."""
    zones = re.findall(r"^bSpectralZone = ([0-9.]{1,9}), ([0-9.]{1,9})\s*$", text, re.MULTILINE)
    middles = [(float(low) + float(high)) / 2 for low, high in zones]
    return [_BGRN[sum(middle > edge for edge in (0.5, 0.6, 0.72))] for middle in middles]


def _gains(text: str) -> list[Calibration | None]:
    """Return what DN stand for by a DIMAP 1 file: L = DN * PHYSICAL_GAIN + PHYSICAL_BIAS."""
    root = ElementTree.fromstring(text)
    elevation, distance = (
        radiometry.number(root.findtext(f".//{tag}")) for tag in ("SUN_ELEVATION", "EARTH_SUN_DISTANCE")
    )
    starts = (root.findtext(f".//{tag}") for tag in ("START_TIME", "IMAGING_START_TIME", "IMAGING_DATE"))
    when = radiometry.read_time(next(filter(None, starts), ""))
    bands = sorted(root.iter("Spectral_Band_Info"), key=lambda band: int(band.findtext("BAND_INDEX") or 0))
    distance = distance or (radiometry.sun_distance(when) if when else None)
    found: list[Calibration | None] = []
    for band in bands:
        gain, bias, irradiance = (
            radiometry.number(band.findtext(tag)) for tag in ("PHYSICAL_GAIN", "PHYSICAL_BIAS", "ESUN")
        )
        found.append(radiometry.calibrate(gain, bias, irradiance, elevation, distance))
    return found


_DIMAP_1 = _tags("BAND_INDEX", "BAND_DESCRIPTION")

# a row of its own for every camera that lies in one delivery with another's files
NAMINGS: tuple[Naming, ...] = (
    Naming(
        "CBERS-4A WPM",
        re.compile(r"CBERS_4A_(?P<role>WPM)_(?P<scene>\d{8}_\d+_\d+_L\w+?)_BAND(?P<band>[0-4])(?:_GRID_SURFACE)?"),
        {"WPM0": _PAN} | {f"WPM{band}": names for band, names in _NUMBERS.items()},
        "CBERS4A",
    ),
    Naming(
        "CBERS-4 PAN5M and PAN10M",
        re.compile(r"CBERS_4_(?P<role>PAN5M|PAN10M)_(?P<scene>\d{8}_\d+_\d+_L\w+?)_BAND(?P<band>[1-4])"),
        {"PAN5M1": _PAN, "PAN10M2": ("green",), "PAN10M3": ("red",), "PAN10M4": ("nir",)},
        "CBERS4",
    ),
    Naming(
        "KOMPSAT-3, KOMPSAT-3A and CAS500-1",
        re.compile(r"(?P<satellite>K3A?|C1)_(?P<scene>\d{14}_\d+_\d+_L\w+?)_(?P<role>P?[BGRN]|PS?)"),
        {"P": _PAN, **_ONE_BAND, **dict.fromkeys(("PS", "PB", "PG", "PR", "PN"), _SHARPENED)},
    ),
    Naming(
        "GEOSAT-2",
        re.compile(r"(?P<satellite>DE2)_(?P<role>PAN|MS4|PM4|PS3|PS4|PSH)_(?P<scene>L\w+)"),
        {"PAN": _PAN, "MS4": _BGRN[::-1], **dict.fromkeys(("PM4", "PS3", "PS4", "PSH"), _SHARPENED)},
        order=_DIMAP_1,
        calibrate=_gains,
        metadata=("{}.dim",),
    ),
    Naming(
        "Vision-1",
        re.compile(r"(?P<satellite>VIS1)_(?P<role>PAN|MS4|PSH|PMS4)_(?P<scene>\d{14}_\w+?_\w+?_\w{4})(?:_R\d+C\d+)?"),
        {"PAN": _PAN, "MS4": _BGRN, "PSH": _SHARPENED, "PMS4": _SHARPENED},
        order=_DIMAP_1,
        calibrate=_gains,
        metadata=("{}_Meta.xml", "DIM_{}_Meta.xml"),
    ),
    Naming(
        "VRSS-1 and VRSS-2",
        re.compile(
            r"(?P<satellite>VRSS-[12])_(?P<role>PAN|MSS)(?:-(?P<scene2>\d))?_(?P<scene>\d+_\d+_\d{8}_L\w+?)_\d+"
            r"(?:_(?P<band>[1-4]))?"
        ),
        {"PAN": _PAN, "MSS": _BGRN} | {f"MSS{band}": names for band, names in _NUMBERS.items()},
    ),
    Naming(
        "BKA",
        re.compile(r"(?P<scene>\d+-\d+)-(?P<role>PAN|MUL)-(?P<scene2>[A-Z]-.+)"),
        {"PAN": _PAN, "MUL": _BGRN},
        "KANOPUS",
        order=_tags("band_index", "band_info"),
        metadata=("{}_pasp-en.xml",),
    ),
    Naming(
        "Kanopus-V",
        re.compile(
            r"(?:fr_)?(?P<satellite>KV(?:IK|\d)|Kanopus-V(?:-IK|\d)?)_(?P<scene>(?:.*_)?)(?P<role>PSS|MSS|S)\d?"
            # of the two numbers at the end one is the file's
            r"(?:_(?!product$)(?:\d{6}_(?=\d{6}$))?(?P<scene2>.*?))?(?:_product)?"
        ),
        {"PSS": _PAN, "MSS": _BGRN, "S": _BGRN},
        "KANOPUS",
        order=_zones,
        metadata=("{}.xml",),
    ),
    Naming(
        "SkySat",
        re.compile(
            r"(?P<scene>\d{8}_\d{6}_ss\w+?)_(?:basic_)?(?P<role>PANCHROMATIC|ANALYTIC|PANSHARPENED)(?P<scene2>_dn)?",
            re.IGNORECASE,
        ),
        {"PANCHROMATIC": _PAN, "ANALYTIC": _BGRN, "PANSHARPENED": _SHARPENED},
        "generic",
    ),
)


def read(folder: Folder, sensor: Sensor | None) -> list[Scene]:
    """Return the scenes whose images lie in ``folder`` or the folders in it; [] when there are none.

    Args:
        folder: where to look.
        sensor: stands for what the names say, if given.

    Raises:
        KsdiffError: an image or its metadata is broken, or several could be the same band; NoPairError: PAN or MS is
            missing; BrokenError: this holds for some of the scenes.
    """
    found = [image for place in (folder, *folder.folders) for image in _images(place)]
    images = side_by_side(folder, found, lambda image: image.bands == _PAN)
    scenes: dict[tuple[str, ...], list[_Image]] = defaultdict(list)
    for image in images:
        scenes[image.naming.camera, *image.key].append(image)
    # files of the sharpened image may lie beside PAN and MS
    whole = [group for _, group in sorted(scenes.items()) if _PAN in (roles := [one.bands for one in group])
             and any(names not in (_PAN, _SHARPENED) for names in roles)]  # fmt: skip
    if images and not whole:
        raise _refusal(images)
    return read_each(whole, lambda group: _scene(group, sensor))


def _images(folder: Folder) -> Iterator[_Image]:
    for file in folder.files:
        if not file.lower().endswith(_IMAGES):
            continue
        for naming in NAMINGS:
            if match := naming.image.fullmatch(PurePath(file).stem):
                groups = match.groupdict()
                key = tuple(groups.get(name) or "" for name in ("satellite", "scene", "scene2"))
                role = groups["role"].upper() + (groups.get("band") or "")
                if role in naming.roles:
                    yield _Image(folder, file, naming, key, role)
                break


def _refusal(images: Sequence[_Image]) -> NoPairError:
    image = min(images, key=lambda one: (one.bands == _SHARPENED, one.path))
    if image.bands == _SHARPENED:
        return NoPairError(f"{image.path}: is pan-sharpened already; order PAN and MS apart (a bundle)")
    missing = "MS" if image.bands == _PAN else "PAN"
    return NoPairError(
        f"{image.path}: is an image of {image.naming.camera} whose {missing} is not here; put both into one folder, or "
        "name PAN and MS one by one"
    )


def _scene(images: Sequence[_Image], sensor: Sensor | None) -> Scene:
    """Make a scene of all images of one acquisition.

    Raises:
        KsdiffError: see :func:`read`.
    """
    by_role: dict[str, _Image] = {}
    for image in images:
        if image.bands and (other := by_role.setdefault(image.role, image)) is not image:
            raise KsdiffError(
                f"{image.path}: holds the same band as {other.file}; join tiles first (gdalbuildvrt), or name PAN and "
                "MS one by one"
            )
    order = list(images[0].naming.roles)
    ordered = sorted(by_role.values(), key=lambda one: order.index(one.role))
    pan = next(one for one in ordered if one.bands == _PAN)
    (source,) = _sources(pan)
    ms = tuple(band for one in ordered if one.bands != _PAN for band in _sources(one))
    with open_raster(source.path) as fine, open_raster(ms[0].path) as coarse:
        if fine.shape == coarse.shape and fine.transform == coarse.transform:
            raise NoPairError(
                f"{source.path}: has the pixels of its MS, which therefore cannot get any finer by it; take the "
                "provider's pan-sharpened image"
            )
    own = sensor or by_any_name(pan.key[0]) or SENSORS[pan.naming.sensor]
    satellite, *rest = pan.key
    parts = satellite or (own.name if own.name == pan.naming.sensor != "generic" else ""), *rest
    name = "_".join(part.strip("_") for part in parts if part.strip("_"))
    return Scene(name, source, ms, fit_sensor(own, [band.name for band in ms]))


def _sources(image: _Image) -> tuple[BandSource, ...]:
    names, said_by = list(image.bands), image.path
    stem = PurePath(image.file).stem.removesuffix("_product")
    stated = next((one for form in image.naming.metadata if (one := image.folder.find(form.format(stem)))), None)
    known: list[Calibration | None] = []
    if stated and image.naming.order:
        said_by, text = image.folder.at(stated), image.folder.read_text(stated)
        try:
            names = names if image.bands == _PAN else image.naming.order(text) or names
            known = image.naming.calibrate(text) if image.naming.calibrate else []
        except (ElementTree.ParseError, ValueError) as error:
            raise KsdiffError(f"{said_by}: is not whole XML ({error}); fetch it again") from None
    return file_bands(image.path, names, said_by, None, _FILL, known if len(known) == len(names) else ())
