"""What every fusion network promises: its call, the inputs it sees, the sizes it takes, its errors."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, fields, replace
from reprlib import repr as shown
from types import NoneType, UnionType
from typing import Any, ClassVar, Literal, Self, get_args, get_origin, get_type_hints

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .layers import low_pass
from .observation import Cameras, Observed, mix, resharpen, spread

Stage = Literal[1, 2]
_ROUNDING = 1e-7  # deviations this small against the mean are what float32 rounds away: a constant image


class ModelError(Exception):
    """A network or its weights cannot do what is asked; the message is one line for people."""


@dataclass(frozen=True)
class Statistics:
    """Scene statistics that standardise a network's inputs, in DN; N images, C bands."""

    pan_mean: Tensor
    """(N, 1)"""
    pan_std: Tensor
    """(N, 1)"""
    ms_mean: Tensor
    """(N, C)"""
    ms_std: Tensor
    """(N, C)"""
    cameras: Cameras | None = None
    """How the scenes were seen, for networks that ask for it."""

    def to(self, device: torch.device | str) -> "Statistics":
        """Return the same statistics on ``device``, as float32."""
        pan_mean, pan_std, ms_mean, ms_std = (
            value.to(device, torch.float32) for value in (self.pan_mean, self.pan_std, self.ms_mean, self.ms_std)
        )
        return Statistics(pan_mean, pan_std, ms_mean, ms_std, self.cameras and self.cameras.to(device))

    def expand(self, images: int) -> "Statistics":
        """Return those of so many images of one scene."""
        cameras = self.cameras
        if cameras is not None:
            cameras = Cameras(*(_repeat(getattr(cameras, field.name), images) for field in fields(cameras)))
        pan_mean, pan_std, ms_mean, ms_std = (
            _repeat(each, images) for each in (self.pan_mean, self.pan_std, self.ms_mean, self.ms_std)
        )
        return Statistics(pan_mean, pan_std, ms_mean, ms_std, cameras)


def _repeat(value: Tensor, images: int) -> Tensor:
    return value.expand(images, *value.shape[1:])


@dataclass(frozen=True)
class Observation:
    """What was observed, standardised as :class:`Inputs` are; N images, C bands."""

    observed: Observed
    """MS as it was delivered."""
    cameras: Cameras
    weights: Tensor
    """(N, C, 1, 1) PAN per band, by regression at the MS scale."""
    offset: Tensor
    """(N, 1, 1, 1)."""
    injection: Tensor
    """(N, C, 1, 1) band per PAN that the mix lacks."""
    facts: Tensor
    """(N, 4) the logarithms of gain and ratio, the compensation, r2, each around 0 and of order 1."""
    band_facts: Tensor
    """(N, C, 7) those, and the band's weight, injection and share of the mix."""


Core = tuple[slice, slice]
"""Rows and columns of pixels."""


