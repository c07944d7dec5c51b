"""The ksdiff program: registers the commands and turns expected failures into one line."""

import errno
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup, TyperOption

from ksdiff_cli._version import __version__
from ksdiff_cli.commands import (
    doctor,
    evaluate,
    export,
    info,
    metrics,
    prepare_data,
    qgis,
    sharpen,
    simulate,
    train,
    view,
)
from ksdiff_cli.commands.console import explain, is_usage, stderr
from ksdiff_cli.errors import KsdiffError

# without a handler Python prints GDAL's warnings, dozens for one full disk, before our one line
logging.getLogger("rasterio").addHandler(logging.NullHandler())

for _number in range(3):  # a closed stream's number would go to the next file, and messages into that
    try:
        os.fstat(_number)
    except OSError:
        os.open(os.devnull, os.O_RDWR)

_OF_THE_MACHINE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO, errno.EMFILE, errno.ENFILE}
_LONGEST = 10_000  # signs of a message, which may quote a file; two long paths fit


class ErrorBorder(TyperGroup):
    """The one place where expected failures become one line, ``Error: …``; anything else keeps its traceback.

    Exit code 1 where the work failed, 2 where the command line was wrong.
    """

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        """Read what stands before the command; see the class."""
        with _border(lambda: self.name or "ksdiff"):
            return super().make_context(info_name, args, parent, **extra)

    def invoke(self, ctx: Any) -> Any:
        """Run a command; see the class."""
        with _border(lambda: f"ksdiff {ctx.invoked_subcommand or ''}".strip()):
            return super().invoke(ctx)


class EachOnce(TyperCommand):
    """A command that refuses an option given twice, of which one value would silently not count."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read what stands behind the command; see the class."""
        if not ctx.resilient_parsing:  # as completion does, of lines that are not finished
            order = self.make_parser(ctx).parse_args(args=list(args))[2]
            for one in order:
                if isinstance(one, TyperOption) and not (one.multiple or one.is_flag) and order.count(one) > 1:
                    raise typer.BadParameter("is given twice: leave one out", ctx=ctx, param=one)
        return super().parse_args(ctx, args)


@contextmanager
def _border(command: Callable[[], str]) -> Iterator[None]:
    try:
        yield
        return
    except KsdiffError as error:
        message, code = str(error), 1
    except Exception as error:
        if is_usage(error):
            message, code = explain(error, command()), 2
        elif _is_expected(error):
            message, code = str(error), 1
        elif isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:  # wherever a path is first looked at
            message, code = f"{error.filename}: is too long for a file's name; check the path", 1
        elif isinstance(error, OSError) and error.errno in _OF_THE_MACHINE:
            where = f"{error.filename}: " if error.filename else ""
            message, code = f"{where}{error.strerror}; see to the disk, or the limits that processes have", 1
        elif isinstance(error, UnicodeEncodeError) and any("\ud800" <= sign <= "\udfff" for sign in error.object):
            message, code = f"{error.object}: its name is not valid UTF-8, which GDAL needs; choose another", 1
        elif _is_of_memory(error):
            message, code = "the memory that this process may have does not suffice; give a smaller --tile or image", 1
        else:
            raise
    if len(message) > _LONGEST:
        message = f"{message[: _LONGEST // 2]} … {message[-_LONGEST // 2 :]}"
    stderr.print(f"Error: {message}", soft_wrap=True, markup=False)
    raise typer.Exit(code)


def _is_of_memory(error: Exception) -> bool:
    """Say whether memory was refused: by the system, to torch, or to a library that was to be loaded."""
    words = str(error).lower()
    return isinstance(error, MemoryError) or any(
        part in words for part in ("can't allocate memory", "cannot allocate memory", "failed to map segment")
    )


def _is_expected(error: Exception) -> bool:
    """Say whether a library's error describes bad input; looked up by name so that no heavy import is needed here."""
    names = {f"{kind.__module__}.{kind.__name__}" for kind in type(error).__mro__}
    return bool(names & {"rasterio.errors.RasterioError", "ksdiff_cli.models.contract.ModelError"})


app = typer.Typer(
    name="ksdiff",
    cls=ErrorBorder,
    help="Sharpen whole satellite scenes: fuse a panchromatic band with multispectral bands by KSDiff.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_show_locals=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"ksdiff {__version__}")
        raise typer.Exit


@app.callback()
def ksdiff(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    """Sharpen whole satellite scenes: fuse a panchromatic band with multispectral bands by KSDiff."""


SHARPEN, LEARN, MORE = "Sharpen scenes", "Train and compare", "Elsewhere, and when in doubt"
"""Panels of ``--help``, and their commands, in the order in which people need them."""
for _name, _panel, _command in (
    ("sharpen", SHARPEN, sharpen.sharpen),
    ("metrics", SHARPEN, metrics.metrics),
    ("info", SHARPEN, info.info),
    ("view", SHARPEN, view.view),
    ("prepare-data", LEARN, prepare_data.prepare_data),
    ("train", LEARN, train.train),
    ("evaluate", LEARN, evaluate.evaluate),
    ("export", MORE, export.export),
    ("qgis", MORE, qgis.qgis),
    ("simulate", MORE, simulate.simulate),
    ("doctor", MORE, doctor.doctor),
):
    app.command(_name, cls=EachOnce, rich_help_panel=_panel)(_command)
