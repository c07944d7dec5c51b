"""JPEG 2000 bands decoded once, into plain files beside the output.

Finer bands are read for each band that they guide, in several passes and at hundreds of places. A tile of JPEG 2000,
which Sentinel-2's bands come as, takes a hundred times as long to read as the same pixels of a plain file, and is read
whole, whatever part of it is wanted.
"""

import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import rasterio.shutil

from ksdiff_cli.errors import KsdiffError
from ksdiff_cli.files.content import identify
from ksdiff_cli.files.workdir import open_workdir
from ksdiff_cli.files.writing import atomic_write, unwritable
from ksdiff_cli.options.sharpening import SharpenOptions
from ksdiff_cli.process import usable_threads
from ksdiff_cli.products.mosaic import is_mosaic
from ksdiff_cli.products.scene_files import find_inputs
from ksdiff_cli.progress import ProgressCallback, silent
from ksdiff_cli.raster.open import BLOCK_CACHE, is_from_gdal, open_raster, unreadable
from ksdiff_cli.raster.pair import open_pair
from ksdiff_cli.raster.synthesis import GuidedScene
from ksdiff_cli.sharpening.job import job_folder
from ksdiff_cli.sharpening.plan import GB

_SUFFIXES = (".jp2", ".j2k", ".jpx", ".j2c")
_FORMAT = 1  # of the folder; another one is not taken up


def decoded_folder(output: Path) -> Path:
    """Return the folder in which decoded bands are kept until an output is whole."""
    return output.with_name(f".{output.name}.decoded")


@contextmanager
def decode_once(
    scene: GuidedScene,
    output: Path,
    options: SharpenOptions,
    progress: ProgressCallback = silent,
    elsewhere: str = "choose another folder with -o",
) -> Iterator[GuidedScene]:
    """Decode a scene's JPEG 2000 files into a folder beside the output that goes when the block ends.

    A killed run leaves it, and the same command takes up the bands that are whole; so it stays where finished windows
    do.

    Args:
        scene: the bands that are wanted.
        output: the raster to be.
        options: ``resume`` and ``threads``.
        progress: told the files decoded.
        elsewhere: what to do where there is no room beside the output.

    Yields:
        The same scene, which reads the copies; as it was where nothing is JPEG 2000.

    Raises:
        KsdiffError: the bands do not fit each other, cannot be read, or the disk has too little room for them.
    """
    slow = [path for path in dict.fromkeys(scene.files()) if _is_slow(path)]
    if not slow:
        yield scene
        return
    for group in scene.groups:  # what is refused is refused before minutes of work, and by the names that people gave
        with open_pair(scene.unmixed(group)):
            pass
    states = identify([path for path in find_inputs(slow).files if not is_mosaic(str(path))])
    identity = json.dumps([_FORMAT, [Path(path).name if is_mosaic(path) else path for path in slow], states])
    busy = f"{output}: another ksdiff sharpen (process {{owner}}) is making it; wait until it ends, or change -o"
    with open_workdir(decoded_folder(output), identity, busy, resume=options.resume) as work:
        try:
            yield replace(scene, copies=_decode(slow, work.path.absolute(), options, progress, elsewhere))
        except BaseException:
            if not job_folder(output).exists():
                work.remove()
            raise
        work.remove()


def _decode(
    paths: Sequence[str], folder: Path, options: SharpenOptions, progress: ProgressCallback, elsewhere: str
) -> tuple[tuple[str, str], ...]:
    """Write the copies that are missing; return all."""
    copies = {path: folder / f"{number:03d}_{Path(path).stem}.tif" for number, path in enumerate(paths)}
    sizes = {path: _size(path) for path in paths}
    missing = [path for path, copy in copies.items() if not copy.exists()]
    needed, free = sum(sizes[path] for path in missing), shutil.disk_usage(folder).free
    if needed > free:
        raise KsdiffError(
            f"{folder.parent}: has {free / GB:.2f} GB of free space, but the decoded bands take {needed / GB:.2f} GB "
            f"until the output is made; make room there or {elsewhere}"
        )
    note = f"decoding ({sum(sizes.values()) / GB:.2g} GB beside the output meanwhile)"
    count = usable_threads(options.threads)
    threads = {} if count is None else {"GDAL_NUM_THREADS": str(count)}
    with rasterio.Env(GDAL_CACHEMAX=BLOCK_CACHE, GDAL_SWATH_SIZE=str(BLOCK_CACHE), **threads):
        for done, path in enumerate(paths):
            progress(done, len(paths), note)
            if path in missing:
                _copy(path, copies[path], sizes[path], elsewhere)
    progress(len(paths), len(paths), note)
    return tuple((path, str(copy)) for path, copy in copies.items())


def _copy(path: str, target: Path, size: int, elsewhere: str) -> None:
    """Copy a raster with its metadata, without compression."""
    # as many bits as the type has: packed ones are slow to read
    plain: dict[str, Any] = {"tiled": True, "blockxsize": 512, "blockysize": 512, "bigtiff": "if_safer"}
    try:
        with atomic_write(target, sync=True) as growing, open_raster(path) as dataset:
            bits = 8 * _itemsize(dataset)
            rasterio.shutil.copy(dataset, growing, driver="GTiff", nbits=bits, interleave="band", **plain)
            if growing.stat().st_size < size:
                raise KsdiffError(f"{target.parent}: is full; make room there or {elsewhere}")
    except Exception as error:
        if is_from_gdal(error):
            raise unreadable(path, error) from None
        if isinstance(error, OSError):
            raise unwritable(target, error) from None
        raise


def _is_slow(path: str) -> bool:
    """Say whether a file is JPEG 2000, or made of such files."""
    with open_raster(path) as dataset:
        inside = dataset.driver == "VRT" and any(name.lower().endswith(_SUFFIXES) for name in dataset.files)
        return inside or dataset.driver.startswith("JP2")


def _size(path: str) -> int:
    with open_raster(path) as dataset:
        return int(dataset.count * dataset.height * dataset.width) * _itemsize(dataset)


def _itemsize(dataset: Any) -> int:
    return max(int(np.dtype(kind).itemsize) for kind in dataset.dtypes)
