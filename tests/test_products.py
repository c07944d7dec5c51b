from pathlib import Path
from typing import Any

import numpy as np
import products_maker as maker
import pytest
import rasterio.shutil
from conftest import write_raster
from rasterio.transform import Affine

from ksdiff_cli.errors import KsdiffError
from ksdiff_cli.products import READERS, choose_bands, find_scenes, make_pair
from ksdiff_cli.products.folder import Folder


def blank(path: Path, side: int, bands: int = 1, **profile: Any) -> Path:
    return write_raster(path, np.ones((bands, side, side), "uint16"), **profile)


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


@pytest.mark.parametrize(("pan", "ms"), [("pan.dat", "ms.dat"), ("pan", "ms"), ("a_pan.bsq", "a_ms.bil")])
def test_plain_pair_of_envi(pan: str, ms: str, tmp_path: Path) -> None:
    for name, image in ((pan, blank(tmp_path / "a.tif", 16)), (ms, blank(tmp_path / "b.tif", 4, 3))):
        rasterio.shutil.copy(image, tmp_path / name, driver="ENVI")
        image.unlink()
    (tmp_path / "pan.txt").write_text("no image")
    assert (tmp_path / ms).with_suffix(".hdr").exists()
    (scene,) = find_scenes(tmp_path)
    assert (Path(scene.pan.path).name, Path(scene.ms[0].path).name, len(scene.ms)) == (pan, ms, 3)


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


def test_chosen_bands_take_their_gains_along(tmp_path: Path) -> None:
    pan, ms = str(blank(tmp_path / "pan.tif", 16)), str(blank(tmp_path / "ms.tif", 4, 8))
    chosen = choose_bands(make_pair(pan, [ms], "WV3"), [5, 3, 2])
    assert chosen.sensor.bands == ("red", "green", "blue")
    assert chosen.sensor.ms_gains(3) == (0.365, 0.36, 0.355)
    # a file that names its bands in another order than the sensor's
    named = blank(tmp_path / "named.tif", 4, 4, descriptions=("Red", "Green", "Blue", "NIR"))
    scene = make_pair(pan, [str(named)], "QB")
    assert scene.sensor.bands == ("red", "green", "blue", "nir")
    assert choose_bands(scene, [3]).sensor.mtf_ms == (0.34,)
    # eight gains, four bands without names: nothing says which are which
    four = make_pair(pan, [str(blank(tmp_path / "four.tif", 4, 4))], "WV3")
    assert choose_bands(four, [2, 1]).sensor == four.sensor


def test_every_family_reads_nothing_in_an_empty_folder(tmp_path: Path) -> None:
    assert [family.read(Folder(tmp_path), None) for family in READERS.values()] == [[]] * len(READERS)
    assert list(READERS)[-3:] == ["plain", "bands", "alone"]


def test_products_of_several_families_in_one_folder(tmp_path: Path) -> None:
    maker.landsat(tmp_path / "a")
    maker.maxar(tmp_path / "b")
    maker.gaofen(tmp_path / "c")
    maker.airbus(tmp_path / "d")
    blank(tmp_path / "e/pan.tif", 16)
    blank(tmp_path / "e/ms.tif", 4)
    names = [(scene.name.partition("/")[0], scene.sensor.name) for scene in find_scenes(tmp_path)]
    assert names == [("a", "L8"), ("b", "WV2"), ("c", "GF2"), ("d", "PLEIADES"), ("e", "generic")]


def test_what_cannot_be_sharpened_does_not_hide_what_can(tmp_path: Path) -> None:
    maker.airbus(tmp_path / "pansharpened", spectral=("PMS",))
    maker.landsat(tmp_path / "scene")
    (scene,) = find_scenes(tmp_path)
    assert scene.name == "scene"


@pytest.mark.parametrize(
    ("folder", "sensor", "bands"),
    [
        ("wv3_georef", "generic", 8),
        ("landsat_istanbul", "generic", 3),
    ],
)
def test_real_folders(folder: str, sensor: str, bands: int, real_data: Any) -> None:
    (scene,) = find_scenes(real_data(folder))
    assert (scene.name, scene.sensor.name, len(scene.ms)) == (folder, sensor, bands)
