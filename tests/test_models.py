"""The networks: shapes, the paper's formulae, and that the prior can act at all."""

import json
import math

import network_maker
import pytest
import torch
from network_maker import SMALL
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

from ksdiff_cli.models.checkpoint import load_ksdiff, read_header, save_model
from ksdiff_cli.models.config import ENCODERS, STRUCTURES, ModelConfig
from ksdiff_cli.models.contract import Inputs, ModelError, Statistics
from ksdiff_cli.models.diffusion import Diffusion
from ksdiff_cli.models.encoder import GuidedStage, Standardisation, second_order
from ksdiff_cli.models.kernels import Conditioning, KernelGenerator, ModulatedConv2d, per_sample_conv2d
from ksdiff_cli.models.ksdiff import KSDiff, diffusion_loss, regression_loss
from ksdiff_cli.models.layers import PatchStem, low_pass

pytestmark = pytest.mark.usefixtures("seed")


def batch(images=2, bands=4, height=32, width=32):
    pan, ms_up, statistics = network_maker.batch(images, bands, height, width)
    return pan, ms_up, ms_up + 20 * torch.randn_like(ms_up), statistics


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


@pytest.mark.parametrize("structure", STRUCTURES)
def test_modulation_starts_near_the_identity_and_depends_on_z(structure):
    conv = ModulatedConv2d(16, 16, 7, ModelConfig(structure=structure, tokens=4, latent=16), groups=16)
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


def test_low_pass_is_the_same_with_and_without_gradients():
    pan = torch.rand(2, 3, 40, 24)
    slow = low_pass(pan, 4)
    with torch.no_grad():
        fast = low_pass(pan, 4)
    assert slow.shape == pan.shape
    torch.testing.assert_close(slow, fast, rtol=1e-4, atol=1e-5)


def test_kernels_are_written_down_or_fixed():
    conv = ModulatedConv2d(6, 4, 3, ModelConfig(tokens=4, latent=16))
    z, x = torch.randn(1, 4, 16), torch.randn(1, 6, 8, 8)
    taken = Conditioning(z)
    with torch.no_grad():
        out = conv(x, taken)
        assert list(taken.made) == [conv.generator] and not taken.fixed
        fixed = Conditioning(made=taken.made)
        torch.testing.assert_close(conv(x, fixed), conv(x, z))
        torch.testing.assert_close(out, conv(x, z))
        other = torch.randn(3, 6, 8, 8)
        W1 = conv.base.weight * taken.made[conv.generator][0]
        torch.testing.assert_close(conv(other, fixed), F.conv2d(other, W1, conv.base.bias, padding=1))
        with pytest.raises(KeyError):
            conv(x, Conditioning(made={}))


@pytest.mark.parametrize("bands", [None, 4])
@pytest.mark.parametrize("stage", [1, 2])
@pytest.mark.parametrize(
    "ablation",
    [
        {},
        {"encoder": "entangled"},
        {"structure": "mlp"},
        {"encoder_norm": True},
        {"moments": False},
        {"modulate_output": False},
    ],
)
def test_forward_and_gradients_reach_every_weight(bands, stage, ablation):
    model = KSDiff(ModelConfig(bands=bands, **SMALL, **ablation), stage)
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


def test_images_are_kept_once_and_entries_know_theirs():
    model = KSDiff(ModelConfig(**SMALL))
    pan, ms_up, gt, statistics = batch(3, bands=2)
    inputs = model.prepare(pan, ms_up, statistics, 4, gt)
    assert (len(inputs.P), len(inputs.M), inputs.image.tolist()) == (3, 6, [0, 0, 1, 1, 2, 2])
    apart = inputs.apart()
    assert torch.equal(apart.P, inputs.P.repeat_interleave(2, 0)) and torch.equal(apart.ms, inputs.ms)
    some = inputs.rows(torch.tensor([5, 0, 4]))
    assert (len(some.P), some.image.tolist()) == (2, [1, 0, 1])
    for name in ("P", "detail", "M", "context", "G"):
        assert torch.equal(getattr(some.apart(), name), getattr(apart, name)[[5, 0, 4]])
    band = inputs.rows(slice(1, None, 2))
    assert torch.equal(band.M, inputs.M[1::2]) and torch.equal(band.apart().P, inputs.P)


