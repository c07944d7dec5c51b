"""A picture to judge a result by: PAN, MS and the fused image beside each other, MS and fused at one stretch."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio.errors import RasterioError
from rasterio.windows import Window

from ksdiff_cli.errors import KsdiffError
from ksdiff_cli.files.names import Inputs, check_location, check_place
from ksdiff_cli.files.writing import write_png
from ksdiff_cli.numerics import Array
from ksdiff_cli.numerics.canvas import Colour, draw_text, fit_text, hatch
from ksdiff_cli.numerics.grids import Axis
from ksdiff_cli.raster.crop import Crop, crop_pair
from ksdiff_cli.raster.layout import pixel_metres
from ksdiff_cli.raster.open import BLOCK_CACHE, open_raster, unreadable
from ksdiff_cli.raster.pair import Scene, ScenePair, open_pair
from ksdiff_cli.report.colours import Stretch, find_stretch, rgb_bands
from ksdiff_cli.report.pictures import ScaleBar, choose_bar

SIDE = 1500
"""Most pixels of a panel's side; larger scenes are averaged down to it."""
_LEAST = 480  # least width of a panel, which has room for its title; small scenes are enlarged by whole pixels
_ROWS = 256  # read at once
_CLOUDY = 0.9  # with more of the scene under clouds than this, clouds count for the stretch
_GAP, _BAR, _TEXT = 8, 28, 16  # between panels; height of titles and foot; size of letters
_PAPER: Colour = (36, 36, 36)
_INK: Colour = (235, 235, 235)
_EMPTY: tuple[Colour, Colour] = (96, 96, 96), (112, 112, 112)  # stripes of pixels without data


def check_quicklook(path: Path, inputs: Inputs, overwrite: bool) -> None:
    """Refuse a picture that could not be written in the end, before any work.

    Raises:
        KsdiffError: it is not called .png, or see :func:`ksdiff_cli.files.names.check_place`.
    """
    check_location(path)
    if path.suffix.lower() != ".png":
        raise KsdiffError(f"{path}: the quicklook is a PNG; let its name end in .png")
    check_place(path, inputs, overwrite)


def draw_quicklook(scene: Scene, output: Path, path: Path, crop: Crop | None = None) -> None:
    """Draw PAN | MS | fused, the same ground in each, at most :data:`SIDE` pixels a side and panel.

    MS and fused are stretched alike, between percentiles of MS's valid pixels that no cloud is known to cover; PAN
    has its own stretch, of the same ground. Pixels without data are striped grey. Memory does not grow with the
    scene's height.

    Args:
        scene: what was sharpened.
        output: the result.
        path: the PNG to write; one that is there is replaced.
        crop: the part of the scene that the result shows; None for all of it.

    Raises:
        KsdiffError: the scene or the result cannot be read, they do not fit each other, or the picture cannot be
            written.
    """
    with rasterio.Env(GDAL_CACHEMAX=BLOCK_CACHE), open_pair(scene) as whole, open_raster(output) as fused:
        pair = crop_pair(whole, crop) if crop else whole
        if fused.shape != pair.shape or fused.count != pair.bands:
            raise KsdiffError(
                f"{output}: has {fused.count} bands of {fused.width} x {fused.height} pixels, "
                f"not what sharpening {scene.name} gives"
            )
        picture = _draw(pair, fused)
    try:
        write_png(picture, path)
    except OSError as error:
        raise KsdiffError(f"{path}: cannot be written ({error.strerror or error})") from None


