"""What every backbone promises: standardised inputs and a latent in, the residual on upsampled MS out."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from .config import ModelConfig
from .contract import Inputs
from .kernels import ModulatedConv2d


class Backbone(nn.Module, ABC):
    """A regression network whose convolutions can be modulated by z (Table 5 of the paper)."""

    multiple: int = 1
    """Sides the network can take are multiples of this."""

    def __init__(self, config: ModelConfig) -> None:
        """Remember nothing; subclasses build their layers from ``config``."""
        super().__init__()

    @abstractmethod
    def forward(self, inputs: Inputs, z: Tensor | None) -> Tensor:
        """Predict the residual.

        Args:
            inputs: standardised, sides multiples of :attr:`multiple`.
            z: (R, S, C_z) latent, or None for the plain network.

        Returns:
            (R, group, H, W) residual on the standardised upsampled MS.
        """


def start_small(last: ModulatedConv2d) -> None:
    """Shrink the last convolution: a network that starts near upsampled MS learns the rest, one at zero hears no z."""
    with torch.no_grad():
        last.base.weight.mul_(0.1)
        assert last.base.bias is not None
        last.base.bias.zero_()
