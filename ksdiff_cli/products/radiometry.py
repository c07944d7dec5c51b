"""What DN stand for: radiance and reflectance at the top of the atmosphere, as products' metadata tell.

Radiance L is in W / (m² sr µm). Reflectance is π L d² / (E cos θ): E the band's solar irradiance at 1 AU, W / (m² µm),
d the distance of Earth and Sun in AU, θ the Sun's zenith angle (USGS, Landsat 8 Data Users Handbook, LSDS-1574,
section 5; Maxar, Radiometric Use of WorldView-2 Imagery, 2010; Airbus, Pléiades Imagery User Guide, appendix D).
"""

import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime

from ksdiff_cli.products.fields import first_fields, read_fields
from ksdiff_cli.raster.bands import Calibration, Linear

_NUMBER = re.compile(r"[-+]?(?:\d{1,20}\.?\d{0,30}|\.\d{1,30})(?:[eE][-+]?\d{1,3})?")

# Maxar, Absolute Radiometric Calibration 2016v0: gain and offset; solar irradiance after Thuillier 2003, as in the same
MAXAR_FACTORS: dict[str, dict[str, tuple[float, float, float]]] = {
    "WV01": {"P": (1.016, -1.824, 1478.62)},
    "WV02": {
        "P": (0.942, -2.704, 1571.36), "C": (1.151, -7.478, 1773.81), "B": (0.988, -5.736, 2007.27),
        "G": (0.936, -3.546, 1829.62), "Y": (0.949, -3.564, 1701.85), "R": (0.952, -2.512, 1538.85),
        "RE": (0.974, -4.120, 1346.09), "N": (0.961, -3.300, 1053.21), "N2": (1.002, -2.891, 856.599),
    },
    "WV03": {
        "P": (0.950, -3.629, 1574.41), "C": (0.905, -8.604, 1757.89), "B": (0.940, -5.809, 2004.61),
        "G": (0.938, -4.996, 1830.18), "Y": (0.962, -3.649, 1712.07), "R": (0.964, -3.021, 1535.33),
        "RE": (1.000, -4.521, 1348.08), "N": (0.961, -5.522, 1055.94), "N2": (0.978, -2.992, 858.77),
    },
    "GE01": {
        "P": (0.970, -1.926, 1610.73), "B": (1.053, -4.537, 1993.18), "G": (0.994, -4.175, 1828.83),
        "R": (0.998, -3.754, 1491.49), "N": (0.994, -3.870, 1022.58),
    },
    "QB02": {
        "P": (0.870, -1.491, 1370.92), "B": (1.105, -2.820, 1949.59), "G": (1.071, -3.338, 1823.64),
        "R": (1.060, -2.954, 1553.78), "N": (1.020, -4.722, 1102.85),
    },
    "IK01": {
        "P": (0.907, -4.461, 1353.25), "B": (1.073, -9.699, 1921.26), "G": (0.990, -7.937, 1803.28),
        "R": (0.940, -4.767, 1517.76), "N": (1.043, -8.869, 1145.8),
    },
}  # fmt: skip


def number(text: str | None) -> float | None:
    """Return a number that metadata states, or None where it is none."""
    found = _NUMBER.fullmatch((text or "").strip())
    return float(found[0]) if found and math.isfinite(float(found[0])) else None


def sun_distance(when: datetime) -> float:
    """Return the distance of Earth and Sun, AU, to .0001 (Astronomical Almanac, low precision formulas)."""
    days = (when.astimezone(UTC) - datetime(2000, 1, 1, 12, tzinfo=UTC)).total_seconds() / 86400
    anomaly = math.radians(357.529 + 0.98560028 * days)
    return 1.00014 - 0.01671 * math.cos(anomaly) - 0.00014 * math.cos(2 * anomaly)


def read_time(text: str) -> datetime | None:
    """Return a time as metadata has it, ``2010-01-03T10:11:12.000000Z`` or a part of it; None where it is none."""
    try:
        when = datetime.fromisoformat(text.strip().removesuffix("Z"))
    except ValueError:
        return None
    return when.replace(tzinfo=UTC) if when.tzinfo is None else when


def calibrate(
    gain: float | None, offset: float | None, irradiance: float | None, elevation: float | None, distance: float | None
) -> Calibration | None:
    """Return what a band's DN stand for, as far as it is known.

    Args:
        gain: radiance of a DN; must be above 0.
        offset: radiance of DN 0.
        irradiance: of the Sun in the band at 1 AU.
        elevation: of the Sun, degrees; must be above 0.
        distance: of the Sun, AU.
    """
    if gain is None or offset is None or gain <= 0:
        return None
    reflectance: Linear | None = None
    if irradiance and irradiance > 0 and elevation and 0 < elevation <= 90 and distance and 0.9 < distance < 1.1:
        factor = math.pi * distance**2 / (irradiance * math.sin(math.radians(elevation)))
        reflectance = gain * factor, offset * factor
    return Calibration((gain, offset), reflectance)


def landsat(mtl: Mapping[str, str], band: int) -> Calibration | None:
    """Return what DN of a level-1 band stand for by its MTL file: radiance, and reflectance corrected for the Sun."""
    found: list[Linear | None] = []
    elevation = number(mtl.get("SUN_ELEVATION"))
    for kind in ("RADIANCE", "REFLECTANCE"):
        gain, offset = (number(mtl.get(f"{kind}_{part}_BAND_{band}")) for part in ("MULT", "ADD"))
        known = gain is not None and offset is not None and gain > 0
        sun = math.sin(math.radians(elevation)) if elevation and 0 < elevation <= 90 else 0.0
        divisor = 1.0 if kind == "RADIANCE" else sun
        found.append((gain / divisor, offset / divisor) if known and gain and offset is not None and divisor else None)
    return Calibration(*found) if any(found) else None


def maxar(imd: str, satellite: str) -> dict[str, Calibration]:
    """Return what DN stand for by an IMD file, by its bands' letters; what it does not tell is left out."""
    bands: dict[str, dict[str, str]] = {}
    group = ""
    for key, value in read_fields(imd):
        if key in ("BEGIN_GROUP", "END_GROUP"):
            group = value if key == "BEGIN_GROUP" else ""
        elif group.startswith("BAND_"):
            bands.setdefault(group.removeprefix("BAND_"), {}).setdefault(key, value.removesuffix(";"))
    whole = first_fields(imd, ";")
    if whole.get("radiometricEnhancement", "Off") != "Off" or whole.get("bitsPerPixel", "16") == "8":
        return {}
    when = read_time(whole.get("firstLineTime") or whole.get("earliestAcqTime", ""))
    elevation = number(whole.get("meanSunEl"))
    found: dict[str, Calibration] = {}
    for band, fields in bands.items():
        absolute, width = number(fields.get("absCalFactor")), number(fields.get("effectiveBandwidth"))
        gain, offset, irradiance = MAXAR_FACTORS.get(satellite, {}).get(band, (1.0, 0.0, None))
        if absolute and width:
            distance = sun_distance(when) if when else None
            known = calibrate(gain * absolute / width, offset, irradiance, elevation, distance)
            found |= {band: known} if known else {}
    return found
