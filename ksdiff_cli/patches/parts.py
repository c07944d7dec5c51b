"""Dividing the work: sizes of the windows, and the parts in which each file is made, so that a killed run can go on."""

import math
from dataclasses import dataclass, field
from typing import Literal

from ksdiff_cli.numerics.boxes import Box
from ksdiff_cli.patches.cutting import groups
from ksdiff_cli.patches.layout import SPLITS, common_side, windows
from ksdiff_cli.patches.plan import Plan

FileName = Literal["train", "valid", "test", "full"]
FILES: tuple[FileName, ...] = (*SPLITS, "full")

_TEST_SIDE = 256  # PanCollection's
_FULL_SIDE = 512  # PAN pixels, PanCollection's
_PART_WINDOWS = 512  # a part is full once it has so many; a killed run loses one part at most


@dataclass(frozen=True)
class Cut:
    """How windows are cut: all images of a file have one size."""

    sides: dict[FileName, int]
    """Side of the images, in pixels of gt (of PAN for ``full``)."""
    strides: dict[FileName, int]
    """Between windows of train, valid and test, in the same pixels."""


@dataclass
class Part:
    """A piece of one file, from one scene: made in one go, or made again."""

    name: str
    file: FileName
    scene: int
    blocks: list[tuple[int, Box]] = field(default_factory=list)
    """Index of the scene's image, and a rectangle in it."""
    windows: int = 0
    """Before any is left out."""
    steps: int = 0
    """Of progress."""


def choose_cut(plans: list[Plan], patch: int) -> Cut:
    """Choose sizes that suit the blocks of all scenes.

    Args:
        plans: at least one.
        patch: side of a training patch in MS pixels.
    """
    ratio = plans[0].ratio
    step = math.lcm(8, ratio)
    test = [rect.side for plan in plans for rect in plan.blocks("test")]
    side = common_side(test, patch, _TEST_SIDE, step)
    held = test or [rect.side for plan in plans for rect in plan.blocks("valid")]
    full = common_side(held, patch, _FULL_SIDE // ratio, step)
    half = max(ratio, patch // 2 // ratio * ratio)
    sides: dict[FileName, int] = {"train": patch, "valid": patch, "test": side, "full": full * ratio}
    return Cut(sides, {**sides, "train": half, "valid": half})


def lay_parts(plans: list[Plan], cut: Cut) -> list[Part]:
    """Divide all blocks of all scenes into parts; in each file the images follow the parts' order."""
    parts: list[Part] = []
    for index, plan in enumerate(plans):
        for file in FILES:
            part = None
            for number, rect in _blocks(plan, file):
                if part is None or part.windows >= _PART_WINDOWS:
                    part = Part(f"{file}-{len(parts):05d}", file, index)
                    parts.append(part)
                count, steps = _count(rect, file, plan.ratio, cut)
                part.blocks.append((number, rect))
                part.windows += count
                part.steps += steps
    return parts


def _blocks(plan: Plan, file: FileName) -> list[tuple[int, Box]]:
    if file == "full":
        return [(0, rect) for rect in plan.blocks("test") or plan.blocks("valid")] if plan.full else []
    return [(number, rect) for number, regions in enumerate(plan.regions) for rect in regions[file]]


def _count(rect: Box, file: FileName, ratio: int, cut: Cut) -> tuple[int, int]:
    """Windows of a rectangle, and steps that cutting them takes."""
    side, stride = cut.sides[file], cut.strides[file]
    if file == "full":
        rows = list(windows(rect, side // ratio, side // ratio, ratio))
        return sum(len(cols) for _, cols in rows), len(rows)
    batches = list(groups(rect, side, stride, ratio))
    return sum(len(cols) for rows in batches for _, cols in rows), len(batches)
