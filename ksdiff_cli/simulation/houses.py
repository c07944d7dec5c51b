"""Houses, blocks and sheds of the simulated world: where they stand, their shadows and their roofs."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ksdiff_cli.simulation.content import CITY, HOMES, WORKS, World
from ksdiff_cli.simulation.fields import Float, hash_at, sites, unit
from ksdiff_cli.simulation.spectra import KIND, VARIANTS

_LONGEST = 75.0
"""Largest half length of a roof at zoom 1, pixels."""
_TALLEST = 45.0
"""Longest shadow at zoom 1, pixels."""


@dataclass(frozen=True)
class House:
    """One rectangular building."""

    y: float
    """Row of the centre, world pixels."""
    x: float
    """Column of the centre."""
    cos: float
    """Cosine of its direction."""
    sin: float
    """Sine of its direction."""
    long: float
    """Half length along its direction, pixels."""
    wide: float
    """Half width, pixels."""
    shadow: float
    """Length of its shadow, pixels."""
    roof: int
    """0 gable, 1 hip, 2 flat, 3 ribbed shed."""
    index: int
    """Palette row of the roof."""
    key: int
    """Hash for the details."""


def find_houses(world: World, row: int, column: int, height: int, width: int) -> list[House]:
    """Return every house whose roof or shadow may touch a window, in an order that is the same for every window."""
    reach = (_LONGEST * 1.5 + _TALLEST) * world.zoom
    low, high = np.array([row - reach, column - reach]), np.array([row + height + reach, column + width + reach])
    rows = np.arange(int(np.floor(low[0] / world.cell)) - 1, int(np.floor(high[0] / world.cell)) + 2)
    columns = np.arange(int(np.floor(low[1] / world.cell)) - 1, int(np.floor(high[1] / world.cell)) + 2)
    site_y, site_x = sites(world.sub(1), rows, columns, world.cell)
    centres = np.stack([site_y.ravel(), site_x.ravel()], axis=1)
    site = world.site(centres[:, 0], centres[:, 1])
    size = world.parcel_size(site)
    lots = []
    # A district's polygon reaches no farther than this from its site.
    first, last = np.maximum(low, centres - 1.3 * world.cell), np.minimum(high, centres + 1.3 * world.cell)
    for k in np.flatnonzero((first < last).all(axis=1) & np.isin(site.use, (HOMES, WORKS, CITY))):
        direction = float(site.cos[k]), float(site.sin[k])
        mean = float(size[0][k]), float(size[1][k])
        lots += _lots(world, int(site.use[k]), int(site.key[k]), direction, mean, (first[k], last[k]))
    if not lots:
        return []
    return _standing(world, np.array(lots), low, high)


def _lots(
    world: World,
    use: int,
    key: int,
    direction: tuple[float, float],
    size: tuple[float, float],
    box: tuple[NDArray[np.float64], NDArray[np.float64]],
) -> list[tuple[float, ...]]:
    """Return the buildings planned in the parcels of a district that meet a box.

    Args:
        world: the world.
        use: the district's land use.
        key: its hash.
        direction: cosine and sine of its direction.
        size: mean height and width of its parcels, pixels.
        box: its lowest and highest corner, each (y, x), world pixels.

    Returns:
        u, v, cos, sin, long, wide, roof, tall, key, district per building.
    """
    cos, sin = direction
    corners = np.array([(a[0], b[1]) for a in box for b in box])
    u = corners[:, 1] * cos + corners[:, 0] * sin
    v = corners[:, 0] * cos - corners[:, 1] * sin
    plans = []
    rows, bottoms, heights = _pieces(v.min(), v.max(), size[0], key)
    row_keys = hash_at(world.sub(3), np.array(key), rows)
    widths = size[1] * (0.6 + unit(row_keys, 0).astype(float))
    for row_key, bottom, deep, width in zip(row_keys.tolist(), bottoms, heights, widths, strict=True):
        columns, lefts, longs = _pieces(u.min(), u.max(), width, row_key)
        mid_u, mid_v, half = lefts + 0.5 * longs, bottom + 0.5 * deep, 0.5 * np.hypot(longs, deep)
        mid = np.stack([mid_u * sin + mid_v * cos, mid_u * cos - mid_v * sin], axis=1)
        meets = (mid + half[:, None] >= box[0]).all(axis=1) & (mid - half[:, None] <= box[1]).all(axis=1)
        keys = hash_at(world.sub(4), np.array(row_key), columns)
        for left, long, parcel in zip(lefts[meets], longs[meets], keys[meets].tolist(), strict=True):
            plans += [
                (left + plan[0], bottom + plan[1], cos, sin, *plan[2:], key)
                for plan in _plan(world, use, parcel, float(long), float(deep))
            ]
    return plans


def _pieces(
    low: float, high: float, size: float, key: int
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """Return numbers, starts and lengths of a cut line's pieces that meet [low, high]; the inverse of World.parcels."""
    pairs = np.arange(int(np.floor(low / (2 * size))), int(np.floor(high / (2 * size))) + 1)
    first = size * (0.55 + 0.9 * unit(hash_at(0x2545F491, np.array(key), pairs), 9).astype(float))
    starts = np.stack([2 * size * pairs, 2 * size * pairs + first], axis=1).ravel()
    return np.arange(2 * pairs[0], 2 * pairs[-1] + 2), starts, np.stack([first, 2 * size - first], axis=1).ravel()


