"""DDPM forward and DDIM reverse process over the latent z (paper sec. 3.2, eq. 5-9)."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from .config import ModelConfig

Predictor = Callable[[Tensor, Tensor], Tensor]
"""(z_t, t (N,)) -> predicted z_0."""


class Diffusion(nn.Module):
    """The schedule and both directions. t runs from 1 (least noise) to T; t = 0 is clean."""

    alpha_bar: Tensor
    """(T + 1,) cumulative products of alpha_t; alpha_bar[0] = 1."""

    def __init__(self, config: ModelConfig) -> None:
        """Compute beta_t = linspace(sqrt(beta_1), sqrt(beta_T), T)^2 and its products."""
        super().__init__()
        self.steps = config.steps
        beta = torch.linspace(config.beta_start**0.5, config.beta_end**0.5, config.steps, dtype=torch.float64) ** 2
        alpha_bar = torch.cat((torch.ones(1, dtype=torch.float64), torch.cumprod(1 - beta, 0)))
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

    def step(self, z_t: Tensor, z_0: Tensor, t: int, eta: float = 0.0, epsilon: Tensor | None = None) -> Tensor:
        """Go from z_t to z_(t-1) by DDIM, eq. 8 with the predicted z_0 in place of the predicted noise.

        The paper prints sigma_t^2 * epsilon for the noise term; DDIM, meant there, has sigma_t * epsilon.

        Args:
            z_t: (N, S, C_z).
            z_0: (N, S, C_z) predicted clean latent.
            t: the step that z_t stands at, 1..T.
            eta: 0 gives the deterministic sampler, 1 the variance of eq. 7.
            epsilon: (N, S, C_z) standard normal noise, needed when eta > 0.

        Returns:
            z_(t-1), (N, S, C_z).
        """
        bar, before = self.alpha_bar[t], self.alpha_bar[t - 1]
        noise = (z_t - bar.sqrt() * z_0) / (1 - bar).sqrt()
        sigma = eta * ((1 - before) / (1 - bar) * (1 - bar / before)).sqrt()
        out = before.sqrt() * z_0 + (1 - before - sigma**2).clamp(min=0).sqrt() * noise
        return out if epsilon is None else out + sigma * epsilon

    def reverse(self, predict: Predictor, z_T: Tensor) -> Tensor:
        """Run all T deterministic steps from z_T; gradients flow through all of them.

        Args:
            predict: the denoiser with its condition bound.
            z_T: (N, S, C_z).

        Returns:
            The last predicted z_0, (N, S, C_z).
        """
        z, z_0 = z_T, z_T
        for t in range(self.steps, 0, -1):
            z_0 = predict(z, torch.full((z.shape[0],), t, device=z.device))
            z = self.step(z, z_0, t)
        return z_0
