"""Every way two grids can lie on each other, proved by a world known at every point of the ground."""

import json
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from conftest import World, write_raster
from rasterio.crs import CRS
from rasterio.transform import Affine
from rasterio.warp import transform as reproject
from scipy.ndimage import minimum_filter

from ksdiff_cli.errors import KsdiffError
from ksdiff_cli.fusers.classical import Upsampling
from ksdiff_cli.options.sharpening import SharpenOptions
from ksdiff_cli.products import make_pair as scene_of
from ksdiff_cli.raster.pair import Scene, open_pair
from ksdiff_cli.sharpening.engine import sharpen_scene

Array = Any

UTM = "EPSG:32632"
X, Y = 210_000.0, 5_400_000.0  # the west border of zone 32, where zone 31's north is three degrees off
LIMIT = 0.05  # PAN pixels


def north_up(size: float, x: float = 0.0, y: float = 0.0, down: float | None = None) -> Affine:
    return Affine(size, 0, X + x, 0, -(down or size), Y + y)


def turned(degrees: float, size: float, x: float = 0.0, y: float = 0.0) -> Affine:
    """North-up, then rotated about the outer corner."""
    return Affine.translation(X + x, Y + y) @ Affine.rotation(degrees) @ Affine.scale(size, -size)


@dataclass(frozen=True)
class Case:
    """Two grids that show one world."""

    pan: Affine
    ms: Affine
    ms_size: tuple[int, int] = (60, 70)
    pan_size: tuple[int, int] = (240, 280)
    pan_crs: str | None = UTM
    ms_crs: str | None = UTM
    point: tuple[bool, bool] = (False, False)
    """Whether PAN and MS are stored as PixelIsPoint."""
    warp: bool = False


