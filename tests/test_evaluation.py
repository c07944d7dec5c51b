"""evaluate: figures equal the metrics', methods that do not fit are refused before a pixel is read."""

import json
import math
from pathlib import Path

import h5py
import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from ksdiff_cli.dataset import PatchFile
from ksdiff_cli.errors import KsdiffError
from ksdiff_cli.evaluation import Evaluation, MethodResult, evaluate_files, make_fusers, open_files, ranks
from ksdiff_cli.fusers import Upsampling
from ksdiff_cli.metrics import ergas, psnr, sam
from ksdiff_cli.models.checkpoint import save_model
from ksdiff_cli.models.config import ModelConfig
from ksdiff_cli.models.contract import ModelError
from ksdiff_cli.models.ksdiff import KSDiff
from ksdiff_cli.sensors import find_sensor


def write(path: Path, count=2, bands=4, side=64, ratio=4, gt=True, scale=1.0, **attributes) -> Path:
    random = np.random.default_rng(0)
    truth = random.uniform(100, 1500, (count, bands, side, side)) * scale
    content = {
        "pan": truth.mean(1, keepdims=True),
        "ms": truth[..., ::ratio, ::ratio],
        "lms": truth + random.normal(0, 20 * scale, truth.shape),
    }
    with h5py.File(path, "w") as file:
        for key, value in ({"gt": truth} | content if gt else content).items():
            file[key] = value.astype(np.float32)
        file.attrs.update(attributes)
    return path


class Truth:
    """Gives each image's PAN in every band, halved: not good, but its own."""

    def __init__(self) -> None:
        self.calls = []

    def check(self, bands: int, ratio: int) -> None:
        if bands != 4:
            raise ModelError(f"for 4 bands, not {bands}")

    def fuse(self, tile, statistics, ratio):
        self.calls.append((tile.pan.copy(), statistics, ratio))
        return np.repeat(tile.pan, 4, 0) / 2

    def provenance(self):
        return {}


def test_figures_are_those_of_the_metrics(tmp_path) -> None:
    file = PatchFile(write(tmp_path / "test.h5", sensor=json.dumps({"name": "QB", "bits": 11})))
    seen = []
    fake = Truth()
    found = evaluate_files([file], {"exp": Upsampling(), "fake": fake}, lambda done, total, note="": seen.append(done))
    images = [file.image(index) for index in range(2)]
    for name, fuse in (("exp", lambda i: i["lms"]), ("fake", lambda i: np.repeat(i["pan"], 4, 0) / 2)):
        wanted = {
            "SAM": [sam(i["gt"], fuse(i)) for i in images],
            "ERGAS": [ergas(i["gt"], fuse(i), 4) for i in images],
            "PSNR": [psnr(i["gt"], fuse(i), 2047) for i in images],
        }
        for metric, values in wanted.items():
            assert found.methods[name].values[metric] == pytest.approx(values)
            assert found.methods[name].mean(metric) == pytest.approx(np.mean(values))
            assert found.methods[name].std(metric) == pytest.approx(np.std(values))
    assert found.images == 2 and len(found.methods["fake"].seconds) == 2 and seen == [1, 2, 3, 4]
    pan, statistics, ratio = fake.calls[-1]
    assert np.array_equal(pan, images[1]["pan"]) and ratio == 4
    assert statistics.ms_mean == pytest.approx(file.statistics([1]).ms_mean[0].numpy())
    assert statistics.pan_std == pytest.approx(float(file.statistics([1]).pan_std))


def test_classical_methods_use_the_files_sensor_or_the_one_named(tmp_path) -> None:
    qb = find_sensor("QB")
    fusers = make_fusers(["exp", "mtf-glp-fs"], [], "cpu", 0)
    plain, stated = write(tmp_path / "plain.h5"), write(tmp_path / "stated.h5", sensor=json.dumps(qb.to_dict()))
    own = evaluate_files([PatchFile(stated)], fusers)
    named = evaluate_files([PatchFile(plain)], fusers, sensor=qb)
    unnamed = evaluate_files([PatchFile(plain)], fusers)
    for metric in ("ERGAS", "PSNR"):
        values = [found.methods["mtf-glp-fs"].values[metric] for found in (own, named, unnamed)]
        assert values[0] == values[1] != values[2], metric
    assert not own.notes and not named.notes and "plain.h5: names no known sensor" in unnamed.notes[0]
    with pytest.raises(KsdiffError, match="sensor WV2 has 8"):
        evaluate_files([PatchFile(plain)], fusers, sensor=find_sensor("WV2"))


