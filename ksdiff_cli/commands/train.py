"""ksdiff train: patches in, weights out."""

import os

import typer

from ksdiff_cli.commands import options as typed
from ksdiff_cli.commands.console import note, progress
from ksdiff_cli.errors import printable
from ksdiff_cli.options.training import TrainOptions


@typed.takes
def train(options: TrainOptions, quiet: typed.Quiet = False) -> None:
    """Train KSDiff on patches: stage 1, stage 2 or both.

    Example: ksdiff train --stage all --data patches -o runs

    Example, four GPUs: torchrun --nproc-per-node=4 -m ksdiff_cli train --stage 1
    """
    from ksdiff_cli.training import stages

    leads = os.environ.get("RANK", "0") == "0"  # torchrun's other processes say nothing
    quiet = quiet or not leads
    with progress("train", quiet=quiet) as report:
        made = stages.train(options, progress=report, note=lambda line: note(line, quiet=quiet))
    for path in made if leads else ():
        typer.echo(printable(str(path)))
