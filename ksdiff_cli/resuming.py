"""What work that goes on after a kill needs: a folder that one process has for itself, and knowing its inputs again."""

import os
import re
import shutil
import sys
from contextlib import suppress
from pathlib import Path
from typing import IO

from ksdiff_cli.errors import KsdiffError
from ksdiff_cli.whole_file import growing_file

if sys.platform != "win32":
    import fcntl

LOCK = "lock"
"""Name of the lock in its folder."""


def lock_folder(folder: Path, busy: str) -> IO[str]:
    """Make a folder if it is missing and take it for this process; the system lets go of it however the process ends.

    Args:
        folder: to lock.
        busy: what to say when another process has it; ``{owner}`` becomes its number.

    Returns:
        The open lock; closing it lets go.

    Raises:
        KsdiffError: another process has it, or it cannot be made.
    """
    while True:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            file = (folder / LOCK).open("a+")
        except FileNotFoundError:  # another process has just ended and removed the folder
            continue
        except OSError as error:
            raise KsdiffError(f"{folder}: cannot be made ({error.strerror})") from None
        if sys.platform == "win32":
            return file
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            with file:
                file.seek(0)
                owner = file.read().strip() or "unknown"
            raise KsdiffError(busy.replace("{owner}", owner)) from None
        except OSError:  # a file system without locks
            return file
        if (folder / LOCK).exists() and (folder / LOCK).stat().st_ino == os.fstat(file.fileno()).st_ino:
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
            return file
        file.close()


def empty_folder(folder: Path, *keep: str) -> None:
    """Remove everything in a folder but its lock and entries of the names given."""
    for entry in list(folder.iterdir()):
        if entry.name in (LOCK, *keep):
            continue
        if entry.is_dir():
            shutil.rmtree(entry)
        else:
            entry.unlink(missing_ok=True)


def write_note(path: Path, text: str) -> None:
    """Write a small file that a killed process leaves whole, or as it was."""
    with growing_file(path) as growing:
        growing.write_text(text, encoding="utf-8")


def file_state(name: str) -> list[str | int]:
    """Return a file's absolute name, its size and its time of change, by which another run knows it again.

    Args:
        name: anything GDAL opens; size and time of a file in an archive are the archive's, and a remote one has none.
    """
    path = Path(re.sub(r"^(/vsi\w+/)+", "", name)).absolute()
    for place in (path, *path.parents):
        with suppress(OSError):  # a part of a web address may be longer than any file's name
            if place.is_file():
                return [str(path), place.stat().st_size, place.stat().st_mtime_ns]
    return [name]
