"""Both geometries of prepare-data, against their definitions worked out densely in float64 on simulated scenes."""

import math
from pathlib import Path

import h5py
import numpy as np
import pytest
import rasterio
from conftest import write_raster
from rasterio.transform import Affine

from ksdiff_cli.errors import KsdiffError
from ksdiff_cli.numerics.toolbox import decimate, interp23tap, mtf_filter
from ksdiff_cli.options.patches import PatchOptions
from ksdiff_cli.patches.prepare import prepare_patches
from ksdiff_cli.sensors import find_sensor
from ksdiff_cli.simulation.files import simulate_scene

FILES = ("train", "valid", "test")


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    """Return a maker of simulated scenes: folder, PAN (1, H, W) and MS (bands, h, w) float64, sensor."""
    made = {}

    def make(name: str, size: int) -> tuple[Path, np.ndarray, np.ndarray]:
        if name not in made:
            folder = tmp_path_factory.mktemp(name)
            simulate_scene(folder / "scene", size=size, sensor=name, seed=3)
            images = []
            for file in ("pan", "ms"):
                with rasterio.open(folder / "scene" / f"{file}.tif") as dataset:
                    images.append(dataset.read().astype(np.float64))
            made[name] = (folder / "scene", *images)
        return made[name]

    return make


def gaussian(size: int, ratio: int, gain: float) -> np.ndarray:
    """Row k: a Gaussian of MTF ``gain`` at the coarse Nyquist frequency around r*k + (r-1)/2, cut at 4 sigma."""
    sigma = ratio / math.pi * math.sqrt(-2 * math.log(gain))
    reach, rows = math.ceil(4 * sigma), []
    for centre in ratio * np.arange(size // ratio) + (ratio - 1) / 2:
        # taps around the nearest pixel, the even one of two
        taps = round(centre) + np.arange(-reach, reach + 1)
        weights = np.exp(-((taps - centre) ** 2) / (2 * sigma**2))
        row = np.zeros(size)
        np.add.at(row, np.clip(taps, 0, size - 1), weights / weights.sum())
        rows.append(row)
    return np.stack(rows)


def bicubic(size: int, ratio: int) -> np.ndarray:
    """Row i: Keys' cubic around (i + 1/2) / r - 1/2, the border repeated."""
    out = np.zeros((size * ratio, size))
    for i in range(size * ratio):
        at = (i + 0.5) / ratio - 0.5
        for tap in range(math.floor(at) - 1, math.floor(at) + 3):
            x = abs(at - tap)
            weight = 1.5 * x**3 - 2.5 * x**2 + 1 if x <= 1 else -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
            out[i, min(max(tap, 0), size - 1)] += weight
    return out


def area_truth(pan: np.ndarray, ms: np.ndarray, sensor, ratio: int) -> dict[str, np.ndarray]:
    gains = sensor.ms_gains(len(ms))
    small = [gaussian(len(b), ratio, g) @ b @ gaussian(b.shape[1], ratio, g).T for b, g in zip(ms, gains, strict=True)]
    up = [bicubic(len(b), ratio) @ b @ bicubic(b.shape[1], ratio).T for b in small]
    look = [gaussian(side, ratio, sensor.mtf_pan) for side in pan.shape[1:]]
    return {"gt": ms, "ms": np.stack(small), "lms": np.stack(up), "pan": (look[0] @ pan[0] @ look[1].T)[None]}


def toolbox_truth(pan: np.ndarray, ms: np.ndarray, sensor, ratio: int) -> dict[str, np.ndarray]:
    small = decimate(mtf_filter(ms, sensor.ms_gains(len(ms)), ratio), ratio)
    # repeated, not wrapped around, at the scene's border
    up = interp23tap(np.pad(small, ((0, 0), (16, 16), (16, 16)), mode="edge"), ratio)
    inside = slice(16 * ratio, -16 * ratio)
    reduced = decimate(mtf_filter(pan, (sensor.mtf_pan,), ratio), ratio)
    return {"gt": ms, "ms": small, "lms": up[:, inside, inside], "pan": reduced}


@pytest.mark.parametrize(("name", "size", "patch"), [("QB", 512, 32), ("L8", 256, 32)])
@pytest.mark.parametrize(("geometry", "truth"), [("area", area_truth), ("toolbox", toolbox_truth)])
def test_round_trip_equals_the_definition(simulated, tmp_path, name, size, patch, geometry, truth) -> None:
    folder, pan, ms = simulated(name, size)
    sensor = find_sensor(name)
    prepare_patches(PatchOptions((folder,), tmp_path / "patches", patch=patch, sensor=name, geometry=geometry))
    ratio = sensor.ratio
    expected = truth(pan, ms, sensor, ratio)
    for split in FILES:
        with h5py.File(tmp_path / "patches" / f"{split}.h5") as file:
            assert file.attrs["geometry"] == geometry
            for index, (row, col) in enumerate(file["origin"][:].tolist()):
                for key, image in expected.items():
                    step, side = (ratio if key == "ms" else 1), file[key].shape[2]
                    part = image[:, row // step :, col // step :][:, :side, :side]
                    # cubic undershoot can come near 0, where nothing is relative to it
                    near_zero = 1e-6 * image.mean() if key == "lms" else 0
                    np.testing.assert_allclose(
                        file[key][index], part, 1e-6, near_zero, err_msg=f"{split} {index} {key}"
                    )
    if geometry == "area":  # whose files at full resolution test_patches has
        return
    border = 16 * ratio
    up = interp23tap(np.pad(ms, ((0, 0), (16, 16), (16, 16)), mode="edge"), ratio)[:, border:-border, border:-border]
    with h5py.File(tmp_path / "patches" / "full.h5") as file:
        assert file.attrs["geometry"] == "toolbox" and len(file["origin"])
        for index, (row, col) in enumerate(file["origin"][:].tolist()):
            side = file["pan"].shape[2]
            here = np.s_[:, ratio * row : ratio * row + side, ratio * col : ratio * col + side]
            assert np.array_equal(file["pan"][index], pan[here])
            assert np.array_equal(file["ms"][index], ms[:, row : row + side // ratio, col : col + side // ratio])
            np.testing.assert_allclose(file["lms"][index], up[here], 1e-6, 1e-6 * ms.mean())


def test_the_two_geometries_differ_by_half_a_pixel(simulated) -> None:
    """A wrong phase cannot pass the tests above unseen: the two lie apart."""
    _, pan, ms = simulated("QB", 512)
    one, two = (truth(pan, ms, find_sensor("QB"), 4)["ms"] for truth in (area_truth, toolbox_truth))
    assert np.abs(one - two).mean() > 0.005 * ms.mean()


@pytest.mark.parametrize(
    ("ratio", "offset", "scale", "message"),
    [(3, 0.0, 1.0, "power of two"), (2, 0.5, 1.0, "corner on corner"), (4, 0.0, 1.002, "corner on corner")],
)
def test_scenes_without_a_place_for_the_toolbox_are_refused(tmp_path, ratio, offset, scale, message) -> None:
    folder = tmp_path / "scene"
    for name, side, pixel, corner in (("pan", 96 * ratio, 1.0, offset), ("ms", 96, ratio * scale, 0.0)):
        image = np.full((1 if name == "pan" else 2, side, side), 7, np.uint16)
        grid = Affine(pixel, 0, 5e5 + corner, 0, -pixel, 4e6)
        write_raster(folder / f"{name}.tif", image, crs="EPSG:32632", transform=grid)
    with pytest.raises(KsdiffError, match=rf"scene: .*{message}.*--geometry area"):
        prepare_patches(
            PatchOptions((folder,), tmp_path / "patches", patch=24 if ratio == 3 else 16, geometry="toolbox")
        )
    assert not (tmp_path / "patches").exists()


def test_tiles_take_the_toolbox_too(tmp_path) -> None:
    random = np.random.default_rng(0)
    gt = random.integers(1, 900, (4, 4, 64, 64)).astype(np.uint16)
    with h5py.File(tmp_path / "tiles.h5", "w") as file:
        file["gt"], file["pan"] = gt, random.integers(1, 900, (4, 1, 64, 64)).astype(np.uint16)
        file.attrs["sensor"] = "QB"
    prepare_patches(PatchOptions((tmp_path / "tiles.h5",), tmp_path / "patches", patch=16, geometry="toolbox"))
    with h5py.File(tmp_path / "patches" / "train.h5") as file:
        row, col = file["origin"][5].tolist()
        small = decimate(mtf_filter(gt[row // 64].astype(float), find_sensor("QB").ms_gains(4), 4), 4)
        row %= 64
        np.testing.assert_allclose(file["ms"][5], small[:, row // 4 :, col // 4 :][:, :4, :4], rtol=1e-6)
