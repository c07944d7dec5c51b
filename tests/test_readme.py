"""The README, to the letter: its commands run in their order, its Python runs, its links are there, and it is short."""

import re
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from pages_maker import ROOT, commands_in, first_words, make_place, options_in, run_in
from test_help import COMMANDS

TEXT = (ROOT / "README.md").read_text(encoding="utf-8")


def test_it_is_short_and_says_first_what_it_is() -> None:
    assert len(TEXT.split()) <= 900
    assert "KSDiff-derived default, paper preset available" in TEXT[: TEXT.index("![")]
    code = re.sub(r"```.*?```", "", TEXT, flags=re.DOTALL)
    assert [line for line in code.splitlines() if len(line) > 125 and not line.startswith("|")] == []


def test_every_command_is_known_here() -> None:
    assert first_words(TEXT) <= {"python3", "ksdiff"}  # python3: the two at the top, which the checks themselves run
    assert len(commands_in(TEXT)) >= 12


def test_every_option_exists() -> None:
    known = {option for command in COMMANDS.values() for one in command.params for option in one.opts}
    assert options_in(TEXT) - known - {"--help"} == set()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("readme")
    make_place(folder)
    return folder


def test_commands_run_as_written(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One after the other, in one folder, as somebody reads: none may stumble over what an earlier one wrote."""
    monkeypatch.chdir(place)
    threads = torch.get_num_threads()
    for words in commands_in(TEXT):
        run_in(place, words)
    torch.set_num_threads(threads)


def test_python_runs_as_written(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    (code,) = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    with rasterio.open("pan.tif") as pan, rasterio.open("ms.tif") as ms:
        known = {"pan": pan.read(1)[:256, :256], "ms": ms.read()[:, :64, :64]}
    code = code.replace('sensor="WV3"', 'sensor="QB"')  # the scene here has four bands
    exec(compile(code, "README.md", "exec"), known)
    assert known["fused"].shape == (4, 256, 256) and known["fused"].dtype == np.uint16
    assert Path("fused.tif").exists()


def test_links_and_pictures_are_there() -> None:
    found = re.findall(r"\]\(([^)#]+)\)", TEXT)
    assert found
    assert [name for name in found if "://" not in name and not (ROOT / name).exists()] == []
