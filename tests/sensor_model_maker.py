"""Cameras whose RPCs are known in closed form, and bundles in sensor geometry that are seen by them."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import products_maker as maker
import rasterio
from rasterio.rpc import RPC

LON, LAT, HEIGHT = 3.0, 45.0, 300.0  # the middle of the scene, degrees and metres
_METRE = 111_195.0  # of a degree


@dataclass(frozen=True)
class Camera:
    """A camera that looks askew: a column moves with height, a row turns with the longitude; pixel centres from 0."""

    height: int
    width: int
    pixel: float = 0.5
    """Metres on the ground."""
    lean: float = 0.2
    """Metres that a place of one metre more height moves by, to the right."""
    turn: float = 0.05
    """Rows that a column further right lies deeper."""
    bend: float = 0.01
    """Of the denominator, which makes the map no straight one."""

    @property
    def scales(self) -> tuple[float, float, float]:
        """Degrees of longitude and latitude from the middle to a corner, and metres of height."""
        half = self.pixel * max(self.height, self.width) / 2 / _METRE
        return half / float(np.cos(np.radians(LAT))), half, 500.0

    def see(self, lon: Any, lat: Any, height: Any) -> tuple[Any, Any]:
        """Return rows and columns of places on the ground."""
        east, north, up = self.scales
        x, y, z = (lon - LON) / east, (lat - LAT) / north, (height - HEIGHT) / up
        half = max(self.height, self.width) / 2
        move = self.lean * up / self.pixel / half
        below = 1 + self.bend * y
        rows = (self.height - 1) / 2 + half * (-y + self.turn * x) / below
        return rows, (self.width - 1) / 2 + half * (x + move * z) / below

    def rpcs(self, ratio: float = 1, offset: tuple[float, float] = (0, 0)) -> RPC:
        """Return its RPCs; of another camera, where this one's pixels are ``ratio`` times those and an offset."""
        east, north, up = self.scales
        half = max(self.height, self.width) / 2
        line, sample, below = ([0.0] * 20 for _ in range(3))
        line[1], line[2] = self.turn, -1.0  # terms: 1, lon, lat, height
        sample[1], sample[3] = 1.0, self.lean * up / self.pixel / half
        below[0], below[2] = 1.0, self.bend
        middle = [((size - 1) / 2 - by) / ratio for size, by in zip((self.height, self.width), offset, strict=True)]
        return RPC(
            height_off=HEIGHT, height_scale=up, lat_off=LAT, lat_scale=north, long_off=LON, long_scale=east,
            line_off=middle[0], line_scale=half / ratio, line_num_coeff=line, line_den_coeff=below,
            samp_off=middle[1], samp_scale=half / ratio, samp_num_coeff=sample, samp_den_coeff=below,
            err_bias=None, err_rand=None,
        )  # fmt: skip


def turned(camera: Camera, by: float) -> Camera:
    """Return the camera turned by so many rows a column."""
    return replace(camera, turn=camera.turn + by)


WORLD = {"P": "1 0 0 -1 1 -1", "MS": "4 0 0 -4 1 -1"}  # as they are delivered


def airbus_sensor(
    folder: Path, images: dict[str, Any], rpcs: dict[str, RPC] | None, world: dict[str, str] | None = WORLD
) -> Path:
    """Lay out a bundle in sensor geometry: DIM files without a geoposition, RPC files, JPEG 2000 with world files.

    Args:
        folder: of the bundle.
        images: P and MS, (bands, height, width).
        rpcs: of both; None for none.
        world: six numbers of both; None for no world files.
    """
    for number, kind in enumerate(("P", "MS"), start=1):
        image = images[kind]
        stem = f"PHR1A_{kind}_202108271549303_SEN_5897098101-{number}"
        place = folder / f"IMG_PHR1A_{kind}_{number:03d}"
        place.mkdir(parents=True)
        name = f"IMG_{stem}_R1C1.JP2"
        profile = {"count": len(image), "height": image.shape[1], "width": image.shape[2], "dtype": image.dtype.name}
        with rasterio.open(place / name, "w", driver="JP2OpenJPEG", QUALITY="100", REVERSIBLE="YES", **profile) as dst:
            dst.write(image)
        (place / f"{name}.aux.xml").unlink(missing_ok=True)
        if world:
            numbers = [f"{float(value):.14E}" for value in world[kind].split()]
            (place / f"IMG_{stem}_R1C1.J2W").write_text("\n".join(numbers) + "\n")
        if rpcs:
            (place / f"RPC_{stem}.XML").write_text(rpc_text(rpcs[kind], image.shape[1:]))
        files = f'<Data_File tile_R="1" tile_C="1"><DATA_FILE_PATH href="{name}"/></Data_File>'
        bands = ("P",) if kind == "P" else ("B2", "B1", "B0", "B3")
        text = maker.dim_text("PHR", "1A", kind, bands, 0, 0, 1, files, 1, "15:49:30.3")
        for key, size in (("NROWS", image.shape[1]), ("NCOLS", image.shape[2])):
            text = text.replace(f"<{key}>0</{key}>", f"<{key}>{size}</{key}>")
        (place / f"DIM_{stem}.XML").write_text(_in_sensor_geometry(text, f"RPC_{stem}.XML" if rpcs else ""))
    return folder


