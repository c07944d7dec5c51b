"""The parts of training: gradients whole and in pieces, precision, instruments, pictures, the log."""

import errno
import json
import re
import signal
from dataclasses import replace

import h5py
import numpy as np
import pytest
import rasterio
import torch
from conftest import largest_file
from test_training import SMALL, options, write_patches

from ksdiff_cli.errors import KsdiffError
from ksdiff_cli.files.writing import write_png
from ksdiff_cli.models.checkpoint import load_model, save_model
from ksdiff_cli.models.config import ModelConfig
from ksdiff_cli.models.contract import ModelError
from ksdiff_cli.models.ksdiff import KSDiff
from ksdiff_cli.models.peers.pixel_diffusion import PixelConfig, PixelDiffusion
from ksdiff_cli.patches.dataset import PatchFile
from ksdiff_cli.training.log import Log, draw_curves, draw_strip
from ksdiff_cli.training.losses import (
    Arithmetic,
    Draws,
    Objective,
    choose_arithmetic,
    train_once,
    train_pixels_once,
)
from ksdiff_cli.training.parallel import ALONE, Team, join_team
from ksdiff_cli.training.run import Run
from ksdiff_cli.training.stages import Stopper, open_data, train_stage
from ksdiff_cli.training.validation import means_of_others, validate

EXACT = choose_arithmetic("auto", torch.device("cpu"))


@pytest.fixture(scope="module")
def patches(tmp_path_factory):
    return write_patches(tmp_path_factory.mktemp("patches"), side=16)


def step(patches, stage, arithmetic=EXACT, recipe="chain", bands=4, config=None, pieces=1, **how):
    """Take the gradients of one step of a fresh network; the same numbers at every call."""
    torch.manual_seed(0)
    config = config or ModelConfig(bands=bands, **SMALL)
    pixels = isinstance(config, PixelConfig)
    model = PixelDiffusion(config) if pixels else KSDiff(config, stage).train()
    target = KSDiff(config, 1).eval().requires_grad_(False) if stage == 2 else None
    batch = PatchFile(patches / "train.h5").batch(range(5))
    inputs = model.prepare(batch.pan, batch.ms_up, batch.statistics, batch.ratio, batch.gt)
    total, arithmetic = inputs.M.shape[0], replace(arithmetic, pieces=pieces)
    draws = Draws(torch.Generator().manual_seed(1), total, slice(0, total))
    if pixels:
        losses = train_pixels_once(model, inputs, draws, arithmetic, **how)
    else:
        losses = train_once(Objective(target, recipe, 0.1, 0.7), model, inputs, draws, arithmetic, **how)
    gradients = {name: value.grad for name, value in model.named_parameters() if value.grad is not None}
    return losses, gradients


@pytest.mark.parametrize(
    ("stage", "how"),
    [
        (1, {}),
        (2, {}),
        (2, {"recipe": "random-t"}),
        (2, {"latent_only": True}),
        (1, {"bands": None}),
        (1, {"config": ModelConfig(bands=4, **SMALL, prior=False)}),
    ],
    ids=str,
)
def test_pieces_of_a_batch_have_the_gradients_of_the_whole(patches, stage, how):
    losses, whole = step(patches, stage, **how)
    for pieces in (2, 99):
        again, parts = step(patches, stage, **how, pieces=pieces)
        assert parts.keys() == whole.keys() and again.keys() == losses.keys()
        for name, value in whole.items():
            torch.testing.assert_close(parts[name], value, rtol=1e-4, atol=1e-6, msg=name)
        for name, value in losses.items():
            torch.testing.assert_close(again[name], value)
    if stage == 2:
        assert any(name.startswith("plfe2") for name in whole)
        assert any(name.startswith("network") for name in whole) != bool(how.get("latent_only"))


