"""HFIN: spatial, local and global Fourier features and their integration (Tan et al., CVPR 2024)."""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..config import ModelConfig
from ..contract import Inputs
from ..kernels import Latent, ModulatedConv2d
from .ctinn import FlowStep, Refinement
from .pieced import Pieced

_BLOCKS, _GROWTH = 5, 8  # as published
_TINY = 1e-8  # where an angle has no gradient


class ResidualPair(nn.Module):
    """Two 3x3 convolutions, each with leaky ReLU, and a 1x1 skip."""

    def __init__(self, inputs: int, outputs: int) -> None:
        """Make a pair from ``inputs`` to ``outputs`` channels."""
        super().__init__()
        self.first = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.second = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.skip = nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(R, inputs, H, W) -> (R, outputs, H, W)."""
        h = F.leaky_relu(self.second(F.leaky_relu(self.first(x), 0.1)), 0.1)
        out: Tensor = h + self.skip(x)
        return out


class Dense(nn.Module):
    """The subnetwork of a flow step: two residual pairs and a 3x3 convolution of all that came before; starts small."""

    def __init__(self, inputs: int, outputs: int) -> None:
        """Make a block from ``inputs`` to ``outputs`` channels."""
        super().__init__()
        self.first = ResidualPair(inputs, _GROWTH)
        self.second = ResidualPair(_GROWTH, _GROWTH)
        self.last = nn.Conv2d(inputs + 2 * _GROWTH, outputs, 3, padding=1)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.xavier_normal_(layer.weight, 0.1)
                assert layer.bias is not None
                nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor, z: object) -> Tensor:
        """(R, inputs, H, W), (unused) -> (R, outputs, H, W)."""
        first = F.leaky_relu(self.first(x), 0.2)
        second = F.leaky_relu(self.second(first), 0.2)
        out: Tensor = self.last(torch.cat((x, first, second), 1))
        return out


class SpectrumFusion(nn.Module):
    """Fuses two images' spectra, amplitudes and phases apart; phases as numbers, which ignores that they wrap."""

    def __init__(self, *widths: int) -> None:
        """Make both fusers of 1x1 convolutions, with leaky ReLU between, from ``widths[0]`` channels on."""
        super().__init__()
        self.amplitude, self.phase = _fuser(*widths), _fuser(*widths)

    def forward(self, ms: Tensor, pan: Tensor) -> Tensor:
        """(R, c, h, w) twice -> (R, c, h, w), not negative."""
        with torch.autocast(ms.device.type, enabled=False):  # phases need float32
            spectra = [torch.fft.rfft2(image.float()) for image in (ms, pan)]
            amplitude = self.amplitude(torch.cat([spectrum.abs() for spectrum in spectra], 1))
            phase = self.phase(torch.cat([(spectrum + _TINY).angle() for spectrum in spectra], 1))
            fused = torch.complex(amplitude * torch.cos(phase) + _TINY, amplitude * torch.sin(phase) + _TINY)
            image: Tensor = torch.fft.irfft2(fused, list(ms.shape[2:]))
            return image.abs()


def _fuser(*widths: int) -> nn.Sequential:
    layers: list[nn.Module] = [nn.Conv2d(widths[0], widths[1], 1)]
    for inputs, outputs in pairwise(widths[1:]):
        layers += [nn.LeakyReLU(0.1), nn.Conv2d(inputs, outputs, 1)]
    return nn.Sequential(*layers)


class GlobalFourier(nn.Module):
    """Spectra of the whole image, fused."""

    def __init__(self, channels: int) -> None:
        """Make the layers."""
        super().__init__()
        self.ms, self.pan, self.leave = (nn.Conv2d(channels, channels, 1) for _ in range(3))
        self.fusion = SpectrumFusion(2 * channels, channels, channels)

    def forward(self, ms: Tensor, pan: Tensor) -> Tensor:
        """(R, c, H, W) twice -> (R, c, H, W)."""
        out: Tensor = self.leave(self.fusion(self.ms(ms), self.pan(pan)))
        return out


class LocalFourier(nn.Module):
    """The same in 2 x 2 overlapping windows of two thirds of the side, each with its own fusers; overlaps averaged."""

    def __init__(self, channels: int) -> None:
        """Make the layers."""
        super().__init__()
        self.ms, self.pan, self.leave = (nn.Conv2d(channels, channels, 1) for _ in range(3))
        self.fusions = nn.ModuleList(SpectrumFusion(2 * channels, 8 * channels, channels, channels) for _ in range(4))

    def forward(self, ms: Tensor, pan: Tensor) -> Tensor:
        """(R, c, H, W) twice -> (R, c, H, W)."""
        ms, pan = self.ms(ms), self.pan(pan)
        height, width = ms.shape[2:]
        rows, cols = (
            (slice(0, side), slice(length - side, length))
            for length, side in ((height, _two_thirds(height)), (width, _two_thirds(width)))
        )
        total, count = torch.zeros_like(ms), ms.new_zeros(height, width)
        for fusion, place in zip(self.fusions, [(row, col) for row in rows for col in cols], strict=True):
            total[..., *place] += fusion(ms[..., *place], pan[..., *place])
            count[place] += 1
        out: Tensor = self.leave(total / count)
        return out