@dataclass(frozen=True)
class Inputs:
    """Standardised inputs: N images, each kept once, and R entries.

    A network shared by all bands has one entry per image and band (R = N * C), others one per image (R = N).
    """

    P: Tensor
    """(N, 1, H, W) PAN."""
    detail: Tensor
    """(N, 1, H, W) PAN minus its low-pass: what the MS camera cannot see."""
    M: Tensor
    """(R, group, H, W) upsampled MS."""
    context: Tensor
    """(N, 1 or 0, H, W) mean of the image's bands, where a run sees only one of them."""
    G: Tensor | None
    """(R, group, H, W) ground truth, in stage 1 and for losses."""
    image: Tensor | None = None
    """(R,) int64, the image that each entry is of; None: R = N, and entry r is of image r."""
    core: Core | None = None
    """The pixels that a result is wanted of; None: all."""
    observation: Observation | None = None
    """For networks that ask for it; then R = N * C, all bands of every image."""

    @property
    def ms(self) -> Tensor:
        """(R, ms_inputs, H, W), all that is known of MS: ``M`` and, where there is one, ``context``."""
        return torch.cat((self.M, self.each(self.context)), 1)

    def each(self, shared: Tensor) -> Tensor:
        """Give every entry what its image has: (N, ...) -> (R, ...)."""
        return shared if self.image is None else shared[self.image]

    def wanted(self, images: Tensor) -> Tensor:
        """Return the wanted pixels, (..., H, W) -> (..., h, w)."""
        return images if self.core is None else images[..., *self.core]

    def apart(self) -> "Inputs":
        """Return entries that share nothing, N = R, for networks that run once per entry."""
        if self.image is None:
            return self
        return Inputs(
            self.each(self.P), self.each(self.detail), self.M, self.each(self.context), self.G, None, self.core
        )

    def rows(self, chosen: Tensor | slice) -> "Inputs":
        """Return the chosen entries and their images: training on a few bands of many images beats all bands of few."""
        M, G = self.M[chosen], None if self.G is None else self.G[chosen]
        if self.image is None:
            return Inputs(self.P[chosen], self.detail[chosen], M, self.context[chosen], G, None, self.core)
        kept, image = torch.unique(self.image[chosen], return_inverse=True)
        if len(kept) == len(self.P):
            return Inputs(self.P, self.detail, M, self.context, G, image, self.core)
        return Inputs(self.P[kept], self.detail[kept], M, self.context[kept], G, image, self.core)

    def summary(self) -> "Inputs":
        """Return one entry an image, R = N: the mean of its bands, with their mix in place of the context."""
        seen = self.observation
        assert seen is not None
        n, bands = seen.weights.shape[:2]
        M = self.M.view(n, bands, *self.M.shape[2:])
        G = None if self.G is None else self.G.view_as(M).mean(1, keepdim=True)
        mix = seen.offset + (seen.weights * M).sum(1, keepdim=True)
        return Inputs(self.P, self.detail, M.mean(1, keepdim=True), mix, G)


@dataclass(frozen=True)
class Config:
    """What all networks' configurations share; a configuration travels in every checkpoint."""

    bounds: ClassVar[Mapping[str, tuple[float, float]]] = {"bands": (1, 4096)}
    """Least and largest value of every field that holds numbers: checkpoints come from strangers."""

    bands: int | None = None
    """MS bands the network sees at once; None: one run a band with shared weights, so any number of bands."""

    def __post_init__(self) -> None:
        """Refuse values no network can be built from: of another type than the field's, or out of its bounds."""
        kinds = get_type_hints(type(self))
        for field in fields(self):
            value, kind = getattr(self, field.name), kinds[field.name]
            bounds = self.bounds.get(field.name, (0, 0))
            if not _fits(value, kind, bounds):
                raise ModelError(f"config: {field.name} must be {_words(kind, bounds)}, not {shown(value)}")

    @property
    def group(self) -> int:
        """MS bands in one run of the network."""
        return self.bands or 1

    @property
    def ms_inputs(self) -> int:
        """Channels of :attr:`Inputs.ms`: the bands, and their mean where a run sees only one of them."""
        return self.group + int(self.bands is None)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for a JSON header."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Rebuild a configuration from :meth:`to_dict`'s values after JSON.

        Raises:
            ModelError: a value is unknown here (a newer file), of another type, or out of its bounds.
        """
        known = {field.name for field in fields(cls)}
        if unknown := sorted(set(values) - known):
            raise ModelError(f"config holds unknown values {', '.join(unknown[:4])}: written by a newer ksdiff?")
        plain: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in values.items()}
        return cls(**plain)


_MOST = 8
"""Entries of a field that holds any number of them."""


def _fits(value: object, kind: Any, bounds: tuple[float, float]) -> bool:
    """Say whether a value is of a field's type (bool, int, float, str, tuples of these, or None) and in its bounds."""
    if isinstance(kind, UnionType):
        return any(_fits(value, one, bounds) for one in get_args(kind))
    if get_origin(kind) is tuple:
        inner = get_args(kind)
        if not isinstance(value, tuple) or not 0 < len(value) <= _MOST:
            return False
        if inner[-1] is Ellipsis:
            inner = inner[:1] * len(value)
        return len(value) == len(inner) and all(map(lambda one, each: _fits(one, each, bounds), value, inner))
    if kind in (bool, str, NoneType):
        return isinstance(value, kind)
    if isinstance(value, bool) or not isinstance(value, int if kind is int else int | float):
        return False
    return bounds[0] <= value <= bounds[1]  # NaN is not


