"""The sensors ksdiff knows: bands, ratio, bit depth, MTF gains for Wald's protocol, and where each figure is from.

The gains are those of the reference toolbox. Wavelengths and bit depths are nominal figures, as commonly published; the
documents named under ``sources`` are where their makers state them, not all of which were at hand when this was written
(WV4, GF1, GF2's and L9's bits, PAN of IKONOS, the edges of L7, L9, S2, WV3SWIR, TIRS, ETM6, PNEO, VISION1, GEOSAT2,
VRSS1, VRSS2, GF6, GF7 and PAN of KANOPUS were not checked). No number
but the gains and the bit depth enters a computation. Sensors without PAN (S2, WV3SWIR, TIRS) are sharpened by finer
bands: their ratio is the usual one, their PAN's gain that of these bands.
"""

from ksdiff_cli.sensors.sensor import SENSORS, Sensor, Sources, Span

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

_KARI_BITS = "KARI, the product's Aux.xml: DesignBitsPerPixel"
_TWO_BYTES = "no figure found: all that two bytes hold"


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

_PNEO_NM = ((400, 450), (450, 520), (530, 590), (620, 690), (700, 750), (770, 880))
_PERU_NM = ((450, 520), (530, 590), (630, 700), (752, 885))
_VISION_NM = ((440, 510), (510, 590), (600, 670), (760, 910))
_KARI_NM = ((450, 520), (520, 600), (630, 690), (760, 900))
_GEOSAT_NM = ((466, 525), (532, 599), (640, 697), (770, 892))
_KANOPUS_NM = ((460, 520), (510, 600), (630, 690), (750, 840))

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


def _four(
    name: str, title: str, bits: int, spans: tuple[Span, ...], pan: Span, by: str, aliases: tuple[str, ...],
    bits_by: str = "", ratio: int = 4,
) -> Sensor:  # fmt: skip
    """Return a camera of blue, green, red, nir whose MTF nobody published."""
    sources = Sources(by, bits_by or by, _GENERIC, _GENERIC)
    return Sensor(name, title, _RGBN, ratio, bits, (0.30,) * 4, 0.15, spans, pan, sources, aliases)


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
        "PNEO", "Pléiades Neo", ("deep blue", "blue", "green", "red", "red edge", "nir"), 4, 12, (0.30,) * 6, 0.15,
        _PNEO_NM, (450, 800), _said("Airbus, Pléiades Neo User Guide", _RESTORED), ("PNEO3", "PNEO4", "Pleiades-Neo-3"),
    ),
    Sensor(
        "CBERS4", "CBERS-4 PAN", ("green", "red", "nir"), 2, 8, (0.30,) * 3, 0.15, _GF_NM[1:], (510, 850),
        _said("INPE, CBERS-3 and 4, cameras (PAN)", _GENERIC), ("CB4", "CBERS-4 PAN10M", "PAN10M"),
    ),
    _four("CBERS4A", "CBERS-4A WPM", 10, _GF_NM, (450, 900), "INPE, CBERS-04A, cameras (WPM)", ("CB4A", "WPM")),
    _four(
        "PERUSAT1", "PeruSAT-1", 12, _PERU_NM, (450, 750), "CONIDA, the product's DIMAP: Band_Spectral_Range, "
        "ACQUISITION_RANGE", ("PER1", "PER"),
    ),
    _four(
        "VISION1", "Vision-1", 16, _VISION_NM, (450, 650), "Airbus, Vision-1 Imagery User Guide", ("VIS1",),
        "the product's Meta.xml: radiance scaled to two bytes",
    ),
    _four("K3", "KOMPSAT-3", 14, _KARI_NM, (450, 900), "KARI, KOMPSAT-3 Image Data Manual", ("Arirang-3",), _KARI_BITS),
    _four(
        "K3A", "KOMPSAT-3A", 14, _KARI_NM, (450, 900), "KARI, the product's Aux.xml: Bandwidth", ("Arirang-3A",),
        _KARI_BITS,
    ),
    _four(
        "CAS500", "CAS500-1", 12, _KARI_NM, (450, 900), "KARI, the product's Aux.xml: Bandwidth", ("C1", "CAS500-1A"),
        _KARI_BITS,
    ),
    _four(
        "GEOSAT2", "GEOSAT-2", 16, _GEOSAT_NM, (560, 900), "Deimos Imaging, DEIMOS-2 Imagery Products",
        ("DE2", "DEIMOS-2"), "the product's .dim: scaled to two bytes",
    ),
    _four("VRSS1", "VRSS-1", 16, _GF_NM, (450, 900), "ABAE, VRSS-1 parameters (PMC)", ("VRSS-1 PMC",), _TWO_BYTES),
    _four("VRSS2", "VRSS-2", 16, _GF_NM, (500, 800), "ABAE, VRSS-2 parameters (HRC)", ("VRSS-2 HRC",), _TWO_BYTES),
    _four(
        "KANOPUS", "Kanopus-V", 8, _KANOPUS_NM, (540, 860), "VNIIEM, Kanopus-V and BKA, parameters of PSS and MSS",
        ("BKA", "KV1", "KV3", "KV4", "KV5", "KV6", "KVIK", "Kanopus-V-IK", "BelKA-2"),
        "the product's passport: nBitsPerPixel", 5,
    ),
    _four("GF6", "GaoFen-6", 12, _KARI_NM, (450, 900), "CRESDA, GF-6 PMS parameters", ("GF06",)),
    _four("GF7", "GaoFen-7", 16, _GF_NM, (450, 900), "CRESDA, GF-7 DLC parameters", ("GF07",), _TWO_BYTES),
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
    Sensor(
        "ETM6", "Landsat 7 ETM+ thermal", ("tir low gain", "tir high gain"), 2, 8, (0.30,) * 2, 0.15,
        ((10310, 12360),) * 2, None, _said(_HANDBOOK, _GENERIC),
    ),
)  # fmt: skip

SENSORS.update({sensor.name: sensor for sensor in _TABLE})
