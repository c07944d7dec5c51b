"""The table of a report: methods by metrics, mean and deviation, the best and the second best marked."""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from ksdiff_cli.metrics import ABOUT, merit
from ksdiff_cli.report.text import escape

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


def make_table(values: Mapping[str, Mapping[str, Sequence[float]]], seconds: Mapping[str, Sequence[float]]) -> str:
    """Return the table of all methods; its heads sort it.

    Args:
        values: method -> metric -> one value an image.
        seconds: method -> one value an image; without any there is no such column.
    """
    metrics = list(next(iter(values.values()), {}))
    places = {name: rank({method: mean_of(each[name]) for method, each in values.items()}, name) for name in metrics}
    heads = [_head("method", "ascending")]
    heads += [_head(_title(name), _first(name), name) for name in metrics]
    heads += [_head("s / image", "ascending")] if seconds else []
    rows, wide = [], " wide" if len(metrics) > _MANY else ""
    for index, (method, each) in enumerate(values.items()):
        cells = [f'<th scope="row" data-v="{index}">{escape(method)}</th>']
        cells += [_cell(name, each[name], places[name].get(method)) for name in metrics]
        if seconds:
            mean = mean_of(seconds.get(method, []))
            cells.append(f'<td data-v="{mean!r}">{"" if math.isnan(mean) else f"{mean:.3f}"}</td>')
        rows.append(f"<tr>{''.join(cells)}</tr>")
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="Table of methods"><table class="sortable{wide}">'
        f"<thead><tr>{''.join(heads)}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def make_image_table(values: Mapping[str, Mapping[str, Sequence[float]]], index: int) -> str:
    """Return the small table of one image's values."""
    metrics = list(next(iter(values.values()), {}))
    places = {name: rank({method: each[name][index] for method, each in values.items()}, name) for name in metrics}
    heads = "".join(f'<th scope="col">{_title(name)}</th>' for name in ["", *metrics])
    rows = []
    for method, each in values.items():
        cells = "".join(_cell(name, [each[name][index]], places[name].get(method), 3) for name in metrics)
        rows.append(f'<tr><th scope="row">{escape(method)}</th>{cells}</tr>')
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="Values of this image"><table class="small">'
        f"<thead><tr>{heads}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def make_plain_table(metrics: Sequence[str], cells: Mapping[str, Mapping[str, Sequence[str]]], label: str) -> str:
    """Return a table of methods by metrics whose cells are lines of text, the first one in the foreground.

    Args:
        metrics: the columns.
        cells: method -> metric -> lines; a metric that is missing leaves its cell empty.
        label: what the table is, for those who do not see it.
    """
    heads = "".join(f'<th scope="col">{_title(name)}</th>' for name in metrics)
    rows = []
    for method, each in cells.items():
        texts = []
        for name in metrics:
            first, *rest = [escape(line) for line in each.get(name, [""])]
            below = "".join(f'<br><span class="std">{line}</span>' for line in rest)
            texts.append(f"<td>{first}{below}</td>")
        rows.append(f'<tr><th scope="row">{escape(method)}</th>{"".join(texts)}</tr>')
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(label)}"><table class="small"><thead><tr>'
        f"<th></th>{heads}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def make_definitions(metrics: Sequence[str]) -> str:
    """Return what each metric is, its direction, when it is undefined, what it rewards and what fools it."""
    lines = []
    for name in metrics:
        about = ABOUT.get(name)
        texts = [""]
        if about is not None:
            best = "higher is better" if math.isinf(about.ideal) else f"best is {about.ideal:g}"
            words = [about.what, f"in {about.unit}" if about.unit else "", best, f"undefined: {about.undefined}"]
            texts = ["; ".join(filter(None, words))]
            texts += [f"It rewards {about.rewards}. What fools it: {about.fooled}."] if about.rewards else []
        lines.append(f"<dt>{escape(name)} {arrow(name)}</dt><dd>{'<br>'.join(map(escape, texts))}</dd>")
    return f"<dl>{''.join(lines)}</dl>"


def arrow(metric: str) -> str:
    """Return the arrow that tells a metric's good direction; empty for an unknown one."""
    return ABOUT[metric].arrow if metric in ABOUT else ""


def _title(metric: str) -> str:
    """Return a column's head: name and arrow, which a narrow column may break inside a long name only."""
    name = escape(metric).replace("_", "_<wbr>") if len(metric) > _LONG else escape(metric)
    return f"{name}&nbsp;{arrow(metric)}" if arrow(metric) else name


def _first(metric: str) -> str:
    """Return the order that puts the best first."""
    return "descending" if metric in ABOUT and ABOUT[metric].better == "higher" else "ascending"


def _sorted_by(metric: str, value: float) -> float:
    """Return what a column is sorted by: the value, or how far it is from the ideal where that may be on both sides."""
    nearer = metric in ABOUT and ABOUT[metric].better == "nearer"
    return abs(value - ABOUT[metric].ideal) if nearer else value


def _head(title: str, first: str, metric: str = "") -> str:
    about = f' title="{escape(ABOUT[metric].what)}"' if metric in ABOUT else ""
    return f'<th scope="col" data-first="{first}"{about}><button type="button">{title}</button></th>'


def _cell(metric: str, values: Sequence[float], place: int | None, digits: int = 4) -> str:
    """Return a cell: mean ± deviation, or the value alone where there is only one image."""
    mean, spread = mean_of(values), std_of(values)
    if math.isnan(mean):
        return '<td class="none" data-v="nan">undefined</td>'
    text = f"{mean:.{digits}f}" if math.isfinite(mean) else "∞" if mean > 0 else "−∞"
    text = {1: f"<b>{text}</b>", 2: f"<u>{text}</u>"}.get(place or 0, text)
    if len(values) > 1 and math.isfinite(spread):
        text += f'<span class="std"> ± {spread:.{digits}f}</span>'
    defined = sum(not math.isnan(value) for value in values)
    if defined < len(values):
        text += f'<span class="std"> ({defined} of {len(values)})</span>'
    return f'<td data-v="{_sorted_by(metric, mean)!r}">{text}</td>'
