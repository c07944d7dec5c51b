"""Shards per second at 1, 2 and 4 workers with a fixed sleep in place of the network, and the scheduler's memory.

What is left beside the sleep is the engine's own cost: Dask's way to a worker, reading the window, storing the shard with
its fsync. `python tests/benchmarks/shards_per_second.py` starts scheduler and workers as processes on this machine.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import rasterio
from rasterio.transform import Affine

from ksdiff_cli.fusers.classical import Upsampling
from ksdiff_cli.options.sharpening import SharpenOptions
from ksdiff_cli.products import make_pair
from ksdiff_cli.sharpening.distributed import open_workers
from ksdiff_cli.sharpening.engine import sharpen_scene
from ksdiff_cli.sharpening.pipeline import make_windows

TILE = 64
HERE = Path(__file__).resolve()
ENVIRONMENT = os.environ | {
    "PYTHONPATH": os.pathsep.join((str(HERE.parents[2]), str(HERE.parent))),
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
}


class Sleeping(Upsampling):
    """A network's time without its work."""

    def __init__(self, seconds):
        self.seconds = seconds

    def fuse(self, tile, statistics, ratio):
        time.sleep(self.seconds)
        return super().fuse(tile, statistics, ratio)


def write_scene(folder, rows):
    """A scene of rows x rows windows."""
    rng = np.random.default_rng(1)
    for name, side, bands, pixel in (("pan", rows * TILE, 1, 1), ("ms", rows * TILE // 4, 4, 4)):
        place = {"transform": Affine(pixel, 0, 0, 0, -pixel, 0), "crs": "EPSG:32631", "tiled": True}
        shape = {"width": side, "height": side, "count": bands, "dtype": "uint16", "blockxsize": 256, "blockysize": 256}
        with rasterio.open(folder / f"{name}.tif", "w", driver="GTiff", **shape, **place) as dst:
            dst.write(rng.integers(100, 1000, (bands, side, side), np.uint16))
    return make_pair(str(folder / "pan.tif"), [str(folder / "ms.tif")])


class Cluster:
    def __init__(self, folder, workers):
        self.file = folder / f"scheduler{workers}.json"
        self.scheduler = self.start("scheduler", "--port", "0", "--no-dashboard", "--scheduler-file", self.file)
        options = "--scheduler-file", self.file, "--local-directory", folder, "--nthreads", 1, "--no-nanny"
        self.workers = [self.start("worker", *options, "--no-dashboard") for _ in range(workers)]
        while not self.file.exists():
            time.sleep(0.1)

    def start(self, *arguments):
        command = [sys.executable, "-m", "dask", *map(str, arguments)]
        return subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def close(self):
        for process in (*self.workers, self.scheduler):
            process.kill()
            process.wait()


def timed(maker, found):
    def make(windows, missing, progress):
        start, cpu = time.perf_counter(), time.process_time()
        maker(windows, missing, progress)
        found.extend([time.perf_counter() - start, time.process_time() - cpu, len(missing)])

    return make


def run(scene, output, maker, seconds):
    from shards_per_second import Sleeping  # by the name under which workers find it

    found = []
    options = SharpenOptions(tile=TILE, overwrite=True, resume=False)
    sharpen_scene(scene, output, Sleeping(seconds), options, make=timed(maker, found))
    return found


def throughput(folder, rows, seconds):
    scene = write_scene(folder, rows)
    print(f"{rows * rows} shards of {TILE} px, {seconds} s of sleep each")
    wall, _, count = run(scene, folder / "out.tif", make_windows, seconds)
    print(
        f"one process, threads: {count / wall:6.2f} shards/s, {1e3 * (wall / count - seconds):6.1f} ms beside the sleep"
    )
    for workers in (1, 2, 4):
        cluster = Cluster(folder, workers)
        with open_workers(scheduler=str(cluster.file)) as maker:
            maker._client.wait_for_workers(workers)
            run(scene, folder / "out.tif", maker, 0)  # imports
            wall, cpu, count = run(scene, folder / "out.tif", maker, seconds)
        cluster.close()
        beside = 1e3 * (workers * wall / count - seconds)
        share = 100 * seconds * count / workers / wall
        print(
            f"{workers} workers:          {count / wall:6.2f} shards/s, {beside:6.1f} ms of a worker beside the sleep, "
            f"{share:.0f} % of what sleep alone allows, client {1e3 * cpu / count:.1f} ms CPU a shard",
            flush=True,
        )


def memory(folder, rows):
    scene = write_scene(folder, rows)
    cluster = Cluster(folder, 2)
    process, seen, stop = psutil.Process(cluster.scheduler.pid), [], threading.Event()

    def watch():
        while not stop.wait(0.2):
            seen.append(process.memory_info().rss)

    with open_workers(scheduler=str(cluster.file)) as maker:
        maker._client.wait_for_workers(2)
        before = process.memory_info().rss
        threading.Thread(target=watch, daemon=True).start()
        wall, _, count = run(scene, folder / "out.tif", maker, 0)
        stop.set()
    cluster.close()
    marks = ", ".join(f"{seen[len(seen) * part // 4 - 1] / 1e6:.1f}" for part in (1, 2, 3, 4))
    print(
        f"{count} shards in {wall:.0f} s ({count / wall:.0f} shards/s): scheduler {before / 1e6:.1f} MB before, "
        f"{max(seen) / 1e6:.1f} MB at most, {marks} MB after each quarter"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=10)
    parser.add_argument("--sleep", type=float, default=0.25)
    parser.add_argument("--memory-rows", type=int, default=100, help="0 leaves the scheduler's memory out")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        throughput(Path(place), given.rows, given.sleep)
    if given.memory_rows:
        with tempfile.TemporaryDirectory() as place:
            memory(Path(place), given.memory_rows)
