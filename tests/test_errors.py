"""Bad inputs, each with the one line that people get; no traceback, and no file left behind."""

import errno
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from conftest import PairFiles, largest_file, write_raster
from rasterio.shutil import copy
from rasterio.transform import Affine


@pytest.fixture
def files(make_pair: Any) -> PairFiles:
    return make_pair()


@pytest.fixture(autouse=True)
def nothing_left_behind(tmp_path: Path) -> Iterator[None]:
    yield
    left = [path for path in tmp_path.rglob("*") if "partial" in path.name or path.name.startswith("out")]
    assert left == []


def exp(files: PairFiles, *more: Any, pan: Any = None, ms: Any = None, out: Any = None) -> tuple[Any, ...]:
    target = out or files.folder / "out.tif"
    return ("sharpen", pan or files.pan, ms or files.ms, "-o", target, "--method", "exp", *more)


def test_missing_file(files: PairFiles, fails: Any) -> None:
    assert "no such file" in fails(*exp(files, pan=files.folder / "nowhere.tif"))
    assert "no such file" in fails(*exp(files, ms=files.folder / "nowhere.tif"))


def test_not_a_raster(files: PairFiles, fails: Any) -> None:
    text = files.folder / "notes.txt"
    text.write_text("PAN, as promised")
    assert "notes.txt: cannot be opened as a raster" in fails(*exp(files, ms=text))
    (files.folder / "empty.tif").touch()
    assert "empty.tif: cannot be opened as a raster" in fails(*exp(files, pan=files.folder / "empty.tif"))


def test_folder_in_place_of_a_file(files: PairFiles, fails: Any) -> None:
    assert "is a folder" in fails(*exp(files, ms=files.folder))


def test_swapped(files: PairFiles, fails: Any, make_pair: Any) -> None:
    assert "swapped" in fails(*exp(files, pan=files.ms, ms=files.pan))
    for name, crs in (("single", "EPSG:32631"), ("nowhere", None)):
        single = make_pair(name, bands=1, crs=crs)
        assert "swapped" in fails(*exp(files, pan=single.ms, ms=single.pan))


def test_pan_twice(files: PairFiles, fails: Any) -> None:
    assert "swapped" in fails(*exp(files, ms=files.pan))


def test_no_overlap(files: PairFiles, fails: Any, make_pair: Any) -> None:
    far = make_pair("far", ms_grid=Affine(2, 0, 600000, 0, -2, 5747657))
    assert "does not overlap" in fails(*exp(files, ms=far.ms))


def test_different_crs(files: PairFiles, fails: Any, make_pair: Any) -> None:
    other = make_pair("other", crs="EPSG:32632")
    line = fails(*exp(files, ms=other.ms))
    assert "EPSG:32632" in line
    assert "EPSG:32631" in line


def test_rotated_against_each_other(files: PairFiles, fails: Any, make_pair: Any) -> None:
    turned = make_pair("turned", ms_grid=Affine(2, 0, 593270, 0, -2, 5747657) @ Affine.rotation(5))
    assert "rotated" in fails(*exp(files, ms=turned.ms))


def test_absurd_ratio(files: PairFiles, fails: Any, make_pair: Any) -> None:
    coarse = make_pair("coarse", ms_grid=Affine(100, 0, 593270, 0, -100, 5747657), ms_size=(4, 4))
    assert "200.0 x 200.0 PAN pixels" in fails(*exp(files, ms=coarse.ms))


def test_sizes_that_do_not_match_without_georeference(files: PairFiles, fails: Any, make_pair: Any) -> None:
    odd = make_pair("odd", crs=None, ms_size=(24, 29))
    assert "do not match" in fails(*exp(files, pan=odd.pan, ms=odd.ms))


def test_zero_bands(files: PairFiles, fails: Any) -> None:
    empty = files.folder / "empty.vrt"
    empty.write_text('<VRTDataset rasterXSize="8" rasterYSize="8"></VRTDataset>')
    assert "empty.vrt: cannot be opened" in fails(*exp(files, ms=empty))
    # GDAL opens a container of several images as an image without bands
    h5py = pytest.importorskip("h5py")
    with h5py.File(files.folder / "several.h5", "w") as file:
        file["gt"], file["pan"] = np.ones((8, 8)), np.ones((32, 32))
    assert "several.h5" in fails(*exp(files, ms=files.folder / "several.h5"))


