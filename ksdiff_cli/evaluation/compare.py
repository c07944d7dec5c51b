"""Comparing methods over the images of patch files: quality by reduced or full resolution metrics, time per image."""

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ksdiff_cli._version import __version__
from ksdiff_cli.classical import METHODS
from ksdiff_cli.errors import KsdiffError
from ksdiff_cli.evaluation.cases import SCALINGS, Case, Image, make_case, open_files
from ksdiff_cli.evaluation.latents import SUFFIXES, collect_latents
from ksdiff_cli.evaluation.prior import check_prior, gather_latents, name_with
from ksdiff_cli.evaluation.results import Evaluation, MethodResult, image_name, write_csv
from ksdiff_cli.files.content import identify
from ksdiff_cli.files.names import Inputs, check_place
from ksdiff_cli.files.workdir import Claim
from ksdiff_cli.fusers.base import Fuser
from ksdiff_cli.fusers.classical import Network, make_fuser
from ksdiff_cli.metrics import SOFTNESS, Shifts
from ksdiff_cli.numerics import Array
from ksdiff_cli.numerics.moments import SceneStatistics
from ksdiff_cli.options import keywords
from ksdiff_cli.options.measuring import EvaluateOptions, Prior
from ksdiff_cli.patches.dataset import PatchFile
from ksdiff_cli.progress import ProgressCallback, silent
from ksdiff_cli.raster.tiles import Tile
from ksdiff_cli.report import Example, check_report, rgb_bands, write_report
from ksdiff_cli.sensors import find_sensor

_EXAMPLES = 3  # images shown in a report; its pictures grow with them


def make_fusers(
    methods: list[str], checkpoints: list[Path], device: str, seed: int, prior: Prior = "own"
) -> dict[str, Fuser]:
    """Return the methods to compare, by the names in the table.

    Args:
        methods: by name; without any, all classical ones.
        checkpoints: own weights, named by their files; without any, the shipped weights run as ``ksdiff``.
        device: where networks run.
        seed: of networks' random numbers.
        prior: names networks by the z they will use, and takes stage 1's weights unless it is ``own``.

    Raises:
        KsdiffError: no such method or device, no weights, or weights that cannot have this prior.
        ModelError: weights that cannot be used.
    """
    names = list(dict.fromkeys(methods)) or list(METHODS)
    if not checkpoints and "ksdiff" not in names:
        names.append("ksdiff")
    fusers: dict[str, Fuser] = {}
    for name in names:
        fuser = make_fuser(name, None, device, seed)
        if name == "ksdiff":
            check_prior(fuser, None, prior)
        fusers[name_with(name, prior) if name == "ksdiff" else name] = fuser
    stems = [path.stem for path in checkpoints]
    for path in checkpoints:
        clear = stems.count(path.stem) == 1 and path.stem not in names
        fuser = Network(path, device, seed, stage1=prior != "own")
        check_prior(fuser, path, prior)
        fusers[name_with(path.stem if clear else str(path), prior)] = fuser
    return fusers


def evaluate(data: Sequence[Path], options: EvaluateOptions, command: str, progress: ProgressCallback) -> Evaluation:
    """Compare methods over patch files; see :func:`ksdiff_cli.evaluate`."""
    if not data:
        raise KsdiffError("no data: name patch files, or folders that prepare-data made")
    files = open_files(list(data), options.protocol)
    reads = [options.sensor] if isinstance(options.sensor, str) else []
    inputs = Inputs([*(file.path for file in files), *map(str, options.checkpoints), *reads])

    def run() -> Evaluation:
        fusers = make_fusers(
            list(options.methods), list(options.checkpoints), options.device, options.seed, options.prior
        )
        keep = 0 if options.report is None else _EXAMPLES
        return evaluate_files(files, fusers, progress, options=options, keep=keep)

    return run_and_write(inputs, options, command, run)


def run_and_write(inputs: Inputs, options: EvaluateOptions, command: str, run: Callable[[], Evaluation]) -> Evaluation:
    """Compare methods and write what is asked for of it, whose places are checked before.

    Args:
        inputs: what is read.
        options: what is written.
        command: what the page says it was made by.
        run: compares.

    Raises:
        KsdiffError: something cannot be written, or is there already.
    """
    claim, claimed = _claim(options, inputs)
    found = run()
    with claim or nullcontext():
        if claim is not None:
            claim.make(*claimed)
        if options.csv is not None:
            write_csv(found, options.csv)
        if options.latents is not None and found.latents is not None:
            found.latents.save(options.latents)
        if options.report is not None:
            write_report(found.to_report(command), options.report, claimed[options.report])
        if claim is not None:
            claim.drop()
    return found


