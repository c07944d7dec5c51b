"""--uncertainty: the spread of several draws of z_T as a raster beside the output."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import rasterio
from conftest import read

from ksdiff_cli.errors import KsdiffError
from ksdiff_cli.fusers.base import Fuser
from ksdiff_cli.numerics.moments import SceneStatistics
from ksdiff_cli.raster.tiles import Tile
from ksdiff_cli.sharpening import uncertainty
from ksdiff_cli.sharpening.uncertainty import Spread

torch = pytest.importorskip("torch")

Array = Any


class Shifted(Fuser):
    """A fuser that adds noise of its own to MS."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def fuse(self, tile: Tile, statistics: SceneStatistics, ratio: int) -> Array:
        return tile.ms_up + np.random.default_rng(self.seed).normal(0, 0.3, tile.ms_up.shape).astype(np.float32)

    def bytes_per_pixel(self, bands: int) -> int:
        return 4 * bands

    def provenance(self) -> Mapping[str, str]:
        return {"METHOD": "fake", "SEED": str(self.seed)}


@pytest.fixture
def files(make_pair):
    def dig(pan, ms):
        pan[:, 10:30, 20:60] = 0

    return make_pair(size=(128, 160), edit=dig, pan_profile={"nodata": 0}, ms_profile={"nodata": 0})


def test_spread_is_the_deviation_of_the_draws():
    rng = np.random.default_rng(0)
    ms_up = rng.uniform(100, 4000, (3, 40, 50)).astype(np.float32)
    tile = Tile(ms_up[:1], ms_up, rng.random((40, 50)) > 0.1)
    fusers, statistics = [Shifted(seed) for seed in range(5)], SceneStatistics(0, 1, np.zeros(3), np.ones(3))
    expected = np.stack([fuser.fuse(tile, statistics, 4) for fuser in fusers]).astype(np.float64).std(0, ddof=1)
    found = Spread(fusers).fuse(tile, statistics, 4)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found[:, tile.valid], expected[:, tile.valid], rtol=2e-3)
    assert (found[:, ~tile.valid] == 0).all()
    assert Spread(fusers).provenance()["DRAWS"] == "5"


def test_the_raster_is_the_deviation_of_the_outputs_of_these_seeds(run, weights, files):
    given = (files.pan, files.ms, "--checkpoint", weights(), "--tile", 128, "-t", "float32", "--no-registration-check")
    draws = []
    for seed in (4, 5):
        out = files.folder / f"{seed}.tif"
        assert run("sharpen", *given, "-o", out, "--seed", seed, "-q").exit_code == 0
        draws.append(read(out))
    both = ("-o", files.folder / "out.tif", "--uncertainty", files.folder / "std.tif", "--draws", 2, "--seed", 4)
    done = run("sharpen", *given, *both)
    assert done.exit_code == 0, done.output
    assert "std.tif: spread of 2 draws" in done.stderr
    assert (files.folder / "out.tif").read_bytes() == (files.folder / "4.tif").read_bytes()
    with rasterio.open(files.folder / "std.tif") as made, rasterio.open(files.folder / "out.tif") as out:
        assert (made.shape, made.transform, made.crs, made.nodata) == (out.shape, out.transform, out.crs, out.nodata)
        assert made.dtypes == ("float32",) * 4
        assert np.array_equal(made.read_masks(), out.read_masks())
        valid, spread, facts = out.read_masks(1) > 0, made.read(), made.tags()
    assert not valid.all()
    expected = np.stack(draws).astype(np.float64).std(0, ddof=1)
    assert expected[:, valid].mean() > 1e-3
    np.testing.assert_allclose(spread[:, valid], expected[:, valid], rtol=0.02, atol=1e-3)
    assert facts["KSDIFF_DRAWS"] == "2" and "standard deviation" in facts["KSDIFF_SHOWS"]
    assert "KSDIFF_FIDELITY" not in facts
    assert not list(files.folder.glob(".*"))


