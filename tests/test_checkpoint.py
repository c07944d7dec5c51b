"""Checkpoints from strangers: every malformed one is one clear line, before memory is taken or a network is built."""

import json
import struct
import subprocess
import sys
from dataclasses import fields
from typing import get_type_hints

import network_maker
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from ksdiff_cli.models import checkpoint
from ksdiff_cli.models.checkpoint import load_model, read_header, save_model, weights_hash
from ksdiff_cli.models.config import ModelConfig
from ksdiff_cli.models.contract import ModelError
from ksdiff_cli.models.ksdiff import KSDiff
from ksdiff_cli.models.peers import PLRConfig
from ksdiff_cli.models.peers.pixel_diffusion import PixelConfig, PixelDiffusion

SMALL = {**network_maker.SMALL, "width": 8, "latent": 8, "denoiser_width": 8}


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """Return a good checkpoint's header as JSON text, and its tensors."""
    path = tmp_path_factory.mktemp("good") / "good.safetensors"
    save_model(KSDiff(ModelConfig(**SMALL)), path, sensor={"name": "WV3"}, training={"steps": 1})
    with safe_open(path, framework="pt") as file:
        return file.metadata()["ksdiff"], {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def refused(path):
    """Return the one line that refuses a checkpoint; nothing is built for it."""
    with pytest.raises(ModelError, match=path.name) as caught:
        load_model(path)
    line = str(caught.value)
    assert "\n" not in line
    assert len(line) < 400
    return line.removeprefix(f"{path}: ")


def config(**values):
    return lambda header: header["config"].update(values)


HEADERS = {
    "a list": (lambda header: [header], "cannot be read"),
    "no config": (lambda header: header.pop("config") and None, "no config"),
    "config is a list": (lambda header: header.update(config=[1, 2]), "no config"),
    "config is null": (lambda header: header.update(config=None), "no config"),
    "no training": (lambda header: header.pop("training") and None, "no training"),
    "training is a text": (lambda header: header.update(training="none"), "no training"),
    "sensor is a number": (lambda header: header.update(sensor=3), "no sensor"),
    "no version": (lambda header: header.pop("format_version") and None, "format version None"),
    "version is huge": (lambda header: header.update(format_version=10**4000), "format version 1000"),
    "version is a table": (lambda header: header.update(format_version={"a": 1}), "format version {"),
    "kind is a list": (lambda header: header.update(model=["ksdiff"]), "kind ['ksdiff']"),
    "unknown kind": (lambda header: header.update(model="flow"), "'flow'"),
    "sampler": (lambda header: header.update(sampler="heun"), "sampler 'heun'"),
    "sampler of another kind": (lambda header: header.update(sampler="ddpm"), "sampler 'ddpm'"),
    "backbone of 0.1": (config(backbone="shared"), "made by ksdiff 0.1 (backbone shared)"),
    "no stage": (lambda header: header.pop("stage") and None, "stage must be 1 or 2"),
    "stage is true": (lambda header: header.update(stage=True), "stage must be 1 or 2"),
    "stage is a list": (lambda header: header.update(stage=[2]), "stage must be 1 or 2"),
    "the other stage": (lambda header: header.update(stage=1), "do not fit"),
    "unknown value": (config(colour=1), "unknown values colour"),
    "depths of 1e7": (config(depths=[10**7, 2, 2]), "depths must be"),
    "two depths": (config(depths=[2, 2]), "depths must be 3 values"),
    "depths nested": (config(depths=[[1], 1, 1]), "depths must be"),
    "depths a text": (config(depths="222"), "depths must be"),
    "width of 1e9": (config(width=10**9), "width must be"),
    "width of 1e4000": (config(width=10**4000), "width must be"),
    "width is true": (config(width=True), "width must be"),
    "wider than its tensors": (config(width=4096), "do not fit"),
    "deeper than its tensors": (config(depths=[64, 64, 64]), "do not fit"),
    "rank 0": (config(rank=[4, 4, 2, 0]), "rank must be"),
    "steps 0": (config(steps=0), "steps must be"),
    "steps of 1e12": (config(steps=10**12), "steps must be"),
    "more steps than T": (config(sampling_steps=5), "sampling_steps must be 1 to 4"),
    "beta above 1": (config(beta_end=1.5), "beta_end must be"),
    "beta is no number": (config(beta_start=float("nan")), "beta_start must be"),
    "beta is a text": (config(beta_start="0.1"), "beta_start must be"),
    "eta below 0": (config(eta=-1), "eta must be"),
    "latent 0": (config(latent=0), "latent must be"),
    "tokens no square": (config(tokens=15), "square"),
    "bands of 1e6": (config(bands=10**6), "bands must be"),
    "prior is a number": (config(prior=1), "prior must be true or false"),
    "backbone is a list": (config(backbone=["pnn"]), "backbone must be a text"),
    "backbone of a megabyte": (config(backbone="x" * 10**6), "no backbone"),
    "structure is null": (config(structure=None), "structure must be a text"),
    "unknown backbone": (config(backbone="resnet"), "'resnet'"),
    "unknown encoder": (config(encoder="none"), "'none'"),
    "unknown structure": (config(structure="cp"), "'cp'"),
}


@pytest.mark.parametrize("case", HEADERS)
def test_a_malformed_header_is_refused_in_one_line(case, parts, tmp_path, monkeypatch):
    edit, reason = HEADERS[case]
    header = json.loads(parts[0])
    header = edit(header) or header
    path = tmp_path / "odd.safetensors"
    previous = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(0)
    try:
        save_file(parts[1], path, metadata={"ksdiff": json.dumps(header)})
    finally:
        sys.set_int_max_str_digits(previous)
    monkeypatch.setattr(KSDiff, "load_state_dict", lambda *_: pytest.fail("built before it was checked"))
    assert reason in refused(path)


@pytest.mark.parametrize("text", ["", "null", "{", "[" * 10**5, '{"a": ' * 10**5, "1" * 5000, "{}" + " " * (1 << 22)])
def test_a_header_that_is_no_json_is_refused(text, parts, tmp_path):
    path = tmp_path / "odd.safetensors"
    save_file(parts[1], path, metadata={"ksdiff": text})
    assert "cannot be read" in refused(path)


def changed(name, make):
    def change(tensors):
        tensors[name] = make(tensors[name])

    return change


HEAD = "denoiser.enter.weight"
TENSORS = {
    "none": lambda tensors: tensors.clear(),
    "one is missing": lambda tensors: tensors.pop(HEAD),
    "one too many": lambda tensors: tensors.update(more=torch.zeros(1)),
    "another shape": changed(HEAD, lambda tensor: tensor[:, :-1].contiguous()),
    "more dimensions": changed(HEAD, lambda tensor: tensor[None].contiguous()),
    "a scalar": changed(HEAD, lambda tensor: tensor.sum()),
    "empty": changed(HEAD, lambda tensor: tensor[:0].contiguous()),
    "whole numbers": changed(HEAD, lambda tensor: tensor.long()),
    "complex": changed(HEAD, lambda tensor: tensor.to(torch.complex64)),
    "eight bits": changed(HEAD, lambda tensor: tensor.to(torch.float8_e4m3fn)),
    "a count in floats": changed("plfe2.norm.num_batches_tracked", lambda tensor: tensor.float()),
}


@pytest.mark.parametrize("case", TENSORS)
def test_tensors_that_are_not_the_networks_are_refused(case, parts, tmp_path):
    tensors = dict(parts[1])
    TENSORS[case](tensors)
    path = tmp_path / "odd.safetensors"
    save_file(tensors, path, metadata={"ksdiff": parts[0]})
    assert "do not fit" in refused(path)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused(value, parts, tmp_path):
    path = tmp_path / "odd.safetensors"
    bad = parts[1][HEAD].clone()
    bad[0, 0] = value
    save_file(parts[1] | {HEAD: bad}, path, metadata={"ksdiff": parts[0]})
    assert "no numbers" in refused(path)


def raw(header, data=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0" * 7,
        struct.pack("<Q", 2**63) + b"{}",
        struct.pack("<Q", 100) + b"{}",
        raw(b"{"),
        raw(b"\xff\xfe{}"),
        raw([]),
        raw({"a": {"dtype": "F32", "shape": [10**9, 10**9], "data_offsets": [0, 4]}}, b"\0" * 4),
        raw({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 10**12]}}, b"\0" * 4),
        raw({"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}, b"\0" * 4),
        raw({"a": {"dtype": "X9", "shape": [1], "data_offsets": [0, 4]}}, b"\0" * 4),
        raw({"__metadata__": {"ksdiff": {"a": 1}}}),
        raw({"__metadata__": [1]}),
    ],
)
def test_files_that_are_no_safetensors_are_refused(content, tmp_path):
    path = tmp_path / "odd.safetensors"
    path.write_bytes(content)
    assert "not a safetensors checkpoint" in refused(path)


