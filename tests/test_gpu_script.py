"""The script for machines with a GPU, tried without one on tiny sizes."""

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "benchmarks"))

import gpu


# the race of a scene starts four programs, which is left to who tries the script by hand
@pytest.mark.parametrize("part", [part for part in gpu.PARTS if part != "scene"])
def test_a_part_runs_on_a_cpu(part, tmp_path, capsys):
    found = tmp_path / "found.json"
    assert gpu.main(["--device", "cpu", "--quick", "--parts", part, "--json", str(found)]) == 0
    (result,) = json.loads(found.read_text())["parts"]
    assert result["part"] == part
    assert result["numbers"]
    assert f"| {part} | {result['result']} |" in capsys.readouterr().out


def test_a_part_that_fails_does_not_stop_the_others(tmp_path, monkeypatch, capsys):
    def fail(options):
        raise RuntimeError("no such kernel\nat all")

    def reach(options):
        return "1 DN", True, {}

    monkeypatch.setattr(gpu, "PARTS", {"first": fail, "second": reach})
    assert gpu.main(["--device", "cpu", "--quick"]) == 1
    table = capsys.readouterr().out
    assert "| first | failed: RuntimeError: no such kernel | MISSED |" in table
    assert "| second | 1 DN | reached |" in table
