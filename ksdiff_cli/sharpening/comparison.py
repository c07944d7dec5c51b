"""Bands that finer ones guide, measured: methods compared on a scene, or a raster that is there."""

import tempfile
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ksdiff_cli.errors import KsdiffError
from ksdiff_cli.evaluation.compare import make_fusers, run_and_write
from ksdiff_cli.evaluation.guided import find_measured, measure_guided
from ksdiff_cli.evaluation.measure import measure_against_reference
from ksdiff_cli.evaluation.measured import Measurement
from ksdiff_cli.evaluation.reduced import TooSmallError, reduce_group
from ksdiff_cli.evaluation.results import Evaluation, MethodResult
from ksdiff_cli.files.names import Inputs
from ksdiff_cli.fusers.base import Fuser
from ksdiff_cli.options import keywords
from ksdiff_cli.options.measuring import EvaluateOptions, MeasureOptions
from ksdiff_cli.options.sharpening import SharpenOptions
from ksdiff_cli.products import find_scene
from ksdiff_cli.products.guided import sort_files
from ksdiff_cli.progress import ProgressCallback, silent
from ksdiff_cli.raster.open import open_raster
from ksdiff_cli.raster.synthesis import Group, GuidedScene
from ksdiff_cli.report import Example
from ksdiff_cli.sensors import Sensor
from ksdiff_cli.sharpening.decoded import decode_once
from ksdiff_cli.sharpening.engine import sharpen_scene
from ksdiff_cli.sharpening.guided import choose_guided, prepare_guided

_HOW = SharpenOptions(registration="skip", with_guide=False, fidelity=False, resume=False)
_SHOWN = 2  # pictures of each image: all of it, and a window
_PATCHES = (".h5", ".hdf5", ".mat")


def find_guided(data: Sequence[Path], sensor: str | Sensor | None = None) -> GuidedScene | None:
    """Return the scene that a person named to compare on; None where these are patch files, or nothing of the kind."""
    if not data or any(path.name.lower().endswith(_PATCHES) for path in data):
        return None
    if any((path / name).exists() for path in data for name in ("test.h5", "full.h5")):
        return None
    names, own = [str(path) for path in data], sensor if isinstance(sensor, str) else None
    with suppress(KsdiffError):  # as patch files, they are refused
        found = find_scene(names, own) if len(names) == 1 else sort_files((), names, own)
        return found if isinstance(found, GuidedScene) else None
    if missing := next((name for name in names if not Path(name).exists()), None):
        raise KsdiffError(f"{missing}: no such file; check the path")
    if image := next((name for name in names if _is_image(name)), None):
        raise KsdiffError(
            f"{image}: is an image; name bands of several resolutions, or patches, which prepare-data makes of scenes"
        )
    return None


def _is_image(name: str) -> bool:
    """Say whether a file is a raster rather than patches, which GDAL may open too."""
    if not Path(name).is_file() or Path(name).suffix.lower() in _PATCHES:
        return False
    with suppress(KsdiffError), open_raster(name):
        return True
    return False


def compare_guided(
    scene: GuidedScene, options: EvaluateOptions, command: str, progress: ProgressCallback = silent
) -> Evaluation:
    """Sharpen a scene by every method and measure the results.

    At full resolution each band is an image, measured by its own guide. At reduced resolution each group of bands is
    one: it and what guides it are looked at one scale below, and the bands as delivered are the truth.

    Args:
        scene: the acquisition.
        options: the methods, and what is written. Outputs lie in a temporary folder meanwhile.
        command: what the page says it was made by.
        progress: told how far each part is.

    Raises:
        KsdiffError: something is asked for that goes with patch files; see
            :func:`ksdiff_cli.evaluation.guided.measure_guided` and
            :func:`ksdiff_cli.evaluation.reduced.reduce_group`.
    """
    if options.latents is not None or options.prior != "own" or options.draws > 1:
        raise KsdiffError(
            "--latents, --prior and --draws go with patch files, not with bands that finer ones guide; leave them out"
        )
    reads = [options.sensor] if isinstance(options.sensor, str) else []
    inputs = Inputs([*scene.files(), *map(str, options.checkpoints), *reads])
    return run_and_write(inputs, options, command, lambda: _compare(scene, options, progress))


