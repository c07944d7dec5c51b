"""The network as a fuser: a checkpoint, what it learns from a scene, and its tiles."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from copy import copy
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ksdiff_cli.errors import KsdiffError
from ksdiff_cli.fusers.anchors import count_anchors, cut_anchors, place_anchors, read_anchors
from ksdiff_cli.fusers.base import Fuser, check_pan
from ksdiff_cli.fusers.device import DeviceTransfer, Sent, free_memory, has_bf16
from ksdiff_cli.fusers.divided import Divider
from ksdiff_cli.numerics import Array
from ksdiff_cli.numerics.boxes import ALIGN, Box
from ksdiff_cli.numerics.camera import SceneCamera, estimate_camera, resharpen
from ksdiff_cli.numerics.grids import GridMap
from ksdiff_cli.numerics.moments import SceneStatistics
from ksdiff_cli.progress import ProgressCallback, silent
from ksdiff_cli.raster.camera import find_camera
from ksdiff_cli.raster.pair import ScenePair
from ksdiff_cli.raster.tiles import ObservedTile, Tile

if TYPE_CHECKING:
    from torch import Tensor

    from ksdiff_cli.checks import Geometry
    from ksdiff_cli.models.contract import FusionModel, Statistics
    from ksdiff_cli.models.ksdiff import KSDiff
    from ksdiff_cli.models.observation import Observed
    from ksdiff_cli.sensors import Sensor


_JUDGES = 16  # anchors that are sharpened in both precisions to find out
_TOGETHER = 8  # anchors that are one batch
_ROUGH = 1e-3  # share of the pixels that bfloat16 may change by more than 1 DN


@dataclass(frozen=True)
class SentTile:
    """A tile of which PAN and MS are on their way to the network's device."""

    valid: Array
    """(H, W) bool, see :class:`ksdiff_cli.raster.pair.Tile`."""
    images: Sent
    """PAN and MS; and how far each MS pixel is believed, where some are not."""
    grid: GridMap | None = None
    """Of MS as it was delivered: the map from the tile's pixels to its; None for MS on the PAN grid."""


