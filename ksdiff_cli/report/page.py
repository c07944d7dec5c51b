"""The page: HTML around the table, the pictures and the charts. It refers to nothing outside itself."""

import base64
import math
from collections.abc import Sequence
from importlib.resources import files

from ksdiff_cli.metrics import ABOUT
from ksdiff_cli.report.charts import chart, legend, marker_shapes
from ksdiff_cli.report.colours import ERROR_COLOURS
from ksdiff_cli.report.contents import Example, Mark, Report
from ksdiff_cli.report.pictures import Gallery, Picture, Strip, make_gallery, whole_limit
from ksdiff_cli.report.scale import ScaleBar
from ksdiff_cli.report.table import arrow, make_definitions, make_image_table, make_plain_table, make_table
from ksdiff_cli.report.text import escape

_STAGE = 640  # CSS pixels that the swipe viewer may be wide
_DETAIL = 288  # CSS pixels of a detail
_FEW = 4  # pictures in a row that may be larger
_COARSE = 200  # CSS pixels that a picture of a row gets at least
_HEADLINE = ("sensor", "bands", "ratio", "crop", "device")
# the browser itself then refuses anything from outside
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"


def make_page(report: Report) -> str:
    """Return the whole page."""
    style, script = (files(__package__).joinpath(name).read_text("utf-8") for name in ("page.css", "page.js"))
    limit = whole_limit(report.examples)
    examples = "".join(_example(report, number, one, limit) for number, one in enumerate(report.examples))
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><meta name="color-scheme" '
        f'content="light dark"><link rel="icon" href="data:,"><title>{escape(report.title)}</title>\n'
        f"<style>\n{style}</style>\n<noscript><style>.swipe,.legend{{display:none}}</style></noscript></head>\n"
        f"<body><header><h1>{escape(report.title)}</h1><p>{escape(_headline(report))}</p></header>\n<main>\n"
        f"{_results(report)}{examples}{_charts(report)}{_figures(report)}{_differences(report)}{_notes(report)}{_facts(report)}</main>\n"
        f"<script>\n{script}</script>\n</body></html>\n"
    )


def _headline(report: Report) -> str:
    parts = [f"{report.protocol} resolution", _count(len(report.images), "image")]
    parts.append(_count(len(report.values), "method"))
    known = {name.lower(): value for name, value in report.facts.items()}
    parts += [f"{name} {known[name]}" for name in _HEADLINE if name in known and len(known[name]) <= 24]
    return " · ".join(parts)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _results(report: Report) -> str:
    if not report.metrics:
        return ""
    many = "mean ± standard deviation over the images; " if len(report.images) > 1 else ""
    ranked = "<b>best</b>, <u>second best</u>; " if len(report.values) > 1 else ""
    near = ", → nearer is better" if any("→" in arrow(metric) for metric in report.metrics) else ""
    sort = " A click on a column's head sorts by it." if len(report.values) > 1 else ""
    look = f"<p>Look at all of it, at every zoom:</p><pre>{escape(report.look)}</pre>" if report.look else ""
    return (
        f'<section id="results"><h2>Results</h2>{make_table(report.values, report.seconds)}'
        f'<p class="hint">{many}{ranked}↑ higher is better, ↓ lower is better{near}.{sort}</p>{look}</section>\n'
    )


def _differences(report: Report) -> str:
    """Return each method against the best other one, and what draws of z_T change."""
    parts = []
    if any(report.differences.values()):
        hint = (
            "Mean over the images of a method's value less that of the best other method; below it the 95 % interval "
            "(bootstrap over images), p of Wilcoxon's signed-rank test, not corrected for the number of comparisons, "
            "and that other method."
        )
        table = make_plain_table(report.metrics, report.differences, "Differences from the best other method")
        parts.append(f'<h2>Image by image against the best other method</h2>{table}<p class="hint">{hint}</p>')
    if report.draws:
        cells = {
            method: {metric: [f"{value:.2g}"] for metric, value in each.items() if math.isfinite(value)}
            for method, each in report.draws.items()
        }
        table = make_plain_table(report.metrics, cells, "Deviations over draws")
        parts.append(f"<h2>Standard deviation over draws of z_T, of the mean over the images</h2>{table}")
    return f'<section id="differences">{"".join(parts)}</section>\n' if parts else ""


