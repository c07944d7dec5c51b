"""Work that goes on after a kill: a folder that one process has for itself, and a claim on what it gives names to."""

import json
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from glob import escape
from pathlib import Path
from typing import IO, Self

from ksdiff_cli.errors import KsdiffError
from ksdiff_cli.files.content import is_other, stamp
from ksdiff_cli.files.writing import atomic_write, unwritable

if sys.platform != "win32":
    import fcntl

LOCK = "lock"
"""Name of the lock in its folder."""
IDENTITY = "job.json"
"""Name of what a folder's content depends on."""
_OLD = ".old"


class Claim:
    """A note of the files that a command is about to name: killed before it ended, it knows them for its own.

    Several files cannot appear at once. So the note says what was at their places when the first of them was whole; it
    goes once all of them, and all else that the command does, are done; as a context manager, also on an error after
    it was made, for what is there then may be another program's.
    """

    def __init__(self, note: Path, how: str = "") -> None:
        """Take the note's place, and all that the files depend on: a command of other options claims nothing."""
        self._note, self._how, self._made = note, how, False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        if kind is not None and self._made:
            self.drop()

    def make(self, *paths: Path) -> None:
        """Claim files, whatever is there now."""
        self._made = True
        before = {str(path.absolute()): stamp(path) for path in paths}
        write_note(self._note, json.dumps({"how": self._how, "before": before}))

    @property
    def stands(self) -> bool:
        """Whether a command of the same options made it."""
        return self._read()[0] == self._how

    def names(self, path: Path) -> bool:
        """Say whether a command, of whatever options, claimed a file."""
        return str(path.absolute()) in self._read()[1]

    def owns(self, path: Path) -> bool:
        """Say whether a command of the same options made what is at a place."""
        how, before = self._read()
        name = str(path.absolute())
        return how == self._how and name in before and path.exists() and is_other(stamp(path), before[name])

    def drop(self) -> None:
        """Forget it."""
        self._note.unlink(missing_ok=True)

    def _read(self) -> tuple[str | None, dict[str, list[int] | None]]:
        try:
            found = json.loads(self._note.read_text(encoding="utf-8"))
            return found["how"], found["before"]
        except (OSError, ValueError, LookupError, TypeError):
            return None, {}


@dataclass
class Workdir:
    """A folder for one process alone; see :func:`open_workdir`."""

    path: Path
    discarded: bool = False
    """Whether an interrupted run of another identity was found and cleared away."""

    def clear(self) -> None:
        """Remove all but the lock, in an order that another run understands if this one is killed meanwhile."""
        (self.path / IDENTITY).unlink(missing_ok=True)
        # without it no worker begins to write; one that had begun may name its file between list and removal
        for _ in range(2):
            empty_folder(self.path)

    def remove(self) -> None:
        """Remove the folder: it is gone from its place at once."""
        with suppress(FileNotFoundError):
            shutil.rmtree(self.path.rename(self.path.with_name(f"{self.path.name}.{os.getpid()}{_OLD}")))


@contextmanager
def open_workdir(path: Path, identity: str, busy: str, *, resume: bool = True) -> Iterator[Workdir]:
    """Take a folder for this process alone, with what an earlier run of the same identity finished there.

    It stays when the block ends, however it does.

    Args:
        path: the folder; made if it is missing.
        identity: all that its content depends on.
        busy: see :func:`lock_folder`.
        resume: keep what is there if it is of the same identity.

    Raises:
        KsdiffError: another process has it, it cannot be made, or it is not ksdiff's.
    """
    remove_old(path.parent, escape(path.name))
    foreign = path.is_symlink() or path.is_file() or (path.is_dir() and not (path / LOCK).exists())
    if foreign and (not path.is_dir() or path.is_symlink() or any(path.iterdir())):
        raise KsdiffError(f"{path}: is where ksdiff would work, but was not made by it; move it away")
    with lock_folder(path, busy):
        work, note = Workdir(path), path / IDENTITY
        earlier = note.read_text(encoding="utf-8") if note.exists() else None
        if earlier != identity or not resume:
            work.discarded = earlier is not None and resume
            work.clear()
            try:
                write_note(note, identity)
            except BaseException:  # a full disk; nothing else is there
                work.remove()
                raise
        yield work


def remove_old(folder: Path, pattern: str) -> None:
    """Remove what processes left that were killed while they removed folders of such names."""
    for old in folder.glob(f"{pattern}.*{_OLD}"):
        if old.name.removesuffix(_OLD).rpartition(".")[2].isdecimal():
            shutil.rmtree(old, ignore_errors=True)


@contextmanager
def lock_folder(folder: Path, busy: str) -> Iterator[IO[str]]:
    """Make a folder if it is missing and take it for this process; the system lets go of it however the process ends.

    Args:
        folder: to lock.
        busy: what to say when another process has it; ``{owner}`` becomes its number.

    Yields:
        The open lock.

    Raises:
        KsdiffError: another process has it, it cannot be made, or holds a file of that name that is no lock.
    """
    file = _take_lock(folder, busy)
    with file:
        yield file


def _take_lock(folder: Path, busy: str) -> IO[str]:
    while True:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            file = (folder / LOCK).open("a+")
        except FileNotFoundError:  # another process has just ended and removed the folder
            continue
        except OSError as error:
            raise KsdiffError(f"{folder}: cannot be made ({error.strerror}); choose another with -o") from None
        file.seek(0)
        owner = file.read(20).strip()
        if owner and not owner.isdecimal():
            file.close()
            raise KsdiffError(f"{folder / LOCK}: is where ksdiff puts its lock, but is no lock; move it away")
        if sys.platform == "win32":
            return file
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            raise KsdiffError(busy.replace("{owner}", owner or "unknown")) from None
        except OSError:  # a file system without locks
            return file
        if (folder / LOCK).exists() and (folder / LOCK).stat().st_ino == os.fstat(file.fileno()).st_ino:
            with suppress(OSError):  # on a full disk nobody learns who has it
                file.truncate(0)
                os.write(file.fileno(), str(os.getpid()).encode())
            return file
        file.close()


def empty_folder(folder: Path, *keep: str) -> None:
    """Remove everything in a folder but its lock and entries of the names given."""
    for entry in list(folder.iterdir()):
        if entry.name in (LOCK, *keep):
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink(missing_ok=True)


def write_note(path: Path, text: str) -> None:
    """Write a small file that a killed process leaves whole, or as it was.

    Raises:
        KsdiffError: it cannot be written.
    """
    try:
        with atomic_write(path) as growing:
            growing.write_text(text, encoding="utf-8")
    except OSError as error:
        raise unwritable(path, error) from None
