"""The simulated world: an endless plane of land cover, roads, water and relief, drawn for any window.

A world is a pure function of its seed: two windows that overlap agree bit for bit where they do. Polygons
("districts") carry a land use; inside them lie parcels; rivers, lakes, woods and highways cross them.
"""

from dataclasses import dataclass

import numpy as np

from ksdiff_cli.simulation.fields import (
    Cells,
    Float,
    Int,
    cells_at,
    cut,
    derive,
    fractal,
    hash_at,
    line_distance,
    normal_at,
    smooth_noise,
    unit,
)
from ksdiff_cli.simulation.spectra import KIND, VARIANTS, Spectra

USES = ("crop", "meadow", "forest", "homes", "works", "city", "bare", "wild")
"""Land uses of districts, in the order of a style's shares."""
CROP, MEADOW, FOREST, HOMES, WORKS, CITY, BARE, WILD = range(len(USES))

# Shares of the uses, in percent; then how much relief, and whether the land is dry.
_STYLES: dict[str, tuple[tuple[int, ...], float, bool]] = {
    "rural": ((52, 14, 12, 9, 3, 0, 5, 5), 0.10, False),
    "suburb": ((8, 10, 8, 52, 10, 5, 4, 3), 0.06, False),
    "city": ((0, 6, 4, 24, 16, 46, 3, 1), 0.03, False),
    "industry": ((12, 8, 4, 16, 48, 4, 8, 0), 0.03, False),
    "mountain": ((8, 22, 34, 3, 0, 0, 3, 30), 1.0, False),
    "dry": ((20, 6, 2, 20, 8, 8, 16, 20), 0.25, True),
    "mixed": ((20, 14, 14, 20, 10, 10, 6, 6), 0.10, False),
}
_TREES = np.array([0.05, 0.10, 0.95, 0.32, 0.07, 0.18, 0.04, 0.12], np.float32)
"""Probability of a tree in a tree's cell, per use."""
_GROUND = {"crop": "crop", "meadow": "meadow", "forest": "forest", "homes": "yard", "works": "paved", "city": "paved",
           "bare": "soil", "wild": "rock"}  # fmt: skip


@dataclass(frozen=True)
class Site:
    """The land at some positions; all fields have the positions' shape."""

    use: Int
    """Land use, an index of USES."""
    key: Int
    """Hash of the district, 32 bits."""
    border: Float
    """Distance to the district's border, pixels."""
    road: Float
    """Half the width of the road along that border, pixels; not above 0 where there is none."""
    u: Float
    """Coordinate along the district's rows, pixels."""
    v: Float
    """Coordinate across them, pixels."""
    cos: Float
    """Cosine of the district's direction."""
    sin: Float
    """Sine of the district's direction."""


@dataclass(frozen=True)
class Parcels:
    """The fields or blocks of a district, at some positions."""

    key: Int
    """Hash of the parcel, 32 bits."""
    edge: Float
    """Distance to the parcel's edge, pixels."""
    u: Float
    """Distance from the parcel's left edge, pixels."""
    v: Float
    """Distance from the parcel's lower edge, pixels."""
    width: Float
    """The parcel's width along u, pixels."""
    height: Float
    """The parcel's height along v, pixels."""


