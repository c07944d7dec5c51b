"""The plugin of QGIS: where it is put, how it calls ksdiff, and, where QGIS is, what its algorithms make."""

import configparser
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import rasterio

ROOT = Path(__file__).resolve().parents[1]
# Debian's qgis_process is a script that gives this program an option which it does not know
QGIS = shutil.which("qgis_process.bin") or shutil.which("qgis_process")


@pytest.fixture
def profile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of QGIS's with one profile."""
    home = tmp_path / "home"
    (home / "profiles" / "default").mkdir(parents=True)
    home.chmod(0o700)
    monkeypatch.setenv("QGIS_CUSTOM_CONFIG_PATH", str(home))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "none"))
    monkeypatch.setenv("APPDATA", str(tmp_path / "none"))
    return home / "profiles" / "default" / "python" / "plugins" / "ksdiff"


def test_the_plugin_is_put_into_the_profile(run: Callable[..., Any], fails: Callable[..., str], profile: Path) -> None:
    from typing import get_args

    from ksdiff_cli._version import __version__
    from ksdiff_cli.checks import MethodName

    made = run("qgis")
    assert made.exit_code == 0 and made.stdout.strip() == str(profile)
    settings = json.loads((profile / "ksdiff.json").read_text())
    assert settings["python"] == sys.executable and settings["version"] == __version__
    assert tuple(settings["methods"]) == get_args(MethodName)
    metadata = configparser.ConfigParser()
    metadata.read(profile / "metadata.txt", encoding="utf-8")
    needed = ("name", "qgisMinimumVersion", "description", "about", "version", "author", "email", "repository")
    assert all(metadata["general"][key] for key in (*needed, "hasProcessingProvider", "icon"))
    assert metadata["general"]["version"] == __version__ and (profile / metadata["general"]["icon"]).is_file()
    assert "exists already" in fails("qgis")
    (profile / "old.py").touch()
    assert run("qgis", "--overwrite").exit_code == 0 and not (profile / "old.py").exists()


def test_what_is_not_the_plugins_stays(fails: Callable[..., str], profile: Path, tmp_path: Path) -> None:
    assert "no profile 'other'; it has default" in fails("qgis", "--profile", "other")
    profile.mkdir(parents=True)
    (profile / "mine.py").touch()
    assert "is not ksdiff's" in fails("qgis", "--overwrite")
    assert (profile / "mine.py").exists()


def test_without_qgis_a_folder_must_be_named(
    run: Callable[..., Any], fails: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ksdiff_cli.qgis.profiles", lambda: [])
    assert "--folder" in fails("qgis")
    (tmp_path / "file").touch()
    assert "is a file; --folder names a folder" in fails("qgis", "--folder", tmp_path / "file")
    both = run("qgis", "--profile", "default", "--folder", tmp_path)
    assert both.exit_code == 2 and "leave one out" in both.stderr and not (tmp_path / "ksdiff").exists()
    assert run("qgis", "--folder", tmp_path, "-q").exit_code == 0 and (tmp_path / "ksdiff" / "metadata.txt").is_file()


@pytest.fixture
def program(run: Callable[..., Any], tmp_path: Path) -> Any:
    """The part of the plugin that calls ksdiff, which runs without QGIS."""
    assert run("qgis", "--folder", tmp_path, "-q").exit_code == 0
    spec = importlib.util.spec_from_file_location("qgis_program", tmp_path / "ksdiff" / "program.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_progress_notes_and_failures_come_back(program: Any, tmp_path: Path) -> None:
    told: list[str] = []
    done: list[tuple[float, str]] = []

    def ask(*words: Any, stop: bool = False) -> str:
        def progress(share: float, what: str) -> None:
            done.append((share, what))

        return str(program.run([str(word) for word in words], told.append, progress, lambda: stop))

    ask("simulate", "-o", tmp_path / "s", "--size", 128, "--sensor", "QB")
    assert done and done[-1][0] == 100 and any("QB" in line for line in told)
    assert "WorldView-3" in ask("info", "WV3")
    with pytest.raises(program.ProgramError, match="no such"):
        ask("info", tmp_path / "none.tif")
    with pytest.raises(program.ProgramError, match="goes on"):
        ask("simulate", "-o", tmp_path / "t", "--size", 128, "--sensor", "QB", stop=True)


@pytest.mark.skipif(QGIS is None, reason="no qgis_process on this machine: apt-get install qgis python3-qgis")
def test_algorithms_run_in_qgis(run: Callable[..., Any], profile: Path, tmp_path: Path) -> None:
    assert QGIS is not None
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    home = profile.parents[4]
    environment |= {"HOME": str(home), "XDG_RUNTIME_DIR": str(home), "QT_QPA_PLATFORM": "offscreen"}

    def ask(*words: Any) -> Any:
        command = [str(QGIS), "--json", *map(str, words)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr + done.stdout
        return json.loads(done.stdout[done.stdout.index("{") :])

    assert run("qgis", "-q").exit_code == 0
    subprocess.run([QGIS, "plugins", "enable", "ksdiff"], env=environment, capture_output=True, check=True)
    assert run("simulate", "-o", tmp_path, "--size", 128, "--sensor", "QB", "-q").exit_code == 0
    out, page = tmp_path / "out.tif", tmp_path / "page.html"
    pair = [f"--PAN={tmp_path / 'pan.tif'}", f"--MS={tmp_path / 'ms.tif'}", "--SENSOR=QB"]
    made = ask("run", "ksdiff:sharpen", *pair, "--METHOD=1", f"--OUTPUT={out}")
    assert made["results"]["OUTPUT"] == str(out)
    with rasterio.open(out) as dataset, rasterio.open(tmp_path / "truth.tif") as truth:
        assert dataset.shape == truth.shape and dataset.count == 4 and dataset.overviews(1) == []
        assert abs(dataset.read().mean() / truth.read().mean() - 1) < 0.02
        assert dataset.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
    against = f"--REFERENCE={tmp_path / 'truth.tif'}"
    measured = ask("run", "ksdiff:metrics", f"--FUSED={out}", against, f"--HTML={page}")
    assert measured["results"]["SAM"] > 0 and "ERGAS" in measured["results"] and page.stat().st_size > 10_000
    assert "bands: 4" in ask("run", "ksdiff:info", f"--FILE={out}")["results"]["TEXT"]
