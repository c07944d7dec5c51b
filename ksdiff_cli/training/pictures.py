"""Pictures of a run, drawn without any library: curves of its log, and what the network makes of unseen images."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ksdiff_cli.numerics import Array
from ksdiff_cli.numerics.canvas import draw_text, text_size

_WIDTH, _HEIGHT = 640, 170  # of one panel of curves
_LEFT, _TOP, _EDGE = 72, 20, 10
_COLOURS = {1: (31, 90, 160), 2: (190, 80, 20)}
_PANELS = (
    ("loss", True, "training loss"),
    ("regression", True, "stage 2: loss of the network (eq. 4)"),
    ("diffusion", True, "stage 2: loss of the diffusion (eq. 9)"),
    ("valid", True, "validation loss"),
    ("SAM", True, "SAM of the validation images, degrees"),
    ("ERGAS", True, "ERGAS of the validation images"),
    ("shuffle_cost", False, "what another image's z costs"),
    ("mean_cost", False, "what the others' mean z costs"),
    ("z_spread", False, "spread of z between images"),
)
_GAP = 4  # pixels between pictures of a strip
_SIDE = 256  # of a picture of a strip at most
_PERCENTILES = 2, 98  # values shown as black and as full brightness
_INK = (60, 60, 60)


def draw_strip(images: Sequence[Sequence[Array]], bands: tuple[int, int, int]) -> Array:
    """Put pictures beside each other, a row an image.

    Args:
        images: for every row PAN (1, H, W), then MS upsampled, fused and truth, (C, H, W) each; all rows of one size.
        bands: shown as red, green and blue.

    Returns:
        (height, width, 3) uint8. MS, fused and truth share one stretch, the truth's; PAN has its own.
    """
    rows = []
    for pan, *colours in images:
        shown = [_stretch(pan[[0, 0, 0]], pan[[0, 0, 0]])]
        truth = colours[-1][list(bands)]
        shown += [_stretch(image[list(bands)], truth) for image in colours]
        gap = np.full((shown[0].shape[0], _GAP, 3), 255, np.uint8)
        rows.append(np.concatenate([part for image in shown for part in (image, gap)][:-1], 1))
    gap = np.full((_GAP, rows[0].shape[1], 3), 255, np.uint8)
    return np.concatenate([part for row in rows for part in (row, gap)][:-1], 0)


def _stretch(image: Array, like: Array) -> Array:
    """Return the middle of (3, H, W) as (h, w, 3) uint8, between percentiles of another image."""
    low, high = np.percentile(like, _PERCENTILES, (1, 2))
    span = np.where(high > low, high - low, 1)
    top, left = (max(0, size - _SIDE) // 2 for size in image.shape[1:])
    part = image[:, top : top + _SIDE, left : left + _SIDE]
    levels = np.clip((part - low[:, None, None]) / span[:, None, None], 0, 1) * 255
    return np.ascontiguousarray(np.nan_to_num(levels).round().astype(np.uint8).transpose(1, 2, 0))


def draw_curves(lines: Sequence[dict[str, Any]]) -> Array:
    """Draw a run's log: a panel a figure, stage 1 in blue and, behind it, stage 2 in orange.

    Args:
        lines: of log.jsonl; figures that a line lacks are left out.

    Returns:
        (height, width, 3) uint8.
    """
    panels = [
        _panel(lines, key, logarithmic, title)
        for key, logarithmic, title in _PANELS
        if any(math.isfinite(line.get(key, math.nan)) for line in lines)
    ]
    return np.concatenate(panels, 0) if panels else np.full((_HEIGHT, _WIDTH, 3), 255, np.uint8)


def _panel(lines: Sequence[dict[str, Any]], key: str, logarithmic: bool, title: str) -> Array:
    canvas = np.full((_HEIGHT, _WIDTH, 3), 255, np.uint8)
    before = max((line["step"] for line in lines if line["stage"] == 1), default=0)
    stages = sorted({line["stage"] for line in lines}, key=str)
    curves = {
        stage: [
            (line["step"] + (before if stage == 2 else 0), line[key])
            for line in lines
            if line["stage"] == stage and math.isfinite(line.get(key, math.nan))
        ]
        for stage in stages
    }
    values = [value for curve in curves.values() for _, value in curve]
    last = max(step for curve in curves.values() for step, _ in curve)
    logarithmic = logarithmic and min(values) > 0
    low, high = min(values), max(values)
    if not logarithmic:
        low = min(low, 0.0)
    bottom, right = _HEIGHT - _TOP, _WIDTH - _EDGE

    def place(step: float, value: float) -> tuple[float, float]:
        f = math.log if logarithmic else float
        share = (f(value) - f(low)) / ((f(high) - f(low)) or 1)
        return bottom - share * (bottom - _TOP), _LEFT + step / last * (right - _LEFT)

    canvas[_TOP : bottom + 1, _LEFT] = canvas[bottom, _LEFT : right + 1] = 150
    draw_text(canvas, title, 6, _LEFT, 1, _INK)
    for value in (low, high):
        draw_text(canvas, f"{value:.3g}", round(place(0, value)[0]) - 2, 4, 1, _INK)
    for step in (0, last):
        text = str(step)
        left = min(round(place(step, low)[1]), right - text_size(text, 1)[1])
        draw_text(canvas, text, bottom + 6, left, 1, _INK)
    for stage, curve in curves.items():
        points = [place(*point) for point in curve]
        for (y0, x0), (y1, x1) in zip(points, points[1:] or points, strict=False):
            steps = np.linspace(0, 1, 2 + int(max(abs(y1 - y0), abs(x1 - x0))))
            ys, xs = np.rint(y0 + (y1 - y0) * steps).astype(int), np.rint(x0 + (x1 - x0) * steps).astype(int)
            for dy in (0, 1):
                canvas[ys + dy, xs] = _COLOURS.get(stage, _COLOURS[1])
    return canvas
