"""What the prior is worth: results by an image's own z, others' mean z, another image's, zeros; and a twin without it.

    python tests/benchmarks/prior.py DATA [--twin F] [--checkpoint F] [--sets NAME…] [--quick]

The scenes with a truth of full_resolution.py, four cameras each. ``mean`` is the mean z of all other scenes of all
cameras, ``shuffled`` that of a scene half of all away. A figure is the mean over a camera's scenes of ERGAS, divided by
that of own z; the twin is `weights/train.py --stage plain` at the same steps (see weights/README.md).
"""

import argparse
import tempfile
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch
from full_resolution import SETS
from truth_scenes import BORDER, CAMERAS, TruthScene, scenes

from ksdiff_cli.fusers.network import Network
from ksdiff_cli.metrics import ergas
from ksdiff_cli.numerics.boxes import Box
from ksdiff_cli.products import make_pair
from ksdiff_cli.raster.pair import open_pair
from ksdiff_cli.weights import SHIPPED


class Seen:
    """A scene in memory, and what it makes of a z."""

    def __init__(self, camera: str, scene: TruthScene, network: Network, twin: Network | None) -> None:
        self.camera = camera
        with open_pair(make_pair(str(scene.pan), [str(scene.ms)])) as pair:
            height, width = (size // 32 * 32 for size in pair.shape)
            tile, self.statistics = pair.read_observed(0, 0, height, width), pair.statistics()
        self.tile, self.ratio, self.network = tile, scene.ratio, network
        self.truth = scene.truth[:, :height, :width]
        self.observe(network)
        self.own = network.latents(tile, self.statistics, scene.ratio)
        self.of_twin = None
        if twin is not None:
            self.observe(twin)
            self.of_twin = self.error(twin.fuse_image(tile, self.statistics, scene.ratio))

    def observe(self, network: Network) -> None:
        network.observe(self.tile, (0.3,))

    def by(self, latents: list[torch.Tensor]) -> float:
        self.observe(self.network)
        return self.error(self.network.fuse_image(self.tile, self.statistics, self.ratio, latents))

    def error(self, fused: np.ndarray) -> float:
        inner = Box(BORDER, BORDER, *(size - BORDER for size in fused.shape[1:])).within(Box(0, 0, *fused.shape[1:]))
        return ergas(self.truth[:, *inner], fused[:, *inner].astype(np.float64), self.ratio)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--twin", type=Path)
    parser.add_argument("--checkpoint", type=Path, default=SHIPPED)
    parser.add_argument("--sets", nargs="+", choices=list(SETS), default=list(SETS))
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    networks = [Network(path, "cpu") if path else None for path in (options.checkpoint, options.twin)]
    for name in options.sets:
        ratio, make, all_of_them, few = SETS[name]
        pictures = make(options.data, few if options.quick else all_of_them)
        seen = []
        for camera in CAMERAS:
            with tempfile.TemporaryDirectory() as folder:
                for scene in scenes(pictures, camera, ratio, Path(folder)):
                    for network in filter(None, networks):
                        network.check(len(scene.truth), ratio)
                    assert networks[0] is not None
                    seen.append(Seen(camera, scene, networks[0], networks[1]))
        show(name, seen)


def show(name: str, seen: list[Seen]) -> None:
    """Print a line a camera."""
    of_scene = [torch.stack(one.own).mean(0) for one in seen]
    total, half = torch.stack(of_scene).sum(0), len(seen) // 2
    print(f"\n**{name}**, {len(seen)} scenes; ERGAS, and relative to own z")
    print("| camera | own | mean | shuffled | zero | twin |\n|---|---|---|---|---|---|")
    figures = defaultdict(list)
    for number, one in enumerate(seen):
        others = {
            "own": one.own,
            "mean": [(total - of_scene[number]) / (len(seen) - 1)],
            "shuffled": seen[(number + half) % len(seen)].own,
            "zero": [torch.zeros_like(one.own[0])],
        }
        found = [one.by(latents) for latents in others.values()]
        figures[one.camera].append([*found, float("nan") if one.of_twin is None else one.of_twin])
    for camera, rows in [*figures.items(), ("all", [row for each in figures.values() for row in each])]:
        mean = np.mean(rows, 0)
        print(f"| {camera} | {mean[0]:.4f} | " + " | ".join(f"{each / mean[0]:.3f}" for each in mean[1:]) + " |")


if __name__ == "__main__":
    main()
