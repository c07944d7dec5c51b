"""Seconds an image: diffusion of pixels against KSDiff, on the same tiles in one run on one machine.

    python tests/benchmarks/pixel_diffusion_speed.py TILES.h5 [--tiles 1] [--ksdiff F] [--pixel F] [--sampling-steps N]

KSDiff is all that `ksdiff evaluate` does for an image: the condition, the reverse diffusion of z, the kernels, the
network. Pixel diffusion walks all of its steps, as published, unless ``--sampling-steps`` shortens the walk; its time is
then scaled up and marked. KSDiff is timed again and again while pixel diffusion walks, so that whatever else the machine
does meets both. On a CPU the clock counts this process's CPU seconds, not the time that others took from it.

Weights do not change the time: without ``--ksdiff`` and ``--pixel`` they are random.
"""

import argparse
import sys
import time
from pathlib import Path
from statistics import median

import torch

from ksdiff_cli.models.checkpoint import load_model
from ksdiff_cli.models.config import ModelConfig
from ksdiff_cli.models.ksdiff import KSDiff
from ksdiff_cli.models.peers.pixel_diffusion import PixelConfig, PixelDiffusion
from ksdiff_cli.patches.dataset import PatchFile

TIMINGS = 40  # of KSDiff, spread over a walk
WANTED = 500  # times as fast, issue and paper


class Clock:
    """CPU seconds of this process, or seconds of a GPU that has finished; what happens aside can be left out."""

    def __init__(self, device):
        self.device, self.aside = device, 0.0

    def now(self):
        if self.device.type == "cuda":
            torch.cuda.synchronize()
            return time.perf_counter() - self.aside
        return time.process_time() - self.aside

    def seconds(self, work):
        begin = self.now()
        work()
        return self.now() - begin


def time_tile(ksdiff, pixels, images, clock):
    """Seconds of the whole walk, and of each of KSDiff's runs in between."""
    runs, calls = [], 0
    every = max(1, pixels.sampling_steps // TIMINGS)

    def look(*_):
        nonlocal calls
        if calls % every == 0:
            begin = clock.now()
            runs.append(clock.seconds(lambda: ksdiff.fuse(*images)))
            clock.aside += clock.now() - begin
            print(f"\r{calls} of {pixels.sampling_steps} steps", end="", file=sys.stderr, flush=True)
        calls += 1

    ksdiff.fuse(*images)  # the first call pays for memory
    hook = pixels.register_forward_pre_hook(look)
    try:
        walk = clock.seconds(lambda: pixels.fuse(*images))
    finally:
        hook.remove()
        print("\r", end="", file=sys.stderr)
    assert calls == pixels.sampling_steps
    return walk, runs


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="patch file, such as test.h5")
    parser.add_argument("--tiles", type=int, default=1, help="images of the file")
    parser.add_argument("--ksdiff", type=Path, help="stage 2's weights")
    parser.add_argument("--pixel", type=Path, help="pixel diffusion's weights")
    parser.add_argument("--sampling-steps", type=int, help="walk fewer steps and scale the time up")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    device, file = torch.device(options.device), PatchFile(options.data)
    ksdiff = load_model(options.ksdiff)[0] if options.ksdiff else KSDiff(ModelConfig(bands=file.bands), 2)
    pixels = load_model(options.pixel)[0] if options.pixel else PixelDiffusion(PixelConfig(bands=file.bands))
    ksdiff, pixels = (model.to(device).eval() for model in (ksdiff, pixels))
    published = pixels.config.steps
    pixels.sampling_steps = options.sampling_steps or published

    clock, unit = Clock(device), "s" if device.type == "cuda" else "CPU s"
    print(f"{file.bands} bands, {file.size[0]} x {file.size[1]} px, {options.threads} thread(s), {device}")
    print(f"| tile | steps walked | pixel diffusion, {unit} | KSDiff, {unit}: median, least, runs | ratio |")
    print("|---|---|---|---|---|")
    ratios = []
    for tile in range(min(options.tiles, len(file))):
        batch = file.batch([tile]).to(device)
        walk, runs = time_tile(ksdiff, pixels, (batch.pan, batch.ms_up, batch.statistics, batch.ratio), clock)
        whole = walk * published / pixels.sampling_steps
        scaled = "" if pixels.sampling_steps == published else f" (scaled from {walk:.1f})"
        ratios.append(whole / median(runs))
        own = f"{median(runs):.4f}, {min(runs):.4f}, {len(runs)}"
        steps = f"{pixels.sampling_steps} of {published}"
        print(f"| {tile} | {steps} | {whole:.1f}{scaled} | {own} | {ratios[-1]:.0f} |", flush=True)
    verdict = "reached" if min(ratios) >= WANTED else "missed"
    print(f"pixel diffusion takes {min(ratios):.0f} times KSDiff's time at least; wanted {WANTED}: {verdict}")


if __name__ == "__main__":
    main()
