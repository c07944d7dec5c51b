"""Options that several commands share: one spelling, one help text, and the panels of ``--help``."""

from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import typer

from ksdiff_cli import checks
from ksdiff_cli.checks import LARGEST_SEED
from ksdiff_cli.errors import KsdiffError

INPUTS = "Inputs"
OUTPUT = "Output"
SCENE = "Scene"
PATCHES = "Patches"
MEASURING = "Measuring"
METHOD = "Method"
ALIGNMENT = "PAN against MS"
CUTTING = "Cutting and memory"
CLUSTER = "Many scenes, many processes"
TRAINING = "Training"
NETWORK = "Network"
RUNNING = "Running"
"""Panels of ``--help``, the same names in every command."""

# Typed by hand so that `--help` imports no method; a test compares it with the registry.
MethodName = Literal[
    "ksdiff", "exp", "brovey", "gsa", "bdsd-pc", "mtf-glp-fs", "bt-h", "mtf-glp-hpm-r", "awlp", "pracs"
]
"""What sharpens: the network, or a classical method by name (exp: interpolation only)."""


def complete_sensor(incomplete: str) -> list[str]:
    """Return the sensors whose short names begin as typed, for the shell; in small letters if so typed."""
    from ksdiff_cli.sensors import SENSORS

    names = [name.lower() if incomplete.islower() else name for name in SENSORS]
    return [name for name in names if name.startswith(incomplete)]


def complete_method(incomplete: str) -> list[str]:
    """Return the methods whose names begin as typed, for the shell."""
    return [name for name in get_args(MethodName) if name.startswith(incomplete)]


def option(panel: str, *names: str, help: str, **more: Any) -> Any:
    """Return an option of a panel; see ``typer.Option`` for the rest."""
    return typer.Option(*names, help=help, rich_help_panel=panel, **more)


def read_nodata(given: str | None) -> Any:
    """Return what ``--src-nodata`` says of PAN and of MS, see :func:`ksdiff_cli.checks.read_nodata`.

    Raises:
        typer.BadParameter: it says nothing that is understood.
    """
    try:
        return checks.read_nodata(given, "--src-nodata")
    except KsdiffError as error:
        raise typer.BadParameter(str(error)) from None


def argument(*, help: str, metavar: str, **more: Any) -> Any:
    """Return an argument; see ``typer.Argument`` for the rest."""
    return typer.Argument(help=help, metavar=metavar, show_default=False, **more)


