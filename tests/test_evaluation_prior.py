"""evaluate --prior: what networks do with another image's z, with none, with the truth's."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from test_evaluation import write
from test_training import SMALL

from ksdiff_cli.dataset import PatchFile
from ksdiff_cli.errors import KsdiffError
from ksdiff_cli.evaluation import evaluate_files, make_fusers
from ksdiff_cli.evaluation_cases import make_case
from ksdiff_cli.evaluation_prior import gather_latents
from ksdiff_cli.fusers import Network
from ksdiff_cli.models.checkpoint import save_model
from ksdiff_cli.models.config import ModelConfig
from ksdiff_cli.models.ksdiff import KSDiff


def make(path: Path, stage=2, strength=30.0, **config) -> Path:
    """Weights whose kernels listen to z."""
    torch.manual_seed(0)
    model = KSDiff(ModelConfig(**(SMALL | config)), stage)
    for name, parameter in model.named_parameters():
        if "core.2.weight" in name:
            parameter.data *= strength
    save_model(model, path, sensor={}, training={})
    return path


def cases_of(*paths):
    return [make_case(PatchFile(path), "reduced") for path in paths]


def test_every_image_gets_the_z_of_another_one(tmp_path) -> None:
    paths = write(tmp_path / "a.h5", count=3), write(tmp_path / "b.h5", bands=3, count=2)
    cases = cases_of(*paths)
    fusers = {"net": Network(make(tmp_path / "net.safetensors"), "cpu")}
    own = [fusers["net"].latent(i.tile, i.scene, 4) for case in cases for i in map(case.image, range(len(case.file)))]
    assert [len(z) for z in own] == [4, 4, 4, 3, 3]  # a row a band
    found = gather_latents(fusers, cases, "shuffled")["net"]
    assert [len(part) for part in found] == [3, 2]
    flat = [z for part in found for z in part]
    for place, source in enumerate((2, 3, 4, 0, 1)):
        rows = np.arange(len(own[place])) % len(own[source])  # the fourth band takes the first row again
        assert torch.equal(flat[place], own[source][rows]) and source != place
    zeros = gather_latents(fusers, cases, "zero")["net"]
    assert all(z.shape == mine.shape and not z.any() for z, mine in zip([*zeros[0], *zeros[1]], own, strict=True))
    assert gather_latents(fusers, cases, "own") == {} == gather_latents({}, cases, "zero")


def test_figures_tell_a_prior_that_is_listened_to(tmp_path) -> None:
    files = [PatchFile(write(tmp_path / "test.h5", count=3))]
    alive, dead = make(tmp_path / "alive.safetensors"), make(tmp_path / "dead.safetensors", strength=0.0)
    figures = {}
    for prior in ("own", "shuffled", "zero"):
        fusers = make_fusers(["exp"], [alive, dead], "cpu", 0, prior)
        found = evaluate_files(files, fusers, prior=prior)
        suffix = "" if prior == "own" else f" (z {prior})"
        assert list(found.methods) == ["exp", f"alive{suffix}", f"dead{suffix}"]
        figures[prior] = [found.methods[name].values["ERGAS"] for name in found.methods]
    for prior in ("shuffled", "zero"):
        assert figures[prior][0] == figures["own"][0] and figures[prior][2] == pytest.approx(figures["own"][2])
        assert figures[prior][1] != pytest.approx(figures["own"][1], rel=1e-6)


def test_a_networks_own_z_given_back_changes_nothing(tmp_path) -> None:
    case = cases_of(write(tmp_path / "test.h5", side=40))[0]  # a side that is padded
    network, image = Network(make(tmp_path / "net.safetensors", bands=4), "cpu", seed=3), case.image(1)
    z = network.latent(image.tile, image.scene, 4)
    given, own = network.fuse(image.tile, image.scene, 4, z), network.fuse(image.tile, image.scene, 4)
    assert np.array_equal(given, own)
    assert not np.array_equal(network.fuse(image.tile, image.scene, 4, -z), own)


def test_stage_1_uses_the_truth(tmp_path) -> None:
    path = write(tmp_path / "test.h5")
    first, second = make(tmp_path / "stage1.safetensors", stage=1), make(tmp_path / "stage2.safetensors")
    fusers = make_fusers(["exp"], [first], "cpu", 0, "true")
    found = evaluate_files([PatchFile(path)], fusers, prior="true")
    shuffled = make_fusers(["exp"], [first], "cpu", 0, "shuffled")
    other = evaluate_files([PatchFile(path)], shuffled, prior="shuffled")
    true, wrong = (list(each.methods.values())[1].values["SAM"] for each in (found, other))
    assert list(found.methods) == ["exp", "stage1 (z true)"] and true != wrong
    with pytest.raises(KsdiffError, match="train stage 2"):
        make_fusers(["exp"], [first], "cpu", 0)
    with pytest.raises(KsdiffError, match=r"stage2\.safetensors: --prior true needs stage 1"):
        make_fusers(["exp"], [second], "cpu", 0, "true")
    with pytest.raises(KsdiffError, match="the shipped weights: --prior true needs stage 1"):
        make_fusers(["exp"], [], "cpu", 0, "true")
    full = PatchFile(write(tmp_path / "full.h5", gt=False))
    with pytest.raises(KsdiffError, match="use --protocol reduced"):
        evaluate_files([full], fusers, protocol="full", prior="true")


def test_what_has_no_prior_or_no_other_image_is_refused(tmp_path) -> None:
    plain = make_fusers(["exp"], [make(tmp_path / "plain.safetensors", prior=False)], "cpu", 0, "zero")
    with pytest.raises(KsdiffError, match=r"plain\.safetensors: its network has no prior"):
        evaluate_files([PatchFile(write(tmp_path / "test.h5"))], plain, prior="zero")
    fusers = make_fusers(["exp"], [make(tmp_path / "net.safetensors")], "cpu", 0, "shuffled")
    with pytest.raises(KsdiffError, match="at least two images"):
        evaluate_files([PatchFile(write(tmp_path / "one.h5", count=1))], fusers, prior="shuffled")


def test_the_command_names_whose_z_it_was(tmp_path, run) -> None:
    network = make(tmp_path / "net.safetensors")
    data = write(tmp_path / "test.h5")
    fixed = ("evaluate", data, "--method", "exp", "--checkpoint", network, "--device", "cpu", "--json")
    found = run(*fixed, "--prior", "shuffled")
    assert found.exit_code == 0, found.output
    assert list(json.loads(found.stdout)["methods"]) == ["exp", "net (z shuffled)"]
