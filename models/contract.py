"""What every fusion network promises: its call, the sizes it takes, its errors."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F


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


class FusionModel(nn.Module, ABC):
    """A network that fuses PAN and upsampled MS, in DN, at any image size."""

    multiple: int = 1
    """Sides the network itself can take are multiples of this; :meth:`fuse` pads and crops."""

    @abstractmethod
    def check(self, bands: int, ratio: int) -> None:
        """Raise :class:`ModelError` if the network cannot take this number of bands or this ratio."""

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
            noise: (1, S, C_z) z_T shared by all images; None draws the one of seed 0.

        Returns:
            (N, C, H, W) float32, DN.
        """


def pad_to_multiple(image: Tensor, multiple: int) -> Tensor:
    """Pad (N, C, H, W) at the bottom and right to multiples of ``multiple`` by replication (works at any size)."""
    bottom, right = -image.shape[-2] % multiple, -image.shape[-1] % multiple
    return F.pad(image, (0, right, 0, bottom), mode="replicate") if bottom or right else image
