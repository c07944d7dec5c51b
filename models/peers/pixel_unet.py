"""The denoiser of the pixel-space peer: a U-Net that sees PAN and MS beside the noisy residual."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class ModalCalibration(nn.Module):
    """PAN's and MS's features weighted channel by channel against each other before they condition the U-Net.

    What Meng et al. 2023 call the modal intercalibration module: the two inputs differ in kind, and concatenated as
    they are they would be treated alike. The weights come from the global means of both.
    """

    def __init__(self, ms_inputs: int, width: int) -> None:
        """Make a stem for each input, ``width / 2`` channels each, and their common gate."""
        super().__init__()
        self.pan = nn.Conv2d(1, width // 2, 3, padding=1)
        self.ms = nn.Conv2d(ms_inputs, width // 2, 3, padding=1)
        self.gate = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width), nn.Sigmoid())

    def forward(self, P: Tensor, ms: Tensor) -> Tensor:
        """(R, 1, H, W), (R, ms_inputs, H, W) -> (R, width, H, W)."""
        h = torch.cat((self.pan(P), self.ms(ms)), 1)
        out: Tensor = h * self.gate(h.mean((2, 3)))[..., None, None]
        return out


class ResidualBlock(nn.Module):
    """DDPM's block (Ho et al. 2020): group norm, SiLU, 3x3, twice, with the step's embedding in between."""

    def __init__(self, inputs: int, outputs: int, embedding: int) -> None:
        """Make a block from ``inputs`` to ``outputs`` channels."""
        super().__init__()
        self.before = nn.Sequential(_norm(inputs), nn.SiLU(), nn.Conv2d(inputs, outputs, 3, padding=1))
        self.time = nn.Linear(embedding, outputs)
        self.after = nn.Sequential(_norm(outputs), nn.SiLU(), nn.Conv2d(outputs, outputs, 3, padding=1))
        self.skip = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """(R, inputs, h, w), (R, embedding) -> (R, outputs, h, w)."""
        out: Tensor = self.skip(x) + self.after(self.before(x) + self.time(time)[..., None, None])
        return out


class UNet(nn.Module):
    """Residual blocks at each of several resolutions, halved from one to the next, with skips across."""

    def __init__(
        self, group: int, ms_inputs: int | None, width: int, multipliers: tuple[int, ...], blocks: int
    ) -> None:
        """Make the network.

        Args:
            group: channels of the noisy residual, and of the prediction.
            ms_inputs: channels of the MS condition; None: there is no condition at all.
            width: channels at full resolution, even.
            multipliers: channels at each resolution over ``width``.
            blocks: residual blocks at each resolution, on either side.
        """
        super().__init__()
        self.width, embedding = width, 4 * width
        self.time = nn.Sequential(nn.Linear(width, embedding), nn.SiLU(), nn.Linear(embedding, embedding), nn.SiLU())
        self.condition = None if ms_inputs is None else ModalCalibration(ms_inputs, width)
        self.enter = nn.Conv2d(group + (width if self.condition else 0), width, 3, padding=1)
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        self.shrink, self.grow = nn.ModuleList(), nn.ModuleList()
        channels = width
        for level, multiplier in enumerate(multipliers):
            wide = multiplier * width
            self.down.append(
                nn.ModuleList(ResidualBlock(wide if k else channels, wide, embedding) for k in range(blocks))
            )
            self.up.append(
                nn.ModuleList(ResidualBlock(wide if k else 2 * wide, wide, embedding) for k in range(blocks))
            )
            if level + 1 < len(multipliers):
                self.shrink.append(nn.Conv2d(wide, wide, 3, stride=2, padding=1))
                self.grow.append(nn.Conv2d(multipliers[level + 1] * width, wide, 3, padding=1))
            channels = wide
        self.middle = nn.ModuleList(ResidualBlock(channels, channels, embedding) for _ in range(2))
        self.leave = nn.Sequential(_norm(width), nn.SiLU(), nn.Conv2d(width, group, 3, padding=1))

    def forward(self, x: Tensor, t: Tensor, P: Tensor | None = None, ms: Tensor | None = None) -> Tensor:
        """Predict from a noisy residual.

        Args:
            x: (R, group, H, W), H and W multiples of 2^(resolutions - 1).
            t: (R,) steps.
            P: (R, 1, H, W), where there is a condition.
            ms: (R, ms_inputs, H, W), as well.

        Returns:
            (R, group, H, W).
        """
        time = self.time(step_embedding(t, self.width).to(x))
        h = self.enter(x if self.condition is None else torch.cat((x, self.condition(P, ms)), 1))
        skips = []
        for level, stage in enumerate(self.down):
            if level:
                h = self.shrink[level - 1](h)
            for block in _blocks(stage):
                h = block(h, time)
            skips.append(h)
        for block in self.middle:
            h = block(h, time)
        for level in reversed(range(len(self.up))):
            h = torch.cat((h, skips[level]), 1)
            for block in _blocks(self.up[level]):
                h = block(h, time)
            if level:
                h = self.grow[level - 1](F.interpolate(h, scale_factor=2.0, mode="nearest"))
        out: Tensor = self.leave(h)
        return out


def step_embedding(t: Tensor, width: int) -> Tensor:
    """Sines and cosines of the step at ``width / 2`` frequencies each, (R,) -> (R, width)."""
    frequencies = torch.exp(-math.log(10_000) * torch.arange(width // 2, device=t.device) / (width // 2))
    angles = t[:, None] * frequencies
    return torch.cat((angles.sin(), angles.cos()), 1)


def _blocks(stage: nn.Module) -> nn.ModuleList:
    assert isinstance(stage, nn.ModuleList)
    return stage


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(math.gcd(8, channels), channels)
