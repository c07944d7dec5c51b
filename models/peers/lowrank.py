"""What PLRDiff finds out of an image before it samples: blur, band weights, spectra and what these leave out.

All images are in the units of the posterior, about 0 to 1.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

KERNEL = 11
"""Side of the blur's kernel, PAN pixels."""
_FIT_RATE, _LEFT_RATE, _RIDGE = 500.0, 3.0, 1e-4  # as published
_CONTRAST = 0.1  # largest standard deviation of PAN at which the first of them is stable


@dataclass(frozen=True)
class Camera:
    """How PAN and MS came to be: Y = D(k * X), P = r X."""

    kernel: Tensor
    """(1, 1, 11, 11) k, positive, adds up to one."""
    weights: Tensor
    """(C,) r, positive, add up to one."""
    ratio: int

    def degrade(self, X: Tensor) -> Tensor:
        """See an image as the MS camera does: (N, C, H, W) -> (N, C, H / ratio, W / ratio)."""
        n, bands = X.shape[:2]
        seen = F.conv2d(_around(X.flatten(0, 1)[:, None], self.ratio), self.kernel, stride=self.ratio)
        return seen.view(n, bands, *seen.shape[2:])

    def mix(self, X: Tensor) -> Tensor:
        """See an image as the PAN camera does: (N, C, H, W) -> (N, 1, H, W)."""
        return (X * self.weights[:, None, None]).sum(1, keepdim=True)


def _around(X: Tensor, ratio: int) -> Tensor:
    """Pad so that the kernel lies on the middle of every cell where it starts at multiples of ``ratio``."""
    before, after = KERNEL // 2 - ratio // 2, KERNEL // 2
    return F.pad(X, (before, after, before, after), mode="replicate")


def fit_camera(P: Tensor, Y: Tensor, ratio: int, steps: int) -> Camera:
    """Find blur and band weights such that PAN and MS agree where they meet, D(k * P) = r Y, by gradient descent.

    Args:
        P: (1, 1, H, W).
        Y: (1, C, H / ratio, W / ratio).
        ratio: PAN pixels per MS pixel along a side.
        steps: of gradient descent.
    """
    fainter = min(1.0, _CONTRAST / max(_CONTRAST, P.std(correction=0).item()))
    windows = fainter * F.unfold(_around(P, ratio), KERNEL, stride=ratio)[0].T  # (pixels, 121)
    spectra = fainter * Y[0].flatten(1).T
    with torch.enable_grad():
        kernel = torch.zeros(KERNEL**2, device=P.device, requires_grad=True)
        weights = torch.zeros(Y.shape[1], device=P.device, requires_grad=True)
        optimizer = torch.optim.SGD([kernel, weights], lr=_FIT_RATE)
        for _ in range(steps):
            optimizer.zero_grad()
            loss = F.mse_loss(windows @ kernel.softmax(0), spectra @ weights.softmax(0))
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    return Camera(kernel.detach().softmax(0).view(1, 1, KERNEL, KERNEL), weights.detach().softmax(0), ratio)


def choose_bands(bands: int, rank: int) -> list[int]:
    """Return the bands that span the others, evenly spaced."""
    step = (bands + 1) // (rank + 1)
    return [number * step - 1 for number in range(1, rank + 1)]


def find_spectra(Y: Tensor, chosen: list[int]) -> Tensor:
    """Return E, (C, rank), by which the chosen bands make all of MS, (1, C, h, w), in the sense of least squares."""
    every = Y[0].flatten(1)
    base = every[chosen]
    gram = base @ base.T + _RIDGE * torch.eye(len(chosen), device=Y.device)
    found: Tensor = torch.linalg.solve(gram, base @ every.T).T
    return found


def fit_rest(Y: Tensor, E: Tensor, chosen: list[int], camera: Camera, steps: int) -> Tensor:
    """Return R, (1, C, H, W): what MS holds beside the span of the chosen bands, brought to PAN's size.

    Zero after no steps, as in the variant without it; else by gradient descent from bicubic interpolation.
    """
    left = Y - torch.einsum("cs,nshw->nchw", E, Y[:, chosen])
    start = F.interpolate(left, scale_factor=float(camera.ratio), mode="bicubic")
    if steps == 0:
        return torch.zeros_like(start)
    with torch.enable_grad():
        R = start.requires_grad_()
        optimizer = torch.optim.SGD([R], lr=_LEFT_RATE)
        for _ in range(steps):
            optimizer.zero_grad()
            loss = (camera.degrade(R) - left).square().sum()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    return R.detach()
