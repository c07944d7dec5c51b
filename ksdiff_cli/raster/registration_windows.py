"""The windows in which PAN and MS are compared: where they lie, what is read, and both images made alike."""

import math
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import distance_transform_edt, gaussian_filter

from ksdiff_cli.numerics import Array
from ksdiff_cli.numerics.fill import fill_invalid
from ksdiff_cli.numerics.grids import Axis, GridMap, degrade
from ksdiff_cli.progress import ProgressCallback, silent
from ksdiff_cli.raster.pair import ScenePair

RANGE = 10
"""Largest lag that is looked for, MS pixels."""


@dataclass(frozen=True)
class Layout:
    """How windows are spread over a scene."""

    along: int
    """Windows along a side of the scene, at most."""
    side: int
    """Of a window, MS pixels."""


FEW, MANY = Layout(5, 64), Layout(9, 48)
"""To show a scene's shift, and to show how it varies over the scene."""
_GAIN = 0.3  # of the Gaussian through which PAN is seen at the MS pixels
_REACH = 3  # MS pixels that this Gaussian looks at on each side, rounded up
_BAND = (0.5, 1.5)  # deviations, in MS pixels, of the two Gaussians whose difference is the band-pass
_TAPER = 8  # MS pixels over which a window fades towards its border and towards holes
_LEAST = 100  # pixels that a window must have away from borders and holes


@dataclass(frozen=True)
class CompareWindow:
    """A part of a scene that is read once and then compared at several shifts."""

    pan: Array
    """(1, H, W) float32 DN, with a margin for the largest lag; invalid pixels filled."""
    pan_valid: Array
    """(H, W) bool."""
    ms: Array
    """(bands, h, w) float32 DN; invalid pixels filled."""
    ms_valid: Array
    """(h, w) bool; clouds are not valid."""
    grid: GridMap
    """Pixels of ``pan`` -> pixels of ``ms``."""
    place: tuple[float, float] = (0.0, 0.0)
    """Row and column of the middle of what is valid, pixels of the MS image."""

    def fields(self, shift: tuple[float, float]) -> tuple[Array, Array] | None:
        """Make PAN and MS alike: on the MS pixels, in one band of frequencies, fading at borders and holes.

        Args:
            shift: MS rows and columns by which MS is taken to lie further down and right than ``grid`` says.

        Returns:
            PAN (h, w) and MS (bands, h, w), float64; None where too few pixels are left.
        """
        grid, shape = self.grid.moved(*shift), self.ms_valid.shape
        pan = degrade(self.pan, grid, shape, (_GAIN,))
        valid = self.ms_valid & _inside(grid.rows, shape[0], self.pan.shape[1])[:, None]
        valid &= _inside(grid.cols, shape[1], self.pan.shape[2])
        if not self.pan_valid.all():
            valid &= degrade(self.pan_valid[None].astype(np.float32), grid, shape, (_GAIN,))[0] > 0.999
        # beyond the border a window goes on as a hole does
        depth = distance_transform_edt(np.pad(valid, 1))[1:-1, 1:-1]
        taper = np.sin(np.pi / 2 * np.clip((depth - 0.5) / _TAPER, 0, 1)) ** 2
        if (taper > 0.5).sum() < _LEAST:
            return None
        return _band_pass(pan)[0] * taper, _band_pass(self.ms) * taper


