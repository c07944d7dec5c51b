"""Every backbone of the registry, with and without the prior: the same promises for all."""

import numpy as np
import pytest
import torch
from network_maker import SMALL, batch
from torch.nn import functional as F

from ksdiff_cli.models.backbones import BACKBONES
from ksdiff_cli.models.checkpoint import load_model, read_header, save_model
from ksdiff_cli.models.config import ModelConfig
from ksdiff_cli.models.contract import ModelError, Statistics
from ksdiff_cli.models.ksdiff import KSDiff

pytestmark = pytest.mark.usefixtures("seed")

WHOLE = {"lagnet", "ctinn"}
"""Backbones that see an image as a whole even without a prior, beside those that take it in pieces."""
every_backbone = pytest.mark.parametrize("backbone", sorted(name for name in BACKBONES if not BACKBONES[name].observes))
both_priors = pytest.mark.parametrize("prior", [False, True], ids=["plain", "prior"])
both_modes = pytest.mark.parametrize("bands", [None, 4], ids=["shared", "fixed"])
two_of_four = pytest.mark.parametrize(
    ("prior", "bands"), [(False, 4), (True, None)], ids=["plain-fixed", "prior-shared"]
)


def make(backbone, stage=2, **values):
    return KSDiff(ModelConfig(backbone=backbone, tile=32, **SMALL, **values), stage)


@every_backbone
@pytest.mark.parametrize(("prior", "bands"), [(False, 4), (True, None), (True, 8)])
def test_takes_any_size(backbone, prior, bands):
    model = make(backbone, prior=prior, bands=bands).eval()
    for count, size in ((3, (21, 18)), (1, (5, 9))):
        pan, ms_up, statistics = batch(1, bands or count, *size)
        fused = model.fuse(pan, ms_up, statistics, 4)
        assert fused.shape == ms_up.shape
        assert torch.isfinite(fused).all()


@every_backbone
@both_priors
@both_modes
def test_gradients_reach_every_weight_and_z_at_the_first_step(backbone, prior, bands):
    model = make(backbone, stage=1, prior=prior, bands=bands)
    pan, ms_up, statistics = batch()
    inputs = model.prepare(pan, ms_up, statistics, 4, ms_up + 20 * torch.randn_like(ms_up))
    z = model.latent(inputs)
    if z is not None:
        z.retain_grad()
    F.mse_loss(model(inputs, z), inputs.G).backward()  # L1's signs can cancel to exactly zero in a bias
    idle = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert idle == []
    if z is not None:
        assert (z.grad.flatten(1).abs().sum(1) > 0).all()


@every_backbone
@pytest.mark.parametrize(("bands", "structure"), [(None, "tucker"), (4, "mlp")])
def test_z_changes_the_result_from_the_start(backbone, bands, structure):
    model = make(backbone, bands=bands, structure=structure).eval()
    pan, ms_up, statistics = batch(2)
    inputs = model.prepare(pan, ms_up, statistics, 4)
    z = torch.randn(inputs.M.shape[0], 16, 16).clamp(-3, 3)
    with torch.no_grad():
        residual, other = (model(inputs, value) - inputs.M for value in (z, -z))
    assert (residual - other).std() > 1e-3 * residual.std()


@every_backbone
@two_of_four
def test_starts_between_upsampled_ms_and_plain_detail_injection(backbone, prior, bands):
    model = make(backbone, stage=1, prior=prior, bands=bands).eval()
    pan, ms_up, statistics = batch()
    inputs = model.prepare(pan, ms_up, statistics, 4, ms_up)
    with torch.no_grad():
        residual = model(inputs, model.latent(inputs)) - inputs.M
    assert residual.square().mean().sqrt() < 0.6 * inputs.detail.square().mean().sqrt()


@pytest.mark.parametrize("backbone", sorted(BACKBONES))
@pytest.mark.parametrize(("stage", "prior"), [(1, True), (2, True), (2, False)])
def test_checkpoints_give_the_same_network_and_the_same_bytes_again(backbone, stage, prior, tmp_path):
    observes = BACKBONES[backbone].observes
    model = make(backbone, stage, prior=prior, bands=None if observes else 4).eval()
    first, second = tmp_path / "first.safetensors", tmp_path / "second.safetensors"
    facts = {"sensor": {"name": "QB"}, "training": {"steps": 5}}
    save_model(model, first, **facts)
    again, header = load_model(first)
    assert (again.config, header["config"]["backbone"]) == (model.config, backbone)
    assert (header["stage"], header["model"], read_header(first)) == (stage, "ksdiff", header)
    assert {name: header[name] for name in facts} == facts and list(tmp_path.iterdir()) == [first]
    save_model(again, second, **facts)
    assert first.read_bytes() == second.read_bytes()
    if stage == 2 and not observes:
        pan, ms_up, statistics = batch(1)
        assert torch.equal(again.fuse(pan, ms_up, statistics, 4), model.fuse(pan, ms_up, statistics, 4))


@every_backbone
@two_of_four
def test_an_image_does_not_depend_on_those_beside_it_and_comes_out_the_same_again(backbone, prior, bands):
    model = make(backbone, prior=prior, bands=bands).eval()
    pan, ms_up, s = batch(3)
    together = model.fuse(pan, ms_up, s, 4)
    one = Statistics(s.pan_mean[1:2], s.pan_std[1:2], s.ms_mean[1:2], s.ms_std[1:2])
    torch.testing.assert_close(model.fuse(pan[1:2], ms_up[1:2], one, 4), together[1:2], rtol=1e-4, atol=1e-2)
    assert torch.equal(model.fuse(pan, ms_up, s, 4), together)


