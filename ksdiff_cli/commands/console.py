"""What people see: progress and notes on stderr, data on stdout."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

from ksdiff_cli.errors import printable
from ksdiff_cli.files.names import as_json
from ksdiff_cli.progress import ProgressCallback, silent

_WIDE = 200  # columns of a table that goes into a file or a pipe


class SafeConsole(Console):
    """A console that spells out what names would do to a terminal."""

    def __init__(self, **how: Any) -> None:
        """Take what :class:`rich.console.Console` takes; numbers and ``:smile:`` stay as they are."""
        super().__init__(highlight=False, emoji=False, **how)

    def render_str(self, text: str, **how: Any) -> Text:
        """See :class:`rich.console.Console`: texts, and cells of tables, pass here."""
        return super().render_str(printable(text), **how)


stdout = SafeConsole()
stderr = SafeConsole(stderr=True)


def cell(text: str) -> str:
    """Return a name as a table's cell shows it, brackets and all."""
    return escape(printable(text))


def print_table(table: Any) -> None:
    """Print a table on stdout, wide enough for names where that is no terminal."""
    (stdout if stdout.is_terminal else SafeConsole(width=_WIDE)).print(table)


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
        TextColumn("{task.fields[note]}", markup=False),
    )
    with Progress(*columns, console=stderr, transient=True) as bar:
        task = bar.add_task(title, total=None, note="")

        def report(done: int, total: int, note: str = "") -> None:
            bar.update(task, completed=done, total=total, note=printable(note))

        yield report


def note(message: str, *, quiet: bool = False) -> None:
    """Print one line for people on stderr."""
    if not quiet:
        stderr.print(message, soft_wrap=True, markup=False)


def print_json(value: dict[str, Any]) -> None:
    """Print one JSON object on stdout, alone, so that it can be piped."""
    print(as_json(value))
