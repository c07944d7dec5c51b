"""No output takes the place of an input, whatever names the two go by, and of nobody's files without --overwrite."""

import gzip
import json
import os
import shutil
import sqlite3
import struct
import zipfile
from collections.abc import Callable
from contextlib import closing
from itertools import cycle
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import products_maker as maker
import pytest
import rasterio
import rasterio.shutil
from conftest import PairFiles, write_raster
from rasterio.vrt import WarpedVRT

from ksdiff_cli.files.names import Inputs, files_behind, paths_in
from ksdiff_cli.files.writing import write_png

Array = Any
FAST = ("--method", "exp", "--no-registration-check", "--overwrite", "-q")


def vrt_of(path: Path, name: str = "over.vrt", edit: Callable[[str], str] = lambda text: text) -> Path:
    vrt = path.parent / name
    vrt.parent.mkdir(exist_ok=True)
    rasterio.shutil.copy(path, vrt, driver="VRT")
    vrt.write_text(edit(vrt.read_text()))
    return vrt


def renamed(source: str) -> Callable[[Path], Path]:
    """Make a VRT whose sources go by another name, with the file's own for {}."""

    def make(path: Path) -> Path:
        name = source.format(path)
        return vrt_of(
            path, edit=lambda text: text.replace('relativeToVRT="1"', "").replace(f">{path.name}<", f">{name}<")
        )

    return make


def nested(path: Path, inner: Path) -> Path:
    """Make a VRT that shows another VRT of the file."""
    return vrt_of(path, "outer.vrt", lambda text: text.replace(f">{path.name}<", f">{inner.name}<"))


def warped(path: Path) -> Path:
    with rasterio.open(path) as dataset, WarpedVRT(dataset, crs=dataset.crs) as view:
        rasterio.shutil.copy(view, path.with_name("warped.vrt"), driver="VRT")
    return path.with_name("warped.vrt")


def zipped(path: Path) -> str:
    content, place = path.read_bytes(), f"/vsizip/{{{path}}}/inner.tif"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("inner.tif", content)
    return place


def gzipped(path: Path) -> str:
    path.write_bytes(gzip.compress(path.read_bytes()))
    return f"/vsigzip/{path}"


def linked(link: Callable[[Path, Path], None]) -> Callable[[Path], Path]:
    def make(path: Path) -> Path:
        other = path.with_name("linked.tif")
        link(path, other)
        return other

    return make


def tile_index(end: str) -> Callable[[Path], str]:
    """Make an index of tiles, whose dataset names no tile as one of its files."""

    def make(path: Path) -> str:
        with rasterio.open(path) as dataset:
            left, bottom, right, top = dataset.bounds
            crs = dataset.crs.to_string()
        ring = [[left, bottom], [right, bottom], [right, top], [left, top], [left, bottom]]
        feature = {"type": "Feature", "properties": {"location": str(path)}}
        feature |= {"geometry": {"type": "Polygon", "coordinates": [ring]}}
        named = {"type": "name", "properties": {"name": crs}}
        index = path.with_name(f"index.{end}")
        text = json.dumps({"type": "FeatureCollection", "crs": named, "features": [feature]})
        if end == "gpkg":
            write_index(index, path, (left, bottom, right, top), int(crs.removeprefix("EPSG:")))
        else:
            index.write_text(text)
        return f"GTI:{index}"

    return make


