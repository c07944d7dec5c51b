"""The measurements of one raster, as JSON and as a report."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import rasterio

from ksdiff_cli._version import __version__
from ksdiff_cli.errors import KsdiffError
from ksdiff_cli.metrics import ABOUT, Shifts
from ksdiff_cli.report import Example, Report


@dataclass
class Measurement:
    """The figures of one raster, with the files and settings behind them."""

    protocol: str
    """``reduced`` (against a reference) or ``full`` (against PAN and MS)."""
    size: tuple[int, int]
    """(width, height) of the part measured, pixels."""
    bands: int
    ratio: float
    """PAN pixels per MS pixel along a side."""
    settings: dict[str, Any]
    """Other settings behind the figures: crop and peak, or sensor and upsampling."""
    values: dict[str, float] = field(default_factory=dict)
    """The figures by name; NaN where undefined, infinite PSNR for equal images."""
    left_out: int = 0
    """Pixels of that part left out as nodata or, at full resolution, as filtered from nodata."""
    notes: list[str] = field(default_factory=list)
    """Notes needed to read the figures."""
    maps: list[Path] = field(default_factory=list)
    """Maps written."""
    examples: list[Example] = field(default_factory=list)
    """Pictures for a report, if asked for."""
    sam_of: str = "DN"
    """What SAM is the angle of: DN as stored, fractions such as reflectance, or what the files declare."""
    shifts: Shifts | None = None
    """At full resolution, how far the bands of MS lie off PAN: the reprojection took it out."""
    by_band: dict[str, dict[str, float]] = field(default_factory=dict)
    """Where each band has a guide of its own: by band the figures whose means are ``values``; ``R2``, how much of the
    band its guide explains; and ``ratio``."""

    def finish(self, values: dict[str, float], notes: list[str]) -> None:
        """Take the figures in and explain what is missing.

        Raises:
            KsdiffError: no pixel was left to measure.
        """
        total = self.size[0] * self.size[1]
        if self.left_out == total:
            raise KsdiffError("nothing to measure: every pixel is nodata in one of the images, or next to nodata")
        if self.left_out:
            self.notes.append(f"{self.left_out} of {total} pixels ({self.left_out / total:.2%}) left out as nodata")
        self.values = values
        self.notes += notes
        if self.shifts is not None:
            self.notes += self.shifts.notes()
        explained = {note.split(":")[0] for note in notes}
        for name, value in values.items():
            if not math.isfinite(value) and name not in explained:
                why = "infinite, the images are equal" if name == "PSNR" and value > 0 else ABOUT[name].undefined
                self.notes.append(f"{name}: undefined ({why})" if not why.startswith("infinite") else f"{name}: {why}")

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON values; a figure that is undefined or infinite is ``None``."""
        return {
            "protocol": self.protocol,
            **{name: value if math.isfinite(value) else None for name, value in self.values.items()},
            "width": self.size[0],
            "height": self.size[1],
            "bands": self.bands,
            "ratio": self.ratio,
            **self.settings,
            **({"by_band": _plain(self.by_band)} if self.by_band else {"SAM_of": self.sam_of}),
            **({} if self.shifts is None else {"band_shifts": self.shifts.shifts.tolist()}),
            "pixels_left_out": self.left_out,
            "notes": self.notes,
            "maps": [str(path) for path in self.maps],
        }

    def _repr_html_(self) -> str:
        """Show the figures in a notebook."""
        from ksdiff_cli.report.notebook import figures_html

        return figures_html(self.values, self.notes)

    def to_report(self, command: str, fused: Path, inputs: Mapping[str, Path], look: str = "") -> Report:
        """Return what the HTML page shows.

        Args:
            command: the command line that made it.
            fused: the raster that was judged.
            inputs: what it was measured against, by what it is: reference, or PAN and MS.
            look: see :attr:`ksdiff_cli.report.Report.look`.
        """
        against = " and ".join(path.name for path in inputs.values())
        settings = {name: f"{value:g}" if isinstance(value, float) else value for name, value in self.settings.items()}
        facts = {
            "fused": str(fused),
            **{name: str(path) for name, path in inputs.items()},
            "measured": f"{self.size[0]} × {self.size[1]} pixels, {self.left_out} left out as nodata",
            "bands": str(self.bands),
            "ratio": f"{self.ratio:g}",
            **settings,
            **({} if self.by_band else {"SAM": f"of {self.sam_of}"}),
            **({} if self.shifts is None else {"shift of MS against PAN": f"{self.shifts} PAN pixels (rows, columns)"}),
            "versions": f"ksdiff {__version__}, numpy {np.__version__}, GDAL {rasterio.__gdal_version__}",
        }
        return Report(
            title=f"{fused.name} against {against}",
            protocol=self.protocol,
            command=command,
            facts=facts,
            images=list(self.by_band) or [fused.name],
            about_images=[f"R² of its guide {one['R2']:.2f}, ratio {one['ratio']:g}" for one in self.by_band.values()],
            values={fused.name: self._series()},
            seconds={},
            examples=self.examples,
            notes=self.notes,
            look=look,
        )

    def _series(self) -> dict[str, list[float]]:
        """Return the figures of each band that has its own, else the one figure of all."""
        bands = list(self.by_band.values())
        return {name: [one[name] for one in bands] if bands else [value] for name, value in self.values.items()}


def _plain(figures: Mapping[str, Mapping[str, float]]) -> dict[str, dict[str, float | None]]:
    return {
        name: {key: value if math.isfinite(value) else None for key, value in one.items()}
        for name, one in figures.items()
    }
