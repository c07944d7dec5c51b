"""What is in a file: facts about a raster, a scene folder, a checkpoint or an HDF5 file, as plain values."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

from ksdiff_cli.checks import Nodata
from ksdiff_cli.errors import KsdiffError, did_you_mean

Facts = dict[str, Any]

_MOST_ITEMS = 10_000  # of an HDF5 file that are looked at
_LONGEST_TYPE = 200  # signs


def describe(path: str, sensor: str | None = None, nodata: tuple[Nodata, Nodata] = (None, None)) -> Facts:
    """Return facts about whatever ``path`` is; the key ``kind`` says what that is.

    Args:
        path: a raster (anything GDAL opens), a folder of scenes, ``.safetensors``, ``.h5`` or a sensor's ``.toml``;
            where there is no such file also a sensor's name, or ``sensors`` for all of them.
        sensor: of a folder's scenes, where the product does not say it.
        nodata: what means "no data" in PAN and in MS of scenes.

    Returns:
        Plain values, fit for JSON.

    Raises:
        KsdiffError: no such file, or it is none of these.
        ModelError: the checkpoint was not written by ksdiff.
    """
    suffix = Path(path).suffix.lower()
    if suffix == ".safetensors":
        from ksdiff_cli.models.checkpoint import read_header, weights_hash

        header = read_header(path)
        return {"kind": "checkpoint", "path": path, "weights": weights_hash(path), **header}
    if suffix in {".h5", ".hdf5"}:
        return _h5(path)
    from ksdiff_cli.products import find_scenes, names_scenes
    from ksdiff_cli.raster.nodata import declare
    from ksdiff_cli.raster.synthesis import GuidedScene

    if names_scenes(path):
        left_out: list[KsdiffError] = []
        scenes = find_scenes(path, sensor, left_out)
        facts = [
            _guided(scene) if isinstance(scene, GuidedScene) else _scene(declare(scene, nodata)) for scene in scenes
        ]
        broken = {"left_out": [str(error) for error in left_out]} if left_out else {}
        return {"kind": "scenes", "path": path, "scenes": facts, **broken}
    return _sensors(path) or _raster(path)


def _sensors(path: str) -> Facts | None:
    """Facts about the sensor that ``path`` names, or about all known ones; None where a file has that name."""
    from ksdiff_cli.sensors import SENSORS, by_any_name, find_sensor

    if path.lower().endswith(".toml"):
        return {"kind": "sensor", "path": path, **_sensor(find_sensor(path))}
    if Path(path).exists():
        return None
    if path.lower() == "sensors":
        return {"kind": "sensors", "sensors": [_sensor(sensor) for sensor in SENSORS.values()]}
    if sensor := by_any_name(path):
        return {"kind": "sensor", **_sensor(sensor)}
    if hint := did_you_mean(path, SENSORS):
        raise KsdiffError(f"{path}: no such file, and no sensor of that name{hint}")
    return None


def _sensor(sensor: Any) -> Facts:
    """One sensor's values, band by band."""
    gains = sensor.ms_gains(len(sensor.bands) or 1)
    spans = sensor.wavelengths or (None,) * len(gains)
    names = sensor.bands or ("any",)
    values = sensor.to_dict()
    return {
        **{key: values[key] for key in ("name", "title", "ratio", "bits")},
        **({"aliases": list(sensor.aliases)} if sensor.aliases else {}),
        "bands": [
            {"name": name, "wavelengths_nm": span and list(span), "mtf": gain}
            for name, span, gain in zip(names, spans, gains, strict=True)
        ],
        "pan": {"wavelengths_nm": sensor.pan_wavelengths and list(sensor.pan_wavelengths), "mtf": sensor.mtf_pan},
        "sources": values["sources"],
    }


