"""LAGNet: residual blocks of LAGConv, whose kernels change from pixel to pixel (Jin et al., AAAI 2022)."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from .backbone import Backbone, start_small
from .config import ModelConfig
from .contract import Inputs
from .kernels import Latent, ModulatedConv2d, WholeImage, look

_WIDTH, _BLOCKS, _SIDE = 32, 5, 3  # as published


class Harmonic(WholeImage):
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
        if torch.is_grad_enabled():  # the shifted copies of x are made again on the way back instead of kept
            y = checkpoint(adaptive_conv2d, x, self.local(x), weight, use_reentrant=False, preserve_rng_state=False)
        else:
            y = adaptive_conv2d(x, self.local(x), weight)
        bias = self.shared.base.bias
        assert bias is not None
        bias = look(self.harmonic, z, x) + bias  # the last layer's own bias is the convolution's
        out: Tensor = y + bias[..., None, None]
        return out


def adaptive_conv2d(x: Tensor, local: Tensor, weight: Tensor) -> Tensor:
    """Convolve with a kernel a sample, scaled by factors a pixel.

    One batched matrix product a tap, so that memory grows by the features' size and not by k^2 times that, as
    unfolding them would.

    Args:
        x: (N, C_in, H, W).
        local: (N, k^2, H, W), the factors of a pixel's taps in row-major order.
        weight: (N or 1, C_out, C_in, k, k), k odd.

    Returns:
        (N, C_out, H, W), zero padded to the same size.
    """
    n, (_, outputs, _, side, _), (height, width) = len(x), weight.shape, x.shape[2:]
    weight = weight.expand(n, *weight.shape[1:])
    padded = F.pad(x, [side // 2] * 4)
    out = x.new_zeros(n, outputs, height * width)
    for tap in range(side * side):
        row, col = divmod(tap, side)
        scaled = padded[..., row : row + height, col : col + width] * local[:, tap : tap + 1]
        out.baddbmm_(weight[..., row, col], scaled.flatten(2))
    return out.view(n, outputs, height, width)


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
        nn.init.normal_(last.weight, std=0.01)

    def forward(self, inputs: Inputs, z: Latent) -> Tensor:
        """See :meth:`Backbone.forward`."""
        h = F.relu(self.first(torch.cat((inputs.P, inputs.ms), 1), z))
        for block in self.blocks:
            h = block(h, z)
        out: Tensor = self.last(h, z)
        return out
