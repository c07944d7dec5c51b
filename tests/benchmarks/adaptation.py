"""Does `ksdiff sharpen --adapt` help, and never do harm? Mosaics with a truth, and real scenes.

    python tests/benchmarks/adaptation.py DATA [--mosaics 5] [--minutes 0.5] [--checkpoint F] [--wrong] [--real [NAME…]]

DATA is a folder with `naip_urban`, and for --real the scenes of real_sheets.py. A mosaic is 5 x 5 aerial chips of the
town that training never sees, seen through the four cameras of truth_scenes.py; `--wrong` has the scene's camera found
wrong by .1 of the gain and .4 of the compensation, either way. Real scenes have no truth: R-Q2n and D_rho of the whole
scene, by `ksdiff metrics --mtf scene`, tell. A line a scene, and how many were accepted and refused at the end.
"""

import argparse
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import rasterio

sys.path.insert(0, str(Path(__file__).parent))

from real_sheets import SCENES, look
from truth_scenes import AERIAL_GAIN, BORDER, CAMERAS, TOWN, Picture, scenes

import ksdiff_cli.raster.camera as cameras
from ksdiff_cli import measure, sharpen_scene
from ksdiff_cli.metrics import ergas, sam

SIDE = 5
WRONG = {"gain +.1": (0.1, 0.0), "gain -.1": (-0.1, 0.0), "k +.4": (0.0, 0.4), "k -.4": (0.0, -0.4)}


def mosaics(data: Path, count: int) -> list[Picture]:
    """Put chips side by side; their seams are the truth's as well."""
    found = []
    with h5py.File(data / "naip_urban" / TOWN) as file:
        random = np.random.default_rng(5)
        for number in range(count):
            chosen = random.choice(len(file["image"]), (SIDE, SIDE), replace=False)
            rows = [np.concatenate([file["image"][int(one)] for one in row], 2) for row in chosen]
            weights = np.random.default_rng(100 + number).dirichlet([3.0] * 4)
            weights[-1] *= number % 3 != 2
            image = np.concatenate(rows, 1).astype(np.float64) * AERIAL_GAIN
            found.append(Picture(f"mosaic{number}", image, weights / weights.sum(), 0.6, (5e5, 4e6), "EPSG:32611"))
    return found


@contextmanager
def camera_off(gain: float, compensation: float) -> Iterator[None]:
    """Have every scene's camera found wrong."""
    fit = cameras.fit_camera

    def wrong(*given: object, **more: object) -> object:
        found = fit(*given, **more)  # type: ignore[arg-type]
        return replace(
            found,
            gain=float(np.clip(found.gain + gain, 0.03, 0.7)),
            compensation=max(0.0, found.compensation + compensation),
        )

    cameras.fit_camera = wrong  # type: ignore[assignment]
    try:
        yield
    finally:
        cameras.fit_camera = fit


def make(pan: Path, ms: Path, scratch: Path, options: argparse.Namespace, **more: object) -> tuple[Path, Path, bool]:
    """Sharpen without and with: both outputs, and whether adapted weights were accepted."""
    plain, adapted = scratch / "plain.tif", scratch / "adapted.tif"
    given = {"checkpoint": options.checkpoint, "overwrite": True, **more}
    sharpen_scene(pan, ms, output=plain, **given)  # type: ignore[arg-type]
    made = sharpen_scene(pan, ms, output=adapted, adapt=options.minutes, **given)  # type: ignore[arg-type]
    return plain, adapted, any("adapted to the scene" in note for note in made.notes)


def against(truth: np.ndarray, path: Path) -> np.ndarray:
    """ERGAS and SAM of an output."""
    with rasterio.open(path) as file:
        fused = file.read().astype(np.float64)
    truth, fused = (image[:, BORDER:-BORDER, BORDER:-BORDER] for image in (truth, fused))
    return np.array([ergas(truth, fused, 4), sam(truth, fused)])


def with_truth(options: argparse.Namespace, scratch: Path) -> None:
    """Print a line a mosaic and camera, and means."""
    counts, offs = [0, 0], {"": (0.0, 0.0), **(WRONG if options.wrong else {})}
    worst = 0.0
    for off, (gain, compensation) in offs.items():
        for camera in CAMERAS:
            ratios = []
            for scene in scenes(mosaics(options.data, options.mosaics), camera, 4, scratch):
                with camera_off(gain, compensation):
                    plain, adapted, accepted = make(scene.pan, scene.ms, scratch, options)
                before, after = (against(scene.truth, path) for path in (plain, adapted))
                ratios.append(after / before)
                counts[accepted] += 1
                worst = max(worst, float(ratios[-1][0]))
                told = "accepted" if accepted else "refused"
                print(f"{camera} {off} {scene.name}: ERGAS {before[0]:.3f} -> {after[0]:.3f}, {told}", flush=True)
            mean = np.mean(ratios, 0)
            print(f"**{camera} {off}: ERGAS x {mean[0]:.3f}, SAM x {mean[1]:.3f}**", flush=True)
    print(f"accepted {counts[1]}, refused {counts[0]}; worst ERGAS x {worst:.3f}")


def real(options: argparse.Namespace, scratch: Path) -> None:
    """Print a line a real scene."""
    counts = [0, 0]
    for name in options.real or SCENES:
        told: list[bool] = []

        def run(method: str, inputs: list[str], sensor: str | None, output: Path, told: list[bool] = told) -> None:
            adapt = options.minutes if method == "adapted" else None
            made = sharpen_scene(*inputs, output=output, sensor=sensor, checkpoint=options.checkpoint, adapt=adapt)
            told.append(any("adapted to the scene" in note for note in made.notes))

        try:
            seen = look(name, options.data, ["plain", "adapted"], scratch, run)
        except Exception as error:  # a scene that is too small to adapt to
            print(f"{name}: {error}", flush=True)
            continue
        before, after = (
            measure(seen.fused[method], pan=seen.pan, ms=seen.ms, sensor=seen.scene.sensor, mtf="scene").values
            for method in ("plain", "adapted")
        )
        counts[told[-1]] += 1
        figures = ", ".join(f"{one} {before[one]:.4f} -> {after[one]:.4f}" for one in ("R_Q2n", "D_rho", "D_sR"))
        print(f"{name}: {figures}, {'accepted' if told[-1] else 'refused'}", flush=True)
    print(f"accepted {counts[1]}, refused {counts[0]}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--mosaics", type=int, default=5)
    parser.add_argument("--minutes", type=float, default=0.5)
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument("--wrong", action="store_true")
    parser.add_argument("--real", nargs="*")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        (real if options.real is not None else with_truth)(options, Path(folder))


if __name__ == "__main__":
    main()
