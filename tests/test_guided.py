"""Coarser bands by finer ones: what guides them, what comes out, and that the engine's promises hold for it."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from conftest import Array, read, write_raster
from rasterio.transform import Affine
from rasterio.windows import Window

from ksdiff_cli.classical import METHODS
from ksdiff_cli.metrics import ergas
from ksdiff_cli.numerics.grids import corner_aligned, degrade
from ksdiff_cli.options.sharpening import SharpenOptions
from ksdiff_cli.products.guided import sort_files
from ksdiff_cli.raster.bands import BandSource
from ksdiff_cli.raster.guide import GuideBands, Mix
from ksdiff_cli.raster.pair import open_pair
from ksdiff_cli.raster.synthesis import find_guides
from ksdiff_cli.sharpening.guided import choose_guided, prepare_guided

CUT = Path(__file__).parent / "reference" / "sentinel2" / "malmo.npz"
FINE, COARSE = ("B02", "B03", "B04", "B08"), ("B05", "B06", "B07", "B8A", "B11", "B12")
GAINS_10, GAINS_20 = (0.275, 0.28, 0.25, 0.24), (0.365, 0.33, 0.34, 0.32, 0.205, 0.235)
EAST, NORTH = 300000.0, 6200040.0


def put(path: Path, values: Array, metres: float, names: tuple[str, ...] = (), **more: Any) -> Path:
    place = Affine(metres, 0, EAST, 0, -metres, NORTH)
    path = write_raster(path, values, crs="EPSG:32633", transform=place, **more)
    if names:
        with rasterio.open(path, "r+") as file:
            file.descriptions = names
    return path


def low(image: Array, ratio: int, gains: tuple[float, ...]) -> Array:
    shape = image.shape[1] // ratio, image.shape[2] // ratio
    seen: Array = degrade(image.astype(np.float32), corner_aligned(ratio), shape, gains)
    return np.rint(seen).astype("uint16")


@pytest.fixture
def real(tmp_path: Path) -> dict[str, Any]:
    """Return a real scene at half its resolution: what guides, what is sharpened, and the truth."""
    cut = np.load(CUT)
    return {
        "fine": put(tmp_path / "fine.tif", low(cut["m10"], 2, GAINS_10), 20, FINE),
        "coarse": put(tmp_path / "coarse.tif", low(cut["m20"], 2, GAINS_20), 40, COARSE),
        "truth": cut["m20"].astype(float),
    }


@pytest.fixture
def made(tmp_path: Path) -> dict[str, Any]:
    """Return a scene whose coarse bands are known mixes of three fine ones: 160, 80 and 40 pixels a side."""
    rng = np.random.default_rng(3)
    from scipy.ndimage import gaussian_filter

    fine = 2000 + 900 * np.stack([gaussian_filter(each, 1.5) for each in rng.normal(size=(3, 160, 160))])
    mixes = {"red edge": (0.2, 0.3, 0.5), "swir": (1.5, -0.5, 0.2), "aerosol": (0.0, 0.0, 1.0)}
    truth = {name: np.tensordot(weights, fine, 1)[None] for name, weights in mixes.items()}
    two = np.concatenate([low(truth["red edge"], 2, (0.3,)), low(truth["swir"], 2, (0.3,))])
    return {
        "fine": put(tmp_path / "fine.tif", np.rint(fine).astype("uint16"), 10, ("green", "red", "nir")),
        "coarse": put(tmp_path / "coarse.tif", two, 20, ("red edge", "swir")),
        "far": put(tmp_path / "far.tif", low(truth["aerosol"], 4, (0.3,)), 40),
        "mixes": mixes,
        "truth": truth,
    }


def error(image: Array, truth: Array, rim: int = 6) -> Array:
    away = (image.astype(float) - truth)[:, rim:-rim, rim:-rim]
    return np.sqrt((away**2).mean((1, 2)) / truth.mean((1, 2)) ** 2)


# --- what guides -----------------------------------------------------------------------------------------------------


def test_synthesis_finds_the_mix_and_selection_the_likest_band(made: dict[str, Any]) -> None:
    scene = sort_files([str(made["fine"])], [str(made["coarse"]), str(made["far"])])
    assert [group.name for group in scene.groups] == ["20m", "40m"]
    found = {}
    for group in scene.groups:
        for source, guide in zip(group.bands, find_guides(scene, group), strict=True):
            found[source.name] = guide
    for name, weights in (("red edge", made["mixes"]["red edge"]), ("swir", made["mixes"]["swir"])):
        assert found[name].mix.weights == pytest.approx(weights, abs=0.01)
        assert found[name].r2 > 0.999
    far = find_guides(scene, scene.groups[1], "selection")[0]
    assert far.mix.weights == (0.0, 0.0, 1.0) and far.mix.offset == 0 and far.r2 > 0.99
    swir = find_guides(scene, scene.groups[0], "selection")[1]
    assert swir.mix.weights == (1.0, 0.0, 0.0) and 0.5 < swir.r2 < found["swir"].r2


def test_bands_that_are_almost_the_same_get_no_large_weights(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    one = 1000 + rng.normal(0, 200, (1, 128, 128))
    both = np.concatenate([one, one + rng.normal(0, 1, one.shape)])
    fine = put(tmp_path / "fine.tif", np.rint(both).astype("uint16"), 10)
    coarse = put(tmp_path / "coarse.tif", low(one, 2, (0.3,)), 20)
    scene = sort_files([str(fine)], [str(coarse)])
    (guide,) = find_guides(scene, scene.groups[0])
    assert max(map(abs, guide.mix.weights)) < 1 and sum(guide.mix.weights) == pytest.approx(1, abs=0.01)


def test_clouds_do_not_count_where_there_is_other_ground(made: dict[str, Any], tmp_path: Path) -> None:
    from ksdiff_cli.raster.bands import QualityBand

    coarse, flags = read(made["coarse"]), np.zeros((80, 80), "uint8")
    coarse[:, :40], flags[:40] = 9000, 1  # a cloud that no fine band shows
    clouded = put(tmp_path / "clouded.tif", coarse, 20)
    quality = QualityBand(str(put(tmp_path / "flags.tif", flags, 20)), (), ((1, 1),))
    scene = sort_files([str(made["fine"])], [str(clouded)])
    bare = find_guides(scene, scene.groups[0])[0]
    told = find_guides(scene, replace(scene.groups[0], quality=quality))[0]
    assert bare.r2 < 0.5 < 0.999 < told.r2


def test_a_mix_is_the_same_in_every_window(made: dict[str, Any]) -> None:
    with rasterio.open(made["fine"]) as file:
        sources = [BandSource(str(made["fine"]), band) for band in (1, 2, 3)]
        guide = GuideBands([file] * 3, sources)
        mix = Mix(tuple(sources), (0.3, -0.1, 0.7), 12.5)
        whole, valid = guide.mix(mix, Window(0, 0, 160, 160))
        assert valid.all() and whole[0] == pytest.approx(np.tensordot(mix.weights, file.read(), 1) + 12.5, rel=1e-5)
        for window in (Window(3, 5, 40, 20), Window(120, 100, 40, 60), Window(3, 5, 41, 20)):
            rows, cols = window.toslices()
            assert np.array_equal(guide.mix(mix, window)[0], whole[:, rows, cols])


def test_a_window_that_lies_in_the_last_one_is_not_decoded_again(made: dict[str, Any], monkeypatch: Any) -> None:
    from ksdiff_cli.raster import guide as module

    calls = []
    monkeypatch.setattr(module, "read_bands", lambda *given: (calls.append(given[2]), reading(*given))[1])
    from ksdiff_cli.raster.bands import read_bands as reading

    with rasterio.open(made["fine"]) as file:
        bands = GuideBands([file], [BandSource(str(made["fine"]))])
        for window in (Window(0, 0, 64, 64), Window(8, 8, 16, 16), Window(0, 0, 64, 64), Window(8, 8, 64, 64)):
            assert bands.read(window)[0].shape == (1, window.height, window.width)
    assert len(calls) == 2


def test_a_companion_is_pan_as_the_ms_camera_sees_it(made: dict[str, Any]) -> None:
    scene = choose_guided(sort_files([str(made["fine"])], [str(made["coarse"])]), SharpenOptions())
    from ksdiff_cli.fusers.classical import make_fuser

    ready = prepare_guided(scene, make_fuser("ksdiff", device="cpu"), SharpenOptions(registration="skip"))
    part = ready.scene.parts[0]
    assert part.companion is not None
    with open_pair(part) as pair:
        assert pair.bands == 2
        ms, valid = pair.read_ms(10, 10, 40, 40)
        pan, _ = pair.read_pan(0, 0, 160, 160)
        seen = degrade(pan, pair.grid, (80, 80), (part.companion.gain,))
        assert valid.all() and ms[1] == pytest.approx(seen[0, 10:50, 10:50], rel=1e-5)
        statistics = pair.statistics()
        assert statistics.ms_mean[1] == pytest.approx(statistics.pan_mean)
        assert statistics.ms_std[1] == pytest.approx(seen.std(), rel=0.02)


# --- what comes out --------------------------------------------------------------------------------------------------


# those that put PAN in the place of a single band make that PAN of it, whatever the band has besides
REPLACING = {"brovey", "gs", "gsa", "bt-h", "pracs"}


@pytest.mark.parametrize("by", ["synthesis", "selection"])
def test_classical_methods_that_add_details_beat_interpolation(by: str, real: dict[str, Any], run: Any) -> None:
    errors = {}
    for method in METHODS:
        out = real["fine"].with_name(f"{method}.tif")
        how = ["--method", method, "--guide-by", by, "--sensor", "S2", "--no-registration-check"]
        result = run("sharpen", "--guide", real["fine"], real["coarse"], "-o", out, *how)
        assert result.exit_code == 0, result.stderr
        errors[method] = np.sqrt((error(read(out), real["truth"]) ** 2).mean())
    worse = {method for method, found in errors.items() if method != "exp" and found >= errors["exp"]}
    assert worse <= REPLACING, errors


def test_the_network_is_better_than_classical_methods(real: dict[str, Any], run: Any) -> None:
    errors = {}
    for name in ("ksdiff", "mtf-glp-hpm-r", "mtf-glp-fs", "bdsd-pc", "exp"):
        out = real["fine"].with_name(f"{name}.tif")
        result = run("sharpen", "--guide", real["fine"], real["coarse"], "-o", out, "--method", name, "--sensor", "S2",
                     "--no-registration-check", "--device", "cpu")  # fmt: skip
        assert result.exit_code == 0, result.stderr
        errors[name] = float(np.sqrt((error(read(out), real["truth"]) ** 2).mean()))
        assert "Explained by the finer bands (R²): B05 ." in result.stderr.replace("0.", ".")
    assert min(errors, key=errors.__getitem__) == "ksdiff" and errors["ksdiff"] < 0.6 * errors["exp"], errors


@pytest.mark.parametrize("by", ["synthesis", "selection"])
def test_so_it_is_at_ratio_4_on_few_pixels_too(by: str, tmp_path: Path, run: Any) -> None:
    cut = np.load(CUT)
    fine = put(tmp_path / "fine.tif", low(cut["m10"], 2, GAINS_10), 10, FINE)  # 72 pixels a side
    truth = cut["m20"].astype(float)  # which are the truth there
    coarse = put(tmp_path / "coarse.tif", low(truth, 4, GAINS_20), 40, COARSE)  # 18 pixels a side
    errors = {}
    for name in ("ksdiff", "mtf-glp-hpm-r", "awlp-r", "exp"):
        out = tmp_path / f"{name}.tif"
        result = run("sharpen", "--guide", fine, coarse, "-o", out, "--method", name, "--sensor", "S2",
                     "--guide-by", by, "--device", "cpu", "--no-registration-check")  # fmt: skip
        assert result.exit_code == 0, result.stderr
        assert "too few" not in result.stderr
        errors[name] = float(np.sqrt((error(read(out), truth) ** 2).mean()))
    assert min(errors, key=errors.__getitem__) == "ksdiff" and errors["ksdiff"] < 0.6 * errors["exp"], errors


def test_below_16_pixels_a_classical_method_takes_over(made: dict[str, Any], tmp_path: Path, run: Any) -> None:
    fine = put(tmp_path / "small.tif", read(made["fine"])[:, :30, :30], 10)
    coarse = put(tmp_path / "few.tif", read(made["coarse"])[:, :15, :15], 20, ("red edge", "swir"))
    result = run("sharpen", "--guide", fine, coarse, "-o", tmp_path / "out.tif", "--no-registration-check")
    assert result.exit_code == 0, result.stderr
    assert "red edge: 15 pixels a side are too few for the network: sharpened by mtf-glp-hpm-r" in result.stderr


@pytest.mark.parametrize("dtype", ["uint16", "int32", "float64"])
def test_finer_bands_go_along_untouched(dtype: str, tmp_path: Path, run: Any) -> None:
    rng = np.random.default_rng(5)
    fine = rng.uniform(1, 2_000_000 if dtype == "int32" else 60_000, (2, 64, 64))
    fine = fine if dtype == "float64" else np.rint(fine)
    files = put(tmp_path / "fine.tif", fine.astype(dtype), 10, ("a", "b")), tmp_path / "coarse.tif"
    put(files[1], low(np.clip(fine[:1], 0, 60_000), 2, (0.3,)).astype(dtype), 20, ("c",))
    more = ["--with-guide", "--method", "gsa", "--no-registration-check"]
    result = run("sharpen", "--guide", files[0], files[1], "-o", tmp_path / "out.tif", *more)
    assert result.exit_code == 0, result.stderr
    with rasterio.open(tmp_path / "out.tif") as file:
        assert file.descriptions == ("a", "b", "c")
        assert np.array_equal(file.read([1, 2]), fine.astype(dtype))


def test_bands_are_chosen_and_ordered(made: dict[str, Any], tmp_path: Path, run: Any, fails: Any) -> None:
    given = [
        "sharpen",
        "--guide",
        made["fine"],
        made["coarse"],
        made["far"],
        "--method",
        "gsa",
        "--no-registration-check",
    ]
    every = tmp_path / "every.tif"
    assert run(*given, "-o", every, "--with-guide").exit_code == 0
    names = ("green", "red", "nir", "red edge", "swir", "far")
    with rasterio.open(every) as file:
        assert file.descriptions == names
        whole = file.read()
    some = tmp_path / "some.tif"
    assert run(*given, "-o", some, "-b", "Far,nir,SWIR").exit_code == 0
    with rasterio.open(some) as file:
        assert file.descriptions == ("far", "nir", "swir")
        assert np.array_equal(file.read(), whole[[5, 2, 4]])
    one = tmp_path / "one.tif"
    assert run(*given, "-o", one, "--groups", "40M").exit_code == 0
    assert np.array_equal(read(one), whole[5:])
    none = tmp_path / "none.tif"
    assert "has no band 'blue'; it has green, red, nir" in fails(*given, "-o", none, "-b", "blue")
    assert "has no band 9, only 1 to 3" in fails(*given, "-o", none, "-b", "9")
    assert "nir is as fine as it gets; choose some of red edge, swir, far too" in fails(*given, "-o", none, "-b", "nir")
    assert "has no group '60m'; it has 20m, 40m" in fails(*given, "-o", none, "--groups", "60m")
    assert not none.exists()


def test_a_band_that_nothing_explains_is_interpolated_and_faint_ones_are_told(tmp_path: Path, run: Any) -> None:
    rng = np.random.default_rng(2)
    from scipy.ndimage import gaussian_filter

    one, other = (1000 + 900 * gaussian_filter(rng.normal(size=(1, 96, 96)), (0, 2, 2)) for _ in range(2))
    fine = put(tmp_path / "fine.tif", np.rint(one).astype("uint16"), 10)
    bands = np.concatenate([low(other, 2, (0.3,)), low((one + 0.7 * (other - 1000)), 2, (0.3,))])
    coarse = put(tmp_path / "coarse.tif", bands, 20, ("alien", "half"))
    outs = tmp_path / "out.tif", tmp_path / "exp.tif"
    for out, method in zip(outs, ("mtf-glp-fs", "exp"), strict=True):
        result = run("sharpen", "--guide", fine, coarse, "-o", out, "--method", method, "--no-registration-check")
        assert result.exit_code == 0, result.stderr
        assert "alien: the finer bands explain .0" in result.stderr and "so it is interpolated (exp)" in result.stderr
        assert "explain less than .80 of half ." in result.stderr.replace("\n", " ")
    sharp, plain = map(read, outs)
    assert np.array_equal(sharp[0], plain[0]) and not np.array_equal(sharp[1], plain[1])


def test_holes_of_any_band_are_holes_of_all(made: dict[str, Any], tmp_path: Path, run: Any) -> None:
    fine, coarse = read(made["fine"]), read(made["coarse"])
    fine[1, 20:30, 40:50] = 0
    coarse[1, 60:70, 10:20] = 0
    files = put(tmp_path / "f.tif", fine, 10, nodata=0), put(tmp_path / "c.tif", coarse, 20, nodata=0)
    outs = tmp_path / "holes.tif", tmp_path / "whole.tif"
    for out, pair in zip(outs, (files, (made["fine"], made["coarse"])), strict=True):
        result = run("sharpen", "--guide", pair[0], pair[1], "-o", out, "--with-guide", "--method", "mtf-glp-fs",
                     "--no-registration-check")  # fmt: skip
        assert result.exit_code == 0, result.stderr
    holes, whole = map(read, outs)
    with rasterio.open(outs[0]) as file:
        assert file.nodata == 0
    empty = np.zeros((160, 160), bool)
    empty[20:30, 40:50] = empty[120:140, 20:40] = True
    assert ((holes == 0) == empty).all()
    far = np.ones_like(empty)
    far[10:40, 30:60] = far[100:160, 0:60] = False
    away = np.abs(holes.astype(int) - whole)[:, far & ~empty]
    assert away.max() < 40  # the scene's coefficients differ a little


@pytest.mark.parametrize("method", ["mtf-glp-hpm-r", "ksdiff"])
def test_windows_and_tiles_give_the_same_pixels(method: str, made: dict[str, Any], tmp_path: Path, run: Any) -> None:
    given = ["sharpen", "--guide", made["fine"], made["coarse"], made["far"], "--with-guide", "--method", method,
             "--no-registration-check", "--device", "cpu"]  # fmt: skip
    whole, tiled, part = (tmp_path / f"{name}.tif" for name in ("whole", "tiled", "part"))
    assert run(*given, "-o", whole).exit_code == 0
    assert run(*given, "-o", tiled, "--tile", "64").exit_code == 0
    result = run(*given, "-o", part, "--window", "32,48,64,80")
    assert result.exit_code == 0, result.stderr
    most = 0 if method != "ksdiff" else 1  # another shape of tile may round otherwise
    assert np.abs(read(tiled).astype(int) - read(whole)).max() <= most
    assert np.abs(read(part).astype(int) - read(whole)[:, 32:96, 48:128]).max() <= most
    with rasterio.open(part) as file:
        assert file.transform @ (0, 0) == (EAST + 480, NORTH - 320)


def test_an_interrupted_run_goes_on(made: dict[str, Any], tmp_path: Path, run: Any, monkeypatch: Any) -> None:
    from ksdiff_cli.sharpening import engine
    from ksdiff_cli.sharpening.job import Job

    monkeypatch.setattr(engine, "QUICK", 0)
    given = ["sharpen", "--guide", made["fine"], made["coarse"], "--with-guide", "--method", "mtf-glp-fs"]
    given += ["--tile", "64", "--no-registration-check"]
    out, straight = tmp_path / "out.tif", tmp_path / "straight.tif"
    assert run(*given, "-o", straight).exit_code == 0
    store, stored = Job.store, []

    def stop(job: Any, number: int, values: Any) -> None:
        if len(stored) == 4:
            raise KeyboardInterrupt
        stored.append(number)
        store(job, number, values)

    monkeypatch.setattr(Job, "store", stop)
    assert run(*given, "-o", out).exit_code != 0 and not out.exists()
    monkeypatch.setattr(Job, "store", store)
    result = run(*given, "-o", out)
    assert "4 of them kept from an interrupted run" in result.stderr
    assert out.read_bytes() == straight.read_bytes()


def test_an_order_to_workers_holds_all_of_it(made: dict[str, Any], tmp_path: Path) -> None:
    from ksdiff_cli.fusers.classical import make_fuser
    from ksdiff_cli.raster.grouped import open_scene
    from ksdiff_cli.sharpening.engine import plan_scene
    from ksdiff_cli.sharpening.worker import pack, unpack

    options = SharpenOptions(registration="skip", with_guide=True)
    scene = choose_guided(sort_files([str(made["fine"])], [str(made["coarse"]), str(made["far"])]), options)
    ready = prepare_guided(scene, make_fuser("ksdiff", device="cpu"), options)
    with open_scene(ready.scene) as pair:
        plan = plan_scene(pair, tmp_path / "out.tif", ready.fuser, options)
        ready.fuser.check(pair.bands, pair.true_ratio)
        statistics = pair.statistics()
        ready.fuser.prepare(pair, statistics)
        seen = plan.seen(0)
        here = ready.fuser.fuse(ready.fuser.read(pair, seen), statistics, 2)
        scene, fuser, known = unpack(pack((ready.scene.renamed(str), ready.fuser, statistics)), lambda: "cpu")
    with open_scene(scene) as other:
        other.recall(known)
        there = fuser.fuse(fuser.read(other, seen), known, 2)
    assert here.shape == (6, 160, 160) and np.array_equal(here, there)


def test_bands_of_other_extents_meet_in_their_common_part(made: dict[str, Any], tmp_path: Path, run: Any) -> None:
    coarse = write_raster(
        tmp_path / "shifted.tif", read(made["coarse"])[:, 10:, 20:], crs="EPSG:32633",
        transform=Affine(20, 0, EAST + 400, 0, -20, NORTH - 200),
    )  # fmt: skip
    outs = tmp_path / "cut.tif", tmp_path / "whole.tif"
    more = ["--method", "exp", "--with-guide", "--no-registration-check"]
    assert run("sharpen", "--guide", made["fine"], coarse, made["far"], "-o", outs[0], *more).exit_code == 0
    assert run("sharpen", "--guide", made["fine"], made["coarse"], made["far"], "-o", outs[1], *more).exit_code == 0
    cut, whole = map(read, outs)
    assert cut.shape == (6, 141, 121)  # a fine pixel less than half a coarse one beside it counts, too
    assert np.array_equal(cut[:3], whole[:3, 19:, 39:]) and np.array_equal(cut[5], whole[5, 19:, 39:])
    assert np.abs(cut.astype(int) - whole[:, 19:, 39:])[:, 8:, 8:].max() <= 1


# --- how people name them --------------------------------------------------------------------------------------------


def one_by_one(made: dict[str, Any], folder: Path) -> dict[str, Path]:
    fine, coarse, far = (read(made[name]) for name in ("fine", "coarse", "far"))
    images = {"B02": (fine[0], 10), "B03": (fine[1], 10), "B05": (coarse[0], 20), "B11": (coarse[1], 20),
              "B01": (far[0], 40)}  # fmt: skip
    return {name: put(folder / f"T33UUB_{name}.tif", image, metres) for name, (image, metres) in images.items()}


def test_bands_are_sorted_by_themselves_where_that_is_clear(made: dict[str, Any], tmp_path: Path, run: Any) -> None:
    files = one_by_one(made, tmp_path / "bands")
    more = ["--method", "gsa", "--no-registration-check"]
    outs = [tmp_path / f"{number}.tif" for number in range(3)]
    mixed = [files[name] for name in ("B05", "B02", "B01", "B11", "B03")]
    fine = ["--guide", files["B02"], files["B03"], files["B05"], files["B11"], files["B01"]]
    for out, given in zip(outs, (mixed, fine, [tmp_path / "bands"]), strict=True):
        result = run("sharpen", *given, "-o", out, *more)
        assert result.exit_code == 0, result.stderr
    with rasterio.open(outs[0]) as file:
        assert file.descriptions == ("B05", "B11", "B01")
        assert file.tags()["KSDIFF_SENSOR"] == "S2"
        assert "B02" in file.tags()["KSDIFF_GUIDE_B05"] and file.tags()["KSDIFF_GUIDE_BY"] == "synthesis"
    assert np.array_equal(read(outs[0]), read(outs[1]))
    assert np.array_equal(read(outs[0]), read(outs[2]))


def test_what_cannot_guide_is_refused_with_the_way_on(made: dict[str, Any], tmp_path: Path, fails: Any) -> None:
    out = tmp_path / "out.tif"
    assert f"--guide {made['fine']}" in fails("sharpen", made["fine"], made["coarse"], "-o", out)
    assert "is coarser than" in fails("sharpen", "--guide", made["coarse"], made["fine"], "-o", out)
    assert "nothing is left to sharpen" in fails("sharpen", "--guide", made["fine"], made["fine"], "-o", out)
    void = put(tmp_path / "void.tif", 0 * read(made["coarse"]), 20, nodata=0)
    assert f"{void}: holds no data where its guide" in fails("sharpen", "--guide", made["fine"], void, "-o", out)
    between = put(tmp_path / "between.tif", read(made["coarse"]), 12.5)
    assert "1.25 times those of" in fails("sharpen", "--guide", made["fine"], between, "-o", out)
    assert "--adapt: goes with PAN and MS" in fails(
        "sharpen", "--guide", made["fine"], made["coarse"], "-o", out, "--adapt", "1"
    )
    pan = put(tmp_path / "pan.tif", read(made["fine"])[:1], 10)
    assert "has PAN, by which MS is sharpened; leave out --groups" in fails(
        "sharpen", pan, made["coarse"], "-o", out, "--groups", "20m"
    )
    assert not out.exists()


def test_pan_stored_as_three_equal_bands_is_pan(made: dict[str, Any], tmp_path: Path, run: Any) -> None:
    band = read(made["fine"])[:1]
    files = put(tmp_path / "pan.tif", band, 10), put(tmp_path / "rgb.tif", np.repeat(band, 3, 0), 10)
    outs = [tmp_path / "one.tif", tmp_path / "three.tif"]
    for pan, out in zip(files, outs, strict=True):
        result = run("sharpen", pan, made["coarse"], "-o", out, "--method", "gsa", "--no-registration-check")
        assert result.exit_code == 0, result.stderr
    assert np.array_equal(*map(read, outs))


def test_metrics_compare_with_a_truth_and_take_no_guide_for_pan(real: dict[str, Any], run: Any, fails: Any) -> None:
    out = real["fine"].with_name("out.tif")
    more = ["--method", "mtf-glp-fs", "--sensor", "S2", "--no-registration-check"]
    assert run("sharpen", "--guide", real["fine"], real["coarse"], "-o", out, *more).exit_code == 0
    truth = put(real["fine"].with_name("truth.tif"), real["truth"], 20, COARSE)
    found = json.loads(run("metrics", out, "--reference", truth, "--ratio", "2", "--json").stdout)
    assert found["ERGAS"] == pytest.approx(ergas(real["truth"], read(out).astype(float), 2), rel=1e-6)
    message = fails("metrics", out, "--pan", real["fine"], "--ms", real["coarse"])
    assert "has 4 bands, PAN has one" in message and f"--guide {real['fine']}" in message


def test_each_band_is_measured_against_its_own_guide(made: dict[str, Any], tmp_path: Path, run: Any) -> None:
    from ksdiff_cli.metrics import d_rho, reprojection

    out, fine = tmp_path / "out.tif", read(made["fine"]).astype(float)
    bands = [low(made["truth"][name], 1, (0.3,)) for name in ("red edge", "swir")]
    bands = [bands[0], np.rint(bands[1] + np.random.default_rng(1).normal(0, 20, bands[1].shape)).astype("uint16")]
    put(out, np.concatenate([fine[:1].astype("uint16"), *bands[::-1]]), 10, ("green", "swir", "red edge"))
    given = ["metrics", out, "--guide", made["fine"], "--ms", made["coarse"]]
    result = run(*given, "--json")
    assert result.exit_code == 0, (result.stderr, result.exception)
    found = json.loads(result.stdout)
    guides = find_guides(sort_files([str(made["fine"])], [str(made["coarse"])]), sort_files(
        [str(made["fine"])], [str(made["coarse"])]).groups[0])  # fmt: skip
    by_hand = {}
    for name, guide, fused, ms in zip(("red edge", "swir"), guides, bands, read(made["coarse"]), strict=True):
        pan = (np.tensordot(guide.mix.weights, fine, 1) + guide.mix.offset).astype(np.float32).astype(float)
        seen = reprojection(fused.astype(float), ms[None].astype(float), (0.3,), 2, pan=pan)
        by_hand[name] = {
            "R_Q2n": seen["R_Q2n"],
            "R_ERGAS": seen["R_ERGAS"],
            "D_rho": d_rho(fused.astype(float), pan, 2),
        }
        for figure, value in by_hand[name].items():
            assert found["by_band"][name][figure] == pytest.approx(value, rel=1e-5), (name, figure)
        assert found["by_band"][name]["R2"] == guide.r2 and found["by_band"][name]["ratio"] == 2
    assert list(found["by_band"]) == ["swir", "red edge"] and found["bands"] == 2
    assert found["D_rho"] == pytest.approx(np.mean([one["D_rho"] for one in by_hand.values()]), rel=1e-5)
    # an error of R-ERGAS by hand: 100 / ratio * RMSE / mean, seen through the camera
    seen = degrade(bands[1].astype(np.float32), corner_aligned(2), (80, 80), (0.3,))[0]
    ms, inside = read(made["coarse"])[1].astype(float), np.s_[8:-8, 8:-8]
    expected = 100 / 2 * np.sqrt(((seen - ms)[inside] ** 2).mean()) / ms[inside].mean()
    assert found["by_band"]["swir"]["R_ERGAS"] == pytest.approx(expected, rel=0.1)
    assert by_hand["red edge"]["D_rho"] < 0.02 < by_hand["swir"]["D_rho"]  # whose noise no guide shows
    page = tmp_path / "page.html"
    shown = run(*given, "--report", page)
    assert "R² of its guide" in shown.stdout and "swir" in shown.stdout and "Mean over bands" in shown.stdout
    assert "red edge" in page.read_text(encoding="utf-8")


def test_methods_are_compared_on_each_band(made: dict[str, Any], tmp_path: Path, run: Any, fails: Any) -> None:
    given = ["evaluate", made["fine"], made["coarse"], "--method", "exp", "--method", "mtf-glp-fs"]
    fine = [put(tmp_path / f"{number}.tif", band[None], 10) for number, band in enumerate(read(made["fine"]))]
    given[1:2] = fine
    table, page = tmp_path / "table.csv", tmp_path / "page.html"
    result = run(*given, "--protocol", "full", "--json", "--csv", table, "--report", page)
    assert result.exit_code == 0, (result.stderr, result.exception)
    found = json.loads(result.stdout)["methods"]
    assert list(found) == ["exp", "mtf-glp-fs", "ksdiff"] and list(found["exp"])[:3] == ["R_Q2n", "R_ERGAS", "D_rho"]
    out = tmp_path / "out.tif"
    more = ["--method", "mtf-glp-fs", "--no-registration-check"]
    assert run("sharpen", *fine, made["coarse"], "-o", out, *more).exit_code == 0
    guides = [word for path in fine for word in ("--guide", path)]
    alone = json.loads(run("metrics", out, *guides, "--ms", made["coarse"], "--json").stdout)
    for figure in ("R_Q2n", "R_ERGAS", "D_rho"):
        assert found["mtf-glp-fs"][figure]["mean"] == pytest.approx(alone[figure], rel=1e-6)
    assert found["mtf-glp-fs"]["D_rho"]["mean"] < found["exp"]["D_rho"]["mean"]
    rows = table.read_text(encoding="utf-8").splitlines()
    assert len(rows) == 7 and "red edge,0," in rows[1] and "swir" in page.read_text(encoding="utf-8")
    assert "whole image" in page.read_text(encoding="utf-8")
    assert "patch files" in fails(*given, "--draws", 2)


def test_methods_are_compared_one_scale_below(made: dict[str, Any], tmp_path: Path, run: Any, fails: Any) -> None:
    """The way on which the product looks is the same that a whole image in memory would go."""
    fine = [put(tmp_path / f"{number}.tif", band[None], 10) for number, band in enumerate(read(made["fine"]))]
    given = ["evaluate", *fine, made["coarse"], made["far"], "--method", "exp", "--method", "mtf-glp-fs", "--json"]
    page = tmp_path / "page.html"
    result = run(*given, "--csv", tmp_path / "table.csv", "--report", page)
    assert result.exit_code == 0, (result.stderr, result.exception)
    assert all(f"{size}, whole image" in page.read_text(encoding="utf-8") for size in ("20m", "40m"))
    found = json.loads(result.stdout)
    assert found["protocol"] == "reduced" and found["images"] == 2
    rows = [line.split(",") for line in (tmp_path / "table.csv").read_text(encoding="utf-8").splitlines()]
    assert [row[1].split()[-1] for row in rows[1:3]] == ["20m", "40m"]
    values = {(row[0], row[1].split()[-1]): float(row[rows[0].index("ERGAS")]) for row in rows[1:]}
    assert values["mtf-glp-fs", "20m"] < 0.3 * values["exp", "20m"]
    truth = read(made["coarse"])
    below = put(tmp_path / "below" / "coarse.tif", low(truth, 2, (0.3,) * 2), 40)
    guides = put(tmp_path / "below" / "fine.tif", low(read(made["fine"]), 2, (0.3,) * 3), 20)
    out = tmp_path / "below" / "out.tif"
    assert run("sharpen", "--guide", guides, below, "-o", out, "--method", "mtf-glp-fs").exit_code == 0
    # that one was rounded to whole DN on its way
    assert values["mtf-glp-fs", "20m"] == pytest.approx(
        ergas(truth.astype(float), read(out).astype(float), 2), abs=0.02
    )
    odd = put(tmp_path / "odd.tif", read(made["far"])[:, :34, :34], 25)
    assert "whole number" in fails("evaluate", *fine, odd)
    small = put(tmp_path / "small.tif", read(made["far"])[:, :20, :20], 40)
    both = run("evaluate", *fine, made["coarse"], small, "--method", "exp", "--json")
    assert both.exit_code == 0 and json.loads(both.stdout)["images"] == 1 and "left out: " in both.stderr


def test_what_lies_one_scale_below_keeps_holes_and_has_no_seams(made: dict[str, Any], tmp_path: Path) -> None:
    from ksdiff_cli.evaluation import reduced

    coarse = read(made["coarse"]).astype(float)
    coarse[:, 20:23, 30] = np.nan
    holes = put(tmp_path / "holes.tif", coarse, 20, ("red edge", "swir"))
    scene = sort_files([str(made["fine"])], [str(holes)])
    whole = reduced.reduce_group(scene, scene.groups[0], tmp_path / "whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reduced, "_BLOCK", 16)
        parts = reduced.reduce_group(scene, scene.groups[0], tmp_path / "parts")
    assert np.array_equal(read(whole.truth), coarse, equal_nan=True)
    for name in ("fine", "coarse", "truth"):
        one, other = (read(folder / f"{name}.tif") for folder in (tmp_path / "whole", tmp_path / "parts"))
        assert np.array_equal(one, other, equal_nan=True), name
    made_below = read(tmp_path / "whole" / "coarse.tif")
    assert made_below.shape == (2, 40, 40)
    empty = np.isnan(made_below[0])
    assert empty[10:12, 15].all() and empty.sum() < 60
    assert np.isfinite(read(tmp_path / "whole" / "fine.tif")).all() and parts.ratio == 2


def test_bands_to_measure_are_told_by_name_or_order(made: dict[str, Any], tmp_path: Path, run: Any, fails: Any) -> None:
    out, more = tmp_path / "out.tif", ["--guide", made["fine"], "--guide", made["far"], "--ms", made["coarse"]]
    bands = np.concatenate([low(made["truth"][name], 1, (0.3,)) for name in ("red edge", "swir", "aerosol")])
    put(out, bands, 10)
    result = run("metrics", out, *more, "--json")
    assert result.exit_code == 0, (result.stderr, result.exception)
    found = json.loads(result.stdout)
    assert list(found["by_band"]) == ["red edge", "swir", "far"]
    assert [one["ratio"] for one in found["by_band"].values()] == [2, 2, 4] and found["ratios"] == "2 4"
    assert found["R_Q2n"] > 0.99 and found["R_ERGAS"] < 0.5
    put(out, bands[:2], 10, ("a", "b"))
    assert "none of its 2 bands is called as the coarser ones are (red edge, swir, far)" in fails("metrics", out, *more)
    for wrong in (["--pan", made["fine"]], ["--maps", tmp_path / "maps"], ["--reference", made["fine"]]):
        assert run("metrics", out, *more, *wrong).exit_code == 2


# --- groups that products hold besides -------------------------------------------------------------------------------


def landsat(folder: Path) -> Path:
    """Lay out a level-1 product whose thermal bands, seen at 90 m, are mixes of those of 30 m."""
    from scipy.ndimage import gaussian_filter

    rng, product = np.random.default_rng(4), "LC08_L1TP_017051_20151205_20200908_02_T1"
    fine = 8000 + 9000 * np.stack([gaussian_filter(each, 2) for each in rng.normal(size=(6, 122, 122))])
    for band, image in zip("234567", fine, strict=True):
        put(folder / f"{product}_B{band}.TIF", np.rint(image).astype("uint16"), 30)
    pan = fine[:3].mean(0).repeat(2, 0).repeat(2, 1)
    put(folder / f"{product}_B8.TIF", np.rint(pan).astype("uint16"), 15)
    for band, weights in (("10", (0.1, 0, 0.3, -0.2, 0.4, 0.4)), ("11", (0, 0, 0, 0, 0.5, 0.5))):
        warm = 20000 + np.tensordot(weights, fine, 1)
        seen = warm[:120, :120].reshape(40, 3, 40, 3).mean((1, 3)).repeat(3, 0).repeat(3, 1)
        whole = np.pad(seen, ((0, 2), (0, 2)), mode="edge")
        put(folder / f"{product}_B{band}.TIF", np.rint(whole).astype("uint16"), 30)
    flags = np.full((122, 122), 1 << 6, "uint16")
    put(folder / f"{product}_QA_PIXEL.TIF", flags, 30)
    return folder


def test_landsats_thermal_bands_by_those_of_30_m(tmp_path: Path, run: Any, fails: Any) -> None:
    product, out = landsat(tmp_path / "scene"), tmp_path / "out.tif"
    assert "groups besides: thermal" in run("info", product).stdout
    result = run("sharpen", product, "-o", out, "--groups", "thermal", "--method", "mtf-glp-fs")
    assert result.exit_code == 0, result.stderr
    assert "Explained by the finer bands (R²): tir1 0.9" in result.stderr
    with rasterio.open(out) as file:
        assert file.descriptions == ("tir1", "tir2") and file.res == (30, 30) and file.dtypes == ("uint16",) * 2
        made = file.read(2).astype(float)
    fine = [read(next(product.glob(f"*_B{band}.TIF")))[0].astype(float) for band in "67"]
    truth, delivered = 20000 + np.mean(fine, 0), read(next(product.glob("*_B11.TIF")))[0].astype(float)
    inside = np.s_[9:-12, 9:-12]
    rows, cols = made.shape
    errors = [np.abs(one[:rows, :cols] - truth[:rows, :cols])[inside].mean() for one in (made, delivered)]
    assert errors[0] < 0.5 * errors[1]
    assert "leave out --groups (it has thermal)" in fails(
        "sharpen", product, "-o", tmp_path / "x.tif", "--groups", "swir"
    )
    assert run("sharpen", product, "-o", tmp_path / "ms.tif", "--method", "gsa").exit_code == 0
    with rasterio.open(tmp_path / "ms.tif") as file:
        assert file.count == 6 and file.res == (15, 15)


def test_worldview_3_short_wave_infrared_by_ms(tmp_path: Path, run: Any) -> None:
    import products_maker as products

    product, out = products.maxar(tmp_path, "WV03", parts=("PAN", "MUL", "SWIR")), tmp_path / "out.tif"
    assert "groups besides: swir" in run("info", product).stdout
    more = ["--method", "exp", "--no-registration-check"]
    result = run("sharpen", product, "-o", out, "--groups", "swir", *more)
    assert result.exit_code == 0, result.stderr
    with rasterio.open(out) as file:
        assert file.descriptions == tuple(f"swir{number}" for number in range(1, 9)) and file.res == (2, 2)
    alone = products.maxar(tmp_path / "alone", "WV03", parts=("MUL", "SWIR"))
    assert (
        run("sharpen", alone, "-o", tmp_path / "two.tif", "--method", "exp", "--no-registration-check").exit_code == 0
    )
    assert np.array_equal(read(out), read(tmp_path / "two.tif"))


def test_the_network_brings_short_wave_infrared_to_ms(tmp_path: Path, run: Any) -> None:
    import products_maker as products
    from scipy.ndimage import gaussian_filter

    rng, product = np.random.default_rng(6), tmp_path / "15SEP01_01"
    for part, names, band_id, pixel, size in (
        ("M", products.EIGHT, "Multi", 2.0, 192), ("A", [f"S{number}" for number in range(1, 9)], "All-S", 8.0, 48)
    ):  # fmt: skip
        folder = product / ("MUL" if part == "M" else "SWIR")
        products.maxar_image(folder, f"15SEP01-{part}2AS-{products.ORDER}_P001", "WV03", names, band_id, pixel, size, 1)
    ms = 600 + 900 * np.stack([gaussian_filter(each, 1.5, mode="wrap") for each in rng.normal(size=(8, 192, 192))])
    truth = np.stack([700 + np.tensordot(rng.normal(0, 0.4, 8), ms - 600, 1) for _ in range(8)]).clip(1)
    for name, image in (("MUL", ms), ("SWIR", low(truth, 4, (0.3,) * 8))):
        with rasterio.open(next((product / name).glob("*.TIF")), "r+") as file:
            file.write(np.rint(image.clip(1)).astype("uint16"))
    found = {}
    for method in ("ksdiff", "exp"):
        result = run("sharpen", product, "-o", tmp_path / f"{method}.tif", "--groups", "swir", "--method", method)
        assert result.exit_code == 0, result.stderr
        assert "Explained by the finer bands (R²): swir1" in result.stderr
        found[method] = float(error(read(tmp_path / f"{method}.tif"), truth, 12).mean())
    assert found["ksdiff"] < 0.5 * found["exp"], found
