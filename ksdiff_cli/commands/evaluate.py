"""ksdiff evaluate: methods and weights compared over test files."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from ksdiff_cli import options
from ksdiff_cli.console import note, print_json, progress, stdout

if TYPE_CHECKING:
    from ksdiff_cli.evaluation import Evaluation

_WIDE = 200  # columns for a table that goes to a file, where nothing needs to be folded


def evaluate(
    data: Annotated[
        list[Path],
        typer.Argument(
            metavar="DATA…",
            help="Test files (.h5) of prepare-data or PanCollection; a folder stands for its test.h5.",
            show_default=False,
        ),
    ],
    checkpoint: Annotated[
        list[Path] | None, typer.Option("--checkpoint", help="Weights to compare; may be repeated.")
    ] = None,
    method: Annotated[
        list[str] | None,
        typer.Option(
            "--method", help="Method by name, may be repeated; ksdiff is the shipped weights. Default: exp and ksdiff."
        ),
    ] = None,
    protocol: Annotated[
        Literal["reduced"], typer.Option("--protocol", help="reduced: against the ground truth.")
    ] = "reduced",
    sensor: options.SensorName = None,
    device: options.Device = "auto",
    seed: options.Seed = 0,
    quiet: options.Quiet = False,
    as_json: options.Json = False,
) -> None:
    """Compare methods: accuracy on every image of test files, mean and deviation, and time per image.

    Example: ksdiff evaluate patches/test.h5 --checkpoint runs/stage2.safetensors --method exp
    """
    from ksdiff_cli.evaluation import evaluate_files, make_fusers, open_files
    from ksdiff_cli.sensors import find_sensor

    files = open_files(data)
    fusers = make_fusers(method or [], checkpoint or [], device, seed)
    with progress("evaluate", quiet=quiet) as report:
        found = evaluate_files(files, fusers, report, find_sensor(sensor) if sensor else None)
    if as_json:
        print_json(found.to_dict())
    else:
        _print_table(found)
    for line in found.notes:
        note(line, quiet=quiet)


def _print_table(found: "Evaluation") -> None:
    """Print methods by metrics, the best in bold, the second underlined."""
    from rich.console import Console
    from rich.table import Table

    from ksdiff_cli.evaluation import ranks
    from ksdiff_cli.metrics import ABOUT

    names = list(next(iter(found.methods.values())).values)
    table = Table(title=f"{found.protocol} resolution, {found.images} image(s), mean ± std", title_justify="left")
    table.add_column("method", no_wrap=True)
    for name in names:
        arrow = "↑" if ABOUT[name].higher_is_better else "↓"
        table.add_column(f"{name} {arrow}", justify="right", min_width=8)
    table.add_column("s/image", justify="right", no_wrap=True)
    places = {name: ranks(found, name, ABOUT[name].higher_is_better) for name in names}
    for method, result in found.methods.items():
        cells = []
        for name in names:
            text = f"{result.mean(name):.4f} ± {result.std(name):.4f}"
            style = {places[name][0]: "bold", places[name][1]: "underline"}.get(method)
            cells.append(f"[{style}]{text}[/]" if style else text)
        table.add_row(method, *cells, f"{result.runtime:.3f}")
    (stdout if stdout.is_terminal else Console(width=_WIDE, highlight=False)).print(table)
