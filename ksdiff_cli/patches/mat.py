"""MATLAB files of test images, as PanCollection also gives them out: one image (H, W, C) or several (N, H, W, C)."""

from math import prod
from pathlib import Path

import h5py
import numpy as np

from ksdiff_cli.errors import KsdiffError
from ksdiff_cli.files.hdf5 import find_array, open_h5, reading
from ksdiff_cli.numerics import Array

_NAMES = {
    "pan": ("pan", "I_PAN"),
    "ms": ("ms", "I_MS_LR"),
    "lms": ("lms", "I_MS"),
    "gt": ("gt", "I_GT"),
}
"""Keys of patch files, and what PanCollection and the reference toolbox call them in MATLAB."""
_NUMBERS = {"double", "single", *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64))}
_LARGE = 1 << 30  # bytes of an array that want proof, as of HDF5 files
_COMPRESSED = 1000  # times that an array may be larger than the file


def read_mat(path: Path) -> dict[str, Array]:
    """Read the images of a MATLAB file (version 5, or 7.3, which is HDF5).

    Returns:
        ``pan`` (N, 1, H, W) and ``ms``, ``lms``, ``gt`` (N, C, ·, ·), as far as they are there.

    Raises:
        KsdiffError: no such file, no MATLAB file, or arrays of another kind than images.
    """
    if not path.is_file():
        raise KsdiffError(f"{path}: no such file; check the path")
    found = _read_hdf5(path) if h5py.is_hdf5(path) else _read_version_5(path)
    return {key: _to_batch(path, key, array) for key, array in found.items()}


def _read_hdf5(path: Path) -> dict[str, Array]:
    """Read version 7.3, which stores MATLAB's axes in reverse."""
    found = {}
    with open_h5(path, "is no MATLAB file, or is damaged") as file, reading(path):
        for key, names in _NAMES.items():
            arrays = [array for name in names if (array := find_array(file, name)) is not None]
            if arrays:
                found[key] = np.asarray(arrays[0][()]).T
    return found


def _read_version_5(path: Path) -> dict[str, Array]:
    from scipy.io import loadmat, whosmat

    most = max(_LARGE, _COMPRESSED * path.stat().st_size)
    try:
        held = {name: (shape, kind) for name, shape, kind in whosmat(path)}
        chosen = {key: name for key, names in _NAMES.items() for name in names[::-1] if name in held}
        for name in chosen.values():
            shape, kind = held[name]
            if kind not in _NUMBERS:
                raise KsdiffError(f"{path}: its {name} is {kind}, not an array of numbers")
            if 8 * prod(shape) > most:
                raise KsdiffError(f"{path}: its {name} is declared with {prod(shape):.3g} values, more than it holds")
        loaded = loadmat(path, variable_names=list(chosen.values()))
        return {key: np.asarray(loaded[name]) for key, name in chosen.items()}
    except KsdiffError:
        raise
    except Exception as error:  # scipy names no class for a damaged file
        why = (str(error) or type(error).__name__).splitlines()[0][:120]
        raise KsdiffError(f"{path}: cannot be read as a MATLAB file ({why}); fetch it again") from None


def _to_batch(path: Path, key: str, array: Array) -> Array:
    """Bring an image or several to (N, C, H, W); of PAN MATLAB drops the one channel."""
    if array.dtype.kind not in "iuf":
        raise KsdiffError(f"{path}: its {key} holds {array.dtype}, not real numbers")
    if key == "pan" and (array.ndim == 2 or (array.ndim == 3 and array.shape[-1] != 1)):
        array = array[..., None]
    if array.ndim == 3:
        array = array[None]
    if array.ndim != 4:
        raise KsdiffError(f"{path}: its {key} has {array.ndim} axes; needed: height, width, bands")
    return np.ascontiguousarray(array.transpose(0, 3, 1, 2))
