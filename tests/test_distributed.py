"""Windows made by workers, which are real processes: the same bytes as from one, whoever is killed meanwhile."""

import json
import logging
import os
import pickle
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import rasterio
from conftest import PairFiles

pytest.importorskip("distributed", reason="Dask is not installed: pip install -e '.[distributed]'")

from distributed_maker import ENVIRONMENT, Cluster, Slow

from ksdiff_cli.errors import KsdiffError
from ksdiff_cli.files.content import contents, find_other
from ksdiff_cli.files.workdir import lock_folder
from ksdiff_cli.fusers.classical import Classical, Network, Upsampling, make_fuser
from ksdiff_cli.fusers.consistent import Consistent
from ksdiff_cli.numerics.shift_field import ShiftField
from ksdiff_cli.options.sharpening import SharpenOptions
from ksdiff_cli.products import make_pair as scene_of
from ksdiff_cli.products.mosaic import ImageTile, join_tiles
from ksdiff_cli.progress import silent
from ksdiff_cli.sharpening import distributed, worker
from ksdiff_cli.sharpening.distributed import Workers, open_workers
from ksdiff_cli.sharpening.engine import Sharpened, job_folder, sharpen_scene
from ksdiff_cli.sharpening.job import Job
from ksdiff_cli.sharpening.worker import pack, unpack

# sockets that Dask's client leaves to the garbage collector
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")

