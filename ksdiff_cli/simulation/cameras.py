"""Cameras that do not exist: everything about a virtual acquisition, drawn at random.

The ranges are set by what real sensors do at the reduced resolution of Wald's protocol: how sharp PAN is against the
bands (the ratio of their transfer functions between a sixth and two fifths of the sampling frequency runs from 1/8 to
3), how well PAN explains a band's details (correlations from 0 to .95), shifts of up to half a pixel and more, and what
share of a scene's variance is detail.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

_REFLECTED = 1100
"""Nanometres: what most cameras see lies below; short-wave infrared beyond."""


@dataclass(frozen=True)
class Tone:
    """How one channel's radiances become digital numbers."""

    floor: float
    """Share of the largest digital number at which dark pixels lie: haze and offset."""
    ceiling: float
    """The same for bright pixels; above 1 they saturate."""
    gamma: float
    """Exponent of the tone curve, 1 for none."""


@dataclass(frozen=True)
class Camera:
    """One virtual camera and its circumstances. Gains are (n, 2): along rows and columns."""

    seed: int
    """Of noise and fields."""
    ratio: int
    """Pixels of gt per MS pixel along a side."""
    scale: float
    """Channel pixels per pixel of gt, 1 or more."""
    bands: Array
    """(B, K) what each band sees of the ground's channels."""
    response: Array
    """(K,) what PAN sees."""
    real_pan: float
    """Share of the ground's real PAN in PAN, 0 to 1."""
    gain_pan: Array
    """(2,) MTF of PAN at gt's Nyquist frequency."""
    gain_gt: Array
    """(B, 2) MTF of gt at its own Nyquist frequency."""
    gain_ms: Array
    """(B, 2) MTF of MS at MS Nyquist, against gt."""
    unsharp: float
    """Strength of a sharpening of gt, as products get; 0 for none."""
    shift_pan: Array
    """(2,) pixels of gt by which PAN lies off."""
    shift_bands: Array
    """(B, 2) the same of each band."""
    warp: float
    """Pixels of gt by which relief bends PAN, standard deviation."""
    uneven: float
    """Relative change of PAN's response over the scene."""
    foreign: float
    """Strength of details in PAN that no band has, standard deviations of PAN."""
    season: Array
    """(K,) change of each channel with vegetation; zeros for none."""
    flatten: float
    """Share of the slow variation that is taken away, 0 to 1."""
    noise_pan: float
    """Standard deviations of PAN."""
    noise_gt: Array
    """(B,) standard deviations of each band."""
    noise_ms: Array
    """(B,) the same, added to MS where it is not made of noisy gt."""
    shot: float
    """How much noise grows with brightness, 0 to 1."""
    stripes: float
    """Noise common to a column, against the other noise."""
    noise_blur: float
    """Pixels by which resampling blurred the noise."""
    wald: bool
    """Whether MS is made of gt with its noise, as in Wald's protocol; else gt is clean and MS has its own noise."""
    tones: tuple[Tone, ...]
    """B bands', then PAN's."""
    top: float
    """Largest digital number."""
    whole: bool
    """Whether digital numbers are whole."""


