"""Windows made by other processes, on this machine or on others, through Dask distributed.

The job's folder is all that client and workers share: the client leaves an order there, workers read it once, and each
finished window appears there as it would from one process. So Dask carries numbers only, of a bounded number of windows
at a time, and a run goes on after the loss of workers, scheduler or client, with workers or without.
"""

import hashlib
import json
import logging
import os
import re
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import fields
from functools import partial
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from ksdiff_cli.errors import KsdiffError
from ksdiff_cli.files.content import contents
from ksdiff_cli.products.mosaic import is_mosaic
from ksdiff_cli.products.scene_files import scene_inputs
from ksdiff_cli.progress import ProgressCallback, silent
from ksdiff_cli.raster.pair import Scene
from ksdiff_cli.sharpening import worker
from ksdiff_cli.sharpening.job import Job
from ksdiff_cli.sharpening.pipeline import Windows
from ksdiff_cli.sharpening.worker import Order, SharedJob, digest_facts, make_window, pack

if TYPE_CHECKING:
    from distributed import Client, Future

_QUEUED = 3  # windows on their way for each of the workers' threads: one is made, the others hide the way to it
_KNOWN = 4096  # windows that the scheduler knows of, made or not, for its dashboard's bar; they take it some 12 MB
_PATIENCE = 1.0  # seconds without a window after which the client looks around
_COUNTED = 2.0  # seconds between two counts of workers
_SETTLING = 10.0  # seconds that a file server may take to show a finished window
_CONNECTING = 15.0  # seconds to wait for a scheduler
_ORDER = "order."
_ADDRESS = re.compile(r"((tcp|tls|ucx|ws|wss)://)?[^/\s]+:\d+/?")


