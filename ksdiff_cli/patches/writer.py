"""Patch files: HDF5 with PanCollection's keys and layout, one image a chunk, so that shuffled reading is cheap."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from ksdiff_cli.patches.layout import Rect, windows
from ksdiff_cli.patches.sources import PairSource, Source
from ksdiff_cli.raster import SceneStatistics

Array = NDArray[Any]
FORMAT_VERSION = 1
_ROWS = 8  # rows of windows read in one go: what their filters share is computed once


class PatchWriter:
    """Appends images to one file. All images of a file have one size; the same calls give the same bytes."""

    def __init__(self, path: Path) -> None:
        """Create the file; its datasets are made with the first images."""
        self.file = h5py.File(path, "w")
        self.count = 0

    def add(self, images: Mapping[str, Array], scene: int, origins: Sequence[tuple[int, int]]) -> None:
        """Append images.

        Args:
            images: by key (gt, ms, lms, pan), (n, channels, h, w), DN; stored as float32.
            scene: index of the scene they come from.
            origins: n rows and columns of their first pixel, in MS pixels of the scene.
        """
        self._append("scene", np.full(len(origins), scene, np.int32))
        self._append("origin", np.array(origins, np.int32).reshape(-1, 2))
        for key, values in images.items():
            self._append(key, values.astype(np.float32, copy=False))
        self.count += len(origins)

    def finish(self, statistics: Sequence[SceneStatistics], attributes: Mapping[str, Any]) -> None:
        """Write the scenes' statistics and the file's attributes (lists and dicts as JSON), and close."""
        columns = {
            "scene_pan_mean": [each.pan_mean for each in statistics],
            "scene_pan_std": [each.pan_std for each in statistics],
            "scene_ms_mean": [each.ms_mean for each in statistics],
            "scene_ms_std": [each.ms_std for each in statistics],
        }
        for key, values in columns.items():
            self.file.create_dataset(key, data=np.array(values, np.float64), track_times=False)
        for key, value in sorted(attributes.items()):
            self.file.attrs[key] = json.dumps(value, sort_keys=True) if isinstance(value, list | dict) else value
        self.close()

    def close(self) -> None:
        """Close the file, complete or not."""
        self.file.close()

    def _append(self, key: str, values: Array) -> None:
        if key not in self.file:
            image = values.ndim == 4
            self.file.create_dataset(
                key,
                shape=(0, *values.shape[1:]),
                maxshape=(None, *values.shape[1:]),
                dtype=values.dtype,
                chunks=(1, *values.shape[1:]) if image else (4096, *values.shape[1:]),
                # gzip: lzf's bytes differ from run to run. Shuffling brings the like exponents of an image together
                **({"compression": "gzip", "compression_opts": 1, "shuffle": True} if image else {}),
                track_times=False,
            )
        dataset = self.file[key]
        start = dataset.shape[0]
        dataset.resize(start + len(values), axis=0)
        dataset[start:] = values


def groups(rect: Rect, side: int, stride: int, ratio: int) -> Iterator[list[tuple[int, list[int]]]]:
    """Yield the rows of windows in a rectangle, a few at a time: what is read in one go."""
    rows = list(windows(rect, side, stride, ratio))
    rows = [row for row in rows if row[1]]
    count = max(1, _ROWS * stride // side)
    for start in range(0, len(rows), count):
        yield rows[start : start + count]


def cut_windows(
    source: Source,
    rect: Rect,
    side: int,
    stride: int,
    scene: tuple[int, int],
    writer: PatchWriter,
    step: Callable[[], None],
) -> int:
    """Degrade a rectangle of a scene and append its windows to a file.

    Args:
        source: the image.
        rect: a block of one split, in MS pixels.
        side: of a window.
        stride: between windows.
        scene: index of the scene in the file, and first row of this image in it (tiles count as stacked).
        writer: of the split's file.
        step: called after every group of windows.

    Returns:
        Number of windows left out because something they depend on is nodata.
    """
    left_out, ratio = 0, source.ratio
    for rows in groups(rect, side, stride, ratio):
        top, left = rows[0][0], rows[0][1][0]
        block = source.read(top, left, rows[-1][0] + side - top, rows[0][1][-1] + side - left)
        for row, cols in rows:
            kept = [col for col in cols if block.clean[row - top :, col - left :][:side, :side].all()]
            left_out += len(cols) - len(kept)
            if kept:
                places = [(row - top, col - left) for col in kept]
                images = {
                    "gt": _windows(block.gt, places, side),
                    "ms": _windows(block.ms, [(r // ratio, c // ratio) for r, c in places], side // ratio),
                    "lms": _windows(block.lms, places, side),
                    "pan": _windows(block.pan, places, side),
                }
                writer.add(images, scene[0], [(scene[1] + row, col) for col in kept])
        step()
    return left_out


def cut_full(source: PairSource, rect: Rect, side: int, scene: int, writer: PatchWriter) -> None:
    """Append the full-resolution windows of a rectangle: original PAN and MS, and MS on PAN's grid.

    Args:
        source: the scene.
        rect: a block of MS pixels.
        side: of a window in MS pixels.
        scene: index of the scene in the file.
        writer: of the file.
    """
    ratio, pair = source.ratio, source.pair
    for row, cols in windows(rect, side, side, ratio):
        for col in cols:
            at = (source.origin[0] + row, source.origin[1] + col)
            axes = (pair.grid.rows, pair.grid.cols)
            # the PAN pixel on the window's corner; where the grids run in opposite directions it is the last MS pixel's
            starts = [
                round(axis.to_pan(first - 0.5 if axis.scale > 0 else first + side - 0.5) + 0.5)
                for axis, first in zip(axes, at, strict=True)
            ]
            starts = [min(max(0, s), size - side * ratio) for s, size in zip(starts, pair.shape, strict=True)]
            if min(starts) < 0:
                continue
            tile = pair.read(starts[0], starts[1], side * ratio, side * ratio)
            ms, valid = pair.read_ms(*at, side, side)
            if tile.valid.all() and valid.all():
                flips = tuple(slice(None, None, 1 if axis.scale > 0 else -1) for axis in axes)
                images = {"ms": ms[:, *flips][None], "lms": tile.ms_up[None], "pan": tile.pan[None]}
                writer.add(images, scene, [(row, col)])


def _windows(image: Array, places: list[tuple[int, int]], side: int) -> Array:
    """Cut square windows: (bands, h, w) -> (n, bands, side, side)."""
    return np.stack([image[:, row : row + side, col : col + side] for row, col in places])
