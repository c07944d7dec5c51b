"""What people get wrong, over all commands: one line that names it and says what to do, and nothing left behind."""

import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from conftest import write_raster
from rasterio.transform import Affine

pytest.importorskip("torch")
from ksdiff_cli.models.checkpoint import save_model
from ksdiff_cli.models.config import ModelConfig
from ksdiff_cli.models.ksdiff import KSDiff
from ksdiff_cli.weights import SHIPPED

CORNER = (593270, 5747657)
STRANGE = "a b/größe 東京\nzwei.tif"


@dataclass(frozen=True)
class Place:
    """A folder of right and of wrong files."""

    root: Path

    def __truediv__(self, name: str) -> Path:
        return self.root / name


def grid(pixel: float, x: float = CORNER[0]) -> Affine:
    return Affine(pixel, 0, x, 0, -pixel, CORNER[1])


def write_patches(path: Path, bands: int = 4, gt: bool = True) -> None:
    rng = np.random.default_rng(0)
    path.parent.mkdir(exist_ok=True)
    with h5py.File(path, "w") as file:
        for key, channels, side in (("pan", 1, 64), ("ms", bands, 16), ("lms", bands, 64), ("gt", bands, 64)):
            if key != "gt" or gt:
                file[key] = rng.integers(100, 900, (2, channels, side, side)).astype("uint16")


def write_weights(path: Path, stage: int, bands: int | None) -> None:
    model = KSDiff(ModelConfig(bands=bands, width=8, depths=(1, 1, 1), denoiser_width=16), stage=stage)
    save_model(model, path, sensor={}, training={})


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    root, rng = tmp_path_factory.mktemp("wrong"), np.random.default_rng(0)
    pan, ms = rng.integers(300, 700, (96, 128)).astype("uint16"), rng.integers(300, 700, (4, 24, 32)).astype("uint16")
    crs = "EPSG:32631"
    write_raster(root / "pan.tif", pan, crs=crs, transform=grid(0.5))
    write_raster(root / "ms.tif", ms, crs=crs, transform=grid(2), descriptions=("blue", "green", "red", "nir"))
    write_raster(root / "nameless.tif", ms, crs=crs, transform=grid(2))
    write_raster(root / "utm32.tif", ms, crs="EPSG:32632", transform=grid(2))
    write_raster(root / "far.tif", ms, crs=crs, transform=grid(2, 700000))
    write_raster(root / "one.tif", ms[:1], crs=crs, transform=grid(2))
    write_raster(root / "equal.tif", np.stack([pan] * 4), crs=crs, transform=grid(0.5))
    write_raster(root / "coarse.tif", ms[:, :2, :2], crs=crs, transform=grid(100))
    write_raster(root / "nan.tif", np.full((4, 24, 32), np.nan, "float32"), crs=crs, transform=grid(2))
    write_raster(root / "void.tif", np.zeros((4, 24, 32), "uint16"), crs=crs, transform=grid(2), nodata=0)
    write_raster(root / "bright.tif", ms + 3000, crs=crs, transform=grid(2))
    write_raster(root / "share.tif", (ms / 9999).astype("float32"), crs=crs, transform=grid(2))
    write_raster(root / "plain_a.tif", ms)
    write_raster(root / "plain_b.tif", ms[:, :20, :20])
    write_raster(root / "plain_pan.tif", pan)
    write_raster(root / "B02.tif", rng.integers(300, 700, (1, 80, 80)).astype("uint16"), crs=crs, transform=grid(10))
    write_raster(root / "B03.tif", rng.integers(300, 700, (1, 80, 80)).astype("uint16"), crs=crs, transform=grid(10))
    write_raster(root / "B05.tif", rng.integers(300, 700, (1, 40, 40)).astype("uint16"), crs=crs, transform=grid(20))
    write_raster(root / "product" / "pan.tif", pan, crs=crs, transform=grid(0.5))
    write_raster(root / "product" / "ms.tif", ms, crs=crs, transform=grid(2))
    for name in ("text.tif", "text.h5", "text.safetensors", "taken.tif", "notes.txt", "list.csv"):
        (root / name).write_text("PAN, as promised\n")
    (root / "empty.tif").touch()
    (root / "half.toml").write_text('name = "X"\nbands = [')
    (root / "other.toml").write_text('name = "X"\nbands = ["a"]')
    (root / "good.csv").write_text("pan,ms,name\npan.tif,ms.tif,a\n")
    (root / "twins.csv").write_text("pan,ms,name\npan.tif,ms.tif,a\npan.tif,ms.tif,A\n")
    (root / "item.json").write_text('{"type": "Feature"}')
    (root / "bad.zip").write_bytes(b"PK\x03\x04 no more")
    (root / "cut.tif").write_bytes((root / "ms.tif").read_bytes()[:2000])
    for name in ("nothing", "dir.tif", "own"):
        (root / name).mkdir()
    (root / "own" / "thesis.doc").touch()
    write_weights(root / "stage1.safetensors", 1, 4)
    write_weights(root / "eight.safetensors", 2, 8)
    (root / "cut.safetensors").write_bytes(SHIPPED.read_bytes()[:100_000])
    for name in ("train", "valid", "test"):
        write_patches(root / "patches" / f"{name}.h5")
    write_patches(root / "no_gt.h5", gt=False)
    write_patches(root / "eight" / "train.h5", bands=8)
    return Place(root)


