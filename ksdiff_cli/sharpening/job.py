"""The hidden folder beside the output that holds finished windows: a killed run leaves it, the same command goes on.

A finished window is a file of its own, a *shard*, that appears under its name by a rename, hence is whole or absent:
its being there is the journal. Nothing else about the progress is stored, so a :class:`Job` is all that a process needs
to make any window of it.
"""

import json
import os
import re
import shutil
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from glob import escape
from pathlib import Path
from typing import Any, Self

import numpy as np
import rasterio
from rasterio.errors import RasterioError
from rasterio.transform import Affine
from rasterio.windows import Window

from ksdiff_cli.errors import KsdiffError
from ksdiff_cli.files.content import State
from ksdiff_cli.files.workdir import IDENTITY, Claim, Workdir, empty_folder, lock_folder, open_workdir, remove_old
from ksdiff_cli.files.writing import SHARED, atomic_write
from ksdiff_cli.numerics import Array
from ksdiff_cli.numerics.boxes import ALIGN, Box
from ksdiff_cli.output.pixels import PixelFormat
from ksdiff_cli.raster.open import first_line
from ksdiff_cli.raster.pair import ScenePair
from ksdiff_cli.sharpening.plan import GB, Plan

BLOCK = 128
"""Side of a shard's blocks: small, because its borders are read once more with its neighbours; yet each costs time."""
_ASSEMBLED = "assembled"
_SHARD, _EMPTY = ".tif", ".empty"


class OpenShards:
    """The shards read last, still open: opening one takes longer than reading its border."""

    _MOST = 12  # a piece of the output and the neighbours of it whose borders are looked at, and the next ones

    def __init__(self) -> None:
        """Start with none."""
        self._datasets: OrderedDict[Path, Any] = OrderedDict()

    def find(self, path: Path) -> Any:
        """Return a shard, open."""
        if path not in self._datasets:
            self._datasets[path] = rasterio.open(path)
            if len(self._datasets) > self._MOST:
                self._datasets.popitem(last=False)[1].close()
        self._datasets.move_to_end(path)
        return self._datasets[path]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        while self._datasets:
            self._datasets.popitem()[1].close()