@pytest.mark.parametrize("encoder", ENCODERS)
def test_encoders_give_an_entry_the_same_whatever_shares_its_image(encoder):
    model = KSDiff(ModelConfig(**{**SMALL, "encoder": encoder}), stage=1).eval()
    pan, ms_up, gt, statistics = batch(2, bands=3)
    inputs = model.prepare(pan, ms_up, statistics, 4, gt)
    with torch.no_grad():
        z = model.truth_latent(inputs)
        torch.testing.assert_close(model.truth_latent(inputs.apart()), z, rtol=1e-4, atol=1e-5)
        chosen = torch.tensor([4, 1])
        torch.testing.assert_close(model.truth_latent(inputs.rows(chosen)), z[chosen], rtol=1e-4, atol=1e-5)


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


def test_checkpoint_from_before_there_were_kinds_and_backbones(tmp_path):
    before = {"encoder_norm": True, "moments": False, "modulate_output": False}
    model = KSDiff(ModelConfig(**SMALL, **before)).eval()
    path = tmp_path / "old.safetensors"
    save_model(model, path, sensor={}, training={})
    header = read_header(path)
    del header["model"]
    for name in ("backbone", "encoder", "structure", *before):
        del header["config"][name]
    save_file(load_file(path), path, metadata={"ksdiff": json.dumps(header)})
    again, header = load_ksdiff(path)
    assert "model" not in header
    assert again.config == model.config
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in again.state_dict().items())


def test_moments_tell_the_injection_gain():
    """In each quarter of an image G = M + g detail with another g: the statistics say g, which no mean can."""
    random = torch.Generator().manual_seed(0)
    P, M = 10 * torch.randn(2, 1, 64, 64, generator=random), torch.randn(2, 3, 64, 64, generator=random)
    detail = P - low_pass(P, 4)
    gains = torch.tensor([[0.2, 0.9], [-0.5, 2.0]])
    g = gains.repeat_interleave(32, 0).repeat_interleave(32, 1)
    found = second_order(Inputs(P, detail, M, M[:, :0], M + g * detail), 2, truth=True)
    assert found.shape == (2, 4, 1 + 4 * 3)
    assert torch.allclose(found[:, :, 7:10], gains.flatten()[None, :, None].expand(2, 4, 3), atol=0.01)
    # the coarser scale: MS that is PAN's low-pass has gain 1 there
    low = P - detail
    same = second_order(Inputs(P, detail, low, M[:, :0], None), 2, truth=False)
    assert same.shape == (2, 4, 3) and torch.allclose(same[:, :, 1], torch.ones(2, 4), atol=0.05)


def test_the_prior_reaches_gain_and_filters_of_the_output():
    model = KSDiff(ModelConfig(**{**SMALL, "bands": 3}), stage=1).eval()
    head, refine = model.network.head, model.network.refine
    for conv in (head, refine.first, refine.last):
        x = torch.randn(1, conv.base.in_channels - conv.constant, 8, 8)
        z = torch.randn(2, 1, 16, SMALL["latent"])
        with torch.no_grad():
            assert not torch.equal(conv(x, z[0]), conv(x, z[1]))
    # replicated, not zero: a constant image has no edge
    with torch.no_grad():
        flat = refine(torch.ones(1, refine.first.base.in_channels, 12, 12), torch.randn(1, 16, SMALL["latent"]))
    assert torch.allclose(flat, flat[:, :, 5:6, 5:6].expand_as(flat), atol=1e-6)


def test_wrong_band_count_and_config_are_refused():
    with pytest.raises(ModelError, match="4 MS bands"):
        KSDiff(ModelConfig(bands=4, **SMALL)).check(8, 4)
    KSDiff(ModelConfig(**SMALL)).check(7, 2)
    with pytest.raises(ModelError, match="newer"):
        ModelConfig.from_dict({"colour": 1})


def test_a_given_latent_replaces_the_sampled_one():
    model = KSDiff(ModelConfig(**SMALL)).eval()
    pan, ms_up, _, s = batch(2)
    made = model.latent(model.prepare(pan, ms_up, s, 4), model.noise(3))
    fused = model.fuse(pan, ms_up, s, 4, model.noise(3))
    torch.testing.assert_close(model.fuse(pan, ms_up, s, 4, latent=made), fused)
    shuffled = model.fuse(pan, ms_up, s, 4, latent=made.roll(1, 0))
    assert (shuffled - fused).abs().max() > 1e-3
    zero = model.fuse(pan, ms_up, s, 4, latent=torch.zeros(1, 16, 16))
    torch.testing.assert_close(zero, model.fuse(pan, ms_up, s, 4, latent=torch.zeros_like(made)))


