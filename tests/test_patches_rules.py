"""prepare-data leaves out clouds and saturated pixels by a stated rule, draws where patches lie, and has a dry run."""

import json
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import rasterio
from conftest import write_raster
from rasterio.transform import Affine

from ksdiff_cli.errors import KsdiffError
from ksdiff_cli.numerics.canvas import draw_text, fit_text, text_width
from ksdiff_cli.options.patches import PatchOptions
from ksdiff_cli.patches import plan, quicklook
from ksdiff_cli.patches.masks import Rule, at_top, largest_dn
from ksdiff_cli.patches.prepare import prepare_patches
from ksdiff_cli.raster.bands import QualityBand
from ksdiff_cli.sensors import find_sensor

SIDE = 160
CLOUD = 1 << 4


def make_scene(folder: Path, cloud=None, saturated_ms=None, saturated_pan=None, dtype=np.uint16) -> Path:
    """Write a scene at ratio 2, beside it its flags; clouds and saturated pixels where wanted (MS pixels)."""
    random = np.random.default_rng(0)
    folder.mkdir()
    ms = random.integers(10, 200, (3, SIDE, SIDE)).astype(dtype)
    pan = random.integers(10, 200, (1, 2 * SIDE, 2 * SIDE)).astype(dtype)
    flags = np.zeros((1, SIDE, SIDE), np.uint16)
    if cloud:
        flags[0][cloud] = CLOUD
    if saturated_ms:
        ms[1][saturated_ms] = np.iinfo(dtype).max
    if saturated_pan:
        pan[0][tuple(slice(2 * part.start, 2 * part.stop) for part in saturated_pan)] = np.iinfo(dtype).max
    write_raster(folder / "pan.tif", pan, transform=Affine(1, 0, 5e5, 0, -1, 4e6), crs="EPSG:32632")
    for path, image in ((folder / "ms.tif", ms), (folder.with_name(f"{folder.name}_flags.tif"), flags)):
        write_raster(path, image, transform=Affine(2, 0, 5e5, 0, -2, 4e6), crs="EPSG:32632")
    return folder


@pytest.fixture(autouse=True, scope="module")
def _flags():
    """Have every scene's flags taken for its quality band."""
    real = plan.find_scenes

    def with_flags(path, *rest):
        quality = QualityBand(str(path.with_name(f"{path.name}_flags.tif")), (), ((CLOUD, CLOUD),))
        return [replace(found, quality=quality) for found in real(path, *rest)]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan, "find_scenes", with_flags)
        yield


@pytest.fixture
def scene(tmp_path):
    """Return a maker of scenes."""
    return lambda name="scene", **what: make_scene(tmp_path / name, **what)


@pytest.fixture(scope="module")
def everything(tmp_path_factory):
    """The patches of a scene of which nothing is left out: folder and summary."""
    folder = tmp_path_factory.mktemp("everything")
    return folder / "patches", prepare(make_scene(folder / "plain"), folder / "patches")


def prepare(folder: Path, output: Path, **options):
    return prepare_patches(PatchOptions((folder,), output, patch=16, **options))


def origins(path: Path) -> set[tuple[int, int]]:
    if not path.exists():
        return set()
    with h5py.File(path) as file:
        return set(map(tuple, file["origin"][:].tolist()))


def share(mask: np.ndarray, row: int, col: int, side: int) -> float:
    return 100 * float(mask[row : row + side, col : col + side].mean())


