"""The documentation: commands of its pages can be typed, guides run as written, the site builds without a warning."""

import re
import runpy
import shlex
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from pages_maker import ROOT, commands_in, make_bands, make_place, options_in, parse, run_in
from test_help import COMMANDS

DOCS = ROOT / "docs"
PAGES = {path.name: path.read_text(encoding="utf-8") for path in sorted(DOCS.glob("*.md"))}
OTHERS = {"--help", "--install-completion", "--node-rank", "--jobs", "--force-reinstall"}
"""Options of torchrun, pip, docs/slurm.py and the program itself."""
OF_DASK = {"--host", "--interface", "--no-dashboard", "--dashboard-address", "--nthreads", "--memory-limit"}
PARSED = {
    "analyst.md": {
        r"-o out\.tif$": "the README has it, and the others start from what it makes",
        r"view pan.tif ms.tif out.tif$": "the README has it",
        r"--guide|SAFE": "guide-bands.md has them",
    },
    "guide-bands.md": {
        "WV3_DELIVERY": "test_guided.py lays out such a delivery",
        "truth.tif": "the README has it",
    },
    "production.md": {
        "--workers": "the README has it",
        "--scheduler": "test_distributed.py starts schedulers and workers",
        "mosaic": "the README has it",
    },
    "researcher.md": {},
}
"""Guides whose commands run here, and by patterns those that do not, with the reason."""
SMALLER = {"guide-bands.md": ["--method", "exp"]}
"""What is sharpened there is sharpened the quick way: its tests are test_guided.py's."""


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


@pytest.mark.parametrize("name", PARSED)
def test_guides_run_as_written(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One after the other, in one folder: none may stumble over what an earlier one wrote."""
    (make_bands if name == "guide-bands.md" else make_place)(tmp_path)
    monkeypatch.chdir(tmp_path)
    threads = torch.get_num_threads()
    # several processes of torchrun do what one does, as test_training_processes.py finds
    lines = dict.fromkeys(shlex.join(words) for words in commands_in(PAGES[name]))
    assert [each for each in PARSED[name] if not any(re.search(each, line) for line in lines)] == []
    chosen = [shlex.split(line) for line in lines if not any(re.search(each, line) for each in PARSED[name])]
    assert len(chosen) > 1
    if name == "analyst.md":
        run_in(tmp_path, shlex.split("ksdiff sharpen pan.tif ms.tif -o out.tif"))  # which the README does
    for words in chosen:
        run_in(tmp_path, [*words, *(SMALLER.get(name, ()) if words[1] == "sharpen" else ())])
    torch.set_num_threads(threads)


def test_the_slurm_script_starts_jobs_and_runs_the_command_with_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As the guide says it, with a cluster that only writes down what it was asked for: there is no Slurm here."""
    asked: dict[str, Any] = {}

    class Cluster:
        scheduler_address = "tcp://node:8786"

        def __init__(self, **how: Any) -> None:
            asked.update(how)

        def __enter__(self) -> "Cluster":
            return self

        def __exit__(self, *error: object) -> None:
            asked["ended"] = True

        def job_script(self) -> str:
            return "#!/bin/sh"

        def scale(self, jobs: int) -> None:
            asked["jobs"] = jobs

    def run(command: list[str]) -> SimpleNamespace:
        parse(["ksdiff", *command[3:]])
        asked["command"] = command
        return SimpleNamespace(returncode=7)

    monkeypatch.setitem(sys.modules, "dask_jobqueue", SimpleNamespace(SLURMCluster=Cluster))
    monkeypatch.setattr("subprocess.run", run)
    (line,) = re.findall(r"^python (docs/slurm\.py .*)$", PAGES["production.md"], re.MULTILINE)
    words = line.split()
    for more, code in (([], 7), (["--dry-run"], 0)):
        monkeypatch.setattr("sys.argv", [words[0], *more, *words[1:]])
        with pytest.raises(SystemExit) as left:
            runpy.run_path(str(ROOT / words[0]), run_name="__main__")
        assert left.value.code == code and asked["ended"]
    assert asked["jobs"] == 4 and asked["processes"] == asked["cores"]
    assert asked["command"][1:] == ["-m", "ksdiff_cli", *words[3:], "--scheduler", "tcp://node:8786"]
    assert "#!/bin/sh" in capsys.readouterr().out


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
