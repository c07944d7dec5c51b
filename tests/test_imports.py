"""Who may import whom, and what the command line costs before it does anything."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
COMMANDS = {"doctor", "evaluate", "info", "metrics", "prepare_data", "sharpen", "simulate", "train"}

HEAVY = {"torch", "rasterio", "h5py", "numpy", "scipy", "safetensors"}
FILES = {"rasterio", "h5py", "safetensors"}
# arrays in, arrays out: these know neither files nor networks
NO_FILES = (
    "errors",
    "sensors",
    "grids",
    "tiling",
    "numerics",
    "degrade",
    "raster_fill",
    "raster_values",
    "metrics",
    "classical",
)
# each tool is a module or a family of them (measuring, measuring_maps, …); no family imports another
FAMILIES = ("patches", "training", "sharpening", "evaluation", "measuring", "simulation", "inspection")
# these run on a bare GPU machine, which has no GDAL
NO_RASTERIO = (
    "ksdiff_cli.dataset",
    "ksdiff_cli.training",
    "ksdiff_cli.training_batches",
    "ksdiff_cli.api_learning",
    "ksdiff_cli.diagnosis",
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


def family(name: str) -> str | None:
    return next((stem for stem in FAMILIES if short(name).partition(".")[0].startswith(stem)), None)


def reached(name: str) -> set[str]:
    """Everything imported when a module is, through the project's own modules."""
    seen: set[str] = set()
    waiting = [name]
    while waiting:
        for found in imports(waiting.pop(), everywhere=False):
            if found not in seen:
                seen.add(found)
                waiting += [found] if found in MODULES else []
    return seen


def test_every_module_is_seen() -> None:
    assert {"ksdiff_cli.raster", "ksdiff_cli.models.ksdiff", "ksdiff_cli.products.landsat"} <= set(MODULES)
    assert "ksdiff_cli.models.contract" in imports("ksdiff_cli.models.ksdiff")
    assert "rasterio" in top(reached("ksdiff_cli.sharpening"))


@pytest.mark.parametrize("name", [name for name in MODULES if name.startswith("ksdiff_cli.models")])
def test_models_know_torch_only(name: str) -> None:
    own = {found for found in imports(name) if found.startswith("ksdiff_cli")}
    assert all(found.startswith("ksdiff_cli.models") for found in own)
    assert "ksdiff_cli" not in {
        node.module for node in ast.walk(ast.parse(MODULES[name].read_text())) if isinstance(node, ast.ImportFrom)
    }
    assert top(imports(name)) - {"ksdiff_cli"} - {"torch", "safetensors"} <= set(sys.stdlib_module_names)


@pytest.mark.parametrize("name", [name for name in MODULES if short(name).partition(".")[0] in NO_FILES])
def test_arithmetic_knows_no_files_and_no_networks(name: str) -> None:
    found = imports(name)
    assert not top(found) & (FILES | {"torch"})
    assert not {
        other for other in found if short(other).partition(".")[0] in {"models", "raster", "products", "dataset"}
    }


@pytest.mark.parametrize("name", [name for name in MODULES if family(name)])
def test_tools_do_not_import_each_other(name: str) -> None:
    others = {found: family(found) for found in imports(name) if found in MODULES}
    assert {found for found, own in others.items() if own not in (None, family(name))} == set()


@pytest.mark.parametrize("name", [name for name in MODULES if short(name).partition(".")[0] == "report"])
def test_the_report_knows_figures_and_arrays_not_where_they_come_from(name: str) -> None:
    own = {short(found).partition(".")[0] for found in imports(name) if found.startswith("ksdiff_cli")}
    assert own <= {"errors", "metrics", "report", "files"}
    assert not top(imports(name)) & {"torch", "h5py", "safetensors"}


@pytest.mark.parametrize("name", [name for name in MODULES if short(name).startswith("registration")])
def test_registration_is_used_by_the_tools_and_uses_none(name: str) -> None:
    own = {short(found) for found in imports(name) if found.startswith("ksdiff_cli")}
    known = {"errors", "grids", "progress", "raster", "raster_nodata", "raster_open", "raster_values"}
    assert own <= known | {"registration_windows"}


@pytest.mark.parametrize("name", [name for name in MODULES if not short(name).startswith(("commands", "main"))])
def test_nothing_below_the_commands_knows_them_or_the_terminal(name: str) -> None:
    found = imports(name)
    assert not {
        other for other in found if other in MODULES and short(other).startswith(("commands", "main", "options"))
    } or (name == "ksdiff_cli.__main__")
    assert not top(found) & {"typer", "rich", "click"} or short(name) in {"console", "options"}


@pytest.mark.parametrize("name", [name for name in MODULES if short(name).startswith("commands.")])
def test_commands_import_their_tools_when_called(name: str) -> None:
    at_import = imports(name, everywhere=False)
    assert not top(at_import) & HEAVY
    own = {found for found in at_import if found.startswith("ksdiff_cli.")}
    assert own <= {"ksdiff_cli.console", "ksdiff_cli.errors", "ksdiff_cli.options"}


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
