"""Comparing methods over the images of patch files: metrics against the ground truth, and time per image."""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ksdiff_cli.classical import Setup
from ksdiff_cli.dataset import PatchFile
from ksdiff_cli.errors import KsdiffError
from ksdiff_cli.fusers import Classical, Fuser, make_fuser
from ksdiff_cli.metrics import Settings, guess_peak, measure_reduced
from ksdiff_cli.progress import ProgressCallback, silent
from ksdiff_cli.raster import SceneStatistics, Tile
from ksdiff_cli.sensors import SENSORS, Sensor, find_sensor

Array = NDArray[Any]


@dataclass
class MethodResult:
    """What one method reached, image by image."""

    values: dict[str, list[float]] = field(default_factory=dict)
    """By metric; NaN where an image leaves a metric undefined."""
    seconds: list[float] = field(default_factory=list)
    """Wall-clock time of each image's fusion, arrays in and out, without reading and measuring."""

    def mean(self, metric: str) -> float:
        """Return the mean over the images for which the metric is defined; NaN if there is none."""
        defined = _defined(self.values[metric])
        return float(np.mean(defined)) if defined else math.nan

    def std(self, metric: str) -> float:
        """Return the standard deviation over the same images (divided by their number)."""
        defined = _defined(self.values[metric])
        return float(np.std(defined)) if defined and all(map(math.isfinite, defined)) else math.nan

    @property
    def runtime(self) -> float:
        """Mean seconds per image."""
        return float(np.mean(self.seconds))


