"""ksdiff sharpen: PAN and MS in, sharpened GeoTIFF out."""

import re
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeVar

import typer

from ksdiff_cli.commands import options
from ksdiff_cli.commands.console import cell, note, print_json, print_table, progress, stdout
from ksdiff_cli.errors import KsdiffError

if TYPE_CHECKING:
    from ksdiff_cli.progress import ProgressCallback
    from ksdiff_cli.raster.pair import Scene
    from ksdiff_cli.sharpening.adaptation import Adaptation
    from ksdiff_cli.sharpening.batch import Outcome
    from ksdiff_cli.sharpening.engine import Sharpened
    from ksdiff_cli.sharpening.pipeline import Maker
    from ksdiff_cli.sharpening.uncertainty import Uncertainty
    from ksdiff_cli.sharpening.workflow import Workflow

_Number = TypeVar("_Number", int, float)


def sharpen(
    output: Annotated[
        Path,
        options.option(
            options.OUTPUT,
            "--output",
            "-o",
            metavar="OUT.tif",
            help="Raster to write, .tif (.vrt for -f VRT); with --batch a folder.",
        ),
    ],
    inputs: Annotated[
        list[str] | None,
        options.argument(
            metavar="PAN MS… | SCENE",
            help="PAN and MS rasters (MS may be several files), or a scene's folder or archive.",
        ),
    ] = None,
    method: Annotated[
        options.MethodName,
        options.option(
            options.METHOD, "--method", help="ksdiff: the network; exp: interpolation only; or a classical method."
        ),
    ] = "ksdiff",
    checkpoint: options.Checkpoint = None,
    adapt: Annotated[
        float | None,
        options.option(
            options.METHOD,
            "--adapt",
            min=0.01,
            metavar="MINUTES",
            help="Fine-tune the network on the scene itself first, so many minutes; the weights are kept beside the "
            "output. Default: do not.",
        ),
    ] = None,
    sharpness: options.Sharpness = None,
    consistent: options.Consistent = False,
    mtf: options.Mtf = None,
    uncertainty: options.UncertaintyFile = None,
    draws: options.Draws = 8,
    bidx: Annotated[
        list[str] | None,
        options.option(
            options.INPUTS,
            "--bidx",
            "-b",
            metavar="BAND,…",
            help="MS bands to sharpen, by number from 1 or by name, in this order: -b 3,2,1 or -b red -b green. "
            "Default: all.",
        ),
    ] = None,
    sensor: options.SensorName = None,
    src_nodata: options.SrcNodata = None,
    warp: options.Warp = False,
    tile: Annotated[
        int | None,
        options.option(
            options.CUTTING,
            "--tile",
            help="Side of a window in PAN pixels, a multiple of 16 from 64 up. Default: 1280, less if memory is short.",
        ),
    ] = None,
    memory: Annotated[
        float | None,
        options.option(
            options.CUTTING, "--memory", metavar="GB", help="What the whole process may take, in GB. Default: 2."
        ),
    ] = None,
    no_resume: Annotated[
        bool,
        options.option(
            options.CUTTING, "--no-resume", help="Discard what an interrupted run left. Default: go on with it."
        ),
    ] = False,
    seam_report: Annotated[
        bool,
        options.option(
            options.CUTTING, "--seam-report", help="Say whether window borders show: 1 means that none does."
        ),
    ] = False,
    dtype: Annotated[
        Literal["uint8", "uint16", "int16", "uint32", "int32", "float32", "float64"] | None,
        options.option(
            options.OUTPUT, "--dtype", "-t", help="Data type of the output, rounded and clipped. Default: that of MS."
        ),
    ] = None,
    co: Annotated[
        list[str] | None,
        options.option(
            options.OUTPUT,
            "--co",
            metavar="NAME=VALUE",
            help="GDAL creation option, such as COMPRESS=LZW; may be repeated. Default: tiled, lossless compression.",
        ),
    ] = None,
    dst_nodata: options.DstNodata = None,
    format: options.Format = "GTiff",
    window: options.Window = None,
    bbox: options.Bbox = None,
    bbox_crs: options.BboxCrs = "",
    quicklook: options.Quicklook = None,
    threads: options.Threads = None,
    workers: options.Workers = None,
    scheduler: options.Scheduler = None,
    tls: options.Tls = None,
    batch: options.Batch = None,
    mosaic: options.Mosaic = None,
    register: options.Register = False,
    no_registration_check: options.NoRegistrationCheck = False,
    device: options.Device = "auto",
    seed: options.Seed = 0,
    overwrite: options.Overwrite = False,
    quiet: options.Quiet = False,
    as_json: options.Json = False,
) -> None:
    """Sharpen a whole scene: MS in PAN's resolution, on PAN's grid, with the data type and metadata of MS.

    Example: ksdiff sharpen pan.tif ms.tif -o out.tif

    Example: ksdiff sharpen --batch scenes.csv -o sharpened
    """
    inputs = inputs or []
    if batch is None and not inputs:
        raise typer.BadParameter("name PAN and MS, or a scene's folder; or many scenes with --batch")
    if batch is not None and (inputs or quicklook or window or uncertainty):
        raise typer.BadParameter(
            "--batch names many scenes: leave out PAN, MS, SCENE, --quicklook, --window and --uncertainty"
        )
    if as_json and batch is None:
        raise typer.BadParameter("--json goes with --batch")
    if mosaic and (batch is None or mosaic.suffix.lower() != ".vrt"):
        raise typer.BadParameter("--mosaic names a .vrt, and goes with --batch")
    from ksdiff_cli.checks import check_method

    try:
        given = {
            "--checkpoint": checkpoint,
            "--adapt": adapt,
            "--uncertainty": uncertainty,
            "--sharpness": sharpness,
        }
        check_method(method, given, "--method")
    except KsdiffError as error:
        raise typer.BadParameter(str(error)) from None
    if register and no_registration_check:
        raise typer.BadParameter("--register measures the shift: leave out --no-registration-check")
    if bbox_crs and not bbox:
        raise typer.BadParameter("--bbox-crs goes with --bbox")
    if window and bbox:
        raise typer.BadParameter("--window and --bbox both choose a part: leave one out")
    if workers and scheduler:
        raise typer.BadParameter("--workers starts processes here, --scheduler uses those elsewhere: leave one out")
    if tls and not (workers or scheduler):
        raise typer.BadParameter("--tls goes with --workers or --scheduler")
    from ksdiff_cli.process import keep_freed_memory, wait_quietly

    keep_freed_memory()
    wait_quietly()  # before torch is loaded
    from ksdiff_cli.fusers.classical import make_fuser
    from ksdiff_cli.products import find_scene
    from ksdiff_cli.sharpening.engine import SharpenOptions, job_folder
    from ksdiff_cli.sharpening.workflow import Workflow

    workflow = Workflow(
        # a client may have no GPU, though its workers have
        make_fuser(
            method,
            checkpoint,
            "auto" if scheduler and device != "cpu" else device,
            seed,
            threads,
            sharpness or 0.0,
            mtf=mtf or "sensor",
        ),
        SharpenOptions(
            tile,
            memory,
            not no_resume,
            dtype,
            format,
            _parse_creation(co or []),
            overwrite,
            threads=threads,
            nodata=dst_nodata,
            mtf=mtf or "scene",
        ),
        _parse_bands(bidx or []),
        warp,
        "skip" if no_registration_check else "correct" if register else "check",
        _parse_four(window, int, "--window"),
        _parse_four(bbox, float, "--bbox"),
        bbox_crs,
        quicklook,
        _adaptation(adapt, checkpoint, seed, device),
        consistent,
        _uncertainty(uncertainty, checkpoint, seed, device, draws),
        options.read_nodata(src_nodata),
        [str(name) for name in (checkpoint, sensor, batch, scheduler) if name is not None],
    )
    makers = _makers(workers, scheduler, device, threads, tls)
    if batch is not None:
        _run_batch(batch, sensor, output, workflow, makers, mosaic, quiet=quiet, as_json=as_json)
        return
    workflow.check(output, inputs)
    scene = find_scene(inputs, sensor)
    try:
        with progress("sharpen", quiet=quiet) as report, makers as make:
            made = workflow.run(scene, output, report, make)
    except KeyboardInterrupt:
        if job_folder(output).exists():
            note(f"interrupted: the same command goes on from here ({job_folder(output)})", quiet=quiet)
        raise
    each = " for each worker" if workers or scheduler else ""
    _tell(made, each, seam_report=seam_report, quiet=quiet)


