from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from conftest import World, write_raster
from rasterio.enums import ColorInterp
from rasterio.transform import Affine
from rasterio.windows import Window

from ksdiff_cli.numerics.boxes import Box
from ksdiff_cli.numerics.moments import BandMoments
from ksdiff_cli.products import make_pair as scene_of
from ksdiff_cli.raster.bands import BandSource, read_band
from ksdiff_cli.raster.open import open_raster
from ksdiff_cli.raster.pair import Scene, ScenePair, open_pair
from ksdiff_cli.sensors import find_sensor

PAN = Affine(0.5, 0, 593270, 0, -0.5, 5747657)


def scene(files: Any) -> Scene:
    return scene_of(str(files.pan), [str(files.ms)])


GRIDS = {
    "shared corner": (PAN, Affine(2, 0, 593270, 0, -2, 5747657)),
    "half a PAN pixel": (Affine(0.5, 0, 593269.75, 0, -0.5, 5747657.25), Affine(2, 0, 593270, 0, -2, 5747657)),
    "non-integer ratio": (PAN, Affine(1.98, 0, 593270.3, 0, -2.03, 5747656.8)),
    "ratio 2": (PAN, Affine(1, 0, 593270, 0, -1, 5747657)),
    "south up": (Affine(0.5, 0, 593270, 0, 0.5, 5747000), Affine(2, 0, 593270, 0, 2, 5747000)),
    "opposite directions": (PAN, Affine(2, 0, 593270, 0, 2, 5747657 - 48)),
}


