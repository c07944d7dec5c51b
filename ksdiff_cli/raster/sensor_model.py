"""How PAN and MS in sensor geometry lie on each other, as their RPCs say, or the world files that GDAL leaves out.

Neither image is on a map there: their pixels are the camera's. RPCs (rational polynomials) say where a point of the
ground of known height is seen in each image. An MS pixel is followed to the ground at the scene's mean height, and from
there into PAN.
"""

import math
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from rasterio.errors import TransformWarning
from rasterio.transform import Affine, RPCTransformer

from ksdiff_cli.errors import KsdiffError
from ksdiff_cli.numerics import Array
from ksdiff_cli.numerics.grids import Axis, GridMap
from ksdiff_cli.raster.layout import check_sizes, crs_of, has_geotransform
from ksdiff_cli.raster.open import is_from_gdal, open_raster

TOLD = 0.25
"""MS pixels that a grid may be off what the RPCs say somewhere in the scene before a person is told."""
AGREE = 0.1
"""MS pixels by which two sources of the geometry may differ before the images themselves decide."""
_ACROSS = 9  # points along a side of MS at which the RPCs are asked
_WHOLE = 0.05  # MS pixels by which a whole ratio may miss the scene's border and still be taken
_UNLIKE = 0.1  # share by which a ratio may differ from that of the images' sizes
_EXACT = {"RPC_PIXEL_ERROR_THRESHOLD": 1e-5, "RPC_MAX_ITERATIONS": 50}  # by itself GDAL stops at a tenth of a pixel
_LEAST_DEGREES = 0.25  # of a pixel in degrees; no image of a camera with RPCs has such pixels
_FIRST_TILE = re.compile(r"_R0*1C0*1\.[^./\\]+$", re.IGNORECASE)


@dataclass(frozen=True)
class Laid:
    """Two images in sensor geometry, laid on each other."""

    grid: GridMap
    """PAN pixels -> MS pixels."""
    by: str
    """What says so: ``RPCs at 670 m`` or ``world files``."""
    notes: tuple[str, ...]
    others: tuple[float, float] | None = None
    """MS rows and columns by which MS lies further down and right by the world files than by the RPCs, where both are
    there and differ by more than :data:`AGREE`."""

    def __str__(self) -> str:
        """Return the map for people, PAN by MS: ``PAN = 4 MS + 1.00 rows, + 0.16 columns``."""
        return _say(self.grid)


def lay_by_model(pan: Any, ms: Any, ratio: int | None) -> Laid | None:
    """Lay two images on each other by their RPCs or, without, by their world files.

    Args:
        pan: the open PAN image.
        ms: the open MS image.
        ratio: of the images' sizes; None where they do not match at a whole one.

    Returns:
        None where one of the images is on a map, where nothing but their corners says how they lie, or where what says
        so contradicts ``ratio``.

    Raises:
        KsdiffError: PAN is no finer than MS.
    """
    if not (_in_sensor_geometry(pan) and _in_sensor_geometry(ms)):
        return None
    worlds = _world(pan), _world(ms)
    by_world = _fit(ms.shape, ratio, _by_world(*worlds)) if all(worlds) else None
    by_rpcs = _fit(ms.shape, ratio, _by_rpcs(pan.rpcs, ms.rpcs)) if pan.rpcs and ms.rpcs else None
    found = [one for one in (by_rpcs, by_world) if one is not None]
    if not found:
        return None
    grid, left = found[0]
    check_sizes(pan, ms, (1 / grid.cols.scale, 1 / grid.rows.scale))
    if by_rpcs is None or found[0] is not by_rpcs:
        return Laid(grid, "world files", (f"no geotransform: PAN and MS are laid by their world files, {_say(grid)}",))
    height = f"{float(pan.rpcs.height_off):g} m"
    notes = [
        f"no geotransform, only RPCs: PAN and MS are laid by them at the scene's mean height, {height}, {_say(grid)}, "
        "and kept in sensor geometry"
    ]
    if left > TOLD:
        notes.append(
            f"by their RPCs PAN and MS are scaled, turned or bent against each other: up to {left:.2f} MS pixels are "
            "left towards the scene's border; --register corrects as much of it as the images show"
        )
    others = _apart(grid, found[1][0], ms.shape) if len(found) == 2 else None
    if others is not None and math.hypot(*others) <= AGREE:
        others = None
    return Laid(grid, f"RPCs at {height}", tuple(notes), others)


def _in_sensor_geometry(dataset: Any) -> bool:
    """Say whether an image's pixels are the camera's: no geotransform, or one beside RPCs that just counts pixels."""
    if not has_geotransform(dataset):
        return not dataset.gcps[0] or dataset.rpcs is not None
    crs = crs_of(dataset)
    return dataset.rpcs is not None and (
        crs is None or (crs.is_geographic and abs(dataset.transform.a) >= _LEAST_DEGREES)
    )


