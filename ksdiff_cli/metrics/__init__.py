"""Quality metrics of the pansharpening literature, equal to the field's reference toolbox; pure functions on arrays.

Images are (bands, height, width) in DN. Each metric has a function for images in memory and an accumulator that takes a
raster block by block and gives the same value. A new metric is one file and one line below.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import get_args

import numpy as np

from ksdiff_cli.checks import CropName
from ksdiff_cli.errors import KsdiffError
from ksdiff_cli.metrics.about import ABOUT, SOFTNESS, merit
from ksdiff_cli.metrics.blocks import Block, Metric, make_block
from ksdiff_cli.metrics.d_lambda import DLambda, d_lambda
from ksdiff_cli.metrics.d_rho import DRho, d_rho
from ksdiff_cli.metrics.d_s import DS, d_s
from ksdiff_cli.metrics.d_sr import DSR, d_sr, rqnr
from ksdiff_cli.metrics.ergas import Ergas, ergas
from ksdiff_cli.metrics.full_blocks import FullBlock, FullMetric, make_full_block
from ksdiff_cli.metrics.psnr import Psnr, guess_peak, psnr
from ksdiff_cli.metrics.q2n import Q2n, q2n, q2n_map
from ksdiff_cli.metrics.q_avg import QAvg, q_avg
from ksdiff_cli.metrics.qnr import PairDLambda, hqnr, pair_d_lambda, qnr
from ksdiff_cli.metrics.reprojection import Reprojection, reprojection
from ksdiff_cli.metrics.sam import Sam, sam, sam_map
from ksdiff_cli.metrics.scc import Scc, scc
from ksdiff_cli.metrics.sharpness import Sharpness, sharpness
from ksdiff_cli.metrics.shifts import Shifts, find_shifts
from ksdiff_cli.metrics.ssim import Ssim, ssim
from ksdiff_cli.metrics.views import place_view
from ksdiff_cli.numerics import Array
from ksdiff_cli.numerics.camera import camera_kernel
from ksdiff_cli.numerics.grids import corner_aligned

CROPS: tuple[CropName, ...] = get_args(CropName)
_CUT: dict[str, int] = {"full": 0, "cut21": 21, "cut30": 30}


def crop_slices(height: int, width: int, protocol: str = "full") -> tuple[slice, slice]:
    """Return the rows and columns that a protocol measures.

    ``full`` measures everything. ``cutD`` keeps rows and columns D..N-D counted from 1, both included, as the reference
    toolbox does: D-1 are lost on the top and left, D on the bottom and right.

    Raises:
        KsdiffError: no such protocol, or nothing would be left.
    """
    if protocol not in _CUT:
        raise KsdiffError(f"no crop protocol is called {protocol!r}: choose one of {' '.join(_CUT)}")
    cut = _CUT[protocol]
    if cut == 0:
        return slice(0, height), slice(0, width)
    if min(height, width) < 2 * cut:
        raise KsdiffError(f"{width} x {height} pixels are too few for the crop protocol {protocol}: use --crop full")
    return slice(cut - 1, height - cut), slice(cut - 1, width - cut)


def crop(image: Array, protocol: str = "full") -> Array:
    """Cut (..., H, W) to the part that a protocol measures; see :func:`crop_slices`."""
    return image[..., *crop_slices(image.shape[-2], image.shape[-1], protocol)]


__all__ = [
    "ABOUT",
    "CROPS",
    "FULL",
    "REDUCED",
    "SOFTNESS",
    "Block",
    "CropName",
    "FullBlock",
    "FullGatherer",
    "Gatherer",
    "Settings",
    "Shifts",
    "crop",
    "crop_slices",
    "d_lambda",
    "d_rho",
    "d_s",
    "d_sr",
    "ergas",
    "find_shifts",
    "guess_peak",
    "hqnr",
    "make_block",
    "make_full_block",
    "measure_full",
    "measure_reduced",
    "merit",
    "pair_d_lambda",
    "psnr",
    "q2n",
    "q2n_map",
    "q_avg",
    "qnr",
    "reprojection",
    "rqnr",
    "sam",
    "sam_map",
    "scc",
    "sharpness",
    "ssim",
]


@dataclass(frozen=True)
class Settings:
    """The facts that a metric needs beside the images."""

    ratio: float = 4
    """PAN pixels per MS pixel along a side."""
    peak: float = 2047
    """Largest DN possible."""


REDUCED: dict[str, Callable[[Settings], Metric]] = {
    "SAM": lambda settings: Sam(),
    "ERGAS": lambda settings: Ergas(settings.ratio),
    "Q2n": lambda settings: Q2n(),
    "SCC": lambda settings: Scc(),
    "Q_avg": lambda settings: QAvg(),
    "PSNR": lambda settings: Psnr(settings.peak),
    "SSIM": lambda settings: Ssim(settings.peak),
}
"""Metrics against a reference image."""

FULL: dict[str, Callable[[], FullMetric]] = {
    "D_lambda": DLambda,
    "D_s": DS,
    "D_lambda_pairs": PairDLambda,
}
"""Metrics on cells of 32 pixels against PAN and MS alone; HQNR and QNR follow from them."""


def _take(name: str, result: Callable[[], float], notes: list[str]) -> float:
    """Return a metric's result; NaN with a note where the metric refuses the data."""
    try:
        return result()
    except KsdiffError as error:
        notes.append(f"{name}: {error}")
        return math.nan


