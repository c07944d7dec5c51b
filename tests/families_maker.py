"""Small deliveries of the families that are told apart by names, in their true form: names, folders, metadata."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import products_maker as maker


@dataclass(frozen=True)
class Delivery:
    """A delivery, and what is to be found in it."""

    sensor: str
    bands: Sequence[str]
    """Of MS, in the order of its files."""
    pan: str
    """PAN's file."""
    ms: Mapping[str, int]
    """MS files, and how many bands each has."""
    texts: Mapping[str, str] = field(default_factory=dict)
    """Metadata files."""
    others: Sequence[str] = ()
    """Images that are neither, of PAN's size."""
    ratio: int = 4

    def write(self, folder: Path) -> Path:
        side = 48 if self.ratio == 3 else 16 * self.ratio
        for name in (self.pan, *self.others):
            maker.write(folder / name, 1.0, side, side)
        for name, count in self.ms.items():
            maker.write(folder / name, float(self.ratio), side // self.ratio, side // self.ratio, count)
        for name, text in self.texts.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text, encoding="utf-8")
        return folder


def dimap_1(bands: Sequence[str], image: str, extra: str = "") -> str:
    """Write the DIMAP 1 description of an image, as Geosat and Vision-1 have it."""
    listed = "".join(
        f"<Spectral_Band_Info><BAND_INDEX>{number}</BAND_INDEX><BAND_DESCRIPTION>{band}</BAND_DESCRIPTION>"
        f"<PHYSICAL_GAIN>0.0{number}</PHYSICAL_GAIN><PHYSICAL_BIAS>-0.5</PHYSICAL_BIAS><ESUN>{1000 + number}</ESUN>"
        "</Spectral_Band_Info>"
        for number, band in enumerate(bands, start=1)
    )
    return (
        '<?xml version="1.0" encoding="UTF-8"?><Dimap_Document><Metadata_Id><METADATA_FORMAT version="1.1">DIMAP'
        f'</METADATA_FORMAT></Metadata_Id><Data_Access><Data_File><DATA_FILE_PATH href="{image}"/></Data_File>'
        f"</Data_Access><Image_Interpretation>{listed}</Image_Interpretation><Scene_Source>"
        f"<IMAGING_DATE>2023-05-23</IMAGING_DATE><SUN_ELEVATION>30.0</SUN_ELEVATION>{extra}</Scene_Source>"
        "</Dimap_Document>"
    )


def _bka(role: str, bands: Sequence[str]) -> dict[str, str]:
    listed = "".join(
        f"<Band_MS{n}><band_index>{n}</band_index><band_info>{band}</band_info></Band_MS{n}>"
        for n, band in enumerate(bands, start=1)
    )
    stem = f"4077631-0220-{role}-C-1-1-1100761-150924T044238-ID"
    return {
        f"{stem}/{stem}_pasp-en.xml": f'<?xml version ="1.0"  ?>\n<MetaData><Spectral>{listed}</Spectral></MetaData>'
    }


_BGRN = ("blue", "green", "red", "nir")
_WPM = "CBERS_4A_WPM_20200730_209_139_L4_BAND"
_K3A = "K3A_20210113132915_32047_00039626_L1G"
_C1 = "C1_20230610025814_12315_00049489_L1G"
_DE2 = "L1C_000000_20230523T092838_20230523T092841_DE2_48370_57E5"
_VIS = "20200722023318_ORT_103091_14e5"
_LIT = "20210114224140_ORTP_S105354_1e08"
_BKA = "C-1-1-1100761-150924T044238-ID"
_KV3 = "KV3_21226_21226_01_3NP2_83_ORT"
_ZONES = "".join(f"<Ch{n}>\nbSpectralZone = {z}\n</Ch{n}>\n" for n, z in enumerate(("0.46, 0.52", "0.51, 0.59"), 1))

