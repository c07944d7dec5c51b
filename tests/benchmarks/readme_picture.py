"""Make sample_data/sharpened.png: PAN | MS | GSA | ksdiff at full resolution, pixels enlarged twice without smoothing.

    python tests/benchmarks/readme_picture.py DATA

A part of an aerial picture of the town that training never saw (NAIP, in the public domain; DATA/naip_urban), seen through the
cameras of a satellite as it delivers (see truth_scenes.py). All but PAN have one stretch.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
import rasterio
from full_resolution import sharpen
from PIL import Image
from truth_scenes import aerial_pictures, scenes

ROOT = Path(__file__).parents[2]
SIDE, PLACE, ENLARGED, GAP = 150, (50, 50), 2, 6  # PAN pixels; row and column


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder of real imagery, with naip_urban/")
    parser.add_argument("--scene", type=int, default=0, help="which of the town's pictures")
    parser.add_argument("--place", type=int, nargs=2, default=PLACE, help="row and column of its first pixel")
    parser.add_argument("-o", "--output", type=Path, default=ROOT / "sample_data" / "sharpened.png")
    options = parser.parse_args()
    part = tuple(slice(first, first + SIDE) for first in options.place)
    with tempfile.TemporaryDirectory() as folder:
        pictures = aerial_pictures(options.data, options.scene + 1)[options.scene :]
        (scene,) = scenes(pictures, "delivered", 4, Path(folder))
        output = Path(folder) / "fused.tif"
        images = [sharpen(scene.pan, [scene.ms], output, method, None)[:3, *part] for method in ("gsa", "ksdiff")]
        with rasterio.open(scene.pan) as pan, rasterio.open(scene.ms) as ms:
            grey = pan.read(1)[part].astype(np.float64)
            rows, cols = (slice(each.start // 4, each.stop // 4 + 1) for each in part)
            coarse = ms.read()[:3, rows, cols].repeat(4, 1).repeat(4, 2)
        coarse = coarse[:, part[0].start % 4 :, part[1].start % 4 :][:, :SIDE, :SIDE].astype(np.float64)
    low, high = (np.percentile(images[1], q, axis=(1, 2))[:, None, None] for q in (1, 99))
    shown = [np.repeat((grey - np.percentile(grey, 1))[None] / np.ptp(np.percentile(grey, (1, 99))), 3, 0)]
    shown += [(image - low) / (high - low) for image in (coarse, *images)]
    panels = [np.clip(image, 0, 1).repeat(ENLARGED, 1).repeat(ENLARGED, 2) for image in shown]
    gap = np.ones((3, panels[0].shape[1], GAP))
    row = np.concatenate([each for panel in panels for each in (gap, panel)][1:], 2)
    Image.fromarray((row * 255).round().astype(np.uint8).transpose(1, 2, 0)).save(options.output, optimize=True)


if __name__ == "__main__":
    main()
