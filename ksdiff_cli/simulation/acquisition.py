"""Virtual acquisitions: what some camera, drawn at random, would have seen of a ground known in many channels.

Real bands or a simulated world become training images of cameras that do not exist: other bands, another PAN response,
other MTFs, noise, misregistration and radiometry. A network trained on many of them must learn to look at a scene
instead of remembering a sensor. :mod:`.cameras` draws the cameras; here they look.
"""

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter, map_coordinates

from ksdiff_cli.numerics import Array
from ksdiff_cli.numerics.grids import (
    GridMap,
    apply_separable,
    corner_aligned,
    cubic_matrix,
    degrade,
    gaussian_matrix,
    upsample,
)
from ksdiff_cli.sensors import SENSORS
from ksdiff_cli.simulation.cameras import Camera, Tone
from ksdiff_cli.simulation.content import World
from ksdiff_cli.simulation.fields import Float
from ksdiff_cli.simulation.objects import draw
from ksdiff_cli.simulation.spectra import NANOMETRES, WAVELENGTHS, make_spectra

_SHARPEST = 0.45
"""Pixels. A narrower Gaussian than this does not interpolate: cubic convolution does, as in products."""
_SLOW = 24
"""Channel pixels: what varies more slowly is no detail to any camera here."""


@dataclass(frozen=True)
class Ground:
    """What is looked at."""

    channels: Float
    """(K, H, W) radiances in any unit, above 0."""
    wavelengths: tuple[float, ...]
    """Centre of each channel, nm."""
    pan: Float | None = None
    """(1, H', W') a real PAN of the same ground, or none."""
    grid: GridMap | None = None
    """The map from PAN's pixels to the channels'."""


@dataclass(frozen=True)
class Acquired:
    """The images of one virtual scene, digital numbers, float32."""

    pan: Float
    """(1, H, W)."""
    ms: Float
    """(bands, H/ratio, W/ratio)."""
    gt: Float
    """(bands, H, W): what a perfect fusion returns, noise included where MS was made of it (Wald's protocol)."""


def simulated_ground(seed: int, side: int, zoom: float | None = None, *, coarse: bool = False) -> Ground:
    """Draw a simulated world in all its wavelengths.

    Args:
        seed: 0 or more.
        side: of the channels, pixels.
        zoom: pixels per half metre of ground; None draws it from the seed.
        coarse: land as Landsat sees it, without houses and trees.
    """
    spectra = make_spectra(SENSORS["generic"], WAVELENGTHS, seed)
    picture = draw(World(spectra, seed, coarse=coarse, zoom=zoom), 0, 0, side, side)
    return Ground(np.clip(picture[:-1], 1, None), NANOMETRES)


def acquire(ground: Ground, camera: Camera, side: int, start: tuple[float, float] = (0.0, 0.0)) -> Acquired:
    """Look at a part of the ground.

    Args:
        ground: its channels; with a real PAN if ``camera.real_pan`` is above 0.
        camera: how.
        side: of gt and pan in pixels, a multiple of the ratio; see :func:`largest_side`.
        start: first row and column of the part, channel pixels.

    Returns:
        The same ground, camera and part give the same bytes.
    """
    rng = np.random.default_rng(camera.seed)
    channels = _season(ground, camera)
    channels = _flatten(channels, camera.flatten, 1.0)
    bands = np.tensordot(camera.bands, channels, 1).astype(np.float32)
    at = [first + camera.scale * (np.arange(side) + 0.5) - 0.5 for first in start]
    places = [(at[0] + camera.scale * row, at[1] + camera.scale * col) for row, col in camera.shift_bands]
    truth = np.concatenate(
        [
            _look(band[None], place, gains, camera.scale)
            for band, place, gains in zip(bands, places, camera.gain_gt, strict=True)
        ]
    )
    if camera.unsharp:
        truth += camera.unsharp * (truth - gaussian_filter(truth, (0, 0.8, 0.8)))
    pan = _pan(ground, channels, camera, at, rng)
    noisy = np.stack([_noisy(band, level, camera, rng) for band, level in zip(truth, camera.noise_gt, strict=True)])
    gt = np.stack([_to_dn(band, tone, camera) for band, tone in zip(noisy, camera.tones[:-1], strict=True)])
    pan = _to_dn(_noisy(pan[0], camera.noise_pan, camera, rng), camera.tones[-1], camera)[None]
    ms = _coarse(gt, camera)
    if not camera.wald:
        gt = np.stack([_to_dn(band, tone, camera) for band, tone in zip(truth, camera.tones[:-1], strict=True)])
        levels = camera.noise_ms * gt.std((1, 2))
        ms = _coarse(gt, camera)
        ms = ms + levels[:, None, None] * rng.standard_normal(ms.shape)
        ms = np.rint(np.clip(ms, 0, camera.top))
    return Acquired(pan.astype(np.float32), ms.astype(np.float32), gt.astype(np.float32))


def largest_side(ground: Ground, scale: float) -> int:
    """Return the side of the largest square that a camera of ``scale`` sees of the ground, GT pixels."""
    return int(min(ground.channels.shape[1:]) / scale)


def _season(ground: Ground, camera: Camera) -> Float:
    """Change every channel where plants grow: another time of the year."""
    if not camera.season.any():
        return ground.channels
    nanometres = np.array(ground.wavelengths)
    red, near = (int(np.abs(nanometres - wanted).argmin()) for wanted in (660, 840))
    index = (ground.channels[near] - ground.channels[red]) / (ground.channels[near] + ground.channels[red] + 1e-6)
    index = np.tanh((index - index.mean()) / (index.std() + 1e-6))
    changed: Float = ground.channels * np.exp(camera.season[:, None, None] * index).astype(np.float32)
    return changed


