"""What README and guides are tested with: their commands, a folder with all that they speak of, and a run in it."""

import csv
import json
import re
import shlex
import tarfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import products_maker
import rasterio
import sentinel2_maker
import typer
from conftest import write_raster
from rasterio.transform import Affine
from typer.testing import CliRunner
from view_maker import view_until_interrupted

from ksdiff_cli.main import app

ROOT = Path(__file__).resolve().parents[1]
SHORTER = {"train": ["--steps", "2", "--width", "8", "--threads", "1"]}
"""Training to the end would take minutes."""
LESS = {"sharpen": {"--adapt": "0.01", "--workers": "2"}, "simulate": {"--size": "512"}}
"""The same path in less time."""
ELSEWHERE = "--scheduler"


def first_words(text: str) -> set[str]:
    """Return what is typed first in a page's shell lines."""
    return {line.split()[0] for block in _blocks(text) for line in block.splitlines() if line.strip()}


def commands_in(text: str) -> list[list[str]]:
    """Return a page's ksdiff commands, those by torchrun too, as words from ``ksdiff`` on."""
    lines = [line.split("$ ")[-1] for block in _blocks(text) for line in block.splitlines()]
    found = [re.sub(r"^torchrun .*-m ksdiff_cli ", "ksdiff ", line) for line in lines]
    return [shlex.split(line, comments=True) for line in found if line.startswith("ksdiff ")]


def _blocks(text: str) -> list[str]:
    return re.findall(r"```sh\n(.*?)```", text, re.DOTALL)


def options_in(text: str) -> set[str]:
    """Return the options that a page names in its running text."""
    text = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    return {option for span in re.findall(r"`([^`\n]+)`", text) for option in re.findall(r"--[a-z][a-z-]+", span)}


def parse(words: list[str]) -> None:
    """Read a command's line without running it; an option that is none, or a wrong value, raises."""
    group: Any = typer.main.get_command(app)
    context = group.commands[words[1]].make_context(words[1], list(words[2:]))
    assert not context.args, words


def run_in(place: Path, words: list[str]) -> None:
    """Run a command in a folder, which is the current one, as it is written but for what takes long."""
    name, *rest = words[1:]
    if ELSEWHERE in rest:
        parse(words)
        return
    for option, value in LESS.get(name, {}).items():
        if option in rest:
            rest[rest.index(option) + 1] = value
    if name == "view":  # ends with Ctrl-C only
        view_until_interrupted(rest, place)
        return
    result = CliRunner().invoke(app, [name, *rest, *SHORTER.get(name, ())])
    assert result.exit_code == 0, f"{shlex.join(words)}\n{result.output}\n{result.exception!r}"


def make_place(folder: Path) -> None:
    """Fill a folder with everything that the pages speak of."""
    runner = CliRunner()
    # what is sharpened a dozen times is as small as the guides' window allows; patches need more ground
    for place, size in ((folder, "256"), (folder / "scene", "768")):
        made = runner.invoke(app, ["simulate", "-o", str(place), "--size", size, "--sensor", "QB", "-q"])
        assert made.exit_code == 0, made.output
    (folder / "scene" / "truth.tif").unlink()  # a delivered scene has none
    _write_pancollection(folder / "test_qb_multiExm1.h5", folder / "truth.tif", folder / "pan.tif")
    product = folder / products_maker.C1
    products_maker.landsat(product, products_maker.C1)
    with tarfile.open(folder / f"{products_maker.C1}.tar.gz", "w:gz") as archive:
        archive.add(product, product.name)
    bands = [{"name": name, "common_name": name} for name in ("blue", "green", "red", "nir")]
    pan = {"href": "pan.tif", "eo:bands": [{"common_name": "pan"}]}
    assets = {"pan": pan, "ms": {"href": "ms.tif", "eo:bands": bands}}
    item = {"type": "Feature", "stac_version": "1.0.0", "id": "a", "properties": {}, "assets": assets}
    (folder / "item.json").write_text(json.dumps(item))
    with (folder / "list.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("pan", "ms", "name"), ("pan.tif", "ms.tif", "a")])


def make_bands(folder: Path) -> None:
    """Fill a folder with what the page of bands without a PAN speaks of."""
    sentinel2_maker.safe(folder, "L2A", 96).rename(folder / "S2A_MSIL2A_20230801T102601.SAFE")
    for metres, bands in {10: ("B02", "B03", "B04", "B08"), 20: ("B05", "B11"), 60: ("B01",)}.items():
        for band in bands:
            values = sentinel2_maker.image(band, 960 // metres, metres)
            place = Affine(metres, 0, sentinel2_maker.EAST, 0, -metres, sentinel2_maker.NORTH)
            write_raster(folder / f"{band}.tif", values[None], crs=sentinel2_maker.CRS, transform=place)
    products_maker.landsat(folder / products_maker.C1, products_maker.C1)


def _write_pancollection(path: Path, truth: Path, pan: Path) -> None:
    """Write one image as PanCollection does: float64, no attributes."""
    with rasterio.open(truth) as gt, rasterio.open(pan) as sharp, h5py.File(path, "w") as file:
        cut = gt.read()[None, :, :128, :128].astype(np.float64)
        ms = cut.reshape(1, -1, 32, 4, 32, 4).mean((3, 5))
        file["gt"], file["ms"], file["lms"] = cut, ms, ms.repeat(4, 2).repeat(4, 3)
        file["pan"] = sharp.read()[None, :, :128, :128].astype(np.float64)
