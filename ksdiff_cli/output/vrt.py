"""Virtual rasters: many GeoTIFFs of one grid seen as one."""

import os
import re
import shutil
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape, unescape

import numpy as np
import rasterio
from rasterio.dtypes import dtype_rev, typename_fwd
from rasterio.enums import MaskFlags
from rasterio.errors import NotGeoreferencedWarning
from rasterio.transform import Affine
from rasterio.windows import Window

from ksdiff_cli.errors import KsdiffError
from ksdiff_cli.files.names import Inputs, check_free
from ksdiff_cli.files.writing import atomic_write
from ksdiff_cli.numerics import Array
from ksdiff_cli.output.creation import BLOCK
from ksdiff_cli.output.geotiff import GeoTiff, atomic_raster, explained, new_geotiff, write_statistics
from ksdiff_cli.output.metadata import band_tags, grid_profile, update_tags, write_metadata
from ksdiff_cli.output.pixels import PixelFormat
from ksdiff_cli.output.statistics import BandStatistics
from ksdiff_cli.raster.crop import crop_pair
from ksdiff_cli.raster.layout import has_geotransform
from ksdiff_cli.raster.open import open_raster
from ksdiff_cli.raster.pair import ScenePair

_SAME = 0.01  # pixels by which the grids of files in one mosaic may differ


@dataclass(frozen=True)
class Piece:
    """A file in a mosaic."""

    name: str
    """Its path from the mosaic's folder."""
    row: int
    """Of the mosaic, where its first pixel lies."""
    col: int
    height: int
    width: int
    block: tuple[int, int]
    """(height, width) of its blocks."""


def write_vrt(path: Path, files: Sequence[Path]) -> None:
    """Write a virtual raster that shows several local GeoTIFFs of one grid as one; where they overlap, the later wins.

    It refers to the files by relative paths: they can be moved together. Names, colours, scales and units are those of
    the first file, tags those that all share.

    Args:
        path: the ``.vrt``; one that is there is replaced.
        files: at least one, with geotransforms.

    Raises:
        KsdiffError: a file cannot be read or is of another grid, band count or data type than the first; or the
            mosaic cannot be written.
    """
    first, pieces, shared, masked = None, [], set(), False
    for file in files:
        with open_raster(file) as dataset:
            if first is None:
                first = _Description.of(dataset)
                shared = set(dataset.tags().items())
            row, col = first.place(dataset, file)
            shared &= set(dataset.tags().items())
            masked |= MaskFlags.per_dataset in dataset.mask_flag_enums[0]
            name = os.path.relpath(file, path.parent).replace(os.sep, "/")
            pieces.append(Piece(name, row, col, dataset.height, dataset.width, dataset.block_shapes[0]))
    if first is None:
        raise KsdiffError(f"{path}: there is no file to make a mosaic of")
    top, left = min(piece.row for piece in pieces), min(piece.col for piece in pieces)
    moved = [replace(piece, row=piece.row - top, col=piece.col - left) for piece in pieces]
    profile = first.profile | {
        "height": max(piece.row + piece.height for piece in moved),
        "width": max(piece.col + piece.width for piece in moved),
        "transform": first.profile["transform"] @ Affine.translation(left, top),
    }
    nodata = first.profile["nodata"]
    unseen = (
        "<UseMaskBand>true</UseMaskBand>" if masked else "" if nodata is None else f"<NODATA>{nodata:.17g}</NODATA>"
    )
    with atomic_raster(path) as partial:
        with new_vrt(partial, **profile) as dataset:
            update_tags(dataset, {k: v for k, v in sorted(shared) if not k.startswith(("STATISTICS_", "TIFFTAG_"))})
            first.describe(dataset)
            add_sources(dataset, moved, unseen)
        if masked:
            add_mask(partial, moved)


