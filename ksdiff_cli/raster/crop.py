"""A part of a pair's output grid: from pixels or coordinates to a window, and the pair cut to it."""

import math
from dataclasses import replace

from rasterio.crs import CRS
from rasterio.errors import CRSError
from rasterio.warp import transform_bounds

from ksdiff_cli.errors import KsdiffError
from ksdiff_cli.raster.layout import crs_name
from ksdiff_cli.raster.open import is_from_gdal
from ksdiff_cli.raster.pair import ScenePair

Crop = tuple[int, int, int, int]
"""Row, column, height, width, in pixels of the output grid (:attr:`ScenePair.shape`)."""
Bounds = tuple[float, float, float, float]
"""West, south, east, north (xmin, ymin, xmax, ymax), in coordinates of some CRS."""

_SLACK = 1e-6  # pixels by which coordinates may miss a pixel's border and still mean it


def crop_to(pair: ScenePair, window: Crop | None = None, bbox: Bounds | None = None, bbox_crs: str = "") -> Crop:
    """Return the part of the output grid that a window or a bounding box asks for; the whole without either.

    A window must lie on the output. Of a bounding box every pixel is taken that it touches, as far as the output goes.

    Args:
        pair: the open pair.
        window: in pixels of the output.
        bbox: in coordinates of ``bbox_crs``; not together with ``window``.
        bbox_crs: anything GDAL takes for a CRS; empty for that of PAN.

    Raises:
        KsdiffError: it is empty or not on the output, PAN has no geotransform to place a bounding box by, or a CRS is
            missing or unknown.
    """
    if window is not None and bbox is not None:
        raise KsdiffError("a window and a bounding box cannot both be given; leave one out")
    if bbox is not None:
        return _crop_to_bounds(pair, bbox, bbox_crs)
    height, width = pair.shape
    row, col, rows, cols = window or (0, 0, height, width)
    if rows < 1 or cols < 1:
        raise KsdiffError(f"the window of {cols} x {rows} pixels is empty; give row,column,height,width")
    if row < 0 or col < 0 or row + rows > height or col + cols > width:
        raise KsdiffError(
            f"the window (rows {row} to {row + rows}, columns {col} to {col + cols}) reaches beyond the output, "
            f"which has {height} rows and {width} columns; give another --window"
        )
    return row, col, rows, cols


def crop_pair(pair: ScenePair, crop: Crop) -> ScenePair:
    """Return the pair cut to a part of its output grid: geotransform, RPCs and GCPs of what is written follow.

    Args:
        pair: the open pair; both share its files.
        crop: a part of its output.
    """
    row, col, height, width = crop
    origin = pair.origin[0] + row, pair.origin[1] + col
    return replace(pair, grid=pair.grid.shifted(row, col), origin=origin, shape=(height, width))


def _crop_to_bounds(pair: ScenePair, bbox: Bounds, bbox_crs: str) -> Crop:
    name = pair.scene.pan.path
    if not pair.located:
        raise KsdiffError(f"{name}: PAN has no geotransform, so coordinates mean nothing; give a window in pixels")
    west, south, east, north = _in_crs_of_pan(pair, bbox, bbox_crs) if bbox_crs else bbox
    if not (all(map(math.isfinite, (west, south, east, north))) and west < east and south < north):
        raise KsdiffError(f"the bounding box {_say(bbox)} is empty; give xmin,ymin,xmax,ymax")
    corners = [~pair.transform @ (x, y) for x in (west, east) for y in (south, north)]
    found = []
    for places, size in zip(([y for _, y in corners], [x for x, _ in corners]), pair.shape, strict=True):
        start = max(0, math.floor(min(places) + _SLACK))
        stop = min(size, math.ceil(max(places) - _SLACK))
        if stop <= start:
            raise KsdiffError(
                f"the bounding box {_say(bbox)} does not meet the output, {_extent(pair)}; give another --bbox"
            )
        found.append((start, stop - start))
    return found[0][0], found[1][0], found[0][1], found[1][1]


def _in_crs_of_pan(pair: ScenePair, bbox: Bounds, bbox_crs: str) -> Bounds:
    target = pair.crs
    if target is None:
        raise KsdiffError(f"{pair.scene.pan.path}: PAN names no CRS; give the bounding box in PAN's own coordinates")
    try:
        given = CRS.from_user_input(bbox_crs)
    except (CRSError, ValueError):
        raise KsdiffError(f"{bbox_crs}: is no known CRS; give one such as EPSG:4326") from None
    try:
        west, south, east, north = transform_bounds(given, target, *bbox)
    except Exception as error:
        if not is_from_gdal(error):
            raise
        west = south = east = north = math.inf
    if not all(map(math.isfinite, (west, south, east, north))):
        raise KsdiffError(
            f"the bounding box {_say(bbox)} has no place in {crs_name(pair)}, the CRS of PAN; give another"
        )
    return west, south, east, north


def _extent(pair: ScenePair) -> str:
    """Say where the output lies."""
    height, width = pair.shape
    corners = [pair.transform @ (col, row) for col in (0, width) for row in (0, height)]
    xs, ys = zip(*corners, strict=True)
    name = crs_name(pair)
    return f"which covers {_say((min(xs), min(ys), max(xs), max(ys)))}" + (f" in {name}" if name else "")


def _say(bounds: Bounds) -> str:
    return ",".join(f"{value:.10g}" for value in bounds)
