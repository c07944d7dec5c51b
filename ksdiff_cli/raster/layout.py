"""How an open PAN and an open MS image lie on each other, and whether they can be fused at all."""

import json
import math
from collections.abc import Sequence
from typing import Any

from rasterio.crs import CRS
from rasterio.errors import CRSError
from rasterio.transform import Affine

from ksdiff_cli.errors import KsdiffError
from ksdiff_cli.numerics.grids import Axis, GridMap, corner_aligned

_WIDEST_RATIO = 20  # PAN pixels per MS pixel; beyond it the two images hardly belong together
_FINER = 0.8  # a PAN pixel is at most this many MS pixels wide
_ROTATION = 0.05  # PAN pixels by which neglecting a rotation may misplace the image's border
_MOST_PIXELS = 1 << 40  # of an image: a thousand kilometres squared at 1 m
_SAME = 0.01  # pixels by which two images on one grid may differ


def check_pair(pan: Any, ms: tuple[Any, ...]) -> None:
    """Refuse what cannot be fused, whatever the grids: see Raises.

    Raises:
        KsdiffError: MS bands on different grids, complex values, PAN with several bands or no finer than MS.
    """
    first = ms[0]
    check_bands(ms, "MS bands")
    opened = list({id(dataset): dataset for dataset in (pan, *ms)}.values())  # bands of one file share it
    for dataset in opened:
        check_extent(dataset)
        if any("complex" in kind for kind in dataset.dtypes):
            raise KsdiffError(f"{dataset.name}: has complex values; give amplitudes or reflectances")
    located = both_located(pan, first)
    if not located and pan.width <= first.width and pan.height <= first.height:
        raise KsdiffError(
            f"{pan.name}: PAN ({pan.width} x {pan.height}) is not finer than MS {first.name} "
            f"({first.width} x {first.height}); are PAN and MS swapped? PAN comes first"
        )


def check_extent(dataset: Any) -> None:
    """Refuse an image whose declared size no disk holds: a few bytes can declare it, and work would not end.

    Raises:
        KsdiffError: see above.
    """
    if dataset.width * dataset.height > _MOST_PIXELS:
        raise KsdiffError(
            f"{dataset.name}: declares {dataset.width} x {dataset.height} pixels, more than any scene has; check the "
            "file, or cut out a part with gdal_translate -srcwin"
        )


def check_bands(datasets: Sequence[Any], what: str) -> None:
    """Refuse open images that do not lie pixel on pixel on the first.

    Raises:
        KsdiffError: one does not; the message calls them ``what``.
    """
    for dataset in {id(dataset): dataset for dataset in datasets}.values():
        if why := _other_grid(dataset, datasets[0]):
            raise KsdiffError(
                f"{dataset.name}: lies on another grid than {datasets[0].name} ({why}); {what} must share one grid; "
                "sharpen those of each grid by themselves"
            )


def check_quality(quality: Any, ms: Any) -> None:
    """Refuse a quality band that does not lie pixel on pixel on MS, or holds no flags.

    Raises:
        KsdiffError: another size or grid, or values that are not integers.
    """
    if why := _other_grid(quality, ms):
        raise KsdiffError(
            f"{quality.name}: the quality band lies on another grid than MS {ms.name} ({why}); fetch both again"
        )
    if not quality.dtypes[0].startswith(("uint", "int")):
        raise KsdiffError(f"{quality.name}: a quality band holds integers, not {quality.dtypes[0]}")


def check_colours(dataset: Any, bands: Sequence[int]) -> None:
    """Refuse bands, by number from 1, that hold indexes into a colour table, which no filter may mix.

    Raises:
        KsdiffError: one does; a table of greys that follow each other is none.
    """
    for band in bands:
        try:
            table = dataset.colormap(band)
        except ValueError:  # rasterio's way to say that there is none
            continue
        if any(colour[:3] != (index,) * 3 for index, colour in table.items()):
            raise KsdiffError(
                f"{dataset.name}: band {band} holds indexes into a colour table, not brightness; turn it into colours "
                f"first: gdal_translate -expand rgb {dataset.name} rgb.tif"
            )


def _other_grid(dataset: Any, first: Any) -> str:
    """Say how two grids differ; empty where they are one."""
    if dataset.shape != first.shape:
        return f"{dataset.width} x {dataset.height} pixels, not {first.width} x {first.height}"
    if not same_crs(dataset, first):
        return f"{crs_name(dataset)}, not {crs_name(first)}"
    if dataset.transform == first.transform or not has_geotransform(first):
        return ""
    # in pixels, for a fixed number of digits says nothing in degrees
    away = ~first.transform @ dataset.transform
    corners = [(0.0, 0.0), (dataset.width, 0.0), (0.0, dataset.height), (dataset.width, dataset.height)]
    for col, row in corners:
        x, y = away @ (col, row)
        if math.hypot(x - col, y - row) > _SAME:
            return f"a corner {x - col:.2f} columns and {y - row:.2f} rows off"
    return ""


def georeferenced(dataset: Any) -> bool:
    """Say whether an image carries a CRS or a geotransform."""
    return dataset.crs is not None or has_geotransform(dataset)


