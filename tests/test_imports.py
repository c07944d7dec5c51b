"""Who may import whom, and what the command line costs before it does anything."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
COMMANDS = {
    "doctor",
    "evaluate",
    "export",
    "info",
    "metrics",
    "prepare_data",
    "qgis",
    "sharpen",
    "simulate",
    "train",
    "view",
}

HEAVY = {"torch", "rasterio", "h5py", "numpy", "scipy", "safetensors"}
FILES = {"rasterio", "h5py", "safetensors"}
# rooms by floor: each imports from its own room and from lower floors
FLOORS = (
    ("_version", "errors"),
    ("checks", "process", "progress"),
    ("files", "qgis", "sensors"),
    ("options",),
    ("models", "numerics"),
    ("raster", "metrics", "weights"),
    ("products", "output", "report", "classical"),
    ("fusers", "simulation"),
    ("patches",),
    ("training", "evaluation"),
    ("sharpening",),
    ("view",),
    ("api",),
    ("commands",),
    ("main",),
)
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
UP: set[tuple[str, str]] = set()
# arrays in, arrays out: these know neither files nor networks
NO_FILES = ("errors", "sensors", "numerics", "metrics", "classical")
# these run on a bare GPU machine, which has no GDAL
NO_RASTERIO = (
    "ksdiff_cli.patches.dataset",
    "ksdiff_cli.training.stages",
    "ksdiff_cli.training.batches",
    "ksdiff_cli.api",
    "ksdiff_cli.commands.doctor",
    "ksdiff_cli.weights.check",
    "ksdiff_cli.models.ksdiff",
    "ksdiff_cli.models.checkpoint",
)


def modules() -> dict[str, Path]:
    found = {}
    for folder, prefix in ((ROOT / "ksdiff_cli", "ksdiff_cli"), (ROOT / "models", "ksdiff_cli.models")):
        for path in folder.rglob("*.py"):
            parts = path.relative_to(folder).with_suffix("").parts
            found[".".join((prefix, *(part for part in parts if part != "__init__")))] = path
    return found


MODULES = modules()


def imports(name: str, *, everywhere: bool = True) -> set[str]:
    """Full names that a module imports; with ``everywhere`` inside functions too, but never for type checking only."""
    path = MODULES[name]
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    found: set[str] = set()

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            return
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) and not everywhere:
            return
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*parents, *([base] if base else [])])
            for alias in node.names:
                full = f"{base}.{alias.name}"
                found.add(full if full in MODULES else base)
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(ast.parse(path.read_text()))
    return found


def top(names: set[str]) -> set[str]:
    return {name.partition(".")[0] for name in names}


def short(name: str) -> str:
    return name.removeprefix("ksdiff_cli").removeprefix(".")


def room(name: str) -> str:
    return short(name).partition(".")[0]


def reached(name: str) -> set[str]:
    """Everything imported when a module is, through the project's own modules and the folders that they lie in."""
    seen: set[str] = set()
    waiting = [name]
    while waiting:
        current = waiting.pop()
        for found in imports(current, everywhere=False) | {current.rpartition(".")[0] or current}:
            if found not in seen:
                seen.add(found)
                waiting += [found] if found in MODULES else []
    return seen


def test_every_module_is_seen() -> None:
    assert {"ksdiff_cli.raster.pair", "ksdiff_cli.models.ksdiff", "ksdiff_cli.products.landsat"} <= set(MODULES)
    assert "ksdiff_cli.models.contract" in imports("ksdiff_cli.models.ksdiff")
    assert "rasterio" in top(reached("ksdiff_cli.sharpening.engine"))


@pytest.mark.parametrize("name", [name for name in MODULES if name.startswith("ksdiff_cli.models")])
def test_models_know_torch_only(name: str) -> None:
    own = {found for found in imports(name) if found.startswith("ksdiff_cli")}
    assert all(found.startswith("ksdiff_cli.models") for found in own)
    assert "ksdiff_cli" not in {
        node.module for node in ast.walk(ast.parse(MODULES[name].read_text())) if isinstance(node, ast.ImportFrom)
    }
    assert top(imports(name)) - {"ksdiff_cli"} - {"torch", "safetensors"} <= set(sys.stdlib_module_names)


@pytest.mark.parametrize("name", [name for name in MODULES if room(name) in FLOOR])
def test_imports_run_down(name: str) -> None:
    others = {room(found) for found in imports(name) if found in MODULES and room(found)} - {room(name)}
    assert {other for other in others if FLOOR[other] >= FLOOR[room(name)] and (name, other) not in UP} == set()


def test_every_room_has_a_floor() -> None:
    assert {room(name) for name in MODULES} - {"", "__main__"} == set(FLOOR)


@pytest.mark.parametrize("name", [name for name in MODULES if room(name) in NO_FILES])
def test_arithmetic_knows_no_files_and_no_networks(name: str) -> None:
    assert not top(imports(name)) & (FILES | {"torch"})


def test_the_report_knows_figures_and_arrays_not_where_they_come_from() -> None:
    for name in [name for name in MODULES if room(name) == "report"]:
        assert not top(imports(name)) & {"torch", "h5py", "safetensors"}


@pytest.mark.parametrize("name", [name for name in MODULES if not short(name).startswith(("commands", "main"))])
def test_nothing_below_the_commands_knows_them_or_the_terminal(name: str) -> None:
    found = imports(name)
    assert not {other for other in found if other in MODULES and short(other).startswith(("commands", "main"))} or (
        name == "ksdiff_cli.__main__"
    )
    assert not top(found) & {"typer", "rich", "click"}


@pytest.mark.parametrize("name", [name for name in MODULES if short(name).startswith("commands.")])
def test_commands_import_their_tools_when_called(name: str) -> None:
    at_import = imports(name, everywhere=False)
    assert not top(at_import) & HEAVY
    assert {room(found) for found in at_import if found in MODULES} <= {
        "_version",
        "checks",
        "commands",
        "errors",
        "files",
        "options",
        "sensors",
        "progress",
        "",
    }


@pytest.mark.parametrize("name", [name for name in NO_RASTERIO if name in MODULES])
def test_training_needs_no_rasterio(name: str) -> None:
    assert "rasterio" not in top(reached(name))


def test_help_is_light_and_names_every_command(tmp_path: Path) -> None:
    script = (
        "import sys\n"
        "from ksdiff_cli.main import app\n"
        "try:\n    app(['--help'])\nexcept SystemExit as leaving:\n    assert not leaving.code\n"
        f"print(sorted(set(sys.modules) & {HEAVY!r}), file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env=_environment(ROOT), capture_output=True, text=True, check=True
    )
    assert done.stderr.strip() == "[]"
    assert all(command.replace("_", "-") in done.stdout for command in COMMANDS)


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_help_of_a_command_is_light(command: str) -> None:
    assert not top(reached(f"ksdiff_cli.commands.{command}")) & HEAVY


def _environment(root: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(root), "COLUMNS": "100"}
