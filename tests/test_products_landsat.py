"""Landsat products: which bands, which sensor, which flags; on generated products and on real ones."""

from pathlib import Path
from typing import Any

import numpy as np
import products_maker as maker
import pytest
import rasterio
from conftest import write_raster
from products_maker import C1, C1_ETM, C2

from ksdiff_cli.products import find_scenes
from ksdiff_cli.raster.pair import open_pair
from ksdiff_cli.raster.synthesis import GuidedScene

SCENE_ID = "LC80170512015339LGN00"  # before the Collections


def numbers(scene: Any) -> list[str]:
    return [source.path.lower().rpartition("_b")[2].partition(".")[0] for source in (scene.pan, *scene.ms)]


@pytest.mark.parametrize(
    ("product", "sensor", "bands"),
    [
        (C2, "L8", "8 2 3 4 5 6 7"),
        (C1, "L8", "8 2 3 4 5 6 7"),
        ("LC08_L1GT_017051_20151205_20200908_02_T2", "L8", "8 2 3 4 5 6 7"),
        ("LC09_L1TP_017051_20231205_20231205_02_T1", "L9", "8 2 3 4 5 6 7"),
        (C1_ETM, "L7", "8 1 2 3 4 5 7"),
    ],
)
def test_bands_and_sensor(product: str, sensor: str, bands: str, tmp_path: Path) -> None:
    (scene,) = find_scenes(maker.landsat(tmp_path / "product", product))
    assert scene.name == "product"
    assert scene.sensor.name == sensor
    assert numbers(scene) == bands.split()
    assert tuple(source.name for source in scene.ms) == scene.sensor.bands
    assert {source.fill for source in (scene.pan, *scene.ms)} == {0.0}


def test_lower_case_and_names_before_the_collections(tmp_path: Path) -> None:
    folder = maker.landsat(tmp_path, SCENE_ID, mtl="", quality="BQA", suffix=".tif")
    for path in list(folder.iterdir()):
        path.rename(path.with_name(path.name.replace("_B", "_b")))
    (scene,) = find_scenes(folder)
    assert scene.sensor.name == "L8"
    assert numbers(scene) == ["8", "2", "3", "4", "5", "6", "7"]
    assert scene.quality is not None


def test_thermal_bands_and_gap_masks_are_not_ms(tmp_path: Path) -> None:
    bands = ("1", "2", "3", "4", "5", "6_VCID_1", "6_VCID_2", "7", "8")
    folder = maker.landsat(tmp_path, C1_ETM, bands, quality="BQA")
    for band in ("1", "2", "8"):
        (folder / f"{C1_ETM}_GM_B{band}.TIF").write_bytes(b"")
    (scene,) = find_scenes(folder)
    assert numbers(scene) == ["8", "1", "2", "3", "4", "5", "7"]


def test_sensor_from_the_mtl_and_few_bands(tmp_path: Path) -> None:
    folder = maker.landsat(
        tmp_path, "l8", ("2", "3", "4", "6", "8"), mtl='GROUP = X\n SPACECRAFT_ID = "LANDSAT_8"\nEND\n'
    )
    (scene,) = find_scenes(folder)
    assert scene.sensor.name == "L8"
    assert [source.name for source in scene.ms] == ["blue", "green", "red", "swir1"]
    assert scene.sensor.bands == ("blue", "green", "red", "swir1")


def test_sensor_by_hand(tmp_path: Path) -> None:
    (scene,) = find_scenes(maker.landsat(tmp_path, "cut", mtl=""), "l9")
    assert scene.sensor.name == "L9"
    assert len(scene.ms) == 6


def test_two_products_in_one_folder(tmp_path: Path) -> None:
    for product in (C1_ETM, C2):
        maker.landsat(tmp_path, product)
    assert [(scene.name, scene.sensor.name) for scene in find_scenes(tmp_path)] == [(C2, "L8"), (C1_ETM, "L7")]


@pytest.mark.parametrize(
    ("product", "kind", "mtl", "cloudy", "clear"),
    [
        # bits of QA_PIXEL: 1 dilated cloud, 2 cirrus, 3 cloud, 4 cloud shadow; 5 snow, 6 clear, 7 water
        (C2, "QA_PIXEL", None, [1 << 1, 1 << 2, 1 << 3, 1 << 4], [1 << 5, 1 << 6, 1 << 7, 0]),
        # of Collection 1: 4 cloud, 7-8 shadow confidence, 11-12 cirrus confidence; 3 is high
        (C1, "BQA", None, [1 << 4, 3 << 7, 3 << 11], [2720, 1 << 7, 1 << 11, 3 << 9]),
        (C1, "BQA", "", [1 << 4, 3 << 7, 3 << 11], [2720]),
        (C1_ETM, "BQA", None, [1 << 4, 3 << 7], [672, 3 << 9]),
        # before: 12-13 cirrus confidence, 14-15 cloud confidence
        (SCENE_ID, "BQA", "", [3 << 14, 3 << 12, 53248], [20480, 1 << 4, 3 << 10]),
        # nothing says which
        ("cut", "BQA", "", [], [1 << 4, 3 << 14]),
    ],
)
def test_flags(product: str, kind: str, mtl: str | None, cloudy: list[int], clear: list[int], tmp_path: Path) -> None:
    folder = maker.landsat(tmp_path, product, quality=None, mtl=mtl)
    flags = np.full((16, 16), clear[0], "uint16")
    flags[0, : len(cloudy)], flags[1, : len(clear)], flags[2, :3] = cloudy, clear, 1
    write_raster(folder / f"{product}_{kind}.TIF", flags, crs=maker.CRS, transform=maker.grid(30))
    (scene,) = find_scenes(folder, "L8" if product == "cut" else None)
    with open_pair(scene) as pair:
        cloud = pair.read_cloud(0, 0, 16, 16)
        valid = pair.read_ms(0, 0, 16, 16)[1]
    assert cloud[0, : len(cloudy)].all()
    assert cloud.sum() == len(cloudy)
    assert not valid[2, :3].any()
    assert valid.sum() == valid.size - 3


