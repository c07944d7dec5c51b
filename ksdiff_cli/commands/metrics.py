"""ksdiff metrics: how good is a sharpened raster?"""

import math
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from ksdiff_cli import options
from ksdiff_cli.console import note, print_json, progress, stdout

if TYPE_CHECKING:
    from ksdiff_cli.measuring_results import Measurement


def metrics(
    fused: Annotated[Path, typer.Argument(help="The sharpened raster to judge.", show_default=False)],
    reference: Annotated[
        Path | None, typer.Option("--reference", help="The truth, on the same grid (reduced resolution).")
    ] = None,
    pan: Annotated[Path | None, typer.Option("--pan", help="PAN that it was made from (full resolution).")] = None,
    ms: Annotated[Path | None, typer.Option("--ms", help="MS that it was made from (full resolution).")] = None,
    sensor: options.SensorName = None,
    ratio: Annotated[
        float | None,
        typer.Option("--ratio", min=1, help="PAN pixels per MS pixel, for ERGAS. Default: the sensor's, or 4."),
    ] = None,
    crop: Annotated[
        Literal["full", "cut21", "cut30"],
        typer.Option("--crop", help="Measure everything, or leave out a border of 21 or 30 px as the literature does."),
    ] = "full",
    warp: options.Warp = False,
    maps: Annotated[
        Path | None, typer.Option("--maps", help="Folder for GeoTIFF maps of SAM (degrees) and Q2n (32-pixel cells).")
    ] = None,
    report: options.ReportFile = None,
    overwrite: options.Overwrite = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Measure a sharpened raster: against a reference, or against its own PAN and MS where there is no truth.

    Examples: ksdiff metrics out.tif --reference truth.tif · ksdiff metrics out.tif --pan pan.tif --ms ms.tif
    """
    if reference is not None and (pan or ms):
        raise typer.BadParameter("give --reference, or --pan and --ms, not both")
    if reference is None and not (pan and ms):
        raise typer.BadParameter("give --reference GT, or both --pan PAN and --ms MS")
    if reference is None and (crop != "full" or ratio is not None):
        raise typer.BadParameter("--crop and --ratio go with --reference; at full resolution the grids tell the ratio")

    if reference is not None and warp:
        raise typer.BadParameter("--warp goes with --pan and --ms; a reference must lie on the fused image's grid")

    from ksdiff_cli.measuring import measure_against_reference, measure_at_full_resolution
    from ksdiff_cli.report import check_report, write_report

    if report is not None:
        check_report(report, overwrite)
    inputs: dict[str, Path] = {}
    with progress("Measuring", quiet=quiet) as tell:
        if reference is not None:
            inputs = {"reference": reference}
            found = measure_against_reference(
                fused,
                reference,
                ratio=ratio,
                sensor=sensor,
                crop=crop,
                maps=maps,
                pictures=report is not None,
                overwrite=overwrite,
                progress=tell,
            )
        elif pan is not None and ms is not None:
            inputs = {"PAN": pan, "MS": ms}
            found = measure_at_full_resolution(
                fused,
                pan,
                ms,
                sensor=sensor,
                warp=warp,
                maps=maps,
                pictures=report is not None,
                overwrite=overwrite,
                progress=tell,
            )
    if report is not None:
        command = shlex.join(["ksdiff", *sys.argv[1:]])
        write_report(found.to_report(command, fused, inputs), report, overwrite)
    if json:
        print_json(found.to_dict())
    else:
        _print_table(fused, found)
    for line in found.notes:
        note(line, quiet=quiet)
    for path in found.maps:
        note(f"map written: {path}", quiet=quiet)
    if report is not None:
        note(f"written: {report}", quiet=quiet)


def _print_table(fused: Path, found: "Measurement") -> None:
    from rich.table import Table

    from ksdiff_cli.metrics import ABOUT

    facts = [f"{found.protocol} resolution", f"{found.size[0]} x {found.size[1]} px", f"{found.bands} bands"]
    facts += [f"ratio {found.ratio:g}", *(f"{name} {_short(value)}" for name, value in found.settings.items())]
    stdout.print(f"{fused.name}: {' · '.join(facts)}", soft_wrap=True, markup=False)
    table = Table()
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


def _short(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
