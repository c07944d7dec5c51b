"""The cameras of a scene, found in the scene itself: how sharp MS is against PAN, and how PAN mixes its bands.

The MS camera is modelled as a Gaussian whose MTF is ``gain`` at the MS Nyquist frequency, followed by what ground
segments call MTF compensation: y + ``compensation`` (y - blur(y)), the blur of .8 MS pixels. PAN seen through the true
camera at the MS pixels is a mix of the MS bands: over all cameras, the R² of PAN's regression on the bands peaks at the
true one. MS's noise lowers the peak and does not move it. What PAN shows and no band does moves it little once slow
variations are left out, because colours change slowly and sharpness is in the details.

This is semi-blind estimation as in Vivone et al., "Pansharpening based on semiblind deconvolution", IEEE TGRS 2015, and
Simoes et al., "A convex formulation for hyperspectral image superresolution via subspace-based regularization", IEEE
TGRS 2015, with a compensated camera.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.ndimage import gaussian_filter
from threadpoolctl import threadpool_limits

from ksdiff_cli.errors import KsdiffError
from ksdiff_cli.numerics import Array
from ksdiff_cli.numerics.boxes import Box
from ksdiff_cli.numerics.camera_views import (
    FARTHEST,
    SHARPEST,
    SOFTENING,
    SOFTEST,
    Eye,
    ProductSums,
    Shift,
    View,
    deviation,
    mixture,
    view_boxes,
)
from ksdiff_cli.numerics.grids import GridMap, corner_aligned

__all__ = ["Kernel", "SceneCamera", "View", "camera_kernel", "estimate_camera", "fit_camera", "view_boxes"]


STRONGEST = 4.0
"""Largest compensation that is looked for."""

_FEWEST = 300  # MS pixels
_FEW = 20  # of them, where a band is PAN itself as the table's camera sees it
_EXPLAINED = 0.6  # of the variance of PAN's details, for a camera to be believed
_GAIN_UNSURE, _COMPENSATION_UNSURE = 0.08, 0.6  # deviations above which nothing was found
_PASSES = 8  # of the search for the shift
_DONE = 0.01  # MS pixels; a smaller step ends the passes: what is left is of its square
_FINEST = 1e-4  # of the gain, when the search for it ends
_SINGULAR = 1e-9  # directions of relatively smaller variance are rounding error, e.g. of a band that is there twice
# how far the peak lies off for PAN's details that no band explains, a share of 1 of them: simulated cameras
_GAIN_ASIDE, _COMPENSATION_ASIDE = 0.15, 2.5
_GAIN_FLOOR, _COMPENSATION_FLOOR = 0.003, 0.005  # what is left where all is explained: sampling, interpolation


@dataclass(frozen=True)
class SceneCamera:
    """How a scene's MS was seen, against its PAN, and how PAN mixes the MS bands."""

    gain: float
    """MTF of the Gaussian at the MS Nyquist frequency, (0, 1); where not reliable, the mean of the sensor's table."""
    compensation: float
    """Strength of the compensation after it, 0 or more; 0 where not reliable."""
    gain_std: float
    """Standard deviation of the gain: between parts of the scene, and what PAN's unexplained share may do to it."""
    compensation_std: float
    """The same of the compensation."""
    shift: Shift
    """MS rows and columns by which MS shows the ground further down and right than the grid says; 0 where not
    reliable."""
    r2: float
    """Share of the variance of PAN, seen through this camera, that the MS bands explain, 0 to 1."""
    r2_details: float
    """The same without what varies slowly: what the camera is found by."""
    weights: tuple[float, ...]
    """One per MS band: PAN ≈ sum of weights * bands + offset, DN of PAN per DN of MS."""
    offset: float
    """See above, DN of PAN."""
    injection: tuple[float, ...]
    """One per MS band: its DN per DN of PAN that the mix lacks, cov w / (w' cov w); 0 where nothing is known."""
    reliable: bool
    """Whether gain, compensation and shift are found in the scene; else they are a table's."""
    reason: str = ""
    """Why it is not reliable, for people; empty where it is."""

    def __str__(self) -> str:
        """Say it in one line."""
        if not self.reliable:
            return f"MS gain {self.gain:.2f} at Nyquist, from the sensor's table ({self.reason})"
        return (
            f"MS gain {self.gain:.2f} ± {self.gain_std:.2f} at Nyquist, compensation {self.compensation:.1f} ± "
            f"{self.compensation_std:.1f} (found in the scene; MS explains {100 * self.r2:.1f} % of PAN)"
        )

    def gains(self, table: Sequence[float]) -> tuple[float, ...]:
        """Return a gain for each band: together they are this camera's, and differ as those of a sensor's table do.

        What a scene tells of single bands is less than what noise makes of it, because bands resemble each other.

        Args:
            table: the sensor's gains at the MS Nyquist frequency, by band.
        """
        power = math.log(self.gain) / (sum(map(math.log, table)) / len(table))
        return tuple(gain**power for gain in table)

    def kernels(self, table: Sequence[float]) -> "tuple[Kernel, ...]":
        """Return the camera of each band, see :meth:`gains` and :func:`camera_kernel`."""
        return tuple(camera_kernel(gain, self.compensation) for gain in self.gains(table))


