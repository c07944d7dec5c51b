"""Places worth a look, found on windows spread over the scene: where results differ, edges, residuals, flat areas.

The residuals are those of the two observations: what is left of MS when a result is seen through the MS camera, and
what is left of PAN when the result's bands are mixed to explain it; see :mod:`ksdiff_cli.sharpening.fidelity`.
"""

import math
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice

import numpy as np
import rasterio

from ksdiff_cli.checks import Mtf
from ksdiff_cli.fusers.anchors import spread_windows
from ksdiff_cli.numerics import Array
from ksdiff_cli.numerics.boxes import Box
from ksdiff_cli.numerics.projection import place_camera
from ksdiff_cli.raster.camera import ms_camera
from ksdiff_cli.raster.open import BLOCK_CACHE
from ksdiff_cli.raster.pair import Scene, ScenePair, open_pair
from ksdiff_cli.view.grid import Grid, Place
from ksdiff_cli.view.layers import Layer, Made
from ksdiff_cli.view.stage import Spot

SIDE = 128
"""Side of the windows that are compared, pixels of the grid."""
_WINDOWS = 256  # looked at, at most
_RESIDUALS = 96  # of them in which residuals are measured, which takes longer
_MADE = 4  # places of the engine's windows that are made for it, where results are made while they are looked at
_REACH = 512  # pixels around those places that are looked at
_EACH = 3  # places of a kind
_ALIKE = 0.5  # of the pixels that must be valid


@dataclass(frozen=True)
class Finding:
    """One window's scores, larger is more worth a look; None where that was not measured."""

    box: Box
    scores: dict[str, float]


WHY = {
    "differ": "the results differ most",
    "added": "the result differs most from MS",
    "edges": "strong edges",
    "ms": "MS is explained worst",
    "pan": "PAN is explained worst",
    "flat": "a flat area: noise and colour",
}


def find_spots(grid: Grid, layers: Sequence[Layer], scene: Scene | None, mtf: Mtf = "scene") -> list[Spot]:
    """Find the places of a tour.

    Args:
        grid: that all lie on.
        layers: all of them; results are the images as fine as the grid.
        scene: PAN and MS, for residuals; None without.
        mtf: through whose camera a result is seen as MS.

    Returns:
        The best three of each kind that could be measured.
    """
    results = [layer for layer in layers if layer.about.kind == "image" and _fine(layer)]
    coarse = next((layer for layer in layers if layer.about.kind == "image" and not _fine(layer)), None)
    sharp = next((layer for layer in layers if layer.about.kind == "pan" and _fine(layer)), None)
    look = (sharp or (results or list(layers))[0]), results, coarse
    with ExitStack() as stack:
        pair = None
        # residuals are counted in PAN's pixels
        if scene is not None and results and sharp is not None and sharp.place == Place():
            stack.enter_context(rasterio.Env(GDAL_CACHEMAX=BLOCK_CACHE))
            pair = stack.enter_context(open_pair(scene))
        found = [_measure(box, *look) for box in _candidates(grid, results)]
        found = [one for one in found if one.scores]
        if pair is not None:
            _add_residuals(found[:_RESIDUALS], results[-1], pair, mtf)
    return _choose(found)


def _fine(layer: Layer) -> bool:
    return min(abs(layer.place.rows.scale), abs(layer.place.cols.scale)) > 0.8


def _candidates(grid: Grid, results: Sequence[Layer]) -> Iterable[Box]:
    """Return windows spread over the scene, within a few of the engine's windows where results have to be made."""
    spread = [Box(row, col, row + h, col + w) for row, col, h, w in spread_windows((grid.height, grid.width), SIDE)]
    if not any(isinstance(layer, Made) for layer in results):
        return islice(spread, _WINDOWS)
    centres = spread[:_MADE]
    return islice((box for box in spread if any(_near(box, one) for one in centres)), _WINDOWS)


def _near(box: Box, other: Box) -> bool:
    return max(abs(box.top - other.top), abs(box.left - other.left)) < _REACH


