"""How far MS lies off PAN although their georeference says that they match: measured, judged and corrected.

Windows are spread over the scene. In each, PAN is seen through an MS camera at the exact places of the MS pixels, both
images are cut to one band of frequencies, and the lag is sought at which PAN correlates best with an intensity: the sum
of MS bands that resembles PAN most. What was found is applied and measured again until nothing is left, so that neither
aliasing nor the windows' borders bias the result; the windows then vote.

Where they tell of a shift that varies over the scene, a smooth field is laid through their votes. To correct by it,
more windows are asked, and asked again with MS resampled by what was found.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import compress

import numpy as np
import rasterio
from scipy import fft
from scipy.optimize import nnls

from ksdiff_cli.errors import KsdiffError
from ksdiff_cli.numerics import Array
from ksdiff_cli.numerics.shift_field import Fit, ShiftField, fit_field
from ksdiff_cli.progress import ProgressCallback, silent
from ksdiff_cli.raster.nodata import hint_fill
from ksdiff_cli.raster.open import BLOCK_CACHE
from ksdiff_cli.raster.pair import Scene, ScenePair, open_pair
from ksdiff_cli.raster.registration_windows import MANY, RANGE, CompareWindow, read_windows
from ksdiff_cli.raster.sensor_model import AGREE, Laid

WARNING = 0.3
"""MS pixels of shift above which a person is told."""
LIMIT = 1.0
"""MS pixels of shift above which work is refused: edges would be painted beside themselves."""

_PASSES = 6
_TURNS = 4  # of a field, at most, and what of its error a turn may leave to be worth it
_GAINS = 0.9
_DONE = 0.005  # MS pixels; a smaller step ends the passes
# PAN of one scene laid on MS of another, 8000 windows of 20 to 64 pixels, real and random: the best correlation is up
# to 6 times what chance makes of such spectra, once 7; of matching windows of 64 pixels it is 9 to 23, of 24 pixels 4
# to 10
_CLEAR = 1.3  # the best correlation over that of any lag away from it, for a vote
_HEARD = 4.0  # the best correlation over that by chance, for a vote
_STRONG = 7.0  # the same for a vote that counts even where fewer than three windows agree
_AGREE = 0.5  # MS pixels around the median within which a window agrees


@dataclass(frozen=True)
class Registration:
    """How far MS shows the ground further down and right than its georeference says."""

    rows: float
    """MS pixels; NaN if it cannot be measured."""
    cols: float
    """MS pixels; NaN if it cannot be measured."""
    windows: int
    """Windows that agree."""
    spread: float
    """Robust deviation between windows, MS pixels; 0 with one window."""
    reliable: bool
    """Whether the windows' vote can be trusted."""
    field: ShiftField | None = None
    """The shift by place, where it reliably varies over the scene."""

    def magnitude(self) -> float:
        """Return the length of the shift, MS pixels; NaN if it cannot be measured."""
        return math.hypot(self.rows, self.cols)

    def __str__(self) -> str:
        """Return the shift for people, e.g. ``(+0.28, -0.12)``: rows, columns."""
        return f"({self.rows:+.2f}, {self.cols:+.2f})"


@dataclass(frozen=True)
class _Vote:
    """The best lag of one window."""

    shift: tuple[float, float]
    weight: float
    """Information on the lag: -log(1 - correlation²)."""
    place: tuple[float, float]
    """Row and column of the window's middle, MS pixels."""
    strong: bool
    """Whether the peak stands out so far that it counts on its own."""


_UNKNOWN = Registration(math.nan, math.nan, 0, 0.0, reliable=False)


