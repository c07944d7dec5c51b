"""Cutting a scene's blocks into windows, and leaving out those that are not fit for training."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from ksdiff_cli.numerics.boxes import Box
from ksdiff_cli.patches.layout import windows
from ksdiff_cli.patches.masks import Rule
from ksdiff_cli.patches.sources import PairSource, Source
from ksdiff_cli.patches.writer import PatchWriter

_ROWS = 8  # rows of windows read in one go: what their filters share is computed once


def groups(rect: Box, side: int, stride: int, ratio: int) -> Iterator[list[tuple[int, list[int]]]]:
    """Yield the rows of windows in a rectangle, a few at a time: what is read in one go."""
    rows = list(windows(rect, side, stride, ratio))
    rows = [row for row in rows if row[1]]
    count = max(1, _ROWS * stride // side)
    for start in range(0, len(rows), count):
        yield rows[start : start + count]


def cut_windows(
    source: Source,
    rect: Box,
    side: int,
    stride: int,
    rule: Rule,
    scene: tuple[int, int],
    writer: PatchWriter,
) -> Iterator[None]:
    """Degrade a rectangle of a scene and append its windows to a file, group by group.

    Args:
        source: the image.
        rect: a block of one split, in MS pixels.
        side: of a window.
        stride: between windows.
        rule: which windows are kept.
        scene: index of the scene in the file, and first row of this image in it (tiles count as stacked).
        writer: of the file.
    """
    ratio = source.ratio
    for rows in groups(rect, side, stride, ratio):
        top, left = rows[0][0], rows[0][1][0]
        block = source.read(top, left, rows[-1][0] + side - top, rows[0][1][-1] + side - left)
        for row, cols in rows:
            kept = []
            for col in cols:
                here = (slice(row - top, row - top + side), slice(col - left, col - left + side))
                reason = rule.reason(block.clean[here], block.cloud[here], block.saturated[here])
                if reason is None:
                    kept.append(col)
                else:
                    writer.leave_out(scene[0], (scene[1] + row, col), reason)
            if kept:
                places = [(row - top, col - left) for col in kept]
                images = {
                    "gt": _windows(block.gt, places, side),
                    "ms": _windows(block.ms, [(r // ratio, c // ratio) for r, c in places], side // ratio),
                    "lms": _windows(block.lms, places, side),
                    "pan": _windows(block.pan, places, side),
                }
                writer.add(images, scene[0], [(scene[1] + row, col) for col in kept])
        yield


def cut_full(source: PairSource, rect: Box, side: int, rule: Rule, scene: int, writer: PatchWriter) -> Iterator[None]:
    """Append the full-resolution windows of a rectangle: original PAN and MS, and MS on PAN's grid; row by row.

    Args:
        source: the scene.
        rect: a block of MS pixels.
        side: of a window in MS pixels.
        rule: which windows are kept.
        scene: index of the scene in the file.
        writer: of the file.
    """
    for row, cols in windows(rect, side, side, source.ratio):
        for col in cols:
            window = source.read_full(row, col, side)
            if window is None:
                continue
            reason = rule.reason(window.clean, window.cloud, window.saturated)
            if reason is None:
                images = {"ms": window.ms[None], "lms": window.lms[None], "pan": window.pan[None]}
                writer.add(images, scene, [(row, col)])
            else:
                writer.leave_out(scene, (row, col), reason)
        yield


def _windows(image: NDArray[np.float32], places: list[tuple[int, int]], side: int) -> NDArray[np.float32]:
    """Cut square windows: (bands, h, w) -> (n, bands, side, side)."""
    return np.stack([image[:, row : row + side, col : col + side] for row, col in places])
