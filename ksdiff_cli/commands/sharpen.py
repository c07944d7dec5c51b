"""ksdiff sharpen: PAN and MS in, sharpened GeoTIFF out."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from ksdiff_cli import options
from ksdiff_cli.console import note, progress
from ksdiff_cli.errors import KsdiffError

if TYPE_CHECKING:
    from ksdiff_cli.raster import Scene


def sharpen(
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="PAN MS… | SCENE",
            help="PAN and MS rasters (MS may be several files), or a scene's folder or archive.",
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="GeoTIFF to write.")],
    method: Annotated[
        options.MethodName,
        typer.Option("--method", help="ksdiff: the network; exp: interpolation only; or a classical method."),
    ] = "ksdiff",
    checkpoint: options.Checkpoint = None,
    bidx: Annotated[
        list[str] | None, typer.Option("--bidx", "-b", help="MS bands to sharpen, from 1: -b 3,2,1 or -b 3 -b 2 -b 1.")
    ] = None,
    sensor: options.SensorName = None,
    warp: options.Warp = False,
    tile: Annotated[int, typer.Option("--tile", help="Side of a window, PAN pixels.")] = 512,
    overlap: Annotated[int, typer.Option("--overlap", help="PAN pixels shared by neighbouring windows.")] = 64,
    dtype: Annotated[
        Literal["uint8", "uint16", "int16", "uint32", "int32", "float32", "float64"] | None,
        typer.Option("--dtype", "-t", help="Data type of the output. Default: that of MS."),
    ] = None,
    co: Annotated[
        list[str] | None, typer.Option("--co", metavar="NAME=VALUE", help="GDAL creation option; may be repeated.")
    ] = None,
    threads: Annotated[int | None, typer.Option("--threads", min=1, help="CPU threads. Default: all.")] = None,
    register: options.Register = False,
    no_registration_check: options.NoRegistrationCheck = False,
    device: options.Device = "auto",
    seed: options.Seed = 0,
    overwrite: options.Overwrite = False,
    quiet: options.Quiet = False,
) -> None:
    """Sharpen a whole scene: MS in PAN's resolution, on PAN's grid, with the data type and metadata of MS.

    Example: ksdiff sharpen pan.tif ms.tif -o out.tif
    """
    if method != "ksdiff" and checkpoint:
        raise typer.BadParameter(f"--checkpoint goes with --method ksdiff, not {method}")
    if register and no_registration_check:
        raise typer.BadParameter("--register measures the shift: leave out --no-registration-check")
    bands, creation = _parse_bands(bidx or []), _parse_creation(co or [])

    from ksdiff_cli.fusers import make_fuser
    from ksdiff_cli.products import choose_bands
    from ksdiff_cli.raster_writer import check_output
    from ksdiff_cli.registration import guard
    from ksdiff_cli.sharpening import SharpenOptions, sharpen_scene

    check_output(output, inputs, overwrite)
    scene = replace(choose_bands(_find_scene(inputs, sensor), bands), warp=warp)
    fuser = make_fuser(method, checkpoint, device, seed, threads)
    chosen = SharpenOptions(tile=tile, overlap=overlap, dtype=dtype, creation=creation, overwrite=overwrite)
    with progress("sharpen", quiet=quiet) as report:
        scene, found = (scene, []) if no_registration_check else guard(scene, correct=register, progress=report)
        made = sharpen_scene(scene, output, fuser, chosen, report)
    for line in (*found, *made.notes):
        note(f"Note: {line}", quiet=quiet)
    height, width = made.shape
    note(f"{made.output}: {width} x {height} pixels, {made.bands} bands, {made.dtype}", quiet=quiet)


def _find_scene(inputs: list[str], sensor: str | None) -> "Scene":
    """One folder, archive or metadata file; or PAN and then MS."""
    from ksdiff_cli.products import find_scenes, make_pair, names_scenes

    if len(inputs) > 1:
        return make_pair(inputs[0], inputs[1:], sensor)
    if Path(inputs[0]).is_file() and not names_scenes(inputs[0]):
        raise typer.BadParameter(f"{inputs[0]}: is a file; give PAN and MS, or a scene's folder")
    scenes = find_scenes(inputs[0], sensor)
    if len(scenes) > 1:
        names = ", ".join(scene.name for scene in scenes[:4]) + (", …" if len(scenes) > 4 else "")
        raise KsdiffError(f"{inputs[0]}: holds {len(scenes)} scenes ({names}); name the folder of one")
    return scenes[0]


def _parse_bands(values: list[str]) -> list[int]:
    numbers = [number for value in values for number in value.split(",")]
    if not all(number.strip().isdigit() for number in numbers):
        raise typer.BadParameter(f"-b takes band numbers such as 3,2,1, not {','.join(values)}")
    return [int(number) for number in numbers]


def _parse_creation(values: list[str]) -> dict[str, str]:
    for value in values:
        if "=" not in value:
            raise typer.BadParameter(f"--co takes NAME=VALUE, not {value}")
    return {name: rest for name, _, rest in (value.partition("=") for value in values)}
