"""What a GPU must show before its words are believed, in under 6 minutes: pixels, precision, speed, training.

    python tests/benchmarks/gpu.py [--device cuda] [--parts pixels bf16 scene training diffusion] [--json FILE]
    python tests/benchmarks/gpu.py --device cpu --quick        # the same code on tiny sizes, to try it without a GPU

Needs no data: scenes are simulated. Weights are those shipped, or ``--checkpoint``.

pixels     the same scenes, 4 and 8 bands, sharpened on the CPU and on the device through the Python API, the network in
           float32 on both: the 99.9th percentile of the difference is asked to be at most 1 DN
bf16       what the output's precision tag says, and the largest share of a band's pixels that bfloat16 changes by more
           than 1 DN against float32 on the same device; where the tag says bf16, at most 2 in 1000 are asked for (the
           rule is 1 in 1000 of the scene's anchors, a sample); elsewhere bfloat16 is forced, to see what it would do
scene      `ksdiff sharpen` from its start to its end as anybody would type it, megapixels of PAN a second; exp and brovey
           are the same pipeline without the network
training   steps of both stages of the default backbone on batches through random camera chains (weights/chains.py),
           images a second on the device and on the CPU; batches are made before the clock starts
diffusion  seconds an image of diffusion of pixels, its published steps scaled up from a few, against all that KSDiff does

Parts are independent: one that fails says why in its line, and the rest go on; the exit code is 1 then, as where
something asked for was missed.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import traceback
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from types import SimpleNamespace

import numpy as np
import rasterio
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parent / "weights"))

from chains import acquire
from pixel_diffusion_speed import Clock, time_tile

from ksdiff_cli import sharpen_scene
from ksdiff_cli.fusers import network
from ksdiff_cli.fusers.network import Network
from ksdiff_cli.models.checkpoint import load_model
from ksdiff_cli.models.config import ModelConfig
from ksdiff_cli.models.contract import Statistics
from ksdiff_cli.models.ksdiff import KSDiff, diffusion_loss
from ksdiff_cli.models.peers.pixel_diffusion import PixelConfig, PixelDiffusion
from ksdiff_cli.simulation.camera import simulate_arrays
from ksdiff_cli.weights import SHIPPED

ROOT = Path(__file__).resolve().parents[2]
DEFAULT = {"backbone": "unrolled", "width": 48, "band_width": 32, "trunk_blocks": 2, "band_blocks": 1}
SIZES = SimpleNamespace(pixels=2048, scene=8192, cut=2048, crop=192, batch=16, steps=20, cpu_steps=2, tile=256, walk=20)
QUICK = SimpleNamespace(pixels=128, scene=256, cut=256, crop=96, batch=2, steps=1, cpu_steps=1, tile=32, walk=1)
SLACK = 2  # anchors judge bfloat16 by 1 pixel in 1000; they are a sample of the scene


def main(words=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--quick", action="store_true", help="tiny sizes: tries the code, its numbers mean nothing")
    parser.add_argument("--checkpoint", type=Path, default=SHIPPED)
    parser.add_argument("--json", type=Path, help="write the results there too")
    options = parser.parse_args(words)
    options.sizes = QUICK if options.quick else SIZES
    if options.device != "cpu" and not torch.cuda.is_available():
        parser.error(f"--device {options.device}: no GPU can be used here; --device cpu --quick tries the code")
    with tempfile.TemporaryDirectory() as folder:
        options.folder = Path(folder)
        results = [run(options, part) for part in options.parts]
    name = torch.cuda.get_device_name(options.device) if options.device != "cpu" else f"{os.cpu_count()} CPU cores"
    print(f"\n{name}, torch {torch.__version__}{', quick' if options.quick else ''}\n")
    print("| part | result | asked for | seconds |\n|---|---|---|---|")
    for one in results:
        verdict = {True: "reached", False: "MISSED", None: "-"}[one["reached"]]
        print(f"| {one['part']} | {one['result']} | {verdict} | {one['seconds']:.0f} |")
    if options.json:
        options.json.write_text(json.dumps({"device": name, "quick": options.quick, "parts": results}, indent=1))
    return int(any(one["reached"] is False for one in results))


def run(options, part):
    """One part's result; what goes wrong in it is its result."""
    print(part, file=sys.stderr, flush=True)
    begin = time.perf_counter()
    try:
        result, reached, numbers = PARTS[part](options)
    except Exception as error:
        traceback.print_exc()
        words = str(error).splitlines() or [""]
        result, reached, numbers = f"failed: {type(error).__name__}: {words[0]}", False, {}
    if options.device != "cpu":
        torch.cuda.empty_cache()
    seconds = time.perf_counter() - begin
    return {"part": part, "result": result, "reached": reached, "seconds": seconds, "numbers": numbers}


