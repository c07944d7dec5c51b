"""Products that hold PAN or MS alone, or both in pixels of one size: nothing can be sharpened, and a line says why.

Asked last, when no family found a pair: what is known of a camera is of use then only.
"""

import re

from ksdiff_cli.products.folder import Folder
from ksdiff_cli.products.product import NoPairError
from ksdiff_cli.raster.pair import Scene
from ksdiff_cli.sensors import Sensor

LOOKS_FOR = ""
"""Nothing that people could put there: it only says why a folder holds no scene."""

_MS_ONLY = "takes MS only; there is no PAN to sharpen with"
_ALONE: tuple[tuple[str, str], ...] = (
    (r"AMAZONIA_1_WFI_.+\.tiff?", f"the camera WFI of Amazonia-1 {_MS_ONLY}"),
    (r"(?:CBERS_4A?|CALL\d+)_(?:A?WFI|MUX)_.+\.tiff?", f"the cameras MUX, WFI and AWFI of CBERS: each {_MS_ONLY}"),
    (r"CBERS_4A?_(?:PAN|WPM)_.+_(?:compose|\w*psharp)\.tiff?", "is composed already; fetch the bands one by one"),
    (r"VRSS-1_WMC-?\d?_.+\.tif", f"the camera WMC of VRSS-1 {_MS_ONLY}"),
    (r"GF4_(?:PMS|IRS)_.+\.tiff?", "GF-4 takes PAN and MS in pixels of one size, so PAN cannot make MS finer"),
    (
        r"(?:U2|AB)\w+_L1T\.(?:tif|dim)|AB_MS4_.+\.tif",
        "is MS of UK-DMC2 or Alsat-1B without PAN; name PAN and MS one by one",
    ),
    (r"\d{8}_\d{6}_SN\d+_.+\.(?:tif|vrt|json|geojson)", f"NewSat {_MS_ONLY}"),
    (r"BAND_META\.TXT", f"the LISS cameras of ResourceSat: each {_MS_ONLY}"),
    (r"\d+_P_MET\.TXT", "is PAN of CartoSat-2, without MS; name PAN and MS one by one"),
    (r"BSG-\d+-.+", "BlackSky delivers colour in PAN's pixels; there is nothing to sharpen"),
    (r"(?:fr_)?0041_0102_.+\.tiff?", "Resurs-P: PAN and MS are not told apart by name; name them one by one"),
    (r"VIS1_PSH_.+\.tif", "is pan-sharpened already; order PAN and MS apart (a bundle)"),
)
_IMAGES = (".tif", ".tiff", ".jp2", ".ntf", ".img", ".zip")
_METADATA = ("_mtl.txt", ".imd", ".til", ".rpb", ".xml", ".dim")
_PATTERNS = tuple((re.compile(pattern, re.IGNORECASE), line) for pattern, line in _ALONE)


def read(folder: Folder, sensor: Sensor | None) -> list[Scene]:
    """Return no scene.

    Raises:
        NoPairError: a file here is of a camera that is known to have no pair, or describes images that are not here.
    """
    for name in folder.files:
        for pattern, line in _PATTERNS:
            if pattern.fullmatch(name):
                raise NoPairError(f"{folder.at(name)}: {line}")
    if not any(name.lower().endswith(_IMAGES) for name in folder.files):
        for name in folder.files:
            if name.lower().endswith(_METADATA):
                raise NoPairError(f"{folder.at(name)}: describes an image that is not here; fetch the whole product")
    return []
