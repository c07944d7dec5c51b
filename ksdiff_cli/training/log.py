"""What a run tells: figures for who listens, log.jsonl and its curves, results on unseen images, TensorBoard."""

import contextlib
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ksdiff_cli.errors import KsdiffError
from ksdiff_cli.files.writing import atomic_write, write_png
from ksdiff_cli.numerics import Array

NAMES = ("log.jsonl", "curves.png")


@dataclass(frozen=True)
class TrainingStep:
    """One step of a run."""

    stage: str
    """stage1, stage2 or the name of a network without stages."""
    step: int
    """Optimiser steps of the stage that are done."""
    steps: int
    """Optimiser steps of the whole stage."""
    rate: float
    """The step's learning rate."""
    losses: Mapping[str, float]
    """``loss``; in stage 2 its terms ``diffusion`` (eq. 9) and ``regression`` (eq. 4) too."""
    validation: Mapping[str, float]
    """What was measured after the step, by the names of log.jsonl; empty after most steps."""


StepCallback = Callable[[TrainingStep], None]


class Log:
    """The log of a run folder, written stage by stage."""

    def __init__(self, folder: Path, stage: str) -> None:
        """Log ``stage`` (stage1, stage2 …) in ``folder``, which is made when the first line comes."""
        self._path, self._curves = (folder / name for name in NAMES)
        number = stage.removeprefix("stage")
        self._stage: int | str = int(number) if number.isdigit() else stage
        self._drawn = time.monotonic()

    def is_foreign(self) -> bool:
        """Say whether files of the names of log and curves are there that no run has written."""
        if self._path.exists():
            return not all("stage" in line and "step" in line for line in self.lines() or [{}])
        return self._curves.exists()

    def lines(self) -> list[dict[str, Any]]:
        """Return all lines, of all stages; one that a kill left incomplete is passed over."""
        found = []
        for line in self._path.read_text().splitlines() if self._path.exists() else []:
            with contextlib.suppress(json.JSONDecodeError):
                found.append(json.loads(line))
        return found

    def forget_after(self, step: int) -> None:
        """Drop the stage's lines after ``step``: those of an earlier run, or between the last state and a kill."""
        kept = [line for line in self.lines() if line["stage"] != self._stage or line["step"] <= step]
        if self._path.exists():
            with atomic_write(self._path) as growing:
                growing.write_text("".join(json.dumps(line) + "\n" for line in kept))

    def add(self, step: int, facts: dict[str, Any], last: bool = True) -> None:
        """Add a line and draw the curves anew; unless it is the ``last``, not more often than people look."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a") as file:
            file.write(json.dumps({"stage": self._stage, "step": step, **facts}) + "\n")
        if last or time.monotonic() - self._drawn > _DRAW_SECONDS:
            write_png(draw_curves(self.lines()), self._curves)
            self._drawn = time.monotonic()


class TensorBoard:
    """A listener that writes every step's losses, its learning rate and validations, by stage."""

    def __init__(self, run: Path) -> None:
        """Remember the run's folder; files are made with the first step.

        Raises:
            KsdiffError: TensorBoard is not installed.
        """
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise KsdiffError(
                "--tensorboard: TensorBoard is not installed; pip install 'ksdiff[tensorboard]'"
            ) from None
        self._make, self._folder = SummaryWriter, run / "tensorboard"
        self._writers: dict[str, Any] = {}

    def __call__(self, step: TrainingStep) -> None:
        """Take a step; what an earlier run wrote after it is hidden."""
        if step.stage not in self._writers:
            self._writers[step.stage] = self._make(str(self._folder / step.stage), purge_step=step.step)
        writer = self._writers[step.stage]
        for name, value in {**step.losses, "rate": step.rate}.items():
            writer.add_scalar(f"training/{name}", value, step.step)
        for name, value in step.validation.items():
            writer.add_scalar(f"validation/{name}", value, step.step)
        if step.validation:
            writer.flush()

    def close(self) -> None:
        """Write what waits."""
        for writer in self._writers.values():
            writer.close()


