"""A shift between PAN and MS that varies over the scene: found as a field, corrected to 0.1 MS pixels, however cut."""

import json
import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from conftest import read, tags, write_raster
from kill_maker import Trial, try_kills
from rasterio.transform import Affine
from scipy.ndimage import gaussian_filter, map_coordinates
from test_kills import assert_all_end_alike

from ksdiff_cli.errors import KsdiffError
from ksdiff_cli.fusers.classical import make_fuser
from ksdiff_cli.metrics.ergas import ergas
from ksdiff_cli.numerics.boxes import Box
from ksdiff_cli.numerics.grids import mtf_sigma
from ksdiff_cli.numerics.shift_field import ShiftField, fit_field
from ksdiff_cli.numerics.shifted import pick_shifted, read_shifted
from ksdiff_cli.options.sharpening import SharpenOptions
from ksdiff_cli.products import make_pair as scene_of
from ksdiff_cli.products.scene_files import identify_scene
from ksdiff_cli.raster.pair import Scene, open_pair
from ksdiff_cli.raster.registration import check_registration, measure_shift
from ksdiff_cli.sharpening.engine import sharpen_scene
from ksdiff_cli.simulation import camera

Array = Any
Shift = Callable[[Array, Array], tuple[Array, Array]]
SIZE, RATIO = 768, 4  # of PAN
SIDE = SIZE // RATIO
EAST, NORTH = 593270.0, 5747657.0


# --- the field


def tilt(y: Array, x: Array) -> tuple[Array, Array]:
    return 3 * y - 1.3, 0.8 * x - 0.6 * y


def curve(y: Array, x: Array) -> tuple[Array, Array]:
    return 12 * (y - 0.5) ** 2 - 0.5 + 0 * x, 1.5 * y * x - 0.4


def constant(y: Array, x: Array) -> tuple[Array, Array]:
    return 0.8 + 0 * y * x, -0.3 + 0 * y * x


def places_of(random: Any, count: int = 7) -> Array:
    """Places on a raster, none exactly on it."""
    at = np.linspace(32, 2016, count)
    return np.stack(np.meshgrid(at, at, indexing="ij"), -1).reshape(-1, 2) + random.uniform(-16, 16, (count**2, 2))


@pytest.mark.parametrize("shift", [tilt, curve])
@pytest.mark.parametrize("outliers", [0, 0.25])
def test_a_field_follows_what_most_places_say(shift: Shift, outliers: float) -> None:
    random = np.random.default_rng(1)
    places = places_of(random)
    shifts = np.stack(shift(*(places.T / 2048)), 1) + random.normal(0, 0.03, places.shape)
    wrong = random.permutation(len(places))[: int(outliers * len(places))]
    shifts[wrong] += random.choice([-1, 1], (len(wrong), 2)) * random.uniform(0.5, 4, (len(wrong), 2))
    fit = fit_field(places, shifts, np.ones(len(places)), (2048, 2048))
    assert fit is not None and fit.reliable
    assert not fit.agreeing[wrong].any()
    rows, cols = np.meshgrid(*(np.arange(2048.0)[::37],) * 2, indexing="ij")
    left = np.hypot(*(a - b for a, b in zip(fit.field.at(rows, cols), shift(rows / 2048, cols / 2048), strict=True)))
    assert np.sqrt((left**2).mean()) < 0.05
    assert left.max() < 0.2


@pytest.mark.parametrize("noise", [0.01, 0.05, 0.2])
def test_one_shift_for_all_is_no_field(noise: float) -> None:
    for seed in range(10):
        random = np.random.default_rng(seed)
        places = places_of(random, 5)
        shifts = np.array([0.8, -0.3]) + random.normal(0, noise, places.shape)
        shifts[:5] += 2  # a corner that says something else
        fit = fit_field(places, shifts, np.ones(25), (2048, 2048))
        assert fit is not None and not fit.reliable


def test_what_is_random_or_little_is_no_field() -> None:
    random = np.random.default_rng(0)
    places = places_of(random, 5)
    fit = fit_field(places, random.uniform(-8, 8, (25, 2)), np.ones(25), (2048, 2048))
    assert fit is not None and not fit.reliable
    assert fit_field(places[:5], places[:5] / 700, np.ones(5), (2048, 2048)) is None


def test_a_narrow_strip_varies_along_itself_alone() -> None:
    random = np.random.default_rng(0)
    places = np.stack([np.linspace(32, 2016, 9), np.full(9, 32.0)], 1)
    shifts = np.stack([places[:, 0] / 1000, np.zeros(9)], 1) + random.normal(0, 0.01, (9, 2))
    fit = fit_field(places, shifts, np.ones(9), (2048, 64))
    assert fit is not None and fit.reliable and fit.field.order == 1
    ends = fit.field.at(np.array([[0.0], [2047.0]]), np.array([[0.0, 63.0]]))[0]
    assert ends == pytest.approx(np.array([[0, 0], [2.05, 2.05]]), abs=0.05)
    assert ends[:, 0] == pytest.approx(ends[:, 1], abs=1e-6)


