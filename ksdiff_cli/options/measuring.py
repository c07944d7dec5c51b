"""Options of measuring a raster."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from ksdiff_cli.checks import CropName, Mtf
from ksdiff_cli.options import INPUTS, MEASURING, OUTPUT, Option
from ksdiff_cli.options.shared import HasOverwrite, HasSensor, HasSrcNodata, HasWarp


@dataclass(frozen=True, kw_only=True)
class MeasureOptions(HasOverwrite, HasWarp, HasSrcNodata, HasSensor):
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
            "With --pan and --ms: the camera that R-Q2n, R-ERGAS and R-SAM look through: the sensor's by its table, or "
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
    report: Annotated[
        Path | None,
        Option(OUTPUT, "Write a page with tables, pictures and error maps. Default: no page.", metavar="OUT.html"),
    ] = None
