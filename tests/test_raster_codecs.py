"""What a file cannot keep as it is: values under a lossy codec and nodata with them, bits that only the type has."""

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from conftest import PairFiles, write_raster
from numpy.typing import NDArray
from output_maker import SUFFIX
from rasterio.errors import RasterioError
from rasterio.transform import Affine

from ksdiff_cli import KsdiffError, sharpen_scene
from ksdiff_cli.checks import Format
from ksdiff_cli.output.vrt import write_vrt
from ksdiff_cli.simulation.files import simulate_arrays

Array = NDArray[Any]
SIDE = 192  # of PAN
FORMATS: tuple[Format, ...] = ("GTiff", "COG", "VRT")
GRID = Affine(0.5, 0, 593270, 0, -0.5, 5747657)
LOSSY: list[tuple[str, dict[str, str], tuple[Format, ...]]] = [
    ("uint8", {"COMPRESS": "JPEG"}, FORMATS),
    ("uint8", {"COMPRESS": "JPEG", "JPEG_QUALITY": "100"}, ("VRT",)),
    ("uint8", {"COMPRESS": "WEBP"}, ("COG",)),
    ("uint8", {"COMPRESS": "JXL", "JXL_LOSSLESS": "NO"}, ("GTiff",)),
    ("uint16", {"COMPRESS": "LERC", "MAX_Z_ERROR": "20"}, ("COG",)),
    ("float32", {"COMPRESS": "LERC_ZSTD", "MAX_Z_ERROR": "0.5"}, ("GTiff", "VRT")),
    ("uint16", {"COMPRESS": "DEFLATE", "DISCARD_LSB": "3"}, ("GTiff",)),
    ("float32", {"COMPRESS": "DEFLATE", "NBITS": "16"}, ("VRT",)),
    ("uint16", {"COMPRESS": "DEFLATE", "NBITS": "9"}, ("GTiff", "COG")),
]
"""Types, codecs, and drivers that have them."""
EXACT: list[tuple[str, dict[str, str]]] = [
    ("uint8", {"COMPRESS": "WEBP", "WEBP_LOSSLESS": "YES"}),
    ("uint8", {"COMPRESS": "JXL", "JXL_LOSSLESS": "YES"}),
    ("uint16", {"COMPRESS": "LERC"}),
    ("float32", {"COMPRESS": "LERC_ZSTD"}),
    ("uint16", {"COMPRESS": "LZW", "PREDICTOR": "1"}),
]


def codec_exists(dtype: str, creation: dict[str, str]) -> bool:
    """Say whether this GDAL has a codec."""
    shape = {"width": 16, "height": 16, "count": 3, "dtype": dtype}
    try:
        with rasterio.MemoryFile() as memory:
            with memory.open(driver="GTiff", **shape, compress=creation["COMPRESS"]) as file:
                file.write(np.zeros((3, 16, 16), dtype))
            with memory.open() as file:
                return file.tags(ns="IMAGE_STRUCTURE").get("COMPRESSION", "") != ""
    except RasterioError:
        return False


@cache
def simulated() -> tuple[Array, Array]:
    """PAN and MS, to be copied."""
    pan, ms, _ = simulate_arrays(SIDE, seed=2)
    return pan.astype(np.float64), ms.astype(np.float64)


def pair(folder: Path, dtype: str, hole: bool, nodata: float | None, nbits: int | None = None) -> PairFiles:
    """Write 11-bit data (8 bits as uint8), three bands, whose lower left is a hole."""
    pan, ms = simulated()
    paths = []
    for name, image, cell in (("pan", pan, 1), ("ms", ms[:3], 4)):
        image = image * (250 / 2047 if dtype == "uint8" else 1) + 3
        image = (image if dtype == "float32" else np.rint(image)).astype(dtype)
        rows, cols = np.mgrid[: image.shape[1], : image.shape[2]]
        if hole:
            image[:, rows > cols + 0.25 * len(rows)] = 0 if nodata is None else nodata
        more = {"nbits": nbits} if nbits and name == "ms" else {}
        place = {"crs": "EPSG:32631", "transform": GRID @ Affine.scale(cell)}
        paths.append(write_raster(folder / f"{name}.tif", image, nodata=nodata, **place, **more))
    return PairFiles(folder, *paths)


def sharpen(files: PairFiles, name: str, **more: Any) -> Any:
    return sharpen_scene(
        files.pan, files.ms, output=files.folder / name, method="exp", registration="skip", overwrite=True, **more
    )


