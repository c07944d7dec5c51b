"""Writes outputs straight through the writer, without the engine: MS upsampled, in any format and part."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from conftest import PairFiles
from rasterio.windows import Window

from ksdiff_cli.checks import Format
from ksdiff_cli.output.creation import BLOCK
from ksdiff_cli.output.pixels import choose_format
from ksdiff_cli.output.writer import check_output, new_raster
from ksdiff_cli.products import make_pair as scene_of
from ksdiff_cli.products.scene_files import scene_inputs
from ksdiff_cli.raster.crop import Crop, crop_pair
from ksdiff_cli.raster.pair import Scene, open_pair

SUFFIX: dict[Format, str] = {"GTiff": ".tif", "COG": ".tif", "VRT": ".vrt"}
TAGS = {"TIFFTAG_SOFTWARE": "ksdiff 1.2.3", "KSDIFF_METHOD": "exp", "KSDIFF_TEXT": "a <b> & \"c\" 'é'"}


@dataclass(frozen=True)
class Made:
    output: Path
    nodata: float | None
    notes: list[str] = field(default_factory=list)


def write_output(
    files: PairFiles | Scene,
    output: Path,
    format: Format = "GTiff",
    dtype: str | None = None,
    creation: Mapping[str, str] | None = None,
    overwrite: bool = False,
    window: Crop | None = None,
    tile: int = 256,
    rows: int = 256,
) -> Made:
    scene = files if isinstance(files, Scene) else scene_of(str(files.pan), [str(files.ms)])
    check_output(output, scene_inputs(scene), overwrite, format, creation or {})
    with open_pair(scene) as pair:
        pixels = choose_format(pair, pair.statistics(), dtype)
        part = crop_pair(pair, window) if window else pair
        height, width = part.shape
        with new_raster(output, part, pixels, creation or {}, TAGS, format, tile) as target:
            step = -(-BLOCK // target.block_shapes[0][0]) * target.block_shapes[0][0]
            for row in range(0, height, rows):
                read: Any = part.read(row, 0, min(rows, height - row), width)
                # a row of blocks at a time
                for top in range(0, len(read.valid), step):
                    valid = read.valid[top : top + step]
                    image = pixels.encode(read.ms_up[:, top : top + step], valid)
                    target.write(image, Window(0, row + top, width, len(valid)))
            target.update_tags(KSDIFF_LATE="yes")
        return Made(output, pixels.nodata, pair.notes)