Kernel = tuple[tuple[float, float], ...]
"""A camera as the Gaussians that it is the sum of: (weight, deviation in MS pixels) of each; the weights sum to 1."""


def camera_kernel(gain: float, compensation: float = 0.0) -> Kernel:
    """Return a camera as one Gaussian, or two where it compensates.

    Args:
        gain: MTF of the Gaussian at the MS Nyquist frequency, (0, 1).
        compensation: k of y + k (y - blur(y)), 0 or more.
    """
    sigma = deviation(gain)
    if compensation == 0:
        return ((1.0, sigma),)
    return (1 + compensation, sigma), (-compensation, math.hypot(sigma, SOFTENING))


def estimate_camera(
    pan: Array,
    ms: Array,
    grid: GridMap | float,
    *,
    pan_valid: Array | None = None,
    ms_valid: Array | None = None,
    table_gains: Sequence[float] = (0.3,),
) -> SceneCamera:
    """Find the cameras of a scene in memory.

    Args:
        pan: (H, W) or (1, H, W), DN of any type and scale.
        ms: (bands, h, w), DN, any number of bands.
        grid: the map from PAN's pixels to those of MS; or the ratio, 1.5 or more, of two grids that share their upper
            left corner.
        pan_valid: (H, W) bool; None for all.
        ms_valid: (h, w) bool; None for all.
        table_gains: the sensor's MTF gains at the MS Nyquist frequency, for a scene that does not tell.

    Returns:
        The camera; its cost is bounded, for of a large scene only some parts are looked at.

    Raises:
        KsdiffError: the shapes do not fit.
    """
    plane = pan[0] if pan.ndim == 3 else pan
    pan_valid = np.ones(plane.shape, bool) if pan_valid is None else pan_valid
    ms_valid = np.ones(ms.shape[1:], bool) if ms_valid is None else ms_valid
    if plane.ndim != 2 or ms.ndim != 3 or pan_valid.shape != plane.shape or ms_valid.shape != ms.shape[1:]:
        raise KsdiffError(
            f"PAN {pan.shape}, MS {ms.shape} and their masks {pan_valid.shape}, {ms_valid.shape} do not fit each other"
        )
    where = grid if isinstance(grid, GridMap) else corner_aligned(grid)
    views = []
    for over, under in view_boxes(where, plane.shape, ms.shape[1:]):
        coarse, fine = (box.within(Box(0, 0, box.bottom, box.right)) for box in (over, under))
        views.append(
            View(
                np.asarray(plane[fine], np.float32),
                pan_valid[fine] & np.isfinite(plane[fine]),
                np.asarray(ms[:, *coarse], np.float32),
                ms_valid[coarse] & np.isfinite(ms[:, *coarse]).all(0),
                where.shifted(under.top, under.left).moved(-over.top, -over.left),
            )
        )
    return fit_camera(views, len(ms), table_gains)


