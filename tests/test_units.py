"""Radiance and reflectance: values computed by hand, PAN and MS alike, stored with their scale, and refused without."""

import json
import math
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import products_maker as maker
import pytest
import rasterio
from families_maker import DELIVERIES, dimap_1
from products_maker import C2

from ksdiff_cli.errors import KsdiffError
from ksdiff_cli.products import find_scenes
from ksdiff_cli.products.radiometry import calibrate, read_time, sun_distance
from ksdiff_cli.raster.bands import Calibration
from ksdiff_cli.raster.pair import open_pair
from ksdiff_cli.raster.units import convert_scene

HALF = math.sin(math.radians(30))


def landsat(folder: Path, **changes: str) -> Path:
    fields = {"SUN_ELEVATION": "30.0"}
    for band in range(2, 9):
        fields |= {f"RADIANCE_MULT_BAND_{band}": f"1.{band}E-02", f"RADIANCE_ADD_BAND_{band}": f"-6{band}.0"}
        fields |= {f"REFLECTANCE_MULT_BAND_{band}": "2.0000E-04", f"REFLECTANCE_ADD_BAND_{band}": "-0.100000"}
    return maker.landsat(folder, mtl=maker.mtl_text(C2, **(fields | changes)))


def pleiades(folder: Path, processing: str = "BASIC") -> Path:
    maker.airbus(folder)
    for dim in folder.glob("IMG_*/DIM_*.XML"):
        bands = ("P",) if "_P_" in dim.name else ("B0", "B1", "B2", "B3")
        listed = "".join(
            f"<Band_Radiance><BAND_ID>{band}</BAND_ID><GAIN>{8 + n}</GAIN><BIAS>0.5</BIAS></Band_Radiance>"
            f"<Band_Solar_Irradiance><BAND_ID>{band}</BAND_ID><VALUE>{1900 - 100 * n}</VALUE></Band_Solar_Irradiance>"
            for n, band in enumerate(bands)
        )
        more = f"<RADIOMETRIC_PROCESSING>{processing}</RADIOMETRIC_PROCESSING>{listed}<SUN_ELEVATION>29</SUN_ELEVATION>"
        text = dim.read_text()
        dim.write_text(
            text.replace("</Dimap_Document>", f"<X>{more}<SUN_ELEVATION>31</SUN_ELEVATION></X></Dimap_Document>")
        )
    return folder


def worldview(folder: Path, **changes: str) -> Path:
    maker.maxar(folder, "WV02", ("B", "G", "R", "N"))
    for imd in folder.rglob("*.IMD"):
        text = imd.read_text().replace('satId = "WV02";', 'satId = "WV02";\n\tmeanSunEl =  30.0;\n\tfirstLineTime = '
                                       "2010-01-03T12:00:00.000000Z;")  # fmt: skip
        for old, new in changes.items():
            text = re.sub(rf"{old} = [^;]+;", f"{old} = {new};", text)
        imd.write_text(text)
    return folder


def geosat(folder: Path) -> Path:
    delivery = DELIVERIES["GEOSAT-2"]
    delivery.write(folder)
    for name in (delivery.pan, *delivery.ms):
        bands = ("PAN",) if "PAN" in name else ("NIR", "RED", "GREEN", "BLUE")
        text = dimap_1(bands, name, "<EARTH_SUN_DISTANCE>1.01242</EARTH_SUN_DISTANCE>")
        (folder / name).with_suffix(".dim").write_text(text)
    return folder


D_PLEIADES = 0.98330  # AU on 1 January 2013, from the almanac: 0.98329
D_WORLDVIEW = 0.98329  # on 3 January 2010


