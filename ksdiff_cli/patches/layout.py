"""Where patches lie in a scene: spatial blocks for train, valid and test, and the windows inside them (no I/O).

All coordinates are MS pixels of the scene; every origin is a multiple of the ratio, so that a patch holds whole pixels
of the reduced MS image.
"""

import math
from collections.abc import Iterator
from typing import Literal

import numpy as np

from ksdiff_cli.errors import KsdiffError
from ksdiff_cli.numerics.boxes import Box

Split = Literal["train", "valid", "test"]
SPLITS: tuple[Split, ...] = ("train", "valid", "test")

_CELL = 20  # patches along the side of the area that gets a train, a valid and a test block of its own
_HELD_OUT = 0.2  # share of such an area that train does not get


Regions = dict[Split, list[Box]]


def check_patch(patch: int, ratio: int) -> None:
    """Refuse patch sides that networks or the reduced image cannot take.

    Raises:
        KsdiffError: ``patch`` is no multiple of 8 (networks work in cells of 4 pixels, at two scales) and of the ratio.
    """
    step = math.lcm(8, ratio)
    if patch < step or patch % step:
        nearest = max(1, round(patch / step)) * step
        raise KsdiffError(f"--patch {patch}: must be a multiple of {step} at ratio {ratio}; take {nearest}")


