"""Where to look closer: how far images differ, pixel by pixel, and the windows where that matters most."""

from collections.abc import Iterable, Iterator

import numpy as np

from ksdiff_cli.numerics import Array
from ksdiff_cli.numerics.boxes import Box
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