def test_a_file_cut_off_and_one_of_another_program_are_refused(parts, tmp_path):
    path = tmp_path / "odd.safetensors"
    save_file(parts[1], path, metadata={"ksdiff": parts[0]})
    path.write_bytes(path.read_bytes()[:-1])
    assert "cut off" in refused(path)
    save_file(parts[1], path)
    assert "not one written by ksdiff" in refused(path)
    assert "no such checkpoint" in refused(tmp_path)


def test_every_number_of_every_configuration_is_bounded():
    for kind in (ModelConfig, PixelConfig, PLRConfig):
        hints = get_type_hints(kind)
        numbers = {one.name for one in fields(kind) if any(word in str(hints[one.name]) for word in ("int", "float"))}
        assert numbers <= set(kind.bounds)
        for name, (least, most) in kind.bounds.items():
            counts = "int" in str(hints[name])  # what takes memory; a number with a fraction only scales values
            assert least < most <= (1e6 if counts else 1e9), name


@pytest.mark.parametrize("kind", [KSDiff, PixelDiffusion])
def test_networks_are_laid_out_without_memory_or_random_numbers(kind):
    torch.manual_seed(0)
    before = torch.get_rng_state()
    large = ModelConfig(width=4096, depths=(64, 64, 64), steps=10_000) if kind is KSDiff else PixelConfig(width=1024)
    planned = checkpoint._plan("x", kind, {"stage": 2, "config": large.to_dict()})
    assert sum(tensor.numel() for tensor in planned.values()) > 1e8
    assert all(tensor.is_meta for tensor in planned.values())
    assert torch.equal(before, torch.get_rng_state())


