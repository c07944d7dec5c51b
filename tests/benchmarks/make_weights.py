"""The training set of the shipped weights, and the commands that train them: what is in the package can be made again.

    python tests/benchmarks/make_weights.py LANDSAT_FOLDER -o OUTPUT [--scale 1] [--seed 0]

LANDSAT_FOLDER holds landsat7/01 … 30 (pan.tif, ms.tif), landsat8_volcano and landsat8_clouds (product folders): openly
licensed scenes, the only real imagery in training. Everything else is simulated. There are two halves:

- OUTPUT/cameras: each source is looked at by several virtual cameras (ksdiff_cli/simulation/cameras.py); one camera's
  view is one scene of the patch files, with statistics of its own. One folder per number of bands and ratio. At scale 1
  9,200 patches of 550 virtual scenes, 0.93 GB. The ranges that cameras are drawn from were set by statistics of other
  sensors' images (sharpness, correlation, shifts), whose pixels are in no patch.
- OUTPUT/wald: Landsat and ``ksdiff simulate``'s scenes through ``ksdiff prepare-data`` with several sharpnesses of PAN.

The same arguments give the same bytes. About ten minutes of one core. Then:

    ksdiff train --universal --backbone shared --stage all --steps 6000 --warm-up 0.2 --batch 32 --validate-every 500 \
        --data OUTPUT/wald --data OUTPUT/cameras -o RUN --seed 0 --threads 1
"""

import argparse
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from ksdiff_cli import __version__
from ksdiff_cli.grids import corner_aligned, upsample
from ksdiff_cli.main import app
from ksdiff_cli.patches.writer import FORMAT_VERSION, PatchWriter, join_parts, new_part
from ksdiff_cli.products import find_scenes
from ksdiff_cli.raster import SceneStatistics, open_pair
from ksdiff_cli.sensors import SENSORS
from ksdiff_cli.simulation.acquisition import Acquired, Ground, acquire, largest_side, simulated_ground
from ksdiff_cli.simulation.cameras import Camera, draw_camera

SIDES = {2: 64, 3: 72, 4: 64, 5: 80, 6: 72, 8: 64}
"""Side of a patch by ratio: a multiple of 8 and of the ratio."""
MIX = {
    (4, 1): 2, (4, 2): 2, (4, 3): 6, (4, 4): 21, (4, 5): 3, (4, 6): 5, (4, 8): 17,
    (2, 1): 1, (2, 3): 3, (2, 4): 8, (2, 6): 6, (2, 8): 3,
    (3, 3): 2, (3, 4): 6, (3, 8): 3, (5, 4): 4, (6, 4): 3, (8, 4): 5,
}  # fmt: skip
"""How often each (ratio, bands) is drawn."""
NANOMETRES = {"coastal": 443, "blue": 482, "green": 561, "red": 655, "nir": 850, "swir1": 1610, "swir2": 2200}
L7_BANDS = ("red", "green", "blue", "nir", "swir1", "swir2")  # their order in the files
HELD_OUT = ("28", "29", "30")
"""Landsat 7 scenes that only validation sees."""
CALM = 0.6
"""Share of cameras in calm circumstances: noise in the truth teaches nothing, and hides what there is to learn."""
FOURS, EIGHTS = ("GE1", "QB", "IKONOS", "GF2", "SPOT6", "PLEIADES"), ("WV2", "WV3")
"""Sensors of the scenes in OUTPUT/wald."""
WALD: dict[str, tuple[str, ...]] = {
    "l7_r2_blur": ("landsat7/0[1-7]", "--sensor", "L7"),
    "l7_r2_mid": ("landsat7/0[89] landsat7/1[0-4]", "--sensor", "L7", "--pan-mtf", "0.4"),
    "l7_r2_sharp": ("landsat7/1[5-9] landsat7/2[01]", "--sensor", "L7", "--pan-mtf", "0.85"),
    "l7_r4_blur": ("landsat7/0[1-9] landsat7/10", "--ratio", "4", "--pan-mtf", "0.2"),
    "l7_r4_mid": ("landsat7/1[1-9]", "--sensor", "L7", "--ratio", "4", "--pan-mtf", "0.5"),
    "l7_r4_sharp": ("landsat7/2[0-7]", "--ratio", "4", "--pan-mtf", "0.9"),
    "l8": ("landsat8_volcano",),
    "s4_blur": ("s4/0[0-5]",),
    "s4_sharp": ("s4/0[6-9] s4/1?", "--sensor", "GE1", "--pan-mtf", "0.8"),
    "s8_blur": ("s8/0[0-5]", "--sensor", "WV3"),
    "s8_mid": ("s8/0[6-9] s8/1?", "--sensor", "WV2", "--pan-mtf", "0.5"),
    "s4_r2": ("s4/*", "--ratio", "2", "--pan-mtf", "0.6", "--seed", "3"),
    "s8_r3": ("s8/*", "--ratio", "3", "--patch", "72", "--pan-mtf", "0.3", "--seed", "3"),
}
"""Folder in OUTPUT/wald: scenes (patterns), and what ``prepare-data`` is given."""
MOST = 20
"""Patches of a virtual scene."""


