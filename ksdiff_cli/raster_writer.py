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
from ksdiff_cli.whole_file import is_same, unwritable

Array = NDArray[Any]

_LONGEST = 255
"""Bytes of a file's name, where the system does not say."""
_GROWING = len("...1234567.whole.tif.1234567.partial.aux.xml")
"""Bytes that the longest of an output's temporary names has besides the output's own: where a COG is made."""

Format = Literal["GTiff", "COG", "VRT"]
"""Of an output: GeoTIFF, cloud optimized GeoTIFF (with overviews), or a virtual raster with a folder of GeoTIFFs."""


def check_output(output: Path, inputs: Sequence[str], overwrite: bool, format: Format = "GTiff") -> None:
    """Refuse an output that could not be written in the end, before any work.

    Raises:
        KsdiffError: it is not called as its format is, its folder of tiles is in the way, or see :func:`check_place`.
    """
    check_location(output)
    _check_name(output, format)
    check_place(output, inputs, overwrite)
    if format == "VRT":
        check_tiles(output, inputs, overwrite)


def check_place(output: Path, inputs: Sequence[str], overwrite: bool) -> None:
    """Refuse a file that could not be written in the end, whatever it holds.

    Raises:
        KsdiffError: it exists (without ``overwrite``), is one of the inputs, or see :func:`check_location`.
    """
    check_location(output)
    if any(is_same(output, path) for path in inputs):
        raise KsdiffError(f"{output}: is one of the inputs; choose another name")
    if output.exists() and not overwrite:
        raise KsdiffError(f"{output}: exists already; choose another name or give --overwrite")


def check_location(output: Path) -> None:
    """Refuse what no file can be written to.

    Raises:
        KsdiffError: it is a folder, its own folder does not exist or cannot be written, or its name is too long.
    """
    folder = output.parent
    try:
        there, is_folder = folder.exists(), folder.is_dir()
    except OSError as error:
        raise unwritable(output, error) from None
    if there and not is_folder:
        raise KsdiffError(f"{output}: cannot be made, {folder} is a file, not a folder; choose another place")
    if not is_folder:
        raise KsdiffError(f"{output}: the folder {folder} does not exist; make it first")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise KsdiffError(f"{output}: the folder {folder} cannot be written to; choose another")
    _check_length(output)
    if output.is_dir():
        raise KsdiffError(f"{output}: is a folder; name the file to write")


def _check_length(output: Path) -> None:
    """Refuse a name that leaves no room for those under which the output grows; names end at bytes, not letters."""
    try:
        longest = os.pathconf(output.parent, "PC_NAME_MAX") if hasattr(os, "pathconf") else _LONGEST
    except (OSError, ValueError):
        longest = _LONGEST
    surplus = len(os.fsencode(output.name)) + _GROWING - longest
    if surplus > 0:
        raise KsdiffError(
            f"{output}: its name is too long for the temporary files beside it; make it {surplus} "
            f"{'byte' if surplus == 1 else 'bytes'} shorter"
        )


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
