"""Options of training, by what they are about; None stands for what the preset says."""

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from ksdiff_cli.errors import KsdiffError
from ksdiff_cli.options import INPUTS, NETWORK, OUTPUT, RUNNING, TRAINING, Option, Options, repeated
from ksdiff_cli.options.shared import HasDevice, HasOverwrite, HasSeed, HasThreads

Stages = Literal["1", "2", "all"]
Preset = Literal["default", "paper"]
Recipe = Literal["chain", "random-t"]
Precision = Literal["auto", "fp32", "bf16", "fp16"]
Judge = Literal["SAM", "ERGAS"]
Model = Literal["ksdiff", "pixel-diffusion", "plrdiff"]
# Typed by hand so that `--help` imports no network; a test compares it with the registry.
Backbone = Literal[
    "pannextu", "unrolled", "pnn", "dicnn", "msdcnn", "pannet", "fusionnet", "dcfnet", "lagnet", "ctinn",
    "mmnet", "hfin",
]  # fmt: skip
Rank = tuple[int, int, int, int]


def read_setting(text: str) -> tuple[str, Any]:
    """Split ``name=value``; the value is TOML, or else a text as it stands.

    Raises:
        KsdiffError: there is no name or no value.
    """
    name, sign, value = text.partition("=")
    if not sign or not name.strip() or not value.strip():
        raise KsdiffError(f"--set {text}: give name=value, such as width=64 or network.steps=1000")
    try:
        return name.strip(), tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return name.strip(), value.strip()


def read_rank(text: str) -> Rank:
    """Return the four numbers of ``--rank``.

    Raises:
        KsdiffError: they are not four whole numbers from 1.
    """
    parts = text.split(",")
    if len(parts) != 4 or not all(re.fullmatch(r"\s*0*[1-9][0-9]{0,4}\s*", part) for part in parts):
        raise KsdiffError(f"--rank {text}: needs four whole numbers of at least 1, such as 4,4,2,2")
    first, second, third, fourth = map(int, parts)
    return first, second, third, fourth


@dataclass(frozen=True, kw_only=True)
class Schedule(Options):
    """Which stages are trained, how long and how."""

    stage: Annotated[
        Stages,
        Option(TRAINING, "1: encoder and network; 2: diffusion, from the run's stage 1; all: one after the other."),
    ] = "all"
    fine_tune: Annotated[
        bool,
        Option(
            TRAINING,
            "Train a whole network on, --init or the shipped one, without a stage 1. Default: both stages.",
        ),
    ] = False
    preset: Annotated[
        Preset | None,
        Option(TRAINING, "What all defaults are; paper: the paper's configuration as it reads. Default: default."),
    ] = None
    settings: Annotated[
        Mapping[str, object],
        repeated(
            TRAINING,
            "Any setting of the network or of training, over all others but options of their own; repeatable. "
            "Default: none.",
            "NAME=VALUE",
            names=("--set",),
            read=lambda texts: dict(map(read_setting, texts)),
        ),
    ] = field(default_factory=dict)
    steps: Annotated[
        int | None, Option(TRAINING, "Optimiser steps of a stage. Default: 1000; paper: 400 epochs.", min=1)
    ] = None
    epochs: Annotated[
        int | None, Option(TRAINING, "Passes over the patches, in place of --steps. Default: by steps.", min=1)
    ] = None
    time_limit: Annotated[
        float | None,
        Option(
            TRAINING,
            "Minutes a stage may take; it ends well, its learning rate decayed. Default: no limit.",
            metavar="MINUTES",
            min=0.01,
        ),
    ] = None
    batch: Annotated[
        int | None,
        Option(TRAINING, "Images a step (image-band pairs with --universal). Default: 16; paper: 32.", min=1),
    ] = None
    accumulate: Annotated[
        int | None,
        Option(TRAINING, "Pieces in which the network sees a batch; saves memory. Default: 1.", min=1),
    ] = None
    rate: Annotated[
        float | None,
        Option(
            TRAINING,
            "Peak learning rate of AdamW; cosine to zero. Default: 0.001; 0.0002 with --fine-tune.",
            min=1e-7,
            max=1,
        ),
    ] = None
    recipe: Annotated[
        Recipe | None,
        Option(
            TRAINING,
            "Stage 2's diffusion: all steps with gradients, or one from a random step. "
            "Default: chain; paper: random-t.",
        ),
    ] = None
    warm_up: Annotated[
        float | None,
        Option(
            TRAINING,
            "Share of stage 2 that trains the diffusion alone, before the network joins. Default: 0",
            metavar="SHARE",
            min=0,
            max=1,
        ),
    ] = None
    separate: Annotated[
        bool,
        Option(
            TRAINING,
            "Leave the network as stage 1 made it (ablation); same as --warm-up 1. Default: train it on.",
        ),
    ] = False


