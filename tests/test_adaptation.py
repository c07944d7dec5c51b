"""Adapting to the scene at hand: it helps where it can, is not used where it does not, and survives kills."""

import os
import shutil
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
from conftest import Array, PairFiles, read
from typer.testing import CliRunner

from ksdiff_cli.main import app
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
    return textured(3, seed=4, size=512)


@pytest.fixture(scope="module")
def scene(truth: Any, tmp_path_factory: pytest.TempPathFactory) -> PairFiles:
    return write_scene(tmp_path_factory.mktemp("scene"), *acquire(truth, 4, 0.3, 0.5, (0.0, 0.0), 0.005))


def command(scene: PairFiles, weights: Path, output: Path, *more: Any) -> list[Any]:
    return ["sharpen", scene.pan, scene.ms, "-o", output, "--checkpoint", weights, "--adapt", "0.1", *more]


@pytest.fixture(scope="module")
def plain(scene: PairFiles, weights: Path) -> Array:
    """What the weights make of the scene as they are."""
    output = scene.folder / "plain.tif"
    given = "sharpen", scene.pan, scene.ms, "-o", output, "--checkpoint", weights
    assert CliRunner().invoke(app, list(map(str, given))).exit_code == 0
    return read(output)


@pytest.fixture(scope="module")
def adapted(scene: PairFiles, weights: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder of a run left alone, and what it told."""
    folder = tmp_path_factory.mktemp("adapted")
    result = CliRunner().invoke(app, list(map(str, command(scene, weights, folder / "out.tif", "--threads", "1"))))
    assert result.exit_code == 0, result.output
    assert sorted(path.name for path in folder.iterdir()) == ["out.tif", "out.tif.adapted.safetensors"]
    return folder, result.stderr


def test_it_helps_and_its_weights_are_found_again(run, scene, truth, weights, plain, adapted, tmp_path) -> None:
    shutil.copytree(adapted[0], tmp_path, dirs_exist_ok=True)
    output, kept = tmp_path / "out.tif", tmp_path / "out.tif.adapted.safetensors"
    assert "adapted to the scene: R-Q2n" in adapted[1]
    facts = read_header(kept)["training"]["adaptation"]
    assert facts["kept"] and facts["note"] in adapted[1].replace("\n", " ")
    assert ergas(truth, read(output).astype(float)) < 0.97 * ergas(truth, plain.astype(float))

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


def test_weights_that_explain_the_scene_worse_are_not_used(run, scene, weights, plain, tmp_path, monkeypatch) -> None:
    import ksdiff_cli.training.scene as training

    def spoil(model: KSDiff, *rest: Any) -> None:
        with torch.no_grad():
            for weight in model.network.head.parameters():
                weight.mul_(20)

    monkeypatch.setattr(training, "tune", spoil)
    result = run(*command(scene, weights, tmp_path / "out.tif"))
    assert result.exit_code == 0, result.output
    assert "not adapted, as it would not help" in result.stderr
    assert np.array_equal(read(tmp_path / "out.tif"), plain)


def test_a_wrong_camera_shows_by_gaining_too_much(run, scene, tmp_path, monkeypatch) -> None:
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


def test_scenes_that_hold_too_little_are_refused_in_one_line(fails, make_pair, weights, tmp_path) -> None:
    def dig(pan: Any, ms: Any) -> None:
        ms[:, ::5, ::5] = 0

    small, holed = make_pair(size=(64, 64)), make_pair(size=(640, 640), edit=dig, ms_profile={"nodata": 0})
    for pair in (small, holed):
        line = fails(*command(pair, weights, tmp_path / "out.tif", "-q"))
        assert "--adapt needs 4 windows" in line and "sharpen without it" in line
    assert sorted(path.name for path in tmp_path.iterdir()) == ["scene"]


def test_a_network_that_does_not_observe_is_refused(fails, scene, tmp_path) -> None:
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


def test_a_killed_run_ends_in_the_same_bytes(run, scene, weights, adapted, tmp_path) -> None:
    words = list(map(str, command(scene, weights, tmp_path / "out.tif", "--threads", "1", "-q")))
    process = subprocess.Popen(
        [sys.executable, "-m", "ksdiff_cli", *words], env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    while not (tmp_path / ".out.tif.adapting").exists() and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL and not (tmp_path / "out.tif").exists()
    assert run(*words).exit_code == 0
    assert contents(tmp_path) == contents(adapted[0])


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_local_correlation_is_that_of_the_window() -> None:
    random = np.random.default_rng(0)
    x, y = random.normal(size=(2, 9, 9))
    found = correlate(*(torch.from_numpy(image)[None, None] for image in (x, y)), 5)[0, 0, 4, 4]
    assert float(found) == pytest.approx(np.corrcoef(x[2:7, 2:7].ravel(), y[2:7, 2:7].ravel())[0, 1])