def test_a_run_in_pieces_ends_with_the_weights_of_a_whole_one(patches, tmp_path):
    ends = []
    for pieces in (1, 3):
        done = train_stage(options(patches, tmp_path / str(pieces), accumulate=pieces), 1)
        ends.append(load_model(done)[0].state_dict())
    for name, value in ends[0].items():
        if "project.2.bias" not in name and "running_mean" not in name:  # what the standardisation takes away
            torch.testing.assert_close(ends[1][name], value, rtol=1e-3, atol=2e-5, msg=name)


@pytest.mark.parametrize(("dtype", "pieces"), [(torch.bfloat16, 1), (torch.float16, 2)], ids=str)
def test_half_precision_has_nearly_the_same_gradients(patches, dtype, pieces):
    """The arithmetic of a GPU, tried on the CPU; float16's gradients come scaled."""
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, enabled=dtype is torch.float16)
    for stage in (1, 2):
        losses, exact = step(patches, stage)
        again, half = step(patches, stage, Arithmetic("cpu", dtype, scaler), pieces=pieces)
        scale = 1024 if dtype is torch.float16 else 1
        assert again["loss"].item() == pytest.approx(losses["loss"].item(), rel=0.01)
        one, two = (torch.cat([g[name].flatten() for name in exact]) for g in (exact, half))
        assert (two / scale - one).norm() < 0.1 * one.norm()
        assert all(gradient.dtype is torch.float32 for gradient in half.values())


def test_a_cpu_computes_in_float32():
    for precision in ("auto", "fp32", "bf16", "fp16"):
        found = choose_arithmetic(precision, torch.device("cpu"))
        assert found.dtype is None and not found.scaler.is_enabled()


def test_pieces_of_pixel_diffusion_are_weighted_by_their_rows(patches):
    config = PixelConfig(bands=4, width=8, multipliers=(1, 2), steps=20, sampling_steps=20)
    (one, _), (two, gradients) = (step(patches, 1, config=config, pieces=pieces) for pieces in (1, 3))
    assert two["loss"].item() == pytest.approx(one["loss"].item(), rel=0.5)  # other noise, the same scale
    assert all(torch.isfinite(gradient).all() for gradient in gradients.values())


def test_processes_draw_the_same_numbers_and_take_their_rows():
    teams = [Team(rank, 3) for rank in range(3)]
    like = torch.empty(0, 4, 2)
    whole = Draws(torch.Generator().manual_seed(5), 8, ALONE.rows(8))
    parts = [Draws(torch.Generator().manual_seed(5), 8, team.rows(8)) for team in teams]
    assert torch.equal(torch.cat([part.normal(like) for part in parts]), whole.normal(like))
    last = whole.steps(4, torch.device("cpu"))
    assert torch.equal(torch.cat([part.steps(4, torch.device("cpu")) for part in parts]), last)
    assert set(last.tolist()) <= {1, 2, 3, 4} and sum(part.weight for part in parts) == pytest.approx(1)