def test_no_quality_band_is_no_fault(tmp_path: Path) -> None:
    (scene,) = find_scenes(maker.landsat(tmp_path, quality=None))
    assert scene.quality is None


def test_sharpen_a_folder_with_chosen_bands(run: Any, tmp_path: Path) -> None:
    folder, out = maker.landsat(tmp_path / "product"), tmp_path / "out.tif"
    result = run("sharpen", folder, "-o", out, "--method", "brovey", "-b", "3,2,1", "-q")
    assert result.exit_code == 0, result.output
    with rasterio.open(out) as made, rasterio.open(folder / f"{C2}_B8.TIF") as pan:
        assert made.descriptions == ("red", "green", "blue")
        assert (made.transform, made.crs, made.shape) == (pan.transform, pan.crs, pan.shape)


@pytest.mark.parametrize(
    ("name", "sensor", "flags"),
    [
        ("landsat8_volcano.tar.gz", "L8", 0),
        ("landsat8_clouds", "L8", 2),
        ("landsat8_tiny", "L8", 3),
        ("landsat7_tiny", "L7", 2),
    ],
)
def test_real_products(name: str, sensor: str, flags: int, real_data: Any, run: Any, tmp_path: Path) -> None:
    (scene,) = find_scenes(real_data(name))
    assert (scene.name, scene.sensor.name, len(scene.ms)) == (name.partition(".")[0], sensor, 6)
    assert (len(scene.quality.cloud) if scene.quality else 0) == flags
    out = tmp_path / "out.tif"
    assert run("sharpen", real_data(name), "-o", out, "--method", "brovey", "-q").exit_code == 0
    with rasterio.open(out) as made, rasterio.open(scene.pan.path) as pan:
        assert (made.bounds, made.crs, made.shape) == (pan.bounds, pan.crs, pan.shape)
        assert made.read().any()


@pytest.mark.parametrize(
    "product", ["LC08_L2SP_017051_20151205_20200908_02_T1", "LC09_L2SP_191031_20220322_20220324_02_T1"]
)
def test_level_2_with_the_surfaces_temperature_is_guided_by_reflectance(product: str, tmp_path: Path) -> None:
    maker.landsat(tmp_path, f"{product}_SR", "1234567", quality=None, mtl="")
    maker.landsat(tmp_path, f"{product}_ST", ("10",), quality=None, mtl="")
    maker.landsat(tmp_path, product, (), quality="QA_PIXEL")
    (scene,) = find_scenes(tmp_path)
    assert isinstance(scene, GuidedScene) and scene.name == tmp_path.name
    assert [source.name for source in scene.guide] == ["blue", "green", "red", "nir", "swir1", "swir2"]
    (group,) = scene.groups
    assert (group.name, [source.name for source in group.bands], group.sensor.bands) == ("thermal", ["tir1"], ("tir1",))
    assert group.quality is not None


def test_landsat_7_has_thermal_bands_too(tmp_path: Path) -> None:
    maker.landsat(tmp_path, C1_ETM, ("1", "2", "3", "4", "5", "7", "8"), quality="BQA")
    maker.landsat(tmp_path, f"{C1_ETM}_B6_VCID", ("1", "2"), quality=None, mtl="")
    for gain in "12":
        (tmp_path / f"{C1_ETM}_B6_VCID_B{gain}.TIF").rename(tmp_path / f"{C1_ETM}_B6_VCID_{gain}.TIF")
    (scene,) = find_scenes(tmp_path)
    ((group,),) = (other.groups for other in scene.others)
    assert [source.name for source in group.bands] == list(group.sensor.bands) == ["tir low gain", "tir high gain"]
    with rasterio.open(group.bands[0].path) as dataset:
        assert dataset.shape == (8, 8)  # of 60 m


@pytest.mark.parametrize("flags", [True, False])
def test_the_charters_packing_of_level_1(flags: bool, tmp_path: Path) -> None:
    name, inner = "LS081920352021070800000000MS00", tmp_path / "vendor_metadata"
    maker.landsat(tmp_path, name, quality=None, mtl="")
    for path in tmp_path.glob("*_B?.TIF"):
        path.rename(path.with_name(path.name.replace("_B", "_B0")))
    inner.mkdir()
    maker.landsat(inner, C1, (), quality="BQA" if flags else None)
    (scene,) = find_scenes(tmp_path)
    assert (scene.sensor.name, numbers(scene)) == ("L8", ["08", "02", "03", "04", "05", "06", "07"])
    assert (len(scene.quality.cloud) if scene.quality else None) == (3 if flags else None)
