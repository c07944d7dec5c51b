"""Many scenes: each on its own, none stops the others, and what is there is not made again."""

import json
import shutil
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np
import pytest
import rasterio
from conftest import PairFiles

from ksdiff_cli.errors import KsdiffError, StoppedError
from ksdiff_cli.output.vrt import write_vrt
from ksdiff_cli.sharpening import batch
from ksdiff_cli.sharpening.batch import BatchInputs, Outputs, Source, read_sources, run_batch, summarise

OPTIONS = ("--method", "exp", "--no-registration-check", "--tile", 64)


@pytest.fixture
def scenes(make_pair: Any, tmp_path: Path) -> Path:
    """A folder with scenes ``one`` and ``two``, and ``bad``, whose PAN is cut off."""
    folder = tmp_path / "scenes"
    for name in ("one", "two", "bad"):
        made: PairFiles = make_pair(name)
        shutil.copytree(made.folder, folder / name)
    pan = folder / "bad" / "pan.tif"
    pan.write_bytes(pan.read_bytes()[:1000])
    return folder


def run_all(sources: list[Source], folder: Path, sharpen: Any, **more: Any) -> Any:
    return run_batch(sources, Outputs(folder, BatchInputs(sources)), sharpen, **more)


def summary(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / batch.SUMMARY).read_text())
    return found


def test_a_failed_scene_is_reported_and_does_not_stop_the_rest(scenes: Path, tmp_path: Path, run: Any) -> None:
    out = tmp_path / "out"
    done = run("sharpen", "--batch", scenes, "-o", out, *OPTIONS, "--json")
    assert done.exit_code == 1
    assert "Error: 1 of 3 scenes failed; the same command tries them again" in done.stderr
    found = json.loads(done.stdout)
    assert found == summary(out)
    assert {one["name"]: one["status"] for one in found["scenes"]} == {"bad": "failed", "one": "made", "two": "made"}
    assert (found["made"], found["kept"], found["failed"]) == (2, 0, 1)
    (bad,) = (one for one in found["scenes"] if one["status"] == "failed")
    assert "bad/pan.tif" in bad["error"] and "trace" not in bad
    assert sorted(path.name for path in out.iterdir()) == ["batch.json", "one.tif", "two.tif"]
    alone = tmp_path / "alone.tif"
    assert run("sharpen", scenes / "one", "-o", alone, *OPTIONS).exit_code == 0
    assert (out / "one.tif").read_bytes() == alone.read_bytes()


def test_another_run_makes_only_what_is_missing(scenes: Path, tmp_path: Path, run: Any, make_pair: Any) -> None:
    out = tmp_path / "out"
    run("sharpen", "--batch", scenes, "-o", out, *OPTIONS)
    times = {name: (out / name).stat().st_mtime_ns for name in ("one.tif", "two.tif")}
    shutil.copy(scenes / "one" / "pan.tif", scenes / "bad" / "pan.tif")
    (out / "two.tif").unlink()
    done = run("sharpen", "--batch", scenes, "-o", out, *OPTIONS)
    assert done.exit_code == 0, done.output
    assert {one["name"]: one["status"] for one in summary(out)["scenes"]} == {
        "bad": "made", "one": "kept", "two": "made",
    }  # fmt: skip
    assert (out / "one.tif").stat().st_mtime_ns == times["one.tif"]
    for cell in ("scene", "status", "kept", "made", str(out / "bad.tif")):
        assert cell in done.stdout


