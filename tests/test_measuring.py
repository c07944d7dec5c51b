"""`ksdiff metrics` on files: the figures of the arrays, whatever the extent, the blocks and the nodata."""

import base64
import json
import math
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.enums import ColorInterp
from rasterio.transform import Affine
from scipy.ndimage import gaussian_filter
from typer.testing import CliRunner

from ksdiff_cli import metrics
from ksdiff_cli.errors import KsdiffError
from ksdiff_cli.evaluation import examples, measure
from ksdiff_cli.evaluation.measure import measure_against_reference, measure_at_full_resolution
from ksdiff_cli.main import app
from ksdiff_cli.numerics.boxes import Box
from ksdiff_cli.numerics.grids import corner_aligned
from ksdiff_cli.numerics.toolbox import interp23tap, mtf_filter
from ksdiff_cli.sensors import SENSORS

UTM = "EPSG:32633"
CORNER = Affine(0.5, 0, 500000, 0, -0.5, 4600000)


@dataclass
class Folder:
    """Where a test's rasters lie; all share one corner and pixels of 0.5 m unless told otherwise."""

    path: Path

    def write(self, name, image, *, row=0, col=0, cell=1.0, crs=UTM, nodata=None, transform=None):
        image = image if image.ndim == 3 else image[None]
        where = transform or CORNER @ Affine.translation(col, row) @ Affine.scale(cell)
        path = self.path / name
        options = {"crs": crs, "nodata": nodata, "dtype": image.dtype.name} | ({"transform": where} if crs else {})
        with rasterio.open(path, "w", "GTiff", image.shape[2], image.shape[1], image.shape[0], **options) as file:
            file.write(image)
        return path


@pytest.fixture
def folder(tmp_path):
    return Folder(tmp_path)


@pytest.fixture(scope="module")
def images():
    """Truth, PAN, MS and a fused image, 11-bit DN, ratio 4."""
    rng = np.random.default_rng(7)
    base = gaussian_filter(rng.normal(size=(160, 192)), 4)[None] * 40
    truth = gaussian_filter(rng.normal(size=(4, 160, 192)), (0, 2, 2)) * 2 + base + gaussian_filter(base, 1) * 0.2
    truth = np.clip(np.round(truth * 90 + 700), 1, 2047).astype(np.uint16)
    pan = np.round(truth.mean(0)).astype(np.uint16)
    ms = np.round(mtf_filter(truth, (0.3,) * 4, 4)[:, 2::4, 2::4]).astype(np.uint16)
    fused = (interp23tap(ms, 4) + 0.7 * (truth - mtf_filter(truth, (0.3,) * 4, 4))).astype(np.float32)
    return {"truth": truth, "pan": pan, "ms": ms, "fused": fused}


@pytest.fixture
def small_steps(monkeypatch):
    monkeypatch.setattr(measure, "_STEP", (32, 64))


def assert_values(found, expected):
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=1e-10), name


def run(*arguments):
    """Run `ksdiff metrics …`."""
    return CliRunner().invoke(app, ["metrics", *map(str, arguments)])


# ---- against a reference


@pytest.mark.parametrize("crop", ["full", "cut21", "cut30"])
def test_reference_files_equal_arrays(folder, images, small_steps, crop):
    truth, fused = folder.write("truth.tif", images["truth"]), folder.write("fused.tif", images["fused"])
    found = measure_against_reference(fused, truth, crop=crop, sensor="QB")
    expected, _ = metrics.measure_reduced(images["truth"], images["fused"], protocol=crop)
    assert list(found.values) == list(metrics.REDUCED)
    assert_values(found.values, expected)
    assert found.notes == [] and found.left_out == 0
    assert found.size == metrics.crop(images["truth"], crop).shape[:0:-1]


def test_ratio_and_peak(folder, images):
    truth, fused = folder.write("truth.tif", images["truth"]), folder.write("fused.tif", images["fused"])
    plain = measure_against_reference(fused, truth)
    assert plain.settings["peak"] == 2047 and "peak 2047" in plain.notes[0]
    assert measure_against_reference(fused, truth, ratio=2).values["ERGAS"] == 2 * plain.values["ERGAS"]
    landsat = measure_against_reference(fused, truth, sensor="L8")
    assert landsat.ratio == 2 and landsat.settings["peak"] == 65535 and landsat.values["PSNR"] > plain.values["PSNR"]


