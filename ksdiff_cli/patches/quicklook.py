"""A picture of where the patches lie: every scene with its blocks, and what was left out and why."""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
from rasterio.enums import Resampling
from rasterio.windows import Window

from ksdiff_cli.files.writing import write_png
from ksdiff_cli.numerics import Array
from ksdiff_cli.numerics.boxes import Box
from ksdiff_cli.numerics.canvas import Colour, draw_text, fit_text, hatch, outline, text_width, tint
from ksdiff_cli.patches.layout import Split
from ksdiff_cli.patches.masks import REASONS
from ksdiff_cli.patches.plan import Plan
from ksdiff_cli.patches.sources import PairSource
from ksdiff_cli.patches.workspace import Cut, FileName
from ksdiff_cli.report.colours import find_stretch, rgb_bands

Lists = dict[FileName, dict[str, Array]]
QUICKLOOK = "quicklook.png"

_SIDE = 1280  # of the picture, about
_MOST_SCENES = 36
_ENLARGED = 6  # pixels of the picture per MS pixel, at most
_TITLE, _MARGIN, _TEXT = 24, 8, 16
_PAPER: Colour = (36, 36, 36)
_INK: Colour = (235, 235, 235)
_UNUSED = 0.55  # how much darker than the scene
_SPLITS: dict[Split, Colour] = {"train": (60, 150, 255), "valid": (255, 190, 0), "test": (255, 70, 220)}
_REASONS: dict[str, Colour] = {"nodata": (150, 150, 150), "cloud": (0, 235, 235), "saturated": (255, 50, 40)}


def draw_quicklook(target: Path, plans: list[Plan], lists: Lists, cut: Cut, step: Callable[..., None]) -> None:
    """Write a PNG with a panel per scene (36 at most) and a legend; tiles have no place on the ground, hence no panel.

    Args:
        target: the file; one that is there stays. It appears complete or not at all, and not for tiles only.
        plans: the scenes and their blocks.
        lists: of every file, see :func:`writer.gather_lists`.
        cut: sizes of the windows.
        step: called after every scene, or with the number of scenes.
    """
    if target.exists():
        step(len(plans))
        return
    places = [index for index, plan in enumerate(plans) if plan.on_ground]
    shown = places[:_MOST_SCENES]
    columns = max(1, math.ceil(math.sqrt(len(shown))))
    side = _SIDE // columns - _MARGIN
    panels = []
    for index, plan in enumerate(plans):
        if index in shown:
            with plan.open() as sources:
                assert isinstance(sources[0], PairSource)
                panels.append(_panel(sources[0], plan, index, lists, cut, side))
        step()
    if panels:
        write_png(_lay_out(panels, columns, _legend(lists, len(places) - len(shown))), target)


def _panel(source: PairSource, plan: Plan, index: int, lists: Lists, cut: Cut, side: int) -> Array:
    """Draw one scene: (H, W, 3) uint8, at most ``side`` pixels high and wide without its title."""
    scale = min(side / max(source.shape), _ENLARGED)
    shape = (max(1, round(source.shape[0] * scale)), max(1, round(source.shape[1] * scale)))
    canvas = _picture(source, shape)

    def box(row: int, col: int, height: int, width: int) -> Box:
        top, left = round(row * scale), round(col * scale)
        return Box(top, left, max(top + 1, round((row + height) * scale)), max(left + 1, round((col + width) * scale)))

    def cover(origins: Array, size: int) -> Array:
        mask = np.zeros(shape, bool)
        for row, col in origins.tolist():
            place = box(row, col, size, size)
            mask[place.top : place.bottom, place.left : place.right] = True
        return mask

    used, stripes = np.zeros(shape, bool), hatch(shape, 8)
    tints: list[tuple[Array, Colour, float]] = []
    for split, colour in _SPLITS.items():
        mine = lists[split]
        kept = cover(mine["origin"][mine["scene"] == index], cut.sides[split])
        used |= kept
        tints.append((kept, colour, 0.22))
        left_out = mine["left_out"][mine["left_out"][:, 0] == index]
        for number, reason in enumerate(REASONS):
            lost = cover(left_out[left_out[:, 3] == number, 1:3], cut.sides[split]) & ~kept
            used |= lost
            tints.append((lost & stripes, _REASONS[reason], 0.75))
    tint(canvas, ~used, (0, 0, 0), _UNUSED)
    for mask, colour, strength in tints:
        tint(canvas, mask, colour, strength)
    for row, col in lists["full"]["origin"][lists["full"]["scene"] == index].tolist():
        size = cut.sides["full"] // source.ratio
        outline(canvas, box(row, col, size, size), _INK, 1)
    for split, colour in _SPLITS.items():
        for rect in plan.blocks(split):
            outline(canvas, box(rect.top, rect.left, rect.height, rect.width), colour, 3)
    return _titled(canvas, plan.name)


