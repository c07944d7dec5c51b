"""PLRDiff: what it finds out of an image, its sampler with a known prior, and the contract that all networks keep."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from network_maker import batch
from test_training import options, write_patches
from torch.nn import functional as F

from ksdiff_cli.models.checkpoint import load_model, save_model
from ksdiff_cli.models.contract import ModelError
from ksdiff_cli.models.peers import PLRConfig, PLRDiff
from ksdiff_cli.models.peers.plrdiff import Camera, choose_bands, find_spectra, fit_camera, fit_rest
from ksdiff_cli.training.stages import train_stage

pytestmark = pytest.mark.usefixtures("seed")

SMALL = {"width": 8, "multipliers": (1, 2), "sampling_steps": 3, "fit_steps": 20, "rest_steps": 5}


def smooth(*shape):
    """Random images without detail finer than some pixels."""
    *_, height, width = shape
    coarse = torch.rand(*shape[:2], height // 4 + 2, width // 4 + 2)
    return F.interpolate(coarse, size=(height, width), mode="bicubic").clamp(0, 1)


def gaussian(sigma):
    taps = torch.exp(-(torch.arange(-5.0, 6.0) ** 2) / (2 * sigma**2))
    return ((taps[:, None] * taps) / taps.sum() ** 2)[None, None]


def test_published_constants():
    model = PLRDiff(PLRConfig(width=8))
    config, bar = model.config, model.alpha_bar
    assert (config.steps, config.fit_steps, config.rest_steps, config.eta) == (500, 15000, 100, 2)
    assert bar[0] == 1 and bar[-1].item() == pytest.approx(1e-3) and (bar.diff() < 0).all()
    # half the way almost nothing is lost yet
    assert bar[250].item() == pytest.approx(1e-3 + 0.999 * (1 - np.exp(-5)) / (1 - np.exp(-10)), rel=1e-6)


@pytest.mark.parametrize(("bands", "chosen"), [(3, [0, 1, 2]), (4, [0, 1, 2]), (8, [1, 3, 5]), (102, [24, 49, 74])])
def test_bands_are_chosen_evenly(bands, chosen):
    assert choose_bands(bands, 3) == chosen


@pytest.mark.parametrize("ratio", [2, 4])
def test_blur_lies_on_the_middle_of_cells(ratio):
    kernel = torch.zeros(1, 1, 11, 11)
    kernel[..., 5, 5] = 1
    X = torch.rand(1, 3, 24, 32)
    seen = Camera(kernel, torch.ones(3) / 3, ratio).degrade(X)
    torch.testing.assert_close(seen, X[..., ratio // 2 :: ratio, ratio // 2 :: ratio])


def test_blur_and_band_weights_are_found():
    X, weights = smooth(1, 3, 64, 64), torch.tensor([0.6, 0.3, 0.1])
    true = Camera(gaussian(1.7), weights, 4)
    found = fit_camera(true.mix(X), true.degrade(X), 4, 2000)
    torch.testing.assert_close(found.weights, weights, rtol=0, atol=0.1)
    assert found.kernel.sum().item() == pytest.approx(1)
    start = fit_camera(true.mix(X), true.degrade(X), 4, 0)
    assert (found.kernel - true.kernel).abs().sum() < 0.6 * (start.kernel - true.kernel).abs().sum()


def test_what_three_bands_span_is_made_of_them_and_the_rest_is_found():
    camera = Camera(gaussian(1.7), torch.ones(4) / 4, 4)
    three = smooth(1, 3, 64, 64)
    X = torch.cat((three, 0.5 * three[:, :1] + 0.2 * three[:, 1:2]), 1)
    E = find_spectra(camera.degrade(X), [0, 1, 2])
    torch.testing.assert_close(E[3], torch.tensor([0.5, 0.2, 0.0]), rtol=0, atol=0.01)
    X[:, 3:] += 0.1 * smooth(1, 1, 64, 64)
    Y = camera.degrade(X)
    E = find_spectra(Y, [0, 1, 2])
    left = Y - torch.einsum("cs,nshw->nchw", E, Y[:, :3])
    assert torch.equal(fit_rest(Y, E, [0, 1, 2], camera, 0), torch.zeros(1, 4, 64, 64))
    errors = [(camera.degrade(fit_rest(Y, E, [0, 1, 2], camera, steps)) - left).square().sum() for steps in (1, 100)]
    assert errors[1] < 0.1 * errors[0]


def test_a_perfect_prior_and_no_guidance_give_its_image():
    """The prior knows the three bands: what is sampled is that image, the fourth band follows by its spectrum."""
    config = PLRConfig(**{**SMALL, "sampling_steps": None, "steps": 40, "eta": 0.0, "rest_steps": 0})
    model, three = PLRDiff(config).eval(), smooth(1, 3, 32, 32)
    X, A = torch.cat((three, 0.5 * three[:, :1]), 1), 2 * three - 1

    def prior(A_t, t):
        bar = model.alpha_bar[t].view(-1, 1, 1, 1).float()
        return (A_t - bar.sqrt() * A) / (1 - bar).sqrt()

    made = model.draw(X.mean(1, keepdim=True), X, 4, 0, prior)
    torch.testing.assert_close(made, X, rtol=0, atol=0.03)


def test_guidance_brings_the_image_to_what_both_cameras_saw():
    """With a prior that knows nothing of the image, the distances draw the sample towards MS and PAN."""
    three = smooth(1, 3, 32, 32)
    X, camera = torch.cat((three, three[:, :1]), 1), Camera(gaussian(1.7), torch.ones(4) / 4, 4)
    M = F.interpolate(camera.degrade(X), scale_factor=4.0, mode="bicubic")
    errors = []
    for eta in (0.0, 2.0):
        config = PLRConfig(**{**SMALL, "sampling_steps": None, "steps": 200, "fit_steps": 200, "eta": eta})
        made = PLRDiff(config).draw(camera.mix(X), M, 4, 0, lambda A_t, t: 0.3 * A_t)
        errors.append(
            [
                (found - wanted).square().mean().sqrt()
                for found, wanted in ((made, X), (camera.mix(made), camera.mix(X)))
            ]
        )
    (image, pan), (guided_image, guided_pan) = errors
    assert guided_pan < 0.4 * pan and guided_image < 0.7 * image


@pytest.mark.parametrize("bands", [3, 4, 8])
@pytest.mark.parametrize("size", [(21, 18), (5, 9)], ids=str)
def test_takes_any_size_and_any_number_of_bands_from_three_on(bands, size):
    pan, ms_up, statistics = batch(2, bands, *size)
    fused = PLRDiff(PLRConfig(**SMALL, bands=4)).eval().fuse(pan, ms_up, statistics, 4)
    assert fused.shape == ms_up.shape and torch.isfinite(fused).all()


def test_what_it_cannot_take_is_one_line():
    model = PLRDiff(PLRConfig(**SMALL))
    model.check(8, 2)
    for bands, ratio, why in ((2, 4, "3 MS bands or more"), (4, 15, "ratios of 2 to 10, not 15")):
        with pytest.raises(ModelError, match=why):
            model.check(bands, ratio)


def test_gradients_reach_every_weight():
    model = PLRDiff(PLRConfig(**SMALL, bands=4))
    pan, ms_up, statistics = batch(2)
    inputs = model.prepare(pan, ms_up, statistics, 4, ms_up + 20 * torch.randn_like(ms_up))
    model.losses(inputs, torch.Generator().manual_seed(0))["loss"].backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


def test_checkpoint_round_trip(tmp_path):
    model, path = PLRDiff(PLRConfig(**SMALL, bands=4)).eval(), tmp_path / "plrdiff.safetensors"
    save_model(model, path, sensor={}, training={})
    again, header = load_model(path)
    pan, ms_up, statistics = batch(2)
    made = model.fuse(pan, ms_up, statistics, 4)
    assert torch.equal(again.fuse(pan, ms_up, statistics, 4), made)
    assert header["model"] == "plrdiff" and dataclasses.asdict(again.config) == dataclasses.asdict(model.config)
    assert not torch.equal(model.fuse(pan, ms_up, statistics, 4, model.noise(1)), made)


def test_it_trains_and_is_evaluated_with_what_must_be_said(tmp_path, run):
    patches = write_patches(tmp_path / "patches")
    chosen = options(patches, tmp_path, steps=20, batch=8, validate_every=10, config=PLRConfig(bands=4, **SMALL))
    done = train_stage(chosen, 1)
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert done.name == "plrdiff.safetensors" and lines[-1]["valid"] < lines[0]["valid"]
    found = run("evaluate", patches / "valid.h5", "--checkpoint", done, "--method", "exp", "--json", "-q")
    assert found.exit_code == 0, found.output
    result = json.loads(found.stdout)
    assert "plrdiff" in result["methods"]
    assert any("stands in" in note for note in result["notes"])
