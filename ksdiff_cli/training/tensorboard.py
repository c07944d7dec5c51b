"""A run's figures for TensorBoard."""

from pathlib import Path
from typing import Any

from ksdiff_cli.errors import KsdiffError
from ksdiff_cli.training.log import TrainingStep

FOLDER = "tensorboard"
"""Within the run's folder."""


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
        self._make, self._folder = SummaryWriter, run / FOLDER
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
