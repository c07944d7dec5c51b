"""The cameras of an open scene, found in some of its parts: :mod:`ksdiff_cli.numerics.camera` for files."""

from ksdiff_cli.errors import KsdiffError
from ksdiff_cli.numerics.camera import SceneCamera, View, fit_camera, view_boxes
from ksdiff_cli.progress import ProgressCallback, silent
from ksdiff_cli.raster import ScenePair
from ksdiff_cli.sensors import find_sensor


def find_camera(pair: ScenePair, progress: ProgressCallback = silent) -> SceneCamera:
    """Find the cameras of a scene.

    What is read is bounded, and laid out by the scene's grid alone: the same scene gives the same camera whatever
    windows and processes sharpen it.

    Args:
        pair: the open scene; the shift found is beyond what its grid already knows.
        progress: told the parts read.

    Raises:
        KsdiffError: a file is damaged.
    """
    views = []
    boxes = view_boxes(pair.grid, pair.shape, pair.ms_shape)
    for done, (over, under) in enumerate(boxes, start=1):
        place = over.top, over.left, over.height, over.width
        ms, ms_valid = pair.read_ms(*place)
        ms_valid &= ~pair.read_cloud(*place)
        if ms_valid.any():
            pan, pan_valid = pair.read_pan(under.top, under.left, under.height, under.width)
            grid = pair.grid.shifted(under.top, under.left).moved(-over.top, -over.left)
            views.append(View(pan[0], pan_valid, ms, ms_valid, grid))
        progress(done, len(boxes), "cameras")
    try:
        gains = pair.scene.sensor.ms_gains(pair.bands)
    except KsdiffError:  # the sensor has other bands
        gains = find_sensor(None).ms_gains(pair.bands)
    return fit_camera(views, pair.bands, gains)
