"""The page of ksdiff view in a real browser: what is on the screen, what keys do, and that nothing is complained of."""

import io
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from conftest import PairFiles, write_raster
from numpy.typing import NDArray
from rasterio.transform import Affine
from view_maker import serving, stage_of

for needed in ("starlette", "uvicorn"):
    pytest.importorskip(needed, reason='the extra is not installed: pip install "ksdiff[view]"')
playwright = pytest.importorskip("playwright.sync_api", reason="no playwright: pip install -e '.[dev]'")

from PIL import Image  # noqa: E402

from ksdiff_cli.view.opening import start_tour  # noqa: E402

Array = NDArray[Any]
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
PATIENCE = 120_000  # milliseconds that a busy machine may take


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        pytest.skip("no Chromium on this machine: apt-get install chromium")
    with playwright.sync_playwright() as started:
        # as root Chromium needs it; the page comes from this process
        running = started.chromium.launch(executable_path=path, args=["--no-sandbox"], timeout=PATIENCE)
        yield running
        running.close()


class Screen:
    """One page, and what its browser complained of."""

    def __init__(self, browser: Any, url: str, size: tuple[int, int] = (1400, 900)) -> None:
        context = browser.new_context(viewport={"width": size[0], "height": size[1]}, accept_downloads=True)
        context.set_default_timeout(PATIENCE)
        self.page = context.new_page()
        self.complaints: list[str] = []
        self.page.on("console", lambda message: self.complaints.append(f"{message.type}: {message.text}"))
        self.page.on("pageerror", lambda error: self.complaints.append(f"error: {error}"))
        self.page.goto(url)
        self.settle()

    def settle(self) -> None:
        """Wait until what is shown has been drawn: nothing was awaited in four frames on end."""
        self.page.evaluate(
            """async () => {
              for (let calm = 0; calm < 4; calm = document.body.dataset.idle === "true" ? calm + 1 : 0)
                await new Promise(requestAnimationFrame);
            }"""
        )

    def go(self, hash: str) -> None:
        """Follow a link to another view of the same stage."""
        self.page.evaluate("hash => { location.hash = hash; }", hash)
        self.settle()

    def press(self, *keys: str) -> None:
        for key in keys:
            self.page.keyboard.press(key)
        self.settle()

    def wait_for_address(self, *parts: str) -> str:
        """Wait until the address says something of the view."""
        self.page.wait_for_url(lambda url: all(part in url for part in parts))
        return str(self.page.url)

    def map(self) -> Array:
        """Return what the maps show, (height, width, 3), one screen pixel each."""
        box = self.page.locator("#maps").bounding_box()
        self.place = (box["x"], box["y"])
        png = self.page.screenshot(clip=box)
        return np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)

    def row(self) -> Array:
        """Return the row of the maps at which the views below are compared."""
        return self.map()[450]

    def close(self) -> None:
        """At the end nothing may have been complained of."""
        assert self.complaints == []
        self.page.context.close()


def at(shown: Array, row: float, col: float, zoom: float, centre: tuple[float, float]) -> Array:
    """Return the colour on the screen of a point of the scene, for a view centred on another."""
    middle = shown.shape[0] / 2, shown.shape[1] / 2
    y, x = (int(half + (to - at) * zoom) for half, to, at in zip(middle, (row, col), centre, strict=True))
    return shown[y, x]


