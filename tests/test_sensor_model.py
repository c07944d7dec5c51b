"""PAN and MS in sensor geometry: laid by their RPCs or world files, and by what they show where these are wrong."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import products_maker as maker
import pytest
import rasterio
from conftest import write_raster
from rasterio.rpc import RPC
from rasterio.transform import Affine
from sensor_model_maker import WORLD, Camera, airbus_sensor, turned

from ksdiff_cli.numerics.grids import Axis, GridMap, corner_aligned, degrade
from ksdiff_cli.products import find_scenes
from ksdiff_cli.products import make_pair as scene_of
from ksdiff_cli.raster.pair import Scene, open_pair
from ksdiff_cli.raster.registration import check_registration, measure_shift
from ksdiff_cli.simulation import camera as simulation

Array = Any
OFFSET = (1.0, 0.16)  # PAN rows and columns of the centre of the first MS pixel, as a real bundle's RPCs have it
SIZE = 384
CAMERA = Camera(SIZE, SIZE)


def grid_of(offset: tuple[float, float], ratio: float = 4) -> GridMap:
    rows, cols = (Axis(1 / ratio, -by / ratio) for by in offset)
    return GridMap(rows, cols)


def offset_of(grid: GridMap) -> tuple[float, float]:
    return grid.rows.to_pan(0.0), grid.cols.to_pan(0.0)


def rpcs_of(offset: tuple[float, float] = OFFSET) -> dict[str, RPC]:
    return {"P": CAMERA.rpcs(), "MS": CAMERA.rpcs(4, offset)}


@pytest.fixture(scope="session")
def seen() -> Callable[[tuple[float, float]], dict[str, Array]]:
    """Return a maker of PAN and MS of one scene, MS being seen so many PAN pixels further down and right."""
    pan, _, truth = simulation.simulate_arrays(SIZE, bands=4, ratio=4, seed=3)

    def make(offset: tuple[float, float]) -> dict[str, Array]:
        ms = degrade(truth.astype(np.float32), grid_of(offset), (SIZE // 4,) * 2, (0.3,) * 4)
        return {"P": pan.round().astype("uint16"), "MS": ms.round().astype("uint16")}

    return make


def bare(shape: tuple[int, int] = (SIZE, SIZE)) -> dict[str, Array]:
    """Two flat images, in which nothing can be measured."""
    height, width = shape
    return {"P": np.full((1, *shape), 9, "uint16"), "MS": np.full((4, height // 4, width // 4), 7, "uint16")}


def shown(scene: Scene) -> tuple[GridMap, list[str]]:
    with open_pair(scene) as pair:
        return pair.grid.shifted(-pair.origin[0], -pair.origin[1]), pair.notes


def test_both_rpcs_lay_ms_on_pan(tmp_path: Path, seen: Any, run: Any) -> None:
    folder = airbus_sensor(tmp_path / "bundle", seen(OFFSET), rpcs_of())
    (scene,) = find_scenes(folder)
    grid, notes = shown(scene)
    assert (grid.rows.scale, grid.cols.scale) == (0.25, 0.25)
    assert offset_of(grid) == pytest.approx(OFFSET, abs=0.002)
    assert notes[0] == (
        "no geotransform, only RPCs: PAN and MS are laid by them at the scene's mean height, 300 m, "
        "PAN = 4 MS + 1.00 rows, + 0.16 columns, and kept in sensor geometry"
    )
    with open_pair(scene) as pair:
        assert measure_shift(pair).magnitude() < 0.04
    out = tmp_path / "out.tif"
    done = run("sharpen", folder, "-o", out, "--method", "exp")
    # the world files lay the first pixels' centres on each other, a quarter of an MS pixel off
    assert done.exit_code == 0 and "(+0.25, +0.04) MS pixels (rows, columns) off what the RPCs say" in done.stderr
    assert "the images agree with the RPCs" in done.stderr
    with rasterio.open(out) as made:
        assert made.tags()["KSDIFF_GEOMETRY"] == "RPCs at 300 m: PAN = 4 MS + 1.00 rows, + 0.16 columns"
        assert "KSDIFF_SHIFT" not in made.tags() and made.rpcs is not None


@pytest.mark.parametrize("shift", [(0.3, -0.2), (-2.5, 1.5)])
def test_the_images_decide_against_the_rpcs(shift: tuple[float, float], tmp_path: Path, seen: Any, run: Any) -> None:
    # an MS pixel shows what lies this much further up and left in PAN
    moved = tuple(by - 4 * pixels for by, pixels in zip(OFFSET, shift, strict=True))
    folder = airbus_sensor(tmp_path / "bundle", seen(moved), rpcs_of(), None)
    (scene,) = find_scenes(folder)
    decided, notes = check_registration(scene, correct=False)
    assert decided.shift == pytest.approx(shift, abs=0.03)
    (note,) = notes
    assert "off what the RPCs say, and decide: corrected" in note and note.endswith("remain")
    assert offset_of(shown(decided)[0]) == pytest.approx(moved, abs=0.12)
    asked, _ = check_registration(scene, correct=True)
    assert asked == decided
    out = tmp_path / "out.tif"
    assert run("sharpen", folder, "-o", out, "--method", "exp").exit_code == 0
    with rasterio.open(out) as made:
        assert [float(value) for value in made.tags()["KSDIFF_SHIFT"].split()] == pytest.approx(shift, abs=0.03)
    done = run("sharpen", folder, "-o", out, "--method", "exp", "--no-registration-check", "--overwrite")
    assert done.exit_code == 0
    with rasterio.open(out) as made:
        assert "KSDIFF_SHIFT" not in made.tags()


def test_rpcs_are_taken_where_nothing_can_be_measured(tmp_path: Path) -> None:
    (scene,) = find_scenes(airbus_sensor(tmp_path / "bundle", bare(), rpcs_of()))
    same, notes = check_registration(scene, correct=False)
    assert same == scene
    assert len(notes) == 1 and notes[0].endswith("it cannot be measured, so the RPCs are taken")
    agreeing = {kind: numbers.replace("4 0 0 -4 1 -1", "4 0 0 -4 1.16 -2") for kind, numbers in WORLD.items()}
    (scene,) = find_scenes(airbus_sensor(tmp_path / "other", bare(), rpcs_of(), agreeing))
    assert check_registration(scene, correct=False) == (scene, [])


@pytest.mark.parametrize(("ms", "offset"), [("4 0 0 -4 1 -1", (0, 0)), ("4 0 0 -4 1.16 -2", OFFSET)])
def test_world_files_lay_bundles_without_rpcs(ms: str, offset: tuple[float, float], tmp_path: Path) -> None:
    (scene,) = find_scenes(airbus_sensor(tmp_path / "bundle", bare(), None, WORLD | {"MS": ms}))
    grid, notes = shown(scene)
    assert offset_of(grid) == pytest.approx(offset, abs=0.002)
    assert notes[0].startswith("no geotransform: PAN and MS are laid by their world files, PAN = 4 MS + ")


def test_without_both_corners_meet(tmp_path: Path) -> None:
    (scene,) = find_scenes(airbus_sensor(tmp_path / "bundle", bare(), None, None))
    grid, notes = shown(scene)
    assert grid == corner_aligned(4) and "corner on corner" in notes[0]


def test_images_named_by_themselves_lie_as_in_their_bundle(tmp_path: Path) -> None:
    folder = airbus_sensor(tmp_path / "bundle", bare(), rpcs_of())
    pan, ms = (next(folder.glob(f"IMG_PHR1A_{kind}_*/*.JP2")) for kind in ("P", "MS"))
    grid, _ = shown(scene_of(str(pan), [str(ms)]))
    assert grid == shown(find_scenes(folder)[0])[0]


def test_maxar_1b(tmp_path: Path) -> None:
    delivery = maker.maxar(tmp_path, level="1B", pan_tiles=2)
    (rpb,) = delivery.glob("*_MUL/*.RPB")
    # the middle of MS, one row and .16 columns of PAN off that of the first pixels' centres
    text = rpb.read_text().replace("lineOffset = 8;", "lineOffset = 7.75;")
    rpb.write_text(text.replace("sampOffset = 8;", "sampOffset = 7.96;"))
    (scene,) = find_scenes(delivery)
    grid, notes = shown(scene)
    assert offset_of(grid) == pytest.approx(OFFSET, abs=0.002)
    assert "100 m, PAN = 4 MS + 1.00 rows, + 0.16 columns" in notes[0]


def write_pair(folder: Path, size: int, pan: RPC, ms: RPC, **profile: Any) -> Scene:
    paths = []
    for name, rpcs, side in (("pan", pan, size), ("ms", ms, size // 4)):
        own = dict(profile)
        if "transform" in own and name == "ms":
            own["transform"] = own["transform"] @ Affine.scale(4)
        path = folder / f"{name}.tif"
        shape = {"width": side, "height": side, "count": 1, "dtype": "uint8", "SPARSE_OK": "YES"}
        with rasterio.open(path, "w", driver="GTiff", tiled=True, **shape, **own) as dataset:
            dataset.rpcs = rpcs
        paths.append(str(path))
    return scene_of(paths[0], paths[1:])


def test_the_ratio_of_the_sizes_goes_before_that_of_the_rpcs(tmp_path: Path) -> None:
    size, ratio = 16000, 4.0008
    own = Camera(size, size)
    grid, notes = shown(write_pair(tmp_path, size, own.rpcs(), own.rpcs(ratio, (0.5, 0.5))))
    assert 1 / grid.rows.scale == 4
    # in the middle it is what the RPCs say, at the corners .4 MS pixels a side off
    middle = (size / 4 - 1) / 2
    assert grid.rows.to_pan(middle) == pytest.approx(ratio * middle + 0.5, abs=0.01)
    assert len(notes) == 2 and "up to 0.57 MS pixels are left" in notes[1]


@pytest.mark.parametrize(("ratio", "taken"), [(4.0005, 4.0), (4.1, 4.1)])
def test_where_sizes_say_nothing_the_rpcs_say_the_ratio(ratio: float, taken: float, tmp_path: Path) -> None:
    pan = write_raster(tmp_path / "pan.tif", np.ones((300, SIZE), "uint8"))
    ms = write_raster(tmp_path / "ms.tif", np.ones((SIZE // 4, SIZE // 4), "uint8"))
    for path, rpcs in ((pan, CAMERA.rpcs()), (ms, CAMERA.rpcs(ratio, OFFSET))):
        with rasterio.open(path, "r+") as dataset:
            dataset.rpcs = rpcs
    assert 1 / shown(scene_of(str(pan), [str(ms)]))[0].rows.scale == pytest.approx(taken, abs=1e-6)


def test_what_a_grid_cannot_follow_is_told(tmp_path: Path) -> None:
    own = Camera(4000, 4000)
    told = shown(write_pair(tmp_path, 4000, own.rpcs(), turned(own, 0.001).rpcs(4)))[1]
    # a thousandth of half a side of 1000 MS pixels
    assert len(told) == 2 and "up to 0.50 MS pixels are left" in told[1]
    assert len(shown(write_pair(tmp_path, 4000, own.rpcs(), turned(own, 0.0002).rpcs(4)))[1]) == 1


def test_rpcs_that_contradict_the_sizes_are_not_believed(tmp_path: Path) -> None:
    nowhere = RPC(**CAMERA.rpcs(4).to_dict() | {"line_num_coeff": [0.0] * 20})
    for wrong in (CAMERA.rpcs(2), nowhere):
        grid, notes = shown(write_pair(tmp_path, SIZE, CAMERA.rpcs(), wrong))
        assert grid == corner_aligned(4) and "corner on corner" in notes[0]


def test_rpcs_lay_images_of_which_one_is_a_part(tmp_path: Path) -> None:
    # PAN begins 40 rows further down, and the sizes match at no whole ratio
    pan = CAMERA.rpcs()
    pan.line_off -= 40
    part = write_raster(tmp_path / "pan.tif", np.ones((300, SIZE), "uint8"))
    ms = write_raster(tmp_path / "ms.tif", np.ones((SIZE // 4, SIZE // 4), "uint8"))
    for path, rpcs in ((part, pan), (ms, CAMERA.rpcs(4, OFFSET))):
        with rasterio.open(path, "r+") as dataset:
            dataset.rpcs = rpcs
    grid, _ = shown(scene_of(str(part), [str(ms)]))
    assert offset_of(grid) == pytest.approx((OFFSET[0] - 40, OFFSET[1]), abs=0.002)


def test_a_pair_on_a_map_does_not_ask_its_rpcs(tmp_path: Path) -> None:
    place = {"crs": "EPSG:32631", "transform": Affine(0.5, 0, 500_000, 0, -0.5, 4_983_000)}
    scene = write_pair(tmp_path, SIZE, CAMERA.rpcs(), CAMERA.rpcs(4, (3, 3)), **place)
    with open_pair(scene) as pair:
        assert pair.laid is None and pair.notes == []
        assert offset_of(pair.grid) == pytest.approx((1.5, 1.5))


def test_pan_and_ms_swapped_are_told(tmp_path: Path, fails: Any) -> None:
    scene = write_pair(tmp_path, SIZE, CAMERA.rpcs(), CAMERA.rpcs(4))
    assert "swapped" in fails("sharpen", scene.ms[0].path, scene.pan.path, "-o", tmp_path / "out.tif")


def test_several_scenes_of_one_camera_have_one_grid(tmp_path: Path) -> None:
    """The map is rounded, so that every process and machine has the same bits."""
    grid, _ = shown(write_pair(tmp_path, SIZE, CAMERA.rpcs(), CAMERA.rpcs(4, OFFSET)))
    assert all(math.isclose(1000 * by, round(1000 * by), abs_tol=1e-9) for by in offset_of(grid))
