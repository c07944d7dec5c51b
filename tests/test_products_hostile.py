"""Products from strangers: no text, name or archive takes time or memory out of proportion, or ends in a traceback."""

import gzip
import io
import os
import resource
import socketserver
import subprocess
import sys
import tarfile
import threading
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import products_maker as maker
import pytest
from products_maker import C2

from ksdiff_cli.errors import KsdiffError
from ksdiff_cli.products import archive, find_scenes, folder, landsat
from ksdiff_cli.products.archive import open_archive
from ksdiff_cli.products.fields import first_fields, whole_number

LONG = 300_000
"""Signs: what takes time by their square takes minutes."""
IMD, DIM, TIL = "052299001010_01_P001.IMD", "DIM_PHR1A_P_201202250025599_SEN.XML", "052299001010_01_P001.TIL"
GAOFEN = "GF2_PMS1_E1_N1_20150101_L1A0001-MSS1"
IMD_HEAD = 'bandId = "P";\nsatId = "WV02";\nnumRows = 4;\nnumColumns = 4;\nBEGIN_GROUP = BAND_P\n'
DIM_HEAD = "<D><NROWS>4</NROWS><NCOLS>4</NCOLS><NBANDS>4</NBANDS>"

SLOW: dict[str, tuple[str, str]] = {
    # name of the file, its text
    "blank lines in an MTL": (f"{C2}_MTL.txt", "\n" * LONG),
    "a value of blanks in an MTL": (f"{C2}_MTL.txt", "SPACECRAFT_ID = " + " " * LONG + "x"),
    "a value of blanks and quotes in an MTL": (f"{C2}_MTL.txt", 'SPACECRAFT_ID = "' + ' "' * (LONG // 2)),
    "a key without end in an MTL": (f"{C2}_MTL.txt", "A" * LONG),
    "keys without values in an MTL": (f"{C2}_MTL.txt", "A\n" * (LONG // 2)),
    "blank lines in an IMD": (IMD, "\n" * LONG),
    "a value of blanks in an IMD": (IMD, "bandId = " + " " * LONG),
    "a value without end in an IMD": (IMD, 'bandId = "' + "a" * LONG),
    "groups in an IMD": (IMD, IMD_HEAD + "BEGIN_GROUP =\n" * (LONG // 14)),
    "digits in an order": (IMD, f'productOrderId = "{"1" * LONG}";\n{IMD_HEAD}'),
    "orders in an order": (IMD, f'productOrderId = "{"123456789_" * (LONG // 10)}";\n{IMD_HEAD}'),
    "groups without end in a TIL": (TIL, "BEGIN_GROUP = TILE_1\n" * (LONG // 21)),
    "blank lines in a TIL": (TIL, "\n" * LONG),
    "blanks in a TIL": (TIL, "BEGIN_GROUP" + " " * LONG),
    "a value of blanks in a TIL": (TIL, "BEGIN_GROUP = TILE_1\nfilename = " + " " * LONG + "\nEND_GROUP"),
    "levels of a DIM": (DIM, "<a>" * (LONG // 7) + "</a>" * (LONG // 7)),
    "levels of bands in a DIM": (
        DIM,
        f"{DIM_HEAD}<SPECTRAL_PROCESSING>MS</SPECTRAL_PROCESSING><MISSION>PHR</MISSION>"
        + "<Raster_Index_List>" * (LONG // 40)
        + "</Raster_Index_List>" * (LONG // 40)
        + "</D>",
    ),
    "entities of a DIM": (
        DIM,
        "<!DOCTYPE a [<!ENTITY a '" + "a" * 1000 + "'>"
        + "".join(f"<!ENTITY {b} '{f'&{a};' * 50}'>" for a, b in zip("abcdefgh", "bcdefghi", strict=True))
        + "]><a>&i;</a>",
    ),
    "one long entity of a DIM": (DIM, f"<!DOCTYPE a [<!ENTITY a '{'a' * LONG}'>]><a>{'&a;' * LONG}</a>"),
    "attributes of a GaoFen file": (f"{GAOFEN}.xml", "<a " + " ".join(f'a{n}="1"' for n in range(LONG // 9)) + "/>"),
    "bands of a GaoFen file": (f"{GAOFEN}.xml", f"<a><SatelliteID>GF2</SatelliteID><Bands>{'1,' * LONG}</Bands></a>"),
}  # fmt: skip

_READ = """
import sys
from pathlib import Path
from ksdiff_cli.errors import KsdiffError
from ksdiff_cli.products import find_scenes

for folder in sorted(Path(sys.argv[1]).iterdir()):
    try:
        find_scenes(folder)
        print(folder.name, "read")
    except KsdiffError as error:
        print(folder.name, len(str(error).splitlines()))
"""


def limited(code: str, *arguments: Any, seconds: int = 40, memory: int = 0) -> subprocess.CompletedProcess[str]:
    """Run Python in a process that dies if it takes more CPU time or address space than it may."""

    def bound() -> None:
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
        if memory:
            resource.setrlimit(resource.RLIMIT_AS, (memory, memory))

    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, preexec_fn=bound, check=False)


def test_long_texts_take_time_by_their_length_alone(tmp_path: Path) -> None:
    for case, (name, text) in SLOW.items():
        place = tmp_path / case.replace(" ", "-")
        if name.endswith(".txt"):
            maker.landsat(place, mtl=text)
            continue
        place.mkdir()
        if name == TIL:
            (place / IMD).write_text(IMD_HEAD)
        if name.startswith("GF2"):
            for image, bands in (("PAN1", 1), ("MSS1", 4)):
                maker.write(place / f"{GAOFEN[:-4]}{image}.tiff", 1.0 if bands == 1 else 4.0, 16, 16, bands)
        (place / name).write_text(text)
    done = limited(_READ, tmp_path)
    assert done.returncode == 0, done.stderr
    assert [line.split()[1] for line in done.stdout.splitlines()].count("1") == len(SLOW) - 1, done.stdout


def test_long_names_too() -> None:
    code = """
from ksdiff_cli.products import names_scenes
from ksdiff_cli.raster.open import _IN_ZIP
n = 60_000
for name in (
    "/vsizip/" + ".zip" * n,
    "/vsizip/a.zip/" * n + "\\n",
    "/vsizip/" + "a.zip\\n" * n,
    "/vsitar/" + "." * n,
    "http://" + ".tar" * n,
):
    try:
        names_scenes(name)
    except OSError:  # too long for a name, which the program says
        pass
    _IN_ZIP.match(name)
"""
    assert limited(code).returncode == 0


def test_fields_are_read_as_their_formats_have_them() -> None:
    text = '\n  A = 1 ;\r\n\tB="two words"; C = 3;\nD = "cut\nE = (\n 1, 2);\nA = 2;\nF = "q"uote";\nBEGIN_GROUP = X\n'
    assert first_fields(text, ";") == {"A": "1", "B": "two words"}
    assert first_fields('A = "x"\nA = y\n  B = 3  \nGROUP = G\n C = "d"e"\nno field\n= 4\n') == {
        "A": "x",
        "B": "3",
        "GROUP": "G",
    }
    wrong = ("", "²", "٣", "1²", "-1", "+1", "1.0", "1e3", " 1", "1 ", "9" * 5000, "1_0")
    assert [whole_number(one) for one in ("0", "17", "007")] == [0, 17, 7]
    assert [whole_number(one) for one in wrong] == [None] * len(wrong)


@pytest.mark.parametrize("number", ["²", "9" * 5000, "-4", "4.0", "٤", "1e3", ""])
@pytest.mark.parametrize("key", ["numRows", "numTiles", "LRRowOffset", "NROWS", "NBANDS", "SPECIAL_VALUE_COUNT"])
def test_numbers_that_are_none(key: str, number: str, tmp_path: Path, fails: Callable[..., str]) -> None:
    if key in ("NROWS", "NBANDS", "SPECIAL_VALUE_COUNT"):
        place = maker.airbus(tmp_path / "a")
        paths, end = list(place.rglob("DIM_*_MS_*")), "<"
    else:
        place = maker.maxar(tmp_path / "m", ms_tiles=2)
        paths, end = list(place.rglob("*M2AS*.IMD" if key == "numRows" else "*M2AS*.TIL")), ";"
    text = paths[0].read_text()
    if key not in text:
        special = f"<Special_Value><SPECIAL_VALUE_TEXT>NODATA</SPECIAL_VALUE_TEXT><{key}>0</{key}></Special_Value>"
        text = text.replace("</Dimap_Document>", f"{special}</Dimap_Document>")
    start = text.index(key) + len(key)
    first = next(at for at in range(start, len(text)) if text[at].isdigit())
    paths[0].write_text(text[:first] + number + text[text.index(end, first) :])
    if key == "SPECIAL_VALUE_COUNT":  # says less, no more
        assert find_scenes(place)[0].ms[0].fill is None
        return
    line = fails("info", place)
    assert "fetch" in line
    assert len(line) < 400


def test_a_folder_is_read_no_further_than_it_may_be(tmp_path: Path, monkeypatch: Any) -> None:
    for number in range(60):
        (tmp_path / f"d{number % 10}").mkdir(exist_ok=True)
        (tmp_path / f"d{number % 10}" / f"f{number}.bin").touch()
    with pytest.raises(KsdiffError, match="no scene found"):
        find_scenes(tmp_path)
    monkeypatch.setattr(folder, "ENTRIES", 50)
    with pytest.raises(KsdiffError, match="more than 50 files and folders"):
        find_scenes(tmp_path)


def test_metadata_is_read_no_further_than_it_may_be(tmp_path: Path, monkeypatch: Any) -> None:
    with (tmp_path / IMD).open("wb") as file:
        file.truncate(1 << 40)  # takes no room on the disk
    with pytest.raises(KsdiffError, match=r"P001\.IMD: is too large for a metadata file"):
        find_scenes(tmp_path)
    monkeypatch.setattr(folder, "ALL_TEXTS", 10_000)
    (tmp_path / IMD).unlink()
    for number in range(30):
        (tmp_path / f"052299001010_01_P{number:03}.IMD").write_text(IMD_HEAD + " " * 1000)
    with pytest.raises(KsdiffError, match="of metadata lie here"):
        find_scenes(tmp_path)


def test_many_scenes_in_one_folder_do_not_look_through_all_files_each(tmp_path: Path, monkeypatch: Any) -> None:
    class Counting:
        asked = 0

        def fullmatch(self, name: str) -> Any:
            self.asked += 1
            return pattern.fullmatch(name)

    for number in range(50):
        for ending in ("B8.TIF", "B2.TIF", "QA_PIXEL.TIF"):
            (tmp_path / f"LC08_L1TP_{number:06}_20151205_20200908_02_T1_{ending}").touch()
    pattern, counting = landsat._QUALITY_FILE, Counting()
    monkeypatch.setattr(landsat, "_QUALITY_FILE", counting)
    scenes = find_scenes(tmp_path)
    assert (len(scenes), counting.asked) == (50, 150)
    assert all(scene.quality and scene.name in scene.quality.path for scene in scenes)


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
def test_metadata_in_an_archive_is_bounded(kind: str, tmp_path: Path, monkeypatch: Any) -> None:
    """A hundred texts of zeros, a megabyte each, are not all kept."""
    monkeypatch.setattr(archive, "ALL_TEXTS", 5 << 20)
    path = tmp_path / f"a.{kind}"
    members = {f"t{number}.txt": bytes(1 << 20) for number in range(20)} | {"big.xml": bytes((16 << 20) + 1)}
    pack(path, members)
    listed = open_archive(str(path))
    held = [name for name in listed.files if isinstance(listed._tree[name], str)]
    assert (len(held), len(listed.files)) == (5, 21)
    with pytest.raises(KsdiffError, match="too large for a metadata file"):
        listed.read_text("big.xml")


def pack(path: Path, members: dict[str, bytes]) -> Path:
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
            for name, content in members.items():
                file.writestr(name, content)
        return path
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as file:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))
    return path


@pytest.mark.parametrize("name", ["a.zip", "a.tar.gz", "a.tgz"])
def test_bombs_are_refused(name: str, tmp_path: Path, monkeypatch: Any, fails: Callable[..., str]) -> None:
    monkeypatch.setattr("ksdiff_cli.raster.open._UNPACKED", 1 << 20)
    path = tmp_path / name
    pack(
        path if name != "a.tgz" else tmp_path / "a.tar.gz", {f"pan{number}.tif": bytes(1 << 20) for number in range(9)}
    )
    if name == "a.tgz":
        (tmp_path / "a.tar.gz").rename(path)
    line = fails("info", path)
    assert f"{path}: unpacks to more than 200 times its size" in line
    if name == "a.zip":  # named by what lies in it, too
        for there in (f"/vsizip/{path}/pan0.tif", f"zip://{path}!pan0.tif", f"/vsizip/{{{path}}}/pan0.tif"):
            assert "unpacks to more than" in fails("info", there)


def test_a_bomb_of_declared_sizes_is_refused_unread(tmp_path: Path) -> None:
    path = pack(tmp_path / "a.zip", {"a.txt": b"abc" * 1000})
    content = path.read_bytes()
    size = (3000).to_bytes(4, "little")
    assert content.count(size) >= 2
    path.write_bytes(content.replace(size, (4_000_000_000).to_bytes(4, "little")))
    with pytest.raises(KsdiffError, match="unpacks to more than 200 times"):
        open_archive(str(path))


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_too_many_members_are_refused(kind: str, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(archive, "ENTRIES", 100)
    path = pack(tmp_path / f"a.{kind}", {f"f{number}": b"" for number in range(101)})
    with pytest.raises(KsdiffError, match="more than 100 files"):
        open_archive(str(path))


def header(kind: bytes, size: int, name: str = "x") -> bytes:
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, size
    return info.tobuf(tarfile.GNU_FORMAT)


TARS: dict[str, Callable[[], bytes]] = {
    "a name of 512 MB": lambda: header(tarfile.GNUTYPE_LONGNAME, 1 << 29) + bytes(1 << 20),
    "a record of 512 MB": lambda: header(tarfile.XHDTYPE, 1 << 29) + bytes(1 << 20),
    "5000 records in a row": lambda: (header(tarfile.XHDTYPE, 9) + b"9 a=b\n".ljust(512, b"\0")) * 5000,
    "5000 names in a row": lambda: (header(tarfile.GNUTYPE_LONGNAME, 9) + b"name".ljust(512, b"\0")) * 5000,
    "a record without end": lambda: header(tarfile.XHDTYPE, 20) + b"99999999 path=x".ljust(512, b"\0"),
    "a record of digits": lambda: header(tarfile.XHDTYPE, 5000) + (b"9" * 5000).ljust(5120, b"\0"),
    "a size of digits": lambda: header(tarfile.XHDTYPE, 20) + b"14 size=\xc2\xb2\xc2\xb2\n".ljust(512, b"\0"),
    "a member of 2**60 bytes": lambda: header(b"0", 1 << 60, "pan.tif"),
    "zeros": lambda: bytes(10240),
    "nothing": lambda: b"",
    "noise": lambda: bytes(range(256)) * 40,
}  # fmt: skip


@pytest.mark.parametrize("case", TARS)
@pytest.mark.parametrize("kind", ["tar", "tar.gz"])
def test_tars_that_are_none(case: str, kind: str, tmp_path: Path, fails: Callable[..., str]) -> None:
    path = tmp_path / f"a.{kind}"
    content = TARS[case]()
    path.write_bytes(gzip.compress(content, 1) if kind == "tar.gz" else content)
    assert f"{path}: " in fails("info", path)


def test_members_with_odd_names_are_left_out(tmp_path: Path) -> None:
    names = [
        "../pan.tif",
        "/etc/pan.tif",
        "",
        ".",
        "a/../../ms.tif",
        "a" + "/b" * 5000,
        "pan.tif",
        "pan.tif/ms.tif",
        "d/x.txt",
    ]
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as file:
        for name in names:
            file.writestr(zipfile.ZipInfo(name), b"x")
    listed = open_archive(str(path))
    assert listed.files == ["pan.tif"]
    assert [below.name for below in listed.folders] == ["d"]
    assert listed.below("d").files == ["x.txt"]
    assert listed.below("no/such").files == []


def test_other_compression_is_not_unpacked_here(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_BZIP2) as file:
        file.writestr("a.txt", bytes(10 << 20))
    assert open_archive(str(path))._tree == {"a.txt": None}


def test_an_archive_in_an_archive_is_told(tmp_path: Path, fails: Callable[..., str]) -> None:
    pack(tmp_path / "in.zip", {"pan.tif": b"x"})
    path = pack(tmp_path / "out.zip", {"in.zip": (tmp_path / "in.zip").read_bytes()})
    line = fails("info", path)
    assert "an archive in an archive is not read, unpack in.zip first" in line


def test_pipes_are_refused_and_not_waited_for(tmp_path: Path) -> None:
    names = ["pan.tif", "a.zip", "a.tar", "x_MTL.txt", "DIM_a.XML", "s.toml"]
    for name in names:
        os.mkfifo(tmp_path / name)
    code = """
import sys
from typer.testing import CliRunner
from ksdiff_cli.main import app

for path in sys.argv[1:]:
    result = CliRunner().invoke(app, ["info", path])
    print(result.exit_code, len(result.stderr.splitlines()), f"{path}: is a pipe or a device" in result.stderr)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, *(tmp_path / name for name in names)],
        capture_output=True, text=True, timeout=60, check=False,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])},
    )  # fmt: skip
    assert done.stdout.splitlines() == ["1 1 True"] * len(names), done.stderr


PART = b"HTTP/1.1 206 OK\r\nContent-Range: bytes 0-0/1000\r\nContent-Length: 100000\r\n\r\n"
ANSWERS = {
    "no size": b"HTTP/1.1 206 OK\r\nContent-Range: bytes 0-0/*\r\nContent-Length: 1\r\n\r\nx",
    "a size of digits": b"HTTP/1.1 206 OK\r\nContent-Range: bytes 0-0/\xb2\r\nContent-Length: 1\r\n\r\nx",
    "no range": b"HTTP/1.1 206 OK\r\nContent-Length: 1\r\n\r\nx",
    "another protocol": b"220 mail.example.org ESMTP\r\n\r\n",
    "nothing": b"",
    "half a header": b"HTTP/1.1 206 OK\r\nContent-Ra",
    "a header without end": b"HTTP/1.1 206 OK\r\nX: " + b"a" * 100_000,
    "more than asked for": PART + bytes(100_000),
    "less than it says": PART,
}


@pytest.mark.parametrize("case", ANSWERS)
def test_servers_that_answer_nonsense(case: str, fails: Callable[..., str], monkeypatch: Any) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            while self.rfile.readline().strip():
                pass
            self.wfile.write(ANSWERS[case])

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        for name in ("a.zip", "a.tar", "a_MTL.txt"):
            assert f"/{name}: " in fails("info", f"http://127.0.0.1:{server.server_address[1]}/{name}")
        server.shutdown()
