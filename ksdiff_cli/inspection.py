"""What is in a file: facts about a raster, a scene folder, a checkpoint or an HDF5 file, as plain values."""

from pathlib import Path
from typing import Any

from ksdiff_cli.errors import KsdiffError

Facts = dict[str, Any]


def describe(path: str, sensor: str | None = None) -> Facts:
    """Return facts about whatever ``path`` is; the key ``kind`` says what that is.

    Args:
        path: a raster (anything GDAL opens), a folder of scenes, ``.safetensors`` or ``.h5``.
        sensor: of a folder's scenes, where the product does not say it.

    Returns:
        Plain values, fit for JSON.

    Raises:
        KsdiffError: no such file, or it is none of these.
        ModelError: the checkpoint was not written by ksdiff.
    """
    suffix = Path(path).suffix.lower()
    if Path(path).is_dir():
        from ksdiff_cli.products import find_scenes

        return {"kind": "scenes", "path": path, "scenes": [_scene(scene) for scene in find_scenes(Path(path), sensor)]}
    if suffix == ".safetensors":
        from ksdiff_cli.models.checkpoint import read_header, weights_hash

        header = read_header(path)
        return {"kind": "checkpoint", "path": path, "weights": weights_hash(path), **header}
    if suffix in {".h5", ".hdf5"}:
        return _h5(path)
    return _raster(path)


def _raster(path: str) -> Facts:
    from ksdiff_cli.raster import open_raster

    with open_raster(path) as dataset:
        return {"kind": "raster", "path": path, **_image(dataset), "tags": dict(sorted(dataset.tags().items()))}


def _image(dataset: Any) -> Facts:
    """Size, type and place of one open raster."""
    from ksdiff_cli.raster_layout import crs_name, georeferenced

    located = georeferenced(dataset)
    nodata = dataset.nodata
    return {
        "width": dataset.width,
        "height": dataset.height,
        "bands": dataset.count,
        "dtype": " ".join(dict.fromkeys(dataset.dtypes)),
        "pixel_size": list(dataset.res) if located else None,
        "origin": [dataset.transform.c, dataset.transform.f] if located else None,
        "crs": crs_name(dataset) or None,
        # JSON has no NaN
        "nodata": "nan" if nodata is not None and nodata != nodata else nodata,
        "descriptions": list(dataset.descriptions),
        "colours": [colour.name for colour in dataset.colorinterp],
        "compression": dataset.compression.value if dataset.compression else None,
        "sensor_geometry": _sensor_geometry(dataset),
    }


def _sensor_geometry(dataset: Any) -> str | None:
    """Name what stands in for a geotransform: RPC, GCPs or nothing."""
    points, _ = dataset.gcps
    return "RPC" if dataset.rpcs else f"{len(points)} GCPs" if points else None


def _scene(scene: Any) -> Facts:
    """How PAN and MS of one scene lie on each other; what keeps them from being fused stands under ``problem``."""
    from ksdiff_cli.raster import open_pair

    facts: Facts = {
        "name": scene.name,
        "sensor": scene.sensor.name,
        "pan": scene.pan.path,
        "ms": [{"file": source.path, "band": source.band, "name": source.name or None} for source in scene.ms],
    }
    try:
        with open_pair(scene) as pair:
            grid = pair.grid
            return facts | {
                "pan_size": [pair.pan.width, pair.pan.height],
                "ms_size": [pair.ms[0].width, pair.ms[0].height],
                "crs": _image(pair.pan)["crs"],
                "dtype": " ".join(dict.fromkeys(kind for dataset in (pair.pan, *pair.ms) for kind in dataset.dtypes)),
                "ratio": [1 / abs(grid.cols.scale), 1 / abs(grid.rows.scale)],
                # where the centre of the area's first PAN pixel lies; corner-aligned grids have (1 / ratio - 1) / 2
                "offset_ms_pixels": [grid.cols.offset, grid.rows.offset],
                "common_area": {
                    "column": pair.origin[1],
                    "row": pair.origin[0],
                    "width": pair.shape[1],
                    "height": pair.shape[0],
                },
                "notes": list(pair.notes),
            }
    except KsdiffError as error:
        return facts | {"problem": str(error)}


def _h5(path: str) -> Facts:
    import h5py

    if not Path(path).is_file():
        raise KsdiffError(f"{path}: no such file; check the path")
    try:
        with h5py.File(path, "r") as file:
            datasets: dict[str, Facts] = {}

            def visit(name: str, item: Any) -> None:
                if isinstance(item, h5py.Dataset):
                    datasets[name] = {"shape": list(item.shape), "dtype": str(item.dtype), **_attributes(item)}

            file.visititems(visit)
            return {"kind": "hdf5", "path": path, **_attributes(file), "datasets": datasets}
    except OSError as error:
        raise KsdiffError(f"{path}: cannot be opened as HDF5 ({str(error).splitlines()[0]})") from None


def _attributes(item: Any) -> Facts:
    values = {name: value.tolist() if hasattr(value, "tolist") else value for name, value in item.attrs.items()}
    plain = {name: value.decode() if isinstance(value, bytes) else value for name, value in values.items()}
    return {"attributes": plain} if plain else {}
