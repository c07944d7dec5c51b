"""The sensor table, finding a sensor by any name, choosing its bands, and sensor files."""

import json
import tomllib
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from ksdiff_cli.errors import KsdiffError
from ksdiff_cli.sensors import SENSORS, Sensor, Sources, find_sensor, fold_name

EXAMPLE = Path(__file__).resolve().parents[1] / "sample_data" / "sensor.toml"
KNOWN = [sensor for sensor in SENSORS.values() if sensor.bands]
every_known = pytest.mark.parametrize("sensor", KNOWN, ids=[sensor.name for sensor in KNOWN])

# the reference toolbox's gains at Nyquist: MS, PAN
TOOLBOX = {
    "QB": ((0.34, 0.32, 0.30, 0.22), 0.15),
    "IKONOS": ((0.26, 0.28, 0.29, 0.28), 0.17),
    "GE1": ((0.23, 0.23, 0.23, 0.23), 0.16),
    "WV4": ((0.23, 0.23, 0.23, 0.23), 0.16),
    "WV2": ((0.35, 0.35, 0.35, 0.35, 0.35, 0.35, 0.35, 0.27), 0.11),
    "WV3": ((0.325, 0.355, 0.360, 0.350, 0.365, 0.360, 0.335, 0.315), 0.14),
}
# those of the benchmarking toolbox of Sentinel-2 sharpening, B01 to B12
MSI = (0.3175, 0.275, 0.28, 0.25, 0.365, 0.33, 0.34, 0.24, 0.32, 0.295, 0.30, 0.205, 0.235), 0.261


# bands that no PAN covers: finer bands guide them, so that it has no wavelengths
GUIDED = {"S2", "WV3SWIR", "TIRS", "ETM6"}
THERMAL = {"TIRS", "ETM6"}


def test_the_table_holds_the_promised_sensors() -> None:
    promised = "generic WV2 WV3 WV4 QB GE1 IKONOS GF1 GF2 PLEIADES SPOT6 L7 L8 L9 S2 WV3SWIR TIRS "
    promised += "PNEO CBERS4 CBERS4A PERUSAT1 VISION1 K3 K3A CAS500 GEOSAT2 VRSS1 VRSS2 KANOPUS GF6 GF7 ETM6"
    assert set(promised.split()) <= set(SENSORS)
    assert all(name == sensor.name for name, sensor in SENSORS.items())


@pytest.mark.parametrize("name", SENSORS)
def test_gains_are_the_toolboxs_or_its_generic_ones(name: str) -> None:
    sensor = SENSORS[name]
    gains, pan = MSI if name == "S2" else TOOLBOX.get(name, ((0.30,) * (len(sensor.bands) or 1), 0.15))
    assert (sensor.mtf_ms, sensor.mtf_pan) == (gains, pan)


@every_known
def test_figures_agree_with_each_other(sensor: Sensor) -> None:
    assert len(sensor.bands) == len(sensor.mtf_ms) == len(sensor.wavelengths)
    assert len(set(sensor.bands)) == len(sensor.bands)
    assert all(0 < gain < 1 for gain in (*sensor.mtf_ms, sensor.mtf_pan))
    assert sensor.ratio in (2, 3, 4, 5) and 8 <= sensor.bits <= 16
    assert (sensor.pan_wavelengths is None) == (sensor.name in GUIDED)
    spans = sensor.wavelengths if sensor.pan_wavelengths is None else (*sensor.wavelengths, sensor.pan_wavelengths)
    assert all(350 <= lower < upper <= (13000 if sensor.name in THERMAL else 2500) for lower, upper in spans)
    lowers = [lower for lower, _ in sensor.wavelengths]
    assert lowers == sorted(lowers)


# where the middle of a band called so may lie, nm
COLOURS = {
    "coastal": (420, 430), "deep blue": (420, 430), "blue": (475, 496), "green": (540, 566), "yellow": (600, 610),
    "red": (635, 675), "red edge": (720, 730), "nir": (795, 870), "nir1": (825, 840), "nir2": (945, 955),
    "swir1": (1600, 1660), "swir2": (2190, 2215),
}  # fmt: skip