def _words(kind: Any, bounds: tuple[float, float]) -> str:
    """Say what :func:`_fits` takes, for people."""
    if isinstance(kind, UnionType):
        return " or ".join(_words(one, bounds) for one in get_args(kind))
    if get_origin(kind) is tuple:
        inner = get_args(kind)
        count = f"1 to {_MOST}" if inner[-1] is Ellipsis else len(inner)
        return f"{count} values, each {_words(inner[0], bounds)}"
    words = {bool: "true or false", str: "a text", NoneType: "None"}
    name = "a whole number" if kind is int else "a number"
    return words.get(kind, f"{name} from {bounds[0]:g} to {bounds[1]:g}")


class FusionModel(nn.Module, ABC):
    """A network that fuses PAN and upsampled MS, in DN, at any image size."""

    kind: ClassVar[str]
    """The network's name in checkpoints."""
    sampler: ClassVar[str]
    """How its diffusion is walked backwards, in checkpoints."""
    config: Config
    stage: Stage | None = None
    """The stage of training the parts belong to; None for networks without stages."""
    multiple: int = 1
    """Sides the network itself can take are multiples of this; :meth:`fuse` pads and crops."""
    margin: int
    """How much further than its core a window must be read, PAN pixels, a multiple of 16: with the same kernels for
    all windows, and windows that start at multiples of 16, the cores fit together without a seam."""
    grid: int = 16
    """Windows of a scene must start at multiples of this, PAN pixels, counted from the scene's first."""
    whole: str = ""
    """What of it sees an image as a whole, and which whole that is in a scene; in words, for an output's tags."""
    memory: int
    """Bytes that the network holds at most for each PAN pixel on a CPU, beside images of the bands; measured."""
    lossy: bool = False
    """Whether :meth:`fuse` runs the network in bfloat16; what is around it stays in float32."""
    scaling: str = "mean and standard deviation of the scene, per band"
    """How DN become what the network sees, in words, for checkpoints."""
    caveat: ClassVar[str] = ""
    """What must be said wherever its figures are shown; in words."""
    trims: ClassVar[bool] = False
    """Whether :meth:`fuse` takes a ``core``."""
    least_ratio: float = 1.9
    """The smallest true PAN pixels per MS pixel; 1.9 is a nominal 2, on grids that were resampled a little."""
    observes: bool = False
    """Whether :meth:`fuse` takes MS as it was delivered, and the scene's cameras in its statistics."""

    @classmethod
    @abstractmethod
    def from_header(cls, header: dict[str, Any]) -> Self:
        """Build the network that a checkpoint's header describes, with random weights; on torch's meta device too.

        Raises:
            ModelError: the header's configuration or stage is none.
        """

    @property
    def needs_truth(self) -> bool:
        """Whether the network only runs where the ground truth is known, so that it cannot sharpen."""
        return False

    def margin_at(self, ratio: float) -> int:
        """Return :attr:`margin` at a ratio, where that matters."""
        return self.margin

    def check(self, bands: int, ratio: float) -> None:
        """Raise :class:`ModelError` if the network cannot take this number of bands or this ratio."""
        if self.config.bands is not None and bands != self.config.bands:
            raise ModelError(
                f"the weights are for {self.config.bands} MS bands, the data have {bands}; choose bands, or others"
            )
        if ratio < self.least_ratio:
            raise ModelError(
                f"the network sharpens at ratios of {round(self.least_ratio, 1):g} and more, not {ratio:.3g}: take "
                "another method, such as gsa"
            )

    @abstractmethod
    def noise(self, seed: int = 0) -> Tensor:
        """Make what :meth:`fuse` takes as ``noise``: once a scene, shared by its windows, the same on every device."""

    def kernels(
        self, pan: Tensor, ms: Tensor | Observed, statistics: Statistics, ratio: int, noise: Tensor | None = None
    ) -> list[Tensor]:
        """Make what a network takes from images as a whole, averaged over a batch of them, for :meth:`fuse`.

        Args:
            pan: see :meth:`fuse`.
            ms: see :meth:`fuse`.
            statistics: see :meth:`fuse`.
            ratio: see :meth:`fuse`.
            noise: see :meth:`fuse`.

        Returns:
            One tensor (B, ...) for each part that looks at the whole image, in the order of the network's modules; B
            is 1, or the bands where they share the network. [] from networks that look nowhere but around a pixel.
        """
        return []

    @abstractmethod
    def fuse(
        self,
        pan: Tensor,
        ms: Tensor | Observed,
        statistics: Statistics,
        ratio: int,
        noise: Tensor | None = None,
        *,
        kernels: Sequence[Tensor] | None = None,
    ) -> Tensor:
        """Sharpen a batch of images without gradients.

        Args:
            pan: (N, 1, H, W) float32, DN.
            ms: (N, C, H, W) float32, DN, MS on the PAN grid; or as it was delivered, for a network that
                :attr:`observes`, whose ``statistics`` then hold the scene's cameras.
            statistics: of the scene the images come from (not of the window).
            ratio: PAN pixels per MS pixel along a side.
            noise: from :meth:`noise`, shared by all images; None takes seed 0.
            kernels: from :meth:`kernels`, used for all images; None makes each image's own.

        Returns:
            (N, C, H, W) float32, DN.

        Raises:
            ModelError: kernels that are not this network's.
        """

    def _rounding(self, device: str) -> AbstractContextManager[None]:
        return torch.autocast(device, torch.bfloat16) if self.lossy else nullcontext()

    def _units(self, statistics: Statistics) -> Statistics:
        """Return what images are standardised by: subtracted from them, and divided by."""
        return statistics

    def prepare(
        self,
        pan: Tensor,
        ms: Tensor | Observed,
        statistics: Statistics,
        ratio: int,
        gt: Tensor | None = None,
        *,
        upsampled: bool = True,
    ) -> Inputs:
        """Standardise a batch and, for a network shared by all bands, turn bands into entries.

        Args:
            pan: (N, 1, H, W) DN.
            ms: (N, C, H, W) DN on the PAN grid, or as it was delivered.
            statistics: of the scenes the images come from.
            ratio: PAN pixels per MS pixel along a side.
            gt: (N, C, H, W) DN, when known.
            upsampled: False leaves upsampled MS out, (N * C, 1, 0, 0), where MS is given as it was delivered: a network
                that observes needs it only for its encoders.
        """
        statistics = self._units(statistics)
        if isinstance(ms, Observed):
            pan = resharpen(pan, ms.sharpness)
        P = (pan - statistics.pan_mean[..., None, None]).div_(_spread(statistics.pan_std, statistics.pan_mean))
        ms_std = _spread(statistics.ms_std, statistics.ms_mean)
        G = None if gt is None else (gt - statistics.ms_mean[..., None, None]) / ms_std
        if isinstance(ms, Observed):
            return _observe(P, ms, statistics, G, upsampled)
        M = (ms - statistics.ms_mean[..., None, None]).div_(ms_std)
        detail = P - low_pass(P, ratio)
        if self.config.bands is not None:
            return Inputs(P, detail, M, M[:, :0], G)
        (images, bands), size = M.shape[:2], M.shape[2:]
        image = torch.arange(images, device=M.device).repeat_interleave(bands)
        G = None if G is None else G.reshape(-1, 1, *size)
        return Inputs(P, detail, M.reshape(-1, 1, *size), M.mean(1, keepdim=True), G, image)

    def _padded(self, pan: Tensor, ms: Tensor | Observed) -> tuple[Tensor, Tensor | Observed]:
        """Pad to sizes that the network can take; what was observed stays where it is."""
        pan = pad_to_multiple(pan, self.multiple)
        return pan, ms if isinstance(ms, Observed) else pad_to_multiple(ms, self.multiple)

    def _fuse_by(
        self,
        network: Callable[[Inputs], Tensor],
        pan: Tensor,
        ms: Tensor | Observed,
        statistics: Statistics,
        ratio: int,
        core: Core | None = None,
        upsampled: bool = True,
    ) -> Tensor:
        """Pad, standardise, run ``network`` (Inputs -> (R, group, h, w) standardised, the core), and undo both."""
        core = core or (slice(0, pan.shape[-2]), slice(0, pan.shape[-1]))
        pan, ms = self._padded(pan, ms)
        inputs = replace(self.prepare(pan, ms, statistics, ratio, upsampled=upsampled), core=core)
        with self._rounding(pan.device.type):
            fused = network(inputs)
        bands = (ms.ms if isinstance(ms, Observed) else ms).shape[1]
        fused = fused.reshape(len(pan), bands, *fused.shape[-2:])
        statistics = self._units(statistics)
        ms_std = _spread(statistics.ms_std, statistics.ms_mean, constant=0)
        return torch.addcmul(statistics.ms_mean[..., None, None], fused, ms_std)


