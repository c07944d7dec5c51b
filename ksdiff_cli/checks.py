"""What people give, checked before any work: one of some names, a number in a range; else one line that says so."""

import math
import reprlib
from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from typing import Any, Literal, get_args

from ksdiff_cli.errors import KsdiffError, did_you_mean

Registration = Literal["check", "correct", "skip"]
"""Handling of a shift between PAN and MS; see :func:`ksdiff_cli.raster.registration.check_registration`."""
Dtype = Literal["uint8", "uint16", "int16", "uint32", "int32", "float32", "float64"]
"""Data types that an output may be given."""

Format = Literal["GTiff", "COG", "VRT"]
"""Of an output: GeoTIFF, cloud optimized GeoTIFF (with overviews), or a virtual raster with a folder of GeoTIFFs."""
GuideBy = Literal["synthesis", "selection"]
"""How finer bands stand for PAN; see :mod:`ksdiff_cli.raster.synthesis`."""
Mtf = Literal["scene", "sensor"]
"""Whose MTF counts: the camera found in the scene, or the sensor's table."""
MethodName = Literal[
    "ksdiff", "exp", "brovey", "gs", "gsa", "bdsd-pc", "mtf-glp-fs", "bt-h", "mtf-glp-hpm-r", "awlp", "awlp-r", "pracs"
]
"""What sharpens: the network, or a classical method by name (exp: interpolation only). Here, as listing them must load
no method; a test compares it with the registry."""
OTHER_METHODS = {
    "nndiffuse": "ksdiff or mtf-glp-fs", "nnd": "ksdiff or mtf-glp-fs", "gram-schmidt": "gs, or gsa, the adaptive one",
    "gramschmidt": "gs, or gsa, the adaptive one", "ihs": "brovey or gsa", "his": "brovey or gsa", "pca": "gs or gsa",
    "esri": "brovey or gs", "mean": "brovey or gs",
}  # fmt: skip
"""Methods that other programs have, and what to take in their place here."""
Geometry = Literal["area", "toolbox"]
"""Where reduced pixels sit: by pixel areas, as on the ground, or on pixels 4k+2, as in PanCollection's files."""
Units = Literal["dn", "radiance", "reflectance"]
"""What values stand for: DN, or radiance or reflectance at the top of the atmosphere."""
CropName = Literal["full", "cut21", "cut30"]
"""Which part of an image is measured: all, or without a border of 21 or 30 pixels, as the literature has it."""

Nodata = float | Literal["none"] | None
"""What means "no data" in an image: a value, in place of what its file declares; "none": no value does, though the file
declares one; None: what the file declares."""

_LONGEST = 200  # signs of a value in a message
LARGEST_SEED = 2**24 - 1
"""What leaves room for stage and step in the 64 bits that a step's random numbers start from."""


def check_choice(name: str, value: object, choices: Any) -> None:
    """Refuse what is not one of some names.

    Args:
        name: what the person calls the value.
        value: what was given.
        choices: a ``Literal`` of strings.

    Raises:
        KsdiffError: see above.
    """
    known = get_args(choices)
    if not isinstance(value, str) or value not in known:
        hint = did_you_mean(str(value), known).removeprefix("; ")
        raise KsdiffError(f"{name} {shown(value)}: {hint + ' ' if hint else ''}choose one of {', '.join(known)}")


def check_number(
    name: str,
    value: Any,
    least: float,
    most: float = math.inf,
    *,
    whole: bool = False,
    above: bool = False,
) -> None:
    """Refuse what is not a finite number in a range.

    Args:
        name: what the person calls the value.
        value: what was given; numbers of NumPy's types are numbers too.
        least: smallest number of the range.
        most: its largest number.
        whole: whether it must be a whole number (an integer type).
        above: whether ``least`` itself is refused.

    Raises:
        KsdiffError: see above.
    """
    good = isinstance(value, Integral if whole else Real) and not isinstance(value, bool)
    # NaN is in no range, infinity at the end of some
    if good and least <= value <= most and value != math.inf and not (above and value == least):
        return
    kind = "a whole number" if whole else "a number"
    bounded = math.isfinite(most)
    if above:
        words = f"above {least}, at most {most}" if bounded else f"above {least}"
    else:
        words = f"from {least} to {most}" if bounded else f"of at least {least}"
    raise KsdiffError(f"{name} {shown(value)}: give {kind} {words}")


def check_four(name: str, value: object, words: str, *, whole: bool = False) -> None:
    """Refuse what is not a sequence of four numbers.

    Args:
        name: what the person calls the value.
        value: what was given.
        words: what the four are.
        whole: whether they must be whole numbers.

    Raises:
        KsdiffError: see above.
    """
    kind = Integral if whole else Real
    if not isinstance(value, Sequence) or len(value) != 4 or not all(isinstance(number, kind) for number in value):
        raise KsdiffError(f"{name} {shown(value)}: give four {'whole ' if whole else ''}numbers, {words}")


def read_nodata(given: object, name: str = "src_nodata") -> tuple[Nodata, Nodata]:
    """Return what means "no data" in PAN and in MS.

    Args:
        given: a :data:`Nodata` for both, or a pair of them; or text with one or two of them, such as ``"0"`` or
            ``"file,-9999"``, where ``file`` stands for None.
        name: what the person calls it.

    Raises:
        KsdiffError: it is none of these.
    """
    parts = given.split(",") if isinstance(given, str) else given if isinstance(given, Sequence) else [given]
    try:
        found = [_nodata(part) for part in parts]
        pan, ms = found if len(found) == 2 else found * 2
    except (TypeError, ValueError):
        raise KsdiffError(
            f"{name} {shown(given)}: give a number, nan, none (all pixels are data) or file (as it declares), or one "
            "of these for PAN and one for MS: file,-9999"
        ) from None
    return pan, ms


def _nodata(given: object) -> Nodata:
    if isinstance(given, str):
        text = given.strip().lower()
        return None if text == "file" else "none" if text == "none" else float(text)
    if given is not None and (isinstance(given, bool) or not isinstance(given, Real)):
        raise TypeError
    return None if given is None else float(given)


_NOT_WITH_ADAPT = {
    "sharpness": "a network is adapted to be as sharp as PAN",
    "uncertainty": "an adapted network keeps one draw's kernels",
}


def check_method(method: str, given: Mapping[str, object], option: str = "method") -> None:
    """Refuse what only the network has a use for beside another method, and what does not go together.

    Args:
        method: ``ksdiff`` or another one.
        given: by the names that the person knows; None stands for what was not given.
        option: what the person calls the method's choice.

    Raises:
        KsdiffError: see above.
    """
    for name, value in given.items():
        if method != "ksdiff" and value is not None:
            raise KsdiffError(f"{name} goes with {option} ksdiff, not {method}")
    named = {name.strip("-"): name for name, value in given.items() if value}
    for other, why in _NOT_WITH_ADAPT.items():
        if "adapt" in named and other in named:
            raise KsdiffError(f"{named['adapt']} and {named[other]}: {why}; leave one of them out")


def shown(value: object) -> str:
    """Return a value in one short line."""
    try:
        text = str(value) if isinstance(value, Real) else reprlib.repr(value)
    except ValueError:  # Python writes no number of thousands of digits
        return "a number too long to be written"
    return " ".join(text.split()) if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
