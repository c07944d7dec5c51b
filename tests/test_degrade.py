"""The reference toolbox's filters: against its own numbers where they are at hand, and by their properties."""

import numpy as np
import pytest
from reference_values import load_reference
from scipy.ndimage import correlate as direct_correlate

from ksdiff_cli.numerics.toolbox import (
    INTERP_REACH,
    MTF_REACH,
    bicubic,
    correlate,
    decimate,
    ideal_kernel,
    interp23tap,
    mtf_filter,
    mtf_kernel,
    resize_matrix,
)
from ksdiff_cli.sensors import SENSORS


def bands_first(image):
    return np.moveaxis(image, -1, 0)


@pytest.mark.parametrize(
    ("key", "sensor", "ratio"),
    [
        ("ms_WV3", "WV3", 4),
        ("ms_WV2", "WV2", 4),
        ("ms_WV4", "WV4", 4),
        ("ms_GeoEye1", "GE1", 4),
        ("ms_IKONOS", "IKONOS", 4),
        ("ms_QB", "QB", 4),
        ("ms_GF2", "GF2", 4),
        ("ms_WV3_r2", "WV3", 2),
    ],
)
def test_golden_ms_kernels(key, sensor, ratio):
    expected = bands_first(load_reference("filters")[key])
    kernels = [mtf_kernel(gain, ratio) for gain in SENSORS[sensor].ms_gains(len(expected))]
    np.testing.assert_allclose(kernels, expected, rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("key", ["QB", "IKONOS", "GeoEye1", "WV4", "WV2", "WV3", "none"])
def test_golden_pan_kernels(key):
    sensor = {"GeoEye1": "GE1", "none": "generic"}.get(key, key)
    np.testing.assert_allclose(
        mtf_kernel(SENSORS[sensor].mtf_pan, 4), load_reference("filters")[f"pan_{key}"], rtol=1e-9, atol=1e-15
    )


def test_golden_ideal_kernel():
    np.testing.assert_allclose(ideal_kernel(4), load_reference("filters")["lpgauss"], rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize(
    ("key", "resample", "repeats"),
    [
        ("down2", lambda image: bicubic(image, 1 / 2), 1),
        ("down4", lambda image: bicubic(image, 1 / 4), 2),
        ("up4", lambda image: bicubic(image, 4), 1),
        ("interp2", lambda image: interp23tap(image, 2), 1),
        ("interp4", lambda image: interp23tap(image, 4), 1),
        ("near4", lambda image: decimate(image, 4), 2),
    ],
)
def test_golden_resampling(key, resample, repeats):
    golden = load_reference("resample")
    image = np.tile(bands_first(golden["A"]), (1, repeats, repeats))
    np.testing.assert_allclose(resample(image), bands_first(golden[key]), rtol=1e-12)


def test_golden_scene():
    inputs, golden = load_reference("inputs/fr_wv3"), load_reference("fr_wv3")
    gains = SENSORS["WV3"].ms_gains(8)
    blurred = mtf_filter(bands_first(inputs["fused"]), gains, 4)
    np.testing.assert_allclose(blurred, bands_first(golden["fused_mtf"]), rtol=1e-12)
    np.testing.assert_allclose(interp23tap(bands_first(golden["ms"]), 4), bands_first(golden["ms_up"]), rtol=1e-12)
    low = interp23tap(bicubic(inputs["pan"][None], 1 / 4), 4)[0]
    np.testing.assert_allclose(low, golden["pan_filt"], rtol=1e-12)


def test_golden_wald_degrade():
    inputs, golden = load_reference("inputs/m_wv3"), load_reference("methods_m_wv3")
    blurred = mtf_filter(bands_first(inputs["gt"]), SENSORS["WV3"].ms_gains(8), 4)
    np.testing.assert_allclose(blurred, bands_first(golden["gt_mtf"]), rtol=1e-12)
    np.testing.assert_allclose(decimate(blurred, 4), bands_first(golden["ms_lr"]), rtol=1e-12)
    np.testing.assert_allclose(correlate(inputs["pan"], ideal_kernel(4)), golden["pan_lpgauss"], rtol=1e-12)


def test_mtf_kernel_has_its_gain_at_the_coarse_nyquist_frequency():
    for gain, ratio in ((0.35, 4), (0.22, 4), (0.3, 2)):
        kernel = mtf_kernel(gain, ratio)
        assert kernel.shape == (41, 41)
        np.testing.assert_allclose(kernel, kernel.T, atol=1e-16)
        np.testing.assert_allclose(kernel, kernel[::-1, ::-1], atol=1e-16)
        wave = np.cos(np.pi / ratio * (np.arange(41) - 20))
        # a little less, as in the reference: its frequency grid has 41 points for 40 intervals
        assert gain - 0.02 < (kernel.sum(0) * wave).sum() / kernel.sum() < gain


def test_mtf_filter_is_the_direct_correlation_with_a_replicated_border():
    image = np.random.default_rng(1).uniform(0, 2047, (2, 50, 37))
    blurred = mtf_filter(image, (0.3, 0.2), 4)
    for band, gain, found in zip(image, (0.3, 0.2), blurred, strict=True):
        np.testing.assert_allclose(found, direct_correlate(band, mtf_kernel(gain, 4), mode="nearest"), rtol=1e-12)


def test_mtf_filter_of_a_window_with_its_reach_is_that_of_the_whole():
    image = np.random.default_rng(2).uniform(0, 2047, (1, 120, 130))
    whole = mtf_filter(image, (0.3,), 4)[0, 40:70, 50:90]
    cut = image[:, 40 - MTF_REACH : 70 + MTF_REACH, 50 - MTF_REACH : 90 + MTF_REACH]
    part = mtf_filter(cut, (0.3,), 4)[0, MTF_REACH:-MTF_REACH, MTF_REACH:-MTF_REACH]
    np.testing.assert_allclose(part, whole, rtol=1e-12)


def test_mtf_filter_wants_one_gain_a_band():
    with pytest.raises(ValueError, match="2 MTF gains for 3 bands"):
        mtf_filter(np.zeros((3, 8, 8)), (0.3, 0.3), 4)


@pytest.mark.parametrize("ratio", [1, 2, 4, 8])
def test_interp23tap_keeps_samples_at_their_place(ratio):
    image = np.random.default_rng(3).uniform(0, 100, (2, 9, 7))
    up = interp23tap(image, ratio)
    assert up.shape == (2, 9 * ratio, 7 * ratio)
    np.testing.assert_array_equal(decimate(up, ratio), image)


@pytest.mark.parametrize("ratio", [2, 4, 8])
def test_interp23tap_of_a_window_with_its_reach_is_that_of_the_whole(ratio):
    image = np.random.default_rng(4).uniform(0, 100, (1, 60, 60))
    whole = interp23tap(image, ratio)[:, 20 * ratio : 30 * ratio, 24 * ratio : 40 * ratio]
    cut = image[:, 20 - INTERP_REACH : 30 + INTERP_REACH, 24 - INTERP_REACH : 40 + INTERP_REACH]
    inside = slice(INTERP_REACH * ratio, -INTERP_REACH * ratio)
    np.testing.assert_allclose(interp23tap(cut, ratio)[:, inside, inside], whole, rtol=1e-13)


@pytest.mark.parametrize("ratio", [0, 3, 6])
def test_interp23tap_refuses_other_ratios(ratio):
    with pytest.raises(ValueError, match="power of two"):
        interp23tap(np.zeros((1, 4, 4)), ratio)


def test_resampling_keeps_a_constant():
    image = np.full((1, 12, 20), 7.0)
    for out in (bicubic(image, 1 / 4), bicubic(image, 3), bicubic(image, 0.3), interp23tap(image, 4)):
        np.testing.assert_allclose(out, 7.0, rtol=1e-8)  # the published taps sum to 1 only so far


def test_bicubic_mirrors_and_reproduces_lines():
    line = np.arange(40.0)[None, None].repeat(16, 1)
    up = bicubic(line, 2)
    np.testing.assert_allclose(up[0, 4, 8:-8], ((np.arange(80) + 0.5) / 2 - 0.5)[8:-8], rtol=1e-12)
    np.testing.assert_allclose(bicubic(line[:, :, ::-1], 1 / 4)[:, :, ::-1], bicubic(line, 1 / 4), rtol=1e-12)
    assert resize_matrix(10, 1 / 4).shape == (3, 10)
