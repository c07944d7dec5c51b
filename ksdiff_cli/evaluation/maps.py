"""Maps of where an image is good: GeoTIFFs written beside the figures, block by block."""

import json
import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio.transform import Affine
from rasterio.windows import Window

from ksdiff_cli._version import __version__
from ksdiff_cli.errors import KsdiffError
from ksdiff_cli.evaluation.sources import Area
from ksdiff_cli.files.content import identify
from ksdiff_cli.files.names import Inputs, check_place
from ksdiff_cli.files.workdir import Claim
from ksdiff_cli.metrics import sam_map
from ksdiff_cli.metrics.blocks import CELL, Block, Span
from ksdiff_cli.metrics.d_lambda import d_lambda_cells
from ksdiff_cli.metrics.full_blocks import FullBlock
from ksdiff_cli.metrics.q2n import q2n_cells
from ksdiff_cli.numerics import Array
from ksdiff_cli.output.geotiff import atomic_raster
from ksdiff_cli.output.writer import check_sidecars

SHOWS_TAG = "KSDIFF_SHOWS"
"""Metadata in which a map says what its values are, for people."""
_SHOWS = {
    "sam": "angle between spectra (SAM), degrees",
    "q2n": f"Q2n of {CELL} x {CELL} pixels, 1 is best",
    "q2n_d_lambda": f"Q2n behind D_lambda, of {CELL} x {CELL} pixels, 1 is best",
}


@dataclass
class Maps:
    """Open maps, by name; see :func:`open_maps`. Values are float32, NaN is nodata."""

    writers: dict[str, Any] = field(default_factory=dict)
    paths: dict[str, Path] = field(default_factory=dict)

    def write_reference(self, block: Block, with_q2n: bool) -> None:
        """Write the SAM of a block's pixels, in degrees, and the Q2n of its 32-pixel cells."""
        if not self.writers:
            return
        core = block.view(0, 0)
        angles = np.where(core.valid, sam_map(core.reference, core.fused), np.nan)
        self._write("sam", angles, core.rows, core.cols, 1)
        if with_q2n:
            self._write("q2n", q2n_cells(core), core.rows, core.cols, CELL)

    def write_full(self, block: FullBlock, rows: Span, cols: Span) -> None:
        """Write the Q2n behind D_lambda of a block's 32-pixel cells."""
        if self.writers:
            self._write("q2n_d_lambda", d_lambda_cells(block), rows, cols, CELL)

    def drop(self, name: str) -> None:
        """Close a map that is not to be: its metric turned out to be undefined."""
        if name in self.writers:
            self.writers.pop(name).close()
            self.paths.pop(name)

    def _write(self, name: str, values: Array, rows: Span, cols: Span, cell: int) -> None:
        window = Window(cols.start // cell, rows.start // cell, values.shape[1], values.shape[0])
        self.writers[name].write(values.astype(np.float32), 1, window=window)


@dataclass(frozen=True)
class MapPlan:
    """Which maps are to be made."""

    paths: dict[str, Path] = field(default_factory=dict)
    claim: Claim | None = None
    """On them and on the report, if a page is made of the figures too; see :class:`ksdiff_cli.files.workdir.Claim`."""
    report: Path | None = None
    made: tuple[Path, ...] = ()
    """Folders that were made for the maps."""


def plan_maps(
    folder: Path | None,
    names: tuple[str, ...],
    inputs: Inputs,
    facts: Sequence[object],
    overwrite: bool,
    report: Path | None = None,
) -> MapPlan:
    """Decide where the maps go, by name; nothing without a folder. The folder is made.

    Args:
        folder: for the maps.
        names: of the maps.
        inputs: what may not be lost.
        facts: what the maps depend on besides.
        overwrite: whether maps that are there are replaced.
        report: page that the command writes at its end: killed before, the same command makes the maps again.

    Raises:
        KsdiffError: a map exists already or is an input, or the folder cannot be made.
    """
    if folder is None:
        return MapPlan()
    claim = map_claim(folder, json.dumps([__version__, identify(inputs.files), *facts]))
    paths = {name: folder / f"{name}.tif" for name in names}
    try:
        for path in paths.values() if folder.is_dir() else ():
            check_place(path, inputs, overwrite or claim.owns(path))
            check_sidecars(path, inputs, overwrite or claim.owns(path))
        made = tuple(place for place in (folder, *folder.parents) if not place.exists())
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise KsdiffError(
            f"{folder}: cannot be made a folder for the maps ({error.strerror}); choose another with --maps"
        ) from None
    return MapPlan(paths, claim, report, made)


def map_claim(folder: Path, how: str = "") -> Claim:
    """Return the claim that a command has on maps in a folder, and on its report."""
    return Claim(folder / ".maps.begun", how)


@contextmanager
def _remove_unused(folders: Sequence[Path]) -> Iterator[None]:
    """Remove folders that are still empty if the block fails, the innermost first."""
    try:
        yield
    except BaseException:
        for folder in folders:
            with suppress(OSError):
                folder.rmdir()
        raise


@contextmanager
def open_maps(plan: MapPlan, area: Area) -> Iterator[Maps]:
    """Create maps over an area: ``sam`` one pixel a pixel, the others one pixel a 32-pixel cell.

    They get their names at the end; if the work fails nothing of them remains, and maps of an earlier run stay.
    """
    with _remove_unused(plan.made), plan.claim or nullcontext(), ExitStack() as named:
        partial = {name: named.enter_context(atomic_raster(path)) for name, path in plan.paths.items()}
        with ExitStack() as opened:
            created = {name: opened.enter_context(_create(path, name, area)) for name, path in partial.items()}
            maps = Maps(created, dict(plan.paths))
            yield maps
        if plan.claim is not None:
            plan.claim.make(*plan.paths.values(), *([plan.report] if plan.report else []))
    for name in plan.paths.keys() - maps.paths.keys():  # an earlier run's goes too: it would pass for this one's
        plan.paths[name].unlink(missing_ok=True)
    if plan.claim is not None and plan.report is None:
        plan.claim.drop()


def _create(path: Path, name: str, area: Area) -> Any:
    dataset, cell = area.dataset, 1 if name == "sam" else CELL
    height, width = (math.ceil(size / cell) for size in area.shape)
    transform = dataset.transform @ Affine.translation(area.col, area.row) @ Affine.scale(cell)
    options = {"compress": "deflate", "predictor": 3, "crs": dataset.crs, "transform": transform, "nodata": np.nan}
    if min(height, width) >= 256:
        options |= {"tiled": True, "blockxsize": 256, "blockysize": 256}
    created = rasterio.open(path, "w", "GTiff", width, height, 1, dtype="float32", **options)
    created.update_tags(**{SHOWS_TAG: _SHOWS[name]})
    return created
