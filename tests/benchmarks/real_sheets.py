"""Every real scene at full resolution: what the metrics say, and sheets of 1:1 crops to look at before they are believed.

A sheet has two rows, the two places where the detail by the methods of :data:`SHOWN` differs most; a row is PAN, MS as it is, and these
methods, pixels enlarged without smoothing and all but PAN at one stretch. Where a folder of sheets holds ``crops.json``
the places are taken from there, so that sheets of other weights show the same ones.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio
from PIL import Image, ImageDraw
from rasterio.transform import Affine
from scipy.ndimage import gaussian_filter, uniform_filter

from ksdiff_cli import measure
from ksdiff_cli.numerics.camera import SceneCamera
from ksdiff_cli.products import find_scenes
from ksdiff_cli.raster.camera import find_camera
from ksdiff_cli.raster.pair import open_pair

SHOWN = ("gsa", "bt-h", "ksdiff")
SIDE, ENLARGED = 96, 4  # a crop, PAN pixels, and by how much it is shown larger
_TITLE = 18


@dataclass(frozen=True)
class RealScene:
    """Where a scene lies, and what is known of it."""

    path: str
    sensor: str | None
    rgb: tuple[int, int, int]
    """Bands to show, from 0."""
    ratio: int = 4


SCENES = {
    "spot6": RealScene("spot6", "SPOT6", (2, 1, 0)),
    "geoeye1": RealScene("geoeye1", "GE1", (2, 1, 0)),
    "worldview2": RealScene("worldview2", "WV2", (4, 2, 1)),
    "worldview3": RealScene("worldview3", "WV3", (4, 2, 1)),
    "wv3_georef": RealScene("wv3_georef", "WV3", (4, 2, 1)),
    "ikonos": RealScene("ikonos", "IKONOS", (2, 1, 0)),
    **{f"gaofen2-{n}": RealScene(f"gaofen2/full_{n}", "GF2", (2, 1, 0)) for n in range(5)},
    "zhengzhou": RealScene("zhengzhou_noninteger", None, (2, 1, 0)),
    "rotterdam-1": RealScene("rotterdam/1", None, (2, 1, 0)),
    "rotterdam-2": RealScene("rotterdam/2", None, (2, 1, 0)),
    "cbers": RealScene("cbers4a_wpm", None, (2, 1, 0)),
    **{f"landsat7-{n}": RealScene(f"landsat7/{n}", "L7", (0, 1, 2), 2) for n in ("01", "10", "20")},
    "landsat8-volcano": RealScene("landsat8_volcano", None, (2, 1, 0), 2),
    "landsat8-elkton": RealScene("landsat8_elkton", "L8", (2, 1, 0), 2),
    "landsat-istanbul": RealScene("landsat_istanbul", None, (2, 1, 0), 2),
}
"""QuickBird's tiles are not here: their PAN is at MS scale already, so that they have no full resolution."""


@dataclass(frozen=True)
class Seen:
    """A scene with what methods made of it."""

    scene: RealScene
    pan: Path
    ms: Path
    """One file, as :func:`ksdiff_cli.measure` takes it."""
    fused: dict[str, Path]
    camera: SceneCamera
    """Found in the scene; 1 - its r2 is what MS, at its own scale, leaves of PAN: its D_sR."""


def look(
    name: str,
    data: Path,
    methods: Sequence[str],
    scratch: Path,
    sharpen: Callable[[str, list[str], str | None, Path], None],
) -> Seen:
    """Sharpen a scene by all methods; ``sharpen`` takes method, inputs, sensor and output."""
    scene = SCENES[name]
    found = find_scenes(data / scene.path)[0]
    sources = list(dict.fromkeys(source.path for source in found.ms))
    folder = scratch / name
    folder.mkdir()
    inputs = [found.pan.path, *sources] if len(sources) == 1 else [str(data / scene.path)]
    fused = {}
    for method in methods:
        fused[method] = folder / f"{method}.tif"
        sharpen(method, inputs, scene.sensor, fused[method])
    with open_pair(found) as pair:
        camera = find_camera(pair)
    return Seen(scene, Path(found.pan.path), _one_file(found, folder / "ms-bands.tif"), fused, camera)


def figures(seen: Seen, method: str) -> dict[str, float]:
    """Measure what a method made, against PAN and MS."""
    found = measure(seen.fused[method], pan=seen.pan, ms=seen.ms, sensor=seen.scene.sensor, mtf="scene")
    return found.values


