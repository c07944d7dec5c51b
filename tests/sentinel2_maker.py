"""Small Sentinel-2 products: the true names, metadata of our own writing, JPEG 2000 files of a generated ground."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import rasterio
from conftest import Array
from rasterio.transform import Affine

CRS = "EPSG:32633"
EAST, NORTH = 300000.0, 6200040.0
TILE, TIME = "T33UUB", "20220527T102031"
BANDS = {
    10: ("B02", "B03", "B04", "B08"),
    20: ("B05", "B06", "B07", "B8A", "B11", "B12"),
    60: ("B01", "B09", "B10"),
}
NUMBERS = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B10", "B11", "B12")
# how each band mixes what the ground shows: three patterns, of which those of 10 m see all but B10
MIXES = {band: (1 + number % 3, (number * 5) % 4, (number * 7) % 5) for number, band in enumerate(NUMBERS)}


def ground(size: int, metres: int, seed: int = 1) -> Array:
    """Return three patterns on a grid of ``metres``, seen through that grid's pixels: (3, size, size) float64."""
    fine = size * metres // 10
    noise = np.random.default_rng(seed).normal(size=(3, fine, fine))
    from scipy.ndimage import gaussian_filter

    smooth = np.stack([gaussian_filter(each, 1.2, mode="wrap") for each in noise])
    step = metres // 10
    return smooth.reshape(3, size, step, size, step).mean((2, 4))


def image(band: str, size: int, metres: int, offset: int = 0, seed: int = 1) -> Array:
    """Return a band's DN, (size, size) uint16; 0 is left to pixels without data."""
    patterns = ground(size, metres, seed)
    if band == "B10":
        patterns = ground(size, metres, seed + 7)
    values = 1500 + 300 * np.tensordot(MIXES[band], patterns, 1) + offset
    return np.clip(np.rint(values), 1, 65535).astype("uint16")


def write_jp2(path: Path, values: Array, metres: int) -> Path:
    """Write a lossless JPEG 2000 file on the tile's grid."""
    path.parent.mkdir(parents=True, exist_ok=True)
    bands = values if values.ndim == 3 else values[None]
    count, height, width = bands.shape
    place = Affine(metres, 0, EAST, 0, -metres, NORTH)
    with rasterio.open(
        path, "w", driver="JP2OpenJPEG", count=count, height=height, width=width, dtype=values.dtype.name, crs=CRS,
        transform=place, QUALITY="100", REVERSIBLE="YES", BLOCKXSIZE="64", BLOCKYSIZE="64",
    ) as file:  # fmt: skip
        file.write(bands)
    return path


def metadata(level: str, baseline: str = "04.00", quantification: int = 10000, offset: int | None = -1000) -> str:
    """Write what ksdiff reads of MTD_MSIL1C.xml or MTD_MSIL2A.xml."""
    name = "QUANTIFICATION_VALUE" if level == "L1C" else "BOA_QUANTIFICATION_VALUE"
    added = "RADIO_ADD_OFFSET" if level == "L1C" else "BOA_ADD_OFFSET"
    offsets = "" if offset is None else "".join(
        f'<{added} band_id="{number}">{offset}</{added}>' for number in range(len(NUMBERS))
    )  # fmt: skip
    spans = "".join(
        f'<Spectral_Information bandId="{number}" physicalBand="{band.replace("B0", "B")}"><Wavelength>'
        f'<MIN unit="nm">{400 + 100 * number}</MIN><MAX unit="nm">{440 + 100 * number}</MAX></Wavelength>'
        "</Spectral_Information>"
        for number, band in enumerate(NUMBERS)
    )
    return (
        f'<?xml version="1.0" encoding="UTF-8"?><n1:Level-{level[1:]}_User_Product xmlns:n1="https://psd.example/{level}">'
        f"<n1:General_Info><Product_Info><PROCESSING_BASELINE>{baseline}</PROCESSING_BASELINE></Product_Info>"
        "<Product_Image_Characteristics><Special_Values><SPECIAL_VALUE_TEXT>NODATA</SPECIAL_VALUE_TEXT>"
        "<SPECIAL_VALUE_INDEX>0</SPECIAL_VALUE_INDEX></Special_Values><Special_Values><SPECIAL_VALUE_TEXT>SATURATED"
        "</SPECIAL_VALUE_TEXT><SPECIAL_VALUE_INDEX>65535</SPECIAL_VALUE_INDEX></Special_Values>"
        f'<Values><{name} unit="none">{quantification}</{name}>{offsets}</Values><Spectral_Information_List>{spans}'
        "</Spectral_Information_List></Product_Image_Characteristics></n1:General_Info>"
        f"</n1:Level-{level[1:]}_User_Product>"
    )


def safe(
    folder: Path,
    level: str = "L1C",
    size: int = 120,
    *,
    offset: int | None = -1000,
    images: Mapping[str, Array] | None = None,
    without: tuple[str, ...] = (),
) -> Path:
    """Lay out a product of ``size`` pixels of 10 m, a multiple of 6.

    Args:
        folder: to put it in.
        level: L1C or L2A.
        size: see above.
        offset: since baseline 04.00; None for a product before that.
        images: DN of bands that are not to be the generated ones.
        without: bands that are left out.

    Returns:
        The ``.SAFE`` folder.
    """
    product = folder / f"S2A_MSI{level}_{TIME}_N0400_R065_{TILE}_20220527T122031.SAFE"
    granule = product / "GRANULE" / f"{level}_{TILE}_A036187_20220527T102521"
    (granule / "QI_DATA").mkdir(parents=True)
    (product / f"MTD_MSI{level}.xml").write_text(metadata(level, offset=offset), encoding="utf-8")
    for metres, bands in BANDS.items():
        count = size * 10 // metres
        for band in bands:
            if band in without or (level == "L2A" and band == "B10"):
                continue
            values = (images or {}).get(band, image(band, count, metres, 1000 if offset else 0))
            place = granule / "IMG_DATA" / (f"R{metres}m" if level == "L2A" else "")
            end = f"_{metres}m" if level == "L2A" else ""
            write_jp2(place / f"{TILE}_{TIME}_{band}{end}.jp2", values, metres)
        if level == "L2A" and metres > 10:
            classes = np.full((count, count), 5, "uint8")
            classes[: count // 4, : count // 4] = 9
            write_jp2(granule / "IMG_DATA" / f"R{metres}m" / f"{TILE}_{TIME}_SCL_{metres}m.jp2", classes, metres)
    if level == "L1C":
        clouds = np.zeros((3, size // 6, size // 6), "uint8")
        clouds[0, : size // 24, : size // 24] = 1
        write_jp2(granule / "QI_DATA" / "MSK_CLASSI_B00.jp2", clouds, 60)
        write_jp2(granule / "QI_DATA" / "MSK_QUALIT_B05.jp2", clouds[:1], 60)
    return product