def test_half_precision_weights_are_read(parts, tmp_path):
    path = tmp_path / "half.safetensors"
    halves = {name: value.half() if value.is_floating_point() else value for name, value in parts[1].items()}
    save_file(halves, path, metadata={"ksdiff": parts[0]})
    model, header = load_model(path)
    assert next(model.parameters()).dtype == torch.float32
    assert header == read_header(path)
    assert len(weights_hash(path)) == 12


def test_the_program_says_it_in_one_line(fails, parts, tmp_path):
    path = tmp_path / "odd.safetensors"
    header = json.loads(parts[0])
    header["config"]["depths"] = [10**7, 2, 2]
    save_file(parts[1], path, metadata={"ksdiff": json.dumps(header)})
    for name in ("pan", "ms"):
        (tmp_path / f"{name}.tif").touch()
    line = fails("sharpen", tmp_path / "pan.tif", tmp_path / "ms.tif", "-o", tmp_path / "o.tif", "--checkpoint", path)
    assert "odd.safetensors: config: depths must be 3 values, each a whole number from 1 to 64" in line


def test_loading_does_not_load_torchs_compiler():
    """It takes a second and more, which every command would wait for."""
    look = "import sys; from ksdiff_cli.models.checkpoint import load_model; from ksdiff_cli.weights import SHIPPED; "
    look += "load_model(SHIPPED); print('torch._dynamo' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False"]
