"""The picture of a window of the simulated world: land, then trees and vehicles on it, then houses."""

from dataclasses import dataclass

import numpy as np

from ksdiff_cli.simulation.content import CITY, HOMES, WORKS, Parcels, Site, World
from ksdiff_cli.simulation.fields import Float, Int, derive, hash_at, smooth_noise, unit
from ksdiff_cli.simulation.houses import draw_roofs, find_houses, shade_houses
from ksdiff_cli.simulation.spectra import KIND, VARIANTS


def draw(world: World, row: int, column: int, height: int, width: int) -> Float:
    """Return the land as a camera without blur and noise would see it.

    Args:
        world: the seed's world.
        row: first row of the window, PAN pixels; may be negative.
        column: first column.
        height: rows.
        width: columns.

    Returns:
        (channels, height, width) digital numbers, float32, MS bands then PAN, neither rounded nor clipped.
    """
    spectra = world.spectra
    iy, ix = np.arange(row, row + height)[:, None], np.arange(column, column + width)[None, :]
    y, x = iy.astype(np.float32), ix.astype(np.float32)
    site = world.site(y, x)
    parcels = world.parcels(site)
    picture, cover = _land(world, site, parcels, iy, ix)
    shadow = np.zeros((height, width), np.float32)
    houses = [] if world.coarse else find_houses(world, row, column, height, width)
    if not world.coarse:
        _park(world, picture, site, parcels, cover)
        crowns = _crowns(world, row, column, height, width)
        shadow = np.maximum(shadow, crowns.shadow)
        shade_houses(world, houses, shadow, row, column)
    for c, band in enumerate(picture):
        band *= 1 - shadow * (1 - spectra.sky[c])
        if not world.coarse:
            leaves = np.take(spectra.palette[c], crowns.index) * crowns.light
            band += crowns.cover * (leaves - band)
    draw_roofs(world, houses, picture, row, column)
    picture += spectra.haze[:, None, None]
    picture *= spectra.gain[:, None, None]
    return picture


def _land(world: World, site: Site, parcels: Parcels, iy: Int, ix: Int) -> tuple[Float, Float]:
    """Return the reflectance of land, roads and water, and what part of each pixel is road."""
    y, x = iy.astype(np.float32), ix.astype(np.float32)
    spectra = world.spectra
    wet = world.water(y, x)
    index = world.ground(site, parcels, y, x)
    grey, green = world.texture(iy, ix)
    shore = np.float32(world.zoom) * (1 + 4 * np.clip(green, 0, 2))
    index = np.where(wet > -shore, KIND["soil"] + world.palette_turn, index)
    light: Float | float = 1.0
    if world.relief > 0.02:
        light, height = world.slopes(y, x)
        index = np.where(height > np.float32(world.snow), KIND["snow"] + world.palette_turn, index)
        light = np.where(wet > 0, np.float32(1), light)
    index = np.where(wet > 0, KIND["water"] + world.palette_turn, index)
    cover, paint, marks = world.roads(site, parcels, wet, y, x)
    top = np.where(cover > 0.5, paint, index)
    grey *= np.take(spectra.grey, top)
    grey += 1 + np.float32(0.16) * world.rows(site, parcels) * ((wet < 0) & (cover < 0.5))
    green *= np.take(spectra.green, top)
    picture = np.empty((len(spectra.gain), *index.shape), np.float32)
    for c, band in enumerate(picture):
        ground = np.take(spectra.palette[c], index)
        band[:] = ground + cover * (np.take(spectra.palette[c], paint) - ground) + marks
        band *= np.maximum(grey + green * spectra.leaf[c], np.float32(0.15)) * light
    return picture, cover


@dataclass(frozen=True)
class _Crowns:
    """Trees in a window; all fields (height, width)."""

    cover: Float
    """What part of a pixel is crown."""
    index: Int
    """Palette row of the tree."""
    light: Float
    """Light on the crown, about 1."""
    shadow: Float
    """What part of a pixel lies in a tree's shadow."""


