"""A network and what one scene taught it, as an ONNX file for other runtimes, with what they must know beside it."""

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ksdiff_cli._version import __version__
from ksdiff_cli.errors import KsdiffError
from ksdiff_cli.files.names import check_place
from ksdiff_cli.files.writing import as_json, atomic_write, unwritable, write_text
from ksdiff_cli.fusers.network import Network
from ksdiff_cli.numerics.grids import Axis
from ksdiff_cli.options.exporting import ExportOptions
from ksdiff_cli.products import choose_bands, find_scene
from ksdiff_cli.products.scene_files import find_inputs, scene_inputs
from ksdiff_cli.progress import ProgressCallback, silent
from ksdiff_cli.raster.grouped import open_scene
from ksdiff_cli.raster.nodata import check_declared, declare
from ksdiff_cli.raster.pair import ScenePair
from ksdiff_cli.raster.registration import check_registration
from ksdiff_cli.raster.synthesis import GuidedScene
from ksdiff_cli.weights import SHIPPED

if TYPE_CHECKING:
    from ksdiff_cli.models.graph import SceneGraph

_DRIFT = 0.01  # PAN pixels by which a ratio that is nearly whole may be off at the end of a window
_LARGEST = 4096  # of such a window, PAN pixels
_OPSET = 18


@dataclass(frozen=True)
class Exported:
    """What was written."""

    output: Path
    facts: Path
    """JSON: bands, ratio, where MS lies, margin, statistics."""
    notes: tuple[str, ...]


def export_scene(
    names: Sequence[str], output: Path, checkpoint: Path | None, options: ExportOptions,
    progress: ProgressCallback = silent,
) -> Exported:  # fmt: skip
    """Write a network with a scene's kernels, statistics and cameras folded in.

    Args:
        names: of PAN and MS, or of the scene.
        output: ``.onnx``; a ``.json`` of that name lies beside it.
        checkpoint: weights; None for those shipped with the package.
        options: how the scene is read.
        progress: told how far it is.

    Raises:
        KsdiffError: onnx is not installed; the scene cannot be read, or its grids' ratio is not whole; the network is
            none that can be written; a file cannot be.
        ModelError: the weights cannot be used, or do not fit the scene.
    """
    _check_installed()
    if output.suffix.lower() != ".onnx":
        raise KsdiffError(f"{output}: give the output the ending .onnx")
    facts, weights = output.with_suffix(".json"), checkpoint or SHIPPED
    inputs = find_inputs([*names, weights, *([options.sensor] if options.sensor else [])])
    for place in (output, facts):
        check_place(place, inputs, options.overwrite)
    scene = find_scene(names, options.sensor)
    if isinstance(scene, GuidedScene):
        raise KsdiffError(f"{scene.name}: has no PAN; only the network of a PAN/MS pair can be exported")
    scene = declare(replace(choose_bands(scene, list(options.bands)), warp=options.warp, others=()), options.nodata)
    for place in (output, facts):
        check_place(place, scene_inputs(scene, [weights]), options.overwrite)
    notes: Sequence[str] = ()
    if options.registration != "skip":
        scene, notes = check_registration(scene, correct=options.registration == "correct", progress=progress)
    if scene.field is not None:
        raise KsdiffError(
            f"{scene.ms[0].path}: its shift against PAN varies over the scene ({scene.field.say(scene.shift)}), "
            "and an exported network takes out one shift only; sharpen with ksdiff, or leave out --register"
        )
    fuser = Network(weights, "cpu", options.seed, sharpness=options.sharpness)
    if not fuser.adapts:
        raise KsdiffError(f"{weights}: only networks with the backbone unrolled, as the shipped one, can be exported")
    with open_scene(scene) as pair:
        check_declared(pair)
        fuser.check(pair.bands, pair.true_ratio)
        places = [_place(pair, axis) for axis in (pair.grid.rows, pair.grid.cols)]
        statistics = pair.statistics(progress)
        fuser.prepare(pair, statistics, progress)
        graph = _graph(fuser, statistics, places, options.sharpness)
        known = _facts(pair, fuser, graph, places, statistics)
        notes = (*notes, *pair.notes)
    try:
        with atomic_write(output) as growing:
            _write(graph, growing, pair.bands)
    except OSError as error:
        raise unwritable(output, error) from None
    write_text(as_json(known), facts)
    return Exported(output, facts, tuple(notes))


