"""From options to the command line: their fields become Typer's parameters."""

import inspect
from collections.abc import Callable
from functools import wraps
from types import NoneType
from typing import Annotated, Any

import typer

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
    "option",
    "takes",
]


def option(panel: str, *names: str, help: str, **more: Any) -> Any:
    """Return an option of a panel; see ``typer.Option`` for the rest. Square brackets of its help are no markup."""
    return typer.Option(*names, help=help.replace("[", r"\["), rich_help_panel=panel, **more)


def argument(*, help: str, metavar: str, **more: Any) -> Any:
    """Return an argument; see ``typer.Argument`` for the rest."""
    return typer.Argument(help=help, metavar=metavar, show_default=False, **more)


def takes(function: Callable[..., None]) -> Callable[..., None]:
    """Give a command, in place of each parameter that is an :class:`Options` object, one for each field of it.

    Values that cannot be are bad usage: one line, exit code 2.
    """
    own = inspect.signature(function).parameters.values()
    kinds: dict[str, type[Options]] = {
        one.name: one.annotation
        for one in own
        if inspect.isclass(one.annotation) and issubclass(one.annotation, Options)
    }

    @wraps(function)
    def command(**given: Any) -> None:
        made = {}
        for name, kind in kinds.items():
            try:
                made[name] = kind(**{key: value for key, value in _chosen(kind, given) if value is not None})
            except KsdiffError as error:
                raise typer.BadParameter(_spelled(kind, str(error))) from None
        function(**made, **given)

    parameters: list[inspect.Parameter] = []
    for one in own:
        parameters += _parameters(kinds[one.name]) if one.name in kinds else [_keyword(one)]
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {one.name: one.annotation for one in parameters}
    del command.__wrapped__
    return command


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


Quiet = Annotated[bool, option(RUNNING, "--quiet", "-q", help="No progress and no notes on stderr.")]
Json = Annotated[bool, option(OUTPUT, "--json", help="Print one JSON object on stdout instead of a table.")]