def _raster(path: str) -> Facts:
    from ksdiff_cli.raster.bands import BandSource
    from ksdiff_cli.raster.nodata import find_fill, say_fill
    from ksdiff_cli.raster.open import alpha_is_data, data_bands, open_raster

    with open_raster(path) as dataset:
        facts = {"kind": "raster", "path": path, **_image(dataset), "tags": dict(sorted(dataset.tags().items()))}
        try:
            as_data = alpha_is_data(dataset)
            bands = [BandSource(path, band, alpha_is_data=as_data) for band in data_bands(dataset)]
            fill = find_fill([dataset] * len(bands), bands)
        except KsdiffError as error:
            return facts | {"problem": str(error)}
        return facts | ({"notes": [say_fill("the image", fill)]} if fill else {})


def _image(dataset: Any) -> Facts:
    """Size, type and place of one open raster."""
    from ksdiff_cli.raster.layout import crs_name, has_geotransform, sensor_geometry

    located = has_geotransform(dataset)
    nodata = dataset.nodata
    return {
        "width": dataset.width,
        "height": dataset.height,
        "bands": dataset.count,
        "dtype": " ".join(dict.fromkeys(dataset.dtypes)),
        "pixel_size": list(dataset.res) if located else None,
        "origin": [dataset.transform.c, dataset.transform.f] if located else None,
        # clockwise, of the image's rows against the CRS's east
        "rotation_degrees": round(-math.degrees(math.atan2(dataset.transform.d, dataset.transform.a)), 6) + 0.0
        if located
        else None,
        "crs": crs_name(dataset) or None,
        # JSON has no NaN
        "nodata": "nan" if nodata is not None and nodata != nodata else nodata,
        "descriptions": list(dataset.descriptions),
        "colours": [colour.name for colour in dataset.colorinterp],
        "compression": dataset.compression.value if dataset.compression else None,
        "sensor_geometry": sensor_geometry(dataset),
    }


def _scene(scene: Any) -> Facts:
    """How PAN and MS of one scene lie on each other; what keeps them from being fused stands under ``problem``."""
    facts: Facts = {
        "name": scene.name,
        "sensor": scene.sensor.name,
        "pan": scene.pan.path,
        "ms": [{"file": source.path, "band": source.band, "name": source.name or None} for source in scene.ms],
    }
    if scene.others:
        names = [group.name for other in scene.others for group in other.groups]
        facts["groups_besides"] = names
    try:
        return facts | _geometry(scene)
    except KsdiffError as error:
        problem = str(error)
    try:
        return facts | _geometry(replace(scene, warp=True)) | {"problem": problem}
    except KsdiffError:
        return facts | {"problem": problem}


def _guided(scene: Any) -> Facts:
    """Bands of several resolutions: those that guide, and the groups of the others."""
    groups = [("guide", scene.guide, None), *((one.name, one.bands, one) for one in scene.groups)]
    facts = []
    for name, bands, group in groups:
        image = _open_image(bands[0])
        facts.append(
            {
                "name": name,
                "size": [image["width"], image["height"]],
                "pixel_size": image["pixel_size"],
                "crs": image["crs"],
                "dtype": image["dtype"],
                **({} if group is None else {"quality_band": group.quality is not None}),
                "bands": [_band(number, source, group) for number, source in enumerate(bands)],
            }
        )
    return {"name": scene.name, "groups": facts}


def _band(number: int, source: Any, group: Any) -> Facts:
    facts = {"file": source.path, "band": source.band, "name": source.name}
    units = {"scale": source.scale, "offset": source.offset, "nodata": source.fill}
    known = {key: value for key, value in units.items() if value is not None}
    nm = {} if source.wavelengths is None else {"wavelengths_nm": list(source.wavelengths)}
    return facts | nm | known | ({} if group is None else {"mtf": group.gain(number)})


def _open_image(source: Any) -> Facts:
    from ksdiff_cli.raster.open import open_raster

    with open_raster(source.path) as dataset:
        return _image(dataset)