def test_truncated_tiff(files: PairFiles, fails: Any) -> None:
    for source in (files.pan, files.ms):
        cut = files.folder / f"cut_{source.name}"
        cut.write_bytes(source.read_bytes()[: source.stat().st_size // 2])
        line = fails(*exp(files, **{source.stem: cut}))
        assert cut.name in line


def test_truncated_pixels(files: PairFiles, fails: Any) -> None:
    # the header whole, the last strips missing: it opens, and fails while it is read
    values = np.random.default_rng(0).integers(0, 999, (96, 128), "uint16")
    with rasterio.open(files.pan) as pan:
        place = {"crs": pan.crs, "transform": pan.transform}
    whole = write_raster(files.folder / "whole.tif", values, **place)
    cut = files.folder / "short.tif"
    copy(whole, cut, driver="COG", compress="deflate", blocksize=128)
    cut.write_bytes(cut.read_bytes()[:-5000])
    assert "the file is damaged or incomplete" in fails(*exp(files, pan=cut))


def test_complex_values(files: PairFiles, fails: Any) -> None:
    with rasterio.open(files.ms) as ms:
        place = {"crs": ms.crs, "transform": ms.transform}
    radar = write_raster(files.folder / "radar.tif", np.ones((24, 32), "complex64"), **place)
    assert "complex" in fails(*exp(files, ms=radar))


def test_nothing_but_nodata(files: PairFiles, fails: Any, make_pair: Any) -> None:
    def wipe(pan: Any, ms: Any) -> None:
        ms[...] = 0

    empty = make_pair("wiped", edit=wipe, ms_profile={"nodata": 0})
    assert "every pixel is nodata" in fails(*exp(files, ms=empty.ms))


def test_existing_output(files: PairFiles, fails: Any) -> None:
    target = files.folder / "there.tif"
    target.write_bytes(b"mine")
    assert "--overwrite" in fails(*exp(files, out=target))
    assert target.read_bytes() == b"mine"


def test_output_that_is_an_input(files: PairFiles, fails: Any) -> None:
    before = files.ms.read_bytes()
    assert "one of the inputs" in fails(*exp(files, "--overwrite", out=files.ms))
    assert files.ms.read_bytes() == before


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("nowhere/out.tif", "does not exist"),
        ("pan.tif/out.tif", "is a file, not a folder"),
        ("out.jp2", "GeoTIFF"),
        ("out", "GeoTIFF"),
    ],
)
def test_unwritable_output(target: str, words: str, files: PairFiles, fails: Any) -> None:
    assert words in fails(*exp(files, out=files.folder / target))


def test_output_that_is_a_folder(files: PairFiles, fails: Any) -> None:
    (files.folder / "dir.tif").mkdir()
    assert "is a folder" in fails(*exp(files, out=files.folder / "dir.tif"))


def test_unknown_sensor(files: PairFiles, fails: Any) -> None:
    assert "did you mean WV3?" in fails(*exp(files, "--sensor", "wv33"))


@pytest.mark.parametrize("bands", ["0", "5", "1,9"])
def test_bad_band_number(bands: str, files: PairFiles, fails: Any) -> None:
    assert "only 1 to 4" in fails(*exp(files, "-b", bands))