def _tell(made: "Sharpened", each: str, *, seam_report: bool, quiet: bool) -> None:
    """Say what was made."""
    for line in made.notes:
        note(f"Note: {line}", quiet=quiet)
    height, width = made.shape
    note(f"{made.output}: {width} x {height} pixels, {made.bands} bands, {made.dtype}", quiet=quiet)
    kept = f", {made.resumed} of them kept from an interrupted run" if made.resumed else ""
    bound = f"memory up to {made.memory / 1e9:.1f} GB{each}"
    note(f"Windows of {made.tile} pixels: {made.windows}{kept}; {bound}", quiet=quiet)
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
    place: Path,
    sensor: str | None,
    folder: Path,
    workflow: "Workflow",
    makers: "AbstractContextManager[Maker]",
    mosaic: Path | None,
    *,
    quiet: bool,
    as_json: bool,
) -> None:
    """Sharpen many scenes and print what became of them."""
    from ksdiff_cli.output.vrt import write_vrt
    from ksdiff_cli.sharpening.batch import SUMMARY, BatchInputs, check_mosaic, read_sources, run_batch, summarise

    sources = read_sources(place, sensor, folder)
    suffix = ".vrt" if workflow.options.format == "VRT" else ".tif"
    reads = BatchInputs(sources, workflow.reads)
    if mosaic:
        check_mosaic(mosaic, sources, folder, suffix, reads, overwrite=workflow.options.overwrite)
    try:
        with progress("batch", quiet=quiet) as report, makers as make:

            def sharpen_one(scene: "Scene", target: Path, tell: "ProgressCallback") -> None:
                for line in workflow.run(scene, target, tell, make).notes:
                    note(f"Note: {target}: {line}", quiet=quiet)

            outcomes = run_batch(
                sources,
                folder,
                sharpen_one,
                suffix=suffix,
                overwrite=workflow.options.overwrite,
                check=getattr(make, "check", lambda: None),
                progress=report,
                reads=reads,
            )
    except KeyboardInterrupt:
        note("interrupted: the same command goes on from here", quiet=quiet)
        raise
    summary = summarise(outcomes)
    if as_json:
        print_json(summary)
    else:
        _print_outcomes(outcomes)
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


