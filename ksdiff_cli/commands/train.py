"""ksdiff train: patches in, weights out."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from ksdiff_cli import options
from ksdiff_cli.console import note, progress

# Typed by hand so that `--help` imports no network; a test compares it with the registry.
Backbone = Literal["pannextu", "shared", "dicnn", "fusionnet", "lagnet", "pnn", "msdcnn"]


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
    accumulate: Annotated[
        int, typer.Option("--accumulate", min=1, help="Pieces in which the network sees a batch; saves memory.")
    ] = 1,
    precision: Annotated[
        Literal["auto", "fp32", "bf16", "fp16"],
        typer.Option("--precision", help="Arithmetic on a GPU; auto: bf16 where it can. A CPU computes in fp32."),
    ] = "auto",
    rate: Annotated[float, typer.Option("--rate", min=1e-7, help="Peak learning rate.")] = 1e-3,
    recipe: Annotated[
        Literal["chain", "random-t"],
        typer.Option("--recipe", help="Stage 2's diffusion: all steps with gradients, or one from a random step."),
    ] = "chain",
    warm_up: Annotated[
        float | None,
        typer.Option(
            "--warm-up",
            min=0,
            max=1,
            metavar="SHARE",
            help="Share of stage 2 that trains the diffusion alone, before the network joins. Default: 0.2",
        ),
    ] = None,
    separate: Annotated[
        bool, typer.Option("--separate", help="Leave the network as stage 1 made it (ablation); same as --warm-up 1.")
    ] = False,
    model: Annotated[
        Literal["ksdiff", "pixel-diffusion"],
        typer.Option("--model", help="pixel-diffusion: the peer KSDiff is measured against; it has no stages."),
    ] = "ksdiff",
    backbone: Annotated[Backbone, typer.Option("--backbone", help="Network that the prior modulates.")] = "pannextu",
    width: Annotated[int | None, typer.Option("--width", min=8, help="Channels of the network. Default: 48")] = None,
    universal: Annotated[
        bool,
        typer.Option(
            "--universal", help="One network for any number of bands; chosen by itself when the data's differ."
        ),
    ] = False,
    prior: Annotated[
        bool, typer.Option("--prior/--no-prior", help="With the KSDiff prior, or the plain network.")
    ] = True,
    encoder: Annotated[
        Literal["pyramid", "entangled"], typer.Option("--encoder", help="entangled: inputs concatenated (ablation).")
    ] = "pyramid",
    structure: Annotated[
        Literal["tucker", "mlp"], typer.Option("--structure", help="mlp: whole kernels from z (ablation).")
    ] = "tucker",
    rank: Annotated[str, typer.Option("--rank", help="Tucker rank: C_in,C_out,k_h,k_w.")] = "4,4,2,2",
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

    On several GPUs: torchrun --nproc-per-node=4 -m ksdiff_cli train --stage 1
    """
    if steps and epochs:
        raise typer.BadParameter("give --steps or --epochs, not both")
    if separate and warm_up is not None:
        raise typer.BadParameter("give --warm-up or --separate, not both")
    if resume and overwrite:
        raise typer.BadParameter("give --resume or --overwrite, not both")
    if model == "pixel-diffusion" and stage == "2":
        raise typer.BadParameter("pixel diffusion has no stage 2")
    own = (backbone, encoder, structure, rank, prior, separate, recipe)
    if model == "pixel-diffusion" and own != ("pannextu", "pyramid", "tucker", "4,4,2,2", True, False, "chain"):
        raise typer.BadParameter("--backbone, --prior, --encoder, --structure, --rank and --recipe go with ksdiff only")
    ranks = _parse_rank(rank)

    import torch

    from ksdiff_cli.models.config import ModelConfig
    from ksdiff_cli.models.pixel_diffusion import PixelConfig
    from ksdiff_cli.training import TrainingOptions, check_output, choose_bands, is_done, open_data, train_stage
    from ksdiff_cli.training_parallel import join_team

    if threads:
        torch.set_num_threads(threads)
    paths = tuple(data or [Path("patches")])
    files, _ = open_data(paths)
    bands = choose_bands(files, universal)
    config: ModelConfig | PixelConfig
    if model == "pixel-diffusion":
        config = PixelConfig(bands=bands, width=width or PixelConfig.width)
    else:
        config = ModelConfig(
            bands=bands,
            backbone=backbone,
            width=width or ModelConfig.width,
            prior=prior,
            encoder=encoder,
            structure=structure,
            rank=ranks,
        )
    chosen_stages: dict[str, tuple[Literal[1, 2], ...]] = {"1": (1,), "2": (2,), "all": (1, 2)}
    stages = (1,) if model == "pixel-diffusion" else chosen_stages[stage]
    with join_team(device) as team:
        quiet = quiet or not team.leads
        chosen = TrainingOptions(
            data=paths,
            run=output,
            steps=steps or (epochs * sum(map(len, files)) // batch + 1 if epochs else 1000),
            batch=batch,
            accumulate=accumulate,
            precision=precision,
            rate=rate,
            recipe=recipe,
            warm_up=1.0 if separate else 0.2 if warm_up is None else warm_up,
            time_limit=time_limit,
            validate_every=validate_every,
            init=init,
            seed=seed,
            device=str(team.device),
            config=config,
        )
        for number in stages:
            check_output(chosen, number, resume=resume, overwrite=overwrite)
        for number in stages:
            if resume and is_done(chosen, number):
                note(f"{chosen.name(number)} is done", quiet=quiet)
                done = chosen.file(number)
            else:
                with progress(chosen.name(number), quiet=quiet) as report:
                    done = train_stage(chosen, number, report, lambda line: note(line, quiet=quiet), team)
            if team.leads:
                typer.echo(done)


def _parse_rank(text: str) -> tuple[int, int, int, int]:
    parts = text.split(",")
    if len(parts) != 4 or not all(part.strip().isdecimal() and int(part) > 0 for part in parts):
        raise typer.BadParameter(f"--rank {text}: needs four whole numbers of at least 1, such as 4,4,2,2")
    first, second, third, fourth = map(int, parts)
    return first, second, third, fourth
