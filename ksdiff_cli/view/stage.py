"""All that the page can ask for, as plain calls: which layers there are, tiles, values, limits of colours."""

import io
import math
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import asdict, dataclass, field
from itertools import islice
from typing import Any, Literal

import numpy as np
from PIL import Image
from rasterio.warp import transform as reproject

from ksdiff_cli.fusers.anchors import spread_windows
from ksdiff_cli.numerics import Array
from ksdiff_cli.numerics.boxes import Box
from ksdiff_cli.raster.layout import crs_name
from ksdiff_cli.raster.open import is_from_gdal
from ksdiff_cli.raster.pair import Scene
from ksdiff_cli.report.colours import ERROR_COLOURS, rgb_bands
from ksdiff_cli.sensors import fold_name
from ksdiff_cli.view.grid import FINEST, TILE, Grid, Tile
from ksdiff_cli.view.layers import FileLayer, Layer, Made

DIFFERENCE_COLOURS = ((0.0, "#1f5fa8"), (0.25, "#7fb2dc"), (0.5, "#f4f3ef"), (0.75, "#e79a76"), (1.0, "#a83a1f"))
"""From less to more; the middle is no difference. Blue and orange are told apart by colour-blind eyes too."""
RAMPS = {"map": ERROR_COLOURS, "difference": DIFFERENCE_COLOURS}
_LEVEL = 1  # of zlib: tiles go to this machine's own browser


@dataclass(frozen=True)
class Stretch:
    """Which values are black and which are bright, band by band."""

    low: tuple[float, ...]
    high: tuple[float, ...]
    gamma: float = 1.0
    """Above 1 makes dark parts brighter."""

    def apply(self, values: Array) -> Array:
        """Return brightness from 0 to 255, uint8, of (bands, h, w); rounded, and 0 where NaN."""
        low, high = (np.array(ends, np.float32)[:, None, None] for ends in (self.low, self.high))
        share = np.clip(np.nan_to_num((values - low) / (high - low), nan=0.0), 0, 1)
        if self.gamma != 1:
            share = share ** np.float32(1 / self.gamma)
        return np.asarray(share * 255 + 0.5).astype(np.uint8)


def encode_image(values: Array, stretch: Stretch) -> bytes:
    """Return a PNG of (1 or 3, h, w), transparent where NaN."""
    levels = stretch.apply(values)
    return _encode(levels, ~np.isnan(values[0]))


def encode_ramp(values: Array, low: float, high: float, ramp: str) -> bytes:
    """Return a PNG of (h, w) in the colours of a ramp of :data:`RAMPS`, transparent where NaN."""
    index = Stretch((low,), (high,)).apply(values[None])[0]
    return _encode(_table(ramp)[index].transpose(2, 0, 1), ~np.isnan(values))


def _table(ramp: str) -> Array:
    """Return the (256, 3) uint8 colours of a ramp."""
    places = [place for place, _ in RAMPS[ramp]]
    points = np.array([[int(colour[i : i + 2], 16) for i in (1, 3, 5)] for _, colour in RAMPS[ramp]])
    at = np.linspace(0, 1, 256)
    channels = [np.interp(at, places, points[:, channel]) for channel in range(3)]
    return np.asarray(np.rint(np.stack(channels, 1))).astype(np.uint8)


def _encode(levels: Array, valid: Array) -> bytes:
    planes = list(levels)
    if not valid.all():
        planes = [np.where(valid, plane, np.uint8(0)) for plane in (*planes, np.uint8(255))]
    mode = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}[len(planes)]
    pixels = planes[0] if len(planes) == 1 else np.ascontiguousarray(np.stack(planes, 2))
    out = io.BytesIO()
    Image.fromarray(pixels, mode).save(out, "PNG", compress_level=_LEVEL)
    return out.getvalue()


def nothing() -> bytes:
    """Return the PNG of a tile without any data, one transparent pixel."""
    return _encode(np.zeros((1, 1, 1), np.uint8), np.zeros((1, 1), bool))


_WINDOWS, _SIDE = 24, 256  # looked at, and their side in the layer's pixels
_TILES = 16  # looked at, of a view
_MOST = 1 << 18  # values kept of a band


