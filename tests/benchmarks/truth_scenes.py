"""Scenes with a truth at full resolution: real aerial and Sentinel-2 pictures seen through documented cameras.

Let X be a real picture (bands, H, W), taken as the world at PAN's pixel, and blur(·, g, r) the Gaussian whose response
at the Nyquist frequency of pixels r times as large is g: its standard deviation is r √(-2 ln g) / π fine pixels. Then

* truth  T = blur(X, g_PAN, 1): the bands as sharp as PAN is;
* PAN    P = w · T + noise, or one band that MS lacks;
* MS     M = blur(X, g_MS, ratio) sampled at the centres of the MS pixels, + noise;
* a camera with a ground segment samples M on the sensor's own grid, whose phase has nothing to do with PAN's, adds the
  noise, compensates the MTF, M + k (M - gauss(M, .8 MS px)), and resamples by cubic convolution (Keys, a = -1/2) to the
  delivered grid, whose phase against PAN is any part of an MS pixel; the georeference states it exactly.

Noise is Gaussian, white, .5 % of a band's standard deviation. All is written as whole numbers (uint16), as products are.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import rasterio
from rasterio.transform import Affine
from scipy.fft import dctn, idctn
from scipy.ndimage import gaussian_filter, map_coordinates

from ksdiff_cli.numerics.toolbox import apply_axes, sampling_matrix

TOWN = "riverside_2020.h5"
"""The town that no training ever sees. Its chips do not adjoin (nor do those of the other towns: three at most, over
their corners), so that each is a scene of its own: in a montage, kernels would reach over seams that no scene has."""
NOISE = 0.005
MARGIN = 16
"""PAN pixels of a picture that only cameras see, so that no scene holds what a picture's border did to them."""
BORDER = 16
"""PAN pixels left out at a scene's border: what methods do there is another question, and large scenes have little."""
AERIAL_GAIN = 8  # 8 bits to 11: rounding is no part of the cameras
CELL = 32  # sides are multiples of it, so that Q2n has whole cells


@dataclass(frozen=True)
class Camera:
    """How PAN and MS see, and what the ground segment does to MS."""

    ms_gain: float
    pan_gain: float
    compensation: float = 0.0
    """k; above 0 MS is also resampled to another phase."""


CAMERAS = {
    "raw": Camera(0.30, 0.15),
    "soft": Camera(0.22, 0.12),
    "crisp": Camera(0.40, 0.25),
    "delivered": Camera(0.30, 0.15, compensation=0.8),
}


@dataclass(frozen=True)
class Picture:
    """A world to be seen through cameras."""

    name: str
    bands: np.ndarray
    """(bands, H, W) float64, DN: what MS sees."""
    pan: np.ndarray
    """(bands,) weights, or (1, H, W): what PAN sees, of the bands or of another one."""
    pixel: float
    """Side, metres."""
    place: tuple[float, float]
    """Upper left corner, in ``crs``."""
    crs: str


@dataclass(frozen=True)
class TruthScene:
    """A scene on disk, and its truth."""

    name: str
    pan: Path
    ms: Path
    truth: np.ndarray
    """(bands, H, W) DN, on PAN's grid."""
    ratio: int


def blur(image: np.ndarray, gain: float, ratio: float) -> np.ndarray:
    """Blur (bands, H, W) by the Gaussian of response ``gain`` at the Nyquist frequency of pixels ``ratio`` as large.

    By cosine transform, borders mirrored: at PAN's own pixel a sampled Gaussian would let twice the gain through.
    """
    sigma = ratio * math.sqrt(-2 * math.log(gain)) / math.pi
    squares = [(np.arange(n) / (2 * n)) ** 2 for n in image.shape[1:]]  # of frequencies, cycles a pixel
    response = np.exp(-2 * math.pi**2 * sigma**2 * (squares[0][:, None] + squares[1]))
    return idctn(dctn(image, axes=(1, 2)) * response, axes=(1, 2))


def aerial_pictures(data: Path, count: int, bands: int = 4) -> list[Picture]:
    """Return ``count`` chips, spread over the town; PAN's weights are drawn for each, every third has no NIR."""
    found = []
    with h5py.File(data / "naip_urban" / TOWN) as file:
        for number, index in enumerate(np.linspace(0, len(file["image"]) - 1, count + 2).astype(int)[1:-1]):
            x, y, epsg = file["origin_x_y_epsg"][index]
            weights = np.random.default_rng(1000 + number).dirichlet([3.0] * bands)
            if number % 3 == 2:
                weights[-1] = 0
            image = file["image"][index].astype(np.float64) * AERIAL_GAIN
            found.append(Picture(f"chip{index:02d}", image, weights / weights.sum(), 0.6, (x, y), f"EPSG:{epsg:.0f}"))
    return found


