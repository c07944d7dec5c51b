"""Training from files like PanCollection's train_wv3.h5, 9,714 patches and 5.6 GB: memory, and speed beside memory's.

    python tests/benchmarks/large_files.py FOLDER [--patches 9714] [--bands 8] [--steps 20] [--batch 32] [--device cpu]

FOLDER gets ``train_wv3.h5``, random images as float64 in PanCollection's layout (kept: a second run takes it as it is), and
``cache`` with its compact copy. Peak memory is that of a fresh process that opens the file and takes a few steps as `ksdiff
train` does. Then three runs of one network take their steps in turn in one process, fed from the file, from the compact copy
and from memory, so that whatever else the machine does meets all of them; a step here also waits for its batch, which `ksdiff
train` makes in the background.
"""

import argparse
import re
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

import h5py
import numpy as np
import torch

from ksdiff_cli.models.config import ModelConfig
from ksdiff_cli.patches.compact import use_compact
from ksdiff_cli.patches.dataset import PatchFile
from ksdiff_cli.training.run import Run
from ksdiff_cli.training.settings import RunSettings

SIDE, RATIO = 64, 4
SETTLE = 3  # steps that pay for memory and for choosing algorithms


def write_file(path, patches, bands):
    """Whole numbers as PanCollection's, in which PAN explains the detail; float64, nothing compressed."""
    random = np.random.default_rng(0)
    growing = path.with_suffix(".part")
    with h5py.File(growing, "w") as file:
        shapes = {"gt": (bands, SIDE), "lms": (bands, SIDE), "ms": (bands, SIDE // RATIO), "pan": (1, SIDE)}
        for key, (channels, side) in shapes.items():
            file.create_dataset(key, (patches, channels, side, side), np.float64)
        for start in range(0, patches, 128):
            part = slice(start, min(start + 128, patches))
            ms = random.integers(100, 1500, (part.stop - start, bands, SIDE // RATIO, SIDE // RATIO))
            lms = ms.repeat(RATIO, 2).repeat(RATIO, 3)
            detail = random.integers(-80, 80, (part.stop - start, 1, SIDE, SIDE))
            file["ms"][part], file["lms"][part] = ms, lms
            file["pan"][part] = np.rint(lms.mean(1, keepdims=True) + detail)
            file["gt"][part] = np.clip(lms + detail, 0, 2047)
    growing.replace(path)


def make_run(options, file):
    config = ModelConfig(bands=options.bands, backbone=options.backbone, prior=False)
    chosen = RunSettings(
        data=(file.path,), run=options.folder, batch=options.batch, steps=10**6, device=options.device, config=config
    )
    return Run(chosen, 1, [file])


def step(run):
    """Wall-clock and CPU seconds of a batch and its step."""
    wall, cpu = time.perf_counter(), time.process_time()
    losses = run.advance(run.batches.batch(run.step))
    run.look(losses)
    return time.perf_counter() - wall, time.process_time() - cpu


def measure_peak(options, kind):
    """MB of a fresh process that takes a few steps; torch itself is in it."""
    words = [sys.executable, __file__, str(options.folder), "--child", kind, "--device", options.device]
    words += ["--bands", options.bands, "--batch", options.batch, "--backbone", options.backbone]
    done = subprocess.run(list(map(str, words)), check=True, stdout=subprocess.PIPE, text=True)
    return float(done.stdout)


def open_file(options, kind):
    path = options.folder / "train_wv3.h5"
    file = PatchFile(path, cache_bytes=1 << 40) if kind == "memory" else PatchFile(path)
    if kind == "compact copy":
        use_compact(file, options.folder / "cache")
    return file


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--patches", type=int, default=9714)
    parser.add_argument("--bands", type=int, default=8)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--backbone", default="pannextu")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--child", help="a process that is measured; for this script itself")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.child:
        run = make_run(options, open_file(options, options.child))
        for _ in range(SETTLE):
            step(run)
        # not ru_maxrss, which a child inherits from this script's own memory
        print(int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1]) / 1024)
        return
    options.folder.mkdir(parents=True, exist_ok=True)
    path = options.folder / "train_wv3.h5"
    if not path.exists():
        write_file(path, options.patches, options.bands)
    kinds = ("file", "compact copy", "memory")
    files = {kind: open_file(options, kind) for kind in kinds}
    sizes = {"file": path.stat().st_size, "memory": path.stat().st_size}
    sizes["compact copy"] = next((options.folder / "cache").glob("*.h5")).stat().st_size
    runs = {kind: make_run(options, files[kind]) for kind in kinds}
    times = {kind: [] for kind in kinds}
    for number in range(SETTLE + options.steps):
        for kind in kinds:
            taken = step(runs[kind])
            if number >= SETTLE:
                times[kind].append(taken)
    print(
        f"{len(files['file'])} patches, batch {options.batch}, {options.backbone}, {options.device}, {options.steps} steps"
    )
    print("| fed from | GB | steps/s of memory's: wall, CPU | peak MB |\n|---|---|---|---|")
    wall, cpu = zip(*times["memory"], strict=True)
    for kind in kinds:
        own = [median(values) for values in zip(*times[kind], strict=True)]
        ratios = f"{median(wall) / own[0]:.3f}, {median(cpu) / own[1]:.3f}"
        print(f"| {kind} | {sizes[kind] / 1e9:.2f} | {ratios} | {measure_peak(options, kind):.0f} |", flush=True)


if __name__ == "__main__":
    main()