class Workers:
    """Processes that make windows; called in place of :func:`ksdiff_cli.sharpening.pipeline.make_windows`."""

    def __init__(
        self,
        client: "Client",
        device: str = "auto",
        threads: int | None = None,
        tell: Callable[[str], None] = lambda line: None,
    ) -> None:
        """Take an open client's workers.

        Args:
            client: of Dask distributed.
            device: where each worker's network runs, by names of its own machine.
            threads: CPU threads of each worker's network; None leaves that to the worker's environment.
            tell: called with a line for people, where the scheduler has no workers.
        """
        self._tell: Callable[[str], None] | None = tell
        self._client, self._device, self._threads = client, device, threads
        self._scheduler = client.scheduler.address if client.scheduler else "?"
        self._counted, self._workers, self._slots = -_COUNTED, 0, 0

    def __call__(self, windows: Windows, missing: list[int], progress: ProgressCallback = silent) -> None:
        """Make the windows that are missing; see :func:`ksdiff_cli.sharpening.pipeline.make_windows`.

        Raises:
            KsdiffError: the scheduler is gone, a worker cannot reach the inputs or the job's folder, or workers died
                of a window.
        """
        folder = windows.job.folder.absolute()
        _clear(folder)  # what a killed client left
        try:
            parcel = pack(self._order(windows))
            digest = hashlib.sha256(parcel).hexdigest()
            order = folder / f"{_ORDER}{digest[:16]}"
            _write(order, parcel)
            self._make(windows.job, missing, progress, (str(order), digest, self._device))
        finally:
            _clear(folder)
        self._await(windows.job, missing)

    def _make(self, job: Job, missing: list[int], progress: ProgressCallback, order: tuple[str, str, str]) -> None:
        """Keep the workers busy until all is made; whatever fails is raised once it is known."""
        total = len(job.plan.numbers)
        done = total - len(missing)
        run, numbers = uuid4().hex[:8], iter(missing)
        running: dict[Future, int] = {}
        made: deque[Future] = deque()  # what nobody holds, the scheduler forgets
        ended: SimpleQueue[Future] = SimpleQueue()
        progress(done, total, "windows: connecting")
        try:
            while True:
                room = self._room()
                while len(running) < room and (number := next(numbers, None)) is not None:
                    if made and len(running) + len(made) >= room:
                        made.popleft()
                    # the name that Dask's dashboard shows; the run tells it from one that failed before
                    key = f"window-{run}-{job.shard(number).stem}"
                    future = self._client.submit(make_window, *order, number, key=key, pure=False)
                    future.add_done_callback(ended.put)
                    running[future] = number
                if not running:
                    return
                try:
                    future = ended.get(timeout=_PATIENCE)
                except Empty:
                    self._room()
                    self._tell_of_none()
                    progress(done, total, self._note())
                    continue
                self._judge(future, job.shard(running.pop(future)).stem)
                made.append(future)
                del future
                progress(done := done + 1, total, self._note())
        finally:
            with suppress(Exception):  # the scheduler may be gone, which has been told by then
                self._client.cancel(list(running), force=True)

    def _judge(self, future: "Future", name: str) -> None:
        """Raise unless a window is finished."""
        if future.status == "finished":
            return
        if future.status != "error":
            raise self._lost()
        error = future.exception(timeout=_SETTLING)
        if type(error).__name__ == "KilledWorker":
            raise KsdiffError(
                f"window {name}: {error.allowed_failures + 1} workers died while they made it, the last one "
                f"{error.last_worker.address}; its log says why, often it is memory (give less with --memory)"
            )
        raise error

    def _room(self) -> int:
        """Return how many windows the scheduler may know of."""
        self.check()
        if time.monotonic() >= self._counted + _COUNTED:
            try:
                threads = self._client.nthreads()
            except OSError:
                raise self._lost() from None
            self._workers, self._slots, self._counted = len(threads), sum(threads.values()), time.monotonic()
        return max(_KNOWN, _QUEUED * self._slots)

    def _tell_of_none(self) -> None:
        """Say once that nothing goes on because there are no workers, for those who see no bar."""
        if self._tell is not None and not self._workers:
            self._tell(
                f"{self._scheduler} has no workers: waiting for some; start them with: "
                f"dask worker {self._scheduler} --nthreads 1 --memory-limit 0"
            )
            self._tell = None

    def _note(self) -> str:
        plural = "" if self._workers == 1 else "s"
        return f"windows, {self._workers} worker{plural}" if self._workers else "windows: waiting for workers"

    def check(self) -> None:
        """Raise if the scheduler is gone.

        Raises:
            KsdiffError: see above.
        """
        if self._client.status != "running":
            raise self._lost()

    def _lost(self) -> KsdiffError:
        return KsdiffError(f"{self._scheduler}: the connection to Dask's scheduler is lost; start it again")

    def _order(self, windows: Windows) -> Order:
        job, pair = windows.job, windows.pair
        folder = job.folder.absolute()
        files = [path for path in scene_inputs(pair.scene).files if not is_mosaic(str(path))]
        known = {each.name: getattr(job, each.name) for each in fields(Job)} | {"folder": folder}
        return Order(
            SharedJob(**known, facts=digest_facts(folder)),
            _for_others(pair.scene, folder),
            contents(files),
            windows.fuser,
            windows.statistics,
            self._threads,
        )

    def _await(self, job: Job, missing: list[int]) -> None:
        """Wait until this process sees what the workers wrote.

        Raises:
            KsdiffError: it never does.
        """
        deadline = time.monotonic() + _SETTLING
        while absent := set(job.missing()) & set(missing):
            if time.monotonic() > deadline:
                raise KsdiffError(
                    f"{job.shard(min(absent))}: a worker finished it, but here it is not; {len(absent)} windows are "
                    "missing, workers must write into the client's folder"
                )
            time.sleep(_SETTLING / 100)


