"""Which files a scene is made of, whatever names it goes by, and by what another run knows the scene again."""

from collections.abc import Iterable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from rasterio.errors import RasterioError

from ksdiff_cli.errors import KsdiffError
from ksdiff_cli.files.content import digest, identify
from ksdiff_cli.files.names import Inputs
from ksdiff_cli.products.mosaic import is_mosaic
from ksdiff_cli.raster.open import is_remote, open_raster
from ksdiff_cli.raster.pair import Scene


def find_inputs(names: Iterable[str | Path]) -> Inputs:
    """Return the files behind names of rasters, and of anything else that a command reads."""
    return Inputs(names, _files_of)


def scene_inputs(scene: Scene, more: Iterable[str | Path] = ()) -> Inputs:
    """Return the files that sharpening a scene reads.

    Args:
        scene: the scene.
        more: names of what is read besides, such as weights.
    """
    names = dict.fromkeys(scene.files())
    inputs = find_inputs([*names, *more])
    # a product's RPCs lie beside its list of tiles, which no tile names
    folders = dict.fromkeys(path.parent for path in inputs.files)
    lists = [path for folder in folders for path in folder.glob("*.[tT][iI][lL]")]
    return find_inputs([*names, *more, *lists]) if lists else inputs


def identify_scene(scene: Scene, inputs: Inputs | None = None) -> dict[str, Any]:
    """Return all that the values read of a scene depend on, for JSON: its files by their state, bands, sensor, shift.

    Args:
        scene: the scene; its name does not count, nor does the place of a list of tiles that was made for this run.
        inputs: its :func:`scene_inputs`, if they are known.
    """
    # such a list has another place in each run, and a folder named after what it holds
    known = replace(scene, others=(), copies=()).renamed(
        lambda path: Path(path).parent.name if is_mosaic(path) else path
    )
    facts = asdict(known) | {"name": ""}
    files = [path for path in (inputs or scene_inputs(scene)).files if not is_mosaic(str(path))]
    return {"scene": facts, "files": identify(files)}


def identify_content(scene: Scene, inputs: Inputs | None = None) -> dict[str, Any]:
    """Return the same wherever the scene lies: its files by all that they hold, which takes their reading.

    Args:
        scene: the scene; neither its name nor its files' names count.
        inputs: its :func:`scene_inputs`, if they are known.
    """
    numbers = dict[str, int]()
    known = replace(scene, others=(), copies=()).renamed(lambda path: str(numbers.setdefault(path, len(numbers))))
    facts = asdict(known) | {"name": ""}
    files = [path for path in (inputs or scene_inputs(scene)).files if not is_mosaic(str(path))]
    return {"scene": facts, "files": sorted(digest(path, None) for path in files)}


def _files_of(name: str) -> list[str]:
    """Return the files of a dataset as GDAL names them; none where it opens nothing, or would fetch it."""
    if is_remote(name):
        return []
    try:
        with open_raster(name) as dataset:
            return list(dataset.files)
    except (KsdiffError, RasterioError, OSError, ValueError):
        return []
