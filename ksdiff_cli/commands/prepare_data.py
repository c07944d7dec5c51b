"""ksdiff prepare-data: scenes in, patches for training and testing out."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from ksdiff_cli.commands import options
from ksdiff_cli.commands.console import note, print_json, progress, stdout

if TYPE_CHECKING:
    from ksdiff_cli.patches.prepare import Forecast, Prepared


def prepare_data(
    scenes: Annotated[
        list[Path],
        options.argument(
            metavar="SCENE…",
            help="Folder with a PAN/MS pair or a product, folder of such folders, or .h5 file of gt and pan tiles.",
        ),
    ],
    output: Annotated[
        Path,
        options.option(
            options.OUTPUT,
            "--output",
            "-o",
            metavar="DIR",
            help="Folder for train.h5, valid.h5, test.h5, full.h5 and quicklook.png.",
        ),
    ] = Path("patches"),
    patch: Annotated[
        int,
        options.option(options.PATCHES, "--patch", min=8, help="Side of a training patch in MS pixels."),
    ] = 64,
    ratio: Annotated[
        int | None,
        options.option(
            options.PATCHES,
            "--ratio",
            min=2,
            help="Degrade by this, PAN pixels per MS pixel. Default: the scene's own ratio (.h5 tiles: 4).",
        ),
    ] = None,
    pan_mtf: Annotated[
        float | None,
        options.option(
            options.PATCHES,
            "--pan-mtf",
            min=0.01,
            max=0.99,
            help="MTF of the reduced PAN at Nyquist, a share. Default: the sensor's.",
        ),
    ] = None,
    geometry: Annotated[
        Literal["area", "toolbox"],
        options.option(
            options.PATCHES,
            "--geometry",
            help="Reduced pixels by area, as on the ground, or on 4k+2, as in PanCollection.",
        ),
    ] = "area",
    max_cloud: Annotated[
        float,
        options.option(
            options.PATCHES,
            "--max-cloud",
            min=0,
            max=100,
            metavar="PERCENT",
            help="Leave out patches with more cloud or shadow than this share, in percent.",
        ),
    ] = 5.0,
    max_saturated: Annotated[
        float,
        options.option(
            options.PATCHES,
            "--max-saturated",
            min=0,
            max=100,
            metavar="PERCENT",
            help="Leave out patches with more saturated pixels than this share, in percent.",
        ),
    ] = 5.0,
    sensor: options.SensorName = None,
    src_nodata: options.SrcNodata = None,
    warp: options.Warp = False,
    register: options.Register = False,
    no_registration_check: options.NoRegistrationCheck = False,
    seed: options.Seed = 0,
    dry_run: Annotated[
        bool, options.option(options.OUTPUT, "--dry-run", help="Say what would be made, and make nothing.")
    ] = False,
    no_resume: Annotated[
        bool,
        options.option(
            options.OUTPUT, "--no-resume", help="Start anew. Default: go on where an interrupted run stopped."
        ),
    ] = False,
    overwrite: options.Overwrite = False,
    quiet: options.Quiet = False,
    as_json: options.Json = False,
) -> None:
    """Make training, validation and test patches from scenes by Wald's protocol.

    Example: ksdiff prepare-data scene/ -o patches

    Example: ksdiff prepare-data scene/ --dry-run
    """
    if register and no_registration_check:
        raise typer.BadParameter("--register measures the shift: leave out --no-registration-check")

    from ksdiff_cli.patches.plan import PatchOptions
    from ksdiff_cli.patches.prepare import forecast_patches, prepare_patches
    from ksdiff_cli.patches.workspace import workspace_folder

    chosen = PatchOptions(
        tuple(scenes),
        output,
        patch=patch,
        sensor=sensor,
        ratio=ratio,
        pan_mtf=pan_mtf,
        geometry=geometry,
        max_cloud=max_cloud,
        max_saturated=max_saturated,
        warp=warp,
        register=register,
        check_registration=not no_registration_check,
        nodata=options.read_nodata(src_nodata),
        seed=seed,
    )
    if dry_run:
        _print_forecast(forecast_patches(chosen, overwrite=overwrite), output, quiet=quiet, as_json=as_json)
        return
    try:
        with progress("prepare-data", quiet=quiet) as report:
            done = prepare_patches(chosen, overwrite=overwrite, resume=not no_resume, progress=report)
    except KeyboardInterrupt:
        if workspace_folder(output).exists():
            note(f"interrupted: the same command goes on from here ({workspace_folder(output)})", quiet=quiet)
        raise
    _print_result(done, quiet=quiet, as_json=as_json)


def _print_result(done: "Prepared", *, quiet: bool, as_json: bool) -> None:
    for line in done.notes:
        note(line, quiet=quiet)
    reasons: dict[str, int] = {}
    for counts in done.left_out.values():
        for reason, count in counts.items():
            reasons[reason] = reasons.get(reason, 0) + count
    if any(reasons.values()):
        told = ", ".join(f"{count} {reason}" for reason, count in reasons.items() if count)
        note(f"{sum(reasons.values())} windows were left out: {told}", quiet=quiet)
    if as_json:
        print_json(
            {
                "output": str(done.output),
                "scenes": done.scenes,
                "bands": done.bands,
                "ratio": done.ratio,
                "images": done.counts,
                "side": done.sides,
                "left_out": done.left_out,
            }
        )
        return
    parts = [f"{count} {name} ({done.sides[name]} px)" for name, count in done.counts.items() if count]
    stdout.print(
        f"{done.output}: {', '.join(parts)} from {len(done.scenes)} scene(s), {done.bands} bands, ratio {done.ratio}",
        markup=False,
        soft_wrap=True,
    )


def _print_forecast(found: "Forecast", output: Path, *, quiet: bool, as_json: bool) -> None:
    for line in found.notes:
        note(line, quiet=quiet)
    if as_json:
        from dataclasses import asdict

        print_json({"output": str(output), "dry_run": True, **asdict(found)})
        return
    lines = []
    for scene in found.scenes:
        size = f"{scene.shape[1]} x {scene.shape[0]} MS pixels"
        size = f"{scene.images} tiles of {size}" if scene.images > 1 else size
        lines.append(f"{scene.name}: {scene.sensor}, {scene.bands} bands, ratio {found.ratio}, {size}")
        lines += [
            f"  {name}: {count} patches of {found.sides[name]} px in {scene.blocks[name]} blocks"
            for name, count in scene.windows.items()
            if count
        ]
    total = sum(found.bytes.values()) / 1e6
    lines.append(
        f"{output}: would hold up to {total:.0f} MB before compression; patches that touch nodata, clouds or saturated "
        "pixels are found, and left out, only when they are made; nothing was written"
    )
    for line in lines:
        stdout.print(line, markup=False, soft_wrap=True)
