"""Speed and memory of training: KSDiff's stages beside their plain networks and FusionNet, step by step in one run.

    python tests/benchmarks/training_speed.py [--bands 4 8] [--rows NAME…] [--repeat 20] [--threads 1] [--device cpu]

Every row is a run as `ksdiff train` makes it (patches from a file, augmentation, forward, backward, clip, AdamW, averaged
weights), on patches of random numbers. The rows take their steps in turn, so that whatever else the machine does meets
all of them. On a CPU the clock counts this process's CPU seconds, not the time that others took from it. Memory is the
peak of a fresh process that trains this row alone, torch itself included; on a GPU, of tensors alone.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from statistics import median

import h5py
import numpy as np
import torch

from ksdiff_cli.models.checkpoint import save_model
from ksdiff_cli.models.config import ModelConfig
from ksdiff_cli.models.ksdiff import KSDiff
from ksdiff_cli.training.run import Run
from ksdiff_cli.training.settings import RunSettings
from ksdiff_cli.training.stages import open_data

# What is trained: configuration, stage, share of the warm-up (1: PLFE2 and denoiser alone). One line adds a row.
ROWS = {
    "fusionnet": ({"backbone": "fusionnet", "prior": False}, 1, 0.0),
    "fusionnet+ksdiff, stage 1": ({"backbone": "fusionnet"}, 1, 0.0),
    "fusionnet+ksdiff, stage 2": ({"backbone": "fusionnet"}, 2, 0.0),
    "pannextu": ({"prior": False}, 1, 0.0),
    "pannextu+ksdiff, stage 1": ({}, 1, 0.0),
    "pannextu+ksdiff, stage 2": ({}, 2, 0.0),
    "pannextu+ksdiff, stage 2, warm-up": ({}, 2, 1.0),
}
SETTLE = 3  # steps that pay for memory and for choosing algorithms
RATIO, IMAGES = 4, 256


def write_patches(folder, bands, size):
    """Random images, ms and pan between 100 and 1100."""
    random = np.random.default_rng(0)
    sizes = {"ms": (bands, size // RATIO), "lms": (bands, size), "pan": (1, size), "gt": (bands, size)}
    with h5py.File(folder / "train.h5", "w") as file:
        for name, (channels, side) in sizes.items():
            file[name] = random.uniform(100, 1100, (IMAGES, channels, side, side)).astype(np.float32)


def make_run(options, folder, row, bands):
    """The row's run at its first step; stage 2 starts from a stage 1 of random weights."""
    changes, stage, warm_up = ROWS[row]
    config = ModelConfig(bands=bands, **changes)
    chosen = RunSettings(
        data=(folder,),
        run=folder / row,
        steps=10**6,
        batch=options.batch,
        warm_up=warm_up,
        device=options.device,
        config=config,
    )
    if stage == 2:
        chosen.run.mkdir(exist_ok=True)
        save_model(KSDiff(config, 1), chosen.file(1), sensor={}, training={})
    return Run(chosen, stage, open_data(chosen.data)[0])


def now(device):
    if device.type == "cuda":
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()


def time_rows(options, folder, bands):
    """{row: seconds of each of its steps}, the rows in turn."""
    runs = {row: make_run(options, folder, row, bands) for row in options.rows}
    seconds = {row: [] for row in runs}
    with ExitStack() as stack:
        batches = {row: stack.enter_context(run.ahead()) for row, run in runs.items()}
        for step in range(SETTLE + options.repeat):
            for row, run in runs.items():
                begin = now(run.device)
                run.advance(batches[row].get(run.step))
                if step >= SETTLE:
                    seconds[row].append(now(run.device) - begin)
            print(f"\r{bands} bands: step {step + 1}", end="", file=sys.stderr, flush=True)
    print(f"\r{' ' * 30}\r", end="", file=sys.stderr)
    return seconds


def peak_memory(options, folder, row, bands):
    """MB, in a process of its own."""
    words = ["--alone", row, "--folder", folder, "--bands", bands, "--batch", options.batch]
    words += ["--threads", options.threads, "--device", options.device]
    command = [sys.executable, __file__, *map(str, words)]
    return float(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


def train_alone(options):
    """Take a few steps and print the peak of this process."""
    run = make_run(options, options.folder, options.alone, *options.bands)
    with run.ahead() as batches:
        for _ in range(SETTLE):
            run.advance(batches.get(run.step))
    if run.device.type == "cuda":
        print(torch.cuda.max_memory_allocated() / 1e6)
        return
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    print(float(status["VmHWM"].split()[0]) * 1024 / 1e6)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bands", type=int, nargs="+", default=[4, 8])
    parser.add_argument(
        "--rows", nargs="+", default=list(ROWS), choices=list(ROWS), metavar="ROW", help="; ".join(ROWS)
    )
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--size", type=int, default=64, help="PAN pixels along a patch's side")
    parser.add_argument("--repeat", type=int, default=20, help="steps timed of each row")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--alone", choices=list(ROWS), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.alone:
        train_alone(options)
        return
    os.environ["OMP_NUM_THREADS"] = str(options.threads)
    print(f"torch {torch.__version__}, {options.device}, {options.threads} thread(s), batch {options.batch}, ", end="")
    print(f"{options.size} px, {options.repeat} steps a row\n")
    print("| bands | row | ms a step: median, least | images/s | times the first row's time | peak memory, MB |")
    print("|---|---|---|---|---|---|")
    for bands in options.bands:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            write_patches(folder, bands, options.size)
            seconds = time_rows(options, folder, bands)
            first = next(iter(seconds.values()))
            for row, each in seconds.items():
                # step by step: neighbours in time met the same load
                times = median(one / other for one, other in zip(each, first, strict=True))
                speed = f"{1e3 * median(each):.1f}, {1e3 * min(each):.1f} | {options.batch / median(each):.0f}"
                memory = peak_memory(options, folder, row, bands)
                print(f"| {bands} | {row} | {speed} | {times:.2f} | {memory:.0f} |", flush=True)


if __name__ == "__main__":
    main()
