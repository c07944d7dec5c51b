"""The cameras of an open scene, found in some of its parts: :mod:`ksdiff_cli.numerics.camera` for files."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from ksdiff_cli.checks import Mtf
from ksdiff_cli.errors import KsdiffError
from ksdiff_cli.numerics.camera import Kernel, SceneCamera, View, camera_kernel, fit_camera, resharpen, view_boxes
from ksdiff_cli.progress import ProgressCallback, silent
from ksdiff_cli.raster.pair import ScenePair
from ksdiff_cli.sensors import Sensor, find_sensor


@dataclass(frozen=True)
class MsCamera:
    """How each MS band is taken to have been seen."""

    kernels: tuple[Kernel, ...]
    """By band."""
    pan: Kernel
    """That of the bands together, through which PAN is brought to them."""
    source: str
    """Where that is from, for people."""


def find_camera(pair: ScenePair, progress: ProgressCallback = silent, sharpness: float = 0.0) -> SceneCamera:
    """Find the cameras of a scene, once for each pair.

    What is read is bounded, and laid out by the scene's grid alone: the same scene gives the same camera whatever
    windows and processes sharpen it.

    Args:
        pair: the open scene; the shift found is beyond what its grid already knows.
        progress: told the parts read.
        sharpness: that PAN is brought to first, see :func:`ksdiff_cli.numerics.camera.resharpen`; what is found then
            is not the pair's own camera, and not kept.

    Raises:
        KsdiffError: a file is damaged.
    """
    if sharpness:
        views = [replace(view, pan=resharpen(view.pan, sharpness)) for view in _read_views(pair, progress)]
        return fit_camera(views, pair.bands, table_gains(pair)[0], companion=pair.scene.companion is not None)
    if pair.camera is None:
        views, companion = list(_read_views(pair, progress)), pair.scene.companion is not None
        pair.camera = fit_camera(views, pair.bands, table_gains(pair)[0], companion=companion)
    return pair.camera


def _read_views(pair: ScenePair, progress: ProgressCallback) -> Iterator[View]:
    boxes = view_boxes(pair.grid, pair.shape, pair.ms_shape)
    for done, (over, under) in enumerate(boxes, start=1):
        place = over.top, over.left, over.height, over.width
        ms, ms_valid = pair.read_ms(*place)
        ms_valid &= ~pair.read_cloud(*place)
        if ms_valid.any():
            pan, pan_valid = pair.read_pan(under.top, under.left, under.height, under.width)
            grid = pair.grid.shifted(under.top, under.left).moved(-over.top, -over.left)
            yield View(pan[0], pan_valid, ms, ms_valid, grid)
        progress(done, len(boxes), "cameras")


def table_gains(pair: ScenePair) -> tuple[tuple[float, ...], Sensor]:
    """Return the sensor's MTF gains, or the generic ones where it has another number of bands, and whose they are."""
    sensor = pair.scene.sensor
    try:
        return sensor.ms_gains(pair.bands), sensor
    except KsdiffError:
        generic = find_sensor(None)
        return generic.ms_gains(pair.bands), generic


def ms_camera(pair: ScenePair, mtf: Mtf = "scene", progress: ProgressCallback = silent) -> MsCamera:
    """Return the camera that MS was seen through: the scene's own where it tells, else the sensor's.

    Args:
        pair: the open scene.
        mtf: "sensor" for the sensor's table whatever the scene tells.
        progress: told the parts read.

    Raises:
        KsdiffError: a file is damaged.
    """
    gains, sensor = table_gains(pair)
    if mtf == "scene" and (found := find_camera(pair, progress)).reliable:
        together = camera_kernel(found.gain, found.compensation)
        return MsCamera(found.kernels(gains), together, "the camera found in the scene")
    together = camera_kernel(sum(gains) / len(gains))
    return MsCamera(tuple(map(camera_kernel, gains)), together, f"MTF of sensor {sensor.name}")
