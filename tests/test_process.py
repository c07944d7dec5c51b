import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ksdiff_cli.process import wait_quietly

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator")
@pytest.mark.parametrize("size", [1 << 20, 48 << 20])
@pytest.mark.parametrize("extra", [{}, {"MALLOC_TRIM_THRESHOLD_": "65536"}], ids=["alone", "under Dask's nanny"])
def test_freed_memory_is_used_again(size: int, extra: dict[str, str]) -> None:
    code = f"""
import resource, threading
from ksdiff_cli.process import keep_freed_memory
keep_freed_memory()
bytearray({size})
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    thread = threading.Thread(target=bytearray, args=[{size}])
    thread.start()
    thread.join()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
    environment = os.environ | {"PYTHONPATH": str(ROOT)} | extra
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert int(done.stdout) < 20 * size / 4096 / 4


def test_threads_sleep_unless_the_user_chose(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT"):
        monkeypatch.setenv(name, "")  # restored at the end, whatever is set meanwhile
        monkeypatch.delenv(name)
    wait_quietly()
    assert os.environ["GOMP_SPINCOUNT"] == "2000"
    monkeypatch.setenv("GOMP_SPINCOUNT", "7")
    wait_quietly()
    assert os.environ["GOMP_SPINCOUNT"] == "7"
    monkeypatch.delenv("GOMP_SPINCOUNT")
    monkeypatch.setenv("OMP_WAIT_POLICY", "active")
    wait_quietly()
    assert "GOMP_SPINCOUNT" not in os.environ


FORK = """
import os, sys, warnings
import numpy as np
import ksdiff_cli

pan, ms, folder = sys.argv[1:]
rng = np.random.default_rng(0)
arrays = rng.integers(9, 999, (96, 96)).astype("u2"), rng.integers(9, 999, (3, 24, 24)).astype("u2")

def work(name, used):
    made = []
    if used:
        made.append(ksdiff_cli.sharpen_array(*arrays, device="cpu", registration="skip").tobytes())
    for how in ({"threads": 2}, {"creation": {"NUM_THREADS": "2"}}):
        output = f"{folder}/{name}{len(made)}.tif"
        ksdiff_cli.sharpen_scene(pan, ms, output=output, method="exp", registration="skip", **how)
        made.append(open(output, "rb").read())
    return made

def fork(name, used, first=None):
    if (child := os.fork()) == 0:
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            made = work(name, used)
        lines = [str(one.message) for one in told if issubclass(one.category, RuntimeWarning)]
        if used:
            good = made == first and len(lines) == 1 and "spawn" in lines[0]
        else:
            good = not lines
        os._exit(0 if good else 3)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0, name

fork("before", False)
fork("after", True, work("parent", True))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_works_on_with_one_thread(make_pair: Any, tmp_path: Path) -> None:
    """Its parent's threads are gone, and torch and GDAL would wait for them without end."""
    files = make_pair(size=(128, 320))
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "2", "OMP_WAIT_POLICY": "passive"}
    command = [sys.executable, "-c", FORK, *map(str, (files.pan, files.ms, tmp_path))]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
