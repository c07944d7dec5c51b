"""Which processor a network runs on, and what memory it has."""

import re
from typing import TYPE_CHECKING

from ksdiff_cli.errors import KsdiffError
from ksdiff_cli.process import usable_threads

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

    if not re.fullmatch(r"auto|cpu|cuda(:[0-9]{1,4})?", name):
        raise KsdiffError(f"--device {name}: unknown device; choose auto, cpu, cuda or cuda:N")
    if (threads := usable_threads(None)) is not None:
        torch.set_num_threads(threads)
    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if torch.cuda._is_in_bad_fork():
        raise KsdiffError(
            f"--device {name}: a GPU that was used before a fork cannot be used after it; choose cpu, or start "
            "processes by multiprocessing.get_context('spawn')"
        )
    if not torch.cuda.is_available():
        raise KsdiffError(f"--device {name}: no CUDA GPU can be used here; choose cpu or auto")
    index = int(name.partition(":")[2] or 0)
    count = torch.cuda.device_count()
    if index >= count:
        raise KsdiffError(f"--device {name}: there are only {count} GPUs, numbered from 0")
    return torch.device("cuda", index)


def free_memory(device: "torch.device") -> int | None:
    """Return the bytes of a GPU that nobody uses, or that this process has reserved and not in use; None of a CPU."""
    import torch

    if device.type != "cuda":
        return None
    free, _ = torch.cuda.mem_get_info(device)
    return int(free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device))


def is_out_of_memory(error: BaseException) -> bool:
    """Say whether an error of torch's means that a GPU's memory did not suffice."""
    import torch

    # cuDNN and cuBLAS take memory of their own, and have no error of their own for it
    return isinstance(error, torch.cuda.OutOfMemoryError) or "ALLOC_FAILED" in str(error)


def release_memory() -> None:
    """Give back what torch keeps of GPUs' memory for later."""
    import torch

    torch.cuda.empty_cache()  # nothing without a GPU


def has_bf16(device: "torch.device") -> bool:
    """Say whether a device computes in bfloat16 faster than in float32: GPUs since NVIDIA's Ampere."""
    import torch

    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)
