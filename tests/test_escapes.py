"""Names that steer terminals, hide text or are no UTF-8: spelled out in all that is printed and kept."""

import csv
import io
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import write_raster
from rasterio.transform import Affine
from test_hdf5 import make
from typer.testing import CliRunner

from ksdiff_cli.commands.console import SafeConsole, cell
from ksdiff_cli.errors import printable
from ksdiff_cli.files.writing import as_json

BAD = {
    "colours": "a\x1b[31mb",
    "a title": "a\x1b]0;owned\x07b",
    "eight-bit escapes": "a\x9b31mb",
    "a line end": "a\nError: b",
    "back to the start": "a\rb",
    "rubbed out": "a\x08\x7fb",
    "turned round": "a\u202efit.b",
    "hidden": "a\u200b\u2066b",
    "a line end of Unicode": "a\u2028b",
    "no UTF-8": os.fsdecode(b"a\xffb"),
    "markup": "[red]a[/red] :smile: [link=x]b",
}
NAMES = pytest.mark.parametrize("name", BAD.values(), ids=BAD)
IN_UTF8 = pytest.mark.parametrize("name", [*list(BAD.values())[:-2], BAD["markup"]], ids=[*list(BAD)[:-2], "markup"])
"""GDAL takes no others."""


def harmless(text: str) -> bool:
    return all(sign.isprintable() or sign == "\n" for sign in text) and "\nError: b" not in text


def pair(folder: Path) -> tuple[Path, Path]:
    folder.mkdir()
    rng = np.random.default_rng(0)
    place = {"crs": "EPSG:32632"}
    pan = write_raster(
        folder / "pan.tif", rng.integers(1, 999, (1, 64, 64)).astype("u2"), transform=Affine(1, 0, 0, 0, -1, 0), **place
    )
    ms = write_raster(
        folder / "ms.tif", rng.integers(1, 999, (3, 16, 16)).astype("u2"), transform=Affine(4, 0, 0, 0, -4, 0), **place
    )
    return pan, ms


def test_every_sign_that_is_not_printed_is_spelled_out() -> None:
    for name in BAD.values():
        assert harmless(printable(name))
        assert harmless(json_line := as_json({"name": [name]}))
        assert json.loads(json_line) == {"name": [name]}
    assert printable("Übersicht 東京 é ½") == "Übersicht 東京 é ½"
    console = SafeConsole(width=200, record=True, file=io.StringIO())
    console.print(cell(BAD["markup"]))
    assert console.export_text().strip() == BAD["markup"]


@IN_UTF8
def test_info_and_errors(name: str, tmp_path: Path, run: Any, fails: Any) -> None:
    folder = tmp_path / name.replace("/", "-")
    _, ms = pair(folder)
    for more in ((), ("--json",)):
        result = run("info", folder, *more)
        assert result.exit_code == 0, result.output
        assert harmless(result.stdout)
    assert json.loads(result.stdout)["path"] == str(folder)
    assert harmless(fails("info", folder / "gone.tif"))
    shutil.copy(ms, folder / f"{name}.h5".replace("/", "-"))
    assert harmless(fails("info", folder / f"{name}.h5".replace("/", "-")))


@IN_UTF8
def test_tags_and_descriptions_of_others(name: str, tmp_path: Path, run: Any) -> None:
    path = write_raster(
        tmp_path / "a.tif",
        np.ones((1, 4, 4), "u1"),
        transform=Affine(1, 0, 5, 0, -1, 5),
        descriptions=[name],
        tags={"A": name},
    )
    result = run("info", path)
    assert result.exit_code == 0
    assert harmless(result.stdout)


@IN_UTF8
def test_a_batch_its_table_and_its_summary(name: str, tmp_path: Path, run: Any) -> None:
    places = tmp_path / "in"
    places.mkdir()
    pair(places / name.replace("/", "-"))
    (places / f"bad {name}".replace("/", "-")).mkdir()
    out = tmp_path / "out"
    for more in ((), ("--json",)):
        result = run("sharpen", "--batch", places, "-o", out, "--method", "exp", "--no-registration-check", *more)
        assert result.exit_code == 1
        assert harmless(result.stdout)
        assert harmless(result.stderr)
    summary = (out / "batch.json").read_text()
    assert harmless(summary)
    assert json.loads(summary)["kept"] == 1
    assert json.loads(result.stdout)["failed"] == 1


@NAMES
def test_tables_reports_and_lists_of_figures(name: str, tmp_path: Path) -> None:
    from ksdiff_cli.evaluation.cases import open_files
    from ksdiff_cli.evaluation.compare import evaluate_files
    from ksdiff_cli.evaluation.results import write_csv
    from ksdiff_cli.fusers.classical import Upsampling
    from ksdiff_cli.report import write_report

    folder = tmp_path / name.replace("/", "-")
    folder.mkdir()
    found = evaluate_files(open_files([make(folder / "a.h5")]), {name: Upsampling()}, keep=1)
    write_csv(found, tmp_path / "a.csv")
    write_report(found.to_report(f"ksdiff evaluate {folder}"), tmp_path / "a.html")
    page = (tmp_path / "a.html").read_text()
    assert harmless(page)
    with (tmp_path / "a.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 4
    assert rows[0]["method"] == printable(name)
    assert harmless("".join(rows[0].values()))


def test_a_bar_shows_names_as_they_are(monkeypatch: Any, capsys: Any) -> None:
    from ksdiff_cli.commands import console

    shown = SafeConsole(force_terminal=True, width=300, stderr=True)
    monkeypatch.setattr(console, "stderr", shown)
    with console.progress("work") as report:
        report(1, 2, BAD["colours"] + "[bold]x[/bold]")
        report(2, 2, BAD["colours"] + "[bold]x[/bold]")
    text = capsys.readouterr().err
    assert r"a\x1b[31mb[bold]x[/bold]" in text


def test_the_program_itself_with_names_that_are_no_utf8(tmp_path: Path) -> None:
    from ksdiff_cli.main import app

    result = CliRunner().invoke(app, ["info", os.fsdecode(os.fsencode(tmp_path) + b"/\xff\x1b[2J.tif")])
    assert result.exit_code == 1
    assert "\\udcff\\x1b[2J.tif" in result.stderr
