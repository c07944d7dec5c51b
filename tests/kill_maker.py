"""Runs a command line again and again in a process of its own, killed at every moment at which files get their names.

``python kill_maker.py`` reads a :class:`Trial` as JSON from standard input and writes what it found of each kill.
"""

import hashlib
import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
from contextlib import redirect_stderr, suppress
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import typer

ROOT = Path(__file__).resolve().parents[1]
_MOMENTS = ((Path, "replace"), (Path, "rename"), (Path, "unlink"), (shutil, "rmtree"), (os, "link"))
_MOST = 60
_LOADED = {
    "metrics": ("evaluation.measure", "report.pictures", "products.scene_files"),
    "sharpen": ("sharpening.quicklook", "sharpening.workflow"),
    "simulate": ("simulation.files",),
}


@dataclass(frozen=True)
class Trial:
    """A command to be killed."""

    words: list[str]
    """The command line; it runs in a copy of the folder."""
    folder: str
    look: str = ""
    """Raster whose pixels are looked at right after each kill."""
    at: str = ""
    """Part of the names of the files before which it is killed."""


@dataclass
class Kill:
    """What one kill left, and what the same command made of it."""

    moment: str
    seen: str | None
    """Digest of the pixels of the raster that is looked at, None where it cannot be read."""
    code: int
    """Exit code of the same command, given again."""
    said: str
    files: dict[str, str]
    """All files then, with digests of their content."""


def try_kills(trial: Trial) -> tuple[Kill, list[Kill]]:
    """Return what an undisturbed run makes, and what comes of each kill."""
    one = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    given: Any = {"env": {**os.environ, **one}, "capture_output": True, "text": True}
    done = subprocess.run([sys.executable, __file__], input=json.dumps(asdict(trial)), **given)
    assert done.returncode == 0, done.stderr
    whole, *kills = (Kill(**each) for each in json.loads(done.stdout))
    return whole, kills


def run_all(trial: Trial) -> list[Kill]:
    """Kill before the first moment, then before the second, until a run ends by itself; that one comes first."""
    folder, found = Path(trial.folder), list[Kill]()
    for number in range(1, _MOST):
        work = folder.with_name("killed")
        shutil.rmtree(work, ignore_errors=True)
        shutil.copytree(folder, work, symlinks=True)
        note = folder.with_name("moment")
        code, said = _run(trial, work, number, note)
        seen = _see(work / trial.look) if trial.look else None
        if code != -signal.SIGKILL:
            return [Kill("none", seen, code, said, _digests(work)), *found]
        code, said = _run(trial, work)
        found.append(Kill(note.read_text(), seen, code, said, _digests(work)))
    raise RuntimeError(f"no end after {_MOST} kills")


def _run(trial: Trial, work: Path, number: int = 0, note: Path | None = None) -> tuple[int, str]:
    """Run the command in a child, which kills itself before its moment of that number."""
    log = work.with_name("log")
    if (child := os.fork()) == 0:
        code = 70
        try:
            file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(file, 1)
            os.dup2(file, 2)
            os.chdir(work)
            if number and note:
                _kill_at(number, note, trial.at)
            code = 0
            _command()(trial.words, standalone_mode=False)
        except SystemExit as leaving:
            code = leaving.code if isinstance(leaving.code, int) else 1
        except BaseException as error:
            code = getattr(error, "exit_code", 1)
            print(repr(error), file=sys.stderr)
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), log.read_text()


@cache
def _command() -> Any:
    """Return ksdiff's command line; the first one to be read loads what that takes."""
    command = typer.main.get_command(importlib.import_module("ksdiff_cli.main").app)
    with suppress(typer.Exit), redirect_stderr(None):
        command(["info", "no such file"], standalone_mode=False)
    return command


def _kill_at(number: int, note: Path, part: str) -> None:
    calls = []

    def deadly(name: str, work: Any) -> Any:
        def wrapped(*arguments: Any, **more: Any) -> Any:
            if part in str(arguments[0]) and os.path.lexists(arguments[0]):  # else nothing happens
                calls.append(name)
            if len(calls) == number:
                note.write_text(f"{number}: {name} {arguments[0]}")
                os.kill(os.getpid(), signal.SIGKILL)
            return work(*arguments, **more)

        return wrapped

    for place, name in _MOMENTS:
        setattr(place, name, deadly(name, getattr(place, name)))


def _see(path: Path) -> str | None:
    import rasterio

    if (child := os.fork()) == 0:
        try:
            with rasterio.open(path) as dataset:
                path.with_name("seen").write_text(hashlib.sha256(dataset.read().tobytes()).hexdigest())
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    seen = path.with_name("seen")
    text = seen.read_text() if seen.exists() else None
    seen.unlink(missing_ok=True)
    return text


def _digests(folder: Path) -> dict[str, str]:
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


if __name__ == "__main__":
    given = Trial(**json.load(sys.stdin))
    for name in _LOADED[given.words[0]]:  # once for all children
        importlib.import_module(f"ksdiff_cli.{name}")
    _command()
    print(json.dumps([asdict(kill) for kill in run_all(given)]))
