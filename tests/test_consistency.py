"""Spectral fidelity and --consistent: what the MS camera would see of an output, measured and put right."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from conftest import read, tags, write_raster
from rasterio.transform import Affine
from scipy.ndimage import distance_transform_edt

from ksdiff_cli.errors import KsdiffError
from ksdiff_cli.fusers.classical import Upsampling, make_fuser
from ksdiff_cli.fusers.consistent import STEPS, Consistent, estimate_noise
from ksdiff_cli.fusers.fidelity import measure_fidelity
from ksdiff_cli.metrics import ergas, sam
from ksdiff_cli.numerics.boxes import Box
from ksdiff_cli.numerics.camera import camera_kernel
from ksdiff_cli.numerics.grids import Axis, GridMap, corner_aligned, degrade, upsample
from ksdiff_cli.numerics.moments import SceneStatistics
from ksdiff_cli.numerics.projection import place_camera
from ksdiff_cli.options.sharpening import SharpenOptions
from ksdiff_cli.products import make_pair as scene_of
from ksdiff_cli.raster.pair import open_pair
from ksdiff_cli.raster.tiles import Tile
from ksdiff_cli.sensors import SENSORS
from ksdiff_cli.sharpening.engine import Sharpened, sharpen_scene
from ksdiff_cli.sharpening.uncertainty import Spread
from ksdiff_cli.simulation.camera import simulate_arrays

Array = Any
GRIDS = {
    "ratio 4": corner_aligned(4),
    "ratio 2": corner_aligned(2),
    "not whole, shifted": GridMap(Axis(1 / 3.9, -0.3), Axis(1 / 4.1, 0.7)),
    "turned round": GridMap(Axis(-1 / 4, 31.6), Axis(1 / 4, -0.375)),
}


class Stained(Upsampling):
    """Upsampling that leaves NaN in holes, as a method may."""

    def fuse(self, tile: Tile, statistics: SceneStatistics, ratio: int) -> Array:
        return np.where(tile.valid, tile.ms_up, np.nan)

    def provenance(self) -> Mapping[str, str]:
        return {"METHOD": "stained"}


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Array]:
    """PAN, MS and truth of a QuickBird-like scene of 256 x 256 pixels."""
    pan, ms, truth = simulate_arrays(256, sensor="QB", seed=3)
    folder = tmp_path_factory.mktemp("simulated")
    place = {"crs": "EPSG:32631"}
    pan_path = write_raster(folder / "pan.tif", pan, transform=Affine(1, 0, 0, 0, -1, 0), **place)
    return pan_path, write_raster(folder / "ms.tif", ms, transform=Affine(4, 0, 0, 0, -4, 0), **place), truth


def sharpen(
    pan: Path, ms: Path, output: Path, fuser: Any = None, sensor: str | None = None, **options: Any
) -> Sharpened:
    return sharpen_scene(
        scene_of(str(pan), [str(ms)], sensor), output, fuser or Upsampling(), SharpenOptions(**options)
    )


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS.keys())
def test_a_camera_over_a_window_sees_what_it_sees_of_the_whole(grid):
    rng, gains, ms_shape = np.random.default_rng(0), (0.34, 0.22), (32, 40)
    image = rng.uniform(100, 900, (2, 128, 160)).astype(np.float32)
    whole = degrade(image, grid, ms_shape, gains)
    box = Box(32, 48, 100, 130)
    kernels = tuple(map(camera_kernel, gains))
    camera = place_camera(grid, box, ms_shape, kernels)
    shown = np.s_[camera.ms.top : camera.ms.bottom, camera.ms.left : camera.ms.right]
    assert camera.whole.sum() > 50
    for band in range(2):
        seen = camera.degrade(image[band, 32:100, 48:130], band)
        np.testing.assert_allclose(seen[camera.whole], whole[band][shown][camera.whole], rtol=1e-5)
    # and back: a plane that reaches far enough
    full = place_camera(grid, Box(0, 0, 128, 160), ms_shape, kernels)
    ms = rng.uniform(100, 900, (1, *ms_shape)).astype(np.float32)
    held = ms[:, full.ms.top : full.ms.bottom, full.ms.left : full.ms.right]
    start = full.ms.top, full.ms.left
    np.testing.assert_allclose(full.upsample(held[0]), upsample(held, grid, (128, 160), start)[0], rtol=1e-5)


def test_a_window_beside_ms_sees_nothing():
    assert place_camera(corner_aligned(4), Box(0, 0, 64, 64), (4, 0), [camera_kernel(0.3)]).ms.empty


def test_fidelity_is_the_difference_of_what_the_camera_sees_from_ms(simulated, tmp_path):
    pan, ms, _ = simulated
    made = sharpen(pan, ms, tmp_path / "out.tif", sensor="QB", mtf="sensor")
    seen = degrade(read(made.output).astype(np.float32), corner_aligned(4), (64, 64), SENSORS["QB"].mtf_ms)
    inner = np.s_[:, 2:-2, 2:-2]  # one window; the widest of four MTFs is cut at 9 PAN pixels
    original = read(ms).astype(float)
    rms = np.sqrt(((seen - original)[inner] ** 2).mean((1, 2)))
    found = [float(value) for value in tags(made.output)["KSDIFF_FIDELITY_DN"].split()]
    np.testing.assert_allclose(found, rms, rtol=1e-3)
    share = 100 * (rms / original.std((1, 2)))
    assert f"{share.mean():.2g} % of its" in made.fidelity
    assert f"worst band {share.argmax() + 1}" in made.fidelity and "sensor QB" in made.fidelity
    assert tags(made.output)["KSDIFF_FIDELITY"] == made.fidelity


def unexplained(bands: Array, pan: Array) -> float:
    """Share of PAN's variance that least squares on the bands leave."""
    columns = bands.reshape(len(bands), -1).T.astype(float)
    rest = pan.ravel() - columns @ np.linalg.lstsq(columns, pan.ravel(), rcond=None)[0]
    return rest.var() / pan.var()