def _claim(options: EvaluateOptions, inputs: Inputs) -> tuple[Claim | None, Mapping[Path, bool]]:
    """Check the places of what is to be written.

    Returns:
        The claim on them where they are several, and for each whether what is there may be replaced.
    """
    pages = [path for path in (options.csv, options.latents, options.report) if path is not None]
    crop = options.crop or "full"
    how = [*options.methods, options.protocol, crop, options.sensor, options.prior, options.seed, options.scaling]
    facts = json.dumps([[str(one) for one in (*how, options.draws)], identify(inputs.files)])
    claim = Claim(pages[0].with_name(f".{pages[0].name}.begun"), facts) if len(pages) > 1 else None
    claimed = {page: options.overwrite or (claim is not None and claim.owns(page)) for page in pages}
    if options.report is not None:
        check_report(options.report, claimed[options.report], inputs)
    for path in (options.csv, options.latents):
        if path is not None:
            check_place(path, inputs, claimed[path])
    if options.latents is not None and options.latents.suffix.lower() not in SUFFIXES:
        known = " or ".join(SUFFIXES)
        raise KsdiffError(f"{options.latents}: latents are a picture or arrays; let the name end in {known}")
    if len({page.resolve() for page in pages}) < len(pages):
        raise KsdiffError(f"{pages[0]}: cannot hold two outputs; name a file for each")
    return claim, claimed


@keywords(EvaluateOptions)
def evaluate_files(
    files: Sequence[PatchFile],
    fusers: Mapping[str, Fuser],
    progress: ProgressCallback = silent,
    *,
    options: EvaluateOptions,
    keep: int = 0,
) -> Evaluation:
    """Fuse every image by every method and measure it.

    A method that cannot take a file's bands, ratio or sensor is refused before a pixel is read. Classical methods draw
    their coefficients from each image alone, as the reference does, with its filters on files of its geometry; networks
    take each image for a scene of its own too, so that no figure depends on which other images lie in a file.

    Args:
        files: with ground truth for the reduced protocol.
        fusers: by name.
        progress: told after every image and method.
        options: how. Unless ``prior`` is ``own``, the time per image leaves out how z is made; of several ``draws`` the
            values are those of the first.
        keep: number of images, spread over all, whose pixels are kept as examples.

    Returns:
        Values by method and image, all metrics of :data:`ksdiff_cli.metrics.REDUCED` or, at full resolution, those of
        :func:`ksdiff_cli.metrics.measure_full`.

    Raises:
        KsdiffError: values that are not finite; see above.
        ModelError: see above.
    """
    for file in files:
        for fuser in fusers.values():
            fuser.check(file.bands, file.ratio)
    protocol, crop, sensor = options.protocol, options.crop or "full", options.sensor
    known = find_sensor(sensor) if isinstance(sensor, str) else sensor
    cases = [make_case(file, protocol, known, crop, options.scaling) for file in files]
    images = [(str(case.file.path), index) for case in cases for index in range(len(case.file))]
    outcome = Evaluation(protocol, crop, images, {name: MethodResult() for name in fusers})
    outcome.facts = _facts(cases, fusers)
    notes: dict[str, None] = dict.fromkeys(note for case in cases for note in case.notes)
    notes |= {SOFTNESS: None} if protocol == "full" else {}
    if options.latents is not None:
        outcome.latents = collect_latents(fusers, cases)
    bound = _bind_all(cases, fusers, options.prior, notes)
    kept = set(np.linspace(0, len(images) - 1, min(keep, len(images))).round().astype(int).tolist())
    number = 0
    for case, steps in zip(cases, bound, strict=True):
        for index in range(len(case.file)):
            image = case.image(index)
            shifts = case.shifts(image)
            if shifts is not None:
                outcome.shifts.append(shifts)
                notes |= {f"{image_name(str(case.file.path), index)}: {note}": None for note in shifts.notes()}
            pictures: dict[str, Array] = {}
            for name, fuse in steps.items():
                if index == 0:  # the first call pays for memory and for choosing algorithms
                    fuse(image)
                begin = time.perf_counter()
                fused = fuse(image)
                seconds = time.perf_counter() - begin
                values, remarks = case.measure(image, fused, shifts)
                outcome.methods[name].add(values, seconds)
                notes |= dict.fromkeys(remarks)
                for draw, other in enumerate(_draw(fusers[name], fuse, image, fused, options.draws)):
                    outcome.methods[name].add_draw(draw, case.measure(image, other, shifts)[0])
                if number in kept:
                    pictures[name] = fused.astype(np.float32)
                progress(sum(len(each.seconds) for each in outcome.methods.values()), len(images) * len(fusers), name)
            if number in kept:
                outcome.examples.append(_example(case, index, image, shifts, pictures))
            number += 1
    notes |= dict.fromkeys(note for fuser in fusers.values() for note in fuser.notes())
    outcome.notes = list(notes)
    return outcome


