"""Where an image in sensor geometry lies on a map: its RPCs over a terrain, the map's grid for it."""

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rasterio.crs import CRS
from rasterio.errors import CRSError, TransformWarning
from rasterio.transform import Affine, RPCTransformer
from rasterio.warp import transform as reproject

from ksdiff_cli.errors import KsdiffError
from ksdiff_cli.numerics import Array
from ksdiff_cli.raster.layout import crs_of, has_geotransform
from ksdiff_cli.raster.open import is_from_gdal, open_raster

_WGS84 = CRS.from_epsg(4326)
_EDGE, _INSIDE = 257, 17  # points along a border of the image, and along a side of its inside, that are followed
_STEP = 64.0  # pixels over which the ground sampling is measured
_MOST = 100  # times as many pixels as the image may be asked for
_EXACT = {"RPC_PIXEL_ERROR_THRESHOLD": 0.01, "RPC_MAX_ITERATIONS": 50}  # pixels; enough for an outline


@dataclass(frozen=True)
class Ground:
    """A grid on a map for an image with RPCs."""

    crs: CRS
    transform: Affine
    shape: tuple[int, int]
    terrain: Mapping[str, Any]
    """What GDAL's RPC transformer is told of the heights."""
    about: str
    """The terrain for people."""


def find_ground(name: str, rpcs: Any, shape: tuple[int, int], terrain: str, crs: str, res: float | None) -> Ground:
    """Choose the grid of an orthorectified image.

    Args:
        name: of the image, for messages.
        rpcs: its RPCs; None where it has none.
        shape: its (height, width).
        terrain: a DEM's file, metres above the ellipsoid, or ``mean``.
        crs: of the grid; empty for the UTM zone of the image's middle.
        res: side of a pixel in units of that CRS; None for the image's own on the ground, rounded to two digits.

    Returns:
        The grid, its corner a multiple of the pixel's side, so that grids of one CRS and side lie on each other.

    Raises:
        KsdiffError: there are no RPCs, they place nothing, the DEM cannot be read or does not cover the image, the CRS
            is unknown or does not reach there, or the grid would have far too many pixels or a single one.
    """
    if rpcs is None:
        raise KsdiffError(f"{name}: PAN has no RPCs, by which --ortho would place it; leave --ortho out")
    options, about = _terrain(terrain, rpcs)
    height, width = shape
    rows, cols = _outline(height, width)
    flat = _follow(name, rpcs, {"RPC_HEIGHT": float(rpcs.height_off)}, rows, cols)
    if "RPC_DEM" in options:
        _check_cover(terrain, name, *flat)
    lon, lat = _follow(name, rpcs, options, rows, cols)
    if "RPC_DEM" in options:
        # a border over water may have no heights, though what lies inside has
        lon, lat = (np.where(np.isnan(lon), own, known) for own, known in zip(flat, (lon, lat), strict=True))
    lon, lat = lon[~np.isnan(lon)], lat[~np.isnan(lon)]
    middle = float(np.median(lon)), float(np.median(lat))
    target = _crs(crs) if crs else _utm(*middle)
    x, y = _project(name, target, lon, lat)
    side = _round(_sampling(name, rpcs, shape, target)) if res is None else float(res)
    left, right = math.floor(x.min() / side) - 1, math.ceil(x.max() / side) + 1
    bottom, top = math.floor(y.min() / side) - 1, math.ceil(y.max() / side) + 1
    if (right - left) * (top - bottom) > _MOST * height * width:
        raise KsdiffError(
            f"--ortho-res {side:g}: makes {right - left} x {top - bottom} pixels of {width} x {height}; give the side "
            "of a pixel in units of the CRS"
        )
    if side > max(np.ptp(x), np.ptp(y)):
        raise KsdiffError(
            f"--ortho-res {side:g}: is wider than the whole scene, {np.ptp(x):g} x {np.ptp(y):g}; give the side of a "
            "pixel in units of the CRS"
        )
    place = Affine(side, 0, left * side, 0, -side, top * side)
    return Ground(target, place, (top - bottom, right - left), options, about)


def _terrain(terrain: str, rpcs: Any) -> tuple[dict[str, Any], str]:
    if terrain.lower() == "mean":
        return {"RPC_HEIGHT": float(rpcs.height_off)}, f"the RPCs' mean height, {float(rpcs.height_off):g} m"
    try:
        height = float(terrain)
    except ValueError:
        if not Path(terrain).suffix and not Path(terrain).exists():  # a word, and none of those that are known
            raise KsdiffError(f"--ortho {terrain}: no such file; give a DEM's file, metres, or mean") from None
        with open_raster(terrain) as dem:
            if not has_geotransform(dem) or crs_of(dem) is None:
                raise KsdiffError(
                    f"{terrain}: has no CRS or geotransform, so it is no DEM for --ortho; give one on a map"
                ) from None
        return {"RPC_DEM": terrain, "RPC_DEMINTERPOLATION": "bilinear"}, f"DEM {terrain}"
    if not math.isfinite(height):
        raise KsdiffError(f"--ortho {terrain}: give a DEM's file, metres, or mean")
    return {"RPC_HEIGHT": height}, f"{height:g} m"