def _compare(scene: GuidedScene, options: EvaluateOptions, progress: ProgressCallback) -> Evaluation:
    fusers = make_fusers(list(options.methods), list(options.checkpoints), options.device, options.seed)
    found = Evaluation(options.protocol, options.crop or "full", [], {name: MethodResult() for name in fusers})
    notes: dict[str, None] = {}
    with tempfile.TemporaryDirectory(prefix="ksdiff-") as name:
        folder = Path(name)
        with _decoded(choose_guided(scene, _HOW), folder, progress) as fast:
            if options.protocol == "full":
                found.of, parts = "band", [_Part("", fast, MeasureOptions(), options.report is not None)]
            else:
                found.of, parts = "group", _reduce_all(fast, folder, options, notes, progress)
            for part in parts:
                shown: list[Example] = []
                for method, fuser in fusers.items():
                    measured, seconds, said = part.sharpen(fuser, folder / "out.tif", progress)
                    images = measured.by_band or {part.name: measured.values}
                    for figures in images.values():
                        values = {metric: figures[metric] for metric in measured.values}
                        found.methods[method].add(values, seconds / len(images))
                    notes |= dict.fromkeys(part.tell([*said, *measured.notes]))
                    shown = _put_beside(shown, method, measured.examples[:_SHOWN])
                found.names += images
                name = part.name or scene.name
                found.examples += [replace(one, name=one.name.replace("out.tif", name)) for one in shown]
                found.facts |= _facts(scene, measured)
    found.images = [(f"{scene.name} {name}", 0) for name in found.names]
    found.notes = list(notes)
    return found


@keywords(MeasureOptions)
def measure_guided_raster(
    fused: Path, *, options: MeasureOptions, pictures: bool = False, progress: ProgressCallback = silent
) -> Measurement:
    """Find what a raster was made from and measure it, see :mod:`ksdiff_cli.evaluation.guided`."""
    scene = find_measured(fused, options)
    with tempfile.TemporaryDirectory(prefix="ksdiff-") as folder, _decoded(scene, Path(folder), progress) as fast:
        return measure_guided(fused, fast, options, pictures=pictures, progress=progress)


def _decoded(scene: GuidedScene, folder: Path, progress: ProgressCallback) -> AbstractContextManager[GuidedScene]:
    """Decode a scene's JPEG 2000 files once; otherwise each is decoded for every block of every band."""
    return decode_once(scene, folder / "out.tif", _HOW, progress, "set TMPDIR to a folder that has it")


@dataclass(frozen=True)
class _Part:
    """What is sharpened at once."""

    name: str
    scene: GuidedScene
    against: MeasureOptions
    pictures: bool
    truth: Path | None = None

    def sharpen(self, fuser: Fuser, out: Path, progress: ProgressCallback) -> tuple[Measurement, float, Sequence[str]]:
        """Sharpen it; return the figures, seconds, and what is to be said."""
        begin = time.perf_counter()
        ready = prepare_guided(self.scene, fuser, _HOW, progress=progress)
        sharpen_scene(ready.scene, out, ready.fuser, replace(_HOW, overwrite=True), progress)
        seconds = time.perf_counter() - begin
        pictures, against = self.pictures, self.against
        if self.truth is None:
            found = measure_guided(out, self.scene, against, pictures=pictures, progress=progress)
        else:
            found = measure_against_reference(out, self.truth, options=against, pictures=pictures, progress=progress)
        return found, seconds, ready.notes

    def tell(self, notes: Sequence[str]) -> list[str]:
        """Return notes that say which part they are of."""
        return [f"{self.name}: {note}" if self.name else note for note in notes]


def _reduce_all(
    scene: GuidedScene, folder: Path, options: EvaluateOptions, notes: dict[str, None], progress: ProgressCallback
) -> list[_Part]:
    """Look at every group one scale below; one that is too small for it is left out with a note, unless all are."""
    parts: list[_Part] = []
    refused: list[TooSmallError] = []
    for group in scene.groups:
        try:
            parts.append(_reduce(scene, group, folder, options, progress))
        except TooSmallError as error:
            refused.append(error)
    if not parts:
        raise refused[0]
    notes |= dict.fromkeys(f"left out: {error}" for error in refused)
    return parts


def _reduce(
    scene: GuidedScene, group: Group, folder: Path, options: EvaluateOptions, progress: ProgressCallback
) -> _Part:
    below = reduce_group(scene, group, folder / f"group{scene.groups.index(group)}", progress)
    own, against = choose_guided(below.scene, _HOW), MeasureOptions(ratio=below.ratio, crop=options.crop or "full")
    return _Part(group.name, own, against, options.report is not None, below.truth)


def _put_beside(shown: Sequence[Example], method: str, more: Sequence[Example]) -> list[Example]:
    """Return the pictures of places with those of one more method beside the others'."""
    own = {one.name: next(iter(one.fused.values())).astype(np.float32) for one in more}
    if not shown:
        return [replace(one, fused={method: own[one.name]}) for one in more]
    return [replace(one, fused={**one.fused, method: own[one.name]}) for one in shown if one.name in own]


def _facts(scene: GuidedScene, measured: Measurement) -> dict[str, str]:
    """Say what the figures depend on."""
    size = f"{measured.size[0]} x {measured.size[1]} px, {measured.bands} bands"
    if measured.by_band:
        return {
            "protocol": "full resolution, each band by its own guide",
            "data": scene.name,
            "image": f"{size}, one an image",
            **{key: str(value) for key, value in measured.settings.items()},
        }
    return {
        "protocol": "reduced resolution, bands and what guides them one scale below by their MTF",
        "data": scene.name,
        f"image at ratio {measured.ratio:g}": size,
    }
