"""The two stages as a person runs them: on files, learning, logging, refusing."""

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import get_args

import h5py
import numpy as np
import pytest
import torch

from ksdiff_cli.api import train
from ksdiff_cli.errors import KsdiffError
from ksdiff_cli.models.backbones import BACKBONES, takes_any_bands
from ksdiff_cli.models.checkpoint import load_model, save_model, weights_hash
from ksdiff_cli.models.config import ModelConfig
from ksdiff_cli.models.contract import ModelError
from ksdiff_cli.models.ksdiff import KSDiff
from ksdiff_cli.models.peers.pixel_diffusion import PixelConfig
from ksdiff_cli.options.training import Backbone
from ksdiff_cli.training.settings import RunSettings, choose_bands
from ksdiff_cli.training.stages import check_output, is_done, open_data, train_stage

pytestmark = pytest.mark.usefixtures("one_thread")

SMALL = {
    "width": 8,
    "depths": (1, 1, 1),
    "encoder_width": 8,
    "tokens": 4,
    "latent": 8,
    "denoiser_width": 16,
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


@pytest.fixture(scope="module")
def patches(tmp_path_factory):
    return write_patches(tmp_path_factory.mktemp("patches"))


def options(patches, run, **changes):
    values = {"steps": 2, "batch": 4, "validate_every": 2, "config": ModelConfig(bands=4, **SMALL)} | changes
    return RunSettings(data=(patches,), run=run, **values)


@pytest.fixture(scope="module")
def trained(patches, tmp_path_factory):
    """A run of both stages that learnt something, and what it told meanwhile; tests copy it before they change it."""
    run, notes, steps = tmp_path_factory.mktemp("trained"), [], []
    chosen = options(patches, run, steps=24, validate_every=8, batch=8, warm_up=0.0, rate=4e-3)
    for stage in (1, 2):
        train_stage(chosen, stage, lambda k, of, note="": steps.append((k, of, note)), notes.append)
    return SimpleNamespace(settings=chosen, run=run, notes=notes, steps=steps)


def copied(trained, run):
    """A run folder of one's own: the settings of the trained run, there."""
    shutil.copytree(trained.run, run, dirs_exist_ok=True)
    return replace(trained.settings, run=run)


@pytest.mark.parametrize(
    "wrong",
    [
        *({name: 0} for name in ("steps", "batch", "accumulate", "validate_every", "time_limit", "rate")),
        {"steps": -1},
        {"batch": 2.0},
        {"rate": math.nan},
        {"warm_up": 2},
        {"recipe": "zz"},
        {"precision": "zz"},
        {"seed": 0.5},
        {"stage": 3},
        {"stage": "zz"},
        {"epochs": -1},
        {"epochs": 1, "steps": 1},
        {"epochs": 1, "batch": 0},
        {"threads": -1},
    ],
    ids=str,
)
def test_wrong_values(patches, tmp_path, wrong):
    with pytest.raises(KsdiffError) as caught:
        train(patches, output=tmp_path / "run", config=ModelConfig(**SMALL), device="cpu", **wrong)
    assert [*wrong][-1] in str(caught.value) and "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_stages_by_number_and_numbers_of_numpy(patches, tmp_path):
    values = {"output": tmp_path / "run", "config": ModelConfig(**SMALL), "device": "cpu", "steps": np.int64(1)}
    made = [train(patches, stage=stage, batch=np.int32(2), seed=np.uint16(3), **values) for stage in (1, 2)]
    assert made == [[tmp_path / "run" / f"stage{stage}.safetensors"] for stage in (1, 2)]
    assert train(patches, stage="all", batch=2, seed=3, resume=True, **values) == [*made[0], *made[1]]


def lines_of(run: Path):
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


def weights_of(path: Path):
    return load_model(path)[0].state_dict()


def test_both_stages_learn_log_and_show(trained):
    lines, steps = lines_of(trained.run), trained.steps
    for stage in (1, 2):
        model, header = load_model(trained.settings.file(stage))
        assert (header["stage"], model.stage, header["training"]["steps"]) == (stage, stage, 24)
    assert [(line["stage"], line["step"]) for line in lines] == [(s, k) for s in (1, 2) for k in (8, 16, 24)]
    assert lines[2]["valid"] < 0.99 * lines[0]["valid"]
    assert {"diffusion", "regression", "shuffle_cost", "z_spread"} <= set(lines[-1])
    assert header["training"]["stage1"] == weights_hash(trained.settings.file(1))
    assert header["training"]["losses"]["loss"] == lines[-1]["loss"]
    assert [k for k, of, _ in steps] == [*range(1, 25)] * 2 and steps[-1][2] == f"loss {lines[-1]['loss']:.4f}"
    told = [note for note in trained.notes if note.startswith("stage2, step 16: ")]
    assert len(told) == 1 and f"valid {lines[4]['valid']:.4f}" in told[0] and told[0].endswith(" left")
    weights = [f"stage{stage}{which}.safetensors" for stage in (1, 2) for which in ("-best", "")]
    assert sorted(path.name for path in trained.run.iterdir()) == ["curves.png", "log.jsonl", "pictures", *weights]
    pictures = [f"stage{stage}_0000{step:02d}.png" for stage in (1, 2) for step in (8, 16, 24)]
    assert sorted(path.name for path in (trained.run / "pictures").iterdir()) == pictures


@pytest.mark.parametrize("recipe", ["chain", "random-t"])
def test_both_recipes_learn_the_latent(trained, tmp_path, recipe):
    run = trained.run
    if recipe != trained.settings.recipe:
        run = tmp_path
        train_stage(replace(copied(trained, run), recipe=recipe), 2)
    losses = [line["diffusion"] for line in lines_of(run) if line["stage"] == 2]
    assert len(losses) == 3 and losses[2] < losses[0]


def test_an_idle_prior_is_told_and_a_plain_network_has_none(patches, tmp_path):
    notes = []
    train_stage(options(patches, tmp_path), 1, note=notes.append)  # two steps wake nothing
    assert any("the prior is idle" in note for note in notes)
    notes.clear()
    plain = options(patches, tmp_path / "plain", config=ModelConfig(bands=4, **SMALL, prior=False))
    weights = weights_of(train_stage(plain, 1, note=notes.append))
    assert notes and not any("idle" in note for note in notes)
    assert not any("generator" in name or "plfe" in name for name in weights)


def test_same_seed_same_bytes(patches, tmp_path):
    runs = (("a", 5), ("b", 5), ("c", 6))
    first, second, other = (
        train_stage(options(patches, tmp_path / run, seed=seed), 1).read_bytes() for run, seed in runs
    )
    assert first == second != other


@pytest.mark.parametrize("backbone", sorted(BACKBONES))
def test_every_kind_of_network_trains(tmp_path, backbone):
    """Stage 2, without validation, which is the same for all; test_backbones has what stage 1 trains."""
    patches = write_patches(tmp_path / "patches", images=2, side=16)
    (patches / "valid.h5").unlink()
    structure = "mlp" if backbone == "pnn" else "tucker"
    bands = None if takes_any_bands(backbone) else 4
    config = ModelConfig(bands=bands, **SMALL, backbone=backbone, structure=structure)
    chosen = options(patches, tmp_path, steps=1, batch=2, warm_up=0, config=config)
    save_model(KSDiff(config, 1), chosen.file(1), sensor={}, training={})
    losses = load_model(train_stage(chosen, 2))[1]["training"]["losses"]
    assert {"loss", "diffusion", "regression"} <= set(losses)
    assert all(math.isfinite(value) for value in losses.values())


def test_the_command_offers_every_backbone():
    assert set(get_args(Backbone)) == set(BACKBONES)


def test_pixel_diffusion_trains_in_one_stage(patches, tmp_path):
    config = PixelConfig(bands=4, width=8, multipliers=(1, 2), steps=20, sampling_steps=20)
    done = train_stage(options(patches, tmp_path, steps=30, batch=8, validate_every=15, config=config), 1)
    assert done.name == "pixel-diffusion.safetensors" and load_model(done)[1]["model"] == "pixel-diffusion"
    first, last = lines_of(tmp_path)
    assert last["valid"] < first["valid"] and last["stage"] == "pixel-diffusion" and "shuffle_cost" not in last
    assert (tmp_path / "pictures" / "pixel-diffusion_000030.png").exists()


def test_separate_training_leaves_the_network_alone(trained, tmp_path):
    chosen = replace(copied(trained, tmp_path), steps=2, validate_every=2, warm_up=1.0)
    first, separate, joint = (
        weights_of(path) for path in (chosen.file(1), train_stage(chosen, 2), trained.settings.file(2))
    )
    names = [name for name in separate if name.startswith("network")]
    assert names and all(torch.equal(first[name], separate[name]) for name in names)
    assert not any(torch.equal(joint[name], first[name]) for name in names if name.endswith("base.weight"))
    assert "regression" not in lines_of(tmp_path)[-1] and lines_of(trained.run)[-1]["regression"] > 0


def test_mixed_band_counts_make_a_universal_network(patches, tmp_path):
    other = write_patches(tmp_path / "other", bands=2)
    files, _ = open_data((patches, other))
    assert choose_bands(files, universal=False) is None
    assert choose_bands(files[:1], universal=False) == 4
    assert choose_bands(files[:1], universal=True) is None
    chosen = RunSettings(
        data=(patches, other), run=tmp_path / "run", steps=2, batch=4, config=ModelConfig(bands=None, **SMALL)
    )
    model, header = load_model(train_stage(chosen, 1))
    assert model.config.bands is None
    assert header["training"]["images"] == 24


def test_init_starts_from_given_weights(trained, patches, tmp_path):
    first = trained.settings.file(1)
    again = train_stage(options(patches, tmp_path / "again", steps=1, rate=1e-7, init=first), 1)
    old, new = (weights_of(path)["network.stem.conv.weight"] for path in (first, again))
    torch.testing.assert_close(new, old, rtol=1e-4, atol=1e-6)
    wrong = write_patches(tmp_path / "wrong", bands=2)
    with pytest.raises(ModelError, match="4 MS bands"):
        train_stage(options(wrong, tmp_path / "never", init=first), 1)
    other = tmp_path / "other.safetensors"
    save_model(KSDiff(ModelConfig(bands=4, **SMALL | {"width": 16}), 1), other, sensor={}, training={})
    with pytest.raises(KsdiffError, match="leave --init out"):
        train_stage(replace(copied(trained, tmp_path / "run"), init=other), 2)


def test_folder_of_prepared_folders_is_all_of_them(tmp_path):
    for name in ("b", "a"):
        write_patches(tmp_path / "data" / name, images=3)
    train, valid = open_data((tmp_path / "data",))
    assert [file.path.parent.name for file in train] == ["a", "b"]
    assert len(valid) == 2


def test_time_limit_ends_well(patches, tmp_path):
    seen = []
    chosen = options(patches, tmp_path, steps=10**6, validate_every=10**6, time_limit=0.01)
    assert train_stage(chosen, 1, lambda k, of, note="": seen.append((k, of))).exists()
    assert seen[-1][0] >= seen[-1][1] == 1000 and seen == sorted(seen)  # progress counts time


def test_a_loss_that_is_not_finite_ends_the_run(patches, tmp_path):
    with h5py.File(write_patches(tmp_path / "bad") / "train.h5", "r+") as file:
        file["gt"][:] = np.nan
    with pytest.raises(KsdiffError, match="step 1: the loss is not finite"):
        train_stage(options(tmp_path / "bad", tmp_path / "run"), 1)
    assert not (tmp_path / "run" / "stage1.safetensors").exists()


def test_clear_refusals(trained, patches, tmp_path):
    with pytest.raises(KsdiffError, match="prepare-data"):
        open_data((tmp_path / "nothing",))
    with pytest.raises(KsdiffError, match="train --stage 1"):
        train_stage(options(patches, tmp_path), 2)
    odd = write_patches(tmp_path / "odd", side=36)
    with pytest.raises(KsdiffError, match=r"train\.h5: its patches of 36 x 36 px .* multiples of 8"):
        train_stage(options(odd, tmp_path), 1)
    chosen = copied(trained, tmp_path)
    for path in tmp_path.glob("stage2*"):
        path.unlink()
    with pytest.raises(KsdiffError, match="--overwrite"):
        check_output(chosen, 1, resume=False, overwrite=False)
    (tmp_path / "stage2.state").write_bytes(b"half")
    with pytest.raises(KsdiffError, match="--resume"):
        check_output(chosen, 2, resume=False, overwrite=False)
    with pytest.raises(KsdiffError, match="cannot be read"):
        train_stage(chosen, 2)
    check_output(chosen, 2, resume=False, overwrite=True)
    assert not (tmp_path / "stage2.state").exists()


def stop_at_the_end(monkeypatch):
    """Interrupt a run when it writes the stage's last weights."""

    def save(model, path, **facts):
        if "-best" not in path.name:
            raise KeyboardInterrupt
        save_model(model, path, **facts)

    monkeypatch.setattr("ksdiff_cli.training.stages.save_model", save)


def test_resume_with_other_options_or_patches_is_refused(tmp_path, monkeypatch):
    chosen = options(write_patches(tmp_path / "patches"), tmp_path)
    with monkeypatch.context() as patch:
        stop_at_the_end(patch)
        with pytest.raises(KeyboardInterrupt):
            train_stage(chosen, 1)
    with pytest.raises(KsdiffError, match="rate"):
        train_stage(replace(chosen, rate=0.5), 1)
    write_patches(tmp_path / "patches", seed=1)  # as many, of the same size, in the same place
    with pytest.raises(KsdiffError, match=r"stage1\.state: was begun with other patches"):
        train_stage(chosen, 1)
    write_patches(tmp_path / "patches")
    train_stage(chosen, 1)
    assert is_done(chosen, 1)
    write_patches(tmp_path / "patches", seed=1)
    with pytest.raises(KsdiffError, match=r"stage1\.safetensors: was made from other patches"):
        is_done(chosen, 1)


def test_a_run_that_replaces_another_is_not_taken_for_it(trained, tmp_path, monkeypatch):
    chosen = copied(trained, tmp_path)
    check_output(chosen, 1, resume=False, overwrite=True)
    monkeypatch.setattr("ksdiff_cli.training.run.Run.advance", lambda *a: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        train_stage(chosen, 1)
    assert chosen.file(1).exists() and not is_done(chosen, 1)


@pytest.mark.parametrize(("universal", "steps"), [(False, 2), (True, 8)])
def test_epochs_are_passes_over_patches_or_over_their_bands(run, patches, tmp_path, universal, steps):
    words = ("--data", patches, "-o", tmp_path / "run", "--stage", 1, "--epochs", 2, "--batch", 12, "--width", 8, "-q")
    done = run("train", *words, *(["--universal"] if universal else []))
    assert done.exit_code == 0, done.stderr
    assert load_model(tmp_path / "run" / "stage1.safetensors")[1]["training"]["steps"] == steps


def test_a_finished_stage_is_known_by_its_options_and_its_stage_1(trained, patches, tmp_path):
    chosen = copied(trained, tmp_path)
    assert is_done(chosen, 1) and is_done(chosen, 2) and not is_done(options(patches, tmp_path / "none"), 1)
    with pytest.raises(KsdiffError, match=r"stage1\.safetensors: was made with other values of batch, rate"):
        is_done(replace(chosen, rate=0.5, batch=2), 1)
    save_model(KSDiff(chosen.config, 1), chosen.file(1), sensor={}, training={})
    with pytest.raises(KsdiffError, match=r"stage2\.safetensors: was made from another"):
        is_done(chosen, 2)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--steps", "1", "--epochs", "1"],
        ["--separate", "--warm-up", "0.5"],
        ["--resume", "--overwrite"],
        ["--model", "pixel-diffusion", "--stage", "2"],
        ["--rank", "4,4,2"],
        ["--rank", "4,4,2,0"],
        ["--backbone", "resnet"],
    ],
    ids=" ".join,
)
def test_bad_usage(run, arguments):
    assert run("train", *arguments).exit_code == 2