def _print_outcomes(outcomes: "Sequence[Outcome]") -> None:
    from rich.table import Table

    table = Table("scene", "status", "output", "error")
    table.add_column("seconds", justify="right")
    for one in outcomes:
        style = "red" if one.status == "failed" else ""
        made = "" if one.status == "failed" else cell(one.output)
        table.add_row(cell(one.name), one.status, made, cell(one.error), f"{one.seconds:.1f}", style=style)
    print_table(table)


def _makers(
    workers: int | None, scheduler: str | None, device: str, threads: int | None, tls: str | None
) -> "AbstractContextManager[Maker]":
    """Return who makes windows: this process, others on this machine, or those of a scheduler."""
    if workers or scheduler:
        from ksdiff_cli.sharpening.distributed import open_workers

        return open_workers(workers, scheduler, device, threads, tls.split(",") if tls else None)
    from ksdiff_cli.sharpening.pipeline import make_windows

    return nullcontext(make_windows)


def _adaptation(minutes: float | None, checkpoint: Path | None, seed: int, device: str) -> "Adaptation | None":
    if minutes is None:
        return None
    from ksdiff_cli.sharpening.adaptation import Adaptation

    return Adaptation(checkpoint, minutes, seed, device)


def _uncertainty(
    output: Path | None, checkpoint: Path | None, seed: int, device: str, draws: int
) -> "Uncertainty | None":
    if output is None:
        return None
    from ksdiff_cli.sharpening.uncertainty import Uncertainty

    return Uncertainty(output, checkpoint, seed, device, draws)


def _parse_bands(values: list[str]) -> list[int | str]:
    bands = [band.strip() for value in values for band in value.split(",")]
    if not all(bands):
        raise typer.BadParameter(f"-b takes band numbers or names such as 3,2,1 or red,green, not {','.join(values)!r}")
    return [int(band) if re.fullmatch("-?[0-9]{1,9}", band) else band for band in bands]


def _parse_creation(values: list[str]) -> dict[str, str]:
    for value in values:
        if "=" not in value:
            raise typer.BadParameter(f"--co takes NAME=VALUE, not {value}")
    return {name: rest for name, _, rest in (value.partition("=") for value in values)}


def _parse_four(
    value: str | None, kind: Callable[[str], _Number], option: str
) -> tuple[_Number, _Number, _Number, _Number] | None:
    if value is None:
        return None
    try:
        first, second, third, fourth = (kind(number) for number in value.split(","))
    except ValueError:
        what = "whole numbers row,col,height,width" if kind is int else "numbers xmin,ymin,xmax,ymax"
        raise typer.BadParameter(f"{option} takes four {what}, not {value}") from None
    return first, second, third, fourth
