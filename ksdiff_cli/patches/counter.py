"""Counting steps of work: progress, and Ctrl-C at a moment when nothing gets lost."""

import signal
from threading import current_thread, main_thread

from ksdiff_cli.progress import ProgressCallback


class StepCounter:
    """Turns steps of work into progress reports, and Ctrl-C into an interrupt between two steps.

    Most of the time goes into HDF5 calls, after which the interpreter first runs weak references' callbacks. A
    KeyboardInterrupt raised there is lost ("Exception ignored in …") and the work would go on.
    """

    def __init__(self, total: int, progress: ProgressCallback) -> None:
        """Start at 0 of ``total`` steps."""
        self.done, self.total, self.progress, self.note = 0, total, progress, ""
        self.interrupted = False

    def __enter__(self) -> "StepCounter":
        """Take over Ctrl-C."""
        self._handler = signal.getsignal(signal.SIGINT)
        # only the usual handler, and only where Python allows it: an embedding program's own is left alone
        self._ours = self._handler is signal.default_int_handler and current_thread() is main_thread()
        if self._ours:
            signal.signal(signal.SIGINT, self._remember)
        return self

    def __exit__(self, *_: object) -> None:
        """Give Ctrl-C back."""
        if self._ours:
            signal.signal(signal.SIGINT, self._handler)

    def _remember(self, *_: object) -> None:
        self.interrupted = True

    def check(self) -> None:
        """Stop here if Ctrl-C was pressed."""
        if self.interrupted:
            raise KeyboardInterrupt

    def __call__(self, steps: int = 1) -> None:
        """Count steps done, unless Ctrl-C was pressed."""
        self.check()
        self.done += steps
        self.progress(self.done, self.total, self.note)
