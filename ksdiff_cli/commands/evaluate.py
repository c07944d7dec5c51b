"""ksdiff evaluate: methods and weights compared over test files."""

import math
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ksdiff_cli.commands import options as typed
from ksdiff_cli.commands.console import cell, note, print_json, print_table, progress, stdout
from ksdiff_cli.options.measuring import EvaluateOptions

if TYPE_CHECKING:
    from ksdiff_cli.evaluation.results import Evaluation

_COLUMNS = 7  # metrics of a table
_SHIFTS = 20  # images whose shift is printed


@typed.takes
def evaluate(
    data: Annotated[
        list[Path],
        typed.argument(
            metavar="DATA…",
            help="Files of prepare-data or PanCollection (.h5, .mat); a folder stands for its test.h5 (full: its "
            "full.h5). Or bands of several resolutions, or a Sentinel-2 product.",
        ),
    ],
    options: EvaluateOptions,
    quiet: typed.Quiet = False,
    as_json: typed.Json = False,
) -> None:
    """Compare methods: quality on every image of test files, mean and deviation, and time per image.

    Example: ksdiff evaluate patches/test.h5 --checkpoint runs/stage2.safetensors --report report.html

    Example: ksdiff evaluate patches/full.h5 --protocol full --method gsa --method bt-h

    Bands that finer ones guide are sharpened one scale below, where they themselves are the truth; at full resolution
    each is measured by its own guide.

    Example: ksdiff evaluate S2A_MSIL2A_….SAFE --method mtf-glp-hpm-r
    """
    if options.protocol == "full" and options.crop is not None:
        raise typer.BadParameter("--crop goes with --protocol reduced")

    from ksdiff_cli.process import wait_quietly

    wait_quietly()  # before torch is loaded
    from ksdiff_cli import api

    with progress("evaluate", quiet=quiet) as tell:
        found = api.evaluate(*data, options=options, command=shlex.join(["ksdiff", *sys.argv[1:]]), progress=tell)
    if as_json:
        print_json(found.to_dict())
    else:
        _print_table(found)
    for line in found.notes:
        note(line, quiet=quiet)
    for path in (options.csv, options.latents, options.report):
        if path is not None:
            note(f"written: {path}", quiet=quiet)


def _print_table(found: "Evaluation") -> None:
    """Print methods by metrics, the best in bold, the second underlined; and what is known of the differences."""
    from rich.table import Table

    from ksdiff_cli.classical import METHODS
    from ksdiff_cli.metrics import ABOUT

    crop = f", crop {found.crop}" if found.protocol == "reduced" else ""
    of = f"{len(found.images)} {found.of}(s)"
    angle = f", SAM {found.facts['SAM']}" if "SAM" in found.facts else ""
    title = f"{found.protocol} resolution{crop}, {of}, mean ± std{angle}"
    for start in range(0, len(found.metrics), _COLUMNS):
        names = found.metrics[start : start + _COLUMNS]
        table = Table(title=None if start else title, title_justify="left")
        table.add_column("method", no_wrap=True)
        for name in names:
            table.add_column(f"{name} {ABOUT[name].arrow}", justify="right", min_width=8)
        table.add_column("s/image", justify="right", no_wrap=True)
        places = {name: found.ranks(name) for name in names}
        for method, result in found.methods.items():
            cells = []
            for name in names:
                text = _figure(result.mean(name), result.std(name))
                style = {1: "bold", 2: "underline"}.get(places[name].get(method, 0))
                cells.append(f"[{style}]{text}[/]" if style else text)
            table.add_row(cell(method), *cells, f"{result.runtime:.3f}")
        print_table(table)
    if found.shifts:
        means = [shift.mean for shift in found.shifts[:_SHIFTS]]
        shown = ", ".join(f"{number} ({row:+.1f}, {col:+.1f})" for number, (row, col) in enumerate(means))
        more = f" … (all {len(found.shifts)} with --json or --csv)" if len(found.shifts) > _SHIFTS else ""
        title = "Shift of MS against PAN by image, PAN pixels (rows, columns), mean over bands"
        stdout.print(f"{title}: {shown}{more}", soft_wrap=True, markup=False)
    networks = [name for name in found.methods if name not in METHODS]
    _print_differences(found, networks or list(found.methods))


def _print_differences(found: "Evaluation", methods: list[str]) -> None:
    """Print methods against the best other one, image by image, and what draws of z_T change."""
    from rich.table import Table

    for method in methods:
        if not found.differences[method]:
            continue
        drawn = bool(found.methods[method].draws)
        heads = ["metric", "best other", "images", "difference", "95 % interval", "p"]
        table = Table(title=f"{cell(method)} less the best other method, image by image", title_justify="left")
        for place, head in enumerate([*heads, *(["std over draws"] if drawn else [])]):
            table.add_column(head, justify="left" if place < 2 else "right", no_wrap=True)
        for metric, one in found.differences[method].items():
            cells = [metric, cell(one.other), str(one.images), f"{one.mean:+.4f}", f"{one.low:+.4f} … {one.high:+.4f}"]
            spread = [f"{found.methods[method].std_over_draws(metric):.2g}"] if drawn else []
            table.add_row(*cells, f"{one.p:.2g}", *spread)
        print_table(table)


def _figure(mean: float, std: float) -> str:
    if math.isnan(mean):
        return "undefined"
    return f"{mean:.4f} ± {std:.4f}" if math.isfinite(mean) else "∞"
