"""Small files appear whole or not at all, whoever writes them: a full disk, an interrupt, a folder that is not ours."""

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import largest_file

from ksdiff_cli.errors import KsdiffError
from ksdiff_cli.files.content import check_unchanged, contents, digest, find_other, identify
from ksdiff_cli.files.workdir import Claim, open_workdir, write_note
from ksdiff_cli.files.writing import atomic_write, remove_growing, write_png, write_text
from ksdiff_cli.patches.writer import new_part
from ksdiff_cli.training.log import Log

LONG = "something to say\n" * 1000


def write_part(path: Path) -> None:
    with new_part(path) as part:
        part.add({"pan": np.ones((2, 1, 64, 64))}, 0, [(0, 0), (0, 16)])


def write_image(path: Path) -> None:
    write_png(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8), path)


def write_log(path: Path) -> None:
    log = Log(path.parent, "stage1")
    log._path = path
    log.forget_after(10**6)


WRITERS: dict[str, Callable[[Path], None]] = {
    "text": lambda path: write_text(LONG, path),
    "note": lambda path: write_note(path, LONG),
    "picture": write_image,
    "patches": write_part,
    "log": write_log,
}
every_writer = pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
OLD = "".join(json.dumps({"stage": 2, "step": step}) + "\n" for step in range(1000))


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """A file of an earlier run, in a folder of its own; its content would do as a log."""
    path = tmp_path / "folder" / "target"
    path.parent.mkdir()
    path.write_text(OLD)
    return path


def assert_untouched(target: Path) -> None:
    assert [path.name for path in target.parent.iterdir()] == [target.name]
    assert target.read_text() == OLD


@every_writer
def test_a_file_is_replaced_and_nothing_is_left_beside_it(write: Callable[[Path], None], target: Path) -> None:
    before = target.stat().st_ino
    write(target)
    assert list(target.parent.iterdir()) == [target] and target.stat().st_ino != before
    written = target.read_bytes()
    write(target)
    assert target.read_bytes() == written


@every_writer
@pytest.mark.parametrize("size", [0, 1000])
def test_a_full_disk_leaves_the_old_file_alone(size: int, write: Callable[[Path], None], target: Path) -> None:
    with largest_file(size), pytest.raises((OSError, KsdiffError), match="File too large"):
        write(target)
    assert_untouched(target)


@every_writer
def test_an_interrupt_leaves_the_old_file_alone(
    write: Callable[[Path], None], target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grown = []

    def interrupt(self: Path, _: Path) -> None:
        grown.append(self.stat().st_size)
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write(target)
    assert grown[0] > 1000
    assert_untouched(target)


@every_writer
def test_a_folder_that_cannot_be_written_to(write: Callable[[Path], None], target: Path) -> None:
    target.parent.chmod(0o555)
    try:
        if os.access(target.parent, os.W_OK):
            pytest.skip("this user may write everywhere")
        with pytest.raises((OSError, KsdiffError), match="Permission denied"):
            write(target)
    finally:
        target.parent.chmod(0o755)
    assert_untouched(target)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), KsdiffError("bad"), ZeroDivisionError(), OSError(5, "io")])
def test_what_breaks_off_half_way_comes_through_as_it_is(error: BaseException, target: Path) -> None:
    with pytest.raises(type(error)) as caught, atomic_write(target) as growing:
        growing.write_text("half")
        assert growing.parent == target.parent and growing.name.startswith(".")
        raise error
    assert caught.value is error
    assert_untouched(target)


def test_a_block_that_writes_nothing_fails(target: Path) -> None:
    with pytest.raises(FileNotFoundError), atomic_write(target):
        pass
    assert_untouched(target)


