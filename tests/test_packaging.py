"""The package as users get it: a wheel, a checkout that is not installed, an editable install."""

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
CHECK = (
    "import ksdiff_cli, ksdiff_cli.models, sys\n"
    "from ksdiff_cli.models import config\n"
    "from ksdiff_cli.weights import SHIPPED\n"
    "print(ksdiff_cli.__file__)\nprint(config.__file__)\nprint('models' in sys.modules)\n"
)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what is packaged, so that no build folder appears in the checkout."""
    folder = tmp_path_factory.mktemp("source")
    for name in ("ksdiff_cli", "models"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE", "MANIFEST.in"):
        shutil.copy(ROOT / name, folder)
    return folder


@pytest.fixture(scope="module")
def built(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist and the wheel that is made from it, as `python -m build` does."""
    pytest.importorskip("build")
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(source)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return out


@pytest.fixture(scope="module")
def wheel(built: Path) -> Path:
    (found,) = built.glob("ksdiff-*.whl")
    return found


def python(*arguments: str, cwd: Path, path: Path) -> str:
    environment = {**os.environ, "PYTHONPATH": str(path), "COLUMNS": "100"}
    done = subprocess.run([sys.executable, *arguments], cwd=cwd, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_wheel_holds_every_module_and_the_weights(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as file:
        inside = set(file.namelist())
    expected = {str(path.relative_to(ROOT)) for path in (ROOT / "ksdiff_cli").rglob("*.py")}
    expected |= {f"ksdiff_cli/{path.relative_to(ROOT)}" for path in (ROOT / "models").rglob("*.py")}
    expected |= {str(path.relative_to(ROOT)) for path in (ROOT / "ksdiff_cli" / "weights").glob("*.safetensors")}
    expected |= {f"ksdiff_cli/report/page.{kind}" for kind in ("css", "js")}
    expected |= {"ksdiff_cli/py.typed"}
    assert expected - inside == set()
    assert {name.split("/")[0] for name in inside if not name.startswith("ksdiff-")} == {"ksdiff_cli"}
    assert any(name.endswith("licenses/LICENSE") for name in inside)


def test_sdist_holds_what_the_wheel_is_made_of(built: Path) -> None:
    (found,) = built.glob("ksdiff-*.tar.gz")
    with tarfile.open(found) as file:
        inside = {name.partition("/")[2] for name in file.getnames()}
    expected = {
        str(path.relative_to(ROOT))
        for package in ("ksdiff_cli", "models")
        for path in (ROOT / package).rglob("*")
        if path.suffix in {".py", ".css", ".js", ".md", ".safetensors", ".typed"}
    }
    assert expected - inside == set()
    assert {"pyproject.toml", "README.md", "LICENSE"} <= inside and not any("__pycache__" in name for name in inside)


def test_wheel_works_from_another_folder(wheel: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    with zipfile.ZipFile(wheel) as file:
        file.extractall(site)
        (entry,) = (name for name in file.namelist() if name.endswith("entry_points.txt"))
        assert "ksdiff = ksdiff_cli.main:app" in file.read(entry).decode()
    assert "sharpen" in python("-m", "ksdiff_cli", "--help", cwd=tmp_path, path=site)
    package, config, shadow = python("-c", CHECK, cwd=tmp_path, path=site).split()
    assert Path(package).is_relative_to(site)
    assert Path(config) == site / "ksdiff_cli" / "models" / "config.py"
    assert shadow == "False"


def test_checkout_works_uninstalled_from_another_folder(source: Path, tmp_path: Path) -> None:
    assert python("-m", "ksdiff_cli", "--version", cwd=tmp_path, path=source).startswith("ksdiff ")
    package, config, shadow = python("-c", CHECK, cwd=tmp_path, path=source).split()
    assert Path(package).is_relative_to(source)
    assert Path(config) == source / "models" / "config.py"
    assert shadow == "False"


def test_editable_install_finds_the_models(source: Path, tmp_path: Path) -> None:
    pytest.importorskip("pip")
    site = tmp_path / "site"
    command = [
        sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index",
        "--target", str(site), "--editable", str(source),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    # the tests' own environment may hold an editable ksdiff, whose finder would answer first
    forget = (
        "import sys\n"
        "sys.meta_path[:] = [f for f in sys.meta_path if '__editable__' not in getattr(f, '__module__', '')]\n"
        "for name in [n for n in sys.modules if n.startswith('__editable__')]: del sys.modules[name]\n"
        f"sys.path.insert(0, {str(site)!r})\n"
    )
    # a .pth file counts only in a site folder; PYTHONPATH alone would not run it
    script = f"{forget}import site; site.addsitedir({str(site)!r})\n" + CHECK
    package, config, shadow = python("-c", script, cwd=tmp_path, path=tmp_path).split()
    assert Path(package).is_relative_to(source)
    assert Path(config) == source / "models" / "config.py"
    assert shadow == "False"