def test_a_run_stopped_between_the_two_rasters_goes_on(run, weights, files, monkeypatch):
    out, std = files.folder / "out.tif", files.folder / "std.tif"
    given = ["sharpen", files.pan, files.ms, "--checkpoint", weights(), "--draws", 2, "--no-registration-check"]
    given += ["-o", out, "--uncertainty", std]
    work, calls = uncertainty.sharpen_scene, []

    def stopping(*arguments, **more):
        calls.append(arguments[1])
        if len(calls) == 2:
            raise KeyboardInterrupt
        return work(*arguments, **more)

    monkeypatch.setattr(uncertainty, "sharpen_scene", stopping)
    assert run(*given).exit_code != 0
    assert calls == [out, std] and out.exists() and not std.exists()
    before = out.stat()
    calls[:] = [None, None]
    refused = run(*given, "-t", "float32")
    assert refused.exit_code == 1 and "exists already" in refused.stderr
    alone = [word for word in given[:-4] if word not in ("--draws", 2)]
    assert run(*alone, "-o", out).exit_code == 1  # without --uncertainty the output is just there
    done = run(*given)
    assert done.exit_code == 0, done.output
    assert calls[-1] == std and out.stat().st_mtime_ns == before.st_mtime_ns
    assert "Spectral fidelity" in done.stderr and f"{out}: 160 x 128" in done.stderr
    assert not list(files.folder.glob(".*"))
    again = run(*given)
    assert again.exit_code == 1 and "exists already" in again.stderr


def test_what_has_no_spread_is_refused_before_any_work(fails, run, weights, files):
    given = ("sharpen", files.pan, files.ms, "-o", files.folder / "out.tif", "--no-registration-check")
    line = fails(*given, "--uncertainty", files.folder / "std.tif", "--checkpoint", weights(prior=False))
    assert "no prior" in line and "--checkpoint" in line
    assert "for 2 MS bands" in fails(
        *given, "--uncertainty", files.folder / "std.tif", "--checkpoint", weights(bands=2)
    )
    same = fails(*given, "--uncertainty", files.folder / "out.tif")
    assert "two files" in same
    there = files.folder / "there.tif"
    there.write_bytes(b"x")
    assert "exists already" in fails(*given, "--uncertainty", there)
    assert run(*given, "--uncertainty", files.folder / "std.tif", "--method", "exp").exit_code == 2
    assert {path.name for path in files.folder.iterdir()} == {"pan.tif", "ms.tif", "there.tif"}
    with pytest.raises(KsdiffError, match="no prior"):
        Spread([Shifted(1), Shifted(1)]).check_draws(4)


def test_a_deviation_has_the_scale_of_ms_and_no_offset(run, weights, files):
    with rasterio.open(files.ms, "r+") as ms:
        ms.scales, ms.offsets = (2e-5,) * 4, (-0.1,) * 4
    paths = ("-o", files.folder / "out.tif", "--uncertainty", files.folder / "std.tif")
    options = ("--checkpoint", weights(), "--draws", 2, "--no-registration-check")
    done = run("sharpen", files.pan, files.ms, *paths, *options)
    assert done.exit_code == 0, done.output
    with rasterio.open(files.folder / "std.tif") as made, rasterio.open(files.folder / "out.tif") as out:
        assert made.scales == out.scales == (2e-5,) * 4
        assert (made.offsets, out.offsets) == ((0.0,) * 4, (-0.1,) * 4)


@pytest.mark.parametrize("name", ["", ".", "..", "dir.tif"])
def test_a_folder_is_no_output(name, fails, files, monkeypatch):
    monkeypatch.chdir(files.folder)
    (files.folder / "dir.tif").mkdir()
    given = ("sharpen", "pan.tif", "ms.tif", "--no-registration-check")
    shown = name or "."
    assert f"{shown}: is a folder; name the file" in fails(*given, "-o", name)
    assert f"{shown}: is a folder; name the file" in fails(*given, "-o", "out.tif", "--uncertainty", name)
    assert f"{shown}: is a folder; name the file" in fails(*given, "-o", "out.tif", "--quicklook", name)
    assert sorted(path.name for path in files.folder.iterdir()) == ["dir.tif", "ms.tif", "pan.tif"]


def test_names_that_are_too_long_are_refused_before_any_work(fails, files):
    given = ("sharpen", files.pan, files.ms, "--no-registration-check")
    for options, suffix in (((), ".tif"), (("-f", "COG"), ".tif"), (("-f", "VRT"), ".vrt")):
        line = fails(*given, *options, "-o", files.folder / ("é" * 110 + suffix))  # two bytes a letter
        assert "make it 13 bytes shorter" in line
    for option, suffix in (("--uncertainty", ".tif"), ("--quicklook", ".png")):
        line = fails(*given, "-o", files.folder / "out.tif", option, files.folder / ("a" * 300 + suffix))
        assert "make it 93 bytes shorter" in line
    assert "File name too long" in fails(*given, "-o", files.folder / ("a" * 300) / "out.tif")
    assert "no such file" in fails("sharpen", "a" * 300 + ".tif", files.ms, "-o", files.folder / "out.tif")
    assert sorted(path.name for path in files.folder.iterdir()) == ["ms.tif", "pan.tif"]
