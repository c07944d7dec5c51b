"""The network that ends in both observation equations, and the operators that these are made of."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from ksdiff_cli.models.checkpoint import load_model, save_model
from ksdiff_cli.models.config import ModelConfig
from ksdiff_cli.models.contract import ModelError, Statistics
from ksdiff_cli.models.ksdiff import KSDiff
from ksdiff_cli.models.observation import AxisMap, Cameras, Observed, fit_cameras, fit_mix, resharpen, see, spread
from ksdiff_cli.numerics.camera import View, implied_sharpness
from ksdiff_cli.numerics.camera import resharpen as resharpen_array
from ksdiff_cli.numerics.grids import corner_aligned, degrade, upsample

pytestmark = pytest.mark.usefixtures("seed")

SMALL = {"width": 16, "band_width": 8, "encoder_width": 8, "latent": 16, "denoiser_width": 16, "denoiser_blocks": 1}

both_priors = pytest.mark.parametrize("prior", [False, True], ids=["plain", "prior"])


def make(stage=2, **values):
    return KSDiff(ModelConfig(backbone="unrolled", **SMALL, **values), stage)


def texture(*shape):
    """Smooth noise: content that both cameras see."""
    fine = torch.randn(*shape[:-2], shape[-2] + 8, shape[-1] + 8)
    smooth = F.avg_pool2d(fine.flatten(0, -3)[:, None], 9, 1) * 9
    return smooth.view(shape) + 0.3 * torch.randn(shape)


def scene(images=2, bands=3, height=48, width=48, ratio=4.0, phase=0.0, k=0.0):
    """A pair whose PAN is a mix of its bands' truth: PAN, MS, statistics with cameras, truth."""
    truth = 200 + 20 * texture(images, 1, height, width) + 5 * texture(images, bands, height, width)
    pan = truth.mean(1, keepdim=True)
    axis = AxisMap(1 / ratio, (1 / ratio - 1) / 2 + phase)
    count = max(1, round(height / ratio)), max(1, round(width / ratio))
    empty = Observed(truth.new_zeros(images, bands, *count), None, axis, axis)
    one = torch.ones(images)
    nothing = torch.zeros(images, bands)
    camera = Cameras(0.3 * one, k * one, nothing, nothing[:, 0], nothing, nothing[:, 0])
    observed = Observed(see(truth, empty, camera), None, axis, axis)
    cameras = fit_cameras(pan, observed, 0.3, k)
    known = Statistics(
        pan.mean((2, 3)), pan.std((2, 3)), observed.ms.mean((2, 3)), observed.ms.std((2, 3)), cameras
    )  # fmt: skip
    return pan, observed, known, truth


@pytest.mark.parametrize("ratio", [2, 4])
def test_the_camera_and_the_way_back_are_those_of_the_grids(ratio):
    image = texture(1, 2, 96, 80)
    grid = corner_aligned(ratio)
    axis = AxisMap(grid.rows.scale, grid.rows.offset)
    shape = 96 // ratio, 80 // ratio
    observed = Observed(torch.zeros(1, 2, *shape), None, axis, axis)
    nothing = torch.zeros(1, 2)
    camera = Cameras(torch.tensor([0.3]), torch.zeros(1), nothing, nothing[:, 0], nothing, nothing[:, 0])
    seen = see(image, observed, camera)
    inside = np.s_[:, 5:-5, 5:-5]  # borders are replicated there and left out here
    wanted = degrade(image[0].numpy(), grid, shape, (0.3, 0.3))
    np.testing.assert_allclose(seen[0].numpy()[inside], wanted[inside], atol=2e-3)
    back = spread(seen, observed, (96, 80))
    np.testing.assert_allclose(back[0].numpy(), upsample(seen[0].numpy(), grid, (96, 80)), atol=1e-5)


def test_compensation_is_what_it_says():
    image = texture(1, 1, 128, 128)
    axis = AxisMap(0.25, -0.375)
    observed = Observed(torch.zeros(1, 1, 32, 32), None, axis, axis)
    one, nothing = torch.ones(1), torch.zeros(1, 1)

    def look(gain, k):
        return see(image, observed, Cameras(gain * one, k * one, nothing, nothing[:, 0], nothing, nothing[:, 0]))

    plain, sharper = look(0.3, 0.0), look(0.3, 1.0)
    softened = np.sqrt(-2 * np.log(0.3)) / np.pi, 0.8
    blurred = look(float(np.exp(-(np.pi**2) / 2 * (softened[0] ** 2 + softened[1] ** 2))), 0.0)
    inner = np.s_[..., 6:-6, 6:-6]
    torch.testing.assert_close(sharper[inner], (2 * plain - blurred)[inner], atol=1e-3, rtol=0)


