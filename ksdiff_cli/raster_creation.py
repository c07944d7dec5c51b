"""Creation options of the files we write: defaults by measurement, checked against this build of GDAL."""

import logging
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache

import numpy as np
import rasterio
import rasterio.shutil
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.io import MemoryFile

from ksdiff_cli.errors import KsdiffError
from ksdiff_cli.raster_format import PixelFormat
from ksdiff_cli.raster_open import first_line, is_from_gdal

BLOCK = 256
"""Side of the blocks of a GeoTIFF, in pixels."""
_WITH_PREDICTOR = {"DEFLATE", "LZW", "ZSTD"}


def geotiff_options(pixels: PixelFormat, creation: Mapping[str, str]) -> dict[str, str]:
    """Return the creation options of a GeoTIFF: the given ones, and defaults for what they leave open."""
    given = {name.upper(): value for name, value in creation.items()}
    codec = given.get("COMPRESS", default_codec()).upper()
    options = {"TILED": "YES", "COMPRESS": codec, "BIGTIFF": "IF_SAFER", "NUM_THREADS": _threads()}
    if given.get("TILED", "YES").upper() in {"YES", "TRUE", "ON", "1"}:
        options |= {"BLOCKXSIZE": str(BLOCK), "BLOCKYSIZE": str(BLOCK)}
    # the fastest levels: on real scenes the default ones take three times as long for 2 to 5 % fewer bytes
    options |= {"DEFLATE": {"ZLEVEL": "1"}, "ZSTD": {"ZSTD_LEVEL": "1"}}.get(codec, {})
    if codec in _WITH_PREDICTOR and "NBITS" not in given:  # differences of neighbours compress better
        options["PREDICTOR"] = "3" if pixels.dtype.kind == "f" else "2"
    return options | given


def cog_options(creation: Mapping[str, str]) -> dict[str, str]:
    """Return the creation options of a cloud optimized GeoTIFF: the given ones, and defaults for the others."""
    given = {name.upper(): value for name, value in creation.items()}
    codec = given.get("COMPRESS", default_codec()).upper()
    options = {"COMPRESS": codec, "BIGTIFF": "IF_SAFER", "NUM_THREADS": _threads(), "OVERVIEW_RESAMPLING": "AVERAGE"}
    if codec in _WITH_PREDICTOR - {"LZW"}:
        options["LEVEL"] = "1"
    if codec in _WITH_PREDICTOR and "NBITS" not in given:
        options["PREDICTOR"] = "YES"
    return options | given


def check_creation(cog: bool, creation: Mapping[str, str], pixels: PixelFormat, bands: int) -> None:
    """Try creation options on a small raster in memory, before hours of work.

    Args:
        cog: whether they are GDAL's COG driver's, else the GTiff driver's.
        creation: given by a person; without any nothing is tried.
        pixels: of the output.
        bands: of the output.

    Raises:
        KsdiffError: GDAL does not know an option, or its value, or cannot store such pixels with it.
    """
    if not creation:
        return
    given = " ".join(f"{name}={value}" for name, value in creation.items())
    why = _complaint(cog, creation, pixels, bands)
    if why is not None:
        why = re.sub(r"^\S*\.tif(, band \d+)?: ", "", why).removesuffix(".")  # without the file in memory
        raise KsdiffError(
            f"--co {given}: {why} (the output has {bands} bands of {pixels.dtype.name}); see GDAL's page of the driver"
        )


def _complaint(cog: bool, creation: Mapping[str, str], pixels: PixelFormat, bands: int) -> str | None:
    """Write a small raster as :func:`check_creation` says, and return what GDAL complains about, in its own words."""
    shape = {"width": 32, "height": 32, "count": bands, "dtype": pixels.dtype.name, "nodata": pixels.nodata}
    # what fails in a thread of GDAL's own is printed by GDAL and not told to us
    options = {} if cog else geotiff_options(pixels, creation) | {"NUM_THREADS": "1"}
    image = (np.indices((bands, 32, 32)).sum(0) % 2).astype(pixels.dtype)  # fits any type; zeros may be left out
    try:
        with warnings.catch_warnings(), creation_warnings(every=True) as complaints, MemoryFile() as memory:
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            with memory.open(driver="GTiff", **shape, **options) as file:
                file.write(image)
            if cog:
                options = cog_options(creation) | {"NUM_THREADS": "1"}
                with MemoryFile(ext=".tif") as copy:
                    rasterio.shutil.copy(memory.name, copy.name, driver="COG", **options)
    except Exception as error:
        if not is_from_gdal(error):
            raise
        return first_line(error)
    # with NBITS GDAL looks at what lies in a block beyond the image, too
    return next((text for text in complaints if "pixels clipped" not in text), None)


@lru_cache
def default_codec() -> str:
    """Return the best lossless codec that this GDAL has: ZSTD, or DEFLATE in builds without it.

    ZSTD at level 1 takes a third of the time of DEFLATE at level 1 for files of about the same size.
    """
    with warnings.catch_warnings(), creation_warnings() as complaints, MemoryFile() as memory:
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        try:
            with memory.open(driver="GTiff", width=16, height=16, count=1, dtype="uint8", COMPRESS="ZSTD") as file:
                file.write(np.zeros((1, 16, 16), np.uint8))
        except RasterioError:
            return "DEFLATE"
    return "DEFLATE" if complaints else "ZSTD"


@contextmanager
def creation_warnings(every: bool = False) -> Iterator[list[str]]:
    """Collect GDAL's complaints about creation options, which rasterio only logs.

    Args:
        every: take whatever it complains about.
    """
    complaints: list[str] = []

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            message = record.getMessage()
            if every or "creation option" in message or "COMPRESS" in message:
                complaints.append(message.partition(" in ")[2] or message)

    handler, logger = Collector(logging.WARNING), logging.getLogger("rasterio._env")
    logger.addHandler(handler)
    try:
        yield complaints
    finally:
        logger.removeHandler(handler)


def _threads() -> str:
    """Return how many threads compress: as many as GDAL is told to use, else all."""
    told = rasterio.env.getenv().get("GDAL_NUM_THREADS") if rasterio.env.hasenv() else None
    return str(told or "ALL_CPUS")
