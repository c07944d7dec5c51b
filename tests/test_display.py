"""The result for display: which bands, between which percentiles, transparent where, and when it is refused."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from conftest import write_raster
from rasterio.enums import ColorInterp
from rasterio.transform import Affine

from ksdiff_cli.sharpening import display
from ksdiff_cli.sharpening.display import write_display

RED, GREEN, BLUE, ALPHA = ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha


def shown(path: Path, bands: Any, folder: Path, **profile: Any) -> tuple[Any, Any]:
    write_display(write_raster(path, bands, **profile), folder / "rgb.tif")
    assert not list(folder.glob(".*"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with rasterio.open(folder / "rgb.tif") as dataset:
            assert dataset.colorinterp == (RED, GREEN, BLUE, ALPHA) and set(dataset.dtypes) == {"uint8"}
            return dataset.read().astype(int), dataset.tags()


@pytest.mark.parametrize("dtype", ["uint16", "int16", "float32"])
def test_bands_by_name_between_percentiles_of_all_valid_pixels(dtype: str, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(display, "_ROWS", 7)
    random = np.random.default_rng(0)
    bands = (random.gamma(3, 100, (4, 60, 50)) + 1).round().astype(dtype)
    bands[:, :10, :20] = 0
    names = ("blue", "nir", "green", "red")
    found, tags = shown(tmp_path / "a.tif", bands, tmp_path, nodata=0, descriptions=names)
    valid = bands[0] != 0
    assert np.array_equal(found[3], 255 * valid) and not found[:3, ~valid].any()
    for level, number, span in zip(found[:3], (3, 2, 0), tags["KSDIFF_STRETCH"].split(), strict=True):
        low, high = np.percentile(bands[number][valid], (2, 98), method="inverted_cdf")
        assert [float(end) for end in span.split(":")] == pytest.approx([low, high], abs=1e-2)
        expected = 255 * np.clip((bands[number].astype(float) - low) / (high - low), 0, 1)
        assert np.abs(level - np.where(valid, expected, 0)).max() <= 0.51


def test_grey_constant_and_empty_images(tmp_path: Path) -> None:
    grey, _ = shown(tmp_path / "a.tif", np.arange(600, dtype="uint16").reshape(1, 20, 30), tmp_path)
    assert np.array_equal(grey[0], grey[1]) and np.array_equal(grey[0], grey[2]) and len(np.unique(grey[0])) == 256
    flat, _ = shown(tmp_path / "b.tif", np.full((3, 20, 30), 7, "uint8"), tmp_path)
    assert not flat[:3].any() and (flat[3] == 255).all()
    empty, _ = shown(tmp_path / "c.tif", np.full((3, 20, 30), np.nan, "float32"), tmp_path, nodata=float("nan"))
    assert not empty.any()


def test_on_the_grid_of_the_result_in_one_go(run: Any, make_pair: Any, tmp_path: Path) -> None:
    def dig(pan: Any, ms: Any) -> None:
        pan[:, :16, :16] = 0

    files = make_pair(size=(96, 128), edit=dig, pan_profile={"nodata": 0}, ms_profile={"nodata": 0})
    words = (
        "sharpen",
        files.pan,
        files.ms,
        "-o",
        tmp_path / "out.tif",
        "--method",
        "gs",
        "--rgb",
        tmp_path / "rgb.tif",
    )
    assert run(*words, "-q").exit_code == 0
    with rasterio.open(tmp_path / "out.tif") as made, rasterio.open(tmp_path / "rgb.tif") as picture:
        assert (picture.crs, picture.transform, picture.shape) == (made.crs, made.transform, made.shape)
        assert picture.tags()["KSDIFF_METHOD"] == "gs"
        assert np.array_equal(picture.read(4), made.read_masks(1)) and not picture.read(4)[:16, :16].any()
    assert "out.tif: exists already" in run(*words, "-q").stderr
    assert run(*words, "-q", "--overwrite").exit_code == 0


@pytest.mark.parametrize(
    ("name", "told"),
    [("rgb.png", "let its name end in .tif"), ("out.tif", "is named twice"), ("pan.tif", "is one of the inputs")],
)
def test_refused_before_any_work(name: str, told: str, fails: Any, make_pair: Any) -> None:
    files = make_pair()
    line = fails(
        "sharpen", files.pan, files.ms, "-o", files.folder / "out.tif", "--rgb", files.folder / name, "--method", "exp"
    )
    assert name in line and told in line and not (files.folder / "out.tif").exists()


def test_an_image_without_georeference_stays_so(tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(1, 99, (3, 20, 30), dtype="uint8")
    shown(tmp_path / "a.tif", image, tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with rasterio.open(tmp_path / "rgb.tif") as dataset:
            assert dataset.crs is None and dataset.transform == Affine.identity()