@pytest.mark.parametrize("sensor", [one for one in KNOWN if one.name not in GUIDED], ids=lambda one: one.name)
def test_wavelengths_are_of_the_colours_named(sensor: Sensor) -> None:
    middles = {name: sum(span) / 2 for name, span in zip(sensor.bands, sensor.wavelengths, strict=True)}
    for name, middle in middles.items():
        assert COLOURS[name][0] <= middle <= COLOURS[name][1], (name, middle)
    assert sensor.pan_wavelengths is not None
    lower, upper = sensor.pan_wavelengths
    assert lower < middles["green"] < middles["red"] < upper


@pytest.mark.parametrize("sensor", SENSORS.values(), ids=SENSORS)
def test_every_figure_has_a_source(sensor: Sensor) -> None:
    assert all(getattr(sensor.sources, each.name).strip() for each in fields(Sources))
    of_toolbox = "Vivone" in sensor.sources.mtf_ms
    assert of_toolbox == ("Vivone" in sensor.sources.mtf_pan) == (sensor.name in TOOLBOX)
    assert of_toolbox or "generic" in sensor.sources.mtf_ms or "Ciotola" in sensor.sources.mtf_ms


def test_no_two_sensors_share_a_name() -> None:
    names = [{fold_name(name) for name in (sensor.name, sensor.title, *sensor.aliases)} for sensor in SENSORS.values()]
    assert sum(map(len, names)) == len(set().union(*names))
    assert "" not in set().union(*names)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("wv3", "WV3"), ("WorldView-3", "WV3"), ("worldview3", "WV3"), ("WV03", "WV3"), ("World View 2", "WV2"),
        ("WV04", "WV4"), ("QB02", "QB"), ("QuickBird", "QB"), ("GeoEye-1", "GE1"), ("GE01", "GE1"), ("IK", "IKONOS"),
        ("Landsat8", "L8"), ("landsat_8", "L8"), ("LC08", "L8"), ("LE07", "L7"), ("Landsat 9 OLI-2", "L9"),
        ("PHR", "PLEIADES"), ("PHR1B", "PLEIADES"), ("Pleiades", "PLEIADES"), ("Pléiades", "PLEIADES"),
        ("Ple\u0301iades", "PLEIADES"), ("Pléiades 1A", "PLEIADES"),
        ("Sentinel-2A", "S2"), ("S2B", "S2"), ("WorldView-3 SWIR", "WV3SWIR"), ("Landsat 8/9 TIRS", "TIRS"),
        ("SPOT7", "SPOT6"), ("SPOT 6", "SPOT6"), ("SPOT 6/7", "SPOT6"),
        ("Sentinel-2A", "S2"), ("S2B", "S2"), ("WorldView-3 SWIR", "WV3SWIR"), ("GF-2", "GF2"), ("GF01", "GF1"),
        ("gaofen_1", "GF1"), ("generic", "generic"), (None, "generic"),
    ],
)  # fmt: skip
def test_any_spelling_finds_the_sensor(name: str | None, expected: str) -> None:
    assert find_sensor(name) is SENSORS[expected]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("wv33", "'wv33': did you mean WV3?"), ("Quikbird", "did you mean QB?"), ("Landsat", "did you mean L"),
        ("Envisat", "known: generic WV2"), ("", "known: "), ("--", "known: "),
    ],
)  # fmt: skip
def test_unknown_name_says_which_is_near(name: str, words: str) -> None:
    with pytest.raises(KsdiffError, match="no sensor is called") as caught:
        find_sensor(name)
    assert words in str(caught.value)


def test_gains_of_a_few_bands_only_where_they_are_equal() -> None:
    assert SENSORS["GE1"].ms_gains(3) == (0.23,) * 3
    assert SENSORS["L8"].ms_gains(1) == (0.30,)
    assert SENSORS["WV3"].ms_gains(8) == SENSORS["WV3"].mtf_ms
    assert SENSORS["generic"].ms_gains(11) == (0.30,) * 11
    assert replace(SENSORS["L7"], mtf_ms=(0.30,)).ms_gains(6) == (0.30,) * 6
    with pytest.raises(KsdiffError, match=r"WV3 has 8 MS bands but the data have 4, .*sensor file"):
        SENSORS["WV3"].ms_gains(4)


@every_known
def test_more_bands_than_the_sensor_has_are_refused(sensor: Sensor) -> None:
    with pytest.raises(
        KsdiffError, match=f"has {len(sensor.bands)} MS bands .* choose the bands .*{sensor.bands[-1]}.* with -b"
    ):
        sensor.ms_gains(len(sensor.bands) + 1)