@dataclass(frozen=True, kw_only=True)
class Sources(Options):
    """What is trained on, and from."""

    data: Annotated[
        tuple[Path, ...],
        repeated(
            INPUTS,
            "Folder made by prepare-data, a folder of them, or a PanCollection train_*.h5; repeatable. "
            "Default: patches",
            "DIR | FILE.h5",
            Path,
        ),
    ] = (Path("patches"),)
    valid: Annotated[
        tuple[Path, ...],
        repeated(
            INPUTS,
            "Validation file, or folder with valid.h5; repeatable. Default: those beside the training files.",
            "DIR | FILE.h5",
            Path,
        ),
    ] = ()
    cache: Annotated[
        Path | None,
        Option(
            INPUTS,
            "Folder for compact copies (uint16) of training files over 1 GB, such as PanCollection's 5.5 GB; runs "
            "share them. Default: read the files as they are.",
            metavar="DIR",
        ),
    ] = None
    init: Annotated[
        Path | None,
        Option(
            INPUTS,
            "Weights to start from (.safetensors), shipped for the package's; their network replaces the options "
            "of it. Default: random.",
            metavar="FILE",
        ),
    ] = None
    settings_file: Annotated[
        Path | None,
        Option(
            INPUTS,
            "Settings in tables [network] and [training], and perhaps a preset; over the preset. Default: none.",
            names=("--config",),
            metavar="FILE.toml",
        ),
    ] = None


@dataclass(frozen=True, kw_only=True)
class RunFolder(Options):
    """Where a run lies."""

    output: Annotated[
        Path,
        Option(OUTPUT, "Run folder: weights, log, curves, resume state.", names=("--output", "-o"), metavar="DIR"),
    ] = Path("runs")
    resume: Annotated[
        bool, Option(OUTPUT, "Go on where a killed run of the same options stopped. Default: refuse.")
    ] = False


@dataclass(frozen=True, kw_only=True)
class Monitoring(Options):
    """What is looked at and kept on the way."""

    validate_every: Annotated[
        int | None,
        Option(
            TRAINING,
            "Steps between validations, which save the resume state. Default: 200.",
            metavar="STEPS",
            min=1,
        ),
    ] = None
    best: Annotated[
        Judge | None,
        Option(
            TRAINING,
            "Metric, over all validation images, that chooses stage1-best and stage2-best.safetensors. Default: ERGAS.",
        ),
    ] = None
    keep_every: Annotated[
        int | None,
        Option(
            TRAINING,
            "Also keep a checkpoint every so many steps, in checkpoints/. Default: the last and the best.",
            metavar="STEPS",
            min=1,
        ),
    ] = None
    tensorboard: Annotated[
        bool,
        Option(
            OUTPUT,
            "Also write the run's folder tensorboard (pip install 'ksdiff[tensorboard]'). Default: log.jsonl and "
            "curves.png.",
        ),
    ] = False


