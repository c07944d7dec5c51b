"""The engine's way to a GPU, as far as a CPU can test it: order of copies, memory that does not suffice, precision."""

from collections.abc import Callable, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import rasterio
from conftest import PairFiles, read

from ksdiff_cli.errors import KsdiffError
from ksdiff_cli.fusers import anchors, divided
from ksdiff_cli.fusers import network as fusers_network
from ksdiff_cli.fusers.base import Fuser
from ksdiff_cli.fusers.classical import Network
from ksdiff_cli.fusers.device import DeviceTransfer, free_memory, has_bf16
from ksdiff_cli.fusers.divided import Divider
from ksdiff_cli.numerics.boxes import Box, Tiling
from ksdiff_cli.options.sharpening import SharpenOptions
from ksdiff_cli.products import make_pair as scene_of
from ksdiff_cli.raster.pair import open_pair
from ksdiff_cli.sharpening.engine import Sharpened, job_folder, sharpen_scene
from ksdiff_cli.sharpening.plan import DeviceNeed, Need, device_needed, make_plan
from ksdiff_cli.sharpening.worker import pack, unpack

torch = pytest.importorskip("torch")

Array = Any
SMALL = {"width": 16, "depths": (1, 1, 1), "encoder_width": 8, "latent": 16, "denoiser_width": 16, "denoiser_blocks": 1}


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    from ksdiff_cli.models.checkpoint import save_model
    from ksdiff_cli.models.config import ModelConfig
    from ksdiff_cli.models.ksdiff import KSDiff

    torch.manual_seed(0)
    path = tmp_path / "stage2.safetensors"
    save_model(KSDiff(ModelConfig(**SMALL)), path, sensor={}, training={})
    return path


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Anchors and parts for scenes of a few hundred pixels."""
    monkeypatch.setattr(anchors, "SIDE", 32)
    monkeypatch.setattr(divided, "SMALLEST", 32)


def sharpen(files: PairFiles, fuser: Any, name: str = "out.tif", **options: Any) -> Sharpened:
    scene = scene_of(str(files.pan), [str(files.ms)])
    return sharpen_scene(scene, files.folder / name, fuser, SharpenOptions(fidelity=False, **options))


def limit(network: Network, side: int, error: Exception | None = None) -> list[tuple[int, int]]:
    """Let a network's memory suffice for windows of a side only; return the list of those that it fuses."""
    work, sizes = network._model.fuse, []

    def fuse(pan: Any, *arguments: Any, **more: Any) -> Any:
        if max(pan.shape[-2:]) > side:
            raise error or torch.cuda.OutOfMemoryError("CUDA out of memory.")
        sizes.append(tuple(pan.shape[-2:]))
        return work(pan, *arguments, **more)

    network._model.fuse = fuse
    return sizes


def test_a_window_that_is_too_large_is_fused_in_parts(make_pair: Any, weights: Path, small: None) -> None:
    files, parts = make_pair(size=(180, 280), dtype="float32"), 48
    whole = sharpen(files, Network(weights, "cpu"), "whole.tif", tile=192)
    network = Network(weights, "cpu")
    margin = network.reach(4)
    sizes = limit(network, parts + 2 * margin)
    made = sharpen(files, network, tile=192)
    np.testing.assert_allclose(read(made.output), read(whole.output), rtol=0, atol=0.02)
    assert max(map(max, sizes)) <= parts + 2 * margin
    assert made.notes == (f"the GPU's memory is short: windows were fused in parts of {parts} pixels",)
    # the next scene is tried whole again
    network.check(4, 4)
    assert network.notes() == []


def test_what_was_too_large_once_is_not_tried_again() -> None:
    tried = []

    def fuse(seen: Box, core: Box) -> Any:
        tried.append(seen.width)
        if seen.width > 600:
            raise RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED")
        return image[..., *seen.within(whole)][..., *core.within(seen)] * 2

    divider, image, whole = Divider(32), torch.rand(1, 1, 1024, 1024), Box(0, 0, 1024, 1024)
    for _ in range(2):
        assert torch.equal(divider.run(fuse, whole, whole), image * 2)
    assert divider.side == 512
    assert tried == [1024] + 8 * [544]