def test_fidelity_to_pan_is_the_regression_on_output_and_ms(simulated, tmp_path):
    pan, ms, _ = simulated
    made = sharpen(pan, ms, tmp_path / "out.tif", sensor="QB", mtf="sensor")
    fine = read(pan)[0].astype(float)
    gain = sum(SENSORS["QB"].mtf_ms) / 4
    low = degrade(fine[None].astype(np.float32), corner_aligned(4), (64, 64), (gain,))[0].astype(float)
    inner = np.s_[..., 2:-2, 2:-2]  # as above
    shares = unexplained(read(made.output), fine), unexplained(read(ms)[inner], low[inner])
    assert shares[0] > 2 * shares[1] > 0  # upsampled MS has none of PAN's detail
    output, coarse = (f"{100 * share:.2g} %" for share in shares)
    assert f"bands misses {output} of PAN's" in made.fidelity_pan and f"own scale {coarse} (in" in made.fidelity_pan
    assert tags(made.output)["KSDIFF_FIDELITY_PAN"] == made.fidelity_pan
    sharp = sharpen(pan, ms, tmp_path / "gsa.tif", make_fuser("gsa"))
    assert f"bands misses {100 * unexplained(read(sharp.output), fine):.2g} % of PAN's" in sharp.fidelity_pan


def test_a_constant_pan_has_nothing_to_explain(make_pair, tmp_path):
    def flat(pan, ms):
        pan[...] = 300

    files = make_pair(size=(128, 128), edit=flat)
    made = sharpen(files.pan, files.ms, tmp_path / "out.tif")
    assert made.fidelity and made.fidelity_pan is None and "KSDIFF_FIDELITY_PAN" not in tags(made.output)


def test_fidelity_of_parts_and_formats_and_after_a_kill(simulated, tmp_path, monkeypatch):
    pan, ms, _ = simulated
    whole = sharpen(pan, ms, tmp_path / "whole.tif", tile=64)
    again = sharpen(pan, ms, tmp_path / "one.tif", tile=256)
    assert whole.fidelity == again.fidelity and whole.fidelity_pan == again.fidelity_pan
    for name, format in (("cog.tif", "COG"), ("out.vrt", "VRT")):
        made = sharpen(pan, ms, tmp_path / name, format=format, tile=64)
        assert made.fidelity == whole.fidelity == tags(tmp_path / name)["KSDIFF_FIDELITY"]
    part = sharpen(pan, ms, tmp_path / "part.tif", window=(32, 64, 96, 120))
    assert part.fidelity and part.fidelity != whole.fidelity

    calls, fuse = [], Upsampling.fuse

    def stopping(*arguments):
        calls.append(1)
        if len(calls) == 7:
            raise KeyboardInterrupt
        return fuse(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Upsampling, "fuse", stopping)
        with pytest.raises(KeyboardInterrupt):
            sharpen(pan, ms, tmp_path / "killed.tif", tile=64)
    resumed = sharpen(pan, ms, tmp_path / "killed.tif", tile=64)
    assert resumed.resumed and resumed.fidelity == whole.fidelity
    assert (tmp_path / "killed.tif").read_bytes() == (tmp_path / "whole.tif").read_bytes()


