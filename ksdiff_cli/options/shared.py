"""Options that several commands have, each in a class of its own; a command's class derives from those that it has."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, get_args

from ksdiff_cli import checks
from ksdiff_cli.checks import LARGEST_SEED, GuideBy, MethodName, Nodata, Registration
from ksdiff_cli.errors import KsdiffError
from ksdiff_cli.options import ALIGNMENT, CUTTING, INPUTS, METHOD, OUTPUT, RUNNING, Option, Options, repeated
from ksdiff_cli.sensors import SENSORS

_ALIGN, _SMALLEST = 16, 64  # sides of windows, see numerics.boxes


def complete_sensor(incomplete: str) -> list[str]:
    """Return the sensors whose short names begin as typed, for the shell; in small letters if so typed."""
    names = [name.lower() if incomplete.islower() else name for name in SENSORS]
    return [name for name in names if name.startswith(incomplete)]


def complete_method(incomplete: str) -> list[str]:
    """Return the methods whose names begin as typed, for the shell."""
    return [name for name in get_args(MethodName) if name.startswith(incomplete)]


def read_src_nodata(text: str) -> tuple[Nodata, Nodata]:
    """Return what ``--src-nodata`` says of PAN and of MS."""
    return checks.read_nodata(text, "--src-nodata")


def read_bands(values: list[str]) -> list[int | str]:
    """Return band numbers and names from texts of some of them, by commas.

    Raises:
        KsdiffError: one is empty.
    """
    bands = [band.strip() for value in values for band in value.split(",")]
    if not all(bands):
        raise KsdiffError(f"-b takes band numbers or names such as 3,2,1 or red,green, not {','.join(values)!r}")
    return [int(band) if re.fullmatch("-?[0-9]{1,9}", band) else band for band in bands]


def named_methods(help: str) -> Option:
    """Return an option that names methods."""
    return repeated(METHOD, help, "NAME", names=("--method",), more={"autocompletion": complete_method})


SENSOR = Option(
    INPUTS,
    "Sensor by name (WV3, worldview-3, LC08 …; all: ksdiff info sensors) or a sensor file: gives bands, bit depth and "
    "MTF gains. Default: what the product or file says, else generic gains.",
    metavar="NAME | FILE.toml",
    typed=str | None,
    more={"autocompletion": complete_sensor},
)


@dataclass(frozen=True, kw_only=True)
class HasSensor(Options):
    """A scene's sensor."""

    sensor: Annotated[str | None, SENSOR] = None


@dataclass(frozen=True, kw_only=True)
class HasBands(Options):
    """Some of the MS bands."""

    bands: Annotated[
        Sequence[int | str],
        repeated(
            INPUTS,
            "MS bands to take, by number from 1 or by name, in this order: -b 3,2,1 or -b red -b green. Default: all.",
            "BAND,…",
            names=("--bidx", "-b"),
            read=read_bands,
        ),
    ] = ()


@dataclass(frozen=True, kw_only=True)
class HasGuideBy(Options):
    """What stands for PAN."""

    guide_by: Annotated[
        GuideBy,
        Option(
            METHOD,
            "What stands for PAN where finer bands guide: the sum of them that explains a band best, or the one that "
            "resembles it most.",
        ),
    ] = "synthesis"


@dataclass(frozen=True, kw_only=True)
class HasSrcNodata(Options):
    """Values without data in the inputs."""

    src_nodata: Annotated[
        Nodata | tuple[Nodata, Nodata],
        Option(
            INPUTS,
            "Value of pixels without data in PAN and MS, in place of what the files declare: 0, nan, or 0,-9999 for "
            "PAN and MS; none: all are data; file: as it declares. Default: file.",
            metavar="VALUE | PAN,MS",
            typed=str | None,
            read=read_src_nodata,
        ),
    ] = None

    @property
    def nodata(self) -> tuple[Nodata, Nodata]:
        """The values that mean "no data" in PAN and in MS."""
        return checks.read_nodata(self.src_nodata)

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.read_nodata(self.src_nodata)


