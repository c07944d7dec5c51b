"""Options of exporting a network for a scene."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from ksdiff_cli.options import INPUTS, METHOD, Option
from ksdiff_cli.options.shared import HasOverwrite, HasRegistration, HasSeed, HasSensor, HasSrcNodata, HasWarp
from ksdiff_cli.options.sharpening import read_bands


@dataclass(frozen=True, kw_only=True)
class ExportOptions(HasOverwrite, HasSeed, HasRegistration, HasWarp, HasSrcNodata, HasSensor):
    """How a scene is read, for its kernels."""

    bands: Annotated[
        Sequence[int | str],
        Option(
            INPUTS,
            "MS bands, by number from 1 or by name, in this order: -b 3,2,1 or -b red -b green. Default: all.",
            names=("--bidx", "-b"),
            metavar="BAND,…",
            typed=list[str] | None,
            read=read_bands,
        ),
    ] = ()
    sharpness: Annotated[
        float,
        Option(METHOD, "How much sharper than PAN results are to be, a share; see ksdiff sharpen.", min=-1, max=2),
    ] = 0.0
