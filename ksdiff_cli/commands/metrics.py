"""ksdiff metrics: how good is a sharpened raster?"""

import math
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from ksdiff_cli.commands import options
from ksdiff_cli.commands.console import note, print_json, progress, stdout

if TYPE_CHECKING:
    from ksdiff_cli.evaluation.measured import Measurement


def metrics(
    fused: Annotated[Path, options.argument(metavar="FUSED", help="The sharpened raster to judge.")],
    reference: Annotated[
        Path | None,
        options.option(
            options.INPUTS,
            "--reference",
            metavar="FILE",
            help="The truth, on the same grid (reduced resolution). Default: --pan and --ms instead.",
        ),
    ] = None,
    pan: Annotated[
        Path | None,
        options.option(
            options.INPUTS,
            "--pan",
            metavar="FILE",
            help="PAN that it was made from (full resolution). Default: --reference instead.",
        ),
    ] = None,
    ms: Annotated[
        Path | None,
        options.option(
            options.INPUTS,
            "--ms",
            metavar="FILE",
            help="MS that it was made from (full resolution). Default: --reference instead.",
        ),
    ] = None,
    sensor: options.SensorName = None,
    ratio: Annotated[
        float | None,
        options.option(
            options.MEASURING,
            "--ratio",
            min=1,
            help="PAN pixels per MS pixel, for ERGAS with --reference. Default: the sensor's, or 4.",
        ),
    ] = None,
    crop: Annotated[
        Literal["full", "cut21", "cut30"],
        options.option(
            options.MEASURING,
            "--crop",
            help="Measure everything, or leave out a border of 21 or 30 px as the literature does.",
        ),
    ] = "full",
    src_nodata: options.SrcNodata = None,
    warp: options.Warp = False,
    maps: Annotated[
        Path | None,
        options.option(
            options.OUTPUT,
            "--maps",
            metavar="DIR",
            help="Folder for GeoTIFF maps of SAM (degrees) and Q2n (32-pixel cells). Default: no maps.",
        ),
    ] = None,
    report: options.ReportFile = None,
    overwrite: options.Overwrite = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Measure a sharpened raster: against a reference, or against its own PAN and MS where there is no truth.

    Example: ksdiff metrics out.tif --reference truth.tif

    Example: ksdiff metrics out.tif --pan pan.tif --ms ms.tif --sensor WV3 --report out.html
    """
    if reference is not None and (pan or ms):
        raise typer.BadParameter("give --reference, or --pan and --ms, not both")
    if reference is None and not (pan and ms):
        raise typer.BadParameter("give --reference GT, or both --pan PAN and --ms MS")
    if reference is None and (crop != "full" or ratio is not None):
        raise typer.BadParameter("--crop and --ratio go with --reference; at full resolution the grids tell the ratio")
    if reference is not None and warp:
        raise typer.BadParameter("--warp goes with --pan and --ms; a reference must lie on the fused image's grid")

    from ksdiff_cli import api

    with progress("Measuring", quiet=quiet) as tell:
        found = api.measure(
            fused,
            reference=reference,
            pan=pan,
            ms=ms,
            ratio=ratio,
            sensor=sensor,
            crop=crop,
            warp=warp,
            src_nodata=options.read_nodata(src_nodata),
            maps=maps,
            report=report,
            command=shlex.join(["ksdiff", *sys.argv[1:]]),
            overwrite=overwrite,
            progress=tell,
        )
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
    facts += [
        f"ratio {found.ratio:g}",
        f"SAM of {found.sam_of}",
        *(f"{name} {_short(value)}" for name, value in found.settings.items()),
    ]
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
    if found.shifts is not None:
        stdout.print(f"Shift of MS against PAN, PAN pixels (rows, columns): {found.shifts}", markup=False)


def _short(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
