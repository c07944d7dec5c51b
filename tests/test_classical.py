"""Classical methods: against the reference's outputs where they are at hand, by their properties, and on scenes."""

import json
from typing import get_args

import h5py
import numpy as np
import pytest
import rasterio
from reference_values import EXPECTED, load_reference

from ksdiff_cli.checks import MethodName
from ksdiff_cli.classical import METHODS, Setup, fuse, gsa, make_block, make_setup
from ksdiff_cli.classical.filters import atrous, mtf_low
from ksdiff_cli.errors import KsdiffError
from ksdiff_cli.evaluation.compare import evaluate_files
from ksdiff_cli.fusers.classical import Classical, Upsampling, make_fuser
from ksdiff_cli.metrics import ergas, measure_reduced
from ksdiff_cli.numerics.moments import JointMoments, LowTail, solve
from ksdiff_cli.numerics.toolbox import decimate, interp23tap, mtf_filter
from ksdiff_cli.options.sharpening import SharpenOptions
from ksdiff_cli.patches.dataset import PatchFile
from ksdiff_cli.products import make_pair as scene_of
from ksdiff_cli.raster.pair import open_pair
from ksdiff_cli.sensors import SENSORS, find_sensor
from ksdiff_cli.sharpening.engine import sharpen_scene

REFERENCE = {
    "exp": "exp",
    "gsa": "GSA",
    "bdsd-pc": "BDSD_PC",
    "mtf-glp-fs": "MTF_GLP_FS",
    "bt-h": "BT_H",
    "mtf-glp-hpm-r": "MTF_GLP_HPM_R",
    "awlp": "AWLP",
    "pracs": "PRACS",
}
every_method = pytest.mark.parametrize("name", METHODS)
both_geometries = pytest.mark.parametrize("geometry", ["toolbox", "area"])


def bands_first(image):
    return np.moveaxis(image, -1, 0)


def tolerance(name):
    return 1e-6 if name == "bdsd-pc" else 1e-9


def setup_of(bands=4, ratio=4, geometry="toolbox"):
    return Setup(ratio, (0.3, 0.32, 0.28, 0.22, 0.3, 0.3, 0.31, 0.29)[:bands], 0.15, geometry)


