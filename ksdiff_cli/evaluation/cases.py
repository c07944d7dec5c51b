"""Test cases: the images of one patch file in DN, with the sensor and the way they are measured."""

import math
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from ksdiff_cli.errors import KsdiffError
from ksdiff_cli.metrics import Settings, Shifts, find_shifts, guess_peak, measure_full, measure_reduced
from ksdiff_cli.metrics.blocks import CELL
from ksdiff_cli.numerics import Array
from ksdiff_cli.numerics.grids import GridMap, corner_aligned
from ksdiff_cli.numerics.moments import SceneStatistics
from ksdiff_cli.numerics.toolbox import is_power_of_two
from ksdiff_cli.options.measuring import Protocol, Scaling
from ksdiff_cli.patches.dataset import PatchFile
from ksdiff_cli.raster.tiles import ObservedTile, Tile
from ksdiff_cli.sensors import Sensor, find_sensor

SCALINGS: dict[Scaling, str] = {"image": "each image by itself", "scene": "the scenes that the files state"}
"""The statistics by which networks standardise their input: those of the image, as ``sharpen`` would take them were it
the whole scene; or those of the scenes that the images were cut from, if the file states them, else of all together."""

_DEFAULT_FILE = {"reduced": "test.h5", "full": "full.h5"}


@dataclass(frozen=True)
class Image:
    """One image of a case, in DN; at full resolution cut to whole 32-pixel cells."""

    tile: Tile
    scene: SceneStatistics
    ms: Array
    """(bands, h, w) float32."""
    gt: Array | None
    """(bands, H, W) float32, at reduced resolution."""
    index: int = 0
    """In its file."""


