"""Which windows are fit for training: free of nodata, and nearly free of clouds and saturated pixels (no I/O)."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from ksdiff_cli.numerics import Array
from ksdiff_cli.sensors import Sensor

REASONS = ("nodata", "cloud", "saturated")
"""Why a window is left out; the first that applies is the one counted."""


@dataclass(frozen=True)
class Rule:
    """What a window may hold and still be kept.

    Statistics follow another rule: they take all pixels without nodata, clouds included, because sharpening normalises
    a scene by all its pixels too, and a network should meet scenes in training as it will meet them then.
    """

    max_cloud: float
    """Largest share of cloud and cloud shadow, percent of the window's MS pixels."""
    max_saturated: float
    """Largest share of MS pixels at the largest DN in a band or in the PAN pixel at their centre, percent."""

    def reason(self, clean: Array, cloud: Array, saturated: Array) -> int | None:
        """Say why a window is left out: an index of REASONS, or None where it is kept.

        Args:
            clean: (h, w) bool, all that a pixel depends on is valid.
            cloud: (h, w) bool.
            saturated: (h, w) bool.
        """
        if not clean.all():
            return 0
        if 100 * cloud.mean() > self.max_cloud:
            return 1
        if 100 * saturated.mean() > self.max_saturated:
            return 2
        return None

    def __str__(self) -> str:
        """Return the rule in words, for the files' attribute."""
        return (
            "left out: windows that depend on nodata, the filters' reach included; windows with more than "
            f"{self.max_cloud:g} % cloud or cloud shadow by the product's quality band; windows with more than "
            f"{self.max_saturated:g} % of pixels at the largest DN in a band or PAN"
        )


def largest_dn(sensor: Sensor, dtype: Any) -> float | None:
    """Return the DN at which a band saturates: 2**bits - 1 of a known sensor, else the data type's largest.

    Pixels are compared for equality, so data rescaled beyond a sensor's range lose next to nothing by it.

    Returns:
        ``None`` where nothing is known: an unknown sensor's data in a type wider than 16 bits.
    """
    kind = np.dtype(dtype)
    highest = float(np.iinfo(kind).max) if kind.kind in "iu" and kind.itemsize <= 2 else None
    if sensor.name == "generic":
        return highest
    top = float(2**sensor.bits - 1)
    return top if highest is None else min(top, highest)


def at_top(values: Array, tops: tuple[float | None, ...]) -> Array:
    """Find the pixels at the largest DN in any band: (bands, h, w) -> (h, w) bool."""
    found = np.zeros(values.shape[1:], bool)
    for band, top in zip(values, tops, strict=True):
        if top is not None:
            found |= band == top
    return found
