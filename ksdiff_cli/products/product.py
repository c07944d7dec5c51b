"""What all product families share: a product without a pair, a sensor cut to the bands at hand, bands of one file."""

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol, TypeVar

from ksdiff_cli.errors import KsdiffError
from ksdiff_cli.products.folder import Folder
from ksdiff_cli.raster.bands import BandSource, Calibration
from ksdiff_cli.raster.open import open_raster
from ksdiff_cli.raster.pair import Scene
from ksdiff_cli.sensors import Sensor, fold_name


class NoPairError(KsdiffError):
    """A product that is known but holds no PAN with its MS; a search goes on past it, and tells if nothing else is."""


class BrokenError(KsdiffError):
    """Some of a folder's scenes are broken; a search goes on with the others, and tells."""

    def __init__(self, errors: Sequence[KsdiffError], scenes: Sequence[Scene]) -> None:
        """Take what is wrong, once for each broken scene, and the others."""
        super().__init__(str(errors[0]))
        self.errors, self.scenes = errors, scenes


_Key = TypeVar("_Key")


def read_each(keys: Iterable[_Key], read: Callable[[_Key], Scene]) -> list[Scene]:
    """Read the scenes of a folder one by one.

    Raises:
        BrokenError: some of several cannot be read; KsdiffError: the only one cannot.
    """
    scenes: list[Scene] = []
    errors: list[KsdiffError] = []
    for key in keys:
        try:
            scenes.append(read(key))
        except KsdiffError as error:
            errors.append(error)
    if errors and scenes:
        raise BrokenError(errors, scenes)
    if errors:
        raise errors[0]
    return scenes


class _Placed(Protocol):
    @property
    def folder(self) -> Folder: ...


_Image = TypeVar("_Image", bound=_Placed)


def side_by_side(home: Folder, images: Sequence[_Image], is_pan: Callable[[_Image], bool]) -> list[_Image]:
    """Leave out images of folders below ``home`` that hold both PAN and MS: such a folder is a product by itself."""
    roles: dict[str, set[bool]] = {}
    for image in images:
        roles.setdefault(image.folder.path, set()).add(is_pan(image))
    return [image for image in images if image.folder.path == home.path or len(roles[image.folder.path]) == 1]


def fit_sensor(sensor: Sensor, names: Sequence[str]) -> Sensor:
    """Return the sensor with the bands ``names`` only, in that order.

    A sensor that does not know one of the names (the generic one knows none) stays as it is.
    """
    known = {fold_name(name) for name in sensor.bands}
    return sensor.with_bands(names) if {fold_name(name) for name in names} <= known else sensor


def file_bands(
    path: str,
    names: Sequence[str],
    metadata: str,
    size: tuple[int, int] | None = None,
    fill: float | None = None,
    calibrations: Sequence[Calibration | None] = (),
) -> tuple[BandSource, ...]:
    """Name the bands of one file, all of which are data.

    Args:
        path: anything GDAL opens.
        names: what the metadata calls the bands, in the file's order.
        metadata: the metadata file, for the message.
        size: (height, width) by the metadata, if it says.
        fill: DN that means "no data" by the product's format.
        calibrations: what the bands' DN stand for; () where nothing says so.

    Raises:
        KsdiffError: the file cannot be opened, or has other bands or another size than the metadata says.
    """
    with open_raster(path) as dataset:
        if dataset.count != len(names):
            raise KsdiffError(
                f"{metadata}: names {len(names)} bands ({', '.join(names)}), but {path} has {dataset.count}; "
                "they do not belong together, fetch the product again"
            )
        if size is not None and dataset.shape != size:
            raise KsdiffError(
                f"{metadata}: says {size[1]} x {size[0]} pixels, but {path} has {dataset.width} x {dataset.height}; "
                "they do not belong together, fetch the product again"
            )
    known = calibrations or (None,) * len(names)
    return tuple(
        BandSource(path, band, name, fill, alpha_is_data=True, calibration=own)
        for band, (name, own) in enumerate(zip(names, known, strict=True), start=1)
    )
