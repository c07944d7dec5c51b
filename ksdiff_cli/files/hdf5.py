"""HDF5 files of strangers, opened so that nothing but plain arrays within the file itself is read.

HDF5 may take an array's values from any other file, by three ways, and declare any size that holds nothing.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py

from ksdiff_cli.errors import KsdiffError

_LARGE = 1 << 30  # bytes of an array, or of a piece that is unpacked at once, which want proof
_COMPRESSED = 1000  # times that an array may be larger than what is stored of it
_ATTRIBUTE = 1 << 20  # bytes


def open_h5(path: str | Path, complaint: str) -> Any:
    """Open a file for reading.

    Args:
        path: the file.
        complaint: what to say of a file that is none.

    Raises:
        KsdiffError: no such file, or not HDF5.
    """
    if not Path(path).is_file():
        raise KsdiffError(f"{path}: no such file; check the path")
    try:
        return h5py.File(path, "r")
    except OSError:
        raise KsdiffError(f"{path}: {complaint}") from None


@contextmanager
def reading(path: str | Path) -> Iterator[None]:
    """Say in one line that values cannot be read.

    Raises:
        KsdiffError: see above.
    """
    try:
        yield
    # also names that are no UTF-8, types that NumPy has not, heaps that lead nowhere
    except (OSError, RuntimeError, ValueError, TypeError, KeyError) as error:
        why = (str(error) or type(error).__name__).splitlines()[0][:120]
        raise KsdiffError(f"{path}: cannot be read ({why}); the file is damaged, fetch it again") from None
    except MemoryError:
        raise KsdiffError(f"{path}: its arrays take more memory than there is; cut it into smaller files") from None


def find_array(file: Any, key: str) -> Any:
    """Return an array of numbers that lies in the file itself; None where there is none of that name.

    Args:
        file: open.
        key: a name at the top of the file.

    Raises:
        KsdiffError: a link, a group, values of another file or of another kind than real numbers, or a size that
            the file does not hold.
    """
    path = file.filename

    def refuse(what: str) -> KsdiffError:
        return KsdiffError(f"{path}: its {key} {what}")

    with reading(path):
        link = file.get(key, getlink=True)
        if link is None:
            return None
        if not isinstance(link, h5py.HardLink):
            raise refuse("is a link to elsewhere, which is not followed; copy the array into the file")
        array = file[key]
        if not isinstance(array, h5py.Dataset):
            raise refuse("is a group, not an array; give a file of arrays")
        if array.is_virtual or array.external:
            raise refuse("has its values in other files, which are not read; copy them into the file")
        if array.dtype.kind not in "iuf" or array.shape is None:
            raise refuse(f"holds {array.dtype}, not numbers; give an array of integers or floats")
        stored, piece = array.id.get_storage_size(), array.chunks or ()
        most = max(_LARGE, _COMPRESSED * stored)
        if array.nbytes > most or _bytes(piece, array.dtype.itemsize) > _LARGE:
            raise refuse(f"is declared with {array.nbytes / 1e9:.3g} GB, of which {stored / 1e9:.3g} are there")
    return array


def _bytes(shape: tuple[int, ...], itemsize: int) -> int:
    size = itemsize if shape else 0
    for side in shape:
        size *= side
    return size


def read_attributes(item: Any, path: str | Path) -> dict[str, Any]:
    """Return the attributes of a file, group or array as Python values; of large ones what they are.

    Raises:
        KsdiffError: they cannot be read.
    """
    found: dict[str, Any] = {}
    with reading(path):
        for name in item.attrs:
            attribute = item.attrs.get_id(name)
            size = attribute.get_space().get_simple_extent_npoints() * attribute.get_type().get_size()
            found[name] = plain(item.attrs[name]) if size <= _ATTRIBUTE else f"({size} bytes)"
    return found


def plain(value: Any) -> Any:
    """Return an attribute's value as JSON has it: numbers, texts and lists of them."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    return value if isinstance(value, str | int | float) else str(value)
