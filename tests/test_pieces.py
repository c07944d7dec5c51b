"""What a CPU computes piece by piece when it sharpens: the same as all at once, whatever the piece and the threads."""

import threading

import pytest
import torch
from torch.nn import functional as F

from ksdiff_cli.models.backbones import BACKBONES
from ksdiff_cli.models.backbones.shared import _area_mean
from ksdiff_cli.models.config import ModelConfig
from ksdiff_cli.models.contract import Statistics
from ksdiff_cli.models.ksdiff import KSDiff
from ksdiff_cli.models.layers import conv_in_rows, products_in_bfloat16, rounded, to_cells
from ksdiff_cli.models.pieces import Part, Sides, side_by_side

SMALL = {"width": 16, "depths": (1, 1, 1), "encoder_width": 8, "latent": 16, "denoiser_width": 16, "denoiser_blocks": 1}


@pytest.fixture(autouse=True)
def _same_every_time():
    torch.manual_seed(0)
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def make(backbone="shared", **values):
    """A network whose every layer counts, and what fuses an image by fixed kernels."""
    model = KSDiff(ModelConfig(backbone=backbone, **{**SMALL, "band_width": 16, **values})).eval()
    with torch.no_grad():
        for weight in model.network.parameters():
            weight.add_(torch.randn_like(weight) * 0.05)
    pan, ms_up = 300 + 100 * torch.rand(1, 1, 100, 132), 200 + 50 * torch.rand(1, 3, 100, 132)
    known = Statistics(*(torch.full((1, n), v) for n, v in ((1, 350.0), (1, 29.0), (3, 225.0), (3, 15.0))))
    kernels = model.kernels(pan[..., :32, :32], ms_up[..., :32, :32], known, 4)
    return model, lambda **more: model.fuse(pan, ms_up, known, 4, kernels=kernels, **more)


@torch.no_grad()
@pytest.mark.parametrize("gelu", [True, False], ids=["gelu", "none"])
@pytest.mark.parametrize("outputs", [1, 3, 8, 20])
@pytest.mark.parametrize("size", [(5, 32), (7, 6), (4, 13)], ids=str)
def test_convolutions_in_rows_are_convolutions(size, outputs, gelu):
    x, weight, bias = torch.randn(1, size[0] + 2, size[1] + 2, 5), torch.randn(outputs, 5, 3, 3), torch.randn(outputs)
    plain = F.conv2d(x.permute(0, 3, 1, 2), weight, bias)
    plain = F.gelu(plain) if gelu else plain
    made = conv_in_rows(x, weight, bias, gelu=gelu)
    assert made.shape == (1, *size, outputs)
    torch.testing.assert_close(made.permute(0, 3, 1, 2), plain, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("size", [(8, 12), (4, 4)], ids=str)
def test_what_is_faster_without_gradients_is_the_same_with_them(size):
    image = torch.randn(2, 3, *size)
    cells, means = to_cells(image, 4), _area_mean(image)
    with torch.no_grad():
        assert torch.equal(to_cells(image, 4), cells)
        torch.testing.assert_close(_area_mean(image), means)


def test_parts_of_an_image():
    part = Part(4, 0, 9, 8)
    assert part.cells(4) == Part(1, 0, 3, 2)
    assert part.cells(4).pixels(4) == Part(4, 0, 12, 8)
    assert part.grown(3, (10, 20)) == Part(1, 0, 10, 11)
    assert part.missing(3, (10, 20)) == Sides(top=0, bottom=2, left=3, right=0)
    assert part.within(Part(2, -1, 20, 20)) == Part(2, 1, 7, 9)
    assert list(part.strips(3)) == [Part(4, 0, 7, 8), Part(7, 0, 9, 8)]
    image = torch.rand(1, 2, 10, 20)
    assert torch.equal(part.of(image), image[..., 4:9, 0:8])
    # with what is missing replicated, a part is as large as if the image went on
    joined = part.missing(3, (10, 20)).join([part.grown(3, (10, 20)).of(image)]).permute(0, 3, 1, 2)
    assert torch.equal(joined, F.pad(image, (3, 3, 3, 3), mode="replicate")[..., 4:15, 0:14])


@pytest.mark.parametrize("threads, count, workers", [(1, 3, 1), (2, 3, 2), (4, 2, 2), (2, 1, 1), (8, 5, 4)])
def test_pieces_are_worked_on_side_by_side_as_their_caller_would(threads, count, workers):
    torch.set_num_threads(threads)
    told, places = {}, {}

    def work(number):
        told[number] = torch.get_num_threads(), torch.is_grad_enabled(), rounded(torch.ones(1))[0].dtype
        places[number] = threading.current_thread()

    with torch.no_grad(), products_in_bfloat16():
        side_by_side(work, count)
    assert sorted(told) == list(range(count))
    for number, (own, gradients, dtype) in told.items():
        at_once = workers > 1 and number < count - count % workers
        assert (own, gradients, dtype) == (threads // workers if at_once else threads, False, torch.bfloat16)
        assert (places[number] is not threading.main_thread()) is at_once
    assert torch.get_num_threads() == threads
    assert rounded(torch.ones(1))[0].dtype == torch.float32


def test_a_piece_that_fails_is_told_and_threads_are_as_before():
    torch.set_num_threads(2)
    with pytest.raises(ZeroDivisionError), torch.no_grad():
        side_by_side(lambda number: 1 // (1 - number), 2)
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize("backbone", sorted(BACKBONES))
@pytest.mark.parametrize("core", [(32, 68, 48, 81), (0, 50, 80, 132), (97, 100, 3, 4)], ids=str)
def test_a_core_is_what_the_whole_image_has_there(backbone, core):
    _, fuse = make(backbone, bands=3)
    rows, cols = slice(*core[:2]), slice(*core[2:])
    torch.testing.assert_close(fuse(core=(rows, cols)), fuse()[..., rows, cols], rtol=0, atol=2e-3)


def test_a_core_takes_less_than_the_whole_image():
    model, fuse = make()
    seen = []
    for layer in (model.network.head, model.network.blocks[0]):
        layer.register_forward_hook(lambda layer, given, made: seen.append(made.shape[-2] * made.shape[-1]))
    fuse()
    whole, seen[:] = sum(seen), []
    fuse(core=(slice(32, 48), slice(48, 64)))
    assert sum(seen) < 0.6 * whole


@pytest.mark.parametrize("lossy", [False, True], ids=["float32", "rounded"])
@pytest.mark.parametrize("bands", [None, 3], ids=["shared", "fixed"])
def test_threads_change_no_bit(lossy, bands):
    model, fuse = make(bands=bands)
    model.lossy = lossy
    made = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        made.append(fuse(core=(slice(16, 100), slice(0, 90))))
    assert all(torch.equal(each, made[0]) for each in made[1:])


@pytest.mark.parametrize("backbone", sorted(BACKBONES))
def test_rounded_products_change_little_and_only_where_they_save_time(backbone):
    model, fuse = make(backbone, bands=None if backbone == "shared" else 3)
    exact = fuse()
    model.lossy = True
    rough = fuse()
    assert (not torch.equal(rough, exact)) == ("cpu" in model.lossy_devices) == model.network.products
    upsampled = 15.0  # standard deviation of MS, DN
    assert (rough - exact).square().mean().sqrt() < 0.02 * upsampled
    assert rough.dtype == torch.float32
