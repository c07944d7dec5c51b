"""The documentation: commands of its pages can be typed, guides run as written, the site builds without a warning."""

import re
import shlex
from pathlib import Path

import pytest
import torch
from pages_maker import ROOT, commands_in, make_place, options_in, parse, run_in
from test_help import COMMANDS

DOCS = ROOT / "docs"
PAGES = {path.name: path.read_text(encoding="utf-8") for path in sorted(DOCS.glob("*.md"))}
OTHERS = {"--help", "--install-completion", "--node-rank", "--jobs", "--force-reinstall"}
"""Options of torchrun, pip, docs/slurm.py and the program itself."""
OF_DASK = {"--host", "--interface", "--no-dashboard", "--dashboard-address", "--nthreads", "--memory-limit"}
RUN = {
    "analyst.md": lambda line: not re.search(r"view|LC08|SAFE|--guide|out\.tif$| --warp", line),
    "production.md": lambda line: "--workers" not in line and "mosaic" not in line,
    "researcher.md": lambda line: "simulate" not in line,
}
"""Guides whose commands run here, all but those that the README or other tests run already."""


@pytest.mark.parametrize(
    "words",
    [
        pytest.param(words, id=f"{name}-{number}")
        for name, text in PAGES.items()
        for number, words in enumerate(commands_in(text))
    ],
)
def test_commands_can_be_typed(words: list[str]) -> None:
    parse(words)


@pytest.mark.parametrize("name", PAGES)
def test_options_exist(name: str) -> None:
    known = {option for command in COMMANDS.values() for one in command.params for option in one.opts}
    known |= {option for command in COMMANDS.values() for one in command.params for option in one.secondary_opts}
    if name not in {"experiments.md", "tables.md", "releasing.md"}:  # what was, benchmarks' own, other programs'
        assert options_in(PAGES[name]) - known - OTHERS - OF_DASK == set()


def test_every_command_is_told_of() -> None:
    told = "\n".join([(ROOT / "README.md").read_text(encoding="utf-8"), *PAGES.values()])
    assert [name for name in COMMANDS if f"ksdiff {name}" not in told] == []


@pytest.mark.parametrize("name", PAGES)
def test_links_are_there(name: str) -> None:
    found = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", re.sub(r"```.*?```", "", PAGES[name], flags=re.DOTALL))
    assert [link for link in found if "://" not in link and not (DOCS / link).exists()] == []


@pytest.mark.parametrize("name", RUN)
def test_guides_run_as_written(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One after the other, in one folder: none may stumble over what an earlier one wrote."""
    make_place(tmp_path)
    monkeypatch.chdir(tmp_path)
    threads = torch.get_num_threads()
    # several processes of torchrun do what one did before
    lines = dict.fromkeys(shlex.join(words) for words in commands_in(PAGES[name]))
    chosen = [shlex.split(line) for line in lines if RUN[name](line)]
    assert len(chosen) > 1
    if name == "analyst.md":
        run_in(tmp_path, shlex.split("ksdiff sharpen pan.tif ms.tif -o out.tif"))  # which the README does
    for words in chosen:
        run_in(tmp_path, words)
    torch.set_num_threads(threads)


def test_layout_names_what_is_there_and_leaves_no_module_out() -> None:
    (tree,) = re.findall(r"```\n(pyproject.*?)```", PAGES["layout.md"], re.DOTALL)
    folder, named = "", set()
    for line in tree.splitlines():
        words = line.strip().split("  ")[0].split()
        if line.startswith(" " * 6):  # a description that goes on
            continue
        if not line.startswith(" "):
            folder = words[0] if words[0].endswith("/") else ""
            named.update(words)
        else:
            named.update(folder + word for word in words)
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []
    for package in ("ksdiff_cli", "models"):
        listed = {Path(name).stem for name in named if name.startswith(f"{package}/")}
        for path in (ROOT / package).glob("*"):
            module = path.suffix == ".py" and path.stem not in ("__init__", "__main__")
            if module or (path / "__init__.py").exists():
                # a family's members stand in its line
                assert any(path.stem == name or path.stem.startswith(f"{name}_") for name in listed), path


def test_the_site_builds_strictly_and_has_what_the_code_says(site: Path) -> None:
    def page(name: str) -> str:
        return (site / name / "index.html").read_text(encoding="utf-8")

    assert {path.stem for path in DOCS.glob("*.md")} - {"index"} <= {path.name for path in site.iterdir()}
    assert not any("{{" in page(path.stem) for path in DOCS.glob("*.md") if path.stem != "index")
    commands = page("commands")
    for name, command in COMMANDS.items():
        assert f">ksdiff {name}<" in commands
        options = [one.opts[0] for one in command.params if one.opts[0].startswith("-") and one.name != "help"]
        assert [option for option in options if f"{option}<" not in commands] == []
    assert "WorldView-3" in page("products") and "SAFE" in page("products")
    assert "sharpen_array" in page("python") and "Raises" in page("python")
    assert "spectral angle" in page("metrics")
