"""The simulated camera: MTF, sampling and noise turn the world into PAN, MS and truth.

Definitions, in digital numbers:

* truth: each MS band of the world, blurred by the PAN camera (Gaussian, the sensor's ``mtf_pan`` at PAN Nyquist), at
  every PAN pixel, without noise. It is what the MS camera would see at PAN's resolution; a perfect fusion reaches it.
* ms: truth blurred by a Gaussian with the sensor's gain of each band at MS Nyquist, taken at the MS pixel centres,
  plus noise. The centre of MS pixel k lies at PAN coordinate ratio·k + (ratio - 1)/2, less the shift asked for.
* pan: the world seen through PAN's spectral response (weights over the library's wavelengths, not over the MS bands
  alone), blurred like truth, plus noise.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ksdiff_cli.errors import KsdiffError
from ksdiff_cli.options import keywords
from ksdiff_cli.options.patches import SimulateOptions
from ksdiff_cli.sensors import SENSORS, Sensor, find_sensor
from ksdiff_cli.simulation.content import World
from ksdiff_cli.simulation.fields import Float, derive, normal_at
from ksdiff_cli.simulation.objects import draw
from ksdiff_cli.simulation.spectra import Spectra, make_spectra

Pixels = NDArray[np.uint16]
LARGEST = 100_000
"""Largest side of a scene, pixels; beyond it float32 coordinates get too coarse for crisp objects."""
FARTHEST = 8.0
"""Largest shift, MS pixels."""
LOUDEST = 100.0
"""Largest factor of the noise."""


@dataclass(frozen=True)
class Scene:
    """A scene that can be drawn block by block."""

    size: int
    """Side of PAN, pixels."""
    ratio: int
    """PAN pixels per MS pixel along a side."""
    sensor: Sensor
    """The camera."""
    seed: int
    """Seed of everything."""
    spectra: Spectra
    """The colours."""
    world: World
    """The land."""
    shift: tuple[float, float] = (0.0, 0.0)
    """MS pixels by which MS shows everything too far down and right, against PAN, truth and its own georeference."""

    def block(self, row: int, column: int, height: int, width: int) -> tuple[Pixels, Pixels, Pixels]:
        """Return PAN, MS and truth of a window whose sides and corner are multiples of the ratio.

        Returns:
            pan (1, height, width), ms (bands, height/ratio, width/ratio), truth (bands, height, width).
        """
        ratio, top = self.ratio, self.spectra.top
        gains = self.sensor.ms_gains(len(self.spectra.names))
        kernels = [tuple(ms_kernel(gain, ratio, by) for by in self.shift) for gain in gains]
        halo = max((len(kernel) - ratio) // 2 for pair in kernels for kernel in pair)
        pan_side = pan_kernel(self.sensor.mtf_pan)
        edge = halo + len(pan_side) - 1
        world = draw(self.world, row - edge, column - edge, height + 2 * edge, width + 2 * edge)
        # Truth saturates before MS is made of it, so that MS is the degraded truth even at the brightest roofs.
        seen = np.clip(blur(world, pan_side), 1, top)
        inner = seen[:, halo : halo + height, halo : halo + width]
        ms = np.stack([_decimate(seen[band], pair, ratio, halo) for band, pair in enumerate(kernels)])
        iy, ix = np.arange(row, row + height)[:, None], np.arange(column, column + width)[None, :]
        pan = self._noisy(inner[-1], len(ms), iy, ix)
        for band, image in enumerate(ms):
            ms[band] = self._noisy(image, band, iy[::ratio] // ratio, ix[:, ::ratio] // ratio)
        return _count(pan[None], top), _count(ms, top), _count(inner[:-1], top)

    def _noisy(self, image: Float, channel: int, iy: NDArray[np.int64], ix: NDArray[np.int64]) -> Float:
        noise = normal_at(derive(self.world.key, 70, channel), iy, ix)
        variance = self.spectra.read_noise[channel] ** 2 + self.spectra.shot_noise[channel] * image
        noisy: Float = image + noise * np.sqrt(variance)
        return noisy


@keywords(SimulateOptions)
def plan_scene(*, options: SimulateOptions) -> Scene:
    """Check the wishes against the sensor and return the scene.

    Raises:
        KsdiffError: the values contradict each other or are out of range.
    """
    size, bands, ratio, noise, shift = options.size, options.bands, options.ratio, options.noise, options.shift
    camera = find_sensor(options.sensor)
    if camera.bands:
        if bands not in (None, len(camera.bands)):
            raise KsdiffError(f"sensor {camera.name} has {len(camera.bands)} MS bands, not {bands}; leave out --bands")
        if ratio not in (None, camera.ratio):
            raise KsdiffError(f"sensor {camera.name} has ratio {camera.ratio}, not {ratio}: leave out --ratio")
        names = camera.bands
    else:
        known = {4: SENSORS["QB"].bands, 8: SENSORS["WV3"].bands}
        if bands is not None and bands not in known:
            raise KsdiffError(f"cannot simulate {bands} bands: choose 4 or 8, or a --sensor")
        names = known[bands or 4]
    ratio = camera.ratio if ratio is None else ratio
    if not 2 <= ratio <= 8:
        raise KsdiffError(f"cannot simulate ratio {ratio}: choose 2 to 8")
    if size % ratio or not ratio <= size <= LARGEST:
        raise KsdiffError(f"size {size} does not fit: choose a multiple of the ratio {ratio} up to {LARGEST}")
    if not 0 <= noise <= LOUDEST:
        raise KsdiffError(f"noise {noise:g} is out of range: choose a factor from 0 (none) to {LOUDEST:g}")
    if not all(abs(by) <= FARTHEST for by in shift):
        raise KsdiffError(f"shift {shift[0]:g} {shift[1]:g} is too far: choose up to {FARTHEST:g} MS pixels")
    spectra = make_spectra(camera, names, options.seed)
    read, shot = spectra.read_noise * np.float32(noise), spectra.shot_noise * np.float32(noise) ** 2
    spectra = replace(spectra, read_noise=read, shot_noise=shot)
    world = World(spectra, options.seed, coarse="swir1" in names)
    return Scene(size, ratio, camera, options.seed, spectra, world, shift)


@keywords(SimulateOptions)
def simulate_arrays(size: int, *, options: SimulateOptions, block: int = 512) -> tuple[Pixels, Pixels, Pixels]:
    """Return a simulated scene as arrays.

    Args:
        size: side of PAN in pixels, a multiple of the ratio.
        options: the scene and the camera.
        block: side of the blocks it is drawn in, pixels; it changes memory and speed, never a value.

    Returns:
        pan (1, size, size), ms (bands, size/ratio, size/ratio), truth (bands, size, size); uint16.
    """
    scene = plan_scene(options=options, size=size)
    count, small = len(scene.spectra.names), size // scene.ratio
    pan, truth = np.empty((1, size, size), np.uint16), np.empty((count, size, size), np.uint16)
    ms = np.empty((count, small, small), np.uint16)
    for row, column, height, width in blocks(scene, block):
        here = np.s_[:, row : row + height, column : column + width]
        top, left = row // scene.ratio, column // scene.ratio
        there = np.s_[:, top : top + height // scene.ratio, left : left + width // scene.ratio]
        pan[here], ms[there], truth[here] = scene.block(row, column, height, width)
    return pan, ms, truth


def blocks(scene: Scene, block: int) -> list[tuple[int, int, int, int]]:
    """Return (row, column, height, width) of blocks that tile the scene, row by row, aligned to the ratio."""
    step = max(block // scene.ratio, 1) * scene.ratio
    starts = range(0, scene.size, step)
    return [(r, c, min(step, scene.size - r), min(step, scene.size - c)) for r in starts for c in starts]


def pan_kernel(gain: float) -> list[float]:
    """Return the centre and one side of the Gaussian whose transfer at PAN Nyquist is ``gain``; the whole sums to 1."""
    sigma = np.sqrt(-2 * np.log(gain)) / np.pi
    side = np.exp(-0.5 * (np.arange(int(np.ceil(4 * sigma)) + 1) / sigma) ** 2)
    return [float(weight) for weight in side / (2 * side.sum() - side[0])]


def ms_kernel(gain: float, ratio: int, shift: float = 0.0) -> NDArray[np.float64]:
    """Return the Gaussian whose transfer at MS Nyquist is ``gain``, sampled at PAN pixels about an MS pixel's centre.

    Args:
        gain: of the MS camera.
        ratio: PAN pixels per MS pixel along a side.
        shift: MS pixels by which the image is to move down (right); the camera looks as much further up (left).

    Returns:
        ratio + 2·reach weights of sum 1; the middle ``ratio`` ones fall on the MS pixel itself.
    """
    sigma = ratio * np.sqrt(-2 * np.log(gain)) / np.pi
    reach = int(np.ceil(4 * sigma + ratio * abs(shift)))
    place = np.arange(-reach, ratio + reach) - (ratio - 1) / 2 + ratio * shift
    kernel = np.exp(-0.5 * (place / sigma) ** 2)
    weights: NDArray[np.float64] = kernel / kernel.sum()
    return weights


def blur(image: Float, side: list[float]) -> Float:
    """Return (channels, height, width) blurred by a symmetric separable kernel, without the rim it cannot reach."""
    reach = len(side) - 1
    for axis in (1, 2):
        length = image.shape[axis] - 2 * reach

        def shifted(by: int, image: Float = image, axis: int = axis, length: int = length) -> Float:
            window = [slice(None)] * 3
            window[axis] = slice(reach + by, reach + by + length)
            return image[tuple(window)]

        total = shifted(0) * np.float32(side[0])
        for by in range(1, reach + 1):
            total += (shifted(by) + shifted(-by)) * np.float32(side[by])
        image = total
    return image


def _decimate(image: Float, kernels: tuple[NDArray[np.float64], ...], ratio: int, halo: int) -> Float:
    """Return (h, w) MS pixels of an image (h·ratio + 2·halo, w·ratio + 2·halo); kernels are for rows and columns."""
    for axis, kernel in enumerate(kernels):
        reach = (len(kernel) - ratio) // 2
        count = (image.shape[axis] - 2 * halo) // ratio
        first = halo - reach
        total: Float | None = None
        for by, weight in enumerate(kernel):
            rows = slice(first + by, first + by + count * ratio - ratio + 1, ratio)
            part = image[(rows, slice(None)) if axis == 0 else (slice(None), rows)] * np.float32(weight)
            total = part if total is None else total + part
        assert total is not None
        image = total
    return image


def _count(image: Float, top: int) -> Pixels:
    """Round to digital numbers; 0 is left out, because many readers take it for no data."""
    return np.rint(np.clip(image, 1, top)).astype(np.uint16)
