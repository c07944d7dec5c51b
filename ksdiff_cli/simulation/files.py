"""Simulated scenes with known truth: PAN, MS and truth as georeferenced GeoTIFFs, drawn in blocks.

The parts: :mod:`.fields` (random fields), :mod:`.spectra` (colours), :mod:`.content` (land), :mod:`.houses` and
:mod:`.objects` (what stands on it) and :mod:`.camera`, which also defines exactly what truth, MS and PAN are and needs
no rasterio.
"""

import shutil
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from affine import Affine
from rasterio.windows import Window

from ksdiff_cli._version import __version__
from ksdiff_cli.errors import KsdiffError
from ksdiff_cli.files.names import Inputs, check_place
from ksdiff_cli.files.workdir import Claim
from ksdiff_cli.files.writing import growing_name
from ksdiff_cli.options import keywords
from ksdiff_cli.options.patches import SimulateOptions
from ksdiff_cli.output.geotiff import put_raster
from ksdiff_cli.output.writer import check_sidecars
from ksdiff_cli.progress import ProgressCallback, silent
from ksdiff_cli.simulation.camera import Scene, blocks, plan_scene, simulate_arrays

__all__ = ["FILES", "plan_scene", "simulate_arrays", "simulate_scene"]

FILES = ("pan.tif", "ms.tif", "truth.tif")
"""The files of a simulated scene."""
_CACHE_BYTES = 256 << 20
"""GDAL's block cache: it must hold a row of half-filled tiles of the widest scene."""


@keywords(SimulateOptions)
def simulate_scene(
    output: Path, *, options: SimulateOptions, progress: ProgressCallback = silent, block: int = 512
) -> Scene:
    """Write a simulated scene to ``output``/pan.tif, ms.tif and truth.tif; all of it or nothing.

    Args:
        output: folder; it and its parents are made if missing, other files in it are left alone.
        options: the scene and the camera; the georeference knows nothing of the shift.
        progress: told after every block.
        block: side of the blocks in pixels; memory grows with its square, the pixels do not depend on it.

    Returns:
        What was drawn.

    Raises:
        KsdiffError: contradictory arguments, a file in the way, or a place that cannot be written.
    """
    scene = plan_scene(options=options)
    targets, made = [output / name for name in FILES], list[Path]()
    how = (options.size, options.bands, options.ratio, scene.sensor, options.seed, options.noise, options.shift)
    claim = Claim(output / ".simulate.begun", repr((__version__, *how)))
    if output.is_dir():
        for path in targets:
            for check in (check_place, check_sidecars):
                check(path, Inputs([options.sensor] if options.sensor else []), options.overwrite or claim.owns(path))
    try:
        _make_folder(output.parent, made)
        work = growing_name(output.resolve())  # "." has no name
        try:
            work.mkdir()
            _write(work, scene, progress, block)
            _make_folder(output, made)
            with claim:
                claim.make(*targets)
                for path in targets:
                    put_raster(work / path.name, path)
                claim.drop()
        finally:
            shutil.rmtree(work, ignore_errors=True)
    except BaseException as error:
        for folder in reversed(made):
            if not any(folder.iterdir()):
                folder.rmdir()
        if isinstance(error, OSError):
            raise KsdiffError(
                f"{output}: cannot write there ({error.strerror or error}); choose another folder"
            ) from error
        raise
    return scene


def _make_folder(folder: Path, made: list[Path]) -> None:
    """Make a folder and its parents, and note which ones were new."""
    missing = [place for place in (folder, *folder.parents) if not place.exists()]
    for place in reversed(missing):
        place.mkdir()
        made.append(place)


def _write(folder: Path, scene: Scene, progress: ProgressCallback, block: int) -> None:
    names = scene.spectra.names
    layout = {"pan.tif": (("pan",), 1), "ms.tif": (names, scene.ratio), "truth.tif": (names, 1)}
    with rasterio.Env(GDAL_CACHEMAX=_CACHE_BYTES), ExitStack() as stack:
        files = [
            stack.enter_context(rasterio.open(folder / name, "w", **_profile(scene, len(bands), step)))
            for name, (bands, step) in layout.items()
        ]
        for file, (name, (bands, _)) in zip(files, layout.items(), strict=True):
            file.descriptions = bands
            file.update_tags(**_tags(scene, name))
        todo = blocks(scene, block)
        progress(0, len(todo))
        for done, (row, column, height, width) in enumerate(todo, 1):
            images = scene.block(row, column, height, width)
            for file, image, (_, step) in zip(files, images, layout.values(), strict=True):
                file.write(image, window=Window(column // step, row // step, width // step, height // step))
            progress(done, len(todo))


def _profile(scene: Scene, bands: int, step: int) -> dict[str, Any]:
    """Return the GeoTIFF profile of a file whose pixels are ``step`` PAN pixels wide."""
    rng = np.random.default_rng([scene.seed, 3])
    zone, pixel = int(rng.integers(1, 61)), 15.0 if scene.world.coarse else 0.5
    grid = pixel * scene.ratio
    east, north = (float(round(place / grid) * grid) for place in rng.uniform([3e5, 2e6], [6e5, 7e6]))
    return {
        "driver": "GTiff",
        "dtype": "uint16",
        "count": bands,
        "height": scene.size // step,
        "width": scene.size // step,
        "crs": f"EPSG:{32600 + zone}",
        "transform": Affine(pixel * step, 0, east, 0, -pixel * step, north),
        "tiled": True,
        "blockxsize": 256,
        "blockysize": 256,
        "compress": "deflate",
        "predictor": 2,
        "zlevel": 6,
        "bigtiff": "if_safer",
    }


def _tags(scene: Scene, name: str) -> dict[str, str]:
    what = {
        "pan.tif": "simulated PAN: world through PAN's response and MTF, with noise",
        "ms.tif": "simulated MS: truth blurred by each band's MTF, at MS pixel centres, with noise",
        "truth.tif": "truth: MS bands at PAN resolution, blurred by PAN's MTF only, without noise",
    }
    moved = {"SHIFT": "{:g} {:g} MS pixels".format(*scene.shift)} if any(scene.shift) else {}
    return {
        **moved,
        "SENSOR": scene.sensor.name,
        "SEED": str(scene.seed),
        "RATIO": str(scene.ratio),
        "KSDIFF_VERSION": __version__,
        "TIFFTAG_IMAGEDESCRIPTION": what[name],
    }
