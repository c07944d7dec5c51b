"""Fine-tuning a network on the scene that it is to sharpen: at reduced resolution the scene itself is the truth."""

import hashlib
import json
import math
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from glob import escape
from pathlib import Path

import numpy as np
import torch
from scipy.ndimage import gaussian_filter

from ksdiff_cli.checks import check_number
from ksdiff_cli.errors import KsdiffError
from ksdiff_cli.files.content import check_unchanged
from ksdiff_cli.files.names import Inputs, check_place
from ksdiff_cli.files.workdir import Workdir, lock_folder, open_workdir, remove_old
from ksdiff_cli.fusers.anchors import spread_windows
from ksdiff_cli.fusers.device import pick_device
from ksdiff_cli.metrics import ergas, sam
from ksdiff_cli.models.checkpoint import load_model, read_header, save_model, weights_hash
from ksdiff_cli.models.contract import FusionModel, Stage
from ksdiff_cli.numerics import Array
from ksdiff_cli.numerics.grids import corner_aligned, degrade
from ksdiff_cli.options.patches import PatchOptions
from ksdiff_cli.patches.dataset import PatchFile
from ksdiff_cli.patches.layout import lay_regions
from ksdiff_cli.patches.prepare import prepare_patches
from ksdiff_cli.patches.sources import NothingFitError, PairSource
from ksdiff_cli.products.scene_files import identify_content, identify_scene, scene_inputs
from ksdiff_cli.progress import ProgressCallback, silent
from ksdiff_cli.raster.pair import Scene, ScenePair, fill_invalid, open_pair
from ksdiff_cli.training.options import FINE_RATE
from ksdiff_cli.training.stages import TrainingOptions, train_stage
from ksdiff_cli.weights import SHIPPED

_BATCH = 32
_MOST_STEPS_A_MINUTE = 6000
_LARGEST_PATCH, _SMALLEST_PATCH = 64, 16
_SHARE = 0.5
"""Of the fine-tuned weights in those that are used, the rest being the given ones: what helps at reduced resolution may
harm one scale up, and the mean of both keeps most of the gain and a third of the harm (figures: CHANGELOG; the way
of Wortsman et al., "Robust fine-tuning of zero-shot models", CVPR 2022)."""
_FORMAT = 4  # of what is stored beside the output; another one is not taken up


@dataclass(frozen=True)
class Adaptation:
    """How a network is fine-tuned."""

    checkpoint: Path | None
    """The network to start from; None for the shipped one."""
    minutes: float
    """How long to train."""
    seed: int = 0
    device: str = "auto"

    def __post_init__(self) -> None:
        """Refuse a time that trains nothing, or never ends."""
        check_number("adapt", self.minutes, 0.01)


@dataclass(frozen=True)
class Adapted:
    """Whether the new weights were used, in one line."""

    checkpoint: Path
    """The weights to sharpen with: fine-tuned ones, or the given ones where fine-tuning did not help."""
    notes: tuple[str, ...]
    """Notes for people: the figures on the held-out part."""