def draw_camera(
    rng: np.random.Generator,
    wavelengths: tuple[float, ...],
    bands: int,
    ratio: int,
    *,
    real_pan: bool = False,
    blurred: bool = False,
) -> Camera:
    """Draw a camera.

    Args:
        rng: the source of all chance.
        wavelengths: of the ground's channels, nm, K of them.
        bands: number of MS bands, any.
        ratio: 2 or more.
        real_pan: whether the ground has a real PAN, which is then often used.
        blurred: whether the ground is a camera's image already: at scale 1 it need not be blurred again, and its own
            noise must not reach PAN by way of sums of channels.
    """
    scale = float(rng.choice([1.0, rng.uniform(1.25, 2.0)])) if blurred else float(rng.uniform(1.0, 2.5))
    share = float(rng.choice([1.0, rng.uniform(0.3, 1), 0.0])) if real_pan else 0.0
    if blurred and real_pan and scale < 1.25:
        share = max(share, 0.6)
    gain_pan, gain_gt, unsharp = _sharpness(rng, bands, raw=blurred and scale < 1.25)
    level = float(np.exp(rng.uniform(np.log(0.004), np.log(0.08))))
    noise = level * np.exp(rng.normal(0, 0.3, bands))
    noise_pan = float(np.exp(rng.uniform(np.log(0.002), np.log(0.04))))
    noise_ms, shot = noise * rng.uniform(0.2, 1), float(rng.uniform(0, 1))
    stripes, noise_blur = _sometimes(rng, 0.1, 0.1, 0.5), _sometimes(rng, 0.3, 0.35, 0.7)
    season = rng.random() < 0.35 and share == 0
    bits = int(rng.choice([8, 10, 11, 12, 16], p=[0.2, 0.2, 0.35, 0.15, 0.1]))
    seed, seen = int(rng.integers(2**31)), _bands(rng, wavelengths, bands)
    response, gain_ms = _response(rng, wavelengths), _ms_gains(rng, bands)
    shift_pan, shift_bands, warp = _shifts(rng, bands)
    return Camera(
        seed=seed,
        ratio=ratio,
        scale=scale,
        bands=seen,
        response=response,
        real_pan=share,
        gain_pan=gain_pan,
        gain_gt=gain_gt,
        gain_ms=gain_ms,
        unsharp=unsharp,
        shift_pan=shift_pan,
        shift_bands=shift_bands,
        warp=warp,
        uneven=float(rng.choice([0.0, rng.uniform(0, 0.12)])),
        foreign=_sometimes(rng, 0.2, 0.03, 0.2),
        season=rng.normal(0, 0.25, len(wavelengths)) if season else np.zeros(len(wavelengths)),
        flatten=_sometimes(rng, 0.65, 0.3, 1.0),
        noise_pan=noise_pan,
        noise_gt=noise,
        noise_ms=noise_ms,
        shot=shot,
        stripes=stripes,
        noise_blur=noise_blur,
        wald=bool(rng.random() < 0.8),
        tones=_tones(rng, bands),
        top=float(2**bits - 1),
        whole=bool(rng.random() < 0.9),
    )


def _bands(rng: np.random.Generator, wavelengths: tuple[float, ...], count: int) -> Array:
    """Return (count, K) weights: most bands are channels or lie between neighbours, some are any mixture."""
    nanometres = np.array(wavelengths)
    order = np.argsort(nanometres)
    usual = order[nanometres[order] < _REFLECTED]
    chosen = order if rng.random() < 0.2 else usual
    places = np.sort(_spread(rng, count, len(chosen)))
    if count >= 4 and rng.random() < 0.8:
        # the last band of four is nearly always near-infrared
        places[-1] = np.abs(nanometres[chosen] - 840).argmin()
    weights = np.zeros((count, len(wavelengths)))
    for band, place in enumerate(places):
        width = rng.uniform(0.4, 1.6)
        near = np.clip(1 - np.abs(np.arange(len(chosen)) - place) / width, 0, None)
        near[round(place)] += 1e-3
        weights[band, chosen] = near * rng.uniform(0.7, 1.3, len(chosen))
        if rng.random() < 0.12:
            weights[band, chosen] = rng.dirichlet(np.full(len(chosen), 0.6))
    weights /= weights.sum(1, keepdims=True)
    way = rng.random()
    if way < 0.2:
        visible = count - 1 if count >= 4 else count
        weights[:visible] = weights[:visible][::-1]
    elif way < 0.3:
        weights = weights[rng.permutation(count)]
    return weights


def _spread(rng: np.random.Generator, count: int, channels: int) -> Array:
    """Return positions among the channels, whole ones more often than others, no two of them alike."""
    if count <= channels and rng.random() < 0.6:
        return rng.choice(channels, count, replace=False).astype(np.float64)
    gaps = rng.dirichlet(np.full(count + 1, 3.0))[:count]
    places: Array = gaps.cumsum() * (channels - 1)
    return places


