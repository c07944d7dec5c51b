"""The two stages as a person runs them: on files, with a kill in the middle."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from ksdiff_cli.errors import KsdiffError
from ksdiff_cli.models.checkpoint import load_model
from ksdiff_cli.models.config import ModelConfig
from ksdiff_cli.models.contract import ModelError
from ksdiff_cli.training import TrainingOptions, check_output, choose_bands, open_data, train_stage

SMALL = {
    "width": 16,
    "depths": (1, 1, 1),
    "encoder_width": 16,
    "latent": 16,
    "denoiser_width": 32,
    "denoiser_blocks": 1,
}


def write_patches(folder, bands=4, images=12, side=32, ratio=4, seed=0):
    """PanCollection-like files in which PAN explains the detail that lms lacks, so that a network can learn."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    for name, count in (("train.h5", images), ("valid.h5", 4)):
        ms = rng.uniform(200, 400, (count, bands, side // ratio, side // ratio))
        lms = ms.repeat(ratio, 2).repeat(ratio, 3)
        detail = rng.normal(0, 30, (count, 1, side, side))
        with h5py.File(folder / name, "w") as file:
            file["ms"], file["lms"] = ms, lms
            share = np.resize([1, -1, 0.5, 0], bands)[:, None, None]  # a plain injection of PAN's detail is wrong here
            file["pan"], file["gt"] = lms.mean(1, keepdims=True) + detail, lms + share * detail
    return folder


@pytest.fixture(autouse=True)
def _one_thread():
    """The networks here are so small that threads only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def patches(tmp_path_factory):
    return write_patches(tmp_path_factory.mktemp("patches"))


def options(patches, run, **changes):
    values = {"steps": 6, "batch": 4, "validate_every": 2, "config": ModelConfig(bands=4, **SMALL)} | changes
    return TrainingOptions(data=(patches,), run=run, **values)


def test_both_stages_learn_and_log(patches, tmp_path):
    chosen = options(patches, tmp_path, steps=60, validate_every=20, batch=8)
    for stage in (1, 2):
        done = train_stage(chosen, stage)
        model, header = load_model(done)
        assert (header["stage"], model.stage, header["training"]["steps"]) == (stage, stage, 60)
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [(line["stage"], line["step"]) for line in lines] == [(s, k) for s in (1, 2) for k in (20, 40, 60)]
    assert lines[2]["valid"] < 0.9 * lines[0]["valid"]
    assert {"diffusion", "shuffle_cost", "z_spread"} <= set(lines[-1])
    assert not list(tmp_path.glob("*.state"))


def test_same_seed_same_weights(patches, tmp_path):
    files = [train_stage(options(patches, tmp_path / run, seed=5), 1) for run in "ab"]
    first, second = (load_model(file)[0].state_dict() for file in files)
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("stage", [1, 2])
def test_killed_run_resumes_to_the_same_weights(patches, tmp_path, stage):
    """A real SIGKILL in a real second process."""
    command = [sys.executable, "-m", "ksdiff_cli", "train", "--data", str(patches), "--steps", "24", "--batch", "2"]
    command += ["--width", "8", "--threads", "1", "-q", "--validate-every", "4"]
    env = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    once, killed = tmp_path / "once", tmp_path / "killed"
    subprocess.run([*command, "--stage", "all" if stage == 2 else "1", "-o", str(once)], check=True, env=env)
    if stage == 2:
        killed.mkdir()
        (killed / "stage1.safetensors").write_bytes((once / "stage1.safetensors").read_bytes())
    command += ["--stage", str(stage), "-o", str(killed)]
    process = subprocess.Popen(command, env=env)
    state = killed / f"stage{stage}.state"
    while not state.exists() and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert state.exists()
    assert not (killed / f"stage{stage}.safetensors").exists()
    subprocess.run([*command, "--resume"], check=True, env=env)
    first, second = (load_model(run / f"stage{stage}.safetensors")[0].state_dict() for run in (once, killed))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_mixed_band_counts_make_a_universal_network(patches, tmp_path):
    other = write_patches(tmp_path / "other", bands=2)
    files, _ = open_data((patches, other))
    assert choose_bands(files, universal=False) is None
    assert choose_bands(files[:1], universal=False) == 4
    assert choose_bands(files[:1], universal=True) is None
    chosen = TrainingOptions(
        data=(patches, other), run=tmp_path / "run", steps=2, batch=4, config=ModelConfig(bands=None, **SMALL)
    )
    model, header = load_model(train_stage(chosen, 1))
    assert model.config.bands is None
    assert header["training"]["images"] == 24


def test_plain_network_trains_without_prior(patches, tmp_path):
    config = ModelConfig(bands=4, **(SMALL | {"prior": False}))
    model, _ = load_model(train_stage(options(patches, tmp_path, config=config), 1))
    assert not any("generator" in name or "plfe" in name for name in model.state_dict())


def test_init_starts_from_given_weights(patches, tmp_path):
    first = train_stage(options(patches, tmp_path / "first", steps=40, batch=8), 1)
    again = train_stage(options(patches, tmp_path / "again", steps=1, rate=1e-9, init=first), 1)
    old, new = (load_model(path)[0].state_dict() for path in (first, again))
    name = "network.stem.conv.weight"
    torch.testing.assert_close(new[name], old[name], rtol=1e-4, atol=1e-6)
    wrong = write_patches(tmp_path / "wrong", bands=2)
    with pytest.raises(ModelError, match="4 MS bands"):
        train_stage(options(wrong, tmp_path / "never", init=first), 1)


def test_folder_of_prepared_folders_is_all_of_them(tmp_path):
    for name in ("b", "a"):
        write_patches(tmp_path / "data" / name, images=3)
    train, valid = open_data((tmp_path / "data",))
    assert [file.path.parent.name for file in train] == ["a", "b"]
    assert len(valid) == 2


def test_time_limit_ends_well(patches, tmp_path):
    started = time.monotonic()
    done = train_stage(options(patches, tmp_path, steps=10**6, time_limit=0.03), 1)
    assert done.exists()
    assert time.monotonic() - started < 30


def test_clear_refusals(patches, tmp_path):
    with pytest.raises(KsdiffError, match="prepare-data"):
        open_data((tmp_path / "nothing",))
    with pytest.raises(KsdiffError, match="train --stage 1"):
        train_stage(options(patches, tmp_path), 2)
    chosen = options(patches, tmp_path)
    train_stage(chosen, 1)
    with pytest.raises(KsdiffError, match="--overwrite"):
        check_output(chosen, 1, resume=False, overwrite=False)
    (tmp_path / "stage2.state").write_bytes(b"half")
    with pytest.raises(KsdiffError, match="--resume"):
        check_output(chosen, 2, resume=False, overwrite=False)
    with pytest.raises(KsdiffError, match="cannot be read"):
        train_stage(chosen, 2)


def test_resume_with_other_options_is_refused(patches, tmp_path, monkeypatch):
    chosen = options(patches, tmp_path, steps=50)
    monkeypatch.setattr("ksdiff_cli.training.save_model", lambda *a, **k: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        train_stage(chosen, 1)
    with pytest.raises(KsdiffError, match="rate"):
        train_stage(options(patches, tmp_path, steps=50, rate=0.5), 1)
