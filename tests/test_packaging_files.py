"""The recipe for conda-forge, the Dockerfile and the workflows say what the package says."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from ksdiff_cli._version import __version__

ROOT = Path(__file__).resolve().parents[1]
RECIPE = ROOT / "docs" / "packaging" / "recipe" / "recipe.yaml"
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
CONDA = {"torch": "pytorch", "matplotlib": "matplotlib-base"}
"""Packages that conda calls otherwise."""


@pytest.fixture
def project() -> dict[str, Any]:
    with (ROOT / "pyproject.toml").open("rb") as file:
        return dict(tomllib.load(file)["project"])


def test_the_recipe_asks_for_what_the_package_asks_for(project: dict[str, Any]) -> None:
    yaml = pytest.importorskip("yaml", reason="no YAML: pip install 'ksdiff[docs]'")
    recipe = yaml.safe_load(RECIPE.read_text(encoding="utf-8"))
    found = [re.fullmatch(r"([a-z0-9_-]+)(.*)", one) for one in project["dependencies"]]
    expected = {CONDA.get(one[1], one[1]) + " " + one[2] for one in found if one}
    run = {one for one in recipe["requirements"]["run"] if not one.startswith("python ")}
    assert run == expected
    assert recipe["context"]["version"] == __version__
    assert f">={recipe['context']['python_min']}" == project["requires-python"]
    (entry,) = project["scripts"].items()
    assert recipe["build"]["python"]["entry_points"] == [" = ".join(entry)]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_workflows_run_what_is_there(path: Path, project: dict[str, Any]) -> None:
    yaml = pytest.importorskip("yaml", reason="no YAML: pip install 'ksdiff[docs]'")
    jobs = yaml.safe_load(path.read_text(encoding="utf-8"))["jobs"]
    steps = [step for job in jobs.values() for step in job["steps"]]
    assert steps and all(("run" in step) != ("uses" in step) for step in steps)
    lines = " ".join(step.get("run", "") for step in steps)
    for extra in re.findall(r"\.\[(\w+)\]", lines):
        assert extra in project["optional-dependencies"]
    named = re.findall(r"(?:^| )((?:\.ci|docs|tests)/[\w./-]+)", lines.replace("checkout/", ""))
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_the_image_installs_an_extra_that_there_is(project: dict[str, Any]) -> None:
    text = (ROOT / "docs" / "packaging" / "Dockerfile").read_text(encoding="utf-8")
    (extra,) = re.findall(r"\.\[(\w+)\]", text)
    assert extra in project["optional-dependencies"] and "-c .ci/constraints.txt" in text
    assert (
        "docs/packaging/Dockerfile" in text
        and "docs/packaging/Dockerfile" in (ROOT / "docs/kubernetes.yaml").read_text()
    )
