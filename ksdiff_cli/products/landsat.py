"""Landsat 7, 8 and 9 level-1 product folders, Collection 1 and 2: one TIFF a band, ``*_B2.TIF``, and ``*_MTL.txt``."""

import re
from collections import defaultdict
from pathlib import Path

from ksdiff_cli.raster import BandSource, Scene
from ksdiff_cli.sensors import SENSORS, Sensor

LOOKS_FOR = "Landsat 7/8/9 level-1 bands (*_B8.TIF with *_B2.TIF …)"

_PAN = 8
_OLI = {2: "blue", 3: "green", 4: "red", 5: "nir", 6: "swir1", 7: "swir2"}
_ETM = {1: "blue", 2: "green", 3: "red", 4: "nir", 5: "swir1", 7: "swir2"}
# the reflective 30 m bands, in the order of Sensor.bands
_MS = {"L7": _ETM, "L8": _OLI, "L9": _OLI}
_FILL = 0.0  # level-1 fill value (USGS data format control books); most files do not declare it

_BAND_FILE = re.compile(r"(?P<product>.*)_B(?P<band>\d{1,2})\.TIFF?", re.IGNORECASE)
# LC08_…, LE07_… (Collections), LC8…, LE7… (before them)
_PRODUCT = re.compile(r"L[CEO]0?(?P<number>[789])", re.IGNORECASE)
_SPACECRAFT = re.compile(r'SPACECRAFT_ID\s*=\s*"LANDSAT_?(?P<number>[789])"', re.IGNORECASE)


def read(folder: Path, sensor: Sensor | None) -> list[Scene]:
    """Return the Landsat scenes whose band files lie in ``folder``; [] when there are none.

    Args:
        folder: an existing folder.
        sensor: stands for what file names and MTL say, if given.
    """
    products: dict[str, dict[int, Path]] = defaultdict(dict)
    for path in sorted(folder.iterdir()):
        if match := _BAND_FILE.fullmatch(path.name):
            products[match["product"]][int(match["band"])] = path
    scenes = []
    for product, files in products.items():
        own = _find_sensor(folder, product) or (sensor if sensor and sensor.name in _MS else None)
        if own is None or _PAN not in files:
            continue
        ms = tuple(_source(files[band], name) for band, name in _MS[own.name].items() if band in files)
        if ms:
            name = folder.resolve().name if len(products) == 1 else product
            scenes.append(Scene(name, _source(files[_PAN], "pan"), ms, sensor or own))
    return scenes


def _source(path: Path, name: str) -> BandSource:
    return BandSource(str(path), 1, name, _FILL)


def _find_sensor(folder: Path, product: str) -> Sensor | None:
    """Say which Landsat took a product, by its name or else by its MTL file."""
    if match := _PRODUCT.match(product):
        return SENSORS[f"L{match['number']}"]
    for path in sorted(folder.iterdir()):
        if path.name.lower() == f"{product}_mtl.txt".lower():
            match = _SPACECRAFT.search(path.read_text(errors="replace"))
            return SENSORS[f"L{match['number']}"] if match else None
    return None
