"""Options, each written once: its type, default, range, help and panel are a field of a frozen dataclass.

The object checks itself. :func:`keywords` makes Python's arguments of the fields, ``commands.options.takes`` those of
the command line, so that both call one function with one object. Imports: checks, errors, sensors.
"""

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import wraps
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from ksdiff_cli.checks import check_choice, check_number

INPUTS = "Inputs"
OUTPUT = "Output"
SCENE = "Scene"
PATCHES = "Patches"
MEASURING = "Measuring"
METHOD = "Method"
ALIGNMENT = "PAN against MS"
CUTTING = "Cutting and memory"
CLUSTER = "Many scenes, many processes"
VIEWING = "Viewing"
TRAINING = "Training"
NETWORK = "Network"
RUNNING = "Running"
"""Panels of ``--help``, the same names in every command."""

Returned = TypeVar("Returned")


@dataclass(frozen=True)
class Option:
    """What people and programs must know of an option beside its type and default."""

    panel: str
    """Of ``--help``."""
    help: str
    """Says the unit, and the default where that is None."""
    names: tuple[str, ...] = ()
    """On the command line; () is the field's name, with hyphens."""
    metavar: str | None = None
    min: float | None = None
    max: float | None = None
    above: bool = False
    """Whether ``min`` itself is refused."""
    typed: Any = None
    """Type on the command line, where it is not the field's; what is typed goes through ``read``."""
    read: Callable[[Any], Any] | None = None
    """Turns what was typed into the field's value; raises KsdiffError."""
    flags: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """Flags in place of the option: name -> the value that it stands for, and its help."""
    more: Mapping[str, Any] = field(default_factory=dict)
    """For ``typer.Option``."""


def repeated(panel: str, help: str, metavar: str, of: type = str, **more: Any) -> Option:
    """Return an option that may be given several times; the field is a tuple of what was given, in order."""
    return Option(panel, help, metavar=metavar, typed=list[of] | None, **({"read": tuple} | more))  # type: ignore[valid-type]


@dataclass(frozen=True)
class Options:
    """Base of options: every field that is annotated with an :class:`Option` is checked when an object is made."""

    def __post_init__(self) -> None:
        """Check types and ranges; paths may be given as text.

        Raises:
            KsdiffError: a value is none of its names, or out of its range.
        """
        for name, (kind, option) in options_of(type(self)).items():
            object.__setattr__(self, name, check_value(name, getattr(self, name), kind, option))


def check_value(name: str, value: Any, kind: Any, option: Option) -> Any:
    """Return a value of a field; texts that stand for paths as paths.

    Args:
        name: what the person calls it.
        value: what was given.
        kind: the field's type; None will do where it says so.
        option: the field's option, with its range.

    Raises:
        KsdiffError: it is none of the type's names, or out of range.
    """
    kinds = kinds_of(kind)
    if value is None and NoneType in kinds:
        return None
    choices = next((each for each in kinds if get_origin(each) is Literal), None)
    if choices is not None and not (set(kinds) - {choices, NoneType}):
        check_choice(name, value, choices)
    elif Path in kinds:
        return Path(value)
    elif kind == tuple[Path, ...]:
        return tuple(map(Path, value))
    elif option.min is not None or option.max is not None:
        least, most = (
            math.copysign(math.inf, sign) if end is None else end for sign, end in ((-1, option.min), (1, option.max))
        )
        check_number(name, value, least, most, whole=float not in kinds, above=option.above)
    return value


def kinds_of(kind: Any) -> tuple[Any, ...]:
    """Return the members of a union, or the type itself."""
    return get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)


def options_of(kind: type[Options]) -> Mapping[str, tuple[Any, Option]]:
    """Return the options among a dataclass's fields, in order: name -> type and option."""
    hints = get_type_hints(kind, include_extras=True)
    found = {}
    for one in fields(kind):
        hint = hints[one.name]
        if get_origin(hint) is Annotated:
            option = next((extra for extra in hint.__metadata__ if isinstance(extra, Option)), None)
            if option is not None:
                found[one.name] = (hint.__origin__, option)
    return found


def default_of(kind: type[Options], name: str) -> Any:
    """Return the default of a field."""
    one = next(each for each in fields(kind) if each.name == name)
    return one.default_factory() if callable(one.default_factory) else one.default


def keywords(kind: type[Options]) -> Callable[[Callable[..., Returned]], Callable[..., Returned]]:
    """Let a function that takes ``options`` be called with the fields of ``kind`` as keywords instead, or besides.

    Signature and docstring say so. What the function takes by a field's name is its own.
    """

    def decorate(function: Callable[..., Returned]) -> Callable[..., Returned]:
        own = [one for one in inspect.signature(function).parameters.values() if one.name != "options"]
        known = {name: one for name, one in options_of(kind).items() if name not in {each.name for each in own}}

        @wraps(function)
        def call(*arguments: Any, options: Any = None, **given: Any) -> Returned:
            chosen = {name: given.pop(name) for name in known.keys() & given.keys()}
            options = kind(**chosen) if options is None else replace(options, **chosen)
            return function(*arguments, options=options, **given)

        made = [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default_of(kind, name), annotation=each)
            for name, (each, _) in known.items()
        ]
        given = inspect.Parameter("options", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=kind | None)
        call.__signature__ = inspect.signature(function).replace(parameters=[*own, given, *made])  # type: ignore[attr-defined]
        lines = [f"    {name}: {_sentence(option)}" for name, (_, option) in known.items()]
        listed = "\n".join(["Keywords in place of ``options``:", *lines])
        call.__doc__ = f"{inspect.cleandoc(function.__doc__ or '')}\n\n{listed}\n"
        return call

    return decorate


def _sentence(option: Option) -> str:
    values = "; ".join(f"{value!r}: {help}" for value, help in option.flags.values())
    return " ".join(part for part in (option.help, values) if part)
