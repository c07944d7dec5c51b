"""The parts of the whole-scene engine: the plan, the threads, the seam score."""

import threading
import time
from typing import Any

import numpy as np
import pytest
import rasterio
from scipy.ndimage import gaussian_filter

from ksdiff_cli.errors import KsdiffError
from ksdiff_cli.fusers.classical import Upsampling
from ksdiff_cli.numerics.boxes import Box, Tiling
from ksdiff_cli.options.sharpening import SharpenOptions
from ksdiff_cli.products import make_pair as scene_of
from ksdiff_cli.sharpening.assembly import Seams
from ksdiff_cli.sharpening.engine import sharpen_scene
from ksdiff_cli.sharpening.pipeline import make_windows, read_ahead
from ksdiff_cli.sharpening.plan import GB, MOST_AHEAD, Need, make_plan, memory_needed

Array = Any
NETWORK = Need(bands=4, stored=2, margin=64, fusing=900, base=420_000_000)


def plan(memory: float | None = None, tile: int | None = None, shape: tuple[int, int] = (9000, 9000)) -> Any:
    return make_plan(shape, NETWORK, Box(0, 0, *shape), tile, memory)


def test_windows_are_as_large_as_memory_allows() -> None:
    tiles = [plan(memory).tiling.tile for memory in (0.7, 1, 1.2, 2, 8)]
    assert tiles == [256, 512, 512, 1024, 2048]
    assert plan(8).ahead == MOST_AHEAD
    for memory in (0.7, 1, 2, 8):
        assert plan(memory).memory <= memory * GB
    assert plan().memory <= 2 * GB
    # it does not grow with the scene
    assert plan(shape=(90000, 90000)).memory == plan().memory
    assert plan(0.7, shape=(200, 300)).tiling.tile == 2048


def test_too_little_memory_is_one_line_that_says_what_would_do() -> None:
    with pytest.raises(KsdiffError, match=r"--memory 0.5: windows of 256 pixels .* give --memory 0.7 or more"):
        plan(0.5)
    with pytest.raises(KsdiffError, match=r"windows of 2048 .*give a smaller --tile or --memory"):
        plan(2, tile=2048)
    with pytest.raises(KsdiffError, match=r"windows of 512 .*; give --memory"):
        plan(0.5, tile=512)
    assert plan(0.7).tiling.tile == 256


def test_memory_is_that_of_a_window_cut_at_the_scene() -> None:
    assert memory_needed(Tiling(100, 100, 1024), NETWORK, 1) < memory_needed(Tiling(3000, 3000, 256), NETWORK, 1)


def test_a_region_takes_the_windows_it_touches() -> None:
    found = make_plan((1000, 1000), NETWORK, Box(500, 100, 600, 520), tile=512)
    assert found.numbers == [0, 1, 2, 3]
    assert [found.part(number) for number in found.numbers] == [
        Box(500, 100, 512, 512), Box(500, 512, 512, 520), Box(512, 100, 600, 512), Box(512, 512, 600, 520)
    ]  # fmt: skip
    assert found.seen(3) == Box(448, 448, 1000, 1000)


def test_reading_goes_ahead_as_far_as_told_and_no_further() -> None:
    read: list[int] = []

    def slowly(item: int) -> int:
        read.append(item)
        return item * item

    with read_ahead(slowly, range(20), 3) as pairs:
        for item, square in pairs:
            assert square == item * item
            time.sleep(0.002)
            assert len(read) <= item + 4
    assert read == list(range(20))


class Steps:
    """Stands in for the steps of a job's windows; one of them fails at window 5."""

    def __init__(self, fails: str = "", error: BaseException | None = None) -> None:
        self.fails, self.error = fails, error
        self.stored: list[int] = []
        self.job = type("Job", (), {"plan": plan(tile=512, shape=(2048, 2048))})

    def at(self, step: str, number: int) -> None:
        if step == self.fails and number == 5:
            assert self.error is not None
            raise self.error

    def read(self, number: int) -> int:
        self.at("read", number)
        return number

    def fuse(self, number: int, tile: int) -> int:
        assert number == tile
        self.at("fuse", number)
        return number

    def store(self, number: int, made: int) -> None:
        self.at("store", number)
        self.stored.append(made)


