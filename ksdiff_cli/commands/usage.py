"""What a person reads who mistyped a command line: one line that says what is wrong and what to type instead."""

import re
from difflib import get_close_matches
from typing import Any


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