@dataclass
class Source:
    """Where grounds come from; ``views`` cameras look at it."""

    name: str
    path: Path | None
    """None for simulated worlds."""
    split: str
    views: int


def list_sources(landsat: Path, scale: float) -> list[Source]:
    """List all sources; ``scale`` multiplies the number of cameras and worlds."""
    found = []
    for folder in sorted((landsat / "landsat7").iterdir()):
        held = folder.name in HELD_OUT
        views = 4 if held else max(1, round(8 * scale))
        found.append(Source(f"landsat7-{folder.name}", folder, "valid" if held else "train", views))
    found += [
        Source(n, landsat / n, "train", max(1, round(9 * scale))) for n in ("landsat8_volcano", "landsat8_clouds")
    ]
    found += [Source(f"world-{k}", None, "train", 2) for k in range(max(2, round(140 * scale)))]
    return found + [Source(f"world-{10_000 + k}", None, "valid", 2) for k in range(12)]


def open_ground(source: Source, seed: int) -> tuple[Ground, bool]:
    """Return a source's ground, and whether it is a camera's image already."""
    if source.path is None:
        number = int(source.name.partition("-")[2])
        rng = np.random.default_rng([seed, number, 9])
        coarse = bool(rng.random() < 0.12)
        zoom = None if coarse else float(np.exp(rng.uniform(np.log(0.18), np.log(1.2))))
        return simulated_ground(1_000_000 * (seed + 1) + number, 704, zoom, coarse=coarse), False
    (scene,) = find_scenes(source.path)
    with open_pair(scene) as pair:
        ms, _ = pair.read_ms(0, 0, *pair.ms_shape)
        pan, _ = pair.read_pan(0, 0, *pair.shape)
        names = L7_BANDS if scene.sensor.name == "generic" else tuple(band.name for band in scene.ms)
        return Ground(ms, tuple(float(NANOMETRES[name]) for name in names), pan, pair.grid), True


def views(source: Source, seed: int, order: Iterator[tuple[int, int]]) -> Iterator[tuple[int, int, Acquired]]:
    """Yield (ratio, bands, images) of every camera that looks at a source."""
    ground, blurred = open_ground(source, seed)
    rng = np.random.default_rng([seed, *source.name.encode()])
    for _ in range(source.views):
        ratio, bands = next(order)
        camera = draw_camera(rng, ground.wavelengths, bands, ratio, real_pan=ground.pan is not None, blurred=blurred)
        if rng.random() < CALM:
            camera = calm(camera)
        least = 2 * SIDES[ratio]
        if largest_side(ground, camera.scale) < least:
            camera = replace(camera, scale=largest_side(ground, 1) / least)
        side = largest_side(ground, camera.scale) // ratio * ratio
        room = np.array(ground.channels.shape[1:]) - side * camera.scale
        start = rng.uniform(0, room)
        if camera.scale == 1:
            start = np.floor(start)
        yield ratio, bands, acquire(ground, camera, side, (float(start[0]), float(start[1])))


def calm(camera: Camera) -> Camera:
    """Return the camera with little noise, bands and PAN nearly on each other, and PAN that sees what bands see."""
    noises = {name: 0.2 * getattr(camera, name) for name in ("noise_pan", "noise_gt", "noise_ms")}
    shifts = {name: 0.25 * getattr(camera, name) for name in ("shift_pan", "shift_bands")}
    return replace(camera, **noises, **shifts, warp=0.0, foreign=0.0, flatten=0.0, stripes=0.0)


