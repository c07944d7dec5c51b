"""Adapting to the scene at hand: it helps where it can, is not used where it does not, and survives kills."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from camera_maker import acquire, textured, write_scene
from conftest import PairFiles, read

from ksdiff_cli.metrics import ergas
from ksdiff_cli.models.checkpoint import load_ksdiff, read_header, save_model
from ksdiff_cli.models.config import ModelConfig
from ksdiff_cli.models.ksdiff import KSDiff
from ksdiff_cli.training.scene import correlate, tune

ROOT = Path(__file__).resolve().parents[1]
SMALL = {"width": 8, "band_width": 8, "trunk_blocks": 1, "band_blocks": 1, "encoder_width": 8, "latent": 8}


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small network for any number of bands that has learnt nothing: there is much to adapt."""
    torch.manual_seed(0)
    config = ModelConfig(backbone="unrolled", denoiser_width=16, denoiser_blocks=1, **SMALL)
    path = tmp_path_factory.mktemp("weights") / "start.safetensors"
    model = KSDiff(config)
    with torch.no_grad():
        for name, weight in model.network.named_parameters():
            if name.startswith("head"):  # an output that explains neither image well
                weight.add_(0.1 * torch.randn_like(weight))
    save_model(model, path, sensor={"name": "generic"}, training={"steps": 0})
    return path


@pytest.fixture(scope="module")
def truth() -> Any:
    return textured(3, seed=4, size=640)


@pytest.fixture(scope="module")
def scene(truth: Any, tmp_path_factory: pytest.TempPathFactory) -> PairFiles:
    return write_scene(tmp_path_factory.mktemp("scene"), *acquire(truth, 4, 0.3, 0.5, (0.0, 0.0), 0.005))


def command(scene: PairFiles, weights: Path, output: Path, *more: Any) -> list[Any]:
    return ["sharpen", scene.pan, scene.ms, "-o", output, "--checkpoint", weights, "--adapt", "0.1", *more]


def test_it_helps_and_its_weights_are_found_again(
    run: Callable[..., Any], scene: PairFiles, truth: Any, weights: Path, tmp_path: Path
) -> None:
    output, plain = tmp_path / "out.tif", tmp_path / "plain.tif"
    first = run(*command(scene, weights, output))
    assert first.exit_code == 0, first.output
    assert "adapted to the scene: R-Q2n" in first.stderr
    kept = tmp_path / "out.tif.adapted.safetensors"
    facts = read_header(kept)["training"]["adaptation"]
    assert facts["kept"] and facts["note"] in first.stderr.replace("\n", " ")
    assert not (tmp_path / ".out.tif.adapting").exists()
    assert run("sharpen", scene.pan, scene.ms, "-o", plain, "--checkpoint", weights).exit_code == 0
    adapted, before = (ergas(truth, read(path).astype(float)) for path in (output, plain))
    assert adapted < 0.97 * before

    stored, bytes_of = kept.read_bytes(), output.read_bytes()
    work = tmp_path / ".out.tif.adapting"  # of a run that was killed when its weights were stored
    work.mkdir()
    (work / "lock").write_text("123")
    again = run(*command(scene, weights, output, "--overwrite"))
    assert "adapted weights of an earlier run" in again.stderr and not work.exists()
    assert (kept.read_bytes(), output.read_bytes()) == (stored, bytes_of)
    output.unlink()
    other = run(*command(scene, weights, output, "--seed", "1"))
    assert other.exit_code == 1 and f"{kept.name}: exists already" in other.stderr and kept.read_bytes() == stored
    other = run(*command(scene, weights, output, "--overwrite", "--seed", "1"))
    assert "earlier run" not in other.stderr and kept.read_bytes() != stored


def test_only_the_named_parts_move_and_the_same_way_each_time(weights: Path, scene: PairFiles) -> None:
    from ksdiff_cli.fusers.network import Network
    from ksdiff_cli.products import make_pair
    from ksdiff_cli.raster.pair import open_pair
    from ksdiff_cli.training.scene import Window

    network, made = load_ksdiff(weights)[0].network, []
    with open_pair(make_pair(str(scene.pan), [str(scene.ms)])) as pair:
        for _ in range(2):
            fuser = Network(weights, "cpu")
            fuser.check(pair.bands, pair.true_ratio)
            statistics = pair.statistics()
            fuser.prepare(pair, statistics)
            window = Window(*fuser.load(pair.read_observed(0, 0, 256, 256)))
            with fuser.learning(statistics) as (model, known, kernels):
                plain = model.folded(kernels)
                start = {name: value.clone() for name, value in plain.state_dict().items()}
                tune(plain, known, [window], 2, 0, lambda done, total: None)
            made.append(plain.state_dict())
    moved = {name for name, value in start.items() if not torch.equal(value, made[0][name])}
    assert moved and all(name.split(".")[1] in network.adapts for name in moved), moved
    assert all(torch.equal(value, made[1][name]) for name, value in made[0].items())


