"""Several processes that train one network together, as ``torchrun`` starts them; alone, nothing of it happens.

Every process draws the same random numbers for the whole batch and takes its own rows of it. Losses are weighted by the
rows, gradients are summed, and what the encoders standardise z by comes from the whole batch: N processes take the same
step as one, up to the order in which floats are added.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, distributed, nn

from ksdiff_cli.errors import KsdiffError
from ksdiff_cli.models.encoder import Standardisation


@dataclass(frozen=True)
class Team:
    """This process among those that train together."""

    rank: int = 0
    size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def leads(self) -> bool:
        """Whether this process writes files and talks; exactly one does."""
        return self.rank == 0

    def rows(self, total: int) -> slice:
        """Return this process's rows of a batch of ``total``."""
        return slice(total * self.rank // self.size, total * (self.rank + 1) // self.size)

    def agree(self, *values: float) -> tuple[float, ...]:
        """Return the largest of all processes' values, one by one; all wait for each other here."""
        if self.size == 1:
            return values
        shared = torch.tensor(values, dtype=torch.float64, device=self.device)
        distributed.all_reduce(shared, distributed.ReduceOp.MAX)
        return tuple(shared.tolist())

    def wait(self) -> None:
        """Wait until all processes are here."""
        self.agree(0.0)

    def sum_gradients(self, model: nn.Module, losses: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Replace every process's gradients by their sum, and return the sum of its losses, in one exchange."""
        if self.size == 1:
            return dict(losses)
        gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
        flat = torch.cat([*(gradient.flatten() for gradient in gradients), torch.stack(list(losses.values()))])
        distributed.all_reduce(flat)
        parts = torch.split(flat, [*(gradient.numel() for gradient in gradients), len(losses)])
        for gradient, part in zip(gradients, parts, strict=False):
            gradient.copy_(part.view_as(gradient))
        return dict(zip(losses, parts[-1], strict=True))

    def share_statistics(self, model: nn.Module) -> None:
        """Let batch norms see the whole batch; their names and values stay. Torch's own way serves GPUs alone."""
        if self.size == 1:
            return
        for module in list(model.modules()):
            for name, child in module.named_children():
                shared: nn.Module
                if type(child) is Standardisation:
                    shared = SharedStandardisation(child.num_features)
                elif type(child) is nn.BatchNorm2d:
                    shared = SharedBatchNorm2d(child.num_features, child.eps, child.momentum)
                else:
                    continue
                shared.load_state_dict(child.state_dict())
                setattr(module, name, shared.to(self.device))


ALONE = Team()


@contextmanager
def join_team(device: str) -> Iterator[Team]:
    """Join the processes that ``torchrun`` started; without it, yield a team of one.

    Args:
        device: ``auto``, ``cpu`` or ``cuda``; with several processes each takes the GPU of its own number.

    Raises:
        KsdiffError: a numbered GPU for several processes, fewer GPUs than processes, or they cannot reach each other.
    """
    from ksdiff_cli.fusers.device import pick_device

    size, local = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("LOCAL_RANK", "0"))
    if size == 1:
        yield Team(device=pick_device(device))
        return
    if ":" in device:
        raise KsdiffError(f"--device {device}: {size} processes cannot share one GPU; choose auto, cpu or cuda")
    picked = pick_device(device)
    if picked.type == "cuda":
        picked = pick_device(f"cuda:{local}")
        torch.cuda.set_device(picked)
    backend = "nccl" if picked.type == "cuda" else "gloo"
    try:
        distributed.init_process_group(backend)
    except (RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise KsdiffError(
            f"torchrun: process {os.environ.get('RANK', '?')} cannot reach the others ({reason}); on several machines "
            f"name the network between them: {backend.upper()}_SOCKET_IFNAME=eth0 torchrun …"
        ) from None
    try:
        yield Team(distributed.get_rank(), size, picked)
    finally:
        distributed.destroy_process_group()


class SharedStandardisation(Standardisation):
    """The same over the rows of all processes, (N, C, S), in float32."""

    def forward(self, input: Tensor) -> Tensor:
        """Standardise every channel; while training, by the statistics of all processes' rows."""
        if not self.training:
            return super().forward(input)
        self.adjust_momentum()
        return _standardise(self, input.float())


class SharedBatchNorm2d(nn.BatchNorm2d):
    """Batch norm over the rows of all processes, (N, C, H, W), in float32."""

    def forward(self, input: Tensor) -> Tensor:
        """Standardise every channel; while training, by the statistics of all processes' rows."""
        if not self.training:
            return super().forward(input)
        out = _standardise(self, input.float().flatten(2)) * self.weight[:, None] + self.bias[:, None]
        return out.view(input.shape)


def _standardise(norm: nn.BatchNorm1d | nn.BatchNorm2d, x: Tensor) -> Tensor:
    """Standardise (N, C, S) over the rows of all processes, and remember the statistics."""
    assert norm.running_mean is not None and norm.running_var is not None and norm.momentum is not None
    count = _sum(torch.tensor([float(x.shape[0] * x.shape[2])], device=x.device))
    mean = _sum(x.sum((0, 2))) / count
    centred = x - mean[:, None]
    variance = _sum(centred.square().sum((0, 2))) / count
    with torch.no_grad():
        norm.running_mean.lerp_(mean, norm.momentum)
        norm.running_var.lerp_(variance * count / (count - 1), norm.momentum)
        assert norm.num_batches_tracked is not None
        norm.num_batches_tracked += 1
    return centred * torch.rsqrt(variance + norm.eps)[:, None]


class _Sum(torch.autograd.Function):
    """The sum over all processes; each one's gradient is the sum of what all lose by it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        out = x.clone()
        distributed.all_reduce(out)
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        out = gradient.clone()
        distributed.all_reduce(out)
        return out


def _sum(x: Tensor) -> Tensor:
    out: Tensor = _Sum.apply(x)  # type: ignore[no-untyped-call]
    return out
