"""LAGNet: residual blocks of LAGConv, whose kernels change from pixel to pixel (Jin et al., AAAI 2022)."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..config import ModelConfig
from ..contract import Inputs
from ..kernels import GlobalLayer, Latent, ModulatedConv2d, modulation
from ..layers import draw_normal
from .base import Backbone, start_small

_WIDTH, _BLOCKS, _SIDE = 32, 5, 3  # as published


class Harmonic(GlobalLayer):
    """The bias made from the features' global mean: linear, ReLU, linear."""

    def __init__(self, inputs: int, outputs: int) -> None:
        """Make both linear layers, named as in the sequence that they were once."""
        super().__init__()
        self.add_module("0", nn.Linear(inputs, _WIDTH))
        self.add_module("2", nn.Linear(_WIDTH, outputs, bias=False))

    def forward(self, z: Tensor | None, x: Tensor) -> Tensor:
        """(unused), (N, inputs, H, W) -> (N, outputs)."""
        first, last = self.children()
        out: Tensor = last(F.relu(first(x.mean((2, 3)))))
        return out


class LAGConv2d(nn.Module):
    """Local-context adaptive kernels with global harmonic bias.

    The kernel at a pixel is the shared kernel times k x k factors in 0..1, the same for all channels: the pixel's own
    k x k patch -> k^2 values, ReLU, two fully connected layers, sigmoid. The bias is made from the features' global
    mean by two fully connected layers, here with 32 features between them everywhere: as many as outputs would be a
    single ReLU, alive or dead, in a network of one band. The shared kernel is the one that z modulates.
    """

    def __init__(self, inputs: int, outputs: int, config: ModelConfig) -> None:
        """Make the shared kernel and what adapts it."""
        super().__init__()
        taps = _SIDE * _SIDE
        self.shared = ModulatedConv2d(inputs, outputs, _SIDE, config)
        self.local = nn.Sequential(
            nn.Conv2d(inputs, taps, _SIDE, padding=_SIDE // 2),
            nn.ReLU(),
            nn.Conv2d(taps, taps, 1),
            nn.ReLU(),
            nn.Conv2d(taps, taps, 1),
            nn.Sigmoid(),
        )
        self.harmonic = Harmonic(inputs, outputs)

    def forward(self, x: Tensor, z: Latent) -> Tensor:
        """(R, inputs, H, W), (R, S, C_z) -> (R, outputs, H, W)."""
        weight = self.shared.weight(x, z)
        y = adaptive_conv2d(x, self.local(x), weight)
        bias = self.shared.base.bias
        assert bias is not None
        bias = modulation(self.harmonic, z, x) + bias  # the last layer's own bias is the convolution's
        out: Tensor = y + bias[..., None, None]
        return out


def adaptive_conv2d(x: Tensor, local: Tensor, weight: Tensor) -> Tensor:
    """Convolve with a kernel a sample, scaled by factors a pixel.

    Args:
        x: (N, C_in, H, W).
        local: (N, k^2, H, W), the factors of a pixel's taps in row-major order.
        weight: (N or 1, C_out, C_in, k, k), k odd.

    Returns:
        (N, C_out, H, W), zero padded to the same size.
    """
    weight = weight.to(x.dtype).expand(len(x), *weight.shape[1:])
    out: Tensor = _Adaptive.apply(x, local.to(x.dtype), weight)  # type: ignore[no-untyped-call]
    return out


class _Adaptive(torch.autograd.Function):
    """The same with its gradients, one batched matrix product a tap; only the arguments are kept for the way back.

    Unfolding the features would take k^2 times their memory, torch's own gradients of shifted views more time.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, local: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, local, weight)
        n, outputs, (height, width) = len(x), weight.shape[1], x.shape[2:]
        padded, out = _pad(x, weight), x.new_zeros(n, outputs, height * width)
        for tap, row, col in _taps(weight):
            scaled = padded[..., row : row + height, col : col + width] * local[:, tap : tap + 1]
            out.baddbmm_(weight[..., row, col], scaled.flatten(2))
        return out.view(n, outputs, height, width)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x, local, weight = ctx.saved_tensors
        height, width = x.shape[2:]
        padded, gradient = _pad(x, weight), gradients[0].flatten(2)
        of_padded, of_local, of_weight = torch.zeros_like(padded), torch.empty_like(local), torch.empty_like(weight)
        for tap, row, col in _taps(weight):
            place = (..., slice(row, row + height), slice(col, col + width))
            shifted, factor = padded[place], local[:, tap : tap + 1]
            of_weight[..., row, col] = gradient @ (shifted * factor).flatten(2).mT
            of_scaled = (weight[..., row, col].mT @ gradient).view_as(shifted)
            of_local[:, tap] = (of_scaled * shifted).sum(1)
            of_padded[place].addcmul_(of_scaled, factor)
        half = weight.shape[-1] // 2
        return of_padded[..., half : half + height, half : half + width], of_local, of_weight


def _pad(x: Tensor, weight: Tensor) -> Tensor:
    return F.pad(x, [weight.shape[-1] // 2] * 4)


def _taps(weight: Tensor) -> list[tuple[int, int, int]]:
    """List (number, row, column) of a kernel's taps."""
    side = weight.shape[-1]
    return [(tap, *divmod(tap, side)) for tap in range(side * side)]


class LAGBlock(nn.Module):
    """Two LAGConv with a ReLU between them, and a skip."""

    def __init__(self, channels: int, config: ModelConfig) -> None:
        """Make a block of ``channels``."""
        super().__init__()
        self.first = LAGConv2d(channels, channels, config)
        self.second = LAGConv2d(channels, channels, config)

    def forward(self, x: Tensor, z: Latent) -> Tensor:
        """(R, channels, H, W) -> the same shape."""
        out: Tensor = x + self.second(F.relu(self.first(x, z)), z)
        return out


class LAGNet(Backbone):
    """LAGConv 3x3 to 32 with ReLU, five residual blocks of 32, LAGConv 3x3 to the bands, on PAN and MS together."""

    whole = "harmonic biases"
    margin = 16
    memory = 960

    def __init__(self, config: ModelConfig) -> None:
        """Make the layers."""
        super().__init__(config)
        self.first = LAGConv2d(1 + config.ms_inputs, _WIDTH, config)
        self.blocks = nn.ModuleList(LAGBlock(_WIDTH, config) for _ in range(_BLOCKS))
        self.last = LAGConv2d(_WIDTH, config.group, config)
        start_small(self.last.shared)
        _, last = self.last.harmonic.children()
        assert isinstance(last, nn.Linear)
        draw_normal(last.weight, 0.01)

    def forward(self, inputs: Inputs, z: Latent) -> Tensor:
        h = F.relu(self.first(torch.cat((inputs.P, inputs.ms), 1), z))
        for block in self.blocks:
            h = block(h, z)
        return inputs.wanted(self.last(h, z))
