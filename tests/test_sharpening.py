from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from conftest import PairFiles, World, measure_shift, read
from rasterio.transform import Affine
from scipy.ndimage import uniform_filter

from ksdiff_cli.errors import KsdiffError
from ksdiff_cli.fusers.base import Fuser
from ksdiff_cli.fusers.classical import Network, Upsampling, make_fuser
from ksdiff_cli.numerics.moments import SceneStatistics
from ksdiff_cli.options.sharpening import SharpenOptions
from ksdiff_cli.output.writer import new_raster
from ksdiff_cli.products import make_pair as scene_of
from ksdiff_cli.raster.tiles import Tile
from ksdiff_cli.sharpening.engine import Sharpened, sharpen_scene

Array = Any


class PanDetail(Fuser):
    """A local stand-in for a network: PAN's value in every band, so that any leak of a wrong pixel shows."""

    def fuse(self, tile: Tile, statistics: SceneStatistics, ratio: int) -> Array:
        return np.repeat(tile.pan, len(tile.ms_up), axis=0)

    def bytes_per_pixel(self, bands: int) -> int:
        return 8 * bands

    def provenance(self) -> Mapping[str, str]:
        return {"METHOD": "fake"}


class Broken(PanDetail):
    """A method that fails half-way through a scene."""

    def __init__(self, error: BaseException) -> None:
        self.calls, self.error = 0, error

    def fuse(self, tile: Tile, statistics: SceneStatistics, ratio: int) -> Array:
        self.calls += 1
        if self.calls > 2:
            raise self.error
        return tile.ms_up


def sharpen(files: PairFiles, fuser: Any = None, name: str = "out.tif", **options: Any) -> Sharpened:
    scene = scene_of(str(files.pan), [str(files.ms)])
    return sharpen_scene(
        scene, files.folder / name, fuser or Upsampling(), SharpenOptions(**{"fidelity": False, **options})
    )


def test_the_measure_itself_sees_a_shift(world: World) -> None:
    still = world.at(Affine(0.5, 0, 0, 0, -0.5, 0), 256, 256)
    moved = world.at(Affine(0.5, 0, -0.15, 0, -0.5, -0.05), 256, 256)  # content .3 pixels right, .1 up
    down, right = measure_shift(still, moved, 0.06)
    assert right == pytest.approx(0.3, abs=0.02)
    assert down == pytest.approx(-0.1, abs=0.02)


@pytest.mark.parametrize("folder", ["wv3_georef", "landsat_istanbul", "landsat8_tiny"])
def test_real_grids_with_offsets_come_out_on_pans_grid(folder: str, real_data: Any, tmp_path: Path) -> None:
    from ksdiff_cli.products import find_scenes

    (scene,) = find_scenes(real_data(folder))
    made = sharpen_scene(scene, tmp_path / "out.tif", Upsampling())
    with rasterio.open(made.output) as out, rasterio.open(scene.pan.path) as pan:
        assert out.crs == pan.crs
        assert out.transform.almost_equals(pan.transform)
        assert out.shape == pan.shape
        if folder != "wv3_georef":  # whose bands lie up to two pixels apart from each other
            shift = measure_shift(pan.read(1).astype(float), out.read()[:3].mean(0, dtype=float), 0.17)
            assert max(map(abs, shift)) < 0.1


@pytest.mark.parametrize("fuser", [Upsampling(), PanDetail()])
def test_the_cut_does_not_show(fuser: Any, make_pair: Any) -> None:
    def dig(pan: Array, ms: Array) -> None:
        pan[:, 50:90, 70:100] = 0
        ms[:, 30:40, 30:50] = 0

    files = make_pair(size=(192, 300), dtype="float32", edit=dig, pan_profile={"nodata": 0}, ms_profile={"nodata": 0})
    whole = read(sharpen(files, fuser, "whole.tif").output)
    for tile in (64, 112):
        parts = read(sharpen(files, fuser, f"{tile}.tif", tile=tile).output)
        np.testing.assert_allclose(parts, whole, rtol=1e-5)


