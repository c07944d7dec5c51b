"""Airbus DIMAP 2 bundles and GaoFen level-1A products."""

from pathlib import Path
from typing import Any

import numpy as np
import products_maker as maker
import pytest
import rasterio

from ksdiff_cli.products import find_scenes
from ksdiff_cli.sensors import SENSORS


@pytest.mark.parametrize(
    ("mission", "index", "sensor"),
    [("PHR", "1A", "PLEIADES"), ("PHR", "1B", "PLEIADES"), ("SPOT", "6", "SPOT6"), ("SPOT", "7", "SPOT6")],
)
def test_missions(mission: str, index: str, sensor: str, tmp_path: Path) -> None:
    (scene,) = find_scenes(maker.airbus(tmp_path / "bundle", mission, index))
    assert (scene.name, scene.sensor.name) == ("bundle", sensor)
    # the files hold B2, B1, B0, B3
    assert [source.name for source in scene.ms] == ["red", "green", "blue", "nir"]
    assert scene.sensor.bands == ("red", "green", "blue", "nir")
    assert scene.sensor.wavelengths[0] == SENSORS[sensor].wavelengths[SENSORS[sensor].bands.index("red")]
    assert {source.fill for source in (scene.pan, *scene.ms)} == {0.0}


def test_the_band_index_goes_before_the_order_of_display(tmp_path: Path) -> None:
    folder = maker.airbus(tmp_path)
    (dim,) = folder.glob("IMG_*_MS_*/DIM_*.XML")
    listed = "".join(
        f"<Raster_Index><BAND_ID>B{band}</BAND_ID><BAND_INDEX>{band + 1}</BAND_INDEX></Raster_Index>"
        for band in range(4)
    )
    text = dim.read_text()
    dim.write_text(
        text.replace("<Band_Display_Order>", f"<Raster_Index_List>{listed}</Raster_Index_List><Band_Display_Order>")
    )
    (scene,) = find_scenes(folder)
    assert [source.name for source in scene.ms] == ["blue", "green", "red", "nir"]


def test_three_channels_of_four_bands(tmp_path: Path) -> None:
    folder = maker.airbus(tmp_path)
    (dim,) = folder.glob("IMG_*_MS_*/DIM_*.XML")
    dim.write_text(dim.read_text().replace("<ALPHA_CHANNEL>B3</ALPHA_CHANNEL>", ""))
    (scene,) = find_scenes(folder)
    assert [source.name for source in scene.ms] == ["red", "green", "blue", "nir"]


def test_tiles_are_joined(tmp_path: Path) -> None:
    (scene,) = find_scenes(maker.airbus(tmp_path, tiles=2))
    for source, pixel, size, bands in ((scene.pan, 0.5, 64, 1), (scene.ms[0], 2.0, 16, 4)):
        with rasterio.open(source.path) as joined:
            assert np.array_equal(joined.read(), maker.ground(pixel, size, size, bands))
            assert joined.transform == maker.grid(pixel)
            assert joined.crs == maker.CRS


def test_stereo_images_are_paired_by_time(tmp_path: Path) -> None:
    maker.airbus(tmp_path, time="10:25:49.8")
    for folder in sorted(tmp_path.glob("IMG_*")):
        folder.rename(folder.with_name(folder.name + "_first"))
    maker.airbus(tmp_path, time="10:26:11.3")
    scenes = find_scenes(tmp_path)
    assert len(scenes) == 2
    for scene in scenes:
        stamp = scene.name.split("_")[2]
        assert stamp in scene.pan.path
        assert stamp in scene.ms[0].path


def test_folders_that_hold_pan_and_ms_are_products_by_themselves(tmp_path: Path) -> None:
    for name in ("a", "b"):  # of one time
        maker.airbus(tmp_path / name)
        for path in (tmp_path / name).glob("IMG_*/*"):
            path.rename(tmp_path / name / path.name)
    assert [scene.name for scene in find_scenes(tmp_path)] == ["a", "b"]