def check_registration(scene: Scene, *, correct: bool, progress: ProgressCallback = silent) -> tuple[Scene, list[str]]:
    """Measure a scene's shift before work begins: tell of it, refuse it, or correct it.

    In sensor geometry, where RPCs or world files alone lay PAN and MS on each other, a reliable shift of more than
    :data:`ksdiff_cli.raster.sensor_model.AGREE` is always corrected: no such source is as exact as the images.

    Args:
        scene: as a product reader found it.
        correct: take the shift out, however large; by a field where it varies over the scene.
        progress: told the windows read.

    Returns:
        The scene to go on with, and notes for people.

    Raises:
        KsdiffError: MS lies more than :data:`LIMIT` pixels off PAN and is not to be corrected, or the files cannot be
            read or do not fit each other.
    """
    found, laid = _measure(scene, progress)
    if correct and found.field is not None and (done := _by_field(scene, found.field, progress)):
        return done
    if correct and not found.reliable:
        return scene, ["PAN/MS shift: it cannot be measured on this scene, so nothing was corrected"]
    if correct:
        corrected, rest = _corrected(scene, found, progress)
        return corrected, [f"PAN/MS shift: {found} MS pixels (rows, columns) corrected, {rest}"]
    varies = "" if found.field is None else f"{found.field} MS pixels, as it varies over the scene"
    if laid is not None:
        settled, said = _settle(scene, found, laid, progress)
        return settled, [*said, *([f"PAN/MS shift: {varies}; --register corrects it"] if varies else [])]
    large, told = found.magnitude() if found.reliable else 0.0, varies or f"{found} MS pixels (rows, columns)"
    if found.field is not None:
        large = max(large, found.field.rms())  # as one number it may well be 0, or none that windows agree on
    elif large <= WARNING:
        return scene, []
    if large > LIMIT:
        with open_pair(scene) as pair:
            fill = hint_fill(pair)
        raise KsdiffError(
            f"{scene.ms[0].path}: MS lies {told}{'' if found.field is None else ','} off PAN {scene.pan.path}{fill}; "
            "correct that with --register, or keep it with --no-registration-check"
        )
    return scene, [f"PAN/MS shift: {told}; --register corrects it"]


def _by_field(scene: Scene, first: ShiftField, progress: ProgressCallback) -> tuple[Scene, list[str]] | None:
    """Correct a shift that varies; None where more windows do not bear out what the first ones said."""
    middle = first.at(*(np.array([sum(ends) / 2]) for ends in (first.area[:2], first.area[2:])))
    base = round(float(middle[0][0]), 3), round(float(middle[1][0]), 3)
    moved = replace(scene, shift=(scene.shift[0] + base[0], scene.shift[1] + base[1]), field=first.less(base))
    best, rest, agreeing = moved, math.inf, 0
    for _ in range(_TURNS):
        with rasterio.Env(GDAL_CACHEMAX=BLOCK_CACHE), open_pair(moved) as pair:
            votes = _vote(read_windows(pair, progress, MANY), (0.0, 0.0))
            fit = _fit(votes, pair.ms_shape, moved.field)
        if fit is None or not fit.reliable:
            return None
        left = math.sqrt(float(np.mean([math.hypot(*vote.shift) ** 2 for vote in compress(votes, fit.agreeing)])))
        if left > _GAINS * rest:
            break
        best, rest, agreeing = moved, left, int(fit.agreeing.sum())
        moved = replace(moved, field=fit.field)
    assert best.field is not None
    return best, [
        f"PAN/MS shift: {best.field.say(base)} MS pixels, as it varies over the scene, corrected by a smooth field of "
        f"order {best.field.order} from {agreeing} windows, {rest:.2f} remain (RMS)"
    ]


def _fit(votes: Sequence[_Vote], ms_shape: tuple[int, int], known: ShiftField | None = None) -> Fit | None:
    """Lay a field through votes; what a known one took out already is added again."""
    if not votes:
        return None
    shifts, seen = np.array([vote.shift for vote in votes]), np.array([vote.place for vote in votes])
    # a window shows the ground that the grid puts where it is less its shift
    places = seen - shifts
    if known is not None:
        shifts = shifts + np.stack(known.at(seen[:, 0], seen[:, 1]), 1)
    return fit_field(places, shifts, np.array([vote.weight for vote in votes]), ms_shape)


def _corrected(scene: Scene, found: Registration, progress: ProgressCallback) -> tuple[Scene, str]:
    """Take a shift out; say what is left of it."""
    corrected = replace(scene, shift=(scene.shift[0] + found.rows, scene.shift[1] + found.cols))
    left, _ = _measure(corrected, progress)
    return corrected, f"{left} remain" if left.reliable else "what remains cannot be measured"


def _settle(scene: Scene, found: Registration, laid: Laid, progress: ProgressCallback) -> tuple[Scene, list[str]]:
    """Let the images decide where they contradict what lays them on each other in sensor geometry."""
    source = laid.by.partition(" at ")[0]
    said = ""
    if laid.others is not None:
        rows, cols = laid.others
        said = f"the world files put MS ({rows:+.2f}, {cols:+.2f}) MS pixels (rows, columns) off what the RPCs say"
    if not found.reliable:
        return scene, [f"PAN/MS shift: {said}; it cannot be measured, so the RPCs are taken"] if said else []
    if found.magnitude() <= AGREE:
        return scene, [f"PAN/MS shift: {said}; the images agree with the RPCs"] if said else []
    corrected, rest = _corrected(scene, found, progress)
    more = f"{said}; " if said else ""
    return corrected, [
        f"PAN/MS shift: {more}the images lie {found} MS pixels (rows, columns) off what the {source} say, and decide: "
        f"corrected, {rest}"
    ]