@contextmanager
def open_workers(
    count: int | None = None,
    scheduler: str | None = None,
    device: str = "auto",
    threads: int | None = None,
    tls: Sequence[str] | None = None,
    tell: Callable[[str], None] = lambda line: None,
) -> Iterator[Workers]:
    """Start workers on this machine, or use those of a scheduler.

    Whoever reaches a scheduler or a worker of Dask runs programs there: those started here listen to this machine
    alone, and with ``tls`` only to who has the key.

    Args:
        count: of processes to start here.
        scheduler: address such as ``tcp://host:8786``, or the JSON file that a scheduler wrote; in place of ``count``.
        device: see :class:`Workers`.
        threads: see :class:`Workers`; of workers started here, together they take all cores otherwise.
        tls: PEM files of the authority, the certificate and its key; None takes what Dask's own settings say.
        tell: see :class:`Workers`.

    Raises:
        KsdiffError: Dask is not installed, the scheduler cannot be reached, or not by TLS.
    """
    try:
        from distributed import Client, LocalCluster
    except ImportError:
        raise KsdiffError("--workers and --scheduler need Dask: pip install 'ksdiff[distributed]'") from None
    with ExitStack() as stack:
        # what goes wrong is raised; Dask's own lines would stand between the bar and the error
        stack.enter_context(_quiet())
        security = _security(tls, scheduler)
        if scheduler is None:
            cores = os.cpu_count() or 1
            count = count or cores
            threads = threads or max(1, cores // count)
            # memory is bounded by the windows' size; Dask's own bound would kill workers at a guess
            own = {"memory_limit": None, "preload": [worker.__name__], "host": "127.0.0.1", "security": security}
            start = _started(LocalCluster, n_workers=count, threads_per_worker=1, **own)
            cluster: Any = stack.enter_context(start)
            address: str | None = cluster.scheduler_address
        else:
            address = scheduler
        client = _connect(partial(Client, security=security), address, scheduler)
        stack.callback(_close, client)
        yield Workers(client, device, threads, tell)


def _connect(kind: Callable[..., Any], address: str | None, scheduler: str | None) -> Any:
    try:
        if address and address.endswith(".json"):  # Dask would wait for it, and stumble over what it is not
            stated = json.loads(Path(address).read_bytes())
            address = stated.get("address") if isinstance(stated, dict) else None
            if not isinstance(address, str):
                raise ValueError("the file is no scheduler's")
        if address and not _ADDRESS.fullmatch(address):  # a client of what is none ends badly when Python does
            raise ValueError("it is no address such as tcp://host:8786")
        return kind(address, timeout=_CONNECTING, set_as_default=False)
    except (OSError, ValueError, TypeError, RuntimeError, LookupError) as error:
        why = (str(error) or type(error).__name__).splitlines()[0][:200]
        if (isinstance(address, str) and address.startswith("tls")) or "tls" in why.lower():
            advice = "it needs the certificates that it was started with: --tls CA,CERT,KEY"
        else:
            advice = "start one with: dask scheduler"
        raise KsdiffError(
            f"--scheduler {scheduler}: no Dask scheduler can be reached there ({why}); {advice}"
        ) from None


def _security(tls: Sequence[str] | None, scheduler: str | None) -> Any:
    """Return how Dask encrypts; None leaves that to its own settings.

    Raises:
        KsdiffError: the files are not three, one is missing or cannot be used, or the scheduler's address is not TLS's.
    """
    if not tls:
        return None
    from distributed import Security

    if len(tls) != 3:
        raise KsdiffError(f"--tls {','.join(tls)}: give three files, CA,CERT,KEY")
    for file in tls:
        if not Path(file).is_file():
            raise KsdiffError(f"--tls: {file}: no such file; check the path")
    if scheduler and not scheduler.startswith("tls://") and not scheduler.endswith(".json"):
        raise KsdiffError(f"--scheduler {scheduler}: with --tls its address begins with tls://; start it with TLS")
    authority, certificate, key = tls
    names = {f"tls_{role}_{part}": file for role in ("client", "scheduler", "worker")
             for part, file in (("cert", certificate), ("key", key))}  # fmt: skip
    security = Security(tls_ca_file=authority, require_encryption=True, **names)
    try:
        for role in ("client", "scheduler", "worker"):
            security.get_connection_args(role)
    except (OSError, ValueError) as error:  # ssl's errors are OSErrors
        raise KsdiffError(f"--tls {','.join(tls)}: cannot be used ({error}); give three PEM files") from None
    return security


@contextmanager
def _started(kind: Callable[..., Any], **options: Any) -> Iterator[Any]:
    cluster = kind(**options, dashboard_address=None, silence_logs=logging.CRITICAL)
    try:
        yield cluster
    finally:
        with suppress(Exception):
            cluster.close(timeout=5)


def _close(client: Any) -> None:
    with suppress(Exception):
        client.close(timeout=5)


@contextmanager
def _quiet() -> Iterator[None]:
    logger = logging.getLogger("distributed")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="distributed")
        try:
            yield
        finally:
            logger.setLevel(level)


def _write(path: Path, content: bytes) -> None:
    try:
        path.write_bytes(content)
    except OSError as error:
        raise KsdiffError(f"{path}: cannot be written ({error.strerror}); make room there") from None


def _clear(folder: Path) -> None:
    for old in folder.glob(f"{_ORDER}*"):
        old.unlink(missing_ok=True)


def _for_others(scene: Scene, folder: Path) -> Scene:
    """Return the scene by names that mean the same in other processes; lists of tiles go into the job's folder."""

    def name(path: str) -> str:
        if not is_mosaic(path):
            return _absolute(path)
        copy = folder / f"{_ORDER}{Path(path).parent.name}.{Path(path).name}"
        _write(copy, Path(path).read_bytes())
        return str(copy)

    return scene.renamed(name)


def _absolute(path: str) -> str:
    """Return a file's absolute path; addresses and paths inside archives are absolute already."""
    return str(Path(path).absolute()) if Path(path).exists() else path
