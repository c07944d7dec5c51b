"""The values that mean "no data" in a scene: given by a person, or found though nobody declares them.

Fill that nobody declares is data to every method: it spoils statistics, and with them pixels far from it. It is looked
for in some small windows spread over an image: to read it all would cost as much as to sharpen it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePath
from typing import Any, Literal

import numpy as np
from rasterio.windows import Window

from ksdiff_cli.checks import Nodata
from ksdiff_cli.errors import KsdiffError
from ksdiff_cli.numerics import Array
from ksdiff_cli.raster.bands import BandSource, is_number, read_stored, show_value
from ksdiff_cli.raster.grouped import GroupedPair
from ksdiff_cli.raster.pair import Scene, ScenePair

_PLACES = 8  # windows along a side of an image
_SIDE = 16  # of a window, pixels
_RUN = 8  # pixels beside each other on the image's outermost lines that are equal by no chance
_SHARE = 0.02  # of the outermost pixels that were looked at
_SOLID = 50  # pixels, all of whose neighbours have the same value, that are no chance
_CLIFF = 2.0  # times the step between neighbours that the step from fill to data is at least
_GAP = 0.02  # of the way from fill to the median of all else, where no step is seen, on which no other value lies
_FEW = 4  # equal pixels, far off all others, that are no chance
_REST = 0.01  # share of other pixels without which an image is flat, and nothing frames it


@dataclass(frozen=True)
class Fill:
    """A value that looks like "no data"."""

    value: Any
    """As it is stored."""
    how: Literal["frame", "far", "holes", "no number"]
    """Whether it lies along the image's border; or is far off all other values; or fills holes; or is the largest
    float, positive or negative, which is always taken for "no data"."""

    def __str__(self) -> str:
        """Return the value as it must be typed."""
        return show_value(self.value)


def declare(scene: Scene, given: tuple[Nodata, Nodata]) -> Scene:
    """Return the scene with what a person says of PAN and of MS, see :func:`ksdiff_cli.checks.read_nodata`."""
    pan, ms = given
    return replace(scene, pan=declare_band(scene.pan, pan), ms=tuple(declare_band(source, ms) for source in scene.ms))


def declare_band(source: BandSource, given: Nodata) -> BandSource:
    """Return a band with what a person says of it."""
    if given is None:
        return source
    return replace(source, fill=None if isinstance(given, str) else given, declared=False)


def check_declared(pair: ScenePair) -> None:
    """Refuse a value given for an open scene that no pixel of either image can have.

    Raises:
        KsdiffError: see above.
    """
    misfits = []
    for dataset, source in zip((pair.pan, *pair.ms), (pair.scene.pan, *pair.scene.ms), strict=True):
        kind = np.dtype(dataset.dtypes[source.band - 1])
        if source.declared or source.fill is None or _holds(kind, source.fill):
            return
        misfits.append((source, kind))
    if misfits:
        source, kind = misfits[0]
        raise KsdiffError(f"--src-nodata {source.fill:g}: {source.path} holds {kind}, which has no such value")


def _holds(kind: np.dtype[Any], value: float) -> bool:
    if kind.kind == "f":
        return True
    limits = np.iinfo(kind)
    return float(value).is_integer() and limits.min <= value <= limits.max


def find_notes(pair: ScenePair, arrays: bool = False) -> list[str]:
    """Look for undeclared fill in an open scene; say what was found, in one line, with the option that declares it.

    Args:
        pair: the open scene.
        arrays: whether a person gave arrays, not files.
    """
    if isinstance(pair, GroupedPair):
        return list(dict.fromkeys(note for part in pair.parts for note in find_notes(part)))
    pan, ms = find_fill([pair.pan], [pair.scene.pan]), find_fill(pair.ms, pair.scene.ms)
    names = [f"PAN {PurePath(pair.scene.pan.path).name}", f"MS {PurePath(pair.scene.ms[0].path).name}"]
    if arrays:
        names, option = ["pan", "ms"], f"nodata=({pan}, {ms})"
    else:
        values = [str(fill or "file") for fill in (pan, ms)]
        option = f"--src-nodata {','.join(dict.fromkeys(values))}"
    if pan and ms and str(pan) == str(ms) and pan.how == ms.how:
        return [say_fill(" and ".join(names), pan, option, "are")]
    return [say_fill(name, fill, option) for name, fill in zip(names, (pan, ms), strict=True) if fill]


def hint_fill(pair: ScenePair) -> str:
    """Return what :func:`find_notes` says for the middle of an error that fill may well be the reason of."""
    return "".join(f" ({line})" for line in find_notes(pair))


def say_fill(name: str, fill: Fill, option: str = "", verb: str = "is") -> str:
    """Say what was found, and what to do about it.

    Args:
        name: of the image.
        fill: what was found in it.
        option: what would declare it; "" is ``--src-nodata`` with the value.
        verb: that goes with the name.
    """
    option = option or f"--src-nodata {fill}"
    if fill.how == "no number":
        return f"{name}: pixels of {fill} are taken for nodata, undeclared as they are; {option} says so"
    where = {"frame": f"{verb} framed by {fill}", "holes": f"{verb} {fill} in patches"}.get(
        fill.how, f"{verb} {fill} in places, far off all else"
    )
    otherwise = ", if it does not --src-nodata none" if option.startswith("--") else ""
    return f"{name} {where}, not declared as nodata, so it counts as data; if it means no data give {option}{otherwise}"


def find_fill(datasets: Sequence[Any], sources: Sequence[BandSource]) -> Fill | None:
    """Look for a value that all bands of an image share where there seems to be no data.

    It lies along the image's border, in runs, and is below or above all other values by a step, or in between but fills
    whole windows; or it is further from all others than these are from each other, be it in one band alone; or a step
    off them and fills windows inside. Pixels that are known to be invalid do not count.

    Args:
        datasets: the open file of each band.
        sources: the bands; what a person has declared of them is believed, and nothing is looked for.

    Returns:
        The value; None where there is none.

    Raises:
        KsdiffError: a file is damaged.
    """
    kinds = [dataset.dtypes[source.band - 1] for dataset, source in zip(datasets, sources, strict=True)]
    if not sources[0].declared or any("complex" in kind for kind in kinds):
        return None
    every = [_Sample(kinds[0]), *(_Sample(kind) for kind in (kinds if len(kinds) > 1 else ()))]
    for window in _windows(datasets[0], sources[0].band):
        bands, valid = read_stored(datasets, sources, window)
        lines = _border(window, datasets[0].shape)
        for seen, part in zip(every, (bands, *([band] for band in bands)), strict=False):
            seen.add(part, valid, lines)
    found = (seen.judge(alone=number > 0) for number, seen in enumerate(every))
    return next((fill for fill in found if fill), None)


class _Sample:
    """The values in some windows of an image."""

    def __init__(self, dtype: str) -> None:
        """Begin with nothing."""
        self._dtype = np.dtype(dtype)
        self._pixels: list[Array] = []  # (3, n): what all bands share (else NaN), their least, their largest
        self._edge: list[Array] = []  # the first of these on the image's outermost lines
        self._runs: set[float] = set()
        self._extreme: float | None = None
        self._windows: list[tuple[Array, Array]] = []  # (h, w): what all bands share, their mean; NaN if invalid

    def add(self, bands: Sequence[Array], valid: Array, lines: Sequence[tuple[Any, ...]]) -> None:
        """Take in a window (h, w) of each band and where it is valid; ``lines`` of it are the image's outermost."""
        wide = np.stack([band.astype(np.float64) for band in bands])
        low, high = wide.min(0), wide.max(0)
        shared = np.where(valid & (low == high), low, np.nan)
        for band in bands if self._dtype.kind == "f" else ():
            valid = valid & is_number(band)
        if (extreme := shared[~valid & np.isfinite(shared)]).size:
            self._extreme = float(extreme[0])
        shared[~valid] = np.nan
        for line in lines:
            self._edge.append(shared[line][valid[line]])
            self._runs |= _runs(shared[line])
        self._pixels.append(np.stack([shared, low, high])[:, valid])
        self._windows.append((shared, np.where(valid, wide / len(wide), np.nan).sum(0)))

    def judge(self, alone: bool) -> Fill | None:
        """Say what is fill, see :func:`find_fill`; in one band alone only what is far off."""
        if self._extreme is not None:
            return Fill(self._dtype.type(self._extreme), "no number")
        pixels, edge = np.concatenate(self._pixels, 1), np.concatenate(self._edge)
        shared = pixels[0][~np.isnan(pixels[0])]
        if not shared.size:
            return None
        framing = sorted(self._runs, key=lambda value: (-np.count_nonzero(edge == value), value))
        ends = [float(shared.min()), float(shared.max())]
        kinds: list[tuple[float, Literal["frame", "far", "holes"]]] = [(value, "frame") for value in framing]
        kinds += [(value, kind) for kind in ("far", "holes") for value in ends]
        for value, how in kinds:
            if alone and how != "far":
                continue
            rest = pixels[1:, pixels[0] != value]
            if rest.shape[1] < _REST * pixels.shape[1]:
                continue
            low, high = rest[0].min(), rest[1].max()
            found: Any
            if how == "frame":
                cliff = self._is_solid(value) if low < value < high else self._is_cliff(value, rest)
                found = cliff and np.count_nonzero(edge == value) >= _SHARE * edge.size
            elif how == "far":
                found = np.count_nonzero(shared == value) >= _FEW and max(low - value, value - high) > high - low
            else:
                found = self._is_solid(value) and not low < value < high and self._is_cliff(value, rest)
            if found:
                return Fill(self._dtype.type(value), how)
        return None

    def _is_solid(self, value: float) -> bool:
        """Say whether a value fills whole patches."""
        count = 0
        for shared, _ in self._windows:
            same = shared == value
            rows = same[2:] & same[1:-1] & same[:-2]
            count += int(np.count_nonzero(rows[:, 2:] & rows[:, 1:-1] & rows[:, :-2]))
        return count >= _SOLID

    def _is_cliff(self, value: float, rest: Array) -> bool:
        """Say whether data end in a step before a value; those that are clipped or saturated run into it.

        Args:
            value: that all bands of some pixels have, below or above all others.
            rest: (2, n) least and largest of the bands of all other pixels.
        """
        steps, slopes = [], []
        for shared, mean in self._windows:
            for fill, image in ((shared == value, mean), ((shared == value).T, mean.T)):
                for flip in (1, -1):
                    at, next_to, beyond = fill[::flip][:-2], image[::flip][1:-1], image[::flip][2:]
                    known = at & (next_to != value) & (beyond != value) & ~np.isnan(next_to + beyond)
                    steps.append(np.abs(next_to[known] - value))
                    slopes.append(np.abs(next_to - beyond)[known])
        if (step := np.concatenate(steps)).size >= _RUN:
            return bool(np.median(step) > _CLIFF * np.median(np.concatenate(slopes)))
        # a pixel may well have one band at the end of the range, but not all of them
        near, middle = np.percentile(rest[1], (1, 50)) if value <= rest[0].min() else np.percentile(rest[0], (99, 50))
        return bool(abs(value - near) > _GAP * abs(middle - value))


