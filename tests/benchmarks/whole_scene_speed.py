"""The race of whole scenes: `ksdiff sharpen` against GDAL's weighted Brovey and FusionNet's plain forward, in one run.

    python tests/benchmarks/whole_scene_speed.py [--size 8192] [--bands 4 8] [--repeats 3] [--threads N] [--checkpoint F]
        [--tile N] [--rows ROW…] [--fusionnet-margin PX] [--device cpu|cuda] [--bf16] [--folder DIR]

Each row is a process of its own, and all rows take turns, so that whatever else the machine does meets all of them:

ksdiff, brovey, exp   `ksdiff sharpen` from its start to its end, as anybody would type it; exp is the engine with the
                      network taken out
gdal                  GDAL's weighted Brovey (a VRTPansharpenedDataset, cubic, equal weights) copied by rasterio.shutil.copy
                      with the creation options that ksdiff's output has; Python's start is in it too
fusionnet             a plain FusionNet (no prior, random weights) forward over all windows, in memory: only this is timed
fusionnet-kept        the same where the process keeps freed memory and waits quietly, as `ksdiff sharpen` has it do
network               KSDiff's network alone over all windows, its kernels fixed, as fusionnet-kept's

FusionNet's windows have the margin that it needs itself, 16 pixels; `--fusionnet-margin` gives them another one (80 are
those of `ksdiff sharpen`). Without `--threads` all cores work. Seconds are those of the clock and the CPU's, each the
median; ratios are taken within each round and given as median (least to most). After the table comes the floor: the
bytes that must move (inputs, shards there and back, output) at the memory bandwidth measured in this run, and the
network's floating-point operations at the speed of a matrix product. On a GPU memory, product and both networks are its own;
``--bf16`` lets the networks run as `ksdiff sharpen` may decide to on a GPU.

`--folder` keeps the scenes (DIR/SIZE_BANDS/pan.tif, ms.tif) for the next run; they are simulated where they are missing.
Outputs are removed at once. At 8192 px with 8 bands a scene takes .2 GB there (1.4 GB while it is simulated), a row 2.3 GB
more while it runs.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import nullcontext
from pathlib import Path
from statistics import median

import numpy as np
import rasterio
import rasterio.shutil

ROOT = Path(__file__).resolve().parents[2]
ROWS = ["ksdiff", "brovey", "gdal", "exp", "fusionnet", "fusionnet-kept", "network"]
VRT = """<VRTDataset subClass="VRTPansharpenedDataset"><PansharpeningOptions>
<Algorithm>WeightedBrovey</Algorithm><AlgorithmOptions><Weights>{weights}</Weights></AlgorithmOptions>
<Resampling>Cubic</Resampling><NumThreads>{threads}</NumThreads>
<PanchroBand><SourceFilename>{pan}</SourceFilename><SourceBand>1</SourceBand></PanchroBand>
{bands}</PansharpeningOptions></VRTDataset>"""
BAND = '<SpectralBand dstBand="{0}"><SourceFilename>{1}</SourceFilename><SourceBand>{0}</SourceBand></SpectralBand>\n'
# (row over row, what is asked of it by bands, in words)
RATIOS = [
    ("ksdiff", "gdal", {4: "at most 3", 8: "at most 2"}),
    ("fusionnet", "ksdiff", {4: "at least 2", 8: "at least 2"}),
    ("fusionnet-kept", "ksdiff", {}),
    ("brovey", "gdal", {4: "below 1", 8: "below 1"}),
    ("exp", "ksdiff", {}),
    ("network", "ksdiff", {}),
]


def environment(threads):
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    return os.environ | dict.fromkeys(names, str(threads)) | {"PYTHONPATH": str(ROOT)}


def simulate(options, folder, bands):
    """The folder of the scene."""
    place = folder / f"{options.size}_{bands}"
    if not (place / "pan.tif").exists():
        print(f"simulating {options.size} px, {bands} bands", file=sys.stderr)
        words = ["simulate", "-o", place, "--size", options.size, "--bands", bands, "-q"]
        command = [sys.executable, "-m", "ksdiff_cli", *map(str, words)]
        subprocess.run(command, env=environment(options.threads), check=True)
        (place / "truth.tif").unlink()
    return place


def command_of(options, row, scene, output):
    if row in ("ksdiff", "brovey", "exp"):
        words = ["-m", "ksdiff_cli", "sharpen", scene / "pan.tif", scene / "ms.tif", "-o", output, "-q"]
        words += ["--method", row, "--threads", options.threads]
        words += ["--device", options.device] if row == "ksdiff" else []
        words += ["--checkpoint", options.checkpoint] if row == "ksdiff" and options.checkpoint else []
        words += ["--tile", options.tile] if options.tile else []
    else:
        words = [__file__, "--alone", row, "--scene", scene, "--output", output, "--threads", options.threads]
        words += ["--device", options.device, *(["--bf16"] if options.bf16 else [])]
        words += ["--checkpoint", options.checkpoint] if options.checkpoint else []
        words += ["--tile", options.tile] if options.tile else []
        words += ["--fusionnet-margin", options.fusionnet_margin] if options.fusionnet_margin is not None else []
    return [sys.executable, *map(str, words)]


def time_row(options, row, scene):
    """(seconds of the clock, of the CPU) of one row, once."""
    output = scene / f"{row}.tif"
    os.sync()  # what the last row wrote is not this one's to pay for
    command = command_of(options, row, scene, output)
    begin = time.perf_counter()
    process = subprocess.Popen(command, env=environment(options.threads), stdout=subprocess.PIPE, text=True)
    told = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    wall = time.perf_counter() - begin
    output.unlink(missing_ok=True)
    if process.returncode:
        sys.exit(f"{row} failed with {process.returncode}")
    return (
        tuple(json.loads(told))
        if row not in ("ksdiff", "brovey", "gdal", "exp")
        else (wall, usage.ru_utime + usage.ru_stime)
    )


def copy_brovey(options):
    """GDAL's weighted Brovey with the creation options of ksdiff's output."""
    from ksdiff_cli.output.creation import geotiff_options
    from ksdiff_cli.output.pixels import PixelFormat

    pan, ms = options.scene / "pan.tif", options.scene / "ms.tif"
    with rasterio.open(ms) as dataset:
        count, dtype = dataset.count, np.dtype(dataset.dtypes[0])
    bands = "".join(BAND.format(band, ms) for band in range(1, count + 1))
    weights = ",".join([str(1 / count)] * count)
    vrt = VRT.format(weights=weights, threads=options.threads, pan=pan, bands=bands)
    with rasterio.Env(GDAL_NUM_THREADS=str(options.threads)):
        creation = geotiff_options(PixelFormat(dtype, None), {})
        rasterio.shutil.copy(vrt, options.output, driver="GTiff", **creation)


def load_networks(options, bands):
    """{row: (network, margin)}."""
    from ksdiff_cli.models.checkpoint import load_model
    from ksdiff_cli.models.config import ModelConfig
    from ksdiff_cli.models.ksdiff import KSDiff
    from ksdiff_cli.weights import SHIPPED

    plain = KSDiff(ModelConfig(bands=bands, backbone="fusionnet", prior=False), 1)
    own = load_model(options.checkpoint or SHIPPED)[0]
    margin = plain.margin if options.fusionnet_margin is None else options.fusionnet_margin
    plain.lossy = own.lossy = options.bf16
    return {
        "fusionnet": (plain.eval().to(options.device), margin),
        "network": (own.eval().to(options.device), own.margin),
    }


def make_call(network, bands, device, ratio=4):
    """What runs a network on (1, 1, H, W) PAN and (1, bands, H, W) MS, its kernels fixed as for a scene."""
    import torch

    from ksdiff_cli.models.contract import Statistics
    from ksdiff_cli.models.observation import AxisMap, Cameras, Observed

    values = ((1, 500.0), (1, 200.0), (bands, 500.0), (bands, 200.0))
    one, each = torch.ones(1), torch.ones(1, bands)
    cameras = Cameras(0.3 * one, 0.5 * one, each / bands, 0 * one, each, one)
    known = Statistics(*(torch.full((1, count), value) for count, value in values), cameras).to(device)
    noise, axis = network.noise(), AxisMap(1 / ratio, (1 / ratio - 1) / 2)

    def given(pan, ms_up):
        return pan, Observed(ms_up[..., ::ratio, ::ratio].contiguous(), None, axis, axis) if network.observes else ms_up

    kernels = network.kernels(*given(*random_images(128, 128, bands, device)), known, ratio, noise)

    def call(pan, ms_up, part=None):
        core = {"core": part} if part and network.trims else {}
        return network.fuse(*given(pan, ms_up), known, ratio, noise, kernels=kernels, **core)

    return call


def random_images(height, width, bands, device):
    import torch

    return tuple(torch.rand(1, count, height, width, device=device).mul_(1000) for count in (1, bands))


def now(device):
    """Seconds of the clock, once a GPU has finished."""
    import torch

    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def run_network(options, row):
    """(seconds of the clock, of the CPU) of a network over all windows of the scene."""
    import torch

    from ksdiff_cli.numerics.boxes import Tiling
    from ksdiff_cli.sharpening.plan import TILES

    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    with rasterio.open(options.scene / "pan.tif") as pan, rasterio.open(options.scene / "ms.tif") as ms:
        tiling, bands = Tiling(*pan.shape, options.tile or TILES[0]), ms.count
    network, margin = load_networks(options, bands)[row.removesuffix("-kept")]
    call = make_call(network, bands, options.device)
    call(*random_images(256, 256, bands, options.device))
    wall = cpu = 0.0
    for number in range(len(tiling)):
        core = tiling.core(number)
        seen = core.grown(margin).meet(tiling.scene)
        images = random_images(seen.height, seen.width, bands, options.device)
        begin, before = now(options.device), time.process_time()
        call(*images, core.within(seen))
        wall, cpu = wall + now(options.device) - begin, cpu + time.process_time() - before
    return wall, cpu


def count_operations(options, bands):
    """{row: floating-point operations for each pixel}, as matrix products and convolutions; kernels are fixed."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    found, side = {}, 256
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the counter knows no other threads
    for row, (network, _) in load_networks(options, bands).items():
        call = make_call(network, bands, options.device)
        images = random_images(side, side, bands, options.device)
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            call(*images)
        found[row] = counter.get_total_flops() / side**2
    torch.set_num_threads(threads)
    return found


