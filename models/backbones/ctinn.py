"""CTINN: a customized transformer and an invertible neural network (Zhou et al., AAAI 2022)."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..config import ModelConfig
from ..contract import Inputs
from ..kernels import GlobalLayer, Latent, ModulatedConv2d, modulation
from .base import Backbone, start_small

_FEATURES, _STEPS = 16, 3  # as published
_WINDOW, _STRIDE, _PADDING, _SIDE = 24, 8, 8, 3
_SMALLEST = 1e-5
_AT_ONCE = 64  # windows whose 576 x 576 products are in memory at once


_CLAMP = 0.8  # largest logarithm of a coupling's scale, as published


class InvertibleMixing(nn.Module):
    """A 1x1 convolution W = P L (U + diag(sign exp(log s))), which starts as a random orthogonal matrix.

    P and the signs stay as they were drawn.
    """

    permutation: Tensor
    sign: Tensor

    def __init__(self, channels: int) -> None:
        """Draw and factor the matrix, (channels, channels)."""
        super().__init__()
        orthogonal = torch.linalg.qr(torch.randn(channels, channels))[0]
        P, L, U = torch.linalg.lu(orthogonal)
        diagonal = U.diagonal()
        self.register_buffer("permutation", P.contiguous())
        self.register_buffer("sign", diagonal.sign())
        self.lower = nn.Parameter(L.contiguous())
        self.upper = nn.Parameter(U.triu(1).contiguous())
        self.log_scale = nn.Parameter(diagonal.abs().log())

    def forward(self, x: Tensor) -> Tensor:
        """(R, channels, H, W) -> the same shape."""
        L = self.lower.tril(-1) + torch.eye(len(self.sign), device=x.device)
        U = self.upper.triu(1) + torch.diag(self.sign * self.log_scale.exp())
        W = self.permutation @ L @ U
        return nn.functional.conv2d(x, W[..., None, None].to(x.dtype))


class FlowStep(nn.Module):
    """Mixing, then an affine coupling: y1 = x1 + F(x2), y2 = x2 exp(s(H(y1))) + G(y1)."""

    def __init__(self, first: int, second: int, make: Callable[[int, int], nn.Module]) -> None:
        """Make a step.

        Args:
            first: channels of x1.
            second: channels of x2.
            make: of input and output channels, a subnetwork called with features and z.
        """
        super().__init__()
        self.sizes = first, second
        self.mixing = InvertibleMixing(first + second)
        self.F, self.G, self.H = make(second, first), make(first, second), make(first, second)

    def forward(self, x: Tensor, z: object) -> Tensor:
        """(R, first + second, H, W) -> the same shape."""
        x1, x2 = self.mixing(x).split(self.sizes, 1)
        y1 = x1 + self.F(x2, z)
        scale = torch.exp(_CLAMP * (2 * torch.sigmoid(self.H(y1, z)) - 1))
        return torch.cat((y1, x2 * scale + self.G(y1, z)), 1)


class Statistics(GlobalLayer):
    """Every channel's mean and mean square, from which instance norm follows.

    Their averages over a scene's anchors are those of all their pixels together.
    """

    def forward(self, z: Tensor | None, x: Tensor) -> Tensor:
        """(unused), (N, channels, H, W) -> (N, 2, channels)."""
        x = x.float()
        return torch.stack((x.mean((2, 3)), x.square().mean((2, 3))), 1)


class InstanceNorm(nn.Module):
    """Every channel standardised over its image, then scaled and shifted."""

    def __init__(self, channels: int) -> None:
        """Make scale and shift."""
        super().__init__()
        self.statistics = Statistics()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor, z: Latent) -> Tensor:
        """(R, channels, H, W) -> the same shape."""
        mean, square = modulation(self.statistics, z, x).unbind(1)
        gain = self.weight * torch.rsqrt((square - mean.square()).clamp(min=0) + _SMALLEST)
        out: Tensor = x * gain[..., None, None] + (self.bias - mean * gain)[..., None, None]
        return out


class HalfNormBlock(nn.Module):
    """HIN block: 3x3, instance norm of half of the channels, 3x3, and a 1x1 skip."""

    def __init__(self, inputs: int, outputs: int) -> None:
        """Make a block from ``inputs`` to ``outputs`` channels, an even number."""
        super().__init__()
        self.first = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.norm = InstanceNorm(outputs // 2)
        self.second = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.skip = nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor, z: Latent) -> Tensor:
        """(R, inputs, H, W) -> (R, outputs, H, W)."""
        half, other = self.first(x).chunk(2, 1)
        h = F.leaky_relu(torch.cat((self.norm(half, z), other), 1), 0.1)
        out: Tensor = F.leaky_relu(self.second(h), 0.1) + self.skip(x)
        return out


class Coupling(nn.Module):
    """The subnetwork of a flow step: two HIN blocks of 16 channels and the outputs'."""

    def __init__(self, inputs: int, outputs: int) -> None:
        """Make both blocks."""
        super().__init__()
        self.first = HalfNormBlock(inputs, 16)
        self.second = HalfNormBlock(16, outputs)

    def forward(self, x: Tensor, z: Latent) -> Tensor:
        """(R, inputs, H, W) -> (R, outputs, H, W)."""
        return F.leaky_relu(self.second(F.leaky_relu(self.first(x, z), 0.2), z), 0.2)


