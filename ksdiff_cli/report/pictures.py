"""An example as pictures: the whole image, details and error maps of every method, in rows that can be compared."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ksdiff_cli.numerics import Array
from ksdiff_cli.numerics.boxes import Box
from ksdiff_cli.report.colours import (
    PERCENTILES,
    Stretch,
    encode_errors,
    encode_picture,
    find_stretch,
    reduce,
    rgb_bands,
)
from ksdiff_cli.report.contents import Example, Mark

_MARGIN = 8  # pixels at the image's border, where every filter has made something up
_STRIDE = 4  # pixels between two places that are tried
_OVERLAP = 0.95  # of the best valid share that a window must reach


def show_valid(example: Example) -> Array:
    """Return the pixels that count, (H, W) bool: marked valid, and finite in every image."""
    valid = np.ones(example.shape[1:], bool) if example.valid is None else example.valid.astype(bool)
    planes = [example.pan, example.ms_up, example.truth, *example.fused.values()]
    for image in planes:
        if image is not None:
            finite = np.isfinite(image)
            valid = valid & (finite if finite.ndim == 2 else finite.all(0))
    return valid


def relative_errors(image: Array, reference: Array, valid: Array) -> Array:
    """Return each pixel's root mean square over bands of the difference relative to the reference's band mean.

    Args:
        image: (bands, H, W), DN.
        reference: (bands, H, W), DN.
        valid: (H, W) bool; 0 elsewhere.

    Returns:
        (H, W) float64, 0 is equal, 1 is off by as much as the band's mean. A band of mean 0 has no share in it.
    """
    total, used = np.zeros(valid.shape), 0
    if not valid.any():
        return total
    for plane, truth in zip(image, reference, strict=True):
        mean = abs(float(truth[valid].mean(dtype=np.float64)))
        if mean > 0:
            difference = np.where(valid, plane, 0).astype(np.float64) - np.where(valid, truth, 0)
            total += (difference / mean) ** 2
            used += 1
    return np.sqrt(total / max(1, used))


def choose_details(example: Example, valid: Array, side: int) -> list[tuple[Mark, str]]:
    """Choose up to two windows of ``side`` pixels that do not overlap, and say why each is worth a look.

    With a truth: where methods differ most, and where the mean error is highest. Without: where methods differ most,
    or one method from MS.
    """
    found: list[tuple[Mark, str]] = []
    if min(valid.shape) < side + 2 * _MARGIN or not valid.any():
        return found
    for why, score in _scores(example, valid):
        # a few pixels that are far off, such as glints, must not decide alone
        score = np.minimum(score, np.percentile(score[valid], 99.5))
        place = _best_place(np.where(valid, score, 0), valid, side, [mark.box for mark, _ in found])
        if place is not None:
            found.append((Mark(str(len(found) + 1), Box(*place, place[0] + side, place[1] + side)), why))
    return found


def _scores(example: Example, valid: Array) -> Iterator[tuple[str, Array]]:
    images = list(example.fused.values())
    if len(images) > 1:
        spread = _spread(images, valid)
        yield "where the methods differ most", spread
        if example.truth is None:
            yield "where they differ most elsewhere", spread
    if example.truth is not None:
        errors = sum(relative_errors(image, example.truth, valid) for image in images) / len(images)
        yield "where the error is highest", np.asarray(errors)
        if len(images) == 1:
            yield "where it is highest elsewhere", np.asarray(errors)
    elif len(images) == 1:
        base = example.ms_up if example.ms_up is not None else images[0].mean((1, 2), keepdims=True)
        added = relative_errors(images[0], np.broadcast_to(base, images[0].shape), valid)
        yield "where most was added to MS", added
        yield "where most was added elsewhere", added


def _spread(images: list[Array], valid: Array) -> Array:
    """Return the deviation across methods, as :func:`relative_errors` from their mean."""
    mean = sum(np.where(valid, image, 0).astype(np.float64) for image in images) / len(images)
    squares = sum(relative_errors(image, np.asarray(mean), valid) ** 2 for image in images)
    return np.sqrt(np.asarray(squares) / len(images))


def _best_place(score: Array, valid: Array, side: int, taken: Iterable[Box]) -> tuple[int, int] | None:
    totals, shares = (_window_sums(x, side)[::_STRIDE, ::_STRIDE] for x in (score, valid.astype(np.float64)))
    rows, cols = (np.arange(size) * _STRIDE for size in totals.shape)
    free = shares >= _OVERLAP * shares.max()
    for at, size in ((rows[:, None], valid.shape[0]), (cols[None], valid.shape[1])):
        free = free & (at >= _MARGIN) & (at <= size - side - _MARGIN)
    for box in taken:
        apart_down = (rows[:, None] >= box.bottom) | (rows[:, None] + side <= box.top)
        apart_across = (cols[None] >= box.right) | (cols[None] + side <= box.left)
        free = free & (apart_down | apart_across)
    if not free.any():
        return None
    row, col = np.unravel_index(np.argmax(np.where(free, totals, -np.inf)), totals.shape)
    return int(rows[row]), int(cols[col])


def _window_sums(image: Array, side: int) -> Array:
    """Return the sum over every window of ``side`` pixels, by its first row and column."""
    sums = np.pad(image, ((1, 0), (1, 0))).cumsum(0).cumsum(1)
    return np.asarray(sums[side:, side:] - sums[:-side, side:] - sums[side:, :-side] + sums[:-side, :-side])


_SHARE = 1 / 3  # of the picture's width that a bar may take
_WIDEST, _NARROWEST = 768, 160  # sides of a whole image's picture
_PAGE_BYTES = 22e6
_ERROR_PERCENTILE = 98  # shown in the last colour
# bytes of base64 a pixel: colour, grey, and error maps, measured on QuickBird and WorldView-2
_COLOUR_COST, _GREY_COST, _ERROR_COST = 2.8, 1.3, 0.8


@dataclass(frozen=True)
class ScaleBar:
    """A length to draw on a picture."""

    pixels: float
    """Of the picture, as it is before a viewer enlarges it."""
    text: str
    """The length that it stands for, e.g. ``50 m``."""


@dataclass(frozen=True)
class Picture:
    """One picture of a row."""

    name: str
    """Title: PAN, a method …"""
    png: bytes
    width: int
    height: int
    figure: str = ""
    """A number about it, for its caption."""


@dataclass(frozen=True)
class Strip:
    """A row of pictures of one area, all in the same colours."""

    label: str
    note: str
    pictures: list[Picture]
    kind: str
    """``whole``, ``detail`` or ``error``."""
    scale: ScaleBar
    """Of all its pictures, which are equally large."""
    boxes: tuple[Mark, ...] = ()
    """Drawn on the pictures, in their pixels."""
    top: float = 0.0
    """Error shown in the last colour; error maps only."""


@dataclass(frozen=True)
class Gallery:
    """All pictures of one example."""

    strips: list[Strip]
    note: str
    """How the colours were made."""


def whole_limit(examples: Sequence[Example]) -> int:
    """Return how many pixels the longest side of a whole image's picture may have, so that the page stays handy."""
    cost = details = 0.0
    for example in examples:
        colour = len(example.fused) + (example.ms_up is not None) + (example.truth is not None)
        grey, maps = example.pan is not None, len(example.fused) * (example.truth is not None)
        cost += colour * _COLOUR_COST + grey * _GREY_COST + maps * _ERROR_COST
        details += 2 * _side(example) ** 2 * (colour * _COLOUR_COST + grey * _GREY_COST)
    side = math.isqrt(int(max(0.0, _PAGE_BYTES - details) / cost)) if cost else _WIDEST
    return min(_WIDEST, max(_NARROWEST, side))


