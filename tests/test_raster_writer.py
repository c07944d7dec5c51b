"""The file that sharpening writes: metadata, nodata, rounding, creation options."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from conftest import PairFiles, largest_file
from output_maker import TAGS, Made, write_output
from rasterio.control import GroundControlPoint
from rasterio.enums import ColorInterp
from rasterio.rpc import RPC
from rasterio.transform import Affine

from ksdiff_cli.errors import KsdiffError
from ksdiff_cli.output.creation import default_codec
from ksdiff_cli.output.pixels import PixelFormat
from ksdiff_cli.products import make_pair as scene_of

Array = Any


def sharpen(files: PairFiles, name: str = "out.tif", **options: Any) -> Made:
    return write_output(files, files.folder / name, **options)


def test_output_has_pans_grid_and_what_ms_declares(make_pair: Any) -> None:
    files = make_pair(
        bands=3,
        dtype="int16",
        pan_profile={"tags": {"AREA_OR_POINT": "Point"}},
        ms_profile={
            "nodata": -999,
            "descriptions": ("near infrared", "red", "green"),
            "tags": {"ACQUIRED": "2020-05-01", "TIFFTAG_IMAGEDESCRIPTION": "old"},
        },
    )
    made = sharpen(files)
    with rasterio.open(made.output) as out, rasterio.open(files.pan) as pan:
        assert (out.shape, out.count, set(out.dtypes)) == (pan.shape, 3, {"int16"})
        assert out.crs == pan.crs
        assert out.transform.almost_equals(pan.transform)
        assert out.nodata == -999
        assert out.descriptions == ("near infrared", "red", "green")
        assert out.profile["tiled"]
        assert out.block_shapes[0] == (256, 256)
        assert out.compression.name == default_codec().lower()
        tags = out.tags()
    assert tags["AREA_OR_POINT"] == "Point"
    assert tags["ACQUIRED"] == "2020-05-01"
    assert "TIFFTAG_IMAGEDESCRIPTION" not in tags
    assert (TAGS | {"KSDIFF_LATE": "yes"}).items() <= tags.items()
    assert sorted(path.name for path in files.folder.iterdir()) == ["ms.tif", "out.tif", "pan.tif"]


def test_colours_are_those_of_ms_or_of_the_band_names(make_pair: Any) -> None:
    colours = (ColorInterp.blue, ColorInterp.green, ColorInterp.red, ColorInterp.undefined)
    declared = make_pair("declared")
    with rasterio.open(declared.ms, "r+") as ms:
        ms.colorinterp = colours
    named = make_pair("named", ms_profile={"descriptions": ("Blue", "Green", "Red", "NIR")})
    plain = make_pair("plain")
    for files, expected in [
        (declared, colours),
        (named, colours),
        (plain, (ColorInterp.gray, *[ColorInterp.undefined] * 3)),
    ]:
        with rasterio.open(sharpen(files).output) as out:
            assert out.colorinterp == expected


@pytest.mark.parametrize("tags", [{}, {"AREA_OR_POINT": "Point"}], ids=["area", "point"])
@pytest.mark.parametrize("kind", ["rpcs", "gcps"])
def test_sensor_geometry_is_kept_and_cut(kind: str, tags: dict[str, str], make_pair: Any) -> None:
    """PAN and MS in sensor geometry; MS is said to lie too far down and right, so that PAN's first pixels are cut."""
    files = make_pair(crs=None, pan_profile={"tags": tags}, ms_profile={"tags": tags})
    with rasterio.open(files.pan, "r+") as pan:
        if kind == "rpcs":
            one = [1.0] * 20
            pan.rpcs = RPC(1, 1, 1, 1, one, one, 48, 48, 1, 1, one, one, 64.5, 64, None, None)
        else:
            points = [
                GroundControlPoint(row + 0.5, col, 5 + col, 40 - row, 0) for row, col in ((0, 0), (0, 90), (90, 5))
            ]
            pan.gcps = points, rasterio.crs.CRS.from_epsg(4326)
    scene = replace(scene_of(str(files.pan), [str(files.ms)]), shift=(-3.0, -5.25))
    made = write_output(scene, files.folder / "out.tif")
    with rasterio.open(made.output) as out, rasterio.open(files.pan) as pan:
        # the first pixel less than half an MS pixel beside MS, as everywhere
        row, col = 10, 19
        assert out.shape == (96 - row, 128 - col)
        assert out.transform == Affine.identity()
        assert any("kept in sensor geometry" in note for note in made.notes)
        if kind == "rpcs":
            expected = pan.rpcs.to_dict() | {"line_off": 48 - row, "samp_off": 64.5 - col}
            assert out.rpcs.to_dict() == expected
        else:
            assert out.gcps[1] == pan.gcps[1]
            moved = [(p.row - row, p.col - col, p.x, p.y, p.z) for p in pan.gcps[0]]
            assert [(p.row, p.col, p.x, p.y, p.z) for p in out.gcps[0]] == moved


def test_valid_zeros_do_not_become_nodata(make_pair: Any) -> None:
    def darken(pan: Array, ms: Array) -> None:
        ms[...] = 1
        ms[:, :3] = 0
        ms[:, 10] = 2

    files = make_pair(edit=darken, ms_profile={"nodata": 0})
    with rasterio.open(sharpen(files).output) as out:
        image, masks = out.read(), out.read_masks()
    assert (masks[:, 12:] > 0).all()
    assert (image[:, 12:] >= 1).all()
    assert (masks[:, :12] == 0).all()


