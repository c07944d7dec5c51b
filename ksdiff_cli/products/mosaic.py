"""Tiles of one image joined by a VRT, a small XML file that names them; it lives as long as the program runs."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from xml.etree import ElementTree

from rasterio.dtypes import dtype_rev, typename_fwd
from rasterio.transform import Affine

from ksdiff_cli.errors import KsdiffError
from ksdiff_cli.raster.layout import georeferenced
from ksdiff_cli.raster.open import open_raster


@dataclass(frozen=True)
class ImageTile:
    """One file of a tiled image and where it lies in it."""

    path: str
    """Anything GDAL opens."""
    row: int
    col: int
    """Of its first pixel in the whole image."""
    height: int
    width: int


def join_tiles(name: str, tiles: Sequence[ImageTile], shape: tuple[int, int], rpcs: Any = None) -> str:
    """Join tiles of one image: georeference, data type and bands are those of the first tile.

    Args:
        name: of the image, for messages.
        tiles: at least one.
        shape: (height, width) of the whole image.
        rpcs: the whole image's RPCs, if it has any.

    Returns:
        The path of the VRT. The same tiles give the same path; it is removed when the program ends.

    Raises:
        KsdiffError: the first tile cannot be opened, or its size is not the one announced.
    """
    first = tiles[0]
    with open_raster(first.path) as dataset:
        if dataset.shape != (first.height, first.width):
            raise KsdiffError(
                f"{first.path}: has {dataset.width} x {dataset.height} pixels, but the list of tiles says "
                f"{first.width} x {first.height}; fetch the product again"
            )
        root = ElementTree.Element("VRTDataset", rasterXSize=str(shape[1]), rasterYSize=str(shape[0]))
        if dataset.crs is not None:
            ElementTree.SubElement(root, "SRS").text = dataset.crs.to_wkt()
        if georeferenced(dataset):
            whole = dataset.transform @ Affine.translation(-first.col, -first.row)
            ElementTree.SubElement(root, "GeoTransform").text = ", ".join(repr(value) for value in whole.to_gdal())
        if rpcs is not None:
            domain = ElementTree.SubElement(root, "Metadata", domain="RPC")
            for key, value in rpcs.to_gdal().items():
                ElementTree.SubElement(domain, "MDI", key=key).text = str(value)
        for band, dtype in enumerate(dataset.dtypes, start=1):
            _add_band(root, band, typename_fwd[dtype_rev[dtype]], tiles)
    return _write(name, root)


def resample(path: str, shape: tuple[int, int], band: int = 1, nodata: float | None = None) -> str:
    """Lay one band of an image on another grid of its extent.

    On a coarser one a pixel is the mean of as many whole pixels along each side as it covers, and what is left at the
    lower and right border is left out; where ``nodata`` is None, and on a finer one, it is the nearest.

    Args:
        path: anything GDAL opens.
        shape: (height, width) of the result.
        band: which, from 1.
        nodata: DN that holds no data, and counts in no mean.

    Returns:
        The path of the VRT, see :func:`join_tiles`.

    Raises:
        KsdiffError: the image cannot be opened.
    """
    root = ElementTree.Element("VRTDataset", rasterXSize=str(shape[1]), rasterYSize=str(shape[0]))
    with open_raster(path) as dataset:
        pairs = zip(dataset.shape, shape, strict=True)
        steps = [size // count if size > count else size / count for size, count in pairs]
        rows, cols = (step * count for step, count in zip(steps, shape, strict=True))
        if dataset.crs is not None:
            ElementTree.SubElement(root, "SRS").text = dataset.crs.to_wkt()
        if georeferenced(dataset):
            whole = dataset.transform @ Affine.scale(steps[1], steps[0])
            ElementTree.SubElement(root, "GeoTransform").text = ", ".join(repr(value) for value in whole.to_gdal())
        kind = typename_fwd[dtype_rev[dataset.dtypes[band - 1]]]
        element = ElementTree.SubElement(root, "VRTRasterBand", dataType=kind, band="1")
        if nodata is not None:
            ElementTree.SubElement(element, "NoDataValue").text = f"{nodata:g}"
        source = ElementTree.SubElement(element, "SimpleSource" if nodata is None else "ComplexSource")
        if nodata is not None:
            source.set("resampling", "average")
        own = path if path.startswith("/vsi") or "://" in path else str(Path(path).absolute())
        ElementTree.SubElement(source, "SourceFilename", relativeToVRT="0").text = own
        ElementTree.SubElement(source, "SourceBand").text = str(band)
        ElementTree.SubElement(source, "SrcRect", xOff="0", yOff="0", xSize=f"{cols:.9g}", ySize=f"{rows:.9g}")
        ElementTree.SubElement(source, "DstRect", xOff="0", yOff="0", xSize=str(shape[1]), ySize=str(shape[0]))
        if nodata is not None:
            ElementTree.SubElement(source, "NODATA").text = f"{nodata:g}"
    return _write(Path(path).stem, root)


def _write(name: str, root: ElementTree.Element) -> str:
    xml = ElementTree.tostring(root, encoding="unicode")
    folder = Path(_scratch().name, hashlib.sha256(xml.encode()).hexdigest()[:12])
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}.vrt"
    path.write_text(xml, encoding="utf-8")
    return str(path)


def is_mosaic(path: str) -> bool:
    """Say whether a path is that of a VRT made here, which another run makes anew somewhere else."""
    return _scratch.cache_info().currsize > 0 and Path(path).is_relative_to(_scratch().name)


def _add_band(root: ElementTree.Element, number: int, dtype: str, tiles: Sequence[ImageTile]) -> None:
    band = ElementTree.SubElement(root, "VRTRasterBand", dataType=dtype, band=str(number))
    for tile in tiles:
        source = ElementTree.SubElement(band, "SimpleSource")
        path = tile.path if tile.path.startswith("/vsi") or "://" in tile.path else str(Path(tile.path).absolute())
        ElementTree.SubElement(source, "SourceFilename", relativeToVRT="0").text = path
        ElementTree.SubElement(source, "SourceBand").text = str(number)
        size = {"xSize": str(tile.width), "ySize": str(tile.height)}
        # GDAL then opens a tile when it is read, not all of them at once
        ElementTree.SubElement(
            source, "SourceProperties", RasterXSize=size["xSize"], RasterYSize=size["ySize"], DataType=dtype
        )
        ElementTree.SubElement(source, "SrcRect", {"xOff": "0", "yOff": "0", **size})
        ElementTree.SubElement(source, "DstRect", {"xOff": str(tile.col), "yOff": str(tile.row), **size})


@cache
def _scratch() -> TemporaryDirectory[str]:
    """Make the folder for VRTs, once; Python removes it at exit."""
    return TemporaryDirectory(prefix="ksdiff-")
