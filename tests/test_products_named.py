"""Families whose names alone tell PAN from MS, and cameras without a pair: what is found, or the one line said."""

from pathlib import Path
from typing import Any

import numpy as np
import products_maker as maker
import pytest
import rasterio
from conftest import write_raster
from families_maker import DELIVERIES, Delivery, dimap_1

from ksdiff_cli.errors import KsdiffError
from ksdiff_cli.products import find_scenes
from ksdiff_cli.raster.pair import open_pair

every_delivery = pytest.mark.parametrize("delivery", DELIVERIES.values(), ids=DELIVERIES)


@every_delivery
def test_pan_ms_sensor_and_grid_are_found(delivery: Delivery, tmp_path: Path) -> None:
    delivery.write(tmp_path)
    (scene,) = find_scenes(tmp_path)
    assert Path(scene.pan.path) == tmp_path / delivery.pan
    assert scene.sensor.name == delivery.sensor
    assert tuple(source.name for source in scene.ms) == tuple(delivery.bands)
    assert [Path(source.path) for source in scene.ms] == [
        tmp_path / name for name, count in delivery.ms.items() for _ in range(count)
    ]
    if delivery.sensor != "generic":
        assert scene.sensor.bands == tuple(delivery.bands)  # with its gains and wavelengths in that order
    assert all(source.fill == 0 for source in scene.sources())
    with open_pair(scene) as pair:
        assert pair.grid.ratio == delivery.ratio and pair.located and not pair.notes


@every_delivery
@pytest.mark.parametrize("missing", ["PAN", "MS"])
def test_half_a_pair_is_said_in_one_line(missing: str, delivery: Delivery, tmp_path: Path) -> None:
    delivery.write(tmp_path)
    for name in [delivery.pan] if missing == "PAN" else delivery.ms:
        (tmp_path / name).unlink()
    with pytest.raises(KsdiffError, match=f"whose {missing} is not here; put both into one folder") as caught:
        find_scenes(tmp_path)
    assert "\n" not in str(caught.value)


@every_delivery
def test_an_empty_image_is_named(delivery: Delivery, tmp_path: Path) -> None:
    delivery.write(tmp_path)
    (tmp_path / delivery.pan).write_bytes(b"")
    with pytest.raises(KsdiffError, match=Path(delivery.pan).name.replace("+", r"\+")) as caught:
        find_scenes(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["GEOSAT-2", "Vision-1 bundle", "BKA"])
