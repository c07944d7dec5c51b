"""Finished windows while the output is put together."""

from collections import OrderedDict
from pathlib import Path
from typing import Any, Self

import rasterio


class OpenShards:
    """The shards read last, still open: opening one takes longer than reading its border."""

    _MOST = 12  # a piece of the output and the neighbours of it whose borders are looked at, and the next ones

    def __init__(self) -> None:
        """Start with none."""
        self._datasets: OrderedDict[Path, Any] = OrderedDict()

    def find(self, path: Path) -> Any:
        """Return a shard, open."""
        if path not in self._datasets:
            self._datasets[path] = rasterio.open(path)
            if len(self._datasets) > self._MOST:
                self._datasets.popitem(last=False)[1].close()
        self._datasets.move_to_end(path)
        return self._datasets[path]

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *error: object) -> None:
        """Close all."""
        while self._datasets:
            self._datasets.popitem()[1].close()
