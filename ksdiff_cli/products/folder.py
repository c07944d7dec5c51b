"""Folders that products lie in: on disk, inside an archive, or on a web server; and what a person may name one by."""

import os
import re
from functools import cached_property
from pathlib import Path, PurePosixPath

from ksdiff_cli.errors import KsdiffError

ARCHIVES = (".tar", ".tar.gz", ".tgz", ".zip")
_METADATA = ("_mtl.txt", ".imd", ".til", ".xml")
_TEXTS = (".txt", ".imd", ".til", ".xml", ".dim")
# GDAL would write a file .properties beside every compressed archive that it reads
os.environ.setdefault("CPL_VSIL_GZIP_WRITE_PROPERTIES", "NO")

_INSIDE = re.compile(r"/vsi(?:zip|tar)/(?P<archive>.+?\.(?:zip|tar\.gz|tgz|tar))(?:/(?P<inner>.+))?", re.IGNORECASE)


class Folder:
    """A folder on disk."""

    path: str
    """As GDAL opens it, without a slash at its end."""
    name: str
    """For people."""

    def __init__(self, path: str | Path) -> None:
        """Take an existing folder."""
        self.path = str(path)
        self.name = Path(path).resolve().name

    @cached_property
    def files(self) -> list[str]:
        """Names of the files in it, sorted; hidden ones left out."""
        return [entry.name for entry in self._entries() if entry.is_file()]

    @property
    def folders(self) -> list["Folder"]:
        """The folders in it, sorted by name; hidden ones left out."""
        return [Folder(self.at(entry.name)) for entry in self._entries() if entry.is_dir()]

    def at(self, name: str) -> str:
        """Return the path of a file in it, as GDAL opens it."""
        return str(Path(self.path, name))

    def find(self, name: str) -> str | None:
        """Return the file called ``name`` in any case, as it is called here."""
        return next((own for own in self.files if own.lower() == name.lower()), None)

    def read_text(self, name: str) -> str:
        """Read a metadata file.

        Raises:
            KsdiffError: it cannot be read.
        """
        try:
            return Path(self.path, name).read_text(encoding="utf-8", errors="replace")
        except OSError as error:
            raise KsdiffError(f"{self.at(name)}: cannot be read ({error.strerror}); check its permissions") from None

    def _entries(self) -> list[os.DirEntry[str]]:
        try:
            with os.scandir(self.path) as entries:
                found = [entry for entry in entries if not entry.name.startswith(".")]
        except OSError as error:
            raise KsdiffError(f"{self.path}: cannot be read ({error.strerror}); check its permissions") from None
        return sorted(found, key=lambda entry: entry.name)


class ListedFolder(Folder):
    """A folder known by a list of all files in it and below, such as an archive's."""

    def __init__(self, path: str, name: str, files: dict[str, str | None]) -> None:
        """Take the files by their paths from here, with the text of those that are metadata."""
        self.path, self.name, self._files = path, name, files

    @cached_property
    def files(self) -> list[str]:
        """See :class:`Folder`."""
        return sorted(path for path in self._files if "/" not in path and not path.startswith("."))

    @property
    def folders(self) -> list[Folder]:
        """See :class:`Folder`."""
        names = {path.partition("/")[0] for path in self._files if "/" in path}
        return [self.below(name) for name in sorted(names) if not name.startswith((".", "__MACOSX"))]

    def below(self, inner: str) -> "ListedFolder":
        """Return a folder below this one; an empty one when there is none."""
        start = inner + "/"
        files = {path.removeprefix(start): text for path, text in self._files.items() if path.startswith(start)}
        return ListedFolder(f"{self.path}/{inner}", PurePosixPath(inner).name, files)

    def at(self, name: str) -> str:
        """See :class:`Folder`."""
        return f"{self.path}/{name}"

    def read_text(self, name: str) -> str:
        """See :class:`Folder`."""
        text = self._files.get(name)
        if text is None:
            raise KsdiffError(f"{self.at(name)}: is too large for a metadata file; unpack the archive and look at it")
        return text


def names_scenes(path: str) -> bool:
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
    if text.lower().endswith(ARCHIVES):
        from ksdiff_cli.products.archive import open_archive

        return [open_archive(text)], ""
    if text.lower().endswith(_METADATA):
        # Maxar and Airbus put PAN and MS into sibling folders
        return [Folder(local.parent), Folder(local.absolute().parent.parent)], local.name
    raise KsdiffError(f"{path}: is a file; name the scene's folder (or PAN and MS one by one)")


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