def write_index(index: Path, tile: Path, bounds: tuple[float, ...], crs: int) -> None:
    """Write the least GeoPackage that is an index of one tile."""
    left, bottom, right, top = bounds
    ring = struct.pack("<10d", left, bottom, right, bottom, right, top, left, top, left, bottom)
    shape = b"GP\0\1" + struct.pack("<i", crs) + b"\1" + struct.pack("<III", 3, 1, 5) + ring
    with closing(sqlite3.connect(index)) as database, database:
        database.executescript("""
            PRAGMA application_id = 1196444487; PRAGMA user_version = 10200;
            CREATE TABLE gpkg_spatial_ref_sys (srs_name TEXT, srs_id INTEGER PRIMARY KEY, organization TEXT,
                organization_coordsys_id INTEGER, definition TEXT, description TEXT);
            CREATE TABLE gpkg_contents (table_name TEXT PRIMARY KEY, data_type TEXT, identifier TEXT, description TEXT,
                last_change DATETIME, min_x DOUBLE, min_y DOUBLE, max_x DOUBLE, max_y DOUBLE, srs_id INTEGER);
            CREATE TABLE gpkg_geometry_columns (table_name TEXT, column_name TEXT, geometry_type_name TEXT,
                srs_id INTEGER, z TINYINT, m TINYINT);
            CREATE TABLE "the index" (fid INTEGER PRIMARY KEY, geom POLYGON, location TEXT);""")
        wkt = rasterio.crs.CRS.from_epsg(crs).to_wkt()
        database.execute("INSERT INTO gpkg_spatial_ref_sys VALUES ('a', ?, 'EPSG', ?, ?, '')", (crs, crs, wkt))
        contents = ("the index", "features", "the index", "", "2024-01-01T00:00:00Z", left, bottom, right, top, crs)
        database.execute("INSERT INTO gpkg_contents VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", contents)
        database.execute("INSERT INTO gpkg_geometry_columns VALUES ('the index', 'geom', 'POLYGON', ?, 0, 0)", (crs,))
        database.execute('INSERT INTO "the index" VALUES (1, ?, ?)', (shape, str(tile)))


def through_link(path: Path) -> Path:
    """A VRT seen through a symbolic link in another folder."""
    link = path.parent / "far" / "link.vrt"
    link.parent.mkdir()
    link.symlink_to(vrt_of(path))
    return link


NAMES: dict[str, Callable[[Path], str | Path]] = {
    "itself": lambda path: path,
    "hard link": linked(lambda path, other: os.link(path, other)),
    "symbolic link": linked(lambda path, other: other.symlink_to(path)),
    "linked folder": lambda path: linked(lambda old, new: new.symlink_to(old.parent))(path) / path.name,
    "dots": lambda path: path.parent / ".." / path.parent.name / path.name,
    "file://": lambda path: f"file://{path}",
    "FILE://": lambda path: f"FILE://{path}",
    "vrt://": lambda path: f"vrt://{path}",
    "vrt:// with options": lambda path: f"vrt://{path}?nogcp=true",
    "GTIFF_RAW": lambda path: f"GTIFF_RAW:{path}",
    "GTIFF_DIR": lambda path: f"GTIFF_DIR:1:{path}",
    "part of a file": lambda path: f"/vsisubfile/0_{path.stat().st_size},{path}",
    "cached": lambda path: f"/vsicached?chunk_size=4096&file={path}",
    "gzip": gzipped,
    "zip": zipped,
    "VRT": vrt_of,
    "VRT by address": lambda path: f"vrt://{vrt_of(path)}",
    "VRT of a VRT": lambda path: nested(path, vrt_of(path)),
    "VRT of a VRT of a part": lambda path: nested(path, renamed("GTIFF_DIR:1:{}")(path)),
    "VRT elsewhere": lambda path: vrt_of(path, "below/over.vrt"),
    "VRT through a link": through_link,
    "VRT of an address": renamed("vrt://{}?nogcp=true"),
    "VRT of a directory": renamed("GTIFF_DIR:1:{}"),
    "VRT of a part": renamed("/vsisubfile/0_999999,{}"),
    "VRT with signs in numbers": lambda path: renamed("".join(f"&#{ord(sign)};" for sign in str(path)))(path),
    "VRT in a zip": lambda path: zipped(renamed("{}")(path)),
    "VRT that warps": warped,
    "index of tiles": tile_index("geojson"),
    "index of tiles in a database": tile_index("gpkg"),
    "VRT as text": lambda path: renamed("{}")(path).read_text(),
}


