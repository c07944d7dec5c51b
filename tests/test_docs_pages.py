"""The built documentation and a report in a real browser, wide and narrow: pictures are there, nothing sticks out."""

import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

playwright = pytest.importorskip("playwright.sync_api", reason="no playwright: pip install -e '.[dev]'")
from test_view_page import browser  # noqa: E402, F401

from ksdiff_cli import measure, sharpen_scene  # noqa: E402
from ksdiff_cli.simulation.files import simulate_scene  # noqa: E402

PAGES = ("", "how-it-works", "products", "commands", "python", "results")


@pytest.fixture(params=[1400, 400], ids=["wide", "narrow"])
def page(request: pytest.FixtureRequest, browser: Any) -> Iterator[Any]:  # noqa: F811
    shown = browser.new_page(viewport={"width": request.param, "height": 900})
    shown.complaints = []
    shown.on("pageerror", lambda error: shown.complaints.append(str(error)))
    yield shown
    shown.close()


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture(scope="module")
def served(site: Path) -> Iterator[str]:
    """Serve the site, whose search does not run from files."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(site))) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def check(page: Any, address: str, picture: Path) -> None:
    page.goto(address)
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), address
    pictures = page.evaluate("[...document.images].map(image => [image.currentSrc.slice(0, 80), image.naturalWidth])")
    assert [name for name, width in pictures if width == 0] == []
    page.screenshot(path=str(picture))
    assert picture.stat().st_size > 5000
    assert page.complaints == []


def test_pages_are_whole_wide_and_narrow(page: Any, served: str, tmp_path: Path) -> None:
    for name in PAGES:
        check(page, f"{served}/{name}", tmp_path / "page.png")
        if name == "how-it-works":
            assert page.locator("article img").count() == 3


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    simulate_scene(folder, size=128, sensor="QB")
    sharpen_scene(folder / "pan.tif", folder / "ms.tif", output=folder / "out.tif", method="gsa")
    measure(folder / "out.tif", reference=folder / "truth.tif", report=folder / "report.html")
    return folder / "report.html"


def test_a_report_is_whole_wide_and_narrow(page: Any, report: Path, tmp_path: Path) -> None:
    check(page, report.as_uri(), tmp_path / "report.png")
