"""Full resolution, what people get: against a truth, through four cameras; and on real scenes, with pictures.

    python tests/benchmarks/full_resolution.py DATA [--quick] [--sets NAME…] [--checkpoint F] [--methods NAME…] [--json F]

Scenes with a truth are written as georeferenced GeoTIFF (see truth_scenes.py) and sharpened by the Python call behind
``ksdiff sharpen``, with its checks and without a sensor's name, since nobody made these cameras; so the road measured
is the one that people take. A figure is the mean over a row's scenes, 16 pixels at the border left out. "Best" is the
classical method with the best mean; the ratio is the network's mean by its.

    python tests/benchmarks/full_resolution.py DATA --blind [--quick] [--sets NAME…] [--checkpoint F] [--methods NAME…]

The same scenes by the metrics that need no truth, of the results and of the truth itself: what a metric says of the
right answer is the best that may be asked of a result.

    python tests/benchmarks/full_resolution.py DATA --real [NAME…] [--sheets DIR] [--checkpoint F] [--methods NAME…]

Real scenes have no truth: they are sharpened with their sensor's name and measured as ``ksdiff metrics --pan --ms``
does, and drawn to be looked at (see real_sheets.py).
"""

import argparse
import json
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import rasterio
from rasterio.errors import NotGeoreferencedWarning
from real_sheets import SCENES as REAL_SCENES
from real_sheets import SHOWN, draw, figures, look
from truth_scenes import BORDER, CAMERAS, Picture, TruthScene, aerial_pictures, scenes, sentinel_pictures

from ksdiff_cli import measure, sharpen_scene
from ksdiff_cli.classical import METHODS
from ksdiff_cli.metrics import ABOUT, ergas, q2n, sam
from ksdiff_cli.models.checkpoint import weights_hash
from ksdiff_cli.numerics.camera import SceneCamera
from ksdiff_cli.weights import SHIPPED

Row = dict[str, dict[str, float]]
"""Metric by method."""
ERGAS_ASKED, SAM_ASKED = 0.72, 0.80
"""What a new network must reach on aerial scenes at ratio 4: its mean by the best classical one's."""
D_RHO_ASKED, FINEST_ASKED = 1.6, (0.9, 1.15)
"""And on real scenes: D_rho by GSA's, sharpness of the finest octave relative to PAN's."""
TRUTH_METRICS = ("ERGAS", "SAM", "Q2n")
BLIND_METRICS = ("D_rho", "D_sR", "RQNR", "HQNR", "R_Q2n")
LOWER = {"ERGAS", "SAM"}
ASKED_OF = "aerial4"
SETS: dict[str, tuple[int, Callable[[Path, int], list[Picture]], int, int]] = {
    "aerial4": (4, aerial_pictures, 12, 6),
    "aerial2": (2, aerial_pictures, 6, 3),
    "sentinel2": (4, sentinel_pictures, 4, 1),
}
"""Ratio, pictures, how many, and how many are quick: four aerial bands at ratios 4 and 2; eight of Sentinel-2, with a
PAN that is none of them."""


def sharpen(
    pan: Path, ms: list[Path], output: Path, method: str, checkpoint: Path | None, **more: object
) -> np.ndarray:
    """Sharpen and return (bands, H, W) float64."""
    weights = checkpoint if method == "ksdiff" else None
    sharpen_scene(pan, *ms, output=output, method=method, checkpoint=weights, overwrite=True, **more)  # type: ignore[arg-type]
    with rasterio.open(output) as file:
        return file.read().astype(np.float64)


def against_truth(scene: TruthScene, method: str, checkpoint: Path | None) -> dict[str, float]:
    """Sharpen a scene and measure it."""
    fused = sharpen(scene.pan, [scene.ms], scene.pan.with_name("fused.tif"), method, checkpoint)
    if fused.shape != scene.truth.shape:
        raise SystemExit(f"{scene.name}: {method} made {fused.shape}, the truth is {scene.truth.shape}")
    truth, fused = (image[:, BORDER:-BORDER, BORDER:-BORDER] for image in (scene.truth, fused))
    return {"ERGAS": ergas(truth, fused, scene.ratio), "SAM": sam(truth, fused), "Q2n": q2n(truth, fused)}


def truth_rows(options: argparse.Namespace, scratch: Path) -> Iterator[tuple[str, str, Row]]:
    """Yield (set, camera, row): means over the scenes."""
    for name in options.sets:
        ratio, make, all_of_them, few = SETS[name]
        pictures = make(options.data, few if options.quick else all_of_them)
        for camera in CAMERAS:
            found: dict[str, list[dict[str, float]]] = {method: [] for method in options.methods}
            for scene in scenes(pictures, camera, ratio, scratch):
                for method, values in found.items():
                    values.append(against_truth(scene, method, options.checkpoint))
            yield (
                name,
                camera,
                {
                    method: {metric: float(np.mean([one[metric] for one in values])) for metric in TRUTH_METRICS}
                    for method, values in found.items()
                },
            )


