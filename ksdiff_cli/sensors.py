"""The sensors ksdiff knows: bands, ratio, bit depth and the MTF gains that Wald's protocol needs."""

from dataclasses import asdict, dataclass
from difflib import get_close_matches
from typing import Any

from ksdiff_cli.errors import KsdiffError

_TOOLBOX = "MTF gains as used by the field's reference toolbox (see Vivone et al., IEEE GRSM 2021)"
_GENERIC = "generic gains of the field's reference toolbox; no figure of the maker at hand"


@dataclass(frozen=True)
class Sensor:
    """One satellite camera."""

    name: str
    """Short name, as typed after ``--sensor``."""
    title: str
    """Full name."""
    bands: tuple[str, ...]
    """Band names in the product's order; empty when the sensor is the generic one."""
    ratio: int
    """PAN pixels per MS pixel along a side."""
    bits: int
    """Significant bits of a digital number (DN); the largest DN is 2**bits - 1."""
    mtf_ms: tuple[float, ...]
    """MTF of each MS band at the MS Nyquist frequency, (0, 1); one value stands for all bands."""
    mtf_pan: float
    """MTF of the PAN band at the PAN Nyquist frequency, (0, 1)."""
    source: str
    """Where the MTF figures come from."""

    def ms_gains(self, bands: int) -> tuple[float, ...]:
        """Return one MTF gain per band.

        Args:
            bands: number of MS bands at hand, at least 1.

        Returns:
            ``bands`` gains; a sensor with equal gains takes any number of bands.

        Raises:
            KsdiffError: the sensor has band-wise gains and their number is not ``bands``.
        """
        if len(set(self.mtf_ms)) == 1:
            return (self.mtf_ms[0],) * bands
        if len(self.mtf_ms) != bands:
            raise KsdiffError(
                f"sensor {self.name} has {len(self.mtf_ms)} MS bands but the data have {bands}: "
                "choose the bands with -b, or another --sensor"
            )
        return self.mtf_ms

    def to_dict(self) -> dict[str, Any]:
        """Return the sensor's full values, for files that must stay readable when this table changes."""
        return asdict(self)


_RGBN = ("blue", "green", "red", "nir")
_WV8 = ("coastal", "blue", "green", "yellow", "red", "red edge", "nir1", "nir2")
_ETM = ("blue", "green", "red", "nir", "swir1", "swir2")

_WV3_GAINS = (0.325, 0.355, 0.36, 0.35, 0.365, 0.36, 0.335, 0.315)

SENSORS: dict[str, Sensor] = {
    sensor.name: sensor
    for sensor in (
        Sensor("generic", "Unknown sensor", (), 4, 16, (0.30,), 0.15, _GENERIC),
        Sensor("WV2", "WorldView-2", _WV8, 4, 11, (0.35,) * 7 + (0.27,), 0.11, _TOOLBOX),
        Sensor("WV3", "WorldView-3", _WV8, 4, 11, _WV3_GAINS, 0.14, _TOOLBOX),
        Sensor("WV4", "WorldView-4", _RGBN, 4, 11, (0.23,) * 4, 0.16, _TOOLBOX),
        Sensor("QB", "QuickBird", _RGBN, 4, 11, (0.34, 0.32, 0.30, 0.22), 0.15, _TOOLBOX),
        Sensor("GE1", "GeoEye-1", _RGBN, 4, 11, (0.23,) * 4, 0.16, _TOOLBOX),
        Sensor("IKONOS", "IKONOS", _RGBN, 4, 11, (0.26, 0.28, 0.29, 0.28), 0.17, _TOOLBOX),
        Sensor("GF1", "GaoFen-1", _RGBN, 4, 10, (0.30,) * 4, 0.15, _GENERIC),
        Sensor("GF2", "GaoFen-2", _RGBN, 4, 10, (0.30,) * 4, 0.15, _GENERIC),
        Sensor("PLEIADES", "Pléiades", _RGBN, 4, 12, (0.30,) * 4, 0.15, _GENERIC),
        Sensor("SPOT6", "SPOT 6/7", _RGBN, 4, 12, (0.30,) * 4, 0.15, _GENERIC),
        Sensor("L7", "Landsat 7 ETM+", _ETM, 2, 8, (0.30,), 0.15, _GENERIC),
        Sensor("L8", "Landsat 8 OLI", _ETM, 2, 16, (0.30,), 0.15, _GENERIC),
        Sensor("L9", "Landsat 9 OLI-2", _ETM, 2, 16, (0.30,), 0.15, _GENERIC),
    )
}


def find_sensor(name: str | None) -> Sensor:
    """Return the sensor called ``name`` (any case); the generic one for ``None``.

    Raises:
        KsdiffError: no such sensor; the message names the nearest ones.
    """
    if name is None:
        return SENSORS["generic"]
    by_lower = {known.lower(): sensor for known, sensor in SENSORS.items()}
    if name.lower() in by_lower:
        return by_lower[name.lower()]
    near = get_close_matches(name.lower(), by_lower, n=1)
    hint = f"did you mean {by_lower[near[0]].name}?" if near else "known: " + " ".join(SENSORS)
    raise KsdiffError(f"no sensor is called {name!r}: {hint}")
