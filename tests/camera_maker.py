"""Scenes seen through cameras that are known exactly: an oracle in frequencies, unlike what looks for them."""

import math
from pathlib import Path
from typing import Any

import numpy as np
from conftest import PairFiles, write_raster
from numpy.typing import NDArray
from rasterio.transform import Affine

Array = NDArray[Any]

SIZE = 480
MIX = (0.25, 0.3, 0.2, 0.1, 0.2, 0.15, 0.1, 0.2)


def textured(bands: int, seed: int = 0, size: int = SIZE) -> Array:
    """Draw periodic bands (bands, size, size): a common texture, one of their own, and fields with sharp borders."""
    rng = np.random.default_rng(seed)
    radius = np.maximum(np.hypot(np.fft.fftfreq(size)[:, None], np.fft.fftfreq(size)), 1 / size)

    def texture(slope: float) -> Array:
        found = np.fft.ifft2(np.fft.fft2(rng.standard_normal((size, size))) * radius**-slope).real
        return (found - found.mean()) / found.std()

    common, fields = texture(1.3), np.floor(2 * texture(1.8)) / 2
    return np.stack([500 + 60 * common + rng.uniform(-40, 80) * fields + 25 * texture(1.5) for _ in range(bands)])


def transfer(frequency: Array, gain: float, compensation: float) -> Array:
    """Return a camera's MTF at frequencies in cycles per MS pixel, from the definition."""
    blur = np.exp(-2 * (math.pi * 0.8 * frequency) ** 2)
    return np.asarray(gain ** (4 * frequency**2) * (1 + compensation * (1 - blur)))


def look(image: Array, ratio: float, gain: float, compensation: float, shift: tuple[float, float]) -> Array:
    """See periodic bands through a camera, exactly: its MTF on their spectrum, their Fourier series at MS's pixels."""
    size = image.shape[-1]
    frequency = np.fft.fftfreq(size)
    seen = np.fft.fft2(image) * transfer(np.hypot(frequency[:, None], frequency) * ratio, gain, compensation)
    count = int(size / ratio)
    at = [(np.arange(count) - by + 0.5) * ratio - 0.5 for by in shift]
    waves = [np.exp(2j * np.pi * np.outer(place, frequency)) / size for place in at]
    return np.asarray((waves[0] @ seen @ waves[1].T).real)


def noisy(image: Array, share: float, seed: int = 1) -> Array:
    spread = image.std((-2, -1), keepdims=True)
    return np.asarray(image + share * spread * np.random.default_rng(seed).standard_normal(image.shape))


def acquire(
    truth: Array, ratio: float, gain: float, compensation: float, shift: tuple[float, float], noise: float = 0.0
) -> tuple[Array, Array]:
    """Return PAN (size, size) and MS of a scene."""
    pan = np.tensordot(MIX[: len(truth)], truth, 1)
    return noisy(pan, noise), noisy(look(truth, ratio, gain, compensation, shift), noise, 2)


def write_scene(
    folder: Path, pan: Array, ms: Array, ratio: float = 4, dtype: str = "uint16", **profile: Any
) -> PairFiles:
    """Write PAN (H, W) and MS (bands, h, w) that share their upper left corner."""
    place = {"crs": "EPSG:32631", **profile}
    pan, ms = (image if dtype.startswith("float") else np.rint(image) for image in (pan, ms))
    return PairFiles(
        folder,
        write_raster(folder / "pan.tif", pan.astype(dtype), transform=Affine(1, 0, 5e5, 0, -1, 5e6), **place),
        write_raster(folder / "ms.tif", ms.astype(dtype), transform=Affine(ratio, 0, 5e5, 0, -ratio, 5e6), **place),
    )
