"""Results do not depend on the unit of the data: what holds for DN of some hundreds holds for radiances of 1e-9."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray

from ksdiff_cli import metrics, sharpen_array
from ksdiff_cli.classical import METHODS
from ksdiff_cli.metrics import Settings, guess_peak
from ksdiff_cli.simulation.files import simulate_arrays

Array = NDArray[Any]


@pytest.fixture(scope="module")
def images() -> tuple[Array, Array]:
    """PAN and MS of 192 x 192 pixels."""
    pan, ms, _ = simulate_arrays(192, seed=3)
    return pan.astype(np.float32), ms.astype(np.float32)


@pytest.mark.parametrize("method", ["ksdiff", *METHODS])
def test_units_do_not_matter(method: str, images: tuple[Array, Array]) -> None:
    plain = sharpen_array(*images, method=method)
    for unit in (1e-9, 1e-25, 1e12):
        scaled = sharpen_array(*(image * np.float32(unit) for image in images), method=method)
        assert np.abs(scaled / unit - plain).max() / plain.std() < 2e-3, unit


def test_a_constant_band_stays_what_it_is(images: tuple[Array, Array]) -> None:
    pan, ms = images
    for level in (0.0, 3e-7, 1234.5):
        flat = ms.copy()
        flat[1] = level
        fused = sharpen_array(pan, flat)
        np.testing.assert_allclose(fused[1], level, rtol=1e-5, atol=1e-12)


@pytest.mark.parametrize("unit", [1e-9, 1e9])
def test_a_valid_pixel_next_to_nodata_of_zero(unit: float, make_pair: Callable[..., Any], run: Any) -> None:
    def shrink(pan: Array, ms: Array) -> None:
        pan *= unit
        ms *= unit
        pan[0, 40:60, 40:60] = ms[:, 10:15, 10:15] = 0

    files = make_pair(dtype="float64", edit=shrink, ms_profile={"nodata": -1e-30})
    out = files.folder / "out.tif"
    done = run("sharpen", files.pan, files.ms, "-o", out, "--method", "exp", "--dst-nodata", 0, "-q")
    assert done.exit_code == 0, done.stderr
    with rasterio.open(out) as dataset:
        fused = dataset.read()
        assert dataset.nodata == 0 and (fused != 0).all()
    # moved off nodata by next to nothing
    assert 0 < np.abs(fused[:, 50, 50]).max() < 1e-3 * np.abs(fused).max()


def test_the_peak_of_radiances_is_their_own() -> None:
    assert guess_peak(4e-7) == 4e-7
    assert [guess_peak(value) for value in (0, 0.02, 1, 200, 4000)] == [1, 1, 1, 255, 4095]


def test_metrics_do_not_depend_on_the_unit(images: tuple[Array, Array]) -> None:
    truth = images[1].astype(np.float64)
    fused = truth + np.random.default_rng(0).normal(0, 5, truth.shape)
    found = []
    for unit in (1.0, 1e-10):
        settings = Settings(4, unit * float(truth.max()))
        values, _ = metrics.measure_reduced(truth * unit, fused * unit, settings)
        values.pop("Q2n")  # which rounds to whole DN, and says so
        found.append(values)
    for name, value in found[0].items():
        assert found[1][name] == pytest.approx(value, rel=1e-6), name