@pytest.mark.parametrize(("change", "words"), [("cut", "is not whole XML"), ("bands", "names .* bands")])
def test_metadata_that_is_broken_or_contradicts_the_image(change: str, words: str, name: str, tmp_path: Path) -> None:
    delivery = DELIVERIES[name]
    delivery.write(tmp_path)
    for path, text in delivery.texts.items():
        last = max(text.rfind("<Spectral_Band_Info>"), text.rfind("<Band_MS4>"))
        end = text.find("</Image_Interpretation>" if "Image_Int" in text else "</Spectral>")
        (tmp_path / path).write_text(text[:last] + text[end:] if change == "bands" else text[: len(text) // 2])
    with pytest.raises(KsdiffError, match=words):
        find_scenes(tmp_path)


def test_one_broken_scene_does_not_stop_a_folder(tmp_path: Path) -> None:
    DELIVERIES["KOMPSAT-3A"].write(tmp_path / "a")
    DELIVERIES["CAS500-1"].write(tmp_path / "b")
    DELIVERIES["Kanopus-V"].write(tmp_path / "c")
    DELIVERIES["CAS500-1"].write(tmp_path / "c")
    (tmp_path / "b" / DELIVERIES["CAS500-1"].pan).write_bytes(b"")
    (tmp_path / "c" / DELIVERIES["Kanopus-V"].pan).write_bytes(b"")
    left_out: list[KsdiffError] = []
    found = find_scenes(tmp_path, left_out=left_out)
    assert [scene.sensor.name for scene in found] == ["K3A", "CAS500"]
    assert [str(error).partition(":")[0].rpartition("/")[2] for error in left_out] == [
        Path(DELIVERIES[name].pan).name for name in ("CAS500-1", "Kanopus-V")
    ]
    with pytest.raises(KsdiffError, match="C1_2023"):  # who asks for one scene is told
        find_scenes(tmp_path)


def test_tiles_of_one_image_are_not_taken_for_bands(tmp_path: Path) -> None:
    for role, count, pixel in (("PAN", 1, 1.0), ("MS4", 4, 4.0)):
        for tile in ("R1C1", "R1C2"):
            maker.write(tmp_path / f"VIS1_{role}_20200722023318_ORT_103280_14e5_{tile}.tif", pixel, 16, 16, count)
    with pytest.raises(KsdiffError, match=r"holds the same band as .*R1C1.tif; join tiles first"):
        find_scenes(tmp_path)


def test_pan_in_the_pixels_of_ms_is_refused(tmp_path: Path) -> None:
    maker.write(tmp_path / "20200814_162132_ssc4_u0001_panchromatic.tif", 0.5, 16, 16)
    maker.write(tmp_path / "20200814_162132_ssc4_u0001_analytic.tif", 0.5, 16, 16, 4)
    with pytest.raises(KsdiffError, match="cannot get any finer"):
        find_scenes(tmp_path)


def test_two_deliveries_beside_their_parts(tmp_path: Path) -> None:
    for name in ("GEOSAT-2", "GEOSAT-2, folders, another order"):
        DELIVERIES[name].write(tmp_path)
    assert [scene.ms[0].name for scene in find_scenes(tmp_path)] == ["red", "nir"]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("AMAZONIA_1_WFI_20220811_036_018_L4_BAND2.tif", "Amazonia-1 takes MS only"),
        ("CBERS_4_MUX_20201031_003_073_L2_BAND5.tif", "CBERS: each takes MS only"),
        ("CBERS_4A_WFI_20200801_221_156_L4_LEFT_BAND15.tif", "CBERS: each takes MS only"),
        ("CBERS_4_PAN_20240404_158_133_L4__bgrnir_psharp.tif", "composed already"),
        ("VRSS-1_WMC-1_0560_0174_20210225_L2B_226131337732_1.tif", "WMC of VRSS-1 takes MS only"),
        ("GF4_PMS_E80.6_N8.0_20211121_L1A0000439105.tiff", "GF-4 takes PAN and MS in pixels of one size"),
        ("AB0009e5_001_MUL_L1T.tif", "without PAN"),
        ("20240314_172620_SN30_L1_SR_MS_0.tif", "NewSat takes MS only"),
        ("BAND_META.txt", "LISS cameras"),
        ("203660031_P_MET.TXT", "CartoSat-2, without MS"),
        ("BSG-108-20210902-213556-11999279_ortho.tif", "nothing to sharpen"),
        ("fr_0041_0102_29455_1_09572_07_ORT_S_8bit.tiff", "Resurs-P"),
        ("K3_20201221013934_45861_11950876_L1G_PB.tiff", "pan-sharpened already"),
        ("VIS1_PMS4_20200722023318_ORT_103280_14e5_R1C1.jp2", "pan-sharpened already"),
        ("LC80100202015018LGN00_MTL.txt", "describes an image that is not here"),
    ],
)
def test_cameras_without_a_pair_get_a_line_of_their_own(name: str, words: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("SPACECRAFT_ID = LANDSAT_8\n")
    with pytest.raises(KsdiffError, match=words) as caught:
        find_scenes(tmp_path)
    assert name in str(caught.value) and "\n" not in str(caught.value)


def test_a_pair_that_people_made_goes_before_that_line(tmp_path: Path) -> None:
    maker.write(tmp_path / "pan.tif", 1.0, 64, 64)
    maker.write(tmp_path / "ms.tif", 4.0, 16, 16, 3)
    write_raster(tmp_path / "AMAZONIA_1_WFI_20220811_036_018_L4_BAND2.tif", np.ones((1, 4, 4), "uint8"))
    (scene,) = find_scenes(tmp_path)
    assert Path(scene.pan.path).name == "pan.tif"


@pytest.mark.parametrize(
    ("scene", "kinds", "sensor"),
    [
        ("GF6_PMS_E110.9_N30.2_20190610_L1A1119882000", ("PAN", "MUX"), "GF6"),
        ("GF7_DLC_E116.5_N39.9_20200101_L1L0000012345", ("BWDPAN", "BWDMUX"), "GF7"),
        ("GF1B_PMS_E116.5_N39.9_20200101_L1A1227012345", ("PAN", "MUX"), "GF1"),
    ],
)
def test_gaofen_by_naming(scene: str, kinds: tuple[str, str], sensor: str, tmp_path: Path) -> None:
    for kind, size, count in zip(kinds, (64, 16), (1, 4), strict=True):
        maker.write(tmp_path / f"{scene}-{kind}.tiff", 1.0, size, size, count, on_map=False)
    maker.write(tmp_path / f"{scene}-FWDPAN.tiff", 1.0, 60, 60, on_map=False)
    (found,) = find_scenes(tmp_path)
    assert (found.sensor.name, Path(found.pan.path).name) == (sensor, f"{scene}-{kinds[0]}.tiff")
    assert [band.name for band in found.ms] == ["blue", "green", "red", "nir"]


@pytest.mark.parametrize("top", ["", "VOL_PER1_ORT_001_000041"])
def test_perusat_by_the_tiffs_beside_its_dim_files(top: str, tmp_path: Path) -> None:
    delivery = tmp_path / "DS_PER1_201703071506576"
    inner = delivery / "VOL_PER1_ORT_001_000041"
    maker.airbus(inner, "PER", "1")
    for dim in inner.glob("*/DIM_*.XML"):  # which GDAL does not open
        dim.write_text(dim.read_text().replace("<METADATA_PROFILE>PER_ORTHO", "<METADATA_PROFILE>PER1_ORTHO"))
    (scene,) = find_scenes(delivery / top)
    assert scene.sensor.name == "PERUSAT1" and [band.name for band in scene.ms] == ["red", "green", "blue", "nir"]
    assert {Path(source.path).suffix for source in scene.sources()} == {".TIF"}
    with open_pair(scene) as pair:
        assert pair.grid.ratio == 4 and pair.crs == maker.CRS


def test_a_dimap_1_file_does_not_stop_dimap_2(tmp_path: Path) -> None:
    maker.airbus(tmp_path)
    (tmp_path / "DIM_VIS1_PAN_20210114224140_ORTP_S105354_1e08_Meta.xml").write_text(dimap_1(("PAN",), "x.tif"))
    (scene,) = find_scenes(tmp_path)
    assert scene.sensor.name == "PLEIADES"


def test_the_real_pair_of_cbers_4a_is_found_shifted_and_corrected(real_data: Any, run: Any, tmp_path: Path) -> None:
    folder = real_data("cbers4a_wpm")
    (scene,) = find_scenes(folder, "CBERS4A")
    shifts = {}
    for name, more in (("as_it_is", ()), ("corrected", ("--register",))):
        words = ("sharpen", folder, "-o", tmp_path / f"{name}.tif", "--method", "gs", "-q", *more)
        assert run(*words).exit_code == 0
        with rasterio.open(tmp_path / f"{name}.tif") as made:
            shifts[name] = [float(value) for value in made.tags().get("KSDIFF_SHIFT", "0 0").split()]
    assert shifts["as_it_is"] == [0, 0]
    assert shifts["corrected"] == pytest.approx([-0.8, 0], abs=0.1)  # MS pixels
    assert len(scene.ms) == 3