def _measure(box: Box, sharp: Layer, results: Sequence[Layer], coarse: Layer | None) -> Finding:
    """Score a window by what is seen in it."""
    pan = read_at(sharp, [0], box)
    if np.isnan(pan).mean() > 1 - _ALIKE:
        return Finding(box, {})
    scores: dict[str, float] = {}
    rows, cols = np.diff(pan[0], axis=0)[:, 1:], np.diff(pan[0], axis=1)[1:]
    steps = np.hypot(rows, cols)
    steps = steps[~np.isnan(steps)]
    if steps.size:
        scores["edges"] = float(np.percentile(steps, 95))
        scores["flat"] = -scores["edges"]
    images = [read_at(layer, range(len(layer.about.bands)), box) for layer in results]
    alike = [image for image in images if image.shape == images[0].shape]
    if len(alike) > 1:
        scores["differ"] = _mean(np.std(np.stack(alike), 0))
    elif images and coarse is not None and len(coarse.about.bands) == len(images[0]):
        scores["added"] = _mean(np.abs(images[0] - read_at(coarse, range(len(images[0])), box)))
    return Finding(box, {name: score for name, score in scores.items() if not math.isnan(score)})


def read_at(layer: Layer, bands: Sequence[int], box: Box) -> Array:
    """Return a layer's pixels that lie nearest to those of the grid in a box, (bands, h, w), NaN without data."""
    out = np.full((len(bands), box.height, box.width), np.nan, np.float32)
    spans = ((layer.place.rows, box.top, box.bottom), (layer.place.cols, box.left, box.right))
    index = [line.index(np.arange(first, last) + 0.5) for line, first, last in spans]
    inside = [np.flatnonzero((at >= 0) & (at < size)) for at, size in zip(index, layer.shape, strict=True)]
    if not all(one.size for one in inside):
        return out
    rows, cols = (at[ours] for at, ours in zip(index, inside, strict=True))
    needed = Box(rows.min(), cols.min(), rows.max() + 1, cols.max() + 1)
    # all bands of a window are made at once: it is of no use to keep some of them as pieces
    made = layer.windows if isinstance(layer, Made) else None
    found = layer.region(bands, needed) if made is None else made.window(needed)[list(bands)]
    out[:, inside[0][:, None], inside[1]] = found[:, (rows - needed.top)[:, None], cols - needed.left]
    return out


def _add_residuals(found: Sequence[Finding], result: Layer, pair: ScenePair, mtf: Mtf) -> None:
    """Add what a result leaves unexplained of MS and of PAN, window by window."""
    if len(result.about.bands) != pair.bands:
        return
    through = ms_camera(pair, mtf)
    seen = []
    for one in found:
        box = one.box.moved(-pair.origin[0], -pair.origin[1]).meet(Box(0, 0, *pair.shape))
        if box.height < SIDE // 2 or box.width < SIDE // 2:
            continue
        image = read_at(result, range(pair.bands), box.moved(*pair.origin))
        pan, valid = pair.read_pan(box.top, box.left, box.height, box.width)
        if np.isnan(image).any() or not valid.all():
            continue
        camera = place_camera(pair.grid, box, pair.ms_shape, (*through.kernels, through.pan))
        if camera.whole.any():
            ms, known = pair.read_ms(camera.ms.top, camera.ms.left, camera.ms.height, camera.ms.width)
            known &= camera.whole
            if known.any():
                seen_as = np.stack([camera.degrade(plane, band) for band, plane in enumerate(image)])
                one.scores["ms"] = float(np.sqrt(np.mean((seen_as - ms)[:, known] ** 2)))
        seen.append((one, image.reshape(pair.bands, -1), pan.reshape(-1)))
    if not seen:
        return
    # one mix of bands for the whole scene, from every 16th pixel
    bands = np.concatenate([image[:, ::16] for _, image, _ in seen], 1).astype(np.float64)
    pans = np.concatenate([pan[::16] for _, _, pan in seen]).astype(np.float64)
    weights = np.linalg.lstsq(np.vstack([bands, np.ones(bands.shape[1])]).T, pans, rcond=None)[0]
    for one, image, pan in seen:
        one.scores["pan"] = float(np.sqrt(np.mean((pan - weights[:-1] @ image - weights[-1]) ** 2)))


def _mean(values: Array) -> float:
    """Return the mean of what is no NaN; NaN without any."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else math.nan


def _choose(found: Sequence[Finding]) -> list[Spot]:
    """Take the best windows of each kind; one that is the best in several ways is named once, with all of them."""
    reasons: dict[Box, list[str]] = {}
    for kind, why in WHY.items():
        best = sorted((one for one in found if kind in one.scores), key=lambda one: -one.scores[kind])
        for one in best[:_EACH]:
            reasons.setdefault(one.box, []).append(why)
    return [
        Spot((box.top + box.bottom) / 2, (box.left + box.right) / 2, "; ".join(whys), max(box.height, box.width))
        for box, whys in reasons.items()
    ]
