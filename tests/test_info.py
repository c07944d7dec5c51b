import json
from pathlib import Path
from typing import Any

import pytest
from families_maker import DELIVERIES


def facts(run: Any, path: Path) -> dict[str, Any]:
    result = run("info", path, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_raster(run: Any, make_pair: Any) -> None:
    files = make_pair(ms_profile={"nodata": 0, "descriptions": ("a", "b", "c", "d")})
    found = facts(run, files.ms)
    expected = {
        "kind": "raster", "width": 32, "height": 24, "bands": 4, "dtype": "uint16", "pixel_size": [2.0, 2.0],
        "crs": "EPSG:32631", "nodata": 0.0, "descriptions": ["a", "b", "c", "d"],
    }  # fmt: skip
    assert expected.items() <= found.items()
    text = run("info", files.ms).stdout
    assert "crs: EPSG:32631" in text
    assert "pixel size: 2, 2" in text


def test_nodata_that_json_cannot_hold(run: Any, make_pair: Any) -> None:
    files = make_pair(dtype="float32", ms_profile={"nodata": float("nan")})
    assert facts(run, files.ms)["nodata"] == "nan"


def test_scene_folder(run: Any, make_pair: Any) -> None:
    (scene,) = facts(run, make_pair().folder)["scenes"]
    assert scene["sensor"] == "generic"
    assert scene["ratio"] == [4, 4]
    assert scene["offset_ms_pixels"] == pytest.approx([-0.375, -0.375])
    assert scene["common_area"] == {"column": 0, "row": 0, "width": 128, "height": 96}
    assert len(scene["ms"]) == 4


def test_scene_that_cannot_be_fused_says_why(run: Any, make_pair: Any) -> None:
    from rasterio.transform import Affine

    files = make_pair(ms_grid=Affine(2, 0, 600000, 0, -2, 5747657))
    (scene,) = facts(run, files.folder)["scenes"]
    assert "does not overlap" in scene["problem"]


def test_hdf5(run: Any, tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "train.h5", "w") as file:
        file.attrs["sensor"] = "WV3"
        file["gt"] = [[1.0, 2.0]]
    found = facts(run, tmp_path / "train.h5")
    assert found["attributes"] == {"sensor": "WV3"}
    assert found["datasets"]["gt"] == {"shape": [1, 2], "dtype": "float64"}


def test_checkpoint(run: Any, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    from ksdiff_cli.models.checkpoint import save_model
    from ksdiff_cli.models.config import ModelConfig
    from ksdiff_cli.models.ksdiff import KSDiff

    path = tmp_path / "weights.safetensors"
    save_model(KSDiff(ModelConfig(width=8, prior=False), 2), path, sensor={"name": "WV3"}, training={"steps": 5})
    found = facts(run, path)
    assert (found["kind"], found["stage"], found["sensor"]["name"]) == ("checkpoint", 2, "WV3")
    assert found["config"]["width"] == 8
    assert "steps: 5" in run("info", path).stdout


def test_real_product(run: Any, real_data: Any) -> None:
    (scene,) = facts(run, real_data("landsat8_clouds"))["scenes"]
    assert scene["sensor"] == "L8"
    assert scene["offset_ms_pixels"] == [-0.5, -0.5]
    assert scene["crs"] == "EPSG:32616"


def test_a_broken_scene_is_listed_beside_those_that_are_whole(run: Any, tmp_path: Path) -> None:
    DELIVERIES["KOMPSAT-3A"].write(tmp_path / "a")
    DELIVERIES["CAS500-1"].write(tmp_path / "b")
    (tmp_path / "b" / DELIVERIES["CAS500-1"].pan).write_bytes(b"")
    found = facts(run, tmp_path)
    assert [scene["sensor"] for scene in found["scenes"]] == ["K3A"]
    assert [DELIVERIES["CAS500-1"].pan in line for line in found["left_out"]] == [True]
    assert f"left out: {tmp_path}/b/{DELIVERIES['CAS500-1'].pan}" in run("info", tmp_path).stdout