@dataclass(frozen=True, kw_only=True)
class Optimiser(Options):
    """What a step does to the weights."""

    ema: Annotated[
        float | None,
        Option(
            TRAINING,
            "Share that the averaged weights, those that are saved, keep at a step. Default: 0.998; paper: 0.999.",
            min=0,
            max=1,
        ),
    ] = None
    clip: Annotated[
        float | None,
        Option(TRAINING, "Largest norm of the gradients. Default: 0.5; paper: 0.03.", metavar="NORM", min=1e-6),
    ] = None
    weight_decay: Annotated[
        float | None,
        Option(TRAINING, "AdamW's, a share of the rate. Default: 0.0001; paper: 0.000001.", min=0, max=1),
    ] = None
    diffusion_weight: Annotated[
        float | None,
        Option(
            TRAINING,
            "Weight of stage 2's diffusion loss against the network's (eq. 10). Default: 1.",
            names=("--lambda",),
            metavar="WEIGHT",
            min=0,
            max=1e6,
        ),
    ] = None
    latent_noise: Annotated[
        float | None,
        Option(
            TRAINING,
            "Standard deviation of noise on z in stage 1: the network learns to live with stage 2's errors. "
            "Default: 0.1; paper: 0.",
            metavar="STD",
            min=0,
            max=10,
        ),
    ] = None


@dataclass(frozen=True, kw_only=True)
class Network(Options):
    """What is trained, and the arithmetic of it."""

    model: Annotated[
        Model,
        Option(
            NETWORK,
            "pixel-diffusion, plrdiff: diffusion peers that KSDiff is measured against; they have no stages.",
        ),
    ] = "ksdiff"
    backbone: Annotated[Backbone | None, Option(NETWORK, "Network that the prior modulates. Default: pannextu.")] = None
    width: Annotated[
        int | None,
        Option(
            NETWORK,
            "Channels of pannextu and unrolled, and of the diffusion peers. Default: 48; peers 32.",
            min=8,
        ),
    ] = None
    universal: Annotated[
        bool,
        Option(NETWORK, "One network for any number of bands. Default: only where the data's numbers differ."),
    ] = False
    prior: Annotated[
        bool | None,
        Option(
            NETWORK,
            "With the KSDiff prior, or the plain network. Default: with it.",
            names=("--prior/--no-prior",),
        ),
    ] = None
    encoder: Annotated[
        Literal["pyramid", "entangled"] | None,
        Option(NETWORK, "entangled: inputs concatenated (ablation). Default: pyramid."),
    ] = None
    structure: Annotated[
        Literal["tucker", "mlp"] | None,
        Option(NETWORK, "mlp: whole kernels from z (ablation). Default: tucker."),
    ] = None
    rank: Annotated[
        Rank | None,
        Option(
            NETWORK,
            "Tucker rank of the kernels, four whole numbers from 1. Default: 4,4,2,2.",
            metavar="C_IN,C_OUT,K_H,K_W",
            typed=str | None,
            read=read_rank,
        ),
    ] = None
    precision: Annotated[
        Precision | None,
        Option(RUNNING, "Arithmetic on a GPU; auto: bf16 where it can. A CPU computes in fp32. Default: auto."),
    ] = None


@dataclass(frozen=True, kw_only=True)
class TrainOptions(
    HasSeed, HasDevice, HasThreads, Network, Optimiser, Monitoring, HasOverwrite, RunFolder, Sources, Schedule
):
    """How KSDiff, or a diffusion peer, is trained; :class:`ksdiff_cli.training.settings.RunSettings` is made of it."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "stage", str(self.stage))  # Python may say 1 or 2
        super().__post_init__()
        if self.steps is not None and self.epochs is not None:
            raise KsdiffError("give --steps or --epochs, not both")
        if self.separate and self.warm_up is not None:
            raise KsdiffError("give --warm-up or --separate, not both")
        peer = self.model != "ksdiff"
        if self.fine_tune and (self.stage == "1" or self.separate or self.warm_up is not None or peer):
            raise KsdiffError("--fine-tune trains stage 2's network alone: leave out --stage 1, --warm-up, --model")
        if self.resume and self.overwrite:
            raise KsdiffError("give --resume or --overwrite, not both")
        if peer and self.stage == "2":
            raise KsdiffError(f"{self.model} has no stage 2")
        own = (self.backbone, self.encoder, self.structure, self.rank, self.prior, self.recipe, self.preset)
        if peer and (self.separate or any(each is not None for each in own)):
            raise KsdiffError(
                "--backbone, --prior, --encoder, --structure, --rank, --recipe and --preset go with ksdiff only"
            )