def test_what_must_outlive_the_machine_reaches_the_disk_before_it_gets_its_name(
    target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []
    sync, replace = os.fsync, Path.replace

    def note_sync(file: int) -> None:
        seen.append(os.fstat(file).st_size)
        sync(file)

    def note_name(self: Path, path: Path) -> Path:
        seen.append(path.name)
        return replace(self, path)

    monkeypatch.setattr(os, "fsync", note_sync)
    monkeypatch.setattr(Path, "replace", note_name)
    for wanted in (False, True):
        with atomic_write(target, sync=wanted) as growing:
            growing.write_text("whole")
    *seen, _ = seen  # and then the folder with the name
    assert seen == ["target", 5, "target"] and target.read_text() == "whole"


def test_text_that_cannot_be_written_gets_one_line_with_its_name(tmp_path: Path) -> None:
    path = tmp_path / "no" / "a.json"
    with pytest.raises(KsdiffError) as caught:
        write_text("text", path)
    assert str(caught.value) == f"{path}: cannot be written (No such file or directory)"


def test_text_is_utf_8_with_plain_line_ends_on_every_system(tmp_path: Path) -> None:
    write_text("Pléiades\nname \udcff\n", tmp_path / "a.txt")  # a file's name may be no UTF-8
    assert (tmp_path / "a.txt").read_bytes() == b"Pl\xc3\xa9iades\nname \\udcff\n"


def test_a_link_stays_one_and_what_another_program_writes_stays_too(target: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(target)
    write_text("new", link)
    assert link.is_symlink() and target.read_text() == "new"
    with pytest.raises(FileExistsError, match="another program wrote to it meanwhile"), atomic_write(target) as growing:
        growing.write_text("ours")
        target.write_text("theirs")
    assert target.read_text() == "theirs" and list(target.parent.iterdir()) == [target]
    os.link(target, tmp_path / "backup")  # content stays
    write_text("ours", target)


def test_what_killed_processes_left_growing_goes_with_the_next_one(target: Path) -> None:
    dead = subprocess.Popen(["true"])
    dead.wait()
    rest = [target.with_name(f".target.{dead.pid}.partial{end}") for end in ("", ".aux.xml")]
    kept = [target.with_name(name) for name in (f".target.{os.getppid()}.partial", ".target.x.partial", ".t.1.partial")]
    for path in (*rest, *kept):
        path.touch()
    write_text("new", target)
    assert sorted(target.parent.iterdir()) == sorted([target, *kept])


def test_files_are_known_again_by_state_and_content(tmp_path: Path) -> None:
    small, large = tmp_path / "small", tmp_path / "large"
    small.write_bytes(b"abc")
    with large.open("wb") as file:
        file.truncate(300 << 20)
    for path, place in ((small, 1), (large, (300 << 20) // 2)):
        known, copied = identify([path]), contents([path])
        check_unchanged(known)
        assert identify([path]) == known and find_other(copied) is None
        state = path.stat()
        with path.open("r+b") as file:
            file.seek(place)
            file.write(b"?" * (3 << 20))  # wider than the samples are apart
        os.truncate(path, state.st_size)
        os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
        assert identify([path])[0][:3] == known[0][:3]  # name, size and time
        assert identify([path])[0][3] != known[0][3] and identify([path])[0][-1] != known[0][-1]
        assert find_other(copied) == str(path)
        with pytest.raises(KsdiffError, match="was changed while it was read"):
            check_unchanged(known)
    assert digest(tmp_path / "no") == digest(tmp_path) == ""
    with pytest.raises(KsdiffError, match="small: was changed"):
        known = identify([small])
        small.unlink()
        check_unchanged(known)


def test_a_claim_knows_only_what_came_after_it(tmp_path: Path) -> None:
    one, two, other = (tmp_path / name for name in ("one", "two", "other"))
    claim, stranger = Claim(tmp_path / "note", "how"), Claim(tmp_path / "note", "else")
    two.write_text("there before")
    assert not claim.stands and not claim.names(one) and not claim.owns(one)
    claim.make(one, two)
    one.write_text("ours")
    other.write_text("not claimed")
    assert claim.stands and claim.names(two) and stranger.names(one)
    assert [claim.owns(path) for path in (one, two, other)] == [True, False, False]
    assert not stranger.stands and not stranger.owns(one)
    os.link(two, tmp_path / "backup")
    assert not claim.owns(two)
    two.unlink()
    assert not claim.owns(two)
    with pytest.raises(OSError), claim:
        claim.make(one)
        raise OSError
    assert not claim.stands
    (tmp_path / "note").write_text("[1]")
    assert not claim.stands and not claim.names(one)


def test_a_folder_for_one_process(tmp_path: Path) -> None:
    folder = tmp_path / "work"
    with open_workdir(folder, "a", "busy {owner}") as work:
        (work.path / "part").touch()
        with pytest.raises(KsdiffError, match=f"busy {os.getpid()}"), open_workdir(folder, "a", "busy {owner}"):
            pass
    with open_workdir(folder, "a", "busy") as work:
        assert (work.path / "part").exists() and not work.discarded
    with open_workdir(folder, "b", "busy") as work:
        assert not (work.path / "part").exists() and work.discarded
        work.remove()
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "work.123.old").mkdir()
    (tmp_path / "work.mine.old").mkdir()
    with largest_file(0), pytest.raises(KsdiffError, match="cannot be written"), open_workdir(folder, "a", "busy"):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["work.mine.old"]


def test_only_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    with atomic_write(tmp_path / "killed.png") as growing:
        growing.touch()
        (tmp_path / "mine.partial").touch()
        (tmp_path / ".mine").touch()
        remove_growing(tmp_path)
        assert sorted(path.name for path in tmp_path.iterdir()) == [".mine", "mine.partial"]
        growing.touch()
    remove_growing(tmp_path / "no such folder")