def test_a_mix_is_the_least_squares_of_pan_on_the_bands():
    ms = texture(1, 3, 20, 20) * torch.tensor([1.0, 5.0, 0.1]).view(1, 3, 1, 1) + 100
    pan = 0.2 * ms[:, :1] + 0.7 * ms[:, 1:2] + 4 + 0.05 * texture(1, 1, 20, 20)
    weights, offset, injection, r2 = fit_mix(pan, ms)
    design = np.concatenate((ms[0].flatten(1).numpy().T.astype(float), np.ones((400, 1))), 1)
    wanted = np.linalg.lstsq(design, pan.flatten().numpy().astype(float), rcond=None)[0]
    np.testing.assert_allclose([*weights[0], offset[0]], wanted, rtol=1e-3, atol=1e-2)
    cov = np.cov(ms[0].flatten(1).numpy().astype(float), bias=True)
    np.testing.assert_allclose(injection[0], cov @ wanted[:3] / (wanted[:3] @ cov @ wanted[:3]), rtol=1e-3)
    assert 0.99 < r2[0] <= 1


def test_both_filters_of_sharpness_are_one():
    pan = texture(1, 1, 30, 40) + 100
    for sharpness in (-0.7, 0.0, 1.3):
        wanted = resharpen_array(pan[0, 0].numpy(), sharpness)
        np.testing.assert_allclose(resharpen(pan, sharpness)[0, 0].numpy(), wanted, atol=1e-4)


@pytest.mark.parametrize("softer", [-0.6, 0.0, 0.8])
def test_what_ms_was_made_from_is_found_as_sharp_as_it_is(softer):
    truth = 200 + 20 * texture(1, 1, 320, 320) + 5 * texture(1, 3, 320, 320)
    pan = truth.mean(1)[0].numpy()
    wanted = np.stack([resharpen_array(band.numpy(), softer) for band in truth[0]])
    grid = corner_aligned(4)
    ms = degrade(wanted, grid, (80, 80), (0.3,) * 3)
    view = View(pan, np.ones(pan.shape, bool), ms, np.ones(ms.shape[1:], bool), grid)
    assert implied_sharpness([view], 3, (0.3,)) == pytest.approx(softer, abs=0.25)


@both_priors
@pytest.mark.parametrize(
    ("bands", "ratio", "size"), [(1, 4, (21, 18)), (3, 1.5, (40, 24)), (8, 2, (16, 16)), (4, 8, (33, 64))]
)
def test_takes_any_bands_ratios_and_sizes(prior, bands, ratio, size):
    model = make(prior=prior).eval()
    pan, observed, known, truth = scene(1, bands, *size, ratio, phase=0.3, k=0.5)
    fused = model.fuse(pan, observed, known, round(ratio))
    assert fused.shape == truth.shape
    assert torch.isfinite(fused).all()


@both_priors
def test_gradients_reach_every_weight_and_z_at_the_first_step(prior):
    model = make(stage=1, prior=prior)
    pan, observed, known, truth = scene()
    inputs = model.prepare(pan, observed, known, 4, truth)
    z = model.latent(inputs)
    if z is not None:
        assert z.shape[0] == len(pan)
        z.retain_grad()
    F.mse_loss(model(inputs, z), inputs.G).backward()
    # what starts at zero lets nothing through to what feeds it
    asleep = {
        f"network.{name}.layers.0.{kind}" for name in ("know", "know_band", "know_step") for kind in ("weight", "bias")
    }
    idle = {name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0}
    assert idle <= asleep
    if z is not None:
        assert (z.grad.flatten(1).abs().sum(1) > 0).all()


@both_priors
def test_checkpoint_round_trip(prior, tmp_path):
    model, path = make(prior=prior).eval(), tmp_path / "stage2.safetensors"
    save_model(model, path, sensor={}, training={})
    pan, observed, known, _ = scene()
    again, _ = load_model(path)
    assert again.observes
    assert torch.equal(again.fuse(pan, observed, known, 4), model.fuse(pan, observed, known, 4))


@both_priors
def test_fixed_kernels_of_the_image_give_its_own_result_and_serve_others(prior):
    model = make(prior=prior).eval()
    pan, observed, known, _ = scene(1)
    fixed = model.kernels(pan, observed, known, 4)
    assert all(len(kernel) == 1 for kernel in fixed)
    own = model.fuse(pan, observed, known, 4)
    torch.testing.assert_close(model.fuse(pan, observed, known, 4, kernels=fixed), own, rtol=1e-4, atol=1e-2)
    plain = model.folded(fixed).eval()
    assert not plain.config.prior and not plain.kernels(pan, observed, known, 4)
    torch.testing.assert_close(plain.fuse(pan, observed, known, 4), own, rtol=1e-4, atol=1e-2)
    if prior:
        with pytest.raises(ModelError, match="kernels"):
            model.fuse(pan, observed, known, 4, kernels=fixed[1:])


