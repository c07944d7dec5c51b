"""Sensors by name: of the table, or of a TOML file that people write; sample_data/sensor.toml shows one."""

import re
import tomllib
from collections import Counter
from collections.abc import Mapping
from dataclasses import fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from ksdiff_cli.checks import shown
from ksdiff_cli.errors import KsdiffError
from ksdiff_cli.sensors import table  # noqa: F401  # which fills SENSORS
from ksdiff_cli.sensors.sensor import SENSORS, Sensor, Sources, Span, fold_name

_NAMES = {
    fold_name(name): sensor for sensor in SENSORS.values() for name in (sensor.name, sensor.title, *sensor.aliases)
}


def find_sensor(name: str | None) -> Sensor:
    """Return the sensor that a person or a product means.

    Args:
        name: short name, title or alias in any case and punctuation (``WV3``, ``WorldView-3``, ``wv03``); or the path
            of a sensor file, which ends in ``.toml`` (see :func:`read_sensor`). None for the generic sensor.

    Raises:
        KsdiffError: no such sensor, and the message names the nearest one; or the file is no sensor.
    """
    if name is None:
        return SENSORS["generic"]
    if name.lower().endswith(".toml"):
        return read_sensor(name)
    if found := by_any_name(name):
        return found
    near = get_close_matches(fold_name(name), _NAMES, n=1)
    hint = f"did you mean {_NAMES[near[0]].name}?" if near else f"known: {' '.join(SENSORS)}; or a sensor file (.toml)"
    raise KsdiffError(f"no sensor is called {name!r}: {hint}")


def find_in_name(name: str, bands: int) -> Sensor | None:
    """Return the one sensor that a file's name holds, as ``train_wv3`` or ``Test(HxWxC)_qb_data1``; None otherwise.

    Args:
        name: without folder and extension.
        bands: of the file's MS; a sensor with other bands is not meant.
    """
    words = re.findall(r"[a-z]+\d*", name.lower())
    found = [one for one in SENSORS.values() if one.name.lower() in words and len(one.bands) == bands]
    return found[0] if len(found) == 1 else None


def by_any_name(name: str) -> Sensor | None:
    """Return the table's sensor of that short name, title or alias, in any case and punctuation; None if none."""
    return _NAMES.get(fold_name(name))


_NEEDED = ("name", "bands", "ratio", "bits", "mtf_ms", "mtf_pan")
_KNOWN = (*_NEEDED, "title", "wavelengths", "pan_wavelengths", "sources")
_SOURCES = tuple(each.name for each in fields(Sources))
_LARGEST = 1 << 20  # bytes
_RATIO, _BITS, _NM = (2, 20), (1, 16), (200, 15000)


class _ValueError(Exception):
    """A value that cannot be, with what it should be; the file's name is added later."""


def read_sensor(path: str) -> Sensor:
    """Read a sensor file.

    Its keys are the fields of :class:`Sensor`. Needed: ``name``, ``bands``, ``ratio``, ``bits``,
    ``mtf_ms`` (one gain per band, or one number for all) and ``mtf_pan``. Optional: ``title``, ``wavelengths`` (a pair
    of edges per band, nm), ``pan_wavelengths`` (one pair) and a table ``[sources]`` of texts. ``bands`` are in the
    order of the MS files.

    Args:
        path: the file.

    Raises:
        KsdiffError: no such file, no TOML, an unknown or missing key, or a value that cannot be; it names the file.
    """
    try:
        if Path(path).exists() and not (Path(path).is_file() or Path(path).is_dir()):
            raise KsdiffError(f"{path}: is a pipe or a device; write it into a file first")
        with Path(path).open("rb") as file:
            content = file.read(_LARGEST + 1)
        if len(content) > _LARGEST:
            raise KsdiffError(f"{path}: is too large for a sensor file; check the path")
        values = tomllib.loads(content.decode())
    except FileNotFoundError:
        raise KsdiffError(f"{path}: no such sensor file; check the path") from None
    except UnicodeDecodeError:
        raise KsdiffError(f"{path}: is not TOML: it is no UTF-8 text; save it in UTF-8") from None
    except (ValueError, RecursionError) as error:  # also of a number of thousands of digits
        raise KsdiffError(f"{path}: is not TOML: {str(error)[:200]}; correct it there") from None
    except OSError as error:
        raise KsdiffError(f"{path}: cannot be read ({error.strerror or error})") from None
    try:
        return _sensor(values)
    except _ValueError as error:
        raise KsdiffError(f"{path}: {error}") from None


