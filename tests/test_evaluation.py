"""evaluate: figures equal the metrics', methods that do not fit are refused before a pixel is read."""

import csv
import json
import math
from pathlib import Path

import h5py
import numpy as np
import pytest
import typer
from scipy.ndimage import gaussian_filter
from typer.testing import CliRunner

import ksdiff_cli
from ksdiff_cli.classical import METHODS
from ksdiff_cli.errors import KsdiffError
from ksdiff_cli.evaluation.cases import make_case, open_files
from ksdiff_cli.evaluation.compare import evaluate_files, make_fusers
from ksdiff_cli.evaluation.results import Evaluation, MethodResult, compare, write_csv
from ksdiff_cli.fusers.base import Fuser
from ksdiff_cli.fusers.classical import Upsampling
from ksdiff_cli.metrics import ergas, measure_full, psnr, q2n, sam
from ksdiff_cli.models.checkpoint import save_model
from ksdiff_cli.models.config import ModelConfig
from ksdiff_cli.models.contract import ModelError
from ksdiff_cli.models.ksdiff import KSDiff
from ksdiff_cli.patches.dataset import PatchFile
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


class Truth(Fuser):
    """Gives each image's PAN in every band, halved: not good, but its own."""

    def __init__(self) -> None:
        self.calls = []

    def check(self, bands: int, ratio: int) -> None:
        if bands != 4:
            raise ModelError(f"for 4 bands, not {bands}")

    def fuse(self, tile, statistics, ratio):
        self.calls.append((tile.pan.copy(), statistics, ratio))
        return np.repeat(tile.pan, 4, 0) / 2

    def bytes_per_pixel(self, bands: int) -> int:
        return 8 * bands

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
    assert (
        found.images == [(str(file.path), 0), (str(file.path), 1)]
        and len(found.methods["fake"].seconds) == 2
        and seen == [1, 2, 3, 4]
    )
    pan, statistics, ratio = fake.calls[-1]
    assert np.array_equal(pan, images[1]["pan"]) and ratio == 4
    assert statistics.ms_mean == pytest.approx(images[1]["ms"].mean((1, 2)))
    assert statistics.pan_std == pytest.approx(images[1]["pan"].std())
    evaluate_files([file], {"fake": fake}, scaling="scene")
    assert fake.calls[-1][1].ms_mean == pytest.approx(file.statistics([1]).ms_mean[0].numpy())
    assert fake.calls[-1][1].pan_std == pytest.approx(float(file.statistics([1]).pan_std))


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


def test_unit_range_data_become_dn_where_the_sensor_is_known(tmp_path) -> None:
    known = write(tmp_path / "test_qb_unit.h5", scale=1 / 2047)
    dn = write(tmp_path / "test_qb.h5")
    one, scaled = (evaluate_files([PatchFile(path)], {"exp": Upsampling()}) for path in (dn, known))
    # Q2n rounds to whole DN: only data in DN have a figure
    image = PatchFile(dn).image(0)
    assert one.methods["exp"].values["Q2n"][0] == pytest.approx(q2n(image["gt"], image["lms"]))
    assert scaled.methods["exp"].mean("Q2n") == pytest.approx(one.methods["exp"].mean("Q2n"), rel=1e-4)
    assert scaled.methods["exp"].mean("PSNR") == pytest.approx(one.methods["exp"].mean("PSNR"), rel=1e-6)
    assert "taken for QB by the file's name" in scaled.notes[0] and "brought to DN by 2047" in scaled.notes[1]
    unknown = evaluate_files([PatchFile(write(tmp_path / "unit.h5", scale=1 / 2047))], {"exp": Upsampling()})
    assert math.isnan(unknown.methods["exp"].mean("Q2n"))  # all others do not depend on the scale
    assert unknown.methods["exp"].mean("ERGAS") == pytest.approx(one.methods["exp"].mean("ERGAS"), rel=1e-4)
    assert unknown.methods["exp"].mean("PSNR") == pytest.approx(one.methods["exp"].mean("PSNR"), rel=1e-3)
    assert "a --sensor tells what makes them DN" in unknown.notes[0] and "rescale both to DN" in unknown.notes[-1]


def test_a_name_that_does_not_fit_the_bands_says_nothing(tmp_path) -> None:
    case = make_case(PatchFile(write(tmp_path / "test_wv3.h5", bands=4)), "reduced")
    assert case.sensor == find_sensor(None) and not case.notes


