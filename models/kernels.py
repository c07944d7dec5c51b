"""The kernel generator: low-rank modulation of convolution kernels by the latent z (paper sec. 3.1, eq. 3, Fig. 3)."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .config import ModelConfig
from .layers import draw_normal

_POOL = 4  # the factor backbone sees the features as 4 x 4 cells, whatever the image's size
_HIDDEN = 32  # intermediate features of a generator


class GlobalLayer(nn.Module, ABC):
    """A part of a network that sees an image as a whole, so that a pixel's result depends on all the others."""

    @abstractmethod
    def forward(self, z: Tensor | None, x: Tensor) -> Tensor:
        """(N, S, C_z) latent or None, (N, channels, H, W) features -> (N, ...), what the image as a whole says."""


class Conditioning:
    """What a network's parts take from an image as a whole: written down while it goes through, or fixed before.

    It goes through the network in place of z. Where it is fixed, a pixel depends on its surroundings alone, so that a
    scene may be cut anywhere.
    """

    def __init__(self, z: Tensor | None = None, made: Mapping[GlobalLayer, Tensor] | None = None) -> None:
        """Take the latent that they are to be made from, (N, S, C_z) or None, or else what was ``made`` before."""
        self.z = z
        self.made = dict(made or {})
        self.fixed = made is not None
        """Whether they are all there already."""

    def take(self, part: GlobalLayer, x: Tensor) -> Tensor:
        """Return what ``part`` saw; unless that is fixed or known, it looks at ``x`` now.

        A layer that a network runs several times has one kernel: the one that it made first.
        """
        if not self.fixed and part not in self.made:
            self.made[part] = part(self.z, x)
        return self.made[part]


Latent = Tensor | Conditioning | None
"""What goes through a network beside the image: z, (N, S, C_z); the kernels it made; or None, the plain network."""


def modulation(part: GlobalLayer, z: Latent, x: Tensor) -> Tensor:
    """Let ``part`` look at the images, or take what is fixed: (N, ...), or (1, ...) fixed for all images."""
    out: Tensor = z.take(part, x) if isinstance(z, Conditioning) else part(z, x)
    return out


def is_fixed(z: Latent) -> bool:
    """Say whether a pixel's result depends on its surroundings alone, so that an image may be worked on in pieces."""
    return z is None or (isinstance(z, Conditioning) and z.fixed)


class ModeHead(nn.Module):
    """One of the four heads of the structure-aware attention: makes the factor U^(n) of one kernel mode.

    r_n learned queries attend to the feature cells; each answer is projected to the mode's size d_n.
    """

    def __init__(self, rank: int, size: int, channels: int) -> None:
        """Make a head for U^(n) of shape (rank, size)."""
        super().__init__()
        self.query = nn.Parameter(draw_normal(torch.empty(rank, channels), 1 / math.sqrt(channels)))
        self.project = nn.Linear(channels, size, bias=False)
        draw_normal(self.project.weight, 0.1 / math.sqrt(channels))
        # Row 0 is all ones and carries the identity; the other rows are directions in which z can bend the kernel.
        base = draw_normal(torch.empty(rank, size))
        if not base.is_meta:
            base = base.sign()
            base[0] = 1
        self.base = nn.Parameter(base)

    def forward(self, cells: Tensor) -> Tensor:
        """(N, cells, channels) -> U^(n), (N, rank, size)."""
        attention = torch.softmax(self.query @ cells.transpose(1, 2) / math.sqrt(cells.shape[-1]), -1)
        out: Tensor = self.base + self.project(attention @ cells)
        return out