Quiet = Annotated[bool, option(RUNNING, "--quiet", "-q", help="No progress and no notes on stderr.")]
Json = Annotated[bool, option(OUTPUT, "--json", help="Print one JSON object on stdout instead of a table.")]
Overwrite = Annotated[
    bool, option(OUTPUT, "--overwrite", help="Replace an existing output. Default: refuse, and leave it as it is.")
]
SrcNodata = Annotated[
    str | None,
    option(
        INPUTS,
        "--src-nodata",
        metavar="VALUE | PAN,MS",
        help="Value of pixels without data in PAN and MS, in place of what the files declare: 0, nan, or 0,-9999 for "
        "PAN and MS; none: all are data; file: as it declares. Default: file.",
    ),
]
DstNodata = Annotated[
    float | None,
    option(
        OUTPUT,
        "--dst-nodata",
        metavar="VALUE",
        help="Value of pixels without data in the output. Default: that of MS, else of PAN, else 0 where it is needed.",
    ),
]
Device = Annotated[
    str,
    option(RUNNING, "--device", help="Where a network runs: auto, cpu, cuda or cuda:N. auto takes a GPU if there is."),
]
Seed = Annotated[
    int,
    option(
        RUNNING,
        "--seed",
        min=0,
        max=LARGEST_SEED,
        help="Seed of every random number; the same seed gives the same bytes.",
    ),
]
Threads = Annotated[
    int | None,
    option(RUNNING, "--threads", min=1, metavar="N", help="CPU threads, of each process. Default: all cores."),
]
SensorName = Annotated[
    str | None,
    option(
        INPUTS,
        "--sensor",
        metavar="NAME | FILE.toml",
        autocompletion=complete_sensor,
        help="Sensor by name (WV3, worldview-3, LC08 …; all: ksdiff info sensors) or a sensor file: gives bands, bit "
        "depth and MTF gains. Default: what the product or file says, else generic gains.",
    ),
]
Register = Annotated[
    bool,
    option(ALIGNMENT, "--register", help="Correct the shift between PAN and MS that their georeference leaves."),
]
NoRegistrationCheck = Annotated[
    bool,
    option(
        ALIGNMENT,
        "--no-registration-check",
        help="Do not measure that shift. Default: it is measured, and over 1 MS pixel is refused.",
    ),
]
Warp = Annotated[
    bool,
    option(
        ALIGNMENT,
        "--warp",
        help="Warp MS to PAN's grid where its CRS differs or it is rotated against PAN. Default: refuse such MS.",
    ),
]
Checkpoint = Annotated[
    Path | None,
    option(
        METHOD,
        "--checkpoint",
        metavar="FILE",
        help="Weights of ksdiff to use (.safetensors). Default: those shipped with the package.",
    ),
]
ReportFile = Annotated[
    Path | None,
    option(
        OUTPUT,
        "--report",
        metavar="OUT.html",
        help="Write a page with tables, pictures and error maps. Default: no page.",
    ),
]
Format = Annotated[
    Literal["GTiff", "COG", "VRT"],
    option(
        OUTPUT,
        "--format",
        "-f",
        case_sensitive=False,
        help="GTiff; COG: cloud optimized, the only one with overviews; VRT: out.vrt and its tiles in out_tiles/.",
    ),
]
Window = Annotated[
    str | None,
    option(
        OUTPUT,
        "--window",
        metavar="ROW,COL,HEIGHT,WIDTH",
        help="Make only this part, in pixels of the whole output, from 0. Default: all of it.",
    ),
]
Bbox = Annotated[
    str | None,
    option(
        OUTPUT,
        "--bbox",
        metavar="XMIN,YMIN,XMAX,YMAX",
        help="Make only the pixels that this box touches, in the units of PAN's CRS. Default: all of them.",
    ),
]
BboxCrs = Annotated[
    str,
    option(
        OUTPUT,
        "--bbox-crs",
        metavar="CRS",
        show_default=False,
        help="CRS of --bbox, e.g. EPSG:4326 for longitude and latitude in degrees. Default: PAN's.",
    ),
]
Quicklook = Annotated[
    Path | None,
    option(
        OUTPUT,
        "--quicklook",
        metavar="OUT.png",
        help="Draw PAN, MS and the result beside each other. Default: no picture.",
    ),
]
Sharpness = Annotated[
    float | None,
    option(
        METHOD,
        "--sharpness",
        min=-1,
        max=2,
        help="How much sharper than PAN the network's result is to be, as the share of what a blur of PAN by .9 pixels "
        "takes away; less than 0 is softer. Default: 0, as sharp as PAN.",
    ),
]
Consistent = Annotated[
    bool,
    option(
        METHOD,
        "--consistent",
        help="Correct the result until it shows, seen through the MS camera, the MS that went in. The camera is found "
        "in the scene (see --mtf); PAN and MS must lie on each other. Default: leave it as the method made it.",
    ),
]
Mtf = Annotated[
    Literal["scene", "sensor"] | None,
    option(
        METHOD,
        "--mtf",
        help="How sharp MS is believed to be: scene, as found in the scene where it tells; sensor, as the sensor's "
        "table says (--sensor). Default: scene for --consistent and spectral fidelity, sensor for MTF methods.",
    ),
]
UncertaintyFile = Annotated[
    Path | None,
    option(
        OUTPUT,
        "--uncertainty",
        metavar="OUT_STD.tif",
        help="Write the standard deviation of --draws results too, DN, float32: it says where errors are large, but is "
        "far smaller itself. Takes that many times as long. Default: no such file.",
    ),
]
Draws = Annotated[
    int, option(METHOD, "--draws", metavar="N", min=2, max=64, help="Draws of z_T for --uncertainty, 2 to 64.")
]
Workers = Annotated[
    int | None,
    option(
        CLUSTER,
        "--workers",
        metavar="N",
        min=1,
        help="Make windows in N processes on this machine, through Dask (pip install 'ksdiff[distributed]'). "
        "Default: in this process.",
    ),
]
Scheduler = Annotated[
    str | None,
    option(
        CLUSTER,
        "--scheduler",
        metavar="URL",
        help="Make windows by the workers of a Dask scheduler: tcp://host:8786, or the JSON file that it wrote. "
        "They must see inputs and output under the paths given here. Default: in this process.",
    ),
]
Tls = Annotated[
    str | None,
    option(
        CLUSTER,
        "--tls",
        metavar="CA,CERT,KEY",
        help="Encrypt and authenticate by these PEM files what goes to workers, of --workers or of a --scheduler "
        "tls://host:8786; see docs/trust.md. Default: what Dask's own settings say; else neither.",
    ),
]
Batch = Annotated[
    Path | None,
    option(
        CLUSTER,
        "--batch",
        metavar="LIST.csv|DIR",
        help="Many scenes: a folder of products, or a list with columns scene, or pan and ms, and if you like name and "
        "sensor. -o is a folder then; a scene that fails does not stop the others; what is there already is kept. "
        "Default: one scene, named by its files.",
    ),
]
Mosaic = Annotated[
    Path | None,
    option(
        CLUSTER,
        "--mosaic",
        metavar="FILE.vrt",
        help="With --batch: a virtual raster that shows all outputs as one, the later ones on top; they must share one "
        "grid. One that is there is replaced. Default: none.",
    ),
]
