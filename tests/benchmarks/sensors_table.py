"""The shipped weights against every classical method, sensor by sensor, by the road that people take.

    python tests/benchmarks/sensors_table.py DATA -o RESULTS [--checkpoint F] [--adapt MINUTES] [--full] [--pictures DIR]

DATA holds a folder for each entry of SCENES: a pair or a product, folders of such, or an .h5 file of gt and pan tiles.
Reduced resolution (Wald's protocol): every image is written as GeoTIFF, sharpened by ``ksdiff sharpen`` with the
sensor's name and measured by ``ksdiff metrics --reference``; a sensor's figures are the mean over its images. With
``--full`` the scenes themselves are sharpened and measured by ``ksdiff metrics --pan --ms``. What was measured stays in
RESULTS and is not measured again, weights being known by their hash; so the table can be made in several sittings.
``--pictures`` draws PAN, MS, the network and the best classical method of each sensor, 1:1, at full resolution.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import mean

import numpy as np
import rasterio
from real_scenes import reduced_scenes, write

from ksdiff_cli.models.checkpoint import weights_hash
from ksdiff_cli.numerics.camera import View, implied_sharpness
from ksdiff_cli.numerics.grids import corner_aligned
from ksdiff_cli.products import find_scenes
from ksdiff_cli.weights import SHIPPED

SCENES: dict[str, tuple[str, str | None]] = {
    "worldview2": ("worldview2", "WV2"),
    "worldview3": ("worldview3", "WV3"),
    "ikonos": ("ikonos", "IKONOS"),
    "geoeye1": ("geoeye1", "GE1"),
    "quickbird": ("quickbird/gt_pan_20x256.h5", "QB"),
    "gaofen2": ("gaofen2/reduced_*", "GF2"),
    "spot6": ("spot6", "SPOT6"),
    "wv3_georef": ("wv3_georef", "WV3"),
    "zhengzhou": ("zhengzhou_noninteger", None),
    "landsat8": ("landsat8_volcano", None),
}
"""Name: path below DATA, which may match several folders, and what ``--sensor`` is given."""
FULL = {**SCENES, "gaofen2": ("gaofen2/full_*", "GF2")}
"""The same at full resolution; tiles have none."""
CLASSICAL = ("exp", "brovey", "gsa", "bdsd-pc", "mtf-glp-fs", "bt-h", "awlp", "pracs", "mtf-glp-hpm-r")
REDUCED_METRICS, FULL_METRICS = ("ERGAS", "SAM", "Q2n", "SCC"), ("HQNR", "D_lambda", "D_s")
LOWER = {"ERGAS", "SAM", "D_lambda", "D_s"}


def ksdiff(*words: object) -> None:
    """Run a ksdiff command in this process."""
    from ksdiff_cli.main import app

    app([str(word) for word in words], standalone_mode=False)


def measure(*words: object) -> dict[str, float]:
    """Run ``ksdiff metrics`` and return its values."""
    from typer.testing import CliRunner

    from ksdiff_cli.main import app

    done = CliRunner().invoke(app, ["metrics", *map(str, words), "--json", "-q"])
    if done.exit_code:
        raise SystemExit(done.stderr)
    found: dict[str, float] = json.loads(done.stdout)
    return found.get("values", found)  # type: ignore[return-value]


class Results:
    """What is measured already, one file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.known: dict[str, dict[str, float]] = json.loads(path.read_text()) if path.exists() else {}

    def add(self, key: str, values: dict[str, float]) -> None:
        self.known[key] = values
        self.path.parent.mkdir(parents=True, exist_ok=True)
        partial = self.path.with_suffix(".part")
        partial.write_text(json.dumps(self.known, indent=1, sort_keys=True))
        partial.replace(self.path)


def images(data: Path, name: str, folder: Path) -> Iterator[tuple[str, Path, Path, Path, int]]:
    """Write the reduced images of a sensor; yield (label, pan, ms, gt, ratio)."""
    for path in sorted(data.glob(SCENES[name][0])):
        for label, ratio, gt, pan, ms, valid in reduced_scenes(path):
            own = folder / f"{path.name}-{label.replace('/', '-')}"
            own.mkdir(parents=True, exist_ok=True)
            gt, pan, ms = (np.where(np.isfinite(a), a, 0) for a in (gt, pan, ms))
            gt = np.where(valid, gt, 0)
            files = write(own / "pan.tif", pan, 1), write(own / "ms.tif", ms, ratio), write(own / "gt.tif", gt, 1)
            yield (label, *files, ratio)


