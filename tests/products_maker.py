"""Small products of every family, in the providers' own names, folders and metadata."""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from conftest import Array, write_raster
from rasterio.transform import Affine

CRS = "EPSG:32631"
EAST, NORTH = 500000.0, 5000000.0


def grid(pixel: float, row: int = 0, col: int = 0) -> Affine:
    return Affine(pixel, 0, EAST + col * pixel, 0, -pixel, NORTH - row * pixel)


def ground(pixel: float, height: int, width: int, bands: int = 1, row: int = 0, col: int = 0) -> Array:
    """Look at a smooth scene: (bands, height, width) uint16, another level in each band."""
    y = (np.arange(row, row + height) + 0.5)[:, None] * pixel
    x = (np.arange(col, col + width) + 0.5)[None] * pixel
    view = 60 * np.sin(x / 9) + 50 * np.cos(y / 11)
    return np.stack([400 + 100 * band + view for band in range(bands)]).round().astype("uint16")


def write(path: Path, pixel: float, height: int, width: int, bands: int = 1, **more: Any) -> Path:
    row, col = more.pop("row", 0), more.pop("col", 0)
    place = {"crs": CRS, "transform": grid(pixel, row, col)} if more.pop("on_map", True) else {}
    return write_raster(path, ground(pixel, height, width, bands, row, col), **place, **more)


# --- Landsat ---------------------------------------------------------------------------------------------------------

C2 = "LC08_L1TP_017051_20151205_20200908_02_T1"
C1 = "LC08_L1TP_195025_20130707_20170503_01_T1"
C1_ETM = "LE07_L1TP_195025_20010730_20170204_01_T1"


def landsat(
    folder: Path,
    product: str = C2,
    bands: Sequence[str] = ("1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11"),
    *,
    quality: str | None = "QA_PIXEL",
    mtl: str | None = None,
    suffix: str = ".TIF",
) -> Path:
    """Lay out a level-1 product; PAN's grid starts half a PAN pixel further out, as Landsat's does."""
    for band in bands:
        size = 32 if band == "8" else 16
        pixel = 15.0 if band == "8" else 30.0
        place = Affine(pixel, 0, EAST - (7.5 if band == "8" else 0), 0, -pixel, NORTH + (7.5 if band == "8" else 0))
        image = ground(pixel, size, size) + 100 * int(band.partition("_")[0])
        write_raster(folder / f"{product}_B{band}{suffix}", image.astype("uint16"), crs=CRS, transform=place)
    if quality:
        flags = np.full((16, 16), 1 << 6, "uint16")  # clear
        write_raster(folder / f"{product}_{quality}{suffix}", flags, crs=CRS, transform=grid(30))
    if mtl is None:
        mtl = mtl_text(product)
    if mtl:
        (folder / f"{product}_MTL.txt").write_text(mtl)
    return folder


def mtl_text(product: str, **changes: str) -> str:
    """Write the fields of an MTL file that tell products apart; Collection 1 and 2 group them differently."""
    fields = {
        "LANDSAT_PRODUCT_ID": f'"{product}"',
        "PROCESSING_LEVEL": f'"{product.split("_")[1]}"',
        "COLLECTION_NUMBER": product.split("_")[5],
        "SPACECRAFT_ID": f'"LANDSAT_{int(product[2:4])}"',
        "SENSOR_ID": '"ETM"' if product.startswith("LE") else '"OLI_TIRS"',
    } | changes
    names = {f"FILE_NAME_BAND_{band}": f'"{product}_B{band}.TIF"' for band in range(1, 12)} | {
        "FILE_NAME_QUALITY_L1_PIXEL": f'"{product}_QA_PIXEL.TIF"'
    }
    lines = "".join(f"    {key} = {value}\n" for key, value in (fields | names).items() if value)
    contents = f"  GROUP = PRODUCT_CONTENTS\n{lines}  END_GROUP = PRODUCT_CONTENTS\n"
    return f"GROUP = LANDSAT_METADATA_FILE\n{contents}END_GROUP = LANDSAT_METADATA_FILE\nEND\n"


# --- Maxar -----------------------------------------------------------------------------------------------------------

ORDER = "052299001010_01"
EIGHT = ("C", "B", "G", "Y", "R", "RE", "N", "N2")
FOUR = ("B", "G", "R", "N")