@dataclass
class Job:
    """The shards of one output."""

    folder: Path
    plan: Plan
    bands: int
    pixels: PixelFormat
    place: Mapping[str, Any]
    """The whole scene's ``transform`` and ``crs``, see :func:`place_of`; each shard carries its own."""

    def shard(self, number: int) -> Path:
        """Return where a window's shard is, or will be."""
        core = self.plan.tiling.core(number)
        return self.folder / f"r{core.top:06d}_c{core.left:06d}{_SHARD}"

    def missing(self) -> list[int]:
        """Return the windows that are not finished, in order; a shard that is cut off does not count."""
        found = {entry.name: entry.stat().st_size for entry in os.scandir(self.folder)}
        return [
            number
            for number in self.plan.numbers
            if found.get(self.shard(number).name, -1) < self._least(number)
            and self.shard(number).with_suffix(_EMPTY).name not in found
        ]

    def has(self, number: int) -> bool:
        """Say whether a window is finished, see :meth:`missing`."""
        path = self.shard(number)
        try:
            return path.stat().st_size >= self._least(number)
        except FileNotFoundError:
            return path.with_suffix(_EMPTY).exists()

    def store(self, number: int, values: Array | None) -> None:
        """Finish a window: its shard is on the disk, and not only on its way there, before it gets its name.

        Args:
            number: of the window.
            values: (bands, height, width) of :meth:`Plan.part`, encoded; None where no pixel is valid.

        Raises:
            KsdiffError: it cannot be written.
        """
        path = self.shard(number)
        path = path.with_suffix(_EMPTY) if values is None else path
        try:
            with atomic_write(path, sync=True, shared=True) as growing:
                growing.write_bytes(b"" if values is None else self._encoded(number, values))
        except OSError as error:
            raise KsdiffError(f"{path}: cannot be written ({error.strerror}); make room there") from None

    def load(self, box: Box, opened: OpenShards | None = None) -> Array:
        """Read finished pixels, across shards.

        Args:
            box: any part of the region.
            opened: keeps shards open for the next call, where boxes follow each other.

        Returns:
            (bands, height, width), encoded.

        Raises:
            KsdiffError: a shard is damaged.
        """
        out = np.empty((self.bands, box.height, box.width), self.pixels.dtype)
        # GDAL would list the folder, which may hold a hundred thousand files, each time that it opens one
        with rasterio.Env(GDAL_DISABLE_READDIR_ON_OPEN="EMPTY_DIR"), ExitStack() as stack:
            opened = opened or stack.enter_context(OpenShards())
            for number in self.plan.tiling.touching(box):
                part = self.plan.part(number)
                shared = part.meet(box)
                if shared.empty:
                    continue
                piece = out[:, *shared.within(box)]
                if self.shard(number).with_suffix(_EMPTY).exists():
                    piece[...] = self._nothing
                else:
                    self._read(opened, number, shared.within(part), piece)
        return out

    def nothing(self, box: Box) -> Array:
        """Return what :meth:`load` reads where no pixel is valid."""
        return np.full((self.bands, box.height, box.width), self._nothing, self.pixels.dtype)

    @property
    def _nothing(self) -> float:
        return 0 if self.pixels.nodata is None else self.pixels.nodata

    def valid(self, image: Array) -> Array:
        """Say where pixels from :meth:`load` are valid, (height, width): encoding keeps such values off nodata."""
        return self.pixels.valid(image)

    def check_space(self, missing: list[int], output: int) -> None:
        """Foresee a full disk.

        Args:
            missing: windows that will be written.
            output: bytes that the output takes besides.

        Raises:
            KsdiffError: there is too little room for both.
        """
        needed = sum(self._least(number) for number in missing) + output
        free = shutil.disk_usage(self.folder).free
        if needed > free:
            raise KsdiffError(
                f"{self.folder.parent}: has {free / GB:.2f} GB of free space, but the output and the windows on the "
                f"way to it take {needed / GB:.2f} GB; make room there or choose another folder with -o"
            )

    def _read(self, opened: OpenShards, number: int, place: tuple[slice, slice], out: Array) -> None:
        path = self.shard(number)
        try:
            opened.find(path).read(window=Window.from_slices(*place), out=out)
        except RasterioError as error:
            raise KsdiffError(f"{path}: is damaged ({first_line(error)}); start anew with --no-resume") from None

    def _least(self, number: int) -> int:
        """Bytes of a window's pixels."""
        return self.plan.part(number).pixels * self.bands * self.pixels.dtype.itemsize

    def _encoded(self, number: int, values: Array) -> memoryview:
        """Return a shard's file: made in memory, because only Python's own writing tells of every full disk."""
        part = self.plan.part(number)
        profile: dict[str, Any] = {
            "driver": "GTiff",
            "height": part.height,
            "width": part.width,
            "count": self.bands,
            "dtype": self.pixels.dtype.name,
            "nodata": self.pixels.nodata,
            "interleave": "band",
            "tiled": True,
            "blockysize": min(BLOCK, -(-part.height // ALIGN) * ALIGN),
            "blockxsize": min(BLOCK, -(-part.width // ALIGN) * ALIGN),
            "bigtiff": "if_safer",
        }
        transform = self.place["transform"] @ Affine.translation(part.left, part.top)
        with rasterio.MemoryFile() as memory:
            with memory.open(**profile, **{**self.place, "transform": transform}) as dataset:
                dataset.write(values)
            return memoryview(bytes(memory.getbuffer()))


@dataclass
class Folder:
    """A job's folder, held by this process alone."""

    path: Path
    claim: Claim
    """On the output and on what the command makes of it, see :class:`ksdiff_cli.files.workdir.Claim`."""
    assembled: bool = False
    """Whether an earlier run of the same command had made the whole output: what is there of it is ours."""
    finished: bool = False
    """Whether that output has its name, too."""
    notes: list[str] = field(default_factory=list)
    """Notes for people about an earlier run found here."""
    files: Sequence[State] = ()
    """The scene's, as they were when the work began."""

    def shards(self) -> int:
        """Count finished windows."""
        return sum(entry.name.endswith((_SHARD, _EMPTY)) for entry in os.scandir(self.path))


@contextmanager
def open_folder(output: Path, facts: Mapping[str, Any], how: str, *, resume: bool, keep: bool) -> Iterator[Folder]:
    """Open the folder of an output's shards, alone; it goes when the block ends well, or fails before any is finished.

    Args:
        output: the file to be.
        facts: all that the shards depend on, for JSON; shards made of anything else are discarded.
        how: what the output depends on besides the shards.
        resume: keep the windows that an earlier run finished.
        keep: leave the folder, without windows, where the block ends well; :func:`forget` removes it.

    Raises:
        KsdiffError: another process is making the same output; or the block failed, then with the way on.
    """
    busy = f"{output}: another ksdiff sharpen (process {{owner}}) is making it; wait until it ends, or change -o"
    with open_workdir(job_folder(output), _identity(facts), busy, resume=resume) as work:
        claim = _claim(output, how)
        folder = Folder(work.path, claim, claim.stands, claim.owns(output))
        if work.discarded:
            folder.notes.append("an interrupted run with other options or inputs was found: its windows are discarded")
        try:
            _remove_unfinished(output)
            yield folder
        except BaseException as error:
            kept = folder.shards()
            if not kept and not claim.owns(output):  # a claim may be made and then nothing named, at a full disk
                work.remove()
            elif kept and isinstance(error, KsdiffError):
                raise KsdiffError(f"{error}; {kept} finished windows are kept: the same command goes on") from error
            raise
        if keep:
            empty_folder(work.path, IDENTITY, _ASSEMBLED)
        else:
            work.remove()


def forget(output: Path) -> None:
    """Remove the folder of an output that is done, with all that the command makes of it."""
    with suppress(KsdiffError), lock_folder(job_folder(output), "busy"):
        Workdir(job_folder(output)).remove()


def remove_rest(folder: Path, name: str = "*") -> None:
    """Remove what is left of the folders of outputs after kills at their very ends: all is done by then.

    Args:
        folder: where the outputs are.
        name: of one of them; else of all.
    """
    with suppress(OSError):  # a name that no file can have
        remove_old(folder, f".{name if name == '*' else escape(name)}.shards")


def owns(output: Path, other: Path, how: str) -> bool:
    """Say whether a killed run of the same command had made a file besides its output, see :class:`Claim`."""
    return _claim(output, how).owns(other)


def is_made(output: Path, facts: Mapping[str, Any], how: str) -> bool:
    """Say whether a killed run of the same command had made the whole output; see :func:`open_folder`."""
    try:
        earlier = (job_folder(output) / IDENTITY).read_text(encoding="utf-8")
    except OSError:
        return False
    return earlier == _identity(facts) and _claim(output, how).stands


def is_claimed(output: Path, other: Path | None = None) -> bool:
    """Say whether a run was killed that had made this whole output; and, if asked, was to make another file of it."""
    try:
        return _claim(output).names(other or output)
    except OSError:  # a name that no file can have
        return False


def _identity(facts: Mapping[str, Any]) -> str:
    return json.dumps(facts, indent=1, sort_keys=True, default=str)


def _claim(output: Path, how: str = "") -> Claim:
    return Claim(job_folder(output) / _ASSEMBLED, how)


def _remove_unfinished(output: Path) -> None:
    """Remove what killed runs left: whoever makes this output holds the lock."""
    for growing in job_folder(output).glob(f"*{SHARED}"):
        growing.unlink(missing_ok=True)  # a worker of a killed run may be about to finish it
    # the writers of outputs put the process's number into the names of what is not whole yet
    own, number = rf"\.{re.escape(output.name)}\.\d+", r"\.\d+"
    left = [rf"{own}(\.(partial|whole|tiles|tfw|wld|RPB)|_RPC\.TXT).*", rf"\.{own}\.whole\.tif{number}\.partial.*"]
    pattern = re.compile("|".join(left), re.DOTALL)
    for growing in list(output.parent.iterdir()):
        if pattern.fullmatch(growing.name):
            shutil.rmtree(growing) if growing.is_dir() else growing.unlink(missing_ok=True)


def job_folder(output: Path) -> Path:
    """Return the folder in which an output's windows are kept until it is whole.

    Raises:
        KsdiffError: the output has no name, as ``.`` has none.
    """
    if not output.name:
        raise KsdiffError(f"{output}: is a folder; name the file to write")
    return output.with_name(f".{output.name}.shards")


def earlier_tile(output: Path) -> int | None:
    """Return the side of the windows, in PAN pixels, that an interrupted run left; None where there is none."""
    try:
        tile = json.loads((job_folder(output) / IDENTITY).read_text())["cut"]["tile"]
    except (OSError, ValueError, LookupError, TypeError):
        return None
    return tile if isinstance(tile, int) else None


def place_of(pair: ScenePair) -> dict[str, Any]:
    """Return the georeference that shards carry: the pair's, or rows downwards and columns."""
    if pair.located:
        return {"crs": pair.crs, "transform": pair.transform}
    return {"transform": Affine(1, 0, -0.5, 0, -1, 0.5)}  # the unit matrix would count as none
