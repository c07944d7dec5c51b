"""The work of a Dask worker: it makes one window of a job after another, from what lies in the job's folder."""

import hashlib
import io
import logging
import pickle
import signal
import socket
import sys
import threading
from collections import OrderedDict
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from time import perf_counter
from typing import Any

import rasterio
from rasterio.errors import RasterioError

from ksdiff_cli._version import __version__
from ksdiff_cli.errors import KsdiffError
from ksdiff_cli.files.content import find_other
from ksdiff_cli.files.workdir import IDENTITY
from ksdiff_cli.fusers.base import Fuser
from ksdiff_cli.numerics import Array
from ksdiff_cli.numerics.moments import SceneStatistics
from ksdiff_cli.process import keep_freed_memory
from ksdiff_cli.raster.grouped import open_scene
from ksdiff_cli.raster.open import BLOCK_CACHE
from ksdiff_cli.raster.pair import Scene
from ksdiff_cli.sharpening.job import Job
from ksdiff_cli.sharpening.pipeline import Windows

_KEPT = 2  # jobs whose files a worker keeps open
# below Dask's own logger: lines reach the worker's log and the dashboard
_log = logging.getLogger("distributed.worker.ksdiff")


def pack(value: Any) -> bytes:
    """Turn an object that may hold a network into bytes; its tensors leave their device.

    Args:
        value: anything that pickle takes.
    """
    torch = sys.modules.get("torch")
    tensors: dict[int, tuple[int, Any]] = {}
    devices: list[Any] = []

    class Pickler(pickle.Pickler):
        def persistent_id(self, item: Any) -> Any:
            if torch is not None and isinstance(item, torch.device):
                devices.append(item)
                return "device"
            if torch is not None and isinstance(item, torch.Tensor):
                return tensors.setdefault(id(item), (len(tensors), item))[0]
            return None

    buffer, weights = io.BytesIO(), io.BytesIO()
    Pickler(buffer).dump(value)
    if torch is not None and (tensors or devices):
        # torch's own format keeps strides, which decide how a convolution rounds; without, workers need no torch
        torch.save([tensor for _, tensor in tensors.values()], weights)
    return pickle.dumps((buffer.getvalue(), weights.getvalue()))


def unpack(parcel: bytes, choose_device: Callable[[], str] = lambda: "auto") -> Any:
    """Turn what :func:`pack` made into the object, its tensors on a device of this process.

    Args:
        parcel: only from whom you trust, as pickle runs what it holds.
        choose_device: called if there are tensors; see :func:`ksdiff_cli.fusers.device.pick_device` for what it
            returns.

    Raises:
        KsdiffError: no such device here.
    """
    stored, weights = pickle.loads(parcel)
    here: list[Any] = []
    tensors: list[Any] = []
    if weights:
        import torch

        from ksdiff_cli.fusers.device import pick_device

        here.append(pick_device(choose_device()))
        tensors = torch.load(io.BytesIO(weights), map_location=here[0], weights_only=True)

    class Unpickler(pickle.Unpickler):
        def persistent_load(self, name: Any) -> Any:
            return here[0] if name == "device" else tensors[name]

    return Unpickler(io.BytesIO(stored)).load()


@dataclass
class SharedJob(Job):
    """A job whose windows several processes make, some of which may not know yet that it was given up.

    A worker whose client was killed ends the window it is at. If the folder has become another job's by then, this
    window must not get a name there.
    """

    facts: str = ""
    """Digest of the job's facts, see :func:`digest_facts`."""

    def store(self, number: int, values: Array | None) -> None:
        self.check()
        super().store(number, values)

    def check(self) -> None:
        """Raise if the folder is not this job's.

        Raises:
            KsdiffError: see above.
        """
        if digest_facts(self.folder) != self.facts:
            raise KsdiffError(
                f"{self.folder}: is not the folder that the client works in, or holds another job by now; "
                "workers must see the output's folder under the client's path"
            )

    def _encoded(self, number: int, values: Array) -> memoryview:
        # called when the growing file is there already: whoever takes the folder over changes its facts first and then
        # removes growing files, so that either this fails, or the rename does
        self.check()
        return super()._encoded(number, values)


@dataclass(frozen=True)
class Order:
    """All that a worker must know to make any window of a job."""

    job: SharedJob
    scene: Scene
    """With absolute paths."""
    files: tuple[tuple[str, int, str], ...]
    """The inputs' files by their content, as the client sees it; see :func:`ksdiff_cli.files.content.contents`."""
    fuser: Fuser
    """Prepared."""
    statistics: SceneStatistics
    threads: int | None
    """CPU threads of a network; None leaves that to the worker's environment."""
    versions: tuple[tuple[str, str], ...] = field(default_factory=lambda: versions())
    """Of whatever rounds pixels, at the client."""