def lay_regions(name: str, shape: tuple[int, int], patch: int, ratio: int, guard: int, seed: int) -> Regions:
    """Divide a scene into blocks for train, valid and test that share no pixel.

    The scene is cut into areas of up to about 20 x 20 patches. Each gives a strip of a fifth of its size, along a side
    drawn from the seed, to valid and test, half and half; the rest is train's. So every part of a large scene is seen
    in training and in testing. Held-out blocks keep ``guard`` pixels away from all others; where the scene is too small
    for that the guard shrinks, down to none, but blocks still share no pixel.

    Args:
        name: of the scene, for messages.
        shape: (height, width) in MS pixels, multiples of the ratio.
        patch: side of a training patch in MS pixels, a multiple of the ratio.
        ratio: PAN pixels per MS pixel along a side.
        guard: wanted distance between blocks in MS pixels, a multiple of the ratio.
        seed: of the random sides.

    Returns:
        Rectangles by split; at least one patch fits train and one valid, test may be empty in a very small scene.

    Raises:
        KsdiffError: the scene is too small; the message says the size needed and a patch side that would do.
    """
    random = np.random.default_rng((seed, *shape))
    guards = [guard // part // ratio * ratio for part in (1, 2, 4)] + [0]
    regions: Regions = {split: [] for split in SPLITS}
    for cell in _cells(shape, patch, ratio):
        draw = int(random.integers(2**31))
        for wanted in guards:
            found = _divide(cell, shape, patch, ratio, wanted, np.random.default_rng(draw))
            # a guard that costs the test block is too wide, unless no guard at all leaves room for one
            if found["valid"] and (found["test"] or wanted == 0):
                break
        for split in SPLITS:
            regions[split] += found[split]
    if not regions["valid"]:
        raise KsdiffError(_too_small(name, shape, patch, ratio))
    return regions


def windows(rect: Box, size: int, stride: int, ratio: int) -> Iterator[tuple[int, list[int]]]:
    """Yield the rows of windows that fill a rectangle: (first MS row, first MS columns).

    Windows step by ``stride``; one more ends at the far border, so that no part is lost to the division.
    """
    rows, cols = (
        _starts(rect.top, rect.height, size, stride, ratio),
        _starts(rect.left, rect.width, size, stride, ratio),
    )
    for row in rows:
        yield row, cols


def common_side(sides: list[int], patch: int, most: int, step: int) -> int:
    """Return the window side that covers most of the blocks whose shorter sides are given, at least ``patch``."""
    capped = [min(most, side) // step * step for side in sides]
    usable = [side for side in capped if side >= patch]
    if not usable:
        return patch
    return max(usable, key=lambda side: (side**2 * sum(other >= side for other in usable), side))


def _starts(first: int, length: int, size: int, stride: int, ratio: int) -> list[int]:
    start, stop = -(-first // ratio) * ratio, first + length
    starts = list(range(start, stop - size + 1, stride))
    last = (stop - size) // ratio * ratio
    if starts and stride < size and last > starts[-1]:
        starts.append(last)
    return starts


def _cells(shape: tuple[int, int], patch: int, ratio: int) -> Iterator[Box]:
    edges = []
    for length in shape:
        count = max(1, round(length / (_CELL * patch)))
        edges.append([index * length // count // ratio * ratio for index in range(count)] + [length])
    for top, bottom in zip(edges[0], edges[0][1:], strict=False):
        for left, right in zip(edges[1], edges[1][1:], strict=False):
            yield Box(top, left, bottom, right)


def _divide(
    cell: Box, shape: tuple[int, int], patch: int, ratio: int, guard: int, random: np.random.Generator
) -> Regions:
    """Divide one area into train and a held-out strip of valid and test; all empty when it is too small."""
    regions: Regions = {split: [] for split in SPLITS}
    across = [axis for axis in (0, 1) if (cell.height, cell.width)[axis] >= 2 * (patch + guard)]
    along = [axis for axis in across if (cell.width, cell.height)[axis] >= 2 * (patch + 2 * guard)]
    # rather a strip that is long enough for valid and test
    choices = along or across
    if not choices or cell.side < patch:
        return regions
    axis = choices[int(random.integers(len(choices)))]
    at_end, test_first = bool(random.integers(2)), bool(random.integers(2))
    length = (cell.height, cell.width)[axis]
    thick = max(patch + 2 * guard, math.ceil(_HELD_OUT * length) + 2 * guard)
    thick = min(-(-thick // ratio) * ratio, (length - patch) // ratio * ratio)
    strip, train = _cut(cell, axis, length - thick if at_end else thick, at_end)
    regions["train"].append(train)
    strip_length = (strip.height, strip.width)[1 - axis]
    half = strip_length // 2 // ratio * ratio
    if half - 2 * guard >= patch:
        parts = list(_cut(strip, 1 - axis, half, False))
        pairs: list[tuple[Split, Box]] = [("valid", parts[test_first]), ("test", parts[not test_first])]
    else:
        pairs = [("valid", strip)]
    for split, part in pairs:
        inner = _inset(part, shape, guard)
        if inner.side >= patch:
            regions[split].append(inner)
    if not regions["valid"]:
        return {split: [] for split in SPLITS}
    return regions


def _cut(rect: Box, axis: int, at: int, second: bool) -> tuple[Box, Box]:
    """Cut a rectangle across ``axis`` at ``at`` pixels; the wanted part comes first, the second one if ``second``."""
    if axis == 0:
        middle = rect.top + at
        parts = Box(rect.top, rect.left, middle, rect.right), Box(middle, rect.left, rect.bottom, rect.right)
    else:
        middle = rect.left + at
        parts = Box(rect.top, rect.left, rect.bottom, middle), Box(rect.top, middle, rect.bottom, rect.right)
    return parts[::-1] if second else parts


def _inset(rect: Box, shape: tuple[int, int], guard: int) -> Box:
    """Shrink a rectangle by the guard, except at the scene's own border: nothing lies beyond it."""
    return Box(
        rect.top + (guard if rect.top > 0 else 0),
        rect.left + (guard if rect.left > 0 else 0),
        rect.bottom - (guard if rect.bottom < shape[0] else 0),
        rect.right - (guard if rect.right < shape[1] else 0),
    )


def _too_small(name: str, shape: tuple[int, int], patch: int, ratio: int) -> str:
    step = math.lcm(8, ratio)
    # a patch for train and one for valid, side by side
    fitting = min(min(shape), max(shape) // 2) // step * step
    advice = f"use --patch {fitting}" if fitting >= step else "and no smaller --patch would do either"
    return (
        f"{name}: MS has {shape[1]} x {shape[0]} usable pixels; patches of {patch} need {2 * patch} x {patch} at least "
        f"(one for train, one for valid): {advice}"
    )
