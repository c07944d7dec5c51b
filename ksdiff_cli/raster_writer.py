"""Writing a GeoTIFF beside its target, with the pair's metadata, and moving it there when it is whole."""

import logging
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import rasterio
from numpy.typing import NDArray
from rasterio.control import GroundControlPoint
from rasterio.enums import ColorInterp, Interleaving
from rasterio.errors import NotGeoreferencedWarning
from rasterio.windows import Window

from ksdiff_cli.errors import KsdiffError
from ksdiff_cli.raster import ScenePair
from ksdiff_cli.raster_format import PixelFormat, ms_bands
from ksdiff_cli.raster_layout import has_geotransform
from ksdiff_cli.raster_open import first_line, is_from_gdal

Array = NDArray[Any]

BLOCK = 256
"""Side of the output's blocks, in pixels."""
_SIDECARS = (".aux.xml", ".ovr", ".msk")
_COLOURS = {"red": ColorInterp.red, "green": ColorInterp.green, "blue": ColorInterp.blue}
# per-file facts of the input that are not true of the output
_STALE_TAGS = ("TIFFTAG_", "STATISTICS_", "KSDIFF_", "AREA_OR_POINT", "METADATATYPE")


def check_output(output: Path, inputs: Sequence[str], overwrite: bool) -> None:
    """Refuse an output that could not be written in the end, before any work.

    Raises:
        KsdiffError: it exists (without ``overwrite``), is one of the inputs, is no TIFF by its name, or its folder
            does not exist or cannot be written.
    """
    if output.suffix.lower() not in {".tif", ".tiff"}:
        raise KsdiffError(f"{output}: the output is a GeoTIFF; let its name end in .tif")
    folder = output.parent
    if folder.exists() and not folder.is_dir():
        raise KsdiffError(f"{output}: cannot be made, {folder} is a file, not a folder")
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


@contextmanager
def new_raster(
    output: Path, pair: ScenePair, pixels: PixelFormat, creation: Mapping[str, str], tags: Mapping[str, str]
) -> Iterator[Any]:
    """Open a new GeoTIFF on the pair's output grid; it appears under its name when the block ends well.

    Args:
        output: target; the file grows under a temporary name in the same folder.
        pair: the inputs, whose metadata the output carries.
        pixels: data type and nodata.
        creation: GDAL creation options, which replace the defaults.
        tags: further metadata.

    Yields:
        The rasterio dataset, open for writing.

    Raises:
        KsdiffError: the file cannot be written, or GDAL does not know a creation option.
    """
    partial = output.with_name(f".{output.name}.{os.getpid()}.partial")
    profile = _profile(pair, pixels, creation)
    try:
        try:
            with warnings.catch_warnings(), _creation_warnings() as complaints:
                warnings.simplefilter("ignore", NotGeoreferencedWarning)
                dataset = rasterio.open(partial, "w", **profile)
            with dataset:
                if complaints:
                    raise KsdiffError(f"--co: {complaints[0]}")
                _write_metadata(dataset, pair, tags)
                yield dataset
            _check_whole(partial, sparse="SPARSE_OK" in profile)
        except Exception as error:
            if not isinstance(error, OSError) and not is_from_gdal(error):
                raise
            raise KsdiffError(f"{output}: cannot be written ({first_line(error)})") from error
        for suffix in _SIDECARS:
            output.with_name(output.name + suffix).unlink(missing_ok=True)  # of the file that is replaced
            if (sidecar := partial.with_name(partial.name + suffix)).exists():
                sidecar.replace(output.with_name(output.name + suffix))
        partial.replace(output)
    finally:
        for suffix in ("", *_SIDECARS):
            partial.with_name(partial.name + suffix).unlink(missing_ok=True)


def write_rows(dataset: Any, top: int, values: Array, valid: Array, pixels: PixelFormat) -> None:
    """Encode and write whole rows, a row of blocks at a time.

    Args:
        dataset: open for writing.
        top: scene row of the first one.
        values: (bands, rows, width) float32, DN.
        valid: (rows, width) bool.
        pixels: how values are stored.
    """
    rows, width = valid.shape
    for start in range(0, rows, BLOCK):
        part = slice(start, min(start + BLOCK, rows))
        window = Window(0, top + start, width, part.stop - start)
        dataset.write(pixels.encode(values[:, part], valid[part]), window=window)


def _check_whole(path: Path, sparse: bool) -> None:
    """Make sure that every block is in the file: closing swallows the errors of the last writes (a full disk).

    Args:
        path: the closed file.
        sparse: whether empty blocks may be left out.

    Raises:
        OSError: some are not.
    """
    end = path.stat().st_size
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        dataset = rasterio.open(path)
    with dataset:
        bands = dataset.indexes if dataset.interleaving == Interleaving.band else (1,)
        for band in bands:
            for (row, col), _ in dataset.block_windows(band):
                start = dataset.get_tag_item(f"BLOCK_OFFSET_{col}_{row}", "TIFF", band)
                size = dataset.get_tag_item(f"BLOCK_SIZE_{col}_{row}", "TIFF", band)
                if start is None or size is None:
                    if sparse:
                        continue
                    start, size = end, 1  # a block that was never written
                if int(start) + int(size) > end:
                    raise OSError("the file ends too early; is the disk full?")


