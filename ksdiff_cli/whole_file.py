"""Files that appear under their name whole or not at all: written beside the target, renamed at the end.

Rasters have sidecars and GDAL's complaints, hence a way of their own: :func:`raster_geotiff.growing`.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ksdiff_cli.errors import KsdiffError

_PARTIAL = ".partial"


@contextmanager
def growing_file(path: Path, *, sync: bool = False) -> Iterator[Path]:
    """Yield a path beside ``path`` to write to; what is there when the block ends well becomes ``path``.

    However else the block ends, with an interrupt too, the growing file goes and what was at ``path`` stays. Only a
    killed process leaves one behind; see :func:`remove_growing`.

    Args:
        path: the file to be; its folder exists.
        sync: wait until the disk has it before it gets its name: for what a lost machine may not take with it.

    Raises:
        OSError: it cannot be written; as it comes, for those who then keep what is finished. People are told by
            :func:`unwritable`.
    """
    growing = path.with_name(f".{path.name}.{os.getpid()}{_PARTIAL}")
    try:
        yield growing
        if sync:
            with growing.open("rb+") as file:
                os.fsync(file.fileno())
        growing.replace(path)
    except BaseException:
        with suppress(OSError):
            growing.unlink(missing_ok=True)
        raise


def remove_growing(folder: Path) -> None:
    """Remove what killed processes left growing in a folder, which this process has for itself."""
    for left in folder.glob(f".*{_PARTIAL}"):
        left.unlink(missing_ok=True)


def write_text(text: str, path: Path) -> None:
    """Write a text file in UTF-8, whole or not at all.

    Raises:
        KsdiffError: it cannot be written.
    """
    try:
        with growing_file(path) as growing:
            growing.write_text(text, encoding="utf-8", newline="\n", errors="backslashreplace")
    except OSError as error:
        raise unwritable(path, error) from None


def is_same(output: Path, other: Path | str) -> bool:
    """Say whether two paths are one file that is there."""
    try:
        return output.samefile(other)
    except OSError:  # one of them does not exist, or cannot
        return False


def unwritable(path: Path, error: OSError) -> KsdiffError:
    """Say in one line that a file cannot be written, and why."""
    return KsdiffError(f"{path}: cannot be written ({error.strerror or error})")