def _measure(scene: Scene, progress: ProgressCallback) -> tuple[Registration, Laid | None]:
    with rasterio.Env(GDAL_CACHEMAX=BLOCK_CACHE), open_pair(scene) as pair:
        return measure_shift(pair, progress), pair.laid


def measure_shift(pair: ScenePair, progress: ProgressCallback = silent) -> Registration:
    """Measure how far MS lies off PAN, beyond what the pair's grid already knows.

    Shifts of up to about 8 MS pixels are found; the cost is bounded by the number of windows, not by the scene.

    Args:
        pair: the open scene.
        progress: told the windows read.

    Returns:
        The shift. It is not reliable where too few windows show PAN and MS alike: tiny, flat, periodic or unrelated
        images; and as one number for all of the scene it need not be where it varies.

    Raises:
        KsdiffError: a file is damaged.
    """
    windows = read_windows(pair, progress)
    shift, votes = _start(windows), list[_Vote]()
    for _ in range(_PASSES):
        votes = _vote(windows, shift)
        if not votes:
            return _UNKNOWN
        before, shift = shift, _consensus(votes)[0]
        if max(abs(shift[0] - before[0]), abs(shift[1] - before[1])) < _DONE:
            break
    shift, agreeing, spread = _consensus(votes)
    enough = agreeing >= 3 or all(vote.strong for vote in votes)
    reliable = enough and 2 * agreeing > len(votes) and max(map(abs, shift)) <= RANGE
    fit = _fit(votes, pair.ms_shape)
    field = fit.field if fit is not None and fit.reliable else None
    return Registration(shift[0], shift[1], agreeing, spread, reliable, field)


def _consensus(votes: Sequence[_Vote]) -> tuple[tuple[float, float], int, float]:
    """Mean of the votes near their weighted median, how many agree, and their robust deviation."""
    shifts = np.array([vote.shift for vote in votes])
    weights = np.array([vote.weight for vote in votes])
    centre = np.array([_median(axis, weights) for axis in shifts.T])
    away = np.hypot(*(shifts - centre).T)
    spread = 1.4826 * _median(away, weights)
    near = away <= min(_AGREE, max(0.05, 2 * spread))
    if near.any():
        centre = (shifts[near] * weights[near, None]).sum(0) / weights[near].sum()
    return (float(centre[0]), float(centre[1])), int((away <= _AGREE).sum()), spread


def _median(values: Array, weights: Array) -> float:
    order = np.argsort(values, kind="stable")
    total = np.cumsum(weights[order])
    return float(values[order][np.searchsorted(total, total[-1] / 2)])


def _start(windows: Sequence[CompareWindow]) -> tuple[float, float]:
    """Integer lag at which all windows and bands together tell most; no lag if they tell nothing.

    Bands count by the square of their correlation: a band whose contrast is inverted tells as much.
    """
    total = np.zeros((2 * RANGE + 1, 2 * RANGE + 1))
    for window in windows:
        fields = window.fields((0.0, 0.0))
        if fields is None:
            continue
        for band in fields[1]:
            spectrum = _cross_spectrum(fields[0], band)
            if spectrum is not None:
                total -= np.log1p(-np.minimum(_lags(spectrum) ** 2, 0.999))
    if not total.any():
        return 0.0, 0.0
    row, col = np.unravel_index(total.argmax(), total.shape)
    return float(row - RANGE), float(col - RANGE)


def _vote(windows: Sequence[CompareWindow], shift: tuple[float, float]) -> list[_Vote]:
    """Ask every window how far MS lies off PAN, starting from ``shift``; windows without a clear answer abstain."""
    asked = [(window.fields(shift), window.place) for window in windows]
    fields = [found for found, _ in asked if found is not None and found[0].any()]
    places = [place for found, place in asked if found is not None and found[0].any()]
    if not fields:
        return []
    weights = _intensity(fields)
    votes = []
    for (pan, ms), place in zip(fields, places, strict=True):
        spectrum = _cross_spectrum(pan, np.tensordot(weights, ms, 1))
        vote = None if spectrum is None else _peak(spectrum, shift, int(np.count_nonzero(pan)), place)
        if vote is not None:
            votes.append(vote)
    return votes


