"""`ksdiff doctor`: what it says of a whole machine, and of broken ones."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ksdiff_cli.commands import doctor
from ksdiff_cli.commands.doctor import Finding, diagnose, is_broken
from ksdiff_cli.weights import SHIPPED, check

ROOT = Path(__file__).resolve().parents[1]


def by_name(found: list[Finding]) -> dict[str, Finding]:
    return {one.name: one for one in found}


def test_a_whole_machine(run: Any) -> None:
    result = run("doctor", "--json")
    found = json.loads(result.stdout)
    problems = [one for one in found["findings"] if one["status"] == "problem"]
    assert (result.exit_code, found["ok"], problems) == (0, True, [])
    names = {one["name"] for one in found["findings"]}
    assert {"ksdiff", "python", "torch", "rasterio", "compression", "cores", "memory", "weights", "PROJ"} <= names
    assert all(set(one) == {"name", "status", "text", "step"} for one in found["findings"])
    assert all(one["step"] for one in found["findings"] if one["status"] != "ok")


def test_lines_for_people(run: Any) -> None:
    lines = run("doctor").stdout.splitlines()
    assert lines[0].startswith("ok       ksdiff: ")
    assert any(line.startswith("ok       weights: ") and check.HASH in line for line in lines)


def test_the_shipped_weights_give_what_they_gave() -> None:
    """New weights? ``python -m ksdiff_cli.weights.check`` prints what belongs into ksdiff_cli/weights/check.py."""
    assert check.worst_difference() < 0.1


def test_other_weights_are_noticed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, run: Any) -> None:
    other = tmp_path / "ksdiff.safetensors"
    monkeypatch.setattr("ksdiff_cli.weights.SHIPPED", other)
    for content, words in ((None, "missing"), (b"text", "hash"), (SHIPPED.read_bytes()[:-1], "hash")):
        if content is not None:
            other.write_bytes(content)
        (found,) = doctor._weights()
        assert found.status == "problem" and words in found.text and "pip install" in found.step
    assert run("doctor").exit_code == 1


def test_results_that_are_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check, "EXPECTED", tuple(value + 3 for value in check.EXPECTED))
    (found,) = doctor._weights()
    assert found.status == "problem" and "3.0" in found.text


def test_little_room(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=5_000_000))
    monkeypatch.setattr(doctor, "_memory", lambda: 10**9)
    found = by_name(diagnose(tmp_path))
    assert {found[name].status for name in ("working folder", "temporary folder", "memory")} == {"warning"}
    assert found["working folder"].step and not is_broken(list(found.values()))


def test_a_gdal_without_drivers_and_codecs(monkeypatch: pytest.MonkeyPatch) -> None:
    rasterio = pytest.importorskip("rasterio")
    monkeypatch.setattr(rasterio.Env, "drivers", lambda self: {"GTiff": "", "VRT": ""})
    monkeypatch.setattr("ksdiff_cli.output.creation.default_codec", lambda: "DEFLATE")
    found = by_name(list(doctor._gdal()))
    assert found["GDAL drivers"].status == "problem" and "COG" in found["GDAL drivers"].text
    assert (found["JPEG 2000"].status, found["compression"].status) == ("warning", "warning")


def test_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    about = type("About", (), {"name": "Card"})
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda number: about)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda number: (3 * 10**9, 8 * 10**9))
    assert by_name(list(doctor._torch()))["cuda:1"].text == "Card, 3.0 of 8.0 GB free"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", "12.4")
    found = by_name(list(doctor._torch()))["cuda"]
    assert found.status == "warning" and "nvidia-smi" in found.step


@pytest.mark.parametrize("missing", [{"torch": "problem"}, {"rasterio": "warning", "h5py": "problem"}], ids=str)
def test_a_machine_that_lacks_libraries(missing: dict[str, str], tmp_path: Path) -> None:
    script = f"import sys\nsys.modules.update(dict.fromkeys({[*missing]}))\n"
    script += "from ksdiff_cli.main import app\napp(['doctor', '--json'])"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (1, "")
    for library, status in missing.items():
        found = [one for one in json.loads(done.stdout)["findings"] if library in one["name"] + one["text"]]
        assert found[0]["status"] == status and found[0]["step"] == f"pip install {library}"
