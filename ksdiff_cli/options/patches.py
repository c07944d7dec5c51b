"""Options of making patches, and scenes to make them of."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from ksdiff_cli.checks import Geometry
from ksdiff_cli.errors import KsdiffError
from ksdiff_cli.options import OUTPUT, PATCHES, SCENE, Option, Options
from ksdiff_cli.options.shared import HasOverwrite, HasRegistration, HasSeed, HasSensor, HasSrcNodata, HasWarp


@dataclass(frozen=True)
class PatchOptions(HasOverwrite, HasSeed, HasRegistration, HasWarp, HasSrcNodata, HasSensor):
    """How patches are made; the same options give the same bytes."""

    scenes: tuple[Any, ...] = ()
    """Folders with scenes, scenes found before, or HDF5 files of tiles with gt and pan at equal resolution."""
    output: Annotated[
        Path,
        Option(
            OUTPUT,
            "Folder for train.h5, valid.h5, test.h5, full.h5 and quicklook.png.",
            names=("--output", "-o"),
            metavar="DIR",
        ),
    ] = Path("patches")
    patch: Annotated[int, Option(PATCHES, "Side of a training patch in MS pixels.", min=8)] = 64
    ratio: Annotated[
        int | None,
        Option(
            PATCHES,
            "Degrade by this, PAN pixels per MS pixel. Default: the scene's own ratio (.h5 tiles: 4).",
            min=2,
        ),
    ] = None
    pan_mtf: Annotated[
        float | None,
        Option(PATCHES, "MTF of the reduced PAN at Nyquist, a share. Default: the sensor's.", min=0.01, max=0.99),
    ] = None
    geometry: Annotated[
        Geometry,
        Option(PATCHES, "Reduced pixels by area, as on the ground, or on 4k+2, as in PanCollection."),
    ] = "area"
    max_cloud: Annotated[
        float,
        Option(
            PATCHES,
            "Leave out patches with more cloud or shadow than this share, in percent.",
            metavar="PERCENT",
            min=0,
            max=100,
        ),
    ] = 5.0
    max_saturated: Annotated[
        float,
        Option(
            PATCHES,
            "Leave out patches with more saturated pixels than this share, in percent.",
            metavar="PERCENT",
            min=0,
            max=100,
        ),
    ] = 5.0
    resume: Annotated[
        bool,
        Option(OUTPUT, "Start anew. Default: go on where an interrupted run stopped.", names=("--no-resume",)),
    ] = True

    def check_scenes(self) -> None:
        """Refuse to make patches of nothing.

        Raises:
            KsdiffError: no scene is named.
        """
        if not self.scenes:
            raise KsdiffError("no scene: name folders with scenes, or HDF5 files of tiles")


@dataclass(frozen=True, kw_only=True)
class Simulated(Options):
    """The scene."""

    size: Annotated[int, Option(SCENE, "Side of the PAN image in pixels, a multiple of the ratio.", min=1)] = 1024
    bands: Annotated[int | None, Option(SCENE, "MS bands, 4 or 8. Default: the sensor's, else 4.")] = None
    ratio: Annotated[
        int | None, Option(SCENE, "PAN pixels per MS pixel along a side, 2 to 8. Default: the sensor's, else 4.")
    ] = None
    noise: Annotated[float, Option(SCENE, "Times the usual noise of PAN and MS; 0 for none.", metavar="FACTOR")] = 1.0
    shift: Annotated[
        tuple[float, float],
        Option(SCENE, "Misregistration: MS pixels by which MS lies too far down and right.", metavar="ROWS COLS"),
    ] = (0.0, 0.0)


@dataclass(frozen=True, kw_only=True)
class SimulateOptions(HasSeed, HasOverwrite, HasSensor, Simulated):
    """What is simulated, with whose camera; the same options give the same bytes."""
