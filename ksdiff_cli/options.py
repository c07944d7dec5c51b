"""Options that several commands share: one spelling, one help text."""

from pathlib import Path
from typing import Annotated, Literal

import typer

# Typed by hand so that `--help` imports no method; a test compares it with the registry.
MethodName = Literal[
    "ksdiff", "exp", "brovey", "gsa", "bdsd-pc", "mtf-glp-fs", "bt-h", "mtf-glp-hpm-r", "awlp", "pracs"
]
"""What sharpens: the network, or a classical method by name (exp: interpolation only)."""

Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no notes on stderr.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout instead of a table.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an existing output (default: refuse).")]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda or cuda:N. auto takes a GPU if there is one.")]
Seed = Annotated[int, typer.Option("--seed", help="Seed of every random number; the same seed gives the same bytes.")]
SensorName = Annotated[
    str | None,
    typer.Option("--sensor", help="Sensor by short name (WV2 WV3 QB GE1 IKONOS GF2 L7 L8 …): its MTF gains are used."),
]
Checkpoint = Annotated[
    Path | None,
    typer.Option("--checkpoint", help="Weights to use (.safetensors); without it the weights shipped with ksdiff."),
]
