"""The scale bar of a picture: the round length that fits, on the ground or in pixels."""

import math
from dataclasses import dataclass

_SHARE = 1 / 3  # of the picture's width that a bar may take


@dataclass(frozen=True)
class ScaleBar:
    """A length to draw on a picture."""

    pixels: float
    """Of the picture, as it is before a viewer enlarges it."""
    text: str
    """The length that it stands for, e.g. ``50 m``."""


def choose_bar(width: int, step: float, metres: float | None, unit: str = "px") -> ScaleBar:
    """Choose the longest bar of 1, 2 or 5 times a power of ten that takes at most a third of a picture's width.

    Args:
        width: of the picture, in its pixels.
        step: pixels of the image per pixel of the picture; below 1 where it is enlarged.
        metres: width of an image's pixel on the ground; None where nothing tells it.
        unit: what is counted then, by name.
    """
    size = step * (metres or 1.0)
    most = size * width * _SHARE
    power = 10.0 ** math.floor(math.log10(most))
    length = next(digit * power for digit in (5, 2, 1) if digit * power <= most * (1 + 1e-9))
    if metres is not None:
        length, unit, size = (length / 1000, "km", size / 1000) if length >= 1000 else (length, "m", size)
    return ScaleBar(length / size, f"{length:g} {unit}")
