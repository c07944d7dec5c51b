"""The pixel-space peer: DDPM's formulae, and the contract that all networks keep."""

import network_maker
import pytest
import torch

from ksdiff_cli.models.checkpoint import load_ksdiff, load_model, save_model
from ksdiff_cli.models.contract import ModelError, Statistics
from ksdiff_cli.models.peers.pixel_diffusion import PREDICTIONS, PixelConfig, PixelDiffusion

pytestmark = pytest.mark.usefixtures("seed")

SMALL = {"width": 8, "multipliers": (1, 2), "sampling_steps": 4}

both_modes = pytest.mark.parametrize("bands", [None, 4], ids=["shared", "fixed"])
both_predictions = pytest.mark.parametrize("prediction", PREDICTIONS)


def batch(images=2, bands=4, height=16, width=16):
    pan, ms_up, statistics = network_maker.batch(images, bands, height, width)
    return pan, ms_up, ms_up + 6 * torch.randn_like(ms_up), statistics


def test_published_schedule_ends_in_noise():
    model = PixelDiffusion(PixelConfig(width=8))
    assert (model.config.steps, model.sampling_steps, model.config.prediction) == (2000, 2000, "x0")
    assert model.alpha_bar[0] == 1
    assert 1 - model.alpha_bar[1].item() == pytest.approx(1e-6, rel=1e-6)
    assert model.alpha_bar[-1] < 1e-4


@both_predictions
@pytest.mark.parametrize("sampling_steps", [1, 5, 40])
def test_a_perfect_denoiser_gives_the_truth(prediction, sampling_steps, monkeypatch):
    model = PixelDiffusion(PixelConfig(width=8, steps=40, prediction=prediction, beta_end=0.5)).eval()
    model.sampling_steps = sampling_steps
    pan, ms_up, gt, statistics = batch()
    inputs = model.prepare(pan, ms_up, statistics, 4, gt)
    x_0 = (inputs.G - inputs.M) / model.config.spread

    def perfect(x_t, t, P, ms):
        bar = model.alpha_bar[t].view(-1, 1, 1, 1).float()
        return x_0 if prediction == "x0" else (x_t - bar.sqrt() * x_0) / (1 - bar).sqrt()

    monkeypatch.setattr(model.network, "forward", perfect)
    torch.testing.assert_close(model.sample(inputs, model.noise()), inputs.G, rtol=1e-3, atol=1e-3)


def test_step_is_ddpms_posterior():
    model = PixelDiffusion(PixelConfig(width=8, steps=10, prediction="x0", beta_start=0.01, beta_end=0.4))
    bar, t = model.alpha_bar, 7
    beta = 1 - bar[t] / bar[t - 1]
    x_t, x_0, epsilon = torch.randn(3, 1, 1, 2, 2).double()
    mean = bar[t - 1].sqrt() * beta / (1 - bar[t]) * x_0
    mean += (1 - beta).sqrt() * (1 - bar[t - 1]) / (1 - bar[t]) * x_t
    deviation = ((1 - bar[t - 1]) / (1 - bar[t]) * beta).sqrt()
    torch.testing.assert_close(model.step(x_t, x_0, t, t - 1, epsilon), mean + deviation * epsilon)


def test_noise_added_has_the_schedules_variance():
    model = PixelDiffusion(PixelConfig(width=8))
    x_0, epsilon = torch.full((2, 1, 4, 4), 3.0), torch.randn(2, 1, 4, 4)
    x_t = model.diffuse(x_0, torch.tensor([0, 2000]), epsilon)
    assert torch.equal(x_t[0], x_0[0])
    torch.testing.assert_close(x_t[1], epsilon[1], rtol=0, atol=0.03)


@both_modes
@pytest.mark.parametrize("size", [(21, 18), (5, 9)], ids=str)
def test_takes_any_size(bands, size):
    model = PixelDiffusion(PixelConfig(bands=bands, **SMALL)).eval()
    pan, ms_up, _, statistics = batch(1, bands or 3, *size)
    fused = model.fuse(pan, ms_up, statistics, 4)
    assert fused.shape == ms_up.shape
    assert torch.isfinite(fused).all()


