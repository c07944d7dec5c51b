"""The shipped weights on the sample scenes and on real ones: what a stranger gets from the first command."""

import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio
from typer.testing import CliRunner

from ksdiff_cli.main import app
from ksdiff_cli.metrics import ergas, sam
from ksdiff_cli.models.checkpoint import read_header
from ksdiff_cli.numerics.camera import View, implied_sharpness
from ksdiff_cli.numerics.grids import corner_aligned
from ksdiff_cli.weights import SHIPPED

ROOT = Path(__file__).resolve().parents[1]
SAMPLES = ROOT / "sample_data"
sys.path.insert(0, str(ROOT / "tests" / "benchmarks"))
from real_scenes import reduced_scenes, shift_between, write  # noqa: E402


def read(path):
    with rasterio.open(path) as file:
        return file.read().astype(np.float64), file.profile


def sharpened(run, folder, output, *options):
    result = run("sharpen", folder / "pan.tif", folder / "ms.tif", "-o", output, "-q", *options)
    assert result.exit_code == 0, result.output
    return read(output)


def test_header_says_what_the_weights_are():
    header = read_header(SHIPPED)
    assert (header["stage"], header["config"]["bands"], header["config"]["prior"]) == (2, None, True)
    assert SHIPPED.stat().st_size < 10e6
    assert not any("/" in name for name in header["training"]["data"])


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    """The sample sharpened and upsampled: values and profile of each."""
    folder, invoke = tmp_path_factory.mktemp("sample"), CliRunner().invoke

    def run(*words):
        return invoke(app, list(map(str, words)))

    ways = {"fused": (), "up": ("--method", "exp")}
    return {name: sharpened(run, SAMPLES / "ge1", folder / f"{name}.tif", *more) for name, more in ways.items()}


def test_sample_comes_closer_to_the_truth_than_upsampling(sample):
    truth, _ = read(SAMPLES / "ge1" / "truth.tif")
    (fused, profile), (up, _) = sample["fused"], sample["up"]
    assert sam(truth, fused) < 0.8 * sam(truth, up)
    assert ergas(truth, fused, 4) < 0.6 * ergas(truth, up, 4)
    pan = read(SAMPLES / "ge1" / "pan.tif")[1]
    assert (profile["crs"], profile["transform"]) == (pan["crs"], pan["transform"])
    assert (profile["dtype"], profile["count"]) == ("uint16", 4)


def test_same_command_same_bytes_and_another_seed_other_noise(run, tmp_path):
    for name, options in (("a", ()), ("b", ()), ("c", ("--seed", "1"))):
        sharpened(run, SAMPLES / "ge1", tmp_path / f"{name}.tif", "-b", "1", "--window", "0,0,192,256", *options)
    first, second, other = (read(tmp_path / f"{name}.tif")[0] for name in "abc")
    assert (tmp_path / "a.tif").read_bytes() == (tmp_path / "b.tif").read_bytes()
    assert not np.array_equal(first, other)
    assert np.abs(first - other).mean() < 0.02 * first.std()
    assert second.shape == (1, 192, 256)


def test_tiling_hardly_shows(sample, run, tmp_path):
    """Kernels are the scene's and windows see all that counts: only rounding to whole numbers can differ."""
    one, up = sample["fused"][0], sample["up"][0]  # of 512 pixels, in one tile
    many, _ = sharpened(run, SAMPLES / "ge1", tmp_path / "many.tif", "--tile", "256")
    assert np.sqrt(((one - many) ** 2).mean()) < 0.01 * np.sqrt(((one - up) ** 2).mean())


@pytest.mark.parametrize("name", ["landsat_istanbul", "landsat8_tiny", "landsat7_tiny"])
def test_output_lines_up_with_pan_on_offset_grids(real_data, run, tmp_path, name):
    folder = real_data(name)
    result = run("sharpen", folder, "-o", tmp_path / "out.tif", "-q")
    assert result.exit_code == 0, result.output
    (pan,) = [p for p in folder.iterdir() if p.name.lower() == "pan.tif" or p.name.endswith("_B8.TIF")]
    first, second = read(pan)[0][0], read(tmp_path / "out.tif")[0].mean(0)
    assert np.abs(shift_between(first, second)).max() < 0.1


@pytest.mark.parametrize("name", ["worldview3", "landsat8_tiny", "gaofen2/reduced_0", "rotterdam/1"])
def test_better_than_upsampling_at_reduced_resolution(real_data, run, tmp_path, name):
    ((_, ratio, gt, pan, ms, valid),) = reduced_scenes(real_data(name))
    write(tmp_path / "pan.tif", pan, 1.0)
    write(tmp_path / "ms.tif", ms, float(ratio))
    whole = np.ones(pan.shape[1:], bool), np.ones(ms.shape[1:], bool)
    view = View(pan[0], whole[0], ms, whole[1], corner_aligned(ratio))
    sharpness = implied_sharpness([view], len(ms), (0.3,))
    fused, _ = sharpened(run, tmp_path, tmp_path / "ksdiff.tif", "--sharpness", sharpness)
    up, _ = sharpened(run, tmp_path, tmp_path / "exp.tif", "--method", "exp")
    assert sam(gt, fused, valid=valid) < 1.02 * sam(gt, up, valid=valid)  # level on the smallest, 148 px
    assert ergas(gt, fused, ratio, valid=valid) < ergas(gt, up, ratio, valid=valid)
