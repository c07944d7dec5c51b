"""Low-pass versions of PAN and the way down to the MS grid, in the reference's geometry and in that of real scenes."""

import math

import numpy as np

from ksdiff_cli.classical.method import SceneBlock, Setup
from ksdiff_cli.numerics import Array
from ksdiff_cli.numerics.camera import Kernel, camera_kernel
from ksdiff_cli.numerics.camera_views import SOFTENING
from ksdiff_cli.numerics.toolbox import (
    MTF_REACH,
    apply_axes,
    bicubic,
    correlate,
    decimate,
    ideal_kernel,
    interp23tap,
    mtf_kernel,
    sampling_matrix,
)

_SPLINE = np.array([1, 4, 6, 4, 1]) / 16  # the cubic B-spline's filter


def mtf_reach(ratio: int) -> int:
    """Return the reach of the MTF filters, PAN pixels."""
    return MTF_REACH


def mtf_gaussians(setup: Setup) -> list[Kernel]:
    """Return what :func:`mtf_low` takes for each band as a sum of Gaussians, deviations in PAN pixels."""
    kernels = (camera_kernel(gain, setup.compensation) for gain in setup.gains)
    return [tuple((weight, sigma * setup.ratio) for weight, sigma in kernel) for kernel in kernels]


def atrous_reach(ratio: int) -> int:
    """Return the reach of :func:`atrous`, PAN pixels."""
    return 4 * _levels(ratio)


def low_reach(ratio: int) -> int:
    """Return the reach of :func:`down_up`, PAN pixels."""
    return 5 * ratio


def low_mtf_reach(ratio: int) -> int:
    """Return the reach of an MTF filter on the MS grid, after :func:`to_ms_grid`, PAN pixels."""
    return MTF_REACH * ratio + low_reach(ratio)


def mtf_low(block: SceneBlock, setup: Setup) -> Array:
    """Return PAN as each band's camera would see it, on the PAN grid: (bands, H, W).

    The reference filters, decimates and interpolates; in area geometry the filter alone must do.
    """
    seen: dict[float, Array] = {}
    for gain in set(setup.gains):
        low = _blur(block, _mtf_kernel(gain, setup), setup)
        if setup.geometry == "toolbox":
            low = interp23tap(decimate(low[None], setup.ratio), setup.ratio)[0]
        seen[gain] = low
    return np.stack([seen[gain] for gain in setup.gains])


def ideal_low(block: SceneBlock, setup: Setup) -> Array:
    """Return PAN through a low-pass of gain 0.3 at the MS Nyquist frequency, (H, W)."""
    return _blur(block, _unit_sum(ideal_kernel(setup.ratio), setup), setup)


def pan_mtf_low(block: SceneBlock, setup: Setup) -> Array:
    """Return PAN through its own MTF taken at the MS Nyquist frequency, (H, W)."""
    return _blur(block, _mtf_kernel(setup.gain_pan, setup), setup)


def atrous(block: SceneBlock, setup: Setup) -> Array:
    """Return PAN without its first log2(ratio) levels of the undecimated wavelet transform, (H, W).

    References:
        Nunez et al., "Multiresolution-based image fusion with additive wavelet decomposition", IEEE TGRS 1999.
    """
    levels = _levels(setup.ratio)
    if block.valid.all():
        return _spline(block.pan, levels)
    known = block.valid.astype(np.float64)
    return _normalised(block, _spline(block.pan * known, levels), _spline(known, levels))


def down_up(image: Array, ratio: int) -> Array:
    """Bring (bands, H, W) to the MS size and back by bicubic interpolation."""
    height, width = image.shape[1:]
    return bicubic(bicubic(image, 1 / ratio), ratio)[:, :height, :width]


