"""Second-order statistics of an image's detail: what a mean over positions cannot see, and a global prior is made of.

How much of PAN's detail belongs into a band is a regression coefficient, <x y> / <y y> over an area. Convolutions and
mean pooling hardly find products by themselves: without these, z stayed idle in training (see the CHANGELOG).
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from .config import ModelConfig
from .contract import Inputs
from .layers import low_pass

_COARSER = 4  # the band below the MS camera's limit, where PAN and MS both see detail, begins this much coarser
_EPS = 1e-3  # of squared standardised values: an area without detail has no coefficient


def count_moments(config: ModelConfig, truth: bool) -> int:
    """Return how many channels :func:`second_order` gives; none if the configuration goes without."""
    return (1 + (4 if truth else 2) * config.group) if config.moments else 0


@torch.no_grad()
def second_order(inputs: Inputs, side: int, truth: bool) -> Tensor:
    """Measure the injection gains and the strength of detail in ``side`` x ``side`` areas of an image.

    It measures data, so that no gradient flows through it.

    Args:
        inputs: standardised.
        side: areas along a side.
        truth: also of the detail that upsampled MS lacks, which needs the ground truth.

    Returns:
        (R, side * side, 1 + 2 group or 1 + 4 group): log strength of PAN's detail; by band, at the coarser scale, the
        gain from PAN to MS and the log strength of MS's detail; with ``truth`` the same of G - M and PAN's detail.
    """

    def pool(x: Tensor) -> Tensor:
        return F.adaptive_avg_pool2d(x, side)

    def compare(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        return pool(x * y) / (pool(y * y) + _EPS), _log_strength(pool(x * x))

    low = inputs.P - inputs.detail
    coarse = inputs.each(low - low_pass(low, _COARSER)), inputs.M - low_pass(inputs.M, _COARSER)
    found = [inputs.each(_log_strength(pool(inputs.detail**2))), *compare(coarse[1], coarse[0])]
    if truth:
        assert inputs.G is not None
        found += compare(inputs.G - inputs.M, inputs.each(inputs.detail))
    return torch.cat(found, 1).flatten(2).transpose(1, 2)


def _log_strength(energy: Tensor) -> Tensor:
    """Bring energies, over many orders of magnitude, to values around -1."""
    return torch.log(energy + 0.1 * _EPS) / 4
