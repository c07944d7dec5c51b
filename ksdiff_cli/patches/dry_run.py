"""What a set of patches would be, from the scenes' sizes alone: no pixel is degraded and nothing is written."""

from dataclasses import dataclass

from ksdiff_cli.patches.parts import FILES, FileName, Part, choose_cut, lay_parts
from ksdiff_cli.patches.plan import PatchOptions, Plan, plan_patches
from ksdiff_cli.patches.prepare import check_output


@dataclass(frozen=True)
class SceneForecast:
    """One scene."""

    name: str
    sensor: str
    bands: int
    images: int
    """1, or the number of tiles."""
    shape: tuple[int, int]
    """(height, width) of the part that is used, in MS pixels (of one tile)."""
    blocks: dict[FileName, int]
    """Blocks by file."""
    windows: dict[FileName, int]
    """Windows by file, before any is left out."""


@dataclass(frozen=True)
class Forecast:
    """What would be made, at most: windows that touch nodata, clouds or saturated pixels are not known yet."""

    ratio: int
    scenes: list[SceneForecast]
    sides: dict[FileName, int]
    """Side of gt (of PAN for ``full``) by file, in pixels."""
    bytes: dict[FileName, int]
    """Size of the files before compression."""
    notes: list[str]


def forecast_patches(options: PatchOptions, *, overwrite: bool = False) -> Forecast:
    """Say what :func:`prepare.prepare_patches` would make.

    Raises:
        KsdiffError: as there, as far as it can be known without looking at pixels.
    """
    check_output(options.output, overwrite)
    plans = plan_patches(options)
    cut = choose_cut(plans, options.patch)
    parts = lay_parts(plans, cut)
    ratio, bands = plans[0].ratio, plans[0].bands
    sizes = {}
    for file in FILES:
        pixels = cut.sides[file] ** 2
        values = pixels * (1 + bands) + pixels // ratio**2 * bands + (pixels * bands if file != "full" else 0)
        sizes[file] = 4 * values * sum(part.windows for part in parts if part.file == file)
    scenes = [_scene(plan, [part for part in parts if part.scene == index]) for index, plan in enumerate(plans)]
    return Forecast(ratio, scenes, dict(cut.sides), sizes, [line for plan in plans for line in plan.notes])


def _scene(plan: Plan, parts: list[Part]) -> SceneForecast:
    blocks = {file: sum(len(part.blocks) for part in parts if part.file == file) for file in FILES}
    windows = {file: sum(part.windows for part in parts if part.file == file) for file in FILES}
    shape = min(plan.shapes)
    return SceneForecast(plan.name, plan.sensor.name, plan.bands, len(plan.shapes), shape, blocks, windows)
