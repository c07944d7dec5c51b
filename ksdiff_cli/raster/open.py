"""Opening rasters, local or remote, and putting GDAL's complaints into one line."""

import os
import re
import stat
import warnings
import zipfile
from contextlib import nullcontext, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio.errors import NotGeoreferencedWarning, RasterioError

from ksdiff_cli.errors import KsdiffError

BLOCK_CACHE = 64 << 20
"""GDAL's cache of decoded blocks, bytes (what rasterio takes an integer GDAL_CACHEMAX for). GDAL's own default grows
with the machine; a bound on memory must not. The first read of a process fixes it."""
_UNPACKED, _COMPRESSED = 256 << 20, 200  # bytes of an archive's files that are never too many; more, by its own size
_MOST_BANDS = 4096  # of an image; a file of few bytes can declare sixty thousand
_SHOWN = 4  # images in a file that a message names
_IN_ZIP = re.compile(r"(?:/vsizip/|zip://)\{?(?P<archive>.+?\.zip)(?=[/!}]|$)", re.IGNORECASE | re.DOTALL)
_READDIR = "GDAL_DISABLE_READDIR_ON_OPEN"
_SCHEMES = {"http", "https", "ftp", "s3", "gs", "az", "oss", "swift", "hdfs", "webhdfs"}


def open_raster(path: str | Path) -> Any:
    """Open a raster for reading.

    A remote one (``https://``, ``s3://``, ``/vsicurl/`` …) is opened without listing what lies beside it: a server may
    refuse that, or answer with thousands of names. Hence its sidecar files (``.aux.xml``, ``.ovr``, ``.RPB``) are not
    seen, unless the environment sets GDAL_DISABLE_READDIR_ON_OPEN.

    Args:
        path: a file or anything else GDAL opens.

    Returns:
        The open rasterio dataset.

    Raises:
        KsdiffError: there is no such file, it cannot be fetched, or it is not a raster.
    """
    remote = is_remote(path)
    if not remote:
        _check_kind(path)
    alone = remote and _READDIR not in os.environ
    try:
        with warnings.catch_warnings(), rasterio.Env(**{_READDIR: "EMPTY_DIR"}) if alone else nullcontext():
            # many pairs have no georeference: open_pair says so
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            dataset = rasterio.open(path)
    except UnicodeEncodeError:
        raise KsdiffError(f"{path}: its name is not valid UTF-8, which GDAL needs; rename the file") from None
    except RasterioError as error:
        if remote:
            raise KsdiffError(
                f"{path}: cannot be fetched as a raster ({first_line(error)}); check the address, or download it first"
            ) from None
        if not is_there(path) and not _is_virtual(path):
            raise KsdiffError(f"{path}: no such file; check the path") from None
        if Path(path).is_dir():
            raise KsdiffError(f"{path}: is a folder, not a raster file; name the file inside it") from None
        empty = Path(path).is_file() and Path(path).stat().st_size == 0
        hint = "the file is empty, fetch it again" if empty else "give a GeoTIFF or another image that GDAL reads"
        raise KsdiffError(
            f"{path}: cannot be opened as a raster ({first_line(error).removesuffix('.')}); {hint}"
        ) from None
    if dataset.count == 0 or dataset.width == 0 or dataset.height == 0:
        inside = dataset.subdatasets
        dataset.close()
        if inside:
            more = ", …" if len(inside) > _SHOWN else ""
            raise KsdiffError(
                f"{path}: holds {len(inside)} images, so name the one that is meant: {', '.join(inside[:_SHOWN])}{more}"
            )
        raise KsdiffError(f"{path}: holds no bands; name the image file itself")
    if dataset.count > _MOST_BANDS:
        count = dataset.count
        dataset.close()
        raise KsdiffError(f"{path}: declares {count} bands; images have {_MOST_BANDS} at most here")
    return dataset


def _check_kind(path: str | Path) -> None:
    """Refuse what GDAL would wait for without end, or unpack without bound.

    Raises:
        KsdiffError: a pipe or a device; see :func:`check_unpacked`.
    """
    if match := _IN_ZIP.match(str(path)):
        with suppress(OSError):  # GDAL says what is wrong with it
            archive = match["archive"]
            state = Path(archive).stat()
            check_unpacked(archive, state.st_size, _unpacked(archive, state.st_mtime_ns, state.st_size))
    with suppress(OSError):  # no such file
        mode = Path(path).stat().st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            raise KsdiffError(f"{path}: is a pipe or a device, not a raster file; write it into a file first")