@both_modes
@both_predictions
def test_gradients_reach_every_weight(bands, prediction):
    model = PixelDiffusion(PixelConfig(bands=bands, prediction=prediction, **SMALL))
    pan, ms_up, gt, statistics = batch()
    losses = model.losses(model.prepare(pan, ms_up, statistics, 4, gt), torch.Generator().manual_seed(1))
    losses["loss"].backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


def test_losses_are_a_function_of_the_generator():
    model = PixelDiffusion(PixelConfig(**SMALL))
    pan, ms_up, gt, statistics = batch()
    inputs = model.prepare(pan, ms_up, statistics, 4, gt)
    first, again, other = (model.losses(inputs, torch.Generator().manual_seed(k))["loss"].item() for k in (1, 1, 2))
    assert first == again != other


def test_learns_the_residual():
    """Where PAN's detail is the residual, a few steps of training must bring the samples closer to it."""
    model = PixelDiffusion(PixelConfig(bands=1, width=8, multipliers=(1,), sampling_steps=10))
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    pan, ms_up, _, statistics = batch(8, 1)
    pan = 350 + 29 * torch.randn_like(pan)
    gt = ms_up + 0.3 * (pan - 350)
    inputs = model.prepare(pan, ms_up, statistics, 4, gt)
    for step in range(60):
        optimizer.zero_grad()
        model.losses(inputs, torch.Generator().manual_seed(step))["loss"].backward()
        optimizer.step()
    error = (model.eval().fuse(pan, ms_up, statistics, 4) - gt).abs().mean()
    assert error < 0.3 * (ms_up - gt).abs().mean()


@both_modes
def test_an_image_does_not_depend_on_those_beside_it_but_on_the_seed(bands):
    model = PixelDiffusion(PixelConfig(bands=bands, **SMALL)).eval()
    pan, ms_up, _, s = batch(3)
    together = model.fuse(pan, ms_up, s, 4, model.noise(5))
    one = Statistics(s.pan_mean[1:2], s.pan_std[1:2], s.ms_mean[1:2], s.ms_std[1:2])
    alone = model.fuse(pan[1:2], ms_up[1:2], one, 4, model.noise(5))
    torch.testing.assert_close(alone, together[1:2], rtol=1e-4, atol=1e-2)
    assert torch.equal(model.fuse(pan, ms_up, s, 4, model.noise(5)), together)
    assert not torch.equal(model.fuse(pan, ms_up, s, 4, model.noise(6)), together)
    assert torch.equal(model.fuse(pan, ms_up, s, 4), model.fuse(pan, ms_up, s, 4, model.noise(0)))


def test_checkpoint_round_trip(tmp_path):
    model = PixelDiffusion(PixelConfig(bands=4, **SMALL)).eval()
    path = tmp_path / "pixel.safetensors"
    save_model(model, path, sensor={"name": "WV3"}, training={"steps": 7})
    again, header = load_model(path)
    assert isinstance(again, PixelDiffusion)
    assert again.config == model.config
    assert (header["model"], header["stage"], again.needs_truth) == ("pixel-diffusion", None, False)
    pan, ms_up, _, statistics = batch(1)
    assert torch.equal(again.fuse(pan, ms_up, statistics, 4), model.fuse(pan, ms_up, statistics, 4))
    with pytest.raises(ModelError, match=r"pixel\.safetensors.*pixel-diffusion"):
        load_ksdiff(path)


def test_band_counts_and_values_that_do_not_fit_are_refused():
    with pytest.raises(ModelError, match="4 MS bands"):
        PixelDiffusion(PixelConfig(bands=4, **SMALL)).check(8, 4)
    for values in ({"prediction": "v"}, {"sampling_steps": 0}, {"sampling_steps": 2001}, {"width": 7}, {"bands": 0}):
        with pytest.raises(ModelError, match="config"):
            PixelConfig(**values)