CASES = {
    "one corner": Case(north_up(0.5), north_up(2)),
    "half a PAN pixel": Case(north_up(0.5, -0.25, 0.25), north_up(2)),
    "half an MS pixel": Case(north_up(0.5), north_up(2, 1, -1)),
    "an odd offset": Case(north_up(0.5), north_up(2, -13.37, 7.11)),
    "Landsat's centre on centre": Case(north_up(1), north_up(2, -0.5, 0.5), (120, 140)),
    "non-integer ratio": Case(north_up(0.498, 0.75, -0.75, down=0.5006), north_up(2, down=2.01)),
    "ratio 3.3": Case(north_up(0.6), north_up(2), (72, 84)),
    "PAN is points": Case(north_up(0.5), north_up(2), point=(True, False)),
    "MS is points": Case(north_up(0.5), north_up(2), point=(False, True)),
    "both are points": Case(north_up(0.5, -0.25), north_up(2), point=(True, True)),
    "both rotated": Case(turned(13, 0.5), turned(13, 2, 0.4, -0.7)),
    "both rotated, MS oblong": Case(turned(13, 0.5), turned(13, 1) @ Affine.scale(2, 2.01)),
    "both rotated, points": Case(turned(13, 0.5), turned(13, 2, 0.4, -0.7), point=(True, True)),
    "rotated by a hair": Case(turned(13, 0.5), turned(13.015, 2)),
    "both south up": Case(Affine(0.5, 0, X, 0, 0.5, Y), Affine(2, 0, X + 0.3, 0, 2, Y - 0.3)),
    "PAN south up": Case(Affine(0.5, 0, X, 0, 0.5, Y - 120), north_up(2)),
    "MS south up": Case(north_up(0.5), Affine(2, 0, X, 0, 2, Y - 120)),
    "MS from east to west": Case(north_up(0.5), Affine(-2, 0, X + 140, 0, -2, Y)),
    "both from east to west": Case(Affine(-0.5, 0, X, 0, -0.5, Y), Affine(-2, 0, X, 0, -2, Y)),
    "MS smaller": Case(north_up(0.5), north_up(2, 11, -17), (40, 50)),
    "MS larger": Case(north_up(0.5), north_up(2, -31, 27), (90, 110)),
    "MS beside": Case(north_up(0.5), north_up(2, 30, 20), (60, 70)),
    "MS names no CRS": Case(north_up(0.5), north_up(2, 1), ms_crs=None),
    "PAN names no CRS": Case(north_up(0.5), north_up(2, 1), pan_crs=None),
    "MS is points and names no CRS": Case(north_up(0.5), north_up(2, 1), ms_crs=None, point=(False, True)),
    "neither names a CRS": Case(north_up(0.5), north_up(2, 1), pan_crs=None, ms_crs=None),
}
# how MS lies about its middle, which is brought onto PAN's
ASKEW = {
    "MS rotated": Case(north_up(0.5), turned(20, 2), (90, 100)),
    "MS rotated, only a part": Case(north_up(0.5), turned(20, 2), (50, 44)),
    "MS rotated by 45 degrees": Case(north_up(0.5), turned(45, 2), (100, 100)),
    "MS rotated by 90 degrees": Case(north_up(0.5), turned(90, 2), (78, 68)),
    "MS rotated, none names a CRS": Case(north_up(0.5), turned(-20, 2), (90, 100), pan_crs=None, ms_crs=None),
    "MS rotated, MS names no CRS": Case(north_up(0.5), turned(-20, 2), (90, 100), ms_crs=None),
    "MS rotated, points": Case(north_up(0.5), turned(20, 2), (90, 100), point=(True, True)),
    "PAN rotated": Case(turned(33, 0.5), north_up(2), (100, 110)),
    "MS sheared": Case(north_up(0.5), north_up(2) @ Affine.shear(7, 0), (80, 90)),
    "MS rotated, ratio 3.3": Case(north_up(0.6), turned(5, 2), (90, 100)),
    "MS rotated, not on a whole ratio": Case(north_up(0.5), turned(8, 1.75), (90, 100)),
    "MS in the next zone": Case(north_up(0.5), north_up(2), (80, 90), ms_crs="EPSG:32631"),
    "MS south up in the next zone": Case(north_up(0.5), Affine.scale(2), (80, 90), ms_crs="EPSG:32631"),
    "MS in degrees": Case(north_up(0.5), Affine.scale(2.4e-5, -1.8e-5), (90, 100), ms_crs="EPSG:4326"),
    "PAN in degrees": Case(Affine.scale(6e-6, -4.5e-6), north_up(2), (100, 110), pan_crs="EPSG:4326"),
}
ASKEW = {name: replace(case, warp=True) for name, case in ASKEW.items()}


def ground(transform: Affine, shape: tuple[int, int], crs: str | None) -> tuple[Array, Array]:
    """Coordinates of all pixel centres, in metres."""
    rows, cols = np.mgrid[: shape[0], : shape[1]] + 0.5
    x, y = transform @ (cols, rows)
    if crs not in (None, UTM):
        x, y = (np.reshape(values, shape) for values in reproject(crs, UTM, x.ravel(), y.ravel()))
    return x, y


def look(world: World, x: Array, y: Array) -> tuple[Array, Array, Array]:
    """The world at points, and its slopes along x and y per metre."""
    seen, slope_x, slope_y = np.full(x.shape, 500.0), np.zeros(x.shape), np.zeros(x.shape)
    for fx, fy, phase, amplitude in world.waves:
        angle = 2 * np.pi * (fx * x + fy * y) + phase
        seen += amplitude * np.sin(angle)
        slope = 2 * np.pi * amplitude * np.cos(angle)
        slope_x += fx * slope
        slope_y += fy * slope
    return seen, slope_x, slope_y


def displacement(seen: tuple[Array, Array, Array], image: Array, valid: Array) -> float:
    """Largest displacement of the image from the world seen there, in metres, over the scene's thirds by thirds."""
    truth, *slopes = seen
    found = []
    for rows in np.array_split(np.arange(image.shape[0]), 3):
        for cols in np.array_split(np.arange(image.shape[1]), 3):
            part = np.ix_(rows, cols)
            inside = valid[part]
            if inside.sum() < 400:
                continue
            design = np.stack([slope[part][inside] for slope in slopes], 1)
            wrong = (image[part] - truth[part])[inside]
            found.append(np.hypot(*np.linalg.lstsq(design, wrong, rcond=None)[0]))
    assert len(found) >= 4
    return float(max(found))