@dataclass(frozen=True)
class _Description:
    """Properties that all files of a mosaic must share, and those that it takes from the first."""

    name: str
    profile: dict[str, Any]
    bands: tuple[tuple[Any, ...], ...]
    """Descriptions, colours, scales, offsets and units, band by band."""
    tags: tuple[dict[str | None, dict[str, str]], ...]
    """Of each band, by metadata domain."""

    @classmethod
    def of(cls, dataset: Any) -> "_Description":
        if not has_geotransform(dataset):
            raise KsdiffError(
                f"{dataset.name}: has no geotransform, so it has no place in a mosaic; leave out --mosaic"
            )
        keys = ("count", "dtype", "nodata", "crs", "transform")
        bands = (dataset.descriptions, dataset.colorinterp, dataset.scales, dataset.offsets, dataset.units)
        tags = tuple(band_tags(dataset, band) for band in dataset.indexes)
        return cls(dataset.name, {key: dataset.profile[key] for key in keys}, bands, tags)

    def place(self, dataset: Any, file: Path) -> tuple[int, int]:
        """Return the row and column of a file's first pixel, counted from the first file's."""
        own, profile = dataset.profile, self.profile
        nodata = np.array([own["nodata"], profile["nodata"]], dtype=float)  # None and NaN are both NaN
        if (own["count"], own["dtype"]) != (profile["count"], profile["dtype"]) or not (
            nodata[0] == nodata[1] or np.isnan(nodata).all()
        ):
            raise KsdiffError(
                f"{file}: has other bands, another data type or nodata value than {self.name}; make the two mosaics"
            )
        away = ~profile["transform"] @ own["transform"]
        corners = [(0.0, 0.0), (dataset.width, 0.0), (0.0, dataset.height)]
        moved = [away @ corner for corner in corners]
        col, row = (round(value) for value in moved[0])
        off = max(abs(x - u - col) + abs(y - v - row) for (x, y), (u, v) in zip(moved, corners, strict=True))
        if off > _SAME or dataset.crs != profile["crs"]:
            raise KsdiffError(f"{file}: lies on another grid than {self.name}; a mosaic needs one grid")
        return row, col

    def describe(self, dataset: Any) -> None:
        """Give a mosaic the names, colours, scales, units and band tags."""
        dataset.descriptions, dataset.colorinterp, dataset.scales, dataset.offsets = self.bands[:4]
        dataset.units = tuple(unit or "" for unit in self.bands[4])
        for band, tags in enumerate(self.tags, start=1):
            for domain, own in tags.items():
                update_tags(dataset, own, band, domain)


def new_vrt(path: Path, **profile: Any) -> Any:
    """Open a new virtual raster without sources, of a rasterio profile."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        return rasterio.open(path, "w", driver="VRT", **profile)


def add_sources(dataset: Any, pieces: Iterable[Piece], more: str = "") -> None:
    """Put files into a virtual raster.

    Args:
        dataset: the open virtual raster.
        pieces: the files, each of as many bands.
        more: what says which of a file's pixels do not hide those of earlier files, as XML of a ComplexSource; "" where
            files do not overlap.
    """
    dtype = typename_fwd[dtype_rev[dataset.dtypes[0]]]
    for band in dataset.indexes:
        sources = {f"source_{number}": _source(piece, str(band), dtype, more) for number, piece in enumerate(pieces)}
        dataset.update_tags(band, ns="new_vrt_sources", **sources)


def add_mask(path: Path, pieces: Iterable[Piece]) -> None:
    """Give a finished virtual raster the masks of its files; where they overlap, what any of them calls valid is.

    Args:
        path: the ``.vrt``, as GDAL wrote it, which has no other way to be given a mask.
        pieces: its files.
    """
    sources = "".join(_source(piece, "mask,1", "Byte", "<NODATA>0</NODATA>") for piece in pieces)
    mask = f'<MaskBand><VRTRasterBand dataType="Byte">{sources}</VRTRasterBand></MaskBand>'
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace("</VRTDataset>", f"  {mask}\n</VRTDataset>"), encoding="utf-8")


def _source(piece: Piece, band: str, dtype: str, more: str) -> str:
    """Return the XML by which a virtual band shows a file's band."""
    kind = "ComplexSource" if more else "SimpleSource"
    size = f'xSize="{piece.width}" ySize="{piece.height}"'
    # with these GDAL opens a file only when it is read
    facts = f'RasterXSize="{piece.width}" RasterYSize="{piece.height}" DataType="{dtype}"'
    block = f'BlockXSize="{piece.block[1]}" BlockYSize="{piece.block[0]}"'
    return (
        f'<{kind}><SourceFilename relativeToVRT="1">{escape(piece.name)}</SourceFilename>'
        f"<SourceBand>{band}</SourceBand><SourceProperties {facts} {block}/>"
        f'<SrcRect xOff="0" yOff="0" {size}/><DstRect xOff="{piece.col}" yOff="{piece.row}" {size}/>{more}</{kind}>'
    )


# ---- tiles


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
        check_free(folder, overwrite, output)
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
        with atomic_write(output) as growing:
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
        with atomic_raster(output) as partial:
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
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        for place, tile in list(self._open.items()):
            if error is None:
                self._finish(place, tile)
            else:
                with suppress(Exception):
                    tile.context.__exit__(kind, error, trace)

    @property
    def empty(self) -> bool:
        return self.statistics.empty and all(tile.target.empty for tile in self._open.values())

    def write(self, stored: Array, window: Window) -> None:
        top, left = int(window.row_off), int(window.col_off)
        bottom, right = top + stored.shape[1], left + stored.shape[2]
        for row in range(top // self._side * self._side, bottom, self._side):
            for col in range(left // self._side * self._side, right, self._side):
                rows = slice(max(row, top), min(row + self._side, bottom))
                cols = slice(max(col, left), min(col + self._side, right))
                part = stored[:, rows.start - top : rows.stop - top, cols.start - left : cols.stop - left]
                self._write_part(part, (row, col), rows.start - row, cols.start - col)

    def update_tags(self, **tags: str) -> None:
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
