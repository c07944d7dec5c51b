"""A window too large for a GPU's memory, fused in parts."""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from ksdiff_cli.errors import KsdiffError
from ksdiff_cli.fusers.device import is_out_of_memory, release_memory
from ksdiff_cli.numerics.boxes import ALIGN, Box

if TYPE_CHECKING:
    from torch import Tensor

SMALLEST = 256
"""Side of the core of a part that is not divided any more, PAN pixels."""


class Divider:
    """Fuses windows, in four parts each where memory does not suffice, and those again in four.

    Parts are read with the network's margin, so that pixels are the same up to rounding. What was too large once is not
    tried again.
    """

    def __init__(self, margin: int, grid: int = ALIGN) -> None:
        """Start with whole windows.

        Args:
            margin: what the network must see around a core, PAN pixels.
            grid: what it sees must start at multiples of this, as the window does.
        """
        self._margin, self._grid = margin, grid
        self.side: int | None = None
        """Side of the largest core that is tried; None as long as every window went through whole."""

    def run(self, fuse: "Callable[[Box, Box], Tensor]", seen: Box, core: Box) -> "Tensor":
        """Fuse a window.

        Args:
            fuse: of a window and the core in it, both in the pixels of the whole window -> (N, C, height, width) of
                that core; it looks no further than the margin.
            seen: the whole window.
            core: the pixels wanted, at a multiple of 16 pixels from the scene's first, as the window itself.

        Returns:
            (N, C, height, width) of the core.

        Raises:
            KsdiffError: memory does not suffice for the smallest part.
        """
        largest = max(core.height, core.width)
        if self.side is None or largest <= self.side:
            try:
                return fuse(seen, core).contiguous()
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
            # out here: the error would keep the tensors of all layers
            if largest <= SMALLEST:
                raise KsdiffError(
                    f"--device: the GPU's free memory does not suffice for windows of {largest} pixels; end what else "
                    "uses it, or give --device cpu"
                )
            self.side = _half(largest)
            release_memory()
        fused: Tensor | None = None
        for part in _quarters(core):
            made = self.run(fuse, part.grown(self._margin).down_to(self._grid).meet(seen), part)
            if fused is None:
                fused = made.new_empty((*made.shape[:-2], core.height, core.width))
            fused[..., *part.within(core)] = made
        assert fused is not None
        return fused


def _half(size: int) -> int:
    """Half of a core's side, rounded up to where a window may start."""
    return -(-size // (2 * ALIGN)) * ALIGN


def _quarters(core: Box) -> Iterator[Box]:
    """Cut a core in two along both axes; a narrow one only across."""
    high, wide = (_half(size) if size > SMALLEST else size for size in (core.height, core.width))
    for top in range(core.top, core.bottom, high):
        for left in range(core.left, core.right, wide):
            yield Box(top, left, top + high, left + wide).meet(core)