@pytest.fixture
def files(make_pair: Any) -> PairFiles:
    made: PairFiles = make_pair()
    return made


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture
def refused(fails: Any) -> Callable[..., str]:
    """Run a command that must be refused and leave everything in a folder as it is."""

    def invoke(folder: Path, *words: Any, says: str = "is one of the inputs") -> str:
        before = contents(folder)
        line: str = fails(*words)
        assert says in line, line
        assert contents(folder) == before
        return line

    return invoke


@pytest.mark.parametrize(("name", "role"), zip(NAMES, cycle(("pan", "ms"))))
def test_an_input_by_any_name_stays(name: str, role: str, files: PairFiles, refused: Any) -> None:
    target = getattr(files, role)
    given = {"pan": files.pan, "ms": files.ms} | {role: NAMES[name](target)}
    with rasterio.open(given[role]) as dataset:  # GDAL reads it by that name
        assert dataset.read(1).any()
    refused(files.folder, "sharpen", given["pan"], given["ms"], "-o", target, *FAST)


@pytest.mark.parametrize("name", ["hard link", "VRT", "VRT of an address"])
def test_every_file_that_sharpen_writes(name: str, files: PairFiles, refused: Any, weights: Any) -> None:
    out = files.folder / "out.tif"
    as_png, as_aux = files.folder / "ms.png", files.folder / "out.tif.aux.xml"
    for path in (as_png, as_aux):
        shutil.copy(files.ms, path)
    words = ("-o", out, *FAST)
    refused(files.folder, "sharpen", files.pan, NAMES[name](as_png), *words, "--quicklook", as_png)
    (files.folder / "linked.tif").unlink(missing_ok=True)
    line = refused(files.folder, "sharpen", files.pan, NAMES[name](as_aux), *words, says="belongs to one of the inputs")
    (files.folder / "linked.tif").unlink(missing_ok=True)
    assert "out.tif.aux.xml" in line
    given = ("sharpen", files.pan, NAMES[name](files.ms), "-o", out, "--no-registration-check", "--overwrite")
    refused(files.folder, *given, "--uncertainty", files.ms)
    checkpoint = weights().rename(files.folder / "out.tif.adapted.safetensors")
    refused(files.folder, *given, "--adapt", 0.01, "--checkpoint", checkpoint)
    refused(files.folder, *given, "--checkpoint", checkpoint.rename(out))


@pytest.mark.parametrize("end", [".tfw", ".RPB", "_RPC.TXT"])
def test_a_file_beside_an_input_stays(end: str, files: PairFiles, refused: Any) -> None:
    option = {".tfw": "TFW", ".RPB": "RPB", "_RPC.TXT": "RPCTXT"}[end]
    jp2 = files.folder / "out.jp2"
    shutil.copy(files.ms, jp2)
    (files.folder / f"out{end}").write_text("of the input")
    words = ("sharpen", files.pan, vrt_of(jp2), "-o", files.folder / "out.tif", *FAST)
    refused(files.folder, *words, "--co", f"{option}=YES", says="belongs to one of the inputs")


def test_tiles_and_rpcs_of_a_product_stay(tmp_path: Path, refused: Any) -> None:
    folder = maker.maxar(tmp_path, level="1BS", pan_tiles=2, ms_tiles=2)
    for tile in sorted(folder.rglob("*R2C1*.TIF")):
        refused(folder, "sharpen", folder, "-o", tile, *FAST)
    for rpb in sorted(folder.rglob("*.RPB")):
        words = ("sharpen", folder, "-o", rpb.with_suffix(".tif"), *FAST, "--co", "RPB=YES")
        refused(folder, *words, says="belongs to one of the inputs")


def test_where_the_output_grows_an_input_stays(files: PairFiles, refused: Any) -> None:
    for name in (".out.tif.shards/ms.tif", ".out.tif.123.partial"):
        hidden = files.folder / name
        hidden.parent.mkdir(exist_ok=True)
        shutil.copy(files.ms, hidden)
        words = ("sharpen", files.pan, vrt_of(hidden), "-o", files.folder / "out.tif", *FAST)
        refused(files.folder, *words, says="temporary files")


