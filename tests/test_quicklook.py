"""The picture of PAN, MS and the result: what it shows where, at which stretch, and what it measures."""

import dataclasses
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from conftest import PairFiles, write_raster
from output_maker import write_output
from rasterio.transform import Affine

from ksdiff_cli.errors import KsdiffError
from ksdiff_cli.files.names import Inputs
from ksdiff_cli.files.writing import encode_png
from ksdiff_cli.products import make_pair as scene_of
from ksdiff_cli.raster.bands import QualityBand
from ksdiff_cli.sharpening import quicklook
from ksdiff_cli.sharpening.quicklook import check_quicklook, draw_quicklook

Array = Any
GAP, BAR = 8, 28


def draw(files: PairFiles, crop: Any = None, **scene: Any) -> Array:
    found = dataclasses.replace(scene_of(str(files.pan), [str(files.ms)]), **scene)
    out = write_output(found, files.folder / "out.tif", overwrite=True, window=crop).output
    draw_quicklook(found, out, files.folder / "look.png", crop)
    assert not list(files.folder.glob(".*"))
    return decode(files.folder / "look.png")


def decode(path: Path) -> Array:
    with warnings.catch_warnings(), rasterio.Env(GDAL_PAM_ENABLED=False):
        warnings.simplefilter("ignore")
        with rasterio.open(path) as dataset:
            return dataset.read().transpose(1, 2, 0).astype(int)


def panels(image: Array) -> list[Array]:
    width = (image.shape[1] - GAP) // 3 - GAP
    return [image[BAR:-BAR, GAP + k * (width + GAP) :][:, :width] for k in range(3)]


