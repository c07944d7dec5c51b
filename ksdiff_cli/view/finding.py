"""From what a person names on the command line to layers that lie on one grid."""

import math
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePath
from typing import Any

from rasterio.transform import Affine

from ksdiff_cli.checks import Nodata
from ksdiff_cli.errors import KsdiffError
from ksdiff_cli.evaluation.maps import SHOWS_TAG
from ksdiff_cli.products import find_scene, make_pair, names_scenes
from ksdiff_cli.products.plain import ms_bands
from ksdiff_cli.raster.bands import BandSource
from ksdiff_cli.raster.layout import (
    both_located,
    check_colours,
    crs_name,
    crs_of,
    has_geotransform,
    pixel_metres,
    same_crs,
)
from ksdiff_cli.raster.nodata import declare, declare_band
from ksdiff_cli.raster.open import data_bands, open_raster
from ksdiff_cli.raster.pair import Scene
from ksdiff_cli.raster.synthesis import GuidedScene
from ksdiff_cli.sensors import fold_name
from ksdiff_cli.view.grid import Grid, Line, Place
from ksdiff_cli.view.layers import About, Cache, FileLayer, Kind
from ksdiff_cli.view.reading import Reader, Warp, find_overviews

MOST = 6
"""Layers that one page shows."""
_COARSER = 1.25  # times as wide as a PAN pixel that one of MS is at least
_SLACK = 0.05  # pixels by which neglecting a rotation may misplace a layer's border


@dataclass(frozen=True)
class Named:
    """What a person named."""

    scene: Scene | None
    """PAN and MS, where they are among it."""
    images: tuple[tuple[str, tuple[BandSource, ...]], ...]
    """(name, bands) of each layer, PAN and MS first."""


@dataclass
class Found:
    """Layers from files, on one grid."""

    grid: Grid
    layers: list[FileLayer]
    scene: Scene | None = None
    notes: list[str] = field(default_factory=list)


def read_names(inputs: Sequence[str], sensor: str | None, nodata: tuple[Nodata, Nodata] = (None, None)) -> Named:
    """Tell PAN, MS and results apart.

    Args:
        inputs: a scene's folder, archive or metadata file, or PAN and MS, or neither; then other rasters.
        sensor: who took PAN and MS; None takes what the product says.
        nodata: what means "no data" in PAN and in MS.

    Raises:
        KsdiffError: something is missing, no raster or no scene, or there are too many.
    """
    pan, ms, rest = [], [], list(inputs)
    scene = None
    if Path(inputs[0]).is_dir() or names_scenes(inputs[0]):
        found, rest = find_scene(inputs[:1], sensor), rest[1:]
        if isinstance(found, GuidedScene):
            ms = [("finest", found.guide), *((group.name, group.bands) for group in found.groups)]
        else:
            scene = found
    elif count := _pair_at(inputs):
        scene, rest = make_pair(inputs[0], inputs[1:count], sensor), rest[count:]
    if scene is not None:
        scene = declare(scene, nodata)
        pan = [("PAN", (scene.pan,))]
        ms = [("MS", _with_names(scene))]
    # results declare their own nodata; rasters that are named alone are what the user speaks of
    said = None if scene is not None else nodata[1]
    others = [(_short(path, rest), tuple(declare_band(one, said) for one in ms_bands(path))) for path in rest]
    images = (*pan, *ms, *others)
    if len(images) > MOST:
        raise KsdiffError(f"{len(images)} layers, but a page shows {MOST} at most; name fewer rasters")
    return Named(scene, images)


def _with_names(scene: Scene) -> tuple[BandSource, ...]:
    """Return the MS bands, those without a name with the sensor's."""
    names = scene.sensor.bands if len(scene.sensor.bands) == len(scene.ms) else ("",) * len(scene.ms)
    return tuple(replace(one, name=one.name or name) for one, name in zip(scene.ms, names, strict=True))


def _short(path: str, among: Sequence[str]) -> str:
    """Return a file's name for people; with its folder's where two have one name."""
    own = PurePath(path)
    twins = [other for other in among if PurePath(other).stem == own.stem]
    return f"{own.parent.name}/{own.stem}" if len(twins) > 1 and own.parent.name else own.stem


def _pair_at(inputs: Sequence[str]) -> int:
    """Return how many of the first rasters are PAN and MS; 0 where they do not look like it."""
    if len(inputs) < 2:
        return 0
    with ExitStack() as stack:
        pan, *others = (stack.enter_context(open_raster(path)) for path in inputs)
        first = others[0]
        if len(data_bands(pan)) > 1 or not _coarser(pan, first):
            return 0
        count = 2
        if len(data_bands(first)) == 1:  # MS may be a file a band, which then follow each other
            alike = [len(data_bands(one)) == 1 and _same_grid(one, first) for one in others]
            count += next((number for number, own in enumerate(alike) if not own), len(others)) - 1
        return count


def _coarser(pan: Any, other: Any) -> bool:
    if both_located(pan, other) and same_crs(pan, other):
        return math.sqrt(abs(other.transform.determinant / pan.transform.determinant)) >= _COARSER
    if both_located(pan, other):
        fine, coarse = pixel_metres(pan), pixel_metres(other)
        return bool(fine and coarse and coarse >= _COARSER * fine)
    return bool(pan.width >= _COARSER * other.width)


def _same_grid(first: Any, second: Any) -> bool:
    return bool(first.shape == second.shape and first.transform.almost_equals(second.transform))


