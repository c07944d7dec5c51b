"""Outputs of sharpening: refused early where they could not be written, opened in any of the formats, fed by rows."""

from collections.abc import Container, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from types import MappingProxyType

from ksdiff_cli.checks import Format
from ksdiff_cli.errors import KsdiffError
from ksdiff_cli.files.names import BESIDE, PARTS, SIDECARS, Inputs, check_free, check_location, check_place
from ksdiff_cli.output.geotiff import RasterTarget, new_cog, new_geotiff
from ksdiff_cli.output.pixels import PixelFormat
from ksdiff_cli.output.vrt import check_tiles, new_tiles
from ksdiff_cli.raster.pair import ScenePair

_WRITES = {"TFW": ".tfw", "WORLDFILE": ".wld", "RPB": ".RPB", "RPCTXT": "_RPC.TXT", "PROFILE": ".RPB"}
"""Which file beside an output a creation option may have GDAL write."""


def check_output(
    output: Path,
    inputs: Inputs,
    overwrite: bool,
    format: Format = "GTiff",
    creation: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Refuse an output that could not be written in the end, or not without a loss, before any work.

    Args:
        output: the raster to be.
        inputs: what may not be lost.
        overwrite: whether it may take the place of what is there.
        format: of the output.
        creation: GDAL creation options, which say what files it writes beside the output.

    Raises:
        KsdiffError: it is not called as its format is, its folder of tiles or a file that belongs to it is in the way,
            or see :func:`ksdiff_cli.files.names.check_place`.
    """
    check_location(output)
    _check_name(output, format)
    check_place(output, inputs, overwrite)
    ends = {_WRITES[name] for name in map(str.upper, creation) if name in _WRITES}
    if format == "VRT":
        check_tiles(output, inputs, overwrite)
        check_sidecars(output, inputs, overwrite, ())  # the tiles have them, in their folder
    else:
        check_sidecars(output, inputs, overwrite, ends.union(PARTS))


def check_sidecars(output: Path, inputs: Inputs, overwrite: bool, beside: Container[str] = PARTS) -> None:
    """Refuse an output if files are there that would be taken for parts of it, or be replaced with it.

    Args:
        output: the raster to be.
        inputs: what may not be lost.
        overwrite: whether they may be.
        beside: which of :data:`ksdiff_cli.files.names.BESIDE` will be written, or count as parts of the output.

    Raises:
        KsdiffError: see above.
    """
    ends = [*((output.name, end) for end in SIDECARS), *((output.stem, end) for end in BESIDE if end in beside)]
    for path in (output.with_name(name + end) for name, end in ends):
        if inputs.find(path):
            raise KsdiffError(f"{path}: belongs to one of the inputs, {output} would replace it; choose another name")
        if path.is_dir():
            raise KsdiffError(f"{path}: is a folder where {output} has a file; choose another name")
        check_free(path, overwrite, output)


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
