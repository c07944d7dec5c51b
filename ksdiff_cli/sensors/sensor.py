"""The sensors ksdiff knows: bands, ratio, bit depth, MTF gains for Wald's protocol, and where each figure is from.

The gains are those of the reference toolbox. Wavelengths and bit depths are nominal figures, as commonly published; the
documents named under ``sources`` are where their makers state them, not all of which were at hand when this was written
(WV4, GF1, GF2's and L9's bits, PAN of IKONOS, the edges of L7, L9, S2, WV3SWIR and TIRS were not checked). No number
but the gains and the bit depth enters a computation. Sensors without PAN (S2, WV3SWIR, TIRS) are sharpened by finer
bands: their ratio is the usual one, their PAN's gain that of these bands.
"""

import re
import tomllib
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from ksdiff_cli.checks import shown
from ksdiff_cli.errors import KsdiffError

Span = tuple[float, float]
"""Lower and upper edge of a band, nm."""


@dataclass(frozen=True)
class Sources:
    """Where a sensor's figures come from, as text; empty where nobody said."""

    bands: str = ""
    """Of the bands and their wavelengths."""
    bits: str = ""
    """Of the bit depth."""
    mtf_ms: str = ""
    """Of the MS bands' MTF gains."""
    mtf_pan: str = ""
    """Of PAN's MTF gain."""


