"""The ksdiff program: registers the commands and turns expected failures into one line."""

import logging
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from ksdiff_cli import __version__
from ksdiff_cli.commands import evaluate, info, metrics, prepare_data, sharpen, simulate, train
from ksdiff_cli.console import stderr
from ksdiff_cli.errors import KsdiffError

# without a handler Python prints GDAL's warnings, dozens for one full disk, before our one line
logging.getLogger("rasterio").addHandler(logging.NullHandler())


class ErrorBorder(TyperGroup):
    """The one place where expected failures become ``Error: …`` and exit 1; anything else keeps its traceback."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command line; see the class."""
        try:
            return super().invoke(ctx)
        except KsdiffError as error:
            message = str(error)
        except Exception as error:
            if not _is_expected(error):
                raise
            message = str(error)
        stderr.print(f"Error: {message}", soft_wrap=True, markup=False)
        raise typer.Exit(1)


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


app.command("simulate")(simulate.simulate)
app.command("prepare-data")(prepare_data.prepare_data)
app.command("train")(train.train)
app.command("evaluate")(evaluate.evaluate)
app.command("sharpen")(sharpen.sharpen)
app.command("metrics")(metrics.metrics)
app.command("info")(info.info)