def test_overlap_by_georeference(folder, images, small_steps):
    truth = folder.write("truth.tif", images["truth"][:, :150])
    fused = folder.write("fused.tif", images["fused"][:, 10:, 21:], row=10, col=21)
    found = measure_against_reference(fused, truth, sensor="QB")
    expected, _ = metrics.measure_reduced(images["truth"][:, 10:150, 21:], images["fused"][:, 10:150, 21:])
    assert_values(found.values, expected)
    assert "common 171 x 140 pixels" in found.notes[0]


def test_without_georeference(folder, images):
    truth = folder.write("truth.tif", images["truth"], crs=None)
    fused = folder.write("fused.tif", images["fused"], crs=None)
    found = measure_against_reference(fused, truth, sensor="QB")
    assert_values(found.values, metrics.measure_reduced(images["truth"], images["fused"])[0])
    assert "corner on corner" in found.notes[0]
    smaller = folder.write("smaller.tif", images["fused"][:, :100], crs=None)
    with pytest.raises(KsdiffError, match="no common georeference"):
        measure_against_reference(smaller, truth)


@pytest.mark.parametrize("spoil", [0, np.nan])
def test_nodata_is_left_out_and_said(folder, images, small_steps, spoil):
    fused, valid = images["fused"].copy(), np.ones((160, 192), bool)
    valid[:20, 100:150] = False
    fused[:, ~valid] = spoil
    paths = folder.write("fused.tif", fused, nodata=spoil), folder.write("truth.tif", images["truth"])
    found = measure_against_reference(*paths, sensor="QB")
    expected, _ = metrics.measure_reduced(images["truth"], np.nan_to_num(fused), valid=valid)
    assert_values(found.values, expected)
    assert found.left_out == 1000 and found.notes == ["1000 of 30720 pixels (3.26%) left out as nodata"]


def test_four_bytes_a_pixel_are_four_bands(folder):
    """GDAL takes the fourth band of an 8-bit file for alpha; zeros there are no nodata."""
    truth = np.random.default_rng(8).integers(1, 255, (4, 64, 64), dtype=np.uint8)
    truth[3, :9] = 0
    path = folder.write("truth.tif", truth)
    with rasterio.open(path) as file:
        assert file.colorinterp[3] == rasterio.enums.ColorInterp.alpha
    assert measure_against_reference(path, path).left_out == 0


def test_a_real_alpha_band_masks_and_is_no_band(folder):
    truth = np.random.default_rng(8).integers(1, 255, (3, 64, 64), dtype=np.uint8)
    alpha = np.full((1, 64, 64), 255, np.uint8)
    alpha[0, :9] = 0
    path, plain = folder.write("rgba.tif", np.concatenate([truth, alpha])), folder.write("rgb.tif", truth)
    found = measure_against_reference(path, plain)
    assert found.bands == 3 and found.left_out == 9 * 64


@pytest.mark.parametrize("bands", [1, 3, 4])
def test_alpha_masks_whatever_the_number_of_bands(folder, bands):
    truth = np.random.default_rng(8).integers(1, 2000, (bands, 64, 64), dtype=np.uint16)
    alpha = np.full((1, 64, 64), 65535, np.uint16)
    alpha[0, :9] = 0
    path, plain = folder.write("with.tif", np.concatenate([truth, alpha])), folder.write("without.tif", truth)
    with rasterio.open(path, "r+") as file:
        file.colorinterp = [ColorInterp.gray] * bands + [ColorInterp.alpha]
    found = measure_against_reference(path, plain)
    assert found.bands == bands and found.left_out == 9 * 64


def test_all_nodata_is_an_error(folder, images):
    fused = folder.write("fused.tif", np.zeros_like(images["fused"]), nodata=0)
    truth = folder.write("truth.tif", images["truth"])
    with pytest.raises(KsdiffError, match="every pixel is nodata"):
        measure_against_reference(fused, truth, maps=folder.path / "maps")
    assert not any((folder.path / "maps").glob("*"))


