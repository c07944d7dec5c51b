"""How sharp PAN is at its own pixels, and what keeps it as sharp when it is reduced."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from ksdiff_cli.fusers.anchors import spread_windows
from ksdiff_cli.numerics.grids import corner_aligned, degrade
from ksdiff_cli.raster.pair import ScenePair, fill_invalid

Array = NDArray[Any]

_FINE, _COARSE = 0.7, 1.4  # deviations of the Gaussians between which octaves lie, pixels
_SIDE, _WINDOWS = 1024, 4
_GAINS = (0.2, 0.25, 0.3, 0.35, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


def find_reduced_mtf(pair: ScenePair) -> float:
    """Find the MTF by which a reduced PAN is as sharp, at its pixels, as PAN is at its own.

    The finest octave of most scenes is as strong against the next one at any scale, so what differs between a scene and
    its reduced version is the camera. A sensor's figure is believed unless PAN is sharper, as restored products are: a
    network that is fine-tuned on PAN blurred too much learns to sharpen it, and does so with what is sharp already.

    Returns:
        The sensor's MTF of PAN at its Nyquist frequency, or a larger one.
    """
    known, ratio = pair.scene.sensor.mtf_pan, pair.grid.ratio
    images = []
    for place in spread_windows(pair.shape, _SIDE):
        pan, valid = pair.read_pan(*place)
        if valid.mean() > 0.5:
            images.append(fill_invalid(pan, valid))
        if len(images) == _WINDOWS:
            break
    own = _sharpness(images)
    if own is None:
        return known
    grid = corner_aligned(ratio)
    shapes = [(image.shape[1] // ratio, image.shape[2] // ratio) for image in images]
    found = {}
    for gain in (known, *(gain for gain in _GAINS if gain > known)):
        reduced = _sharpness(
            [degrade(image, grid, shape, (gain,)) for image, shape in zip(images, shapes, strict=True)]
        )
        if reduced is None:
            return known
        found[gain] = abs(reduced - own)
    return min(found, key=lambda gain: found[gain])


def _sharpness(images: list[Array]) -> float | None:
    """Compare the two finest octaves of (1, h, w) images: the logarithm of their power's ratio, None without any."""
    fine = coarse = 0.0
    for image in images:
        values = image[0].astype(np.float64)
        smooth, smoother = (gaussian_filter(values, sigma) for sigma in (_FINE, _COARSE))
        fine += float(((values - smooth) ** 2).sum())
        coarse += float(((smooth - smoother) ** 2).sum())
    return float(np.log(fine / coarse)) if fine > 0 and coarse > 0 else None
