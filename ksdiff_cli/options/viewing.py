"""Options of looking at scenes."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, get_args

from ksdiff_cli.checks import MethodName
from ksdiff_cli.errors import KsdiffError, did_you_mean
from ksdiff_cli.options import METHOD, RUNNING, VIEWING, Option
from ksdiff_cli.options.shared import HasDevice, HasSensor, HasSrcNodata, named_methods


def read_place(text: str) -> tuple[float, ...]:
    """Return what ``--at`` says: row, column and, if given, zoom."""
    try:
        found = tuple(float(number) for number in text.split(","))
    except ValueError:
        found = ()
    if len(found) not in (2, 3) or not all(abs(number) < 1e9 for number in found):
        raise KsdiffError(f"--at takes ROW,COL or ROW,COL,ZOOM, not {text}")
    return found


@dataclass(frozen=True, kw_only=True)
class ViewOptions(HasDevice, HasSrcNodata, HasSensor):
    """What is shown besides the rasters that are named, where it begins, and to whom."""

    methods: Annotated[
        Sequence[str],
        named_methods(
            "Sharpen PAN and MS by this method while you look, just the windows that you look at; may be repeated. "
            "Default: none."
        ),
    ] = ()
    checkpoint: Annotated[
        Path | None,
        Option(
            METHOD,
            "Weights of the method ksdiff (.safetensors). Default: those shipped with the package.",
            metavar="FILE",
        ),
    ] = None
    tour: Annotated[
        bool,
        Option(
            VIEWING,
            "Find places worth a look, which n and p step through: where results differ, edges, what PAN and MS leave "
            "unexplained, flat areas.",
        ),
    ] = False
    at: Annotated[
        tuple[float, ...],
        Option(
            VIEWING,
            "Begin there, in pixels of the finest layer, from 0; ZOOM in screen pixels a pixel, 8 at most. "
            "Default: all of the scene.",
            metavar="ROW,COL[,ZOOM]",
            typed=str | None,
            read=read_place,
        ),
    ] = ()
    browser: Annotated[
        bool,
        Option(
            VIEWING,
            "Print the address only. Default: open it where there is a screen.",
            names=("--no-browser",),
        ),
    ] = True
    host: Annotated[
        str,
        Option(
            VIEWING,
            "Address to listen on. With another one than 127.0.0.1 whoever reaches this machine and has the page's "
            "address sees the scene.",
            metavar="ADDRESS",
        ),
    ] = "127.0.0.1"
    port: Annotated[
        int | None,
        Option(
            VIEWING,
            "Port to listen on. Default: 8765, or any free one where that is taken.",
            metavar="N",
            min=1,
            max=65535,
        ),
    ] = None
    memory: Annotated[
        float, Option(RUNNING, "Pixels kept in memory at most, in GB.", metavar="GB", min=0, above=True)
    ] = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        known = get_args(MethodName)
        for name in self.methods:
            if name not in known:
                hint = did_you_mean(name, known) or ";"
                raise KsdiffError(f"methods knows no {name!r}{hint} choose from {', '.join(known)}")
        if self.checkpoint and "ksdiff" not in self.methods:
            raise KsdiffError("checkpoint goes with --method ksdiff")