@pytest.mark.parametrize(("dtype", "creation", "formats"), LOSSY, ids=lambda value: str(value))
def test_a_mask_keeps_holes_under_a_lossy_codec(
    dtype: str, creation: dict[str, str], formats: tuple[Format, ...], tmp_path: Path
) -> None:
    if not codec_exists(dtype, creation):
        pytest.skip("this GDAL has no such codec")
    files = pair(tmp_path, dtype, hole=True, nodata=0)
    assert sharpen(files, "plain.tif").nodata == 0
    with rasterio.open(tmp_path / "plain.tif") as exact:
        valid = exact.read_masks(1) > 0
    assert 0.2 < valid.mean() < 0.8
    for format in formats:
        made = sharpen(files, f"out{SUFFIX[format]}", creation=creation, format=format, tile=128)
        assert made.nodata is None
        assert any("lossy" in note and "mask" in note for note in made.notes)
        with rasterio.open(made.output) as out:
            assert out.nodata is None
            for band in out.indexes:
                np.testing.assert_array_equal(out.read_masks(band) > 0, valid)
                values, tags = out.read(band)[valid].astype(np.float64), out.tags(band)
                found = [float(tags[f"STATISTICS_{name}"]) for name in ("MINIMUM", "MAXIMUM", "MEAN", "STDDEV")]
                np.testing.assert_allclose(found, [values.min(), values.max(), values.mean(), values.std()], rtol=1e-6)
            assert not list(tmp_path.glob("*.msk"))


@pytest.mark.parametrize("format", FORMATS)
def test_without_holes_a_lossy_codec_gets_no_mask_and_no_nodata(format: Format, tmp_path: Path) -> None:
    files = pair(tmp_path, "uint8", hole=False, nodata=0)
    name = f"out{SUFFIX[format]}"
    made = sharpen(files, name, creation={"COMPRESS": "JPEG"}, format=format)
    assert made.nodata is None and any("lossy" in note for note in made.notes)
    with rasterio.open(tmp_path / name) as out:
        assert out.nodata is None and out.read_masks().all()
        image = out.read().astype(np.float64)
        for band in out.indexes:
            assert float(out.tags(band)["STATISTICS_MAXIMUM"]) == image[band - 1].max()
            assert float(out.tags(band)["STATISTICS_MEAN"]) == pytest.approx(image[band - 1].mean(), rel=1e-9)


@pytest.mark.parametrize(("dtype", "creation"), EXACT, ids=lambda value: str(value))
def test_codecs_that_change_nothing_keep_nodata(dtype: str, creation: dict[str, str], tmp_path: Path) -> None:
    if not codec_exists(dtype, creation):
        pytest.skip("this GDAL has no such codec")
    files = pair(tmp_path, dtype, hole=True, nodata=0)
    sharpen(files, "plain.tif")
    made = sharpen(files, "out.tif", creation=creation)
    assert made.nodata == 0 and not any("lossy" in note for note in made.notes)
    with rasterio.open(tmp_path / "plain.tif") as exact, rasterio.open(tmp_path / "out.tif") as out:
        np.testing.assert_array_equal(out.read(), exact.read())


def test_a_value_for_nodata_is_refused_under_a_lossy_codec(tmp_path: Path) -> None:
    files = pair(tmp_path, "uint8", hole=True, nodata=0)
    with pytest.raises(KsdiffError, match=r"--dst-nodata: .*lossy"):
        sharpen(files, "out.tif", creation={"COMPRESS": "JPEG"}, dst_nodata=255)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ms.tif", "pan.tif"]


def test_a_mosaic_of_masked_files_is_masked(tmp_path: Path) -> None:
    files = pair(tmp_path, "uint8", hole=True, nodata=0)
    with_holes = [(0, 0, SIDE, 120), (0, 72, SIDE, 120)]
    for number, window in enumerate(with_holes):
        sharpen(files, f"{number}.tif", creation={"COMPRESS": "JPEG"}, window=window)
    sharpen(files, "exact.tif")
    write_vrt(tmp_path / "mosaic.vrt", [tmp_path / "0.tif", tmp_path / "1.tif"])
    with rasterio.open(tmp_path / "exact.tif") as exact, rasterio.open(tmp_path / "mosaic.vrt") as mosaic:
        assert mosaic.nodata is None
        for band in mosaic.indexes:
            np.testing.assert_array_equal(mosaic.read_masks(band) > 0, exact.read_masks(band) > 0)
        valid = exact.read_masks(1) > 0
        assert np.abs(mosaic.read()[:, valid].astype(int) - exact.read()[:, valid]).mean() < 4


# --- bits ---


