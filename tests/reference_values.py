"""The reference toolbox's numbers: some lie in ``reference/``, others beside the repository where somebody has them."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

SHARED = Path(os.environ.get("KSDIFF_SHARED") or Path(__file__).resolve().parents[2] / "shared")
_FOLDERS = Path(__file__).with_name("reference"), SHARED / "golden"

EXPECTED: dict[str, Any] = json.loads((_FOLDERS[0] / "metrics.json").read_text())
"""The toolbox's metrics, by kind, case and protocol."""


def has_reference(name: str) -> bool:
    """Whether a file is at hand."""
    return any((folder / f"{name}.npz").is_file() for folder in _FOLDERS)


def load_reference(name: str) -> dict[str, NDArray[Any]]:
    """Return the arrays of a file, as they are in it; skip the test where it is not at hand."""
    for folder in _FOLDERS:
        if (folder / f"{name}.npz").is_file():
            with np.load(folder / f"{name}.npz") as file:
                return {key: file[key] for key in file}
    pytest.skip(f"the reference's {name} is not at hand")
