"""By what a file is known again: state, size and samples of its content."""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

from ksdiff_cli.errors import KsdiffError

State = list[str | int]
"""A file's name, what :func:`stamp` says of it, and a digest of its content; a list, as JSON knows no tuples."""


_SAMPLE, _SAMPLES, _IN_A_FILE = 1 << 16, 256, 128  # bytes of a sample of a file; samples of all files, and of one


def stamp(path: Path) -> list[int] | None:
    """Return what the system knows a file or folder by: size, times of writing and of any change, inode; None: none."""
    try:
        state = path.stat()
    except OSError:
        return None
    return [state.st_size, state.st_mtime_ns, state.st_ctime_ns, state.st_ino]


def is_other(now: list[int] | None, before: list[int] | None) -> bool:
    """Say whether two stamps are of other content; who makes a link, as backups do, changes a time, but not that."""
    if now is None or before is None:
        return now is not before
    return (*now[:2], now[3]) != (*before[:2], before[3])


def identify(files: Sequence[Path]) -> list[State]:
    """Return by what another run on this machine knows files again; content counts, too: times can be set.

    Args:
        files: of one command; samples of all of them together take some megabytes to read.
    """
    share = _share(files)
    return [[str(path.absolute()), *(stamp(path) or ()), digest(path, share)] for path in files]


def contents(files: Sequence[Path]) -> tuple[tuple[str, int, str], ...]:
    """Return by what another machine knows files again: name, size and digest; times and inodes differ there."""
    share = _share(files)
    return tuple((str(path.absolute()), path.stat().st_size, digest(path, share)) for path in files)


def find_other(known: Sequence[tuple[str, int, str]]) -> str | None:
    """Return a file that is missing here or holds other content than :func:`contents` found; None if there is none."""
    share = _share(known)
    for name, size, content in known:
        found = stamp(Path(name))
        if found is None or found[0] != size or digest(Path(name), share) != content:
            return name
    return None


def check_unchanged(states: Sequence[State]) -> None:
    """Make sure that nobody wrote to files since they were identified.

    Raises:
        KsdiffError: somebody did.
    """
    for name, *known, _ in states:
        if (stamp(Path(str(name))) or []) != known:
            raise KsdiffError(f"{name}: was changed while it was read; run the same command again")


def digest(path: Path, samples: int | None = _IN_A_FILE) -> str:
    """Return a digest of a file's size and of samples spread over it, sixteen hexadecimal digits.

    Empty for what is no file, or cannot be read.

    Args:
        path: the file.
        samples: of 64 kB, as many; None, or more than there are, reads it whole.
    """
    found = hashlib.blake2b(digest_size=8)
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            found.update(str(size).encode())
            if samples is None or size <= samples * _SAMPLE:
                while part := file.read(1 << 20):
                    found.update(part)
                return found.hexdigest()
            for number in range(samples):
                file.seek((2 * number + 1) * (size - _SAMPLE) // (2 * samples))
                found.update(file.read(_SAMPLE))
    except OSError:
        return ""
    return found.hexdigest()


def _share(files: Sequence[object]) -> int:
    return max(1, min(_IN_A_FILE, _SAMPLES // max(1, len(files))))
