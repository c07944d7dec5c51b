"""ksdiff train: patches in, weights out."""

import os
import re
from pathlib import Path
from typing import Annotated, Literal

import typer

from ksdiff_cli.commands import options
from ksdiff_cli.commands.console import note, progress
from ksdiff_cli.errors import KsdiffError, printable

# Typed by hand so that `--help` imports no network; a test compares it with the registry.
Backbone = Literal[
    "pannextu", "unrolled", "pnn", "dicnn", "msdcnn", "pannet", "fusionnet", "dcfnet", "lagnet", "ctinn",
    "mmnet", "hfin",
]  # fmt: skip


def train(
    stage: Annotated[
        Literal["1", "2", "all"],
        options.option(
            options.TRAINING,
            "--stage",
            help="1: encoder and network; 2: diffusion, from the run's stage 1; all: one after the other.",
        ),
    ] = "all",
    data: Annotated[
        list[Path] | None,
        options.option(
            options.INPUTS,
            "--data",
            metavar="DIR | FILE.h5",
            help="Folder made by prepare-data, a folder of them, or a PanCollection train_*.h5; repeatable. "
            "Default: patches",
        ),
    ] = None,
    valid: Annotated[
        list[Path] | None,
        options.option(
            options.INPUTS,
            "--valid",
            metavar="DIR | FILE.h5",
            help="Validation file, or folder with valid.h5; repeatable. Default: those beside the training files.",
        ),
    ] = None,
    cache: Annotated[
        Path | None,
        options.option(
            options.INPUTS,
            "--cache",
            metavar="DIR",
            help="Folder for compact copies (uint16) of training files over 1 GB, such as PanCollection's 5.5 GB; runs "
            "share them. Default: read the files as they are.",
        ),
    ] = None,
    init: Annotated[
        Path | None,
        options.option(
            options.INPUTS,
            "--init",
            metavar="FILE",
            help="Weights to start from (.safetensors), shipped for the package's; their network replaces the options "
            "of it. Default: random.",
        ),
    ] = None,
    fine_tune: Annotated[
        bool,
        options.option(
            options.TRAINING,
            "--fine-tune",
            help="Train a whole network on, --init or the shipped one, without a stage 1. Default: both stages.",
        ),
    ] = False,
    preset: Annotated[
        Literal["default", "paper"] | None,
        options.option(
            options.TRAINING,
            "--preset",
            help="What all defaults are; paper: the paper's configuration as it reads. Default: default.",
        ),
    ] = None,
    settings_file: Annotated[
        Path | None,
        options.option(
            options.INPUTS,
            "--config",
            metavar="FILE.toml",
            help="Settings in tables [network] and [training], and perhaps a preset; over the preset. Default: none.",
        ),
    ] = None,
    settings: Annotated[
        list[str] | None,
        options.option(
            options.TRAINING,
            "--set",
            metavar="NAME=VALUE",
            help="Any setting of the network or of training, over all others but options of their own; repeatable. "
            "Default: none.",
        ),
    ] = None,
    output: Annotated[
        Path,
        options.option(
            options.OUTPUT, "--output", "-o", metavar="DIR", help="Run folder: weights, log, curves, resume state."
        ),
    ] = Path("runs"),
    resume: Annotated[
        bool,
        options.option(
            options.OUTPUT, "--resume", help="Go on where a killed run of the same options stopped. Default: refuse."
        ),
    ] = False,
    overwrite: options.Overwrite = False,
    steps: Annotated[
        int | None,
        options.option(
            options.TRAINING, "--steps", min=1, help="Optimiser steps of a stage. Default: 1000; paper: 400 epochs."
        ),
    ] = None,
    epochs: Annotated[
        int | None,
        options.option(
            options.TRAINING, "--epochs", min=1, help="Passes over the patches, in place of --steps. Default: by steps."
        ),
    ] = None,
    time_limit: Annotated[
        float | None,
        options.option(
            options.TRAINING,
            "--time-limit",
            min=0.01,
            metavar="MINUTES",
            help="Minutes a stage may take; it ends well, its learning rate decayed. Default: no limit.",
        ),
    ] = None,
    batch: Annotated[
        int | None,
        options.option(
            options.TRAINING,
            "--batch",
            min=1,
            help="Images a step (image-band pairs with --universal). Default: 16; paper: 32.",
        ),
    ] = None,
    accumulate: Annotated[
        int | None,
        options.option(
            options.TRAINING,
            "--accumulate",
            min=1,
            help="Pieces in which the network sees a batch; saves memory. Default: 1.",
        ),
    ] = None,
    rate: Annotated[
        float | None,
        options.option(
            options.TRAINING,
            "--rate",
            min=1e-7,
            max=1,
            help="Peak learning rate of AdamW; cosine to zero. Default: 0.001; 0.0002 with --fine-tune.",
        ),
    ] = None,
    recipe: Annotated[
        Literal["chain", "random-t"] | None,
        options.option(
            options.TRAINING,
            "--recipe",
            help="Stage 2's diffusion: all steps with gradients, or one from a random step. "
            "Default: chain; paper: random-t.",
        ),
    ] = None,
    warm_up: Annotated[
        float | None,
        options.option(
            options.TRAINING,
            "--warm-up",
            min=0,
            max=1,
            metavar="SHARE",
            help="Share of stage 2 that trains the diffusion alone, before the network joins. Default: 0",
        ),
    ] = None,
    separate: Annotated[
        bool,
        options.option(
            options.TRAINING,
            "--separate",
            help="Leave the network as stage 1 made it (ablation); same as --warm-up 1. Default: train it on.",
        ),
    ] = False,
    validate_every: Annotated[
        int | None,
        options.option(
            options.TRAINING,
            "--validate-every",
            min=1,
            metavar="STEPS",
            help="Steps between validations, which save the resume state. Default: 200.",
        ),
    ] = None,
    best: Annotated[
        Literal["SAM", "ERGAS"] | None,
        options.option(
            options.TRAINING,
            "--best",
            help="Metric, over all validation images, that chooses stage1-best and stage2-best.safetensors. "
            "Default: ERGAS.",
        ),
    ] = None,
    keep_every: Annotated[
        int | None,
        options.option(
            options.TRAINING,
            "--keep-every",
            min=1,
            metavar="STEPS",
            help="Also keep a checkpoint every so many steps, in checkpoints/. Default: the last and the best.",
        ),
    ] = None,
    ema: Annotated[
        float | None,
        options.option(
            options.TRAINING,
            "--ema",
            min=0,
            max=1,
            help="Share that the averaged weights, those that are saved, keep at a step. Default: 0.998; paper: 0.999.",
        ),
    ] = None,
    clip: Annotated[
        float | None,
        options.option(
            options.TRAINING,
            "--clip",
            min=1e-6,
            metavar="NORM",
            help="Largest norm of the gradients. Default: 0.5; paper: 0.03.",
        ),
    ] = None,
    weight_decay: Annotated[
        float | None,
        options.option(
            options.TRAINING,
            "--weight-decay",
            min=0,
            max=1,
            help="AdamW's, a share of the rate. Default: 0.0001; paper: 0.000001.",
        ),
    ] = None,
    diffusion_weight: Annotated[
        float | None,
        options.option(
            options.TRAINING,
            "--lambda",
            min=0,
            max=1e6,
            metavar="WEIGHT",
            help="Weight of stage 2's diffusion loss against the network's (eq. 10). Default: 1.",
        ),
    ] = None,
    latent_noise: Annotated[
        float | None,
        options.option(
            options.TRAINING,
            "--latent-noise",
            min=0,
            max=10,
            metavar="STD",
            help="Standard deviation of noise on z in stage 1: the network learns to live with stage 2's errors. "
            "Default: 0.1; paper: 0.",
        ),
    ] = None,
    tensorboard: Annotated[
        bool,
        options.option(
            options.OUTPUT,
            "--tensorboard",
            help="Also write the run's folder tensorboard (pip install 'ksdiff[tensorboard]'). Default: log.jsonl and "
            "curves.png.",
        ),
    ] = False,
    model: Annotated[
        Literal["ksdiff", "pixel-diffusion", "plrdiff"],
        options.option(
            options.NETWORK,
            "--model",
            help="pixel-diffusion, plrdiff: diffusion peers that KSDiff is measured against; they have no stages.",
        ),
    ] = "ksdiff",
    backbone: Annotated[
        Backbone | None,
        options.option(options.NETWORK, "--backbone", help="Network that the prior modulates. Default: pannextu."),
    ] = None,
    width: Annotated[
        int | None,
        options.option(
            options.NETWORK,
            "--width",
            min=8,
            help="Channels of pannextu and unrolled, and of the diffusion peers. Default: 48; peers 32.",
        ),
    ] = None,
    universal: Annotated[
        bool,
        options.option(
            options.NETWORK,
            "--universal",
            help="One network for any number of bands. Default: only where the data's numbers differ.",
        ),
    ] = False,
    prior: Annotated[
        bool | None,
        options.option(
            options.NETWORK,
            "--prior/--no-prior",
            help="With the KSDiff prior, or the plain network. Default: with it.",
        ),
    ] = None,
    encoder: Annotated[
        Literal["pyramid", "entangled"] | None,
        options.option(
            options.NETWORK, "--encoder", help="entangled: inputs concatenated (ablation). Default: pyramid."
        ),
    ] = None,
    structure: Annotated[
        Literal["tucker", "mlp"] | None,
        options.option(options.NETWORK, "--structure", help="mlp: whole kernels from z (ablation). Default: tucker."),
    ] = None,
    rank: Annotated[
        str | None,
        options.option(
            options.NETWORK,
            "--rank",
            metavar="C_IN,C_OUT,K_H,K_W",
            help="Tucker rank of the kernels, four whole numbers from 1. Default: 4,4,2,2.",
        ),
    ] = None,
    precision: Annotated[
        Literal["auto", "fp32", "bf16", "fp16"] | None,
        options.option(
            options.RUNNING,
            "--precision",
            help="Arithmetic on a GPU; auto: bf16 where it can. A CPU computes in fp32. Default: auto.",
        ),
    ] = None,
    threads: options.Threads = None,
    device: options.Device = "auto",
    seed: options.Seed = 0,
    quiet: options.Quiet = False,
) -> None:
    """Train KSDiff on patches: stage 1, stage 2 or both.

    Example: ksdiff train --stage all --data patches -o runs

    Example, four GPUs: torchrun --nproc-per-node=4 -m ksdiff_cli train --stage 1
    """
    if steps and epochs:
        raise typer.BadParameter("give --steps or --epochs, not both")
    if separate and warm_up is not None:
        raise typer.BadParameter("give --warm-up or --separate, not both")
    if fine_tune and (stage == "1" or separate or warm_up is not None or model != "ksdiff"):
        raise typer.BadParameter("--fine-tune trains stage 2's network alone: leave out --stage 1, --warm-up, --model")
    if resume and overwrite:
        raise typer.BadParameter("give --resume or --overwrite, not both")
    if model != "ksdiff" and stage == "2":
        raise typer.BadParameter(f"{model} has no stage 2")
    own = (backbone, encoder, structure, rank, prior, separate or None, recipe, preset)
    if model != "ksdiff" and any(each is not None for each in own):
        raise typer.BadParameter(
            "--backbone, --prior, --encoder, --structure, --rank, --recipe and --preset go with ksdiff only"
        )
    ranks = None if rank is None else _parse_rank(rank)

    from ksdiff_cli import api_learning
    from ksdiff_cli.models.config import ModelConfig
    from ksdiff_cli.models.peers import PLRConfig
    from ksdiff_cli.models.peers.pixel_diffusion import PixelConfig
    from ksdiff_cli.training.presets import read_setting, read_settings

    kinds: dict[str, type[ModelConfig | PixelConfig]] = {"plrdiff": PLRConfig, "pixel-diffusion": PixelConfig}
    asked: dict[str, object] = {"backbone": backbone, "width": width, "prior": prior, "rank": ranks}
    asked |= {"encoder": encoder, "structure": structure}
    own_settings = {f"network.{name}": value for name, value in asked.items() if value is not None}
    asked = {"best": best, "keep_every": keep_every, "ema": ema, "clip": clip, "weight_decay": weight_decay}
    asked |= {"diffusion_weight": diffusion_weight, "latent_noise": latent_noise}
    own_settings |= {f"training.{name}": value for name, value in asked.items() if value is not None}
    try:
        single = dict(map(read_setting, settings or ()))
    except KsdiffError as error:
        raise typer.BadParameter(str(error)) from None
    in_file, from_file = read_settings(settings_file) if settings_file else (None, {})
    leads = os.environ.get("RANK", "0") == "0"  # torchrun's other processes say nothing
    quiet = quiet or not leads
    with progress("train", quiet=quiet) as report:
        made = api_learning.train(
            *(data or ()),
            valid=valid or (),
            output=output,
            stage=stage,
            config=kinds.get(model, ModelConfig)(),
            preset=preset or in_file or "default",
            settings=from_file | single | own_settings,
            universal=universal,
            steps=steps,
            epochs=epochs,
            time_limit=time_limit,
            batch=batch,
            accumulate=accumulate,
            precision=precision,
            rate=rate,
            recipe=recipe,
            warm_up=1.0 if separate else warm_up,
            validate_every=validate_every,
            init=init,
            fine_tune=fine_tune,
            cache=cache,
            tensorboard=tensorboard,
            resume=resume,
            overwrite=overwrite,
            device=device,
            seed=seed,
            threads=threads,
            progress=report,
            note=lambda line: note(line, quiet=quiet),
        )
    for path in made if leads else ():
        typer.echo(printable(str(path)))


def _parse_rank(text: str) -> tuple[int, int, int, int]:
    parts = text.split(",")
    if len(parts) != 4 or not all(re.fullmatch(r"\s*0*[1-9][0-9]{0,4}\s*", part) for part in parts):
        raise typer.BadParameter(f"--rank {text}: needs four whole numbers of at least 1, such as 4,4,2,2")
    first, second, third, fourth = map(int, parts)
    return first, second, third, fourth