def _profile(pair: ScenePair, pixels: PixelFormat, creation: Mapping[str, str]) -> dict[str, Any]:
    given = {name.upper(): value for name, value in creation.items()}
    defaults = {
        "TILED": "YES",
        "BLOCKXSIZE": str(BLOCK),
        "BLOCKYSIZE": str(BLOCK),
        "COMPRESS": "DEFLATE",
        "BIGTIFF": "IF_SAFER",
    }
    if given.get("TILED", "YES").upper() not in {"YES", "TRUE", "ON", "1"}:
        del defaults["BLOCKXSIZE"], defaults["BLOCKYSIZE"]
    if given.get("COMPRESS", "DEFLATE").upper() == "DEFLATE":
        defaults["ZLEVEL"] = "1"  # a third of the default level's time, for 1% more bytes on real scenes
    # differences of neighbours compress better; only these codecs take a predictor
    if given.get("COMPRESS", "DEFLATE").upper() in {"DEFLATE", "LZW", "ZSTD"}:
        defaults["PREDICTOR"] = "3" if pixels.dtype.kind == "f" else "2"
    profile: dict[str, Any] = {
        "driver": "GTiff",
        "height": pair.shape[0],
        "width": pair.shape[1],
        "count": pair.bands,
        "dtype": pixels.dtype.name,
        "nodata": pixels.nodata,
    }
    if has_geotransform(pair.pan):
        profile |= {"crs": pair.pan.crs, "transform": pair.transform}
    elif not _only_gcps(pair):
        profile["crs"] = pair.pan.crs
    return profile | defaults | given


def _write_metadata(dataset: Any, pair: ScenePair, tags: Mapping[str, str]) -> None:
    """Carry over what is still true of the output: PAN's geometry, MS's bands."""
    bands = ms_bands(pair)
    shared = set.intersection(*(set(source.tags().items()) for source in pair.ms))
    kept = {name: value for name, value in shared if not name.startswith(_STALE_TAGS)}
    point = pair.pan.tags().get("AREA_OR_POINT")
    # GDAL moves the GCPs of a file whose pixels are points by a pixel, each time that it writes them
    if point and not _only_gcps(pair):
        kept["AREA_OR_POINT"] = point
    dataset.update_tags(**kept, **tags)
    dataset.descriptions = tuple(
        source.descriptions[band - 1] or named.name or None
        for (source, band), named in zip(bands, pair.scene.ms, strict=True)
    )
    dataset.colorinterp = _colours(pair)
    dataset.scales = tuple(source.scales[band - 1] for source, band in bands)
    dataset.offsets = tuple(source.offsets[band - 1] for source, band in bands)
    dataset.units = tuple(source.units[band - 1] or "" for source, band in bands)
    for number, (source, band) in enumerate(bands, start=1):
        dataset.update_tags(number, **{k: v for k, v in source.tags(band).items() if not k.startswith(_STALE_TAGS)})
    _write_sensor_geometry(dataset, pair)


def _write_sensor_geometry(dataset: Any, pair: ScenePair) -> None:
    """Carry over PAN's RPC and GCPs, moved to the first pixel of the output."""
    row, col = pair.origin
    if rpcs := pair.pan.rpcs:
        rpcs.line_off -= row
        rpcs.samp_off -= col
        dataset.rpcs = rpcs
    if _only_gcps(pair):
        gcps, crs = pair.pan.gcps
        moved = [GroundControlPoint(p.row - row, p.col - col, p.x, p.y, p.z, p.id, p.info) for p in gcps]
        dataset.gcps = (moved, crs)


def _only_gcps(pair: ScenePair) -> bool:
    """Say whether PAN has GCPs and no geotransform: a GeoTIFF cannot hold both."""
    return bool(pair.pan.gcps[0]) and not has_geotransform(pair.pan)


def _colours(pair: ScenePair) -> tuple[ColorInterp, ...]:
    """MS's colour interpretation; where MS has none, that of the bands' names, so that viewers show true colours."""
    own = [source.colorinterp[band - 1] for source, band in ms_bands(pair)]
    plain = {ColorInterp.gray, ColorInterp.undefined, ColorInterp.palette, ColorInterp.alpha}
    if set(own) <= plain:
        names = [source.name.lower() for source in pair.scene.ms]
        if sorted(name for name in names if name in _COLOURS) == sorted(_COLOURS):
            return tuple(_COLOURS.get(name, ColorInterp.undefined) for name in names)
        return (ColorInterp.gray, *[ColorInterp.undefined] * (len(own) - 1))
    return tuple(ColorInterp.undefined if colour in plain else colour for colour in own)


@contextmanager
def _creation_warnings() -> Iterator[list[str]]:
    """Collect GDAL's complaints about creation options, which rasterio only logs."""
    complaints: list[str] = []

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            message = record.getMessage()
            if "creation option" in message or "COMPRESS" in message:
                complaints.append(message.partition(" in ")[2] or message)

    handler, logger = Collector(logging.WARNING), logging.getLogger("rasterio._env")
    logger.addHandler(handler)
    try:
        yield complaints
    finally:
        logger.removeHandler(handler)