@pytest.mark.parametrize(("backbone", "says"), [("hfin", "pieces of 64 px"), ("ctinn", "the scene's, by its anchors")])
def test_networks_that_see_an_image_as_a_whole_show_no_cut(
    backbone: str, says: str, make_pair: Any, tmp_path: Path
) -> None:
    """Windows of 112 start beside the grid of HFIN's pieces: what is read for them does not."""
    torch = pytest.importorskip("torch")
    from ksdiff_cli.models.checkpoint import save_model
    from ksdiff_cli.models.config import ModelConfig
    from ksdiff_cli.models.ksdiff import KSDiff

    torch.manual_seed(0)
    model = KSDiff(ModelConfig(backbone=backbone, bands=2, prior=False, features=8))
    with torch.no_grad():
        model.network.refine.leave.base.weight.mul_(60)  # networks start with hardly any effect
    files, file = make_pair(size=(80, 140), bands=2), tmp_path / "weights.safetensors"
    save_model(model, file, sensor={}, training={})
    made = [sharpen(files, Network(file, "cpu"), f"{tile}.tif", tile=tile).output for tile in (256, 112)]
    whole, parts = (read(path).astype(int) for path in made)
    assert np.abs(parts - whole).max() <= 1
    with rasterio.open(made[0]) as dataset:
        assert says in dataset.tags()["KSDIFF_GLOBAL"]


def test_holes_stay_holes_and_nothing_leaks(make_pair: Any) -> None:
    def dig(pan: Array, ms: Array) -> None:
        pan[:, 10:30, 15:45] = 0
        ms[1, 12:18, 20:26] = 0

    files = make_pair(edit=dig, pan_profile={"nodata": 0}, ms_profile={"nodata": 0})
    clean = make_pair("clean")
    for fuser in (Upsampling(), PanDetail()):
        made = sharpen(files, fuser, tile=64, overwrite=True)
        expected = np.ones((96, 128), bool)
        expected[10:30, 15:45] = False
        expected[48:72, 80:104] = False
        with rasterio.open(made.output) as out:
            image, masks = out.read(), out.read_masks() > 0
        assert (masks == expected).all()
        truth = read(sharpen(clean, fuser, tile=64, overwrite=True).output).astype(float)
        # a hole counted as DN 0 would pull its neighbours down by half
        assert np.abs(image - truth)[:, expected].max() < 0.12 * truth.max()


@pytest.mark.parametrize("error", [RuntimeError("no memory"), KeyboardInterrupt(), KsdiffError("bad")])
def test_failure_half_way_leaves_the_old_output_and_the_finished_windows(error: BaseException, make_pair: Any) -> None:
    files = make_pair(size=(300, 280))
    (files.folder / "out.tif").write_bytes(b"old")
    with pytest.raises(type(error)) as caught:
        sharpen(files, Broken(error), tile=64, overwrite=True)
    names = sorted(path.name for path in files.folder.iterdir())
    assert names == [".out.tif.shards", "ms.tif", "out.tif", "pan.tif"]
    assert (files.folder / "out.tif").read_bytes() == b"old"
    if isinstance(error, KsdiffError):
        assert str(caught.value) == "bad; 2 finished windows are kept: the same command goes on"


def test_failure_before_the_first_window_leaves_nothing(make_pair: Any) -> None:
    files, fuser = make_pair(size=(300, 280)), Broken(RuntimeError("no memory"))
    fuser.calls = 2
    with pytest.raises(RuntimeError):
        sharpen(files, fuser, tile=64)
    assert sorted(path.name for path in files.folder.iterdir()) == ["ms.tif", "pan.tif"]


def test_values_that_are_no_numbers_are_refused(make_pair: Any) -> None:
    class Nan(PanDetail):
        def fuse(self, tile: Tile, statistics: SceneStatistics, ratio: int) -> Array:
            return tile.ms_up * np.nan

    with pytest.raises(KsdiffError, match="no numbers"):
        sharpen(make_pair(), Nan())


