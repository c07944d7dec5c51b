"""Sentinel-2 products as people name them: what is read of their metadata, and what comes out."""

import json
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import sentinel2_maker as maker
from rasterio.transform import Affine

from ksdiff_cli.errors import KsdiffError
from ksdiff_cli.products import find_scene, find_scenes
from ksdiff_cli.raster.synthesis import GuidedScene

ALL = maker.NUMBERS
PLAIN = ("--method", "mtf-glp-fs", "--no-registration-check")


def found(product: Path) -> GuidedScene:
    scene = find_scene([str(product)])
    assert isinstance(scene, GuidedScene)
    return scene


def test_level_1c_comes_out_at_10_m_with_all_that_is_known(tmp_path: Path, run: Any) -> None:
    product, out = maker.safe(tmp_path), tmp_path / "out.tif"
    result = run("sharpen", product, "-o", out, *PLAIN)
    assert result.exit_code == 0, result.stderr
    assert "Explained by the finer bands (R²): B05 0.9" in result.stderr
    assert "B10: the finer bands explain" in result.stderr  # which shows other ground
    with rasterio.open(out) as file:
        assert file.descriptions == ALL and file.shape == (120, 120) and file.res == (10, 10)
        assert set(file.dtypes) == {"uint16"} and file.crs == maker.CRS
        assert file.scales == (1e-4,) * 13 and file.offsets == pytest.approx((-0.1,) * 13)
        assert file.tags(5, ns="IMAGERY") == {"CENTRAL_WAVELENGTH_UM": "0.82", "FWHM_UM": "0.04"}
        values = file.read()
    for band in maker.BANDS[10]:
        assert np.array_equal(values[ALL.index(band)], maker.image(band, 120, 10, 1000))
    for band in ("B05", "B12"):
        truth = maker.image(band, 120, 10, 1000).astype(float)
        coarse = maker.image(band, 60, 20, 1000).repeat(2, 0).repeat(2, 1)
        away, before = (np.abs(each - truth)[8:-8, 8:-8].mean() for each in (values[ALL.index(band)], coarse))
        assert away < 0.7 * before


def test_before_baseline_04_there_is_no_offset(tmp_path: Path) -> None:
    scene = found(maker.safe(tmp_path, offset=None))
    assert {source.offset for source in scene.sources()} == {0.0}
    assert {source.scale for source in scene.sources()} == {1e-4}
    assert [group.name for group in scene.groups] == ["20m", "60m"] and scene.with_guide


def test_level_2a_has_no_band_10_and_its_classes_tell_what_holds_no_data(tmp_path: Path, run: Any) -> None:
    product, out = maker.safe(tmp_path, "L2A"), tmp_path / "out.tif"
    scene = found(product)
    assert scene.groups[0].quality is not None and scene.groups[0].quality.path.endswith("_SCL_20m.jp2")
    assert scene.groups[0].quality.cloud and scene.groups[0].quality.fill == ((255, 0),)
    classes = np.full((60, 60), 5, "uint8")
    classes[40:50, 20:30] = 0
    place = next(product.glob("GRANULE/*/IMG_DATA/R20m"))
    maker.write_jp2(next(place.glob("*SCL*")), classes, 20)
    result = run("sharpen", product, "-o", out, *PLAIN, "--groups", "20m")
    assert result.exit_code == 0, result.stderr
    with rasterio.open(out) as file:
        assert file.descriptions == ("B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B11", "B12")
        values = file.read()
    empty = np.zeros((120, 120), bool)
    empty[80:100, 40:60] = True
    assert ((values == 0) == empty).all() and file.nodata == 0


