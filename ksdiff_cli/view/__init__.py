"""Look at whole scenes in a browser: a small server on this machine, and the page that it serves.

Layers lie on one pixel grid (``grid``, ``finding``), are read or made piece by piece (``reading``, ``layers``,
``made``), drawn as tiles (``stage``) and served (``server``); ``page/`` is what the browser gets. May
import what sharpening may, and sharpening. Needs the extra ``view``: without it only what stands here can be called.
"""

import shlex
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from ksdiff_cli.errors import KsdiffError

__all__ = ["check_installed", "is_installed", "view_command"]


def is_installed() -> bool:
    """Say whether the extra ``view`` is installed."""
    return all(find_spec(name) for name in ("starlette", "uvicorn"))


def check_installed() -> None:
    """Refuse to go on without the extra.

    Raises:
        KsdiffError: it is not installed.
    """
    if not is_installed():
        raise KsdiffError('ksdiff view needs a few packages more; install them: pip install "ksdiff[view]"')


def view_command(names: Sequence[str]) -> str:
    """Return what to type to look at rasters, from any folder."""
    return shlex.join(["ksdiff", "view", *(str(Path(name).absolute()) for name in names)])
