"""KSDiff: a fusion network whose kernels are modulated by a diffusion-made latent (paper sec. 3)."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from .backbone_pannextu import PanNeXtU
from .config import ModelConfig
from .contract import FusionModel, ModelError, Statistics, pad_to_multiple
from .denoiser import Denoiser
from .diffusion import Diffusion
from .encoder import PLFE1, PLFE2
from .layers import low_pass

Stage = Literal[1, 2]
_SMALLEST_STD = 1e-6


@dataclass(frozen=True)
class Inputs:
    """Standardised inputs; a network shared by all bands has one entry per image and band (R = N * C), others R = N."""

    P: Tensor
    """(R, 1, H, W) PAN."""
    detail: Tensor
    """(R, 1, H, W) PAN minus its low-pass: what the MS camera cannot see."""
    M: Tensor
    """(R, group, H, W) upsampled MS."""
    context: Tensor
    """(R, 1 or 0, H, W) mean of the image's bands, where a run sees only one of them."""
    G: Tensor | None
    """(R, group, H, W) ground truth, in stage 1 and for losses."""

    def rows(self, chosen: Tensor) -> "Inputs":
        """Return the chosen entries: training on a few bands of many images beats all bands of few."""
        G = None if self.G is None else self.G[chosen]
        return Inputs(self.P[chosen], self.detail[chosen], self.M[chosen], self.context[chosen], G)


class KSDiff(FusionModel):
    """The whole method. Stage 1 holds PLFE1 and the network; stage 2 holds PLFE2, the denoiser and the network."""

    def __init__(self, config: ModelConfig, stage: Stage = 2) -> None:
        """Make the parts that the stage needs; without a prior only the network."""
        super().__init__()
        self.config, self.stage = config, stage
        self.multiple = 2 * config.patch
        shared = int(config.bands is None)
        ms_inputs = config.group + shared
        self.network = PanNeXtU(config, inputs=2 + ms_inputs)
        if config.prior and stage == 1:
            self.plfe1 = PLFE1(config, 2, ms_inputs)
        if config.prior and stage == 2:
            self.plfe2 = PLFE2(config, 2, ms_inputs)
            self.denoiser = Denoiser(config)
            self.diffusion = Diffusion(config)

    def check(self, bands: int, ratio: int) -> None:
        """See :meth:`FusionModel.check`."""
        if self.config.bands is not None and bands != self.config.bands:
            raise ModelError(f"the weights are for {self.config.bands} MS bands, the data have {bands}: choose with -b")
        if ratio < 2:
            raise ModelError(f"the network sharpens at ratios of 2 and more, not {ratio}")

    def noise(self, seed: int = 0) -> Tensor:
        """Draw z_T, (1, S, C_z), on the CPU: one draw for a whole scene, the same on every device."""
        generator = torch.Generator().manual_seed(seed)
        return torch.randn(1, self.config.tokens, self.config.latent, generator=generator)

    def prepare(
        self, pan: Tensor, ms_up: Tensor, statistics: Statistics, ratio: int, gt: Tensor | None = None
    ) -> Inputs:
        """Standardise a batch and, for a network shared by all bands, turn bands into entries.

        Args:
            pan: (N, 1, H, W) DN.
            ms_up: (N, C, H, W) DN.
            statistics: of the scenes the images come from.
            ratio: PAN pixels per MS pixel along a side.
            gt: (N, C, H, W) DN, when known.
        """
        P = (pan - statistics.pan_mean[..., None, None]) / _spread(statistics.pan_std)
        M = (ms_up - statistics.ms_mean[..., None, None]) / _spread(statistics.ms_std)
        G = None if gt is None else (gt - statistics.ms_mean[..., None, None]) / _spread(statistics.ms_std)
        detail = P - low_pass(P, ratio)
        if self.config.bands is not None:
            return Inputs(P, detail, M, M[:, :0], G)
        bands, size = M.shape[1], M.shape[2:]
        repeated = [x.repeat_interleave(bands, 0) for x in (P, detail, M.mean(1, keepdim=True))]
        G = None if G is None else G.reshape(-1, 1, *size)
        return Inputs(repeated[0], repeated[1], M.reshape(-1, 1, *size), repeated[2], G)

    def truth_latent(self, inputs: Inputs) -> Tensor:
        """Encode z_0 by PLFE1 from PAN, MS and the ground truth, (R, S, C_z)."""
        if inputs.G is None:
            raise ModelError("stage-1 weights need the ground truth to make their prior; sharpen with stage 2's")
        P, M = self._branches(inputs)
        z: Tensor = self.plfe1(P, M, torch.cat((inputs.G, inputs.G - inputs.M), 1))
        return z

    def condition(self, inputs: Inputs) -> Tensor:
        """Encode the condition c by PLFE2 from PAN and MS alone, (R, S, C_z)."""
        c: Tensor = self.plfe2(*self._branches(inputs))
        return c

    def sample(self, inputs: Inputs, z_T: Tensor) -> Tensor:
        """Run the reverse diffusion from z_T, (1 or R, S, C_z); gradients flow. Returns the predicted z_0."""
        c = self.condition(inputs)
        return self.diffusion.reverse(lambda z, t: self.denoiser(z, t, c), z_T.expand_as(c))

    def forward(self, inputs: Inputs, z: Tensor | None) -> Tensor:
        """Fuse: (R, group, H, W) in standardised units, from sides that are multiples of ``multiple``."""
        # PAN's low-pass minus MS: where it is zero, PAN's detail is the band's detail
        x = torch.cat((inputs.detail, inputs.P - inputs.detail - inputs.M[:, :1], inputs.M, inputs.context), 1)
        residual: Tensor = self.network(x, z)
        return inputs.M + residual

    @torch.no_grad()
    def fuse(
        self, pan: Tensor, ms_up: Tensor, statistics: Statistics, ratio: int, noise: Tensor | None = None
    ) -> Tensor:
        """See :meth:`FusionModel.fuse`."""
        height, width = pan.shape[-2:]
        pan, ms_up = pad_to_multiple(pan, self.multiple), pad_to_multiple(ms_up, self.multiple)
        inputs = self.prepare(pan, ms_up, statistics, ratio)
        fused = self(inputs, self._latent(inputs, noise))
        fused = fused.reshape(ms_up.shape)[..., :height, :width]
        out: Tensor = fused * _spread(statistics.ms_std) + statistics.ms_mean[..., None, None]
        return out

    def _latent(self, inputs: Inputs, noise: Tensor | None) -> Tensor | None:
        if not self.config.prior:
            return None
        if self.stage == 1:
            return self.truth_latent(inputs)
        return self.sample(inputs, (self.noise() if noise is None else noise).to(inputs.P))

    def _branches(self, inputs: Inputs) -> tuple[Tensor, Tensor]:
        return torch.cat((inputs.P, inputs.detail), 1), torch.cat((inputs.M, inputs.context), 1)


def _spread(std: Tensor) -> Tensor:
    """(N, C) -> (N, C, 1, 1), a constant band's zero replaced by one."""
    return torch.where(std > _SMALLEST_STD, std, torch.ones_like(std))[..., None, None]


def regression_loss(inputs: Inputs, H: Tensor) -> Tensor:
    """L1 between ground truth and result, eq. 4 and the second term of eq. 10, in standardised units."""
    assert inputs.G is not None
    return F.l1_loss(H, inputs.G)


def diffusion_loss(z_0: Tensor, predicted: Tensor) -> Tensor:
    """L1 between the target latent of PLFE1 and the denoiser's prediction, eq. 9."""
    return F.l1_loss(predicted, z_0)