def measure_machine(threads, device):
    """(bytes a second of a copy, both ways counted; operations a second of a matrix product), each the best of some."""
    import torch

    torch.set_num_threads(threads)
    side = 2048 if torch.device(device).type == "cpu" else 8192
    one, other = (torch.zeros(64 << 20, device=device) for _ in range(2))
    left, right = (torch.rand(side, side, device=device) for _ in range(2))
    bandwidth = max(2 * one.nbytes / seconds for seconds in timed(lambda: other.copy_(one), 8, device))
    return bandwidth, max(2 * side**3 / seconds for seconds in timed(lambda: left @ right, 8, device))


def timed(work, times, device):
    for _ in range(times):
        begin = now(device)
        work()
        yield now(device) - begin


def spread(values):
    return f"{median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def print_table(options, bands, seconds):
    pixels = options.size**2 / 1e6
    print("\n| bands | row | seconds | CPU seconds | Mpx/s | Mpx a CPU second |\n|---|---|---|---|---|---|")
    for row, each in seconds.items():
        wall, cpu = (median(values) for values in zip(*each, strict=True))
        print(f"| {bands} | {row} | {wall:.2f} | {cpu:.2f} | {pixels / wall:.2f} | {pixels / cpu:.2f} |")
    print("\n| bands | ratio | by the clock | by CPU seconds | goal |\n|---|---|---|---|---|")
    for one, other, goals in RATIOS:
        if one in seconds and other in seconds:
            pairs = list(zip(seconds[one], seconds[other], strict=True))
            wall, cpu = (spread([mine[kind] / theirs[kind] for mine, theirs in pairs]) for kind in (0, 1))
            print(f"| {bands} | {one} / {other} | {wall} | {cpu} | {goals.get(bands, '')} |")