def read_windows(pair: ScenePair, progress: ProgressCallback = silent, layout: Layout = FEW) -> list[CompareWindow]:
    """Read windows of MS, by default up to 25 of 64 x 64 pixels, spread evenly over the common area.

    A small scene is one window. Where windows would lie far apart, each is the better of two neighbours: more texture,
    fewer holes and clouds.

    Args:
        pair: the open scene.
        progress: told the windows read.
        layout: how many windows, at most, and how large.

    Returns:
        The windows that hold data.

    Raises:
        KsdiffError: a file is damaged.
    """
    rows = _cells(pair.grid.rows, pair.shape[0], pair.ms_shape[0], layout)
    cols = _cells(pair.grid.cols, pair.shape[1], pair.ms_shape[1], layout)
    cells = [(row, col) for row in rows for col in cols]
    windows = []
    for done, (row, col) in enumerate(cells, start=1):
        best, most = None, 0.0
        for (top, height), (left, width) in dict.fromkeys([(row[0], col[0]), (row[-1], col[-1])]):
            ms, valid = pair.read_ms(top, left, height, width)
            valid = valid & ~pair.read_cloud(top, left, height, width)
            texture = _texture(ms, valid)
            if texture > most:
                best, most = (top, left, ms, valid), texture
        if best is not None:
            windows.append(_with_pan(pair, *best))
        progress(done, len(cells), "registration")
    return windows


def _cells(axis: Axis, count: int, size: int, layout: Layout) -> list[list[tuple[int, int]]]:
    """Lay cells along an axis: for each the (start, length) in MS pixels of the windows to choose from."""
    ends = sorted((axis.to_ms(0), axis.to_ms(count - 1)))
    first = min(max(0, math.ceil(ends[0] - 0.5)), size - 1)
    length = max(1, min(size - 1, math.floor(ends[1] + 0.5)) - first + 1)
    side = layout.side
    if length < 1.5 * side:
        return [[(first, length)]]
    number = min(layout.along, 1 + (length - side) // (side // 2))
    starts = [first + round(index * (length - side) / (number - 1)) for index in range(number)]
    if starts[1] - starts[0] < 2 * side:
        return [[(start, side)] for start in starts]
    inwards = [side] * (number - 1) + [-side]
    return [[(start, side), (start + step, side)] for start, step in zip(starts, inwards, strict=True)]


def _texture(ms: Array, valid: Array) -> float:
    """Rate how much a window has to compare: the mean contrast of its details, less where much is invalid."""
    seen = float(valid.mean())
    if seen < 0.3:
        return 0.0
    # the mean, not the deviation: a flat place with one bright edge has little to compare
    contrast = np.abs(_band_pass(fill_invalid(ms, valid)))[:, valid].mean(1)
    return float(contrast.sum() * seen**2)


def _with_pan(pair: ScenePair, top: int, left: int, ms: Array, valid: Array) -> CompareWindow:
    """Read the PAN under an MS window and as much around it as the largest lag can call for."""
    (row, height), (col, width) = (
        _under(axis, start, count, size)
        for axis, start, count, size in zip(
            (pair.grid.rows, pair.grid.cols), (top, left), valid.shape, pair.shape, strict=True
        )
    )
    pan, pan_valid = pair.read_pan(row, col, height, width)
    grid = pair.grid.shifted(row, col).moved(-top, -left)
    at_rows, at_cols = np.nonzero(valid)
    middle = float(at_rows.mean()) + top, float(at_cols.mean()) + left
    return CompareWindow(fill_invalid(pan, pan_valid), pan_valid, fill_invalid(ms, valid), valid, grid, middle)


def _under(axis: Axis, start: int, count: int, size: int) -> tuple[int, int]:
    """First PAN pixel and number of PAN pixels under MS pixels and their margin."""
    margin = RANGE + _REACH
    ends = sorted((axis.to_pan(start - margin), axis.to_pan(start + count - 1 + margin)))
    first, stop = max(0, math.floor(ends[0])), min(size, math.ceil(ends[1]) + 1)
    return first, stop - first


def _inside(axis: Axis, count: int, size: int) -> Array:
    """Say which of ``count`` MS pixels have their centre on an image of ``size`` PAN pixels, (count,) bool."""
    at = axis.to_pan(np.arange(count))
    return np.asarray((at >= -0.5) & (at <= size - 0.5))


def _band_pass(image: Array) -> Array:
    """Difference of Gaussians over the last two axes: it whitens, and leaves out where noise and aliasing rule."""
    fine, coarse = (
        gaussian_filter(image, (0, sigma, sigma), output=np.float64, mode="nearest", truncate=3.0) for sigma in _BAND
    )
    return np.asarray(fine - coarse)
