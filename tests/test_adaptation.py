"""Fine-tuning on the scene at hand: it helps where it can, is not used where it does not, and survives kills."""

import errno
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch

from ksdiff_cli.models.checkpoint import load_ksdiff, read_header, save_model
from ksdiff_cli.models.config import ModelConfig
from ksdiff_cli.models.ksdiff import KSDiff
from ksdiff_cli.training.log import Log

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def weights(tmp_path):
    """A small network for any number of bands that has learnt nothing: there is much to adapt."""
    torch.manual_seed(0)
    config = ModelConfig(width=16, depths=(1, 1, 1), encoder_width=8, denoiser_width=16, denoiser_blocks=1, latent=8)
    path = tmp_path / "start.safetensors"
    save_model(KSDiff(config), path, sensor={"name": "generic"}, training={"steps": 0})
    return path


@dataclass(frozen=True)
class Scene:
    pan: Path
    ms: Path


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    from typer.testing import CliRunner

    from ksdiff_cli.main import app

    folder = tmp_path_factory.mktemp("simulated") / "scene"
    assert CliRunner().invoke(app, ["simulate", "-o", str(folder), "--size", "512", "-q"]).exit_code == 0
    return Scene(folder / "pan.tif", folder / "ms.tif")


def command(scene, weights, output, *more):
    return ["sharpen", scene.pan, scene.ms, "-o", output, "--checkpoint", weights, "--adapt", "0.05", *more]


def test_it_helps_on_the_part_held_out_and_its_weights_are_found_again(run, scene, weights, tmp_path):
    output, plain = tmp_path / "out.tif", tmp_path / "plain.tif"
    first = run(*command(scene, weights, output))
    assert first.exit_code == 0, first.output
    assert "adapted to the scene: ERGAS" in first.stderr
    kept = tmp_path / "out.tif.adapted.safetensors"
    facts = read_header(kept)["training"]["adaptation"]
    assert facts["kept"] and facts["note"] in first.stderr.replace("\n", " ")
    assert not (tmp_path / ".out.tif.adapting").exists()
    assert run("sharpen", scene.pan, scene.ms, "-o", plain, "--checkpoint", weights).exit_code == 0
    assert not np.array_equal(rasterio.open(output).read(), rasterio.open(plain).read())

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


def test_weights_for_other_gains_are_not_found_again(run, scene, weights, tmp_path):
    sensor, output = tmp_path / "sensor.toml", tmp_path / "out.tif"
    text = (ROOT / "sample_data" / "sensor.toml").read_text()
    sensor.write_text(text)
    given = command(scene, weights, output, "--overwrite", "--sensor", sensor)
    assert run(*given).exit_code == 0
    assert "earlier run" in run(*given).stderr
    sensor.write_text(text.replace("mtf_pan = 0.15", "mtf_pan = 0.2"))
    done = run(*given)
    assert done.exit_code == 0, done.stderr
    assert "earlier run" not in done.stderr


def test_weights_that_would_be_worse_are_not_used(run, scene, weights, tmp_path, monkeypatch):
    import ksdiff_cli.sharpening.adaptation as adaptation

    def spoil(options, stage, progress, again):
        model, header = load_ksdiff(options.init)
        with torch.no_grad():
            for parameter in model.network.parameters():
                parameter.add_(0.5)
        save_model(model, options.file(stage), sensor=header["sensor"], training=header["training"])

    monkeypatch.setattr(adaptation, "train_stage", spoil)
    result = run(*command(scene, weights, tmp_path / "out.tif"))
    assert result.exit_code == 0, result.output
    assert "not adapted, as it would not help" in result.stderr
    assert run("sharpen", scene.pan, scene.ms, "-o", tmp_path / "plain.tif", "--checkpoint", weights).exit_code == 0
    assert np.array_equal(rasterio.open(tmp_path / "out.tif").read(), rasterio.open(tmp_path / "plain.tif").read())


def test_too_small_a_scene_is_refused_in_one_line(fails, make_pair, weights, tmp_path):
    small = make_pair(size=(64, 64))
    line = fails(*command(small, weights, tmp_path / "out.tif", "-q"))
    assert "too few" in line and "without it" in line
    assert sorted(path.name for path in tmp_path.iterdir()) == ["scene", "start.safetensors"]


@pytest.mark.parametrize("step", [5, 40])
def test_a_scene_full_of_holes_is_refused_in_the_words_of_this_command(fails, make_pair, weights, tmp_path, step):
    def dig(pan, ms):
        ms[:, ::step, ::step] = 0

    holed = make_pair(size=(512, 512), edit=dig, ms_profile={"nodata": 0})
    line = fails(*command(holed, weights, tmp_path / "out.tif", "-q"))
    assert "--adapt has nothing to train on" in line and "without it" in line and "--patch" not in line
    assert sorted(path.name for path in tmp_path.iterdir()) == ["scene", "start.safetensors"]


def test_it_goes_with_the_network_only(run, scene, tmp_path):
    result = run("sharpen", scene.pan, scene.ms, "-o", tmp_path / "o.tif", "--method", "gsa", "--adapt", "1")
    assert result.exit_code == 2 and "--adapt goes with --method ksdiff" in result.stderr.replace("\n", " ")


def test_a_killed_run_goes_on(scene, weights, tmp_path):
    output = tmp_path / "out.tif"
    arguments = list(map(str, command(scene, weights, output, "-q", "--threads", "1")))
    start = [sys.executable, "-m", "ksdiff_cli", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    work = tmp_path / ".out.tif.adapting"
    process = subprocess.Popen(start, env=environment)
    deadline = time.monotonic() + 120
    while not (work / "patches" / "train.h5").exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not output.exists()
    made = work / "patches" / "train.h5"
    made.chmod(0o600)  # a sign to know it by: patches made anew would not have it
    process = subprocess.Popen(start, env=environment)
    signs = set()
    while process.poll() is None:
        if made.exists():
            signs.add(made.stat().st_mode & 0o777)
        time.sleep(0.01)
    assert process.returncode == 0 and signs == {0o600}
    assert output.exists() and not work.exists()


def test_a_full_disk_while_training_names_no_option_of_another_command(run, scene, weights, tmp_path, monkeypatch):
    def fail(self, step, facts):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Log, "add", fail)
    result = run(*command(scene, weights, tmp_path / "out.tif"))
    assert result.exit_code == 1 and not (tmp_path / "out.tif").exists()
    told = " ".join(result.stderr.split())
    assert "(No space left on device); make room there; the same command goes on from here" in told
    assert "--resume" not in told
