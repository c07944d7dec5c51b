"""The page of ksdiff view in a real browser: what is on the screen, what keys do, and that nothing is complained of."""

import io
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
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

    def __init__(self, browser: Any, url: str, size: tuple[int, int] = (1400, 900), scheme: str = "light") -> None:
        context = browser.new_context(
            viewport={"width": size[0], "height": size[1]}, color_scheme=scheme, accept_downloads=True
        )
        context.set_default_timeout(PATIENCE)
        self.page = context.new_page()
        self.complaints: list[str] = []
        self.page.on("console", lambda message: self.complaints.append(f"{message.type}: {message.text}"))
        self.page.on("pageerror", lambda error: self.complaints.append(f"error: {error}"))
        self.page.goto(url)
        self.settle()

    def settle(self) -> None:
        """Wait until what is shown has been drawn."""
        for _ in range(2):  # what has been asked for begins to load in the next frame
            self.page.locator("body[data-idle='true']").wait_for()
            self.page.wait_for_timeout(250)

    def press(self, *keys: str) -> None:
        for key in keys:
            self.page.keyboard.press(key)
        self.settle()

    def map(self) -> Array:
        """Return what the maps show, (height, width, 3), one screen pixel each."""
        box = self.page.locator("#maps").bounding_box()
        self.place = (box["x"], box["y"])
        png = self.page.screenshot(clip=box)
        return np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)

    def at(self, row: float, col: float, zoom: float, centre: tuple[float, float]) -> Array:
        """Return the colour on the screen of a point of the scene, for a view centred on another."""
        shown = self.map()
        middle = shown.shape[0] / 2, shown.shape[1] / 2
        y, x = (int(half + (to - at) * zoom) for half, to, at in zip(middle, (row, col), centre, strict=True))
        return shown[y, x]


@pytest.fixture
def show(browser: Any) -> Iterator[Callable[..., Screen]]:
    """Show a stage; at the end nothing may have been complained of."""
    screens: list[Screen] = []
    with ExitStack() as stack:

        def start(stage: Any, hash: str = "", **how: Any) -> Screen:
            url = stack.enter_context(serving(stage))
            screens.append(Screen(browser, url + hash, **how))
            return screens[-1]

        yield start
        for screen in screens:
            assert screen.complaints == []
            screen.page.context.close()


@pytest.fixture
def reds(tmp_path: Path) -> list[Path]:
    """Two images: the first is red, the second blue, both with something black and white in a corner."""
    paths = []
    for name, band in (("red", 0), ("blue", 2)):
        image = np.zeros((3, 512, 512), "uint8")
        image[band] = 255
        image[:, :16, :16] = 255
        image[:, :16, 16:32] = 0
        paths.append(write_raster(tmp_path / f"{name}.tif", image))
    return paths


@pytest.fixture
def random_image(tmp_path: Path) -> tuple[Path, Array]:
    image = np.random.default_rng(1).integers(0, 256, (3, 600, 640)).astype("uint8")
    image[:, 0, 0], image[:, 0, 1] = 0, 255
    grid = Affine(0.5, 0, 593270, 0, -0.5, 5747657)
    return write_raster(tmp_path / "image.tif", image, crs="EPSG:32631", transform=grid), image


EXACT = "&bands=0,1,2&stretch=0,100,1&mode=one"  # black at the least, white at the most: 8-bit DN are levels


@pytest.mark.parametrize("zoom", [0.5, 1, 4, 8])
def test_the_screen_shows_the_dn(show: Callable[..., Screen], random_image: tuple[Path, Array], zoom: float) -> None:
    path, image = random_image
    screen = show(stage_of(path), f"#at=300,320&zoom={zoom}{EXACT}")
    for row, col in [(300, 320), (310, 331), (287, 300), (320, 350)]:
        if zoom < 1:
            row, col = row // 2 * 2, col // 2 * 2
            expected = np.floor(image[:, row : row + 2, col : col + 2].mean((1, 2)) + 0.5)
            seen = screen.at(row + 1, col + 1, zoom, (300, 320))
        else:
            expected = image[:, row, col]
            seen = screen.at(row + 0.5, col + 0.5, zoom, (300, 320))
        assert np.abs(seen - expected).max() <= (1 if zoom < 1 else 0), (row, col, seen, expected)
    assert screen.page.locator("#where").inner_text() == ("1:2" if zoom < 1 else f"{zoom}:1")