def test_alone_there_is_no_team(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with join_team("cpu") as team:
        assert team.leads and team.size == 1 and team.agree(1.5, 2) == (1.5, 2)


def test_the_instruments_tell_a_living_prior_from_a_dead_one(patches):
    torch.manual_seed(0)
    files, found = [PatchFile(patches / "valid.h5")], {}
    for name, strength in (("dead", 0.0), ("alive", 300.0)):
        model = KSDiff(ModelConfig(bands=4, **SMALL), 1)
        for part, parameter in model.named_parameters():
            if "core.2.weight" in part:
                parameter.data *= strength
        model.train()
        batch = files[0].batch(range(4))
        for _ in range(60):  # lets the standardisation of z settle
            model.truth_latent(model.prepare(batch.pan, batch.ms_up, batch.statistics, batch.ratio, batch.gt))
        found[name] = validate(model, files, torch.device("cpu"))
    assert found["dead"]["shuffle_cost"] == 0 and abs(found["alive"]["shuffle_cost"]) > 0.001
    assert found["dead"]["mean_cost"] == 0 and found["alive"]["mean_cost"] not in (0, found["alive"]["shuffle_cost"])
    assert found["dead"]["z_spread"] > 0.01  # z varies, nobody listens
    assert validate(model, [], torch.device("cpu")) == {}


@pytest.mark.parametrize("rows", [1, 3])  # of all bands together, or one a band
def test_the_mean_of_others_leaves_an_entrys_own_patch_out(rows):
    z = [torch.randn(patches * rows, 4, 8) for patches in (2, 3)]
    found = torch.cat(list(means_of_others(list(zip(z, (2, 3), strict=True))))).view(5, rows, 4, 8)
    every = torch.cat(z).view(5, rows, 4, 8)
    for patch in range(5):
        others = [at for at in range(5) if at != patch]
        torch.testing.assert_close(found[patch], every[others].mean(0))


def test_a_png_holds_what_was_written(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (37, 21, 3), np.uint8)
    write_png(image, tmp_path / "a" / "b.png")
    with rasterio.open(tmp_path / "a" / "b.png") as file:
        assert np.array_equal(file.read().transpose(1, 2, 0), image)
    assert len(list((tmp_path / "a").iterdir())) == 1


def test_a_strip_shows_pictures_under_one_stretch():
    random = np.random.default_rng(0)
    pan, truth = random.uniform(0, 50, (1, 40, 300)), random.uniform(100, 200, (4, 40, 300))
    strip = draw_strip([[pan, truth, truth + 10, truth]] * 2, (2, 1, 0))
    assert strip.shape == (2 * 40 + 4, 4 * 256 + 3 * 4, 3)
    first, second, third, last = (strip[:40, left : left + 256].astype(int) for left in range(0, 1040, 260))
    assert np.array_equal(second, last) and np.array_equal(first[..., 0], first[..., 2])
    assert 20 < np.median(third - last) < 30  # 10 of about 96 DN between the percentiles
    blue = last[..., 2]
    assert np.corrcoef(blue.ravel(), truth[0, :, 22:278].ravel())[0, 1] > 0.99
    assert draw_strip([[pan * 0, truth * 0, truth * 0, truth * 0]], (0, 0, 0))[:, :256].max() == 0  # flat: black


def test_curves_have_a_panel_a_figure():
    stage2 = {"z_spread": 0.1, "diffusion": 0.1, "regression": 0.2}  # whose losses have panels of their own
    lines = [
        {"stage": stage, "step": step, "loss": 1 / step, "valid": 2 / step, **(stage2 if stage == 2 else {})}
        for stage in (1, 2)
        for step in (10, 20, 30)
    ]
    picture = draw_curves(lines)
    panel = draw_curves([{"stage": "pixel-diffusion", "step": 5, "loss": 0.0}]).shape[0]
    assert picture.shape[0] == 5 * panel and draw_curves([]).shape[0] == panel
    shades = np.array([(31, 90, 160), (190, 80, 20)])
    blue, orange = ((abs(picture.astype(int) - shade) < 30).all(2).nonzero()[1] for shade in shades)
    assert blue.max() < orange.min()  # stage 2 comes after stage 1


def test_the_log_forgets_what_is_done_again(tmp_path):
    first, second = Log(tmp_path, "stage1"), Log(tmp_path, "stage2")
    for step in (2, 4, 6):
        first.add(step, {"loss": 1.0}, last=False)
        second.add(step, {"loss": 1.0}, last=False)
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"stage": 2, "st')  # a kill
    second.forget_after(2)
    second.add(4, {"loss": 3.0})
    found = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [(line["stage"], line["step"]) for line in found] == [(1, 2), (2, 2), (1, 4), (1, 6), (2, 4)]
    assert found[-1]["loss"] == 3.0 and (tmp_path / "curves.png").exists()


@pytest.fixture
def saved(patches, tmp_path):
    """A run, its resume state and the state's bytes; nothing else lies beside it."""
    run, path = Run(options(patches, tmp_path), 1, open_data((patches,))[0]), tmp_path / "stage1.state"
    run.save(path)
    before = path.read_bytes()
    yield run, path, before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("share", [0, 0.5, 0.999])
def test_a_resume_state_that_finds_no_room_leaves_the_one_before(saved, share):
    run, path, before = saved
    run.step = 5
    full = r"^\S*stage1\.state: cannot be written \(File too large\); make room there$"
    with largest_file(int(share * len(before))), pytest.raises(KsdiffError, match=full):
        run.save(path)
    assert path.read_bytes() == before
    run.save(path)
    run.restore(path)
    assert run.step == 5


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("torch's own")])
def test_a_resume_state_that_breaks_off_leaves_the_one_before(saved, monkeypatch, error):
    def half(_, file):
        file.write(b"half")
        raise error

    run, path, before = saved
    monkeypatch.setattr(torch, "save", half)
    with pytest.raises(type(error)) as caught:
        run.save(path)
    assert caught.value is error and path.read_bytes() == before