def _draw(fuser: Fuser, fuse: Callable[[Image], Array], image: Image, first: Array, draws: int) -> Iterator[Array]:
    """Fuse an image with further draws of z_T; nothing of what draws none."""
    if draws == 1 or not isinstance(fuser, Network):
        return
    try:
        for number in range(1, draws):
            fuser.draw(number)
            fused = fuse(image)
            if number == 1 and np.array_equal(fused, first):
                return
            yield fused
    finally:
        fuser.draw(0)


def _facts(cases: Sequence[Case], fusers: Mapping[str, Fuser]) -> dict[str, str]:
    """Say what the figures depend on: data, geometry, sensor, weights and versions."""

    def each(values: list[str]) -> str:
        return "; ".join(dict.fromkeys(values))

    weights = [
        f"{name} {fuser.provenance()['WEIGHTS']}" for name, fuser in fusers.items() if "WEIGHTS" in fuser.provenance()
    ]
    facts = {
        "protocol": f"{cases[0].protocol} resolution",
        "crop": cases[0].crop,
        "data": each([f"{case.file.path} ({len(case.file)} images)" for case in cases]),
        "image": each([f"{case.shape[1]} x {case.shape[0]} px, {case.file.bands} bands" for case in cases]),
        "ratio": each([f"{case.file.ratio}" for case in cases]),
        "geometry": each([case.file.geometry for case in cases]),
        "sensor": each([case.sensor.name for case in cases]),
        "MTF gains": each([f"MS {_gains(case.sensor.mtf_ms)}, PAN {case.sensor.mtf_pan:g}" for case in cases]),
        "networks standardise by": SCALINGS[cases[0].scaling],
        "peak": each([f"{case.settings.peak:g}" for case in cases]),
        "SAM": each([f"of {case.quantity}" for case in cases]),
        "weights": ", ".join(weights),
        "versions": f"ksdiff {__version__}, numpy {np.__version__}",
    }
    if cases[0].protocol == "full":
        del facts["crop"], facts["peak"]
    return {name: value for name, value in facts.items() if value}


def _gains(values: tuple[float, ...]) -> str:
    return " ".join(f"{value:g}" for value in (values[:1] if len(set(values)) == 1 else values))


def _example(case: Case, index: int, image: Image, shifts: Shifts | None, pictures: dict[str, Array]) -> Example:
    return Example(
        name=image_name(str(case.file.path), index),
        note="" if shifts is None else f"MS lies {shifts} PAN pixels (rows, columns) off PAN",
        fused=pictures,
        pan=image.tile.pan[0],
        ms_up=image.tile.ms_up,
        truth=image.gt,
        bands=rgb_bands(case.file.bands, case.sensor.bands),
    )


def _bind_all(
    cases: Sequence[Case], fusers: Mapping[str, Fuser], prior: Prior, notes: dict[str, None]
) -> list[dict[str, Callable[[Image], Array]]]:
    """Return each method's way to fuse an image of each case, with the z that it is to use."""
    bound = [_bind(case, fusers, notes) for case in cases]
    for name, latents in gather_latents(fusers, cases, prior).items():
        for case, steps, own in zip(cases, bound, latents, strict=True):
            steps[name] = partial(_fuse_with, fusers[name], case, own)
    return bound


def _bind(case: Case, fusers: Mapping[str, Fuser], notes: dict[str, None]) -> dict[str, Callable[[Image], Array]]:
    """Return each method's way to fuse an image of a case, by name."""
    steps: dict[str, Callable[[Image], Array]] = {}
    file = case.file
    for name, fuser in fusers.items():
        steps[name] = partial(
            _fuse, fuser.for_images(case.sensor, file.bands, file.ratio, file.geometry, case.sharpness)
        )
        if fuser.uses_mtf and case.sensor == find_sensor(None):
            notes[f"{file.path}: names no known sensor; classical methods use generic MTF gains"] = None
    return steps


def _fuse(fuse: Callable[[Tile, SceneStatistics], Array], image: Image) -> Array:
    return fuse(image.tile, image.scene)


def _fuse_with(network: Any, case: Case, latents: Sequence[Any], image: Image) -> Array:
    network.observe(image.tile, case.sensor.mtf_ms, case.sharpness)
    fused: Array = network.fuse_image(image.tile, image.scene, case.file.ratio, latents[image.index])
    return fused
