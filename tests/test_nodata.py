"""Nodata: found whatever says so, filled alike in every window, and without a fringe in what comes out."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from conftest import write_raster
from numpy.typing import NDArray
from rasterio.enums import ColorInterp
from rasterio.transform import Affine
from scipy.ndimage import distance_transform_edt, gaussian_filter

from ksdiff_cli.errors import KsdiffError
from ksdiff_cli.fusers.classical import make_fuser
from ksdiff_cli.numerics.fill import MS_LEVELS, fill_invalid, filling_area, follow, grow
from ksdiff_cli.numerics.grids import nearest
from ksdiff_cli.numerics.moments import SceneStatistics
from ksdiff_cli.options.sharpening import SharpenOptions
from ksdiff_cli.products import make_pair as scene_of
from ksdiff_cli.raster.pair import ScenePair, open_pair
from ksdiff_cli.sharpening.engine import sharpen_scene
from ksdiff_cli.simulation.files import simulate_arrays

Array = NDArray[Any]
Masks = tuple[Array, Array]

SIDE, RATIO = 384, 4
PLACE = {"crs": "EPSG:32631"}


def on_ms(pan_valid: Array, share: float = 0.5) -> Array:
    """MS pixels of which at least this share is valid on PAN."""
    size = [side // RATIO for side in pan_valid.shape]
    covered: Array = pan_valid.reshape(size[0], RATIO, size[1], RATIO).mean((1, 3)) >= share
    return covered


def ragged() -> Array:
    """Valid pixels outside irregular holes of 2 to 60 pixels."""
    random = np.random.default_rng(5)
    waves = [gaussian_filter(random.normal(size=(SIDE, SIDE)), sigma, mode="wrap") for sigma in (6, 2)]
    holes: Array = waves[0] / waves[0].std() + 0.35 * waves[1] / waves[1].std() < 1.6
    return holes


def slanted() -> Array:
    """Valid pixels of a scene whose edges run askew through the file, with stripes missing as in Landsat 7's."""
    rows, cols = np.mgrid[:SIDE, :SIDE]
    inside = (rows - 0.27 * cols > 20) & (cols + 0.25 * rows > 60) & (rows + 0.3 * cols < 1.1 * SIDE)
    valid: Array = inside & ((cols + 0.2 * rows) % 97 > 9)
    return valid


def everywhere() -> Array:
    return np.ones((SIDE, SIDE), bool)


def scattered(shape: tuple[int, int], share: float) -> Array:
    return np.random.default_rng(1).random(shape) > share


