"""MS warped to PAN's grid: what is invalid stays invalid, windows agree, and what cannot be warped is said."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from conftest import PairFiles, write_raster
from rasterio.transform import Affine

from ksdiff_cli.errors import KsdiffError
from ksdiff_cli.products import make_pair as scene_of
from ksdiff_cli.raster.bands import QualityBand
from ksdiff_cli.raster.layout import warp_reason
from ksdiff_cli.raster.pair import Scene, open_pair
from ksdiff_cli.raster.warp import rotation, warp_grid

Array = Any

PAN = Affine(0.5, 0, 500_000, 0, -0.5, 5_000_000)
SIDE = 100  # MS pixels of 2 m, as PAN's 400 of 0.5 m
HOLE = np.s_[..., 40:60, 30:60]


def askew(degrees: float = 20.0, side: int = SIDE, size: float = 2.0) -> Affine:
    """A grid rotated about PAN's middle."""
    middle = Affine.translation(500_100, 4_999_900) @ Affine.rotation(degrees)
    return middle @ Affine.scale(size, -size) @ Affine.translation(-side / 2, -side / 2)


@pytest.fixture
def make_scene(tmp_path: Path) -> Callable[..., Scene]:
    """Return a maker of a scene whose MS is the image given, on the grid given."""

    def make(image: Array, grid: Affine | None = None, crs: str | None = "EPSG:32632", **profile: Any) -> Scene:
        place = {"crs": "EPSG:32632", "transform": PAN}
        pan = write_raster(tmp_path / "pan.tif", np.full((400, 400), 500, "uint16"), **place)
        place = {"transform": grid or askew(), **({"crs": crs} if crs else {})}
        ms = write_raster(tmp_path / "ms.tif", image, **place, **profile)
        return replace(scene_of(str(pan), [str(ms)]), warp=True)

    return make


def with_hole(value: float, dtype: str, bands: int = 3, which: Any = np.s_[:]) -> Array:
    image = np.full((bands, SIDE, SIDE), 100, dtype)
    image[which][HOLE] = value
    return image


def opaque(image: Array, alpha: bool = False) -> Array:
    mask = np.full((SIDE, SIDE), 255, "uint8")
    mask[HOLE] = 0
    return np.concatenate([image, mask[None]]) if alpha else mask


HOLES: dict[str, Callable[[], tuple[Array, dict[str, Any], float | None]]] = {
    "nodata": lambda: (with_hole(7, "uint16"), {"nodata": 7}, None),
    "nodata of one band": lambda: (with_hole(7, "uint16", which=np.s_[1]), {"nodata": 7}, None),
    "8-bit nodata": lambda: (with_hole(255, "uint8"), {"nodata": 255}, None),
    "large nodata": lambda: (with_hole(2**32 - 1, "uint32"), {"nodata": 2**32 - 1}, None),
    "negative nodata": lambda: (with_hole(-32768, "int16"), {"nodata": -32768}, None),
    "float nodata": lambda: (with_hole(-3.4e38, "float32"), {"nodata": float(np.float32(-3.4e38))}, None),
    "double nodata": lambda: (with_hole(-1.7e308, "float64"), {"nodata": -1.7e308}, None),
    "the product's fill": lambda: (with_hole(0, "uint16"), {}, 0.0),
    "NaN": lambda: (with_hole(np.nan, "float32"), {}, None),
    "NaN as nodata": lambda: (with_hole(np.nan, "float64"), {"nodata": np.nan}, None),
    "NaN beside nodata": lambda: (with_hole(np.nan, "float32"), {"nodata": -9}, None),
    "mask": lambda: (with_hole(0, "uint16"), {"mask": opaque(np.empty(0))}, None),
    "alpha": lambda: (opaque(with_hole(0, "uint8"), True), {"photometric": "RGB", "alpha": "YES"}, None),
}


@pytest.mark.parametrize("grid", [askew(), askew(0.4, size=1.75)], ids=["rotated", "finer"])
@pytest.mark.parametrize("name", HOLES)
def test_a_hole_stays_and_leaks_into_nothing(name: str, grid: Affine, make_scene: Any) -> None:
    image, profile, fill = HOLES[name]()
    scene = make_scene(image, grid, **profile)
    scene = replace(scene, ms=tuple(replace(source, fill=fill) for source in scene.ms))
    with open_pair(scene) as pair:
        assert pair.bands == 3
        values, valid = pair.read_ms(0, 0, *pair.ms_shape)
        target = pair.pan.transform @ Affine.translation(*warp_grid(pair.pan, pair.ms[0]).start[::-1]) @ Affine.scale(4)
        rows, cols = np.mgrid[: pair.ms_shape[0], : pair.ms_shape[1]] + 0.5
        x, y = ~pair.ms[0].transform @ target @ (cols, rows)
    # what GDAL interpolates from valid pixels it may carry half a pixel into a hole; NaN without nodata spreads by two
    inside = (x > 30.6) & (x < 59.4) & (y > 40.6) & (y < 59.4)
    around = (x > 27) & (x < 63) & (y > 37) & (y < 63)
    beside = (x < 0) | (y < 0) | (x > SIDE) | (y > SIDE)
    assert inside.sum() > 300
    assert not valid[inside].any()
    assert not valid[beside].any()
    assert valid[~around & ~beside].all()
    np.testing.assert_allclose(values[:, valid], 100, rtol=1e-5)


