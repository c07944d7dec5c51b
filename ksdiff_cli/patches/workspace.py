"""The hidden folder beside the output, in which patches grow: a killed run leaves it, and the same command goes on.

Everything in it appears under its name by a rename, hence is complete or absent.
"""

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ksdiff_cli.files.workdir import IDENTITY, Claim, open_workdir, write_note
from ksdiff_cli.files.writing import remove_growing
from ksdiff_cli.numerics.moments import SceneStatistics
from ksdiff_cli.patches.parts import FileName, Part

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
