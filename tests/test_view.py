"""ksdiff view without a browser: layers on one grid, tiles right to the DN, and a server that gives nothing else."""

import io
import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import rasterio.warp as warp
from conftest import PairFiles, write_raster
from numpy.typing import NDArray
from rasterio.enums import Resampling
from rasterio.transform import Affine
from view_maker import serving, stage_of, view_until_interrupted

for needed in ("starlette", "uvicorn"):
    pytest.importorskip(needed, reason='the extra is not installed: pip install "ksdiff[view]"')

from PIL import Image  # noqa: E402

from ksdiff_cli.errors import KsdiffError  # noqa: E402
from ksdiff_cli.view.grid import TILE, Tile  # noqa: E402
from ksdiff_cli.view.layers import (  # noqa: E402
    Cache,
    FileLayer,
    Made,
)
from ksdiff_cli.view.opening import beginning  # noqa: E402
from ksdiff_cli.view.server import address, listen  # noqa: E402
from ksdiff_cli.view.stage import Stretch  # noqa: E402
from ksdiff_cli.view.tour import find_spots  # noqa: E402

Array = NDArray[Any]
ROOT = Path(__file__).resolve().parents[1]
GRID = Affine(0.5, 0, 593270, 0, -0.5, 5747657)


def noise(bands: int, height: int, width: int, seed: int = 0, dtype: str = "uint16") -> Array:
    return np.random.default_rng(seed).integers(100, 4000, (bands, height, width)).astype(dtype)


def means(image: Array, factor: int, valid: Array | None = None) -> Array:
    """Average squares, those at the far borders smaller; NaN where none is valid."""
    valid = np.ones(image.shape[1:], bool) if valid is None else valid

    def sums(plane: Array) -> Array:
        rows = np.add.reduceat(plane.astype(np.float64), range(0, plane.shape[0], factor), 0)
        return np.add.reduceat(rows, range(0, plane.shape[1], factor), 1)

    counts = sums(valid)
    return np.stack([sums(np.where(valid, plane, 0)) for plane in image]) / np.where(counts > 0, counts, np.nan)


def drawn(png: bytes) -> Array:
    """Return a PNG as (height, width, channels)."""
    image = np.asarray(Image.open(io.BytesIO(png)))
    return image[:, :, None] if image.ndim == 2 else image


@pytest.fixture
def serve() -> Iterator[Callable[..., str]]:
    """Serve a stage; returns the page's address."""
    with ExitStack() as stack:
        yield lambda stage: stack.enter_context(serving(stage))


def get(url: str) -> tuple[int, bytes]:
    try:
        with urllib.request.urlopen(url, timeout=60) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


@pytest.mark.parametrize(("level", "row", "col"), [(2, 0, 0), (1, 1, 1), (0, 2, 1), (-2, 7, 3), (3, 0, 0)])
def test_tiles_are_right_to_the_dn_at_every_zoom(tmp_path: Path, level: int, row: int, col: int) -> None:
    image = noise(3, 700, 901)
    path = write_raster(
        tmp_path / "a.tif", image, crs="EPSG:32631", transform=GRID, tiled=True, blockxsize=256, blockysize=256
    )
    stage = stage_of(path)
    low = 900.0
    png = stage.tile(stage.layers[0], Tile(level, row, col), [0, 1, 2], Stretch((low,) * 3, (low + 255,) * 3))
    small = means(image, 2**level) if level > 0 else image.repeat(2**-level, 1).repeat(2**-level, 2)
    part = small[:, row * TILE : (row + 1) * TILE, col * TILE : (col + 1) * TILE]
    expected = np.floor(np.clip(part - low, 0, 255).astype(np.float32) + np.float32(0.5)).astype(np.uint8)
    shown = drawn(png)[: part.shape[1], : part.shape[2], :3].transpose(2, 0, 1)
    # halves may be rounded either way
    assert np.abs(shown.astype(int) - expected.astype(int)).max() <= (1 if level > 0 else 0)
    assert (shown == expected).mean() > 0.999


