"""Calling ksdiff in the environment that this plugin came from; nothing here needs QGIS."""

import json
import os
import re
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

SETTINGS = Path(__file__).with_name("ksdiff.json")
_PROGRESS = re.compile(r"progress (\d+) (\d+) (.*)")
_OWN = ("PYTHONHOME", "PYTHONPATH", "PYTHONSTARTUP", "GDAL_DATA", "PROJ_LIB", "PROJ_DATA", "GDAL_DRIVER_PATH")
"""What QGIS sets for its own Python and GDAL."""


def read_settings() -> dict[str, Any]:
    """Return what ``ksdiff qgis`` wrote: the Python to call, where ksdiff lies, its version and methods."""
    settings: dict[str, Any] = json.loads(SETTINGS.read_text(encoding="utf-8"))
    return settings


class ProgramError(Exception):
    """ksdiff could not do it; the message is its one line."""


def run(
    arguments: list[str],
    told: Callable[[str], None],
    progress: Callable[[float, str], None],
    canceled: Callable[[], bool],
) -> str:
    """Run a ksdiff command and return what it printed.

    Args:
        arguments: what follows ``ksdiff``.
        told: takes each line for people.
        progress: takes the share that is done, in percent, and what is being done.
        canceled: asked from time to time; ksdiff is stopped then, and its next run goes on where it was.

    Raises:
        ProgramError: it failed, or was stopped.
    """
    settings = read_settings()
    environment = {name: value for name, value in os.environ.items() if name not in _OWN}
    environment |= {"PYTHONPATH": settings["path"], "KSDIFF_PROGRESS": "lines", "PYTHONIOENCODING": "utf-8"}
    more: Any = {"creationflags": getattr(subprocess, "CREATE_NO_WINDOW", 0)} if os.name == "nt" else {}
    try:
        process = subprocess.Popen(
            [settings["python"], "-m", "ksdiff_cli", *arguments],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL,
            env=environment, encoding="utf-8", errors="replace", **more,
        )  # fmt: skip
    except OSError as error:
        raise ProgramError(
            f"{settings['python']}: cannot be run ({error}); run ksdiff qgis --overwrite again"
        ) from None
    out, err = process.stdout, process.stderr
    assert out is not None and err is not None
    printed: list[str] = []
    reader = threading.Thread(target=lambda: printed.append(out.read()))
    reader.start()
    last = ""
    for line in err:
        line = line.rstrip("\n")
        if found := _PROGRESS.fullmatch(line):
            done, total, what = int(found[1]), int(found[2]), found[3]
            progress(100 * done / total if total else 0, what)
        elif line:
            last = line
            told(line)
        if canceled():
            process.terminate()
    code = process.wait()
    reader.join()
    out.close()
    err.close()
    if code:
        raise ProgramError(
            "stopped; the same command goes on from here" if canceled() else last or f"ended with {code}"
        )
    return "".join(printed)