def fit_camera(
    views: Sequence[View], bands: int, table_gains: Sequence[float], *, companion: bool = False
) -> SceneCamera:
    """Find the cameras that a scene's views tell of.

    Args:
        views: of the scene, see :func:`view_boxes`; perhaps none.
        bands: number of MS bands.
        table_gains: see :func:`estimate_camera`.
        companion: one band is PAN as the table's camera sees it, so a few pixels tell how PAN mixes the bands.
    """
    table = float(np.mean(table_gains))
    unknown = SceneCamera(table, 0.0, 1.0, STRONGEST, (0.0, 0.0), 0.0, 0.0, (0.0,) * bands, 0.0, (0.0,) * bands, False)
    views = [view for view in views if view.pan_valid.any() and view.ms_valid.any()]
    if not views:
        return replace(unknown, reason="too few valid pixels")
    # thousands of small products: several threads of BLAS only wait for each other, for seconds on a busy machine
    with threadpool_limits(limits=1, user_api="blas"):
        return _fit(Eye(views), bands, unknown, _FEW if companion else _FEWEST)


def _fit(eye: Eye, bands: int, unknown: SceneCamera, few: int) -> SceneCamera:
    unknown = replace(unknown, offset=_significant(eye.pan_mean))
    shift, settled = _find_shift(eye)
    moments = eye.moments(shift)
    high = _Regression(moments.high.sum(0), bands)
    if high.count < _FEWEST:
        few_known = replace(unknown, reason="too few valid pixels")
        return few_known if high.count < few else _mix(few_known, eye, bands, eye.moments(unknown.shift))
    if not high.varies:
        return replace(unknown, reason="PAN or MS is flat")
    (gain, compensation), r2 = high.peak()
    spread = _jackknife(moments.high, bands)
    gain_std = math.hypot(spread[0], _GAIN_ASIDE * (1 - r2), _GAIN_FLOOR)
    compensation_std = math.hypot(spread[1], _COMPENSATION_ASIDE * (1 - r2), _COMPENSATION_FLOOR)
    found = replace(
        unknown,
        gain=round(gain, 4),
        compensation=round(compensation, 3),
        gain_std=round(gain_std, 4),
        compensation_std=round(compensation_std, 3),
        shift=(round(shift[0], 3), round(shift[1], 3)),
        r2_details=round(r2, 5),
        reliable=True,
    )
    if reason := _doubt(found, settled=settled):
        found = replace(unknown, r2_details=found.r2_details, reason=reason)
        moments = eye.moments(found.shift)
    return _mix(found, eye, bands, moments)


def _mix(found: SceneCamera, eye: Eye, bands: int, moments: ProductSums) -> SceneCamera:
    """Return a camera with how PAN, seen through it, mixes the bands."""
    weights, constant, r2, injection = _Regression(moments.raw.sum(0), bands).mix(found.gain, found.compensation)
    offset = eye.pan_mean + constant - float(weights @ eye.ms_mean)
    # rounded, all of it: what a library's next version adds up in another order must not change a scene's pixels
    own, follow = (tuple(_significant(value) for value in values) for values in (weights, injection))
    return replace(found, r2=round(r2, 5), weights=own, offset=_significant(offset), injection=follow)


def _significant(value: float) -> float:
    return float(f"{value:.6g}")


def _doubt(found: SceneCamera, *, settled: bool) -> str:
    """Say why a camera is not to be believed; nothing if it is."""
    if found.r2_details < _EXPLAINED:
        return f"MS explains {max(0.0, 100 * found.r2_details):.0f} % of PAN's details"
    if not settled:
        return "the shift of MS against PAN is not found"
    if found.gain <= SOFTEST + 0.001 or found.gain >= SHARPEST - 0.005 or found.compensation >= STRONGEST - 0.02:
        return "no camera in the range that is looked at fits"
    if found.gain_std > _GAIN_UNSURE or found.compensation_std > _COMPENSATION_UNSURE:
        return f"gain ± {found.gain_std:.2f}, compensation ± {found.compensation_std:.1f} are too unsure"
    return ""