@pytest.mark.parametrize("device", ["gpu", "cuda:99"])
def test_bad_device(device: str, files: PairFiles, fails: Any, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    (tmp_path / "weights.safetensors").touch()
    line = fails(
        "sharpen", files.pan, files.ms, "-o", tmp_path / "out.tif", "--device", device,
        "--checkpoint", tmp_path / "weights.safetensors",
    )  # fmt: skip
    assert device in line


def test_bad_checkpoint(files: PairFiles, fails: Any, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    (tmp_path / "weights.safetensors").write_text("no weights")
    base = ("sharpen", files.pan, files.ms, "-o", tmp_path / "out.tif", "--checkpoint")
    assert "not a safetensors checkpoint" in fails(*base, tmp_path / "weights.safetensors")
    assert "no such checkpoint" in fails(*base, tmp_path / "nowhere.safetensors")


def test_too_little_memory(files: PairFiles, fails: Any) -> None:
    assert "--memory" in fails(*exp(files, "--memory", 0.1))


def test_empty_folder(fails: Any, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert "no scene found" in fails("sharpen", tmp_path / "empty", "-o", tmp_path / "out.tif", "--method", "exp")
    assert "no such folder" in fails("sharpen", tmp_path / "gone", "-o", tmp_path / "out.tif", "--method", "exp")


def test_folder_of_several_scenes(make_pair: Any, fails: Any, tmp_path: Path) -> None:
    make_pair("a")
    make_pair("b")
    assert "holds 2 scenes (a, b)" in fails("sharpen", tmp_path, "-o", tmp_path / "out.tif", "--method", "exp")


@pytest.mark.parametrize(
    "more",
    [
        ("--co", "COMPRESS"),
        ("-b", "1,,2"),
        ("-t", "uint12"),
        ("--method", "magic"),
        ("--checkpoint", "x.safetensors"),
        ("--threads", "0"),
        ("--nonsense",),
    ],
)
def test_bad_usage_exits_with_2(more: tuple[str, ...], files: PairFiles, run: Any) -> None:
    result = run(*exp(files), *more)
    assert result.exit_code == 2
    assert "Traceback" not in result.output


def test_one_file_alone_and_no_output(files: PairFiles, run: Any) -> None:
    assert run("sharpen", files.pan, "-o", files.folder / "out.tif").exit_code == 1
    assert run("sharpen", files.pan, files.ms).exit_code == 2
    assert run("sharpen").exit_code == 2


def test_info_on_what_it_cannot_read(files: PairFiles, fails: Any, tmp_path: Path) -> None:
    assert "no such file" in fails("info", tmp_path / "gone.tif")
    assert "no such file" in fails("info", tmp_path / "gone.h5")
    (tmp_path / "bad.h5").write_text("no data")
    assert "cannot be opened as HDF5" in fails("info", tmp_path / "bad.h5")
    (tmp_path / "notes.txt").write_text("hello")
    assert "cannot be opened as a raster" in fails("info", tmp_path / "notes.txt")
    pytest.importorskip("torch")
    assert "no such checkpoint" in fails("info", tmp_path / "gone.safetensors")


def test_a_mistake_of_ours_keeps_its_traceback(run: Any, files: PairFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    def stumble(*arguments: Any) -> None:
        raise ZeroDivisionError("ours")

    monkeypatch.setattr("ksdiff_cli.products.find_scenes", stumble)
    result = run("info", files.folder)
    assert isinstance(result.exception, ZeroDivisionError)


@pytest.mark.parametrize("command", ["sharpen", "simulate", "prepare-data", "metrics"])
def test_a_disk_that_takes_nothing_at_all(command: str, files: PairFiles, tmp_path: Path, fails: Any) -> None:
    before = sorted(tmp_path.rglob("*"))
    words: dict[str, tuple[Any, ...]] = {
        "sharpen": exp(files, "-q"),
        "simulate": ("simulate", "-o", tmp_path / "made", "--size", 64, "-q"),
        "prepare-data": ("prepare-data", files.folder, "-o", tmp_path / "patches", "--patch", 8, "-q"),
        "metrics": ("metrics", files.ms, "--reference", files.ms, "--maps", tmp_path / "maps", "-q"),
    }
    with largest_file(0):
        line = fails(*words[command])
    assert "File too large" in line
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EROFS, errno.EMFILE, errno.EIO])
def test_what_the_machine_refuses_is_one_line(error: int, files: PairFiles, fails: Any, monkeypatch: Any) -> None:
    def refuse(*arguments: Any, **more: Any) -> None:
        raise OSError(error, os.strerror(error), "/some/place")

    monkeypatch.setattr("ksdiff_cli.commands.inspection.describe", refuse)
    assert fails("info", files.pan).startswith(f"Error: /some/place: {os.strerror(error)}; ")


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."),
        ImportError("libtorch.so: failed to map segment from shared object"),
    ],
)
def test_too_little_memory_is_one_line(error: Exception, files: PairFiles, fails: Any, monkeypatch: Any) -> None:
    def refuse(*arguments: Any, **more: Any) -> None:
        raise error

    monkeypatch.setattr("ksdiff_cli.commands.inspection.describe", refuse)
    assert "memory" in fails("info", files.pan)