def test_ms_lies_under_pan_where_its_georeference_says(tmp_path: Path) -> None:
    ms_grid = Affine(2, 0, 593271, 0, -2, 5747658.5)  # a whole and a fraction of a pixel off
    pan = write_raster(tmp_path / "pan.tif", noise(1, 200, 240), crs="EPSG:32631", transform=GRID)
    ms_image = noise(4, 50, 60, seed=1)
    ms = write_raster(tmp_path / "ms.tif", ms_image, crs="EPSG:32631", transform=ms_grid)
    stage = stage_of(pan, ms)
    assert [layer.about.kind for layer in stage.layers] == ["pan", "image"]
    found = stage.layers[1].look([0], Tile(0, 0, 0))[0]
    for row, col in [(0, 2), (7, 9), (100, 133), (190, 239)]:
        x, y = GRID @ (col + 0.5, row + 0.5)
        ms_col, ms_row = (int(np.floor(value)) for value in ~ms_grid @ (x, y))
        if 0 <= ms_row < 50 and 0 <= ms_col < 60:
            assert found[row, col] == ms_image[0, ms_row, ms_col]
    assert np.isnan(found[0, 0])  # west of MS


def test_nodata_is_transparent(tmp_path: Path) -> None:
    image = noise(3, 300, 300)
    image[:, :100] = 0
    image[:, 200:, 7] = 0
    path = write_raster(tmp_path / "a.tif", image, nodata=0)
    stage = stage_of(path)
    full = stage.layers[0].look([0, 1, 2], Tile(0, 0, 0))
    assert np.isnan(full[:, :100]).all() and not np.isnan(full[:, 100:199]).any()
    expected = means(image, 2, image[0] != 0)
    assert np.allclose(stage.layers[0].look([0, 1, 2], Tile(1, 0, 0))[:, :150, :150], expected, equal_nan=True)
    stretch = stage.stretch(stage.lead, [0, 1, 2], (2, 98))
    png = drawn(stage.tile(stage.layers[0], Tile(0, 0, 0), [0, 1, 2], stretch))
    assert png.shape[2] == 4
    assert (png[:100, :, 3] == 0).all() and (png[100:199, :200, 3] == 255).all()


def test_overviews_are_read_where_they_are(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "a.tif", noise(1, 1024, 1024), tiled=True, blockxsize=256, blockysize=256)
    with rasterio.open(path, "r+") as dataset:
        dataset.build_overviews([4], Resampling.nearest)  # not what averaging gives
    layer = stage_of(path).layers[0]
    with rasterio.open(path, overview_level=0) as dataset:
        overview = dataset.read(1).astype(np.float32)
    assert np.array_equal(layer.look([0], Tile(2, 0, 0))[0], overview)
    assert np.array_equal(layer.look([0], Tile(3, 0, 0))[0, :128, :128], means(overview[None], 2)[0])


def test_layers_of_another_crs_or_angle_are_laid_on_the_finest(tmp_path: Path) -> None:
    rows, cols = np.mgrid[:120, :160]
    fine = (10 * rows + cols)[None].astype("uint16")
    base = write_raster(tmp_path / "fine.tif", fine, crs="EPSG:32631", transform=GRID)
    corners = GRID @ (np.array([0, 160, 0, 160]), np.array([0, 0, 120, 120]))
    x, y = (np.array(values) for values in warp.transform("EPSG:32631", "EPSG:4326", *corners))
    step = 7e-6, 4.5e-6  # half a metre
    grid = Affine(step[0], 0, x.min(), 0, -step[1], y.max())
    width, height = int((x.max() - x.min()) / step[0]) + 1, int((y.max() - y.min()) / step[1]) + 1
    image = np.zeros((1, height, width), "float32")
    warp.reproject(
        fine.astype("float32"), image, src_transform=GRID, src_crs="EPSG:32631", dst_transform=grid,
        dst_crs="EPSG:4326", resampling=Resampling.bilinear, dst_nodata=np.nan, init_dest_nodata=True,
    )  # fmt: skip
    image = np.repeat(image, 3, 0)
    other = write_raster(tmp_path / "degrees.tif", image, crs="EPSG:4326", transform=grid, nodata=np.nan)
    stage = stage_of(base, other)
    assert any("EPSG:4326" in note for note in stage.notes)
    own, warped = (layer.look([0], Tile(0, 0, 0))[0, 10:110, 10:150] for layer in stage.layers)
    assert np.nanmax(np.abs(own - warped)) < 12  # a pixel along rows is worth 10


def test_a_layer_of_another_place_is_refused(tmp_path: Path) -> None:
    first = write_raster(tmp_path / "a.tif", noise(3, 50, 50), crs="EPSG:32631", transform=GRID)
    away = write_raster(
        tmp_path / "b.tif", noise(3, 50, 50), crs="EPSG:32631", transform=Affine.translation(9000, 0) @ GRID
    )
    with pytest.raises(KsdiffError, match="another place"):
        stage_of(first, away)