def test_what_somebody_else_keeps_in_our_folders_stays(files: PairFiles, refused: Any) -> None:
    words = ("sharpen", files.pan, files.ms, "-o", files.folder / "out.tif", *FAST)
    (files.folder / ".out.tif.shards").mkdir()
    (files.folder / ".out.tif.shards" / "thesis.doc").touch()
    refused(files.folder, *words, says="was not made by it")
    shutil.rmtree(files.folder / ".out.tif.shards")
    (files.folder / "elsewhere").mkdir()
    (files.folder / ".out.tif.shards").symlink_to("elsewhere")
    refused(files.folder, *words, says="was not made by it")


@pytest.mark.parametrize("name", ["out.tif.aux.xml", "out.tif.ovr", "out.tif.msk", "out.tfw", "out.RPB", "out_RPC.TXT"])
def test_somebody_elses_sidecar_stays_without_overwrite(name: str, files: PairFiles, refused: Any, run: Any) -> None:
    (files.folder / name).write_text("of another file")
    option = {".tfw": "TFW", ".RPB": "RPB", ".TXT": "RPCTXT"}.get(Path(name).suffix)
    words = ["sharpen", files.pan, files.ms, "-o", files.folder / "out.tif", *FAST]
    words += ["--co", f"{option}=YES"] if option else []
    words.remove("--overwrite")
    line = refused(files.folder, *words, says="exists already")
    assert name in line
    if option == "TFW":  # nothing is written there otherwise, and GDAL believes what is inside a GeoTIFF
        assert run(*words[:-2]).exit_code == 0 and (files.folder / name).read_text() == "of another file"
        (files.folder / "out.tif").unlink()
    elif option:
        assert name in refused(files.folder, *words[:-2], says="would count as part of")
    done = run(*words, "--overwrite")
    assert done.exit_code == 0, done.output
    with rasterio.open(files.folder / "out.tif") as made:
        assert made.read().any()


@pytest.mark.parametrize("end", [".tfw", ".RPB", "_RPC.TXT", ".tif.aux.xml", ".tif.ovr", ".tif.msk"])
def test_sidecars_of_a_replaced_file_go(end: str, files: PairFiles, run: Any) -> None:
    """GDAL would take them for parts of the new one."""
    words = ("sharpen", files.pan, files.ms, "-o", files.folder / "out.tif", *FAST)
    assert run(*words).exit_code == 0
    alone = contents(files.folder)
    (files.folder / f"out{end}").write_text("of the old file")
    done = run(*words)
    assert done.exit_code == 0, done.output
    assert contents(files.folder).keys() == alone.keys()


@pytest.mark.parametrize("target", ["old.tif", "missing.tif", "out.tif"])
def test_an_output_that_is_a_link_is_refused(target: str, files: PairFiles, refused: Any) -> None:
    """Another file may hang on it: of a dated result, of a store that knows its files by their content."""
    shutil.copy(files.ms, files.folder / "old.tif")
    out = files.folder / "out.tif"
    out.symlink_to(target)
    line = refused(files.folder, "sharpen", files.pan, files.ms, "-o", out, *FAST, says=f"symbolic link to {target}")
    assert "name that file itself" in line and out.is_symlink()


