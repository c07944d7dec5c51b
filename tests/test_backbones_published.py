"""What is each published backbone's own: its size, its layers, what it refuses."""

import pytest
import torch
from network_maker import batch
from torch.nn import functional as F

from ksdiff_cli.models.backbones.base import sample_cells
from ksdiff_cli.models.backbones.ctinn import InstanceNorm, InvertibleMixing, TextureTransfer, _transfer
from ksdiff_cli.models.backbones.hfin import SpectrumFusion
from ksdiff_cli.models.backbones.lagnet import LAGConv2d, adaptive_conv2d
from ksdiff_cli.models.config import ModelConfig
from ksdiff_cli.models.contract import ModelError
from ksdiff_cli.models.kernels import Conditioning
from ksdiff_cli.models.ksdiff import KSDiff

pytestmark = pytest.mark.usefixtures("seed")

SMALL = {"encoder_width": 8, "latent": 16, "denoiser_width": 16, "denoiser_blocks": 1}


def make(backbone, **values):
    return KSDiff(ModelConfig(backbone=backbone, **{**SMALL, **values})).eval()


def hfin_idle(c):
    """What the published HFIN holds and nothing uses."""
    return 48 * c * c + 8 * c


@pytest.mark.parametrize(
    ("backbone", "bands", "features", "parameters"),
    [
        # kernels and biases of the layers that the docstrings name, added up by hand
        ("pnn", 8, None, 104_360),
        ("dicnn", 8, None, 46_792),
        ("msdcnn", 8, None, 228_556),
        ("fusionnet", 8, None, 78_632),
        ("lagnet", 8, None, 152_381),
        # the published networks', counted
        ("pannet", 8, None, 83_024),
        ("ctinn", 4, None, 62_904),
        ("ctinn", 8, None, 63_772),
        ("ctinn", 8, 32, 140_528),
        ("mmnet", 4, None, 53_822),
        ("mmnet", 8, None, 206_298),
        ("dcfnet", 8, None, 2_915_783),
        ("dcfnet", 4, None, 2_905_667),
        ("hfin", 4, None, 79_449 - hfin_idle(4)),
        ("hfin", 8, 4, 79_741 - hfin_idle(4)),
        ("hfin", 8, None, 191_698 - hfin_idle(8)),
        ("hfin", 8, 16, 595_084 - hfin_idle(16)),
    ],
)
def test_plain_networks_have_their_published_sizes(backbone, bands, features, parameters):
    model = make(backbone, prior=False, bands=bands, features=features)
    assert sum(p.numel() for p in model.parameters()) == parameters


@pytest.mark.parametrize("backbone", ["pannet", "mmnet"])
def test_a_backbone_of_one_ratio_refuses_others_in_one_line(backbone):
    model = make(backbone)
    model.check(4, 4)
    with pytest.raises(ModelError, match=f"{backbone} is made for ratio 4 alone, the data have 2"):
        model.check(4, 2)


@pytest.mark.parametrize(
    ("backbone", "says"),
    [
        ("pannet", ""),
        ("ctinn", "instance norm, channel attention: the scene's, by its anchors"),
        ("mmnet", "non-local attention: of pieces of 96 px, blended"),
        ("hfin", "Fourier transforms, channel attention: of pieces of 96 px, blended"),
    ],
)
def test_networks_say_what_sees_an_image_as_a_whole(backbone, says):
    assert make(backbone, tile=96).whole == says


def test_cells_are_sampled_at_their_centres():
    """A plane is where it was, at the centres of the cells."""
    rows, cols = torch.meshgrid(torch.arange(8.0), torch.arange(12.0), indexing="ij")
    for side in (1, 2, 4):
        centre = (side - 1) / 2
        expected = (rows[::side, ::side] + centre) + 10 * (cols[::side, ::side] + centre)
        torch.testing.assert_close(sample_cells((rows + 10 * cols)[None, None], side)[0, 0], expected)


@pytest.mark.parametrize("size", [(64, 64), (72, 40), (136, 104)], ids=str)
def test_pieces_cover_an_image_and_their_weights_add_up_to_one(size, monkeypatch):
    model, seen = make("hfin", prior=False, bands=4), []

    def piece(inputs, z):
        seen.append(tuple(inputs.P.shape[2:]))
        return 2 * inputs.M

    monkeypatch.setattr(model.network, "piece", piece)
    pan, ms_up, statistics = batch(2, 4, *size)
    inputs = model.prepare(pan, ms_up, statistics, 4)
    torch.testing.assert_close(model.network(inputs, None), 2 * inputs.M)
    assert set(seen) == {tuple(min(64, side) for side in size)}


def test_texture_comes_from_where_it_is_most_alike():
    """CTINN's hard attention against loops over all pairs of neighbourhoods."""
    ms, pan = torch.randn(1, 2, 24, 24), torch.randn(1, 2, 24, 24)
    texture, similarity = _transfer(ms, pan)

    def around(image, row, col):
        return F.pad(image, (1, 1, 1, 1))[0, :, row : row + 3, col : col + 3]

    places = [(row, col) for row in range(24) for col in range(24)]
    keys = torch.stack([around(pan, *place).flatten() for place in places])

    def find(row, col):
        alike = F.cosine_similarity(keys, around(ms, row, col).flatten()[None])
        return alike.max(), places[int(alike.argmax())]

    torch.testing.assert_close(similarity[0, 0, 7, 9], find(7, 9)[0])
    # a pixel is in nine neighbourhoods, each of which brings what lies there in the one that it found
    steps = [(down, right) for down in (-1, 0, 1) for right in (-1, 0, 1)]
    parts = [around(pan, *find(7 - down, 9 - right)[1])[:, 1 + down, 1 + right] for down, right in steps]
    torch.testing.assert_close(texture[0, :, 7, 9], sum(parts) / 9)


