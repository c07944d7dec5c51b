"""An image looked at through a camera of coarser pixels, window by window (no I/O)."""

import math
from collections.abc import Callable, Sequence

import numpy as np

from ksdiff_cli.numerics import Array
from ksdiff_cli.numerics.boxes import Box
from ksdiff_cli.numerics.grids import GridMap, apply_separable, gaussian_matrix, gaussian_reach, mtf_sigma

_WHOLE = 1 - 1e-4  # of what a pixel sees must be valid


def look(
    read: Callable[[Box], tuple[Array, Array]], grid: GridMap, shape: tuple[int, int], box: Box, gains: Sequence[float]
) -> tuple[Array, Array]:
    """Look at an image through a camera of coarser pixels.

    Args:
        read: returns a part of the image, (bands, h, w) DN, and where it is valid, (h, w) bool.
        grid: from the image's pixels to those of the camera.
        shape: of the image.
        box: pixels of the camera.
        gains: its MTF at its Nyquist frequency, (0, 1): one for all bands, or one for each.

    Returns:
        (bands, h, w) DN, and (h, w) bool, True where all that was seen is valid.
    """
    places = [
        axis.to_pan(start + np.arange(count))
        for axis, start, count in zip((grid.rows, grid.cols), (box.top, box.left), (box.height, box.width), strict=True)
    ]
    ratios = [1 / abs(axis.scale) for axis in (grid.rows, grid.cols)]
    spans = []
    for at, ratio, size in zip(places, ratios, shape, strict=True):
        far = gaussian_reach(mtf_sigma(min(gains), ratio))
        begin = min(max(0, math.floor(at.min()) - far), size - 1)
        spans.append((begin, max(begin + 1, min(size, math.ceil(at.max()) + far + 1))))
    (top, bottom), (left, right) = spans
    values, valid = read(Box(top, left, bottom, right))
    clear = bool(valid.all())
    values = values if clear else np.where(valid, values, 0)
    seen, whole = np.empty((len(values), box.height, box.width), np.float32), np.ones((box.height, box.width), bool)
    for gain in sorted(set(gains)):
        down, across = (
            gaussian_matrix(at, stop - begin, mtf_sigma(gain, ratio), begin)
            for at, ratio, (begin, stop) in zip(places, ratios, spans, strict=True)
        )
        bands = [band for band in range(len(values)) if gains[band % len(gains)] == gain]
        seen[bands] = apply_separable(down, across, values[bands])
        if not clear:
            whole &= apply_separable(down, across, valid[None].astype(np.float32))[0] >= _WHOLE
    return seen, whole
