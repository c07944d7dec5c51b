"""ksdiff in QGIS: a plugin that is copied into a profile and calls the ksdiff that it came from as a program.

QGIS's own Python needs neither torch nor ksdiff. What lies in ``plugin`` runs inside QGIS and imports nothing of
ksdiff. Imports: checks, errors.
"""

import json
import os
import shutil
import sys
from pathlib import Path
from typing import get_args

from ksdiff_cli._version import __version__
from ksdiff_cli.checks import MethodName
from ksdiff_cli.errors import KsdiffError

NAME = "ksdiff"
"""The plugin's folder, by which QGIS knows it."""
SETTINGS = "ksdiff.json"
"""Names the program to call, in the plugin's folder."""
_PLUGIN = Path(__file__).resolve().parent / "plugin"


def profiles() -> list[Path]:
    """Return where QGIS keeps its profiles for this user, those that are there."""
    home = Path.home()
    bases = {
        "darwin": home / "Library" / "Application Support",
        "win32": Path(os.environ.get("APPDATA", home / "AppData" / "Roaming")),
    }
    base = bases.get(sys.platform, Path(os.environ.get("XDG_DATA_HOME", home / ".local" / "share")))
    given = os.environ.get("QGIS_CUSTOM_CONFIG_PATH")
    found = [Path(given) / "profiles"] if given else []
    return [
        path for path in (*found, *(base / "QGIS" / name / "profiles" for name in ("QGIS4", "QGIS3"))) if path.is_dir()
    ]


def plugin_folder(profile: str = "default", folder: Path | None = None) -> Path:
    """Return where the plugin belongs.

    Args:
        profile: a profile's name.
        folder: of plugins; None finds the profile's.

    Raises:
        KsdiffError: there is no such profile, QGIS has not been started yet, or what is named is no folder.
    """
    if folder is not None and folder.exists() and not folder.is_dir():
        raise KsdiffError(f"{folder}: is a file; --folder names a folder of plugins")
    if folder is not None:
        return folder / NAME
    places = profiles()
    for place in places:
        if (place / profile).is_dir():
            return place / profile / "python" / "plugins" / NAME
    known = sorted({each.name for place in places for each in place.iterdir() if each.is_dir()})
    if known:
        raise KsdiffError(f"QGIS has no profile {profile!r}; it has {', '.join(known)}; choose one with --profile")
    raise KsdiffError("no QGIS profile is here; start QGIS once, or name its folder of plugins with --folder")


def install(target: Path, *, overwrite: bool = False) -> Path:
    """Copy the plugin, with the way to this ksdiff.

    Args:
        target: the plugin's folder to be.
        overwrite: whether one that is there may be replaced.

    Raises:
        KsdiffError: something else is there, or it cannot be written.
    """
    if target.exists() and not (target / SETTINGS).is_file():
        raise KsdiffError(f"{target}: exists and is not ksdiff's; remove it, or choose another --profile")
    if target.exists() and not overwrite:
        raise KsdiffError(f"{target}: exists already; give --overwrite to replace it by this version")
    growing = target.with_name(f".{target.name}.new")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(growing, ignore_errors=True)
        shutil.copytree(_PLUGIN, growing, ignore=shutil.ignore_patterns("__pycache__"))
        metadata = growing / "metadata.txt"
        metadata.write_text(metadata.read_text(encoding="utf-8").replace("VERSION", __version__), encoding="utf-8")
        # a checkout is found by its folder, an installed ksdiff is where its Python looks anyway
        place = str(Path(__file__).resolve().parents[2])
        settings = {"python": sys.executable, "path": place, "version": __version__, "methods": get_args(MethodName)}
        (growing / SETTINGS).write_text(json.dumps(settings, indent=2), encoding="utf-8")
        if target.exists():
            shutil.rmtree(target)
        growing.rename(target)
    except OSError as error:
        raise KsdiffError(
            f"{target}: cannot be written ({error.strerror or error}); choose another place with --folder"
        ) from None
    return target