class World:
    """One seed's land: what is where; :mod:`ksdiff_cli.simulation.objects` puts houses and trees on it."""

    def __init__(self, spectra: Spectra, seed: int, *, coarse: bool, zoom: float | None = None) -> None:
        """Draw the world's character.

        Args:
            spectra: the scene's colours.
            seed: the scene's seed.
            coarse: True for pixels of 10 m and more (no single houses or trees), as Landsat's.
            zoom: pixels per half metre of ground; None draws it from the seed.
        """
        rng = np.random.default_rng([seed, 2])
        self.spectra = spectra
        self.key = int(rng.integers(2**32))
        names = ["mountain", "rural", "mixed", "dry"] if coarse else list(_STYLES)
        self.style = str(rng.choice(names))
        shares, relief, self.dry = _STYLES[self.style]
        self.shares = np.cumsum(rng.dirichlet(np.array(shares) / 12 + 0.02)).astype(np.float32)
        nearest, farthest = (0.07, 0.16) if coarse else (0.6, 1.35)
        drawn = float(np.exp(rng.uniform(np.log(nearest), np.log(farthest))))
        self.zoom = drawn if zoom is None else zoom
        """Pixels per half metre, so that 1 stands for a camera of 0.5 m."""
        self.coarse = coarse
        self.unfenced = coarse or self.style in ("mountain", "dry", "mixed")
        self.relief = relief * float(rng.uniform(0.5, 1.5))
        self.cell = float(rng.uniform(300, 520)) * self.zoom * (2.0 if coarse else 1.0)
        direction = rng.uniform(0, 2 * np.pi)
        self.sun = (float(np.sin(direction)), float(np.cos(direction)))
        """Unit vector (y, x) along which shadows fall."""
        self.shadow = float(rng.uniform(0.5, 1.7))
        """Shadow length per height."""
        self.turn = float(rng.uniform(0, np.pi))
        self.lake = float(rng.uniform(1.5, 2.8)) - (1.0 if rng.random() < 0.15 else 0.0)
        self.river = float(rng.choice([0.0, 8.0, 20.0, 50.0])) * self.zoom
        self.highway = float(rng.choice([0.0, 7.0, 10.0, 13.0])) * self.zoom
        self.snow = float(rng.uniform(1.4, 2.8)) if self.style == "mountain" else 9.0
        self.wood = float(rng.uniform(0.6, 1.8))
        self.street = float(rng.uniform(3.5, 7.0)) * self.zoom
        self.palette_turn = int(rng.integers(VARIANTS))

    def sub(self, *salt: int) -> int:
        """Return the key of one of the world's fields."""
        return derive(self.key, *salt)

    def site(self, y: Float, x: Float) -> Site:
        """Return the district at positions, (H, 1) with (1, W) or points."""
        cells = cells_at(self.sub(1), y, x, self.cell)
        key = hash_at(self.sub(2), cells.row, cells.column)
        use: Int = np.searchsorted(self.shares[:-1], unit(key, 0)).astype(np.int64)
        if self.unfenced:
            use = self._grow(use, y, x)
        # Old towns follow one direction, the land around them does not.
        angle = np.where((use == CITY) | (key % 3 == 0), self.turn, unit(key, 1) * np.float32(np.pi))
        # A table of 1024 directions: the same bits for a grid as for points, and no sine per pixel.
        step = (angle * np.float32(1024 / np.pi)).astype(np.int64) & 1023
        circle = np.arange(1024) * (np.pi / 1024)
        cos, sin = np.cos(circle).astype(np.float32)[step], np.sin(circle).astype(np.float32)[step]
        return Site(use, key, cells.border, self._road(cells, key), cos * x + sin * y, cos * y - sin * x, cos, sin)

    def _grow(self, use: Int, y: Float, x: Float) -> Int:
        """Let woods, meadows and rock follow the land instead of the districts' straight borders."""
        lush = fractal(self.sub(10), y, x, 1.1 * self.cell, 6, 0.55)
        kept = (use == CROP) | (use == HOMES) | (use == WORKS) | (use == CITY)
        wild: Int = np.where(lush > np.float32(0.45), FOREST, np.where(lush > np.float32(-0.5), MEADOW, WILD))
        grown: Int = np.where(kept, use, wild)
        return grown

    def _road(self, cells: Cells, key: Int) -> Float:
        other = hash_at(self.sub(2), cells.other_row, cells.other_column)
        share = unit(key, 2) + unit(other, 2)
        width = (share - np.float32(0.45)) * np.float32(6.5 * self.zoom)
        return np.asarray(np.minimum(width, np.float32(7.5 * self.zoom)), np.float32)

    def parcels(self, site: Site) -> Parcels:
        """Return the parcel at each position: rows of unequal height, each cut into pieces of unequal width."""
        height, width = self.parcel_size(site)
        row, v, height = cut(site.v, height, site.key)
        row_key = hash_at(self.sub(3), site.key, row)
        column, u, width = cut(site.u, width * (np.float32(0.6) + unit(row_key, 0)), row_key)
        edge = np.minimum(np.minimum(u, width - u), np.minimum(v, height - v))
        return Parcels(hash_at(self.sub(4), row_key, column), edge, u, v, width, height)

    def parcel_size(self, site: Site) -> tuple[Float, Float]:
        """Return the mean height and width of the parcels of each position's district, pixels."""
        built = (site.use == HOMES) | (site.use == WORKS) | (site.use == CITY)
        height = np.where(built, 70 + 60 * unit(site.key, 3), 45 + 150 * unit(site.key, 3) ** 2)
        stretch = np.where(
            built, np.float32(1.4) + np.float32(1.8) * unit(site.key, 4), np.float32(0.8) + 4 * unit(site.key, 4)
        )
        height = (height * np.float32(self.zoom)).astype(np.float32)
        return height, (height * stretch).astype(np.float32)

    def water(self, y: Float, x: Float) -> Float:
        """Return how deep in lake or river positions are: above 0 is water, below 0 the distance on land, pixels."""
        big = max(self.cell, 60.0)
        field = fractal(self.sub(5), y, x, 1.7 * big, 5, 0.42)
        wet = (field - np.float32(self.lake)) * np.float32(0.6 * big)
        if self.river:
            width = np.float32(self.river) * (1 + np.float32(0.3) * smooth_noise(self.sub(6), y, x, big))
            wet = np.maximum(wet, width - line_distance(self.sub(7), y, x, 4.5 * big, 0.3))
        return wet

    def highways(self, y: Float, x: Float) -> Float:
        """Return the distance to the middle of the nearest highway, pixels."""
        return line_distance(self.sub(8), y, x, 6.5 * max(self.cell, 60.0))

    def trees(self, site: Site, y: Float, x: Float) -> Float:
        """Return the probability that a tree stands at a point."""
        wood = fractal(self.sub(9), y, x, 0.5 * self.cell, 4)
        density = _TREES[site.use] * (1 + np.float32(0.6) * np.clip(wood, -1, 1))
        open_land = (site.use == MEADOW) | (site.use == WILD) | (site.use == BARE)
        if self.dry:
            density = np.where(site.use == FOREST, density, np.float32(0.4) * density)
        return np.where(open_land & (wood > self.wood), np.float32(0.93), density)

    def ground(self, site: Site, parcels: Parcels, y: Float, x: Float) -> Int:
        """Return the palette row of the bare ground at every pixel."""
        zoom, cell = self.zoom, self.cell
        names = dict(_GROUND, wild="rock" if self.style == "mountain" else "meadow")
        if self.dry:
            names.update(meadow="arid", wild="arid")
        starts = np.array([KIND[names[use]] for use in USES])
        by_parcel = (site.use == CROP) | (site.use == WORKS) | (site.use == CITY)
        key = np.where(by_parcel, parcels.key, site.key)
        built = (site.use == HOMES) | (site.use == WORKS) | (site.use == CITY)
        if built.any():
            key = np.where(built, self._gardens(site, parcels), key)
        natural = (site.use == MEADOW) | (site.use == WILD) | (site.use == BARE) | (site.use == FOREST)
        if self.unfenced:
            key = np.where(natural, self.palette_turn, key)
        index: Int = starts[site.use] + (key % VARIANTS)
        kinds = ("arid", "soil", "rock", "tree") if self.dry else ("meadow", "soil", "meadow", "tree")
        for layer, (kind, size) in enumerate(zip(kinds, (0.8, 0.33, 0.12, 0.03), strict=True)):
            patch = fractal(self.sub(20 + layer), y, x, size * cell, 5 - layer, 0.6)
            here = natural & (patch > np.float32(0.75 + 0.3 * layer))
            index = np.where(here, KIND[kind] + (site.key * (not self.unfenced) + 7 * layer) % VARIANTS, index)
        edge = np.float32(zoom) * (unit(site.key, 5) * 4 - 1.2)
        crop_edge = (site.use == CROP) & (parcels.edge < edge)
        verge = np.where(site.key & 64, KIND["track"], KIND["meadow"])
        index = np.where(crop_edge, verge + (site.key >> 8) % VARIANTS, index)
        if self.unfenced:
            return index
        hedge = (site.use <= FOREST) & (site.border < np.float32(9 * zoom) * unit(site.key, 6))
        return np.where(hedge, KIND["meadow"] + (site.key >> 9) % VARIANTS, index)

    def _gardens(self, site: Site, parcels: Parcels) -> Int:
        """Return a key per piece of garden or yard: lots are cut in pieces of lawn, paving, beds."""
        size = np.where(site.use == HOMES, np.float32(22 * self.zoom), np.float32(47 * self.zoom))
        row, column = np.floor(parcels.v / size).astype(np.int64), np.floor(parcels.u / size * 0.8).astype(np.int64)
        lot = hash_at(self.sub(12), row * 977 + column, parcels.key)
        # Many pieces keep the parcel's colour, so that gardens join up.
        own = np.where(site.use == HOMES, (lot & 3) > 0, (lot & 3) == 0)
        return np.where(own, lot, parcels.key)

    def roads(self, site: Site, parcels: Parcels, wet: Float, y: Float, x: Float) -> tuple[Float, Int, Float]:
        """Return what part of each pixel is road, the road's palette row, and brightness of marks (added)."""
        half = np.float32(0.5)
        street = (site.use == HOMES) | (site.use == CITY) | ((site.use == WORKS) & (parcels.key & 1 == 0))
        half_width = np.float32(self.street) * (np.float32(0.7) + half * unit(site.key, 7))
        cover = np.clip(np.where(street, half_width - parcels.edge, -1) + half, 0, 1)
        cover = np.where(wet > 0, np.float32(0), cover)
        main = np.clip(np.where(site.road > 0.8 * self.zoom, site.road - site.border, -1) + half, 0, 1)
        # Main roads cross rivers by bridges, but end at lakes.
        bridged = wet < np.float32(1.4 * self.river + 1)
        cover = np.maximum(cover, main * bridged)
        index: Int = KIND["road"] + (site.key >> 4) % VARIANTS
        walk = np.float32(self.zoom * 2.5)
        marks = np.where(street & (parcels.edge > half_width) & (parcels.edge < half_width + walk), 0.06, 0)
        if self.highway:
            away = self.highways(y, x)
            wide = np.clip(np.float32(self.highway) - away + half, 0, 1) * bridged
            index = np.where(wide > 0, KIND["road"] + self.palette_turn, index)
            cover = np.maximum(cover, wide)
            line = np.clip(np.float32(0.9) - np.abs(away - np.float32(self.highway * 0.86)), 0, 1)
            median = np.clip(np.float32(0.1 * self.highway + half) - away, 0, 1)
            marks = np.maximum(np.where(wide > 0, 0, marks), (line + half * median) * np.float32(0.12))
        return cover.astype(np.float32), index, marks.astype(np.float32)

    def rows(self, site: Site, parcels: Parcels) -> Float:
        """Return the row texture of fields (about -1 to 1): drill rows and tramlines, in most parcels faint."""
        period = np.float32(self.zoom) * (np.float32(2.5) + 9 * unit(parcels.key, 1) ** 2)
        along = np.where(parcels.key & 8, site.u, site.v)
        phase = along / period
        wave = np.abs(phase - np.floor(phase) - np.float32(0.5)) * 4 - 1
        share = unit(parcels.key, 2)
        strength = share * share * share * (site.use == CROP)
        lane = along / np.float32(36 * self.zoom)
        tram = (lane - np.floor(lane) < 0.06) * np.float32(-0.8) * (unit(parcels.key, 3) > 0.6)
        return np.asarray((wave + tram) * strength, np.float32)

    def texture(self, y: Int, x: Int) -> tuple[Float, Float]:
        """Return two textures of variance about 1: one for all bands, one that differs between bands."""
        fy, fx = y.astype(np.float32), x.astype(np.float32)
        grey = normal_at(self.sub(30), y, x) * np.float32(0.45)
        grey += smooth_noise(self.sub(31), fy, fx, 2.3) * np.float32(0.6)
        grey += fractal(self.sub(32), fy, fx, 37.0, 4, 0.75) * np.float32(0.7)
        green = fractal(self.sub(33), fy, fx, 61.0, 5, 0.8) + normal_at(self.sub(34), y, x) * np.float32(0.3)
        return grey, green

    def slopes(self, y: Float, x: Float) -> tuple[Float, Float]:
        """Return (light, height): the light on the relief, about 1, and the height, variance about 1."""
        size = max(self.cell, 60.0) * 2.2
        step = np.float32(1.0)

        def height(py: Float, px: Float) -> Float:
            ridge = np.abs(fractal(self.sub(41), py, px, size * 0.5, 5, 0.52))
            return smooth_noise(self.sub(40), py, px, size * 1.3) + np.float32(0.8) - ridge

        here = height(y, x)
        rise = height(y + step * np.float32(self.sun[0]), x + step * np.float32(self.sun[1])) - here
        light = 1 - rise * np.float32(self.relief * 0.22 * size / 4)
        return np.clip(light, np.float32(0.3), np.float32(1.7)), here
