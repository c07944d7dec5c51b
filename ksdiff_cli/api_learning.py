"""The Python functions for learning: patches from scenes, weights from patches, methods compared on patches.

See :mod:`ksdiff_cli.api`.
"""

import json
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

from ksdiff_cli.checks import check_choice, check_number, check_seed
from ksdiff_cli.errors import KsdiffError
from ksdiff_cli.options import keywords
from ksdiff_cli.options.patches import PatchOptions
from ksdiff_cli.options.training import TrainOptions
from ksdiff_cli.progress import ProgressCallback, silent

if TYPE_CHECKING:
    from ksdiff_cli.evaluation.cases import Protocol, Scaling
    from ksdiff_cli.evaluation.prior import Prior
    from ksdiff_cli.evaluation.results import Evaluation
    from ksdiff_cli.metrics import CropName
    from ksdiff_cli.models.config import ModelConfig
    from ksdiff_cli.models.peers.pixel_diffusion import PixelConfig
    from ksdiff_cli.patches.prepare import Prepared
    from ksdiff_cli.sensors import Sensor
    from ksdiff_cli.training.log import StepCallback

_EXAMPLES = 3  # images shown in a report; its pictures grow with them

Name = str | PathLike[str]
Note = Callable[[str], None]
"""Takes a line that a person should read."""


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


@keywords(TrainOptions)
def train(
    *data: Name,
    config: "ModelConfig | PixelConfig | None" = None,
    options: TrainOptions,
    on_step: "StepCallback | None" = None,
    progress: ProgressCallback = silent,
    note: Note = _drop,
) -> list[Path]:
    """Train KSDiff on patches, one stage or both; ``ksdiff train``. Needs torch and h5py, no rasterio.

    Args:
        data: folders made by :func:`prepare_patches`, folders of such folders, or PanCollection's ``train_*.h5``; none
            stands for ``options.data``.
        config: the network that settings and options change; its ``bands`` are replaced by those of the data. None
            takes the defaults of ``options.model``.
        options: how; ``stage`` may be a number. Its ``settings`` are values by name, ``{"width": 64, "network.steps":
            1000}``, of the network's configuration and of :class:`~ksdiff_cli.training.settings.RunSettings`; options
            of their own count over them.
        on_step: called after every optimiser step with its :class:`~ksdiff_cli.training.log.TrainingStep`; what it
            raises ends the run, which ``resume`` takes up again.
        progress: told every step, with stage and loss.
        note: called with lines for people, among them validations.

    Returns:
        The checkpoints, in the order of the stages.

    Raises:
        KsdiffError: nothing to train on, data that do not fit, no stage 1 for stage 2, an earlier run in ``output``,
            one that works there now, or a value out of its range.
        ModelError: weights or a configuration that cannot be used.
    """
    from ksdiff_cli.training import workflow

    options = replace(options, data=tuple(map(Path, data))) if data else options
    return workflow.train(options, config, on_step, progress, note)


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
