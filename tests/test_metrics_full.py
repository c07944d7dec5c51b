"""The metrics of full resolution: equal to plain loops and matrices, nodata left out, streamed or not."""

import math
from itertools import pairwise, product

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from ksdiff_cli import metrics
from ksdiff_cli.errors import KsdiffError
from ksdiff_cli.numerics.grids import Axis, GridMap, corner_aligned

GAINS = (0.34, 0.32, 0.3, 0.22)


def scene(shape=(4, 96, 128), ratio=4, seed=0):
    """PAN, a fused image of it and MS: correlated bands of some contrast, whole DN."""
    rng = np.random.default_rng(seed)
    bands, height, width = shape
    fields = gaussian_filter(rng.normal(size=(bands + 1, height, width)), (0, 1.2, 1.2))
    fields += 3 * gaussian_filter(rng.normal(size=(bands + 1, height, width)), (0, 6, 6))
    images = 1000 + 200 * (fields + 1.5 * fields[:1])
    pan, fused = np.rint(images[0]), np.rint(images[1:])
    ms = gaussian_filter(fused, (0, ratio / 2, ratio / 2))[:, ratio // 2 :: ratio, ratio // 2 :: ratio]
    return fused, pan, np.rint(ms)


def holes(shape, seed=1):
    valid = np.random.default_rng(seed).uniform(size=shape) > 5e-4
    valid[:7, :9] = False
    return valid


# ---- the same once more, plainly


def plain_d_rho(fused, pan, side, valid):
    height, width = pan.shape
    before, after = side // 2, side - 1 - side // 2

    def windows(plane):  # by pixel, NaN where the window leaves the image
        out = np.full((height, width, side * side), np.nan)
        for row, col in product(range(before, height - after), range(before, width - after)):
            out[row, col] = plane[row - before : row + after + 1, col - before : col + after + 1].ravel()
        return out

    mask = np.where(valid, 0.0, np.nan)
    detail = [plane + mask - windows(plane + mask).mean(-1) for plane in (*fused, pan)]
    seen = windows(detail[-1])
    found = []
    for band in detail[:-1]:
        own = windows(band)
        with np.errstate(invalid="ignore", divide="ignore"):
            found.append((own * seen).sum(-1) / np.sqrt((own**2).sum(-1) * (seen**2).sum(-1)))
    return float(1 - np.nanmean(np.stack(found)))


def plain_d_sr(fused, pan, valid):
    bands, wanted = fused[:, valid].T, pan[valid]
    residual = wanted - bands @ np.linalg.lstsq(bands, wanted, rcond=None)[0]
    return residual.var() / wanted.var()


def gaussian_matrix(size, sigma, half):
    """Every row blurs; beyond the border is nothing, where no pixel counts."""
    away = np.abs(np.arange(size)[:, None] - np.arange(size))
    weights = np.where(away <= half, np.exp(-0.5 * (away / sigma) ** 2), 0)
    at = np.arange(-half, half + 1)
    return weights / np.exp(-0.5 * (at / sigma) ** 2).sum()


def plain_sharpness(fused, pan, valid):
    height, width = pan.shape
    good = np.zeros_like(valid)
    for row, col in product(range(12, height - 12), range(12, width - 12)):
        good[row, col] = valid[row - 12 : row + 13, col - 12 : col + 13].all()
    slopes = []
    for plane in (*fused, pan):
        steps = [plane]
        for sigma in (0.75, 1.5, 3):
            half = int(4 * sigma)
            steps.append(gaussian_matrix(height, sigma, half) @ plane @ gaussian_matrix(width, sigma, half).T)
        spreads = [np.std((a - b)[good]) for a, b in pairwise(steps)]
        slopes.append((spreads[0] / spreads[1], spreads[1] / spreads[2]))
    return tuple(np.mean(slopes[:-1], axis=0) / slopes[-1])


def gaussian_rows(size, centres, sigma):
    """A row of weights a centre; beyond the border its outermost pixel counts again."""
    half = math.ceil(4 * sigma)
    out = np.zeros((len(centres), size))
    for row, centre in zip(out, centres, strict=True):
        taps = [t for t in range(math.floor(centre) - half, math.ceil(centre) + half + 1)]
        weights = [math.exp(-((t - centre) ** 2) / (2 * sigma**2)) for t in taps]
        for tap, weight in zip(taps, weights, strict=True):
            row[min(max(tap, 0), size - 1)] += weight / sum(weights)
    return out


def plain_view(plane, valid, at_rows, at_cols, sigma):
    """Sample a plane through a Gaussian; and where it sees valid pixels only."""
    rows, cols = (gaussian_rows(n, at, sigma) for n, at in zip(plane.shape, (at_rows, at_cols), strict=True))
    return rows @ plane @ cols.T, (rows > 0).astype(float) @ ~valid @ (cols > 0).T == 0


def sigma_of(gain, ratio):
    """A Gaussian exp(-2 (pi sigma f)²) that is ``gain`` at f = 1 / (2 ratio)."""
    return ratio * math.sqrt(2 * math.log(1 / gain)) / math.pi


@pytest.mark.parametrize("ratio", [2, 3, 4])
def test_d_rho_is_the_plain_loop(ratio):
    fused, pan, _ = scene((2, 40, 50))
    for valid in (np.ones(pan.shape, bool), holes(pan.shape)):
        expected = plain_d_rho(fused, pan, ratio, valid)
        assert metrics.d_rho(fused, pan, ratio, valid) == pytest.approx(expected, rel=1e-9)


def test_d_rho_by_hand():
    _, pan, _ = scene((2, 40, 50))
    assert metrics.d_rho(np.stack([pan, 3 * pan + 100]), pan, 4) == pytest.approx(0, abs=1e-12)
    assert metrics.d_rho(-pan[None], pan, 4) == pytest.approx(2)
    assert metrics.d_rho(np.ones((1, 40, 50)), pan, 4) == 1  # a band without detail has none of PAN's
    assert math.isnan(metrics.d_rho(np.ones((1, 40, 50)), np.full((40, 50), 0.1), 3))
    half = np.where(np.arange(50) < 25, 7.0, pan)  # constant in both: undefined there, and left out
    assert metrics.d_rho(np.stack([half, half]), half, 4) == pytest.approx(0, abs=1e-12)


def test_d_sr_is_least_squares():
    fused, pan, _ = scene()
    for valid in (np.ones(pan.shape, bool), holes(pan.shape)):
        assert metrics.d_sr(fused, pan, valid) == pytest.approx(plain_d_sr(fused, pan, valid), rel=1e-9)
    mix = np.tensordot([0.1, 0.2, 0.3, 0.4], fused, 1)
    assert metrics.d_sr(fused, mix) == pytest.approx(0, abs=1e-12)
    assert metrics.d_sr(np.concatenate([fused, fused]), pan) == pytest.approx(plain_d_sr(fused, pan, pan > 0), rel=1e-9)
    assert math.isnan(metrics.d_sr(fused, np.full(pan.shape, 500.0)))
    assert metrics.rqnr(0.1, 0.2) == pytest.approx(0.72)


def test_sharpness_is_the_plain_one():
    fused, pan, _ = scene((2, 64, 70))
    for valid in (np.ones(pan.shape, bool), holes(pan.shape)):
        expected = plain_sharpness(fused, pan, valid)
        assert metrics.sharpness(fused, pan, valid) == pytest.approx(expected, rel=1e-9)


def test_sharpness_tells_soft_from_crisp():
    _, pan, _ = scene((1, 128, 128))
    soft = gaussian_filter(pan, 1.0)
    crisp = pan + 0.5 * (pan - gaussian_filter(pan, 1.0))
    assert metrics.sharpness(np.stack([pan, 0.2 * pan + 50]), pan) == pytest.approx((1, 1), abs=1e-9)
    assert metrics.sharpness(soft[None], pan)[0] < 0.9 < 1.05 < metrics.sharpness(crisp[None], pan)[0]
    assert math.isnan(metrics.sharpness(pan[None, :20, :20], pan[:20, :20])[0])


def plain_shift(pan, ms, gain, widest, grid, valid, ms_valid):
    """The best of 81 shifts of one band by the mean local correlation, and that mean.

    Pixels count that see valid ones only at any shift, through the ``widest`` band's MTF, too.
    """
    ratio = 1 / abs(grid.rows.scale)
    side, sigma = max(2, round(16 / ratio)), sigma_of(gain, ratio)
    centres = [np.asarray(axis.to_pan(np.arange(n))) for axis, n in zip((grid.rows, grid.cols), ms.shape, strict=True)]
    half, good = math.ceil(4 * sigma_of(widest, ratio)) + 0.5 + 2, ms_valid.copy()
    for i, j in product(range(ms.shape[0]), range(ms.shape[1])):
        spans = [(math.ceil(c - half), math.floor(c + half)) for c in (centres[0][i], centres[1][j])]
        fits = all(a >= 0 and b < n for (a, b), n in zip(spans, pan.shape, strict=True))
        good[i, j] &= fits and valid[tuple(slice(a, b + 1) for a, b in spans)].all()
    best = None
    for row, col in product(np.arange(-2, 2.5, 0.5), repeat=2):
        low, _ = plain_view(pan, valid, centres[0] + row, centres[1] + col, sigma)
        mean = 1 - plain_d_rho(ms[None], low, side, good)
        if best is None or mean > best[0] + 1e-11:
            best = mean, (row, col)
    return best


@pytest.mark.parametrize("ratio", [2, 4])
def test_shifts_are_found_as_described(ratio):
    shape = (24, 28) if ratio == 4 else (50, 40)
    _, pan, _ = scene((1, shape[0] * ratio, shape[1] * ratio), seed=3)
    grid, gains = corner_aligned(ratio), (0.3, 0.22)
    moved = [(1.0, -0.5), (0.0, 2.0)]
    ms = []
    for gain, shift in zip(gains, moved, strict=True):
        rows, cols = (np.arange(n) * ratio + (ratio - 1) / 2 + off for n, off in zip(shape, shift, strict=True))
        ms.append(plain_view(pan, pan > 0, rows, cols, sigma_of(gain, ratio))[0])
    ms = np.rint(np.stack(ms))
    valid, ms_valid = holes(pan.shape), holes(ms.shape[1:], 2)
    found = metrics.find_shifts(pan, ms, gains, grid, valid, ms_valid)
    assert found.shifts.tolist() == [list(shift) for shift in moved] and found.at_the_end
    for band, gain in enumerate(gains[: ratio // 2]):
        mean, shift = plain_shift(pan, ms[band], gain, min(gains), grid, valid, ms_valid)
        assert found.shifts[band].tolist() == list(shift)
        assert found.correlation[band] == pytest.approx(mean, rel=1e-9)


def test_a_band_unlike_pan_is_said():
    _, pan, _ = scene((1, 160, 160))
    at = np.arange(40) * 4 + 1.5
    like = plain_view(pan, pan > 0, at, at, sigma_of(0.3, 4))[0]
    other = np.random.default_rng(9).normal(500, 50, (40, 40))
    found = metrics.find_shifts(pan, np.stack([like, other]), (0.3, 0.3), corner_aligned(4))
    assert found.shifts[0].tolist() == [0, 0] and found.correlation[0] > 0.9
    assert [note for note in found.notes() if note.startswith("band 2: hardly like PAN")]


@pytest.mark.parametrize("unit", [1e-10, 1e6])
def test_units_do_not_matter(unit):
    fused, pan, ms = scene((2, 128, 128))
    for measure in (metrics.d_rho, metrics.d_sr, metrics.sharpness):
        assert measure(fused * unit, pan * unit) == pytest.approx(measure(fused, pan), rel=1e-9)
    found = [metrics.find_shifts(pan * x, ms * x, (0.3, 0.3), corner_aligned(4)) for x in (1, unit)]
    assert found[0].shifts.tolist() == found[1].shifts.tolist()
    plain, scaled = (metrics.reprojection(fused * x, ms * x, (0.3, 0.3))["R_ERGAS"] for x in (1, unit))
    assert scaled == pytest.approx(plain, rel=1e-9)


def test_shifts_of_nothing_are_none():
    flat = np.full((1, 40, 40), 7.0)
    assert metrics.find_shifts(flat[0], flat[:, :10, :10], (0.3,), corner_aligned(4)).shifts.tolist() == [[0, 0]]
    found = metrics.find_shifts(flat[0, :16, :16], flat[:, :4, :4], (0.3,), corner_aligned(4))
    assert found.shifts.tolist() == [[0, 0]] and math.isnan(found.correlation[0])


@pytest.mark.parametrize("ratio", [2, 4])
def test_reprojection_is_the_plain_one(ratio):
    fused, _, ms = scene((4, 32 * ratio, 40 * ratio), ratio)
    height, width = ms.shape[1:]
    shifts = np.array([(0.5, -1), (0, 0), (2, 2), (-0.5, 1.5)])
    valid, ms_valid = holes(fused.shape[1:]), holes(ms.shape[1:], 2)
    seen, whole = [], ms_valid.copy()
    for band, gain, (row, col) in zip(fused, GAINS, shifts, strict=True):
        at = np.arange(height) * ratio + (ratio - 1) / 2 + row, np.arange(width) * ratio + (ratio - 1) / 2 + col
        image, own = plain_view(np.where(valid, band, 0), valid, *at, sigma_of(gain, ratio))
        seen.append(image)
        whole &= own
    expected = {
        "R_Q2n": metrics.q2n(ms, np.stack(seen), whole),
        "R_ERGAS": metrics.ergas(ms, np.stack(seen), ratio, whole),
        "R_SAM": metrics.sam(ms, np.stack(seen), whole),
    }
    expected["D_lambda_align"] = 1 - expected["R_Q2n"]
    found = metrics.reprojection(fused, ms, GAINS, ratio, shifts=shifts, valid=valid, ms_valid=ms_valid)
    assert found == pytest.approx(expected, rel=1e-9, nan_ok=True)


def test_reprojection_finds_the_shifts_by_pan():
    fused, pan, _ = scene((1, 128, 128))
    at = np.arange(32) * 4 + 1.5
    ms = np.rint(plain_view(pan, pan > 0, at + 1, at - 0.5, sigma_of(0.3, 4))[0])[None]
    own = metrics.reprojection(pan[None], ms, (0.3,), pan=pan)
    assert own["R_ERGAS"] < 0.1 < metrics.reprojection(pan[None], ms, (0.3,))["R_ERGAS"]
    by_grid = GridMap(Axis(0.25, -2.5 / 4), Axis(0.25, -1.0 / 4))
    assert metrics.reprojection(pan[None], ms, (0.3,), grid=by_grid)["R_ERGAS"] == pytest.approx(own["R_ERGAS"])
    assert math.isnan(metrics.reprojection(fused[:, :32, :32], ms[:, :8, :8], (0.3,))["R_Q2n"])


@pytest.mark.parametrize("name", ["d_rho", "d_sr", "sharpness"])
def test_nodata_may_hold_anything_and_bad_images_are_refused(name):
    fused, pan, _ = scene((2, 64, 64))
    measure, valid = getattr(metrics, name), holes(pan.shape)
    spoilt = np.where(valid, fused, np.nan), np.where(valid, pan, np.inf)
    assert measure(*spoilt, valid=valid) == pytest.approx(measure(fused, pan, valid=valid))
    assert np.isnan(measure(fused, pan, valid=np.zeros(pan.shape, bool))).all()
    with pytest.raises(KsdiffError, match="fused image holds NaN"):
        measure(np.where(valid, fused, np.nan), pan)
    with pytest.raises(KsdiffError, match="must have the same height and width"):
        measure(fused, pan[:50])
