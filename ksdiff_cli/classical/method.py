"""The interface of a classical method: coefficients gathered over a whole scene, then applied to it pixel by pixel."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ksdiff_cli.checks import Geometry
from ksdiff_cli.errors import KsdiffError
from ksdiff_cli.numerics import Array
from ksdiff_cli.numerics.camera import Kernel, SceneCamera
from ksdiff_cli.numerics.moments import JointMoments, divide
from ksdiff_cli.numerics.toolbox import is_power_of_two
from ksdiff_cli.sensors import Sensor, find_sensor

_FLOOR = 0.05


@dataclass(frozen=True)
class Setup:
    """The facts that a method needs beside the images."""

    ratio: int
    """PAN pixels per MS pixel along a side."""
    gains: tuple[float, ...]
    """MTF of each MS band at the MS Nyquist frequency, (0, 1)."""
    gain_pan: float
    """MTF of PAN in the same sense, (0, 1)."""
    geometry: Geometry = "toolbox"
    """How MS lies on PAN, and with it the filters.

    ``toolbox``: MS pixel k on PAN pixel rk + r/2; everything as in the field's reference toolbox, for whole images of a
    ratio that is a power of two. ``area``: pixel areas coincide, as in real products; filters have unit sum, skip
    invalid pixels and do not decimate where the reference decimates and interpolates, so that any window of a scene
    gives the same numbers at any ratio; and a divisor is never below 5 % of its scene mean (see :func:`modulate`).
    """
    weights: tuple[float, ...] = ()
    """How PAN mixes the MS bands by the sensor's table, their sum is 1; () where it does not tell: all alike."""
    compensation: float = 0.0
    """The sharpening of MS by the ground segment after its MTF, see :mod:`ksdiff_cli.numerics.camera`; 0 is nothing."""


@dataclass(frozen=True)
class SceneBlock:
    """A piece of a scene, everything on the PAN grid; in ``toolbox`` geometry the whole image.

    Float64, but for :attr:`Method.apply` of methods that look at one pixel at a time float32 where a scene is sharpened
    whose result is float32: it differs by rounding alone, one part in a million, and takes a third of the time.
    """

    pan: Array
    """(H, W), DN."""
    ms_up: Array
    """(bands, H, W), DN; upsampled MS."""
    valid: Array
    """(H, W) bool; pixels that hold data."""
    core: Array
    """(H, W) bool; pixels that statistics count: valid, and not in the margin that is there for the filters."""
    scene_pixels: int
    """Pixels of the whole scene, valid or not."""


@dataclass(frozen=True)
class Thinned:
    """Coefficients from the moments of every so many-th pixel: rows and columns in steps of one more than the ratio.

    That is less than what an MS pixel blurs, and meets by and by all places of PAN's pixels between those of MS.
    """

    kernels: Callable[[Setup], Sequence[Kernel]]
    """The low-pass filters of the method's ``gather`` as sums of Gaussians, whose deviations are in PAN pixels here."""
    fit: Callable[[JointMoments, Setup], Any]
    """Coefficients from the joint moments of PAN, all upsampled bands, and PAN through each filter."""


@dataclass(frozen=True)
class Method:
    """One classical method. ``fuse = apply(block, gather(blocks))``."""

    title: str
    """Its name in full."""
    source: str
    """Where it was published."""
    gather: Callable[[Iterable[SceneBlock], Setup], Any]
    """Coefficients from all blocks of a scene; the blocks' cores cover it without overlap."""
    apply: Callable[[SceneBlock, Any, Setup], Array]
    """Sharpened bands (bands, H, W) of one block, from its pixels and the coefficients alone, of their precision."""
    gather_reach: Callable[[int], int]
    """Margin in PAN pixels that ``gather`` needs around a block's core, by the ratio."""
    apply_reach: Callable[[int], int]
    """Margin in PAN pixels that ``apply`` needs, by the ratio."""
    uses_mtf: bool = False
    """Whether the sensor's MTF gains matter."""
    weighs: bool = False
    """Whether it asks how the sensor's PAN mixes the bands."""
    divides: bool = False
    """Whether it divides by radiances, which must not lie around 0."""
    thinned: Thinned | None = None
    """How coefficients come from some of a large scene's pixels, at a tenth of the cost; None where it takes all."""


def modulate(above: Array, below: Array, mean: Array | float, setup: Setup) -> Array:
    """Divide images of radiances; 1 where the divisor is 0.

    Dark pixels make the published methods blow up: shadow, water, black borders not declared as nodata. In area
    geometry the divisor is therefore kept at 5 % of its mean or above, and what is above it is raised as much: where
    both are dark, or below 0, and alike, the quotient is 1. The reference's geometry leaves them alone.

    Args:
        above: (..., H, W), DN.
        below: (..., H, W), DN.
        mean: of the divisor over the scene, broadcast against it, DN.
        setup: with the geometry.
    """
    if setup.geometry == "area":
        means = np.asarray(mean, below.dtype)
        floor = np.where(means > 0, below.dtype.type(_FLOOR) * means, -np.inf).astype(below.dtype)
        if (below < floor).any():
            raised = np.maximum(below, floor)
            above, below = above + (raised - below), raised
        if (means > 0).all():  # then no divisor is 0
            return np.asarray(above / below)
    return divide(above, below, 1.0)