def _observe(P: Tensor, observed: Observed, statistics: Statistics, G: Tensor | None, upsampled: bool) -> Inputs:
    """Make the inputs of a network that observes: one entry a band, which see all that their image has."""
    cameras = statistics.cameras
    if cameras is None:
        raise ModelError("a network that observes needs the scene's cameras")
    seen = _standardise(observed, cameras, statistics)
    ms, size = seen.observed.ms, (P.shape[-2], P.shape[-1])
    # what the mix of the bands lacks, in place of PAN's own detail
    detail = P - seen.offset - spread(mix(seen.weights, ms), seen.observed, size)
    M = spread(ms, seen.observed, size) if upsampled else ms.new_empty(*ms.shape[:2], 0, 0)
    images, bands = ms.shape[:2]
    image = torch.arange(images, device=ms.device).repeat_interleave(bands)
    G = None if G is None else G.reshape(-1, 1, *size)
    return Inputs(P, detail, M.flatten(0, 1)[:, None], M[:, :0], G, image, None, seen)


def _standardise(observed: Observed, cameras: Cameras, statistics: Statistics) -> Observation:
    """Bring what was observed, and how, to standardised values."""
    pan_std = _spread(statistics.pan_std, statistics.pan_mean)
    ms_std = _spread(statistics.ms_std, statistics.ms_mean)
    pan_mean, ms_mean = statistics.pan_mean[..., None, None], statistics.ms_mean[..., None, None]
    weights, injection = cameras.weights[..., None, None], cameras.injection[..., None, None]
    offset = cameras.offset.view(-1, 1, 1, 1) + (weights * ms_mean).sum(1, keepdim=True) - pan_mean
    weights, injection = weights * ms_std / pan_std, injection * pan_std / ms_std
    level = torch.full_like(cameras.r2, math.log2(observed.ratio) - 2)
    facts = torch.stack((cameras.gain.log() + 1.5, cameras.compensation, 4 * (1 - cameras.r2), level), -1)
    own = torch.stack((weights, injection, weights * injection), -1)[:, :, 0, 0]
    band_facts = torch.cat((facts[:, None].expand(-1, own.shape[1], -1), own), -1)
    placed = replace(observed, ms=(observed.ms - ms_mean) / ms_std)
    return Observation(placed, cameras, weights, offset / pan_std, injection, facts, band_facts)


def pad_to_multiple(image: Tensor, multiple: int) -> Tensor:
    """Pad (N, C, H, W) at the bottom and right to multiples of ``multiple`` by replication (works at any size)."""
    bottom, right = -image.shape[-2] % multiple, -image.shape[-1] % multiple
    return F.pad(image, (0, right, 0, bottom), mode="replicate") if bottom or right else image


def _spread(std: Tensor, mean: Tensor, constant: float = 1) -> Tensor:
    """(N, C) -> (N, C, 1, 1), in whatever unit; ``constant`` in place of a constant band's deviation."""
    return torch.where(std > _ROUNDING * mean.abs(), std, torch.full_like(std, constant))[..., None, None]
