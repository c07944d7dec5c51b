"""From DN to colours: which bands are shown, the stretch all pictures share, the colours of errors, and PNG."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ksdiff_cli.files.writing import encode_png
from ksdiff_cli.numerics import Array

PERCENTILES = 2, 98
"""Values shown as black and as full brightness."""
ERROR_COLOURS = ((0.0, "#10122b"), (0.25, "#4b2a7b"), (0.5, "#b23a6f"), (0.75, "#f08a3c"), (1.0, "#fcf3b4"))
"""From no error to much: lightness rises evenly, so that it reads the same in print and for colour-blind eyes."""
_LEVELS = 128  # per channel: the eye sees no difference to 256, and a PNG of a satellite image shrinks by a sixth
_ERROR_LEVELS = 63  # and one colour for what is left out


def rgb_bands(count: int, names: Sequence[str] = ()) -> tuple[int, int, int]:
    """Choose the bands to show as red, green and blue, from 0.

    Bands called red, green and blue win. Without such names the order of the usual products decides: 8 bands are
    WorldView's (coastal, blue, green, yellow, red, …), 3 are taken for red, green, blue as in any picture file, other
    numbers begin with blue, green, red (QuickBird, GaoFen, Pléiades, Landsat without its coastal band). One or two
    bands are shown as the first one in grey.

    Args:
        count: number of bands, at least 1.
        names: of the bands, any case; empty when unknown.
    """
    lower = [name.lower() for name in names]
    if all(colour in lower[:count] for colour in ("red", "green", "blue")):
        return lower.index("red"), lower.index("green"), lower.index("blue")
    if count < 3:
        return 0, 0, 0
    return {3: (0, 1, 2), 8: (4, 2, 1)}.get(count, (2, 1, 0))


@dataclass(frozen=True)
class Stretch:
    """A linear map from DN to brightness, band by band."""

    low: Array
    """(bands,) DN shown as black."""
    high: Array
    """(bands,) DN shown at full brightness."""

    def apply(self, image: Array) -> Array:
        """Return brightness from 0 to 255, uint8, of (bands, H, W); NaN becomes 0."""
        share = (image - self.low[:, None, None]) / (self.high - self.low)[:, None, None]
        levels = np.floor(np.clip(np.nan_to_num(share), 0, 1) * (_LEVELS - 1) + 0.5)
        return np.asarray(levels * (255 / (_LEVELS - 1)) + 0.5).astype(np.uint8)


def find_stretch(image: Array, valid: Array) -> Stretch:
    """Find the stretch between the percentiles :data:`PERCENTILES` of each band's valid pixels.

    Args:
        image: (bands, H, W), DN.
        valid: (H, W) bool; without any such pixel the stretch is from 0 to 1.
    """
    bands = len(image)
    if not valid.any():
        return Stretch(np.zeros(bands), np.ones(bands))
    low, high = np.percentile(np.asarray(image[:, valid], np.float64), PERCENTILES, axis=1)
    return Stretch(low, np.where(high > low, high, low + 1))


def reduce(image: Array, valid: Array, factor: int) -> tuple[Array, Array]:
    """Average ``factor`` x ``factor`` pixels into one; the last row and column may hold fewer.

    Args:
        image: (bands, H, W).
        valid: (H, W) bool, pixels that count.
        factor: 1 changes nothing.

    Returns:
        (bands, h, w) means of the valid pixels, and (h, w) bool, where at least half of the pixels are valid.
    """
    if factor == 1:
        return np.where(valid, image, 0), valid
    values = np.where(valid, np.asarray(image, np.float64), 0)
    total, count, full = (_add_up(x, factor) for x in (values, valid, np.ones(valid.shape)))
    return total / np.maximum(count, 1), count * 2 >= full


def _add_up(image: Array, factor: int) -> Array:
    rows = np.add.reduceat(image, range(0, image.shape[-2], factor), axis=-2, dtype=np.float64)
    return np.asarray(np.add.reduceat(rows, range(0, image.shape[-1], factor), axis=-1))


def encode_picture(image: Array, valid: Array, stretch: Stretch) -> bytes:
    """Return a PNG of (1 or 3, H, W) DN: grey or colour, transparent where not valid."""
    levels = np.where(valid, stretch.apply(image), np.uint8(0))
    if not valid.all():
        levels = np.concatenate([levels, np.where(valid, np.uint8(255), np.uint8(0))[None]])
    return encode_png(levels[0] if len(levels) == 1 else np.moveaxis(levels, 0, -1))


def encode_errors(errors: Array, valid: Array, top: float) -> bytes:
    """Return a PNG of (H, W) errors in the colours :data:`ERROR_COLOURS`, ``top`` and more in the last one."""
    share = np.clip(np.nan_to_num(errors) / top, 0, 1)
    index = np.where(valid, 1 + np.floor(share * (_ERROR_LEVELS - 1) + 0.5), 0).astype(np.uint8)
    return encode_png(index, list(palette().values()))


def palette() -> dict[int, tuple[int, int, int, int]]:
    """Return the palette of the error maps: 0 is transparent, then :data:`ERROR_COLOURS` from first to last."""
    at = np.linspace(0, 1, _ERROR_LEVELS)
    places = [place for place, _ in ERROR_COLOURS]
    points = np.array([[int(colour[i : i + 2], 16) for i in (1, 3, 5)] for _, colour in ERROR_COLOURS])
    channels = [np.rint(np.interp(at, places, points[:, channel])).astype(int).tolist() for channel in range(3)]
    colours = [(red, green, blue, 255) for red, green, blue in zip(*channels, strict=True)]
    return {0: (0, 0, 0, 0), **dict(enumerate(colours, start=1))}
