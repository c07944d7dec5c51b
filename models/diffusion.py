"""DDPM forward and DDIM reverse process over the latent z (paper sec. 3.2, eq. 5-9)."""

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .config import ModelConfig
from .layers import draw_normal

Predictor = Callable[[Tensor, Tensor], Tensor]
"""(z_t, t (N,)) -> predicted z_0."""
_PUBLISHED = 4
"""T of the published schedule."""


class Diffusion(nn.Module):
    """The schedule and both directions. t runs from 1 (least noise) to T; t = 0 is clean."""

    alpha_bar: Tensor
    """(T + 1,) cumulative products of alpha_t; alpha_bar[0] = 1."""

    def __init__(self, config: ModelConfig) -> None:
        """Compute beta_t = linspace(sqrt(beta_1), sqrt(beta_T), T)^2 and its products.

        As it is, it belongs to T = 4: with T = 127 alpha_bar_T is 0 in float32. Spread over T steps, every alpha_t is
        raised to the power that leaves alpha_bar_T what it is at T = 4.
        """
        super().__init__()
        self.steps, self.eta = config.steps, config.eta
        count = config.sampling_steps or config.steps
        self.times: list[int] = [config.steps * (count - k) // count for k in range(count + 1)]
        """The steps walked by :meth:`reverse`, from T down to 0."""

        def alpha(steps: int) -> Tensor:
            ends = config.beta_start**0.5, config.beta_end**0.5
            return 1 - torch.linspace(*ends, steps, dtype=torch.float64, device="cpu") ** 2

        alphas = alpha(config.steps)
        if config.spread_beta:
            alphas = alphas ** (alpha(_PUBLISHED).log().sum() / alphas.log().sum())
        alpha_bar = torch.cat((torch.ones(1, dtype=torch.float64, device="cpu"), torch.cumprod(alphas, 0)))
        self.register_buffer("alpha_bar", alpha_bar.float(), persistent=False)

    def forward(self, z_0: Tensor, t: Tensor, epsilon: Tensor) -> Tensor:
        """Draw z_t from q(z_t | z_0), eq. 6.

        Args:
            z_0: (N, S, C_z) clean latents.
            t: (N,) steps in 0..T.
            epsilon: (N, S, C_z) standard normal noise.

        Returns:
            z_t, (N, S, C_z).
        """
        bar = self.alpha_bar[t].view(-1, 1, 1)
        return bar.sqrt() * z_0 + (1 - bar).sqrt() * epsilon

    def step(
        self, z_t: Tensor, z_0: Tensor, t: int, eta: float = 0.0, epsilon: Tensor | None = None, s: int | None = None
    ) -> Tensor:
        """Go from z_t to an earlier z_s by DDIM, eq. 8 with the predicted z_0 in place of the predicted noise.

        The paper prints sigma_t^2 * epsilon for the noise term; DDIM, meant there, has sigma_t * epsilon.

        Args:
            z_t: (N, S, C_z).
            z_0: (N, S, C_z) predicted clean latent.
            t: the step that z_t stands at, 1..T.
            eta: 0 gives the deterministic sampler, 1 the variance of eq. 7.
            epsilon: (N, S, C_z) standard normal noise, needed when eta > 0.
            s: the step to go to, 0..t-1; None: t - 1.

        Returns:
            z_s, (N, S, C_z).
        """
        bar, before = self.alpha_bar[t], self.alpha_bar[t - 1 if s is None else s]
        # the first of many steps adds less noise than float32 can tell from none
        noise = (z_t - bar.sqrt() * z_0) / (1 - bar).clamp(min=1e-12).sqrt()
        if eta == 0 or epsilon is None:
            return before.sqrt() * z_0 + (1 - before).clamp(min=0).sqrt() * noise
        sigma = eta * ((1 - before) / (1 - bar).clamp(min=1e-12) * (1 - bar / before)).sqrt()
        return before.sqrt() * z_0 + (1 - before - sigma**2).clamp(min=0).sqrt() * noise + sigma * epsilon

    def reverse(self, predict: Predictor, z_T: Tensor, epsilons: Sequence[Tensor] = ()) -> Tensor:
        """Walk from z_T to a clean latent; gradients flow through all steps.

        Args:
            predict: the denoiser with its condition bound.
            z_T: (N, S, C_z).
            epsilons: standard normal noise of z_T's shape for every step but the last, needed when eta > 0.

        Returns:
            The last predicted z_0, (N, S, C_z).
        """
        z, z_0 = z_T, z_T
        for number, (t, s) in enumerate(pairwise(self.times)):
            z_0 = predict(z, torch.full((z.shape[0],), t, device=z.device))
            if s:
                z = self.step(z, z_0, t, self.eta, epsilons[number] if epsilons else None, s)
        return z_0


# ---- the denoiser


class _Block(nn.Module):
    """Residual MLP on every token, which also sees the tokens' mean."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(2 * width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, h: Tensor) -> Tensor:
        x = self.norm(h)
        enter, activate, leave = self.mlp
        assert isinstance(enter, nn.Linear)
        # the mean is the same for all tokens: its half of the first layer is computed once an image, not once a token
        own, common = enter.weight.chunk(2, 1)
        hidden = F.linear(x, own) + F.linear(x.mean(1, keepdim=True), common, enter.bias)
        out: Tensor = h + leave(activate(hidden))
        return out


class Denoiser(nn.Module):
    """A small token MLP; the latent is so compact that nothing larger is needed."""

    def __init__(self, config: ModelConfig) -> None:
        """Make the network for the configured latent and number of steps."""
        super().__init__()
        width = config.denoiser_width
        self.time = nn.Embedding(config.steps + 1, width, _weight=draw_normal(torch.empty(config.steps + 1, width)))
        self.enter = nn.Linear(2 * config.latent, width)
        self.blocks = nn.Sequential(*(_Block(width) for _ in range(config.denoiser_blocks)))
        self.leave = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, config.latent))

    def forward(self, z_t: Tensor, t: Tensor, c: Tensor) -> Tensor:
        """(N, S, C_z), (N,) in 1..T, (N, S, C_z) -> predicted z_0, (N, S, C_z)."""
        h = self.enter(torch.cat((z_t, c), -1)) + self.time(t)[:, None]
        out: Tensor = self.leave(self.blocks(h))
        return out
