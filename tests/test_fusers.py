"""Networks on whole scenes: anchors, the scene's kernels, margins; and what every fuser promises the engine."""

import itertools
from pathlib import Path

import numpy as np
import pytest

from ksdiff_cli.classical import METHODS
from ksdiff_cli.fusers import anchors
from ksdiff_cli.fusers.anchors import count_anchors, read_anchors, spread_windows
from ksdiff_cli.fusers.base import Fuser
from ksdiff_cli.fusers.classical import Network, make_fuser
from ksdiff_cli.numerics.boxes import Box
from ksdiff_cli.products import make_pair as scene_of
from ksdiff_cli.raster.pair import open_pair
from ksdiff_cli.raster.tiles import Swath, Tile

torch = pytest.importorskip("torch")


@pytest.fixture
def small_anchors(monkeypatch):
    """Scenes of a few hundred pixels have many anchors."""
    monkeypatch.setattr(anchors, "SIDE", 32)


def opened(files):
    return open_pair(scene_of(str(files.pan), [str(files.ms)]))


@pytest.mark.parametrize("shape", [(1000, 1300), (129, 700), (64, 64), (5, 3000), (300, 200)], ids=str)
@pytest.mark.parametrize("align", [16, 48])
def test_windows_cover_a_scene_once_each(shape, align):
    windows = list(spread_windows(shape, 128, align))
    assert len(set(windows)) == len(windows) == len(list(spread_windows(shape, 128, align)))
    for row, col, height, width in windows:
        assert row % align == col % align == 0
        assert (height, width) == (min(128, shape[0]), min(128, shape[1]))
        assert 0 <= row <= shape[0] - height and 0 <= col <= shape[1] - width
    for axis in (0, 1):
        starts = sorted({window[axis] for window in windows})
        assert starts[0] <= 64 and shape[axis] - (starts[-1] + 128) <= 64 + align
        assert all(after - before <= 192 for before, after in itertools.pairwise(starts))


def test_a_few_windows_are_spread_over_the_whole_scene():
    windows = [place for place, _ in zip(spread_windows((12800, 12800), 128), range(64), strict=False)]
    counts, *_ = np.histogram2d([w[0] for w in windows], [w[1] for w in windows], bins=4, range=[[0, 12800]] * 2)
    assert counts.min() >= 2 and counts.max() <= 6


def test_number_of_anchors():
    assert count_anchors((100, 50)) == 1
    assert count_anchors((256, 384)) == 6
    assert count_anchors((1280, 1280)) == 16
    assert count_anchors((2560, 2560)) == 50
    assert count_anchors((100_000, 100_000)) == 64


def test_anchors_keep_away_from_holes(make_pair, small_anchors):
    def dig(pan, ms):
        pan[:, :, 100:] = 0

    files = make_pair(size=(192, 192), edit=dig, pan_profile={"nodata": 0})
    with opened(files) as pair:
        tiles = list(read_anchors(pair))
    assert len(tiles) == min(16, 6 * 3)
    assert all(tile.valid.all() and tile.valid.shape == (32, 32) for tile in tiles)


def test_anchors_of_scenes_that_are_nothing_but_holes_nearly(make_pair, small_anchors):
    def speck(pan, ms):
        kept = pan[:, 150, 70].copy()
        pan[:] = 0
        pan[:, 150, 70] = kept

    def stripes(pan, ms):
        pan[:, ::8] = 0

    with opened(make_pair("speck", size=(192, 192), edit=speck, pan_profile={"nodata": 0})) as pair:
        assert [tile.valid.sum() for tile in read_anchors(pair)] == [1]
    with opened(make_pair("stripes", size=(192, 192), edit=stripes, pan_profile={"nodata": 0})) as pair:
        tiles = list(read_anchors(pair))
    assert len(tiles) == 16 and {tile.valid.mean() for tile in tiles} == {7 / 8}


def test_a_tiny_scene_is_its_own_anchor(make_pair, weights):
    with opened(make_pair(size=(36, 52))) as pair:
        (anchor,), statistics = list(read_anchors(pair)), pair.statistics()
        assert anchor.valid.shape == (36, 52)
        network = Network(weights(), "cpu")
        own = network.fuse(anchor, statistics, 4)
        network.prepare(pair, statistics)
        np.testing.assert_allclose(network.fuse(anchor, statistics, 4), own, rtol=1e-4, atol=1e-2)


@pytest.mark.parametrize("threads", [1, 3])
def test_prepared_networks_give_windows_the_scenes_kernels_always_the_same(threads, make_pair, weights, small_anchors):
    told, before = [], torch.get_num_threads()
    with opened(make_pair(size=(160, 192))) as pair:
        statistics = pair.statistics()
        tile = pair.read(32, 16, 96, 96)
        network, again = (Network(weights(), "cpu", seed=3) for _ in range(2))
        own = network.fuse(tile, statistics, 4)
        try:
            torch.set_num_threads(threads)
            network.prepare(pair, statistics, lambda done, total, note="": told.append((done, total, note)))
            assert torch.get_num_threads() == threads
            torch.set_num_threads(1)
            again.prepare(pair, statistics)
        finally:
            torch.set_num_threads(before)
    assert told[-1] == (16, 16, "kernels") and told == sorted(told) and 1 < len(told) < 16  # some at once
    fused = network.fuse(tile, statistics, 4)
    assert np.array_equal(fused, again.fuse(tile, statistics, 4))
    assert np.abs(fused - own).max() > 1e-3


