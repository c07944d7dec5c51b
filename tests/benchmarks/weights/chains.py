"""Random chains from a ground to a PAN/MS pair as it is delivered, with the truth as sharp as PAN is.

PAN: optics and detector (a Gaussian), sometimes compensated, a mix of bands of which some may be left out of MS, noise.
MS: each band's Gaussian relative to PAN, sampled; then as it is, or compensated on the sensor's grid and resampled to
another sub-pixel phase; shifts between bands and against PAN that nobody is told; noise; whole numbers of some depth.
What a network is told of the MS camera is what the best fit of the model would say, with an error.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ksdiff_cli.models.layers import sum_shifted
from ksdiff_cli.models.observation import AxisMap, Cameras, Observed, fit_mix, see

RATIOS = (4.0, 4.0, 4.0, 4.0, 4.0, 2.0, 2.0, 2.0, 3.0, 3.75, 6.0, 8.0, 1.5, 2.5)
ASIDE = (0.0, 0.0, 0.03, 0.08, 0.16)
"""Deviations of shifts, MS pixels."""
GAINS = np.exp(np.linspace(math.log(0.03), math.log(0.65), 24))
COMPENSATIONS = np.linspace(0, 2.8, 29)
FREQUENCIES = np.linspace(0.06, 0.5, 12)


@dataclass(frozen=True)
class Views:
    """N pairs of one geometry, and the truth."""

    pan: Tensor
    observed: Observed
    cameras: Cameras
    gt: Tensor
    pan_mean: Tensor
    pan_std: Tensor
    ms_mean: Tensor
    ms_std: Tensor
    ratio: float


def acquire(ground: np.ndarray, random: np.random.Generator, crop: int) -> Views:
    """Look at grounds (N, C, H, H) by cameras of one geometry and cut ``crop`` pixels out of what they saw."""
    u = random.uniform
    n, bands = ground.shape[:2]
    X = torch.from_numpy(ground * u(0.5, 2, (n, bands, 1, 1)).astype(np.float32))
    T = torch.cat([gaussian(x[None], sigma_of(u(0.12, 0.35), 1)) for x in X])
    compensated = u(0, 0.5, (n, 1, 1, 1)) * (random.random((n, 1, 1, 1)) < 0.5)
    T = T + torch.from_numpy(compensated).float() * (T - gaussian(T, 0.8))
    pan, T = _mix(T, random)
    bands = T.shape[1]
    ratio = float(random.choice(RATIOS))
    observed, cameras = _look(T, ratio, random)
    std = T.std((2, 3), keepdim=True)
    noise = u(0, 0.015, (n, 1, 1, 1)) * (random.random((n, 1, 1, 1)) < 0.8)
    pan = pan + torch.from_numpy(random.normal(0, 1, pan.shape) * noise).float() * pan.std((2, 3), keepdim=True)
    ms = observed.ms + torch.from_numpy(random.normal(0, 1, observed.ms.shape) * noise * u(0.5, 1.5)).float() * std
    if random.random() < 0.3:
        step = std * float(u(0.005, 0.03))
        pan, ms = (
            torch.round(pan / step.mean(1, keepdim=True)) * step.mean(1, keepdim=True),
            torch.round(ms / step) * step,
        )
    observed = Observed(ms, None, observed.rows, observed.cols)
    low = see(pan, observed, cameras)
    inner = (slice(None), slice(None), slice(2, -2), slice(2, -2))
    weights, offset, injection, r2 = (each.float() for each in fit_mix(low[inner], ms[inner]))
    cameras = Cameras(cameras.gain, cameras.compensation, weights, offset, injection, r2)
    spreads = torch.from_numpy(u(0.8, 1.25, (n, 1))).float()
    pan_mean, pan_std = pan.mean((2, 3)), pan.std((2, 3)) * spreads
    ms_mean, ms_std = ms.mean((2, 3)), ms.std((2, 3)) * spreads
    pan, observed, T = _cut(pan, observed, T, crop, random)
    return Views(pan, observed, cameras, T, pan_mean, pan_std, ms_mean, ms_std, ratio)


def _mix(T: Tensor, random: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Return PAN, and the bands of MS: PAN may see more than these, or one of them alone."""
    bands, kind = T.shape[1], random.random()
    order = torch.from_numpy(random.permutation(bands))
    T = T[:, order]
    given = bands
    if bands > 4 or random.random() < 0.25:
        given = int(random.integers(1 if random.random() < 0.15 else min(3, bands), bands + 1))
    mixed = np.zeros(bands)
    if kind < 0.08:
        mixed[random.integers(bands)] = 1
    elif kind < 0.25 and given < bands:  # what MS lacks is in PAN
        mixed[:] = random.dirichlet(np.full(bands, 2.0))
    else:
        seen = int(random.integers(max(1, given - 1), given + 1))  # with or without its last band
        mixed[:seen] = random.dirichlet(np.full(seen, 3.0))
    weights = torch.from_numpy(mixed).float().view(1, -1, 1, 1)
    return (weights * T).sum(1, keepdim=True), T[:, :given]


