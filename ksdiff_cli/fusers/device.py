"""Which processor a network runs on, and what memory it has."""

import re
from typing import TYPE_CHECKING

from ksdiff_cli.errors import KsdiffError
from ksdiff_cli.process import usable_threads

if TYPE_CHECKING:
    import torch
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ksdiff_cli.numerics import Array

if TYPE_CHECKING:
    import torch
    from torch import Tensor


def pick_device(name: str = "auto") -> "torch.device":
    """Turn a device's name into a device that is there.

    Args:
        name: ``auto`` (a CUDA GPU if there is one), ``cpu``, ``cuda``, ``cuda:N``, or ``mps`` (Apple's).

    Raises:
        KsdiffError: no such name, or no such GPU on this machine.
    """
    import torch

    if not re.fullmatch(r"auto|cpu|mps|cuda(:[0-9]{1,4})?", name):
        raise KsdiffError(f"--device {name}: unknown device; choose auto, cpu, cuda, cuda:N or mps")
    if (threads := usable_threads(None)) is not None:
        torch.set_num_threads(threads)
    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if name == "mps":
        if not torch.backends.mps.is_available():
            raise KsdiffError("--device mps: this machine, or this PyTorch, has no Apple GPU; choose cpu or auto")
        return torch.device("mps")
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


# ---- arrays on their way to a GPU and back


@dataclass(frozen=True)
class Sent:
    """Arrays that were sent; :meth:`DeviceTransfer.receive` takes them in."""

    tensors: "tuple[Tensor, ...]"
    arrived: Any
    """Reached once they are on the device; None where they always were."""


class DeviceTransfer:
    """Copies from and to pinned memory on streams of their own, so that no copy waits for a kernel, or one for it.

    Any thread may send, any may wait for a result; the one that computes receives and fetches.
    """

    def __init__(self, device: "torch.device") -> None:
        """Prepare for one device."""
        import torch

        self.device = device
        stream: Any = torch.cuda.Stream
        self._streams = (stream(device), stream(device)) if device.type == "cuda" else None

    def __reduce__(self) -> tuple[Any, ...]:
        """Let another process make streams of its own."""
        return DeviceTransfer, (self.device,)

    def send(self, *arrays: Array) -> Sent:
        """Start arrays on their way, as float32; returns before they are there. On a CPU they are not copied."""
        import torch

        tensors = tuple(torch.from_numpy(np.ascontiguousarray(array, np.float32)) for array in arrays)
        if self._streams is None:
            return Sent(tuple(tensor.to(self.device) for tensor in tensors), None)
        up, _ = self._streams
        with torch.cuda.stream(up):  # this also chooses the device, for the pinned memory too
            # torch keeps pinned memory until the copy has been made
            moved = tuple(tensor.pin_memory().to(self.device, non_blocking=True) for tensor in tensors)
            arrived: Any = torch.cuda.Event()  # type: ignore[no-untyped-call]
            arrived.record(up)
        return Sent(moved, arrived)

    def receive(self, sent: Sent) -> "tuple[Tensor, ...]":
        """Return what was sent; the device's kernels, not the caller, wait until it is there."""
        import torch

        if sent.arrived is not None:
            computing = torch.cuda.current_stream(self.device)
            computing.wait_event(sent.arrived)
            for tensor in sent.tensors:  # its memory is the other stream's: not to be given away while it is read
                tensor.record_stream(computing)
        return sent.tensors

    def fetch(self, result: "Tensor") -> "Callable[[], Array]":
        """Start a result on its way back.

        Args:
            result: on the device; it may not be computed yet.

        Returns:
            What waits for it, in any thread, and returns it as an array.
        """
        import torch

        if self._streams is None:
            array: Array = result.cpu().numpy()
            return lambda: array
        _, down = self._streams
        down.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(down):
            pinned = torch.empty(result.shape, dtype=result.dtype, pin_memory=True)
            pinned.copy_(result, non_blocking=True)
            result.record_stream(down)
            # who waits for it sleeps
            arrived: Any = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
            arrived.record(down)

        def wait() -> Array:
            arrived.synchronize()
            return np.asarray(pinned.numpy())

        return wait
