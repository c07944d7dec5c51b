"""What all tests share: the command line, tiny rasters, and PAN/MS pairs of a scene known at every point."""

import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import typer.testing
from numpy.typing import NDArray
from rasterio.transform import Affine
from typer.testing import CliRunner

Array = NDArray[Any]

os.environ.setdefault("OMP_NUM_THREADS", "1")
# all commands and their options are built once, not for each command line
typer.testing._get_command = cache(typer.testing._get_command)

DATA = Path(os.environ.get("KSDIFF_SHARED", Path(__file__).resolve().parents[2] / "shared")) / "data"
"""Real imagery beside the checkout, where there is some."""


@pytest.fixture
def real_data() -> Callable[[str], Path]:
    """Return a real folder by name, or skip the test."""

    def find(name: str) -> Path:
        if not (DATA / name).exists():
            pytest.skip(f"no real imagery at {DATA / name}")
        return DATA / name

    return find


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the documentation; a warning, such as of a link that leads nowhere, fails."""
    for name in ("mkdocs", "material", "mkdocstrings"):
        pytest.importorskip(name, reason='no MkDocs: pip install "ksdiff[docs]"')
    root, folder = Path(__file__).resolve().parents[1], tmp_path_factory.mktemp("site")
    command = ["mkdocs", "build", "--strict", "-q", "-f", str(root / "docs" / "mkdocs.yml"), "-d", str(folder)]
    environment = {**os.environ, "PYTHONPATH": str(root), "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run([sys.executable, "-m", *command], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture
def run() -> Callable[..., Any]:
    """Run the command line in this process: ``run("sharpen", pan, ms, "-o", out)`` has an exit_code and a stderr."""

    def invoke(*arguments: Any) -> Any:
        from ksdiff_cli.main import app

        return CliRunner().invoke(app, [str(argument) for argument in arguments])

    return invoke


@pytest.fixture
def fails(run: Callable[..., Any]) -> Callable[..., str]:
    """Run a command line that must fail as people are promised: exit 1, one clear line on stderr, no traceback."""

    def invoke(*arguments: Any) -> str:
        result = run(*arguments)
        assert result.exception is None or isinstance(result.exception, SystemExit), repr(result.exception)
        assert result.exit_code == 1, result.output
        lines = result.stderr.strip().splitlines()
        assert len(lines) == 1, result.stderr
        assert lines[0].startswith("Error: ")
        assert result.stdout == ""
        return str(lines[0])

    return invoke


@pytest.fixture
def weights(tmp_path: Path) -> Callable[..., Path]:
    """Make a network with random weights: ``weights(backbone="lagnet", prior=False)``."""
    import torch
    from network_maker import SMALL

    from ksdiff_cli.models.checkpoint import save_model
    from ksdiff_cli.models.config import ModelConfig
    from ksdiff_cli.models.ksdiff import KSDiff

    def make(**values: Any) -> Path:
        torch.manual_seed(0)
        path = tmp_path / "stage2.safetensors"
        save_model(KSDiff(ModelConfig(**{**SMALL, **values})), path, sensor={}, training={})
        return path

    return make


def write_raster(path: Path, image: Array, **profile: Any) -> Path:
    """Write (bands, h, w) or (h, w) as a GeoTIFF; takes descriptions, tags and mask besides rasterio's profile."""
    image = image if image.ndim == 3 else image[None]
    descriptions, tags = profile.pop("descriptions", None), profile.pop("tags", {})
    mask = profile.pop("mask", None)
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = {"count": image.shape[0], "height": image.shape[1], "width": image.shape[2], "dtype": image.dtype.name}
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
        rasterio.open(path, "w", driver="GTiff", **shape, **profile) as dst,
    ):
        dst.update_tags(**tags)
        if descriptions:
            dst.descriptions = descriptions
        dst.write(image)
        if mask is not None:
            dst.write_mask(mask)
    return path


def read(path: Path) -> Array:
    """Return a raster's values, (bands, height, width)."""
    with rasterio.open(path) as dataset:
        values: Array = dataset.read()
    return values


def tags(path: Path) -> dict[str, str]:
    """Return a raster's tags."""
    with rasterio.open(path) as dataset:
        return dict(dataset.tags())


@pytest.fixture
def seed() -> None:
    """Start torch's random numbers anew."""
    import torch

    torch.manual_seed(0)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Run torch on one thread: the networks of tests are so small that threads only wait for each other."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@dataclass(frozen=True)
class World:
    """A smooth scene known at every point of the ground: what PAN and MS of any grid must show."""

    waves: Array
    """(n, 4): frequency along x and y in cycles per metre, phase, amplitude."""

    def at(self, transform: Affine, height: int, width: int) -> Array:
        """Look at the scene on a grid: (height, width) float64, between about 200 and 800."""
        rows, cols = np.mgrid[:height, :width] + 0.5
        x, y = (
            transform.a * cols + transform.b * rows + transform.c,
            transform.d * cols + transform.e * rows + transform.f,
        )
        out = np.full((height, width), 500.0)
        for fx, fy, phase, amplitude in self.waves:
            out += amplitude * np.sin(2 * np.pi * (fx * x + fy * y) + phase)
        return out