def test_pixels_that_see_a_hole_do_not_count(make_pair):
    def dig(pan, ms):
        pan[:, 20:50, 30:60] = 0

    files = make_pair(size=(128, 128), edit=dig, pan_profile={"nodata": 0}, ms_profile={"nodata": 0})
    with open_pair(scene_of(str(files.pan), [str(files.ms)])) as pair:
        statistics, scene = pair.statistics(), Box(0, 0, 128, 128)
        tile = pair.read(0, 0, 128, 128)
        far = distance_transform_edt(tile.valid) > 12

        def look(box):
            inside = box.within(scene)
            # what lies near the hole is wrong by far: only pixels that look there may see it, and none that count does
            wrong = np.where(tile.valid, tile.ms_up, 1e6)
            return wrong[:, *inside], tile.valid[inside]

        found = measure_fidelity(pair, scene, look, statistics.ms_std)
        assert found is not None and found.share.max() < 0.1 and far.any()

        def empty(box):
            return tile.ms_up[:, *box.within(scene)], np.zeros((box.height, box.width), bool)

        assert measure_fidelity(pair, scene, empty, statistics.ms_std) is None


def test_bands_that_the_sensor_does_not_have(simulated, tmp_path):
    pan, ms, _ = simulated
    assert "sensor generic" in sharpen(pan, ms, tmp_path / "a.tif", sensor="WV3", mtf="sensor").fidelity
    with pytest.raises(KsdiffError, match="WV3"):
        sharpen(pan, ms, tmp_path / "b.tif", Consistent(Upsampling(), "sensor"), sensor="WV3")
    assert not list(tmp_path.glob("*b.tif*"))
    # the scene tells its camera, whatever the sensor's bands
    assert "found in the scene" in sharpen(pan, ms, tmp_path / "c.tif", Consistent(Upsampling()), "WV3").fidelity


@pytest.mark.parametrize("method", ["exp", "brovey"])
def test_consistent_results_are_nearer_to_ms_and_to_the_truth(method, simulated, tmp_path):
    pan, ms, truth = simulated
    plain = sharpen(pan, ms, tmp_path / "plain.tif", make_fuser(method), "QB")
    made = sharpen(pan, ms, tmp_path / "made.tif", Consistent(make_fuser(method)), "QB")
    before, after = (
        np.array([float(value) for value in tags(path)["KSDIFF_FIDELITY_DN"].split()])
        for path in (plain.output, made.output)
    )
    assert (after < 0.25 * before).all()
    (note,) = (line for line in made.notes if "--consistent" in line)
    assert "noise is about" in note and "before it" in note
    assert tags(made.output)["KSDIFF_CONSISTENT"] == f"{STEPS} corrections"
    assert ergas(truth, read(made.output), 4) < 0.9 * ergas(truth, read(plain.output), 4)
    assert sam(truth, read(made.output)) < sam(truth, read(plain.output))


@pytest.mark.parametrize("ratio", [2, 4])
def test_the_cut_does_not_show(ratio, make_pair):
    rng = np.random.default_rng(1)

    def roughen(pan, ms):
        for image in (pan, ms):
            image += rng.normal(0, 40, image.shape).astype(image.dtype)

    grid = Affine(0.5 * ratio, 0, 593270, 0, -0.5 * ratio, 5747657)
    files = make_pair(size=(256, 320), dtype="float32", edit=roughen, ms_grid=grid)
    one = sharpen(files.pan, files.ms, files.folder / "one.tif", Consistent(make_fuser("brovey")), tile=512)
    exp = sharpen(files.pan, files.ms, files.folder / "plain.tif", make_fuser("brovey"), tile=512)
    assert np.abs(read(one.output) - read(exp.output)).max() > 10
    made = sharpen(files.pan, files.ms, files.folder / "64.tif", Consistent(make_fuser("brovey")), tile=64)
    np.testing.assert_allclose(read(made.output), read(one.output), rtol=0, atol=2e-3)