def images(bands=4, ratio=4, size=(64, 80), seed=0):
    """Return PAN, upsampled MS and the truth of a scene with objects that differ in their spectra."""
    random = np.random.default_rng(seed)
    height, width = size
    labels = random.integers(0, 4, (height // 8, width // 8)).repeat(8, 0).repeat(8, 1)
    spectra = np.array([[0.3], [0.5], [0.8], [1.0]]) * random.uniform(0.85, 1.15, (4, bands))
    truth = 1000 * spectra[labels].transpose(2, 0, 1) * random.normal(1, 0.08, size)
    pan = truth.mean(0, keepdims=True) + random.normal(0, 4, size)
    ms = decimate(mtf_filter(truth, setup_of(bands).gains, ratio), ratio)
    return pan, interp23tap(ms, ratio), truth


@pytest.mark.parametrize("name", REFERENCE)
def test_golden_outputs(name):
    golden, pan = load_reference("methods_m_wv3"), load_reference("inputs/m_wv3")["pan"][None]
    setup = make_setup(METHODS[name], SENSORS["WV3"], 8, 4, "toolbox")
    found = fuse(METHODS[name], pan, interp23tap(bands_first(golden["ms_lr"]), 4), setup)
    np.testing.assert_allclose(found, bands_first(golden[REFERENCE[name]]), rtol=tolerance(name))


def gram_schmidt(pan, up, weights):
    """Sharpen step by step as the patent says: transform, put PAN in place of the first component, transform back."""
    bands, planes = up.reshape(len(up), -1), pan.reshape(-1)
    simulated = weights @ bands
    parts, shares = [simulated - simulated.mean()], []
    for band in bands:
        rest, own = band - band.mean(), []
        for part in parts:
            own.append((band - band.mean()) @ part / (part @ part))
            rest = rest - own[-1] * part
        shares.append(own)
        parts.append(rest)
    parts[0] = (planes - planes.mean()) * simulated.std() / planes.std()
    out = [
        band.mean() + parts[number] + sum(share * part for share, part in zip(own, parts, strict=False))
        for number, (band, own) in enumerate(zip(bands, shares, strict=True), start=1)
    ]
    return np.array(out).reshape(up.shape)


@pytest.mark.parametrize("sensor", ["generic", "WV3"])
def test_gs_is_what_the_patents_transforms_make(sensor):
    pan = load_reference("inputs/m_wv3")["pan"][None]
    up = interp23tap(bands_first(load_reference("methods_m_wv3")["ms_lr"]), 4)
    setup = make_setup(METHODS["gs"], SENSORS[sensor], 8, 4, "toolbox")
    # PAN of WorldView-3 is 450 to 800 nm: 60 nm of blue, 70 of green, 40, 60, 40 and 30 of the first near infrared
    weights = np.array([0, 60, 70, 40, 60, 40, 30, 0]) / 300 if sensor == "WV3" else np.full(8, 1 / 8)
    np.testing.assert_allclose(fuse(METHODS["gs"], pan, up, setup), gram_schmidt(pan, up, weights), rtol=1e-9)


@pytest.mark.parametrize("bands", [4, 8])
def test_awlp_r_is_its_formula(bands):
    pan, up, _ = images(bands)
    setup = setup_of(bands)
    low = np.stack([interp23tap(decimate(mtf_filter(pan, (gain,), 4), 4), 4)[0] for gain in setup.gains])
    haze = up.min((1, 2))
    if bands == 4:
        haze = np.percentile(up, 1, axis=(1, 2), method="hazen") * [0.95, 0.45, 0.4, 0.05]
    clear = up - haze[:, None, None]
    gain = up.mean(0).std() / low.std((1, 2))
    mean = clear.mean(0)
    share = np.where(mean == 0, 1, np.maximum(clear, 0) / np.where(mean == 0, 1, mean))
    wanted = up + gain[:, None, None] * (pan - low) * share
    np.testing.assert_allclose(fuse(METHODS["awlp-r"], pan, up, setup), wanted, rtol=1e-9)


def test_awlp_r_leaves_hazes_colour_alone():
    pan, up, truth = images(size=(128, 160))
    hazy = up + np.array([300.0, 150, 80, 0])[:, None, None]
    setup, truth = setup_of(geometry="area"), truth + np.array([300.0, 150, 80, 0])[:, None, None]
    errors = {name: ergas(truth, fuse(METHODS[name], pan + 130, hazy, setup), 4) for name in ("awlp", "awlp-r")}
    assert errors["awlp-r"] < errors["awlp"]


def test_methods_of_other_programs_name_what_to_take_here(run):
    for name, instead in (("nndiffuse", "ksdiff or mtf-glp-fs"), ("Gram-Schmidt", "gs, or gsa"), ("pca", "gs or gsa")):
        with pytest.raises(KsdiffError, match=f"in its place take {instead}"):
            make_fuser(name)
        result = run("sharpen", "pan.tif", "ms.tif", "-o", "out.tif", "--method", name)
        assert result.exit_code == 2 and f"in its place take {instead}" in " ".join(result.stderr.split())


@pytest.mark.parametrize(
    ("name", "case"),
    [(name, case) for case, known in EXPECTED["methods"].items() for name in REFERENCE if REFERENCE[name] in known],
)
def test_golden_figures(name, case):
    inputs, wanted = load_reference(f"inputs/{case}"), EXPECTED["methods"][case][REFERENCE[name]]["full"]
    gt = bands_first(inputs["gt"])
    ms = decimate(mtf_filter(gt, SENSORS["WV3"].mtf_ms, 4), 4)
    setup = make_setup(METHODS[name], SENSORS["WV3"], 8, 4, "toolbox")
    values, _ = measure_reduced(gt, fuse(METHODS[name], inputs["pan"][None], interp23tap(ms, 4), setup))
    assert {metric: values[metric] for metric in wanted} == pytest.approx(wanted, rel=tolerance(name))


def test_golden_low_pass():
    golden, pan = load_reference("methods_m_wv3"), load_reference("inputs/m_wv3")["pan"][None]
    block = make_block(pan, np.zeros((8, *pan.shape[1:])))
    np.testing.assert_allclose(atrous(block, setup_of(8)), golden["pan_atrous"], rtol=1e-12)


@every_method
@both_geometries
@pytest.mark.parametrize(("bands", "ratio"), [(1, 4), (1, 2), (3, 4), (4, 2), (8, 4)])
def test_any_number_of_bands_and_both_ratios(name, geometry, bands, ratio):
    pan, up, _ = images(bands, ratio)
    kept = pan.copy(), up.copy()
    found = fuse(METHODS[name], pan, up, setup_of(bands, ratio, geometry))
    assert found.shape == up.shape and found.dtype == np.float64 and np.isfinite(found).all()
    assert np.array_equal(pan, kept[0]) and np.array_equal(up, kept[1])


@every_method
def test_other_ratios_and_odd_sizes_in_area_geometry(name):
    pan, up, _ = images()
    for ratio in (3, 5):
        found = fuse(METHODS[name], pan[:, :61, :47], up[:, :61, :47], setup_of(4, ratio, "area"))
        assert found.shape == (4, 61, 47) and np.isfinite(found).all()
    with pytest.raises(KsdiffError, match="power of two"):
        fuse(METHODS[name], pan[:, :63, :63], up[:, :63, :63], setup_of(4, 3))


@every_method
@both_geometries
def test_units_do_not_matter(name, geometry):
    pan, up, _ = images()
    setup = setup_of(geometry=geometry)
    found = fuse(METHODS[name], pan, up, setup)
    np.testing.assert_allclose(fuse(METHODS[name], pan / 2047, up / 2047, setup) * 2047, found, rtol=1e-8)
    if name != "pracs":  # which compares PAN with MS
        np.testing.assert_allclose(fuse(METHODS[name], pan * 3, up, setup), found, rtol=1e-8, atol=1e-6)


@both_geometries
@pytest.mark.parametrize("name", ["exp", "gsa", "mtf-glp-fs", "mtf-glp-hpm-r", "awlp", "awlp-r", "pracs"])
def test_a_constant_pan_adds_nothing(name, geometry):
    pan, up, _ = images()
    found = fuse(METHODS[name], np.full_like(pan, 613.7), up, setup_of(geometry=geometry))
    np.testing.assert_allclose(found, up, rtol=1e-9)


@both_geometries
@pytest.mark.parametrize("name", [name for name in METHODS if name != "exp"])
def test_detail_comes_nearer_to_the_truth(name, geometry):
    pan, up, truth = images(size=(128, 160))
    found = fuse(METHODS[name], pan, up, setup_of(geometry=geometry))
    assert ergas(truth, found, 4) < 0.8 * ergas(truth, up, 4)


@both_geometries
@pytest.mark.parametrize("name", ["brovey", "bt-h", "mtf-glp-hpm-r", "awlp", "awlp-r"])
def test_a_single_band_that_is_pan_itself_comes_back(name, geometry):
    pan, _, _ = images(1, size=(128, 160))
    up = interp23tap(decimate(mtf_filter(pan, (0.3,), 4), 4), 4)
    found = fuse(METHODS[name], pan, up, setup_of(1, 4, geometry))
    assert np.std(found - pan) < 0.35 * np.std(up - pan)


def test_gsa_adds_nothing_when_pan_is_the_intensity():
    _, up, _ = images()
    weights = np.array([0.1, 0.2, 0.3, 0.4])
    pan = np.tensordot(weights, up, 1)
    found = gsa.Coefficients(weights, np.array([3.0, 1, 2, 5]), float(pan.mean()), up.mean((1, 2)))
    np.testing.assert_allclose(gsa.apply(make_block(pan[None], up), found, setup_of()), up, rtol=1e-12)


def test_brovey_keeps_the_proportions_of_the_bands():
    pan, up, _ = images()
    found = fuse(METHODS["brovey"], pan, up, setup_of())
    np.testing.assert_allclose(found / found[:1], up / up[:1], rtol=1e-9)


def test_bdsd_pc_keeps_its_signs():
    pan, up, _ = images(8)
    gamma = METHODS["bdsd-pc"].gather([make_block(pan, up)], setup_of(8)).gamma
    assert gamma.shape == (8, 9) and (gamma[:, 0] >= 0).all() and (gamma[:, 1:] <= 0).all() and gamma[:, 0].any()


@every_method
@both_geometries
def test_degenerate_bands(name, geometry):
    pan, up, _ = images()
    up[1], up[3] = up[0], 0
    assert np.isfinite(fuse(METHODS[name], pan, up, setup_of(geometry=geometry))).all()
    assert np.isfinite(fuse(METHODS[name], pan * 0, up * 0, setup_of(geometry=geometry))).all()


@every_method
def test_black_pixels_do_not_blow_up_in_scenes(name):
    pan, up, _ = images()
    up[:, 20:30, 20:30] = 0
    up[0, 20:30, 20:30] = np.random.default_rng(1).normal(0, 1e-3, (10, 10))
    found = fuse(METHODS[name], pan, up, setup_of(geometry="area"))
    assert np.abs(found).max() < 10 * up.max()


@every_method
def test_invalid_pixels_do_not_matter(name):
    pan, up, _ = images()
    valid = np.ones(pan.shape[1:], bool)
    valid[:40, 56:] = False
    setup = setup_of(geometry="area")
    found = fuse(METHODS[name], pan, up, setup, valid)
    other = np.where(valid, pan, 4000.0)
    again = fuse(METHODS[name], other, up, setup, valid)
    if name in ("brovey", "mtf-glp-fs", "bt-h", "mtf-glp-hpm-r"):  # the others' way to the MS grid trusts the filling
        np.testing.assert_allclose(again[:, valid], found[:, valid], rtol=1e-9)
    assert np.isfinite(again).all()


def test_low_pass_near_invalid_pixels_keeps_a_constant():
    pan, up, _ = images()
    valid = np.random.default_rng(2).random(pan.shape[1:]) > 0.4
    block = make_block(np.where(valid, 500.0, 0)[None], up, valid)
    for low in (mtf_low(block, setup_of(geometry="area")), atrous(block, setup_of(geometry="area"))):
        np.testing.assert_allclose(low[..., valid], 500, rtol=1e-9)


def test_moments_are_those_of_all_samples_together():
    layers = np.random.default_rng(3).normal(5, 2, (4, 30, 40))
    layers[3] = layers[0] + layers[1]
    where = np.random.default_rng(4).random((30, 40)) > 0.3
    moments = JointMoments()
    with pytest.raises(KsdiffError, match="no pixel holds data"):
        _ = moments.mean
    for rows in (slice(0, 7), slice(7, 8), slice(8, 30)):
        moments.add(layers[0, rows], layers[1:, rows], where=where[rows])
    np.testing.assert_allclose(moments.mean, layers[:, where].mean(1), rtol=1e-12)
    np.testing.assert_allclose(moments.covariance, np.cov(layers[:, where], bias=True), rtol=1e-12)
    np.testing.assert_allclose(moments.second, layers[:, where] @ layers[:, where].T / where.sum(), rtol=1e-12)
    weights = solve(moments.covariance, moments.covariance[:, 3])
    np.testing.assert_allclose(weights[[0, 1, 3]], [1 / 3, 1 / 3, 2 / 3], rtol=1e-6)  # the smallest of all solutions


@pytest.mark.parametrize("share", [0, 0.01, 0.3])
def test_low_quantiles_are_those_of_all_samples_together(share):
    image = np.random.default_rng(5).normal(size=(2, 50, 60))
    image[:, :10] -= 5  # all that counts comes in the first block
    where = np.random.default_rng(6).random((50, 60)) > 0.2
    for blocks in ([slice(0, 50)], [slice(0, 10), slice(10, 11), slice(11, 50)], [slice(20, 50), slice(0, 20)]):
        tail = LowTail(share)
        for rows in blocks:
            tail.add(image[:, rows], where[rows], where.size)
        wanted = np.percentile(image[:, where], 100 * share, axis=1, method="hazen")
        np.testing.assert_allclose(tail.result(), wanted, rtol=1e-12)


def test_misfits_are_refused():
    pan, up, _ = images()
    with pytest.raises(KsdiffError, match="do not fit"):
        fuse(METHODS["gsa"], pan[:, :32], up, setup_of())
    with pytest.raises(KsdiffError, match="3 MTF gains for 4 bands"):
        fuse(METHODS["gsa"], pan, up, setup_of(3))
    with pytest.raises(KsdiffError, match="no pixel holds data"):
        fuse(METHODS["gsa"], pan, up, setup_of(), np.zeros(pan.shape[1:], bool))
    with pytest.raises(KsdiffError, match="area geometry"):
        fuse(METHODS["gsa"], pan, up, setup_of(), np.eye(*pan.shape[1:]) == 0)
    with pytest.raises(KsdiffError, match="8 MS bands but the data have 4"):
        make_setup(METHODS["mtf-glp-fs"], SENSORS["WV3"], 4, 4, "area")
    assert make_setup(METHODS["gsa"], SENSORS["WV3"], 4, 4, "area").gains == find_sensor(None).ms_gains(4)
    with pytest.raises(KsdiffError, match="known: ksdiff exp brovey gs gsa"):
        make_fuser("nonsense")


def scene_pair(make_pair, holes=False, **options):
    def edit(pan, ms):
        random = np.random.default_rng(8)
        pan += random.normal(0, 60, pan.shape).astype(pan.dtype)
        ms *= random.uniform(0.5, 1.5, (len(ms), ms.shape[1] // 2, ms.shape[2] // 2)).repeat(2, 1).repeat(2, 2)
        if holes:
            pan[:, 50:90, 70:100] = 0
            ms[:, 30:40, 30:50] = 0

    files = make_pair(
        size=(192, 304), dtype="float32", edit=edit, pan_profile={"nodata": 0}, ms_profile={"nodata": 0}, **options
    )
    return scene_of(str(files.pan), [str(files.ms)]), files.folder


def sharpened(scene, path, name, **options):
    sharpen_scene(scene, path, make_fuser(name), SharpenOptions(dtype="float32", fidelity=False, **options))
    with rasterio.open(path) as dataset:
        return dataset.read(), dataset.tags()


@every_method
def test_a_scene_is_sharpened_as_the_whole_image_would_be(name, make_pair, monkeypatch):
    monkeypatch.setattr("ksdiff_cli.fusers.classical._BLOCK", 64)
    scene, folder = scene_pair(make_pair)
    found, tags = sharpened(scene, folder / "out.tif", name, tile=64)
    assert tags["KSDIFF_METHOD"] == name
    with open_pair(scene) as pair:
        whole = pair.read(0, 0, *pair.shape)
    expected = fuse(METHODS[name], whole.pan, whole.ms_up, Setup(4, (0.3,) * 4, 0.15, "area"))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-3)


@every_method
def test_single_precision_is_enough_for_what_is_stored(name, make_pair):
    scene, _ = scene_pair(make_pair)
    with open_pair(scene) as pair:
        fuser, statistics = make_fuser(name), pair.statistics()
        fuser.prepare(pair, statistics)
        tile = pair.read(0, 0, *pair.shape)
        found = fuser.fuse(tile, statistics, 4)
        expected = fuse(METHODS[name], tile.pan, tile.ms_up, Setup(4, (0.3,) * 4, 0.15, "area"))
    assert found.dtype == np.float32 and np.abs(expected).max() > 500
    assert np.abs(found - expected).max() < 1e-3


@pytest.mark.parametrize(("name", "holes"), [("brovey", False), ("mtf-glp-fs", True), ("mtf-glp-hpm-r", True)])
def test_some_pixels_of_a_large_scene_tell_what_all_do(holes, name, make_pair, monkeypatch):
    def dig(pan, ms):
        if holes:
            pan[:, 100:300, 70:500] = 0
            ms[:, 130:140, 30:90] = 0

    files = make_pair(size=(800, 900), edit=dig, pan_profile={"nodata": 0}, ms_profile={"nodata": 0})
    with open_pair(scene_of(str(files.pan), [str(files.ms)])) as pair:
        fusers = [make_fuser(name) for _ in range(3)]
        fusers[0].prepare(pair, pair.statistics())
        monkeypatch.setattr("ksdiff_cli.fusers.classical._LARGE", 0)
        fusers[1].prepare(pair, pair.statistics())
        fusers[2].prepare(pair, pair.statistics(watch=fusers[2].watch(pair)))
        tile, known = pair.read(300, 300, 64, 64), pair.statistics()
    whole, some, watching = (fuser.fuse(tile, known, 4) for fuser in fusers)
    np.testing.assert_array_equal(some, watching)
    assert 0 < np.abs(some - whole).max() < 0.01 * whole.std()


@every_method
def test_windows_do_not_show_beside_holes(name, make_pair, monkeypatch):
    monkeypatch.setattr("ksdiff_cli.fusers.classical._BLOCK", 96)
    scene, folder = scene_pair(make_pair, holes=True)
    whole, _ = sharpened(scene, folder / "whole.tif", name)
    parts, _ = sharpened(scene, folder / "parts.tif", name, tile=80)
    np.testing.assert_allclose(parts, whole, rtol=1e-5, atol=1e-3)
    assert (whole[:, 50:90, 70:100] == 0).all() and np.abs(whole).max() < 20000


def test_fusers_by_name():
    for name in METHODS:
        assert isinstance(make_fuser(name), Upsampling if name == "exp" else Classical)
        assert make_fuser(name).provenance() == {"METHOD": name}


def test_progress_tells_of_the_first_pass(make_pair):
    scene, folder = scene_pair(make_pair)
    told = []
    sharpen_scene(scene, folder / "out.tif", make_fuser("gsa"), progress=lambda done, total, note="": told.append(note))
    assert list(dict.fromkeys(told)) == ["statistics", "coefficients", "windows", "output"]


def test_a_sensor_that_does_not_suit_is_refused(make_pair):
    files = make_pair()
    scene = scene_of(str(files.pan), [str(files.ms)], "WV3")
    with pytest.raises(KsdiffError, match="8 MS bands but the data have 4"):
        sharpen_scene(scene, files.folder / "out.tif", make_fuser("mtf-glp-fs"))
    assert not (files.folder / "out.tif").exists()


@pytest.mark.parametrize(("geometry", "sensor"), [("toolbox", None), ("area", "QB"), ("toolbox", "WV3")])
def test_evaluation_uses_the_files_geometry_and_sensor(tmp_path, geometry, sensor):
    pan, up, truth = images()
    with h5py.File(tmp_path / "test.h5", "w") as file:
        for key, value in {"pan": pan, "ms": decimate(up, 4), "lms": up, "gt": truth}.items():
            file[key] = value[None].astype(np.float32)
        file.attrs["geometry"] = geometry
        if sensor:
            file.attrs["sensor"] = json.dumps(SENSORS[sensor].to_dict())
    opened = PatchFile(tmp_path / "test.h5")
    fusers = {name: Classical(name) for name in ("mtf-glp-fs", "gsa")}
    if sensor == "WV3":
        with pytest.raises(KsdiffError, match="8 MS bands"):
            evaluate_files([opened], fusers)
    known = SENSORS["QB" if sensor == "QB" else "generic"]
    found = evaluate_files([opened], fusers, sensor=SENSORS["generic"] if sensor == "WV3" else None)
    assert any("generic MTF gains" in note for note in found.notes) == (sensor != "QB")
    for name, result in found.methods.items():
        setup = make_setup(METHODS[name], known, 4, 4, geometry)
        expected = fuse(METHODS[name], pan.astype(np.float32), up.astype(np.float32), setup)
        assert result.values["ERGAS"][0] == pytest.approx(ergas(truth.astype(np.float32), expected, 4))


def test_the_command_line_offers_every_method():
    assert set(get_args(MethodName)) == {"ksdiff", *METHODS}
