"""The server: one address with a token, and nothing behind it but the page, its layers and their values."""

import asyncio
import math
import re
import secrets
import socket
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from importlib.resources import files
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from ksdiff_cli.errors import KsdiffError
from ksdiff_cli.numerics.boxes import Box
from ksdiff_cli.view.grid import Tile
from ksdiff_cli.view.layers import Layer, Made
from ksdiff_cli.view.stage import Stage, Stretch

PORT = 8765
"""Asked for first; where another program has it, any free one is taken."""
_WAITING = 499  # nobody waits for the answer any more; as nginx says it
_TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript", "md": "text/plain", "svg": "image/svg+xml"}
_HEADERS = {
    # the browser itself then refuses anything from outside; styles that scripts set on elements are no inline styles
    "Content-Security-Policy": (
        "default-src 'self'; img-src 'self' data: blob:; frame-ancestors 'none'; base-uri 'none'"
    ),
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin",
}
Handler = Callable[[Request], Awaitable[Response]]


class Server:
    """What answers requests about one stage."""

    def __init__(self, stage: Stage, threads: int, token: str | None = None) -> None:
        """Prepare the answers.

        Args:
            stage: what is shown.
            threads: that read and draw tiles at a time.
            token: the first part of every address; None makes one.
        """
        self.stage = stage
        self.token = token or secrets.token_urlsafe(16)
        self.threads = ThreadPoolExecutor(threads, "ksdiff-tiles")
        self._probe = ThreadPoolExecutor(1, "ksdiff-values")  # the pointer does not wait for tiles
        self._room, self._turn = asyncio.Semaphore(threads), asyncio.Semaphore(1)
        self._page = {
            entry.name: (entry.read_bytes(), _TYPES[entry.name.rpartition(".")[2]])
            for entry in files(__package__).joinpath("page").iterdir()
            if entry.name.rpartition(".")[2] in _TYPES
        }
        tile = "{level}/{row}/{col}.png"
        handlers: dict[str, Handler] = {
            "": self._index,
            "about": self._about,
            "status": self._status,
            "stretch": self._stretch,
            "limit": self._limit,
            "pixel": self._pixel,
            f"tile/{{layer}}/{tile}": self._tile,
            f"difference/{{first}}/{{second}}/{tile}": self._difference,
            "{name}": self._file,
        }
        self.app = Starlette(
            routes=[Route(f"/{{token}}/{path}", self._guarded(answer)) for path, answer in handlers.items()],
            exception_handlers={HTTPException: _refuse},
        )

    def close(self) -> None:
        """Begin nothing any more, and end what takes long."""
        for stop in self.stage.closing:
            stop()
        for threads in (self.threads, self._probe, *([self.stage.maker] if self.stage.maker else [])):
            threads.shutdown(wait=False, cancel_futures=True)

    def _guarded(self, answer: Handler) -> Handler:
        """Answer only those who know the token; turn what a person may read into an answer."""

        async def handle(request: Request) -> Response:
            if not secrets.compare_digest(request.path_params["token"].encode(), self.token.encode()):
                raise HTTPException(403, "wrong token: open the address that ksdiff view printed")
            try:
                response = await answer(request)
            except KsdiffError as error:
                response = JSONResponse({"error": str(error)}, 422)
            for name, value in _HEADERS.items():
                response.headers[name] = value
            return response

        return handle

    async def _index(self, request: Request) -> Response:
        return self._static("index.html")

    async def _file(self, request: Request) -> Response:
        return self._static(request.path_params["name"])

    def _static(self, name: str) -> Response:
        if name not in self._page:  # read at the start: no name from a request reaches the disk
            raise HTTPException(404, "no such page")
        content, kind = self._page[name]
        return Response(content, media_type=kind, headers={"Cache-Control": "no-cache"})

    async def _about(self, request: Request) -> Response:
        return JSONResponse(self.stage.about())

    async def _status(self, request: Request) -> Response:
        spots = self.stage.spots
        return JSONResponse(
            {"doing": self.stage.status, "spots": None if spots is None else [vars(spot) for spot in spots]}
        )

    async def _tile(self, request: Request) -> Response:
        layer, tile = self._layer(request, "layer"), self._place(request)
        bands = self._bands(request)
        low, high = (_numbers(request, name) for name in ("low", "high"))
        gamma = _number(request, "gamma", 1.0)
        least = 1 if len(layer.about.bands) == 1 or layer.about.kind == "map" else len(bands)
        if not least <= len(low) <= 3 or len(low) != len(high) or not 0.05 <= gamma <= 20:
            raise HTTPException(400, "low and high need one number a band, gamma one from .05 to 20")
        if any(one >= other for one, other in zip(low, high, strict=True)):
            raise HTTPException(400, "low must be less than high")
        stretch = Stretch(low, high, gamma)
        png = await self._run(request, lambda: self.stage.tile(layer, tile, bands, stretch), layer)
        return _picture(png)

    async def _difference(self, request: Request) -> Response:
        first, second = self._layer(request, "first"), self._layer(request, "second")
        tile, bands, limit = self._place(request), self._bands(request), _number(request, "limit")
        if limit <= 0:
            raise HTTPException(400, "limit must be more than 0")
        work = lambda: self.stage.difference(first, second, tile, bands, limit)  # noqa: E731
        return _picture(await self._run(request, work, first, second))

    async def _stretch(self, request: Request) -> Response:
        layer, bands, view = self._layer(request, "layer"), self._bands(request), self._view(request)
        share = _number(request, "low"), _number(request, "high")
        if not 0 <= share[0] < share[1] <= 100:
            raise HTTPException(400, "low and high are percentiles, 0 to 100, low the less one")
        found = await self._run(request, lambda: self.stage.stretch(layer, bands, share, view))
        return JSONResponse({"low": found.low, "high": found.high})

    async def _limit(self, request: Request) -> Response:
        first, second = self._layer(request, "first"), self._layer(request, "second")
        bands, view = self._bands(request), self._view(request)
        work = lambda: self.stage.limit(first, second, bands, view)  # noqa: E731
        return JSONResponse({"limit": await self._run(request, work, first, second)})

    async def _pixel(self, request: Request) -> Response:
        row, col = _number(request, "row"), _number(request, "col")
        if not (0 <= row < self.stage.grid.height and 0 <= col < self.stage.grid.width):
            raise HTTPException(404, "no such pixel")
        loop = asyncio.get_running_loop()
        return JSONResponse(await loop.run_in_executor(self._probe, self.stage.pixel, row, col))

    async def _run(self, request: Request, work: Callable[[], Any], *layers: Layer) -> Any:
        """Do what takes time in a thread, unless nobody waits for it when its turn comes."""
        loop = asyncio.get_running_loop()
        if self.stage.maker is not None and any(isinstance(layer, Made) for layer in layers):
            return await self._in_turn(request, self.stage.maker, work)
        async with self._room:
            if await request.is_disconnected():
                raise HTTPException(_WAITING, "nobody waits for this any more")
            return await loop.run_in_executor(self.threads, work)

    async def _in_turn(self, request: Request, threads: Executor, work: Callable[[], Any]) -> Any:
        async with self._turn:
            if await request.is_disconnected():
                raise HTTPException(_WAITING, "nobody waits for this any more")
            return await asyncio.get_running_loop().run_in_executor(threads, work)

    def _layer(self, request: Request, name: str) -> Layer:
        text = request.path_params.get(name, request.query_params.get(name, ""))
        number = _whole(text)
        if not 0 <= number < len(self.stage.layers):
            raise HTTPException(404, "no such layer")
        return self.stage.layers[number]

    def _place(self, request: Request) -> Tile:
        level, row, col = (_whole(request.path_params[name]) for name in ("level", "row", "col"))
        tile = Tile(level, row, col)
        if not self.stage.grid.holds(tile):
            raise HTTPException(404, "no such tile")
        return tile

    def _bands(self, request: Request) -> list[int]:
        bands = [_whole(text) for text in request.query_params.get("bands", "").split(",")]
        if len(bands) not in (1, 3) or not all(0 <= band < len(self.stage.lead.about.bands) for band in bands):
            raise HTTPException(400, "bands are one number or three, from 0, of those that there are")
        return bands

    def _view(self, request: Request) -> tuple[int, Box] | None:
        """Return what is seen, ``level,top,left,bottom,right`` in tiles' numbers, where the request says so."""
        if "view" not in request.query_params:
            return None
        numbers = [_whole(text) for text in request.query_params["view"].split(",")]
        if len(numbers) != 5 or not self.stage.grid.holds(Tile(numbers[0], *numbers[1:3])):
            raise HTTPException(400, "view is level,top,left,bottom,right, in tiles")
        level, top, left, bottom, right = numbers
        if not (top < bottom <= top + 100 and left < right <= left + 100):
            raise HTTPException(400, "view is level,top,left,bottom,right, in tiles")
        return level, Box(top, left, bottom, right)


