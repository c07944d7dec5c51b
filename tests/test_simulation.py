"""Simulated scenes: reproducible, independent of the blocks they are drawn in, and true to their definition."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio

from ksdiff_cli.errors import KsdiffError
from ksdiff_cli.numerics.grids import corner_aligned, degrade
from ksdiff_cli.sensors import SENSORS, find_sensor
from ksdiff_cli.simulation.camera import blur, ms_kernel, pan_kernel
from ksdiff_cli.simulation.fields import cells_at, normal_at, smooth_noise, uniform_at
from ksdiff_cli.simulation.files import FILES, plan_scene, simulate_arrays, simulate_scene
from ksdiff_cli.simulation.objects import draw
from ksdiff_cli.simulation.spectra import WAVELENGTHS, band_weights, make_spectra


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize(
    ("sensor", "bands", "ratio", "top"),
    [(None, 4, 4, 2047), ("WV3", 8, 4, 2047), ("L7", 6, 2, 255), ("GF2", 4, 4, 1023), ("L8", 6, 2, 65535)],
)
def test_shapes_and_range(sensor: str | None, bands: int, ratio: int, top: int) -> None:
    pan, ms, truth = simulate_arrays(96, sensor=sensor, seed=3)
    assert pan.shape == (1, 96, 96)
    assert ms.shape == (bands, 96 // ratio, 96 // ratio)
    assert truth.shape == (bands, 96, 96)
    for image in (pan, ms, truth):
        assert image.dtype == np.uint16
        assert image.min() >= 1
        assert image.max() <= top
        assert 0.02 * top < image.mean() < 0.6 * top


def test_generic_bands_and_ratios() -> None:
    assert simulate_arrays(96, bands=8, ratio=3)[1].shape == (8, 32, 32)
    assert simulate_arrays(95, ratio=5)[2].shape == (4, 95, 95)


@pytest.mark.parametrize(("sensor", "seed"), [(None, 1), ("WV3", 6), ("L7", 3)])
def test_blocks_leave_no_trace(sensor: str | None, seed: int) -> None:
    whole = simulate_arrays(320, sensor=sensor, seed=seed, block=512)
    pieces = simulate_arrays(320, sensor=sensor, seed=seed, block=128)
    assert all(np.array_equal(a, b) for a, b in zip(whole, pieces, strict=True))


def test_a_larger_scene_contains_the_smaller() -> None:
    small, large = simulate_arrays(128, seed=8), simulate_arrays(256, seed=8)
    for a, b in zip(small, large, strict=True):
        assert np.array_equal(a, b[:, : a.shape[1], : a.shape[2]])


def degraded(truth: np.ndarray, gains: tuple[float, ...], ratio: int) -> np.ndarray:
    """Degrade by the definition, slowly: a Gaussian about the centre of each MS pixel, in float64."""
    at = np.arange(truth.shape[1])
    centres = ratio * np.arange(truth.shape[1] // ratio)[:, None] + (ratio - 1) / 2
    bands = []
    for image, gain in zip(truth.astype(float), gains, strict=True):
        sigma = ratio * np.sqrt(-2 * np.log(gain)) / np.pi
        weights = np.exp(-0.5 * ((at - centres) / sigma) ** 2)
        weights /= weights.sum(axis=1, keepdims=True)
        bands.append(weights @ image @ weights.T)
    return np.stack(bands)


@pytest.mark.parametrize(("sensor", "ratio"), [("WV3", None), ("QB", None), ("L8", None), (None, 3), (None, 8)])
def test_ms_is_degraded_truth_plus_noise(sensor: str | None, ratio: int | None) -> None:
    size = 240
    scene = plan_scene(size=size, ratio=ratio, sensor=sensor, seed=11)
    _, ms, truth = simulate_arrays(size, ratio=ratio, sensor=sensor, seed=11)
    count = len(scene.spectra.names)
    expected = degraded(truth, scene.sensor.ms_gains(count), scene.ratio)
    inner = np.s_[:, 6:-6, 6:-6]
    expected, ms = expected[inner], ms[inner].astype(float)
    variance = scene.spectra.read_noise[:count] ** 2 + scene.spectra.shot_noise[:count] * expected.mean(axis=(1, 2))
    unclipped = (ms > 1) & (ms < scene.spectra.top)
    for band in range(count):
        error = (ms - expected)[band][unclipped[band]]
        assert abs(error.mean()) < 0.25 * np.sqrt(variance[band])
        # Quantisation adds a twelfth.
        assert error.var() == pytest.approx(variance[band] + 1 / 12, rel=0.3)


def test_pan_and_truth_are_the_world_through_the_pan_mtf() -> None:
    scene = plan_scene(size=64, bands=4, seed=2)
    side = pan_kernel(scene.sensor.mtf_pan)
    reach = len(side) - 1
    world = blur(draw(scene.world, -reach, -reach, 64 + 2 * reach, 64 + 2 * reach), side)
    pan, _, truth = simulate_arrays(64, bands=4, seed=2)
    assert np.abs(np.clip(world[:4], 1, 2047) - truth).max() <= 0.5
    error = pan[0] - np.clip(world[4], 1, 2047)
    assert 0.3 < error.std() < 12
    assert abs(error.mean()) < 1


@pytest.mark.parametrize("ratio", [2, 3, 4, 8])
@pytest.mark.parametrize("gain", [0.2, 0.35])
def test_ms_kernel_has_the_gain_at_nyquist(ratio: int, gain: float) -> None:
    kernel = ms_kernel(gain, ratio)
    place = np.arange(len(kernel)) - (len(kernel) - 1) / 2
    assert kernel.sum() == pytest.approx(1)
    assert (kernel * np.cos(np.pi / ratio * place)).sum() == pytest.approx(gain, abs=2e-3)


def test_gains_differ_by_band_and_sensor() -> None:
    gains = SENSORS["WV3"].ms_gains(8)
    assert len({ms_kernel(gain, 4).max() for gain in gains}) > 3
    centre, *side = pan_kernel(0.15)
    transfer = centre + 2 * sum(weight * (-1) ** k for k, weight in enumerate(side, 1))
    # At PAN's own Nyquist a sampled Gaussian folds once.
    assert transfer == pytest.approx(2 * 0.15, abs=0.02)


def test_noise_is_normal_and_white() -> None:
    noise = normal_at(77, np.arange(400)[:, None], np.arange(400)[None, :])
    assert abs(noise.mean()) < 0.01
    assert noise.std() == pytest.approx(1, abs=0.01)
    assert abs((noise[:, 1:] * noise[:, :-1]).mean()) < 0.01
    assert abs((noise[1:] * noise[:-1]).mean()) < 0.01
    share = uniform_at(78, np.arange(400)[:, None], np.arange(-200, 200)[None, :])
    assert 0 <= share.min() < share.max() < 1


def test_fields_agree_on_grids_and_points() -> None:
    y, x = np.arange(-9, 40, dtype=np.float32)[:, None], np.arange(30, dtype=np.float32)[None, :]
    points = (np.broadcast_to(y, (49, 30)).ravel(), np.broadcast_to(x, (49, 30)).ravel())
    grid = smooth_noise(5, y, x, 7.0)
    assert np.allclose(grid.ravel(), smooth_noise(5, *points, 7.0), atol=1e-5)
    cells = cells_at(5, y, x, 11.0)
    assert cells.border.min() >= 0
    assert np.array_equal(cells.row.ravel(), cells_at(5, *points, 11.0).row)


def test_files(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    folder = tmp_path / "new" / "scene"

    def report(done: int, total: int, note: str = "") -> None:
        seen.append((done, total))

    simulate_scene(folder, size=320, sensor="WV3", seed=4, block=256, progress=report)
    assert sorted(path.name for path in folder.iterdir()) == sorted(FILES)
    assert [path.name for path in folder.parent.iterdir()] == ["scene"]
    assert seen == [(done, 4) for done in range(5)]
    arrays = simulate_arrays(320, sensor="WV3", seed=4)
    corners = set()
    for name, array, pixel in zip(FILES, arrays, (0.5, 2.0, 0.5), strict=True):
        with rasterio.open(folder / name) as file:
            assert np.array_equal(file.read(), array)
            assert file.crs.is_projected
            assert file.res == (pixel, pixel)
            assert file.nodata is None
            assert file.profile["tiled"]
            assert file.descriptions == (("pan",) if name == "pan.tif" else SENSORS["WV3"].bands)
            assert file.tags()["SENSOR"] == "WV3"
            assert file.tags()["SEED"] == "4"
            assert file.tags()["KSDIFF_VERSION"]
            corners.add((file.bounds, file.crs.to_epsg()))
    assert len(corners) == 1


def test_same_bytes_and_overwrite(tmp_path: Path) -> None:
    simulate_scene(tmp_path / "a", size=64, seed=1)
    simulate_scene(tmp_path / "b", size=64, seed=2)
    assert all(contents(tmp_path / "a")[name] != contents(tmp_path / "b")[name] for name in FILES)
    with pytest.raises(KsdiffError, match=r"pan\.tif: exists already"):
        simulate_scene(tmp_path / "b", size=64, seed=1)
    simulate_scene(tmp_path / "b", size=64, seed=1, overwrite=True)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


@pytest.mark.parametrize(
    "failure", [RuntimeError("broken"), KeyboardInterrupt(), OSError(28, "No space left on device")]
)
def test_failure_leaves_nothing(tmp_path: Path, failure: BaseException) -> None:
    def stop(done: int, total: int, note: str = "") -> None:
        if done:
            raise failure

    expected = KsdiffError if isinstance(failure, OSError) else type(failure)
    with pytest.raises(expected):
        simulate_scene(tmp_path / "deep" / "scene", size=64, progress=stop)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--size", 65), "size 65 does not fit"),
        (("--size", 200000), "up to 100000"),
        (("--size", 64, "--bands", 5), "cannot simulate 5 bands"),
        (("--size", 64, "--ratio", 16), "cannot simulate ratio 16"),
        (("--size", 64, "--bands", 4, "--sensor", "WV3"), "8 MS bands, not 4"),
        (("--size", 64, "--ratio", 2, "--sensor", "WV3"), "ratio 4, not 2"),
        (("--size", 64, "--sensor", "WV9"), "no sensor is called"),
        (("--size", 64, "--noise", -1), "noise -1 is out of range"),
        (("--size", 64, "--noise", "nan"), "noise nan is out of range"),
        (("--size", 64, "--shift", 0, 9), "shift 0 9 is too far"),
        (("--size", 64, "--shift", 0, "nan"), "is too far"),
    ],
)
def test_refusals(tmp_path: Path, fails: Callable[..., str], arguments: tuple[Any, ...], message: str) -> None:
    assert message in fails("simulate", "-o", tmp_path / "scene", *arguments)
    assert not list(tmp_path.iterdir())


def test_output_that_is_a_file(tmp_path: Path, fails: Callable[..., str]) -> None:
    (tmp_path / "file").write_text("here")
    assert "cannot write" in fails("simulate", "-o", tmp_path / "file", "--size", 64)
    assert "cannot write" in fails("simulate", "-o", tmp_path / "file" / "scene", "--size", 64)
    assert contents(tmp_path) == {"file": b"here"}


def test_command_into_the_folder_at_hand(tmp_path, monkeypatch, run) -> None:
    monkeypatch.chdir(tmp_path)
    words = ("simulate", "-o", ".", "--size", 64, "--bands", 8, "--seed", 9)
    result = run(*words)
    assert result.exit_code == 0, result.output
    assert result.stdout == "" and sorted(contents(tmp_path)) == sorted(FILES)
    assert "64 × 64 PAN, 8 bands at 1/4" in " ".join(result.stderr.split())
    again = run(*words)
    assert again.exit_code == 1 and "exists" in again.stderr
    assert run(*words, "--overwrite", "-q").stderr == "" and sorted(contents(tmp_path)) == sorted(FILES)


def test_noise_is_a_factor() -> None:
    clean, usual, loud = (simulate_arrays(96, seed=5, noise=factor) for factor in (0.0, 1.0, 3.0))
    assert np.array_equal(clean[2], loud[2])  # truth has none
    for quiet, noisy, louder in zip(clean[:2], usual[:2], loud[:2], strict=True):
        errors = [(image.astype(float) - quiet).std() for image in (noisy, louder)]
        assert errors[0] > 0.5
        assert errors[1] == pytest.approx(3 * errors[0], rel=0.1)


@pytest.mark.parametrize("shift", [(1.0, -2.0), (0.5, 0.25)])
def test_shift_moves_ms_alone(shift: tuple[float, float]) -> None:
    still, moved = (simulate_arrays(192, seed=7, noise=0, shift=by) for by in ((0.0, 0.0), shift))
    assert np.array_equal(still[0], moved[0])
    assert np.array_equal(still[2], moved[2])
    gains = SENSORS["generic"].ms_gains(4)
    grid = corner_aligned(4).moved(*shift)
    expected = degrade(still[2], grid, (48, 48), gains)
    inner = np.s_[:, 8:-8, 8:-8]
    assert np.abs(moved[1] - expected)[inner].max() < 1.5
    assert np.abs(moved[1].astype(float) - still[1])[inner].max() > 20


def test_shift_leaves_no_trace_of_blocks(tmp_path: Path) -> None:
    whole, pieces = (simulate_arrays(192, seed=7, shift=(0.3, -1.6), block=b) for b in (512, 64))
    assert all(np.array_equal(a, b) for a, b in zip(whole, pieces, strict=True))
    simulate_scene(tmp_path / "scene", size=64, shift=(0.5, 0))
    with rasterio.open(tmp_path / "scene" / "ms.tif") as file:
        assert file.tags()["SHIFT"] == "0.5 0 MS pixels"


SENSOR = """
name = "TEST1"
bands = ["violet", "red", "deep red"]
ratio = 2
bits = 12
mtf_ms = 0.25
mtf_pan = 0.3
wavelengths = [[400, 440], [630, 690], [660, 725]]
pan_wavelengths = [600, 700]
"""


def test_sensor_file_sets_the_responses(tmp_path: Path, run: Callable[..., Any], fails: Callable[..., str]) -> None:
    path = tmp_path / "my.toml"
    path.write_text(SENSOR)
    sensor = find_sensor(str(path))
    spectra = make_spectra(sensor, sensor.bands, 3)
    weights = band_weights(sensor, sensor.bands)
    assert weights.sum(1) == pytest.approx(1)
    red = WAVELENGTHS.index("red")
    assert weights[1, red] == 1  # a known name is its column
    assert weights[2, red] == pytest.approx(0.5, abs=0.02)
    assert weights[2, WAVELENGTHS.index("red edge")] == pytest.approx(0.5, abs=0.02)
    assert not weights[0, WAVELENGTHS.index("green") :].any()
    # PAN sees orange and red alone: its palette lies nearer to red than to violet
    pan, bands = spectra.palette[-1], spectra.palette[:-1]
    assert np.abs(pan - bands[1]).mean() < 0.3 * np.abs(pan - bands[0]).mean()
    assert run("simulate", "-o", tmp_path / "scene", "--size", 64, "--sensor", path).exit_code == 0
    path.write_text("\n".join(line for line in SENSOR.splitlines() if not line.startswith("wavelengths")))
    assert "no spectra for band 'violet'" in fails("simulate", "-o", tmp_path / "x", "--size", 64, "--sensor", path)
