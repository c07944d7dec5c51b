"""Fill that no file declares: it is told, and what a person says of it holds as if the file said so."""

import json
import warnings
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from conftest import write_raster
from numpy.typing import NDArray
from rasterio.transform import Affine
from scipy.ndimage import gaussian_filter

from ksdiff_cli import KsdiffError, measure, prepare_patches, sharpen_array, sharpen_scene
from ksdiff_cli.checks import read_nodata
from ksdiff_cli.classical import METHODS
from ksdiff_cli.raster.bands import BandSource
from ksdiff_cli.raster.nodata import find_fill
from ksdiff_cli.simulation.files import simulate_arrays

Array = NDArray[Any]

GRID = Affine(0.5, 0, 593270, 0, -0.5, 5747657)
LOWEST = float(np.finfo(np.float32).min)


def ground(side: int = 160, dtype: str = "uint16", seed: int = 0) -> Array:
    """A textured image of three bands, 200 to 900."""
    noise = np.random.default_rng(seed).normal(size=(3, side, side))
    rough = gaussian_filter(noise, (0, 2, 2)) * 1200 + gaussian_filter(noise, (0, 12, 12)) * 4000 + 30 * noise
    return np.clip(np.rint(500 + rough), 200, 900).astype(dtype)


def frame(image: Array, fill: float, kind: str = "rotated") -> Array:
    """Lay a frame of one value around an image."""
    rows, cols = np.mgrid[: image.shape[1], : image.shape[2]] / image.shape[1]
    outside = {
        "rotated": abs(rows - 0.5 + 0.25 * (cols - 0.5)) + 0 * cols > 0.36,
        "askew": (rows < 0.03 * cols) | (cols < 0.03 * (1 - rows)),
        "left": cols < 0.2,
        "corner": rows + cols < 0.5,
        "all but the middle": np.maximum(abs(rows - 0.5), abs(cols - 0.5)) > 0.2,
        "missing tile": (abs(rows - 0.5) < 0.2) & (abs(cols - 0.4) < 0.2),
        "hole": np.hypot(rows - 0.5, cols - 0.5) < 0.15,
    }[kind]
    return np.where(outside, np.array(fill, image.dtype), image)


def found(path: Path, image: Array, **profile: Any) -> Any:
    """Write an image, look for fill in it, and return that as text; None where there is none."""
    write_raster(path, image, **profile)
    with rasterio.open(path) as dataset:
        fill = find_fill([dataset] * dataset.count, [BandSource(str(path), band) for band in dataset.indexes])
    return None if fill is None else str(fill)


@pytest.mark.parametrize("kind", ["rotated", "askew", "left", "corner", "all but the middle"])
@pytest.mark.parametrize(
    ("dtype", "fill", "shown"),
    [("uint16", 0, "0"), ("uint16", 65535, "65535"), ("int16", -9999, "-9999"), ("float32", -9999, "-9999")],
)
def test_a_frame_is_found(kind: str, dtype: str, fill: float, shown: str, tmp_path: Path) -> None:
    image = frame(ground(dtype=dtype), fill, kind)
    assert found(tmp_path / "strips.tif", image) == shown
    assert found(tmp_path / "tiles.tif", image, tiled=True, blockxsize=64, blockysize=64) == shown
    assert found(tmp_path / "band.tif", image[:1]) == shown
    assert found(tmp_path / "declared.tif", image, nodata=fill) is None


@pytest.mark.parametrize("fill", [-9999.0, 1e20, LOWEST, 9.96921e36])
def test_a_hole_far_off_all_data_is_found(fill: float, tmp_path: Path) -> None:
    image = frame(ground(dtype="float32") / np.float32(1500), fill, "hole")
    text = found(tmp_path / "a.tif", image)
    assert text is not None and np.float32(text) == np.float32(fill)


@pytest.mark.parametrize(("dtype", "fill"), [("uint16", 0), ("float32", 0), ("uint8", 255)])
def test_a_missing_tile_is_found(dtype: str, fill: float, tmp_path: Path) -> None:
    image = ground(dtype="uint16") // (5 if dtype == "uint8" else 1)
    assert found(tmp_path / "a.tif", frame(image.astype(dtype), fill, "missing tile")) == str(fill)


