"""Which files stand behind a name, and which places may be written."""

import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, suppress
from html import unescape
from pathlib import Path
from stat import S_ISDIR, S_ISREG
from urllib.parse import quote, unquote

from ksdiff_cli.errors import KsdiffError
from ksdiff_cli.files.writing import unwritable

SIDECARS = (".aux.xml", ".ovr", ".msk")
"""Ends of the files that GDAL takes for parts of a raster, behind its name."""
BESIDE = (".tfw", ".wld", ".RPB", "_RPC.TXT")
"""The same in place of its suffix: --co TFW, WORLDFILE, RPB, RPCTXT, and PROFILE without RPCs inside."""
PARTS = (".RPB", "_RPC.TXT")
"""Those of them that GDAL reads for a GeoTIFF of that name whatever is inside it."""
Look = Callable[[str], Sequence[str]]
"""Tells the names of the files that a dataset is read from; none where there is no dataset."""

_LONGEST = 255
"""Bytes of a file's name, where the system does not say."""
_GROWING = len("...1234567.whole.tif.1234567.partial.aux.xml")
"""Bytes that the longest of an output's temporary names has besides the output's own: where a COG is made."""
_LONGEST_PATH = 4096
_LONGEST_XML, _LONGEST_TEXT = 64 << 20, 1 << 20  # bytes of a text in which other files' names are looked for
# where in a name that GDAL opens a path may begin, and where it may end
_BEGIN = re.compile(r"^|://|/vsi\w+/|[:=,;\"'{(|]")
_END = re.compile(r"[/?&!,:;\"'})#|]|$")
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")  # as a path has it; a disk of Windows has one letter
_CRS = re.compile(r"[A-Z_]+\[")  # how the text of a coordinate reference system begins
_QUOTED = re.compile(r"\"([^\"\n]{1,4096})\"")
_XML_TEXT = re.compile(r">([^<>]{1,4096})<|=\s*\"([^\"<>]{1,4096})\"|=\s*'([^'<>]{1,4096})'")


def paths_in(name: str, base: str = "") -> list[Path]:
    """Return the files on this machine behind a name that GDAL opens; a folder where it is all that is there.

    Args:
        name: a path; or one within an address or an option (``vrt://a.tif?bands=1``, ``GTIFF_RAW:a.tif``,
            ``/vsisubfile/0_99,a.tif``, ``/vsizip//data/a.zip/b.tif``).
        base: folder at which relative paths begin; "" is the working one.
    """
    if _kind(whole := Path(base, name)) is not None:
        return [whole]
    found = [Path("/dev/stdin")] if "/vsistdin" in name else []
    if _CRS.match(name):
        return found
    for text in dict.fromkeys((name, unquote(name))):
        ends = [match.start() for match in _END.finditer(text[:_LONGEST_PATH])]
        for begin in {match.end() for match in _BEGIN.finditer(text[:_LONGEST_PATH])}:
            for end in reversed([one for one in ends if one > begin]):
                kind = _kind(place := Path(base, text[begin:end]))
                if kind is not None and (S_ISREG(kind) or end == len(text)):
                    found.append(place)
                    break
    return found


def files_behind(names: Iterable[str | Path], look: Look = lambda name: ()) -> list[Path]:
    """Return all files on this machine that reading what is named may read: those that it refers to, too.

    Args:
        names: see :func:`paths_in`, or the text of a VRT.
        look: asked of the names, and of the files of text that turn up on the way (lists of tiles). Names in XML, in
            quotes and in databases (indices of tiles) are followed without it.

    Returns:
        Sorted; one of a file's names, and folders that are datasets.
    """
    found: dict[tuple[int, int], Path] = {}
    waiting: list[tuple[str, str]] = []
    for name in map(str, names):
        waiting += [(one, "") for one in (name, *look(name))]
    while waiting:
        name, base = waiting.pop()
        if name.lstrip().startswith("<"):
            waiting += [(one, base) for one in _names_in(name)]
            continue
        for path in paths_in(name, base):
            with suppress(OSError):
                state = path.stat()
                if (state.st_dev, state.st_ino) in found or (S_ISDIR(state.st_mode) and not look(str(path))):
                    continue
                found[state.st_dev, state.st_ino] = path
                if S_ISREG(state.st_mode) and (text := _read_text(path)):
                    waiting += [(one, "") for one in look(str(path))]
                    folders = dict.fromkeys((str(path.parent), str(path.resolve().parent), ""))
                    waiting += [(one, folder) for one in dict.fromkeys(_names_in(text)) for folder in folders]
    return sorted(found.values())


class Inputs:
    """The files that a command reads: no output takes the place of any of it, whatever names the two go by."""

    def __init__(
        self, names: Iterable[str | Path] = (), look: Callable[[str], Sequence[str]] = lambda name: ()
    ) -> None:
        self.files = files_behind(names, look)
        self._known: dict[tuple[int, int], Path] = {}
        for path in self.files:
            for one in (path, *sidecars(path)):
                with suppress(OSError):
                    state = one.stat()
                    self._known[state.st_dev, state.st_ino] = one

    def find(self, place: Path) -> Path | None:
        """Return the input that lies at a place, or the folder read as a whole that the place is in; None if none."""
        for path in (place, *place.absolute().parents):
            with suppress(OSError, ValueError):
                state = path.stat()
                if found := self._known.get((state.st_dev, state.st_ino)):
                    return found
        return None

    def temporary(self, output: Path) -> Path | None:
        """Return the input that has a name under which this output's temporary files go; None if none."""
        start = f".{output.name}."
        for path in self._known.values():
            for part in (path, *path.absolute().parents):
                if part.name.startswith(start) and is_same(part.parent, output.parent):
                    return path
        return None


