"""ksdiff metrics: how good is a sharpened raster?"""

import math
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ksdiff_cli.commands import options as typed
from ksdiff_cli.commands.console import cell, note, print_json, progress, stdout
from ksdiff_cli.options.measuring import MeasureOptions

if TYPE_CHECKING:
    from ksdiff_cli.evaluation.measured import Measurement


@typed.takes
def metrics(
    fused: Annotated[Path, typed.argument(metavar="FUSED", help="The sharpened raster to judge.")],
    options: MeasureOptions,
    json: typed.Json = False,
    quiet: typed.Quiet = False,
) -> None:
    """Measure a sharpened raster: against a reference, or against its own PAN and MS where there is no truth.

    Bands that finer ones guided are measured band by band, each against its own guide.

    Example: ksdiff metrics out.tif --reference truth.tif

    Example: ksdiff metrics out.tif --pan pan.tif --ms ms.tif --sensor WV3 --report out.html

    Example: ksdiff metrics s2.tif --guide S2A_MSIL2A_….SAFE
    """
    whole = options.reference is None
    if not whole and (options.pan or options.ms or options.guide):
        raise typer.BadParameter("give --reference, or --pan and --ms, or --guide, not both")
    if whole and not options.guide and not (options.pan and options.ms):
        raise typer.BadParameter("give --reference GT, or both --pan PAN and --ms MS, or --guide FINE")
    if options.guide and (options.pan or options.maps):
        raise typer.BadParameter("--guide stands in place of --pan, and makes no --maps: leave these out")
    if whole and (options.crop != "full" or options.ratio is not None):
        raise typer.BadParameter("--crop and --ratio go with --reference; at full resolution the grids tell the ratio")
    if not whole and options.mtf != "sensor":
        raise typer.BadParameter("--mtf goes with --pan and --ms")
    if not options.guide and options.guide_by != "synthesis":
        raise typer.BadParameter("--guide-by goes with --guide")
    if options.report is not None and options.report == options.maps:
        raise typer.BadParameter("--maps names a folder, --report a page: give each a name of its own")
    if not whole and options.warp:
        raise typer.BadParameter("--warp goes with --pan and --ms; a reference must lie on the fused image's grid")

    from ksdiff_cli import api

    with progress("Measuring", quiet=quiet) as tell:
        command = shlex.join(["ksdiff", *sys.argv[1:]])
        found = api.measure(fused, options=options, command=command, progress=tell)
    if json:
        print_json(found.to_dict())
    else:
        _print_table(fused, found)
    for line in found.notes:
        note(line, quiet=quiet)
    for path in found.maps:
        note(f"map written: {path}", quiet=quiet)
    if options.report is not None:
        note(f"written: {options.report}", quiet=quiet)


def _print_table(fused: Path, found: "Measurement") -> None:
    from rich.table import Table

    from ksdiff_cli.metrics import ABOUT

    facts = [f"{found.protocol} resolution", f"{found.size[0]} x {found.size[1]} px", f"{found.bands} bands"]
    facts += [
        f"ratio {found.ratio:g}",
        *([] if found.by_band else [f"SAM of {found.sam_of}"]),
        *(f"{name} {_short(value)}" for name, value in found.settings.items()),
    ]
    stdout.print(f"{fused.name}: {' · '.join(facts)}", soft_wrap=True, markup=False)
    if found.by_band:
        _print_bands(found)
    table = Table(title="Mean over bands" if found.by_band else None, title_justify="left")
    table.add_column("Metric")
    table.add_column("Value", justify="right")
    table.add_column("Best", justify="right")
    for name, value in found.values.items():
        about = ABOUT[name]
        unit = f" {about.unit}" if about.unit and math.isfinite(value) else ""
        shown = "undefined" if math.isnan(value) else f"{value:.4f}" if math.isfinite(value) else "∞"
        best = "higher" if math.isinf(about.ideal) else f"{about.ideal:g}"
        table.add_row(name, shown + unit, best)
    stdout.print(table)
    if found.shifts is not None:
        stdout.print(f"Shift of MS against PAN, PAN pixels (rows, columns): {found.shifts}", markup=False)


def _print_bands(found: "Measurement") -> None:
    """Print the figures of each band by its own guide."""
    from rich.table import Table

    from ksdiff_cli.metrics import ABOUT

    table = Table()
    for head in ("Band", "R² of its guide", "Ratio", *(f"{name} {ABOUT[name].arrow}" for name in found.values)):
        table.add_column(head, justify="left" if head == "Band" else "right")
    for band, figures in found.by_band.items():
        cells = ["undefined" if math.isnan(figures[name]) else f"{figures[name]:.4f}" for name in found.values]
        table.add_row(cell(band), f"{figures['R2']:.2f}", f"{figures['ratio']:g}", *cells)
    stdout.print(table)


def _short(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