Case = tuple[str, Callable[[Place], tuple[Any, ...]], tuple[str, ...], int]
CASES: list[Case] = []


def add(name: str, arguments: Callable[[Place], tuple[Any, ...]], *words: str, code: int = 1) -> None:
    CASES.append((name, arguments, words, code))


def exp(
    name: str,
    *words: str,
    pan: str = "pan.tif",
    ms: str = "ms.tif",
    out: str = "out.tif",
    more: Any = (),
    code: int = 1,
) -> None:
    """A mistake in `ksdiff sharpen PAN MS -o OUT --method exp`; of ``more``, strings that begin with @ are files."""

    def arguments(place: Place) -> tuple[Any, ...]:
        own = [place / word[1:] if str(word).startswith("@") else word for word in more]
        method = () if "--method" in own or "--checkpoint" in own else ("--method", "exp")
        return "sharpen", place / pan, place / ms, "-o", place / out if out != "-" else out, *method, *own

    add(f"sharpen: {name}", arguments, *words, code=code)


# inputs
exp("PAN and MS swapped", "ms.tif", "swapped", pan="ms.tif", ms="pan.tif")
exp("PAN given as MS too", "pan.tif", "swapped", ms="pan.tif")
exp("MS given as PAN too", "ms.tif", "swapped", pan="ms.tif")
exp("missing PAN", "nowhere.tif: no such file", pan="nowhere.tif")
exp("missing MS", "nowhere.tif: no such file", ms="nowhere.tif")
exp("a folder for MS", "nothing: is a folder", ms="nothing")
exp("a text called .tif", "text.tif: cannot be opened as a raster", ms="text.tif")
exp("an empty file", "empty.tif: cannot be opened as a raster", pan="empty.tif")
exp("a truncated file", "cut.tif", "damaged or incomplete", ms="cut.tif")
exp("another CRS", "utm32.tif", "EPSG:32632", "--warp", ms="utm32.tif")
exp("no overlap", "far.tif", "does not overlap", ms="far.tif")
exp("ratio 1 of one band", "swapped", ms="pan.tif", pan="one.tif")
exp("ratio 1", "equal.tif", "not smaller", ms="equal.tif")
exp("ratio 200", "coarse.tif", "200.0 x 200.0", ms="coarse.tif")
exp("nothing but NaN", "nan.tif: every pixel is nodata", ms="nan.tif")
exp("nothing but nodata", "void.tif: every pixel is nodata", ms="void.tif")
exp("a path with blanks, accents and a line end", "a b/größe 東京\\nzwei.tif: no such file", ms=STRANGE)
exp("a Windows path", "C:\\data\\ms.tif: no such file", "/", ms="C:\\data\\ms.tif")
exp("an .h5 file for MS", "no_gt.h5", ms="no_gt.h5")
add("sharpen: an address without a server", lambda p: (
    "sharpen", "https://localhost:1/pan.tif", p / "ms.tif", "-o", p / "out.tif", "--method", "exp",
), "https://localhost:1/pan.tif: cannot be fetched")  # fmt: skip
add("sharpen: PAN alone", lambda p: ("sharpen", p / "pan.tif", "-o", p / "out.tif"), "pan.tif: is a file", "PAN and MS")
add("sharpen: an empty folder", lambda p: ("sharpen", p / "nothing", "-o", p / "out.tif"), "no scene found")
add("sharpen: a folder that is not there", lambda p: ("sharpen", p / "no", "-o", p / "out.tif"), "no such folder")
add("sharpen: nothing", lambda p: ("sharpen", "-o", p / "out.tif"), "name PAN and MS", code=2)
# bands, sensors, methods
exp("band 0", "no MS band 0, only 1 to 4", more=("-b", "0"))
exp("band 9", "no MS band 9, only 1 to 4", more=("-b", "9"))
exp("a band of a file without names", "no MS band 'red'", "by number", ms="nameless.tif", more=("-b", "red"))
exp("a misspelt band", "did you mean red?", "blue, green, red, nir", more=("-b", "rde"))
exp("an empty band", "-b takes band numbers or names", more=("-b", "1,,2"), code=2)
exp("a misspelt sensor", "did you mean WV3?", more=("--sensor", "WV33"))
exp("a sensor that nobody knows", "no sensor is called 'Sputnik'", "WV3", more=("--sensor", "Sputnik"))
exp("a sensor file that is missing", "my.toml", more=("--sensor", "my.toml"))
exp("a misspelt method", "--method", "did you mean gsa?", more=("--method", "gssa"), code=2)
# outputs
exp("a missing folder", "the folder", "does not exist; make it first", out="nowhere/out.tif")
exp("a folder as output", "dir.tif: is a folder", out="dir.tif")
exp("an input as output", "ms.tif: is one of the inputs", out="ms.tif", more=("--overwrite",))
exp("a file as folder", "is a file, not a folder", out="pan.tif/out.tif")
exp("an output that exists", "taken.tif: exists already", "--overwrite", out="taken.tif")
exp("a picture as output", "out.jpg: the output is a GeoTIFF", ".tif", out="out.jpg")
exp("an output without suffix", "out: the output is a GeoTIFF", out="out")
exp("standard output", "-: a raster cannot be written to standard output", "name a file", out="-")
exp("--co without a value", "--co takes NAME=VALUE, not COMPRESS", more=("--co", "COMPRESS"), code=2)
exp("--co that GDAL does not know", "NONSENSE", more=("--co", "NONSENSE=1"))
exp("--co with a wrong value", "COMPRESS", more=("--co", "COMPRESS=ZIPPY"))
exp("an unknown type", "did you mean uint16?", more=("-t", "uint6"), code=2)
exp("a type too small", "-t uint8", "255", "uint16", ms="bright.tif", more=("-t", "uint8"))
exp("a type too coarse", "-t uint16", "float32", ms="share.tif", more=("-t", "uint16"))
exp("an unknown format", "did you mean cog?", more=("-f", "cogg"), code=2)
exp("a quicklook of unknown kind", "look.gif", ".png", more=("--quicklook", "@look.gif"))
# parts, windows, machine
exp("--tile 7", "--tile 7", "multiple of 16", more=("--tile", "7"), code=2)
exp("--tile x", "--tile", "integer", more=("--tile", "x"), code=2)
exp("--tile 0", "--tile 0", "multiple of 16", more=("--tile", "0"), code=2)
exp("--tile 32", "--tile 32", "at least 64", more=("--tile", "32"), code=2)
exp("--memory nan", "memory nan", "number above 0", more=("--memory", "nan"), code=2)
exp("--memory inf", "memory inf", "number above 0", more=("--memory", "inf"), code=2)
exp("--memory too small", "--memory 0.01", "or more", more=("--memory", "0.01"))
exp("--bbox outside", "--bbox", more=("--bbox", "0,0,1,1"))
exp("--bbox of three", "--bbox takes four numbers", more=("--bbox", "0,0,1"), code=2)
exp("--bbox in no CRS", "EPSG:99999999", more=("--bbox", "0,0,1,1", "--bbox-crs", "EPSG:99999999"))
exp("--window malformed", "--window takes four whole numbers", more=("--window", "0 0 9 9"), code=2)
exp("--window outside", "--window", more=("--window", "900,0,10,10"))
exp("--window and --bbox", "leave one out", more=("--window", "0,0,9,9", "--bbox", "0,0,1,1"), code=2)
exp("--threads 0", "--threads", "greater than or equal to 1", more=("--threads", "0"), code=2)
exp("a misspelt option", "--methd", "did you mean --method?", more=("--methd", "gsa"), code=2)
add("a misspelt command", lambda p: ("sharpn", p / "pan.tif"), "Did you mean 'sharpen'?", code=2)
add("sharpen: no output", lambda p: ("sharpen", p / "pan.tif", p / "ms.tif"), "--output or -o is missing", code=2)
add(
    "sharpen: a batch that is no list",
    lambda p: ("sharpen", "--batch", p / "list.csv", "-o", p / "o"),
    "list.csv",
    "pan",
)
add(
    "sharpen: a batch that is missing", lambda p: ("sharpen", "--batch", p / "no.csv", "-o", p / "o"), "no.csv: no such"
)
# weights
exp("weights that are a text", "text.safetensors: is not a safetensors", more=("--checkpoint", "@text.safetensors"))
exp("weights of stage 1", "stage1.safetensors: holds stage 1", "stage 2", more=("--checkpoint", "@stage1.safetensors"))
exp(
    "weights for other bands",
    "eight.safetensors: the weights are for 8",
    "have 4",
    more=("--checkpoint", "@eight.safetensors"),
)
exp("truncated weights", "cut.safetensors", more=("--checkpoint", "@cut.safetensors"))
exp("missing weights", "no.safetensors: no such checkpoint", more=("--checkpoint", "@no.safetensors"))
exp("weights for a classical method", "--checkpoint goes with", more=("--method", "gsa", "--checkpoint", "x"), code=2)
exp("a GPU that is not there", "--device cuda", "choose cpu or auto", more=("--method", "ksdiff", "--device", "cuda"))
exp("a device that nobody knows", "--device gpu", more=("--method", "ksdiff", "--device", "gpu"))
exp("fine-tuning of a classical method", "--adapt goes with", more=("--method", "gsa", "--adapt", "1"), code=2)
exp("the uncertainty of a classical method", "--uncertainty goes with", "gsa", more=(
    "--method", "gsa", "--uncertainty", "@std.tif",
), code=2)  # fmt: skip
exp("fine-tuning without end", "adapt inf", more=("--method", "ksdiff", "--adapt", "inf"), code=2)
# evaluate
add(
    "evaluate: no gt",
    lambda p: ("evaluate", p / "no_gt.h5", "--method", "exp"),
    "no_gt.h5: has no gt",
    "--protocol full",
)
add("evaluate: an empty folder", lambda p: ("evaluate", p / "nothing"), "nothing: holds no test.h5")
add("evaluate: a raster", lambda p: ("evaluate", p / "ms.tif"), "ms.tif: is an image", "bands of several resolutions")
add("evaluate: a misspelt method", lambda p: ("evaluate", p / "patches", "--method", "gssa"), "did you mean gsa?")
add("evaluate: weights for other bands", lambda p: (
    "evaluate", p / "patches", "--method", "exp", "--checkpoint", p / "eight.safetensors",
), "eight.safetensors", "8", "4")  # fmt: skip
add("evaluate: a report of unknown kind", lambda p: (
    "evaluate", p / "patches", "--method", "exp", "--report", p / "r.pdf",
), "r.pdf", ".html")  # fmt: skip
add("evaluate: a sensor of other bands", lambda p: (
    "evaluate", p / "patches", "--method", "mtf-glp-fs", "--sensor", "WV3",
), "WV3", "8", "4")  # fmt: skip
# metrics
add("metrics: nothing to compare with", lambda p: ("metrics", p / "ms.tif"), "--reference", code=2)
add("metrics: PAN without MS", lambda p: ("metrics", p / "equal.tif", "--pan", p / "pan.tif"), "--ms", code=2)
add("metrics: other sizes", lambda p: (
    "metrics", p / "plain_a.tif", "--reference", p / "plain_b.tif",
), "plain_a.tif", "32 x 24", "20 x 20")  # fmt: skip
add("metrics: other bands", lambda p: ("metrics", p / "one.tif", "--reference", p / "ms.tif"), "has 1 bands", "has 4")
add("metrics: far apart", lambda p: ("metrics", p / "far.tif", "--reference", p / "ms.tif"), "far.tif")
add("metrics: ratio below 1", lambda p: ("metrics", p / "ms.tif", "--reference", p / "ms.tif", "--ratio", 0.5),
    "--ratio", "greater than or equal to 1", code=2)  # fmt: skip
