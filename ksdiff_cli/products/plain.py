"""A folder with one PAN and one MS image, told apart by their names or by resolution and band count."""

import re
from collections.abc import Sequence
from pathlib import PurePath
from typing import Any

import numpy as np
from rasterio.errors import RasterioError
from rasterio.windows import Window

from ksdiff_cli.errors import KsdiffError
from ksdiff_cli.products.folder import Folder
from ksdiff_cli.products.product import fit_sensor
from ksdiff_cli.raster.bands import BandSource
from ksdiff_cli.raster.layout import georeferenced, pixel_numbers
from ksdiff_cli.raster.open import alpha_is_data, data_bands, open_raster, unreadable
from ksdiff_cli.raster.pair import Scene
from ksdiff_cli.sensors import Sensor, find_sensor

LOOKS_FOR = "a PAN and an MS raster (pan.tif and ms.tif, or one single-band raster finer than the others)"

_SUFFIXES = (".tif", ".tiff", ".vrt", ".img", ".jp2")
_ENVI = ("", ".dat", ".bsq", ".bil", ".bip", ".raw", ".bin")
_SAMPLE = 512  # pixels along a side of a window
_MOST = 1000  # files that are opened to see which is PAN, or which are bands
_FINER = 2.25  # an MS pixel covers at least 1.5 x 1.5 PAN pixels
_PAN_WORDS = {"pan", "panchromatic"}
_MS_WORDS = {"ms", "msi", "mss", "mul", "multi", "multiband", "multispectral", "mux"}


def read(folder: Folder, sensor: Sensor | None) -> list[Scene]:
    """Return the one scene of ``folder``, or [] when it holds no PAN with MS.

    Args:
        folder: where to look.
        sensor: who took it, if known.

    Raises:
        KsdiffError: several files could be PAN or MS, or one of them cannot be opened.
    """
    files = [folder.at(name) for name in folder.files if name.lower().endswith(_SUFFIXES) or _is_envi(name, folder)]
    pans, ms = _named(files, _PAN_WORDS, _MS_WORDS), _named(files, _MS_WORDS, _PAN_WORDS)
    if not (pans and ms):
        pans, ms = _by_resolution(files)
    if not (pans and ms):
        return []
    pan, bands = _one(folder, pans, "PAN"), _bands(folder, ms)
    return [Scene(folder.name, BandSource(pan, 1, "pan"), bands, _fitted(sensor or find_sensor(None), bands))]


def from_files(pan: str, ms: Sequence[str], sensor: Sensor) -> Scene:
    """Make a scene of files that a person named.

    Args:
        pan: the PAN image, one band.
        ms: the MS image, or several files whose bands follow each other.
        sensor: who took it.

    Raises:
        KsdiffError: a file is missing or no raster, or PAN has several bands.
    """
    with open_raster(pan) as dataset:
        bands = data_bands(dataset)
        if len(bands) > 1 and not shows_one_image(dataset, bands):
            raise KsdiffError(
                f"{pan}: has {len(bands)} bands, PAN has one; are PAN and MS swapped? PAN comes first, then MS; if "
                f"these are finer bands of no PAN: --guide {pan}"
            )
    sources = tuple(source for path in ms for source in ms_bands(path))
    return Scene(PurePath(pan).stem, BandSource(pan, bands[0], "pan"), sources, _fitted(sensor, sources))


def shows_one_image(dataset: Any, bands: Sequence[int]) -> bool:
    """Say whether bands of an open file are the same: PAN stored as RGB; windows spread over the file tell."""
    height, width = (min(256, size) for size in dataset.shape)
    places = [(int(row), int(col)) for row in np.linspace(0, dataset.height - height, 4)
              for col in np.linspace(0, dataset.width - width, 4)]  # fmt: skip
    try:
        for row, col in dict.fromkeys(places):
            first, *rest = dataset.read(bands, window=Window(col, row, width, height))
            if any(not np.array_equal(first, other, equal_nan=other.dtype.kind == "f") for other in rest):
                return False
    except RasterioError as error:
        raise unreadable(dataset.name, error) from None
    return True