@pytest.mark.parametrize(
    ("dtype", "bits", "format"), [("uint8", 7, "GTiff"), ("uint16", 12, "COG"), ("uint32", 20, "VRT")]
)
def test_values_stay_within_the_stated_bits(dtype: str, bits: int, format: Format, tmp_path: Path) -> None:
    files = pair(tmp_path, dtype, hole=False, nodata=None)
    top = 2**bits - 1
    with rasterio.open(files.ms) as dataset:
        image, place = dataset.read().astype(np.float64), {"crs": dataset.crs, "transform": dataset.transform}
    # saturated for a third, so that interpolation overshoots
    image = np.clip(image / np.percentile(image, 66) * top, 0, top).astype(dtype)
    write_raster(files.ms, image, **place, nbits=bits)
    name = f"out{SUFFIX[format]}"
    sharpen(files, name, format=format)
    with rasterio.open(tmp_path / name) as out:
        assert out.read().max() == top and out.dtypes[0] == dtype
        assert {out.tags(band, ns="IMAGE_STRUCTURE").get("NBITS") for band in out.indexes} == {str(bits)}
        assert float(out.tags(1)["STATISTICS_MAXIMUM"]) == out.read(1).max()
    sharpen(files, name, format=format, dtype="int32")
    with rasterio.open(tmp_path / name) as out:
        assert out.read().max() == top and "NBITS" not in out.tags(1, ns="IMAGE_STRUCTURE")
    sharpen(files, name, format=format, dtype="float32")
    with rasterio.open(tmp_path / name) as out:
        assert out.read().max() > top


def test_bits_of_all_bands_count_and_nodata_must_fit(tmp_path: Path) -> None:
    files = pair(tmp_path, "uint16", hole=True, nodata=None, nbits=12)
    with pytest.raises(KsdiffError, match="--dst-nodata 65535: is no value of 12 bits"):
        sharpen(files, "out.tif", src_nodata=0, dst_nodata=65535)
    made = sharpen(files, "out.tif", src_nodata=0, dst_nodata=4095)
    with rasterio.open(tmp_path / "out.tif") as out:
        assert made.nodata == out.nodata == 4095
        assert 0.2 < (out.read_masks(1) > 0).mean() < 0.8
    # one band says nothing: the type's own range holds
    with rasterio.open(files.ms) as dataset:
        write_raster(tmp_path / "fourth.tif", dataset.read(1), crs=dataset.crs, transform=dataset.transform)
    sharpen_scene(
        files.pan, files.ms, tmp_path / "fourth.tif", output=tmp_path / "four.tif", method="exp", registration="skip"
    )
    with rasterio.open(tmp_path / "four.tif") as out:
        assert "NBITS" not in out.tags(1, ns="IMAGE_STRUCTURE")


# --- what is known of bands ---


@pytest.mark.parametrize("format", FORMATS)
def test_wavelengths_go_with_their_bands(format: Format, tmp_path: Path) -> None:
    files = pair(tmp_path, "uint16", hole=False, nodata=None)
    with rasterio.open(files.ms, "r+") as ms:
        for band in ms.indexes:
            ms.update_tags(band, ns="IMAGERY", CENTRAL_WAVELENGTH_UM=f"0.{3 + band}", FWHM_UM="0.05")
        ms.update_tags(ns="IMAGERY", SATELLITEID="X1")
    names = f"out{SUFFIX[format]}", f"other{SUFFIX[format]}"
    for name in names:
        sharpen(files, name, format=format, bands=[3, 1])
    write_vrt(tmp_path / "mosaic.vrt", [tmp_path / name for name in names])
    for name in (names[0], "mosaic.vrt"):
        with rasterio.open(tmp_path / name) as out:
            assert [out.tags(band, ns="IMAGERY") for band in out.indexes] == [
                {"CENTRAL_WAVELENGTH_UM": "0.6", "FWHM_UM": "0.05"},
                {"CENTRAL_WAVELENGTH_UM": "0.4", "FWHM_UM": "0.05"},
            ]
            if name != "mosaic.vrt":
                assert out.tags(ns="IMAGERY") == {"SATELLITEID": "X1"}


def test_wavelengths_of_envi_headers(tmp_path: Path) -> None:
    files = pair(tmp_path, "uint16", hole=False, nodata=None)
    with (
        rasterio.open(files.ms) as ms,
        rasterio.open(tmp_path / "ms.dat", "w", **{**ms.profile, "driver": "ENVI"}) as envi,
    ):
        envi.write(ms.read())
    with (tmp_path / "ms.hdr").open("a") as header:
        header.write("wavelength units = Nanometers\nwavelength = {480,560,660}\nfwhm = {60,61,40}\n")
    with rasterio.open(tmp_path / "ms.dat") as envi:
        expected = [envi.tags(band, ns="IMAGERY") for band in envi.indexes]
    if not all(expected):
        pytest.skip("this GDAL keeps no wavelengths of ENVI files")
    sharpen_scene(files.pan, tmp_path / "ms.dat", output=tmp_path / "out.tif", method="exp", registration="skip")
    with rasterio.open(tmp_path / "out.tif") as out:
        assert [out.tags(band, ns="IMAGERY") for band in out.indexes] == expected
