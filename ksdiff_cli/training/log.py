"""What a run tells: a step's figures for who listens; log.jsonl, a line a validation; curves.png of it; TensorBoard."""

import contextlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ksdiff_cli.errors import KsdiffError
from ksdiff_cli.files.png import write_png
from ksdiff_cli.files.writing import atomic_write
from ksdiff_cli.training.pictures import draw_curves

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

    def add(self, step: int, facts: dict[str, Any]) -> None:
        """Add a line and draw the curves anew."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a") as file:
            file.write(json.dumps({"stage": self._stage, "step": step, **facts}) + "\n")
        write_png(draw_curves(self.lines()), self._curves)


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