@pytest.mark.parametrize("name", GRIDS)
def test_rows_of_a_swath_are_those_of_the_window(name: str, make_pair: Any) -> None:
    def dig(pan: Any, ms: Any) -> None:
        ms[:, 4:9, 10:14] = 0
        pan[:, 40:45, 30:50] = 0

    pan_grid, ms_grid = GRIDS[name]
    size = (int(48 // abs(ms_grid.e)), int(64 // abs(ms_grid.a)))
    profile = {"nodata": 0}
    files = make_pair(
        pan_grid=pan_grid, ms_grid=ms_grid, ms_size=size, edit=dig, pan_profile=profile, ms_profile=profile
    )
    with open_pair(scene(files)) as pair:
        area = 13, 27, 50, 61
        tile, swath = pair.read(*area), pair.read_swath(*area)
        for start, stop in [(0, 50), (0, 1), (7, 39), (49, 50)]:
            part = swath.rows(start, stop)
            for found, whole in ((part.pan, tile.pan), (part.ms_up, tile.ms_up), (part.valid[None], tile.valid[None])):
                np.testing.assert_array_equal(found, whole[:, start:stop])


def test_who_watches_statistics_sees_every_part_once(make_pair: Any) -> None:
    files, seen = make_pair(size=(1100, 1300)), np.zeros((1100, 1300), int)

    def watch(box: Box) -> None:
        seen[box.top : box.bottom, box.left : box.right] += 1

    with open_pair(scene(files)) as pair:
        watched, plain = pair.statistics(watch=watch), pair.statistics()
    assert (watched.pan_mean, watched.pan_std) == (plain.pan_mean, plain.pan_std)
    assert (seen == 1).all()


def test_common_area_is_cut_from_both(make_pair: Any, world: World) -> None:
    files = make_pair(size=(96, 128), ms_grid=Affine(2, 0, 593280, 0, -2, 5747650), ms_size=(12, 40), dtype="float32")
    with open_pair(scene(files)) as pair:
        # MS begins 10 m (20 pixels) right of PAN and 7 m (14 pixels) below; it ends above PAN's end
        assert pair.origin[1] in range(18, 21)
        assert pair.origin[0] in range(12, 15)
        assert 48 <= pair.shape[0] <= 52
        assert pair.origin[1] + pair.shape[1] == 128
        assert any("common part" in note for note in pair.notes)
        tile = pair.read(0, 0, *pair.shape)
        truth = world.at(pair.transform, *pair.shape)
    assert np.abs(tile.pan[0] - truth).max() < 0.01
    inside = np.s_[12:-12, 12:-12]
    assert np.abs(tile.ms_up[1][inside] - truth[inside]).max() < 4  # waves of 25 DN; half a PAN pixel off gives 10


def test_without_georeference_corners_meet(make_pair: Any) -> None:
    with open_pair(scene(make_pair(crs=None))) as pair:
        assert not pair.georeferenced
        assert pair.grid.ratio == 4
        assert pair.grid.rows.to_ms(-0.5) == pytest.approx(-0.5)
        assert any("corner" in note for note in pair.notes)


def test_statistics_are_those_of_valid_pixels_of_the_common_area(make_pair: Any) -> None:
    def dig(pan: Any, ms: Any) -> None:
        pan[:, :20] = 0
        ms[2, :, :3] = 0

    files = make_pair(edit=dig, pan_profile={"nodata": 0}, ms_profile={"nodata": 0})
    with open_pair(scene(files)) as pair:
        statistics = pair.statistics()
    pan, ms = rasterio.open(files.pan).read().astype(float), rasterio.open(files.ms).read().astype(float)
    assert statistics.holes
    assert statistics.pan_mean == pytest.approx(pan[:, 20:].mean())
    assert statistics.pan_std == pytest.approx(pan[:, 20:].std())
    # a pixel counts where all bands are valid
    np.testing.assert_allclose(statistics.ms_mean, ms[:, :, 3:].mean((1, 2)))
    np.testing.assert_allclose(statistics.ms_std, ms[:, :, 3:].std((1, 2)), rtol=1e-6)


def test_statistics_leave_out_ms_beside_pan(make_pair: Any) -> None:
    def brighten(pan: Any, ms: Any) -> None:
        ms[:, 60:] = 60000

    files = make_pair(size=(96, 128), ms_size=(100, 32), edit=brighten)
    with open_pair(scene(files)) as pair:
        assert pair.statistics().ms_mean.max() < 2000


def test_moments_merge_blocks() -> None:
    values = np.random.default_rng(0).normal(1e4, 3, (2, 1000)).astype(np.float32)
    moments = BandMoments(2)
    for part in np.array_split(values, 7, axis=1):
        moments.add(part)
    moments.add(values[:, :0])
    mean, std = moments.result()
    np.testing.assert_allclose(mean, values.mean(1, dtype=float))
    np.testing.assert_allclose(std, values.std(1, dtype=float), rtol=1e-5)


def test_moments_do_not_cancel() -> None:
    values = (60000 + np.arange(200_000) % 3)[None].astype(np.uint16)
    moments = BandMoments(1)
    for part in np.array_split(values, 3, axis=1):
        moments.add(part)
    assert moments.result()[0][0] == pytest.approx(values.mean(dtype=float), rel=1e-14)
    assert moments.result()[1][0] == pytest.approx(values.std(dtype=float), rel=1e-9)


@pytest.mark.parametrize("layout", [{}, {"tiled": True, "blockxsize": 256, "blockysize": 256}])
def test_statistics_read_strips_and_tiles_once(layout: dict[str, Any], tmp_path: Path, monkeypatch: Any) -> None:
    pan = np.random.default_rng(0).integers(1, 2000, (1, 1200, 2000)).astype(np.uint16)
    ms = np.ascontiguousarray(pan[:, ::4, ::4].repeat(2, 0))
    paths = [write_raster(tmp_path / name, image, **layout) for name, image in (("pan.tif", pan), ("ms.tif", ms))]
    seen = []
    read = ScenePair.read_pan
    monkeypatch.setattr(ScenePair, "read_pan", lambda self, *area: seen.append(area) or read(self, *area))
    with open_pair(scene_of(str(paths[0]), [str(paths[1])])) as pair:
        found = pair.statistics()
    assert sum(high * wide for _, _, high, wide in seen) == pan.size
    assert max(high * wide for _, _, high, wide in seen) <= 1024 * 1024
    assert all(wide == 2000 for _, _, _, wide in seen) == (not layout)
    assert found.pan_mean == pytest.approx(pan.mean(dtype=float), rel=1e-14)
    assert found.pan_std == pytest.approx(pan.std(dtype=float), rel=1e-12)


@pytest.mark.parametrize(
    ("image", "profile", "fill"),
    [
        (np.array([[1, 0], [2, 3]], "uint16"), {"nodata": 0}, None),
        (np.array([[1, np.nan], [2, 3]], "float32"), {}, None),
        (np.array([[1, np.nan], [2, 3]], "float32"), {"nodata": np.nan}, None),
        (np.array([[1, np.inf], [2, 3]], "float64"), {}, None),
        (np.array([[1, 0], [2, 3]], "uint16"), {}, 0.0),
        (np.array([[1, 9], [2, 3]], "uint8"), {"mask": np.array([[255, 0], [255, 255]], "uint8")}, None),
        (np.array([[1, -32768], [2, 3]], "int16"), {"nodata": -32768}, None),
    ],
)
def test_invalid_pixels_are_found(image: Any, profile: dict[str, Any], fill: float | None, tmp_path: Path) -> None:
    path = write_raster(tmp_path / "a.tif", image, **profile)
    with open_raster(path) as dataset:
        values, valid = read_band(dataset, BandSource(dataset.name, 1, fill=fill), Window(0, 0, 2, 2))
    assert valid.tolist() == [[True, False], [True, True]]
    assert np.isfinite(values).all()
    assert values.dtype == np.float32


def test_alpha_masks_and_is_no_band(tmp_path: Path, make_pair: Any) -> None:
    files = make_pair()
    image = np.full((4, 24, 32), 7, "uint8")
    image[3] = 255
    image[3, 0] = 0
    path = write_raster(tmp_path / "rgba.tif", image, photometric="RGB", alpha="YES")
    found = scene_of(str(files.pan), [str(path)])
    assert [source.band for source in found.ms] == [1, 2, 3]
    with open_raster(path) as dataset:
        _, valid = read_band(dataset, BandSource(dataset.name), Window(0, 0, 32, 24))
    assert not valid[0].any()
    assert valid[1:].all()


def test_a_fourth_band_that_only_gdal_calls_alpha_is_data(tmp_path: Path, make_pair: Any) -> None:
    """GDAL calls the fourth band of every plain 8-bit file alpha: a near infrared band must not vanish, nor mask."""
    files = make_pair()
    image = np.random.default_rng(0).integers(1, 200, (4, 24, 32)).astype("uint8")
    image[3, 0] = 0
    path = write_raster(tmp_path / "rgbn.tif", image)
    with open_raster(path) as dataset:
        assert dataset.colorinterp[3].name == "alpha"
    found = scene_of(str(files.pan), [str(path)])
    assert [source.band for source in found.ms] == [1, 2, 3, 4]
    with open_raster(path) as dataset:
        _, valid = read_band(dataset, found.ms[0], Window(0, 0, 32, 24))
    assert valid.all()


@pytest.mark.parametrize(("values", "real"), [((0, 255), True), ((255,), True), ((0, 40, 255), False), ((7,), False)])
def test_alpha_of_sixteen_bits_may_say_255(values: tuple[int, ...], real: bool, tmp_path: Path, make_pair: Any) -> None:
    files = make_pair()
    image = np.full((4, 24, 32), 700, "uint16")
    image[3] = np.resize(values, 24)[:, None]
    path = write_raster(tmp_path / "rgba.tif", image, photometric="RGB")
    with rasterio.open(path, "r+") as dataset:
        dataset.colorinterp = ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha
    found = scene_of(str(files.pan), [str(path)])
    assert [source.band for source in found.ms] == ([1, 2, 3] if real else [1, 2, 3, 4])
    with open_raster(path) as dataset:
        _, valid = read_band(dataset, found.ms[0], Window(0, 0, 32, 24))
    assert (valid == (image[3] > 0 if real else True)).all()


def test_alpha_masks_files_of_any_number_of_bands(tmp_path: Path) -> None:
    """GDAL itself lets alpha mask only files of two and of four bands."""
    for bands in (1, 2, 3, 4, 8):
        image = np.full((bands + 1, 8, 8), 7, "uint16")
        image[bands] = 65535
        image[bands, 2] = 0
        path = write_raster(tmp_path / f"{bands}.tif", image)
        with rasterio.open(path, "r+") as dataset:
            colours = [ColorInterp.gray, *[ColorInterp.undefined] * (bands - 1), ColorInterp.alpha]
            dataset.colorinterp = colours
        with open_raster(path) as dataset:
            for source, masked in ((BandSource(str(path)), True), (BandSource(str(path), alpha_is_data=True), False)):
                _, valid = read_band(dataset, source, Window(0, 1, 8, 4))
                assert valid.all(1).tolist() == [True, not masked, True, True]


def test_bands_of_several_files_make_one_ms(make_pair: Any, tmp_path: Path) -> None:
    files = make_pair(bands=3)
    single = make_pair("other", bands=1)
    found = scene_of(str(files.pan), [str(files.ms), str(single.ms)])
    with open_pair(found) as pair:
        assert pair.bands == 4
        tile = pair.read(0, 0, 20, 20)
    np.testing.assert_array_equal(tile.ms_up[0], tile.ms_up[3])


def test_a_scene_names_its_own_bands(make_pair: Callable[..., Any]) -> None:
    files = make_pair()
    chosen = Scene("x", BandSource(str(files.pan)), (BandSource(str(files.ms), 3),), find_sensor(None))
    with open_pair(chosen) as pair, rasterio.open(files.ms) as ms:
        values, _ = pair.read_ms(0, 0, 24, 32)
        np.testing.assert_array_equal(values[0], ms.read(3))
