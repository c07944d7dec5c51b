"""Charts as inline SVG: every method's value for every image, one small chart a metric."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence

from ksdiff_cli.report.text import escape

SHAPES = (
    "M-4,0a4,4 0 1,0 8,0a4,4 0 1,0 -8,0z",
    "M-3.5,-3.5h7v7h-7z",
    "M0,-4.6L4.4,3.4H-4.4z",
    "M0,-5L4.6,0L0,5L-4.6,0z",
    "M-1.4,-4.6h2.8v3.2h3.2v2.8h-3.2v3.2h-2.8v-3.2h-3.2v-2.8h3.2z",
    "M0,4.6L4.4,-3.4H-4.4z",
    "M-4.4,-2.6L-2.6,-4.4L0,-1.8L2.6,-4.4L4.4,-2.6L1.8,0L4.4,2.6L2.6,4.4L0,1.8L-2.6,4.4L-4.4,2.6L-1.8,0z",
)
"""Outlines of the markers, about 9 units wide around 0."""
COLOURS = 6
"""Colours that the style sheet defines, ``--c0`` …; with :data:`SHAPES` 42 methods can be told apart."""

_WIDTH, _HEIGHT = 380, 214
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 10, 10, 34
_MANY = 1500  # markers a chart, above which they carry no text of their own


def marker_shapes() -> str:
    """Return the outlines that all charts and the legend refer to."""
    paths = "".join(f'<path id="m{index}" d="{path}"/>' for index, path in enumerate(SHAPES))
    return f'<svg width="0" height="0" class="shapes" aria-hidden="true"><defs>{paths}</defs></svg>'


def legend(methods: Sequence[str]) -> str:
    """Return the buttons that name the markers; pressing one shows its method alone."""
    items = "".join(
        f'<button type="button" data-series="{index}" aria-pressed="false">'
        f'<svg width="14" height="14" viewBox="-7 -7 14 14" aria-hidden="true">{_use(index, 0, 0)}</svg>'
        f"{escape(method)}</button>"
        for index, method in enumerate(methods)
    )
    return f'<div class="legend" role="group" aria-label="Methods">{items}</div>'


def chart(title: str, unit: str, images: Sequence[str], series: Mapping[str, Sequence[float]]) -> str:
    """Return a chart of one metric.

    Args:
        title: the metric.
        unit: of its values, may be empty.
        images: their names; along x they are numbered from 0.
        series: method -> one value an image. What is not finite is left out and counted below the chart.
    """
    finite = [value for values in series.values() for value in values if math.isfinite(value)]
    ticks = _ticks(min(finite), max(finite)) if finite else [0.0, 1.0]
    low, high = ticks[0], ticks[-1]
    last = max(1, len(images) - 1)

    def across(index: int) -> float:
        # a single image stands in the middle
        share = index / last if len(images) > 1 else 0.5
        return _LEFT + 8 + share * (_WIDTH - _LEFT - _RIGHT - 16)

    def down(value: float) -> float:
        return _TOP + (high - value) / (high - low) * (_HEIGHT - _TOP - _BOTTOM)

    parts = [_y_axis(ticks, down), _x_axis(len(images), across)]
    named = len(finite) <= _MANY
    for index, (method, values) in enumerate(series.items()):
        marks = []
        for place, value in enumerate(values):
            if math.isfinite(value):
                text = f"{method} · {images[place]}: {value:.4f}{unit}" if named else ""
                marks.append(_use(index, across(place), down(value), text))
        parts.append(f'<g data-series="{index}">{"".join(marks)}</g>')
    total = sum(map(len, series.values()))
    missing = total - len(finite)
    below = f"<p>Not drawn, as undefined or infinite: {missing} of {total} values.</p>" if missing else ""
    label = escape(f"{title} of every image, by method")
    return (
        f'<figure class="chart"><figcaption>{escape(title)}{f" ({escape(unit)})" if unit else ""}</figcaption>'
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{label}">{"".join(parts)}</svg>{below}</figure>'
    )


def _use(index: int, x: float, y: float, text: str = "") -> str:
    place = f' x="{x:.1f}" y="{y:.1f}"' if x or y else ""
    inside = f"<title>{escape(text)}</title>" if text else ""
    return f'<use href="#m{index % len(SHAPES)}" class="c{index % COLOURS}"{place}>{inside}</use>'


def _y_axis(ticks: Sequence[float], down: Callable[[float], float]) -> str:
    digits = max(0, -math.floor(math.log10(ticks[1] - ticks[0]) + 1e-9))
    lines = []
    for tick in ticks:
        y = down(tick)
        lines.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        lines.append(f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{tick:.{digits}f}</text>')
    return "".join(lines)


def _x_axis(count: int, across: Callable[[int], float]) -> str:
    step = next(size for size in _steps() if count <= 10 * size)
    y = _HEIGHT - _BOTTOM + 16
    numbers = [
        f'<text x="{across(index):.1f}" y="{y}" text-anchor="middle">{index}</text>' for index in range(0, count, step)
    ]
    return "".join(numbers) + f'<text x="{_WIDTH - _RIGHT}" y="{_HEIGHT - 4}" text-anchor="end">image</text>'


def _steps() -> Iterator[int]:
    power = 1
    while True:
        yield from (power, 2 * power, 5 * power)
        power *= 10


def _ticks(low: float, high: float) -> list[float]:
    """Return about five round numbers that enclose the values."""
    if high - low <= 1e-9 * max(abs(low), abs(high)):
        low, high = low - (abs(low) * 0.1 or 1), high + (abs(high) * 0.1 or 1)
    raw = (high - low) / 4
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(size * power for size in (1, 2, 5, 10) if size * power >= raw * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [index * step for index in range(first, last + 1)]
