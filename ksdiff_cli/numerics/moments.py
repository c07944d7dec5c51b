"""Statistics that classical methods solve for their coefficients: joint moments and low quantiles, block by block."""

import math
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import minimum_filter

from ksdiff_cli.errors import KsdiffError
from ksdiff_cli.numerics import Array

_FLAT = 1e-7  # a deviation this small against the mean is rounding error, of the published filter taps above all
_SINGULAR = 1e-12  # directions of relatively smaller variance are rounding error, e.g. of a band that is there twice


class JointMoments:
    """Mean and covariance of several layers together, merged block by block (Chan et al. 1983)."""

    def __init__(self) -> None:
        """Start with no samples."""
        self.count = 0
        self._mean: Array = np.zeros(1)
        self._cross: Array = np.zeros((1, 1))

    def add(self, *layers: Array, where: Array) -> None:
        """Add samples.

        Args:
            layers: (H, W) or (n, H, W) each; in every call the same number of layers in the same order.
            where: (H, W) bool, pixels to count.
        """
        planes = np.concatenate([layer.reshape(-1, *where.shape) for layer in layers])
        samples = planes.reshape(len(planes), -1) if where.all() else planes[:, where]
        count = samples.shape[1]
        if count == 0:
            return
        mean = samples.mean(1)
        centred = samples - mean[:, None]
        cross = centred @ centred.T
        if self.count:
            total = self.count + count
            delta = mean - self._mean
            self._cross += cross + np.outer(delta, delta) * (self.count * count / total)
            self._mean += delta * (count / total)
            self.count = total
        else:
            self.count, self._mean, self._cross = count, mean, cross

    @property
    def mean(self) -> Array:
        """(layers,) means.

        Raises:
            KsdiffError: no samples.
        """
        self._check()
        return self._mean

    @property
    def covariance(self) -> Array:
        """(layers, layers) covariance, divided by the number of samples; exactly 0 for a constant layer.

        Raises:
            KsdiffError: no samples.
        """
        self._check()
        covariance = self._cross / self.count
        # filters leave rounding errors on a constant, and a quotient of two of them is anything
        flat = np.diag(covariance) <= (_FLAT * self._mean) ** 2
        covariance[flat] = covariance[:, flat] = 0
        return np.asarray(covariance)

    @property
    def second(self) -> Array:
        """(layers, layers) means of products, not centred.

        Raises:
            KsdiffError: no samples.
        """
        return np.asarray(self.covariance + np.outer(self.mean, self.mean))

    def _check(self) -> None:
        if self.count == 0:
            raise KsdiffError("no pixel holds data; nothing to sharpen")


class LowTail:
    """The smallest values of each band, enough of them for a low quantile of the whole scene, exact."""

    def __init__(self, share: float) -> None:
        """Start with no values.

        Args:
            share: the quantile wanted, [0, 0.5]; 0 for the minimum.
        """
        self.share = share
        self.count = 0
        self._kept: Array | None = None

    def add(self, image: Array, where: Array, scene_pixels: int) -> None:
        """Add the pixels ``where`` (H, W) of ``image`` (bands, H, W); the scene has ``scene_pixels`` in all."""
        values = image[:, where]
        self.count += values.shape[1]
        kept = values if self._kept is None else np.concatenate([self._kept, values], 1)
        most = math.ceil(self.share * scene_pixels) + 1
        if kept.shape[1] > most:
            kept = np.partition(kept, most - 1, 1)[:, :most]
        self._kept = kept

    def result(self) -> Array:
        """Return the quantile of each band by Hazen's rule (value k of n stands at (k - 1/2)/n), (bands,).

        Raises:
            KsdiffError: no values.
        """
        if self._kept is None or self.count == 0:
            raise KsdiffError("no pixel holds data; nothing to sharpen")
        ordered = np.sort(self._kept, 1)
        place = min(max(self.share * self.count - 0.5, 0.0), ordered.shape[1] - 1)
        low = math.floor(place)
        high = min(low + 1, ordered.shape[1] - 1)
        return np.asarray(ordered[:, low] + (place - low) * (ordered[:, high] - ordered[:, low]))


def solve(matrix: Array, right: Array) -> Array:
    """Solve a symmetric, positive semi-definite system; of several solutions the smallest. (n, n), (n, …) -> (n, …)."""
    return np.asarray(np.linalg.lstsq(matrix, right, rcond=_SINGULAR)[0])


def divide(above: Array, below: Array, otherwise: Array | float = 0.0) -> Array:
    """Divide element by element; ``otherwise`` where the divisor is 0. Float64 unless both are float32."""
    above, below = np.broadcast_arrays(above, below)
    out = np.array(np.broadcast_to(otherwise, above.shape), np.result_type(above, below, np.float32))
    return np.asarray(np.divide(above, below, out=out, where=below != 0))


_CHUNK = 1 << 16  # samples at a time: in float64 they stay in the processor's cache


@dataclass(frozen=True)
class SceneStatistics:
    """Mean and standard deviation of the valid pixels of PAN and of each MS band, in DN."""

    pan_mean: float
    pan_std: float
    ms_mean: Array
    """(bands,)"""
    ms_std: Array
    """(bands,)"""
    holes: bool = False
    """Whether some pixel of PAN or MS is invalid (nodata, masked, NaN)."""
    negative: float = 0.0
    """Share of values below 0 in the sum of all absolute values, of PAN or of MS, whichever has more."""


class BandMoments:
    """Streamed mean and standard deviation per band, merged block by block (Chan et al. 1983)."""

    def __init__(self, bands: int) -> None:
        """Start with no samples."""
        self.count = 0
        self.mean = np.zeros(bands)
        self.m2 = np.zeros(bands)

    def add(self, values: Array) -> None:
        """Add (bands, n) samples; sums are float64, of integers up to 16 bits exact."""
        n = values.shape[1]
        if n == 0:
            return
        # squares of distances from a value near the mean: those of the values themselves would cancel
        near = np.rint(self.mean) if self.count else np.rint(values[:, :_CHUNK].mean(1, dtype=np.float64))
        total, squares = np.zeros(len(values)), np.zeros(len(values))
        for band, samples in enumerate(values):
            for start in range(0, n, _CHUNK):
                away = np.subtract(samples[start : start + _CHUNK], near[band], dtype=np.float64)
                total[band] += away.sum()
                squares[band] += np.square(away, out=away).sum()
        mean = near + total / n
        m2 = np.maximum(squares - total**2 / n, 0)
        delta, count = mean - self.mean, self.count + n
        self.mean += delta * n / count
        self.m2 += m2 + delta**2 * self.count * n / count
        self.count = count

    def result(self) -> tuple[Array, Array]:
        """Return mean and standard deviation, (bands,) each."""
        return self.mean, np.sqrt(self.m2 / max(1, self.count))


def erode(valid: Array, reach: int) -> Array:
    """Find the pixels whose neighbours up to ``reach`` rows and columns off are all valid, (H, W) bool.

    Beyond the border a mask goes on as its outermost pixels are.
    """
    return valid if valid.all() else np.asarray(minimum_filter(valid, 2 * reach + 1, mode="nearest"))