def _sensor(values: Mapping[str, Any]) -> Sensor:
    _check_keys(values, _KNOWN, "key")
    for key in _NEEDED:
        if key not in values:
            hint = "; where no figure is known take mtf_ms = 0.30 and mtf_pan = 0.15" if key.startswith("mtf") else ""
            raise _ValueError(f"has no {key}; needed are {', '.join(_NEEDED)}{hint}")
    name = _text("name", values["name"])
    if by_any_name(name):
        raise _ValueError(f"name: {shown(name)} is a sensor that ksdiff knows already; choose another name")
    bands, edges = _bands(values["bands"]), values.get("pan_wavelengths")
    return Sensor(
        name=name,
        title=_text("title", values.get("title", name)),
        bands=bands,
        ratio=_integer("ratio", values["ratio"], _RATIO),
        bits=_integer("bits", values["bits"], _BITS),
        mtf_ms=_gains(values["mtf_ms"], len(bands)),
        mtf_pan=_gain("mtf_pan", values["mtf_pan"]),
        wavelengths=_wavelengths(values.get("wavelengths", []), len(bands)),
        pan_wavelengths=_read_span("pan_wavelengths", edges) if edges is not None else None,
        sources=_read_sources(values.get("sources", {})),
    )


def _check_keys(values: Mapping[str, Any], known: tuple[str, ...], what: str) -> None:
    for key in values:
        if key not in known:
            near = get_close_matches(key, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(known)}"
            raise _ValueError(f"unknown {what} {shown(key)}: {hint}")


def _text(key: str, value: Any) -> str:
    if not isinstance(value, str) or not value.strip() or not value.isprintable():
        raise _ValueError(f"{key}: must be a text of one line in quotes, not {shown(value)}")
    return value.strip()


def _integer(key: str, value: Any, limits: tuple[int, int]) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not limits[0] <= value <= limits[1]:
        raise _ValueError(f"{key}: must be a whole number from {limits[0]} to {limits[1]}, not {shown(value)}")
    return value


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _gain(key: str, value: Any) -> float:
    if not _number(value) or not 0 < value < 1:
        raise _ValueError(f"{key}: an MTF gain at Nyquist lies between 0 and 1, for example 0.30; not {shown(value)}")
    return float(value)


def _gains(value: Any, bands: int) -> tuple[float, ...]:
    if not isinstance(value, list):
        return (_gain("mtf_ms", value),) * bands
    if len(value) != bands:
        raise _ValueError(f"mtf_ms: has {len(value)} gains for {bands} bands; give one per band, or one number for all")
    return tuple(_gain(f"mtf_ms, band {number}", gain) for number, gain in enumerate(value, start=1))


def _bands(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not value:
        raise _ValueError(f'bands: must be a list of names, ["blue", "green", …], not {shown(value)}')
    bands = tuple(_text(f"bands, number {number}", band) for number, band in enumerate(value, start=1))
    names = [fold_name(band) for band in bands]
    counts = Counter(names)
    for band, name in zip(bands, names, strict=True):
        if counts[name] > 1:
            raise _ValueError(f"bands: {shown(band)} stands there twice; every band needs a name of its own")
    return bands


def _wavelengths(value: Any, bands: int) -> tuple[Span, ...]:
    if not isinstance(value, list):
        raise _ValueError(f"wavelengths: must be a list of pairs, [[450, 510], …], not {shown(value)}")
    if value and len(value) != bands:
        raise _ValueError(f"wavelengths: has {len(value)} pairs for {bands} bands; give one pair per band")
    return tuple(_read_span(f"wavelengths, band {number}", span) for number, span in enumerate(value, start=1))


def _read_span(key: str, value: Any) -> Span:
    pair = isinstance(value, list) and len(value) == 2 and all(_number(edge) for edge in value)
    if not pair or not _NM[0] <= value[0] < value[1] <= _NM[1]:
        raise _ValueError(
            f"{key}: must be lower and upper edge in nm ({_NM[0]} to {_NM[1]}), like [450, 510]; not {shown(value)}"
        )
    return float(value[0]), float(value[1])


def _read_sources(value: Any) -> Sources:
    if not isinstance(value, dict):
        raise _ValueError(f'sources: must be a table of texts, [sources] with bands = "…", not {shown(value)}')
    _check_keys(value, _SOURCES, "key in [sources]")
    return Sources(**{key: _text(f"sources, {key}", text) for key, text in value.items()})