Array = Any
TILE = 64


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A scheduler with two workers, for tests that kill none of them."""
    made = Cluster(tmp_path_factory.mktemp("cluster"), 2)
    yield made.wait()
    made.close()


@pytest.fixture
def files(make_pair: Any) -> PairFiles:
    def dig(pan: Array, ms: Array) -> None:
        pan[:, :70, :140] = 0  # two windows are empty
        pan[:, 200:220, 30:90] = 0

    made: PairFiles = make_pair(size=(330, 300), edit=dig, pan_profile={"nodata": 0})
    return made


def sharpen(files: PairFiles, name: str, fuser: Any = None, cluster: Cluster | None = None, **more: Any) -> Sharpened:
    scene = more.pop("scene", None) or scene_of(str(files.pan), [str(files.ms)])
    options = SharpenOptions(tile=TILE, fidelity=more.pop("fidelity", False), **more)
    if cluster is None:
        return sharpen_scene(scene, files.folder / name, fuser or Upsampling(), options)
    with open_workers(scheduler=str(cluster.file)) as workers:
        return sharpen_scene(scene, files.folder / name, fuser or Upsampling(), options, make=workers)


def names(files: PairFiles) -> list[str]:
    return sorted(path.name for path in files.folder.iterdir())


def finished(output: Path) -> int:
    folder = job_folder(output)
    return len([*folder.glob("*.tif"), *folder.glob("*.empty")]) if folder.exists() else 0


def when(condition: Callable[[], bool], act: Callable[[], Any]) -> threading.Thread:
    """Act in another thread as soon as something holds."""

    def watch() -> None:
        while not condition():
            time.sleep(0.005)
        act()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    return thread


@pytest.mark.parametrize("method", ["consistent", "ksdiff"])
def test_workers_give_the_same_bytes_as_one_process(method: str, files: PairFiles, cluster: Cluster) -> None:
    def fuser() -> Any:
        return Consistent(make_fuser("gsa")) if method == "consistent" else make_fuser(method, device="cpu")

    part = (40, 100, 120, 110)  # with an empty window
    one = sharpen(files, "one.tif", fuser(), window=part, fidelity=True)
    many = sharpen(files, "many.tif", fuser(), cluster, window=part, fidelity=True)
    assert many.output.read_bytes() == one.output.read_bytes()
    assert replace(many, output=one.output, memory=one.memory) == one
    assert names(files) == ["many.tif", "ms.tif", "one.tif", "pan.tif"]


def test_workers_make_parts_and_virtual_rasters_too(files: PairFiles, cluster: Cluster) -> None:
    one = sharpen(files, "one.tif", window=(50, 60, 200, 210))
    many = sharpen(files, "many.vrt", None, cluster, window=(50, 60, 200, 210), format="VRT")
    with rasterio.open(one.output) as first, rasterio.open(many.output) as second:
        np.testing.assert_array_equal(first.read(), second.read())


def test_a_mosaic_of_tiles_and_a_shift_that_varies_reach_the_workers(files: PairFiles, cluster: Cluster) -> None:
    with rasterio.open(files.pan) as pan:
        tile = ImageTile(str(files.pan), 0, 0, *pan.shape)
        scene = scene_of(join_tiles("pan", [tile], pan.shape), [str(files.ms)])
    field = ShiftField(1, (0.1, 0.8, 0.2), (-0.2, 0.0, 0.5), (-0.5, 81.5, -0.5, 74.5), ((-2, 2), (-2, 2)))
    plain = sharpen(files, "plain.tif", scene=scene)
    scene = replace(scene, field=field)
    one = sharpen(files, "one.tif", scene=scene)
    many = sharpen(files, "many.tif", None, cluster, scene=scene)
    assert many.output.read_bytes() == one.output.read_bytes() != plain.output.read_bytes()


def test_workers_started_by_the_command_line(files: PairFiles) -> None:
    one = sharpen(files, "one.tif", fidelity=True).output
    arguments = [files.pan.name, files.ms.name, "-o", "out.tif", "--tile", TILE, "--method", "exp", "--workers", 2]
    command = [sys.executable, "-m", "ksdiff_cli", "sharpen", *map(str, arguments)]
    done = subprocess.run(command, cwd=files.folder, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(done.stderr.splitlines()) == 5, done.stderr  # output, windows, cameras, both fidelities
    assert "Windows of 64 pixels: 30; memory up to" in done.stderr and "GB for each worker" in done.stderr
    assert (files.folder / "out.tif").read_bytes() == one.read_bytes()


def test_a_killed_worker_costs_nothing_but_time_and_a_killed_scheduler_keeps_what_is_done(
    files: PairFiles, tmp_path: Path
) -> None:
    one, output = sharpen(files, "one.tif", Slow(0)).output, files.folder / "out.tif"
    (tmp_path / "own").mkdir()
    cluster = Cluster(tmp_path / "own", 2).wait()
    try:
        killer = when(lambda: finished(output) > 20, cluster.workers[0].kill)
        made = sharpen(files, "out.tif", Slow(0.04), cluster)
        killer.join()
        assert cluster.workers[0].wait() == -signal.SIGKILL
        log = (cluster.folder / "worker.log").read_text()
        assert log.count(", window r") <= 30 + 2, "what the killed worker had finished was made again"
        assert made.output.read_bytes() == one.read_bytes()
        assert names(files) == ["ms.tif", "one.tif", "out.tif", "pan.tif"]
        output.unlink()
        killer = when(lambda: finished(output) > 8, cluster.scheduler.kill)
        lost = r"^tcp://.*scheduler is lost; start it again; \d+ finished windows are kept"
        with pytest.raises(KsdiffError, match=lost):
            sharpen(files, "out.tif", Slow(0.1), cluster)
        killer.join()
    finally:
        cluster.close()
    made = sharpen(files, "out.tif", Slow(0))
    assert made.resumed > 8
    assert output.read_bytes() == one.read_bytes()


def test_the_same_command_goes_on_after_the_client_was_killed(files: PairFiles, cluster: Cluster) -> None:
    """And the workers' last windows do no harm to what another command does in that folder."""
    output = files.folder / "out.tif"
    script = (
        "import sys\nfrom pathlib import Path\nfrom distributed_maker import Slow\n"
        "from ksdiff_cli.products import make_pair\n"
        "from ksdiff_cli.options.sharpening import SharpenOptions\n"
        "from ksdiff_cli.sharpening.engine import sharpen_scene\n"
        "from ksdiff_cli.sharpening.distributed import Workers, open_workers\n"
        "pan, ms, out, scheduler = sys.argv[1:]\n"
        "with open_workers(scheduler=scheduler) as workers:\n"
        f"    options = SharpenOptions(tile={TILE}, dtype='int16')\n"
        "    sharpen_scene(make_pair(pan, [ms]), Path(out), Slow(.2), options, make=workers)\n"
    )
    command = [sys.executable, "-c", script, *map(str, (files.pan, files.ms, output, cluster.file))]
    with subprocess.Popen(command, env=ENVIRONMENT) as client:
        when(lambda: finished(output) > 3, client.kill).join(60)
    assert client.returncode == -signal.SIGKILL
    # the same number of bytes a pixel, another type: shards that do not belong here would go unnoticed
    made = sharpen(files, output.name, Slow(0.05), cluster)
    assert made.resumed == 0
    assert output.read_bytes() == sharpen(files, "one.tif", Slow(0)).output.read_bytes()