def bar(image: Array) -> int:
    """Length of the scale bar, pixels of the picture."""
    return int((image[-BAR // 2, GAP:] == quicklook._INK).all(-1).argmin())


def alike(first: Array, second: Array) -> float:
    return float(np.corrcoef(first.ravel(), second.ravel())[0, 1])


def test_three_panels_show_the_same_ground(make_pair: Any) -> None:
    files = make_pair(size=(300, 520), ms_profile={"descriptions": ("red", "green", "blue", "nir")})
    image = draw(files)
    pan, ms, fused = panels(image)
    assert pan.shape == ms.shape == fused.shape == (300, 520, 3)
    with rasterio.open(files.pan) as dataset:
        assert alike(pan[..., 0], dataset.read(1)) > 0.99
    assert (pan[..., 0] == pan[..., 2]).all()
    assert alike(ms, fused) > 0.97 and abs(ms.mean() - fused.mean()) < 2  # bands of one world at one stretch
    with rasterio.open(files.ms) as dataset:
        blocks = dataset.read(1).repeat(4, 0).repeat(4, 1)
    assert alike(ms[..., 0], blocks) > 0.99  # MS as it is, on PAN's pixels
    assert (image[:BAR, :100] == quicklook._INK).all(-1).any()  # a title
    assert bar(image) == pytest.approx(50 / 0.5, abs=1)  # 50 m of 260


def test_large_scenes_are_averaged(make_pair: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quicklook, "SIDE", 100)
    monkeypatch.setattr(quicklook, "_LEAST", 1)
    monkeypatch.setattr(quicklook, "_ROWS", 50)
    files = make_pair(size=(301, 518), ms_grid=Affine(2.03, 0, 593269.2, 0, -1.97, 5747658.1), ms_size=(78, 131))
    pan, ms, fused = panels(draw(files))
    assert pan.shape[:2] == (51, 87)  # six by six pixels each
    with rasterio.open(files.pan) as dataset:
        means = dataset.read(1)[:300, :516].reshape(50, 6, 86, 6).mean((1, 3))
    assert alike(pan[:50, :86, 0], means) > 0.995
    assert alike(ms, fused) > 0.95
    away = alike(ms[:, :-1], fused[:, 1:]), alike(ms[:-1], fused[1:])
    assert alike(ms, fused) > max(away)  # a shift by one pixel of the picture would show


def test_a_part_and_a_small_scene(make_pair: Any) -> None:
    files = make_pair(size=(96, 128))
    pan, _, fused = panels(draw(files, (20, 40, 50, 60)))
    assert pan.shape == (50 * 8, 60 * 8, 3)  # enlarged by whole pixels
    with rasterio.open(files.pan) as dataset:
        assert alike(pan[::8, ::8, 0], dataset.read(1)[20:70, 40:100]) > 0.99
    assert alike(fused[::8, ::8, 0], fused[7::8, 7::8, 0]) == pytest.approx(1)


def test_pixels_without_data_are_grey(make_pair: Any) -> None:
    def dig(pan: Array, ms: Array) -> None:
        pan[:, 60:100, 80:140] = 0
        ms[:, 50:, :20] = 0

    files = make_pair(size=(300, 520), edit=dig, pan_profile={"nodata": 0}, ms_profile={"nodata": 0})
    pan, ms, fused = (
        np.isin(panel, [colour[0] for colour in quicklook._EMPTY]).all(-1) for panel in panels(draw(files))
    )
    assert pan[60:100, 80:140].all() and pan[200:, :80].mean() < 0.1
    assert ms[200:, :80].all() and ms[60:100, 80:140].mean() < 0.1
    assert fused[60:100, 80:140].all() and fused[200:, :80].all()


def test_known_clouds_do_not_darken_the_ground(make_pair: Any, tmp_path: Path) -> None:
    def cover(pan: Array, ms: Array) -> None:
        pan[:, 200:] = 9000
        ms[:, 50:] = 9000

    files = make_pair(size=(300, 520), edit=cover)
    with rasterio.open(files.ms) as dataset:
        flags = (dataset.read(1) == 9000).astype("uint8")
        quality = write_raster(tmp_path / "q.tif", flags, crs=dataset.crs, transform=dataset.transform)
    dark = [panel[:190].std() for panel in panels(draw(files))]
    clear = [panel[:190].std() for panel in panels(draw(files, quality=QualityBand(str(quality), (), ((1, 1),))))]
    assert min(clear) > 40 > 10 > max(dark)


def test_the_scale_bar_knows_degrees_feet_and_nothing(make_pair: Any) -> None:
    degree = 111_195 * np.cos(np.radians(60))
    grids = {
        "EPSG:4326": (Affine(1e-5, 0, 10, 0, -1e-5, 60), Affine(4e-5, 0, 10, 0, -4e-5, 60), 50 / (1e-5 * degree)),
        "EPSG:2263": (Affine(2, 0, 9e5, 0, -2, 2e5), Affine(8, 0, 9e5, 0, -8, 2e5), 100 / 0.6096),
    }
    for number, (crs, (pan_grid, ms_grid, length)) in enumerate(grids.items()):
        files = make_pair(f"scene{number}", size=(100, 520), crs=crs, pan_grid=pan_grid, ms_grid=ms_grid)
        assert bar(draw(files)) == pytest.approx(length, abs=1)
    assert bar(draw(make_pair("nowhere", size=(100, 520), crs=None))) == 100  # PAN pixels


@pytest.mark.parametrize("bands", [1, 2])
def test_few_bands_are_grey(bands: int, make_pair: Any) -> None:
    _, ms, fused = panels(draw(make_pair(bands=bands)))
    assert (ms[..., 0] == ms[..., 2]).all() and (fused[..., 0] == fused[..., 1]).all()


def test_another_result_is_refused(make_pair: Any) -> None:
    files, other = make_pair(), make_pair("other", size=(100, 128))
    out = write_output(other, other.folder / "out.tif").output
    with pytest.raises(KsdiffError, match=r"out.tif: has 4 bands of 128 x 100 pixels, not what"):
        draw_quicklook(scene_of(str(files.pan), [str(files.ms)]), out, files.folder / "look.png")
    assert not (files.folder / "look.png").exists()


def test_places_where_no_picture_can_be(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"")
    check_quicklook(tmp_path / "b.PNG", Inputs(), False)
    for path, words in (
        (tmp_path / "a.jpg", "end in .png"),
        (tmp_path / "a.png", "exists"),
        (tmp_path / "x/a.png", "folder"),
    ):
        with pytest.raises(KsdiffError, match=words):
            check_quicklook(path, Inputs(), False)


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (200, 3), (65, 130)])
def test_png_holds_every_pixel(shape: tuple[int, int], tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    smooth = np.add.outer(np.arange(shape[0]) * 3, np.arange(shape[1]) * 2)[..., None] + [0, 100, 250]
    for image in (rng.integers(0, 256, (*shape, 3)), smooth % 256, np.zeros((*shape, 3))):
        (tmp_path / "a.png").write_bytes(encode_png(image.astype(np.uint8)))
        np.testing.assert_array_equal(decode(tmp_path / "a.png"), image)


def test_command_line(make_pair: Any, run: Any, fails: Any) -> None:
    files = make_pair()
    base = ("sharpen", files.pan, files.ms, "--method", "exp", "-q", "-o")
    whole, part = files.folder / "whole.tif", files.folder / "part.vrt"
    assert run(*base, whole, "-f", "cog").exit_code == 0
    done = run(
        *base, part, "--format", "VRT", "--bbox", "593280,5747620,593300,5747640", "--quicklook", files.folder / "q.png"
    )
    assert done.exit_code == 0, done.output
    with rasterio.open(whole) as first, rasterio.open(part) as second:
        assert first.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        np.testing.assert_array_equal(second.read(), first.read()[:, 34:74, 20:60])
        assert second.bounds == (593280, 5747620, 593300, 5747640)
    assert panels(decode(files.folder / "q.png"))[0].shape == (480, 480, 3)
    assert "--quicklook" not in fails(*base, files.folder / "n.tif", "--quicklook", files.folder / "q.png")
    assert "beyond the output" in fails(*base, files.folder / "n.tif", "--window", "90,0,20,20")
    for bad in (
        ("--window", "1,2,3"),
        ("--window", "a,0,1,1"),
        ("--bbox", "1,2,3,4", "--window", "0,0,1,1"),
        ("--bbox-crs", "x"),
    ):
        assert run(*base, files.folder / "n.tif", *bad).exit_code == 2
    assert not (files.folder / "n.tif").exists()
