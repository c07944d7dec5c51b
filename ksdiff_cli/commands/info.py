"""ksdiff info: what is in a file or a scene folder."""

from collections.abc import Iterator
from typing import Annotated, Any

import typer

from ksdiff_cli.commands import options as typed
from ksdiff_cli.commands.console import print_json
from ksdiff_cli.errors import printable
from ksdiff_cli.options.shared import InfoOptions


@typed.takes
def info(
    path: Annotated[
        str,
        typed.argument(
            metavar="FILE | SCENE | SENSOR",
            help="Raster, scene folder, .safetensors checkpoint, .h5 file, or a sensor (WV3, my.toml; sensors: all).",
        ),
    ],
    options: InfoOptions,
    json: typed.Json = False,
) -> None:
    """Print what a file holds: size, grids, CRS, bands; how PAN and MS lie on each other; a checkpoint's header.

    Example: ksdiff info scene/

    Example: ksdiff info WV3
    """
    from ksdiff_cli.commands.inspection import describe

    facts = describe(path, options.sensor, options.nodata)
    if json:
        print_json(facts)
        return
    for line in _sensors(facts) if facts["kind"] == "sensors" else _lines(facts):
        typer.echo(printable(line))


def _sensors(facts: dict[str, Any]) -> Iterator[str]:
    """Write one line a sensor."""
    for sensor in facts["sensors"]:
        bands = ", ".join(band["name"] for band in sensor["bands"])
        yield f"{sensor['name']:<9} {sensor['title']}: {bands}; ratio {sensor['ratio']}, {sensor['bits']} bits"


def _lines(facts: dict[str, Any], indent: str = "") -> Iterator[str]:
    """Write nested facts one a line, for people."""
    for name, value in facts.items():
        title = name.replace("_", " ")
        if isinstance(value, dict) and "summary" in value:
            yield f"{indent}{title}: {value['summary']}"
        elif isinstance(value, dict) and value:
            yield f"{indent}{title}:"
            yield from _lines(value, indent + "  ")
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            yield f"{indent}{title}:"
            for number, item in enumerate(value, start=1):
                yield f"{indent}  {number}. {_heading(item)}".rstrip()
                if "file" not in item:
                    yield from _lines({key: part for key, part in item.items() if key != "name"}, indent + "    ")
        else:
            yield f"{indent}{title}: {_text(value)}"


def _heading(item: dict[str, Any]) -> str:
    """The name of an item; of an MS band also where it lies, and what its product says of it, in one line."""
    name = item.get("name") or ""
    if "file" not in item:
        return str(name)
    nm, mtf = item.get("wavelengths_nm"), item.get("mtf")
    known = [*([f"{nm[0]:g} to {nm[1]:g} nm"] if nm else []), *([f"MTF {mtf:g}"] if mtf else [])]
    known += [f"{key} {item[key]:g}" for key in ("scale", "offset", "nodata") if key in item]
    return f"{item['file']} band {item['band']} {', '.join([name, *known])}"


def _text(value: Any) -> str:
    if value is None or value in ("", {}, []):
        return "-"
    if isinstance(value, list):
        return ", ".join(_text(item) for item in value)
    return f"{value:.10g}" if isinstance(value, float) else str(value)
