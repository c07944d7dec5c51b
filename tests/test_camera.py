"""The scene's cameras, found blind: simulated ones with known gain, compensation, phase, noise and mix."""

import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from camera_maker import MIX, SIZE, acquire, look, noisy, textured, transfer
from numpy.typing import NDArray
from rasterio.errors import NotGeoreferencedWarning
from rasterio.transform import Affine

from ksdiff_cli.errors import KsdiffError
from ksdiff_cli.numerics.boxes import Box
from ksdiff_cli.numerics.camera import SceneCamera, camera_kernel, estimate_camera, view_boxes
from ksdiff_cli.numerics.camera_views import SIDE
from ksdiff_cli.numerics.grids import corner_aligned, cubic_matrix

Array = NDArray[Any]


@pytest.mark.parametrize(
    ("gain", "compensation", "ratio", "bands", "shift", "noise"),
    [
        (0.30, 0.0, 4, 4, (0.0, 0.0), 0.0),
        (0.08, 0.0, 4, 4, (0.2, -0.3), 0.01),
        (0.20, 1.2, 4, 8, (0.5, 0.5), 0.01),
        (0.30, 0.8, 4, 1, (0.2, -0.3), 0.02),
        (0.15, 0.4, 3.75, 4, (0.1, -0.2), 0.01),
        (0.30, 0.8, 2, 4, (0.2, -0.3), 0.02),
        (0.40, 0.3, 2, 1, (-0.1, 0.7), 0.02),
        (0.25, 0.5, 1.5, 3, (0.1, 0.1), 0.01),
        (0.22, 0.6, 6, 4, (0.3, -0.4), 0.01),
    ],
)
def test_a_simulated_camera_is_found(gain, compensation, ratio, bands, shift, noise) -> None:
    pan, ms = acquire(textured(bands), ratio, gain, compensation, shift, noise)
    found = estimate_camera(pan, ms, ratio)
    assert found.reliable, found
    assert found.gain == pytest.approx(gain, abs=0.03)
    assert found.compensation == pytest.approx(compensation, abs=0.1)
    assert found.shift == pytest.approx(shift, abs=0.03)
    assert found.r2 > 0.98
    assert abs(found.gain - gain) < 3 * found.gain_std
    assert abs(found.compensation - compensation) < 3 * found.compensation_std
    seen = look(pan, ratio, gain, compensation, shift)
    mixed = np.tensordot(found.weights, ms, 1) + found.offset
    assert np.abs(mixed - seen).std() < 0.15 * seen.std()


@pytest.mark.parametrize(("seed", "gain", "compensation"), [(3, 0.3, 0.0), (4, 0.1, 0.4), (5, 0.3, 0.0)])
def test_what_no_band_shows_moves_the_camera_little_and_is_known_to(seed, gain, compensation) -> None:
    pan, ms = acquire(textured(4, seed=seed), 4, gain, compensation, (0.2, -0.3), 0.01)
    found = estimate_camera(pan, ms[[0, 2, 3]], 4)
    assert found.reliable
    assert found.r2 < 0.97
    assert found.gain == pytest.approx(gain, abs=0.03)
    assert found.compensation == pytest.approx(compensation, abs=0.2)
    assert abs(found.gain - gain) < 2.5 * found.gain_std
    assert abs(found.compensation - compensation) < 2.5 * found.compensation_std


def test_a_mix_that_changes_over_the_scene_does_not_move_the_camera() -> None:
    truth = textured(4, seed=5)
    ms = noisy(look(truth, 4, 0.25, 0.6, (0.0, 0.0)), 0.01)
    slow = np.linspace(-1, 1, SIZE)
    pan = sum(truth[band] * (MIX[band] * (1 + 0.4 * np.sin(3 * slow + band)[:, None])) for band in range(4))
    found = estimate_camera(np.asarray(pan), ms, 4)
    assert found.gain == pytest.approx(0.25, abs=0.03)
    assert found.compensation == pytest.approx(0.6, abs=0.15)


