"""Which MTF keeps a reduced PAN as sharp as PAN is."""

import numpy as np
import pytest

from ksdiff_cli.numerics.grids import corner_aligned, degrade
from ksdiff_cli.products import find_scene
from ksdiff_cli.raster.pair import open_pair
from ksdiff_cli.sharpening.adaptation import find_reduced_mtf

SIDE = 256


@pytest.fixture(scope="module")
def ground():
    """A world whose octaves are alike at all scales, four times finer than any PAN here."""
    rng = np.random.default_rng(3)
    rows, cols = np.meshgrid(*(np.fft.fftfreq(4 * SIDE),) * 2, indexing="ij")
    spectrum = np.fft.fft2(rng.standard_normal((4 * SIDE, 4 * SIDE))) / np.maximum(np.hypot(rows, cols), 1e-3) ** 1.2
    image = np.fft.ifft2(spectrum).real
    return (1000 + 200 * image / image.std()).astype(np.float32)


def found(ground, make_pair, gain, sensor="GE1"):
    def edit(pan, ms):
        pan[:] = degrade(ground[None], corner_aligned(4), (SIDE, SIDE), (gain,))

    files = make_pair(size=(SIDE, SIDE), edit=edit)
    with open_pair(find_scene([files.pan, files.ms], sensor)) as pair:
        return find_reduced_mtf(pair)


def test_a_camera_as_the_sensor_says_is_believed(ground, make_pair):
    assert found(ground, make_pair, 0.16) == pytest.approx(0.16, abs=0.05)  # a view of a view is a little softer


def test_a_blurred_pan_is_not_blurred_more(ground, make_pair):
    assert found(ground, make_pair, 0.05) == 0.16


@pytest.mark.parametrize("gain", [0.4, 0.6, 0.8])
def test_a_sharper_pan_stays_sharp(ground, make_pair, gain):
    assert found(ground, make_pair, gain) == pytest.approx(gain, abs=0.1)


def test_a_flat_pan_tells_nothing(ground, make_pair):
    assert found(np.full_like(ground, 500), make_pair, 0.8) == 0.16
