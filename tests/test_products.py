from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import write_raster
from rasterio.transform import Affine

from ksdiff_cli.errors import KsdiffError
from ksdiff_cli.products import choose_bands, find_scenes, make_pair


def blank(path: Path, side: int, bands: int = 1, **profile: Any) -> Path:
    return write_raster(path, np.ones((bands, side, side), "uint16"), **profile)


def landsat(
    folder: Path, name: str = "LC08_L1TP_017051_20151205_20200908_02_T1_B{}.TIF", bands: str = "123456789"
) -> Path:
    for band in bands:
        blank(folder / name.format(band), 16 if band == "8" else 8)
    blank(folder / name.format("10"), 8)
    blank(folder / name.format("QA"), 8)
    return folder


@pytest.mark.parametrize(
    ("name", "sensor", "ms"),
    [
        ("LC08_L1TP_017051_20151205_20200908_02_T1_B{}.TIF", "L8", "234567"),
        ("LC09_L1TP_017051_20231205_20231205_02_T1_B{}.tif", "L9", "234567"),
        ("LE07_L1TP_195025_20010730_20170204_01_T1_B{}.TIF", "L7", "123457"),
        ("LC80170512015339LGN00_b{}.TIFF", "L8", "234567"),
    ],
)
def test_landsat_folder(name: str, sensor: str, ms: str, tmp_path: Path) -> None:
    (scene,) = find_scenes(landsat(tmp_path / "product", name))
    assert scene.name == "product"
    assert scene.sensor.name == sensor
    assert scene.pan.path.lower().split("_b")[-1].startswith("8.")
    assert "".join(source.path.lower().split("_b")[-1][0] for source in scene.ms) == ms
    assert tuple(source.name for source in scene.ms) == scene.sensor.bands
    assert {source.fill for source in (scene.pan, *scene.ms)} == {0.0}


def test_landsat_sensor_from_mtl_and_missing_bands(tmp_path: Path) -> None:
    folder = landsat(tmp_path, "l8_B{}.tif", "23468")
    (folder / "l8_MTL.txt").write_text('GROUP = X\n    SPACECRAFT_ID = "LANDSAT_8"\nEND\n')
    (scene,) = find_scenes(folder)
    assert scene.sensor.name == "L8"
    assert [source.name for source in scene.ms] == ["blue", "green", "red", "swir1"]


def test_landsat_sensor_by_hand(tmp_path: Path) -> None:
    folder = landsat(tmp_path, "cut_B{}.tif")
    (scene,) = find_scenes(folder, "l9")
    assert scene.sensor.name == "L9"
    assert len(scene.ms) == 6


def test_two_landsat_products_in_one_folder(tmp_path: Path) -> None:
    landsat(tmp_path, "LC08_A_B{}.TIF")
    landsat(tmp_path, "LE07_B_B{}.TIF")
    assert [(scene.name, scene.sensor.name) for scene in find_scenes(tmp_path)] == [("LC08_A", "L8"), ("LE07_B", "L7")]


@pytest.mark.parametrize(
    ("pan", "ms"),
    [
        ("pan.tif", "ms.tif"),
        ("PAN.TIF", "MUL.TIF"),
        ("wv3_pan_01.tif", "wv3_mul_01.tif"),
        ("a-Pan1.tiff", "a-MSS1.tiff"),
    ],
)
def test_plain_pair_by_name(pan: str, ms: str, tmp_path: Path) -> None:
    blank(tmp_path / pan, 16)
    blank(tmp_path / ms, 4, 3, descriptions=("red", "green", "blue"))
    blank(tmp_path / "truth.tif", 16, 3)
    (scene,) = find_scenes(tmp_path, "WV3")
    assert Path(scene.pan.path).name == pan
    assert [(Path(source.path).name, source.band, source.name) for source in scene.ms] == [
        (ms, 1, "red"),
        (ms, 2, "green"),
        (ms, 3, "blue"),
    ]
    assert scene.sensor.name == "WV3"