def _world(dataset: Any) -> Affine | None:
    """Return the geotransform of an image in sensor geometry, also where GDAL has left out its world file's."""
    if has_geotransform(dataset):
        return dataset.transform
    if dataset.driver != "DIMAP":
        return None
    tiles = [path for path in dataset.files if not path.lower().endswith((".xml", ".dim"))]
    tile = next((path for path in tiles if _FIRST_TILE.search(path)), tiles[0] if len(tiles) == 1 else None)
    if tile is None:
        return None
    try:
        with open_raster(tile) as image:
            return image.transform if has_geotransform(image) else None
    except KsdiffError:
        return None


_Follow = Callable[[Array, Array], tuple[Array, Array] | None]


def _by_world(pan: Affine | None, ms: Affine | None) -> _Follow:
    assert pan is not None and ms is not None
    to_pan = ~pan @ ms

    def follow(rows: Array, cols: Array) -> tuple[Array, Array]:
        x, y = to_pan @ (cols + 0.5, rows + 0.5)
        return y - 0.5, x - 0.5

    return follow


def _by_rpcs(pan: Any, ms: Any) -> _Follow:
    def follow(rows: Array, cols: Array) -> tuple[Array, Array] | None:
        # the scene's mean height is the middle of what PAN's RPCs hold for
        heights = np.full(rows.shape, float(pan.height_off)).tolist()
        try:
            with (
                warnings.catch_warnings(),
                RPCTransformer(ms, **_EXACT) as from_ms,
                RPCTransformer(pan, **_EXACT) as to_pan,
            ):
                warnings.simplefilter("ignore", TransformWarning)  # of points that have no place
                x, y = from_ms.xy(rows.tolist(), cols.tolist(), heights, offset="center")
                found = to_pan.rowcol(x, y, heights, op=lambda value: value)
        except Exception as error:
            if not is_from_gdal(error):
                raise
            return None
        first, second = (np.asarray(values, float) - 0.5 for values in found)
        return first, second

    return follow


def _fit(shape: tuple[int, int], ratio: int | None, follow: _Follow) -> tuple[GridMap, float] | None:
    """Fit rows and columns of PAN as ratio * MS + offset.

    Args:
        shape: (height, width) of MS.
        ratio: of the sizes, which is taken: cameras are built that way, and a shift is all that the images can decide.
            None finds it, whole where that fits the scene.
        follow: from MS rows and columns, pixel centres, to those of PAN.

    Returns:
        The map, rounded alike on all machines, and by how many MS pixels it is off at most; None where there is none.
    """
    sides = [np.linspace(0, size - 1, _ACROSS) for size in shape]
    rows, cols = (points.ravel() for points in np.meshgrid(*sides, indexing="ij"))
    places = follow(rows, cols)
    if places is None or not np.isfinite(places).all():
        return None
    axes, off = [], []
    for own, there, size in zip((rows, cols), places, shape, strict=True):
        middle = (size - 1) / 2
        away = own - middle
        scale = float(away @ there) / max(1e-9, float(away @ away))
        if size > 1 and ratio is not None and abs(scale / ratio - 1) > _UNLIKE:
            return None
        if ratio is not None:
            scale = float(ratio)
        elif abs(scale - round(scale)) * middle <= _WHOLE * abs(scale):
            scale = float(round(scale))
        scale = round(scale, 6)
        offset = round(float(there.mean()) - scale * middle, 3)
        if scale <= 0:
            return None
        axes.append(Axis(1 / scale, -offset / scale))
        off.append((there - scale * own - offset) / scale)
    return GridMap(*axes), float(np.hypot(*off).max())


def _apart(grid: GridMap, other: GridMap, shape: tuple[int, int]) -> tuple[float, float]:
    """Return by how many MS pixels another map puts MS further down and right, in the middle of MS."""
    axes = zip((grid.rows, grid.cols), (other.rows, other.cols), shape, strict=True)
    rows, cols = ((size - 1) / 2 - own.to_ms(its.to_pan((size - 1) / 2)) for own, its, size in axes)
    return float(rows), float(cols)


def _say(grid: GridMap) -> str:
    ratios, offsets = [], []
    for axis in (grid.rows, grid.cols):
        ratios.append(f"{1 / axis.scale:.6g}")
        offsets.append(f"{'-' if axis.offset > 0 else '+'} {abs(axis.offset / axis.scale):.2f}")
    ratio = ratios[0] if ratios[0] == ratios[1] else " and ".join(ratios)
    return f"PAN = {ratio} MS {offsets[0]} rows, {offsets[1]} columns"