def _check_installed() -> None:
    if find_spec("onnx") is None:
        raise KsdiffError("onnx cannot be imported: pip install 'ksdiff[onnx]'")


def _place(pair: ScenePair, axis: Axis) -> tuple[Axis, int]:
    """Return where MS lies on a window that begins at a multiple of the ratio, and the first MS pixel of it."""
    ratio = pair.grid.ratio
    if axis.scale < 0 or abs(axis.scale * ratio - 1) * _LARGEST > _DRIFT:
        raise KsdiffError(
            f"{pair.scene.name}: has {1 / axis.scale:.6g} PAN pixels per MS pixel; only whole ratios can be exported, "
            "sharpen with ksdiff"
        )
    first = math.ceil(axis.offset - 0.5 / ratio - 1e-6)
    return Axis(1 / ratio, axis.offset - first), first


def _graph(fuser: Network, statistics: Any, places: Sequence[tuple[Axis, int]], sharpness: float) -> "SceneGraph":
    import torch

    from ksdiff_cli.models.graph import SceneGraph
    from ksdiff_cli.models.observation import AxisMap, Observed

    rows, cols = (AxisMap(axis.scale, axis.offset) for axis, _ in places)
    with fuser.learning(statistics) as (model, known, kernels), torch.no_grad():
        return SceneGraph(model, known, kernels, Observed(torch.zeros(1, 1, 1, 1), None, rows, cols, sharpness)).eval()


def _facts(
    pair: ScenePair, fuser: Network, graph: "SceneGraph", places: Sequence[tuple[Axis, int]], statistics: Any
) -> dict[str, Any]:
    """Return what a runtime must know to sharpen windows of this scene."""
    (rows, top), (cols, left) = places
    return {
        "ksdiff": __version__,
        "scene": pair.scene.name,
        "sensor": pair.scene.sensor.name,
        "bands": [source.name for source in pair.scene.ms],
        "ratio": graph.ratio,
        "inputs": {"pan": "float32 (1, 1, H, W), DN", "ms": "float32 (1, bands, H / ratio, W / ratio), DN"},
        "output": {"fused": "float32 (1, bands, H, W), DN"},
        "step": graph.step,
        "step_says": "windows begin at multiples of it, and H and W are multiples, PAN pixels",
        "margin": fuser.reach(graph.ratio),
        "margin_says": "PAN pixels to read on each side of what is kept; replicate beyond the scene's border",
        "first_ms_pixel": [top, left],
        "first_ms_pixel_says": "row and column of MS under PAN pixel 0; of a window at PAN row p: p / ratio more",
        "ms_centre": [-rows.offset / rows.scale, -cols.offset / cols.scale],
        "ms_centre_says": "where the first MS pixel's centre lies on a window, PAN pixels from the first one's centre",
        "pan_size": list(pair.shape),
        "ms_size": list(pair.ms_shape),
        "statistics": {
            "pan_mean": float(statistics.pan_mean),
            "pan_std": float(statistics.pan_std),
            "ms_mean": [float(value) for value in statistics.ms_mean],
            "ms_std": [float(value) for value in statistics.ms_std],
        },
        "camera": str(pair.camera) if pair.camera else None,
        **{name.lower(): value for name, value in fuser.provenance().items()},
    }


def _write(graph: "SceneGraph", path: Path, bands: int) -> None:
    import torch

    high, wide = 4 * graph.step, 5 * graph.step
    pan, ms = torch.zeros(1, 1, high, wide), torch.zeros(1, bands, high // graph.ratio, wide // graph.ratio)
    sizes = {"pan": {2: "H", 3: "W"}, "ms": {2: "h", 3: "w"}, "fused": {2: "H", 3: "W"}}
    # by tracing: torch.export takes half a minute for this graph, and packages of its own
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            graph, (pan, ms), str(path), dynamo=False, opset_version=_OPSET,
            input_names=["pan", "ms"], output_names=["fused"], dynamic_axes=sizes,
        )  # fmt: skip
