"""What both cameras saw of a scene, and how: the MS camera and the way back as linear operators, PAN as a mix of bands.

Coordinates are pixel-centre indices; along each axis MS pixel ``scale * i + offset`` lies on pixel i of the PAN grid.
Both operators are separable and banded, so each is a few small matrix products, at any ratio and any sub-pixel phase.
The matrices are made on the CPU, the same ones for every device, and go to a GPU in one copy that it does not wait for.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property, lru_cache
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

COMPENSATION_SIGMA = 0.8
"""Deviation of the blur that a ground segment's compensation subtracts, MS pixels."""
SHARPNESS_REACH = 4
"""Pixels that :func:`resharpen` looks at on each side."""
_SHARPNESS_SIGMA = 0.9  # PAN pixels
_REACH = 3.5  # deviations of a Gaussian that are computed
_SMALLEST = 1e-12  # of a variance, relative to the others: where PAN does not follow any band


class AxisMap(NamedTuple):
    """Where PAN pixels lie on MS along one axis."""

    scale: float
    """MS pixels per PAN pixel."""
    offset: float
    """MS coordinate of the centre of PAN pixel 0."""


@dataclass(frozen=True)
class Cameras:
    """How a scene was seen: its MS camera, and how PAN follows from the bands; N scenes, C bands.

    The MS camera, as PAN's own sharpness shows it: a Gaussian whose MTF at the MS Nyquist frequency is ``gain``, then
    compensation on the ground, y + k (y - blur(y, 0.8 MS pixels)).
    """

    gain: Tensor
    """(N,) in (0, 1)."""
    compensation: Tensor
    """(N,) k, at least 0."""
    weights: Tensor
    """(N, C) PAN's DN per DN of each band, by regression at the MS scale."""
    offset: Tensor
    """(N,) DN of PAN where all bands are 0."""
    injection: Tensor
    """(N, C) DN of each band per DN of PAN that the mix lacks: cov w / (w' cov w)."""
    r2: Tensor
    """(N,) share of PAN's variance that the mix explains at the MS scale."""

    def to(self, device: torch.device | str) -> "Cameras":
        """Return the same on ``device``, as float32."""
        return Cameras(*(getattr(self, field.name).to(device, torch.float32) for field in fields(self)))

    @cached_property
    def on_cpu(self) -> tuple[Tensor, Tensor]:
        """Gain and compensation on the CPU, where matrices are made: a GPU is asked for them once a scene."""
        return self.gain.cpu(), self.compensation.cpu()


@dataclass(frozen=True)
class Observed:
    """The MS image as it was delivered, in whatever unit, with its place on a window of the PAN grid."""

    ms: Tensor
    """(N, C, h, w)."""
    belief: Tensor | None
    """(N, 1, h, w) in 0..1: how far each MS pixel is believed, 0 where it is invalid; None: all are."""
    rows: AxisMap
    cols: AxisMap
    sharpness: float = 0.0
    """Of what is wanted, relative to PAN; see :func:`resharpen`."""

    @property
    def ratio(self) -> float:
        """PAN pixels per MS pixel along a side."""
        return 1 / math.sqrt(abs(self.rows.scale * self.cols.scale))

    def shifted(self, top: int, left: int) -> "Observed":
        """Return the same MS on a grid whose first pixel is PAN pixel (top, left) of this one."""
        rows, cols = (
            AxisMap(axis.scale, axis.scale * first + axis.offset)
            for axis, first in ((self.rows, top), (self.cols, left))
        )
        return replace(self, rows=rows, cols=cols)

    def cut(self, rows: slice, cols: slice) -> "Observed":
        """Return what lies on a part of the PAN grid: the MS pixels whose centres do."""
        spans, places = [], []
        for part, axis, size in zip((rows, cols), (self.rows, self.cols), self.ms.shape[2:], strict=True):
            ends = sorted(axis.scale * (end - 0.5) + axis.offset for end in (part.start, part.stop))
            first = min(max(0, math.ceil(ends[0] - 1e-6)), size - 1)
            spans.append(slice(first, max(first + 1, min(size, math.floor(ends[1] + 1e-6) + 1))))
            places.append(AxisMap(axis.scale, axis.scale * part.start + axis.offset - first))
        belief = None if self.belief is None else self.belief[:, :, *spans]
        return Observed(self.ms[:, :, *spans], belief, places[0], places[1], self.sharpness)


