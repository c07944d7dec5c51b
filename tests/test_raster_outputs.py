"""Formats of the output and parts of it: COG, tiles with a VRT, windows, statistics; rasterio is the oracle."""

import os
import re
import shutil
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import rasterio
from conftest import PairFiles, largest_file, read, write_raster
from output_maker import SUFFIX, TAGS, write_output
from rasterio.control import GroundControlPoint
from rasterio.enums import ColorInterp
from rasterio.rpc import RPC
from rasterio.transform import Affine
from rasterio.warp import transform_bounds

from ksdiff_cli.checks import Format
from ksdiff_cli.errors import KsdiffError
from ksdiff_cli.files.names import Inputs
from ksdiff_cli.output import creation
from ksdiff_cli.output.pixels import PixelFormat, choose_format
from ksdiff_cli.output.statistics import BandStatistics
from ksdiff_cli.output.vrt import write_vrt
from ksdiff_cli.output.writer import check_output, space_needed
from ksdiff_cli.products import make_pair as scene_of
from ksdiff_cli.raster.crop import crop_to
from ksdiff_cli.raster.pair import open_pair

Array = Any
FORMATS: tuple[Format, ...] = get_args(Format)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def rich(make_pair: Any) -> PairFiles:
    """A pair with all the metadata there is and a hole, larger than a COG's block."""

    def dig(pan: Array, ms: Array) -> None:
        pan[:, 100:180, 200:270] = 0

    ms_profile = {
        "nodata": 0,
        "descriptions": ("near infrared", "red", "green"),
        "tags": {"ACQUIRED": "2020-05-01", "NOTE": "<&>"},
    }
    files = make_pair(
        bands=3,
        size=(520, 600),
        edit=dig,
        pan_profile={"nodata": 0, "tags": {"AREA_OR_POINT": "Point"}},
        ms_profile=ms_profile,
    )
    with rasterio.open(files.ms, "r+") as ms:
        ms.colorinterp = ColorInterp.undefined, ColorInterp.red, ColorInterp.green
        ms.scales, ms.offsets, ms.units = (0.1,) * 3, (-3.0,) * 3, ("mW",) * 3
        ms.update_tags(2, WAVELENGTH="650")
    one = [1.0] * 20
    with rasterio.open(files.pan, "r+") as pan:
        pan.rpcs = RPC(1, 1, 1, 1, one, one, 48, 48, 1, 1, one, one, 64.5, 64, None, None)
    return files


@pytest.mark.parametrize("window", [None, (7, 11, 300, 530)])
@pytest.mark.parametrize("format", FORMATS)
def test_every_format_holds_the_same_pixels_and_metadata(
    format: Format, window: Any, rich: PairFiles, tmp_path: Path
) -> None:
    whole = read(write_output(rich, tmp_path / "whole.tif").output)
    path = write_output(rich, tmp_path / f"out{SUFFIX[format]}", format, window=window).output
    row, col, height, width = window or (0, 0, 520, 600)
    with rasterio.open(path) as out, rasterio.open(rich.pan) as pan:
        image = out.read()
        np.testing.assert_array_equal(image, whole[:, row : row + height, col : col + width])
        assert out.transform.almost_equals(pan.transform @ Affine.translation(col, row))
        assert (out.crs, out.nodata, out.count) == (pan.crs, 0, 3)
        assert out.descriptions == ("near infrared", "red", "green")
        assert out.colorinterp == (ColorInterp.undefined, ColorInterp.red, ColorInterp.green)
        assert (out.scales, out.offsets, out.units) == ((0.1,) * 3, (-3.0,) * 3, ("mW",) * 3)
        expected = {**TAGS, "KSDIFF_LATE": "yes", "ACQUIRED": "2020-05-01", "NOTE": "<&>", "AREA_OR_POINT": "Point"}
        assert expected.items() <= out.tags().items()
        assert out.tags(2)["WAVELENGTH"] == "650"
        assert out.rpcs.to_dict() == pan.rpcs.to_dict() | {"line_off": 48 - row, "samp_off": 64.5 - col}
        for band in (1, 2, 3):
            values = image[band - 1][image[band - 1] != 0].astype(float)
            tags = out.tags(band)
            found = [float(tags[f"STATISTICS_{name}"]) for name in ("MINIMUM", "MAXIMUM", "MEAN", "STDDEV")]
            np.testing.assert_allclose(found, [values.min(), values.max(), values.mean(), values.std()], rtol=1e-12)
            assert tags["STATISTICS_VALID_PERCENT"] == f"{100 * values.size / image[0].size:.4g}"


