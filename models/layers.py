"""Small layers that several parts share."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class LayerNorm2d(nn.Module):
    """Layer norm over the channels of (N, C, H, W)."""

    def __init__(self, channels: int) -> None:
        """Make scale and shift for ``channels``."""
        super().__init__()
        self.norm = nn.LayerNorm(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise every pixel over its channels."""
        out: Tensor = self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return out


class PatchStem(nn.Module):
    """ConvNeXt's patchifying stem without loss: pixel-unshuffle, then a 3x3 convolution, so that cells overlap."""

    def __init__(self, inputs: int, outputs: int, patch: int, norm: bool = True) -> None:
        """Take ``inputs`` full-resolution channels to ``outputs`` channels at 1/patch resolution."""
        super().__init__()
        self.patch = patch
        self.conv = nn.Conv2d(inputs * patch * patch, outputs, 3, padding=1, padding_mode="replicate")
        self.norm = LayerNorm2d(outputs) if norm else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) -> (N, outputs, H/patch, W/patch)."""
        out: Tensor = self.norm(self.conv(to_cells(x, self.patch)))
        return out


def to_cells(x: Tensor, patch: int) -> Tensor:
    """Turn the pixels of a cell into channels, (N, C, H, W) -> (N, C * patch^2, H / patch, W / patch).

    Channels are last where a CPU sharpens: a cell's channels lie side by side for what works on cells.
    """
    if not by_pieces(x):
        return F.pixel_unshuffle(x, patch)
    n, channels, height, width = x.shape
    cells = x.new_empty(n, height // patch, width // patch, channels, patch, patch)
    for row in range(patch):  # two to three times as fast as all at once
        cells[..., row, :] = x[:, :, row::patch].reshape(n, channels, -1, width // patch, patch).permute(0, 2, 3, 1, 4)
    return cells.flatten(3).permute(0, 3, 1, 2)


def by_pieces(x: Tensor) -> bool:
    """Whether work is done piece by piece: on a CPU, without gradients, so that it stays in the cache."""
    return x.device.type == "cpu" and not torch.is_grad_enabled()


_ROUNDED = ContextVar("rounded", default=False)


@contextmanager
def products_in_bfloat16() -> Iterator[None]:
    """Let the products that take most of the time run in bfloat16 on a CPU.

    torch.autocast would round what is added up along the network too, and the layers around PAN's detail and MS: five
    to ten times the error, for little time.
    """
    before = _ROUNDED.set(True)
    try:
        yield
    finally:
        _ROUNDED.reset(before)


def rounded(*factors: Tensor) -> tuple[Tensor, ...]:
    """Return a product's factors as bfloat16 where that is wanted, see :func:`products_in_bfloat16`, else as given."""
    return tuple(factor.bfloat16() for factor in factors) if _ROUNDED.get() else factors


def pointwise(x: Tensor, weight: Tensor, bias: Tensor | None, *, gelu: bool = False) -> Tensor:
    """Apply one linear layer at every position, and GELU to what comes out.

    Without gradients on a CPU, oneDNN does both at once. MKL, which torch takes for it otherwise, runs at half the
    speed on CPUs that are not Intel's.

    Args:
        x: (..., C_in).
        weight: (C_out, C_in).
        bias: (C_out,) or None.
        gelu: whether GELU follows.

    Returns:
        (..., C_out).
    """
    if _ONEDNN and by_pieces(x):
        # anything but contiguous takes a path a hundred times slower
        kind = _GELU if gelu else _NOTHING
        out: Tensor = _OPERATORS._linear_pointwise(x.contiguous(), weight.contiguous(), bias, *kind)
        return out
    out = F.linear(x, weight, bias)
    return F.gelu(out) if gelu else out