@pytest.mark.parametrize(("gain", "compensation"), [(0.3, 0.0), (0.3, 0.8), (0.2, 1.2)])
def test_delivered_images_are_described_by_the_camera_they_come_to(gain: float, compensation: float) -> None:
    """Compensated on the sensor's grid, then resampled by cubic convolution to another phase."""
    taken = look(textured(4, seed=7), 4, gain, compensation, (0.0, 0.0))
    count, phase = taken.shape[1], (0.25, -0.3)
    rows, cols = (cubic_matrix(np.arange(count) - by, count).toarray() for by in phase)
    pan = np.tensordot(MIX[:4], textured(4, seed=7), 1)
    found = estimate_camera(noisy(pan, 0.01), noisy(rows @ taken @ cols.T, 0.01, 2), 4)
    frequency = np.linspace(0, 0.5, 26)
    taps = np.arange(-2, 4)
    for by in phase:
        kernel = cubic_matrix(np.array([5 - by]), 12).toarray()[0, 5 + taps]
        resampled = np.abs(np.exp(-2j * np.pi * np.outer(frequency, taps)) @ kernel)
        wanted = transfer(frequency, gain, compensation) * resampled
        assert np.sqrt(np.mean((transfer(frequency, found.gain, found.compensation) - wanted) ** 2)) < 0.07
    # cubic convolution moves fine details by less than the phase
    assert found.shift == pytest.approx(phase, abs=0.06)


@pytest.mark.parametrize("kind", ["uint8", "uint16", "tiny", "huge"])
def test_any_type_and_scale_tells_the_same(kind: str) -> None:
    pan, ms = acquire(textured(3), 4, 0.25, 0.5, (0.1, -0.2))
    top = {"uint8": 255, "uint16": 4000, "tiny": 1e-6, "huge": 1e9}[kind]
    dtype = kind if kind.startswith("uint") else "float32"
    pan, ms = (top * (image - image.min()) / np.ptp(image) for image in (pan, ms))
    found = estimate_camera(pan.astype(dtype), ms.astype(dtype), 4)
    assert found.reliable
    assert found.gain == pytest.approx(0.25, abs=0.02)
    assert found.compensation == pytest.approx(0.5, abs=0.07)


def test_invalid_pixels_tell_nothing() -> None:
    pan, ms = acquire(textured(4), 4, 0.25, 0.5, (0.1, -0.2), 0.01)
    pan_valid, ms_valid = np.ones(pan.shape, bool), np.ones(ms.shape[1:], bool)
    pan_valid[100:180, 60:200] = ms_valid[70:80] = False
    without = estimate_camera(pan, ms, 4, pan_valid=pan_valid, ms_valid=ms_valid)
    pan[~pan_valid], ms[:, ~ms_valid] = 1e9, np.nan
    assert estimate_camera(pan, ms, 4, pan_valid=pan_valid) == without
    assert without.gain == pytest.approx(0.25, abs=0.03)
    pan[pan == 1e9] = np.nan
    assert estimate_camera(pan[None], ms, corner_aligned(4)) == without


@pytest.mark.parametrize(
    ("pan", "ms", "reason"),
    [
        (textured(1, 1)[0], textured(3, 2, 120), "% of PAN's details"),
        (np.full((SIZE, SIZE), 7.0), textured(3, 2, 120), "flat"),
        (textured(1, 1)[0], np.full((3, 120, 120), 7.0), "flat"),
        (textured(1, 1)[0][:80, :80], textured(3, 2, 20), "too few valid pixels"),
        (np.full((SIZE, SIZE), np.nan), textured(3, 2, 120), "too few valid pixels"),
    ],
)
def test_a_scene_that_does_not_tell_gets_the_tables_camera(pan: Array, ms: Array, reason: str) -> None:
    found = estimate_camera(pan, ms, 4, table_gains=(0.34, 0.32, 0.30))
    assert not found.reliable
    assert reason in found.reason
    assert (found.gain, found.compensation, found.shift) == (pytest.approx(0.32), 0.0, (0.0, 0.0))
    assert "from the sensor's table" in str(found)
    assert all(map(math.isfinite, (*found.weights, found.offset, found.r2)))


def test_no_camera_is_believed_where_the_shift_is_too_large() -> None:
    pan, ms = acquire(textured(4), 4, 0.3, 0.0, (0.0, 0.0))
    found = estimate_camera(pan, np.roll(ms, 5, 1), 4)
    assert not found.reliable


def test_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(KsdiffError, match="do not fit"):
        estimate_camera(np.zeros((8, 8)), np.zeros((2, 2)), 4)


def test_a_camera_is_a_sum_of_two_gaussians() -> None:
    frequency = np.linspace(0, 1, 21)
    seen = sum(weight * np.exp(-2 * (np.pi * sigma * frequency) ** 2) for weight, sigma in camera_kernel(0.22, 0.7))
    np.testing.assert_allclose(seen, transfer(frequency, 0.22, 0.7), atol=1e-12)


