"""Methods compared on bands that finer ones guide: each sharpens the whole scene and is measured band by band."""

import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from ksdiff_cli.errors import KsdiffError
from ksdiff_cli.evaluation.compare import make_fusers, run_and_write
from ksdiff_cli.evaluation.guided import measure_guided_scene
from ksdiff_cli.evaluation.results import Evaluation, MethodResult
from ksdiff_cli.files.names import Inputs
from ksdiff_cli.options.measuring import EvaluateOptions, MeasureOptions
from ksdiff_cli.options.sharpening import SharpenOptions
from ksdiff_cli.products import find_scene
from ksdiff_cli.products.guided import sort_files
from ksdiff_cli.progress import ProgressCallback, silent
from ksdiff_cli.raster.synthesis import GuidedScene
from ksdiff_cli.sensors import Sensor
from ksdiff_cli.sharpening.decoded import decode_once
from ksdiff_cli.sharpening.engine import sharpen_scene
from ksdiff_cli.sharpening.guided import choose_guided, prepare_guided

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
    return None


def compare_guided(
    scene: GuidedScene, options: EvaluateOptions, command: str, progress: ProgressCallback = silent
) -> Evaluation:
    """Sharpen a scene by every method and measure each band at full resolution; the bands are the images.

    Args:
        scene: the acquisition.
        options: the methods, and what is written. Outputs lie in a temporary folder meanwhile.
        command: what the page says it was made by.
        progress: told how far each part is.

    Raises:
        KsdiffError: the protocol is not ``full``, or something is asked for that goes with patch files; see
            :func:`ksdiff_cli.evaluation.guided.measure_guided`.
    """
    if options.protocol != "full":
        raise KsdiffError(
            f"{scene.name}: has no truth at full resolution; give --protocol full, or degrade its bands and compare "
            "with ksdiff metrics --reference"
        )
    if options.latents is not None or options.prior != "own" or options.draws > 1:
        raise KsdiffError("--latents, --prior and --draws go with patch files, not with bands that finer ones guide")
    reads = [options.sensor] if isinstance(options.sensor, str) else []
    inputs = Inputs([*scene.files(), *map(str, options.checkpoints), *reads])
    return run_and_write(inputs, options, command, lambda: _compare(scene, options, progress))


def _compare(scene: GuidedScene, options: EvaluateOptions, progress: ProgressCallback) -> Evaluation:
    fusers = make_fusers(list(options.methods), list(options.checkpoints), options.device, options.seed)
    how = SharpenOptions(registration="skip", with_guide=False, fidelity=False, resume=False)
    found = Evaluation("full", "full", [], {})
    notes: dict[str, None] = {}
    with tempfile.TemporaryDirectory(prefix="ksdiff-") as folder:
        out = Path(folder) / "out.tif"
        with decode_once(choose_guided(scene, how), out, how, progress) as fast:
            for name, fuser in fusers.items():
                begin = time.perf_counter()
                ready = prepare_guided(fast, fuser, how, progress=progress)
                sharpen_scene(ready.scene, out, ready.fuser, replace(how, overwrite=True), progress)
                seconds = time.perf_counter() - begin
                measured = measure_guided_scene(out, fast, MeasureOptions(), progress=progress)
                if not found.images:
                    found.images = [(f"{scene.name} {band}", 0) for band in measured.by_band]
                    found.names = list(measured.by_band)
                    found.facts = {
                        "protocol": "full resolution, each band by its own guide",
                        "data": scene.name,
                        "image": f"{measured.size[0]} x {measured.size[1]} px, {measured.bands} bands, one an image",
                        **{key: str(value) for key, value in measured.settings.items()},
                    }
                result = found.methods[name] = MethodResult()
                for figures in measured.by_band.values():
                    result.add({metric: figures[metric] for metric in measured.values}, seconds / measured.bands)
                notes |= dict.fromkeys([*ready.notes, *measured.notes])
    found.notes = list(notes)
    return found
