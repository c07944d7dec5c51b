"""A Dask cluster of real processes for tests, and a method that takes its time; workers import this too."""

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from ksdiff_cli.fusers.classical import Upsampling
from ksdiff_cli.numerics.moments import SceneStatistics
from ksdiff_cli.raster.tiles import Tile

ROOT = Path(__file__).resolve().parents[1]
ENVIRONMENT = os.environ | {
    "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "tests"), os.environ.get("PYTHONPATH", ""))),
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
}


class Slow(Upsampling):
    """Interpolation that takes a while."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def fuse(self, tile: Tile, statistics: SceneStatistics, ratio: int) -> Any:
        time.sleep(self.seconds)
        return super().fuse(tile, statistics, ratio)


class Cluster:
    """A scheduler and its workers, each a process that a test may kill."""

    def __init__(self, folder: Path, workers: int, *more: Any) -> None:
        self.folder, self.file, self.more = folder, folder / "scheduler.json", more
        self.scheduler = self.start("scheduler", "--port", "0", "--no-dashboard", "--scheduler-file", self.file)
        self.workers: list[subprocess.Popen[bytes]] = []
        for _ in range(workers):
            self.add()

    def add(self) -> subprocess.Popen[bytes]:
        places = "--scheduler-file", self.file, "--local-directory", self.folder
        worker = self.start("worker", *places, "--nthreads", "1", "--no-nanny", "--no-dashboard")
        self.workers.append(worker)
        return worker

    def start(self, *arguments: Any) -> subprocess.Popen[bytes]:
        with (self.folder / f"{arguments[0]}.log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "dask", *map(str, (*arguments, *self.more))],
                env=ENVIRONMENT,
                stdout=log,
                stderr=log,
            )

    def wait(self) -> "Cluster":
        while not self.file.exists():
            assert self.scheduler.poll() is None, (self.folder / "scheduler.log").read_text()
            time.sleep(0.05)
        return self

    def close(self) -> None:
        for process in (*self.workers, self.scheduler):
            process.kill()
            process.wait()