def sentinel_pictures(data: Path, count: int, side: int = 416) -> list[Picture]:
    """Return ``count`` parts of the 20 m scene, eight bands; PAN is the one left out, green (R² .98 to .99 on them)."""
    found = []
    with rasterio.open(data / "sentinel2" / "scene_20m_9bands.tif") as file:
        image = file.read().astype(np.float64)
        for row, column in [(0, 450), (500, 500), (100, 0), (540, 60)][:count]:
            part = image[:, row : row + side, column : column + side]
            place = file.transform * (column, row)
            others = np.delete(part, 1, 0)
            found.append(Picture(f"part{row}-{column}", others, part[1:2], 20.0, place, str(file.crs)))
    return found


def see(picture: Picture, camera: Camera, ratio: int, folder: Path, seed: int) -> TruthScene:
    """Write a picture's PAN and MS as georeferenced GeoTIFF.

    Args:
        picture: the world.
        camera: sees it.
        ratio: PAN pixels per MS pixel along a side.
        folder: for pan.tif and ms.tif.
        seed: of noise and phases; the same for all cameras, so that these alone differ.
    """
    random = np.random.default_rng(seed)
    count, full = len(picture.bands), np.array(picture.bands.shape[1:])
    size = (full - 2 * MARGIN) // CELL * CELL
    inside = np.s_[:, MARGIN : MARGIN + size[0], MARGIN : MARGIN + size[1]]
    truth = blur(picture.bands, camera.pan_gain, 1)
    pan = picture.pan[:, None, None] * truth if picture.pan.ndim == 1 else blur(picture.pan, camera.pan_gain, 1)
    pan = _noisy(pan.sum(0, keepdims=True), random)[inside]

    seen = blur(picture.bands, camera.ms_gain, ratio)
    sensor, phase = random.uniform(-0.5, 0.5, (2, 2)) if camera.compensation else np.zeros((2, 2))
    every = full // ratio
    ms = _noisy(_sample(seen, sensor, every, ratio), random)
    extra = 1 if camera.compensation else 0  # MS pixels on each side, so that they cover PAN at any phase
    first = MARGIN // ratio - extra
    if camera.compensation:
        ms = ms + camera.compensation * (ms - gaussian_filter(ms, (0, 0.8, 0.8)))
        axes = [np.arange(size[i] // ratio + 2 * extra) + first + phase[i] - sensor[i] for i in (0, 1)]
        ms = apply_axes(*(sampling_matrix(axis, n, 1) for axis, n in zip(axes, every, strict=True)), ms)
    else:
        ms = ms[:, first : first + size[0] // ratio, first : first + size[1] // ratio]

    assert len(ms) == count
    folder.mkdir(parents=True, exist_ok=True)
    x, y = picture.place
    corner = x + MARGIN * picture.pixel, y - MARGIN * picture.pixel
    step = ratio * picture.pixel
    ms_corner = corner[0] + (phase[1] - extra) * step, corner[1] - (phase[0] - extra) * step
    _write(folder / "pan.tif", pan, corner, picture.pixel, picture.crs)
    _write(folder / "ms.tif", ms, ms_corner, step, picture.crs)
    return TruthScene(picture.name, folder / "pan.tif", folder / "ms.tif", truth[inside], ratio)


def scenes(pictures: Sequence[Picture], camera: str, ratio: int, folder: Path) -> Iterator[TruthScene]:
    """Write all pictures as a camera sees them, one by one."""
    for number, picture in enumerate(pictures):
        yield see(picture, CAMERAS[camera], ratio, folder / f"{camera}-{ratio}-{picture.name}", 7 + number)


def _sample(image: np.ndarray, phase: np.ndarray, count: np.ndarray, ratio: int) -> np.ndarray:
    """Sample at the centres of pixels ``ratio`` as large, moved by ``phase`` of them (rows, columns)."""
    axes = [(np.arange(count[i]) + 0.5 + phase[i]) * ratio - 0.5 for i in (0, 1)]
    at = np.meshgrid(*axes, indexing="ij")
    return np.stack([map_coordinates(band, at, order=5, mode="reflect") for band in image])


def _noisy(image: np.ndarray, random: np.random.Generator) -> np.ndarray:
    return image + random.normal(0, 1, image.shape) * NOISE * image.std((1, 2), keepdims=True)


def _write(path: Path, image: np.ndarray, corner: tuple[float, float], pixel: float, crs: str) -> None:
    values = np.clip(np.rint(image), 0, 65535).astype(np.uint16)
    profile = {"driver": "GTiff", "count": len(values), "height": values.shape[1], "width": values.shape[2]}
    place = Affine(pixel, 0, corner[0], 0, -pixel, corner[1])
    with rasterio.open(path, "w", dtype="uint16", crs=crs, transform=place, **profile) as file:
        file.write(values)
