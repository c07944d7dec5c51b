"""Is the spread of several draws of z_T worth anything as an error bar? Rank correlations with the real error.

    python tests/benchmarks/uncertainty.py SOURCE… [--checkpoint F…] [--draws 8] [--window 512]

A source is a patch file with truth (test.h5 of `ksdiff prepare-data`), a folder of `ksdiff simulate` (pan.tif, ms.tif,
truth.tif), or a scene, which is then reduced by Wald's protocol. Each draw of z_T makes kernels of its own: those of a
whole scene as `ksdiff sharpen` makes them, those of each image in a patch file. Three images are compared, all in units
of the bands' standard deviation and averaged over the bands: the standard deviation of the draws' results, the absolute
error of the first one, and trivial predictors (PAN's local gradient; how far the result is from upsampled MS). Said are
Spearman's rank correlations with the error, per pixel and per block of 16 x 16; what is left of the draws' one once
PAN's gradient, and then both trivial predictors, are known (partial rank correlation); how large the spread is beside
the error; and how much z itself varies by draws beside how it varies by images.
"""

import argparse
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio
from real_scenes import reduced_scenes, write
from scipy.ndimage import gaussian_gradient_magnitude
from scipy.stats import rankdata

from ksdiff_cli.errors import KsdiffError
from ksdiff_cli.evaluation.cases import make_case, open_files
from ksdiff_cli.fusers.classical import Network, make_fuser
from ksdiff_cli.models.contract import ModelError
from ksdiff_cli.numerics.moments import SceneStatistics
from ksdiff_cli.products import make_pair
from ksdiff_cli.raster.pair import open_pair
from ksdiff_cli.raster.tiles import Tile

BLOCK = 16


@dataclass(frozen=True)
class Case:
    """One image with truth and the results of all draws for it."""

    tile: Tile
    statistics: SceneStatistics
    gt: np.ndarray
    fused: np.ndarray
    """(draws, bands, H, W)"""
    z: np.ndarray
    """(draws, R, S, C_z)"""


def patch_cases(path: Path, networks: list[Network]) -> Iterator[Case]:
    """Every image of a patch file, with kernels of its own."""
    (file,) = open_files([path])
    case = make_case(file, "reduced")
    for index in range(len(file)):
        image = case.image(index)
        given = image.tile, image.scene, file.ratio
        for network in networks:
            network.check(file.bands, file.ratio)
        fused = np.stack([network.fuse(*given) for network in networks])
        z = np.stack([network.latent(*given).numpy() for network in networks])
        yield Case(image.tile, image.scene, image.gt, fused, z)