def test_a_field_is_bounded_beyond_what_was_measured() -> None:
    places = places_of(np.random.default_rng(0), 7) / 4 + 700  # only in the middle
    shifts = np.stack([((places[:, 0] - 960) / 250) ** 2, 0 * places[:, 0]], 1)
    fit = fit_field(places, shifts, np.ones(49), (2048, 2048))
    assert fit is not None
    (_, most), _ = fit.field.extremes()
    assert most <= 2 * shifts.max() + 0.01
    for far in (-1e4, 1e4):
        assert np.isfinite(fit.field.at(np.array([far]), np.array([far]))[0]).all()


# --- resampling by it

FIELD = ShiftField(2, (0.2, 1.1, 0.3, -0.4, 0.0, 0.2), (-0.3, 0.2, 0.9, 0.0, 0.3, 0.0), (-0.5, 149.5, -0.5, 119.5),
                   ((-2.0, 2.0), (-2.0, 2.0)))  # fmt: skip


def reader(image: Array, valid: Array) -> Any:
    def cut(row: int, col: int, height: int, width: int) -> tuple[Array, Array]:
        there = np.s_[..., row : row + height, col : col + width]
        return image[there].copy(), valid[there]

    return cut


def waves(rows: Array, cols: Array) -> Array:
    return np.stack([500 + 100 * np.sin(1.1 * rows + 0.4 * cols), 300 + 50 * np.cos(0.7 * rows - 1.3 * cols)])


def test_resampling_is_exact_for_what_pixels_can_hold() -> None:
    rows, cols = np.meshgrid(np.arange(150.0), np.arange(120.0), indexing="ij")
    image = waves(rows, cols).astype(np.float32)
    found, valid = read_shifted(reader(image, np.ones((150, 120), bool)), FIELD, Box(0, 0, 150, 120), (150, 120))
    down, across = FIELD.at(rows, cols)
    inside = np.s_[..., 8:-8, 8:-8]
    assert valid.all()
    assert np.abs(found - waves(rows + down, cols + across))[inside].max() < 0.6  # of an amplitude of 100


def test_a_pixel_is_the_same_in_every_window() -> None:
    random = np.random.default_rng(0)
    image, valid = random.uniform(0, 2000, (3, 150, 120)).astype(np.float32), random.uniform(size=(150, 120)) > 0.01
    valid[40:60, 30:80] = False
    cut, flags = reader(image, valid), random.uniform(size=(150, 120)) > 0.5
    whole, known = read_shifted(cut, FIELD, Box(0, 0, 150, 120), (150, 120))
    assert 0.8 < known.mean() < 0.95
    assert whole.min() >= 0

    def flagged(box: Box) -> Array:
        return flags[box.top : box.bottom, box.left : box.right]

    marked = pick_shifted(flagged, FIELD, Box(0, 0, 150, 120), (150, 120))
    for box in (Box(0, 0, 1, 1), Box(3, 5, 77, 119), Box(31, 0, 64, 120), Box(149, 119, 150, 120), Box(7, 90, 150, 97)):
        part, seen = read_shifted(cut, FIELD, box, (150, 120))
        there = np.s_[..., box.top : box.bottom, box.left : box.right]
        assert (part[:, seen] == whole[there][:, seen]).all()
        assert (seen == known[there]).all()
        assert (pick_shifted(flagged, FIELD, box, (150, 120)) == marked[there]).all()


def test_what_is_invalid_does_not_reach_what_is_valid() -> None:
    image, valid = np.full((1, 150, 120), 700, np.float32), np.ones((150, 120), bool)
    valid[50:70, 20:90] = False
    image[:, ~valid] = 1e30
    found, known = read_shifted(reader(image, valid), FIELD, Box(0, 0, 150, 120), (150, 120))
    assert found[:, known] == pytest.approx(700, rel=1e-5)
    # what is lost is what lies on the hole, and a pixel around it
    rows, cols = np.meshgrid(np.arange(150.0), np.arange(120.0), indexing="ij")
    down, across = (
        np.rint(at + shift).astype(int) for at, shift in zip((rows, cols), FIELD.at(rows, cols), strict=True)
    )
    inner = valid[np.clip(down, 0, 149), np.clip(across, 0, 119)]
    assert not known[~inner].any()
    assert (inner & ~known).sum() < 2 * 2 * (20 + 70)


