"""GaoFen products: ``*-PAN1.tiff`` and ``*-MSS1.tiff`` (GF-1, GF-2) or ``*-PAN.tiff`` and ``*-MUX.tiff``, with XML.

GF-7 looks back with PAN and MS (``*-BWDPAN.tiff``, ``*-BWDMUX.tiff``), and ahead with another PAN, which is left out.
Names and fields are CRESDA's, the distributor's: level-1A images in sensor geometry with RPCs in ``.rpb`` files.
"""

import re
from collections import defaultdict
from xml.etree import ElementTree

from ksdiff_cli.errors import KsdiffError
from ksdiff_cli.products.folder import Folder
from ksdiff_cli.products.product import NoPairError, file_bands, fit_sensor, read_each
from ksdiff_cli.raster.bands import BandSource
from ksdiff_cli.raster.pair import Scene
from ksdiff_cli.sensors import SENSORS, Sensor, by_any_name

LOOKS_FOR = "GaoFen images (*-PAN1.tiff with *-MSS1.tiff)"

_IMAGE = re.compile(
    r"(?P<scene>(?P<satellite>GF\d[A-D]?)_.+)-(?P<view>BWD)?(?P<kind>PAN|MSS|MUX)(?P<camera>\d?)\.tiff?", re.IGNORECASE
)
_WIDE = re.compile(r"GF\d_(?:WFV\d?|WFI)_.+\.tiff?", re.IGNORECASE)
_NAMES = {"1": "blue", "2": "green", "3": "red", "4": "nir"}


def read(folder: Folder, sensor: Sensor | None) -> list[Scene]:
    """Return the GaoFen scenes whose images lie in ``folder``; [] when there are none.

    Args:
        folder: where to look.
        sensor: stands for what names and XML say, if given.

    Raises:
        KsdiffError: an XML file is cut short or contradicts the images; NoPairError: PAN or MS is missing.
    """
    products: dict[tuple[str, str], dict[str, str]] = defaultdict(dict)
    for name in folder.files:
        if match := _IMAGE.fullmatch(name):
            role = "pan" if match["kind"].upper() == "PAN" else "ms"
            products[match["scene"], match["camera"]][role] = name
    whole = [(scene, files) for (scene, _), files in sorted(products.items()) if {"pan", "ms"} <= set(files)]
    scenes = read_each(whole, lambda product: _scene(folder, *product, sensor))
    if products and not scenes:
        (scene, _), files = min(products.items())
        missing = "MS (*-MSS*.tiff)" if "pan" in files else "PAN (*-PAN*.tiff)"
        raise NoPairError(f"{folder.at(scene)}: has no {missing}; fetch the product again")
    if not products and (wide := next((name for name in folder.files if _WIDE.fullmatch(name)), None)):
        raise NoPairError(
            f"{folder.at(wide)}: the wide field of view cameras (WFV) take MS only; there is no PAN to sharpen with"
        )
    return scenes


def _scene(folder: Folder, scene: str, files: dict[str, str], sensor: Sensor | None) -> Scene:
    satellite = scene.partition("_")[0].upper()
    # GF-1B, -1C and -1D carry the camera of GF-1; of others nothing is known
    own = sensor or by_any_name(satellite) or by_any_name(satellite[:3]) or SENSORS["generic"]
    (pan,) = _sources(folder, files["pan"], satellite)
    ms = _sources(folder, files["ms"], satellite)
    return Scene(scene, pan, ms, fit_sensor(own, [source.name for source in ms]))


def _sources(folder: Folder, image: str, satellite: str) -> tuple[BandSource, ...]:
    match = _IMAGE.fullmatch(image)
    is_pan = match is not None and match["kind"].upper() == "PAN"
    stem = image.rpartition(".")[0]
    name, path = folder.find(f"{stem}.xml"), folder.at(f"{stem}.xml")
    fields: dict[str, str] = {}
    if name is not None:
        try:
            root = ElementTree.fromstring(folder.read_text(name))
        except ElementTree.ParseError as error:
            raise KsdiffError(f"{path}: is not whole XML ({error}); fetch it again") from None
        fields = {element.tag: (element.text or "").strip() for element in root.iter()}
        stated = fields.get("SatelliteID", "").upper()
        if not stated:
            raise KsdiffError(f"{path}: has no SatelliteID; it is no GaoFen product description, fetch it again")
        if stated.replace("-", "") != satellite:
            raise KsdiffError(
                f"{path}: names {stated}, but {image} is of {satellite} by its name; they do not belong together, "
                "fetch the product again"
            )
    if is_pan:
        names = ["pan"]
    else:
        # older files list PAN as band 1 or 5 too; MS bands are numbered from blue, 1 to 4
        numbers = [number.strip() for number in fields.get("Bands", "").split(",") if number.strip()]
        names = [_NAMES.get(number, f"band {number}") for number in numbers or _NAMES]
    return file_bands(folder.at(image), names, path if name else folder.at(image))
