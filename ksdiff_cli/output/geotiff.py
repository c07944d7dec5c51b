"""Writing a GeoTIFF beside its target, with the pair's metadata, and moving it there when it is whole."""

import glob
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import rasterio
import rasterio.shutil
from rasterio.enums import Interleaving
from rasterio.env import GDALVersion
from rasterio.errors import NotGeoreferencedWarning
from rasterio.windows import Window

from ksdiff_cli.errors import KsdiffError
from ksdiff_cli.files.names import BESIDE, PARTS, SIDECARS
from ksdiff_cli.files.writing import atomic_write, growing_name
from ksdiff_cli.numerics import Array
from ksdiff_cli.output.creation import cog_options, creation_warnings, geotiff_options
from ksdiff_cli.output.metadata import grid_profile, write_metadata
from ksdiff_cli.output.pixels import PixelFormat
from ksdiff_cli.output.statistics import BandStatistics
from ksdiff_cli.raster.open import first_line, is_from_gdal
from ksdiff_cli.raster.pair import ScenePair


class RasterTarget(Protocol):
    """An output that grows, whatever its format."""

    @property
    def block_shapes(self) -> Sequence[tuple[int, int]]:
        """(height, width) of every band's blocks: pieces are best made of whole ones, so that each is written once."""

    @property
    def empty(self) -> bool:
        """Whether none of the pixels written so far is valid."""

    def write(self, stored: Array, window: Window) -> None:
        """Write (bands, h, w) stored values, nodata where invalid, at a window of the output."""

    def update_tags(self, **tags: str) -> None:
        """Add metadata that is known only now."""


class GeoTiff:
    """A :class:`RasterTarget` that is one open file; counts the statistics of what it is given."""

    def __init__(self, dataset: Any, pixels: PixelFormat) -> None:
        """Wrap a dataset that is open for writing."""
        self.dataset, self._pixels = dataset, pixels
        self.statistics = BandStatistics(dataset.count, pixels.dtype, pixels.nodata)

    @property
    def block_shapes(self) -> Sequence[tuple[int, int]]:
        return [(int(height), int(width)) for height, width in self.dataset.block_shapes]

    @property
    def empty(self) -> bool:
        return self.statistics.empty

    def write(self, stored: Array, window: Window) -> None:
        self.statistics.add(stored)
        if self._pixels.masked:
            valid = self._pixels.valid(stored)
            with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
                self.dataset.write_mask(valid, window=window)
            stored = np.where(valid, stored, stored.dtype.type(0))
        self.dataset.write(stored, window=window)

    def update_tags(self, **tags: str) -> None:
        self.dataset.update_tags(**tags)


@contextmanager
def new_geotiff(
    output: Path, pair: ScenePair, pixels: PixelFormat, creation: Mapping[str, str], tags: Mapping[str, str]
) -> Iterator[GeoTiff]:
    """Open a new GeoTIFF on the pair's output grid; see :func:`~ksdiff_cli.output.writer.new_raster`."""
    with open_geotiff(output, _of_pair(pair, pixels, tags), pixels, creation) as target:
        yield target


@dataclass(frozen=True)
class Grid:
    """The grid of a raster to be, and what it knows besides."""

    profile: Mapping[str, Any]
    """What rasterio must know to create it, but for the driver."""
    describe: Callable[[Any], None]
    """Writes metadata to the dataset, open for writing."""


def _of_pair(pair: ScenePair, pixels: PixelFormat, tags: Mapping[str, str]) -> Grid:
    return Grid(grid_profile(pair, pixels), lambda dataset: write_metadata(dataset, pair, pixels, tags))


@contextmanager
def open_geotiff(output: Path, grid: Grid, pixels: PixelFormat, creation: Mapping[str, str]) -> Iterator[GeoTiff]:
    """Open a new GeoTIFF on any grid; see :func:`~ksdiff_cli.output.writer.new_raster`."""
    options = geotiff_options(pixels, creation)
    with atomic_raster(output) as partial:
        with warnings.catch_warnings(), creation_warnings() as complaints:
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            dataset = rasterio.open(partial, "w", driver="GTiff", **grid.profile, **options)
        with dataset:
            if complaints:
                raise KsdiffError(f"--co: {complaints[0]}")
            grid.describe(dataset)
            target = GeoTiff(dataset, pixels)
            yield target
            if not pixels.lossy:
                write_statistics(dataset, target.statistics)
        if pixels.lossy:
            target.statistics = read_statistics(partial)
            with rasterio.open(partial, "r+") as dataset:
                write_statistics(dataset, target.statistics)
        check_whole(partial, sparse="SPARSE_OK" in options)