def test_bands_are_the_same_by_name(tmp_path: Path) -> None:
    four = write_raster(tmp_path / "a.tif", noise(4, 40, 40), descriptions=("blue", "green", "red", "nir"))
    three = write_raster(tmp_path / "b.tif", noise(3, 40, 40), descriptions=("Red", "Green", "Blue"))
    stage = stage_of(four, three)
    assert [stage.own_band(stage.layers[1], band) for band in range(4)] == [2, 1, 0, None]
    assert [preset["name"] for preset in stage.about()["presets"]][:2] == ["True colour", "Near infrared"]
    assert stage.about()["presets"][0]["bands"] == [2, 1, 0]
    stretch = stage.stretch(stage.lead, [3], (2, 98))
    assert drawn(stage.tile(stage.layers[1], Tile(0, 0, 0), [3], stretch)).shape == (1, 1, 2)  # it has no nir


def test_stretch_is_of_percentiles(tmp_path: Path) -> None:
    image = noise(3, 200, 220)
    stage = stage_of(write_raster(tmp_path / "a.tif", image))
    found = stage.stretch(stage.lead, [2, 1, 0], (5, 95))
    expected = np.percentile(image.reshape(3, -1), (5, 95), axis=1)[:, ::-1]
    assert np.allclose([found.low, found.high], expected, atol=2)


def test_values_of_a_pixel_are_as_stored(tmp_path: Path) -> None:
    large = np.full((2, 64, 64), 4_000_000_001, "uint32")
    path = write_raster(tmp_path / "a.tif", large, crs="EPSG:32631", transform=GRID)
    coarse = write_raster(
        tmp_path / "b.tif", noise(2, 16, 16), crs="EPSG:32631", transform=GRID @ Affine.scale(4), nodata=0
    )
    found = stage_of(path, coarse).pixel(9.5, 33.2)
    with rasterio.open(coarse) as dataset:
        expected = dataset.read()[:, 2, 8].tolist()
    assert found["values"] == [[4_000_000_001] * 2, expected]
    assert (found["row"], found["col"]) == (9, 33)
    assert found["x"] == pytest.approx(593270 + 33.2 / 2) and found["lat"] == pytest.approx(51.87, abs=0.02)
    json.dumps(found, allow_nan=False)


def test_maps_are_told_by_their_metadata_and_drawn_in_colours(tmp_path: Path) -> None:
    image = write_raster(tmp_path / "out.tif", noise(3, 64, 64))
    spread = np.linspace(0, 8, 64 * 64, dtype="float32").reshape(1, 64, 64)
    map_ = write_raster(tmp_path / "std.tif", spread, nodata=np.nan)
    stage = stage_of(image, map_)
    assert [layer.about.kind for layer in stage.layers] == ["image", "map"]
    shown = drawn(stage.tile(stage.layers[1], Tile(0, 0, 0), [0, 1, 2], Stretch((0.0,), (8.0,))))[:64, :64]
    assert tuple(shown[0, 0, :3]) == (0x10, 0x12, 0x2B) and tuple(shown[63, 63, :3]) == (0xFC, 0xF3, 0xB4)


def test_maps_of_metrics_lie_where_they_were_measured(run: Any, tmp_path: Path) -> None:
    """Without georeference, too, and though their cells do not cover the last pixels."""
    truth = write_raster(tmp_path / "truth.tif", noise(3, 100, 120))
    fused = write_raster(tmp_path / "fused.tif", noise(3, 100, 120, seed=1))
    assert run("metrics", fused, "--reference", truth, "--maps", tmp_path / "maps").exit_code == 0
    stage = stage_of(fused, tmp_path / "maps" / "sam.tif", tmp_path / "maps" / "q2n.tif")
    assert [layer.about.kind for layer in stage.layers] == ["image", "map", "map"]
    assert "degrees" in stage.layers[1].about.unit
    with rasterio.open(tmp_path / "maps" / "q2n.tif") as dataset:
        cells = dataset.read(1)
    shown = stage.layers[2].look([0], Tile(0, 0, 0))[0]
    assert np.array_equal(shown[:96:32, :96:32], cells[:3, :3], equal_nan=True)
    assert shown[31, 31] == cells[0, 0] and shown[32, 31] == cells[1, 0]


