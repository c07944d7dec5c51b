"""From options to the command line: their fields become Typer's parameters."""

import inspect
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, get_args

import typer

from ksdiff_cli.checks import MethodName
from ksdiff_cli.errors import KsdiffError
from ksdiff_cli.options import (
    ALIGNMENT,
    CLUSTER,
    CUTTING,
    INPUTS,
    MEASURING,
    METHOD,
    NETWORK,
    OUTPUT,
    PATCHES,
    RUNNING,
    SCENE,
    TRAINING,
    VIEWING,
    Option,
    Options,
    default_of,
    kinds_of,
    options_of,
)
from ksdiff_cli.options.measuring import MeasureOptions
from ksdiff_cli.options.shared import (
    HasDevice,
    HasOverwrite,
    HasSeed,
    HasSensor,
    HasSrcNodata,
    HasThreads,
    read_src_nodata,
)

__all__ = [
    "ALIGNMENT",
    "CLUSTER",
    "CUTTING",
    "INPUTS",
    "MEASURING",
    "METHOD",
    "NETWORK",
    "OUTPUT",
    "PATCHES",
    "RUNNING",
    "SCENE",
    "TRAINING",
    "VIEWING",
    "argument",
    "complete_method",
    "option",
    "takes",
]


def complete_method(incomplete: str) -> list[str]:
    """Return the methods whose names begin as typed, for the shell."""
    return [name for name in get_args(MethodName) if name.startswith(incomplete)]


def option(panel: str, *names: str, help: str, **more: Any) -> Any:
    """Return an option of a panel; see ``typer.Option`` for the rest. Square brackets of its help are no markup."""
    return typer.Option(*names, help=help.replace("[", r"\["), rich_help_panel=panel, **more)


def argument(*, help: str, metavar: str, **more: Any) -> Any:
    """Return an argument; see ``typer.Argument`` for the rest."""
    return typer.Argument(help=help, metavar=metavar, show_default=False, **more)


def typed(kind: type[Options], name: str) -> Any:
    """Return a field of options as Typer's annotation, for commands that have no options object of their own."""
    each, one = options_of(kind)[name]
    return Annotated[one.typed or each, _typer_option(name, each, one)]


