"""Commands that make several files, killed wherever one gets its name: the same command ends, with the same bytes."""

import os
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from conftest import PairFiles
from kill_maker import Kill, Trial, try_kills

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no SIGKILL")
SHARPEN = ["sharpen", "pan.tif", "ms.tif", "--method", "exp", "--no-registration-check", "-q", "--threads", "1"]


@pytest.fixture
def files(make_pair: Any) -> PairFiles:
    made: PairFiles = make_pair(size=(96, 320))
    return made


def assert_all_end_alike(whole: Kill, kills: list[Kill], least: int) -> None:
    """The same command ends well; or the first one had done all, and it is told so as after any run."""
    assert whole.code == 0, whole.said
    assert len(kills) >= least
    for kill in kills:
        done = kill.code == 1 and "already" in kill.said and kill is kills[-1]
        assert kill.code == 0 or done, f"{kill.moment}: {kill.said}"
        assert kill.files == whole.files, kill.moment


def test_an_output_with_its_quicklook(files: PairFiles) -> None:
    words = [*SHARPEN, "-o", "out.tif", "--quicklook", "look.png", "--co", "TFW=YES", "--co", "PROFILE=BASELINE"]
    whole, kills = try_kills(Trial(words, str(files.folder)))
    assert set(whole.files) == {"pan.tif", "ms.tif", "out.tif", "out.tif.aux.xml", "out.tfw", "look.png"}
    assert_all_end_alike(whole, kills, 6)


def test_a_virtual_raster_is_the_old_one_or_the_new_one(files: PairFiles, run: Any) -> None:
    old = [str(files.folder / word) if word.endswith(".tif") else word for word in SHARPEN]
    vrt = ["-f", "VRT", "--tile", "160"]
    assert run(*old, *vrt, "-o", files.folder / "out.vrt", "-t", "float32").exit_code == 0
    (files.folder / "out_tiles" / "r000000_c000000.tif.ovr").write_text("of the old tiles")
    whole, kills = try_kills(Trial([*SHARPEN, *vrt, "-o", "out.vrt", "--overwrite"], str(files.folder), "out.vrt"))
    assert_all_end_alike(whole, kills, 12)
    before = [kill.seen for kill in kills]
    assert None not in before and len(set(before)) == 2 and set(before[before.index(whole.seen) :]) == {whole.seen}
    assert {Path(name).parts[0] for name in whole.files} == {"pan.tif", "ms.tif", "out.vrt", "out_tiles"}


def test_maps_and_their_report(files: PairFiles) -> None:
    words = ["metrics", "ms.tif", "--reference", "ms.tif", "--maps", "maps", "--report", "out.html", "-q"]
    whole, kills = try_kills(Trial(words, str(files.folder)))
    assert set(whole.files) == {"pan.tif", "ms.tif", "maps/sam.tif", "maps/q2n.tif", "out.html"}
    assert_all_end_alike(whole, kills, 4)


def test_values_and_their_report(tmp_path: Path, run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a real kill, which takes torch in two processes for each: an interrupt that clears nothing up."""
    data, csv, page = tmp_path / "test.h5", tmp_path / "out.csv", tmp_path / "out.html"
    with h5py.File(data, "w") as file:
        random = np.random.default_rng(0)
        for key, bands, side in (("gt", 4, 64), ("pan", 1, 64), ("ms", 4, 16), ("lms", 4, 64)):
            file[key] = random.integers(1, 999, (1, bands, side, side)).astype(np.float32)
    words = ["evaluate", data, "--method", "exp", "--csv", csv, "--report", page, "-q"]

    def interrupt(*given: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("ksdiff_cli.evaluation.compare.write_report", interrupt)
        patched.setattr("ksdiff_cli.files.workdir.Claim.drop", lambda claim: None)
        assert run(*words).exit_code == 130
    assert csv.exists() and not page.exists()
    other = run(*words, "--crop", "cut21")
    assert other.exit_code == 1 and "out.csv: exists already" in other.stderr
    done = run(*words)
    assert done.exit_code == 0, done.output
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.csv", "out.html", "test.h5"]
    assert "exists already" in run(*words).stderr


def test_a_simulated_scene(tmp_path: Path) -> None:
    folder = tmp_path / "empty"
    folder.mkdir()
    whole, kills = try_kills(Trial(["simulate", "-o", "scene", "--size", "64", "-q"], str(folder)))
    assert set(whole.files) == {"scene/pan.tif", "scene/ms.tif", "scene/truth.tif"}
    assert_all_end_alike(whole, kills, 4)
