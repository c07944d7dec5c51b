"""A step of an invertible flow as a fusion layer, which CTINN and HFIN share; only its forward direction is used."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

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
