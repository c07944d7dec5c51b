"""All that becomes of one scene on its way from the inputs to the finished output, for one scene and for many alike."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ksdiff_cli.errors import KsdiffError
from ksdiff_cli.files.names import Inputs, check_place
from ksdiff_cli.fusers.base import Fuser
from ksdiff_cli.fusers.classical import make_fuser
from ksdiff_cli.fusers.consistent import Consistent
from ksdiff_cli.options.sharpening import SharpenOptions
from ksdiff_cli.output.stac import item_path, write_item
from ksdiff_cli.output.writer import check_output
from ksdiff_cli.process import limit_torch
from ksdiff_cli.products import Found, choose_bands, find_scene
from ksdiff_cli.products.scene_files import find_inputs, scene_inputs
from ksdiff_cli.progress import ProgressCallback, silent
from ksdiff_cli.raster.crop import Crop, crop_to
from ksdiff_cli.raster.grouped import open_scene
from ksdiff_cli.raster.nodata import declare
from ksdiff_cli.raster.pair import Scene
from ksdiff_cli.raster.registration import check_registration
from ksdiff_cli.raster.synthesis import GuidedScene, declare_guided
from ksdiff_cli.raster.units import convert_guided, convert_scene
from ksdiff_cli.sharpening.decoded import decode_once
from ksdiff_cli.sharpening.engine import Sharpened, is_claimed, remove_rest, sharpen_scene
from ksdiff_cli.sharpening.guided import choose_guided, choose_scene, prepare_guided
from ksdiff_cli.sharpening.job import forget
from ksdiff_cli.sharpening.ortho import plan_ortho, working_name
from ksdiff_cli.sharpening.pipeline import Maker, make_windows
from ksdiff_cli.sharpening.uncertainty import check_uncertainty, sharpen_with_uncertainty


class Workflow:
    """The work on each scene."""

    def __init__(self, options: SharpenOptions, reads: Sequence[str] = (), device: str | None = None) -> None:
        """Load the method.

        Args:
            options: what is wanted.
            reads: names of files that the command reads besides the scene, the weights and the sensor's file.
            device: where this process runs the network; None takes that of the options.

        Raises:
            KsdiffError: the weights are not there.
            ModelError: they cannot be used.
        """
        self.options = options
        dem = options.ortho if options.ortho is not None and Path(options.ortho).is_file() else None
        self.reads = [*(str(name) for name in (options.checkpoint, options.sensor, dem) if name is not None), *reads]
        if options.method == "ksdiff":
            limit_torch(options.threads)
        self._fuser = make_fuser(
            options.method,
            options.checkpoint,
            device or options.device,
            options.seed,
            options.sharpness or 0.0,
            mtf=options.mtf or "sensor",
        )

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
        first = working_name(output, self.options)
        remove_rest(output.parent, first.name)
        check_output(output, inputs, overwrite or is_claimed(first, output), self.options.format, self.options.creation)
        if self.options.uncertainty:
            check_uncertainty(self.options.uncertainty, output, inputs, overwrite)
        if self.options.quicklook:
            from ksdiff_cli.sharpening.quicklook import check_quicklook  # which takes its time to load

            check_quicklook(self.options.quicklook, inputs, overwrite or is_claimed(first, self.options.quicklook))
        if self.options.rgb:
            from ksdiff_cli.sharpening.display import check_display

            others = [output, *([self.options.uncertainty] if self.options.uncertainty else [])]
            check_display(self.options.rgb, inputs, overwrite or is_claimed(first, self.options.rgb), others)
        if self.options.stac:
            item = item_path(output)
            check_place(item, inputs, overwrite or is_claimed(first, item))

    def run(
        self, scene: Found, output: Path, progress: ProgressCallback = silent, make: Maker = make_windows
    ) -> Sharpened:
        """Do it with one scene.

        Args:
            scene: where PAN and MS are, or bands of several resolutions.
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
        scene = choose_scene(scene, self.options)
        if isinstance(scene, GuidedScene):
            return self._run_guided(scene, output, progress, make)
        scene = declare(
            replace(choose_bands(scene, list(self.options.bands)), warp=self.options.warp), self.options.nodata
        )
        scene = convert_scene(scene, self.options.units, self.options.dtype)
        inputs = scene_inputs(scene, self.reads)
        self._check(output, inputs)
        notes: Sequence[str] = ()
        if self.options.registration != "skip":
            scene, notes = check_registration(scene, correct=self.options.registration == "correct", progress=progress)
        ortho = plan_ortho(scene, output, self.options)
        fuser, checkpoint = self._fuser, self.options.checkpoint
        if self.options.adapt is not None:
            from ksdiff_cli.sharpening.adaptation import adapt

            adapted = adapt(scene, output, self.options, progress, inputs)
            fuser = make_fuser("ksdiff", adapted.checkpoint, self.options.device, self.options.seed)
            checkpoint, notes = adapted.checkpoint, (*notes, *adapted.notes)
        if self.options.consistent:
            fuser = Consistent(fuser, self.options.seen_by)
        part = self._crop(scene)
        besides = self._besides(output) | (dict(ortho.besides) if ortho else {})
        options = ortho.before if ortho else self.options
        options = replace(options, window=part, bounds=None, besides=besides, checkpoint=checkpoint)
        work = sharpen_with_uncertainty if options.uncertainty else sharpen_scene
        first = working_name(output, self.options)
        made = work(scene, first, fuser, options, progress, make)
        if self.options.quicklook:
            from ksdiff_cli.sharpening.quicklook import draw_quicklook

            draw_quicklook(scene, made.output, self.options.quicklook, part)
        if ortho:
            made = ortho.write(made, progress)
        if self.options.rgb:
            from ksdiff_cli.sharpening.display import write_display

            write_display(made.output, self.options.rgb, scene.sensor.bands)
        if self.options.stac:
            write_item(made.output)
        if ortho:
            ortho.clear(first)
        elif options.besides:
            forget(output)
        return replace(made, notes=(*notes, *made.notes))

    def _run_guided(self, scene: GuidedScene, output: Path, progress: ProgressCallback, make: Maker) -> Sharpened:
        wanted = self.options
        for name in ("adapt", "uncertainty", "quicklook", "rgb", "ortho"):
            if getattr(wanted, name) is not None:
                raise KsdiffError(f"--{name}: goes with PAN and MS, not with bands that finer ones guide; leave it out")
        scene = declare_guided(replace(choose_guided(scene, wanted), warp=wanted.warp), wanted.nodata)
        scene = convert_guided(scene, wanted.units, wanted.dtype)
        self._check(output, find_inputs([*scene.files(), *self.reads]))

        def finish(fuser: Fuser) -> Fuser:
            return Consistent(fuser, wanted.seen_by) if wanted.consistent else fuser

        with decode_once(scene, output, wanted, progress) as fast:
            ready = prepare_guided(fast, self._fuser, wanted, finish, progress)
            options = replace(wanted, window=self._crop(ready.scene), bounds=None)
            made = sharpen_scene(ready.scene, output, ready.fuser, options, progress, make)
        if wanted.stac:
            write_item(made.output)
        return replace(made, notes=(*ready.notes, *made.notes), explained=ready.explained)

    def _crop(self, scene: Scene) -> Crop | None:
        """Return the part to make; None for all of it."""
        wanted = self.options
        if not (wanted.window or wanted.bounds):
            return None
        with open_scene(scene) as pair:
            return crop_to(pair, wanted.window, wanted.bounds, wanted.bounds_crs)

    def _besides(self, output: Path) -> dict[Path, str]:
        """Return what is made besides the output, and what it depends on that the output does not."""
        drawn = {path: "" for path in (self.options.quicklook, self.options.rgb) if path is not None}
        drawn |= {item_path(output): ""} if self.options.stac else {}
        spread = self.options.uncertainty
        return drawn if spread is None else drawn | {spread: str(self.options.draws)}


def sharpen(
    names: Sequence[str], output: Path, options: SharpenOptions, progress: ProgressCallback = silent
) -> Sharpened:
    """Sharpen one scene, all that was asked for included; see :func:`ksdiff_cli.sharpen_scene`.

    Args:
        names: of PAN and MS, or of the scene.
        output: raster to write.
        options: see :class:`ksdiff_cli.options.sharpening.SharpenOptions`.
        progress: told how far each part is.
    """
    workflow = Workflow(options)
    workflow.check(output, [*options.guide, *names])
    return workflow.run(find_scene(names, options.sensor, options.guide), output, progress)
