"""Drawing on RGB arrays (H, W, 3) uint8: tints, hatches, outlines and text."""

from functools import cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ksdiff_cli.numerics import Array
from ksdiff_cli.numerics.boxes import Box

Colour = tuple[int, int, int]


@cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def text_width(text: str, size: int) -> int:
    """Return the width of a line of text in pixels; ``size`` is its height."""
    return int(np.ceil(_font(size).getbbox(text)[2])) if text else 0


def fit_text(text: str, width: int, size: int, *, keep_end: bool = False) -> str:
    """Shorten a line of text to a width in pixels, at its end or, with ``keep_end``, at its beginning."""
    if text_width(text, size) <= width:
        return text
    while text and text_width(f"{text}…", size) > width:
        text = text[1:] if keep_end else text[:-1]
    return f"…{text}" if keep_end else f"{text}…"


def draw_text(canvas: Array, text: str, row: int, col: int, size: int, colour: Colour) -> None:
    """Write a line of text, its upper left corner at (row, col); what does not fit is cut off."""
    area = canvas[row : row + 2 * size, col : col + text_width(text, size) + 1]
    if area.size:
        image = Image.fromarray(np.ascontiguousarray(area))
        ImageDraw.Draw(image).text((0, 0), text, fill=colour, font=_font(size))
        area[...] = np.asarray(image)


def tint(canvas: Array, mask: Array, colour: Colour, strength: float) -> None:
    """Mix a colour into the pixels of a mask (H, W); strength 0 to 1."""
    canvas[mask] = (canvas[mask] * (1 - strength) + np.array(colour) * strength).astype(np.uint8)


def hatch(shape: tuple[int, int], period: int) -> Array:
    """Return diagonal stripes, (H, W) bool, half of each ``period`` of pixels."""
    return np.asarray(np.add.outer(np.arange(shape[0]), np.arange(shape[1])) % period < period // 2)


def outline(canvas: Array, box: Box, colour: Colour, width: int) -> None:
    """Draw a rectangle's border, ``width`` pixels wide, inside it."""
    inside = canvas[box.top : box.bottom, box.left : box.right]
    for edge in (inside[:width], inside[-width:], inside[:, :width], inside[:, -width:]):
        edge[...] = colour