_DRAW_SECONDS = 10
_WIDTH, _HEIGHT = 7, 1.9  # of one panel of curves, inches of 100 pixels
_COLOURS = {1: "#1f5aa0", 2: "#be5014"}
_PANELS = (
    ("loss", True, "training loss"),
    ("regression", True, "stage 2: loss of the network (eq. 4)"),
    ("diffusion", True, "stage 2: loss of the diffusion (eq. 9)"),
    ("valid", True, "validation loss"),
    ("SAM", True, "SAM of the validation images, degrees"),
    ("ERGAS", True, "ERGAS of the validation images"),
    ("shuffle_cost", False, "what another image's z costs"),
    ("mean_cost", False, "what the others' mean z costs"),
    ("z_spread", False, "spread of z between images"),
)
_GAP = 4  # pixels between pictures of a strip
_SIDE = 256  # of a picture of a strip at most
_PERCENTILES = 2, 98  # values shown as black and as full brightness


def draw_strip(images: Sequence[Sequence[Array]], bands: tuple[int, int, int]) -> Array:
    """Put pictures beside each other, a row an image.

    Args:
        images: for every row PAN (1, H, W), then MS upsampled, fused and truth, (C, H, W) each; all rows of one size.
        bands: shown as red, green and blue.

    Returns:
        (height, width, 3) uint8. MS, fused and truth share one stretch, the truth's; PAN has its own.
    """
    rows = []
    for pan, *colours in images:
        shown = [_stretch(pan[[0, 0, 0]], pan[[0, 0, 0]])]
        truth = colours[-1][list(bands)]
        shown += [_stretch(image[list(bands)], truth) for image in colours]
        gap = np.full((shown[0].shape[0], _GAP, 3), 255, np.uint8)
        rows.append(np.concatenate([part for image in shown for part in (image, gap)][:-1], 1))
    gap = np.full((_GAP, rows[0].shape[1], 3), 255, np.uint8)
    return np.concatenate([part for row in rows for part in (row, gap)][:-1], 0)


def _stretch(image: Array, like: Array) -> Array:
    """Return the middle of (3, H, W) as (h, w, 3) uint8, between percentiles of another image."""
    low, high = np.percentile(like, _PERCENTILES, (1, 2))
    span = np.where(high > low, high - low, 1)
    top, left = (max(0, size - _SIDE) // 2 for size in image.shape[1:])
    part = image[:, top : top + _SIDE, left : left + _SIDE]
    levels = np.clip((part - low[:, None, None]) / span[:, None, None], 0, 1) * 255
    return np.ascontiguousarray(np.nan_to_num(levels).round().astype(np.uint8).transpose(1, 2, 0))


def draw_curves(lines: Sequence[dict[str, Any]]) -> Array:
    """Draw a run's log: a panel a figure, stage 1 in blue and, behind it, stage 2 in orange.

    Args:
        lines: of log.jsonl; figures that a line lacks are left out.

    Returns:
        (height, width, 3) uint8.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # which takes its time to load
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator

    shown = [panel for panel in _PANELS if any(math.isfinite(line.get(panel[0], math.nan)) for line in lines)]
    before = max((line["step"] for line in lines if line["stage"] == 1), default=0)
    last = max((line["step"] + (before if line["stage"] == 2 else 0) for line in lines), default=1)
    height = _HEIGHT * max(1, len(shown))
    figure = Figure(figsize=(_WIDTH, height), dpi=100)
    # by hand: matplotlib's own search for a layout takes longer than a step of training
    sides = {"left": 0.7 / _WIDTH, "right": 1 - 0.15 / _WIDTH, "bottom": 0.3 / height, "top": 1 - 0.3 / height}
    figure.subplots_adjust(**sides, hspace=0.35)
    canvas: Any = FigureCanvasAgg(figure)  # whose methods have no types
    for number, (key, logarithmic, title) in enumerate(shown, start=1):
        axes: Any = figure.add_subplot(len(shown), 1, number)
        for stage in sorted({line["stage"] for line in lines}, key=str):
            curve = [
                (line["step"] + (before if stage == 2 else 0), line[key])
                for line in lines
                if line["stage"] == stage and math.isfinite(line.get(key, math.nan))
            ]
            if curve:
                axes.plot(*zip(*curve, strict=True), ".-", color=_COLOURS.get(stage, _COLOURS[1]), linewidth=1.5)
        if logarithmic and all(value > 0 for one in axes.lines for value in one.get_ydata()):
            axes.set_yscale("log")
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.yaxis.set_major_formatter("{x:g}")
            axes.minorticks_off()
        axes.set_xlim(0, 1.02 * last)
        axes.set_title(title, fontsize=9, loc="left", y=1.0)  # with no y matplotlib measures every label first
        axes.tick_params(labelsize=8, labelbottom=number == len(shown))
        axes.grid(alpha=0.3)
    canvas.draw()
    return np.ascontiguousarray(np.asarray(canvas.buffer_rgba())[..., :3])
