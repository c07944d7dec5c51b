"""One stage of training, step by step: losses, optimiser, averaged weights, validation, resume state."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from ksdiff_cli.dataset import Batch, PatchFile, TrainingBatches
from ksdiff_cli.errors import KsdiffError
from ksdiff_cli.models.checkpoint import load_model
from ksdiff_cli.models.config import ModelConfig
from ksdiff_cli.models.ksdiff import Inputs, KSDiff, Stage, diffusion_loss, regression_loss


@dataclass(frozen=True)
class TrainingOptions:
    """What a run is made of; with the data and the seed it determines the weights."""

    data: tuple[Path, ...]
    """Folders with train.h5 and valid.h5, folders of such folders, or training files (PanCollection's train_*.h5)."""
    run: Path
    """Folder for stage1.safetensors, stage2.safetensors, log.jsonl and the resume state."""
    steps: int = 1000
    """Optimiser steps of a stage."""
    batch: int = 16
    """Images a step; for a network shared by all bands, image-band pairs."""
    rate: float = 1e-3
    """Peak learning rate of AdamW; cosine to zero."""
    weight_decay: float = 1e-4
    ema: float = 0.998
    """Decay of the averaged weights, the ones that are saved."""
    clip: float = 0.5
    """Largest gradient norm."""
    warm_up: float = 0.2
    """Share of stage 2 that trains PLFE2 and the denoiser on the latent loss alone, before the network joins."""
    latent_noise: float = 0.1
    """Noise on z in stage 1: the network learns to live with the prediction error of stage 2."""
    gain: float = 0.2
    """Largest change of the logarithm of an image's brightness against its scene's statistics (augmentation)."""
    diffusion_weight: float = 1.0
    """Weight of the diffusion term against the regression term (eq. 10 has 1)."""
    validate_every: int = 200
    """Steps between validations, which also save the resume state."""
    time_limit: float | None = None
    """Minutes after which the stage ends well, its learning rate fully decayed."""
    init: Path | None = None
    """Weights to start from instead of random ones; their configuration replaces ``config``."""
    seed: int = 0
    device: str = "cpu"
    config: ModelConfig = field(default_factory=ModelConfig)

    def files(self, stage: Stage) -> tuple[Path, Path]:
        """Return where a stage's weights and its resume state go."""
        return self.run / f"stage{stage}.safetensors", self.run / f"stage{stage}.state"

    def plain(self) -> dict[str, Any]:
        """Return what determines the weights, as JSON values: everything but where they are written."""
        values = asdict(self)
        values["data"] = [path.as_posix() for path in self.data]
        values["init"] = self.init and self.init.as_posix()
        del values["run"]
        return json.loads(json.dumps(values))  # type: ignore[no-any-return]


class Run:
    """Everything that changes while a stage trains. Step k is a function of the seed and k, hence resuming is exact."""

    def __init__(self, options: TrainingOptions, stage: Stage, train: list[PatchFile]) -> None:
        """Build the model of the stage, from given weights or stage 1's where there are some, and its optimiser."""
        self.options, self.stage = options, stage
        self.step, self.elapsed = 0, 0.0
        torch.manual_seed(options.seed)
        self.device = torch.device(options.device)
        self.target: KSDiff | None = None
        if stage == 2:
            self.target = _load_stage1(options).to(self.device).eval().requires_grad_(False)
        sources = [source for source in (_load_init(options, train), self.target) if source is not None]
        config = sources[-1].config if sources else options.config
        self.model = KSDiff(config, stage).to(self.device)
        for source in sources:  # the parts that both have; in stage 2 the network is stage 1's
            known = source.state_dict()
            self.model.load_state_dict({name: known.get(name, own) for name, own in self.model.state_dict().items()})
        self.average = AveragedModel(self.model, multi_avg_fn=_moving_average(options.ema))
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=options.rate, weight_decay=options.weight_decay, betas=(0.9, 0.99)
        )
        bands = max(file.bands for file in train)
        images = options.batch if config.bands is not None else max(2, 2 * options.batch // bands)
        self.batches = TrainingBatches(train, images, options.seed + stage, gain=options.gain)

    @property
    def part(self) -> float:
        """Share of the stage that is done, by steps or by time, whichever is further."""
        limit = self.options.time_limit
        return max(self.step / self.options.steps, self.elapsed / (60 * limit) if limit else 0.0)

    @property
    def finished(self) -> bool:
        """Whether the stage is over."""
        return self.part >= 1

    def averaged(self) -> KSDiff:
        """Return the model with the averaged weights."""
        module = self.average.module
        assert isinstance(module, KSDiff)
        return module

    def advance(self) -> dict[str, float]:
        """Take one optimiser step and return its losses."""
        random = torch.Generator().manual_seed((self.options.seed << 40) + (self.stage << 36) + self.step)
        rate = 0.5 * self.options.rate * (1 + torch.cos(torch.tensor(torch.pi * min(1.0, self.part))).item())
        warm = min(1.0, (self.step + 1) / 50)  # Adam's first steps are large in every direction
        for group in self.optimizer.param_groups:
            group["lr"] = rate * warm
        self.model.train()
        inputs = self.inputs(self.model, self.batches.batch(self.step), random)
        losses = self.losses(inputs, random)
        self.optimizer.zero_grad(set_to_none=True)
        losses["loss"].backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.model.parameters(), self.options.clip)
        self.optimizer.step()
        self.average.update_parameters(self.model)
        self.step += 1
        return {name: round(value.item(), 6) for name, value in losses.items()}

    def inputs(self, model: KSDiff, batch: Batch, random: torch.Generator | None) -> Inputs:
        """Standardise a batch; keep ``options.batch`` random image-band pairs where all bands share the network."""
        moved = batch.to(self.device)
        inputs = model.prepare(moved.pan, moved.ms_up, moved.statistics, moved.ratio, moved.gt)
        if random is not None and inputs.M.shape[0] > self.options.batch:
            inputs = inputs.rows(torch.randperm(inputs.M.shape[0], generator=random)[: self.options.batch])
        return inputs

    def losses(self, inputs: Inputs, random: torch.Generator) -> dict[str, Tensor]:
        """Return the stage's loss (eq. 4 or eq. 10) and its parts."""
        model = self.model
        if not model.config.prior:
            return {"loss": regression_loss(inputs, model(inputs, None))}
        if self.target is None:
            z = model.truth_latent(inputs)
            noise = torch.randn(z.shape, generator=random).to(z)
            return {"loss": regression_loss(inputs, model(inputs, z + self.options.latent_noise * noise))}
        z_0 = self.target.truth_latent(inputs)
        noise = torch.randn(z_0.shape, generator=random).to(z_0)
        last = torch.full((z_0.shape[0],), model.config.steps, device=z_0.device)
        predicted = model.sample(inputs, model.diffusion(z_0, last, noise))
        diffusion = diffusion_loss(z_0, predicted)
        if self.part < self.options.warm_up:
            return {"loss": diffusion, "diffusion": diffusion}
        regression = regression_loss(inputs, model(inputs, predicted))
        total = self.options.diffusion_weight * diffusion + regression
        return {"loss": total, "diffusion": diffusion, "regression": regression}

    @torch.no_grad()
    def validate(self, files: list[PatchFile]) -> dict[str, float]:
        """Measure the averaged weights on unseen patches, and whether the prior is alive.

        Returns:
            ``valid``: L1 in standardised units; ``shuffle_cost``: share by which it grows when every entry gets the z
            of another one, from another file if there are several; ``z_spread``: standard deviation of the token mean
            of z between entries.
        """
        model = self.averaged().eval()
        batches = [self.inputs(model, batch, None) for batch in _validation_batches(files)]
        if not batches:
            return {}
        latents = [self._validation_latent(model, inputs) for inputs in batches]
        valid = _mean_loss(model, batches, latents)
        facts = {"valid": round(valid, 6)}
        known = [z for z in latents if z is not None]
        if known:
            every = torch.cat(known)
            others = torch.split(every.roll(max(1, len(every) // 2), 0), [len(z) for z in known])
            facts["shuffle_cost"] = round(_mean_loss(model, batches, list(others)) / valid - 1, 5)
            facts["z_spread"] = round(every.mean(1).std(0).mean().item(), 5)
        return facts

    def _validation_latent(self, model: KSDiff, inputs: Inputs) -> Tensor | None:
        if not model.config.prior:
            return None
        if self.stage == 1:
            return model.truth_latent(inputs)
        return model.sample(inputs, model.noise().to(inputs.P))

    def save(self, path: Path) -> None:
        """Write the resume state beside the target, then rename."""
        partial = path.with_suffix(".partial")
        state = {
            "step": self.step,
            "elapsed": self.elapsed,
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "options": json.dumps(self.options.plain(), sort_keys=True),
        }
        torch.save(state, partial)
        partial.replace(path)

    def restore(self, path: Path) -> None:
        """Read a resume state.

        Raises:
            KsdiffError: the state is damaged or comes from a run with other options.
        """
        try:
            state = torch.load(path, map_location=self.device, weights_only=True)
        except Exception as error:  # torch names no class for a damaged file
            reason = str(error).splitlines()[0]
            raise KsdiffError(
                f"{path}: the resume state cannot be read ({reason}); start anew with --overwrite"
            ) from None
        was, now = json.loads(state["options"]), self.options.plain()
        if changed := sorted(key for key in now if was.get(key) != now[key] and key not in ("device", "time_limit")):
            raise KsdiffError(
                f"{path}: was begun with other values of {', '.join(changed)}; resume with the same options"
            )
        self.step, self.elapsed = state["step"], state["elapsed"]
        self.model.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])


def _mean_loss(model: KSDiff, batches: list[Inputs], latents: Sequence[Tensor | None]) -> float:
    losses = [regression_loss(inputs, model(inputs, z)).item() for inputs, z in zip(batches, latents, strict=True)]
    return sum(losses) / len(losses)


def _moving_average(decay: float) -> Callable[[Any, Any, Any], None]:
    """Exponential moving average whose memory is short at first, so that a short run does not end at its start."""

    def update(averaged: Any, current: Any, count: Any) -> None:
        step = int(count)
        torch._foreach_lerp_(averaged, current, 1 - min(decay, (1 + step) / (10 + step)))

    return update


def _validation_batches(files: list[PatchFile], images: int = 12, most: int = 24) -> Iterator[Batch]:
    """The first ``most`` patches of every file; a fixed set, so that values compare along a run."""
    for file in files:
        count = min(len(file), most)
        for start in range(0, count, images):
            yield file.batch(range(start, min(start + images, count)))


def _load_stage1(options: TrainingOptions) -> KSDiff:
    path, _ = options.files(1)
    if not path.exists():
        raise KsdiffError(f"{path}: stage 2 starts from stage 1, which is not there; run: ksdiff train --stage 1")
    return load_model(path)[0]


def _load_init(options: TrainingOptions, train: list[PatchFile]) -> KSDiff | None:
    if options.init is None:
        return None
    source = load_model(options.init)[0]
    for file in train:
        source.check(file.bands, file.ratio)
    return source
