"""Stages of ksdiff view for tests, and a server that shows them in this process."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def stage_of(*paths: Path, **more: Any) -> Any:
    """Lay out layers as ``ksdiff view PATH…`` does."""
    from ksdiff_cli.options.viewing import ViewOptions
    from ksdiff_cli.view.opening import open_stage

    return open_stage([str(path) for path in paths], ViewOptions(**more))


@contextmanager
def serving(stage: Any, threads: int = 4) -> Iterator[str]:
    """Serve a stage in a thread; yields the page's address."""
    import uvicorn

    from ksdiff_cli.view.server import Server, address, listen

    taken = listen("127.0.0.1", 0)
    server = Server(stage, threads)
    config = uvicorn.Config(server.app, log_level="warning", access_log=False, lifespan="off", ws="none")
    running = uvicorn.Server(config)
    thread = threading.Thread(target=running.run, kwargs={"sockets": [taken]})
    thread.start()
    try:
        yield address(taken, server.token)
    finally:
        running.should_exit = True
        thread.join(30)
        server.close()
        taken.close()
