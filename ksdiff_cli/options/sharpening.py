"""Options of sharpening a scene, and of sharpening arrays."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Real
from pathlib import Path
from typing import Annotated, Any, Literal

from ksdiff_cli.checks import Dtype, Format, Mtf, Units, check_four
from ksdiff_cli.errors import KsdiffError
from ksdiff_cli.options import CLUSTER, CUTTING, INPUTS, METHOD, OUTPUT, VIEWING, Option, Options, repeated
from ksdiff_cli.options.shared import (
    HasBands,
    HasCut,
    HasDevice,
    HasGuideBy,
    HasMethod,
    HasOverwrite,
    HasRegistration,
    HasSeed,
    HasSensor,
    HasSrcNodata,
    HasThreads,
    HasWarp,
)
from ksdiff_cli.sensors import Sensor

Window = tuple[int, int, int, int]
Bounds = tuple[float, float, float, float]


def read_names(values: list[str]) -> tuple[str, ...]:
    """Return names from texts of some of them, by commas."""
    return tuple(name.strip() for value in values for name in value.split(",") if name.strip())


def read_creation(values: list[str]) -> dict[str, str]:
    """Return GDAL creation options from NAME=VALUE texts.

    Raises:
        KsdiffError: one is none.
    """
    for value in values:
        if "=" not in value:
            raise KsdiffError(f"--co takes NAME=VALUE, not {value}")
    return {name: rest for name, _, rest in (value.partition("=") for value in values)}


def _four(option: str, kind: Callable[[str], Any], what: str) -> Callable[[str], Any]:
    def read(text: str) -> Any:
        try:
            first, second, third, fourth = (kind(number) for number in text.split(","))
        except ValueError:
            raise KsdiffError(f"{option} takes four {what}, not {text}") from None
        return first, second, third, fourth

    return read


@dataclass(frozen=True, kw_only=True)
class ArrayOptions(HasSeed, HasDevice, HasThreads, HasCut, HasRegistration, HasMethod):
    """How arrays are sharpened; see :func:`ksdiff_cli.sharpen_array`."""

    sensor: Annotated[
        str | Sensor | None, Option(INPUTS, "A sensor, its name, or its file. Default: the generic one.")
    ] = None
    nodata: Annotated[
        float | tuple[float | None, float | None] | None,
        Option(
            INPUTS,
            "DN that stands for no data in MS, and in the result; or two, for PAN and for MS. None: what a DataArray "
            "says, or a masked array (MS, else PAN) by its fill_value if nothing else lies under its mask; else NaN "
            "for floats, and for integers none, unless some pixel is invalid: then 0.",
        ),
    ] = None
    ratio: Annotated[
        float | None,
        Option(
            INPUTS,
            "PAN pixels per MS pixel along a side, to be checked. Default: what sizes or georeference say.",
            min=1,
        ),
    ] = None


@dataclass(frozen=True, kw_only=True)
class SharpenOptions(
    HasOverwrite,
    HasSeed,
    HasDevice,
    HasThreads,
    HasRegistration,
    HasCut,
    HasWarp,
    HasBands,
    HasSrcNodata,
    HasSensor,
    HasGuideBy,
    HasMethod,
):
    """How a scene is sharpened and how the output is stored."""

    adapt: Annotated[
        float | None,
        Option(
            METHOD,
            "Adapt the network to the scene first, for about so many minutes; used only where the output then explains "
            "PAN and MS no worse, and kept beside it. 0.5 is enough for most scenes. Default: do not.",
            metavar="MINUTES",
            min=0.01,
        ),
    ] = None
    consistent: Annotated[
        bool,
        Option(
            METHOD,
            "Correct the result until it shows, seen through the MS camera, the MS that went in. The camera is found "
            "in the scene (see --mtf); PAN and MS must lie on each other. Default: leave it as the method made it.",
        ),
    ] = False
    mtf: Annotated[
        Mtf | None,
        Option(
            METHOD,
            "How sharp MS is believed to be: scene, as found in the scene where it tells; sensor, as the sensor's "
            "table says (--sensor). Default: scene for --consistent and spectral fidelity, sensor for MTF methods.",
        ),
    ] = None
    uncertainty: Annotated[
        Path | None,
        Option(
            OUTPUT,
            "Write the standard deviation of --draws results too, DN, float32: it says where errors are large, but is "
            "far smaller itself. Takes that many times as long. Default: no such file.",
            metavar="OUT_STD.tif",
        ),
    ] = None
    draws: Annotated[int, Option(METHOD, "Draws of z_T for --uncertainty, 2 to 64.", metavar="N", min=2, max=64)] = 8
    guide: Annotated[
        Sequence[str],
        repeated(
            INPUTS,
            "Raster of finer bands that guide coarser ones, in place of PAN; more on its grid may follow, then the "
            "coarser ones. Default: PAN comes first, or bands are sorted by resolution where several are the finest.",
            "FINE",
        ),
    ] = ()
    with_guide: Annotated[
        bool | None,
        Option(
            OUTPUT,
            "Put the finer bands into the output too, as they are. Default: with them for Sentinel-2, else without.",
            names=("--with-guide/--without-guide",),
        ),
    ] = None
    groups: Annotated[
        Sequence[str],
        repeated(
            INPUTS,
            "Which of a product's groups of coarser bands to sharpen: 20m,60m of Sentinel-2; ksdiff info names them. "
            "Default: all.",
            "NAME,…",
            read=read_names,
        ),
    ] = ()
    resume: Annotated[
        bool,
        Option(CUTTING, "Discard what an interrupted run left. Default: go on with it.", names=("--no-resume",)),
    ] = True
    dtype: Annotated[
        Dtype | None,
        Option(OUTPUT, "Data type of the output, rounded and clipped. Default: that of MS.", names=("--dtype", "-t")),
    ] = None
    creation: Annotated[
        Mapping[str, str],
        repeated(
            OUTPUT,
            "GDAL creation option, such as COMPRESS=LZW; may be repeated. Default: tiled, lossless compression.",
            "NAME=VALUE",
            names=("--co",),
            read=read_creation,
        ),
    ] = field(default_factory=dict)
    units: Annotated[
        Units,
        Option(
            OUTPUT,
            "What PAN and MS are converted to before they are fused, by the product's metadata: radiance, W / (m² sr "
            "µm), or reflectance, both at the top of the atmosphere, as float32, or scaled with -t int16 or uint16. "
            "Default: DN, as they are.",
        ),
    ] = "dn"
    dst_nodata: Annotated[
        float | None,
        Option(
            OUTPUT,
            "Value of pixels without data in the output. Default: that of MS, else of PAN, else 0 where it is needed.",
            metavar="VALUE",
        ),
    ] = None
    format: Annotated[
        Format,
        Option(
            OUTPUT,
            "GTiff; COG: cloud optimized, the only one with overviews; VRT: out.vrt and its tiles in out_tiles/.",
            names=("--format", "-f"),
            more={"case_sensitive": False},
        ),
    ] = "GTiff"
    window: Annotated[
        Window | None,
        Option(
            OUTPUT,
            "Make only this part, in pixels of the whole output, from 0. Default: all of it.",
            metavar="ROW,COL,HEIGHT,WIDTH",
            typed=str | None,
            read=_four("--window", int, "whole numbers row,col,height,width"),
        ),
    ] = None
    bounds: Annotated[
        Bounds | None,
        Option(
            OUTPUT,
            "Make only the pixels that this box touches, in the units of PAN's CRS. Default: all of them.",
            names=("--bbox",),
            metavar="XMIN,YMIN,XMAX,YMAX",
            typed=str | None,
            read=_four("--bbox", float, "numbers xmin,ymin,xmax,ymax"),
        ),
    ] = None
    bounds_crs: Annotated[
        str,
        Option(
            OUTPUT,
            "CRS of --bbox, e.g. EPSG:4326 for longitude and latitude in degrees. Default: PAN's.",
            names=("--bbox-crs",),
            metavar="CRS",
            more={"show_default": False},
        ),
    ] = ""
    ortho: Annotated[
        str | None,
        Option(
            OUTPUT,
            "Orthorectify the result by PAN's RPCs, over a terrain: a DEM's file with heights above the ellipsoid, one "
            "height in metres, or mean, that of the RPCs. Default: leave it on PAN's grid.",
            metavar="DEM|METRES|mean",
        ),
    ] = None
    ortho_crs: Annotated[
        str,
        Option(
            OUTPUT,
            "CRS of --ortho, e.g. EPSG:32631. Default: the UTM zone of the scene's middle.",
            metavar="CRS",
            more={"show_default": False},
        ),
    ] = ""
    ortho_res: Annotated[
        float | None,
        Option(
            OUTPUT,
            "Side of a pixel of --ortho, in units of its CRS. Default: that of PAN on the ground, to two digits.",
            metavar="SIZE",
            min=0,
            above=True,
        ),
    ] = None
    quicklook: Annotated[
        Path | None,
        Option(OUTPUT, "Draw PAN, MS and the result beside each other. Default: no picture.", metavar="OUT.png"),
    ] = None
    rgb: Annotated[
        Path | None,
        Option(
            OUTPUT,
            "Write the result for display too: red, green and blue of 8 bits between the scene's percentiles 2 and 98, "
            "alpha where there are no data. Default: no such file.",
            metavar="OUT_RGB.tif",
        ),
    ] = None
    stac: Annotated[
        bool,
        Option(OUTPUT, "Write a STAC item beside the output, OUT.json. Default: do not."),
    ] = False
    fidelity: bool = True
    """Whether the output is compared with MS and PAN, see :mod:`ksdiff_cli.fusers.fidelity`."""
    besides: Mapping[Path, str] = field(default_factory=dict)
    """Other files that the command makes of this output, and what they depend on; a killed command knows them for its
    own until :func:`ksdiff_cli.sharpening.job.forget` is called, which then ends the work."""

    @property
    def networks_only(self) -> tuple[str, ...]:
        return ("checkpoint", "adapt", "uncertainty", "sharpness")

    def __post_init__(self) -> None:
        if self.dtype is not None and not isinstance(self.dtype, str):  # NumPy's types and what is called as they are
            object.__setattr__(self, "dtype", str(getattr(self.dtype, "__name__", self.dtype)))
        if self.units != "dn" and self.dtype is None:
            object.__setattr__(self, "dtype", "float32")
        super().__post_init__()
        if self.window is not None:
            check_four("window", self.window, "row, column, height, width", whole=True)
        if self.bounds is not None:
            check_four("bounds", self.bounds, "xmin, ymin, xmax, ymax")
        self._check_ortho()
        if self.dst_nodata is not None and (isinstance(self.dst_nodata, bool) or not isinstance(self.dst_nodata, Real)):
            raise KsdiffError(f"dst_nodata {self.dst_nodata!r}: give a number, or nan")

    def _check_ortho(self) -> None:
        if self.ortho is None:
            if self.ortho_crs or self.ortho_res is not None:
                raise KsdiffError("--ortho-crs and --ortho-res go with --ortho")
            return
        object.__setattr__(self, "ortho", str(self.ortho))  # a path, or a number
        for option, given in (("--window", self.window), ("--bbox", self.bounds), ("--uncertainty", self.uncertainty)):
            if given is not None:
                raise KsdiffError(
                    f"--ortho: orthorectifies a whole result, which does not go with {option}; leave it out"
                )
        if self.format == "VRT":
            raise KsdiffError("--ortho: writes one file, GTiff or COG, no VRT; leave -f VRT out")

    @property
    def seen_by(self) -> Literal["scene", "sensor"]:
        """Whose camera the output is compared with MS through."""
        return self.mtf or "scene"


@dataclass(frozen=True, kw_only=True)
class SharpenCommand(Options):
    """What the command ``ksdiff sharpen`` does besides: tell, show, many scenes, many processes."""

    seam_report: Annotated[bool, Option(CUTTING, "Say whether window borders show: 1 means that none does.")] = False
    view: Annotated[
        bool,
        Option(
            VIEWING,
            "Look at PAN, MS and the result in a browser when it is there, until Ctrl-C; see ksdiff view. "
            "Default: do not.",
        ),
    ] = False
    workers: Annotated[
        int | None,
        Option(
            CLUSTER,
            "Make windows in N processes on this machine, through Dask (pip install 'ksdiff[distributed]'). "
            "Default: in this process.",
            metavar="N",
            min=1,
        ),
    ] = None
    scheduler: Annotated[
        str | None,
        Option(
            CLUSTER,
            "Make windows by the workers of a Dask scheduler: tcp://host:8786, or the JSON file that it wrote. "
            "They must see inputs and output under the paths given here. Default: in this process.",
            metavar="URL",
        ),
    ] = None
    tls: Annotated[
        str | None,
        Option(
            CLUSTER,
            "Encrypt and authenticate by these PEM files what goes to workers, of --workers or of a --scheduler "
            "tls://host:8786; see docs/trust.md. Default: what Dask's own settings say; else neither.",
            metavar="CA,CERT,KEY",
        ),
    ] = None
    batch: Annotated[
        Path | None,
        Option(
            CLUSTER,
            "Many scenes: a folder of products, or a list with columns scene, or pan and ms, and if you like name and "
            "sensor. -o is a folder then; a scene that fails does not stop the others; what is there already is kept. "
            "Default: one scene, named by its files.",
            metavar="LIST.csv|DIR",
        ),
    ] = None
    mosaic: Annotated[
        Path | None,
        Option(
            CLUSTER,
            "With --batch: a virtual raster that shows all outputs as one, the later ones on top; they must share one "
            "grid. One that is there is replaced. Default: none.",
            metavar="FILE.vrt",
        ),
    ] = None