add("metrics: ratio inf", lambda p: (
    "metrics", p / "ms.tif", "--reference", p / "ms.tif", "--ratio", "inf", "--json",
), "ratio inf", "at least 1", code=2)  # fmt: skip
add("metrics: ratio nan", lambda p: (
    "metrics", p / "ms.tif", "--reference", p / "ms.tif", "--ratio", "nan", "--json",
), "--ratio", "equal to 1", code=2)  # fmt: skip
# train
add(
    "train: no data",
    lambda p: ("train", "--data", p / "nothing", "-o", p / "run"),
    "nothing: holds no training",
    "prepare",
)
add("train: a text for data", lambda p: ("train", "--data", p / "text.h5", "-o", p / "run"), "text.h5: is not an HDF5")
add(
    "train: stage 2 first",
    lambda p: ("train", "--stage", 2, "--data", p / "patches", "-o", p / "run"),
    "stage1",
    "--stage 1",
)
add("train: steps and epochs", lambda p: ("train", "--steps", 1, "--epochs", 1), "not both", code=2)
add("train: no end", lambda p: (
    "train", "--data", p / "patches", "-o", p / "run", "--time-limit", "inf",
), "--time-limit inf", code=2)  # fmt: skip
add("sharpen: a name as long as no file's", lambda p: ("sharpen", "a" * 300, "-o", p / "out.tif"), "aaa: is too long")
add("train: a seed beyond all seeds", lambda p: ("train", "--seed", 2**24), "16777215", code=2)
add(
    "prepare-data: a negative seed",
    lambda p: ("prepare-data", p / "product", "--seed", -1),
    "--seed",
    "greater than or equal to 0",
    code=2,
)
add("train: a misspelt backbone", lambda p: ("train", "--backbone", "panext"), "did you mean pannextu?", code=2)
add("train: a rank of two", lambda p: ("train", "--rank", "4,4"), "--rank 4,4", "four whole numbers", code=2)
add("train: weights for other bands", lambda p: (
    "train", "--stage", 1, "--data", p / "patches", "-o", p / "run", "--init", p / "eight.safetensors",
), "8", "4")  # fmt: skip
# prepare-data, simulate, info
add("prepare-data: an empty folder", lambda p: ("prepare-data", p / "nothing", "-o", p / "new"), "no scene found")
add("prepare-data: too small a scene", lambda p: ("prepare-data", p / "product", "-o", p / "new"), "product", "--patch")
add("prepare-data: somebody's folder", lambda p: ("prepare-data", p / "product", "-o", p / "own"), "thesis.doc", "-o")
add("prepare-data: a file as output", lambda p: ("prepare-data", p / "product", "-o", p / "notes.txt"), "is a file")
add(
    "simulate: a size the ratio does not divide",
    lambda p: ("simulate", "-o", p / "sim", "--size", 33),
    "33",
    "multiple",
)
add("simulate: three bands", lambda p: ("simulate", "-o", p / "sim", "--size", 32, "--bands", 3), "3", "4 or 8")
add("simulate: a file as output", lambda p: ("simulate", "-o", p / "notes.txt", "--size", 32), "notes.txt")
add(
    "simulate: a text as noise", lambda p: ("simulate", "-o", p / "sim", "--noise", "loud"), "--noise", "number", code=2
)
add("info: a missing file", lambda p: ("info", p / "nowhere.tif"), "nowhere.tif: no such file")
add("info: a text", lambda p: ("info", p / "notes.txt"), "notes.txt: cannot be opened as a raster")
add("info: a misspelt sensor", lambda p: ("info", "WV33"), "WV33", "did you mean WV3?")
add("info: truncated weights", lambda p: ("info", p / "cut.safetensors"), "cut.safetensors")


