"""PanNeXt-U for any number of bands at the price of little more than one: a trunk once an image, a light branch a band.

What all bands of an image share, PAN and the bands' mean, goes through the U-Net once; a branch of a tenth of its work
then runs once per band, and nothing but the injection itself at full resolution.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .backbone import Backbone, by_pieces, everywhere
from .backbone_pannextu import Block
from .config import ModelConfig
from .contract import Inputs, ModelError
from .kernels import Kernels, Latent, ModulatedConv2d, of_entry
from .layers import LayerNorm2d, PatchStem

_AREA = 9  # side of the areas over which PAN and a band are compared, cells
_EPS = 1e-3  # of squared standardised values: an area without detail has no coefficient
_LIMIT = 4.0  # of the features made from such coefficients


@dataclass(frozen=True)
class _Shared:
    """What the branches of all bands of an image take from it, in cells of 1/4 resolution."""

    features: Tensor
    """(N, band_width, h, w) of the trunk."""
    detail: Tensor
    """(N, patch^2, h, w) PAN's detail, the pixels of a cell as channels."""
    low: Tensor
    """(N, 1, h, w) PAN's low-pass minus its mean over the area."""

    def of(self, image: Tensor | slice | None) -> "_Shared":
        """Return those of the given images; None: of all."""
        if image is None:
            return self
        return _Shared(self.features[image], self.detail[image], self.low[image])


