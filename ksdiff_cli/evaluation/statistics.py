"""Whether one method is better than another, and by how much: differences image by image, with their uncertainty."""

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ksdiff_cli.metrics import merit
from ksdiff_cli.numerics import Array
from ksdiff_cli.report.table import mean_of

_SAMPLES, _AT_ONCE = 10_000, 1 << 22  # of the bootstrap; values drawn at a time
_LEVEL = 95
"""Percent of the bootstrap's means that the interval holds."""


@dataclass(frozen=True)
class Difference:
    """One method's values less another's, of the images for which both are finite."""

    other: str
    """The method compared with."""
    images: int
    mean: float
    low: float
    """Lower end of the bootstrap's 95 % interval of the mean (percentiles of 10000 resamplings of the images)."""
    high: float
    p: float
    """Of Wilcoxon's signed-rank test, two-sided; not corrected for the number of comparisons."""

    def lines(self) -> list[str]:
        """Return it for people: ``-0.0123``, ``-0.0200 … -0.0050``, ``p 0.002, gsa``."""
        return [f"{self.mean:+.4f}", f"{self.low:+.4f} … {self.high:+.4f}", f"p {self.p:.2g}, {self.other}"]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {
            "other": self.other,
            "images": self.images,
            "mean": self.mean,
            "low": self.low,
            "high": self.high,
            "p": self.p,
        }


def compare(values: Mapping[str, Mapping[str, Sequence[float]]]) -> dict[str, dict[str, Difference]]:
    """Compare each method with the best other one, metric by metric.

    Args:
        values: method -> metric -> one value an image, NaN where undefined.

    Returns:
        Method -> metric -> difference to the method whose mean is best among the others; without an entry where no two
        images can be compared.
    """
    found: dict[str, dict[str, Difference]] = {name: {} for name in values}
    for metric in next(iter(values.values()), {}):
        merits = {name: merit(metric, mean_of(each[metric])) for name, each in values.items()}
        known = sorted((name for name in merits if not math.isnan(merits[name])), key=merits.__getitem__, reverse=True)
        for name in values:
            best = next((other for other in known if other != name), None)
            pairs = [] if best is None else [values[name][metric], values[best][metric]]
            differences = np.array(
                [a - b for a, b in zip(*pairs, strict=True) if math.isfinite(a) and math.isfinite(b)]
            )
            if best is not None and len(differences) > 1:
                found[name][metric] = _difference(best, differences)
    return found


def _difference(other: str, differences: Array) -> Difference:
    low, high = _interval(differences)
    return Difference(other, len(differences), float(differences.mean()), low, high, _wilcoxon(differences))


def _interval(values: Array) -> tuple[float, float]:
    """Return the bootstrap's interval of a mean; always the same for the same values."""
    random, count = np.random.default_rng(0), len(values)
    step = max(1, _AT_ONCE // count)
    means = [
        values[random.integers(0, count, (min(step, _SAMPLES - start), count))].mean(1)
        for start in range(0, _SAMPLES, step)
    ]
    low, high = np.percentile(np.concatenate(means), [(100 - _LEVEL) / 2, (100 + _LEVEL) / 2])
    return float(low), float(high)


def _wilcoxon(differences: Array) -> float:
    from scipy.stats import wilcoxon

    if not differences.any():
        return 1.0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of few images or equal values, for which p is approximate
        return float(wilcoxon(differences).pvalue)