def _look(T: Tensor, ratio: float, random: np.random.Generator) -> tuple[Observed, Cameras]:
    """Make MS, and what is told of its camera."""
    u = random.uniform
    n, bands, size = T.shape[0], T.shape[1], T.shape[2]
    count = int(size / ratio) - 2
    corner = (1 / ratio - 1) / 2
    place = AxisMap(1 / ratio, corner - 1 + u(-0.5, 0.5)), AxisMap(1 / ratio, corner - 1 + u(-0.5, 0.5))
    if random.random() < 0.4:
        place = AxisMap(1 / ratio, corner - 1), AxisMap(1 / ratio, corner - 1)
    gains = np.clip(u(0.05, 0.5, (n, 1)) * u(0.88, 1.12, (n, bands)), 0.03, 0.6)
    k = np.where(random.random(n) < 0.45, 0, 0.2 + 2.3 * u(0, 1, n) ** 1.6)
    resampled = random.random() < 0.45
    # what nobody is told: bands that do not lie on each other, and MS that does not lie where the georeference says
    moved = random.normal(0, random.choice(ASIDE), (bands, 2))
    planes = []
    for band in range(bands):
        rows, cols = (AxisMap(axis.scale, axis.offset + move) for axis, move in zip(place, moved[band], strict=True))
        camera = _plain(gains[:, band], 0 * k if resampled else k)
        if not resampled:
            planes.append(see(T[:, band, None], Observed(T.new_zeros(n, 1, count, count), None, rows, cols), camera))
            continue
        if band == 0:
            phase, blur, a = (
                u(-0.5, 0.5, 2),
                float(u(0.6, 1.0)),
                (None if random.random() < 0.2 else float(random.choice((-0.5, -0.75)))),
            )
        sensor = [AxisMap(axis.scale, axis.offset + shift) for axis, shift in zip((rows, cols), phase, strict=True)]
        L = see(T[:, band, None], Observed(T.new_zeros(n, 1, count, count), None, *sensor), camera)
        L = L + torch.from_numpy(k).float().view(-1, 1, 1, 1) * (L - gaussian(L, blur))
        for axis, shift in zip((2, 3), phase, strict=True):
            L = _resample(L, axis, float(shift), a)
        planes.append(L)
    ms = torch.cat(planes, 1)
    if resampled:
        told = np.array([_fit(gain, own, blur, phase, a) for gain, own in zip(gains.mean(1), k, strict=True)])
    else:
        told = np.stack((gains.mean(1), k), 1)
    gain = np.clip(told[:, 0] * np.exp(random.normal(0, 0.06, n)), 0.03, 0.7)
    comp = np.maximum(0, told[:, 1] + random.normal(0, 0.05, n)) * (told[:, 1] > 0.03)
    untold = random.normal(0, random.choice(ASIDE), 2)
    rows, cols = (AxisMap(axis.scale, axis.offset + error) for axis, error in zip(place, untold, strict=True))
    return Observed(ms, None, rows, cols), _plain(gain, comp)


def _plain(gain: np.ndarray, k: np.ndarray) -> Cameras:
    nothing = torch.zeros(len(gain), 1)
    gain, k = (torch.from_numpy(np.asarray(value)).float() for value in (gain, k))
    return Cameras(gain, k, nothing, nothing[:, 0], nothing, nothing[:, 0])