def blind_rows(options: argparse.Namespace, scratch: Path) -> Iterator[tuple[str, str, Row]]:
    """Yield (set, camera, row): means over the scenes of metrics without a truth, "truth" among the methods."""
    for name in options.sets:
        ratio, make, all_of_them, few = SETS[name]
        pictures = make(options.data, few if options.quick else all_of_them)
        for camera in CAMERAS:
            found: dict[str, list[dict[str, float]]] = {method: [] for method in ("truth", *options.methods)}
            for scene in scenes(pictures, camera, ratio, scratch):
                output = scene.pan.with_name("fused.tif")
                for method, values in found.items():
                    sharpen(scene.pan, [scene.ms], output, "exp" if method == "truth" else method, options.checkpoint)
                    if method == "truth":
                        with rasterio.open(output, "r+") as dataset:
                            dataset.write(np.clip(np.rint(scene.truth), 0, 65535).astype(dataset.dtypes[0]))
                    values.append(dict(measure(output, pan=scene.pan, ms=scene.ms).values))
            mean = {m: {k: float(np.mean([one[k] for one in v])) for k in BLIND_METRICS} for m, v in found.items()}
            yield name, camera, mean


def real_rows(options: argparse.Namespace, scratch: Path) -> Iterator[tuple[str, SceneCamera, Row]]:
    """Yield (scene, its camera, row) of the real scenes, and draw their sheets."""
    weights = options.checkpoint or SHIPPED

    def run(method: str, inputs: list[str], sensor: str | None, output: Path) -> None:
        sharpen_scene(
            *inputs, output=output, method=method, sensor=sensor, checkpoint=weights if method == "ksdiff" else None
        )

    needed = list(dict.fromkeys([*options.methods, *(SHOWN if options.sheets else ())]))
    for name in options.real or REAL_SCENES:
        seen = look(name, options.data, needed, scratch, run)
        if options.sheets:
            draw(seen, name, options.sheets, weights_hash(weights)[:8])
        yield name, seen.camera, {method: figures(seen, method) for method in options.methods}


def best_of(row: Row, metric: str) -> str | None:
    """Return the classical method with the best mean."""
    known = [method for method in row if method in METHODS]
    choose = min if metric in LOWER else max
    return choose(known, key=lambda method: row[method][metric]) if known else None


def against_best(row: Row, metric: str) -> float | None:
    """Return the network's mean by that of the best classical method."""
    best = best_of(row, metric)
    return row["ksdiff"][metric] / row[best][metric] if best and "ksdiff" in row else None


def print_truth(rows: list[tuple[str, str, Row]], methods: list[str]) -> None:
    """Print a table a metric, a line a set and camera, and what the aerial lines reach of what is asked."""
    for metric in TRUTH_METRICS:
        print(f"\n**{metric}**\n\n| scenes | camera | {' | '.join(methods)} | best classical | ksdiff by it |")
        print("|---" * (len(methods) + 4) + "|")
        for name, camera, row in rows:
            share = against_best(row, metric)
            cells = [f"{row[method][metric]:.3f}" for method in methods]
            last = [best_of(row, metric) or "", "" if share is None else f"{share:.3f}"]
            print(f"| {name} | {camera} | {' | '.join([*cells, *last])} |")
    print()
    for name, camera, row in rows:
        shares = [against_best(row, metric) for metric in ("ERGAS", "SAM")]
        if name == ASKED_OF and None not in shares:
            reached = [share <= asked for share, asked in zip(shares, (ERGAS_ASKED, SAM_ASKED), strict=True)]  # type: ignore[operator]
            print(
                f"{camera}: ERGAS {shares[0]:.3f} (asked {ERGAS_ASKED}), SAM {shares[1]:.3f} (asked {SAM_ASKED}):"
                f" {'reached' if all(reached) else 'NOT reached'}"
            )


def print_real(rows: list[tuple[str, SceneCamera, Row]], methods: list[str]) -> None:
    """Print a table a metric, a line a scene, and what the network reaches of what is asked."""
    for metric in (name for name in ABOUT if name in rows[0][2][methods[0]]):
        of_ms = [f"{1 - camera.r2:.3f}" for _, camera, _ in rows] if metric == "D_sR" else []
        titles = [*methods, *(["MS at its own scale"] if of_ms else [])]
        print(f"\n**{metric}**\n\n| scene | {' | '.join(titles)} |")
        print("|---" * (len(titles) + 1) + "|")
        for number, (name, _, row) in enumerate(rows):
            cells = [f"{row[method][metric]:.3f}" for method in methods]
            print(f"| {name} | {' | '.join(cells + of_ms[number : number + 1])} |")
        means = [_mean(rows, method, metric) for method in methods]
        print(f"| mean | {' | '.join(f'{mean:.3f}' for mean in means)} |{' |' if of_ms else ''}")
    print("\nCameras found in the scenes:")
    for name, camera, _ in rows:
        print(f"{name}: {camera}")
    if "ksdiff" in methods:
        print_reached(rows, [method for method in methods if method in METHODS])


