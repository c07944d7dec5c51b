"""PanNeXt-U: a U-Net of ConvNeXt blocks that predicts the residual on the upsampled MS (paper sec. 3.1)."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..config import ModelConfig
from ..contract import Inputs
from ..kernels import Latent, ModulatedConv2d
from ..layers import LayerNorm2d, PatchStem, draw_normal
from .base import Backbone, stack

_THIN = 8  # channels of the path at full resolution


class Block(nn.Module):
    """ConvNeXt block (Liu et al. 2022); its large depthwise kernel is modulated by z."""

    def __init__(self, channels: int, config: ModelConfig) -> None:
        """Make a block of ``channels``."""
        super().__init__()
        self.depthwise = ModulatedConv2d(channels, channels, config.kernel, config, groups=channels)
        self.mlp = nn.Sequential(
            nn.LayerNorm(channels),
            nn.Linear(channels, config.expansion * channels),
            nn.GELU(),
            nn.Linear(config.expansion * channels, channels),
        )
        self.scale = nn.Parameter(torch.full((channels,), 0.1))

    def forward(self, x: Tensor, z: Latent) -> Tensor:
        """(N, channels, h, w) -> the same shape."""
        y = self.mlp(self.depthwise(x, z).permute(0, 2, 3, 1)) * self.scale
        out: Tensor = x + y.permute(0, 3, 1, 2)
        return out


class Refine(nn.Module):
    """The thin path at full resolution, modulated: how PAN and the bands differ in sharpness is the camera's doing."""

    def __init__(self, inputs: int, config: ModelConfig) -> None:
        """Make two 3x3 convolutions for ``inputs`` channels."""
        super().__init__()
        self.first = ModulatedConv2d(inputs, _THIN, 3, config, padding_mode="replicate")
        self.last = ModulatedConv2d(_THIN, config.group, 3, config, padding_mode="replicate")

    def forward(self, x: Tensor, z: Latent) -> Tensor:
        """(N, inputs, H, W), (N, S, C_z) -> (N, group, H, W)."""
        out: Tensor = self.last(F.gelu(self.first(x, z)), z)
        return out


def _refine(inputs: int, config: ModelConfig) -> "Refine | nn.Sequential":
    if config.modulate_output:
        return Refine(inputs, config)
    return nn.Sequential(
        nn.Conv2d(inputs, _THIN, 3, padding=1, padding_mode="replicate"),
        nn.GELU(),
        nn.Conv2d(_THIN, config.group, 3, padding=1, padding_mode="replicate"),
    )


class PanNeXtU(Backbone):
    """Blocks on cells of ``patch`` pixels and of twice that, a thin path at full resolution.

    The head predicts, for every PAN pixel, an injection gain for PAN's detail and a correction. It is modulated too:
    how much of PAN's detail belongs into a band is what a global prior knows best.
    """

    margin = 80  # 5 trained networks: 64 changed up to .5 DN of 11 bits, 80 up to .013

    def __init__(self, config: ModelConfig) -> None:
        """Make the network."""
        super().__init__(config)
        width, (down, bottom, up) = config.width, config.depths
        inputs, cell = 2 + config.ms_inputs, config.patch**2
        self.multiple = 2 * config.patch
        self.memory = round(4.75 * config.width) + 8 * config.group
        self.patch, self.group = config.patch, config.group
        self.stem = PatchStem(inputs, width, config.patch)
        self.encode = nn.ModuleList(Block(width, config) for _ in range(down))
        self.down = nn.Sequential(LayerNorm2d(width), nn.Conv2d(width, 2 * width, 2, stride=2))
        self.bottom = nn.ModuleList(Block(2 * width, config) for _ in range(bottom))
        self.up = nn.Conv2d(2 * width, 4 * width, 1)
        self.merge = nn.Conv2d(2 * width, width, 1)
        self.decode = nn.ModuleList(Block(width, config) for _ in range(up))
        self.norm = LayerNorm2d(width)
        self.head = ModulatedConv2d(width, 2 * config.group * cell, 1, config, constant=config.modulate_output)
        self.refine = _refine(inputs + config.group, config)
        self._start_plain()

    def _start_plain(self) -> None:
        """Start as a plain detail injection with gain 1/2: a network that starts near a solution learns the rest."""
        draw_normal(self.head.base.weight, 0.01)
        last = self.refine.last.base if isinstance(self.refine, Refine) else self.refine[2]
        assert isinstance(last, nn.Conv2d)
        draw_normal(last.weight, 0.001)
        with torch.no_grad():
            bias = self.head.base.bias
            assert bias is not None and last.bias is not None
            bias.zero_()
            start = self.head.base.weight[:, -1, 0, 0] if self.head.constant else bias
            start.zero_()
            start[: start.numel() // 2] = 0.5
            last.bias.zero_()

    def forward(self, inputs: Inputs, z: Latent) -> Tensor:
        # PAN's low-pass minus MS: where it is zero, PAN's detail is the band's detail
        x = stack(inputs.detail, inputs.P - inputs.detail - inputs.M[:, :1], inputs.ms)
        full = F.pixel_shuffle(self.head(self.norm(self._through(self.stem(x), z)), z), self.patch)
        residual = full[:, : self.group] * inputs.detail + full[:, self.group :]
        x = torch.cat((x, residual), 1)
        return inputs.wanted(residual + (self.refine(x, z) if isinstance(self.refine, Refine) else self.refine(x)))

    def _through(self, h: Tensor, z: Latent) -> Tensor:
        """Go down and up again: (R, width, h, w) from the stem -> the same shape."""
        for block in self.encode:
            h = block(h, z)
        deep = self.down(h)
        for block in self.bottom:
            deep = block(deep, z)
        h = self.merge(torch.cat((h, F.pixel_shuffle(self.up(deep), 2)), 1))
        for block in self.decode:
            h = block(h, z)
        return h