def test_weights_that_do_not_fit_the_disk_leave_the_ones_before(saved):
    run, path, _ = saved
    save_model(run.averaged(), path, sensor={}, training={})
    before = path.read_bytes()
    with largest_file(len(before) // 2), pytest.raises(ModelError, match=r"state: the weights cannot be written"):
        save_model(run.averaged(), path, sensor={}, training={})
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("error", "raised"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), KsdiffError),
        (OSError("Can't synchronously read data"), OSError),  # HDF5's own
    ],
)
def test_a_full_disk_while_training_is_one_line(patches, tmp_path, monkeypatch, error, raised):
    def fail(self, step, facts, last):
        raise error

    monkeypatch.setattr(Log, "add", fail)
    with pytest.raises(raised) as caught:
        train_stage(options(patches, tmp_path / "run", steps=1), 1)
    if raised is KsdiffError:
        assert re.fullmatch(
            r"\S*run: cannot be written \(No space left on device\); make room there; "
            "the same command with --resume goes on from here",
            str(caught.value),
        )


def test_every_process_needs_an_image(patches, tmp_path):
    train, _ = open_data((patches,))
    with pytest.raises(KsdiffError, match="--batch 1: 2 processes need an image each"):
        Run(options(patches, tmp_path, batch=1), 1, train, Team(1, 2))


def test_a_single_validation_image_says_nothing_of_the_prior(tmp_path):
    folder = write_patches(tmp_path / "patches")
    with h5py.File(folder / "valid.h5", "r+") as file:
        for key in list(file):
            first = file[key][:1]
            del file[key]
            file[key] = first
    notes = []
    train_stage(options(folder, tmp_path / "run", steps=2), 1, note=notes.append)
    assert notes and not any("idle" in line or "another image's z" in line for line in notes)
    facts = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert all("valid" in one and "z_spread" not in one for one in facts)


def test_lost_weights_are_not_stored(patches, tmp_path, monkeypatch):
    lose = Run.advance

    def advance(self, batch):
        losses = lose(self, batch)
        return {name: value * float("nan") for name, value in losses.items()} if self.step == 3 else losses

    monkeypatch.setattr(Run, "advance", advance)
    monkeypatch.setattr("ksdiff_cli.training.stages._SAVE_SECONDS", -1)  # a state after every step
    monkeypatch.setattr("ksdiff_cli.training.stages._LOOK", 1000)
    chosen = options(patches, tmp_path, steps=5, validate_every=100)
    with pytest.raises(KsdiffError, match="not finite"):
        train_stage(chosen, 1)
    assert torch.load(chosen.state(1), weights_only=True)["step"] == 2


def test_a_second_request_ends_at_once():
    before = signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with Stopper() as stopper:
            assert not stopper.asked
            signal.raise_signal(signal.SIGINT)
            assert stopper.asked
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)


def test_processes_that_cannot_meet_are_told_what_to_set(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    for name in ("RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(KsdiffError, match=r"cannot reach the others \(.*RANK.*GLOO_SOCKET_IFNAME"), join_team("cpu"):
        pass