def print_reached(rows: list[tuple[str, SceneCamera, Row]], classical: list[str]) -> None:
    """Print what the network reaches of what is asked at full resolution."""
    worse = [name for name, camera, row in rows if row["ksdiff"]["D_sR"] > 1 - camera.r2]
    print(f"\nD_sR above that of MS at its own scale: {', '.join(worse) or 'nowhere'} (asked: nowhere)")
    low, high = FINEST_ASKED
    off = [f"{name} {v:.2f}" for name, _, row in rows if not low <= (v := row["ksdiff"]["sharpness_finest"]) <= high]
    print(f"finest octave out of {low:g} to {high:g} of PAN's: {', '.join(off) or 'nowhere'} (asked: nowhere)")
    four = [row for row in rows if REAL_SCENES[row[0]].ratio == 4]
    if four and "gsa" in classical:
        share = _mean(four, "ksdiff", "D_rho") / _mean(four, "gsa", "D_rho")
        print(f"D_rho at ratio 4: {share:.2f} of GSA's (asked {D_RHO_ASKED:g} or less)")
    for metric in ("RQNR", "R_Q2n") if classical else ():
        best = max(classical, key=lambda method: _mean(rows, method, metric))
        print(f"{metric}: {_mean(rows, 'ksdiff', metric):.3f}; {best} {_mean(rows, best, metric):.3f} (asked: no less)")


def _mean(rows: list[tuple[str, SceneCamera, Row]], method: str, metric: str) -> float:
    return float(np.nanmean([row[method][metric] for _, _, row in rows]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder of real imagery, with naip_urban/ and sentinel2/")
    parser.add_argument("--quick", action="store_true", help="fewer scenes: about a minute of one core")
    parser.add_argument("--sets", nargs="+", choices=list(SETS), default=list(SETS), help="of scenes with a truth")
    parser.add_argument("--blind", action="store_true", help="their metrics without a truth, and those of the truth")
    parser.add_argument("--real", nargs="*", choices=list(REAL_SCENES), help="real scenes instead; by name, or all")
    parser.add_argument("--sheets", type=Path, metavar="DIR", help="draw the real scenes into this folder")
    parser.add_argument("--checkpoint", type=Path, help="weights; default: the shipped ones")
    parser.add_argument("--methods", nargs="+", choices=[*METHODS, "ksdiff"], default=[*METHODS, "ksdiff"])
    parser.add_argument("--json", type=Path, help="file for all figures")
    options = parser.parse_args()
    if options.sheets and options.real is None:
        parser.error("--sheets goes with --real")
    if options.sheets:
        options.sheets.mkdir(parents=True, exist_ok=True)
    warnings.simplefilter("ignore", NotGeoreferencedWarning)
    kept: dict[str, object] = {}
    with tempfile.TemporaryDirectory() as folder:
        if options.real is not None:
            found = []
            for name, camera, row in real_rows(options, Path(folder)):
                found.append((name, camera, row))
                print(name, "done", flush=True)
            print_real(found, options.methods)
            kept["real"] = [{"scene": name, "camera": vars(camera), "methods": row} for name, camera, row in found]
        elif options.blind:
            print(
                f"| scenes | camera | of | {' | '.join(BLIND_METRICS)} |"
                + "\n"
                + "|---" * (len(BLIND_METRICS) + 3)
                + "|"
            )
            for name, camera, row in blind_rows(options, Path(folder)):
                for method, values in row.items():
                    print(
                        f"| {name} | {camera} | {method} |",
                        *(f"{value:.4f} |" for value in values.values()),
                        flush=True,
                    )
        else:
            rows = []
            for name, camera, row in truth_rows(options, Path(folder)):
                rows.append((name, camera, row))
                print(name, camera, *(f"{m} {v['ERGAS']:.3f}/{v['SAM']:.3f}" for m, v in row.items()), flush=True)
            print_truth(rows, options.methods)
            kept["truth"] = [{"scenes": name, "camera": camera, "methods": row} for name, camera, row in rows]
    if options.json:
        options.json.write_text(json.dumps(kept, indent=1))


if __name__ == "__main__":
    main()