def test_fill_of_one_band_alone_is_found_if_it_is_far_off(tmp_path: Path) -> None:
    image = ground(dtype="float32")
    image[1] = frame(image[1:2], -9999, "hole")[0]
    assert found(tmp_path / "a.tif", image) == "-9999"


def test_zero_in_data_around_zero_is_found(tmp_path: Path) -> None:
    image = frame(ground(dtype="float32") - 550, 0, "left")
    assert found(tmp_path / "a.tif", image) == "0"


def clipped() -> Array:
    """Shadows that the camera clips at 0, and clouds that it saturates at 255."""
    return np.clip((ground(seed=1).astype(float) - 450) * 2, 0, 255).astype("uint8")


def sparse() -> Array:
    """Lights at night: nearly all is 0."""
    lights = np.random.default_rng(2).random((160, 160)) > 0.995
    return (gaussian_filter(lights * 4000.0, 1.5)).astype("uint16")[None]


def one_band_dark() -> Array:
    """Water, which is 0 in the last band only."""
    image = ground()
    image[2, :, :50] = 0
    return image


@pytest.mark.parametrize(
    "image", [ground(), clipped(), clipped()[:1], sparse(), one_band_dark(), np.full((3, 90, 90), 7, "uint8")]
)
def test_data_are_not_taken_for_fill(image: Array, tmp_path: Path) -> None:
    assert found(tmp_path / "a.tif", image) is None


def test_little_of_a_large_image_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "large.tif"
    profile = {"driver": "GTiff", "height": 6000, "width": 6000, "count": 1, "dtype": "uint16", "tiled": True}
    with rasterio.open(path, "w", **profile, sparse_ok=True) as dataset:
        dataset.write(ground(512)[:1], window=((2744, 3256), (2744, 3256)))
    read, pixels = rasterio.DatasetReader.read, list[int]()

    class Counted:
        def __init__(self, dataset: Any) -> None:
            self.dataset = dataset

        def __getattr__(self, name: str) -> Any:
            return getattr(self.dataset, name)

        def read(self, *arguments: Any, **more: Any) -> Array:
            image: Array = read(self.dataset, *arguments, **more)
            pixels.append(image.size)
            return image

    with rasterio.open(path) as dataset:
        find_fill([Counted(dataset)], [BandSource(str(path))])
    assert 0 < sum(pixels) < 0.001 * 6000 * 6000


# --- what is told, and what the option does ---


@pytest.fixture(scope="module")
def images() -> tuple[Array, Array]:
    pan, ms, _ = simulate_arrays(192, seed=4)
    return pan, ms


