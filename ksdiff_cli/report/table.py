"""The table of a report: methods by metrics, mean and deviation, the best and the second best marked."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ksdiff_cli.metrics import ABOUT, merit

_LONG = 10  # letters of a metric's name that a column takes as they are
_MANY = 8  # metrics above which deviations stand below the means


def mean_of(values: Sequence[float]) -> float:
    """Return the mean of the values that are defined; NaN if there are none."""
    defined = [value for value in values if not math.isnan(value)]
    return float(np.mean(defined)) if defined else math.nan


def std_of(values: Sequence[float]) -> float:
    """Return the standard deviation of the same values (divided by their number); NaN if one is infinite."""
    defined = [value for value in values if not math.isnan(value)]
    return float(np.std(defined)) if defined and all(map(math.isfinite, defined)) else math.nan


def rank(means: Mapping[str, float], metric: str) -> dict[str, int]:
    """Return 1 for the methods whose mean of a metric is best and 2 for the second best; equal ones share a place.

    Of fewer than two methods with a mean none is marked. Of a metric that nobody knows lower is better.
    """
    known = {name: merit(metric, mean) for name, mean in means.items() if not math.isnan(mean)}
    if len(known) < 2:
        return {}
    places = sorted(set(known.values()), reverse=True)[:2]
    # "second" after a tie would be the third
    shared = sum(mean == places[0] for mean in known.values()) > 1
    return {name: places.index(mean) + 1 for name, mean in known.items() if mean in places[: 1 if shared else 2]}


@dataclass(frozen=True)
class Cell:
    """A figure of the table."""

    text: str | None
    """None: undefined."""
    key: str = "nan"
    """What its column is sorted by."""
    place: int | None = None
    """1 for the best of the column, 2 for the second best."""
    notes: tuple[str, ...] = ()
    """Said behind it, in small: deviation, number of images."""


@dataclass(frozen=True)
class Head:
    """A column's head."""

    name: str
    first: str = "ascending"
    """The order that puts the best first."""
    about: str = ""


@dataclass(frozen=True)
class Row:
    """A method's figures."""

    name: str
    cells: list[Cell]


@dataclass(frozen=True)
class Table:
    """Methods by metrics."""

    heads: list[Head]
    rows: list[Row]
    wide: bool = False
    """Whether deviations stand below the means, to save width."""


def make_table(values: Mapping[str, Mapping[str, Sequence[float]]], seconds: Mapping[str, Sequence[float]]) -> Table:
    """Return the table of all methods.

    Args:
        values: method -> metric -> one value an image.
        seconds: method -> one value an image; without any there is no such column.
    """
    metrics = list(next(iter(values.values()), {}))
    places = {name: rank({method: mean_of(each[name]) for method, each in values.items()}, name) for name in metrics}
    heads = [Head("method"), *map(_head, metrics), *([Head("s / image")] if seconds else [])]
    rows = []
    for method, each in values.items():
        cells = [_cell(name, each[name], places[name].get(method)) for name in metrics]
        if seconds:
            mean = mean_of(seconds.get(method, []))
            cells.append(Cell("" if math.isnan(mean) else f"{mean:.3f}", repr(mean)))
        rows.append(Row(method, cells))
    return Table(heads, rows, len(metrics) > _MANY)


def make_image_table(values: Mapping[str, Mapping[str, Sequence[float]]], index: int) -> Table:
    """Return the small table of one image's values."""
    metrics = list(next(iter(values.values()), {}))
    places = {name: rank({method: each[name][index] for method, each in values.items()}, name) for name in metrics}
    rows = [
        Row(method, [_cell(name, [each[name][index]], places[name].get(method), 3) for name in metrics])
        for method, each in values.items()
    ]
    return Table(list(map(_head, metrics)), rows)


def define(metric: str) -> list[str]:
    """Return what a metric is, its direction, when it is undefined, what it rewards and what fools it, in lines."""
    about = ABOUT.get(metric)
    if about is None:
        return []
    best = "higher is better" if math.isinf(about.ideal) else f"best is {about.ideal:g}"
    words = [about.what, f"in {about.unit}" if about.unit else "", best, f"undefined: {about.undefined}"]
    more = [f"It rewards {about.rewards}. What fools it: {about.fooled}."] if about.rewards else []
    return ["; ".join(filter(None, words)), *more]


def arrow(metric: str) -> str:
    """Return the arrow that tells a metric's good direction; empty for an unknown one."""
    return ABOUT[metric].arrow if metric in ABOUT else ""


def title_parts(metric: str) -> list[str]:
    """Return the parts of a metric's name between which a narrow column may break it: a long name only, at its _."""
    return metric.split("_") if len(metric) > _LONG else [metric]


def _head(metric: str) -> Head:
    about = ABOUT.get(metric)
    if about is None:
        return Head(metric)
    return Head(metric, "descending" if about.better == "higher" else "ascending", about.what)


def _sorted_by(metric: str, value: float) -> float:
    """Return what a column is sorted by: the value, or how far it is from the ideal where that may be on both sides."""
    nearer = metric in ABOUT and ABOUT[metric].better == "nearer"
    return abs(value - ABOUT[metric].ideal) if nearer else value


def _cell(metric: str, values: Sequence[float], place: int | None, digits: int = 4) -> Cell:
    """Return a cell: mean ± deviation, or the value alone where there is only one image."""
    mean, spread = mean_of(values), std_of(values)
    if math.isnan(mean):
        return Cell(None)
    text = f"{mean:.{digits}f}" if math.isfinite(mean) else "∞" if mean > 0 else "−∞"
    notes = [f"± {spread:.{digits}f}"] if len(values) > 1 and math.isfinite(spread) else []
    defined = sum(not math.isnan(value) for value in values)
    notes += [f"({defined} of {len(values)})"] if defined < len(values) else []
    return Cell(text, repr(_sorted_by(metric, mean)), place, tuple(notes))