@pytest.mark.parametrize("values", [{}, {"bands": 4}, {"backbone": "fusionnet", "prior": False}], ids=str)
def test_the_cut_does_not_show(values, make_pair, weights, small_anchors):
    """Windows read with their margin, at the scene's border and inside: the same pixels as from the whole scene."""
    with opened(make_pair(size=(300, 340), dtype="float32")) as pair:
        statistics, (height, width) = pair.statistics(), pair.shape
        network = Network(weights(**values), "cpu")
        network.prepare(pair, statistics)
        whole = network.fuse(pair.read(0, 0, height, width), statistics, 4)
        margin = network.reach(4)
        for row, col in ((0, 0), (112, 128), (208, 224)):
            top, left = max(0, row - margin), max(0, col - margin)
            bottom, right = min(height, row + 112 + margin), min(width, col + 128 + margin)
            part = network.fuse(pair.read(top, left, bottom - top, right - left), statistics, 4)
            core = np.s_[:, row - top : row - top + 112, col - left : col - left + 128]
            np.testing.assert_allclose(part[core], whole[:, row : row + 112, col : col + 128], rtol=0, atol=0.02)


@pytest.mark.parametrize("name", [*METHODS, "ksdiff"])
@pytest.mark.parametrize("bands", [4, 8])
def test_every_fuser_says_what_memory_it_takes(name, bands, weights):
    fuser = make_fuser(name, weights() if name == "ksdiff" else None, "cpu")
    need = fuser.bytes_per_pixel(bands)
    assert isinstance(need, int) and need < 1000
    assert need >= 4 * bands or name == "exp"


@pytest.mark.parametrize("name", [*METHODS, "ksdiff"])
def test_classical_methods_are_quick_and_those_that_see_one_pixel_at_a_time_read_swaths(name, weights, make_pair):
    fuser, seen = make_fuser(name, weights() if name == "ksdiff" else None, "cpu"), Box(16, 32, 80, 112)
    with opened(make_pair(size=(128, 160))) as pair:
        window, tile = fuser.read(pair, seen), pair.read(16, 32, 64, 80)
    assert np.array_equal(window.valid, tile.valid)
    assert isinstance(window, Swath) == (name not in ("mtf-glp-fs", "mtf-glp-hpm-r", "awlp", "awlp-r", "ksdiff"))
    assert fuser.quick == (name != "ksdiff")


@pytest.mark.parametrize("core", [Box(8, 16, 40, 56), Box(0, 0, 48, 64)], ids=str)
def test_a_result_waits_for_being_written_without_its_margin(core):
    class Plain(Fuser):
        def fuse(self, tile, statistics, ratio):
            made.append(tile.ms_up * ratio)
            return made[0]

        def bytes_per_pixel(self, bands):
            return 4 * bands

        def provenance(self):
            return {"METHOD": "plain"}

    made, values = [], np.random.default_rng(0).random((3, 48, 64))
    wait = Plain().start(Tile(values[:1], values, values[0] > 0), None, 4, core)
    assert len(made) == 1  # by the thread that fuses
    expected = made[0][:, core.top : core.bottom, core.left : core.right]
    np.testing.assert_array_equal(wait(), expected)
    assert wait().flags.c_contiguous and np.shares_memory(wait(), made[0]) == (core.pixels == 48 * 64)


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peak memory is read from Linux's /proc")
@pytest.mark.parametrize("values", [{"width": 48}, {"backbone": "fusionnet", "bands": 8}], ids=str)
def test_networks_take_no_more_memory_than_they_say(values, weights):
    import subprocess
    import sys

    code = f"""
import numpy as np, torch
from ksdiff_cli.fusers.classical import Network
from ksdiff_cli.numerics.moments import SceneStatistics
from ksdiff_cli.raster.tiles import Tile
def memory(key):
    return next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith(key))
def tile(side):
    return Tile(np.ones((1, side, side), np.float32), np.ones((8, side, side), np.float32), np.ones((side, side), bool))
torch.set_num_threads(1)
network = Network({str(weights(**values))!r}, "cpu")
known = SceneStatistics(0.0, 1.0, np.zeros(8), np.ones(8))
first = tile(64)
images = network._batch(first.pan), network._batch(first.ms_up), network._statistics(known), 4, network._noise
network._kernels = network._model.kernels(*images)
network.fuse(first, known, 4)
window, before = tile(640), memory("VmRSS")
open("/proc/self/clear_refs", "w").write("5")
network.fuse(window, known, 4)
print((memory("VmHWM") - before) / 640**2, network.bytes_per_pixel(8))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    taken, said = map(float, done.stdout.split())
    assert 0.5 * said < taken < 1.1 * said
