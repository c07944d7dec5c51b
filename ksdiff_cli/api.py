"""The Python functions: one a task, the same work as the command of that name, without its printing.

Imported as ``from ksdiff_cli import sharpen_scene, sharpen_array, prepare_patches, train, evaluate, measure``; nothing
heavy is loaded before one of them is called. Every function refuses bad input with a :class:`ksdiff_cli.KsdiffError`
(weights that do not fit with a :class:`ksdiff_cli.models.contract.ModelError`) whose message is one line for people.

Metrics on arrays are not here: ``from ksdiff_cli import metrics`` is the package of them, with ``metrics.sam(truth,
fused)``, ``metrics.measure_reduced`` and the others; a package that could be called as well would be two things under
one name. :func:`measure` is what the command ``ksdiff metrics`` does with files.
"""

from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ksdiff_cli.options import keywords
from ksdiff_cli.options.measuring import EvaluateOptions, MeasureOptions
from ksdiff_cli.options.patches import PatchOptions
from ksdiff_cli.options.sharpening import ArrayOptions, SharpenOptions
from ksdiff_cli.options.training import TrainOptions
from ksdiff_cli.progress import Note, ProgressCallback, drop, silent

if TYPE_CHECKING:
    from ksdiff_cli.evaluation.measured import Measurement
    from ksdiff_cli.evaluation.results import Evaluation
    from ksdiff_cli.models.config import ModelConfig
    from ksdiff_cli.models.peers.pixel_diffusion import PixelConfig
    from ksdiff_cli.patches.prepare import Prepared
    from ksdiff_cli.sharpening.engine import Sharpened
    from ksdiff_cli.training.log import StepCallback

Name = str | PathLike[str]
"""A path; where it says so also anything else that GDAL opens, such as ``https://…`` or ``s3://…``."""


@keywords(SharpenOptions)
def sharpen_scene(
    *inputs: Name, output: Name, options: SharpenOptions, progress: ProgressCallback = silent
) -> "Sharpened":
    """Sharpen a scene into a GeoTIFF on PAN's grid, window by window in bounded memory; ``ksdiff sharpen``.

    Args:
        inputs: PAN, then MS (one file, or several whose bands follow each other); bands of several resolutions, of
            which the finest guide the others; or one scene: a product's folder, archive or metadata file. Anything
            GDAL opens.
        output: raster to write, ``.tif`` (``.vrt`` for ``format="VRT"``).
        options: how.
        progress: told how far it is.

    Returns:
        What was made: path, shape (height, width), bands, dtype, nodata, notes and the seam score.

    Raises:
        KsdiffError: inputs that cannot be read or do not fit each other, an output that cannot be written, a value out
            of its range, or what only ``ksdiff`` has a use for with another method.
        ModelError: weights that cannot be used, or do not fit the scene.
    """
    from ksdiff_cli.sharpening.workflow import sharpen

    return sharpen([str(name) for name in inputs], Path(output), options, progress)


@keywords(ArrayOptions)
def sharpen_array(
    pan: Any,
    ms: Any,
    *,
    valid: Any = None,
    options: ArrayOptions,
    progress: ProgressCallback = silent,
    note: Note = drop,
) -> Any:
    """Sharpen arrays: the same pixels as :func:`sharpen_scene` makes of the same values in files, without files.

    NumPy arrays lie on each other by their upper left corners, and their sizes give the ratio; what a masked array
    (``rasterio``'s ``read(masked=True)``) masks, in PAN or in any band of MS, is invalid. Of two xarray DataArrays
    rioxarray's georeference counts (``pip install "ksdiff[xarray]"``): offsets, other extents and any ratio are
    honoured, and the result, on PAN's grid over the common area, carries CRS, transform and nodata.

    Args:
        pan: (H, W) or (1, H, W), DN of an integer or float type.
        ms: (bands, h, w), DN, any number of bands; both arrays or both DataArrays.
        valid: (H, W) or (h, w) bool, on PAN's or on MS's grid; False where pixels hold no data. None: all do, but what
            is masked, ``nodata`` and, in float arrays, NaN; these are invalid whatever it says.
        options: how; ``memory`` is what the engine may take besides the arrays, the inputs are copied once.
        progress: told how far it is.
        note: called with lines for people, such as a shift between PAN and MS.

    Returns:
        (bands, H, W) of MS's data type, rounded half to even and clipped to it; invalid pixels hold nodata, and valid
        ones never do. A DataArray if DataArrays were given, never a masked array.

    Raises:
        KsdiffError: shapes, types or grids that do not fit, nothing valid, MS shifted against PAN by over one pixel, a
            value out of its range, or a checkpoint for another method than ``ksdiff``.
        ModelError: weights that cannot be used, or do not fit the bands.
    """
    from ksdiff_cli.sharpening.arrays import sharpen_arrays

    return sharpen_arrays(pan, ms, valid, options, progress, note)


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
    note: Note = drop,
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
    from ksdiff_cli.training import stages

    options = replace(options, data=tuple(map(Path, data))) if data else options
    return stages.train(options, config, on_step, progress, note)


