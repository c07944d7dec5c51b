"""ksdiff qgis: put the plugin into a QGIS profile."""

from pathlib import Path
from typing import Annotated

import typer

from ksdiff_cli.commands import options as typed
from ksdiff_cli.commands.console import note, stdout
from ksdiff_cli.options.shared import HasOverwrite


@typed.takes
def qgis(
    options: HasOverwrite,
    profile: Annotated[
        str | None,
        typed.option(
            typed.OUTPUT, "--profile", metavar="NAME", help="Profile of QGIS to put the plugin into. Default: default."
        ),
    ] = None,
    folder: Annotated[
        Path | None,
        typed.option(typed.OUTPUT, "--folder", metavar="DIR", help="Folder of plugins. Default: the profile's."),
    ] = None,
    quiet: typed.Quiet = False,
) -> None:
    """Put ksdiff's plugin into QGIS: sharpen, metrics and info in its Processing toolbox, done by this installation.

    Enable it once, under Plugins, or with: qgis_process plugins enable ksdiff

    Example: ksdiff qgis
    """
    if profile is not None and folder is not None:
        raise typer.BadParameter("--folder names a folder of plugins, --profile finds one: leave one out")
    from ksdiff_cli.qgis import install, plugin_folder

    made = install(plugin_folder(profile or "default", folder), overwrite=options.overwrite)
    stdout.print(str(made), soft_wrap=True, markup=False)
    note("Enable it under Plugins, or with: qgis_process plugins enable ksdiff", quiet=quiet)
