"""Q2n: the hypercomplex quality index (Q4 for 4 bands, Q8 for 8), on distinct 32x32 cells."""

import math
from functools import lru_cache

import numpy as np

from ksdiff_cli.errors import KsdiffError
from ksdiff_cli.metrics.blocks import CELL, Block, Metric, Span, cells, make_block, measure
from ksdiff_cli.numerics import Array

_SMALLEST_SIDE = CELL // 2
_COUNT = CELL * CELL
_UNBIASED = _COUNT / (_COUNT - 1)
_FLAT = 2.0**-52
"""The divisor of the reference where a cell of the reference image is constant in a band."""
_LEAST_PEAK = 8
_TOP = 65535


class Q2n(Metric):
    """Accumulator of :func:`q2n`; NaN if every cell holds nodata."""

    def __init__(self, check_range: bool = True) -> None:
        """Start with no cells; see :func:`q2n` for ``check_range``."""
        self.check_range = check_range
        self.total = 0.0
        self.count = 0
        self.peak = 0.0
        self.fractions = False

    def update(self, block: Block) -> None:
        """Take one block in; its core must begin at multiples of 32."""
        core = block.view(0, 0)
        values = q2n_cells(core)
        good = np.isfinite(values)
        self.total += float(values[good].sum())
        self.count += int(np.count_nonzero(good))
        self.peak = max(self.peak, float(np.abs(core.reference).max(initial=0)))
        self.fractions = self.fractions or bool((core.reference != np.rint(core.reference)).any())

    def result(self) -> float:
        """Return the mean over cells.

        Raises:
            KsdiffError: the reference image is not in DN.
        """
        if self.check_range and self.fractions and 0 < self.peak < _LEAST_PEAK:
            raise KsdiffError(
                f"Q2n rounds to whole DN and the reference image only reaches {self.peak:.3g}: rescale both to DN"
            )
        if self.check_range and self.peak > _TOP:
            raise KsdiffError(f"Q2n works on 16-bit DN and the reference image reaches {self.peak:.6g}: rescale to DN")
        return self.total / self.count if self.count else math.nan


def q2n(reference: Array, fused: Array, valid: Array | None = None, check_range: bool = True) -> float:
    """Return the hypercomplex quality index of two images, averaged over distinct 32x32 cells.

    Bands are the components of a hypercomplex number; zero bands are appended up to a power of two. Both images are
    rounded to 16-bit DN first, as the reference does: meaningless for data in [0, 1], hence refused.

    Args:
        reference: (bands, H, W), DN, sides at least 16. The order matters: cells are scaled by this image.
        fused: (bands, H, W), DN.
        valid: (H, W) bool; cells with a pixel that is not valid are left out. ``None`` for all.
        check_range: refuse a reference image that cannot be in DN: fractions below 8, or values above 65535.

    Returns:
        [0, 1], 1 is best; nearly 0 where the reference is constant and the fused image differs; NaN if every cell
        holds nodata. A sign flip of the contrast does not lower it (a norm is taken).

    Raises:
        KsdiffError: shapes differ, values are not finite or not in DN, or a side is under 16 pixels.

    References:
        Garzelli, Nencini, "Hypercomplex quality assessment of multi/hyperspectral images", IEEE GRSL 2009.
    """
    return measure(Q2n(check_range), reference, fused, valid)


def q2n_map(reference: Array, fused: Array, valid: Array | None = None) -> Array:
    """Return Q2n of each cell: (bands, H, W) twice -> (ceil(H/32), ceil(W/32)) float64, NaN where nodata."""
    return q2n_cells(make_block(reference, fused, valid))


def q2n_cells(block: Block) -> Array:
    """Return Q2n of each cell of a block's core, NaN for cells with pixels to leave out."""
    block = block.view(0, 0)
    pads = [_padding(span) for span in (block.rows, block.cols)]
    reference, fused = (np.pad(image, [(0, 0), *pads], mode="symmetric") for image in (block.reference, block.fused))
    valid = cells(np.pad(block.valid, pads, mode="symmetric")).all(-1)
    # a row of cells at a time stays in the processor's cache
    rows = [
        _index(_to_dn(reference[:, at : at + CELL]), _to_dn(fused[:, at : at + CELL]))
        for at in range(0, reference.shape[1], CELL)
    ]
    return np.where(valid, np.stack(rows), np.nan)


