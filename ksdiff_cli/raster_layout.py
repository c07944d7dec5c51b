"""How an open PAN and an open MS image lie on each other, and whether they can be fused at all."""

import math
from typing import Any

from rasterio.transform import Affine

from ksdiff_cli.errors import KsdiffError
from ksdiff_cli.grids import Axis, GridMap, corner_aligned

_WIDEST_RATIO = 20  # PAN pixels per MS pixel; beyond it the two images hardly belong together
_FINER = 0.8  # a PAN pixel is at most this many MS pixels wide
_ROTATION = 0.05  # PAN pixels by which two grids may turn against each other over the whole image


def check_pair(pan: Any, ms: tuple[Any, ...]) -> None:
    """Refuse what cannot be fused, whatever the grids: see Raises.

    Raises:
        KsdiffError: MS bands on different grids, complex values, PAN with several bands or no finer than MS.
    """
    first = ms[0]
    for dataset in ms:
        if dataset.shape != first.shape or not dataset.transform.almost_equals(first.transform):
            raise KsdiffError(f"{dataset.name}: lies on another grid than {first.name}; MS bands must share one grid")
    for dataset in (pan, *ms):
        if any("complex" in kind for kind in dataset.dtypes):
            raise KsdiffError(f"{dataset.name}: has complex values; give amplitudes or reflectances")
    if not (georeferenced(pan) and georeferenced(first)) and pan.width <= first.width and pan.height <= first.height:
        raise KsdiffError(
            f"{pan.name}: PAN ({pan.width} x {pan.height}) is not finer than MS {first.name} "
            f"({first.width} x {first.height}); are PAN and MS swapped? PAN comes first"
        )


def georeferenced(dataset: Any) -> bool:
    """Say whether an image carries a CRS or a geotransform."""
    return dataset.crs is not None or not dataset.transform.almost_equals(Affine.identity())


def lay(pan: Any, ms: Any) -> tuple[GridMap, list[str]]:
    """Find the map from PAN to MS pixels, from the geotransforms or, without them, by the shared corner.

    Returns:
        The map, and notes a person should read.

    Raises:
        KsdiffError: different CRS, rotated grids, PAN no finer than MS, or sizes at no integer ratio.
    """
    if georeferenced(pan) and georeferenced(ms):
        if pan.crs and ms.crs and pan.crs != ms.crs:
            raise KsdiffError(
                f"{ms.name}: its CRS ({crs_name(ms)}) differs from PAN's ({crs_name(pan)}); warp MS to PAN's CRS first"
            )
        return _by_transform(pan, ms), []
    ratio = round(math.sqrt(pan.width * pan.height / (ms.width * ms.height)))
    slack = max(abs(pan.width - ratio * ms.width), abs(pan.height - ratio * ms.height))
    if ratio < 2 or slack >= ratio * max(1.0, 0.002 * max(ms.width, ms.height)):
        raise KsdiffError(
            f"{pan.name}: {pan.width} x {pan.height} pixels do not match MS {ms.name} ({ms.width} x {ms.height}) at "
            "an integer ratio, and there is no georeference to lay them on each other"
        )
    return corner_aligned(ratio), [f"no common georeference: PAN and MS are laid corner on corner at ratio {ratio}"]


def crs_name(dataset: Any) -> str:
    """Return an image's CRS for people: an EPSG code where there is one; empty without a CRS."""
    if dataset.crs is None:
        return ""
    epsg = dataset.crs.to_epsg()
    return f"EPSG:{epsg}" if epsg else str(dataset.crs.to_wkt()[:60])


def _by_transform(pan: Any, ms: Any) -> GridMap:
    # corner coordinates: MS = ~T_ms * T_pan * PAN; for pixel centres add and subtract half a pixel
    to_ms = ~ms.transform @ pan.transform
    if max(abs(to_ms.b), abs(to_ms.d)) * max(pan.width, pan.height) > _ROTATION:
        raise KsdiffError(f"{ms.name}: its grid is rotated against PAN's {pan.name}; warp one onto the other first")
    narrow, wide = sorted((abs(to_ms.a), abs(to_ms.e)))
    if narrow >= _FINER:
        raise KsdiffError(
            f"{pan.name}: its pixels are not smaller than those of MS {ms.name}; "
            "are PAN and MS swapped? PAN comes first"
        )
    if narrow <= 1 / _WIDEST_RATIO or wide >= _FINER:
        raise KsdiffError(
            f"{ms.name}: an MS pixel is {1 / abs(to_ms.a):.1f} x {1 / abs(to_ms.e):.1f} PAN pixels; "
            "check that both belong to one scene"
        )
    return GridMap(
        Axis(to_ms.e, 0.5 * to_ms.e + to_ms.f - 0.5),
        Axis(to_ms.a, 0.5 * to_ms.a + to_ms.c - 0.5),
    )


def intersection(grid: GridMap, pan: Any, ms: Any) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return origin and shape, in PAN pixels, of the area that both images cover.

    That is the PAN pixels whose centre lies on the MS image, or less than half an MS pixel beside it.

    Raises:
        KsdiffError: there is none.
    """
    found = []
    for axis, count, size in ((grid.rows, pan.height, ms.height), (grid.cols, pan.width, ms.width)):
        ends = sorted((axis.to_pan(-1.0), axis.to_pan(float(size))))
        first, last = max(0, math.ceil(ends[0] - 1e-6)), min(count - 1, math.floor(ends[1] + 1e-6))
        if last < first:
            raise KsdiffError(f"{ms.name}: does not overlap PAN {pan.name}; check that both belong to one scene")
        found.append((first, last - first + 1))
    return (found[0][0], found[1][0]), (found[0][1], found[1][1])
