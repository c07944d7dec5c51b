"""Measuring at full resolution what finer bands guided: each band against itself as delivered, and its own guide."""

import math
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import rasterio

from ksdiff_cli.errors import KsdiffError
from ksdiff_cli.evaluation.examples import Overview, View, choose_bands
from ksdiff_cli.evaluation.measure import find_band_shifts, ms_blocks, read_reprojected
from ksdiff_cli.evaluation.measured import Measurement
from ksdiff_cli.evaluation.sources import Area, GridSource, Image, common_area, compare_units, read_around
from ksdiff_cli.metrics import Shifts
from ksdiff_cli.metrics.blocks import Span, split
from ksdiff_cli.metrics.d_rho import DRho
from ksdiff_cli.metrics.full_blocks import margin_for
from ksdiff_cli.metrics.reprojection import Reprojection
from ksdiff_cli.options.measuring import MeasureOptions
from ksdiff_cli.products import Found, find_scene, names_scenes
from ksdiff_cli.progress import ProgressCallback, silent
from ksdiff_cli.raster.bands import BandSource
from ksdiff_cli.raster.camera import ms_camera
from ksdiff_cli.raster.layout import pixel_metres
from ksdiff_cli.raster.nodata import declare_band
from ksdiff_cli.raster.open import BLOCK_CACHE, alpha_is_data, data_bands, open_raster
from ksdiff_cli.raster.pair import OpenFiles, ScenePair, open_pair
from ksdiff_cli.raster.synthesis import Group, Guide, GuidedScene, declare_guided, find_guides
from ksdiff_cli.raster.units import read_factors
from ksdiff_cli.sensors import fold_name

FIGURES = ("R_Q2n", "R_ERGAS", "D_rho")
"""What is measured of each band, and in the mean over bands."""
_STEP = 1024, 1024  # of a block; as large as a tile of Sentinel-2's images, which is decoded whole


@dataclass
class _Band:
    """One band on its way."""

    name: str
    source: GridSource
    ratio: float
    guide: Guide
    d_rho: DRho
    reprojection: Reprojection
    shifts: Shifts | None = None
    left_out: int = 0
    notes: list[str] = field(default_factory=list)

    def figures(self) -> dict[str, float]:
        """Return :data:`FIGURES`, NaN where undefined."""
        reprojected, self.notes = self.reprojection.results()
        return {"R_Q2n": reprojected["R_Q2n"], "R_ERGAS": reprojected["R_ERGAS"], "D_rho": self.d_rho.result()}


def measure_guided(
    fused: Path,
    scene: GuidedScene,
    options: MeasureOptions,
    *,
    pictures: bool = False,
    progress: ProgressCallback = silent,
) -> Measurement:
    """Measure bands that finer ones guided against what they were made from, in bounded memory.

    Each band has a guide of its own, in place of PAN: D_rho is its local correlation with that. Seen through its own
    camera, at the shift found against the guide, it is compared with the band as it was delivered: R-Q2n and R-ERGAS of
    that band alone. Figures are the means over bands; :attr:`Measurement.by_band` has each.

    Args:
        fused: the raster to judge, on the finer bands' grid. Its bands are told by their names, or, where none is
            called as a coarser one is, by their order.
        scene: what it was made from, see :func:`find_measured`.
        options: ``guide_by`` says how guides are found, ``mtf`` whose camera looks, ``nodata`` what is none.
        pictures: keep an overview and a few windows as examples for a report.
        progress: told the blocks done.

    Raises:
        KsdiffError: a file is damaged, bands do not belong to each other, grids differ, or no pixel is valid.
    """
    with ExitStack() as stack:
        stack.enter_context(rasterio.Env(GDAL_CACHEMAX=BLOCK_CACHE))
        dataset = stack.enter_context(open_raster(fused))
        matched = _match(dataset, scene)
        opened, bands = OpenFiles(stack, scene.copies), list[_Band]()
        notes: dict[str, None] = {}
        for group in scene.groups:
            wanted = {number: band for band, (own, number) in matched.items() if own is group}
            if not wanted:
                continue
            guides = find_guides(scene, group, options.guide_by, progress)
            for number, band in sorted(wanted.items()):
                pair = stack.enter_context(_open_band(scene, group, number, guides[number], opened))
                source, said = _lay(dataset, band, pair, options)
                notes |= dict.fromkeys([*pair.notes, *said])
                one = _Band(group.bands[number].name, source, pair.true_ratio, guides[number], DRho(pair.true_ratio),
                            Reprojection(pair.true_ratio))  # fmt: skip
                bands.append(one)
        bands.sort(key=lambda band: band.source.fused.sources[0].band)
        found = _gather(bands, scene, options, list(notes), progress)
        if pictures:
            found.examples = _picture(dataset, fused.name, bands)
        return found