def test_pleiades_neo_holds_two_files_of_three_bands(tmp_path: Path) -> None:
    maker.airbus(tmp_path, "PNEO", "3", spectral=("P",))
    folder = tmp_path / "IMG_MS"
    for name in ("RGB", "NED"):
        maker.write(folder / f"IMG_{name}_R1C1.TIF", 2, 16, 16, 3)
    blocks = "</Data_Files><Data_Files>".join(
        f'<Data_File tile_R="1" tile_C="1"><DATA_FILE_PATH href="IMG_{name}_R1C1.TIF"/></Data_File><Raster_Display>'
        "<Raster_Index_List>"
        + "".join(
            f"<Raster_Index><BAND_ID>{band}</BAND_ID><BAND_INDEX>{index}</BAND_INDEX></Raster_Index>"
            for index, band in enumerate(bands, start=1)
        )
        + "</Raster_Index_List></Raster_Display>"
        for name, bands in (("RGB", ("R", "G", "B")), ("NED", ("NIR", "RE", "DB")))
    )
    text = maker.dim_text("PNEO", "3", "MS-FS", ("R",) * 6, 16, 16, 1, blocks, 2, "10:25:49.8")
    (folder / "DIM_PNEO3_MS-FS.XML").write_text(text)
    (scene,) = find_scenes(tmp_path)
    assert [source.name for source in scene.ms] == ["red", "green", "blue", "nir", "red edge", "deep blue"]
    assert scene.sensor.name == "PNEO"


def test_sharpen_a_bundle(run: Any, tmp_path: Path) -> None:
    out = tmp_path / "out.tif"
    result = run("sharpen", maker.airbus(tmp_path / "bundle", tiles=2), "-o", out, "--method", "brovey", "-q")
    assert result.exit_code == 0, result.output
    with rasterio.open(out) as made:
        assert made.descriptions == ("red", "green", "blue", "nir")
        assert (made.transform, made.crs, made.shape) == (maker.grid(0.5), maker.CRS, (64, 64))
        # Brovey keeps MS's level: red is the lowest band of the file, nir the highest
        assert list(np.argsort(made.read().mean((1, 2)))) == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("scene", "camera", "ms", "sensor"),
    [
        ("GF2_PMS1_E116.5_N39.9_20160101_L1A0001234567", "1", "MSS", "GF2"),
        ("GF1_PMS2_E113.5_N23.5_20140512_L1A0000223344", "2", "MSS", "GF1"),
        ("GF1B_PMS_E113.5_N23.5_20190512_L1A1227581234", "", "MUX", "GF1"),
    ],
)
def test_gaofen(scene: str, camera: str, ms: str, sensor: str, tmp_path: Path) -> None:
    (found,) = find_scenes(maker.gaofen(tmp_path, scene, camera, ms))
    assert (found.name, found.sensor.name) == (scene, sensor)
    assert [source.name for source in found.ms] == ["blue", "green", "red", "nir"]
    assert Path(found.pan.path).name == f"{scene}-PAN{camera}.tiff"


def test_gaofen_without_xml_and_two_cameras(tmp_path: Path) -> None:
    for camera in ("1", "2"):
        maker.gaofen(tmp_path, f"GF2_PMS{camera}_E116.5_N39.9_20160101_L1A0001234567", camera)
    for path in tmp_path.glob("*.xml"):
        path.unlink()
    assert [scene.name.split("_")[1] for scene in find_scenes(tmp_path)] == ["PMS1", "PMS2"]


def test_sharpen_gaofen_keeps_the_rpcs(run: Any, tmp_path: Path) -> None:
    out = tmp_path / "out.tif"
    result = run("sharpen", maker.gaofen(tmp_path / "scene"), "-o", out, "--method", "brovey", "-q")
    assert result.exit_code == 0, result.output
    with rasterio.open(out) as made:
        assert made.shape == (64, 64)
        assert made.descriptions == ("blue", "green", "red", "nir")
        assert made.rpcs.line_off == 32