def _fit(gain: float, k: float, blur: float, phase: np.ndarray, a: float | None) -> tuple[float, float]:
    """Return the gain and compensation whose response is nearest to that of a chain with resampling."""
    f = FREQUENCIES
    wanted = gain ** ((2 * f) ** 2) * (1 + k * (1 - np.exp(-2 * (math.pi * f * blur) ** 2)))
    for shift in phase:
        taps, weights = _taps(float(shift), a)
        wanted = wanted * np.abs((weights[:, None] * np.exp(-2j * np.pi * taps[:, None] * f)).sum(0)) ** 0.5
    model = GAINS[:, None, None] ** ((2 * f) ** 2) * (
        1 + COMPENSATIONS[:, None] * (1 - np.exp(-2 * (math.pi * f * 0.8) ** 2))
    )
    wrong = (((model - wanted) ** 2) / f).sum(-1) + 1e-4 * COMPENSATIONS
    best = np.unravel_index(wrong.argmin(), wrong.shape)
    return float(GAINS[best[0]]), float(COMPENSATIONS[best[1]])


def _taps(shift: float, a: float | None) -> tuple[np.ndarray, np.ndarray]:
    """Taps and weights of bilinear (None) or cubic convolution interpolation at a sub-pixel place."""
    base = math.floor(shift)
    taps = base + (np.arange(2) if a is None else np.arange(-1, 3))
    t = np.abs(shift - taps)
    if a is None:
        return taps, 1 - t
    near, far = ((a + 2) * t - (a + 3)) * t * t + 1, ((a * t - 5 * a) * t + 8 * a) * t - 4 * a
    return taps, np.where(t <= 1, near, far)


def _resample(x: Tensor, axis: int, shift: float, a: float | None) -> Tensor:
    """Return values at ``i + shift`` along an axis; borders replicated."""
    size, out = x.shape[axis], torch.zeros_like(x)
    for tap, weight in zip(*_taps(shift, a), strict=True):
        index = (torch.arange(size) + int(tap)).clamp(0, size - 1)
        out = out + float(weight) * x.index_select(axis, index)
    return out


def _cut(
    pan: Tensor, observed: Observed, T: Tensor, crop: int, random: np.random.Generator
) -> tuple[Tensor, Observed, Tensor]:
    """Cut all images alike; of MS the pixels whose centres lie in the cut."""
    size, ms = pan.shape[2], observed.ms.shape[2]
    at = [int(random.integers(0, size - crop + 1)) for _ in range(2)]
    spans, places = [], []
    for first, axis in zip(at, (observed.rows, observed.cols), strict=True):
        low = max(0, math.ceil(axis.scale * (first - 0.5) + axis.offset))
        high = min(ms, math.floor(axis.scale * (first + crop - 0.5) + axis.offset) + 1)
        spans.append(slice(low, high))
        places.append(AxisMap(axis.scale, axis.scale * first + axis.offset - low))
    rows, cols = (slice(first, first + crop) for first in at)
    cut = Observed(observed.ms[:, :, *spans].contiguous(), None, *places)
    return pan[:, :, rows, cols], cut, T[:, :, rows, cols]


def sigma_of(gain: float, ratio: float) -> float:
    """Deviation, pixels, of the Gaussian with this MTF at the Nyquist frequency of pixels ``ratio`` times as large."""
    return ratio / math.pi * math.sqrt(-2 * math.log(gain))


def gaussian(x: Tensor, sigma: float) -> Tensor:
    """Blur (N, C, H, W), borders replicated."""
    reach = max(1, math.ceil(3 * sigma))
    taps = torch.arange(-reach, reach + 1, dtype=torch.float32)
    weights = torch.exp(-(taps**2) / (2 * sigma * sigma))
    weights = weights / weights.sum()
    for axis in (2, 3):  # shifted copies are several times as fast as convolutions of one channel
        sides = (reach, reach, 0, 0) if axis == 3 else (0, 0, reach, reach)
        x = sum_shifted(torch.nn.functional.pad(x, sides, mode="replicate"), weights, axis)
    return x
