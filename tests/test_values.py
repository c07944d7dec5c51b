"""Values that a method cannot make sense of: around 0, without any detail, indexes instead of brightness."""

from typing import Any

import numpy as np
import pytest
import rasterio
from conftest import PairFiles, write_raster
from numpy.typing import NDArray
from rasterio.transform import Affine

from ksdiff_cli import KsdiffError, measure, sharpen_array
from ksdiff_cli.classical import METHODS
from ksdiff_cli.simulation.files import simulate_arrays

Array = NDArray[Any]
DIVIDING = [name for name, method in METHODS.items() if method.divides]


@pytest.fixture(scope="module")
def images() -> tuple[Array, Array, Array]:
    """PAN, MS and truth, int32."""
    pan, ms, truth = (image.astype(np.int32) for image in simulate_arrays(192, seed=1))
    return pan, ms, truth


def rms(image: Array) -> float:
    return float(np.sqrt(np.square(image, dtype=np.float64).mean()))


def test_the_methods_that_divide_are_known() -> None:
    assert DIVIDING == ["brovey", "bt-h", "mtf-glp-hpm-r", "awlp", "awlp-r", "pracs"]


@pytest.mark.parametrize("method", ["ksdiff", *METHODS])
def test_data_around_zero_are_sharpened_or_refused(method: str, images: tuple[Array, ...]) -> None:
    middle = int(np.median(images[1]))
    pan, ms, truth = ((image - middle).astype(np.int16) for image in images)
    if method in DIVIDING:
        with pytest.raises(KsdiffError, match=rf"around 0 .* {method} divides by radiances: take .*gsa"):
            sharpen_array(pan, ms, method=method)
    else:
        found = sharpen_array(pan, ms, method=method)
        blurred = sharpen_array(pan, ms, method="exp")
        assert rms(found - truth) < (1.01 if method == "exp" else 0.7) * rms(blurred - truth)


@pytest.mark.parametrize("method", DIVIDING)
def test_a_little_below_zero_does_not_blow_up(method: str, images: tuple[Array, ...]) -> None:
    haze = int(np.percentile(images[1], 3))
    pan, ms, truth = (image - haze for image in images)
    found, blurred = (sharpen_array(pan, ms, method=name) for name in (method, "exp"))
    assert rms(found - truth) < 0.7 * rms(blurred - truth)
    assert np.abs(found).max() < 3 * np.abs(truth).max()


@pytest.mark.parametrize("level", [0, 700])
@pytest.mark.parametrize("method", ["ksdiff", *METHODS])
def test_a_flat_pan_is_refused(method: str, level: int, images: tuple[Array, ...]) -> None:
    flat = np.full_like(images[0], level)
    if method == "exp":
        assert sharpen_array(flat, images[1], method=method).shape == images[2].shape
        return
    with pytest.raises(KsdiffError, match=rf"PAN is {level} everywhere.*--method exp"):
        sharpen_array(flat, images[1], method=method)


def test_a_flat_pan_in_files_is_one_line(make_pair: Any, fails: Any) -> None:
    files = make_pair(edit=lambda pan, ms: pan.fill(9))
    line = fails("sharpen", files.pan, files.ms, "-o", files.folder / "out.tif", "--method", "brovey", "--consistent")
    assert "pan.tif: PAN is 9 everywhere" in line
    assert sorted(path.name for path in files.folder.iterdir()) == ["ms.tif", "pan.tif"]


def test_values_too_small_for_float32_are_refused(make_pair: Any, fails: Any) -> None:
    def shrink(pan: Array, ms: Array) -> None:
        ms *= 1e-300

    files = make_pair(dtype="float64", edit=shrink)
    line = fails("sharpen", files.pan, files.ms, "-o", files.folder / "out.tif", "--method", "exp")
    assert "ms.tif: its values are too small to compute with" in line


@pytest.mark.parametrize(("dtype", "above"), [("float64", 1e9), ("int32", 2e9), ("float64", -1e13)])
def test_differences_too_small_for_float32_are_refused(dtype: str, above: float, make_pair: Any, fails: Any) -> None:
    def raise_all(pan: Array, ms: Array) -> None:
        ms += np.array(above, dtype)

    files = make_pair(dtype=dtype, edit=raise_all)
    line = fails("sharpen", files.pan, files.ms, "-o", files.folder / "out.tif", "--method", "exp")
    assert "ms.tif: has values about" in line and "subtract a constant" in line


def test_a_constant_band_of_a_wide_type_is_not(make_pair: Any, run: Any) -> None:
    def flatten(pan: Array, ms: Array) -> None:
        ms[1] = 77
        ms[:, :3] = 0

    files = make_pair(dtype="int32", edit=flatten, ms_profile={"nodata": 0})
    out = files.folder / "out.tif"
    assert run("sharpen", files.pan, files.ms, "-o", out, "--method", "exp").exit_code == 0
    with rasterio.open(out) as dataset:
        assert (dataset.read(2)[dataset.read_masks(2) > 0] == 77).all()


# --- colour tables ---


