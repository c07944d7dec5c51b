"""PanNeXt-U for any number of bands at the price of little more than one: a trunk once an image, a light branch a band.

What all bands of an image share, PAN and the bands' mean, goes through the U-Net once; a branch of a tenth of its work
then runs once per band, and nothing but the injection itself at full resolution.
"""

from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .backbone import CELL_ROWS, Backbone, by_pieces, everywhere, join, pixels_of, strips_of
from .backbone_pannextu import Block, Refine
from .config import ModelConfig
from .contract import Inputs
from .kernels import Kernels, Latent, ModulatedConv2d, is_fixed, of_entry
from .layers import LayerNorm2d, PatchStem

_AREA = 9  # side of the areas over which PAN and a band are compared, cells
_EPS = 1e-3  # of squared standardised values: an area without detail has no coefficient
_LIMIT = 4.0  # of the features made from such coefficients


@dataclass(frozen=True)
class _Shared:
    """What the branches of all bands of an image take from it, in cells of 1/4 resolution or in pixels."""

    features: Tensor
    """(N, band_width, h, w) of the trunk."""
    cells: Tensor
    """(N, patch^2, h, w) PAN's detail, the pixels of a cell as channels."""
    low: Tensor
    """(N, 1, h, w) mean of PAN's low-pass in each cell."""
    varying: Tensor
    """(N, 1, h, w) the same minus its mean over the area."""
    detail: Tensor
    """(N, 1, H, W) PAN's detail."""
    smooth: Tensor
    """(N, 1, H, W) PAN's low-pass."""

    def of(self, image: Tensor | slice | None) -> "_Shared":
        """Return those of the given images; None: of all."""
        if image is None:
            return self
        return _Shared(*(getattr(self, each.name)[image] for each in fields(self)))


class SharedTrunk(Backbone):
    """The trunk sees PAN, its detail and the bands' mean; it looks like PanNeXt-U and has no kernels of z's.

    A branch sees its band in cells, how the band and PAN's low-pass go together around each cell, and the trunk's
    features. It predicts, for every PAN pixel, an injection gain for PAN's detail and a correction, and refines the
    result at full resolution; all its convolutions are modulated by z.
    """

    margin = 64
    shares_images = True

    def __init__(self, config: ModelConfig) -> None:
        """Make the network."""
        super().__init__(config)
        self.multiple = 2 * config.patch
        self.patch, self.group = config.patch, config.group
        self.memory = round(1.75 * config.width) + 24 * config.group
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
        known = self.group * (config.patch**2 + 1 + 3)
        self.band = ModulatedConv2d(known, own, 3, config, padding_mode="replicate")
        self.blocks = nn.ModuleList(Block(own, config) for _ in range(config.band_blocks))
        self.band_norm = LayerNorm2d(own)
        self.head = ModulatedConv2d(own, 2 * self.group * config.patch**2, 1, config, constant=True)
        self.refine = Refine(2 + 2 * self.group, config)
        self._start_plain()

    def _start_plain(self) -> None:
        """Start as a plain detail injection with gain 1/2: a network that starts near a solution learns the rest."""
        weight, bias, last = self.head.base.weight, self.head.base.bias, self.refine.last.base
        assert bias is not None and last.bias is not None
        nn.init.normal_(weight, std=0.01)
        nn.init.normal_(last.weight, std=0.001)
        with torch.no_grad():
            bias.zero_()
            last.bias.zero_()
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
        smooth = inputs.P - inputs.detail
        low = F.avg_pool2d(smooth, self.patch)
        cells = _in_order(F.pixel_unshuffle(inputs.detail, self.patch))
        features = everywhere(self.tell, self.norm(h))
        return _Shared(features, cells, low, low - _area_mean(low), inputs.detail, smooth)

    def _inject(self, M: Tensor, shared: _Shared, z: Latent) -> Tensor:
        """Run the branch: (R, group, H, W), what the images of these R entries share -> (R, group, H, W) residual."""
        cells = F.pixel_unshuffle(M, self.patch)
        means = F.avg_pool2d(M, self.patch)
        known = torch.cat((cells, shared.low - means, self._compare(means, shared.varying)), 1)
        x = self.band(_in_order(known), z) + shared.features
        for block in self.blocks:
            x = block(x, z)
        x = self.band_norm(x)
        rows = x.shape[2]
        strips = strips_of(rows, CELL_ROWS if is_fixed(z) and by_pieces(M) else rows)
        parts = [self._finish(M, x, shared, z, strip.read)[:, :, pixels_of(strip.keep, self.patch)] for strip in strips]
        return join(parts)

    def _finish(self, M: Tensor, x: Tensor, shared: _Shared, z: Latent, rows: slice) -> Tensor:
        """Inject PAN's detail into rows of cells, and refine."""
        gain, correction = self.head(x[:, :, rows], z).chunk(2, 1)
        cells = shared.cells[:, :, rows]
        cells = cells if self.group == 1 else cells.repeat(1, self.group, 1, 1)
        residual = F.pixel_shuffle(torch.addcmul(correction, gain, cells), self.patch)
        detail, smooth, M = (image[:, :, pixels_of(rows, self.patch)] for image in (shared.detail, shared.smooth, M))
        # PAN's low-pass minus MS: where it is zero, PAN's detail is the band's detail
        known = torch.cat((detail, smooth - M[:, :1], M, residual), 1)
        out: Tensor = residual + self.refine(known, z)
        return out

    def _compare(self, m: Tensor, low: Tensor) -> Tensor:
        """Tell how a band follows PAN around each cell, at the scale that both cameras see.

        Convolutions hardly find products of two images by themselves; classical methods are made of these.

        Args:
            m: (R, group, h, w) the band's mean in each cell.
            low: (R, 1, h, w) ``varying`` of :class:`_Shared`.

        Returns:
            (R, 3 group, h, w): the coefficient of the band's regression on PAN, the correlation, and the logarithm of
            the ratio of their spreads.
        """
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
