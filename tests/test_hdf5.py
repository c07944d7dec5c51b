"""HDF5 files from strangers: nothing but plain arrays of the file itself is read, and what is wrong is one line."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from test_dataset import arrays, write

from ksdiff_cli.errors import KsdiffError
from ksdiff_cli.patches.dataset import PatchFile

Spoil = Callable[[h5py.File, Path], Any]


def make(path: Path, **attributes: Any) -> Path:
    """Write a good file of four images of four bands, 32 x 32 pixels."""
    return write(path, arrays(4), **({"sensor": json.dumps({"name": "QB"})} | attributes))


def replaced(key: str, value: Any, **how: Any) -> Spoil:
    def spoil(file: h5py.File, _: Path) -> None:
        del file[key]
        file.create_dataset(key, data=value, **how)

    return spoil


def elsewhere(file: h5py.File, path: Path) -> None:
    del file["ms"]
    file["ms"] = h5py.ExternalLink(make(path.with_name("secret.h5")), "/ms")


def soft(file: h5py.File, path: Path) -> None:
    file["group"] = h5py.ExternalLink(make(path.with_name("secret.h5")), "/")
    del file["ms"]
    file["ms"] = h5py.SoftLink("/group/ms")


def raw(file: h5py.File, path: Path) -> None:
    path.with_name("secret.bin").write_bytes(bytes(4 * 4 * 8 * 8))
    del file["ms"]
    there = [(str(path.with_name("secret.bin")), 0, 1024)]
    file.create_dataset("ms", (4, 4, 8, 8), np.uint8, external=there)


def virtual(file: h5py.File, path: Path) -> None:
    layout = h5py.VirtualLayout((4, 4, 8, 8), np.float32)
    layout[:] = h5py.VirtualSource(make(path.with_name("secret.h5")), "ms", (4, 4, 8, 8))
    del file["ms"]
    file.create_virtual_dataset("ms", layout)


def grouped(file: h5py.File, _: Path) -> None:
    del file["pan"]
    file.create_group("pan")


def declared(shape: tuple[int, ...], **how: Any) -> Spoil:
    def spoil(file: h5py.File, _: Path) -> None:
        del file["pan"]
        file.create_dataset("pan", shape, np.float32, **how)

    return spoil


def poked(key: str, value: float) -> Spoil:
    def spoil(file: h5py.File, _: Path) -> None:
        file[key][2, 0, 3, 3] = value

    return spoil


def committed(file: h5py.File, _: Path) -> None:
    del file["gt"]
    file["gt"] = np.dtype("f4")


TIME = h5py.h5t.UNIX_D32LE


def odd(file: h5py.File, _: Path) -> None:
    del file["lms"]
    h5py.h5d.create(file.id, b"lms", TIME, h5py.h5s.create_simple((4, 4, 32, 32)))


BAD: dict[str, tuple[Spoil, str]] = {
    "another file": (elsewhere, "its ms is a link to elsewhere, which is not followed"),
    "a link to a link": (soft, "its ms is a link to elsewhere"),
    "raw values": (raw, "its ms has its values in other files"),
    "a virtual array": (virtual, "its ms has its values in other files"),
    "a group": (grouped, "its pan is a group, not an array"),
    "a type": (committed, "its gt is a group, not an array"),
    "texts": (replaced("pan", np.full((4, 1, 32, 32), b"a")), "its pan holds |S1, not numbers"),
    "texts of any length": (
        replaced("pan", np.full((4, 1, 32, 32), "a", object), dtype=h5py.string_dtype()),
        "its pan holds object, not numbers",
    ),
    "complex numbers": (replaced("pan", np.ones((4, 1, 32, 32), np.complex64)), "its pan holds complex64"),
    "records": (replaced("pan", np.ones((4, 1, 32, 32), [("a", "f4"), ("b", "f4")])), "not numbers"),
    "references": (
        lambda f, p: (f.pop("pan"), f.create_dataset("pan", (4, 1, 32, 32), h5py.ref_dtype)),
        "its pan holds object",
    ),
    "times": (odd, "cannot be read"),
    "nothing": (replaced("gt", h5py.Empty("f4")), "its gt holds float32, not numbers"),
    "a scalar": (replaced("gt", 3.0), "its arrays do not fit each other"),
    "a thousand terabytes": (
        declared((10**9, 1, 512, 512), chunks=(1, 1, 512, 512)),
        "its pan is declared with 1.05e+06 GB, of which 0 are there",
    ),
    "a terabyte in one piece": (declared((4, 1, 10**6, 10**6)), "its pan is declared with 1.6e+04 GB"),
    "one large piece": (
        lambda f, p: (f.pop("pan"), f.create_dataset("pan", (4, 1, 32, 32), "f4", maxshape=(None, 1, None, None),
                                                     chunks=(1, 1, 20_000, 20_000), compression=1)),
        "its pan is declared with",
    ),
    "NaN in PAN": (poked("pan", np.nan), "pan of image 2 holds values that are no numbers"),
    "NaN in MS": (poked("ms", np.nan), "ms of image 2 holds values that are no numbers"),
    "infinity in lms": (poked("lms", np.inf), "lms of image 2 holds values that are no numbers"),
}  # fmt: skip


@pytest.mark.parametrize("protocol", ["reduced", "full"])
@pytest.mark.parametrize("case", BAD)
def test_bad_files_are_told_in_one_line(case: str, protocol: str, tmp_path: Path) -> None:
    spoil, words = BAD[case]
    path = make(tmp_path / "a.h5")
    with h5py.File(path, "a") as file:
        spoil(file, path)
    line = evaluate(path, protocol)
    assert f"{path}: " in line
    assert words in line
    assert len(line) < len(str(path)) + 400


def evaluate(path: Path, protocol: str) -> str:
    """Do what ``ksdiff evaluate`` does, with a method that needs no network; return the one line that refuses it."""
    from ksdiff_cli.evaluation.cases import open_files
    from ksdiff_cli.evaluation.compare import evaluate_files
    from ksdiff_cli.fusers.classical import Upsampling

    with pytest.raises(KsdiffError) as caught:
        evaluate_files(open_files([path], protocol), {"exp": Upsampling()}, protocol=protocol)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("key", ["gt", "pan"])
@pytest.mark.parametrize("spoil", [elsewhere, virtual, raw])
def test_tiles_come_from_the_file_itself(key: str, spoil: Spoil, tmp_path: Path, fails: Callable[..., str]) -> None:
    path = make(tmp_path / "a.h5")
    with h5py.File(path, "a") as file:
        spoil(file, path)
        del file[key]
        file.move("ms", key)
    line = fails("prepare-data", path, "-o", tmp_path / "out", "--dry-run")
    assert f"its {key} " in line
    assert "other files" in line or "link to elsewhere" in line


SENSORS = {
    "cut off": '{"name": "QB"',
    "deep": '{"a": ' * 5000,
    "digits": f'{{"name": "QB", "bits": {"9" * 5000}}}',
    "bits": '{"name": "QB", "bits": 100000}',
    "bits are infinite": '{"name": "QB", "bits": Infinity}',
    "gains": '{"name": "X", "mtf_ms": [0.3, 2.0]}',
    "gains are no numbers": '{"name": "X", "mtf_ms": [NaN]}',
    "gains are a number": '{"name": "X", "mtf_ms": 3}',
    "PAN's gain": '{"name": "QB", "mtf_pan": 0}',
    "ratio": '{"name": "QB", "ratio": -4}',
    "bands are a number": '{"name": "QB", "bands": 3}',
    "wavelengths": '{"name": "QB", "wavelengths": [[1], [2], [3], [4]]}',
    "a long name": json.dumps({"name": "x" * 10**5, "mtf_ms": [5]}),
}


@pytest.mark.parametrize("case", SENSORS)
def test_damaged_sensors_are_told_in_one_line(case: str, tmp_path: Path) -> None:
    line = evaluate(make(tmp_path / "a.h5", sensor=SENSORS[case]), "reduced")
    assert "a.h5: the " in line
    assert "damaged" in line
    assert "name a --sensor" in line
    assert len(line) < len(str(tmp_path)) + 250


@pytest.mark.parametrize(
    "value", [3, [1, 2], h5py.Empty("f4"), np.bytes_(b"\xff\xfe"), np.void(b"abc"), "", "no sensor known", ["a", "b"]]
)
def test_odd_sensors_are_none_or_names(value: Any, tmp_path: Path, run: Callable[..., Any]) -> None:
    path = make(tmp_path / "a.h5", sensor=value)
    sensor = PatchFile(path).sensor
    assert set(sensor) <= {"name"}
    result = run("info", path, "--json")
    assert result.exit_code == 0, result.stderr
    assert set(json.loads(result.stdout)["datasets"]) == {"gt", "ms", "lms", "pan"}


SCENES = {"scene": np.zeros(4, int), "scene_pan_mean": np.ones(1), "scene_pan_std": np.ones(1)}
SCENES |= {"scene_ms_mean": np.ones((1, 4)), "scene_ms_std": np.ones((1, 4))}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({}, ""),
        ({"scene": np.full(4, 1)}, "scenes that it does not state"),
        ({"scene": np.full(4, -1)}, "scenes that it does not state"),
        ({"scene": np.zeros(3, int)}, "do not fit each other"),
        ({"scene_ms_mean": np.ones((1, 3))}, "do not fit each other"),
        ({"scene_pan_std": np.ones(2)}, "do not fit each other"),
        ({"scene_pan_std": None}, "do not fit each other"),
        ({"scene_ms_std": np.full((1, 4), np.nan)}, "statistics are no numbers"),
        ({"scene_ms_std": "none"}, "not numbers"),
    ],
)
def test_statistics_of_scenes_are_checked(change: dict[str, Any], words: str, tmp_path: Path) -> None:
    path = make(tmp_path / "a.h5")
    with h5py.File(path, "a") as file:
        for key, value in (SCENES | change).items():
            if value is not None:
                file[key] = value
    if not words:
        assert PatchFile(path).statistics([0, 3]).ms_mean.tolist() == [[1.0] * 4] * 2
        return
    with pytest.raises(KsdiffError, match=words):
        PatchFile(path).statistics([0])


def test_info_of_many_groups_and_odd_attributes(tmp_path: Path, run: Callable[..., Any], monkeypatch: Any) -> None:
    path = make(tmp_path / "a.h5", reference=[1], long="x" * 5000, raw=np.void(b"\x1b[31m"))
    with h5py.File(path, "a") as file:
        group = file
        for _ in range(50):
            group = group.create_group("g")
        group["loop"] = file["/"]
        file["out"] = h5py.ExternalLink("/etc/passwd", "/")
        file.attrs["object"] = file["pan"].ref
        file.attrs.create("times", np.zeros(3, "S4"))
        odd(file, path)
    for more in ((), ("--json",)):
        result = run("info", path, *more)
        assert result.exit_code == 0, result.stderr
        assert "\x1b" not in result.stdout
    facts = json.loads(result.stdout)
    assert facts["datasets"]["lms"]["dtype"] == "unknown"
    monkeypatch.setattr("ksdiff_cli.commands.inspection._MOST_ITEMS", 2)
    assert len(json.loads(run("info", path, "--json").stdout)["datasets"]) <= 2


@pytest.mark.parametrize("content", [b"", b"\x89HDF\r\n\x1a\n", b"\x89HDF\r\n\x1a\n" + bytes(200), b"x" * 5000])
def test_what_is_no_hdf5(content: bytes, tmp_path: Path, fails: Callable[..., str]) -> None:
    path = tmp_path / "a.h5"
    path.write_bytes(content)
    assert "cannot be opened as HDF5" in fails("info", path)
    with pytest.raises(KsdiffError, match="is not an HDF5 file"):
        PatchFile(path)
    path.unlink()
    with pytest.raises(KsdiffError, match="no such file"):
        PatchFile(path)


def test_damaged_values_are_told(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(make(path), "a") as file:
        values = file["pan"][:]
        del file["pan"]
        file.create_dataset("pan", data=values, compression="gzip", chunks=(1, 1, 32, 32))
        file.flush()
        offset, size = file["pan"].id.get_chunk_info(1).byte_offset, file["pan"].id.get_chunk_info(1).size
    content = bytearray(path.read_bytes())
    content[offset : offset + size] = b"\xaa" * size
    path.write_bytes(content)
    for work in (lambda file: file.batch([1]), lambda file: file.largest("pan"), lambda file: file.statistics([0])):
        with pytest.raises(KsdiffError, match=r"a\.h5: cannot be read .*the file is damaged"):
            work(PatchFile(path))
