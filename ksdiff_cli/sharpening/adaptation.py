"""Adapting a network to the scene that it is to sharpen: minutes, by what the scene's own PAN and MS tell."""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from glob import escape
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ksdiff_cli.errors import KsdiffError
from ksdiff_cli.files.content import check_unchanged
from ksdiff_cli.files.names import Inputs, check_place
from ksdiff_cli.files.workdir import Workdir, lock_folder, open_workdir, remove_old
from ksdiff_cli.fusers.network import Network
from ksdiff_cli.metrics.d_rho import DRho
from ksdiff_cli.metrics.full_blocks import make_pan_block, margin_for
from ksdiff_cli.metrics.reprojection import Reprojection
from ksdiff_cli.metrics.views import place_view
from ksdiff_cli.models.checkpoint import read_header, save_model, weights_hash
from ksdiff_cli.numerics.boxes import ALIGN, Box
from ksdiff_cli.numerics.camera import Kernel
from ksdiff_cli.numerics.moments import SceneStatistics
from ksdiff_cli.options.sharpening import SharpenOptions
from ksdiff_cli.products.scene_files import identify_content, identify_scene, scene_inputs
from ksdiff_cli.progress import ProgressCallback, silent
from ksdiff_cli.raster.camera import find_camera, ms_camera
from ksdiff_cli.raster.pair import Scene, ScenePair, open_pair
from ksdiff_cli.raster.tiles import ObservedTile
from ksdiff_cli.weights import SHIPPED

if TYPE_CHECKING:
    from ksdiff_cli.training.scene import Window

STEPS_A_MINUTE = 200
"""Steps of training a minute, which two cores do in half of it: no clock decides what weights become."""
_SIDES = (128, 96, 64, 32)  # of a window, MS pixels: the largest of which there are enough, else the largest with few
_SMALL = 32  # MS pixels, a side whose scene one scale below is mostly border
_FEWEST, _ENOUGH, _MOST = 4, 9, 15  # windows
_SHARES = (1.0, 0.85, 0.7, 0.55, 0.4)  # of what training changed, the first that explains held-out windows no worse
_TOO_GOOD = 5e-4
"""Gain of R-Q2n above which the camera, not the network, is taken to be wrong: with the right camera mosaics gain up to
4e-4, with one that is .1 of the gain or .4 of the compensation off, wherever it does harm, more."""
_HELD_OUT = 4  # every so manieth window judges
_LOOKS = 8  # windows looked at for each one wanted that has no hole
_EDGE = 6  # MS pixels at a window's border that judge nothing
_FORMAT = 7  # of what is stored beside the output; another one is not taken up


@dataclass(frozen=True)
class Adapted:
    """What came of it."""

    checkpoint: Path
    """The weights to sharpen with: adapted ones, or the given ones where these explain the scene no worse."""
    notes: tuple[str, ...]
    """What a person should know: the figures on the windows held out."""


@dataclass(frozen=True)
class Figures:
    """How well an output explains both images, on the windows held out."""

    r_q2n: float
    """Q2n of the output through the MS camera against MS; 1 is best."""
    d_rho: float
    """1 - local correlation with PAN; 0 is best."""


