"""From values to a tile's PNG: the stretch, the colours of maps and of differences."""

import io
from dataclasses import dataclass

import numpy as np
from PIL import Image

from ksdiff_cli.numerics import Array
from ksdiff_cli.report.colours import ERROR_COLOURS

DIFFERENCE_COLOURS = ((0.0, "#1f5fa8"), (0.25, "#7fb2dc"), (0.5, "#f4f3ef"), (0.75, "#e79a76"), (1.0, "#a83a1f"))
"""From less to more; the middle is no difference. Blue and orange are told apart by colour-blind eyes too."""
RAMPS = {"map": ERROR_COLOURS, "difference": DIFFERENCE_COLOURS}
_LEVEL = 1  # of zlib: tiles go to this machine's own browser


@dataclass(frozen=True)
class Stretch:
    """Which values are black and which are bright, band by band."""

    low: tuple[float, ...]
    high: tuple[float, ...]
    gamma: float = 1.0
    """Above 1 makes dark parts brighter."""

    def apply(self, values: Array) -> Array:
        """Return brightness from 0 to 255, uint8, of (bands, h, w); rounded, and 0 where NaN."""
        low, high = (np.array(ends, np.float32)[:, None, None] for ends in (self.low, self.high))
        share = np.clip(np.nan_to_num((values - low) / (high - low), nan=0.0), 0, 1)
        if self.gamma != 1:
            share = share ** np.float32(1 / self.gamma)
        return np.asarray(share * 255 + 0.5).astype(np.uint8)


def encode_image(values: Array, stretch: Stretch) -> bytes:
    """Return a PNG of (1 or 3, h, w), transparent where NaN."""
    levels = stretch.apply(values)
    return _encode(levels, ~np.isnan(values[0]))


def encode_ramp(values: Array, low: float, high: float, ramp: str) -> bytes:
    """Return a PNG of (h, w) in the colours of a ramp of :data:`RAMPS`, transparent where NaN."""
    index = Stretch((low,), (high,)).apply(values[None])[0]
    return _encode(_table(ramp)[index].transpose(2, 0, 1), ~np.isnan(values))


def _table(ramp: str) -> Array:
    """Return the (256, 3) uint8 colours of a ramp."""
    places = [place for place, _ in RAMPS[ramp]]
    points = np.array([[int(colour[i : i + 2], 16) for i in (1, 3, 5)] for _, colour in RAMPS[ramp]])
    at = np.linspace(0, 1, 256)
    channels = [np.interp(at, places, points[:, channel]) for channel in range(3)]
    return np.asarray(np.rint(np.stack(channels, 1))).astype(np.uint8)


def _encode(levels: Array, valid: Array) -> bytes:
    planes = list(levels)
    if not valid.all():
        planes = [np.where(valid, plane, np.uint8(0)) for plane in (*planes, np.uint8(255))]
    mode = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}[len(planes)]
    pixels = planes[0] if len(planes) == 1 else np.ascontiguousarray(np.stack(planes, 2))
    out = io.BytesIO()
    Image.fromarray(pixels, mode).save(out, "PNG", compress_level=_LEVEL)
    return out.getvalue()


def nothing() -> bytes:
    """Return the PNG of a tile without any data, one transparent pixel."""
    return _encode(np.zeros((1, 1, 1), np.uint8), np.zeros((1, 1), bool))
