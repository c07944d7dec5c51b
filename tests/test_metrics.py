"""The metrics: equal to the reference toolbox, streamed or not, and with a defined answer to degenerate input."""

import math

import numpy as np
import pytest
from reference_values import EXPECTED, has_reference, load_reference

from ksdiff_cli import metrics
from ksdiff_cli.errors import KsdiffError
from ksdiff_cli.metrics import crop, make_full_block, q2n_map, sam_map
from ksdiff_cli.metrics.blocks import Span, make_block, split
from ksdiff_cli.metrics.d_lambda import DLambda
from ksdiff_cli.metrics.d_s import DS
from ksdiff_cli.metrics.full_blocks import FullBlock, quality_cells
from ksdiff_cli.metrics.qnr import PairDLambda
from ksdiff_cli.numerics.toolbox import decimate, interp23tap, mtf_filter
from ksdiff_cli.sensors import SENSORS

AGAINST_REFERENCE = {
    "SAM": metrics.sam,
    "ERGAS": metrics.ergas,
    "SCC": metrics.scc,
    "Q_avg": metrics.q_avg,
    "Q2n": lambda reference, fused: metrics.q2n(reference, fused, check_range=False),
}


def load(name):
    """The file's arrays, bands first."""
    arrays = load_reference(name)
    return {key: np.moveaxis(value, -1, 0) if value.ndim == 3 else value for key, value in arrays.items()}


def assert_equal(value, expected, where):
    if expected == "nan":
        assert math.isnan(value), where
    elif expected == "inf":
        assert value == math.inf, where
    else:
        # even values of 1e-35 agree; only an exact 0 leaves room for rounding
        assert value == pytest.approx(expected, rel=1e-9, abs=0 if expected else 1e-15), where


def assert_quality(reference, fused, expected, where):
    for name, value in expected.items():
        assert_equal(AGAINST_REFERENCE[name](reference, fused), value, f"{where} {name}")


# ---- the reference's numbers


@pytest.mark.parametrize("case", EXPECTED["rr"])
def test_golden_against_reference(case):
    images, protocols = load(f"inputs/{case}"), dict(EXPECTED["rr"][case])
    top = 2.0 ** protocols.pop("L")
    for protocol, expected in protocols.items():
        cut = protocol.split("_")[0]
        fused = np.clip(images["fused"], 0, top) if protocol.endswith("_th") else images["fused"]
        if protocol.endswith("_error"):
            with pytest.raises(KsdiffError, match=r"16 pixels|too few"):
                metrics.q2n(crop(images["gt"], cut), crop(fused, cut), check_range=False)
        else:
            assert_quality(crop(images["gt"], cut), crop(fused, cut), expected, f"{case} {protocol}")


def full_images(case, inputs, intermediates):
    return {
        "fused": inputs["fused"],
        "fused_th": np.clip(inputs["fused"], 0, 2.0 ** EXPECTED["fr"][case]["L"]),
        "exp": intermediates["ms_up"],
        "hr": inputs["hr"],
    }


@pytest.mark.parametrize("case", EXPECTED["fr"])
def test_golden_full_resolution(case):
    inputs, intermediates = load(f"inputs/{case}"), load(case)
    images, ms = full_images(case, inputs, intermediates), intermediates["ms"]
    for sensor, expected in EXPECTED["fr"][case]["HQNR"].items():
        gains = SENSORS["generic" if sensor == "none" else sensor].ms_gains(len(ms))
        for image, values in expected.items():
            block = make_full_block(images[image], inputs["pan"], ms, gains, 4)
            spectral = metrics.d_lambda(block.ms_up, block.fused_blurred)
            spatial = metrics.d_s(block.fused, block.pan, block.ms_up, block.pan_low)
            assert_equal(spectral, values["D_lambda"], f"{case} {sensor} {image} D_lambda")
            assert_equal(spatial, values["D_s"], f"{case} {sensor} {image} D_s")
            assert_equal(metrics.hqnr(spectral, spatial), values["QNR"], f"{case} {sensor} {image} HQNR")
    for image, values in EXPECTED["fr"][case]["QNR"].items():
        pairs = metrics.pair_d_lambda(images[image], block.ms_up)
        spatial = metrics.d_s(images[image], block.pan, block.ms_up, block.pan_low)
        assert_equal(pairs, values["D_lambda"], f"{case} {image} QNR's D_lambda")
        assert_equal(metrics.qnr(pairs, spatial), values["QNR"], f"{case} {image} QNR")