@dataclass
class Evaluation:
    """The outcome of :func:`evaluate_files`."""

    protocol: str
    images: int
    methods: dict[str, MethodResult]
    notes: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON; what is undefined or infinite is None."""
        methods: dict[str, Any] = {}
        for name, result in self.methods.items():
            figures: dict[str, Any] = {
                metric: {"mean": _plain(result.mean(metric)), "std": _plain(result.std(metric))}
                for metric in result.values
            }
            methods[name] = {**figures, "runtime_s": result.runtime}
        return {"protocol": self.protocol, "images": self.images, "methods": methods}


def make_fusers(methods: list[str], checkpoints: list[Path], device: str, seed: int) -> dict[str, Fuser]:
    """Return the methods to compare, by the names in the table.

    Args:
        methods: by name. Without any: ``exp``, and ``ksdiff`` (the shipped weights) unless there are checkpoints.
        checkpoints: own weights, named by their files.
        device: where networks run.
        seed: of networks' random numbers.

    Raises:
        KsdiffError: no such method or device, or no weights.
        ModelError: weights that cannot be used.
    """
    names = list(dict.fromkeys(methods)) or ["exp", *([] if checkpoints else ["ksdiff"])]
    fusers = {name: make_fuser(name, None, device, seed) for name in names}
    stems = [path.stem for path in checkpoints]
    for path in checkpoints:
        clear = stems.count(path.stem) == 1 and path.stem not in fusers
        fusers[path.stem if clear else str(path)] = make_fuser("ksdiff", path, device, seed)
    return fusers


def open_files(paths: list[Path]) -> list[PatchFile]:
    """Open files that hold ground truth; a folder of ``prepare-data`` stands for its test.h5.

    Raises:
        KsdiffError: no such file, no patch file, or one without ground truth.
    """
    files = []
    for path in paths:
        if path.is_dir() and not (path / "test.h5").is_file():
            raise KsdiffError(f"{path}: holds no test.h5; name the file itself")
        file = PatchFile(path / "test.h5" if path.is_dir() else path)
        if not file.has_gt:
            raise KsdiffError(
                f"{file.path}: has no gt to measure against; give a reduced-resolution file such as test.h5"
            )
        files.append(file)
    return files


def evaluate_files(
    files: list[PatchFile],
    fusers: Mapping[str, Fuser],
    progress: ProgressCallback = silent,
    sensor: Sensor | None = None,
) -> Evaluation:
    """Fuse every image by every method and measure it against the ground truth.

    A method that cannot take a file's bands, ratio or sensor is refused before a pixel is read. Classical methods draw
    their coefficients from each image alone, as the reference does, with its filters on files of its geometry.

    Args:
        files: with ground truth.
        fusers: by name.
        progress: told after every image and method.
        sensor: its MTF gains serve classical methods, its largest DN the PSNR; None takes what each file states, else
            generic gains and a guess.

    Returns:
        Values by method and image, all metrics of :data:`ksdiff_cli.metrics.REDUCED`.

    Raises:
        KsdiffError: values that are not finite; see above.
        ModelError: see above.
    """
    for file in files:
        for fuser in fusers.values():
            fuser.check(file.bands, file.ratio)
    images = sum(map(len, files))
    outcome = Evaluation("reduced", images, {name: MethodResult() for name in fusers})
    notes: dict[str, None] = {}
    steps = [_bind(file, fusers, sensor or _sensor(file), notes) for file in files]
    for file, fuse in zip(files, steps, strict=True):
        settings = Settings(file.ratio, _peak(file, sensor.to_dict() if sensor else file.sensor))
        for index in range(len(file)):
            image, tile, scene = _load(file, index)
            for name in fusers:
                result = outcome.methods[name]
                if index == 0:  # the first call pays for memory and for choosing algorithms
                    fuse[name](tile, scene)
                begin = time.perf_counter()
                fused = fuse[name](tile, scene)
                result.seconds.append(time.perf_counter() - begin)
                values, remarks = measure_reduced(image["gt"], fused, settings)
                notes |= dict.fromkeys(remarks)
                for metric, value in values.items():
                    result.values.setdefault(metric, []).append(value)
                done = sum(len(each.seconds) for each in outcome.methods.values())
                progress(done, images * len(fusers), name)
    outcome.notes = list(notes)
    return outcome


def ranks(evaluation: Evaluation, metric: str, higher_is_better: bool) -> tuple[str | None, str | None]:
    """Return the names of the best and the second-best method; None where there is none."""
    means = {name: result.mean(metric) for name, result in evaluation.methods.items()}
    ordered = sorted((name for name in means if not math.isnan(means[name])), key=means.__getitem__)
    if higher_is_better:
        ordered.reverse()
    if len(ordered) < 2:
        return None, None
    return ordered[0], ordered[1]


def _load(file: PatchFile, index: int) -> tuple[dict[str, Any], Tile, SceneStatistics]:
    image, found = file.image(index), file.statistics([index])
    scene = SceneStatistics(
        float(found.pan_mean[0, 0]), float(found.pan_std[0, 0]), found.ms_mean[0].numpy(), found.ms_std[0].numpy()
    )
    return image, Tile(image["pan"], image["lms"], np.ones(file.size, bool)), scene


def _bind(
    file: PatchFile, fusers: Mapping[str, Fuser], sensor: Sensor, notes: dict[str, None]
) -> dict[str, Callable[[Tile, SceneStatistics], Array]]:
    """Return each method's way to fuse an image of ``file``, by name."""
    steps: dict[str, Callable[[Tile, SceneStatistics], Array]] = {}
    for name, fuser in fusers.items():
        if isinstance(fuser, Classical):
            steps[name] = partial(_fuse_image, fuser, fuser.setup(sensor, file.bands, file.ratio, file.geometry))
            if fuser.uses_mtf and sensor == find_sensor(None):
                notes[f"{file.path}: names no known sensor; classical methods use generic MTF gains"] = None
        else:
            steps[name] = partial(_fuse_tile, fuser, file.ratio)
    return steps


def _fuse_image(fuser: Classical, setup: Setup, tile: Tile, scene: SceneStatistics) -> Array:
    return fuser.fuse_image(tile, setup)


def _fuse_tile(fuser: Fuser, ratio: int, tile: Tile, scene: SceneStatistics) -> Array:
    return fuser.fuse(tile, scene, ratio)


def _sensor(file: PatchFile) -> Sensor:
    """Return the sensor that a file states by its values or its name; the generic one if there is none."""
    stated = file.sensor
    known = SENSORS.get(str(stated.get("name")), find_sensor(None))
    gains = stated.get("mtf_ms")
    if not gains:
        return known
    return replace(known, mtf_ms=tuple(gains), mtf_pan=float(stated.get("mtf_pan", known.mtf_pan)))


def _peak(file: PatchFile, sensor: Mapping[str, Any]) -> float:
    """Return the largest DN possible: the sensor's if its values are known, else guessed from the ground truth."""
    largest = max(float(file.image(index)["gt"].max()) for index in range(len(file)))
    bits = sensor.get("bits")
    # the generic sensor's 16 bits say nothing, and scaled data have left their sensor's range
    if bits and sensor.get("name") != "generic" and 1 < largest <= 2**bits - 1:
        return float(2**bits - 1)
    return guess_peak(largest)


def _defined(values: list[float]) -> list[float]:
    return [value for value in values if not math.isnan(value)]


def _plain(value: float) -> float | None:
    return value if math.isfinite(value) else None
