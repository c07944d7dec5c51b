"""What people see: progress and notes on stderr, data on stdout."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from ksdiff_cli.progress import ProgressCallback, silent

stdout = Console(highlight=False)
stderr = Console(stderr=True, highlight=False)


@contextmanager
def progress(title: str, *, quiet: bool = False) -> Iterator[ProgressCallback]:
    """Yield a callback that draws one bar on stderr; it draws nothing with ``quiet`` or when stderr is no terminal."""
    if quiet or not stderr.is_terminal:
        yield silent
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=stderr, transient=True) as bar:
        task = bar.add_task(title, total=None, note="")

        def report(done: int, total: int, note: str = "") -> None:
            bar.update(task, completed=done, total=total, note=note)

        yield report


def note(message: str, *, quiet: bool = False) -> None:
    """Print one line for people on stderr."""
    if not quiet:
        stderr.print(message, soft_wrap=True, markup=False)


def print_json(value: dict[str, Any]) -> None:
    """Print one JSON object on stdout, alone, so that it can be piped."""
    print(json.dumps(value, indent=2, ensure_ascii=False))
