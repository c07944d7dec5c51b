"""A real `ksdiff sharpen`, killed by SIGKILL again and again at random moments, then left to end: the same bytes?

    python tests/benchmarks/whole_scene_kills.py [--kills 10] [--seed 0] [--size 1536] [--bands 4] [--tile 256]
        [--method ksdiff] [--format GTiff] [--checkpoint F] [--threads 1] [--folder DIR]

First the command runs without interruption. Then it is given again under another name, and killed after a random number
of further windows (so that the kills are spread over the whole run) and a random time after the last of these; of a run
that gets no further than its start, after a random time. When it has done its work before its kill, that output must be
the same too, and another round begins. Prints where each kill fell; ends with 1 if any output differs, or
anything is left beside it. `--folder` keeps the scene for the next run.
"""

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import rasterio

ROOT = Path(__file__).resolve().parents[2]
POLL = 0.005  # seconds
PATIENCE = 3600  # seconds after which a run counts as stuck


def environment(threads):
    one = {name: str(threads) for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
    return os.environ | one | {"PYTHONPATH": str(ROOT)}


class Job:
    """The command under a name of its own, and its progress as its folder shows it."""

    def __init__(self, options, folder, name):
        self.output = folder / name
        self.shards = folder / f".{name}.shards"
        words = ["sharpen", folder / "pan.tif", folder / "ms.tif", "-o", self.output, "--tile", options.tile, "-q"]
        words += ["--method", options.method, "-f", options.format, "--threads", options.threads]
        words += ["--checkpoint", options.checkpoint] if options.checkpoint else []
        self.command = [sys.executable, "-m", "ksdiff_cli", *map(str, words)]
        self.environment = environment(options.threads)

    def start(self):
        return subprocess.Popen(self.command, env=self.environment)

    def windows(self):
        """Number of finished windows."""
        try:
            return sum(path.suffix in (".tif", ".empty") for path in self.shards.iterdir())
        except FileNotFoundError:
            return 0

    def done(self):
        """Whether the output is there and all that belongs to its making is gone, but for an empty folder perhaps."""
        left = {path.name for path in self.shards.iterdir()} if self.shards.exists() else set()
        return self.output.exists() and left <= {"lock"}

    def remove(self):
        """Remove the output, and what a run killed just before its end left of its folder."""
        self.output.unlink(missing_ok=True)
        shutil.rmtree(self.shards, ignore_errors=True)

    def phase(self, before, total):
        """What a process was at that found so many windows finished when it began."""
        if self.output.exists():
            return "leaving, all is done" if self.done() else "clearing up"
        if (self.shards / "assembled").exists():
            return "the output gets its name"
        if any(self.output.parent.glob(f".{self.output.name}.*.*")):
            return "output"
        found = self.windows()
        return "start" if found == before else "windows" if found < total else "before the output"


def undisturbed(job):
    """(windows, seconds to the first one, seconds from there to the last, seconds after it)."""
    begin, first, last, most = time.perf_counter(), 0.0, 0.0, 0
    process = job.start()
    while process.poll() is None:
        found, now = job.windows(), time.perf_counter() - begin
        if found > most:
            first, last, most = first or now, now, found
        time.sleep(POLL)
    if process.returncode:
        sys.exit(f"the uninterrupted run failed with {process.returncode}")
    return most, first, last - first, time.perf_counter() - begin - last


def kill_once(job, steps, after, total, rng):
    """Run until the kill; returns (line for the table, whether the kill came too late for the process, for its work)."""
    start, before = time.perf_counter(), job.windows()
    ahead, share = int(steps), rng.random()
    process = job.start()
    wanted, due = min(total, before + ahead), None
    while process.poll() is None:
        now = time.perf_counter()
        if due is None and (ahead == 0 or job.windows() >= wanted):
            pause = after["start"] if ahead == 0 else after["window"] if wanted < total else after["end"]
            due = now + share * pause
        if due is not None and now >= due:
            break
        if now - start > PATIENCE:
            process.kill()
            sys.exit("a run is stuck")
        time.sleep(POLL)
    process.send_signal(signal.SIGKILL)
    late = process.wait() != -signal.SIGKILL
    if process.returncode not in (0, -signal.SIGKILL):
        sys.exit(f"a run failed with {process.returncode}")
    found = job.windows()
    line = f"{time.perf_counter() - start:8.2f} | {before:4} | {found:4} of {total} | {job.phase(before, total)}"
    return line, late, job.done()


def compare(job, whole):
    """What differs between an output and the uninterrupted one's, a line each."""
    left = [path.name for path in job.output.parent.glob(f".{job.output.name}*") if path != job.shards]
    problems = [f"{left} left beside the output"] if left or not job.done() else []
    if job.output.read_bytes() != whole.output.read_bytes():
        problems.append("other bytes")
    with rasterio.open(job.output) as one, rasterio.open(whole.output) as other:
        for band in other.indexes:
            if not np.array_equal(one.read(band), other.read(band)):
                problems.append(f"other pixels in band {band}")
    return problems


def simulate(options, folder):
    if not (folder / "pan.tif").exists():
        words = [
            "simulate",
            "-o",
            folder,
            "--size",
            options.size,
            "--bands",
            options.bands,
            "--seed",
            options.seed,
            "-q",
        ]
        command = [sys.executable, "-m", "ksdiff_cli", *map(str, words)]
        subprocess.run(command, env=environment(options.threads), check=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0, help="of the scene and of the moments")
    parser.add_argument("--size", type=int, default=1536, help="PAN pixels along a side")
    parser.add_argument("--bands", type=int, default=4)
    parser.add_argument("--tile", type=int, default=256)
    parser.add_argument("--method", default="ksdiff")
    parser.add_argument("--format", "-f", default="GTiff", choices=["GTiff", "COG"])
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--folder", type=Path, help="where the scene is, or will be; kept")
    options = parser.parse_args()
    rng = random.Random(options.seed)
    with nullcontext(options.folder) if options.folder else tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.mkdir(parents=True, exist_ok=True)
        simulate(options, folder)
        whole, job = Job(options, folder, "whole.tif"), Job(options, folder, "killed.tif")
        for old in (whole, job):
            old.remove()
        total, first, making, ending = undisturbed(whole)
        after = {"start": first, "window": making / max(1, total - 1), "end": ending}
        print(
            f"{options.method}, {options.format}, {options.size} px, {options.bands} bands, tile {options.tile}:",
            end="",
        )
        print(f" {total} windows; alone {first:.1f} s to the first, {making:.1f} s, {ending:.1f} s after the last")
        print("| kill | seconds | windows before | windows after | it was at |\n|---|---|---|---|---|")
        kills, ends, problems = 0, 0, []
        while kills < options.kills:
            line, late, ended = kill_once(job, rng.uniform(0, 2 * (total + 1) / options.kills), after, total, rng)
            kills += not late
            print(f"| {'too late' if late else kills} | {line} |", flush=True)
            if ended:
                ends, problems = ends + 1, problems + compare(job, whole)
                job.remove()
        subprocess.run(job.command, env=job.environment, check=True)
        problems += compare(job, whole)
        for old in (whole, job):
            old.remove()
    for problem in problems:
        print(problem)
    print(f"{kills} SIGKILLs, {ends + 1} outputs: {'DIFFERENT' if problems else 'the same bytes and pixels'}")
    sys.exit(bool(problems))


if __name__ == "__main__":
    main()
