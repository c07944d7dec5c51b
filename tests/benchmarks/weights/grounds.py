"""Grounds: openly licensed images that serve as what a camera of PAN's resolution would have seen without noise."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import rasterio

HELD_OUT_TOWN = "riverside"
"""The aerial town that tests/benchmarks/full_resolution.py measures on; training never sees it."""
L7_VALIDATION = ("28", "29", "30")
CHIP = 256
"""Largest side of a ground that is looked at at once."""


@dataclass(frozen=True)
class Family:
    """Grounds of one kind."""

    name: str
    images: list[np.ndarray]
    """Each (bands, height, width), any unit."""
    share: float
    """Of all batches."""


def load_families(data: Path, simulated: Path | None) -> list[Family]:
    """Load all grounds: ``data`` holds the folders naip_urban, naip_va, sentinel2, landsat7 and landsat8_volcano."""
    towns = [
        chip
        for path in sorted((data / "naip_urban").glob("*_2020.h5"))
        if not path.name.startswith(HELD_OUT_TOWN)
        for chip in _read_h5(path, "image")
    ]
    woods = [_read(path) for path in sorted((data / "naip_va").glob("truth_*.tif"))]
    l7 = [_read(path) for path in sorted((data / "landsat7").glob("*/ms.tif")) if path.parent.name not in L7_VALIDATION]
    l8 = [np.concatenate([_read(path) for path in sorted((data / "landsat8_volcano").glob("*_B[2-7].TIF"))])]
    # the eastern half of both scenes is what full_resolution.py measures on
    ten = [_western_half(_read(data / "sentinel2/scene_10m_4bands.tif"))]
    twenty = [_western_half(_read(data / "sentinel2/scene_20m_9bands.tif"))]
    cuts = []
    for path in sorted((data / "sentinel2").glob("*.mat")):
        ten += list(_read_h5(path, "im10")[None])
        cuts.append(_read_h5(path, "im20"))
    families = [
        Family("aerial", towns, 0.55),
        Family("woods", woods, 0.05),
        Family("landsat7", l7, 0.12),
        Family("landsat8", l8, 0.03),
        Family("sentinel2 10 m", ten, 0.08),
        Family("sentinel2 20 m", twenty, 0.04),
        Family("sentinel2 20 m, six bands", cuts, 0.02),
    ]
    if simulated is not None:
        worlds = [_read(path) for path in sorted(simulated.glob("*/truth.tif"))]
        families.append(Family("simulated", worlds, 0.12))
    return families


def draw(family: Family, count: int, random: np.random.Generator, side: int = CHIP) -> np.ndarray:
    """Draw ``count`` cuts of ``side`` pixels, turned and flipped at random, each band at a brightness of its own."""
    cuts = []
    for image in _candidates(family, random):
        found = image
        if random.random() < 0.3 and min(image.shape[1:]) >= 2 * side:  # another scale of the same ground
            found = _halved(image)
        top, left = (random.integers(0, size - side + 1) for size in found.shape[1:])
        cut = found[:, top : top + side, left : left + side].astype(np.float32)
        if (
            cut.std((1, 2)).min() < 0.15 * image.reshape(len(image), -1)[:, ::37].std(1).min()
            or (cut == 0).mean() > 0.02
        ):
            continue  # open water, or nodata
        cut = np.rot90(cut, random.integers(4), (1, 2))
        cuts.append(cut[:, :, ::-1] if random.random() < 0.5 else cut)
        if len(cuts) == count:
            break
    return np.stack([np.ascontiguousarray(cut) for cut in cuts])


def _candidates(family: Family, random: np.random.Generator) -> Iterator[np.ndarray]:
    while True:
        yield family.images[random.integers(len(family.images))]


def _halved(image: np.ndarray) -> np.ndarray:
    height, width = (size // 2 * 2 for size in image.shape[1:])
    cut = image[:, :height, :width].astype(np.float32)
    return (cut[:, ::2, ::2] + cut[:, 1::2, ::2] + cut[:, ::2, 1::2] + cut[:, 1::2, 1::2]) / 4


def _western_half(image: np.ndarray) -> np.ndarray:
    return image[:, :, : image.shape[2] // 2]


def _read(path: Path) -> np.ndarray:
    with rasterio.open(path) as file:
        return file.read()


def _read_h5(path: Path, key: str) -> np.ndarray:
    with h5py.File(path) as file:
        return file[key][:]
