"""A whole generated Sentinel-2 tile, all bands to 10 m: time and memory of ksdiff, beside GDAL's cubic of the same bands.

    python tests/benchmarks/sentinel2_tile.py DATA FOLDER [--size 10980] [--threads 2] [--only ROW…] [-- WORDS…]

DATA holds the scenes of github.com/lanha/DSen2 (CC BY 4.0, Copernicus Sentinel data), as in guided_bands.py. They are
repeated as in a kaleidoscope, one above the other, with a brightness that changes slowly, until they fill a level 1C
product of baseline 04.00 (FOLDER/SIZE/….SAFE): lossless JPEG 2000 in the tiles of ESA's (1024, 640 and 192 pixels at 10,
20 and 60 m). It is kept for the next run; at 10,980 pixels it takes 1.2 GB and many minutes. WORDS go to `ksdiff
sharpen`.

Each row is a process of its own; printed are its seconds of the clock and of the CPU (children included) and its peak of
memory. "cubic" is a VRT of all bands, the coarse ones with GDAL's cubic resampling, copied with the creation options of
ksdiff's output.
"""

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import rasterio
import rasterio.shutil
from rasterio.transform import Affine

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "tests"))
import sentinel2_maker as maker  # noqa: E402

TILES = {10: 1024, 20: 640, 60: 192}
KEYS = {10: "im10", 20: "im20", 60: "im60"}
NBITS = 15  # as ESA's


