"""Folders that products lie in: on disk, inside an archive, or on a web server; and what a person may name one by."""

import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Union

from ksdiff_cli.errors import KsdiffError

ENTRIES = 100_000
"""Files and folders that a search looks at; a provider's largest delivery has some thousand."""
LARGEST_TEXT, ALL_TEXTS = 16 << 20, 64 << 20
"""Bytes of one metadata file, and of all that a search reads; real ones have kilobytes."""
_DEEPEST = 16  # folders in folders of an archive
ARCHIVES = (".tar", ".tar.gz", ".tgz", ".zip")
_METADATA = ("_mtl.txt", ".imd", ".til", ".xml")
_TEXTS = (".txt", ".imd", ".til", ".xml", ".dim")
# GDAL would write a file .properties beside every compressed archive that it reads
os.environ.setdefault("CPL_VSIL_GZIP_WRITE_PROPERTIES", "NO")

_INSIDE = re.compile(
    r"/vsi(?:zip|tar)/(?P<archive>.+?\.(?:zip|tar\.gz|tgz|tar))(?:/(?P<inner>.+))?", re.IGNORECASE | re.DOTALL
)


@dataclass
class Allowance:
    """What a search may still look at: a folder of strangers may hold anything."""

    entries: int = field(default_factory=lambda: ENTRIES)
    text: int = field(default_factory=lambda: ALL_TEXTS)

    def take(self, path: str, entries: int = 0, text: int = 0) -> None:
        """Count what is looked at.

        Raises:
            KsdiffError: it is more than there is of any product.
        """
        self.entries, self.text = self.entries - entries, self.text - text
        if self.entries < 0:
            raise KsdiffError(f"{path}: more than {ENTRIES} files and folders lie here; name the scene's own folder")
        if self.text < 0:
            raise KsdiffError(f"{path}: over {ALL_TEXTS >> 20} MB of metadata lie here; name PAN and MS one by one")


class Folder:
    """A folder on disk."""

    path: str
    """As GDAL opens it, without a slash at its end."""
    name: str
    """For people."""
    packed: bool = False
    """Whether it lies in an archive."""

    def __init__(self, path: str | Path, allowance: Allowance | None = None) -> None:
        """Take an existing folder, and what may be looked at in it and others of one search."""
        self.path = str(path)
        self.name = Path(path).resolve().name
        self._allowance = allowance or Allowance()

    @cached_property
    def files(self) -> list[str]:
        """Names of the files in it, sorted; hidden ones left out."""
        return [entry.name for entry in self._entries if entry.is_file()]

    @cached_property
    def folders(self) -> list["Folder"]:
        """The folders in it, sorted by name; hidden ones left out."""
        return [Folder(self.at(entry.name), self._allowance) for entry in self._entries if entry.is_dir()]

    def at(self, name: str) -> str:
        """Return the path of a file in it, as GDAL opens it."""
        return str(Path(self.path, name))

    def find(self, name: str) -> str | None:
        """Return the file called ``name`` in any case, as it is called here."""
        return self._by_lower.get(name.lower())

    def read_text(self, name: str) -> str:
        """Read a metadata file.

        Raises:
            KsdiffError: it cannot be read, or is too large.
        """
        try:
            with Path(self.path, name).open("rb") as file:
                content = file.read(LARGEST_TEXT + 1)
        except FileNotFoundError:
            raise KsdiffError(f"{self.at(name)}: no such file; check the path") from None
        except OSError as error:
            raise KsdiffError(f"{self.at(name)}: cannot be read ({error.strerror}); check its permissions") from None
        if len(content) > LARGEST_TEXT:
            raise KsdiffError(f"{self.at(name)}: is too large for a metadata file; fetch it again")
        self._allowance.take(self.path, text=len(content))
        return content.decode(errors="replace")

    @cached_property
    def _by_lower(self) -> dict[str, str]:
        return {own.lower(): own for own in reversed(self.files)}  # the first of two that differ by case

    @cached_property
    def _entries(self) -> list[os.DirEntry[str]]:
        try:
            with os.scandir(self.path) as entries:
                seen = (entry for entry in entries if not entry.name.startswith("."))
                found = list(islice(seen, self._allowance.entries + 1))
        except OSError as error:
            raise KsdiffError(f"{self.path}: cannot be read ({error.strerror}); check its permissions") from None
        self._allowance.take(self.path, entries=len(found))
        return sorted(found, key=lambda entry: entry.name)


Text = str | None
"""A metadata file's text; None of other files, and of one that is too large."""
Tree = dict[str, Union["Tree", Text]]


