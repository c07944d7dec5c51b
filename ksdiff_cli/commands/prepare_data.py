"""ksdiff prepare-data: scenes in, patches for training and testing out."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from ksdiff_cli.commands import options as typed
from ksdiff_cli.commands.console import note, print_json, progress, stdout
from ksdiff_cli.options.patches import PatchOptions

if TYPE_CHECKING:
    from ksdiff_cli.patches.prepare import Forecast, Prepared


@typed.takes
def prepare_data(
    scenes: Annotated[
        list[Path],
        typed.argument(
            metavar="SCENE…",
            help="Folder with a PAN/MS pair or a product, folder of such folders, or .h5 file of gt and pan tiles.",
        ),
    ],
    options: PatchOptions,
    dry_run: Annotated[
        bool, typed.option(typed.OUTPUT, "--dry-run", help="Say what would be made, and make nothing.")
    ] = False,
    quiet: typed.Quiet = False,
    as_json: typed.Json = False,
) -> None:
    """Make training, validation and test patches from scenes by Wald's protocol.

    Example: ksdiff prepare-data scene/ -o patches

    Example: ksdiff prepare-data scene/ --dry-run
    """
    from ksdiff_cli.patches.prepare import forecast_patches, prepare_patches
    from ksdiff_cli.patches.workspace import workspace_folder

    options = replace(options, scenes=tuple(scenes))
    if dry_run:
        _print_forecast(forecast_patches(options), options.output, quiet=quiet, as_json=as_json)
        return
    try:
        with progress("prepare-data", quiet=quiet) as report:
            done = prepare_patches(options, report)
    except KeyboardInterrupt:
        if (left := workspace_folder(options.output)).exists():
            note(f"interrupted: the same command goes on from here ({left})", quiet=quiet)
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
