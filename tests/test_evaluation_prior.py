"""evaluate --prior: what networks do with another image's z, with none, with the truth's."""

import json
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from test_evaluation import write
from test_training import SMALL

from ksdiff_cli import sharpen_array
from ksdiff_cli.errors import KsdiffError
from ksdiff_cli.evaluation.cases import make_case
from ksdiff_cli.evaluation.compare import evaluate_files, make_fusers
from ksdiff_cli.evaluation.prior import gather_latents
from ksdiff_cli.fusers.classical import Network
from ksdiff_cli.models.checkpoint import save_model
from ksdiff_cli.models.config import ModelConfig
from ksdiff_cli.models.ksdiff import KSDiff
from ksdiff_cli.patches.dataset import PatchFile


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
    flat = [z for part in found for (z,) in part]  # an anchor an image
    for place, source in enumerate((2, 3, 4, 0, 1)):
        rows = np.arange(len(own[place])) % len(own[source])  # the fourth band takes the first row again
        assert torch.equal(flat[place], own[source][rows]) and source != place
    zeros = [z for part in gather_latents(fusers, cases, "zero")["net"] for (z,) in part]
    assert all(z.shape == mine.shape and not z.any() for z, mine in zip(zeros, own, strict=True))
    means = [z for part in gather_latents(fusers, cases, "mean")["net"] for (z,) in part]
    for place, others in enumerate(((1, 2), (0, 2), (0, 1), (4,), (3,))):  # of its own file only
        torch.testing.assert_close(means[place], torch.stack([own[at] for at in others]).mean(0))
    assert gather_latents(fusers, cases, "own") == {} == gather_latents({}, cases, "zero")


def test_figures_tell_a_prior_that_is_listened_to(tmp_path) -> None:
    files = [PatchFile(write(tmp_path / "test.h5", count=3))]
    alive, dead = make(tmp_path / "alive.safetensors"), make(tmp_path / "dead.safetensors", strength=0.0)
    figures = {}
    for prior in ("own", "shuffled", "mean", "zero"):
        fusers = make_fusers(["exp"], [alive, dead], "cpu", 0, prior)
        found = evaluate_files(files, fusers, prior=prior)
        suffix = "" if prior == "own" else f" (z {prior})"
        assert list(found.methods) == ["exp", f"alive{suffix}", f"dead{suffix}"]
        figures[prior] = [found.methods[name].values["ERGAS"] for name in found.methods]
    for prior in ("shuffled", "mean", "zero"):
        assert figures[prior][0] == figures["own"][0] and figures[prior][2] == pytest.approx(figures["own"][2])
        assert figures[prior][1] != pytest.approx(figures["own"][1], rel=1e-6)


def test_a_networks_own_z_given_back_changes_nothing(tmp_path) -> None:
    case = cases_of(write(tmp_path / "test.h5", side=264))[0]  # four anchors, and a side that is padded
    network, image = Network(make(tmp_path / "net.safetensors", bands=4), "cpu", seed=3), case.image(1)
    z = network.latents(image.tile, image.scene, 4)
    assert len(z) == 4 and not torch.equal(z[0], z[1])
    own = network.fuse_image(image.tile, image.scene, 4)
    assert np.array_equal(network.fuse_image(image.tile, image.scene, 4, z), own)
    assert not np.array_equal(network.fuse_image(image.tile, image.scene, 4, z[::-1]), own)
    assert not np.array_equal(network.fuse_image(image.tile, image.scene, 4, [-one for one in z]), own)


@pytest.mark.parametrize("side", [48, 264])  # smaller than an anchor, and four of them
def test_what_is_measured_is_what_sharpen_makes_of_the_image(tmp_path, side) -> None:
    path = write(tmp_path / "test.h5", side=side, geometry="area")
    with h5py.File(path, "r+") as file:
        del file["lms"]  # then MS is upsampled as by sharpen
    weights = make(tmp_path / "net.safetensors")
    image = cases_of(path)[0].image(1)
    measured = Network(weights, "cpu").fuse_image(image.tile, image.scene, 4)
    made = sharpen_array(image.tile.pan, image.ms, checkpoint=weights, device="cpu", registration="skip")
    np.testing.assert_allclose(measured, made, rtol=1e-5, atol=0.01)


def test_figures_do_not_depend_on_what_else_a_file_holds(tmp_path) -> None:
    both = write(tmp_path / "both.h5", count=2)
    with h5py.File(both, "r+") as file:
        for key in ("gt", "pan", "ms", "lms"):
            file[key][1] *= 3
    with h5py.File(both) as file, h5py.File(tmp_path / "first.h5", "w") as alone:
        for key in file:
            alone[key] = file[key][:1]
    files = [PatchFile(both)], [PatchFile(tmp_path / "first.h5")]
    fusers = {"net": Network(make(tmp_path / "net.safetensors"), "cpu")}
    first = {
        scaling: [evaluate_files(one, fusers, scaling=scaling).methods["net"].values["ERGAS"][0] for one in files]
        for scaling in ("image", "scene")
    }
    assert first["image"][0] == first["image"][1] == first["scene"][1] != first["scene"][0]


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
    for prior in ("shuffled", "mean"):
        fusers = make_fusers(["exp"], [make(tmp_path / "net.safetensors")], "cpu", 0, prior)
        with pytest.raises(KsdiffError, match=f"--prior {prior} needs at least two images"):
            evaluate_files([PatchFile(write(tmp_path / "one.h5", count=1))], fusers, prior=prior)


def test_the_command_names_whose_z_it_was(tmp_path, run) -> None:
    network = make(tmp_path / "net.safetensors")
    data = write(tmp_path / "test.h5")
    fixed = ("evaluate", data, "--method", "exp", "--checkpoint", network, "--device", "cpu", "--json")
    found = run(*fixed, "--prior", "shuffled")
    assert found.exit_code == 0, found.output
    assert list(json.loads(found.stdout)["methods"]) == ["exp", "net (z shuffled)"]