def _find_shift(eye: Eye) -> tuple[Shift, bool]:
    """Return the shift of MS, and whether its search ended.

    PAN at shifted places is a mix of the bands too, and its change with the shift tells how far to go. Any symmetric
    camera will do, a soft one to begin with: it sees furthest.
    """
    shift = (0.0, 0.0)
    for number in range(_PASSES):
        sums = eye.shift_moments(shift, SOFTENING if number == 0 else SOFTENING / 1.5)
        bands = len(sums) - 3
        known = [*range(bands), bands + 1, bands + 2]
        step = -_solve(sums[np.ix_(known, known)], sums[known, bands])[bands:]
        step = np.clip(step, -0.7, 0.7)
        shift = (shift[0] + float(step[0]), shift[1] + float(step[1]))
        if max(map(abs, shift)) > FARTHEST:
            return (0.0, 0.0), False
        if np.abs(step).max() < _DONE:
            return shift, True
    return shift, bool(np.abs(step).max() < 10 * _DONE)


class _Regression:
    """PAN through any camera, regressed on the MS bands, from joint moments."""

    def __init__(self, sums: Array, bands: int) -> None:
        """Take the sums of products of a constant, the bands and the layers, (n, n)."""
        self.count = float(sums[0, 0])
        self._mean = sums[0] / max(self.count, 1)
        covariance = sums / max(self.count, 1) - np.outer(self._mean, self._mean)
        self._bands = np.s_[1 : 1 + bands]
        layers = np.s_[1 + bands :]
        self._cross = covariance[self._bands, layers]
        self._energy = covariance[layers, layers]
        self.varies = bool(np.diag(self._energy).min() > 0 and np.abs(self._cross).max() > 0)
        self._own = covariance[self._bands, self._bands]
        self._slopes = _solve(covariance[self._bands, self._bands], self._cross)
        self._explained = self._cross.T @ self._slopes
        self._both = np.stack([self._explained, self._energy])

    def r2(self, gains: Array, compensations: Array) -> Array:
        """Return the share of PAN's variance that the bands explain, for a net of cameras, (gains, compensations)."""
        # of (1 + c) x once - c x twice: what the two Gaussians of each gain say serves all compensations
        both, count = _gaussians(gains), len(gains)
        seen = both @ self._both
        own, across = (seen * both).sum(-1)[..., None], (seen[:, :count] * both[count:]).sum(-1)[..., None]
        more = 1 + compensations
        explained, energy = (
            more**2 * own[:, :count] - 2 * more * compensations * across + compensations**2 * own[:, count:]
        )
        return np.asarray(explained / energy)

    def peak(self) -> tuple[tuple[float, float], float]:
        """Return the gain and the compensation with the largest R², and that."""
        step = np.array([0.02, 0.1])
        best, value = self._best(np.arange(SOFTEST, SHARPEST, step[0]), np.arange(0, STRONGEST, step[1]))
        while step[0] > _FINEST:
            before = best
            best, value = self._best(*(best[:, None] + step[:, None] * np.arange(-6, 7)))
            # a ridge may lead far: the net is drawn tighter only once it holds the peak
            if (np.abs(best - before) < 4 * step).all():
                step = step / 3
        return (float(best[0]), float(best[1])), value

    def _best(self, gains: Array, compensations: Array) -> tuple[Array, float]:
        """Return the best of a net of cameras, (2,), and its R²."""
        gains, compensations = np.clip(gains, SOFTEST, SHARPEST), np.clip(compensations, 0, STRONGEST)
        values = self.r2(gains, compensations)
        gain, compensation = np.unravel_index(values.argmax(), values.shape)
        return np.array([gains[gain], compensations[compensation]]), float(values[gain, compensation])

    def mix(self, gain: float, compensation: float) -> tuple[Array, float, float, Array]:
        """Return the bands' weights, the constant, R² and the bands' injection for one camera."""
        once, twice = _gaussians(np.array([gain]))
        layers = (1 + compensation) * once - compensation * twice
        weights = self._slopes @ layers
        pan_mean = float(self._mean[len(self._mean) - len(layers) :] @ layers)
        constant = pan_mean - float(weights @ self._mean[self._bands])
        energy = float(layers @ self._energy @ layers)
        r2 = float(layers @ self._explained @ layers) / energy if energy > 0 else 0.0
        shared = self._own @ weights
        explained = float(weights @ shared)
        return weights, constant, r2, shared / explained if explained > 0 else 0 * shared