@pytest.mark.parametrize("seamless", [False, True])
def test_overlapping_windows_are_added_up_as_published_or_averaged(seamless):
    transfer = TextureTransfer(2, ModelConfig(prior=False, seamless=seamless))
    for parameter in transfer.second.parameters():
        torch.nn.init.zeros_(parameter)  # what is left is MS itself
    ms = torch.rand(1, 2, 48, 40) + 0.5
    times = transfer(ms, torch.randn(1, 2, 48, 40)) / ms
    for part, windows in ((times[..., 16:24, 16:24], 9), (times[..., :8, :8], 4)):
        torch.testing.assert_close(part, torch.full_like(part, 1 if seamless else windows))


def test_instance_norm_standardises_an_image_or_takes_what_is_fixed():
    norm, x = InstanceNorm(3), 5 + 2 * torch.randn(2, 3, 16, 16)
    torch.testing.assert_close(norm(x, None), F.instance_norm(x, eps=1e-5), rtol=1e-3, atol=1e-4)
    fixed = Conditioning(made={norm.statistics: norm.statistics(None, x[:1])})
    torch.testing.assert_close(norm(x[:1, :, 4:9], fixed), norm(x[:1], None)[:, :, 4:9], rtol=1e-4, atol=1e-5)


def test_mixing_starts_as_a_rotation_and_its_fixed_parts_are_saved():
    mixing, x = InvertibleMixing(6), torch.randn(1, 6, 5, 5)
    torch.testing.assert_close(mixing(x).square().sum(1), x.square().sum(1))
    other = InvertibleMixing(6)
    other.load_state_dict(mixing.state_dict())
    assert torch.equal(other(x), mixing(x))


def test_spectra_that_pass_unchanged_give_the_image_back():
    """HFIN's transforms with fusers that let MS's amplitude and phase through; the result has no sign."""
    fusion, image = SpectrumFusion(2, 1, 1), torch.randn(1, 1, 15, 12)
    for fuser in (fusion.amplitude, fusion.phase):
        first, activate, second = fuser
        activate.negative_slope = 1.0
        with torch.no_grad():
            for layer, weight in ((first, [1.0, 0.0]), (second, [1.0])):
                layer.weight.copy_(torch.tensor(weight).view_as(layer.weight))
                layer.bias.zero_()
    torch.testing.assert_close(fusion(image, torch.randn(1, 1, 15, 12)), image.abs(), rtol=1e-3, atol=1e-4)


def test_dcfnet_without_pieces_depends_little_on_the_cut():
    """Interpolated by pixel centres."""
    model = make("dcfnet", prior=False, bands=4, seamless=True)
    margin = model.margin
    assert (model.grid, model.network.tile, model.whole) == (16, None, "")
    pan, ms_up, statistics = batch(1, 4, 2 * margin, 16)
    whole = model.fuse(pan, ms_up, statistics, 4, kernels=[])
    part = model.fuse(pan[:, :, : 16 + margin], ms_up[:, :, : 16 + margin], statistics, 4, kernels=[])
    torch.testing.assert_close(part[:, :, :16], whole[:, :, :16], rtol=0, atol=0.02)


def test_mmnets_stages_share_their_weights_and_kernels():
    model, calls = make("mmnet", bands=4), []
    model.network.stage.U.enter.generator.register_forward_hook(lambda *_: calls.append(1))
    pan, ms_up, statistics = batch(1, 4, 16, 16)
    model.fuse(pan, ms_up, statistics, 4)
    assert len(calls) == 1


def test_adaptive_convolution_equals_kernels_made_pixel_by_pixel():
    x, local, weight = torch.randn(2, 3, 5, 6), torch.rand(2, 9, 5, 6), torch.randn(2, 4, 3, 3, 3)
    out = adaptive_conv2d(x, local, weight)
    padded = F.pad(x, (1, 1, 1, 1))
    for image, row, col in ((0, 0, 0), (1, 2, 3), (1, 4, 5)):
        kernel = weight[image] * local[image, :, row, col].view(3, 3)
        by_hand = (kernel * padded[image, :, row : row + 3, col : col + 3]).sum((1, 2, 3))
        torch.testing.assert_close(out[image, :, row, col], by_hand, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kernels", [1, 2])
def test_gradients_of_the_adaptive_convolution(kernels):
    """One kernel for all samples, or one each."""
    shapes = (2, 3, 5, 6), (2, 9, 5, 6), (kernels, 4, 3, 3, 3)
    arguments = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]
    assert torch.autograd.gradcheck(adaptive_conv2d, arguments)


def test_lagconv_with_factors_of_one_is_a_convolution_with_a_bias():
    conv = LAGConv2d(3, 4, ModelConfig(prior=False))
    x = torch.randn(2, 3, 5, 6)
    plain = F.conv2d(x, conv.shared.base.weight, padding=1)
    torch.testing.assert_close(
        adaptive_conv2d(x, torch.ones(2, 9, 5, 6), conv.shared.weight(x, None)), plain, rtol=1e-4, atol=1e-5
    )