@pytest.mark.parametrize("case", EXPECTED["fr"])
def test_golden_full_resolution_intermediates(case):
    inputs, golden = load(f"inputs/{case}"), load(case)
    gains = SENSORS[EXPECTED["fr"][case]["sensor"]].ms_gains(len(golden["ms"]))
    block = make_full_block(inputs["fused"], inputs["pan"], golden["ms"], gains, 4)
    np.testing.assert_allclose(block.ms_up, golden["ms_up"], rtol=1e-9)
    np.testing.assert_allclose(block.pan_low, golden["pan_filt"], rtol=1e-9)
    np.testing.assert_allclose(block.fused_blurred, golden["fused_mtf"], rtol=1e-9)
    np.testing.assert_allclose(q2n_map(block.ms_up, block.fused_blurred), golden["q2n_map"], rtol=1e-9)


@pytest.mark.parametrize("method", EXPECTED["methods"].get("m_wv3", {}))
def test_golden_methods(method):
    """The metrics on the stored outputs of the classical methods."""
    expected = EXPECTED["methods"]["m_wv3"][method]
    inputs, outputs = load("inputs/m_wv3"), load("methods_m_wv3")
    for protocol in ("full", "cut21"):
        assert_quality(
            crop(inputs["gt"], protocol), crop(outputs[method], protocol), expected[protocol], f"{method} {protocol}"
        )
    gains = SENSORS["WV3"].ms_gains(8)
    values, notes = metrics.measure_full(outputs[method], inputs["pan"], outputs["ms_lr"], gains, 4)
    assert notes == []
    for name, key in (("D_lambda", "D_lambda"), ("D_s", "D_s"), ("HQNR", "QNR")):
        assert_equal(values[name], expected["fr"][key], f"{method} {name}")


def test_golden_exp_from_the_start():
    """Degrade by Wald's protocol, upsample, measure: the whole chain."""
    expected, inputs = EXPECTED["methods"]["rr_wv3"]["exp"], load("inputs/rr_wv3")
    gains = SENSORS["WV3"].ms_gains(8)
    ms = decimate(mtf_filter(inputs["gt"], gains, 4), 4)
    exp = interp23tap(ms, 4)
    for protocol in ("full", "cut21"):
        assert_quality(crop(inputs["gt"], protocol), crop(exp, protocol), expected[protocol], f"exp {protocol}")
    values, _ = metrics.measure_full(exp, inputs["pan"], ms, gains, 4)
    assert_equal(values["D_lambda"], expected["fr"]["D_lambda"], "exp D_lambda")
    assert_equal(values["D_s"], expected["fr"]["D_s"], "exp D_s")


def test_golden_maps():
    maps, seen = load("maps"), 0
    for key, expected in maps.items():
        case, kind = key.split(".")
        if not has_reference(f"inputs/{case}"):
            continue
        seen += 1
        images = load(f"inputs/{case}")
        if kind == "q2n_map":
            found = q2n_map(images["gt"], images["fused"])
        else:  # radians there; where a spectrum is zero, ours is NaN and the reference says a right angle
            found = np.deg2rad(np.nan_to_num(sam_map(images["gt"], images["fused"]), nan=90.0))
        np.testing.assert_allclose(found, expected, rtol=1e-9, atol=0, err_msg=key)
    assert seen >= 20


