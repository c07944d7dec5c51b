"""What has been read and made, kept in memory up to a bound, and made once however many ask for it at a time."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable

from ksdiff_cli.numerics import Array


class Cache:
    """Arrays by key; the one that was not asked for longest goes first when there is no more room."""

    def __init__(self, limit: int) -> None:
        """Keep ``limit`` bytes at most."""
        self.limit = limit
        self.size = 0
        """Bytes kept."""
        self._kept: OrderedDict[Hashable, Array] = OrderedDict()
        self._making: dict[Hashable, threading.Event] = {}
        self._lock = threading.Lock()

    def get(self, key: Hashable, make: Callable[[], Array]) -> Array:
        """Return what is kept under a key, or make it; whoever asks meanwhile waits for that.

        What ``make`` asks of this cache in turn must not lead back to ``key``.
        """
        while True:
            with self._lock:
                if key in self._kept:
                    self._kept.move_to_end(key)
                    return self._kept[key]
                other = self._making.get(key)
                if other is None:
                    self._making[key] = done = threading.Event()
                    break
            other.wait()
        try:
            made = make()
            self._keep(key, made)
            return made
        finally:
            with self._lock:
                del self._making[key]
            done.set()

    def __contains__(self, key: Hashable) -> bool:
        """Say whether something is kept under a key."""
        with self._lock:
            return key in self._kept

    def _keep(self, key: Hashable, made: Array) -> None:
        if made.nbytes > self.limit:
            return
        with self._lock:
            self._kept[key] = made
            self.size += made.nbytes
            while self.size > self.limit:
                _, oldest = self._kept.popitem(last=False)
                self.size -= oldest.nbytes