def takes(kind: type[Options]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the options of a class: in place of its parameter ``options`` it gets one for each field.

    Values that cannot be are bad usage: one line, exit code 2.
    """

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        @wraps(function)
        def command(**given: Any) -> None:
            try:
                options = kind(**{name: value for name, value in _chosen(kind, given) if value is not None})
            except KsdiffError as error:
                raise typer.BadParameter(_spelled(kind, str(error))) from None
            function(options=options, **given)

        parameters = []
        for one in inspect.signature(function).parameters.values():
            parameters += _parameters(kind) if one.name == "options" else [_keyword(one)]
        command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        command.__annotations__ = {one.name: one.annotation for one in parameters}
        del command.__wrapped__
        return command

    return decorate


def read_nodata(text: str | None) -> Any:
    """Return what ``--src-nodata`` says of PAN and of MS.

    Raises:
        typer.BadParameter: it says nothing that is understood.
    """
    try:
        return (None, None) if text is None else read_src_nodata(text)
    except KsdiffError as error:
        raise typer.BadParameter(str(error)) from None


def _keyword(one: inspect.Parameter) -> inspect.Parameter:
    return one.replace(kind=inspect.Parameter.KEYWORD_ONLY)


def _parameters(kind: type[Options]) -> list[inspect.Parameter]:
    found: list[tuple[str, Any, Any]] = []
    for name, (each, one) in options_of(kind).items():
        for flag, (_, help) in one.flags.items():
            found.append((_parameter(flag), Annotated[bool, option(one.panel, flag, help=help)], False))
        if not one.flags:
            default = default_of(kind, name)
            # a flag that says no is not given by default; what is typed in another form has no default of that form
            shown = None if one.typed else False if default is True else default
            found.append((name, Annotated[one.typed or each, _typer_option(name, each, one)], shown))
    return [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
        for name, annotation, default in found
    ]


def _parameter(flag: str) -> str:
    return flag.strip("-").replace("-", "_")


def _names(name: str, one: Option) -> tuple[str, ...]:
    return one.names or (f"--{name.replace('_', '-')}",)


def _typer_option(name: str, each: Any, one: Option) -> Any:
    more = dict(one.more)
    if set(kinds_of(each)) <= {int, float, NoneType}:
        more |= {"min": None if one.above else one.min, "max": one.max}
    return option(one.panel, *_names(name, one), help=one.help, metavar=one.metavar, **more)


def _chosen(kind: type[Options], given: dict[str, Any]) -> list[tuple[str, Any]]:
    """Take what was typed for the options out of ``given``; None for what was not."""
    found: list[tuple[str, Any]] = []
    for name, (_, one) in options_of(kind).items():
        if one.flags:
            set_flags = [flag for flag in one.flags if given.pop(_parameter(flag))]
            if len(set_flags) > 1:
                raise KsdiffError(f"{set_flags[0]} and {set_flags[1]} exclude each other: leave one out")
            found.append((name, one.flags[set_flags[0]][0] if set_flags else None))
            continue
        value = given.pop(name)
        if default_of(kind, name) is True:
            value = not value
        if one.read is not None:
            value = None if value in (None, []) else one.read(value)
        found.append((name, value))
    return found


def _spelled(kind: type[Options], text: str) -> str:
    """Return a message in which a field that it begins with, or names behind that, is called as on the command line."""
    first, _, rest = text.partition(" ")
    if first not in options_of(kind):
        return text
    rest = rest.replace("goes with method ", "goes with --method ")
    return f"{_names(first, options_of(kind)[first][1])[0]} {rest}"


Seed = typed(HasSeed, "seed")
Device = typed(HasDevice, "device")
Threads = typed(HasThreads, "threads")
SensorName = typed(HasSensor, "sensor")
SrcNodata = typed(HasSrcNodata, "src_nodata")
ReportFile = typed(MeasureOptions, "report")
Overwrite = typed(HasOverwrite, "overwrite")
Quiet = Annotated[bool, option(RUNNING, "--quiet", "-q", help="No progress and no notes on stderr.")]
Json = Annotated[bool, option(OUTPUT, "--json", help="Print one JSON object on stdout instead of a table.")]
Workers = Annotated[
    int | None,
    option(
        CLUSTER,
        "--workers",
        metavar="N",
        min=1,
        help="Make windows in N processes on this machine, through Dask (pip install 'ksdiff[distributed]'). "
        "Default: in this process.",
    ),
]
Scheduler = Annotated[
    str | None,
    option(
        CLUSTER,
        "--scheduler",
        metavar="URL",
        help="Make windows by the workers of a Dask scheduler: tcp://host:8786, or the JSON file that it wrote. "
        "They must see inputs and output under the paths given here. Default: in this process.",
    ),
]
Tls = Annotated[
    str | None,
    option(
        CLUSTER,
        "--tls",
        metavar="CA,CERT,KEY",
        help="Encrypt and authenticate by these PEM files what goes to workers, of --workers or of a --scheduler "
        "tls://host:8786; see docs/trust.md. Default: what Dask's own settings say; else neither.",
    ),
]
Batch = Annotated[
    Path | None,
    option(
        CLUSTER,
        "--batch",
        metavar="LIST.csv|DIR",
        help="Many scenes: a folder of products, or a list with columns scene, or pan and ms, and if you like name and "
        "sensor. -o is a folder then; a scene that fails does not stop the others; what is there already is kept. "
        "Default: one scene, named by its files.",
    ),
]
Mosaic = Annotated[
    Path | None,
    option(
        CLUSTER,
        "--mosaic",
        metavar="FILE.vrt",
        help="With --batch: a virtual raster that shows all outputs as one, the later ones on top; they must share one "
        "grid. One that is there is replaced. Default: none.",
    ),
]