def adapt(
    scene: Scene,
    output: Path,
    chosen: Adaptation,
    progress: ProgressCallback = silent,
    inputs: Inputs | None = None,
    *,
    overwrite: bool = False,
) -> Adapted:
    """Fine-tune a network on a scene and keep the weights beside the output.

    The scene is degraded by its own ratio (Wald's protocol), so that its MS is the truth. Four fifths of it train, a
    part of the rest decides: only weights whose ERGAS and SAM are not worse there are used. The same command finds them
    again; one that was killed goes on.

    Args:
        scene: as it is to be sharpened.
        output: of the sharpening; the weights lie beside it as ``OUTPUT.adapted.safetensors``.
        chosen: how.
        progress: told how far it is.
        inputs: what the command reads; None for the scene and the weights.
        overwrite: whether weights that are there, of other inputs or options, are replaced.

    Returns:
        The weights to use, and notes.

    Raises:
        KsdiffError: the scene is too small or has too few valid pixels, or the place cannot be written to.
        ModelError: the network does not fit the scene.
    """
    kept = output.with_name(f"{output.name}.adapted.safetensors")
    work, start = output.with_name(f".{output.name}.adapting"), chosen.checkpoint or SHIPPED
    busy = f"{work}: process {{owner}} is adapting to this scene; wait for it"
    with open_pair(scene) as pair:
        model, header = load_model(start)
        model.check(pair.bands, pair.true_ratio)
        reads = scene_inputs(scene)
        known, facts = identify_scene(scene, reads), _facts(identify_content(scene, reads), start, chosen)
        if (found := _find(kept, facts)) is not None:
            _clear(work, busy)
            return replace(found, notes=(*found.notes, f"adapted weights of an earlier run: {kept}"))
        check_place(kept, inputs or scene_inputs(scene, [start]), overwrite)
        patch, pan_mtf = _choose_patch(pair), find_reduced_mtf(pair)
    with open_workdir(work, json.dumps([facts, known], sort_keys=True, default=str), busy) as folder:
        try:
            prepare = PatchOptions(
                (scene,), work / "patches", patch, pan_mtf=pan_mtf, registration="skip", seed=chosen.seed
            )
            if not prepare.output.exists():
                _prepare(prepare, progress)
            options = TrainingOptions(
                data=(prepare.output,),
                run=work,
                steps=math.ceil(_MOST_STEPS_A_MINUTE * chosen.minutes),
                batch=_BATCH,
                rate=FINE_RATE,
                time_limit=chosen.minutes,
                init=start,
                fine_tune=True,
                seed=chosen.seed,
                device=str(pick_device(chosen.device)),
                config=model.config,  # type: ignore[arg-type]
            )
            stage: Stage = header["stage"] or 1
            tuned = options.file(stage)
            if not tuned.exists():
                train_stage(
                    options,
                    stage,
                    lambda done, total, note="": progress(done, total, f"adapting, {note}"),
                    again="the same command goes on from here",
                )
            check_unchanged(known["files"])
            adapted = _decide(model, tuned, prepare.output / "valid.h5", kept, facts, header)
        except OSError as error:
            raise KsdiffError(f"{work}: cannot be written ({error.strerror or error}); make room there") from None
        folder.remove()
        return adapted


def _prepare(options: PatchOptions, progress: ProgressCallback) -> None:
    try:
        prepare_patches(options, progress=progress)
    except NothingFitError as error:
        shutil.rmtree(options.output.parent, ignore_errors=True)
        (scene,) = options.scenes
        name = scene.name if isinstance(scene, Scene) else scene
        raise KsdiffError(f"{name}: --adapt has nothing to train on, {error.reason}; sharpen without it") from None


def _decide(
    before: FusionModel,
    tuned: Path,
    held_out: Path,
    kept: Path,
    facts: Mapping[str, object],
    header: Mapping[str, object],
) -> Adapted:
    """Compare both networks on the held-out part and store the better one."""
    after, tuned_header = load_model(tuned)
    _average(before, after)
    old, new = (_measure(model, held_out) for model in (before, after))
    better = new[0] < old[0] and new[1] <= old[1]
    figures = f"ERGAS {old[0]:.3f} -> {new[0]:.3f}, SAM {old[1]:.3f} -> {new[1]:.3f} on the part held out"
    line = f"adapted to the scene: {figures}" if better else f"not adapted, as it would not help: {figures}"
    training = {**tuned_header["training"], "adaptation": {**facts, "kept": better, "note": line}}
    sensor = header["sensor"]
    assert isinstance(sensor, Mapping)
    save_model(after if better else before, kept, sensor=sensor, training=training)
    return Adapted(kept, (line,))


def _average(before: FusionModel, after: FusionModel) -> None:
    """Draw the fine-tuned weights back towards the given ones, in place."""
    old = before.state_dict()
    with torch.no_grad():
        for name, value in after.state_dict().items():
            if value.is_floating_point():
                value.lerp_(old[name], 1 - _SHARE)