def _gaussians(gains: Array) -> Array:
    """Return the weights (2 n, layers) of cameras' Gaussians, then of the wider ones that compensation takes away."""
    variances = -2 * np.log(gains) / math.pi**2
    return mixture(np.concatenate([variances, variances + SOFTENING**2]))


def _jackknife(groups: Array, bands: int) -> tuple[float, float]:
    """Return the deviations of gain and compensation, from how they change without each group of the scene's parts."""
    total = groups.sum(0)
    filled = [group for group in groups if group[0, 0] > 0]
    if len(filled) < 3:
        return 1.0, STRONGEST
    peaks = np.array([_Regression(total - group, bands).peak()[0] for group in filled])
    spread = np.sqrt((len(filled) - 1) * peaks.var(0))
    return float(spread[0]), float(spread[1])


def _solve(matrix: Array, right: Array) -> Array:
    """Solve a symmetric, positive semi-definite system of any units; of several solutions the smallest."""
    scale = np.sqrt(np.maximum(np.diag(matrix), 0))
    scale = np.where(scale > 0, scale, 1.0)
    solved = np.linalg.lstsq(matrix / np.outer(scale, scale), (right.T / scale).T, rcond=_SINGULAR)[0]
    return np.asarray((solved.T / scale).T)


_SIGMA, _REACH = 0.9, 4  # PAN pixels: deviation of the blur of :func:`resharpen`, and what it looks at on each side
_SHARPNESSES, _HALVINGS = (-1.2, 2.4), 6  # that are looked at


def resharpen(pan: Array, sharpness: float) -> Array:
    """Return PAN sharper or softer: P + s (P - blur(P)); borders replicated.

    Args:
        pan: (H, W), any unit.
        sharpness: s; 0 leaves PAN as it is, -1 is the blurred PAN.
    """
    if not sharpness:
        return pan
    blurred = gaussian_filter(pan, _SIGMA, mode="nearest", radius=_REACH)
    return np.asarray(pan + np.float32(sharpness) * (pan - blurred), np.float32)


def implied_sharpness(views: Sequence[View], bands: int, gains: Sequence[float]) -> float:
    """Return the sharpness, relative to PAN, of the image that MS was made from by a known camera.

    In Wald's protocol MS is the truth through the sensor's MTF, and the truth is an image that was delivered as MS: it
    is softer than the reduced PAN or, where the ground segment compensated it, sharper. The camera that is found
    against PAN is the known one where PAN is as sharp as the truth.

    Args:
        views: PAN and MS.
        bands: of MS.
        gains: MTF gains that MS was made with; their mean is taken.

    Returns:
        See :func:`resharpen`; 0 where the views do not tell.
    """
    wanted, (low, high) = float(np.mean(gains)), _SHARPNESSES

    def gain(sharpness: float) -> float:
        looked = [replace(view, pan=resharpen(view.pan, sharpness)) for view in views]
        found = fit_camera(looked, bands, gains)
        return found.gain if found.reliable else math.nan

    if not gain(0.0) > 0:
        return 0.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if gain(middle) > wanted:  # the sharper PAN is, the softer MS looks beside it
            low = middle
        else:
            high = middle
    return round((low + high) / 2, 3)
