"""ksdiff prepare-data: scenes in, patches for training and testing out."""

from pathlib import Path
from typing import Annotated

import typer

from ksdiff_cli import options
from ksdiff_cli.console import note, print_json, progress, stdout


def prepare_data(
    scenes: Annotated[
        list[Path],
        typer.Argument(
            metavar="SCENE…",
            help="Folder with a PAN/MS pair or a product, folder of such folders, or .h5 file of gt and pan tiles.",
            show_default=False,
        ),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for train.h5, valid.h5, test.h5 and full.h5.")
    ] = Path("patches"),
    patch: Annotated[int, typer.Option("--patch", min=8, help="Side of a training patch in MS pixels.")] = 64,
    ratio: Annotated[
        int | None,
        typer.Option("--ratio", min=2, help="Degrade by this instead of the scene's own ratio (.h5 tiles: 4)."),
    ] = None,
    pan_mtf: Annotated[
        float | None,
        typer.Option("--pan-mtf", min=0.01, max=0.99, help="MTF of the reduced PAN at Nyquist. Default: the sensor's."),
    ] = None,
    sensor: options.SensorName = None,
    seed: options.Seed = 0,
    overwrite: options.Overwrite = False,
    quiet: options.Quiet = False,
    as_json: options.Json = False,
) -> None:
    """Make training, validation and test patches from scenes by Wald's protocol.

    Example: ksdiff prepare-data scene/ -o patches
    """
    from ksdiff_cli.patches.plan import PatchOptions
    from ksdiff_cli.patches.prepare import prepare_patches

    chosen = PatchOptions(tuple(scenes), output, patch=patch, sensor=sensor, ratio=ratio, pan_mtf=pan_mtf, seed=seed)
    with progress("prepare-data", quiet=quiet) as report:
        done = prepare_patches(chosen, overwrite=overwrite, progress=report)
    for line in done.notes:
        note(line, quiet=quiet)
    if done.left_out:
        note(f"{done.left_out} windows touch nodata and were left out", quiet=quiet)
    if as_json:
        print_json(
            {
                "output": str(output),
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
        f"{output}: {', '.join(parts)} from {len(done.scenes)} scene(s), {done.bands} bands, ratio {done.ratio}",
        markup=False,
        soft_wrap=True,
    )