def find_measured(fused: Path, options: MeasureOptions) -> GuidedScene:
    """Find the scene that a raster was made from, with those groups of which it has bands.

    Args:
        fused: the raster.
        options: ``guide`` names the finer bands, ``ms`` or further ones of ``guide`` the coarser; or ``guide`` is a
            product.

    Raises:
        KsdiffError: a file is missing or no raster, or none of the raster's bands is one of the scene's.
    """
    guide, ms = options.guide, [] if options.ms is None else [str(options.ms)]
    product = len(guide) == 1 and not ms
    if product and Path(guide[0]).is_file() and not names_scenes(guide[0]):
        raise KsdiffError(f"{guide[0]}: is one file of finer bands; name the coarser ones with --ms or more --guide")
    # the first one is of the finest; what follows is sorted
    given = guide if product else [*guide[1:], *ms]
    found = find_scene(given, options.sensor, () if product else guide[:1])
    refusal: KsdiffError | None = None
    with open_raster(fused) as dataset:
        for scene in _guided(found):
            try:
                measured = [id(group) for group, _ in _match(dataset, scene).values()]
            except KsdiffError as error:
                refusal = refusal or error
                continue
            groups = tuple(group for group in scene.groups if id(group) in measured)
            return declare_guided(replace(scene, groups=groups, warp=options.warp), options.nodata)
    raise refusal or KsdiffError(f"{guide[0]}: has PAN and no bands that finer ones guide; measure with --pan and --ms")


def _guided(found: Found) -> tuple[GuidedScene, ...]:
    return (found,) if isinstance(found, GuidedScene) else found.others


def _match(dataset: Any, scene: GuidedScene) -> dict[int, tuple[Group, int]]:
    """Return for data bands of an open raster, by number from 1, a group and the band's number in it, from 0."""
    coarse = [(group, number) for group in scene.groups for number in range(len(group.bands))]
    known = {fold_name(group.bands[number].name): (group, number) for group, number in coarse}
    names = {band: fold_name(dataset.descriptions[band - 1] or "") for band in data_bands(dataset)}
    found = {band: known[name] for band, name in names.items() if name in known}
    if found:
        return found
    if len(names) == len(coarse):
        return dict(zip(names, coarse, strict=True))
    called = ", ".join(group.bands[number].name for group, number in coarse)
    raise KsdiffError(
        f"{dataset.name}: none of its {len(names)} bands is called as the coarser ones are ({called}), nor are they as "
        "many; write the names into its bands' descriptions"
    )


def _open_band(scene: GuidedScene, group: Group, number: int, guide: Guide, opened: OpenFiles) -> Any:
    sensor = replace(group.sensor, bands=(), mtf_ms=(group.gain(number),), wavelengths=())
    return open_pair(scene.pair(replace(group, bands=(group.bands[number],), sensor=sensor), guide.mix), opened)


def _lay(dataset: Any, band: int, pair: ScenePair, options: MeasureOptions) -> tuple[GridSource, list[str]]:
    """Find the part that a band of the raster and a pair share, and in what unit they are compared."""
    at_pan, at_fused, shape, notes = common_area(pair.pan, dataset)
    axes = list(zip(at_pan, pair.origin, shape, pair.shape, strict=True))
    starts = [max(0, at - origin) for at, origin, _, _ in axes]
    stops = [min(size, at + count - origin) for at, origin, count, size in axes]
    sides = (stops[0] - starts[0], stops[1] - starts[1])
    if min(sides) <= 0:
        raise KsdiffError(f"{dataset.name}: shares no pixel with {pair.scene.ms[0].path}; give bands of one scene")
    fused_at = [start + origin - a + b for start, (a, origin, _, _), b in zip(starts, axes, at_fused, strict=True)]
    own = declare_band(BandSource(dataset.name, band, alpha_is_data=alpha_is_data(dataset)), options.nodata[1])
    factors = read_factors(dataset.tags(), dataset.count)
    images: tuple[Image, Image] = ("the fused image", [dataset], [own]), ("MS", pair.ms, pair.scene.ms)
    units, said = compare_units(images, None, factors and [factors[0], factors[band]])
    camera = ms_camera(pair, options.mtf)
    area = Area(dataset, fused_at[0], fused_at[1], sides, (own,), units[0])
    gains = pair.scene.sensor.mtf_ms
    return GridSource(area, pair, starts[0], starts[1], gains, camera.kernels, sides, units[1]), [*notes, *said]