def test_parts_of_any_core_are_all_of_it() -> None:
    images, divider = (torch.rand(1, 1, 700, 1200), torch.rand(1, 3, 700, 1200)), Divider(16)
    divider.side = 320

    whole = Box(0, 0, 700, 1200)

    def fuse(seen: Box, core: Box) -> Any:
        assert max(seen.height, seen.width) <= 320 + 32
        pan, ms = (image[..., *seen.within(whole)] for image in images)
        return (ms + pan)[..., *core.within(seen)]

    for core in (Box(16, 32, 700, 1184), Box(0, 0, 100, 1200)):
        made = divider.run(fuse, whole, core)
        assert torch.equal(made, (images[0] + images[1])[..., *core.within(whole)])


def test_parts_are_read_from_multiples_of_what_the_network_asks_for() -> None:
    rows, whole, core = torch.arange(700.0)[:, None].expand(700, 1200), Box(0, 0, 700, 1200), Box(16, 32, 700, 1184)
    divider = Divider(48, 32)
    divider.side = 272

    def fuse(seen: Box, part: Box) -> Any:
        assert seen.top % 32 == seen.left % 32 == 0
        return rows[None, None, *part.within(whole)]

    assert torch.equal(divider.run(fuse, whole, core)[0, 0], rows[core.within(whole)])


def test_too_little_memory_for_the_smallest_part_is_one_line(make_pair: Any, weights: Path, small: None) -> None:
    network = Network(weights, "cpu")
    limit(network, 8)
    with pytest.raises(KsdiffError, match=r"GPU's free memory does not suffice for windows of 32 .*--device cpu"):
        sharpen(make_pair(size=(256, 256)), network, tile=128)


def test_other_errors_of_a_network_are_not_memory(make_pair: Any, weights: Path, small: None) -> None:
    network = Network(weights, "cpu")
    limit(network, 8, RuntimeError("device-side assert"))
    with pytest.raises(RuntimeError, match="device-side assert"):
        sharpen(make_pair(size=(256, 256)), network, tile=128)


def test_a_window_with_kernels_of_its_own_is_not_divided(make_pair: Any, weights: Path) -> None:
    files, network = make_pair(size=(256, 256)), Network(weights, "cpu")
    limit(network, 8)
    with open_pair(scene_of(str(files.pan), [str(files.ms)])) as pair, pytest.raises(torch.cuda.OutOfMemoryError):
        network.fuse(pair.read(0, 0, 256, 256), pair.statistics(), 4)


@pytest.mark.parametrize("dtype, error, lossy", [("uint16", 0.9, True), ("uint16", 2.2, False), ("float32", 0, False)])
def test_bfloat16_is_used_where_it_changes_hardly_a_pixel(
    dtype: str, error: float, lossy: bool, make_pair: Any, weights: Path, small: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fusers_network, "has_bf16", lambda device: True)
    network = Network(weights, "cpu")
    model = network._model
    work, calls = model.fuse, []

    def fuse(*arguments: Any, **more: Any) -> Any:
        fused = work(*arguments, **more)
        calls.append(model.lossy)
        if model.lossy:
            fused[:, 1] += error  # one band suffices
            fused[:, 2, 3, 4] += 50  # a pixel of 1024 does not
        return fused

    model.fuse = fuse  # type: ignore[method-assign]
    made = sharpen(make_pair(size=(160, 192), dtype=dtype), network)
    assert calls[-1] is lossy
    with rasterio.open(made.output) as out:
        assert out.tags()["KSDIFF_PRECISION"] == ("bf16" if lossy else "fp32")
    network.check(4, 4)
    assert not model.lossy


def test_only_a_gpu_computes_in_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = torch.device("cuda")
    for capability, can in (((7, 5), False), ((8, 0), True)):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device, found=capability: found)
        assert has_bf16(gpu) is can
        assert not has_bf16(torch.device("cpu"))
    assert free_memory(torch.device("cpu")) is None