def to_ms_grid(pan_low: Array, setup: Setup) -> Array:
    """Sample a low-pass PAN (H, W) at the centres of MS pixels: (h, w).

    In area geometry those are the centres of ratio x ratio pixels counted from the first, wherever the real MS grid
    lies: what is compared with it, :func:`ms_on_ms_grid`, lies on the same.
    """
    if setup.geometry == "toolbox":
        return np.asarray(decimate(pan_low[None], setup.ratio)[0])
    matrices = []
    for size in pan_low.shape:
        centres = (np.arange(math.ceil(size / setup.ratio)) + 0.5) * setup.ratio - 0.5
        matrices.append(sampling_matrix(centres, size, 1.0))
    return np.asarray(apply_axes(matrices[0], matrices[1], pan_low[None])[0])


def ms_on_ms_grid(block: SceneBlock, setup: Setup) -> Array:
    """Return MS on the grid of :func:`to_ms_grid`, (bands, h, w): in toolbox geometry exactly what was upsampled."""
    if setup.geometry == "toolbox":
        return decimate(block.ms_up, setup.ratio)
    return bicubic(block.ms_up, 1 / setup.ratio)


def mask_on_ms_grid(mask: Array, setup: Setup) -> Array:
    """Bring a mask (H, W) to the grid of :func:`to_ms_grid`: (h, w), the pixel next to the centre decides."""
    if setup.geometry == "toolbox":
        return np.asarray(decimate(mask[None], setup.ratio)[0])
    rows, cols = (
        np.minimum(np.arange(math.ceil(size / setup.ratio)) * setup.ratio + setup.ratio // 2, size - 1)
        for size in mask.shape
    )
    return np.asarray(mask[np.ix_(rows, cols)])


def blur_on_ms_grid(image: Array, setup: Setup) -> Array:
    """Blur an image on the MS grid by each band's MTF as if it were as fine as PAN: (bands, h, w)."""
    kernels = (_mtf_kernel(gain, setup) for gain in setup.gains)
    return np.stack([correlate(band, kernel) for band, kernel in zip(image, kernels, strict=True)])


def _levels(ratio: int) -> int:
    return max(1, math.ceil(math.log2(ratio)))


def _mtf_kernel(gain: float, setup: Setup) -> Array:
    """Return a camera's filter, compensated if the setup says so."""
    kernel = _unit_sum(mtf_kernel(gain, setup.ratio), setup)
    if setup.compensation == 0:
        return kernel
    softer = gain * math.exp(-((math.pi * SOFTENING) ** 2) / 2)  # the compensation's blur at the MS Nyquist frequency
    return kernel + setup.compensation * (kernel - _unit_sum(mtf_kernel(softer, setup.ratio), setup))


def _unit_sum(kernel: Array, setup: Setup) -> Array:
    """Give a kernel unit sum in area geometry; the reference leaves it as it is."""
    return kernel if setup.geometry == "toolbox" else np.asarray(kernel / kernel.sum())


def _blur(block: SceneBlock, kernel: Array, setup: Setup) -> Array:
    if block.valid.all():
        return correlate(block.pan, kernel)
    known = block.valid.astype(np.float64)
    return _normalised(block, correlate(block.pan * known, kernel), correlate(known, kernel))


def _normalised(block: SceneBlock, total: Array, weight: Array) -> Array:
    """Divide a filtered image by its filtered mask, so that only valid pixels count; PAN where there are none."""
    known = weight > 1e-3  # about half of what the worst corner of a valid area gets is above this
    return np.where(known, total / np.where(known, weight, 1.0), block.pan)


def _spline(plane: Array, levels: int) -> Array:
    """Filter each axis once a level down and once a level up.

    As in the reference, an axis grows by the filter's reach at every level and is extended symmetrically about its
    grown ends at the next: this shows in the outermost 4 pixels.
    """
    for axis in (0, 1):
        line = np.moveaxis(plane, axis, 0)
        for _ in range(levels):
            line = _valid(np.pad(line, ((4, 4), (0, 0)), mode="symmetric"))
        for _ in range(levels):
            line = _valid(line)
        plane = np.moveaxis(line, 0, axis)
    return plane


def _valid(line: Array) -> Array:
    size = len(line) - 4
    return np.asarray(sum(tap * line[start : start + size] for start, tap in enumerate(_SPLINE)))
