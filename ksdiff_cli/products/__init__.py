"""Product folders: where a provider puts PAN, MS and the sensor's name. One file a family, one registry line each."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePath

from ksdiff_cli.errors import KsdiffError
from ksdiff_cli.products import airbus, gaofen, landsat, maxar, plain
from ksdiff_cli.products.folder import ARCHIVES, Folder, names_scenes, places
from ksdiff_cli.products.product import NoPairError, fit_sensor
from ksdiff_cli.raster import Scene
from ksdiff_cli.sensors import Sensor, find_sensor

__all__ = ["READERS", "choose_bands", "find_scenes", "make_pair", "names_scenes"]

Reader = Callable[[Folder, Sensor | None], list[Scene]]
"""Takes a folder and the sensor a person named (or None); returns the scenes in it, [] when it is another family's.
Raises NoPairError for a product of the family that cannot be sharpened."""


@dataclass(frozen=True)
class Family:
    """A provider's way to lay out products."""

    read: Reader
    looks_for: str
    """What makes a folder one of the family, for people."""
    siblings: bool = False
    """Whether PAN and MS may lie in folders beside each other, so that a folder is looked into with those below."""


# Asked in this order, the most particular first: any folder with a PAN and an MS file is a plain pair.
READERS: dict[str, Family] = {
    "landsat": Family(landsat.read, landsat.LOOKS_FOR),
    "maxar": Family(maxar.read, maxar.LOOKS_FOR, siblings=True),
    "airbus": Family(airbus.read, airbus.LOOKS_FOR, siblings=True),
    "gaofen": Family(gaofen.read, gaofen.LOOKS_FOR),
    "plain": Family(plain.read, plain.LOOKS_FOR),
}

_DEPTH = 2  # levels of folders below the one given


def find_scenes(path: str | Path, sensor: str | None = None) -> list[Scene]:
    """Find the scenes in a folder: a product, a plain PAN/MS pair, or a folder of such folders (two levels).

    Args:
        path: the folder; or an archive, a metadata file, or one of these on a web server: see :func:`folder.places`.
        sensor: a sensor's name or file, which then stands for every scene; None takes what the product says.

    Returns:
        At least one scene, sorted by folder. A nested scene is named by its path below ``path``.

    Raises:
        KsdiffError: no such folder, unknown sensor, nothing found, metadata that is damaged or contradicts itself, or
            files whose role is ambiguous.
    """
    forced = find_sensor(sensor) if sensor is not None else None
    folders, metadata = places(path)
    refusals: list[NoPairError] = []
    for folder in folders:
        # what lies beside a metadata file is one product
        scenes = _search(folder, forced, 0 if metadata else _DEPTH, refusals)
        if scenes := _meant(scenes, metadata):
            return scenes
    if refusals:
        raise refusals[0]
    wanted = "; ".join(family.looks_for for family in READERS.values())
    hint = ""
    if archive := next((name for name in folders[0].files if name.lower().endswith(ARCHIVES)), None):
        hint = f"; archives are read when named themselves ({folders[0].at(archive)})"
    raise KsdiffError(f"{path}: no scene found here or in its subfolders; looked for {wanted}{hint}")


def make_pair(pan: str, ms: Sequence[str], sensor: str | None = None) -> Scene:
    """Make a scene of a PAN and an MS image (or several MS files, whose bands follow each other).

    Args:
        pan: anything GDAL opens, one band.
        ms: anything GDAL opens, at least one.
        sensor: a sensor's short name; None for the generic one.

    Raises:
        KsdiffError: unknown sensor, a file is missing or no raster, or PAN has several bands.
    """
    return plain.from_files(pan, ms, find_sensor(sensor))


def choose_bands(scene: Scene, numbers: Sequence[int]) -> Scene:
    """Keep only some of a scene's MS bands, in the order given.

    Args:
        scene: the scene.
        numbers: positions in the scene's MS bands, from 1; empty keeps all.

    Raises:
        KsdiffError: there is no such band.
    """
    for number in numbers:
        if not 1 <= number <= len(scene.ms):
            raise KsdiffError(f"{scene.name}: has no MS band {number}, only 1 to {len(scene.ms)}; choose with -b")
    if not numbers:
        return scene
    # bands without names are taken to be in the sensor's order, when there are as many
    known = scene.sensor.bands if len(scene.sensor.bands) == len(scene.ms) else tuple(one.name for one in scene.ms)
    sensor = fit_sensor(scene.sensor, [known[number - 1] for number in numbers])
    return replace(scene, ms=tuple(scene.ms[number - 1] for number in numbers), sensor=sensor)


def _search(folder: Folder, sensor: Sensor | None, depth: int, refusals: list[NoPairError]) -> list[Scene]:
    scenes: list[Scene] = []
    for family in READERS.values():
        try:
            scenes = family.read(folder, sensor)
        except NoPairError as error:
            refusals.append(error)
            break  # it is that family's; no other can make more of it
        if scenes:
            if not family.siblings:
                return scenes
            break
    if depth == 0:
        return scenes
    for child in folder.folders:
        for scene in _search(child, sensor, depth - 1, refusals):
            # two products of one provider may hold scenes of one name: the folders tell them apart
            nested = scene.name != child.name
            scenes.append(replace(scene, name=f"{child.name}/{scene.name}") if nested else scene)
    return scenes


def _meant(scenes: list[Scene], metadata: str) -> list[Scene]:
    """Return the scenes that a metadata file belongs to: all of them if none, or a whole volume's, was named."""
    stem = metadata.rpartition(".")[0].lower().removesuffix("_mtl")
    if not stem or "vol_" in stem:
        return scenes
    return [
        scene
        for scene in scenes
        if any(PurePath(source.path).name.lower().startswith(stem) for source in (scene.pan, *scene.ms))
    ]
