"""Files that appear under their names whole or not at all; PNG."""

import errno
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from glob import escape
from io import BytesIO
from pathlib import Path
from typing import Any
from uuid import uuid4

from ksdiff_cli.errors import KsdiffError
from ksdiff_cli.files.content import is_other, stamp

_PARTIAL = ".partial"
SHARED = ".part"
"""End of the name under which a file grows that several processes may write."""


def growing_name(path: Path) -> Path:
    """Return the name beside a file or a folder under which it grows; what killed processes left there goes."""
    for left in path.parent.glob(f".{escape(path.name)}.*{_PARTIAL}*"):
        number = left.name.removeprefix(f".{path.name}.").partition(".")[0]
        if number.isdecimal() and not _is_alive(number):
            if left.is_dir():
                shutil.rmtree(left, ignore_errors=True)
            else:
                left.unlink(missing_ok=True)
    return path.with_name(f".{path.name}.{os.getpid()}{_PARTIAL}")


@contextmanager
def atomic_write(
    path: Path,
    *,
    sync: bool = False,
    shared: bool = False,
    put: Callable[[Path, Path], object] | None = None,
) -> Iterator[Path]:
    """Yield a path beside ``path`` to write to; what is there when the block ends well becomes ``path``.

    However else the block ends, with an interrupt too, the growing file goes and what was at ``path`` stays. Only a
    killed process leaves one behind, which the next one to write ``path`` removes. A symbolic link stays one: the file
    that it leads to is written.

    Args:
        path: the file to be; its folder exists.
        sync: wait until the disk has it before it gets its name: for what a power cut may not take.
        shared: processes, perhaps of several machines, may write the same content at once, and any of them may be last.
        put: gives the finished file its name; None renames it.

    Raises:
        OSError: it cannot be written, or somebody else wrote to ``path`` meanwhile; as it comes, for those who then
            keep what is finished. People are told by :func:`unwritable`.
    """
    path = path.resolve() if path.is_symlink() else path
    growing = path.with_name(f"{path.name}.{uuid4().hex}{SHARED}") if shared else growing_name(path)
    before = stamp(path)
    try:
        yield growing
        if sync:
            with growing.open("rb+") as file:
                os.fsync(file.fileno())
        if not shared:
            check_still(path, before)
        if put is None:
            growing.replace(path)
        else:
            put(growing, path)
        if sync:
            _sync_folder(path.parent)
    except BaseException:
        with suppress(OSError):
            growing.unlink(missing_ok=True)
        raise


def _sync_folder(folder: Path) -> None:
    """Wait until the disk has a folder's names, where the system can."""
    if sys.platform != "win32":
        with suppress(OSError):
            file = os.open(folder, os.O_RDONLY)
            try:
                os.fsync(file)
            finally:
                os.close(file)


def check_still(path: Path, before: list[int] | None) -> None:
    """Make sure that nobody else wrote to a place while its new content grew beside it.

    Args:
        path: the place.
        before: its :func:`stamp` at the beginning.

    Raises:
        OSError: somebody did.
    """
    now = stamp(path)
    if now is not None and is_other(now, before):
        raise FileExistsError(errno.EEXIST, "another program wrote to it meanwhile, and that is kept")


def remove_growing(folder: Path) -> None:
    """Remove what killed processes left growing in a folder, which this process has for itself."""
    for left in folder.glob(f".*{_PARTIAL}"):
        if left.name.removesuffix(_PARTIAL).rpartition(".")[2].isdecimal():
            left.unlink(missing_ok=True)


def write_text(text: str, path: Path) -> None:
    """Write a text file in UTF-8, whole or not at all.

    Raises:
        KsdiffError: it cannot be written.
    """
    try:
        with atomic_write(path) as growing:
            growing.write_text(text, encoding="utf-8", newline="\n", errors="backslashreplace")
    except OSError as error:
        raise unwritable(path, error) from None


def as_json(value: Any) -> str:
    """Return a value as JSON for people and programs: what :func:`printable` spells out is escaped as JSON has it."""
    text = json.dumps(value, indent=2, ensure_ascii=False)
    return "".join(sign if sign == "\n" or sign.isprintable() else json.dumps(sign)[1:-1] for sign in text)


def unwritable(path: Path, error: OSError) -> KsdiffError:
    """Say in one line that a file cannot be written, and why."""
    return KsdiffError(f"{path}: cannot be written ({error.strerror or error})")


def _is_alive(number: str) -> bool:
    """Say whether there may be a process of that number."""
    if sys.platform == "win32":
        return True
    try:
        os.kill(int(number), 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        return True
    return True


def write_png(image: Any, path: Path) -> None:
    """Write an array, (H, W, 3) uint8, as PNG, whole or not at all; its folder is made.

    Raises:
        OSError: it cannot be written; nothing of it remains.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as growing:
        growing.write_bytes(encode_png(image))


def encode_png(image: Any, palette: Sequence[tuple[int, int, int, int]] = ()) -> bytes:
    """Return a PNG of an array.

    Args:
        image: (H, W) or (H, W, 2 to 4) uint8: grey or colour, perhaps with transparency; or numbers of a palette.
        palette: red, green, blue and opacity by number.
    """
    from PIL import Image

    picture, more = Image.fromarray(image), dict[str, Any]()
    if palette:
        picture = Image.frombytes("P", picture.size, picture.tobytes())
        picture.putpalette([level for colour in palette for level in colour[:3]])
        more["transparency"] = bytes(colour[3] for colour in palette)
    with BytesIO() as file:
        picture.save(file, "PNG", **more)
        return file.getvalue()
