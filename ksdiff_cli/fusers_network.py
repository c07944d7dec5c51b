"""The network as a fuser: a checkpoint, what it learns from a scene, and its tiles."""

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ksdiff_cli.anchors import count_anchors, read_anchors
from ksdiff_cli.errors import KsdiffError
from ksdiff_cli.progress import ProgressCallback, silent
from ksdiff_cli.raster import ScenePair, SceneStatistics, Tile

if TYPE_CHECKING:
    from torch import Tensor

    from ksdiff_cli.models.contract import Statistics

Array = NDArray[Any]


class Network:
    """``ksdiff``: a network from its checkpoint, through the model contract."""

    def __init__(self, checkpoint: Path, device: str = "auto", seed: int = 0, *, stage1: bool = False) -> None:
        """Load the weights.

        Args:
            checkpoint: ``.safetensors``, as ``ksdiff train`` writes it.
            device: see :func:`ksdiff_cli.devices.pick_device`.
            seed: of z_T, drawn once for the scene and shared by all its tiles.
            stage1: take stage 1's weights too; they only fuse with a latent given.

        Raises:
            KsdiffError: no such device, or the weights are not made for sharpening.
            ModelError: the checkpoint cannot be used.
        """
        from ksdiff_cli.devices import pick_device
        from ksdiff_cli.models.checkpoint import load_model, weights_hash

        self._device = pick_device(device)
        self._model, _ = load_model(checkpoint, self._device)
        if self._model.needs_truth and not stage1:
            raise KsdiffError(
                f"{checkpoint}: holds stage 1, whose prior needs the ground truth; train stage 2 and give its weights"
            )
        self._checkpoint = checkpoint
        self._noise = self._model.noise(seed)
        self._kernels: list[Any] | None = None
        self._provenance = {"METHOD": "ksdiff", "WEIGHTS": weights_hash(checkpoint), "SEED": str(seed)}

    def check(self, bands: int, ratio: int) -> None:
        """See :meth:`Fuser.check`."""
        self._model.check(bands, ratio)

    def reach(self, ratio: int) -> int:
        """See :meth:`Surveyor.reach`."""
        return self._model.margin

    def prepare(self, pair: ScenePair, statistics: SceneStatistics, progress: ProgressCallback = silent) -> None:
        """See :meth:`Surveyor.prepare`: the scene's kernels are the mean of those that its anchors would have."""
        known, total = self._statistics(statistics), count_anchors(pair.shape)

        def make(tile: Tile) -> "list[Tensor]":
            images = self._batch(tile.pan), self._batch(tile.ms_up)
            return self._model.kernels(*images, known, pair.grid.ratio, self._noise)

        made: list[list[Any]] = []
        with self._reproducibly(), _one_thread_each(self._device.type) as workers:
            for kernels in workers.map(make, read_anchors(pair)):
                made.append(kernels)
                progress(len(made), total, "kernels")
        self._kernels = [sum(each) / len(made) for each in zip(*made, strict=True)] if made else None

    @property
    def needs_truth(self) -> bool:
        """Whether these are stage 1's weights, whose prior is made from the ground truth."""
        return self._model.needs_truth

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

        if not isinstance(self._model, KSDiff) or not self._model.config.prior:
            raise KsdiffError(f"{self._checkpoint}: its network has no prior to look at")
        side = self._model.multiple
        pan, ms_up = (pad_to_multiple(self._batch(image), side) for image in (tile.pan, tile.ms_up))
        truth = None if gt is None else pad_to_multiple(self._batch(gt), side)
        with torch.no_grad(), self._reproducibly():
            inputs = self._model.prepare(pan, ms_up, self._statistics(statistics), ratio, truth)
            z = self._model.latent(inputs, self._noise)
        assert z is not None
        return z.cpu()

    def fuse(self, tile: Tile, statistics: SceneStatistics, ratio: int, latent: "Tensor | None" = None) -> Array:
        """See :meth:`Fuser.fuse`.

        After :meth:`prepare` all tiles get the scene's kernels, before it each its own; a ``latent``, as :meth:`latent`
        returns one, takes the place of that which a tile's kernels would be made from.
        """
        given: dict[str, Any] = {"kernels": self._kernels} if latent is None else {"latent": latent}
        images = self._batch(tile.pan), self._batch(tile.ms_up), self._statistics(statistics)
        with self._reproducibly():
            fused = self._model.fuse(*images, ratio, self._noise, **given)
        result: Array = fused[0].cpu().numpy()
        return result

    def _batch(self, values: Any) -> "Tensor":
        import torch

        array = np.ascontiguousarray(values, np.float32)
        return torch.from_numpy(array)[None].to(self._device)

    def _statistics(self, scene: SceneStatistics) -> "Statistics":
        from ksdiff_cli.models.contract import Statistics

        values = [scene.pan_mean], [scene.pan_std], scene.ms_mean, scene.ms_std
        return Statistics(*map(self._batch, values))

    def _reproducibly(self) -> AbstractContextManager[Any]:
        """Give the same bytes from the same command, on a GPU too."""
        import torch

        return torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False)

    def bytes_per_pixel(self, bands: int) -> int:
        """See :meth:`Fuser.bytes_per_pixel`: what the network's layers hold, and some images of the bands."""
        return self._model.memory + 14 * bands

    def provenance(self) -> Mapping[str, str]:
        """See :meth:`Fuser.provenance`."""
        return self._provenance


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
