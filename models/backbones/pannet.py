"""PanNet: what is trained on and predicted is high-pass (Yang et al., ICCV 2017)."""

from torch import Tensor, nn
from torch.nn import functional as F

from ..config import ModelConfig
from ..contract import Inputs
from ..kernels import Latent, ModulatedConv2d
from .base import Backbone, sample_cells, stack, start_small

_WIDTH, _BLOCKS, _RATIO, _BOX = 32, 4, 4, 5  # as published


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with a ReLU between them, and a skip."""

    def __init__(self, channels: int, config: ModelConfig) -> None:
        """Make a block of ``channels``."""
        super().__init__()
        self.first = ModulatedConv2d(channels, channels, 3, config)
        self.second = ModulatedConv2d(channels, channels, 3, config)

    def forward(self, x: Tensor, z: Latent) -> Tensor:
        """(R, channels, H, W) -> the same shape."""
        out: Tensor = x + self.second(F.relu(self.first(x, z)), z)
        return out


class PanNet(Backbone):
    """High-pass MS upsampled by a transposed convolution, high-pass PAN beside it, 3x3 to 32, four residual blocks.

    High-pass is an image minus its mean over 5x5 pixels, of MS at its own size.
    """

    multiple = ratio = _RATIO
    margin = 32
    memory = 460

    def __init__(self, config: ModelConfig) -> None:
        """Make the layers."""
        super().__init__(config)
        bands = config.ms_inputs
        self.up = nn.ConvTranspose2d(bands, bands, 2 * _RATIO, _RATIO, _RATIO // 2)
        self.first = ModulatedConv2d(1 + bands, _WIDTH, 3, config)
        self.blocks = nn.ModuleList(ResidualBlock(_WIDTH, config) for _ in range(_BLOCKS))
        self.last = ModulatedConv2d(_WIDTH, config.group, 3, config)
        start_small(self.last)

    def forward(self, inputs: Inputs, z: Latent) -> Tensor:
        ms = self.up(high_pass(sample_cells(inputs.ms, _RATIO)))
        h = F.relu(self.first(stack(ms, high_pass(inputs.P)), z))
        for block in self.blocks:
            h = block(h, z)
        return inputs.wanted(self.last(h, z))


def high_pass(x: Tensor) -> Tensor:
    """Subtract the mean over 5x5 pixels, (N, C, H, W) -> the same shape; borders are replicated."""
    around = F.pad(x, (_BOX // 2,) * 4, mode="replicate")
    return x - F.avg_pool2d(around, _BOX, 1)
