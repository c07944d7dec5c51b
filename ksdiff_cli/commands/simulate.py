"""``ksdiff simulate``: a synthetic scene with known truth."""

from pathlib import Path
from typing import Annotated

from ksdiff_cli.commands import options as typed
from ksdiff_cli.commands.console import note, progress
from ksdiff_cli.options.patches import SimulateOptions


@typed.takes
def simulate(
    output: Annotated[
        Path,
        typed.option(
            typed.OUTPUT,
            "--output",
            "-o",
            metavar="DIR",
            help="Folder to write pan.tif, ms.tif and truth.tif to; made if missing.",
        ),
    ],
    options: SimulateOptions,
    quiet: typed.Quiet = False,
) -> None:
    """Make a synthetic scene with known truth: PAN, MS and the MS that a perfect fusion would give.

    MTFs, bit depth and bands come from --sensor; a sensor file (my.toml) sets any of them, and what bands and PAN see.

    Example: ksdiff simulate -o scene --size 2048 --sensor WV3 --seed 1
    """
    from ksdiff_cli.simulation.files import simulate_scene

    with progress("Simulating", quiet=quiet) as report:
        scene = simulate_scene(output, options=options, progress=report)
    note(
        f"{output}: {scene.size} × {scene.size} PAN, {len(scene.spectra.names)} bands at 1/{scene.ratio}, "
        f"{scene.sensor.name}, {scene.world.style}, seed {scene.seed}",
        quiet=quiet,
    )