def is_red(colour: Array) -> bool:
    return bool(colour[0] > 200 and colour[2] < 60)


def is_blue(colour: Array) -> bool:
    return bool(colour[2] > 200 and colour[0] < 60)


def test_swipe_and_keys(show: Callable[..., Screen], reds: list[Path]) -> None:
    screen = show(stage_of(*reds), "#at=256,256&zoom=4&stretch=0,100,1")
    left, right = (screen.map()[450, share] for share in (100, -100))
    assert is_red(left) and is_blue(right)
    middle = screen.map().shape[1] // 2
    screen.press(".", ".", ".", ".")  # 20 % to the right
    assert is_red(screen.map()[450, middle + 100])
    divider = screen.page.locator("#divider").bounding_box()
    screen.page.mouse.move(divider["x"] + 12, 300)
    screen.page.mouse.down()
    screen.page.mouse.move(screen.place[0] + 200, 300)
    screen.page.mouse.up()
    screen.settle()
    assert is_blue(screen.map()[450, 300]) and is_red(screen.map()[450, 100])
    assert "divider=" in screen.page.url
    screen.press("Space")  # they change places
    assert is_red(screen.map()[450, 300]) and is_blue(screen.map()[450, 100])
    screen.press("Space", "o")
    assert is_red(screen.map()[450, middle])
    screen.press("Space")  # blink
    assert is_blue(screen.map()[450, middle]) and "blue" in screen.page.locator("#label-a").inner_text()
    screen.press("Space")
    assert is_red(screen.map()[450, middle])
    screen.press("v")
    assert is_red(screen.map()[450, 100]) and is_blue(screen.map()[450, -100])
    screen.press("l")
    screen.page.mouse.move(screen.place[0] + 400, screen.place[1] + 450)
    screen.settle()
    assert is_blue(screen.map()[450, 400]) and is_red(screen.map()[450, 550])
    screen.press("o", "2")
    assert is_blue(screen.map()[450, middle])
    screen.press("z")
    assert screen.page.locator("#where").inner_text() == "1:1"
    screen.press("x", "+")
    assert screen.page.locator("#where").inner_text() == "8:1"
    before = screen.page.url
    screen.press("ArrowRight")
    assert screen.page.url != before


def test_difference_has_its_colours(show: Callable[..., Screen], reds: list[Path]) -> None:
    screen = show(stage_of(*reds), "#at=256,256&zoom=1&bands=0&mode=difference&a=0&b=1")
    colour = screen.map()[450, 500]
    assert colour[0] > colour[2]  # red has more of band 1: orange
    assert "A − B" in screen.page.locator("#bar").inner_text()


def test_values_and_spectrum_under_the_pointer(show: Callable[..., Screen], random_image: tuple[Path, Array]) -> None:
    path, image = random_image
    screen = show(stage_of(path), f"#at=300,320&zoom=4{EXACT}")
    box = screen.page.locator("#maps").bounding_box()
    x, y = box["x"] + box["width"] / 2 + 4 * 10 + 2, box["y"] + box["height"] / 2 - 4 * 7 + 2
    screen.page.mouse.move(x, y)
    screen.page.wait_for_selector("#values td")
    screen.settle()
    cells = screen.page.locator("#values td").all_inner_texts()
    assert [int(cell) for cell in cells] == image[:, 293, 330].tolist()
    text = screen.page.locator("#place").inner_text()
    assert "row 293, column 330" in text and "593435." in text and "°" in text
    assert screen.page.locator("#spectrum polyline").count() == 1
    assert screen.page.locator("#scale").inner_text().strip().endswith(" m")