def conv_in_rows(x: Tensor, weight: Tensor, bias: Tensor, *, gelu: bool = False) -> Tensor:
    """Convolve to few channels, without gradients on a CPU, and apply GELU to what comes out.

    oneDNN computes 16 output channels at once: of fewer, part of every register idles. Here some pixels of a row are
    the channels of one, by shifted copies of the kernel with zeros beside them, which change no bit of the sums.

    Args:
        x: (1, H + k - 1, W + k - 1, C_in), already padded.
        weight: (C_out, C_in, k, k).
        bias: (C_out,).
        gelu: whether GELU follows.

    Returns:
        (1, H, W, C_out).
    """
    outputs, _, side, _ = weight.shape
    height, width = x.shape[1] - side + 1, x.shape[2] - side + 1
    pixels = math.gcd(width, max(1, _LANES // outputs))
    # each copy of a row that is one number too long begins one number later than the last
    wide = F.pad(weight, (0, pixels))[..., None, :].expand(-1, -1, -1, pixels, -1)
    reach = pixels + side - 1
    shifted = wide.flatten(-2)[..., : pixels * reach].reshape(*wide.shape[:3], pixels, reach)
    kernel, bias, x = shifted.permute(3, 0, 1, 2, 4).flatten(0, 1), bias.repeat(pixels), x.permute(0, 3, 1, 2)
    if _ONEDNN and gelu:
        out: Tensor = _OPERATORS._convolution_pointwise(x, kernel, bias, [0, 0], [1, pixels], [1, 1], 1, *_GELU)
    else:
        out = F.conv2d(x, kernel, bias, stride=(1, pixels))
        out = F.gelu(out) if gelu else out
    return out.permute(0, 2, 3, 1).reshape(len(x), height, width, outputs)


def _has_onednn() -> bool:
    """Whether this torch has the operators that torch.compile uses for these layers; they are not part of its API."""
    one = torch.ones(1, 1)
    try:
        with torch.no_grad():
            _OPERATORS._linear_pointwise(one, one, None, *_GELU)
            one = one[..., None, None]
            _OPERATORS._convolution_pointwise(one, one, None, [0, 0], [1, 1], [1, 1], 1, *_GELU)
    except (AttributeError, RuntimeError):
        return False
    return True


_OPERATORS = torch.ops.mkldnn
_GELU: tuple[str, list[float], str] = ("gelu", [], "none")
_NOTHING: tuple[str, list[float], str] = ("none", [], "")
_LANES = 16  # float32 numbers in a register of AVX-512
_ONEDNN = _has_onednn()


def low_pass(pan: Tensor, ratio: int, gain: float = 0.3) -> Tensor:
    """See PAN as the MS camera does, on the PAN grid: a Gaussian with the MTF ``gain`` at the MS Nyquist frequency.

    Args:
        pan: (N, C, H, W).
        ratio: PAN pixels per MS pixel along a side.
        gain: MTF at the MS Nyquist frequency; the network learns to live with other sensors' gains.

    Returns:
        (N, C, H, W), borders replicated.
    """
    sigma = ratio / math.pi * math.sqrt(-2 * math.log(gain))
    reach = math.ceil(3 * sigma)
    taps = torch.arange(-reach, reach + 1, device=pan.device, dtype=pan.dtype)
    weights = torch.exp(-(taps**2) / (2 * sigma**2))
    weights = weights / weights.sum()
    x = F.pad(pan, (reach, reach, reach, reach), mode="replicate")
    if by_pieces(x):  # several times faster than convolutions of one channel
        return sum_shifted(sum_shifted(x, weights, 2), weights, 3)
    weights = weights.expand(pan.shape[1], 1, -1)
    x = F.conv2d(x, weights[:, :, None, :], groups=pan.shape[1])
    return F.conv2d(x, weights[:, :, :, None], groups=pan.shape[1])


def sum_shifted(x: Tensor, weights: Tensor, axis: int) -> Tensor:
    """Filter along one axis by adding up shifted copies; the result is as much shorter as the filter reaches."""
    size = x.shape[axis] - len(weights) + 1
    out = x.narrow(axis, 0, size) * weights[0]
    for shift, weight in enumerate(weights.tolist()[1:], start=1):
        out.add_(x.narrow(axis, shift, size), alpha=weight)
    return out