def find_layers(named: Named, cache: Cache) -> Found:
    """Lay all layers on the grid of the finest one.

    Args:
        named: from :func:`read_names`.
        cache: for their pixels.

    Raises:
        KsdiffError: a file cannot be read, or a layer shows indexes into a colour table, or another place.
    """
    with ExitStack() as stack:
        paths = dict.fromkeys(source.path for _, sources in named.images for source in sources)
        opened = {path: stack.enter_context(open_raster(path)) for path in paths}
        base = _finest([opened[sources[0].path] for _, sources in named.images])
        located = has_geotransform(base)
        grid = Grid(base.height, base.width, base.transform if located else None, crs_of(base), pixel_metres(base))
        found = Found(grid, [], named.scene)
        reasons: dict[str, list[str]] = {}
        for name, sources in named.images:
            files = [opened[path] for path in dict.fromkeys(source.path for source in sources)]
            for source in sources:
                check_colours(opened[source.path], [source.band])
            place, warp, why = _place(base, files[0])
            if why:
                reasons.setdefault(why, []).append(name)
            about = _about(name, sources, files, named.scene, why)
            shape = warp.shape if warp else files[0].shape
            reader = Reader(sources, find_overviews(files), warp)
            layer = FileLayer(about, shape, place, cache, reader)
            _check_overlap(grid, layer, files[0].name, base.name)
            found.layers.append(layer)
    found.notes = [f"{', '.join(names)}: {why}" for why, names in reasons.items()]
    return found


def _finest(datasets: Sequence[Any]) -> Any:
    """Return the image with the smallest pixels; of several the largest, then the first."""
    if not all(has_geotransform(one) for one in datasets):
        return max(datasets, key=lambda one: one.width * one.height)

    def size(one: Any) -> float:
        return pixel_metres(one) or math.sqrt(abs(one.transform.determinant))

    least = min(size(one) for one in datasets)
    return max((one for one in datasets if size(one) <= 1.01 * least), key=lambda one: one.width * one.height)


def _place(base: Any, own: Any) -> tuple[Place, Warp | None, str]:
    """Return where an image lies on the grid, the grid it must be warped to, if any, and what to tell of it."""
    if own is base:
        return Place(), None, ""
    if not has_geotransform(base) and own.tags().get(SHOWS_TAG):
        # a map of an image without georeference counts that image's pixels
        return Place.between(Affine.identity(), own.transform), None, ""
    if not both_located(base, own):
        if own.shape == base.shape:
            return Place(), None, ""
        lines = []
        for mine, its in zip(own.shape, base.shape, strict=True):
            times = round(its / mine)
            whole = times >= 1 and abs(its - times * mine) < times  # the last pixel may be cut off
            lines.append(Line(1 / times if whole else mine / its))
        return Place(*lines), None, "no geotransform, so it is laid corner on corner"
    if not same_crs(base, own):
        return (
            Place(),
            _warp(base),
            f"shown in the CRS of the finest layer, {crs_name(base)}; its own is {crs_name(own)}",
        )
    away = ~own.transform @ base.transform
    if abs(away.b) * base.height > _SLACK or abs(away.d) * base.width > _SLACK:
        return Place(), _warp(base), "turned to the rows and columns of the finest layer"
    return Place.between(base.transform, own.transform), None, ""


def _warp(base: Any) -> Warp:
    return Warp(Affine(*base.transform[:6]), crs_of(base), base.shape)


def _check_overlap(grid: Grid, layer: FileLayer, path: str, base: str) -> None:
    ends = []
    for line, grid_size, own in zip(
        (layer.place.rows, layer.place.cols), (grid.height, grid.width), layer.shape, strict=True
    ):
        low, high = sorted((line.start, line.scale * grid_size + line.start))
        ends.append(low < own and high > 0)
    if not all(ends):
        raise KsdiffError(f"{path}: shows another place than {base}; name rasters of one place")


def _about(name: str, sources: Sequence[BandSource], files: Sequence[Any], scene: Scene | None, why: str) -> About:
    """Say what is known of a layer."""
    first = files[0]
    shows = first.tags().get(SHOWS_TAG, "")
    kind: Kind = "image" if len(sources) > 1 else "pan"
    if shows or (len(sources) == 1 and first.dtypes[0].startswith("float") and name != "PAN"):
        kind = "map"
    names = tuple(source.name for source in sources)
    if scene is not None and len(sources) == len(scene.ms) and not all(names):
        names = tuple(source.name for source in _with_names(scene))
    if kind == "pan" or (kind == "map" and len(sources) == 1):
        names = ("",)
    middles = _wavelengths(names, scene)
    unit = shows if kind == "map" else "DN"
    path = PurePath(sources[0].path).name + (f" and {len(files) - 1} more" if len(files) > 1 else "")
    return About(name, kind, names, first.dtypes[sources[0].band - 1], middles, unit, why, path)


def _wavelengths(names: Sequence[str], scene: Scene | None) -> tuple[float, ...]:
    """Return the middle of each band, nm; () unless all are known."""
    if scene is None or not scene.sensor.wavelengths:
        return ()
    middle = [(low + high) / 2 for low, high in scene.sensor.wavelengths]
    known = dict(zip((fold_name(name) for name in scene.sensor.bands), middle, strict=True))
    if all(fold_name(name) in known for name in names):
        return tuple(known[fold_name(name)] for name in names)
    return tuple(middle) if len(middle) == len(names) else ()
