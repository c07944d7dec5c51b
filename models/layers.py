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


def draw_normal(tensor: Tensor, std: float = 1.0) -> Tensor:
    """Fill with normal numbers, in place; not on the meta device, where torch would load its compiler for it."""
    with torch.no_grad():
        return tensor if tensor.is_meta else tensor.normal_(std=std)


def by_pieces(x: Tensor) -> bool:
    """Whether work is done piece by piece: on a CPU, without gradients, so that it stays in the cache."""
    return x.device.type == "cpu" and not torch.is_grad_enabled()


def to_cells(out: Tensor, x: Tensor, patch: int) -> None:
    """Write the pixels of every cell where its channels lie: (N, H, W) into (N, H / patch, W / patch, patch**2)."""
    given = x.view(len(x), -1, patch, x.shape[2] // patch, patch)
    made = out.view(*out.shape[:3], patch, patch)
    if not torch.is_grad_enabled() and _NUMBERS.get(patch * x.element_size()) and out.stride(2) % patch == 0:
        given, made = _as_numbers(given, patch), _as_numbers(made, patch)
    made.copy_(given.transpose(2, 3))


def from_cells(cells: Tensor, patch: int) -> Tensor:
    """Lay out cells: (N, C, h, w, patch**2) to (N, C, h * patch, w * patch)."""
    pixels = cells.contiguous().view(*cells.shape[:4], patch, patch)
    if torch.is_grad_enabled() or not _NUMBERS.get(patch * cells.element_size()):
        return pixels.transpose(3, 4).flatten(4).flatten(2, 3)
    laid: Tensor = _as_numbers(pixels, patch).transpose(3, 4).contiguous().view(cells.dtype)
    return laid.flatten(2, 3)


_NUMBERS = {8: torch.complex64, 16: torch.complex128}
"""By bytes: what a row of a cell is copied as, in one piece; numbers one by one take eight times as long."""


def _as_numbers(x: Tensor, patch: int) -> Tensor:
    """View the last axis, ``patch`` values in one piece, as one number."""
    numbers: Tensor = x.view(_NUMBERS[patch * x.element_size()])
    return numbers.squeeze(-1)


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
    if by_pieces(x):  # several times faster than convolutions of one channel
        return sum_shifted(sum_shifted(x, weights, 2), weights, 3)
    weights = weights.expand(pan.shape[1], 1, -1)
    x = F.conv2d(x, weights[:, :, None, :], groups=pan.shape[1])
    return F.conv2d(x, weights[:, :, :, None], groups=pan.shape[1])


def sum_shifted(x: Tensor, weights: Tensor, axis: int) -> Tensor:
    """Filter along one axis by adding up shifted copies; the result is as much shorter as the filter reaches."""
    size = x.shape[axis] - len(weights) + 1
    out = x.narrow(axis, 0, size) * weights[0]
    for shift, weight in enumerate(weights.tolist()[1:], start=1):
        out.add_(x.narrow(axis, shift, size), alpha=weight)
    return out