def _response(rng: np.random.Generator, wavelengths: tuple[float, ...]) -> Array:
    """Return PAN's weights: from blue or green to red, to the red edge, or far into the near infrared."""
    nanometres = np.array(wavelengths)
    if rng.random() < 0.05:
        odd: Array = rng.dirichlet(np.full(len(nanometres), 0.7))
        return odd
    low = rng.uniform(400, 540)
    high = rng.choice([rng.uniform(670, 720), rng.uniform(760, 900), rng.uniform(880, 1050)])
    inside = 1 / (1 + np.exp((low - nanometres) / 15)) / (1 + np.exp((nanometres - high) / 25))
    inside = (inside + 1e-3 * (nanometres < _REFLECTED)) * rng.uniform(0.5, 1.5, len(nanometres))
    weights: Array = inside / inside.sum()
    return weights


def _sharpness(rng: np.random.Generator, bands: int, *, raw: bool) -> tuple[Array, Array, float]:
    """Return the gains of PAN and gt, either may be the sharper one, and how much gt was sharpened."""
    way = rng.random()
    if way < 0.3:  # PAN as blurred as Wald's protocol makes it, and MS that was sharpened on the ground
        pan, gt = rng.uniform(0.08, 0.22), rng.uniform(0.5, 0.95)
    elif way < 0.42:  # a sharp PAN over a soft MS
        pan, gt = rng.uniform(0.5, 0.95), np.exp(rng.uniform(np.log(0.02), np.log(0.2)))
    else:
        low, high = ((0.08, 0.25), (0.25, 0.6), (0.6, 0.95))[rng.choice(3, p=[0.65, 0.17, 0.18])]
        pan, gt = rng.uniform(low, high), np.exp(rng.uniform(np.log(0.03), np.log(0.95)))
    if raw and gt > 0.2:
        gt = 0.95  # as it came
    uneven = 0.25 if rng.random() < 0.25 else 0.0
    along = np.exp(rng.uniform(-uneven, uneven, (1, 2)))
    gains = gt ** np.exp(rng.normal(0, 0.08, (bands, 1))) * along
    unsharp = _sometimes(rng, 0.5 if raw or way < 0.3 else 0.1, 0.2, 1.0)
    return np.clip(pan * along[0], 0.05, 0.97), np.clip(gains, 0.02, 0.97), unsharp


def _ms_gains(rng: np.random.Generator, bands: int) -> Array:
    """Return (bands, 2) gains of MS, most of them near the usual .3."""
    middle = rng.uniform(0.22, 0.38) if rng.random() < 0.8 else rng.uniform(0.1, 0.5)
    spread = 0.03 if rng.random() < 0.5 else 0.0
    gains = middle + rng.normal(0, spread, (bands, 1)) + (0.04 if rng.random() < 0.15 else 0) * np.array([[1, -1]])
    clipped: Array = np.clip(gains, 0.08, 0.55)
    return clipped


def _shifts(rng: np.random.Generator, bands: int) -> tuple[Array, Array, float]:
    """Return misregistration of PAN, bands and by relief, pixels of gt: mostly little, sometimes half a pixel."""
    pan = rng.choice([0.06, 0.2, 0.5], p=[0.5, 0.35, 0.15])
    between = rng.choice([0.0, 0.08, 0.25], p=[0.5, 0.35, 0.15])
    return rng.normal(0, pan, 2), rng.normal(0, between, (bands, 2)), _sometimes(rng, 0.25, 0.05, 0.4)


def _sometimes(rng: np.random.Generator, chance: float, low: float, high: float) -> float:
    """Return a number between two bounds, or 0."""
    return float(rng.uniform(low, high)) if rng.random() < chance else 0.0


def _tones(rng: np.random.Generator, bands: int) -> tuple[Tone, ...]:
    """Return the bands' tones and PAN's; curves are common to all bands, and PAN's is its own."""
    bent = rng.random() < 0.3
    own = float(np.exp(rng.normal(0, 0.2))) if bent else 1.0
    haze, full = rng.uniform(0.02, 0.25), rng.uniform(0.3, 0.9)
    full = rng.uniform(1.0, 1.25) if rng.random() < 0.15 else full
    tones = [
        Tone(float(haze * rng.uniform(0.5, 1.5)), float(max(full * rng.uniform(0.8, 1.15), 0.25 + 1.5 * haze)), own)
        for _ in range(bands + 1)
    ]
    last = float(own * np.exp(rng.normal(0, 0.1))) if bent else 1.0
    return (*tones[:-1], Tone(tones[-1].floor, tones[-1].ceiling, last))