def _intensity(fields: Sequence[tuple[Array, Array]]) -> Array:
    """Weights (bands,) of the sum of bands that resembles PAN most over all windows.

    No band's weight opposes its own correlation with PAN: the difference of two bands that lie beside each other is a
    derivative, and would fit PAN at any lag.
    """
    bands = len(fields[0][1])
    gram, like = np.zeros((bands, bands)), np.zeros(bands)
    for pan, ms in fields:
        flat, energy = ms.reshape(bands, -1), (pan**2).sum()
        gram += flat @ flat.T / energy
        like += flat @ pan.ravel() / energy
    scale = np.sqrt(np.diag(gram))
    scale[scale == 0] = np.inf  # a constant band
    signed = scale * np.where(like < 0, -1, 1)
    gram, like = gram / np.outer(signed, signed), like / signed
    root = np.linalg.cholesky(gram + 1e-3 * np.eye(bands))
    weights, _ = nnls(root.T, np.linalg.solve(root, like))
    return np.asarray(weights / signed)


def _cross_spectrum(pan: Array, image: Array) -> Array | None:
    """Cross spectrum whose inverse is the correlation by lag, 1 at most; None if one of them is empty."""
    energy = (pan**2).sum() * (image**2).sum()
    if energy <= 0:
        return None
    shape = [fft.next_fast_len(size + 2 * RANGE) for size in pan.shape]
    return np.asarray(fft.fft2(image, shape) * np.conj(fft.fft2(pan, shape)) / math.sqrt(energy))


def _lags(spectrum: Array) -> Array:
    """Correlation at the integer lags up to the range, (2 RANGE + 1, 2 RANGE + 1); lag 0 in the middle."""
    side = 2 * RANGE + 1
    return np.asarray(np.roll(fft.ifft2(spectrum).real, (RANGE, RANGE), (0, 1))[:side, :side])


def _peak(spectrum: Array, shift: tuple[float, float], pixels: int, place: tuple[float, float]) -> _Vote | None:
    """Find the best lag of ``pixels`` pixels to a fraction of a pixel; None where no single lag stands out."""
    lags = _lags(spectrum)
    row, col = np.unravel_index(lags.argmax(), lags.shape)
    if {int(row), int(col)} & {0, 2 * RANGE}:
        return None
    there = np.arange(2 * RANGE + 1)
    away = np.abs(lags)[np.maximum(np.abs(there[:, None] - row), np.abs(there - col)) > 2]
    best = float(lags[row, col])
    # unrelated images of these spectra correlate at any lag with this deviation (Bartlett 1946); the taper leaves
    # about 0.6 of the pixels
    chance = math.sqrt((np.abs(spectrum) ** 2).mean() / (0.6 * pixels))
    if best < max(_CLEAR * away.max(), _HEARD * chance):
        return None
    at = float(row - RANGE), float(col - RANGE)
    for half, step in ((8, 0.125), (3, 0.04)):
        at = _climb(spectrum, at, half, step)
    weight = -math.log1p(-min(best**2, 0.999))
    return _Vote((shift[0] + at[0], shift[1] + at[1]), weight, place, strong=best > _STRONG * chance)


def _climb(spectrum: Array, at: tuple[float, float], half: int, step: float) -> tuple[float, float]:
    """Refine a peak: the correlation on a finer raster of lags around it, by its Fourier series, and a parabola."""
    offsets = np.arange(-half, half + 1) * step
    waves = [
        np.exp(2j * np.pi * np.outer(start + offsets, fft.fftfreq(size)))
        for start, size in zip(at, spectrum.shape, strict=True)
    ]
    lags = (waves[0] @ spectrum @ waves[1].T).real
    row, col = (int(index) + 1 for index in np.unravel_index(lags[1:-1, 1:-1].argmax(), (2 * half - 1,) * 2))
    return (
        at[0] + float(offsets[row]) + step * _vertex(*lags[row - 1 : row + 2, col]),
        at[1] + float(offsets[col]) + step * _vertex(*lags[row, col - 1 : col + 2]),
    )


def _vertex(before: float, peak: float, after: float) -> float:
    """Where the parabola through three neighbours peaks, in steps from the middle one, -1 to 1."""
    bend = before - 2 * peak + after
    return 0.0 if bend >= 0 else float(np.clip((before - after) / (2 * bend), -1, 1))
