"""ksdiff doctor: is everything here that ksdiff needs?"""

import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import typer

from ksdiff_cli._version import __version__
from ksdiff_cli.commands import options
from ksdiff_cli.commands.console import print_json, stdout
from ksdiff_cli.errors import printable

_STYLES = {"ok": "green", "warning": "yellow", "problem": "bold red"}


def doctor(json: options.Json = False) -> None:
    """Look whether everything is here that ksdiff needs: libraries, GPUs, GDAL, disk, memory and the shipped weights.

    Each line is ok, a warning or a problem, with what to do about it; exit code 1 if there is a problem.

    Example: ksdiff doctor

    Example: ksdiff doctor --json > machine.json
    """
    found = diagnose(Path.cwd())
    if json:
        print_json(to_dict(found))
    else:
        _print(found)
    if is_broken(found):
        raise typer.Exit(1)


def _print(found: "list[Finding]") -> None:
    from rich.text import Text

    for one in found:
        line = Text(f"{one.status:<8}", _STYLES[one.status]).append(printable(f" {one.name}: {one.text}"), "default")
        stdout.print(line, soft_wrap=True)
        if one.step:
            stdout.print(Text(printable(f"{'':<8} -> {one.step}")), soft_wrap=True)


_GB = 10**9
_LITTLE_DISK, _LITTLE_MEMORY = 2 * _GB, 2 * _GB  # a scene of 8192² x 4 in uint16 takes half a GB; the engine's default
_ROUNDING = 0.5  # DN by which another processor's result may differ
_LIBRARIES = ("numpy", "scipy", "h5py", "safetensors", "typer", "rich", "matplotlib", "PIL", "jinja2")
_PACKAGES = {"PIL": "pillow"}
_JPEG2000 = ("JP2OpenJPEG", "JP2KAK", "JP2ECW", "JP2MrSID", "JP2Lura")
_EXTRAS = {
    "distributed": (("dask", "distributed"), "--workers and --scheduler"),
    "xarray": (("xarray", "rioxarray"), "DataArrays in sharpen_array"),
}

Status = Literal["ok", "warning", "problem"]


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    name: str
    status: Status
    """``problem``: some command cannot work; ``warning``: something is missing that many do without."""
    text: str
    """What was found."""
    step: str = ""
    """What to do about it; empty where nothing is to be done."""


def diagnose(folder: Path) -> list[Finding]:
    """Look at everything ksdiff needs.

    Args:
        folder: where the user works; its free space is looked at.

    Returns:
        What was found, in the order in which a person would look.
    """
    checks: tuple[Callable[[], Iterator[Finding]], ...] = (
        _python,
        _libraries,
        _torch,
        _gdal,
        lambda: _space("working folder", folder, "work in another folder, or make room"),
        lambda: _space("temporary folder", Path(tempfile.gettempdir()), "make room, or set TMPDIR"),
        _machine,
        _weights,
        _extras,
    )
    found: list[Finding] = []
    for check in checks:
        try:
            found += check()
        except Exception as error:  # a broken library may raise anything, and the other checks go on
            name = getattr(check, "__name__", "check").strip("_<>")
            found.append(Finding(name, "problem", _line(error), "install ksdiff anew in a fresh environment"))
    return found


def to_dict(found: list[Finding]) -> dict[str, Any]:
    """Return findings for JSON; ``ok`` is false where there is a problem."""
    return {"ok": not is_broken(found), "findings": [asdict(one) for one in found]}


def is_broken(found: list[Finding]) -> bool:
    """Say whether something keeps commands from working."""
    return any(one.status == "problem" for one in found)


def _python() -> Iterator[Finding]:
    yield Finding("ksdiff", "ok", f"{__version__}, {Path(__file__).parent}")
    known = sys.version_info >= (3, 11)
    where = f"{platform.python_version()}, {sys.executable}, {platform.platform(terse=True)}"
    yield Finding("python", "ok" if known else "problem", where, "" if known else "use Python 3.11 or newer")


def _libraries() -> Iterator[Finding]:
    there, missing = [], []
    for name in _LIBRARIES:
        try:
            import_module(name)
            there.append(f"{name} {version(_PACKAGES.get(name, name))}")
        except Exception as error:
            missing.append(f"{name} ({_line(error)})")
    if there:
        yield Finding("libraries", "ok", ", ".join(there))
    for what in missing:
        yield Finding("libraries", "problem", f"cannot be imported: {what}", f"pip install {what.split()[0]}")


def _torch() -> Iterator[Finding]:
    try:
        import torch
    except Exception as error:
        yield Finding("torch", "problem", f"cannot be imported ({_line(error)})", "pip install torch")
        return
    yield Finding("torch", "ok", f"{torch.__version__}, {torch.get_num_threads()} CPU threads")
    if torch.cuda.is_available():
        for number in range(torch.cuda.device_count()):
            about = torch.cuda.get_device_properties(number)
            free, total = torch.cuda.mem_get_info(number)
            text = f"{about.name}, {free / _GB:.1f} of {total / _GB:.1f} GB free"
            yield Finding(f"cuda:{number}", "ok", text)
    elif torch.version.cuda is None:
        yield Finding("cuda", "ok", "none: this torch is built for CPUs; networks run on the CPU")
    else:
        yield Finding(
            "cuda",
            "warning",
            f"none: torch is built for CUDA {torch.version.cuda} but finds no usable GPU; networks run on the CPU",
            "see whether nvidia-smi lists a GPU, and whether its driver is new enough",
        )


