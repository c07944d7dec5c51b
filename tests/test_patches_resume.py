"""prepare-data killed at any moment: the same command goes on and ends with the same bytes as a run left alone."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from itertools import cycle
from pathlib import Path

import numpy as np
import pytest
from conftest import start_child, write_raster
from rasterio.transform import Affine

from ksdiff_cli.errors import KsdiffError
from ksdiff_cli.files.workdir import Workdir
from ksdiff_cli.options.patches import PatchOptions
from ksdiff_cli.patches import workspace
from ksdiff_cli.patches.prepare import prepare_patches
from ksdiff_cli.patches.workspace import workspace_folder

ROOT = Path(__file__).resolve().parents[1]
LOADED = ("ksdiff_cli.patches.prepare",)
needs_posix = pytest.mark.skipif(sys.platform == "win32", reason="needs signals and file locks")


def make_scene(folder: Path, seed: int = 0) -> Path:
    random = np.random.default_rng(seed)
    for name, count, side, pixel in (("pan", 1, 160, 1.0), ("ms", 2, 80, 2.0)):
        image = random.integers(1, 999, (count, side, side)).astype(np.uint16)
        write_raster(folder / f"{name}.tif", image, crs="EPSG:32632", transform=Affine(pixel, 0, 5e5, 0, -pixel, 4e6))
    return folder


@pytest.fixture(autouse=True)
def many_parts(monkeypatch) -> None:
    monkeypatch.setattr(workspace, "_PART_WINDOWS", 8)


@pytest.fixture
def options(tmp_path) -> PatchOptions:
    """Two scenes."""
    scenes = (make_scene(tmp_path / "a"), make_scene(tmp_path / "b", seed=1))
    return PatchOptions(scenes, tmp_path / "patches", patch=16)


@pytest.fixture(scope="module")
def expected(tmp_path_factory) -> dict[str, bytes]:
    """What a run left alone makes of the same scenes."""
    folder = tmp_path_factory.mktemp("alone")
    scenes = (make_scene(folder / "a"), make_scene(folder / "b", seed=1))
    prepare_patches(PatchOptions(scenes, folder / "patches", patch=16))
    found = contents(folder / "patches")
    assert set(found) == {"train.h5", "valid.h5", "test.h5", "full.h5", "quicklook.png"}
    return found


def in_child(work, *arguments) -> int:
    """Run ``work`` in a second process; return its exit status, negative for a signal."""
    process = start_child(work, *arguments, preload=LOADED)
    process.join()
    return process.exitcode


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def die_at_rename(options: PatchOptions, number: int, after: bool) -> None:
    workspace._PART_WINDOWS = 8
    real, seen = {name: getattr(Path, name) for name in ("replace", "rename")}, []

    def deadly(name):
        def wrapped(self, target):
            seen.append(self)
            if len(seen) == number and not after:
                die()
            real[name](self, target)
            if len(seen) == number and after:
                die()

        return wrapped

    for name in real:
        setattr(Path, name, deadly(name))
    prepare_patches(options)


def die_at_step(options: PatchOptions, number: int) -> None:
    """Inside a part."""
    workspace._PART_WINDOWS = 8
    seen = []

    def deadly(done: int, total: int, note: str = "") -> None:
        seen.append(done)
        if len(seen) == number:
            die()

    prepare_patches(options, progress=deadly)


def die_at_the_end(options: PatchOptions) -> None:
    Workdir.remove = lambda work: die()
    prepare_patches(options)


def die_with_the_older_set_moved(options: PatchOptions) -> None:
    real = Path.rename

    def deadly(self, target):
        real(self, target)
        die()

    Path.rename = deadly
    prepare_patches(replace(options, overwrite=True))


def meet_a_full_disk(options: PatchOptions, size: int) -> None:
    import resource

    workspace._PART_WINDOWS = 8
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
    try:
        prepare_patches(options)
    except KsdiffError as error:
        wanted = "the same command then goes on" if workspace_folder(options.output).exists() else "cannot be written"
        os._exit(7 if wanted in str(error) else 8)


def work_until_told(options: PatchOptions, started: Path, go_on: Path) -> None:
    def wait(done: int, total: int, note: str = "") -> None:
        started.touch()
        while not go_on.exists():
            time.sleep(0.01)

    prepare_patches(options, progress=wait)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def visible(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in tmp_path.iterdir() if path.name not in ("a", "b"))


@needs_posix
def test_killed_again_and_again_it_still_ends_with_the_same_bytes(options, expected, tmp_path) -> None:
    """Every child dies just before its third rename, just after it or inside its second part; the next one goes on."""
    deaths = 0
    ways = cycle([(die_at_rename, 3, False), (die_at_rename, 3, True), (die_at_step, 2)])
    while not options.output.exists():
        work, *how = next(ways)
        status = in_child(work, options, *how)
        assert status in (0, -signal.SIGKILL)
        deaths += status != 0
        assert deaths < 200, "no progress"
    assert deaths > 6
    if status:  # killed after the last rename: the output is whole, the rest only rubbish
        prepare_patches(replace(options, overwrite=True))
    assert contents(options.output) == expected
    assert visible(tmp_path) == ["patches"]


@needs_posix
def test_killed_with_the_output_in_place_the_same_command_ends_well(options, expected, tmp_path) -> None:
    assert in_child(die_at_the_end, options) == -signal.SIGKILL
    assert visible(tmp_path) == [".patches.partial", "patches"]
    other = PatchOptions(options.scenes, options.output, patch=24)
    with pytest.raises(KsdiffError, match="holds patches already"):
        prepare_patches(other)
    before = (options.output / "train.h5").stat().st_mtime_ns
    done = prepare_patches(options)
    assert done.counts["train"] > 0 and (options.output / "train.h5").stat().st_mtime_ns == before
    assert contents(options.output) == expected
    assert visible(tmp_path) == ["patches"]
    with pytest.raises(KsdiffError, match="holds patches already"):
        prepare_patches(options)


@needs_posix
def test_killed_while_replacing_an_older_set_leaves_one_of_the_two_whole(options, expected, tmp_path) -> None:
    older = PatchOptions(options.scenes, options.output, patch=24)
    prepare_patches(older)
    assert in_child(die_with_the_older_set_moved, options) == -signal.SIGKILL
    with pytest.raises(KeyboardInterrupt):  # which puts the older one back first, whatever comes then
        prepare_patches(replace(options, overwrite=True), progress=interrupted)
    assert contents(options.output)["train.h5"] != expected["train.h5"]
    prepare_patches(replace(options, overwrite=True))
    assert contents(options.output) == expected
    assert visible(tmp_path) == ["patches"]


def interrupted(*_, **__) -> None:
    raise KeyboardInterrupt


def interrupt_at(step: int):
    def progress(done: int, total: int, note: str = "") -> None:
        if done == step:
            raise KeyboardInterrupt

    return progress


def test_an_interrupt_leaves_a_hidden_folder_that_the_same_command_takes_up(options, expected, tmp_path) -> None:
    with pytest.raises(KeyboardInterrupt):
        prepare_patches(options, progress=interrupt_at(10))
    assert visible(tmp_path) == [".patches.partial"]
    made = {path.name: path.stat().st_mtime_ns for path in workspace_folder(options.output).glob("train-*.h5")}
    assert made
    with pytest.raises(KeyboardInterrupt):
        prepare_patches(options, progress=interrupt_at(12))
    for name, time_made in made.items():
        assert (workspace_folder(options.output) / name).stat().st_mtime_ns == time_made, "made again"
    seen = []
    done = prepare_patches(options, progress=lambda done, total, note="": seen.append((done, total)))
    assert any("took up" in note for note in done.notes) and seen[-1][0] == seen[-1][1]
    assert contents(options.output) == expected


def test_other_options_or_scenes_and_no_resume_start_anew(options, expected, tmp_path) -> None:
    with pytest.raises(KeyboardInterrupt):
        prepare_patches(PatchOptions(options.scenes, options.output, patch=16, seed=7), progress=interrupt_at(10))
    done = prepare_patches(options)
    assert not any("took up" in note for note in done.notes)
    assert any("discarded" in note for note in done.notes)
    assert contents(options.output) == expected
    with pytest.raises(KeyboardInterrupt):
        prepare_patches(replace(options, overwrite=True), progress=interrupt_at(10))
    os.utime(options.scenes[0] / "ms.tif", ns=(1, 1))
    with pytest.raises(KeyboardInterrupt):
        prepare_patches(replace(options, overwrite=True), progress=interrupt_at(10))
    done = prepare_patches(replace(options, overwrite=True, resume=False))
    assert not any("took up" in note for note in done.notes)


def test_bad_input_met_on_the_way_leaves_nothing(options, tmp_path) -> None:
    path = options.scenes[1] / "ms.tif"
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2] + bytes(8))
    with pytest.raises(KsdiffError, match=r"ms\.tif"):
        prepare_patches(options)
    assert visible(tmp_path) == []


@needs_posix
@pytest.mark.parametrize("size", [300, 20_000, 100_000])
def test_a_full_disk_gets_one_line_and_the_same_command_goes_on(options, expected, tmp_path, size) -> None:
    assert size < len(expected["train.h5"])
    assert in_child(meet_a_full_disk, options, size) == 7
    assert visible(tmp_path) == ([".patches.partial"] if size > 300 else [])
    assert not [path for path in tmp_path.rglob(".*.partial") if path.is_file()]
    prepare_patches(options)
    assert contents(options.output) == expected


@needs_posix
def test_a_second_process_is_told_to_wait(options, expected, tmp_path) -> None:
    started, go_on = tmp_path / "a" / "started", tmp_path / "a" / "go_on"

    process = start_child(work_until_told, options, started, go_on, preload=LOADED)
    while not started.exists():
        time.sleep(0.01)
    try:
        with pytest.raises(KsdiffError, match=rf"process {process.pid}\) is making it; wait"):
            prepare_patches(options)
    finally:
        go_on.touch()
        process.join()
    started.unlink()
    go_on.unlink()
    assert contents(options.output) == expected
    assert visible(tmp_path) == ["patches"]


@needs_posix
def test_the_command_itself_can_be_killed(options, expected, tmp_path, run) -> None:
    words = ["prepare-data", *map(str, options.scenes), "--patch", "16", "-o", str(options.output)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen([sys.executable, "-m", "ksdiff_cli", *words], env=environment, cwd=ROOT)
    while process.poll() is None and not list(workspace_folder(options.output).glob("train-*")):
        time.sleep(0.001)
    process.kill()
    process.wait()
    if process.returncode == 0:
        pytest.skip("the machine was too fast to kill it")
    assert not options.output.exists()
    assert run(*words).exit_code == 0
    assert contents(options.output) == expected
    assert visible(tmp_path) == ["patches"]


def test_ctrl_c_says_that_the_same_command_goes_on(options, run, monkeypatch) -> None:
    from ksdiff_cli.patches import prepare

    monkeypatch.setattr(prepare, "draw_quicklook", interrupted)
    result = run("prepare-data", *options.scenes, "--patch", "16", "-o", options.output)
    assert result.exit_code != 0 and "the same command goes on" in result.stderr
    monkeypatch.undo()
    result = run("prepare-data", *options.scenes, "--patch", "16", "-o", options.output)
    assert result.exit_code == 0 and "took up an interrupted run" in result.stderr
