"""PNN: three convolutions, the first CNN for pansharpening (Masi et al., Remote Sensing 8(7):594, 2016)."""

from torch import Tensor
from torch.nn import functional as F

from ..config import ModelConfig
from ..contract import Inputs
from ..kernels import Latent, ModulatedConv2d
from .base import Backbone, stack, start_small


class PNN(Backbone):
    """9x9 to 64, 5x5 to 32, 5x5 to the bands, ReLU between, on PAN and MS together.

    Published: the image itself is predicted, MS with radiometric indices beside it goes in. Here: the residual, as in
    its successor A-PNN (Scarpa et al. 2018), and no indices, which would be one sensor's.
    """

    margin = 16
    memory = 540

    def __init__(self, config: ModelConfig) -> None:
        """Make the three layers."""
        super().__init__(config)
        self.first = ModulatedConv2d(1 + config.ms_inputs, 64, 9, config)
        self.second = ModulatedConv2d(64, 32, 5, config)
        self.last = ModulatedConv2d(32, config.group, 5, config)
        start_small(self.last)

    def forward(self, inputs: Inputs, z: Latent) -> Tensor:
        h = F.relu(self.first(stack(inputs.P, inputs.ms), z))
        return inputs.wanted(self.last(F.relu(self.second(h, z)), z))