def centred(case: Case) -> Case:
    """Bring the middle of both grids of an askew case to one point of the ground."""
    x, y = {}, {}
    for name in ("pan", "ms"):
        crs = getattr(case, f"{name}_crs")
        (x[name],), (y[name],) = reproject(UTM, crs, [X], [Y]) if crs else ([X], [Y])
    grids = {}
    for name in ("pan", "ms"):
        grid, (height, width) = getattr(case, name), getattr(case, f"{name}_size")
        linear = Affine(grid.a, grid.b, 0, grid.d, grid.e, 0)
        grids[name] = Affine.translation(x[name], y[name]) @ linear @ Affine.translation(-width / 2, -height / 2)
    return replace(case, **grids)


@pytest.fixture
def make_scene(tmp_path: Path, world: World) -> Any:
    """Return a maker of the files of a case, as a scene."""

    def make(case: Case) -> Scene:
        paths = []
        for index, name in enumerate(("pan", "ms")):
            crs, grid = getattr(case, f"{name}_crs"), getattr(case, name)
            seen = look(world, *ground(grid, getattr(case, f"{name}_size"), crs))[0].astype("float32")
            image = seen[None] if name == "pan" else np.stack([seen, 2 * seen])
            tags = {"AREA_OR_POINT": "Point"} if case.point[index] else {}
            profile = {"transform": grid, "tags": tags, **({"crs": crs} if crs else {})}
            paths.append(write_raster(tmp_path / f"{name}.tif", image, **profile))
        return replace(scene_of(str(paths[0]), [str(paths[1])]), warp=case.warp)

    return make


@pytest.mark.parametrize("name", [*CASES, *ASKEW])
def test_output_shows_the_world_where_its_file_says(name: str, make_scene: Any, world: World, tmp_path: Path) -> None:
    case = CASES[name] if name in CASES else centred(ASKEW[name])
    scene = make_scene(case)
    with open_pair(scene) as pair:
        tile = pair.read(0, 0, *pair.shape)
        grid, origin = pair.grid, pair.origin
    made = sharpen_scene(scene, tmp_path / "out.tif", Upsampling(), SharpenOptions(tile=128, fidelity=False))
    with rasterio.open(made.output) as out:
        image, valid = out.read(1), out.read_masks(1) > 0
        named = case.pan_crs or case.ms_crs
        assert out.crs == (named and CRS.from_string(named))
        assert out.transform.almost_equals(case.pan @ Affine.translation(origin[1], origin[0]), 1e-9)
        if not (case.warp and valid.all()):
            # where MS ends, interpolation goes on with its last pixels
            valid = minimum_filter(valid, 6 * grid.ratio + 1, mode="constant")
        pixel = np.sqrt(abs(case.pan.determinant)) if case.pan_crs in (None, UTM) else 0.5
        truth, *_ = seen = look(world, *ground(out.transform, image.shape, case.pan_crs))
        off = displacement(seen, image, valid) / pixel
    assert off < LIMIT
    # 120 DN of waves down to 12 m, seen in pixels of 2 m, interpolated at most twice
    assert np.abs(image - truth)[valid].max() < 2.6
    np.testing.assert_allclose(image[valid], tile.ms_up[0][valid], rtol=1e-5)
    np.testing.assert_allclose(tile.ms_up[1][valid], 2 * tile.ms_up[0][valid], rtol=1e-4)


def test_the_proof_finds_a_fifth_of_a_pixel(world: World) -> None:
    grid = north_up(0.5)
    there, moved = (look(world, *ground(one, (240, 280), UTM)) for one in (grid, grid @ Affine.translation(0.2, 0)))
    assert displacement(there, moved[0], np.ones((240, 280), bool)) == pytest.approx(0.1, abs=0.005)