def test_constant_cells_are_counted_where_the_reference_gives_nan():
    inputs, golden = load("inputs/fr_edge_const"), load("fr_edge_const")
    gains = SENSORS["QB"].ms_gains(4)
    values, notes = metrics.measure_full(inputs["fused"], inputs["pan"], golden["ms"], gains, 4)
    assert 0 < values["D_s"] < 1 and 0 < values["HQNR"] < 1 and 0 < values["QNR"] < 1
    assert notes == [
        "1 cells of 32 x 32 px are constant in two images compared: left out of D_s and QNR "
        "(the reference toolbox would give NaN)"
    ]


# ---- properties


def scene(shape=(4, 96, 128), seed=0):
    """A smooth random image in 11-bit DN and a distorted copy."""
    rng = np.random.default_rng(seed)
    reference = np.cumsum(np.cumsum(rng.normal(0, 4, shape), 1), 2)
    reference = np.round(400 + 300 * (reference - reference.min()) / np.ptp(reference) + rng.integers(0, 40, shape))
    return reference, np.round(0.9 * reference + rng.normal(0, 12, shape) + 30)


ALL = {
    **AGAINST_REFERENCE,
    "PSNR": lambda reference, fused: metrics.psnr(reference, fused, 2047),
    "SSIM": lambda reference, fused: metrics.ssim(reference, fused, 2047),
}


@pytest.mark.parametrize("name", metrics.REDUCED)
@pytest.mark.parametrize("bands", [1, 3, 4, 8])
def test_identity_is_ideal_and_distortion_is_not(name, bands):
    reference, fused = scene((bands, 64, 70))
    ideal, metric = metrics.ABOUT[name].ideal, ALL[name]
    assert metric(reference, reference) == pytest.approx(ideal, abs=1e-12)
    if not (name == "SAM" and bands == 1):  # one band has no angle
        value = metric(reference, fused)
        assert metrics.merit(name, value) < metrics.merit(name, ideal)


@pytest.mark.parametrize("name", metrics.REDUCED)
def test_order_of_bands_matters_to_q2n_alone(name):
    reference, fused = scene()
    turned = ALL[name](reference[[2, 0, 3, 1]], fused[[2, 0, 3, 1]])
    assert turned == pytest.approx(ALL[name](reference, fused), rel=1e-3 if name == "Q2n" else 1e-12)


def test_scale_invariance():
    reference, fused = scene()
    assert metrics.sam(reference, 3 * reference) == 0
    assert metrics.scc(reference, 3 * reference) == pytest.approx(1, abs=1e-12)
    for metric in (metrics.sam, metrics.ergas, metrics.scc, metrics.q_avg):
        assert metric(2 * reference, 2 * fused) == pytest.approx(metric(reference, fused), rel=1e-12)


def test_tiny_values_by_hand():
    reference, fused = np.array([[[1.0]], [[0.0]]]), np.array([[[1.0]], [[1.0]]])
    assert metrics.sam(reference, fused) == pytest.approx(45)
    assert metrics.psnr(reference, fused, 10) == pytest.approx(10 * math.log10(200))
    bands = np.array([[[10.0, 10.0]], [[20.0, 20.0]]])
    off = bands + np.array([[[1.0, -1.0]], [[2.0, -2.0]]])
    assert metrics.ergas(bands, off, ratio=4) == pytest.approx(100 / 4 * 0.1)
    assert metrics.ergas(bands, off, ratio=2) == pytest.approx(100 / 2 * 0.1)


def test_q_avg_is_the_plain_loop():
    reference, fused = scene((2, 40, 36))
    values = []
    for x, y in zip(reference, fused, strict=True):
        for row in range(40 - 31):
            for col in range(36 - 31):
                a, b = x[row : row + 32, col : col + 32], y[row : row + 32, col : col + 32]
                covariance = ((a - a.mean()) * (b - b.mean())).mean()
                means = a.mean() ** 2 + b.mean() ** 2
                values.append(4 * covariance * a.mean() * b.mean() / ((a.var() + b.var()) * means))
    assert metrics.q_avg(reference, fused) == pytest.approx(np.mean(values), rel=1e-10)