class Network(Fuser):
    """``ksdiff``: a network from its checkpoint, through the model contract.

    On a GPU tiles and results travel while it computes (:meth:`send`, :meth:`start`), and a window that its memory does
    not hold is fused in parts. There it runs in bfloat16 where the scene's anchors show that this changes no more than
    one pixel in a thousand by more than 1 DN.
    """

    def __init__(
        self, checkpoint: Path, device: str = "auto", seed: int = 0, *, stage1: bool = False, sharpness: float = 0.0
    ) -> None:
        """Load the weights.

        Args:
            checkpoint: ``.safetensors``, as ``ksdiff train`` writes it.
            device: see :func:`ksdiff_cli.fusers.device.pick_device`.
            seed: of z_T, drawn once for the scene and shared by all its tiles.
            stage1: take stage 1's weights too; they only fuse with a latent given.
            sharpness: of results relative to PAN; 0 is as sharp as PAN.

        Raises:
            KsdiffError: no such device, or the weights are not made for sharpening.
            ModelError: the checkpoint cannot be used.
        """
        from ksdiff_cli.fusers.device import pick_device
        from ksdiff_cli.models.checkpoint import load_model, weights_hash

        self._device = pick_device(device)
        self._model, _ = load_model(checkpoint, self._device)
        if self._model.needs_truth and not stage1:
            raise KsdiffError(
                f"{checkpoint}: holds stage 1, whose prior needs the ground truth; train stage 2 and give its weights"
            )
        if sharpness and not self._model.observes:
            raise KsdiffError(f"{checkpoint}: its network knows no sharpness but its own; leave --sharpness out")
        self.uses_camera = self.mixes = self._model.observes
        self._checkpoint = checkpoint
        self._seed = seed
        self._noise = self._model.noise(seed)
        self._kernels: list[Any] | None = None
        self._known: tuple[SceneStatistics, SceneCamera | None, Statistics] | None = None
        self._camera: SceneCamera | None = None
        self._sharpness = sharpness
        self._transfer = DeviceTransfer(self._device)
        self._divider = Divider(self._model.margin, self._model.grid)
        self._provenance = {"METHOD": "ksdiff", "WEIGHTS": weights_hash(checkpoint), "SEED": str(seed)}
        if self._device.type == "mps":  # whose windows are not mixed with others'; engine.py tells CUDA's
            self._provenance["DEVICE"] = "mps"
        if sharpness:
            self._provenance["SHARPNESS"] = f"{sharpness:g}"
        if self._model.whole:
            self._provenance["GLOBAL"] = self._model.whole

    def another(self) -> "Network":
        """See :meth:`Fuser.another`."""
        other = copy(self)
        other._model = copy(self._model)  # which keeps what a scene taught, too
        other._divider = Divider(other._model.margin, other._model.grid)
        return other

    def check(self, bands: int, ratio: float) -> None:
        """See :meth:`Fuser.check`; what was learnt from another scene is forgotten."""
        from ksdiff_cli.models.contract import ModelError

        try:
            self._model.check(bands, ratio)
        except ModelError as error:
            raise ModelError(f"{self._checkpoint}: {error}") from None
        self._kernels, self._model.lossy, self._camera = None, False, None
        self._divider = Divider(self._model.margin, self._model.grid)

    def draw(self, number: int) -> None:
        """Take another z_T from now on, the ``number``-th after that of the seed; what a scene taught is forgotten."""
        self._noise, self._kernels = self._model.noise(self._seed + number), None

    def reach(self, ratio: int) -> int:
        return self._model.margin_at(ratio) + (ALIGN if self._sharpness else 0)

    def read_tile(self, pair: ScenePair, seen: Box) -> Tile:
        read = pair.read_observed if self._model.observes else pair.read
        return read(seen.top, seen.left, seen.height, seen.width)

    def grid(self) -> int:
        return self._model.grid

    def prepare(self, pair: ScenePair, statistics: SceneStatistics, progress: ProgressCallback = silent) -> None:
        """See :meth:`Fuser.prepare`: the scene's kernels are the mean of those that its anchors would have."""
        check_pan(pair, statistics)
        if self._model.observes:
            self._camera, self._known = find_camera(pair, progress, self._sharpness), None
        known, total, ratio = self._statistics(statistics), count_anchors(pair.shape), pair.grid.ratio
        kept: list[Tile] = []
        # where MS has no whole numbers, nobody knows how much a pixel may change
        whole = all(np.dtype(dataset.dtypes[0]).kind in "iu" for dataset in pair.ms)
        may_round = whole and has_bf16(self._device)

        def read() -> Iterator[Tile]:
            for tile in read_anchors(pair, partial(self.read_tile, pair)):
                if may_round and len(kept) < _JUDGES:
                    kept.append(tile)
                yield tile

        made: list[tuple[int, list[Any]]] = []
        with self._reproducibly(), _one_thread_each(self._device.type) as workers:
            for kernels in workers.map(lambda tiles: self._make_kernels(tiles, known, ratio), _alike(read())):
                made.append(kernels)
                progress(sum(count for count, _ in made), total, "kernels")
        self._kernels = _mean(made)
        self._model.lossy = bool(kept) and self._rounds_little(kept, statistics, ratio)

    def _make_kernels(
        self, tiles: "Sequence[Tile]", known: "Statistics", ratio: int, latent: "Tensor | None" = None
    ) -> "tuple[int, list[Tensor]]":
        """Return how many tiles, all of one form, there are, and the mean of their kernels."""
        given = {} if latent is None else {"latent": latent}
        pan, ms = np.stack([tile.pan for tile in tiles]), self._ms_of(tiles)
        kernels = self._model.kernels(self._images(pan), ms, known.expand(len(tiles)), ratio, self._noise, **given)
        return len(tiles), kernels

    def for_images(
        self, sensor: "Sensor", bands: int, ratio: int, geometry: "Geometry", sharpness: float = 0.0
    ) -> Callable[[Tile, SceneStatistics], Array]:
        """See :meth:`Fuser.for_images`: an image is a scene of its own, see :meth:`fuse_image`."""

        def fuse(tile: Tile, statistics: SceneStatistics) -> Array:
            self.observe(tile, sensor.mtf_ms, sharpness)
            return self.fuse_image(tile, statistics, ratio)

        return fuse

    def observe(self, tile: Tile, gains: Sequence[float], sharpness: float = 0.0) -> None:
        """See :meth:`Fuser.observe`, for a network that observes."""
        if self._model.observes and isinstance(tile, ObservedTile):
            self._sharpness = sharpness
            pan = resharpen(tile.pan[0], self._sharpness)
            self._camera = estimate_camera(pan, tile.ms, tile.grid, table_gains=gains)

    def fuse_image(
        self, tile: Tile, statistics: SceneStatistics, ratio: int, latents: "Sequence[Tensor]" = ()
    ) -> Array:
        """Sharpen an image without holes as a scene of its own: by the mean of the kernels that its anchors would have.

        Args:
            tile: the image.
            statistics: see :meth:`Fuser.fuse`.
            ratio: see :meth:`Fuser.fuse`.
            latents: z for its anchors, (R, S, C_z) each, in turn; () makes their own.

        Returns:
            See :meth:`Fuser.fuse`.
        """
        known, windows = self._statistics(statistics), cut_anchors(tile, ratio)
        given = [latents[at % len(latents)] if latents else None for at in range(len(windows))]
        with self._reproducibly(), _one_thread_each(self._device.type) as workers:
            make = partial(self._make_kernels, known=known, ratio=ratio)
            made = list(workers.map(lambda window, z: make([window], latent=z), windows, given))
        height, width = tile.valid.shape
        return self._start(self.send(tile), statistics, ratio, Box(0, 0, height, width), _mean(made))()

    def _rounds_little(self, tiles: Iterable[Tile], statistics: SceneStatistics, ratio: int) -> bool:
        """Say whether bfloat16 changes at most one pixel in a thousand of each band by more than 1 DN."""
        changed, pixels = np.zeros(len(statistics.ms_mean)), 0
        for tile in tiles:
            results = []
            for self._model.lossy in (False, True):
                results.append(np.rint(self.fuse(tile, statistics, ratio)[:, tile.valid]))
            changed += (np.abs(results[1] - results[0]) > 1).sum(1)
            pixels += results[0].shape[1]
        return bool(changed.max() <= _ROUGH * pixels)

    @property
    def model(self) -> "FusionModel":
        """The network."""
        return self._model

    @property
    def adapts(self) -> bool:
        """Whether it can be adapted to a scene."""
        from ksdiff_cli.models.ksdiff import KSDiff

        return isinstance(self._model, KSDiff) and self._model.observes and bool(self._model.network.adapts)

    @contextmanager
    def learning(self, statistics: SceneStatistics) -> "Iterator[tuple[KSDiff, Statistics, list[Tensor]]]":
        """Lend the network with what :meth:`prepare` learnt, to be trained: by one CPU thread, whose sums are its own.

        Args:
            statistics: of the scene.

        Yields:
            The network, the scene's statistics on its device, and its kernels.
        """
        from ksdiff_cli.models.ksdiff import KSDiff

        assert isinstance(self._model, KSDiff)
        with self._reproducibly(), _one_thread_each(self._device.type):
            yield self._model, self._statistics(statistics), self._kernels or []

    def load(self, tile: ObservedTile) -> "tuple[Tensor, Observed]":
        """Return a tile's PAN, (1, 1, H, W), and its MS, all of which is believed, on the network's device."""
        whole = Box(0, 0, *tile.valid.shape)
        return self._batch(tile.pan), place(tile.grid, whole, self._sharpness, self._batch(tile.ms))

    @property
    def needs_truth(self) -> bool:
        """Whether these are stage 1's weights, whose prior is made from the ground truth."""
        return self._model.needs_truth

    @property
    def has_prior(self) -> bool:
        """Whether it makes a z, so that :meth:`latents` can be asked for."""
        from ksdiff_cli.models.ksdiff import KSDiff

        return isinstance(self._model, KSDiff) and self._model.config.prior

    def latents(self, tile: Tile, statistics: SceneStatistics, ratio: int, gt: Array | None = None) -> "list[Tensor]":
        """Return the z of an image's anchors, as :meth:`fuse_image` takes them; see :meth:`latent`."""
        windows, places = cut_anchors(tile, ratio), place_anchors(tile.valid.shape, ratio)
        whole = Box(0, 0, *tile.valid.shape)
        truths = [None if gt is None else gt[:, *place.within(whole)] for place in places]
        return [self.latent(window, statistics, ratio, truth) for window, truth in zip(windows, truths, strict=True)]

    def latent(self, tile: Tile, statistics: SceneStatistics, ratio: int, gt: Array | None = None) -> "Tensor":
        """Return the prior's z for a tile.

        Args:
            tile: see :meth:`Fuser.fuse`.
            statistics: see :meth:`Fuser.fuse`.
            ratio: see :meth:`Fuser.fuse`.
            gt: (bands, H, W) DN, for stage 1's weights.

        Returns:
            (R, S, C_z) on the CPU; R is 1, or the bands where they share the network.

        Raises:
            KsdiffError: the network has no prior.
            ModelError: stage 1's weights without ``gt``.
        """
        import torch

        from ksdiff_cli.models.contract import pad_to_multiple
        from ksdiff_cli.models.ksdiff import KSDiff
        from ksdiff_cli.models.observation import Observed

        if not isinstance(self._model, KSDiff) or not self.has_prior:
            raise KsdiffError(f"{self._checkpoint}: its network has no prior to look at")
        side, ms = self._model.multiple, self._ms_of([tile])
        pan = pad_to_multiple(self._batch(tile.pan), side)
        ms = ms if isinstance(ms, Observed) else pad_to_multiple(ms, side)
        truth = None if gt is None else pad_to_multiple(self._batch(gt), side)
        with torch.no_grad(), self._reproducibly():
            inputs = self._model.prepare(pan, ms, self._statistics(statistics), ratio, truth)
            z = self._model.latent(inputs, self._noise)
        assert z is not None
        return z.cpu()

    def fuse(self, tile: Tile, statistics: SceneStatistics, ratio: int) -> Array:
        """See :meth:`Fuser.fuse`; after :meth:`prepare` all tiles get the scene's kernels, before it each its own."""
        height, width = tile.valid.shape
        return self.start(self.send(tile), statistics, ratio, Box(0, 0, height, width))()

    def send(self, tile: Tile) -> SentTile:
        if self._model.observes and isinstance(tile, ObservedTile):
            images = (tile.pan, tile.ms) if tile.belief is None else (tile.pan, tile.ms, tile.belief[None])
            return SentTile(tile.valid, self._transfer.send(*images), tile.grid)
        return SentTile(tile.valid, self._transfer.send(tile.pan, tile.ms_up))

    def start(self, tile: SentTile, statistics: SceneStatistics, ratio: int, core: Box) -> Callable[[], Array]:
        return self._start(tile, statistics, ratio, core, self._kernels)

    def _start(
        self, tile: SentTile, statistics: SceneStatistics, ratio: int, core: Box, kernels: "list[Tensor] | None"
    ) -> Callable[[], Array]:
        known = self._statistics(statistics)
        pan, *rest = (image[None] for image in self._transfer.receive(tile.images))
        whole = Box(0, 0, *tile.valid.shape)

        def fuse(seen: Box, wanted: Box) -> "Tensor":
            part = wanted.within(seen)
            ms = (
                rest[0][..., *seen.within(whole)]
                if tile.grid is None
                else place(tile.grid, seen, self._sharpness, *rest)
            )
            inside: dict[str, Any] = {"core": part} if self._model.trims else {}
            image = pan[..., *seen.within(whole)]
            fused = self._model.fuse(image, ms, known, ratio, self._noise, kernels=kernels, **inside)
            return fused if inside else fused[..., *part]

        with self._reproducibly():
            # a tile whose kernels are its own must not be divided
            fused = fuse(whole, core) if kernels is None else self._divider.run(fuse, whole, core)
        return self._transfer.fetch(fused[0].contiguous())

    def _ms_of(self, tiles: Sequence[Tile]) -> "Tensor | Observed":
        """Return what the network takes of the MS of tiles of one form, on the device."""
        first = tiles[0]
        if not (self._model.observes and isinstance(first, ObservedTile)):
            return self._images([tile.ms_up for tile in tiles])
        seen = [tile for tile in tiles if isinstance(tile, ObservedTile)]
        beliefs = [tile.belief[None] for tile in seen if tile.belief is not None]
        images = [self._images(each) for each in ([tile.ms for tile in seen], beliefs) if each]
        return place(first.grid, Box(0, 0, *first.valid.shape), self._sharpness, *images)

    def _batch(self, values: Any) -> "Tensor":
        return self._images([values])

    def _images(self, values: Any) -> "Tensor":
        import torch

        return torch.from_numpy(np.ascontiguousarray(values, np.float32)).to(self._device)

    def _statistics(self, scene: SceneStatistics) -> "Statistics":
        """Return a scene's statistics on the device; they go there once a scene."""
        from ksdiff_cli.models.contract import Statistics
        from ksdiff_cli.models.observation import Cameras

        kept, camera = self._known, self._camera
        if kept is None or kept[0] is not scene or kept[1] is not camera:
            pan_mean, pan_std = self._batch([scene.pan_mean]), self._batch([scene.pan_std])
            ms_mean, ms_std = self._batch(scene.ms_mean), self._batch(scene.ms_std)
            seen = None
            if camera is not None:
                numbers = [camera.gain], [camera.compensation], [camera.weights], [camera.offset], [camera.injection]
                seen = Cameras(*(self._batch(value)[0] for value in (*numbers, [camera.r2])))
            self._known = kept = scene, camera, Statistics(pan_mean, pan_std, ms_mean, ms_std, seen)
        return kept[2]

    def _reproducibly(self) -> AbstractContextManager[Any]:
        """Give the same bytes from the same command, on a GPU too."""
        import torch

        return torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False)

    def bytes_per_pixel(self, bands: int) -> int:
        """See :meth:`Fuser.bytes_per_pixel`: what the network's layers hold, and some images of the bands.

        Beside a GPU that is pinned memory for what goes there and comes back, in blocks of up to twice that size.
        """
        return 8 + 16 * bands if self._device.type == "cuda" else self._model.memory + 14 * bands

    def device_memory(self, bands: int) -> tuple[int, int] | None:
        """See :meth:`Fuser.device_memory`.

        Counted for all backbones as they run on a GPU, where all rows and all bands' branches are worked on
        at once; a quarter is for cuDNN.
        """
        free = free_memory(self._device)
        return None if free is None else (free, (self._model.memory + 80 * bands) * 5 // 4)

    def provenance(self) -> Mapping[str, str]:
        return self._provenance

    def findings(self) -> Mapping[str, str]:
        return {"PRECISION": "bf16" if self._model.lossy else "fp32"}

    def notes(self) -> list[str]:
        side = self._divider.side
        short = f"the GPU's memory is short: windows were fused in parts of {side} pixels" if side else ""
        return [note for note in (self._model.caveat, short) if note]


def _mean(made: "list[tuple[int, list[Tensor]]]") -> "list[Tensor] | None":
    """Return the mean of each kernel over windows, given as numbers of windows and their means; None without any."""
    if not made:
        return None
    total = sum(count for count, _ in made)
    weighted = ([kernel * (count / total) for kernel in kernels] for count, kernels in made)
    return [sum(each[1:], each[0]) for each in zip(*weighted, strict=True)]


def _alike(tiles: Iterable[Tile]) -> Iterator[list[Tile]]:
    """Put neighbours of one form together, a few at once: work on small images is mostly getting to it."""
    group: list[Tile] = []
    for tile in tiles:
        if group and (len(group) == _TOGETHER or _form(tile) != _form(group[0])):
            yield group
            group = []
        group.append(tile)
    if group:
        yield group


def _form(tile: Tile) -> tuple[Any, ...]:
    """Return what tiles must share to be one batch."""
    if not isinstance(tile, ObservedTile):
        return (tile.valid.shape,)
    return tile.valid.shape, tile.ms.shape, tile.grid, tile.belief is None


def place(grid: GridMap, seen: Box, sharpness: float, ms: "Tensor", belief: "Tensor | None" = None) -> "Observed":
    """Lay MS on a part of the PAN grid that its map belongs to.

    Args:
        grid: the map from the grid's pixels to those of MS.
        seen: the part.
        sharpness: of what is wanted, relative to PAN.
        ms: (N, bands, h, w).
        belief: (N, 1, h, w), see :class:`Observed`.
    """
    from ksdiff_cli.models.observation import AxisMap, Observed

    rows, cols = (AxisMap(axis.scale, axis.offset) for axis in vars(grid.shifted(seen.top, seen.left)).values())
    return Observed(ms, belief, rows, cols, sharpness)


@contextmanager
def _one_thread_each(device: str) -> Iterator[ThreadPoolExecutor]:
    """Work on several images at once, a CPU thread each: results do not depend on the number of threads then.

    Long sums, of which there are some where a network looks at an image as a whole, do depend on how they are shared.
    """
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(threads if device == "cpu" else 1) as workers:
            yield workers
    finally:
        torch.set_num_threads(threads)
