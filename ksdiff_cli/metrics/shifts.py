"""How far each band of MS lies off PAN: where both correlate best at the MS size."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from ksdiff_cli.metrics.d_rho import correlate_detail, remove_local_mean, whole_views
from ksdiff_cli.metrics.views import Lines, look, place_lines
from ksdiff_cli.numerics import Array
from ksdiff_cli.numerics.camera_views import deviation
from ksdiff_cli.numerics.grids import GridMap

STEPS = np.arange(-4, 5) / 2
"""Shifts tried along each axis, PAN pixels."""
_WINDOW = 16
"""Side of the windows of the local correlation, PAN pixels."""
_UNLIKE = 0.3
"""Mean local correlation below which a shift may be chance: real bands that follow PAN have .5 to .9."""
_SIDE, _ALONG = 128, 5
"""MS pixels along a side of a patch that is looked at, and patches along a side of the image, at most."""


@dataclass(frozen=True)
class Shifts:
    """How far the bands lie off PAN."""

    shifts: Array
    """(bands, 2): PAN rows and columns by which a band shows the ground further up and left than the grids say, so
    that its pixels look further down and right."""
    correlation: Array
    """(bands,) mean local correlation there; NaN, with shift 0, where nothing could be compared."""

    @property
    def mean(self) -> tuple[float, float]:
        """The mean over bands, rows and columns."""
        row, col = self.shifts.mean(0)
        return float(row), float(col)

    @property
    def at_the_end(self) -> bool:
        """Whether a band lies at the end of what is tried: its true shift may be larger."""
        return bool((np.abs(self.shifts) == STEPS[-1]).any())

    def notes(self) -> list[str]:
        """Return notes for people about figures that depend on the shifts."""
        said = []
        if self.at_the_end:
            said.append(f"MS lies {self} PAN pixels off PAN, as far as is looked for; it may be more")
        # NaN, where nothing could be compared, is told by the figures
        if unlike := [str(band + 1) for band, value in enumerate(self.correlation) if value < _UNLIKE]:
            bands = f"band{'s' * (len(unlike) > 1)} {', '.join(unlike)}"
            said.append(f"{bands}: hardly like PAN, hence a shift that may be chance, and R_ figures that depend on it")
        return said

    def __str__(self) -> str:
        """Return the shifts for people, band by band: rows, columns; one for all where they are equal."""
        found = [f"({row:+.1f}, {col:+.1f})" for row, col in self.shifts]
        return found[0] if len(set(found)) == 1 else " ".join(found)


@dataclass(frozen=True)
class Patch:
    """A rectangle of MS pixels that is looked at, and the PAN pixels that it may see."""

    ms: tuple[slice, slice]
    pan: tuple[slice, slice]
    lines: dict[float, tuple[list[Lines], list[Lines]]]
    """By gain: for each step, the rows and the columns."""


class ShiftSearch:
    """Accumulator of :func:`find_shifts`: mean local correlations by band and shift."""

    def __init__(self, grid: GridMap, gains: Sequence[float]) -> None:
        """Start with no pixels; see :func:`find_shifts`."""
        self.grid, self.gains = grid, tuple(gains)
        self.side = max(2, round(_WINDOW * float(np.sqrt(abs(grid.rows.scale * grid.cols.scale)))))
        self.totals: Array = np.zeros((len(STEPS), len(STEPS), len(gains)))
        self.count = 0

    def patches(self, pan_shape: tuple[int, int], ms_shape: tuple[int, int]) -> Iterator[Patch]:
        """Spread patches over an image, and say what each needs."""
        starts = [_spread(size) for size in ms_shape]
        for place in product(*starts):
            spans = [(at, min(at + _SIDE, size)) for at, size in zip(place, ms_shape, strict=True)]
            lines: dict[float, tuple[list[Lines], list[Lines]]] = {}
            for gain in set(self.gains):
                rows, cols = (
                    [place_lines(axis, size, *span, deviation(gain), float(step)) for step in STEPS]
                    for axis, size, span in zip((self.grid.rows, self.grid.cols), pan_shape, spans, strict=True)
                )
                lines[gain] = rows, cols
            pan = [
                slice(min(each.start for each in axis), max(each.stop for each in axis))
                for axis in ([each for one in lines.values() for each in one[side]] for side in (0, 1))
            ]
            yield Patch((slice(*spans[0]), slice(*spans[1])), (pan[0], pan[1]), lines)

    def update(self, patch: Patch, pan: Array, ms: Array, valid: Array, ms_valid: Array) -> None:
        """Take a patch in: PAN (H, W) and MS (bands, h, w) of its slices, float64, and which of their pixels count."""
        known, lows = ms_valid.copy(), {}
        for gain, axes in patch.lines.items():
            rows, cols = (
                [one.over(span.start, span.stop) for one in axis] for axis, span in zip(axes, patch.pan, strict=True)
            )
            inside = [np.all([one.inside for one in axis], axis=0) for axis in axes]
            known &= inside[0][:, None] & inside[1]
            if not valid.all():
                known &= look(sum(rows[1:], rows[0]), sum(cols[1:], cols[0]), (~valid).astype(np.float64)) == 0
            lines = [row @ pan for row in rows]
            low = np.stack([[(col @ line.T).T for col in cols] for line in lines])
            lows[gain] = remove_local_mean(low, self.side)
        if min(known.shape) < 2 * self.side - 1:
            return
        whole = whole_views(known, self.side)
        for band, gain in enumerate(self.gains):
            found = correlate_detail(lows[gain], remove_local_mean(ms[band], self.side), self.side)
            self.totals[..., band] += np.nan_to_num(found[..., whole]).sum(-1)
        self.count += int(np.count_nonzero(whole))

    def result(self) -> Shifts:
        """Return the best shift of each band; of equal ones the smallest."""
        bands = len(self.gains)
        if self.count == 0:
            return Shifts(np.zeros((bands, 2)), np.full(bands, np.nan))
        tried = np.array([(row, col) for row in STEPS for col in STEPS])
        means = self.totals.reshape(-1, bands) / self.count
        order = np.argsort((tried**2).sum(1), kind="stable")
        # rounding must not choose between shifts of one flat image
        best = order[np.argmax(np.round(means[order], 12), axis=0)]
        return Shifts(tried[best], means[best, np.arange(bands)])


def find_shifts(
    pan: Array,
    ms: Array,
    gains: Sequence[float],
    grid: GridMap,
    valid: Array | None = None,
    ms_valid: Array | None = None,
) -> Shifts:
    """Find by how much each band of MS lies off PAN, among shifts of -2 to 2 PAN pixels in steps of a half, both ways.

    PAN is seen through the band's Gaussian MTF where the pixels of MS look, moved by each shift; the shift at which it
    correlates best with the band wins, in windows of 16 x 16 PAN pixels (their means removed as in
    :func:`~ksdiff_cli.metrics.d_rho.d_rho`), on the mean over the pixels that see valid ones only, whatever band and
    shift. The published search compares upsampled MS and the low-pass at PAN's size instead, which holds no more of MS.
    Of a large image 25 patches of 128 x 128 MS pixels are looked at, spread evenly.

    Args:
        pan: (H, W), any unit.
        ms: (bands, h, w), any unit.
        gains: by band, MTF at the MS Nyquist frequency, (0, 1).
        grid: from the pixels of PAN to those of MS.
        valid: (H, W) bool, PAN pixels to count; ``None`` for all.
        ms_valid: (h, w) bool, MS pixels to count; ``None`` for all.

    References:
        Scarpa, Ciotola, "Full-resolution quality assessment for pansharpening", Remote Sensing 14:1808, 2022.
    """
    seen = np.ones(pan.shape, bool) if valid is None else valid
    known = np.ones(ms.shape[1:], bool) if ms_valid is None else ms_valid
    search = ShiftSearch(grid, gains)
    for patch in search.patches(pan.shape, ms.shape[1:]):
        mask, ms_mask = seen[patch.pan], known[patch.ms]
        pan_part = np.where(mask, pan[patch.pan], 0).astype(np.float64)
        ms_part = np.where(ms_mask, ms[:, *patch.ms], 0).astype(np.float64)
        search.update(patch, pan_part, ms_part, mask, ms_mask)
    return search.result()


def _spread(size: int) -> list[int]:
    """Return where patches begin along an axis of MS pixels."""
    count = min(_ALONG, -(-size // _SIDE))
    return [round(start) for start in np.linspace(0, max(0, size - _SIDE), count)]
