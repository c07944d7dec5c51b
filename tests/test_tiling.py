from itertools import pairwise

import numpy as np
import pytest

from ksdiff_cli.errors import KsdiffError
from ksdiff_cli.tiling import ALIGN, make_tiling, spans

CUTS = [(64, 0), (64, 32), (100, 50), (250, 33), (256, 32), (512, 64)]


@pytest.mark.parametrize(("tile", "overlap"), CUTS)
@pytest.mark.parametrize("size", [1, 7, 63, 64, 65, 80, 255, 256, 257, 300, 513, 1000, 4097])
def test_spans_cover_the_axis_and_weights_sum_to_one(size: int, tile: int, overlap: int) -> None:
    cut = spans(size, tile, overlap)
    total = np.zeros(size)
    for span in cut:
        assert span.weights.shape == (span.size,)
        assert span.start % ALIGN == 0
        assert min(size, tile - ALIGN) <= span.size <= tile
        total[span.start : span.stop] += span.weights
    np.testing.assert_allclose(total, 1, atol=1e-6)
    assert cut[0].start == 0
    assert cut[-1].stop == size
    for before, after in pairwise(cut):
        assert before.start < after.start
        assert before.stop - after.start >= overlap


def test_weights_begin_near_zero_and_are_whole_at_the_scene_border() -> None:
    first, second = spans(400, 256, 64)[:2]
    assert first.weights[0] == 1
    assert second.weights[0] < 1e-3
    assert np.abs(np.diff(first.weights)).max() < 0.03


def test_a_scene_smaller_than_a_window_is_one_window() -> None:
    tiling = make_tiling(5, 9, 512, 64)
    assert len(tiling) == 1
    ((row, col),) = tiling
    assert (row.size, col.size) == (5, 9)
    assert (row.weights == 1).all()


def test_tiling_is_deterministic() -> None:
    for one, other in zip(make_tiling(700, 900, 256, 50), make_tiling(700, 900, 256, 50), strict=True):
        assert (one[0].start, one[1].start) == (other[0].start, other[1].start)
        assert one[0].weights.tobytes() == other[0].weights.tobytes()


@pytest.mark.parametrize(
    ("tile", "overlap", "word"), [(8, 0, "--tile"), (256, 129, "--overlap"), (256, -1, "--overlap")]
)
def test_bad_cuts_are_refused(tile: int, overlap: int, word: str) -> None:
    with pytest.raises(KsdiffError, match=word):
        make_tiling(100, 100, tile, overlap)
