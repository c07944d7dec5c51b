"""ksdiff sharpen: PAN and MS in, sharpened GeoTIFF out."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ksdiff_cli.commands import options as typed
from ksdiff_cli.commands.console import cell, note, print_json, print_table, progress, stdout
from ksdiff_cli.errors import KsdiffError
from ksdiff_cli.options import default_of
from ksdiff_cli.options.sharpening import SharpenCommand, SharpenOptions

if TYPE_CHECKING:
    from ksdiff_cli.products import Found
    from ksdiff_cli.progress import ProgressCallback
    from ksdiff_cli.sharpening.batch import Outcome
    from ksdiff_cli.sharpening.engine import Sharpened
    from ksdiff_cli.sharpening.pipeline import Maker
    from ksdiff_cli.sharpening.workflow import Workflow

_MOST_ROWS = 200  # scenes of a batch that its table shows


@typed.takes
def sharpen(
    output: Annotated[
        Path,
        typed.option(
            typed.OUTPUT,
            "--output",
            "-o",
            metavar="OUT.tif",
            help="Raster to write, .tif (.vrt for -f VRT); with --batch a folder.",
        ),
    ],
    options: SharpenOptions,
    command: SharpenCommand,
    inputs: Annotated[
        list[str] | None,
        typed.argument(
            metavar="PAN MS… | BAND… | SCENE",
            help="PAN and MS rasters (MS may be several files); bands of several resolutions, of which the finest "
            "guide the others; or a scene's folder or archive.",
        ),
    ] = None,
    quiet: typed.Quiet = False,
    as_json: typed.Json = False,
) -> None:
    """Sharpen a whole scene: MS in PAN's resolution, on PAN's grid, with the data type and metadata of MS.

    Example: ksdiff sharpen pan.tif ms.tif -o out.tif

    Bands that no PAN covers are sharpened by finer ones, their guides: --guide, or a Sentinel-2 product. Of bands that
    these explain badly (R², printed) expect less.

    Example: ksdiff sharpen --guide B02.tif B03.tif B04.tif B08.tif B05.tif B11.tif -o out.tif

    Example: ksdiff sharpen S2A_MSIL2A_….SAFE -o out.tif

    Example: ksdiff sharpen --batch scenes.csv -o sharpened
    """
    inputs = inputs or []
    _check(inputs, options, command, as_json=as_json)
    from ksdiff_cli.process import keep_freed_memory, wait_quietly

    keep_freed_memory()
    wait_quietly()  # before torch is loaded
    from ksdiff_cli.products import find_scene
    from ksdiff_cli.sharpening.engine import job_folder
    from ksdiff_cli.sharpening.ortho import working_name
    from ksdiff_cli.sharpening.workflow import Workflow

    reads = [str(name) for name in (command.batch, command.scheduler) if name is not None]
    # a client may have no GPU, though its workers have
    device = "auto" if command.scheduler and options.device != "cpu" else options.device
    workflow = Workflow(options, reads, device)
    makers = _makers(command, options, lambda line: note(f"Note: {line}", quiet=quiet))
    if command.batch is not None:
        _run_batch(command, output, workflow, makers, quiet=quiet, as_json=as_json)
        return
    workflow.check(output, [*options.guide, *inputs])
    scene = find_scene(inputs, options.sensor, options.guide)
    try:
        with progress("sharpen", quiet=quiet) as report, makers as make:
            made = workflow.run(scene, output, report, make)
    except KeyboardInterrupt:
        folder = job_folder(working_name(output, options))
        if folder.exists():
            note(f"interrupted: the same command goes on from here ({folder})", quiet=quiet)
        raise
    each = " for each worker" if command.workers or command.scheduler else ""
    _tell(made, each, seam_report=command.seam_report, quiet=quiet)
    if command.view:
        from ksdiff_cli.commands.view import show_until_closed
        from ksdiff_cli.options.viewing import ViewOptions

        shown = ViewOptions(sensor=options.sensor, src_nodata=options.src_nodata)
        results = [str(made.output), *([str(options.uncertainty)] if options.uncertainty else [])]
        show_until_closed([*inputs, *results], shown, quiet=quiet)


def _check(inputs: Sequence[str], options: SharpenOptions, command: SharpenCommand, *, as_json: bool) -> None:
    """Refuse what does not go together.

    Raises:
        typer.BadParameter: see above.
    """
    if options.guide and (command.batch or not inputs):
        raise typer.BadParameter("--guide names finer bands of one scene: name the coarser ones after it, no --batch")
    if command.batch is None and not inputs:
        raise typer.BadParameter("name PAN and MS, or a scene's folder; or many scenes with --batch")
    if command.batch is not None and (
        inputs or options.quicklook or options.rgb or options.window or options.uncertainty
    ):
        raise typer.BadParameter(
            "--batch names many scenes: leave out PAN, MS, SCENE, --quicklook, --rgb, --window and --uncertainty"
        )
    if command.batch is not None and command.view:
        raise typer.BadParameter("--batch names many scenes: leave out --view")
    if command.view and options.ortho is not None:
        raise typer.BadParameter("--view: shows the result on PAN and MS, which --ortho takes it off: leave one out")
    if command.view:
        from ksdiff_cli.view import check_installed

        check_installed()
    if as_json and command.batch is None:
        raise typer.BadParameter("--json goes with --batch")
    if command.mosaic and (command.batch is None or command.mosaic.suffix.lower() != ".vrt"):
        raise typer.BadParameter("--mosaic names a .vrt, and goes with --batch")
    if options.uncertainty is None and options.draws != default_of(SharpenOptions, "draws"):
        raise typer.BadParameter("--draws goes with --uncertainty")
    if options.bounds_crs and not options.bounds:
        raise typer.BadParameter("--bbox-crs goes with --bbox")
    if options.window and options.bounds:
        raise typer.BadParameter("--window and --bbox both choose a part: leave one out")
    if command.workers and command.scheduler:
        raise typer.BadParameter("--workers starts processes here, --scheduler uses those elsewhere: leave one out")
    if command.tls and not (command.workers or command.scheduler):
        raise typer.BadParameter("--tls goes with --workers or --scheduler")


def _tell(made: "Sharpened", each: str, *, seam_report: bool, quiet: bool) -> None:
    """Say what was made."""
    for line in made.notes:
        note(f"Note: {line}", quiet=quiet)
    height, width = made.shape
    note(f"{made.output}: {width} x {height} pixels, {made.bands} bands, {made.dtype}", quiet=quiet)
    kept = f", {made.resumed} of them kept from an interrupted run" if made.resumed else ""
    bound = f"memory up to {made.memory / 1e9:.1f} GB{each}"
    note(f"Windows of {made.tile} pixels: {made.windows}{kept}; {bound}", quiet=quiet)
    if made.explained:
        shares = ", ".join(f"{name} {share:.2f}" for name, share in made.explained)
        note(f"Explained by the finer bands (R²): {shares}", quiet=quiet)
    if made.cameras:
        note(f"Cameras: {made.cameras}", quiet=quiet)
    if made.fidelity:
        note(f"Spectral fidelity: {made.fidelity}", quiet=quiet)
    if made.fidelity_pan:
        note(f"Spatial fidelity: {made.fidelity_pan}", quiet=quiet)
    if seam_report:
        score = "none, the output is one window" if made.seam is None else f"{made.seam:.3f} (1: no border shows)"
        stdout.print(f"Seam score: {score}", highlight=False)


def _run_batch(
    command: SharpenCommand,
    folder: Path,
    workflow: "Workflow",
    makers: "AbstractContextManager[Maker]",
    *,
    quiet: bool,
    as_json: bool,
) -> None:
    """Sharpen many scenes and print what became of them."""
    from ksdiff_cli.output.vrt import write_vrt
    from ksdiff_cli.sharpening.batch import (
        SUMMARY,
        BatchInputs,
        Outputs,
        check_mosaic,
        read_sources,
        run_batch,
        summarise,
    )

    assert command.batch is not None
    mosaic = command.mosaic
    sources = read_sources(command.batch, workflow.options.sensor, folder)
    suffix = ".vrt" if workflow.options.format == "VRT" else ".tif"
    outputs = Outputs(folder, BatchInputs(sources, workflow.reads), suffix, workflow.options.overwrite)
    if mosaic:
        check_mosaic(mosaic, sources, outputs)
    try:
        with progress("batch", quiet=quiet) as report, makers as make:

            def sharpen_one(scene: "Found", target: Path, tell: "ProgressCallback") -> None:
                for line in workflow.run(scene, target, tell, make).notes:
                    note(f"Note: {target}: {line}", quiet=quiet)

            def fail(outcome: "Outcome") -> None:
                note(f"Failed: {outcome.output}: {outcome.error}", quiet=quiet)

            check = getattr(make, "check", lambda: None)
            outcomes = run_batch(sources, outputs, sharpen_one, check, report, fail)
    except KeyboardInterrupt:
        note("interrupted: the same command goes on from here", quiet=quiet)
        raise
    summary = summarise(outcomes)
    if as_json:
        print_json(summary)
    else:
        _print_outcomes(outcomes, folder / SUMMARY)
    counts = ", ".join(f"{summary[status]} {status}" for status in ("made", "kept", "failed"))
    note(f"{folder / SUMMARY}: {counts}", quiet=quiet)
    there = [Path(one.output) for one in outcomes if one.status != "failed"]
    if mosaic and mosaic.resolve() in {path.resolve() for path in there}:  # of a product with several scenes
        raise KsdiffError(f"{mosaic}: is one of the outputs; choose another name for the mosaic")
    if mosaic and there:
        write_vrt(mosaic, there)
        note(f"{mosaic}: {len(there)} outputs as one", quiet=quiet)
    if summary["failed"]:
        raise KsdiffError(f"{summary['failed']} of {len(outcomes)} scenes failed; the same command tries them again")


def _print_outcomes(outcomes: "Sequence[Outcome]", summary: Path) -> None:
    from rich.table import Table

    table = Table("scene", "status", "output", "error")
    table.add_column("seconds", justify="right")
    shown = outcomes
    if len(outcomes) > _MOST_ROWS:  # what needs somebody is told first
        shown = sorted(outcomes, key=lambda one: one.status != "failed")[:_MOST_ROWS]
    for one in shown:
        style = "red" if one.status == "failed" else ""
        made = "" if one.status == "failed" else cell(one.output)
        table.add_row(cell(one.name), one.status, made, cell(one.error), f"{one.seconds:.1f}", style=style)
    print_table(table)
    if len(shown) < len(outcomes):
        stdout.print(f"and {len(outcomes) - len(shown)} more, see {summary}", markup=False, soft_wrap=True)


def _makers(
    command: SharpenCommand, options: SharpenOptions, tell: Callable[[str], None]
) -> "AbstractContextManager[Maker]":
    """Return who makes windows: this process, others on this machine, or those of a scheduler."""
    if command.workers or command.scheduler:
        from ksdiff_cli.sharpening.distributed import open_workers

        keys = command.tls.split(",") if command.tls else None
        return open_workers(command.workers, command.scheduler, options.device, options.threads, keys, tell)
    from ksdiff_cli.sharpening.pipeline import make_windows

    return nullcontext(make_windows)