def _outline(height: int, width: int) -> tuple[Array, Array]:
    """Return rows and columns, corners of pixels, of points along the border and inside."""
    edge, inside = np.linspace(0, 1, _EDGE), np.linspace(0, 1, _INSIDE)
    across, down = (points.ravel() for points in np.meshgrid(inside, inside))
    rows = np.concatenate([edge, edge, 0 * edge, 0 * edge + 1, down])
    cols = np.concatenate([0 * edge, 0 * edge + 1, edge, edge, across])
    return rows * height, cols * width


def _follow(name: str, rpcs: Any, options: Mapping[str, Any], rows: Array, cols: Array) -> tuple[Array, Array]:
    """Return longitude and latitude of corners of pixels; NaN for those that have no place."""
    try:
        with warnings.catch_warnings(), RPCTransformer(rpcs, **_EXACT, **options) as transformer:
            warnings.simplefilter("ignore", TransformWarning)  # of points that have no place
            found = transformer.xy(rows.tolist(), cols.tolist(), offset="ul")
    except Exception as error:
        if not is_from_gdal(error):
            raise
        found = [math.nan] * len(rows), [math.nan] * len(rows)
    lon, lat = (np.asarray(values, float) for values in found)
    known = np.isfinite(lon) & np.isfinite(lat) & (np.abs(lat) <= 90)
    if not known.any():
        raise KsdiffError(f"{name}: its RPCs place it nowhere on that terrain; check both, or leave --ortho out")
    return np.where(known, lon, math.nan), np.where(known, lat, math.nan)


def _check_cover(terrain: str, name: str, lon: Array, lat: Array) -> None:
    """Refuse a DEM that ends within the image."""
    lon, lat = lon[~np.isnan(lon)], lat[~np.isnan(lon)]
    with open_raster(terrain) as dem:
        x, y = _project(terrain, crs_of(dem), lon, lat)
        cols, rows = ~dem.transform @ (x, y)
        inside = (cols >= 0) & (cols <= dem.width) & (rows >= 0) & (rows <= dem.height)
    if not inside.all():
        raise KsdiffError(
            f"{terrain}: does not cover {name}, which lies from {lon.min():.5f} to {lon.max():.5f} E and from "
            f"{lat.min():.5f} to {lat.max():.5f} N; give a DEM that does"
        )


def _crs(text: str) -> CRS:
    try:
        found = CRS.from_user_input(text)
    except (CRSError, ValueError):
        raise KsdiffError(f"--ortho-crs {text}: is no known CRS; give one such as EPSG:32631") from None
    if not (found.is_projected or found.is_geographic):
        raise KsdiffError(f"--ortho-crs {text}: is no CRS of a map; give one such as EPSG:32631")
    return found


def _utm(lon: float, lat: float) -> CRS:
    """Return the UTM zone of a place, without the exceptions for Norway; near the poles, the polar one."""
    if abs(lat) > 84 or lat < -80:
        return CRS.from_epsg(32661 if lat > 0 else 32761)
    zone = math.floor((lon + 180) / 6) % 60 + 1
    return CRS.from_epsg((32600 if lat >= 0 else 32700) + zone)


def _project(name: str, crs: Any, lon: Array, lat: Array) -> tuple[Array, Array]:
    try:
        x, y = (np.asarray(values, float) for values in reproject(_WGS84, crs, lon.tolist(), lat.tolist()))
    except Exception as error:
        if not is_from_gdal(error):
            raise
        x = y = np.full(lon.shape, math.inf)
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise KsdiffError(f"{name}: has no place in {crs.to_string()[:60]}; give another CRS")
    return x, y


def _sampling(name: str, rpcs: Any, shape: tuple[int, int], crs: CRS) -> float:
    """Return the side of a square of the area that a pixel in the image's middle has on the ground."""
    rows, cols = shape[0] / 2 + np.array([0, _STEP, 0]), shape[1] / 2 + np.array([0, 0, _STEP])
    x, y = _project(name, crs, *_follow(name, rpcs, {"RPC_HEIGHT": float(rpcs.height_off)}, rows, cols))
    area = np.linalg.det(np.stack([[x[1] - x[0], x[2] - x[0]], [y[1] - y[0], y[2] - y[0]]]))
    return math.sqrt(abs(float(area))) / _STEP


def _round(value: float) -> float:
    return float(f"{value:.1e}")
