"""The networks: shapes, the paper's formulae, and that the prior can act at all."""

import math

import pytest
import torch
from torch.nn import functional as F

from ksdiff_cli.models.checkpoint import load_model, read_header, save_model
from ksdiff_cli.models.config import ModelConfig
from ksdiff_cli.models.contract import ModelError, Statistics
from ksdiff_cli.models.diffusion import Diffusion
from ksdiff_cli.models.encoder import GuidedStage
from ksdiff_cli.models.kernels import KernelGenerator, ModulatedConv2d, per_sample_conv2d
from ksdiff_cli.models.ksdiff import KSDiff, diffusion_loss, regression_loss
from ksdiff_cli.models.layers import low_pass

SMALL = {
    "width": 16,
    "depths": (1, 1, 1),
    "encoder_width": 16,
    "latent": 16,
    "denoiser_width": 32,
    "denoiser_blocks": 1,
}


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def batch(images=2, bands=4, height=32, width=32):
    pan = 300 + 100 * torch.rand(images, 1, height, width)
    ms_up = 200 + 50 * torch.rand(images, bands, height, width)
    gt = ms_up + 20 * torch.randn_like(ms_up)
    statistics = Statistics(
        torch.full((images, 1), 350.0),
        torch.full((images, 1), 29.0),
        torch.full((images, bands), 225.0),
        torch.full((images, bands), 15.0),
    )
    return pan, ms_up, gt, statistics


def test_per_sample_convolution_equals_a_loop_over_samples():
    x, w, b = torch.randn(3, 4, 9, 11), torch.randn(3, 6, 2, 5, 5), torch.randn(6)
    loop = torch.cat([F.conv2d(x[i : i + 1], w[i], b, padding=2, groups=2) for i in range(3)])
    torch.testing.assert_close(per_sample_conv2d(x, w, b, groups=2), loop, rtol=1e-4, atol=1e-5)
    w1 = torch.randn(3, 6, 4, 1, 1)
    loop = torch.cat([F.conv2d(x[i : i + 1], w1[i], b) for i in range(3)])
    torch.testing.assert_close(per_sample_conv2d(x, w1, b), loop, rtol=1e-4, atol=1e-5)


def test_tucker_product_equals_its_sum():
    generator = KernelGenerator((3, 5, 7, 7), channels=8, latent=16, rank=(4, 4, 2, 2))
    assert generator.rank == (3, 4, 2, 2)
    z, x = torch.randn(2, 4, 16), torch.randn(2, 8, 12, 12)
    W = generator(z, x)
    assert W.shape == (2, 5, 3, 7, 7)
    core = generator.core(z.mean(1)).view(2, 3, 4, 2, 2)
    cells = F.adaptive_avg_pool2d(x, 4).flatten(2).transpose(1, 2)
    u = [head(generator.backbone(cells)) for head in generator.heads]
    o, i, h, w = 4, 1, 6, 2
    by_hand = sum(
        core[1, a, b, c, d] * u[0][1, a, i] * u[1][1, b, o] * u[2][1, c, h] * u[3][1, d, w]
        for a in range(3)
        for b in range(4)
        for c in range(2)
        for d in range(2)
    )
    assert W[1, o, i, h, w].item() == pytest.approx(by_hand.item(), rel=1e-4)


def test_modulation_starts_near_the_identity_and_depends_on_z():
    conv = ModulatedConv2d(16, 16, 7, groups=16, latent=16, rank=(4, 4, 2, 2))
    z, x = F.layer_norm(torch.randn(8, 4, 16), (16,)), torch.randn(8, 16, 16, 16)
    W = conv.generator(z, x)
    assert abs(W.mean().item() - 1) < 0.1
    assert 0.01 < W.std().item() < 0.5
    assert (W - conv.generator(z.roll(1, 0), x)).abs().mean().item() > 1e-3


def test_linear_attention_is_the_matrix_form_of_equation_1():
    stage = GuidedStage(6)
    X, Y = torch.randn(1, 6, 4, 5), torch.randn(1, 6, 4, 5)
    captured = {}
    stage.out.register_forward_pre_hook(lambda _, args: captured.update(qa=args[0]))
    assert stage(X, Y).shape == (1, 6, 2, 3)
    Q = torch.softmax(stage.to_q(X), 1).flatten(2)[0].T  # hw x d
    K = torch.softmax(stage.to_k(Y).flatten(2), 2)[0].T
    V = stage.to_v(Y).flatten(2)[0].T
    torch.testing.assert_close(captured["qa"].flatten(2)[0].T, Q @ (K.T @ V), rtol=1e-4, atol=1e-6)


def test_schedule_is_the_documented_one():
    bar = Diffusion(ModelConfig()).alpha_bar
    assert bar[1:].tolist() == pytest.approx([0.9, 0.635, 0.260, 0.0026], abs=6e-4)


def test_reverse_steps_recover_z0_from_a_perfect_prediction():
    diffusion = Diffusion(ModelConfig())
    z_0, noise = torch.randn(2, 4, 8), torch.randn(2, 4, 8)
    z_T = diffusion(z_0, torch.tensor([4, 4]), noise)
    torch.testing.assert_close(diffusion.reverse(lambda z, t: z_0, z_T), z_0)
    # with the true z_0, deterministic DDIM walks along q's own path
    z_3 = diffusion.step(z_T, z_0, 4)
    torch.testing.assert_close(z_3, diffusion(z_0, torch.tensor([3, 3]), noise), rtol=1e-4, atol=1e-4)