@dataclass(frozen=True)
class Sensor:
    """One satellite camera."""

    name: str
    """Short name, as typed after ``--sensor``."""
    title: str
    """Full name."""
    bands: tuple[str, ...]
    """Names of the MS bands, empty for the generic sensor. The table below has them by wavelength, shortest first;
    files may differ (SPOT and Pléiades bundles often hold red, green, blue, nir): see :meth:`with_bands`."""
    ratio: int
    """PAN pixels per MS pixel along a side."""
    bits: int
    """Significant bits of a digital number (DN) in the product; the largest DN is 2**bits - 1."""
    mtf_ms: tuple[float, ...]
    """MTF of each MS band at the MS Nyquist frequency, (0, 1); one value stands for all bands."""
    mtf_pan: float
    """MTF of the PAN band at the PAN Nyquist frequency, (0, 1)."""
    wavelengths: tuple[Span, ...] = ()
    """Edges of each MS band (about half power) as the maker states them, nm; empty where unknown."""
    pan_wavelengths: Span | None = None
    """The same of the PAN band."""
    sources: Sources = field(default=Sources(), compare=False)
    """Where the figures come from."""
    aliases: tuple[str, ...] = field(default=(), compare=False)
    """Other names that people and products use; see :func:`find_sensor`."""

    def ms_gains(self, bands: int) -> tuple[float, ...]:
        """Return one MTF gain per band.

        Args:
            bands: number of MS bands at hand, at least 1.

        Returns:
            ``bands`` gains. Where all gains are equal a few of the sensor's bands will do; the generic sensor takes
            any number.

        Raises:
            KsdiffError: the data have more bands than the sensor, or fewer and its gains differ by band.
        """
        if self.bands and bands > len(self.bands):
            raise KsdiffError(
                f"sensor {self.name} has {len(self.bands)} MS bands but the data have {bands}; choose the bands "
                f"({', '.join(self.bands)}) with -b, or another --sensor"
            )
        if len(set(self.mtf_ms)) == 1:
            return (self.mtf_ms[0],) * bands
        if len(self.mtf_ms) != bands:
            raise KsdiffError(
                f"sensor {self.name} has {len(self.mtf_ms)} MS bands but the data have {bands}, and its MTF gains "
                "differ from band to band; name another --sensor, or write the gains of these bands to a sensor file "
                "(--sensor my.toml)"
            )
        return self.mtf_ms

    def with_bands(self, names: Sequence[str]) -> "Sensor":
        """Return the same sensor with only these bands, in this order.

        Args:
            names: of MS bands, at least one; case, blanks and punctuation do not matter (``RedEdge`` is ``red edge``).

        Returns:
            Bands, wavelengths and gains picked by name. A sensor that names no bands (the generic one) is returned as
            it is: its gain holds for any band.

        Raises:
            KsdiffError: no such band; the message lists the sensor's bands.
        """
        if not self.bands:
            return self
        if not names:
            raise KsdiffError(f"sensor {self.name}: no band is named; it has {', '.join(self.bands)}")
        places = {fold_name(name): place for place, name in enumerate(self.bands)}
        for name in names:
            if fold_name(name) not in places:
                raise KsdiffError(f"sensor {self.name} has no band {name!r}; it has {', '.join(self.bands)}")
        chosen = [places[fold_name(name)] for name in names]
        return replace(
            self,
            bands=tuple(self.bands[place] for place in chosen),
            wavelengths=tuple(self.wavelengths[place] for place in chosen) if self.wavelengths else (),
            mtf_ms=tuple(self.mtf_ms[place] for place in chosen) if len(self.mtf_ms) > 1 else self.mtf_ms,
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the sensor's full values, for files that must stay readable when this table changes."""
        return {name: value for name, value in asdict(self).items() if name != "aliases"}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Sensor":
        """Rebuild a sensor from what a file states, :meth:`to_dict`'s values after JSON.

        Args:
            values: all of them, or less (older files): what is missing is the table's if it knows the name, else the
                generic sensor's. Names that are no field are passed over.

        Returns:
            The sensor; the generic one where neither a known name nor gains are stated.

        Raises:
            KsdiffError: a value is of the wrong kind.
        """
        known = SENSORS.get(str(values.get("name")))
        if known is None and not values.get("mtf_ms"):
            return SENSORS["generic"]
        base = known or SENSORS["generic"]
        stated = {each.name: values[each.name] for each in fields(cls) if each.name in values}
        try:
            for name, kind in _PLAIN_FIELDS.items():
                stated[name] = kind(stated.get(name, getattr(base, name)))
            stated["bands"] = tuple(str(band) for band in stated.get("bands", base.bands))
            stated["mtf_ms"] = tuple(float(gain) for gain in stated.get("mtf_ms") or base.mtf_ms)
            # the table's wavelengths are of the table's bands
            spans = stated.get("wavelengths", base.wavelengths if stated["bands"] == base.bands else ())
            stated["wavelengths"] = tuple(_span(span) for span in spans)
            pan = stated.get("pan_wavelengths", base.pan_wavelengths)
            stated["pan_wavelengths"] = None if pan is None else _span(pan)
            stated["sources"] = _sources(values) or base.sources
            _check(stated)
        except (TypeError, ValueError, AttributeError, OverflowError):
            name = str(values.get("name"))[:80]
            raise KsdiffError(f"the stated values of sensor {name!r} are damaged; name a --sensor") from None
        return cls(**{**stated, "aliases": base.aliases if known else ()})


_PLAIN_FIELDS: dict[str, Callable[[Any], Any]] = {
    "name": str,
    "title": str,
    "ratio": int,
    "bits": int,
    "mtf_pan": float,
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


def fold_name(name: str) -> str:
    """Leave only small letters and digits, without accents: what counts when names are compared."""
    return "".join(sign for sign in unicodedata.normalize("NFKD", name).casefold() if sign.isalnum())


def _span(edges: Any) -> Span:
    lower, upper = edges
    return float(lower), float(upper)


def _check(stated: Mapping[str, Any]) -> None:
    """Raise ValueError for values that no sensor has."""
    gains = *stated["mtf_ms"], stated["mtf_pan"]
    if not (1 <= stated["bits"] <= 32 and 1 <= stated["ratio"] <= 1000 and all(0 < gain < 1 for gain in gains)):
        raise ValueError


def _sources(values: Mapping[str, Any]) -> Sources | None:
    """Return the stated sources; older files have one text, ``source``, for the gains. None if there are none."""
    if "sources" in values:
        return Sources(**{each.name: str(values["sources"].get(each.name, "")) for each in fields(Sources)})
    text = values.get("source")
    return Sources(mtf_ms=str(text), mtf_pan=str(text)) if text else None


_RGBN = ("blue", "green", "red", "nir")
_WV8 = ("coastal", "blue", "green", "yellow", "red", "red edge", "nir1", "nir2")
_ETM = ("blue", "green", "red", "nir", "swir1", "swir2")

_TOOLBOX = "the field's reference toolbox (Vivone et al., IEEE Geosci. Remote Sens. Mag. 9(1), 2021)"
_ANY = "generic gain of the field's reference toolbox"
_GENERIC = f"{_ANY}; no published figure found"
_RESTORED = f"{_GENERIC} for the product, which is deconvolved on the ground"
_VARYING = f"{_ANY}; in-orbit estimates change over the mission (Storey, Proc. SPIE 4540, 2001)"
_OLI_BITS = "USGS, {} Data Users Handbook: quantised to {} bits, delivered scaled to 16"
_HANDBOOK = "USGS, Landsat 8 Data Users Handbook (LSDS-1574), table of OLI and ETM+ bands"


def _said(by: str, mtf: str = _TOOLBOX) -> Sources:
    """One document for bands and bits, another for both MTF figures."""
    return Sources(by, by, mtf, mtf)


_WV8_NM = ((400, 450), (450, 510), (510, 580), (585, 625), (630, 690), (705, 745), (770, 895), (860, 1040))
_GE_NM = ((450, 510), (510, 580), (655, 690), (780, 920))
_GF_NM = ((450, 520), (520, 590), (630, 690), (770, 890))
_QB_NM = ((430, 545), (466, 620), (590, 710), (715, 918))
_IKONOS_NM = ((445, 516), (506, 595), (632, 698), (757, 853))
_PLEIADES_NM = ((430, 550), (500, 620), (590, 710), (740, 940))
_SPOT_NM = ((455, 525), (530, 590), (625, 695), (760, 890))
_ETM_NM = ((441, 514), (519, 601), (631, 692), (772, 898), (1547, 1749), (2064, 2345))
_OLI_NM = ((452, 512), (533, 590), (636, 673), (851, 879), (1566, 1651), (2107, 2294))
_OLI2_NM = ((450, 510), (530, 590), (640, 670), (850, 880), (1570, 1650), (2110, 2290))

_MSI = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B10", "B11", "B12")
_MSI_NM = (
    (432, 453), (459, 525), (542, 578), (649, 680), (697, 712), (733, 748), (773, 793), (780, 886), (854, 875),
    (935, 955), (1358, 1389), (1568, 1659), (2115, 2290),
)  # fmt: skip
_MSI_GAINS = (0.3175, 0.275, 0.28, 0.25, 0.365, 0.33, 0.34, 0.24, 0.32, 0.295, 0.30, 0.205, 0.235)
_SWIR_NM = (
    (1195, 1225), (1550, 1590), (1640, 1680), (1710, 1750), (2145, 2185), (2185, 2225), (2235, 2285), (2295, 2365),
)  # fmt: skip
_MSI_TOOLBOX = "benchmarking toolbox of Sentinel-2 sharpening (Ciotola et al., Remote Sens. 17:1983, 2025)"

_WV3_GAINS = (0.325, 0.355, 0.36, 0.35, 0.365, 0.36, 0.335, 0.315)
_IKONOS_BANDS = "Space Imaging, IKONOS Relative Spectral Response and Radiometric Calibration (SE-REF-016)"

_TABLE = (
    Sensor(
        "generic", "Unknown sensor", (), 4, 16, (0.30,), 0.15,
        sources=Sources("none", "none: all that two bytes hold", _ANY, _ANY), aliases=("unknown",),
    ),
    Sensor(
        "WV2", "WorldView-2", _WV8, 4, 11, (0.35,) * 7 + (0.27,), 0.11, _WV8_NM, (450, 800),
        _said("DigitalGlobe, WorldView-2 data sheet"), ("WV02",),
    ),
    Sensor(
        "WV3", "WorldView-3", _WV8, 4, 11, _WV3_GAINS, 0.14, _WV8_NM, (450, 800),
        _said("DigitalGlobe, WorldView-3 data sheet"), ("WV03",),
    ),
    Sensor(
        "WV4", "WorldView-4", _RGBN, 4, 11, (0.23,) * 4, 0.16, _GE_NM, (450, 800),
        _said("DigitalGlobe, WorldView-4 data sheet"), ("WV04", "GeoEye-2"),
    ),
    Sensor(
        "QB", "QuickBird", _RGBN, 4, 11, (0.34, 0.32, 0.30, 0.22), 0.15, _QB_NM, (405, 1053),
        _said("DigitalGlobe, QuickBird data sheet"), ("QB2", "QB02", "QuickBird-2"),
    ),
    Sensor(
        "GE1", "GeoEye-1", _RGBN, 4, 11, (0.23,) * 4, 0.16, _GE_NM, (450, 800),
        _said("GeoEye, GeoEye-1 data sheet"), ("GE01", "GeoEye"),
    ),
    Sensor(
        "IKONOS", "IKONOS", _RGBN, 4, 11, (0.26, 0.28, 0.29, 0.28), 0.17, _IKONOS_NM, (526, 929),
        Sources(_IKONOS_BANDS, "GeoEye, IKONOS Imagery Products Guide", _TOOLBOX, _TOOLBOX),
        ("IK", "IK1", "IK01", "IK2", "IK02", "IKONOS-2"),
    ),
    Sensor(
        "GF1", "GaoFen-1", _RGBN, 4, 10, (0.30,) * 4, 0.15, _GF_NM, (450, 900),
        _said("CRESDA, GF-1 PMS parameters", _GENERIC), ("GF01",),
    ),
    Sensor(
        "GF2", "GaoFen-2", _RGBN, 4, 10, (0.30,) * 4, 0.15, _GF_NM, (450, 900),
        _said("CRESDA, GF-2 PMS parameters", _GENERIC), ("GF02",),
    ),
    Sensor(
        "PLEIADES", "Pléiades", _RGBN, 4, 12, (0.30,) * 4, 0.15, _PLEIADES_NM, (470, 830),
        _said("Astrium, Pléiades Imagery User Guide", _RESTORED),
        ("PHR", "PHR1A", "PHR1B", "Pleiades-HR", "Pleiades-1A", "Pleiades-1B"),
    ),
    Sensor(
        "SPOT6", "SPOT 6/7", _RGBN, 4, 12, (0.30,) * 4, 0.15, _SPOT_NM, (455, 745),
        _said("Astrium, SPOT 6 & SPOT 7 Imagery User Guide (SI/DC/13034)", _RESTORED), ("SPOT7",),
    ),
    Sensor(
        "L7", "Landsat 7 ETM+", _ETM, 2, 8, (0.30,) * 6, 0.15, _ETM_NM, (515, 896),
        _said(_HANDBOOK, _VARYING), ("Landsat7", "LE07", "LE7", "ETM+"),
    ),
    Sensor(
        "L8", "Landsat 8 OLI", _ETM, 2, 16, (0.30,) * 6, 0.15, _OLI_NM, (503, 676),
        Sources(_HANDBOOK, _OLI_BITS.format("Landsat 8", 12), _GENERIC, _GENERIC),
        ("Landsat8", "LC08", "LC8", "LO08", "LO8"),
    ),
    Sensor(
        "L9", "Landsat 9 OLI-2", _ETM, 2, 16, (0.30,) * 6, 0.15, _OLI2_NM, (500, 680),
        Sources(
            "USGS, Landsat 9 Data Users Handbook (LSDS-2082)", _OLI_BITS.format("Landsat 9", 14), _GENERIC, _GENERIC
        ),
        ("Landsat9", "LC09", "LC9", "LO09", "LO9"),
    ),
    Sensor(
        "S2", "Sentinel-2 MSI", _MSI, 2, 16, _MSI_GAINS, 0.261, _MSI_NM, None,
        Sources(
            "ESA, Sentinel-2 User Handbook and spectral responses, S2A", "ESA, Sentinel-2 Products Specification: "
            "reflectance scaled by 10000 in two bytes", _MSI_TOOLBOX, f"mean of the bands of 10 m; {_MSI_TOOLBOX}",
        ), ("S2A", "S2B", "S2C", "Sentinel-2", "Sentinel-2A", "Sentinel-2B", "Sentinel-2C", "Sentinel2", "MSI"),
    ),
    Sensor(
        "WV3SWIR", "WorldView-3 SWIR", tuple(f"swir{number}" for number in range(1, 9)), 3, 14, (0.30,) * 8, 0.15,
        _SWIR_NM, None, _said("DigitalGlobe, WorldView-3 data sheet", _GENERIC), ("WV03SWIR",),
    ),
    Sensor(
        "TIRS", "Landsat 8/9 TIRS", ("tir1", "tir2"), 3, 16, (0.30,) * 2, 0.15, ((10600, 11190), (11500, 12510)), None,
        Sources(_HANDBOOK, _OLI_BITS.format("Landsat 8", 12), _GENERIC, _GENERIC), ("TIRS2",),
    ),
)  # fmt: skip

SENSORS: dict[str, Sensor] = {sensor.name: sensor for sensor in _TABLE}
"""The table, by short name."""

_NAMES = {fold_name(name): sensor for sensor in _TABLE for name in (sensor.name, sensor.title, *sensor.aliases)}


# ---- sensors that people describe themselves, in a TOML file; sample_data/sensor.toml shows one

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
        raise KsdiffError(f"{path}: is not TOML: it is no UTF-8 text") from None
    except (ValueError, RecursionError) as error:  # also of a number of thousands of digits
        raise KsdiffError(f"{path}: is not TOML: {str(error)[:200]}") from None
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
