"""Training in real processes: killed at any moment and resumed, stopped by hand, shared by two."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from test_training import write_patches
from typer.testing import CliRunner

from ksdiff_cli.main import app

STEPS = 12
ENVIRONMENT = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1]), "OMP_NUM_THREADS": "1"}


@pytest.fixture(autouse=True, scope="module")
def _threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def patches(tmp_path_factory):
    return write_patches(tmp_path_factory.mktemp("patches"))


def arguments(patches, run, *more):
    fixed = ["--steps", STEPS, "--batch", 3, "--width", 8, "--threads", 1, "--validate-every", 2, "--device", "cpu"]
    return list(map(str, ["train", "--data", patches, "-o", run, *fixed, *more]))


def command(patches, run, *more):
    return [sys.executable, "-m", "ksdiff_cli", *arguments(patches, run, *more)]


def start(patches, run, *more, stderr=None):
    return subprocess.Popen(command(patches, run, *more), env=ENVIRONMENT, stderr=stderr, text=True)


def finish(patches, run, *more):
    """Train in this process, which knows torch already."""
    done = CliRunner().invoke(app, arguments(patches, run, *more))
    assert done.exit_code == 0, done.output
    return done.stderr


def wait_for(process, condition):
    while not condition() and process.poll() is None:
        time.sleep(0.01)


@pytest.fixture(scope="module")
def uninterrupted(patches, tmp_path_factory):
    run = tmp_path_factory.mktemp("uninterrupted")
    finish(patches, run, "-q")
    return run


def assert_same(run, other):
    """The same bytes, and a log as if nothing had happened."""
    for stage in (1, 2):
        name = f"stage{stage}.safetensors"
        assert (run / name).read_bytes() == (other / name).read_bytes()
    logs = [
        [json.loads(line) | {"seconds": 0} for line in (folder / "log.jsonl").read_text().splitlines()]
        for folder in (run, other)
    ]
    assert logs[0] == logs[1]
    assert not (run / "lock").exists()
    assert not [path for path in run.rglob("*") if "partial" in path.name or path.suffix == ".state"]


@pytest.mark.parametrize("stage", [1, 2])
def test_killed_at_a_random_moment_it_goes_on_to_the_same_bytes(patches, uninterrupted, tmp_path, stage):
    process = start(patches, tmp_path, "-q")
    wait_for(process, (tmp_path / f"stage{stage}.state").exists)
    time.sleep(random.uniform(0, 0.5))
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "it was over before the kill"
    told = finish(patches, tmp_path, "--resume")
    assert "going on at step" in told and ("stage1 is done" in told) == (stage == 2)
    assert_same(tmp_path, uninterrupted)


@pytest.mark.parametrize("which", ["state", "weights"])
def test_killed_while_it_writes_it_goes_on_to_the_same_bytes(patches, uninterrupted, tmp_path, which):
    """The third resume state, or stage 1's weights, stay half written."""
    module, name, call = {
        "state": ("torch", "save", 3),
        "weights": ("ksdiff_cli.models.checkpoint", "save_file", 1),
    }[which]
    script = f"""
import importlib, os, signal
from pathlib import Path
module = importlib.import_module({module!r})
real, calls = module.{name}, []
def write(value, target, *more, **rest):
    real(value, target, *more, **rest)
    calls.append(1)
    if len(calls) == {call}:
        if hasattr(target, "truncate"):
            target.flush(); target.truncate(target.tell() // 2)
        else:
            os.truncate(target, Path(target).stat().st_size // 2)
        os.kill(os.getpid(), signal.SIGKILL)
module.{name} = write
from ksdiff_cli.main import app
app({arguments(patches, tmp_path, "-q")!r})
"""
    killed = subprocess.run([sys.executable, "-c", script], env=ENVIRONMENT)
    assert killed.returncode == -signal.SIGKILL
    assert not (tmp_path / "stage1.safetensors").exists()
    halves = [path for path in tmp_path.iterdir() if "partial" in path.name]
    assert len(halves) == 1
    finish(patches, tmp_path, "--resume")
    assert_same(tmp_path, uninterrupted)


def test_ctrl_c_ends_with_one_line_that_says_how_to_go_on(patches, uninterrupted, tmp_path):
    process = start(patches, tmp_path, "-q", stderr=subprocess.PIPE)
    wait_for(process, (tmp_path / "stage1.state").exists)
    second = CliRunner().invoke(app, arguments(patches, tmp_path, "--resume"))
    assert second.exit_code == 1 and f"another ksdiff train (process {process.pid}) works there" in second.stderr
    process.send_signal(signal.SIGINT)
    _, told = process.communicate()
    assert process.returncode == 1
    assert len(told.splitlines()) == 1 and told.startswith("Error: stage1: stopped at step ") and "--resume" in told
    state = torch.load(tmp_path / "stage1.state", weights_only=True)
    assert f"stopped at step {state['step']} of {STEPS};" in told  # nothing since the last validation is lost
    finish(patches, tmp_path, "--resume")
    assert_same(tmp_path, uninterrupted)


def test_two_processes_do_what_one_does(patches, uninterrupted, tmp_path):
    """A batch of 3 is shared as 1 and 2: losses, gradients and the statistics of z are the whole batch's."""
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "ksdiff_cli"]
    done = subprocess.run(
        [*launch, *arguments(patches, tmp_path)], env=ENVIRONMENT, check=True, capture_output=True, text=True
    )
    assert done.stdout.split() == [str(tmp_path / f"stage{stage}.safetensors") for stage in (1, 2)]
    assert done.stderr.count("stage1, step 2:") == 1
    for stage in (1, 2):
        one, two = (load_file(run / f"stage{stage}.safetensors") for run in (uninterrupted, tmp_path))
        assert one.keys() == two.keys()
        for name, value in one.items():
            # a shift before the standardisation does nothing: its gradient is rounding, and Adam follows it
            if "project.2.bias" not in name and "running_mean" not in name:
                torch.testing.assert_close(two[name], value, rtol=1e-3, atol=2e-5, msg=name)
    logs = [
        [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()] for run in (uninterrupted, tmp_path)
    ]
    for one, two in zip(*logs, strict=True):
        assert two["loss"] == pytest.approx(one["loss"], rel=1e-4) and two["valid"] == pytest.approx(
            one["valid"], rel=1e-4
        )