@dataclass(frozen=True)
class Case:
    """One patch file, ready to be measured."""

    file: PatchFile
    protocol: Protocol
    sensor: Sensor
    """Its MTF gains serve classical methods and D_lambda."""
    settings: Settings
    crop: str = "full"
    scale: float = 1.0
    """Factor from the file's values to DN."""
    notes: list[str] = field(default_factory=list)
    """Notes for people about the file."""
    scaling: Scaling = "image"
    """See :data:`SCALINGS`."""
    quantity: str = "DN"
    """Unit of the vectors whose angle SAM is: DN, or fractions such as reflectance."""

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width) of what is fused and measured, PAN pixels."""
        height, width = self.file.size
        if self.protocol == "reduced":
            return height, width
        step = math.lcm(CELL, self.file.ratio)
        return height // step * step, width // step * step

    @property
    def grid(self) -> GridMap:
        """The map from PAN's pixels to those of MS."""
        return self.file.grid

    @cached_property
    def sharpness(self) -> float:
        """Of what is wanted, relative to PAN: at reduced resolution the one that the protocol implies."""
        return self.file.sharpness(self.sensor.mtf_ms) if self.protocol == "reduced" else 0.0

    def image(self, index: int) -> Image:
        """Read one image."""
        found = self.file.image(index)
        height, width = self.shape
        ms = found["ms"][:, : height // self.file.ratio, : width // self.file.ratio]
        pan, ms_up = (found[key][:, :height, :width] for key in ("pan", "lms"))
        gt = found.get("gt") if self.protocol == "reduced" else None
        if self.scale != 1:
            scale = np.float32(self.scale)
            pan, ms_up, ms, gt = pan * scale, ms_up * scale, ms * scale, None if gt is None else gt * scale
        tile = ObservedTile(pan, np.ones((height, width), bool), ms, None, self.grid, ms_up)
        return Image(tile, self._statistics(index, pan, ms), ms, gt, index)

    def _statistics(self, index: int, pan: Array, ms: Array) -> SceneStatistics:
        if self.scaling == "image":
            pan, ms = pan.astype(np.float64), ms.astype(np.float64)
            return SceneStatistics(float(pan.mean()), float(pan.std()), ms.mean((1, 2)), ms.std((1, 2)))
        known = self.file.statistics([index])
        values = (known.pan_mean[0, 0], known.pan_std[0, 0], known.ms_mean[0], known.ms_std[0])
        pan_mean, pan_std, ms_mean, ms_std = (value.numpy() * self.scale for value in values)
        return SceneStatistics(float(pan_mean), float(pan_std), ms_mean, ms_std)

    def shifts(self, image: Image) -> Shifts | None:
        """Find how far the bands of MS lie off PAN, at full resolution."""
        if self.protocol == "reduced":
            return None
        gains, grid = self.sensor.ms_gains(self.file.bands), corner_aligned(self.file.ratio)
        return find_shifts(image.tile.pan[0], image.ms, gains, grid)

    def measure(self, image: Image, fused: Array, shifts: Shifts | None) -> tuple[dict[str, float], list[str]]:
        """Measure one fused image: the values by metric, and what a person must know about them."""
        if image.gt is not None:
            return measure_reduced(image.gt, fused, self.settings, self.crop)
        gains = self.sensor.ms_gains(self.file.bands)
        own = None if shifts is None else shifts.shifts
        return measure_full(fused, image.tile.pan[0], image.ms, gains, self.file.ratio, own)


def open_files(paths: list[Path], protocol: Protocol = "reduced") -> list[PatchFile]:
    """Open the files to compare on; a folder of ``prepare-data`` stands for its test.h5 (full protocol: full.h5).

    Raises:
        KsdiffError: no such file, no patch file, or one without ground truth where that is needed.
    """
    files, name = [], _DEFAULT_FILE[protocol]
    for path in paths:
        if path.is_dir() and not (path / name).is_file():
            raise KsdiffError(f"{path}: holds no {name}, which prepare-data makes; name the file itself")
        # each image is read once or twice: nothing to gain from keeping them all
        file = PatchFile(path / name if path.is_dir() else path, cache_bytes=0)
        if protocol == "reduced" and not file.has_gt:
            raise KsdiffError(
                f"{file.path}: has no gt to measure against; give a reduced-resolution file such as test.h5, "
                "or --protocol full"
            )
        files.append(file)
    return files


def make_case(
    file: PatchFile,
    protocol: Protocol,
    sensor: Sensor | None = None,
    crop: str = "full",
    scaling: Scaling = "image",
) -> Case:
    """Find out how a file is to be measured; of its pixels only the largest value is looked for.

    Args:
        file: the images.
        protocol: ``reduced`` (against gt) or ``full`` (against PAN and MS).
        sensor: takes the place of what the file states.
        crop: see :func:`ksdiff_cli.metrics.crop_slices`; ``full`` at full resolution.
        scaling: see :data:`SCALINGS`.

    Raises:
        KsdiffError: images that the full-resolution metrics cannot take, or a sensor with another number of bands.
    """
    notes: list[str] = []
    known = sensor or _sensor(file, notes)
    if protocol == "full":
        if not is_power_of_two(file.ratio):
            raise KsdiffError(
                f"{file.path}: its ratio is {file.ratio}; the full-resolution metrics need a power of two"
            )
        known.ms_gains(file.bands)
    largest = file.largest("gt" if protocol == "reduced" else "ms")
    scale = 1.0
    bits = known.bits if known.name != "generic" else None
    if guess_peak(largest) == 1:
        if bits:
            scale = float(2**bits - 1)
            notes.append(f"{file.path}: values up to {largest:.3g} are brought to DN by {scale:g}, as {known.name} has")
        else:
            notes.append(f"{file.path}: values only reach {largest:.3g}; a --sensor tells what makes them DN for Q2n")
    # scaled data have left their sensor's range
    own = bits is not None and guess_peak(largest * scale) >= 1 and largest * scale <= 2**bits - 1
    peak = float(2**bits - 1) if bits and own else guess_peak(largest)
    quantity = "DN" if guess_peak(largest * scale) > 1 else f"fractions up to {largest:.3g}"
    case = Case(file, protocol, known, Settings(file.ratio, peak), crop, scale, notes, scaling, quantity)
    height, width = case.shape
    if min(height, width) == 0:
        raise KsdiffError(f"{file.path}: its images of {file.size[1]} x {file.size[0]} px hold no cell of 32 x 32")
    if case.shape != file.size:
        notes.append(f"{file.path}: images cut to {width} x {height} px, whole cells of 32 px")
    if protocol == "full" and known == find_sensor(None):
        notes.append(f"{file.path}: names no known sensor; D_lambda uses generic MTF gains")
    return case


def _sensor(file: PatchFile, notes: list[str]) -> Sensor:
    """Return the sensor that a file states by its values or its name; the generic one if there is none."""
    if file.named_after is not None:
        notes.append(f"taken for {file.named_after.name} by the file's name; --sensor says otherwise")
        return file.named_after
    try:
        return Sensor.from_dict(file.sensor)
    except KsdiffError as error:
        raise KsdiffError(f"{file.path}: {error}") from None