def test_full_resolution_figures_are_those_of_the_metrics(tmp_path) -> None:
    qb = find_sensor("QB")
    file = PatchFile(write(tmp_path / "full.h5", side=112, gt=False, sensor=json.dumps(qb.to_dict())))
    found = evaluate_files([file], {"exp": Upsampling(), "fake": Truth()}, protocol="full")
    assert "cut to 96 x 96 px" in found.notes[0] and found.protocol == "full"
    for index in range(2):
        image = file.image(index)
        pan, ms, lms = image["pan"][0, :96, :96], image["ms"][:, :24, :24], image["lms"][:, :96, :96]
        for name, fused in (("exp", lms), ("fake", np.repeat(pan[None], 4, 0) / 2)):
            values, _ = measure_full(fused, pan, ms, qb.mtf_ms)
            assert {metric: found.methods[name].values[metric][index] for metric in values} == pytest.approx(values)
    # gt does not disturb it, and says nothing
    both = PatchFile(write(tmp_path / "test.h5", side=112, sensor=json.dumps(qb.to_dict())))
    again = evaluate_files([both], {"exp": Upsampling()}, protocol="full")
    assert list(again.methods["exp"].values) == list(values)


def test_full_resolution_refuses_what_it_cannot_measure(tmp_path) -> None:
    with pytest.raises(KsdiffError, match="need a power of two"):
        make_case(PatchFile(write(tmp_path / "a.h5", side=96, ratio=3, gt=False)), "full")
    with pytest.raises(KsdiffError, match="hold no cell"):
        make_case(PatchFile(write(tmp_path / "b.h5", side=16, gt=False)), "full")
    with pytest.raises(KsdiffError, match="sensor WV3 has 8"):
        make_case(PatchFile(write(tmp_path / "c.h5", gt=False)), "full", find_sensor("WV3"))


def test_crop_leaves_the_border_out(tmp_path) -> None:
    path = write(tmp_path / "test.h5", side=128)
    with h5py.File(path, "r+") as file:
        file["lms"][:, :, :20] = 0  # all of it in the border
        file["lms"][:, :, 20:] = file["gt"][:, :, 20:]
    found = evaluate_files([PatchFile(path)], {"exp": Upsampling()}, crop="cut21")
    assert found.methods["exp"].mean("ERGAS") == 0 and found.crop == "cut21"
    assert evaluate_files([PatchFile(path)], {"exp": Upsampling()}).methods["exp"].mean("ERGAS") > 1


def test_examples_are_spread_over_the_images(tmp_path) -> None:
    files = [PatchFile(write(tmp_path / name, count=3)) for name in ("a.h5", "b.h5")]
    found = evaluate_files(files, {"exp": Upsampling()}, keep=3)
    assert [example.name for example in found.examples] == ["a.h5, image 0", "a.h5, image 2", "b.h5, image 2"]
    image = files[1].image(2)
    last = found.examples[-1]
    assert np.array_equal(last.truth, image["gt"]) and np.array_equal(last.fused["exp"], image["lms"])
    assert np.array_equal(last.pan, image["pan"][0]) and len(last.bands) == 3