def fill_band(scenes: list[np.ndarray], size: int) -> np.ndarray:
    """Return scenes (h, w) repeated over (size, size) uint16, the offset of baseline 04.00 added."""
    out = np.empty((size, size), np.uint16)
    edges = [size * number // len(scenes) for number in range(len(scenes) + 1)]
    for scene, top, bottom in zip(scenes, edges, edges[1:], strict=False):
        side = len(scene)
        rows, cols = (np.abs((index + side) % (2 * side) - side) for index in (np.arange(size), np.arange(size)))
        rows, cols = np.minimum(rows, side - 1), np.minimum(cols, side - 1)
        slow = 1 + 0.15 * np.sin(np.arange(size) * 7.3 / size)
        for first in range(top, bottom, 1024):
            part = slice(first, min(first + 1024, bottom))
            values = scene[np.ix_(rows[part], cols)] * slow[part, None].astype(np.float32) * slow.astype(np.float32)
            out[part] = np.clip(np.rint(values) + 1000, 1, 2**NBITS - 1)
    return out


def make_tile(data: Path, folder: Path, size: int) -> Path:
    """Return the product, made where it is missing."""
    product = folder / str(size) / f"S2A_MSIL1C_{maker.TIME}_N0400_R065_{maker.TILE}_20220527T122031.SAFE"
    if (product / "MTD_MSIL1C.xml").exists():
        return product
    granule = product / "GRANULE" / f"L1C_{maker.TILE}_A036187_20220527T102521"
    scenes = []
    for path in sorted(data.glob("S2?_MSIL1C_*.mat")):
        with h5py.File(path) as file:
            scenes.append({metres: np.asarray(file[key], np.float32) for metres, key in KEYS.items()})
    for metres, bands in maker.BANDS.items():
        for number, band in enumerate(bands):
            print(f"writing {band}", file=sys.stderr, flush=True)
            if band == "B10":  # which these scenes lack: it sees no ground
                noise = np.random.default_rng(1).normal(20, 3, (100, 100)).astype(np.float32)
                images = [noise for _ in scenes]
            else:
                images = [scene[metres][number] for scene in scenes]
            write_jp2(
                granule / "IMG_DATA" / f"{maker.TILE}_{maker.TIME}_{band}.jp2",
                fill_band(images, size * 10 // metres),
                metres,
            )
    clouds = np.zeros((3, size // 6, size // 6), "uint8")
    clouds[0, : size // 24, : size // 24] = 1
    maker.write_jp2(granule / "QI_DATA" / "MSK_CLASSI_B00.jp2", clouds, 60)
    (product / "MTD_MSIL1C.xml").write_text(maker.metadata("L1C"), encoding="utf-8")
    return product


def write_jp2(path: Path, values: np.ndarray, metres: int) -> None:
    """Write a band as ESA does."""
    path.parent.mkdir(parents=True, exist_ok=True)
    side = str(min(TILES[metres], len(values)))
    place = Affine(metres, 0, maker.EAST, 0, -metres, maker.NORTH)
    with rasterio.open(
        path, "w", driver="JP2OpenJPEG", count=1, height=len(values), width=len(values), dtype="uint16", crs=maker.CRS,
        transform=place, QUALITY="100", REVERSIBLE="YES", BLOCKXSIZE=side, BLOCKYSIZE=side, NBITS=str(NBITS),
    ) as file:  # fmt: skip
        file.write(values, 1)


def copy_cubic(product: Path, output: Path, threads: int) -> None:
    """Write all bands at 10 m, the coarse ones by GDAL's cubic."""
    from ksdiff_cli.output.creation import geotiff_options
    from ksdiff_cli.output.pixels import PixelFormat

    paths = {path.stem.rpartition("_")[2]: path for path in product.glob("GRANULE/*/IMG_DATA/*.jp2")}
    with rasterio.open(paths["B02"]) as file:
        size, place, crs = file.width, file.transform, file.crs.to_wkt()
    bands = []
    for number, band in enumerate(maker.NUMBERS, start=1):
        with rasterio.open(paths[band]) as file:
            own = file.width
        bands.append(
            f'<VRTRasterBand dataType="UInt16" band="{number}"><SimpleSource resampling="cubic"><SourceFilename>'
            f'{paths[band]}</SourceFilename><SourceBand>1</SourceBand><SrcRect xOff="0" yOff="0" xSize="{own}" '
            f'ySize="{own}"/><DstRect xOff="0" yOff="0" xSize="{size}" ySize="{size}"/></SimpleSource></VRTRasterBand>'
        )
    whole = (
        f'<VRTDataset rasterXSize="{size}" rasterYSize="{size}"><SRS>{crs}</SRS><GeoTransform>'
        f"{', '.join(map(str, place.to_gdal()))}</GeoTransform>{''.join(bands)}</VRTDataset>"
    )
    with rasterio.Env(GDAL_NUM_THREADS=str(threads)):
        creation = geotiff_options(PixelFormat(np.dtype("uint16"), 0), {})
        rasterio.shutil.copy(whole, output, driver="GTiff", **creation)


def measure(command: list[str], threads: int) -> tuple[float, float, float]:
    """Return seconds of the clock and of the CPU, and GB at most, of a process with its children."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    environment = os.environ | dict.fromkeys(names, str(threads)) | {"PYTHONPATH": str(ROOT)}
    start = time.perf_counter()
    process = subprocess.Popen(command, env=environment)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"failed with {process.returncode}: {' '.join(command)}")
    return time.perf_counter() - start, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024 / 1e9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--size", type=int, default=10980, help="pixels of 10 m, a multiple of 6")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", nargs="+", default=("ksdiff", "cubic"))
    parser.add_argument("--keep", action="store_true", help="the outputs")
    parser.add_argument("--alone", action="store_true", help=argparse.SUPPRESS)
    chosen, words = parser.parse_known_args()
    product = make_tile(chosen.data, chosen.folder, chosen.size)
    output = chosen.folder / f"{chosen.size}-cubic.tif"
    if chosen.alone:
        copy_cubic(product, output, chosen.threads)
        return
    print("| row | s | CPU s | peak GB |\n|---|---|---|---|", flush=True)
    for row in chosen.only:
        output = chosen.folder / f"{chosen.size}-{row}.tif"
        if row == "cubic":
            command = [sys.executable, __file__, *sys.argv[1:], "--alone"]
        else:
            command = [sys.executable, "-m", "ksdiff_cli", "sharpen", product, "-o", output, "--method", row]
            command += ["--threads", chosen.threads, *words[words[:1] == ["--"] :]]
        figures = measure(list(map(str, command)), chosen.threads)
        print("| {} | {:.0f} | {:.0f} | {:.2f} |".format(row, *figures), flush=True)
        if not chosen.keep:
            output.unlink(missing_ok=True)


if __name__ == "__main__":
    main()