class KernelGenerator(GlobalLayer):
    """W = G x1 U1 x2 U2 x3 U3 x4 U4 (eq. 3), one per modulated convolution, one W per sample.

    The core G comes from z (mean over tokens, then an MLP), the factors from the layer's input features.
    It starts near the identity, W = 1 up to a few percent: exactly 1 would leave z without any influence to learn from.
    """

    def __init__(
        self, shape: tuple[int, int, int, int], channels: int, latent: int, rank: tuple[int, int, int, int]
    ) -> None:
        """Make a generator.

        Args:
            shape: (C_in / groups, C_out, k_h, k_w) of the kernel.
            channels: channels of the layer's input features, with the constant one if there is one.
            latent: C_z.
            rank: wanted (r1, r2, r3, r4); each is cut to its mode's size.
        """
        super().__init__()
        self.channels = channels
        self.rank = tuple(min(r, size) for r, size in zip(rank, shape, strict=True))
        hidden = _HIDDEN
        self.backbone = nn.Sequential(nn.LayerNorm(channels), nn.Linear(channels, hidden), nn.GELU())
        self.heads = nn.ModuleList(ModeHead(r, size, hidden) for r, size in zip(self.rank, shape, strict=True))
        self.core = nn.Sequential(nn.Linear(latent, hidden), nn.GELU(), nn.Linear(hidden, math.prod(self.rank)))
        last = self.core[2]
        assert isinstance(last, nn.Linear)
        draw_normal(last.weight, 0.3 / math.sqrt(hidden * math.prod(self.rank)))
        with torch.no_grad():
            last.bias.zero_()
            last.bias[0] = 1  # G[0,0,0,0]: the product of the all-ones rows

    def forward(self, z: Tensor | None, x: Tensor) -> Tensor:
        """Make the modulation.

        Args:
            z: (N, S, C_z) latent; None is not possible here.
            x: (N, channels, H, W) the layer's input features; a constant channel may be left out.

        Returns:
            W, (N, C_out, C_in / groups, k_h, k_w), in torch's order of kernel modes.
        """
        assert z is not None
        core = self.core(z.mean(1)).view(-1, *self.rank)
        cells = F.adaptive_avg_pool2d(x, _POOL).flatten(2).transpose(1, 2)
        cells = F.pad(cells, (0, self.channels - x.shape[1]), value=1.0)
        cells = self.backbone(cells)
        u1, u2, u3, u4 = (head(cells) for head in self.heads)
        out: Tensor = torch.einsum("nabcd,nai,nbo,nch,ndw->noihw", core, u1, u2, u3, u4)
        return out


class MLPGenerator(GlobalLayer):
    """Table 4's "w/o structure-aware": an MLP from the flattened z to every entry of W, ten times the parameters.

    As many intermediate features as :class:`KernelGenerator`, and like it near the identity at the start.
    """

    def __init__(self, shape: tuple[int, int, int, int], tokens: int, latent: int) -> None:
        """Make a generator.

        Args:
            shape: (C_in / groups, C_out, k_h, k_w) of the kernel.
            tokens: S.
            latent: C_z.
        """
        super().__init__()
        inputs, outputs, height, width = shape
        self.shape = (outputs, inputs, height, width)
        self.mlp = nn.Sequential(nn.Linear(tokens * latent, _HIDDEN), nn.GELU(), nn.Linear(_HIDDEN, math.prod(shape)))
        last = self.mlp[2]
        assert isinstance(last, nn.Linear)
        draw_normal(last.weight, 0.3 / math.sqrt(_HIDDEN))
        nn.init.ones_(last.bias)

    def forward(self, z: Tensor | None, x: Tensor) -> Tensor:
        """(N, S, C_z), the layer's input features (unused) -> W, (N, C_out, C_in / groups, k_h, k_w)."""
        assert z is not None
        out: Tensor = self.mlp(z.flatten(1)).view(-1, *self.shape)
        return out


class ModulatedConv2d(nn.Module):
    """A convolution whose kernel is W1 = W0 * W (elementwise) per sample; without a prior a plain convolution."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        config: ModelConfig,
        *,
        groups: int = 1,
        constant: bool = False,
        bias: bool = True,
        padding_mode: Literal["zeros", "replicate"] = "zeros",
    ) -> None:
        """Make the base kernel W0 and, where the configuration has a prior, its generator.

        Args:
            inputs: C_in.
            outputs: C_out.
            kernel: side of the kernel, odd.
            config: says whether and how z modulates the kernel.
            groups: as of :class:`torch.nn.Conv2d`.
            constant: add an input channel of ones: a bias that is part of the kernel, so that z reaches it. For
                kernels of 1x1.
            bias: whether the convolution has one.
            padding_mode: ``zeros`` or ``replicate``.
        """
        super().__init__()
        assert (kernel == 1 and bias) or not constant
        inputs, self.constant = inputs + constant, constant
        self.base = nn.Conv2d(
            inputs, outputs, kernel, padding=kernel // 2, groups=groups, bias=bias, padding_mode=padding_mode
        )
        shape = (inputs // groups, outputs, kernel, kernel)
        self.generator: KernelGenerator | MLPGenerator | None = None
        if config.prior and config.structure == "mlp":
            self.generator = MLPGenerator(shape, config.tokens, config.latent)
        elif config.prior:
            self.generator = KernelGenerator(shape, inputs, config.latent, config.rank)

    def weight(self, x: Tensor, z: Latent) -> Tensor:
        """Return every sample's kernel W1, (N, C_out, C_in / groups, k, k); N = 1 where all have the same."""
        W0 = self.base.weight
        if self.generator is None or z is None:
            return W0[None]
        return W0 * modulation(self.generator, z, x)

    def forward(self, x: Tensor, z: Latent) -> Tensor:
        """(N, inputs, H, W), (N, S, C_z) -> (N, outputs, H, W)."""
        weight, own = self.weight(x, z), self.base.bias
        bias = None if own is None else own[None]
        if self.constant and own is not None:
            weight, bias = weight[:, :, :-1], own + weight[:, :, -1, 0, 0]
        padding = weight.shape[-1] // 2
        if padding and self.base.padding_mode == "replicate":
            x, padding = F.pad(x, (padding,) * 4, mode="replicate"), 0
        if len(weight) > 1:
            return per_sample_conv2d(x, weight, bias, self.base.groups, padding)
        one = None if bias is None else bias[0]
        return F.conv2d(x, weight[0], one, padding=padding, groups=self.base.groups)


