"""What every fusion network promises: its call, the inputs it sees, the sizes it takes, its errors."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar, Literal, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .layers import low_pass

Stage = Literal[1, 2]
_SMALLEST_STD = 1e-6


class ModelError(Exception):
    """A network or its weights cannot do what is asked; the message is one line for people."""


@dataclass(frozen=True)
class Statistics:
    """Scene statistics that standardise a network's inputs, in DN; N images, C bands."""

    pan_mean: Tensor
    """(N, 1)"""
    pan_std: Tensor
    """(N, 1)"""
    ms_mean: Tensor
    """(N, C)"""
    ms_std: Tensor
    """(N, C)"""

    def to(self, device: torch.device | str) -> "Statistics":
        """Return the same statistics on ``device``, as float32."""
        moved = (value.to(device, torch.float32) for value in (self.pan_mean, self.pan_std, self.ms_mean, self.ms_std))
        return Statistics(*moved)


@dataclass(frozen=True)
class Inputs:
    """Standardised inputs; a network shared by all bands has one entry per image and band (R = N * C), others R = N."""

    P: Tensor
    """(R, 1, H, W) PAN."""
    detail: Tensor
    """(R, 1, H, W) PAN minus its low-pass: what the MS camera cannot see."""
    M: Tensor
    """(R, group, H, W) upsampled MS."""
    context: Tensor
    """(R, 1 or 0, H, W) mean of the image's bands, where a run sees only one of them."""
    G: Tensor | None
    """(R, group, H, W) ground truth, in stage 1 and for losses."""

    @property
    def ms(self) -> Tensor:
        """(R, ms_inputs, H, W), all that is known of MS: ``M`` and, where there is one, ``context``."""
        return torch.cat((self.M, self.context), 1)

    def rows(self, chosen: Tensor) -> "Inputs":
        """Return the chosen entries: training on a few bands of many images beats all bands of few."""
        G = None if self.G is None else self.G[chosen]
        return Inputs(self.P[chosen], self.detail[chosen], self.M[chosen], self.context[chosen], G)