@keywords(EvaluateOptions)
def evaluate(
    *data: Name, options: EvaluateOptions, command: str = "ksdiff_cli.evaluate", progress: ProgressCallback = silent
) -> "Evaluation":
    """Compare methods over the images of patch files: quality, and time per image; ``ksdiff evaluate``.

    Args:
        data: files of :func:`prepare_patches` or PanCollection; a folder stands for its test.h5 (full: its full.h5).
            Or bands of several resolutions, or a product whose finer bands guide the others: one scale below each
            resolution is an image, at full resolution each band, measured by its own guide.
        options: how, and what is written.
        command: what the page says it was made by.
        progress: told after every image and method.

    Returns:
        Values by method and image: ``result.methods["gsa"].mean("ERGAS")``, ``result.to_dict()``.

    Raises:
        KsdiffError: no data, no such file, method, protocol, crop or prior, or images that do not suit the protocol.
        ModelError: weights that cannot be used, or do not fit the images.
    """
    from ksdiff_cli.evaluation import compare
    from ksdiff_cli.sharpening.comparison import compare_guided, find_guided

    paths = [Path(path) for path in data]
    if (scene := find_guided(paths, options.sensor)) is not None:
        return compare_guided(scene, options, command, progress)
    return compare.evaluate(paths, options, command, progress)


@keywords(MeasureOptions)
def measure(
    fused: Name,
    *,
    options: MeasureOptions,
    command: str = "ksdiff_cli.measure",
    progress: ProgressCallback = silent,
) -> "Measurement":
    """Measure a sharpened raster, block by block, against a reference or what it was made from; ``ksdiff metrics``.

    For arrays see :mod:`ksdiff_cli.metrics`.

    Args:
        fused: the raster to judge.
        options: against what; either ``reference``, or ``pan`` and ``ms``, or ``guide``.
        command: what the page says it was made by.
        progress: told the blocks done.

    Returns:
        The figures: ``result.values["SAM"]``, ``result.notes``, ``result.to_dict()``.

    Raises:
        KsdiffError: not exactly one of reference, PAN with MS, and guide; files that cannot be read or do not fit; no
            such ratio or crop.
    """
    from ksdiff_cli.errors import KsdiffError
    from ksdiff_cli.evaluation.maps import map_claim
    from ksdiff_cli.evaluation.measure import measure_against_reference, measure_at_full_resolution
    from ksdiff_cli.products.scene_files import find_inputs
    from ksdiff_cli.report import check_report, write_report
    from ksdiff_cli.view import is_installed, view_command

    reference, pan, ms = options.reference, options.pan, options.ms
    names = fused, reference, pan, ms, *options.guide, options.sensor
    page, claim = options.report, None if options.maps is None else map_claim(options.maps)
    if page is not None:
        reads = find_inputs(str(name) for name in names if name is not None)
        check_report(page, claimed := options.overwrite or (claim is not None and claim.names(page)), reads)
    more: dict[str, Any] = {"options": options, "pictures": page is not None, "progress": progress}
    if options.guide and reference is None and pan is None:
        from ksdiff_cli.sharpening.comparison import measure_guided_raster  # which loads PyTorch

        inputs = {f"guide {number}": Path(name) for number, name in enumerate(options.guide, start=1)}
        inputs |= {"MS": ms} if ms is not None else {}
        found = measure_guided_raster(Path(fused), **more)
    elif reference is not None and pan is None and ms is None and not options.guide:
        inputs = {"reference": reference}
        found = measure_against_reference(Path(fused), reference, **more)
    elif reference is None and pan is not None and ms is not None and not options.guide:
        inputs = {"PAN": pan, "MS": ms}
        found = measure_at_full_resolution(Path(fused), pan, ms, **more)
    else:
        raise KsdiffError(f"{fused}: give either a reference, or PAN and MS, or what guided it, to measure it against")
    if page is not None:
        try:
            shown = [*map(str, inputs.values()), str(fused), *map(str, found.maps)]
            look = view_command(shown) if is_installed() else ""
            write_report(found.to_report(command, Path(fused), inputs, look), page, claimed)
        finally:
            if claim is not None:
                claim.drop()
    return found