def maxar(
    folder: Path,
    satellite: str = "WV02",
    bands: Sequence[str] = EIGHT,
    *,
    part: str = "P001",
    level: str = "2AS",
    pan_tiles: int = 1,
    ms_tiles: int = 1,
    band_id: str | None = None,
    parts: Sequence[str] = ("PAN", "MUL"),
) -> Path:
    """Lay out a delivery: folders …_PAN and …_MUL; tiled images have a TIL."""
    delivery = folder / f"{ORDER.split('_')[0]}_01"
    if "PAN" in parts:
        place = delivery / f"{ORDER}_{part}_PAN"
        maxar_image(place, f"10JAN03101112-P{level}-{ORDER}_{part}", satellite, ("P",), "P", 0.5, 64, pan_tiles)
    if "MUL" in parts:
        place = delivery / f"{ORDER}_{part}_MUL"
        stem = f"10JAN03101113-M{level}-{ORDER}_{part}"
        maxar_image(place, stem, satellite, bands, band_id or "Multi", 2.0, 16, ms_tiles)
    if "SWIR" in parts:
        place = delivery / f"{ORDER}_{part}_SWIR"
        swir = tuple(f"S{number}" for number in range(1, 9))
        maxar_image(place, f"10JAN03101114-A{level}-{ORDER}_{part}", satellite, swir, "All-S", 8.0, 4, 1)
    return delivery


def maxar_image(
    folder: Path, stem: str, satellite: str, bands: Sequence[str], band_id: str, pixel: float, size: int, tiles: int
) -> None:
    """Write an image of ``tiles`` x ``tiles`` files; the last row and column of tiles are smaller, as they are."""
    on_map = "1B" not in stem
    head, tail = stem.rsplit("-", 1)
    edges = [0, *(round(size * share) for share in ((1.0,) if tiles == 1 else (0.625, 1.0)))]
    entries = []
    for row, (top, bottom) in enumerate(pairwise(edges), start=1):
        for col, (left, right) in enumerate(pairwise(edges), start=1):
            name = f"{head}_R{row}C{col}-{tail}.TIF" if tiles > 1 else f"{stem}.TIF"
            write(folder / name, pixel, bottom - top, right - left, len(bands), row=top, col=left, on_map=on_map)
            entries.append((name, top, left, bottom - 1, right - 1))
    (folder / f"{stem}.IMD").write_text(imd_text(stem, satellite, bands, band_id, size))
    (folder / f"{stem}.TIL").write_text(til_text(band_id, entries))
    if not on_map:
        (folder / f"{stem}.RPB").write_text(rpb_text(size))


def imd_text(stem: str, satellite: str, bands: Sequence[str], band_id: str, size: int) -> str:
    groups = "".join(
        f"BEGIN_GROUP = BAND_{band}\n\tULLon = 3.00000000;\n\tULLat = 45.00000000;\n\tabsCalFactor = 9.295654e-03;\n"
        f"\teffectiveBandwidth = 4.730000e-02;\n\tTDILevel = 24;\nEND_GROUP = BAND_{band}\n"
        for band in bands
    )
    projected = (
        ""
        if "1B" in stem
        else "BEGIN_GROUP = MAP_PROJECTED_PRODUCT\n\tearliestAcqTime = 2010-01-03T10:11:12.000000Z;\n"
        '\tdatumName = "WE";\n\tmapProjName = "UTM";\n\tmapZone = 31;\nEND_GROUP = MAP_PROJECTED_PRODUCT\n'
    )
    return (
        'version = "AA";\ngenerationTime = 2010-01-07T19:56:46.000000Z;\n'
        f'productOrderId = "{stem.rsplit("-", 1)[1]}";\nproductCatalogId = "20300100A1B2C300";\n'
        f'imageDescriptor = "{"Basic1B" if "1B" in stem else "Standard2A"}";\nbandId = "{band_id}";\n'
        f'panSharpenAlgorithm = "None";\nnumRows = {size};\nnumColumns = {size};\nproductLevel = "LV2A";\n'
        f'radiometricLevel = "Corrected";\nbitsPerPixel = 16;\ncompressionType = "None";\n{groups}'
        f'outputFormat = "GeoTIFF";\nBEGIN_GROUP = IMAGE_1\n\tsatId = "{satellite}";\n\tmode = "FullSwath";\n'
        f"\tTLCList = (\n\t(0,  0.000000),\n\t(33656, -1.695800) );\n\tcloudCover = 0.001;\n"
        f"END_GROUP = IMAGE_1\n{projected}END;\n"
    )


def til_text(band_id: str, entries: Sequence[tuple[str, int, int, int, int]]) -> str:
    groups = "".join(
        f'BEGIN_GROUP = TILE_{number}\n\tfilename = "{name}";\n\tULColOffset = {left};\n\tULRowOffset = {top};\n'
        f"\tURColOffset = {right};\n\tURRowOffset = {top};\n\tLRColOffset = {right};\n\tLRRowOffset = {bottom};\n"
        f"\tLLColOffset = {left};\n\tLLRowOffset = {bottom};\nEND_GROUP = TILE_{number}\n"
        for number, (name, top, left, bottom, right) in enumerate(entries, start=1)
    )
    head = f'bandId = "{band_id}";\nnumTiles = {len(entries)};\ntileSizeX = 40;\ntileSizeY = 40;\n'
    return f'{head}tileUnits = "Pixels";\ntileOverlap = 0;\n{groups}END;\n'


