"""sharpen --ortho: on a map by RPCs and a terrain, as a camera in closed form says; refused where that cannot be."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from conftest import write_raster
from rasterio.enums import ColorInterp
from rasterio.transform import Affine
from rasterio.warp import transform as reproject
from sensor_model_maker import HEIGHT, LAT, LON, Camera

from ksdiff_cli.output import ortho as output

Array = Any
ROWS, COLS = 320, 400
CAMERA = Camera(ROWS, COLS)
_FIRST = 100.5  # DN of row and column 0; MS has whole numbers then
QUIET = ("--method", "exp", "--no-registration-check")


def terrain(lon: Any, lat: Any) -> Any:
    """Return the heights of a slope: 60 m over the scene, which move a place by 24 pixels."""
    east, north, _ = CAMERA.scales
    return HEIGHT + 30 * (lon - LON) / east + 15 * (lat - LAT) / north


def write_dem(path: Path, share: float = 1.5, crs: str = "EPSG:4326", hole: bool = False) -> Path:
    """Write the slope, as many times as wide as the scene."""
    east, north, _ = CAMERA.scales
    count = 120
    place = Affine(2 * share * east / count, 0, LON - share * east, 0, -2 * share * north / count, LAT + share * north)
    lon, lat = (np.arange(count) + 0.5) * place.a + place.c, (np.arange(count) + 0.5) * place.e + place.f
    heights = terrain(lon[None], lat[:, None])
    if hole:
        heights[:, : count // 2] = -9999
    return write_raster(path, heights, crs=crs, transform=place, nodata=-9999)


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    """Write PAN and MS whose bands count PAN's rows and columns, so that each pixel of a result says whence it is."""
    return write_pair(tmp_path)


