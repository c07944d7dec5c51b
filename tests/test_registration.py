"""The shift between PAN and MS: found to 0.05 MS pixels, told, refused, corrected, and never made up."""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from conftest import write_raster
from rasterio.transform import Affine
from scipy.ndimage import gaussian_filter

from ksdiff_cli.errors import KsdiffError
from ksdiff_cli.metrics.ergas import ergas
from ksdiff_cli.numerics.grids import Axis, GridMap, degrade
from ksdiff_cli.products import find_scenes
from ksdiff_cli.products import make_pair as scene_of
from ksdiff_cli.raster.pair import Scene, open_pair
from ksdiff_cli.raster.registration import Registration, check_registration, measure_shift
from ksdiff_cli.raster.registration_windows import read_windows
from ksdiff_cli.simulation import camera

Array = Any
PIXEL = 0.5  # metres, of PAN
EAST, NORTH = 593270.0, 5747657.0


@dataclass(frozen=True)
class Ground:
    """A simulated scene: PAN, and what MS shows before its camera blurs it."""

    pan: Array
    truth: Array


@pytest.fixture(scope="session")
def grounds() -> Callable[..., Ground]:
    """Return a maker of simulated scenes that draws each one once."""
    drawn: dict[Any, Ground] = {}

    def make(size: int = 384, ratio: int = 4, sensor: str | None = "WV3") -> Ground:
        key = size, ratio, sensor
        if key not in drawn:
            pan, _, truth = camera.simulate_arrays(size, ratio=ratio, sensor=sensor, seed=3)
            drawn[key] = Ground(pan, truth.astype(np.float32))
        return drawn[key]

    return make


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Scene]:
    """Return a writer of PAN and MS as files whose georeference says what ``grid`` says, except for ``shift``."""

    def make(
        ground: Ground,
        shift: tuple[float, float] = (0.0, 0.0),
        grid: GridMap | None = None,
        shape: tuple[int, int] | None = None,
        edit: Callable[[Array, Array], Array | None] = lambda pan, ms: None,
        name: str = "scene",
        **profile: Any,
    ) -> Scene:
        ratio = 4
        grid = grid or GridMap(Axis(1 / ratio, (1 / ratio - 1) / 2), Axis(1 / ratio, (1 / ratio - 1) / 2))
        shape = shape or (ground.pan.shape[1] // ratio, ground.pan.shape[2] // ratio)
        # MS pixel k shows the ground that the grid puts at k - shift
        ms = degrade(ground.truth, grid.moved(*shift), shape, (0.3,) * len(ground.truth))
        pan = ground.pan.astype(np.float32)
        changed = edit(pan, ms)
        ms = ms if changed is None else changed
        place = Affine(PIXEL, 0, EAST, 0, -PIXEL, NORTH)
        # corner coordinates of the two grids: centres lie half a pixel further
        corner = [axis.to_pan(-0.5) + 0.5 for axis in (grid.cols, grid.rows)]
        step = [1 / axis.scale for axis in (grid.cols, grid.rows)]
        ms_place = place @ Affine(step[0], 0, corner[0], 0, step[1], corner[1])
        folder = tmp_path / name
        files = (
            write_raster(folder / "pan.tif", pan, crs="EPSG:32631", transform=place, **profile),
            write_raster(folder / "ms.tif", ms, crs="EPSG:32631", transform=ms_place, **profile),
        )
        return scene_of(str(files[0]), [str(files[1])])

    return make


def measure(scene: Scene) -> Registration:
    with open_pair(scene) as pair:
        return measure_shift(pair)


def assert_found(found: Registration, shift: tuple[float, float], within: float = 0.05) -> None:
    assert found.reliable
    assert (found.rows, found.cols) == pytest.approx(shift, abs=within)


SHIFTS = [(0, 0), (0.1, -0.3), (0.5, 0.77), (-2.3, 5.2), (5.2, 1.4)]


@pytest.mark.parametrize("shift", SHIFTS)
def test_a_generated_shift_is_found(shift: tuple[float, float], grounds: Any, write: Any) -> None:
    found = measure(write(grounds(), shift))
    assert_found(found, shift, 0.02)
    assert found.windows >= 3
    assert found.spread < 0.05


GRIDS = {
    "ratio 2": (2, "L8", GridMap(Axis(1 / 2, -0.25), Axis(1 / 2, -0.25)), (120, 130)),
    "ratio 3": (3, None, GridMap(Axis(1 / 3, -1 / 3), Axis(1 / 3, -1 / 3)), (110, 128)),
    "non-integer": (4, None, GridMap(Axis(1 / 4.0123, -0.3), Axis(1 / 3.983, 0.21)), (90, 92)),
    "offset": (4, None, GridMap(Axis(1 / 4, -9.3), Axis(1 / 4, -4.6)), (80, 90)),
    "MS larger": (4, None, GridMap(Axis(1 / 4, 7.2), Axis(1 / 4, 11.9)), (120, 110)),
    "south-up": (4, None, GridMap(Axis(-1 / 4, 95.38), Axis(1 / 4, -0.1)), (96, 96)),
}


@pytest.mark.parametrize("name", GRIDS)
def test_on_any_pair_of_grids(name: str, grounds: Any, write: Any) -> None:
    ratio, sensor, grid, shape = GRIDS[name]
    ground = grounds(384 if ratio != 2 else 288, ratio, sensor)
    assert_found(measure(write(ground, (0.77, -1.4), grid, shape)), (0.77, -1.4))


def invert_some(pan: Array, ms: Array) -> None:
    ms[::2] = 4000 - ms[::2]


def invert_all(pan: Array, ms: Array) -> None:
    ms[...] = 4000 - ms


def add_noise(pan: Array, ms: Array) -> None:
    ms += np.random.default_rng(0).normal(size=ms.shape) * ms.std((1, 2), keepdims=True) * 0.3


def dig(pan: Array, ms: Array) -> None:
    ms[:, 10:22, 30:60] = ms[:, 70:74, :] = 0
    pan[:, 200:260, 300:330] = pan[:, :60, :90] = 0


def flatten_one(pan: Array, ms: Array) -> None:
    ms[3] = 70


@pytest.mark.parametrize("edit", [invert_some, invert_all, add_noise, dig, flatten_one])
def test_whatever_the_bands_look_like(edit: Any, grounds: Any, write: Any) -> None:
    scene = write(grounds(), (0.6, -1.3), edit=edit, nodata=0)
    assert_found(measure(scene), (0.6, -1.3))


@pytest.mark.parametrize("bands", [[4], [1, 2, 4, 6]])
def test_with_one_and_with_four_bands(bands: list[int], grounds: Any, write: Any) -> None:
    scene = write(grounds(), (-0.4, 0.9), edit=lambda pan, ms: ms[bands])
    assert_found(measure(scene), (-0.4, 0.9))


def test_bands_that_pan_does_not_see_do_not_matter(grounds: Any, write: Any) -> None:
    def foreign(pan: Array, ms: Array) -> None:
        noise = np.random.default_rng(1).normal(size=ms[:3].shape)
        ms[:3] = 500 + 3000 * gaussian_filter(noise, (0, 1, 1))

    assert_found(measure(write(grounds(), (0.6, -1.3), edit=foreign)), (0.6, -1.3))


def test_the_sign_is_that_of_the_georeference(make_pair: Any) -> None:
    # the file says that MS begins 1 m further west and 2 m further north than it does: its content seems half a pixel
    # (of 2 m) left and a pixel up of where the file says
    true = Affine(2, 0, 593270, 0, -2, 5747657)
    files = make_pair(size=(512, 512), ms_grid=true, dtype="float32")
    with rasterio.open(files.ms, "r+") as dataset:
        dataset.transform = Affine(2, 0, 593269, 0, -2, 5747659)
    assert_found(measure(scene_of(str(files.pan), [str(files.ms)])), (-1.0, -0.5))


def test_pan_cut_off_by_whole_pixels(grounds: Any, write: Any) -> None:
    # no resampling of ours makes this shift: 6 PAN rows and 5 columns are 1.5 and 1.25 MS pixels
    ground = grounds()
    scene = write(ground)
    write_raster(Path(scene.pan.path), ground.pan[:, 6:, 5:], crs="EPSG:32631", transform=_transform(scene))
    assert_found(measure(scene), (1.5, 1.25))


def _transform(scene: Scene) -> Affine:
    with rasterio.open(scene.pan.path) as dataset:
        return dataset.transform


def test_the_same_every_time(grounds: Any, write: Any) -> None:
    scene = write(grounds(), (0.3, 0.5))
    assert measure(scene) == measure(scene)


def test_what_is_known_already_is_not_measured_again(grounds: Any, write: Any) -> None:
    scene = replace(write(grounds(), (2.2, -0.6)), shift=(2.0, -0.5))
    assert_found(measure(scene), (0.2, -0.1))


@pytest.mark.parametrize("side", [24, 41, 64])
def test_small_scenes_are_measured_or_not_but_never_wrong(side: int, grounds: Any, write: Any) -> None:
    ground = Ground(*(image[:, : 4 * side, : 4 * side] for image in (grounds().pan, grounds().truth)))
    found = measure(write(ground, (0.77, -1.4)))
    assert found.windows == 1
    assert found.reliable or side < 40
    if found.reliable:
        assert_found(found, (0.77, -1.4))


@pytest.mark.parametrize("side", [1, 3, 9, 16])
def test_tiny_scenes_cannot_be_measured(side: int, grounds: Any, write: Any) -> None:
    ground = Ground(*(image[:, : 4 * side, : 4 * side] for image in (grounds().pan, grounds().truth)))
    assert not measure(write(ground)).reliable


@pytest.mark.parametrize("sigma", [0, 1, 3])
@pytest.mark.parametrize("side", [24, 48, 96])
def test_unrelated_images_have_no_shift(side: int, sigma: float, write: Any) -> None:
    for seed in range(2):
        random = np.random.default_rng([seed, side, int(sigma)])
        pan = gaussian_filter(random.normal(size=(1, 4 * side, 4 * side)), (0, 4 * sigma, 4 * sigma))
        ms = gaussian_filter(random.normal(size=(4, side, side)), (0, sigma, sigma))
        edit = lambda _, old, new=ms: (1000 * new).astype(np.float32)  # noqa: E731
        scene = write(Ground(1000 * pan, np.zeros((4, 4 * side, 4 * side), np.float32)), edit=edit)
        assert not measure(scene).reliable
        assert check_registration(scene, correct=False) == (scene, [])
        same, notes = check_registration(scene, correct=True)
        assert same == scene
        assert "cannot be measured" in notes[0]


@pytest.mark.parametrize("which", ["pan", "ms", "both"])
def test_flat_images_have_no_shift(which: str, grounds: Any, write: Any) -> None:
    def flatten(pan: Array, ms: Array) -> None:
        for name, image in (("pan", pan), ("ms", ms)):
            if which in (name, "both"):
                image[...] = 300

    found = measure(write(grounds(), edit=flatten))
    assert not found.reliable
    assert np.isnan(found.magnitude())


def test_stripes_have_no_single_lag(write: Any) -> None:
    stripes = 500 + 100 * np.sin(2 * np.pi * np.arange(384) / 24)
    image = np.broadcast_to(stripes, (1, 384, 384)).astype(np.float32)
    assert not measure(write(Ground(image, np.repeat(image, 3, 0)), (0, 2.0))).reliable


def test_windows_spread_over_a_large_scene_and_avoid_holes(write: Any) -> None:
    side, seen = 768, []
    image = np.random.default_rng(0).uniform(100, 900, (1, 2 * side, 2 * side)).astype(np.float32)
    image[:, :, : 2 * 64] = 0  # where the first windows would lie
    half = Axis(0.5, -0.25)
    scene = write(Ground(image, image), grid=GridMap(half, half), shape=(side, side), nodata=0)
    with open_pair(scene) as pair:
        windows = read_windows(pair, lambda done, total, note="": seen.append((done, total)))
    assert len(windows) == 25
    assert all(window.ms_valid.mean() > 0.9 for window in windows)
    assert seen == [(done, 25) for done in range(1, 26)]
    # what is read does not grow with the scene
    assert max(window.pan.size for window in windows) <= (2 * (64 + 2 * 13) + 2) ** 2


def test_clouds_are_not_compared(grounds: Any, write: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from ksdiff_cli.raster.pair import ScenePair

    ground, cloud = grounds(), np.zeros((96, 96), bool)
    cloud[:, :60] = True

    def drift(pan: Array, ms: Array) -> None:
        ms[:, :, :60] = np.roll(ms, 3, 1)[:, :, :60]

    scene = write(ground, (0.0, 0.4), edit=drift)
    assert abs(measure(scene).rows) > 1
    monkeypatch.setattr(
        ScenePair, "read_cloud", lambda self, row, col, height, width: cloud[row : row + height, col : col + width]
    )
    assert_found(measure(scene), (0.0, 0.4))


# --- what is done about it ---


def test_a_small_shift_is_nobodys_business(grounds: Any, write: Any) -> None:
    scene = write(grounds(), (0.1, -0.2))
    assert check_registration(scene, correct=False) == (scene, [])


def test_a_larger_shift_is_told(grounds: Any, write: Any) -> None:
    scene = write(grounds(), (0.5, -0.2))
    same, notes = check_registration(scene, correct=False)
    assert same == scene
    assert notes == ["PAN/MS shift: (+0.50, -0.20) MS pixels (rows, columns); --register corrects it"]


def test_a_large_shift_is_refused(grounds: Any, write: Any) -> None:
    scene = write(grounds(), (0.8, -0.8))
    with pytest.raises(KsdiffError, match=r"ms.tif: MS lies \(\+0.80, -0.80\) .*--register"):
        check_registration(scene, correct=False)


@pytest.mark.parametrize("shift", [(0.1, 0.2), (-2.3, 5.2), (7.6, -8.1)])
def test_register_takes_it_out(shift: tuple[float, float], grounds: Any, write: Any) -> None:
    scene = write(grounds(), shift)
    corrected, notes = check_registration(scene, correct=True)
    assert corrected.shift == pytest.approx(shift, abs=0.02)
    assert_found(measure(corrected), (0, 0), 0.01)
    assert notes[0].endswith("remain")


def _ergas(output: Path, truth: Array) -> float:
    """ERGAS against the truth where the output lies, its border left out."""
    with rasterio.open(output) as dataset:
        fused = dataset.read().astype(float)
        row, col = round((NORTH - dataset.transform.f) / PIXEL), round((dataset.transform.c - EAST) / PIXEL)
    reference = truth[:, row : row + fused.shape[1], col : col + fused.shape[2]]
    return ergas(reference[:, 32:-32, 32:-32].astype(float), fused[:, 32:-32, 32:-32])


def test_sharpening_is_better_for_it(grounds: Any, write: Any, run: Any, fails: Any) -> None:
    ground, method = grounds(), "gsa"
    scene = write(ground, (1.4, -0.9))
    files = scene.pan.path, scene.ms[0].path
    folder = Path(files[0]).parent
    kept, better, best = (folder / f"{name}.tif" for name in ("kept", "better", "best"))
    message = fails("sharpen", *files, "-o", kept, "--method", method)
    assert "ms.tif" in message
    assert "(+1.40, -0.90)" in message
    assert not kept.exists()
    assert run("sharpen", *files, "-o", kept, "--method", method, "--no-registration-check").exit_code == 0
    done = run("sharpen", *files, "-o", better, "--method", method, "--register")
    assert done.exit_code == 0
    assert "PAN/MS shift: (+1.40, -0.90) MS pixels (rows, columns) corrected" in done.stderr
    right = write(ground, name="right")
    assert run("sharpen", right.pan.path, right.ms[0].path, "-o", best, "--method", method).exit_code == 0
    errors = [_ergas(path, ground.truth) for path in (best, better, kept)]
    assert errors[1] == pytest.approx(errors[0], rel=0.05)
    assert errors[1] < 0.8 * errors[2]
    with rasterio.open(better) as corrected, rasterio.open(kept) as as_it_was:
        rows, cols = map(float, corrected.tags()["KSDIFF_SHIFT"].split())
        assert "KSDIFF_SHIFT" not in as_it_was.tags()
    assert (rows, cols) == pytest.approx((1.4, -0.9), abs=0.02)


def test_the_two_options_contradict_each_other(run: Any, tmp_path: Path) -> None:
    both = ("--register", "--no-registration-check")
    assert run("sharpen", "pan.tif", "ms.tif", "-o", tmp_path / "out.tif", *both).exit_code == 2
    assert run("prepare-data", tmp_path, *both).exit_code == 2


def test_prepare_data_refuses_and_corrects(grounds: Any, write: Any, run: Any, fails: Any, tmp_path: Path) -> None:
    scene = write(grounds(), (-1.2, 0.6))
    folder, out = Path(scene.pan.path).parent, tmp_path / "patches"
    asked = ("prepare-data", folder, "-o", out, "--patch", "16")
    assert "(-1.20, +0.60)" in fails(*asked)
    assert not out.exists()
    done = run(*asked, "--register")
    assert done.exit_code == 0, done.output
    assert "(-1.20, +0.60) MS pixels (rows, columns) corrected" in done.stderr
    assert run(*asked, "--no-registration-check", "--overwrite").exit_code == 0


def test_patches_of_a_registered_scene_fit_together(grounds: Any, write: Any, run: Any, tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    ways = {
        "right": (write(grounds(), name="right"), []),
        "registered": (scene := write(grounds(), (1.2, -0.5)), ["--register"]),
        "kept": (scene, ["--no-registration-check"]),
    }
    alike = {}
    for name, (each, options) in ways.items():
        done = run(
            "prepare-data", Path(each.pan.path).parent, "-o", tmp_path / f"{name}.patches", "--patch", "16", *options
        )
        assert done.exit_code == 0, done.output
        with h5py.File(tmp_path / f"{name}.patches" / "train.h5") as file:
            images = [np.asarray(file[key]).astype(float).mean(1) for key in ("gt", "pan")]
        details = [image - gaussian_filter(image, (0, 1.5, 1.5)) for image in images]
        alike[name] = np.corrcoef(details[0].ravel(), details[1].ravel())[0, 1]
    assert alike["registered"] == pytest.approx(alike["right"], abs=0.03)
    assert alike["registered"] > alike["kept"] + 0.2


def test_info_says_it(grounds: Any, write: Any, run: Any) -> None:
    folder = Path(write(grounds(), (0.3, -1.7)).pan.path).parent
    (facts,) = json.loads(run("info", folder, "--json").stdout)["scenes"]
    found = facts["registration"]
    assert (found["rows"], found["columns"]) == pytest.approx((0.3, -1.7), abs=0.02)
    assert found["reliable"] is True
    assert found["windows"] >= 3
    assert "registration:" in run("info", folder).stdout


def test_info_of_what_cannot_be_measured_is_json(make_pair: Any, run: Any) -> None:
    folder = make_pair(edit=lambda pan, ms: ms.fill(7)).folder
    (facts,) = json.loads(run("info", folder, "--json").stdout)["scenes"]
    assert facts["registration"]["rows"] is None
    assert facts["registration"]["reliable"] is False


REAL = {
    "landsat7/01": (0, 0, 0.05),
    "landsat7/10": (0, 0, 0.05),  # bands that look little like PAN
    "landsat7/15": (0, 0, 0.05),
    "landsat_istanbul": (0, 0, 0.02),
    # half a PAN pixel: Landsat's grids, laid corner on corner for want of a georeference
    "landsat8_volcano": (-0.25, 0.25, 0.05),
    "gaofen2/full_4": (0.61, -0.26, 0.05),
}


@pytest.mark.parametrize("folder", REAL)
def test_real_scenes(folder: str, real_data: Any) -> None:
    (scene,) = find_scenes(real_data(folder))
    rows, cols, within = REAL[folder]
    assert_found(measure(scene), (rows, cols), within)
