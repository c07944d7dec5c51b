"""The Python API: light to import, typed, arrays and files alike; the tutorial runs."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import rasterio
from conftest import PairFiles, read, write_raster

import ksdiff_cli
from ksdiff_cli import KsdiffError, sharpen_array, sharpen_scene
from ksdiff_cli.classical import METHODS
from ksdiff_cli.errors import did_you_mean

ROOT = Path(__file__).resolve().parents[1]
SAMPLE = ROOT / "sample_data" / "ge1"


def outside(script: str, tmp_path: Path) -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def test_importing_loads_nothing_heavy(tmp_path: Path) -> None:
    script = (
        "import sys\nfrom ksdiff_cli import prepare_patches, train, evaluate, measure\n"
        "from ksdiff_cli import sharpen_array, sharpen_scene, KsdiffError\n"
        "print(sorted(set(sys.modules) & {'torch', 'rasterio', 'numpy', 'h5py', 'typer'}), callable(train))"
    )
    assert outside(script, tmp_path) == "[] True"


@pytest.mark.parametrize("first", ["from ksdiff_cli import metrics", "import ksdiff_cli.evaluation.measure"])
def test_metrics_is_one_thing_whatever_came_first(first: str, tmp_path: Path) -> None:
    script = (
        f"{first}\nfrom ksdiff_cli import metrics\nprint(metrics.__name__, callable(metrics), callable(metrics.sam))"
    )
    assert outside(script, tmp_path) == "ksdiff_cli.metrics False True"


def test_what_is_public() -> None:
    for name in ksdiff_cli.__all__:
        found = getattr(ksdiff_cli, name)
        assert found.__doc__ and name in dir(ksdiff_cli)
    with pytest.raises(AttributeError, match="sharpn"):
        ksdiff_cli.sharpn  # noqa: B018


@pytest.mark.parametrize("method", ["ksdiff", "mtf-glp-fs"])
def test_arrays_give_the_pixels_that_files_give(method: str, tmp_path: Path, run: Any) -> None:
    """A network with windows of 256 pixels, whose borders fall inside; and classical ones by the command itself."""
    pan, ms = SAMPLE / "pan.tif", SAMPLE / "ms.tif"
    out = tmp_path / "out.tif"
    same = ("--method", method, "--sensor", "GE1", "--tile", 256)
    assert run("sharpen", pan, ms, "-o", out, "-q", *same).exit_code == 0
    fused = sharpen_array(read(pan)[0], read(ms), ratio=4, method=method, sensor="GE1", tile=256)
    assert fused.dtype == np.uint16
    np.testing.assert_array_equal(fused, read(out))


@pytest.mark.parametrize(("dtype", "bands"), [("uint8", 1), ("int16", 2), ("int32", 4), ("float32", 1), ("float64", 4)])
def test_types_and_bands(make_pair: Any, tmp_path: Path, dtype: str, bands: int) -> None:
    def scale(pan: Any, ms: Any) -> None:
        pan[...], ms[...] = pan % 200, ms % 200

    files: PairFiles = make_pair(dtype=dtype, bands=bands, edit=scale)
    made = sharpen_scene(files.pan, files.ms, output=tmp_path / "out.tif", method="brovey", registration="skip")
    fused = sharpen_array(read(files.pan), read(files.ms), method="brovey", registration="skip")
    assert (fused.dtype, fused.shape) == (np.dtype(dtype), (bands, 96, 128))
    np.testing.assert_array_equal(fused, read(made.output))


def test_values_are_clipped_to_the_type() -> None:
    pan = np.tile(np.array([[0, 255], [255, 0]], np.uint8), (32, 32))
    ms = np.full((3, 16, 16), 254, np.uint8)
    fused = sharpen_array(pan, ms, method="gsa", registration="skip")
    assert fused.dtype == np.uint8 and fused.min() >= 0


def test_invalid_pixels_as_in_files(make_pair: Any, tmp_path: Path) -> None:
    def hole(pan: Any, ms: Any) -> None:
        ms[:, 4:9, 6:12] = 0

    files: PairFiles = make_pair(edit=hole, ms_profile={"nodata": 0})
    made = sharpen_scene(files.pan, files.ms, output=tmp_path / "out.tif", method="gsa", registration="skip")
    pan, ms = read(files.pan)[0], read(files.ms)
    options: dict[str, Any] = {"method": "gsa", "registration": "skip"}
    expected = read(made.output)
    np.testing.assert_array_equal(sharpen_array(pan, ms, nodata=0, **options), expected)
    # the same hole said by a mask, whatever lies in it
    odd = ms.copy()
    odd[:, 4:9, 6:12] = 999
    np.testing.assert_array_equal(sharpen_array(pan, odd, valid=(ms != 0).all(0), **options), expected)
    real = np.where(ms == 0, np.nan, ms).astype("float32")
    fused = sharpen_array(pan, real, **options)
    np.testing.assert_array_equal(np.isnan(fused), expected == 0)


def test_a_mask_of_pan(make_pair: Any) -> None:
    files: PairFiles = make_pair()
    valid = np.ones((96, 128), bool)
    valid[10:30, 40:70] = False
    fused = sharpen_array(read(files.pan), read(files.ms), valid=valid, nodata=7, method="exp")
    np.testing.assert_array_equal((fused == 7).all(0), ~valid)


@pytest.mark.parametrize("band", [slice(None), 1])
def test_masked_arrays_as_files(make_pair: Any, tmp_path: Path, band: Any) -> None:
    """As rasterio reads them: nodata lies under the mask and is their fill_value."""

    def hole(pan: Any, ms: Any) -> None:
        pan[:, 50:60, 3:9], ms[band, 4:9, 6:12] = 7, 65535

    files: PairFiles = make_pair(edit=hole, pan_profile={"nodata": 7}, ms_profile={"nodata": 65535})
    options: dict[str, Any] = {"method": "gsa", "registration": "skip"}
    with rasterio.open(sharpen_scene(files.pan, files.ms, output=tmp_path / "out.tif", **options).output) as file:
        expected, nodata = file.read(), file.nodata
    assert nodata == 65535 and (expected[:, 55, 5] == 65535).all() and (expected[:, 26, 32] == 65535).all()
    with rasterio.open(files.pan) as pan, rasterio.open(files.ms) as ms:
        fused = sharpen_array(pan.read(1, masked=True), ms.read(masked=True), **options)
        assert not np.ma.isMaskedArray(fused)
        np.testing.assert_array_equal(fused, expected)
        # neither what lies under the mask nor NumPy's fill_value means anything: nodata is 0, as with ``valid``
        pixels = np.ma.array(np.where(ms.read() == 65535, 5000, ms.read()), mask=ms.read() == 65535)
        fused = sharpen_array(pan.read(masked=True), pixels, **options)
    np.testing.assert_array_equal(fused, np.where(expected == 65535, 7, expected))  # PAN's, as in a file


def test_masks_and_valid_together(make_pair: Any) -> None:
    files: PairFiles = make_pair()
    pan, ms = read(files.pan)[0], read(files.ms)
    mask, valid = np.zeros(ms.shape, bool), np.ones((24, 32), bool)
    mask[2, 3:5, 3:5], valid[10:12, 20:22] = True, False
    own = np.zeros((96, 128), bool)
    own[80:90, 100:110] = True
    arrays = np.ma.array(pan, mask=own), np.ma.array(ms, mask=mask)
    holes = (sharpen_array(*arrays, valid=valid, method="exp") == 0).all(0)
    assert holes[80:90, 100:110].all() and holes[12:20, 12:20].all() and holes[40:48, 80:88].all()
    assert holes.sum() == 100 + 64 + 64
    real = sharpen_array(arrays[0].astype("float32"), arrays[1].astype("float32"), valid=valid, method="exp")
    np.testing.assert_array_equal(np.isnan(real).all(0), holes)
    nothing = sharpen_array(pan, np.ma.array(ms, mask=False), method="exp")
    np.testing.assert_array_equal(nothing, sharpen_array(pan, ms, method="exp"))


NAN, INFINITE = float("nan"), float("inf")
WRONG_SCENES: list[dict[str, Any]] = [
    {"adapt": 0.02},
    {"uncertainty": "std.tif"},
    {"checkpoint": "weights.safetensors"},
    {"method": "ksdiff", "adapt": -1},
    {"method": "ksdiff", "adapt": NAN},
    {"method": "ksdiff", "seed": 1.5},
    {"draws": 1},
    {"dtype": "zzz"},
    {"format": "PNG"},
    {"registration": "zzz"},
    {"window": (0, 0, 5)},
    {"window": (0, 0, 5, 5.5)},
    {"bounds": (1, 2, "x", 4)},
    {"memory": NAN},
    {"memory": INFINITE},
    {"memory": "2"},
    {"tile": 0},
    {"tile": 64.0},
    {"threads": 0},
    {"seed": -1},
]


def one_line(call: Callable[[], Any], *words: str) -> None:
    with pytest.raises(KsdiffError) as caught:
        call()
    line = str(caught.value)
    assert "\n" not in line and all(word in line for word in words), line


@pytest.mark.parametrize("wrong", WRONG_SCENES, ids=str)
def test_wrong_values_for_scenes(wrong: dict[str, Any], tmp_path: Path) -> None:
    given = {"output": tmp_path / "out.tif", "method": "exp"} | wrong
    one_line(lambda: sharpen_scene(SAMPLE / "pan.tif", SAMPLE / "ms.tif", **given), [*wrong][-1])
    assert not list(tmp_path.iterdir())


def test_near_names_are_told(tmp_path: Path) -> None:
    one_line(
        lambda: sharpen_scene("p", "m", output=tmp_path / "o.tif", method="exp", format="cog"), "did you mean COG?"
    )  # type: ignore[arg-type]
    made = sharpen_scene(SAMPLE / "pan.tif", SAMPLE / "ms.tif", output=tmp_path / "o.tif", method="exp", dtype=np.int32)
    assert made.dtype == "int32"


@pytest.mark.parametrize(
    "wrong",
    [{"ratio": -3}, {"ratio": 0}, {"ratio": NAN}, {"ratio": INFINITE}, {"ratio": "4"}, {"crop": "zz"}],
    ids=str,
)
def test_wrong_values_to_measure_with(wrong: dict[str, Any]) -> None:
    one_line(lambda: ksdiff_cli.measure(SAMPLE / "ms.tif", reference=SAMPLE / "ms.tif", **wrong), *wrong)


@pytest.mark.parametrize(
    "wrong",
    [
        {"geometry": "zz"},
        {"registration": "zz"},
        {"pan_mtf": 5},
        {"patch": 8.5},
        {"ratio": 1},
        {"max_cloud": NAN},
        {"max_saturated": 101},
        {"seed": "a"},
    ],
    ids=str,
)
def test_wrong_values_for_patches(wrong: dict[str, Any], tmp_path: Path) -> None:
    one_line(lambda: ksdiff_cli.prepare_patches(SAMPLE, output=tmp_path / "patches", **wrong), *wrong)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("wrong", [{"protocol": "zz"}, {"prior": "zz"}, {"crop": "zz"}, {"seed": -1}], ids=str)
def test_wrong_values_to_evaluate_with(wrong: dict[str, Any]) -> None:
    one_line(lambda: ksdiff_cli.evaluate(SAMPLE, methods=["exp"], **wrong), *wrong)


def test_nothing_given() -> None:
    one_line(lambda: ksdiff_cli.prepare_patches(), "no scene: name")
    one_line(lambda: ksdiff_cli.evaluate(), "no data: name")


def test_commands_offer_what_the_api_takes() -> None:
    from inspect import signature

    from ksdiff_cli.checks import CropName, Dtype, Format, Geometry
    from ksdiff_cli.commands.evaluate import evaluate
    from ksdiff_cli.commands.prepare_data import prepare_data
    from ksdiff_cli.commands.sharpen import sharpen
    from ksdiff_cli.commands.train import train
    from ksdiff_cli.options.measuring import Prior, Protocol
    from ksdiff_cli.options.training import Precision, Recipe

    for command, name, choices in (
        (sharpen, "dtype", Dtype),
        (sharpen, "format", Format),
        (prepare_data, "geometry", Geometry),
        (train, "precision", Precision),
        (train, "recipe", Recipe),
        (evaluate, "protocol", Protocol),
        (evaluate, "prior", Prior),
        (evaluate, "crop", CropName),
    ):
        kind = get_args(signature(command).parameters[name].annotation)[0]
        offered = next((part for part in get_args(kind) if get_args(part)), kind)  # of ``Literal[…] | None``
        assert get_args(offered) == get_args(choices), name


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"ms": np.ones((24, 32))}, "ms: has shape (24, 32); give (bands, height, width)"),
        ({"pan": np.ones((2, 96, 128))}, "PAN has one; are PAN and MS swapped?"),
        ({"pan": np.ones((96, 128), complex)}, "pan: has values of type complex128"),
        ({"pan": np.ones((96, 128), bool)}, "pan: has values of type bool"),
        ({"ms": np.ones((4, 24, 29))}, "do not match"),
        ({"ratio": 2}, "ratio 2: an MS pixel covers 4 x 4"),
        ({"valid": np.ones((5, 5), bool)}, "valid: has shape (5, 5)"),
        ({"valid": np.ones((24, 32))}, "valid: has values of type float64"),
        ({"ms": np.full((4, 24, 32), np.nan)}, "ms: every pixel is nodata"),
        ({"method": "gssa"}, "did you mean gsa?"),
        ({"sensor": "WV33"}, "did you mean WV3?"),
        ({"tile": 7}, "multiple of 16"),
        ({"tile": 0}, "multiple of 16"),
        ({"memory": NAN}, "memory nan: give a number above 0"),
        ({"ratio": NAN}, "ratio nan: give a number of at least 1"),
        ({"registration": "chekc"}, "did you mean check?"),
        ({"checkpoint": "x"}, "checkpoint goes with method ksdiff, not exp"),
        ({"threads": -1}, "threads -1: give a whole number"),
        ({"nodata": "0"}, "nodata: 0 is no value"),
        ({"ms": np.ones((4, 24, 32), "uint16"), "nodata": -9999}, "nodata: -9999 is no value of type uint16"),
        ({"ms": np.ones((4, 24, 32), "uint16"), "nodata": 0.5}, "nodata: 0.5 is no value of type uint16"),
    ],
)
def test_wrong_arrays(change: dict[str, Any], words: str) -> None:
    rng = np.random.default_rng(0)
    given = {"pan": rng.uniform(1, 9, (96, 128)), "ms": rng.uniform(1, 9, (4, 24, 32)), "method": "exp"} | change
    with pytest.raises(KsdiffError) as caught:
        sharpen_array(given.pop("pan"), given.pop("ms"), **given)
    assert words in str(caught.value) and "vsimem" not in str(caught.value)


def test_a_shift_is_told_refused_and_corrected() -> None:
    pan, ms = read(SAMPLE / "pan.tif"), read(SAMPLE / "ms.tif")
    told: list[str] = []
    sharpen_array(pan, np.roll(ms, 1, 1), method="exp", registration="correct", note=told.append)
    assert "corrected" in told[0]
    with pytest.raises(KsdiffError, match="off PAN pan"):
        sharpen_array(pan, np.roll(ms, 3, 1), method="exp")


def test_bands_by_name(make_pair: Any, tmp_path: Path) -> None:
    files: PairFiles = make_pair(ms_profile={"descriptions": ("Blue", "green", "Red Edge", "nir")})
    for bands in (("red-edge", 1), (3, "blue")):
        made = sharpen_scene(
            files.pan, files.ms, output=tmp_path / "out.tif", method="exp", bands=bands, overwrite=True
        )
        with rasterio.open(made.output) as file:
            assert file.descriptions == ("Red Edge", "Blue")
    sharpen_scene(files.pan, files.ms, output=tmp_path / "qb.tif", method="exp", bands=["RED"], sensor="QB")
    with rasterio.open(tmp_path / "qb.tif") as file:  # the sensor's third band, though the file calls it otherwise
        assert file.descriptions == ("Red Edge",)


def test_scenes_of_all_kinds(make_pair: Any, tmp_path: Path) -> None:
    files: PairFiles = make_pair()
    made = sharpen_scene(files.folder, output=tmp_path / "a.tif", method="exp")
    assert made.shape == (96, 128) and made.output == tmp_path / "a.tif"
    with pytest.raises(KsdiffError, match="name PAN and MS"):
        sharpen_scene(output=tmp_path / "b.tif")
    with pytest.raises(KsdiffError, match="exists already"):
        sharpen_scene(files.folder, output=tmp_path / "a.tif", method="exp")


def test_parts_formats_and_uncertainty(make_pair: Any, tmp_path: Path) -> None:
    files: PairFiles = make_pair()
    whole = sharpen_scene(files.folder, output=tmp_path / "a.tif", consistent=True, tile=64)
    part = sharpen_scene(
        files.folder, output=tmp_path / "b.vrt", consistent=True, tile=64, format="VRT", window=(10, 20, 30, 40),
        uncertainty=tmp_path / "std.tif", draws=2, dtype="float32", creation={"COMPRESS": "LZW"},
        quicklook=tmp_path / "look.png", threads=1,
    )  # fmt: skip
    assert (part.shape, part.dtype) == ((30, 40), "float32")
    np.testing.assert_allclose(read(part.output), read(whole.output)[:, 10:40, 20:60], atol=0.51)
    assert read(tmp_path / "std.tif").shape == (4, 30, 40) and (tmp_path / "look.png").exists()


def test_names_that_are_near() -> None:
    assert did_you_mean("GSSA", METHODS) == "; did you mean gsa?"
    assert did_you_mean("sputnik", METHODS) == ""


@pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")  # rioxarray's own
def test_data_arrays(tmp_path: Path) -> None:
    rioxarray = pytest.importorskip("rioxarray", reason="the extra xarray is not installed")
    pan, ms = (rioxarray.open_rasterio(SAMPLE / name) for name in ("pan.tif", "ms.tif"))
    whole = sharpen_array(pan, ms, method="gsa")
    np.testing.assert_array_equal(whole.values, sharpen_array(pan.values, ms.values, method="gsa"))
    assert whole.rio.crs == pan.rio.crs and whole.rio.transform() == pan.rio.transform()
    np.testing.assert_allclose(whole.x, pan.x)
    np.testing.assert_array_equal(whole.band, ms.band)
    # parts that do not begin at one corner: the georeference lays them on each other
    cut = sharpen_array(pan.isel(x=slice(40, 300), y=slice(100, None)), ms.isel(x=slice(3, -5)), method="exp")
    everything = sharpen_array(pan, ms, method="exp")
    same = everything.sel(x=cut.x, y=cut.y)
    np.testing.assert_array_equal(cut.values[:, 20:-20, 20:-20], same.values[:, 20:-20, 20:-20])
    with pytest.raises(KsdiffError, match="one kind"):
        sharpen_array(pan, ms.values, method="exp")
    masked = rioxarray.open_rasterio(SAMPLE / "ms.tif", masked=True)
    assert np.isnan(sharpen_array(pan, masked.where(masked.x > float(masked.x[9])), method="exp").rio.nodata)


def test_a_data_array_without_rioxarray(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = type("DataArray", (), {"__module__": "xarray.core.dataarray"})
    monkeypatch.setitem(sys.modules, "rioxarray", None)
    with pytest.raises(KsdiffError, match=r"ksdiff\[xarray\]"):
        sharpen_array(fake(), fake(), method="exp")


def test_measure_and_metrics_agree(tmp_path: Path) -> None:
    truth = read(SAMPLE / "truth.tif")
    fused = sharpen_array(read(SAMPLE / "pan.tif"), read(SAMPLE / "ms.tif"), method="exp")
    with rasterio.open(SAMPLE / "truth.tif") as file:
        path = write_raster(tmp_path / "fused.tif", fused, crs=file.crs, transform=file.transform)
    found = ksdiff_cli.measure(path, reference=SAMPLE / "truth.tif", sensor="GE1", report=tmp_path / "page.html")
    values, _ = ksdiff_cli.metrics.measure_reduced(truth, fused)
    assert {name: found.values[name] for name in values} == pytest.approx(values, rel=1e-6)
    assert "ksdiff_cli.measure" in (tmp_path / "page.html").read_text()
    with pytest.raises(KsdiffError, match="either a reference, or PAN and MS"):
        ksdiff_cli.measure(path, pan=path)


def test_the_tutorial(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "tests"))
    import tutorial

    tutorial.main(tmp_path / "new")
    lines = capsys.readouterr().out.splitlines()
    assert [line[0] for line in lines if line[0].isdigit()] == list("12345")
    errors = {line.split(":")[0].strip(): line for line in lines}
    ergas = [float(errors[name].rpartition("ERGAS ")[2].split()[0].rstrip(",")) for name in ("exp", "stage1")]
    assert ergas[1] < ergas[0]
    assert "did you mean gsa?" in lines[-1]
