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
    typer.Option(
        "--sensor",
        help="Sensor by name (WV3, worldview-3, LC08 …; all: ksdiff info sensors) or a sensor file (my.toml): "
        "its MTF gains are used.",
    ),
]
Register = Annotated[
    bool, typer.Option("--register", help="Correct the shift between PAN and MS that their georeference leaves.")
]
NoRegistrationCheck = Annotated[
    bool,
    typer.Option("--no-registration-check", help="Do not measure that shift; over 1 MS pixel is refused otherwise."),
]
Warp = Annotated[
    bool, typer.Option("--warp", help="Warp MS to PAN's grid where its CRS differs or it is rotated against PAN.")
]
Checkpoint = Annotated[
    Path | None,
    typer.Option("--checkpoint", help="Weights to use (.safetensors); without it the weights shipped with ksdiff."),
]
ReportFile = Annotated[
    Path | None,
    typer.Option("--report", metavar="OUT.html", help="Write a page with tables, pictures and error maps."),
]
Format = Annotated[
    Literal["GTiff", "COG", "VRT"],
    typer.Option(
        "--format",
        "-f",
        case_sensitive=False,
        help="GTiff; COG: cloud optimized, the only one with overviews; VRT: out.vrt and its tiles in out_tiles/.",
    ),
]
Window = Annotated[
    str | None,
    typer.Option(
        "--window", metavar="ROW,COL,HEIGHT,WIDTH", help="Make only this part, in pixels of the whole output, from 0."
    ),
]
Bbox = Annotated[
    str | None,
    typer.Option(
        "--bbox", metavar="XMIN,YMIN,XMAX,YMAX", help="Make only the pixels that this box touches, in PAN's CRS."
    ),
]
BboxCrs = Annotated[
    str, typer.Option("--bbox-crs", metavar="CRS", help="CRS of --bbox, e.g. EPSG:4326 for longitude and latitude.")
]
Quicklook = Annotated[
    Path | None,
    typer.Option("--quicklook", metavar="OUT.png", help="Draw PAN, MS and the result beside each other."),
]
Workers = Annotated[
    int | None,
    typer.Option(
        "--workers",
        metavar="N",
        min=1,
        help="Make windows in N processes on this machine, through Dask (pip install 'ksdiff[distributed]').",
    ),
]
Scheduler = Annotated[
    str | None,
    typer.Option(
        "--scheduler",
        metavar="URL",
        help="Make windows by the workers of a Dask scheduler: tcp://host:8786, or the JSON file that it wrote. "
        "They must see inputs and output under the paths given here.",
    ),
]
Batch = Annotated[
    Path | None,
    typer.Option(
        "--batch",
        metavar="LIST.csv|DIR",
        help="Many scenes: a folder of products, or a list with columns scene, or pan and ms, and if you like name and "
        "sensor. -o is a folder then; a scene that fails does not stop the others; what is there already is kept.",
    ),
]
