"""The Python functions: one a task, the same work as the command of that name, without its printing.

Imported as ``from ksdiff_cli import sharpen_scene, sharpen_array, prepare_patches, train, evaluate, measure``; nothing
heavy is loaded before one of them is called. Every function refuses bad input with a :class:`ksdiff_cli.KsdiffError`
(weights that do not fit with a :class:`ksdiff_cli.models.contract.ModelError`) whose message is one line for people.
What has to do with patches and training stands in :mod:`ksdiff_cli.api_learning`.

Metrics on arrays are not here: ``from ksdiff_cli import metrics`` is the package of them, with ``metrics.sam(truth,
fused)``, ``metrics.measure_reduced`` and the others; a package that could be called as well would be two things under
one name. :func:`measure` is what the command ``ksdiff metrics`` does with files.
"""

from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ksdiff_cli.checks import Nodata, Registration, check_choice, check_method, check_number, check_seed, read_nodata
from ksdiff_cli.progress import ProgressCallback, silent

if TYPE_CHECKING:
    from numpy.typing import DTypeLike

    from ksdiff_cli.evaluation.measured import Measurement
    from ksdiff_cli.fusers.base import Fuser
    from ksdiff_cli.metrics import CropName
    from ksdiff_cli.output.writer import Format
    from ksdiff_cli.raster.camera import Mtf
    from ksdiff_cli.sensors import Sensor
    from ksdiff_cli.sharpening.engine import Sharpened

Name = str | PathLike[str]
"""A path; where it says so also anything else that GDAL opens, such as ``https://…`` or ``s3://…``."""
Note = Callable[[str], None]
"""Takes a line that a person should read."""


def _drop(line: str) -> None:
    """Take a note and drop it."""


def sharpen_scene(
    *inputs: Name,
    output: Name,
    method: str = "ksdiff",
    checkpoint: Name | None = None,
    adapt: float | None = None,
    sensor: str | None = None,
    bands: Sequence[int | str] = (),
    src_nodata: Nodata | tuple[Nodata, Nodata] = None,
    dst_nodata: float | None = None,
    consistent: bool = False,
    mtf: "Mtf | None" = None,
    uncertainty: Name | None = None,
    draws: int = 8,
    warp: bool = False,
    registration: Registration = "check",
    window: tuple[int, int, int, int] | None = None,
    bounds: tuple[float, float, float, float] | None = None,
    bounds_crs: str = "",
    dtype: "DTypeLike | None" = None,
    format: "Format" = "GTiff",
    creation: Mapping[str, str] | None = None,
    quicklook: Name | None = None,
    tile: int | None = None,
    memory: float | None = None,
    resume: bool = True,
    overwrite: bool = False,
    device: str = "auto",
    seed: int = 0,
    sharpness: float | None = None,
    threads: int | None = None,
    progress: ProgressCallback = silent,
) -> "Sharpened":
    """Sharpen a scene into a GeoTIFF on PAN's grid, window by window in bounded memory; ``ksdiff sharpen``.

    Args:
        inputs: PAN, then MS (one file, or several whose bands follow each other); or one scene: a product's folder,
            archive or metadata file. Anything GDAL opens.
        output: raster to write, ``.tif`` (``.vrt`` for ``format="VRT"``).
        method: ``ksdiff``, or a classical method by name, see :data:`ksdiff_cli.classical.METHODS`.
        checkpoint: weights for ``ksdiff``; None takes those shipped with the package.
        adapt: minutes to fine-tune the network on this scene first; None does not.
        sensor: a sensor's name or file; None takes what the product says, else generic gains.
        bands: MS bands to sharpen, by numbers from 1 or by names; () takes all.
        src_nodata: what means "no data" in PAN and in MS, or a pair of that; see :data:`ksdiff_cli.checks.Nodata`.
        dst_nodata: value of pixels without data in the output; None takes that of MS, else of PAN, else 0 where it is
            needed.
        consistent: back-project the result until it agrees with MS within the sensor's noise.
        mtf: how sharp MS is believed to be: ``scene``, as found in the scene where it tells, or ``sensor``, as the
            sensor's table says; None takes ``scene`` for ``consistent`` and spectral fidelity and ``sensor`` for
            methods with MTF filters.
        uncertainty: raster to write the standard deviation of ``draws`` results to, DN, float32; None writes none.
        draws: results that the uncertainty is drawn from, 2 to 64.
        warp: warp MS in another CRS, or rotated against PAN, onto PAN's axes; else it is refused.
        registration: measure the shift between PAN and MS and refuse more than one MS pixel (``check``), take it out
            (``correct``), or do not look (``skip``).
        window: (row, column, height, width), the part to make in PAN pixels; None makes all.
        bounds: (xmin, ymin, xmax, ymax), the part to make in the units of ``bounds_crs``.
        bounds_crs: CRS of ``bounds``; "" is PAN's.
        dtype: of the output, see :data:`ksdiff_cli.checks.Dtype`, or NumPy's type; None takes that of MS.
        format: ``GTiff``, ``COG`` or ``VRT``.
        creation: GDAL creation options.
        quicklook: PNG to draw PAN, MS and the result in.
        tile: side of a window in PAN pixels, a multiple of 16 from 64 up; None chooses by memory, 1280 at most.
        memory: GB that the process may take; None takes 2.
        resume: go on with the windows that a killed run of the same call finished.
        overwrite: replace an existing output.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        seed: of the network's noise; the same seed gives the same bytes.
        sharpness: of the network's result relative to PAN, -1 to 2; 0 is as sharp as PAN, less is softer.
        threads: CPU threads; None takes all cores.
        progress: told how far it is.

    Returns:
        What was made: path, shape (height, width), bands, dtype, nodata, notes and the seam score.

    Raises:
        KsdiffError: inputs that cannot be read or do not fit each other, an output that cannot be written, a value out
            of its range, or what only ``ksdiff`` has a use for with another method.
        ModelError: weights that cannot be used, or do not fit the scene.
    """
    from ksdiff_cli.products import find_scene
    from ksdiff_cli.sharpening.engine import SharpenOptions
    from ksdiff_cli.sharpening.uncertainty import Uncertainty
    from ksdiff_cli.sharpening.workflow import Workflow

    weights = None if checkpoint is None else Path(checkpoint)
    adaptation = None
    if adapt is not None:
        from ksdiff_cli.sharpening.adaptation import Adaptation

        adaptation = Adaptation(weights, adapt, seed, device)
    kind: Any = dtype if dtype is None else str(getattr(dtype, "__name__", dtype))
    options = SharpenOptions(
        tile,
        memory,
        resume,
        kind,
        format,
        dict(creation or {}),
        overwrite,
        threads=threads,
        nodata=dst_nodata,
        mtf=mtf or "scene",
    )
    check_number("draws", draws, 2, 64, whole=True)
    workflow = Workflow(
        _make_fuser(
            method, weights, device, seed, threads, sharpness, {"adapt": adapt, "uncertainty": uncertainty}, mtf
        ),
        options,
        bands=bands,
        warp=warp,
        registration=registration,
        window=window,
        bounds=bounds,
        bounds_crs=bounds_crs,
        quicklook=None if quicklook is None else Path(quicklook),
        adaptation=adaptation,
        consistent=consistent,
        uncertainty=None if uncertainty is None else Uncertainty(Path(uncertainty), weights, seed, device, draws),
        nodata=read_nodata(src_nodata),
        reads=[str(name) for name in (checkpoint, sensor) if name is not None],
    )
    names = [str(name) for name in inputs]
    workflow.check(Path(output), names)
    return workflow.run(find_scene(names, sensor), Path(output), progress)


