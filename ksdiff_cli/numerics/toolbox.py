"""The filters of the field's reference toolbox: MTF low-pass, 23-tap upsampling, decimation, bicubic resizing (no I/O).

All work in float64 on arrays (bands, height, width) and agree with the toolbox, so that measured numbers compare with
the literature. Sharpening real scenes follows the georeference instead: see :mod:`ksdiff_cli.numerics.grids`.
"""

import math
from functools import lru_cache

import numpy as np
from scipy import fft
from scipy.sparse import csr_array

from ksdiff_cli.numerics import Array

# Taps 1, 3, 5, … either side of the centre of the 23-tap half-band filter (Aiazzi et al. 2002), doubled: the zeros
# inserted between samples halve the energy. The even taps are zero but for the centre, which is 1.
_INTERP23 = 2 * np.array(
    [0.305334091185, -0.072698593239, 0.021809577942, -0.005192756653, 0.000807762146, -0.000060081482]
)
_IDEAL_GAIN = 0.3

MTF_REACH = 20
"""Pixels that :func:`mtf_filter` looks at on each side."""
INTERP_REACH = 12
"""Input pixels that :func:`interp23tap` looks at on each side, whatever the ratio (6 + 3 + 1.5 + …)."""


def mtf_kernel(gain: float, ratio: float, size: int = 41) -> Array:
    """Return the low-pass whose response at the coarse Nyquist frequency is ``gain``, a camera's MTF.

    A Gaussian in frequency, designed by the window method with Huang's circular Kaiser window (beta 0.5). It is not
    renormalised: it sums to about 0.9985, as in the reference. A unit sum would move D_lambda by 0.0014.

    Args:
        gain: MTF at the Nyquist frequency of the coarse grid, (0, 1).
        ratio: fine pixels per coarse pixel, at least 1.
        size: odd side of the kernel, pixels.

    Returns:
        (size, size) float64, symmetric.

    References:
        Aiazzi et al., "MTF-tailored multiscale fusion of high-resolution MS and Pan imagery", PE&RS 2006.
    """
    return _window_design(gain, ratio, size, size - 1).copy()


def ideal_kernel(ratio: float, size: int = 41) -> Array:
    """Return the (size, size) low-pass of BT-H: as :func:`mtf_kernel` at gain 0.3 but on a frequency grid of ``size``.

    References:
        Lolli et al., "Haze correction for contrast-based multispectral pansharpening", IEEE GRSL 2017.
    """
    return _window_design(_IDEAL_GAIN, ratio, size, size).copy()


@lru_cache(maxsize=64)
def _window_design(gain: float, ratio: float, size: int, samples: int) -> Array:
    half = (size - 1) / 2
    frequency = np.arange(size) - half
    sigma = math.sqrt((samples / (2 * ratio)) ** 2 / (-2 * math.log(gain)))
    response = np.exp(-(frequency[:, None] ** 2 + frequency**2) / (2 * sigma**2))
    response[response < np.finfo(np.float64).eps] = 0
    kernel: Array = np.real(np.fft.fftshift(np.fft.ifft2(np.fft.ifftshift(response))))
    at = frequency / half
    radius = np.sqrt(at[:, None] ** 2 + at**2)
    window = np.interp(radius, at, np.kaiser(size, 0.5), right=0.0)
    kernel *= window
    kernel.flags.writeable = False  # shared by all callers through the cache
    return kernel


def mtf_filter(image: Array, gains: tuple[float, ...], ratio: float) -> Array:
    """Blur an image as the MS camera would, at the full sampling: one MTF a band, replicated border.

    Args:
        image: (bands, H, W), any unit.
        gains: one MTF gain per band, (0, 1).
        ratio: fine pixels per coarse pixel.

    Returns:
        (bands, H, W) float64, same unit.

    Raises:
        ValueError: the number of gains is not the number of bands.
    """
    if len(gains) != image.shape[0]:
        raise ValueError(f"{len(gains)} MTF gains for {image.shape[0]} bands")
    return np.stack([correlate(band, mtf_kernel(gain, ratio)) for band, gain in zip(image, gains, strict=True)])


def correlate(band: Array, kernel: Array) -> Array:
    """Correlate a band (H, W) with an odd-sided, point-symmetric kernel; the border is replicated. Float64, (H, W)."""
    reach = kernel.shape[0] // 2
    padded = np.pad(band.astype(np.float64, copy=False), reach, mode="edge")
    # Point-symmetric: correlation is convolution, which the FFT does to about 1e-15 of the band's maximum. Its circular
    # wrap spoils only the padding.
    shape = [fft.next_fast_len(size, real=True) for size in padded.shape]
    spectrum = fft.rfft2(padded, shape)
    spectrum *= fft.rfft2(kernel, shape)
    inside = [slice(2 * reach, 2 * reach + size) for size in band.shape]
    return np.asarray(fft.irfft2(spectrum, shape)[*inside])


