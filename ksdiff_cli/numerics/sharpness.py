"""How sharp a wanted image is relative to PAN, as a filter of PAN: what ends as sharp as PAN ends as sharp as that."""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from scipy.ndimage import gaussian_filter

from ksdiff_cli.numerics import Array
from ksdiff_cli.numerics.camera import View, fit_camera

SIGMA = 0.9
"""Deviation of the blur, PAN pixels."""
REACH = 4
"""PAN pixels that :func:`resharpen` looks at on each side."""

_SHARPNESSES, _HALVINGS = (-1.2, 2.4), 6  # that are looked at


def resharpen(pan: Array, sharpness: float) -> Array:
    """Return PAN sharper or softer: P + s (P - blur(P)); borders replicated.

    Args:
        pan: (H, W), any unit.
        sharpness: s; 0 leaves PAN as it is, -1 is the blurred PAN.
    """
    if not sharpness:
        return pan
    blurred = gaussian_filter(pan, SIGMA, mode="nearest", radius=REACH)
    return np.asarray(pan + np.float32(sharpness) * (pan - blurred), np.float32)


def implied_sharpness(views: Sequence[View], bands: int, gains: Sequence[float]) -> float:
    """Return the sharpness, relative to PAN, of the image that MS was made from by a known camera.

    In Wald's protocol MS is the truth through the sensor's MTF, and the truth is an image that was delivered as MS: it
    is softer than the reduced PAN or, where the ground segment compensated it, sharper. The camera that is found
    against PAN is the known one where PAN is as sharp as the truth.

    Args:
        views: PAN and MS.
        bands: of MS.
        gains: MTF gains that MS was made with; their mean is taken.

    Returns:
        See :func:`resharpen`; 0 where the views do not tell.
    """
    wanted, (low, high) = float(np.mean(gains)), _SHARPNESSES

    def gain(sharpness: float) -> float:
        looked = [replace(view, pan=resharpen(view.pan, sharpness)) for view in views]
        found = fit_camera(looked, bands, gains)
        return found.gain if found.reliable else math.nan

    if not gain(0.0) > 0:
        return 0.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if gain(middle) > wanted:  # the sharper PAN is, the softer MS looks beside it
            low = middle
        else:
            high = middle
    return round((low + high) / 2, 3)