def make_gallery(example: Example, limit: int = _WIDEST) -> Gallery:
    """Make the pictures of an example.

    All colour pictures share one stretch, taken from the truth, or from MS where there is none: a method that is too
    bright looks too bright. PAN is another quantity and has its own.

    Args:
        example: the images.
        limit: most pixels along a side of a whole image's picture; larger images are averaged.
    """
    valid = show_valid(example)
    bands = example.bands or rgb_bands(example.shape[0])
    shown = bands[:1] if len(set(bands)) == 1 else bands
    layers = _layers(example, shown, valid)
    factor = -(-max(valid.shape) // limit)
    details = choose_details(example, valid, _side(example)) if example.reduction == 1 else []
    boxes = (*example.boxes, *(mark for mark, _ in details))
    whole = [_picture(name, *reduce(x, valid, factor), stretch) for name, x, stretch in layers]
    means = factor * example.reduction
    scale = choose_bar(whole[0].width, means, example.metres)
    strips = [Strip("Overview", _means(means), whole, "whole", scale, _reduce_marks(boxes, factor))]
    for mark, why in details:
        part = slice(mark.box.top, mark.box.bottom), slice(mark.box.left, mark.box.right)
        cut = [_picture(name, image[:, *part], valid[part], stretch) for name, image, stretch in layers]
        where = f"{why}: rows {part[0].start}–{part[0].stop - 1}, columns {part[1].start}–{part[1].stop - 1}"
        strips.append(
            Strip(f"Detail {mark.label}", where, cut, "detail", choose_bar(mark.box.width, 1, example.metres))
        )
    if example.truth is not None and example.reduction == 1 and valid.any():
        strips.append(_error_strip(example, example.truth, valid, factor, scale))
    return Gallery(strips, _describe(example, shown, bool(valid.all())))


def _side(example: Example) -> int:
    """Return the side of a detail, in pixels."""
    shortest = min(example.shape[1:])
    return 96 if shortest >= 400 else 64


def _layers(example: Example, shown: tuple[int, ...], valid: Array) -> list[tuple[str, Array, Stretch]]:
    """Return what is shown, in order: name, (1 or 3, H, W) DN, stretch."""
    chosen = list(shown)
    known = [image for image in (example.truth, example.ms_up, *example.fused.values()) if image is not None]
    stretch = find_stretch(known[0][chosen], valid)
    layers = []
    if example.pan is not None:
        layers.append(("PAN", example.pan[None], find_stretch(example.pan[None], valid)))
    if example.ms_up is not None:
        layers.append(("MS upsampled", example.ms_up[chosen], stretch))
    layers += [(name, image[chosen], stretch) for name, image in example.fused.items()]
    if example.truth is not None:
        layers.append(("truth", example.truth[chosen], stretch))
    return layers


def _picture(name: str, image: Array, valid: Array, stretch: Stretch) -> Picture:
    return Picture(name, encode_picture(image, valid, stretch), valid.shape[1], valid.shape[0])


def _error_strip(example: Example, truth: Array, valid: Array, factor: int, scale: ScaleBar) -> Strip:
    errors = {name: relative_errors(image, truth, valid) for name, image in example.fused.items()}
    # the mean over methods: one bad method alone would turn all others dark
    tops = [float(np.percentile(each[valid], _ERROR_PERCENTILE)) for each in errors.values()]
    top = _round_up(sum(tops) / len(tops)) or 0.01
    pictures = []
    for name, each in errors.items():
        (small,), seen = reduce(each[None], valid, factor)
        overall = math.sqrt(float((each[valid] ** 2).mean()))
        png = encode_errors(small, seen, top)
        pictures.append(Picture(name, png, seen.shape[1], seen.shape[0], f"RMSE {100 * overall:.1f} %"))
    note = "root mean square over bands of the difference to the truth, relative to each band's mean; one scale for all"
    return Strip("Error", note, pictures, "error", scale, top=top)


def _round_up(value: float) -> float:
    """Round up to a number that a legend can carry: 1, 1.5, 2, 3, 4, 5, 6 or 8 times a power of ten."""
    if value <= 0:
        return 0.0
    power = 10.0 ** math.floor(math.log10(value))
    return next((step * power for step in (1, 1.5, 2, 3, 4, 5, 6, 8) if step * power >= value), 10 * power)


def _reduce_marks(marks: Sequence[Mark], factor: int) -> tuple[Mark, ...]:
    """Bring marks to a picture's pixels; none gets lost by becoming smaller than a pixel."""
    found = []
    for mark in marks:
        height, width = (-(-side // factor) for side in (mark.box.height, mark.box.width))
        found.append(Mark(mark.label, Box(0, 0, height, width).moved(mark.box.top // factor, mark.box.left // factor)))
    return tuple(found)


def _means(factor: int) -> str:
    return f"each pixel is the mean of {factor} × {factor}" if factor > 1 else "not reduced"


def _describe(example: Example, shown: tuple[int, ...], whole: bool) -> str:
    """Say how the colours were made."""
    low, high = PERCENTILES
    base = "the truth" if example.truth is not None else "MS" if example.ms_up is not None else "the first method"
    numbers = ", ".join(str(band + 1) for band in shown)
    colours = f"bands {numbers} as red, green, blue" if len(shown) == 3 else f"band {numbers} in grey"
    own = "; PAN has its own" if example.pan is not None else ""
    hatched = "" if whole else " · hatched: nodata, or left out"
    return f"{colours} · one stretch for all, {low}–{high} % of {base}{own}{hatched}"


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
