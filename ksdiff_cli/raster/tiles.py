"""Windows of a pair: PAN, MS under it, and where both are valid."""

from dataclasses import dataclass
from functools import cached_property

from ksdiff_cli.numerics import Array
from ksdiff_cli.numerics.boxes import Box
from ksdiff_cli.numerics.grids import GridMap, Halfway, centres, upsample


@dataclass(frozen=True)
class Tile:
    """A window of a pair, everything on the PAN grid."""

    pan: Array
    """(1, H, W) float32, DN; invalid pixels filled from their neighbours."""
    ms_up: Array
    """(bands, H, W) float32, DN; upsampled MS."""
    valid: Array
    """(H, W) bool; True where PAN and all MS bands hold data."""

    def cut(self, box: Box) -> "Tile":
        """Return a part of it."""
        rows, cols = box.within(Box(0, 0, *self.valid.shape))
        return Tile(self.pan[:, rows, cols], self.ms_up[:, rows, cols], self.valid[rows, cols])


class ObservedTile(Tile):
    """A window with MS as it was delivered, upsampled only for whoever asks for that."""

    def __init__(
        self, pan: Array, valid: Array, ms: Array, belief: Array | None, grid: GridMap, ms_up: Array | None = None
    ) -> None:
        """Put it together.

        Args:
            pan: see :class:`Tile`.
            valid: see :class:`Tile`.
            ms: (bands, h, w) float32, DN; the MS pixels whose centres lie in the window, holes filled.
            belief: (h, w) float32 in 0..1, how far each of them is believed: 0 where it is invalid, less than 1 where
                what it sees of PAN is invalid in part; None where all are.
            grid: the map from the window's pixels to those of ``ms``.
            ms_up: where it was upsampled in another way.
        """
        given = {"pan": pan, "valid": valid, "ms": ms, "belief": belief, "grid": grid}
        for name, value in (given if ms_up is None else given | {"ms_up": ms_up}).items():
            object.__setattr__(self, name, value)

    ms: Array
    belief: Array | None
    grid: GridMap

    @cached_property
    def ms_up(self) -> Array:
        """(bands, H, W) float32, see :class:`Tile`; at the window's border its outermost MS pixels go on."""
        return upsample(self.ms, self.grid, (self.valid.shape[0], self.valid.shape[1]))

    def cut(self, box: Box) -> "ObservedTile":
        """See :meth:`Tile.cut`; MS is cut to the pixels whose centres lie in the part."""
        rows, cols = box.within(Box(0, 0, *self.valid.shape))
        axes = ((self.grid.rows, box.top, box.height), (self.grid.cols, box.left, box.width))
        (top, bottom), (left, right) = (
            centres(axis, first, count, size)
            for (axis, first, count), size in zip(axes, self.ms.shape[1:], strict=True)
        )
        belief = None if self.belief is None else self.belief[top:bottom, left:right]
        grid = self.grid.shifted(box.top, box.left).moved(-top, -left)
        ms = self.ms[:, top:bottom, left:right]
        return ObservedTile(
            self.pan[:, rows, cols], self.valid[rows, cols], ms, belief, grid, self.ms_up[:, rows, cols]
        )


@dataclass(frozen=True)
class Swath:
    """A window of a pair whose rows become a :class:`Tile` when they are wanted: few of them stay in the cache."""

    pan: Array
    """(1, H, W) float32, see :class:`Tile`."""
    ms: Halfway
    valid: Array
    """(H, W) bool, see :class:`Tile`."""

    def rows(self, start: int, stop: int) -> Tile:
        """Return rows [start, stop), the same bits as the whole window has there."""
        return Tile(self.pan[:, start:stop], self.ms.upsampled(start, stop), self.valid[start:stop])
