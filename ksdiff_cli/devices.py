"""Which processor a network runs on."""

import re
from typing import TYPE_CHECKING

from ksdiff_cli.errors import KsdiffError

if TYPE_CHECKING:
    import torch


def pick_device(name: str = "auto") -> "torch.device":
    """Turn a device's name into a device that is there.

    Args:
        name: ``auto`` (a GPU if there is one), ``cpu``, ``cuda`` or ``cuda:N``.

    Raises:
        KsdiffError: no such name, or no such GPU on this machine.
    """
    import torch

    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", name):
        raise KsdiffError(f"--device {name}: unknown device; choose auto, cpu, cuda or cuda:N")
    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise KsdiffError(f"--device {name}: no CUDA GPU can be used here; choose cpu or auto")
    index = int(name.partition(":")[2] or 0)
    count = torch.cuda.device_count()
    if index >= count:
        raise KsdiffError(f"--device {name}: there are only {count} GPUs, numbered from 0")
    return torch.device("cuda", index)
