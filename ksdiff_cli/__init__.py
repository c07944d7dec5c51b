"""ksdiff: sharpen whole satellite scenes with the Kernel Space Diffusion Model (KSDiff, CVPR 2026).

For Python: one function a task, see :mod:`ksdiff_cli.api`, and the metrics on arrays, see :mod:`ksdiff_cli.metrics`.
Importing this package loads neither torch nor rasterio; the functions do when they are first called.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ksdiff_cli._version import __version__
from ksdiff_cli.errors import KsdiffError

if TYPE_CHECKING:
    from ksdiff_cli import metrics
    from ksdiff_cli.api import evaluate, measure, prepare_patches, sharpen_array, sharpen_scene, train

__all__ = [
    "KsdiffError",
    "__version__",
    "evaluate",
    "measure",
    "metrics",
    "prepare_patches",
    "sharpen_array",
    "sharpen_scene",
    "train",
]

# In a checkout the network's folder `models/` stands beside this package; an installed wheel has it inside.
# Appending the checkout's root makes `ksdiff_cli.models` importable without claiming the top-level name `models`.
_package = Path(__file__).resolve().parent
if not (_package / "models").is_dir() and (_package.parent / "models" / "ksdiff.py").is_file():
    __path__.append(str(_package.parent))


def __getattr__(name: str) -> Any:
    """Fetch a public function when it is first asked for; ``metrics`` is the package of that name."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    if name == "metrics":
        return import_module(f"{__name__}.metrics")
    return getattr(import_module(f"{__name__}.api"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