def print_floor(options, bands, scene, seconds):
    from ksdiff_cli.numerics.boxes import Tiling
    from ksdiff_cli.sharpening.plan import TILES

    with rasterio.open(scene / "pan.tif") as pan, rasterio.open(scene / "ms.tif") as ms:
        size = np.dtype(ms.dtypes[0]).itemsize
        inputs = pan.width * pan.height * np.dtype(pan.dtypes[0]).itemsize + ms.width * ms.height * bands * size
        tiling, stored = Tiling(*pan.shape, options.tile or TILES[0]), pan.width * pan.height * bands * size
    moved = inputs + 3 * stored  # a shard is written and read, the output written
    bandwidth, speed = measure_machine(options.threads, options.device)
    print(
        f"\nThe floor, {bands} bands: {bandwidth / 1e9:.1f} GB/s copied, {speed / 1e9:.0f} GFLOP/s of a matrix product."
    )
    walls = {row: median(wall for wall, _ in each) for row, each in seconds.items()}
    line = f"Bytes: inputs {inputs / 1e9:.2f} GB, shards twice {2 * stored / 1e9:.2f}, output {stored / 1e9:.2f}: "
    share = "".join(
        f"; {row} takes {walls[row] * bandwidth / moved:.0f} times that"
        for row in ("ksdiff", "exp", "gdal")
        if row in walls
    )
    print(f"{line}{moved / bandwidth:.2f} s{share}.")
    for row, operations in count_operations(options, bands).items():
        margin = load_networks(options, bands)[row][1]
        boxes = [tiling.core(number).grown(margin).meet(tiling.scene) for number in range(len(tiling))]
        seen = sum(box.pixels for box in boxes)
        floor = operations * seen / speed
        took = f"; it takes {walls[row]:.1f} s, {floor / walls[row]:.0%} of that speed" if row in walls else ""
        whole = f"; {floor / walls['ksdiff']:.0%} of ksdiff's time" if row == "network" and "ksdiff" in walls else ""
        least = 4 * (1 + 2 * bands) * seen / bandwidth  # its inputs and its result, float32
        print(
            f"{row}: {operations / 1e3:.1f} kFLOP a pixel, {seen / tiling.scene.pixels:.2f} pixels read for one made: "
            f"{floor:.1f} s of products{took}{whole}; inputs and result moved once: {least:.2f} s."
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=8192, help="PAN pixels along a side")
    parser.add_argument("--bands", type=int, nargs="+", default=[4, 8])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--checkpoint", type=Path, help="weights; default: those shipped")
    parser.add_argument("--tile", type=int, help="side of a window; default: 1280")
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=ROWS)
    parser.add_argument("--fusionnet-margin", type=int, help="PAN pixels; default: its own")
    parser.add_argument("--device", default="cpu", help="where networks run")
    parser.add_argument("--bf16", action="store_true", help="networks in bfloat16")
    parser.add_argument("--folder", type=Path, help="where the scenes are, or will be; kept")
    parser.add_argument("--alone", choices=ROWS, help=argparse.SUPPRESS)
    parser.add_argument("--scene", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--output", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    if options.alone == "gdal":
        copy_brovey(options)
        return
    if options.alone:
        if options.alone != "fusionnet":
            from ksdiff_cli.process import keep_freed_memory, wait_quietly

            keep_freed_memory()
            wait_quietly()
        print(json.dumps(run_network(options, options.alone)))
        return
    print(
        f"{options.size} px, {options.threads} thread(s) of {os.cpu_count()} cores, {options.repeats} rounds, GDAL ",
        end="",
    )
    print(
        f"{rasterio.__gdal_version__}, weights {options.checkpoint or 'as shipped'}; load {os.getloadavg()[0]:.1f} at the start"
    )
    with nullcontext(options.folder) if options.folder else tempfile.TemporaryDirectory() as name:
        for bands in options.bands:
            scene = simulate(options, Path(name).absolute(), bands)
            seconds = {row: [] for row in options.rows}
            for turn in range(options.repeats):
                for row in options.rows:
                    seconds[row].append(time_row(options, row, scene))
                    print(f"{bands} bands, round {turn + 1}, {row}: {seconds[row][-1][0]:.1f} s", file=sys.stderr)
            print_table(options, bands, seconds)
            print_floor(options, bands, scene, seconds)
            sys.stdout.flush()


if __name__ == "__main__":
    main()
