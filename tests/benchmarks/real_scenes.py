"""Quality on real scenes, as two tables: reduced resolution against upsampling, and how outputs line up with their PAN.

    python tests/benchmarks/real_scenes.py FOLDER_OF_SCENES… [--checkpoint F] [--pictures DIR]

Each folder is a scene (a pair or a product), a folder of scenes, a folder with gt.tif and pan.tif of equal size, or an
.h5 file of such tiles. The reduced images are whole scenes written as GeoTIFF and sharpened by `ksdiff sharpen`, so the
road measured is the one that people take. Data stay where they are; everything written goes to a temporary folder.
"""

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
import rasterio
from rasterio.transform import Affine
from scipy.ndimage import gaussian_filter

from ksdiff_cli.errors import KsdiffError
from ksdiff_cli.metrics import ergas, sam
from ksdiff_cli.numerics.fill import fill_invalid
from ksdiff_cli.numerics.grids import corner_aligned, degrade
from ksdiff_cli.products import find_scenes
from ksdiff_cli.raster.pair import Scene, open_pair
from ksdiff_cli.sensors import find_sensor

METHODS = ("exp", "ksdiff")


def reduced_scenes(path: Path) -> Iterator[tuple[str, int, np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
    """Yield (name, ratio, gt, pan, ms, valid): Wald's protocol on everything found at a path."""
    if path.suffix == ".h5":
        with h5py.File(path) as file:
            for index in range(len(file["gt"])):
                yield (f"{path.stem}/{index:02d}", 4, *_wald(file["gt"][index], file["pan"][index], 4, (0.3,)))
    elif (path / "gt.tif").exists():
        with rasterio.open(path / "gt.tif") as gt, rasterio.open(path / "pan.tif") as pan:
            yield (path.name, 4, *_wald(gt.read(), pan.read(), 4, (0.3,)))
    else:
        for scene in find_scenes(path):
            with open_pair(scene) as pair:
                ms, ms_valid = pair.read_ms(0, 0, *pair.ms_shape)
                pan, pan_valid = pair.read_pan(0, 0, *pair.shape)
                seen = degrade(fill_invalid(pan, pan_valid), pair.grid, pair.ms_shape, (scene.sensor.mtf_pan,))
                gains = scene.sensor.ms_gains(pair.bands)
                yield (scene.name, pair.grid.ratio, *_wald(fill_invalid(ms, ms_valid), seen, pair.grid.ratio, gains))


def _wald(gt, pan, ratio, gains):
    h, w = gt.shape[1] // ratio, gt.shape[2] // ratio
    gt, pan = (a[:, : h * ratio, : w * ratio].astype(np.float32) for a in (gt, pan))
    ms = degrade(gt, corner_aligned(ratio), (h, w), gains if len(gains) == len(gt) else gains[:1] * len(gt))
    return gt, pan, ms, gt.min(0) > 0  # zero is nodata in every scene that has any


def write(path: Path, image: np.ndarray, pixel: float) -> Path:
    profile = {"driver": "GTiff", "count": len(image), "height": image.shape[1], "width": image.shape[2]}
    place = Affine(pixel, 0, 500000, 0, -pixel, 5000000)
    with rasterio.open(path, "w", dtype="float32", crs="EPSG:32632", transform=place, **profile) as file:
        file.write(image.astype(np.float32))
    return path


def sharpen(pan, ms, output, method, checkpoint):
    command = [sys.executable, "-m", "ksdiff_cli", "sharpen", *map(str, [pan, *ms]), "-o", str(output), "-q"]
    command += ["--method", method] + (["--checkpoint", str(checkpoint)] if checkpoint and method == "ksdiff" else [])
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise KsdiffError(done.stderr.strip())
    with rasterio.open(output) as file:
        return file.read().astype(np.float64)


def shift_between(first: np.ndarray, second: np.ndarray) -> tuple[float, float]:
    """Rows and columns by which ``second`` lies beside ``first``, to about .01 px: phase correlation, refined by DFT."""

    def prepare(image):
        band = gaussian_filter(image, 1) - gaussian_filter(image, 6)
        window = np.hanning(image.shape[0])[:, None] * np.hanning(image.shape[1])
        return np.fft.fft2(band / (band.std() + 1e-9) * window)

    cross = prepare(second) * np.conj(prepare(first))
    cross /= np.abs(cross) + 1e-3 * np.abs(cross).max()
    peak = np.unravel_index(np.argmax(np.fft.ifft2(cross).real), cross.shape)
    centre = [p - n if p > n // 2 else p for p, n in zip(peak, cross.shape, strict=True)]
    for step in (0.1, 0.01):
        near = [c + step * np.arange(-15, 16) for c in centre]
        rows = np.exp(2j * np.pi * np.outer(near[0], np.fft.fftfreq(cross.shape[0])))
        cols = np.exp(2j * np.pi * np.outer(np.fft.fftfreq(cross.shape[1]), near[1]))
        found = np.unravel_index(np.argmax((rows @ cross @ cols).real), (31, 31))
        centre = [axis[i] for axis, i in zip(near, found, strict=True)]
    return float(centre[0]), float(centre[1])


def picture(path: Path, *images: np.ndarray) -> None:
    """Write images side by side as PNG, all of (3, H, W), the MS-like ones at one stretch."""
    low, high = (np.percentile(images[-1], q, axis=(1, 2))[:, None, None] for q in (1, 99))
    shown = []
    for image in images:
        lo, hi = np.percentile(image, (1, 99)) if np.array_equal(image[0], image[-1]) else (low, high)
        shown.append(np.clip((image - lo) / (hi - lo + 1e-9), 0, 1) * 255)
    row = np.concatenate(shown, 2).astype(np.uint8)
    with rasterio.open(
        path, "w", driver="PNG", count=3, height=row.shape[1], width=row.shape[2], dtype="uint8"
    ) as file:
        file.write(row)


def reduced_table(paths, checkpoint, scratch):
    print("| scene | bands | ratio | SAM exp | SAM ksdiff | ERGAS exp | ERGAS ksdiff |\n|---|---|---|---|---|---|---|")
    for path in paths:
        rows: dict[str, list[list[float]]] = {}
        for name, ratio, gt, pan, ms, valid in reduced_scenes(path):
            files = write(scratch / "p.tif", pan, 1.0), write(scratch / "m.tif", ms, float(ratio))
            row = [len(gt), ratio]
            fused = {
                m: sharpen(files[0], [files[1]], scratch / f"{name.replace('/', '-')}-{m}.tif", m, checkpoint)
                for m in METHODS
            }
            row += [sam(gt, fused[m], valid=valid) for m in METHODS]
            row += [ergas(gt, fused[m], ratio, valid=valid) for m in METHODS]
            rows[name] = row
        label = path.name if len(rows) > 1 or path.suffix else f"{path.parent.name}/{path.name}"
        mean = np.mean(list(rows.values()), 0)
        better = "" if mean[3] < mean[2] and mean[5] < mean[4] else " WORSE"
        print(
            f"| {label} ({len(rows)}) | {mean[0]:.0f} | {mean[1]:.0f} | "
            + " | ".join(f"{v:.3f}" for v in mean[2:])
            + f" |{better}",
            flush=True,
        )


def alignment_table(paths, checkpoint, scratch, pictures):
    print("\n| scene | output | shift upsampled MS to PAN, px | shift output to PAN, px |\n|---|---|---|---|")
    for path in paths:
        if path.suffix == ".h5" or (path / "gt.tif").exists():
            continue
        for scene in find_scenes(path):
            sources = list(dict.fromkeys(source.path for source in scene.ms))
            inputs = [scene.pan.path, *sources]
            fused, up = (
                sharpen(inputs[0], inputs[1:], scratch / f"{scene.name}-full-{m}.tif", m, checkpoint)
                for m in ("ksdiff", "exp")
            )
            pan = _pan(scene)
            shifts = [shift_between(pan[0], image.mean(0)) for image in (up, fused)]
            print(
                f"| {scene.name} | {'x'.join(map(str, fused.shape))} | "
                + " | ".join(f"({r:+.2f}, {c:+.2f})" for r, c in shifts)
                + " |",
                flush=True,
            )
            if pictures:
                bands = (
                    [2, 1, 0]
                    if len(fused) == 4
                    else [4, 2, 1]
                    if len(fused) == 8
                    else [min(i, len(fused) - 1) for i in range(3)]
                )
                cut = (slice(None), slice(0, 400), slice(0, 400))
                picture(
                    pictures / f"{path.parent.name}-{scene.name}.png",
                    np.repeat(pan, 3, 0)[cut],
                    up[bands][cut],
                    fused[bands][cut],
                )


def _pan(scene: Scene) -> np.ndarray:
    with open_pair(scene) as pair:
        return pair.read_pan(0, 0, *pair.shape)[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", nargs="+", type=Path)
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument("--pictures", type=Path)
    chosen = parser.parse_args()
    find_sensor(None)
    with tempfile.TemporaryDirectory() as folder:
        reduced_table(chosen.paths, chosen.checkpoint, Path(folder))
        if chosen.pictures:
            chosen.pictures.mkdir(parents=True, exist_ok=True)
        alignment_table(chosen.paths, chosen.checkpoint, Path(folder), chosen.pictures)


if __name__ == "__main__":
    main()
