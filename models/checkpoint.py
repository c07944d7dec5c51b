"""Checkpoints: one safetensors file, tensors plus a JSON header with everything needed to use them."""

import hashlib
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from .contract import FusionModel, ModelError
from .ksdiff import KSDiff
from .pixel_diffusion import PixelDiffusion

FORMAT_VERSION = 1
MODELS: dict[str, type[FusionModel]] = {kind.kind: kind for kind in (KSDiff, PixelDiffusion)}
"""The networks that checkpoints hold, by the header's ``model``; a header without it is KSDiff's."""
_KEY = "ksdiff"


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
        "config": model.config.to_dict(),
        "sensor": dict(sensor),
        "scaling": "mean and standard deviation of the scene, per band",
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
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        why = str(error).splitlines()[0]
        raise ModelError(f"{path}: is not a safetensors checkpoint, or is cut off ({why}); fetch it again") from None
    if _KEY not in metadata:
        raise ModelError(f"{path}: is a safetensors file, but not one written by ksdiff")
    header: dict[str, Any] = json.loads(metadata[_KEY])
    if header.get("format_version") != FORMAT_VERSION:
        version = header.get("format_version")
        raise ModelError(f"{path}: has format version {version}, this ksdiff reads {FORMAT_VERSION}")
    return header


def load_model(path: str | Path, device: torch.device | str = "cpu") -> tuple[FusionModel, dict[str, Any]]:
    """Rebuild a model of any kind from its checkpoint, ready to sharpen.

    Returns:
        The model in evaluation mode on ``device``, and the header.

    Raises:
        ModelError: see :func:`read_header`; or a kind or configuration unknown here; or tensors that do not fit it.
    """
    header = read_header(path)
    kind = header.get("model", KSDiff.kind)
    if kind not in MODELS:
        raise ModelError(f"{path}: holds a network of kind {kind!r}; this ksdiff knows {' '.join(MODELS)}")
    try:
        model = MODELS[kind].from_header(header)
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from None
    try:
        with safe_open(path, framework="pt") as file:
            model.load_state_dict({name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118 (no mapping)
    except (RuntimeError, SafetensorError) as error:
        raise ModelError(f"{path}: its tensors do not fit its own header ({str(error).splitlines()[0]})") from None
    return model.to(device).eval(), header


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
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()[:12]
