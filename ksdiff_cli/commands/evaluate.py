"""ksdiff evaluate: methods and weights compared over test files."""

import math
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from ksdiff_cli.commands import options
from ksdiff_cli.commands.console import cell, note, print_json, print_table, progress, stdout

if TYPE_CHECKING:
    from ksdiff_cli.evaluation.results import Evaluation

_COLUMNS = 7  # metrics of a table
_SHIFTS = 20  # images whose shift is printed


def evaluate(
    data: Annotated[
        list[Path],
        options.argument(
            metavar="DATA…",
            help="Files of prepare-data or PanCollection (.h5, .mat); a folder stands for its test.h5 (full: its "
            "full.h5).",
        ),
    ],
    checkpoint: Annotated[
        list[Path] | None,
        options.option(
            options.METHOD,
            "--checkpoint",
            metavar="FILE",
            help="Weights to compare (.safetensors); may be repeated. Default: the shipped weights, ksdiff.",
        ),
    ] = None,
    method: Annotated[
        list[str] | None,
        options.option(
            options.METHOD,
            "--method",
            metavar="NAME",
            autocompletion=options.complete_method,
            help="Method to compare with, by name (ksdiff sharpen --help lists them); may be repeated. Default: all.",
        ),
    ] = None,
    protocol: Annotated[
        Literal["reduced", "full"],
        options.option(
            options.MEASURING,
            "--protocol",
            help="reduced: against the ground truth. full: against PAN and MS, without a truth.",
        ),
    ] = "reduced",
    crop: Annotated[
        Literal["full", "cut21", "cut30"] | None,
        options.option(
            options.MEASURING,
            "--crop",
            help="Reduced protocol: measure everything, or leave out a border of 21 or 30 px. Default: full.",
        ),
    ] = None,
    sensor: options.SensorName = None,
    prior: Annotated[
        Literal["own", "shuffled", "mean", "zero", "true"],
        options.option(
            options.METHOD,
            "--prior",
            help="What networks get as z: their own, another image's, the mean of the others of the file, zeros, or "
            "the truth's (stage-1 weights).",
        ),
    ] = "own",
    scaling: Annotated[
        Literal["image", "scene"],
        options.option(
            options.METHOD,
            "--scaling",
            help="What networks standardise by: each image by itself, as sharpen would were it the whole scene; or the "
            "scene that a file states for it, else all images of the file together.",
        ),
    ] = "image",
    draws: Annotated[
        int,
        options.option(
            options.METHOD,
            "--draws",
            min=1,
            metavar="N",
            help="Draws of z_T; from 2 on the deviation over draws is shown for networks that have some.",
        ),
    ] = 1,
    csv: Annotated[
        Path | None,
        options.option(
            options.OUTPUT,
            "--csv",
            metavar="OUT.csv",
            help="Write every method's values, one row an image. Default: no file.",
        ),
    ] = None,
    latents: Annotated[
        Path | None,
        options.option(
            options.OUTPUT,
            "--latents",
            metavar="OUT.png | OUT.npz",
            help="Draw the prior's z of every image by what the image shows (the report has it too), or write it. "
            "Default: no file.",
        ),
    ] = None,
    report: options.ReportFile = None,
    device: options.Device = "auto",
    seed: options.Seed = 0,
    overwrite: options.Overwrite = False,
    quiet: options.Quiet = False,
    as_json: options.Json = False,
) -> None:
    """Compare methods: quality on every image of test files, mean and deviation, and time per image.

    Example: ksdiff evaluate patches/test.h5 --checkpoint runs/stage2.safetensors --report report.html

    Example: ksdiff evaluate patches/full.h5 --protocol full --method gsa --method bt-h
    """
    if protocol == "full" and crop is not None:
        raise typer.BadParameter("--crop goes with --protocol reduced")

    from ksdiff_cli.process import wait_quietly

    wait_quietly()  # before torch is loaded
    from ksdiff_cli import api_learning

    with progress("evaluate", quiet=quiet) as tell:
        found = api_learning.evaluate(
            *data,
            methods=method or (),
            checkpoints=checkpoint or (),
            protocol=protocol,
            crop=crop or "full",
            sensor=sensor,
            prior=prior,
            scaling=scaling,
            draws=draws,
            csv=csv,
            latents=latents,
            report=report,
            command=shlex.join(["ksdiff", *sys.argv[1:]]),
            overwrite=overwrite,
            device=device,
            seed=seed,
            progress=tell,
        )
    if as_json:
        print_json(found.to_dict())
    else:
        _print_table(found)
    for line in found.notes:
        note(line, quiet=quiet)
    for path in (csv, latents, report):
        if path is not None:
            note(f"written: {path}", quiet=quiet)