def test_scenes_of_a_batch_keep_each_others_inputs(files: PairFiles, tmp_path: Path, run: Any) -> None:
    out, listed = tmp_path / "out", tmp_path / "list.csv"
    shutil.copytree(files.folder, out / "product")
    shutil.copy(files.ms, out / "a.tif")
    shutil.copy(files.ms, out / "b.tif")
    over = vrt_of(out / "b.tif", "deep.vrt")
    rows = [("one", files.ms, "a"), ("two", out / "a.tif", "c"), ("three", over, "d"), ("four", files.ms, "b")]
    text = "scene,pan,ms,name\n" + "".join(f",{files.pan},{ms},{name}\n" for _, ms, name in rows)
    listed.write_text(f"{text}{out / 'product'},,,p\n,{files.pan},{files.ms},product/ms\n".replace("product/ms", "ms"))
    before = {path: path.read_bytes() for path in (out / "a.tif", out / "b.tif")}
    done = run("sharpen", "--batch", listed, "-o", out, *FAST)
    failed = [one for one in json.loads((out / "batch.json").read_text())["scenes"] if one["status"] == "failed"]
    assert done.exit_code == 1 and [one["name"] for one in failed] == ["a", "b"], done.output
    assert all("is one of the inputs" in one["error"] for one in failed)
    assert all(path.read_bytes() == content for path, content in before.items())
    assert all((out / f"{name}.tif").exists() for name in ("c", "d", "p", "ms"))
    done = run("sharpen", "--batch", listed, "-o", out / "product", *FAST)  # where one product lies
    assert (out / "product" / "ms.tif").read_bytes() == files.ms.read_bytes(), done.output


def test_a_batch_keeps_lists_mosaics_and_other_summaries(files: PairFiles, tmp_path: Path, refused: Any) -> None:
    out = tmp_path / "out"
    out.mkdir()
    listed = out / "batch.json"
    listed.write_text(f"pan,ms\n{files.pan},{files.ms}\n")
    refused(tmp_path, "sharpen", "--batch", listed, "-o", out, *FAST)
    other = tmp_path / "list.csv"
    listed.rename(other)
    (out / "batch.json").write_text('{"mine": 1}')
    words = ["sharpen", "--batch", other, "-o", out, *FAST]
    words.remove("--overwrite")
    refused(tmp_path, *words, says="batch.json: exists already")
    (out / "batch.json").unlink()
    over = vrt_of(files.ms)
    other.write_text(f"pan,ms\n{files.pan},{nested(files.ms, over)}\n")
    refused(tmp_path, *words, "--overwrite", "--mosaic", over)
    (out / "all.vrt.ovr").write_text("of another file")
    refused(tmp_path, *words, "--mosaic", out / "all.vrt", says="all.vrt.ovr: exists already")


def test_maps_and_reports_keep_inputs(files: PairFiles, refused: Any, tmp_path: Path) -> None:
    maps = tmp_path / "maps"
    maps.mkdir()
    shutil.copy(files.ms, maps / "sam.tif")
    shutil.copy(files.ms, maps / "q2n.tif.aux.xml")
    page = tmp_path / "ms.html"
    shutil.copy(files.ms, page)
    words = ("metrics", files.ms, "--overwrite", "-q", "--reference")
    refused(tmp_path, *words, vrt_of(maps / "sam.tif"), "--maps", maps)
    refused(tmp_path, *words, vrt_of(maps / "q2n.tif.aux.xml"), "--maps", maps, says="belongs to one of the inputs")
    refused(tmp_path, *words, vrt_of(page), "--report", page)


@pytest.fixture
def tiles(tmp_path: Path) -> Path:
    """Tiles as prepare-data takes them, under the name of what it makes."""
    random, path = np.random.default_rng(0), tmp_path / "patches" / "train.h5"
    path.parent.mkdir()
    with h5py.File(path, "w") as file:
        for key, bands, side in (("gt", 4, 64), ("pan", 1, 64), ("ms", 4, 16), ("lms", 4, 64)):
            file[key] = random.integers(1, 999, (3, bands, side, side)).astype(np.float32)
    return path


@pytest.mark.parametrize("link", [None, os.link, os.symlink])
def test_patches_keep_the_tiles_that_they_are_made_of(link: Any, tiles: Path, refused: Any, tmp_path: Path) -> None:
    given = tiles
    if link is not None:
        given = tiles.rename(tmp_path / "mine.h5")
        link(given, tiles)
    says = "holds other files" if link is os.symlink else "is one of the inputs"
    refused(tmp_path, "prepare-data", given, "--patch", 32, "-o", tiles.parent, "--overwrite", says=says)