def tag(method: str, options: argparse.Namespace) -> str:
    """What a measurement depends on besides the image."""
    if method in CLASSICAL:
        return method
    adapted = f" adapt {options.adapt:g}" if method == "ksdiff --adapt" else ""
    return f"ksdiff {weights_hash(options.checkpoint)}{adapted}"


def sharpen(
    pan: Path, ms: list[Path], output: Path, method: str, sensor: str | None, options: argparse.Namespace
) -> None:
    words: list[object] = [pan, *ms, "-o", output, "-q", "-t", "float32", "--no-registration-check", "--overwrite"]
    words += ["--sensor", sensor] if sensor else []
    if method in CLASSICAL:
        ksdiff("sharpen", *words, "--method", method)
    else:
        words += ["--checkpoint", options.checkpoint, "--threads", options.threads]
        # what Wald's protocol calls the truth is softer than its PAN: as evaluate has it
        words += ["--sharpness", options.sharpness]
        ksdiff("sharpen", *words, *(["--adapt", options.adapt] if method == "ksdiff --adapt" else []))


def implied(found: list[tuple[str, Path, Path, Path, int]]) -> float:
    """The sharpness that the protocol implies for a sensor's images, as evaluate finds it: MS had a gain of .3."""
    views = []
    for _, pan, ms, _, ratio in found:
        with rasterio.open(pan) as fine, rasterio.open(ms) as coarse:
            planes = fine.read(1).astype(np.float32), coarse.read().astype(np.float32)
        whole = np.ones(planes[0].shape, bool), np.ones(planes[1].shape[1:], bool)
        views.append(View(planes[0], whole[0], planes[1], whole[1], corner_aligned(ratio)))
    return implied_sharpness(views, len(planes[1]), (0.3,))


def reduced(options: argparse.Namespace, methods: list[str], results: Results, scratch: Path) -> None:
    for name in options.sensors:
        sensor = SCENES[name][1]
        found = list(images(options.data, name, scratch / name))
        options.sharpness = implied(found)
        for label, pan, ms, gt, ratio in found:
            for method in methods:
                key = f"{name}/{label}/{tag(method, options)}"
                if key in results.known:
                    continue
                fused, start = pan.with_name("fused.tif"), time.perf_counter()
                sharpen(pan, [ms], fused, method, sensor, options)
                seconds = time.perf_counter() - start
                values = measure(fused, "--reference", gt, "--ratio", ratio)
                results.add(key, {m: values[m] for m in REDUCED_METRICS} | {"seconds": seconds})
                print(key, " ".join(f"{m} {values[m]:.4f}" for m in REDUCED_METRICS), flush=True)


def full(options: argparse.Namespace, methods: list[str], results: Results, scratch: Path) -> None:
    options.sharpness = 0
    for name in options.sensors:
        pattern, sensor = FULL[name]
        for path in sorted(options.data.glob(pattern)):
            if path.suffix == ".h5":
                continue
            for scene in find_scenes(path):
                sources = list(dict.fromkeys(Path(source.path) for source in scene.ms))
                for method in methods:
                    key = f"full/{name}/{path.name}/{scene.name}/{tag(method, options)}"
                    if key in results.known:
                        continue
                    fused = scratch / "full.tif"
                    sharpen(Path(scene.pan.path), sources, fused, method, sensor, options)
                    if len(sources) > 1:
                        continue  # metrics takes one MS file
                    words = [
                        fused,
                        "--pan",
                        scene.pan.path,
                        "--ms",
                        sources[0],
                        *(["--sensor", sensor] if sensor else []),
                    ]
                    found = measure(*words)
                    results.add(key, {m: found[m] for m in FULL_METRICS})
                    print(key, " ".join(f"{m} {found[m]:.4f}" for m in FULL_METRICS), flush=True)


