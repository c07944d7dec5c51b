"""DiCNN: the details that MS lacks are predicted and added (He et al., IEEE JSTARS 12(4), 2019)."""

from torch import Tensor
from torch.nn import functional as F

from ..config import ModelConfig
from ..contract import Inputs
from ..kernels import Latent, ModulatedConv2d
from .base import Backbone, stack, start_small


class DiCNN(Backbone):
    """DiCNN1 of the paper: three 3x3 convolutions of 64, 64 and C channels on PAN and MS together, ReLU between."""

    margin = 16
    memory = 800

    def __init__(self, config: ModelConfig) -> None:
        """Make the three layers."""
        super().__init__(config)
        self.first = ModulatedConv2d(1 + config.ms_inputs, 64, 3, config)
        self.second = ModulatedConv2d(64, 64, 3, config)
        self.last = ModulatedConv2d(64, config.group, 3, config)
        start_small(self.last)

    def forward(self, inputs: Inputs, z: Latent) -> Tensor:
        h = F.relu(self.first(stack(inputs.P, inputs.ms), z))
        return inputs.wanted(self.last(F.relu(self.second(h, z)), z))
