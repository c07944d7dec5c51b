"""Options of exporting a network for a scene."""

from dataclasses import dataclass
from typing import Annotated

from ksdiff_cli.options import METHOD, Option
from ksdiff_cli.options.shared import HasBands, HasOverwrite, HasRegistration, HasSeed, HasSensor, HasSrcNodata, HasWarp


@dataclass(frozen=True, kw_only=True)
class ExportOptions(HasOverwrite, HasSeed, HasRegistration, HasWarp, HasBands, HasSrcNodata, HasSensor):
    """How a scene is read, for its kernels."""

    sharpness: Annotated[
        float,
        Option(METHOD, "How much sharper than PAN results are to be, a share; see ksdiff sharpen.", min=-1, max=2),
    ] = 0.0