def test_a_list_with_names_and_several_ms_files(scenes: Path, tmp_path: Path, run: Any) -> None:
    for band in (1, 2):
        with (
            rasterio.open(scenes / "one" / "ms.tif") as ms,
            rasterio.open(scenes / f"b{band}.tif", "w", **ms.profile | {"count": 1}) as out,
        ):
            out.write(ms.read([band]))
    listed = scenes / "list.csv"
    listed.write_text(
        "name, pan, ms, scene, sensor\n"
        "first, one/pan.tif, b1.tif; b2.tif,,\n\n"
        "second,,, two, QB\n"
        f",{scenes / 'two' / 'pan.tif'}, two/ms.tif,,\n"
    )
    out_dir = tmp_path / "out"
    done = run("sharpen", "--batch", listed, "-o", out_dir, *OPTIONS)
    assert done.exit_code == 0, done.output
    assert sorted(path.name for path in out_dir.glob("*.tif")) == ["first.tif", "pan.tif", "second.tif"]
    with rasterio.open(out_dir / "first.tif") as first, rasterio.open(out_dir / "second.tif") as second:
        assert (first.count, second.count) == (2, 4)
        assert second.tags()["KSDIFF_SENSOR"] == "QB"
        np.testing.assert_array_equal(first.read(), second.read()[:2])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "lists no scene|must name a column"),
        ("scene\n", "lists no scene"),
        ("folder\none\n", "must name a column 'scene', or columns 'pan' and 'ms'"),
        ("scene,colour\none,red\n", "knows no column colour"),
        ("scene,pan,ms\none,one/pan.tif,one/ms.tif\n", "line 2: give either a scene, or PAN and MS"),
        ("pan,ms\none/pan.tif,\n", "line 2: give either"),
        ("pan,ms\none/pan.tif,a.tif,b.tif\n", "line 2: has more cells than the first line names"),
        ("scene,name\none,a/b\n", "line 2: 'a/b' cannot be a file's name"),
        ("scene,name\none,x\ntwo,X\n", "would both be called X"),
        ("pan;ms\none/pan.tif;a.tif;b.tif\n", "line 2: has more cells .* in quotes"),
        ("pan ms\none/pan.tif one/ms.tif\n", "with commas between"),
        ("pan,ms\none/p\0n.tif,one/ms.tif\n", "holds zero bytes"),
    ],
)
def test_a_list_that_cannot_be_understood(text: str, message: str, tmp_path: Path) -> None:
    listed = tmp_path / "list.csv"
    listed.write_text(text)
    with pytest.raises(KsdiffError, match=rf"list.csv.*({message})"):
        read_sources(listed)


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("pan;ms;name\none/pan.tif;one/ms.tif;a\n", "utf-8"),
        ('pan;ms\none/pan.tif;"one/ms.tif;two/ms.tif"\n', "utf-8-sig"),
        ("pan\tms\none/pan.tif\tone/ms.tif\n", "utf-16"),
        ("PAN, Ms ,Name\none/pan.tif,one/ms.tif,a\n", "utf-8"),
        ("\n\nscene,,\none,,\n", "utf-8"),
        ('"pan"|"ms"\r\none/pan.tif|one/ms.tif\r\n', "utf-8"),
    ],
)
def test_lists_as_spreadsheets_save_them(text: str, encoding: str, tmp_path: Path) -> None:
    listed = tmp_path / "list.csv"
    listed.write_text(text, encoding=encoding, newline="")
    (source,) = read_sources(listed)
    given = [str(tmp_path / name) for name in (["one"] if "scene" in text else ["one/pan.tif", "one/ms.tif"])]
    assert list(source.inputs)[: len(given)] == given
    assert len(source.inputs) == len(given) + ("two/ms.tif" in text)


def test_a_list_in_another_encoding_says_so(tmp_path: Path) -> None:
    listed = tmp_path / "list.csv"
    listed.write_text("pan,ms\npän.tif,ms.tif\n", encoding="latin-1")
    with pytest.raises(KsdiffError, match="save the list as CSV in UTF-8"):
        read_sources(listed)


def test_the_folder_of_the_list_itself_has_a_name(scenes: Path) -> None:
    listed = scenes / "one" / "list.csv"
    listed.write_text("scene\n.\n")
    assert [source.name for source in read_sources(listed)] == ["one"]


def test_thousands_of_rows_cost_by_their_number(tmp_path: Path, run: Any) -> None:
    listed, rows = tmp_path / "list.csv", 3000
    listed.write_text("pan,ms,name\n" + "".join(f"p{row}.tif,m{row}.tif,n{row}\n" for row in range(rows)))
    start = process_time()
    done = run("sharpen", "--batch", listed, "-o", tmp_path / "out", *OPTIONS, "-q")
    assert process_time() - start < 60
    assert done.exit_code == 1 and f"{rows} of {rows} scenes failed" in done.stderr
    assert done.stdout.count("failed") == 200 and f"and {rows - 200} more, see" in done.stdout
    assert len(summary(tmp_path / "out")["scenes"]) == rows


def test_an_output_folder_that_goes_ends_the_batch(scenes: Path, tmp_path: Path) -> None:
    out, begun = tmp_path / "out", []

    def sharpen(scene: Any, output: Path, progress: Any) -> None:
        begun.append(output)
        shutil.rmtree(out)
        raise KsdiffError("cannot be written")

    with pytest.raises(KsdiffError, match="out: was removed while the batch ran; run the same command again"):
        run_all(read_sources(scenes), out, sharpen)
    assert not out.exists() and len(begun) == 1


def test_places_that_hold_nothing(tmp_path: Path) -> None:
    with pytest.raises(KsdiffError, match="holds no folders"):
        read_sources(tmp_path)
    with pytest.raises(KsdiffError, match="no such file or folder"):
        read_sources(tmp_path / "none")


def test_outputs_and_hidden_files_beside_the_scenes_are_no_scenes(scenes: Path) -> None:
    (scenes / "out").mkdir()
    (scenes / ".cache").mkdir()
    (scenes / "notes.md").touch()
    assert [source.name for source in read_sources(scenes, None, scenes / "out")] == ["bad", "one", "two"]


