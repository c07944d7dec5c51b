"""Objects on their way to another process, whose networks may run on another device there."""

import io
import pickle
import sys
from collections.abc import Callable
from typing import Any


def pack(value: Any) -> bytes:
    """Turn an object that may hold a network into bytes; its tensors leave their device.

    Args:
        value: anything that pickle takes.
    """
    torch = sys.modules.get("torch")
    tensors: dict[int, tuple[int, Any]] = {}

    class Pickler(pickle.Pickler):
        def persistent_id(self, item: Any) -> Any:
            if torch is not None and isinstance(item, torch.device):
                return "device"
            if torch is not None and isinstance(item, torch.Tensor):
                return tensors.setdefault(id(item), (len(tensors), item))[0]
            return None

    buffer, weights = io.BytesIO(), io.BytesIO()
    Pickler(buffer).dump(value)
    if torch is not None:
        # torch's own format keeps strides, which decide how a convolution rounds
        torch.save([tensor for _, tensor in tensors.values()], weights)
    return pickle.dumps((buffer.getvalue(), weights.getvalue()))


def unpack(parcel: bytes, choose_device: Callable[[], str] = lambda: "auto") -> Any:
    """Turn what :func:`pack` made into the object, its tensors on a device of this process.

    Args:
        parcel: only from whom you trust, as pickle runs what it holds.
        choose_device: called if there are tensors; see :func:`ksdiff_cli.fusers.device.pick_device` for what it
            returns.

    Raises:
        KsdiffError: no such device here.
    """
    stored, weights = pickle.loads(parcel)
    here: list[Any] = []
    tensors: list[Any] = []
    if weights:
        import torch

        from ksdiff_cli.fusers.device import pick_device

        here.append(pick_device(choose_device()))
        tensors = torch.load(io.BytesIO(weights), map_location=here[0], weights_only=True)

    class Unpickler(pickle.Unpickler):
        def persistent_load(self, name: Any) -> Any:
            return here[0] if name == "device" else tensors[name]

    return Unpickler(io.BytesIO(stored)).load()