def test_clouds_of_level_1c_lie_on_every_grid(tmp_path: Path) -> None:
    from ksdiff_cli.raster.guide import Mix
    from ksdiff_cli.raster.pair import open_pair

    scene = found(maker.safe(tmp_path))
    for group in scene.groups:
        with open_pair(scene.pair(group, Mix(scene.guide, (0.25,) * 4))) as pair:
            height, width = pair.ms_shape
            cloudy = pair.read_cloud(0, 0, height, width)
        assert cloudy[: height // 4, : width // 4].all() and cloudy.mean() == pytest.approx(1 / 16)


def test_zips_folders_above_and_metadata_files_are_the_same_scene(tmp_path: Path, run: Any) -> None:
    product = maker.safe(tmp_path / "a")
    archive = tmp_path / "product.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for path in product.rglob("*"):
            file.write(path, path.relative_to(product.parent))
    names = [product, tmp_path / "a", product / "MTD_MSIL1C.xml", archive]
    scenes = [found(name) for name in names]
    assert len({scene.name.rpartition("/")[2] for scene in scenes}) == 1
    assert all([source.name for source in scene.sources()] == [*maker.BANDS[10], *maker.BANDS[20], *maker.BANDS[60]]
               for scene in scenes)  # fmt: skip
    outs = [tmp_path / f"{number}.tif" for number in (0, 3)]
    for out, number in zip(outs, (0, 3), strict=True):
        assert run("sharpen", names[number], "-o", out, *PLAIN, "-b", "B05,B11").exit_code == 0
    with rasterio.open(outs[0]) as first, rasterio.open(outs[1]) as second:
        assert np.array_equal(first.read(), second.read())


def test_info_shows_the_groups(tmp_path: Path, run: Any) -> None:
    product = maker.safe(tmp_path)
    facts = json.loads(run("info", product, "--json").stdout)["scenes"][0]
    assert [(group["name"], group["pixel_size"], len(group["bands"])) for group in facts["groups"]] == [
        ("guide", [10, 10], 4),
        ("20m", [20, 20], 6),
        ("60m", [60, 60], 3),
    ]
    band = facts["groups"][1]["bands"][0]
    assert (band["name"], band["mtf"], band["wavelengths_nm"], band["offset"]) == ("B05", 0.365, [800, 840], -0.1)
    text = run("info", product).stdout
    assert "B05, 800 to 840 nm, MTF 0.365, scale 0.0001, offset -0.1, nodata 0" in text


def test_a_product_that_lacks_something_says_what(tmp_path: Path, fails: Any) -> None:
    for number, band in enumerate(("B08", "B02")):
        product = maker.safe(tmp_path / str(number), size=60, without=(band,))
        assert f"the image of {band} at 10 m is missing" in fails("sharpen", product, "-o", tmp_path / "x.tif")
    fine = maker.safe(tmp_path / "fine", size=60, without=(*maker.BANDS[20], *maker.BANDS[60]))
    assert "holds no bands of 20 or 60 m" in fails("info", fine)
    some = found(maker.safe(tmp_path / "some", size=60, without=("B05", "B09")))
    assert [group.sensor.bands for group in some.groups] == [maker.BANDS[20][1:], ("B01", "B10")]
    cut = maker.safe(tmp_path / "cut", size=60)
    metadata = cut / "MTD_MSIL1C.xml"
    metadata.write_text(metadata.read_text()[:-40])
    assert "is not whole XML" in fails("info", cut)
    kept = metadata.rename(tmp_path / "kept.xml")
    assert "MTD_MSIL1C.xml or MTD_MSIL2A.xml, is missing; fetch" in fails("info", cut)
    kept.rename(metadata)
    metadata.write_text("<a/>")  # nothing in it that is needed
    assert found(cut).guide[0].scale == 1e-4


def test_two_granules_are_refused(tmp_path: Path) -> None:
    product = maker.safe(tmp_path, size=60)
    (granule,) = (product / "GRANULE").iterdir()
    shutil.copytree(granule, granule.with_name("L1C_T33UVB_A036187_20220527T102521"))
    with pytest.raises(KsdiffError, match="holds 2 granules"):
        find_scenes(product)


def test_patches_are_not_cut_of_what_has_no_pan(tmp_path: Path, fails: Any) -> None:
    product = maker.safe(tmp_path, size=60)
    assert "has no PAN" in fails("prepare-data", product, "-o", tmp_path / "patches")


def test_many_products_in_one_batch(tmp_path: Path, run: Any) -> None:
    for name in ("one", "two"):
        maker.safe(tmp_path / "scenes" / name, size=60)
    result = run("sharpen", "--batch", tmp_path / "scenes", "-o", tmp_path / "out", *PLAIN, "-b", "B05,B8A")
    assert result.exit_code == 0, result.stderr
    outs = sorted((tmp_path / "out").glob("*.tif"))
    assert len(outs) == 2
    with rasterio.open(outs[0]) as file:
        assert file.descriptions == ("B05", "B8A")


def test_reflectance_of_all_bands_is_what_their_offset_and_scale_say(tmp_path: Path, run: Any) -> None:
    product = maker.safe(tmp_path)
    for name, units in (("dn.tif", "dn"), ("rho.tif", "reflectance")):
        result = run("sharpen", product, "-o", tmp_path / name, *PLAIN, "--groups", "20m", "--units", units, "-q")
        assert result.exit_code == 0, result.stderr
    with rasterio.open(tmp_path / "dn.tif") as dn, rasterio.open(tmp_path / "rho.tif") as rho:
        assert set(rho.dtypes) == {"float32"} and set(rho.scales) == {1.0} and set(rho.offsets) == {0.0}
        np.testing.assert_allclose(rho.read(), (dn.read() - 1000.0) / 10000, atol=0.6e-4)  # DN were rounded


# --- JPEG 2000 is decoded once ----------------------------------------------------------------------------------------


def test_decoded_bands_give_the_same_bytes_and_are_read_in_place_of_the_product(
    tmp_path: Path, run: Any, monkeypatch: Any
) -> None:
    from contextlib import nullcontext

    from ksdiff_cli.raster import pair
    from ksdiff_cli.sharpening import decoded, workflow

    product, outs = maker.safe(tmp_path, "L2A", size=72), [tmp_path / "once.tif", tmp_path / "often.tif"]
    opened, kept = [], decoded._decode

    def note(path: Any) -> Any:
        opened.append(str(path))
        return open_raster(path)

    def decode(*given: Any) -> Any:
        opened.clear()  # before that, the product's own files are looked at
        return kept(*given)

    open_raster = pair.open_raster
    monkeypatch.setattr(pair, "open_raster", note)
    monkeypatch.setattr(decoded, "_decode", decode)
    assert run("sharpen", product, "-o", outs[0], *PLAIN).exit_code == 0
    assert opened and all(".once.tif.decoded" in path for path in opened)
    assert not list(tmp_path.glob(".once*"))
    monkeypatch.setattr(workflow, "decode_once", lambda scene, *_: nullcontext(scene))
    assert run("sharpen", product, "-o", outs[1], *PLAIN).exit_code == 0
    assert opened[-1].endswith(".jp2") and outs[0].read_bytes() == outs[1].read_bytes()


def test_a_copy_says_the_same_as_its_file(tmp_path: Path) -> None:
    from ksdiff_cli.sharpening.decoded import _copy, _size

    path, copy = tmp_path / "B05.jp2", tmp_path / "copy.tif"
    values = maker.image("B05", 130, 20)
    place = Affine(20, 0, maker.EAST, 0, -20, maker.NORTH)
    with rasterio.open(
        path, "w", driver="JP2OpenJPEG", count=1, height=130, width=130, dtype="uint16", crs=maker.CRS, transform=place,
        nodata=0, QUALITY="100", REVERSIBLE="YES", NBITS="15",
    ) as file:  # fmt: skip
        file.write(values, 1)
        file.update_tags(CLOUDS="few")
    _copy(str(path), copy, _size(str(path)), "")
    with rasterio.open(path) as one, rasterio.open(copy) as other:
        for name in ("shape", "transform", "crs", "nodata", "dtypes", "descriptions", "scales", "offsets", "units",
                     "colorinterp", "mask_flag_enums"):  # fmt: skip
            assert getattr(one, name) == getattr(other, name), name
        assert one.tags() | {"AREA_OR_POINT": "Area"} == other.tags()  # which GeoTIFF adds
        assert np.array_equal(one.read(), other.read()) and np.array_equal(other.read(1), values)
        assert other.compression is None and "NBITS" not in other.tags(1, ns="IMAGE_STRUCTURE")


def test_an_interrupted_run_takes_up_the_decoded_bands(tmp_path: Path, run: Any, monkeypatch: Any) -> None:
    from ksdiff_cli.sharpening import decoded, engine
    from ksdiff_cli.sharpening.job import Job

    monkeypatch.setattr(engine, "QUICK", 0)
    product, out, made = maker.safe(tmp_path, size=120), tmp_path / "out.tif", []
    given = ["sharpen", product, *PLAIN, "--tile", "64", "-o"]
    assert run(*given, tmp_path / "straight.tif").exit_code == 0
    store, copy = Job.store, decoded._copy

    def stop(job: Any, number: int, values: Any) -> None:
        if number == 2:
            raise KeyboardInterrupt
        store(job, number, values)

    monkeypatch.setattr(Job, "store", stop)
    assert run(*given, out).exit_code != 0 and len(list(tmp_path.glob(".out.tif.decoded/*.tif"))) == 15
    monkeypatch.setattr(Job, "store", store)
    next(tmp_path.glob(".out.tif.decoded/004*")).unlink()
    monkeypatch.setattr(decoded, "_copy", lambda path, *rest: (made.append(path), copy(path, *rest)))
    result = run(*given, out)
    assert "of them kept from an interrupted run" in result.stderr
    assert [Path(path).stem[-3:] for path in made] == ["B05"] and not list(tmp_path.glob(".out*"))
    assert out.read_bytes() == (tmp_path / "straight.tif").read_bytes()


def test_decoding_needs_room_and_whole_files(tmp_path: Path, fails: Any, monkeypatch: Any) -> None:
    product, out = maker.safe(tmp_path / "scene", size=120), tmp_path / "out.tif"
    usage = shutil.disk_usage(tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
        assert "the decoded bands take 0.00 GB until the output is made" in fails("sharpen", product, "-o", out, *PLAIN)
    path = next(product.rglob("*_B04.jp2"))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert f"{path}: cannot be read" in fails("sharpen", product, "-o", out, *PLAIN)
    assert not list(tmp_path.glob(".out*")) and not out.exists()


def test_a_product_is_measured_band_by_band_in_any_units(tmp_path: Path, run: Any) -> None:
    product, found = maker.safe(tmp_path, size=240, without=("B10",)), {}
    for name, units in (("dn.tif", "dn"), ("rho.tif", "reflectance")):
        out = tmp_path / name
        assert run("sharpen", product, "-o", out, *PLAIN, "--units", units, "-q").exit_code == 0
        result = run("metrics", out, "--guide", product, "--json")
        assert result.exit_code == 0, (result.stderr, result.exception)
        found[units] = json.loads(result.stdout)
    assert list(found["dn"]["by_band"]) == ["B01", "B05", "B06", "B07", "B8A", "B09", "B11", "B12"]
    assert found["dn"]["sensor"] == "S2" and found["dn"]["by_band"]["B09"]["ratio"] == 6
    for figure in ("R_Q2n", "R_ERGAS", "D_rho"):
        assert found["dn"][figure] == pytest.approx(found["reflectance"][figure], rel=0.02), figure
    assert found["dn"]["R_Q2n"] > 0.9 and found["dn"]["R_ERGAS"] < 2