def resharpen(pan: Tensor, sharpness: float) -> Tensor:
    """Return PAN sharper or softer, P + s (P - blur(P)): what ends as sharp as PAN then ends as sharp as that.

    Args:
        pan: (N, 1, H, W).
        sharpness: s; 0 leaves PAN as it is, -1 is the blurred PAN.
    """
    if not sharpness:
        return pan
    taps = torch.arange(-SHARPNESS_REACH, SHARPNESS_REACH + 1, dtype=torch.float64)
    weights = torch.exp(-(taps**2) / (2 * _SHARPNESS_SIGMA**2))
    weights = (weights / weights.sum()).to(pan)
    blurred = F.pad(pan, (SHARPNESS_REACH,) * 4, mode="replicate")
    blurred = F.conv2d(F.conv2d(blurred, weights.view(1, 1, 1, -1)), weights.view(1, 1, -1, 1))
    return pan + sharpness * (pan - blurred)


def mtf_sigma(gain: Tensor, ratio: float) -> Tensor:
    """Return the deviation, PAN pixels, of the Gaussian whose MTF is ``gain`` at the MS Nyquist frequency."""
    return ratio / math.pi * torch.sqrt(-2 * torch.log(gain))


def see(image: Tensor, observed: Observed, cameras: Cameras) -> Tensor:
    """Look at an image of the PAN grid through the MS camera.

    Args:
        image: (N, C, H, W).
        observed: tells where the MS pixels lie.
        cameras: of the same N scenes, or of one.

    Returns:
        (N, C, h, w).
    """
    size = observed.ms.shape[-2:]
    gain, compensation = cameras.on_cpu
    k = cameras.compensation.view(-1, 1, 1, 1)
    seen: list[Tensor] = []
    for blurred in (False, True):
        if blurred and not bool((compensation != 0).any()):
            return seen[0]
        x = image
        for axis, place, count in ((2, observed.rows, size[0]), (3, observed.cols, size[1])):
            ratio = 1 / abs(place.scale)
            sigma = mtf_sigma(gain, ratio)
            if blurred:
                sigma = torch.sqrt(sigma**2 + (COMPENSATION_SIGMA * ratio) ** 2)
            x = _apply(_sampling(place, x.shape[axis], count, tuple(sigma.tolist()), _block(axis)), x, axis)
        seen.append(x)
    return (1 + k) * seen[0] - k * seen[1]


class _Run(NamedTuple):
    """Matrices of one size for blocks of an axis, whose inputs begin at equal distances; all images' or (N, ...)."""

    low: int
    step: int
    matrices: Tensor
    """(1 or N, blocks, n, m), float32, on the CPU."""


def _block(axis: int) -> int:
    """MS pixels that one product makes, or reads: few where all products of rows are one call, else more."""
    return 16 if axis == 3 or torch.is_grad_enabled() else 4


def _runs(matrices: Sequence[Tensor], lows: Sequence[int]) -> list[_Run]:
    """Put neighbours of one size, whose inputs begin at equal distances, together."""
    runs: list[_Run] = []
    first = 0
    while first < len(lows):
        last, step = first + 1, lows[first + 1] - lows[first] if first + 1 < len(lows) else 0
        while (
            step > 0
            and last < len(lows)
            and lows[last] - lows[last - 1] == step
            and matrices[last].shape == matrices[first].shape
        ):
            last += 1
        runs.append(_Run(lows[first], step, torch.stack(list(matrices[first:last]), 1).float()))
        first = last
    return runs


@lru_cache(64)
def _sampling(place: AxisMap, size: int, count: int, sigma: tuple[float, ...], block: int) -> list[_Run]:
    """Sample an axis of ``size`` pixels at the centres of ``count`` MS pixels through Gaussians of ``sigma`` pixels.

    Windows of a scene ask for the same ones again.
    """
    reach, wide = math.ceil(_REACH * max(sigma)), torch.tensor(sigma, dtype=torch.float64).view(-1, 1, 1)
    lows, matrices = [], []
    for first in range(0, count, block):
        last = min(first + block, count)
        at = (torch.arange(first, last, dtype=torch.float64) - place.offset) / place.scale
        low = min(max(math.floor(float(at.min())) - reach, 0), size - 1)
        high = max(min(math.ceil(float(at.max())) + reach + 1, size), low + 1)
        taps = torch.arange(low, high, dtype=torch.float64)
        apart = (at.clamp(0, size - 1)[:, None] - taps).square()
        # cut where the widest ends, whatever block a pixel is in and however its place is rounded
        weights = torch.exp(-apart / (2 * wide**2)) * (apart <= (reach + 1e-6) ** 2)
        lows.append(low)
        matrices.append(weights / weights.sum(-1, keepdim=True))
    return _runs(matrices, lows)


