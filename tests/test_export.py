"""A scene's network as ONNX: what a runtime makes of it, what stands beside it, what is refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ksdiff_cli.numerics.boxes import Box

onnx = pytest.importorskip("onnx", reason='the extra is not installed: pip install "ksdiff[onnx]"')
runtime = pytest.importorskip("onnxruntime", reason='the extra is not installed: pip install "ksdiff[onnx]"')


@pytest.fixture
def own(weights: Callable[..., Path], tmp_path: Path) -> Path:
    """Weights of the default network's kind, random and small."""
    return weights(backbone="unrolled", band_width=8).rename(tmp_path / "own.safetensors")


@pytest.fixture
def scene(run: Callable[..., Any], tmp_path: Path) -> Callable[..., Path]:
    def make(ratio: int, size: int = 192) -> Path:
        folder = tmp_path / f"scene{ratio}"
        made = run("simulate", "-o", folder, "--size", size, "--bands", 4, "--ratio", ratio, "-q")
        assert made.exit_code == 0, made.output
        return folder

    return make


def sharpened(scene: Path, weights: Path, sharpness: float) -> tuple[Any, np.ndarray]:
    """Return a whole scene as the network reads it, and what torch makes of it."""
    from ksdiff_cli.fusers.network import Network
    from ksdiff_cli.products import find_scene
    from ksdiff_cli.raster.grouped import open_scene

    fuser = Network(weights, "cpu", 0, sharpness=sharpness)
    with open_scene(find_scene([str(scene / "pan.tif"), str(scene / "ms.tif")])) as pair:
        fuser.check(pair.bands, pair.true_ratio)
        statistics = pair.statistics()
        fuser.prepare(pair, statistics)
        tile = fuser.read_tile(pair, Box(0, 0, *pair.shape))
        return tile, np.asarray(fuser.fuse(tile, statistics, pair.grid.ratio))


def opened(path: Path, pan: np.ndarray, ms: np.ndarray) -> np.ndarray:
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    given = {"pan": pan[None].astype(np.float32), "ms": ms[None].astype(np.float32)}
    return np.asarray(session.run(None, given)[0][0])


@pytest.mark.parametrize(("ratio", "sharpness"), [(4, 0.0), (3, 0.4)])
def test_onnx_runtime_makes_what_torch_makes(ratio, sharpness, run, scene, own, tmp_path) -> None:
    folder, out = scene(ratio), tmp_path / "scene.onnx"
    named = ["--scene", folder / "pan.tif", "--scene", folder / "ms.tif", "--sharpness", sharpness]
    made = run("export", own, "-o", out, *named)
    assert made.exit_code == 0, made.output
    onnx.checker.check_model(str(out))
    tile, expected = sharpened(folder, own, sharpness)
    fused = opened(out, tile.pan, tile.ms)
    detail = float((expected - tile.ms_up).std())
    assert np.abs(fused - expected).max() < 1e-4 * detail
    # any height and width: a window's core is what the whole has there
    facts = json.loads(out.with_suffix(".json").read_text())
    step, margin = facts["step"], facts["margin"]
    assert step % 16 == 0 and step % ratio == 0 and margin % 16 == 0
    side = 192 // step * step
    assert (facts["ratio"], len(facts["bands"]), facts["pan_size"]) == (ratio, 4, [192, 192])
    part = opened(out, tile.pan[:, :side, : side - step], tile.ms[:, : side // ratio, : (side - step) // ratio])
    kept = side - step - margin
    if kept > 0:
        assert np.abs(part[..., :kept] - fused[:, :side, :kept]).max() < 1e-4 * detail


def test_the_shipped_network_is_exported_with_what_the_scene_taught(run, scene, tmp_path) -> None:
    folder, out = scene(4), tmp_path / "scene.onnx"
    assert run("export", "shipped", "-o", out, "--scene", folder, "-q").exit_code == 0
    facts = json.loads(out.with_suffix(".json").read_text())
    assert facts["method"] == "ksdiff" and facts["seed"] == "0" and facts["weights"]
    assert facts["statistics"]["pan_std"] > 0 and len(facts["statistics"]["ms_mean"]) == 4
    assert facts["ms_centre"] == [1.5, 1.5] and facts["first_ms_pixel"] == [0, 0]
    sizes = [d.dim_param for d in onnx.load(str(out)).graph.input[0].type.tensor_type.shape.dim[2:]]
    assert all(sizes) and out.stat().st_size < 1_000_000


def test_what_cannot_be_exported_is_refused(fails, scene, weights, own, tmp_path, monkeypatch) -> None:
    folder, out = scene(4), tmp_path / "scene.onnx"
    given = "-o", out, "--scene", folder
    assert "backbone unrolled" in fails("export", weights(), *given)
    assert "ending .onnx" in fails("export", own, "-o", tmp_path / "scene.pt", "--scene", folder)
    (tmp_path / "scene.json").write_text("{}")
    assert "scene.json: exists already" in fails("export", own, *given)
    (tmp_path / "scene.json").unlink()
    assert "no such checkpoint" in fails("export", tmp_path / "none.safetensors", *given)
    monkeypatch.setattr("ksdiff_cli.sharpening.export.find_spec", lambda name: None)
    assert "ksdiff[onnx]" in fails("export", own, *given)
    assert not out.exists()


def test_a_ratio_that_is_not_whole_is_refused(fails, own, tmp_path, scene) -> None:
    import rasterio
    from rasterio.transform import Affine

    folder = scene(4)
    with rasterio.open(folder / "ms.tif", "r+") as ms:
        ms.transform = ms.transform @ Affine.scale(0.95)
    said = fails("export", own, "-o", tmp_path / "a.onnx", "--scene", folder, "--no-registration-check")
    assert "only whole ratios" in said