def test_maps(folder, images, small_steps):
    truth, fused = (folder.write(f"{name}.tif", images[name][:, :150], row=3) for name in ("truth", "fused"))
    found = measure_against_reference(fused, truth, maps=folder.path / "new" / "maps")
    assert [path.name for path in found.maps] == ["sam.tif", "q2n.tif"]
    arrays = images["truth"][:, :150], images["fused"][:, :150]
    for path, expected, cell in zip(
        found.maps, (metrics.sam_map(*arrays), metrics.q2n_map(*arrays)), (1, 32), strict=True
    ):
        with rasterio.open(path) as file:
            np.testing.assert_allclose(file.read(1), expected, rtol=1e-5)
            assert file.crs == UTM and math.isnan(file.nodata)
            assert file.transform.almost_equals(CORNER @ Affine.translation(0, 3) @ Affine.scale(cell))
    with pytest.raises(KsdiffError, match="exists already"):
        measure_against_reference(fused, truth, maps=folder.path / "new" / "maps")
    measure_against_reference(fused, truth, maps=folder.path / "new" / "maps", overwrite=True)
    assert sorted(path.name for path in (folder.path / "new" / "maps").iterdir()) == ["q2n.tif", "sam.tif"]


def test_maps_of_an_earlier_run_survive_one_that_fails(folder, images):
    truth, fused = (folder.write(f"{name}.tif", images[name]) for name in ("truth", "fused"))
    empty = folder.write("empty.tif", np.zeros_like(images["fused"]), nodata=0)
    maps = folder.path / "maps"
    measure_against_reference(fused, truth, maps=maps)
    before = {path.name: path.read_bytes() for path in maps.iterdir()}
    with pytest.raises(KsdiffError, match="every pixel is nodata"):
        measure_against_reference(empty, truth, maps=maps, overwrite=True)
    assert {path.name: path.read_bytes() for path in maps.iterdir()} == before


def test_unit_range_data_get_no_q2n(folder, images):
    truth, fused = (
        folder.write(f"{name}.tif", (images[name] / 2047).astype(np.float32)) for name in ("truth", "fused")
    )
    found = measure_against_reference(fused, truth, maps=folder.path)
    assert math.isnan(found.values["Q2n"]) and found.settings["peak"] == 1
    assert any(line.startswith("Q2n: ") and "rescale" in line for line in found.notes)
    assert [path.name for path in found.maps] == ["sam.tif"] and not (folder.path / "q2n.tif").exists()
    expected, _ = metrics.measure_reduced(images["truth"], images["fused"])
    assert found.values["PSNR"] == pytest.approx(expected["PSNR"], rel=1e-4)


# ---- at full resolution


@pytest.mark.parametrize("sensor", ["QB", None])
def test_full_files_equal_arrays(folder, images, small_steps, sensor):
    pan, ms = folder.write("pan.tif", images["pan"]), folder.write("ms.tif", images["ms"], cell=4)
    fused = folder.write("fused.tif", images["fused"])
    found = measure_at_full_resolution(fused, pan, ms, sensor=sensor, maps=folder.path)
    gains = SENSORS[sensor or "generic"].ms_gains(4)
    expected, _ = metrics.measure_full(images["fused"], images["pan"], images["ms"], gains, 4)
    assert list(found.values) == list(expected)
    assert_values(found.values, expected)
    assert found.ratio == 4 and found.size == (192, 160) and found.left_out == 0
    assert "interp23tap" in found.settings["upsampling"]
    assert found.notes[:-1] == ([] if sensor else ["no --sensor: MTF gain 0.3 for every band"])
    assert "reward softness" in found.notes[-1]
    with rasterio.open(found.maps[0]) as file:
        assert 1 - file.read(1).mean() == pytest.approx(found.values["D_lambda"], abs=1e-6)


def test_full_ratio_2(folder, images, small_steps):
    ms = images["truth"][:, ::2, ::2]
    paths = folder.write("pan.tif", images["pan"]), folder.write("ms.tif", ms, cell=2)
    found = measure_at_full_resolution(folder.write("fused.tif", images["fused"]), *paths)
    assert_values(found.values, metrics.measure_full(images["fused"], images["pan"], ms, (0.3,) * 4, 2)[0])