def _fitted(sensor: Sensor, bands: Sequence[BandSource]) -> Sensor:
    """Return the sensor with its bands in the file's order, where the file names bands of the sensor."""
    return fit_sensor(sensor, [source.name for source in bands])


def ms_bands(path: str) -> tuple[BandSource, ...]:
    """Return every band of an MS file but its alpha band, named by its description (one-band files: by the file).

    Raises:
        KsdiffError: the file is missing, no raster, or has nothing but alpha.
    """
    with open_raster(path) as dataset:
        names = [PurePath(path).stem] if dataset.count == 1 else [""] * dataset.count
        as_data, described = alpha_is_data(dataset), dataset.descriptions
        return tuple(
            BandSource(path, band, described[band - 1] or names[band - 1], alpha_is_data=as_data)
            for band in data_bands(dataset)
        )


def _is_envi(name: str, folder: Folder) -> bool:
    """Say whether a file is an image of ENVI's, whose header lies beside it."""
    path = PurePath(name)
    return path.suffix.lower() in _ENVI and f"{path.with_suffix('')}.hdr" in folder.files


def _named(files: list[str], words: set[str], others: set[str]) -> list[str]:
    """Files one of whose words (runs of letters) is in ``words`` and none in ``others``."""
    found = []
    for path in files:
        own = set(re.findall("[a-z]+", PurePath(path).stem.lower()))
        if own & words and not own & others:
            found.append(path)
    return found


def _by_resolution(files: list[str]) -> tuple[list[str], list[str]]:
    """PAN is the single-band raster finer than all others; those are MS. ([], []) when there is no such file."""
    sizes: dict[str, tuple[int, float]] = {}
    areas: dict[str, float] = {}
    bands: dict[str, int] = {}
    for path in files if 1 < len(files) <= _MOST else []:
        try:
            with open_raster(path) as dataset:
                sizes[path] = dataset.width, dataset.height
                areas[path] = (
                    abs(dataset.transform.determinant) if georeferenced(dataset) and not pixel_numbers(dataset) else 0.0
                )
                bands[path] = dataset.count
        except KsdiffError:
            continue  # a stray file that is no raster must not hide the pair
    if len(sizes) < 2:
        return [], []
    # without georeference the images are taken to cover the same ground: more pixels are finer pixels
    located = all(area > 0 for area in areas.values())
    fineness = {path: 1 / areas[path] if located else sizes[path][0] * sizes[path][1] for path in sizes}
    pan, *ms = sorted(fineness, key=lambda path: fineness[path], reverse=True)
    if bands[pan] != 1 or fineness[pan] < _FINER * fineness[ms[0]]:
        return [], []
    return [pan], sorted(ms)


def _one(folder: Folder, paths: list[str], role: str) -> str:
    """Return the only candidate, or the one called plainly ``pan`` or ``ms`` among several."""
    plainly = [path for path in paths if PurePath(path).stem.lower() == role.lower()]
    if len(paths) > 1 and len(plainly) != 1:
        names = ", ".join(PurePath(path).name for path in paths[:4])
        raise KsdiffError(f"{folder.path}: several files could be {role} ({names}); name PAN and MS one by one")
    return (plainly or paths)[0]


def _bands(folder: Folder, paths: list[str]) -> tuple[BandSource, ...]:
    """MS is one file of many bands, or several files of one band each (in the order of their names)."""
    if 1 < len(paths) <= _MOST:
        counts = set()
        for path in paths:
            with open_raster(path) as dataset:
                counts.add(dataset.count)
        if counts == {1}:
            return tuple(source for path in paths for source in ms_bands(path))
    return ms_bands(_one(folder, paths, "MS"))