def test_a_fourth_band_that_only_gdal_calls_alpha_is_data(make_scene: Any) -> None:
    image = np.random.default_rng(0).integers(1, 200, (4, SIDE, SIDE)).astype("uint8")
    image[:3] = 100
    scene = make_scene(image)
    assert rasterio.open(scene.ms[0].path).colorinterp[3].name == "alpha"
    with open_pair(scene) as pair:
        assert pair.bands == 4
        values, valid = pair.read_ms(30, 30, 40, 40)
    assert valid.all()
    np.testing.assert_allclose(values[:3], 100, rtol=1e-6)
    assert values[3].std() > 20


@pytest.mark.parametrize("crs", ["EPSG:32632", "EPSG:32633"])
def test_windows_get_the_numbers_of_the_whole(crs: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    place = {"crs": "EPSG:32632", "transform": PAN}
    pan = write_raster(tmp_path / "pan.tif", np.ones((1600, 2600), "uint8"), **place)
    (x,), (y,) = rasterio.warp.transform("EPSG:32632", crs, [500_650], [4_999_600])
    grid = Affine.translation(x, y) @ Affine.rotation(3) @ Affine.scale(2, -2) @ Affine.translation(-400, -300)
    image = rng.integers(0, 2000, (2, 600, 800)).astype("uint16")
    ms = write_raster(tmp_path / "ms.tif", image, crs=crs, transform=grid, nodata=0)
    scene = replace(scene_of(str(pan), [str(ms)]), warp=True)
    with open_pair(scene) as pair:
        assert pair.ms_shape[0] > 400
        assert pair.ms_shape[1] > 650  # several of the blocks in which GDAL warps
        whole, valid = pair.read_ms(0, 0, *pair.ms_shape)
        tile = pair.read(0, 0, *pair.shape)
    for row, col, height, width in (
        (0, 0, 64, 64),
        (100, 490, 90, 100),
        (127, 511, 2, 2),
        (37, 3, 300, 1),
        (399, 0, 1, 600),
    ):
        with open_pair(scene) as pair:
            values, mask = pair.read_ms(row, col, height, width)
            place = np.s_[row : row + height, col : col + width]
            np.testing.assert_array_equal(values, whole[(slice(None), *place)])
            np.testing.assert_array_equal(mask, valid[place])
    with open_pair(scene) as pair:
        part = pair.read(300, 500, 100, 130)
        seen = part.valid
        np.testing.assert_array_equal(seen, tile.valid[300:400, 500:630])
        np.testing.assert_allclose(part.ms_up[:, seen], tile.ms_up[:, 300:400, 500:630][:, seen], rtol=1e-4)


def test_flags_of_the_product_are_warped_with_ms(make_scene: Any, tmp_path: Path) -> None:
    scene = make_scene(np.full((2, SIDE, SIDE), 100, "uint16"))
    flags = np.zeros((SIDE, SIDE), "uint16")
    flags[:50] = 0b1
    flags[:, :50] |= 0b1000
    path = write_raster(tmp_path / "qa.tif", flags, crs="EPSG:32632", transform=askew())
    scene = replace(scene, quality=QualityBand(str(path), ((1, 1),), ((8, 8),)))
    with open_pair(scene) as pair:
        _, valid = pair.read_ms(0, 0, *pair.ms_shape)
        cloud = pair.read_cloud(0, 0, *pair.ms_shape)
        top, left = warp_grid(pair.pan, pair.ms[0]).start
        rows, cols = np.mgrid[: pair.ms_shape[0], : pair.ms_shape[1]] + 0.5
        x, y = ~askew() @ PAN @ Affine.translation(left, top) @ Affine.scale(4) @ (cols, rows)
        assert pair.quality.files
    inside = (x > 0) & (y > 0) & (x < SIDE) & (y < SIDE)
    np.testing.assert_array_equal(valid, inside & (y > 50))
    np.testing.assert_array_equal(cloud[inside], (x < 50)[inside])


@pytest.mark.parametrize(
    ("size", "ratio"), [(2.0, 4), (1.8, 4), (1.7, 3), (0.9, 2), (0.7, 2), (6.0, 12)], ids=lambda value: str(value)
)
def test_the_ratio_is_the_whole_one_nearest_to_ms(size: float, ratio: int, make_scene: Any) -> None:
    scene = make_scene(np.ones((1, SIDE, SIDE), "uint16"), askew(size=size))
    with open_pair(scene) as pair:
        grid = warp_grid(pair.pan, pair.ms[0])
        assert grid.ratio == pair.grid.ratio == ratio
        assert grid.start[0] % ratio == grid.start[1] % ratio == 0
        assert pair.grid.rows.scale == 1 / ratio
        assert rotation(pair.pan, pair.ms[0]) == pytest.approx(-20)
        assert any("warped to PAN's grid" in note and "20°" in note for note in pair.notes)


@pytest.mark.parametrize(
    ("grid", "words"),
    [
        (askew(size=0.5), "swapped"),
        (askew(size=12), "24.0 x 24.0 PAN pixels"),
        (Affine.translation(2000, 0) @ askew(), "does not overlap"),
    ],
)
def test_what_warping_does_not_help(grid: Affine, words: str, make_scene: Any) -> None:
    scene = make_scene(np.ones((1, SIDE, SIDE), "uint16"), grid)
    with pytest.raises(KsdiffError, match=words), open_pair(scene):
        pass


def test_no_way_from_one_crs_to_the_other(make_scene: Any) -> None:
    local = 'LOCAL_CS["the mine",UNIT["metre",1]]'
    scene = make_scene(np.ones((1, SIDE, SIDE), "uint16"), askew(0), local)
    with pytest.raises(KsdiffError, match="the mine") as caught, open_pair(scene):
        pass
    assert "\n" not in str(caught.value)


def test_a_damaged_file_is_named(make_scene: Any) -> None:
    scene = make_scene(np.random.default_rng(0).integers(1, 999, (2, SIDE, SIDE)).astype("uint16"), compress="deflate")
    whole = Path(scene.ms[0].path).read_bytes()
    header = rasterio.open(scene.ms[0].path).get_tag_item("BLOCK_OFFSET_0_0", "TIFF", 1)
    damaged = bytearray(whole)
    damaged[int(header) : int(header) + 4000] = bytes(4000)
    Path(scene.ms[0].path).write_bytes(damaged)
    with open_pair(scene) as pair, pytest.raises(KsdiffError, match=r"ms.tif: cannot be read .*damaged") as caught:
        pair.read_ms(0, 0, *pair.ms_shape)
    assert "VRT" not in str(caught.value)


def test_a_grid_along_pans_is_never_warped(make_scene: Any) -> None:
    with open_pair(make_scene(np.ones((1, SIDE, SIDE), "uint16"), askew(0))) as pair:
        assert not pair.warped
        assert pair.notes == []
        assert warp_reason(pair.pan, pair.ms[0]) is None


def test_the_command_line(make_pair: Any, run: Any, fails: Any, tmp_path: Path) -> None:
    grid = Affine.translation(593286, 5747645) @ Affine.rotation(8) @ Affine.scale(2, -2) @ Affine.translation(-24, -24)
    turned: PairFiles = make_pair(
        "turned", ms_grid=grid, ms_size=(48, 48), ms_profile={"nodata": 9, "descriptions": ("a", "b", "c", "d")}
    )
    far = make_pair("zone", crs="EPSG:32632")
    out = tmp_path / "out.tif"
    for pan, ms, words in ((turned.pan, turned.ms, "rotated"), (turned.pan, far.ms, "EPSG:32632")):
        line = fails("sharpen", pan, ms, "-o", out, "--method", "exp")
        assert words in line
        assert "--warp" in line
        assert str(ms) in line
    done = run("sharpen", turned.pan, turned.ms, "-o", out, "--method", "exp", "--warp")
    assert done.exit_code == 0, done.stderr
    assert "MS is warped to PAN's grid at ratio 4: its grid is rotated" in " ".join(done.stderr.split())
    with rasterio.open(out) as made, rasterio.open(turned.pan) as pan:
        # as for any pair: PAN's grid, and what the MS file declares
        assert made.transform == pan.transform
        assert made.dtypes == ("uint16",) * 4
        assert made.nodata == 9
        assert made.descriptions == ("a", "b", "c", "d")
        assert made.read_masks(1).mean() > 200


def test_patches_of_a_warped_scene(make_pair: Any, run: Any, fails: Any, tmp_path: Path) -> None:
    grid = Affine.translation(593346, 5747581) @ Affine.rotation(8) @ Affine.scale(2, -2) @ Affine.translation(-60, -60)
    files = make_pair(size=(608, 608), ms_grid=grid, ms_size=(120, 120))
    command = ("prepare-data", files.folder, "-o", tmp_path / "patches", "--patch", 16)
    assert "--warp" in fails(*command, "-q")
    done = run(*command, "--warp")
    assert done.exit_code == 0, done.output
    assert "warped to PAN's grid" in " ".join(done.stderr.split())