class Samples:
    """Values of layers, gathered when they are first asked for."""

    def __init__(self, grid: Grid) -> None:
        """Start without any."""
        self._grid = grid
        self._kept: dict[tuple[int, tuple[int, ...]], Array] = {}
        self._lock = threading.Lock()

    def of(self, layer: FileLayer, bands: Sequence[int]) -> Array:
        """Return (bands, n) float32 valid values from windows spread over a layer."""
        key = id(layer), tuple(bands)
        with self._lock:
            if key not in self._kept:
                self._kept[key] = self._gather(layer, key[1])
            return self._kept[key]

    def view(self, layer: Layer, bands: Sequence[int], level: int, box: Box) -> Array:
        """Return (bands, n) float32 valid values of what is seen: a box of tiles' numbers at a level."""
        return _thinned([layer.look(bands, tile) for tile in self._seen(level, box)], len(bands))

    def differences(
        self,
        first: Layer,
        second: Layer,
        pairs: tuple[Sequence[int], Sequence[int]],
        view: tuple[int, Box] | None = None,
    ) -> Array:
        """Return (n,) differences between the means of bands of two layers, from tiles spread over the place.

        Args:
            first: what is looked at.
            second: what is taken away.
            pairs: the bands of each.
            view: a level and a box of tiles' numbers; only those count then.
        """
        found = []
        for tile in self._seen(*view) if view else self._spread():
            found.append((first.look(pairs[0], tile).mean(0) - second.look(pairs[1], tile).mean(0))[None])
        return np.asarray(_thinned(found, 1)[0])

    def _seen(self, level: int, box: Box) -> list[Tile]:
        """Return some of the tiles of a view."""
        step = max(1, -(-max(box.height, box.width) // 4))
        tiles = [
            Tile(level, row, col)
            for row in range(box.top, box.bottom, step)
            for col in range(box.left, box.right, step)
        ]
        return [tile for tile in tiles if self._grid.holds(tile)]

    def _spread(self) -> list[Tile]:
        """Return tiles spread over the place that show a pixel as a pixel."""
        windows = spread_windows((self._grid.height, self._grid.width), TILE, TILE)
        return [Tile(0, row // TILE, col // TILE) for row, col, _, _ in islice(windows, _TILES)]

    def _gather(self, layer: FileLayer, bands: tuple[int, ...]) -> Array:
        found = [
            layer.reader.read(bands, Box(row, col, row + height, col + width))
            for row, col, height, width in islice(spread_windows(layer.shape, _SIDE), _WINDOWS)
        ]
        return _thinned(found, len(bands))


def _thinned(found: Sequence[Array], bands: int) -> Array:
    """Return the valid values of (bands, h, w) arrays, (bands, n), about evenly thinned."""
    flat = np.concatenate([one.reshape(bands, -1) for one in found], 1) if found else np.empty((bands, 0), np.float32)
    flat = flat[:, ~np.isnan(flat[0])]
    return np.ascontiguousarray(flat[:, :: -(-max(1, flat.shape[1]) // _MOST)])


def percentiles(values: Array, low: float, high: float) -> tuple[list[float], list[float]]:
    """Return both percentiles of each band of (bands, n); 0 and 1 without values, apart by 1 where they are one."""
    if not values.shape[1]:
        return [0.0] * len(values), [1.0] * len(values)
    lows, highs = np.percentile(values.astype(np.float64), (low, high), axis=1)
    highs = np.where(highs > lows, highs, lows + np.maximum(1.0, np.abs(lows) * 1e-6))
    return lows.tolist(), highs.tolist()


Span = Literal["scene", "view"]


@dataclass(frozen=True)
class Spot:
    """A place worth a look."""

    row: float
    """Of its middle, pixels of the grid."""
    col: float
    why: str
    size: int = 128
    """Side of what is meant, pixels."""


@dataclass
class Stage:
    """Layers of one place, on one grid."""

    title: str
    grid: Grid
    layers: list[Layer]
    notes: list[str] = field(default_factory=list)
    scene: Scene | None = None
    """PAN and MS, where they are among the layers."""
    spots: list[Spot] | None = None
    """Places of the tour; None while they are looked for, or where none was asked for."""
    touring: bool = False
    """Whether a tour was asked for."""
    maker: Executor | None = None
    """The one thread in which layers are made that are sharpened while they are looked at."""
    status: dict[str, str] = field(default_factory=dict)
    """By layer or "tour", what is still being done, or why it failed."""
    closing: list[Callable[[], None]] = field(default_factory=list)
    """What ends the work of :attr:`maker` early."""

    def __post_init__(self) -> None:
        """Prepare for samples."""
        self.samples = Samples(self.grid)

    @property
    def lead(self) -> Layer:
        """The layer whose bands are chosen from: the first image, else the first layer."""
        return next((layer for layer in self.layers if layer.about.kind == "image"), self.layers[0])

    def about(self) -> dict[str, Any]:
        """Return what the page is told at its start, for JSON."""
        lead = self.lead
        names = [name or f"band {number}" for number, name in enumerate(lead.about.bands, start=1)]
        return {
            "title": self.title,
            "height": self.grid.height,
            "width": self.grid.width,
            "finest": FINEST,
            "coarsest": self.grid.coarsest,
            "tile": TILE,
            "crs": crs_name(self) if self.grid.crs is not None else "",
            "metres": self.grid.metres,
            "bands": names,
            "presets": _presets(lead.about.bands),
            "layers": [
                asdict(layer.about)
                | {
                    "height": layer.shape[0],
                    "width": layer.shape[1],
                    "made": isinstance(layer, Made),
                    "own": [self.own_band(layer, band) for band in range(len(names))],
                }
                for layer in self.layers
            ],
            "ramps": {name: [list(stop) for stop in stops] for name, stops in RAMPS.items()},
            "notes": self.notes,
            "tour": self.touring,
        }

    @property
    def crs(self) -> Any:
        """CRS of the grid."""
        return self.grid.crs

    def own_band(self, layer: Layer, band: int) -> int | None:
        """Return the band of a layer that shows what a band of :attr:`lead` does, by name, else by place."""
        lead, own = self.lead.about.bands, layer.about.bands
        if len(own) == 1:
            return 0
        names = [fold_name(name) for name in own]
        if lead[band] and fold_name(lead[band]) in names:
            return names.index(fold_name(lead[band]))
        unnamed = not all(own) or not all(lead)
        return band if band < len(own) and (unnamed or len(own) == len(lead)) else None

    def own_bands(self, layer: Layer, bands: Sequence[int]) -> list[int] | None:
        """Return a layer's bands for those of :attr:`lead`, one for a layer of one band; None where one is missing."""
        found = [self.own_band(layer, band) for band in bands]
        known = [band for band in found if band is not None]
        return list(dict.fromkeys(known)) if len(known) == len(found) else None

    def tile(self, layer: Layer, tile: Tile, bands: Sequence[int], stretch: Stretch) -> bytes:
        """Return a tile as PNG: colours of an image, grey of one band, a map in its ramp.

        Args:
            layer: one of :attr:`layers`.
            tile: which.
            bands: one or three of :attr:`lead`'s.
            stretch: one pair of ends for each, or one for layers of one band.
        """
        own = [self.own_band(layer, band) for band in bands]
        if len(layer.about.bands) == 1:
            own = [0]
        chosen = [band for band in own if band is not None]
        if len(chosen) < len(own):
            return nothing()
        values = layer.look(list(dict.fromkeys(chosen)), tile)
        values = values[[list(dict.fromkeys(chosen)).index(band) for band in chosen]]
        if np.isnan(values).all():
            return nothing()
        if layer.about.kind == "map":
            return encode_ramp(values.mean(0), stretch.low[0], stretch.high[0], "map")
        ends = len(values)
        return encode_image(values, Stretch(stretch.low[:ends], stretch.high[:ends], stretch.gamma))

    def difference(self, first: Layer, second: Layer, tile: Tile, bands: Sequence[int], limit: float) -> bytes:
        """Return a tile of the first layer less the second, the mean over bands, in colours from -limit to limit."""
        pairs = self.own_bands(first, bands), self.own_bands(second, bands)
        if pairs[0] is None or pairs[1] is None:
            return nothing()
        values = first.look(pairs[0], tile).mean(0) - second.look(pairs[1], tile).mean(0)
        return encode_ramp(values, -limit, limit, "difference") if not np.isnan(values).all() else nothing()

    def stretch(self, layer: Layer, bands: Sequence[int], share: tuple[float, float], view: Any = None) -> Stretch:
        """Return the ends for a layer's bands, percentiles of the whole or of what is seen.

        Args:
            layer: whose values count.
            bands: of :attr:`lead`.
            share: both percentiles.
            view: (level, box of tiles' numbers); None takes all of the layer.
        """
        own = [0] if len(layer.about.bands) == 1 else [self.own_band(layer, band) or 0 for band in bands]
        chosen = list(dict.fromkeys(own))
        source = layer.stand_in if isinstance(layer, Made) else layer
        if view is None and isinstance(source, FileLayer):
            values = self.samples.of(source, chosen)
        else:
            values = self.samples.view(source, chosen, *(view or (self.grid.coarsest, Box(0, 0, 1, 1))))
        low, high = percentiles(values, *share)
        places = [chosen.index(band) for band in own]
        return Stretch(tuple(low[place] for place in places), tuple(high[place] for place in places))

    def limit(self, first: Layer, second: Layer, bands: Sequence[int], view: Any = None) -> float | None:
        """Return where the colours of a difference end, its 98th percentile in size; None where bands are missing.

        What is made while it is looked at counts where it is seen, ``view``, and else all of both layers.
        """
        pairs = self.own_bands(first, bands), self.own_bands(second, bands)
        if pairs[0] is None or pairs[1] is None:
            return None
        made = isinstance(first, Made) or isinstance(second, Made)
        values = np.abs(self.samples.differences(first, second, (pairs[0], pairs[1]), view if made else None))
        top = float(np.percentile(values, 98)) if values.size else 0.0
        return top if top > 0 else 1.0

    def pixel(self, row: float, col: float) -> dict[str, Any]:
        """Return all layers' values at a point of the grid, and where it is, for JSON."""
        values: list[list[float | int] | None] = []
        for layer in self.layers:
            at = [int(line.index(np.array([x]))[0]) for line, x in ((layer.place.rows, row), (layer.place.cols, col))]
            inside = all(0 <= x < size for x, size in zip(at, layer.shape, strict=True))
            own = layer.values(*at) if inside else None
            # JSON knows no infinities
            values.append(own if own is None or all(map(math.isfinite, own)) else None)
        found: dict[str, Any] = {"row": math.floor(row), "col": math.floor(col), "values": values}
        if self.grid.transform is not None:
            x, y = self.grid.transform @ (col, row)
            found |= {"x": x, "y": y} | self._degrees(x, y)
        return found

    def _degrees(self, x: float, y: float) -> dict[str, float]:
        """Return longitude and latitude of a point, WGS 84; {} where there is no way."""
        if self.grid.crs is None:
            return {}
        try:
            longitude, latitude = (values[0] for values in reproject(self.grid.crs, "EPSG:4326", [x], [y]))
        except Exception as error:
            if not is_from_gdal(error):
                raise
            return {}
        return {"lon": longitude, "lat": latitude} if math.isfinite(longitude + latitude) else {}


def _presets(names: Sequence[str]) -> list[dict[str, Any]]:
    """Return the choices of bands: true colour, near infrared, then each band."""
    count = len(names)
    found: list[dict[str, Any]] = []
    red, green, blue = rgb_bands(count, names)
    if count >= 3:
        found.append({"name": "True colour", "bands": [red, green, blue]})
        near = _near_infrared(names)
        if near is not None and near not in (red, green, blue):
            found.append({"name": "Near infrared", "bands": [near, red, green]})
    each = [{"name": name or f"Band {band + 1}", "bands": [band]} for band, name in enumerate(names)]
    return found + each


def _near_infrared(names: Sequence[str]) -> int | None:
    """Return the near infrared band, by name, else by the order of the usual products."""
    folded = [fold_name(name) for name in names]
    for name in ("nir", "nir1", "nearinfrared", "nearinfrared1", "n"):
        if name in folded:
            return folded.index(name)
    return {4: 3, 6: 3, 7: 3, 8: 6}.get(len(names)) if not all(names) else None