def test_weights_that_explain_the_scene_worse_are_not_used(
    run: Callable[..., Any], scene: PairFiles, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ksdiff_cli.training.scene as training

    def spoil(model: KSDiff, *rest: Any) -> None:
        with torch.no_grad():
            for weight in model.network.head.parameters():
                weight.mul_(20)

    monkeypatch.setattr(training, "tune", spoil)
    result = run(*command(scene, weights, tmp_path / "out.tif"))
    assert result.exit_code == 0, result.output
    assert "not adapted, as it would not help" in result.stderr
    assert run("sharpen", scene.pan, scene.ms, "-o", tmp_path / "plain.tif", "--checkpoint", weights).exit_code == 0
    assert np.array_equal(read(tmp_path / "out.tif"), read(tmp_path / "plain.tif"))


def test_a_wrong_camera_shows_by_gaining_too_much(
    run: Callable[..., Any], scene: PairFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ksdiff_cli.raster.camera as cameras

    fit = cameras.fit_camera

    def wrong(*given: Any, **more: Any) -> Any:
        return replace(fit(*given, **more), compensation=1.5)

    monkeypatch.setattr(cameras, "fit_camera", wrong)
    result = run("sharpen", scene.pan, scene.ms, "-o", tmp_path / "out.tif", "--adapt", "0.1")
    assert result.exit_code == 0, result.output
    assert "not adapted, so much is to be had only where the camera found is wrong" in " ".join(result.stderr.split())
    assert run("sharpen", scene.pan, scene.ms, "-o", tmp_path / "plain.tif").exit_code == 0
    assert np.array_equal(read(tmp_path / "out.tif"), read(tmp_path / "plain.tif"))


def test_scenes_that_hold_too_little_are_refused_in_one_line(
    fails: Callable[..., str], make_pair: Callable[..., PairFiles], weights: Path, tmp_path: Path
) -> None:
    def dig(pan: Any, ms: Any) -> None:
        ms[:, ::5, ::5] = 0

    small, holed = make_pair(size=(64, 64)), make_pair(size=(640, 640), edit=dig, ms_profile={"nodata": 0})
    for pair in (small, holed):
        line = fails(*command(pair, weights, tmp_path / "out.tif", "-q"))
        assert "--adapt needs 4 windows" in line and "sharpen without it" in line
    assert sorted(path.name for path in tmp_path.iterdir()) == ["scene"]


def test_a_network_that_does_not_observe_is_refused(
    fails: Callable[..., str], scene: PairFiles, tmp_path: Path
) -> None:
    other = tmp_path / "other.safetensors"
    model = KSDiff(ModelConfig(width=8, depths=(1, 1, 1), encoder_width=8, denoiser_width=16, latent=8))
    save_model(model, other, sensor={}, training={})
    line = fails(*command(scene, other, tmp_path / "out.tif", "-q"))
    assert str(other) in line and "cannot be adapted" in line


def test_what_does_not_go_with_it_is_bad_usage(run: Callable[..., Any], scene: PairFiles, tmp_path: Path) -> None:
    given = "sharpen", scene.pan, scene.ms, "-o", tmp_path / "o.tif", "--adapt", "1"
    others = (
        (("--method", "gsa"), "--adapt goes with --method ksdiff"),
        (("--sharpness", "1"), "leave one"),
        (("--uncertainty", tmp_path / "u.tif"), "leave one"),
    )
    for more, told in others:
        result = run(*given, *more)
        assert result.exit_code == 2 and told in " ".join(result.stderr.replace("│", " ").split())


def test_a_killed_run_ends_in_the_same_bytes(scene: PairFiles, weights: Path, tmp_path: Path) -> None:
    outputs = [tmp_path / name for name in ("a", "b")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    for folder in outputs:
        folder.mkdir()
        arguments = map(str, command(scene, weights, folder / "out.tif", "-q", "--threads", "1"))
        start = [sys.executable, "-m", "ksdiff_cli", *arguments]
        if folder.name == "b":
            process = subprocess.Popen(start, env=environment)
            deadline = time.monotonic() + 120
            while not (folder / ".out.tif.adapting").exists() and time.monotonic() < deadline:
                time.sleep(0.02)
            process.send_signal(signal.SIGKILL)
            assert process.wait() == -signal.SIGKILL and not (folder / "out.tif").exists()
        assert subprocess.run(start, env=environment).returncode == 0
        assert sorted(path.name for path in folder.iterdir()) == ["out.tif", "out.tif.adapted.safetensors"]
    for name in ("out.tif", "out.tif.adapted.safetensors"):
        assert (outputs[0] / name).read_bytes() == (outputs[1] / name).read_bytes()


def test_local_correlation_is_that_of_the_window() -> None:
    random = np.random.default_rng(0)
    x, y = random.normal(size=(2, 9, 9))
    found = correlate(*(torch.from_numpy(image)[None, None] for image in (x, y)), 5)[0, 0, 4, 4]
    assert float(found) == pytest.approx(np.corrcoef(x[2:7, 2:7].ravel(), y[2:7, 2:7].ravel())[0, 1])