def _picture(source: PairSource, shape: tuple[int, int]) -> Array:
    """Read the scene's usable part in few pixels, as colours people know: (H, W, 3) uint8, invalid pixels black."""
    window = Window(source.origin[1], source.origin[0], source.shape[1], source.shape[0])
    way = Resampling.average if shape[0] < source.shape[0] else Resampling.nearest
    out = np.zeros((*shape, 3), np.uint8)
    for channel, number in enumerate(_colour_bands(source)):
        dataset, band = source.pair.ms[number], source.pair.scene.ms[number]
        values = dataset.read(band.band, window=window, out_shape=shape, resampling=way, masked=band.declared)
        values, mask = np.ma.getdata(values), np.ma.getmaskarray(values)
        valid = ~mask & np.isfinite(values) & (values != band.fill)
        stretched = find_stretch(values[None], valid).apply(values[None])[0]
        out[..., channel] = np.where(valid, stretched, 0)
    return out


def _colour_bands(source: PairSource) -> tuple[int, int, int]:
    """Red, green and blue by the names of the files' bands, else by those of the sensor's, else by their order."""
    for names in (source.band_names, source.sensor.bands):
        if len(names) == source.bands and {"red", "green", "blue"} <= {name.lower() for name in names}:
            return rgb_bands(source.bands, names)
    return rgb_bands(source.bands)


def _titled(panel: Array, name: str) -> Array:
    out = np.full((panel.shape[0] + _TITLE, *panel.shape[1:]), _PAPER, np.uint8)
    out[_TITLE:] = panel
    draw_text(out, fit_text(name, panel.shape[1], _TEXT, keep_end=True), 2, 0, _TEXT, _INK)
    return out


def _legend(lists: Lists, more: int) -> list[tuple[str, str, Colour]]:
    """Return what the legend says: (kind of swatch, text, colour)."""
    counts = {name: len(own["scene"]) for name, own in lists.items()}
    entries = [("block", f"{name}: {counts[name]} patches", colour) for name, colour in _SPLITS.items()]
    if counts["full"]:
        entries.append(("window", f"full resolution: {counts['full']}", _INK))
    for number, reason in enumerate(REASONS):
        count = sum(int((lists[name]["left_out"][:, 3] == number).sum()) for name in _SPLITS)
        if count:
            entries.append(("stripes", f"left out, {reason}: {count}", _REASONS[reason]))
    entries.append(("dark", "not used (guard between blocks, rim)", _INK))
    if more:
        entries.append(("", f"and {more} more scenes", _INK))
    return entries


def _lay_out(panels: list[Array], columns: int, legend: list[tuple[str, str, Colour]]) -> Array:
    """Put panels in rows and the legend below."""
    rows = [panels[start : start + columns] for start in range(0, len(panels), columns)]
    height = sum(max(len(panel) for panel in row) + _MARGIN for row in rows)
    needed = max(sum(panel.shape[1] + _MARGIN for panel in row) for row in rows) + _MARGIN
    width = max(needed, 640)
    swatch, line = 28, 28
    places, col, row_number = [], _MARGIN, 0
    for _, text, _ in legend:
        length = swatch + 8 + text_width(text, _TEXT) + 16
        if col + length > width and col > _MARGIN:
            col, row_number = _MARGIN, row_number + 1
        places.append((row_number, col))
        col += length
    out = np.full((height + (row_number + 1) * line + 2 * _MARGIN, width, 3), _PAPER, np.uint8)
    top = _MARGIN
    for row in rows:
        left = _MARGIN
        for panel in row:
            out[top : top + panel.shape[0], left : left + panel.shape[1]] = panel
            left += panel.shape[1] + _MARGIN
        top += max(len(panel) for panel in row) + _MARGIN
    for (number, col), (kind, text, colour) in zip(places, legend, strict=True):
        at = top + number * line
        _swatch(out[at : at + 18, col : col + swatch], kind, colour)
        draw_text(out, text, at, col + swatch + 8, _TEXT, _INK)
    return out


def _swatch(area: Array, kind: str, colour: Colour) -> None:
    whole = np.ones(area.shape[:2], bool)
    box = Box(0, 0, *area.shape[:2])
    if kind:
        area[...] = 110  # stands for the scene
    if kind == "block":
        tint(area, whole, colour, 0.22)
        outline(area, box, colour, 3)
    elif kind == "window":
        outline(area, box, colour, 1)
    elif kind == "stripes":
        tint(area, hatch(area.shape[:2], 8), colour, 0.75)
    elif kind == "dark":
        tint(area, whole, (0, 0, 0), _UNUSED)
