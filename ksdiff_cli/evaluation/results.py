"""The outcome of comparing methods: values, means, ranks and differences of methods; JSON, CSV and report."""

import csv
import io
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ksdiff_cli.errors import printable
from ksdiff_cli.files.writing import write_text
from ksdiff_cli.metrics import Shifts, merit
from ksdiff_cli.numerics import Array
from ksdiff_cli.report import Example, Figure, Report
from ksdiff_cli.report.table import mean_of, rank, std_of

if TYPE_CHECKING:
    from ksdiff_cli.evaluation.latents import Latents


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


_LATENTS = (
    "What the prior says of each image",
    "A point is the latent z of an image, seen along the two directions in which z varies most (principal components); "
    "colours are what most of the image shows, by thresholds on its bands.",
)


@dataclass
class MethodResult:
    """A method's values, image by image."""

    values: dict[str, list[float]] = field(default_factory=dict)
    """By metric; NaN where an image leaves a metric undefined."""
    seconds: list[float] = field(default_factory=list)
    """Wall-clock time of each image's fusion, arrays in and out, without reading and measuring."""
    draws: list[dict[str, list[float]]] = field(default_factory=list)
    """Of a network that draws z_T, the values of further draws, each as ``values``."""

    def add_draw(self, number: int, values: Mapping[str, float]) -> None:
        """Take one image of a further draw in; ``number`` counts draws from 0."""
        while len(self.draws) <= number:
            self.draws.append({})
        for metric, value in values.items():
            self.draws[number].setdefault(metric, []).append(value)

    def std_over_draws(self, metric: str) -> float:
        """Return the standard deviation over draws of the mean over images (by one less than draws); NaN for one."""
        means = [mean_of(each[metric]) for each in (self.values, *self.draws)]
        return float(np.std(means, ddof=1)) if len(means) > 1 and all(map(math.isfinite, means)) else math.nan

    def add(self, values: Mapping[str, float], seconds: float) -> None:
        """Take one image in."""
        self.seconds.append(seconds)
        for metric, value in values.items():
            self.values.setdefault(metric, []).append(value)

    def mean(self, metric: str) -> float:
        """Return the mean over the images for which the metric is defined; NaN if there is none."""
        return mean_of(self.values[metric])

    def std(self, metric: str) -> float:
        """Return the standard deviation over the same images (divided by their number)."""
        return std_of(self.values[metric])

    @property
    def runtime(self) -> float:
        """Mean seconds per image."""
        return float(np.mean(self.seconds))


@dataclass
class Evaluation:
    """The outcome of :func:`ksdiff_cli.evaluation.compare.evaluate_files`."""

    protocol: str
    """``reduced`` or ``full``."""
    crop: str
    """Crop protocol of the reduced-resolution metrics."""
    images: list[tuple[str, int]]
    """File and index in it, in the order of the values."""
    methods: dict[str, MethodResult]
    facts: dict[str, str] = field(default_factory=dict)
    """Other settings that the figures depend on, by name, for people."""
    notes: list[str] = field(default_factory=list)
    examples: list[Example] = field(default_factory=list)
    """The images kept for a report."""
    latents: "Latents | None" = None
    """z of every image, where it was asked for."""
    shifts: list[Shifts] = field(default_factory=list)
    """At full resolution, how far the bands of MS lie off PAN in each image."""
    names: list[str] = field(default_factory=list)
    """What the images are called where they are no images of files, such as bands; else ()."""
    of: str = "image"
    """What each of them is: an image, a ``band``, or a ``group`` of bands of one resolution."""

    @property
    def metrics(self) -> list[str]:
        """The metrics' names, in the order of the table."""
        return list(next(iter(self.methods.values())).values)

    def _repr_html_(self) -> str:
        """Show the means in a notebook."""
        from ksdiff_cli.report.notebook import methods_html

        return methods_html(
            {name: {metric: result.mean(metric) for metric in result.values} for name, result in self.methods.items()}
        )

    def ranks(self, metric: str) -> dict[str, int]:
        """Return 1 for the best method and 2 for the second; see :func:`ksdiff_cli.report.table.rank`."""
        return rank({name: result.mean(metric) for name, result in self.methods.items()}, metric)

    @cached_property
    def differences(self) -> dict[str, dict[str, Difference]]:
        """Each method against the best other one, by metric; see :func:`ksdiff_cli.evaluation.results.compare`."""
        return compare({name: result.values for name, result in self.methods.items()})

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON; what is undefined or infinite is None."""
        methods: dict[str, Any] = {}
        for name, result in self.methods.items():
            figures: dict[str, Any] = {}
            for metric in result.values:
                figures[metric] = {"mean": _plain(result.mean(metric)), "std": _plain(result.std(metric))}
                if result.draws:
                    figures[metric]["std_over_draws"] = _plain(result.std_over_draws(metric))
                if metric in self.differences[name]:
                    figures[metric]["against_best_other"] = self.differences[name][metric].to_dict()
            methods[name] = {**figures, "runtime_s": result.runtime}
        shifts = {"band_shifts": [each.shifts.tolist() for each in self.shifts]} if self.shifts else {}
        return {
            "protocol": self.protocol,
            "crop": self.crop,
            "images": len(self.images),
            "methods": methods,
            **shifts,
            "facts": self.facts,
            "notes": self.notes,
        }

    def to_report(self, command: str) -> Report:
        """Return what the HTML page shows; ``command`` is the command line that made it."""
        return Report(
            title=f"Methods compared at {self.protocol} resolution",
            protocol=self.protocol,
            command=command,
            facts=self.facts,
            images=self.names or [image_name(*image) for image in self.images],
            about_images=[f"shift of MS against PAN {each} PAN pixels (rows, columns)" for each in self.shifts],
            values={name: result.values for name, result in self.methods.items()},
            differences={
                name: {metric: one.lines() for metric, one in each.items()} for name, each in self.differences.items()
            },
            draws={
                name: {metric: result.std_over_draws(metric) for metric in result.values}
                for name, result in self.methods.items()
                if result.draws
            },
            seconds={name: result.seconds for name, result in self.methods.items()},
            figures=[] if self.latents is None else [Figure(*_LATENTS, self.latents.picture())],
            examples=self.examples,
            notes=self.notes,
        )


def write_csv(found: Evaluation, path: Path) -> None:
    """Write one row a method and image: the metrics, empty where undefined, and the seconds of the fusion.

    At full resolution also how far MS lies off PAN, the mean over bands in PAN pixels.

    Raises:
        KsdiffError: the file cannot be written.
    """
    text = io.StringIO()
    table = csv.writer(text)
    shifts = ["ms_shift_rows", "ms_shift_cols"] if found.shifts else []
    table.writerow(["method", "file", "image", *found.metrics, *shifts, "runtime_s"])
    for name, result in found.methods.items():
        for place, (data, index) in enumerate(found.images):
            values = [result.values[metric][place] for metric in found.metrics]
            cells = ["" if math.isnan(value) else repr(float(value)) for value in values]
            cells += [f"{shift:g}" for shift in found.shifts[place].mean] if found.shifts else []
            table.writerow([printable(name), printable(data), index, *cells, f"{result.seconds[place]:.6f}"])
    write_text(text.getvalue(), path)


def image_name(path: str, index: int) -> str:
    """Return how an image of a file is called in tables and pages."""
    return f"{Path(path).name}, image {index}"


def _plain(value: float) -> float | None:
    return value if math.isfinite(value) else None