def _picture(png: bytes) -> Response:
    return Response(png, media_type="image/png", headers={"Cache-Control": "private, max-age=3600"})


async def _refuse(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return Response(f"{error.detail}\n", error.status_code, media_type="text/plain", headers=_HEADERS)


def _whole(text: str) -> int:
    if not re.fullmatch("-?[0-9]{1,9}", text, re.ASCII):
        raise HTTPException(400, "not a whole number")
    return int(text)


def _numbers(request: Request, name: str) -> tuple[float, ...]:
    try:
        found = tuple(float(text) for text in request.query_params.get(name, "").split(","))
    except ValueError:
        raise HTTPException(400, f"{name}: not a number") from None
    if not all(math.isfinite(value) and abs(value) < 1e30 for value in found):
        raise HTTPException(400, f"{name}: not a number that can be shown")
    return found


def _number(request: Request, name: str, otherwise: float | None = None) -> float:
    if name not in request.query_params and otherwise is not None:
        return otherwise
    found = _numbers(request, name)
    if len(found) != 1:
        raise HTTPException(400, f"{name}: one number is needed")
    return found[0]


def listen(host: str, port: int | None) -> socket.socket:
    """Take a port: the one asked for; else :data:`PORT`, or any other where that is taken.

    Raises:
        KsdiffError: the port is taken, or this machine has no such address.
    """
    wanted = [port] if port is not None else [PORT, 0]
    problem: OSError | None = None
    for number in wanted:
        try:
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            taken = socket.socket(family)
            taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            taken.bind((host, number))
            taken.listen(128)
            return taken
        except OSError as error:
            taken.close()
            problem = error
    assert problem is not None
    raise KsdiffError(
        f"{host}:{wanted[-1] or PORT}: cannot listen there ({problem.strerror}); give another --port or --host"
    )


def address(taken: socket.socket, token: str) -> str:
    """Return the page's address."""
    host, port = taken.getsockname()[:2]
    if host in ("0.0.0.0", "::"):
        host = socket.gethostname()
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/{token}/"


def serve(server: Server, taken: socket.socket) -> None:
    """Answer until Ctrl-C."""
    config = uvicorn.Config(
        server.app, log_level="warning", access_log=False, lifespan="off", timeout_graceful_shutdown=1, ws="none"
    )
    try:
        uvicorn.Server(config).run(sockets=[taken])
    except KeyboardInterrupt:
        pass
    finally:
        server.close()