def per_sample_conv2d(
    x: Tensor, weight: Tensor, bias: Tensor | None, groups: int = 1, padding: int | None = None
) -> Tensor:
    """Convolve every sample with its own kernel, as ONE grouped convolution: the batch is folded into the groups.

    Args:
        x: (N, C_in, H, W).
        weight: (N, C_out, C_in / groups, k, k), k odd.
        bias: (C_out,), (N, C_out) or None.
        groups: groups within a sample.
        padding: zeros on each side; None keeps the size.

    Returns:
        (N, C_out, H, W), or smaller with less padding.
    """
    n, outputs = weight.shape[:2]
    if weight.shape[-1] == 1 and groups == 1:  # a 1x1 convolution is one batched matrix product
        out = torch.bmm(weight.flatten(1).view(n, outputs, -1), x.flatten(2)).view(n, outputs, *x.shape[2:])
    else:
        image, kernels = x.reshape(1, -1, *x.shape[2:]), weight.reshape(n * outputs, *weight.shape[2:])
        padding = weight.shape[-1] // 2 if padding is None else padding
        if groups == x.shape[1] == outputs:
            folded = depthwise_conv2d(image, kernels, padding)
        else:
            folded = F.conv2d(image, kernels, padding=padding, groups=n * groups)
        out = folded.view(n, outputs, *folded.shape[2:])
    return out if bias is None else out + bias.view(-1, outputs, 1, 1)


# ---- depthwise convolution


def depthwise_conv2d(x: Tensor, weight: Tensor, padding: int) -> Tensor:
    """Convolve every channel with its own kernel; on a CPU the gradients are three fast convolutions.

    Torch's own gradient of large depthwise kernels takes nine tenths of their training time on a CPU (oneDNN 3.12: 8.3
    ms of 9.2 at 768 channels of 16 x 16 and 7 x 7). As a depthwise convolution itself, of the image with the result's
    gradient as kernel, it takes .4 ms.

    Args:
        x: (N, C, H, W).
        weight: (C, 1, k, k), k odd.
        padding: zeros on each side, 0 to k - 1.

    Returns:
        (N, C, H + 2 padding - k + 1, W + 2 padding - k + 1).
    """
    if x.device.type != "cpu" or not torch.is_grad_enabled() or torch.is_autocast_enabled("cpu"):
        return F.conv2d(x, weight, padding=padding, groups=x.shape[1])
    out: Tensor = _Depthwise.apply(x, weight, padding)  # type: ignore[no-untyped-call]
    return out


class _Depthwise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, padding: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.padding = padding
        return F.conv2d(x, weight, padding=padding, groups=x.shape[1])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        x, weight = ctx.saved_tensors
        n, channels = x.shape[:2]
        to_x = to_weight = None
        if ctx.needs_input_grad[0]:
            opposite = weight.shape[-1] - 1 - ctx.padding
            to_x = F.conv2d(gradient, weight.flip(2, 3), padding=opposite, groups=channels)
        if ctx.needs_input_grad[1]:
            kernels = gradient.reshape(n * channels, 1, *gradient.shape[2:])
            each = F.conv2d(x.reshape(1, -1, *x.shape[2:]), kernels, padding=ctx.padding, groups=n * channels)
            to_weight = each.view(n, *weight.shape).sum(0)
        return to_x, to_weight, None