def test_training_and_evaluating_keep_weights_and_data(tiles: Path, weights: Any, refused: Any, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    kept = weights(bands=4).rename(run / "stage2.safetensors")
    words = ("train", "--data", tiles.parent, "-o", run, "--steps", 1, "--overwrite", "-q", "--fine-tune", "--init")
    refused(tmp_path, *words, kept)
    other = kept.rename(tmp_path / "mine.safetensors")
    kept.symlink_to(other)
    refused(tmp_path, *words[:-2], "--stage", "2", "--init", other)
    kept.unlink()
    for name in ("log.jsonl", "curves.png", "lock"):
        (run / name).write_text("mine\n")
        says = "is no lock" if name == "lock" else "has other log.jsonl or curves.png"
        refused(tmp_path, *[word for word in words if word != "--overwrite"], other, says=says)
        (run / name).unlink()
    named = tmp_path / "test.csv"
    os.link(tiles, named)
    given = ("evaluate", tiles, "--method", "exp", "--overwrite")
    refused(tmp_path, *given, "--csv", named)
    refused(tmp_path, *given, "--checkpoint", other, "--report", other.rename(tmp_path / "mine.html"), says="no such")


def test_names_of_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    plain, strange = Path("a.tif"), Path("b,c:d e?.tif")
    for path in (plain, strange):
        path.touch()
    for name in ("a.tif", "vrt://a.tif?bands=1,2", 'NETCDF:"a.tif":band', "/vsizip/a.tif/x/b.tif", "zip://a.tif!b"):
        assert paths_in(name) == [plain], name
    assert paths_in(f"GTIFF_RAW:{strange}") == [strange]
    assert paths_in("file:///a%2Etif".replace("/a", f"{tmp_path}/a")) == [tmp_path / "a.tif"]
    for name in ("no.tif", "https://host/a.tif?x=" + "a" * 500, "a\0b", "", 'PROJCS["a.tif",b]'):
        assert not [path for path in paths_in(name) if path.is_file() and path.name != "a.tif"], name
    assert paths_in("a" * 5000) == []


def test_what_a_warped_raster_needs_besides_stays(files: PairFiles, refused: Any) -> None:
    """A DEM, for one, which GDAL does not list among a dataset's files."""
    dem = files.folder / "dem.tif"
    write_raster(dem, np.ones((8, 8), np.float32))
    over = warped(files.ms)
    over.write_text(
        over.read_text().replace("</GDALWarpOptions>", "<Option name='DEM'>dem.tif</Option></GDALWarpOptions>")
    )
    with rasterio.open(over) as dataset:
        assert not [name for name in dataset.files if "dem" in name]
    refused(files.folder, "sharpen", files.pan, over, "-o", dem, *FAST)


def test_what_xml_names_is_followed_in_circles_and_out_of_them(tmp_path: Path) -> None:
    one, two, leaf = (tmp_path / name for name in ("one.vrt", "two.vrt", "leaf.bin"))
    leaf.write_bytes(b"\0")
    one.write_text("<a><![CDATA[x]]><b>two.vrt</b></a>")
    two.write_text("\ufeff <a file='one.vrt'><b>./leaf.bin</b></a>", encoding="utf-8")
    assert files_behind([one]) == [leaf, one, two]
    inputs = Inputs([one])
    assert inputs.find(leaf) and inputs.find(tmp_path / "x" / ".." / "two.vrt") is None
    (tmp_path / "x").mkdir()
    assert inputs.find(tmp_path / "x" / ".." / "two.vrt")


def test_a_picture_that_is_no_file_is_refused(files: PairFiles, refused: Any) -> None:
    pipe = files.folder / "look.png"
    os.mkfifo(pipe)
    words = ("sharpen", files.pan, files.ms, "-o", files.folder / "out.tif", *FAST, "--quicklook", pipe)
    refused(files.folder, *words, says="no ordinary file")
    pipe.unlink()
    write_png(np.zeros((4, 4, 3), np.uint8), pipe)
    write_raster(files.folder / "out.tif", np.ones((4, 96, 128), np.uint16))
    refused(files.folder, *[word for word in words if word != "--overwrite"], says="exists already")