def versions() -> tuple[tuple[str, str], ...]:
    """Return the names and versions of the packages that pixels depend on."""
    found = [("ksdiff", __version__)]
    for name in ("numpy", "scipy", "torch"):
        try:
            found.append((name, version(name)))
        except PackageNotFoundError:
            found.append((name, "none"))
    return tuple(found)


def digest_facts(folder: Path) -> str:
    """Return a digest of what a job's folder says its shards depend on; empty if there is no such folder."""
    try:
        return hashlib.sha256((folder / IDENTITY).read_bytes()).hexdigest()
    except OSError:
        return ""


def make_window(order: str, digest: str, device: str, number: int) -> None:
    """Make a window, in a worker's thread.

    Args:
        order: file with an :class:`Order`, packed.
        digest: SHA-256 of that file.
        device: where this worker's network runs.
        number: of the window.

    Raises:
        KsdiffError: naming this worker: it cannot read the inputs, or cannot write into the job's folder.
    """
    start = perf_counter()
    name, failure = "?", ""
    try:
        with rasterio.Env(GDAL_CACHEMAX=BLOCK_CACHE):
            station = _find_runner(order, digest, device)
            name = station.job.shard(number).stem
            if station.job.has(number):
                return  # Dask asks again for what a worker that is gone had made
            station.make(number)
    except Exception as error:
        _log.error("worker %s, window %s: %s", worker_name(), name, error)
        if not isinstance(error, KsdiffError | RasterioError | OSError):
            error.add_note(f"worker {worker_name()}, window {name}")
            raise
        failure = f"worker {worker_name()}: {error}"
    if failure:
        # out here: GDAL's exceptions, which would come along as its context, cannot be sent
        raise KsdiffError(failure)
    _log.info("worker %s, window %s: %.2f s", worker_name(), name, perf_counter() - start)


def dask_setup(worker: Any) -> None:
    """Prepare a worker of a local cluster; Dask calls this in each, as it is named with ``preload``.

    Ctrl-C in a terminal reaches all its processes: it is the client's to end the others.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def worker_name() -> str:
    """Return this worker's address and its machine's name."""
    from distributed import get_worker

    try:
        address = get_worker().address
    except ValueError:
        address = "in no cluster"
    return f"{address} ({socket.gethostname()})"


class TaskRunner:
    """A job as one worker has it open; its threads take turns, so that one reads while another one fuses."""

    def __init__(self, order: Order) -> None:
        self.job = order.job
        self._reading, self._fusing = threading.Lock(), threading.Lock()
        if order.versions != versions():
            theirs, ours = (", ".join(map(" ".join, found)) for found in (order.versions, versions()))
            raise KsdiffError(f"has {ours}, but the client {theirs}; install the same versions everywhere")
        order.job.check()
        keep_freed_memory()
        if order.threads and (torch := sys.modules.get("torch")):  # a network has brought it here
            torch.set_num_threads(order.threads)
        self._open = ExitStack()
        pair = self._open.enter_context(open_scene(order.scene))
        if other := find_other(order.files):
            self._open.close()
            raise KsdiffError(f"{other}: is missing here, or another file than the client sees; share one folder")
        pair.recall(order.statistics)
        self._windows = Windows(order.job, pair, order.fuser, order.statistics)

    def make(self, number: int) -> None:
        """Make a window."""
        with self._reading:
            tile = self._windows.read(number)
        with self._fusing:
            made = self._windows.fuse(number, tile)
        del tile
        self._windows.store(number, made)

    def close(self) -> None:
        """Close the inputs, once nobody reads."""
        with self._reading:
            self._open.close()


_runners: OrderedDict[str, TaskRunner] = OrderedDict()
_finding = threading.Lock()


def _find_runner(order: str, digest: str, device: str) -> TaskRunner:
    """Return the job as it is open here; the order, weights among it, is read once."""
    with _finding:
        if digest not in _runners:
            try:
                parcel = Path(order).read_bytes()
            except OSError as error:
                raise KsdiffError(
                    f"{order}: cannot be read ({error.strerror}); workers must see the output's folder under the "
                    "client's path"
                ) from None
            if hashlib.sha256(parcel).hexdigest() != digest:
                raise KsdiffError(f"{order}: is another file than the client's; share one folder")
            _runners[digest] = TaskRunner(unpack(parcel, partial(_own_device, device)))
            while len(_runners) > _KEPT:
                _runners.popitem(last=False)[1].close()
        _runners.move_to_end(digest)
        return _runners[digest]


def _own_device(device: str) -> str:
    """Share a machine's GPUs among the workers of a local cluster, which are named by their numbers."""
    if device not in ("auto", "cuda"):
        return device
    import torch
    from distributed import get_worker

    number, count = str(get_worker().name), torch.cuda.device_count()
    return f"cuda:{int(number) % count}" if count > 1 and number.isdigit() else device
