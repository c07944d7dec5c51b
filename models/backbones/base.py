"""What every backbone promises: standardised inputs and a latent in, the residual on upsampled MS out."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..config import ModelConfig
from ..contract import Inputs
from ..kernels import Latent, ModulatedConv2d
from ..layers import by_pieces


class Backbone(nn.Module, ABC):
    """A regression network whose convolutions can be modulated by z (Table 5 of the paper)."""

    per_image: ClassVar[bool] = False
    """Whether one latent and one set of kernels serve all bands of an image, which it takes at once."""
    observes: ClassVar[bool] = False
    """Whether it asks for MS as it was delivered, and for the scene's cameras."""
    complete: ClassVar[bool] = False
    """Whether :meth:`forward` returns the sharpened bands themselves."""
    adapts: ClassVar[Mapping[str, float]] = MappingProxyType({})
    """The parts whose weights may move when a network is adapted to a scene, and how fast, up to 1; none: it cannot."""
    least_ratio: float = 1.9
    """See :attr:`FusionModel.least_ratio`."""
    multiple: int = 1
    """Sides the network can take are multiples of this."""
    grid: int = 16
    """Windows of a scene must start at multiples of this, PAN pixels."""
    ratio: int | None = None
    """The one ratio that its layers are made for; None: any."""
    whole: ClassVar[str] = ""
    """What of it sees an image as a whole, beside modulated kernels, in words for people."""
    margin: int
    """How far a pixel's result looks, once the kernels are fixed: PAN pixels, a multiple of 16 and of ``multiple``."""
    memory: int
    """Bytes that it holds at most for each PAN pixel of an image on a CPU, beside images of the bands; measured."""

    def __init__(self, config: ModelConfig) -> None:
        """Remember nothing; subclasses build their layers from ``config``."""
        super().__init__()

    def margin_at(self, ratio: float) -> int:
        """Return :attr:`margin` at a ratio, where that matters."""
        return self.margin

    @property
    def scope(self) -> str:
        """Say what sees an image as a whole, and which whole that is where windows of a scene are sharpened."""
        return f"{self.whole}: the scene's, by its anchors" if self.whole else ""

    @abstractmethod
    def forward(self, inputs: Inputs, z: Latent) -> Tensor:
        """Predict the residual.

        Args:
            inputs: standardised, sides multiples of :attr:`multiple`.
            z: (R, S, C_z) latent, the kernels made before, or None for the plain network. Layers get it as it is; what
                else looks at the image as a whole does so by :func:`~ksdiff_cli.models.kernels.modulation`.

        Returns:
            (R, group, h, w) residual on the standardised upsampled MS, of ``inputs.core`` alone; or its sum with MS,
            see :attr:`complete`.
        """


def sample_cells(x: Tensor, side: int) -> Tensor:
    """Take upsampled MS at the centres of cells, (R, C, H, W) -> (R, C, H / side, W / side): MS at about its own size.

    Published networks read MS itself; a scene's MS may lie anywhere on PAN's grid, these samples lie on it. In patches
    of QuickBird they differ from MS by 1 to 3% of its standard deviation, means of whole cells by 5 to 13%.

    Args:
        x: upsampled MS, sides multiples of ``side``.
        side: of a cell; where it is even a value is the mean of the four pixels in its middle.
    """
    if side % 2:
        return x[..., side // 2 :: side, side // 2 :: side]
    first = side // 2 - 1
    return F.avg_pool2d(x[..., first:, first:], 2, side)


def stack(*images: Tensor) -> Tensor:
    """Put images on each other, (R, ·, H, W) each, for the first layer.

    Channels-last where a CPU sharpens one image: convolutions are 1.2 to 5 times as fast then. In batches the images'
    own kernels are folded into groups, which takes the other order.
    """
    x = torch.cat(images, 1)
    return x.contiguous(memory_format=torch.channels_last) if by_pieces(x) and len(x) == 1 else x


def start_small(last: ModulatedConv2d) -> None:
    """Shrink the last convolution: a network that starts near upsampled MS learns the rest, one at zero hears no z."""
    with torch.no_grad():
        last.base.weight.mul_(0.1)
        assert last.base.bias is not None
        last.base.bias.zero_()