@pytest.mark.parametrize("format", FORMATS)
def test_gcps_are_kept_in_every_format(format: Format, make_pair: Any, tmp_path: Path) -> None:
    files = make_pair(crs=None, pan_profile={"tags": {"AREA_OR_POINT": "Point"}}, size=(560, 560))
    points = [GroundControlPoint(row + 0.5, col, 5 + col, 40 - row, 0) for row, col in ((0, 0), (0, 90), (90, 5))]
    with rasterio.open(files.pan, "r+") as pan:
        pan.gcps = points, rasterio.crs.CRS.from_epsg(4326)
    made = write_output(files, tmp_path / f"out{SUFFIX[format]}", format, window=(20, 30, 540, 520))
    with rasterio.open(made.output) as out, rasterio.open(files.pan) as pan:
        kept, crs = out.gcps
        assert crs.to_epsg() == 4326
        assert out.transform == Affine.identity()
        moved = [(p.row - 20, p.col - 30, p.x, p.y) for p in pan.gcps[0]]
        assert [(p.row, p.col, p.x, p.y) for p in kept] == moved


# ---- GeoTIFF


@pytest.mark.parametrize("format", FORMATS)
def test_threads_do_not_change_the_bytes(format: Format, make_pair: Any, tmp_path: Path) -> None:
    files = make_pair(size=(600, 560), bands=3)
    found = set()
    for threads in (1, 1, 3):
        path = tmp_path / str(threads) / f"out{SUFFIX[format]}"
        path.parent.mkdir(exist_ok=True)
        with rasterio.Env(GDAL_NUM_THREADS=threads, GDAL_CACHEMAX=64 << 20):
            write_output(files, path, format, overwrite=True, tile=256)
        found.add(tuple(file.read_bytes() for file in sorted(path.parent.rglob("*")) if file.is_file()))
    assert len(found) == 1


def test_the_bytes_do_not_depend_on_the_seed_of_hashes(rich: PairFiles, tmp_path: Path) -> None:
    script = (
        "import sys; sys.path[:0] = sys.argv[1:3]\n"
        "from pathlib import Path; from output_maker import write_output; from conftest import PairFiles\n"
        "folder = Path(sys.argv[3]); files = PairFiles(folder, folder / 'pan.tif', folder / 'ms.tif')\n"
        "write_output(files, Path(sys.argv[4]))\n"
    )
    here = Path(__file__).parent
    outputs = [tmp_path / "a.tif", tmp_path / "b.tif"]
    for seed, output in enumerate(outputs):
        arguments = [sys.executable, "-W", "ignore", "-c", script, here, here.parent, rich.folder, output]
        subprocess.run(list(map(str, arguments)), env={**os.environ, "PYTHONHASHSEED": str(seed)}, check=True)
    assert outputs[0].read_bytes() == outputs[1].read_bytes()