def _plan(world: World, use: int, key: int, long: float, deep: float) -> list[tuple[float, ...]]:
    """Return the buildings of one parcel: (u, v, long, wide, roof, tall, key), u and v from the parcel's corner."""
    rng = np.random.default_rng(key)
    zoom, kerb = world.zoom, world.street * 1.2 + 2.5 * world.zoom
    free_u, free_v = long - 2 * kerb, deep - 2 * kerb
    lot_u, lot_v = {HOMES: (34.0, 44.0), WORKS: (150.0, 95.0), CITY: (62.0, 50.0)}[use]
    stretch = rng.uniform(0.75, 1.35)
    across, down = int(free_u // (lot_u * zoom * stretch)), int(free_v // (lot_v * zoom))
    across, down = max(across, int(free_u > 12 * zoom)), max(down, int(free_v > 12 * zoom))
    fill = {HOMES: (0.34, 0.30), WORKS: (0.43, 0.42), CITY: (0.44, 0.40)}[use]
    common = int(rng.integers(2**31))
    plans: list[tuple[float, ...]] = []
    for i in range(down):
        for j in range(across):
            spread = rng.uniform(0.6, 1.0, 2)
            shift = rng.normal(0, 0.04, 2)
            present = rng.random() < {HOMES: 0.9, WORKS: 0.85, CITY: 0.92}[use]
            lot_key, alike = int(rng.integers(2**31)), rng.random() < 0.35
            if not present:
                continue
            size_u, size_v = free_u / across, free_v / down
            a = min(size_u * fill[0] * spread[0], _LONGEST * zoom)
            b = min(size_v * fill[1] * spread[1], _LONGEST * zoom)
            u, v = kerb + (j + 0.5 + shift[0]) * size_u, kerb + (i + 0.5 + shift[1]) * size_v
            colour = common if alike else lot_key
            roof = {HOMES: colour % 8 % 3 if colour % 8 < 6 else 0, WORKS: 2 + colour % 2, CITY: 2}[use]
            tall = {HOMES: 9.0, WORKS: 14.0, CITY: 10.0 + 34.0 * (lot_key % 101 / 101) ** 2}[use]
            plans.append((u, v, a, b, roof, tall * zoom, colour))
            if use == HOMES and lot_key % 4 == 0:
                # A wing turns the house into an L.
                plans.append((u + 0.5 * a, v + 0.7 * b, 0.45 * a, 0.8 * b, roof, tall * zoom, colour))
    return plans


def _standing(world: World, lots: Float, low: Float, high: Float) -> list[House]:
    """Return the planned buildings that lie in reach of the window, in their own district, on dry land, off roads."""
    u, v, cos, sin, long, wide = lots[:, :6].T
    y, x = u * sin + v * cos, u * cos - v * sin
    inside = (y > low[0]) & (y < high[0]) & (x > low[1]) & (x < high[1])
    if not inside.any():
        return []
    lots, y, x, long, wide = lots[inside], y[inside], x[inside], long[inside], wide[inside]
    point_y, point_x = y.astype(np.float32), x.astype(np.float32)
    site = world.site(point_y, point_x)
    radius = np.hypot(long, wide)
    good = (site.key == lots[:, 9].astype(np.int64)) & (site.border > np.maximum(site.road, 0) + 0.9 * radius)
    good &= world.water(point_y, point_x) < -radius
    if world.highway:
        good &= world.highways(point_y, point_x) > world.highway + radius
    houses = []
    for k in np.flatnonzero(good):
        a, b, along, roof, tall, key = long[k], wide[k], lots[k, 2:4], int(lots[k, 6]), lots[k, 7], int(lots[k, 8])
        c, s = float(along[0]), float(along[1])
        if b > a:
            # The ridge runs along the longer side.
            a, b, c, s = b, a, -s, c
        shadow = min(tall * world.shadow, _TALLEST * world.zoom)
        index = KIND["roof"] + (key >> 4) % VARIANTS
        houses.append(House(float(y[k]), float(x[k]), c, s, float(a), float(b), float(shadow), roof, index, key))
    return houses


def _window(
    house: House, shape: tuple[int, ...], row: int, column: int, reach: float
) -> tuple[tuple[slice, slice], Float, Float] | None:
    """Return the part of a picture near a house and its coordinates along and across the house, or None if outside."""
    top, left = max(int(house.y - reach) - row - 1, 0), max(int(house.x - reach) - column - 1, 0)
    bottom, right = min(int(house.y + reach) - row + 3, shape[0]), min(int(house.x + reach) - column + 3, shape[1])
    if top >= bottom or left >= right:
        return None
    y = (np.arange(row + top, row + bottom)[:, None] - house.y).astype(np.float32)
    x = (np.arange(column + left, column + right)[None, :] - house.x).astype(np.float32)
    cos, sin = np.float32(house.cos), np.float32(house.sin)
    return (slice(top, bottom), slice(left, right)), x * cos + y * sin, y * cos - x * sin


def shade_houses(world: World, houses: list[House], shadow: Float, row: int, column: int) -> None:
    """Add the houses' cast shadows to a (height, width) map of shadow, 0 to 1, in place.

    A point lies in shadow where a walk of up to the shadow's length towards the sun meets the house.
    """
    for house in houses:
        reach = float(np.hypot(house.long, house.wide)) + house.shadow
        near = _window(house, shadow.shape, row, column, reach)
        if near is None:
            continue
        part, u, v = near
        start, end = np.float32(0), np.float32(house.shadow)
        along = world.sun[1] * house.cos + world.sun[0] * house.sin
        across = world.sun[0] * house.cos - world.sun[1] * house.sin
        for place, step, half in ((u, along, house.long), (v, across, house.wide)):
            slow = np.float32(step if abs(step) > 1e-3 else 1e-3)
            one, two = (place - np.float32(half)) / slow, (place + np.float32(half)) / slow
            start, end = np.maximum(start, np.minimum(one, two)), np.minimum(end, np.maximum(one, two))
        shadow[part] = np.maximum(shadow[part], np.clip(end - start, 0, 1) * np.float32(0.97))


def draw_roofs(world: World, houses: list[House], picture: Float, row: int, column: int) -> None:
    """Draw the roofs onto a (channels, height, width) picture of reflectances, in place."""
    palette = world.spectra.palette
    for house in houses:
        near = _window(house, picture.shape[1:], row, column, float(np.hypot(house.long, house.wide)) + 1)
        if near is None:
            continue
        part, u, v = near
        to_u, to_v = np.float32(house.long) - np.abs(u), np.float32(house.wide) - np.abs(v)
        cover = np.clip(np.minimum(to_u, to_v) + np.float32(0.5), 0, 1)
        light = _roof_light(world, house, u, v, to_u, to_v)
        canvas = picture[(slice(None), *part)]
        canvas += cover * (palette[:, house.index, None, None] * light - canvas)


def _roof_light(world: World, house: House, u: Float, v: Float, to_u: Float, to_v: Float) -> Float:
    """Return the light on a roof, about 1: slopes to and from the sun, ribs, parapets and what stands on top."""
    along = np.float32(world.sun[1] * house.cos + world.sun[0] * house.sin)
    across = np.float32(world.sun[0] * house.cos - world.sun[1] * house.sin)
    if house.roof in (0, 1):
        # The side that looks along the shadows is the dark one.
        light: Float = 1 - np.float32(0.38) * across * np.clip(v, -1, 1)
        if house.roof == 1:
            light = np.where(to_u < to_v, 1 - np.float32(0.38) * along * np.clip(u, -1, 1), light)
        return light
    if house.roof == 3:
        phase = u / np.float32(5 + 9 * (house.key >> 10) % 7 / 7)
        ribs = np.abs(phase - np.floor(phase) - np.float32(0.5))
        light = 1 + np.float32(0.22) * (ribs - np.float32(0.25)) - np.float32(0.12) * across * np.clip(v, -1, 1)
        return light
    rim = np.minimum(to_u, to_v)
    light = np.where(rim < 1.2, np.float32(1.18), np.where(rim < 2.4, np.float32(0.8), np.float32(1)))
    # Plant rooms and lift shafts: a bright box and the dark strip beside it.
    place = np.float32((house.key % 13 / 13 - 0.5) * house.long)
    box = np.maximum(np.abs(u - place) - np.float32(0.14 * house.long), np.abs(v) - np.float32(0.25 * house.wide))
    light = np.where(box < 0, np.float32(1.3), light)
    return np.where((box > 0) & (box < 1.5) & (v * across > 0), np.float32(0.55), light)
