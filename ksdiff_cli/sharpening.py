"""The whole-scene engine: a pair in, a GeoTIFF out, window by window in bounded memory."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray

from ksdiff_cli import __version__
from ksdiff_cli.errors import KsdiffError
from ksdiff_cli.fusers import Fuser, Surveyor
from ksdiff_cli.progress import ProgressCallback, silent
from ksdiff_cli.raster import Scene, ScenePair, SceneStatistics, Tile, open_pair
from ksdiff_cli.raster_format import choose_format
from ksdiff_cli.raster_open import BLOCK_CACHE
from ksdiff_cli.raster_writer import check_output, new_raster, write_rows
from ksdiff_cli.tiling import Span, Tiling, make_tiling

Array = NDArray[Any]


@dataclass(frozen=True)
class SharpenOptions:
    """How a scene is cut and how the output is stored."""

    tile: int = 512
    """Side of a window, in PAN pixels."""
    overlap: int = 64
    """PAN pixels that neighbouring windows share at least."""
    dtype: str | None = None
    """Data type of the output; None takes that of MS."""
    creation: Mapping[str, str] = field(default_factory=dict)
    """GDAL creation options that replace the defaults."""
    overwrite: bool = False
    """Whether an existing output is replaced."""


@dataclass(frozen=True)
class Sharpened:
    """What was made."""

    output: Path
    shape: tuple[int, int]
    """(height, width), pixels."""
    bands: int
    dtype: str
    nodata: float | None
    notes: tuple[str, ...]
    """What a person should know about how PAN and MS were laid on each other."""


def sharpen_scene(
    scene: Scene,
    output: Path,
    fuser: Fuser,
    options: SharpenOptions | None = None,
    progress: ProgressCallback = silent,
) -> Sharpened:
    """Sharpen a whole scene into a GeoTIFF on PAN's grid.

    One pass gathers the scene's statistics, for a classical method another one its coefficients; the last goes through
    overlapping windows and blends them. Memory holds one row of windows, whatever the scene's height. The output
    appears under its name only when it is complete.

    Args:
        scene: where PAN and MS are.
        output: target, ``.tif``.
        fuser: what sharpens a window.
        options: see :class:`SharpenOptions`.
        progress: told the windows done.

    Returns:
        What was made.

    Raises:
        KsdiffError: the inputs cannot be read or do not fit each other, or the output cannot be written.
        ModelError: the fuser's weights do not fit the scene.
    """
    options = options or SharpenOptions()
    check_output(output, [source.path for source in (scene.pan, *scene.ms)], options.overwrite)
    with rasterio.Env(GDAL_CACHEMAX=BLOCK_CACHE), open_pair(scene) as pair:
        fuser.check(pair.bands, pair.grid.ratio)
        tiling = make_tiling(*pair.shape, options.tile, options.overlap)
        statistics = pair.statistics(progress)
        pixels = choose_format(pair, statistics.holes, options.dtype)
        if isinstance(fuser, Surveyor):
            fuser.prepare(pair, progress)
        tags = _provenance(scene, fuser, options)
        with new_raster(output, pair, pixels, options.creation, tags) as dataset:
            block = dataset.block_shapes[0][0]
            for top, values, valid in sharpened_rows(pair, fuser, statistics, tiling, block, progress):
                write_rows(dataset, top, values, valid, pixels)
        return Sharpened(output, pair.shape, pair.bands, pixels.dtype.name, pixels.nodata, tuple(pair.notes))


def sharpened_rows(
    pair: ScenePair,
    fuser: Fuser,
    statistics: SceneStatistics,
    tiling: Tiling,
    block: int = 1,
    progress: ProgressCallback = silent,
) -> Iterator[tuple[int, Array, Array]]:
    """Go through a scene by windows and yield its rows as they get finished, from top to bottom.

    Args:
        pair: the open scene.
        fuser: what sharpens a window.
        statistics: of the scene.
        tiling: its windows.
        block: rows come in multiples of this (but for the last), so that a file's blocks are written once.
        progress: told the windows done.

    Yields:
        (first row, (bands, rows, width) float32 DN, (rows, width) bool valid); the arrays are used again afterwards.

    Raises:
        KsdiffError: the fuser gave values that are no numbers.
    """
    height, width = pair.shape
    depth = min(height, max(row.size for row in tiling.rows) + block - 1)
    blended = np.zeros((pair.bands, depth, width), np.float32)
    valid = np.zeros((depth, width), bool)
    top = 0  # scene row of the buffers' first row
    for number, row in enumerate(tiling.rows):
        place = slice(row.start - top, row.stop - top)
        for count, col in enumerate(tiling.cols, start=1):
            tile, inside = _read(pair, fuser, row, col)
            seen = tile.valid[inside]
            valid[place, col.start : col.stop] = seen
            if seen.any():
                fused = fuser.fuse(tile, statistics, pair.grid.ratio)[:, *inside]
                _check_finite(fused, seen, row.start, col.start)
                blended[:, place, col.start : col.stop] += fused * (row.weights[:, None] * col.weights)
            progress(number * len(tiling.cols) + count, len(tiling), "windows")
        last = row is tiling.rows[-1]
        # rows above the next window's first are finished
        done = (height if last else tiling.rows[number + 1].start // block * block) - top
        if done > 0:
            yield top, blended[:, :done], valid[:done]
            kept = depth - done
            blended[:, :kept], blended[:, kept:] = blended[:, done:].copy(), 0
            valid[:kept] = valid[done:].copy()
            top += done


def _read(pair: ScenePair, fuser: Fuser, row: Span, col: Span) -> tuple[Tile, tuple[slice, slice]]:
    """Read a window with the margin that the fuser needs, as far as the scene goes, and say where the window lies."""
    margin = fuser.reach(pair.grid.ratio) if isinstance(fuser, Surveyor) else 0
    (top, bottom), (left, right) = (
        (max(0, span.start - margin), min(size, span.stop + margin))
        for span, size in zip((row, col), pair.shape, strict=True)
    )
    inside = slice(row.start - top, row.stop - top), slice(col.start - left, col.stop - left)
    return pair.read(top, left, bottom - top, right - left), inside


def _check_finite(fused: Array, valid: Array, row: int, col: int) -> None:
    # one sum is cheaper than a mask of every pixel, and anything infinite or NaN spoils it
    if not np.isfinite(fused.sum()) and not np.isfinite(fused[:, valid]).all():
        raise KsdiffError(f"the method gave values that are no numbers in the window at row {row}, column {col}")


def _provenance(scene: Scene, fuser: Fuser, options: SharpenOptions) -> dict[str, str]:
    facts = {
        "VERSION": __version__,
        **fuser.provenance(),
        "SENSOR": scene.sensor.name,
        "TILE": str(options.tile),
        "OVERLAP": str(options.overlap),
    }
    if any(scene.shift):
        facts["SHIFT"] = "{:+.3f} {:+.3f}".format(*scene.shift)
    return {"TIFFTAG_SOFTWARE": f"ksdiff {__version__}", **{f"KSDIFF_{name}": value for name, value in facts.items()}}
