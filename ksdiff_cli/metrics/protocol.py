"""Which part of an image is measured: the crop protocols in use in the literature."""

from typing import get_args

from ksdiff_cli.checks import CropName
from ksdiff_cli.errors import KsdiffError
from ksdiff_cli.numerics import Array

CROPS: tuple[CropName, ...] = get_args(CropName)
_CUT: dict[str, int] = {"full": 0, "cut21": 21, "cut30": 30}


def crop_slices(height: int, width: int, protocol: str = "full") -> tuple[slice, slice]:
    """Return the rows and columns that a protocol measures.

    ``full`` measures everything. ``cutD`` keeps rows and columns D..N-D counted from 1, both included, as the reference
    toolbox does: D-1 are lost on the top and left, D on the bottom and right.

    Raises:
        KsdiffError: no such protocol, or nothing would be left.
    """
    if protocol not in _CUT:
        raise KsdiffError(f"no crop protocol is called {protocol!r}: choose one of {' '.join(_CUT)}")
    cut = _CUT[protocol]
    if cut == 0:
        return slice(0, height), slice(0, width)
    if min(height, width) < 2 * cut:
        raise KsdiffError(f"{width} x {height} pixels are too few for the crop protocol {protocol}: use --crop full")
    return slice(cut - 1, height - cut), slice(cut - 1, width - cut)


def crop(image: Array, protocol: str = "full") -> Array:
    """Cut (..., H, W) to the part that a protocol measures; see :func:`crop_slices`."""
    return image[..., *crop_slices(image.shape[-2], image.shape[-1], protocol)]