def test_q2n_of_one_band_is_q_of_the_scaled_cells():
    reference, fused = scene((1, 32, 32))
    x = (reference[0] - reference.mean()) / reference.std(ddof=1) + 1
    y = (fused[0] - reference.mean()) / reference.std(ddof=1) + 1
    assert metrics.q2n(reference, fused) == pytest.approx(quality_cells(x, y).item(), rel=1e-12)


def multiply(u, v):
    """One hypercomplex number by another, by the definition."""
    if len(u) == 1:
        return [u[0] * v[0]]
    if len(u) == 2:
        return [u[0] * v[0] - u[1] * v[1], u[0] * v[1] + u[1] * v[0]]

    def conjugate(w):
        return [w[0], *(-x for x in w[1:])]

    half = len(u) // 2
    a, b, c, d = u[:half], u[half:], v[:half], v[half:]
    first = [x - y for x, y in zip(multiply(a, c), multiply(conjugate(d), b), strict=True)]
    second = [x + y for x, y in zip(multiply(conjugate(a), conjugate(d)), multiply(c, conjugate(b)), strict=True)]
    return first + second


@pytest.mark.parametrize("bands", [1, 2, 4, 8, 16])
def test_q2n_is_the_plain_loop_over_pixels(bands):
    reference, fused = scene((bands, 32, 32))
    mean, spread = (getattr(reference, name)((1, 2), keepdims=True) for name in ("mean", "std"))
    spread *= math.sqrt(1024 / 1023)
    x, y = ((image - mean) / spread + 1 for image in (reference, fused))
    y[1:] *= -1
    products = [multiply(list(u), list(v)) for u, v in zip(x.reshape(bands, -1).T, y.reshape(bands, -1).T, strict=True)]
    m1, m2 = x.mean((1, 2)), y.mean((1, 2))
    covariance = np.mean(products, 0) - multiply(list(m1), list(m2))
    variances = (x**2).sum(0).mean() + (y**2).sum(0).mean() - m1 @ m1 - m2 @ m2
    bias = 2 * math.sqrt((m1 @ m1) * (m2 @ m2)) / (m1 @ m1 + m2 @ m2)
    expected = np.linalg.norm(covariance) * bias * 2 / variances
    assert metrics.q2n(reference, fused) == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize(("bands", "known"), [(2, 4), (3, 4), (5, 8), (9, 16), (16, 16)])
def test_q2n_appends_zero_bands(bands, known):
    reference, fused = scene((bands, 32, 64))
    more = [np.concatenate([image, np.zeros((known - bands, 32, 64))]) for image in (reference, fused)]
    size = 1 << (bands - 1).bit_length()
    if size == known:
        assert metrics.q2n(reference, fused) == pytest.approx(metrics.q2n(*more), rel=1e-12)
    assert 0 < metrics.q2n(reference, fused) < 1


def test_q2n_rounds_halves_away_from_zero_and_negatives_to_zero():
    reference, fused = scene((1, 32, 32))
    moved = fused.copy()
    moved[0, :4] -= 0.5
    moved[0, 8] = -7
    moved[0, 9] = 70000
    whole = moved.copy()
    whole[0, :4] += 0.5
    whole[0, 8] = 0
    whole[0, 9] = 65535
    assert metrics.q2n(reference, moved) == metrics.q2n(reference, whole)


# ---- degenerate input


def test_q2n_refuses_data_that_are_not_dn():
    reference, fused = scene()
    with pytest.raises(KsdiffError, match="rescale both to DN"):
        metrics.q2n(reference / 2047, fused / 2047)
    with pytest.raises(KsdiffError, match="16-bit"):
        metrics.q2n(reference * 1000, fused * 1000)
    values, notes = metrics.measure_reduced(reference / 2047, fused / 2047)
    assert math.isnan(values["Q2n"]) and values["SAM"] == pytest.approx(metrics.sam(reference, fused))
    assert len(notes) == 1 and notes[0].startswith("Q2n: ")


def test_q2n_refuses_tiny_images():
    reference, fused = scene((4, 15, 64))
    with pytest.raises(KsdiffError, match="at least 16 pixels"):
        metrics.q2n(reference, fused)
    values, notes = metrics.measure_reduced(reference, fused)
    assert math.isnan(values["Q2n"]) and "Q2n" in notes[0]