def test_ddim_noise_has_sigma_not_sigma_squared():
    diffusion = Diffusion(ModelConfig())
    z_0, z_t, epsilon = torch.zeros(1, 1, 1), torch.zeros(1, 1, 1), torch.ones(1, 1, 1)
    bar, before = diffusion.alpha_bar[3].item(), diffusion.alpha_bar[2].item()
    sigma = math.sqrt((1 - before) / (1 - bar) * (1 - bar / before))
    assert diffusion.step(z_t, z_0, 3, eta=1.0, epsilon=epsilon).item() == pytest.approx(sigma, rel=1e-4)


@pytest.mark.parametrize("ratio", [2, 4])
def test_low_pass_has_the_gain_at_the_ms_nyquist_frequency(ratio):
    x = torch.arange(256.0)
    wave = torch.cos(torch.pi * x / ratio).expand(1, 1, 256, 256)
    seen = low_pass(wave, ratio, 0.3)[0, 0, 128, 64:192]
    assert seen.abs().max().item() == pytest.approx(0.3, abs=0.01)


@pytest.mark.parametrize("bands", [None, 4])
@pytest.mark.parametrize("stage", [1, 2])
def test_forward_and_gradients_reach_every_weight(bands, stage):
    model = KSDiff(ModelConfig(bands=bands, **SMALL), stage)
    pan, ms_up, gt, statistics = batch()
    inputs = model.prepare(pan, ms_up, statistics, 4, gt)
    z = model.truth_latent(inputs) if stage == 1 else model.sample(inputs, model.noise())
    H = model(inputs, z)
    assert H.shape == inputs.M.shape
    loss = regression_loss(inputs, H) + (diffusion_loss(torch.zeros_like(z), z) if stage == 2 else 0)
    loss.backward()
    # T + 1 time embeddings exist, t = 0 is never asked for; everything else must learn
    idle = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert idle == []


@pytest.mark.parametrize("bands", [1, 3, 8])
@pytest.mark.parametrize("size", [(64, 48), (37, 50), (5, 9)])
def test_shared_network_takes_any_bands_and_any_size(bands, size):
    model = KSDiff(ModelConfig(**SMALL)).eval()
    pan, ms_up, _, statistics = batch(1, bands, *size)
    fused = model.fuse(pan, ms_up, statistics, 4)
    assert fused.shape == ms_up.shape
    assert torch.isfinite(fused).all()


def test_radiometric_scale_passes_through():
    model = KSDiff(ModelConfig(**SMALL)).eval()
    pan, ms_up, _, s = batch(1)
    scaled = Statistics(s.pan_mean * 3 + 5, s.pan_std * 3, s.ms_mean * 0.1, s.ms_std * 0.1)
    torch.testing.assert_close(
        model.fuse(pan * 3 + 5, ms_up * 0.1, scaled, 4), model.fuse(pan, ms_up, s, 4) * 0.1, rtol=1e-3, atol=1e-3
    )


def test_constant_band_stays_finite():
    model = KSDiff(ModelConfig(**SMALL)).eval()
    pan, ms_up, _, s = batch(1)
    flat = Statistics(s.pan_mean, s.pan_std, s.ms_mean, torch.zeros_like(s.ms_std))
    assert torch.isfinite(model.fuse(pan, ms_up, flat, 4)).all()


def test_noise_is_the_same_for_one_seed_only():
    model = KSDiff(ModelConfig(**SMALL))
    assert torch.equal(model.noise(3), model.noise(3))
    assert not torch.equal(model.noise(3), model.noise(4))


def test_checkpoint_round_trip(tmp_path):
    model = KSDiff(ModelConfig(bands=4, **SMALL)).eval()
    path = tmp_path / "run" / "stage2.safetensors"
    save_model(model, path, sensor={"name": "WV3"}, training={"steps": 7})
    again, header = load_model(path)
    pan, ms_up, _, statistics = batch(1)
    assert torch.equal(again.fuse(pan, ms_up, statistics, 4), model.fuse(pan, ms_up, statistics, 4))
    assert again.config == model.config
    assert (header["stage"], header["sensor"]["name"], header["training"]["steps"]) == (2, "WV3", 7)
    assert read_header(path) == header
    assert [file.name for file in path.parent.iterdir()] == ["stage2.safetensors"]


def test_checkpoint_errors_are_one_line(tmp_path):
    junk = tmp_path / "junk.safetensors"
    junk.write_bytes(b"no tensors here")
    for path in (tmp_path / "absent.safetensors", junk):
        with pytest.raises(ModelError, match=path.name) as caught:
            load_model(path)
        assert "\n" not in str(caught.value)


def test_wrong_band_count_and_config_are_refused():
    with pytest.raises(ModelError, match="4 MS bands"):
        KSDiff(ModelConfig(bands=4, **SMALL)).check(8, 4)
    KSDiff(ModelConfig(**SMALL)).check(7, 2)
    with pytest.raises(ModelError, match="newer"):
        ModelConfig.from_dict({"colour": 1})


def test_stage_1_cannot_sharpen_without_the_truth():
    model = KSDiff(ModelConfig(**SMALL), stage=1)
    pan, ms_up, _, statistics = batch(1)
    with pytest.raises(ModelError, match="stage 2"):
        model.fuse(pan, ms_up, statistics, 4)