def test_views_cover_a_small_scene_and_are_few_in_a_large_one() -> None:
    grid = corner_aligned(4)
    small = [over for over, _ in view_boxes(grid, (1000, 600), (250, 150))]
    assert sum(box.pixels for box in small) == 250 * 150
    assert max(max(box.height, box.width) for box in small) <= SIDE
    large = view_boxes(grid, (100_000, 80_000), (25_000, 20_000))
    assert len(large) == 36
    assert len({over for over, _ in large}) == 36
    assert max(over.bottom for over, _ in large) == 25_000
    assert all(under.meet(Box(0, 0, 100_000, 80_000)) == under for _, under in large)
    assert view_boxes(grid.moved(1000, 0), (1000, 600), (250, 150)) == []
    coarse = view_boxes(corner_aligned(16), (100_000, 80_000), (6250, 5000))
    assert max(under.height for _, under in coarse) < 800


def test_files_tell_what_arrays_tell(make_pair: Callable[..., Any]) -> None:
    from ksdiff_cli.products import find_scene
    from ksdiff_cli.raster.camera import find_camera
    from ksdiff_cli.raster.pair import open_pair

    made = acquire(textured(4), 4, 0.25, 0.5, (0.0, 0.0), 0.01)

    def edit(pan: Array, ms: Array) -> None:
        pan[0], ms[...] = np.rint(made[0]), np.rint(made[1])

    files = make_pair(size=(SIZE, SIZE), ms_grid=Affine(2, 0, 593270 + 0.8, 0, -2, 5747657 - 0.4), edit=edit)
    with open_pair(find_scene([str(files.pan), str(files.ms)], None)) as pair:
        found, again = find_camera(pair), find_camera(pair)
    assert found == again
    grid = corner_aligned(4).moved(-0.2, -0.4)
    alike = estimate_camera(np.rint(made[0]), np.rint(made[1]), grid)
    assert (found.gain, found.compensation) == pytest.approx((alike.gain, alike.compensation), abs=0.005)
    assert found.shift == pytest.approx((0.2, 0.4), abs=0.03)
    assert found.gain == pytest.approx(0.25, abs=0.03)


@pytest.mark.parametrize(
    ("name", "gain", "compensation"),
    [
        ("spot6", (0.01, 0.12), (0, 0.6)),
        ("geoeye1", (0.12, 0.25), (0, 0.4)),
        ("ikonos", (0.25, 0.45), (0.5, 1.2)),
        ("worldview2", (0.1, 0.35), (1.2, 3)),
        ("landsat8_volcano", (0.25, 0.35), (0, 0.4)),
    ],
)
def test_real_scenes_tell_soft_and_compensated_cameras_apart(real_data, name, gain, compensation) -> None:
    from ksdiff_cli.products import find_scene
    from ksdiff_cli.raster.camera import find_camera
    from ksdiff_cli.raster.pair import open_pair

    folder = real_data(name)
    files = [folder / "pan.tif", folder / "ms.tif"]
    scene = find_scene([str(file) for file in files if file.exists()] or [str(folder)], None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with open_pair(scene) as pair:
            found = find_camera(pair)
    assert found.reliable and found.r2 > 0.95
    assert gain[0] <= found.gain <= gain[1]
    assert compensation[0] <= found.compensation <= compensation[1]


@pytest.mark.parametrize(("gain", "compensation", "bands"), [(0.12, 0.0, 3), (0.3, 0.8, 4)])
def test_cameras_over_real_towns(real_data, gain, compensation, bands) -> None:
    import h5py

    with h5py.File(sorted(real_data("naip_urban").glob("*_2020.h5"))[0]) as file:
        chips = file["image"][:4].astype(np.float64)
    found = [estimate(chip, gain, compensation, bands) for chip in chips]
    assert all(camera.reliable for camera in found)
    assert np.mean([camera.gain for camera in found]) == pytest.approx(gain, abs=0.03)
    assert np.mean([camera.compensation for camera in found]) == pytest.approx(compensation, abs=0.1)


def estimate(chip: Array, gain: float, compensation: float, bands: int) -> SceneCamera:
    """Let a camera look at an aerial image, mirrored so that its Fourier series has no jump."""
    whole = np.concatenate([chip, chip[:, ::-1]], 1)
    whole = np.concatenate([whole, whole[:, :, ::-1]], 2)
    pan, ms = acquire(whole, 4, gain, compensation, (0.2, -0.3), 0.01)
    return estimate_camera(pan[:256, :256], ms[:bands, :64, :64], 4)