def rpb_text(size: int) -> str:
    """RPCs of a whole image, as Maxar writes them."""
    coefficients = "".join(
        f"\t{name} = (\n" + ",\n".join(f"\t\t\t{1.0 if term == first else 0.0:+.6E}" for term in range(20)) + ");\n"
        for name, first in (("lineNumCoef", 2), ("lineDenCoef", 0), ("sampNumCoef", 1), ("sampDenCoef", 0))
    )
    values = {
        "errBias": 1.0, "errRand": 0.1, "lineOffset": size // 2, "sampOffset": size // 2, "latOffset": 45.0,
        "longOffset": 3.0, "heightOffset": 100, "lineScale": size // 2, "sampScale": size // 2, "latScale": 0.01,
        "longScale": 0.01, "heightScale": 500,
    }  # fmt: skip
    lines = "".join(f"\t{key} = {value};\n" for key, value in values.items())
    head = 'satId = "WV02";\nbandId = "P";\nSpecId = "RPC00B";\n'
    return f"{head}BEGIN_GROUP = IMAGE\n{lines}{coefficients}END_GROUP = IMAGE\nEND;\n"


# --- GaoFen ----------------------------------------------------------------------------------------------------------


def gaofen(
    folder: Path,
    scene: str = "GF2_PMS1_E116.5_N39.9_20160101_L1A0001234567",
    camera: str = "1",
    ms: str = "MSS",
    *,
    kinds: Sequence[str] = ("pan", "ms"),
) -> Path:
    """Lay out a level-1A product: images without georeference, an XML file and RPCs beside each."""
    for kind, size, bands, label in (("pan", 64, 1, "PAN"), ("ms", 16, 4, ms)):
        if kind in kinds:
            stem = f"{scene}-{label}{camera}"
            write(folder / f"{stem}.tiff", 0.8 if kind == "pan" else 3.2, size, size, bands, on_map=False)
            (folder / f"{stem}.xml").write_text(gaofen_xml(scene, "5" if kind == "pan" else "1,2,3,4"))
            (folder / f"{stem}.rpb").write_text(rpb_text(size))
            (folder / f"{stem}.jpg").write_bytes(b"")
    return folder


def gaofen_xml(scene: str, bands: str) -> str:
    satellite, sensor, *_ = scene.split("_")
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n<ProductMetaData>\n'
        f"  <SatelliteID>{satellite}</SatelliteID>\n  <SensorID>{sensor}</SensorID>\n"
        "  <ReceiveTime>2016-01-01 11:22:33</ReceiveTime>\n  <ProductLevel>LEVEL1A</ProductLevel>\n"
        f"  <Bands>{bands}</Bands>\n  <CloudPercent>1</CloudPercent>\n</ProductMetaData>\n"
    )


# --- Airbus ----------------------------------------------------------------------------------------------------------


def airbus(
    folder: Path,
    mission: str = "PHR",
    index: str = "1A",
    *,
    spectral: Sequence[str] = ("P", "MS"),
    tiles: int = 1,
    level: str = "ORTHO",
    time: str = "10:25:49.8",
) -> Path:
    """Lay out a bundle: VOL file, folders IMG_PHR1A_P_001 and IMG_PHR1A_MS_002 with DIM files and images."""
    satellite = mission + index
    order = ("B2", "B1", "B0", "B3")
    stamp = time.translate({ord(":"): None, ord("."): None})
    for number, kind in enumerate(spectral, start=1):
        bands = ("P",) if kind == "P" else order
        size, pixel = (16, 2.0) if kind == "MS" else (64, 0.5)
        stem = f"{satellite}_{kind}_20130101{stamp}_{level[:3]}_1234567101-{number:03d}"
        airbus_image(
            folder / f"IMG_{satellite}_{kind}_{number:03d}", stem, mission, index, kind, bands, size, pixel, tiles, time
        )
    (folder / f"VOL_{mission}.XML").write_text(
        '<?xml version="1.0" encoding="UTF-8"?>\n<Dimap_Document><Metadata_Identification>'
        '<METADATA_FORMAT version="2.0">DIMAP</METADATA_FORMAT></Metadata_Identification></Dimap_Document>\n'
    )
    return folder