def test_a_product_with_several_scenes_gives_several_outputs(scenes: Path, tmp_path: Path) -> None:
    shutil.rmtree(scenes / "bad")
    made: list[Path] = []
    outcomes = run_all([Source("all", (str(scenes),))], tmp_path / "out", lambda scene, output, _: made.append(output))
    assert [path.name for path in made] == ["all_one.tif", "all_two.tif"]
    assert [one.status for one in outcomes] == ["made", "made"]


def test_what_nobody_foresaw_is_the_scenes_too(scenes: Path, tmp_path: Path) -> None:
    def fail(scene: Any, output: Path, progress: Any) -> None:
        if output.stem == "one":
            raise ZeroDivisionError("in the middle")

    outcomes = run_all(read_sources(scenes)[1:], tmp_path / "out", fail)
    assert [one.status for one in outcomes] == ["failed", "made"]
    assert outcomes[0].error == "ZeroDivisionError: in the middle" and "in fail" in outcomes[0].trace
    assert summarise(outcomes) == summary(tmp_path / "out")


@pytest.mark.parametrize("error", [KeyboardInterrupt, StoppedError])
def test_an_interrupted_batch_leaves_a_summary(scenes: Path, tmp_path: Path, error: type[BaseException]) -> None:
    def stop(scene: Any, output: Path, progress: Any) -> None:
        if output.stem == "two":
            raise error

    with pytest.raises(error):
        run_all(read_sources(scenes)[1:], tmp_path / "out", stop)
    assert [one["name"] for one in summary(tmp_path / "out")["scenes"]] == ["one"]


def test_a_lost_scheduler_ends_the_batch(scenes: Path, tmp_path: Path) -> None:
    def lost() -> None:
        raise KsdiffError("the scheduler is lost")

    with pytest.raises(KsdiffError, match="lost"):
        run_all(read_sources(scenes), tmp_path / "out", lambda *_: None, check=lost)
    assert summary(tmp_path / "out")["scenes"] == []


def test_usage(scenes: Path, tmp_path: Path, run: Any) -> None:
    out = tmp_path / "out"
    for arguments in (
        ("-o", out),
        ("--batch", scenes, scenes / "one", "-o", out),
        ("--batch", scenes, "-o", out, "--window", "0,0,9,9"),
        (scenes / "one", "-o", tmp_path / "x.tif", "--json"),
        (scenes / "one", "-o", tmp_path / "x.tif", "--workers", 2, "--scheduler", "tcp://x:1"),
    ):
        assert run("sharpen", *arguments).exit_code == 2


def test_a_mosaic_of_all_outputs(scenes: Path, tmp_path: Path, run: Any) -> None:
    (scenes / "bad" / "pan.tif").unlink()
    words = ("sharpen", "--batch", scenes, "-o", tmp_path / "out", *OPTIONS, "--mosaic")
    mosaic = tmp_path / "all.vrt"
    for _ in range(2):  # the second time everything is kept, and the mosaic is written anew
        assert "all.vrt: 2 outputs as one" in run(*words, mosaic).stderr
        with rasterio.open(mosaic) as whole, rasterio.open(tmp_path / "out" / "two.tif") as top:
            assert whole.descriptions == top.descriptions
            np.testing.assert_array_equal(whole.read(), top.read())
    refused = run(*words, tmp_path / "all.tif")
    assert refused.exit_code == 2 and "--mosaic names a .vrt" in refused.stderr


def test_a_mosaic_takes_nobodys_place(scenes: Path, tmp_path: Path, run: Any, fails: Any) -> None:
    listed = tmp_path / "list.csv"
    listed.write_text("pan,ms\nscenes/one/pan.tif,scenes/one/ms.tif\n")
    words = ("sharpen", "--batch", listed, "-o", tmp_path / "out", *OPTIONS, "--mosaic")
    assert "is the name of one of the outputs" in fails(*words, tmp_path / "out" / "pan.vrt", "-f", "VRT")
    assert "nofolder does not exist" in fails(*words, tmp_path / "nofolder" / "m.vrt")
    (tmp_path / "folder.vrt").mkdir()
    assert "is a folder" in fails(*words, tmp_path / "folder.vrt")
    seen = tmp_path / "seen.vrt"
    write_vrt(seen, [scenes / "one" / "pan.tif"])
    before = seen.read_bytes()
    assert "exists already" in fails(*words, seen)
    listed.write_text("pan,ms,name\nseen.vrt,scenes/one/ms.tif,one\n")
    assert "is one of the inputs" in fails(*words, seen, "--overwrite")
    assert seen.read_bytes() == before and not (tmp_path / "out").exists()
    inside = tmp_path / "out" / "all.vrt"  # whose folder the batch makes
    assert run(*words, inside).exit_code == 0 and inside.exists()