def test_without_zstd_it_is_deflate(make_pair: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert creation.default_codec() in {"ZSTD", "DEFLATE"}
    monkeypatch.setattr(creation, "default_codec", lambda: "DEFLATE")
    files = make_pair()
    for format in ("GTiff", "COG"):
        with rasterio.open(write_output(files, tmp_path / f"{format}.tif", format).output) as out:
            assert out.compression.name == "deflate"


def test_the_probe_sees_a_gdal_without_zstd(monkeypatch: pytest.MonkeyPatch) -> None:
    opened = rasterio.io.MemoryFile.open

    def without(self: Any, **profile: Any) -> Any:
        profile["COMPRESS"] = "NOSUCHCODEC"
        return opened(self, **profile)

    creation.default_codec.cache_clear()
    monkeypatch.setattr(rasterio.io.MemoryFile, "open", without)
    try:
        assert creation.default_codec() == "DEFLATE"
    finally:
        creation.default_codec.cache_clear()


# ---- values


HALVES = [-70000.0, -1.5, -0.5, 0.5, 1.5, 2.5, 254.5, 255.5, 65534.5, 65535.5, 1e9, 1e20]


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64"])
def test_halves_go_to_the_even_neighbour_and_the_rest_is_clipped(dtype: str) -> None:
    values = np.array(HALVES, np.float32)
    stored = PixelFormat(np.dtype(dtype), None).encode(values[None, None], np.ones((1, 12), bool))[0, 0]
    info = np.iinfo(dtype)
    for value, found in zip(values.tolist(), stored.tolist(), strict=True):
        exact = min(max(round(value), info.min), info.max)
        assert found == exact or (info.bits == 64 and abs(found - exact) < 2**11)


def test_infinities_are_clipped_and_what_is_no_number_becomes_nodata() -> None:
    values = np.array([[[-np.inf, np.nan, np.inf, 7.4]]], np.float32)
    valid = np.array([[True, False, True, True]])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert PixelFormat(np.dtype("uint16"), 9.0).encode(values, valid).ravel().tolist() == [0, 9, 65535, 7]
        assert PixelFormat(np.dtype("int16"), None).encode(values, valid).ravel().tolist() == [-32768, 0, 32767, 7]
        stored = PixelFormat(np.dtype("float64"), np.nan).encode(np.array([[[1.1, 5.0]]]), np.array([[True, False]]))
    assert stored[0, 0, 0] == 1.1 and np.isnan(stored[0, 0, 1])


# ---- statistics


@pytest.mark.parametrize(
    ("dtype", "nodata"),
    [("uint8", 0), ("uint16", None), ("int16", -3), ("int32", 5), ("float32", np.nan), ("float64", -9999.0)],
)
def test_statistics_are_those_of_gdal(dtype: str, nodata: float | None, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    image = rng.normal(40, 25, (2, 300, 700)).clip(0 if dtype.startswith("u") else -500, 250).astype(dtype)
    if nodata is not None:
        image[:, 20:80, 300:] = nodata
    found = BandStatistics(2, np.dtype(dtype), nodata)
    parts = [BandStatistics(2, np.dtype(dtype), nodata) for _ in range(3)]
    for number, row in enumerate(range(0, 300, 50)):
        found.add(image[:, row : row + 50])
        parts[number % 3].add(image[:, row : row + 50])
    for part in parts[1:]:
        parts[0].merge(part)
    path = write_raster(tmp_path / "a.tif", image, nodata=nodata)
    with rasterio.open(path, "r+") as dataset:
        dataset.update_stats(approx=False)
        for band in (1, 2):
            oracle = {k: float(v) for k, v in dataset.tags(band).items() if k.startswith("STATISTICS_")}
            assert len(oracle) == 5
            for own in (found, parts[0]):
                assert {k: float(v) for k, v in own.tags(band).items()} == pytest.approx(oracle, rel=1e-12)
    if np.dtype(dtype).itemsize < 4:
        assert found.tags(1) == parts[0].tags(1)  # to the last digit


def test_statistics_of_nothing() -> None:
    empty = BandStatistics(1, np.dtype("uint16"), 0)
    empty.add(np.zeros((1, 5, 5), np.uint16))
    assert empty.tags(1) == {"STATISTICS_VALID_PERCENT": "0"}
    nothing = BandStatistics(1, np.dtype("float32"), np.nan)
    nothing.add(np.full((1, 5, 5), np.nan, np.float32))
    assert nothing.tags(1) == {"STATISTICS_VALID_PERCENT": "0"}


# ---- COG


def test_a_cog_is_one(rich: PairFiles, tmp_path: Path) -> None:
    path = write_output(rich, tmp_path / "out.tif", "COG").output
    with rasterio.open(path) as out:
        assert out.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert out.overviews(1) == [2]
        assert out.block_shapes[0] == (512, 512)
        image = out.read(2).astype(float)
        small = out.read(2, out_shape=(260, 300))
        over = int(out.get_tag_item("BLOCK_OFFSET_0_0", "TIFF", 1, ovr=0))
        full = int(out.get_tag_item("BLOCK_OFFSET_0_0", "TIFF", 1))
    assert over < full  # overviews lie before the full resolution
    with rasterio.open(path, overview_level=0) as half:
        np.testing.assert_array_equal(half.read(2), small)
    quads = image.reshape(260, 2, 300, 2)
    whole = (quads > 0).all((1, 3))
    assert np.abs(small - quads.mean((1, 3)))[whole].max() <= 0.51  # averages
    assert names(tmp_path) == ["out.tif", "scene"]


def test_cog_takes_creation_options_and_refuses_bad_ones(make_pair: Any, tmp_path: Path) -> None:
    files = make_pair(size=(300, 280))
    path = write_output(files, tmp_path / "a.tif", "COG", creation={"blocksize": "128", "compress": "LZW"}).output
    with rasterio.open(path) as out:
        assert out.compression.name == "lzw"
        assert out.block_shapes[0] == (128, 128)
        assert out.overviews(1) == [2, 4]
    for wrong in ({"COMPRESS": "FOO"}, {"COLOUR": "RED"}, {"BLOCKSIZE": "17"}):
        with pytest.raises(KsdiffError) as caught:
            write_output(files, tmp_path / "b.tif", "COG", creation=wrong)
        assert "\n" not in str(caught.value)
    assert names(tmp_path) == ["a.tif", "scene"]


# ---- VRT


def test_tiles_can_be_moved_and_are_rasters_of_their_own(rich: PairFiles, tmp_path: Path) -> None:
    whole = write_output(rich, tmp_path / "whole.tif")
    write_output(rich, tmp_path / "out.vrt", "VRT", window=(5, 9, 500, 560))
    (tmp_path / "elsewhere").mkdir()
    for name in ("out.vrt", "out_tiles"):
        shutil.move(tmp_path / name, tmp_path / "elsewhere" / name)
    folder = tmp_path / "elsewhere"
    assert names(folder / "out_tiles") == [f"r{row:06d}_c{col:06d}.tif" for row in (0, 256) for col in (0, 256, 512)]
    with rasterio.open(whole.output) as dataset:
        image = dataset.read()[:, 5:505, 9:569]
    np.testing.assert_array_equal(read(folder / "out.vrt"), image)
    with rasterio.open(folder / "out_tiles" / "r000256_c000512.tif") as tile, rasterio.open(rich.pan) as pan:
        np.testing.assert_array_equal(tile.read(), image[:, 256:, 512:])
        assert tile.transform.almost_equals(pan.transform @ Affine.translation(9 + 512, 5 + 256))
        assert tile.rpcs.samp_off == 64.5 - 9 - 512
        assert float(tile.tags(1)["STATISTICS_MAXIMUM"]) == image[0, 256:, 512:].max()


def test_overwriting_a_vrt_replaces_its_tiles_and_nothing_else(make_pair: Any, tmp_path: Path) -> None:
    files = make_pair(size=(300, 600))
    small = make_pair("small", size=(100, 120))
    out = tmp_path / "out.vrt"
    write_output(files, out, "VRT")
    assert len(names(tmp_path / "out_tiles")) == 6
    with pytest.raises(KsdiffError, match="exists already"):
        write_output(small, out, "VRT")
    out.unlink()
    with pytest.raises(KsdiffError, match="out_tiles: exists already"):
        write_output(small, out, "VRT")
    write_output(small, out, "VRT", overwrite=True)
    assert names(tmp_path / "out_tiles") == ["r000000_c000000.tif"]
    assert read(out).shape == (4, 100, 120)
    (tmp_path / "out_tiles" / "mine.txt").write_text("keep")
    with pytest.raises(KsdiffError, match="more than the tiles"):
        write_output(small, out, "VRT", overwrite=True)
    assert names(tmp_path) == ["out.vrt", "out_tiles", "scene", "small"]


def test_tiles_never_replace_an_input(make_pair: Any, tmp_path: Path) -> None:
    files = make_pair()
    (tmp_path / "out_tiles").mkdir()
    pan = tmp_path / "out_tiles" / "r000000_c000000.tif"
    shutil.move(files.pan, pan)
    with pytest.raises(KsdiffError, match="holds an input"):
        check_output(tmp_path / "out.vrt", Inputs([pan, files.ms]), True, "VRT")


@pytest.mark.parametrize("nodata", [None, 0, np.nan])
def test_a_mosaic_of_many_files(nodata: float | None, tmp_path: Path) -> None:
    dtype = "float32" if nodata is not None and np.isnan(nodata) else "uint16"
    rng, whole = np.random.default_rng(0), np.zeros((2, 90, 110), dtype)
    if nodata is not None:
        whole[...] = nodata
    files, at = [], Affine(0.5, 0, 700, 0, -0.5, 900)
    for number, (row, col) in enumerate([(40, 60), (0, 0), (30, 20)]):  # the last overlaps the others
        image = rng.integers(1, 900, (2, 50, 50)).astype(dtype)
        if nodata is not None:
            image[:, :25, :9] = nodata
        place = whole[:, row : row + 50, col : col + 50]
        holes = np.isnan(image) if dtype == "float32" else image == nodata
        place[...] = np.where(holes, place, image) if nodata is not None else image
        profile = {"crs": "EPSG:32631", "transform": at @ Affine.translation(col, row), "nodata": nodata}
        tags = {"SAME": "yes", "KSDIFF_METHOD": "x", "OWN": str(number), "TIFFTAG_SOFTWARE": "k"}
        name = tmp_path / f"part {number} & co" / "out.tif"
        files.append(write_raster(name, image, descriptions=("red & <b>", "nir"), tags=tags, **profile))
    mosaic = tmp_path / "all" / "mosaic.vrt"
    mosaic.parent.mkdir()
    write_vrt(mosaic, files)
    with rasterio.open(mosaic) as out:
        np.testing.assert_array_equal(out.read(), whole)
        assert out.transform.almost_equals(at)
        assert out.crs.to_epsg() == 32631
        assert out.descriptions == ("red & <b>", "nir")
        assert out.tags()["SAME"] == "yes" and "OWN" not in out.tags()
    assert 'relativeToVRT="1">../part 0 &amp; co/out.tif' in mosaic.read_text()
    assert str(tmp_path) not in mosaic.read_text()


def test_mosaics_of_files_that_do_not_fit(tmp_path: Path) -> None:
    at, image = Affine(0.5, 0, 700, 0, -0.5, 900), np.ones((1, 8, 8), "uint8")

    def make(name: str, transform: Affine | None = at, **more: Any) -> Path:
        place = {"crs": "EPSG:32631"} | ({"transform": transform} if transform else {})
        return write_raster(tmp_path / f"{name}.tif", image.astype(more.pop("dtype", "uint8")), **place | more)

    good = make("good")
    bad = {
        "between pixels": make("between", at @ Affine.translation(3.4, 0)),
        "larger pixels": make("larger", at @ Affine.scale(1.1)),
        "another CRS": make("crs", crs="EPSG:32632"),
        "another type": make("type", dtype="uint16"),
        "another nodata": make("nodata", nodata=0),
        "nowhere": make("nowhere", None),
    }
    for what, path in bad.items():
        with pytest.raises(KsdiffError) as caught:
            write_vrt(tmp_path / "out.vrt", [good, path])
        assert str(path) in str(caught.value), what
    with pytest.raises(KsdiffError, match="no file"):
        write_vrt(tmp_path / "out.vrt", [])
    assert not list(tmp_path.glob("*.vrt")) and not list(tmp_path.glob(".*"))


# ---- failures


@pytest.mark.parametrize("format", ["COG", "VRT"])
@pytest.mark.parametrize("error", [RuntimeError("no memory"), KeyboardInterrupt(), KsdiffError("bad"), OSError("io")])
def test_failures_leave_what_was_there(
    format: Format, error: BaseException, make_pair: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files, out = make_pair(size=(600, 300)), tmp_path / f"out{SUFFIX[format]}"
    write_output(files, out, format)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    calls, encode = [0], PixelFormat.encode

    def fail(self: PixelFormat, values: Array, valid: Array) -> Array:
        calls[0] += 1
        if calls[0] > 1:
            raise error
        return encode(self, values, valid)

    monkeypatch.setattr(PixelFormat, "encode", fail)
    with pytest.raises(KsdiffError if isinstance(error, OSError) else type(error)):
        write_output(files, out, format, overwrite=True)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("format", ["COG", "VRT"])
@pytest.mark.parametrize("share", [0.15, 0.6, 0.999])
def test_a_full_disk_is_noticed_in_every_format(share: float, format: Format, make_pair: Any, tmp_path: Path) -> None:
    files = make_pair(size=(700, 720))
    whole = write_output(files, tmp_path / f"whole{SUFFIX[format]}", format, tile=1024).output
    largest = tmp_path / "whole_tiles" / "r000000_c000000.tif" if format == "VRT" else whole
    before = names(tmp_path)
    size = int(largest.stat().st_size * share)
    with largest_file(size), pytest.raises(KsdiffError, match=r"out.*: cannot be written") as caught:
        write_output(files, tmp_path / f"out{SUFFIX[format]}", format, tile=1024)
    assert "\n" not in str(caught.value) and "partial" not in str(caught.value)
    assert names(tmp_path) == before


def test_names_fit_formats(tmp_path: Path) -> None:
    check_output(tmp_path / "out.vrt", Inputs(), False, "VRT")
    check_output(tmp_path / "out.TIFF", Inputs(), False, "COG")
    wrong = [("out.vrt", "GTiff", "--format VRT"), ("o.png", "COG", "end in .tif"), ("o.tif", "VRT", ".vrt")]
    for name, format, hint in wrong:
        with pytest.raises(KsdiffError, match=hint):
            check_output(tmp_path / name, Inputs(), False, format)


def test_the_space_that_is_asked_for_suffices(make_pair: Any, tmp_path: Path) -> None:
    files = make_pair(size=(700, 720))
    for format in FORMATS:
        folder = tmp_path / format
        folder.mkdir()
        write_output(files, folder / f"out{SUFFIX[format]}", format, creation={"COMPRESS": "NONE"})
        taken = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        assert taken < space_needed(format, 700 * 720 * 4 * 2)


# ---- parts


def test_a_box_takes_the_pixels_it_touches(make_pair: Any) -> None:
    files = make_pair(size=(96, 128))  # 0.5 m pixels from (593270, 5747657)
    scene = scene_of(str(files.pan), [str(files.ms)])
    with open_pair(scene) as pair:
        assert crop_to(pair) == (0, 0, 96, 128)
        assert crop_to(pair, window=(3, 4, 5, 6)) == (3, 4, 5, 6)
        x, y = 593270, 5747657
        assert crop_to(pair, bbox=(x + 2, y - 10, x + 7, y - 1)) == (2, 4, 18, 10)
        assert crop_to(pair, bbox=(x + 2.1, y - 10.1, x + 6.9, y - 1.1)) == (2, 4, 19, 10)
        assert crop_to(pair, bbox=(x - 50, y - 10, x + 7, y + 50)) == (0, 0, 20, 14)
        lonlat = transform_bounds("EPSG:32631", "EPSG:4326", x + 2.2, y - 9.8, x + 6.8, y - 1.2)
        row, col, height, width = crop_to(pair, bbox=lonlat, bbox_crs="EPSG:4326")
        assert (row, col) == (2, 4) and 18 <= height <= 19 and 10 <= width <= 11


def test_a_box_on_a_grid_that_looks_south(make_pair: Any) -> None:
    files = make_pair(pan_grid=Affine(0.5, 0, 100, 0, 0.5, 200), ms_grid=Affine(2, 0, 100, 0, 2, 200))
    with open_pair(scene_of(str(files.pan), [str(files.ms)])) as pair:
        assert crop_to(pair, bbox=(101, 203, 105, 206)) == (6, 2, 6, 8)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"window": (0, 0, 0, 5)}, "empty"),
        ({"window": (0, 0, 97, 5)}, "beyond the output, which has 96 rows and 128 columns"),
        ({"window": (-1, 0, 5, 5)}, "beyond"),
        ({"bbox": (593270, 5747657, 593270, 5747658)}, "empty"),
        ({"bbox": (593280, 5747657, 593270, 5747600)}, "empty"),
        ({"bbox": (0, 0, float("nan"), 1)}, "empty"),
        ({"bbox": (0, 0, 1, 1)}, "does not meet the output, which covers 593270,5747609,593334,5747657 in EPSG:32631"),
        ({"bbox": (0, 0, 1, 1), "bbox_crs": "EPSG:4326"}, "does not meet"),
        ({"bbox": (0, 95, 1, 99), "bbox_crs": "EPSG:4326"}, "no place|does not meet"),
        ({"bbox": (0, 0, 1, 1), "bbox_crs": "EPSG:nonsense"}, "no known CRS"),
        ({"bbox": (0, 0, 1, 1), "window": (0, 0, 1, 1)}, "both"),
    ],
)
def test_parts_that_are_none(arguments: dict[str, Any], words: str, make_pair: Any) -> None:
    files = make_pair()
    with open_pair(scene_of(str(files.pan), [str(files.ms)])) as pair:
        with pytest.raises(KsdiffError, match=words) as caught:
            crop_to(pair, **arguments)
        assert "\n" not in str(caught.value)


