"""Outputs made of tiles: GeoTIFFs in a folder, and a virtual raster that shows them as one."""

import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from xml.sax.saxutils import unescape

from numpy.typing import NDArray
from rasterio.windows import Window

from ksdiff_cli.errors import KsdiffError
from ksdiff_cli.files.names import Inputs, growing_file
from ksdiff_cli.output.creation import BLOCK
from ksdiff_cli.output.geotiff import GeoTiff, explained, growing, new_geotiff, write_statistics
from ksdiff_cli.output.metadata import grid_profile, write_metadata
from ksdiff_cli.output.pixels import PixelFormat
from ksdiff_cli.output.statistics import BandStatistics
from ksdiff_cli.output.vrt import Piece, add_mask, add_sources, new_vrt
from ksdiff_cli.raster.crop import crop_pair
from ksdiff_cli.raster.pair import ScenePair

Array = NDArray[Any]

_TILE_NAME = re.compile(r"r\d{6,}_c\d{6,}(\.tif(\.aux\.xml|\.ovr|\.msk)?|\.tfw|\.wld|\.RPB|_RPC\.TXT)")
_SHOWN = re.compile(r"<SourceFilename[^>]*>([^<]*)/r\d{6,}_c\d{6,}\.tif<")


def tiles_folder(output: Path) -> Path:
    """Return where the tiles of a virtual raster go at first: ``out.vrt`` gets ``out_tiles/``, or ``out_tiles_2/``.

    The second where ``out.vrt`` is there and shows tiles in the first: whoever reads it sees all the old tiles until
    all the new ones are there. See :func:`settle_tiles`.
    """
    first, second = _folders(output)
    return second if _shown(output) == first.name else first


def check_tiles(output: Path, inputs: Inputs, overwrite: bool) -> None:
    """Refuse folders of tiles that are there already, unless they may be replaced and hold nothing but tiles.

    Raises:
        KsdiffError: see above.
    """
    for folder in _folders(output):
        if not os.path.lexists(folder) or (folder != tiles_folder(output) and folder.name != _shown(output)):
            continue
        if not overwrite:
            raise KsdiffError(f"{folder}: exists already; choose another name for {output} or give --overwrite")
        if not _holds_tiles(folder):
            raise KsdiffError(f"{folder}: holds more than the tiles of {output.name}; choose another name")
        if any(map(inputs.find, folder.iterdir())):
            raise KsdiffError(f"{folder}: holds an input; choose another name for {output}")


def settle_tiles(output: Path, is_old: Callable[[Path], bool]) -> None:
    """Remove the tiles that a virtual raster showed before, and give the new ones in ``out_tiles_2/`` their name.

    At any moment the raster shows all of its tiles: those of the first folder are hard links to them for a while. Where
    there are no hard links, the tiles stay where they are.

    Args:
        output: the ``.vrt``; also one whose run was killed right after it was written.
        is_old: whether a folder of tiles that it does not show may go.
    """
    first, second = _folders(output)
    for folder in (first, second):
        if folder.name != _shown(output) and _holds_tiles(folder) and is_old(folder):
            shutil.rmtree(folder, ignore_errors=True)
    if _shown(output) != second.name or os.path.lexists(first):
        return
    links = output.with_name(f".{output.name}.{os.getpid()}.tiles")
    try:
        shutil.copytree(second, links, copy_function=os.link)
        links.rename(first)
        text = output.read_text(encoding="utf-8")
        shown = _SHOWN.findall(text)[0]
        with growing_file(output) as growing:
            growing.write_text(text.replace(f">{shown}/r", f">{shown.removesuffix('_2')}/r"), encoding="utf-8")
        shutil.rmtree(second, ignore_errors=True)
    except OSError:
        return
    finally:
        shutil.rmtree(links, ignore_errors=True)


def _folders(output: Path) -> tuple[Path, Path]:
    return output.with_name(f"{output.stem}_tiles"), output.with_name(f"{output.stem}_tiles_2")


def _shown(output: Path) -> str | None:
    """Return the name of the folder beside a virtual raster whose tiles it shows; None if it shows none of a folder."""
    try:
        found = _SHOWN.search(output.read_text(encoding="utf-8", errors="replace"))
    except OSError:
        return None
    return unescape(found[1]) if found else None


def _holds_tiles(folder: Path) -> bool:
    """Say whether there is a folder that holds nothing but tiles."""
    return folder.is_dir() and not folder.is_symlink() and all(_TILE_NAME.fullmatch(p.name) for p in folder.iterdir())


