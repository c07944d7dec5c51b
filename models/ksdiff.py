"""KSDiff: a fusion network whose kernels are modulated by a diffusion-made latent (paper sec. 3)."""

import math
from collections.abc import Sequence
from dataclasses import replace
from reprlib import repr as shown
from typing import Any, Self, cast, get_args

import torch
from torch import Tensor
from torch.nn import functional as F

from .backbones import make_backbone
from .config import ModelConfig
from .contract import Core, FusionModel, Inputs, ModelError, Stage, Statistics
from .diffusion import Denoiser, Diffusion
from .encoder import PLFE1, PLFE2, Entangled, second_order
from .kernels import Conditioning, GlobalLayer, Latent, ModulatedConv2d
from .observation import Observed


class KSDiff(FusionModel):
    """The whole method. Stage 1 holds PLFE1 and the network; stage 2 holds PLFE2, the denoiser and the network."""

    kind = "ksdiff"
    sampler = "ddim"
    trims = True
    config: ModelConfig
    stage: Stage

    def __init__(self, config: ModelConfig, stage: Stage = 2) -> None:
        """Make the parts that the stage needs; without a prior only the network."""
        super().__init__()
        self.config, self.stage = config, stage
        self.network = make_backbone(config)
        self.multiple, self.margin, self.memory = self.network.multiple, self.network.margin, self.network.memory
        self.observes, self.least_ratio = self.network.observes, self.network.least_ratio
        self.grid, self.whole = self.network.grid, self.network.scope
        if config.peak:
            self.scaling = f"DN / {config.peak:g}"
        if config.peak and self.observes:
            raise ModelError(f"config: the backbone {config.backbone} takes standardised values alone; leave out peak")
        if not config.prior:
            return
        self.multiple = math.lcm(self.multiple, config.patch)
        pan_inputs, ms_inputs, plain = 1 + config.details, config.ms_inputs, config.encoder == "entangled"
        if stage == 1:
            inputs = pan_inputs + ms_inputs + (1 + config.details) * config.group
            self.plfe1 = Entangled(config, inputs, branches=2) if plain else PLFE1(config, pan_inputs, ms_inputs)
        else:
            inputs = pan_inputs + ms_inputs
            self.plfe2 = Entangled(config, inputs, branches=1) if plain else PLFE2(config, pan_inputs, ms_inputs)
            self.denoiser = Denoiser(config)
            self.diffusion = Diffusion(config)

    @classmethod
    def from_header(cls, header: dict[str, Any]) -> Self:
        stage = header.get("stage")
        if type(stage) is not int or stage not in get_args(Stage):
            raise ModelError(f"the header's stage must be 1 or 2, not {shown(stage)}")
        return cls(ModelConfig.from_dict(header["config"]), cast(Stage, stage))

    def margin_at(self, ratio: float) -> int:
        return self.network.margin_at(ratio)

    def check(self, bands: int, ratio: float) -> None:
        super().check(bands, ratio)
        if self.network.ratio not in (None, round(ratio)):
            raise ModelError(
                f"the backbone {self.config.backbone} is made for ratio {self.network.ratio} alone, the data have "
                f"{ratio:.3g}; train another --backbone"
            )

    @property
    def needs_truth(self) -> bool:
        """See :attr:`FusionModel.needs_truth`."""
        return self.config.prior and self.stage == 1

    def noise(self, seed: int = 0) -> Tensor:
        """Draw z_T, (1, S, C_z), on the CPU: one draw for a whole scene, the same on every device.

        Where ``eta`` is above 0, the noise of the steps follows it, (1, S, C_z K) with K steps.
        """
        config, draws = self.config, 1
        if config.eta:
            draws = config.sampling_steps or config.steps
        return torch.randn(1, config.tokens, draws * config.latent, generator=torch.Generator().manual_seed(seed))

    def truth_latent(self, inputs: Inputs) -> Tensor:
        """Encode z_0 by PLFE1 from PAN, MS and the ground truth, (R, S, C_z)."""
        inputs = self._encoded(inputs)
        if inputs.G is None:
            raise ModelError("stage-1 weights need the ground truth to make their prior; sharpen with stage 2's")
        guide = torch.cat((inputs.G, inputs.G - inputs.M), 1) if self.config.details else inputs.G
        z: Tensor = self.plfe1(self._pan(inputs), inputs.ms, guide, inputs.image, *self._moments(inputs, truth=True))
        return z

    def condition(self, inputs: Inputs) -> Tensor:
        """Encode the condition c by PLFE2 from PAN and MS alone, (R, S, C_z)."""
        inputs = self._encoded(inputs)
        c: Tensor = self.plfe2(self._pan(inputs), inputs.ms, inputs.image, *self._moments(inputs, truth=False))
        return c

    def sample(self, inputs: Inputs, noise: Tensor) -> Tensor:
        """Run the reverse diffusion; gradients flow.

        Args:
            inputs: standardised.
            noise: (1 or R, S, C_z) z_T, then perhaps what the steps add, see :meth:`noise`; without it they add none.

        Returns:
            The predicted z_0, (R, S, C_z).
        """
        c = self.condition(inputs)
        z_T, *epsilons = torch.split(noise.expand(len(c), -1, -1), self.config.latent, -1)
        return self.diffusion.reverse(lambda z, t: self.denoiser(z, t, c), z_T, epsilons)

    def latent(self, inputs: Inputs, noise: Tensor | None = None) -> Tensor | None:
        """Make the latent that :meth:`fuse` would use.

        Args:
            inputs: standardised; in stage 1 with the ground truth.
            noise: as :meth:`sample` takes it; None draws the one of seed 0. Stage 1 needs none.

        Returns:
            (R, S, C_z), or None from a network without prior.

        Raises:
            ModelError: stage 1 without the ground truth.
        """
        if not self.config.prior:
            return None
        if self.stage == 1:
            return self.truth_latent(inputs)
        return self.sample(inputs, (self.noise() if noise is None else noise).to(inputs.P))

    def forward(self, inputs: Inputs, z: Latent) -> Tensor:
        """Fuse: (R, group, h, w) of the core in standardised units, from sides that are multiples of ``multiple``."""
        out: Tensor = self.network(inputs if self.network.per_image else inputs.apart(), z)
        return out if self.network.complete else inputs.wanted(inputs.M) + out

    @torch.no_grad()
    def kernels(
        self,
        pan: Tensor,
        ms: Tensor | Observed,
        statistics: Statistics,
        ratio: int,
        noise: Tensor | None = None,
        latent: Tensor | None = None,
    ) -> list[Tensor]:
        """See :meth:`FusionModel.kernels`: W of every modulated convolution, (B, C_out, C_in / groups, k, k), eq. 3.

        A ``latent`` replaces the one that would be made, as in :meth:`fuse`.
        """
        parts = self._global_layers()
        if not parts:
            return []
        inputs = self.prepare(*self._padded(pan, ms), statistics, ratio)
        bands = len(inputs.M) // len(pan) if self.config.bands is None and not self.network.per_image else 1
        taken = Conditioning(self.latent(inputs, noise) if latent is None else self._given(latent, inputs))
        self(inputs, taken)
        made = [taken.made[part] for part in parts]
        return [each.view(-1, bands, *each.shape[1:]).mean(0) for each in made]

    @torch.no_grad()
    def fuse(
        self,
        pan: Tensor,
        ms: Tensor | Observed,
        statistics: Statistics,
        ratio: int,
        noise: Tensor | None = None,
        latent: Tensor | None = None,
        *,
        kernels: Sequence[Tensor] | None = None,
        core: Core | None = None,
    ) -> Tensor:
        """See :meth:`FusionModel.fuse`.

        A ``latent``, (1 or R, S, C_z), replaces the one that would be made: zeros, another image's, one edited. Of a
        ``core``, only these rows and columns are made and returned.

        Raises:
            ModelError: a latent is given to a network without prior, or one of another shape; or kernels that are not
                this network's.
        """

        def network(inputs: Inputs) -> Tensor:
            if kernels is not None:
                return self._fuse_with(kernels, inputs, 1 if self.network.per_image else len(inputs.M) // len(pan))
            z = self.latent(inputs, noise) if latent is None else self._given(latent, inputs)
            out: Tensor = self(inputs, z)
            return out

        encodes = kernels is None and self.config.prior
        return self._fuse_by(network, pan, ms, statistics, ratio, core, encodes or not self.network.complete)

    def fixed(self, kernels: Sequence[Tensor]) -> Conditioning:
        """Return what :meth:`forward` takes in place of z where one set of kernels serves all bands and images."""
        return Conditioning(made=dict(zip(self._global_layers(), kernels, strict=True)))

    def folded(self, kernels: Sequence[Tensor]) -> "KSDiff":
        """Return the plain network, without a prior, that this one is with one set of kernels: W0 * W in place of W0.

        Args:
            kernels: as :meth:`kernels` returns them, of one image; none where this one is plain.
        """
        plain = KSDiff(replace(self.config, prior=False))
        plain.to(next(self.parameters()).device)
        known, fixed = self.network.state_dict(), self.fixed(kernels)
        plain.network.load_state_dict({name: known[name] for name in plain.network.state_dict()})
        parts, plains = ([part for part in one.modules() if isinstance(part, ModulatedConv2d)] for one in (self, plain))
        with torch.no_grad():
            for part, own in zip(parts, plains, strict=True):
                own.base.weight.copy_(part.weight(part.base.weight, fixed)[0])
        return plain

    def _global_layers(self) -> list[GlobalLayer]:
        return [part for part in self.network.modules() if isinstance(part, GlobalLayer)]

    def _fuse_with(self, kernels: Sequence[Tensor], inputs: Inputs, bands: int) -> Tensor:
        """Fuse one band after the other where they share the network: all images have the same kernel then."""
        parts = self._global_layers()
        if len(kernels) != len(parts) or any(len(kernel) != bands for kernel in kernels):
            raise ModelError(
                f"the kernels are {len(kernels)} of {len(kernels[0]) if kernels else 0} bands, "
                f"the network takes {len(parts)} of {bands}"
            )
        if self.network.per_image:
            together: Tensor = self(inputs, self.fixed(kernels))
            return together
        fused = torch.empty_like(inputs.wanted(inputs.M))
        for band in range(bands):
            images = slice(band, None, bands)
            own = Conditioning(made={part: kernel[band, None] for part, kernel in zip(parts, kernels, strict=True)})
            fused[images] = self(inputs.rows(images), own)
        return fused

    def entries(self, inputs: Inputs) -> int:
        """Return R, how many latents the inputs take: one an image, or one each of its bands."""
        return len(inputs.P) if self.network.per_image else len(inputs.M)

    def _encoded(self, inputs: Inputs) -> Inputs:
        """Return what the encoders look at."""
        return inputs.summary() if self.network.per_image else inputs

    def _pan(self, inputs: Inputs) -> Tensor:
        """(N, 1 or 2, H, W), what the encoders see of PAN."""
        return torch.cat((inputs.P, inputs.detail), 1) if self.config.details else inputs.P

    def _units(self, statistics: Statistics) -> Statistics:
        peak = self.config.peak
        if peak is None:
            return statistics
        pan, ms = statistics.pan_mean, statistics.ms_mean
        none, peaks = torch.zeros_like, torch.full_like
        return Statistics(none(pan), peaks(pan, peak), none(ms), peaks(ms, peak), statistics.cameras)

    def _moments(self, inputs: Inputs, truth: bool) -> tuple[Tensor, ...]:
        if not self.config.moments or self.config.encoder == "entangled":
            return ()
        return (second_order(inputs, round(self.config.tokens**0.5), truth),)

    def _given(self, latent: Tensor, inputs: Inputs) -> Tensor:
        if not self.config.prior:
            raise ModelError("a network without prior takes no latent")
        rows, shape = self.entries(inputs), (self.config.tokens, self.config.latent)
        if latent.shape[1:] != shape or latent.shape[0] not in (1, rows):
            raise ModelError(f"the latent has shape {tuple(latent.shape)}, the network takes {(rows, *shape)}")
        return latent.to(inputs.P).expand(rows, *shape)


def regression_loss(inputs: Inputs, H: Tensor) -> Tensor:
    """L1 between ground truth and result, eq. 4 and the second term of eq. 10, in standardised units."""
    assert inputs.G is not None
    return F.l1_loss(H, inputs.G)


def diffusion_loss(z_0: Tensor, predicted: Tensor) -> Tensor:
    """L1 between the target latent of PLFE1 and the denoiser's prediction, eq. 9."""
    return F.l1_loss(predicted, z_0)
