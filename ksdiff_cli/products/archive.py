"""Archives and products on a web server: their files are listed here, and GDAL reads the pixels in place."""

import io
import re
import tarfile
import urllib.error
import urllib.parse
import urllib.request
import zipfile
import zlib
from pathlib import Path
from typing import IO, Any

from ksdiff_cli.errors import KsdiffError
from ksdiff_cli.products.folder import ListedFolder, is_text

_LARGEST_TEXT = 16 << 20
_TIMEOUT = 30  # s
_NAMED_FILE = re.compile(r'^\s*FILE_NAME_\w+\s*=\s*"(?P<name>[^"/]+)"', re.MULTILINE)


def open_archive(path: str) -> ListedFolder:
    """List a ``.tar``, ``.tar.gz``, ``.tgz`` or ``.zip``, on disk or (not compressed as a whole) on a web server.

    Raises:
        KsdiffError: it cannot be read, is damaged or cut short.
    """
    path = path.removeprefix("/vsicurl/")
    remote = path.startswith(("http://", "https://"))
    lower = path.lower()
    if remote and lower.endswith((".tar.gz", ".tgz")):
        raise KsdiffError(f"{path}: a compressed archive cannot be read in pieces; download it and name the file")
    try:
        with io.BufferedReader(_HttpFile(path), 1 << 16) if remote else Path(path).open("rb") as file:
            files = _list_zip(file) if lower.endswith(".zip") else _list_tar(file)
    except (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError) as error:
        missing = isinstance(error, FileNotFoundError)
        advice = "check the path" if missing else "the file is damaged or incomplete, fetch it again"
        raise KsdiffError(f"{path}: cannot be read as an archive ({_reason(error)}); {advice}") from None
    prefix = "/vsizip/" if lower.endswith(".zip") else "/vsitar/"
    whole = f"/vsicurl/{path}" if remote else str(Path(path).absolute())
    name = re.sub(r"(\.tar)?\.\w+$", "", path.rpartition("/")[2], flags=re.IGNORECASE)
    return ListedFolder(prefix + whole, name, files)


def open_remote_mtl(url: str) -> ListedFolder:
    """List the files that a Landsat MTL file on a web server names; they are taken to lie beside it.

    Raises:
        KsdiffError: it cannot be fetched.
    """
    try:
        with io.BufferedReader(_HttpFile(url)) as file:
            text = file.read(_LARGEST_TEXT).decode(errors="replace")
    except OSError as error:
        raise KsdiffError(f"{url}: cannot be fetched ({_reason(error)}); check the address") from None
    base, _, own = url.rpartition("/")
    files: dict[str, str | None] = {match["name"]: None for match in _NAMED_FILE.finditer(text)}
    return ListedFolder(base, own[: -len("_MTL.txt")], files | {own: text})


def _list_tar(file: IO[bytes]) -> dict[str, str | None]:
    files: dict[str, str | None] = {}
    with tarfile.open(fileobj=file) as archive:
        # one pass: a compressed archive cannot go back
        for member in archive:
            if member.isfile():
                small = is_text(member.name) and member.size <= _LARGEST_TEXT
                content = archive.extractfile(member) if small else None
                files[member.name.removeprefix("./")] = content.read().decode(errors="replace") if content else None
    return files


def _list_zip(file: IO[bytes]) -> dict[str, str | None]:
    files: dict[str, str | None] = {}
    with zipfile.ZipFile(file) as archive:
        for member in archive.infolist():
            if not member.is_dir():
                small = is_text(member.filename) and member.file_size <= _LARGEST_TEXT and not member.flag_bits & 1
                files[member.filename] = archive.read(member).decode(errors="replace") if small else None
    return files


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error).partition("\n")[0] or type(error).__name__


class _HttpFile(io.RawIOBase):
    """A file on a web server, read by byte ranges."""

    def __init__(self, url: str) -> None:
        # the address as people write it may hold blanks
        self._url, self._position = urllib.parse.quote(url, safe=":/?&=%+,;@~!$'()*#"), 0
        with self._request(0, 1) as answer:
            if answer.status != 206:
                raise OSError(None, "the server does not send parts of files; download it")
            self._size = int(answer.headers["Content-Range"].rpartition("/")[2])

    def _request(self, start: int, stop: int) -> Any:
        request = urllib.request.Request(self._url, headers={"Range": f"bytes={start}-{stop - 1}"})
        try:
            return urllib.request.urlopen(request, timeout=_TIMEOUT)
        except urllib.error.HTTPError as error:
            error.close()  # it is an open answer, too
            raise OSError(None, f"HTTP {error.code} {error.reason}") from None
        except urllib.error.URLError as error:
            raise OSError(None, str(getattr(error.reason, "strerror", None) or error.reason)) from None

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._position = offset + (0, self._position, self._size)[whence]
        return self._position

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: Any) -> int:
        stop = min(self._size, self._position + len(buffer))
        if stop <= self._position:
            return 0
        with self._request(self._position, stop) as answer:
            content = answer.read()
        buffer[: len(content)] = content
        self._position += len(content)
        return len(content)
