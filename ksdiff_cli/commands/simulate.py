"""``ksdiff simulate``: a synthetic scene with known truth."""

from pathlib import Path
from typing import Annotated

from ksdiff_cli.commands import options
from ksdiff_cli.commands.console import note, progress


def simulate(
    output: Annotated[
        Path,
        options.option(
            options.OUTPUT,
            "--output",
            "-o",
            metavar="DIR",
            help="Folder to write pan.tif, ms.tif and truth.tif to; made if missing.",
        ),
    ],
    size: Annotated[
        int,
        options.option(
            options.SCENE, "--size", min=1, help="Side of the PAN image in pixels, a multiple of the ratio."
        ),
    ] = 1024,
    bands: Annotated[
        int | None,
        options.option(options.SCENE, "--bands", help="MS bands, 4 or 8. Default: the sensor's, else 4."),
    ] = None,
    ratio: Annotated[
        int | None,
        options.option(
            options.SCENE,
            "--ratio",
            help="PAN pixels per MS pixel along a side, 2 to 8. Default: the sensor's, else 4.",
        ),
    ] = None,
    sensor: options.SensorName = None,
    noise: Annotated[
        float,
        options.option(
            options.SCENE, "--noise", metavar="FACTOR", help="Times the usual noise of PAN and MS; 0 for none."
        ),
    ] = 1.0,
    shift: Annotated[
        tuple[float, float],
        options.option(
            options.SCENE,
            "--shift",
            metavar="ROWS COLS",
            help="Misregistration: MS pixels by which MS lies too far down and right.",
        ),
    ] = (0.0, 0.0),
    seed: options.Seed = 0,
    overwrite: options.Overwrite = False,
    quiet: options.Quiet = False,
) -> None:
    """Make a synthetic scene with known truth: PAN, MS and the MS that a perfect fusion would give.

    MTFs, bit depth and bands come from --sensor; a sensor file (my.toml) sets any of them, and what bands and PAN see.

    Example: ksdiff simulate -o scene --size 2048 --sensor WV3 --seed 1
    """
    from ksdiff_cli.simulation.files import simulate_scene

    with progress("Simulating", quiet=quiet) as report:
        scene = simulate_scene(
            output, size, bands, ratio, sensor, seed, noise=noise, shift=shift, overwrite=overwrite, progress=report
        )
    note(
        f"{output}: {scene.size} × {scene.size} PAN, {len(scene.spectra.names)} bands at 1/{scene.ratio}, "
        f"{scene.sensor.name}, {scene.world.style}, seed {scene.seed}",
        quiet=quiet,
    )
