"""Charts, laid out to be drawn as inline SVG: every method's value for every image, one small chart a metric."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

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


@dataclass(frozen=True)
class Chart:
    """One metric, laid out; lengths in units of the drawing."""

    title: str
    unit: str
    ticks: list[tuple[float, str]]
    """Height and text of the lines across."""
    numbers: list[tuple[str, int]]
    """Place and number of the images that are numbered."""
    series: list[list[tuple[str, str, str]]]
    """Method by method: x, y and text of each value."""
    missing: int
    """Values that are not finite, hence not drawn."""
    total: int
    width: int = _WIDTH
    height: int = _HEIGHT
    left: int = _LEFT
    right: int = _WIDTH - _RIGHT
    below: int = _HEIGHT - _BOTTOM + 16
    """Height of the numbers."""


def make_chart(title: str, unit: str, images: Sequence[str], series: Mapping[str, Sequence[float]]) -> Chart:
    """Lay out the chart of one metric.

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

    def across(index: int) -> str:
        # a single image stands in the middle
        share = index / last if len(images) > 1 else 0.5
        return f"{_LEFT + 8 + share * (_WIDTH - _LEFT - _RIGHT - 16):.1f}"

    def down(value: float) -> float:
        return _TOP + (high - value) / (high - low) * (_HEIGHT - _TOP - _BOTTOM)

    digits = max(0, -math.floor(math.log10(ticks[1] - ticks[0]) + 1e-9))
    step = next(size for size in _steps() if len(images) <= 10 * size)
    named = len(finite) <= _MANY
    points = [
        [
            (across(at), f"{down(value):.1f}", f"{method} · {images[at]}: {value:.4f}{unit}" if named else "")
            for at, value in enumerate(values)
            if math.isfinite(value)
        ]
        for method, values in series.items()
    ]
    total = sum(map(len, series.values()))
    return Chart(
        title,
        unit,
        [(down(tick), f"{tick:.{digits}f}") for tick in ticks],
        [(across(index), index) for index in range(0, len(images), step)],
        points,
        total - len(finite),
        total,
    )


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