def test_choosing_bands_picks_every_figure_by_name() -> None:
    chosen = SENSORS["WV3"].with_bands(["NIR2", "rededge", "Blue"])
    assert chosen.bands == ("nir2", "red edge", "blue")
    assert chosen.mtf_ms == chosen.ms_gains(3) == (0.315, 0.36, 0.355)
    assert chosen.wavelengths == ((860, 1040), (705, 745), (450, 510))
    assert (chosen.name, chosen.mtf_pan, chosen.bits) == ("WV3", 0.14, 11)
    assert chosen.with_bands(["blue"]).ms_gains(1) == (0.355,)
    spot = SENSORS["SPOT6"].with_bands(["red", "green", "blue", "nir"])
    assert spot.bands == ("red", "green", "blue", "nir") and spot.wavelengths[0] == (625, 695)
    one_gain = replace(SENSORS["L7"], mtf_ms=(0.30,), wavelengths=()).with_bands(["nir", "red"])
    assert one_gain.ms_gains(2) == (0.30, 0.30) and one_gain.wavelengths == ()


def test_choosing_bands_that_are_not_there() -> None:
    with pytest.raises(KsdiffError, match="QB has no band 'yellow'; it has blue, green, red, nir"):
        SENSORS["QB"].with_bands(["blue", "yellow"])
    with pytest.raises(KsdiffError, match="no band is named"):
        SENSORS["QB"].with_bands([])
    assert SENSORS["generic"].with_bands(["anything"]) is SENSORS["generic"]


@pytest.mark.parametrize(
    "sensor",
    [*SENSORS.values(), SENSORS["WV3"].with_bands(["red", "green"]), replace(SENSORS["L7"], name="L7+L8")],
    ids=lambda sensor: sensor.name,
)
def test_values_survive_a_file(sensor: Sensor) -> None:
    found = Sensor.from_dict(json.loads(json.dumps(sensor.to_dict())))
    assert found == sensor
    assert found.sources == sensor.sources
    assert found.to_dict() == sensor.to_dict()


def test_older_files_are_understood() -> None:
    older = {
        "name": "QB", "title": "QuickBird", "bands": ["blue", "green", "red", "nir"], "ratio": 4, "bits": 11,
        "mtf_ms": [0.5, 0.4, 0.3, 0.2], "mtf_pan": 0.1, "source": "somebody", "swath": 16.5,
    }  # fmt: skip
    found = Sensor.from_dict(older)
    assert (found.mtf_ms, found.mtf_pan) == ((0.5, 0.4, 0.3, 0.2), 0.1)
    assert found.wavelengths == SENSORS["QB"].wavelengths and found.sources.mtf_pan == "somebody"
    assert Sensor.from_dict({**older, "bands": ["red", "nir"], "mtf_ms": [0.3, 0.2]}).wavelengths == ()
    assert Sensor.from_dict({"name": "QB", "bits": 12}) == replace(SENSORS["QB"], bits=12)
    assert Sensor.from_dict({}) is Sensor.from_dict({"name": "XYZ"}) is SENSORS["generic"]
    own = Sensor.from_dict({"name": "XYZ", "mtf_ms": [0.2, 0.3]})
    assert (own.name, own.bands, own.ms_gains(2), own.mtf_pan) == ("XYZ", (), (0.2, 0.3), 0.15)


@pytest.mark.parametrize(
    "damage", [{"mtf_ms": 7}, {"bits": "many"}, {"wavelengths": [[450]]}, {"sources": "x"}, {"bands": None}]
)
def test_damaged_values_are_refused(damage: dict[str, Any]) -> None:
    with pytest.raises(KsdiffError, match="stated values of sensor 'WV3' are damaged"):
        Sensor.from_dict({**SENSORS["WV3"].to_dict(), **damage})


def test_the_example_file_shows_every_key() -> None:
    sensor = find_sensor(str(EXAMPLE))
    assert (sensor.name, sensor.bits, sensor.ratio, sensor.mtf_pan) == ("EXAMPLE1", 12, 4, 0.15)
    assert sensor.bands == ("blue", "green", "red", "nir")
    assert sensor.ms_gains(4) == (0.32, 0.31, 0.30, 0.26)
    assert sensor.wavelengths[-1] == (760, 890) and sensor.pan_wavelengths == (450, 745)
    shown = tomllib.loads(EXAMPLE.read_text(encoding="utf-8"))
    assert set(shown) == {each.name for each in fields(Sensor)} - {"aliases"}
    assert set(shown["sources"]) == {each.name for each in fields(Sources)}
    assert Sensor.from_dict(json.loads(json.dumps(sensor.to_dict()))) == sensor