@pytest.mark.parametrize(
    ("what", "percent"), [("cloud", 0.0), ("cloud", 20.0), ("saturated_ms", 20.0), ("saturated_pan", 0.0)]
)
def test_windows_above_the_limit_and_no_others_are_left_out(scene, everything, tmp_path, what, percent) -> None:
    reason = what.partition("_")[0]
    limit = f"max_{reason}"
    area = (slice(20, 100), slice(50, 140))
    mask = np.zeros((SIDE, SIDE), bool)
    mask[area] = True
    whole, plain = everything
    done = prepare(scene(**{what: area}), tmp_path / "some", **{limit: percent})
    for split in ("train", "valid", "test"):
        every, kept = (origins(folder / f"{split}.h5") for folder in (whole, tmp_path / "some"))
        assert kept == {place for place in every if share(mask, *place, plain.sides[split]) <= percent}
        assert done.left_out[split][reason] == len(every - kept) > 0
        if not kept:
            continue
        with h5py.File(tmp_path / "some" / f"{split}.h5") as file:
            assert set(map(tuple, file["left_out"][:, 1:3].tolist())) == every - kept
            names = json.loads(file.attrs["left_out_reasons"])
            assert {names[index] for index in file["left_out"][:, 3]} <= {reason}
            assert json.loads(file.attrs["left_out"])[reason] == len(every - kept)
            assert file.attrs[limit] == percent and f"{percent:g} %" in file.attrs["rule"]
    every, kept = (origins(folder / "full.h5") for folder in (whole, tmp_path / "some"))
    assert every and kept == {place for place in every if share(mask, *place, plain.sides["full"] // 2) <= percent}
    if reason == "cloud":  # statistics take clouds too
        with h5py.File(whole / "train.h5") as one, h5py.File(tmp_path / "some" / "train.h5") as two:
            assert np.array_equal(one["scene_ms_mean"][:], two["scene_ms_mean"][:])


def test_nothing_but_cloud_is_refused_with_the_option_that_would_do(scene, tmp_path) -> None:
    with pytest.raises(KsdiffError, match=r"5 % cloud.*--max-cloud"):
        prepare(scene(cloud=(slice(None), slice(None))), tmp_path / "patches")
    assert not list(tmp_path.glob("*patches*"))
    prepare(scene(cloud=(slice(None), slice(None)), name="again"), tmp_path / "patches", max_cloud=100.0)


def test_the_first_reason_counts() -> None:
    rule, yes, no = Rule(5, 5), np.ones((10, 10), bool), np.zeros((10, 10), bool)
    assert [rule.reason(yes, no, no), rule.reason(no, yes, yes)] == [None, 0]
    assert [rule.reason(yes, yes, yes), rule.reason(yes, no, yes)] == [1, 2]
    five = no.copy()
    five.flat[:5] = True
    assert rule.reason(yes, five, five) is None
    five.flat[5] = True
    assert rule.reason(yes, five, no) == 1 and rule.reason(yes, no, five) == 2


def test_the_largest_dn_is_the_sensors_or_the_types() -> None:
    assert largest_dn(find_sensor("WV2"), "uint16") == 2047 and largest_dn(find_sensor("WV2"), "uint8") == 255
    assert largest_dn(find_sensor("L8"), "int16") == 32767 and largest_dn(find_sensor("GF2"), "float32") == 1023
    assert largest_dn(find_sensor(None), "uint8") == 255 and largest_dn(find_sensor(None), "uint16") == 65535
    assert largest_dn(find_sensor(None), "float32") is None and largest_dn(find_sensor(None), "uint32") is None
    image = np.array([[[1.0, 255.0]], [[9.0, 9.0]]])
    assert at_top(image, (255.0, 9.0)).tolist() == [[True, True]]
    assert at_top(image, (255.0, None)).tolist() == [[False, True]]


def picture(folder: Path) -> np.ndarray:
    with rasterio.open(folder / "quicklook.png") as dataset:
        return dataset.read().transpose(1, 2, 0).astype(int)


def near(image: np.ndarray, colour: tuple[int, int, int], within: int = 60) -> np.ndarray:
    return (np.abs(image - np.array(colour)) <= within).all(-1)


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_the_picture_shows_blocks_and_what_was_left_out(scene, tmp_path) -> None:
    folder = scene(cloud=(slice(40, 120), slice(40, 120)))
    prepare(folder, tmp_path / "patches")
    image = picture(tmp_path / "patches")
    (layout,) = plan.plan_patches(PatchOptions((folder,), tmp_path / "other", patch=16))
    scale, top, left = 6, 32, 8  # enlarged as far as it goes; margin and title
    for split, colour in quicklook._SPLITS.items():
        for rect in layout.blocks(split):
            edge = image[top + rect.top * scale + 1, left + rect.left * scale :][: rect.width * scale]
            assert (edge == np.array(colour)).all()
    cloud = image[top + 60 * scale : top + 100 * scale, left + 60 * scale : left + 100 * scale]
    assert 0.3 < near(cloud, quicklook._REASONS["cloud"], 90).mean() < 0.7  # stripes
    legend = image[top + SIDE * scale :]
    assert near(legend, quicklook._REASONS["cloud"], 40).any()
    assert not near(legend, quicklook._REASONS["saturated"], 80).any()


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_several_scenes_get_a_panel_each_and_tiles_none(scene, tmp_path) -> None:
    scenes = (scene(name="one"), scene(name="two"), scene(name="three"))
    prepare_patches(PatchOptions(scenes, tmp_path / "patches", patch=16))
    image = picture(tmp_path / "patches")
    colour = np.array(quicklook._SPLITS["train"])
    down = (image == colour).all(-1)
    assert down[: len(down) // 2, : image.shape[1] // 2].any() and down[: len(down) // 2, image.shape[1] // 2 :].any()
    assert down[len(down) // 2 : -40].any()
    with h5py.File(tmp_path / "tiles.h5", "w") as file:
        file["gt"], file["pan"] = np.ones((3, 2, 32, 32)), np.ones((3, 1, 32, 32))
    prepare(tmp_path / "tiles.h5", tmp_path / "tiles")
    assert not (tmp_path / "tiles" / "quicklook.png").exists()


def test_text_is_shortened_to_its_width_and_cut_at_the_border() -> None:
    assert fit_text("short", 200, 16) == "short"
    for keep_end in (False, True):
        found = fit_text("a long name.tif", 70, 16, keep_end=keep_end)
        assert found[-1 if not keep_end else 0] == "…" and text_width(found, 16) <= 70
        assert found.strip("…") in "a long name.tif"
    canvas = np.zeros((10, 20, 3), np.uint8)
    draw_text(canvas, "long é 東 text", 5, 3, 16, (9, 9, 9))
    assert canvas[5:].any() and not canvas[:5].any() and not canvas[:, :3].any()


def test_a_dry_run_says_what_would_be_made_and_makes_nothing(scene, tmp_path, run, fails) -> None:
    scenes, output = [scene(name="one"), scene(name="two")], tmp_path / "patches"
    before = sorted(tmp_path.rglob("*"))
    result = run("prepare-data", *scenes, "-o", output, "--patch", "16", "--dry-run", "--json")
    assert result.exit_code == 0, result.output
    said = json.loads(result.stdout)
    words = run("prepare-data", *scenes, "-o", output, "--patch", "16", "--dry-run")
    assert sorted(tmp_path.rglob("*")) == before
    done = prepare_patches(PatchOptions(tuple(scenes), output, patch=16))
    assert said["sides"] == done.sides
    for name, count in done.counts.items():
        assert sum(scene["windows"][name] for scene in said["scenes"]) == count
        with h5py.File(output / f"{name}.h5") as file:
            images = sum(file[key].nbytes for key in ("gt", "pan", "ms", "lms") if key in file)
        assert said["bytes"][name] == images
    assert f"train: {said['scenes'][0]['windows']['train']} patches of 16 px" in words.stdout
    assert "one: generic, 3 bands, ratio 2, 160 x 160 MS pixels" in words.stdout
    assert "--overwrite" in fails("prepare-data", *scenes, "-o", output, "--patch", "16", "--dry-run")
    assert "--patch 80" in fails("prepare-data", scenes[0], "-o", tmp_path / "x", "--patch", "120", "--dry-run")