def _draw(pair: ScenePair, fused: Any) -> Array:
    step = max(1, math.ceil(max(pair.shape) / SIDE))
    names = [source.name for source in pair.scene.ms]
    shown = rgb_bands(pair.bands, names if all(names) else pair.scene.sensor.bands)
    pan, pan_valid = _average_pan(pair, step)
    ms, ms_valid, cloud = _average_ms(_only(pair, shown), step)
    sharp, sharp_valid = _average_fused(fused, shown, step)
    clear = ms_valid & ~cloud
    if clear.sum() <= (1 - _CLOUDY) * ms_valid.sum():
        clear = ms_valid
    stretch, grey = find_stretch(ms, clear), find_stretch(pan[[0, 0, 0]], pan_valid & clear)
    times = max(1, _LEAST // pan.shape[2])
    panels = [
        _panel(pan[[0, 0, 0]], pan_valid, grey, times),
        _panel(ms, ms_valid, stretch, times),
        _panel(sharp, sharp_valid, stretch, times),
    ]
    method = fused.tags().get("KSDIFF_METHOD", "fused")
    numbers = dict.fromkeys(pair.scene.ms[band].band if pair.ms[0] is pair.ms[-1] else band + 1 for band in shown)
    titles = ["PAN", f"MS, bands {' '.join(map(str, numbers))}", method]
    bar = choose_bar(panels[0].shape[1], step / times, pixel_metres(pair.pan), "PAN pixels")
    return _lay_out(panels, titles, bar)


def _only(pair: ScenePair, bands: tuple[int, ...]) -> ScenePair:
    """Return the pair with some of its bands, from 0."""
    scene = replace(pair.scene, ms=tuple(pair.scene.ms[band] for band in bands))
    warped = tuple(pair.warped[band] for band in bands) if pair.warped else ()
    return replace(pair, scene=scene, ms=tuple(pair.ms[band] for band in bands), warped=warped)


@dataclass(frozen=True)
class _Cells:
    """Which pixels of a raster each pixel of a panel shows, along one axis."""

    first: Array
    """(n,) the first one of each."""
    last: Array
    """(n,) the last one, excluded."""

    def add_up(self, values: Array, axis: int, start: int = 0) -> Array:
        """Sum an axis of values, whose first pixel is ``start``, cell by cell, in float64."""
        before = (slice(None),) * axis
        if (self.first[1:] == self.last[:-1]).all():  # one beside the other
            values = values[(*before, slice(0, int(self.last[-1]) - start))]
            return np.asarray(np.add.reduceat(values, self.first - start, axis, np.float64))
        shape = list(values.shape)
        shape[axis] += 1
        sums = np.zeros(shape)
        np.cumsum(values, axis, out=sums[(*before, slice(1, None))])
        return np.asarray(sums.take(self.last - start, axis) - sums.take(self.first - start, axis))

    def parts(self, pixels: int) -> Iterator[tuple[slice, "_Cells"]]:
        """Cut into runs of cells that show about so many pixels."""
        size = max(1, pixels // max(1, int(self.last[0] - self.first[0])))
        for start in range(0, len(self.first), size):
            part = slice(start, min(start + size, len(self.first)))
            yield part, _Cells(self.first[part], self.last[part])


def _even(size: int, step: int) -> _Cells:
    first = np.arange(0, size, step)
    return _Cells(first, np.minimum(first + step, size))


def _under(axis: Axis, count: int, size: int, step: int) -> _Cells:
    """Return the MS pixels under cells of ``step`` PAN pixels: those whose centre lies in one, else the nearest."""
    cells = _even(count, step)
    ends = [np.ceil(axis.to_ms(edge - 0.5) - 1e-6).astype(int) for edge in (cells.first, cells.last)]
    if axis.scale < 0:
        ends = [end + 1 for end in reversed(ends)]
    nearest = np.floor(axis.to_ms((cells.first + cells.last - 1) / 2) + 0.5 + 1e-6).astype(int)
    empty = ends[1] <= ends[0]
    first, last = np.where(empty, nearest, ends[0]), np.where(empty, nearest + 1, ends[1])
    first = np.clip(first, 0, size - 1)
    return _Cells(first, np.clip(last, first + 1, size))


Read = Callable[[int, int], tuple[Array, Array]]
"""(first row, last row excluded) -> (bands, h, w) values, (h, w) bool valid; whole rows."""


def _average(read: Read, rows: _Cells, cols: _Cells, bands: int) -> tuple[Array, Array]:
    """Average a raster into cells, a run of rows at a time.

    Returns:
        (bands, n, m) means of the valid pixels, and (n, m) bool, where at least half of the pixels are valid.
    """
    image = np.zeros((bands, len(rows.first), len(cols.first)), np.float32)
    valid = np.zeros(image.shape[1:], bool)
    for part, run in rows.parts(_ROWS):
        start, stop = int(min(run.first)), int(max(run.last))
        values, seen = read(start, stop)
        area = np.outer(run.last - run.first, cols.last - cols.first)
        whole = bool(seen.all())
        count = area if whole else cols.add_up(run.add_up(seen, 0, start), 1)
        for band, layer in enumerate(values):  # one at a time: float64 of all would be large
            counted = layer if whole else np.where(seen, layer, layer.dtype.type(0))
            image[band, part] = cols.add_up(run.add_up(counted, 0, start), 1) / np.maximum(count, 1)
        valid[part] = count * 2 >= area
    return image, valid


def _average_pan(pair: ScenePair, step: int) -> tuple[Array, Array]:
    height, width = pair.shape
    return _average(
        lambda start, stop: pair.read_pan(start, 0, stop - start, width), _even(height, step), _even(width, step), 1
    )


def _average_ms(pair: ScenePair, step: int) -> tuple[Array, Array, Array]:
    """Return what PAN's cells show of MS: values, valid, and where the product sees clouds in most of a cell."""
    (height, width), (ms_height, ms_width) = pair.shape, pair.ms_shape
    rows, cols = _under(pair.grid.rows, height, ms_height, step), _under(pair.grid.cols, width, ms_width, step)

    def read(start: int, stop: int) -> tuple[Array, Array]:
        values, valid = pair.read_ms(start, 0, stop - start, ms_width)
        cloud = pair.read_cloud(start, 0, stop - start, ms_width)
        return np.concatenate([values, cloud[None]]), valid

    image, valid = _average(read, rows, cols, pair.bands + 1)
    return image[:-1], valid, image[-1] > 0.5


def _average_fused(fused: Any, shown: tuple[int, ...], step: int) -> tuple[Array, Array]:
    def read(start: int, stop: int) -> tuple[Array, Array]:
        window = Window(0, start, fused.width, stop - start)
        try:
            values = fused.read([band + 1 for band in shown], window=window)
        except RasterioError as error:
            raise unreadable(fused.name, error) from None
        valid = np.isfinite(values).all(0)
        if fused.nodata is not None and not math.isnan(fused.nodata):
            valid &= (values != values.dtype.type(fused.nodata)).all(0)
        return values, valid

    return _average(read, _even(fused.height, step), _even(fused.width, step), len(shown))


def _panel(image: Array, valid: Array, stretch: Stretch, times: int) -> Array:
    """Return (H, W, 3) uint8, enlarged ``times``."""
    levels = stretch.apply(image).transpose(1, 2, 0)
    shown = np.repeat(np.repeat(levels, times, 0), times, 1)
    empty = np.repeat(np.repeat(~valid, times, 0), times, 1)
    stripes = hatch(empty.shape, 8)
    for colour, where in zip(_EMPTY, (empty & stripes, empty & ~stripes), strict=True):
        shown[where] = colour
    return shown


def _lay_out(panels: list[Array], titles: list[str], bar: ScaleBar) -> Array:
    """Put panels beside each other, titles above and the scale bar below."""
    height, width = panels[0].shape[:2]
    out = np.full((height + 2 * _BAR, len(panels) * (width + _GAP) + _GAP, 3), _PAPER, np.uint8)
    text = (_BAR - _TEXT) // 2
    for number, (panel, title) in enumerate(zip(panels, titles, strict=True)):
        left = _GAP + number * (width + _GAP)
        out[_BAR : _BAR + height, left : left + width] = panel
        draw_text(out, fit_text(title, width, _TEXT), text, left, _TEXT, _INK)
    length = max(1, round(bar.pixels))
    middle = _BAR + height + _BAR // 2
    out[middle - 1 : middle + 2, _GAP : _GAP + length] = _INK
    for col in (_GAP, _GAP + length - 2):
        out[middle - 5 : middle + 6, col : col + 2] = _INK
    draw_text(out, bar.text, _BAR + height + text, _GAP + length + _GAP, _TEXT, _INK)
    return out