def test_ground_that_ms_lacks_is_cut_off() -> None:
    field = ShiftField(1, (0.5, 1.5, 0.0), (-2.5, 0.0, 0.0), (-0.5, 99.5, -0.5, 99.5), ((-9, 9), (-9, 9)))
    # rows: 1 pixel above the first, 2 below the last; columns: 2.5 beyond the first alone
    assert field.inset((100, 100)) == ((1, 2), (3, 0))


# --- scenes


@pytest.fixture(scope="module")
def ground() -> tuple[Array, Array, Array]:
    """PAN, truth, and the truth as the MS camera blurs it."""
    pan, _, truth = camera.simulate_arrays(SIZE, ratio=RATIO, sensor="WV3", bands=None, seed=3)
    blurred = np.stack(
        [gaussian_filter(band.astype(np.float64), mtf_sigma(0.3, RATIO)) for band in truth[[1, 2, 4, 6]]]
    )
    return pan, truth[[1, 2, 4, 6]], blurred


def write_scene(
    folder: Path, ground: Any, shift: Shift, edit: Callable[[Array], None] = lambda ms: None, **profile: Any
) -> Scene:
    """Write PAN and MS of which pixel k shows the ground ``shift`` further up and left than it says."""
    pan, _, blurred = ground
    rows, cols = np.meshgrid(np.arange(float(SIDE)), np.arange(float(SIDE)), indexing="ij")
    down, across = shift(rows / SIDE, cols / SIDE)
    at = [(one - by) * RATIO + (RATIO - 1) / 2 for one, by in ((rows, down), (cols, across))]
    ms = np.stack([map_coordinates(band, at, order=3, mode="nearest") for band in blurred])
    ms = np.rint(ms).astype(np.uint16)
    edit(ms)
    place = Affine(0.5, 0, EAST, 0, -0.5, NORTH)
    files = (
        write_raster(folder / "pan.tif", pan, crs="EPSG:32631", transform=place, **profile),
        write_raster(folder / "ms.tif", ms, crs="EPSG:32631", transform=place @ Affine.scale(RATIO), **profile),
    )
    return scene_of(str(files[0]), [str(files[1])])


Write = Callable[..., Scene]


@pytest.fixture
def write(tmp_path: Path, ground: tuple[Array, Array, Array]) -> Write:
    return partial(write_scene, tmp_path / "scene", ground)


@pytest.fixture(scope="module")
def tilted(tmp_path_factory: pytest.TempPathFactory, ground: tuple[Array, Array, Array]) -> Scene:
    """A scene as delivered, in a folder of its own, to which nothing is written."""
    return write_scene(tmp_path_factory.mktemp("tilted"), ground, tilt)


@pytest.fixture(scope="module")
def corrected(tilted: Scene) -> tuple[Scene, list[str]]:
    """The scene as --register corrects it, and what is told of that."""
    return check_registration(tilted, correct=True)


def left_of(scene: Scene, shift: Shift) -> Array:
    """Return by how many MS pixels the scene, as corrected, still misses the truth, (side, side)."""
    assert scene.field is not None
    rows, cols = np.meshgrid(np.arange(float(SIDE)), np.arange(float(SIDE)), indexing="ij")
    down, across = shift(rows / SIDE, cols / SIDE)
    places = rows - down + scene.shift[0], cols - across + scene.shift[1]
    more = scene.field.at(*places)
    return np.hypot(places[0] + more[0] - rows, places[1] + more[1] - cols)


def test_register_takes_a_varying_shift_out(tilted: Scene, corrected: Any, write: Write) -> None:
    curved = write(curve)
    for shift, (scene, (note,)) in ((tilt, corrected), (curve, check_registration(curved, correct=True))):
        left = left_of(scene, shift)
        assert np.sqrt((left**2).mean()) < 0.1
        assert "as it varies over the scene, corrected by a smooth field of order" in note
        with open_pair(scene) as pair:
            rest = measure_shift(pair)
        assert rest.field is None
        assert rest.reliable and rest.magnitude() < 0.05
    # a run that goes on knows its windows by it
    again, _ = check_registration(tilted, correct=True)
    assert identify_scene(again) == identify_scene(corrected[0]) != identify_scene(tilted)


def test_windows_that_contradict_do_not_bend_it(write: Write) -> None:
    def move(ms: Array) -> None:
        ms[:, 70:120, 90:] = np.roll(ms, 4, 1)[:, 70:120, 90:]

    corrected, _ = check_registration(write(tilt, move), correct=True)
    assert np.sqrt((left_of(corrected, tilt) ** 2).mean()) < 0.1