def has_geotransform(dataset: Any) -> bool:
    """Say whether an image says where its pixels lie; a CRS alone does not, nor does what GDAL makes up without."""
    transform = dataset.transform
    numbers = all(map(math.isfinite, transform))
    return numbers and not (transform.is_degenerate or transform.almost_equals(Affine.identity()))


def both_located(pan: Any, ms: Any) -> bool:
    """Say whether geotransforms lay two images on each other; pixel numbers as the coordinates of both do not."""
    return has_geotransform(pan) and has_geotransform(ms) and not (pixel_numbers(pan) and pixel_numbers(ms))


def pixel_numbers(dataset: Any) -> bool:
    """Say whether an image's coordinates count its pixels from its corner, as those of a grid of 1 m may do too."""
    return bool(dataset.transform.almost_equals(Affine.scale(1, -1)))


def sensor_geometry(dataset: Any) -> str | None:
    """Name what an image in sensor geometry has instead of a geotransform: RPCs, GCPs or nothing."""
    points, _ = dataset.gcps
    found = [name for name, there in (("RPCs", dataset.rpcs), (f"{len(points)} GCPs", points)) if there]
    return " and ".join(found) or None


def lay(pan: Any, ms: Any) -> tuple[GridMap, list[str]]:
    """Find the map from PAN to MS pixels, from the geotransforms or, without them, by the shared corner.

    Returns:
        The map, and notes a person should read.

    Raises:
        KsdiffError: different CRS, grids rotated against each other, PAN no finer than MS, or sizes at no integer
            ratio.
    """
    if not both_located(pan, ms):
        return _by_corner(pan, ms)
    if why := warp_reason(pan, ms):
        raise KsdiffError(f"{ms.name}: {why} {pan.name}; warp it with --warp")
    return _by_transform(pan, ms), crs_notes(pan, ms)


def warp_reason(pan: Any, ms: Any) -> str | None:
    """Say what keeps rows and columns of MS from running along those of PAN; None if nothing does.

    Returns:
        Words that go on with PAN's name, such as "its CRS (EPSG:32632) differs from that (EPSG:32631) of PAN".
    """
    if not both_located(pan, ms):
        return None
    if not same_crs(pan, ms):
        return f"its CRS ({crs_name(ms)}) differs from that ({crs_name(pan)}) of PAN"
    to_ms = ~ms.transform @ pan.transform
    # the rotation is neglected, exactly at the image's centre and most wrongly at its border
    slack = 2 * _ROTATION
    if abs(to_ms.b) * pan.height <= slack * abs(to_ms.a) and abs(to_ms.d) * pan.width <= slack * abs(to_ms.e):
        return None
    return f"its grid is rotated (by {turned(to_ms):.3g}°) or sheared against that of PAN"


def turned(to_ms: Affine) -> float:
    """Return by how many degrees MS is rotated against PAN, -90 to 90, clockwise; a flipped grid counts as not rotated.

    Args:
        to_ms: the map from PAN to MS pixels, its linear part near one point.
    """
    right = ~to_ms @ (1.0, 0.0)
    start = ~to_ms @ (0.0, 0.0)
    angle = math.degrees(math.atan2(right[1] - start[1], right[0] - start[0]))
    return angle - math.copysign(180, angle) if abs(angle) > 90 else angle


def crs_of(dataset: Any) -> Any:
    """Return an image's CRS; None without, also where GDAL makes up a nameless one for a GeoTIFF of points."""
    crs = dataset.crs
    return None if crs is None or crs.to_wkt().startswith('LOCAL_CS["unnamed"') else crs


def same_crs(first: Any, second: Any) -> bool:
    """Say whether two images are in the same CRS, however it is written; one that names none is in the other's.

    Heights do not count: a grid of an image has none.
    """
    own, other = crs_of(first), crs_of(second)
    if not own or not other or own == other:
        return True
    own, other = _horizontal(own), _horizontal(other)
    return bool(own == other or (own.to_epsg(100) or 0) == other.to_epsg(100))


def _horizontal(crs: Any) -> Any:
    """Return a CRS without what it says of heights, if it says any."""
    try:
        about = crs.to_dict(projjson=True)
    except CRSError:
        return crs
    kind = about.get("type")
    if kind == "CompoundCRS":
        about = about["components"][0]
    elif kind not in ("GeographicCRS", "ProjectedCRS"):
        return crs
    axes = about.get("coordinate_system", {}).get("axis", [])
    if len(axes) == 3:
        about = about | {"coordinate_system": about["coordinate_system"] | {"axis": axes[:2]}}
        about.pop("id", None)
    elif kind != "CompoundCRS":
        return crs
    try:
        return CRS.from_user_input(json.dumps(about))
    except CRSError:
        return crs


def crs_name(dataset: Any) -> str:
    """Return an image's CRS for people: an EPSG code where there is one; empty without a CRS."""
    crs = crs_of(dataset)
    if crs is None:
        return ""
    epsg = crs.to_epsg()
    return f"EPSG:{epsg}" if epsg else str(crs.to_wkt()[:60])