MASKS: dict[str, Callable[[], Masks]] = {
    "holes": lambda: (ragged(), on_ms(ragged(), 1.0)),
    "edges and stripes": lambda: (slanted(), on_ms(slanted())),
    "MS only": lambda: (everywhere(), on_ms(ragged())),
    "PAN only": lambda: (ragged(), on_ms(everywhere())),
    "single pixels": lambda: (scattered((SIDE, SIDE), 5e-4), scattered((SIDE // RATIO, SIDE // RATIO), 4e-3)),
}
"""(PAN, MS) valid pixels."""


@pytest.fixture(scope="module")
def images() -> tuple[Array, Array, Array]:
    """PAN, MS and truth of a simulated scene."""
    return simulate_arrays(SIDE, seed=1)


@pytest.fixture(scope="module")
def sharpened(images: Any, tmp_path_factory: Any) -> Callable[[str, Masks], tuple[Array, Array]]:
    """Return what sharpens the scene with a method and masks.

    It gives the error in deviations of each band, and where there is a result.
    """
    pan, ms, truth = images

    def make(method: str, masks: Masks) -> tuple[Array, Array]:
        place = tmp_path_factory.mktemp("nodata")
        files = write_masked(place, pan, ms, *masks)
        scene, out = scene_of(str(files[0]), [str(files[1])]), place / "out.tif"
        # MS nodata of float outputs is NaN: no value is taken for it
        sharpen_scene(scene, out, make_fuser(method), SharpenOptions(dtype="float32", fidelity=False))
        with rasterio.open(out) as dataset:
            fused, valid = dataset.read(), dataset.read_masks(1) > 0
        return (fused - truth) / truth.std((1, 2))[:, None, None], valid

    return make


@pytest.fixture(scope="module")
def whole(sharpened: Any) -> Callable[[str], Array]:
    """Return what gives a method's errors on the scene without holes, each once."""
    return cache(lambda method: sharpened(method, (everywhere(), on_ms(everywhere())))[0])


def write_masked(folder: Path, pan: Array, ms: Array, pan_valid: Array, ms_valid: Array) -> tuple[Path, Path]:
    grids = Affine(0.5, 0, 593270, 0, -0.5, 5747657), Affine(2, 0, 593270, 0, -2, 5747657)
    images = np.where(pan_valid, pan, 0), np.where(ms_valid, ms, 0)
    names = "pan.tif", "ms.tif"
    pan_path, ms_path = (
        write_raster(folder / name, image, transform=grid, nodata=0, **PLACE)
        for name, image, grid in zip(names, images, grids, strict=True)
    )
    return pan_path, ms_path


def rms(error: Array, where: Array) -> float:
    return float(np.sqrt((error[:, where] ** 2).mean()))


@pytest.mark.parametrize(
    ("method", "masks"),
    [
        *(("ksdiff", masks) for masks in MASKS),
        *(("gsa", masks) for masks in ("holes", "edges and stripes", "MS only")),
        *(("mtf-glp-fs", masks) for masks in ("holes", "PAN only", "single pixels")),
        ("exp", "holes"),
    ],
)
def test_no_fringe_at_nodata_and_no_valid_pixel_lost_or_made(
    method: str, masks: str, sharpened: Any, whole: Callable[[str], Array]
) -> None:
    pan_valid, ms_valid = MASKS[masks]()
    error, valid = sharpened(method, (pan_valid, ms_valid))
    np.testing.assert_array_equal(valid, pan_valid & ms_valid.repeat(RATIO, 0).repeat(RATIO, 1))
    depth = distance_transform_edt(np.pad(valid, 1, constant_values=True))[1:-1, 1:-1]
    near, inside = valid & (depth <= 8), valid & (depth > 16)
    # what lies at the edge may be harder or easier ground than the rest: the scene without holes tells
    harder = max(1.0, rms(whole(method), near) / rms(whole(method), inside))
    assert rms(error, near) < 1.3 * harder * rms(error, inside)
    assert rms(error, near) < 1.3 * rms(whole(method), near)


# --- the same in every window ---

GRIDS = {
    "ratio 4": (Affine(0.5, 0, 593270, 0, -0.5, 5747657), Affine(2, 0, 593270, 0, -2, 5747657)),
    "ratio 3, MS beyond PAN": (Affine(0.5, 0, 593270, 0, -0.5, 5747657), Affine(1.5, 0, 593250.3, 0, -1.5, 5747671)),
    "non-integer ratio": (Affine(0.5, 0, 593270, 0, -0.5, 5747657), Affine(1.98, 0, 593270.3, 0, -2.03, 5747656.8)),
    "opposite directions": (Affine(0.5, 0, 593270, 0, -0.5, 5747657), Affine(2, 0, 593270, 0, 2, 5747657 - 128)),
}


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("dtype", ["uint16", "float32"])
def test_a_pixel_has_the_same_bits_in_every_window(grid: str, dtype: str, make_pair: Any) -> None:
    random = np.random.default_rng(0)

    def dig(pan: Array, ms: Array) -> None:
        for image, sigma in ((pan, 4), (ms, 1.5)):
            holes = gaussian_filter(random.normal(size=image.shape[1:]), sigma)
            image += (30 * random.random(image.shape)).astype(image.dtype)
            image[:, holes > 1.3 * holes.std()] = 0

    pan_grid, ms_grid = GRIDS[grid]
    beyond = 20 if "beyond" in grid else 0
    size = tuple(int(side // abs(step)) + 2 * beyond for side, step in ((128, ms_grid.e), (150, ms_grid.a)))
    profile = {"nodata": 0, "tiled": True, "blockxsize": 64, "blockysize": 64}
    files = make_pair(
        size=(256, 300), ms_size=size, pan_grid=pan_grid, ms_grid=ms_grid, dtype=dtype, edit=dig, pan_profile=profile,
        ms_profile=profile,
    )  # fmt: skip
    with open_pair(scene_of(str(files.pan), [str(files.ms)])) as pair:
        height, width = pair.shape
        whole = pair.read(0, 0, height, width)
        assert 0.5 < whole.valid.mean() < 0.95
        for _ in range(30):
            row, col = int(random.integers(height)), int(random.integers(width))
            high, wide = int(random.integers(1, 1 + height - row)), int(random.integers(1, 1 + width - col))
            part, place = pair.read(row, col, high, wide), np.s_[:, row : row + high, col : col + wide]
            np.testing.assert_array_equal(part.pan, whole.pan[place])
            np.testing.assert_array_equal(part.ms_up, whole.ms_up[place])
            np.testing.assert_array_equal(part.valid, whole.valid[place[1:]])


def test_without_statistics_the_first_hole_gathers_them(make_pair: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    files = make_pair(edit=lambda pan, ms: ms[:, :4, :4].fill(0), ms_profile={"nodata": 0})
    scene = scene_of(str(files.pan), [str(files.ms)])
    with open_pair(scene) as pair:
        pair.read(40, 40, 40, 40)
        assert pair.fill is None
        first = pair.read(0, 0, 40, 40)
        known = pair.fill
    with open_pair(scene) as pair:
        pair.fill = known
        monkeypatch.setattr(ScenePair, "statistics", lambda self: pytest.fail("they are known"))
        np.testing.assert_array_equal(pair.read(0, 0, 40, 40).ms_up, first.ms_up)


def test_a_scene_without_data_is_refused(make_pair: Any) -> None:
    files = make_pair(edit=lambda pan, ms: ms.fill(0), ms_profile={"nodata": 0})
    with (
        open_pair(scene_of(str(files.pan), [str(files.ms)])) as pair,
        pytest.raises(KsdiffError, match=r"ms\.tif: every pixel is nodata"),
    ):
        pair.statistics()


# --- what says that a pixel is invalid ---


def _nodata(path: Path, image: Array, valid: Array) -> None:
    _rewrite(path, np.where(valid, image, 0), nodata=0)


def _nan(path: Path, image: Array, valid: Array) -> None:
    _rewrite(path, np.where(valid, image, np.nan).astype(np.float32))


def _infinite(path: Path, image: Array, valid: Array) -> None:
    _rewrite(path, np.where(valid, image, np.inf).astype(np.float64))


def _huge(path: Path, image: Array, valid: Array) -> None:
    lowest = float(np.finfo(np.float32).min)
    _rewrite(path, np.where(valid, image, lowest).astype(np.float32), nodata=lowest)


def _mask_inside(path: Path, image: Array, valid: Array) -> None:
    _rewrite(path, image, mask=valid)


def _mask_beside(path: Path, image: Array, valid: Array) -> None:
    _rewrite(path, image)
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=False), rasterio.open(path, "r+") as dataset:
        dataset.write_mask(valid)
    assert path.with_name(path.name + ".msk").is_file()


def _alpha(path: Path, image: Array, valid: Array) -> None:
    opaque = (valid * np.iinfo(image.dtype).max).astype(image.dtype)
    _rewrite(path, np.concatenate([image, opaque[None]]))
    with rasterio.open(path, "r+") as dataset:
        dataset.colorinterp = [ColorInterp.gray, *[ColorInterp.undefined] * (len(image) - 1), ColorInterp.alpha]


def _rewrite(path: Path, image: Array, **profile: Any) -> None:
    with rasterio.open(path) as dataset:
        place = {"crs": dataset.crs, "transform": dataset.transform}
    write_raster(path, image, **place, **profile)


KINDS = {
    "nodata": _nodata,
    "NaN": _nan,
    "infinite": _infinite,
    "lowest float": _huge,
    "mask inside": _mask_inside,
    "mask beside": _mask_beside,
    "alpha": _alpha,
}


@pytest.mark.parametrize("kind", KINDS)
def test_masks_of_every_kind_come_through(kind: str, make_pair: Any, run: Any) -> None:
    files = make_pair()
    valid = {}
    for name, path, step, moved in (("pan", files.pan, 4, 0), ("ms", files.ms, 1, 8)):
        with rasterio.open(path) as dataset:
            image = dataset.read()
        known = valid[name] = np.ones(image.shape[1:], bool)
        known[(5 + moved) * step : (9 + moved) * step + 1, 3 * step : 20 * step] = False
        known[-1, -1] = known[(15 - moved) * step, 25 * step] = False
        KINDS[kind](path, image, known)
    scene = scene_of(str(files.pan), [str(files.ms)])
    assert len(scene.ms) == 4
    expected = valid["pan"] & valid["ms"].repeat(4, 0).repeat(4, 1)
    with open_pair(scene) as pair:
        assert pair.statistics().holes
        tile = pair.read(0, 0, *pair.shape)
        np.testing.assert_array_equal(tile.valid, expected)
        # what was filled is as the rest: 200 to 800 DN of PAN, half to twice that of the bands
        assert 150 < tile.pan.min() < tile.pan.max() < 900
        assert 60 < tile.ms_up.min() < tile.ms_up.max() < 1900
    out = files.folder / "out.tif"
    result = run("sharpen", files.pan, files.ms, "-o", out, "--method", "gsa", "--no-registration-check")
    assert result.exit_code == 0, result.stderr
    with rasterio.open(out) as dataset:
        for band in dataset.indexes:
            np.testing.assert_array_equal(dataset.read_masks(band) > 0, expected)


def test_nodata_that_the_type_cannot_hold_masks_nothing(make_pair: Any) -> None:
    files = make_pair(ms_profile={"nodata": 0})
    path = files.folder / "ms.vrt"
    text = f"""<VRTDataset rasterXSize="32" rasterYSize="24">
      <SRS>EPSG:32631</SRS><GeoTransform>593270, 2, 0, 5747657, 0, -2</GeoTransform>
      <VRTRasterBand dataType="UInt16" band="1"><NoDataValue>-9999</NoDataValue><SimpleSource>
      <SourceFilename>{files.ms}</SourceFilename><SourceBand>1</SourceBand></SimpleSource></VRTRasterBand></VRTDataset>"""
    path.write_text(text)
    with open_pair(scene_of(str(files.pan), [str(path)])) as pair:
        assert pair.read_ms(0, 0, 24, 32)[1].all()


# --- filling itself ---

STATISTICS = SceneStatistics(100.0, 20.0, np.array([50.0]), np.array([10.0]))


def test_filling_keeps_valid_pixels_and_leaves_no_cliff() -> None:
    image = np.full((1, 20, 20), 100, np.float32)
    valid = np.ones((20, 20), bool)
    valid[5:15, 5:15] = False
    image[:, ~valid] = np.nan
    filled = fill_invalid(image, valid)
    np.testing.assert_allclose(filled, 100, rtol=1e-5)
    assert (filled[:, valid] == 100).all()
    assert fill_invalid(image, np.ones((20, 20), bool)) is image
    assert fill_invalid(image, np.zeros((20, 20), bool)) is image


def test_holes_grow_from_what_is_near_and_fade_to_what_is_given() -> None:
    cols = np.arange(64, dtype=np.float32)
    image, valid = np.broadcast_to(np.where(cols < 32, cols, np.nan), (1, 64, 64)), np.zeros((64, 64), bool)
    valid[:, :32] = True
    filled = grow(image, valid, np.array([500.0]), 3)
    row = filled[0, 32]
    assert row[32] == pytest.approx(31, abs=1)
    assert (row[60:] == 500).all()
    assert np.abs(np.diff(row)).max() < 150
    np.testing.assert_array_equal(filled[0, :, :32], image[0, :, :32])


def test_ms_goes_on_as_pan_does() -> None:
    pan = 100 + 20 * gaussian_filter(np.random.default_rng(2).normal(size=(64, 64)), 1.5) / 0.2
    ms = (0.5 * pan)[None].astype(np.float32)
    valid = np.ones((64, 64), bool)
    valid[20:30, 24:40] = False
    broken = np.where(valid, ms, np.nan)
    followed, alone = follow(broken, valid, pan, STATISTICS), grow(broken, valid, np.array([50.0]), MS_LEVELS)
    errors = [np.abs(filled - ms)[:, ~valid].mean() for filled in (followed, alone)]
    assert errors[0] < 0.2 * errors[1]
    np.testing.assert_array_equal(followed[:, valid], ms[:, valid])


def test_far_from_data_both_are_the_scenes_means() -> None:
    valid = np.zeros((96, 96), bool)
    valid[:8] = True
    random = np.random.default_rng(0)
    pan, ms = random.normal(100, 20, (96, 96)), random.normal(50, 10, (1, 96, 96)).astype(np.float32)
    pan[60:] = STATISTICS.pan_mean
    np.testing.assert_allclose(follow(ms, valid, pan, STATISTICS)[:, 60:], 50, rtol=1e-6)


@pytest.mark.parametrize(("start", "count", "size"), [(0, 1, 1), (0, 50, 50), (37, 5, 400), (380, 20, 400)])
def test_the_area_that_filling_needs(start: int, count: int, size: int) -> None:
    first, stop = filling_area(start, count, size, 2, margin=5)
    assert first % 4 == 0
    assert stop == size or stop % 4 == 0
    assert 0 <= first <= max(0, start - 13)
    assert min(size, start + count + 13) <= stop <= size


def test_the_pixel_whose_centre_is_nearest_decides(make_pair: Any) -> None:
    files = make_pair(edit=lambda pan, ms: ms[0, 10, 10:12].fill(0), ms_profile={"nodata": 0})
    with open_pair(scene_of(str(files.pan), [str(files.ms)])) as pair:
        tile = pair.read(0, 0, *pair.shape)
        rows = nearest(pair.grid.rows, pair.shape[0], 0, pair.ms_shape[0])
    assert rows.tolist() == np.arange(24).repeat(4).tolist()
    found = np.argwhere(~tile.valid)
    assert found.min(0).tolist() == [40, 40]
    assert found.max(0).tolist() == [43, 47]


def halves(overlap: int) -> Callable[[Array, Array], None]:
    """Leave PAN its left half and so many columns more, in MS pixels, and MS its right half."""

    def edit(pan: Array, ms: Array) -> None:
        middle = ms.shape[2] // 2
        ms[:, :, :middle] = 0
        pan[:, :, (middle + overlap) * RATIO :] = 0

    return edit


def test_images_whose_valid_parts_do_not_meet(make_pair: Any, fails: Any) -> None:
    profiles = {"pan_profile": {"nodata": 0}, "ms_profile": {"nodata": 0}}
    apart = make_pair("apart", edit=halves(0), **profiles)
    command = ("sharpen", apart.pan, apart.ms, "-o", apart.folder / "out.tif", "--method", "exp")
    line = fails(*command, "--no-registration-check")
    assert "pan.tif: is nodata wherever" in line and "ms.tif holds data" in line
    assert sorted(path.name for path in apart.folder.iterdir()) == ["ms.tif", "pan.tif"]
    together = make_pair("together", edit=halves(1), **profiles)
    with open_pair(scene_of(str(together.pan), [str(together.ms)])) as pair:
        assert pair.statistics().holes


@pytest.mark.parametrize("format", ["GTiff", "COG", "VRT"])
def test_a_part_without_data_is_told(format: str, make_pair: Any, run: Any) -> None:
    def dig(pan: Array, ms: Array) -> None:
        pan[:, :, :64] = 0

    files = make_pair(edit=dig, pan_profile={"nodata": 0})
    out = files.folder / ("out.vrt" if format == "VRT" else "out.tif")
    command = ("sharpen", files.pan, files.ms, "-o", out, "--method", "exp", "--no-registration-check", "-f", format)
    empty = run(*command, "--window", "0,0,96,64")
    assert empty.exit_code == 0 and f"Note: {out}: every pixel is nodata" in empty.stderr
    some = run(*command, "--overwrite", "--window", "0,0,96,65")
    assert some.exit_code == 0 and "every pixel" not in some.stderr


@pytest.mark.parametrize(("method", "hole"), [("exp", "pan"), ("exp", "ms"), ("bdsd-pc", "both"), ("ksdiff", "both")])
def test_windows_without_data_are_not_filled(
    method: str, hole: str, make_pair: Any, run: Any, tmp_path: Path, monkeypatch: Any, weights: Any
) -> None:
    """Of 36 windows three hold data: no other one is filled or fused, and every pixel is what it was."""

    def dig(pan: Array, ms: Array) -> None:
        inside_pan, inside_ms = pan[:, 70:120, 100:250].copy(), ms[:, 16:32, 24:64].copy()
        if hole != "ms":
            pan[:] = 0
            pan[:, 70:120, 100:250] = inside_pan
        if hole != "pan":
            ms[:] = 0
            ms[:, 16:32, 24:64] = inside_ms

    files = make_pair(size=(384, 384), edit=dig, pan_profile={"nodata": 0}, ms_profile={"nodata": 0})
    more = ("--checkpoint", weights()) if method == "ksdiff" else ()
    filled: list[tuple[int, ...]] = []

    def count(fill: Callable[..., Array]) -> Callable[..., Array]:
        def counting(image: Array, *rest: Any) -> Array:
            filled.append(image.shape)
            return fill(image, *rest)

        return counting

    def sharpen(name: str) -> bytes:
        how = ("--method", method, "--tile", 64, "--no-registration-check", *more)
        result = run("sharpen", files.pan, files.ms, "-o", tmp_path / name, *how)
        assert result.exit_code == 0, result.stderr
        with rasterio.open(tmp_path / name) as dataset:
            return dataset.read().tobytes()

    monkeypatch.setattr("ksdiff_cli.raster.pair.grow", count(grow))
    monkeypatch.setattr("ksdiff_cli.raster.pair.follow", count(follow))
    skipped, few = sharpen("skipped.tif"), len(filled)
    monkeypatch.setattr("ksdiff_cli.raster.pair.ScenePair.holds_data", lambda pair, box: True)
    filled.clear()
    assert sharpen("all.tif") == skipped
    assert few < len(filled) / 2