class SharedTrunk(Backbone):
    """The trunk sees PAN, its detail and the bands' mean; it looks like PanNeXt-U and has no kernels of z's.

    A branch sees its band at half the PAN resolution (in cells, so that nothing between the pixels of MS is lost at
    ratios of 2 and more), how the band and PAN's low-pass go together around each cell, and the trunk's features. It
    predicts, for every PAN pixel, an injection gain for PAN's detail and a correction; all its convolutions are
    modulated by z.
    """

    margin = 64
    shares_images = True

    def __init__(self, config: ModelConfig) -> None:
        """Make the network.

        Raises:
            ModelError: cells of an odd side.
        """
        super().__init__(config)
        if config.patch % 2:
            raise ModelError(f"config: the shared trunk needs an even patch, not {config.patch}")
        self.multiple = 2 * config.patch
        self.patch, self.group = config.patch, config.group
        self.memory = round(1.75 * config.width) + 16 * config.group
        plain = replace(config, prior=False)
        width, own, (down, bottom, up) = config.width, config.band_width, config.depths
        self.stem = PatchStem(2 + (1 if config.bands is None else config.bands), width, config.patch)
        self.encode = nn.ModuleList(Block(width, plain) for _ in range(down))
        self.down = nn.Sequential(LayerNorm2d(width), nn.Conv2d(width, 2 * width, 2, stride=2))
        self.bottom = nn.ModuleList(Block(2 * width, plain) for _ in range(bottom))
        self.up = nn.Conv2d(2 * width, 4 * width, 1)
        self.merge = nn.Conv2d(2 * width, width, 1)
        self.decode = nn.ModuleList(Block(width, plain) for _ in range(up))
        self.norm = LayerNorm2d(width)
        self.tell = nn.Conv2d(width, own, 1)
        known = self.group * (config.patch**2 // 4 + 3)
        self.band = ModulatedConv2d(known, own, 3, config, padding_mode="replicate")
        self.blocks = nn.ModuleList(Block(own, config) for _ in range(config.band_blocks))
        self.band_norm = LayerNorm2d(own)
        self.head = ModulatedConv2d(own, 2 * self.group * config.patch**2, 1, config, constant=True)
        self._start_plain()

    def _start_plain(self) -> None:
        """Start as a plain detail injection with gain 1/2: a network that starts near a solution learns the rest."""
        weight, bias = self.head.base.weight, self.head.base.bias
        assert bias is not None
        nn.init.normal_(weight, std=0.01)
        with torch.no_grad():
            bias.zero_()
            weight[:, -1] = 0
            weight[: len(weight) // 2, -1] = 0.5

    def forward(self, inputs: Inputs, z: Latent) -> Tensor:
        """See :meth:`Backbone.forward`."""
        shared = self._share(inputs)
        whole = isinstance(z, Kernels) and not z.fixed  # parts that look at all images look at all at once
        if whole or not by_pieces(inputs.M):
            return self._inject(inputs.M, shared.of(inputs.image), z)
        out = torch.empty_like(inputs.M)  # a band after the other stays in the cache
        images = range(len(out)) if inputs.image is None else inputs.image.tolist()
        for entry, image in enumerate(images):
            own = slice(entry, entry + 1)
            out[own] = self._inject(inputs.M[own], shared.of(slice(image, image + 1)), of_entry(z, entry))
        return out

    def _share(self, inputs: Inputs) -> _Shared:
        """Run the trunk."""
        known = inputs.context if inputs.context.shape[1] else inputs.M
        h = _in_order(self.stem(torch.cat((inputs.detail, inputs.P, known), 1)))
        for block in self.encode:
            h = block(h, None)
        deep = self.down(h)
        for block in self.bottom:
            deep = block(deep, None)
        deep = F.pixel_shuffle(everywhere(self.up, deep), 2)
        h = everywhere(self.merge, torch.cat((h, _in_order(deep)), 1))
        for block in self.decode:
            h = block(h, None)
        low = F.avg_pool2d(inputs.P - inputs.detail, self.patch)
        detail = _in_order(F.pixel_unshuffle(inputs.detail, self.patch))
        return _Shared(everywhere(self.tell, self.norm(h)), detail, low - _area_mean(low))

    def _inject(self, M: Tensor, shared: _Shared, z: Latent) -> Tensor:
        """Run the branch: (R, group, H, W), what the images of these R entries share -> (R, group, H, W) residual."""
        cells = F.pixel_unshuffle(F.avg_pool2d(M, 2), self.patch // 2)
        x = self.band(_in_order(torch.cat((cells, self._compare(cells, shared.low)), 1)), z) + shared.features
        for block in self.blocks:
            x = block(x, z)
        gain, correction = self.head(self.band_norm(x), z).chunk(2, 1)
        detail = shared.detail if self.group == 1 else shared.detail.repeat(1, self.group, 1, 1)
        return F.pixel_shuffle(torch.addcmul(correction, gain, detail), self.patch)

    def _compare(self, cells: Tensor, low: Tensor) -> Tensor:
        """Tell how a band follows PAN around each cell, at the scale that both cameras see.

        Convolutions hardly find products of two images by themselves; classical methods are made of these.

        Args:
            cells: (R, group * patch^2 / 4, h, w) the band.
            low: (R, 1, h, w) see :class:`_Shared`.

        Returns:
            (R, 3 group, h, w): the coefficient of the band's regression on PAN, the correlation, and the logarithm of
            the ratio of their spreads.
        """
        m = cells.reshape(len(cells), self.group, -1, *cells.shape[2:]).mean(2)
        m = m - _area_mean(m)
        pp, mm, pm = _area_mean(low * low) + _EPS, _area_mean(m * m) + _EPS, _area_mean(low * m)
        found = pm / pp, pm * torch.rsqrt(pp * mm), torch.log(mm / pp) / 2
        return torch.cat(found, 1).clamp(-_LIMIT, _LIMIT)


def _area_mean(x: Tensor) -> Tensor:
    """Average around each cell, (N, C, h, w) -> the same shape; at the border over what there is."""
    for side in ((_AREA, 1), (1, _AREA)):
        x = F.avg_pool2d(x, side, 1, (side[0] // 2, side[1] // 2), count_include_pad=False)
    return x


def _in_order(x: Tensor) -> Tensor:
    """Put channels last where a CPU sharpens: a position's channels lie side by side for what works on positions."""
    return x.contiguous(memory_format=torch.channels_last) if by_pieces(x) else x