@pytest.mark.parametrize(
    ("pan_nodata", "ms_nodata", "dig", "dtype", "expected"),
    [
        (None, None, False, None, None),
        (0, None, False, None, None),
        (5, None, True, None, 5),
        (None, 7, True, None, 7),
        (None, 7, False, None, 7),
        (5, 7, True, None, 7),
        (None, 7000, True, "uint8", 0),
        (None, 7000, False, "uint8", None),
        (None, 7000, True, "float32", 7000),
    ],
)
def test_nodata_of_the_output(
    pan_nodata: int | None, ms_nodata: int | None, dig: bool, dtype: str | None, expected: float | None, make_pair: Any
) -> None:
    def edit(pan: Array, ms: Array) -> None:
        pan[:, :9] = pan_nodata if dig and pan_nodata is not None else 600
        ms[:, 20:] = ms_nodata if dig and ms_nodata is not None else 600

    files = make_pair(edit=edit, pan_profile={"nodata": pan_nodata}, ms_profile={"nodata": ms_nodata})
    made = sharpen(files, dtype=dtype)
    assert made.nodata == expected
    with rasterio.open(made.output) as out:
        assert out.nodata == expected
        assert (out.read_masks() == 0).any() == dig


def test_mask_band_without_nodata(make_pair: Any) -> None:
    mask = np.full((24, 32), 255, "uint8")
    mask[:, :8] = 0
    files = make_pair(ms_profile={"mask": mask})
    with rasterio.open(sharpen(files).output) as out:
        assert out.nodata == 0
        masks = out.read_masks()
    assert (masks[:, :, :32] == 0).all()
    assert (masks[:, :, 32:] > 0).all()


@pytest.mark.parametrize(
    ("dtype", "nodata", "values", "stored"),
    [
        ("uint8", None, [-3.0, 0.4, 0.6, 254.6, 300.0], [0, 0, 1, 255, 255]),
        ("uint8", 0.0, [-3.0, 0.4, 0.6, 254.6, 300.0], [1, 1, 1, 255, 255]),
        ("uint8", 255.0, [-3.0, 0.4, 0.6, 254.6, 300.0], [0, 0, 1, 254, 254]),
        ("int16", -32768.0, [-4e4, -1.5, 2.5, 3.5, 4e4], [-32767, -2, 2, 4, 32767]),
        ("uint32", None, [-1.0, 0.0, 1.0, 2.0, 5e9], [0, 0, 1, 2, 4294967295]),
        ("float32", None, [-3.0, 0.25, 1.0, 2.0, 3.0], [-3.0, 0.25, 1.0, 2.0, 3.0]),
    ],
)
def test_rounding_and_clipping(dtype: str, nodata: float | None, values: list[float], stored: list[float]) -> None:
    pixels = PixelFormat(np.dtype(dtype), nodata)
    image = np.array(values, np.float32)[None, None]
    assert pixels.encode(image, np.ones((1, 5), bool))[0, 0].tolist() == stored
    if nodata is not None:
        assert (pixels.encode(image, np.zeros((1, 5), bool)) == nodata).all()


def test_float_values_move_off_nodata() -> None:
    for nodata in (0.0, -9999.0, 1e30):
        out = PixelFormat(np.dtype("float32"), nodata).encode(
            np.full((1, 1, 1), nodata, np.float32), np.ones((1, 1), bool)
        )
        assert out[0, 0, 0] != np.float32(nodata)
        assert out[0, 0, 0] == pytest.approx(nodata, rel=1e-4, abs=1e-5)
    out = PixelFormat(np.dtype("float32"), float("nan")).encode(
        np.ones((1, 1, 2), np.float32), np.array([[True, False]])
    )
    assert out[0, 0, 0] == 1
    assert np.isnan(out[0, 0, 1])


def test_creation_options_replace_the_defaults(make_pair: Any) -> None:
    files = make_pair(size=(300, 280))
    made = sharpen(files, rows=128, creation={"compress": "zstd", "BLOCKXSIZE": "128", "BLOCKYSIZE": "128"})
    with rasterio.open(made.output) as out:
        assert out.compression.name == "zstd"
        assert out.block_shapes[0] == (128, 128)
        image = out.read()
    striped = sharpen(files, name="s.tif", rows=128, creation={"TILED": "NO", "COMPRESS": "NONE"})
    with rasterio.open(striped.output) as out:
        assert not out.profile["tiled"]
        assert (out.read() == image).all()


@pytest.mark.parametrize("creation", [{"COMPRESS": "FOO"}, {"COLOUR": "RED"}, {"BLOCKXSIZE": "17"}, {"PREDICTOR": "9"}])
def test_bad_creation_options_leave_nothing_behind(creation: dict[str, str], make_pair: Any) -> None:
    files = make_pair()
    with pytest.raises(KsdiffError) as caught:
        sharpen(files, creation=creation)
    assert "\n" not in str(caught.value)
    assert sorted(path.name for path in files.folder.iterdir()) == ["ms.tif", "pan.tif"]


@pytest.mark.parametrize("creation", [{}, {"INTERLEAVE": "BAND"}, {"TILED": "NO"}])
@pytest.mark.parametrize("short", [10, 300, 20000, 300000])
def test_a_full_disk_is_noticed(short: int, creation: dict[str, str], make_pair: Any, tmp_path: Path) -> None:
    files = make_pair(size=(500, 520))
    whole = sharpen(files, "whole.tif", creation=creation).output.stat().st_size
    with largest_file(whole - short), pytest.raises(KsdiffError, match="cannot be written"):
        sharpen(files, creation=creation)
    assert sorted(path.name for path in files.folder.iterdir()) == ["ms.tif", "pan.tif", "whole.tif"]
