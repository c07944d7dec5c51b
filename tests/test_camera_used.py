"""The camera found in a scene at work: fidelity, --consistent, --mtf, info, and what outputs say of it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from camera_maker import SIZE, acquire, textured, transfer, write_scene
from conftest import PairFiles, read, tags, write_raster
from rasterio.transform import Affine

from ksdiff_cli.classical import METHODS
from ksdiff_cli.errors import KsdiffError
from ksdiff_cli.fusers.classical import Classical, Upsampling, make_fuser
from ksdiff_cli.fusers.consistent import Consistent
from ksdiff_cli.metrics import ergas, sam
from ksdiff_cli.numerics.boxes import Box
from ksdiff_cli.numerics.camera import camera_kernel
from ksdiff_cli.numerics.grids import corner_aligned
from ksdiff_cli.numerics.projection import place_camera
from ksdiff_cli.options.sharpening import SharpenOptions
from ksdiff_cli.products import make_pair as scene_of
from ksdiff_cli.raster.camera import find_camera, ms_camera
from ksdiff_cli.raster.pair import open_pair
from ksdiff_cli.sharpening.engine import Sharpened, sharpen_scene

Array = Any
GAIN, COMPENSATION = 0.3, 0.8


@pytest.fixture(scope="module")
def truth() -> Array:
    return textured(3, seed=2)


@pytest.fixture
def files(truth: Array, tmp_path: Path) -> PairFiles:
    """A scene whose MS was compensated."""
    return write_scene(tmp_path, *acquire(truth, 4, GAIN, COMPENSATION, (0.0, 0.0), 0.01))


def sharpen(files: PairFiles, name: str, fuser: Any = None, **options: Any) -> Sharpened:
    scene = scene_of(str(files.pan), [str(files.ms)])
    return sharpen_scene(scene, files.folder / name, fuser or Upsampling(), SharpenOptions(**options))


@pytest.mark.parametrize("cycles", [0.1, 0.25, 0.45])
def test_a_compensated_camera_over_a_window_sees_its_mtf(cycles: float) -> None:
    """Of a wave with so many cycles in an MS pixel."""
    camera = place_camera(corner_aligned(4), Box(40, 48, 160, 200), (50, 60), [camera_kernel(0.2, 0.9)])
    wave = np.tile(np.sin(2 * np.pi * cycles * np.arange(240) / 4), (200, 1)).astype(np.float32)
    seen = camera.degrade(wave[40:160, 48:200], 0)
    there = np.sin(2 * np.pi * cycles * (4 * np.arange(camera.ms.left, camera.ms.right) + 1.5) / 4)
    expected = np.broadcast_to(transfer(np.array(cycles), 0.2, 0.9) * there, seen.shape)
    np.testing.assert_allclose(seen[camera.whole], expected[camera.whole], atol=0.01)


def test_outputs_say_which_camera_was_found(files: PairFiles, run: Callable[..., Any]) -> None:
    done = run("sharpen", files.pan, files.ms, "-o", files.folder / "out.tif", "--method", "brovey", "--consistent")
    assert done.exit_code == 0, done.output
    found = tags(files.folder / "out.tif")
    assert "Cameras: MS gain 0.30 ± 0.0" in done.stderr
    assert "compensation 0.8 ± 0.0" in found["KSDIFF_CAMERAS"]
    assert found["KSDIFF_CAMERAS"] in done.stderr
    assert found["KSDIFF_CONSISTENT_WITH"] == "the camera found in the scene"
    assert "the camera found in the scene" in found["KSDIFF_FIDELITY"]
    sensor = sharpen(files, "sensor.tif", Consistent(make_fuser("brovey"), "sensor"), mtf="sensor")
    assert sensor.fidelity and "MTF of sensor generic" in sensor.fidelity
    assert sensor.cameras is None and "KSDIFF_CAMERAS" not in tags(sensor.output)


def test_info_tells_the_cameras(files: PairFiles, run: Callable[..., Any]) -> None:
    (scene,) = json.loads(run("info", files.folder, "--json").stdout)["scenes"]
    cameras = scene["cameras"]
    assert cameras["reliable"]
    assert cameras["gain"] == pytest.approx(GAIN, abs=0.03)
    assert cameras["compensation"] == pytest.approx(COMPENSATION, abs=0.1)
    assert len(cameras["pan_mix"]["weights"]) == 3
    assert f"cameras: {cameras['summary']}\n" in run("info", files.folder).stdout


def test_a_scene_that_does_not_tell_is_said_to(make_pair: Callable[..., PairFiles], run: Callable[..., Any]) -> None:
    files = make_pair()  # without detail
    done = run("sharpen", files.pan, files.ms, "-o", files.folder / "out.tif", "--method", "exp")
    assert done.exit_code == 0, done.output
    assert "Cameras: MS gain 0.30 at Nyquist, from the sensor's table (" in done.stderr
    assert "MTF of sensor generic" in tags(files.folder / "out.tif")["KSDIFF_FIDELITY"]


def test_consistency_with_the_scenes_camera_comes_nearer_to_the_truth(files: PairFiles, truth: Array) -> None:
    inner = np.s_[:, 16:-16, 16:-16]

    def errors(name: str, fuser: Any) -> tuple[float, float]:
        made = read(sharpen(files, name, fuser).output)[inner].astype(float)
        return ergas(truth[inner], made, 4), sam(truth[inner], made)

    plain = errors("plain.tif", make_fuser("gsa"))
    sensor = errors("sensor.tif", Consistent(make_fuser("gsa"), "sensor"))
    scene = errors("scene.tif", Consistent(make_fuser("gsa")))
    assert scene[0] < 0.9 * plain[0] and scene[0] < 0.5 * sensor[0]
    assert scene[1] < min(plain[1], sensor[1])


@pytest.mark.parametrize("name", [name for name, method in METHODS.items() if method.uses_mtf])
def test_mtf_methods_take_the_scenes_camera_if_asked(name: str, files: PairFiles, truth: Array) -> None:
    inner = np.s_[:, 16:-16, 16:-16]
    found = {}
    for mtf in ("sensor", "scene"):
        made = sharpen(files, f"{mtf}.tif", make_fuser(name, mtf=mtf))
        found[mtf] = ergas(truth[inner], read(made.output)[inner].astype(float), 4)
        assert tags(made.output).get("KSDIFF_MTF") == (mtf if mtf == "scene" else None)
    assert found["scene"] < 0.95 * found["sensor"]


@pytest.mark.parametrize("name", ["mtf-glp-fs", "mtf-glp-hpm-r"])
def test_some_pixels_tell_what_all_do_of_compensated_cameras_too(name, files, monkeypatch) -> None:
    with open_pair(scene_of(str(files.pan), [str(files.ms)])) as pair:
        statistics, fusers = pair.statistics(), [make_fuser(name, mtf="scene") for _ in range(2)]
        fusers[0].prepare(pair, statistics)
        monkeypatch.setattr("ksdiff_cli.fusers.classical._LARGE", 0)
        fusers[1].prepare(pair, statistics)
        tile = pair.read(100, 100, 64, 64)
    whole, some = (fuser.fuse(tile, statistics, 4) for fuser in fusers)
    assert 0 < np.abs(some - whole).max() < 0.02 * whole.std()


def test_only_methods_with_mtf_filters_depend_on_the_camera() -> None:
    assert Classical("mtf-glp-fs", "scene").uses_camera
    assert not Classical("mtf-glp-fs").uses_camera and not Classical("gsa", "scene").uses_camera
    assert Consistent(Upsampling()).uses_camera and not Consistent(Upsampling(), "sensor").uses_camera
    assert Consistent(Classical("mtf-glp-fs", "scene"), "sensor").uses_camera


def test_the_bands_differ_as_the_sensors_do(files: PairFiles) -> None:
    scene = scene_of(str(files.pan), [str(files.ms)], "QB")
    with open_pair(scene) as pair:
        found, camera = find_camera(pair), ms_camera(pair)
        table = (0.34, 0.30, 0.22)
        gains = found.gains(table)
        # the sensor has four bands and the scene three: the generic one's gains are alike
        assert camera.kernels == found.kernels((0.3,) * 3)
    assert gains[0] > gains[1] > gains[2]
    assert np.mean(np.log(gains)) == pytest.approx(np.log(found.gain))


def test_a_killed_run_goes_on_to_the_same_bytes(files: PairFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    def fuser() -> Consistent:
        return Consistent(make_fuser("mtf-glp-fs", mtf="scene"))

    whole = sharpen(files, "whole.tif", fuser(), tile=128)
    other = sharpen(files, "other.tif", fuser(), tile=256)
    # windows of another side round otherwise
    assert np.abs(read(whole.output).astype(int) - read(other.output).astype(int)).max() <= 1
    calls, fuse = [], Consistent.fuse

    def stopping(*arguments: Any) -> Array:
        calls.append(1)
        if len(calls) == 9:
            raise KeyboardInterrupt
        return fuse(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Consistent, "fuse", stopping)
        with pytest.raises(KeyboardInterrupt):
            sharpen(files, "killed.tif", fuser(), tile=128)
    facts = json.loads((files.folder / ".killed.tif.shards" / "job.json").read_text())
    assert facts["camera"].startswith("SceneCamera(gain=0.3")
    resumed = sharpen(files, "killed.tif", fuser(), tile=128)
    assert resumed.resumed and resumed.cameras == whole.cameras
    assert resumed.output.read_bytes() == whole.output.read_bytes()


def test_parts_of_a_scene_are_seen_through_the_whole_scenes_camera(files: PairFiles) -> None:
    whole = sharpen(files, "whole.tif", Consistent(make_fuser("gsa")))
    part = sharpen(files, "part.tif", Consistent(make_fuser("gsa")), window=(100, 60, 120, 200))
    assert part.cameras == whole.cameras
    assert np.array_equal(read(part.output), read(whole.output)[:, 100:220, 60:260])
    assert read(whole.output).shape == (3, SIZE, SIZE)


def test_another_mtf_is_refused(files: PairFiles) -> None:
    from ksdiff_cli import sharpen_scene as sharpen_by_name

    with pytest.raises(KsdiffError, match="mtf"):
        sharpen_by_name(files.pan, files.ms, output=files.folder / "out.tif", method="exp", mtf="table")  # type: ignore[arg-type]


def test_metrics_look_through_the_camera_found_where_asked(truth, files, run) -> None:
    """The truth explains a compensated MS through its own camera, and not through a Gaussian of the table."""
    fused = write_raster(
        files.folder / "truth.tif",
        np.rint(truth).astype("uint16"),
        crs="EPSG:32631",
        transform=Affine(1, 0, 5e5, 0, -1, 5e6),
    )
    given = "metrics", fused, "--pan", files.pan, "--ms", files.ms, "--json"
    table, scene = (json.loads(run(*given, "--mtf", whose).stdout) for whose in ("sensor", "scene"))
    assert scene["R_ERGAS"] < 0.3 * table["R_ERGAS"]
    assert scene["R_Q2n"] > 0.999 > table["R_Q2n"]
    assert scene["reprojection"] == "the camera found in the scene"
    unchanged = "D_lambda", "D_s", "HQNR", "D_rho", "D_sR"
    assert [scene[name] for name in unchanged] == [table[name] for name in unchanged]
    refused = run("metrics", fused, "--reference", fused, "--mtf", "scene")
    assert refused.exit_code == 2 and "--mtf goes with --pan and --ms" in refused.stderr
