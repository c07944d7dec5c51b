"""Make sample_data/sharpened.png: PAN | MS upsampled | sharpened, a crop of sample_data/wv3, with the shipped weights.

python tests/benchmarks/readme_picture.py
"""

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import rasterio

ROOT = Path(__file__).parents[2]
CROP = (slice(None), slice(60, 360), slice(90, 390))
RGB = [4, 2, 1]


def sharpened(method: str, folder: Path) -> np.ndarray:
    output = folder / f"{method}.tif"
    inputs = [str(ROOT / "sample_data" / "wv3" / name) for name in ("pan.tif", "ms.tif")]
    command = [sys.executable, "-m", "ksdiff_cli", "sharpen", *inputs, "-o", str(output), "--method", method, "-q"]
    subprocess.run(command, check=True, cwd=ROOT)
    with rasterio.open(output) as file:
        return file.read()[RGB][CROP].astype(np.float64)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        up, fused = sharpened("exp", Path(folder)), sharpened("ksdiff", Path(folder))
    with rasterio.open(ROOT / "sample_data" / "wv3" / "pan.tif") as file:
        pan = np.repeat(file.read()[CROP], 3, 0).astype(np.float64)
    low, high = (np.percentile(fused, q, axis=(1, 2))[:, None, None] for q in (1, 99))
    shown = [(pan - np.percentile(pan, 1)) / np.ptp(np.percentile(pan, (1, 99)))]
    shown += [(image - low) / (high - low) for image in (up, fused)]
    gap = np.ones((3, CROP[1].stop - CROP[1].start, 6))
    row = np.concatenate([shown[0], gap, shown[1], gap, shown[2]], 2)
    values = (np.clip(row, 0, 1) * 255).astype(np.uint8).repeat(1, 1)
    profile = {"driver": "PNG", "count": 3, "height": values.shape[1], "width": values.shape[2], "dtype": "uint8"}
    with rasterio.open(ROOT / "sample_data" / "sharpened.png", "w", **profile) as file:
        file.write(values)
    (ROOT / "sample_data" / "sharpened.png.aux.xml").unlink(missing_ok=True)


if __name__ == "__main__":
    main()