def scene_case(pan: Path, ms: Path, truth: np.ndarray, networks: list[Network], side: int) -> Case:
    """A scene with its kernels; of a large one the middle."""
    with open_pair(make_pair(str(pan), [str(ms)])) as pair:
        statistics = pair.statistics()
        height, width = (min(side, size) for size in pair.shape)
        row, col = ((size - kept) // 32 * 16 for size, kept in zip(pair.shape, (height, width), strict=True))
        tile = pair.read(row, col, height, width)
        fused, z = [], []
        for network in networks:
            network.check(pair.bands, pair.grid.ratio)
            network.prepare(pair, statistics)
            fused.append(network.fuse(tile, statistics, pair.grid.ratio))
            z.append(network.latent(tile, statistics, pair.grid.ratio).numpy())
    return Case(tile, statistics, truth[:, row : row + height, col : col + width], np.stack(fused), np.stack(z))


def cases(path: Path, networks: list[Network], side: int) -> Iterator[Case]:
    """All images of a source."""
    if path.suffix == ".h5" and "gt_pan" not in path.name:
        yield from patch_cases(path, networks)
        return
    if (path / "truth.tif").exists():
        with rasterio.open(path / "truth.tif") as file:
            yield scene_case(path / "pan.tif", path / "ms.tif", file.read(), networks, side)
        return
    with tempfile.TemporaryDirectory() as folder:
        for _, ratio, gt, pan, ms, _ in reduced_scenes(path):
            files = write(Path(folder) / "pan.tif", pan, 1.0), write(Path(folder) / "ms.tif", ms, float(ratio))
            yield scene_case(*files, gt, networks, side)


def images(case: Case) -> dict[str, np.ndarray]:
    """Error, spread and trivial predictors of a case, (H, W) each, NaN where there is no truth."""
    scale = np.where(case.statistics.ms_std > 0, case.statistics.ms_std, 1)[:, None, None]
    first = case.fused[0]
    found = {
        "error": np.abs(first - case.gt) / scale,
        "draws": case.fused.std(0, ddof=1) / scale,
        "PAN's gradient": gaussian_gradient_magnitude(case.tile.pan, (0, 1, 1)) / (case.statistics.pan_std or 1),
        "injected detail": np.abs(first - case.tile.ms_up) / scale,
    }
    valid = case.tile.valid & (case.gt.min(0) > 0)
    return {name: np.where(valid, values.mean(0), np.nan) for name, values in found.items()}


def blocks(image: np.ndarray) -> np.ndarray:
    """Means over whole blocks."""
    rows, cols = (size // BLOCK for size in image.shape)
    cut = image[: rows * BLOCK, : cols * BLOCK].reshape(rows, BLOCK, cols, BLOCK)
    return cut.mean((1, 3))


def rank_correlations(found: dict[str, np.ndarray]) -> dict[str, float]:
    """Spearman's correlation with the error of each predictor, and of the draws beside the trivial ones."""
    known = np.all([np.isfinite(values) for values in found.values()], 0)
    ranks = {name: rankdata(values[known]) for name, values in found.items()}
    table = np.corrcoef([ranks["error"], *(ranks[name] for name in list(found)[1:])])
    result = {name: float(table[0, place]) for place, name in enumerate(list(found)[1:], start=1)}
    result["draws | gradient"] = partial(table[np.ix_([0, 1, 2], [0, 1, 2])])
    result["draws | both"] = partial(table)
    return result


def partial(table: np.ndarray) -> float:
    """Correlation of the first two variables once the others are known, from a correlation matrix."""
    inverse = np.linalg.pinv(table)
    return float(-inverse[0, 1] / np.sqrt(inverse[0, 0] * inverse[1, 1]))


def measure(path: Path, networks: list[Network], side: int) -> tuple[list[str], float, float, float, list[float]]:
    """Correlations by pixels and by blocks, means over a source's images; sizes of errors and spreads."""
    rows: list[list[float]] = []
    names: list[str] = []
    error, spread, within = [], [], []
    z_means = []
    for case in cases(path, networks, side):
        found = images(case)
        by_pixel = rank_correlations(found)
        by_block = rank_correlations({name: blocks(values) for name, values in found.items()})
        names = list(by_pixel)
        rows.append([*by_pixel.values(), *by_block.values()])
        error.append(np.nanmean(found["error"]))
        spread.append(np.nanmean(found["draws"]))
        within.append(np.sqrt(case.z.var(0, ddof=1).mean()))
        z_means.append(case.z.mean(0))
    # rows of z are bands where they share the network: images may have different numbers of them
    z_all = np.concatenate([z.reshape(-1, *z.shape[-2:]) for z in z_means])
    between = float(np.sqrt(z_all.var(0, ddof=1).mean())) if len(z_all) > 1 else float("nan")
    sizes = float(np.mean(error)), float(np.mean(spread)), float(np.mean(within)), between
    return names, *sizes[:3], [sizes[3], *np.mean(rows, 0), len(rows)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sources", nargs="+", type=Path)
    parser.add_argument("--checkpoint", nargs="+", type=Path, default=[None])
    parser.add_argument("--draws", type=int, default=8)
    parser.add_argument("--window", type=int, default=512, help="largest side of what is compared, pixels")
    chosen = parser.parse_args()
    for checkpoint in chosen.checkpoint:
        networks = [make_fuser("ksdiff", checkpoint, "cpu", seed) for seed in range(chosen.draws)]
        print(f"\n{checkpoint or 'shipped weights'}, {chosen.draws} draws of z_T", flush=True)
        for path in chosen.sources:
            try:
                names, error, spread, within, (between, *values, count) = measure(path, networks, chosen.window)
            except (KsdiffError, ModelError) as problem:
                print(f"  {path}: {problem}", file=sys.stderr)
                continue
            print(
                f"  {path} ({count:.0f} images): error {error:.4f}, spread {spread:.6f} (/ error {spread / error:.5f}); "
                f"z by draws {within:.5f}, by images {between:.4f}"
            )
            for place, unit in ((0, "pixel"), (len(names), "block")):
                said = (
                    f"{name} {value:+.3f}"
                    for name, value in zip(names, values[place : place + len(names)], strict=True)
                )
                print(f"    {unit}: " + ", ".join(said), flush=True)


if __name__ == "__main__":
    main()
