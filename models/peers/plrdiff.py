"""PLRDiff: posterior sampling of a low-rank image by an unconditional prior (Rui et al., Information Fusion 107, 2024).

The published prior was trained by others, on millions of RGB tiles, has 391 million parameters and cannot be had here.
This one is a stand-in: ksdiff's own pixel-space U-Net, trained without conditions on three bands of training patches.
Whatever shows this method's figures must say so; :attr:`PLRDiff.caveat` does.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar, Self

import torch
from torch import Tensor
from torch.nn import functional as F

from ..backbones.base import sample_cells
from ..contract import Inputs, ModelError, Statistics, pad_to_multiple
from .pixel_diffusion import PixelConfig, PixelDiffusion
from .pixel_unet import UNet

_RANK, _STEEP, _LEAST = 3, 10.0, 1e-3
_SPREADS = 4.0  # standard deviations above the mean that are taken for the largest value

Prior = Callable[[Tensor, Tensor], Tensor]
"""An unconditional denoiser: (N, 3, H, W) noisy images in -1..1 and their steps, (N,), -> the noise in them."""


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


@dataclass(frozen=True)
class PLRConfig(PixelConfig):
    """The sampler's published constants, and the size of the prior that stands in."""

    kind: ClassVar[str] = "plrdiff"
    bounds: ClassVar[Mapping[str, tuple[float, float]]] = {
        **PixelConfig.bounds,
        **dict.fromkeys(("fit_steps", "rest_steps"), (0, 100_000)),
        "eta": (0, 1000),
    }
    """See :attr:`Config.bounds`."""

    prediction: str = "epsilon"
    steps: int = 500
    bound: float = 1.0
    """The base is kept within -1..1."""
    fit_steps: int = 15_000
    """Steps of gradient descent that find blur and band weights."""
    rest_steps: int = 100
    """Steps that find what is beside the base's span (the variant "-res opt"); 0 leaves it out."""
    eta: float = 2.0
    """Weight of the gradients of both distances, MS's and PAN's."""