def test_plain_pair_of_single_band_files(tmp_path: Path) -> None:
    blank(tmp_path / "pan.tif", 16)
    for name in ("ms_1.tif", "ms_2.tif", "ms_3.tif"):
        blank(tmp_path / name, 4)
    (scene,) = find_scenes(tmp_path)
    assert [source.name for source in scene.ms] == ["ms_1", "ms_2", "ms_3"]


def test_plain_pair_by_resolution(tmp_path: Path) -> None:
    blank(tmp_path / "b.tif", 16)
    blank(tmp_path / "a.tif", 4, 3)
    (tmp_path / "notes.tif").write_text("no raster")
    (scene,) = find_scenes(tmp_path)
    assert Path(scene.pan.path).name == "b.tif"
    assert len(scene.ms) == 3


def test_plain_pair_by_pixel_size_not_by_pixel_count(tmp_path: Path) -> None:
    blank(tmp_path / "wide.tif", 16, 3, crs="EPSG:32631", transform=Affine(2, 0, 0, 0, -2, 0))
    blank(tmp_path / "cut.tif", 8, 1, crs="EPSG:32631", transform=Affine(0.5, 0, 0, 0, -0.5, 0))
    (scene,) = find_scenes(tmp_path)
    assert Path(scene.pan.path).name == "cut.tif"


def test_folder_of_folders_is_sorted_and_named_by_path(tmp_path: Path) -> None:
    for name in ("b", "a/two", "a/one"):
        blank(tmp_path / name / "pan.tif", 16)
        blank(tmp_path / name / "ms.tif", 4)
    blank(tmp_path / "x/y/z/pan.tif", 16)
    blank(tmp_path / "x/y/z/ms.tif", 4)
    assert [scene.name for scene in find_scenes(tmp_path)] == ["a/one", "a/two", "b"]


def test_what_is_no_scene_is_said(tmp_path: Path) -> None:
    with pytest.raises(KsdiffError, match="no scene found") as caught:
        find_scenes(tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert "Landsat" in str(caught.value)
    assert "pan.tif" in str(caught.value)
    landsat(tmp_path / "level2", "LC08_L2SP_017051_20151205_02_T1_SR_B{}.TIF", "1234567")
    with pytest.raises(KsdiffError, match="no scene found"):
        find_scenes(tmp_path)
    with pytest.raises(KsdiffError, match="no such folder"):
        find_scenes(tmp_path / "nowhere")
    with pytest.raises(KsdiffError, match="no sensor is called"):
        find_scenes(tmp_path, "WV9")


def test_ambiguous_names_are_refused(tmp_path: Path) -> None:
    blank(tmp_path / "one_pan.tif", 16)
    blank(tmp_path / "two_pan.tif", 16)
    blank(tmp_path / "ms.tif", 4)
    with pytest.raises(KsdiffError, match="could be PAN"):
        find_scenes(tmp_path)


def test_bands_are_chosen_by_number(tmp_path: Path) -> None:
    scene = make_pair(str(blank(tmp_path / "pan.tif", 16)), [str(blank(tmp_path / "ms.tif", 4, 4))])
    assert [source.band for source in choose_bands(scene, [4, 1]).ms] == [4, 1]
    assert choose_bands(scene, []) is scene
    with pytest.raises(KsdiffError, match="no MS band 5"):
        choose_bands(scene, [5])


@pytest.mark.parametrize(
    ("folder", "sensor", "bands"),
    [
        ("landsat8_volcano", "L8", 6),
        ("landsat8_clouds", "L8", 6),
        ("landsat8_tiny", "L8", 6),
        ("landsat7_tiny", "L7", 6),
        ("wv3_georef", "generic", 8),
        ("landsat_istanbul", "generic", 3),
    ],
)
def test_real_folders(folder: str, sensor: str, bands: int, real_data: Any) -> None:
    (scene,) = find_scenes(real_data(folder))
    assert (scene.name, scene.sensor.name, len(scene.ms)) == (folder, sensor, bands)
