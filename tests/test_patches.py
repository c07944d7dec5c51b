"""prepare-data: patches equal their definition, splits share no pixel, and nothing half-written is left behind."""

import json
import shutil
import signal
import weakref
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from conftest import write_raster
from rasterio.transform import Affine
from scipy.ndimage import minimum_filter

from ksdiff_cli.errors import KsdiffError
from ksdiff_cli.numerics.grids import corner_aligned, degrade, upsample
from ksdiff_cli.options.patches import PatchOptions
from ksdiff_cli.patches.area import reach
from ksdiff_cli.patches.layout import SPLITS, common_side, lay_regions, windows
from ksdiff_cli.patches.prepare import prepare_patches
from ksdiff_cli.patches.sources import PairSource
from ksdiff_cli.raster.bands import BandSource
from ksdiff_cli.raster.pair import Scene, open_pair
from ksdiff_cli.sensors import find_sensor


def place(pixel: float, offset: float = 0.0) -> dict[str, Any]:
    """Return a grid whose outer corner lies ``offset`` metres right of and below the origin."""
    return {"crs": "EPSG:32632", "transform": Affine(pixel, 0, 5e5 + offset, 0, -pixel, 4e6 - offset)}


def make_scene(folder: Path, size=(128, 128), bands=3, ratio=4, offset=0.0, hole=None, seed=0) -> Path:
    """Write pan.tif and ms.tif of noise; PAN's corner is shifted by ``offset`` PAN pixels."""
    random = np.random.default_rng(seed)
    ms = random.integers(100, 1000, (bands, *size)).astype(np.uint16)
    if hole is not None:
        ms[:, *hole] = 0
    pan = random.integers(100, 1000, (1, size[0] * ratio, size[1] * ratio)).astype(np.uint16)
    write_raster(folder / "pan.tif", pan, **place(1.0, offset))
    write_raster(folder / "ms.tif", ms, **place(ratio), nodata=None if hole is None else 0)
    return folder


def scene_of(folder: Path, bands: int, sensor: str | None = None) -> Scene:
    ms = tuple(BandSource(str(folder / "ms.tif"), band) for band in range(1, bands + 1))
    return Scene("scene", BandSource(str(folder / "pan.tif")), ms, find_sensor(sensor))


def prepare(folder: Path, output: Path, **options):
    return prepare_patches(PatchOptions((folder,), output, **{"patch": 16, **options}))


def files(output: Path) -> list[Path]:
    return sorted(output.glob("*.h5"))