def test_reports_and_sharpen_lead_into_the_viewer(
    make_pair: Callable[..., PairFiles], run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair, served = make_pair(size=(64, 64)), []
    monkeypatch.setattr("ksdiff_cli.view.opening.serve", lambda server, taken: served.append(server.stage))
    monkeypatch.delenv("DISPLAY", raising=False)
    out, page = tmp_path / "out.tif", tmp_path / "page.html"
    result = run("sharpen", pair.pan, pair.ms, "-o", out, "--method", "exp", "--view")
    assert result.exit_code == 0 and result.stdout.startswith("http://127.0.0.1:")
    assert [layer.about.name for layer in served[0].layers] == ["PAN", "MS", "out"]
    measured = ["metrics", out, "--pan", pair.pan, "--ms", pair.ms, "--report", page]
    assert run(*measured).exit_code == 0
    assert f"ksdiff view {pair.pan} {pair.ms} {out}" in page.read_text()
    monkeypatch.setattr("ksdiff_cli.view.find_spec", lambda name: None)
    assert run(*measured, "--overwrite").exit_code == 0
    assert "ksdiff view" not in page.read_text()


def test_differences_are_signed(tmp_path: Path) -> None:
    image = noise(3, 64, 64)
    first = write_raster(tmp_path / "a.tif", image + np.uint16(30))
    second = write_raster(tmp_path / "b.tif", image)
    stage = stage_of(first, second)
    assert stage.limit(*stage.layers, [0, 1, 2]) == pytest.approx(30)
    more = drawn(stage.difference(*stage.layers, Tile(0, 0, 0), [0], 30))[10, 10]
    less = drawn(stage.difference(*stage.layers[::-1], Tile(0, 0, 0), [0], 30))[10, 10]
    assert more[0] > more[2] and less[2] > less[0]  # orange, blue


def test_cache_is_bounded_and_makes_once() -> None:
    cache, made = Cache(10_000), []

    def make(key: int) -> Array:
        made.append(key)
        time.sleep(0.01)
        return np.zeros(1000, np.uint8)

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda _: cache.get(1, lambda: make(1)), range(16)))
    assert made == [1]
    for key in range(2, 30):
        cache.get(key, lambda key=key: make(key))
        assert cache.size <= cache.limit
    assert 29 in cache and 1 not in cache
    with pytest.raises(ZeroDivisionError):
        cache.get("bad", lambda: 1 / 0)
    assert cache.get("bad", lambda: np.ones(1)) == 1  # an error is not kept


def test_made_layers_have_the_pixels_of_the_whole_scene(
    make_pair: Callable[..., PairFiles], run: Any, tmp_path: Path
) -> None:
    pair = make_pair(size=(208, 176))
    stage = stage_of(pair.pan, pair.ms, methods=("gsa", "ksdiff"))
    assert stage.maker is not None
    for layer in stage.layers[2:]:
        out = tmp_path / f"{layer.about.name}.tif"
        assert run("sharpen", pair.pan, pair.ms, "-o", out, "--method", layer.about.name).exit_code == 0
        with rasterio.open(out) as dataset:
            expected = dataset.read().astype(np.float32)
        assert isinstance(layer, Made)
        found = stage.maker.submit(layer.look, [0, 1, 2, 3], Tile(0, 0, 0)).result()
        assert np.array_equal(found[:, :208, :176], expected)
        assert stage.pixel(100.5, 50.5)["values"][stage.layers.index(layer)] == expected[:, 100, 50].tolist()
        # farther out MS stands in
        assert np.array_equal(layer.look([0], Tile(2, 0, 0)), stage.layers[1].look([0], Tile(2, 0, 0)), equal_nan=True)
    stage.maker.shutdown()


def test_methods_need_pan_and_ms(tmp_path: Path) -> None:
    with pytest.raises(KsdiffError, match="needs PAN and MS"):
        stage_of(write_raster(tmp_path / "a.tif", noise(3, 40, 40)), methods=("gsa",))


