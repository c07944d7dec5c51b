"""What a run keeps and tells: best and periodic checkpoints, SAM and ERGAS of whole files, listeners, TensorBoard."""

import json
import sys

import h5py
import numpy as np
import pytest
import torch
from test_training import SMALL, lines_of, options, write_patches

from ksdiff_cli import metrics
from ksdiff_cli.api import train
from ksdiff_cli.errors import KsdiffError
from ksdiff_cli.models.checkpoint import load_model, read_header
from ksdiff_cli.models.config import ModelConfig
from ksdiff_cli.patches.dataset import PatchFile
from ksdiff_cli.training.stages import train_stage
from ksdiff_cli.training.validation import measure_quality

pytestmark = pytest.mark.usefixtures("one_thread")

PLAIN = ModelConfig(**SMALL, prior=False)


@pytest.fixture(scope="module")
def patches(tmp_path_factory):
    return write_patches(tmp_path_factory.mktemp("patches"), side=16)


def test_quality_is_that_of_the_metrics_over_all_images(patches, tmp_path):
    with h5py.File(patches / "valid.h5") as file:
        arrays = {key: file[key][()] for key in file}
    arrays["gt"][0, :, 3, 4] = 0  # a pixel without an angle
    with h5py.File(tmp_path / "many.h5", "w") as file:
        for key, array in arrays.items():
            file[key] = np.concatenate([array, 1.1 * array, 0.7 * array])
    file = PatchFile(tmp_path / "many.h5")
    done = train(patches, output=tmp_path / "run", stage="1", config=PLAIN, steps=2, batch=2, device="cpu")
    model = load_model(done[0])[0].eval()
    batch = file.batch(range(len(file)))
    pairs = list(zip(batch.gt.numpy(), batch.fuse(model).numpy(), strict=True))
    expected = {"SAM": np.mean([metrics.sam(*pair) for pair in pairs])}
    expected["ERGAS"] = np.mean([metrics.ergas(*pair, 4) for pair in pairs])
    found = measure_quality(model, [file], torch.device("cpu"))
    assert found == pytest.approx(expected, rel=1e-4)
    assert measure_quality(model, [], torch.device("cpu")) == {}


def test_the_best_weights_and_those_of_every_so_many_steps_are_kept(patches, tmp_path):
    """The best by SAM; ERGAS, the default, judges in the test of a resumed run."""
    notes = []
    train(
        *(patches,), output=tmp_path, stage="1", config=PLAIN, steps=10, batch=4, validate_every=3, device="cpu",
        settings={"best": "SAM", "keep_every": 4}, note=notes.append,
    )  # fmt: skip
    lines = {line["step"]: line for line in lines_of(tmp_path)}
    assert sorted(lines) == [3, 4, 6, 8, 9, 10]
    best = min(lines.values(), key=lambda line: line["SAM"])
    facts = read_header(tmp_path / "stage1-best.safetensors")["training"]
    assert (facts["step"], facts["validation"]["SAM"]) == (best["step"], best["SAM"])
    kept = sorted((tmp_path / "checkpoints").iterdir())
    assert [path.name for path in kept] == ["stage1_000004.safetensors", "stage1_000008.safetensors"]
    assert read_header(kept[1])["training"]["validation"]["ERGAS"] == lines[8]["ERGAS"]
    told = [line for line in notes if "the best SAM so far" in line]
    assert told and f"step {best['step']}:" in told[-1]
    # the weights are what they say
    file = PatchFile(patches / "valid.h5")
    again = measure_quality(load_model(tmp_path / "stage1-best.safetensors")[0], [file], torch.device("cpu"))
    assert again["SAM"] == pytest.approx(best["SAM"], rel=1e-5)


def test_a_new_run_drops_what_the_old_one_kept_only_if_told_to(patches, tmp_path):
    values = {"output": tmp_path, "stage": "1", "config": PLAIN, "batch": 2, "device": "cpu"}
    train(patches, steps=4, settings={"keep_every": 2}, **values)
    (tmp_path / "stage1.safetensors").unlink()
    with pytest.raises(KsdiffError, match=r"stage1-best\.safetensors: exists"):
        train(patches, steps=2, **values)
    with pytest.raises(KsdiffError, match="checkpoints"):
        train(patches, steps=2, init=tmp_path / "checkpoints" / "stage1_000002.safetensors", overwrite=True, **values)
    train(patches, steps=2, overwrite=True, **values)
    assert not list((tmp_path / "checkpoints").iterdir())


