"""All that becomes of one scene on its way from the inputs to the finished output, for one scene and for many alike."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from ksdiff_cli.fusers import Fuser
from ksdiff_cli.products import choose_bands
from ksdiff_cli.progress import ProgressCallback, silent
from ksdiff_cli.quicklook import check_quicklook, draw_quicklook
from ksdiff_cli.raster import Scene
from ksdiff_cli.raster_crop import find_crop
from ksdiff_cli.raster_writer import check_output
from ksdiff_cli.registration import guard
from ksdiff_cli.sharpening import Sharpened, SharpenOptions, is_assembled, sharpen_scene
from ksdiff_cli.sharpening.pipeline import Maker, make_windows


@dataclass(frozen=True)
class Workflow:
    """What is done with each scene."""

    fuser: Fuser
    options: SharpenOptions = field(default_factory=SharpenOptions)
    bands: Sequence[int] = ()
    """MS bands to sharpen, from 1; () takes all."""
    warp: bool = False
    """Whether MS in another CRS, or rotated against PAN, is brought onto PAN's axes."""
    registration: Literal["check", "correct", "skip"] = "check"
    """What is done about MS that lies beside PAN; see :func:`ksdiff_cli.registration.guard`."""
    window: tuple[int, int, int, int] | None = None
    """(row, column, height, width), the part to make in PAN pixels."""
    bounds: tuple[float, float, float, float] | None = None
    """(xmin, ymin, xmax, ymax), the part to make in the units of ``bounds_crs``."""
    bounds_crs: str = ""
    """CRS of ``bounds``; "" is PAN's."""
    quicklook: Path | None = None
    """PNG to draw of the result."""

    def check(self, output: Path, inputs: Sequence[str]) -> None:
        """Refuse before any work what would fail after it.

        Raises:
            KsdiffError: the output or the quicklook exists, is an input, or cannot be written.
        """
        check_output(output, inputs, self.options.overwrite or is_assembled(output), self.options.format)
        if self.quicklook:
            check_quicklook(self.quicklook, list(inputs), self.options.overwrite)

    def run(
        self, scene: Scene, output: Path, progress: ProgressCallback = silent, make: Maker = make_windows
    ) -> Sharpened:
        """Do it with one scene.

        Args:
            scene: where PAN and MS are.
            output: raster to write.
            progress: told how far each part is.
            make: who makes the windows.

        Returns:
            What was made; its notes tell of the shift between PAN and MS too.

        Raises:
            KsdiffError: see :func:`ksdiff_cli.sharpening.sharpen_scene`; PAN and MS do not lie on each other; or there
                is no such band or part.
            ModelError: the weights do not fit the scene.
        """
        scene = replace(choose_bands(scene, list(self.bands)), warp=self.warp)
        notes: Sequence[str] = ()
        if self.registration != "skip":
            scene, notes = guard(scene, correct=self.registration == "correct", progress=progress)
        part = find_crop(scene, self.window, self.bounds, self.bounds_crs) if self.window or self.bounds else None
        made = sharpen_scene(scene, output, self.fuser, replace(self.options, window=part), progress, make)
        if self.quicklook:
            draw_quicklook(scene, made.output, self.quicklook, part)
        return replace(made, notes=(*notes, *made.notes))