def test_a_window_of_a_job_that_was_given_up_gets_no_name(tmp_path: Path, files: PairFiles) -> None:
    job = shared_job(files, tmp_path)
    values = np.ones((4, TILE, TILE), np.uint16)
    job.store(3, values)
    (tmp_path / "job.json").write_text("another job")
    for given in (values, None):
        with pytest.raises(KsdiffError, match="holds another job by now"):
            job.store(4, given)
    assert sorted(path.name for path in tmp_path.glob("r*")) == [job.shard(3).name]


def test_a_job_that_is_given_up_while_a_window_is_written(
    tmp_path: Path, files: PairFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The moment between a growing file's first byte and its name."""
    job, encode = shared_job(files, tmp_path), Job._encoded

    def replace_job(*arguments: Any) -> Any:
        assert list(tmp_path.glob("*.part"))
        return encode(*arguments)

    monkeypatch.setattr(Job, "_encoded", replace_job)
    checks: list[int] = []
    check = job.check

    def change_after_the_first() -> None:
        check()
        checks.append(1)
        (tmp_path / "job.json").write_text("another job")

    monkeypatch.setattr(job, "check", change_after_the_first)
    with pytest.raises(KsdiffError, match="another job"):
        job.store(4, np.ones((4, TILE, TILE), np.uint16))
    assert len(checks) == 1 and not list(tmp_path.glob("r*.tif"))


def shared_job(files: PairFiles, folder: Path) -> worker.SharedJob:
    """A job in a folder of its own, as a worker gets it."""
    found: list[worker.SharedJob] = []

    def keep(windows: Any, missing: list[int], progress: Any = silent) -> None:
        known = {each.name: getattr(windows.job, each.name) for each in fields(Job)} | {"folder": folder}
        (folder / "job.json").write_text("this job")
        found.append(worker.SharedJob(**known, facts=worker.digest_facts(folder)))
        raise KsdiffError("enough")

    scene = scene_of(str(files.pan), [str(files.ms)])
    with pytest.raises(KsdiffError, match="enough"):
        sharpen_scene(scene, files.folder / "x.tif", Upsampling(), SharpenOptions(tile=TILE), make=keep)
    return found[0]


class Hiding(Classical):
    """A method that does something between the client's opening of the files and the workers'."""

    def __init__(self, act: Callable[[], Any]) -> None:
        super().__init__("brovey")
        self.act = act

    def prepare(self, *arguments: Any, **more: Any) -> None:
        super().prepare(*arguments, **more)
        self.act()
        self.__class__ = Classical  # which workers know
        del self.act


def test_a_worker_that_cannot_reach_the_inputs_says_who_and_what(files: PairFiles, cluster: Cluster) -> None:
    fuser = Hiding(lambda: files.pan.rename(files.folder / "elsewhere.tif"))
    with pytest.raises(KsdiffError, match=r"^worker tcp://\S+:\d+ \(.+\): \S+/scene/pan.tif: no such file"):
        sharpen(files, "out.tif", fuser, cluster)
    assert names(files) == ["elsewhere.tif", "ms.tif"]


def test_a_worker_that_sees_another_file_says_so(files: PairFiles, cluster: Cluster, monkeypatch: Any) -> None:
    """One of the same name, size and time: only its content tells."""
    work = distributed.contents

    def rewritten(paths: Any) -> Any:
        found, before = work(paths), files.ms.stat()
        content = bytearray(files.ms.read_bytes())
        content[-9] ^= 1
        files.ms.write_bytes(content)
        os.utime(files.ms, ns=(before.st_atime_ns, before.st_mtime_ns))
        return found

    monkeypatch.setattr(distributed, "contents", rewritten)
    with pytest.raises(KsdiffError, match=r"^worker tcp.*ms.tif: is missing here, or another file than the client"):
        sharpen(files, "out.tif", None, cluster)


def test_a_worker_may_read_a_copy(files: PairFiles, tmp_path: Path) -> None:
    """On another machine a file has another inode and other times."""
    known = contents([files.pan, files.ms])
    for path in (files.pan, files.ms):
        copy = path.with_suffix(".copy")
        shutil.copyfile(path, copy)
        copy.replace(path)
    assert find_other(known) is None
    files.ms.unlink()
    assert find_other(known) == str(files.ms)


def test_a_worker_that_cannot_reach_the_folder_says_so(tmp_path: Path) -> None:
    with pytest.raises(KsdiffError, match=r"^worker .*nowhere/order.1: cannot be read .*output's folder"):
        worker.make_window(str(tmp_path / "nowhere" / "order.1"), "?", "cpu", 0)


def test_a_worker_with_another_version_says_so(files: PairFiles, cluster: Cluster, monkeypatch: Any) -> None:
    monkeypatch.setattr(worker, "__version__", "0.0.0")
    with pytest.raises(KsdiffError, match=r"^worker tcp.*has ksdiff .*but the client ksdiff 0.0.0.*same versions"):
        sharpen(files, "out.tif", None, cluster)


def test_a_window_that_kills_its_workers_is_named() -> None:
    from distributed.scheduler import KilledWorker

    last = SimpleNamespace(address="tcp://10.0.0.7:4321")
    error = KilledWorker("window-1-r000000_c000064", last, 3)  # type: ignore[arg-type]
    future = SimpleNamespace(status="error", exception=lambda timeout: error)
    workers = Workers(SimpleNamespace(scheduler=None))
    with pytest.raises(KsdiffError, match=r"window r0_c64: 4 workers died .* tcp://10.0.0.7:4321; .*--memory"):
        workers._judge(future, "r0_c64")


def test_two_clients_at_one_output(files: PairFiles, cluster: Cluster, fails: Any) -> None:
    output = files.folder / "out.tif"
    with lock_folder(job_folder(output), "busy"):
        line = fails("sharpen", files.pan, files.ms, "-o", output, "--method", "exp", "--scheduler", cluster.file)
    assert f"another ksdiff sharpen (process {os.getpid()}) is making it" in line


def test_no_scheduler_there(files: PairFiles, fails: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distributed, "_CONNECTING", 0.3)
    command = ("sharpen", files.pan, files.ms, "-o", files.folder / "out.tif", "--method", "exp", "--scheduler")
    for address in ("tcp://127.0.0.1:1", "nonsense://x", files.folder / "none.json"):
        assert f"--scheduler {address}: no Dask scheduler can be reached there" in fails(*command, address)
    assert names(files) == ["ms.tif", "pan.tif"]


def test_without_dask(files: PairFiles, fails: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    line = fails("sharpen", files.pan, files.ms, "-o", files.folder / "out.tif", "--method", "exp", "--workers", 2)
    assert "pip install 'ksdiff[distributed]'" in line


def count_tasks(client: Any) -> dict[str, int]:
    """{state: tasks of this state that the scheduler knows}."""

    def count(dask_scheduler: Any) -> dict[str, int]:
        states = [task.state for task in dask_scheduler.tasks.values()]
        return {state: states.count(state) for state in set(states)}

    found: dict[str, int] = client.run_on_scheduler(count)
    return found


def watch(files: PairFiles, cluster: Cluster) -> list[dict[str, int]]:
    """Make a scene of 30 windows; return what the scheduler knew after each."""
    seen = []
    with open_workers(scheduler=str(cluster.file)) as workers:
        client = workers._client

        def look(done: int, total: int, note: str = "") -> None:
            if "workers" in note:
                seen.append(count_tasks(client))

        scene = scene_of(str(files.pan), [str(files.ms)])
        sharpen_scene(scene, files.folder / "out.tif", Upsampling(), SharpenOptions(tile=TILE), look, workers)
        deadline = time.monotonic() + 20
        while count_tasks(client):
            assert time.monotonic() < deadline, "the scheduler keeps what is done"
            time.sleep(0.05)
    return seen


def test_the_scheduler_knows_what_its_dashboard_shows(files: PairFiles, cluster: Cluster) -> None:
    seen = watch(files, cluster)
    assert max(sum(known.values()) for known in seen) == 30
    assert seen[-1] == {"memory": 30}
    log = (cluster.folder / "worker.log").read_text()
    assert "window r000320_c000256" in log and "worker tcp://" in log


def test_the_scheduler_knows_few_windows_of_many(files: PairFiles, cluster: Cluster, monkeypatch: Any) -> None:
    """So that it has as much to remember of a hundred thousand windows as of eight."""
    monkeypatch.setattr(distributed, "_KNOWN", 8)
    assert 6 <= max(sum(known.values()) for known in watch(files, cluster)) <= 9


def test_a_network_travels_with_its_strides(tmp_path: Path) -> None:
    import torch

    fuser = make_fuser("ksdiff", device="cpu")
    assert isinstance(fuser, Network)
    weight = torch.nn.Parameter(torch.rand(4, 3, 3, 3).to(memory_format=torch.channels_last))
    assert pickle.loads(pack(Upsampling()))[1] == b"", "workers of a classical method would load torch"
    there = unpack(
        pack({"fuser": fuser, "weight": weight, "again": weight, "place": torch.device("meta")}), lambda: "cpu"
    )
    assert there["weight"].stride() == weight.stride() and isinstance(there["weight"], torch.nn.Parameter)
    assert there["again"] is there["weight"]
    assert there["place"] == torch.device("cpu")
    for one, other in zip(fuser._model.state_dict().values(), there["fuser"]._model.state_dict().values(), strict=True):
        assert torch.equal(one, other)


def test_logging_is_as_before() -> None:
    level = logging.getLogger("distributed").level
    with distributed._quiet():
        assert logging.getLogger("distributed").level == logging.CRITICAL
    assert logging.getLogger("distributed").level == level


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    """Make an authority, a certificate and a key, which is all one: what --tls takes."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    folder = tmp_path_factory.mktemp("keys")

    def make(name: str) -> str:
        key, certificate = folder / f"{name}.key", folder / f"{name}.pem"
        how = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=ksdiff"
        command = ["openssl", *how.split(), "-keyout", str(key), "-out", str(certificate)]
        subprocess.run(command, check=True, capture_output=True)
        return f"{certificate},{certificate},{key}"

    return make


def test_tls_lets_in_who_has_the_key(
    files: PairFiles, keys: Any, tmp_path: Path, run: Any, fails: Any, monkeypatch: Any
) -> None:
    own, other = keys("own"), keys("other")
    authority, certificate, key = own.split(",")
    options = "--protocol", "tls", "--tls-ca-file", authority, "--tls-cert", certificate, "--tls-key", key
    (tmp_path / "tls").mkdir()
    made = Cluster(tmp_path / "tls", 1, *options)
    try:
        address = json.loads(made.wait().file.read_text())["address"]
        assert address.startswith("tls://")
        one = sharpen(files, "one.tif", fidelity=True).output
        command = ["sharpen", files.pan, files.ms, "--method", "exp", "--tile", TILE, "-o"]
        result = run(*command, files.folder / "out.tif", "--scheduler", made.file, "--tls", own)
        assert result.exit_code == 0, result.stderr
        assert (files.folder / "out.tif").read_bytes() == one.read_bytes()
        monkeypatch.setattr(distributed, "_CONNECTING", 0.5)
        for more in ((), ("--tls", other)):
            line = fails(*command, files.folder / "no.tif", "--scheduler", address, *more)
            assert "no Dask scheduler can be reached there" in line
            assert "--tls CA,CERT,KEY" in line
        assert not (files.folder / "no.tif").exists()
    finally:
        made.close()


def test_workers_on_this_machine_listen_to_it_alone_and_by_tls_if_asked(keys: Any, monkeypatch: Any) -> None:
    import distributed as dask

    class StartedError(Exception):
        pass

    def start(**how: Any) -> Any:
        asked.append(how)
        raise StartedError

    asked: list[dict[str, Any]] = []
    monkeypatch.setattr(dask, "LocalCluster", start)
    for tls in (None, keys("local").split(",")):
        with pytest.raises(StartedError), open_workers(1, tls=tls):
            pass
    assert [how["host"] for how in asked] == ["127.0.0.1"] * 2
    assert [how["dashboard_address"] for how in asked] == [None] * 2
    assert asked[0]["security"] is None
    assert asked[1]["security"].require_encryption


@pytest.mark.parametrize(
    ("tls", "scheduler", "words"),
    [
        ("a.pem,b.pem", "tls://127.0.0.1:1", "give three files, CA,CERT,KEY"),
        ("gone.pem,gone.pem,gone.pem", "tls://127.0.0.1:1", "gone.pem: no such file"),
        ("CERT,CERT,CERT", "tls://127.0.0.1:1", "give three PEM files"),
        ("pan.tif,pan.tif,pan.tif", "tls://127.0.0.1:1", "give three PEM files"),
        ("KEYS", "tcp://127.0.0.1:1", "its address begins with tls://"),
    ],
)
def test_bad_tls_is_told(tls: str, scheduler: str, words: str, files: PairFiles, keys: Any, fails: Any) -> None:
    own = keys("bad")
    tls = own if tls == "KEYS" else tls.replace("CERT", own.split(",")[0]).replace("pan.tif", str(files.pan))
    line = fails("sharpen", files.pan, files.ms, "-o", files.folder / "o.tif", "--method", "exp",
                 "--scheduler", scheduler, "--tls", tls)  # fmt: skip
    assert words in line


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"address": 3}', '{"address": "x"}'])
def test_a_schedulers_file_that_is_none(text: str, files: PairFiles, fails: Any) -> None:
    (files.folder / "s.json").write_text(text)
    line = fails("sharpen", files.pan, files.ms, "-o", files.folder / "o.tif", "--method", "exp",
                 "--scheduler", files.folder / "s.json")  # fmt: skip
    assert "no Dask scheduler can be reached there" in line


def test_the_clusters_example_is_not_open_to_the_cluster() -> None:
    """Every pod is reached by its own kind alone, with certificates, and none shows a dashboard or holds a token."""
    import yaml

    path = Path(__file__).parents[1] / "docs" / "kubernetes.yaml"
    things = [thing for thing in yaml.safe_load_all(path.read_text()) if thing]
    pods = [thing["spec"]["template"] for thing in things if thing["kind"] in ("Deployment", "Job")]
    assert len(pods) == 3
    policies = [thing["spec"] for thing in things if thing["kind"] == "NetworkPolicy"]
    for pod in pods:
        labels, spec = pod["metadata"]["labels"], pod["spec"]
        own = [one for one in policies if one["podSelector"]["matchLabels"].items() <= labels.items()]
        assert own and all("Ingress" in one["policyTypes"] for one in own), labels
        for policy in own:
            for rule in policy.get("ingress", []):
                assert rule["from"], "anybody"
                assert all("podSelector" in source and "namespaceSelector" not in source for source in rule["from"])
        assert spec["automountServiceAccountToken"] is False
        assert spec["securityContext"]["runAsNonRoot"] is True
        (container,) = spec["containers"]
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        words = " ".join(container["args"])
        assert "tls" in words and "tcp://" not in words
        assert words.startswith("ksdiff") or "--no-dashboard" in words
    ports = [port["port"] for thing in things if thing["kind"] == "Service" for port in thing["spec"]["ports"]]
    assert ports == [8786]
