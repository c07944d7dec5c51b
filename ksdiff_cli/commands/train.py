"""ksdiff train: patches in, weights out."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from ksdiff_cli import options
from ksdiff_cli.console import note, progress


def train(
    stage: Annotated[
        Literal["1", "2", "all"], typer.Option("--stage", help="1: encoder and network; 2: diffusion; all: both.")
    ] = "all",
    data: Annotated[
        list[Path] | None,
        typer.Option(
            "--data",
            help="Folder made by prepare-data, a folder of them, or a PanCollection train_*.h5; repeatable. "
            "Default: patches",
        ),
    ] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="Run folder: weights, log, resume state.")] = Path(
        "runs"
    ),
    steps: Annotated[
        int | None, typer.Option("--steps", min=1, help="Optimiser steps of a stage. Default: 1000")
    ] = None,
    epochs: Annotated[
        int | None, typer.Option("--epochs", min=1, help="Passes over the patches, instead of --steps.")
    ] = None,
    time_limit: Annotated[
        float | None, typer.Option("--time-limit", min=0.01, help="Minutes a stage may take; it ends well.")
    ] = None,
    batch: Annotated[
        int, typer.Option("--batch", min=1, help="Images a step (image-band pairs with --universal).")
    ] = 16,
    rate: Annotated[float, typer.Option("--rate", min=1e-7, help="Peak learning rate.")] = 1e-3,
    width: Annotated[int, typer.Option("--width", min=8, help="Channels of the network.")] = 48,
    universal: Annotated[
        bool,
        typer.Option(
            "--universal", help="One network for any number of bands; chosen by itself when the data's differ."
        ),
    ] = False,
    prior: Annotated[
        bool, typer.Option("--prior/--no-prior", help="With the KSDiff prior, or the plain network.")
    ] = True,
    validate_every: Annotated[
        int, typer.Option("--validate-every", min=1, help="Steps between validations, which save the resume state.")
    ] = 200,
    init: Annotated[
        Path | None, typer.Option("--init", help="Weights to start from (.safetensors), instead of random ones.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on where a killed run of the same options stopped.")
    ] = False,
    threads: Annotated[int | None, typer.Option("--threads", min=1, help="CPU threads. Default: all.")] = None,
    overwrite: options.Overwrite = False,
    device: options.Device = "auto",
    seed: options.Seed = 0,
    quiet: options.Quiet = False,
) -> None:
    """Train KSDiff on patches: stage 1, stage 2 or both.

    Example: ksdiff prepare-data scene/ && ksdiff train --stage 1 && ksdiff train --stage 2
    """
    import torch

    from ksdiff_cli.devices import pick_device
    from ksdiff_cli.models.config import ModelConfig
    from ksdiff_cli.training import TrainingOptions, check_output, choose_bands, open_data, train_stage

    if steps and epochs:
        raise typer.BadParameter("give --steps or --epochs, not both")
    if threads:
        torch.set_num_threads(threads)
    paths = tuple(data or [Path("patches")])
    files, _ = open_data(paths)
    chosen = TrainingOptions(
        data=paths,
        run=output,
        steps=steps or (epochs * sum(map(len, files)) // batch + 1 if epochs else 1000),
        batch=batch,
        rate=rate,
        time_limit=time_limit,
        validate_every=validate_every,
        init=init,
        seed=seed,
        device=str(pick_device(device)),
        config=ModelConfig(bands=choose_bands(files, universal), width=width, prior=prior),
    )
    stages: tuple[Literal[1, 2], ...] = {"1": (1,), "2": (2,), "all": (1, 2)}[stage]  # type: ignore[assignment]
    for number in stages:
        check_output(chosen, number, resume=resume, overwrite=overwrite)
    for number in stages:
        with progress(f"stage {number}", quiet=quiet) as report:
            done = train_stage(chosen, number, report, lambda line: note(line, quiet=quiet))
        typer.echo(done)