@dataclass(frozen=True)
class Config:
    """What all networks' configurations share; a configuration travels in every checkpoint."""

    bands: int | None = None
    """MS bands the network sees at once; None: one run a band with shared weights, so any number of bands."""

    def __post_init__(self) -> None:
        """Refuse values no network can be built from."""
        if self.bands is not None and self.bands < 1:
            raise ModelError(f"config: bands must be at least 1 or None, not {self.bands}")

    @property
    def group(self) -> int:
        """MS bands in one run of the network."""
        return self.bands or 1

    @property
    def ms_inputs(self) -> int:
        """Channels of :attr:`Inputs.ms`: the bands, and their mean where a run sees only one of them."""
        return self.group + int(self.bands is None)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for a JSON header."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Rebuild a configuration from :meth:`to_dict`'s values after JSON.

        Raises:
            ModelError: a value is unknown here (a newer file) or missing its form.
        """
        known = {field.name for field in fields(cls)}
        if unknown := sorted(set(values) - known):
            raise ModelError(f"config holds unknown values {', '.join(unknown)}: written by a newer ksdiff?")
        plain: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in values.items()}
        return cls(**plain)


class FusionModel(nn.Module, ABC):
    """A network that fuses PAN and upsampled MS, in DN, at any image size."""

    kind: ClassVar[str]
    """The network's name in checkpoints."""
    config: Config
    stage: Stage | None = None
    """The stage of training the parts belong to; None for networks without stages."""
    multiple: int = 1
    """Sides the network itself can take are multiples of this; :meth:`fuse` pads and crops."""

    @classmethod
    @abstractmethod
    def from_header(cls, header: dict[str, Any]) -> Self:
        """Build the network that a checkpoint's header describes, with random weights."""

    @property
    def needs_truth(self) -> bool:
        """Whether the network only runs where the ground truth is known, so that it cannot sharpen."""
        return False

    def check(self, bands: int, ratio: int) -> None:
        """Raise :class:`ModelError` if the network cannot take this number of bands or this ratio."""
        if self.config.bands is not None and bands != self.config.bands:
            raise ModelError(f"the weights are for {self.config.bands} MS bands, the data have {bands}: choose with -b")
        if ratio < 2:
            raise ModelError(f"the network sharpens at ratios of 2 and more, not {ratio}")

    @abstractmethod
    def noise(self, seed: int = 0) -> Tensor:
        """Make what :meth:`fuse` takes as ``noise``: once a scene, shared by its windows, the same on every device."""

    @abstractmethod
    def fuse(
        self, pan: Tensor, ms_up: Tensor, statistics: Statistics, ratio: int, noise: Tensor | None = None
    ) -> Tensor:
        """Sharpen a batch of images without gradients.

        Args:
            pan: (N, 1, H, W) float32, DN.
            ms_up: (N, C, H, W) float32, DN, MS on the PAN grid.
            statistics: of the scene the images come from (not of the window).
            ratio: PAN pixels per MS pixel along a side.
            noise: from :meth:`noise`, shared by all images; None takes seed 0.

        Returns:
            (N, C, H, W) float32, DN.
        """

    def prepare(
        self, pan: Tensor, ms_up: Tensor, statistics: Statistics, ratio: int, gt: Tensor | None = None
    ) -> Inputs:
        """Standardise a batch and, for a network shared by all bands, turn bands into entries.

        Args:
            pan: (N, 1, H, W) DN.
            ms_up: (N, C, H, W) DN.
            statistics: of the scenes the images come from.
            ratio: PAN pixels per MS pixel along a side.
            gt: (N, C, H, W) DN, when known.
        """
        P = (pan - statistics.pan_mean[..., None, None]) / _spread(statistics.pan_std)
        M = (ms_up - statistics.ms_mean[..., None, None]) / _spread(statistics.ms_std)
        G = None if gt is None else (gt - statistics.ms_mean[..., None, None]) / _spread(statistics.ms_std)
        detail = P - low_pass(P, ratio)
        if self.config.bands is not None:
            return Inputs(P, detail, M, M[:, :0], G)
        bands, size = M.shape[1], M.shape[2:]
        repeated = [x.repeat_interleave(bands, 0) for x in (P, detail, M.mean(1, keepdim=True))]
        G = None if G is None else G.reshape(-1, 1, *size)
        return Inputs(repeated[0], repeated[1], M.reshape(-1, 1, *size), repeated[2], G)

    def _fuse_by(
        self,
        network: Callable[[Inputs], Tensor],
        pan: Tensor,
        ms_up: Tensor,
        statistics: Statistics,
        ratio: int,
    ) -> Tensor:
        """Pad, standardise, run ``network`` (Inputs -> (R, group, H, W) standardised), and undo both."""
        height, width = pan.shape[-2:]
        pan, ms_up = pad_to_multiple(pan, self.multiple), pad_to_multiple(ms_up, self.multiple)
        fused = network(self.prepare(pan, ms_up, statistics, ratio)).reshape(ms_up.shape)[..., :height, :width]
        return fused * _spread(statistics.ms_std) + statistics.ms_mean[..., None, None]


def pad_to_multiple(image: Tensor, multiple: int) -> Tensor:
    """Pad (N, C, H, W) at the bottom and right to multiples of ``multiple`` by replication (works at any size)."""
    bottom, right = -image.shape[-2] % multiple, -image.shape[-1] % multiple
    return F.pad(image, (0, right, 0, bottom), mode="replicate") if bottom or right else image


def _spread(std: Tensor) -> Tensor:
    """(N, C) -> (N, C, 1, 1), a constant band's zero replaced by one."""
    return torch.where(std > _SMALLEST_STD, std, torch.ones_like(std))[..., None, None]
