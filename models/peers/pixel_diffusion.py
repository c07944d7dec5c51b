"""The peer KSDiff is measured against: diffusion of the residual itself, pixel by pixel (PanDiff's kind).

PanDiff (Meng, Shi, Li, Zhang, IEEE TGRS 61, 2023): a U-Net learns to denoise the difference map between the truth and
upsampled MS, conditioned on PAN and MS after a modal intercalibration; it predicts epsilon under a mean squared
error; T = 2000 steps, all of them walked when sampling. The KSDiff paper times it at 261 s an image.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from reprlib import repr as shown
from typing import Any, ClassVar, Self

import torch
from torch import Tensor
from torch.nn import functional as F

from ..contract import Config, FusionModel, Inputs, ModelError, Statistics
from ..observation import Observed
from .pixel_unet import UNet

PREDICTIONS = ("epsilon", "x0")


@dataclass(frozen=True)
class PixelConfig(Config):
    """Sizes and schedule; PanDiff's sizes and beta were not found, those here are ours and SR3's."""

    kind: ClassVar[str] = "pixel-diffusion"
    """The :attr:`FusionModel.kind` of what is built from it."""
    bounds: ClassVar[Mapping[str, tuple[float, float]]] = {
        **Config.bounds,
        "width": (2, 1024),
        **dict.fromkeys(("multipliers", "blocks"), (1, 32)),
        **dict.fromkeys(("steps", "sampling_steps"), (1, 10_000)),
        **dict.fromkeys(("beta_start", "beta_end"), (1e-8, 0.9999)),
        **dict.fromkeys(("spread", "bound"), (1e-3, 1e6)),
    }
    """See :attr:`Config.bounds`."""

    width: int = 32
    """Channels of the U-Net at full resolution, even."""
    multipliers: tuple[int, ...] = (1, 2, 4)
    """Channels at each resolution over ``width``; each resolution is half of the one before."""
    blocks: int = 1
    """Residual blocks at each resolution, on either side."""
    prediction: str = "x0"
    """``x0``: the clean residual; ``epsilon``: the noise, as published, whose errors the first steps from pure noise
    amplify 150-fold. A toy of 1,000 steps ended at .007 of upsampling's error with x0, with epsilon above it."""
    steps: int = 2000
    """T, as published."""
    sampling_steps: int | None = None
    """Steps walked when sampling, evenly spaced among T; None: all, as published."""
    beta_start: float = 1e-6
    """beta_1 of the linear schedule that goes with T = 2000 (SR3, Saharia et al. 2021)."""
    beta_end: float = 1e-2
    """beta_T."""
    spread: float = 0.4
    """Residuals in standardised units are divided by this; measured .3 and .6 on two scenes of ratio 4."""
    bound: float = 10.0
    """Predicted residuals are kept within this many spreads; on the same scenes .01% of pixels lie beyond 8 or 9."""

    def __post_init__(self) -> None:
        """Refuse values no network can be built from."""
        super().__post_init__()
        if self.prediction not in PREDICTIONS:
            raise ModelError(
                f"config: no prediction is called {shown(self.prediction)}; known: {' '.join(PREDICTIONS)}"
            )
        if self.width % 2:
            raise ModelError(f"config: width must be even, not {self.width}")
        if (self.sampling_steps or 1) > self.steps:
            raise ModelError(f"config: sampling_steps must be 1 to {self.steps}, not {self.sampling_steps}")


