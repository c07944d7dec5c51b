"""PanNeXt-U for any number of bands at the price of little more than one: a trunk once an image, a light branch a band.

What all bands of an image share, PAN and the bands' mean, goes through the U-Net once; a branch of a tenth of its work
then runs once per band, and nothing but the injection itself at full resolution.
"""

from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..config import ModelConfig
from ..contract import Inputs
from ..kernels import Kernels, Latent, ModulatedConv2d, is_fixed, of_entry
from ..layers import LayerNorm2d, by_pieces, sum_shifted, to_cells
from ..pieces import Part, Sides, side_by_side
from .base import CELL_ROWS, everywhere
from .pannextu import REFINE_REACH, Block, CellUNet, Refine

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


class SharedTrunk(CellUNet):
    """The trunk sees PAN, its detail and the bands' mean; it looks like PanNeXt-U and has no kernels of z's.

    A branch sees its band in cells, how the band and PAN's low-pass go together around each cell, and the trunk's
    features. It predicts, for every PAN pixel, an injection gain for PAN's detail and a correction, and refines the
    result at full resolution; all its convolutions are modulated by z.
    """

    margin = 64
    shares_images = True
    products = True

    def __init__(self, config: ModelConfig) -> None:
        """Make the network."""
        super().__init__(config, 2 + (1 if config.bands is None else config.bands), replace(config, prior=False))
        self.memory = round(3.25 * config.width) + 24 * config.group  # four bands at once
        own = config.band_width
        self.tell = nn.Conv2d(config.width, own, 1)
        known = self.group * (config.patch**2 + 1 + 3)
        self.band = ModulatedConv2d(known, own, 3, config, padding_mode="replicate")
        self.blocks = nn.ModuleList(Block(own, config) for _ in range(config.band_blocks))
        # cells around a part that its last layers, and the whole branch, must see beside what compares
        self.finish_reach = -(-REFINE_REACH // config.patch)
        self.reach = self.finish_reach + config.band_blocks * (config.kernel // 2) + 1
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
            return inputs.wanted(self._inject(inputs.M, shared.of(inputs.image), z))
        core = Part.between(*inputs.core) if inputs.core else Part(0, 0, *inputs.M.shape[2:])
        out = torch.empty_like(core.of(inputs.M))
        images = list(range(len(out))) if inputs.image is None else inputs.image.tolist()

        def inject(entry: int) -> None:
            own, image = slice(entry, entry + 1), slice(images[entry], images[entry] + 1)
            self._inject_by_pieces(inputs.M[own], shared.of(image), of_entry(z, entry), core, out[own])

        side_by_side(inject, len(out))
        return out

    def _share(self, inputs: Inputs) -> _Shared:
        """Run the trunk."""
        known = inputs.context if inputs.context.shape[1] else inputs.M
        h = self._through(self.stem(torch.cat((inputs.detail, inputs.P, known), 1)), None)
        smooth = inputs.P - inputs.detail
        low = F.avg_pool2d(smooth, self.patch)
        features = everywhere(self.tell, self.norm(h))
        cells = to_cells(inputs.detail, self.patch)
        return _Shared(features, cells, low, low - _area_mean(low), inputs.detail, smooth)

    def _inject(self, M: Tensor, shared: _Shared, z: Latent) -> Tensor:
        """Run the branch: (R, group, H, W), what the images of these R entries share -> (R, group, H, W) residual."""
        cells = F.pixel_unshuffle(M, self.patch)
        means = F.avg_pool2d(M, self.patch)
        known = torch.cat((cells, shared.low - means, self._compare(means, shared.varying)), 1)
        x = self.band(known, z) + shared.features
        for block in self.blocks:
            x = block(x, z)
        residual = self._spread(self.band_norm(x), shared.cells, z)
        out: Tensor = residual + self.refine(
            torch.cat((*self._planes(M, shared.detail, shared.smooth), residual), 1), z
        )
        return out

    def _inject_by_pieces(self, M: Tensor, shared: _Shared, z: Latent, core: Part, out: Tensor) -> None:
        """Do the same for one entry without gradients on a CPU, at no more than the core needs.

        Args:
            M: (1, group, H, W).
            shared: of its image.
            z: its latent, or its kernels.
            core: the pixels that are wanted.
            out: (1, group, height, width) of the core, to be filled.
        """
        size = shared.low.shape[2:]
        cells, step = core.cells(self.patch), CELL_ROWS
        if not is_fixed(z):  # what looks at the image as a whole must see all of it
            cells, step = Part(0, 0, *size), size[0]
        place = cells.grown(self.reach, size)
        x = self._branch(M, shared, z, place)
        for strip in cells.strips(step):
            made = self._finish(M, x, place, strip, shared, z)
            pixels = strip.pixels(self.patch)
            kept = pixels.meet(core)
            kept.within(core).of(out).copy_(kept.within(pixels).of(made))

    def _branch(self, M: Tensor, shared: _Shared, z: Latent, place: Part) -> Tensor:
        """Run the branch's layers at 1/4 resolution on some cells of the image: (1, band_width, h, w)."""
        cells = to_cells(M, self.patch)
        means = torch.stack([each.mean(1) for each in cells.chunk(self.group, 1)], 1)
        edge = Sides(1, 1, 1, 1)
        known = edge.join(
            [place.of(each) for each in (cells, shared.low - means, self._compare(means, shared.varying))]
        )
        weight, bias = self.band.kernel(edge.inside(known), z)
        x = F.conv2d(known.permute(0, 3, 1, 2), weight, bias).add_(place.of(shared.features))
        for block in self.blocks:
            x = block(x, z)
        return x

    def _finish(self, M: Tensor, x: Tensor, place: Part, strip: Part, shared: _Shared, z: Latent) -> Tensor:
        """Inject PAN's detail into a strip and refine it.

        Args:
            M: (1, group, H, W).
            x: (1, band_width, h, w) from the branch.
            place: the cells of the image that ``x`` is of.
            strip: those of them that are wanted.
            shared: of the image.
            z: its latent, or its kernels.

        Returns:
            (1, group, height, width) of the strip's pixels.
        """
        cells = strip.grown(self.finish_reach, shared.low.shape[2:])
        residual = self._spread(self.band_norm(cells.within(place).of(x)), cells.of(shared.cells), z)
        wanted, size = strip.pixels(self.patch), M.shape[2:]
        seen = wanted.grown(REFINE_REACH, size)
        residual = seen.within(cells.pixels(self.patch)).of(residual)
        planes = *self._planes(*map(seen.of, (M, shared.detail, shared.smooth))), residual
        return wanted.within(seen).of(residual) + self.refine.strip(planes, z, wanted.missing(REFINE_REACH, size))

    @staticmethod
    def _planes(M: Tensor, detail: Tensor, smooth: Tensor) -> tuple[Tensor, ...]:
        """Return what is refined beside the residual."""
        # PAN's low-pass minus MS: where it is zero, PAN's detail is the band's detail
        return detail, smooth - M[:, :1], M

    def _spread(self, x: Tensor, cells: Tensor, z: Latent) -> Tensor:
        """Inject PAN's detail: (R, band_width, h, w), (R, patch^2, h, w) -> residual, (R, group, H, W)."""
        gain, correction = self.head(x, z).chunk(2, 1)
        cells = cells if self.group == 1 else cells.repeat(1, self.group, 1, 1)
        return F.pixel_shuffle(correction + gain * cells, self.patch)

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
    half = _AREA // 2
    if not by_pieces(x):
        for side in ((_AREA, 1), (1, _AREA)):
            x = F.avg_pool2d(x, side, 1, (side[0] // 2, side[1] // 2), count_include_pad=False)
        return x
    ones = x.new_ones(_AREA)
    for axis in (2, 3):  # a third of the time
        cells = torch.arange(x.shape[axis])
        count = (cells.clamp(max=half) + cells.flip(0).clamp(max=half) + 1).to(x)
        x = sum_shifted(F.pad(x, (0, 0, half, half) if axis == 2 else (half, half)), ones, axis)
        x.div_(count[:, None] if axis == 2 else count)
    return x