def test_tour_finds_where_results_differ_and_where_it_is_flat(tmp_path: Path) -> None:
    image = np.full((3, 512, 512), 500, "uint16")
    image[:, :, 256:] = noise(3, 512, 256)
    other = image.copy()
    other[:, 300:340, 300:340] += 900
    first, second = write_raster(tmp_path / "a.tif", image), write_raster(tmp_path / "b.tif", other)
    stage = stage_of(first, second)
    spots = find_spots(stage.grid, stage.layers, None)
    differ = spots[0]
    assert "differ" in differ.why
    assert abs(differ.row - 320) <= 64 and abs(differ.col - 320) <= 64
    flat = [spot for spot in spots if "flat" in spot.why]
    assert flat and all(spot.col < 256 for spot in flat)
    assert all(spot.col > 256 for spot in spots if "edges" in spot.why)


def test_tour_measures_what_is_unexplained(make_pair: Callable[..., PairFiles], run: Any, tmp_path: Path) -> None:
    pair = make_pair(size=(384, 512))
    out = tmp_path / "out.tif"
    assert run("sharpen", pair.pan, pair.ms, "-o", out, "--method", "gsa").exit_code == 0
    with rasterio.open(out, "r+") as dataset:
        image = dataset.read()
        image[:, 128:256, 128:256] += 400  # MS does not say so
        dataset.write(image)
    with rasterio.open(pair.pan, "r+") as dataset:
        image = dataset.read()
        image[:, :128, 256:384:3] += 90  # nor any band this
        dataset.write(image)
    stage = stage_of(pair.pan, pair.ms, out)
    spots = find_spots(stage.grid, stage.layers, stage.scene, "sensor")
    places = {why: {(one.row, one.col) for one in spots if why in one.why} for why in ("MS is", "PAN is")}
    assert (192, 192) in places["MS is"] and (64, 320) in places["PAN is"]
    assert all(len(found) == 3 for found in places.values())
    assert len({(spot.row, spot.col) for spot in spots}) == len(spots)


@pytest.fixture
def page(tmp_path: Path, serve: Callable[..., str]) -> str:
    """The address of a page that shows two layers."""
    files = [
        write_raster(tmp_path / f"{name}.tif", noise(3, 600, 600, seed), crs="EPSG:32631", transform=GRID)
        for seed, name in enumerate("ab")
    ]
    return serve(stage_of(*files))


def test_server_answers_who_knows_the_token(page: str) -> None:
    status, index = get(page)
    assert status == 200 and b"viewer.js" in index
    for name in ("openlayers.js", "openlayers.css", "openlayers-LICENSE.md", "viewer.css", "maps.js", "icon.svg"):
        assert get(page + name)[0] == 200
    assert json.loads(get(page + "about")[1])["height"] == 600
    with urllib.request.urlopen(page) as answer:
        assert "default-src 'self'" in answer.headers["Content-Security-Policy"]
        assert answer.headers["Referrer-Policy"] == "no-referrer"


WRONG_REQUESTS = (
    "tile/9/0/0/0.png?bands=0,1,2&low=0,0,0&high=1,1,1",
    "tile/-1/0/0/0.png?bands=0&low=0&high=1",
    "tile/0/9/0/0.png?bands=0&low=0&high=1",
    "tile/0/-4/0/0.png?bands=0&low=0&high=1",
    "tile/0/0/99/0.png?bands=0&low=0&high=1",
    "tile/0/0/-1/0.png?bands=0&low=0&high=1",
    "tile/0/0/0/0.png",
    "tile/0/0/0/0.png?bands=0,1&low=0&high=1",
    "tile/0/0/0/0.png?bands=7&low=0&high=1",
    "tile/0/0/0/0.png?bands=0&low=nan&high=1",
    "tile/0/0/0/0.png?bands=0&low=5&high=5",
    "tile/0/0/0/0.png?bands=0,1,2&low=0&high=1",
    "tile/0/0/0/0.png?bands=0&low=0&high=1&gamma=0",
    "tile/x/0/0/0.png?bands=0&low=0&high=1",
    "tile/0/0/0/0.tif?bands=0&low=0&high=1",
    "difference/0/7/0/0/0.png?bands=0&limit=1",
    "difference/0/1/0/0/0.png?bands=0&limit=-1",
    "stretch?layer=0&bands=0&low=98&high=2",
    "stretch?layer=0&bands=0&low=2",
    "stretch?layer=0&bands=0&low=2&high=98&view=0,0,0,100000,100000",
    "pixel?row=-1&col=0",
    "pixel?row=600&col=0",
    "pixel?row=1e400&col=0",
    "pixel",
    "nothing",
    "stage.py",
    "%2e%2e/server.py",
    "..%2f..%2fetc%2fpasswd",
    "tile/..%2f..%2f/0/0/0.png",
)


