"""STAC items: a scene named by one, and the one beside an output."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from conftest import write_raster
from rasterio.transform import Affine

from ksdiff_cli.products import find_scene
from ksdiff_cli.raster.pair import Scene

BANDS = ("blue", "green", "red", "nir")


@pytest.fixture
def pair(tmp_path: Path) -> Path:
    """PAN, MS as one file, and MS as four, of a place in a city."""
    rng = np.random.default_rng(0)
    at = {"crs": "EPSG:32633", "transform": Affine(2, 0, 391000, 0, -2, 5820000)}
    wide = {"crs": "EPSG:32633", "transform": Affine(8, 0, 391000, 0, -8, 5820000)}
    write_raster(tmp_path / "pan.tif", rng.integers(100, 900, (1, 128, 128)).astype(np.uint16), **at)
    ms = rng.integers(100, 900, (4, 32, 32)).astype(np.uint16)
    write_raster(tmp_path / "ms.tif", ms, **wide)
    for name, band in zip(BANDS, ms, strict=True):
        write_raster(tmp_path / f"{name}.tif", band[None], **wide)
    return tmp_path


def item(assets: dict[str, Any], **properties: Any) -> dict[str, Any]:
    about = {"datetime": "2024-05-01T10:00:00Z", **properties}
    made = {"type": "Feature", "stac_version": "1.0.0", "id": "scene-1", "geometry": None, "links": []}
    return {**made, "properties": about, "assets": assets}


def asset(name: str, *bands: str, new: bool = False, **more: Any) -> dict[str, Any]:
    listed: list[dict[str, Any]] = [{"name": band.upper(), "common_name": band} for band in bands]
    if new:  # as STAC 1.1 has it
        listed = [{"name": band["name"], "eo:common_name": band["common_name"]} for band in listed]
    kind = "image/tiff; application=geotiff"
    return {"href": f"./{name}.tif", "type": kind, "roles": ["data"], "bands" if new else "eo:bands": listed, **more}


def written(folder: Path, made: dict[str, Any]) -> Path:
    path = folder / "item.json"
    path.write_text(json.dumps(made))
    return path


@pytest.mark.parametrize("new", [False, True], ids=["1.0", "1.1"])
@pytest.mark.parametrize("whole", [True, False], ids=["one file", "a file a band"])
def test_assets_are_told_apart_by_their_common_names(new: bool, whole: bool, pair: Path) -> None:
    assets = {"pan": asset("pan", "pan", new=new)}
    names = {"ms": asset("ms", *BANDS, new=new)} if whole else {name: asset(name, name, new=new) for name in BANDS}
    shown = {"visual": {**asset("ms", "red", "green", "blue"), "roles": ["visual"]}}
    meta = {"metadata": {"href": "./meta.xml", "roles": ["metadata"]}}
    path = written(pair, item({**shown, **meta, **assets, **names}, platform="QB02"))
    scene = find_scene([str(path)])
    assert isinstance(scene, Scene)
    assert scene.name == "scene-1" and scene.sensor.name == "QB"
    assert Path(scene.pan.path).name == "pan.tif"
    assert [source.name for source in scene.ms] == list(BANDS)
    assert len({source.path for source in scene.ms}) == (1 if whole else 4)


def test_the_sensors_own_bands_are_taken_and_no_others(pair: Path) -> None:
    assets = {"pan": asset("pan", "pan"), **{name: asset(name, name) for name in BANDS[:3]}}
    assets |= {"nir08": asset("nir", "nir08"), "cirrus": asset("nir", "cirrus"), "lwir11": asset("nir", "lwir11")}
    scene = find_scene([str(written(pair, item(assets, platform="landsat-8")))])
    assert isinstance(scene, Scene)
    assert [source.name for source in scene.ms] == ["blue", "green", "red", "nir"] and scene.sensor.name == "L8"


def test_an_item_is_sharpened_and_the_output_has_its_own(run: Callable[..., Any], pair: Path) -> None:
    pystac = pytest.importorskip("pystac", reason="no pystac: pip install -e '.[dev]'")
    pytest.importorskip("jsonschema", reason="no jsonschema: pip install -e '.[dev]'")
    made = item({"pan": asset("pan", "pan"), "ms": asset("ms", *BANDS)}, platform="quickbird-2")
    out = pair / "out.tif"
    written(pair, made)
    command = [
        "sharpen",
        pair / "item.json",
        "-o",
        out,
        "--method",
        "gsa",
        "-f",
        "COG",
        "--no-registration-check",
        "--stac",
    ]
    result = run(*command)
    assert result.exit_code == 0, result.output
    found = json.loads((pair / "out.json").read_text())
    plain = pystac.Item.from_dict({**found, "stac_extensions": []})
    plain.validate()  # against the specification, which pystac carries; extensions' rules lie on the web
    with rasterio.open(out) as dataset:
        assert found["properties"]["proj:code"] == "EPSG:32633"
        assert found["properties"]["proj:shape"] == list(dataset.shape)
        assert found["properties"]["proj:transform"] == list(dataset.transform)[:6]
    west, south, east, north = found["bbox"]
    assert 13 < west < east < 13.5 and 52 < south < north < 53
    assert found["geometry"]["coordinates"][0][0] == found["geometry"]["coordinates"][0][-1]
    data = found["assets"]["data"]
    assert data["href"] == "./out.tif" and "cloud-optimized" in data["type"]
    assert [band["eo:common_name"] for band in data["bands"]] == list(BANDS)
    assert found["properties"]["ksdiff:method"] == "gsa" and found["properties"]["instruments"] == ["QuickBird"]
    # neither is replaced without a word, and the item may not be the input
    assert run(*command).exit_code == 1
    assert run(*command, "--overwrite").exit_code == 0
    (pair / "out.tif").unlink()
    (pair / "out.json").write_text(json.dumps(made))
    refused = run("sharpen", pair / "out.json", "-o", out, "--method", "gsa", "--stac", "--overwrite")
    assert refused.exit_code == 1 and json.loads((pair / "out.json").read_text())["id"] == "scene-1"


def test_an_output_without_a_place_has_none_in_its_item(run: Callable[..., Any], tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    pan = write_raster(tmp_path / "pan.tif", rng.integers(1, 900, (1, 64, 64)).astype(np.uint16))
    ms = write_raster(tmp_path / "ms.tif", rng.integers(1, 900, (4, 16, 16)).astype(np.uint16))
    result = run("sharpen", pan, ms, "-o", tmp_path / "out.tif", "--method", "exp", "--stac")
    assert result.exit_code == 0, result.output
    found = json.loads((tmp_path / "out.json").read_text())
    assert found["geometry"] is None and "bbox" not in found and "proj:code" not in found["properties"]
    assert "processing" in found["properties"]["description"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "is no JSON"),
        ("[1]", "is no STAC item"),
        (json.dumps(item({}) | {"assets": [1]}), "has no object of assets"),
        (json.dumps({"type": "Catalog", "assets": {}}), "is no STAC item but a Catalog"),
        (json.dumps(item({})), "no asset with the common name pan"),
        (json.dumps(item({"pan": asset("pan", "pan")})), "no MS asset"),
        (json.dumps(item({"a": asset("pan", "pan"), "b": asset("pan", "pan")})), "several assets are PAN (a, b)"),
        (json.dumps(item({"pan": 3, "ms": {"href": 4}, "x": {"href": "a.tif", "eo:bands": 7}})), "no asset with"),
        (json.dumps(item({"pan": asset("gone", "pan"), "ms": asset("ms", *BANDS)})), "gone.tif: no such file"),
    ],
)
def test_items_that_are_none_are_one_line(content: str, said: str, fails: Callable[..., str], pair: Path) -> None:
    (pair / "item.json").write_text(content)
    assert said in fails("sharpen", pair / "item.json", "-o", pair / "out.tif")
    assert not (pair / "out.tif").exists()


def test_an_item_that_is_not_there_is_no_matter_of_permissions(fails: Callable[..., str], tmp_path: Path) -> None:
    for missing in (tmp_path / "item.json", tmp_path / "nowhere" / "item.json"):
        assert f"{missing}: no such file; check the path" in fails("sharpen", missing, "-o", tmp_path / "out.tif")


def test_info_and_a_batch_take_items_but_no_folder_is_searched_for_them(run: Callable[..., Any], pair: Path) -> None:
    path = written(pair, item({"pan": asset("pan", "pan"), "ms": asset("ms", *BANDS)}, platform="QB02"))
    shown = run("info", path)
    assert shown.exit_code == 0 and "blue" in shown.stdout
    (pair / "list.csv").write_text(f"scene,name\n{path.name},a\n")
    made = run(
        "sharpen", "--batch", pair / "list.csv", "-o", pair / "out", "--method", "exp", "--no-registration-check"
    )
    assert made.exit_code == 0, made.output