def test_full_overlap_begins_at_an_ms_pixel(folder, images, small_steps):
    """Three extents; the common part, from an MS pixel's corner on, in multiples of 32."""
    pan = folder.write("pan.tif", images["pan"][5:, :], row=5)
    ms = folder.write("ms.tif", images["ms"], cell=4)
    fused = folder.write("fused.tif", images["fused"][:, :, 9:180], col=9)
    found = measure_at_full_resolution(fused, pan, ms)
    cut = slice(8, 8 + 128), slice(12, 12 + 160)
    small = images["ms"][:, 2 : 2 + 32, 3 : 3 + 40]
    expected, _ = metrics.measure_full(images["fused"][:, *cut], images["pan"][cut], small, (0.3,) * 4, 4)
    assert_values(found.values, expected)
    assert any("160 x 128 of the fused image's 171 x 160" in line for line in found.notes)


def test_full_nodata_is_left_out(folder, images, small_steps):
    fused, pan, ms = (images[name].copy() for name in ("fused", "pan", "ms"))
    fused[:, :3, :3] = pan[:3, :3] = ms[:, :1, :1] = 0
    paths = folder.write("pan.tif", pan, nodata=0), folder.write("ms.tif", ms, cell=4, nodata=0)
    found = measure_at_full_resolution(folder.write("fused.tif", fused, nodata=0), *paths, maps=folder.path)
    clean = measure_at_full_resolution(
        folder.write("clean.tif", images["fused"]),
        folder.write("pan2.tif", images["pan"]),
        folder.write("ms2.tif", images["ms"], cell=4),
    )
    assert found.left_out > 9 and any("left out as nodata" in line for line in found.notes)
    assert found.values["D_lambda"] == pytest.approx(clean.values["D_lambda"], abs=0.01)
    assert found.values["D_lambda"] != clean.values["D_lambda"]
    with rasterio.open(found.maps[0]) as file:
        assert math.isnan(file.read(1)[0, 0])