def test_the_scene_statistics_reach_the_method(make_pair: Any) -> None:
    seen = []

    class Watching(PanDetail):
        def fuse(self, tile: Tile, statistics: SceneStatistics, ratio: int) -> Array:
            seen.append((statistics, ratio))
            return tile.ms_up

    files = make_pair(size=(192, 192))
    sharpen(files, Watching(), tile=64)
    assert len(seen) == 9
    assert {id(statistics) for statistics, _ in seen} == {id(seen[0][0])}
    assert seen[0][1] == 4
    assert seen[0][0].pan_mean == pytest.approx(read(files.pan).mean())


def test_progress_ends_at_its_total(make_pair: Any) -> None:
    files, told = make_pair(size=(192, 192)), []
    scene = scene_of(str(files.pan), [str(files.ms)])
    sharpen_scene(
        scene, files.folder / "out.tif", Upsampling(), SharpenOptions(tile=64),
        lambda done, total, note="": told.append((done, total, note)),
    )  # fmt: skip
    assert list(dict.fromkeys(note for *_, note in told)) == ["statistics", "windows", "output"]
    assert (9, 9, "windows") in told
    assert told[-1][0] == told[-1][1]


def test_one_pixel_wide_scene(make_pair: Any) -> None:
    made = sharpen(make_pair(size=(4, 200), ms_size=(1, 50)), tile=64)
    assert read(made.output).shape == (4, 4, 200)


@pytest.mark.parametrize("format", ["GTiff", "COG"])
def test_gdal_takes_the_threads_it_is_given_and_the_bytes_do_not_tell(format: str, make_pair: Any) -> None:
    from rasterio._env import get_gdal_config

    files, found = make_pair(size=(300, 560)), []

    class Asking(PanDetail):
        def fuse(self, tile: Tile, statistics: SceneStatistics, ratio: int) -> Array:
            found.append(get_gdal_config("GDAL_NUM_THREADS"))
            return super().fuse(tile, statistics, ratio)

    made = [
        sharpen(files, Asking(), f"out{threads}.tif", format=format, tile=256, threads=threads).output.read_bytes()
        for threads in (None, 1, 3)
    ]
    assert len(set(made)) == 1
    assert list(dict.fromkeys(found)) == [None, 1, 3]


