"""One satellite camera: its bands, ratio, bit depth, MTF gains for Wald's protocol, and where each figure is from."""

import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

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

    def pan_weights(self) -> tuple[float, ...]:
        """Return the share of PAN's wavelengths that each MS band covers, sum 1; () where the edges are not known."""
        if self.pan_wavelengths is None or not self.wavelengths:
            return ()
        low, high = self.pan_wavelengths
        widths = [max(0.0, min(high, upper) - max(low, lower)) for lower, upper in self.wavelengths]
        total = sum(widths)
        return tuple(width / total for width in widths) if total else ()

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

SENSORS: dict[str, "Sensor"] = {}
"""The sensors ksdiff knows, by short name; :mod:`ksdiff_cli.sensors.table` fills it."""


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
