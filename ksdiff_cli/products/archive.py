"""Archives and products on a web server: their files are listed here, and GDAL reads the pixels in place."""

import gzip
import http.client
import io
import re
import struct
import tarfile
import urllib.error
import urllib.parse
import urllib.request
import zipfile
import zlib
from lzma import LZMAError
from pathlib import Path
from typing import IO, Any

from ksdiff_cli.errors import KsdiffError
from ksdiff_cli.products.fields import read_fields
from ksdiff_cli.products.folder import ALL_TEXTS, ENTRIES, LARGEST_TEXT, ListedFolder, Text, is_text
from ksdiff_cli.raster.open import check_unpacked

_TIMEOUT = 30  # s
_UNREADABLE = (
    tarfile.TarError, zipfile.BadZipFile, zlib.error, LZMAError, struct.error, http.client.HTTPException,
    EOFError, OSError, ValueError, RuntimeError, LookupError,
)  # fmt: skip
"""What Python's readers of archives raise where an archive is not what it should be."""


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
            files = _list_zip(path, file) if lower.endswith(".zip") else _list_tar(path, file)
    except _UNREADABLE as error:
        missing = isinstance(error, FileNotFoundError)
        advice = "check the path" if missing else "the file is damaged or incomplete, fetch it again"
        raise KsdiffError(f"{path}: cannot be read as an archive ({_reason(error)}); {advice}") from None
    prefix = "/vsizip/" if lower.endswith(".zip") else "/vsitar/"
    whole = f"/vsicurl/{path}" if remote else str(Path(path).absolute())
    name = re.sub(r"(\.tar)?\.\w+$", "", path.rpartition("/")[2], flags=re.IGNORECASE)
    return ListedFolder(prefix + whole, name, files)


def fetch_text(url: str) -> str:
    """Return a metadata file of a web server.

    Raises:
        KsdiffError: it cannot be fetched.
    """
    try:
        with io.BufferedReader(_HttpFile(url)) as file:
            return file.read(LARGEST_TEXT).decode(errors="replace")
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise KsdiffError(f"{url}: cannot be fetched ({_reason(error)}); check the address") from None


def open_remote_mtl(url: str) -> ListedFolder:
    """List the files that a Landsat MTL file on a web server names; they are taken to lie beside it.

    Raises:
        KsdiffError: it cannot be fetched.
    """
    text = fetch_text(url)
    base, _, own = url.rpartition("/")
    named = (value for key, value in read_fields(text) if key.startswith("FILE_NAME_"))
    files: dict[str, Text] = {name: None for name in named if name and "/" not in name}
    return ListedFolder(base, own[: -len("_MTL.txt")], files | {own: text})


def _list_tar(path: str, file: IO[bytes]) -> dict[str, Text]:
    """List a tar, compressed or not, in one pass: a compressed one cannot go back."""
    packed = file.seek(0, io.SEEK_END)
    file.seek(0)
    compressed = file.read(2) == b"\x1f\x8b"
    file.seek(0)
    files: dict[str, Text] = {}
    texts = 0
    plain: Any = gzip.GzipFile(fileobj=file) if compressed else file
    bounded: Any = _Bounded(path, plain, packed)
    with plain, tarfile.open(fileobj=bounded, mode="r:") as archive:
        seen: list[Any] = vars(archive)["members"]
        for number, member in enumerate(archive, start=1):
            if number > ENTRIES:
                raise _too_many(path)
            seen.clear()  # it would keep them all
            if member.isfile():
                small = is_text(member.name) and member.size <= LARGEST_TEXT and texts + member.size <= ALL_TEXTS
                content = archive.extractfile(member) if small else None
                texts += member.size if content else 0
                files[member.name] = content.read().decode(errors="replace") if content else None
    return files


def _list_zip(path: str, file: IO[bytes]) -> dict[str, Text]:
    packed = file.seek(0, io.SEEK_END)
    files: dict[str, Text] = {}
    texts = 0
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        if len(members) > ENTRIES:
            raise _too_many(path)
        check_unpacked(path, packed, sum(member.file_size for member in members))
        for member in members:
            if not member.filename or member.is_dir():
                continue
            # other ways of compression unpack without a bound, and GDAL does not know them
            known = member.compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) and not member.flag_bits & 1
            small = is_text(member.filename) and member.file_size <= LARGEST_TEXT
            if small and known and texts + member.file_size <= ALL_TEXTS:
                texts += member.file_size
                files[member.filename] = archive.read(member).decode(errors="replace")
            else:
                files[member.filename] = None
    return files


def _too_many(path: str) -> KsdiffError:
    return KsdiffError(f"{path}: holds more than {ENTRIES} files; unpack the scene's own and name their folder")


class _Bounded(io.RawIOBase):
    """A tar that is read no further than an honest archive of its packed size may go."""

    def __init__(self, path: str, file: IO[bytes], packed: int) -> None:
        self._path, self._file, self._packed = path, file, packed

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._file.tell()

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if whence == io.SEEK_SET:
            check_unpacked(self._path, self._packed, offset)
        return self._file.seek(offset, whence)

    def read(self, size: int = -1) -> bytes:
        if size > LARGEST_TEXT + 512:
            raise tarfile.ReadError("a header asks for far too much")
        check_unpacked(self._path, self._packed, self._file.tell() + max(0, size))
        return self._file.read(size)


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error).partition("\n")[0] or type(error).__name__


class _HttpFile(io.RawIOBase):
    """A file on a web server, read by byte ranges."""

    def __init__(self, url: str) -> None:
        # the address as people write it may hold blanks
        self._url, self._position = urllib.parse.quote(url, safe=":/?&=%+,;@~!$'()*#"), 0
        with self._request(0, 1) as answer:
            size = str(answer.headers["Content-Range"]).rpartition("/")[2]
            if answer.status != 206 or not re.fullmatch("[0-9]{1,18}", size):
                raise OSError(None, "the server does not send parts of files; download it")
            self._size = int(size)

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
            content = answer.read(stop - self._position)
        buffer[: len(content)] = content
        self._position += len(content)
        return len(content)
