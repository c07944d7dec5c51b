import numpy as np
import pytest

from ksdiff_cli.errors import KsdiffError
from ksdiff_cli.numerics.boxes import ALIGN, Box, Tiling


@pytest.mark.parametrize("tile", [64, 80, 256])
@pytest.mark.parametrize("shape", [(1, 1), (7, 300), (64, 65), (255, 257), (513, 128)])
def test_cores_cover_the_scene_once_and_start_in_phase(tile: int, shape: tuple[int, int]) -> None:
    tiling = Tiling(*shape, tile)
    seen = np.zeros(shape, int)
    for number in range(len(tiling)):
        core = tiling.core(number)
        assert 0 < core.height <= tile
        assert 0 < core.width <= tile
        assert core.top % ALIGN == core.left % ALIGN == 0
        seen[core.within(tiling.scene)] += 1
    assert (seen == 1).all()


def test_a_core_does_not_depend_on_the_rest_of_the_scene() -> None:
    assert Tiling(1000, 640, 128).core(7) == Tiling(400, 640, 128).core(7) == Box(128, 256, 256, 384)


def test_touching_is_exactly_what_shares_pixels() -> None:
    tiling = Tiling(300, 500, 64)
    for box in (Box(0, 0, 1, 1), Box(63, 64, 65, 128), Box(-50, 100, 400, 101), Box(299, 499, 300, 500)):
        sharing = [number for number in range(len(tiling)) if not tiling.core(number).meet(box).empty]
        assert tiling.touching(box) == sharing
        assert sharing
    assert tiling.touching(Box(300, 0, 400, 10)) == tiling.touching(Box(5, 5, 5, 9)) == []


def test_boxes() -> None:
    box = Box(2, 3, 6, 10)
    assert (box.height, box.width, box.pixels) == (4, 7, 28)
    assert box.grown(2) == Box(0, 1, 8, 12)
    assert box.moved(-2, 5) == Box(0, 8, 4, 15)
    image = np.arange(200).reshape(10, 20)
    np.testing.assert_array_equal(image[2:6, 3:10][Box(3, 4, 5, 6).within(box)], image[3:5, 4:6])
    assert box.meet(Box(6, 0, 9, 20)).empty
    assert box.meet(Box(6, 0, 9, 20)).pixels == 0


@pytest.mark.parametrize("tile", [0, 8, 48, 65, 100, -64])
def test_bad_cuts_are_refused(tile: int) -> None:
    with pytest.raises(KsdiffError, match=f"--tile {tile}: choose a multiple of 16 pixels, at least 64"):
        Tiling(100, 100, tile)
