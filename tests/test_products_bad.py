"""Bad products, each with the one line that people get: it names the file, what is wrong and what to do."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import products_maker as maker
import pytest
from products_maker import C1_ETM, C2

Spoil = Callable[[Path], Any]


def edit(folder: Path, pattern: str, old: str, new: str) -> Path:
    """Replace text in the one file that matches."""
    (path,) = folder.rglob(pattern)
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    return folder


def cut(folder: Path, pattern: str, share: float = 0.5) -> Path:
    """Cut the one file that matches short."""
    (path,) = folder.rglob(pattern)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    return folder


def without(folder: Path, pattern: str) -> Path:
    for path in list(folder.rglob(pattern)):
        path.unlink()
    return folder


def drop_folder(folder: Path, pattern: str) -> Path:
    (place,) = folder.rglob(pattern)
    for path in place.iterdir():
        path.unlink()
    return folder


def no_archive(folder: Path, name: str, content: bytes = b"no archive") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(content)
    return folder / name


def cut_archive(folder: Path) -> Path:
    import tarfile

    maker.landsat(folder / "in")
    with tarfile.open(folder / "scene.tar.gz", "w:gz") as packed:
        packed.add(folder / "in", ".")
    cut(folder, "scene.tar.gz")
    return folder / "scene.tar.gz"


BAD: dict[str, tuple[Spoil, str, str]] = {
    # --- Landsat
    "landsat level 2": (
        lambda d: maker.landsat(d, "LC08_L2SP_017051_20151205_20200908_02_T1_SR", "1234567", quality=None, mtl=""),
        "LC08_L2SP_017051_20151205_20200908_02_T1",
        "is a level-2 product, which has no PAN; fetch the level-1 product",
    ),
    "landsat without PAN": (
        lambda d: without(maker.landsat(d), "*_B8.TIF"),
        C2,
        "has no band 8 (PAN, *_B8.TIF); fetch the level-1 product again",
    ),
    "landsat without MS": (
        lambda d: without(maker.landsat(d), "*_B[2-7].TIF"),
        C2,
        "has none of the MS bands B2, B3, B4, B5, B6, B7; fetch the level-1 product again",
    ),
    "landsat MTL of another spacecraft": (
        lambda d: maker.landsat(d, mtl=maker.mtl_text(C2, SPACECRAFT_ID='"LANDSAT_9"')),
        f"{C2}_MTL.txt",
        "names LANDSAT_9, but the files are of Landsat 8 by their names; they do not belong together",
    ),
    "landsat MTL cut short": (
        lambda d: cut(maker.landsat(d), "*_MTL.txt", 0.1),
        f"{C2}_MTL.txt",
        "has no SPACECRAFT_ID; the MTL file is cut short, fetch it again",
    ),
    "landsat band cut short": (
        lambda d: cut(maker.landsat(d), "*_B3.TIF", 0.02),
        f"{C2}_B3.TIF",
        "cannot be opened as a raster",
    ),
    "landsat quality band of another grid": (
        lambda d: (maker.landsat(d), maker.write(d / f"{C2}_QA_PIXEL.TIF", 30, 8, 8))[0],
        f"{C2}_QA_PIXEL.TIF",
        "lies on another grid than MS",
    ),
    "landsat 5": (
        lambda d: maker.landsat(d, C1_ETM.replace("LE07", "LT05"), "1234567", quality=None),
        C1_ETM.replace("LE07", "LT05"),
        "is of Landsat 5, which has no PAN at 15 m",
    ),
    # --- Maxar
    "maxar IMD without satId": (
        lambda d: edit(maker.maxar(d), "*P2AS*.IMD", "satId", "sat"),
        "-P2AS-052299001010_01_P001.IMD",
        "has no satId; the IMD file is cut short, fetch it again",
    ),
    "maxar IMD cut short": (
        lambda d: cut(maker.maxar(d), "*M2AS*.IMD", 0.1),
        "-M2AS-052299001010_01_P001.IMD",
        "the IMD file is cut short, fetch it again",
    ),
    "maxar TIL with a missing tile": (
        lambda d: without(maker.maxar(d, pan_tiles=2), "*R2C1*"),
        "-P2AS-052299001010_01_P001.TIL",
        "its tile 10JAN03101112-P2AS_R2C1-052299001010_01_P001.TIF is missing; fetch the product again",
    ),
    "maxar TIL cut short": (
        lambda d: cut(maker.maxar(d, pan_tiles=2), "*P2AS*.TIL"),
        "-P2AS-052299001010_01_P001.TIL",
        "tiles; the TIL file is cut short, fetch it again",
    ),
    "maxar tiles that leave holes": (
        lambda d: edit(maker.maxar(d, pan_tiles=2), "*P2AS*.TIL", "ULColOffset = 40", "ULColOffset = 44"),
        "-P2AS-052299001010_01_P001.TIL",
        "its tiles do not cover the 64 x 64 pixels of",
    ),
    "maxar IMD without its image": (
        lambda d: without(without(maker.maxar(d), "*P2AS*.TIF"), "*P2AS*.TIL"),
        "-P2AS-052299001010_01_P001.IMD",
        "neither its image",
    ),
    "maxar bands that contradict the file": (
        lambda d: edit(maker.maxar(d), "*M2AS*.IMD", "BAND_N2", "OTHER_N2"),
        "-M2AS-052299001010_01_P001.IMD",
        "names 7 bands (coastal, blue, green, yellow, red, red edge, nir1), but",
    ),
    "maxar bandId that contradicts the bands": (
        lambda d: edit(maker.maxar(d, "QB02", maker.FOUR), "*M2AS*.IMD", "Multi", "P"),
        "-M2AS-052299001010_01_P001.IMD",
        "bandId P and the bands it describes (B, G, R, N) contradict each other",
    ),
    "maxar PAN and MS of two satellites": (
        lambda d: edit(maker.maxar(d), "*M2AS*.IMD", "WV02", "WV03"),
        "-M2AS-052299001010_01_P001.IMD",
        "is of WV03, but its PAN",
    ),
    "worldview-1": (
        lambda d: maker.maxar(d, "WV01", parts=("PAN",)),
        "052299001010_01",
        "WorldView-1 takes PAN only",
    ),
    "maxar pan-sharpened": (
        lambda d: edit(maker.maxar(d, parts=("MUL",)), "*.IMD", 'Algorithm = "None"', 'Algorithm = "UNB"'),
        "052299001010_01",
        "is pan-sharpened already; order PAN and MS apart (a bundle)",
    ),
    # --- Airbus
    "airbus pan-sharpened": (
        lambda d: maker.airbus(d, spectral=("PMS",)),
        "DIM_PHR1A_PMS_",
        "is pan-sharpened already (PMS); order PAN and MS apart (a bundle)",
    ),
    "airbus XML cut short": (
        lambda d: cut(maker.airbus(d), "DIM_*_MS_*.XML"),
        "-002.XML",
        "is not whole XML",
    ),
    "airbus XML without mission": (
        lambda d: edit(maker.airbus(d), "DIM_*_P_*.XML", "MISSION>", "NAME>"),
        "-001.XML",
        "has no MISSION; it is no whole DIMAP 2 product description, fetch it again",
    ),
    "airbus missing tile": (
        lambda d: without(maker.airbus(d, tiles=2), "*_MS_*R1C2.TIF"),
        "-002.XML",
        "_R1C2.TIF is missing; fetch the product again",
    ),
    "airbus XML that contradicts its name": (
        lambda d: edit(maker.airbus(d), "DIM_*_MS_*.XML", "PROCESSING>MS<", "PROCESSING>P<"),
        "-002.XML",
        "says SPECTRAL_PROCESSING P, but is called MS",
    ),
    "airbus band count that contradicts its bands": (
        lambda d: edit(maker.airbus(d), "DIM_*_MS_*.XML", "<NBANDS>4<", "<NBANDS>6<"),
        "-002.XML",
        "says 6 bands but names B2, B1, B0, B3",
    ),
    "airbus overlapping tiles": (
        lambda d: edit(maker.airbus(d, tiles=2), "DIM_*_P_*.XML", "<OVERLAP_COL>0", "<OVERLAP_COL>8"),
        "-001.XML",
        "its tiles overlap, which is not supported",
    ),
    "airbus PAN alone": (
        lambda d: maker.airbus(d, "SPOT", "6", spectral=("P",)),
        "DIM_SPOT6_P_",
        "but no MS image; name the folder that holds both",
    ),
    # --- GaoFen
    "gaofen XML of another satellite": (
        lambda d: edit(maker.gaofen(d), "*PAN1.xml", ">GF2<", ">GF1<"),
        "-PAN1.xml",
        "names GF1, but GF2_PMS1_E116.5_N39.9_20160101_L1A0001234567-PAN1.tiff is of GF2 by its name",
    ),
    "gaofen XML cut short": (lambda d: cut(maker.gaofen(d), "*MSS1.xml"), "-MSS1.xml", "is not whole XML"),
    "gaofen XML without satellite": (
        lambda d: edit(maker.gaofen(d), "*MSS1.xml", "SatelliteID", "Platform"),
        "-MSS1.xml",
        "has no SatelliteID",
    ),
    "gaofen without MS": (
        lambda d: maker.gaofen(d, kinds=("pan",)),
        "GF2_PMS1_E116.5_N39.9_20160101_L1A0001234567",
        "has no MS (*-MSS*.tiff); fetch the product again",
    ),
    "gaofen wide field": (
        lambda d: maker.write(d / "GF1_WFV2_E113.5_N23.5_20140512_L1A0000223344.tiff", 16, 16, 16, 4).parent,
        "GF1_WFV2_E113.5_N23.5_20140512_L1A0000223344.tiff",
        "take MS only; there is no PAN to sharpen with",
    ),
    # --- archives
    "an archive that is none": (
        lambda d: no_archive(d, "scene.zip"),
        "scene.zip",
        "cannot be read as an archive",
    ),
    "an archive cut short": (cut_archive, "scene.tar.gz", "the file is damaged or incomplete, fetch it again"),
    "an archive inside the folder": (
        lambda d: no_archive(d, "scene.tar").parent,
        "",
        "archives are read when named themselves",
    ),
    "a metadata file alone": (
        lambda d: no_archive(d, "x_MTL.txt", b"END"),
        "x_MTL.txt",
        "describes an image that is not here; fetch the whole product",
    ),
    "an archive that is missing": (lambda d: d / "scene.zip", "scene.zip", "no such folder or file; check the path"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_products(case: str, fails: Any, tmp_path: Path) -> None:
    spoil, named, told = BAD[case]
    place = tmp_path / "product"
    line = fails("sharpen", spoil(place), "-o", tmp_path / "out.tif", "--method", "exp")
    assert named in line
    assert told in line
    assert not (tmp_path / "out.tif").exists()
