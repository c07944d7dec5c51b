"""Options of measuring: a raster, or methods over test files."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from ksdiff_cli.checks import CropName, Mtf
from ksdiff_cli.errors import KsdiffError
from ksdiff_cli.options import INPUTS, MEASURING, METHOD, OUTPUT, Option, Options, repeated
from ksdiff_cli.options.shared import (
    SENSOR,
    HasDevice,
    HasGuideBy,
    HasOverwrite,
    HasSeed,
    HasSensor,
    HasSrcNodata,
    HasWarp,
    named_methods,
)
from ksdiff_cli.sensors import Sensor

Protocol = Literal["reduced", "full"]
"""Against the truth, or against PAN and MS."""
Prior = Literal["own", "shuffled", "mean", "zero", "true"]
"""Whose z networks use; see :mod:`ksdiff_cli.evaluation.prior`."""
Scaling = Literal["image", "scene"]
"""See :data:`ksdiff_cli.evaluation.cases.SCALINGS`."""
REPORT = Option(OUTPUT, "Write a page with tables, pictures and error maps. Default: no page.", metavar="OUT.html")


@dataclass(frozen=True, kw_only=True)
class MeasureOptions(HasOverwrite, HasGuideBy, HasWarp, HasSrcNodata, HasSensor):
    """What a raster is measured against, and what is written of it."""

    reference: Annotated[
        Path | None,
        Option(
            INPUTS,
            "The truth, on the same grid (reduced resolution). Default: --pan and --ms instead.",
            metavar="FILE",
        ),
    ] = None
    pan: Annotated[
        Path | None,
        Option(
            INPUTS,
            "PAN that it was made from (full resolution). Default: --reference instead.",
            metavar="FILE",
        ),
    ] = None
    ms: Annotated[
        Path | None,
        Option(INPUTS, "MS that it was made from (full resolution). Default: --reference instead.", metavar="FILE"),
    ] = None
    guide: Annotated[
        Sequence[str],
        repeated(
            INPUTS,
            "In place of PAN: raster of finer bands that guided coarser ones, which --ms or more --guide name; or the "
            "whole product. May be repeated. Default: --pan instead.",
            "FINE",
        ),
    ] = ()
    ratio: Annotated[
        float | None,
        Option(
            MEASURING,
            "PAN pixels per MS pixel, for ERGAS with --reference. Default: the sensor's, or 4.",
            min=1,
        ),
    ] = None
    crop: Annotated[
        CropName,
        Option(MEASURING, "Measure everything, or leave out a border of 21 or 30 px as the literature does."),
    ] = "full"
    mtf: Annotated[
        Mtf,
        Option(
            MEASURING,
            "With --ms: the camera that R-Q2n, R-ERGAS and R-SAM look through: the sensor's by its table, or "
            "the one found in the scene.",
        ),
    ] = "sensor"
    maps: Annotated[
        Path | None,
        Option(
            OUTPUT,
            "Folder for GeoTIFF maps of SAM (degrees) and Q2n (32-pixel cells). Default: no maps.",
            metavar="DIR",
        ),
    ] = None
    report: Annotated[Path | None, REPORT] = None


@dataclass(frozen=True, kw_only=True)
class Compared(Options):
    """What is compared, and how it is measured."""

    checkpoints: Annotated[
        tuple[Path, ...],
        repeated(
            METHOD,
            "Weights to compare (.safetensors); may be repeated. Default: the shipped weights, ksdiff.",
            "FILE",
            Path,
            names=("--checkpoint",),
        ),
    ] = ()
    methods: Annotated[
        tuple[str, ...],
        named_methods(
            "Method to compare with, by name (ksdiff sharpen --help lists them); may be repeated. Default: all."
        ),
    ] = ()
    protocol: Annotated[
        Protocol,
        Option(MEASURING, "reduced: against the ground truth. full: against PAN and MS, without a truth."),
    ] = "reduced"
    crop: Annotated[
        CropName | None,
        Option(
            MEASURING,
            "Reduced protocol: measure everything, or leave out a border of 21 or 30 px. Default: full.",
        ),
    ] = None
    prior: Annotated[
        Prior,
        Option(
            METHOD,
            "What networks get as z: their own, another image's, the mean of the others of the file, zeros, or the "
            "truth's (stage-1 weights).",
        ),
    ] = "own"
    scaling: Annotated[
        Scaling,
        Option(
            METHOD,
            "What networks standardise by: each image by itself, as sharpen would were it the whole scene; or the "
            "scene that a file states for it, else all images of the file together.",
        ),
    ] = "image"
    draws: Annotated[
        int,
        Option(
            METHOD,
            "Draws of z_T; from 2 on the deviation over draws is shown for networks that have some.",
            metavar="N",
            min=1,
        ),
    ] = 1
    sensor: Annotated[str | Sensor | None, SENSOR] = None


@dataclass(frozen=True, kw_only=True)
class Written(Options):
    """What is written of a comparison."""

    csv: Annotated[
        Path | None,
        Option(OUTPUT, "Write every method's values, one row an image. Default: no file.", metavar="OUT.csv"),
    ] = None
    latents: Annotated[
        Path | None,
        Option(
            OUTPUT,
            "Draw the prior's z of every image by what the image shows (the report has it too), or write it. "
            "Default: no file.",
            metavar="OUT.png | OUT.npz",
        ),
    ] = None
    report: Annotated[Path | None, REPORT] = None


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions(HasSeed, HasDevice, HasOverwrite, Written, Compared):
    """How methods are compared over test files."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.draws > 1 and self.prior != "own":
            raise KsdiffError("draws of z_T go with the networks' own prior: leave --prior or --draws out")
