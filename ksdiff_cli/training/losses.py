"""The losses of both stages (eq. 4, 9, 10) and their gradients, for a whole batch at once or piece by piece."""

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ksdiff_cli.errors import KsdiffError
from ksdiff_cli.models.contract import Inputs
from ksdiff_cli.models.ksdiff import KSDiff, diffusion_loss, regression_loss
from ksdiff_cli.models.peers.pixel_diffusion import PixelDiffusion
from ksdiff_cli.options.training import Precision, Recipe


@dataclass(frozen=True)
class Draws:
    """A step's random numbers. They are drawn for the whole batch, on the CPU; a process then takes its rows."""

    generator: torch.Generator
    total: int
    """Rows of the whole batch."""
    rows: slice
    """This process's rows."""

    @property
    def weight(self) -> float:
        """This process's share of the batch: what its mean losses count."""
        return float(self.rows.stop - self.rows.start) / self.total

    def normal(self, like: Tensor) -> Tensor:
        """Draw standard normal numbers in the shape of this process's tensor."""
        return torch.randn((self.total, *like.shape[1:]), generator=self.generator)[self.rows].to(like)

    def steps(self, last: int, device: torch.device) -> Tensor:
        """Draw a diffusion step from 1 to ``last`` for every row."""
        return torch.randint(1, last + 1, (self.total,), generator=self.generator)[self.rows].to(device)


@dataclass(frozen=True)
class Objective:
    """The loss that a stage minimises."""

    target: KSDiff | None
    """The frozen stage 1 whose PLFE1 makes z_0; None in stage 1 itself, and where stage 2 is fine-tuned without it."""
    recipe: Recipe
    latent_noise: float
    diffusion_weight: float

    def latent(self, model: KSDiff, inputs: Inputs, draws: Draws) -> tuple[Tensor | None, Tensor | None]:
        """Make the z that modulates the network, and stage 2's latent loss (eq. 9)."""
        if not model.config.prior:
            return None, None
        if model.stage == 1:
            z = model.truth_latent(inputs)
            return z + self.latent_noise * draws.normal(z), None
        if self.target is None:
            return model.sample(
                inputs, draws.normal(model.noise().expand(model.entries(inputs), -1, -1)).to(inputs.M)
            ), None
        with torch.no_grad():
            z_0 = self.target.truth_latent(inputs)
        noise = draws.normal(z_0)
        if self.recipe == "chain":
            last = torch.full((z_0.shape[0],), model.config.steps, device=z_0.device)
            predicted = model.sample(inputs, model.diffusion(z_0, last, noise))
        else:
            t = draws.steps(model.config.steps, z_0.device)
            predicted = model.denoiser(model.diffusion(z_0, t, noise), t, model.condition(inputs))
        return predicted, diffusion_loss(z_0, predicted)


@dataclass(frozen=True)
class Arithmetic:
    """In which precision and in how many pieces losses are computed; in float32 nothing is scaled."""

    device: str
    dtype: torch.dtype | None
    """bfloat16 or float16; None for float32."""
    scaler: torch.amp.GradScaler
    """Keeps float16's small gradients from vanishing."""
    pieces: int = 1
    """In which the network sees this process's rows of a batch; less memory."""

    def lossy(self) -> AbstractContextManager[Any]:
        """Open the region that runs in ``dtype`` where torch holds it safe."""
        return torch.autocast(self.device, self.dtype, enabled=self.dtype is not None)

    def backward(self, loss: Tensor) -> None:
        """Add a loss's scaled gradients to the parameters'."""
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]