def _flatten(channels: Float, share: float, finer: float) -> Float:
    """Take away a share of all that varies slowly, over some 24 channel pixels, so that details weigh more."""
    if not share:
        return channels
    cell = round(_SLOW * finer)
    grid, shape = corner_aligned(cell), channels.shape[1:]
    small = (-(-shape[0] // cell), -(-shape[1] // cell))
    slow = upsample(degrade(channels, grid, small, (0.3,) * len(channels)), grid, (shape[0], shape[1]))
    flat: Float = channels - share * (slow - slow.mean((1, 2), keepdims=True))
    return flat


def _look(image: Float, at: tuple[Array, ...], gains: Array, step: float) -> Float:
    """Sample (n, H, W) at rows and columns, image pixels, with a gain along each axis at the Nyquist of ``step``."""
    matrices = []
    for place, gain, size in zip(at, gains, image.shape[1:], strict=True):
        sigma = step / np.pi * np.sqrt(-2 * np.log(gain))
        sharp = sigma < _SHARPEST
        matrices.append(cubic_matrix(place, size) if sharp else gaussian_matrix(place, size, sigma))
    return apply_separable(matrices[0], matrices[1], image)


def _coarse(gt: Float, camera: Camera) -> Float:
    """Return MS: gt through each band's own gains, at the centres of MS pixels."""
    ratio, count = camera.ratio, gt.shape[1] // camera.ratio
    at = ratio * np.arange(count) + (ratio - 1) / 2
    return np.concatenate(
        [_look(band[None], (at, at), gains, ratio) for band, gains in zip(gt, camera.gain_ms, strict=True)]
    )


def _pan(ground: Ground, channels: Float, camera: Camera, at: list[Array], rng: np.random.Generator) -> Float:
    """Return PAN (1, side, side): sums of channels, perhaps a real PAN, neither quite what the bands explain."""
    scale = camera.scale
    places = tuple(place + scale * by for place, by in zip(at, camera.shift_pan, strict=True))
    total = np.zeros((1, len(at[0]), len(at[1])), np.float32)
    if camera.real_pan < 1:
        # the response varies a little over the scene, as viewing angle, air and neighbouring land do
        weights = camera.response[:, None, None] * (1 + camera.uneven * _smooth(rng, channels))
        made = (weights * channels).sum(0, dtype=np.float32)[None]
        total += (1 - camera.real_pan) * _standard(_look(made, places, camera.gain_pan, scale))
    if camera.real_pan > 0:
        assert ground.pan is not None
        assert ground.grid is not None
        axes = (ground.grid.rows, ground.grid.cols)
        finer = 1 / abs(axes[0].scale)
        fine = tuple(axis.to_pan(place) for axis, place in zip(axes, places, strict=True))
        real = _flatten(ground.pan, camera.flatten, finer)
        total += camera.real_pan * _standard(_look(real, fine, camera.gain_pan, scale * finer))
    if camera.foreign:
        # details that no band shows: those of another place
        other = _standard(_look(channels[-1:], places, camera.gain_pan, scale))
        other = np.roll(other - gaussian_filter(other, (0, 4, 4)), other.shape[1] // 2, (1, 2))
        total += camera.foreign * other
    if camera.warp:
        rows, cols = np.meshgrid(*(np.arange(place.size, dtype=np.float64) for place in at), indexing="ij")
        bend = camera.warp * _smooth(rng, np.zeros((2, *rows.shape)))
        total = map_coordinates(total[0], (rows + bend[0], cols + bend[1]), order=3, mode="nearest")[None]
    return total


def _smooth(rng: np.random.Generator, like: Array) -> Float:
    """Return fields of the shape of ``like``, each of variance about 1, that vary over a quarter of the scene."""
    knots = rng.standard_normal((len(like), 6, 6)).astype(np.float32)
    rows, cols = (cubic_matrix(np.linspace(0.5, 4.5, size), 6) for size in like.shape[1:])
    return apply_separable(rows, cols, knots)


def _standard(image: Float) -> Float:
    standard: Float = (image - image.mean()) / (image.std() + 1e-6)
    return standard


def _noisy(image: Float, level: float, camera: Camera, rng: np.random.Generator) -> Float:
    """Add noise of ``level`` standard deviations of the image; stronger where it is bright, perhaps in stripes."""
    noise = rng.standard_normal(image.shape).astype(np.float32)
    if camera.noise_blur:
        noise = gaussian_filter(noise, camera.noise_blur)
        noise /= noise.std()
    if camera.stripes:
        noise += camera.stripes * rng.standard_normal((1, image.shape[1])).astype(np.float32)
    spread = image.std()
    bright = np.clip(1 + camera.shot * (image - image.mean()) / (spread + 1e-6), 0.2, 3)
    noisy: Float = image + level * spread * noise * np.sqrt(bright)
    return noisy


def _to_dn(image: Float, tone: Tone, camera: Camera) -> Float:
    """Stretch to digital numbers: dark pixels to the tone's floor, bright ones to its ceiling, by its curve."""
    dark, light = np.percentile(image[::3, ::3], (0.2, 99.5))
    share = (image - dark) / (light - dark + 1e-6)
    if tone.gamma != 1:
        # straight below 0, so that nothing is lost there
        share = np.where(share > 0, np.abs(share) ** tone.gamma, share)
    dn: Float = np.clip(camera.top * (tone.floor + (tone.ceiling - tone.floor) * share), 0, camera.top)
    return np.rint(dn) if camera.whole else dn