@pytest.mark.parametrize("step", ["read", "fuse", "store"])
@pytest.mark.parametrize("error", [KsdiffError("bad"), MemoryError(), KeyboardInterrupt()])
def test_an_error_anywhere_is_the_one_raised_and_no_thread_remains(step: str, error: BaseException) -> None:
    threads, steps = threading.active_count(), Steps(step, error)
    with pytest.raises(type(error)) as caught:
        make_windows(steps, steps.job.plan.numbers)  # type: ignore[arg-type]
    assert caught.value is error
    assert threading.active_count() == threads
    assert set(range(5)) - {4} <= set(steps.stored) <= set(range(5 + 2 * MOST_AHEAD)) - {5}


def test_windows_are_counted_with_those_that_were_there() -> None:
    steps, told = Steps(), []
    make_windows(steps, [3, 4, 8], lambda *now: told.append(now))  # type: ignore[arg-type]
    assert steps.stored == [3, 4, 8]
    assert told == [(done, 16, "windows") for done in (13, 14, 15, 16)]


def texture(step: float = 0, tile: int = 128, phase: float = 0) -> Array:
    """Noise of 5 DN, smoothed; a seam of ``step`` DN at every border; columns and rows of every fourth stand out."""
    rng = np.random.default_rng(3)
    image = np.stack([gaussian_filter(rng.normal(0, 12, (512, 640)), 1) for _ in range(3)])
    row, col = np.mgrid[:512, :640]
    image += step * ((row // tile + col // tile) % 2)
    return image + phase * ((row % 4 == 0) + (col % 4 == 0))


def seam(image: Array, tile: int = 128, piece: int = 256, valid: Array | None = None, begin: int = 0) -> float | None:
    region = Box(begin, begin, begin + image.shape[1], begin + image.shape[2])
    valid = np.ones(image.shape[1:], bool) if valid is None else valid
    seams = Seams(region, tile, 4)
    for top in range(region.top, region.bottom, piece):
        part = Box(top, region.left, top + piece, region.right).meet(region)
        shown = part.grown(seams.margin).meet(region)
        rows, cols = shown.within(region)
        seams.add(image[:, rows, cols], valid[rows, cols], part, shown)
    return seams.score


def test_seam_score_is_one_without_and_rises_with_a_seam() -> None:
    assert seam(texture()) == pytest.approx(1, abs=0.03)
    scores = [seam(texture(step)) or 0 for step in (0, 2, 5, 50)]
    assert scores == sorted(scores)
    assert scores[2] > 1.3
    assert scores[3] > 3


def test_seam_score_forgives_what_every_fourth_line_does() -> None:
    assert seam(texture(phase=6)) == pytest.approx(1, abs=0.03)


def test_seam_score_does_not_depend_on_pieces() -> None:
    whole = seam(texture(2), piece=512)
    assert seam(texture(2), piece=64) == pytest.approx(whole, rel=0.01)


def test_seam_score_looks_at_valid_pixels_only() -> None:
    image, valid = texture(), np.ones((512, 640), bool)
    valid[:, 200:300] = False
    image[:, :, 200:300] = 0
    assert seam(image, valid=valid) == pytest.approx(1, abs=0.04)
    assert seam(image, valid=np.zeros_like(valid)) is None


def test_seam_score_counts_borders_from_the_scenes_corner() -> None:
    # the same image as a part of a larger scene: its borders lie elsewhere, where the seams are not
    assert seam(texture(20), begin=40) == pytest.approx(1, abs=0.05)
    assert (seam(texture(20)) or 0) > 2


def test_no_border_no_score() -> None:
    assert seam(texture(), tile=1024) is None
    assert seam(np.ones((1, 512, 512))) is None


def test_shards_stay_open_as_long_as_the_output_needs_them(make_pair: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    files, opened, most = make_pair(size=(1024, 1024)), [], []
    real = rasterio.open

    def opening(path: Any, *more: Any, **named: Any) -> Any:
        dataset = real(path, *more, **named)
        if ".shards" in str(path):
            opened.append(dataset)
            most.append(sum(not shard.closed for shard in opened))
        return dataset

    monkeypatch.setattr(rasterio, "open", opening)
    scene = scene_of(str(files.pan), [str(files.ms)])
    # a part that begins beside the windows' corners, so that its blocks are no windows
    options = SharpenOptions(tile=256, fidelity=False, window=(0, 8, 1024, 1016))
    sharpen_scene(scene, files.folder / "out.tif", Upsampling(), options)
    # 16 pieces, each with the borders of up to 8 more: 100 places to read
    assert 16 <= len(opened) <= 40
    assert all(shard.closed for shard in opened) and max(most) <= 13