def cut(images: Acquired, ratio: int, most: int, rng: np.random.Generator) -> Iterator[tuple[int, int]]:
    """Yield the corners of up to ``most`` patches that do not overlap, hold something and are not saturated."""
    side, size = SIDES[ratio], images.gt.shape[1]
    first = rng.integers(0, (size % side) // ratio + 1, 2) * ratio
    places = [
        (first[0] + r, first[1] + c) for r in range(0, size - side + 1, side) for c in range(0, size - side + 1, side)
    ]
    places = [(r, c) for r, c in places if max(r, c) + side <= size]
    top = images.gt.max()
    for r, c in (places[k] for k in rng.permutation(len(places))):
        patch = images.gt[:, r : r + side, c : c + side]
        if most and (patch == top).mean() < 0.2 and (patch.std((1, 2)) > 1e-3 * top).all():
            most -= 1
            yield int(r), int(c)


class Folder:
    """The growing train.h5 or valid.h5 of one number of bands and ratio."""

    def __init__(self, path: Path, ratio: int, bands: int, part: PatchWriter) -> None:
        self.path, self.ratio, self.bands, self.part = path, ratio, bands, part
        self.names: list[str] = []
        self.statistics: list[SceneStatistics] = []
        self.count = 0

    def add(self, name: str, images: Acquired, places: list[tuple[int, int]]) -> None:
        """Append patches of one virtual scene."""
        side, ratio = SIDES[self.ratio], self.ratio
        lms = upsample(images.ms, corner_aligned(ratio), images.gt.shape[1:])

        def patches(image: np.ndarray, step: int = 1) -> np.ndarray:
            n = side // step
            return np.stack([image[:, r // step : r // step + n, c // step : c // step + n] for r, c in places])

        cuts = {"gt": patches(images.gt), "ms": patches(images.ms, ratio), "lms": patches(lms)}
        self.part.add({**cuts, "pan": patches(images.pan)}, len(self.names), places)
        self.names.append(name)
        ms, pan = images.ms.astype(np.float64), images.pan.astype(np.float64)
        self.statistics.append(SceneStatistics(float(pan.mean()), float(pan.std()), ms.mean((1, 2)), ms.std((1, 2))))
        self.count += len(places)

    def attributes(self, seed: int) -> dict[str, object]:
        """Return what the file says about itself."""
        sensor = replace(SENSORS["generic"], title="virtual cameras", ratio=self.ratio)
        return {
            "format_version": FORMAT_VERSION, "geometry": "area", "ratio": self.ratio, "sensor": sensor.to_dict(),
            "bands": [f"band {k + 1}" for k in range(self.bands)], "scenes": self.names,
            "ksdiff_version": __version__, "seed": seed,
        }  # fmt: skip


def combinations(rng: np.random.Generator) -> Iterator[tuple[int, int]]:
    """Yield (ratio, bands) without end, each in its share of every round, rounds in random order."""
    deck = [key for key, times in MIX.items() for _ in range(times)]
    while True:
        yield from (deck[k] for k in rng.permutation(len(deck)))


def every_one() -> Iterator[tuple[int, int]]:
    """Yield all (ratio, bands) in turn: validation has each of them."""
    while True:
        yield from MIX


def make(landsat: Path, output: Path, scale: float, seed: int) -> None:
    """Make all folders."""
    if output.exists():
        raise SystemExit(f"{output} exists: choose another folder")
    orders = {"train": combinations(np.random.default_rng([seed, 1])), "valid": every_one()}
    started = time.perf_counter()
    folders: dict[tuple[str, int, int], Folder] = {}
    with ExitStack() as stack:
        for source in list_sources(landsat, scale):
            rng = np.random.default_rng([seed, 2, *source.name.encode()])
            for number, (ratio, bands, images) in enumerate(views(source, seed, orders[source.split])):
                key = (source.split, ratio, bands)
                if key not in folders:
                    path = output / f"b{bands}_r{ratio}" / f"{source.split}.h5"
                    path.parent.mkdir(parents=True, exist_ok=True)
                    part = stack.enter_context(new_part(path.with_suffix(".part.h5")))
                    folders[key] = Folder(path, ratio, bands, part)
                places = list(cut(images, ratio, MOST if source.split == "train" else 9, rng))
                if places:
                    folders[key].add(f"{source.name}/{number}", images, places)
            print(f"{time.perf_counter() - started:6.0f} s  {source.name}", flush=True)
    for folder in folders.values():
        part_file = folder.path.with_suffix(".part.h5")
        join_parts([part_file], folder.path, folder.statistics, folder.attributes(seed), lambda: None)
        part_file.unlink()
    for (split, ratio, bands), folder in sorted(folders.items()):
        print(f"{split} {bands} bands ratio {ratio}: {folder.count} patches of {len(folder.names)} scenes")
    print(f"{sum(f.count for f in folders.values())} patches, {time.perf_counter() - started:.0f} s")


def make_wald(landsat: Path, output: Path) -> None:
    """Make OUTPUT/wald by the command line's own tools."""

    def ksdiff(*words: object) -> None:
        app([str(word) for word in words] + ["-q"], standalone_mode=False)

    with TemporaryDirectory() as scratch:
        scenes = Path(scratch)
        for kind, sensors, seed in (("s4", FOURS * 2, 100), ("s8", EIGHTS * 6, 200)):
            for k, sensor in enumerate(sensors):
                place = ("-o", scenes / kind / f"{k:02d}", "--size", 1536, "--ratio", 4)
                ksdiff("simulate", *place, "--sensor", sensor, "--seed", seed + k)
        for name, (patterns, *words) in WALD.items():
            found = [
                path
                for pattern in patterns.split()
                for path in sorted((scenes if pattern[0] == "s" else landsat).glob(pattern))
            ]
            ksdiff("prepare-data", *found, "-o", output / name, *words)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("landsat", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--scale", type=float, default=1.0, help="Multiplies the number of virtual scenes.")
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    make(chosen.landsat, chosen.output / "cameras", chosen.scale, chosen.seed)
    make_wald(chosen.landsat, chosen.output / "wald")


if __name__ == "__main__":
    main()