def table(options: argparse.Namespace, methods: list[str], results: Results, metric: str, prefix: str) -> None:
    """Print one metric, a line a sensor, and how far the network is from the best classical method."""
    print(f"\n**{metric}**\n\n| | {' | '.join(methods)} | best classical | against it |")
    print("|---" * (len(methods) + 3) + "|")
    gaps = []
    for name in options.sensors:
        row = {}
        for method in methods:
            end = f"/{tag(method, options)}"
            own = [
                v[metric]
                for key, v in results.known.items()
                if key.startswith(f"{prefix}{name}/") and key.endswith(end)
            ]
            row[method] = mean(own) if own else float("nan")
        if any(value != value for value in row.values()):  # not measured: tiles have no full resolution
            continue
        choose = min if metric in LOWER else max
        best = choose((m for m in CLASSICAL if m in row), key=lambda m: row[m])
        last = row[[m for m in methods if m not in CLASSICAL][-1]]
        gap = last / row[best] - 1
        gaps.append(gap)
        print(f"| {name} | {' | '.join(f'{row[m]:.3f}' for m in methods)} | {best} | {gap:+.1%} |")
    if gaps:
        print(f"\nmean {mean(gaps):+.1%}, from {min(gaps):+.1%} to {max(gaps):+.1%}")


def stretched(image: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    return (np.clip((image - low) / (high - low + 1e-9), 0, 1) * 255).astype(np.uint8)


def draw(options: argparse.Namespace, scratch: Path) -> None:
    """Draw PAN, MS, the network and BDSD-PC side by side, the sharpest 320 px of each scene at 1:1."""
    options.pictures.mkdir(parents=True, exist_ok=True)
    for name in options.sensors:
        pattern, sensor = FULL[name]
        for path in sorted(options.data.glob(pattern))[:2]:
            if path.suffix == ".h5":
                continue
            (scene, *_) = find_scenes(path)
            sources = list(dict.fromkeys(Path(source.path) for source in scene.ms))
            shown = []
            for method in ("exp", "ksdiff", "bdsd-pc"):
                sharpen(Path(scene.pan.path), sources, scratch / "p.tif", method, sensor, options)
                with rasterio.open(scratch / "p.tif") as file:
                    shown.append(file.read().astype(np.float64))
            with rasterio.open(scene.pan.path) as file:
                pan = file.read(scene.pan.band).astype(np.float64)[: shown[0].shape[1], : shown[0].shape[2]]
            bands = [4, 2, 1] if len(shown[0]) == 8 else [2, 1, 0] if len(shown[0]) >= 3 else [0, 0, 0]
            side = min(320, *pan.shape)
            detail = np.abs(np.diff(pan, axis=0))[:, : pan.shape[1]]
            spots = [
                (r, c) for r in range(0, pan.shape[0] - side + 1, side) for c in range(0, pan.shape[1] - side + 1, side)
            ]
            r, c = max(spots, key=lambda p: detail[p[0] : p[0] + side, p[1] : p[1] + side].mean())
            cut = np.s_[..., r : r + side, c : c + side]
            low, high = (np.percentile(shown[1][bands][cut], q, axis=(1, 2))[:, None, None] for q in (1, 99))
            grey = stretched(pan[cut], *np.percentile(pan[cut], (1, 99)))
            strip = [np.repeat(grey[None], 3, 0), *(stretched(image[bands][cut], low, high) for image in shown)]
            row = np.concatenate(strip, 2)
            target = options.pictures / f"{name}-{path.name}.png"
            with rasterio.open(
                target, "w", driver="PNG", count=3, height=row.shape[1], width=row.shape[2], dtype="uint8"
            ) as file:
                file.write(row)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--checkpoint", type=Path, default=SHIPPED)
    parser.add_argument("--sensors", nargs="+", choices=list(SCENES), default=list(SCENES))
    parser.add_argument("--adapt", type=float, help="Minutes; adds a column.")
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--pictures", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    methods = [*CLASSICAL, "ksdiff"] + (["ksdiff --adapt"] if options.adapt else [])
    results = Results(options.output)
    with tempfile.TemporaryDirectory() as folder:
        if options.full:
            full(options, methods, results, Path(folder))
        else:
            reduced(options, methods, results, Path(folder))
        if options.pictures:
            draw(options, Path(folder))
    for metric in FULL_METRICS if options.full else REDUCED_METRICS:
        table(options, methods, results, metric, "full/" if options.full else "")


if __name__ == "__main__":
    main()