def interp23tap(image: Array, ratio: int) -> Array:
    """Upsample by the reference's 23-tap polynomial filter (EXP), in stages of 2; the border is circular.

    The samples land on indices ratio*k + ratio//2 (4k+2 at ratio 4): odd ones in the first stage, even ones afterwards.

    Args:
        image: (bands, h, w), any unit.
        ratio: a power of two; 1 returns a float64 copy.

    Returns:
        (bands, h*ratio, w*ratio) float64.

    Raises:
        ValueError: the ratio is no power of two.

    References:
        Aiazzi et al., "Context-driven fusion of high spatial and spectral resolution images based on oversampled
        multiresolution analysis", IEEE TGRS 2002.
    """
    if not is_power_of_two(ratio):
        raise ValueError(f"interp23tap needs a ratio that is a power of two, not {ratio}")
    out = image.astype(np.float64)
    for stage in range(int(ratio).bit_length() - 1):
        for axis in (1, 2):
            out = _double(out, axis, first=stage == 0)
    return out


def is_power_of_two(ratio: float) -> bool:
    """Say whether a ratio is one of 1, 2, 4, 8 and so on."""
    return ratio >= 1 and float(ratio).is_integer() and int(ratio) & (int(ratio) - 1) == 0


def _double(image: Array, axis: int, first: bool) -> Array:
    size, reach = image.shape[axis], len(_INTERP23)
    widths = [(0, 0)] * 3
    widths[axis] = (reach, reach)
    circular = np.moveaxis(np.pad(image, widths, mode="wrap"), axis, 0)
    # between[k] lies half a sample before sample k in the first stage and half a sample after it in later ones
    left = reach - 1 if first else reach
    total = np.zeros_like(circular[:size])
    for step, tap in enumerate(_INTERP23):
        total += tap * (circular[left - step :][:size] + circular[left + 1 + step :][:size])
    between = np.moveaxis(total, 0, axis)
    pair = (between, image) if first else (image, between)
    shape = list(image.shape)
    shape[axis] *= 2
    return np.stack(pair, axis + 1).reshape(shape)


def decimate(image: Array, ratio: int) -> Array:
    """Keep the pixels with indices ratio//2, ratio//2 + ratio, … of both axes: (bands, H, W) -> (bands, h, w)."""
    start = ratio // 2
    return image[:, start::ratio, start::ratio]


def bicubic(image: Array, scale: float) -> Array:
    """Resize by bicubic convolution (Keys 1981, a = -1/2), antialiased when shrinking, symmetric border.

    The outer corners of the two grids coincide.

    Args:
        image: (bands, H, W), any unit.
        scale: output pixels per input pixel, > 0; e.g. 4 or 1/4.

    Returns:
        (bands, ceil(H*scale), ceil(W*scale)) float64.
    """
    rows, cols = (resize_matrix(size, scale) for size in image.shape[1:])
    return apply_axes(rows, cols, image)


def resize_matrix(size: int, scale: float) -> csr_array:
    """Return the (ceil(size*scale), size) matrix of :func:`bicubic` for one axis."""
    count = math.ceil(size * scale - 1e-9)
    return sampling_matrix((np.arange(count) + 0.5) / scale - 0.5, size, scale)


def sampling_matrix(coordinates: Array, size: int, scale: float) -> csr_array:
    """Return the bicubic matrix that samples an axis at ``coordinates``, antialiased for ``scale`` < 1.

    Args:
        coordinates: (n,) in source pixels, the centre of the first is 0.
        size: number of source pixels.
        scale: output pixels per source pixel; below 1 the kernel is widened by its inverse.

    Returns:
        (n, size) sparse float64; each row sums to 1; pixels beyond the border are mirrored, the border pixel doubled.
    """
    shrink = min(scale, 1.0)
    reach = math.ceil(4 / shrink) // 2 + 1
    taps = np.floor(coordinates).astype(np.int64)[:, None] + np.arange(-reach, reach + 2)
    x = np.abs(coordinates[:, None] - taps) * shrink
    near, far = (1.5 * x - 2.5) * x * x + 1, ((-0.5 * x + 2.5) * x - 4) * x + 2
    weights = np.where(x <= 1, near, np.where(x < 2, far, 0.0))
    weights /= weights.sum(1, keepdims=True)
    mirrored = np.mod(taps, 2 * size)
    mirrored = np.minimum(mirrored, 2 * size - 1 - mirrored)
    rows = np.repeat(np.arange(len(coordinates)), taps.shape[1])
    return csr_array((weights.ravel(), (rows, mirrored.ravel())), shape=(len(coordinates), size))


def apply_axes(rows: csr_array, cols: csr_array, image: Array) -> Array:
    """Apply an (H', H) and a (W', W) matrix to each band of (bands, H, W): (bands, H', W') float64."""
    planes = (rows @ plane.astype(np.float64, copy=False) for plane in image)
    return np.stack([(cols @ plane.T).T for plane in planes])
