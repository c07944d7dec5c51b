"""How work tells its caller how far it is, and what people should read; tools know nothing of terminals."""

from collections.abc import Callable
from typing import Protocol

Note = Callable[[str], None]
"""Takes a line that a person should read."""


class ProgressCallback(Protocol):
    """Told by a tool after every unit of work."""

    def __call__(self, done: int, total: int, note: str = "") -> None:
        """Report ``done`` of ``total`` units of work, with an optional note such as the live loss."""


def silent(done: int, total: int, note: str = "") -> None:
    """Report nothing: the default progress callback of every tool."""


def drop(line: str) -> None:
    """Drop a line for people: the default of every tool."""