DELIVERIES: dict[str, Delivery] = {
    "CBERS-4A, a folder a band": Delivery(
        "CBERS4A", _BGRN, f"{_WPM}0/{_WPM}0.tif", {f"{_WPM}{n}/{_WPM}{n}.tif": 1 for n in range(1, 5)},
        {f"{_WPM}0/{_WPM}0.xml": '<?xml version="1.0"?>\n<prdf xmlns="http://www.gisplan.com.br/xmlsat"/>'},
    ),
    "CBERS-4A, some bands": Delivery(
        "CBERS4A", ("green", "nir"), f"{_WPM}0.tif", {f"{_WPM}{n}.tif": 1 for n in (2, 4)}
    ),
    "CBERS-4": Delivery(
        "CBERS4", ("green", "red", "nir"), "CBERS_4_PAN5M_20190510_027_076_L2_BAND1.tif",
        {f"CBERS_4_PAN10M_20190510_027_076_L2_BAND{n}.tif": 1 for n in (2, 3, 4)}, ratio=2,
    ),
    "KOMPSAT-3A": Delivery("K3A", _BGRN, f"{_K3A}_P.tif", {f"{_K3A}_{band}.tif": 1 for band in "BGRN"}),
    "KOMPSAT-3 with the sharpened one": Delivery(
        "K3", _BGRN, "K3_20160924182455_23243_19350803_L1G_P.tif",
        {f"K3_20160924182455_23243_19350803_L1G_{band}.tif": 1 for band in "BGRN"},
        others=[f"K3_20160924182455_23243_19350803_L1G_P{band}.tif" for band in "BGRN"],
    ),
    "CAS500-1": Delivery("CAS500", _BGRN, f"{_C1}_P.tif", {f"{_C1}_{band}.tif": 1 for band in "BGRN"}),
    "GEOSAT-2": Delivery(
        "GEOSAT2", _BGRN[::-1], f"DE2_PM4_{_DE2}/DE2_PAN_{_DE2}.tif", {f"DE2_PM4_{_DE2}/DE2_MS4_{_DE2}.tif": 4},
        {f"DE2_PM4_{_DE2}/DE2_MS4_{_DE2}.dim": dimap_1(("NIR", "RED", "GREEN", "BLUE"), f"DE2_MS4_{_DE2}.tif")},
    ),
    "GEOSAT-2, folders, another order": Delivery(
        "GEOSAT2", ("red", "green", "blue", "nir"), f"DE2_PAN_{_DE2}/DE2_PAN_{_DE2}.tif",
        {f"DE2_MS4_{_DE2}/DE2_MS4_{_DE2}.tif": 4},
        {f"DE2_MS4_{_DE2}/DE2_MS4_{_DE2}.dim": dimap_1(("RED", "GREEN", "BLUE", "NIR"), f"DE2_MS4_{_DE2}.tif")},
    ),
    "Vision-1 bundle": Delivery(
        "VISION1", _BGRN, f"VIS1_PAN_23-00017/VIS1_PAN_{_VIS}.tif", {f"VIS1_MS4_23-00017/VIS1_MS4_{_VIS}.tif": 4},
        {f"VIS1_MS4_23-00017/VIS1_MS4_{_VIS}_Meta.xml": dimap_1(("BLUE", "GREEN", "RED", "NIR"), "x.tif")},
    ),
    "Vision-1, DIMAP 1.1": Delivery(
        "VISION1", ("nir", "red", "green", "blue"), f"VIS1_PAN_{_LIT}/VIS1_PAN_{_LIT}.tif",
        {f"VIS1_MS4_{_LIT}/VIS1_MS4_{_LIT}.tif": 4},
        {
            f"VIS1_MS4_{_LIT}/DIM_VIS1_MS4_{_LIT}_Meta.xml": dimap_1(("NIR", "RED", "GREEN", "BLUE"), "x.tif"),
            f"VIS1_PAN_{_LIT}/DIM_VIS1_PAN_{_LIT}_Meta.xml": dimap_1(("PAN",), "x.tif"),
        },
        [f"VIS1_PAN_{_LIT}/VIS1_PAN_{_LIT}_Preview.tif"],
    ),
    "VRSS-1": Delivery(
        "VRSS1", _BGRN, "a/VRSS-1_PAN-2_0698_0240_20200822_L2B_82417244959.tif",
        {f"b/VRSS-1_MSS-2_0698_0240_20200822_L2B_824172452182_{n}.tif": 1 for n in range(1, 5)},
    ),
    "VRSS-2": Delivery(
        "VRSS2", _BGRN, "VRSS-2_PAN_0996_0379_20210127_L2B_128183941985.tif",
        {f"VRSS-2_MSS_0996_0379_20210127_L2B_12818393908_{n}.tif": 1 for n in range(1, 5)},
    ),
    "BKA": Delivery(
        "KANOPUS", ("green", "blue", "red", "nir"), f"4077631-0220-PAN-{_BKA}/4077631-0220-PAN-{_BKA}.tif",
        {f"4077631-0220-MUL-{_BKA}/4077631-0220-MUL-{_BKA}.tif": 4}, _bka("MUL", ("Green", "Blue", "Red", "NIR")),
        ratio=5,
    ),
    "Kanopus-V": Delivery(
        "KANOPUS", _BGRN, "KV5_PSS_15173_01_Sudan_210921.tiff", {"KV5_MSS_15173_01_Sudan_210921.tiff": 4}, ratio=5
    ),
    "Kanopus-V-IK": Delivery(
        "KANOPUS", _BGRN, "a/Kanopus-V-IK_PSS_19377_02_Bolivia_10012021.tiff",
        {"b/Kanopus-V-IK_MSS_19377_02_Bolivia_10012021.tiff": 4}, ratio=5,
    ),
    "Kanopus-V3, zones": Delivery(
        "KANOPUS", ("blue", "green"), f"PSS/{_KV3}_PSS1_551010_301121.tiff", {f"MSS/{_KV3}_S_252710_301121.tiff": 2},
        {f"MSS/{_KV3}_S_252710_301121.xml": f"<PASP_ROOT>\n{_ZONES}</PASP_ROOT>"}, ratio=5,
    ),
    "SkySat": Delivery(
        "generic", _BGRN, "20200814_162132_ssc4d3_0021_panchromatic_dn.tif",
        {"20200814_162132_ssc4d3_0021_analytic_dn.tif": 4},
        others=["20200814_162132_ssc4d3_0021_pansharpened.tif"], ratio=2,
    ),
}  # fmt: skip
