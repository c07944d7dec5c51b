"""What the input path costs: seconds of CPU to read a scene as sharpening does, against rasterio's plain reads.

    python tests/benchmarks/read_speed.py FOLDER…

Each folder holds pan.tif and ms.tif. Windows are those of the engine, 1024 pixels with a margin of 64; the floor reads
the same pixels of the same files and throws them away. Threads other than GDAL's own would blur the figures: set
OMP_NUM_THREADS=1.
"""

import sys
import time
from collections.abc import Callable
from pathlib import Path

import rasterio
from rasterio.windows import Window

from ksdiff_cli.products import make_pair
from ksdiff_cli.raster.open import BLOCK_CACHE
from ksdiff_cli.raster.pair import Scene, ScenePair, open_pair
from ksdiff_cli.raster.registration import check_registration

TILE, MARGIN, PASSES = 1024, 64, 3

Area = tuple[int, int, int, int]


def windows(shape: tuple[int, int], margin: int) -> list[Area]:
    """(row, column, height, width) of the windows that cover an image, with a margin as far as it goes."""
    spans = [
        [(max(0, start - margin), min(size, start + TILE + margin)) for start in range(0, size, TILE)] for size in shape
    ]
    return [(top, left, bottom - top, right - left) for top, bottom in spans[0] for left, right in spans[1]]


def plain(pair: ScenePair, margin: int) -> None:
    """Read the pixels under all windows, PAN and all MS bands."""
    ratio = pair.grid.ratio
    for row, col, height, width in windows(pair.shape, margin):
        pair.pan.read(1, window=Window(col, row, width, height))
        pair.ms[0].read(window=Window(col // ratio, row // ratio, width // ratio, height // ratio))


def cpu(work: Callable[[], object]) -> float:
    """Return the least CPU seconds of some runs."""
    spent = []
    for _ in range(PASSES):
        start = time.process_time()
        work()
        spent.append(time.process_time() - start)
    return min(spent)


def measure(scene: Scene) -> str:
    """Return a scene's figures."""
    with rasterio.Env(GDAL_CACHEMAX=BLOCK_CACHE), open_pair(scene) as pair:
        pair.statistics()
        areas = windows(pair.shape, MARGIN)
        figures = {
            "windows": cpu(lambda: [pair.read(*area) and None for area in areas]),
            "plain": cpu(lambda: plain(pair, MARGIN)),
            "statistics": cpu(pair.statistics),
            "plain without margins": cpu(lambda: plain(pair, 0)),
            "registration guard": cpu(lambda: check_registration(scene, correct=False)),
        }
        size = f"{pair.shape[1]} x {pair.shape[0]} x {pair.bands}"
    return f"{size}; " + ", ".join(f"{name} {seconds:.2f} s" for name, seconds in figures.items())


def main() -> None:
    """Print a line a folder."""
    for folder in map(Path, sys.argv[1:]):
        print(f"{folder.name}:", measure(make_pair(str(folder / "pan.tif"), [str(folder / "ms.tif")])), flush=True)


if __name__ == "__main__":
    main()
