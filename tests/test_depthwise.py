"""The depthwise convolution's own gradients are torch's."""

import pytest
import torch
from torch.nn import functional as F

from ksdiff_cli.models.kernels import depthwise_conv2d


@pytest.mark.parametrize(
    ("n", "c", "h", "w", "k", "padding"), [(3, 5, 9, 11, 7, 3), (1, 6, 12, 8, 3, 0), (2, 4, 11, 5, 5, 4)]
)
def test_gradients_are_those_of_torch(n, c, h, w, k, padding):
    torch.manual_seed(0)
    x = torch.randn(n, c, h, w, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(c, 1, k, k, dtype=torch.float64, requires_grad=True)
    ours, plain = depthwise_conv2d(x, weight, padding), F.conv2d(x, weight, padding=padding, groups=c)
    out = torch.randn_like(plain)
    torch.testing.assert_close(ours, plain)
    found = (torch.autograd.grad(result, (x, weight), out) for result in (ours, plain))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)