def test_csv_has_a_row_a_method_and_image(tmp_path) -> None:
    found = evaluate_files([PatchFile(write(tmp_path / "test.h5"))], {"exp": Upsampling(), "fake": Truth()})
    found.methods["fake"].values["SCC"][1] = math.nan
    write_csv(found, tmp_path / "out.csv")
    with (tmp_path / "out.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["method"], row["image"]) for row in rows] == [("exp", "0"), ("exp", "1"), ("fake", "0"), ("fake", "1")]
    assert float(rows[1]["ERGAS"]) == found.methods["exp"].values["ERGAS"][1] and rows[3]["SCC"] == ""
    assert float(rows[0]["runtime_s"]) >= 0 and rows[0]["file"].endswith("test.h5")
    with pytest.raises(KsdiffError, match="cannot be written"):
        write_csv(found, tmp_path / "none" / "out.csv")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.csv", "test.h5"]


def test_a_misfit_is_refused_before_a_pixel_is_read(tmp_path, monkeypatch) -> None:
    files = [PatchFile(write(tmp_path / "a.h5")), PatchFile(write(tmp_path / "b.h5", bands=3))]
    monkeypatch.setattr(PatchFile, "image", lambda *_: pytest.fail("read a pixel"))
    with pytest.raises(ModelError, match="for 4 bands, not 3"):
        evaluate_files(files, {"fake": Truth()})


def test_files_without_truth_are_refused(tmp_path) -> None:
    with pytest.raises(KsdiffError, match=r"full\.h5: has no gt"):
        open_files([write(tmp_path / "full.h5", gt=False)])
    assert open_files([tmp_path], "full")[0].path == tmp_path / "full.h5"
    with pytest.raises(KsdiffError, match=r"holds no test\.h5"):
        open_files([tmp_path])
    write(tmp_path / "test.h5")
    (file,) = open_files([tmp_path])
    evaluate_files([file], {"exp": Upsampling()})
    assert file.path == tmp_path / "test.h5" and not file._cache  # no file is kept in memory


# ---- what a referee asks for


def test_differences_are_those_of_paired_images() -> None:
    random = np.random.default_rng(3)
    base = random.uniform(1, 3, 12)
    values = {
        "a": {"ERGAS": list(base), "Q2n": [0.9] * 12},
        "b": {"ERGAS": list(base + 0.1 + random.normal(0, 0.02, 12)), "Q2n": [0.9] * 12},
        "c": {"ERGAS": [math.nan, *(base[1:] + 5)], "Q2n": [math.nan] * 12},
    }
    found = compare(values)
    a, b, c = (found[name]["ERGAS"] for name in "abc")
    assert (a.other, b.other, c.other) == ("b", "a", "a") and (a.images, c.images) == (12, 11)
    assert a.mean == pytest.approx(np.mean(base - values["b"]["ERGAS"])) == -b.mean
    assert a.low < a.mean < a.high < 0 < b.low and a.high - a.low == pytest.approx(0.022, rel=0.4)
    assert a.p == pytest.approx(2 / 2**12)  # all of twelve differences have one sign
    assert c.mean == pytest.approx(5) == c.low == c.high
    equal = found["a"]["Q2n"]
    assert (equal.mean, equal.low, equal.high, equal.p) == (0, 0, 0, 1) and "Q2n" not in found["c"]
    assert compare({"alone": {"ERGAS": [1.0, 2.0]}}) == {"alone": {}}
    assert compare({name: {"ERGAS": [1.0]} for name in "ab"}) == {"a": {}, "b": {}}
    by_target = {name: {"sharpness_finest": [value] * 2} for name, value in (("a", 0.7), ("b", 1.1), ("c", 1.5))}
    assert [compare(by_target)[name]["sharpness_finest"].other for name in "abc"] == ["b", "a", "b"]


def test_the_interval_covers_the_true_mean_about_as_often_as_it_says() -> None:
    random, covered = np.random.default_rng(5), 0
    for _ in range(100):
        values = {"a": {"ERGAS": list(random.normal(0.3, 1, 40))}, "b": {"ERGAS": [0.0] * 40}}
        one = compare(values)["a"]["ERGAS"]
        covered += one.low < 0.3 < one.high
    assert 88 <= covered <= 99


def test_full_resolution_tells_the_shift_of_every_image(tmp_path) -> None:
    path = write(tmp_path / "full.h5", side=128, gt=False)
    with h5py.File(path, "r+") as file:
        scene = gaussian_filter(np.random.default_rng(1).uniform(100, 1500, (2, 1, 132, 132)), (0, 0, 2, 2))
        file["pan"][:] = scene[..., 2:130, 2:130]
        low = gaussian_filter(scene, (0, 0, 2, 2))
        file["ms"][0] = low[0, :, 4:132:4, 2:130:4]  # at 1.5 + (.5, -1.5) PAN pixels
        file["ms"][1] = low[1, :, 3:131:4, 3:131:4]
    found = evaluate_files([PatchFile(path)], {"exp": Upsampling(), "fake": Truth()}, protocol="full", keep=2)
    assert [each.shifts.tolist() for each in found.shifts] == [[[0.5, -1.5]] * 4, [[-0.5, -0.5]] * 4]
    assert found.to_dict()["band_shifts"][0] == [[0.5, -1.5]] * 4
    assert "MS lies (+0.5, -1.5) PAN pixels" in found.examples[0].note
    write_csv(found, tmp_path / "out.csv")
    with (tmp_path / "out.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["ms_shift_rows"], row["ms_shift_cols"]) for row in rows[:2]] == [("0.5", "-1.5"), ("-0.5", "-0.5")]
    assert any("reward softness" in note for note in found.notes)


@pytest.fixture
def checkpoint(tmp_path) -> Path:
    path = tmp_path / "runs" / "stage2.safetensors"
    config = ModelConfig(width=8, encoder_width=8, denoiser_width=16, tokens=4, latent=8)
    save_model(KSDiff(config, 2), path, sensor={}, training={})
    return path


def test_all_methods_and_the_shipped_weights_unless_told_otherwise(checkpoint) -> None:
    assert list(make_fusers([], [], "cpu", 0)) == [*METHODS, "ksdiff"]
    assert list(make_fusers([], [checkpoint], "cpu", 0)) == [*METHODS, "stage2"]
    assert list(make_fusers(["exp", "exp"], [], "cpu", 0)) == ["exp", "ksdiff"]
    assert list(make_fusers(["ksdiff", "exp"], [checkpoint], "cpu", 0)) == ["ksdiff", "exp", "stage2"]


def test_checkpoints_are_named_by_their_files(checkpoint) -> None:
    twin = checkpoint.parent.parent / "other" / "stage2.safetensors"
    twin.parent.mkdir()
    twin.write_bytes(checkpoint.read_bytes())
    assert list(make_fusers(["exp"], [checkpoint, twin], "cpu", 0)) == ["exp", str(checkpoint), str(twin)]
    with pytest.raises(KsdiffError, match="nonsense"):
        make_fusers(["nonsense"], [], "cpu", 0)


def test_undefined_values_do_not_spoil_the_mean() -> None:
    result = MethodResult({"SCC": [math.nan, 0.5, 0.7], "PSNR": [math.inf], "Q2n": [math.nan]}, [0.1])
    assert result.mean("SCC") == pytest.approx(0.6)
    plain = Evaluation("reduced", "full", [("a.h5", 0)], {"m": result}).to_dict()["methods"]["m"]
    assert plain["PSNR"] == {"mean": None, "std": None} and plain["Q2n"]["mean"] is None
    json.dumps(plain, allow_nan=False)


def test_ranks_follow_the_metrics_direction() -> None:
    means = {"a": 1.0, "b": 2.0, "c": 3.0, "d": math.nan}
    methods = {name: MethodResult({"ERGAS": [mean], "Q2n": [mean]}, [0.0]) for name, mean in means.items()}
    found = Evaluation("reduced", "full", [("a.h5", 0)], methods)
    assert found.ranks("ERGAS") == {"a": 1, "b": 2}
    assert found.ranks("Q2n") == {"c": 1, "b": 2}
    alone = Evaluation("reduced", "full", [("a.h5", 0)], {"a": found.methods["a"]})
    assert alone.ranks("Q2n") == {}


def test_draws_of_a_network_have_a_deviation(checkpoint, tmp_path) -> None:
    file = PatchFile(write(tmp_path / "test.h5"))
    fusers = make_fusers(["exp"], [checkpoint], "cpu", 3)
    found = evaluate_files([file], fusers, draws=2)
    others = [evaluate_files([file], make_fusers(["exp"], [checkpoint], "cpu", seed)) for seed in (3, 4)]
    means = [each.methods["stage2"].mean("ERGAS") for each in others]
    assert found.methods["stage2"].values == others[0].methods["stage2"].values
    assert found.methods["stage2"].std_over_draws("ERGAS") == pytest.approx(np.std(means, ddof=1)) != 0
    plain = found.to_dict()["methods"]
    assert plain["stage2"]["ERGAS"]["std_over_draws"] > 0 and "std_over_draws" not in plain["exp"]["ERGAS"]
    with pytest.raises(KsdiffError, match="own prior"):
        ksdiff_cli.evaluate(file.path, prior="zero", draws=2)


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
    outputs = ["--csv", str(tmp_path / "out.csv"), "--report", str(tmp_path / "out.html")]
    table = CliRunner().invoke(app, [*arguments, *outputs])
    assert table.exit_code == 0, table.output
    assert "stage2" in table.stdout and f"{found['methods']['exp']['ERGAS']['mean']:.4f}" in table.stdout
    assert "stage2" in (tmp_path / "out.html").read_text() and "stage2" in (tmp_path / "out.csv").read_text()
    assert "SAM of DN" in table.stdout and "stage2 less the best other method" in table.stdout
    difference = found["methods"]["stage2"]["ERGAS"]["against_best_other"]
    assert difference["other"] == "exp" and f"{difference['mean']:+.4f}" in table.stdout
    full = CliRunner().invoke(app, [*arguments, "--protocol", "full", "--draws", "2"])
    assert "D_rho" in full.stdout and "sharpness_next" in full.stdout and "Shift of MS against PAN" in full.stdout
    assert "std over draws" in full.stdout
    for name in ("csv", "report"):
        again = CliRunner().invoke(app, [*arguments, *outputs[0 if name == "csv" else 2 :]])
        assert isinstance(again.exception, KsdiffError) and "exists already" in str(again.exception)
    assert CliRunner().invoke(app, [data, "--protocol", "full", "--crop", "cut21"]).exit_code == 2


def test_an_output_takes_no_inputs_place(tmp_path, fails) -> None:
    test = write(tmp_path / "test.h5")
    before = test.read_bytes()
    words = ("evaluate", test, "--method", "exp", "--overwrite")
    assert "is one of the inputs" in fails(*words, "--csv", test)
    page = tmp_path / "page.html"
    page.write_bytes(before)
    assert "is one of the inputs" in fails("evaluate", page, "--method", "exp", "--overwrite", "--report", page)
    assert "name a file for each" in fails(*words, "--csv", tmp_path / "a.html", "--report", tmp_path / "a.html")
    assert test.read_bytes() == before and sorted(path.name for path in tmp_path.iterdir()) == ["page.html", "test.h5"]
