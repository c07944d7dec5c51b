"""The script for machines with a GPU, tried without one on tiny sizes."""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "benchmarks"))

import gpu


def test_parts_run_on_a_cpu(tmp_path, capsys):
    # the race of a scene starts four programs, which is left to who tries the script by hand
    parts, found = [part for part in gpu.PARTS if part != "scene"], tmp_path / "found.json"
    assert gpu.main(["--device", "cpu", "--quick", "--parts", *parts, "--json", str(found)]) == 0
    results, told = json.loads(found.read_text())["parts"], capsys.readouterr().out
    assert [result["part"] for result in results] == parts
    for result in results:
        assert result["numbers"]
        assert f"| {result['part']} | {result['result']} |" in told


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