def test_figures_do_not_depend_on_the_datas_scale(tmp_path) -> None:
    one = evaluate_files([PatchFile(write(tmp_path / "a.h5"))], {"exp": Upsampling()})
    scaled = evaluate_files([PatchFile(write(tmp_path / "b.h5", scale=1 / 2047))], {"exp": Upsampling()})
    assert one.methods["exp"].mean("ERGAS") == pytest.approx(scaled.methods["exp"].mean("ERGAS"), rel=1e-4)
    assert one.methods["exp"].mean("PSNR") == pytest.approx(scaled.methods["exp"].mean("PSNR"), rel=1e-3)


def test_a_misfit_is_refused_before_a_pixel_is_read(tmp_path, monkeypatch) -> None:
    files = [PatchFile(write(tmp_path / "a.h5")), PatchFile(write(tmp_path / "b.h5", bands=3))]
    monkeypatch.setattr(PatchFile, "image", lambda *_: pytest.fail("read a pixel"))
    with pytest.raises(ModelError, match="for 4 bands, not 3"):
        evaluate_files(files, {"fake": Truth()})


def test_files_without_truth_are_refused(tmp_path) -> None:
    with pytest.raises(KsdiffError, match=r"full\.h5: has no gt"):
        open_files([write(tmp_path / "full.h5", gt=False)])
    with pytest.raises(KsdiffError, match=r"holds no test\.h5"):
        open_files([tmp_path])
    write(tmp_path / "test.h5")
    assert open_files([tmp_path])[0].path == tmp_path / "test.h5"


@pytest.fixture
def checkpoint(tmp_path) -> Path:
    path = tmp_path / "runs" / "stage2.safetensors"
    config = ModelConfig(width=8, encoder_width=8, denoiser_width=16, tokens=4, latent=8)
    save_model(KSDiff(config, 2), path, sensor={}, training={})
    return path


def test_checkpoints_are_named_by_their_files(checkpoint) -> None:
    assert list(make_fusers([], [checkpoint], "cpu", 0)) == ["exp", "stage2"]
    assert list(make_fusers(["exp", "exp"], [], "cpu", 0)) == ["exp"]
    twin = checkpoint.parent.parent / "other" / "stage2.safetensors"
    twin.parent.mkdir()
    twin.write_bytes(checkpoint.read_bytes())
    assert list(make_fusers(["exp"], [checkpoint, twin], "cpu", 0)) == ["exp", str(checkpoint), str(twin)]
    with pytest.raises(KsdiffError, match="nonsense"):
        make_fusers(["nonsense"], [], "cpu", 0)


def test_undefined_values_do_not_spoil_the_mean() -> None:
    result = MethodResult({"SCC": [math.nan, 0.5, 0.7], "PSNR": [math.inf], "Q2n": [math.nan]}, [0.1])
    assert result.mean("SCC") == pytest.approx(0.6)
    plain = Evaluation("reduced", 3, {"m": result}).to_dict()["methods"]["m"]
    assert plain["PSNR"] == {"mean": None, "std": None} and plain["Q2n"]["mean"] is None
    json.dumps(plain, allow_nan=False)


def test_ranks_follow_the_metrics_direction() -> None:
    means = {"a": 1.0, "b": 2.0, "c": 3.0, "d": math.nan}
    found = Evaluation("reduced", 1, {name: MethodResult({"X": [mean]}, [0.0]) for name, mean in means.items()})
    assert ranks(found, "X", higher_is_better=False) == ("a", "b")
    assert ranks(found, "X", higher_is_better=True) == ("c", "b")
    alone = Evaluation("reduced", 1, {"a": found.methods["a"]})
    assert ranks(alone, "X", higher_is_better=True) == (None, None)


def test_the_command_prints_json_or_a_table(tmp_path, checkpoint) -> None:
    from ksdiff_cli.commands.evaluate import evaluate

    app = typer.Typer()
    app.command()(evaluate)
    data = str(write(tmp_path / "test.h5"))
    arguments = [data, "--method", "exp", "--checkpoint", str(checkpoint), "--device", "cpu"]
    result = CliRunner().invoke(app, [*arguments, "--json"])
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["protocol"] == "reduced" and found["images"] == 2 and list(found["methods"]) == ["exp", "stage2"]
    assert found["methods"]["exp"]["SAM"]["mean"] > 0 and found["methods"]["stage2"]["runtime_s"] > 0
    table = CliRunner().invoke(app, arguments)
    assert table.exit_code == 0, table.output
    assert "stage2" in table.stdout and f"{found['methods']['exp']['ERGAS']['mean']:.4f}" in table.stdout