def test_the_command_line_bounds_gdals_threads(make_pair: Any, run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    files, seen = make_pair(), []

    def watch(*arguments: Any, **more: Any) -> Any:
        seen.append(rasterio.env.getenv()["GDAL_NUM_THREADS"])
        return new_raster(*arguments, **more)

    monkeypatch.setattr("ksdiff_cli.sharpening.engine.new_raster", watch)
    done = run("sharpen", files.pan, files.ms, "-o", files.folder / "out.tif", "--method", "exp", "--threads", 3)
    assert (done.exit_code, seen) == (0, ["3"]), done.output


def test_exp_needs_no_torch() -> None:
    assert isinstance(make_fuser("exp"), Upsampling)


def test_network_through_its_contract(make_pair: Any, tmp_path: Path, run: Any) -> None:
    pytest.importorskip("torch")
    from ksdiff_cli.models.checkpoint import save_model
    from ksdiff_cli.models.config import ModelConfig
    from ksdiff_cli.models.ksdiff import KSDiff

    small = {"width": 8, "encoder_width": 8, "latent": 8, "tokens": 4, "denoiser_width": 16}
    config = ModelConfig(bands=4, depths=(1, 1, 1), **small)
    for stage in (1, 2):
        save_model(
            KSDiff(config, stage), tmp_path / f"stage{stage}.safetensors", sensor={"name": "generic"}, training={}
        )
    files = make_pair(size=(100, 120))
    out = tmp_path / "out.tif"
    base = ("sharpen", files.pan, files.ms, "-o", out, "--device", "cpu", "--threads", 1, "--tile", 64)
    done = run(*base, "--checkpoint", tmp_path / "stage2.safetensors", "--seed", 3)
    assert done.exit_code == 0, done.output
    with rasterio.open(out) as dataset:
        assert dataset.shape == (100, 120)
        assert dataset.tags()["KSDIFF_SEED"] == "3"
        assert len(dataset.tags()["KSDIFF_WEIGHTS"]) == 12
        image = dataset.read()
    assert image.std() > 0
    out.unlink()
    refused = run(*base, "--checkpoint", tmp_path / "stage1.safetensors")
    assert (refused.exit_code, "stage 2" in refused.stderr) == (1, True)
    too_few = run(*base, "--checkpoint", tmp_path / "stage2.safetensors", "-b", "1,2")
    assert (too_few.exit_code, "4 MS bands" in too_few.stderr) == (1, True)
    assert not out.exists()


def test_command_line(make_pair: Any, run: Any) -> None:
    files = make_pair()
    out = files.folder / "out.tif"
    how = ("-o", out, "--method", "exp", "-t", "float32")
    done = run("sharpen", files.pan, files.ms, *how, "-b", "3,1", "--co", "COMPRESS=LZW")
    assert done.exit_code == 0, done.output
    assert done.stdout == ""
    assert "128 x 96 pixels, 2 bands, float32" in done.stderr.replace("\n", " ")
    assert "Windows of 2048 pixels: 1; memory up to 0." in done.stderr
    with rasterio.open(out) as dataset:
        assert (dataset.count, dataset.dtypes[0], dataset.compression.name) == (2, "float32", "lzw")
        first = dataset.read()
    again = run("sharpen", files.folder, *how, "-b", 3, "-b", 1, "-q", "--overwrite")
    assert (again.exit_code, again.output) == (0, "")
    np.testing.assert_array_equal(read(out), first)
    np.testing.assert_allclose(first[0], first[1] * 3, rtol=0.01)


def test_the_seam_score_is_told_and_kept(make_pair: Any, run: Any) -> None:
    files = make_pair(size=(256, 256), dtype="float32")
    base = ("sharpen", files.pan, files.ms, "-o", files.folder / "out.tif", "--method", "exp", "--seam-report")
    assert "Seam score: none" in run(*base).stdout
    done = run(*base, "--tile", 64, "--overwrite")
    with rasterio.open(files.folder / "out.tif") as out:
        kept = float(out.tags()["KSDIFF_SEAM_SCORE"])
        assert out.tags()["KSDIFF_TILE"] == "64"
    assert f"Seam score: {kept:.3f}" in done.stdout
    assert kept == pytest.approx(1, abs=0.05)  # of a few hundred pixels only


def test_a_part_of_the_scene_is_that_part_of_the_whole(make_pair: Any) -> None:
    files = make_pair(size=(300, 280))
    whole = sharpen(files, PanDetail(), "whole.tif", tile=64)
    part = sharpen(files, PanDetail(), "part.tif", tile=64, window=(70, 100, 150, 61))
    np.testing.assert_array_equal(read(part.output), read(whole.output)[:, 70:220, 100:161])
    assert (part.shape, part.windows, whole.windows) == ((150, 61), 6, 25)
    with rasterio.open(part.output) as out, rasterio.open(whole.output) as all_of_it:
        assert out.transform.almost_equals(all_of_it.transform @ Affine.translation(100, 70))


def test_a_margin_wider_than_a_window(make_pair: Any) -> None:
    class Wide(PanDetail):
        """Sees 100 pixels around each: the mean of a square."""

        def reach(self, ratio: int) -> int:
            return 100

        def fuse(self, tile: Tile, statistics: SceneStatistics, ratio: int) -> Array:
            return np.stack([uniform_filter(band, 201, mode="nearest") for band in tile.ms_up])

    files = make_pair(size=(150, 140), dtype="float32")
    expected = Wide().fuse(Tile(None, read(sharpen(files, name="exp.tif").output), None), None, 4)  # type: ignore[arg-type]
    for tile in (64, 512):
        found = read(sharpen(files, Wide(), f"{tile}.tif", tile=tile).output)
        np.testing.assert_allclose(found, expected, rtol=1e-4)
