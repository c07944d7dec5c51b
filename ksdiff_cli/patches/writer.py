"""Patch files: HDF5 with PanCollection's keys and layout, one image a chunk, so that shuffled reading is cheap.

A file is made of parts, small files of the same layout: a part is complete or absent, whenever the program dies.
"""

import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ksdiff_cli.files.writing import atomic_write
from ksdiff_cli.numerics import Array
from ksdiff_cli.numerics.moments import SceneStatistics
from ksdiff_cli.patches.masks import REASONS

FORMAT_VERSION = 1
_IMAGES = ("gt", "ms", "lms", "pan")
_LISTS = ("scene", "origin", "left_out")


class _Sink(io.FileIO):
    """What HDF5 writes into. After a failed write, e.g. on a full disk, HDF5 can neither go on nor close nor exit.

    So it never hears of one: the first error is kept, what comes later is dropped, and :meth:`check` raises.
    """

    error: OSError | None = None

    def write(self, data: Any) -> int:
        """Write all of ``data``, unless an earlier write failed."""
        view = memoryview(data).cast("B")
        done = 0
        while done < len(view) and self.error is None:
            try:
                done += super().write(view[done:])
            except OSError as error:
                self.error = error
        return len(view)

    def truncate(self, size: int | None = None) -> int:
        """Set the file's length, unless an earlier write failed."""
        if self.error is None:
            try:
                return super().truncate(size)
            except OSError as error:
                self.error = error
        return size or 0

    def check(self) -> None:
        """Raise what went wrong, if anything did.

        Raises:
            OSError: the first error.
        """
        if self.error is not None:
            raise self.error


@contextmanager
def _new_file(target: Path) -> Iterator[tuple[Any, Callable[[], None]]]:
    """Open a new HDF5 file that appears under its name when the block ends well; also yield what checks the disk."""
    with atomic_write(target, sync=True) as growing, _Sink(growing, "w+") as sink:
        with h5py.File(sink, "w") as file:
            yield file, sink.check
        sink.check()


class PatchWriter:
    """Appends images to one part. All images of a part have one size; the same calls give the same bytes."""

    def __init__(self, file: Any, check: Callable[[], None]) -> None:
        """Take an open, empty HDF5 file and what checks the disk; datasets are made with the first images."""
        self._file, self._check = file, check
        self._scenes: list[int] = []
        self._origins: list[tuple[int, int]] = []
        self._left_out: list[tuple[int, int, int, int]] = []

    def add(self, images: Mapping[str, Array], scene: int, origins: Sequence[tuple[int, int]]) -> None:
        """Append images.

        Args:
            images: by key (gt, ms, lms, pan), (n, channels, h, w), DN; stored as float32.
            scene: index of the scene they come from.
            origins: n rows and columns of their first pixel, in MS pixels of the scene.
        """
        self._scenes += [scene] * len(origins)
        self._origins += origins
        for key, values in images.items():
            if key not in self._file:
                _image_dataset(self._file, key, 0, values.shape[1:])
            dataset = self._file[key]
            start = dataset.shape[0]
            dataset.resize(start + len(values), axis=0)
            dataset[start:] = values.astype(np.float32, copy=False)
        self._check()

    def leave_out(self, scene: int, origin: tuple[int, int], reason: int) -> None:
        """Remember a window that was not fit: its scene, its first row and column, and an index of REASONS."""
        self._left_out.append((scene, *origin, reason))

    def finish(self) -> None:
        """Write where the images come from, and what was left out."""
        lists = (self._scenes, self._origins, self._left_out)
        for key, values, shape in zip(_LISTS, lists, ((-1,), (-1, 2), (-1, 4)), strict=True):
            self._file.create_dataset(key, data=np.array(values, np.int32).reshape(shape), track_times=False)


@contextmanager
def new_part(path: Path) -> Iterator[PatchWriter]:
    """Open a new part; it appears under its name when the block ends well."""
    with _new_file(path) as (file, check):
        writer = PatchWriter(file, check)
        yield writer
        writer.finish()


def join_parts(
    parts: Sequence[Path],
    target: Path,
    statistics: Sequence[SceneStatistics],
    attributes: Mapping[str, Any],
    check: Callable[[], None],
) -> None:
    """Join parts into one file, which appears under its name when it is complete; images stay compressed.

    Args:
        parts: in order.
        target: the file.
        statistics: of every scene.
        attributes: of the file; lists and dicts become JSON.
        check: called after every part; may raise to stop.
    """
    with _new_file(target) as (file, check_disk):
        lists = gather_lists(parts)
        for key, values in lists.items():
            file.create_dataset(key, data=values, track_times=False)
        start = 0
        for path in parts:
            with h5py.File(path) as part:
                _copy_images(part, file, start, len(lists["scene"]))
                start += len(part["scene"])
            check()
            check_disk()
        columns = {
            "scene_pan_mean": [each.pan_mean for each in statistics],
            "scene_pan_std": [each.pan_std for each in statistics],
            "scene_ms_mean": [each.ms_mean for each in statistics],
            "scene_ms_std": [each.ms_std for each in statistics],
        }
        for key, numbers in columns.items():
            file.create_dataset(key, data=np.array(numbers, np.float64), track_times=False)
        reasons = {name: int((lists["left_out"][:, 3] == index).sum()) for index, name in enumerate(REASONS)}
        for key, value in sorted({**attributes, "left_out": reasons, "left_out_reasons": list(REASONS)}.items()):
            file.attrs[key] = json.dumps(value, sort_keys=True) if isinstance(value, list | dict) else value


def gather_lists(files: Sequence[Path]) -> dict[str, Array]:
    """Return scene (n,), origin (n, 2) and left_out (m, 4: scene, row, column, reason) of parts or files, int32."""
    shapes = ((0,), (0, 2), (0, 4))
    found: dict[str, list[Array]] = {key: [np.empty(s, np.int32)] for key, s in zip(_LISTS, shapes, strict=True)}
    for path in files:
        with h5py.File(path) as file:
            for key in _LISTS:
                found[key].append(file[key][:])
    return {key: np.concatenate(values) for key, values in found.items()}


def _copy_images(part: Any, file: Any, start: int, total: int) -> None:
    """Copy a part's images as they are compressed, image by image, so that what is read together lies together."""
    keys = [key for key in _IMAGES if key in part]
    for key in keys:
        if key not in file:
            _image_dataset(file, key, total, part[key].shape[1:])
    pairs = [(part[key].id, file[key].id) for key in keys]  # to find a dataset takes longer than to copy an image
    for index in range(len(part["scene"])):
        for read, written in pairs:
            mask, chunk = read.read_direct_chunk((index, 0, 0, 0))
            written.write_direct_chunk((start + index, 0, 0, 0), chunk, mask)


def _image_dataset(file: Any, key: str, count: int, shape: tuple[int, ...]) -> None:
    file.create_dataset(
        key,
        shape=(count, *shape),
        maxshape=(None, *shape),
        dtype=np.float32,
        chunks=(1, *shape),
        # gzip: lzf's bytes differ from run to run. Shuffling brings the like exponents of an image together
        compression="gzip",
        compression_opts=1,
        shuffle=True,
        track_times=False,
    )