def test_the_command_passes_its_options_on(patches, tmp_path, run):
    found = run(
        *("train", "--data", patches, "--steps", 1, "--batch", 2, "-o", tmp_path, "--device", "cpu", "--width", 8),
        *("--backbone", "fusionnet", "--encoder", "entangled", "--rank", "2,2,1,1", "--recipe", "random-t"),
        *("--separate", "--accumulate", 2, "--precision", "bf16", "-q"),
    )
    assert found.exit_code == 0, found.output
    assert found.stdout.split() == [str(tmp_path / f"stage{stage}.safetensors") for stage in (1, 2)]
    model, header = load_model(tmp_path / "stage2.safetensors")
    assert (model.config.backbone, model.config.encoder, model.config.rank) == ("fusionnet", "entangled", (2, 2, 1, 1))
    training = header["training"]
    assert [training[name] for name in ("recipe", "warm_up", "accumulate")] == ["random-t", 1.0, 2]


def test_fine_tuning_goes_on_from_whole_weights_without_a_stage_1(run, trained, patches, tmp_path):
    stage1, stage2 = (trained.settings.file(stage) for stage in (1, 2))
    words = ("train", "--data", patches, "--steps", 10, "--batch", 4, "--fine-tune", "--device", "cpu", "-q", "--init")
    done = run(*words, stage2, "-o", tmp_path / "fine")
    assert done.exit_code == 0, done.output
    assert done.stdout.split() == [str(tmp_path / "fine" / "stage2.safetensors")]
    old, new = weights_of(stage2), weights_of(tmp_path / "fine" / "stage2.safetensors")
    for part in ("plfe2", "denoiser", "network"):  # all of it goes on
        assert any(not torch.equal(new[name], old[name]) for name in old if name.startswith(part))
    assert lines_of(tmp_path / "fine")[-1]["valid"] < lines_of(trained.run)[-1]["valid"]
    assert load_model(tmp_path / "fine" / "stage2.safetensors")[1]["training"]["rate"] == 2e-4
    assert run(*words, stage2, "-o", tmp_path / "fine", "--resume").stdout == done.stdout
    refused = run(*words, stage1, "-o", tmp_path / "half")
    assert refused.exit_code == 1 and "holds stage 1" in refused.stderr
    assert run(*words, stage2, "--stage", 1).exit_code == 2