def adapt(
    scene: Scene,
    output: Path,
    options: SharpenOptions,
    progress: ProgressCallback = silent,
    inputs: Inputs | None = None,
) -> Adapted:
    """Adapt a network to a scene and keep the weights beside the output.

    It trains on windows spread over the scene (:func:`ksdiff_cli.training.scene.tune`); every fourth one is held out.
    What is trained is the plain network that the given one is with the scene's kernels. It is used only if R-Q2n and
    D_rho are no worse there, at full resolution, and R-Q2n is not better by more than a right camera can bring. The
    same command finds it again.

    Args:
        scene: as it is to be sharpened.
        output: of the sharpening; the weights lie beside it as ``OUTPUT.adapted.safetensors``.
        options: how: weights, minutes (see :data:`STEPS_A_MINUTE`), seed, device; whether weights that are there, of
            other inputs or options, are replaced.
        progress: told how far it is.
        inputs: what the command reads; None for the scene and the weights.

    Returns:
        The weights to use, and notes.

    Raises:
        KsdiffError: the scene is too small, has too few valid pixels or does not tell its camera; the backbone cannot
            be adapted; or the place cannot be written to.
        ModelError: the network does not fit the scene.
    """
    kept = output.with_name(f"{output.name}.adapted.safetensors")
    work, start = output.with_name(f".{output.name}.adapting"), options.checkpoint or SHIPPED
    busy = f"{work}: process {{owner}} is adapting to this scene; wait for it"
    with open_pair(scene) as pair:
        fuser = Network(start, options.device, options.seed)
        fuser.check(pair.bands, pair.true_ratio)
        reads = scene_inputs(scene)
        known, facts = identify_scene(scene, reads), _facts(identify_content(scene, reads), start, options)
        if (found := _find(kept, facts)) is not None:
            _clear(work, busy)
            return replace(found, notes=(*found.notes, f"adapted weights of an earlier run: {kept}"))
        check_place(kept, inputs or scene_inputs(scene, [start]), options.overwrite)
        if not fuser.adapts:
            raise KsdiffError(
                f"{start}: its backbone cannot be adapted; leave --adapt out, or take the shipped weights"
            )
        boxes = _choose_windows(pair)
        if not find_camera(pair).reliable:
            raise KsdiffError(f"{scene.name}: --adapt needs a scene that tells its camera; sharpen without it")
        with open_workdir(work, json.dumps([facts, known], sort_keys=True, default=str), busy) as folder:
            try:
                adapted = _adapt(pair, boxes, fuser, options, work, kept, facts, progress)
                check_unchanged(known["files"])
            except OSError as error:
                raise KsdiffError(f"{work}: cannot be written ({error.strerror or error}); make room there") from None
            folder.remove()
        return adapted


def _adapt(
    pair: ScenePair,
    boxes: Sequence[Box],
    fuser: Network,
    options: SharpenOptions,
    work: Path,
    kept: Path,
    facts: Mapping[str, object],
    progress: ProgressCallback,
) -> Adapted:
    """Train, judge and store."""
    from ksdiff_cli.training.scene import tune

    start = options.checkpoint or SHIPPED
    held_out = boxes[_HELD_OUT - 1 :: _HELD_OUT]
    statistics = pair.statistics(progress)
    fuser.prepare(pair, statistics, progress)
    cameras = ms_camera(pair, "scene").kernels
    before = _judge(pair, fuser, statistics, held_out, cameras)
    with fuser.learning(statistics) as (model, known, kernels):
        plain = model.folded(kernels)
        given = {name: value.clone() for name, value in plain.state_dict().items()}
        tune(
            plain,
            known,
            [_read(pair, fuser, box) for number, box in enumerate(boxes) if number % _HELD_OUT != _HELD_OUT - 1],
            max(1, round(STEPS_A_MINUTE * (options.adapt or 0))),
            options.seed,
            lambda done, total: progress(done, total, "adapting"),
        )
    header, tuned = read_header(start), work / "tuned.safetensors"
    changes = {name: value - given[name] for name, value in plain.state_dict().items()}
    for share in _SHARES:
        plain.load_state_dict({name: value + share * changes[name] for name, value in given.items()})
        save_model(plain, tuned, sensor=header["sensor"], training=header["training"])
        after_fuser = Network(tuned, options.device, options.seed)
        after_fuser.check(pair.bands, pair.true_ratio)
        after_fuser.prepare(pair, statistics, progress)
        after = _judge(pair, after_fuser, statistics, held_out, cameras)
        doubtful = after.r_q2n > before.r_q2n + _TOO_GOOD
        better = before.r_q2n <= after.r_q2n and after.d_rho <= before.d_rho and not doubtful
        if better or doubtful:
            break
    figures = (
        f"R-Q2n {before.r_q2n:.4f} -> {after.r_q2n:.4f}, D_rho {before.d_rho:.4f} -> {after.d_rho:.4f} "
        f"on {len(held_out)} of {len(boxes)} windows, held out"
    )
    why = "so much is to be had only where the camera found is wrong" if doubtful else "as it would not help"
    line = f"adapted to the scene: {figures}" if better else f"not adapted, {why}: {figures}"
    used = after_fuser if better else Network(start, options.device, options.seed)
    training = {**header["training"], "adaptation": {**facts, "kept": better, "note": line}}
    save_model(used.model, kept, sensor=header["sensor"], training=training)
    return Adapted(kept, (line,))