def test_wrong_requests_are_4xx(page: str) -> None:
    for path in WRONG_REQUESTS:
        status, body = get(page + path)
        assert 400 <= status < 500 and b"Traceback" not in body, (path, status, body)


def test_wrong_tokens_are_refused(page: str) -> None:
    base, token = page.rstrip("/").rsplit("/", 1)
    for wrong in ("x", token[:-1], token + "x", "é", "."):
        assert get(f"{base}/{urllib.request.quote(wrong)}/about")[0] in (403, 404)
    assert get(f"{base}/")[0] == 404
    assert get(f"{base}/{token}/about")[0] == 200


def test_fifty_tiles_at_a_time_in_bounded_memory(tmp_path: Path, serve: Callable[..., str]) -> None:
    path = write_raster(
        tmp_path / "a.tif", noise(3, 1792, 1792), compress="deflate", tiled=True, blockxsize=256, blockysize=256
    )
    stage = stage_of(path, memory=0.005)
    url = serve(stage)
    places = [(0, row, col) for row in range(7) for col in range(7)] + [(3, 0, 0)]

    def ask(place: tuple[int, int, int]) -> tuple[int, bytes]:
        level, row, col = place
        return get(f"{url}tile/0/{level}/{row}/{col}.png?bands=0,1,2&low=0,0,0&high=4000,4000,4000")

    with ThreadPoolExecutor(50) as threads:
        answers = list(threads.map(ask, places))
    assert len(answers) == 50 and all(status == 200 and drawn(png).shape[:2] == (256, 256) for status, png in answers)
    layer = stage.layers[0]
    assert isinstance(layer, FileLayer) and 0 < layer.cache.size <= layer.cache.limit == 5_000_000


def test_a_second_view_takes_another_port(tmp_path: Path) -> None:
    with closing(listen("127.0.0.1", None)) as first, closing(listen("127.0.0.1", None)) as second:
        ports = {taken.getsockname()[1] for taken in (first, second)}
        assert len(ports) == 2
        with pytest.raises(KsdiffError, match="--port"):
            listen("127.0.0.1", second.getsockname()[1])
        assert address(first, "t").startswith("http://127.0.0.1:")


def test_a_view_begins_where_it_is_told(tmp_path: Path) -> None:
    stage = stage_of(write_raster(tmp_path / "a.tif", noise(3, 40, 50)))
    assert beginning((), stage) == ""
    assert beginning((3, 4.5, 4), stage) == "#at=3,4.5&zoom=4"
    with pytest.raises(KsdiffError, match="outside the scene"):
        beginning((41, 2), stage)


def test_ctrl_c_ends_it(tmp_path: Path) -> None:
    write_raster(tmp_path / "a.tif", noise(3, 40, 40))
    view_until_interrupted(["a.tif"], tmp_path)
    assert sorted(one.name for one in tmp_path.iterdir()) == ["a.tif"]  # nothing is written


def test_bad_input_is_one_line(fails: Callable[..., str], tmp_path: Path) -> None:
    path = write_raster(tmp_path / "a.tif", noise(3, 40, 40))
    assert "no such file" in fails("view", tmp_path / "none.tif")
    assert "6 at most" in fails("view", *[path] * 7)
    assert "needs PAN and MS" in fails("view", path, "--method", "gsa")
    assert "outside the scene" in fails("view", path, "--at", "99,0", "--no-browser")
    table = write_raster(tmp_path / "table.tif", noise(1, 40, 40, dtype="uint8"))
    with rasterio.open(table, "r+") as dataset:
        dataset.write_colormap(1, {1: (255, 0, 0, 255)})
    assert "colour table" in fails("view", table)


def test_wrong_usage_is_told(run: Any, tmp_path: Path) -> None:
    path = write_raster(tmp_path / "a.tif", noise(3, 40, 40))
    for arguments, words in (
        (["--method", "gsaa"], "did you mean gsa"),
        (["--at", "here"], "ROW,COL"),
        (["--checkpoint", "x"], "--method ksdiff"),
    ):
        result = run("view", path, *arguments)
        assert result.exit_code == 2 and words in result.stderr


def test_without_the_extra_one_line_says_what_to_install(
    fails: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ksdiff_cli.view.find_spec", lambda name: None)
    path = write_raster(tmp_path / "a.tif", noise(3, 40, 40))
    assert 'pip install "ksdiff[view]"' in fails("view", path)
