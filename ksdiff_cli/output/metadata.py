"""An output's metadata: PAN's geometry, MS's bands."""

from collections.abc import Mapping
from copy import copy
from typing import Any

from rasterio.control import GroundControlPoint
from rasterio.enums import ColorInterp

from ksdiff_cli.output.pixels import PixelFormat, ms_bands
from ksdiff_cli.raster.bands import BandSource
from ksdiff_cli.raster.layout import has_geotransform
from ksdiff_cli.raster.pair import ScenePair

_COLOURS = {"red": ColorInterp.red, "green": ColorInterp.green, "blue": ColorInterp.blue}
STALE_TAGS = ("TIFFTAG_", "STATISTICS_", "KSDIFF_", "AREA_OR_POINT", "METADATATYPE")
"""How tags begin that are facts of one file and not true of another made from it."""
_DOMAINS = ("IMAGERY",)
"""Metadata domains that are true of what is made of a band: wavelengths, satellite, time, cloud cover."""
_UNWRITABLE = {"bidx", "ns"}  # rasterio takes them for arguments of its own and has no other way to write tags


def grid_profile(pair: ScenePair, pixels: PixelFormat) -> dict[str, Any]:
    """Return what rasterio must know to create a raster on the pair's output grid, but for the driver."""
    profile: dict[str, Any] = {
        "height": pair.shape[0],
        "width": pair.shape[1],
        "count": pair.bands,
        "dtype": pixels.dtype.name,
        "nodata": pixels.declared,
    }
    if pair.located:
        profile |= {"crs": pair.crs, "transform": pair.transform}
    elif not _only_gcps(pair):
        profile["crs"] = pair.pan.crs
    return profile


def write_metadata(dataset: Any, pair: ScenePair, pixels: PixelFormat, tags: Mapping[str, str]) -> None:
    """Carry over to a raster open for writing what is still true of it.

    Args:
        dataset: on the pair's output grid.
        pair: whose PAN gives geometry and whose MS gives names, colours, scales, offsets, units and tags.
        pixels: what is stored; differences of DN have MS's scale, but no offset.
        tags: further ones.
    """
    bands = ms_bands(pair)
    shared = set.intersection(*(set(source.tags().items()) for source in pair.ms))
    kept = {name: value for name, value in sorted(shared) if not name.startswith(STALE_TAGS)}
    point = pair.pan.tags().get("AREA_OR_POINT")
    # GDAL moves the GCPs of a file whose pixels are points by a pixel, each time that it writes them
    if point and not _only_gcps(pair):
        kept["AREA_OR_POINT"] = point
    update_tags(dataset, {**kept, **tags})
    dataset.descriptions = tuple(
        source.descriptions[band - 1] or named.name or None
        for (source, band), named in zip(bands, pair.scene.ms, strict=True)
    )
    dataset.colorinterp = _colours(pair)
    units = [declared_units(source, own) for (source, _), own in zip(bands, pair.scene.ms, strict=True)]
    dataset.scales = tuple(scale for scale, _ in units)
    dataset.offsets = tuple(0.0 if pixels.differences else offset for _, offset in units)
    dataset.units = tuple(
        (source.units[band - 1] or "") if own.unit is None else own.unit
        for (source, band), own in zip(bands, pair.scene.ms, strict=True)
    )
    for number, (source, band) in enumerate(bands, start=1):
        for domain, own in band_tags(source, band).items():
            update_tags(dataset, own, number, domain)
        update_tags(dataset, _wavelengths(pair.scene.ms[number - 1]), number, "IMAGERY")
    for domain in _DOMAINS:
        of_all = set.intersection(*(set(source.tags(ns=domain).items()) for source in pair.ms))
        update_tags(dataset, dict(sorted(of_all)), ns=domain)
    _write_sensor_geometry(dataset, pair)


def declared_units(dataset: Any, source: BandSource) -> tuple[float, float]:
    """Return scale and offset of a band of an open file, by the product's metadata or else by the file."""
    scale, offset = dataset.scales[source.band - 1], dataset.offsets[source.band - 1]
    return (scale if source.scale is None else source.scale), (offset if source.offset is None else source.offset)


def _wavelengths(source: BandSource) -> dict[str, str]:
    """Return the centre and width of a band as GDAL's metadata has them, if the product's tells them."""
    if source.wavelengths is None:
        return {}
    low, high = source.wavelengths
    return {"CENTRAL_WAVELENGTH_UM": f"{(low + high) / 2000:.5g}", "FWHM_UM": f"{(high - low) / 1000:.5g}"}


def band_tags(dataset: Any, band: int) -> dict[str | None, dict[str, str]]:
    """Return what is still true of a band in another file, by metadata domain; None is the default one."""
    own = {name: value for name, value in dataset.tags(band).items() if not name.startswith(STALE_TAGS)}
    return {None: own, **{domain: dataset.tags(band, ns=domain) for domain in _DOMAINS}}


def update_tags(dataset: Any, tags: Mapping[str, str], band: int = 0, ns: str | None = None) -> None:
    """Add tags of any names, as an input may have them, but for ``bidx`` and ``ns``: these are left out.

    Args:
        dataset: open for writing.
        tags: to add.
        band: whose, from 1; 0 is the dataset itself.
        ns: metadata domain.
    """
    writable = {name: value for name, value in tags.items() if name not in _UNWRITABLE}
    if writable or ns is None:
        dataset.update_tags(band, ns, **writable)


def _write_sensor_geometry(dataset: Any, pair: ScenePair) -> None:
    """Carry over PAN's RPC and GCPs, moved to the first pixel of the output."""
    row, col = pair.origin
    if (rpcs := output_rpcs(pair)) is not None:
        dataset.rpcs = rpcs
    if _only_gcps(pair):
        gcps, crs = pair.pan.gcps
        moved = [GroundControlPoint(p.row - row, p.col - col, p.x, p.y, p.z, p.id, p.info) for p in gcps]
        dataset.gcps = (moved, crs)


def output_rpcs(pair: ScenePair) -> Any:
    """Return PAN's RPCs, moved to the first pixel of the output; None without any."""
    if not pair.pan.rpcs:
        return None
    rpcs = copy(pair.pan.rpcs)  # rasterio hands out the same object each time
    rpcs.line_off -= pair.origin[0]
    rpcs.samp_off -= pair.origin[1]
    return rpcs


def _only_gcps(pair: ScenePair) -> bool:
    """Say whether PAN has GCPs and no geotransform: a GeoTIFF cannot hold both."""
    return bool(pair.pan.gcps[0]) and not has_geotransform(pair.pan)


def _colours(pair: ScenePair) -> tuple[ColorInterp, ...]:
    """MS's colour interpretation; where MS has none, that of the bands' names, so that viewers show true colours."""
    own = [source.colorinterp[band - 1] for source, band in ms_bands(pair)]
    plain = {ColorInterp.gray, ColorInterp.undefined, ColorInterp.palette, ColorInterp.alpha}
    if set(own) <= plain:
        names = [source.name.lower() for source in pair.scene.ms]
        if sorted(name for name in names if name in _COLOURS) == sorted(_COLOURS):
            return tuple(_COLOURS.get(name, ColorInterp.undefined) for name in names)
        return (ColorInterp.gray, *[ColorInterp.undefined] * (len(own) - 1))
    return tuple(ColorInterp.undefined if colour in plain else colour for colour in own)