def sidecars(path: Path) -> list[Path]:
    """Return the names of the files that belong to a raster of that name, if they are there."""
    return [path.with_name(path.name + end) for end in SIDECARS] + [path.with_name(path.stem + end) for end in BESIDE]


def check_place(path: Path, inputs: Inputs, overwrite: bool) -> None:
    """Refuse a file that could not be written in the end, or not without a loss, before any work.

    Args:
        path: the file to be.
        inputs: what may not be lost.
        overwrite: whether it may take the place of a file that is there.

    Raises:
        KsdiffError: it is one of the inputs, a symbolic link (another file may hang on it), or no ordinary file; it
            exists (without ``overwrite``); or see :func:`check_location`.
    """
    check_location(path)
    if inputs.find(path):
        raise KsdiffError(f"{path}: is one of the inputs; choose another name")
    if hidden := inputs.temporary(path):
        raise KsdiffError(f"{hidden}: is an input where {path} puts its temporary files; choose another name")
    if path.is_symlink():
        raise KsdiffError(f"{path}: is a symbolic link to {path.readlink()}; name that file itself, or another one")
    if path.exists() and not path.is_file():
        raise KsdiffError(f"{path}: is no ordinary file; choose another name")
    check_free(path, overwrite)


def check_free(path: Path, overwrite: bool, output: Path | None = None) -> None:
    """Refuse a place where something is, unless it may be replaced.

    Args:
        path: the place.
        overwrite: whether what is there may be replaced.
        output: what would take it for a part of itself, where that is not the file itself.

    Raises:
        KsdiffError: something is there.
    """
    if os.path.lexists(path) and not overwrite:
        part = f", and would count as part of {output}" if output else ""
        raise KsdiffError(f"{path}: exists already{part}; choose another name or give --overwrite")


def check_location(path: Path) -> None:
    """Refuse what no file can be written to.

    Raises:
        KsdiffError: it is a folder, its own folder does not exist or cannot be written, or its name is too long.
    """
    folder = path.parent
    if _ADDRESS.match(str(path)):
        raise KsdiffError(f"{path}: is an address, and outputs are written to disks; name a file here")
    try:
        there, is_folder = folder.exists(), folder.is_dir()
    except OSError as error:
        raise unwritable(path, error) from None
    if there and not is_folder:
        raise KsdiffError(f"{path}: cannot be made, {folder} is a file, not a folder; choose another place")
    if not is_folder:
        raise KsdiffError(f"{path}: the folder {folder} does not exist; make it first")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise KsdiffError(f"{path}: the folder {folder} cannot be written to; choose another")
    _check_length(path)
    if path.is_dir():
        raise KsdiffError(f"{path}: is a folder; name the file to write")


def is_same(one: Path, other: Path | str) -> bool:
    """Say whether two paths are one file or folder that is there."""
    try:
        return one.samefile(other)
    except OSError:  # one of them does not exist, or cannot
        return False


def _kind(path: Path) -> int | None:
    """Return a path's mode; None where nothing is there, or can be."""
    try:
        return path.stat().st_mode
    except (OSError, ValueError):
        return None


def _read_text(path: Path) -> str:
    """Return XML, the texts of a database, or the beginning of other text; nothing of a file that is none of these."""
    try:
        with path.open("rb") as file:
            head = file.read(512)
            if head.startswith(b"SQLite format 3"):
                return _read_database(path)
            if b"\0" in head or head.startswith((b"NITF", b"NSIF")):
                return ""
            return (head + file.read(_LONGEST_XML if _is_xml(head) else _LONGEST_TEXT)).decode("utf-8", "replace")
    except OSError:
        return ""


def _read_database(path: Path) -> str:
    """Return all texts in an SQLite file's tables, in quotes."""
    import sqlite3

    found: list[str] = []
    place = f"file:{quote(str(path.absolute()))}?mode=ro&immutable=1"
    with suppress(sqlite3.Error), closing(sqlite3.connect(place, uri=True)) as database:
        tables = [name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        for table in (name.replace('"', '""') for name in tables):
            about = database.execute(f'PRAGMA table_info("{table}")')
            kinds = {row[1].replace('"', '""'): row[2].upper() for row in about}
            for column in (name for name, kind in kinds.items() if "BLOB" not in kind):
                words = f'SELECT DISTINCT "{column}" FROM "{table}" WHERE typeof("{column}") = \'text\''
                found += [f'"{text}"' for (text,) in database.execute(words)]
    return "\n".join(found)


def _is_xml(head: bytes) -> bool:
    return head.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"<")


def _names_in(text: str) -> Iterator[str]:
    """Return what may be names of files in a text: whatever stands between tags, or in quotes."""
    pattern = _XML_TEXT if _is_xml(text[:512].encode(errors="replace")) else _QUOTED
    for match in pattern.finditer(text):
        found = unescape(match[match.lastindex or 0]).strip()
        if "\n" not in found and any(sign.isalpha() for sign in found):
            yield found


def _check_length(path: Path) -> None:
    """Refuse a name that leaves no room for those under which the file grows; names end at bytes, not letters."""
    try:
        longest = os.pathconf(path.parent, "PC_NAME_MAX") if hasattr(os, "pathconf") else _LONGEST
    except (OSError, ValueError):
        longest = _LONGEST
    surplus = len(os.fsencode(path.name)) + _GROWING - longest
    if surplus > 0:
        raise KsdiffError(
            f"{path}: its name is too long for the temporary files beside it; make it {surplus} "
            f"{'byte' if surplus == 1 else 'bytes'} shorter"
        )
