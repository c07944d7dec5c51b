"""Open a view: what a person asks for, put together and served until it is closed."""

import os
import sys
import threading
import webbrowser
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path

from ksdiff_cli.errors import KsdiffError
from ksdiff_cli.fusers.base import Fuser
from ksdiff_cli.fusers.classical import make_fuser
from ksdiff_cli.options.viewing import ViewOptions
from ksdiff_cli.raster.pair import Scene
from ksdiff_cli.view.finding import MOST, Found, find_layers, read_names
from ksdiff_cli.view.layers import Cache, Layer, Made
from ksdiff_cli.view.made import Sharpener, check_ready, find_grid, make_thread
from ksdiff_cli.view.server import Server, address, listen, serve
from ksdiff_cli.view.stage import Stage
from ksdiff_cli.view.tour import find_spots

GB = 10**9


def open_stage(inputs: Sequence[str], options: ViewOptions) -> Stage:
    """Find and lay out all layers; nothing large is read yet.

    Args:
        inputs: rasters, the first of which may be a scene's folder, or PAN and MS.
        options: what else is shown.

    Raises:
        KsdiffError: an input is missing or no raster, they show different places, or a method has no PAN and MS.
    """
    named = read_names(inputs, options.sensor, options.nodata)
    share = int(options.memory * GB / (2 if options.methods else 1))
    cache = Cache(share)
    found = find_layers(named, cache)
    layers: list[Layer] = list(found.layers)
    stage = Stage(_title(inputs, found), found.grid, layers, found.notes, found.scene, touring=options.tour)
    if options.methods:
        if len(layers) + len(options.methods) > MOST:
            raise KsdiffError(
                f"{len(layers) + len(options.methods)} layers, but a page shows {MOST} at most; name fewer"
            )
        _add_made(stage, found, options, check_ready(list(options.methods), found.scene), share)
    return stage


def _title(inputs: Sequence[str], found: Found) -> str:
    """Name the page after the scene: a product's name, the folder of a plain pair, else the first file."""
    first = Path(inputs[0])
    if found.scene is None or first.is_dir() or found.scene.name != first.stem:
        return found.scene.name if found.scene is not None else first.stem
    return first.absolute().parent.name or first.stem


def _add_made(stage: Stage, found: Found, options: ViewOptions, scene: Scene, share: int) -> None:
    """Add the layers that are made while they are looked at, and start to survey the scene for them."""
    grid = find_grid(scene, found.grid)
    ms = found.layers[1]
    windows, stage.maker = Cache(share), make_thread()
    for method in options.methods:

        def tell(doing: str, method: str = method) -> None:
            if doing:
                stage.status[method] = doing
            else:
                stage.status.pop(method, None)

        def fuser(method: str = method) -> Fuser:
            return make_fuser(method, options.checkpoint if method == "ksdiff" else None, options.device)

        sharpener = Sharpener(scene, fuser, windows, tell)
        about = replace(
            ms.about, name=method, path="", note="sharpened while you look, from 1:2 on; farther out MS stands in"
        )
        layer = Made(about, grid.shape, grid.place, ms.cache, sharpener, ms)
        stage.layers.append(layer)
        tell("waiting for its turn")
        stage.maker.submit(_prepare, sharpener)
        stage.closing.append(sharpener.stop)


def _prepare(sharpener: Sharpener) -> None:
    with suppress(KsdiffError):  # its status says so
        sharpener.prepare()


def start_tour(stage: Stage) -> None:
    """Search the places of the tour, in the background."""
    threads = stage.maker or ThreadPoolExecutor(1, "ksdiff-tour")
    stage.status["tour"] = "looking for places"

    def search() -> None:
        try:
            stage.spots = find_spots(stage.grid, stage.layers, stage.scene)
        except KsdiffError as error:
            stage.status["tour"] = f"failed: {error}"
            stage.spots = []
        else:
            stage.status.pop("tour", None)

    threads.submit(search)


def show(inputs: Sequence[str], options: ViewOptions, tell: Callable[[str], None]) -> None:
    """Serve a view until Ctrl-C.

    Args:
        inputs: see :func:`open_stage`.
        options: what else is shown, and where.
        tell: told the address, then what a person should know.

    Raises:
        KsdiffError: see :func:`open_stage` and :func:`ksdiff_cli.view.server.listen`.
    """
    stage = open_stage(inputs, options)
    with closing(listen(options.host, options.port)) as taken:
        server = Server(stage, threads_for_tiles())
        url = address(taken, server.token) + beginning(options.at, stage)
        tell(url)
        for line in stage.notes:
            tell(f"Note: {line}")
        if options.tour:
            start_tour(stage)
        if options.browser and has_screen():
            threading.Timer(0.3, webbrowser.open, [url]).start()
        serve(server, taken)


def beginning(at: Sequence[float], stage: Stage) -> str:
    """Return the end of an address that begins at a place; "" for all of the scene.

    Raises:
        KsdiffError: there is no such place.
    """
    if not at:
        return ""
    row, col, *zoom = at
    if not (0 <= row < stage.grid.height and 0 <= col < stage.grid.width):
        raise KsdiffError(
            f"--at {row:g},{col:g}: lies outside the scene of {stage.grid.height} rows and {stage.grid.width} columns"
        )
    return f"#at={row:g},{col:g}&zoom={zoom[0] if zoom else 1:g}"


def has_screen() -> bool:
    """Say whether a browser opened here would be seen: not over ssh, nor without a display."""
    if sys.platform in ("win32", "darwin"):
        return "SSH_CONNECTION" not in os.environ
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")) and "SSH_CONNECTION" not in os.environ


def threads_for_tiles() -> int:
    """Return how many tiles are made at a time."""
    return max(2, min(8, os.cpu_count() or 2))