def _padding(span: Span) -> tuple[int, int]:
    if span.size < _SMALLEST_SIDE:
        raise KsdiffError(f"Q2n needs at least {_SMALLEST_SIDE} pixels along a side, not {span.size}")
    if span.start % CELL or (span.stop % CELL and span.stop != span.size):
        raise ValueError(f"a block [{span.start}, {span.stop}) does not hold whole cells of {CELL} pixels")
    return 0, -span.stop % CELL


def _to_dn(image: Array) -> Array:
    """Round to 16-bit DN: half away from zero, negatives to 0."""
    rounded = np.rint(image)
    rounded += image - rounded == 0.5  # rint takes halves to the even neighbour
    return np.clip(rounded, 0, _TOP, out=rounded)


@lru_cache(maxsize=8)
def _multiplication_table(size: int) -> Array:
    """Return (size, size, size): component k of the product of unit i and unit j."""
    units = np.eye(size)
    table = _product(units[:, :, None], units[:, None, :])
    table.flags.writeable = False
    return table


def _product(u: Array, v: Array) -> Array:
    """Multiply hypercomplex numbers, components along the first axis; Cayley and Dickson's doubling, * = conjugate.

    (a, b)(c, d) = (ac - d*b, a*d* + cb*), and for complex numbers the usual product.
    """
    if len(u) == 1:
        return u * v
    if len(u) == 2:
        return np.stack([u[0] * v[0] - u[1] * v[1], u[0] * v[1] + u[1] * v[0]])
    half = len(u) // 2
    a, b, c, d = u[:half], u[half:], v[:half], v[half:]
    first = _product(a, c) - _product(_conjugate(d), b)
    second = _product(_conjugate(a), _conjugate(d)) + _product(c, _conjugate(b))
    return np.concatenate([first, second])


def _conjugate(u: Array) -> Array:
    return np.concatenate([u[:1], -u[1:]])


def _index(reference: Array, fused: Array) -> Array:
    """Return Q2n of one row of cells: (bands, 32, W) twice, whole DN -> (W/32,)."""
    # (cells, bands, pixels)
    x, y = (np.moveaxis(cells(image)[:, 0], 0, 1) for image in (reference, fused))
    mean = x.mean(-1, keepdims=True)
    spread = x.std(-1, ddof=1, keepdims=True)
    spread[spread == 0] = _FLAT
    x = (x - mean) / spread + 1
    y = np.where(mean == 0, y, (y - mean) / spread) + 1
    bands = x.shape[1]
    size = 1 << (bands - 1).bit_length()
    if size > bands:
        # appended bands are zero in both images and have mean 0: 1 after the scaling
        x, y = (np.concatenate([z, np.ones((len(z), size - bands, _COUNT))], 1) for z in (x, y))
    y[:, 1:] *= -1  # the conjugate
    mean_x, mean_y = x.mean(-1), y.mean(-1)
    x = x - mean_x[..., None]
    y = y - mean_y[..., None]
    # the product is bilinear: its covariance follows from the bands' cross-covariances, E(xy) - E(x)E(y)
    cross = _UNBIASED / _COUNT * (x @ y.transpose(0, 2, 1))
    covariance = np.einsum("kij,nij->nk", _multiplication_table(size), cross)
    variances = _UNBIASED / _COUNT * (np.einsum("nbp,nbp->n", x, x) + np.einsum("nbp,nbp->n", y, y))
    square_x, square_y = (np.einsum("nb,nb->n", mean, mean) for mean in (mean_x, mean_y))
    bias = 2 * np.sqrt(square_x * square_y) / (square_x + square_y)
    contrast = np.divide(2, variances, out=np.zeros_like(variances), where=variances > 0)
    value = np.linalg.norm(covariance, axis=1) * contrast
    return np.asarray(bias * np.where(variances > 0, value, 1.0))
