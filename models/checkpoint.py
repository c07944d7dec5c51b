"""Checkpoints: one safetensors file, tensors plus a JSON header with everything needed to use them."""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from reprlib import repr as shown
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from .contract import FusionModel, ModelError
from .ksdiff import KSDiff
from .peers import PLRDiff
from .peers.pixel_diffusion import PixelDiffusion

FORMAT_VERSION = 1
MODELS: dict[str, type[FusionModel]] = {kind.kind: kind for kind in (KSDiff, PixelDiffusion, PLRDiff)}
"""The networks that checkpoints hold, by the header's ``model``; a header without it is KSDiff's."""
_KEY = "ksdiff"
_LARGEST_HEADER = 1 << 22
_PARTS = ("config", "sensor", "training")
_BEFORE = "shared"  # the backbone of the shipped weights of 0.1
_FLOATS = ("F32", "F64", "F16", "BF16")


def save_model(model: FusionModel, path: Path, *, sensor: Mapping[str, Any], training: Mapping[str, Any]) -> None:
    """Write a model's weights and header, beside the target first, then renamed.

    Args:
        model: the weights to ship (EMA weights, when there are some).
        path: target, ``.safetensors``.
        sensor: full values of the sensor the training data came from.
        training: facts a reader needs to judge the weights (data, steps, seed, losses, version).

    Raises:
        ModelError: the file cannot be written; what was at ``path`` stays.
    """
    header = {
        "format_version": FORMAT_VERSION,
        "model": model.kind,
        "stage": model.stage,
        "sampler": model.sampler,
        "config": model.config.to_dict(),
        "sensor": dict(sensor),
        "scaling": model.scaling,
        "training": dict(training),
    }
    tensors = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(tensors, partial, metadata={_KEY: json.dumps(header, sort_keys=True)})
        umask = os.umask(0)
        os.umask(umask)
        partial.chmod(0o666 & ~umask)  # safetensors' files are for their owner alone
        with partial.open("rb+") as file:
            os.fsync(file.fileno())  # a run's resume state goes once its weights are here
        partial.replace(path)
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{path}: the weights cannot be written ({error})") from None
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def read_header(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint's header without its tensors.

    Raises:
        ModelError: no such file, not a ksdiff checkpoint, or one of a newer format.
    """
    if not Path(path).is_file():
        raise ModelError(f"{path}: no such checkpoint; check the path")
    with _open(path) as file:
        text = (file.metadata() or {}).get(_KEY)
    if text is None:
        raise ModelError(f"{path}: is a safetensors file, but not one written by ksdiff")
    try:
        header = json.loads(text) if len(text) <= _LARGEST_HEADER else None
    except (ValueError, RecursionError):
        header = None
    if not isinstance(header, dict):
        raise ModelError(f"{path}: its header cannot be read; the file is damaged, fetch it again")
    version = header.get("format_version")
    if version != FORMAT_VERSION:
        raise ModelError(f"{path}: has format version {shown(version)}, this ksdiff reads {FORMAT_VERSION}")
    for part in _PARTS:
        if not isinstance(header.get(part), dict):
            raise ModelError(f"{path}: its header has no {part}; the file is damaged, fetch it again")
    return header


def load_model(path: str | Path, device: torch.device | str = "cpu") -> tuple[FusionModel, dict[str, Any]]:
    """Rebuild a model of any kind from its checkpoint, ready to sharpen.

    Nothing is built before the header's values are in their bounds and the tensors have the shapes that go with them:
    what a file asks for is no more than what lies in it.

    Returns:
        The model in evaluation mode on ``device``, and the header.

    Raises:
        ModelError: see :func:`read_header`; or a kind, sampler or configuration unknown here, or no longer known; or
            tensors that do not fit it, or hold values that are no numbers.
    """
    header = read_header(path)
    kind = header.get("model", KSDiff.kind)
    if kind not in tuple(MODELS):
        raise ModelError(f"{path}: holds a network of kind {shown(kind)}; this ksdiff knows {' '.join(MODELS)}")
    sampler = header.get("sampler", MODELS[kind].sampler)
    if sampler != MODELS[kind].sampler:
        raise ModelError(f"{path}: is for the sampler {shown(sampler)}; this ksdiff has {MODELS[kind].sampler}")
    if kind == KSDiff.kind and header["config"].get("backbone") == _BEFORE:
        raise ModelError(
            f"{path}: was made by ksdiff 0.1 (backbone {_BEFORE}), which this version no longer reads; train again, or "
            "use the shipped weights"
        )
    with _open(path) as file:
        _check_tensors(path, file, _plan(path, MODELS[kind], header))
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    for name, tensor in tensors.items():
        if not tensor.isfinite().all():
            raise ModelError(f"{path}: its tensor {shown(name)} holds values that are no numbers; fetch it again")
    model = MODELS[kind].from_header(header)
    model.load_state_dict(tensors)
    return model.to(device).eval(), header


@contextmanager
def _open(path: str | Path) -> Iterator[Any]:
    """Open a safetensors file; whatever it complains of, here or later, is one line."""
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except (SafetensorError, OSError) as error:
        why = str(error).splitlines()[0][:120]
        raise ModelError(f"{path}: is not a safetensors checkpoint, or is cut off ({why}); fetch it again") from None


def _plan(path: str | Path, kind: type[FusionModel], header: dict[str, Any]) -> dict[str, Tensor]:
    """Return the tensors that a header's network has, without memory for their values.

    Raises:
        ModelError: there is no such network.
    """
    try:
        with torch.device("meta"):
            return kind.from_header(header).state_dict()
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from None
    except (RuntimeError, ValueError, TypeError, ArithmeticError) as error:  # values that only together make no sense
        why = (str(error) or type(error).__name__).splitlines()[0][:120]
        raise ModelError(f"{path}: no network can be built from its header ({why}); fetch it again") from None


def _check_tensors(path: str | Path, file: Any, planned: Mapping[str, Tensor]) -> None:
    """Refuse tensors that are not those of a network, by their names, types and shapes alone.

    Raises:
        ModelError: see above.
    """
    names = set(file.keys())
    if strangers := sorted(names ^ set(planned)):
        what = "is missing" if strangers[0] in planned else "is none of its network's"
        raise ModelError(f"{path}: its tensors do not fit its own header ({shown(strangers[0])} {what})")
    for name, tensor in planned.items():
        found = file.get_slice(name)
        shape, kind = tuple(found.get_shape()), found.get_dtype()
        wanted = _FLOATS if tensor.is_floating_point() else ("I64",)
        if shape != tuple(tensor.shape) or kind not in wanted:
            needed = f"{wanted[0]} {tuple(tensor.shape)}"
            raise ModelError(f"{path}: its tensors do not fit its own header ({name} is {kind} {shape}, not {needed})")


def load_ksdiff(path: str | Path, device: torch.device | str = "cpu") -> tuple[KSDiff, dict[str, Any]]:
    """Rebuild a KSDiff network from its checkpoint, for callers that use more than the contract.

    Returns:
        As :func:`load_model`.

    Raises:
        ModelError: see :func:`load_model`; or the checkpoint holds a network of another kind.
    """
    model, header = load_model(path, device)
    if not isinstance(model, KSDiff):
        raise ModelError(f"{path}: holds a network of kind {model.kind!r}, where one of KSDiff's is needed")
    return model, header


def weights_hash(path: str | Path) -> str:
    """Return the first 12 hexadecimal digits of the file's SHA-256, to name weights in outputs."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:12]
