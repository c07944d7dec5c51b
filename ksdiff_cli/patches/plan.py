"""Planning patches: opens every scene, lays out its blocks, checks that all go into one file; degrades no pixel."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from ksdiff_cli.errors import KsdiffError
from ksdiff_cli.files.content import identify
from ksdiff_cli.files.names import Inputs
from ksdiff_cli.numerics.boxes import Box
from ksdiff_cli.options.patches import PatchOptions
from ksdiff_cli.patches.layout import SPLITS, Regions, Split, check_patch, lay_regions
from ksdiff_cli.patches.sources import PairSource, Source, TileSource, open_tiles
from ksdiff_cli.patches.toolbox import check_toolbox
from ksdiff_cli.products import find_scenes
from ksdiff_cli.products.scene_files import identify_scene, scene_inputs
from ksdiff_cli.raster.nodata import check_declared, declare, find_notes
from ksdiff_cli.raster.pair import Scene, open_pair
from ksdiff_cli.raster.registration import check_registration
from ksdiff_cli.raster.synthesis import GuidedScene
from ksdiff_cli.sensors import Sensor

_OFF = 0.05  # share by which the true ratio may differ from that of patches at full resolution
_TILES_RATIO = 4  # of PanCollection's sensors


@dataclass
class Plan:
    """One scene before a pixel is degraded."""

    name: str
    sensor: Sensor
    ratio: int
    bands: int
    band_names: tuple[str, ...]
    open: Callable[[], AbstractContextManager[Sequence[Source]]]
    shapes: list[tuple[int, int]]
    """Of the scene's images: one, or many tiles."""
    regions: list[Regions]
    """By image."""
    on_ground: bool
    """Whether it is a scene pair; tiles have no place on the ground."""
    full: bool
    """Whether windows at full resolution can be cut, too."""
    inputs: Inputs
    """Files that the scene is made of."""
    identity: dict[str, Any]
    """By what another run knows the scene again."""
    notes: list[str] = field(default_factory=list)

    def blocks(self, split: Split) -> list[Box]:
        """All rectangles of a split."""
        return [rect for regions in self.regions for rect in regions[split]]


def plan_patches(options: PatchOptions) -> list[Plan]:
    """Open every scene, lay out its blocks and check that all go into one file; no pixel is degraded.

    Raises:
        KsdiffError: see :func:`prepare_patches`.
    """
    options.check_scenes()
    plans: list[Plan] = []
    for path in options.scenes:
        if isinstance(path, Scene):
            plans.append(_plan_scene(path, options))
        elif path.suffix.lower() in (".h5", ".hdf5"):
            plans.append(_plan_tiles(path, options))
        else:
            for scene in find_scenes(path, options.sensor):
                if isinstance(scene, GuidedScene):
                    raise KsdiffError(f"{path}: has no PAN, and patches are cut from PAN with MS; name another scene")
                plans.append(_plan_scene(declare(replace(scene, warp=options.warp), options.nodata), options))
    first = plans[0]
    for plan in plans[1:]:
        if (plan.bands, plan.ratio) != (first.bands, first.ratio):
            raise KsdiffError(
                f"{first.name} has {first.bands} bands at ratio {first.ratio}, {plan.name} has {plan.bands} at ratio "
                f"{plan.ratio}: prepare them into separate folders (ksdiff train takes several with --data)"
            )
    return plans


def _plan_scene(scene: Scene, options: PatchOptions) -> Plan:
    found: Sequence[str] = ()
    if options.registration != "skip":
        scene, found = check_registration(scene, correct=options.registration == "correct")

    @contextmanager
    def reopen() -> Iterator[Sequence[Source]]:
        with open_pair(scene) as pair:
            yield [PairSource(pair, options.ratio, options.pan_mtf, options.geometry)]

    with open_pair(scene) as pair:
        source = PairSource(pair, options.ratio, options.pan_mtf, options.geometry)
        check_patch(options.patch, source.ratio)
        # the filters' reach as guard: no value of a block depends on a pixel of another split
        regions = lay_regions(scene.name, source.shape, options.patch, source.ratio, source.reach, options.seed)
        check_declared(pair)
        notes = [f"{scene.name}: {line}" for line in (*found, *pair.notes, *find_notes(pair))]
        full = abs(pair.true_ratio - source.ratio) <= _OFF * source.ratio
        if not full:
            notes.append(
                f"{scene.name}: degraded by {source.ratio} though its own ratio is {pair.true_ratio:.3g}, "
                "hence no full-resolution patches"
            )
    inputs = scene_inputs(scene)
    known = identify_scene(scene, inputs)
    return Plan(*_about(scene.name, source), reopen, [source.shape], [regions], True, full, inputs, known, notes)


def _plan_tiles(path: Path, options: PatchOptions) -> Plan:
    ratio = options.ratio or _TILES_RATIO

    @contextmanager
    def reopen() -> Iterator[Sequence[TileSource]]:
        file, sources = open_tiles(path, ratio, options.sensor, options.geometry)
        with file:
            yield sources

    if options.geometry == "toolbox":
        check_toolbox(str(path), ratio)
    check_patch(options.patch, ratio)
    with reopen() as sources:
        first = sources[0] if sources else None
        if first is None or len(sources) < 2 or min(first.shape) < options.patch:
            raise KsdiffError(f"{path}: needs at least two tiles of {options.patch} px (one for train, one for valid)")
        order = np.random.default_rng(options.seed).permutation(len(sources))
        held = max(1, len(sources) // 10)
        splits: dict[int, Split] = dict.fromkeys(order[:held].tolist(), "valid")
        if len(sources) > 2:
            splits |= dict.fromkeys(order[held : 2 * held].tolist(), "test")
        regions: list[Regions] = []
        for index in range(len(sources)):
            own = splits.get(index, "train")
            regions.append({split: [Box(0, 0, *first.shape)] if split == own else [] for split in SPLITS})
        shapes = [first.shape] * len(sources)
        note = f"{path.stem}: tiles at the MS scale, hence no full-resolution patches"
        inputs = Inputs([path])
        known = {"files": identify(inputs.files)}
        return Plan(*_about(path.stem, first), reopen, shapes, regions, False, False, inputs, known, [note])


def _about(name: str, source: Source) -> tuple[str, Sensor, int, int, tuple[str, ...]]:
    return name, source.sensor, source.ratio, source.bands, source.band_names