@every_backbone
@two_of_four
def test_fixed_kernels_of_the_image_itself_give_the_same_result(backbone, prior, bands, monkeypatch):
    """The fixed path works channels-last and band by band; the other one on all at once."""
    model = make(backbone, prior=prior, bands=bands).eval()
    pan, ms_up, statistics = batch(1, bands or 2, 48, 40)
    own = model.fuse(pan, ms_up, statistics, 4)
    fixed = model.kernels(pan, ms_up, statistics, 4)
    assert all(len(kernel) == (1 if bands else 2) for kernel in fixed)
    assert (fixed == []) == (not prior and backbone not in WHOLE)
    monkeypatch.setattr(KSDiff, "latent", lambda *_: pytest.fail("no z is needed any more"))
    torch.testing.assert_close(model.fuse(pan, ms_up, statistics, 4, kernels=fixed), own, rtol=1e-4, atol=1e-2)
    with torch.no_grad(), monkeypatch.context() as patch:
        patch.setattr("torch.is_grad_enabled", lambda: True)  # as in training, or on a GPU: channels first
        torch.testing.assert_close(model.fuse(pan, ms_up, statistics, 4, kernels=fixed), own, rtol=1e-4, atol=1e-2)


@every_backbone
def test_fixed_kernels_are_the_mean_over_images_and_serve_all_images(backbone, monkeypatch):
    model = make(backbone, bands=4).eval()
    pan, ms_up, s = batch(2, height=24, width=16)

    def image(n):
        return Statistics(*(value[n : n + 1] for value in (s.pan_mean, s.pan_std, s.ms_mean, s.ms_std)))

    together = model.kernels(pan, ms_up, s, 4)
    single = [model.kernels(pan[n : n + 1], ms_up[n : n + 1], image(n), 4) for n in range(2)]
    for kernel, *others in zip(together, *single, strict=True):
        torch.testing.assert_close(kernel, sum(others) / 2, rtol=1e-3, atol=1e-4)
    fused = model.fuse(pan, ms_up, s, 4, kernels=together)
    alone = model.fuse(pan[1:2], ms_up[1:2], image(1), 4, kernels=together)
    torch.testing.assert_close(fused[1:2], alone, rtol=1e-4, atol=1e-2)
    with torch.no_grad():
        monkeypatch.setattr("torch.is_grad_enabled", lambda: True)  # as on a GPU: channels first
        torch.testing.assert_close(model.fuse(pan, ms_up, s, 4, kernels=together), fused, rtol=1e-4, atol=1e-2)


@every_backbone
@both_priors
def test_windows_with_their_margin_fit_together(backbone, prior):
    """Also LAGNet's, whose biases come from the whole image even without a prior."""
    model = make(backbone, prior=prior, bands=4).eval()
    margin = model.margin
    assert margin % 16 == margin % model.multiple == 0 < margin
    pan, ms_up, statistics = batch(1, 4, 32 + 2 * margin, 21)
    fixed = model.kernels(pan[..., :48, :], ms_up[..., :48, :], statistics, 4)
    whole = model.fuse(pan, ms_up, statistics, 4, kernels=fixed)
    for rows in (slice(0, 16), slice(margin, margin + 32)):
        cut = slice(max(0, rows.start - margin), rows.stop + margin)
        part = model.fuse(pan[:, :, cut], ms_up[:, :, cut], statistics, 4, kernels=fixed)
        kept = part[:, :, rows.start - cut.start :][:, :, : rows.stop - rows.start]
        torch.testing.assert_close(kept, whole[:, :, rows], rtol=0, atol=0.02)


@every_backbone
def test_a_core_is_what_the_whole_image_has_there(backbone):
    model = make(backbone, bands=2).eval()
    pan, ms_up, statistics = batch(1, 2, 68, 100)
    fixed = model.kernels(pan[..., :32, :32], ms_up[..., :32, :32], statistics, 4)
    whole = model.fuse(pan, ms_up, statistics, 4, kernels=fixed)
    for core in (np.s_[20:45, 33:70], np.s_[65:68, 3:4]):
        part = model.fuse(pan, ms_up, statistics, 4, kernels=fixed, core=core)
        torch.testing.assert_close(part, whole[..., *core], rtol=0, atol=2e-3)


def test_kernels_of_another_network_are_refused():
    pan, ms_up, s = batch(1)
    shared, own, plain = make("pannextu").eval(), make("pannextu", bands=4).eval(), make("pannextu", prior=False).eval()
    fixed = own.kernels(pan, ms_up, s, 4)
    for model, kernels in ((shared, fixed), (own, fixed[1:]), (plain, fixed), (own, [])):
        with pytest.raises(ModelError, match="kernels"):
            model.fuse(pan, ms_up, s, 4, kernels=kernels)


def test_fixed_kernels_give_every_band_its_own():
    model = make("pannextu").eval()
    pan, ms_up, statistics = batch(1, bands=3, height=40, width=48)
    fixed = model.kernels(pan, ms_up, statistics, 4)
    assert {len(kernel) for kernel in fixed} == {3}
    fused = model.fuse(pan, ms_up, statistics, 4, kernels=fixed)
    torch.testing.assert_close(fused, model.fuse(pan, ms_up, statistics, 4), rtol=1e-4, atol=1e-2)
    others = model.fuse(pan, ms_up, statistics, 4, kernels=[kernel.roll(1, 0) for kernel in fixed])
    assert (others - fused).abs().amax((0, 2, 3)).min() > 1e-2


def test_unknown_name_is_refused_with_those_that_are_known():
    with pytest.raises(ModelError, match=r"'resnet'.*pannextu.*lagnet"):
        make("resnet")
