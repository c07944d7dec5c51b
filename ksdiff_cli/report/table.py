"""The table of a report: methods by metrics, mean and deviation, the best and the second best marked."""

import math
from collections.abc import Mapping, Sequence
from html import escape

import numpy as np

from ksdiff_cli.metrics import ABOUT

DEFINITIONS = {
    "SAM": "spectral angle between fused and true pixel, mean over pixels",
    "ERGAS": "relative error over all bands, scaled by the ratio of pixel sizes",
    "Q2n": "hypercomplex quality index of all bands at once, mean over 32-pixel cells",
    "SCC": "correlation of the gradients of both images",
    "Q_avg": "universal quality index of each band, mean over bands and 32-pixel windows",
    "PSNR": "peak signal to noise ratio",
    "SSIM": "structural similarity, mean over bands",
    "D_lambda": "spectral distortion (Khan): 1 − Q2n of upsampled MS and the fused image as the MS camera would see it",
    "D_s": "spatial distortion: change of each band's quality index with PAN between the two scales",
    "HQNR": "(1 − D_lambda) (1 − D_s)",
    "QNR": "as HQNR, with the spectral distortion of band pairs",
}
"""What each metric is, in a line."""


def mean_of(values: Sequence[float]) -> float:
    """Return the mean of the values that are defined; NaN if there are none."""
    defined = [value for value in values if not math.isnan(value)]
    return float(np.mean(defined)) if defined else math.nan


def std_of(values: Sequence[float]) -> float:
    """Return the standard deviation of the same values (divided by their number); NaN if one is infinite."""
    defined = [value for value in values if not math.isnan(value)]
    return float(np.std(defined)) if defined and all(map(math.isfinite, defined)) else math.nan


def rank(means: Mapping[str, float], higher_is_better: bool) -> dict[str, int]:
    """Return 1 for the best methods and 2 for the second best; equal means share a place.

    Of fewer than two methods with a mean none is marked.
    """
    known = {name: mean for name, mean in means.items() if not math.isnan(mean)}
    if len(known) < 2:
        return {}
    places = sorted(set(known.values()), reverse=higher_is_better)[:2]
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
    places = {
        name: rank({method: mean_of(each[name]) for method, each in values.items()}, _higher(name)) for name in metrics
    }
    heads = [_head("method", "ascending")]
    heads += [_head(f"{name} {arrow(name)}", "descending" if _higher(name) else "ascending", name) for name in metrics]
    heads += [_head("s / image", "ascending")] if seconds else []
    rows = []
    for index, (method, each) in enumerate(values.items()):
        cells = [f'<th scope="row" data-v="{index}">{escape(method)}</th>']
        cells += [_cell(each[name], places[name].get(method)) for name in metrics]
        if seconds:
            mean = mean_of(seconds.get(method, []))
            cells.append(f'<td data-v="{mean!r}">{"" if math.isnan(mean) else f"{mean:.3f}"}</td>')
        rows.append(f"<tr>{''.join(cells)}</tr>")
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="Table of methods"><table class="sortable"><thead>'
        f"<tr>{''.join(heads)}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def make_image_table(values: Mapping[str, Mapping[str, Sequence[float]]], index: int) -> str:
    """Return the small table of one image's values."""
    metrics = list(next(iter(values.values()), {}))
    places = {
        name: rank({method: each[name][index] for method, each in values.items()}, _higher(name)) for name in metrics
    }
    heads = "".join(f'<th scope="col">{escape(name)} {arrow(name)}</th>' for name in ["", *metrics])
    rows = []
    for method, each in values.items():
        cells = "".join(_cell([each[name][index]], places[name].get(method), 3) for name in metrics)
        rows.append(f'<tr><th scope="row">{escape(method)}</th>{cells}</tr>')
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="Values of this image"><table class="small">'
        f"<thead><tr>{heads}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def make_definitions(metrics: Sequence[str]) -> str:
    """Return what each metric is, its direction and when it is undefined."""
    lines = []
    for name in metrics:
        about, words = ABOUT.get(name), [DEFINITIONS.get(name, "")]
        if about is not None:
            best = "higher is better" if math.isinf(about.ideal) else f"best is {about.ideal:g}"
            words += [f"in {about.unit}" if about.unit else "", best, f"undefined: {about.undefined}"]
        lines.append(f"<dt>{escape(name)} {arrow(name)}</dt><dd>{escape('; '.join(filter(None, words)))}</dd>")
    return f"<dl>{''.join(lines)}</dl>"


def arrow(metric: str) -> str:
    """Return the arrow that tells a metric's good direction; empty for an unknown one."""
    if metric not in ABOUT:
        return ""
    return "↑" if ABOUT[metric].higher_is_better else "↓"


def _higher(metric: str) -> bool:
    return metric in ABOUT and ABOUT[metric].higher_is_better


def _head(text: str, first: str, metric: str = "") -> str:
    about = f' title="{escape(DEFINITIONS[metric])}"' if metric in DEFINITIONS else ""
    return f'<th scope="col" data-first="{first}"{about}><button type="button">{escape(text.strip())}</button></th>'


def _cell(values: Sequence[float], place: int | None, digits: int = 4) -> str:
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
    return f'<td data-v="{mean!r}">{text}</td>'
