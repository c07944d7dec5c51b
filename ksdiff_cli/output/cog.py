"""Cloud optimized GeoTIFFs: GDAL makes one out of a finished GeoTIFF, with overviews."""

import glob
import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import rasterio
import rasterio.shutil
from rasterio.env import GDALVersion
from rasterio.errors import NotGeoreferencedWarning

from ksdiff_cli.errors import KsdiffError
from ksdiff_cli.output.creation import cog_options, creation_warnings
from ksdiff_cli.output.geotiff import (
    GeoTiff,
    check_whole,
    explained,
    growing,
    new_geotiff,
    read_statistics,
    write_statistics,
)
from ksdiff_cli.output.pixels import PixelFormat
from ksdiff_cli.raster.pair import ScenePair


@contextmanager
def new_cog(
    output: Path, pair: ScenePair, pixels: PixelFormat, creation: Mapping[str, str], tags: Mapping[str, str]
) -> Iterator[GeoTiff]:
    """Open a new cloud optimized GeoTIFF; see :func:`~ksdiff_cli.output.writer.new_raster`.

    GDAL can write one only from a whole image: rows go to a plain GeoTIFF beside the output, which is converted and
    removed in the end.
    """
    whole = output.with_name(f".{output.name}.{os.getpid()}.whole.tif")
    try:
        with explained(output, whole), new_geotiff(whole, pair, pixels, {}, tags) as target:
            yield target
        with growing(output) as partial:
            copy_cog(whole, partial, creation, pixels.stored_bits)
            if pixels.lossy:  # only then it is known what is in the file; to change its metadata would undo its layout
                with rasterio.open(whole, "r+") as dataset:
                    write_statistics(dataset, read_statistics(partial))
                copy_cog(whole, partial, creation, pixels.stored_bits)
    finally:
        for left in whole.parent.glob(glob.escape(whole.name) + "*"):
            left.unlink(missing_ok=True)


def copy_cog(source: Path, path: Path, creation: Mapping[str, str], bits: int | None = None) -> None:
    """Write a raster as a cloud optimized GeoTIFF with overviews by averaging; metadata and statistics are kept.

    GDAL puts the overviews beside ``path`` while it works.

    Args:
        source: anything GDAL opens.
        path: to write, whatever its suffix.
        creation: options of GDAL's COG driver that replace the defaults.
        bits: of each value of the source; None for all that its type has.

    Raises:
        KsdiffError: the driver does not know a creation option.
        OSError: the disk is full.
    """
    options = cog_options(creation, bits)
    with warnings.catch_warnings(), creation_warnings() as complaints:
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(source) as dataset:
            # by itself GDAL copies such a domain of bands, not of the image
            if "IMAGERY" in dataset.tag_namespaces() and GDALVersion.runtime().at_least("3.8"):
                options = {"COPY_SRC_MDD": "YES"} | options
        rasterio.shutil.copy(source, path, driver="COG", **options)
    if complaints:
        raise KsdiffError(f"--co: {complaints[0]}")
    check_whole(path, sparse="SPARSE_OK" in options)
