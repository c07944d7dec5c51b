"""The README, to the letter: its commands run in their order, its Python runs, its links and file tree are there."""

import csv
import re
import shlex
import shutil
import tarfile
from pathlib import Path

import numpy as np
import products_maker
import pytest
import rasterio
import torch
import typer
from typer.testing import CliRunner

from ksdiff_cli.main import app

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
LINES = [
    shlex.split(line, comments=True)
    for block in re.findall(r"```sh\n(.*?)```", TEXT, re.DOTALL)
    for line in block.splitlines()
    if line.startswith("ksdiff ")
]
OTHER = {"python3", "torchrun"}
"""What else is typed: the two commands at the top, which the checks themselves run, and several processes."""
SHORTER = {"train": ["--steps", "2", "--width", "8", "--threads", "1"]}
"""Training to the end would take minutes."""
ELSEWHERE = "--scheduler"


def test_every_command_is_known_here():
    first = {
        line.split()[0] for block in re.findall(r"```sh\n(.*?)```", TEXT, re.DOTALL) for line in block.splitlines()
    }
    assert first <= OTHER | {"ksdiff"}
    assert len(LINES) > 25


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with everything the README speaks of."""
    folder = tmp_path_factory.mktemp("readme")
    runner = CliRunner()
    made = runner.invoke(app, ["simulate", "-o", str(folder / "scene"), "--size", "768", "--sensor", "QB", "-q"])
    assert made.exit_code == 0, made.output
    for name in ("pan", "ms", "truth"):
        shutil.copy(folder / "scene" / f"{name}.tif", folder)
    (folder / "scene" / "truth.tif").unlink()  # a delivered scene has none
    product = folder / products_maker.C1
    products_maker.landsat(product, products_maker.C1)
    with tarfile.open(folder / f"{products_maker.C1}.tar.gz", "w:gz") as archive:
        archive.add(product, product.name)
    with (folder / "list.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("pan", "ms", "name"), ("pan.tif", "ms.tif", "a")])
    return folder


def test_commands_run_as_written(place, monkeypatch):
    """One after the other, in one folder, as somebody reads; what an earlier one wrote is not in a later one's way."""
    monkeypatch.chdir(place)
    threads = torch.get_num_threads()
    group = typer.main.get_command(app)
    for words in LINES:
        name, *rest = words[1:]
        if ELSEWHERE in rest:
            group.commands[name].make_context(name, rest)
            continue
        if name == "simulate":
            rest[rest.index("-o") + 1] = "another"
        if "--adapt" in rest:
            rest[rest.index("--adapt") + 1] = "0.01"
        for option in ("-o", "--report", "--quicklook", "--uncertainty"):
            target = Path(rest[rest.index(option) + 1]) if option in rest else None
            if target is not None and target.is_file():
                target.unlink()
        result = CliRunner().invoke(app, [name, *rest, *SHORTER.get(name, ())])
        assert result.exit_code == 0, f"{shlex.join(words)}\n{result.output}\n{result.exception!r}"
    torch.set_num_threads(threads)


def test_python_runs_as_written(place, monkeypatch):
    monkeypatch.chdir(place)
    (place / "out.tif").unlink(missing_ok=True)
    (code,) = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    with rasterio.open("pan.tif") as pan, rasterio.open("ms.tif") as ms:
        known = {"pan": pan.read(1)[:256, :256], "ms": ms.read()[:, :64, :64]}
    code = code.replace('sensor="WV3"', 'sensor="QB"')  # the scene here has four bands
    exec(compile(code, "README.md", "exec"), known)
    assert known["fused"].shape == (4, 256, 256) and known["fused"].dtype == np.uint16
    assert Path("out.tif").exists()


def test_links_and_pictures_are_there():
    found = re.findall(r"\]\(([^)#]+)\)", TEXT)
    assert found
    assert [name for name in found if "://" not in name and not (ROOT / name).exists()] == []


def test_file_tree_names_what_is_there_and_leaves_no_module_out():
    (tree,) = re.findall(r"## What is in here\n\n```\n(.*?)```", TEXT, re.DOTALL)
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
