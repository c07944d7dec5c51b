"""What is said of two images' grids: bands that do not share one, images without geotransforms, real scenes."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import rasterio
from conftest import write_raster
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS
from rasterio.rpc import RPC
from rasterio.transform import Affine

from ksdiff_cli.errors import KsdiffError
from ksdiff_cli.numerics.grids import corner_aligned
from ksdiff_cli.products import find_scenes
from ksdiff_cli.products import make_pair as scene_of
from ksdiff_cli.raster.pair import open_pair


def rpcs(line: float, sample: float) -> RPC:
    """RPCs of an image seen straight from above."""
    first, line_of, sample_of = [1.0] + [0.0] * 19, [0.0] * 20, [0.0] * 20
    line_of[2], sample_of[1] = -1.0, 1.0
    return RPC(
        height_off=100, height_scale=500, lat_off=48, lat_scale=0.1, long_off=10, long_scale=0.1,
        line_off=line, line_scale=line, line_num_coeff=line_of, line_den_coeff=first,
        samp_off=sample, samp_scale=sample, samp_num_coeff=sample_of, samp_den_coeff=first,
        err_bias=None, err_rand=None,
    )  # fmt: skip


def test_bands_of_ms_on_different_grids_are_refused_by_the_pixel(tmp_path: Path) -> None:
    degrees = Affine(6e-6, 0, 10, 0, -6e-6, 48), Affine(2.4e-5, 0, 10, 0, -2.4e-5, 48)
    image = np.ones((1, 60, 70), "uint8")
    pan = write_raster(tmp_path / "p.tif", np.ones((240, 280), "uint8"), crs="EPSG:4326", transform=degrees[0])
    first = write_raster(tmp_path / "a.tif", image, crs="EPSG:4326", transform=degrees[1])
    # a fifth of a pixel, though equal to five digits
    moved = degrees[1] @ Affine.translation(0.2, 0)
    for grid, crs, other, why in (
        (moved, "EPSG:4326", image, "0.20 columns"),
        (degrees[1], "EPSG:4258", image, "EPSG:4258, not EPSG:4326"),
        (degrees[1], "EPSG:4326", image[:, :50], "70 x 50 pixels, not 70 x 60"),
    ):
        second = write_raster(tmp_path / "b.tif", other, crs=crs, transform=grid)
        scene = scene_of(str(pan), [str(first), str(second)])
        with pytest.raises(KsdiffError, match=f"b.tif: lies on another grid than .*{why}"), open_pair(scene):
            pass


@pytest.mark.parametrize(
    ("pan_geometry", "ms_geometry", "words"),
    [
        ("none", "none", "no geotransform: PAN and MS are laid corner on corner at ratio 4"),
        ("gcps", "gcps", "no geotransform, only 4 GCPs: PAN and MS are laid corner on corner at ratio 4 and kept in"),
        ("rpcs", "none", "PAN has no geotransform, only RPCs; MS has no geotransform: PAN and MS are laid corner"),
        ("transform", "rpcs", "MS has no geotransform, only RPCs: PAN and MS are laid corner on corner at ratio 4"),
        ("transform", "none", "MS has no geotransform: PAN and MS are laid corner on corner at ratio 4"),
        ("crs", "crs", "no geotransform: PAN and MS are laid corner on corner at ratio 4"),
        ("crs", "transform", "PAN has no geotransform: PAN and MS are laid corner on corner at ratio 4"),
        ("pixel numbers", "pixel numbers", "no geotransform: PAN and MS are laid corner on corner at ratio 4"),
    ],
)
def test_without_geotransforms_corners_meet(pan_geometry: str, ms_geometry: str, words: str, tmp_path: Path) -> None:
    profiles: dict[str, dict[str, Any]] = {
        "none": {},
        "transform": {"crs": "EPSG:32632", "transform": Affine(0.5, 0, 210_000, 0, -0.5, 5_400_000)},
        "crs": {"crs": "EPSG:32632"},
        "pixel numbers": {"transform": Affine.scale(1, -1)},
    }
    paths = []
    for name, kind, shape in (("pan", pan_geometry, (240, 280)), ("ms", ms_geometry, (60, 70))):
        path = write_raster(tmp_path / f"{name}.tif", np.ones(shape, "uint8"), **profiles.get(kind, {}))
        with rasterio.open(path, "r+") as dataset:
            if kind == "rpcs":
                dataset.rpcs = rpcs(shape[0] / 2, shape[1] / 2)
            elif kind == "gcps":
                corners = [(0, 0), (0, shape[1]), shape, (shape[0], 0)]
                points = [GroundControlPoint(row, col, 10 + col * 1e-5, 48 - row * 1e-5, 0) for row, col in corners]
                dataset.gcps = points, CRS.from_epsg(4326)
        paths.append(str(path))
    for warp in (False, True):  # which has nothing to do here
        with open_pair(replace(scene_of(paths[0], [paths[1]]), warp=warp)) as pair:
            assert pair.grid == corner_aligned(4)
            assert pair.shape == (240, 280)
            (note,) = pair.notes
            assert note.startswith(words)


@pytest.mark.parametrize(
    ("name", "ratio", "offset"),
    [
        ("wv3_georef", (4, 4), (-0.625, -0.875)),
        ("zhengzhou_noninteger", (2.01 / 0.50062478, 2 / 0.49812506), (-0.0023, -0.0005)),
        ("landsat_istanbul", (2, 2), (0, 0)),
        # points: PAN's first centre lies at 452475 E, that of MS at 452490 E, half an MS pixel of 30 m apart
        ("landsat8_clouds", (2, 2), (-0.5, -0.5)),
        ("rotterdam/1", (4.00024,) * 2, (-0.375,) * 2),
    ],
)
def test_real_scenes(name: str, ratio: tuple[float, float], offset: tuple[float, float], real_data: Any) -> None:
    (scene,) = find_scenes(real_data(name))
    with open_pair(scene) as pair:
        axes = pair.grid.rows, pair.grid.cols
        assert [1 / axis.scale for axis in axes] == pytest.approx(ratio, abs=1e-4)
        assert [axis.offset for axis in axes] == pytest.approx(offset, abs=1e-4)
        assert pair.shape == pair.pan.shape


# --- whose georeference the output has ---


@pytest.mark.parametrize(("bare", "format"), [("pan", "GTiff"), ("ms", "COG"), ("pan", "VRT")])
def test_the_output_is_in_the_crs_that_one_image_names(bare: str, format: Any, make_pair: Any, run: Any) -> None:
    files = make_pair()
    path = {"pan": files.pan, "ms": files.ms}[bare]
    with rasterio.open(path) as dataset:
        image, transform = dataset.read(), dataset.transform
    write_raster(path, image, transform=transform)
    out = files.folder / f"out{'.vrt' if format == 'VRT' else '.tif'}"
    command = ("sharpen", files.pan, files.ms, "-o", out, "--method", "exp", "-f", format)
    # a part of it, by coordinates of another CRS, too
    for more in ((), ("--bbox", "593275,5747620,593300,5747650", "--bbox-crs", "EPSG:32631", "--overwrite")):
        assert run(*command, *more).exit_code == 0
        with rasterio.open(out) as made:
            assert made.crs == CRS.from_epsg(32631)
            assert made.transform.a == 0.5


@pytest.mark.parametrize("kind", ["MS only", "MS only, PAN names a CRS", "MS upside down"])
def test_ms_places_a_pan_without_geotransform(kind: str, tmp_path: Path, run: Any) -> None:
    grid = Affine(2, 0, 593270, 0, -2, 5747657)
    if kind == "MS upside down":
        grid = Affine(2, 0, 593270, 0, 2, 5747609)
    image = np.random.default_rng(0).integers(1, 255, (96, 128), "uint8")
    more = {"crs": "EPSG:32631"} if "CRS" in kind else {}
    pan = write_raster(tmp_path / "pan.tif", image, **more)
    ms = write_raster(tmp_path / "ms.tif", image[::4, ::4], crs="EPSG:32631", transform=grid)
    out = tmp_path / "out.tif"
    done = run("sharpen", pan, ms, "-o", out, "--method", "exp", "--no-registration-check", "--window", "8,16,40,64")
    assert done.exit_code == 0 and "whose georeference the output takes" in done.stderr
    with rasterio.open(out) as made:
        assert made.crs == CRS.from_epsg(32631)
        assert made.transform.almost_equals(grid @ Affine.scale(0.25) @ Affine.translation(16, 8))


def test_rpcs_of_pan_are_not_replaced_by_the_georeference_of_ms(tmp_path: Path, run: Any) -> None:
    image = np.random.default_rng(0).integers(1, 255, (96, 128), "uint8")
    pan = write_raster(tmp_path / "pan.tif", image)
    with rasterio.open(pan, "r+") as dataset:
        dataset.rpcs = rpcs(48, 64)
    grid = Affine(2, 0, 593270, 0, -2, 5747657)
    ms = write_raster(tmp_path / "ms.tif", image[::4, ::4], crs="EPSG:32631", transform=grid)
    out = tmp_path / "out.tif"
    done = run("sharpen", pan, ms, "-o", out, "--method", "exp", "--no-registration-check")
    assert done.exit_code == 0 and "kept in sensor geometry" in done.stderr
    with rasterio.open(out) as made:
        assert made.rpcs is not None and made.transform == Affine.identity()


@pytest.mark.parametrize("crs", [None, "EPSG:32631"])
@pytest.mark.parametrize("ratio", [4, 2])
def test_a_grid_of_metres_from_zero_keeps_its_geotransform(
    ratio: int, crs: str | None, make_pair: Any, run: Any
) -> None:
    grid = Affine(1, 0, 0, 0, -1, 0)
    files = make_pair(crs=None, pan_grid=grid, ms_grid=grid @ Affine.scale(ratio), size=(96, 128))
    for path, own in ((files.pan, grid), (files.ms, grid @ Affine.scale(ratio))):
        with rasterio.open(path) as dataset:
            image = dataset.read()
        write_raster(path, image, transform=own, crs=crs)
    out = files.folder / "out.tif"
    done = run("sharpen", files.pan, files.ms, "-o", out, "--method", "exp", "--no-registration-check")
    assert done.exit_code == 0 and "geotransform" not in done.stderr
    with rasterio.open(out) as made:
        assert made.transform == grid and (made.crs is None) == (crs is None)
    part = run("sharpen", files.pan, files.ms, "-o", out, "--method", "exp", "--bbox", "0,-10,20,0", "--overwrite")
    assert part.exit_code == 0
    with rasterio.open(out) as made:
        assert made.shape == (10, 20)


@pytest.mark.parametrize(
    ("heights", "of"), [("EPSG:32631+5773", "ms"), ("EPSG:32631+3855", "pan"), ("OGC:CRS84h", "ms")]
)
def test_heights_in_a_crs_do_not_matter(heights: str, of: str, make_pair: Any, run: Any) -> None:
    flat = "EPSG:4326" if "84h" in heights else "EPSG:32631"
    tall = "EPSG:4979" if "84h" in heights else heights
    files = make_pair(crs=flat)
    out, words = files.folder / "out.tif", ("--method", "exp", "--no-registration-check", "-q")
    assert run("sharpen", files.pan, files.ms, "-o", out, *words).exit_code == 0
    with rasterio.open(getattr(files, of), "r+") as dataset:
        dataset.crs = CRS.from_user_input(tall)
    other = files.folder / "other.tif"
    done = run("sharpen", files.pan, files.ms, "-o", other, *words)
    assert done.exit_code == 0, done.output
    with rasterio.open(out) as first, rasterio.open(other) as second:
        np.testing.assert_array_equal(first.read(), second.read())
        assert second.crs == CRS.from_user_input(tall if of == "pan" else flat)
    assert run("metrics", other, "--pan", files.pan, "--ms", files.ms).exit_code == 0
    assert run("metrics", other, "--reference", out).exit_code == 0


def test_other_places_stay_others_whatever_their_heights(make_pair: Any, fails: Any) -> None:
    files = make_pair()
    with rasterio.open(files.pan, "r+") as dataset:
        dataset.crs = CRS.from_user_input("EPSG:32632+5773")
    assert "its CRS" in fails("sharpen", files.pan, files.ms, "-o", files.folder / "out.tif")


@pytest.mark.parametrize(
    "bad",
    [
        Affine(0, 0, 5, 0, 0, 5),
        Affine(1, 1, 5, 1, 1, 5),
        Affine(math.nan, 0, 5, 0, -1, 5),
        Affine(math.inf, 0, 5, 0, -1, 5),
        Affine(1, 0, math.nan, 0, -1, 5),
    ],
)
def test_a_geotransform_that_places_nothing_is_none(bad: Affine, make_pair: Any, run: Any) -> None:
    files = make_pair()
    for path in (files.pan, files.ms):
        with rasterio.open(path, "r+") as dataset:
            dataset.transform = bad
    out = files.folder / "out.tif"
    done = run("sharpen", files.pan, files.ms, "-o", out, "--method", "exp")
    assert done.exit_code == 0 and "no geotransform: PAN and MS are laid corner on corner" in done.stderr
    with rasterio.open(out) as made:
        assert made.transform == Affine.identity() and made.read().any()
    for words in (("--pan", files.pan, "--ms", files.ms), ("--reference", out)):
        measured = run("metrics", out, *words)
        assert measured.exit_code == 0, measured.output


@pytest.mark.parametrize("command", ["sharpen", "metrics", "reference", "info"])
def test_sizes_that_no_disk_holds_are_refused_at_once(command: str, tmp_path: Path, run: Any, fails: Any) -> None:
    for name, side, cell, bands in (("pan", 2_000_000_000, 1, 1), ("ms", 500_000_000, 4, 4)):
        band = "".join(f'<VRTRasterBand dataType="UInt16" band="{number + 1}"/>' for number in range(bands))
        (tmp_path / f"{name}.vrt").write_text(
            f'<VRTDataset rasterXSize="{side}" rasterYSize="{side}"><SRS>EPSG:32631</SRS>'
            f"<GeoTransform>500000,{cell},0,5400000,0,-{cell}</GeoTransform>{band}</VRTDataset>"
        )
    pan, ms = tmp_path / "pan.vrt", tmp_path / "ms.vrt"
    words = {
        "sharpen": ("sharpen", pan, ms, "-o", tmp_path / "out.tif", "--window", "0,0,64,64"),
        "metrics": ("metrics", ms, "--pan", pan, "--ms", ms),
        "reference": ("metrics", pan, "--reference", pan),
    }
    if command == "info":
        assert run("info", pan).exit_code == 0
    else:
        assert "declares" in (line := fails(*words[command])) and "pixels, more than any scene has" in line


def test_bands_without_end_are_refused(tmp_path: Path, fails: Any) -> None:
    band = "".join(f'<VRTRasterBand dataType="Byte" band="{number}"/>' for number in range(1, 30001))
    many = tmp_path / "many.vrt"
    many.write_text(f'<VRTDataset rasterXSize="9" rasterYSize="9">{band}</VRTDataset>')
    assert "declares 30000 bands" in fails("info", many)
    assert "declares 30000 bands" in fails("sharpen", many, many, "-o", tmp_path / "out.tif")


def test_a_file_of_several_images_names_them(tmp_path: Path, fails: Any) -> None:
    path = tmp_path / "ms.h5"
    with h5py.File(path, "w") as file:
        for name in ("B1", "B2"):
            file[name] = np.ones((64, 64), "uint16")
    line = fails("sharpen", path, path, "-o", tmp_path / "out.tif")
    assert "holds 2 images, so name the one that is meant: " in line and "B1" in line and "B2" in line


@pytest.mark.parametrize("alike", [True, False])
def test_a_pan_image_of_three_bands(alike: bool, make_pair: Any, run: Any, fails: Any) -> None:
    files = make_pair()
    with rasterio.open(files.pan) as dataset:
        image, profile = dataset.read(), dataset.profile | {"count": 3}
    three = np.repeat(image, 3, 0)
    three[2, 40, 50] += not alike
    grey = files.folder / "grey.tif"
    with rasterio.open(grey, "w", **profile) as dataset:
        dataset.write(three)
    out = files.folder / "out.tif"
    if not alike:
        assert "are PAN and MS swapped?" in fails("sharpen", grey, files.ms, "-o", out)
    named = grey if alike else f"vrt://{grey}?bands=1"
    assert run("sharpen", named, files.ms, "-o", out, "--method", "exp").exit_code == 0