@pytest.mark.parametrize("shape", [(128, 128), (320, 320), (128, 64), (64, 200), (399 // 2 * 2, 396), (3000, 1400)])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_blocks_of_splits_share_no_pixel_and_keep_their_guard(shape, seed) -> None:
    guard = 24 if min(shape) >= 320 else 0  # smaller scenes have no room for it
    regions = lay_regions("scene", shape, 64, 4, 24, seed)
    owner = np.zeros(shape, int)
    for number, split in enumerate(SPLITS, start=1):
        for rect in regions[split]:
            assert rect.top >= 0 and rect.left >= 0
            assert rect.top + rect.height <= shape[0] and rect.left + rect.width <= shape[1]
            part = owner[rect.top : rect.top + rect.height, rect.left : rect.left + rect.width]
            assert not part.any(), "a pixel belongs to two blocks"
            part[...] = number
    for rect in regions["valid"] + regions["test"]:
        around = owner[max(0, rect.top - guard) : rect.top + rect.height + guard]
        around = around[:, max(0, rect.left - guard) : rect.left + rect.width + guard]
        assert set(np.unique(around)) <= {0, owner[rect.top, rect.left]}
    for split in ("train", "valid"):
        assert any(cols for rect in regions[split] for _, cols in windows(rect, 64, 32, 4)), f"no {split} patch"


def test_large_scenes_hold_out_about_a_fifth() -> None:
    regions = lay_regions("scene", (6000, 6000), 64, 4, 24, 0)
    share = {split: sum(rect.height * rect.width for rect in regions[split]) / 6000**2 for split in SPLITS}
    assert share["train"] > 0.7 and 0.05 < share["valid"] < 0.12 and 0.05 < share["test"] < 0.12


def test_another_seed_divides_otherwise() -> None:
    assert len({str(lay_regions("scene", (320, 320), 64, 4, 24, seed)) for seed in range(8)}) > 2


def test_a_small_scene_is_refused_with_the_patch_that_would_do() -> None:
    with pytest.raises(KsdiffError, match=r"scene: .*40 x 40 .*--patch 16"):
        lay_regions("scene", (40, 40), 64, 2, 16, 0)
    lay_regions("scene", (40, 40), 16, 2, 16, 0)


def test_test_images_take_the_side_that_covers_most() -> None:
    assert common_side([300, 310, 64], 64, 256, 8) == 256
    assert common_side([70] * 30 + [300], 64, 256, 8) == 64
    assert common_side([], 64, 256, 8) == 64


@pytest.mark.parametrize(
    ("ratio", "offset", "bands", "sensor"),
    [(4, 0.0, 4, "QB"), (4, 0.0, 8, "WV2"), (2, 0.5, 4, None), (3, 0.0, 4, None), (4, 1.3, 4, None)],
)
def test_a_block_equals_the_whole(tmp_path, ratio, offset, bands, sensor) -> None:
    folder = make_scene(tmp_path / "scene", size=(72, 96), bands=bands, ratio=ratio, offset=offset)
    with open_pair(scene_of(folder, bands, sensor)) as pair:
        source = PairSource(pair)
        top, left = source.origin
        height, width = source.shape
        assert height % ratio == 0 and width % ratio == 0
        ms = pair.read_ms(top, left, height, width)[0]
        gains = pair.scene.sensor.ms_gains(bands)
        small = degrade(ms, corner_aligned(ratio), (height // ratio, width // ratio), gains)
        lms = upsample(small, corner_aligned(ratio), (height, width))
        pan_whole = pair.read_pan(0, 0, *pair.shape)[0]
        pan = degrade(pan_whole, pair.grid, pair.ms_shape, (pair.scene.sensor.mtf_pan,))
        pan = pan[:, top : top + height, left : left + width]
        row, col, h, w = 6 * ratio, 5 * ratio, 5 * ratio, 7 * ratio
        block = source.read(row, col, h, w)
    here = (slice(None), slice(row, row + h), slice(col, col + w))
    assert np.array_equal(block.gt, ms[here])
    np.testing.assert_allclose(block.pan, pan[here], rtol=1e-6)
    np.testing.assert_allclose(block.lms, lms[here], rtol=2e-6)
    coarse = (slice(None), slice(6, 11), slice(5, 12))
    np.testing.assert_allclose(block.ms, small[coarse], rtol=1e-6)
    assert block.clean.all()


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Patches of a scene: folder of both, summary, progress."""
    folder, seen = tmp_path_factory.mktemp("made"), []
    options = PatchOptions((make_scene(folder / "scene"),), folder / "patches", patch=16)
    done = prepare_patches(options, progress=lambda done, total, note="": seen.append((done, total)))
    return folder, done, seen


def test_files_hold_their_definition(made) -> None:
    tmp_path, done, seen = made
    folder = tmp_path / "scene"
    assert [done for done, _ in seen] == list(range(1, seen[-1][1] + 1))
    with open_pair(scene_of(folder, 3)) as pair:
        ms, pan_full = pair.read_ms(0, 0, 128, 128)[0], pair.read_pan(0, 0, 512, 512)[0]
        up = pair.read(0, 0, 512, 512).ms_up
    small = degrade(ms, corner_aligned(4), (32, 32), (0.3,) * 3)
    pan = degrade(pan_full, corner_aligned(4), (128, 128), (0.15,))
    whole = {"gt": ms, "pan": pan, "lms": upsample(small, corner_aligned(4), (128, 128))}
    owner = np.zeros((128, 128), int)
    for number, split in enumerate(SPLITS, start=1):
        with h5py.File(tmp_path / "patches" / f"{split}.h5") as file:
            side = done.sides[split]
            assert file["gt"].shape == (done.counts[split], 3, side, side) and file["gt"].dtype == np.float32
            assert file["pan"].chunks == (1, 1, side, side)
            assert file.attrs["geometry"] == "area" and file.attrs["ratio"] == 4
            assert json.loads(file.attrs["sensor"])["name"] == "generic"
            np.testing.assert_allclose(file["scene_pan_mean"][0], pan.mean(), rtol=1e-6)
            np.testing.assert_allclose(file["scene_pan_std"][0], pan.std(), rtol=1e-5)
            np.testing.assert_allclose(file["scene_ms_mean"][0], small.mean((1, 2)), rtol=1e-6)
            np.testing.assert_allclose(file["scene_ms_std"][0], small.std((1, 2)), rtol=1e-5)
            for index, (row, col) in enumerate(file["origin"][:]):
                here = (slice(row, row + side), slice(col, col + side))
                for key, image in whole.items():
                    np.testing.assert_allclose(file[key][index], image[:, *here], rtol=2e-6)
                coarse = small[:, row // 4 : (row + side) // 4, col // 4 : (col + side) // 4]
                np.testing.assert_allclose(file["ms"][index], coarse, rtol=1e-6)
                assert set(np.unique(owner[here])) <= {0, number}, "splits share a pixel"
                owner[here] = number
    with h5py.File(tmp_path / "patches" / "full.h5") as file:
        side = done.sides["full"]
        np.testing.assert_allclose(file["scene_pan_std"][0], pan_full.std(), rtol=1e-6)
        for index, (row, col) in enumerate(file["origin"][:]):
            here = (slice(None), slice(4 * row, 4 * row + side), slice(4 * col, 4 * col + side))
            assert np.array_equal(file["pan"][index], pan_full[here])
            np.testing.assert_allclose(file["lms"][index], up[here], rtol=1e-6)
            assert np.array_equal(file["ms"][index], ms[:, row : row + side // 4, col : col + side // 4])


@pytest.mark.parametrize(
    ("hole", "seed"),
    [((slice(60, 63), slice(80, 84)), 0), ((slice(60, 63), slice(80, 84)), 1), ((slice(100, 102), slice(100, 101)), 2)],
)
def test_no_patch_depends_on_nodata(tmp_path, hole, seed) -> None:
    folder = make_scene(tmp_path / "scene", size=(160, 160), hole=hole)
    done = prepare(folder, tmp_path / "patches", seed=seed)
    assert done.left_out["train"]["nodata"] > 0
    clean = np.ones((160, 160), bool)
    clean[hole] = False
    clean = minimum_filter(clean, 2 * reach((0.3,), 4) + 1)
    for split in (split for split in SPLITS if done.counts[split]):
        with h5py.File(tmp_path / "patches" / f"{split}.h5") as file:
            side = done.sides[split]
            for row, col in file["origin"][:]:
                assert clean[row : row + side, col : col + side].all()
            assert (file["gt"][:] >= 100).all()
            assert (file["scene_ms_mean"][:] > 500).all()  # zeros would pull it down


def test_only_nodata_is_refused(tmp_path) -> None:
    folder = make_scene(tmp_path / "scene", hole=(slice(0, 128), slice(0, 128, 8)))
    with pytest.raises(KsdiffError, match="nodata"):
        prepare(folder, tmp_path / "patches")
    assert not list(tmp_path.glob("*patches*"))


def test_the_ratio_can_be_another_than_the_scenes(tmp_path) -> None:
    done = prepare(make_scene(tmp_path / "scene", ratio=2), tmp_path / "patches", ratio=4)
    assert done.ratio == 4 and done.counts["full"] == 0
    assert [path.name for path in files(tmp_path / "patches")] == ["test.h5", "train.h5", "valid.h5"]
    with h5py.File(tmp_path / "patches" / "train.h5") as file:
        assert file["ms"].shape[2:] == (4, 4) and file["gt"].shape[2:] == (16, 16)


def test_the_command_gives_the_same_bytes_and_sums_up_on_stdout(made, tmp_path, run) -> None:
    result = run("prepare-data", made[0] / "scene", "-o", tmp_path / "two", "--patch", "16", "--json")
    assert result.exit_code == 0, result.output
    summary = json.loads(result.stdout)
    assert summary["images"]["train"] > 0 and summary["bands"] == 3 and summary["side"]["train"] == 16
    assert len(files(tmp_path / "two")) == 4
    for one, two in zip(files(made[0] / "patches"), files(tmp_path / "two"), strict=True):
        assert one.read_bytes() == two.read_bytes()


def test_two_scenes_go_into_one_file_and_unlike_ones_do_not(tmp_path) -> None:
    first, second = make_scene(tmp_path / "first"), make_scene(tmp_path / "second", seed=1)
    output = tmp_path / "patches"
    done = prepare_patches(PatchOptions((first, second), output, patch=16))
    assert done.scenes == ["first", "second"]
    with h5py.File(output / "train.h5") as file:
        assert set(file["scene"][:]) == {0, 1} and file["scene_ms_mean"].shape == (2, 3)
    other = make_scene(tmp_path / "other", bands=4)
    with pytest.raises(KsdiffError, match=r"first has 3 bands.*other has 4.*separate folders"):
        prepare_patches(PatchOptions((first, other), tmp_path / "mixed", patch=16))
    assert not (tmp_path / "mixed").exists()


def test_an_existing_output_is_kept_unless_told(made, tmp_path) -> None:
    shutil.copytree(made[0], tmp_path, dirs_exist_ok=True)
    folder, output = tmp_path / "scene", tmp_path / "patches"
    before = (output / "train.h5").read_bytes()
    with pytest.raises(KsdiffError, match="--overwrite"):
        prepare(folder, output, seed=5)
    assert (output / "train.h5").read_bytes() == before
    prepare_patches(PatchOptions((folder,), output, patch=16, seed=5, overwrite=True))
    assert (output / "train.h5").read_bytes() != before
    (output / "thesis.txt").write_text("years of work")
    with pytest.raises(KsdiffError, match=r"thesis\.txt"):
        prepare_patches(PatchOptions((folder,), output, patch=16, overwrite=True))
    assert (output / "thesis.txt").exists()


def test_an_interrupt_that_falls_into_a_callback_is_not_lost(tmp_path) -> None:
    class Thing:
        pass

    kept = []

    def interrupt(done: int, total: int, note: str = "") -> None:
        if done == 3:
            thing = Thing()
            kept.append(weakref.ref(thing, lambda _: signal.raise_signal(signal.SIGINT)))
        assert done <= 3, "went on after Ctrl-C"

    # a shell starts background jobs with SIGINT ignored; the tests may run in one
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            prepare_patches(
                PatchOptions((make_scene(tmp_path / "scene"),), tmp_path / "patches", patch=16), progress=interrupt
            )
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
    assert not (tmp_path / "patches").exists()


def test_a_scene_too_small_for_test_patches_says_so(tmp_path) -> None:
    done = prepare(make_scene(tmp_path / "scene", size=(16, 40)), tmp_path / "patches")
    assert done.counts["train"] and done.counts["valid"] and not done.counts["test"]
    assert any("no test patches" in note for note in done.notes)
    assert not (tmp_path / "patches" / "test.h5").exists()


def test_odd_patch_sides_are_refused(tmp_path) -> None:
    with pytest.raises(KsdiffError, match="multiple of 8"):
        prepare(make_scene(tmp_path / "scene"), tmp_path / "patches", patch=20)


def test_tiles_become_patches_split_by_tile(tmp_path) -> None:
    random = np.random.default_rng(0)
    gt, pan = random.integers(0, 900, (10, 4, 32, 32)), random.integers(0, 900, (10, 1, 32, 32))
    path = tmp_path / "tiles.h5"
    with h5py.File(path, "w") as file:
        file["gt"], file["pan"] = gt.astype(np.uint16), pan.astype(np.uint16)
        file.attrs["sensor"] = "QB"
    done = prepare(path, tmp_path / "patches")
    assert done.counts == {"train": 8 * 9, "valid": 9, "test": 1, "full": 0} and done.sides["test"] == 32
    tiles = {}
    for split in SPLITS:
        with h5py.File(tmp_path / "patches" / f"{split}.h5") as file:
            assert json.loads(file.attrs["sensor"])["name"] == "QB"
            tiles[split] = set((file["origin"][:, 0] // 32).tolist())
            (row, col), side = file["origin"][0], done.sides[split]
            tile, row = row // 32, row % 32
            assert np.array_equal(file["gt"][0], gt[tile, :, row : row + side, col : col + side])
            assert np.array_equal(file["pan"][0], pan[tile, :, row : row + side, col : col + side])
            small = degrade(gt[tile], corner_aligned(4), (8, 8), find_sensor("QB").ms_gains(4))
            lms = upsample(small, corner_aligned(4), (32, 32))
            np.testing.assert_allclose(file["lms"][0], lms[:, row : row + side, col : col + side], rtol=2e-6)
    assert not (tiles["train"] & tiles["valid"] or tiles["train"] & tiles["test"] or tiles["valid"] & tiles["test"])


@pytest.mark.parametrize(
    ("content", "message"), [(None, "not an HDF5"), ({"gt": (2, 3, 32, 32)}, "no pan"), ({}, "no gt and no pan")]
)
def test_bad_tile_files_are_named(tmp_path, content, message) -> None:
    path = tmp_path / "tiles.h5"
    if content is None:
        path.write_text("hello")
    else:
        with h5py.File(path, "w") as file:
            for key, shape in content.items():
                file[key] = np.zeros(shape)
    with pytest.raises(KsdiffError, match=rf"tiles\.h5.*{message}"):
        prepare(path, tmp_path / "patches")
