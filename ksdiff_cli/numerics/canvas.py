"""Plain drawing on RGB arrays (H, W, 3) uint8: tints, hatches, outlines and small text (no I/O)."""

import numpy as np

from ksdiff_cli.numerics import Array

Colour = tuple[int, int, int]
Box = tuple[int, int, int, int]
"""Top, left, bottom, right; the last two lie outside."""

_WIDTH, _HEIGHT = 6, 7  # of a letter in dots, the gap after it included
_DIGITS = "0123456789abcdefghijklmnopqrstuv"
# seven rows of five dots a letter, each row a digit to base 32
_FONT = """
A ehhvhhh  B uhhuhhu  C ehggghe  D uhhhhhu  E vgguggv  F vgguggg  G ehgnhhf  H hhhvhhh  I e44444e  J 72222ic
K hikokih  L ggggggv  M hrllhhh  N hhpljhh  O ehhhhhe  P uhhuggg  Q ehhhlid  R uhhukih  S fgge11u  T v444444
U hhhhhhe  V hhhhha4  W hhhllla  X hha4ahh  Y hhha444  Z v1248gv  0 ehjlphe  1 4c4444e  2 eh1248v  3 v2421he
4 26aiv22  5 vgu11he  6 68guhhe  7 v124888  8 ehhehhe  9 ehhf12c  - 000v000  _ 000000v  . 00000cc  , 0000c48
: 0cc0cc0  / 01248g0  % op248j3  ( 2488842  ) 8422248  + 044v440  ? eh12404  ' 4480000
"""
_LETTERS = dict(zip(_FONT.split()[::2], _FONT.split()[1::2], strict=True))


def text_size(text: str, scale: int) -> tuple[int, int]:
    """Return (height, width) of a line of text in pixels."""
    return _HEIGHT * scale, _WIDTH * scale * len(text)


def draw_text(canvas: Array, text: str, row: int, col: int, scale: int, colour: Colour) -> None:
    """Write a line of capitals, its upper left corner at (row, col); what does not fit is cut off."""
    for place, letter in enumerate(text.upper()):
        if letter == " ":
            continue
        rows = [_DIGITS.index(digit) for digit in _LETTERS.get(letter, _LETTERS["?"])]
        dots = np.array([[value >> bit & 1 for bit in (4, 3, 2, 1, 0)] for value in rows], bool)
        dots = dots.repeat(scale, 0).repeat(scale, 1)
        left = col + place * _WIDTH * scale
        area = canvas[row : row + dots.shape[0], left : left + dots.shape[1]]
        area[dots[: area.shape[0], : area.shape[1]]] = colour


def tint(canvas: Array, mask: Array, colour: Colour, strength: float) -> None:
    """Mix a colour into the pixels of a mask (H, W); strength 0 to 1."""
    canvas[mask] = (canvas[mask] * (1 - strength) + np.array(colour) * strength).astype(np.uint8)


def hatch(shape: tuple[int, int], period: int) -> Array:
    """Return diagonal stripes, (H, W) bool, half of each ``period`` of pixels."""
    return np.asarray(np.add.outer(np.arange(shape[0]), np.arange(shape[1])) % period < period // 2)


def outline(canvas: Array, box: Box, colour: Colour, width: int) -> None:
    """Draw a rectangle's border, ``width`` pixels wide, inside it."""
    top, left, bottom, right = box
    canvas[top:bottom, left:right][:width] = colour
    canvas[top:bottom, left:right][-width:] = colour
    canvas[top:bottom, left:right][:, :width] = colour
    canvas[top:bottom, left:right][:, -width:] = colour