def test_stage_1_gives_its_latent_where_the_truth_is_known():
    model = KSDiff(ModelConfig(bands=4, **SMALL), stage=1).eval()
    pan, ms_up, gt, s = batch(2)
    z = model.latent(model.prepare(pan, ms_up, s, 4, gt))
    assert z.shape == (2, 16, 16)
    assert torch.isfinite(model.fuse(pan, ms_up, s, 4, latent=z)).all()


def test_latents_that_do_not_fit_are_refused():
    pan, ms_up, _, s = batch(2)
    plain = KSDiff(ModelConfig(prior=False, **SMALL)).eval()
    assert plain.latent(plain.prepare(pan, ms_up, s, 4)) is None and not plain.needs_truth
    with pytest.raises(ModelError, match="without prior"):
        plain.fuse(pan, ms_up, s, 4, latent=torch.zeros(1, 16, 16))
    for shape in ((1, 16, 8), (3, 16, 16), (16, 16)):
        with pytest.raises(ModelError, match="the latent has shape"):
            KSDiff(ModelConfig(**SMALL)).eval().fuse(pan, ms_up, s, 4, latent=torch.zeros(shape))


def test_stems_without_norm_see_how_strong_the_detail_is():
    image, changes = torch.randn(1, 2, 16, 16), []
    for norm in (True, False):
        stem = PatchStem(2, 8, 4, norm)
        changes.append((stem(3 * image) - stem(image)).norm() / stem(image).norm())
    assert changes[0] < 0.2 < 1 < changes[1]


@pytest.mark.parametrize("bands", [None, 8])
@pytest.mark.parametrize("stage", [1, 2])
def test_entangled_encoder_has_the_pyramids_size(bands, stage):
    sizes = []
    for encoder in ENCODERS:
        model = KSDiff(ModelConfig(bands=bands, encoder=encoder), stage)
        part = model.plfe1 if stage == 1 else model.plfe2
        sizes.append(sum(p.numel() for p in part.parameters()))
    assert sizes[1] == pytest.approx(sizes[0], rel=0.1)


def test_mlp_generators_have_ten_times_the_parameters():
    sizes = []
    for structure in STRUCTURES:
        conv = ModulatedConv2d(64, 64, 3, ModelConfig(structure=structure))
        sizes.append(sum(p.numel() for p in conv.generator.parameters()))
    assert sizes[1] > 10 * sizes[0]


@pytest.mark.parametrize("rank", [(4, 4, 1, 1), (8, 8, 2, 2), (16, 16, 2, 2)])
def test_ranks_of_table_6(rank):
    conv = ModulatedConv2d(32, 32, 3, ModelConfig(rank=rank))
    assert conv.generator.rank == rank
    assert conv.weight(torch.randn(2, 32, 8, 8), torch.randn(2, 16, 64)).shape == (2, 32, 32, 3, 3)


def test_stage_1_cannot_sharpen_without_the_truth():
    model = KSDiff(ModelConfig(**SMALL), stage=1)
    assert model.needs_truth
    pan, ms_up, _, statistics = batch(1)
    with pytest.raises(ModelError, match="stage 2"):
        model.fuse(pan, ms_up, statistics, 4)


@pytest.mark.parametrize("steps", [1, 2, 5, 127, 1000, 10_000])
def test_any_number_of_steps_ends_in_the_same_noise_and_stays_finite(steps):
    config = ModelConfig(steps=steps)
    diffusion, z_0 = Diffusion(config), torch.randn(1, 4, 8)
    bar = diffusion.alpha_bar
    assert bar[-1] == pytest.approx(Diffusion(ModelConfig()).alpha_bar[-1])
    assert (bar[:-1] > bar[1:]).all()
    z_T = diffusion(z_0, torch.tensor([steps]), torch.randn(1, 4, 8))
    epsilons = [torch.randn(1, 4, 8)] * steps
    for eta in (0.0, 1.0):
        diffusion.eta = eta
        assert diffusion.reverse(lambda z, t: 0.9 * z_0, z_T, epsilons).isfinite().all()


