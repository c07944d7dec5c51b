"""Creation options of the files we write: defaults by measurement, checked against this build of GDAL."""

import logging
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
import rasterio
import rasterio.shutil
from numpy.typing import NDArray
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.io import MemoryFile

from ksdiff_cli.errors import KsdiffError
from ksdiff_cli.output.pixels import PixelFormat
from ksdiff_cli.process import usable_threads
from ksdiff_cli.raster.open import first_line, is_from_gdal

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
    if pixels.stored_bits:
        given.setdefault("NBITS", str(pixels.stored_bits))
    if codec in _WITH_PREDICTOR and "NBITS" not in given:  # differences of neighbours compress better
        options["PREDICTOR"] = "3" if pixels.dtype.kind == "f" else "2"
    return options | given | _alone()


def cog_options(creation: Mapping[str, str], bits: int | None = None) -> dict[str, str]:
    """Return the creation options of a cloud optimized GeoTIFF: the given ones, and defaults for the others.

    Args:
        creation: given.
        bits: of each value in the GeoTIFF that it is made from, which GDAL keeps; None for all of the type.
    """
    given = {name.upper(): value for name, value in creation.items()}
    codec = given.get("COMPRESS", default_codec()).upper()
    options = {"COMPRESS": codec, "BIGTIFF": "IF_SAFER", "NUM_THREADS": _threads(), "OVERVIEW_RESAMPLING": "AVERAGE"}
    if codec in _WITH_PREDICTOR - {"LZW"}:
        options["LEVEL"] = "1"
    if codec in _WITH_PREDICTOR and bits is None and "NBITS" not in given:
        options["PREDICTOR"] = "YES"
    return options | given | _alone()


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


def fit_codec(cog: bool, creation: Mapping[str, str], pixels: PixelFormat, bands: int, holes: bool) -> PixelFormat:
    """Say how pixels must be stored with creation options that :func:`check_creation` has seen.

    Args:
        cog: see :func:`check_creation`, as the other arguments.
        creation: see there.
        pixels: see there.
        bands: see there.
        holes: whether some pixel is invalid.

    Returns:
        ``pixels``, or what a lossy codec makes of them.
    """
    if not creation or not _changes_values(cog, creation, pixels, bands):
        return pixels
    return replace(pixels, lossy=True, nodata=pixels.nodata if holes else None)


def _changes_values(cog: bool, creation: Mapping[str, str], pixels: PixelFormat, bands: int) -> bool:
    """Say whether values come back from a file as others than were written: by a lossy codec, or fewer bits."""
    random = np.random.default_rng(0)
    if pixels.dtype.kind == "f":
        image = random.normal(size=(bands, 32, 32)).astype(pixels.dtype)
    else:
        low, high = pixels.limits
        image = random.integers(low, high, (bands, 32, 32), pixels.dtype, endpoint=True)
    _, found = _try(cog, creation, replace(pixels, nodata=None), image)
    return not np.array_equal(found, image)


def _complaint(cog: bool, creation: Mapping[str, str], pixels: PixelFormat, bands: int) -> str | None:
    """Write a small raster as :func:`check_creation` says, and return what GDAL complains about, in its own words."""
    image = (np.indices((bands, 32, 32)).sum(0) % 2).astype(pixels.dtype)  # fits any type; zeros may be left out
    try:
        complaints, _ = _try(cog, creation, pixels, image)
    except Exception as error:
        if not is_from_gdal(error):
            raise
        return first_line(error)
    # with NBITS GDAL looks at what lies in a block beyond the image, too
    return next((text for text in complaints if "pixels clipped" not in text), None)


def _try(
    cog: bool, creation: Mapping[str, str], pixels: PixelFormat, image: NDArray[Any]
) -> tuple[list[str], NDArray[Any]]:
    """Write an image (bands, h, w) in memory; return GDAL's warnings and what is read back."""
    bands, height, width = image.shape
    shape = {"width": width, "height": height, "count": bands, "dtype": pixels.dtype.name, "nodata": pixels.nodata}
    # what fails in a thread of GDAL's own is printed by GDAL and not told to us
    options = geotiff_options(pixels, {} if cog else creation) | {"NUM_THREADS": "1"}
    with warnings.catch_warnings(), creation_warnings(every=True) as complaints, MemoryFile() as memory:
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with memory.open(driver="GTiff", **shape, **options) as file:
            file.write(image)
        if not cog:
            with memory.open() as file:
                return complaints, file.read()
        options = cog_options(creation, pixels.stored_bits) | {"NUM_THREADS": "1"}
        with MemoryFile(ext=".tif") as copy:
            rasterio.shutil.copy(memory.name, copy.name, driver="COG", **options)
            with copy.open() as file:
                return complaints, file.read()


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


def _alone() -> dict[str, str]:
    """Return what keeps GDAL from waiting for threads that a fork has lost."""
    return {"NUM_THREADS": "1"} if usable_threads(None) else {}