def test_a_box_needs_a_georeference(make_pair: Any) -> None:
    files = make_pair(crs=None)
    with open_pair(scene_of(str(files.pan), [str(files.ms)])) as pair:
        with pytest.raises(KsdiffError, match=r"pan.tif: PAN has no geotransform"):
            crop_to(pair, bbox=(0, 0, 1, 1))
        assert crop_to(pair, window=(1, 2, 3, 4)) == (1, 2, 3, 4)


# ---- names, tags, creation options


def test_folders_and_names_too_long_for_what_grows_beside(tmp_path: Path, make_pair: Any) -> None:
    for format, suffix in SUFFIX.items():
        longest = tmp_path / ("a" * (255 - 44 - len(suffix)) + suffix)
        write_output(make_pair(), longest, format)
        longest.unlink()
        with pytest.raises(KsdiffError, match=r"too long .* make it 1 byte shorter"):
            check_output(tmp_path / f"a{longest.name}", Inputs(), False, format)
        (tmp_path / f"d{suffix}").mkdir(exist_ok=True)
        for folder in (tmp_path / f"d{suffix}", Path(), Path("..")):
            with pytest.raises(KsdiffError, match="is a folder; name the file"):
                check_output(folder, Inputs(["a" * 300]), False, format)


@pytest.mark.parametrize("format", FORMATS)
def test_tags_of_any_name(format: Format, make_pair: Any, tmp_path: Path) -> None:
    files = make_pair()
    items = "".join(f'<MDI key="{key}">{key}!</MDI>' for key in ("bidx", "ns", "self", "dataset", "tags"))
    bands = f'<PAMRasterBand band="2"><Metadata>{items}</Metadata></PAMRasterBand>'
    Path(f"{files.ms}.aux.xml").write_text(f"<PAMDataset><Metadata>{items}</Metadata>{bands}</PAMDataset>")
    path = write_output(files, tmp_path / f"out{SUFFIX[format]}", format).output
    write_vrt(tmp_path / "mosaic.vrt", [path])
    for made in (path, tmp_path / "mosaic.vrt"):
        with rasterio.open(made) as out:
            for tags in (out.tags(), out.tags(2)):
                assert {name: tags.get(name) for name in ("self", "dataset", "tags")} == {
                    "self": "self!",
                    "dataset": "dataset!",
                    "tags": "tags!",
                }
            assert "KSDIFF_METHOD" in out.tags() and "ns!" not in out.tag_namespaces()


