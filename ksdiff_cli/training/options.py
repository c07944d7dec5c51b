"""The options of a training run."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from ksdiff_cli.checks import check_choice, check_number, check_seed
from ksdiff_cli.models.config import ModelConfig
from ksdiff_cli.models.contract import Stage
from ksdiff_cli.models.peers.pixel_diffusion import PixelConfig

Precision = Literal["auto", "fp32", "bf16", "fp16"]
Recipe = Literal["chain", "random-t"]
Judge = Literal["SAM", "ERGAS"]

KEPT = "checkpoints"
"""Folder within the run's for checkpoints that are kept."""
_FREE = ("device", "time_limit", "cache")
"""Options that a resumed run may change."""
RATE, FINE_RATE = 1e-3, 2e-4
"""Peak learning rates of AdamW: from random weights, and to fine-tune a network that is good already."""


@dataclass(frozen=True)
class TrainingOptions:
    """The options of a run; with the data and the seed they determine the weights."""

    data: tuple[Path, ...]
    """Folders with train.h5 and valid.h5, folders of such folders, or training files (PanCollection's train_*.h5)."""
    run: Path
    """Folder for stage1.safetensors, stage2.safetensors, log.jsonl and the resume state."""
    valid: tuple[Path, ...] = ()
    """Validation files; () takes those beside the training files (valid.h5, PanCollection's valid_*.h5)."""
    steps: int = 1000
    """Optimiser steps of a stage."""
    batch: int = 16
    """Images a step, over all processes; for a network shared by all bands, image-band pairs."""
    accumulate: int = 1
    """Pieces in which the network sees a batch: less memory, the same step."""
    precision: Precision = "auto"
    """Arithmetic on a GPU; auto is bf16 where the GPU has it, else fp32. A CPU always computes in fp32."""
    rate: float = RATE
    """Peak learning rate of AdamW; cosine to zero."""
    weight_decay: float = 1e-4
    ema: float = 0.998
    """Decay of the averaged weights, the ones that are saved."""
    clip: float = 0.5
    """Largest gradient norm."""
    recipe: Recipe = "chain"
    """How stage 2 trains the diffusion: all T steps from z_T with gradients, or one prediction from a random t."""
    warm_up: float = 0.0
    """Share of stage 2 that trains PLFE2 and the denoiser on the latent loss alone, before the network joins.

    With none ERGAS was lower in eight of ten pairs (CHANGELOG). 1 leaves the network as stage 1 made it: the paper's
    ablation "separate training".
    """
    latent_noise: float = 0.1
    """Noise on z in stage 1: the network learns to live with the prediction error of stage 2."""
    gain: float = 0.2
    """Largest change of the logarithm of an image's brightness against its scene's statistics (augmentation)."""
    diffusion_weight: float = 1.0
    """lambda, weight of the diffusion term against the regression term (eq. 10 has 1)."""
    validate_every: int = 200
    """Steps between validations, which also save the resume state."""
    best: Judge = "ERGAS"
    """Metric, the mean over all validation images, by which the best weights are chosen and kept."""
    keep_every: int | None = None
    """Steps between checkpoints that are kept, each with its SAM and ERGAS; None keeps the best and the last."""
    cache: Path | None = None
    """Folder for compact copies of training files that are too large for memory; None reads them as they are."""
    time_limit: float | None = None
    """Minutes after which the stage ends well, its learning rate fully decayed."""
    init: Path | None = None
    """Weights to start from instead of random ones; their configuration replaces ``config``."""
    fine_tune: bool = False
    """Whether stage 2 goes on from ``init``'s stage 2 by eq. 4 alone, through the whole diffusion chain: there is no
    stage 1, hence no z_0 to aim at."""
    seed: int = 0
    device: str = "cpu"
    config: ModelConfig | PixelConfig = field(default_factory=ModelConfig)

    def __post_init__(self) -> None:
        """Refuse what would not train, or never end."""
        for name in ("steps", "batch", "accumulate", "validate_every"):
            check_number(name, getattr(self, name), 1, whole=True)
        check_number("rate", self.rate, 0, 1, above=True)
        check_number("keep_every", self.keep_every, 1, whole=True, optional=True)
        check_choice("best", self.best, Judge)
        check_number("warm_up", self.warm_up, 0, 1)
        check_number("weight_decay", self.weight_decay, 0, 1)
        check_number("ema", self.ema, 0, 1)
        check_number("clip", self.clip, 0, above=True)
        check_number("latent_noise", self.latent_noise, 0, 10)
        check_number("gain", self.gain, 0, 2)
        check_number("diffusion_weight", self.diffusion_weight, 0, 1e6)
        check_number("time_limit", self.time_limit, 0, above=True, optional=True)
        check_choice("precision", self.precision, Precision)
        check_choice("recipe", self.recipe, Recipe)
        check_seed(self.seed)
        for each in fields(self):
            if hasattr(value := getattr(self, each.name), "item"):  # NumPy's numbers overflow, and JSON has none
                object.__setattr__(self, each.name, value.item())

    def name(self, stage: Stage) -> str:
        """Return what a stage is called in files and logs; pixel diffusion has no stages."""
        return self.config.kind if isinstance(self.config, PixelConfig) else f"stage{stage}"

    def file(self, stage: Stage) -> Path:
        """Return where a stage's weights go."""
        return self.run / f"{self.name(stage)}.safetensors"

    def best_file(self, stage: Stage) -> Path:
        """Return where the stage's best weights go."""
        return self.run / f"{self.name(stage)}-best.safetensors"

    def kept_file(self, stage: Stage, step: int) -> Path:
        """Return where the stage's weights of a step go that is kept."""
        return self.run / KEPT / f"{self.name(stage)}_{step:06d}.safetensors"

    def state(self, stage: Stage) -> Path:
        """Return where a stage's resume state lies until it is done."""
        return self.run / f"{self.name(stage)}.state"

    def plain(self) -> dict[str, Any]:
        """Return what determines the weights, as JSON values: everything but where they are written."""
        values = asdict(self)
        values["data"] = [path.as_posix() for path in self.data]
        values["valid"] = [path.as_posix() for path in self.valid]
        values["init"] = self.init and self.init.as_posix()
        del values["run"], values["cache"]
        return json.loads(json.dumps(values))  # type: ignore[no-any-return]

    def changed(self, before: Mapping[str, Any], now: Mapping[str, Any] | None = None) -> list[str]:
        """Name the options whose values were others in an earlier run; what ksdiff had no option for then is none.

        Args:
            before: its :meth:`plain` values.
            now: takes the place of this run's.
        """
        now = self.plain() if now is None else now
        return sorted(name for name in now if name in before and before[name] != now[name] and name not in _FREE)
