"""Five tasks with ksdiff from Python, on a scene that it makes itself: ``python tests/tutorial.py FOLDER``.

Nothing is downloaded, and a minute of one core is enough. With your own files take their names in place of
``scene / "pan.tif"`` and ``scene / "ms.tif"``.
"""

import sys
from pathlib import Path

import numpy as np
import rasterio

from ksdiff_cli import KsdiffError, evaluate, measure, metrics, prepare_patches, sharpen_array, sharpen_scene, train
from ksdiff_cli.models.config import ModelConfig
from ksdiff_cli.simulation.files import simulate_scene


def main(folder: Path) -> None:
    """Do the five tasks in a folder that is empty or missing."""
    scene = folder / "scene"
    # bands, MTFs and bit depth of GeoEye-1; PAN, MS, and the truth that a perfect fusion would give
    simulate_scene(scene, size=320, sensor="GE1", seed=1)

    print("1. Sharpen a scene: files in, a GeoTIFF out, whatever its size")
    made = sharpen_scene(scene / "pan.tif", scene / "ms.tif", output=folder / "out.tif", sensor="GE1")
    print(f"   {made.output.name}: {made.shape[1]} x {made.shape[0]} pixels, {made.bands} bands, {made.dtype}")
    quality = measure(made.output, reference=scene / "truth.tif", sensor="GE1")
    print(f"   against the truth: SAM {quality.values['SAM']:.2f} degrees, ERGAS {quality.values['ERGAS']:.2f}")

    print("2. Sharpen arrays, and compare methods on them")
    pan, ms, truth = (_read(scene / f"{name}.tif") for name in ("pan", "ms", "truth"))
    for method in ("exp", "gsa", "ksdiff"):
        fused = sharpen_array(pan, ms, method=method, sensor="GE1")
        print(f"   {method:>6}: SAM {metrics.sam(truth, fused):.2f}, ERGAS {metrics.ergas(truth, fused, ratio=4):.2f}")

    print("3. Judge a result where nobody knows the truth")
    quality = measure(made.output, pan=scene / "pan.tif", ms=scene / "ms.tif", sensor="GE1")
    print("   " + ", ".join(f"{name} {quality.values[name]:.3f}" for name in ("D_lambda", "D_s", "HQNR")))

    print("4. Train on the scene (a few steps only, of a small network)")
    patches = prepare_patches(scene, output=folder / "patches", patch=8, sensor="GE1")
    print(
        f"   {patches.counts['train']} patches to train on, {patches.counts['valid'] + patches.counts['test']} others"
    )
    small = ModelConfig(backbone="pnn", prior=False)
    (weights,) = train(
        folder / "patches", output=folder / "run", stage="1", config=small, steps=60, batch=16, validate_every=60
    )
    print(f"   {weights.name}: {weights.stat().st_size // 1000} kB")

    print("5. Compare methods and weights on patches that none has seen")
    unseen = [folder / "patches" / "valid.h5", folder / "patches" / "test.h5"]
    found = evaluate(*unseen, methods=["exp", "gsa"], checkpoints=[weights])
    for name, result in found.methods.items():
        print(f"   {name:>6}: ERGAS {result.mean('ERGAS'):.2f} ± {result.std('ERGAS'):.2f}, {result.runtime:.3f} s")

    print("What goes wrong is one line for people:")
    try:
        sharpen_array(pan, ms, method="gssa")
    except KsdiffError as error:
        print(f"   {error}")


def _read(path: Path) -> np.ndarray:
    with rasterio.open(path) as file:
        return np.asarray(file.read())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
