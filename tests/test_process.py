import os
import subprocess
import sys
from pathlib import Path

import pytest

from ksdiff_cli.process import wait_quietly

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator")
@pytest.mark.parametrize("size", [1 << 20, 48 << 20])
@pytest.mark.parametrize("extra", [{}, {"MALLOC_TRIM_THRESHOLD_": "65536"}], ids=["alone", "under Dask's nanny"])
def test_freed_memory_is_used_again(size: int, extra: dict[str, str]) -> None:
    code = f"""
import resource, threading
from ksdiff_cli.process import reuse_memory
reuse_memory()
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
