"""ksdiff export: a network with a scene's kernels folded in, for ONNX runtimes."""

from pathlib import Path
from typing import Annotated

import typer

from ksdiff_cli.commands import options as typed
from ksdiff_cli.commands.console import note, progress
from ksdiff_cli.options.exporting import ExportOptions


@typed.takes
def export(
    checkpoint: Annotated[
        str,
        typed.argument(metavar="CHECKPOINT | shipped", help="Weights (.safetensors), or shipped for the package's."),
    ],
    output: Annotated[
        Path,
        typed.option(
            typed.OUTPUT,
            "--output",
            "-o",
            metavar="OUT.onnx",
            help="File to write; a .json of that name beside it says what a runtime must know.",
        ),
    ],
    scene: Annotated[
        list[str],
        typed.option(
            typed.INPUTS,
            "--scene",
            metavar="PAN, MS… | SCENE",
            help="The scene whose kernels, statistics and cameras are folded in: its folder or archive; or PAN, then "
            "MS, with --scene before each.",
        ),
    ],
    options: ExportOptions,
    quiet: typed.Quiet = False,
) -> None:
    """Write the network as it sharpens one scene as ONNX: PAN and MS in, sharp MS out, of any height and width.

    Example: ksdiff export shipped -o scene.onnx --scene scene/

    Example: ksdiff export runs/stage2.safetensors -o scene.onnx --scene pan.tif --scene ms.tif
    """
    if not scene:
        raise typer.BadParameter("--scene names the scene whose kernels are folded in")
    from ksdiff_cli.sharpening.export import export_scene

    weights = None if checkpoint == "shipped" else Path(checkpoint)
    with progress("export", quiet=quiet) as report:
        made = export_scene(scene, output, weights, options, report)
    for line in made.notes:
        note(f"Note: {line}", quiet=quiet)
    note(f"{made.output}: {made.output.stat().st_size / 1e6:.1f} MB; {made.facts} says how to use it", quiet=quiet)