@pytest.mark.parametrize("corner", [0, 1.5])
def test_full_nodata_is_the_same_streamed_and_in_memory(folder, images, monkeypatch, corner):
    """Holes in all three images; MS on PAN's pixel corners and between them."""
    rng = np.random.default_rng(11)
    images = {name: image.copy() for name, image in images.items()}
    known = {name: np.ones(images[name].shape[-2:], bool) for name in ("fused", "pan", "ms")}
    for name, mask in known.items():
        part = mask[:, mask.shape[1] * 3 // 4 :]
        part[rng.uniform(size=part.shape) < 2e-3] = False
        images[name][..., ~mask] = 0
    assert not any(mask.all() for mask in known.values())
    pan, fused = (folder.write(f"{name}.tif", images[name], nodata=0) for name in ("pan", "fused"))
    ms = folder.write("ms.tif", images["ms"], cell=4, nodata=0, row=corner, col=corner)
    whole = measure_at_full_resolution(fused, pan, ms)
    monkeypatch.setattr(measure, "_STEP", (32, 64))
    # the reference's circular upsampling spreads the holes of MS, so that D_lambda may have no cell left
    known_values = {name: value for name, value in whole.values.items() if math.isfinite(value)}
    assert {"D_rho", "D_sR", "R_Q2n", "R_SAM", "sharpness_next"} <= set(known_values)
    assert_values(measure_at_full_resolution(fused, pan, ms).values, known_values)
    if corner:
        return
    valid = known["fused"] & known["pan"]
    expected = {
        "D_rho": metrics.d_rho(images["fused"], images["pan"], 4, valid),
        "D_sR": metrics.d_sr(images["fused"], images["pan"], valid),
    }
    expected["sharpness_finest"], expected["sharpness_next"] = metrics.sharpness(images["fused"], images["pan"], valid)
    shifts = metrics.find_shifts(images["pan"], images["ms"], (0.3,) * 4, corner_aligned(4), known["pan"], known["ms"])
    assert whole.shifts.shifts.tolist() == shifts.shifts.tolist()
    assert whole.to_dict()["band_shifts"] == shifts.shifts.tolist()
    masks = {"valid": known["fused"], "ms_valid": known["ms"]}
    expected |= metrics.reprojection(images["fused"], images["ms"], (0.3,) * 4, 4, shifts=shifts.shifts, **masks)
    assert_values(whole.values, expected)


def test_full_warps_ms_when_told_to(folder, images):
    pan, fused = folder.write("pan.tif", images["pan"]), folder.write("fused.tif", images["fused"])
    turned = CORNER @ Affine.rotation(3) @ Affine.scale(4)
    ms = folder.write("ms.tif", images["ms"], transform=turned)
    with pytest.raises(KsdiffError, match="--warp"):
        measure_at_full_resolution(fused, pan, ms)
    found = measure_at_full_resolution(fused, pan, ms, warp=True)
    # warped MS lies exactly on PAN's grid, yet the original file is not what the reference's filter may read
    assert "bicubic" in found.settings["upsampling"] and found.left_out > 0


@pytest.mark.parametrize(("ratio", "shift"), [(4, 1.5), (3, 0.0), (2.5, 0.3)])
def test_full_on_other_grids_says_so(folder, images, monkeypatch, ratio, shift):
    """Grids the reference cannot take: the figures stay near, do not depend on blocks, and the change is said."""
    size = math.ceil(200 / ratio)
    at = (np.arange(size) + 0.5) * ratio + shift - 0.5
    rows, cols = (np.clip(np.round(at).astype(int), 0, limit - 1) for limit in (160, 192))
    blurred = mtf_filter(images["truth"], (0.3,) * 4, ratio)
    ms = folder.write("ms.tif", blurred[:, rows][:, :, cols], row=shift, col=shift, cell=ratio)
    pan = folder.write("pan.tif", images["pan"])
    fused = folder.write("fused.tif", images["truth"])
    whole = measure_at_full_resolution(fused, pan, ms)
    assert whole.ratio == pytest.approx(ratio) and "bicubic" in whole.settings["upsampling"]
    assert any("bicubic resampling by the georeference" in line for line in whole.notes)
    assert 0 <= whole.values["D_lambda"] < 0.15 and 0 <= whole.values["D_s"] < 0.15
    monkeypatch.setattr(measure, "_STEP", (32, 64))
    for name, value in measure_at_full_resolution(fused, pan, ms).values.items():
        assert value == pytest.approx(whole.values[name], rel=1e-5), name


# ---- the command


def test_command_reference(folder, images):
    truth, fused = folder.write("truth.tif", images["truth"]), folder.write("fused.tif", images["fused"])
    table = run(fused, "--reference", truth, "--sensor", "QB")
    assert table.exit_code == 0 and all(name in table.stdout for name in metrics.REDUCED)
    result = run(fused, "--reference", truth, "--json", "--ratio", 2, "--crop", "cut21", "-q")
    report = json.loads(result.stdout)
    assert result.stderr == ""
    assert report["protocol"] == "reduced" and report["crop"] == "cut21" and report["ratio"] == 2
    assert set(metrics.REDUCED) <= set(report)
    assert (report["width"], report["height"], report["bands"]) == (192 - 41, 160 - 41, 4)


def test_command_full(folder, images):
    paths = folder.write("pan.tif", images["pan"]), folder.write("ms.tif", images["ms"], cell=4)
    result = run(folder.write("fused.tif", images["fused"]), "--pan", paths[0], "--ms", paths[1], "--json")
    report = json.loads(result.stdout)
    assert report["protocol"] == "full" and report["HQNR"] == pytest.approx(
        (1 - report["D_lambda"]) * (1 - report["D_s"])
    )
    assert {"QNR", "sensor", "upsampling", "notes", "width", "height", "pixels_left_out"} <= set(report)
    assert report["RQNR"] == pytest.approx((1 - report["D_lambda"]) * (1 - report["D_sR"]))
    assert report["D_lambda_align"] == pytest.approx(1 - report["R_Q2n"])
    assert {"D_rho", "R_ERGAS", "R_SAM", "sharpness_finest", "sharpness_next"} <= set(report)
    assert report["SAM_of"] == "DN" and np.shape(report["band_shifts"]) == (4, 2)
    assert "no --sensor" in result.stderr and "reward softness" in result.stderr
    table = run(folder.path / "fused.tif", "--pan", paths[0], "--ms", paths[1]).stdout
    assert "sharpness_finest" in table and "Shift of MS against PAN" in table


def test_what_sam_is_of_is_said(folder, images):
    unit = images["truth"].astype(np.float32) / 2047
    truth, fused = folder.write("truth.tif", unit), folder.write("fused.tif", unit * 1.01)
    assert "SAM of fractions up to" in run(fused, "--reference", truth).stdout
    pan, ms = folder.write("pan.tif", images["pan"]), folder.write("ms.tif", images["ms"], cell=4)
    with rasterio.open(ms, "r+") as file:
        file.offsets = [-0.2] * 4
    judged = folder.write("fused.tif", images["fused"])
    assert "SAM of values by the scales and offsets" in run(judged, "--pan", pan, "--ms", ms).stdout


def test_equal_images_have_no_number_for_psnr(folder, images):
    truth = folder.write("truth.tif", images["truth"])
    report = json.loads(run(truth, "--reference", truth, "--json").stdout)
    assert report["PSNR"] is None and any("infinite" in line for line in report["notes"])
    assert report["SAM"] == 0 and report["Q2n"] == pytest.approx(1)
    assert "∞" in run(truth, "--reference", truth).stdout


def test_command_errors_are_one_line(folder, images):
    truth, fused = folder.write("truth.tif", images["truth"]), folder.write("fused.tif", images["fused"])
    pan, ms = folder.write("pan.tif", images["pan"]), folder.write("ms.tif", images["ms"], cell=4)
    text = folder.path / "notes.txt"
    text.write_text("no raster")
    far = folder.write("far.tif", images["truth"], col=5000)
    other = folder.write("other.tif", images["truth"], crs="EPSG:32634")
    coarse = folder.write("coarse.tif", images["truth"], cell=1.5)
    between = folder.write("between.tif", images["truth"], col=0.4)
    few = folder.write("few.tif", images["truth"][:3])
    narrow = folder.write("narrow.tif", images["fused"][:, :, :20])
    cases = [
        ((folder.path / "none.tif", "--reference", truth), "no such file"),
        ((fused, "--reference", text), "cannot be opened as a raster"),
        ((fused, "--reference", few), "has 4 bands but the reference"),
        ((fused, "--reference", far), "does not overlap"),
        ((fused, "--reference", other), "its CRS"),
        ((fused, "--reference", coarse), "must share one grid"),
        ((fused, "--reference", between), "fraction of a pixel"),
        ((fused, "--reference", truth, "--sensor", "nope"), "no sensor is called"),
        ((fused, "--pan", pan, "--ms", few), "has 4 bands but MS"),
        ((fused, "--pan", pan, "--ms", ms, "--sensor", "WV3"), "8 MS bands but the data have 4"),
        ((fused, "--pan", ms, "--ms", truth), "PAN"),
        ((far, "--pan", pan, "--ms", ms), "does not overlap"),
        ((narrow, "--pan", pan, "--ms", ms), "too few to measure"),
        ((fused, "--reference", truth, "--maps", text), "cannot be made a folder"),
    ]
    for arguments, message in cases:
        result = run(*arguments)
        assert result.exit_code == 1, arguments
        assert message in result.stderr and result.stderr.count("\n") == 1, (arguments, result.stderr)
        assert result.stderr.startswith("Error: ") and result.stdout == ""


def test_command_bad_usage_is_exit_2(folder, images):
    truth = folder.write("truth.tif", images["truth"])
    for arguments in (
        (truth,),
        (truth, "--pan", truth),
        (truth, "--reference", truth, "--ms", truth),
        (truth, "--pan", truth, "--ms", truth, "--crop", "cut21"),
        (truth, "--reference", truth, "--crop", "cut99"),
    ):
        assert run(*arguments).exit_code == 2


# ---- the report


def pixels_of(picture):
    with rasterio.io.MemoryFile(base64.b64decode(picture)) as memory, memory.open() as file:
        return file.read()


def test_report_against_a_reference(folder, images):
    truth, fused = folder.write("truth.tif", images["truth"]), folder.write("fu<s>ed.tif", images["fused"])
    page = folder.path / "out.html"
    result = run(fused, "--reference", truth, "--sensor", "QB", "--report", page)
    assert result.exit_code == 0 and f"written: {page}" in result.stderr
    text = page.read_text("utf-8")
    values = json.loads(run(fused, "--reference", truth, "--sensor", "QB", "--json").stdout)
    assert all(f">{values[name]:.4f}</td>" in text for name in metrics.REDUCED)
    assert "fu&lt;s&gt;ed.tif against truth.tif" in text and "192 × 160 pixels, 0 left out as nodata" in text
    pictures = re.findall(r'base64,([^"]+)" alt="([^"]+)"', text)
    assert [alt for _, alt in pictures if "overview" in alt] == [
        "fu&lt;s&gt;ed.tif: overview of fu&lt;s&gt;ed.tif, whole image",
        "truth: overview of fu&lt;s&gt;ed.tif, whole image",
    ]
    red = pixels_of(pictures[1][0])[0].astype(float)
    assert np.corrcoef(red.ravel(), images["truth"][2].ravel())[0, 1] > 0.97
    before = page.read_bytes()
    assert "exists already" in run(fused, "--reference", truth, "--report", page).stderr
    run(fused, "--reference", truth, "--sensor", "QB", "--report", page, "--overwrite")
    assert page.read_bytes() == before
    failed = folder.path / "failed.html"
    assert run(folder.path / "none.tif", "--reference", truth, "--report", failed).exit_code == 1
    assert not failed.exists()


@pytest.mark.parametrize("ratio", [4, 3])
def test_report_at_full_resolution(folder, images, ratio):
    """On grids that the reference's upsampling takes, and on others."""
    ms = images["ms"] if ratio == 4 else images["truth"][:, 1::3, 1::3]
    paths = folder.write("pan.tif", images["pan"]), folder.write("ms.tif", ms, cell=ratio)
    found = measure_at_full_resolution(folder.write("fused.tif", images["fused"]), *paths, pictures=True)
    (example,) = found.examples
    height, width = found.size[::-1]
    assert example.fused["fused.tif"].shape == (4, height, width) and example.truth is None
    np.testing.assert_array_equal(example.pan, images["pan"][:height, :width])
    np.testing.assert_allclose(example.fused["fused.tif"], images["fused"][:, :height, :width])
    assert np.corrcoef(example.ms_up.ravel(), images["truth"][:, :height, :width].ravel())[0, 1] > 0.8
    page = found.to_report("ksdiff", Path("fused.tif"), {"PAN": paths[0], "MS": paths[1]})
    assert page.title == "fused.tif against pan.tif and ms.tif" and page.facts["MS"] == str(paths[1])
    assert page.values == {"fused.tif": {name: [value] for name, value in found.values.items()}}


@pytest.mark.parametrize("protocol", ["reduced", "full"])
def test_a_large_image_is_shown_by_an_overview_and_windows(folder, images, small_steps, monkeypatch, protocol):
    """Gathered block by block: means of the valid pixels; windows pixel by pixel, where data are valid."""
    monkeypatch.setattr(examples, "WINDOW", 48)
    fused = images["fused"].copy()
    fused[:, :64, :64] = 0
    path = folder.write("fused.tif", fused, nodata=0)
    if protocol == "reduced":
        found = measure_against_reference(path, folder.write("truth.tif", images["truth"]), pictures=True)
    else:
        pan, ms = folder.write("pan.tif", images["pan"]), folder.write("ms.tif", images["ms"], cell=4)
        found = measure_at_full_resolution(path, pan, ms, pictures=True)
    overview, *windows = found.examples
    assert overview.reduction == 4 and overview.shape == (4, 40, 48) and len(windows) == 3
    means = fused.reshape(4, 40, 4, 48, 4).mean((2, 4))
    inside = np.s_[:, 24:, 24:]
    np.testing.assert_allclose(overview.fused["fused.tif"][inside], means[inside], rtol=1e-5)
    assert not overview.valid[:16, :16].any() and overview.valid[24:, 24:].all()
    counted = found.size[0] * found.size[1] - found.left_out
    assert abs(int(overview.valid.sum()) * 16 - counted) < 0.05 * counted
    for mark, window in zip(overview.boxes, windows, strict=True):
        row, col = (int(re.search(rf"{side} (\d+)", window.note).group(1)) for side in ("rows", "columns"))
        assert mark.box == Box(row // 4, col // 4, row // 4 + 12, col // 4 + 12)
        assert window.valid.mean() > 0.8
        cut = fused[:, row : row + 48, col : col + 48]
        np.testing.assert_allclose(window.fused["fused.tif"][:, window.valid], cut[:, window.valid], rtol=1e-6)


def test_bands_to_show_go_by_name(folder, images):
    path = folder.write("fused.tif", images["fused"])
    with rasterio.open(path, "r+") as file:
        file.descriptions = ("Red", "Green", "nir", "Blue")
    truth = folder.write("truth.tif", images["truth"])
    found = measure_at_full_resolution(
        path,
        folder.write("pan.tif", images["pan"]),
        folder.write("ms.tif", images["ms"], cell=4),
        pictures=True,
    )
    assert found.examples[0].bands == (0, 1, 3)
    assert measure_against_reference(path, truth, pictures=True).examples[0].bands == (2, 1, 0)
    assert measure_against_reference(path, truth).examples == []


# ---- what files say of their values


def declare(path, scales, offsets, names=None):
    with rasterio.open(path, "r+") as file:
        file.scales, file.offsets = (scales,) * file.count, (offsets,) * file.count
        if names:
            file.descriptions = names
    return path


def test_scales_and_offsets_are_honoured(folder, images):
    truth, fused = images["truth"], images["fused"]
    plain = measure_against_reference(folder.write("f.tif", fused), folder.write("t.tif", truth))
    # the same in other units: reflectances of a tenth of a thousandth a step, 1000 steps above it, or as floats
    stored = declare(folder.write("s.tif", (truth + 1000).astype(np.uint16)), 1e-4, -0.1)
    other = declare(folder.write("o.tif", fused + 500), 1e-4, -0.05)
    reflectance = folder.write("r.tif", fused * np.float32(1e-4))
    for path in (other, reflectance):
        found = measure_against_reference(path, stored)
        for name in plain.values:
            assert found.values[name] == pytest.approx(plain.values[name], rel=2e-3), name
        assert sum("scales and offsets" in note for note in found.notes) == 1
    # one scale and no offset: as DN, and nothing to say
    same = [declare(folder.write(name, image), 1e-4, 0.0) for name, image in (("a.tif", fused), ("b.tif", truth))]
    again = measure_against_reference(*same)
    assert again.values == plain.values and not any("scales" in note for note in again.notes)
    # an offset that all share changes angles: they are of what the files mean
    both = measure_against_reference(declare(folder.write("c.tif", fused + 1000), 1e-4, -0.1), stored)
    assert both.values["SAM"] == pytest.approx(plain.values["SAM"], rel=1e-4)


@pytest.mark.parametrize("scale", [0.0, np.nan, np.inf])
def test_a_scale_that_says_nothing_is_none(scale, folder, images):
    plain = [folder.write(name, images[of]) for name, of in (("f.tif", "fused"), ("t.tif", "truth"))]
    expected = measure_against_reference(*plain).values
    found = measure_against_reference(declare(folder.write("s.tif", images["fused"]), scale, 0.0), plain[1])
    assert found.values == expected


@pytest.mark.parametrize("cell", [4, 4.02])
def test_scales_and_offsets_are_honoured_at_full_resolution(cell, folder, images):
    pan, ms, fused = images["pan"], images["ms"], images["fused"]
    plain = [folder.write("p.tif", pan), folder.write("m.tif", ms, cell=cell)]
    expected = measure_at_full_resolution(folder.write("f.tif", fused), *plain).values
    scaled = declare(folder.write("s.tif", (ms + 1000).astype(np.uint16), cell=cell), 1e-4, -0.1)
    reflectance = folder.write("r.tif", fused * np.float32(1e-4))
    for p in (plain[0], declare(folder.write("q.tif", pan * 10), 1e-5, 0.0)):
        found = measure_at_full_resolution(reflectance, p, scaled)
        for name in expected:
            assert found.values[name] == pytest.approx(expected[name], abs=2e-4), name
        assert sum("scales and offsets" in note for note in found.notes) == 1


def test_bands_in_another_order_by_name_are_told(folder, images):
    truth, fused = folder.write("t.tif", images["truth"]), folder.write("f.tif", images["fused"])
    names = ("blue", "green", "red", "nir")
    declare(truth, 1, 0, names)
    for own, told in ((names, False), (("Blue", "GREEN", "red", "NIR"), False), (names[::-1], True), (None, False)):
        declare(fused, 1, 0, own or ("",) * 4)
        notes = measure_against_reference(fused, truth).notes
        assert any("by number" in note for note in notes) is told
    declare(fused, 1, 0, ("red", "green", "blue", "nir"))
    (note,) = [note for note in measure_against_reference(fused, truth).notes if "by number" in note]
    assert "band 1 is called red in the fused image but blue in the reference, where band 3 is red" in note
    ms = declare(folder.write("m.tif", images["ms"], cell=4), 1, 0, names)
    pan = folder.write("p.tif", images["pan"])
    assert any("by number" in note for note in measure_at_full_resolution(fused, pan, ms).notes)
