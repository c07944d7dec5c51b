"""Ctrl-C and a batch system's SIGTERM end training after the current step, not in the middle of it."""

import os
import signal
import threading
from types import FrameType, TracebackType
from typing import Any


class Stopper:
    """While it is open, the first request to stop is only noted; a second one ends the program at once."""

    asked = False

    def __enter__(self) -> "Stopper":
        self._before: dict[int, Any] = {}
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, before in self._before.items():
            signal.signal(number, before or signal.SIG_DFL)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.asked = True
        if "TORCHELASTIC_RUN_ID" not in os.environ:  # torchrun hands a Ctrl-C on a second time
            signal.signal(number, self._before[number] or signal.SIG_DFL)