def spread(
    image: Tensor, observed: Observed, shape: tuple[int, int], pool: int = 1, onto: Tensor | None = None
) -> Tensor:
    """Bring an image of the MS grid onto the PAN grid: bicubic (Keys 1981, a = -1/2), borders replicated.

    Args:
        image: (N, C, h, w).
        observed: tells where the MS pixels lie.
        shape: (H, W).
        pool: return the means of squares of so many pixels, a divisor of both sides, without making the pixels.
        onto: (N, C, H, W), contiguous: add it; in place where no gradient is asked for.

    Returns:
        (N, C, H / pool, W / pool).
    """
    x = image
    for axis, place in ((3, observed.cols), (2, observed.rows)):  # rows last: what they make lies in one piece
        runs = _interpolation(place, x.shape[axis], shape[axis - 2], pool, _block(axis))
        x = _apply(runs, x, axis, onto if axis == 2 else None)
    return x


@lru_cache(64)
def _interpolation(place: AxisMap, size: int, count: int, pool: int, block: int) -> list[_Run]:
    """Interpolate an axis of ``size`` MS pixels at ``count`` PAN pixels, and average ``pool`` of them; see spread."""
    step = max(1, round(block / abs(place.scale) / pool)) * pool
    lows, matrices = [], []
    for first in range(0, count, step):
        at = place.scale * torch.arange(first, min(first + step, count), dtype=torch.float64) + place.offset
        base = torch.floor(at)
        taps = base[:, None] + torch.arange(-1, 3)
        t = (at[:, None] - taps).abs()
        weights = torch.where(t <= 1, (1.5 * t - 2.5) * t * t + 1, ((-0.5 * t + 2.5) * t - 4) * t + 2)
        inside = taps.clamp(0, size - 1).long()
        low, high = int(inside.min()), int(inside.max()) + 1
        matrix = torch.zeros(len(at), high - low, dtype=torch.float64).scatter_add_(1, inside - low, weights)
        lows.append(low)
        matrices.append(matrix.view(-1, pool, matrix.shape[1]).mean(1)[None])
    return _runs(matrices, lows)


def _apply(runs: Sequence[_Run], x: Tensor, axis: int, onto: Tensor | None = None) -> Tensor:
    """Apply matrices to axis 2 or 3 of (N, C, ·, ·), and join what they make.

    Where ``onto`` is given, which only matrices that all images share are for, it is added to.
    """
    own = runs if x.device.type == "cpu" and x.dtype == torch.float32 else _send(runs, x)
    if not torch.is_grad_enabled():
        return _apply_in_place(own, x, axis, onto)
    found = []
    for run in own:
        for number, matrix in enumerate(run.matrices.unbind(1)):
            part = x.narrow(axis, run.low + number * run.step, matrix.shape[2])
            found.append(matrix[:, None] @ part if axis == 2 else part @ matrix[:, None].transpose(-1, -2))
    made = found[0] if len(found) == 1 else torch.cat(found, axis)
    return made if onto is None else made + onto


def _send(runs: Sequence[_Run], x: Tensor) -> list[_Run]:
    """Bring matrices to the device and type of ``x``, in one copy."""
    together = torch.cat([run.matrices.flatten() for run in runs])
    # from pinned memory nobody waits for a copy
    together = together.pin_memory().to(x.device, non_blocking=True) if x.is_cuda else together.to(x.device)
    parts = torch.split(together.to(x.dtype), [run.matrices.numel() for run in runs])
    return [run._replace(matrices=part.view_as(run.matrices)) for run, part in zip(runs, parts, strict=True)]


def _apply_in_place(runs: Sequence[_Run], x: Tensor, axis: int, onto: Tensor | None) -> Tensor:
    """Do as :func:`_apply` without passes that only copy: every product is written where it belongs."""
    shape = list(x.shape)
    shape[axis] = sum(run.matrices.shape[1] * run.matrices.shape[2] for run in runs)
    made, beta, x = x.new_empty(shape) if onto is None else onto, 0 if onto is None else 1, x.contiguous()
    first = 0
    for run in runs:
        many, blocks, count, taps = run.matrices.shape
        images = [(made, x)] if many == 1 else list(zip(torch.split(made, 1), torch.split(x, 1), strict=True))
        for matrices, (image, given) in zip(run.matrices, images, strict=True):
            if axis == 2:  # all blocks of a band at once: their inputs overlap, their outputs are neighbours
                for place, band in zip(image.flatten(0, 1), given.flatten(0, 1), strict=True):
                    spans = band[run.low :].unfold(0, taps, max(run.step, 1))[:blocks].transpose(1, 2)
                    whole = place.narrow(0, first, blocks * count).view(blocks, count, -1)
                    whole.baddbmm_(matrices, spans, beta=beta)
                continue
            lines, from_lines = image.flatten(0, 2), given.flatten(0, 2)
            for number, matrix in enumerate(matrices):
                part = from_lines.narrow(1, run.low + number * run.step, taps)
                lines.narrow(1, first + number * count, count).addmm_(part, matrix.T, beta=beta)
        first += blocks * count
    return made


