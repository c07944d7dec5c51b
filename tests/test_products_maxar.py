"""Maxar deliveries: PAN and MS in sibling folders, tiles joined, bands named by the IMD."""

from pathlib import Path
from typing import Any

import numpy as np
import products_maker as maker
import pytest
import rasterio
from products_maker import EIGHT, FOUR

from ksdiff_cli.errors import KsdiffError
from ksdiff_cli.options.patches import PatchOptions
from ksdiff_cli.patches.plan import plan_patches
from ksdiff_cli.products import find_scenes
from ksdiff_cli.sensors import SENSORS


@pytest.mark.parametrize(
    ("satellite", "bands", "sensor"),
    [
        ("WV02", EIGHT, "WV2"),
        ("WV03", EIGHT, "WV3"),
        ("WV04", FOUR, "WV4"),
        ("QB02", FOUR, "QB"),
        ("GE01", FOUR, "GE1"),
        ("IK01", FOUR, "IKONOS"),
    ],
)
def test_satellites(satellite: str, bands: tuple[str, ...], sensor: str, tmp_path: Path) -> None:
    (scene,) = find_scenes(maker.maxar(tmp_path, satellite, bands))
    assert scene.sensor == SENSORS[sensor]
    assert tuple(source.name for source in scene.ms) == SENSORS[sensor].bands
    assert scene.name == f"{maker.ORDER}_P001"
    assert Path(scene.pan.path).name == f"10JAN03101112-P2AS-{maker.ORDER}_P001.TIF"
    assert scene.pan.fill == 0


def test_four_of_eight_bands_take_their_own_gains(tmp_path: Path) -> None:
    (scene,) = find_scenes(maker.maxar(tmp_path, "WV03", FOUR, band_id="MS1"))
    assert [source.name for source in scene.ms] == ["blue", "green", "red", "nir1"]
    whole = SENSORS["WV3"]
    assert scene.sensor.ms_gains(4) == tuple(whole.mtf_ms[whole.bands.index(one.name)] for one in scene.ms)


def test_a_band_id_that_spells_bands_gives_their_order(tmp_path: Path) -> None:
    (scene,) = find_scenes(maker.maxar(tmp_path, "QB02", ("B", "G", "R"), band_id="RGB"))
    assert [source.name for source in scene.ms] == ["red", "green", "blue"]


def test_tiles_are_joined_where_the_til_says(tmp_path: Path) -> None:
    delivery = maker.maxar(tmp_path, pan_tiles=2, ms_tiles=2)
    (scene,) = find_scenes(delivery)
    for source, pixel, size, bands in ((scene.pan, 0.5, 64, 1), (scene.ms[0], 2.0, 16, 8)):
        with rasterio.open(source.path) as joined:
            assert np.array_equal(joined.read(), maker.ground(pixel, size, size, bands))
            assert joined.transform == maker.grid(pixel)
            assert joined.crs == maker.CRS
    assert find_scenes(delivery) == [scene]


def test_tiles_without_georeference_keep_the_rpcs(tmp_path: Path) -> None:
    (scene,) = find_scenes(maker.maxar(tmp_path, level="1BS", pan_tiles=2))
    assert scene.pan.fill is None
    with rasterio.open(scene.pan.path) as pan:
        assert (pan.rpcs.line_off, pan.rpcs.samp_scale) == (32, 32)
        assert pan.transform.is_identity


def test_joined_tiles_make_the_same_image_as_one_file(run: Any, tmp_path: Path) -> None:
    made = []
    for tiles in (1, 2):
        out = tmp_path / f"{tiles}.tif"
        delivery = maker.maxar(tmp_path / str(tiles), pan_tiles=tiles, ms_tiles=tiles)
        result = run("sharpen", delivery, "-o", out, "--method", "brovey", "-q")
        assert result.exit_code == 0, result.output
        with rasterio.open(out) as image:
            made.append((image.read().tobytes(), image.transform, image.descriptions))
    assert made[0] == made[1]
    assert made[0][1:] == (maker.grid(0.5), SENSORS["WV2"].bands)


def test_every_part_is_a_scene(tmp_path: Path) -> None:
    for part in ("P001", "P002"):
        delivery = maker.maxar(tmp_path, part=part)
    maker.maxar(tmp_path, part="P003", parts=("PAN",))
    assert [scene.name for scene in find_scenes(delivery)] == [f"{maker.ORDER}_{part}" for part in ("P001", "P002")]
    # seen from further up the scenes are the same, not twice
    assert len(find_scenes(tmp_path)) == 2


def test_the_folder_of_pan_alone_says_what_to_name(tmp_path: Path) -> None:
    delivery = maker.maxar(tmp_path)
    with pytest.raises(KsdiffError, match="no MS image of that part; name the folder that holds both"):
        find_scenes(delivery / f"{maker.ORDER}_P001_PAN")


def test_sensor_by_hand(tmp_path: Path) -> None:
    (scene,) = find_scenes(maker.maxar(tmp_path, "WV03"), "WV2")
    assert scene.sensor == SENSORS["WV2"]


def test_patches_do_not_hang_on_the_place_of_the_vrt(tmp_path: Path) -> None:
    folder = tmp_path / "PAN"
    maker.maxar_image(folder, "10JAN03101112-P2AS-052299001010_01_P001", "WV02", ("P",), "P", 0.5, 512, 2)
    maker.maxar_image(tmp_path / "MUL", "10JAN03101112-M2AS-052299001010_01_P001", "WV02", EIGHT, "Multi", 2.0, 128, 1)
    (plan,) = plan_patches(PatchOptions((tmp_path,), tmp_path / "out", patch=16))
    names = [Path(name) for name, *_ in plan.identity["files"]]
    assert {name.suffix for name in names} >= {".TIF"} and len([name for name in names if "_R" in name.name]) == 4
    assert all(name.is_relative_to(tmp_path) for name in names)
    assert "ksdiff-" not in str(plan.identity)