def _two_thirds(length: int) -> int:
    return round(2 * length / 3)


class ContrastAttention(nn.Module):
    """Channels weighted by their mean plus standard deviation."""

    def __init__(self, channels: int) -> None:
        """Make the layers."""
        super().__init__()
        self.squeeze = nn.Linear(channels, channels // 2)
        self.excite = nn.Linear(channels // 2, channels)

    def forward(self, x: Tensor) -> Tensor:
        """(R, channels, H, W) -> the same shape."""
        variance, mean = torch.var_mean(x, (2, 3), correction=0)
        weights = torch.sigmoid(self.excite(F.leaky_relu(self.squeeze(mean + (variance + _TINY).sqrt()), 0.1)))
        return x * weights[..., None, None]


class Gate(nn.Module):
    """Strengthens frequency features where they agree with the spatial ones."""

    def __init__(self, channels: int) -> None:
        """Make both convolutions."""
        super().__init__()
        self.first = nn.Conv2d(2 * channels, channels // 2, 3, padding=1)
        self.second = nn.Conv2d(channels // 2, channels, 3, padding=1)

    def forward(self, spatial: Tensor, frequency: Tensor) -> Tensor:
        """(R, channels, H, W) twice -> the same shape."""
        h = F.leaky_relu(self.first(torch.cat((spatial, frequency), 1)), 0.1)
        return frequency * (1 + torch.sigmoid(self.second(h)))


class Block(nn.Module):
    """Spatial, local and global features of MS's streams and PAN, and their exchange."""

    def __init__(self, channels: int, streams: int) -> None:
        """Make a block that takes one stream of MS features, or two."""
        super().__init__()
        self.pan = nn.Conv2d(channels, channels, 3, padding=1)
        self.project = nn.Conv2d(channels, channels, 1)
        self.spatial = FlowStep(channels, streams * channels, Dense)
        self.merge = nn.Conv2d((1 + streams) * channels, channels, 1)
        self.wide, self.near = GlobalFourier(channels), LocalFourier(channels)
        self.gates, self.attentions = (
            nn.ModuleList(make(channels) for _ in range(2)) for make in (Gate, ContrastAttention)
        )
        self.exchange, self.leave = (
            nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1) for _ in range(2)) for _ in range(2)
        )

    def forward(self, near: Tensor, wide: Tensor, pan: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Go through the block; in the first one both streams are the same.

        Args:
            near: (R, channels, H, W), what the local transforms made.
            wide: the same shape, what the global ones made.
            pan: the same shape.

        Returns:
            The three that follow. The streams cross over: the local transforms take what the global ones made.
        """
        pan = self.pan(pan)
        q = self.project(pan)
        streams = (near, q) if near is wide else (near, wide, q)
        spatial = self.merge(self.spatial(torch.cat(streams, 1), None))
        sources = wide, near
        made = [part(source, q) for part, source in zip((self.near, self.wide), sources, strict=True)]
        first, second = (gate(spatial, each) for gate, each in zip(self.gates, made, strict=True))
        first, second = first + self.exchange[0](second), second + self.exchange[1](first)
        near, wide = (
            leave(attention(each)) + source
            for leave, attention, each, source in zip(
                self.leave, self.attentions, (first, second), sources, strict=True
            )
        )
        return near, wide, pan


class HFIN(Pieced):
    """Five blocks of c channels on PAN and MS, their streams merged and refined as in CTINN.

    c is the number of bands, as published, rounded up to a multiple of four; ``config.features`` says otherwise. The
    published file takes images of 128 pixels alone, its windows' sides being written into it. z modulates the first
    convolution of MS, the last merge and the refinement: where the prior enters is ours.
    """

    whole = "Fourier transforms, channel attention"

    def __init__(self, config: ModelConfig) -> None:
        """Make the layers."""
        super().__init__(config)
        width = config.features or -(-config.group // 4) * 4
        self.memory = 30 + 15 * width
        self.ms = nn.Conv2d(config.ms_inputs, width, 3, padding=1)
        self.pan = nn.Conv2d(1, width, 3, padding=1)
        self.blocks = nn.ModuleList(Block(width, 1 if number == 0 else 2) for number in range(_BLOCKS))
        self.attention = ContrastAttention(2 * width)
        self.merge = ModulatedConv2d(2 * width, width, 3, config)
        self.refine = Refinement(width, config, whole=False)

    def piece(self, inputs: Inputs, z: Latent) -> Tensor:
        near = wide = self.ms(inputs.ms)
        pan = self.pan(inputs.P)
        for block in self.blocks:
            near, wide, pan = block(near, wide, pan)
        h = self.merge(self.attention(torch.cat((near, wide), 1)), z)
        out: Tensor = self.refine(h, z)
        return out