@both_priors
@pytest.mark.parametrize("ratio", [2, 4])
def test_windows_with_their_margin_fit_together(prior, ratio):
    model = make(prior=prior).eval()
    pan, observed, known, _ = scene(1, 2, 384, 48, ratio)
    fixed = model.kernels(pan, observed, known, ratio)
    whole = model.fuse(pan, observed, known, ratio, kernels=fixed)
    reach = model.margin_at(ratio)
    for top, bottom in ((0, 128), (128, 256), (256, 384)):
        rows = slice(max(0, top - reach), min(384, bottom + reach))
        core = slice(top - rows.start, bottom - rows.start), slice(0, 48)
        part = model.fuse(
            pan[:, :, rows], observed.cut(rows, slice(0, 48)), known, ratio, kernels=fixed, core=core
        )  # fmt: skip
        torch.testing.assert_close(part, whole[:, :, top:bottom], rtol=1e-5, atol=2e-3)


def test_the_order_of_bands_does_not_matter():
    model = make(prior=False).eval()
    pan, observed, known, _ = scene(1, 4)
    order = torch.tensor([2, 0, 3, 1])
    own = known.cameras
    cameras = Cameras(own.gain, own.compensation, own.weights[:, order], own.offset, own.injection[:, order], own.r2)
    turned = Statistics(known.pan_mean, known.pan_std, known.ms_mean[:, order], known.ms_std[:, order], cameras)
    moved = Observed(observed.ms[:, order], None, observed.rows, observed.cols)
    fused = model.fuse(pan, observed, known, 4)
    torch.testing.assert_close(model.fuse(pan, moved, turned, 4), fused[:, order], rtol=1e-4, atol=1e-2)


def test_from_the_start_the_result_explains_both_images():
    model = make(prior=False).eval()
    pan, observed, known, truth = scene(1, 3, 128, 128)
    fused = model.fuse(pan, observed, known, 4)
    cameras = known.cameras
    mix = (cameras.weights[..., None, None] * fused).sum(1, keepdim=True) + cameras.offset.view(-1, 1, 1, 1)
    up = spread(observed.ms, observed, (128, 128))
    before = (cameras.weights[..., None, None] * up).sum(1, keepdim=True) + cameras.offset.view(-1, 1, 1, 1)
    inner = np.s_[..., 16:-16, 16:-16]
    assert (mix - pan)[inner].std() < 0.1 * (before - pan)[inner].std()
    seen, seen_up = see(fused, observed, cameras), see(up, observed, cameras)
    inner = np.s_[..., 4:-4, 4:-4]
    assert (seen - observed.ms)[inner].std() < 0.7 * (seen_up - observed.ms)[inner].std()
    assert (fused - truth).std() < (up - truth).std()


def test_a_network_that_observes_wants_the_cameras_and_any_number_of_bands():
    with pytest.raises(ModelError, match="any number of bands"):
        make(bands=4)
    pan, observed, known, _ = scene(1)
    blind = Statistics(known.pan_mean, known.pan_std, known.ms_mean, known.ms_std)
    with pytest.raises(ModelError, match="cameras"):
        make().eval().fuse(pan, observed, blind, 4)


def test_trains_on_patches_of_any_bands_and_sharpens(run, fails, tmp_path):
    sample = Path(__file__).parents[1] / "sample_data" / "ge1"
    result = run("prepare-data", sample, "-o", tmp_path / "patches", "-q")
    assert result.exit_code == 0, result.output
    runs = tmp_path / "runs"
    words = "train", "--data", tmp_path / "patches", "-o", runs, "--backbone", "unrolled", "-q", "--threads", 1
    result = run(*words, "--stage", "all", "--steps", "1", "--batch", "2")
    assert result.exit_code == 0, result.output
    model, header = load_model(runs / "stage2.safetensors")
    assert model.observes and header["config"]["bands"] is None
    given = sample / "pan.tif", sample / "ms.tif", "--checkpoint", runs / "stage2.safetensors"
    result = run("sharpen", *given, "-o", tmp_path / "o.tif", "-q")
    assert result.exit_code == 0, result.output
    line = fails(*words, "--stage", "1", "--steps", "2", "--batch", "2", "--accumulate", "2", "--overwrite")
    assert "--accumulate" in line and "smaller --batch" in line


def test_bfloat16_leaves_what_both_images_say_alone(monkeypatch):
    model = make(prior=False).eval()
    pan, observed, known, _ = scene(1, 3, 128, 128, k=0.5)
    exact = model.fuse(pan, observed, known, 4)
    # as on a GPU
    monkeypatch.setattr(model, "_rounding", lambda device: torch.autocast(device, torch.bfloat16))
    rounded = model.fuse(pan, observed, known, 4)
    assert rounded.dtype == torch.float32
    assert not torch.equal(rounded, exact)
    error = (rounded - exact).abs() / known.ms_std[..., None, None]
    assert error.max() < 0.003  # of a deviation