def test_without_register_it_is_told_or_refused(write: Write) -> None:
    scene = write(lambda y, x: (0.8 * y - 0.4 + 0 * x, 0.2 * x + 0 * y))
    same, (note,) = check_registration(scene, correct=False)
    assert same == scene
    assert note.startswith("PAN/MS shift: rows -0.4")
    assert note.endswith("MS pixels, as it varies over the scene; --register corrects it")
    with pytest.raises(KsdiffError, match=r"ms.tif: MS lies rows .* varies over the scene, off PAN .*--register"):
        check_registration(write(lambda y, x: (3 * y + 0 * x, 0 * x * y)), correct=False)


def test_one_shift_goes_the_old_way(write: Write) -> None:
    corrected, (note,) = check_registration(write(constant), correct=True)
    assert corrected.field is None
    assert corrected.shift == pytest.approx((0.8, -0.3), abs=0.02)
    assert note.startswith("PAN/MS shift: (+0.80, -0.30) MS pixels (rows, columns) corrected, ")


def test_info_says_it(tilted: Scene, run: Any) -> None:
    folder = Path(tilted.pan.path).parent
    (facts,) = json.loads(run("info", folder, "--json").stdout)["scenes"]
    assert facts["registration"]["varies"]["rows"] == pytest.approx([-1.3, 1.7], abs=0.15)
    assert "varies" in run("info", folder).stdout


def test_sharpening_is_as_good_as_without_the_shift(
    corrected: Any, write: Write, tmp_path: Path, ground: tuple[Array, Array, Array]
) -> None:
    right = write(lambda y, x: (0 * y * x, 0 * y * x))
    for method in ("exp", "gsa"):
        errors = []
        for number, scene in enumerate((right, corrected[0])):
            out = sharpen_scene(
                scene, tmp_path / f"{method}{number}.tif", make_fuser(method), SharpenOptions(fidelity=False)
            ).output
            with rasterio.open(out) as dataset:
                row, col = round((NORTH - dataset.transform.f) * 2), round((dataset.transform.c - EAST) * 2)
            fused = read(out).astype(float)
            truth = ground[1][:, row : row + fused.shape[1], col : col + fused.shape[2]].astype(float)
            errors.append(ergas(truth[:, 32:-32, 32:-32], fused[:, 32:-32, 32:-32]))
        assert errors[1] == pytest.approx(errors[0], rel=0.05)
    # rows -1.3 to 1.7 lack a pixel and more on both sides
    assert SIZE - 24 <= fused.shape[1] < SIZE - 8
    assert tags(out)["KSDIFF_SHIFT_FIELD"].startswith("rows -1.")
    assert "order 1" in tags(out)["KSDIFF_SHIFT_FIELD"]


def test_however_the_scene_is_cut(write: Write, tmp_path: Path) -> None:
    def dig(ms: Array) -> None:
        ms[:, 60:80, 40:70] = 0

    scene, _ = check_registration(write(tilt, dig, nodata=0), correct=True)

    def sharpen(name: str, **options: Any) -> Array:
        return read(
            sharpen_scene(
                scene, tmp_path / name, make_fuser("mtf-glp-fs"), SharpenOptions(fidelity=False, **options)
            ).output
        )

    whole = sharpen("whole.tif")
    assert (sharpen("tiles.tif", tile=256) == whole).all()
    assert (sharpen("part.tif", window=(100, 200, 300, 150)) == whole[:, 100:400, 200:350]).all()


def test_a_batch_carries_it(tilted: Scene, run: Any, tmp_path: Path) -> None:
    folder = shutil.copytree(Path(tilted.pan.path).parent, tmp_path / "all" / "one")
    one, more = tmp_path / "out.tif", ("--register", "--method", "exp")
    assert run("sharpen", folder, "-o", one, *more).exit_code == 0
    done = run("sharpen", "--batch", tmp_path / "all", "-o", tmp_path / "made", *more)
    assert done.exit_code == 0, done.output
    assert (tmp_path / "made" / "one.tif").read_bytes() == one.read_bytes()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no SIGKILL")
def test_a_killed_run_goes_on_with_the_same_bytes(tilted: Scene, tmp_path: Path) -> None:
    folder = shutil.copytree(Path(tilted.pan.path).parent, tmp_path / "scene")
    words = ["sharpen", "pan.tif", "ms.tif", "-o", "out.tif", "--register", "--method", "exp", "--tile", "384"]
    whole, kills = try_kills(Trial([*words, "--threads", "1"], str(folder), at=".assembled"))
    assert_all_end_alike(whole, kills, 1)
    assert "Windows of 384 pixels: 4, 4 of them kept from an interrupted run" in kills[0].said


def test_an_exported_network_cannot_carry_it(tilted: Scene, fails: Any, tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    folder = Path(tilted.pan.path).parent
    message = fails("export", "shipped", "--scene", folder, "-o", tmp_path / "out.onnx", "--register")
    assert "varies over the scene" in message and "leave out --register" in message
