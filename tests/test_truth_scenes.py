"""The cameras of the benchmark at full resolution: MS lie where the georeference says, as sharp as said."""

import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio

from ksdiff_cli import sharpen_scene

sys.path.insert(0, str(Path(__file__).parent / "benchmarks"))
from truth_scenes import BORDER, CAMERAS, Picture, blur, see


def smooth_picture(side: int = 160) -> Picture:
    """Waves longer than all that cameras and upsampling take away."""
    rows, cols = np.mgrid[:side, :side] / side * 2 * np.pi
    bands = np.stack([4000 + 1500 * np.sin(3 * rows + band) * np.cos(2 * cols - band) for band in range(3)])
    return Picture("waves", bands, np.array([0.5, 0.3, 0.2]), 0.6, (500000.0, 4000000.0), "EPSG:26911")


@pytest.mark.parametrize("ratio", [2, 4])
@pytest.mark.parametrize("camera", CAMERAS)
def test_the_georeference_says_where_ms_lies(tmp_path, camera, ratio) -> None:
    scene = see(smooth_picture(), CAMERAS[camera], ratio, tmp_path, seed=3)
    sharpen_scene(scene.pan, scene.ms, output=tmp_path / "up.tif", method="exp", registration="skip")
    with rasterio.open(tmp_path / "up.tif") as file, rasterio.open(scene.pan) as pan, rasterio.open(scene.ms) as ms:
        up = file.read().astype(float)
        offset = [
            (a - b) / ratio / 0.6 % 1 for a, b in ((ms.transform.c, pan.transform.c), (pan.transform.f, ms.transform.f))
        ]
    assert up.shape == scene.truth.shape  # MS cover PAN at any phase
    resampled = CAMERAS[camera].compensation > 0
    assert all((0.01 < part < 0.99) == resampled for part in offset)
    inside = np.s_[:, BORDER:-BORDER, BORDER:-BORDER]
    down, across = (slope[inside].ravel() for slope in np.gradient(scene.truth, axis=(1, 2)))
    shift = np.linalg.lstsq(np.stack([down, across], 1), (up - scene.truth)[inside].ravel(), rcond=None)[0]
    assert np.abs(shift).max() < 0.05  # PAN pixels; a phase left out would be up to half an MS pixel


@pytest.mark.parametrize(("gain", "ratio"), [(0.3, 4), (0.22, 2), (0.15, 1)])
def test_a_blur_leaves_its_gain_at_nyquist(gain, ratio) -> None:
    wave = np.cos(np.pi * np.arange(256) / ratio)
    seen = blur(np.tile(wave, (1, 8, 1)), gain, ratio)[0, 4]
    assert seen[96:160] @ wave[96:160] / (wave[96:160] @ wave[96:160]) == pytest.approx(gain, abs=0.005)