def _geometry(scene: Any) -> Facts:
    """How PAN and MS lie on each other, MS as it is read: warped where it has to be."""
    from ksdiff_cli.raster.nodata import find_notes
    from ksdiff_cli.raster.pair import open_pair
    from ksdiff_cli.raster.warp import rotation

    with open_pair(scene) as pair:
        grid, turn = pair.grid, rotation(pair.pan, pair.ms[0])
        return {
            "pan_size": [pair.pan.width, pair.pan.height],
            "ms_size": [pair.ms[0].width, pair.ms[0].height],
            "crs": _image(pair.pan)["crs"],
            "dtype": " ".join(dict.fromkeys(kind for dataset in (pair.pan, *pair.ms) for kind in dataset.dtypes)),
            "ratio": [1 / abs(grid.cols.scale), 1 / abs(grid.rows.scale)],
            # where the centre of the area's first PAN pixel lies; corner-aligned grids have (1 / ratio - 1) / 2
            "offset_ms_pixels": [grid.cols.offset, grid.rows.offset],
            # clockwise, of MS against PAN; none without geotransforms
            "rotation_degrees": None if turn is None else round(turn, 6) + 0.0,
            "needs_warp": bool(pair.warped),
            "common_area": {
                "column": pair.origin[1],
                "row": pair.origin[0],
                "width": pair.shape[1],
                "height": pair.shape[0],
            },
            "registration": _registration(pair),
            "cameras": _cameras(pair),
            "notes": [*pair.notes, *find_notes(pair)],
        }


def _registration(pair: Any) -> Facts:
    """How far MS lies off PAN by what the two show, in MS pixels."""
    from ksdiff_cli.raster.registration import measure_shift

    found = measure_shift(pair)
    # JSON has no NaN
    rows, cols = (None if value != value else round(value, 3) for value in (found.rows, found.cols))
    return {
        "rows": rows,
        "columns": cols,
        "windows": found.windows,
        "spread": round(found.spread, 3),
        "reliable": found.reliable,
        # from the least to the largest shift, where it varies over the scene
        "varies": None if found.field is None else dict(zip(("rows", "columns"), _extremes(found.field), strict=True)),
    }


def _extremes(field: Any) -> list[list[float]]:
    return [[round(end, 3) for end in ends] for ends in field.extremes()]


def _cameras(pair: Any) -> Facts:
    """How sharp MS is against PAN and how PAN mixes its bands, as the scene tells; else the sensor's table."""
    from ksdiff_cli.raster.camera import find_camera

    found = find_camera(pair)
    return {
        "summary": str(found),
        "reliable": found.reliable,
        "gain": found.gain,
        "gain_std": found.gain_std if found.reliable else None,
        "compensation": found.compensation,
        "compensation_std": found.compensation_std if found.reliable else None,
        "shift_ms_pixels": {"rows": found.shift[0], "columns": found.shift[1]},
        "r2": found.r2,
        # PAN, seen through this camera, is about their sum of the MS bands and the offset, DN
        "pan_mix": {"weights": [round(weight, 4) for weight in found.weights], "offset": round(found.offset, 4)},
    }


def _h5(path: str) -> Facts:
    import h5py

    from ksdiff_cli.files.hdf5 import open_h5, read_attributes, reading

    def attributes(item: Any) -> Facts:
        values = read_attributes(item, path)
        return {"attributes": values} if values else {}

    datasets: dict[str, Facts] = {}
    with open_h5(path, "cannot be opened as HDF5; it is damaged, or another kind of file") as file, reading(path):
        names: list[str] = []
        file.visit(lambda name: names.append(name) if len(names) < _MOST_ITEMS else True)
        for name in names:
            item = file.get(name)
            if isinstance(item, h5py.Dataset):
                datasets[name] = {"shape": list(item.shape or ()), "dtype": _type(item), **attributes(item)}
        return {"kind": "hdf5", "path": path, **attributes(file), "datasets": datasets}


def _type(array: Any) -> str:
    try:
        return str(array.dtype)[:_LONGEST_TYPE]
    except TypeError:  # NumPy has no such type
        return "unknown"
