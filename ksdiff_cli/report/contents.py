"""The contents of a report: the figures of every method and image, and a few images to look at."""

from dataclasses import dataclass, field

from ksdiff_cli.numerics import Array
from ksdiff_cli.numerics.boxes import Box


@dataclass(frozen=True)
class Mark:
    """A labelled rectangle drawn on an example's pictures, in its pixels."""

    label: str
    box: Box


@dataclass(frozen=True)
class Example:
    """One image with what each method made of it; pictures are made of it."""

    name: str
    """For people, e.g. ``test.h5, image 3``."""
    fused: dict[str, Array]
    """By method, in the order of the table: (bands, H, W), DN."""
    pan: Array | None = None
    """(H, W), DN."""
    ms_up: Array | None = None
    """(bands, H, W), DN, MS upsampled to the PAN grid."""
    truth: Array | None = None
    """(bands, H, W), DN."""
    valid: Array | None = None
    """(H, W) bool, pixels to show and to count; None for all. Values that are not finite are never shown."""
    bands: tuple[int, int, int] | None = None
    """Bands shown as red, green and blue, from 0; three times the same is grey. None: see :func:`rgb_bands`."""
    note: str = ""
    """A note for people, e.g. which columns of which file."""
    reduction: int = 1
    """Pixels of the image along a side whose mean is one pixel here. Above 1 there are no details and no error maps:
    the error of means is smaller than the mean of errors."""
    boxes: tuple[Mark, ...] = ()
    """Drawn on the pictures besides the details, e.g. where other examples lie."""
    metres: float | None = None
    """Width of one of the image's pixels on the ground; None where nothing tells it, and scale bars count pixels."""

    def __post_init__(self) -> None:
        """Check the shapes.

        Raises:
            ValueError: no method, or arrays that do not fit each other.
        """
        if not self.fused:
            raise ValueError(f"{self.name}: an example needs at least one fused image")
        shape = next(iter(self.fused.values())).shape
        if len(shape) != 3 or 0 in shape:
            raise ValueError(f"{self.name}: fused images are (bands, height, width), not {shape}")
        images = {**self.fused, "ms_up": self.ms_up, "truth": self.truth}
        if wrong := [name for name, image in images.items() if image is not None and image.shape != shape]:
            raise ValueError(f"{self.name}: {wrong[0]} must have the shape {shape}")
        for name, plane in (("pan", self.pan), ("valid", self.valid)):
            if plane is not None and plane.shape != shape[1:]:
                raise ValueError(f"{self.name}: {name} must have the shape {shape[1:]}, not {plane.shape}")
        if self.bands is not None and not all(0 <= band < shape[0] for band in self.bands):
            raise ValueError(f"{self.name}: there are {shape[0]} bands, not {self.bands}")

    @property
    def shape(self) -> tuple[int, int, int]:
        """(bands, height, width)."""
        bands, height, width = next(iter(self.fused.values())).shape
        return bands, height, width


@dataclass(frozen=True)
class Figure:
    """One more picture about the methods."""

    title: str
    note: str
    """What it shows."""
    png: bytes


@dataclass(frozen=True)
class Report:
    """Everything that the page shows."""

    title: str
    protocol: str
    """``reduced`` (against a truth) or ``full`` (against PAN and MS)."""
    command: str
    """The command line that made it."""
    facts: dict[str, str]
    """The settings behind the figures, in order: crop, sensor, geometry, data files, versions, device …"""
    images: list[str]
    """Names of the images, in order."""
    values: dict[str, dict[str, list[float]]]
    """Method -> metric -> one value an image; NaN where undefined."""
    seconds: dict[str, list[float]]
    """Method -> seconds of each image; may be empty."""
    examples: list[Example]
    notes: list[str]
    """Notes needed to read the figures."""
    about_images: list[str] = field(default_factory=list)
    """Further facts about each image, in order; may be empty."""
    differences: dict[str, dict[str, list[str]]] = field(default_factory=dict)
    """Method -> metric -> how it differs from the best other method, in lines; may be empty."""
    draws: dict[str, dict[str, float]] = field(default_factory=dict)
    """Method -> metric -> standard deviation over draws of z_T; may be empty."""
    figures: list[Figure] = field(default_factory=list)
    """Shown after the charts; may be empty."""
    look: str = ""
    """The command line that shows the same rasters at every zoom; empty where there is none."""

    def __post_init__(self) -> None:
        """Check that methods, metrics and images fit each other.

        Raises:
            ValueError: they do not.
        """
        metrics = self.metrics
        for method, values in self.values.items():
            if list(values) != metrics or any(len(series) != len(self.images) for series in values.values()):
                raise ValueError(f"{method}: needs {len(self.images)} values of each of {metrics}")
        if unknown := set(self.seconds) - set(self.values):
            raise ValueError(f"seconds of methods without values: {sorted(unknown)}")

    @property
    def metrics(self) -> list[str]:
        """The metrics, in the order of the table."""
        return list(next(iter(self.values.values()), {}))
