"""PAN and MS in radiance or reflectance instead of DN: the same conversion when a band is read, whoever reads it."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from ksdiff_cli.checks import Units
from ksdiff_cli.errors import KsdiffError
from ksdiff_cli.raster.bands import BandSource, Linear
from ksdiff_cli.raster.pair import Scene
from ksdiff_cli.raster.synthesis import GuidedScene

_STEPS: Mapping[str, float] = {"radiance": 0.02, "reflectance": 0.0001}
"""What one step of an integer type stands for: int16 then holds radiances up to 655 and reflectances up to 3.2."""
_NAMES: Mapping[str, str] = {"radiance": "W/m2/sr/um", "reflectance": "reflectance"}
_INTEGERS = ("int16", "uint16", "int32", "uint32")
UNITS_TAG, FACTORS_TAG = "UNITS", "FROM_DN"


def convert_scene(scene: Scene, units: Units, dtype: str | None = None) -> Scene:
    """Return a scene whose PAN and MS are read in other units.

    Args:
        scene: in DN.
        units: ``dn`` changes nothing.
        dtype: what they will be stored as; integers get values in steps of 0.02 or 0.0001, which their files declare.

    Raises:
        KsdiffError: the product's metadata do not tell what DN stand for, or the type holds no such values.
    """
    if units == "dn":
        return scene
    step = _step(units, dtype)
    return replace(
        scene, pan=_convert(scene.pan, units, step), ms=tuple(_convert(one, units, step) for one in scene.ms)
    )


def convert_guided(scene: GuidedScene, units: Units, dtype: str | None = None) -> GuidedScene:
    """Do the same with bands of several resolutions, see :func:`convert_scene`."""
    if units == "dn":
        return scene
    step = _step(units, dtype)
    groups = [replace(group, bands=tuple(_convert(one, units, step) for one in group.bands)) for group in scene.groups]
    return replace(scene, guide=tuple(_convert(one, units, step) for one in scene.guide), groups=tuple(groups))


def units_tags(scene: Scene) -> dict[str, str]:
    """Return what a scene's output must say of its units; nothing in DN.

    ``FROM_DN`` has gain and offset of PAN and of each band, from DN to these units, for whoever compares the output
    with PAN and MS as they were delivered.
    """
    if scene.pan.convert is None or scene.pan.unit is None:
        return {}
    unit = next(name for name, shown in _NAMES.items() if shown == scene.pan.unit)
    factors = [_factors(source) for source in (scene.pan, *scene.ms)]
    return {UNITS_TAG: unit, FACTORS_TAG: " ".join(f"{gain:.12g}:{offset:.12g}" for gain, offset in factors)}


def say_unit(source: BandSource) -> str:
    """Name the unit of the values that are read of a band."""
    if source.convert is None or source.unit is None:
        return "DN"
    return source.unit if source.scale == 1 else f"steps of {source.scale:g} {source.unit}"


def read_factors(tags: Mapping[str, str], bands: int) -> list[Linear] | None:
    """Return the gains and offsets of PAN and of each band that an output's tags have; None where it is in DN."""
    text = tags.get(f"KSDIFF_{FACTORS_TAG}", "")
    try:
        pairs = [tuple(map(float, pair.split(":"))) for pair in text.split()]
    except ValueError:
        return None
    factors = [(pair[0], pair[1]) for pair in pairs if len(pair) == 2 and np.isfinite(pair).all() and pair[0]]
    return factors if len(factors) == bands + 1 else None


def _step(units: str, dtype: str | None) -> float:
    if dtype is None or np.dtype(dtype).kind == "f":
        return 1.0
    if dtype not in _INTEGERS:
        raise KsdiffError(f"-t {dtype}: is too narrow for {units}; choose float32, int16 or uint16")
    return _STEPS[units]


def _convert(source: BandSource, units: Units, step: float) -> BandSource:
    known: Linear | None = None if source.calibration is None else getattr(source.calibration, units)
    if known is None:
        raise KsdiffError(
            f"{source.path}: no metadata tell its {units}; --units goes with whole products of Landsat (level 1), "
            "Maxar, DIMAP (BASIC) and Sentinel-2: name the product's folder, or leave --units out"
        )
    gain, offset = known
    return replace(source, convert=(gain / step, offset / step), scale=step, offset=0.0, unit=_NAMES[units])


def _factors(source: BandSource) -> Linear:
    gain, offset = source.convert or (1.0, 0.0)
    step = source.scale or 1.0
    return gain * step, offset * step
