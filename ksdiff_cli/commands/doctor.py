"""ksdiff doctor: is everything here that ksdiff needs?"""

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from ksdiff_cli.commands import options
from ksdiff_cli.commands.console import print_json, stdout
from ksdiff_cli.errors import printable

if TYPE_CHECKING:
    from ksdiff_cli.commands.diagnosis import Finding

_STYLES = {"ok": "green", "warning": "yellow", "problem": "bold red"}


def doctor(json: options.Json = False) -> None:
    """Look whether everything is here that ksdiff needs: libraries, GPUs, GDAL, disk, memory and the shipped weights.

    Each line is ok, a warning or a problem, with what to do about it; exit code 1 if there is a problem.

    Example: ksdiff doctor

    Example: ksdiff doctor --json > machine.json
    """
    from ksdiff_cli.commands.diagnosis import diagnose, is_broken, to_dict

    found = diagnose(Path.cwd())
    if json:
        print_json(to_dict(found))
    else:
        _print(found)
    if is_broken(found):
        raise typer.Exit(1)


def _print(found: "list[Finding]") -> None:
    from rich.text import Text

    for one in found:
        line = Text(f"{one.status:<8}", _STYLES[one.status]).append(printable(f" {one.name}: {one.text}"), "default")
        stdout.print(line, soft_wrap=True)
        if one.step:
            stdout.print(Text(printable(f"{'':<8} -> {one.step}")), soft_wrap=True)