def airbus_image(
    folder: Path, stem: str, mission: str, index: str, kind: str, bands: Sequence[str], size: int, pixel: float,
    tiles: int, time: str,
) -> None:  # fmt: skip
    side = size if tiles == 1 else size * 5 // 8
    files = []
    for row in range(tiles):
        for col in range(tiles):
            name = f"IMG_{stem}_R{row + 1}C{col + 1}.TIF"
            height, width = min(side, size - row * side), min(side, size - col * side)
            write(folder / name, pixel, height, width, len(bands), row=row * side, col=col * side)
            files.append(
                f'<Data_File tile_R="{row + 1}" tile_C="{col + 1}"><DATA_FILE_PATH href="{name}"/></Data_File>'
            )
    (folder / f"DIM_{stem}.XML").write_text(
        dim_text(mission, index, kind, bands, size, side, tiles, "".join(files), pixel, time)
    )


def dim_text(
    mission: str, index: str, kind: str, bands: Sequence[str], size: int, side: int, tiles: int, files: str,
    pixel: float, time: str,
) -> str:  # fmt: skip
    channels = ("RED", "GREEN", "BLUE", "ALPHA") if len(bands) > 1 else ("RED", "GREEN", "BLUE")
    shown = "".join(
        f"<{channel}_CHANNEL>{bands[min(place, len(bands) - 1)]}</{channel}_CHANNEL>"
        for place, channel in enumerate(channels)
    )
    return f"""<?xml version="1.0" encoding="UTF-8"?>
<?xml-stylesheet href="LIBRARY/STYLE.XSL" type="text/xsl"?>
<Dimap_Document>
  <Metadata_Identification>
    <METADATA_FORMAT version="2.0">DIMAP</METADATA_FORMAT>
    <METADATA_PROFILE>{mission}_ORTHO</METADATA_PROFILE>
    <METADATA_SUBPROFILE>PRODUCT</METADATA_SUBPROFILE>
  </Metadata_Identification>
  <Coordinate_Reference_System>
    <Projected_CRS><PROJECTED_CRS_CODE>urn:ogc:def:crs:EPSG::32631</PROJECTED_CRS_CODE></Projected_CRS>
  </Coordinate_Reference_System>
  <Geoposition>
    <Geoposition_Insert>
      <ULXMAP>{EAST}</ULXMAP><ULYMAP>{NORTH}</ULYMAP><XDIM>{pixel}</XDIM><YDIM>{pixel}</YDIM>
    </Geoposition_Insert>
  </Geoposition>
  <Processing_Information>
    <Product_Settings>
      <PROCESSING_LEVEL>ORTHO</PROCESSING_LEVEL>
      <SPECTRAL_PROCESSING>{kind}</SPECTRAL_PROCESSING>
    </Product_Settings>
  </Processing_Information>
  <Raster_Data>
    <Data_Access>
      <DATA_FILE_ORGANISATION>BAND_COMPOSITE</DATA_FILE_ORGANISATION>
      <DATA_FILE_FORMAT>image/tiff</DATA_FILE_FORMAT>
      <DATA_FILE_TILES>true</DATA_FILE_TILES>
      <Data_Files>{files}</Data_Files>
    </Data_Access>
    <Raster_Dimensions>
      <NROWS>{size}</NROWS><NCOLS>{size}</NCOLS><NBANDS>{len(bands)}</NBANDS>
      <Tile_Set>
        <NTILES>{tiles * tiles}</NTILES>
        <Regular_Tiling>
          <NTILES_SIZE nrows="{side}" ncols="{side}"/><NTILES_COUNT ntiles_R="{tiles}" ntiles_C="{tiles}"/>
          <OVERLAP_ROW>0</OVERLAP_ROW><OVERLAP_COL>0</OVERLAP_COL>
        </Regular_Tiling>
      </Tile_Set>
    </Raster_Dimensions>
    <Raster_Encoding><DATA_TYPE>INTEGER</DATA_TYPE><NBITS>12</NBITS><SIGN>UNSIGNED</SIGN></Raster_Encoding>
    <Raster_Display>
      <Band_Display_Order>{shown}</Band_Display_Order>
      <Special_Value>
        <SPECIAL_VALUE_TEXT>NODATA</SPECIAL_VALUE_TEXT><SPECIAL_VALUE_COUNT>0</SPECIAL_VALUE_COUNT>
      </Special_Value>
      <Special_Value>
        <SPECIAL_VALUE_TEXT>SATURATED</SPECIAL_VALUE_TEXT><SPECIAL_VALUE_COUNT>4095</SPECIAL_VALUE_COUNT>
      </Special_Value>
    </Raster_Display>
  </Raster_Data>
  <Dataset_Sources>
    <Source_Identification>
      <SOURCE_TYPE>Strip_Source</SOURCE_TYPE>
      <Strip_Source>
        <MISSION>{mission}</MISSION><MISSION_INDEX>{index}</MISSION_INDEX>
        <IMAGING_DATE>2013-01-01</IMAGING_DATE><IMAGING_TIME>{time}Z</IMAGING_TIME>
      </Strip_Source>
    </Source_Identification>
  </Dataset_Sources>
</Dimap_Document>
"""
