"""ksdiff evaluate: methods and weights compared over test files."""

import math
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from ksdiff_cli import options
from ksdiff_cli.console import note, print_json, progress, stdout

if TYPE_CHECKING:
    from ksdiff_cli.evaluation_results import Evaluation

_WIDE = 200  # columns for a table that goes to a file, where nothing needs to be folded
_EXAMPLES = 3  # images shown in a report; its pictures grow with them


def evaluate(
    data: Annotated[
        list[Path],
        typer.Argument(
            metavar="DATA…",
            help="Files (.h5) of prepare-data or PanCollection; a folder stands for its test.h5 (full: its full.h5).",
            show_default=False,
        ),
    ],
    checkpoint: Annotated[
        list[Path] | None,
        typer.Option("--checkpoint", help="Weights to compare; may be repeated. Default: the shipped weights, ksdiff."),
    ] = None,
    method: Annotated[
        list[str] | None,
        typer.Option("--method", help="Method to compare with, by name; may be repeated. Default: all of them."),
    ] = None,
    protocol: Annotated[
        Literal["reduced", "full"],
        typer.Option(
            "--protocol", help="reduced: against the ground truth. full: against PAN and MS, without a truth."
        ),
    ] = "reduced",
    crop: Annotated[
        Literal["full", "cut21", "cut30"] | None,
        typer.Option("--crop", help="Reduced protocol: measure everything, or leave out a border of 21 or 30 px."),
    ] = None,
    sensor: options.SensorName = None,
    prior: Annotated[
        Literal["own", "shuffled", "zero", "true"],
        typer.Option(
            "--prior",
            help="What networks get as z: their own, another image's, zeros, or the truth's (stage-1 weights).",
        ),
    ] = "own",
    csv: Annotated[
        Path | None, typer.Option("--csv", metavar="OUT.csv", help="Write every method's values, one row an image.")
    ] = None,
    report: options.ReportFile = None,
    device: options.Device = "auto",
    seed: options.Seed = 0,
    overwrite: options.Overwrite = False,
    quiet: options.Quiet = False,
    as_json: options.Json = False,
) -> None:
    """Compare methods: quality on every image of test files, mean and deviation, and time per image.

    Example: ksdiff evaluate patches/test.h5 --checkpoint runs/stage2.safetensors --report report.html
    """
    if protocol == "full" and crop is not None:
        raise typer.BadParameter("--crop goes with --protocol reduced")

    from ksdiff_cli.evaluation import evaluate_files, make_fusers
    from ksdiff_cli.evaluation_cases import open_files
    from ksdiff_cli.evaluation_results import write_csv
    from ksdiff_cli.report import check_report, write_report
    from ksdiff_cli.report.writing import check_text
    from ksdiff_cli.sensors import find_sensor

    if csv is not None:
        check_text(csv, overwrite)
    if report is not None:
        check_report(report, overwrite)
    known = find_sensor(sensor) if sensor else None
    files = open_files(data, protocol)
    fusers = make_fusers(method or [], checkpoint or [], device, seed, prior)
    with progress("evaluate", quiet=quiet) as tell:
        found = evaluate_files(
            files,
            fusers,
            tell,
            protocol=protocol,
            sensor=known,
            crop=crop or "full",
            keep=_EXAMPLES if report is not None else 0,
            prior=prior,
        )
    if csv is not None:
        write_csv(found, csv)
    if report is not None:
        write_report(found.to_report(shlex.join(["ksdiff", *sys.argv[1:]])), report, overwrite)
    if as_json:
        print_json(found.to_dict())
    else:
        _print_table(found)
    for line in found.notes:
        note(line, quiet=quiet)
    for path in (csv, report):
        if path is not None:
            note(f"written: {path}", quiet=quiet)


def _print_table(found: "Evaluation") -> None:
    """Print methods by metrics, the best in bold, the second underlined."""
    from rich.console import Console
    from rich.table import Table

    from ksdiff_cli.metrics import ABOUT

    crop = f", crop {found.crop}" if found.protocol == "reduced" else ""
    title = f"{found.protocol} resolution{crop}, {len(found.images)} image(s), mean ± std"
    table = Table(title=title, title_justify="left")
    table.add_column("method", no_wrap=True)
    for name in found.metrics:
        arrow = "↑" if ABOUT[name].higher_is_better else "↓"
        table.add_column(f"{name} {arrow}", justify="right", min_width=8)
    table.add_column("s/image", justify="right", no_wrap=True)
    places = {name: found.ranks(name, ABOUT[name].higher_is_better) for name in found.metrics}
    for method, result in found.methods.items():
        cells = []
        for name in found.metrics:
            text = _figure(result.mean(name), result.std(name))
            style = {1: "bold", 2: "underline"}.get(places[name].get(method, 0))
            cells.append(f"[{style}]{text}[/]" if style else text)
        table.add_row(method, *cells, f"{result.runtime:.3f}")
    (stdout if stdout.is_terminal else Console(width=_WIDE, highlight=False)).print(table)


def _figure(mean: float, std: float) -> str:
    if math.isnan(mean):
        return "undefined"
    return f"{mean:.4f} ± {std:.4f}" if math.isfinite(mean) else "∞"