def mix(weights: Tensor, bands: Tensor) -> Tensor:
    """Mix bands, (N, C, 1, 1) weights and (N, C, h, w) -> (N, 1, h, w): one product instead of two passes."""
    mixed: Tensor = weights.flatten(2).transpose(1, 2) @ bands.flatten(2)
    return mixed.view(len(bands), 1, *bands.shape[2:])


def split(x: Tensor, axis: int, parts: int) -> Tensor:
    """Cut an axis into ``parts``, which become an axis before it."""
    return x.view(*x.shape[:axis], parts, x.shape[axis] // parts, *x.shape[axis + 1 :])


def fit_cameras(pan: Tensor, observed: Observed, gain: float, compensation: float = 0.0) -> Cameras:
    """Return the cameras of images whose MS camera is known.

    Args:
        pan: (N, 1, H, W).
        observed: MS, (N, C, h, w).
        gain: see :class:`Cameras`.
        compensation: see :class:`Cameras`.
    """
    nothing, one = pan.new_zeros(len(pan), observed.ms.shape[1]), pan.new_ones(len(pan))
    camera = Cameras(gain * one, compensation * one, nothing, nothing[:, 0], nothing, nothing[:, 0])
    low = see(resharpen(pan, observed.sharpness), observed, camera)
    mix = fit_mix(low, observed.ms, observed.belief)
    return Cameras(camera.gain, camera.compensation, *(value.to(pan) for value in mix))


def fit_mix(pan: Tensor, ms: Tensor, belief: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Fit PAN, as the MS camera saw it, by a mix of the bands: least squares with an offset.

    Args:
        pan: (N, 1, h, w).
        ms: (N, C, h, w).
        belief: (N, 1, h, w) weights of the pixels; None: all count alike.

    Returns:
        weights (N, C), offset (N,), injection (N, C), r2 (N,), see :class:`Cameras`.
    """
    w = torch.ones_like(pan) if belief is None else belief
    w = (w / w.sum((2, 3), keepdim=True)).double()
    pan, ms = pan.double(), ms.double()
    pan_mean, ms_mean = (w * pan).sum((2, 3), keepdim=True), (w * ms).sum((2, 3), keepdim=True)
    p, m = (pan - pan_mean).flatten(2), (ms - ms_mean).flatten(2)
    cov = (w.flatten(2) * m) @ m.transpose(1, 2)
    cross = (w.flatten(2) * m) @ p.transpose(1, 2)
    own = torch.diagonal(cov, dim1=1, dim2=2).mean(1)[:, None, None]
    ridge = 1e-6 * own * torch.eye(cov.shape[1], dtype=cov.dtype, device=cov.device)
    found = torch.linalg.solve(cov + ridge + torch.finfo(torch.float64).tiny, cross)[..., 0]
    return (found, *follow(found, pan_mean[:, 0, 0, 0], ms_mean[..., 0, 0], cov, (w.flatten(2) * p * p).sum((1, 2))))


def follow(weights: Tensor, pan_mean: Tensor, ms_mean: Tensor, cov: Tensor, variance: Tensor) -> tuple[Tensor, ...]:
    """Tell what follows from the weights of a mix: offset (N,), injection (N, C), r2 (N,).

    Args:
        weights: (N, C).
        pan_mean: (N,).
        ms_mean: (N, C).
        cov: (N, C, C) covariance of the bands.
        variance: (N,) of PAN at the same scale.
    """
    shared = (cov @ weights[..., None])[..., 0]
    explained = (weights * shared).sum(1)
    injection = shared / explained.clamp_min(_SMALLEST * variance)[:, None]
    r2 = (explained / variance.clamp_min(torch.finfo(torch.float64).tiny)).clamp(0, 1)
    return pan_mean - (weights * ms_mean).sum(1), injection, r2
