"""Presets, TOML files and single settings: what they reach, what counts over what, what is refused."""

import json
from dataclasses import fields
from types import SimpleNamespace

import pytest
import torch
from test_training import SMALL, options, write_patches

from ksdiff_cli.api import train
from ksdiff_cli.errors import KsdiffError
from ksdiff_cli.models.checkpoint import load_model
from ksdiff_cli.models.config import ModelConfig
from ksdiff_cli.models.contract import ModelError, Statistics
from ksdiff_cli.models.ksdiff import KSDiff
from ksdiff_cli.models.peers import PLRConfig
from ksdiff_cli.options.training import read_setting
from ksdiff_cli.patches.dataset import PatchFile
from ksdiff_cli.training.settings import PRESETS, RunSettings, apply, configure, read_settings


@pytest.fixture(scope="module")
def patches(tmp_path_factory):
    return write_patches(tmp_path_factory.mktemp("patches"))


def small():
    return {f"network.{name}": value for name, value in SMALL.items()}


def test_every_field_of_network_and_training_is_reached():
    network = {each.name for each in fields(ModelConfig)} - {"bands"}
    own = {"data", "valid", "run", "cache", "init", "fine_tune", "device", "seed", "config"}  # from options or the data
    training = {each.name for each in fields(RunSettings)} - own
    settings = {f"network.{name}": 1 for name in network} | {f"training.{name}": 1 for name in training}
    found = apply("default", settings, ModelConfig())
    assert set(found.network) == network and set(found.training) == training
    assert set(apply("default", {"fit_steps": 5}, PLRConfig()).network) == {"fit_steps"}


def test_presets_are_made_of_fields_that_there_are():
    for name in PRESETS:
        found = apply(name, {}, ModelConfig())
        assert set(found.network) <= {each.name for each in fields(ModelConfig)}
        assert set(found.training) <= {each.name for each in fields(RunSettings)} | {"epochs"}
    assert apply("paper", {}, PLRConfig()).network == {}


def test_what_is_said_later_counts():
    found = apply("paper", {"batch": 8, "training.steps": 50, "network.steps": 4, "sampling_steps": 2}, ModelConfig())
    assert (found.training["batch"], found.training["steps"], found.network["steps"]) == (8, 50, 4)
    assert "epochs" not in found.training
    assert apply("default", {"epochs": 3, "training.steps": 50}, ModelConfig()).training == {"steps": 50}
    assert apply("default", {"training.steps": 50, "epochs": 3}, ModelConfig()).training == {"epochs": 3}


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("steps", r"setting steps: say network\.steps or training\.steps"),
        ("widht", "there is none of that name; did you mean width"),
        ("network.ema", "network.ema: there is none of that name"),
        ("zzz", "known: .*latent_noise"),
        ("bands", "there is none of that name"),
    ],
)
def test_names_that_mean_nothing_or_two_things_are_refused(name, why):
    with pytest.raises(KsdiffError, match=why):
        apply("default", {name: 1}, ModelConfig())
    with pytest.raises(KsdiffError, match="preset 'papr': choose one of default, paper"):
        apply("papr", {}, ModelConfig())


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("width=64", ("width", 64)),
        ("ema = 0.999", ("ema", 0.999)),
        ("prior=false", ("prior", False)),
        ("rank=[4, 4, 1, 1]", ("rank", [4, 4, 1, 1])),
        ("backbone=hfin", ("backbone", "hfin")),
        ('backbone="hfin"', ("backbone", "hfin")),
    ],
)
def test_a_setting_is_toml_or_a_word(text, found):
    assert read_setting(text) == found


@pytest.mark.parametrize("text", ["width", "=3", "width=", ""])
def test_half_a_setting_is_refused(text, run):
    with pytest.raises(KsdiffError, match="give name=value"):
        read_setting(text)
    assert run("train", "--set", text).exit_code == 2


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("width = 64", "width is neither preset, nor one of the tables"),
        ("[net]\nwidth = 64", "net is neither preset"),
        ("preset = 'best'", "preset = 'best': choose one of default, paper"),
        ("[network", "is no TOML file"),
        (b"\xff\xfe", "is no TOML file"),
        (None, "cannot be read"),
    ],
)
def test_files_that_are_none_are_one_line(text, why, tmp_path):
    path = tmp_path / "run.toml"
    if text is not None:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(KsdiffError, match=f"run.toml: .*{why}"):
        read_settings(path)


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"width": "wide"}, ModelError),
        ({"kernel": 4}, ModelError),
        ({"ema": 2}, KsdiffError),
        ({"clip": 0}, KsdiffError),
        ({"weight_decay": "much"}, KsdiffError),
        ({"latent_noise": -1}, KsdiffError),
        ({"epochs": 0}, KsdiffError),
        ({"latent_norm": "batch"}, ModelError),
    ],
    ids=str,
)
def test_values_that_no_run_can_have_are_refused(settings, error, patches, tmp_path):
    with pytest.raises(error):
        train(patches, output=tmp_path / "run", settings=settings)
    assert not (tmp_path / "run").exists()


