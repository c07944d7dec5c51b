"""One stage of training, step by step: model, optimiser, averaged weights, resume state."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from ksdiff_cli.errors import KsdiffError
from ksdiff_cli.files.writing import atomic_write, unwritable
from ksdiff_cli.models.checkpoint import MODELS, load_ksdiff, load_model, weights_hash
from ksdiff_cli.models.contract import Config, FusionModel, Inputs, ModelError, Stage
from ksdiff_cli.models.ksdiff import KSDiff
from ksdiff_cli.models.peers.pixel_diffusion import PixelConfig, PixelDiffusion
from ksdiff_cli.patches.dataset import Batch, PatchFile
from ksdiff_cli.training.batches import Ahead, TrainingBatches
from ksdiff_cli.training.losses import Draws, Objective, choose_arithmetic, train_once, train_pixels_once
from ksdiff_cli.training.parallel import ALONE, Team
from ksdiff_cli.training.settings import RunSettings


class Run:
    """Everything that changes while a stage trains. Step k is a function of the seed and k, hence resuming is exact."""

    def __init__(self, settings: RunSettings, stage: Stage, train: list[PatchFile], team: Team = ALONE) -> None:
        """Build the model of the stage, from given weights or stage 1's where there are some, and its optimiser.

        Raises:
            KsdiffError: fewer images a step than processes, no stage 1 for stage 2, nothing to fine-tune, weights of
                another kind, or patches of a size the network cannot take.
            ModelError: weights for other bands.
        """
        if settings.batch < team.size:
            raise KsdiffError(f"--batch {settings.batch}: {team.size} processes need an image each; give more")
        self.settings, self.stage, self.team = settings, stage, team
        self.step, self.elapsed = 0, 0.0
        self.losses: dict[str, float] = {}
        """Of the last step that was looked at."""
        self.rate = 0.0
        """Learning rate of the last step."""
        self.best: float | None = None
        """Least mean of the metric that the best weights are chosen by, so far."""
        torch.manual_seed(settings.seed)
        self.device = torch.device(settings.device)
        self.target: KSDiff | None = None
        self.origin: str | None = None
        """Hash of the stage 1 that stage 2 starts from."""
        self.patches = [file.identity for file in train]
        if stage == 2 and not settings.fine_tune:
            self.target, self.origin = _load_stage1(settings)
            self.target.to(self.device).eval().requires_grad_(False)
        sources = [source for source in (_load_init(settings, train), self.target) if source is not None]
        config = sources[-1].config if sources else settings.config
        self.model = _make_model(config, stage).to(self.device)
        for source in sources:  # the parts that both have; in stage 2 the network is stage 1's
            if source.config != config or source.kind != self.model.kind:
                raise KsdiffError(
                    f"{settings.init}: its network is not the one of {settings.file(1)}; leave --init out"
                )
            known = source.state_dict()
            self.model.load_state_dict({name: known.get(name, own) for name, own in self.model.state_dict().items()})
        team.share_statistics(self.model)
        self.average = AveragedModel(self.model, multi_avg_fn=_moving_average(settings.ema))
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=settings.rate, weight_decay=settings.weight_decay, betas=(0.9, 0.99), fused=True
        )
        self.arithmetic = choose_arithmetic(settings.precision, self.device, settings.accumulate)
        self.objective = Objective(self.target, settings.recipe, settings.latent_noise, settings.diffusion_weight)
        images, share = settings.batch, team.rows(settings.batch)
        if config.bands is None and not self.model.observes:  # all read the same images and take their rows later
            images, share = max(2, team.size, 2 * settings.batch // max(file.bands for file in train)), slice(None)
        self.batches = TrainingBatches(
            train, images, settings.seed + stage, gain=settings.gain, share=share, alike=self.model.observes
        )

    @property
    def part(self) -> float:
        """Share of the stage that is done, by steps or by time, whichever is further."""
        limit = self.settings.time_limit
        return max(self.step / self.settings.steps, self.elapsed / (60 * limit) if limit else 0.0)

    @property
    def finished(self) -> bool:
        """Whether the stage is over."""
        return self.part >= 1

    def averaged(self) -> FusionModel:
        """Return the model with the averaged weights."""
        module = self.average.module
        assert isinstance(module, FusionModel)
        return module

    def ahead(self) -> Ahead:
        """Return the batches from the next step on, prepared in the background."""
        pin = self.device.type == "cuda"

        def make(number: int) -> Batch:
            batch = self.batches.batch(number)
            return batch.pinned() if pin else batch

        return Ahead(make, self.step)

    def advance(self, batch: Batch) -> dict[str, Tensor]:
        """Take one optimiser step and return its losses, which stay on the device: looking at them makes a GPU wait."""
        settings = self.settings
        random = torch.Generator().manual_seed((settings.seed << 40) + (self.stage << 36) + self.step)
        rate = 0.5 * settings.rate * (1 + torch.cos(torch.tensor(torch.pi * min(1.0, self.part))).item())
        self.rate = rate * min(1.0, (self.step + 1) / 50)  # Adam's first steps are large in every direction
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate
        self.model.train()
        inputs, draws = self._inputs(batch, random)
        self.optimizer.zero_grad(set_to_none=True)
        if isinstance(self.model, PixelDiffusion):
            losses = train_pixels_once(self.model, inputs, draws, self.arithmetic)
        else:
            assert isinstance(self.model, KSDiff)
            latent_only = self.target is not None and self.part < settings.warm_up
            losses = train_once(
                self.objective,
                self.model,
                inputs,
                draws,
                self.arithmetic,
                latent_only=latent_only,
            )
        losses = self.team.sum_gradients(self.model, losses)
        self.arithmetic.scaler.unscale_(self.optimizer)
        nn.utils.clip_grad_norm_(self.model.parameters(), settings.clip)
        self.arithmetic.scaler.step(self.optimizer)
        self.arithmetic.scaler.update()
        self.average.update_parameters(self.model)
        self.step += 1
        return losses

    def look(self, losses: dict[str, Tensor]) -> dict[str, float]:
        """Return losses as numbers, and remember them.

        Raises:
            KsdiffError: a loss is not finite: the weights are lost.
        """
        self.losses = {name: round(value.item(), 6) for name, value in losses.items()}
        if not all(abs(value) < float("inf") for value in self.losses.values()):
            raise KsdiffError(
                f"step {self.step}: the loss is not finite any more; start anew with a lower --rate or --precision fp32"
            )
        return self.losses

    def save(self, path: Path) -> None:
        """Write the resume state: a kill at any moment leaves the old one or the new.

        Raises:
            KsdiffError: it cannot be written; the old one stays.
        """
        state = {
            "step": self.step,
            "elapsed": self.elapsed,
            "losses": self.losses,
            "best": self.best,
            "origin": self.origin,
            "patches": self.patches,
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.arithmetic.scaler.state_dict(),
            "options": json.dumps(self.settings.plain(), sort_keys=True),
        }
        try:
            # whoever stops before the first validation finds no folder yet
            path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_write(path, sync=True) as growing, growing.open("wb") as file:
                torch.save(state, file)
        except (OSError, RuntimeError) as error:
            # at a full disk torch complains of its own position in the file; what the disk said is behind that
            reason = error if isinstance(error, OSError) else error.__context__
            if not isinstance(reason, OSError):
                raise
            raise KsdiffError(f"{unwritable(path, reason)}; make room there") from None

    def restore(self, path: Path) -> None:
        """Read a resume state.

        Raises:
            KsdiffError: the state is damaged or comes from a run with other options, other patches or another stage 1.
        """
        try:
            state = torch.load(path, map_location=self.device, weights_only=True)
        except Exception as error:  # torch names no class for a damaged file
            reason = str(error).splitlines()[0]
            raise KsdiffError(
                f"{path}: the resume state cannot be read ({reason}); start anew with --overwrite"
            ) from None
        if changed := self.settings.changed(json.loads(state["options"])):
            raise KsdiffError(
                f"{path}: was begun with other values of {', '.join(changed)}; resume with the same options"
            )
        if state["origin"] != self.origin:
            raise KsdiffError(f"{path}: was begun from another {self.settings.file(1)}; start anew with --overwrite")
        if state.get("patches") != self.patches:
            raise KsdiffError(f"{path}: was begun with other patches; bring them back, or start anew with --overwrite")
        self.step, self.elapsed, self.losses = state["step"], state["elapsed"], state["losses"]
        self.best = state.get("best")
        self.model.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.arithmetic.scaler.load_state_dict(state["scaler"])

    def _inputs(self, batch: Batch, random: torch.Generator) -> tuple[Inputs, Draws]:
        """Standardise a batch; keep ``settings.batch`` random image-band pairs where all bands share the network."""
        moved = batch.to(self.device)
        inputs = moved.inputs(self.model)
        if self.model.config.bands is not None or self.model.observes:
            return inputs, Draws(random, self.settings.batch, self.team.rows(self.settings.batch))
        total = inputs.M.shape[0]
        kept = torch.arange(total)
        if total > self.settings.batch:
            kept, total = torch.randperm(total, generator=random)[: self.settings.batch], self.settings.batch
        rows = self.team.rows(total)
        return inputs.rows(kept[rows].to(self.device)), Draws(random, total, rows)


def _make_model(config: Config, stage: Stage) -> FusionModel:
    return MODELS[config.kind](config) if isinstance(config, PixelConfig) else KSDiff(config, stage)  # type: ignore


def _moving_average(decay: float) -> Callable[[Any, Any, Any], None]:
    """Exponential moving average whose memory is short at first, so that a short run does not end at its start."""

    def update(averaged: Any, current: Any, count: Any) -> None:
        step = int(count)
        torch._foreach_lerp_(averaged, current, 1 - min(decay, (1 + step) / (10 + step)))

    return update


def _load_stage1(settings: RunSettings) -> tuple[KSDiff, str]:
    path = settings.file(1)
    if not path.exists():
        raise KsdiffError(
            f"{path}: stage 2 starts from stage 1, which is not there; run: ksdiff train --stage 1 -o {settings.run}"
        )
    return load_ksdiff(path)[0], weights_hash(path)


def _load_init(settings: RunSettings, train: list[PatchFile]) -> FusionModel | None:
    if settings.init is None:
        return None
    source = load_model(settings.init)[0]
    if settings.fine_tune and source.needs_truth:
        raise KsdiffError(
            f"{settings.init}: holds stage 1, and only whole networks are fine-tuned; give stage 2's weights"
        )
    for file in train:
        try:
            source.check(file.bands, file.ratio)
        except ModelError as error:
            raise ModelError(f"{settings.init}: {error}") from None
    return source