def _measure(model: FusionModel, path: Path) -> tuple[float, float]:
    """Return mean ERGAS and SAM over a file of patches."""
    file = PatchFile(path)
    found = []
    for index in range(len(file)):
        batch = file.batch([index])
        fused = batch.fuse(model)[0].double().numpy()
        assert batch.gt is not None
        gt = batch.gt[0].double().numpy()
        found.append((ergas(gt, fused, batch.ratio), sam(gt, fused)))
    file.close()
    ergas_mean, sam_mean = np.mean(found, 0)
    return float(ergas_mean), float(sam_mean)


def _facts(scene: Mapping[str, object], start: Path, chosen: Adaptation) -> dict[str, object]:
    """Return all that adapted weights depend on, as JSON values; the time of day aside."""
    identity = json.dumps(scene, sort_keys=True, default=str)
    return {
        "format": _FORMAT,
        "weights": weights_hash(start),
        "minutes": chosen.minutes,
        "seed": chosen.seed,
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


def _choose_patch(pair: ScenePair) -> int:
    """Return the largest patch of which the scene holds one to train on and one to decide with.

    Raises:
        KsdiffError: there is none.
    """
    source = PairSource(pair)
    step = math.lcm(8, source.ratio)
    for patch in range(_LARGEST_PATCH // step * step, _SMALLEST_PATCH - 1, -step):
        try:
            lay_regions(source.name, source.shape, patch, source.ratio, source.reach, seed=0)
        except KsdiffError:
            continue
        return patch
    height, width = source.shape
    raise KsdiffError(
        f"{source.name}: --adapt trains on the MS image, and {width} x {height} pixels are too few; sharpen without it"
    )


def _clear(work: Path, busy: str) -> None:
    """Remove what a run left that was killed when its weights were stored."""
    if work.exists():
        with lock_folder(work, busy):
            Workdir(work).remove()
    remove_old(work.parent, escape(work.name))


# ---- how sharp PAN is


_FINE, _COARSE = 0.7, 1.4  # deviations of the Gaussians between which octaves lie, pixels
_SIDE, _WINDOWS = 1024, 4
_GAINS = (0.2, 0.25, 0.3, 0.35, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


def find_reduced_mtf(pair: ScenePair) -> float:
    """Find the MTF by which a reduced PAN is as sharp, at its pixels, as PAN is at its own.

    The finest octave of most scenes is as strong against the next one at any scale, so what differs between a scene and
    its reduced version is the camera. A sensor's figure is believed unless PAN is sharper, as restored products are: a
    network that is fine-tuned on PAN blurred too much learns to sharpen it, and does so with what is sharp already.

    Returns:
        The sensor's MTF of PAN at its Nyquist frequency, or a larger one.
    """
    known, ratio = pair.scene.sensor.mtf_pan, pair.grid.ratio
    images = []
    for place in spread_windows(pair.shape, _SIDE):
        pan, valid = pair.read_pan(*place)
        if valid.mean() > 0.5:
            images.append(fill_invalid(pan, valid))
        if len(images) == _WINDOWS:
            break
    own = _sharpness(images)
    if own is None:
        return known
    grid = corner_aligned(ratio)
    shapes = [(image.shape[1] // ratio, image.shape[2] // ratio) for image in images]
    found = {}
    for gain in (known, *(gain for gain in _GAINS if gain > known)):
        reduced = _sharpness(
            [degrade(image, grid, shape, (gain,)) for image, shape in zip(images, shapes, strict=True)]
        )
        if reduced is None:
            return known
        found[gain] = abs(reduced - own)
    return min(found, key=lambda gain: found[gain])


def _sharpness(images: list[Array]) -> float | None:
    """Compare the two finest octaves of (1, h, w) images: the logarithm of their power's ratio, None without any."""
    fine = coarse = 0.0
    for image in images:
        values = image[0].astype(np.float64)
        smooth, smoother = (gaussian_filter(values, sigma) for sigma in (_FINE, _COARSE))
        fine += float(((values - smooth) ** 2).sum())
        coarse += float(((smooth - smoother) ** 2).sum())
    return float(np.log(fine / coarse)) if fine > 0 and coarse > 0 else None