def write_pair(
    folder: Path,
    images: tuple[Array, Array],
    fills: tuple[float | None, float | None],
    dtype: str = "float32",
    part: int = 4,
) -> tuple[Path, Path, Array]:
    """Write PAN and MS whose left part is filled; return them and where the output is valid."""
    paths = []
    for name, image, cell, fill in zip(("pan", "ms"), images, (1, 4), fills, strict=True):
        image = image.astype(dtype)
        if fill is not None:
            image[:, :, : image.shape[2] // part] = fill
        paths.append(write_raster(folder / f"{name}.tif", image, crs="EPSG:32631", transform=GRID @ Affine.scale(cell)))
    valid = np.ones((192, 192), bool)
    valid[:, :48] = all(fill is None for fill in fills)
    return paths[0], paths[1], valid


@pytest.mark.parametrize(
    ("fills", "option"),
    [((0, 0), "0"), ((-9999, -9999), "-9999"), ((0, -9999), "0,-9999"), ((65535, None), "65535,file")],
)
def test_fill_is_told_once_and_the_option_helps(
    fills: tuple[float | None, float | None], option: str, images: Any, tmp_path: Path, run: Any
) -> None:
    pan, ms, valid = write_pair(tmp_path, images, fills, "int32")
    command = ("sharpen", pan, ms, "--method", "gsa", "--no-registration-check", "-o")
    told = run(*command, tmp_path / "told.tif")
    assert told.exit_code == 0, told.stderr
    notes = [line for line in told.stderr.splitlines() if "--src-nodata" in line]
    assert notes and all(f"--src-nodata {option}," in line for line in notes)
    assert len(notes) == (1 if fills[0] == fills[1] or fills[1] is None else 2)
    helped = run(*command, tmp_path / "helped.tif", "--src-nodata", option)
    assert helped.exit_code == 0 and "--src-nodata" not in helped.stderr
    # the same as if the files had said it
    for path, fill in zip((pan, ms), fills, strict=True):
        with rasterio.open(path, "r+") as dataset:
            dataset.nodata = fill
    declared = run(*command, tmp_path / "declared.tif")
    assert declared.exit_code == 0
    assert run(*command, tmp_path / "none.tif", "--src-nodata", "none").exit_code == 0
    read = {}
    for name in ("told", "helped", "declared", "none"):
        with rasterio.open(tmp_path / f"{name}.tif") as dataset:
            read[name] = dataset.read(), dataset.read_masks(1) > 0, dataset.nodata
    np.testing.assert_array_equal(read["helped"][0], read["declared"][0])
    np.testing.assert_array_equal(read["helped"][1], valid)
    assert read["helped"][2] == read["declared"][2] is not None
    np.testing.assert_array_equal(read["none"][0], read["told"][0])
    assert read["none"][1].all() and read["none"][2] is None


@pytest.mark.parametrize(
    ("method", "dtype", "fill"),
    [
        *((method, "float32", LOWEST) for method in ("ksdiff", "brovey", "bdsd-pc", "mtf-glp-fs")),
        ("gsa", "float64", LOWEST),
        ("gsa", "float64", float(np.finfo(np.float64).min)),
        ("gsa", "float64", float(np.finfo(np.float64).max)),
        ("gsa", "float32", -LOWEST),
    ],
)
def test_the_largest_float_is_no_data(
    method: str, dtype: str, fill: float, images: Any, tmp_path: Path, run: Any
) -> None:
    pan, ms, valid = write_pair(tmp_path, images, (fill, fill), dtype)
    out = tmp_path / "out.tif"
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        done = run("sharpen", pan, ms, "-o", out, "--method", method)
    assert done.exit_code == 0, done.stderr
    (note,) = [line for line in done.stderr.splitlines() if "nodata" in line]
    assert f"--src-nodata {np.dtype(dtype).type(fill)!s} says so" in note and "taken for nodata" in note
    with rasterio.open(out) as dataset:
        np.testing.assert_array_equal(dataset.read_masks(1) > 0, valid)
        fused = dataset.read()[:, valid]
    assert -200 < fused.min() < fused.max() < 3000


@pytest.mark.parametrize(("method", "fill"), zip(["ksdiff", *METHODS], cycle((1e20, -1e29))))
def test_large_fill_is_no_traceback(method: str, fill: float, images: Any, tmp_path: Path, run: Any) -> None:
    pan, ms, _ = write_pair(tmp_path, images, (fill, fill))
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        done = run("sharpen", pan, ms, "-o", tmp_path / "out.tif", "--method", method)
    assert done.exit_code == 0 or (done.stderr.startswith("Error: ") and done.stderr.count("\n") == 1), done.stderr
    assert f"--src-nodata {np.float32(fill)!s}," in done.stderr


@pytest.mark.parametrize(("dtype", "value"), [("float64", 1e300), ("float32", 3e38), ("float64", -1e31)])
def test_what_is_too_large_to_compute_with_is_refused_by_name(
    dtype: str, value: float, make_pair: Any, fails: Any
) -> None:
    files = make_pair(dtype=dtype, edit=lambda pan, ms: ms.__setitem__((0, slice(9, 12), slice(9, 12)), value))
    out = files.folder / "out.tif"
    for method in ("exp", "gsa", "ksdiff"):
        line = fails("sharpen", files.pan, files.ms, "-o", out, "--method", method)
        assert "ms.tif: holds" in line and f"--src-nodata {np.dtype(dtype).type(value)!s}," in line
        assert not out.exists()


def test_large_values_of_which_all_are_data_are_not_called_nodata(make_pair: Any, fails: Any) -> None:
    def enlarge(pan: Array, ms: Array) -> None:
        pan *= 1e300
        ms *= 1e300

    files = make_pair(dtype="float64", edit=enlarge)
    line = fails("sharpen", files.pan, files.ms, "-o", files.folder / "out.tif")
    assert "s.tif: holds" in line and "scale the image down" in line


def test_masks_count_whatever_is_said_of_values(make_pair: Any, run: Any) -> None:
    files = make_pair()
    with rasterio.open(files.ms) as dataset:
        image, place = dataset.read(), {"crs": dataset.crs, "transform": dataset.transform}
    mask = np.ones(image.shape[1:], bool)
    mask[:5] = False
    write_raster(files.ms, image, mask=mask, **place)
    out = files.folder / "out.tif"
    done = run("sharpen", files.pan, files.ms, "-o", out, "--method", "exp", "--src-nodata", "none", "-q")
    assert done.exit_code == 0
    with rasterio.open(out) as dataset:
        assert not dataset.read_masks(1)[:20].any() and dataset.read_masks(1)[20:].all()


def test_the_option_holds_for_warped_images(images: Any, tmp_path: Path, run: Any) -> None:
    pan, ms, _ = write_pair(tmp_path, images, (None, -9999))
    with rasterio.open(ms, "r+") as dataset:
        dataset.transform = dataset.transform @ Affine.rotation(2)
    out = tmp_path / "out.tif"
    command = ("sharpen", pan, ms, "--warp", "--method", "exp", "--no-registration-check", "-q", "-o", out)
    done = run(*command, "--src-nodata", "file,-9999", "--dst-nodata", "nan")
    assert done.exit_code == 0, done.stderr
    with rasterio.open(out) as dataset:
        fused, valid = dataset.read(), dataset.read_masks(1) > 0
        assert np.isnan(dataset.nodata)
    assert not valid[:, :40].any() and valid[:, 80:160].mean() > 0.8
    assert fused[:, valid].min() > 0


def test_the_largest_float_in_warped_images(images: Any, tmp_path: Path, run: Any) -> None:
    pan, ms, _ = write_pair(tmp_path, images, (None, LOWEST))
    with rasterio.open(ms, "r+") as dataset:
        dataset.transform = dataset.transform @ Affine.rotation(2)
    command = ("sharpen", pan, ms, "--warp", "--method", "gsa", "--no-registration-check", "-o", tmp_path / "out.tif")
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        done = run(*command)
    assert done.exit_code == 0, done.stderr
    with rasterio.open(tmp_path / "out.tif") as dataset:
        fused, valid = dataset.read(), dataset.read_masks(1) > 0
    assert not valid[:, :40].any() and valid[:, 80:160].mean() > 0.8
    assert -100 < fused[:, valid].min() < fused[:, valid].max() < 3000


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("--dst-nodata", "-1"), "--dst-nodata -1: is no value of uint16"),
        (("--dst-nodata", "0.5"), "--dst-nodata 0.5: is no value of uint16"),
        (("--src-nodata", "-1"), "--src-nodata -1: "),
    ],
)
def test_values_that_cannot_be_are_refused(more: tuple[str, str], words: str, make_pair: Any, fails: Any) -> None:
    files = make_pair()
    line = fails("sharpen", files.pan, files.ms, "-o", files.folder / "out.tif", "--method", "exp", *more)
    assert words in line and "Traceback" not in line