def test_a_link_reproduces_the_view(
    show: Callable[..., Screen], browser: Any, random_image: tuple[Path, Array]
) -> None:
    path, _ = random_image
    screen = show(stage_of(path, path), f"#at=200,250&zoom=2{EXACT}")
    screen.press("ArrowDown", "v", "b")
    again = Screen(browser, screen.page.url)
    assert np.abs(screen.map() - again.map()).max() == 0
    assert again.complaints == []
    again.page.context.close()


def test_what_is_seen_is_saved(show: Callable[..., Screen], random_image: tuple[Path, Array]) -> None:
    path, _ = random_image
    screen = show(stage_of(path), f"#at=300,320&zoom=4{EXACT}")
    with screen.page.expect_download() as waiting:
        screen.page.click("#save")
    saved = np.asarray(Image.open(waiting.value.path()).convert("RGB")).astype(int)
    shown = screen.map()
    assert saved.shape == shown.shape
    inside = np.s_[200:600, 300:700]
    assert np.abs(saved[inside] - shown[inside]).max() == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1400, 400])
def test_light_and_dark_wide_and_narrow(show: Callable[..., Screen], reds: list[Path], scheme: str, width: int) -> None:
    screen = show(stage_of(*reds), "#stretch=0,100,1", size=(width, 900), scheme=scheme)
    page = screen.page
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate("document.documentElement.scrollHeight") <= 900
    ink, ground = (
        np.array([int(part) for part in page.evaluate(f"getComputedStyle(document.body).{name}")[4:-1].split(",")])
        for name in ("color", "backgroundColor")
    )
    assert (ink.sum() < ground.sum()) == (scheme == "light") and np.abs(ink - ground).min() > 120
    for button in page.locator("header button, #layers button").all():
        box = button.bounding_box()
        assert box["x"] >= 0 and box["x"] + box["width"] <= width
    box = page.locator("#maps").bounding_box()
    assert box["width"] >= 0.7 * width and box["height"] >= 350
    shown = screen.map()
    assert any(is_red(colour) for colour in shown[shown.shape[0] // 2, ::10])
    screen.press("?")
    assert page.locator("#keys").is_visible()


def test_bands_and_brightness(show: Callable[..., Screen], random_image: tuple[Path, Array]) -> None:
    path, image = random_image
    screen = show(stage_of(path), f"#at=300,320&zoom=8{EXACT}")
    screen.page.select_option("#bands", "1")
    screen.settle()
    assert screen.at(300.5, 320.5, 8, (300, 320)).tolist() == [image[1, 300, 320]] * 3
    screen.page.fill("#high", "50")
    screen.page.keyboard.press("Enter")
    screen.settle()
    middle = np.percentile(image[1], 50)
    expected = np.floor(min(255.0, 255.0 * image[1, 300, 320] / middle) + 0.5)
    assert abs(int(screen.at(300.5, 320.5, 8, (300, 320))[0]) - expected) <= 2


def test_tour_and_windows_made_while_looking(show: Callable[..., Screen], make_pair: Callable[..., PairFiles]) -> None:
    pair = make_pair(size=(256, 384))
    stage = stage_of(pair.pan, pair.ms, methods=("exp", "gsa"), tour=True)
    start_tour(stage)
    screen = show(stage)
    screen.page.wait_for_selector("#spots button")
    screen.press("n")
    first = screen.page.url
    assert "zoom=1&" in first and screen.page.locator("#spots [aria-current='true']").count() == 1
    screen.press("x", "n")
    assert "zoom=4&" in screen.page.url
    screen.press("p")
    assert first.partition("&")[0] == screen.page.url.partition("&")[0]
    assert [text.partition("\n")[0] for text in screen.page.locator("#layers li div").all_inner_texts()][2:] == [
        "exp",
        "gsa",
    ]
    seen = screen.map()
    assert seen[400:500, 300:800].std() > 2  # an image, no empty ground
    stage.maker.shutdown()