def scale(up: Array, quotient: Array, setup: Setup) -> Array:
    """Multiply bands (bands, H, W) by the quotient of :func:`modulate`; in area geometry only what is above 0.

    Below 0 there is no radiance to be divided among the bands, yet a quotient may be large where a divisor is small.
    """
    if setup.geometry == "area" and up.min() < 0:
        quotient = np.where(up < 0, up.dtype.type(1), quotient)
    return np.asarray(up * quotient)


def weigh(weights: Array, image: Array) -> Array:
    """Sum bands by weights, always in their order: (bands,), (bands, H, W) -> (H, W).

    A matrix product would take about as long, and round a pixel by its place in the array.
    """
    total = np.asarray(weights[0] * image[0])
    for weight, plane in zip(weights[1:], image[1:], strict=True):
        total += weight * plane
    return total


def no_reach(ratio: int) -> int:
    """Return the margin of a method that looks at one pixel at a time."""
    return 0


def make_setup(
    method: Method, sensor: Sensor, bands: int, ratio: int, geometry: Geometry, camera: SceneCamera | None = None
) -> Setup:
    """Return what ``method`` must know, with the sensor's MTF gains if it uses them.

    Args:
        method: asks.
        sensor: whose gains these are.
        bands: number of MS bands.
        ratio: see :class:`Setup`.
        geometry: see :class:`Setup`.
        camera: found in the scene, in place of the sensor's gains where it is reliable; in area geometry only.

    Raises:
        KsdiffError: the sensor's gains do not match the number of bands, or the ratio suits no toolbox geometry.
    """
    if geometry == "toolbox" and not is_power_of_two(ratio):
        raise KsdiffError(f"the reference's upsampling needs a ratio that is a power of two, not {ratio}")
    chosen = sensor if method.uses_mtf else find_sensor(None)
    if method.uses_mtf and camera and camera.reliable:
        assert geometry == "area", "the reference's filters compensate nothing"
        # what the reference calls PAN's gain is that of the filter which makes PAN as soft as MS
        gains = camera.gains(chosen.ms_gains(bands))
        return Setup(ratio, gains, camera.gain, geometry, compensation=camera.compensation)
    weights = sensor.pan_weights() if method.weighs and len(sensor.bands) == bands else ()
    return Setup(ratio, chosen.ms_gains(bands), chosen.mtf_pan, geometry, weights)


def make_block(pan: Array, ms_up: Array, valid: Array | None = None) -> SceneBlock:
    """Return a whole image as one block.

    Args:
        pan: (1, H, W), DN.
        ms_up: (bands, H, W), DN.
        valid: (H, W) bool; None for all.

    Raises:
        KsdiffError: the shapes do not fit each other, or there is no valid pixel.
    """
    if pan.ndim != 3 or ms_up.ndim != 3 or pan.shape != (1, *ms_up.shape[1:]):
        raise KsdiffError(f"PAN {pan.shape} and upsampled MS {ms_up.shape} do not fit each other")
    mask = np.ones(pan.shape[1:], bool) if valid is None else valid
    if not mask.any():
        raise KsdiffError("no pixel holds data; nothing to sharpen")
    return SceneBlock(np.asarray(pan[0], np.float64), np.asarray(ms_up, np.float64), mask, mask, mask.size)


def fuse(method: Method, pan: Array, ms_up: Array, setup: Setup, valid: Array | None = None) -> Array:
    """Sharpen a whole image in memory.

    Args:
        method: one of :data:`ksdiff_cli.classical.METHODS`.
        pan: (1, H, W), DN.
        ms_up: (bands, H, W), DN; in toolbox geometry made by :func:`ksdiff_cli.numerics.toolbox.interp23tap`.
        setup: ratio, gains and geometry.
        valid: (H, W) bool, pixels that hold data; None for all.

    Returns:
        (bands, H, W) float64, DN; neither clipped nor rounded.

    Raises:
        KsdiffError: shapes, gains or geometry do not fit each other.
    """
    block = make_block(pan, ms_up, valid)
    if len(setup.gains) != len(ms_up):
        raise KsdiffError(f"{len(setup.gains)} MTF gains for {len(ms_up)} bands")
    if setup.geometry == "toolbox":
        if any(size % setup.ratio for size in block.pan.shape) or not is_power_of_two(setup.ratio):
            raise KsdiffError(
                f"the reference's filters need a ratio that is a power of two and sides that are its multiples, "
                f"not ratio {setup.ratio} and {block.pan.shape[1]} x {block.pan.shape[0]} pixels"
            )
        if not block.valid.all():
            raise KsdiffError("the reference's filters know no invalid pixels; use the area geometry")
    return method.apply(block, method.gather([block], setup), setup)
