"""Backbones that see an image as a whole take a large one in pieces, which overlap and are blended."""

from abc import abstractmethod
from collections.abc import Iterator
from itertools import product

import torch
from torch import Tensor

from ..config import ModelConfig
from ..contract import Core, Inputs
from ..kernels import Conditioning, GlobalLayer, Latent, is_fixed
from .base import Backbone

_AT_ONCE = 8 * 64 * 64  # pixels of the pieces that are worked on at once, without gradients

Place = tuple[int, int]
"""The first row and column of a piece."""


class Pieced(Backbone):
    """Works on pieces of ``config.tile`` pixels, the size of the training patches, as published results are made.

    Pieces start at multiples of half their side, so that most pixels lie in four of them, whose results are averaged
    with weights that fall to the pieces' borders. A scene's windows start at such multiples too: a pixel then lies in
    the same pieces whatever window it is in, as the margin holds all of them. An image no larger than a piece is one.
    What z modulates is the same in all pieces of an image: the mean over what each would have.
    """

    tile: int | None
    """Side of a piece, PAN pixels; None: the image is never cut."""

    def __init__(self, config: ModelConfig) -> None:
        """Take the side of the pieces."""
        super().__init__(config)
        self.tile = config.tile
        self.grid = config.tile // 2
        self.margin = config.tile

    @property
    def scope(self) -> str:
        """See :attr:`Backbone.scope`."""
        return f"{self.whole}: of pieces of {self.tile} px, blended" if self.tile else ""

    @abstractmethod
    def piece(self, inputs: Inputs, z: Latent) -> Tensor:
        """Predict the residual of all pixels, (R, group, H, W); see :meth:`Backbone.forward`."""

    def forward(self, inputs: Inputs, z: Latent) -> Tensor:
        size = inputs.P.shape[2], inputs.P.shape[3]
        rows, cols = (_starts(length, self.tile) for length in size)
        places = list(product(rows, cols))
        if len(places) == 1:
            return inputs.wanted(self.piece(inputs, z))
        if not is_fixed(z):
            z = self._shared(inputs, z, places)
        elif inputs.core is not None:
            places = [place for place in places if self._meets(place, inputs.core)]
        total, weights = torch.zeros_like(inputs.M), inputs.P.new_zeros(size)
        for some, made in self._run(inputs, z, places):
            weight = _fading(made)
            for (top, left), image in zip(some, made, strict=True):
                place = slice(top, top + image.shape[-2]), slice(left, left + image.shape[-1])
                total[..., *place] += weight * image
                weights[place] += weight
        return inputs.wanted(total) / inputs.wanted(weights)

    def _meets(self, place: Place, core: Core) -> bool:
        """Say whether a piece holds a pixel that is wanted."""
        assert self.tile is not None
        return all(
            start < axis.stop and start + self.tile > axis.start for start, axis in zip(place, core, strict=True)
        )

    def _run(self, inputs: Inputs, z: Latent, places: list[Place]) -> Iterator[tuple[list[Place], Tensor]]:
        """Yield places and what the network makes of the pieces there, (pieces, R, group, h, w)."""
        for some in self._groups(places):
            made = self.piece(self._cut(inputs, some), _repeat(z, len(some)))
            yield some, made.view(len(some), *inputs.M.shape[:2], *made.shape[2:])

    def _shared(self, inputs: Inputs, z: Latent, places: list[Place]) -> Conditioning:
        """Return what the pieces of an image share, a row an image; write it down where that is wanted."""
        rows, sums = len(inputs.M), dict[GlobalLayer, Tensor]()
        latent = z.z if isinstance(z, Conditioning) else z
        assert not isinstance(latent, Conditioning)
        for some in self._groups(places):
            taken = Conditioning(None if latent is None else latent.repeat(len(some), 1, 1))
            self.piece(self._cut(inputs, some), taken)
            for part, made in taken.made.items():
                seen = made.view(len(some), rows, *made.shape[1:]).sum(0)
                sums[part] = sums[part] + seen if part in sums else seen
        shared = {part: each / len(places) for part, each in sums.items()}
        if isinstance(z, Conditioning):
            z.made.update(shared)
        return Conditioning(latent, shared)

    def _groups(self, places: list[Place]) -> Iterator[list[Place]]:
        """Yield places of pieces that are worked on at once: all of them where gradients are wanted."""
        assert self.tile is not None
        step = len(places) if torch.is_grad_enabled() else max(1, _AT_ONCE // self.tile**2)
        for start in range(0, len(places), step):
            yield places[start : start + step]

    def _cut(self, inputs: Inputs, places: list[Place]) -> Inputs:
        """Return the pieces that begin at some places, one after the other, each of all images."""
        height, width = (length if self.tile is None else min(self.tile, length) for length in inputs.P.shape[2:])

        def cut(images: Tensor) -> Tensor:
            return torch.cat([images[..., top : top + height, left : left + width] for top, left in places])

        return Inputs(cut(inputs.P), cut(inputs.detail), cut(inputs.M), cut(inputs.context), None)


def _starts(length: int, tile: int | None) -> list[int]:
    """Return where pieces begin along an axis; the last one ends where the image does."""
    if tile is None or length <= tile:
        return [0]
    starts = list(range(0, length - tile + 1, tile // 2))
    return starts if starts[-1] == length - tile else [*starts, length - tile]


def _fading(image: Tensor) -> Tensor:
    """Return a piece's weights, (h, w), which fall linearly from its middle to its borders."""
    along = []
    for length in image.shape[-2:]:
        inside = torch.arange(length, device=image.device, dtype=image.dtype) + 0.5
        along.append(torch.minimum(inside, length - inside))
    return along[0][:, None] * along[1]


def _repeat(z: Latent, times: int) -> Latent:
    """Give every piece what its image has; one row serves all images."""
    if not isinstance(z, Conditioning):
        return z
    made = {
        part: each if len(each) == 1 else each.repeat(times, *[1] * (each.dim() - 1)) for part, each in z.made.items()
    }
    return Conditioning(z.z, made)