def _choose_windows(pair: ScenePair) -> list[Box]:
    """Return windows without holes, spread evenly over the scene, the same ones every time.

    Raises:
        KsdiffError: the scene holds too few of them.
    """
    align = math.lcm(ALIGN, pair.grid.ratio)
    tries = [*((side, _ENOUGH) for side in _SIDES if side > _SMALL), *((side, _FEWEST) for side in _SIDES)]
    for side, wanted in tries:
        size = max(1, round(side * pair.true_ratio / align)) * align
        places = [
            (row, col) for row in _starts(pair.shape[0], size, align) for col in _starts(pair.shape[1], size, align)
        ]
        np.random.default_rng(0).shuffle(places)
        found: list[Box] = []
        for row, col in places[: _LOOKS * _MOST]:
            box = Box(row, col, row + size, col + size)
            if pair.read(*_place(box)).valid.all():
                found.append(box)
            if len(found) == _MOST:
                break
        if len(found) >= wanted:
            return found
    height, width = pair.shape
    raise KsdiffError(
        f"{pair.scene.name}: --adapt needs {_FEWEST} windows of {_SIDES[-1]} MS pixels a side without holes; "
        f"{width} x {height} pixels hold too few; sharpen without it"
    )


def _starts(length: int, size: int, align: int) -> list[int]:
    """Return where windows that do not overlap begin along an axis, evenly."""
    count = length // size
    return [(length - size) * number // max(1, count - 1) // align * align for number in range(count)]


def _place(box: Box) -> tuple[int, int, int, int]:
    return box.top, box.left, box.height, box.width


def _read(pair: ScenePair, fuser: Network, box: Box) -> "Window":
    """Read a window on the network's device."""
    from ksdiff_cli.training.scene import Window

    pan, observed = fuser.load(pair.read_observed(*_place(box)))
    return Window(pan, observed)


def _judge(
    pair: ScenePair, fuser: Network, statistics: SceneStatistics, boxes: Sequence[Box], cameras: Sequence[Kernel]
) -> Figures:
    """Measure what the network makes of windows, at full resolution."""
    ratio = pair.grid.ratio
    found, d_rho = [], DRho(pair.true_ratio)
    for box in boxes:
        tile = pair.read_observed(*_place(box))
        assert isinstance(tile, ObservedTile)
        fused = fuser.fuse(tile, statistics, ratio).astype(np.float64)
        d_rho.update(make_pan_block(fused, tile.pan[0].astype(np.float64), None, margin_for(pair.true_ratio)))
        rows, cols = ((_EDGE, size - _EDGE) for size in tile.ms.shape[1:])
        view = place_view(tile.grid, fused.shape[1:], rows, cols, cameras, np.zeros((len(fused), 2)))
        ms = tile.ms[:, slice(*rows), slice(*cols)].astype(np.float64)
        one = Reprojection(pair.true_ratio)
        one.update(ms, view.see(fused[:, view.rows, view.cols]), np.ones(ms.shape[1:], bool))
        found.append(one.results()[0]["R_Q2n"])
    return Figures(float(np.mean(found)), d_rho.result())


def _facts(scene: Mapping[str, object], start: Path, options: SharpenOptions) -> dict[str, object]:
    """Return all that adapted weights depend on, as JSON values."""
    identity = json.dumps(scene, sort_keys=True, default=str)
    return {
        "format": _FORMAT,
        "weights": weights_hash(start),
        "minutes": options.adapt,
        "seed": options.seed,
        # the same weights wherever the scene lies; they travel, and need not tell that
        "scene": hashlib.sha256(identity.encode()).hexdigest(),
    }


def _find(kept: Path, facts: Mapping[str, object]) -> Adapted | None:
    """Return what an earlier run made of the same, if it is there."""
    if not kept.is_file():
        return None
    stored = read_header(kept)["training"].get("adaptation", {})
    if not isinstance(stored, dict) or {name: stored.get(name) for name in facts} != facts:
        return None
    return Adapted(kept, (str(stored.get("note", "")),))


def _clear(work: Path, busy: str) -> None:
    """Remove what a run left that was killed when its weights were stored."""
    if work.exists():
        with lock_folder(work, busy):
            Workdir(work).remove()
    remove_old(work.parent, escape(work.name))