@dataclass(frozen=True, kw_only=True)
class HasWarp(Options):
    """MS on another grid than PAN's."""

    warp: Annotated[
        bool,
        Option(
            ALIGNMENT,
            "Warp MS to PAN's grid where its CRS differs or it is rotated against PAN. Default: refuse such MS.",
        ),
    ] = False


@dataclass(frozen=True, kw_only=True)
class HasRegistration(Options):
    """A shift between PAN and MS."""

    registration: Annotated[
        Registration,
        Option(
            ALIGNMENT,
            "Shift between PAN and MS that their georeference leaves: it is measured, and over 1 MS pixel is refused.",
            flags={
                "--register": (
                    "correct",
                    "Correct the shift between PAN and MS that is left, by a field where it varies.",
                ),
                "--no-registration-check": (
                    "skip",
                    "Do not measure that shift. Default: it is measured, and over 1 MS pixel is refused.",
                ),
            },
        ),
    ] = "check"


@dataclass(frozen=True, kw_only=True)
class HasMethod(Options):
    """What sharpens."""

    method: Annotated[
        MethodName,
        Option(
            METHOD,
            "ksdiff: the network; exp: interpolation only; or a classical method: gsa is the adaptive form of gs "
            "(Gram-Schmidt), awlp-r the revised awlp.",
        ),
    ] = "ksdiff"
    checkpoint: Annotated[
        Path | None,
        Option(
            METHOD,
            "Weights of ksdiff to use (.safetensors). Default: those shipped with the package.",
            metavar="FILE",
        ),
    ] = None
    sharpness: Annotated[
        float | None,
        Option(
            METHOD,
            "How much sharper than PAN the network's result is to be, as the share of what a blur of PAN by .9 pixels "
            "takes away; less than 0 is softer. Default: 0, as sharp as PAN.",
            min=-1,
            max=2,
        ),
    ] = None

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.check_method(self.method, {name: getattr(self, name) for name in self.networks_only})

    @property
    def networks_only(self) -> tuple[str, ...]:
        """Options that go with the method ``ksdiff`` only."""
        return ("checkpoint", "sharpness")


@dataclass(frozen=True, kw_only=True)
class HasCut(Options):
    """Windows and memory."""

    tile: Annotated[
        int | None,
        Option(
            CUTTING,
            "Side of a window in PAN pixels, a multiple of 16 from 64 up. Default: 2048, less if memory is short.",
        ),
    ] = None
    memory: Annotated[
        float | None,
        Option(CUTTING, "What the whole process may take, in GB. Default: 2.", metavar="GB", min=0, above=True),
    ] = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.tile is None:
            return
        checks.check_number("tile", self.tile, 0, whole=True)
        if self.tile < _SMALLEST or self.tile % _ALIGN:
            raise KsdiffError(f"--tile {self.tile}: choose a multiple of {_ALIGN} pixels, at least {_SMALLEST}")


@dataclass(frozen=True, kw_only=True)
class HasThreads(Options):
    """Cores."""

    threads: Annotated[
        int | None, Option(RUNNING, "CPU threads, of each process. Default: all cores.", metavar="N", min=1)
    ] = None


@dataclass(frozen=True, kw_only=True)
class HasDevice(Options):
    """Where networks run."""

    device: Annotated[
        str, Option(RUNNING, "Where a network runs: auto, cpu, cuda, cuda:N or mps. auto takes a CUDA GPU if there is.")
    ] = "auto"


@dataclass(frozen=True, kw_only=True)
class HasSeed(Options):
    """Random numbers."""

    seed: Annotated[
        int,
        Option(
            RUNNING,
            "Seed of every random number; the same seed gives the same bytes.",
            min=0,
            max=LARGEST_SEED,
        ),
    ] = 0


@dataclass(frozen=True, kw_only=True)
class HasOverwrite(Options):
    """What is there already."""

    overwrite: Annotated[
        bool, Option(OUTPUT, "Replace an existing output. Default: refuse, and leave it as it is.")
    ] = False


@dataclass(frozen=True, kw_only=True)
class InfoOptions(HasSrcNodata, HasSensor):
    """How a scene is described."""