def test_constant_and_zero_images():
    constant, zero = np.full((4, 64, 64), 300.0), np.zeros((4, 64, 64))
    assert metrics.q2n(constant, constant) == metrics.q_avg(constant, constant) == 1
    assert metrics.q2n(constant, constant + 10) < 1e-15
    assert metrics.q_avg(constant, constant * 2) == pytest.approx(0.8)
    assert metrics.q_avg(np.full((1, 64, 64), 0.1), np.full((1, 64, 64), 0.1)) == 1
    assert math.isnan(metrics.sam(zero, zero)) and math.isnan(metrics.sam(constant, zero))
    assert np.isnan(sam_map(zero, constant)).all()
    assert math.isnan(metrics.scc(zero, zero))
    assert math.isnan(metrics.ergas(zero, zero)) and metrics.ergas(zero, constant) == math.inf
    assert metrics.psnr(zero, zero, 255) == math.inf
    assert metrics.ssim(zero, zero, 255) == 1


def test_too_small_for_a_window_is_nan():
    reference, fused = scene((2, 20, 90))
    assert math.isnan(metrics.q_avg(reference, fused))
    assert math.isnan(metrics.ssim(reference[:, :10], fused[:, :10], 2047))


@pytest.mark.parametrize("name", metrics.REDUCED)
def test_bad_values_are_refused(name):
    reference, fused = scene()
    broken = fused.copy()
    broken[1, 5, 5] = np.nan
    with pytest.raises(KsdiffError, match="NaN or infinite"):
        ALL[name](reference, broken)
    with pytest.raises(KsdiffError, match="same"):
        ALL[name](reference, fused[:3])


def test_full_resolution_refuses_what_does_not_fit():
    fused, pan, ms = np.ones((4, 64, 64)), np.ones((64, 64)), np.ones((4, 16, 16))
    gains = (0.3,) * 4
    with pytest.raises(KsdiffError, match="multiples of 32"):
        make_full_block(fused[:, :60], pan[:60], ms[:, :15], gains, 4)
    with pytest.raises(KsdiffError, match="power of two"):
        make_full_block(fused, pan, ms, gains, 3)
    with pytest.raises(KsdiffError, match="do not fit"):
        make_full_block(fused, pan, ms[:, :15], gains, 4)
    with pytest.raises(KsdiffError, match="3 MTF gains for 4 bands"):
        make_full_block(fused, pan, ms, gains[:3], 4)


def test_quality_cells_of_constant_cells_is_nan():
    x = np.random.default_rng(0).uniform(0, 9, (32, 64))
    x[:, :32] = 0.1
    assert np.isnan(quality_cells(x, np.full((32, 64), 0.7))).tolist() == [[True, False]]
    assert quality_cells(x, x)[0, 1] == pytest.approx(1)


# ---- nodata, crops and streaming


@pytest.mark.parametrize("name", metrics.REDUCED)
def test_nodata_is_left_out_whatever_it_holds(name):
    reference, fused = scene((4, 128, 128))
    valid = np.ones((128, 128), bool)
    valid[:32, 96:] = False
    valid[100, 3] = False
    found = []
    for fill in (0, -9999, 60000, np.nan):
        spoiled = np.where(valid, fused, fill)
        metric = metrics.REDUCED[name](metrics.Settings())
        metric.update(make_block(reference, spoiled, valid))
        found.append(metric.result())
    assert len(set(found)) == 1
    assert found[0] == pytest.approx(ALL[name](reference, fused), rel=0.1)


def test_all_nodata_is_nan():
    reference, fused = scene()
    values, _ = metrics.measure_reduced(reference, fused, valid=np.zeros(reference.shape[1:], bool))
    assert all(math.isnan(value) for value in values.values())


