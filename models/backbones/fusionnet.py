"""FusionNet: residual blocks on PAN minus MS, band by band (Deng et al., IEEE TGRS 59(8), 2021)."""

from torch import Tensor, nn
from torch.nn import functional as F

from ..config import ModelConfig
from ..contract import Inputs
from ..kernels import Latent, ModulatedConv2d
from .base import Backbone, stack, start_small

_WIDTH, _BLOCKS = 32, 4  # as published


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with a ReLU between them, and a skip; a ReLU follows in the network."""

    def __init__(self, channels: int, config: ModelConfig) -> None:
        """Make a block of ``channels``."""
        super().__init__()
        self.first = ModulatedConv2d(channels, channels, 3, config)
        self.second = ModulatedConv2d(channels, channels, 3, config)

    def forward(self, x: Tensor, z: Latent) -> Tensor:
        """(R, channels, H, W) -> the same shape."""
        out: Tensor = F.relu(x + self.second(F.relu(self.first(x, z)), z))
        return out


class FusionNet(Backbone):
    """3x3 to 32 with ReLU, four residual blocks of 32, 3x3 to the bands.

    It sees nothing but PAN repeated minus MS: what the classical methods call the details, of all frequencies.
    """

    margin = 16
    memory = 440

    def __init__(self, config: ModelConfig) -> None:
        """Make the layers."""
        super().__init__(config)
        self.first = ModulatedConv2d(config.ms_inputs, _WIDTH, 3, config)
        self.blocks = nn.ModuleList(ResidualBlock(_WIDTH, config) for _ in range(_BLOCKS))
        self.last = ModulatedConv2d(_WIDTH, config.group, 3, config)
        start_small(self.last)

    def forward(self, inputs: Inputs, z: Latent) -> Tensor:
        h = F.relu(self.first(stack(inputs.P - inputs.ms), z))
        for block in self.blocks:
            h = block(h, z)
        return inputs.wanted(self.last(h, z))