class PixelDiffusion(FusionModel):
    """DDPM on the residual. Here x is (G - M) / spread, t runs from 1 (least noise) to T, t = 0 is clean."""

    kind = "pixel-diffusion"
    sampler = "ddpm"
    config: PixelConfig
    whole = "noise, calibration by global means: each window's own"
    margin = 32
    """Keeps the zeros around a window out of its core; seams stay, as noise and normalisation are each window's own."""
    alpha_bar: Tensor
    """(T + 1,) float64 cumulative products of alpha_t; 1 - alpha_bar[1] = 1e-6 is lost in float32."""

    def __init__(self, config: PixelConfig) -> None:
        """Make the U-Net and the schedule."""
        super().__init__()
        self.config = config
        self.sampling_steps = config.sampling_steps or config.steps
        """Steps walked by :meth:`fuse`, 1 to T; may be set for faster sampling."""
        self.multiple = 2 ** (len(config.multipliers) - 1)
        self.memory = 51 * config.width
        self.network = UNet(config.group, config.ms_inputs, config.width, config.multipliers, config.blocks)
        beta = torch.linspace(config.beta_start, config.beta_end, config.steps, dtype=torch.float64)
        alpha_bar = torch.cat((torch.ones(1, dtype=torch.float64), torch.cumprod(1 - beta, 0)))
        self.register_buffer("alpha_bar", alpha_bar, persistent=False)

    @classmethod
    def from_header(cls, header: dict[str, Any]) -> Self:
        return cls(PixelConfig.from_dict(header["config"]))

    def noise(self, seed: int = 0) -> Tensor:
        """Return the seed itself, () int64: pixel noise depends on the image's size, so :meth:`fuse` draws it."""
        return torch.tensor(seed, dtype=torch.int64)

    def forward(self, inputs: Inputs, x_t: Tensor, t: Tensor) -> Tensor:
        """Predict epsilon or x_0, as configured, from x_t, (R, group, H, W), at the steps t, (R,)."""
        out: Tensor = self.network(x_t, t, inputs.each(inputs.P), inputs.ms)
        return out

    def diffuse(self, x_0: Tensor, t: Tensor, epsilon: Tensor) -> Tensor:
        """Draw x_t from q(x_t | x_0); all (R, group, H, W), t (R,) in 0..T."""
        bar = self.alpha_bar[t].view(-1, 1, 1, 1)
        return bar.sqrt().to(x_0) * x_0 + (1 - bar).sqrt().to(x_0) * epsilon

    def losses(self, inputs: Inputs, random: torch.Generator) -> dict[str, Tensor]:
        """Return the training loss at random steps: mean squared error of epsilon, as published, or L1 of x_0.

        Args:
            inputs: standardised, with the ground truth.
            random: on the CPU; draws the steps and the noise.
        """
        assert inputs.G is not None
        x_0 = (inputs.G - inputs.M) / self.config.spread
        t = torch.randint(1, self.config.steps + 1, (x_0.shape[0],), generator=random).to(x_0.device)
        epsilon = torch.randn(x_0.shape, generator=random).to(x_0)
        predicted = self(inputs, self.diffuse(x_0, t, epsilon), t)
        if self.config.prediction == "epsilon":
            return {"loss": F.mse_loss(predicted, epsilon)}
        return {"loss": F.l1_loss(predicted, x_0)}

    def step(self, x_t: Tensor, predicted: Tensor, t: int, s: int, epsilon: Tensor) -> Tensor:
        """Go from x_t to x_s, s < t, by DDPM's posterior given the predicted x_0.

        Args:
            x_t: (R, group, H, W).
            predicted: the network's prediction at x_t, the same shape.
            t: the step that x_t stands at.
            s: the step to go to; t - 1 in the full chain.
            epsilon: standard normal noise, the same shape or one for all entries; unused at s = 0.

        Returns:
            x_s; at s = 0 the predicted x_0.
        """
        bar, to = self.alpha_bar[t].item(), self.alpha_bar[s].item()
        x_0 = predicted
        if self.config.prediction == "epsilon":
            x_0 = (x_t - (1 - bar) ** 0.5 * predicted) / bar**0.5
        x_0 = x_0.clamp(-self.config.bound, self.config.bound)
        direction = (x_t - bar**0.5 * x_0) / (1 - bar) ** 0.5
        variance = (1 - to) / (1 - bar) * (1 - bar / to)
        # rounding can take 1 - to - variance below zero at s = 0
        out: Tensor = to**0.5 * x_0 + max(0.0, 1 - to - variance) ** 0.5 * direction + variance**0.5 * epsilon
        return out

    @torch.no_grad()
    def sample(self, inputs: Inputs, noise: Tensor) -> Tensor:
        """Walk the reverse chain from pure noise.

        Args:
            inputs: standardised.
            noise: () seed, see :meth:`noise`. All entries share their noise, so that an image's result does not
                depend on those beside it.

        Returns:
            (R, group, H, W) fused, standardised units.
        """
        generator = torch.Generator().manual_seed(int(noise))

        def draw() -> Tensor:
            return torch.randn(1, *inputs.M.shape[1:], generator=generator).to(inputs.M)

        times = torch.linspace(self.config.steps, 0, self.sampling_steps + 1).round().int().tolist()
        x = draw().expand_as(inputs.M)
        for t, s in pairwise(times):
            at = torch.full((x.shape[0],), t, device=x.device)
            x = self.step(x, self(inputs, x, at), t, s, draw())
        return inputs.M + self.config.spread * x

    @torch.no_grad()
    def fuse(
        self,
        pan: Tensor,
        ms: Tensor | Observed,
        statistics: Statistics,
        ratio: int,
        noise: Tensor | None = None,
        *,
        kernels: Sequence[Tensor] | None = None,
    ) -> Tensor:
        """See :meth:`FusionModel.fuse`; there are no kernels to be fixed."""
        seed = self.noise() if noise is None else noise
        return self._fuse_by(lambda inputs: inputs.wanted(self.sample(inputs, seed)), pan, ms, statistics, ratio)