@pytest.mark.parametrize(
    ("make", "band", "radiance", "reflectance"),
    [
        # 1.3e-2 DN - 63; (2e-4 DN - 0.1) / sin 30°
        (landsat, "green", (1.3e-2, -63.0), (4e-4, -0.2)),
        (landsat, "pan", (1.8e-2, -68.0), (4e-4, -0.2)),
        # DN / 9 + .5; pi L d² / (1800 sin 30°)
        (pleiades, "green", (1 / 9, 0.5), (math.pi * D_PLEIADES**2 / 900 / 9, math.pi * D_PLEIADES**2 / 900 / 2)),
        (pleiades, "pan", (1 / 8, 0.5), (math.pi * D_PLEIADES**2 / 950 / 8, math.pi * D_PLEIADES**2 / 950 / 2)),
        # .952 DN 9.295654e-3 / 4.73e-2 - 2.512
        (worldview, "red", (0.18709228, -2.512), tuple(
            math.pi * D_WORLDVIEW**2 / (1538.85 / 2) * value for value in (0.18709228, -2.512))),
        (worldview, "pan", (0.18512703, -2.704), tuple(
            math.pi * D_WORLDVIEW**2 / (1571.36 / 2) * value for value in (0.18512703, -2.704))),
        # .03 DN - .5; pi L 1.01242² / (1003 sin 30°)
        (geosat, "green", (0.03, -0.5), (math.pi * 1.01242**2 / 501.5 * 0.03, -math.pi * 1.01242**2 / 1003)),
        (geosat, "pan", (0.01, -0.5), (math.pi * 1.01242**2 / 500.5 * 0.01, -math.pi * 1.01242**2 / 1001)),
    ],
)  # fmt: skip
def test_values_by_hand(make: Any, band: str, radiance: Any, reflectance: Any, tmp_path: Path) -> None:
    (scene,) = find_scenes(make(tmp_path))
    (source,) = (one for one in scene.sources() if one.name == band)
    assert source.calibration.radiance == pytest.approx(radiance, rel=1e-6)
    assert source.calibration.reflectance == pytest.approx(reflectance, rel=5e-5)
    with rasterio.open(source.path) as dataset:
        stored = dataset.read(source.band).astype(float)
    for units, (gain, offset) in (("radiance", radiance), ("reflectance", reflectance)):
        with open_pair(convert_scene(scene, units)) as pair:
            number = None if band == "pan" else [one.name for one in scene.ms].index(band)
            read = pair.read_pan if number is None else pair.read_ms
            values, _ = read(0, 0, 8, 8)
        row, col = pair.origin if band == "pan" else (0, 0)
        expected = gain * stored[row : row + 8, col : col + 8] + offset
        np.testing.assert_allclose(values[number or 0], expected, rtol=1e-4, atol=1e-5 * abs(offset))


@pytest.mark.parametrize(
    ("when", "distance"),
    [("2013-07-05T14:44:00", 1.01671), ("2013-01-02T04:38:00", 0.98329), ("2020-03-20T03:49:00", 0.99598)],
)
def test_distance_of_the_sun_is_the_almanacs(when: str, distance: float) -> None:
    assert sun_distance(datetime.fromisoformat(when).replace(tzinfo=UTC)) == pytest.approx(distance, abs=1e-4)


@pytest.mark.parametrize("values", [(0, 1, 1900, 30, 1), (None, 0, 1900, 30, 1), (0.1, None, 1900, 30, 1)])
def test_no_gain_is_no_calibration(values: Any) -> None:
    assert calibrate(*values) is None


@pytest.mark.parametrize(
    "values", [(None, 30, 1), (1900, -3, 1), (1900, None, 1), (1900, 30, None), (0, 30, 1), (9, 30, 7)]
)
def test_no_sun_is_no_reflectance(values: Any) -> None:
    assert calibrate(0.1, 0.0, *values) == Calibration((0.1, 0.0), None)


def test_times_that_are_none() -> None:
    assert read_time("2010-01-03T10:11:12.000000Z") == datetime(2010, 1, 3, 10, 11, 12, tzinfo=UTC)
    assert [read_time(text) for text in ("", "NoneTNone", "yesterday")] == [None] * 3


@pytest.mark.parametrize(
    ("make", "more"),
    [
        (pleiades, {"processing": "REFLECTANCE"}),
        (worldview, {"radiometricLevel": '"Corrected";\nradiometricEnhancement = "ACOMP"'}),
        (worldview, {"bitsPerPixel": "8"}),
        (worldview, {"absCalFactor": "none"}),
        (landsat, {f"RADIANCE_MULT_BAND_{band}": "" for band in range(2, 9)}),
    ],
)
def test_products_that_do_not_tell_are_refused(make: Any, more: dict[str, str], tmp_path: Path, fails: Any) -> None:
    line = fails("sharpen", make(tmp_path, **more), "-o", tmp_path / "o.tif", "--method", "exp", "--units", "radiance")
    assert "no metadata tell its radiance; --units goes with whole products" in line