# bands that finer ones guide
def guided(name: str, *words: str, bands: str = "B02 B03 B05", more: Any = (), code: int = 1) -> None:
    """A mistake in `ksdiff sharpen BAND… -o OUT`."""

    def arguments(place: Place) -> tuple[Any, ...]:
        return "sharpen", *(place / f"{band}.tif" for band in bands.split()), "-o", place / "out.tif", *more

    add(f"guided: {name}", arguments, *words, code=code)


guided("a group that is not there", "has no group '60m'; it has 20m; choose with --groups", more=("--groups", "60m"))
guided("a band that is not there", "has no band 'B12'; it has B02, B03, B05; choose with -b", more=("-b", "B12"))
guided("only a finest band", "B02 is as fine as it gets", "B05", more=("-b", "B02"))
guided("on a map", "--ortho: goes with PAN and MS", more=("--ortho", "mean"))
guided("a guide of no known kind", "--guide-by", "choose from synthesis", more=("--guide-by", "magic"), code=2)
guided("PAN with groups", "has PAN", "leave out --groups", bands="pan ms", more=("--groups", "20m"))
add("guided: a coarse guide", lambda p: (
    "sharpen", "--guide", p / "B05.tif", p / "B02.tif", "-o", p / "out.tif",
), "B05.tif: is coarser than", "after --guide are the finest")  # fmt: skip
add("guided: nothing coarser", lambda p: (
    "sharpen", "--guide", p / "B02.tif", p / "B03.tif", "-o", p / "out.tif",
), "B02.tif: is as fine as all other bands", "name coarser bands")  # fmt: skip
add("evaluate: bands of one resolution", lambda p: (
    "evaluate", p / "B02.tif", p / "B03.tif", "--method", "exp",
), "B02.tif: is an image", "several resolutions")  # fmt: skip
add("evaluate: a band that is missing", lambda p: (
    "evaluate", p / "B02.tif", p / "B99.tif", "--method", "exp",
), "B99.tif: no such file")  # fmt: skip
add("evaluate: the prior of guided bands", lambda p: (
    "evaluate", p / "B02.tif", p / "B05.tif", "--method", "exp", "--latents", p / "z.png",
), "--latents", "leave them out")  # fmt: skip
add("evaluate: a scene in place of patches", lambda p: ("evaluate", p / "product"), "holds no test.h5", "prepare-data")
add("metrics: finer bands alone", lambda p: (
    "metrics", p / "ms.tif", "--guide", p / "B02.tif",
), "B02.tif: is one file of finer bands", "--ms or more --guide")  # fmt: skip
add("metrics: bands that nothing guided", lambda p: (
    "metrics", p / "ms.tif", "--guide", p / "B02.tif", "--ms", p / "B05.tif",
), "none of its 4 bands is called", "descriptions")  # fmt: skip
# options that do not go together, or twice
exp("an option twice", "--method: is given twice: leave one out", more=("--method", "exp", "--method", "gsa"), code=2)
exp("an output twice", "--output or -o: is given twice", more=("-o", "@second.tif"), code=2)
exp("draws of nothing", "--draws goes with --uncertainty", more=("--draws", "3"), code=2)
exp("a mosaic of one scene", "--mosaic names a .vrt, and goes with --batch", more=("--mosaic", "@m.vrt"), code=2)
exp("a scheduler that is no address", "--scheduler list.csv", "tcp://host:8786", more=("--scheduler", "list.csv"))
exp("one file for two outputs", "out.tif: is named twice", more=("--rgb", "@out.tif"))
exp("radiance without metadata", "no metadata tell its radiance", "leave --units out", more=("--units", "radiance"))
exp("half a sensor file", "half.toml: is not TOML", "correct it", more=("--sensor", "@half.toml"))
exp("an empty sensor file", "other.toml: has no ratio", "needed are", more=("--sensor", "@other.toml"))
exp("sizes that do not match", "do not match MS", "belong together?", pan="plain_pan.tif", ms="plain_b.tif")
add("sharpen: an address as output", lambda p: (
    "sharpen", p / "pan.tif", p / "ms.tif", "-o", "s3://bucket/out.tif", "--method", "exp",
), "is an address", "name a file here")  # fmt: skip
add("sharpen: a STAC item without assets", lambda p: ("sharpen", p / "item.json", "-o", p / "o.tif"), "no object of as")
add("sharpen: an archive that is none", lambda p: ("sharpen", p / "bad.zip", "-o", p / "o.tif"), "bad.zip", "damaged")
add("sharpen: a batch besides a pair", lambda p: (
    "sharpen", "--batch", p / "good.csv", p / "pan.tif", p / "ms.tif", "-o", p / "o",
), "--batch names many scenes", code=2)  # fmt: skip
add("sharpen: a batch of twins", lambda p: (
    "sharpen", "--batch", p / "twins.csv", "-o", p / "o",
), "would both be called A", "the column 'name'")  # fmt: skip
add("metrics: a page in the maps' place", lambda p: (
    "metrics", p / "ms.tif", "--reference", p / "ms.tif", "--maps", p / "m.html", "--report", p / "m.html",
), "--maps names a folder", code=2)  # fmt: skip
add("metrics: a file as the maps' folder", lambda p: (
    "metrics", p / "ms.tif", "--reference", p / "ms.tif", "--maps", p / "notes.txt",
), "notes.txt: cannot be made a folder", "--maps")  # fmt: skip
add("metrics: a guide's way without a guide", lambda p: (
    "metrics", p / "ms.tif", "--reference", p / "ms.tif", "--guide-by", "selection",
), "--guide-by goes with --guide", code=2)  # fmt: skip
add("metrics: one of the product's MS files", lambda p: (
    "metrics", p / "ms.tif", "--pan", p / "pan.tif", "--ms", p / "one.tif",
), "has 4 bands but MS", "rio stack")  # fmt: skip
add("train: a file as run folder", lambda p: (
    "train", "--data", p / "patches", "-o", p / "notes.txt",
), "notes.txt: cannot be made", "-o")  # fmt: skip
add("train: settings of something else", lambda p: (
    "train", "--data", p / "patches", "-o", p / "run", "--config", p / "other.toml",
), "other.toml: name is neither preset, nor one of the tables", "into one of these")  # fmt: skip
add("train: validated by what is missing", lambda p: (
    "train", "--data", p / "patches", "-o", p / "run", "--valid", p / "v.h5",
), "v.h5: no such file")  # fmt: skip
add("prepare-data: a file", lambda p: ("prepare-data", p / "pan.tif", p / "ms.tif", "-o", p / "new"), "folder, which")
add("simulate: bands that the sensor has not", lambda p: (
    "simulate", "-o", p / "sim", "--size", 64, "--bands", 4, "--sensor", "WV3",
), "WV3 has 8 MS bands", "leave out --bands")  # fmt: skip
add("qgis: a file as folder", lambda p: ("qgis", "--folder", p / "notes.txt"), "notes.txt: is a file", "--folder")
add("qgis: a profile and a folder", lambda p: (
    "qgis", "--profile", "default", "--folder", p / "plugins",
), "leave one out", code=2)  # fmt: skip
add("view: seven layers", lambda p: ("view", *[p / "pan.tif"] * 7, "--no-browser"), "6 at most", "name fewer")