def _gdal() -> Iterator[Finding]:
    try:
        import rasterio
        from rasterio.crs import CRS
    except Exception as error:
        yield Finding(
            "rasterio",
            "warning",
            f"cannot be imported ({_line(error)}); train works without it, all that reads rasters does not",
            "pip install rasterio",
        )
        return
    yield Finding("rasterio", "ok", f"{rasterio.__version__}, GDAL {rasterio.__gdal_version__}")
    with rasterio.Env() as environment:
        drivers = environment.drivers()
    needed = [name for name in ("GTiff", "COG", "VRT") if name not in drivers]
    yield (
        Finding("GDAL drivers", "problem", f"{', '.join(needed)} missing", "pip install --force-reinstall rasterio")
        if needed
        else Finding("GDAL drivers", "ok", "GTiff, COG, VRT")
    )
    jpeg = [name for name in _JPEG2000 if name in drivers]
    yield (
        Finding("JPEG 2000", "ok", ", ".join(jpeg))
        if jpeg
        else Finding("JPEG 2000", "warning", "no driver: .jp2 products cannot be read", "use rasterio's own wheels")
    )
    from ksdiff_cli.output.creation import default_codec

    codec = default_codec()
    yield (
        Finding("compression", "ok", codec)
        if codec == "ZSTD"
        else Finding("compression", "warning", f"no ZSTD: outputs take {codec}, slower", "use rasterio's own wheels")
    )
    try:
        yield Finding("PROJ", "ok", f"knows {CRS.from_epsg(32631).to_string()}")
    except Exception as error:
        step = "unset PROJ_DATA and PROJ_LIB: they lead to another program's database"
        yield Finding("PROJ", "problem", f"knows no CRS ({_line(error)})", step)


def _space(name: str, folder: Path, step: str) -> Iterator[Finding]:
    try:
        free = shutil.disk_usage(folder).free
    except OSError as error:
        yield Finding(name, "problem", f"{folder}: cannot be looked at ({error.strerror})", step)
        return
    text = f"{folder}: {free / _GB:.1f} GB free"
    if not os.access(folder, os.W_OK | os.X_OK):
        yield Finding(name, "warning", f"{text}, cannot be written to", "write elsewhere with -o")
    elif free < _LITTLE_DISK:
        yield Finding(name, "warning", text, step)
    else:
        yield Finding(name, "ok", text)


def _machine() -> Iterator[Finding]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    yield Finding("cores", "ok", f"{cores}")
    memory = _memory()
    if memory is None:
        yield Finding("memory", "ok", "unknown on this system")
    elif memory < _LITTLE_MEMORY:
        yield Finding("memory", "warning", f"{memory / _GB:.1f} GB available", "give --memory less than that")
    else:
        yield Finding("memory", "ok", f"{memory / _GB:.1f} GB available")


def _memory() -> int | None:
    """Return the bytes that a process may still take: the system's, or less where a container bounds it."""
    bounds = []
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        bounds += [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable")]
        group = Path("/sys/fs/cgroup")
        most = (group / "memory.max").read_text().strip()
        if most != "max":
            bounds.append(int(most) - int((group / "memory.current").read_text()))
    except (OSError, ValueError):
        pass
    return min(bounds, default=None)


def _weights() -> Iterator[Finding]:
    from ksdiff_cli.weights import SHIPPED

    again = "install ksdiff anew: pip install --force-reinstall --no-deps ksdiff"
    if not SHIPPED.is_file():
        yield Finding("weights", "problem", f"{SHIPPED}: missing", again)
        return
    try:
        from ksdiff_cli.models.checkpoint import weights_hash
        from ksdiff_cli.weights.check import HASH, worst_difference

        found = weights_hash(SHIPPED)
        if found != HASH:
            yield Finding("weights", "problem", f"{SHIPPED}: hash {found}, shipped were {HASH}", again)
            return
        worst = worst_difference()
    except Exception as error:
        yield Finding("weights", "problem", f"{SHIPPED}: cannot be used ({_line(error)})", again)
        return
    if worst > _ROUNDING:
        text = f"{SHIPPED}: results are up to {worst:.2f} DN off what they should be"
        yield Finding("weights", "problem", text, "install another version of torch, and report this")
    else:
        yield Finding("weights", "ok", f"{SHIPPED}, hash {found}; load and give the expected values")


def _extras() -> Iterator[Finding]:
    for extra, (names, use) in _EXTRAS.items():
        try:
            text = ", ".join(f"{name} {version(_PACKAGES.get(name, name))}" for name in names)
        except PackageNotFoundError:
            text = f"not installed, needed for {use} alone: pip install 'ksdiff[{extra}]'"
        yield Finding(f"extra {extra}", "ok", text)


def _line(error: BaseException) -> str:
    """Return the first line of what went wrong."""
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
