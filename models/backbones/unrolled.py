"""The default network: what neither image tells is learned, and every output explains both images.

Plain 3x3 convolutions at 1/4 of the PAN resolution, a trunk once an image and a light branch for each band, predict
what the bands' differences add to an injection of PAN's detail. Then both observations are met, inside the network and
inside training: the scene's mix of the result's bands is PAN, and seen through the MS camera the result is MS. This is
one unrolled step of what a scene's two observation equations ask for; what they leave open is the network's.
"""

from dataclasses import replace
from types import MappingProxyType

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..config import ModelConfig
from ..contract import Inputs, Observation
from ..kernels import Latent, ModulatedConv2d, is_fixed
from ..layers import by_pieces, from_cells, sum_shifted, to_cells
from ..observation import mix, see, split, spread
from .base import Backbone

_FACTS = 4  # of a scene
_AREA = 9  # side of the areas over which a band and the mix are compared, cells
_EPS = 1e-3  # of squared standardised values: an area without detail has no coefficient
_LIMIT = 4.0  # of the features made from such coefficients
_HIDDEN = 16  # channels of the correction at the MS scale
_STRIP = 512  # rows of cells of all bands that a CPU works on at once: with their channels they stay near it
_ALIGN = 16  # PAN pixels: cells and the squares of local means begin at multiples of it


class SharedConv2d(ModulatedConv2d):
    """A convolution whose kernel all bands of an image share: entries (N * C, I, h, w) with N kernels, or one."""

    def forward(self, x: Tensor, z: Latent, images: int = 0, more: Tensor | None = None) -> Tensor:
        """Convolve.

        Args:
            x: (N * C, I, h, w).
            z: see :meth:`Backbone.forward`.
            images: N; 0 where C is 1.
            more: (N * C, O), added to the bias.

        Returns:
            (N * C, O, h, w).
        """
        images = images or len(x)
        made = self.generator is not None and z is not None and not is_fixed(z)
        weight = self.weight(split(x, 0, images).mean(1) if made and len(x) > images else x[:images], z)
        bias, side = self.base.bias, weight.shape[-1] // 2
        assert bias is not None
        if len(weight) == 1:
            own = bias + more[0] if more is not None and len(more) == 1 else bias
            out = F.conv2d(x, weight[0], own, padding=side)
            return out if more is None or len(more) == 1 else _add(out, more[..., None, None])
        bands = split(x, 0, images).transpose(0, 1)  # the images are the groups of one convolution
        found = F.conv2d(bands.flatten(1, 2), weight.flatten(0, 1), padding=side, groups=images)
        out = split(found, 1, images).transpose(0, 1).flatten(0, 1)
        return out + (bias if more is None else bias + more)[..., None, None]


class Facts(nn.Module):
    """From numbers that describe a scene to a shift of every channel."""

    def __init__(self, inputs: int, outputs: int) -> None:
        """Make a small perceptron that starts at zero."""
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(inputs, 32), nn.GELU(), nn.Linear(32, outputs))
        last = self.layers[-1]
        assert isinstance(last, nn.Linear)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def forward(self, facts: Tensor) -> Tensor:
        """(..., inputs) -> (..., outputs)."""
        out: Tensor = self.layers(facts)
        return out


