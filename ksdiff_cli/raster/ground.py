"""How large a raster's pixels are on the ground, where its georeference tells."""

import math
from typing import Any

from ksdiff_cli.raster.layout import crs_of, has_geotransform

_DEGREE = 111_195.0  # metres of a degree of a great circle, mean radius 6371.0 km


def pixel_metres(dataset: Any) -> float | None:
    """Return the width of a pixel in metres, in the middle of the image.

    Args:
        dataset: an open raster.

    Returns:
        Metres; None where the file has no CRS or does not say where its pixels lie.
    """
    crs, at = crs_of(dataset), dataset.transform
    if crs is None or not has_geotransform(dataset):
        return None
    if crs.is_geographic:
        latitude = (at @ (dataset.width / 2, dataset.height / 2))[1]
        return math.hypot(at.a * math.cos(math.radians(latitude)), at.d) * _DEGREE
    return math.hypot(at.a, at.d) * float(crs.linear_units_factor[1]) if crs.is_projected else None
