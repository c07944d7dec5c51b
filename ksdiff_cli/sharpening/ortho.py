"""Sharpening onto a map: the result in sensor geometry grows beside the output, and is warped once when it is whole."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from ksdiff_cli.errors import KsdiffError
from ksdiff_cli.options.sharpening import SharpenOptions
from ksdiff_cli.output.creation import check_creation, fit_codec
from ksdiff_cli.output.metadata import output_rpcs
from ksdiff_cli.output.ortho import NoHeightsError, write_ortho
from ksdiff_cli.output.pixels import PixelFormat, choose_format
from ksdiff_cli.progress import ProgressCallback
from ksdiff_cli.raster.bands import nodata_of
from ksdiff_cli.raster.ground import Ground, find_ground
from ksdiff_cli.raster.pair import Scene, ScenePair, open_pair
from ksdiff_cli.sharpening.engine import Sharpened
from ksdiff_cli.sharpening.job import forget


def working_name(output: Path, options: SharpenOptions) -> Path:
    """Return where the windows are put together: the output, or a hidden file beside it that is warped to it."""
    return output if options.ortho is None else output.with_name(f".{output.name}.sensor.tif")


@dataclass(frozen=True)
class Ortho:
    """What becomes of the result in sensor geometry."""

    output: Path
    ground: Ground
    pixels: PixelFormat
    options: SharpenOptions

    @property
    def before(self) -> SharpenOptions:
        """The options by which the result in sensor geometry is made: no codec that loses, a nodata value.

        Its hidden file is nobody else's and may always be replaced.
        """
        return replace(
            self.options, ortho=None, ortho_crs="", ortho_res=None, format="GTiff", creation={},
            dst_nodata=self.pixels.nodata, overwrite=True,
        )  # fmt: skip

    @property
    def besides(self) -> Mapping[Path, str]:
        """What a killed run is known again by."""
        return {self.output: repr((self.ground, self.options.format, sorted(self.options.creation.items())))}

    def write(self, made: Sharpened, progress: ProgressCallback) -> Sharpened:
        """Warp the result to the output; it stays for the same command, unless no other end is possible."""
        try:
            write_ortho(
                made.output, self.output, self.ground, self.pixels, self.options.creation,
                cog=self.options.format == "COG", threads=self.options.threads, progress=progress,
            )  # fmt: skip
        except NoHeightsError:
            self.clear(made.output)
            raise
        name = self.ground.crs.to_string()
        note = f"orthorectified over {self.ground.about}: {name}, pixels of {self.ground.transform.a:g}"
        return replace(made, output=self.output, shape=self.ground.shape, notes=(*made.notes, note))

    def clear(self, made: Path) -> None:
        """Remove the result in sensor geometry, once all is made."""
        made.unlink(missing_ok=True)
        forget(made)


def plan_ortho(scene: Scene, output: Path, options: SharpenOptions) -> Ortho | None:
    """Find the map's grid, and refuse before any work what would fail after it; None where none is wanted.

    Raises:
        KsdiffError: see :func:`ksdiff_cli.raster.ground.find_ground`; or the creation options do not fit.
    """
    if options.ortho is None:
        return None
    with open_pair(scene) as pair:
        wanted = options.ortho_crs, options.ortho_res
        ground = find_ground(scene.pan.path, output_rpcs(pair), pair.shape, options.ortho, *wanted)
        pixels = _pixels(pair, options)
        cog = options.format == "COG"
        check_creation(cog, options.creation, pixels, pair.bands)
        stored = fit_codec(cog, options.creation, pixels, pair.bands, holes=True)
        if stored.lossy and options.dst_nodata is not None:
            raise KsdiffError(
                "--dst-nodata: the codec of --co is lossy, so no value can stand for nodata; leave it out"
            )
    return Ortho(output, ground, stored, options)


def _pixels(pair: ScenePair, options: SharpenOptions) -> PixelFormat:
    """Choose how pixels are stored; beside the scene there are always some without data."""
    pixels = choose_format(pair, None, options.dtype, options.dst_nodata)
    if pixels.nodata is not None:
        return pixels
    declared = nodata_of(pair.pan, pair.scene.pan)
    try:
        return choose_format(pair, None, options.dtype, 0.0 if declared is None else float(declared))
    except KsdiffError:  # PAN's value is none of MS's type
        return replace(pixels, nodata=0.0)
