"""Cloud optimized GeoTIFFs: GDAL makes one out of a finished GeoTIFF, with overviews."""

import glob
import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import rasterio
import rasterio.shutil
from rasterio.errors import NotGeoreferencedWarning

from ksdiff_cli.errors import KsdiffError
from ksdiff_cli.raster import ScenePair
from ksdiff_cli.raster_creation import cog_options, creation_warnings
from ksdiff_cli.raster_format import PixelFormat
from ksdiff_cli.raster_geotiff import GeoTiff, check_whole, explained, growing, new_geotiff


@contextmanager
def new_cog(
    output: Path, pair: ScenePair, pixels: PixelFormat, creation: Mapping[str, str], tags: Mapping[str, str]
) -> Iterator[GeoTiff]:
    """Open a new cloud optimized GeoTIFF; see :func:`raster_writer.new_raster`.

    GDAL can write one only from a whole image: rows go to a plain GeoTIFF beside the output, which is converted and
    removed in the end.
    """
    whole = output.with_name(f".{output.name}.{os.getpid()}.whole.tif")
    try:
        with explained(output, whole), new_geotiff(whole, pair, pixels, {}, tags) as target:
            yield target
        with growing(output) as partial:
            copy_cog(whole, partial, creation)
    finally:
        for left in whole.parent.glob(glob.escape(whole.name) + "*"):
            left.unlink(missing_ok=True)


def copy_cog(source: Path, path: Path, creation: Mapping[str, str]) -> None:
    """Write a raster as a cloud optimized GeoTIFF with overviews by averaging; metadata and statistics are kept.

    GDAL puts the overviews beside ``path`` while it works.

    Args:
        source: anything GDAL opens.
        path: to write, whatever its suffix.
        creation: options of GDAL's COG driver that replace the defaults.

    Raises:
        KsdiffError: the driver does not know a creation option.
        OSError: the disk is full.
    """
    options = cog_options(creation)
    with warnings.catch_warnings(), creation_warnings() as complaints:
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        rasterio.shutil.copy(source, path, driver="COG", **options)
    if complaints:
        raise KsdiffError(f"--co: {complaints[0]}")
    check_whole(path, sparse="SPARSE_OK" in options)
