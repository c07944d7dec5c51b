"""ksdiff view: look at whole scenes in a browser."""

from collections.abc import Sequence
from typing import Annotated

from ksdiff_cli.commands import options as typed
from ksdiff_cli.commands.console import note, stdout
from ksdiff_cli.options.viewing import ViewOptions


@typed.takes
def view(
    inputs: Annotated[
        list[str],
        typed.argument(
            metavar="[PAN MS | SCENE] OUT…",
            help="Rasters of one place, up to six layers: PAN and MS or a scene's folder or archive first, then "
            "results and maps; or results alone.",
        ),
    ],
    options: ViewOptions,
    quiet: typed.Quiet = False,
) -> None:
    """Look at PAN, MS and results at every zoom, side by side or one over the other, in a browser.

    It serves a page on this machine alone, with a secret in its address, until Ctrl-C; nothing is written. On a server,
    start it there and, on your own machine, `ssh -N -L 8765:127.0.0.1:8765 you@server`; then open the printed address.

    Example: ksdiff view pan.tif ms.tif out.tif

    Example: ksdiff view scene/ --method gsa --method ksdiff --tour
    """
    show_until_closed(inputs, options, quiet=quiet)


def show_until_closed(inputs: Sequence[str], options: ViewOptions, *, quiet: bool) -> None:
    """Serve a view until Ctrl-C; print its address, then notes."""
    from ksdiff_cli.view import check_installed

    check_installed()
    from ksdiff_cli.view.opening import show

    told: list[str] = []

    def tell(line: str) -> None:
        if told:
            note(line, quiet=quiet)
        else:
            stdout.print(line, soft_wrap=True, markup=False)
            stdout.file.flush()  # whoever reads a pipe waits for the address
            note("Ctrl-C ends it.", quiet=quiet)
        told.append(line)

    show(inputs, options, tell)
