"""All that becomes of one scene on its way from the inputs to the finished output, for one scene and for many alike."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ksdiff_cli.checks import Nodata, Registration, check_choice, check_four
from ksdiff_cli.files.names import Inputs
from ksdiff_cli.fusers.base import Fuser
from ksdiff_cli.fusers.classical import make_fuser
from ksdiff_cli.fusers.consistent import Consistent
from ksdiff_cli.output.writer import check_output
from ksdiff_cli.products import choose_bands
from ksdiff_cli.products.scene_files import find_inputs, scene_inputs
from ksdiff_cli.progress import ProgressCallback, silent
from ksdiff_cli.raster.crop import find_crop
from ksdiff_cli.raster.nodata import declare
from ksdiff_cli.raster.pair import Scene
from ksdiff_cli.raster.registration import check_registration
from ksdiff_cli.sharpening.engine import Sharpened, SharpenOptions, is_claimed, remove_rest, sharpen_scene
from ksdiff_cli.sharpening.job import forget
from ksdiff_cli.sharpening.pipeline import Maker, make_windows
from ksdiff_cli.sharpening.uncertainty import Uncertainty, check_uncertainty, sharpen_with_uncertainty

if TYPE_CHECKING:
    from ksdiff_cli.sharpening.adaptation import Adaptation


@dataclass(frozen=True)
class Workflow:
    """The work on each scene."""

    fuser: Fuser
    options: SharpenOptions = field(default_factory=SharpenOptions)
    bands: Sequence[int | str] = ()
    """MS bands to sharpen, by numbers from 1 or by names; () takes all."""
    warp: bool = False
    """Whether MS in another CRS, or rotated against PAN, is brought onto PAN's axes."""
    registration: Registration = "check"
    """Handling of a shift between PAN and MS; see :func:`ksdiff_cli.raster.registration.check_registration`."""
    window: tuple[int, int, int, int] | None = None
    """(row, column, height, width), the part to make in PAN pixels."""
    bounds: tuple[float, float, float, float] | None = None
    """(xmin, ymin, xmax, ymax), the part to make in the units of ``bounds_crs``."""
    bounds_crs: str = ""
    """CRS of ``bounds``; "" is PAN's."""
    quicklook: Path | None = None
    """PNG to draw of the result."""
    adaptation: "Adaptation | None" = None
    """How the network is fine-tuned on each scene first; its weights take the place of the fuser's."""
    consistent: bool = False
    """Whether results are back-projected, see :mod:`ksdiff_cli.fusers.consistent`."""
    uncertainty: Uncertainty | None = None
    """The raster of uncertainty that is made besides."""
    nodata: tuple[Nodata, Nodata] = (None, None)
    """The values that mean "no data" in PAN and in MS."""
    reads: Sequence[str] = ()
    """Names of the files that are read besides the scene: weights, a sensor's, a list of scenes."""

    def __post_init__(self) -> None:
        """Refuse what cannot be of any scene."""
        check_choice("registration", self.registration, Registration)
        if self.window is not None:
            check_four("window", self.window, "row, column, height, width", whole=True)
        if self.bounds is not None:
            check_four("bounds", self.bounds, "xmin, ymin, xmax, ymax")

    def check(self, output: Path, inputs: Sequence[str]) -> None:
        """Refuse before any work what would fail after it.

        Args:
            output: the raster to be.
            inputs: as a person named them.

        Raises:
            KsdiffError: an output exists, is an input, or cannot be written.
        """
        self._check(output, find_inputs([*inputs, *self.reads]))

    def _check(self, output: Path, inputs: Inputs) -> None:
        overwrite = self.options.overwrite
        remove_rest(output.parent, output.name)
        check_output(output, inputs, overwrite or is_claimed(output), self.options.format, self.options.creation)
        if self.uncertainty:
            check_uncertainty(self.uncertainty, output, inputs, overwrite)
        if self.quicklook:
            from ksdiff_cli.sharpening.quicklook import check_quicklook  # which takes its time to load

            check_quicklook(self.quicklook, inputs, overwrite or is_claimed(output, self.quicklook))

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
            KsdiffError: see :func:`ksdiff_cli.sharpening.engine.sharpen_scene`; PAN and MS do not lie on each other;
                or there is no such band or part.
            ModelError: the weights do not fit the scene.
        """
        scene = declare(replace(choose_bands(scene, list(self.bands)), warp=self.warp), self.nodata)
        inputs = scene_inputs(scene, self.reads)
        self._check(output, inputs)
        notes: Sequence[str] = ()
        if self.registration != "skip":
            scene, notes = check_registration(scene, correct=self.registration == "correct", progress=progress)
        fuser, checkpoint = self.fuser, None
        if self.adaptation:
            from ksdiff_cli.sharpening.adaptation import adapt

            adapted = adapt(scene, output, self.adaptation, progress, inputs, overwrite=self.options.overwrite)
            fuser = make_fuser("ksdiff", adapted.checkpoint, self.adaptation.device, self.adaptation.seed)
            checkpoint, notes = adapted.checkpoint, (*notes, *adapted.notes)
        if self.consistent:
            fuser = Consistent(fuser, self.options.mtf)
        part = find_crop(scene, self.window, self.bounds, self.bounds_crs) if self.window or self.bounds else None
        options = replace(self.options, window=part, besides=self._besides())
        if self.uncertainty:
            spread = self.uncertainty.fuser(checkpoint)
            made = sharpen_with_uncertainty(scene, output, fuser, options, self.uncertainty, spread, progress, make)
        else:
            made = sharpen_scene(scene, output, fuser, options, progress, make)
        if self.quicklook:
            from ksdiff_cli.sharpening.quicklook import draw_quicklook

            draw_quicklook(scene, made.output, self.quicklook, part)
        if options.besides:
            forget(output)
        return replace(made, notes=(*notes, *made.notes))

    def _besides(self) -> dict[Path, str]:
        """Return what is made besides the output, and what it depends on that the output does not."""
        drawn = {} if self.quicklook is None else {self.quicklook: ""}
        return drawn if self.uncertainty is None else drawn | {self.uncertainty.output: str(self.uncertainty.draws)}
