"""Product folders: where a provider puts PAN, MS and the sensor's name. One file a family, one registry line each."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from ksdiff_cli.errors import KsdiffError
from ksdiff_cli.products import landsat, plain
from ksdiff_cli.raster import Scene
from ksdiff_cli.sensors import Sensor, find_sensor

Reader = Callable[[Path, Sensor | None], list[Scene]]
"""Takes a folder and the sensor a person named (or None); returns the scenes in it, [] when it is another family's."""

# Asked in this order, the most particular first: any folder with a PAN and an MS file is a plain pair.
READERS: dict[str, tuple[Reader, str]] = {
    "landsat": (landsat.read, landsat.LOOKS_FOR),
    "plain": (plain.read, plain.LOOKS_FOR),
}

_DEPTH = 2  # levels of folders below the one given


def find_scenes(path: Path, sensor: str | None = None) -> list[Scene]:
    """Find the scenes in a folder: a product, a plain PAN/MS pair, or a folder of such folders (two levels).

    Args:
        path: the folder.
        sensor: a sensor's short name, which then stands for every scene; None takes what the product says.

    Returns:
        At least one scene, sorted by folder. A nested scene is named by its path below ``path``.

    Raises:
        KsdiffError: no such folder, unknown sensor, nothing found, or files whose role is ambiguous.
    """
    forced = find_sensor(sensor) if sensor is not None else None
    path = Path(path)
    if not path.exists():
        raise KsdiffError(f"{path}: no such folder; check the path")
    if not path.is_dir():
        raise KsdiffError(f"{path}: is a file; name the scene's folder (or PAN and MS one by one)")
    scenes = _search(path, forced, _DEPTH)
    if not scenes:
        wanted = "; ".join(looks_for for _, looks_for in READERS.values())
        raise KsdiffError(f"{path}: no scene found here or in its subfolders; looked for {wanted}")
    return scenes


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
    return replace(scene, ms=tuple(scene.ms[number - 1] for number in numbers)) if numbers else scene


def _search(folder: Path, sensor: Sensor | None, depth: int) -> list[Scene]:
    for read, _ in READERS.values():
        if scenes := read(folder, sensor):
            return scenes
    if depth == 0:
        return []
    found = []
    for child in sorted(entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith(".")):
        for scene in _search(child, sensor, depth - 1):
            # two products of one provider may hold scenes of one name: the folders tell them apart
            nested = scene.name != child.name
            found.append(replace(scene, name=f"{child.name}/{scene.name}") if nested else scene)
    return found
