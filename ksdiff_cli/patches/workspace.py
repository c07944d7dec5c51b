"""The hidden folder beside the output, in which patches grow: a killed run leaves it, and the same command goes on.

Everything in it appears under its name by a rename, hence is complete or absent.
"""

import json
import math
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ksdiff_cli.files.workdir import IDENTITY, Claim, open_workdir, write_note
from ksdiff_cli.files.writing import remove_growing
from ksdiff_cli.numerics.boxes import Box
from ksdiff_cli.numerics.moments import SceneStatistics
from ksdiff_cli.patches.cutting import groups
from ksdiff_cli.patches.layout import SPLITS, common_side, windows
from ksdiff_cli.patches.plan import Plan

FileName = Literal["train", "valid", "test", "full"]
FILES: tuple[FileName, ...] = (*SPLITS, "full")

_TEST_SIDE = 256  # PanCollection's
_FULL_SIDE = 512  # PAN pixels, PanCollection's
_PART_WINDOWS = 512  # a part is full once it has so many; a killed run loses one part at most


@dataclass(frozen=True)
class Cut:
    """How windows are cut: all images of a file have one size."""

    sides: dict[FileName, int]
    """Side of the images, in pixels of gt (of PAN for ``full``)."""
    strides: dict[FileName, int]
    """Between windows of train, valid and test, in the same pixels."""


@dataclass
class Part:
    """A piece of one file, from one scene: made in one go, or made again."""

    name: str
    file: FileName
    scene: int
    blocks: list[tuple[int, Box]] = field(default_factory=list)
    """Index of the scene's image, and a rectangle in it."""
    windows: int = 0
    """Before any is left out."""
    steps: int = 0
    """Of progress."""


