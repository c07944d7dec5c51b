"""Compact copies of large training files: the same images in a quarter of the bytes, shared by runs."""

import h5py
import numpy as np
import pytest
from test_dataset import arrays, write

from ksdiff_cli.errors import KsdiffError
from ksdiff_cli.patches.compact import use_compact
from ksdiff_cli.patches.dataset import PatchFile
from ksdiff_cli.training.batches import TrainingBatches


@pytest.fixture
def large(tmp_path, monkeypatch):
    """Files of PanCollection's type, for which a few kilobytes are too many; in pieces of two images."""
    monkeypatch.setattr("ksdiff_cli.patches.compact._CHUNK_BYTES", 1 << 16)

    def make(name="train_wv3.h5", **changes):
        content = arrays(count=9, bands=8, dtype=np.float64) | changes
        (tmp_path / name).unlink(missing_ok=True)  # it may still be open
        return PatchFile(write(tmp_path / name, content), cache_bytes=1000)

    return make


def test_a_copy_has_the_same_images_in_a_quarter_of_the_bytes(large, tmp_path):
    told = []
    plain, file = large(), large()
    path = use_compact(file, tmp_path / "cache", lambda *words: told.append(words))
    assert path.parent == tmp_path / "cache" and path.name == f"train_wv3-{plain.identity}.h5"
    assert path.stat().st_size < 0.3 * plain.path.stat().st_size
    with h5py.File(path) as copy:
        assert {array.dtype for array in copy.values()} == {np.dtype("uint16")}
    assert told and "compact copy of train_wv3.h5" in told[-1][2]
    assert (file.path, file.identity, file.sensor) == (plain.path, plain.identity, plain.sensor)
    for index in range(9):
        for key, value in plain.image(index).items():
            np.testing.assert_array_equal(file.image(index)[key], value)
    one, other = (TrainingBatches([each], 4, 3).batch(5) for each in (plain, file))
    np.testing.assert_array_equal(one.gt, other.gt)
    np.testing.assert_array_equal(one.statistics.ms_std, other.statistics.ms_std)


@pytest.mark.parametrize("odd", [0.5, -1.0, 70000.0, np.nan])
def test_what_two_bytes_do_not_hold_is_kept_as_float32(large, tmp_path, odd):
    lms = arrays(count=9, bands=8, dtype=np.float64)["lms"]
    lms[7, 1, 2, 3] = odd  # in the fourth piece
    file, plain = large(lms=lms), large(lms=lms)
    path = use_compact(file, tmp_path)
    with h5py.File(path) as copy:
        assert (copy["lms"].dtype, copy["gt"].dtype) == (np.float32, np.uint16)
    np.testing.assert_array_equal(file.batch(range(9)).ms_up, plain.batch(range(9)).ms_up)


def test_runs_share_a_copy_and_another_file_of_that_name_gets_its_own(large, tmp_path):
    first = use_compact(large(), tmp_path / "cache")
    stamp = first.stat().st_mtime_ns
    assert use_compact(large(), tmp_path / "cache") == first and first.stat().st_mtime_ns == stamp
    assert use_compact(large(gt=np.zeros((9, 8, 32, 32))), tmp_path / "cache") != first


def test_files_that_gain_nothing_are_not_copied(large, tmp_path):
    small = PatchFile(large().path)
    assert use_compact(small, tmp_path / "cache") is None
    compact = PatchFile(write(tmp_path / "u.h5", arrays(dtype=np.uint16)), cache_bytes=1000)
    assert use_compact(compact, tmp_path / "cache") is None
    assert not (tmp_path / "cache").exists()


def test_a_copy_that_is_damaged_or_of_something_else_is_told(large, tmp_path):
    path = use_compact(large(), tmp_path)
    with h5py.File(path, "w") as copy:
        copy["pan"] = np.zeros((1, 1, 8, 8))
    with pytest.raises(KsdiffError, match=rf"{path.name}: is no copy of .*train_wv3\.h5; remove it"):
        use_compact(large(), tmp_path)
    path.write_bytes(b"zz")
    with pytest.raises(KsdiffError, match=rf"{path.name}: is damaged; remove it"):
        use_compact(large(), tmp_path)


def test_a_folder_that_cannot_be_is_told_and_nothing_is_left(large, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(KsdiffError, match="--cache"):
        use_compact(large(), tmp_path / "file" / "cache")