@pytest.mark.parametrize(("degrees", "refused"), [(0.0, False), (0.015, False), (0.03, True), (90.0, True)])
def test_a_rotation_is_neglected_up_to_a_twentieth_of_a_pan_pixel(
    degrees: float, refused: bool, make_scene: Any
) -> None:
    scene = make_scene(Case(turned(13, 0.5), turned(13 + degrees, 2)))
    words = r"ms.tif: its grid is rotated .* PAN .*pan.tif; warp it with --warp"
    with pytest.raises(KsdiffError, match=words) if refused else nullcontext(), open_pair(scene) as pair:
        assert pair.notes == []


def test_pixels_that_are_points_are_so_in_the_file_too(make_scene: Any, tmp_path: Path) -> None:
    """GDAL turns them into areas when it reads; read as they stand, both input and output lie half a pixel off."""
    scene = make_scene(Case(north_up(0.5), north_up(2), point=(True, False)))
    made = sharpen_scene(scene, tmp_path / "out.tif", Upsampling())
    for path in (scene.pan.path, made.output):
        with rasterio.open(path) as dataset:
            assert dataset.tags()["AREA_OR_POINT"] == "Point"
            as_areas = dataset.transform
        with rasterio.Env(GTIFF_POINT_GEO_IGNORE=True), rasterio.open(path) as dataset:
            assert dataset.transform.almost_equals(as_areas @ Affine.translation(0.5, 0.5))
            assert not dataset.transform.almost_equals(as_areas)


def test_a_crs_of_one_alone_is_said(make_scene: Any) -> None:
    for case, words in (
        (CASES["MS names no CRS"], "MS names no CRS: its coordinates are taken to be in PAN's, EPSG:32632"),
        (CASES["PAN names no CRS"], "PAN names no CRS: its coordinates are taken to be in MS's, EPSG:32632"),
    ):
        with open_pair(make_scene(case)) as pair:
            assert pair.notes == [words]
    elsewhere = Case(north_up(0.5), Affine(2e-5, 0, 10, 0, -2e-5, 48), ms_crs=None)
    with pytest.raises(KsdiffError, match=r"swapped|overlap"), open_pair(make_scene(elsewhere)):
        pass
    elsewhere = Case(north_up(0.5), north_up(2, 9000), ms_crs=None)
    with pytest.raises(KsdiffError, match=r"does not overlap.*MS names no CRS"), open_pair(make_scene(elsewhere)):
        pass


def test_info_tells_offset_ratio_rotation_and_the_need_to_warp(make_scene: Any, run: Any, tmp_path: Path) -> None:
    def facts(case: Case) -> dict[str, Any]:
        make_scene(case)
        (scene,) = json.loads(run("info", tmp_path, "--json").stdout)["scenes"]
        return dict(scene)

    along = facts(CASES["both rotated, MS oblong"])
    assert along["ratio"] == pytest.approx([4, 4.02])
    assert along["offset_ms_pixels"] == pytest.approx([-0.375, 0.5 / 4.02 - 0.5])
    assert (along["rotation_degrees"], along["needs_warp"]) == (0, False)
    assert "problem" not in along
    turned_ms = facts(centred(ASKEW["MS rotated"]))
    assert turned_ms["rotation_degrees"] == pytest.approx(-20)
    assert turned_ms["ratio"] == [4, 4]
    assert turned_ms["needs_warp"]
    assert "--warp" in turned_ms["problem"]
    zone = facts(centred(ASKEW["MS in the next zone"]))
    assert zone["needs_warp"]
    assert abs(zone["rotation_degrees"]) == pytest.approx(4.5, abs=0.5)
    text = run("info", tmp_path).stdout
    assert "needs warp: True" in text
    raster = json.loads(run("info", tmp_path / "ms.tif", "--json").stdout)
    assert raster["rotation_degrees"] == 0
    make_scene(CASES["both rotated"])
    assert json.loads(run("info", tmp_path / "ms.tif", "--json").stdout)["rotation_degrees"] == pytest.approx(-13)
