"""Compact copies of large patch files: whole numbers take two bytes, so that PanCollection's 5.5 GB become 1.4 GB."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ksdiff_cli.errors import KsdiffError
from ksdiff_cli.files.hdf5 import reading
from ksdiff_cli.files.writing import atomic_write, unwritable
from ksdiff_cli.patches.dataset import PatchFile
from ksdiff_cli.progress import ProgressCallback, silent

_CHUNK_BYTES = 1 << 26  # copied at once


def use_compact(file: PatchFile, folder: Path, progress: ProgressCallback = silent) -> Path | None:
    """Have a file that is too large for memory read from a compact copy in ``folder``, made if it is not there.

    Every image stays what it is in float32, in which networks train: arrays of whole numbers up to 65535 are kept as
    uint16, others as float32. The copy is named after the file and its content, so that several runs share it.

    Args:
        file: read from the copy afterwards; its path and identity stay.
        folder: made if it is not there.
        progress: told after every piece.

    Returns:
        The copy; None where the file is kept in memory anyhow, or takes two bytes a value already.

    Raises:
        KsdiffError: the copy cannot be written, or is none of this file.
    """
    sources = file.stored()
    if file.fits_memory or all(array.dtype.itemsize <= 2 for array in sources.values()):
        return None
    path = folder / f"{file.path.stem}-{file.identity}.h5"
    if not path.exists():
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with atomic_write(path, shared=True) as growing, h5py.File(growing, "w") as copy:
                _write(file, sources, copy, progress)
        except OSError as error:
            raise KsdiffError(f"{unwritable(path, error)}; name another folder with --cache") from None
    file.read_from(path)
    return path


def _write(file: PatchFile, sources: dict[str, Any], copy: Any, progress: ProgressCallback) -> None:
    """Copy all arrays, the smallest type that holds them first."""
    done, total = 0, sum(array.nbytes for array in sources.values())
    for key, array in sources.items():
        images = max(1, _CHUNK_BYTES // (array.nbytes // len(array) + 1))
        kept = copy.create_dataset(key, array.shape, np.uint16)
        for start in range(0, len(array), images):
            part = slice(start, min(start + images, len(array)))
            with reading(file.path):
                values = array[part]
            if kept.dtype == np.uint16 and not _is_whole(values):
                kept = _begin_again(file, copy, key, array, start, images)
            with np.errstate(over="ignore"):
                kept[part] = values.astype(kept.dtype)
            progress((done + values.nbytes) >> 20, total >> 20, f"compact copy of {file.path.name}")
            done += values.nbytes


def _begin_again(file: PatchFile, copy: Any, key: str, array: Any, until: int, images: int) -> Any:
    """Keep an array as float32 after all, with what was copied of it."""
    del copy[key]
    kept = copy.create_dataset(key, array.shape, np.float32)
    for start in range(0, until, images):
        part = slice(start, min(start + images, until))
        with reading(file.path):
            kept[part] = array[part].astype(np.float32)
    return kept


def _is_whole(values: Any) -> bool:
    """Say whether all values are whole numbers that two bytes hold."""
    if values.dtype == np.uint16:
        return True
    return bool((values >= 0).all() and (values <= 65535).all() and (values == np.floor(values)).all())
