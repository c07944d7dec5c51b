"""Outputs of sharpening: refused early where they could not be written, opened in any of the formats, fed by rows."""

import os
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Literal

from numpy.typing import NDArray

from ksdiff_cli.errors import KsdiffError
from ksdiff_cli.raster import ScenePair
from ksdiff_cli.raster_cog import new_cog
from ksdiff_cli.raster_format import PixelFormat
from ksdiff_cli.raster_geotiff import RasterTarget, new_geotiff
from ksdiff_cli.raster_tiles import check_tiles, new_tiles

Array = NDArray[Any]

Format = Literal["GTiff", "COG", "VRT"]
"""Of an output: GeoTIFF, cloud optimized GeoTIFF (with overviews), or a virtual raster with a folder of GeoTIFFs."""


def check_output(output: Path, inputs: Sequence[str], overwrite: bool, format: Format = "GTiff") -> None:
    """Refuse an output that could not be written in the end, before any work.

    Raises:
        KsdiffError: it is not called as its format is, its folder of tiles is in the way, or see :func:`check_place`.
    """
    _check_name(output, format)
    check_place(output, inputs, overwrite)
    if format == "VRT":
        check_tiles(output, inputs, overwrite)


def check_place(output: Path, inputs: Sequence[str], overwrite: bool) -> None:
    """Refuse a file that could not be written in the end, whatever it holds.

    Raises:
        KsdiffError: it exists (without ``overwrite``), is one of the inputs, or its folder does not exist or cannot be
            written.
    """
    folder = output.parent
    if folder.exists() and not folder.is_dir():
        raise KsdiffError(f"{output}: cannot be made, {folder} is a file, not a folder; choose another place")
    if not folder.is_dir():
        raise KsdiffError(f"{output}: the folder {folder} does not exist; make it first")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise KsdiffError(f"{output}: the folder {folder} cannot be written to; choose another")
    if output.is_dir():
        raise KsdiffError(f"{output}: is a folder; name the file to write")
    if any(Path(path).exists() and output.exists() and output.samefile(path) for path in inputs):
        raise KsdiffError(f"{output}: is one of the inputs; choose another name")
    if output.exists() and not overwrite:
        raise KsdiffError(f"{output}: exists already; choose another name or give --overwrite")


def new_raster(
    output: Path,
    pair: ScenePair,
    pixels: PixelFormat,
    creation: Mapping[str, str],
    tags: Mapping[str, str],
    format: Format = "GTiff",
    tile: int = 1024,
) -> AbstractContextManager[RasterTarget]:
    """Open a new raster on the pair's output grid; it appears under its name when the block ends well.

    Args:
        output: target; what is written grows under temporary names in the same folder.
        pair: the inputs, whose metadata the output carries; for a part of the scene cut by ``crop_pair``.
        pixels: data type and nodata.
        creation: GDAL creation options, which replace the defaults.
        tags: further metadata.
        format: of the output. All formats hold the same pixels and the same metadata, statistics included.
        tile: side of the tiles of a virtual raster, in pixels; rounded up to whole blocks.

    Returns:
        A context that yields what rows are written to.

    Raises:
        KsdiffError: the output cannot be written, or GDAL does not know a creation option.
    """
    if format == "VRT":
        return new_tiles(output, pair, pixels, creation, tags, tile)
    return (new_cog if format == "COG" else new_geotiff)(output, pair, pixels, creation, tags)


def space_needed(format: Format, stored: int) -> int:
    """Return the most bytes that an output takes on its disk while it is written, temporary files included.

    Args:
        format: of the output.
        stored: bytes of its pixels without compression; compression is not counted on.
    """
    # incompressible blocks grow a little; a COG is made from a GeoTIFF beside it, and its overviews lie there too
    share = {"GTiff": 1.02, "VRT": 1.02, "COG": 1.02 * (1 + 4 / 3 + 1 / 3)}[format]
    return int(share * stored) + (1 << 20)


def _check_name(output: Path, format: Format) -> None:
    suffix = output.suffix.lower()
    if str(output) == "-":
        raise KsdiffError("-: a raster cannot be written to standard output; name a file")
    if format == "VRT":
        if suffix != ".vrt":
            raise KsdiffError(f"{output}: the output is a virtual raster; let its name end in .vrt")
    elif suffix not in {".tif", ".tiff"}:
        hint = ", or give --format VRT" if suffix == ".vrt" else ""
        raise KsdiffError(f"{output}: the output is a GeoTIFF; let its name end in .tif{hint}")
