"""What people see: progress and notes on stderr, data on stdout."""

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

from ksdiff_cli.checks import OTHER_METHODS
from ksdiff_cli.errors import KsdiffError, printable
from ksdiff_cli.files.writing import as_json
from ksdiff_cli.progress import ProgressCallback, silent

PROGRESS = "KSDIFF_PROGRESS"
_WIDE = 200  # columns of a table that goes into a file or a pipe


class SafeConsole(Console):
    """A console that spells out what names would do to a terminal."""

    def __init__(self, **how: Any) -> None:
        """Take what :class:`rich.console.Console` takes; numbers and ``:smile:`` stay as they are."""
        super().__init__(highlight=False, emoji=False, **how)

    def print(self, *objects: Any, **how: Any) -> None:
        """See :class:`rich.console.Console`.

        Raises:
            KsdiffError: standard output takes no more. What standard error does not take is lost.
        """
        with _taken(lost=self.stderr):
            super().print(*objects, **how)

    def render_str(self, text: str, **how: Any) -> Text:
        """See :class:`rich.console.Console`: texts, and cells of tables, pass here."""
        return super().render_str(printable(text), **how)


stdout = SafeConsole()
stderr = SafeConsole(stderr=True)


@contextmanager
def _taken(*, lost: bool = False) -> Iterator[None]:
    """Say in one line that standard output takes no more, unless that is no loss; who closes a pipe wants no more."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        if not lost:
            raise KsdiffError(f"standard output: cannot be written ({error.strerror})") from None


def cell(text: str) -> str:
    """Return a name as a table's cell shows it, brackets and all."""
    return escape(printable(text))


def print_table(table: Any) -> None:
    """Print a table on stdout, wide enough for names where that is no terminal."""
    (stdout if stdout.is_terminal else SafeConsole(width=_WIDE)).print(table)


@contextmanager
def progress(title: str, *, quiet: bool = False) -> Iterator[ProgressCallback]:
    """Yield a callback that draws one bar on stderr; it draws nothing with ``quiet`` or when stderr is no terminal.

    Programs that call ksdiff set KSDIFF_PROGRESS=lines: then it writes ``progress DONE TOTAL WHAT``, a line a percent.
    """
    if os.environ.get(PROGRESS) == "lines" and not quiet:
        yield _Lines(title)
        return
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


class _Lines:
    """Progress for programs."""

    def __init__(self, title: str) -> None:
        self._title, self._last = title, ("", -1)

    def __call__(self, done: int, total: int, note: str = "") -> None:
        """Write a line where another percent, or another part of the work, is reached."""
        now = note, 100 * done // max(1, total)
        if now != self._last:
            self._last = now
            print(f"progress {done} {total} {printable(note or self._title)}", file=sys.stderr, flush=True)


def note(message: str, *, quiet: bool = False) -> None:
    """Print one line for people on stderr."""
    if not quiet:
        stderr.print(message, soft_wrap=True, markup=False)


def print_json(value: dict[str, Any]) -> None:
    """Print one JSON object on stdout, alone, so that it can be piped."""
    with _taken():
        print(as_json(value), flush=True)


# ---- mistyped command lines


def is_usage(error: Exception) -> bool:
    """Say whether an exception is about the command line itself; known by what it can do, not to import a parser."""
    return hasattr(error, "format_message") and type(error).__name__ != "NoArgsIsHelpError"


def explain(error: Any, command: str) -> str:
    """Put a usage error into one line.

    Args:
        error: the parser's exception, or a ``typer.BadParameter`` raised by a command.
        command: what was called, e.g. ``ksdiff sharpen``.
    """
    help_line = f"see {command} --help"
    parameter = getattr(error, "param", None)
    if type(error).__name__ == "MissingParameter":
        names = " or ".join(_names(parameter))
        return f"{names} is missing: {_first_sentence(parameter)}; {help_line}"
    if possibilities := getattr(error, "possibilities", None):
        return f"{_plain(error.message)}; did you mean {get_close_matches(error.option_name, possibilities, 1, 0)[0]}?"
    message = _plain(error.message)
    if parameter is None:
        return message if "?" in message else f"{message}; {help_line}"
    return f"{' or '.join(_names(parameter))}: {_choices(message)}; {help_line}"


def _plain(message: str) -> str:
    """Leave out what a validator puts before its own words, and the full stop."""
    return message.removeprefix("Value error, ").strip().removesuffix(".")


def _choices(message: str) -> str:
    """Name the nearest choice where something else was given."""
    found = re.search(r"'(.*?)' is not one of (.+)$", message)
    if not found:
        return message
    given, known = found[1], re.findall(r"'([^']+)'", found[2])
    if "gsa" in known and given.lower() in OTHER_METHODS:
        return f"knows no {given!r}; in its place take {OTHER_METHODS[given.lower()]}"
    lower = {name.lower(): name for name in known}
    near = get_close_matches(given.lower(), lower, 1)
    hint = f"did you mean {lower[near[0]]}? " if near else ""
    return f"knows no {given!r}; {hint}choose from {', '.join(known)}"


def _names(parameter: Any) -> list[str]:
    """Return what a parameter is called on the command line."""
    options = [name for name in getattr(parameter, "opts", []) if name.startswith("-")]
    return options or [str(parameter.metavar or parameter.name).upper()]


def _first_sentence(parameter: Any) -> str:
    text = str(getattr(parameter, "help", "") or "")
    return re.split(r"[.;:] ", text)[0].removesuffix(".").strip()