def write_pair(folder: Path, dtype: str = "float32", **place: Any) -> tuple[Path, Path]:
    ms = np.indices((ROWS // 4, COLS // 4)) * 4 + 1.5 + _FIRST
    images = {"pan": np.full((1, ROWS, COLS), 300), "ms": ms}
    paths = []
    for name, image in images.items():
        own = {key: value @ Affine.scale(1 if name == "pan" else 4) if key == "transform" else value
               for key, value in place.items()}  # fmt: skip
        paths.append(write_raster(folder / f"{name}.tif", image.astype(dtype), **own))
        with rasterio.open(paths[-1], "r+") as dataset:
            dataset.rpcs = CAMERA.rpcs(*((1, (0, 0)) if name == "pan" else (4, (1.5, 1.5))))
    return paths[0], paths[1]


def off(path: Path, heights: Any) -> tuple[float, float]:
    """Return by how many PAN pixels a result is off the closed form at most, and the share of it that holds data."""
    with rasterio.open(path) as made:
        values, place, crs = made.read(), made.transform, made.crs
        valid = made.dataset_mask() > 0
    cols, rows = np.meshgrid(np.arange(values.shape[2]) + 0.5, np.arange(values.shape[1]) + 0.5)
    x, y = place @ (cols.ravel(), rows.ravel())
    lon, lat = (np.array(one).reshape(valid.shape) for one in reproject(crs, "EPSG:4326", x, y))
    height = heights(lon, lat) if callable(heights) else heights
    row, col = CAMERA.see(lon, lat, height)
    # interpolation bends the ramps at the border
    inside = (row > 8) & (row < ROWS - 9) & (col > 8) & (col < COLS - 9)
    outside = (row < -1.5) | (row > ROWS + 0.5) | (col < -1.5) | (col > COLS + 0.5)
    assert valid[inside].all() and not valid[outside].any()
    # the whole scene is there
    assert row.min() < -0.5 and row.max() > ROWS - 0.5 and col.min() < -0.5 and col.max() > COLS - 0.5
    error = np.hypot(values[0] - _FIRST - row, values[1] - _FIRST - col)
    return float(error[inside].max()), float(inside.mean())


@pytest.mark.parametrize(
    ("kind", "crs"), [("mean", ""), ("metres", "EPSG:32632"), ("mean", "EPSG:4326"), ("dem", "EPSG:3857"), ("dem", "")]
)
def test_a_result_lies_where_the_closed_form_says(kind: str, crs: str, pair: Any, tmp_path: Path, run: Any) -> None:
    out = tmp_path / "out.tif"
    heights, word = {
        "mean": (HEIGHT, "mean"),
        "metres": (HEIGHT + 100, f"{HEIGHT + 100}"),
        "dem": (terrain, write_dem(tmp_path / "dem.tif")),
    }[kind]
    done = run("sharpen", *pair, "-o", out, *QUIET, "--ortho", word, *(("--ortho-crs", crs) if crs else ()))
    assert done.exit_code == 0, done.output
    assert "orthorectified over" in done.stderr
    error, share = off(out, heights)
    assert error <= 0.5 and share > 0.3
    with rasterio.open(out) as made:
        assert made.crs.to_epsg() == (int(crs[5:]) if crs else 32631)
        # the side of a pixel has two digits, the corner is a multiple of it
        side = made.transform.a
        assert side == pytest.approx(float(f"{side:.1e}")) and (crs or side == 0.5)
        corner = made.transform.c / side, made.transform.f / side
        assert corner == pytest.approx([round(one) for one in corner], abs=1e-4)
        assert made.rpcs is None and made.tags()["KSDIFF_ORTHO"].startswith("RPCs over ")
        assert "KSDIFF_VERSION" in made.tags() and made.tags(1)["STATISTICS_VALID_PERCENT"] != "100"
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_the_side_of_a_pixel_can_be_given(pair: Any, tmp_path: Path, run: Any) -> None:
    out = tmp_path / "out.tif"
    assert run("sharpen", *pair, "-o", out, *QUIET, "--ortho", "mean", "--ortho-res", "0.8").exit_code == 0
    with rasterio.open(out) as made:
        assert made.res == (0.8, 0.8)
    assert off(out, HEIGHT)[0] <= 0.5


def test_integers_get_a_nodata_value_and_other_outputs_follow(tmp_path: Path, run: Any) -> None:
    pan, ms = write_pair(tmp_path, "uint16")
    out, rgb, look = (tmp_path / name for name in ("out.tif", "rgb.tif", "look.png"))
    more = ("-f", "COG", "--rgb", rgb, "--quicklook", look, "--stac")
    done = run("sharpen", pan, ms, "-o", out, *QUIET, "--ortho", "mean", *more)
    assert done.exit_code == 0, done.output
    assert off(out, HEIGHT)[0] <= 1.5  # rounded twice
    with rasterio.open(out) as made, rasterio.open(rgb) as shown:
        assert made.nodata == 0 and made.dtypes[0] == "uint16" and made.overviews(1) == []
        assert made.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert (shown.crs, shown.transform, shown.shape) == (made.crs, made.transform, made.shape)
        assert shown.colorinterp[3] == ColorInterp.alpha and shown.read(4).min() == 0
    assert look.exists() and (tmp_path / "out.json").exists()


def test_a_lossy_codec_has_a_mask(tmp_path: Path, run: Any) -> None:
    pan, ms = write_pair(tmp_path, "float32")
    out = tmp_path / "out.tif"
    lossy = ("--co", "COMPRESS=LERC_DEFLATE", "--co", "MAX_Z_ERROR=0.05")
    assert run("sharpen", pan, ms, "-o", out, *QUIET, "--ortho", "mean", *lossy).exit_code == 0
    with rasterio.open(out) as made:
        assert made.nodata is None
    assert off(out, HEIGHT)[0] <= 0.5


def test_rpcs_go_before_a_geotransform(tmp_path: Path, run: Any) -> None:
    pan, ms = write_pair(tmp_path, crs="EPSG:32631", transform=Affine(0.5, 0, 600_000, 0, -0.5, 4_900_000))
    out = tmp_path / "out.tif"
    assert run("sharpen", pan, ms, "-o", out, *QUIET, "--ortho", "mean").exit_code == 0
    assert off(out, HEIGHT)[0] <= 0.5


def test_pieces_are_warped_alike(pair: Any, tmp_path: Path, run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    for name, side in (("whole", 1024), ("pieces", 256)):
        monkeypatch.setattr(output, "_SIDE", side)
        out = tmp_path / f"{name}.tif"
        dem = write_dem(tmp_path / "dem.tif")
        assert run("sharpen", *pair, "-o", out, *QUIET, "--ortho", dem).exit_code == 0
        with rasterio.open(out) as dataset:
            made.append(dataset.read())
    np.testing.assert_allclose(made[0], made[1], atol=0.15)  # GDAL follows the terrain to an eighth of a pixel


def test_a_dem_without_heights_leaves_nodata(pair: Any, tmp_path: Path, run: Any) -> None:
    out = tmp_path / "out.tif"
    dem = write_dem(tmp_path / "dem.tif", hole=True)
    done = run("sharpen", *pair, "-o", out, *QUIET, "--ortho", dem)
    assert done.exit_code == 0, done.output
    with rasterio.open(out) as made:
        assert 0.2 < (made.dataset_mask() > 0).mean() < 0.6


def test_a_killed_run_goes_on(pair: Any, tmp_path: Path, run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from ksdiff_cli.sharpening import ortho

    command = ("sharpen", *pair, "-o", tmp_path / "out.tif", *QUIET, "--ortho", "mean")

    def killed(*arguments: Any, **more: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(ortho, "write_ortho", killed)
        assert run(*command).exit_code != 0
    assert not (tmp_path / "out.tif").exists() and (tmp_path / ".out.tif.sensor.tif").exists()
    before = (tmp_path / ".out.tif.sensor.tif").stat().st_mtime_ns
    with monkeypatch.context() as patch:  # of other options: the windows are made anew, nothing is in the way
        patch.setattr(ortho, "write_ortho", killed)
        assert run(*command, "--ortho-res", "2").exit_code != 0
    done = run(*command)
    assert done.exit_code == 0, done.output
    assert off(tmp_path / "out.tif", HEIGHT)[0] <= 0.5
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]
    assert before
    again = run(*command)
    assert again.exit_code == 1 and "exists already" in again.stderr


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--ortho", "dem_small.tif"), "does not cover"),
        (("--ortho", "dem_far.tif"), "does not cover"),
        (("--ortho", "dem_bare.tif"), "has no CRS or geotransform, so it is no DEM"),
        (("--ortho", "missing.tif"), "missing.tif"),
        (("--ortho", "men"), "--ortho men: no such file; give a DEM's file, metres, or mean"),
        (("--ortho", "mean", "--ortho-res", "1e7"), "--ortho-res 1e+07: is wider than the whole scene"),
        (("--ortho", "nan"), "give a DEM's file, metres, or mean"),
        (("--ortho", "mean", "--ortho-crs", "EPSG:1"), "is no known CRS"),
        (("--ortho", "mean", "--ortho-res", "0.001"), "--ortho-res 0.001: makes"),
        (("--ortho", "mean", "--co", "COMPRESS=NOTHING"), "--co COMPRESS=NOTHING"),
        (("--ortho", "mean", "--dst-nodata", "nan", "-t", "uint16"), "--dst-nodata"),
    ],
)
def test_what_cannot_be_is_one_line(
    words: Any, says: str, pair: Any, tmp_path: Path, fails: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_dem(tmp_path / "dem_small.tif", 0.5)
    far = {"crs": "EPSG:4326", "transform": Affine(0.1, 0, -70, 0, -0.1, 20)}
    write_raster(tmp_path / "dem_far.tif", np.ones((5, 5), "float32"), **far)
    write_raster(tmp_path / "dem_bare.tif", np.ones((5, 5), "float32"))
    assert says in fails("sharpen", *pair, "-o", tmp_path / "out.tif", *QUIET, *words)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith((".", "out"))]


def test_without_rpcs_there_is_no_ortho(make_pair: Any, fails: Any) -> None:
    files = make_pair()
    says = fails("sharpen", files.pan, files.ms, "-o", files.folder / "out.tif", *QUIET, "--ortho", "mean")
    assert "PAN has no RPCs" in says


@pytest.mark.parametrize(
    "words",
    [
        ("--ortho", "mean", "--window", "0,0,64,64"),
        ("--ortho", "mean", "--bbox", "0,0,64,64"),
        ("--ortho", "mean", "-f", "VRT"),
        ("--ortho", "mean", "--uncertainty", "std.tif", "--method", "ksdiff"),
        ("--ortho", "mean", "--view"),
        ("--ortho-crs", "EPSG:4326"),
        ("--ortho-res", "1"),
        ("--ortho", "mean", "--ortho-res", "0"),
    ],
)
def test_what_does_not_go_together_is_bad_usage(words: Any, pair: Any, tmp_path: Path, run: Any) -> None:
    done = run("sharpen", *pair, "-o", tmp_path / "out.tif", *words)
    assert done.exit_code == 2 and "--ortho" in done.stderr
    assert not (tmp_path / "out.tif").exists()


def test_the_dem_is_never_replaced(pair: Any, tmp_path: Path, fails: Any) -> None:
    dem = write_dem(tmp_path / "dem.tif")
    assert "is one of the inputs" in fails("sharpen", *pair, "-o", dem, *QUIET, "--ortho", dem, "--overwrite")