def listing(root: Path) -> dict[str, tuple[int, int]]:
    """All files and folders, hidden ones too, with what a write would change."""
    found = ((path, path.stat()) for path in root.rglob("*"))
    return {str(path): (state.st_size, state.st_mtime_ns) for path, state in found if not path.is_dir()} | {
        str(path): (0, 0) for path in root.rglob("*") if path.is_dir()
    }


@pytest.mark.parametrize(("arguments", "words", "code"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_wrong_use(
    arguments: Callable[[Place], tuple[Any, ...]],
    words: tuple[str, ...],
    code: int,
    place: Place,
    run: Any,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.chdir(tmp_path)
    before = listing(place.root)
    result = run(*arguments(place))
    assert result.exception is None or isinstance(result.exception, SystemExit), repr(result.exception)
    assert result.exit_code == code, result.output
    (line,) = result.stderr.splitlines()
    assert line.startswith("Error: ") and result.stdout == ""
    assert all(word in line for word in words), line
    assert re.search(r"; |\?|: (choose|give|name) ", line), f"says no next step: {line}"
    assert listing(place.root) == before and not list(tmp_path.iterdir())


def test_there_are_enough() -> None:
    assert len(CASES) >= 60 and len({name for name, *_ in CASES}) == len(CASES)


@pytest.fixture
def trained(place: Place, tmp_path: Path, run: Any) -> tuple[Any, ...]:
    words = ("train", "--stage", 1, "--data", place / "patches", "-o", tmp_path / "run", "--threads", 1, "-q")
    words = (*words, "--backbone", "pnn", "--no-prior", "--batch", 1)
    assert run(*words, "--steps", 1).exit_code == 0
    return words


def test_training_over_or_besides_an_earlier_run(trained: tuple[Any, ...], fails: Any) -> None:
    line = fails(*trained, "--steps", 1)
    assert "stage1.safetensors" in line and "--resume" in line and "--overwrite" in line
    line = fails(*trained, "--steps", 2, "--resume")
    assert "other values of steps" in line and "--overwrite" in line


def test_paths_that_shells_fear(place: Place, run: Any, tmp_path: Path) -> None:
    strange = tmp_path / STRANGE
    strange.parent.mkdir()
    pan, ms = strange.with_name("pän {1}.tif"), strange.with_name("m's\\[2].tif")
    for name, path in (("pan.tif", pan), ("ms.tif", ms)):
        path.write_bytes((place / name).read_bytes())
    for output in (strange, strange.with_name("C:\\out.tif"), strange.with_name("-.tif")):
        result = run("sharpen", pan, ms, "-o", output, "--method", "exp", "-q")
        assert result.exit_code == 0, result.output
        assert output.is_file() and not list(strange.parent.glob(".*"))


def test_interrupted(place: Place, run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*arguments: Any, **more: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr("ksdiff_cli.fusers.classical.Upsampling.fuse", interrupt)
    result = run("sharpen", place / "pan.tif", place / "ms.tif", "-o", tmp_path / "out.tif", "--method", "exp")
    assert result.exit_code == 130
    assert len(result.stderr.splitlines()) <= 1 and "Traceback" not in result.output
    assert list(tmp_path.iterdir()) == []


def test_training_stopped_before_it_has_written_anything(
    place: Place, run: Any, fails: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("train", "--stage", 1, "--data", place / "patches", "-o", tmp_path / "run", "--threads", 1, "-q")
    words = (*words, "--backbone", "pnn", "--no-prior", "--batch", 1, "--steps", 2)
    with monkeypatch.context() as hasty:
        hasty.setattr("ksdiff_cli.training.stages.Stopper.asked", True)
        line = fails(*words)
    assert "stage1: stopped at step 1 of 2" in line and "--resume" in line
    best = tmp_path / "run" / "stage1-best.safetensors"
    best.touch()  # as a longer run has it by then
    line = fails(*words)
    assert "stage1.state: an unfinished run" in line and "--resume" in line
    best.unlink()
    assert run(*words, "--resume").exit_code == 0 and (tmp_path / "run" / "stage1.safetensors").is_file()


@pytest.mark.skipif(sys.platform == "win32", reason="names are UTF-16 there")
def test_a_name_that_is_no_unicode(fails: Any, place: Place) -> None:
    line = fails("sharpen", place / "pan\udce9.tif", place / "ms.tif", "-o", place / "new.tif", "--method", "exp")
    assert "pan\\udce9.tif: its name is not valid UTF-8" in line
