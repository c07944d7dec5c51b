import math

import numpy as np
import pytest

from ksdiff_cli.numerics.grids import (
    Axis,
    GridMap,
    apply_separable,
    corner_aligned,
    cubic_matrix,
    degrade,
    gaussian_matrix,
    mtf_sigma,
    reach,
    upsample,
)


def test_corner_aligned_grids_share_their_outer_corner() -> None:
    axis = corner_aligned(4).rows
    # the outer corner is half a pixel before the first centre, on both grids
    assert axis.to_ms(-0.5) == pytest.approx(-0.5)
    assert axis.to_pan(0) == pytest.approx(1.5)
    assert corner_aligned(4).ratio == 4


def test_axis_round_trip_and_shift() -> None:
    axis = Axis(0.25, -0.3)
    assert axis.to_pan(axis.to_ms(17.0)) == pytest.approx(17)
    assert axis.shifted(8).to_ms(2.0) == pytest.approx(axis.to_ms(10.0))


def test_bicubic_is_exact_on_a_quadratic_and_its_rows_sum_to_one() -> None:
    at = np.linspace(3, 15, 40)
    matrix = cubic_matrix(at, 20)
    # Keys' kernel with a = -1/2 reproduces polynomials up to degree 2
    np.testing.assert_allclose(matrix @ (np.arange(20.0) ** 2), at**2, rtol=1e-5)
    outside = cubic_matrix(np.array([-3.0, 25.0]), 20)
    np.testing.assert_allclose(outside.sum(1), 1, atol=1e-6)


@pytest.mark.parametrize("grid", [corner_aligned(2), corner_aligned(4), GridMap(Axis(0.249, 0.31), Axis(0.251, -0.4))])
def test_upsampling_follows_the_map(grid: GridMap) -> None:
    rows, cols = np.mgrid[:20, :30].astype(np.float32)
    up = upsample(np.stack([rows, cols]), grid, (40, 50))
    inside = np.s_[8:32, 8:42]
    expected = np.meshgrid(grid.rows.to_ms(np.arange(40)), grid.cols.to_ms(np.arange(50)), indexing="ij")
    for band, truth in zip(up, expected, strict=True):
        np.testing.assert_allclose(band[inside], truth[inside], atol=1e-4)


def test_a_window_gets_the_numbers_of_the_whole() -> None:
    ms = np.random.default_rng(0).normal(size=(2, 40, 40)).astype(np.float32)
    grid = GridMap(Axis(1 / 3.9, -0.2), Axis(1 / 4.1, 0.1))
    whole = upsample(ms, grid, (120, 120))
    part = upsample(ms[:, 5:35, 6:36], grid.shifted(50, 60), (30, 20), (5, 6))
    np.testing.assert_allclose(part, whole[:, 50:80, 60:80], atol=1e-5)


@pytest.mark.parametrize(
    "grid", [corner_aligned(4), corner_aligned(3), GridMap(Axis(1 / 3.9, -0.2), Axis(-1 / 4.1, 39.1))]
)
def test_named_by_its_first_pixels_a_window_has_the_bits_of_the_whole(grid: GridMap) -> None:
    random = np.random.default_rng(0)
    ms = random.normal(1000, 200, (2, 40, 40)).astype(np.float32)
    whole = upsample(ms, grid, (120, 117))
    for _ in range(50):
        row, col = (int(value) for value in random.integers(110, size=2))
        shape = int(random.integers(1, 121 - row)), int(random.integers(1, 118 - col))
        (top, bottom), (left, right) = (
            reach(axis, count, 40, first)
            for axis, count, first in zip((grid.rows, grid.cols), shape, (row, col), strict=True)
        )
        part = upsample(ms[:, top:bottom, left:right], grid, shape, (top, left), (row, col))
        np.testing.assert_array_equal(part, whole[:, row : row + shape[0], col : col + shape[1]])


def test_both_orders_of_the_axes_give_the_same_image() -> None:
    image = np.random.default_rng(0).normal(size=(2, 20, 30)).astype(np.float32)
    rows, cols = cubic_matrix(np.linspace(0, 19, 50), 20), cubic_matrix(np.linspace(0, 29, 70), 30)
    one, other = (apply_separable(rows, cols, image, finer=finer) for finer in (False, True))
    np.testing.assert_allclose(one, other, atol=1e-6)
    np.testing.assert_allclose(one[1], rows.toarray() @ image[1] @ cols.toarray().T, atol=1e-6)


def test_gaussian_has_the_wanted_mtf_at_the_coarse_nyquist_frequency() -> None:
    gain, ratio = 0.3, 4
    sigma = mtf_sigma(gain, ratio)
    wave = np.cos(2 * np.pi * np.arange(200) / (2 * ratio))
    seen = gaussian_matrix(np.array([96.0]), 200, sigma) @ wave
    assert seen[0] == pytest.approx(gain, abs=0.01)


@pytest.mark.parametrize("ratio", [2, 3, 4])
def test_degrading_keeps_a_plane_where_it_is(ratio: int) -> None:
    size = 24 * ratio
    rows, cols = np.mgrid[:size, :size].astype(np.float32)
    grid = corner_aligned(ratio)
    coarse = degrade(np.stack([rows, cols]), grid, (24, 24), (0.3, 0.25))
    inside = np.s_[8:16, 8:16]
    expected = np.arange(24) * ratio + (ratio - 1) / 2
    np.testing.assert_allclose(coarse[0][inside], np.broadcast_to(expected[8:16, None], (8, 8)), atol=1e-3)
    np.testing.assert_allclose(coarse[1][inside], np.broadcast_to(expected[8:16], (8, 8)), atol=1e-3)


def test_mtf_sigma_is_the_formula() -> None:
    assert math.exp(-2 * (math.pi * mtf_sigma(0.28, 4) / 8) ** 2) == pytest.approx(0.28)