@pytest.mark.parametrize("given", ["", "x", "1,2,3", ",", "nodata"])
def test_nonsense_is_bad_usage(given: str, make_pair: Any, run: Any) -> None:
    files = make_pair()
    done = run("sharpen", files.pan, files.ms, "-o", files.folder / "out.tif", "--src-nodata", given)
    assert done.exit_code == 2 and "--src-nodata" in done.stderr


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (None, (None, None)),
        (0, (0, 0)),
        ("0", (0, 0)),
        ((0, None), (0, None)),
        ("file, -9999", (None, -9999)),
        ("NONE", ("none", "none")),
        (("none", 5.5), ("none", 5.5)),
        (np.float32(2), (2, 2)),
    ],
)
def test_what_may_be_given(given: Any, expected: Any) -> None:
    assert read_nodata(given) == expected


@pytest.mark.parametrize("given", [True, [], {}, (1, 2, 3), object(), ("a", 1)])
def test_what_may_not(given: Any) -> None:
    with pytest.raises(KsdiffError, match=r"^src_nodata "):
        read_nodata(given)


def test_a_value_that_no_pixel_has_is_told(make_pair: Any, run: Any) -> None:
    files = make_pair()
    command = ("sharpen", files.pan, files.ms, "--method", "exp", "--overwrite", "-o", files.folder / "out.tif")
    assert "no pixel is 7" in run(*command, "--src-nodata", "7").stderr
    assert "no pixel is" not in run(*command, "--src-nodata", "none").stderr