def scene(options, size, bands):
    """The folder of a simulated scene, made once; a large one repeats a smaller one: to simulate it takes minutes."""
    place = options.folder / f"{size}_{bands}"
    if place.exists():
        return place
    side = min(size, options.sizes.cut)
    small = options.folder / f"{side}_{bands}"
    if not small.exists():
        command("simulate", "-o", small, "--size", side, "--bands", bands)
    if small == place:
        return place
    place.mkdir()
    for name in ("pan.tif", "ms.tif"):
        with rasterio.open(small / name) as file:
            pixels, profile = file.read(), file.profile
        times = size // side
        pixels = np.tile(pixels, (1, times, times))
        profile.update(height=pixels.shape[1], width=pixels.shape[2])
        with rasterio.open(place / name, "w", **profile) as file:
            file.write(pixels)
    return place


def command(*words):
    """Run ksdiff as anybody would type it; seconds."""
    begin = time.perf_counter()
    line = [sys.executable, "-m", "ksdiff_cli", *map(str, words), "-q"]
    done = subprocess.run(line, env=os.environ | {"PYTHONPATH": str(ROOT)}, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        raise RuntimeError(f"ksdiff {words[0]}: {done.stderr.strip()}")
    return time.perf_counter() - begin


@contextmanager
def forced(precision):
    """Take the choice of a precision from the network; None leaves it."""
    kept = network.has_bf16, Network._rounds_little
    if precision:
        network.has_bf16 = lambda device: precision == "bf16"
        Network._rounds_little = lambda self, tiles, statistics, ratio: True
    try:
        yield
    finally:
        network.has_bf16, Network._rounds_little = kept


def sharpened(options, bands, device, precision=None):
    """Pixels of a scene's result, made once, and what its tag says of their precision."""
    place = scene(options, options.sizes.pixels, bands)
    output = place / f"{device.replace(':', '')}-{precision or 'own'}.tif"
    if not output.exists():
        images = place / "pan.tif", place / "ms.tif"
        with forced(precision):
            sharpen_scene(*images, output=output, checkpoint=options.checkpoint, device=device)
    with rasterio.open(output) as file:
        tag = next(value for key, value in file.tags().items() if key.endswith("PRECISION"))
        if precision not in (None, tag):
            raise RuntimeError(f"{precision} was forced, the output's tag says {tag}")
        return file.read().astype(np.float32), tag


def compare_pixels(options):
    numbers = {}
    for bands in (4, 8):
        here, there = (sharpened(options, bands, device, "fp32")[0] for device in ("cpu", options.device))
        wrong = np.abs(there - here)
        numbers[f"{bands} bands"] = {"p99.9": float(np.percentile(wrong, 99.9)), "most": float(wrong.max())}
    words = "; ".join(f"{name}: p99.9 {n['p99.9']:g} DN, most {n['most']:g} DN" for name, n in numbers.items())
    reached = None if options.device == "cpu" else all(n["p99.9"] <= 1 for n in numbers.values())
    return words, reached, numbers


def compare_precisions(options):
    numbers, reached = {}, True
    for bands in (4, 8):
        exact, _ = sharpened(options, bands, options.device, "fp32")
        rounded, tag = sharpened(options, bands, options.device)
        if tag != "bf16":
            rounded, _ = sharpened(options, bands, options.device, "bf16")
        changed = float((np.abs(rounded - exact) > 1).mean((1, 2)).max())
        numbers[f"{bands} bands"] = {"tag": tag, "changed": changed}
        reached &= tag != "bf16" or changed <= SLACK * 1e-3
    words = "; ".join(f"{name}: tag {n['tag']}, bf16 changes {n['changed']:.1e}" for name, n in numbers.items())
    return f"{words} of the pixels by over 1 DN", reached, numbers


def race_scene(options):
    place = scene(options, options.sizes.scene, 4)
    megapixels, numbers = options.sizes.scene**2 / 1e6, {}
    for method in ("ksdiff", "exp", "brovey"):
        words = ["sharpen", place / "pan.tif", place / "ms.tif", "-o", place / f"{method}.tif", "--method", method]
        if method == "ksdiff":
            words += ["--checkpoint", options.checkpoint, "--device", options.device]
        numbers[method] = megapixels / command(*words)
        (place / f"{method}.tif").unlink()
    words = ", ".join(f"{name} {speed:.1f}" for name, speed in numbers.items())
    return f"{words} megapixels/s, start to end", None, numbers


def moved(views, model, device):
    """Inputs of a batch, on the device."""
    known = Statistics(views.pan_mean, views.pan_std, views.ms_mean, views.ms_std, views.cameras).to(device)
    observed = type(views.observed)(views.observed.ms.to(device), None, views.observed.rows, views.observed.cols)
    with torch.no_grad():
        return model.prepare(views.pan.to(device), observed, known, round(views.ratio), views.gt.to(device))


def make_step(device):
    """A step of stage 2, its first stage's target beside it: what training spends its time on; of N images."""
    torch.manual_seed(0)
    target, model = (KSDiff(ModelConfig(**DEFAULT), stage).to(device) for stage in (1, 2))
    target.eval().requires_grad_(False)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-4)
    model.train()

    def step(views):
        inputs = moved(views, model, device)
        with torch.no_grad():
            z_0 = target.truth_latent(inputs)
        last = torch.full((len(z_0),), model.config.steps)
        z = model.sample(inputs, model.diffusion(z_0, last, torch.randn_like(z_0)))
        loss = (model(inputs, z) - inputs.G).abs().mean() + diffusion_loss(z_0, z)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        optimizer.step()
        return loss

    return step