def choose_arithmetic(precision: Precision, device: torch.device, pieces: int = 1) -> Arithmetic:
    """Return the arithmetic of a run; see :attr:`RunSettings.precision` and :attr:`RunSettings.accumulate`."""
    dtype = None
    if device.type == "cuda":
        auto = torch.bfloat16 if torch.cuda.is_bf16_supported() else None
        dtype = {"auto": auto, "fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    return Arithmetic(device.type, dtype, torch.amp.GradScaler(device.type, enabled=dtype is torch.float16), pieces)


def train_once(
    objective: Objective,
    model: KSDiff,
    inputs: Inputs,
    draws: Draws,
    arithmetic: Arithmetic,
    *,
    latent_only: bool = False,
) -> dict[str, Tensor]:
    """Compute the stage's loss and add its gradients to the parameters'.

    z is made for the whole batch, as the encoders standardise it over the batch; in several pieces the network,
    which takes most of the memory, then sees a part at a time. Either way the gradients are the same, up to the order
    in which floats are added.

    Args:
        objective: of the stage.
        model: trained.
        inputs: this process's rows of the batch.
        draws: random numbers.
        arithmetic: precision and pieces.
        latent_only: leave the network out (stage 2's warm-up).

    Returns:
        ``loss`` and its terms, each this process's share of the batch's.
    """
    with arithmetic.lossy():
        z, diffusion = objective.latent(model, inputs, draws)
    weighted = None if diffusion is None else diffusion * draws.weight
    if latent_only and weighted is not None:
        arithmetic.backward(weighted)
        return {"loss": weighted.detach(), "diffusion": weighted.detach()}
    latent_term = None if weighted is None else objective.diffusion_weight * weighted
    if arithmetic.pieces > 1 and inputs.observation is not None:
        raise KsdiffError("--accumulate: this network takes images whole; give a smaller --batch instead")
    if arithmetic.pieces == 1:
        with arithmetic.lossy():
            regression = regression_loss(inputs, model(inputs, z)) * draws.weight
        arithmetic.backward(regression if latent_term is None else latent_term + regression)
    else:
        regression = _train_pieces(model, inputs, z, latent_term, draws.weight, arithmetic)
    if weighted is None or latent_term is None:
        return {"loss": regression.detach()}
    total = latent_term + regression
    return {"loss": total.detach(), "diffusion": weighted.detach(), "regression": regression.detach()}


def _train_pieces(
    model: KSDiff,
    inputs: Inputs,
    z: Tensor | None,
    latent_term: Tensor | None,
    weight: float,
    arithmetic: Arithmetic,
) -> Tensor:
    """Run the network piece by piece with z cut off, then take the gradients that reached z through the encoders."""
    cut = None if z is None else z.detach().float().requires_grad_()
    total = torch.zeros((), device=inputs.M.device)
    rows = inputs.M.shape[0]
    for chosen in torch.arange(rows, device=inputs.M.device).tensor_split(min(arithmetic.pieces, rows)):
        piece = inputs.rows(chosen)
        with arithmetic.lossy():
            fused = model(piece, None if cut is None else cut[chosen])
            loss = regression_loss(piece, fused) * (len(chosen) / rows * weight)
        arithmetic.backward(loss)
        total += loss.detach()
    if z is not None and cut is not None:
        ends, gradients = [z], [torch.zeros_like(z) if cut.grad is None else cut.grad.to(z)]
        if latent_term is not None:
            scaled = arithmetic.scaler.scale(latent_term)
            ends, gradients = [*ends, scaled], [*gradients, torch.ones_like(scaled)]
        torch.autograd.backward(ends, gradients)
    return total


def train_pixels_once(model: PixelDiffusion, inputs: Inputs, draws: Draws, arithmetic: Arithmetic) -> dict[str, Tensor]:
    """Do the same for pixel diffusion, whose losses draw their own numbers.

    Every piece has a generator of its own: runs that divide a batch differently train on different noise.
    """
    rows, total = inputs.M.shape[0], torch.zeros((), device=inputs.M.device)
    for chosen in torch.arange(rows, device=inputs.M.device).tensor_split(min(arithmetic.pieces, rows)):
        seed = int(torch.randint(1 << 62, (draws.total,), generator=draws.generator)[draws.rows][int(chosen[0])])
        with arithmetic.lossy():
            loss = model.losses(inputs.rows(chosen), torch.Generator().manual_seed(seed))["loss"]
            loss = loss * (len(chosen) / rows * draws.weight)
        arithmetic.backward(loss)
        total += loss.detach()
    return {"loss": total}
