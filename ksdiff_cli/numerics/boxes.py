"""The canonical cut of a scene into cores, each read with a margin around it (no I/O)."""

from collections.abc import Iterator
from dataclasses import dataclass

from ksdiff_cli.errors import KsdiffError

ALIGN = 16
"""Cores start at multiples of this, so that networks with strides see every window at the same phase."""
SMALLEST = 64
"""Smallest side of a core, in pixels."""


@dataclass(frozen=True)
class Box:
    """A rectangle of pixels: rows [top, bottom), columns [left, right)."""

    top: int
    left: int
    bottom: int
    right: int

    @property
    def height(self) -> int:
        """Rows; not positive where the box is empty."""
        return self.bottom - self.top

    @property
    def width(self) -> int:
        """Columns; not positive where the box is empty."""
        return self.right - self.left

    @property
    def side(self) -> int:
        """The shorter side."""
        return min(self.height, self.width)

    @property
    def empty(self) -> bool:
        """Whether no pixel lies in it."""
        return self.height <= 0 or self.width <= 0

    @property
    def pixels(self) -> int:
        """Number of pixels."""
        return 0 if self.empty else self.height * self.width

    def grown(self, margin: int) -> "Box":
        """Return this box with a margin on all sides."""
        return Box(self.top - margin, self.left - margin, self.bottom + margin, self.right + margin)

    def moved(self, rows: int, cols: int) -> "Box":
        """Return this box further down and right."""
        return Box(self.top + rows, self.left + cols, self.bottom + rows, self.right + cols)

    def down_to(self, step: int) -> "Box":
        """Return this box grown up and to the left, so that it starts at multiples of ``step``."""
        return Box(self.top // step * step, self.left // step * step, self.bottom, self.right)

    def meet(self, other: "Box") -> "Box":
        """Return the part that two boxes share; it may be empty."""
        return Box(
            max(self.top, other.top),
            max(self.left, other.left),
            min(self.bottom, other.bottom),
            min(self.right, other.right),
        )

    def pieces(self, side: int) -> Iterator["Box"]:
        """Cut this box into squares, those at the lower and right border smaller."""
        for top in range(self.top, self.bottom, side):
            for left in range(self.left, self.right, side):
                yield Box(top, left, min(top + side, self.bottom), min(left + side, self.right))

    def within(self, outer: "Box") -> tuple[slice, slice]:
        """Return the rows and columns of this box in an array that shows ``outer``."""
        return (
            slice(self.top - outer.top, self.bottom - outer.top),
            slice(self.left - outer.left, self.right - outer.left),
        )


@dataclass(frozen=True)
class Tiling:
    """Square cores that cover a scene without overlap, counted from its first pixel, row by row.

    The cut depends on nothing but the scene's size and ``tile``. Those at the lower and right border are cut off there.
    """

    height: int
    """Of the scene, pixels, at least 1."""
    width: int
    """Of the scene, pixels, at least 1."""
    tile: int
    """Side of a core, pixels."""

    def __post_init__(self) -> None:
        """Refuse cores that are too small, or would start at different phases.

        Raises:
            KsdiffError: see above.
        """
        if self.tile < SMALLEST or self.tile % ALIGN:
            raise KsdiffError(f"--tile {self.tile}: choose a multiple of {ALIGN} pixels, at least {SMALLEST}")

    @property
    def scene(self) -> Box:
        """The whole scene."""
        return Box(0, 0, self.height, self.width)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of cores."""
        return -(-self.height // self.tile), -(-self.width // self.tile)

    def __len__(self) -> int:
        rows, cols = self.shape
        return rows * cols

    def core(self, number: int) -> Box:
        """Return a core by its number, from 0."""
        row, col = divmod(number, self.shape[1])
        top, left = row * self.tile, col * self.tile
        return Box(top, left, top + self.tile, left + self.tile).meet(self.scene)

    def touching(self, box: Box) -> list[int]:
        """Return the numbers of the cores that share pixels with a box, in order."""
        part = box.meet(self.scene)
        if part.empty:
            return []
        cols = range(part.left // self.tile, (part.right - 1) // self.tile + 1)
        rows = range(part.top // self.tile, (part.bottom - 1) // self.tile + 1)
        return [row * self.shape[1] + col for row in rows for col in cols]
