"""Where products may lie: archives, single metadata files, GDAL's virtual paths, a web server."""

import http.server
import re
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import products_maker as maker
import pytest
import rasterio
from products_maker import C2
from rasterio.shutil import copy

from ksdiff_cli.errors import KsdiffError
from ksdiff_cli.options.patches import PatchOptions
from ksdiff_cli.patches.plan import plan_patches
from ksdiff_cli.products import find_scenes


def pack(folder: Path, archive: Path, below: str = "") -> Path:
    """Pack a folder's files, from the archive's root or from a folder in it."""
    archive.parent.mkdir(parents=True, exist_ok=True)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    names = {path: f"{below}{path.relative_to(folder)}" for path in files}
    if archive.suffix == ".zip":
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
            for path, name in names.items():
                packed.write(path, name)
    else:
        with tarfile.open(archive, "w" if archive.suffix == ".tar" else "w:gz") as packed:
            for path, name in names.items():
                packed.add(path, name)
    return archive


def sharpened(run: Any, out: Path, *inputs: Any) -> bytes:
    result = run("sharpen", *inputs, "-o", out, "--method", "brovey", "-q")
    assert result.exit_code == 0, result.output
    with rasterio.open(out) as made:
        assert made.transform.a > 0
        return bytes(made.read().tobytes())


def test_archives_are_read_in_place(run: Any, tmp_path: Path) -> None:
    folder, places = maker.landsat(tmp_path / "folder"), ["", "./", f"{C2}/"]
    expected = sharpened(run, tmp_path / "a.tif", folder)
    kinds = ["tar", "tar.gz", "tgz", "zip", "zip", "zip"]
    for number, (kind, below) in enumerate(zip(kinds, places * 2, strict=True)):
        archive = pack(folder, tmp_path / str(number) / f"scene.{kind}", below)
        assert sharpened(run, tmp_path / f"{number}.tif", archive) == expected, archive
        (scene,) = find_scenes(archive)
        assert scene.name == (C2 if below == f"{C2}/" else "scene")
        assert scene.quality is not None
        assert [path.name for path in archive.parent.iterdir()] == [archive.name]  # GDAL leaves nothing beside it


@pytest.mark.parametrize(("family", "name"), [("maxar", "d.zip"), ("airbus", "d.tar"), ("gaofen", "d.tar.gz")])
def test_every_family_in_an_archive(family: str, name: str, run: Any, tmp_path: Path) -> None:
    makers = {
        "maxar": lambda folder: maker.maxar(folder, pan_tiles=2),
        "airbus": lambda folder: maker.airbus(folder, tiles=2),
        "gaofen": maker.gaofen,
    }
    folder = makers[family](tmp_path / "folder")
    expected = sharpened(run, tmp_path / "a.tif", folder)
    assert sharpened(run, tmp_path / "b.tif", pack(folder, tmp_path / name)) == expected


def test_plain_pair_in_an_archive(run: Any, tmp_path: Path) -> None:
    maker.write(tmp_path / "pair/pan.tif", 0.5, 64, 64)
    maker.write(tmp_path / "pair/ms.tif", 2, 16, 16, 3)
    expected = sharpened(run, tmp_path / "a.tif", tmp_path / "pair")
    archive = pack(tmp_path / "pair", tmp_path / "pair.zip")
    assert sharpened(run, tmp_path / "b.tif", archive) == expected
    inside = [f"/vsizip/{archive}/{name}.tif" for name in ("pan", "ms")]
    assert sharpened(run, tmp_path / "c.tif", *inside) == expected


