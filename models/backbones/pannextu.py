"""PanNeXt-U: a U-Net of ConvNeXt blocks that predicts the residual on the upsampled MS (paper sec. 3.1)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..config import ModelConfig
from ..contract import Inputs
from ..kernels import Latent, ModulatedConv2d, is_fixed
from ..layers import LayerNorm2d, PatchStem, by_pieces, conv_in_rows, pointwise, rounded
from ..pieces import Sides
from .base import CELL_ROWS, Backbone, everywhere, join, pixels_of, stack, strips_of

_THIN = 8  # channels of the path at full resolution
REFINE_REACH = 2
"""Pixels around a part that :class:`Refine` must see."""
_CELLS = 4096  # of the pieces that a CPU works on: cells at 1/4 resolution


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
        y = self.depthwise(x, z).permute(0, 2, 3, 1)
        if not by_pieces(x):
            y = self.mlp(y) * self.scale
            out: Tensor = x + y.permute(0, 3, 1, 2)
            return out
        norm, wide, _, narrow = self.mlp
        assert isinstance(wide, nn.Linear) and isinstance(narrow, nn.Linear)
        W, b = rounded(wide.weight, wide.bias)
        V, c = rounded(narrow.weight * self.scale[:, None], narrow.bias * self.scale)
        y = y.contiguous()
        cells, skipped = (image.reshape(-1, image.shape[-1]) for image in (y, x.permute(0, 2, 3, 1)))
        for piece, skip in zip(cells.split(_CELLS), skipped.split(_CELLS), strict=True):
            (h,) = rounded(norm(piece))
            torch.add(skip, pointwise(pointwise(h, W, b, gelu=True), V, c), out=piece)
        out = y.permute(0, 3, 1, 2)
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

    def strip(self, planes: Sequence[Tensor], z: Latent, missing: Sides) -> Tensor:
        """Do the same without gradients on a CPU, for a part of one image.

        Args:
            planes: (1, channels, h, w) each, all channels together; they reach :data:`REFINE_REACH` pixels further than
                what is wanted, as far as the image goes.
            z: its kernels must be fixed, unless the planes are the image as a whole.
            missing: pixels that they reach less on each side, because the image ends there.

        Returns:
            (1, group, h', w').
        """
        x = missing.join(planes)
        W, b = self.first.kernel(missing.inside(x), z)
        h = conv_in_rows(x, W, b, gelu=True)
        # beyond the image the hidden channels are replicated too
        edge = Sides(*(size // 2 for size in missing))
        edge.replicate(h)
        W, b = self.last.kernel(edge.inside(h), z)
        return conv_in_rows(h, W, b).permute(0, 3, 1, 2)


def _refine(inputs: int, config: ModelConfig) -> "Refine | nn.Sequential":
    if config.modulate_output:
        return Refine(inputs, config)
    return nn.Sequential(
        nn.Conv2d(inputs, _THIN, 3, padding=1, padding_mode="replicate"),
        nn.GELU(),
        nn.Conv2d(_THIN, config.group, 3, padding=1, padding_mode="replicate"),
    )


class CellUNet(Backbone):
    """A U-Net of blocks on cells of ``patch`` pixels and of twice that, the greater part of two networks."""

    def __init__(self, config: ModelConfig, inputs: int, blocks: ModelConfig) -> None:
        """Make its layers.

        Args:
            config: of the whole network.
            inputs: channels that it sees.
            blocks: of its blocks, which need not be modulated where the rest is.
        """
        super().__init__(config)
        width, (down, bottom, up) = config.width, config.depths
        self.multiple = 2 * config.patch
        self.patch, self.group = config.patch, config.group
        self.stem = PatchStem(inputs, width, config.patch)
        self.encode = nn.ModuleList(Block(width, blocks) for _ in range(down))
        self.down = nn.Sequential(LayerNorm2d(width), nn.Conv2d(width, 2 * width, 2, stride=2))
        self.bottom = nn.ModuleList(Block(2 * width, blocks) for _ in range(bottom))
        self.up = nn.Conv2d(2 * width, 4 * width, 1)
        self.merge = nn.Conv2d(2 * width, width, 1)
        self.decode = nn.ModuleList(Block(width, blocks) for _ in range(up))
        self.norm = LayerNorm2d(width)

    def _through(self, h: Tensor, z: Latent) -> Tensor:
        """Go down and up again: (R, width, h, w) from the stem -> the same shape."""
        for block in self.encode:
            h = block(h, z)
        deep = self.down(h)
        for block in self.bottom:
            deep = block(deep, z)
        deep = F.pixel_shuffle(everywhere(self.up, deep), 2)
        h = everywhere(self.merge, torch.cat((h, deep), 1))
        for block in self.decode:
            h = block(h, z)
        return h


class PanNeXtU(CellUNet):
    """Blocks at 1/4 and 1/8 of the PAN resolution, a thin path at full resolution.

    The head predicts, for every PAN pixel, an injection gain for PAN's detail and a correction. It is modulated too:
    how much of PAN's detail belongs into a band is what a global prior knows best.
    """

    products = True
    margin = 80  # 5 trained networks: 64 changed up to .5 DN of 11 bits, 80 up to .013

    def __init__(self, config: ModelConfig) -> None:
        """Make the network."""
        inputs = 2 + config.ms_inputs
        super().__init__(config, inputs, config)
        self.memory = round(2.5 * config.width)
        cell = config.patch * config.patch
        self.head = ModulatedConv2d(config.width, 2 * config.group * cell, 1, config, constant=config.modulate_output)
        self.refine = _refine(inputs + config.group, config)
        self._start_plain()

    def _start_plain(self) -> None:
        """Start as a plain detail injection with gain 1/2: a network that starts near a solution learns the rest."""
        nn.init.normal_(self.head.base.weight, std=0.01)
        last = self.refine.last.base if isinstance(self.refine, Refine) else self.refine[2]
        assert isinstance(last, nn.Conv2d)
        nn.init.normal_(last.weight, std=0.001)
        with torch.no_grad():
            bias = self.head.base.bias
            assert bias is not None and last.bias is not None
            bias.zero_()
            start = self.head.base.weight[:, -1, 0, 0] if self.head.constant else bias
            start.zero_()
            start[: start.numel() // 2] = 0.5
            last.bias.zero_()

    def forward(self, inputs: Inputs, z: Latent) -> Tensor:
        """See :meth:`Backbone.forward`."""
        # what looks at the image as a whole must see all of it
        rows = inputs.P.shape[2] // self.patch
        strips = strips_of(rows, CELL_ROWS if is_fixed(z) and by_pieces(inputs.P) else rows)
        h = join([self.stem(self._features(inputs.strip(pixels_of(s.read, self.patch))))[:, :, s.keep] for s in strips])
        h = self._through(h, z)
        finished = [self._finish(inputs.strip(pixels_of(s.read, self.patch)), h[:, :, s.read], z) for s in strips]
        whole = join([out[:, :, pixels_of(s.keep, self.patch)] for out, s in zip(finished, strips, strict=True)])
        return inputs.wanted(whole)

    def _features(self, inputs: Inputs) -> Tensor:
        """Put together what the network sees, (R, 2 + ms_inputs, H, W)."""
        # PAN's low-pass minus MS: where it is zero, PAN's detail is the band's detail
        return stack(inputs.detail, inputs.P - inputs.detail - inputs.M[:, :1], inputs.ms)

    def _finish(self, inputs: Inputs, h: Tensor, z: Latent) -> Tensor:
        """Inject PAN's detail and refine: (R, width, H / patch, W / patch) -> residual (R, group, H, W)."""
        full = F.pixel_shuffle(self.head(self.norm(h), z), self.patch)
        residual = full[:, : self.group] * inputs.detail + full[:, self.group :]
        full = torch.cat((self._features(inputs), residual), 1)
        out: Tensor = residual + (self.refine(full, z) if isinstance(self.refine, Refine) else self.refine(full))
        return out