def _windows(dataset: Any, band: int) -> Iterator[Window]:
    """Spread windows over an image, its borders included, each in one of the file's blocks where these are larger."""
    rows, cols = (
        _spans(size, block) for size, block in zip(dataset.shape, dataset.block_shapes[band - 1], strict=True)
    )
    for top, bottom in rows:
        for left, right in cols:
            yield Window(left, top, right - left, bottom - top)


def _spans(size: int, block: int) -> list[tuple[int, int]]:
    """Return (start, stop) of the windows along an axis; all of it where it is short."""
    if size <= _PLACES * _SIDE:
        return [(start, min(start + _SIDE, size)) for start in range(0, size, _SIDE)]
    spans = []
    for place in range(_PLACES):
        at = round(place * (size - 1) / (_PLACES - 1))
        first, last = 0, size
        if block >= _SIDE:
            first, last = at // block * block, min(size, (at // block + 1) * block)
        start = max(first, min(at - _SIDE // 2, last - _SIDE))
        spans.append((start, min(start + _SIDE, last)))
    return spans


def _border(window: Window, shape: tuple[int, int]) -> list[tuple[Any, ...]]:
    """Return the lines of a window that are an image's first or last row or column, as indexes into its pixels."""
    lines: list[tuple[Any, ...]] = []
    for axis, (start, count, size) in enumerate(
        ((window.row_off, window.height, shape[0]), (window.col_off, window.width, shape[1]))
    ):
        places = [0] * (start == 0) + [-1] * (start + count == size)
        lines += [(place, slice(None)) if axis == 0 else (slice(None), place) for place in places]
    return lines


def _runs(line: Array) -> set[float]:
    """Return the values that stand often enough beside each other on a line."""
    starts = np.flatnonzero(np.r_[True, line[1:] != line[:-1]])
    counts = np.diff(np.r_[starts, line.size])
    return set(line[starts[counts >= _RUN]].tolist())
