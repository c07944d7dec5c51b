"""Arrays on their way to a GPU and back while it works on others; on a CPU nothing moves."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Array = NDArray[Any]


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
            return Sent(tensors, None)
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
            array: Array = result.numpy()
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
