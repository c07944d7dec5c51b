"""Sharpening that goes on: after kills by real signals, full disks, other options; and never twice at once."""

import json
import os
import shutil
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from conftest import PairFiles, largest_file, read
from rasterio.transform import Affine

from ksdiff_cli.errors import KsdiffError
from ksdiff_cli.files.workdir import lock_folder
from ksdiff_cli.fusers.classical import Upsampling
from ksdiff_cli.numerics.moments import SceneStatistics
from ksdiff_cli.options.sharpening import SharpenOptions
from ksdiff_cli.output import geotiff, vrt
from ksdiff_cli.products import make_pair as scene_of
from ksdiff_cli.raster.tiles import Tile
from ksdiff_cli.sharpening import assembly
from ksdiff_cli.sharpening.engine import Sharpened, job_folder, sharpen_scene

Array = Any
ROOT = Path(__file__).resolve().parents[1]

# Processes that kill themselves at a chosen call of a function, before or after its work.
KILLED = """
import importlib, json, os, signal, sys
from pathlib import Path
import ksdiff_cli.sharpening.engine
from ksdiff_cli.fusers.classical import Upsampling
from ksdiff_cli.products import make_pair
from ksdiff_cli.options.sharpening import SharpenOptions
from ksdiff_cli.sharpening.engine import sharpen_scene

ksdiff_cli.sharpening.engine.QUICK = 0

def sharpen(folder, module, owner, name, number, when):
    place = importlib.import_module(module)
    place = getattr(place, owner) if owner else place
    work, calls = getattr(place, name), []

    def killing(*arguments, **more):
        calls.append(1)
        if len(calls) == number and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        done = work(*arguments, **more)
        if len(calls) == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return done

    setattr(place, name, killing)
    folder = Path(folder)
    scene = make_pair(str(folder / "pan.tif"), [str(folder / "ms.tif")])
    output = folder / "out.tif"
    tile = json.loads((folder / "tile.json").read_text()) if (folder / "tile.json").exists() else 64
    sharpen_scene(scene, output, Upsampling(), SharpenOptions(tile=tile, fidelity=False, overwrite=output.exists()))

for task in json.loads(sys.argv[1]):  # one process for each, all from one that has the libraries loaded
    if (child := os.fork()) == 0:
        sharpen(*task)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL, task
"""
KILLS: dict[str, tuple[tuple[Any, ...], int]] = {
    # where, and how many windows are fused when the same command is given again
    "before the first window": (("ksdiff_cli.sharpening.pipeline", "Windows", "read", 1, "before"), 18),
    "a shard is written but has no name": (("os", "", "fsync", 13, "after"), 14),
    "a shard has just got its name": (("pathlib", "Path", "replace", 9, "after"), 12),
    "all shards are there": (("ksdiff_cli.sharpening.assembly", "", "read_ahead", 1, "before"), 0),
    "in the middle of the output": (("ksdiff_cli.sharpening.assembly", "Seams", "add", 2, "after"), 0),
    "the output is whole": (("ksdiff_cli.files.workdir", "Claim", "make", 1, "after"), 0),
    "the output has its name": (("ksdiff_cli.files.workdir", "Workdir", "remove", 1, "before"), 0),
}


