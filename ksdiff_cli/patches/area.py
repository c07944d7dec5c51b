"""Wald's protocol by pixel areas, for real products: a coarse pixel covers its fine pixels and sits at their centre.

MS pixel k of a reduced image sits on MS pixel r*k + (r-1)/2; PAN is looked at where its georeference puts the centres
of MS pixels. The camera is a Gaussian of the sensor's MTF, ``lms`` is bicubic.
"""

import math

import numpy as np

from ksdiff_cli.numerics import Array
from ksdiff_cli.numerics.grids import apply_separable, corner_aligned, gaussian_matrix, mtf_sigma, upsample
from ksdiff_cli.numerics.moments import erode
from ksdiff_cli.patches.masks import at_top
from ksdiff_cli.raster.pair import ScenePair

Window = tuple[int, int, int, int]


def reach(gains: tuple[float, ...], ratio: int) -> int:
    """Return how far, in MS pixels, a patch's values depend on MS around it: a multiple of 2 * ratio."""
    filters = 3 * ratio + math.ceil(4 * mtf_sigma(min(gains), ratio)) + 1
    return -(-filters // (2 * ratio)) * 2 * ratio


def reduce_ms(
    gt: Array, start: tuple[int, int], window: Window, shape: tuple[int, int], ratio: int, gains: tuple[float, ...]
) -> tuple[Array, Array]:
    """Degrade MS by the sensor's MTF and bring it back up, for a window.

    The same as :func:`grids.degrade` and :func:`grids.upsample` of the whole scene, cut to the window: weights depend
    on absolute coordinates.

    Args:
        gt: (bands, H, W) DN, the window and its halo.
        start: first row and column of ``gt`` in the scene, even or 0.
        window: row, column, height and width in the scene; multiples of the ratio.
        shape: of the scene, multiples of the ratio.
        ratio: fine pixels per coarse pixel along a side.
        gains: one MTF gain per band.

    Returns:
        ms (bands, h/ratio, w/ratio) and lms (bands, h, w), float32 DN.
    """
    grid = corner_aligned(ratio)
    spans = []
    for first, count, size in zip(window[:2], window[2:], shape, strict=True):
        # bicubic interpolation reaches two coarse pixels
        spans.append((max(0, first // ratio - 3), min(size // ratio, (first + count) // ratio + 3)))
    axes = (grid.rows, grid.cols)
    at = [axis.to_pan(np.arange(*span)) - first for axis, span, first in zip(axes, spans, start, strict=True)]
    small = np.empty((len(gt), *(stop - first for first, stop in spans)), np.float32)
    for gain in sorted(set(gains)):
        bands = [band for band, own in enumerate(gains) if own == gain]
        sigma = mtf_sigma(gain, ratio)
        rows, cols = (gaussian_matrix(where, size, sigma) for where, size in zip(at, gt.shape[1:], strict=True))
        small[bands] = apply_separable(rows, cols, gt[bands])
    row, col, height, width = window
    (top, _), (left, _) = spans
    lms = upsample(small, grid.shifted(row, col), (height, width), (top, left))
    inside = small[:, row // ratio - top :, col // ratio - left :][:, : height // ratio, : width // ratio]
    return inside, lms


def reduce_pan(pair: ScenePair, gain: float, window: Window, top_dn: float | None) -> tuple[Array, Array, Array]:
    """Look at PAN with a camera of MS pixels, for a window.

    Args:
        pair: the scene.
        gain: MTF of the camera at its Nyquist frequency, (0, 1).
        window: row, column, height and width in MS pixels of the whole MS image.
        top_dn: PAN's largest DN, if known.

    Returns:
        pan (1, h, w) float32 DN; clean (h, w) bool, all PAN it was made from is valid; saturated (h, w) bool, the PAN
        pixel at the MS pixel's centre is.
    """
    matrices, spans, nearest, reaches = [], [], [], []
    for axis, start, count, size in zip(
        (pair.grid.rows, pair.grid.cols), window[:2], window[2:], pair.shape, strict=True
    ):
        at = axis.to_pan(np.arange(start, start + count))
        sigma = mtf_sigma(gain, 1 / abs(axis.scale))
        away = math.ceil(4 * sigma) + 1
        # an even first pixel keeps the rounding of x.5, and so the taps, as they are for the whole scene
        first = max(0, math.floor(at.min()) - away) // 2 * 2
        stop = min(size, math.ceil(at.max()) + away + 1)
        matrices.append(gaussian_matrix(at - first, stop - first, sigma))
        nearest.append(np.clip(np.round(at - first).astype(np.int64), 0, stop - first - 1))
        spans.append((first, stop))
        reaches.append(away)
    (top, bottom), (left, right) = spans
    values, valid = pair.read_pan(top, left, bottom - top, right - left)
    centres = np.ix_(*nearest)
    pan = apply_separable(matrices[0], matrices[1], values)
    return pan, erode(valid, max(reaches))[centres], at_top(values, (top_dn,))[centres]


def full_ms(pair: ScenePair, ms_window: Window, pan_window: Window) -> tuple[Array, bool]:
    """Bring a window's MS onto PAN at full resolution, where the georeference puts it.

    Args:
        pair: the scene.
        ms_window: the window in MS pixels of the whole MS image; not needed here.
        pan_window: the window in PAN pixels of the pair.

    Returns:
        lms (bands, H, W) float32 DN, and whether all under it is valid.
    """
    tile = pair.read(*pan_window)
    return tile.ms_up, bool(tile.valid.all())