def give_table(files: PairFiles, which: str, table: dict[int, tuple[int, ...]]) -> None:
    """Make an 8-bit image of a pair one of indexes into a table; MS keeps one band."""
    path = {"pan": files.pan, "ms": files.ms}[which]
    with rasterio.open(path) as dataset:
        image, place = dataset.read(1), {"crs": dataset.crs, "transform": dataset.transform}
    write_raster(path, image, **place, photometric="palette")
    with rasterio.open(path, "r+") as dataset:
        dataset.write_colormap(1, table)


@pytest.mark.parametrize("which", ["pan", "ms"])
@pytest.mark.parametrize("command", ["sharpen", "metrics", "prepare-data"])
def test_indexes_into_a_colour_table_are_refused(command: str, which: str, make_pair: Any, fails: Any) -> None:
    files = make_pair(dtype="uint8", bands=1)
    give_table(files, which, {i: (255 - i, i, 7, 255) for i in range(256)})
    commands = {
        "sharpen": ("sharpen", files.pan, files.ms, "-o", files.folder / "out.tif", "--method", "exp"),
        "metrics": ("metrics", files.ms, "--pan", files.pan, "--ms", files.ms),
        "prepare-data": ("prepare-data", files.folder, "-o", files.folder / "patches"),
    }
    line = fails(*commands[command])
    assert f"{which}.tif: band 1 holds indexes into a colour table" in line and "gdal_translate -expand rgb" in line


def test_a_table_of_greys_is_brightness(make_pair: Any, run: Any) -> None:
    files = make_pair(dtype="uint8", bands=1)
    give_table(files, "pan", {i: (i, i, i, 255) for i in range(256)})
    assert run("sharpen", files.pan, files.ms, "-o", files.folder / "out.tif", "--method", "exp").exit_code == 0


def test_bands_that_are_left_out_may_have_tables(make_pair: Any, tmp_path: Any, run: Any) -> None:
    files = make_pair(dtype="uint8", bands=1)
    other = tmp_path / "classes.tif"
    other.write_bytes(files.ms.read_bytes())
    give_table(PairFiles(tmp_path, files.pan, other), "ms", {i: (255 - i, i, 7, 255) for i in range(256)})
    command = ("sharpen", files.pan, files.ms, other, "-o", tmp_path / "out.tif", "--method", "exp")
    assert run(*command).exit_code == 1
    assert run(*command, "-b", 1).exit_code == 0


def test_a_reference_with_a_table_is_refused(tmp_path: Any) -> None:
    image = np.arange(64 * 64, dtype="uint8").reshape(64, 64)
    place = {"crs": "EPSG:32631", "transform": Affine(1, 0, 0, 0, -1, 99)}
    plain = write_raster(tmp_path / "plain.tif", image, **place)
    table = write_raster(tmp_path / "table.tif", image, **place, photometric="palette")
    with rasterio.open(table, "r+") as dataset:
        dataset.write_colormap(1, {i: (255 - i, i, 7, 255) for i in range(256)})
    with pytest.raises(KsdiffError, match="colour table"):
        measure(plain, reference=table)


# --- ratios ---


@pytest.mark.parametrize("ratio", [1.3, 1.5, 1.75])
@pytest.mark.parametrize("warp", [False, True])
def test_the_true_ratio_decides_whether_the_network_is_used(
    ratio: float, warp: bool, make_pair: Any, fails: Any, run: Any, weights: Any
) -> None:
    grid = Affine(0.5 * ratio, 0, 593270, 0, -0.5 * ratio, 5747657)
    files = make_pair(ms_grid=grid @ Affine.rotation(3) if warp else grid, size=(160, 160))
    command = ("sharpen", files.pan, files.ms, *(["--warp"] if warp else []), "--no-registration-check", "-o")
    # what was trained from ratio 2 on, whatever is shipped
    line = fails(*command, files.folder / "out.tif", "--checkpoint", weights(bands=4))
    assert f"not {ratio:.3g}:" in line and "gsa" in line
    assert run(*command, files.folder / "gsa.tif", "--method", "gsa").exit_code == 0


def test_a_nominal_ratio_of_two_is_enough(make_pair: Any, run: Any) -> None:
    files = make_pair(ms_grid=Affine(0.994, 0, 593270, 0, -0.994, 5747657), size=(160, 160))
    assert run("sharpen", files.pan, files.ms, "-o", files.folder / "out.tif").exit_code == 0


def test_the_coarser_axis_does_not_hide_the_finer(make_pair: Any, fails: Any, weights: Any) -> None:
    files = make_pair(ms_grid=Affine(0.75, 0, 593270, 0, -1.5, 5747657), ms_size=(53, 106), size=(160, 160))
    command = ("sharpen", files.pan, files.ms, "-o", files.folder / "out.tif")
    assert "not 1.5:" in fails(*command, "--checkpoint", weights(bands=4))


def test_patches_are_degraded_by_whole_ratios_and_say_what_is_not(make_pair: Any, fails: Any, run: Any) -> None:
    files = make_pair(ms_grid=Affine(0.65, 0, 593270, 0, -0.65, 5747657), size=(300, 300))
    command = ("prepare-data", files.folder, "-o", files.folder.parent / "patches", "--patch", 16, "--dry-run")
    assert "its ratio is 1.3, but patches are degraded by a whole number" in fails(*command)
    done = run(*command, "--ratio", 2)
    assert done.exit_code == 0 and "degraded by 2 though its own ratio is 1.3" in done.stderr
