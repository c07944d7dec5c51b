"""Stages of ksdiff view for tests, and a server that shows them in this process."""

import os
import signal
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator, Sequence
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


def view_until_interrupted(arguments: Sequence[str], folder: Path) -> str:
    """Type ``ksdiff view``, open the page that it names, press Ctrl-C; returns what it wrote on standard error."""
    process = subprocess.Popen(
        [sys.executable, "-m", "ksdiff_cli", "view", *arguments, "--no-browser"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[1])},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        assert url.startswith("http://127.0.0.1:"), process.communicate(timeout=60)[1]
        with urllib.request.urlopen(url, timeout=60) as page:
            assert page.status == 200
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 0 and "Traceback" not in errors, errors
    return errors