class Gatherer:
    """All metrics against a reference at once, block by block."""

    def __init__(self, settings: Settings) -> None:
        """Start every metric of :data:`REDUCED` with nothing gathered."""
        self.metrics = {name: make(settings) for name, make in REDUCED.items()}
        self.refused: dict[str, str] = {}

    def update(self, block: Block) -> None:
        """Take one block in."""
        for name, metric in self.metrics.items():
            if name not in self.refused:
                try:
                    metric.update(block)
                except KsdiffError as error:
                    self.refused[name] = str(error)

    def results(self) -> tuple[dict[str, float], list[str]]:
        """Return the values by name, NaN where a metric is undefined, and what a person must know about them."""
        notes: list[str] = []
        values = {}
        for name, metric in self.metrics.items():
            if name in self.refused:
                notes.append(f"{name}: {self.refused[name]}")
                values[name] = math.nan
            else:
                values[name] = _take(name, metric.result, notes)
        return values, notes


class FullGatherer:
    """All full-resolution metrics at once: blocks on PAN's grid and, for the reprojection, blocks of MS pixels."""

    def __init__(self, ratio: float = 4) -> None:
        """Start every metric with nothing gathered; ``ratio`` is in PAN pixels per MS pixel."""
        self.metrics = {name: make() for name, make in FULL.items()}
        self.d_rho, self.d_sr, self.sharpness = DRho(ratio), DSR(), Sharpness()
        self.reprojection = Reprojection(ratio)

    def update(self, block: FullBlock) -> None:
        """Take one block on PAN's grid in, which has its surroundings."""
        assert block.around is not None
        for metric in self.metrics.values():
            metric.update(block)
        for other in (self.d_rho, self.d_sr, self.sharpness):
            other.update(block.around)

    def results(self) -> tuple[dict[str, float], list[str]]:
        """Return every figure of full resolution, NaN where undefined, and what a person must know about them."""
        notes: list[str] = []
        found = {name: _take(name, metric.result, notes) for name, metric in self.metrics.items()}
        constant = max(metric.constant for metric in self.metrics.values())
        if constant:
            notes.append(
                f"{constant} cells of 32 x 32 px are constant in two images compared: left out of D_s and QNR "
                "(the reference toolbox would give NaN)"
            )
        reprojected, more = self.reprojection.results()
        finest, following = self.sharpness.result()
        values = {
            "D_lambda": found["D_lambda"],
            "D_s": found["D_s"],
            "HQNR": hqnr(found["D_lambda"], found["D_s"]),
            "QNR": qnr(found["D_lambda_pairs"], found["D_s"]),
            "D_rho": self.d_rho.result(),
            "D_sR": self.d_sr.result(),
            "RQNR": rqnr(found["D_lambda"], self.d_sr.result()),
            **reprojected,
            "sharpness_finest": finest,
            "sharpness_next": following,
        }
        return values, notes + more


def measure_reduced(
    reference: Array,
    fused: Array,
    settings: Settings | None = None,
    protocol: str = "full",
    valid: Array | None = None,
) -> tuple[dict[str, float], list[str]]:
    """Measure an image in memory against its reference with every metric of :data:`REDUCED`.

    Args:
        reference: (bands, H, W), DN.
        fused: (bands, H, W), DN.
        settings: ratio and peak; the defaults are 4 and 2047.
        protocol: crop protocol; see :func:`crop_slices`.
        valid: (H, W) bool, pixels to count; ``None`` for all.

    Returns:
        The values by name, NaN where a metric is undefined, and notes on why.

    Raises:
        KsdiffError: shapes differ, values are not finite, or the crop leaves nothing.
    """
    gatherer = Gatherer(settings or Settings())
    mask = None if valid is None else crop(valid, protocol)
    gatherer.update(make_block(crop(reference, protocol), crop(fused, protocol), mask))
    return gatherer.results()


def measure_full(
    fused: Array,
    pan: Array,
    ms: Array,
    gains: tuple[float, ...],
    ratio: int = 4,
    shifts: Array | None = None,
) -> tuple[dict[str, float], list[str]]:
    """Measure a full-resolution image in memory against its PAN and MS; see :func:`make_full_block`.

    Args:
        fused: (bands, H, W), DN.
        pan: (H, W), DN.
        ms: (bands, H/ratio, W/ratio), DN; its grid shares PAN's outer corner.
        gains: one MTF gain per band.
        ratio: PAN pixels per MS pixel along a side, a power of two.
        shifts: (bands, 2), for the reprojection, as :func:`find_shifts` finds them; ``None`` has them found.

    Returns:
        Every figure of full resolution, NaN where undefined, and notes on why.
    """
    gatherer = FullGatherer(ratio)
    gatherer.update(make_full_block(fused, pan, ms, gains, ratio))
    grid, (height, width) = corner_aligned(ratio), ms.shape[1:]
    shifts = find_shifts(pan, ms, gains, grid).shifts if shifts is None else shifts
    view = place_view(grid, pan.shape, (0, height), (0, width), [camera_kernel(gain) for gain in gains], shifts)
    gatherer.reprojection.update(ms, view.see(fused[:, view.rows, view.cols]), np.ones((height, width), bool))
    return gatherer.results()