def test_the_peak_is_the_datas(patches, tmp_path):
    found = apply("paper", {}, ModelConfig())
    file = PatchFile(patches / "train.h5")
    assert configure(ModelConfig(), found, [file]).peak == 511  # values of 200 to 400, and no sensor
    known = SimpleNamespace(sensor={"bits": 11})
    assert configure(ModelConfig(), found, [file, known]).peak == 2047
    assert configure(ModelConfig(), apply("paper", {"peak": 1023.0}, ModelConfig()), [known]).peak == 1023


def test_the_papers_preset_trains_both_stages(patches, tmp_path):
    settings = {name: value for name, value in small().items() if name != "network.steps"}
    made = train(patches, output=tmp_path, preset="paper", settings=settings, steps=2, batch=4, validate_every=2)
    assert [path.name for path in made] == ["stage1.safetensors", "stage2.safetensors"]
    model, header = load_model(made[1])
    config, training = model.config, header["training"]
    assert not (config.moments or config.details or config.modulate_output) and config.latent_norm == "layer"
    assert (config.steps, config.sampling_steps, config.peak, header["scaling"]) == (1000, 10, 511, "DN / 511")
    assert (training["recipe"], training["batch"], training["steps"], training["ema"]) == ("random-t", 4, 2, 0.999)
    assert (training["gain"], training["latent_noise"], training["clip"]) == (0, 0, 0.03)
    batch = PatchFile(patches / "valid.h5").batch([0])
    fused = model.fuse(batch.pan, batch.ms_up, batch.statistics, 4)
    assert (fused - batch.gt).square().mean() < batch.gt.var()


def test_the_command_takes_all_three(patches, tmp_path, run):
    file = tmp_path / "run.toml"
    names = "\n".join(f"{name.removeprefix('network.')} = {json.dumps(value)}" for name, value in small().items())
    file.write_text(f'preset = "paper"\n[network]\n{names}\nbackbone = "dicnn"\n[training]\nbatch = 3\nema = 0.9\n')
    done = run(
        *("train", "--data", patches, "-o", tmp_path / "run", "--stage", 1, "--config", file, "--device", "cpu", "-q"),
        *("--set", "ema=0.5", "--set", "network.rank=[2, 2, 1, 1]", "--backbone", "pnn", "--steps", 1, "--seed", 3),
    )
    assert done.exit_code == 0, done.output
    model, header = load_model(tmp_path / "run" / "stage1.safetensors")
    training = header["training"]
    assert (model.config.backbone, model.config.rank, model.config.moments) == ("pnn", (2, 2, 1, 1), False)
    assert (training["batch"], training["ema"], training["steps"], training["seed"]) == (3, 0.5, 1, 3)
    bad = run("train", "--data", patches, "-o", tmp_path / "other", "--set", "steps=5")
    assert (bad.exit_code, "say network.steps or training.steps" in bad.stderr) == (1, True)


def test_options_of_a_run_are_checked_like_others(tmp_path):
    for wrong in ({"ema": -0.1}, {"gain": float("nan")}, {"diffusion_weight": -1}, {"weight_decay": 2}):
        with pytest.raises(KsdiffError, match=next(iter(wrong))):
            options(tmp_path, tmp_path, **wrong)


def test_networks_in_units_of_a_peak_do_not_look_at_statistics():
    torch.manual_seed(0)
    model = KSDiff(ModelConfig(bands=4, peak=2047.0, latent_norm="layer", details=False, **SMALL)).eval()
    pan, ms_up = 300 + 100 * torch.rand(1, 1, 16, 16), 200 + 50 * torch.rand(1, 4, 16, 16)
    ones = torch.ones(1, 1), torch.ones(1, 1), torch.ones(1, 4), torch.ones(1, 4)
    fused, other = (model.fuse(pan, ms_up, Statistics(*(n * one for one in ones)), 4) for n in (1, 70))
    assert torch.equal(fused, other)
    inputs = model.prepare(pan, ms_up, Statistics(*ones), 4)
    torch.testing.assert_close(inputs.P, pan / 2047)
    z = model.latent(inputs)
    torch.testing.assert_close(z.mean(-1), torch.zeros(z.shape[:2]), rtol=0, atol=5)
    with pytest.raises(ModelError, match="unrolled takes standardised values alone"):
        KSDiff(ModelConfig(backbone="unrolled", peak=2047.0))