@pytest.mark.parametrize("old", [{}, {"spread_beta": False}])
def test_published_schedule_is_the_same_bits_whether_spread_or_not(old):
    beta = torch.linspace(0.1**0.5, 0.99**0.5, 4, dtype=torch.float64) ** 2
    assert torch.equal(Diffusion(ModelConfig(**old)).alpha_bar[1:], torch.cumprod(1 - beta, 0).float())


def test_networks_from_before_keep_their_schedule():
    values = ModelConfig(steps=10).to_dict()
    del values["spread_beta"]
    beta = torch.linspace(0.1**0.5, 0.99**0.5, 10, dtype=torch.float64) ** 2
    assert torch.equal(Diffusion(ModelConfig.from_dict(values)).alpha_bar[1:], torch.cumprod(1 - beta, 0).float())
    # 0 in float32 at T = 127: without noise there is nothing to divide by it
    diffusion, z = Diffusion(ModelConfig.from_dict({"steps": 127})), torch.randn(1, 4, 8)
    assert diffusion.alpha_bar[-1] == 0
    assert diffusion.reverse(lambda z, t: 0.9 * z, z).isfinite().all()


def test_fewer_steps_walk_the_same_path():
    diffusion = Diffusion(ModelConfig(steps=100, sampling_steps=7))
    assert diffusion.times == [100, 85, 71, 57, 42, 28, 14, 0]
    z_0, noise = torch.randn(1, 4, 8), torch.randn(1, 4, 8)
    seen = []

    def predict(z, t):
        seen.append(int(t[0]))
        torch.testing.assert_close(z, diffusion(z_0, t, noise), rtol=1e-4, atol=1e-4)  # q's own path
        return z_0

    torch.testing.assert_close(diffusion.reverse(predict, diffusion(z_0, torch.tensor([100]), noise)), z_0)
    assert seen == diffusion.times[:-1]


def test_noise_of_the_steps_has_the_schedules_variance():
    diffusion = Diffusion(ModelConfig(steps=50, sampling_steps=5, eta=1.0))
    z_0 = torch.zeros(1, 100, 100)
    for s in diffusion.times[1:-1]:
        t = diffusion.times[diffusion.times.index(s) - 1]
        z_t, epsilon = diffusion(z_0, torch.tensor([t]), torch.randn_like(z_0)), torch.randn_like(z_0)
        z_s = diffusion.step(z_t, z_0, t, 1.0, epsilon, s)
        assert z_s.var() == pytest.approx(1 - diffusion.alpha_bar[s].item(), rel=0.05)


def test_eta_draws_noise_for_every_step_and_a_seed_fixes_it():
    plain, noisy = KSDiff(ModelConfig(**SMALL)).eval(), KSDiff(ModelConfig(**SMALL, eta=0.8)).eval()
    noisy.load_state_dict(plain.state_dict())
    pan, ms_up, _, s = batch()
    assert noisy.noise(3).shape == (1, 16, 4 * 16)
    inputs = noisy.prepare(pan, ms_up, s, 4)
    once = noisy.latent(inputs, noisy.noise(3))
    assert torch.equal(once, noisy.latent(inputs, noisy.noise(3)))
    assert not torch.equal(once, noisy.latent(inputs, noisy.noise(4)))
    # z_T alone adds nothing on the way
    assert torch.equal(noisy.latent(inputs, plain.noise(3)), plain.latent(inputs, plain.noise(3)))


def test_running_statistics_of_z_are_right_after_few_batches():
    norm = Standardisation(3).train()
    x = torch.randn(60, 32, 3, 16) * torch.tensor([0.1, 1.0, 30.0])[:, None] + 5
    for number, one in enumerate(x, start=1):
        norm(one)
        if number in (1, 10, 50):  # the mean over all batches so far
            seen = x[:number].transpose(1, 2).flatten(2)
            torch.testing.assert_close(norm.running_mean, seen.mean((0, 2)), rtol=1e-3, atol=1e-3)
            assert norm.running_var.sqrt().tolist() == pytest.approx([0.1, 1.0, 30.0], rel=0.1)
    norm.eval()
    assert norm(x[0]).std((0, 2)).tolist() == pytest.approx([1, 1, 1], rel=0.1)
    # a run that goes on does not forget
    again = Standardisation(3).train()
    again.load_state_dict(norm.state_dict())
    again(x[0] + 100)
    assert again.momentum == pytest.approx(0.02)