def _make_fuser(
    method: str,
    checkpoint: Path | None,
    device: str,
    seed: int,
    threads: int | None,
    sharpness: float | None,
    given: Mapping[str, object] | None = None,
    mtf: "Mtf | None" = None,
) -> "Fuser":
    """Return what sharpens, once all that concerns it is checked; ``given`` is what goes with the network only."""
    from ksdiff_cli.fusers.classical import make_fuser

    check_seed(seed)
    check_number("threads", threads, 1, whole=True, optional=True)
    check_number("sharpness", sharpness, -1, 2, optional=True)
    # it knows which methods there are
    fuser = make_fuser(method, checkpoint, device, seed, threads, sharpness or 0.0, mtf=mtf or "sensor")
    check_method(method, {"checkpoint": checkpoint, "sharpness": sharpness, **(given or {})})
    return fuser


def sharpen_array(
    pan: Any,
    ms: Any,
    *,
    ratio: float | None = None,
    method: str = "ksdiff",
    checkpoint: Name | None = None,
    sensor: "str | Sensor | None" = None,
    valid: Any = None,
    nodata: float | tuple[float | None, float | None] | None = None,
    registration: Registration = "check",
    tile: int | None = None,
    memory: float | None = None,
    device: str = "auto",
    seed: int = 0,
    sharpness: float | None = None,
    threads: int | None = None,
    progress: ProgressCallback = silent,
    note: Note = _drop,
) -> Any:
    """Sharpen arrays: the same pixels as :func:`sharpen_scene` makes of the same values in files, without files.

    NumPy arrays lie on each other by their upper left corners, and their sizes give the ratio; what a masked array
    (``rasterio``'s ``read(masked=True)``) masks, in PAN or in any band of MS, is invalid. Of two xarray DataArrays
    rioxarray's georeference counts (``pip install "ksdiff[xarray]"``): offsets, other extents and any ratio are
    honoured, and the result, on PAN's grid over the common area, carries CRS, transform and nodata.

    Args:
        pan: (H, W) or (1, H, W), DN of an integer or float type.
        ms: (bands, h, w), DN, any number of bands; both arrays or both DataArrays.
        ratio: PAN pixels per MS pixel along a side, to be checked; None takes what sizes or georeference say.
        method: ``ksdiff``, or a classical method by name, see :data:`ksdiff_cli.classical.METHODS`.
        checkpoint: weights for ``ksdiff``; None takes those shipped with the package.
        sensor: a sensor, its name or its file; None is the generic one.
        valid: (H, W) or (h, w) bool, on PAN's or on MS's grid; False where pixels hold no data. None: all do, but what
            is masked, ``nodata`` and, in float arrays, NaN; these are invalid whatever it says.
        nodata: DN that stands for "no data" in MS, and in the result; or two, for PAN and for MS. None: what a
            DataArray says, or a masked array (MS, else PAN) by its ``fill_value`` if nothing else lies under its mask;
            else NaN for floats, and for integers none, unless some pixel is invalid: then 0.
        registration: see :func:`sharpen_scene`.
        tile: see :func:`sharpen_scene`.
        memory: GB that the engine may take besides the arrays; the inputs are copied once. None takes 2.
        device: see :func:`sharpen_scene`.
        seed: see :func:`sharpen_scene`.
        sharpness: see :func:`sharpen_scene`.
        threads: see :func:`sharpen_scene`.
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
    from ksdiff_cli.sensors import find_sensor
    from ksdiff_cli.sharpening.arrays import ArrayOptions, sharpen_arrays

    known = find_sensor(sensor) if sensor is None or isinstance(sensor, str) else sensor
    options = ArrayOptions(known, ratio, registration, tile, memory)
    fuser = _make_fuser(method, None if checkpoint is None else Path(checkpoint), device, seed, threads, sharpness)
    return sharpen_arrays(pan, ms, valid, nodata, fuser, options, progress, note)


def measure(
    fused: Name,
    *,
    reference: Name | None = None,
    pan: Name | None = None,
    ms: Name | None = None,
    ratio: float | None = None,
    sensor: str | None = None,
    crop: "CropName" = "full",
    warp: bool = False,
    src_nodata: Nodata | tuple[Nodata, Nodata] = None,
    maps: Name | None = None,
    report: Name | None = None,
    command: str = "ksdiff_cli.measure",
    overwrite: bool = False,
    progress: ProgressCallback = silent,
) -> "Measurement":
    """Measure a sharpened raster, block by block, against a reference or against its PAN and MS; ``ksdiff metrics``.

    For arrays see :mod:`ksdiff_cli.metrics`.

    Args:
        fused: the raster to judge.
        reference: the truth, on the same grid (reduced resolution).
        pan: PAN that it was made from; with ``ms``, in place of ``reference`` (full resolution).
        ms: MS that it was made from.
        ratio: PAN pixels per MS pixel, at least 1, for ERGAS against a reference; None takes the sensor's, or 4.
        sensor: a sensor's name or file: bit depth, MTF gains.
        crop: against a reference: leave out a border of 21 or 30 pixels.
        warp: full resolution: warp MS onto PAN's axes.
        src_nodata: what means "no data" in all images; or in PAN, and in the others.
        maps: folder for GeoTIFF maps of SAM (degrees) and Q2n.
        report: HTML page to write.
        command: what the page says it was made by.
        overwrite: replace maps and page.
        progress: told the blocks done.

    Returns:
        The figures: ``result.values["SAM"]``, ``result.notes``, ``result.to_dict()``.

    Raises:
        KsdiffError: not exactly one of reference, and PAN with MS; files that cannot be read or do not fit; no such
            ratio or crop.
    """
    from ksdiff_cli.errors import KsdiffError
    from ksdiff_cli.evaluation.maps import map_claim
    from ksdiff_cli.evaluation.measure import measure_against_reference, measure_at_full_resolution
    from ksdiff_cli.metrics import CropName
    from ksdiff_cli.products.scene_files import find_inputs
    from ksdiff_cli.report import check_report, write_report

    check_number("ratio", ratio, 1, optional=True)
    check_choice("crop", crop, CropName)
    nodata = read_nodata(src_nodata)
    page, claim = None if report is None else Path(report), None if maps is None else map_claim(Path(maps))
    if page is not None:
        reads = find_inputs(str(name) for name in (fused, reference, pan, ms, sensor) if name is not None)
        check_report(page, claimed := overwrite or (claim is not None and claim.names(page)), reads)
    more: dict[str, Any] = {"maps": None if maps is None else Path(maps), "pictures": page is not None}
    more |= {"overwrite": overwrite, "report": page, "progress": progress}
    if reference is not None and pan is None and ms is None:
        inputs, more["nodata"] = {"reference": Path(reference)}, nodata[1]
        found = measure_against_reference(Path(fused), Path(reference), ratio=ratio, sensor=sensor, crop=crop, **more)
    elif reference is None and pan is not None and ms is not None:
        inputs, more["nodata"] = {"PAN": Path(pan), "MS": Path(ms)}, nodata
        found = measure_at_full_resolution(Path(fused), Path(pan), Path(ms), sensor=sensor, warp=warp, **more)
    else:
        raise KsdiffError(f"{fused}: give either a reference, or PAN and MS, to measure it against")
    if page is not None:
        try:
            write_report(found.to_report(command, Path(fused), inputs), page, claimed)
        finally:
            if claim is not None:
                claim.drop()
    return found