def test_holes_neither_leak_nor_ring(make_pair):
    def dig(pan, ms):
        pan[:, 40:90, 50:110] = 0
        ms[:, 30:34, 5:9] = 0

    profile = {"pan_profile": {"nodata": 0}, "ms_profile": {"nodata": 0}}
    dug = make_pair("dug", size=(192, 192), dtype="float32", edit=dig, **profile)
    whole = make_pair("whole", size=(192, 192), dtype="float32")
    results = []
    for files in (dug, whole):
        made = sharpen(files.pan, files.ms, files.folder / "out.tif", Consistent(Stained()), tile=64)
        results.append(read(made.output))
    with rasterio.open(dug.folder / "out.tif") as dataset:
        valid = dataset.read_masks(1) > 0
    plain = sharpen(dug.pan, dug.ms, dug.folder / "exp.tif", tile=64)
    with rasterio.open(plain.output) as dataset:
        assert np.array_equal(valid, dataset.read_masks(1) > 0)  # no pixel becomes valid or invalid
        uncorrected = dataset.read()
    off = np.abs(results[0] - results[1])
    distance = distance_transform_edt(valid)
    assert np.isfinite(results[0][:, valid]).all()
    # an image without detail: what holes change is small beside its deviation (150 DN a band of 1), and fades
    assert off[0][(distance > 0) & (distance <= 8)].max() < 15
    assert off[0][distance > 32].max() < 0.1
    near = (distance > 0) & (distance <= 8)
    truth = read(whole.folder / "out.tif")
    assert off[0][near].mean() < 1.2 * np.abs(uncorrected - truth)[0][near].mean()


def test_corrections_take_their_time_so_that_windows_are_kept():
    assert Upsampling().quick and not Consistent(Upsampling()).quick


def test_what_the_fuser_says_of_its_device_is_passed_on():
    class Elsewhere(Upsampling):
        def device_memory(self, bands):
            return 10**9, 40 * bands

        def findings(self):
            return {"PRECISION": "bf16"}

        def notes(self):
            return ["the GPU's memory is short"]

    for wrapped in (Consistent(Elsewhere()), Spread([Elsewhere(), Elsewhere()])):
        assert wrapped.device_memory(4) == (10**9, 160)
        assert wrapped.findings() == {"PRECISION": "bf16"}
        assert wrapped.notes() == ["the GPU's memory is short"]


def test_noise_is_found_on_plains_beside_texture(make_pair):
    rng = np.random.default_rng(5)
    sigmas = np.array([2.0, 5.0, 9.0, 14.0])[:, None, None]

    def roughen(pan, ms):
        ms += (rng.normal(0, 1, ms.shape) * sigmas).astype(np.float32)
        ms[:, :, 100:] += rng.normal(0, 200, ms[:, :, 100:].shape).astype(np.float32)

    files = make_pair(size=(512, 512), dtype="float32", edit=roughen)
    with open_pair(scene_of(str(files.pan), [str(files.ms)])) as pair:
        found = estimate_noise(pair)
    # a low percentile of the blocks lies a little below
    assert ((0.8 * sigmas.ravel() < found) & (found < 1.1 * sigmas.ravel())).all()
    with open_pair(scene_of(*map(str, (files.pan,)), [str(make_pair("small", size=(64, 64)).ms)])) as pair:
        assert estimate_noise(pair) is None


def test_the_command_says_it(run, simulated, tmp_path):
    pan, ms, _ = simulated
    done = run("sharpen", pan, ms, "-o", tmp_path / "out.tif", "--method", "brovey", "--consistent", "--sensor", "QB")
    assert done.exit_code == 0, done.output
    assert "Spectral fidelity: degraded output differs from MS by" in done.stderr
    assert "Spatial fidelity: the best mix of the output's bands misses" in done.stderr
    assert "Note: --consistent: before it" in done.stderr
