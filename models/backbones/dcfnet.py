"""DCFNet: three branches of different sizes whose features cross (Wu et al., ICCV 2021)."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..config import ModelConfig
from ..contract import Inputs
from ..kernels import Latent, ModulatedConv2d
from .base import sample_cells, start_small
from .pieced import Pieced

_WIDTHS, _BLOCKS, _BOTTLENECKS, _MOMENTUM = (32, 64, 128), 3, 4, 0.01  # as published
_TINY = 1e-4
_SEEN = 160


def _conv(inputs: int, outputs: int, side: int, stride: int = 1) -> nn.Sequential:
    """Return a convolution without bias, and batch norm."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, side, stride, side // 2, bias=False), nn.BatchNorm2d(outputs, momentum=_MOMENTUM)
    )


class BasicBlock(nn.Module):
    """3x3, batch norm, ReLU, 3x3, batch norm, a skip, ReLU."""

    def __init__(self, channels: int) -> None:
        """Make a block of ``channels``."""
        super().__init__()
        self.first, self.second = _conv(channels, channels, 3), _conv(channels, channels, 3)

    def forward(self, x: Tensor) -> Tensor:
        """(R, channels, h, w) -> the same shape."""
        return F.relu(x + self.second(F.relu(self.first(x))))


class Bottleneck(nn.Module):
    """1x1 to 64, 3x3, 1x1 to 256, with batch norm and a skip."""

    def __init__(self, inputs: int) -> None:
        """Make a block; its skip has a convolution where ``inputs`` are not 256 already."""
        super().__init__()
        self.layers = nn.Sequential(_conv(inputs, 64, 1), nn.ReLU(), _conv(64, 64, 3), nn.ReLU(), _conv(64, 256, 1))
        self.skip = nn.Identity() if inputs == 256 else _conv(inputs, 256, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(R, inputs, H, W) -> (R, 256, H, W)."""
        return F.relu(self.layers(x) + self.skip(x))


class Weighted(nn.Module):
    """The sum of two images with learned positive weights that add up to one."""

    def __init__(self) -> None:
        """Make both weights."""
        super().__init__()
        self.weights = nn.Parameter(torch.ones(2))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """(R, C, h, w) twice -> the same shape."""
        v = F.relu(self.weights)
        v = v / (v.sum() + _TINY)
        return v[0] * x + v[1] * y


class Fuse(nn.Module):
    """Features and MS of the same size put together, then a block."""

    def __init__(self, bands: int, channels: int) -> None:
        """Make the layers; published, ``bands`` is 8 whatever the data."""
        super().__init__()
        self.sum = Weighted()
        self.enter = nn.Conv2d(bands, channels, 3, padding=1, bias=False)
        self.block = BasicBlock(channels)

    def forward(self, x: Tensor, ms: Tensor) -> Tensor:
        """(R, channels, h, w), (R, bands, h, w) -> (R, channels, h, w)."""
        out: Tensor = self.block(F.relu(self.sum(x, self.enter(ms))))
        return out


class CrossFusion(nn.Module):
    """Every branch gets a weighted sum of all, brought to its size and channels."""

    def __init__(self, branches: int, *, aligned: bool) -> None:
        """Make what brings each branch to each other's size, and the weights."""
        super().__init__()
        self.aligned = aligned
        self.weights = nn.Parameter(torch.ones(branches + 1, branches + 1))
        self.ways = nn.ModuleList(
            nn.ModuleList(_way(source, target) for source in range(branches)) for target in range(branches)
        )

    def forward(self, branches: list[Tensor]) -> list[Tensor]:
        """(R, 32, H, W), (R, 64, H / 2, W / 2), ... -> the same shapes."""
        w = F.relu(self.weights)
        w = w / (w.sum(0) + _TINY)
        out = []
        for target, ways in enumerate(self.ways):
            assert isinstance(ways, nn.ModuleList)
            size = branches[target].shape[2:]
            brought = [self.resize(way(x), size) for way, x in zip(ways, branches, strict=True)]
            out.append(F.relu(torch.stack([w[target, source] * x for source, x in enumerate(brought)]).sum(0)))
        return out

    def resize(self, x: Tensor, size: torch.Size) -> Tensor:
        """Interpolate to a size, where it is another one."""
        return x if x.shape[2:] == size else upsample(x, size, aligned=self.aligned)


def _way(source: int, target: int) -> nn.Module:
    """Return what brings a branch's channels, and its size where that shrinks, to another branch's."""
    if source > target:
        return _conv(_WIDTHS[source], _WIDTHS[target], 1)
    layers: list[nn.Module] = []
    for step in range(target - source):
        last = step == target - source - 1
        layers.append(_conv(_WIDTHS[source], _WIDTHS[target if last else source], 3, 2))
        layers += [] if last else [nn.ReLU()]
    return nn.Sequential(*layers)


def upsample(x: Tensor, size: torch.Size, *, aligned: bool) -> Tensor:
    """Interpolate bilinearly; ``aligned``: between the image's corners, so that it depends on where an image is cut."""
    return F.interpolate(x, list(size), mode="bilinear", align_corners=aligned)


class DCFNet(Pieced):
    """Stem and bottlenecks at full size, then branches at full, half and a quarter of PAN's size.

    What is published does not say where one of the convolutions of its count is, 3x3 on 128 channels; here it ends what
    makes the third branch. ``config.seamless`` interpolates by pixel centres and takes no pieces. z modulates the head:
    where the prior enters is ours, the paper has no such row.
    """

    multiple = 4
    whole = "interpolation between corners"
    memory = 1700

    def __init__(self, config: ModelConfig) -> None:
        """Make the layers."""
        super().__init__(config)
        self.aligned = not config.seamless
        if config.seamless:
            self.tile, self.grid, self.margin, self.memory = None, 16, _SEEN, 4700
        bands, (near, half, quarter) = config.ms_inputs, _WIDTHS
        self.stem = nn.Sequential(_conv(bands + 1, 64, 3), nn.ReLU(), _conv(64, 64, 3), nn.ReLU())
        self.bottlenecks = nn.Sequential(*(Bottleneck(256 if number else 64) for number in range(_BOTTLENECKS)))
        self.enter_near = nn.Sequential(_conv(256, near, 3), nn.ReLU())
        self.enter_half = nn.Sequential(_conv(256, half, 3, 2), nn.ReLU())
        self.fuse_half = Fuse(bands, half)
        self.second = nn.ModuleList(_blocks(width) for width in (near, half))
        self.cross_second = CrossFusion(2, aligned=self.aligned)
        self.shrink_near = nn.Sequential(_conv(near, half, 3, 2), nn.ReLU())
        self.shrink_half = nn.Sequential(_conv(half, quarter, 3, 2), nn.ReLU())
        self.shrink_both = nn.Sequential(_conv(half, quarter, 3, 2), nn.ReLU())
        self.fuse_quarter, self.sum_quarter = Fuse(bands, quarter), Weighted()
        self.enter_quarter = nn.Sequential(_conv(quarter, quarter, 3), nn.ReLU())
        self.third = nn.ModuleList(_blocks(width) for width in _WIDTHS)
        self.cross_third = CrossFusion(3, aligned=self.aligned)
        total = sum(_WIDTHS)
        self.head = ModulatedConv2d(total, total, 1, config)
        self.norm = nn.BatchNorm2d(total, momentum=_MOMENTUM)
        self.leave = ModulatedConv2d(total, config.group, 1, config)
        start_small(self.leave)

    def piece(self, inputs: Inputs, z: Latent) -> Tensor:
        ms = sample_cells(inputs.ms, 4)
        x = self.bottlenecks(self.stem(torch.cat((inputs.P, inputs.ms), 1)))
        half = self.enter_half(x)
        half = self.fuse_half(half, upsample(ms, half.shape[2:], aligned=self.aligned))
        near, half = self.cross_second(
            [blocks(b) for blocks, b in zip(self.second, (self.enter_near(x), half), strict=True)]
        )
        quarter = self.fuse_quarter(self.shrink_both(half + self.shrink_near(near)), ms)
        quarter = self.enter_quarter(self.sum_quarter(self.shrink_half(half), quarter))
        branches = [blocks(b) for blocks, b in zip(self.third, (near, half, quarter), strict=True)]
        size = near.shape[2:]
        every = [self.cross_third.resize(b, size) for b in self.cross_third(branches)]
        h = F.relu(self.norm(self.head(torch.cat(every, 1), z)))
        out: Tensor = self.leave(h, z)
        return out


def _blocks(channels: int) -> nn.Sequential:
    return nn.Sequential(*(BasicBlock(channels) for _ in range(_BLOCKS)))