def draw(seen: Seen, name: str, folder: Path, label: str) -> None:
    """Write ``folder/NAME-LABEL.png``."""
    images = {}
    for method in SHOWN:
        with rasterio.open(seen.fused[method]) as file:
            images[method], valid, place = file.read().astype(np.float64), file.dataset_mask() > 0, file.transform
    spots = _remembered(folder / "crops.json", name, lambda: _where_they_differ(list(images.values()), valid))
    bands = list(seen.scene.rgb)
    size = SIDE * ENLARGED
    sheet = Image.new("RGB", ((len(SHOWN) + 2) * (size + 4), len(spots) * (size + _TITLE)), "white")
    pen = ImageDraw.Draw(sheet)
    for line, (row, col) in enumerate(spots):
        cut = np.s_[:, row : row + SIDE, col : col + SIDE]
        pan = _at(seen.pan, place, row, col, seen.scene.ratio, is_pan=True)[:1]
        ms = _at(seen.ms, place, row, col, seen.scene.ratio, is_pan=False)[bands]
        low, high = (np.nanpercentile(ms, q, axis=(1, 2))[:, None, None] for q in (0.5, 99.5))
        room = 0.15 * (high - low)
        tiles = {"PAN": _stretch(pan.repeat(3, 0), *np.nanpercentile(pan, (0.5, 99.5)))}
        tiles["MS"] = _stretch(ms, low - room, high + room)
        tiles |= {method: _stretch(image[bands][cut], low - room, high + room) for method, image in images.items()}
        for column, (title, tile) in enumerate(tiles.items()):
            at = column * (size + 4), line * (size + _TITLE)
            large = tile.repeat(ENLARGED, 1).repeat(ENLARGED, 2)
            sheet.paste(Image.fromarray(large.transpose(1, 2, 0)), (at[0], at[1] + _TITLE))
            text = f"{title} {label}" if title == "ksdiff" else title
            pen.text((at[0] + 2, at[1] + 3), f"{name} ({row}, {col})  {text}", fill="black")
    sheet.save(folder / f"{name}-{label}.png")


def _one_file(found, path: Path) -> Path:
    """Return MS as one file; a product's bands, a file each, are put into ``path``."""
    files = list(dict.fromkeys(source.path for source in found.ms))
    if len(files) == 1:
        return Path(files[0])
    with rasterio.open(files[0]) as first:
        profile = {**first.profile, "count": len(files), "driver": "GTiff"}
    with rasterio.open(path, "w", **profile) as target:
        for band, source in enumerate(found.ms, start=1):
            with rasterio.open(source.path) as file:
                target.write(file.read(source.band), band)
    return path


def _at(path: Path, place: Affine, row: int, col: int, ratio: int, *, is_pan: bool) -> np.ndarray:
    """Return the source pixel that lies under each pixel of a crop of the output: (bands, SIDE, SIDE), NaN outside."""
    rows, cols = row + np.arange(SIDE) + 0.5, col + np.arange(SIDE) + 0.5
    with rasterio.open(path) as file:
        image = file.read().astype(np.float64)
        if file.transform.is_identity:  # no georeference: corner on corner
            step = 1 if is_pan else ratio
            rows, cols = rows / step, cols / step
        else:
            there = ~file.transform * place
            rows, cols = rows * there.e + there.f, cols * there.a + there.c
    inside = [(axis >= 0) & (axis < size) for axis, size in zip((rows, cols), image.shape[1:], strict=True)]
    near = [np.clip(axis.astype(int), 0, size - 1) for axis, size in zip((rows, cols), image.shape[1:], strict=True)]
    found = image[:, near[0][:, None], near[1]]
    found[:, ~(inside[0][:, None] & inside[1])] = np.nan
    return found


def _where_they_differ(images: list[np.ndarray], valid: np.ndarray) -> list[tuple[int, int]]:
    """Return the corners of the two crops, apart from each other, whose fine detail differs most by bands' spread."""
    images = [image - gaussian_filter(image, (0, 4, 4)) for image in images]  # no flat roofs of another brightness
    spread = np.stack([image[:, valid].std(1) for image in images]).mean(0)[:, None, None] + 1e-9
    unlike = (np.std(images, 0) / spread).mean(0)
    score = uniform_filter(np.where(valid, unlike, 0), SIDE, mode="constant")
    half, spots = SIDE // 2, []
    inner = np.full(score.shape, -1.0)
    inner[half : score.shape[0] - half + 1, half : score.shape[1] - half + 1] = score[
        half : score.shape[0] - half + 1, half : score.shape[1] - half + 1
    ]
    for _ in range(2):
        row, col = np.unravel_index(inner.argmax(), inner.shape)
        spots.append((int(row) - half, int(col) - half))
        inner[max(0, row - SIDE) : row + SIDE, max(0, col - SIDE) : col + SIDE] = -1
    return spots


def _remembered(path: Path, name: str, find: Callable[[], list[tuple[int, int]]]) -> list[tuple[int, int]]:
    known = json.loads(path.read_text()) if path.exists() else {}
    if name not in known:
        known[name] = find()
        path.write_text(json.dumps(known, indent=1))
    return [(row, col) for row, col in known[name]]


def _stretch(image: np.ndarray, low, high) -> np.ndarray:
    shown = np.clip((image - low) / (high - low + 1e-9), 0, 1) * 255
    return np.nan_to_num(shown).astype(np.uint8)