class Unrolled(Backbone):
    """See the module. Any number of bands, whose order does not matter; ratios of 1.5 and more."""

    per_image = True
    observes = True
    complete = True
    # features that all scenes share move little; what the observations say of this scene moves at full pace
    adapts = MappingProxyType(
        {"blocks": 0.15, "head": 0.15, "believe": 1, "correct": 1, "know_band": 1, "know_step": 1}
    )
    least_ratio = 1.4
    multiple = _ALIGN

    def __init__(self, config: ModelConfig) -> None:
        """Make the network."""
        super().__init__(config)
        width, own, self.patch = config.width, config.band_width, config.patch
        cell = self.patch**2
        self.memory = 56
        # cells that a result looks at on each side, beside what compares
        self.around = 3 + 2 * config.trunk_blocks + 2 * config.band_blocks
        self.margin = self.margin_at(4)

        def conv(inputs: int, outputs: int, kernel: int = 3) -> SharedConv2d:
            return SharedConv2d(inputs, outputs, kernel, config)

        self.band = conv(4 + 3, own)
        self.know_band = Facts(_FACTS + 3, own)
        self.gather = nn.Conv2d(own, width, 1)
        self.stem = conv(2 * cell, width)
        self.know = Facts(_FACTS, width)
        self.trunk = nn.ModuleList(conv(width, width) for _ in range(2 * config.trunk_blocks))
        self.tell = nn.Conv2d(width, own, 1)
        self.believe = nn.Conv2d(width, cell, 1)
        self.blocks = nn.ModuleList(conv(own, own) for _ in range(2 * config.band_blocks))
        self.head = conv(own, 2 * cell, 1)
        self.know_step = Facts(_FACTS + 3, 1)
        self.correct = nn.ModuleList((conv(4, _HIDDEN), conv(_HIDDEN, 1, 1)))
        self._start_plain()

    def _start_plain(self) -> None:
        """Start as an injection by the scene's mix, with most of what MS then lacks given back."""
        for last in (*self.trunk[1::2], *self.blocks[1::2], self.head, self.correct[-1], self.believe):
            base = last.base if isinstance(last, ModulatedConv2d) else last
            assert isinstance(base, nn.Conv2d) and base.bias is not None
            with torch.no_grad():
                base.weight.mul_(0.1)
                base.bias.zero_()
        with torch.no_grad():
            assert self.believe.bias is not None
            self.believe.bias.fill_(3.0)

    def margin_at(self, ratio: float) -> int:
        """Return how far a pixel's result looks, PAN pixels, a multiple of 16."""
        # the area, the convolutions; three local means; the camera, the correction at the MS scale, and the way back
        pixels = self.patch * (self.around + _AREA // 2) + self._explains(ratio)
        return -(-int(pixels) // _ALIGN) * _ALIGN

    @staticmethod
    def _explains(ratio: float) -> int:
        """Return how far the steps look that meet the observations, PAN pixels."""
        return round(2 * 1.5 * local_side(ratio) + (4.1 + 2 + 2.5) * ratio)

    def forward(self, inputs: Inputs, z: Latent) -> Tensor:
        """See :meth:`Backbone.forward`; ``inputs`` hold whole images, all their bands, and what was observed."""
        seen, size = inputs.observation, inputs.P.shape[2:]
        assert seen is not None
        core = inputs.core or (slice(0, size[0]), slice(0, size[1]))
        reach = self._explains(seen.observed.ratio)
        # what the wanted pixels take of the network's result, in whole squares of local means
        rows, cols = (
            slice(max(0, (part.start - reach) // _ALIGN * _ALIGN), min(end, -(-(part.stop + reach) // _ALIGN) * _ALIGN))
            for part, end in zip(core, size, strict=True)
        )
        fused, belief = self._learn(inputs, seen, z, rows, cols)
        P, near = inputs.P[..., rows, cols], replace(seen, observed=seen.observed.cut(rows, cols))
        inside = [
            slice(part.start - at.start, part.stop - at.start) for part, at in zip(core, (rows, cols), strict=True)
        ]
        with _exactly(fused):
            fused = self._explain_pan(fused, P, belief, near)
            fused = self._explain_ms(fused, P, near, z)
            fused = self._explain_pan(fused, P, belief, near)[..., inside[0], inside[1]]
        return fused.flatten(0, 1)[:, None]

    def _learn(self, inputs: Inputs, seen: Observation, z: Latent, rows: slice, cols: slice) -> tuple[Tensor, Tensor]:
        """Add to upsampled MS what the bands' differences tell, and predict how far PAN is to be believed.

        Args:
            inputs: PAN, and what the mix of the bands lacks of it.
            seen: how the scene was observed.
            z: the latent, or its kernels.
            rows: of the pixels wanted, whole cells.
            cols: the same.

        Returns:
            (N, C, h, w) and (N, 1, h, w) in 0..1, of these pixels.
        """
        n, bands = seen.weights.shape[:2]
        observed, size = seen.observed, (inputs.P.shape[2], inputs.P.shape[3])
        with _exactly(inputs.P):
            known = self._know(inputs.P, seen)
            fused = spread(observed.ms, observed.shifted(rows.start, cols.start), _sizes(rows, cols))
        both = inputs.P.new_empty(n, *(side // self.patch for side in size), 2 * self.patch**2)
        for each, part in zip((inputs.P, inputs.detail), both.chunk(2, -1), strict=True):
            to_cells(part, each[:, 0], self.patch)
        both = both.permute(0, 3, 1, 2)
        around = self.around
        # zeros reach no wanted cell: there is so much around an image, or of what goes on beyond its border
        wanted = [slice(part.start // self.patch, part.stop // self.patch) for part in (rows, cols)]
        sides = [
            (max(0, around - part.start), max(0, part.stop + around - end))
            for part, end in zip(wanted, both.shape[2:], strict=True)
        ]
        if any(map(sum, sides)):
            known, both = (F.pad(each, (*sides[1], *sides[0]), mode="replicate") for each in (known, both))
        (first, last), wide = (
            (wanted[0].start - around + sides[0][0], wanted[0].stop - around + sides[0][0]),
            slice(wanted[1].start - around + sides[1][0], wanted[1].stop + around + sides[1][0]),
        )
        step = max(_STRIP // (n * bands), 32) if by_pieces(fused) and is_fixed(z) else last - first
        beliefs = []
        for top in range(first, last, step):
            strip = slice(top, min(top + step, last) + 2 * around)
            inside = (
                ...,
                slice(around, strip.stop - strip.start - around),
                slice(around, wide.stop - wide.start - around),
            )
            own = both[:, :, strip, wide]
            x, features = self._look(known[:, :, strip, wide], own, seen, z, n)
            lacking = own[:, None, self.patch**2 :][inside]
            gain, correction = split(self.head(x, z, n)[inside], 0, n).chunk(2, 2)
            change = torch.addcmul(correction, gain, lacking).movedim(2, -1)
            change = from_cells(change, self.patch)
            if step < last - first:
                done = (top - first) * self.patch
                fused[:, :, done : done + change.shape[2]].add_(change)
            else:
                fused = _add(fused, change)
            # half of what the mix lacks of PAN is always given: the scene's fit seldom errs by more
            belief = 0.5 + 0.5 * torch.sigmoid(self.believe(features)[inside])
            beliefs.append(from_cells(belief.movedim(1, -1)[:, None], self.patch))
        return fused, torch.cat(beliefs, 2)

    def _know(self, P: Tensor, seen: Observation) -> Tensor:
        """Tell of every band, at 1/patch resolution, its means of half cells and how it follows the mix of the bands.

        Returns:
            (N * C, 7, h, w), channels last.
        """
        observed, bands, side = seen.observed, seen.weights.shape[1], self.patch // 2
        halves = spread(observed.ms, observed, (P.shape[2], P.shape[3]), side)
        cells = halves.new_empty(len(P), bands, P.shape[2] // self.patch, P.shape[3] // self.patch, 4)
        to_cells(cells.flatten(0, 1), halves.flatten(0, 1), 2)
        cells = torch.cat((cells, self._compare(cells.mean(-1), seen)), -1)
        return cells.flatten(0, 1).permute(0, 3, 1, 2)

    def _look(self, known: Tensor, both: Tensor, seen: Observation, z: Latent, n: int) -> tuple[Tensor, Tensor]:
        """Run the trunk and the branches: (N * C, band_width, h, w) and (N, width, h, w) at 1/patch resolution."""
        known, both = (each.contiguous(memory_format=torch.channels_last) for each in (known, both))
        x = self.band(known, z, n, self.know_band(seen.band_facts).flatten(0, 1)).relu_()
        bands = split(x, 0, n)
        t = self.stem(both, z, n, self.know(seen.facts))
        t = _add(t, self.gather(_mean(bands))).relu_()
        for first, second in zip(self.trunk[::2], self.trunk[1::2], strict=True):
            t = _add(second(first(t, z, n).relu_(), z, n), t)
        x = (bands + self.tell(t)[:, None]).flatten(0, 1).relu_()
        for first, second in zip(self.blocks[::2], self.blocks[1::2], strict=True):
            x = _add(second(first(x, z, n).relu_(), z, n), x)
        return x.relu_(), t

    def _compare(self, means: Tensor, seen: Observation) -> Tensor:
        """Tell how each band follows the mix around each cell: (N, C, h, w) -> (N, C, h, w, 3).

        Convolutions hardly find products of two images by themselves: the coefficient of the band's regression on the
        mix, their correlation, and the logarithm of the ratio of their spreads.
        """
        m = means - _area_mean(means)
        s = mix(seen.weights, m)
        ss, mm, sm = _area_mean(s * s) + _EPS, _area_mean(m * m) + _EPS, _area_mean(s * m)
        found = sm / ss - seen.injection, sm * torch.rsqrt(ss * mm), torch.log(mm / ss) / 2
        return torch.stack(found, -1).clamp_(-_LIMIT, _LIMIT)

    def _explain_pan(self, fused: Tensor, P: Tensor, belief: Tensor, seen: Observation) -> Tensor:
        """Add what the mix of the bands lacks of PAN's detail to the bands, as far as it is believed."""
        lacking = P - seen.offset - mix(seen.weights, fused)
        lacking = belief * (lacking - _local_mean(lacking, local_side(seen.observed.ratio)))
        if torch.is_grad_enabled():
            return torch.addcmul(fused, seen.injection, lacking)
        return fused.addcmul_(seen.injection, lacking)

    def _explain_ms(self, fused: Tensor, P: Tensor, seen: Observation, z: Latent) -> Tensor:
        """Add what MS lacks of what its camera would have seen, as far as it is believed."""
        ms, n = seen.observed.ms, len(fused)
        shown, pan = (see(image, seen.observed, seen.cameras) for image in (fused, P))
        lacking = ms - shown
        if seen.observed.belief is not None:
            lacking = lacking * seen.observed.belief
        mixed, unexplained = mix(seen.weights, lacking), pan - seen.offset - mix(seen.weights, ms)
        known = torch.stack([lacking, *(each.expand_as(lacking) for each in (mixed, unexplained)), ms], 2)
        first, second = self.correct
        known = known.flatten(0, 1).contiguous(memory_format=torch.channels_last)
        learned = second(first(known, z, n).relu_(), z, n).reshape(lacking.shape)
        step = torch.sigmoid(self.know_step(seen.band_facts) + 1)[..., None]
        return spread(step * lacking + learned, seen.observed, (P.shape[2], P.shape[3]), onto=fused)


def _exactly(x: Tensor) -> torch.autocast:
    """Leave bfloat16 aside: what both images are held against, DN of five digits, is rounded to three by it."""
    return torch.autocast(x.device.type, enabled=False)


def local_side(ratio: float) -> int:
    """Return the side of the squares whose means are PAN's coarse part, PAN pixels: 4, 8 or 16."""
    return 4 if ratio < 2.7 else 8 if ratio < 5.4 else 16


def _local_mean(x: Tensor, side: int) -> Tensor:
    """Smooth (N, 1, H, W): the means of squares of ``side`` pixels, interpolated."""
    return F.interpolate(F.avg_pool2d(x, side), scale_factor=side, mode="bilinear", align_corners=False)


def _area_mean(x: Tensor) -> Tensor:
    """Average around each cell, (N, C, h, w) -> the same shape; at the border over what there is."""
    half = _AREA // 2
    for axis in (2, 3):  # shifted copies are several times as fast as pooling
        cells = torch.arange(x.shape[axis], device=x.device)
        count = (cells.clamp(max=half) + cells.flip(0).clamp(max=half) + 1).to(x)
        padded = F.pad(x, (0, 0, half, half) if axis == 2 else (half, half))
        ones = torch.ones(_AREA, dtype=x.dtype)  # on the CPU, which reads them: a GPU would be waited for
        x = sum_shifted(padded, ones, axis) / (count[:, None] if axis == 2 else count)
    return x


def _mean(bands: Tensor) -> Tensor:
    """Average over bands, (N, C, ·, h, w) -> (N, ·, h, w), plane by plane: channels stay last."""
    first, *others = bands.unbind(1)
    total = first.clone()
    for band in others:
        total = _add(total, band)
    return total / bands.shape[1]


def _sizes(rows: slice, cols: slice) -> tuple[int, int]:
    return rows.stop - rows.start, cols.stop - cols.start


def _add(x: Tensor, y: Tensor) -> Tensor:
    """Add, in place where nothing is trained."""
    return x + y if torch.is_grad_enabled() else x.add_(y)
