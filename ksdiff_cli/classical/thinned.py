"""JointMoments of a large scene from some of its pixels."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ksdiff_cli.numerics import Array
from ksdiff_cli.numerics.boxes import Box
from ksdiff_cli.numerics.camera import Kernel
from ksdiff_cli.numerics.grids import apply_separable, cubic_matrix, gaussian_matrix, gaussian_reach, reach
from ksdiff_cli.numerics.moments import JointMoments

if TYPE_CHECKING:
    from ksdiff_cli.raster.pair import ScenePair


_TRACE = 1e-4  # of what a pixel sees may be invalid


class ThinSurvey:
    """The moments that :class:`ksdiff_cli.classical.method.Thinned` asks for, of pixels that see valid ones only."""

    def __init__(self, pair: "ScenePair", kernels: Sequence[Kernel]) -> None:
        """Start with nothing of a scene."""
        self.pair, self.moments = pair, JointMoments()
        self._kernels = kernels
        self._sigmas = list(dict.fromkeys(sigma for kernel in kernels for _, sigma in kernel))
        self._reach = gaussian_reach(max(self._sigmas))

    def watch(self, box: Box) -> None:
        """Take in a part of the output grid."""
        step = self.pair.grid.ratio + 1
        spans = (box.top, box.bottom), (box.left, box.right)
        rows, cols = (np.arange(-(-start // step) * step, stop, step) for start, stop in spans)
        if rows.size and cols.size:
            pan, lows, core = self._blurred(rows, cols)
            ms_up, known = self._interpolated(rows, cols)
            self.moments.add(pan, ms_up, lows, where=core & known)

    def _blurred(self, rows: Array, cols: Array) -> tuple[Array, Array, Array]:
        """Return PAN (h, w), PAN through each filter (n, h, w) and where that is valid (h, w)."""
        (top, bottom), (left, right) = (
            (max(0, int(at[0]) - self._reach), min(size, int(at[-1]) + self._reach + 1))
            for at, size in zip((rows, cols), self.pair.shape, strict=True)
        )
        pan, valid = self.pair.read_pan(top, left, bottom - top, right - left)
        at = rows - top, cols - left
        places = [*zip(at, valid.shape, strict=True)]
        cameras = [[gaussian_matrix(place, size, sigma) for place, size in places] for sigma in self._sigmas]
        core = np.ones((rows.size, cols.size), bool)
        if not valid.all():
            pan = np.where(valid, pan, 0)
            for down, across in cameras:
                core &= apply_separable(down, across, ~valid[None])[0] <= _TRACE
            core &= valid[np.ix_(*at)]
        seen = [apply_separable(down, across, pan)[0].astype(np.float64) for down, across in cameras]
        blurred = dict(zip(self._sigmas, seen, strict=True))
        lows = [sum(weight * blurred[sigma] for weight, sigma in kernel) for kernel in self._kernels]
        return pan[0][np.ix_(*at)].astype(np.float64), np.stack(lows), core

    def _interpolated(self, rows: Array, cols: Array) -> tuple[Array, Array]:
        """Return upsampled MS (bands, h, w) and where it is valid (h, w)."""
        grid = self.pair.grid
        places = [*zip((grid.rows, grid.cols), (rows, cols), self.pair.ms_shape, strict=True)]
        (top, bottom), (left, right) = (
            reach(axis, int(at[-1] - at[0]) + 1, size, int(at[0])) for axis, at, size in places
        )
        ms, valid = self.pair.read_ms(top, left, bottom - top, right - left)
        up, over = (
            cubic_matrix(axis.to_ms(at), size, start)
            for (axis, at, _), size, start in zip(places, valid.shape, (top, left), strict=True)
        )
        known = np.ones((rows.size, cols.size), bool)
        if not valid.all():
            ms = np.where(valid, ms, 0)
            known = apply_separable(abs(up), abs(over), ~valid[None])[0] <= _TRACE
        return apply_separable(up, over, ms).astype(np.float64), known
