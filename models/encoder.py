"""PLFE, the Pyramid Latent Fusion Encoder (sec. 3.1, eq. 1-2, Fig. 2c), and second-order statistics that it sees."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .config import ModelConfig
from .contract import Inputs
from .layers import LayerNorm2d, PatchStem, low_pass

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


_MEMORY = 50  # batches that the running statistics of z remember
_BOUND = 3.0  # an image unlike any in training gets a z at the edge of the known range, not far beyond it


class GuidedStage(nn.Module):
    """One pyramid stage of one branch: X is refined under the guidance Y, then goes down by two."""

    def __init__(self, width: int) -> None:
        """Make the attention (eq. 1), the gate (eq. 2) and the strided convolution for ``width`` channels."""
        super().__init__()
        self.to_q = nn.Conv2d(width, width, 1)
        self.to_k = nn.Conv2d(width, width, 1)
        self.to_v = nn.Conv2d(width, width, 1)
        self.out = nn.Conv2d(width, width, 1)
        self.proj = nn.Conv2d(width, width, 1)
        self.gate = nn.Conv2d(2 * width, width, 1)
        self.down = nn.Sequential(
            nn.Conv2d(width, width, 3, stride=2, padding=1, padding_mode="replicate"), LayerNorm2d(width), nn.GELU()
        )

    def forward(self, X: Tensor, Y: Tensor) -> Tensor:
        """(N, d, h, w), (N, d, h, w) -> (N, d, h/2, w/2)."""
        Q = torch.softmax(self.to_q(X), 1).flatten(2)  # (N, d, hw), over channels
        K = torch.softmax(self.to_k(Y).flatten(2), 2)  # over positions
        V = self.to_v(Y).flatten(2)
        # eq. 1 prints an elementwise product; the shapes and the O(d^2) cost need matrix products (Shen et al. 2021)
        A = K @ V.transpose(1, 2)  # (N, d, d)
        O = self.out((A.transpose(1, 2) @ Q).view_as(X))  # noqa: E741
        guide = self.proj(Y)
        g = torch.sigmoid(self.gate(torch.cat((X, guide), 1)))
        F_ = g * X + (1 - g) * guide + O  # eq. 2
        down: Tensor = self.down(F_)
        return down


class Branch(nn.Module):
    """N stages of one input under one guidance."""

    def __init__(self, width: int, stages: int) -> None:
        """Make ``stages`` stages of ``width`` channels."""
        super().__init__()
        self.stages = nn.ModuleList(GuidedStage(width) for _ in range(stages))

    def forward(self, X: Tensor, Y: Tensor) -> Tensor:
        """(N, d, h, w), (N, d, h, w) -> (N, d, h/2^N, w/2^N)."""
        for stage in self.stages:
            X = stage(X, Y)
            Y = F.interpolate(Y, size=X.shape[-2:], mode="bilinear", align_corners=False)
        return X


class Standardisation(nn.BatchNorm1d):
    """Batch norm without a learned scale, whose running statistics are the mean over all batches until there are many.

    With a fixed momentum those of a short training still were at their start: z's deviation was .27 after 60 steps.
    """

    def __init__(self, channels: int) -> None:
        """Standardise ``channels``."""
        super().__init__(channels, affine=False, momentum=1.0)

    def adjust_momentum(self) -> None:
        """Set the weight of the batch to come; only before the first ones does a GPU have to wait for it."""
        assert self.momentum is not None and self.num_batches_tracked is not None
        if self.momentum > 1 / _MEMORY:
            self.momentum = max(1 / _MEMORY, 1 / (1 + max(0, int(self.num_batches_tracked))))

    def forward(self, input: Tensor) -> Tensor:
        """(N, C, S) -> the same, standardised over N and S."""
        if self.training:
            self.adjust_momentum()
        return super().forward(input)


class _Encoder(nn.Module):
    """What both encoders share: from branch features to S tokens."""

    def __init__(self, config: ModelConfig, branches: int, moments: int = 0) -> None:
        super().__init__()
        self.side = round(config.tokens**0.5)
        self.project = nn.Sequential(
            nn.Linear(branches * config.encoder_width + moments, 2 * config.latent),
            nn.GELU(),
            nn.Linear(2 * config.latent, config.latent),
        )
        # Standardised over images, not over channels, and without a learned scale: z differs between images by
        # construction and cannot shrink into a constant that the network then ignores.
        layer = config.latent_norm == "layer"
        self.norm = nn.LayerNorm(config.latent) if layer else Standardisation(config.latent)

    def tokens(self, features: Tensor, moments: Tensor | None = None) -> Tensor:
        """(N, branches * d, h, w), (N, S, n) -> (N, S, C_z)."""
        pooled = F.adaptive_avg_pool2d(features, self.side).flatten(2).transpose(1, 2)
        if moments is not None:
            pooled = torch.cat((pooled, moments), -1)
        z: Tensor = self.project(pooled)
        if isinstance(self.norm, nn.LayerNorm):
            out: Tensor = self.norm(z)
            return out
        z = self.norm(z.transpose(1, 2)).transpose(1, 2)
        return _BOUND * torch.tanh(z / _BOUND)


class PLFE1(_Encoder):
    """Two symmetric branches, PAN and LRMS, both under the guidance of the ground truth: the target z_0 of stage 2."""

    def __init__(self, config: ModelConfig, pan_inputs: int, ms_inputs: int) -> None:
        """Make the encoder for the given numbers of input channels."""
        super().__init__(config, branches=2, moments=count_moments(config, truth=True))
        width = config.encoder_width
        self.pan_stem = PatchStem(pan_inputs, width, config.patch, config.encoder_norm)
        self.ms_stem = PatchStem(ms_inputs, width, config.patch, config.encoder_norm)
        # The guidance sees the truth and what upsampling misses of it: in the truth alone the detail is a small ripple.
        guides = (1 + config.details) * config.group
        self.gt_stem = PatchStem(guides, width, config.patch, config.encoder_norm)
        self.pan_branch = Branch(width, config.encoder_stages)
        self.ms_branch = Branch(width, config.encoder_stages)

    def forward(
        self, P: Tensor, M: Tensor, G: Tensor, image: Tensor | None = None, moments: Tensor | None = None
    ) -> Tensor:
        """(N, pan_inputs, H, W), (R, ms_inputs, H, W), (R, guides, H, W), (R,), (R, S, n) -> z, (R, S, C_z).

        ``image`` says which of the N images each of the R entries is of; None: R = N.
        """
        Y = self.gt_stem(G)
        pan = _each(self.pan_stem(P), image)
        features = torch.cat((self.pan_branch(pan, Y), self.ms_branch(self.ms_stem(M), Y)), 1)
        return self.tokens(features, moments)


class Entangled(_Encoder):
    """Table 4's "entangled feature": all inputs concatenated into one convolutional encoder of PLFE's size.

    A stage of a PLFE branch has the parameters of 1.8 convolutions of 3x3; here it has two.
    """

    def __init__(self, config: ModelConfig, inputs: int, branches: int) -> None:
        """Make the encoder for ``inputs`` channels in all, in place of a PLFE with ``branches``."""
        super().__init__(config, branches=1)
        width = config.encoder_width
        self.stem = PatchStem(inputs, width, config.patch, config.encoder_norm)
        layers: list[nn.Module] = []
        for _ in range(config.encoder_stages):
            for stride in (1,) * (2 * branches - 1) + (2,):
                conv = nn.Conv2d(width, width, 3, stride=stride, padding=1, padding_mode="replicate")
                layers += [conv, LayerNorm2d(width), nn.GELU()]
        self.body = nn.Sequential(*layers)

    def forward(self, P: Tensor, *others: Tensor | None) -> Tensor:
        """Take what the PLFE takes that it stands for: PAN, what each entry has, ``image`` -> (R, S, C_z)."""
        *own, image = others
        images = [_each(P, image), *(entries for entries in own if entries is not None)]
        return self.tokens(self.body(self.stem(torch.cat(images, 1))))


class PLFE2(_Encoder):
    """The halved form without ground truth: PAN under the guidance of LRMS gives the condition c."""

    def __init__(self, config: ModelConfig, pan_inputs: int, ms_inputs: int) -> None:
        """Make the encoder for the given numbers of input channels."""
        super().__init__(config, branches=1, moments=count_moments(config, truth=False))
        width = config.encoder_width
        self.pan_stem = PatchStem(pan_inputs, width, config.patch, config.encoder_norm)
        self.ms_stem = PatchStem(ms_inputs, width, config.patch, config.encoder_norm)
        self.branch = Branch(width, config.encoder_stages)

    def forward(self, P: Tensor, M: Tensor, image: Tensor | None = None, moments: Tensor | None = None) -> Tensor:
        """(N, pan_inputs, H, W), (R, ms_inputs, H, W), (R,), (R, S, n) -> c, (R, S, C_z); see :class:`PLFE1`."""
        return self.tokens(self.branch(_each(self.pan_stem(P), image), self.ms_stem(M)), moments)


def _each(shared: Tensor, image: Tensor | None) -> Tensor:
    """Give every entry the features of its image: (N, ...) -> (R, ...)."""
    return shared if image is None else shared[image]
