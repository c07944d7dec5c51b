"""How long work tells its caller how far it is; tools know nothing of terminals."""

from typing import Protocol


class ProgressCallback(Protocol):
    """Told by a tool after every unit of work."""

    def __call__(self, done: int, total: int, note: str = "") -> None:
        """Report ``done`` of ``total`` units of work, with an optional note such as the live loss."""


def silent(done: int, total: int, note: str = "") -> None:
    """Report nothing: the default progress callback of every tool."""