@contextmanager
def new_tiles(
    output: Path, pair: ScenePair, pixels: PixelFormat, creation: Mapping[str, str], tags: Mapping[str, str], side: int
) -> Iterator["TiledRaster"]:
    """Open a new virtual raster with its tiles; see :func:`~ksdiff_cli.output.writer.new_raster`.

    Args:
        output: the ``.vrt``; its tiles go to :func:`tiles_folder` and are complete GeoTIFFs of their own. One that is
            there shows its own tiles, all of them, until it is replaced.
        pair: the inputs.
        pixels: data type and nodata.
        creation: options of the tiles.
        tags: further metadata.
        side: of a tile, in pixels; rounded up to whole blocks.
    """
    final, folder = tiles_folder(output), output.with_name(f".{output.name}.{os.getpid()}.tiles")
    before = _shown(output)
    try:
        with explained(final, folder):
            folder.mkdir()
            with TiledRaster(folder, pair, pixels, creation, tags, -(-side // BLOCK) * BLOCK) as tiles:
                yield tiles
        with growing(output) as partial:
            with new_vrt(partial, **grid_profile(pair, pixels)) as dataset:
                write_metadata(dataset, pair, pixels, {**tags, **tiles.tags})
                write_statistics(dataset, tiles.statistics)
                if pixels.stored_bits:
                    for band in dataset.indexes:
                        dataset.update_tags(band, ns="IMAGE_STRUCTURE", NBITS=str(pixels.stored_bits))
                pieces = tiles.pieces(final.name)
                add_sources(dataset, pieces)
            if pixels.masked:
                add_mask(partial, pieces)
            shutil.rmtree(final, ignore_errors=True)  # which nobody shows
            folder.rename(final)
        settle_tiles(output, lambda old: old.name == before)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class TiledRaster:
    """A :class:`~ksdiff_cli.output.geotiff.RasterTarget` that cuts what it is given into GeoTIFFs.

    A context manager: tiles that are not complete in the end are closed as they are, or dropped on an error.
    """

    def __init__(
        self,
        folder: Path,
        pair: ScenePair,
        pixels: PixelFormat,
        creation: Mapping[str, str],
        tags: Mapping[str, str],
        side: int,
    ) -> None:
        """Begin without a tile; see :func:`new_tiles`."""
        self.block_shapes = [(BLOCK, BLOCK)] * pair.bands
        """See :class:`~ksdiff_cli.output.geotiff.RasterTarget`."""
        self.tags: dict[str, str] = {}
        """Metadata added on the way."""
        self.statistics = BandStatistics(pair.bands, pixels.dtype, pixels.nodata)
        """Of all finished tiles."""
        self._folder, self._pair, self._pixels, self._side = folder, pair, pixels, side
        self._creation, self._given = creation, tags
        self._open: dict[tuple[int, int], _OpenTile] = {}
        self._done: list[Piece] = []

    def __enter__(self) -> "TiledRaster":
        """Return itself."""
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        """Finish or drop the tiles that are still open."""
        for place, tile in list(self._open.items()):
            if error is None:
                self._finish(place, tile)
            else:
                with suppress(Exception):
                    tile.context.__exit__(kind, error, trace)

    @property
    def empty(self) -> bool:
        """See :class:`~ksdiff_cli.output.geotiff.RasterTarget`."""
        return self.statistics.empty and all(tile.target.empty for tile in self._open.values())

    def write(self, stored: Array, window: Window) -> None:
        """See :class:`~ksdiff_cli.output.geotiff.RasterTarget`."""
        top, left = int(window.row_off), int(window.col_off)
        bottom, right = top + stored.shape[1], left + stored.shape[2]
        for row in range(top // self._side * self._side, bottom, self._side):
            for col in range(left // self._side * self._side, right, self._side):
                rows = slice(max(row, top), min(row + self._side, bottom))
                cols = slice(max(col, left), min(col + self._side, right))
                part = stored[:, rows.start - top : rows.stop - top, cols.start - left : cols.stop - left]
                self._write_part(part, (row, col), rows.start - row, cols.start - col)

    def update_tags(self, **tags: str) -> None:
        """See :class:`~ksdiff_cli.output.geotiff.RasterTarget`."""
        self.tags |= tags

    def pieces(self, folder: str) -> list[Piece]:
        """Return the finished tiles in order, as they lie in a folder beside the mosaic."""
        ordered = sorted(self._done, key=lambda piece: (piece.row, piece.col))
        return [replace(piece, name=f"{folder}/{piece.name}") for piece in ordered]

    def _write_part(self, part: Array, place: tuple[int, int], row: int, col: int) -> None:
        tile = self._open.get(place) or self._begin(place)
        height, width = part.shape[1:]
        tile.target.write(part, Window(col, row, width, height))
        tile.missing -= height * width
        if tile.missing <= 0:
            self._finish(place, tile)

    def _begin(self, place: tuple[int, int]) -> "_OpenTile":
        row, col = place
        height, width = (min(self._side, size - at) for size, at in zip(self._pair.shape, place, strict=True))
        part = crop_pair(self._pair, (row, col, height, width))
        path = self._folder / f"r{row:06d}_c{col:06d}.tif"
        context = new_geotiff(path, part, self._pixels, self._creation, self._given)
        target = context.__enter__()
        block = target.block_shapes[0]
        piece = Piece(path.name, row, col, height, width, block)
        self._open[place] = _OpenTile(context, target, piece, height * width)
        return self._open[place]

    def _finish(self, place: tuple[int, int], tile: "_OpenTile") -> None:
        del self._open[place]
        tile.context.__exit__(None, None, None)
        self.statistics.merge(tile.target.statistics)
        self._done.append(tile.piece)


@dataclass
class _OpenTile:
    context: AbstractContextManager[GeoTiff]
    target: GeoTiff
    piece: Piece
    missing: int
    """Pixels not yet written."""
