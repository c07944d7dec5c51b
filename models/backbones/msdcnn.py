"""MSDCNN: a shallow and a deep multi-scale network side by side (Yuan et al., IEEE JSTARS 11(3), 2018)."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..config import ModelConfig
from ..contract import Inputs
from ..kernels import Latent, ModulatedConv2d
from .base import Backbone, stack, start_small


class MultiScaleBlock(nn.Module):
    """Kernels of 3x3, 5x5 and 7x7 side by side, a third of the channels each, and a skip around them."""

    def __init__(self, channels: int, config: ModelConfig) -> None:
        """Make a block of ``channels``, a multiple of three."""
        super().__init__()
        self.scales = nn.ModuleList(ModulatedConv2d(channels, channels // 3, side, config) for side in (3, 5, 7))

    def forward(self, x: Tensor, z: Latent) -> Tensor:
        """(R, channels, H, W) -> the same shape."""
        return x + F.relu(torch.cat([scale(x, z) for scale in self.scales], 1))


class MSDCNN(Backbone):
    """The sum of two branches on PAN and MS together, ReLU between layers.

    Shallow: 9x9 to 64, 1x1 to 32, 5x5 to the bands. Deep: 7x7 to 60, a block of 3 x 20, 3x3 to 30, a block of 3 x 10,
    5x5 to the bands. Published: the sum is the image; here it is the residual, so that it may be negative.
    """

    margin = 16
    memory = 980

    def __init__(self, config: ModelConfig) -> None:
        """Make both branches."""
        super().__init__(config)
        inputs = 1 + config.ms_inputs
        self.shallow_first = ModulatedConv2d(inputs, 64, 9, config)
        self.shallow_second = ModulatedConv2d(64, 32, 1, config)
        self.shallow_last = ModulatedConv2d(32, config.group, 5, config)
        self.deep_first = ModulatedConv2d(inputs, 60, 7, config)
        self.deep_wide = MultiScaleBlock(60, config)
        self.deep_middle = ModulatedConv2d(60, 30, 3, config)
        self.deep_narrow = MultiScaleBlock(30, config)
        self.deep_last = ModulatedConv2d(30, config.group, 5, config)
        start_small(self.shallow_last)
        start_small(self.deep_last)

    def forward(self, inputs: Inputs, z: Latent) -> Tensor:
        x = stack(inputs.P, inputs.ms)
        shallow = F.relu(self.shallow_second(F.relu(self.shallow_first(x, z)), z))
        deep = self.deep_wide(F.relu(self.deep_first(x, z)), z)
        deep = self.deep_narrow(F.relu(self.deep_middle(deep, z)), z)
        return inputs.wanted(self.shallow_last(shallow, z) + self.deep_last(deep, z))