class PLRDiff(PixelDiffusion):
    """X = E A + R: three bands' worth of image A, drawn by the prior under MS and PAN, and the spectra E of MS.

    Units are those in which the brightest four deviations above the mean are 1, over PAN and all bands. Any number of
    bands from three on: the prior never sees more. Noise, blur and band weights are each window's own.
    """

    kind = "plrdiff"
    config: PLRConfig
    scaling = "DN / (the largest mean + 4 standard deviations of PAN and the bands)"
    whole = "noise, blur and band weights: each window's own"
    caveat = (
        "PLRDiff's published prior (391 million parameters, millions of images) is not to be had; a small U-Net "
        "trained on the training patches' bands stands in for it"
    )

    def __init__(self, config: PLRConfig) -> None:
        """Make the stand-in prior and the schedule, alpha_bar ~ 1 - exp(-10 (1 - t / T)), rescaled to end at .001."""
        super().__init__(config)
        self.network = UNet(_RANK, None, config.width, config.multipliers, config.blocks)
        fall = 1 - torch.exp(-_STEEP * (1 - torch.linspace(0, 1, config.steps + 1, dtype=torch.float64)))
        self.alpha_bar = _LEAST + (1 - _LEAST) * fall / fall[0]

    @classmethod
    def from_header(cls, header: dict[str, Any]) -> Self:
        return cls(PLRConfig.from_dict(header["config"]))

    def check(self, bands: int, ratio: float) -> None:
        """See :meth:`FusionModel.check`; how many bands the prior was trained on does not matter."""
        if bands < _RANK:
            raise ModelError(f"PLRDiff needs {_RANK} MS bands or more, the data have {bands}; take another method")
        if not 2 <= round(ratio) <= 10:
            raise ModelError(f"PLRDiff's blur suits ratios of 2 to 10, not {ratio:.3g}; take another method")

    def prepare(
        self,
        pan: Tensor,
        ms: Tensor | Any,
        statistics: Statistics,
        ratio: int,
        gt: Tensor | None = None,
        *,
        upsampled: bool = True,
    ) -> Inputs:
        """See :meth:`FusionModel.prepare`; all bands of an image are one entry."""
        scale = _scale(statistics)
        P, M = pan / scale, ms / scale
        return Inputs(P, P, M, M[:, :0], None if gt is None else gt / scale)

    def losses(self, inputs: Inputs, random: torch.Generator) -> dict[str, Tensor]:
        """See :meth:`PixelDiffusion.losses`: the prior learns from three bands of the truth, and sees nothing else."""
        assert inputs.G is not None
        A = 2 * inputs.G[:, choose_bands(inputs.G.shape[1], _RANK)] - 1
        t = torch.randint(1, self.config.steps + 1, (len(A),), generator=random).to(A.device)
        epsilon = torch.randn(A.shape, generator=random).to(A)
        return {"loss": F.mse_loss(self.network(self.diffuse(A, t, epsilon), t), epsilon)}

    @torch.no_grad()
    def fuse(
        self,
        pan: Tensor,
        ms: Tensor | Any,
        statistics: Statistics,
        ratio: int,
        noise: Tensor | None = None,
        *,
        kernels: Sequence[Tensor] | None = None,
    ) -> Tensor:
        """See :meth:`FusionModel.fuse`; there are no kernels to be fixed."""
        (height, width), side = pan.shape[2:], math.lcm(self.multiple, ratio)
        inputs = self.prepare(pad_to_multiple(pan, side), pad_to_multiple(ms, side), statistics, ratio)
        seed = int(self.noise() if noise is None else noise)
        made = [self.draw(inputs.P[n : n + 1], inputs.M[n : n + 1], ratio, seed) for n in range(len(pan))]
        return torch.cat(made)[..., :height, :width] * _scale(statistics)

    def draw(self, P: Tensor, M: Tensor, ratio: int, seed: int, prior: Prior | None = None) -> Tensor:
        """Draw one image from the posterior.

        Args:
            P: (1, 1, H, W), about 0 to 1.
            M: (1, C, H, W) upsampled MS.
            ratio: PAN pixels per MS pixel along a side; H and W are multiples of it.
            seed: of all noise.
            prior: takes the place of the model's own.

        Returns:
            (1, C, H, W).
        """
        Y, random = sample_cells(M, ratio), torch.Generator().manual_seed(seed)
        camera = fit_camera(P, Y, ratio, self.config.fit_steps)
        chosen = choose_bands(Y.shape[1], _RANK)
        E = find_spectra(Y, chosen)
        R = fit_rest(Y, E, chosen, camera, self.config.rest_steps)

        def image(A: Tensor) -> Tensor:
            return torch.einsum("cs,nshw->nchw", E, (A + 1) / 2) + R

        def noise() -> Tensor:
            return torch.randn(1, _RANK, *P.shape[2:], generator=random).to(P)

        def distance(A_0: Tensor) -> Tensor:
            return _distance(image(A_0), P, Y, camera)

        A = noise()
        times = torch.linspace(self.config.steps, 0, self.sampling_steps + 1).round().int().tolist()
        for t, s in pairwise(times):
            epsilon, gradient = self._guide(A, t, prior or self.network, distance)
            A = self.step(A, epsilon, t, s, noise()) - self.config.eta * gradient
        return image(A)

    def _guide(self, A: Tensor, t: int, prior: Prior, distance: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
        """Return the noise that the prior finds, and the gradient of the distance through it by A_t."""
        bar = self.alpha_bar[t].item()
        with torch.enable_grad():
            A = A.detach().requires_grad_()
            epsilon = prior(A, torch.full((1,), t, device=A.device))
            A_0 = ((A - (1 - bar) ** 0.5 * epsilon) / bar**0.5).clamp(-self.config.bound, self.config.bound)
            (gradient,) = torch.autograd.grad(distance(A_0), A)
        return epsilon.detach(), gradient


def _distance(X: Tensor, P: Tensor, Y: Tensor, camera: Camera) -> Tensor:
    """How far an image, seen by both cameras, is from MS and from PAN: norms, not their squares."""
    far: Tensor = torch.linalg.vector_norm(Y - camera.degrade(X)) + torch.linalg.vector_norm(P - camera.mix(X))
    return far


def _scale(statistics: Statistics) -> Tensor:
    """Return what is 1 in the posterior's units, (N, 1, 1, 1) DN; published: the maximum, be it of one hot pixel."""
    pan = statistics.pan_mean + _SPREADS * statistics.pan_std
    ms = statistics.ms_mean + _SPREADS * statistics.ms_std
    return torch.cat((pan, ms), 1).amax(1).clamp(min=1e-6)[:, None, None, None]