@lru_cache(64)
def _unpacked(archive: str, changed: int, size: int) -> int:
    """Return the size, bytes, of all files in a zip of this state; 0 of one that cannot be read."""
    try:
        with zipfile.ZipFile(archive) as file:
            return sum(member.file_size for member in file.infolist())
    except (zipfile.BadZipFile, ValueError, NotImplementedError):
        return 0


def check_unpacked(path: str | Path, packed: int, unpacked: int) -> None:
    """Refuse an archive that holds far more than images can be compressed to.

    Args:
        path: the archive.
        packed: its size, bytes.
        unpacked: the size of all that is in it, or of as much as has been seen.

    Raises:
        KsdiffError: see above.
    """
    if unpacked > max(_UNPACKED, packed * _COMPRESSED):
        raise KsdiffError(
            f"{path}: unpacks to more than {_COMPRESSED} times its size, as no scene does; unpack it yourself if you "
            "trust it, and name the folder"
        )


def is_remote(path: str | Path) -> bool:
    """Say whether GDAL would fetch this over the network."""
    name = str(path).lower()
    scheme, found, _ = name.partition("://")
    if found and not _SCHEMES.isdisjoint(scheme.split("+")):
        return True
    return any(f"/vsi{kind}" in name for kind in ("curl", "s3", "gs", "az", "adls", "oss", "swift", "hdfs", "webhdfs"))


def is_there(path: str | Path) -> bool:
    """Say whether there is such a file or folder; nothing has a name that is longer than the system takes."""
    try:
        return Path(path).exists()
    except OSError:
        return False


def _is_virtual(path: str | Path) -> bool:
    return "://" in str(path) or str(path).startswith("/vsi")


def data_bands(dataset: Any) -> list[int]:
    """Return the numbers, from 1, of an open raster's bands that hold data: all but a real alpha band.

    Raises:
        KsdiffError: there is nothing but alpha.
    """
    colours = enumerate((colour.name for colour in dataset.colorinterp), start=1)
    bands = [band for band, colour in colours if colour != "alpha" or alpha_is_data(dataset)]
    if not bands:
        raise KsdiffError(f"{dataset.name}: holds no bands but alpha; name the image file itself")
    return bands


def alpha_is_data(dataset: Any) -> bool:
    """Say whether the band called alpha holds data: GDAL calls the fourth band of every plain 8-bit file alpha.

    A real alpha band is transparent or opaque, whatever number says so (255 in 16-bit files, too); a band of more
    values, on a sample of it, is an image.
    """
    colours = [colour.name for colour in dataset.colorinterp]
    if "alpha" not in colours:
        return False
    shape = tuple(min(side, 512) for side in dataset.shape)
    try:
        sample = dataset.read(colours.index("alpha") + 1, out_shape=shape)
    except RasterioError as error:
        raise unreadable(dataset.name, error) from None
    if sample.dtype.kind not in "iu":
        return False
    values = np.unique(sample).tolist()
    if len(values) == 1:
        return values[0] not in (0, 255, np.iinfo(sample.dtype).max)
    return len(values) > 2 or 0 not in values


def unreadable(path: str, error: Exception) -> KsdiffError:
    """Return the error of pixels that cannot be read."""
    if is_remote(path):
        return KsdiffError(f"{path}: cannot be fetched ({first_line(error)}); try again, or download it first")
    return KsdiffError(
        f"{path}: cannot be read ({first_line(error)}); the file is damaged or incomplete, fetch it again"
    )


def is_from_gdal(error: Exception) -> bool:
    """Say whether an exception is rasterio's or GDAL's; the latter have no public class in rasterio."""
    return isinstance(error, RasterioError) or type(error).__name__.startswith("CPLE_")


def first_line(error: Exception) -> str:
    """Return the first line of what a library says went wrong, its cause before itself."""
    cause = error.__cause__ or error
    return str(cause).strip().splitlines()[0] if str(cause).strip() else type(error).__name__