def kill(*tasks: tuple[Any, ...]) -> None:
    if not hasattr(os, "fork"):
        pytest.skip("no SIGKILL")
    one = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", KILLED, json.dumps(tasks)]
    done = subprocess.run(command, env={**os.environ, **one}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


class Counting(Upsampling):
    """Interpolation that counts its windows and may fail at one of them."""

    def __init__(self, fail_at: int | None = None, error: BaseException | None = None) -> None:
        self.calls, self.fail_at, self.error = 0, fail_at, error or RuntimeError("stop")

    def fuse(self, tile: Tile, statistics: SceneStatistics, ratio: int) -> Array:
        self.calls += 1
        if self.calls == self.fail_at:
            raise self.error
        return super().fuse(tile, statistics, ratio)


@pytest.fixture(autouse=True)
def long(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have windows of interpolation kept, as those of a huge output are."""
    monkeypatch.setattr("ksdiff_cli.sharpening.engine.QUICK", 0)


@pytest.fixture
def files(make_pair: Any) -> PairFiles:
    def dig(pan: Array, ms: Array) -> None:
        pan[:, :70, :140] = 0  # two windows are empty

    made: PairFiles = make_pair(size=(250, 300), edit=dig, pan_profile={"nodata": 0})
    return made


def copy_of(files: PairFiles, folder: Path) -> PairFiles:
    shutil.copytree(files.folder, folder)
    return PairFiles(folder, folder / "pan.tif", folder / "ms.tif")


def sharpen(files: PairFiles, fuser: Any = None, name: str = "out.tif", **options: Any) -> Sharpened:
    scene = scene_of(str(files.pan), [str(files.ms)])
    return sharpen_scene(
        scene, files.folder / name, fuser or Counting(), SharpenOptions(**{"tile": 64, "fidelity": False, **options})
    )


def interrupted(files: PairFiles, after: int, **options: Any) -> None:
    with pytest.raises(RuntimeError):
        sharpen(files, Counting(after + 1), **options)


def names(files: PairFiles) -> list[str]:
    return sorted(path.name for path in files.folder.iterdir())


def test_the_same_command_ends_what_a_killed_one_began(files: PairFiles, tmp_path: Path) -> None:
    whole = sharpen(files, name="whole.tif")
    expected = whole.output.read_bytes()
    whole.output.unlink()
    copies = {name: copy_of(files, tmp_path / name) for name in KILLS}
    kill(*((str(copies[name].folder), *place) for name, (place, _) in KILLS.items()))
    for name, (_, fused) in KILLS.items():
        assert ".out.tif.shards" in names(copies[name]), name
        fuser = Counting()
        made = sharpen(copies[name], fuser)
        assert made.output.read_bytes() == expected, name
        assert replace(made, output=whole.output, resumed=0) == whole, name
        assert names(copies[name]) == ["ms.tif", "out.tif", "pan.tif"], name
        assert fuser.calls == fused, name


def test_finished_windows_are_not_made_again(files: PairFiles) -> None:
    interrupted(files, 7)
    fuser = Counting()
    made = sharpen(files, fuser)
    # two empty ones besides
    assert (made.windows, made.resumed, fuser.calls) == (20, 9, 11)
    assert made.notes == ()
    whole = sharpen(files, name="whole.tif")
    assert made.output.read_bytes() == whole.output.read_bytes()


def test_a_shard_that_is_cut_off_is_made_again(files: PairFiles) -> None:
    interrupted(files, 7)
    shard = max(job_folder(files.folder / "out.tif").glob("*.tif"))
    os.truncate(shard, shard.stat().st_size // 2)
    made = sharpen(files)
    assert made.resumed == 8
    np.testing.assert_array_equal(read(made.output), read(sharpen(files, name="whole.tif").output))


def rewrite(path: Path) -> None:
    """Change a pixel in place; size and time stay, as after ``rsync -t``."""
    state, content = path.stat(), bytearray(path.read_bytes())
    content[-5] ^= 1
    with path.open("r+b") as file:
        file.write(content)
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert path.stat().st_size == state.st_size and path.stat().st_mtime_ns == state.st_mtime_ns


def swap(path: Path) -> None:
    """Put another file of the same size and time in its place, as ``cp -p`` and ``mv`` do."""
    other = path.with_suffix(".other")
    shutil.copy2(path, other)
    rewrite(other)
    other.replace(path)


@pytest.mark.parametrize(
    ("place", "change"), [("pan", rewrite), ("ms", swap), ("behind two VRTs", rewrite), ("behind two VRTs", swap)]
)
def test_an_input_that_was_rewritten_in_place_starts_anew(
    place: str, change: Any, files: PairFiles, tmp_path: Path
) -> None:
    target = files.pan if place == "pan" else files.ms
    if "behind" in place:
        inner, outer = files.folder / "over.vrt", files.folder / "outer.vrt"
        rasterio.shutil.copy(files.ms, inner, driver="VRT")
        outer.write_text(inner.read_text().replace(">ms.tif<", ">over.vrt<"))
        files = replace(files, ms=outer)
    interrupted(files, 7)
    change(target)
    made = sharpen(files)
    assert made.resumed == 0 and any("other options or inputs" in note for note in made.notes)
    assert made.output.read_bytes() == sharpen(files, name="whole.tif").output.read_bytes()


@pytest.mark.parametrize("change", [rewrite, swap])
def test_an_input_that_changes_while_it_is_read_gives_no_output(change: Any, files: PairFiles) -> None:
    class Changing(Counting):
        def fuse(self, tile: Tile, statistics: SceneStatistics, ratio: int) -> Array:
            if self.calls == 9:
                change(files.ms)
            return super().fuse(tile, statistics, ratio)

    with pytest.raises(KsdiffError, match=r"ms.tif: was changed while it was read; run the same command again"):
        sharpen(files, Changing())
    assert "out.tif" not in names(files)
    made = sharpen(files)
    assert made.resumed == 0
    assert names(files) == ["ms.tif", "out.tif", "pan.tif"]


def test_a_file_that_appears_meanwhile_is_kept(files: PairFiles) -> None:
    class Slow(Counting):
        def fuse(self, tile: Tile, statistics: SceneStatistics, ratio: int) -> Array:
            if self.calls == 9:
                (files.folder / "out.tif").write_text("of another program")
            return super().fuse(tile, statistics, ratio)

    with pytest.raises(KsdiffError, match=r"out.tif: cannot be written \(another program wrote to it meanwhile"):
        sharpen(files, Slow())
    assert (files.folder / "out.tif").read_text() == "of another program"
    with pytest.raises(KsdiffError, match="exists already"):
        sharpen(files)
    assert sharpen(files, overwrite=True).resumed == 20


@pytest.mark.parametrize("change", ["tile", "dtype", "window", "method", "input"])
def test_anything_else_starts_anew_and_says_so(change: str, files: PairFiles) -> None:
    interrupted(files, 7)
    fuser, options = Counting(), {}
    if change == "method":
        fuser.provenance = lambda: {"METHOD": "other"}  # type: ignore[method-assign]
    elif change == "input":
        os.utime(files.ms, ns=(1, 1))
    else:
        options = {change: {"tile": 80, "dtype": "float32", "window": (0, 0, 250, 290)}[change]}
    made = sharpen(files, fuser, **options)
    assert made.resumed == 0
    assert any("other options or inputs" in note for note in made.notes)
    assert names(files) == ["ms.tif", "out.tif", "pan.tif"]


@pytest.mark.parametrize("crs", ["EPSG:32631", None])
def test_shards_lie_where_the_scene_does(crs: str | None, make_pair: Any) -> None:
    files = make_pair(size=(150, 130), crs=crs)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # of shards without a georeference, too
        interrupted(files, 6)
        with rasterio.open(job_folder(files.folder / "out.tif") / "r000064_c000128.tif") as shard:
            assert shard.shape == (64, 2)
            found = shard.crs, shard.transform
    with rasterio.open(files.pan) as pan:
        place = pan.transform if crs else Affine(1, 0, -0.5, 0, -1, 0.5)
        assert found == (pan.crs, place @ Affine.translation(128, 64))


def test_a_damaged_shard_says_so(files: PairFiles) -> None:
    interrupted(files, 7)
    shard = max(job_folder(files.folder / "out.tif").glob("*.tif"))
    shard.write_bytes(b"?" * shard.stat().st_size)
    with pytest.raises(KsdiffError, match=f"{shard.name}: is damaged .*start anew with --no-resume"):
        sharpen(files)


def test_starting_anew_when_asked_to(files: PairFiles) -> None:
    interrupted(files, 7)
    made = sharpen(files, resume=False)
    assert (made.resumed, made.notes) == (0, ())


def test_how_the_output_is_stored_does_not_matter_for_windows(files: PairFiles) -> None:
    interrupted(files, 7)
    made = sharpen(files, creation={"COMPRESS": "LZW"})
    assert made.resumed == 9
    with rasterio.open(made.output) as out:
        assert out.compression.name == "lzw"


def test_an_output_that_is_there_is_taken_for_ours_only_if_it_is(files: PairFiles, tmp_path: Path) -> None:
    cases = ("the output is whole", "the output has its name", "another output", "after the end")
    whole, named, other, late = (copy_of(files, tmp_path / case) for case in cases)
    for scene in (whole, named):  # its output will be replaced
        sharpen(scene, creation={"COMPRESS": "LZW"})
    first, last = (KILLS[case][0] for case in cases[:2])
    end = ("shutil", "", "rmtree", 1, "before")
    kill(*((str(one.folder), *at) for one, at in ((whole, first), (named, last), (other, last), (late, end))))
    for scene in (whole, named):
        made = sharpen(scene, overwrite=True)
        with rasterio.open(made.output) as out:
            assert out.compression.name != "lzw"
        assert made.resumed == made.windows
        assert names(scene) == ["ms.tif", "out.tif", "pan.tif"]
    before = (other.folder / "out.tif").read_bytes()
    with pytest.raises(KsdiffError, match="exists already"):
        sharpen(other, dtype="float32")
    assert (other.folder / "out.tif").read_bytes() == before
    assert names(late) != ["ms.tif", "out.tif", "pan.tif"]
    with pytest.raises(KsdiffError, match="exists already"):
        sharpen(late)
    assert names(late) == ["ms.tif", "out.tif", "pan.tif"]


def test_two_processes_at_one_output(files: PairFiles, fails: Any) -> None:
    output = files.folder / "out.tif"
    with lock_folder(job_folder(output), "busy"):
        line = fails("sharpen", files.pan, files.ms, "-o", output, "--method", "exp", "--no-registration-check")
        assert f"another ksdiff sharpen (process {os.getpid()}) is making it" in line
    assert sharpen(files).resumed == 0


def test_what_killed_runs_left_beside_the_output_goes(files: PairFiles) -> None:
    (files.folder / ".out.tif.123.partial").touch()
    (files.folder / ".out.tif.123.partial.aux.xml").touch()
    (files.folder / ".out.tif.mine").touch()
    (files.folder / ".out.tif.123.tfw").touch()
    (files.folder / ".out.tif.123_RPC.TXT").touch()
    others = [".out.tif.mine", "..out.tif.123.partial", ".out.tif.1.tif.123.partial", ".out_tiles.123.old"]
    for name in others:  # of outputs called .out.tif, out.tif.1.tif and out.vrt
        (files.folder / name).touch()
    sharpen(files)
    assert names(files) == sorted([*others, "ms.tif", "out.tif", "pan.tif"])


@pytest.mark.parametrize("format", ["COG", "VRT"])
@pytest.mark.parametrize("place", ["whole", "copy", "last"])
def test_what_a_run_leaves_that_is_killed_anywhere_goes(
    place: str, format: Any, files: PairFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = "out.vrt" if format == "VRT" else "out.tif"
    module, function = {
        "whole": (assembly.Assembly, "finish"),
        "copy": (geotiff, "check_whole") if format == "COG" else (vrt, "add_sources"),
        "last": (Path, "replace") if format == "COG" else (vrt.shutil, "rmtree"),
    }[place]
    work, left = getattr(module, function), tmp_path / "left"

    def leaving(*arguments: Any, **more: Any) -> Any:
        shutil.copytree(files.folder, left, dirs_exist_ok=True)  # all that there is at any such call
        return work(*arguments, **more)

    sharpen(files, name=output, format=format)
    with monkeypatch.context() as patched:
        patched.setattr(module, function, leaving)
        sharpen(files, name=output, format=format, overwrite=True)
    killed = [path for path in left.iterdir() if str(os.getpid()) in path.name]
    assert killed
    for path in killed:
        path.rename(left / path.name.replace(str(os.getpid()), "123"))
    shutil.rmtree(left / f".{output}.shards", ignore_errors=True)
    again = PairFiles(left, left / "pan.tif", left / "ms.tif")
    sharpen(again, name=output, format=format, overwrite=True)
    assert names(again) == sorted(["ms.tif", "pan.tif", output, *(["out_tiles"] if format == "VRT" else [])])


def test_interrupting_tells_how_to_go_on(files: PairFiles, run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    fuser = Counting(8, KeyboardInterrupt())
    monkeypatch.setattr("ksdiff_cli.sharpening.workflow.make_fuser", lambda *arguments, **more: fuser)
    command = ("sharpen", files.pan, files.ms, "-o", files.folder / "out.tif", "--tile", 64)
    stopped = run(*command, "--no-registration-check")
    assert stopped.exit_code == 130
    assert "the same command goes on from here" in stopped.stderr
    fuser.fail_at = None
    done = run(*command, "--no-registration-check")
    assert done.exit_code == 0, done.output
    assert "Windows of 64 pixels: 20, 9 of them kept from an interrupted run" in done.stderr


def test_a_disk_that_fills_up_while_shards_are_written(files: PairFiles) -> None:
    # cores at the lower border are smaller
    with largest_file(30_000), pytest.raises(KsdiffError, match=r"r000000_c000128.tif: cannot be written .*make room"):
        sharpen(files)
    assert names(files) == [".out.tif.shards", "ms.tif", "pan.tif"]  # the empty windows count
    assert not list(files.folder.rglob("*.part"))
    whole = sharpen(files)
    assert whole.resumed > 0


def test_a_disk_that_fills_up_while_the_output_is_written(files: PairFiles) -> None:
    with largest_file(100_000), pytest.raises(KsdiffError, match=r"out.tif: cannot be written .*20 finished windows"):
        sharpen(files)
    assert names(files) == [".out.tif.shards", "ms.tif", "pan.tif"]
    made = sharpen(files)
    assert made.resumed == 20
    np.testing.assert_array_equal(read(made.output), read(sharpen(files, name="whole.tif").output))


def test_a_disk_with_too_little_room_is_refused_before_the_work(
    files: PairFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    fuser, usage = Counting(), shutil.disk_usage(files.folder)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=800_000))
    with pytest.raises(KsdiffError, match="free space, but the output and the windows on the way to it take"):
        sharpen(files, fuser)
    assert fuser.calls == 0
    assert names(files) == ["ms.tif", "pan.tif"]


# ---- windows of whole blocks go into the output as they are made

AS_MADE: dict[str, tuple[tuple[Any, ...], int]] = {
    "before a window is stored": (("ksdiff_cli.sharpening.job", "Job", "store", 3, "before"), 4),
    "before a window goes into the output": (("ksdiff_cli.sharpening.assembly", "Assembly", "take", 4, "before"), 2),
    "in the middle of a window": (("ksdiff_cli.sharpening.assembly", "Seams", "add_rows", 5, "after"), 1),
    "all windows are there": (("ksdiff_cli.sharpening.assembly", "Assembly", "finish", 1, "before"), 0),
}


@pytest.fixture
def blocks(make_pair: Any) -> PairFiles:
    """Six windows of 256 pixels, the third one empty."""

    def dig(pan: Array, ms: Array) -> None:
        pan[:, :256, 512:] = 0

    made: PairFiles = make_pair(size=(400, 600), edit=dig, pan_profile={"nodata": 0})
    return made


def piece_by_piece(files: PairFiles, monkeypatch: pytest.MonkeyPatch, fidelity: bool = False) -> bytes:
    """Make the output from shards, once all are finished."""
    prepare = assembly.Assembly.__init__

    def later(self: Any, *arguments: Any) -> None:
        prepare(self, *arguments)
        self.streams = False

    with monkeypatch.context() as patch:
        patch.setattr(assembly.Assembly, "__init__", later)
        return sharpen(files, name="pieces.tif", tile=256, fidelity=fidelity).output.read_bytes()


@pytest.mark.parametrize("format", ["GTiff", "COG", "VRT"])
@pytest.mark.parametrize("limit", [0, 10**9])
def test_windows_go_into_the_output_as_they_are_made(
    format: str, limit: int, blocks: PairFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[int] = []
    take = assembly.Assembly.take
    monkeypatch.setattr(assembly.Assembly, "take", lambda self, *given: taken.append(given[0]) or take(self, *given))
    monkeypatch.setattr("ksdiff_cli.sharpening.engine.QUICK", limit)
    if limit:
        monkeypatch.setattr("ksdiff_cli.sharpening.job.Job.store", lambda *arguments: 1 / 0)
    suffix = "vrt" if format == "VRT" else "tif"
    made = sharpen(blocks, name=f"out.{suffix}", tile=256, format=format, fidelity=True)
    assert (taken, made.windows, made.resumed) == (list(range(6)), 6, 0)
    assert made.seam == pytest.approx(1, abs=0.1) and made.fidelity
    if format == "GTiff":
        monkeypatch.undo()
        monkeypatch.setattr("ksdiff_cli.sharpening.engine.QUICK", 0)
        assert made.output.read_bytes() == piece_by_piece(blocks, monkeypatch, fidelity=True)


def test_kills_while_windows_go_into_the_output(
    blocks: PairFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (blocks.folder / "tile.json").write_text("256")
    expected = piece_by_piece(blocks, monkeypatch)
    (blocks.folder / "pieces.tif").unlink()
    copies = {name: copy_of(blocks, tmp_path / name) for name in AS_MADE}
    kill(*((str(copies[name].folder), *place) for name, (place, _) in AS_MADE.items()))
    for name, (_, fused) in AS_MADE.items():
        fuser = Counting()
        made = sharpen(copies[name], fuser, tile=256)
        assert made.output.read_bytes() == expected, name
        assert names(copies[name]) == ["ms.tif", "out.tif", "pan.tif", "tile.json"], name
        # the empty one is never fused, and a window may have been on its way
        assert fuser.calls <= fused + 1, name


def test_what_is_made_again_in_seconds_leaves_nothing(blocks: PairFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ksdiff_cli.sharpening.engine.QUICK", 10**9)
    interrupted(blocks, 3, tile=256)
    assert names(blocks) == ["ms.tif", "pan.tif"]
    with largest_file(100_000), pytest.raises(KsdiffError, match=r"out.tif: cannot be written"):
        sharpen(blocks, tile=256)
    assert names(blocks) == ["ms.tif", "pan.tif"]
    made = sharpen(blocks, tile=256)
    monkeypatch.setattr("ksdiff_cli.sharpening.engine.QUICK", 0)
    assert made.output.read_bytes() == piece_by_piece(blocks, monkeypatch)


def test_a_disk_that_fills_up_while_windows_go_into_the_output(
    blocks: PairFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    with largest_file(600_000), pytest.raises(KsdiffError, match=r"out.tif: cannot be written .*finished windows"):
        sharpen(blocks, tile=256, creation={"COMPRESS": "NONE"})
    assert names(blocks) == [".out.tif.shards", "ms.tif", "pan.tif"]
    made = sharpen(blocks, tile=256)
    assert made.resumed > 0
    assert made.output.read_bytes() == piece_by_piece(blocks, monkeypatch)
