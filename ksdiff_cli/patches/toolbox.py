"""Wald's protocol as PanCollection's files have it: reduced MS pixel k sits on pixel r*k + r/2 (4k+2 at ratio 4).

The filters are the reference toolbox's (:mod:`ksdiff_cli.numerics.toolbox`). They run on a window and a halo, so that
a block equals the whole scene. At the scene's border the toolbox's upsampling wraps around to the opposite side, which
means nothing on the ground: here the border's pixels are repeated instead.
"""

from typing import Any

import numpy as np

from ksdiff_cli.errors import KsdiffError
from ksdiff_cli.numerics import Array
from ksdiff_cli.numerics.moments import erode
from ksdiff_cli.numerics.toolbox import INTERP_REACH, MTF_REACH, decimate, interp23tap, is_power_of_two, mtf_filter
from ksdiff_cli.patches.masks import at_top
from ksdiff_cli.raster.pair import ScenePair

Window = tuple[int, int, int, int]


def check_toolbox(name: str, ratio: int, pair: ScenePair | None = None) -> None:
    """Refuse scenes that have no place for this geometry.

    Raises:
        KsdiffError: the ratio is no power of two, or PAN and MS do not start on one corner at an exact ratio.
    """
    problem = "" if is_power_of_two(ratio) else f"ratio {ratio} is no power of two"
    if pair is not None and not problem:
        own = pair.grid.ratio
        if not is_power_of_two(own):
            problem = f"its own ratio {own} is no power of two"
        for axis, size in zip((pair.grid.rows, pair.grid.cols), pair.ms_shape, strict=True):
            ends = np.array([0, size - 1])
            off = axis.to_pan(ends) - (own * ends + (own - 1) / 2)
            if np.abs(off - np.round(off[0])).max() > 0.01:
                problem = problem or "PAN and MS do not lie exactly corner on corner"
    if problem:
        raise KsdiffError(f"{name}: {problem}, which --geometry toolbox needs; use --geometry area")


def reach(gains: tuple[float, ...], ratio: int) -> int:
    """Return how far, in MS pixels, a patch's values depend on MS around it: a multiple of 2 * ratio."""
    filters = INTERP_REACH * ratio + MTF_REACH
    return -(-filters // (2 * ratio)) * 2 * ratio


def reduce_ms(
    gt: Array, start: tuple[int, int], window: Window, shape: tuple[int, int], ratio: int, gains: tuple[float, ...]
) -> tuple[Array, Array]:
    """Degrade MS and bring it back up, for a window; arguments and results as of :func:`area.reduce_ms`."""
    small = decimate(mtf_filter(gt, gains, ratio), ratio)
    row, col, height, width = window
    first = (row // ratio - start[0] // ratio, col // ratio - start[1] // ratio)
    count = (height // ratio, width // ratio)
    inside = small[:, first[0] : first[0] + count[0], first[1] : first[1] + count[1]]
    return inside.astype(np.float32), _upsample(small, first, count, ratio)


def reduce_pan(pair: ScenePair, gain: float, window: Window, top_dn: float | None) -> tuple[Array, Array, Array]:
    """Degrade PAN by its MTF and keep pixels r*k + r/2; arguments and results as of :func:`area.reduce_pan`."""
    ratio = pair.grid.ratio
    starts = [axis.to_pan(first) - (ratio - 1) / 2 for axis, first in zip(_axes(pair), window[:2], strict=True)]
    centres, spans = [], []
    for start, count, size in zip(starts, window[2:], pair.shape, strict=True):
        at = round(start) + ratio // 2 + ratio * np.arange(count)
        first, stop = max(0, at[0] - MTF_REACH), min(size, at[-1] + MTF_REACH + 1)
        centres.append(at - first)
        spans.append((int(first), int(stop)))
    (top, bottom), (left, right) = spans
    values, valid = pair.read_pan(top, left, bottom - top, right - left)
    chosen = np.ix_(*centres)
    pan = mtf_filter(values, (gain,), ratio)[0][chosen].astype(np.float32)
    return pan[None], erode(valid, MTF_REACH)[chosen], at_top(values, (top_dn,))[chosen]


def full_ms(pair: ScenePair, ms_window: Window, pan_window: Window) -> tuple[Array, bool]:
    """Bring a window's MS onto PAN by the toolbox's filter; arguments and results as of :func:`area.full_ms`."""
    row, col, height, width = ms_window
    spans = [
        (max(0, first - INTERP_REACH), min(size, first + count + INTERP_REACH))
        for first, count, size in zip((row, col), (height, width), pair.ms_shape, strict=True)
    ]
    (top, bottom), (left, right) = spans
    ms, valid = pair.read_ms(top, left, bottom - top, right - left)
    return _upsample(ms, (row - top, col - left), (height, width), pair.grid.ratio), bool(valid.all())


def _upsample(small: Array, first: tuple[int, int], count: tuple[int, int], ratio: int) -> Array:
    """Upsample (bands, h, w) and return what lies over ``count`` coarse pixels from ``first`` on, float32."""
    widths, cuts = [(0, 0)], [slice(None)]
    for start, number, size in zip(first, count, small.shape[1:], strict=True):
        before, after = max(0, INTERP_REACH - start), max(0, start + number + INTERP_REACH - size)
        widths.append((before, after))
        begin = (start + before) * ratio
        cuts.append(slice(begin, begin + number * ratio))
    up: Array = interp23tap(np.pad(small, widths, mode="edge"), ratio)[*cuts]
    return up.astype(np.float32)


def _axes(pair: ScenePair) -> tuple[Any, Any]:
    return pair.grid.rows, pair.grid.cols
