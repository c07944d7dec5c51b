"""MMNet: a memory-augmented deep unfolding network (Zhou et al., IJCV 131, 2023)."""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..config import ModelConfig
from ..contract import Inputs
from ..kernels import Conditioning, Latent, ModulatedConv2d
from ..layers import draw_normal
from .base import sample_cells
from .pieced import Pieced

_STAGES, _RATIO, _PAN_FEATURES = 3, 4, 7  # as published


class Memory(NamedTuple):
    """What a sub-step hands to its next turn: features, and the two states of its ConvLSTM."""

    features: Tensor
    hidden: Tensor | None = None
    cell: Tensor | None = None


def _conv(inputs: int, outputs: int, side: int, stride: int = 1) -> nn.Sequential:
    """Return a convolution without bias, and PReLU from .5."""
    return nn.Sequential(nn.Conv2d(inputs, outputs, side, stride, side // 2, bias=False), nn.PReLU(init=0.5))


class ResidualBlock(nn.Module):
    """Two convolutions with PReLU between them, and a skip."""

    def __init__(self, channels: int, side: int = 3) -> None:
        """Make a block of ``channels``."""
        super().__init__()
        self.first = _conv(channels, channels, side)
        self.second = nn.Conv2d(channels, channels, side, padding=side // 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(R, channels, h, w) -> the same shape."""
        out: Tensor = x + self.second(self.first(x))
        return out


def _merge(inputs: int, outputs: int) -> nn.Sequential:
    """Return a convolution with PReLU and two residual blocks."""
    return nn.Sequential(_conv(inputs, outputs, 3), ResidualBlock(outputs), ResidualBlock(outputs))


class PriorStep(nn.Module):
    """U is what an implicit prior makes of H beside PAN; V of SH."""

    def __init__(self, bands: int, config: ModelConfig) -> None:
        """Make the layers for ``bands`` channels."""
        super().__init__()
        self.pan = _conv(1, _PAN_FEATURES, 5)
        self.enter = ModulatedConv2d(bands + _PAN_FEATURES + 1, bands, 5, config, bias=False)
        self.activate = nn.PReLU(init=0.5)
        self.blocks = nn.Sequential(ResidualBlock(bands), ResidualBlock(bands))

    def forward(self, H: Tensor, P: Tensor, z: Latent) -> tuple[Tensor, Tensor]:
        """(R, C, h, w), (R, 1, h, w) -> U, (R, C, h, w), and what is remembered, (R, 3 C, h, w)."""
        x = self.activate(self.enter(torch.cat((H, self.pan(P), P), 1), z))
        U = self.blocks(x)
        return U, torch.cat((U, x, H), 1)


class DataStep(nn.Module):
    """H after a step of gradient descent towards MS and U, with learned operators and step sizes.

    Published, these start at .5: what comes out is then far from MS, and 120 steps of training ended at three times the
    loss that they do from .05 (.288 against .110).
    """

    def __init__(self, bands: int, inputs: int) -> None:
        """Make the layers; ``inputs`` are H and what is remembered."""
        super().__init__()
        self.down = _conv(inputs, bands, 5, _RATIO)
        self.up = nn.ConvTranspose2d(bands, bands, 5, _RATIO, 2, _RATIO - 1, bias=False)
        self.activate = nn.PReLU(init=0.5)
        self.alpha, self.beta = (nn.Parameter(torch.tensor(0.05)) for _ in range(2))

    def forward(self, H: Tensor, U: Tensor, L: Tensor, remembered: Tensor | None) -> tuple[Tensor, Tensor]:
        """(R, C, h, w) twice, (R, C, h/4, w/4), (R, C, h, w) or None -> H, and what is remembered, (R, 3 C, h, w)."""
        h = H if remembered is None else torch.cat((H, remembered), 1)
        missing = self.activate(self.up(L - self.down(h)))
        made = H - (self.alpha * missing + self.beta * (H - U))
        return made, torch.cat((h, made) if remembered is not None else (h, U, made), 1)


class CrossNonLocal(nn.Module):
    """Attention of H's features on themselves and on PAN's, each with a skip: what recurs far away."""

    def __init__(self, channels: int) -> None:
        """Make the layers; the inner width is half of ``channels``."""
        super().__init__()
        inner = max(1, channels // 2)
        self.query, self.key, self.pan_key = (nn.Conv2d(channels, inner, 3, 2, 1) for _ in range(3))
        self.value, self.pan_value = (nn.Conv2d(channels, inner, 1) for _ in range(2))
        self.leave, self.pan_leave = (
            nn.Sequential(nn.Conv2d(inner, channels, 1), nn.BatchNorm2d(channels)) for _ in range(2)
        )
        for norm in (self.leave[1], self.pan_leave[1]):
            # published: 0, which lets nothing behind it learn at the first step
            nn.init.constant_(norm.weight, 0.1)  # type: ignore[arg-type]

    def forward(self, H: Tensor, pan: Tensor) -> Tensor:
        """(R, channels, h, w) twice, sides multiples of 4 -> (R, 2 channels, h, w)."""
        queries = F.interpolate(self.query(H), scale_factor=2.0).flatten(2).transpose(1, 2)
        made = []
        sources = (H, self.key, self.value, self.leave), (pan, self.pan_key, self.pan_value, self.pan_leave)
        for source, key, value, leave in sources:
            keys = F.interpolate(F.max_pool2d(key(source), 2), scale_factor=2.0).flatten(2)
            values = F.max_pool2d(value(source), 2).flatten(2).transpose(1, 2)
            found = F.scaled_dot_product_attention(queries, keys.transpose(1, 2), values, scale=1.0)
            made.append(source + leave(found.transpose(1, 2).reshape(len(H), -1, *H.shape[2:])))
        return torch.cat(made, 1)


class NonLocalStep(nn.Module):
    """SH from H and PAN, at half of their size."""

    def __init__(self, bands: int) -> None:
        """Make the layers."""
        super().__init__()
        self.shrink, self.pan_shrink = _conv(bands, bands, 3, 2), _conv(1, bands, 3, 2)
        self.attention = CrossNonLocal(bands)
        self.merge = nn.Sequential(_conv(2 * bands, bands, 1), ResidualBlock(bands, 1))
        self.grow = nn.ConvTranspose2d(bands, bands, 3, 2, 1, 1, bias=False)
        draw_normal(self.grow.weight, 0.02)  # near MS too

    def forward(self, H: Tensor, P: Tensor) -> Tensor:
        """(R, C, h, w), (R, 1, h, w), sides multiples of 8 -> (R, C, h, w)."""
        out: Tensor = self.grow(self.merge(self.attention(self.shrink(H), self.pan_shrink(P))))
        return out


class Recall(nn.Module):
    """A ConvLSTM that carries a sub-step's memory from stage to stage."""

    def __init__(self, bands: int, outputs: int) -> None:
        """Make the layers; the state has twice as many channels as there are bands."""
        super().__init__()
        self.enter, self.leave = _merge(3 * bands, 2 * bands), _merge(2 * bands, outputs)
        self.gates = nn.Conv2d(4 * bands, 8 * bands, 3, padding=1, bias=False)

    def forward(self, memory: Memory) -> tuple[Tensor, Tensor, Tensor]:
        """Return what is recalled, (R, outputs, h, w), and the new states."""
        x = self.enter(memory.features)
        hidden = torch.zeros_like(x) if memory.hidden is None else memory.hidden
        cell = torch.zeros_like(x) if memory.cell is None else memory.cell
        i, f, o, g = self.gates(torch.cat((x, hidden), 1)).chunk(4, 1)
        cell = torch.sigmoid(f) * cell + torch.sigmoid(i) * torch.tanh(g)
        hidden = torch.sigmoid(o) * torch.tanh(cell)
        return self.leave(hidden), hidden, cell


class First(nn.Module):
    """The first stage, without memory: U, H, SH, V and SH again."""

    def __init__(self, bands: int, config: ModelConfig) -> None:
        """Make the sub-steps."""
        super().__init__()
        self.U, self.V = PriorStep(bands, config), PriorStep(bands, config)
        self.H, self.SH = DataStep(bands, bands), DataStep(bands, bands)
        self.non_local = NonLocalStep(bands)

    def forward(self, H: Tensor, L: Tensor, P: Tensor, z: Latent) -> tuple[Tensor, Tensor, list[Memory]]:
        """(R, C, h, w), (R, C, h/4, w/4), (R, 1, h, w) -> H, SH and the memories of the four sub-steps."""
        U, of_U = self.U(H, P, z)
        H, of_H = self.H(H, U, L, None)
        SH = self.non_local(H, P)
        V, of_V = self.V(SH, P, z)
        SH, of_SH = self.SH(SH, V, L, None)
        return H, SH, [Memory(each) for each in (of_U, of_H, of_V, of_SH)]


class Stage(nn.Module):
    """A later stage: the same sub-steps with their memories; all later stages are this one."""

    def __init__(self, bands: int, config: ModelConfig) -> None:
        """Make the sub-steps."""
        super().__init__()
        self.recalls = nn.ModuleList(Recall(bands, outputs) for outputs in (2 * bands, bands, 2 * bands, bands))
        self.mix_U, self.mix_V = _merge(3 * bands, bands), _merge(3 * bands, bands)
        self.U, self.V = PriorStep(bands, config), PriorStep(bands, config)
        self.H, self.SH = DataStep(bands, 2 * bands), DataStep(bands, 2 * bands)
        self.non_local = NonLocalStep(bands)

    def forward(
        self, H: Tensor, SH: Tensor, memories: list[Memory], L: Tensor, P: Tensor, z: Latent
    ) -> tuple[Tensor, Tensor, list[Memory]]:
        """(R, C, h, w) twice, memories, (R, C, h/4, w/4), (R, 1, h, w) -> H, SH and memories."""
        (mU, *of_U), (mH, *of_H), (mV, *of_V), (mS, *of_S) = (
            recall(memory) for recall, memory in zip(self.recalls, memories, strict=True)
        )
        U, kept_U = self.U(self.mix_U(torch.cat((SH, mU), 1)), P, z)
        H, kept_H = self.H(H, U, L, mH)
        SH = self.non_local(H, P) + H
        V, kept_V = self.V(self.mix_V(torch.cat((SH, mV), 1)), P, z)
        SH, kept_S = self.SH(SH, V, L, mS)
        kept = (kept_U, of_U), (kept_H, of_H), (kept_V, of_V), (kept_S, of_S)
        return H, SH, [Memory(features, *states) for features, states in kept]


class MMNet(Pieced):
    """A stage without memory and three with it, whose weights are shared; result of the last is the image itself.

    z modulates the convolutions that see PAN: where the prior enters is ours, the paper has no such row.
    """

    multiple = 8
    ratio = _RATIO
    whole = "non-local attention"

    def __init__(self, config: ModelConfig) -> None:
        """Make the stages."""
        super().__init__(config)
        self.memory = 110 * config.ms_inputs
        self.first = First(config.ms_inputs, config)
        self.stage = Stage(config.ms_inputs, config)

    def piece(self, inputs: Inputs, z: Latent) -> Tensor:
        if isinstance(z, Tensor):
            z = Conditioning(z)  # the stages have one kernel, as they have one convolution
        ms = inputs.ms
        L = sample_cells(ms, _RATIO)
        H, SH, memories = self.first(ms, L, inputs.P, z)
        for _ in range(_STAGES):
            H, SH, memories = self.stage(H, SH, memories, L, inputs.P, z)
        out: Tensor = SH[:, : inputs.M.shape[1]] - inputs.M
        return out