def _crowns(world: World, row: int, column: int, height: int, width: int) -> _Crowns:
    reach = world.shadow * 5.5 * world.zoom
    down, right = round(world.sun[0] * reach), round(world.sun[1] * reach)
    margin_y, margin_x = abs(down), abs(right)
    y = np.arange(row - margin_y, row + height + margin_y, dtype=np.float32)[:, None]
    x = np.arange(column - margin_x, column + width + margin_x, dtype=np.float32)[None, :]
    cell = np.float32((11 + 9 * (world.key % 97) / 97) * world.zoom)
    table = _plant(world, y, x, float(cell))
    near_y, near_x = np.floor(y / cell - np.float32(0.5)).astype(int), np.floor(x / cell - np.float32(0.5)).astype(int)
    near_y, near_x = near_y[:, 0] - table.row, near_x[0] - table.column
    lumps = np.float32(0.35) * smooth_noise(world.sub(51), y, x, max(2.2, 3.5 * world.zoom))
    best = np.full((y.size, x.size), -1, np.float32)
    index, tilt = np.zeros(best.shape, np.int32), np.zeros(best.shape, np.float32)
    for k in range(4):
        a, b = near_y + k // 2, near_x + k % 2
        dy = y - np.take(table.y, b, axis=1)[a]
        dx = x - np.take(table.x, b, axis=1)[a]
        radius = np.take(table.radius, b, axis=1)[a]
        dome = (1 - (dy * dy + dx * dx) / (radius * radius) + lumps) * radius
        higher = dome > best
        np.copyto(best, dome, where=higher)
        np.copyto(index, np.take(table.index, b, axis=1)[a], where=higher)
        np.copyto(tilt, (dy * np.float32(world.sun[0]) + dx * np.float32(world.sun[1])) / radius, where=higher)
    cover = np.clip(best * np.float32(0.5) + np.float32(0.3), 0, 1)
    inner = (slice(margin_y, margin_y + height), slice(margin_x, margin_x + width))
    cast = (slice(margin_y - down, margin_y - down + height), slice(margin_x - right, margin_x - right + width))
    light = np.clip(1 - np.float32(0.5) * tilt + np.float32(0.5) * lumps, np.float32(0.25), np.float32(1.8))
    return _Crowns(cover[inner], index[inner], light[inner], cover[cast])


@dataclass(frozen=True)
class _Plants:
    """Trees by lattice cell; arrays (rows, columns)."""

    row: int
    column: int
    y: Float
    x: Float
    radius: Float
    index: Int


def _plant(world: World, y: Float, x: Float, cell: float) -> _Plants:
    """Return the tree of each lattice cell that can reach the grid; cells without one have a tiny radius."""
    row, column = int(np.floor(y[0, 0] / cell)) - 1, int(np.floor(x[0, 0] / cell)) - 1
    rows = np.arange(row, int(np.floor(y[-1, 0] / cell)) + 3)[:, None]
    columns = np.arange(column, int(np.floor(x[0, -1] / cell)) + 3)[None, :]
    key = hash_at(world.sub(50), rows, columns)
    cy = ((rows + unit(key, 0)) * cell).astype(np.float32)
    cx = ((columns + unit(key, 1)) * cell).astype(np.float32)
    radius = (np.float32(0.24 * cell) + np.float32(0.26 * cell) * unit(key, 2)).astype(np.float32)
    site = world.site(cy, cx)
    parcels = world.parcels(site)
    stands = unit(key, 3) < world.trees(site, cy, cx)
    built = (site.use == HOMES) | (site.use == CITY) | (site.use == WORKS)
    stands &= ~built | (parcels.edge > np.float32(world.street))
    stands &= (site.border > site.road) & (world.water(cy, cx) < 0)
    if world.highway:
        stands &= world.highways(cy, cx) > np.float32(world.highway + 2)
    # Trees of one parcel or district resemble each other; single ones differ.
    kin = np.where(key & 1, site.key + (key & 6), key >> 3)
    index = (KIND["tree"] + kin % VARIANTS).astype(np.int32)
    return _Plants(row, column, cy, cx, np.where(stands, radius, np.float32(0.02)), index)


def _park(world: World, picture: Float, site: Site, parcels: Parcels, cover: Float) -> None:
    """Paint vehicles on roads and on every third yard of works, in place."""
    cell = np.float32(max(9.0 * world.zoom, 5.0))
    yard = (site.use == WORKS) & (parcels.key % 3 == 0) & (parcels.edge > np.float32(9 * world.zoom))
    place = np.where(cover > 0.95, np.float32(0.10), yard * np.float32(0.55))
    if not place.any():
        return
    # Along the district's rows a vehicle is one lattice cell of (u, v); it never leaves its cell.
    a, b = site.u / cell, site.v / cell
    row, column = np.floor(b).astype(np.int64), np.floor(a).astype(np.int64)
    key = hash_at(world.sub(60), hash_at(derive(world.key, 61), row, column), site.key)
    across = (key & 2) > 0
    a, b = a - column - np.float32(0.5), b - row - np.float32(0.5)
    length, side = np.where(across, b, a), np.where(across, a, b)
    long, wide = np.float32(0.22) + np.float32(0.2) * unit(key, 1), np.float32(0.13) + np.float32(0.06) * unit(key, 2)
    car = (np.abs(length) < long) & (np.abs(side) < wide) & (unit(key, 3) < place)
    rows, columns = np.nonzero(car)
    kind = KIND["car"] + (key[rows, columns] >> 5) % VARIANTS
    picture[:, rows, columns] = world.spectra.palette[:, kind]