def _example(report: Report, number: int, example: Example, limit: int) -> str:
    gallery = make_gallery(example, limit)
    bands, height, width = example.shape
    means = f", each the mean of {example.reduction} × {example.reduction}" if example.reduction > 1 else ""
    size = f"{width} × {height} pixels{means}, {_count(bands, 'band')}"
    about = "".join(f"<p>{escape(line)}</p>" for line in (example.note, size, gallery.note) if line)
    several = len(report.images) > 1 and example.name in report.images
    values = make_image_table(report.values, report.images.index(example.name)) if several else ""
    strips = "".join(_strip(example.name, index, strip) for index, strip in enumerate(gallery.strips))
    return (
        f'<section class="example" id="example-{number}"><h2>{escape(example.name)}</h2>'
        f'<div class="top">{_viewer(gallery)}<div class="about">{about}{values}</div></div>{strips}</section>\n'
    )


def _viewer(gallery: Gallery) -> str:
    """Return the before/after viewer; the script puts the pictures in."""
    first = gallery.strips[0]
    if len(first.pictures) < 2:
        return ""
    names = [picture.name for picture in first.pictures]
    before = names.index("MS upsampled") if "MS upsampled" in names else 0
    # the last method, before the truth if there is one
    after = max(before + 1, len(names) - 1 - (names[-1] == "truth")) if before < len(names) - 1 else 0
    shape = first.pictures[0]
    scale = max(1, _STAGE // max(shape.width, shape.height))
    size = f"width:{shape.width * scale}px;aspect-ratio:{shape.width}/{shape.height}"
    return (
        '<div class="swipe"><div class="controls">'
        f"{_select('Show', 'strip', [strip.label for strip in gallery.strips], 0)}"
        f"{_select('Left', 'left', names, before)}{_select('Right', 'right', names, after)}"
        '<button type="button" data-role="swap">Swap</button></div>'
        f'<div class="stage" style="{size}"><div class="divider"></div></div>'
        f'<input type="range" min="0" max="100" step="1" value="50" style="width:{shape.width * scale}px" '
        'aria-label="Position of the divider, percent">'
        '<p class="hint">Drag across the picture, or move the slider with the arrow keys.</p></div>'
    )


def _select(label: str, role: str, names: Sequence[str], chosen: int) -> str:
    options = "".join(
        f'<option value="{index}"{" selected" if index == chosen else ""}>{escape(name)}</option>'
        for index, name in enumerate(names)
    )
    return f'<label>{label} <select data-role="{role}">{options}</select></label>'


def _strip(example: str, index: int, strip: Strip) -> str:
    scale = _DETAIL // max(strip.pictures[0].width, strip.pictures[0].height) if strip.kind == "detail" else 0
    figures = "".join(_figure(example, strip, picture, scale) for picture in strip.pictures)
    bar = _error_bar(strip.top) if strip.kind == "error" else ""
    few = " few" if len(strip.pictures) <= _FEW else ""
    enlarged = f", enlarged {scale} times" if scale else ""
    return (
        f'<h3>{escape(strip.label)}</h3><p class="hint">{escape(strip.note)}{enlarged}</p>{bar}'
        f'<div class="strip {strip.kind}{few}" data-strip="{index}">{figures}</div>'
    )


def _figure(example: str, strip: Strip, picture: Picture, scale: int) -> str:
    source = base64.b64encode(picture.png).decode("ascii")
    alt = escape(f"{picture.name}: {strip.label.lower()} of {example}")
    # boxes and bars on every picture would hide what is to be compared
    first, last = (picture is strip.pictures[end] for end in (0, -1))
    drawn = "".join(_mark(mark, picture) for mark in strip.boxes) if first or last else ""
    drawn += _scale_bar(strip.scale, picture) if first else ""
    figure = f" <span>{escape(picture.figure)}</span>" if picture.figure else ""
    # smaller than it is shown: no made-up smoothness
    coarse = ' class="coarse"' if max(picture.width, picture.height) < _COARSE else ""
    sizes = f' style="width:{picture.width * scale}px"' if scale else ""
    return (
        f'<figure{sizes}><div class="frame"><img src="data:image/png;base64,{source}" alt="{alt}"{coarse} '
        f'width="{picture.width}" height="{picture.height}">{drawn}</div>'
        f"<figcaption>{escape(picture.name)}{figure}</figcaption></figure>"
    )


def _mark(mark: Mark, picture: Picture) -> str:
    left, wide = (100 * x / picture.width for x in (mark.box.left, mark.box.width))
    top, tall = (100 * x / picture.height for x in (mark.box.top, mark.box.height))
    place = f"left:{left:.2f}%;top:{top:.2f}%;width:{wide:.2f}%;height:{tall:.2f}%"
    return f'<i class="box" style="{place}"><b>{escape(mark.label)}</b></i>'


def _scale_bar(bar: ScaleBar, picture: Picture) -> str:
    return f'<i class="scale" style="width:{100 * bar.pixels / picture.width:.2f}%"><b>{escape(bar.text)}</b></i>'


def _error_bar(top: float) -> str:
    stops = "".join(f'<stop offset="{at:g}" stop-color="{colour}"/>' for at, colour in ERROR_COLOURS)
    labels = [(0.0, "0"), (0.5, f"{100 * top / 2:g} %"), (1.0, f"≥ {100 * top:g} %")]
    marks = "".join(
        f'<text x="{20 + 280 * share:g}" y="30" text-anchor="middle">{text}</text>' for share, text in labels
    )
    return (
        '<svg class="bar" viewBox="0 0 330 36" width="330" height="36" role="img" aria-label="Colours of the errors, '
        f'0 to {100 * top:g} %"><defs><linearGradient id="errors">{stops}</linearGradient></defs>'
        f'<rect x="20" y="2" width="280" height="12" fill="url(#errors)"/>{marks}</svg>'
    )


def _charts(report: Report) -> str:
    """Return the values image by image; of a single image the table says everything."""
    if len(report.images) < 2 or not report.metrics:
        return ""
    charts = "".join(
        chart(
            name,
            ABOUT[name].unit if name in ABOUT else "",
            report.images,
            {method: values[name] for method, values in report.values.items()},
        )
        for name in report.metrics
    )
    return (
        f'<section id="charts"><h2>Image by image</h2>{marker_shapes()}{legend(list(report.values))}'
        f'<div class="charts">{charts}</div></section>\n'
    )


def _figures(report: Report) -> str:
    return "".join(
        f'<section class="figure"><h2>{escape(each.title)}</h2><p class="hint">{escape(each.note)}</p>'
        f'<img src="data:image/png;base64,{base64.b64encode(each.png).decode("ascii")}" alt="{escape(each.title)}" '
        'style="max-width:100%;background:#fff"></section>\n'
        for each in report.figures
    )


def _notes(report: Report) -> str:
    if not report.notes:
        return ""
    lines = "".join(f"<li>{escape(line)}</li>" for line in report.notes)
    return f'<section id="notes"><h2>Notes</h2><ul>{lines}</ul></section>\n'


def _facts(report: Report) -> str:
    lines = {"protocol": f"{report.protocol} resolution", **report.facts}
    rows = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in lines.items())
    command = f"<p>Made by</p><pre>{escape(report.command)}</pre>" if report.command else ""
    known = report.about_images or [""] * len(report.images)
    pairs = zip(report.images, known, strict=True)
    names = "".join(f"<li>{escape(': '.join(filter(None, pair)))}</li>" for pair in pairs)
    images = ""
    if len(report.images) > 1:
        images = f'<details><summary>{len(report.images)} images</summary><ol start="0">{names}</ol></details>'
    return (
        f'<section id="facts"><h2>How it was made</h2><dl>{rows}</dl>{command}{images}'
        f"<h3>Metrics</h3>{make_definitions(report.metrics)}</section>\n"
    )
