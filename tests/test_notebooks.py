"""The notebooks run, and results show themselves in them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

NOTEBOOKS = sorted((Path(__file__).resolve().parents[1] / "docs" / "notebooks").glob("*.ipynb"))


@pytest.mark.filterwarnings("ignore")  # of Jupyter's own packages
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_run(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nbformat = pytest.importorskip("nbformat", reason="no nbclient: pip install -e '.[dev]'")
    nbclient = pytest.importorskip("nbclient", reason="no nbclient: pip install -e '.[dev]'")
    pytest.importorskip("ipykernel", reason="no ipykernel: pip install -e '.[dev]'")
    monkeypatch.setenv("PYTHONPATH", str(path.parents[2]))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setenv("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    notebook = nbformat.read(path, as_version=4)
    nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    text = json.dumps([cell.get("outputs", []) for cell in notebook.cells])
    assert "<table" in text and "traceback" not in text
    if path.stem == "sharpen":
        assert "data:image/png;base64," in text and '"image/png"' in text


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_are_kept_without_outputs(path: Path) -> None:
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    assert all(not cell.get("outputs") and cell.get("execution_count") is None for cell in cells)
    assert cells[0]["cell_type"] == "markdown" and len({cell["id"] for cell in cells}) == len(cells)


def test_results_show_themselves(run: Callable[..., Any], tmp_path: Path) -> None:
    from ksdiff_cli import measure, sharpen_scene

    assert run("simulate", "-o", tmp_path, "--size", 128, "--sensor", "QB", "-q").exit_code == 0
    made = sharpen_scene(tmp_path / "pan.tif", tmp_path / "ms.tif", output=tmp_path / "<out>.tif", method="gsa")
    shown = made._repr_html_()
    assert "data:image/png;base64," in shown and "128 x 128 pixels, 4 bands, uint16" in shown
    assert "&lt;out&gt;.tif" in shown and "<out>" not in shown
    (tmp_path / "<out>.tif").rename(tmp_path / "elsewhere.tif")
    assert "<img" not in made._repr_html_() and "128 x 128" in made._repr_html_()
    found = measure(tmp_path / "elsewhere.tif", reference=tmp_path / "truth.tif")
    assert "SAM ↓" in found._repr_html_() and f"{found.values['SAM']:.4g}" in found._repr_html_()


def test_a_comparison_shows_the_best_in_bold() -> None:
    from ksdiff_cli.report.notebook import methods_html

    shown = methods_html({"a": {"SAM": 2.0, "Q2n": 0.9}, "b<": {"SAM": 1.0, "Q2n": float("nan")}})
    assert (
        "<b>1</b>" in shown
        and "<b>0.9</b>" in shown
        and "<b>2</b>" not in shown
        and "b&lt;" in shown
        and "<td>-" in shown
    )