def _print_table(found: "Evaluation") -> None:
    """Print methods by metrics, the best in bold, the second underlined; and what is known of the differences."""
    from rich.table import Table

    from ksdiff_cli.classical import METHODS
    from ksdiff_cli.metrics import ABOUT

    crop = f", crop {found.crop}" if found.protocol == "reduced" else ""
    title = f"{found.protocol} resolution{crop}, {len(found.images)} image(s), mean ± std, SAM {found.facts['SAM']}"
    for start in range(0, len(found.metrics), _COLUMNS):
        names = found.metrics[start : start + _COLUMNS]
        table = Table(title=None if start else title, title_justify="left")
        table.add_column("method", no_wrap=True)
        for name in names:
            table.add_column(f"{name} {ABOUT[name].arrow}", justify="right", min_width=8)
        table.add_column("s/image", justify="right", no_wrap=True)
        places = {name: found.ranks(name) for name in names}
        for method, result in found.methods.items():
            cells = []
            for name in names:
                text = _figure(result.mean(name), result.std(name))
                style = {1: "bold", 2: "underline"}.get(places[name].get(method, 0))
                cells.append(f"[{style}]{text}[/]" if style else text)
            table.add_row(cell(method), *cells, f"{result.runtime:.3f}")
        print_table(table)
    if found.shifts:
        means = [shift.mean for shift in found.shifts[:_SHIFTS]]
        shown = ", ".join(f"{number} ({row:+.1f}, {col:+.1f})" for number, (row, col) in enumerate(means))
        more = f" … (all {len(found.shifts)} with --json or --csv)" if len(found.shifts) > _SHIFTS else ""
        title = "Shift of MS against PAN by image, PAN pixels (rows, columns), mean over bands"
        stdout.print(f"{title}: {shown}{more}", soft_wrap=True, markup=False)
    networks = [name for name in found.methods if name not in METHODS]
    _print_differences(found, networks or list(found.methods))


def _print_differences(found: "Evaluation", methods: list[str]) -> None:
    """Print methods against the best other one, image by image, and what draws of z_T change."""
    from rich.table import Table

    for method in methods:
        if not found.differences[method]:
            continue
        drawn = bool(found.methods[method].draws)
        heads = ["metric", "best other", "images", "difference", "95 % interval", "p"]
        table = Table(title=f"{cell(method)} less the best other method, image by image", title_justify="left")
        for place, head in enumerate([*heads, *(["std over draws"] if drawn else [])]):
            table.add_column(head, justify="left" if place < 2 else "right", no_wrap=True)
        for metric, one in found.differences[method].items():
            cells = [metric, cell(one.other), str(one.images), f"{one.mean:+.4f}", f"{one.low:+.4f} … {one.high:+.4f}"]
            spread = [f"{found.methods[method].std_over_draws(metric):.2g}"] if drawn else []
            table.add_row(*cells, f"{one.p:.2g}", *spread)
        print_table(table)


def _figure(mean: float, std: float) -> str:
    if math.isnan(mean):
        return "undefined"
    return f"{mean:.4f} ± {std:.4f}" if math.isfinite(mean) else "∞"
