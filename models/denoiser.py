"""z_theta(z_t, t, c): predicts the clean latent z_0 (paper eq. 9)."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .config import ModelConfig


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
        self.time = nn.Embedding(config.steps + 1, width)
        self.enter = nn.Linear(2 * config.latent, width)
        self.blocks = nn.Sequential(*(_Block(width) for _ in range(config.denoiser_blocks)))
        self.leave = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, config.latent))

    def forward(self, z_t: Tensor, t: Tensor, c: Tensor) -> Tensor:
        """(N, S, C_z), (N,) in 1..T, (N, S, C_z) -> predicted z_0, (N, S, C_z)."""
        h = self.enter(torch.cat((z_t, c), -1)) + self.time(t)[:, None]
        out: Tensor = self.leave(self.blocks(h))
        return out