class ListedFolder(Folder):
    """A folder known by a list of all files in it and below, such as an archive's."""

    packed = True

    def __init__(self, path: str, name: str, files: Mapping[str, Text]) -> None:
        """Take the files by their paths from here, with the text of those that are metadata."""
        tree: Tree = {}
        for file, text in files.items():
            *parents, own = PurePosixPath(file).parts or ("..",)
            if {"/", ".."} & {*parents, own} or len(parents) > _DEEPEST:
                continue  # no product's file
            place: Tree | Text = tree
            for parent in parents:
                place = place.setdefault(parent, {}) if isinstance(place, dict) else None
            if isinstance(place, dict):  # else a file is said to be a folder, too
                place.setdefault(own, text)
        self.path, self.name, self._tree = path, name, tree

    @classmethod
    def _of(cls, path: str, name: str, tree: Tree) -> "ListedFolder":
        folder = cls(path, name, {})
        folder._tree = tree
        return folder

    @cached_property
    def files(self) -> list[str]:
        found = (name for name, inner in self._tree.items() if not isinstance(inner, dict))
        return sorted(name for name in found if not name.startswith("."))

    @cached_property
    def folders(self) -> list[Folder]:
        found = (name for name, inner in self._tree.items() if isinstance(inner, dict))
        return [self.below(name) for name in sorted(found) if not name.startswith((".", "__MACOSX"))]

    def below(self, inner: str) -> "ListedFolder":
        """Return a folder below this one; an empty one when there is none."""
        place: Tree | Text = self._tree
        for name in PurePosixPath(inner).parts:
            place = place.get(name) if isinstance(place, dict) else None
        return self._of(f"{self.path}/{inner}", PurePosixPath(inner).name, place if isinstance(place, dict) else {})

    def at(self, name: str) -> str:
        return f"{self.path}/{name}"

    def read_text(self, name: str) -> str:
        text = self._tree.get(name)
        if not isinstance(text, str):
            raise KsdiffError(f"{self.at(name)}: is too large for a metadata file; unpack the archive and look at it")
        return text


def names_folder(path: str) -> bool:
    """Say whether a path names a folder, an archive or a metadata file rather than one image."""
    lower = path.lower()
    inside = _INSIDE.fullmatch(path)
    if inside and inside["inner"]:
        return lower.endswith(_METADATA) or "." not in PurePosixPath(inside["inner"]).name
    return lower.endswith((*ARCHIVES, *_METADATA)) or Path(path).is_dir()


def places(path: str | Path) -> tuple[list[Folder], str]:
    """Find the folders that a person means.

    Args:
        path: a folder; an archive (``.tar``, ``.tar.gz``, ``.tgz``, ``.zip``) or a folder in one
            (``/vsizip/scene.zip/a``); a metadata file (MTL, IMD, TIL, XML); of a web server (``http://…``) a ``.tar``,
            a ``.zip`` or a Landsat ``…_MTL.txt``.

    Returns:
        The folders to look into, one after the other until scenes are found; and the metadata file that was named
        ("" if none), whose scene alone is meant.

    Raises:
        KsdiffError: there is no such thing, or it is one image.
    """
    text = _with_slashes(path).removeprefix("/vsicurl/")
    if text.startswith(("http://", "https://", "/vsi")) or "://" in text:
        return _virtual(text)
    local = Path(text)
    if not local.exists():
        raise KsdiffError(f"{path}: no such folder or file; check the path")
    if local.is_dir():
        return [Folder(local)], ""
    if not stat.S_ISREG(local.stat().st_mode):
        raise KsdiffError(f"{path}: is a pipe or a device, which cannot be looked into; write it into a file first")
    if text.lower().endswith(ARCHIVES):
        from ksdiff_cli.products.archive import open_archive

        return [open_archive(text)], ""
    if text.lower().endswith(_METADATA):
        # Maxar and Airbus put PAN and MS into sibling folders
        allowance = Allowance()
        return [Folder(local.parent, allowance), Folder(local.absolute().parent.parent, allowance)], local.name
    raise KsdiffError(f"{path}: is a file; name the scene's folder, which holds PAN and MS")


def _with_slashes(path: str | Path) -> str:
    """Give back the second of two slashes, which a URL or ``/vsizip//data/scene.zip`` loses as a Path."""
    if isinstance(path, str):
        return path
    text = re.sub(r"\b(https?|s3|gs|az):/(?!/)", r"\1://", str(path))
    match = re.match(r"(/vsi(?:zip|tar)/)([^/].*)", text)
    if match and (match[2].startswith("vsi") or not Path(match[2].partition("/")[0]).exists()):
        text = f"{match[1]}/{match[2]}"
    return text


def _virtual(text: str) -> tuple[list[Folder], str]:
    from ksdiff_cli.products.archive import open_archive, open_remote_mtl

    if inside := _INSIDE.fullmatch(text.rstrip("/")):
        folder, inner = open_archive(inside["archive"]), inside["inner"] or ""
        if not inner.lower().endswith(_METADATA):
            return [folder.below(inner) if inner else folder], ""
        parents = PurePosixPath(inner).parts[:-1]
        inners = ["/".join(parents[:depth]) for depth in (len(parents), len(parents) - 1) if depth >= 0]
        return [folder.below(inner) if inner else folder for inner in inners], PurePosixPath(inner).name
    if text.startswith(("http://", "https://")):
        if text.lower().endswith(ARCHIVES):
            return [open_archive(text)], ""
        if text.lower().endswith("_mtl.txt"):
            return [open_remote_mtl(text)], PurePosixPath(text).name
    raise KsdiffError(
        f"{text}: is no folder that can be listed; name PAN and MS one by one "
        "(of a web server, a .tar, a .zip or a Landsat _MTL.txt will do)"
    )


def is_text(name: str) -> bool:
    """Say whether a file in an archive may be a metadata file."""
    return name.lower().endswith(_TEXTS)