def test_float32_stays_where_rounding_shows(
    make_pair: Any, weights: Path, small: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fusers_network, "has_bf16", lambda device: True)
    network = Network(weights, "cpu")
    head = network._model.network.head.base.weight
    with torch.no_grad():  # what the blocks compute reaches the result many times as strong
        head[:] = torch.randn(head.shape, generator=torch.Generator().manual_seed(0)) * 20
    made = sharpen(make_pair(size=(128, 160)), network, tile=64)
    with rasterio.open(made.output) as out:
        assert out.tags()["KSDIFF_PRECISION"] == "fp32"
    # and kernels were made without rounding
    made_before = network._kernels
    monkeypatch.setattr(fusers_network, "has_bf16", lambda device: False)
    with open_pair(scene_of(str(made.output.parent / "pan.tif"), [str(made.output.parent / "ms.tif")])) as pair:
        network.prepare(pair, pair.statistics())
    assert all(torch.equal(a, b) for a, b in zip(made_before, network._kernels, strict=True))


def test_nothing_is_copied_on_the_way_to_a_cpu() -> None:
    transfer, array = DeviceTransfer(torch.device("cpu")), np.ones((2, 3, 4), np.float32)
    (tensor,) = transfer.receive(transfer.send(array))
    assert tensor.data_ptr() == array.ctypes.data
    assert transfer.fetch(tensor)().ctypes.data == array.ctypes.data
    moved = unpack(pack(transfer), lambda: "cpu")
    assert moved.device == transfer.device