def test_a_folder_in_an_archive(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    maker.landsat(folder / "a")
    maker.gaofen(folder / "b")
    archive = pack(folder, tmp_path / "both.zip")
    assert [scene.name for scene in find_scenes(archive)] == ["a", f"b/{maker.gaofen.__defaults__[0]}"]
    (scene,) = find_scenes(f"/vsizip/{archive}/a")
    assert scene.sensor.name == "L8"
    assert find_scenes(Path(f"/vsizip/{archive}/a/{C2}_MTL.txt")) == [scene]


def test_info_of_an_archive_and_patches_from_one(run: Any, tmp_path: Path) -> None:
    archive = pack(maker.landsat(tmp_path / "folder"), tmp_path / "scene.tar.gz")
    assert "sensor: L8" in run("info", archive).stdout
    with pytest.raises(KsdiffError, match="patch"):  # read, and then found too small
        plan_patches(PatchOptions((archive,), tmp_path / "out", patch=64))


def test_a_metadata_file_stands_for_its_product(tmp_path: Path) -> None:
    for product in (C2, maker.C1_ETM):
        maker.landsat(tmp_path / "landsat", product)
    (scene,) = find_scenes(tmp_path / "landsat" / f"{C2}_MTL.txt")
    assert scene.sensor.name == "L8"
    for part in ("P001", "P002"):
        delivery = maker.maxar(tmp_path / "maxar", part=part, pan_tiles=2)
    (imd,) = delivery.rglob("*P2AS*P002.IMD")
    assert [scene.name for scene in find_scenes(imd)] == [f"{maker.ORDER}_P002"]
    assert find_scenes(imd.with_suffix(".TIL")) == find_scenes(imd)
    bundle = maker.airbus(tmp_path / "airbus")
    (dim,) = bundle.rglob("DIM_*_MS_*.XML")
    assert find_scenes(dim) == find_scenes(bundle / "VOL_PHR.XML") == find_scenes(bundle)
    xml = next(maker.gaofen(tmp_path / "gaofen").glob("*PAN1.xml"))
    assert len(find_scenes(xml)) == 1


def test_a_metadata_file_does_not_stand_for_another_product(tmp_path: Path) -> None:
    delivery = maker.maxar(tmp_path)
    maker.maxar(tmp_path, part="P002", parts=("PAN",))
    (imd,) = delivery.rglob("*P002.IMD")
    with pytest.raises(KsdiffError, match="no MS image of that part"):
        find_scenes(imd)


def test_vrt(run: Any, tmp_path: Path) -> None:
    pan, ms = maker.write(tmp_path / "pan.tif", 0.5, 64, 64), maker.write(tmp_path / "ms.tif", 2, 16, 16, 3)
    for path in (pan, ms):
        copy(path, path.with_suffix(".vrt"), driver="VRT")
    expected = sharpened(run, tmp_path / "a.tif", pan, ms)
    made = sharpened(run, tmp_path / "b.tif", pan.with_suffix(".vrt"), ms.with_suffix(".vrt"))
    assert made == expected


@dataclass
class Site:
    """A web server on this machine."""

    address: str
    root: Path
    asked: list[str] = field(default_factory=list)
    """Paths asked for."""
    ranges: bool = True
    """Whether it sends parts of files."""


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    (tmp_path / "www").mkdir()

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            made.asked.append(self.path)
            path = made.root / self.path.lstrip("/")
            if not path.is_file():
                self.send_response(404)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            content, status = path.read_bytes(), 200
            part = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
            total = len(content)
            if part and made.ranges:
                start, stop = int(part[1]), min(int(part[2] or total - 1), total - 1)
                content, status = content[start : stop + 1], 206
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            if status == 206:
                self.send_header("Content-Range", f"bytes {start}-{stop}/{total}")
            if made.ranges:
                self.send_header("Accept-Ranges", "bytes")
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        made = Site(f"http://127.0.0.1:{server.server_address[1]}", tmp_path / "www")
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield made
        server.shutdown()
        thread.join()


def test_a_pair_on_a_web_server(site: Site, run: Any, tmp_path: Path) -> None:
    pan, ms = maker.write(site.root / "pan.tif", 0.5, 64, 64), maker.write(site.root / "ms.tif", 2, 16, 16, 3)
    expected = sharpened(run, tmp_path / "a.tif", pan, ms)
    made = sharpened(run, tmp_path / "b.tif", f"{site.address}/pan.tif", f"{site.address}/ms.tif")
    assert made == expected
    # neither the folder nor sidecar files are asked for
    assert set(site.asked) == {"/pan.tif", "/ms.tif"}


def test_a_product_on_a_web_server(site: Site, run: Any, tmp_path: Path) -> None:
    folder = maker.landsat(site.root / "data")
    expected = sharpened(run, tmp_path / "a.tif", folder)
    pack(folder, site.root / "scene.tar")
    pack(folder, site.root / "scene.zip")
    for number, address in enumerate((
        f"{site.address}/data/{C2}_MTL.txt", f"{site.address}/scene.tar", f"{site.address}/scene.zip",
        f"/vsizip//vsicurl/{site.address}/scene.zip",
    )):  # fmt: skip
        assert sharpened(run, tmp_path / f"{number}.tif", address) == expected, address
        # prepare-data hands over a Path, which loses a slash
        assert find_scenes(Path(address)) == find_scenes(address)


def test_what_a_web_server_cannot_give_is_said(site: Site, fails: Any, tmp_path: Path) -> None:
    out = ("-o", tmp_path / "out.tif", "--method", "exp")
    assert "HTTP 404" in fails("sharpen", f"{site.address}/no_MTL.txt", *out)
    assert "HTTP 404" in fails("sharpen", f"{site.address}/no.tar", *out)
    assert "pan.tif" in fails("sharpen", f"{site.address}/pan.tif", f"{site.address}/ms.tif", *out)
    assert "download it" in fails("sharpen", f"{site.address}/scene.tar.gz", *out)
    assert "name PAN and MS one by one" in fails("sharpen", f"{site.address}/scene/", *out)
    assert "name PAN and MS one by one" in fails("sharpen", "s3://bucket/scene", *out)
    pack(maker.landsat(tmp_path / "folder"), site.root / "scene.zip")
    site.ranges = False
    assert "does not send parts" in fails("sharpen", f"{site.address}/scene.zip", *out)