def _gather(
    bands: Sequence[_Band], scene: GuidedScene, options: MeasureOptions, notes: list[str], progress: ProgressCallback
) -> Measurement:
    """Measure block by block, all bands in each: what guides them is read once."""
    spans = {band.source.shape: _blocks(band.source.shape) for band in bands}
    ms_spans = [ms_blocks(band.source, _STEP) for band in bands]
    total, done = sum(map(len, spans.values())) + max(map(len, ms_spans)) + len(bands), 0
    for shape, blocks in spans.items():
        for rows, cols in blocks:
            for band in (band for band in bands if band.source.shape == shape):
                _correlate(band, rows, cols)
            progress(done := done + 1, total, "measuring")
    for band in bands:
        band.shifts = find_band_shifts(band.source)
        progress(done := done + 1, total, "measuring")
    for step in range(max(map(len, ms_spans))):
        for band, blocks in zip(bands, ms_spans, strict=True):
            if step < len(blocks) and band.shifts is not None:
                rows, cols = blocks[step]
                seen = read_reprojected(band.source, band.shifts.shifts, rows, cols)
                band.reprojection.update(*seen, rows, cols)
        progress(done := done + 1, total, "measuring")
    return _sum_up(bands, scene, options, notes)


def _blocks(shape: tuple[int, int]) -> list[tuple[Span, Span]]:
    across = split(shape[1], _STEP[1], 0, 0)
    return [(rows, cols) for rows in split(shape[0], _STEP[0], 0, 0) for cols in across]


def _correlate(band: _Band, rows: Span, cols: Span) -> None:
    block = read_around(band.source.fused.read, band.source.read_pan, rows, cols, margin_for(band.ratio))
    band.d_rho.update(block)
    band.left_out += int(np.count_nonzero(~block.cut(0, 0)[2]))


def _sum_up(bands: Sequence[_Band], scene: GuidedScene, options: MeasureOptions, notes: list[str]) -> Measurement:
    figures = {band.name: band.figures() for band in bands}
    means = {}
    for name in FIGURES:
        defined = [one[name] for one in figures.values() if not math.isnan(one[name])]
        means[name] = float(np.mean(defined)) if defined else math.nan
    height, width = bands[0].source.shape
    ratios = sorted({round(band.ratio, 6) for band in bands})
    sensors = dict.fromkeys(group.sensor.name for group in scene.groups)
    settings = {"sensor": " ".join(sensors), "guide": options.guide_by, "reprojection": _cameras(options)}
    if len(ratios) > 1:
        settings["ratios"] = " ".join(f"{ratio:g}" for ratio in ratios)
    found = Measurement("full", (width, height), len(bands), ratios[0], settings, notes=notes)
    found.left_out = max(band.left_out for band in bands)
    shifts = [band.shifts for band in bands if band.shifts is not None]
    found.shifts = Shifts(
        np.concatenate([one.shifts for one in shifts]), np.concatenate([one.correlation for one in shifts])
    )
    found.by_band = {
        band.name: figures[band.name] | {"R2": band.guide.r2, "ratio": round(band.ratio, 6)} for band in bands
    }
    found.finish(means, [f"{band.name}: {note}" for band in bands for note in band.notes])
    return found


def _cameras(options: MeasureOptions) -> str:
    return "the cameras found in the scene" if options.mtf == "scene" else "the bands' own MTF"


def _picture(dataset: Any, name: str, bands: Sequence[_Band]) -> list[Any]:
    """Return pictures of the bands measured, from the area that all of them share with their guides."""
    first = bands[0].source.fused
    if any((one.source.fused.row, one.source.fused.col, one.source.shape) != (first.row, first.col, first.shape)
           for one in bands):  # fmt: skip
        return []
    area = replace(first, sources=tuple(band.source.fused.sources[0] for band in bands), units=None)

    def read(rows: Span, cols: Span) -> View:
        values, valid = area.read(rows.start, cols.start, rows.stop - rows.start, cols.stop - cols.start)
        return View(values, valid)

    overview = Overview(area.shape, pixel_metres(dataset))
    for rows, cols in _blocks(area.shape):
        overview.add(read(rows, cols), rows, cols)
    last = len(bands) - 1
    shown = choose_bands(dataset) if len(bands) == dataset.count else (last, last // 2, 0)
    return overview.examples(name, read, shown)