def program(words: str, *files: Path) -> subprocess.CompletedProcess[str]:
    """Run the program itself by a shell, with the files' names for {}."""
    line = f"{shlex.quote(sys.executable)} -m ksdiff_cli {words.format(*(shlex.quote(str(file)) for file in files))}"
    return subprocess.run(line, shell=True, capture_output=True, text=True, check=False)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
@pytest.mark.parametrize("words", ["info {} > /dev/full", "info {} --json > /dev/full"])
def test_a_full_standard_output_is_one_line(words: str, files: PairFiles) -> None:
    done = program(words, files.pan)
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert done.stderr.startswith("Error: ") and "No space left on device" in done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="a shell of Unix")
@pytest.mark.parametrize("streams", ["2>&-", ">&- 2>&-", "<&- >&- 2>&-", "2> /dev/full"])
def test_streams_that_take_nothing_are_no_files(streams: str, files: PairFiles, tmp_path: Path) -> None:
    made, noise = tmp_path / "made.tif", "--method exp --no-registration-check --threads 1"
    done = program(f"sharpen {{}} {{}} -o {{}} {noise} {streams}", files.pan, files.ms, made)
    assert done.returncode == 0
    with rasterio.open(made) as dataset:
        assert dataset.count == 4 and dataset.read().any()


@pytest.mark.skipif(sys.platform != "linux", reason="names elsewhere are text")
def test_an_output_whose_name_is_no_utf8(files: PairFiles, tmp_path: Path, fails: Any) -> None:
    before = sorted(tmp_path.rglob("*"))
    assert "its name is not valid UTF-8" in fails(*exp(files, "-q", out=files.folder / os.fsdecode(b"o\xff.tif")))
    assert sorted(tmp_path.rglob("*")) == before


def test_a_batch_tells_of_a_failed_scene_when_it_fails(files: PairFiles, run: Any, tmp_path: Path) -> None:
    listed = tmp_path / "list.csv"
    listed.write_text(f"name,pan,ms\nlost,no.tif,{files.ms}\nfound,{files.pan},{files.ms}\n")
    done = run("sharpen", "--batch", listed, "-o", tmp_path / "made", "--method", "exp", "--json")
    assert done.exit_code == 1
    lines = done.stderr.splitlines()
    assert lines[0].startswith(f"Failed: {tmp_path / 'made' / 'lost.tif'}: ") and "no such file" in lines[0]
    assert lines[-1].startswith("Error: 1 of 2 scenes failed")


def test_a_mosaic_of_what_has_no_place_is_refused_with_the_way_on(tmp_path: Path) -> None:
    from ksdiff_cli.errors import KsdiffError
    from ksdiff_cli.output.vrt import write_vrt

    rng = np.random.default_rng(0)
    plain = write_raster(tmp_path / "plain.tif", rng.integers(1, 9, (1, 32, 32)).astype("uint16"))
    with pytest.raises(KsdiffError, match="leave out --mosaic"):
        write_vrt(tmp_path / "all.vrt", [plain])
    assert not (tmp_path / "all.vrt").exists()


def test_a_scheduler_without_workers_is_told_of_once() -> None:
    pytest.importorskip("distributed")
    from types import SimpleNamespace

    from ksdiff_cli.sharpening.distributed import Workers

    told: list[str] = []
    workers = Workers(SimpleNamespace(scheduler=SimpleNamespace(address="tcp://a:1")), tell=told.append)  # type: ignore
    workers._tell_of_none()
    workers._tell_of_none()
    (line,) = told
    assert "tcp://a:1 has no workers" in line and "dask worker tcp://a:1" in line


def test_a_terrain_without_heights_leaves_nothing(tmp_path: Path, fails: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from test_ortho import QUIET, write_dem, write_pair

    pair, dem = write_pair(tmp_path), write_dem(tmp_path / "dem.tif")
    monkeypatch.setattr("ksdiff_cli.output.ortho._warp", lambda dataset, ground, window, pixels, threads: np.full(
        (dataset.count, window.height, window.width), pixels.nodata, pixels.dtype
    ))  # fmt: skip
    before = sorted(tmp_path.iterdir())
    line = fails("sharpen", *pair, "-o", tmp_path / "out.tif", *QUIET, "--ortho", dem)
    assert "has no heights there; give another DEM" in line
    assert sorted(tmp_path.iterdir()) == before
