"""Small layers that several parts share."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class LayerNorm2d(nn.Module):
    """Layer norm over the channels of (N, C, H, W)."""

    def __init__(self, channels: int) -> None:
        """Make scale and shift for ``channels``."""
        super().__init__()
        self.norm = nn.LayerNorm(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise every pixel over its channels."""
        out: Tensor = self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return out


class PatchStem(nn.Module):
    """ConvNeXt's patchifying stem without loss: pixel-unshuffle, then a 3x3 convolution, so that cells overlap."""

    def __init__(self, inputs: int, outputs: int, patch: int, norm: bool = True) -> None:
        """Take ``inputs`` full-resolution channels to ``outputs`` channels at 1/patch resolution."""
        super().__init__()
        self.patch = patch
        self.conv = nn.Conv2d(inputs * patch * patch, outputs, 3, padding=1, padding_mode="replicate")
        self.norm = LayerNorm2d(outputs) if norm else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) -> (N, outputs, H/patch, W/patch)."""
        out: Tensor = self.norm(self.conv(F.pixel_unshuffle(x, self.patch)))
        return out


def pointwise(x: Tensor, weight: Tensor, bias: Tensor | None, gelu: bool = False) -> Tensor:
    """Apply one linear layer at every position, and GELU to what comes out.

    Without gradients on a CPU, oneDNN does both at once. MKL, which torch takes for it otherwise, runs at half the
    speed on CPUs that are not Intel's.

    Args:
        x: (..., C_in), float32.
        weight: (C_out, C_in).
        bias: (C_out,) or None.
        gelu: whether GELU follows.

    Returns:
        (..., C_out).
    """
    if _ONEDNN and x.device.type == "cpu" and not torch.is_grad_enabled():
        kind: tuple[str, list[float], str] = ("gelu", [], "none") if gelu else ("none", [], "")
        # anything but contiguous takes a path a hundred times slower
        out: Tensor = torch.ops.mkldnn._linear_pointwise(x.contiguous(), weight.contiguous(), bias, *kind)
        return out
    out = F.linear(x, weight, bias)
    return F.gelu(out) if gelu else out


def _has_onednn() -> bool:
    """Whether this torch has the operator that torch.compile uses for linear layers; it is not part of its API."""
    one = torch.ones(1, 1)
    try:
        with torch.no_grad():
            torch.ops.mkldnn._linear_pointwise(one, one, None, "gelu", [], "none")
    except (AttributeError, RuntimeError):
        return False
    return True


_ONEDNN = _has_onednn()


def low_pass(pan: Tensor, ratio: int, gain: float = 0.3) -> Tensor:
    """See PAN as the MS camera does, on the PAN grid: a Gaussian with the MTF ``gain`` at the MS Nyquist frequency.

    Args:
        pan: (N, C, H, W).
        ratio: PAN pixels per MS pixel along a side.
        gain: MTF at the MS Nyquist frequency; the network learns to live with other sensors' gains.

    Returns:
        (N, C, H, W), borders replicated.
    """
    sigma = ratio / math.pi * math.sqrt(-2 * math.log(gain))
    reach = math.ceil(3 * sigma)
    taps = torch.arange(-reach, reach + 1, device=pan.device, dtype=pan.dtype)
    weights = torch.exp(-(taps**2) / (2 * sigma**2))
    weights = weights / weights.sum()
    x = F.pad(pan, (reach, reach, reach, reach), mode="replicate")
    if x.device.type == "cpu" and not torch.is_grad_enabled():  # several times faster than convolutions of one channel
        return _sum_shifted(_sum_shifted(x, weights, 2), weights, 3)
    weights = weights.expand(pan.shape[1], 1, -1)
    x = F.conv2d(x, weights[:, :, None, :], groups=pan.shape[1])
    return F.conv2d(x, weights[:, :, :, None], groups=pan.shape[1])


def _sum_shifted(x: Tensor, weights: Tensor, axis: int) -> Tensor:
    """Filter along one axis by adding up shifted copies; the result is as much shorter as the filter reaches."""
    size = x.shape[axis] - len(weights) + 1
    out = x.narrow(axis, 0, size) * weights[0]
    for shift, weight in enumerate(weights.tolist()[1:], start=1):
        out.add_(x.narrow(axis, shift, size), alpha=weight)
    return out