def test_nodata_beside_the_rest_does_not_change_it():
    """Pixel metrics of the valid part are those of that part alone; so are those on whole cells."""
    reference, fused = scene((4, 64, 96))
    valid = np.zeros((64, 96), bool)
    valid[:, :64] = True
    for name in ("SAM", "ERGAS", "PSNR", "Q2n", "Q_avg", "SSIM"):
        metric = metrics.REDUCED[name](metrics.Settings())
        metric.update(make_block(reference, fused, valid))
        assert metric.result() == pytest.approx(ALL[name](reference[:, :, :64], fused[:, :, :64]), rel=1e-12), name


def blocks(reference, fused, valid, step):
    height, width = valid.shape
    for rows in split(height, step):
        for cols in split(width, step):
            at = [slice(s.start - s.before, s.stop + s.after) for s in (rows, cols)]
            yield make_block(reference[:, *at], fused[:, *at], valid[tuple(at)], rows, cols)


@pytest.mark.parametrize("shape", [(3, 130, 201), (4, 129, 96), (1, 64, 65), (8, 40, 300)])
def test_block_by_block_is_the_whole(shape):
    reference, fused = scene(shape)
    valid = np.random.default_rng(5).uniform(size=shape[1:]) > 1e-4
    valid[:5, :5] = False
    whole, parts = metrics.Gatherer(metrics.Settings()), metrics.Gatherer(metrics.Settings())
    whole.update(make_block(reference, fused, valid))
    for block in blocks(reference, fused, valid, 32):
        parts.update(block)
    for name, value in whole.results()[0].items():
        assert parts.results()[0][name] == pytest.approx(value, rel=1e-12, nan_ok=True), name


def test_full_block_by_block_is_the_whole():
    rng = np.random.default_rng(6)
    images = [rng.uniform(100, 900, shape) for shape in ((4, 96, 64),) * 3 + ((96, 64),) * 2]
    valid = np.ones((96, 64), bool)
    valid[40:45, 3] = False
    for make in (DLambda, DS, PairDLambda):
        whole, parts = make(), make()
        whole.update(FullBlock(*images, valid))
        for row in range(0, 96, 32):
            at = slice(row, row + 32)
            parts.update(FullBlock(*(image[..., at, :] for image in images), valid[at]))
        assert parts.result() == pytest.approx(whole.result(), rel=1e-12)


def test_split_covers_the_axis_and_keeps_cells_whole():
    for size in (1, 15, 31, 32, 33, 512, 513, 543, 544, 1100):
        spans = split(size, 256, 1, 31)
        assert [span.start for span in spans] == [0, *(span.stop for span in spans[:-1])] and spans[-1].stop == size
        assert all(span.stop - span.start >= 32 for span in spans) or size < 32
        assert all(span.start - span.before >= 0 and span.stop + span.after <= size for span in spans)


def test_a_block_without_its_context_is_a_programming_error():
    reference, fused = scene((1, 32, 32))
    block = make_block(reference, fused, None, Span(32, 64, 128), Span(0, 32, 32))
    with pytest.raises(ValueError, match="too little context"):
        metrics.REDUCED["SCC"](metrics.Settings()).update(block)


def test_crop_protocols():
    image = np.arange(64 * 100).reshape(1, 64, 100)
    assert crop(image, "full").shape == (1, 64, 100)
    assert crop(image, "cut21").shape == (1, 64 - 41, 100 - 41) and crop(image, "cut21")[0, 0, 0] == 20 * 100 + 20
    assert crop(image, "cut30")[0, -1, -1] == 33 * 100 + 69
    with pytest.raises(KsdiffError, match="too few"):
        crop(image[:, :40], "cut21")
    with pytest.raises(KsdiffError, match="no crop protocol"):
        crop(image, "cut22")


@pytest.mark.parametrize(("largest", "peak"), [(1, 1), (0.5, 1), (200, 255), (255, 255), (1023, 1023), (1024, 2047)])
def test_guess_peak(largest, peak):
    assert metrics.guess_peak(largest) == peak


def test_every_metric_says_how_to_read_it():
    full, _ = metrics.FullGatherer().results()
    assert [*metrics.REDUCED, *full] == list(metrics.ABOUT)