def _in_sensor_geometry(text: str, rpc: str) -> str:
    """Take the map out of a DIM file, and name the RPC file."""
    root = ElementTree.fromstring(text)
    for element in (root.find(".//Geoposition"), root.find("Coordinate_Reference_System")):
        assert element is not None
        for child in list(element):
            element.remove(child)
    place = root.find(".//Geoposition")
    assert place is not None
    ElementTree.SubElement(ElementTree.SubElement(place, "Raster_CRS"), "RASTER_GEOMETRY").text = "SENSOR"
    if rpc:
        component = "<Component><COMPONENT_TITLE>RPC Model</COMPONENT_TITLE><COMPONENT_CONTENT>Geoposition Model"
        component += f'</COMPONENT_CONTENT><COMPONENT_TYPE>DIMAP</COMPONENT_TYPE><COMPONENT_PATH href="{rpc}"/>'
        model = f"<Rational_Function_Model>{component}</Component></Rational_Function_Model>"
        place.append(ElementTree.fromstring(f"<Geoposition_Models>{model}</Geoposition_Models>"))
        components = ElementTree.fromstring(f"<Dataset_Components>{component}</Component></Dataset_Components>")
        (root.find("Dataset_Content") or ElementTree.SubElement(root, "Dataset_Content")).append(components)
    level = root.find(".//PROCESSING_LEVEL")
    assert level is not None
    level.text = "SENSOR"
    return ElementTree.tostring(root, encoding="unicode")


def rpc_text(rpcs: RPC, shape: tuple[int, int]) -> str:
    """Write an RPC file of DIMAP 2: its first pixel is 1."""
    names = {"SAMP_NUM": rpcs.samp_num_coeff, "SAMP_DEN": rpcs.samp_den_coeff, "LINE_NUM": rpcs.line_num_coeff,
             "LINE_DEN": rpcs.line_den_coeff}  # fmt: skip
    terms = "".join(
        f"<{name}_COEFF_{number}>{value!r}</{name}_COEFF_{number}>"
        for name, values in names.items()
        for number, value in enumerate(values, start=1)
    )
    values = {
        "LONG_SCALE": rpcs.long_scale, "LONG_OFF": rpcs.long_off, "LAT_SCALE": rpcs.lat_scale, "LAT_OFF": rpcs.lat_off,
        "HEIGHT_SCALE": rpcs.height_scale, "HEIGHT_OFF": rpcs.height_off, "SAMP_SCALE": rpcs.samp_scale,
        "SAMP_OFF": rpcs.samp_off + 1, "LINE_SCALE": rpcs.line_scale, "LINE_OFF": rpcs.line_off + 1,
    }  # fmt: skip
    facts = "".join(f"<{key}>{value!r}</{key}>" for key, value in values.items())
    rows, cols = shape
    domain = f"<FIRST_ROW>1</FIRST_ROW><FIRST_COL>1</FIRST_COL><LAST_ROW>{rows}</LAST_ROW><LAST_COL>{cols}</LAST_COL>"
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n<Dimap_Document><Metadata_Identification>'
        '<METADATA_FORMAT version="2.15">DIMAP</METADATA_FORMAT></Metadata_Identification><Rational_Function_Model>'
        f"<Global_RFM><Inverse_Model>{terms}</Inverse_Model><RFM_Validity><Direct_Model_Validity_Domain>{domain}"
        f"</Direct_Model_Validity_Domain>{facts}</RFM_Validity></Global_RFM></Rational_Function_Model></Dimap_Document>"
    )