def test_plain_files_and_narrow_types_are_refused(make_pair: Any, tmp_path: Path, fails: Any) -> None:
    files, words = make_pair(), ("-o", tmp_path / "o.tif", "--method", "exp", "--units", "reflectance")
    assert "ms.tif: no metadata" in fails("sharpen", files.pan, files.ms, *words).replace("pan.tif", "ms.tif")
    line = fails("sharpen", landsat(tmp_path / "p"), *words, "-t", "uint8")
    assert "-t uint8: is too narrow for reflectance; choose float32, int16 or uint16" in line


@pytest.mark.parametrize(("dtype", "step"), [(None, 1.0), ("uint16", 1e-4), ("int16", 1e-4)])
def test_output_is_what_its_scale_says(dtype: str | None, step: float, tmp_path: Path, run: Any) -> None:
    folder = landsat(tmp_path / "product")
    for name, units in (("dn.tif", "dn"), ("rho.tif", "reflectance")):
        kind = ("-t", dtype or "float32") if units != "dn" and dtype else ("-t", "float32") if units == "dn" else ()
        words = ("sharpen", folder, "-o", tmp_path / name, "--method", "exp", "--units", units, *kind, "-q")
        result = run(*words)
        assert result.exit_code == 0, result.stderr
        with rasterio.open(tmp_path / name) as made:  # the fidelity's unit
            unit = {"dn": "DN", "reflectance": "reflectance" if step == 1 else "steps of 0.0001 reflectance"}[units]
            assert f" {unit}), worst band" in made.tags()["KSDIFF_FIDELITY"]
    with rasterio.open(tmp_path / "dn.tif") as dn, rasterio.open(tmp_path / "rho.tif") as rho:
        assert rho.dtypes == (dtype or "float32",) * 6 and "KSDIFF_UNITS" not in dn.tags()
        assert (set(rho.scales), set(rho.offsets), set(rho.units)) == ({step}, {0.0}, {"reflectance"})
        tags, wanted = rho.tags(), dn.read() * 4e-4 - 0.2
        assert tags["KSDIFF_UNITS"] == "reflectance" and len(tags["KSDIFF_FROM_DN"].split()) == 7
        found = rho.read() * step
        valid = dn.dataset_mask() > 0
        floor = 0.0 if dtype == "uint16" else -1.0
        np.testing.assert_allclose(
            found[:, valid], np.maximum(wanted, floor)[:, valid], atol=1e-6 if dtype is None else 0.51e-4 + 1e-6
        )


def test_metrics_bring_pan_and_ms_into_the_outputs_units(tmp_path: Path, run: Any) -> None:
    folder, stacked = landsat(tmp_path / "product"), tmp_path / "ms.tif"
    files = [folder / f"{C2}_B{band}.TIF" for band in (3, 4, 5)]
    with rasterio.open(files[0]) as first, rasterio.open(stacked, "w", **first.profile | {"count": 3}) as made:
        for number, file in enumerate(files, start=1):
            with rasterio.open(file) as one:
                made.write(one.read(1), number)
    found = {}
    for units in ("dn", "reflectance"):
        out = tmp_path / f"{units}.tif"
        kind = ("--units", units, "-t", "float32", "--method", "exp", "-b", "2,3,4", "-q")
        assert run("sharpen", folder, "-o", out, *kind).exit_code == 0
        result = run("metrics", out, "--pan", folder / f"{C2}_B8.TIF", "--ms", stacked, "--json")
        assert result.exit_code == 0, result.stderr
        found[units] = json.loads(result.stdout)
    dn, rho = found["dn"], found["reflectance"]
    assert "MS: 0.0004 * DN -0.2; PAN: 0.0004 * DN -0.2" in " ".join(rho["notes"])
    for figure in ("D_rho", "D_sR", "R_Q2n", "sharpness_finest"):  # which know neither unit nor offset
        assert rho[figure] == pytest.approx(dn[figure], rel=1e-5)
    assert dn["R_ERGAS"] < rho["R_ERGAS"] < 10  # the same differences, of a smaller mean


@pytest.mark.parametrize("units", ["radiance", "reflectance"])
def test_arrays_and_half_a_calibration_say_what_is_missing(units: Any, tmp_path: Path) -> None:
    (scene,) = find_scenes(landsat(tmp_path, SUN_ELEVATION="-5"))
    if units == "radiance":
        assert convert_scene(scene, units).pan.unit == "W/m2/sr/um"
    else:
        with pytest.raises(KsdiffError, match=r"_B8.TIF: no metadata tell its reflectance"):
            convert_scene(scene, units)
