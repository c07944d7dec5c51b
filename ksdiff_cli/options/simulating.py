"""Options of simulating a scene."""

from dataclasses import dataclass
from typing import Annotated

from ksdiff_cli.options import SCENE, Option, Options
from ksdiff_cli.options.shared import HasOverwrite, HasSeed, HasSensor


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
