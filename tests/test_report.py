"""The HTML report: self-contained, true to the figures, the same colours for every method, the same bytes twice."""

import base64
import math
import re
import tomllib
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rasterio.io import MemoryFile

from ksdiff_cli.errors import KsdiffError
from ksdiff_cli.evaluation.measure import measure_against_reference, measure_at_full_resolution
from ksdiff_cli.metrics import ABOUT
from ksdiff_cli.numerics.boxes import Box
from ksdiff_cli.report import (
    Example,
    Mark,
    Report,
    check_report,
    colours,
    page,
    rgb_bands,
    table,
    write_report,
)
from ksdiff_cli.report.charts import make_chart
from ksdiff_cli.report.colours import encode_picture, find_stretch, palette, reduce
from ksdiff_cli.report.pictures import (
    choose_bar,
    choose_details,
    make_gallery,
    relative_errors,
    show_valid,
    whole_limit,
)

Array = np.ndarray[Any, Any]
NAN, INF = math.nan, math.inf
VOID = {"meta", "link", "img", "input", "br", "path", "line", "use", "rect", "stop"}
ROOT = Path(__file__).resolve().parents[1]


class Page(HTMLParser):
    """What a browser would find, and whether every element is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.texts: list[tuple[str, str]] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open and self.open.pop() == tag, tag

    def handle_data(self, data: str) -> None:
        self.texts.append((self.open[-1] if self.open else "", data))

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for found, attributes in self.elements if found == tag]

    def text(self) -> str:
        return " ".join(text for tag, text in self.texts if tag not in ("style", "script"))


def part(name: str, *values: Any) -> str:
    """A part of the page by itself."""
    return str(getattr(page.environment().get_template("parts.html").module, name)(*values))


def chart(*values: Any) -> str:
    return part("chart", make_chart(*values))


def decode(png: bytes) -> Array:
    with MemoryFile(png) as memory, memory.open() as file:
        return np.asarray(file.read())


def image(seed: int, bands: int = 4, size: tuple[int, int] = (240, 224)) -> Array:
    return np.random.default_rng(seed).uniform(100, 900, (bands, *size)).astype(np.float32)


def example(methods: int = 2, bands: int = 4, size: tuple[int, int] = (240, 224), **changes: Any) -> Example:
    truth = image(0, bands, size)
    fused = {
        f"m{index}": truth + (index + 1) * 10 * (image(index + 1, bands, size) / 500 - 1) for index in range(methods)
    }
    parts: dict[str, Any] = {"pan": truth.mean(0), "ms_up": truth * 0.9, "truth": truth} | changes
    return Example("test.h5, image 0", fused, **parts)


def report(**changes: Any) -> Report:
    parts: dict[str, Any] = {
        "title": "Methods",
        "protocol": "reduced",
        "command": "ksdiff evaluate test.h5",
        "facts": {"sensor": "QB", "data": "test.h5"},
        "images": ["test.h5, image 0", "test.h5, image 1"],
        "values": {
            "m0": {"SAM": [2.0, 4.0], "Q2n": [0.5, 0.75]},
            "m1": {"SAM": [1.0, 2.0], "Q2n": [0.25, 0.25]},
        },
        "seconds": {"m0": [0.5, 0.25], "m1": [1.0, 2.0]},
        "examples": [],
        "notes": ["a note"],
    }
    return Report(**(parts | changes))


def written(tmp_path: Path, made: Report) -> tuple[str, Page]:
    write_report(made, tmp_path / "out.html", overwrite=True)
    text = (tmp_path / "out.html").read_text("utf-8")
    return text, Page(text)


# ---- the page


def test_the_page_stands_alone(tmp_path: Path) -> None:
    text, found = written(tmp_path, report(examples=[example()]))
    plain = re.sub(r"base64,[A-Za-z0-9+/=]+", "", text)
    assert not re.search(r"https?:|//[a-z]|@import|url\((?!#)", plain.split("<script>")[0])
    for _, attributes in found.elements:
        for name in ("src", "href", "srcset", "action", "poster"):
            assert attributes.get(name, "#").startswith(("#", "data:"))
    assert "http" not in text.split("<script>")[1] and "fetch" not in text.split("<script>")[1]
    (policy,) = [one["content"] for one in found.all("meta") if one.get("http-equiv") == "Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; img-src data:;")
    ids = [attributes["id"] for _, attributes in found.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert {one["href"][1:] for one in found.all("use")} <= set(ids)


def test_every_picture_decodes_to_its_size_and_has_words(tmp_path: Path) -> None:
    _, found = written(tmp_path, report(examples=[example(), example(1, size=(700, 1100))]))
    images = found.all("img")
    # whole, two details: PAN, MS, methods, truth; errors: methods
    assert len(images) == 3 * 5 + 2 + 3 * 4 + 1
    for one in images:
        pixels = decode(base64.b64decode(one["src"].partition("base64,")[2]))
        assert pixels.shape[1:] == (int(one["height"]), int(one["width"]))
        assert "test.h5, image 0" in one["alt"]
    assert {(int(one["width"]), int(one["height"])) for one in images} == {(224, 240), (64, 64), (550, 350), (96, 96)}
    assert "each pixel is the mean of 2 × 2" in found.text()


def test_the_table_says_what_the_values_are(tmp_path: Path) -> None:
    text, _ = written(tmp_path, report())
    rows = re.findall(r"<tr><th scope=\"row\".*?</tr>", text)
    assert '<u>3.0000</u><span class="std"> ± 1.0000</span>' in rows[0]
    assert '<b>0.6250</b><span class="std"> ± 0.1250</span>' in rows[0] and ">0.375<" in rows[0]
    assert "<b>1.5000</b>" in rows[1] and "<u>0.2500</u>" in rows[1] and ">1.500<" in rows[1]
    assert 'data-v="3.0"' in rows[0]
    assert "SAM&nbsp;↓" in text and "Q2n&nbsp;↑" in text


def test_differences_draws_and_what_is_known_of_images(tmp_path: Path) -> None:
    text, found = written(
        tmp_path,
        report(
            about_images=["shift <1>", "shift 2"],
            differences={"m0": {"SAM": ["+1.5000", "+1.0 … +2.0", "p 0.5, m1"]}, "m1": {}},
            draws={"m1": {"SAM": 0.0123, "Q2n": NAN}},
        ),
    )
    assert "+1.5000" in found.text() and "p 0.5, m1" in found.text() and "not corrected" in found.text()
    assert "over draws" in found.text() and "0.012" in found.text()
    assert "<li>test.h5, image 0: shift &lt;1&gt;</li>" in text
    assert "against the best other" not in written(tmp_path, report())[1].text()


def test_marks() -> None:
    assert table.rank({"a": 1.0, "b": 3.0, "c": 2.0, "d": NAN}, "SAM") == {"a": 1, "c": 2}
    assert table.rank({"a": 1.0, "b": 3.0, "c": 2.0}, "Q2n") == {"b": 1, "c": 2}
    assert table.rank({"a": 1.0, "b": 1.0, "c": 2.0}, "SAM") == {"a": 1, "b": 1}
    assert table.rank({"a": 1.0, "b": 2.0, "c": 2.0}, "SAM") == {"a": 1, "b": 2, "c": 2}
    assert table.rank({"a": INF, "b": 40.0}, "PSNR") == {"a": 1, "b": 2}
    assert table.rank({"a": 1.0, "b": NAN}, "Q2n") == {}
    assert table.rank({"a": 0.7, "b": 1.1, "c": 1.5, "d": 0.95}, "sharpness_finest") == {"d": 1, "b": 2}


def test_values_without_a_number(tmp_path: Path) -> None:
    values = {
        "m0": {"SAM": [NAN, NAN], "PSNR": [INF, 30.0]},
        "m1": {"SAM": [NAN, 2.0], "PSNR": [20.0, 30.0]},
    }
    text, found = written(tmp_path, report(values=values, seconds={}))
    assert text.count("undefined</td>") == 1 and "∞" in found.text()
    assert "2.0000</b>" not in text and "(1 of 2)" in found.text()
    assert "infinite: 3 of 4 values" in found.text() and "infinite: 1 of 4 values" in found.text()
    assert "s / image" not in text and not re.search(r'(x|y|cy|d)="[^"]*(nan|inf)', text)


def test_every_metric_is_explained() -> None:
    assert all(about.what and bool(about.rewards) == bool(about.fooled) for about in ABOUT.values())
    assert "rewards" in part("definitions", ["HQNR"]) and "never choose" in part("definitions", ["HQNR"])
    assert "→1" in part("definitions", ["sharpness_next"])
    assert "best is 0" in part("definitions", ["SAM"]) and "higher is better" in part("definitions", ["PSNR"])
    assert part("definitions", ["new <metric>"]) == "<dl><dt>new &lt;metric&gt; </dt><dd></dd></dl>"


def test_names_are_escaped(tmp_path: Path) -> None:
    evil = "<script>alert('x')</script>&\""
    made = example()
    made = replace(made, name=evil, fused={evil: made.fused["m0"]}, note=evil, boxes=(Mark(evil, Box(1, 1, 10, 10)),))
    text, found = written(
        tmp_path,
        report(
            title=evil, command=evil, facts={evil: evil}, images=[evil, "b"], notes=[evil], examples=[made],
            values={evil: {"SAM": [1.0, 2.0], evil: [3.0, 4.0]}}, seconds={evil: [1.0, 2.0]},
        ),
    )  # fmt: skip
    assert text.count("<script>") == 1 and "alert('x')" not in text.replace("&#x27;", "'").split("<script>")[1]
    assert found.text().count(evil) >= 12
    assert any(evil in one["alt"] for one in found.all("img"))


def test_a_page_without_pictures_and_of_one_image(tmp_path: Path) -> None:
    one = report(images=["a"], values={"m0": {"SAM": [2.0]}}, seconds={"m0": [0.1]})
    text, found = written(tmp_path, one)
    assert found.all("img") == [] and 'class="chart"' not in text and "<b>2" not in text and "± " not in text
    written(tmp_path, report(images=[], values={}, seconds={}, notes=[], facts={}, command=""))


def test_same_bytes_twice(tmp_path: Path) -> None:
    made = report(examples=[example()])
    for name in ("a.html", "b.html"):
        write_report(made, tmp_path / name)
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()


def test_reports_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="needs 2 values"):
        report(values={"m0": {"SAM": [1.0]}})
    with pytest.raises(ValueError, match="seconds"):
        report(seconds={"other": [1.0]})
    with pytest.raises(ValueError, match="truth must have the shape"):
        example(truth=image(0, 3))
    with pytest.raises(ValueError, match="valid must have"):
        example(valid=np.ones((3, 3), bool))
    with pytest.raises(ValueError, match="4 bands, not"):
        replace(example(), bands=(0, 1, 4))


# ---- the file


def test_what_cannot_be_written_is_refused(tmp_path: Path) -> None:
    taken = tmp_path / "taken.html"
    taken.write_text("mine")
    (tmp_path / "folder.html").mkdir()
    for path, message in (
        (taken, "exists already"),
        (tmp_path / "no" / "a.html", "does not exist"),
        (tmp_path / "a.tif", "end in .html"),
        (tmp_path / "folder.html", "is a folder"),
    ):
        with pytest.raises(KsdiffError, match=message):
            check_report(path, overwrite=False)
        with pytest.raises(KsdiffError, match=message):
            write_report(report(), path)
    assert taken.read_text() == "mine"
    check_report(taken, overwrite=True)
    check_report(tmp_path / "new.html", overwrite=False)


def test_failure_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = tmp_path / "old.html"
    old.write_text("mine")

    def fail(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(KsdiffError, match=r"old\.html: cannot be written \(No space left on device\)"):
        write_report(report(), old, overwrite=True)
    monkeypatch.setattr(page, "make_page", lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_report(report(), tmp_path / "new.html")
    assert [path.name for path in tmp_path.iterdir()] == ["old.html"] and old.read_text() == "mine"


def test_style_and_script_are_packaged() -> None:
    setup = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    assert "ksdiff_cli.report" in setup["packages"]
    data = {f"*{path.suffix}" for path in Path(page.__file__).parent.iterdir() if path.suffix not in {".py", ""}}
    assert data == set(setup["package-data"]["ksdiff_cli.report"])


# ---- pictures


def test_bands_to_show() -> None:
    assert rgb_bands(8) == (4, 2, 1) and rgb_bands(4) == (2, 1, 0) and rgb_bands(3) == (0, 1, 2)
    assert rgb_bands(1) == rgb_bands(2) == (0, 0, 0)
    assert rgb_bands(3, ["Blue", "Green", "Red"]) == (2, 1, 0)
    assert rgb_bands(6, ("blue", "green", "red", "nir", "swir1", "swir2")) == (2, 1, 0)
    assert rgb_bands(8, ("b1", "b2")) == (4, 2, 1)


def test_one_stretch_for_all() -> None:
    """What is too bright looks too bright; PAN, another quantity, has its own stretch."""
    made = example()
    assert made.truth is not None and made.pan is not None
    made = replace(made, fused={"equal": made.truth, "brighter": made.truth + 80}, pan=made.pan * 7, bands=(2, 1, 0))
    pictures = {one.name: decode(one.png).astype(int) for one in make_gallery(made).strips[0].pictures}
    np.testing.assert_array_equal(pictures["equal"], pictures["truth"])
    dark = (pictures["truth"] < 150).all(0)
    step = 80 / (0.96 * 800) * 255  # uniform values: the stretch spans 96 % of them
    difference = (pictures["brighter"] - pictures["truth"])[:, dark]
    assert difference.mean() == pytest.approx(step, rel=0.1) and difference.min() > 0
    assert pictures["PAN"].shape[0] == 1 and 100 < pictures["PAN"].mean() < 155
    # 2 % of the pixels are black and 2 % at full brightness, in every band
    for band in pictures["truth"]:
        assert (band == 0).mean() == pytest.approx(0.02, abs=0.01)
        assert (band == 255).mean() == pytest.approx(0.02, abs=0.01)


def test_without_truth_ms_gives_the_stretch() -> None:
    made = example(truth=None)
    assert made.ms_up is not None
    gallery = make_gallery(replace(made, bands=(1, 1, 1)))
    expected = encode_picture(made.ms_up[[1]], show_valid(made), find_stretch(made.ms_up[[1]], show_valid(made)))
    assert [one.png for one in gallery.strips[0].pictures if one.name == "MS upsampled"] == [expected]
    assert [strip.kind for strip in gallery.strips] == ["whole", "detail", "detail"]
    assert "band 2 in grey" in gallery.note and "2–98 % of MS" in gallery.note


@pytest.mark.parametrize("methods", [1, 3])
@pytest.mark.parametrize("bands", [1, 2, 3, 4, 8])
def test_any_number_of_bands_and_methods(tmp_path: Path, methods: int, bands: int) -> None:
    made = example(methods, bands, size=(96, 100), ms_up=None, pan=None)
    _, found = written(tmp_path, report(examples=[made]))
    first = decode(base64.b64decode(found.all("img")[0]["src"].partition("base64,")[2]))
    assert first.shape == (3 if bands > 2 else 1, 96, 100)


def test_invalid_pixels_are_transparent_and_do_not_count() -> None:
    made = example()
    assert made.truth is not None
    valid = np.ones((240, 224), bool)
    valid[:20] = False
    fused = {name: value.copy() for name, value in made.fused.items()}
    fused["m0"][:, :20] = 60000
    fused["m1"][2, 30, 40] = np.nan
    truth = made.truth.copy()
    truth[:, :20] = -9999
    gallery = make_gallery(replace(made, fused=fused, truth=truth, valid=valid))
    clean = make_gallery(made)
    for one, other in zip(gallery.strips[0].pictures, clean.strips[0].pictures, strict=True):
        pixels, before = decode(one.png), decode(other.png)
        assert (pixels[-1, :20] == 0).all() and (pixels[-1, 21:30] == 255).all() and pixels[-1, 30, 40] == 0
        assert np.abs(pixels[:-1, 40:].astype(int) - before[:, 40:]).max() <= 12
    errors = decode(gallery.strips[-1].pictures[0].png)[0]
    assert (errors[:20] == 0).all() and errors[30, 40] == 0 and (errors[31:] > 0).all()
    assert gallery.strips[-1].top < 1 and "hatched" in gallery.note and "hatched" not in clean.note
    nothing = make_gallery(replace(made, valid=np.zeros_like(valid)))
    assert len(nothing.strips) == 1 and (decode(nothing.strips[0].pictures[1].png) == 0).all()


@pytest.mark.parametrize(
    ("width", "step", "metres", "pixels", "text"),
    [
        (300, 1, None, 100, "100 px"),
        (299, 1, None, 50, "50 px"),
        (64, 1, None, 20, "20 px"),
        (512, 8, None, 125, "1000 px"),
        (512, 1, 0.5, 100, "50 m"),
        (512, 4, 15.0, 10_000 / 60, "10 km"),
        (60, 1, 0.04, 12.5, "0.5 m"),
        (96, 1, 0.3, 5 / 0.3, "5 m"),
        (480, 0.1, None, 100, "10 px"),
    ],
)
def test_a_scale_bar_is_round_and_takes_at_most_a_third(width, step, metres, pixels, text) -> None:
    bar = choose_bar(width, step, metres)
    assert bar.text == text and bar.pixels == pytest.approx(pixels)
    assert width / 7.6 < bar.pixels <= width / 3 + 1e-9


def test_every_row_of_pictures_has_its_own_scale_bar(tmp_path: Path) -> None:
    made = replace(example(size=(240, 250)), metres=0.3)
    strips = make_gallery(made, limit=125).strips
    # whole image: 125 pixels of 0.6 m; details: 64 of 0.3 m
    assert [strip.scale.text for strip in strips] == ["20 m", "5 m", "5 m", "20 m"]
    assert strips[0].scale.pixels == pytest.approx(20 / 0.6)
    text, _ = written(tmp_path, report(examples=[made]))
    bars = re.findall(r'<i class="scale" style="width:([\d.]+)%"><b>([^<]+)</b></i>', text)
    assert [label for _, label in bars] == [strip.scale.text for strip in strips]
    for (width, label), shown in zip(bars, (250, 64, 64, 250), strict=True):
        assert float(width) == pytest.approx(100 * float(label.removesuffix(" m")) / (shown * 0.3), abs=0.01)


def test_a_measured_raster_tells_the_size_of_its_pixels(make_pair: Any) -> None:
    for name, crs, metres in (("here", "EPSG:32631", 2.0), ("nowhere", None, None)):
        ms = make_pair(name, crs=crs).ms
        (shown,) = measure_against_reference(ms, ms, pictures=True).examples
        assert shown.metres == metres
    files = make_pair("full", size=(128, 128), bands=1)
    (shown,) = measure_at_full_resolution(files.pan, files.pan, files.ms, pictures=True).examples
    assert shown.metres == 0.5


def test_errors_have_one_scale_and_rise_in_lightness() -> None:
    made = example()
    assert made.truth is not None
    worse = {"near": made.truth * 1.01, "far": made.truth * 1.1}
    strip = make_gallery(replace(made, fused=worse)).strips[-1]
    near, far = (decode(one.png)[0] for one in strip.pictures)
    assert far.mean() > 3 * near.mean()
    assert [one.figure for one in strip.pictures] == [f"RMSE {x:.1f} %" for x in _relative(made.truth, 0.01, 0.1)]
    points = np.array([colour[:3] for number, colour in palette().items() if number]) / 255
    linear = np.where(points <= 0.04045, points / 12.92, ((points + 0.055) / 1.055) ** 2.4)
    lightness = 116 * np.cbrt(linear @ [0.2126, 0.7152, 0.0722]) - 16
    assert (np.diff(lightness) > 0.5).all() and np.diff(lightness).max() < 3 * np.diff(lightness).mean()


def _relative(truth: Array, *shares: float) -> list[float]:
    relative = np.sqrt(np.mean(np.mean(truth.astype(float) ** 2, (1, 2)) / np.mean(truth.astype(float), (1, 2)) ** 2))
    return [100 * share * float(relative) for share in shares]


def test_relative_errors() -> None:
    truth = np.stack([np.full((2, 2), 10.0), np.full((2, 2), 100.0), np.zeros((2, 2))])
    fused = truth.copy()
    fused[0, 0, 0] += 1
    fused[1, 0, 0] -= 10
    found = relative_errors(fused, truth, np.array([[True, True], [True, False]]))
    np.testing.assert_allclose(found, [[0.1, 0], [0, 0]])
    assert (relative_errors(fused, truth, np.zeros((2, 2), bool)) == 0).all()


def test_details_lie_where_it_matters() -> None:
    made = example(size=(300, 320))
    truth = np.full((4, 300, 320), 500.0) + np.arange(320)
    first, second = truth.copy(), truth.copy()
    first[:, 40:70, 200:230] += 90  # here they differ
    both = np.s_[:, 200:250, 60:110]  # here both are wrong alike, and more so
    first[both] += 200
    second[both] += 200
    made = replace(made, truth=truth, fused={"a": first, "b": second})
    (differ, why), (wrong, other) = choose_details(made, show_valid(made), 64)
    assert "differ most" in why and "error is highest" in other
    assert Box(40, 200, 70, 230).meet(differ.box) == Box(40, 200, 70, 230)
    assert Box(200, 60, 250, 110).meet(wrong.box) == Box(200, 60, 250, 110)
    strips = make_gallery(made).strips
    assert strips[0].boxes == (differ, wrong) and [strip.kind for strip in strips] == [
        "whole",
        "detail",
        "detail",
        "error",
    ]
    assert choose_details(example(size=(70, 320)), np.ones((70, 320), bool), 64) == []


def test_details_never_overlap_and_avoid_what_is_invalid() -> None:
    made = example(1, size=(180, 200), truth=None)
    valid = np.ones((180, 200), bool)
    valid[:, 120:] = False
    (first, _), (second, _) = choose_details(replace(made, valid=valid), valid, 64)
    assert first.box.meet(second.box).empty
    assert max(first.box.right, second.box.right) <= 124


def test_reduced_examples_have_boxes_but_no_errors() -> None:
    box = Mark("A", Box(30, 40, 94, 104))
    strips = make_gallery(replace(example(size=(900, 900)), reduction=4, boxes=(box,))).strips
    assert [strip.kind for strip in strips] == ["whole"] and "mean of 8 × 8" in strips[0].note
    assert strips[0].boxes == (Mark("A", Box(15, 20, 47, 52)),)


def test_reduction_is_the_mean_of_valid_pixels() -> None:
    values = np.arange(15, dtype=np.float32).reshape(1, 3, 5)
    valid = np.ones((3, 5), bool)
    valid[0, 0] = valid[2, 2] = valid[2, 3] = False
    means, seen = reduce(values, valid, 2)
    np.testing.assert_allclose(means[0], [[12 / 3, 5, 6.5], [10.5, 0, 14]])
    np.testing.assert_array_equal(seen, [[True, True, True], [True, False, True]])


def test_pages_stay_handy() -> None:
    few, many = [example(2, size=(1024, 1024))], [example(12, size=(300, 300))] * 6
    assert whole_limit(few) == 768 and 200 < whole_limit(many) < 300 and whole_limit([]) == 768
    limit = whole_limit(many)
    noise = sum(len(one.png) for strip in make_gallery(many[0], limit).strips for one in strip.pictures)
    # noise is the worst there is: three bytes a pixel
    assert 6 * noise * 4 / 3 < 25e6


def test_png_is_quiet_and_exact(recwarn: pytest.WarningsRecorder) -> None:
    levels = np.arange(128, dtype=np.float64).reshape(1, 8, 16)
    stretch = colours.Stretch(np.zeros(1), np.full(1, 127.0))
    png = encode_picture(levels, np.ones((8, 16), bool), stretch)
    assert not recwarn.list
    np.testing.assert_array_equal(decode(png)[0], np.floor(levels[0] * 255 / 127 + 0.5))


# ---- charts


def test_a_chart_shows_every_value_once() -> None:
    drawn = chart("SAM", "°", ["a", "b & c", "d"], {"m<0": [1.0, 2.0, NAN], "m1": [3.0, 4.0, 5.0]})
    found = Page(drawn)
    assert len(found.all("use")) == 5 and "infinite: 1 of 6 values" in drawn
    assert "<title>m&lt;0 · b &amp; c: 2.0000°</title>" in drawn
    heights = [float(one["y"]) for one in found.all("use")]
    assert heights == sorted(heights, reverse=True)  # y grows downwards
    assert np.ptp(np.diff(heights)) < 0.2
    assert all(0 <= float(one["x"]) <= 380 and 0 <= float(one["y"]) <= 214 for one in found.all("use"))


@pytest.mark.parametrize("values", [[NAN, NAN], [0.0, 0.0], [5.0, 5.0], [-1e-7, 1e-7], [1e6, 3e6], [INF, 2.0]])
def test_charts_of_odd_values(values: list[float]) -> None:
    drawn = chart("SAM", "", ["a", "b"], {"m": values})
    assert "nan" not in drawn.replace("undefined or infinite", "") and len(re.findall('class="grid"', drawn)) >= 2


def test_many_markers_carry_no_text() -> None:
    values = {f"m{index}": list(np.linspace(0, 1, 400)) for index in range(5)}
    drawn = chart("SAM", "", [str(index) for index in range(400)], values)
    assert "<title>" not in drawn and drawn.count("<use") == 2000
