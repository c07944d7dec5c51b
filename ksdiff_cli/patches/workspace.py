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

from ksdiff_cli.patches.parts import FileName, Part
from ksdiff_cli.raster import SceneStatistics
from ksdiff_cli.resuming import empty_folder, lock_folder, write_note
from ksdiff_cli.whole_file import remove_growing

_MANIFEST, _OUT = "manifest.json", "out"


@dataclass
class Workspace:
    """What is finished so far of one set of patches."""

    folder: Path
    notes: list[str] = field(default_factory=list)
    """What a person should know about an earlier run found here."""

    @property
    def out(self) -> Path:
        """Folder of finished files; it becomes the output."""
        return self.folder / _OUT

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
        return any(path.suffix in (".h5", ".json") and path.name != _MANIFEST for path in self.folder.rglob("*"))

    def publish(self, output: Path) -> None:
        """Put the finished folder where the output is wanted; what was there goes only once the new one is whole."""
        if output.exists():
            old = self.folder / "replaced"
            shutil.rmtree(old, ignore_errors=True)  # of a run that was killed right here
            output.rename(old)
        self.out.rename(output)


def workspace_folder(output: Path) -> Path:
    """Return the folder in which an output grows."""
    output = output.resolve()
    return output.with_name(f".{output.name}.partial")


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
    lock = lock_folder(folder, busy)
    try:
        workspace = Workspace(folder)
        try:
            _settle(workspace, json.dumps(made_of, indent=1, sort_keys=True, default=str), resume)
            yield workspace
        except BaseException as error:
            bad_input = isinstance(error, Exception) and not isinstance(error, OSError | MemoryError)
            if bad_input or not workspace.holds_something():
                shutil.rmtree(folder, ignore_errors=True)
            raise
        shutil.rmtree(folder)
    finally:
        lock.close()


def _settle(workspace: Workspace, made_of: str, resume: bool) -> None:
    """Keep what an earlier run of the same command finished, or clear it away."""
    manifest = workspace.folder / _MANIFEST
    earlier = manifest.read_text() if manifest.exists() else None
    if earlier is not None and (earlier != made_of or not resume):
        if resume:
            workspace.notes.append("an interrupted run with other options or scenes was found: its parts are discarded")
        manifest.unlink()
        earlier = None
    if earlier is None:
        empty_folder(workspace.folder)
        write_note(manifest, made_of)
    workspace.out.mkdir(exist_ok=True)
    for place in (workspace.folder, workspace.out):
        remove_growing(place)
