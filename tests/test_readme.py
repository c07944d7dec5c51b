"""The README, to the letter: its commands run in their order, its Python runs, its links and file tree are there."""

import csv
import re
import shlex
import tarfile
from pathlib import Path

import h5py
import numpy as np
import products_maker
import pytest
import rasterio
import torch
import typer
from typer.testing import CliRunner
from view_maker import view_until_interrupted

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
LESS = {"sharpen": {"--adapt": "0.01", "--workers": "2"}, "simulate": {"--size": "512"}}
"""The same path in less time."""
ELSEWHERE = "--scheduler"


def test_every_command_is_known_here():
    first = {
        line.split()[0] for block in re.findall(r"```sh\n(.*?)```", TEXT, re.DOTALL) for line in block.splitlines()
    }
    assert first <= OTHER | {"ksdiff"}
    assert len(LINES) > 25


def write_pancollection(path, truth, pan):
    """Write one image as PanCollection does: float64, no attributes."""
    with rasterio.open(truth) as gt, rasterio.open(pan) as sharp, h5py.File(path, "w") as file:
        cut = gt.read()[None, :, :128, :128].astype(np.float64)
        ms = cut.reshape(1, -1, 32, 4, 32, 4).mean((3, 5))
        file["gt"], file["ms"], file["lms"] = cut, ms, ms.repeat(4, 2).repeat(4, 3)
        file["pan"] = sharp.read()[None, :, :128, :128].astype(np.float64)


def test_every_command_is_told_of_and_every_option_exists():
    """Those in running text too; torchrun's, pip's and dask's own options are theirs."""
    commands = typer.main.get_command(app).commands
    assert [name for name in commands if f"ksdiff {name}" not in TEXT] == []
    known = {option for command in commands.values() for one in command.params for option in one.opts}
    named = {option for span in re.findall(r"`([^`\n]+)`", TEXT) for option in re.findall(r"--[a-z][a-z-]+", span)}
    assert named - known - {"--help", "--node-rank"} == set()
    assert len(named) > 10


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with everything the README speaks of."""
    folder = tmp_path_factory.mktemp("readme")
    runner = CliRunner()
    # what is sharpened a dozen times is as small as the README's window allows; patches need more ground
    for place, size in ((folder, "256"), (folder / "scene", "768")):
        made = runner.invoke(app, ["simulate", "-o", str(place), "--size", size, "--sensor", "QB", "-q"])
        assert made.exit_code == 0, made.output
    (folder / "scene" / "truth.tif").unlink()  # a delivered scene has none
    write_pancollection(folder / "test_qb_multiExm1.h5", folder / "truth.tif", folder / "pan.tif")
    product = folder / products_maker.C1
    products_maker.landsat(product, products_maker.C1)
    with tarfile.open(folder / f"{products_maker.C1}.tar.gz", "w:gz") as archive:
        archive.add(product, product.name)
    with (folder / "list.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("pan", "ms", "name"), ("pan.tif", "ms.tif", "a")])
    return folder


def test_commands_run_as_written(place, monkeypatch):
    """One after the other, in one folder, as somebody reads: none may stumble over what an earlier one wrote."""
    monkeypatch.chdir(place)
    threads = torch.get_num_threads()
    group = typer.main.get_command(app)
    for words in LINES:
        name, *rest = words[1:]
        if ELSEWHERE in rest:
            group.commands[name].make_context(name, rest)
            continue
        for option, value in LESS.get(name, {}).items():
            if option in rest:
                rest[rest.index(option) + 1] = value
        if name == "view":  # ends with Ctrl-C only
            view_until_interrupted(rest, place)
            continue
        result = CliRunner().invoke(app, [name, *rest, *SHORTER.get(name, ())])
        assert result.exit_code == 0, f"{shlex.join(words)}\n{result.output}\n{result.exception!r}"
    torch.set_num_threads(threads)


def test_python_runs_as_written(place, monkeypatch):
    monkeypatch.chdir(place)
    (code,) = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    with rasterio.open("pan.tif") as pan, rasterio.open("ms.tif") as ms:
        known = {"pan": pan.read(1)[:256, :256], "ms": ms.read()[:, :64, :64]}
    code = code.replace('sensor="WV3"', 'sensor="QB"')  # the scene here has four bands
    exec(compile(code, "README.md", "exec"), known)
    assert known["fused"].shape == (4, 256, 256) and known["fused"].dtype == np.uint16
    assert Path("fused.tif").exists()


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