class Attention(nn.Module):
    """Refinement's channel attention: a vector that is added to all pixels, made from the features' global mean."""

    def __init__(self, features: int) -> None:
        """Make the layers; ``features`` is a multiple of 4."""
        super().__init__()
        self.look = nn.Sequential(
            nn.Conv2d(features, features, 3, padding=1), nn.ReLU(), nn.Conv2d(features, features, 3, padding=1)
        )
        self.squeeze = nn.Linear(features, features // 4)
        self.excite = nn.Linear(features // 4, features)
        nn.init.ones_(self.squeeze.bias)  # so few ReLUs might all be dead

    def forward(self, x: Tensor) -> Tensor:
        """(N, features, H, W) -> (N, features)."""
        p = self.look(x).mean((2, 3))
        out: Tensor = p * torch.sigmoid(self.excite(F.relu(self.squeeze(p))))
        return out


class WholeAttention(GlobalLayer):
    """The same of the image as a whole."""

    def __init__(self, features: int) -> None:
        """Make the layers."""
        super().__init__()
        self.attention = Attention(features)

    def forward(self, z: Tensor | None, x: Tensor) -> Tensor:
        """(unused), (N, features, H, W) -> (N, features)."""
        out: Tensor = self.attention(x)
        return out


class Refinement(nn.Module):
    """3x3, channel attention, 3x3 to the bands: the end of CTINN and of HFIN."""

    def __init__(self, features: int, config: ModelConfig, *, whole: bool) -> None:
        """Make the layers; ``whole`` says whether attention is the whole image's, also where windows are fused."""
        super().__init__()
        self.enter = ModulatedConv2d(features, features, 3, config)
        self.attention = WholeAttention(features) if whole else Attention(features)
        self.leave = ModulatedConv2d(features, config.group, 3, config)
        start_small(self.leave)

    def forward(self, x: Tensor, z: Latent) -> Tensor:
        """(R, features, H, W) -> (R, group, H, W)."""
        x = self.enter(x, z)
        seen = modulation(self.attention, z, x) if isinstance(self.attention, GlobalLayer) else self.attention(x)
        out: Tensor = self.leave(x + seen[..., None, None], z)
        return out


class TextureTransfer(nn.Module):
    """Hard cross-attention: MS's features get PAN's from where these resemble them most.

    Windows of 24 pixels, 8 apart. In a window each 3x3 neighbourhood of MS's features looks for the most similar one of
    PAN's, by the cosine; PAN's features are put together from what was found, convolved with MS's, and weighted by the
    similarity. Published, overlapping windows are added up, nine of them but at borders; ``config.seamless`` averages.
    """

    def __init__(self, features: int, config: ModelConfig) -> None:
        """Make both convolutions for ``features`` channels each of MS and PAN."""
        super().__init__()
        self.average = config.seamless
        self.first = nn.Conv2d(2 * features, features, 3, padding=1)
        self.second = nn.Conv2d(features, features, 3, padding=1)

    def forward(self, ms: Tensor, pan: Tensor) -> Tensor:
        """(R, features, H, W) each, sides multiples of 8 -> the same shape."""
        size = [side + 2 * _PADDING for side in ms.shape[2:]]
        rows, cols = ((side - _WINDOW) // _STRIDE + 1 for side in size)
        ms, pan = (F.pad(image, (_PADDING,) * 4) for image in (ms, pan))
        out, step = torch.zeros_like(ms), rows if torch.is_grad_enabled() else 1
        for row in range(0, rows, step):
            strip = slice(row * _STRIDE, (row + step - 1) * _STRIDE + _WINDOW)
            made = self._windows(_cut(ms[:, :, strip]), _cut(pan[:, :, strip]))
            out[:, :, strip] += _add_up(made.reshape(len(ms), step * cols, -1), out[:, :, strip])
        if self.average:
            out = out / _add_up(out.new_ones(1, rows * cols, _WINDOW**2), out)
        return out[..., _PADDING:-_PADDING, _PADDING:-_PADDING]

    def _windows(self, ms: Tensor, pan: Tensor) -> Tensor:
        """(windows, features, 24, 24) each -> the same shape."""
        texture, similarity = _transfer(ms, pan)
        found = self.second(F.relu(self.first(torch.cat((texture, ms), 1))))
        out: Tensor = ms + similarity * found
        return out


def _cut(image: Tensor) -> Tensor:
    """Cut an image into overlapping windows, (N, C, H, W) -> (N * windows, C, 24, 24)."""
    windows = image.unfold(2, _WINDOW, _STRIDE).unfold(3, _WINDOW, _STRIDE)
    return windows.permute(0, 2, 3, 1, 4, 5).flatten(0, 2)


def _add_up(windows: Tensor, like: Tensor) -> Tensor:
    """Put windows back where they were cut, adding where they overlap: (N, windows, C * 24 * 24) -> (N, C, H, W)."""
    return F.fold(windows.transpose(1, 2), tuple(like.shape[2:]), _WINDOW, stride=_STRIDE)


def _transfer(ms: Tensor, pan: Tensor) -> tuple[Tensor, Tensor]:
    """Find for every neighbourhood of MS's features the most similar one of PAN's.

    The search keeps nothing for the way back: the similarity of what was found is computed again.

    Args:
        ms: (windows, C, 24, 24).
        pan: (windows, C, 24, 24).

    Returns:
        PAN's features put together, (windows, C, 24, 24), and the similarity, (windows, 1, 24, 24).
    """
    values, wanted = (F.unfold(image, _SIDE, padding=1) for image in (pan, ms))  # (windows, 9 C, 576)
    keys, queries = F.normalize(values, dim=1), F.normalize(wanted, dim=1)
    with torch.no_grad():
        parts = zip(torch.split(keys, _AT_ONCE), torch.split(queries, _AT_ONCE), strict=True)
        best = torch.cat([(k.transpose(1, 2) @ q).argmax(1) for k, q in parts])
    best = best[:, None].expand_as(values)
    similarity = (keys.gather(2, best) * queries).sum(1).view(len(ms), 1, _WINDOW, _WINDOW)
    texture = F.fold(values.gather(2, best), (_WINDOW, _WINDOW), _SIDE, padding=1) / _SIDE**2
    return texture, similarity


class CTINN(Backbone):
    """PAN's and MS's features fused locally and by texture transfer, then by three steps of an invertible flow.

    z modulates the local fusion and the refinement: where the prior enters is ours, the paper has no such row.
    """

    multiple = 8
    whole = "instance norm, channel attention"
    margin = 64
    memory = 760

    def __init__(self, config: ModelConfig) -> None:
        """Make the layers."""
        super().__init__(config)
        features = config.features or _FEATURES
        half = features // 2
        self.pan = nn.Conv2d(1, half, 3, padding=1)
        self.ms = nn.Conv2d(config.ms_inputs, half, 3, padding=1)
        self.local = ModulatedConv2d(features, half, 3, config)
        self.transfer = TextureTransfer(half, config)
        self.flow = nn.ModuleList(FlowStep(half, half, Coupling) for _ in range(_STEPS))
        self.merge = nn.Conv2d(2 * features, features, 1)
        self.refine = Refinement(features, config, whole=True)

    def forward(self, inputs: Inputs, z: Latent) -> Tensor:
        pan, ms = self.pan(inputs.P), self.ms(inputs.ms)
        entered = torch.cat((self.local(torch.cat((ms, pan), 1), z), self.transfer(ms, pan)), 1)
        x = entered
        for step in self.flow:
            x = step(x, z)
        return inputs.wanted(self.refine(self.merge(torch.cat((entered, x), 1)), z))
