"""The Python functions for learning: patches from scenes, weights from patches, methods compared on patches.

See :mod:`ksdiff_cli.api`.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, nullcontext
from dataclasses import replace
from os import PathLike
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal

from ksdiff_cli.checks import check_choice, check_number, check_seed
from ksdiff_cli.errors import KsdiffError
from ksdiff_cli.options import keywords
from ksdiff_cli.options.patches import PatchOptions
from ksdiff_cli.process import usable_threads
from ksdiff_cli.progress import ProgressCallback, silent

if TYPE_CHECKING:
    from ksdiff_cli.evaluation.cases import Protocol, Scaling
    from ksdiff_cli.evaluation.prior import Prior
    from ksdiff_cli.evaluation.results import Evaluation
    from ksdiff_cli.metrics import CropName
    from ksdiff_cli.models.config import ModelConfig
    from ksdiff_cli.models.contract import Stage
    from ksdiff_cli.models.peers.pixel_diffusion import PixelConfig
    from ksdiff_cli.patches.dataset import PatchFile
    from ksdiff_cli.patches.prepare import Prepared
    from ksdiff_cli.sensors import Sensor
    from ksdiff_cli.training.log import StepCallback
    from ksdiff_cli.training.options import Precision, Recipe
    from ksdiff_cli.training.presets import Preset

_EXAMPLES = 3  # images shown in a report; its pictures grow with them

Name = str | PathLike[str]
Note = Callable[[str], None]
"""Takes a line that a person should read."""
Stages = Literal["1", "2", "all"]


def _drop(line: str) -> None:
    """Take a note and drop it."""


@keywords(PatchOptions)
def prepare_patches(*scenes: Name, options: PatchOptions, progress: ProgressCallback = silent) -> "Prepared":
    """Make training, validation, test and full-resolution patches from scenes by Wald's protocol.

    The command is ``ksdiff prepare-data``.

    Args:
        scenes: folders with a PAN/MS pair or a product, folders of such folders, or HDF5 files of gt and pan tiles.
        options: how.
        progress: told how far it is.

    Returns:
        What came out: images and their side by file, windows left out by reason, notes.

    Raises:
        KsdiffError: no scene, scenes that do not go into one file, too small a scene, an output that exists, or a value
            out of its range.
    """
    from ksdiff_cli.patches import prepare

    return prepare.prepare_patches(replace(options, scenes=tuple(map(Path, scenes))), progress)


def _weights(name: Name | None) -> Path | None:
    """Return weights by path, or the shipped ones by that name."""
    if name is None:
        return None
    if str(name) != "shipped":
        return Path(name)
    from ksdiff_cli.weights import SHIPPED

    return SHIPPED


def train(
    *data: Name,
    valid: Sequence[Name] = (),
    output: Name = "runs",
    stage: "Stages | Stage" = "all",
    config: "ModelConfig | PixelConfig | None" = None,
    preset: "Preset" = "default",
    settings: Mapping[str, object] = MappingProxyType({}),
    universal: bool = False,
    steps: int | None = None,
    epochs: int | None = None,
    time_limit: float | None = None,
    batch: int | None = None,
    accumulate: int | None = None,
    precision: "Precision | None" = None,
    rate: float | None = None,
    recipe: "Recipe | None" = None,
    warm_up: float | None = None,
    validate_every: int | None = None,
    init: Name | None = None,
    fine_tune: bool = False,
    cache: Name | None = None,
    tensorboard: bool = False,
    on_step: "StepCallback | None" = None,
    resume: bool = False,
    overwrite: bool = False,
    device: str = "auto",
    seed: int = 0,
    threads: int | None = None,
    progress: ProgressCallback = silent,
    note: Note = _drop,
) -> list[Path]:
    """Train KSDiff on patches, one stage or both; ``ksdiff train``. Needs torch and h5py, no rasterio.

    Args:
        data: folders made by :func:`prepare_patches`, folders of such folders, or PanCollection's ``train_*.h5``; none
            stands for ``patches``.
        valid: validation files, or folders of them; () takes those beside the training files.
        output: folder of the run: weights, the best ones so far, log, curves, resume state.
        stage: 1 (encoder and network), 2 (diffusion, from the run's stage 1), as numbers or strings, or ``all``; pixel
            diffusion has only one.
        config: the network; its ``bands`` are replaced by those of the data. None takes KSDiff's defaults.
        preset: what defaults are: ``default``, or the ``paper``'s configuration as it reads.
        settings: further values by name, ``{"width": 64, "network.steps": 1000}``, of the network's configuration and
            of :class:`~ksdiff_cli.training.options.TrainingOptions`; what follows here counts where it is given.
        universal: one network for any number of bands, even if all data have one number.
        steps: optimiser steps of a stage; None takes ``epochs``, or those of the preset: 1000, the paper's 400 epochs.
        epochs: passes over the patches, in place of steps.
        time_limit: minutes after which a stage ends well.
        batch: images a step; None takes 16, the paper's preset 32.
        accumulate: pieces in which the network sees a batch; saves memory; None takes 1.
        precision: arithmetic on a GPU; None takes ``auto``.
        rate: peak learning rate, up to 1; None takes 1e-3, 2e-4 to fine-tune.
        recipe: stage 2's diffusion: the whole ``chain`` with gradients, or one prediction from a random step; None
            takes ``chain``, the paper's preset ``random-t``.
        warm_up: share of stage 2, 0 to 1, that trains the diffusion alone; 1 leaves the network as stage 1 made it;
            None takes 0.
        validate_every: steps between validations, which save the resume state; None takes 200.
        init: weights to start from, ``shipped`` for the package's; their configuration replaces ``config``.
        fine_tune: train a whole network on, that of ``init`` or the shipped one: stage 2 by eq. 4 alone, no stage 1.
        cache: folder for compact copies of training files that are too large for memory; None reads these as they are.
        tensorboard: also write ``output/tensorboard``; needs ``pip install "ksdiff[tensorboard]"``.
        on_step: called after every optimiser step with its :class:`~ksdiff_cli.training.log.TrainingStep`; what it
            raises ends the run, which ``resume`` takes up again.
        resume: go on where a killed run of the same options stopped.
        overwrite: replace an earlier run.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        seed: of every random number.
        threads: CPU threads; None takes all cores.
        progress: told every step, with stage and loss.
        note: called with lines for people, among them validations.

    Returns:
        The checkpoints, in the order of the stages.

    Raises:
        KsdiffError: nothing to train on, data that do not fit, no stage 1 for stage 2, an earlier run in ``output``,
            one that works there now, or a value out of its range.
        ModelError: weights or a configuration that cannot be used.
    """
    import torch

    from ksdiff_cli.files.names import Inputs
    from ksdiff_cli.models.backbones import takes_any_bands
    from ksdiff_cli.models.config import ModelConfig
    from ksdiff_cli.training.options import FINE_RATE
    from ksdiff_cli.training.parallel import join_team
    from ksdiff_cli.training.presets import apply, configure
    from ksdiff_cli.training.stages import (
        TrainingOptions,
        check_output,
        choose_bands,
        hold_run,
        is_done,
        open_data,
        train_stage,
    )
    from ksdiff_cli.training.tensorboard import TensorBoard

    check_choice("stage", str(stage), Stages)
    check_number("threads", threads, 1, whole=True, optional=True)
    if steps is not None and epochs is not None:
        raise KsdiffError("give steps or epochs, not both; epochs are passes over the patches")
    if threads:
        torch.set_num_threads(usable_threads(threads) or threads)
    paths = tuple(map(Path, data)) or (Path("patches"),)
    named = tuple(map(Path, valid))
    files, beside = open_data(paths, named)
    network = config or ModelConfig()
    found = apply(preset, settings, network)
    network = configure(network, found, files)
    universal = universal or (isinstance(network, ModelConfig) and takes_any_bands(network.backbone))
    own: dict[str, object] = {
        "time_limit": time_limit,
        "batch": batch,
        "accumulate": accumulate,
        "precision": precision,
        "rate": FINE_RATE if fine_tune and rate is None else rate,
        "recipe": recipe,
        "warm_up": warm_up,
        "validate_every": validate_every,
        "seed": seed,
    }
    chosen = dict(found.training) | {name: value for name, value in own.items() if value is not None}
    passes = chosen.pop("epochs", None)
    if steps is not None or epochs is not None:
        chosen["steps"], passes = TrainingOptions.steps if steps is None else steps, epochs
    check_number("epochs", passes, 1, whole=True, optional=True)
    options = TrainingOptions(
        data=paths,
        valid=named,
        run=Path(output),
        cache=None if cache is None else Path(cache),
        init=_weights("shipped" if fine_tune and init is None else init),
        fine_tune=fine_tune,
        config=replace(network, bands=choose_bands(files, universal)),
        **chosen,
    )
    inputs = Inputs([*(file.path for file in (*files, *beside)), *([options.init] if options.init else [])])
    if passes is not None:
        options = replace(options, steps=_steps_of(passes, files, options.config.bands, options.batch))
    board = TensorBoard(Path(output)) if tensorboard else None
    listeners = [each for each in (board, on_step) if each is not None]
    with join_team(device) as team, hold_run(Path(output), team), closing(board) if board else nullcontext():
        options = replace(options, device=str(team.device))
        numbers: dict[str, tuple[Stage, ...]] = {"1": (1,), "2": (2,), "all": (1, 2)}
        stages = numbers[str(stage)] if isinstance(options.config, ModelConfig) else (1,)
        stages = (2,) if fine_tune else stages
        for number in stages:
            check_output(options, number, inputs, resume=resume, overwrite=overwrite)
        made = []
        for number in stages:
            name = options.name(number)
            if resume and is_done(options, number):
                note(f"{name} is done")
                made.append(options.file(number))
                continue

            def report(done: int, total: int, note: str = "", name: str = name) -> None:
                progress(done, total, f"{name}, {note}")

            made.append(train_stage(options, number, report, note, team, listeners=listeners))
    return made


def _steps_of(epochs: int, files: "Sequence[PatchFile]", bands: int | None, batch: int) -> int:
    """Return the steps of so many passes over the patches; over image-band pairs where all bands share a network."""
    passed = sum(len(file) * (file.bands if bands is None else 1) for file in files)
    return -(-epochs * passed // batch)


def evaluate(
    *data: Name,
    methods: Sequence[str] = (),
    checkpoints: Sequence[Name] = (),
    protocol: "Protocol" = "reduced",
    crop: "CropName" = "full",
    sensor: "str | Sensor | None" = None,
    prior: "Prior" = "own",
    scaling: "Scaling" = "image",
    draws: int = 1,
    csv: Name | None = None,
    latents: Name | None = None,
    report: Name | None = None,
    command: str = "ksdiff_cli.evaluate",
    overwrite: bool = False,
    device: str = "auto",
    seed: int = 0,
    progress: ProgressCallback = silent,
) -> "Evaluation":
    """Compare methods over the images of patch files: quality, and time per image; ``ksdiff evaluate``.

    Args:
        data: files of :func:`prepare_patches` or PanCollection; a folder stands for its test.h5 (full: its full.h5).
        methods: by name; () takes all.
        checkpoints: weights to compare; () takes the shipped ones, as ``ksdiff``.
        protocol: ``reduced`` (against gt) or ``full`` (against PAN and MS).
        crop: reduced protocol: leave out a border of 21 or 30 pixels, as the literature does.
        sensor: a sensor, its name or its file; None takes what the files say.
        prior: what networks get as z: their ``own``, another image's (``shuffled``), the mean of the others of their
            file (``mean``), ``zero``, or the truth's (``true``, for stage 1's weights).
        scaling: what networks standardise by: each ``image`` by itself, as ``sharpen`` would were it the whole scene,
            or the ``scene`` that the file states for it (all images of a file that states none).
        draws: of z_T; from 2 on the result has the standard deviation over draws, of networks that use their own z.
        csv: file for every method's values, one row an image.
        latents: file for the z of every image: a picture (.png), which the report shows too, or the values (.npz).
        report: HTML page to write, with table, pictures and error maps.
        command: what the page says it was made by.
        overwrite: replace these files.
        device: where networks run.
        seed: of networks' random numbers.
        progress: told after every image and method.

    Returns:
        Values by method and image: ``result.methods["gsa"].mean("ERGAS")``, ``result.to_dict()``.

    Raises:
        KsdiffError: no data, no such file, method, protocol, crop or prior, or images that do not suit the protocol.
        ModelError: weights that cannot be used, or do not fit the images.
    """
    from ksdiff_cli.evaluation.cases import Protocol, Scaling, open_files
    from ksdiff_cli.evaluation.compare import evaluate_files, make_fusers
    from ksdiff_cli.evaluation.latents import SUFFIXES
    from ksdiff_cli.evaluation.prior import Prior
    from ksdiff_cli.evaluation.results import write_csv
    from ksdiff_cli.files.content import identify
    from ksdiff_cli.files.names import Inputs, check_place
    from ksdiff_cli.files.workdir import Claim
    from ksdiff_cli.metrics import CropName
    from ksdiff_cli.report import check_report, write_report
    from ksdiff_cli.sensors import find_sensor

    if not data:
        raise KsdiffError("no data: name patch files, or folders that prepare-data made")
    check_choice("protocol", protocol, Protocol)
    check_choice("crop", crop, CropName)
    check_choice("prior", prior, Prior)
    check_choice("scaling", scaling, Scaling)
    check_seed(seed)
    check_number("draws", draws, 1, whole=True)
    if draws > 1 and prior != "own":
        raise KsdiffError("draws of z_T go with the networks' own prior: leave --prior or --draws out")
    files = open_files([Path(path) for path in data], protocol)
    reads = [sensor] if isinstance(sensor, str) else []
    inputs = Inputs([*(file.path for file in files), *map(str, checkpoints), *reads])
    pages = [Path(path) for path in (csv, latents, report) if path is not None]
    options = [*methods, protocol, crop, sensor, prior, seed, scaling, draws]
    facts = json.dumps([[str(option) for option in options], identify(inputs.files)])
    claim = Claim(pages[0].with_name(f".{pages[0].name}.begun"), facts) if len(pages) > 1 else None
    claimed = {page: overwrite or (claim is not None and claim.owns(page)) for page in pages}
    if report is not None:
        check_report(Path(report), claimed[Path(report)], inputs)
    for path in (csv, latents):
        if path is not None:
            check_place(Path(path), inputs, claimed[Path(path)])
    if latents is not None and Path(latents).suffix.lower() not in SUFFIXES:
        raise KsdiffError(f"{latents}: latents are a picture or arrays; let the name end in {' or '.join(SUFFIXES)}")
    if len({page.resolve() for page in pages}) < len(pages):
        raise KsdiffError(f"{pages[0]}: cannot hold two outputs; name a file for each")
    known = find_sensor(sensor) if isinstance(sensor, str) else sensor
    fusers = make_fusers(list(methods), [Path(path) for path in checkpoints], device, seed, prior)
    found = evaluate_files(
        files,
        fusers,
        progress,
        protocol=protocol,
        sensor=known,
        crop=crop,
        keep=0 if report is None else _EXAMPLES,
        prior=prior,
        scaling=scaling,
        draws=draws,
        latents=latents is not None,
    )
    with claim or nullcontext():
        if claim is not None:
            claim.make(*pages)
        if csv is not None:
            write_csv(found, Path(csv))
        if latents is not None and found.latents is not None:
            found.latents.save(Path(latents))
        if report is not None:
            write_report(found.to_report(command), Path(report), claimed[Path(report)])
        if claim is not None:
            claim.drop()
    return found