def read_statistics(path: Path) -> BandStatistics:
    """Count what a file holds where its mask says so: a lossy codec has changed what was written."""
    with rasterio.open(path) as dataset:
        statistics = BandStatistics(dataset.count, np.dtype(dataset.dtypes[0]), None)
        for _, window in dataset.block_windows(1):
            statistics.add(dataset.read(window=window), dataset.read_masks(1, window=window) > 0)
    return statistics


def write_statistics(dataset: Any, statistics: BandStatistics) -> None:
    """Store the statistics of every band as GDAL does."""
    for band in dataset.indexes:
        dataset.update_tags(band, **statistics.tags(band))


@contextmanager
def atomic_raster(output: Path) -> Iterator[Path]:
    """Yield a temporary path in the output's folder; what is there in the end becomes the output, with its sidecars.

    If the work fails, nothing whose name begins like the temporary one remains.

    Raises:
        KsdiffError: GDAL or the operating system failed in the block, or another program wrote to the output meanwhile.
    """
    partial = growing_name(output)
    try:
        with explained(output, partial), atomic_write(output, sync=True, put=put_raster):
            yield partial
    finally:
        beside = [partial.with_name(partial.stem + end) for end in BESIDE]
        for left in [*partial.parent.glob(glob.escape(partial.name) + "*"), *beside]:
            left.unlink(missing_ok=True)


def put_raster(partial: Path, output: Path) -> None:
    """Give a finished raster and its sidecars their names; those of a file that is replaced go.

    A ``.wld`` may be another image's, and stays.
    """
    for end in SIDECARS:
        output.with_name(output.name + end).unlink(missing_ok=True)
        if (sidecar := partial.with_name(partial.name + end)).exists():
            sidecar.replace(output.with_name(output.name + end))
    for end in BESIDE:
        if (sidecar := partial.with_name(partial.stem + end)).exists():
            sidecar.replace(output.with_name(output.stem + end))
        elif end in PARTS or (end == ".tfw" and output.exists()):
            output.with_name(output.stem + end).unlink(missing_ok=True)
    partial.replace(output)


@contextmanager
def explained(output: Path, temporary: Path) -> Iterator[None]:
    """Turn what GDAL or the operating system complain about in the block into one line about the output.

    Args:
        output: what people know of.
        temporary: what is written instead for the time being; messages name the output in its place.

    Raises:
        KsdiffError: they do.
    """

    def say(text: str) -> str:
        return text.replace(str(temporary), str(output)).replace(temporary.name, output.name)

    try:
        yield
    except KsdiffError as error:
        raise type(error)(say(str(error))) from error
    except Exception as error:
        if not isinstance(error, OSError) and not is_from_gdal(error):
            raise
        why = (error.strerror if isinstance(error, OSError) else None) or say(first_line(error))
        raise KsdiffError(f"{output}: cannot be written ({why})") from error


def check_whole(path: Path, sparse: bool) -> None:
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


# ---- cloud optimized GeoTIFFs


@contextmanager
def new_cog(
    output: Path, pair: ScenePair, pixels: PixelFormat, creation: Mapping[str, str], tags: Mapping[str, str]
) -> Iterator[GeoTiff]:
    """Open a new cloud optimized GeoTIFF; see :func:`~ksdiff_cli.output.writer.new_raster`."""
    with open_cog(output, _of_pair(pair, pixels, tags), pixels, creation) as target:
        yield target


@contextmanager
def open_cog(output: Path, grid: Grid, pixels: PixelFormat, creation: Mapping[str, str]) -> Iterator[GeoTiff]:
    """Open a new cloud optimized GeoTIFF on any grid.

    GDAL can write one only from a whole image: rows go to a plain GeoTIFF beside the output, which is converted and
    removed in the end.
    """
    whole = output.with_name(f".{output.name}.{os.getpid()}.whole.tif")
    try:
        with explained(output, whole), open_geotiff(whole, grid, pixels, {}) as target:
            yield target
        with atomic_raster(output) as partial:
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
