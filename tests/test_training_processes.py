"""Training in real processes: killed at any moment and resumed, stopped by hand, shared by two."""

import importlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from conftest import start_child
from safetensors.torch import load_file
from test_training import SMALL, write_patches
from typer.testing import CliRunner

from ksdiff_cli.main import app

STEPS = 6
LOADED = ("ksdiff_cli.main", "ksdiff_cli.training.stages", "torch._dynamo", "matplotlib.backends.backend_agg")
ENVIRONMENT = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1]), "OMP_NUM_THREADS": "1"}


@pytest.fixture(autouse=True, scope="module")
def _threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def patches(tmp_path_factory):
    return write_patches(tmp_path_factory.mktemp("patches"), side=16)


def arguments(patches, run, *more):
    words = ["train", "--data", patches, "-o", run, "--steps", STEPS, "--batch", 3, "--validate-every", 2]
    small = [word for name in SMALL for word in ("--set", f"network.{name}={json.dumps(SMALL[name])}")]
    return list(map(str, [*words, *small, "--threads", 1, "--device", "cpu", *more]))


def finish(patches, run, *more):
    """Train in this process, which knows torch already."""
    done = CliRunner().invoke(app, arguments(patches, run, *more))
    assert done.exit_code == 0, done.output
    return done.stderr


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


def train(words, told, module="", name="", call=0):
    """Train in a child; it dies when that function of a module was called so often, what it wrote half written."""
    os.dup2(os.open(told, os.O_WRONLY | os.O_CREAT), 2)
    if module:
        place, calls = importlib.import_module(module), []
        real = getattr(place, name)

        def write(value, target, *more, **rest):
            real(value, target, *more, **rest)
            calls.append(1)
            if len(calls) == call:
                path = target if isinstance(target, (str, Path)) else target.name
                if path is not target:
                    target.flush()
                os.truncate(path, Path(path).stat().st_size // 2)
                os.kill(os.getpid(), signal.SIGKILL)

        setattr(place, name, write)
    app(words)


def killed(run, words, *deadly, stage=1, lines=99):
    """Train in a child until it dies, or is killed when the stage has so many lines in the log: halves of files."""

    def seen():
        log = run / "log.jsonl"
        return log.exists() and log.read_text().count(f'"stage": {stage},') >= lines

    process = start_child(train, words, run.parent / "told", *deadly, preload=LOADED)
    while not seen() and process.is_alive():
        time.sleep(0.01)
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL, (run.parent / "told").read_text()
    return [path.name for path in run.iterdir() if "partial" in path.name]


def test_killed_again_and_again_it_goes_on_to_the_same_bytes(patches, uninterrupted, tmp_path):
    """While it writes weights, while it writes a resume state, and at a random moment of each stage."""
    run = tmp_path / "run"
    words = arguments(patches, run, "-q")
    halves = [*killed(run, words, "ksdiff_cli.models.checkpoint", "save_file", 1)]
    halves += killed(run, [*words, "--resume"], "torch", "save", 2)
    assert ["best" in halves[0], "state" in halves[1]] == [True, True] and len(halves) == 2
    killed(run, [*words, "--resume"], lines=2)
    assert not (run / "stage1.safetensors").exists()
    killed(run, [*words, "--resume"], stage=2, lines=2)
    told = finish(patches, run, "--resume")
    assert "going on at step" in told and "stage1 is done" in told
    assert_same(run, uninterrupted)


def test_ctrl_c_ends_with_one_line_that_says_how_to_go_on(patches, uninterrupted, tmp_path):
    command = [sys.executable, "-m", "ksdiff_cli", *arguments(patches, tmp_path, "-q")]
    process = subprocess.Popen(command, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True)
    while not (tmp_path / "stage1.state").exists() and process.poll() is None:
        time.sleep(0.01)
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
