"""MATLAB test images: both versions of the format, one image or several, and what is none of these."""

import h5py
import numpy as np
import pytest
from scipy.io import savemat

from ksdiff_cli.errors import KsdiffError
from ksdiff_cli.patches.dataset import PatchFile


def images(count=1, bands=8, side=64, ratio=4):
    random = np.random.default_rng(0)
    shapes = {"gt": (bands, side), "ms": (bands, side // ratio), "lms": (bands, side), "pan": (1, side)}
    return {key: random.integers(1, 2000, (count, c, n, n)).astype(float) for key, (c, n) in shapes.items()}


def as_matlab(arrays):
    """(N, C, H, W) -> what MATLAB holds: (H, W, C) of one image, (N, H, W, C) of several, PAN without its channel."""
    turned = {key: array.transpose(0, 2, 3, 1) for key, array in arrays.items()}
    turned["pan"] = turned["pan"][..., 0]
    return {key: array[0] if len(array) == 1 else array for key, array in turned.items()}


def write_5(path, arrays):
    savemat(path, arrays, do_compression=True)
    return path


def write_73(path, arrays):
    """As MATLAB: a block of its own before the HDF5, axes in reverse."""
    with h5py.File(path, "w", userblock_size=512) as file:
        for key, array in arrays.items():
            file[key] = array.T
    return path


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("write", [write_5, write_73])
def test_images_are_those_of_the_hdf5_file(tmp_path, write, count):
    arrays = images(count)
    file = PatchFile(write(tmp_path / "Test(HxWxC)_wv3_data1.mat", as_matlab(arrays)))
    assert (len(file), file.bands, file.ratio, file.size, file.has_gt) == (count, 8, 4, (64, 64), True)
    assert file.sensor["name"] == "WV3" and file.geometry == "toolbox"
    for key, value in file.image(count - 1).items():
        np.testing.assert_array_equal(value, arrays[key][count - 1])


def test_the_toolboxs_names_are_known_and_a_truth_is_not_needed(tmp_path):
    arrays = as_matlab(images())
    names = {"pan": "I_PAN", "ms": "I_MS_LR", "lms": "I_MS"}
    held = {names[key]: arrays[key] for key in names} | {"ratio": 4.0, "sensor": "WV3"}
    file = PatchFile(write_5(tmp_path / "NY1_WV3_FR.mat", held))
    assert not file.has_gt and file.sensor["name"] == "WV3"
    np.testing.assert_array_equal(file.image(0)["pan"][0], arrays["pan"])


def test_methods_reach_the_same_on_both_kinds_of_file(tmp_path, run):
    import json

    arrays = images(side=128)
    with h5py.File(tmp_path / "test_wv3.h5", "w") as file:
        for key, array in arrays.items():
            file[key] = array
    write_5(tmp_path / "Test(HxWxC)_wv3_data1.mat", as_matlab(arrays))
    found = []
    for name in ("test_wv3.h5", "Test(HxWxC)_wv3_data1.mat"):
        done = run("evaluate", tmp_path / name, "--method", "gsa", "--method", "exp", "--json", "-q")
        assert done.exit_code == 0, done.stderr
        values = json.loads(done.stdout)
        assert "taken for WV3 by the file's name; --sensor says otherwise" in values["notes"]
        found.append({name: values["methods"]["gsa"][name]["mean"] for name in ("SAM", "ERGAS", "Q2n")})
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"no MATLAB at all", "cannot be read as a MATLAB file"),
        (b"", "cannot be read as a MATLAB file"),
        (None, "no such file"),
        ({"ms": np.ones((4, 4, 4))}, "has no pan"),
        ({"ms": np.ones((4, 4, 4)), "pan": "text"}, "its pan is char, not an array of numbers"),
        ({"ms": np.ones((4, 4, 4)), "pan": np.ones((3, 3))}, "do not fit each other"),
        ({"ms": np.ones((4, 4, 4)) * 1j, "pan": np.ones((16, 16))}, "its ms holds complex128"),
        ({"ms": np.ones((1, 1, 4, 4, 4)), "pan": np.ones((16, 16))}, "its ms has 5 axes"),
    ],
    ids=str,
)
def test_other_files_are_told_in_one_line(tmp_path, content, words):
    path = tmp_path / "test.mat"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        savemat(path, content)
    with pytest.raises(KsdiffError, match=words) as caught:
        PatchFile(path)
    assert str(caught.value).startswith(str(path)) and "\n" not in str(caught.value)


def test_a_damaged_file_is_told(tmp_path):
    path = write_5(tmp_path / "test.mat", as_matlab(images()))
    content = bytearray(path.read_bytes())
    content[200:400] = bytes(200)
    path.write_bytes(content)
    with pytest.raises(KsdiffError, match=r"test\.mat"):
        PatchFile(path)