@pytest.fixture
def world() -> World:
    """Return a scene whose finest waves are 12 m long: MS of 2 m pixels sees it all."""
    rng = np.random.default_rng(7)
    angle, length = rng.uniform(0, 2 * np.pi, 24), rng.uniform(12, 80, 24)
    return World(
        np.stack([np.cos(angle) / length, np.sin(angle) / length, rng.uniform(0, 6, 24), np.full(24, 25.0)], 1)
    )


@dataclass(frozen=True)
class PairFiles:
    """A PAN and an MS file in one folder."""

    folder: Path
    pan: Path
    ms: Path


@pytest.fixture
def make_pair(tmp_path: Path, world: World) -> Callable[..., PairFiles]:
    """Return a maker of PAN/MS pairs that show one world, on any two grids.

    By default PAN has 0.5 m pixels, MS 2 m pixels and 4 bands (the world times 1, 2, 3, 4 halves), both start at the
    same corner and are uint16.
    """

    def make(
        name: str = "scene",
        *,
        size: tuple[int, int] = (96, 128),
        pan_grid: Affine | None = None,
        ms_grid: Affine | None = None,
        ms_size: tuple[int, int] | None = None,
        bands: int = 4,
        dtype: str = "uint16",
        crs: str | None = "EPSG:32631",
        edit: Callable[[Array, Array], None] = lambda pan, ms: None,
        pan_profile: dict[str, Any] | None = None,
        ms_profile: dict[str, Any] | None = None,
    ) -> PairFiles:
        pan_grid = pan_grid or Affine(0.5, 0, 593270, 0, -0.5, 5747657)
        ms_grid = ms_grid or Affine(2, 0, 593270, 0, -2, 5747657)
        ratio = abs(ms_grid.a / pan_grid.a)
        ms_size = ms_size or (round(size[0] / ratio), round(size[1] / ratio))
        pan = world.at(pan_grid, *size)[None]
        ms = np.stack([world.at(ms_grid, *ms_size) * (band + 1) / 2 for band in range(bands)])
        if np.dtype(dtype).kind != "f":
            pan, ms = np.rint(pan), np.rint(ms)
        pan, ms = pan.astype(dtype), ms.astype(dtype)
        edit(pan, ms)
        place = {"crs": crs} if crs else {}
        folder = tmp_path / name
        return PairFiles(
            folder,
            write_raster(
                folder / "pan.tif", pan, **place, **({"transform": pan_grid} if crs else {}), **(pan_profile or {})
            ),
            write_raster(
                folder / "ms.tif", ms, **place, **({"transform": ms_grid} if crs else {}), **(ms_profile or {})
            ),
        )

    return make


def measure_shift(reference: Array, image: Array, cutoff: float) -> tuple[float, float]:
    """Measure by phase correlation how far ``image`` lies displaced against ``reference``.

    Args:
        reference: (H, W).
        image: (H, W), up to about a pixel off.
        cutoff: highest frequency used, cycles per pixel.

    Returns:
        Rows and columns, in pixels; positive where ``image`` lies further down or right.
    """
    window = np.hanning(reference.shape[0])[:, None] * np.hanning(reference.shape[1])
    first, second = (np.fft.fft2((x - x.mean()) * window) for x in (reference, image))
    rows, cols = np.fft.fftfreq(reference.shape[0])[:, None], np.fft.fftfreq(reference.shape[1])[None]
    radius = np.hypot(rows, cols)
    chosen = (radius > 0.01) & (radius < cutoff)
    cross = (first * np.conj(second))[chosen]
    frequency = np.stack([np.broadcast_to(axis, reference.shape)[chosen] for axis in (rows, cols)], 1)
    weight, shift = np.sqrt(np.abs(cross)), np.zeros(2)
    for _ in range(5):
        phase = np.angle(cross * np.exp(-2j * np.pi * (frequency @ shift))) / (2 * np.pi)
        # where the two images show different things the phase is anything: leave that out
        alike = np.abs(phase) < 0.15
        slope = np.linalg.lstsq(frequency[alike] * weight[alike, None], phase[alike] * weight[alike], rcond=None)[0]
        shift = shift + slope
    return float(shift[0]), float(shift[1])


def start_child(work: Callable[..., None], *arguments: Any, preload: tuple[str, ...]) -> Any:
    """Start a second process, forked from a server without threads, whatever other tests have started here.

    The server imports modules once for all its children; only the first call of a test process says which.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(preload))
    process = context.Process(target=work, args=arguments)
    process.start()
    return process


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Let no file grow beyond a size, as a full disk would."""
    resource = pytest.importorskip("resource")
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