@pytest.fixture(scope="module")
def reds(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Two images: the first is red, the second blue, both with something black and white in a corner."""
    paths = []
    for name, band in (("red", 0), ("blue", 2)):
        image = np.zeros((3, 512, 512), "uint8")
        image[band] = 255
        image[:, :16, :16] = 255
        image[:, :16, 16:32] = 0
        paths.append(write_raster(tmp_path_factory.mktemp("reds") / f"{name}.tif", image))
    return stage_of(*paths)


IMAGE = np.random.default_rng(1).integers(0, 256, (3, 600, 640)).astype("uint8")
IMAGE[:, 0, 0], IMAGE[:, 0, 1] = 0, 255
EXACT = "&bands=0,1,2&stretch=0,100,1&mode=one&a=0&b=0"  # black at the least, white at the most: DN are levels


@pytest.fixture(scope="module")
def screen(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Screen]:
    """A page of an image whose pixels are random, given twice."""
    grid = Affine(0.5, 0, 593270, 0, -0.5, 5747657)
    path = write_raster(tmp_path_factory.mktemp("random") / "image.tif", IMAGE, crs="EPSG:32631", transform=grid)
    with serving(stage_of(path, path)) as url:
        shown = Screen(browser, url)
        yield shown
        shown.close()


def test_the_screen_shows_the_dn(screen: Screen) -> None:
    for zoom in (0.5, 1, 4, 8):
        screen.go(f"#at=300,320&zoom={zoom}{EXACT}")
        shown = screen.map()
        for row, col in [(300, 320), (310, 331), (287, 300), (320, 350)]:
            if zoom < 1:
                row, col = row // 2 * 2, col // 2 * 2
                expected = np.floor(IMAGE[:, row : row + 2, col : col + 2].mean((1, 2)) + 0.5)
                seen = at(shown, row + 1, col + 1, zoom, (300, 320))
            else:
                expected = IMAGE[:, row, col]
                seen = at(shown, row + 0.5, col + 0.5, zoom, (300, 320))
            assert np.abs(seen - expected).max() <= (1 if zoom < 1 else 0), (zoom, row, col, seen, expected)
        assert screen.page.locator("#where").inner_text() == ("1:2" if zoom < 1 else f"{zoom}:1")


def test_values_and_spectrum_under_the_pointer(screen: Screen) -> None:
    screen.go(f"#at=300,320&zoom=4{EXACT}")
    box = screen.page.locator("#maps").bounding_box()
    x, y = box["x"] + box["width"] / 2 + 4 * 10 + 2, box["y"] + box["height"] / 2 - 4 * 7 + 2
    screen.page.mouse.move(x, y)
    screen.page.locator("#place", has_text="row 293, column 330").wait_for()
    cells = screen.page.locator("#values td").all_inner_texts()
    assert [int(cell) for cell in cells] == [*IMAGE[:, 293, 330].tolist()] * 2
    text = screen.page.locator("#place").inner_text()
    assert "593435." in text and "°" in text
    assert screen.page.locator("#spectrum polyline").count() == 2
    assert screen.page.locator("#scale").inner_text().strip().endswith(" m")


def test_a_link_reproduces_the_view(screen: Screen, browser: Any) -> None:
    screen.go(f"#at=200,250&zoom=2{EXACT}&b=1")
    screen.press("ArrowDown", "v", "b")
    again = Screen(browser, screen.wait_for_address("mode=side", "zoom=2"))
    shown = again.map()
    assert np.abs(screen.map() - shown).max() == 0
    again.close()
    screen.go(f"#at=200,250&zoom=2{EXACT}&b=1")
    assert np.abs(screen.map() - shown).max() > 0


def test_what_is_seen_is_saved(screen: Screen) -> None:
    screen.go(f"#at=300,320&zoom=4{EXACT}")
    with screen.page.expect_download() as waiting:
        screen.page.click("#save")
    saved = np.asarray(Image.open(waiting.value.path()).convert("RGB")).astype(int)
    shown = screen.map()
    assert saved.shape == shown.shape
    inside = np.s_[200:600, 300:700]
    assert np.abs(saved[inside] - shown[inside]).max() == 0


def test_bands_and_brightness(screen: Screen) -> None:
    screen.go(f"#at=300,320&zoom=8{EXACT}")
    screen.page.select_option("#bands", "1")
    screen.settle()
    assert at(screen.map(), 300.5, 320.5, 8, (300, 320)).tolist() == [IMAGE[1, 300, 320]] * 3
    screen.page.fill("#high", "50")
    screen.page.keyboard.press("Enter")
    screen.settle()
    middle = np.percentile(IMAGE[1], 50)
    expected = np.floor(min(255.0, 255.0 * IMAGE[1, 300, 320] / middle) + 0.5)
    assert abs(int(at(screen.map(), 300.5, 320.5, 8, (300, 320))[0]) - expected) <= 2


def is_red(colour: Array) -> bool:
    return bool(colour[0] > 200 and colour[2] < 60)


def is_blue(colour: Array) -> bool:
    return bool(colour[2] > 200 and colour[0] < 60)


def test_swipe_and_keys(browser: Any, reds: Any) -> None:
    with serving(reds) as url:
        screen = Screen(browser, url + "#at=256,256&zoom=4&stretch=0,100,1")
        row = screen.row()
        middle = len(row) // 2
        assert is_red(row[100]) and is_blue(row[-100])
        screen.press(".", ".", ".", ".")  # 20 % to the right
        assert is_red(screen.row()[middle + 100])
        divider = screen.page.locator("#divider").bounding_box()
        screen.page.mouse.move(divider["x"] + 12, 300)
        screen.page.mouse.down()
        screen.page.mouse.move(screen.place[0] + 200, 300)
        screen.page.mouse.up()
        screen.settle()
        row = screen.row()
        assert is_blue(row[300]) and is_red(row[100])
        screen.wait_for_address("divider=")
        screen.press("Space")  # they change places
        row = screen.row()
        assert is_red(row[300]) and is_blue(row[100])
        screen.press("Space", "o")
        assert is_red(screen.row()[middle])
        screen.press("Space")  # blink
        assert is_blue(screen.row()[middle]) and "blue" in screen.page.locator("#label-a").inner_text()
        screen.press("Space")
        assert is_red(screen.row()[middle])
        screen.press("v")
        row = screen.row()
        assert is_red(row[100]) and is_blue(row[-100])
        screen.press("l")
        screen.page.mouse.move(screen.place[0] + 400, screen.place[1] + 450)
        screen.settle()
        row = screen.row()
        assert is_blue(row[400]) and is_red(row[550])
        screen.press("o", "2")
        assert is_blue(screen.row()[middle])
        screen.press("z")
        assert screen.page.locator("#where").inner_text() == "1:1"
        screen.press("x", "+")
        assert screen.page.locator("#where").inner_text() == "8:1"
        screen.wait_for_address("at=256,256", "zoom=8")
        screen.press("ArrowRight")
        screen.page.wait_for_url(lambda url: "at=256,256&" not in url)

        screen.go("#at=256,256&zoom=1&bands=0&mode=difference&a=0&b=1")
        colour = screen.row()[500]
        assert colour[0] > colour[2]  # red has more of band 1: orange
        assert "A − B" in screen.page.locator("#bar").inner_text()
        screen.close()


@pytest.mark.parametrize("width", [1400, 400])
def test_light_and_dark_wide_and_narrow(browser: Any, reds: Any, width: int) -> None:
    with serving(reds) as url:
        screen = Screen(browser, url + "#stretch=0,100,1", (width, 900))
        page = screen.page
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)
            ink, ground = (
                np.array([int(n) for n in page.evaluate(f"getComputedStyle(document.body).{name}")[4:-1].split(",")])
                for name in ("color", "backgroundColor")
            )
            assert (ink.sum() < ground.sum()) == (scheme == "light") and np.abs(ink - ground).min() > 120
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.evaluate("document.documentElement.scrollHeight") <= 900
        for button in page.locator("header button, #layers button").all():
            box = button.bounding_box()
            assert box["x"] >= 0 and box["x"] + box["width"] <= width
        box = page.locator("#maps").bounding_box()
        assert box["width"] >= 0.7 * width and box["height"] >= 350
        shown = screen.map()
        assert any(is_red(colour) for colour in shown[shown.shape[0] // 2, ::10])
        screen.press("?")
        assert page.locator("#keys").is_visible()
        screen.close()


def test_tour_and_windows_made_while_looking(browser: Any, make_pair: Callable[..., PairFiles]) -> None:
    pair = make_pair(size=(256, 384))
    stage = stage_of(pair.pan, pair.ms, methods=("exp", "gsa"), tour=True)
    start_tour(stage)
    with serving(stage) as url:
        screen = Screen(browser, url)
        screen.page.wait_for_selector("#spots button")
        screen.press("n")
        first = screen.wait_for_address("zoom=1&")
        assert screen.page.locator("#spots [aria-current='true']").count() == 1
        screen.press("x", "n")
        screen.wait_for_address("zoom=4&")
        screen.press("p")
        screen.wait_for_address(first.partition("&")[0] + "&")
        assert [text.partition("\n")[0] for text in screen.page.locator("#layers li div").all_inner_texts()][2:] == [
            "exp",
            "gsa",
        ]
        seen = screen.map()
        assert seen[400:500, 300:800].std() > 2  # an image, no empty ground
        screen.close()
    stage.maker.shutdown()
