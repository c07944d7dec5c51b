"""Bands of several resolutions that a person names file by file: the finest guide the others."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from ksdiff_cli.errors import KsdiffError
from ksdiff_cli.products.folder import Folder
from ksdiff_cli.products.plain import ms_bands
from ksdiff_cli.products.product import fit_sensor
from ksdiff_cli.raster.bands import BandSource
from ksdiff_cli.raster.layout import has_geotransform, pixel_numbers
from ksdiff_cli.raster.open import open_raster
from ksdiff_cli.raster.synthesis import Group, GuidedScene
from ksdiff_cli.sensors import SENSORS, Sensor, find_sensor

LOOKS_FOR = "bands of several resolutions (B02.tif, B05.tif …)"

_SUFFIXES = (".tif", ".tiff", ".vrt", ".img", ".jp2")
_MOST = 200  # files that are opened to see which are finer
_SAME = 1.02  # how much larger pixels of one grid may be
_COARSER = 1.5  # how much larger those of the next one are, at least
# T33UUB_20170527T102031_B05.jp2, …_B05_20m.jp2, B8A.tif; Landsat's names have no 0 before one digit
_SENTINEL = re.compile(r"(?:.*_)?(?P<band>B(?:0\d|1[0-2]|8A))(?:_(?P<metres>[126]0)m)?", re.IGNORECASE)
_LANDSAT = re.compile(r"L[COTEM]\d", re.IGNORECASE)


@dataclass(frozen=True)
class _File:
    path: str
    bands: tuple[BandSource, ...]
    pixel: float
    """Its side: in units of its CRS; or, without georeference, of the largest image of all that cover the same."""
    located: bool


def read(folder: Folder, sensor: Sensor | None) -> list[GuidedScene]:
    """Return the one scene of a folder of bands of which several are the finest; [] of any other one."""
    files = [folder.at(name) for name in folder.files if name.lower().endswith(_SUFFIXES)]
    if not 3 <= len(files) <= _MOST or not guides_itself(files):
        return []
    scene = sort_files((), files)
    if sensor is None:
        return [replace(scene, name=folder.name)]
    groups = [replace(group, sensor=fit_sensor(sensor, [one.name for one in group.bands])) for group in scene.groups]
    return [replace(scene, name=folder.name, groups=tuple(groups))]


def sort_files(guide: Sequence[str], others: Sequence[str], sensor: str | None = None) -> GuidedScene:
    """Sort bands by their resolution: the finest guide, the others are groups.

    Args:
        guide: files that are certainly of the finest bands; others on their grid join them.
        others: further files.
        sensor: a sensor's name or file; None takes Sentinel-2 where all bands are called as its are, else generic.

    Raises:
        KsdiffError: a file is missing or no raster, no band is coarser, or resolutions differ by less than a half.
    """
    files = _look_at([*guide, *others])
    steps = _steps(files)
    finest = steps[0]
    astray = [path for path in guide if path not in {file.path for file in finest}]
    if astray:
        raise KsdiffError(
            f"{astray[0]}: is coarser than {finest[0].path}, so it cannot guide it; bands after --guide are the finest"
        )
    if len(steps) < 2:
        raise KsdiffError(
            f"{finest[0].path}: is as fine as all other bands given, so nothing is left to sharpen; name coarser bands "
            "after those of --guide"
        )
    own = find_sensor(sensor) if sensor else _own_sensor(files)
    named = _name_apart([source for step in steps for file in step for source in file.bands])
    bands = iter(named)
    sorted_steps = [tuple(next(bands) for file in step for _ in file.bands) for step in steps]
    groups = [
        Group(_say_size(step[0], finest[0]), sources, fit_sensor(own, [source.name for source in sources]))
        for step, sources in zip(steps[1:], sorted_steps[1:], strict=True)
    ]
    return GuidedScene(groups[0].bands[0].name or "scene", sorted_steps[0], tuple(groups))


def guides_itself(paths: Sequence[str]) -> bool:
    """Say whether files are bands of several resolutions rather than PAN and MS: several of them are the finest.

    Files that cannot be opened, or sorted, count as PAN and MS: what is wrong with them is said there.
    """
    try:
        steps = _steps(_look_at(paths))
    except KsdiffError:
        return False
    return len(steps) > 1 and (len(steps[0]) > 1 or (len(steps) > 2 and steps[0][0].path == paths[0]))


def _look_at(paths: Sequence[str]) -> list[_File]:
    """Open files, each once, for their bands and the size of their pixels."""
    found = []
    for path in dict.fromkeys(paths):
        bands = ms_bands(path)
        with open_raster(path) as dataset:
            located = has_geotransform(dataset) and not pixel_numbers(dataset)
            area = abs(dataset.transform.determinant) if located else 1 / (dataset.width * dataset.height)
            shape = dataset.shape
        names = [_SENTINEL.fullmatch(source.name) for source in bands]
        named = tuple(
            replace(source, name=match["band"].upper()) if match else source
            for source, match in zip(bands, names, strict=True)
        )
        found.append((_File(path, named, math.sqrt(area), located), shape))
    if all(file.located for file, _ in found):
        return [file for file, _ in found]
    # images of one scene: more pixels are finer pixels
    return [replace(file, pixel=1 / math.sqrt(math.prod(shape)), located=False) for file, shape in found]


def _steps(files: Sequence[_File]) -> list[list[_File]]:
    """Sort files by the size of their pixels, those of one size together, in the order given."""
    steps: list[list[_File]] = []
    for file in sorted(files, key=lambda file: file.pixel):
        if steps and file.pixel <= _SAME * steps[-1][0].pixel:
            steps[-1].append(file)
        elif steps and file.pixel < _COARSER * steps[-1][0].pixel:
            raise KsdiffError(
                f"{file.path}: its pixels are {file.pixel / steps[-1][0].pixel:.2f} times those of "
                f"{steps[-1][0].path}, neither as fine nor clearly coarser; give bands of one grid, or coarser ones"
            )
        else:
            steps.append([file])
    places = {file.path: number for number, file in enumerate(files)}
    return [sorted(step, key=lambda file: places[file.path]) for step in steps]


def _own_sensor(files: Sequence[_File]) -> Sensor:
    """Return Sentinel-2's where all files are called as its bands are, else the generic one."""
    known = set(SENSORS["S2"].bands)
    mine = all(source.name in known for file in files for source in file.bands)
    return find_sensor("S2" if mine and not any(_LANDSAT.search(file.path) for file in files) else None)


def _name_apart(bands: Sequence[BandSource]) -> list[BandSource]:
    """Give bands without a name, or with one of another band, a name of their own."""
    taken: set[str] = set()
    named = []
    for number, source in enumerate(bands, start=1):
        name = source.name or f"band{number}"
        while name in taken:
            name = f"{name}_{source.band}" if f"{name}_{source.band}" not in taken else f"{name}_{number}"
        taken.add(name)
        named.append(replace(source, name=name))
    return named


def _say_size(file: _File, finest: _File) -> str:
    """Name a group: by its pixels in metres where these are known, else by the ratio."""
    with open_raster(file.path) as dataset:
        metric = file.located and dataset.crs is not None and dataset.crs.is_projected
    return f"{file.pixel:.3g}m" if metric else f"ratio {file.pixel / finest.pixel:.3g}"
