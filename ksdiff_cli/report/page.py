"""The page: what its templates need, and the file. It refers to nothing outside itself."""

import base64
import math
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ksdiff_cli.errors import KsdiffError, printable
from ksdiff_cli.files.names import Inputs, check_place
from ksdiff_cli.files.writing import write_text
from ksdiff_cli.metrics import ABOUT
from ksdiff_cli.report.charts import COLOURS, SHAPES, make_chart
from ksdiff_cli.report.colours import ERROR_COLOURS
from ksdiff_cli.report.contents import Example, Report
from ksdiff_cli.report.pictures import Gallery, Strip, make_gallery, whole_limit
from ksdiff_cli.report.table import arrow, define, make_image_table, make_table, title_parts

if TYPE_CHECKING:
    from jinja2 import Environment

_STAGE = 640  # CSS pixels that the swipe viewer may be wide
_DETAIL = 288  # CSS pixels of a detail
_FEW = 4  # pictures in a row that may be larger
_COARSE = 200  # CSS pixels that a picture of a row gets at least
_HEADLINE = ("sensor", "bands", "ratio", "crop", "device")


def check_report(path: Path, overwrite: bool, inputs: Inputs | None = None) -> None:
    """Refuse a report that could not be written in the end, before any work.

    Raises:
        KsdiffError: it is no HTML file by its name; or see :func:`ksdiff_cli.files.names.check_place`.
    """
    if path.suffix.lower() not in {".html", ".htm"}:
        raise KsdiffError(f"{path}: the report is a web page; let its name end in .html")
    check_place(path, inputs or Inputs(), overwrite)


def write_report(report: Report, path: Path, overwrite: bool = False) -> None:
    """Write a report as one HTML file that refers to nothing outside itself.

    The same report gives the same bytes.

    Raises:
        KsdiffError: see :func:`check_report`, or the disk is full.
    """
    check_report(path, overwrite)
    write_text(make_page(report), path)


def make_page(report: Report) -> str:
    """Return the whole page."""
    from markupsafe import Markup

    limit = whole_limit(report.examples)
    known = report.about_images or [""] * len(report.images)
    charts = report.metrics if len(report.images) > 1 else []  # of a single image the table says everything
    return (
        environment()
        .get_template("page.html")
        .render(
            report=report,
            style=Markup(_read("page.css")),
            script=Markup(_read("page.js")),
            headline=_headline(report),
            table=make_table(report.values, report.seconds),
            nearer=any("→" in arrow(metric) for metric in report.metrics),
            shown=[_example(report, one, limit) for one in report.examples],
            charts=[
                make_chart(
                    name,
                    ABOUT[name].unit if name in ABOUT else "",
                    report.images,
                    {method: values[name] for method, values in report.values.items()},
                )
                for name in charts
            ],
            differs=any(report.differences.values()),
            draws={
                method: {metric: [f"{value:.2g}"] for metric, value in each.items() if math.isfinite(value)}
                for method, each in report.draws.items()
            },
            images=[": ".join(filter(None, pair)) for pair in zip(report.images, known, strict=True)],
        )
    )


@cache
def environment() -> "Environment":
    """Return what renders the templates: names and other people's words are escaped, and turn or hide nothing."""
    from jinja2 import Environment, FunctionLoader, StrictUndefined
    from markupsafe import Markup

    def spell_out(value: Any) -> Any:
        return printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value

    made = Environment(
        loader=FunctionLoader(_template),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=spell_out,
        keep_trailing_newline=True,
    )
    made.filters["base64"] = lambda png: base64.b64encode(png).decode("ascii")
    made.globals |= {
        "arrow": arrow,
        "chart_colours": COLOURS,
        "coarse": _COARSE,
        "define": define,
        "enlargement": _enlargement,
        "error_colours": ERROR_COLOURS,
        "few": _FEW,
        "shapes": SHAPES,
        "title_parts": title_parts,
    }
    return made


def _template(name: str) -> str:
    """Return a template whose lines are for those who read it: an empty one ends a line of the page, others do not."""
    return "".join(line.strip("\n ") if line.strip() else "\n" for line in _read(name).splitlines())


def _read(name: str) -> str:
    return files(__package__).joinpath(name).read_text("utf-8")


def _headline(report: Report) -> str:
    parts = [f"{report.protocol} resolution", _count(len(report.images), "image")]
    parts.append(_count(len(report.values), "method"))
    known = {name.lower(): value for name, value in report.facts.items()}
    parts += [f"{name} {known[name]}" for name in _HEADLINE if name in known and len(known[name]) <= 24]
    return " · ".join(parts)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _example(report: Report, example: Example, limit: int) -> dict[str, Any]:
    gallery = make_gallery(example, limit)
    bands, height, width = example.shape
    means = f", each the mean of {example.reduction} × {example.reduction}" if example.reduction > 1 else ""
    size = f"{width} × {height} pixels{means}, {_count(bands, 'band')}"
    several = len(report.images) > 1 and example.name in report.images
    return {
        "name": example.name,
        "viewer": _viewer(gallery),
        "about": [line for line in (example.note, size, gallery.note) if line],
        "table": make_image_table(report.values, report.images.index(example.name)) if several else None,
        "strips": gallery.strips,
    }


def _viewer(gallery: Gallery) -> dict[str, Any] | None:
    """Return what the before/after viewer begins with; None where there is nothing to compare."""
    first = gallery.strips[0]
    if len(first.pictures) < 2:
        return None
    names = [picture.name for picture in first.pictures]
    before = names.index("MS upsampled") if "MS upsampled" in names else 0
    # the last method, before the truth if there is one
    after = max(before + 1, len(names) - 1 - (names[-1] == "truth")) if before < len(names) - 1 else 0
    width, height = first.pictures[0].width, first.pictures[0].height
    return {
        "labels": [strip.label for strip in gallery.strips],
        "names": names,
        "before": before,
        "after": after,
        "width": width,
        "height": height,
        "wide": width * max(1, _STAGE // max(width, height)),
    }


def _enlargement(strip: Strip) -> int:
    """Return how many times a detail is enlarged; 0 for what fills its place."""
    return _DETAIL // max(strip.pictures[0].width, strip.pictures[0].height) if strip.kind == "detail" else 0
