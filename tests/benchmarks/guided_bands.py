"""Coarser bands by finer ones: ksdiff and every classical method, by the road that people take.

    python tests/benchmarks/guided_bands.py DATA [--full] [--checkpoint F] [--keep DIR] [--only METHOD…]

DATA holds the scenes of github.com/lanha/DSen2 (CC BY 4.0, Copernicus Sentinel data): S2?_MSIL1C_*.mat with im10, im20
and im60. Wald's protocol: the bands of 10 m as a camera of 20 m (60 m) would see them, by the MTF of each, guide the
coarser ones as one of 40 m (360 m) would; the original bands are the truth. All are written as GeoTIFF and sharpened by
``ksdiff sharpen --guide``. Printed: ERGAS, SAM and RMSE by band in DN, without a rim of 12 pixels, and seconds.

``--full``: the bands as they are, by ``ksdiff evaluate --protocol full``. Printed: R-Q2n, R-ERGAS and D_rho, each band by
its own guide, the mean over bands; then D_rho by band.
"""

import argparse
import json
import tempfile
import time
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path

import h5py
import numpy as np
import rasterio
from rasterio.transform import Affine

from ksdiff_cli.classical import METHODS
from ksdiff_cli.main import app
from ksdiff_cli.metrics import ergas, sam
from ksdiff_cli.numerics.grids import corner_aligned, degrade
from ksdiff_cli.sensors import find_sensor

FINE = ("B02", "B03", "B04", "B08")
GROUPS = {"im20": (2, ("B05", "B06", "B07", "B8A", "B11", "B12")), "im60": (6, ("B01", "B09"))}
"""By name: ratio to the finer bands, and bands."""
RIM = 12


def write(path: Path, image: np.ndarray, metres: float, names: tuple[str, ...]) -> Path:
    profile = {"driver": "GTiff", "count": len(image), "height": image.shape[1], "width": image.shape[2]}
    place = Affine(metres, 0, 300000, 0, -metres, 6200040)
    with rasterio.open(path, "w", dtype="uint16", crs="EPSG:32633", transform=place, **profile) as file:
        file.write(np.rint(np.clip(image, 0, 65535)).astype("uint16"))
        file.descriptions = names
    return path


def reduce_scene(path: Path, group: str, folder: Path) -> tuple[Path, Path, np.ndarray]:
    """Write what guides and what is sharpened; return both and the truth."""
    ratio, names = GROUPS[group]
    with h5py.File(path) as file:
        fine, truth = (np.asarray(file[name], np.float32) for name in ("im10", group))
    size = truth.shape[1] // ratio * ratio
    fine, truth = fine[:, : size * ratio, : size * ratio], truth[:, :size, :size]
    metres = 10 * ratio
    seen = [
        degrade(image, corner_aligned(ratio), (side, side), find_sensor("S2").with_bands(bands).mtf_ms)
        for image, bands, side in ((fine, FINE, size), (truth, names, size // ratio))
    ]
    return (
        write(folder / "fine.tif", seen[0], metres, FINE),
        write(folder / "coarse.tif", seen[1], metres * ratio, names),
        truth,
    )


def sharpen(fine: Path, coarse: Path, out: Path, *words: object) -> tuple[np.ndarray, float, str]:
    """Return the result of ``ksdiff sharpen``, seconds, and what it said."""
    said, start = StringIO(), time.perf_counter()
    with redirect_stderr(said):
        app(["sharpen", "--guide", *map(str, [fine, coarse, "-o", out, *words])], standalone_mode=False)
    with rasterio.open(out) as file:
        return file.read().astype(np.float64), time.perf_counter() - start, said.getvalue()


def compare_at_full_resolution(path: Path, group: str, methods: tuple[str, ...]) -> None:
    """Print the figures of methods without a truth."""
    ratio, names = GROUPS[group]
    with tempfile.TemporaryDirectory() as temporary, h5py.File(path) as file:
        folder, told = Path(temporary), StringIO()
        fine = write(folder / "fine.tif", np.asarray(file["im10"], np.float32), 10, FINE)
        coarse = write(folder / "coarse.tif", np.asarray(file[group], np.float32), 10 * ratio, names)
        chosen = [word for method in methods for word in ("--method", method)]
        table = folder / "table.csv"
        with redirect_stdout(told), redirect_stderr(StringIO()):
            app(["evaluate", str(fine), str(coarse), "--protocol", "full", "--json", "--csv", str(table), *chosen],
                standalone_mode=False)  # fmt: skip
        rows = [line.split(",") for line in table.read_text().splitlines()]
    print(f"\n{path.stem}, {group}\n\n| method | R_Q2n | R_ERGAS | D_rho | {' | '.join(names)} |")
    print(f"|---|---|---|---|{'---|' * len(names)}")
    place = rows[0].index("D_rho")
    for method, figures in json.loads(told.getvalue())["methods"].items():
        means = [f"{figures[name]['mean']:.3f}" for name in ("R_Q2n", "R_ERGAS", "D_rho")]
        bands = [f"{float(row[place]):.3f}" for row in rows if row[0] == method]
        print(f"| {method} | {' | '.join([*means, *bands])} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--checkpoint", type=Path, help="other weights than the shipped ones")
    parser.add_argument("--full", action="store_true", help="without a truth")
    parser.add_argument("--keep", type=Path, help="folder for the results")
    parser.add_argument("--only", nargs="+", default=("ksdiff", *METHODS))
    chosen = parser.parse_args()
    for path in sorted(chosen.data.glob("S2?_MSIL1C_*.mat")):
        for group, (ratio, names) in GROUPS.items():
            if chosen.full:
                compare_at_full_resolution(path, group, tuple(chosen.only))
                continue
            print(f"\n{path.stem}, ratio {ratio}\n\n| method | guide | ERGAS | SAM | {' | '.join(names)} | s |")
            print(f"|---|---|---|---|{'---|' * len(names)}---|")
            with tempfile.TemporaryDirectory() as temporary:
                folder = chosen.keep / f"{path.stem}-{group}" if chosen.keep else Path(temporary)
                folder.mkdir(parents=True, exist_ok=True)
                fine, coarse, truth = reduce_scene(path, group, folder)
                inside = np.s_[:, RIM:-RIM, RIM:-RIM]
                for method in chosen.only:
                    more = ["--checkpoint", chosen.checkpoint] if chosen.checkpoint and method == "ksdiff" else []
                    for by in ("synthesis", "selection") if method != "exp" else ("synthesis",):
                        out = folder / f"{method}-{by}.tif"
                        made, seconds, said = sharpen(
                            fine, coarse, out, "--method", method, "--guide-by", by, "--overwrite", *more
                        )
                        figures = ergas(truth[inside], made[inside], ratio), sam(truth[inside], made[inside])
                        errors = np.sqrt(((made - truth)[inside] ** 2).mean((1, 2)))
                        cells = [f"{value:.3f}" for value in figures] + [f"{value:.1f}" for value in errors]
                        print(f"| {method} | {by} | {' | '.join(cells)} | {seconds:.1f} |", flush=True)
                        (folder / f"{method}-{by}.txt").write_text(said)


if __name__ == "__main__":
    main()