SHORT = {
    "name": '"MINE"', "bands": '["a", "b", "c"]', "ratio": "3", "bits": "10", "mtf_ms": "0.25", "mtf_pan": "0.2",
}  # fmt: skip


def write(folder: Path, **changes: str | None) -> str:
    """Write a sensor file of the needed keys with some of them changed, added or (None) left out."""
    lines = [f"{key} = {text}" for key, text in {**SHORT, **changes}.items() if text is not None]
    path = folder / "mine.toml"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(path)


def test_the_shortest_file(tmp_path: Path) -> None:
    sensor = find_sensor(write(tmp_path))
    assert sensor == Sensor("MINE", "MINE", ("a", "b", "c"), 3, 10, (0.25, 0.25, 0.25), 0.2)
    assert sensor.with_bands(["C", "a"]).bands == ("c", "a")
    (tmp_path / "mine.toml").rename(tmp_path / "MINE.TOML")
    assert find_sensor(str(tmp_path / "MINE.TOML")) == sensor


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"mtf_msx": "0.3"}, "unknown key 'mtf_msx': did you mean mtf_ms?"),
        ({"swath": "13"}, "unknown key 'swath': known: name, bands"),
        ({"mtf_ms": None}, "has no mtf_ms; needed are name, bands, ratio, bits, mtf_ms, mtf_pan; where no figure"),
        ({"bits": None}, "has no bits; needed are"),
        ({"name": "7"}, "name: must be a text of one line in quotes, not 7"),
        ({"name": '"  "'}, "name: must be a text"),
        ({"name": '"wv-03"'}, "name: 'wv-03' is a sensor that ksdiff knows already"),
        ({"title": '"two\\nlines"'}, "title: must be a text of one line"),
        ({"bands": '"red"'}, "bands: must be a list of names"),
        ({"bands": "[]"}, "bands: must be a list of names"),
        ({"bands": '["a", 2, "c"]'}, "bands, number 2: must be a text"),
        ({"bands": '["a", "b", "A"]'}, "bands: 'a' stands there twice"),
        ({"ratio": "4.0"}, "ratio: must be a whole number from 2 to 20, not 4.0"),
        ({"ratio": "1"}, "ratio: must be a whole number from 2 to 20, not 1"),
        ({"bits": "true"}, "bits: must be a whole number from 1 to 16, not True"),
        ({"bits": "2047"}, "bits: must be a whole number"),
        ({"mtf_ms": "[0.3, 0.3]"}, "mtf_ms: has 2 gains for 3 bands"),
        ({"mtf_ms": "[0.3, 1.0, 0.3]"}, "mtf_ms, band 2: an MTF gain at Nyquist lies between 0 and 1"),
        ({"mtf_ms": "nan"}, "mtf_ms: an MTF gain"),
        ({"mtf_pan": "0"}, "mtf_pan: an MTF gain"),
        ({"mtf_pan": '"0.15"'}, "mtf_pan: an MTF gain at Nyquist lies between 0 and 1, for example 0.30; not '0.15'"),
        ({"wavelengths": "[[450, 510]]"}, "wavelengths: has 1 pairs for 3 bands"),
        ({"wavelengths": "450"}, "wavelengths: must be a list of pairs"),
        ({"wavelengths": "[[450, 510], [580, 510], [600, 700]]"}, "wavelengths, band 2: must be lower and upper edge"),
        ({"pan_wavelengths": "[0.45, 0.8]"}, "pan_wavelengths: must be lower and upper edge in nm (200 to 15000)"),
        ({"pan_wavelengths": "[450]"}, "pan_wavelengths: must be lower and upper edge"),
        ({"sources": '"me"'}, "sources: must be a table of texts"),
        ({"sources": '{mtf = "me"}'}, "unknown key in [sources] 'mtf': "),
        ({"sources": "{bits = 3}"}, "sources, bits: must be a text"),
        ({"mtf_pan": "0,15"}, "is not TOML: "),
        ({"ratio": f"0x{'f' * 5000}"}, "ratio: must be a whole number from 2 to 20, not a number too long"),
        ({"bits": f"-0b{'1' * 20_000}"}, "is not TOML: "),
        ({"mtf_pan": f"0o{'7' * 9000}"}, "mtf_pan: an MTF gain at Nyquist"),
        ({"mtf_pan": f"1e{'9' * 4000}"}, "mtf_pan: an MTF gain at Nyquist"),
        ({"pan_wavelengths": f"[1, 0x{'f' * 9000}]"}, "pan_wavelengths: must be lower"),
        ({"title": f'"{chr(0x9B)}31m"'}, "title: must be a text of one line"),
        ({"a" * 9000: "1"}, "unknown key 'aaa"),
        ({"bands": json.dumps([f"b{n}" for n in range(5000)]), "mtf_ms": "[0.3]"}, "has 1 gains for 5000 bands"),
    ],
)
def test_bad_files_say_what_is_wrong(changes: dict[str, str | None], words: str, tmp_path: Path) -> None:
    path = write(tmp_path, **changes)
    with pytest.raises(KsdiffError) as caught:
        find_sensor(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ") and words in message
    assert "\n" not in message and len(message) < len(path) + 250


def test_what_is_no_toml_file(tmp_path: Path) -> None:
    with pytest.raises(KsdiffError, match=r"gone\.toml: no such sensor file"):
        find_sensor(str(tmp_path / "gone.toml"))
    (tmp_path / "bad.toml").write_text('name = "MINE"\nbands = ["a" "b"]\n')
    with pytest.raises(KsdiffError, match=r"bad\.toml: is not TOML: .*line 2"):
        find_sensor(str(tmp_path / "bad.toml"))
    (tmp_path / "latin.toml").write_bytes('name = "Pléiades"\n'.encode("latin-1"))
    with pytest.raises(KsdiffError, match=r"latin\.toml: is not TOML: it is no UTF-8 text"):
        find_sensor(str(tmp_path / "latin.toml"))
    for name, text in {
        "digits": f"ratio = {'9' * 5000}",
        "date": "name = 9999-99-99",
        "deep": "name = " + "[" * 10_000,
        "tables": "[a" + ".a" * 20_000 + "]",
        "large": "#" * (1 << 20) + "\n",
    }.items():
        (tmp_path / f"{name}.toml").write_text(text)
        with pytest.raises(KsdiffError, match=rf"{name}\.toml: (is not TOML|is too large|unknown key)") as caught:
            find_sensor(str(tmp_path / f"{name}.toml"))
        assert len(str(caught.value).partition(".toml: ")[2]) < 400
    (tmp_path / "folder.toml").mkdir()
    with pytest.raises(KsdiffError, match=r"folder\.toml: cannot be read"):
        find_sensor(str(tmp_path / "folder.toml"))


def test_a_sensor_file_on_the_command_line(run: Any, fails: Any, make_pair: Any, tmp_path: Path) -> None:
    pytest.importorskip("rasterio")
    files = make_pair()
    target = tmp_path / "out.tif"
    more = ("-o", target, "--method", "mtf-glp-fs", "--overwrite", "--sensor")
    assert run("sharpen", files.pan, files.ms, *more, EXAMPLE).exit_code == 0
    import rasterio

    with rasterio.open(target) as dataset:
        assert dataset.tags()["KSDIFF_SENSOR"] == "EXAMPLE1"
    assert "MINE has 3 MS bands but the data have 4" in fails("sharpen", files.pan, files.ms, *more, write(tmp_path))


def test_info_lists_and_describes_sensors(run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = run("info", "sensors").stdout.splitlines()
    assert len(lines) == len(SENSORS) and lines[0].startswith("generic") and "WorldView-3: coastal, blue" in lines[2]
    listed = json.loads(run("info", "sensors", "--json").stdout)
    assert [sensor["name"] for sensor in listed["sensors"]] == list(SENSORS)
    found = json.loads(run("info", "worldview-3", "--json").stdout)
    assert (found["kind"], found["name"]) == ("sensor", "WV3")
    assert found["pan"] == {"wavelengths_nm": [450, 800], "mtf": 0.14}
    assert found["bands"][5] == {"name": "red edge", "wavelengths_nm": [705, 745], "mtf": 0.36}
    assert "Vivone" in found["sources"]["mtf_ms"]
    assert json.loads(run("info", EXAMPLE, "--json").stdout)["name"] == "EXAMPLE1"
    assert "mtf: 0.3" in run("info", "generic").stdout
    # a file of that name comes first
    monkeypatch.chdir(tmp_path)
    Path("WV3").write_text("no raster")
    assert "cannot be opened as a raster" in run("info", "WV3").stderr
