"""Patch files: two layouts read alike, statistics right, training batches a function of the seed and their number."""

import json
import subprocess
import sys
from itertools import islice
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from ksdiff_cli.errors import KsdiffError
from ksdiff_cli.numerics.grids import corner_aligned, upsample
from ksdiff_cli.numerics.toolbox import interp23tap
from ksdiff_cli.patches.dataset import PatchFile
from ksdiff_cli.training.batches import Ahead, TrainingBatches


def arrays(count=6, bands=4, side=32, ratio=4, dtype=np.float32, seed=0) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)

    def draw(channels: int, size: int) -> np.ndarray:
        return random.integers(0, 2000, (count, channels, size, size)).astype(dtype)

    return {
        "gt": draw(bands, side),
        "ms": draw(bands, side // ratio),
        "lms": draw(bands, side),
        "pan": draw(1, side),
    }


def write(path: Path, content: dict[str, np.ndarray], **attributes) -> Path:
    with h5py.File(path, "w") as file:
        for key, value in content.items():
            file[key] = value
        file.attrs.update(attributes)
    return path


def test_a_pancollection_file_reads_as_stored(tmp_path) -> None:
    content = arrays(dtype=np.uint16)
    file = PatchFile(write(tmp_path / "train_wv3.h5", content))
    assert (len(file), file.bands, file.ratio, file.size) == (6, 4, 4, (32, 32))
    assert file.geometry == "toolbox" and file.sensor == {} and file.has_gt
    image = file.image(3)
    for key, value in content.items():
        assert image[key].dtype == np.float32 and np.array_equal(image[key], value[3])
    batch = file.batch([4, 0])
    assert batch.gt is not None and torch.equal(batch.gt, torch.from_numpy(content["gt"][[4, 0]].astype(np.float32)))
    assert torch.equal(batch.ms_up, torch.from_numpy(content["lms"][[4, 0]].astype(np.float32)))
    assert batch.pan.shape == (2, 1, 32, 32) and batch.ratio == 4


def test_a_file_without_statistics_counts_as_one_scene(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("ksdiff_cli.patches.dataset._CHUNK_BYTES", 5000)  # several passes
    content = arrays(count=11)
    statistics = PatchFile(write(tmp_path / "a.h5", content)).statistics([7, 2])
    np.testing.assert_allclose(statistics.ms_mean, np.tile(content["ms"].mean((0, 2, 3)), (2, 1)), rtol=1e-6)
    np.testing.assert_allclose(statistics.ms_std, np.tile(content["ms"].std((0, 2, 3)), (2, 1)), rtol=1e-5)
    np.testing.assert_allclose(statistics.pan_mean, np.full((2, 1), content["pan"].mean()), rtol=1e-6)
    np.testing.assert_allclose(statistics.pan_std, np.full((2, 1), content["pan"].std()), rtol=1e-5)


def test_each_image_gets_the_statistics_of_its_scene(tmp_path) -> None:
    content = arrays(count=3)
    content["scene"] = np.array([1, 0, 1], np.int32)
    content |= {"scene_pan_mean": np.array([10.0, 20]), "scene_pan_std": np.array([1.0, 2])}
    content |= {"scene_ms_mean": np.arange(8.0).reshape(2, 4), "scene_ms_std": np.ones((2, 4))}
    sensor = {"name": "QB", "bits": 11}
    path = write(tmp_path / "a.h5", content, sensor=json.dumps(sensor), geometry="area", scenes=json.dumps(["x", "y"]))
    file = PatchFile(path)
    assert file.geometry == "area" and file.sensor == sensor
    statistics = file.batch([1, 2]).statistics
    assert statistics.pan_mean.tolist() == [[10], [20]] and statistics.pan_std.tolist() == [[1], [2]]
    assert statistics.ms_mean.tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert statistics.ms_mean.dtype == torch.float32


@pytest.mark.parametrize("geometry", ["area", "toolbox"])
def test_missing_lms_is_made_in_the_files_geometry(tmp_path, geometry) -> None:
    content = arrays()
    del content["lms"]
    file = PatchFile(write(tmp_path / "a.h5", content, **({"geometry": "area"} if geometry == "area" else {})))
    ms = content["ms"][2]
    wanted = upsample(ms, corner_aligned(4), (32, 32)) if geometry == "area" else interp23tap(ms, 4)
    np.testing.assert_allclose(file.image(2)["lms"], wanted, rtol=1e-5, atol=1e-3)


def test_large_files_are_not_kept_in_memory(tmp_path) -> None:
    path = write(tmp_path / "a.h5", arrays())
    kept = PatchFile(path)
    from_memory = kept.batch([5, 1])
    assert kept._cache
    read = PatchFile(path, cache_bytes=10)
    assert torch.equal(read.batch([5, 1]).ms_up, from_memory.ms_up)
    assert not read._cache


def test_full_resolution_files_have_no_truth(tmp_path) -> None:
    content = arrays()
    del content["gt"]
    file = PatchFile(write(tmp_path / "full.h5", content))
    assert not file.has_gt and file.batch([0]).gt is None and set(file.image(0)) == {"pan", "ms", "lms"}
    with pytest.raises(KsdiffError, match=r"full\.h5: has no gt"):
        TrainingBatches([file], 2, 0)


def test_batches_are_a_function_of_seed_and_number(tmp_path) -> None:
    paths = [write(tmp_path / f"{n}.h5", arrays(count=count, seed=n)) for n, count in enumerate((6, 30))]

    def batches(seed: int) -> TrainingBatches:
        return TrainingBatches([PatchFile(path) for path in paths], 4, seed, gain=0.1)

    first, again, other = batches(3), batches(3), batches(4)
    in_order = list(islice(first, 6))
    for number in (5, 0, 3):  # in any order, as after a resume
        one, two = in_order[number], again.batch(number)
        assert torch.equal(one.pan, two.pan) and torch.equal(one.ms_up, two.ms_up) and torch.equal(one.gt, two.gt)
    assert not torch.equal(in_order[0].pan, other.batch(0).pan)
    assert not torch.equal(in_order[0].pan, in_order[1].pan)


def test_shares_of_a_batch_make_the_whole(tmp_path) -> None:
    file = PatchFile(write(tmp_path / "a.h5", arrays(count=20)))
    whole = TrainingBatches([file], 7, 3, gain=0.1).batch(5)
    cuts = (slice(0, 2), slice(2, 7))
    parts = [TrainingBatches([file], 7, 3, gain=0.1, share=cut).batch(5) for cut in cuts]
    for name in ("pan", "ms_up", "gt"):
        assert torch.equal(torch.cat([getattr(part, name) for part in parts]), getattr(whole, name))
    assert torch.equal(torch.cat([part.statistics.ms_mean for part in parts]), whole.statistics.ms_mean)


def test_batches_made_ahead_come_in_order_and_errors_come_through(tmp_path) -> None:
    batches = TrainingBatches([PatchFile(write(tmp_path / "a.h5", arrays()))], 2, 0)
    asked = []

    def make(number: int):
        asked.append(number)
        if number == 9:
            raise OSError("gone")
        return batches.batch(number)

    with Ahead(make, 4, depth=2) as ahead:
        for number in range(4, 9):
            assert torch.equal(ahead.get(number).pan, batches.batch(number).pan)
            assert max(asked) <= number + 2
        with pytest.raises(OSError, match="gone"):
            ahead.get(9)


def test_files_are_drawn_by_their_size(tmp_path) -> None:
    files = [PatchFile(write(tmp_path / f"{bands}.h5", arrays(count, bands, 8))) for count, bands in ((5, 3), (15, 4))]
    drawn = [batch.ms_up.shape[1] for batch in islice(TrainingBatches(files, 2, 0), 200)]
    assert 0.65 < drawn.count(4) / 200 < 0.85


def test_all_arrays_of_an_image_turn_alike(tmp_path) -> None:
    content = arrays(count=16, bands=1)
    content["lms"] = content["gt"] + 1
    content["pan"] = content["gt"] + 2
    batches = TrainingBatches([PatchFile(write(tmp_path / "a.h5", content))], 8, 0)
    seen = set()
    for batch in islice(batches, 12):
        assert torch.equal(batch.ms_up, batch.gt + 1) and torch.equal(batch.pan, batch.gt + 2)
        for image in batch.gt.numpy():
            for original in content["gt"]:
                if np.array_equal(np.sort(image.ravel()), np.sort(original.ravel())):
                    turned = [np.rot90(original, k, (1, 2)) for k in range(4)]
                    ways = [*turned, *(turn[:, :, ::-1] for turn in turned)]
                    seen.add(next(way for way, each in enumerate(ways) if np.array_equal(each, image)))
                    break
            else:
                pytest.fail("an image is none of the file's")
    assert seen == set(range(8))


def test_images_that_are_not_square_keep_their_shape(tmp_path) -> None:
    content = {key: value[..., : value.shape[-1] // 2] for key, value in arrays().items()}
    batch = TrainingBatches([PatchFile(write(tmp_path / "a.h5", content))], 8, 0).batch(0)
    assert batch.pan.shape == (8, 1, 32, 16)


def test_gain_changes_brightness_but_not_statistics(tmp_path) -> None:
    content = {key: np.ones_like(value) for key, value in arrays().items()}
    batch = TrainingBatches([PatchFile(write(tmp_path / "a.h5", content))], 8, 0, gain=0.5).batch(0)
    levels = batch.pan[:, 0, 0, 0]
    assert levels.std() > 0.05 and (levels.log().abs() <= 0.5).all()
    assert torch.equal(batch.gt[:, 0, 0, 0], levels) and torch.equal(batch.ms_up[:, 3, 5, 5], levels)
    assert (batch.statistics.pan_mean == 1).all()


def broken(key: str, change) -> dict[str, np.ndarray]:
    content = arrays()
    content[key] = change(content[key])
    return content


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "has no pan and no ms"),
        ({"pan": np.zeros((2, 1, 8, 8))}, "has no ms"),
        (broken("ms", lambda x: x[:, :, :5]), "do not fit"),
        (broken("pan", lambda x: x[:3]), "do not fit"),
        (broken("pan", lambda x: np.concatenate([x, x], 1)), "do not fit"),
        (broken("gt", lambda x: x[:, :2]), "do not fit"),
        (broken("lms", lambda x: x[..., :16]), "do not fit"),
        (broken("ms", lambda x: x[0]), "do not fit"),
        (broken("pan", lambda x: x[:0]), "do not fit"),
    ],
)
def test_files_of_another_layout_are_refused(tmp_path, content, message) -> None:
    with pytest.raises(KsdiffError, match=rf"a\.h5: .*{message}"):
        PatchFile(write(tmp_path / "a.h5", content))


def test_a_training_machine_needs_no_raster_library() -> None:
    code = "import sys; sys.modules.update(rasterio=None, scipy=None); import ksdiff_cli.patches.dataset"
    subprocess.run([sys.executable, "-c", code], check=True)
