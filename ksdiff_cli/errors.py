"""The errors a person is meant to read."""

from collections.abc import Iterable
from difflib import get_close_matches


class KsdiffError(Exception):
    """Work failed for a reason the user can act on.

    The message is one line: it names the file, says what is wrong and what to do. The command line prints it after
    ``Error:`` and exits with 1.
    """


class StoppedError(KsdiffError):
    """Somebody asked long work to stop, and it has stored how far it is; whoever works through a list stops too."""


def printable(text: str) -> str:
    """Return a text in which what would steer a terminal, or turn or hide what stands beside it, is spelled out.

    Names of files, and what files say, may hold anything: escape sequences, line ends, marks of direction, bytes that
    are no UTF-8.
    """
    return text if text.isprintable() else "".join(sign if sign.isprintable() else repr(sign)[1:-1] for sign in text)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return ``; did you mean …?`` with the nearest known name, in any case; "" where none is near."""
    lower = {one.lower(): one for one in known if one}
    near = get_close_matches(name.lower(), lower, 1)
    return f"; did you mean {lower[near[0]]}?" if near else ""