class FakeGpu:
    """Writes down what would happen on a GPU, and on which stream; tensors stay where they are."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.log: list[str] = []
        self.streams, self.inside = [], ["main"]
        monkeypatch.setattr(torch.cuda, "Stream", self.stream)
        monkeypatch.setattr(torch.cuda, "Event", lambda blocking=False: self.event())
        monkeypatch.setattr(torch.cuda, "stream", self.within)
        monkeypatch.setattr(torch.cuda, "current_stream", lambda device: self.named("main"))
        monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: self.note("pin", tensor))
        monkeypatch.setattr(torch.Tensor, "to", lambda tensor, device, non_blocking: self.note("up", tensor))
        monkeypatch.setattr(torch.Tensor, "record_stream", lambda tensor, stream: self.note(f"keep for {stream.name}"))
        empty, copy = torch.empty, torch.Tensor.copy_
        monkeypatch.setattr(torch, "empty", lambda shape, dtype, pin_memory: self.note("pinned", empty(shape)))
        monkeypatch.setattr(
            torch.Tensor, "copy_", lambda tensor, other, non_blocking: self.note("down", copy(tensor, other))
        )

    def note(self, what: str, value: Any = None) -> Any:
        self.log.append(f"{self.inside[-1]}: {what}")
        return value

    def stream(self, device: Any) -> Any:
        self.streams.append(("in", "out")[len(self.streams)])
        return self.named(self.streams[-1])

    def named(self, name: str) -> Any:
        return SimpleNamespace(
            name=name,
            wait_event=lambda event: self.log.append(f"{name}: wait for {event.after}"),
            wait_stream=lambda other: self.log.append(f"{name}: wait for {other.name}"),
        )

    def event(self) -> Any:
        event = SimpleNamespace(after="?")
        event.record = lambda stream: setattr(event, "after", stream.name)
        event.synchronize = lambda: self.log.append(f"caller: sleep until {event.after}")
        return event

    @contextmanager
    def within(self, stream: Any) -> Any:
        self.inside.append(stream.name)
        yield
        self.inside.pop()


def test_copies_go_by_streams_of_their_own_and_are_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = FakeGpu(monkeypatch)
    transfer, array = DeviceTransfer(torch.device("cuda", 0)), np.arange(6, dtype=np.float32).reshape(1, 2, 3)
    sent = transfer.send(array)
    (tensor,) = transfer.receive(sent)
    wait = transfer.fetch(tensor)
    assert gpu.log == [
        "in: pin", "in: up",
        "main: wait for in", "main: keep for main",
        "out: wait for main", "out: pinned", "out: down", "out: keep for out",
    ]  # fmt: skip
    np.testing.assert_array_equal(wait(), array)
    assert gpu.log[-1] == "caller: sleep until out"


NEED = Need(bands=4, stored=2, margin=80, fusing=72, base=500_000_000)


def device_plan(free: int, tile: int | None = None, earlier: int | None = None, memory: float | None = None) -> int:
    need = Need(4, 2, 80, 72, 500_000_000, DeviceNeed(free, 550))
    return make_plan((9000, 9000), need, Box(0, 0, 9000, 9000), tile, memory, earlier).tiling.tile


def test_windows_fit_a_gpus_memory_too() -> None:
    sides = [device_plan(free) for free in (10**7, 3 * 10**8, 6 * 10**8, 2 * 10**9, 80 * 10**9)]
    assert sides == [256, 256, 512, 1536, 2048]
    assert device_needed(Tiling(9000, 9000, 1280), NEED, DeviceNeed(0, 550)) < 2 * 10**9
    # windows asked for are never refused: they are fused in parts
    assert device_plan(10**7, tile=2048, memory=4) == 2048
    # both memories count
    assert device_plan(80 * 10**9, memory=0.7) == 512


def test_an_interrupted_runs_windows_are_gone_on_with_on_a_gpu() -> None:
    assert device_plan(80 * 10**9, earlier=512) == 512
    assert device_plan(10**7, earlier=1024) == 1024
    assert device_plan(10**7, earlier=1024, memory=0.7) == 256
    assert device_plan(80 * 10**9, earlier=333) == 2048
    assert make_plan((9000, 9000), NEED, Box(0, 0, 9000, 9000), earlier=256).tiling.tile == 2048


class OnGpu(Fuser):
    """Interpolation that says it runs on a GPU with so much memory free, and may stop after some windows."""

    def __init__(self, free: int | None, stop: int | None = None) -> None:
        self.free, self.stop, self.prepared, self.calls = free, stop, 0, 0

    def prepare(self, *arguments: Any) -> None:
        self.prepared += 1

    def fuse(self, *arguments: Any) -> Array:
        raise AssertionError("the engine sends and starts")

    def start(self, tile: Any, statistics: Any, ratio: int, core: Box) -> Callable[[], Array]:
        if self.calls == self.stop:
            raise RuntimeError("stop")
        self.calls += 1
        return lambda: tile.ms_up[:, *core.within(Box(0, 0, *tile.valid.shape))]

    def bytes_per_pixel(self, bands: int) -> int:
        return 0

    def device_memory(self, bands: int) -> tuple[int, int] | None:
        return None if self.free is None else (self.free, 1000)

    def provenance(self) -> Mapping[str, str]:
        return {"METHOD": "exp"}

    def findings(self) -> Mapping[str, str]:
        return {"PRECISION": f"found {self.prepared} times"}

    def notes(self) -> list[str]:
        return ["short"]


def test_a_run_goes_on_whatever_memory_a_gpu_has_left(make_pair: Any) -> None:
    files = make_pair(size=(300, 600))
    with pytest.raises(RuntimeError, match="stop"):
        sharpen(files, OnGpu(0, stop=4))
    made = sharpen(files, OnGpu(10**12))
    assert (made.tile, made.windows, made.resumed, made.notes) == (256, 6, 4, ("short",))
    assert read(made.output).std() > 0
    # and a CPU does not go on with a GPU's windows
    with pytest.raises(RuntimeError, match="stop"):
        sharpen(files, OnGpu(0, stop=4), tile=256, overwrite=True)
    on_cpu = sharpen(files, OnGpu(None), tile=256, overwrite=True)
    assert on_cpu.resumed == 0 and "other options" in on_cpu.notes[0]


@pytest.mark.parametrize("free", [0, None])
def test_what_was_found_out_is_told_when_no_window_is_left_to_make(
    make_pair: Any, monkeypatch: pytest.MonkeyPatch, free: int | None
) -> None:
    files = make_pair(size=(300, 600))
    with monkeypatch.context() as patch:
        patch.setattr("ksdiff_cli.sharpening.engine.Assembly.finish", lambda *arguments: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            sharpen(files, OnGpu(free), tile=256)
    assert len(list(job_folder(files.folder / "out.tif").glob("*.tif"))) == 6
    made = sharpen(files, OnGpu(free), tile=256)
    with rasterio.open(made.output) as out:
        assert out.tags()["KSDIFF_PRECISION"] == "found 1 times"


def test_apples_gpu_is_taken_where_torch_has_it(monkeypatch: pytest.MonkeyPatch, fails: Any, tmp_path: Path) -> None:
    """Only whether it is there is looked at, and that is mocked: no such GPU was at hand to run on."""
    from ksdiff_cli.fusers.device import pick_device

    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert pick_device("mps").type == "mps"
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert "no Apple GPU" in fails("sharpen", "a.tif", "b.tif", "-o", tmp_path / "c.tif", "--device", "mps")