def test_arrays_with_fill(images: Any) -> None:
    pan, ms = (image.copy() for image in images)
    pan[:, :, :48], ms[:, :, :12] = 0, 0
    notes = list[str]()
    sharpen_array(pan, ms, method="gsa", note=notes.append)
    assert [note for note in notes if note.endswith("if it means no data give nodata=(0, 0)")]
    notes.clear()
    found = sharpen_array(pan, ms, method="gsa", nodata=(0, 0), note=notes.append)
    assert not notes and (found[:, :, :48] == 0).all() and (found[:, :, 48:] > 0).all()
    with pytest.raises(KsdiffError, match="one that pan can hold"):
        sharpen_array(pan, ms, nodata=(-1, 0))


def test_dst_nodata_alone_is_declared_and_holds(images: Any, tmp_path: Path) -> None:
    pan, ms, valid = write_pair(tmp_path, images, (0, 0), "uint16")
    for format, name in (("GTiff", "a.tif"), ("COG", "b.tif"), ("VRT", "c.vrt")):
        made = sharpen_scene(
            pan, ms, output=tmp_path / name, method="exp", src_nodata=0, dst_nodata=65535, format=format
        )
        assert made.nodata == 65535
        with rasterio.open(tmp_path / name) as dataset:
            np.testing.assert_array_equal(dataset.read_masks(1) > 0, valid)
            assert (dataset.read()[:, ~valid] == 65535).all()


def test_other_commands_tell_and_listen(images: Any, tmp_path: Path, run: Any) -> None:
    folder = tmp_path / "scene"
    pan, ms, valid = write_pair(folder, images, (0, 0), "uint16")
    facts = json.loads(run("info", folder, "--json").stdout)["scenes"][0]
    assert any("--src-nodata 0," in note for note in facts["notes"])
    said = json.loads(run("info", folder, "--json", "--src-nodata", "0").stdout)["scenes"][0]
    assert not any("--src-nodata" in note for note in said["notes"])
    assert "--src-nodata 0," in json.loads(run("info", pan, "--json").stdout)["notes"][0]

    fused = tmp_path / "fused.tif"
    sharpen_scene(pan, ms, output=fused, method="gsa", src_nodata=0)
    found, helped = (measure(fused, pan=pan, ms=ms, src_nodata=given) for given in (None, 0))
    assert any("--src-nodata 0," in note for note in found.notes)
    assert not any("--src-nodata" in note for note in helped.notes)
    assert helped.left_out >= np.count_nonzero(~valid) > 0

    truth = write_raster(tmp_path / "truth.tif", np.where(valid, ground(192), 0), crs="EPSG:32631", transform=GRID)
    found, helped = (measure(truth, reference=truth, src_nodata=given) for given in (None, 0))
    assert sum("--src-nodata 0," in note for note in found.notes) == 2 and found.left_out == 0
    assert not any("--src-nodata" in note for note in helped.notes)
    assert helped.left_out == np.count_nonzero(~valid)

    pan, ms, _ = simulate_arrays(512, seed=4)
    write_pair(tmp_path / "large", (pan, ms), (0, 0), "uint16", 32)
    notes = {}
    for given in (None, 0):
        made = prepare_patches(tmp_path / "large", output=tmp_path / f"p{given}", patch=16, src_nodata=given)
        notes[given] = (
            any("--src-nodata 0," in note for note in made.notes),
            sum(counts["nodata"] for counts in made.left_out.values()),
        )
    assert notes[None] == (True, 0) and notes[0][0] is False and notes[0][1] > 0