def race_training(options):
    sizes = options.sizes
    side = 2 * sizes.crop + 64
    truth = simulate_arrays(side, bands=4, ratio=4, seed=1)[2].astype(np.float32)
    batches, numbers = [], {}
    for seed in range(4):  # the same chains on both
        random = np.random.default_rng(seed)
        at = random.integers(0, 32, (sizes.batch, 2))
        grounds = np.stack([truth[:, y : y + side - 32, x : x + side - 32] for y, x in at])
        batches.append(acquire(grounds / truth.mean(), random, sizes.crop))
    for device, steps in ((options.device, sizes.steps), ("cpu", sizes.cpu_steps)):
        step = make_step(device)
        for views in batches[: min(steps, len(batches))]:  # pays for memory and for choosing algorithms
            step(views).item()
        begin = time.perf_counter()
        for number in range(steps):
            loss = step(batches[number % len(batches)])
        last = loss.item()  # waits for a GPU
        numbers["cpu" if device == "cpu" else "gpu"] = steps * sizes.batch / (time.perf_counter() - begin)
        if not np.isfinite(last):
            raise RuntimeError(f"the loss on {device} is {last}")
    words = ", ".join(f"{name} {speed:.1f}" for name, speed in numbers.items())
    return f"{words} images/s of {sizes.crop} px, stage 2, batches of {sizes.batch}", None, numbers


def race_diffusion(options):
    side, device = options.sizes.tile, torch.device(options.device)
    pan, ms, _ = (
        torch.from_numpy(each.astype(np.float32))[None] for each in simulate_arrays(side, bands=4, ratio=4, seed=2)
    )
    up = nn.functional.interpolate(ms, scale_factor=4, mode="bicubic")
    known = Statistics(*(f(each) for each in (pan, ms) for f in (lambda x: x.mean((2, 3)), lambda x: x.std((2, 3)))))
    ksdiff = load_model(options.checkpoint)[0].to(device).eval()
    torch.manual_seed(0)
    pixels = PixelDiffusion(PixelConfig(bands=4)).to(device).eval()
    images, ms = (pan.to(device), up.to(device), known.to(device), 4), ms.to(device)
    pixels.sampling_steps = 1
    pixels.fuse(*images)  # the first step pays for memory and for choosing algorithms
    pixels.sampling_steps = options.sizes.walk
    own = SimpleNamespace(fuse=lambda *images: fuse_observed(ksdiff, ms, *images))
    walk, runs = time_tile(own, pixels, images, Clock(device))
    whole = walk * pixels.config.steps / pixels.sampling_steps
    numbers = {"pixel diffusion": whole, "ksdiff": median(runs), "ratio": whole / median(runs)}
    words = f"pixel diffusion {whole:.2f} s, KSDiff {median(runs):.4f} s an image of {side} px: {numbers['ratio']:.0f} times"
    return words, None, numbers


def fuse_observed(model, ms, pan, up, known, ratio):
    """KSDiff's whole work on an image, whichever MS its network takes."""
    if not model.observes:
        return model.fuse(pan, up, known, ratio)
    from ksdiff_cli.models.observation import AxisMap, Observed, fit_cameras

    axis = AxisMap(1 / ratio, (1 / ratio - 1) / 2)
    observed = Observed(ms, None, axis, axis)
    cameras = fit_cameras(pan, observed, 0.3)
    return model.fuse(
        pan, observed, Statistics(known.pan_mean, known.pan_std, known.ms_mean, known.ms_std, cameras), ratio
    )


PARTS = {
    "pixels": compare_pixels,
    "bf16": compare_precisions,
    "scene": race_scene,
    "training": race_training,
    "diffusion": race_diffusion,
}

if __name__ == "__main__":
    sys.exit(main())
