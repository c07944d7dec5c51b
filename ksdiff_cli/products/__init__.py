"""Product folders: where a provider puts PAN, MS and the sensor's name. One file a family, one registry line each."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePath

from ksdiff_cli.errors import KsdiffError, did_you_mean
from ksdiff_cli.products import airbus, alone, gaofen, guided, landsat, maxar, named, plain, sentinel2, stac
from ksdiff_cli.products.folder import ARCHIVES, Folder, names_folder, places
from ksdiff_cli.products.product import BrokenError, NoPairError, fit_sensor
from ksdiff_cli.raster.pair import Scene
from ksdiff_cli.raster.synthesis import GuidedScene
from ksdiff_cli.sensors import Sensor, find_sensor, fold_name

__all__ = ["READERS", "Found", "choose_bands", "find_scene", "find_scenes", "make_pair", "names_scenes"]

Found = Scene | GuidedScene
"""PAN and MS; or bands of several resolutions, of which the finest guide the others."""
Reader = Callable[[Folder, Sensor | None], Sequence[Found]]
"""Takes a folder and the sensor a person named (or None); returns the scenes in it, [] when it is another family's.
Raises NoPairError for a product of the family that cannot be sharpened, BrokenError for some broken of several."""


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
    "sentinel2": Family(sentinel2.read, sentinel2.LOOKS_FOR),
    "landsat": Family(landsat.read, landsat.LOOKS_FOR),
    "maxar": Family(maxar.read, maxar.LOOKS_FOR, siblings=True),
    "airbus": Family(airbus.read, airbus.LOOKS_FOR, siblings=True),
    "gaofen": Family(gaofen.read, gaofen.LOOKS_FOR),
    "named": Family(named.read, named.LOOKS_FOR, siblings=True),
    "plain": Family(plain.read, plain.LOOKS_FOR),
    "bands": Family(guided.read, guided.LOOKS_FOR),
    "alone": Family(alone.read, alone.LOOKS_FOR),
}

_DEPTH = 2  # levels of folders below the one given


def names_scenes(path: str) -> bool:
    """Say whether a path names a folder, an archive, a metadata file or a STAC item rather than one image."""
    return names_folder(path) or stac.names_item(path)


def find_scenes(path: str | Path, sensor: str | None = None, left_out: list[KsdiffError] | None = None) -> list[Found]:
    """Find the scenes in a folder: a product, a plain PAN/MS pair, or a folder of such folders (two levels).

    Args:
        path: the folder; or an archive, a metadata file, or one of these on a web server: see :func:`folder.places`.
        sensor: a sensor's name or file, which then stands for every scene; None takes what the product says.
        left_out: takes what is wrong with scenes that are broken while others are not; None raises it.

    Returns:
        At least one scene, sorted by folder. A nested scene is named by its path below ``path``.

    Raises:
        KsdiffError: no such folder, unknown sensor, nothing found, metadata that is damaged or contradicts itself, or
            files whose role is ambiguous.
    """
    forced = find_sensor(sensor) if sensor is not None else None
    if stac.names_item(str(path)) and not Path(path).is_dir():
        return [stac.read_item(str(path), forced)]
    folders, metadata = places(path)
    refusals: list[NoPairError] = []
    for folder in folders:
        broken: list[KsdiffError] = []
        # what lies beside a metadata file is one product
        scenes = _search(folder, forced, 0 if metadata else _DEPTH, refusals, broken)
        if broken and (left_out is None or not scenes):
            raise broken[0]
        if scenes := _meant(scenes, metadata):
            if left_out is not None:
                left_out.extend({str(error): error for error in broken}.values())
            return scenes
    if refusals:
        raise refusals[0]
    wanted = "; ".join(family.looks_for for family in READERS.values() if family.looks_for)
    hint = ""
    if archive := next((name for name in folders[0].files if name.lower().endswith(ARCHIVES)), None):
        hint = f"; archives are read when named themselves ({folders[0].at(archive)})"
        if folders[0].packed:
            hint = f"; an archive in an archive is not read, unpack {archive} first"
    raise KsdiffError(f"{path}: no scene found here or in its subfolders; looked for {wanted}{hint}")


def find_scene(inputs: Sequence[str], sensor: str | None = None, guide: Sequence[str] = ()) -> Found:
    """Return the one scene that a person named.

    Args:
        inputs: PAN, then one or more MS files; or one folder, archive or metadata file; or bands of several
            resolutions.
        sensor: a sensor's name or file; None takes what the product says.
        guide: files of the finest of them; () sorts bands of which several are the finest by themselves.

    Raises:
        KsdiffError: nothing named, a file alone, several scenes in the folder; see :func:`find_scenes` and
            :func:`make_pair`.
    """
    if guide:
        return guided.sort_files(guide, inputs, sensor)
    if not inputs:
        raise KsdiffError("no input: name PAN and MS, or a scene's folder")
    if len(inputs) > 1 and guided.guides_itself(inputs):
        return guided.sort_files((), inputs, sensor)
    if len(inputs) > 1:
        return make_pair(inputs[0], inputs[1:], sensor)
    if Path(inputs[0]).is_file() and not names_scenes(inputs[0]):
        raise KsdiffError(f"{inputs[0]}: is a file; give PAN and MS, or a scene's folder")
    scenes = find_scenes(inputs[0], sensor)
    if len(scenes) > 1:
        names = ", ".join(scene.name for scene in scenes[:4]) + (", …" if len(scenes) > 4 else "")
        raise KsdiffError(f"{inputs[0]}: holds {len(scenes)} scenes ({names}); name the folder of one")
    return scenes[0]


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


def choose_bands(scene: Scene, wanted: Sequence[int | str]) -> Scene:
    """Keep only some of a scene's MS bands, in the order given.

    Args:
        scene: the scene.
        wanted: positions in the scene's MS bands, from 1, or names in any case and punctuation, as the files or the
            sensor have them; empty keeps all.

    Raises:
        KsdiffError: there is no such band.
    """
    if not wanted:
        return scene
    # bands without names are taken to be in the sensor's order, when there are as many
    known = scene.sensor.bands if len(scene.sensor.bands) == len(scene.ms) else tuple(one.name for one in scene.ms)
    numbers = [_band_number(scene, band, known) for band in wanted]
    sensor = fit_sensor(scene.sensor, [known[number - 1] for number in numbers])
    return replace(scene, ms=tuple(scene.ms[number - 1] for number in numbers), sensor=sensor)


def _band_number(scene: Scene, band: int | str, known: Sequence[str]) -> int:
    """Return a band's place among the scene's MS bands, from 1."""
    if isinstance(band, int):
        if not 1 <= band <= len(scene.ms):
            raise KsdiffError(f"{scene.name}: has no MS band {band}, only 1 to {len(scene.ms)}; choose with -b")
        return band
    names = [[fold_name(source.name), fold_name(other)] for source, other in zip(scene.ms, known, strict=True)]
    for number, own in enumerate(names, start=1):
        if fold_name(band) in own:
            return number
    if not any(known):
        raise KsdiffError(
            f"{scene.name}: has no MS band {band!r}, its bands have no names; choose with -b by number, 1 to "
            f"{len(scene.ms)}, or name the --sensor"
        )
    hint = did_you_mean(band, known) or ";"
    raise KsdiffError(f"{scene.name}: has no MS band {band!r}{hint} it has {', '.join(known)}")


def _search(
    folder: Folder, sensor: Sensor | None, depth: int, refusals: list[NoPairError], broken: list[KsdiffError]
) -> list[Found]:
    scenes: list[Found] = []
    for family in READERS.values():
        try:
            scenes = list(family.read(folder, sensor))
        except NoPairError as error:
            refusals.append(error)
            break  # it is that family's; no other can make more of it
        except BrokenError as error:
            broken.extend(error.errors)
            scenes = list(error.scenes)
        except KsdiffError as error:
            broken.append(error)
            break
        if scenes:
            if not family.siblings:
                return scenes
            break
    if depth == 0:
        return scenes
    for child in folder.folders:
        for scene in _search(child, sensor, depth - 1, refusals, broken):
            # two products of one provider may hold scenes of one name: the folders tell them apart
            nested = scene.name != child.name
            scenes.append(replace(scene, name=f"{child.name}/{scene.name}") if nested else scene)
    return scenes


def _meant(scenes: list[Found], metadata: str) -> list[Found]:
    """Return the scenes that a metadata file belongs to: all of them if none, or a whole volume's, was named."""
    stem = metadata.rpartition(".")[0].lower().removesuffix("_mtl")
    if not stem or "vol_" in stem:
        return scenes
    return [
        scene
        for scene in scenes
        if isinstance(scene, GuidedScene)
        or any(PurePath(source.path).name.lower().startswith(stem) for source in scene.sources())
    ]