def crs_notes(pan: Any, ms: Any) -> list[str]:
    """Say which of the two names no CRS though the other does."""
    names = crs_name(pan), crs_name(ms)
    if all(names) or not any(names):
        return []
    bare, other, name = ("MS", "PAN", names[0]) if names[0] else ("PAN", "MS", names[1])
    return [f"{bare} names no CRS: its coordinates are taken to be in {other}'s, {name}"]


def ratio_by_size(pan: Any, ms: Any) -> int | None:
    """Return the whole ratio at which the sizes of two images match, some last pixels apart; None without one."""
    ratio = round(math.sqrt(pan.width * pan.height / (ms.width * ms.height)))
    slack = max(abs(pan.width - ratio * ms.width), abs(pan.height - ratio * ms.height))
    return None if ratio < 2 or slack >= ratio * max(1.0, 0.002 * max(ms.width, ms.height)) else ratio


def _by_corner(pan: Any, ms: Any) -> tuple[GridMap, list[str]]:
    """Lay images in sensor geometry, or without any, corner on corner."""
    ratio = ratio_by_size(pan, ms)
    if ratio is None:
        raise KsdiffError(
            f"{pan.name}: {pan.width} x {pan.height} pixels do not match MS {ms.name} ({ms.width} x {ms.height}) at "
            "an integer ratio, and there is no georeference to lay them on each other; do the two belong together?"
        )
    found = []
    for name, dataset in (("PAN", pan), ("MS", ms)):
        instead = sensor_geometry(dataset)
        if not has_geotransform(dataset):
            found.append((name, "no geotransform" + (f", only {instead}" if instead else "")))
    if not found:
        why = "no geotransform"
    elif len(found) == 2 and found[0][1] == found[1][1]:
        why = found[0][1]
    else:
        why = "; ".join(f"{name} has {what}" for name, what in found)
    kept = ""
    if not has_geotransform(pan):
        by_ms = ", whose georeference the output takes" if has_geotransform(ms) else ""
        kept = " and kept in sensor geometry" if sensor_geometry(pan) else by_ms
    return corner_aligned(ratio), [f"{why}: PAN and MS are laid corner on corner at ratio {ratio}{kept}"]


def _by_transform(pan: Any, ms: Any) -> GridMap:
    # corner coordinates: MS = ~T_ms * T_pan * PAN; for pixel centres add and subtract half a pixel
    to_ms = ~ms.transform @ pan.transform
    check_sizes(pan, ms, (1 / abs(to_ms.a), 1 / abs(to_ms.e)))
    # what is left of a rotation counts as it is in the middle
    return GridMap(
        Axis(to_ms.e, 0.5 * to_ms.e + to_ms.d * pan.width / 2 + to_ms.f - 0.5),
        Axis(to_ms.a, 0.5 * to_ms.a + to_ms.b * pan.height / 2 + to_ms.c - 0.5),
    )


def check_sizes(pan: Any, ms: Any, size: tuple[float, float]) -> None:
    """Refuse MS pixels that are not larger than PAN's, or far too large.

    Args:
        pan: the open PAN image.
        ms: the open MS image.
        size: width and height of an MS pixel, PAN pixels.

    Raises:
        KsdiffError: they are.
    """
    if max(size) <= 1 / _FINER:
        raise KsdiffError(
            f"{pan.name}: its pixels are not smaller than those of MS {ms.name}; "
            "are PAN and MS swapped? PAN comes first"
        )
    if max(size) >= _WIDEST_RATIO or min(size) <= 1 / _FINER:
        raise KsdiffError(
            f"{ms.name}: an MS pixel is {size[0]:.1f} x {size[1]:.1f} PAN pixels; check that both belong to one scene"
        )


def intersection(
    grid: GridMap, pan: Any, ms: Any, ms_shape: tuple[int, int]
) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return origin and shape, in PAN pixels, of the area that both images cover.

    That is the PAN pixels whose centre lies on the MS image, or less than half an MS pixel beside it.

    Args:
        grid: the map from PAN to MS pixels.
        pan: the open PAN image.
        ms: the open MS image, for its name and CRS.
        ms_shape: (height, width) of MS on the grid.

    Raises:
        KsdiffError: there is none.
    """
    found = []
    for axis, count, size in zip((grid.rows, grid.cols), (pan.height, pan.width), ms_shape, strict=True):
        ends = sorted((axis.to_pan(-1.0), axis.to_pan(float(size))))
        first, last = max(0, math.ceil(ends[0] - 1e-6)), min(count - 1, math.floor(ends[1] + 1e-6))
        if last < first:
            raise no_overlap(pan, ms)
        found.append((first, last - first + 1))
    return (found[0][0], found[1][0]), (found[0][1], found[1][1])


def no_overlap(pan: Any, ms: Any) -> KsdiffError:
    """Return the error of two images that do not meet."""
    doubts = crs_notes(pan, ms) if both_located(pan, ms) else []
    why = f" ({doubts[0]})" if doubts else ""
    return KsdiffError(f"{ms.name}: does not overlap PAN {pan.name}{why}; check that both belong to one scene")


# ---- ground size

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