@pytest.mark.parametrize(
    ("creation", "dtype", "words"),
    [
        ({"COMPRESS": "JPEG"}, "uint16", "BitsPerSample 16 not allowed"),
        ({"COMPRESS": "JPEG", "PREDICTOR": "2"}, "float32", "BitsPerSample 32 not allowed|PREDICTOR"),
        ({"COMPRESS": "DEFLATE", "NBITS": "99"}, "uint16", "NBITS=99"),
        ({"COMPRESS": "DEFLATE", "NBITS": "-3"}, "int16", "NBITS|PREDICTOR"),
    ],
)
@pytest.mark.parametrize("format", FORMATS)
def test_what_gdal_cannot_store_is_refused_before_any_work(
    creation: dict[str, str],
    dtype: str,
    words: str,
    format: Format,
    make_pair: Any,
    fails: Any,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    files = make_pair(dtype=dtype)
    monkeypatch.setattr("ksdiff_cli.raster.pair.ScenePair.statistics", lambda *_: pytest.fail("work has begun"))
    given = [f"{name}={value}" for name, value in creation.items()]
    out = files.folder / f"out{SUFFIX[format]}"
    options = [word for option in given for word in ("--co", option)]
    command = ("sharpen", files.pan, files.ms, "-o", out, "--method", "exp", "--no-registration-check")
    line = fails(*command, "-f", format, "-q", *options)
    assert f"--co {' '.join(given)}: " in line and f"4 bands of {dtype}" in line
    assert re.search(words, line) and "/vsimem" not in line and ".tif" not in line
    assert capfd.readouterr().err == ""  # GDAL prints by itself what fails in its threads
    assert names(files.folder) == ["ms.tif", "pan.tif"]


def test_what_gdal_can_store_is_not_refused(make_pair: Any, tmp_path: Path) -> None:
    with open_pair(scene_of(str((files := make_pair(dtype="uint8")).pan), [str(files.ms)])) as pair:
        byte, wide = choose_format(pair), choose_format(pair, dtype="float64")
    for cog in (False, True):
        for codec in ("NONE", "LZW", "DEFLATE", "ZSTD", "LERC"):
            for pixels in (byte, wide):
                creation.check_creation(cog, {"COMPRESS": codec}, pixels, 5)
        creation.check_creation(cog, {"COMPRESS": "JPEG"}, byte, 3)
        creation.check_creation(cog, {"COMPRESS": "LZW", "NBITS": "12"}, replace(byte, dtype=np.dtype("u2")), 2)
    creation.check_creation(False, {"SPARSE_OK": "YES", "INTERLEAVE": "BAND"}, wide, 3)


@pytest.mark.parametrize(
    ("creation", "sidecar"),
    [
        ({"TFW": "YES"}, ".tfw"),
        ({"RPB": "YES"}, ".RPB"),
        ({"PROFILE": "BASELINE"}, ".RPB"),
        ({"RPCTXT": "YES"}, "_RPC.TXT"),
    ],
)
def test_files_that_gdal_writes_beside_are_called_like_the_output(
    creation: dict[str, str], sidecar: str, rich: PairFiles, tmp_path: Path
) -> None:
    (tmp_path / f"out{sidecar}").write_text("of another file")
    for _ in range(2):
        write_output(rich, tmp_path / "out.tif", creation=creation, overwrite=True)
        write_output(rich, tmp_path / "tiles.vrt", "VRT", creation=creation, overwrite=True)
    others = [name for name in names(tmp_path) if not name.endswith(".aux.xml")]  # where PROFILE leaves out the rest
    assert others == sorted(["out.tif", f"out{sidecar}", "scene", "tiles.vrt", "tiles_tiles"])
    written = (tmp_path / f"out{sidecar}").read_text()
    assert "of another file" not in written
    tiles = [Path(name) for name in names(tmp_path / "tiles_tiles")]
    assert {f"{path.stem}{sidecar}" for path in tiles if path.suffix == ".tif"} < {path.name for path in tiles}
    with rasterio.open(tmp_path / "out.tif") as out:
        if sidecar == ".tfw":
            assert float(written.split()[0]) == out.transform.a
        else:
            assert "64.5" in written and out.rpcs.samp_off == 64.5
