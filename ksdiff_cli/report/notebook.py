"""How results show themselves in notebooks: a picture, and their figures in a small table."""

import math
from base64 import b64encode
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

import numpy as np
from rasterio.enums import Resampling
from rasterio.errors import RasterioError

from ksdiff_cli.errors import KsdiffError
from ksdiff_cli.metrics.about import ABOUT, merit
from ksdiff_cli.raster.open import open_raster
from ksdiff_cli.report.colours import encode_picture, find_stretch, rgb_bands

_SIDE = 640  # pixels of a picture, at most


def raster_html(path: Path, facts: Mapping[str, str]) -> str:
    """Return a raster's picture and facts about it; facts alone where it cannot be read any more.

    Args:
        path: of the raster, which is read at the picture's size, from its overviews where it has them.
        facts: name and value, for people.
    """
    return f"<div><b>{escape(path.name)}</b>{_picture(path)}{_table([], list(facts.items()))}</div>"


def figures_html(values: Mapping[str, float], notes: Sequence[str]) -> str:
    """Return the figures of one raster, with where the better values lie."""
    rows = [(_title(name), _number(value)) for name, value in values.items()]
    return f"<div>{_table([], rows)}{''.join(f'<p>{escape(note)}</p>' for note in notes)}</div>"


def methods_html(means: Mapping[str, Mapping[str, float]]) -> str:
    """Return a table of methods: metric by metric the best one is bold."""
    metrics = list(dict.fromkeys(metric for values in means.values() for metric in values))
    best = {
        metric: max(merit(metric, v[metric]) for v in means.values() if math.isfinite(v[metric]))
        for metric in metrics
        if any(math.isfinite(values[metric]) for values in means.values())
    }
    rows = []
    for name, values in means.items():
        marks = [merit(metric, values[metric]) == best.get(metric) for metric in metrics]
        numbers = [_number(values[metric]) for metric in metrics]
        rows.append((escape(name), *(f"<b>{n}</b>" if mark else n for n, mark in zip(numbers, marks, strict=True))))
    return _table(["", *map(_title, metrics)], rows, plain=True)


def _picture(path: Path) -> str:
    try:
        with open_raster(path) as dataset:
            shown = rgb_bands(dataset.count, [name or "" for name in dataset.descriptions])
            scale = max(1.0, max(dataset.shape) / _SIDE)
            size = tuple(max(1, round(side / scale)) for side in dataset.shape)
            how = {"out_shape": (3, *size), "resampling": Resampling.average}
            image = dataset.read([band + 1 for band in shown], masked=True, **how)
    except (KsdiffError, RasterioError):
        return ""
    valid = np.asarray(~np.ma.getmaskarray(image).any(0))
    data = b64encode(encode_picture(image.data, valid, find_stretch(image.data, valid))).decode()
    style = "max-width:100%;display:block;margin:.4em 0"
    return f'<img alt="{escape(path.name)}" style="{style}" src="data:image/png;base64,{data}">'


def _title(metric: str) -> str:
    about = ABOUT.get(metric)
    return (
        escape(metric) if about is None else f'<span title="{escape(about.what)}">{escape(metric)} {about.arrow}</span>'
    )


def _number(value: float) -> str:
    return f"{value:.4g}" if math.isfinite(value) else "-"


def _table(head: Sequence[str], rows: Sequence[tuple[str, ...]], plain: bool = False) -> str:
    def line(cells: Sequence[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{cell}</{tag}>" for cell in cells) + "</tr>"

    first = line(head, "th") if head else ""
    return f"<table>{first}{''.join(line(row if plain else (row[0], escape(row[1])), 'td') for row in rows)}</table>"