def test_a_resumed_run_keeps_the_best_of_before(patches, tmp_path):
    class StopError(Exception):
        pass

    def stop(step):
        if step.step == 4:
            raise StopError

    chosen = options(patches, tmp_path, steps=6, validate_every=1, config=ModelConfig(bands=4, **SMALL, prior=False))
    with pytest.raises(StopError):
        train_stage(chosen, 1, listeners=[stop])
    before = min(line["ERGAS"] for line in lines_of(tmp_path)[:3])
    train_stage(chosen, 1)
    facts = read_header(tmp_path / "stage1-best.safetensors")["training"]
    assert facts["validation"]["ERGAS"] == min(line["ERGAS"] for line in lines_of(tmp_path)) <= before


def test_validation_files_are_those_that_are_named(patches, tmp_path, run):
    other = write_patches(tmp_path / "other", images=2, side=16, seed=7)
    words = ("--data", patches, "--stage", 1, "--no-prior", "--width", 8, "--steps", 1, "--batch", 2, "-q")
    for name, valid in (("a", ()), ("b", ("--valid", other / "valid.h5")), ("c", ("--valid", other))):
        assert run("train", *words, "-o", tmp_path / name, *valid).exit_code == 0
    beside, named, folder = (lines_of(tmp_path / name)[0]["ERGAS"] for name in "abc")
    assert beside != named == folder
    with h5py.File(tmp_path / "full.h5", "w") as file:
        file["ms"], file["pan"] = np.ones((1, 4, 4, 4)), np.ones((1, 1, 16, 16))
    result = run("train", *words, "-o", tmp_path / "d", "--valid", tmp_path / "full.h5")
    assert (result.exit_code, "full.h5: has no gt to validate against" in result.stderr) == (1, True)


def test_a_listener_hears_of_every_step(patches, tmp_path):
    heard = []
    train(
        *(patches,), output=tmp_path, config=ModelConfig(**SMALL), steps=3, batch=4, validate_every=2, device="cpu",
        on_step=heard.append, settings={"diffusion_weight": 2.0},
    )  # fmt: skip
    assert [(one.stage, one.step, one.steps) for one in heard] == [
        (f"stage{stage}", step, 3) for stage in (1, 2) for step in (1, 2, 3)
    ]
    assert all(0 < one.rate <= 1e-3 for one in heard)
    assert [bool(one.validation) for one in heard] == [False, True, True] * 2
    assert set(heard[0].losses) == {"loss"}
    second = heard[-1].losses
    assert second["loss"] == pytest.approx(2 * second["diffusion"] + second["regression"], rel=1e-4)
    assert heard[-1].validation["ERGAS"] == lines_of(tmp_path)[-1]["ERGAS"]


def test_tensorboard_has_the_figures_of_the_log(patches, tmp_path, run):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    words = ("--data", patches, "-o", tmp_path, "--stage", 1, "--no-prior", "--width", 8, "--steps", 3, "--batch", 2)
    assert run("train", *words, "--tensorboard", "-q", "--validate-every", 3).exit_code == 0
    found = EventAccumulator(str(tmp_path / "tensorboard" / "stage1"))
    found.Reload()
    assert [event.step for event in found.Scalars("training/loss")] == [1, 2, 3]
    (measured,) = found.Scalars("validation/SAM")
    assert measured.value == pytest.approx(lines_of(tmp_path)[-1]["SAM"], rel=1e-5)


def test_tensorboard_that_is_missing_is_one_line(patches, tmp_path, monkeypatch, fails):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    line = fails("train", "--data", patches, "-o", tmp_path / "run", "--tensorboard", "-q")
    assert "ksdiff[tensorboard]" in line
    assert not (tmp_path / "run").exists()


def test_settings_of_training_are_options_too(patches, tmp_path, run):
    words = ("--data", patches, "-o", tmp_path, "--stage", 1, "--no-prior", "--width", 8, "--steps", 1, "--batch", 2)
    own = ("--ema", 0.9, "--clip", 0.1, "--weight-decay", 0.01, "--lambda", 3, "--latent-noise", 0, "--best", "SAM")
    assert run("train", *words, *own, "--keep-every", 1, "-q").exit_code == 0
    facts = read_header(tmp_path / "stage1.safetensors")["training"]
    names = ("ema", "clip", "weight_decay", "diffusion_weight", "latent_noise", "best", "keep_every")
    assert [facts[name] for name in names] == [0.9, 0.1, 0.01, 3, 0, "SAM", 1]
    assert json.loads((tmp_path / "log.jsonl").read_text())["step"] == 1