def choose_cut(plans: list[Plan], patch: int) -> Cut:
    """Choose sizes that suit the blocks of all scenes.

    Args:
        plans: at least one.
        patch: side of a training patch in MS pixels.
    """
    ratio = plans[0].ratio
    step = math.lcm(8, ratio)
    test = [rect.side for plan in plans for rect in plan.blocks("test")]
    side = common_side(test, patch, _TEST_SIDE, step)
    held = test or [rect.side for plan in plans for rect in plan.blocks("valid")]
    full = common_side(held, patch, _FULL_SIDE // ratio, step)
    half = max(ratio, patch // 2 // ratio * ratio)
    sides: dict[FileName, int] = {"train": patch, "valid": patch, "test": side, "full": full * ratio}
    return Cut(sides, {**sides, "train": half, "valid": half})


def lay_parts(plans: list[Plan], cut: Cut) -> list[Part]:
    """Divide all blocks of all scenes into parts; in each file the images follow the parts' order."""
    parts: list[Part] = []
    for index, plan in enumerate(plans):
        for file in FILES:
            part = None
            for number, rect in _blocks(plan, file):
                if part is None or part.windows >= _PART_WINDOWS:
                    part = Part(f"{file}-{len(parts):05d}", file, index)
                    parts.append(part)
                count, steps = _count(rect, file, plan.ratio, cut)
                part.blocks.append((number, rect))
                part.windows += count
                part.steps += steps
    return parts


def _blocks(plan: Plan, file: FileName) -> list[tuple[int, Box]]:
    if file == "full":
        return [(0, rect) for rect in plan.blocks("test") or plan.blocks("valid")] if plan.full else []
    return [(number, rect) for number, regions in enumerate(plan.regions) for rect in regions[file]]


def _count(rect: Box, file: FileName, ratio: int, cut: Cut) -> tuple[int, int]:
    """Windows of a rectangle, and steps that cutting them takes."""
    side, stride = cut.sides[file], cut.strides[file]
    if file == "full":
        rows = list(windows(rect, side // ratio, side // ratio, ratio))
        return sum(len(cols) for _, cols in rows), len(rows)
    batches = list(groups(rect, side, stride, ratio))
    return sum(len(cols) for rows in batches for _, cols in rows), len(batches)


_OUT, _CLAIM = "out", "published"


@dataclass
class Workspace:
    """What is finished so far of one set of patches."""

    folder: Path
    out: Path
    """Folder of finished files; it becomes the output."""
    claim: Claim
    """On the output, see :class:`ksdiff_cli.files.workdir.Claim`."""
    notes: list[str] = field(default_factory=list)
    """Notes for people about an earlier run found here."""

    def part(self, part: Part) -> Path:
        """Return where a part is, or will be."""
        return self.folder / f"{part.name}.h5"

    def has(self, part: Part) -> bool:
        """Say whether a part is finished, by itself or within its file."""
        return self.part(part).exists() or self.joined(part.file).exists()

    def joined(self, file: FileName) -> Path:
        """Return where a file of all its parts is, or will be."""
        return self.out / f"{file}.h5"

    def pieces(self, file: FileName, parts: list[Part]) -> list[Path]:
        """Return what holds a file's images: the file itself or its finished parts."""
        if self.joined(file).exists():
            return [self.joined(file)]
        return [self.part(part) for part in parts if part.file == file]

    def statistics(self, name: str, gather: Callable[[], SceneStatistics]) -> SceneStatistics:
        """Return statistics that an earlier run gathered, or gather them."""
        path = self.folder / f"{name}.json"
        if path.exists():
            pan_mean, pan_std, ms_mean, ms_std = json.loads(path.read_text())
            return SceneStatistics(pan_mean, pan_std, np.array(ms_mean), np.array(ms_std))
        found = gather()
        values = [found.pan_mean, found.pan_std, found.ms_mean.tolist(), found.ms_std.tolist()]
        write_note(path, json.dumps(values))
        return found

    def holds_something(self) -> bool:
        """Say whether anything is finished that another run need not make again."""
        return any(path.suffix in (".h5", ".json") and path.name != IDENTITY for path in self.folder.rglob("*"))

    def publish(self, output: Path) -> None:
        """Put the finished folder where the output is wanted; what was there goes only once the new one is whole."""
        if self.out == output:  # as a run did that was killed right after
            return
        self.claim.make(output)
        if output.exists():
            output.rename(_replaced(output))
        self.out.rename(output)
        shutil.rmtree(_replaced(output), ignore_errors=True)


def workspace_folder(output: Path) -> Path:
    """Return the folder in which an output grows."""
    output = output.resolve()
    return output.with_name(f".{output.name}.partial")


def _replaced(output: Path) -> Path:
    """Return where an older set of patches is for the moment in which another one takes its place."""
    return output.with_name(f".{output.name}.replaced")


def _settle_replaced(output: Path) -> None:
    """Put an older set of patches back, or remove it, after a run was killed in that moment."""
    if not output.exists() and _replaced(output).exists():
        _replaced(output).rename(output)
    shutil.rmtree(_replaced(output), ignore_errors=True)


def is_published(output: Path, made_of: dict[str, Any] | None = None) -> bool:
    """Say whether a run was killed right after it had put its output in place.

    Args:
        output: the folder.
        made_of: all that the result depends on; None asks for a run of whatever.
    """
    folder = workspace_folder(output)
    try:
        same = made_of is None or (folder / IDENTITY).read_text(encoding="utf-8") == _identity(made_of)
    except OSError:
        return False
    return same and Claim(folder / _CLAIM).owns(output.resolve())


def _identity(made_of: dict[str, Any]) -> str:
    return json.dumps(made_of, indent=1, sort_keys=True, default=str)


@contextmanager
def open_workspace(output: Path, made_of: dict[str, Any], *, resume: bool) -> Iterator[Workspace]:
    """Open the workspace of an output, alone.

    It goes when the block ends well and when the input turns out to be bad. It stays, if it holds anything finished,
    after an interrupt or a full disk.

    Args:
        output: the folder to be.
        made_of: all that the result depends on, for JSON; parts made of anything else are discarded.
        resume: keep parts that an earlier run finished.

    Raises:
        KsdiffError: another process is making the same output.
    """
    folder = workspace_folder(output)
    busy = (
        f"{output}: another ksdiff prepare-data (process {{owner}}) is making it; wait until it ends, or choose "
        "another folder with -o"
    )
    place = output.resolve()
    with open_workdir(folder, _identity(made_of), busy, resume=resume) as work:
        _settle_replaced(place)
        claim = Claim(folder / _CLAIM)
        whole = claim.owns(place) and not (folder / _OUT).exists()
        workspace = Workspace(folder, place if whole else folder / _OUT, claim)
        if work.discarded:
            workspace.notes.append("an interrupted run with other options or scenes was found: its parts are discarded")
        workspace.out.mkdir(exist_ok=True)
        for each in (folder, folder / _OUT):
            remove_growing(each)
        try:
            yield workspace
        except BaseException as error:
            bad_input = isinstance(error, Exception) and not isinstance(error, OSError | MemoryError)
            if bad_input or not workspace.holds_something():
                work.remove()
            raise
        work.remove()
