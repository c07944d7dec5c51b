"""Virtual rasters: many GeoTIFFs of one grid seen as one."""

import os
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import numpy as np
import rasterio
from rasterio.dtypes import dtype_rev, typename_fwd
from rasterio.enums import MaskFlags
from rasterio.errors import NotGeoreferencedWarning
from rasterio.transform import Affine

from ksdiff_cli.errors import KsdiffError
from ksdiff_cli.output.geotiff import growing
from ksdiff_cli.output.metadata import band_tags, update_tags
from ksdiff_cli.raster.layout import has_geotransform
from ksdiff_cli.raster.open import open_raster

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
    with growing(path) as partial:
        with new_vrt(partial, **profile) as dataset:
            update_tags(dataset, {k: v for k, v in sorted(shared) if not k.startswith(("STATISTICS_", "TIFFTAG_"))})
            first.describe(dataset)
            add_sources(dataset, moved, unseen)
        if masked:
            add_mask(partial, moved)


@dataclass(frozen=True)
class _Description:
    """What all files of a mosaic must share, and what the mosaic takes from the first of them."""

    name: str
    profile: dict[str, Any]
    bands: tuple[tuple[Any, ...], ...]
    """Descriptions, colours, scales, offsets and units, band by band."""
    tags: tuple[dict[str | None, dict[str, str]], ...]
    """Of each band, by metadata domain."""

    @classmethod
    def of(cls, dataset: Any) -> "_Description":
        if not has_geotransform(dataset):
            raise KsdiffError(f"{dataset.name}: has no geotransform, so it has no place in a mosaic")
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
            raise KsdiffError(f"{file}: has other bands, another data type or nodata value than {self.name}")
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
